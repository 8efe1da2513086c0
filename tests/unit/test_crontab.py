"""Lines of cron fire when two others say so: croniter, and cron's own main loop, gone through minute by minute."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from croniter import CroniterBadDateError, croniter
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hikeshi.schedule import crontab

EXAMPLES = 3000 if os.environ.get("HIKESHI_TEST_ALL") else 300
HOUR = timedelta(hours=1)
# Days on which the clocks change, in places where they do so at 1, 2, 3 o'clock and at midnight, by 30 to 120 minutes.
CHANGES = (
    ("Europe/Berlin", "2026-03-29T01:00Z"), ("Europe/Berlin", "2026-10-25T01:00Z"),
    ("America/New_York", "2026-03-08T07:00Z"), ("America/New_York", "2026-11-01T06:00Z"),
    ("Australia/Lord_Howe", "2026-10-03T15:30Z"), ("Australia/Lord_Howe", "2026-04-04T15:00Z"),
    ("Africa/Cairo", "2026-04-23T22:00Z"), ("Africa/Cairo", "2026-10-29T21:00Z"),
    ("America/Havana", "2026-03-08T05:00Z"), ("America/Havana", "2026-11-01T05:00Z"),
    ("Antarctica/Troll", "2026-03-29T01:00Z"), ("Antarctica/Troll", "2026-10-25T01:00Z"),
    ("Asia/Tokyo", "2026-05-01T00:00Z"),
)  # fmt: skip


@dataclass(frozen=True)
class Field:
    """A field and the values that it stands for, made together: no parser is asked."""

    text: str
    values: frozenset[int]

    @property
    def starred(self) -> bool:
        return self.text.startswith("*")


def field(first: int, last: int, names: tuple[str, ...] = ()) -> st.SearchStrategy[Field]:
    def said(value: int) -> str:
        return names[value - first] if names and value - first < len(names) else str(value)

    def span(low: int, high: int, step: int) -> Field:
        return Field(f"{said(low)}-{said(high)}" + f"/{step}" * (step > 1), frozenset(range(low, high + 1, step)))

    value = st.integers(first, last)
    one = st.one_of(
        value.map(lambda number: Field(said(number), frozenset({number}))),
        st.builds(lambda two, step: span(min(two), max(two), step), st.tuples(value, value), st.integers(1, 9)),
    )
    star = st.integers(1, last).map(
        lambda step: Field("*" + f"/{step}" * (step > 1), frozenset(range(first, last + 1, step)))
    )
    many = st.lists(st.one_of(one, star), min_size=2, max_size=3).map(
        lambda some: Field(",".join(item.text for item in some), frozenset().union(*(item.values for item in some)))
    )
    return st.one_of(one, star, star.map(lambda _: Field("*", frozenset(range(first, last + 1)))), many)


MONTHS = ("jan", "Feb", "MAR", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
LINES = st.tuples(field(0, 59), field(0, 23), field(1, 31), field(1, 12, MONTHS),
                  field(0, 7, ("sun", "Mon", "TUE", "wed", "thu", "fri", "sat", "7")))  # fmt: skip
# Of what fires seldom a simulation of some days sees nothing.
OFTEN = st.tuples(field(0, 59), field(0, 23), st.just(Field("*", frozenset(range(1, 32)))),
                  st.just(Field("*", frozenset(range(1, 13)))), st.just(Field("*", frozenset(range(8)))))  # fmt: skip


def read(fields: tuple[Field, ...]) -> str:
    row = " ".join(item.text for item in fields) + " root x\n"
    table = crontab.parse(row.encode())
    assert not table.ignored, row
    return table.lines[0].expression


def ours(fields: tuple[Field, ...], after: datetime, zone: str, count: int = 5) -> list[datetime]:
    return list(crontab.next_firings(read(fields), after, ZoneInfo(zone), count))


def matches(fields: tuple[Field, ...]) -> Callable[[datetime], bool]:
    minute, hour, day, month, weekday = fields

    def match(wall: datetime) -> bool:
        on_day = wall.day in day.values
        on_weekday = bool({wall.isoweekday() % 7, wall.isoweekday()} & weekday.values)
        right = on_day and on_weekday if day.starred or weekday.starred else on_day or on_weekday
        return right and wall.minute in minute.values and wall.hour in hour.values and wall.month in month.values

    return match


def crons(fields: tuple[Field, ...], begin: datetime, end: datetime, where: ZoneInfo) -> list[datetime]:
    """Go through the main loop of cron.c, which counts minutes of local time: return when a line's job is started."""
    match, wild = matches(fields), fields[0].starred or fields[1].starred
    epoch = datetime(1970, 1, 1)

    def clock(at: datetime) -> int:
        return (at.astimezone(where).replace(tzinfo=None, fold=0) - epoch) // timedelta(minutes=1)

    def found(minute: int) -> bool:
        return match(epoch + timedelta(minutes=minute))

    fired, virtual, at = [], clock(begin), begin
    while (at := at + timedelta(minutes=1)) <= end:
        running = clock(at)
        ahead = running - virtual
        if 1 <= ahead <= 5:
            due = any(found(minute) for minute in range(virtual + 1, running + 1))
        elif 5 < ahead <= 180:
            missed = range(virtual + 1, running + 1)
            due = found(running) if wild else any(found(minute) for minute in missed)
        elif -180 < ahead <= 0:
            due = wild and found(running)
        else:
            due = found(running)
        if due:
            fired.append(at)
        if ahead > 0 or ahead <= -180:
            virtual = running
    return fired


