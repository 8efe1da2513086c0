"""A unit is no longer ordered after what it needs: it works now, and fails at a restart that takes another turn."""

from collections.abc import Iterator

from hikeshi.triage.findings import Evidence, Finding, Step, effect_of_risk


def find(evidence: Evidence) -> Iterator[Finding]:
    """Compare what a unit is ordered after with what its role wants; what it is ordered after besides is not ours.

    Nothing is started or restarted: systemd only reads the file that was written again.
    """
    host = evidence["host"]
    for subject in evidence["subjects"]:
        for unit in subject.get("units") or []:
            name, seen = unit["name"], evidence["units"].get(unit["name"], {})
            if seen.get("load") != "loaded" or "after" not in seen:
                continue
            lost = [other for other in unit.get("after") or [] if other not in seen["after"]]
            if not lost:
                continue
            steps: tuple[Step, ...] = ()
            if unit.get("restore_step"):
                steps = (
                    Step(host, subject["role"], unit["restore_step"], "disk"),
                    Step(host, "file_restore", "reread", "live", {"how": "daemon_reload"}),
                )
            yield Finding(
                rule="ordering_lost",
                host=host,
                subject=f"unit:{name}",
                effect=effect_of_risk(subject),
                cause=f"{name} is no longer started after {', '.join(lost)}: a restart may start it too early",
                quote=f"After of {name}, of what it needs: {' '.join(seen['after']) or 'none'}",
                remedy=steps,
            )
