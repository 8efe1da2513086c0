"""Anacron: what it runs, when it has run it last, and when it will again.

The facts are those of Debian's anacron 2.3 (2.3-36): `parse_tab_line` in readtab.c, `consider_job` in lock.c, main.c,
gregor.c. It has no daemon: it is started at boot (anacron.service) and once an hour by anacron.timer, which is where
the times come from. START_HOURS_RANGE and RANDOM_DELAY are cronie's: to Debian's anacron they are variables like any
other. A RANDOM_DELAY is counted in all the same, as it makes the end of a range later and no beginning earlier.
"""

import re
from calendar import isleap, monthrange
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from hikeshi.schedule import walltime
from hikeshi.schedule.job import AHEAD, Firing

_VARIABLE = re.compile(r"[ \t]*([^ \t=]+)[ \t]*=(.*)", re.DOTALL)
_JOB = re.compile(r"[ \t]*(@[^ \t]+|[0-9]+)[ \t]+([0-9]+)[ \t]+([^ \t/]+)[ \t]+([^ \t].*)", re.DOTALL)
_INT_MAX = 2**31 - 1
_MONTHLY, _YEARLY = "@monthly", "@yearly"


@dataclass(frozen=True)
class Entry:
    """A job of anacron. `period` is a number of days, @monthly or @yearly; `wrong` is why anacron passes over it."""

    number: int
    name: str
    period: str
    delay: int  # minutes
    command: str
    wrong: str = ""


def parse(content: bytes) -> tuple[list[Entry], timedelta]:
    """Return the jobs of an anacrontab, and by how much a RANDOM_DELAY may delay each more. Never raises."""
    text = content.decode("utf-8", "surrogateescape").replace("\\\n", " ")
    entries, random = [], timedelta()
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip(" \t") or line.lstrip(" \t").startswith("#"):
            continue
        if (variable := _VARIABLE.fullmatch(line)) is not None:
            value = variable[2].strip()
            if variable[1] == "RANDOM_DELAY" and re.fullmatch(r"[0-9]{1,4}", value):
                random = timedelta(minutes=int(value))
            continue
        entries.append(_entry(number, line))
    return entries, random


def _entry(number: int, line: str) -> Entry:
    job = _JOB.fullmatch(line)
    if job is None:
        return Entry(number, f"line {number}", "", 0, line, "anacron does not know this line's syntax")
    period, delay, name, command = job.groups()
    # strncmp of seven characters: @monthl will do.
    named = next((word for word in (_MONTHLY, _YEARLY) if period[:7] == word[:7]), "")
    numbers = [delay] if period.startswith("@") else [delay, period]
    if any(len(text) > 10 or int(text) > _INT_MAX for text in numbers):
        return Entry(number, name, period, 0, command, "a number is out of range")
    if period.startswith("@") and not named:
        return Entry(number, name, period, int(delay), command, f"anacron knows no period {period}")
    return Entry(number, name, named or period, int(delay), command)


def parse_stamp(content: bytes) -> date | None:
    """Return the day on which a job ran last; None when anacron would take it for one that never ran."""
    found = re.match(rb"(\d{4})(\d\d)(\d\d)", content)
    try:
        return date(int(found[1]), int(found[2]), int(found[3])) if found else None
    except ValueError:
        return None


def due(entry: Entry, last: date | None, today: date) -> bool:
    """Say whether anacron, started on this day, runs a job."""
    if last is None:
        return True
    passed = (today - last).days
    if entry.period == _MONTHLY:
        # At least the length of the last month, or exactly that of this one.
        before = monthrange(today.year - (today.month == 1), (today.month - 2) % 12 + 1)[1]
        return passed < 0 or passed >= before or passed == monthrange(today.year, today.month)[1]
    if entry.period == _YEARLY:
        return passed < 0 or passed >= 365 + isleap(today.year - 1) or passed == 365 + isleap(today.year)
    return passed < 0 or passed >= int(entry.period)  # a day to come: the clock was wrong


def firings(
    entry: Entry, last: date | None, now: datetime, where: ZoneInfo, starts: Iterable[Firing], random: timedelta
) -> tuple[Firing, ...]:
    """Return when a job goes off, anacron being started at these times; and at boot, when it is due today."""
    found: list[Firing] = []
    delay = timedelta(minutes=min(entry.delay, 60 * 24 * 366))
    if due(entry, last, walltime.local(now, where).date()):
        found.append(Firing(None, None, f"catch-up at boot, {entry.delay} min after it"))
    for start in starts:
        if start.earliest is None or len(found) >= AHEAD:
            continue
        latest = start.latest or start.earliest
        days = [walltime.local(at, where).date() for at in (start.earliest, latest)]
        if not any(due(entry, last, day) for day in days):
            continue
        # Debian starts it with -s: a job waits for those before it, however long these take.
        found.append(Firing(start.earliest + delay, latest + delay + random, "or once the jobs before it are done"))
        last = days[1]
    return tuple(found)
