"""A boot does not come to where people are let in: it waits for a unit, or fails with one and asks at the console."""

from collections.abc import Iterator

from hikeshi.triage import login
from hikeshi.triage.findings import Effect, Evidence, Finding, Step, on_disk

ON_DISK = True
BOOTING = "/run/nologin"
LETS_IN = "systemd-user-sessions.service"
QUICK_S = 120  # a boot may take that long, and nothing is stuck


def find(evidence: Evidence) -> Iterator[Finding]:
    """Have a boot go on without what people added to it; what is a role's own, or was there on a healthy day, stays.

    A unit that is needed is wanted from now on (`nofail`), one that is waited for without end is no longer started.
    """
    for subject in login.owners(evidence):
        own = {unit["name"] for owner in evidence["subjects"] for unit in owner.get("units") or []}
        way_in = evidence["way_in"]
        stuck = _stuck(evidence)
        told = set()
        for item in way_in["boot"]:
            unit, why = item["unit"], _why(evidence, item, stuck)
            if unit in own or not why:
                continue
            told.add(unit)
            steps = [Step(evidence["host"], subject["role"], "boot_link", "disk", {"link": item["link"]})]
            steps += _let_go(evidence, subject, unit, stuck)
            yield _finding(
                evidence, unit, why, f"{item['link']}: {item['waits'] or item['source'] or item['type']}", steps
            )
        for unit in stuck:
            if unit not in told and unit not in own:
                why = "the boot still waits for it, and nobody but root is let in before that"
                yield _finding(evidence, unit, why, f"{unit}: start, running", _let_go(evidence, subject, unit, stuck))


def _finding(evidence: Evidence, unit: str, why: str, quote: str, steps: list[Step]) -> Finding:
    works = not on_disk(evidence) and BOOTING not in evidence["way_in"]["shut"]
    return Finding(
        rule="boot_stuck",
        host=evidence["host"],
        subject=f"unit:{unit}",
        effect=Effect.WILL_BREAK if works else Effect.CANNOT_BE_REPAIRED,
        cause=f"{unit}: {why}",
        quote=quote,
        remedy=tuple(steps),
    )


def _stuck(evidence: Evidence) -> list[str]:
    """Return the units for which a boot waits that should be over."""
    way_in, boot = evidence["way_in"], evidence.get("boot") or {}
    waiting = any(job["unit"] == LETS_IN and job["state"] == "waiting" for job in way_in["jobs"])
    if BOOTING not in way_in["shut"] or not waiting or boot.get("up_s", 0) < QUICK_S:
        return []
    return [job["unit"] for job in way_in["jobs"] if (job["type"], job["state"]) == ("start", "running")]


def _let_go(evidence: Evidence, subject: Evidence, unit: str, stuck: list[str]) -> list[Step]:
    step = Step(evidence["host"], subject["role"], "let_go", "live", {"unit": unit})
    return [step] if unit in stuck else []


def _why(evidence: Evidence, item: Evidence, stuck: list[str]) -> str:
    """Return why a unit keeps a boot from its end; "" where nothing says that it does."""
    new = login.is_new(evidence, f"unit:{item['unit']}")
    if item["need"]:
        if item["source"] and item["source_kind"] == "missing":
            return f"a boot fails without it, and {item['source']}, which it mounts, is not there"
        # Whether it works only the running system could say: that one stands at the console then.
        return "a boot fails without it, and it was not there on a healthy day" if new and on_disk(evidence) else ""
    if item["unit"] in stuck:
        return "the boot still waits for it, and nobody but root is let in before that"
    endless = item["type"] == "oneshot" and not item["bound"] and item["waits"]
    if endless and new is not False and on_disk(evidence):
        return "a boot waits for it without end before anybody is let in, and it waits itself"
    return ""
