"""A lock whose owner is dead: the job behind it refuses to run, tonight as well, and nobody notices today."""

from collections.abc import Iterator

from hikeshi.triage.findings import Evidence, Finding, Step, effect_of_risk
from hikeshi.triage.rules.job_failed import RUNNING

CLOCK_SLACK_S = 5  # lock and process are timed by two clocks, of which one may have been set in between
WRITING_S = 60  # within this time a lock without a PID may be one that is being written
ON_DISK = True


def find(evidence: Evidence) -> Iterator[Finding]:
    """Compare the lock with its owner: no process of that PID, or one that began after the lock was written.

    The run that the lock kept from happening is job_failed's: this rule only takes the lock away. Whose lock it is must
    be certain: of one that names nobody, or while the job runs, nothing is removed.
    """
    host = evidence["host"]
    for subject in evidence["subjects"]:
        for wanted in subject.get("locks") or []:
            path, seen = wanted["path"], evidence.get("locks", {}).get(wanted["path"])
            if seen is None or not seen["present"]:
                continue
            if evidence["units"].get(wanted["unit"], {}).get("active") in RUNNING:
                continue
            nameless = seen["pid"] is None
            if nameless and seen["age_s"] < WRITING_S:
                continue
            if seen["alive"] and seen["owner_age_s"] + CLOCK_SLACK_S >= seen["age_s"]:
                continue
            owner = "it names no process" if nameless else f"its owner, PID {seen['pid']}, is dead"
            yield Finding(
                rule="lock_stale",
                host=host,
                subject=f"lock:{path}",
                effect=effect_of_risk(subject),
                cause=f"{path} keeps {wanted['unit']} from running: {owner}",
                quote=f"{path}: PID {'none' if nameless else seen['pid']}, {seen['age_s']:.0f} s old"
                + (f"; the process of that PID is {seen['owner_age_s']:.0f} s old" if seen["alive"] else ""),
                remedy=() if nameless else (Step(host, subject["role"], "stale_lock", "disk", {"path": path}),),
                explains=(f"unit:{wanted['unit']}",),
            )
