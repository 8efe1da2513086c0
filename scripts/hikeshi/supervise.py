"""Run ansible-playbook so that nothing of it outlives us.

ansible-core gives each worker a session of its own, so killing the process group of a run leaves workers, their ssh and
their local modules behind. This small parent adopts all of them (PR_SET_CHILD_SUBREAPER, prctl(2)), and ends them when
it is told to stop or when the process that started it dies, by whatever signal (PR_SET_PDEATHSIG).
"""

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

import psutil

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
GRACE_S = 2.0
KILLS = 5


class Stopped(Exception):
    """A signal asked us to end the run."""


def end_descendants() -> None:
    """End every process below this one: asked first, killed after GRACE_S seconds.

    Looked for anew each time: a worker may start another process just when it is told to end.
    """
    for ask in (psutil.Process.terminate, *[psutil.Process.kill] * KILLS):
        family = psutil.Process().children(recursive=True)
        for process in family:
            try:
                ask(process)
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(family, timeout=GRACE_S)


def main() -> int:
    """Run ansible-playbook with our arguments; return its exit status."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = int(os.environ.get("HIKESHI_RUN_BY", os.getppid()))
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)

    stopping = False

    def stop(number: int, frame: FrameType | None) -> None:
        # Who starts us may die with our terminal: two signals at once, and the second must not end us amid our work.
        nonlocal stopping
        if not stopping:
            stopping = True
            raise Stopped

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    try:
        if os.getppid() != parent:
            return 130  # whoever started us died before we could watch for it
        playbook = subprocess.Popen([str(Path(sys.executable).with_name("ansible-playbook")), *sys.argv[1:]])
        return playbook.wait()
    except Stopped:
        end_descendants()
        return 130
