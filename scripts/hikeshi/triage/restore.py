"""Drift → the steps that undo it, and the steps that undo these again. Pure.

For what no rule has a name for: what differs from the baseline is put back, one difference at a time, and stays so only
if what suffers recovers. People change servers for good reasons, and nothing else of theirs is touched.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from hikeshi.triage.drift import Drift
from hikeshi.triage.findings import Evidence, Finding, Step
from hikeshi.triage.plan import Planned

ROLE = "file_restore"
_UNDOING: dict[tuple[str, str], Literal["disk", "live"]] = {
    (ROLE, "put_back"): "disk",
    ("host_base", "path_mode"): "disk",
    (ROLE, "reread"): "live",
}
# What decides who gets in, wherever sshd listens: its sockets, and the firewall that the next boot loads.
LOGIN = ("/etc/ssh", "/etc/default/ssh", "/etc/systemd/system/ssh.service", "/etc/systemd/system/ssh.service.d",
         "/etc/systemd/system/ssh.socket", "/etc/systemd/system/ssh.socket.d", "/etc/systemd/system/ssh@.service.d",
         "/etc/iptables", "/etc/nftables.conf", "/etc/nftables.d", "/etc/ufw", "/etc/default/ufw", "/etc/firewalld",
         "/etc/hosts.allow", "/etc/hosts.deny", "/etc/pam.d", "/etc/security", "/etc/sudoers", "/etc/sudoers.d",
         "/etc/nologin", "/etc/login.defs", "/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow",
         "/etc/nsswitch.conf")  # fmt: skip

# What may act on other hosts, or by itself at any moment, is not tried for a unit that serves no customer.
_FAR = ("/etc/cron", "/etc/anacrontab", "/var/spool/cron", "/etc/hosts", "/etc/resolv.conf", "/etc/network",
        "/etc/netplan", "/etc/systemd/network")  # fmt: skip
_MASTERS = {"sudo", "wheel", "root", "admin", "adm", "docker", "lxd"}  # groups whose members rule the host


@dataclass(frozen=True)
class Restoration:
    """One difference, the steps that put back what was, and those that take that back."""

    drift: Drift
    steps: tuple[Step, ...]
    undo: tuple[Step, ...]

    @property
    def words(self) -> str:
        """What is put back, in one line."""
        return f"{self.drift.host} · {self.drift.subject} ({self.drift.words})"


def read_undo(data: object) -> tuple[Step, ...]:
    """Return the undoing steps that a journal's record tells of; none where it tells of others, or of none."""
    if not isinstance(data, list):
        return ()
    found = []
    for item in data:
        if not isinstance(item, dict) or not isinstance(item.get("args"), dict):
            return ()
        host, role, verb = (str(item.get(key)) for key in ("host", "role", "step"))
        kind = _UNDOING.get((role, verb))
        if kind is None:
            return ()
        found.append(Step(host, role, verb, kind, {str(key): str(value) for key, value in item["args"].items()}))
    return tuple(found)


def restorations(
    drifts: Sequence[Drift],
    texts: Mapping[str, Mapping[str, str]],
    evidence: Mapping[str, Evidence],
    hurt: Collection[tuple[str, str]] = (),
    accounts: Mapping[str, Collection[str]] = MappingProxyType({}),
    *,
    gently: bool = False,
    trial: str = "",
) -> list[Restoration]:
    """Return what can be put back: first what a unit reads that suffers, else in the order of the differences.

    `hurt`: hosts and subjects of findings; a unit among them that belongs to no role is started again with whatever is
    put back on its host, because nobody knows what it reads. `gently`: customers are served meanwhile, so a unit that
    does not suffer is reloaded and not restarted. `trial`: marks what the steps do, so that only this is undone, and
    only once.

    `accounts`: host → those under which units ran; of people nobody is made again.

    `texts`: host → path → name of the text that the baseline keeps. Left out is what it keeps no text of (a secret, or
    what is too long), what has no step (a package, a listening socket), and what decides who gets in: of that a change
    is proved with a new login (remote_access), never tried; of a firewall, at the next boot, by nobody.
    """
    found = []
    for item in drifts:
        step = _step(item, texts.get(item.host, {}), trial)
        path = step.args.get("path", "") if step else ""
        if step is None or any(path == place or path.startswith(f"{place}/") for place in LOGIN):
            continue
        if step.step == "user" and not _is_of_a_program(step, accounts.get(item.host, ())):
            continue
        subjects = evidence[item.host]["subjects"]
        foreign = sorted(
            _units(item.host, hurt) - {unit["name"] for owner in subjects for unit in owner.get("units") or []}
        )
        again = tuple(
            Step(item.host, ROLE, "reread", "live", {"unit": unit, "how": how, **({"path": path} if path else {})})
            for unit in dict.fromkeys([*_readers(path, subjects), *foreign])
            for how in ["reload" if gently and (item.host, f"unit:{unit}") not in hurt else "restart"]
        )
        undo = _undo(item, step, trial)
        found.append(Restoration(item, (step, *again), (undo, *again) if undo else ()))

    def elsewhere(made: Restoration) -> bool:
        path, host = made.steps[0].args.get("path", ""), made.drift.host
        units = _units(host, hurt)
        return not (
            any(_is_of(path, unit) for unit in units) or units.intersection(_readers(path, evidence[host]["subjects"]))
        )

    # What cannot be taken back comes last.
    return sorted(found, key=lambda made: (elsewhere(made), not made.undo))


