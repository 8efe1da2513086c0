"""Crontabs as Debian's cron reads them, and when their lines fire next.

The facts are those of cron 3.0pl1-162 (Debian 12): `load_env` in env.c, `load_entry` and `get_list` in entry.c,
`load_user` in user.c, `process_crontab` in database.c, the main loop in cron.c, `child_process` in do_command.c. A
single line that cron does not understand makes it ignore the whole file. CRON_TZ is a variable like any other: times
are the host's. (cron reads bytes; so does this, as Latin-1.)
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from hikeshi.schedule import walltime

REBOOT = "@reboot"
_MOST_LINES = 10_003  # MAX_TAB_LINES, NHEADER_LINES
_LONGEST_COMMAND = 998  # characters: MAX_COMMAND is 1000, and what fills it may have been cut
_LONGEST_VARIABLE = 998  # MAX_ENVSTR
_LONGEST_JUMP = timedelta(hours=3)  # of the clock: what it leaves out is run afterwards, but not of a longer one
_NAME = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)  # `valid_name`, in cron.d
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS = (  # what cron calls it, the first and the last value, names
    ("bad minute", 0, 59, ()),
    ("bad hour", 0, 23, ()),
    ("bad day-of-month", 1, 31, ()),
    ("bad month", 1, 12, _MONTHS),
    ("bad day-of-week", 0, 7, _WEEKDAYS),
)  # fmt: skip
_WORDS = {
    "reboot": REBOOT, "yearly": "0 0 1 1 *", "annually": "0 0 1 1 *", "monthly": "0 0 1 * *", "weekly": "0 0 * * 0",
    "daily": "0 0 * * *", "midnight": "0 0 * * *", "hourly": "0 * * * *",
}  # fmt: skip
_ENTRY = re.compile(r"(?:(?P<star>\*)|(?P<low>[A-Za-z0-9]+)(?:-(?P<high>[A-Za-z0-9]*))?)(?:/(?P<step>[A-Za-z0-9]*))?")
# A name and a value, either of them quoted or not; a value of nothing must be quoted.
_VARIABLE = re.compile(
    r"""[ \t]*(?:'[^'=]*'|"[^"=]*"|(?:[^\s='"][^\s=]*)?)\s*=\s*(?:'[^']*'\s*|"[^"]*"\s*|[^'"\s].*)""",
    re.DOTALL | re.ASCII,
)


@dataclass(frozen=True)
class Line:
    """One line that runs something. `times` are its five fields or @word as written, `expression` what they come to.

    `wrong` is why cron does not accept it, in cron's own words; `expression` is empty when it never fires.
    """

    number: int
    digest: str
    times: str
    user: str
    command: str
    stdin: str = ""
    expression: str = ""
    wrong: str = ""


@dataclass(frozen=True)
class Crontab:
    """A crontab; with `ignored`, cron runs nothing of it, and says so in its log."""

    lines: tuple[Line, ...]
    ignored: str = ""


def runs_of_name(name: str) -> bool:
    """Say whether cron reads a file of this name in cron.d: one with a dot, say, it passes over."""
    return bool(_NAME.fullmatch(name))


def parse(content: bytes, *, user: str = "") -> Crontab:
    """Return what a crontab says; without a user it is one of the system's, whose lines name theirs. Never raises."""
    text = content.decode("latin-1")
    rows = text.split("\n")
    ignored = ""
    if rows[-1].strip(" \t") and not rows[-1].lstrip(" \t").startswith("#"):
        ignored = "no newline at its end"
    lines = []
    for number, row in enumerate(rows[:_MOST_LINES], start=1):
        words = row.lstrip(" \t")
        if not words or words.startswith("#") or _is_variable(row):
            continue
        line = _line(number, row, user)
        lines.append(line)
        if line.wrong and not ignored:
            ignored = f"line {number}: {line.wrong}"
    if len(rows) - 1 > _MOST_LINES:
        ignored = ignored or "more than 10,000 lines"
    return Crontab(tuple(lines), ignored)


def _is_variable(row: str) -> bool:
    return bool(_VARIABLE.fullmatch(row[:_LONGEST_VARIABLE])) and "\0" not in row


def _line(number: int, row: str, user: str) -> Line:
    digest = hashlib.sha256(row.encode("latin-1")).hexdigest()[:8]
    row = row.lstrip(" \t").partition("\0")[0]  # a string of C ends there
    if row.startswith("@"):
        times, rest = _first_word(row)
        expression = _WORDS.get(times[1:], "")
        wrong = "" if expression else "bad time specifier"
    else:
        times, rest, expression, wrong = _fields(row)
    if wrong:
        return Line(number, digest, times, user, rest, wrong=wrong)
    if not user:
        user, rest = _first_word(rest)
        wrong = "bad username" if not user else "bad command" if not rest else ""
    elif rest.startswith("*"):
        wrong = "bad command"
    if len(rest) > _LONGEST_COMMAND:
        wrong = "command too long"
    command, stdin = split(rest)
    return Line(number, digest, times, user, command, stdin, "" if wrong else expression, wrong)


def _first_word(text: str) -> tuple[str, str]:
    word = re.match(r"[^ \t]*", text)
    end = word.end() if word else 0
    return text[:end], text[end:].lstrip(" \t")


def _fields(row: str) -> tuple[str, str, str, str]:
    """Return five fields, what stands behind them, what cron makes of them, and what is wrong."""
    written, fields, rest = [], [], row
    for wrong, first, last, names in _FIELDS:
        word, rest = _first_word(rest)
        written.append(word)
        field = _field(word, first, last, names)
        if field is None:
            return " ".join(written), rest, "", wrong
        fields.append(field)
    return " ".join(written), rest, _expression(fields), ""


def _field(text: str, first: int, last: int, names: tuple[str, ...]) -> str | None:
    """Return a field as cronsim is to have it: what begins with a star still does, all else is a list of numbers.

    None where cron refuses. What follows an entry and is no comma, cron passes over (Skip_Nonblanks).
    """
    starred, entries = text.startswith("*"), []
    while True:
        found = _ENTRY.match(text)
        entry = _entry(found, first, last, names) if found else None
        if found is None or entry is None:
            return None
        entries.append(entry)
        text = text[found.end() :]
        if not text.startswith(","):
            break
        text = text[1:]
    if "*" in entries:
        return "*" if starred else ",".join(map(str, range(first, last + 1)))
    return ",".join(filter(None, entries))


def _entry(found: re.Match[str], first: int, last: int, names: tuple[str, ...]) -> str | None:
    """Return one entry: a star as it is, all else as numbers; nothing for 5-3, which cron takes without a word."""
    every = 1 if found["step"] is None else _number(found["step"], ()) or 0
    if found["star"]:
        return None if not every else "*" if every == 1 else f"*/{every}"
    low = _number(found["low"], names, first)
    high = low if found["high"] is None else _number(found["high"], names, first)
    # cron refuses a step without a range.
    if low is None or high is None or not every or (found["step"] is not None and found["high"] is None):
        return None
    if not first <= low <= last or not first <= high <= last:
        return None
    return ",".join(map(str, range(low, high + 1, every)))


def _number(text: str, names: tuple[str, ...], first: int = 0) -> int | None:
    if text.lower() in names:
        return names.index(text.lower()) + first
    return int(text) if text.isdigit() and len(text) < 10 else None


def _expression(fields: list[str]) -> str:
    """Return what cronsim is asked; "" where a field has no value at all, so that it never fires.

    Where neither day field begins with a star, either of them will do: then one without a value leaves it to the other.
    """
    minute, hour, day, month, weekday = fields
    starred = day.startswith("*") or weekday.startswith("*")
    if not minute or not hour or not month or (not day and not weekday) or (starred and not (day and weekday)):
        return ""
    return f"{minute} {hour} {day or '*'} {month} {weekday or '*'}"


def split(command: str) -> tuple[str, str]:
    r"""Return what the shell gets, and what the command reads: the first % ends the line, more of them are line ends.

    A backslash takes a % its meaning, and is then left out.
    """
    begin = re.match(r"(?:[^\\%]|\\.)*", command, re.DOTALL)
    end = begin.end() if begin and command[begin.end() : begin.end() + 1] == "%" else len(command)
    shell, stdin = command[:end], command[end + 1 :]
    lines = re.sub(r"\\(%)|%", lambda found: found[1] or "\n", stdin)
    return re.sub(r"\\([%\\])", r"\1", shell), lines


def next_firings(expression: str, after: datetime, where: ZoneInfo, count: int) -> tuple[datetime, ...]:
    """Return when a line fires next, in UTC, on a host in this zone. @reboot has no time.

    As the clock goes forward, what it leaves out runs at once, unless minute or hour begin with a star; as it goes
    back, only what begins with a star runs a second time (cron.c: "DST begins", "DST ends").
    """
    if not expression or expression == REBOOT:
        return ()
    return _firings(expression, after.astimezone(UTC), where, count)


@lru_cache(maxsize=4096)
def _firings(expression: str, after: datetime, where: ZoneInfo, count: int) -> tuple[datetime, ...]:
    minute, hour = expression.split()[:2]
    wild = minute.startswith("*") or hour.startswith("*")
    found: list[datetime] = []
    for wall in _walls(expression, walltime.local(after, where) - _LONGEST_JUMP):
        times = walltime.instants(wall, where)
        if not wild:
            times = times[:1] or _behind_gap(wall, where)
        # Times before the clock went back come again behind it: what is found later may be earlier.
        if len(found) >= count and times and times[0] > sorted(found)[count - 1]:
            break
        found += [at for at in times if at > after and at not in found]
    return tuple(sorted(found)[:count])


def _walls(expression: str, after: datetime) -> Iterator[datetime]:
    """Yield what the clock says when a line fires. Without a zone, cronsim knows nothing of its changes."""
    try:
        yield from CronSim(expression, after)
    except (CronSimError, OverflowError, ValueError):  # the 30th of February; the last year that Python knows
        return


def _behind_gap(wall: datetime, where: ZoneInfo) -> list[datetime]:
    """Return when the clock, having left out this time, goes on."""
    for minutes in range(1, int(_LONGEST_JUMP / timedelta(minutes=1)) + 1):
        if times := walltime.instants(wall + timedelta(minutes=minutes), where):
            return times[:1]
    return []
