"""The gate around a recovery: closed early where customers notice what is wrong, kept closed meanwhile, opened late.

Closing is an option of a recovery's: what keeps it from closing is said, and keeps nobody from mending.
"""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from hikeshi import gate, screen
from hikeshi.access import watch
from hikeshi.errors import HikeshiError
from hikeshi.gate import Outcome
from hikeshi.incident import permissions
from hikeshi.incident.stages import Stages
from hikeshi.site import Site

SHARE = 3  # it is renewed when one part in so many of its time has passed, and after a failure of what is left then
LEAST_S = 5.0  # no two renewals are closer: each is a run of Ansible
JOIN_S = 60.0  # how long a renewal under way may take to end
CLOSE, OPEN = "close the gate", "open the gate"


class Gate:
    """The site's gate as one recovery finds it, closes it and leaves it."""

    def __init__(self, site: Site, track: Stages) -> None:
        """Know nothing of it yet."""
        self.site, self._track = site, track
        self._stands = Outcome()
        self.shut = False  # closed, or on the way there: what customers see says nothing of the shop
        self.ours = False  # a recovery closed it, this one or one before
        self._until: float | None = None
        self._keeper: threading.Thread | None = None
        self._watch: watch.Beside | None = None
        self._enough = threading.Event()

    # Looking

    def look(self, *, red: bool) -> None:
        """Look how it stands: only where customers see something wrong, or the journal knows that it was closed."""
        left = gate.left_open(self.site)
        if self.site.data.sorry is None or not (red or left):
            return
        try:
            self._note(gate.stands(self.site))
        except HikeshiError as problem:
            screen.say(f"the gate stays as it is: {screen.line(problem.message, 400)}")
            self.shut = False
            return
        self.ours = left is not None and left.record.data.get("recovery") is not None
        if left and not self.shut:
            gate.note_closed(self.site, "the gate is open")
        if self.shut:
            whose = "a recovery before" if self.ours else "somebody, whose choice it is to open it"
            screen.say(f"the gate was closed by {whose}: {screen.line(self.until_words)}")

    def _note(self, seen: Outcome) -> None:
        self._stands = seen
        self.shut = bool(seen.hosts) and gate.state_of(seen.hosts) != "open"
        self._until = gate.until(seen.hosts)

    @property
    def until_words(self) -> str:
        """Until when it stays closed, if nobody does anything."""
        return gate.until_words(self._until, self.site.zone)

    @property
    def told(self) -> str:
        """In one sentence what stays closed at the end; empty where nothing does."""
        if not self.shut:
            return ""
        off = f"hikeshi sorry off --site {self.site.name}"
        if self.ours:
            return (
                f"customers see the sorry page {self.until_words}; to open it: {off} (--force: although it is broken)"
            )
        return f"the gate was closed before this recovery, and stays closed {self.until_words}; to open it: {off}"

    # Closing

    def may_close(self) -> bool:
        """Say whether it can be closed now; what the customer would have to allow is said once."""
        if self.shut and not self.ours or not self._stands.hosts:
            return False
        why = gate.why_not(self.site)
        if why:
            ask = permissions.REGISTRY["sorry"].ask
            screen.say(f"the gate stays as it is: permission 'sorry' is needed, and {screen.line(why, 300)}")
            screen.say(f"ask the customer: “{ask}” Then: {permissions.how_to_allow(self.site, 'sorry')}")
            self._track.skip(CLOSE, f"permission 'sorry': {why}")
        return not why

    def close(self) -> None:
        """Close it; one that cannot be closed is said, and left."""
        done = Outcome()
        try:
            with self._track.stage(CLOSE) as action:
                gate.close(self.site, done, recovery=self._track.number)
                if done.wrong:
                    action.failed("; ".join(done.wrong))
        except HikeshiError as problem:
            for words in (problem.message, *getattr(problem, "__notes__", [])):
                screen.say(f"the gate was not closed, going on: {screen.line(words, 400)}")
            self.look(red=True)
            return
        for words in done.wrong:
            screen.say(f"[bold red]wrong[/bold red] {screen.line(words, 400)}")
        self._note(done)
        self.ours = True
        screen.say(f"customers see the sorry page {screen.line(self.until_words)}")
        self.keep()

    # Keeping it closed

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Stop renewing it at the end, however that comes; where that is an error, say what stays closed."""
        try:
            yield
        except BaseException:
            if self.told:
                screen.say(screen.line(self.told, 400))
            raise
        finally:
            self.let_go()

    def keep(self) -> None:
        """Renew it from now on, while we live: a person may think for long, and a step may take long.

        By a thread: a run of Ansible beside another is one more connection to the host, whose program has a lock of
        its own.
        """
        if self.shut and self._watch is None:
            self._watch = watch.Beside(self.site)  # behind a sorry page a flood is seen by nobody
        if not self.shut or self._until is None or self._keeper:
            return
        if why := gate.why_not(self.site):
            screen.say(f"the gate is not renewed, permission 'sorry': {screen.line(why, 300)}; {self.until_words}")
            return
        self._keeper = threading.Thread(target=self._renew, name="gate", daemon=True)
        self._keeper.start()

    def let_go(self) -> None:
        """Renew it no more."""
        self._enough.set()
        if self._watch:
            self._watch.stop()
        if self._keeper:
            self._keeper.join(JOIN_S)

    def _renew(self) -> None:
        # Somebody else's keeps the time it had, which may be more than the site's own.
        minutes = None if self.ours else min(1440, max(1, math.ceil(self._left_s() / 60)))
        failing = False
        while self._left_s() > 0 and not self._enough.wait(max(LEAST_S, self._left_s() / SHARE)):
            try:
                self._until = gate.until(gate.renew(self.site, minutes=minutes).hosts)
                failing = False
            except HikeshiError as problem:
                if not failing:
                    screen.say(f"the gate cannot be renewed, {self.until_words}: {screen.line(problem.message, 300)}")
                failing = True

    def _left_s(self) -> float:
        return math.inf if self._until is None else self._until - time.time()

    # Opening

    def open(self) -> None:
        """Open what a recovery closed; one that does not open is said, and opens at its expiry."""
        self.let_go()
        done = Outcome()
        try:
            with self._track.stage(OPEN) as action:
                self._note(gate.stands(self.site))  # it may have ended by itself
                if self.shut:
                    done.about, done.hosts = self._stands.about, self._stands.hosts
                    gate.let_in(self.site, done)
                    self._note(done)
                else:
                    gate.note_closed(self.site, "the gate is open")
                if done.wrong:
                    action.failed("; ".join(done.wrong))
        except HikeshiError as problem:
            screen.say(f"[bold red]the gate does not open[/bold red]: {screen.line(problem.message, 400)}")
            return
        for words in done.wrong:
            screen.say(f"[bold red]wrong[/bold red] {screen.line(words, 400)}")
