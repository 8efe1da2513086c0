"""A scheduled action and the times at which it goes off."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Kind = Literal["at", "cron", "periodic", "anacron", "timer", "shutdown", "apt", "unit"]
AHEAD = 3  # how many firings are worked out


@dataclass(frozen=True)
class Firing:
    """One time at which a job goes off, in UTC and by the host's own clock.

    It begins between `earliest` and `latest`; `latest` is None where nothing bounds it. Where `earliest` is None, too,
    no clock says when: it waits for what `why` names, as the next boot.
    """

    earliest: datetime | None
    latest: datetime | None
    why: str = ""

    @property
    def on_event(self) -> bool:
        """Whether it waits for an event and not for a time."""
        return self.earliest is None


@dataclass(frozen=True)
class Job:
    """One scheduled action of one host. Its texts are the host's: they are shown as text, and never trusted.

    `schedule` is the text that says when, `body` what is run: of an at job without its environment, which may hold
    secrets. `marks` say what the body would do (see marks.py), `reaches` which other hosts of the site it does it to.
    With `unknown` the body is not understood, wholly or in part, and may do more than is marked. `stopped` is what
    keeps the job from firing as things are; without firings it never will.
    """

    id: str
    host: str
    kind: Kind
    user: str
    schedule: str
    body: str
    marks: tuple[str, ...] = ()
    reaches: tuple[str, ...] = ()
    firings: tuple[Firing, ...] = ()
    unknown: bool = False
    stopped: str = ""

    @property
    def next(self) -> datetime | None:
        """The first time at which it may go off; None when no clock says."""
        return min(self.times, default=None)

    @property
    def times(self) -> Iterator[datetime]:
        """The times at which it may go off, the earliest of each."""
        return (firing.earliest for firing in self.firings if firing.earliest is not None)
