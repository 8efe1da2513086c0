"""Calendar events of systemd, as systemd.time(7) "CALENDAR EVENTS" has them, and when they elapse next.

Where the manual is silent, this does what systemd 252 does (Debian 12; src/shared/calendarspec.c, `find_next`): a time
that the clocks' change leaves out does not elapse at all, and of one that it makes twice only the first is taken,
unless we stand behind that one already. An event in one of the host's own two zones (CET, CEST), which the manual
advises against, ends with that half of the year; systemd may let it elapse once more on the day after. Where systemd
gives up ("Infinite loop in calendar calculation", on its way from winter to summer), this goes on: better a time that
does not come than one that is not shown.
"""

import re
from calendar import monthrange
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hikeshi.schedule import walltime

_FIRST, _LAST = 1970, 2199  # the years that systemd knows
_SECOND = 1_000_000  # seconds are counted in microseconds
_MOST = 240  # parts of a list
_LONGEST = 4096  # characters; longer than what any list of so many parts needs
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_WORDS = {
    "minutely": "*-*-* *:*:00", "hourly": "*-*-* *:00:00", "daily": "*-*-* 00:00:00", "monthly": "*-*-01 00:00:00",
    "weekly": "Mon *-*-* 00:00:00", "yearly": "*-01-01 00:00:00", "quarterly": "*-01,04,07,10-01 00:00:00",
    "semiannually": "*-01,07-01 00:00:00",
}  # fmt: skip
_WORDS |= dict.fromkeys(("annually", "anually"), _WORDS["yearly"])
_WORDS |= dict.fromkeys(("semi-annually", "biannually", "bi-annually"), _WORDS["semiannually"])
_NUMBER = re.compile(r"[0-9]+", re.ASCII)
_SECONDS = re.compile(r"[0-9]+(?:\.(?!\.)[0-9]+)?", re.ASCII)


