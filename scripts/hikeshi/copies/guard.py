"""Lets a frozen instance go on when whoever froze it cannot: `python -m hikeshi.copies.guard SECONDS COMMAND…`.

It runs the command when its standard input ends, which is when its parent ends, however that came about, or when the
seconds are over. It says "ready" when nothing can be frozen for ever any more.
"""

import select
import signal
import subprocess
import sys


def main(words: list[str]) -> int:
    """Wait, then run the command; return its exit status."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a terminal's are meant for the parent, whose end is what counts
    print("ready", flush=True)
    select.select([sys.stdin], [], [], float(words[0]))
    # An instance that goes on already makes the command fail, which is as well.
    return subprocess.run(words[1:], stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
