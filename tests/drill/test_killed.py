"""SIGINT or SIGKILL of recover at random moments: run again, green; nothing of Ansible outlives it."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.drill.conftest import ALL, HIKESHI, hikeshi, ssh

MOMENTS = 10 if ALL else 1


def ansible_processes() -> list[str]:
    """Command lines of everything of Ansible that works on this practice site."""
    site = f"/{os.environ['HIKESHI_DRILL']}/site"
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = " ".join(process.info["cmdline"] or [])
        if "ansible" in words and site in words and "[mux]" not in words and process.info["status"] != "zombie":
            found.append(words)
    return found


@pytest.mark.long
def test_killed_at_random_moments(whole: Path, seed: int) -> None:
    chance = random.Random(seed)
    for moment in range(MOMENTS):
        number = signal.SIGKILL if (seed + moment) % 2 else signal.SIGINT
        assert hikeshi("drill", "break", "--seed", str(seed + moment)).status == 0
        delay = chance.uniform(0.5, 20)
        with subprocess.Popen(
            [HIKESHI, "recover", "--yes"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # As from a terminal: what a shell starts in the background is deaf to SIGINT, and so are its children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        ) as process:
            time.sleep(delay)
            process.send_signal(number)
            status = process.wait(timeout=30)
        assert status in (130, -signal.SIGKILL, 0), f"killed by {number.name} after {delay:.1f} s"
        deadline = time.monotonic() + 20
        while ansible_processes() and time.monotonic() < deadline:
            time.sleep(0.2)
        assert (left := ansible_processes()) == [], f"killed by {number.name} after {delay:.1f} s: {left}"

        again = hikeshi("recover", "--yes", "--json")
        assert again.status == 0, f"killed by {number.name} after {delay:.1f} s\n{again.err}"
        assert again.data["healthy"]
        assert "apt-get" not in ssh("web1", "ps -eo args")
        halves = ssh("web1", "find /etc -name '.ansible_tmp*' -o -name '*.ansible_new'")
        assert halves == ""
