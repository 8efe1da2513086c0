"""The command, bent for a test by the words before its own.

--die-at=KIND/STAGE   it dies as by kill -9 when such a record of its own is on disk
--needs=NAME          starting a unit needs a permission, as no repair step of today does
"""

import os
import signal
import sys
from typing import Any

from hikeshi import cli
from hikeshi.incident import permissions
from hikeshi.incident.journal import Journal
from hikeshi.incident.record import Record

# Where a recovery that mends something can be cut off. What comes after `mend` finds nothing left to mend.
BOUNDARIES = [
    "recovery.start/", "stage.start/probe", "stage.end/probe", "stage.start/look", "stage.end/look",
    "stage.start/mend", "stage.end/mend", "stage.skipped/mend", "stage.start/prove", "stage.end/prove", "recovery.end/",
]  # fmt: skip

# The same of one that closes the gate and opens it again. What comes after `open the gate` finds it open.
GATE_BOUNDARIES = [
    "stage.start/close the gate", "gate.start/", "gate.end/", "stage.end/close the gate", "stage.end/mend",
    "stage.start/open the gate", "stage.end/open the gate",
]  # fmt: skip

# The same of one that goes by way of a disk; in this order each is reached by the call that goes on after the last.
RESCUE_BOUNDARIES = [
    "stage.start/rescue", "stage.start/copy", "stage.end/copy", "stage.start/judge the disk",
    "stage.end/judge the disk", "stage.start/mend the copy", "stage.end/mend the copy", "stage.start/seal the disk",
    "stage.end/seal the disk", "stage.start/rehearse", "stage.end/rehearse", "stage.start/swap", "stage.end/swap",
    "stage.start/prove the swap", "stage.end/prove the swap", "stage.end/rescue",
]  # fmt: skip


def die_at(boundary: str) -> None:
    """Let this process die once it has written this record of a recovery of its own."""
    append, began = Journal.append, [False]

    def watched(self: Journal, kind: str, *words: Any, **more: Any) -> Record:
        record = append(self, kind, *words, **more)
        began[0] |= kind == "recovery.start"  # what comes before says that another's was cut off
        if began[0] and f"{kind}/{record.data.get('stage', '')}" == boundary:
            os.kill(os.getpid(), signal.SIGKILL)
        return record

    Journal.append = watched  # type: ignore[method-assign]


if __name__ == "__main__":
    while sys.argv[1].startswith("--"):
        option, _, value = sys.argv.pop(1).partition("=")
        if option == "--die-at":
            die_at(value)
        else:
            permissions.STEPS["host_base", "unit_start"] = next(name for name in permissions.NAMES if name == value)
    cli.main()
