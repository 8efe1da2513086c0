"""What differs from the baseline, the recorded state of a healthy day. Pure.

Nothing here knows what a file or a unit is for: a subject with its fields is compared with the same subject then. So a
change is seen that no rule has a name for. Drift alone is no finding: people change servers for good reasons.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hikeshi.triage.findings import Effect, Evidence, Finding

Fields = Mapping[str, Any]
Facts = Mapping[str, Fields]  # of one host: subject → fields, see roles/evidence/module_utils/hikeshi_state.py

# What differs by itself from one healthy day to the next.
_RESTLESS_KINDS = ("boot",)
_RESTLESS_FIELDS = {
    "file": {"changed", "secret"},  # secret follows from modes, its own or those above
    "mount": {"source"},  # loop devices are numbered as they come
    "time": {"synchronized"},
    "unit": {"condition", "user"},  # as whom it runs its file says, too
}
_RESTLESS = ("file:/var/spool/cron/atjobs/.SEQ",)
# Which subjects a source of the collector tells; where it was cut short, what is not told is not gone.
_TOLD_BY = {
    "state: files": ("file",), "state: accounts": ("user", "group"), "state: units": ("unit",),
    "state: mounts": ("mount",), "state: listeners": ("listen",), "state: sshd": ("sshd",),
    "state: mariadb": ("mariadb",), "state: host_keys": ("host_key",), "state: firewall": ("firewall",),
    "state: packages": ("package",), "state: pam": ("pam",), "state: certificates": ("certificate",),
    "state: sysctls": ("sysctl",),
}  # fmt: skip
DIFF_LINES, COMPARED_LINES = 40, 5000
FAILED = "unit_failed"  # the one finding that leans on the baseline


@dataclass(frozen=True)
class Drift:
    """One subject that differs: `before` or `after` is None where there was or is none."""

    host: str
    subject: str
    before: Fields | None
    after: Fields | None
    near: bool = False  # it belongs to what serves the shop's customers

    @property
    def kind(self) -> str:
        """The kind of the subject: file, unit, user …"""
        return self.subject.partition(":")[0]

    @property
    def changed(self) -> int:
        """When it was changed, in seconds since the epoch, where that is known; else 0."""
        at = (self.after or {}).get("changed")
        return at if isinstance(at, int) else 0  # hosts may say anything

    @property
    def differences(self) -> list[str]:
        """The names of the fields that differ."""
        return _differing(self.kind, self.before or {}, self.after or {})

    @property
    def words(self) -> str:
        """What became of it, in one line."""
        if self.before is None:
            return "is new" + _short(self.kind, self.after or {})
        if self.after is None:
            return "is gone" + _short(self.kind, self.before)
        return "; ".join(_change(name, self.before.get(name), self.after.get(name)) for name in self.differences)


def compare(
    host: str, before: Facts, after: Facts, subjects: Sequence[Evidence] = (), unseen: Sequence[Evidence] = ()
) -> list[Drift]:
    """Return what differs on one host: what serves customers first, then the newest, then by name.

    A kind of which nothing at all is seen now could not be looked at (a database that is down tells no settings): that
    is no drift, and the evidence says what was not seen (`unseen`).
    """
    seen = {subject.partition(":")[0] for subject in after}
    unsure = {kind for item in unseen for kind in _TOLD_BY.get(item["source"], ())}
    found = []
    for subject in sorted(before.keys() | after.keys()):
        kind = subject.partition(":")[0]
        if kind in _RESTLESS_KINDS or subject in _RESTLESS or kind not in seen:
            continue
        then, now = before.get(subject), after.get(subject)
        if now is None and kind in unsure:
            continue
        if then is None or now is None or _differing(kind, then, now):
            found.append(Drift(host, subject, then, now, _near(subject, subjects)))
    above = _above(found)
    found = [item for item in found if item.subject not in above or not _is_directory_that_came_or_went(item)]
    return sorted(found, key=lambda drift: (not drift.near, -drift.changed, drift.subject))


def failed(drifts: Sequence[Drift], evidence: Mapping[str, Evidence]) -> list[Finding]:
    """Return a finding for each unit that failed since, of those that belong to no role: no rule knows them."""
    owned = {
        (host, f"unit:{unit['name']}")
        for host, seen in evidence.items()
        for subject in seen["subjects"]
        for unit in subject.get("units") or []
    }
    return [
        Finding(
            rule=FAILED,
            host=item.host,
            subject=item.subject,
            effect=Effect.UNTIDY,
            cause=f"{item.subject.partition(':')[2]} failed; it ran when the baseline was recorded",
            quote=item.words,
            remedy=(),
        )
        for item in drifts
        if item.kind == "unit" and "active" in item.differences and (item.host, item.subject) not in owned
    ]


def difference(before: str, after: str) -> list[str]:
    """Return how a file's text differs, as a unified difference without its head, at most DIFF_LINES lines.

    Two long texts are not compared: that can take the longer the worse they are meant.
    """
    then, now = before.splitlines(), after.splitlines()
    if len(then) * len(now) > COMPARED_LINES**2:
        return [f"… {len(then)} lines became {len(now)}: too many to be compared one by one"]
    told = list(difflib.unified_diff(then, now, lineterm="", n=1))[2:]
    return told if len(told) <= DIFF_LINES else [*told[:DIFF_LINES], f"… and {len(told) - DIFF_LINES} more lines"]


def _is_directory_that_came_or_went(item: Drift) -> bool:
    fields = item.after if item.before is None else item.before if item.after is None else None
    return fields is not None and item.kind == "file" and fields.get("kind") == "directory"


def _above(found: Sequence[Drift]) -> set[str]:
    """Return the subjects of all directories that something of this lies in."""
    above: set[str] = set()
    for item in found:
        place = item.subject.rpartition("/")[0]
        while place and place not in above:
            above.add(place)
            place = place.rpartition("/")[0]
    return above


def _differing(kind: str, before: Fields, after: Fields) -> list[str]:
    names = [
        name for name in dict.fromkeys([*before, *after])
        if before.get(name) != after.get(name) and name not in _RESTLESS_FIELDS.get(kind, ())
    ]  # fmt: skip
    if "digest" in names and "size" in names:
        names.remove("size")
    if kind == "unit" and "active" in names and (before.get("active"), after.get("active")) != ("active", "failed"):
        # What runs and ends is caught in the middle now and then; that a service is down, a rule says.
        names.remove("active")
    return names


def _change(name: str, before: Any, after: Any) -> str:
    if name == "digest":
        return "its content was changed"
    return f"{name} {_value(before)} → {_value(after)}"


def _value(value: Any) -> str:
    text = " ".join(str(value).split()) if value not in ("", None) else "none"
    return text if len(text) <= 120 else f"{text[:120]}…"


def _short(kind: str, fields: Fields) -> str:
    wanted = {"file": ("kind", "mode", "owner", "link"), "user": ("uid", "shell"), "unit": ("enabled",)}
    told = [
        f"{name} {fields[name]}" for name in wanted.get(kind, list(fields)[:2]) if fields.get(name) not in ("", None)
    ]
    return f" ({_value(', '.join(told))})" if told else ""


def _near(subject: str, subjects: Sequence[Evidence]) -> bool:
    """Return whether something belongs to a role that serves customers: its paths, directories, units."""
    kind, _, name = subject.partition(":")
    for owner in subjects:
        if owner.get("serves", "customers") != "customers":
            continue
        places = [item["path"] for key in ("paths", "directories", "mounts") for item in owner.get(key) or []]
        places += owner.get("roots") or []
        if kind in ("file", "mount") and any(name == place or name.startswith(f"{place}/") for place in places):
            return True
        units = [unit["name"] for unit in owner.get("units") or []]
        if name in units or any(f"/{unit}.d/" in name for unit in units):
            return True
        if kind == "mariadb" and owner.get("database"):
            return True
    return False
