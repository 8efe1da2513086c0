"""The incident's clock: deadlines as absolute times, each with an owner, moved only with a name and a reason."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, get_args
from zoneinfo import ZoneInfo

from hikeshi.errors import UsageError
from hikeshi.incident.record import Record

Kind = Literal["report", "restore", "other"]
KINDS: tuple[Kind, ...] = get_args(Kind)
WARN_MINUTES = (0, 10, 30)  # the tightest first
_CLOCK = re.compile(r"([01]?\d|2[0-3])[:.]([0-5]\d)")
_FIX = 'write 15:30, "2026-11-25 15:30" or 2026-11-25T15:30+09:00'


@dataclass(frozen=True)
class Deadline:
    """What must be done by when, and by whom. `ended` is empty while it stands, else met or dropped."""

    name: str
    at: datetime
    owner: str
    kind: Kind
    words: str = ""
    moved: int = 0  # how often
    ended: str = ""
    warned: int | None = None  # the tightest warning that was shown, in minutes

    def left(self, now: datetime) -> timedelta:
        """Return what is left; negative once it has passed."""
        return self.at - now

    def warning(self, now: datetime) -> int | None:
        """Return the warning that holds now (30, 10 or 0 minutes); None while there is time."""
        left = self.left(now)
        return next((minutes for minutes in WARN_MINUTES if left <= timedelta(minutes=minutes)), None)


def deadlines(records: Iterable[Record]) -> dict[str, Deadline]:
    """Return every deadline that records speak of, in the order in which they come due. Pure."""
    found: dict[str, Deadline] = {}
    for record in records:
        data = record.data
        name = data.get("name")
        if not isinstance(name, str) or not record.kind.startswith(("deadline.", "late.")):
            continue
        known = found.get(name)
        try:
            if record.kind == "deadline.set":
                kind: Kind = next((kind for kind in KINDS if kind == data.get("kind")), "other")
                found[name] = Deadline(name, read(data["at"]), str(data["owner"]), kind, str(data.get("words") or ""))
            elif record.kind == "deadline.moved" and known:
                at = read(data["at"])
                moved = known.moved + 1
                found[name] = Deadline(name, at, known.owner, known.kind, known.words, moved)
            elif record.kind == "deadline.handed" and known:
                found[name] = Deadline(**{**known.__dict__, "owner": str(data["owner"])})
            elif record.kind == "deadline.ended" and known:
                found[name] = Deadline(**{**known.__dict__, "ended": str(data["how"])})
            elif record.kind == "deadline.warned" and known and read(data["at"]) == known.at:
                found[name] = Deadline(**{**known.__dict__, "warned": int(data["minutes"])})
        except (KeyError, TypeError, ValueError):
            continue  # written by somebody else than us; `verify` is for that
    return dict(sorted(found.items(), key=lambda item: item[1].at))


def standing(records: Iterable[Record]) -> list[Deadline]:
    """Return the deadlines that are neither met nor dropped, the next one first."""
    return [deadline for deadline in deadlines(records).values() if not deadline.ended]


def draft(records: Iterable[Record], name: str) -> dict[str, Any] | None:
    """Return the last words drafted for a deadline that is late, unless it was moved or ended since."""
    found = None
    for record in records:
        if record.data.get("name") == name and record.kind in ("deadline.set", "deadline.moved", "deadline.ended"):
            found = None
        elif record.data.get("name") == name and record.kind == "late.drafted":
            found = record.data
    return found


def read(text: str) -> datetime:
    """Return the time of an ISO text with offset, as our records have it."""
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(f"no offset in {text!r}")
    try:
        return time.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"{text!r} is no time of ours") from error


def write(time: datetime) -> str:
    """Return a time as our records have it."""
    return time.astimezone(UTC).isoformat(timespec="seconds")


def parse(words: str, now: datetime, zone: ZoneInfo) -> datetime:
    """Return the time to come that somebody typed, as `typed` reads it; one that has passed already is refused."""
    time = typed(words, now, zone)
    if time <= now:
        raise UsageError(
            f"'{words}' has passed: that is {said(time, zone, now)}, and now it is {said(now, zone, now)}.",
            "for a time after midnight write the date, too: "
            + f'"{now.astimezone(zone) + timedelta(days=1):%Y-%m-%d} 00:30"',
        )
    return time


def typed(words: str, now: datetime, zone: ZoneInfo) -> datetime:
    """Return the time that somebody typed, in the site's time zone unless it has an offset; never a guess.

    A time of day is today's. One that the clocks' change makes twice or leaves out is refused.
    """
    clock = _CLOCK.fullmatch(words.strip())
    today = now.astimezone(zone)
    try:
        if clock:
            local = datetime(today.year, today.month, today.day, int(clock[1]), int(clock[2]))
        elif ":" in words:  # a date alone is no deadline: midnight would be a guess
            local = datetime.fromisoformat(words.strip())
        else:
            raise ValueError(words)
        time = local.astimezone(UTC) if local.tzinfo else _in_zone(local, zone, words)
        time.astimezone(zone)  # or it could not be said there
    except (ValueError, OverflowError) as error:
        raise UsageError(f"'{words}' is no time.", _FIX) from error
    return time


def _in_zone(local: datetime, zone: ZoneInfo, words: str) -> datetime:
    times = {local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)}
    if len(times) > 1:
        raise UsageError(
            f"'{words}' is no certain time: in {zone.key} the clocks change just then.",
            "write it with its offset: " + " or ".join(sorted(time.astimezone(zone).isoformat() for time in times)),
        )
    return times.pop()


def said(time: datetime, zone: ZoneInfo, now: datetime) -> str:
    """Return a time as it is said at the site: the hour alone when it is today."""
    local = time.astimezone(zone)
    words = f"{local:%H:%M}" if local.date() == now.astimezone(zone).date() else f"{local:%Y-%m-%d %H:%M}"
    twice = local.replace(fold=0).utcoffset() != local.replace(fold=1).utcoffset()
    return f"{words} (UTC{local.isoformat()[-6:]})" if twice else words  # the hour that the clocks' change makes twice


def moment(seconds: int, zone: ZoneInfo) -> str:
    """Return a time that a host told in seconds since the epoch; hosts may tell any."""
    try:
        return f"{datetime.fromtimestamp(seconds, zone):%Y-%m-%d %H:%M}"
    except (ValueError, OverflowError, OSError):
        return f"second {seconds}"


def span(left: timedelta) -> str:
    """Return what is left in words, rounded down: in 1 h 05 min; 5 min ago."""
    minutes = int(abs(left.total_seconds()) // 60)
    words = f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"
    if minutes == 0:
        words = "less than a minute"
    return f"in {words}" if left > timedelta(0) else f"{words} ago"


def late_words(title: str, deadline: Deadline, until: datetime, why: str, zone: ZoneInfo, now: datetime) -> str:
    """Return the words to send to the customer when a deadline cannot be kept."""
    what = {"report": "our report", "restore": "the recovery", "other": deadline.name}[deadline.kind]
    return (
        f"{title}: {what}, promised for {said(deadline.at, zone, now)}, will be late. "
        f"The new time is {said(until, zone, now)} ({zone.key}). "
        f"The reason: {why.rstrip('.')}. You will hear from us by then in any case. {deadline.owner}"
    )