def pointed_at(
    drifts: Sequence[Drift], left: Sequence[Finding], evidence: Mapping[str, Evidence],
    texts: Mapping[str, Mapping[str, str]],
) -> list[Planned]:  # fmt: skip
    """Return the steps that put back what findings point at by name, and no step of theirs mended; for good, on a disk.

    That is the file that a service refuses, the path that is wrong, and the files of a unit that is not there as it
    was. Whether that helps, nobody can try there as on a host; so nothing else is put back, whatever differs.
    """
    found = []
    for item in drifts:
        path, mine = item.subject.partition(":")[2], [finding for finding in left if finding.host == item.host]
        because = tuple(finding for finding in mine if _points_at(finding, path, evidence))
        step = _step(item, texts.get(item.host, {}), "") if because and item.kind == "file" else None
        if step:
            found.append(Planned(step, because))
    return found


def _points_at(finding: Finding, path: str, evidence: Mapping[str, Evidence]) -> bool:
    kind, _, name = finding.subject.partition(":")
    if kind == "config":
        return bool(evidence[finding.host]["configs"].get(name, {}).get("file") == path)
    return (kind == "path" and name == path) or (kind == "unit" and _is_of(path, name))


def _is_of_a_program(step: Step, accounts: Collection[str]) -> bool:
    """Say whether an account is one that a unit ran as, and rules nothing."""
    return step.args["name"] in accounts and not _MASTERS.intersection(step.args["groups"].replace(",", " ").split())


def for_units_of_others(options: Sequence[Restoration], failed: Collection[Drift]) -> list[Restoration]:
    """Return those that may help units which failed and serve no customer: on their host, and near to nobody else."""
    own = {(item.host, str((item.before or {}).get("user", ""))) for item in failed}
    return [
        made
        for made in options
        if any(made.drift.host == item.host for item in failed)
        and not made.drift.near
        and (made.drift.kind != "user" or (made.drift.host, made.drift.subject.partition(":")[2]) in own)
        and not made.steps[0].args.get("path", "").startswith(_FAR)
        and not made.steps[0].args.get("path", "").endswith(".timer")
    ]


def accounts_of(facts: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Return as whom the units of a host ran."""
    return {str(fields["user"]) for subject, fields in facts.items() if subject[:5] == "unit:" and fields.get("user")}


def _units(host: str, hurt: Collection[tuple[str, str]]) -> set[str]:
    return {subject.partition(":")[2] for at, subject in hurt if at == host and subject.startswith("unit:")}


def _is_of(path: str, unit: str) -> bool:
    """Say whether a file is a unit's own, or one of its drop-ins."""
    return f"/{unit}.d/" in path or path.endswith(f"/{unit}")


def _undo(item: Drift, step: Step, trial: str) -> Step | None:
    """Return the step that takes another back; an account that was made again stays: files may be its own by now."""
    if step.step == "user":
        return None
    if step.step == "path_mode":
        return Step(item.host, step.role, step.step, "disk", {"path": step.args["path"], **_attributes(item.after)})
    return Step(item.host, ROLE, "put_back", "disk", {"path": step.args["path"], "trial": trial})


def _attributes(fields: Mapping[str, Any] | None) -> dict[str, str]:
    return {key: str((fields or {}).get(key, "")) for key in ("mode", "owner", "group")}


def _step(item: Drift, texts: Mapping[str, str], trial: str) -> Step | None:
    name = item.subject.partition(":")[2]
    before: Mapping[str, Any] = item.before or {}

    def step(verb: str, **args: Any) -> Step:
        return Step(item.host, ROLE, verb, "disk", {key: str(value) for key, value in args.items()})

    if item.kind == "user" and item.before and item.after is None:
        numbers = {key: before.get(key, "") for key in ("uid", "gid", "home", "shell", "groups")}
        return step("user", name=name, **numbers)
    if item.kind != "file":
        return None
    if item.before is None:
        return (
            step("move_aside", path=name, trial=trial) if (item.after or {}).get("kind") in ("file", "link") else None
        )
    attributes = _attributes(before)
    if before.get("kind") == "link":
        return step("link", path=name, target=before.get("link", ""), trial=trial)
    if set(item.differences) & {"digest", "kind"} or item.after is None:
        known = before.get("kind") == "file" and name in texts
        return step("file", path=name, **attributes, text=texts[name], trial=trial) if known else None
    return Step(item.host, "host_base", "path_mode", "disk", {"path": name, **attributes})


def _readers(path: str, subjects: Sequence[Evidence]) -> list[str]:
    """Return the units that read a file: the one that it is or belongs to, else those of the role where it lies."""
    for subject in subjects:
        if own := [unit for unit in _services(subject) if _is_of(path, unit)]:
            return own
    for subject in subjects:
        places = [item["path"] for key in ("paths", "directories") for item in subject.get(key) or []]
        places += subject.get("roots") or []
        if subject.get("serves", "customers") == "customers" and any(
            path == place or path.startswith(f"{place}/") for place in places
        ):
            return _services(subject)
    return []


def _services(subject: Evidence) -> list[str]:
    """Return the services of a role that run all the time."""
    return [
        unit["name"]
        for unit in subject.get("units") or []
        if unit["name"].endswith(".service") and not unit.get("oneshot")
    ]
