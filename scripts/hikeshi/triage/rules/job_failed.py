"""A job that runs and ends: its last run failed, or was cut off with its host."""

from collections.abc import Iterator

from hikeshi.triage.findings import Evidence, Finding, Step, effect_of_risk

RUNNING = ("active", "activating", "deactivating", "reloading")


def find(evidence: Evidence) -> Iterator[Finding]:
    """Read systemd's word and the job's own report, which outlives a reboot; a job that runs now is not judged yet.

    The job is run again only where its owner said that it may run at another hour, and after all else is mended.
    """
    host = evidence["host"]
    for subject in evidence["subjects"]:
        for unit in subject.get("units") or []:
            name, seen = unit["name"], evidence["units"].get(unit["name"])
            report = evidence.get("reports", {}).get(name)
            if not unit.get("oneshot") or seen is None or seen["active"] in RUNNING:
                continue
            failed = seen["active"] == "failed"
            if not failed and report is None:
                continue
            cut_off = report is not None and report["state"] == "started" and not failed
            log = seen["log"] if failed or report is None else report["log"]
            result = f"{report['result']} {report['status']}".strip() if report is not None else seen["result"]
            yield Finding(
                rule="job_failed",
                host=host,
                subject=f"unit:{name}",
                effect=effect_of_risk(subject),
                cause=f"{name} was cut off in its last run" if cut_off else f"{name} failed in its last run",
                quote=("no end was reported" if cut_off else result or "no result")
                + (f"; last words: {log[-1]}" if log else ""),
                remedy=(Step(host, subject["role"], unit["run_step"], "live", {"unit": name}, late=True),)
                if unit.get("run_step")
                else (),
                symptom=True,
            )