@dataclass(frozen=True)
class Part:
    """One entry of a list: a value, and what repeats it, up to `stop` or to the end."""

    start: int
    stop: int | None = None
    step: int = 0

    def at_or_after(self, value: int, last: int) -> int | None:
        """Return the first value from this one on."""
        stop = last if self.stop is None else min(self.stop, last)
        if self.start >= value:
            found = self.start
        elif self.step:
            found = self.start + -(-(value - self.start) // self.step) * self.step
        else:
            return None
        return found if found <= (last if found == self.start else stop) else None


Parts = tuple[Part, ...]


@dataclass(frozen=True)
class Event:
    """A calendar event. An empty list of parts stands for every value."""

    weekdays: frozenset[int]  # Monday is 0
    years: Parts = ()
    months: Parts = ()
    days: Parts = ()
    hours: Parts = (Part(0),)
    minutes: Parts = (Part(0),)
    microseconds: Parts = (Part(0),)
    from_end: bool = False  # days are counted from the end of the month
    zone: str = ""  # empty: the host's
    summer: bool | None = None  # only while the host's clocks are on summer time, or only while they are not


def parse(text: str, where: ZoneInfo) -> Event:
    """Return the event that a text names on a host in this zone; ValueError says why there is none."""
    if len(text) > _LONGEST or not text.isascii():
        raise ValueError("no calendar event of systemd")
    words, zone, summer = _zone(text, where)
    if not words.strip(" "):
        raise ValueError("an empty calendar event")
    words = _WORDS.get(words.lower(), words)
    weekdays, rest = _weekdays(words)
    event = Event(weekdays, zone=zone, summer=summer)
    if rest.startswith("@"):
        return _at_epoch(event, rest)
    date, _, time = rest.partition(" ")
    if date and ":" in date or not date:
        date, time = "", rest
    event = _date(event, date)
    return _time(event, time.lstrip(" "))


def _zone(text: str, where: ZoneInfo) -> tuple[str, str, bool | None]:
    """Return a text without its zone, the zone, and whether it names one of the host's own two."""
    words, _, last = text.rpartition(" ")
    if not words:
        return text, "", None
    if last.lower() == "utc":
        return words, "UTC", None
    for summer, name in enumerate(_names(where)):
        if name and last.lower() == name.lower():
            return words, "", bool(summer)
    if walltime.zone(last) is not None:
        return words, last, None
    return text, "", None


def _names(where: ZoneInfo) -> tuple[str, str]:
    """Return the host's names of its winter and its summer time, as tzset(3) has them."""
    names = {False: "", True: ""}
    for month in (1, 7):
        day = datetime(2026, month, 1, tzinfo=where)
        names[bool(day.dst())] = day.tzname() or ""
    return names[False], names[True]


def _weekdays(words: str) -> tuple[frozenset[int], str]:
    """Take the weekdays off the front of an event."""
    found: set[int] = set()
    rest, since = words, None
    while True:
        name = re.match(r"[A-Za-z]+", rest)
        day = _weekday(name[0]) if name else None
        if day is None or name is None:
            if found:
                raise ValueError("a weekday is expected")
            return frozenset(), words
        rest = rest[name.end() :]
        if rest and rest[0] not in " ,.-":
            raise ValueError("a weekday is followed by something else")
        if since is not None and since > day:
            raise ValueError("weekdays go backwards")
        found.update(range(day if since is None else since, day + 1))
        if rest.startswith(".") and not rest.startswith(".."):
            raise ValueError("one dot is no range")
        ranged = rest.startswith(("..", "-"))
        if ranged and since is not None:
            raise ValueError("a range of a range")
        since = day if ranged else None
        ended = not rest or rest.startswith(" ")
        rest = rest[2:] if rest.startswith("..") else rest if ended else rest[1:]
        if not rest or rest.startswith(" "):
            if ranged:
                raise ValueError("an open range of weekdays")
            return frozenset(found) if len(found) < 7 else frozenset(), rest.lstrip(" ")


def _weekday(name: str) -> int | None:
    return next((day for day, full in enumerate(_DAYS) if name.lower() in (full, full[:3])), None)


def _at_epoch(event: Event, rest: str) -> Event:
    """Return the one second since the epoch that `@` names, in UTC."""
    number = _NUMBER.fullmatch(rest, 1)
    at = walltime.from_epoch(int(number[0])) if number and len(number[0]) < 16 else None
    if at is None or not _FIRST <= at.year <= _LAST:
        raise ValueError("no second since the epoch")
    fields = (at.year, at.month, at.day, at.hour, at.minute, at.second * _SECOND)
    years, months, days, hours, minutes, microseconds = ((Part(value),) for value in fields)
    return Event(event.weekdays, years, months, days, hours, minutes, microseconds, zone="UTC")


def _date(event: Event, date: str) -> Event:
    if not date:
        return event
    *front, day = re.split(r"([-~])", date)
    # Months are parted from years by "-" only; of the two signs the last one decides how days are counted.
    if len(front) not in (2, 4) or (len(front) == 4 and front[1] != "-"):
        raise ValueError("no date")
    from_end = front[-1] == "~" and day != "*"
    years = tuple(_full_year(part) for part in _parts(front[0])) if len(front) == 4 else ()
    event = replace(event, years=years, months=_parts(front[-2]), days=_parts(day), from_end=from_end)
    _check(event.years, _FIRST, _LAST)
    _check(event.months, 1, 12)
    _check(event.days, 1, 31, from_end=from_end)
    return event


def _full_year(part: Part) -> Part:
    """Return the years that two digits stand for: 12 is 2012, 89 is 1989."""
    start, stop = (
        value if value is None or value >= 100 else value + 2000 if value < 70 else value + 1900
        for value in (part.start, part.stop)
    )
    return _part_of(start or 0, stop, part.step)


def _time(event: Event, time: str) -> Event:
    if not time:
        return event
    fields = time.split(":")
    if len(fields) not in (2, 3):
        raise ValueError("no time of day")
    seconds = _parts(fields[2], seconds=True) if len(fields) == 3 else (Part(0),)
    event = replace(event, hours=_parts(fields[0]), minutes=_parts(fields[1]), microseconds=seconds)
    _check(event.hours, 0, 23)
    _check(event.minutes, 0, 59)
    _check(event.microseconds, 0, 60 * _SECOND - 1)
    return event


def _parts(text: str, *, seconds: bool = False) -> Parts:
    """Return a list such as 1,5..9/2; nothing for `*`, which of seconds means every whole one."""
    if text == "*":
        return (Part(0, None, _SECOND),) if seconds else ()
    texts = text.split(",")
    if len(texts) > _MOST:
        raise ValueError("too long a list")
    return tuple(_part(item, seconds=seconds) for item in texts)


def _part(text: str, *, seconds: bool) -> Part:
    span, slash, step = text.partition("/")
    start, dots, stop = span.partition("..")
    unit = _SECOND if seconds else 1
    every = _value(step, seconds=seconds) if slash else unit if dots else 0
    if slash and not every:
        raise ValueError("a repetition of nothing")
    first, last = _value(start, seconds=seconds), _value(stop, seconds=seconds) if dots else None
    if seconds and first == last and not slash:
        raise ValueError("a range of one second")  # which systemd refuses, and only of seconds
    return _part_of(first, last, every)


def _part_of(first: int, last: int | None, step: int) -> Part:
    """Return a part whose last value is one that it has: from the end of a month, that one comes first."""
    if last is not None and last > first:
        last -= (last - first) % step
    return Part(first) if first == last else Part(first, last, step)


def _value(text: str, *, seconds: bool) -> int:
    if not (_SECONDS if seconds else _NUMBER).fullmatch(text):
        raise ValueError("no number")
    whole, _, part = text.partition(".")
    if len(whole) > 9:
        raise ValueError("too large a number")
    if not seconds:
        return int(whole)
    # Rounded to six places, the seventh digit deciding.
    digits = part[:7].ljust(7, "0")
    return int(whole) * _SECOND + int(digits[:6]) + (digits[6] >= "5")


def _check(parts: Parts, first: int, last: int, *, from_end: bool = False) -> None:
    """Refuse what systemd refuses: a value outside, a repetition that never comes."""
    for part in sorted(set(parts), key=lambda part: (part.start, -1 if part.stop is None else part.stop, part.step)):
        # No more than 28 days from the end: of a list, systemd takes three days more off for each entry.
        last -= 3 if from_end else 0
        if not first <= part.start <= last or part.step > last - first:
            raise ValueError("a value that no calendar has")
        if part.stop is not None:
            wrong = not first <= part.stop <= last or part.start + part.step > part.stop
        elif from_end:
            wrong = part.start - part.step < first
        else:
            wrong = part.start + part.step > last
        if wrong:
            raise ValueError("a range or a repetition that never comes")


def next_elapse(event: Event, after: datetime, where: ZoneInfo) -> datetime | None:
    """Return when an event elapses next, in UTC, on a host in this zone; None when it never does again."""
    zone = (walltime.zone(event.zone) if event.zone else where) or where
    begin = after.astimezone(UTC) + timedelta(microseconds=1)
    if event.summer not in (None, bool(begin.astimezone(zone).dst())):
        return None  # systemd gives up when it begins in the other half of the year
    wall = walltime.local(begin, zone)
    while (found := _day(event, wall)) is not None:
        midnight, from_time = found
        time = _time_of_day(event, from_time)
        if time is not None:
            wall = midnight + time
            for at in walltime.instants(wall, zone):
                if at >= begin:
                    return at if event.summer in (None, bool(at.astimezone(zone).dst())) else None
            wall += timedelta(microseconds=1)
        else:
            wall = midnight + timedelta(days=1)
    return None


def _day(event: Event, wall: datetime) -> tuple[datetime, timedelta] | None:
    """Return the first day from this time on that the event has, and the time of day to begin with."""
    year, month, day = wall.year, wall.month, wall.day
    begin = wall - datetime(year, month, day)
    while (found := _first(event.years, year, _LAST)) is not None:
        if found != year:
            year, month, day, begin = found, 1, 1, timedelta()
        if (other := _first(event.months, month, 12)) is None:
            year, month, day, begin = year + 1, 1, 1, timedelta()
            continue
        if other != month:
            month, day, begin = other, 1, timedelta()
        length = monthrange(year, month)[1]
        date = _first(_from_end(event.days, length) if event.from_end else event.days, day, length)
        if date is None:
            year, month, day, begin = year + month // 12, month % 12 + 1, 1, timedelta()
            continue
        if date != day:
            day, begin = date, timedelta()
        midnight = datetime(year, month, day)
        if not event.weekdays or midnight.weekday() in event.weekdays:
            return midnight, begin
        day, begin = day + 1, timedelta()
    return None


def _from_end(parts: Parts, length: int) -> Parts:
    """Return days counted from the month's end as days of the month: the first is the last day."""
    return tuple(
        Part(length + 1 - part.start, None, part.step) if part.stop is None
        else Part(length + 1 - part.stop, length + 1 - part.start, part.step)
        for part in parts
    )  # fmt: skip


def _time_of_day(event: Event, begin: timedelta) -> timedelta | None:
    """Return the first time of day from this one on that the event has."""
    minute_of_day, rest = divmod(begin, timedelta(minutes=1))
    hour, minute = divmod(minute_of_day, 60)
    micros = rest // timedelta(microseconds=1)
    while (found := _first(event.hours, hour, 23)) is not None:
        if found != hour:
            hour, minute, micros = found, 0, 0
        if (other := _first(event.minutes, minute, 59)) is None:
            hour, minute, micros = hour + 1, 0, 0
            continue
        if other != minute:
            minute, micros = other, 0
        if (last := _first(event.microseconds, micros, 60 * _SECOND - 1)) is None:
            minute, micros = minute + 1, 0
            continue
        return timedelta(hours=hour, minutes=minute, microseconds=last)
    return None


def _first(parts: Sequence[Part], value: int, last: int) -> int | None:
    """Return the first value from this one on that a list has; an empty list has them all."""
    if not parts:
        return value if value <= last else None
    found = [item for part in parts if (item := part.at_or_after(value, last)) is not None]
    return min(found, default=None)
