"""How long `hikeshi triage` takes to judge the whole practice site, and how often it asks each host.

    HIKESHI_DRILL=hikeshi-bench .venv/bin/python -m tests.bench.triage

The middle one of three runs each, on a site with nothing wrong, so run it on a quiet machine. The ratios are to
collecting evidence alone (no probe, no baseline, nothing judged) and to a recovery with nothing to do, in the same run.
A round trip is one start of ssh for a host, counted by a program of that name that stands in its way. A practice site
that stands is used as it is; one that does not is put up, and taken away at the end.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from hikeshi.drill import containers
from tests.bench.practice import busy_s, standing
from tests.drill.conftest import hikeshi

TIMES = 3
# `cli` is not needed there: it takes as long to import as for the commands beside it.
ALONE = """
from hikeshi import cli, runner
from hikeshi.site import load
raise SystemExit(runner.run(load("drill"), "collect-evidence.yml", verb="evidence").status)
"""
SSH = """\
#!/bin/sh
set -eu
for word; do
  case " {hosts} " in *" $word "*) echo "$word" >> {log}; break ;; esac
done
exec {ssh} "$@"
"""


def command(*words: str, **environment: str) -> Callable[[], None]:
    """Return what runs one command of ours; one that fails ends the benchmark."""

    def run() -> None:
        done = hikeshi(*words, "--site", "drill", timeout=300, **environment)
        if done.status:
            sys.exit(f"{' '.join(words)}: exit status {done.status}\n{done.err[-2000:]}")

    return run


def evidence_alone() -> None:
    """Collect the evidence of all hosts and do nothing with it."""
    subprocess.run([sys.executable, "-c", ALONE], capture_output=True, timeout=300, check=True)


def measure(run: Callable[[], None]) -> tuple[float, float]:
    """Return the middle wall seconds of a few runs, and the busy seconds of all cores in that one."""
    seen = []
    for _ in range(TIMES):
        wall, busy = time.monotonic(), busy_s()
        run()
        seen.append((time.monotonic() - wall, busy_s() - busy))
    return sorted(seen)[TIMES // 2]


def round_trips(*words: str) -> Counter[str]:
    """Return how often a command starts ssh for each host."""
    with tempfile.TemporaryDirectory() as folder:
        log, program = Path(folder, "log"), Path(folder, "ssh")
        log.touch()
        hosts = " ".join(containers.cloud().instances)
        program.write_text(SSH.format(hosts=hosts, log=log, ssh=shutil.which("ssh")))
        program.chmod(0o755)
        command(*words, PATH=f"{folder}:{os.environ['PATH']}")()
        return Counter(log.read_text().split())


def main() -> None:
    """Measure, and print one table."""
    with standing():
        rows = {
            "evidence alone": measure(evidence_alone),
            "triage": measure(command("triage")),
            "triage --deep": measure(command("triage", "--deep")),
            "recover, nothing to do": measure(command("recover", "--yes")),
        }
        trips = round_trips("triage")
    alone, recovery = rows["evidence alone"][0], rows["recover, nothing to do"][0]
    print(f"{'':<24}{'wall s':>8}{'busy s':>8}{'to evidence':>13}{'to recover':>12}")
    for name, (wall, busy) in rows.items():
        print(f"{name:<24}{wall:>8.1f}{busy:>8.1f}{wall / alone:>13.1f}{wall / recovery:>12.1f}")
    print("round trips of triage: " + ", ".join(f"{host} {trips[host]}" for host in sorted(trips)))


if __name__ == "__main__":
    main()
