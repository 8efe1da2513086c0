"""Watches for a flood until the gate opens, in a process of its own: `sorry on` ends long before the sorry page does.

    python -m hikeshi.access.aside SITE

It says nothing: what it sees stands in the journal, and every verb shows it. It ends when nobody has left the gate
closed any more, at the latest when the gate opens by itself.
"""

import subprocess
import sys
import time

from hikeshi import gate, screen
from hikeshi.access import watch
from hikeshi.errors import HikeshiError
from hikeshi.incident import store
from hikeshi.site import Site, load

ASK_S, AGAIN_S = 3.0, 10.0
PLACE = "lock-watch"


def begin(site: Site) -> None:
    """Start it where the site names a load balancer's log; one that runs already is enough."""
    if not site.data.accesses.logs:
        return
    subprocess.Popen(
        [sys.executable, "-m", "hikeshi.access.aside", site.name],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    screen.say("the load balancer's log is watched until the gate opens; to see it: hikeshi count --watch")


class _Opened(Exception):
    """Nobody is kept outside any more."""


class _Gate:
    """Whether somebody left the gate closed, asked of the journal now and then."""

    def __init__(self, site: Site) -> None:
        self._site, self._asked = site, float("-inf")

    def still_closed(self) -> None:
        if time.monotonic() - self._asked < ASK_S:
            return
        self._asked = time.monotonic()
        left = gate.left_open(self._site)
        until = left.record.data.get("until") if left else 0
        if until is not None and until < time.time():
            raise _Opened


def main(name: str) -> int:
    """Watch; return the exit status."""
    site = load(name)
    place = watch.Seat(site, PLACE)
    closed = _Gate(site)
    troubled = False
    while place.taken():
        try:
            closed.still_closed()
            watch.follow(site, lambda verdict: None, each=closed.still_closed)
        except _Opened:
            break
        except HikeshiError as problem:
            if not troubled:
                store.journal(site).append("watch.failed", {"why": problem.message})
            troubled = True
            time.sleep(AGAIN_S)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
