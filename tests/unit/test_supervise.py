"""Nothing of a run outlives us: real processes, in sessions of their own, as Ansible's workers are."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

# Stands where ansible-playbook would: a child in a session of its own, and a grandchild, both deaf to SIGTERM.
PLAYBOOK = """#!/usr/bin/env python3
import os, signal, subprocess, sys, time
if "--quick" in sys.argv:
    sys.exit(7)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen(["sh", "-c", "trap '' TERM; sleep 300 & wait"], start_new_session=True)
print(os.getpid(), child.pid, flush=True)
time.sleep(300)
"""
PARENT = "import subprocess, sys, time; subprocess.Popen(sys.argv[1:]); time.sleep(300)"


@pytest.fixture
def supervise(tmp_path: Path) -> Path:
    """The supervisor in a folder of its own, with our program beside it as ansible-playbook."""
    for name, text in (
        ("ansible-playbook", PLAYBOOK),
        ("supervise", "#!/bin/sh\n"),
    ):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "python").symlink_to(sys.executable)
    (tmp_path / "supervise").write_text(
        f"#!{sys.executable}\nimport sys\nsys.executable = {str(tmp_path / 'python')!r}\n"
        "from hikeshi.supervise import main\nraise SystemExit(main())\n"
    )
    return tmp_path / "supervise"


def family(output: str) -> list[psutil.Process]:
    playbook = psutil.Process(int(output.split()[0]))
    return [playbook, *playbook.children(recursive=True)]


def all_gone(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=8)
    return not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def test_exit_status_is_ansibles(supervise: Path) -> None:
    assert subprocess.run([supervise, "--quick"], check=False).returncode == 7


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_ends_the_whole_family(supervise: Path, number: signal.Signals) -> None:
    with subprocess.Popen([supervise], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        line = process.stdout.readline()
        time.sleep(0.3)
        members = family(line)
        assert len(members) >= 3
        os.kill(process.pid, number)
        assert process.wait(timeout=15) == 130
    assert all_gone(members)


def test_signals_that_come_together_end_the_whole_family(supervise: Path) -> None:
    """A terminal goes with its program: its hangup and the death of the parent come at once."""
    with subprocess.Popen([supervise], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        line = process.stdout.readline()
        time.sleep(0.3)
        members = family(line)
        for number in (signal.SIGSTOP, signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGCONT):
            os.kill(process.pid, number)
        assert process.wait(timeout=15) == 130
    assert all_gone(members)


def test_death_of_the_parent_ends_the_whole_family(supervise: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, str(supervise)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        line = parent.stdout.readline()
        time.sleep(0.3)
        members = family(line)
        parent.kill()
        parent.stdout.close()
    assert all_gone(members)
