"""What may be written of a deadline: set, moved with a reason, ended; and the words for the customer when it is late.

Each looks and writes while nobody else writes, so that two people cannot move the same deadline without seeing it.
"""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Literal

from hikeshi.errors import UsageError
from hikeshi.incident import clock
from hikeshi.incident.clock import Deadline, Kind
from hikeshi.incident.journal import Journal, Locked
from hikeshi.incident.record import Record
from hikeshi.site import Site


def set_or_move(
    site: Site,
    journal: Journal,
    name: str,
    at: datetime,
    *,
    by: str,
    why: str,
    owner: str,
    kind: Kind | None,
    words: str,
) -> Record:
    """Set a deadline; move one that stands, which takes a reason and leaves its owner and kind as they are."""
    with journal.locked() as ours:
        known = clock.deadlines(ours.records()).get(name)
        if known is None or known.ended:
            said = {"owner": owner or by, "kind": kind or "other", "by": by, "words": words}
            return ours.append("deadline.set", {"name": name, "at": clock.write(at), **said})
        if owner or kind or words:
            raise UsageError(
                f"deadline '{name}' stands; moving it changes its time alone, not --owner, --kind or --words.",
                f"{_again(name, 'TIME')} --why WHY; for another owner, {_again(name, '--owner WHO')} --why WHY",
            )
        if not why:
            raise UsageError(f"{_stands(site, known)}; to move it, say why.", f"{_again(name, 'TIME')} --why WHY")
        move = {"name": name, "at": clock.write(at), "before": clock.write(known.at), "by": by, "why": why}
        return ours.append("deadline.moved", move)


def hand_over(site: Site, journal: Journal, name: str, owner: str, *, by: str, why: str) -> Record:
    """Give a deadline that stands to another owner, which takes a reason; its time and its words stay."""
    with _standing(journal, name) as (ours, known):
        if not why:
            raise UsageError(
                f"{_stands(site, known)}, owner {known.owner}; to hand it over, say why.",
                f"{_again(name, '--owner')} {shlex.quote(owner)} --why WHY",
            )
        return ours.append(
            "deadline.handed", {"name": name, "owner": owner, "before": known.owner, "by": by, "why": why}
        )


def end(site: Site, journal: Journal, name: str, how: Literal["met", "dropped"], *, by: str, why: str) -> Record:
    """Say that a deadline was met; or that it no longer holds, which takes a reason."""
    with _standing(journal, name) as (ours, known):
        if how == "dropped" and not why:
            raise UsageError(f"{_stands(site, known)}; to drop it, say why.", f"{_again(name, '--drop')} --why WHY")
        return ours.append("deadline.ended", {"name": name, "how": how, "by": by, "why": why})


def draft(site: Site, journal: Journal, name: str, until: datetime, *, why: str, now: datetime) -> Record:
    """Write the words that tell the customer a deadline will be missed. It stands until they are sent."""
    with _standing(journal, name) as (ours, known):
        if until <= known.at:
            at, new = (clock.said(time, site.zone, now) for time in (known.at, until))
            raise UsageError(
                f"--until is {new}, not after the deadline, {at}.", f"hikeshi incident late {shlex.quote(name)} …"
            )
        words = clock.late_words(site.data.title, known, until, why, site.zone, now)
        return ours.append("late.drafted", {"name": name, "until": clock.write(until), "why": why, "words": words})


def sent(journal: Journal, name: str, *, by: str) -> Record:
    """Move a deadline to the time that the customer was told."""
    with _standing(journal, name) as (ours, known):
        written = clock.draft(ours.records(), name)
        if written is None:
            raise UsageError(
                f"nothing is drafted for '{name}': what was sent?",
                f"hikeshi incident late {shlex.quote(name)} --until TIME --why WHY; send what it writes, then --sent",
            )
        move = {"name": name, "at": written["until"], "before": clock.write(known.at), "by": by}
        return ours.append("deadline.moved", {**move, "why": written["why"], "told": written["words"]})


@contextmanager
def _standing(journal: Journal, name: str) -> Iterator[tuple[Locked, Deadline]]:
    """Hold the journal, and the deadline of this name, which must stand."""
    with journal.locked() as ours:
        standing = {item.name: item for item in clock.standing(ours.records())}
        if name not in standing:
            raise UsageError(
                f"no deadline '{name}' stands; there are: {', '.join(standing) or 'none'}.", "hikeshi incident status"
            )
        yield ours, standing[name]


def _stands(site: Site, known: Deadline) -> str:
    return f"deadline '{known.name}' stands ({known.at.astimezone(site.zone):%Y-%m-%d %H:%M} {site.zone.key})"


def _again(name: str, what: str) -> str:
    return f"hikeshi incident deadline {shlex.quote(name)} {what}"
