"""PAM's rules name a module or a file that is not there: it then lets nobody in, or gives nobody a session."""

from collections.abc import Iterator
from pathlib import PurePosixPath

from hikeshi.triage import login
from hikeshi.triage.findings import Effect, Evidence, Finding, Step
from hikeshi.triage.login import Line

ON_DISK = True


def find(evidence: Evidence) -> Iterator[Finding]:
    """Put a file back as it was on a healthy day; where that is not known, take away what is no question of passwords.

    A line of `auth` that is taken away could let in who should not be: of that it is only told. Nor is a file touched
    that is as it was: then the module is gone, and its package has to be installed again.
    """
    for subject in login.owners(evidence):
        files: dict[str, list[Line]] = {}
        for line in evidence["way_in"]["modules"]:
            # A line that is passed over when it says yes lets nobody pass by what denies everybody after it.
            jumps = line["control"].startswith("[success=") and login.kept_text(evidence, line["file"])
            if jumps or login.stops_login(line["control"]):
                files.setdefault(line["file"], []).append(line)
        for file, lines in files.items():
            names = ", ".join(dict.fromkeys(line["name"] for line in lines))
            remedy = _remedy(evidence, subject, file, lines)
            yield Finding(
                rule="login_modules",
                host=evidence["host"],
                subject=f"access:{file}",
                effect=Effect.CANNOT_BE_REPAIRED,
                cause=f"{file} names {names}, which is not there: PAM refuses whoever comes"
                + ("" if remedy else "; the package that brings it has to be installed again"),
                quote=lines[0]["words"],
                remedy=remedy,
            )


def _remedy(evidence: Evidence, subject: Evidence, file: str, lines: list[Line]) -> tuple[Step, ...]:
    host, role = evidence["host"], subject["role"]
    # What is included and is gone is put back itself; the file that includes it is as it should be.
    lost = [str(PurePosixPath("/etc/pam.d", line["name"])) for line in lines if line["control"] in _INCLUDES]
    kept = [login.kept_text(evidence, path) for path in lost or [file]]
    if all(kept):
        return tuple(Step(host, role, "login_file", "disk", args) for args in kept if args)
    changed = login.is_new(evidence, f"file:{file}") is not False or login.kept_text(evidence, file)
    unknown = not (evidence.get("healthy") or {}).get("texts", {}).get(file)
    if (changed or unknown) and all(line["kind"] in ("account", "session", "password") for line in lines):
        return tuple(login.line_step(host, role, line) for line in lines)
    return ()


_INCLUDES = ("@include", "include", "substack")
