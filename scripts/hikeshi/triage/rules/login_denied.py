"""sshd is kept from starting, or told to let the account of automation not in: by a file, by its settings, by rules."""

from collections.abc import Iterator, Sequence

from hikeshi.triage import login
from hikeshi.triage.findings import Effect, Evidence, Finding, Step, on_disk
from hikeshi.triage.login import Line

ON_DISK = True
BOOTING = "/run/nologin"  # the boot's own: boot_stuck judges it
_OF_UNIT = "RuntimeDirectory"


def find(evidence: Evidence) -> Iterator[Finding]:
    """Take away what keeps everybody out, line by line: what else people wrote into such a file is theirs."""
    for subject in login.owners(evidence):
        yield from _shut(evidence, subject)
        yield from _refused(evidence, subject)
        yield from _denied(evidence, subject)
        yield from _wrapped(evidence, subject)
        yield from _without_directory(evidence, subject)


def _finding(evidence: Evidence, subject: str, cause: str, quote: str, remedy: Sequence[Step]) -> Finding:
    return Finding(
        rule="login_denied",
        host=evidence["host"],
        subject=subject,
        effect=Effect.CANNOT_BE_REPAIRED,
        cause=cause,
        quote=quote,
        remedy=_once(remedy),
    )


def _once(steps: Sequence[Step]) -> tuple[Step, ...]:
    return tuple({step.key: step for step in steps}.values())


def _shut(evidence: Evidence, subject: Evidence) -> Iterator[Finding]:
    for path in evidence["way_in"]["shut"]:
        if path == BOOTING:
            continue
        who = (
            "sshd is not started" if path.startswith("/etc/ssh/") else "nobody but root gets in, at the console as well"
        )
        step = Step(evidence["host"], subject["role"], "nologin", "disk", {"path": path})
        yield _finding(evidence, f"access:{path}", f"{path} is there: {who}", f"{path}: it exists", [step])


def _step(evidence: Evidence, subject: Evidence, line: Line, to: str = "") -> Step:
    """Return what mends a line: a file of the role's own is written again, in others only the line is changed."""
    own = {item["path"]: item.get("restore_step") for item in subject.get("paths") or []}
    mend = subject.get("configuration_step")
    if mend and own.get(line["file"]) == mend and line["file"].endswith(".conf"):
        return Step(evidence["host"], subject["role"], mend, "disk")
    return login.line_step(evidence["host"], subject["role"], line, to)


def _refused(evidence: Evidence, subject: Evidence) -> Iterator[Finding]:
    """Judge by its text what sshd itself judges where it can be asked."""
    wrong = [(line, why) for line in evidence["way_in"]["sshd"] if (why := login.refused(line["words"]))]
    if wrong and on_disk(evidence):
        line, why = wrong[0]
        cause = f"sshd refuses its configuration, in {line['file']}: {why}"
        steps = [_step(evidence, subject, line) for line, _ in wrong]
        yield _finding(evidence, "config:sshd", cause, f"{line['file']}: {line['words']}", steps)


def _denied(evidence: Evidence, subject: Evidence) -> Iterator[Finding]:
    found: dict[str, list[tuple[Line, str, str]]] = {}
    for name in subject["accounts"]:
        account = evidence["way_in"]["accounts"].get(name)
        for line, why, to in login.shutting(evidence["way_in"]["sshd"], name, account["groups"] if account else []):
            found.setdefault(line["file"], []).append((line, why, to))
    for file, lines in found.items():
        cause = f"sshd lets us in no more, by {file}: " + "; ".join(dict.fromkeys(why for _, why, _ in lines))
        steps = [_step(evidence, subject, line, to) for line, _, to in lines]
        yield _finding(evidence, f"access:{file}", cause, lines[0][0]["words"], steps)


def _wrapped(evidence: Evidence, subject: Evidence) -> Iterator[Finding]:
    for rule, to in login.wrapped_out(evidence["way_in"]["wrappers"]):
        cause = f"{rule['file']} refuses sshd to everybody: a connection is closed at once"
        step = login.line_step(evidence["host"], subject["role"], rule, to)
        yield _finding(evidence, f"access:{rule['file']}", cause, rule["words"], [step])


def _without_directory(evidence: Evidence, subject: Evidence) -> Iterator[Finding]:
    """Judge whether sshd's unit still makes the directory in /run without which sshd does not start."""
    lines = [line for line in evidence["way_in"]["ssh_unit"] if line["key"] == _OF_UNIT]
    made = {"sshd"}
    for line in lines:
        made = made | set(line["value"].split()) if line["value"] else set()
    if "sshd" in made:
        return
    emptied = [line for line in lines if not line["value"]]
    cause = f"{emptied[-1]['file']} keeps systemd from making /run/sshd, without which sshd does not start"
    steps = [login.line_step(evidence["host"], subject["role"], line) for line in emptied]
    yield _finding(evidence, f"access:{emptied[-1]['file']}", cause, emptied[-1]["words"], steps)
