"""How long it takes: `up` cold and cached, recovery of all faults at once, a recovery with nothing to do.

    HIKESHI_DRILL=hikeshi-bench .venv/bin/python -m tests.bench.recover [--warm]

Wall time, and busy time of all cores of this machine (/proc/stat: containers are no children of ours), so run it on a
quiet machine. The last column is the ratio to the recovery with nothing to do, in the same run. `--warm` leaves out the
cold `up`, which removes the kept images first.
"""

import os
import sys
import time

from tests.bench.practice import busy_s
from tests.drill.conftest import hikeshi


def measure(name: str, *words: str) -> tuple[str, float, float]:
    """Run one command; return its name, wall seconds and busy seconds. A command that fails ends the benchmark."""
    wall, busy = time.monotonic(), busy_s()
    done = hikeshi(*words, timeout=1200)
    if done.status:
        sys.exit(f"{name}: exit status {done.status}\n{done.err[-2000:]}")
    return name, time.monotonic() - wall, busy_s() - busy


def main() -> None:
    """Measure everything and print one table."""
    os.environ.setdefault("HIKESHI_DRILL", "hikeshi-bench")
    rows: list[tuple[str, float, float]] = []
    hikeshi("drill", "down")
    if "--warm" not in sys.argv:
        hikeshi("drill", "down", "--images")
        rows.append(measure("up, cold", "drill", "up"))
        hikeshi("drill", "down")
    else:
        hikeshi("drill", "up", timeout=1200)
        hikeshi("drill", "down")
    rows.append(measure("up, cached", "drill", "up"))
    measure("break", "drill", "break", "--seed", "1")
    rows.append(measure("recover, all faults", "recover", "--yes"))
    rows.append(measure("recover, nothing to do", "recover", "--yes"))
    rows.append(measure("build, nothing to do", "build"))
    hikeshi("drill", "down")
    base = next(wall for name, wall, _ in rows if name == "recover, nothing to do")
    print(f"{'':<24}{'wall s':>8}{'busy s':>8}{'ratio':>8}")
    for name, wall, busy in rows:
        print(f"{name:<24}{wall:>8.1f}{busy:>8.1f}{wall / base:>8.1f}")


if __name__ == "__main__":
    main()