@settings(max_examples=EXAMPLES, deadline=None)
@given(fields=LINES, minutes=st.integers(0, 3 * 365 * 24 * 60))
def test_lines_fire_when_croniter_says(fields: tuple[Field, ...], minutes: int) -> None:
    after = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
    # croniter takes "*/2" for a restricted day, cron does not; and it knows no 7 in lists with names.
    day, weekday = fields[2], fields[4]
    assume(all(item.text == "*" or not item.starred for item in (day, weekday)))
    asked = " ".join("*" if item.text == "*" else ",".join(map(str, sorted(item.values))) for item in fields)
    theirs: Any = croniter(asked, after, day_or=True)
    try:
        expected = [theirs.get_next(datetime) for _ in range(5)]
    except CroniterBadDateError:  # the 30th of February
        expected = []
    assert ours(fields, after, "UTC") == expected


@settings(max_examples=EXAMPLES, deadline=None)
@given(fields=OFTEN, change=st.sampled_from(CHANGES), before=st.integers(-170, 30 * 60))
def test_lines_fire_as_crons_loop_goes(fields: tuple[Field, ...], change: tuple[str, str], before: int) -> None:
    zone, at = change[0], datetime.fromisoformat(change[1])
    after, end = at - timedelta(minutes=before), at + 20 * HOUR
    # cron has been running since long before we look.
    expected = [time for time in crons(fields, at - 48 * HOUR, end, ZoneInfo(zone)) if time > after][:40]
    found = [time for time in ours(fields, after, zone, 40) if time <= end]
    assert found == expected


