"""The command, bent for a test by the words before its own.

--die-after=N     it dies as by kill -9 when N records of stages are on disk
--needs=NAME      starting a unit needs a permission, as no repair step of today does
"""

import os
import signal
import sys
from typing import Any

from hikeshi import cli
from hikeshi.incident import permissions
from hikeshi.incident.journal import Journal
from hikeshi.incident.record import Record


def die_after(count: int) -> None:
    """Let this process die when it has written so many records of stages and recoveries."""
    append, left = Journal.append, [count]

    def counted(self: Journal, kind: str, *words: Any, **more: Any) -> Record:
        record = append(self, kind, *words, **more)
        left[0] -= kind.startswith(("stage.", "recovery."))
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return record

    Journal.append = counted  # type: ignore[method-assign]


if __name__ == "__main__":
    while sys.argv[1].startswith("--"):
        option, _, value = sys.argv.pop(1).partition("=")
        if option == "--die-after":
            die_after(int(value))
        else:
            permissions.STEPS["host_base", "unit_start"] = next(name for name in permissions.NAMES if name == value)
    cli.main()
