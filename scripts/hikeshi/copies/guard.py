"""Lets a frozen instance go on when whoever froze it cannot: `python -m hikeshi.copies.guard SECONDS COMMAND…`.

It runs the command when it is told to by a line on its standard input, when that ends, which is when its parent ends,
however that came about, or when the seconds are over. It says "ready" when nothing can be frozen for ever any more.
"""

import os
import select
import signal
import subprocess
import sys
import time

# A parent that died may have begun to freeze what is frozen only after we looked for the first time.
TRIES, PAUSE_S = 10, 1.0


def main(words: list[str]) -> int:
    """Wait, then run the command; return the exit status."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a terminal's are meant for the parent, whose end is what counts
    print("ready", flush=True)
    ready, _, _ = select.select([0], [], [], float(words[0]))
    died = bool(ready) and not os.read(0, 1)
    for again in range(TRIES if died else 1):
        time.sleep(PAUSE_S if again else 0)
        # An instance that goes on already makes the command fail, which is as well.
        done = subprocess.run(words[1:], stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if not done.returncode:
            break
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