@pytest.mark.parametrize(
    ("row", "expression"),
    [
        ("*/15 8-18/2 * jan,Mar mon-fri root x", "*/15 8,10,12,14,16,18 * 1,3 1,2,3,4,5"),
        ("@daily root x", "0 0 * * *"),
        ("@reboot root x", "@reboot"),
        ("5-5/2 0 * * * root x", "5 0 * * *"),  # cronsim alone would read 5/2
        ("*,5 1,* * * 7 root x", "* 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23 * * 7"),
        ("5;no *no * * * root x", "5 * * * *"),  # what follows an entry is passed over
        ("30-10 * * * * root x", ""),  # accepted, and never fires
        ("0 0 31-1 * 1 root x", "0 0 * * 1"),
        ("0 0 31-1 * * root x", ""),
        (" \t0 0 * * 0 root x", "0 0 * * 0"),
    ],
)
def test_what_cron_reads(row: str, expression: str) -> None:
    table = crontab.parse(f"A=1\n# no\n{row}\n".encode())
    assert (table.ignored, table.lines[0].expression, table.lines[0].user) == ("", expression, "root")
    assert table.lines[0].number == 3


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("60 * * * * root x\n", "line 1: bad minute"),
        ("1/5 * * * * root x\n", "line 1: bad minute"),  # a step without a range
        ("* 24 * * * root x\n", "line 1: bad hour"),
        ("* * 0 * * root x\n", "line 1: bad day-of-month"),
        ("* * * foo * root x\n", "line 1: bad month"),
        ("* * * * 8 root x\n", "line 1: bad day-of-week"),
        ("* * * * */0 root x\n", "line 1: bad day-of-week"),
        ("* * * * L root x\n", "line 1: bad day-of-week"),
        ("* * * * 1#2 root x\n* * * * fri-sun root x\n* * L * * root x\n", "line 3: bad day-of-month"),
        ("@often root x\n", "line 1: bad time specifier"),
        ("@REBOOT root x\n", "line 1: bad time specifier"),
        ("A=\n* * * * * root x\n", "line 1: bad minute"),
        ("* * * * * root " + "x" * 999 + "\n", "line 1: command too long"),
        ("* * * * *\n", "line 1: bad username"),
        ("* * * * * root x", "no newline at its end"),
        ("\r\n", "line 1: bad minute"),
        ("\n" * 10_001 + "* * * * * root x\n" * 9, "more than 10,000 lines"),
    ],
)
def test_one_wrong_line_stops_the_whole_file(content: str, why: str) -> None:
    assert crontab.parse(content.encode()).ignored == why


def test_variables_are_no_lines() -> None:
    content = "CRON_TZ=UTC\n 'a b' = \"c\" \nx=''\n=y\nEMPTY=\"\"\nLONG=a b  # c\n@daily=5\n"
    assert crontab.parse(content.encode()) == crontab.Crontab(())


def test_a_users_lines_name_nobody() -> None:
    table = crontab.parse(b"* * * * * root x\n@daily\n0 0 * * * *x\n", user="shop")
    assert [(line.user, line.command, line.wrong) for line in table.lines] == [
        ("shop", "root x", ""),
        ("shop", "", ""),
        ("shop", "*x", "bad command"),
    ]


@pytest.mark.parametrize(
    ("command", "shell", "stdin"),
    [
        ("x", "x", ""),
        ("mail -s a b%one%two", "mail -s a b", "one\ntwo"),
        (r"date +\%F", "date +%F", ""),
        (r"date +\%F%in \% put", "date +%F", "in % put"),
        (r"a \\%b", r"a \%b".replace("%b", ""), "b"),
        ("%", "", ""),
        ("a\\", "a\\", ""),
    ],
)
def test_a_percent_sign_ends_the_line(command: str, shell: str, stdin: str) -> None:
    assert crontab.split(command) == (shell, stdin)


@pytest.mark.parametrize(
    ("name", "read"),
    [("anacron", True), ("a-b_C9", True), (".placeholder", False), ("wipe.sh", False), ("x~", False), ("", False)],
)
def test_names_that_cron_passes_over(name: str, read: bool) -> None:
    assert crontab.runs_of_name(name) is read


@settings(max_examples=EXAMPLES // 3, deadline=None)
@given(content=st.binary(max_size=300))
def test_any_bytes_are_a_crontab(content: bytes) -> None:
    table = crontab.parse(content)
    for line in table.lines:
        crontab.next_firings(line.expression, datetime(2026, 1, 1, tzinfo=UTC), ZoneInfo("Europe/Berlin"), 2)


def test_a_line_that_is_edited_is_another() -> None:
    before, after = (crontab.parse(row).lines[0] for row in (b"@daily a x\n", b"@daily a y\n"))
    assert before.digest != after.digest
