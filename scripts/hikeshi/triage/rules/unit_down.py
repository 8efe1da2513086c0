"""A unit that should run and start at boot does not."""

import re
from collections.abc import Iterator

from hikeshi.triage.findings import Effect, Evidence, Finding, Step, effect_of_down, effect_of_risk

ON_DISK = True


def find(evidence: Evidence) -> Iterator[Finding]:
    """Compare each unit a role owns with what systemd says of it.

    A missing or masked unit file of a role's own is written again by that role; everything else is systemd's business.
    One that runs and ends need not be active: job_failed judges how it ended.
    """
    host = evidence["host"]
    for subject in evidence["subjects"]:
        mounting = {mount["unit"]: mount["path"] for mount in subject.get("mounts") or []}
        for unit in subject.get("units") or []:
            name, seen = unit["name"], evidence["units"].get(unit["name"])
            if seen is None:
                continue
            lost = seen["load"] in ("masked", "not-found", "bad-setting", "error")
            disabled = bool(unit.get("enabled")) and seen["enabled"] not in ("enabled", "static", "enabled-runtime")
            down = seen["active"] not in ("active", "") and not unit.get("oneshot")  # "": a disk does not tell
            if not (lost or disabled or down):
                continue
            remedy: list[Step] = []
            if lost and unit.get("restore_step"):
                remedy.append(Step(host, subject["role"], unit["restore_step"], "disk"))
            if lost or disabled:
                remedy.append(Step(host, "host_base", "unit_enable", "disk", {"unit": name}))
            if (lost or down) and not unit.get("oneshot"):
                remedy.append(Step(host, "host_base", "unit_start", "live", {"unit": name}))
            state = "is " + " and ".join(
                words
                for words, true in (
                    (seen["load"], lost),
                    ("not enabled: it will not start at boot", disabled and not lost),
                    ("not running", down),
                )
                if true
            )
            if down and _gave_up(seen):
                state += "; systemd gave up after too many failed starts"
            worst = Effect.CANNOT_SEE if name in mounting else effect_of_down(subject)
            yield Finding(
                rule="unit_down",
                host=host,
                subject=f"unit:{name}",
                effect=worst if down else effect_of_risk(subject),
                cause=f"{name} {state}" + (f"; {mounting[name]} is not mounted" if name in mounting and down else ""),
                quote=f"{seen['load']}, {seen['enabled'] or 'no unit file'}, {seen['active']} ({seen['result'] or '-'})"
                + _last_words(seen["log"]),
                remedy=tuple(remedy),
                symptom=not lost and not disabled,
            )


def _gave_up(seen: Evidence) -> bool:
    """Say whether systemd refuses to start a unit; its result tells that only where the starts before did not fail."""
    tries = [line for line in seen["log"] if line.startswith("Starting ") or _REFUSAL in line]
    refused = seen["result"] == "start-limit-hit" or (bool(tries) and _REFUSAL in tries[-1])
    return seen["active"] == "failed" and refused


_REFUSAL = "Start request repeated too quickly"
# systemd's own frame around every stop and failure; what stands between says why.
_FRAME = re.compile(
    r"(Stopping|Stopped|Starting|Started|Failed to start|Dependency failed) "
    r"|.*: (Deactivated|Failed with result|Scheduled restart|Start request repeated|Consumed)"
    r"|.*: (Main|Control) process exited"
    r"|.*\[ERROR\] Aborting"
)


def _last_words(log: list[str]) -> str:
    telling = [line for line in log if not _FRAME.match(line)]
    return f"; last words: {(telling or log)[-1]}" if log else ""
