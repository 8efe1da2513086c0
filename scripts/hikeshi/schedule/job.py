"""A scheduled action and the times at which it goes off."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from hikeshi.text import Redactor

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

    @property
    def grave(self) -> bool:
        """Whether it may do harm when it goes off: all that is not known to be harmless. Copying alone is."""
        return self.unknown or self.harmful

    @property
    def harmful(self) -> bool:
        """Whether its words say that it would do harm."""
        return any(mark != "syncs" for mark in self.marks)

    @property
    def does(self) -> str:
        """What it would do, in words."""
        words = [*self.marks, *(f"goes to {host}" for host in self.reaches), *["is not understood"] * self.unknown]
        return ", ".join(words) or "nothing marked"

    @property
    def first_line(self) -> str:
        """The first line of what it runs, and how many more there are."""
        lines = [text.strip() for text in self.body.splitlines() if text.strip() and not text.startswith("#!")] or [""]
        return lines[0][:200] + (f" … {len(lines) - 1} more lines" if len(lines) > 1 else "")

    def redacted(self, redactor: Redactor) -> "Job":
        """Return it without known secrets in what it runs."""
        return replace(self, body=redactor.text(self.body), schedule=redactor.text(self.schedule))

    def as_data(self) -> dict[str, Any]:
        """Return it for `--json`.

        id, host, kind (at, cron, periodic, anacron, timer, shutdown, apt, unit), user, schedule, body; marks (of:
        reboots, deletes, stops, firewalls, overwrites, syncs), reaches (hosts); unknown: not all of the body is
        understood; stopped: what keeps it from firing, "" when nothing does; firings: earliest and latest (UTC, null:
        no clock says), why. A job without firings never fires as things are.
        """
        return {
            "id": self.id, "host": self.host, "kind": self.kind, "user": self.user, "schedule": self.schedule,
            "body": self.body, "marks": list(self.marks), "reaches": list(self.reaches), "unknown": self.unknown,
            "stopped": self.stopped, "firings": [_firing_data(firing) for firing in self.firings],
        }  # fmt: skip


def _firing_data(firing: Firing) -> dict[str, str | None]:
    times = {"earliest": firing.earliest, "latest": firing.latest}
    return {name: at.isoformat() if at else None for name, at in times.items()} | {"why": firing.why}
