"""The stages of a recovery in the journal, so that the next one knows where a killed one was.

What an earlier recovery did is skipped only where fresh evidence shows that it still holds; the journal says why.
Looking and proving are never skipped.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

from hikeshi.incident import journal as journals
from hikeshi.incident.journal import Action, Journal
from hikeshi.incident.record import Record

_MARKS = ("recovery", "stage", "round", "verb", "playbook", "folder")  # what the end of an action repeats of its start


@dataclass(frozen=True)
class Earlier:
    """A recovery that was cut off: its start, the stages that it ended well, the one that it was in."""

    start: Record
    done: tuple[Record, ...]  # stage.end records
    within: str = ""

    def ended(self, stage: str) -> Record | None:
        """Return the record that says that a stage was done."""
        return next((record for record in reversed(self.done) if record.data.get("stage") == stage), None)

    def words(self, zone: ZoneInfo) -> str:
        """Return what is known of it, in words."""
        done = ", ".join(dict.fromkeys(str(record.data.get("stage")) for record in self.done)) or "nothing"
        within = f", stopped within {self.within}" if self.within else ""
        return f"begun {self.start.time.astimezone(zone):%Y-%m-%d %H:%M} by {self.start.actor}, done: {done}{within}"


def cut_off(records: Sequence[Record]) -> Earlier | None:
    """Return the last recovery that was to change something, if it did not reach its end. Pure."""
    changing = [record for record in records if record.kind == "recovery.start"
                and not record.data.get("plan") and not record.data.get("check")]  # fmt: skip
    if not changing:
        return None
    start = changing[-1]
    ends = [record for record in records if record.kind == "recovery.end" and _of(record, "start", start)]
    if any(record.data.get("outcome") == "done" for record in ends):
        return None
    mine = [record for record in records if _of(record, "recovery", start)]
    done = tuple(record for record in mine if record.kind == "stage.end" and record.data.get("outcome") == "done")
    begun = [record for record in mine if record.kind == "stage.start"]
    within = begun[-1] if begun and not any(_of(record, "start", begun[-1]) for record in done) else None
    return Earlier(start, done, str(within.data.get("stage"))) if within else Earlier(start, done)


def half_done(records: Sequence[Record]) -> Mapping[str, Any]:
    """Return the data of the last stage that said how to undo it, if nobody lived to judge it; else nothing. Pure.

    Of any recovery: who came after may have died before he took it back.
    """
    begun = [record for record in records if record.kind == "stage.start" and record.data.get("undo")]
    ended = [record for record in records if record.kind == "stage.end" and record.data.get("outcome") == "done"]
    return begun[-1].data if begun and not any(_of(record, "start", begun[-1]) for record in ended) else {}


def _of(record: Record, key: str, start: Record) -> bool:
    return record.data.get(key) == start.seq


class Stages:
    """The stages of one recovery under way."""

    def __init__(
        self, journal: Journal, recovery: Record, earlier: Earlier | None, half_done: Mapping[str, Any]
    ) -> None:
        """Write them as stages of the recovery whose start is given."""
        self._journal = journal
        self._recovery = recovery
        self.earlier = earlier
        self.half_done = half_done

    @property
    def number(self) -> int:
        """The number of the recovery's own start."""
        return self._recovery.seq

    @contextmanager
    def stage(self, name: str, **data: Any) -> Iterator[Action]:
        """Do one stage between two records."""
        marks = {"recovery": self._recovery.seq, "stage": name, **data}
        with self._journal.action("stage", marks) as action:
            action.data.update(marks)
            yield action

    def skip(self, name: str, why: str) -> None:
        """Write down that a stage is not needed."""
        self._journal.append("stage.skipped", {"recovery": self._recovery.seq, "stage": name, "why": why})

    def done_before(self, name: str) -> bool:
        """Return whether the recovery that was cut off had ended a stage well; evidence must say whether it holds."""
        return self.earlier is not None and self.earlier.ended(name) is not None


@contextmanager
def recovery(journal: Journal, *, check: bool, plan: bool) -> Iterator[tuple[Stages, Action]]:
    """Write a recovery's start and end, and what of an earlier one never came to its end."""
    records = journal.records()
    earlier = None if check or plan else cut_off(records)
    _end_abandoned(journal, records)
    with journal.action("recovery", {"check": check, "plan": plan}) as action:
        action.data.update(check=check, plan=plan)
        yield Stages(journal, action.start, earlier, half_done(records)), action


@contextmanager
def rescue(journal: Journal, host: str, *, check: bool) -> Iterator[tuple[Stages, Action]]:
    """Write a rescue's start and end; its stages are as a recovery's, which may also have a rescue among its own."""
    _end_abandoned(journal, journal.records())
    with journal.action("rescue", {"check": check}, host=host) as action:
        action.data.update(check=check)
        yield Stages(journal, action.start, None, {}), action


def _end_abandoned(journal: Journal, records: Sequence[Record]) -> None:
    """Write the end of what never came to one, because its process died."""
    for left in journals.abandoned(records, journals.writer_lives):
        kind = left.kind.removesuffix(".start")
        marks = {key: value for key, value in left.data.items() if key in _MARKS}
        ending = {"start": left.seq, "outcome": "interrupted", "why": f"pid {left.pid} died before it could say more"}
        journal.append(f"{kind}.end", {**marks, **ending}, host=left.host)
