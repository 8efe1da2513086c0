"""What the benchmarks share: a practice site to measure on, and how busy the machine was."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hikeshi.site import practice_folder
from tests.drill.conftest import hikeshi

CORES_BUSY = (0, 1, 2, 5, 6)  # user, nice, system, irq, softirq in /proc/stat, proc_stat(5)


def busy_s() -> float:
    """Return the seconds all cores together were busy since boot: containers are no children of ours."""
    numbers = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    return sum(int(numbers[index]) for index in CORES_BUSY) / os.sysconf("SC_CLK_TCK")


@contextmanager
def standing() -> Iterator[None]:
    """Use the practice site that stands; one that does not is put up, and taken away at the end."""
    os.environ.setdefault("HIKESHI_DRILL", "hikeshi-bench")
    stood = (practice_folder() / "site" / "hosts.yml").exists()
    up = hikeshi("drill", "up", timeout=1800)
    if up.status:
        sys.exit(f"drill up: exit status {up.status}\n{up.err[-2000:]}")
    try:
        yield
    finally:
        if not stood:
            hikeshi("drill", "down")
