#!/usr/bin/python3
"""Say what became of a job: a line of priority err in the journal and a report that stands until the next success.

    batch-report started|failed|succeeded UNIT

Called by the job's own unit and by batch-failed@.service, which systemd tells how the run ended. The report is
/var/lib/hikeshi/batch/UNIT.json: unit, state (`started` or `failed`), at (seconds since the epoch), result (systemd's
word), status (exit status or signal), log (the run's last lines). Whoever finds `started` there, and nothing running,
knows of a run that was cut off with its host.
"""

import json
import os
import subprocess
import sys
import time

REPORTS = "/var/lib/hikeshi/batch"
LINES = 10
LINE_LIMIT = 300


def last_lines(invocation):
    """Return the last lines of one run, as its journal has them."""
    if not invocation:
        return []
    subprocess.run(["journalctl", "--sync"], check=False, capture_output=True, timeout=20)
    command = ["journalctl", "-q", "-o", "cat", "--no-pager", "-n", str(LINES), f"_SYSTEMD_INVOCATION_ID={invocation}"]
    told = subprocess.run(command, check=False, capture_output=True, timeout=20).stdout.decode(errors="replace")
    return [line[:LINE_LIMIT] for line in told.splitlines() if line.strip()]


def write(path, report):
    """Write a report whole or not at all."""
    part = f"{path}.new"
    with open(os.open(part, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w", encoding="utf-8") as handle:
        json.dump(report, handle)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(part, path)


def main(state, unit, environment=os.environ, reports=REPORTS):
    """Note what became of a run."""
    path = os.path.join(reports, f"{unit}.json")
    if state == "succeeded":
        if os.path.lexists(path):
            os.unlink(path)
        return
    report = {"unit": unit, "state": state, "at": round(time.time(), 3), "result": "", "status": "", "log": []}
    if state == "failed":
        report["result"] = environment.get("MONITOR_SERVICE_RESULT", "")
        report["status"] = environment.get("MONITOR_EXIT_STATUS", "")
        report["log"] = last_lines(environment.get("MONITOR_INVOCATION_ID", ""))
        words = f"{report['result'] or 'no result'} {report['status']}".rstrip()
        # First of all, because the disk may be full: journald reads the number as the line's priority.
        print(f"<3>{unit} failed ({words}): {report['log'][-1] if report['log'] else 'it said nothing'}", flush=True)
    write(path, report)


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("started", "failed", "succeeded"):
        sys.exit("usage: batch-report started|failed|succeeded UNIT")
    main(sys.argv[1], sys.argv[2])
