"""Calendar events elapse when systemd itself says they do."""

import os
import re
import shutil
import subprocess
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hikeshi.schedule import calendar

ALL = bool(os.environ.get("HIKESHI_TEST_ALL"))
EXAMPLES = 3000 if ALL else 300
# Another fault of systemd's own must not stop who changes something else: new examples are for --all.
many = settings(max_examples=EXAMPLES, deadline=None, derandomize=not ALL)
ZONES = ("UTC", "Asia/Tokyo", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo",
         "America/Havana", "Antarctica/Troll", "Pacific/Chatham")  # fmt: skip
START = datetime(2026, 2, 27, tzinfo=UTC)
DAYS = ("Mon", "tue", "Wednesday", "thu", "FRI", "sat", "Sun")
# What the manual gives as examples, without the ones that are over.
MANUAL = ("Sat,Thu,Mon..Wed,Sat..Sun", "Wed *-1", "Wed..Wed,Wed *-1", "Wed, 17:48", "*-*-7 0:0:0", "10-15",
          "monday *-12-* 17:00", "Mon,Fri *-*-3,1,2 *:30:45", "12,14,13,12:20,10,30", "12..14:10,20,30",
          "mon,fri *-1/2-1,3 *:30:45", "03-05 08:05:40", "08:05:40", "05:40", "Sat,Sun 12-05 08:05:40",
          "Sat,Sun 08:05:40", "2033-03-05 05:40", "05:40:23.4200004/3.1700005", "2033-02..04-05",
          "2033-03-05 05:40 UTC", "2033-03-05", "03-05", "hourly", "daily", "daily UTC", "monthly", "weekly",
          "weekly Pacific/Auckland", "yearly", "annually", "*:2/3", "*-02~03", "Mon *-05~07/1", "minutely",
          "quarterly", "semiannually", "@1800000000")  # fmt: skip
MALFORMED = ("", " ", "never", "sun..mon", "Mon..", "Mon.Tue", "Mon-Tue-Wed", "5..3:0", "24:00", "*:60", "*-13-1",
             "*-*-0", "*-*-32", "*-*~29", "*-*~03..01", "1:2:3:4", "*:0/0", "*:0/60", "2200-1-1", "*~1-1", "x daily",
             "daily x", "*-*-* 5", "5:00 Nowhere/Else", "Mon Tue", "1,,2:00", "@", "@x", "@99999999999999999999",
             "*-*-*-*", "5:00:00.", "\x1b[2J", "٣:00", "{{ 7*7 }}", "0" * 5000, "1," * 5000)  # fmt: skip


def ours(text: str, zone: str, after: datetime, count: int) -> list[datetime] | None:
    where = ZoneInfo(zone)
    try:
        event = calendar.parse(text, where)
    except ValueError:
        return None
    found: list[datetime] = []
    at: datetime | None = after
    while len(found) < count and at and (at := calendar.next_elapse(event, at, where)):
        found.append(at)
    return [at.replace(microsecond=0) for at in found]


def systemds(text: str, zone: str, after: datetime, count: int) -> list[datetime] | None:
    """Ask systemd: the only part of these tests that needs its program on this machine."""
    asked = subprocess.run(
        ["systemd-analyze", "calendar", f"--base-time={after:%Y-%m-%d %H:%M:%S} UTC", f"--iterations={count}",
         "--", text],
        capture_output=True, text=True, env={**os.environ, "TZ": zone, "LC_ALL": "C"}, check=False,
    )  # fmt: skip
    if asked.returncode:
        # A fault of systemd 252, which it finds itself: from winter to summer in one step, it may turn in circles.
        told = asked.stderr + asked.stdout
        assume("Infinite loop in calendar calculation" not in told and "Resource deadlock avoided" not in told)
        return None
    line = r"\(in UTC\): \w+ (\S+ \S+) UTC" if "(in UTC)" in asked.stdout else r"(?:elapse|#\d+): \w+ (\S+ \S+) UTC"
    return [datetime.strptime(at, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC) for at in re.findall(line, asked.stdout)]


needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="only the comparison with systemd needs systemd-analyze"
)


def entry(first: int, last: int) -> st.SearchStrategy[str]:
    value = st.integers(first, last)
    span = st.tuples(value, value).map(lambda two: f"{min(two)}..{max(two)}")
    step = st.integers(1, max(1, (last - first) // 2))
    return st.one_of(
        value.map(str), value.map(lambda number: f"{number:02d}"), span,
        st.builds("{}/{}".format, st.one_of(st.integers(first, (first + last) // 2).map(str), span), step),
    )  # fmt: skip


def entries(first: int, last: int) -> st.SearchStrategy[str]:
    return st.one_of(
        st.just("*"), entry(first, last), st.lists(entry(first, last), min_size=2, max_size=4).map(",".join)
    )


weekdays = st.lists(
    st.one_of(st.sampled_from(DAYS), st.tuples(st.integers(0, 5), st.integers(1, 6))
              .map(sorted).map(lambda two: f"{DAYS[two[0]]}..{DAYS[two[1]]}")),
    max_size=3,
).map(",".join)  # fmt: skip
dates = st.one_of(
    st.just(""),
    st.builds("{}-{}".format, entries(1, 12), entries(1, 31)),
    st.builds("{}-{}-{}".format, st.one_of(st.just("*"), entry(2026, 2060)), entries(1, 12), entries(1, 31)),
    st.builds("{}-{}~{}".format, st.just("*"), entries(1, 12), entries(1, 28)),
)
times = st.one_of(
    st.just(""),
    st.builds("{}:{}".format, entries(0, 23), entries(0, 59)),
    st.builds("{}:{}:{}".format, entries(0, 23), entries(0, 59), entries(0, 59)),
    st.sampled_from(("00:00/10", "01,02,03:15/15", "02:30", "00:30", "*:0/30")),  # where the clocks change
)
events = st.builds(
    lambda *words: " ".join(word for word in words if word),
    weekdays, dates, times, st.sampled_from(("", "", "", "UTC", "Europe/Berlin", "America/Havana")),
)  # fmt: skip
# Around a year with every change of the clocks, and often close to one.
moments = st.one_of(
    st.integers(0, 2 * 365 * 24 * 60),
    st.builds(lambda day, minute: day * 1440 + minute,
              st.sampled_from((9, 15, 29, 30, 36, 37, 56, 57, 211, 217, 218, 240, 241, 247)), st.integers(-180, 1440)),
).map(lambda minutes: datetime.fromtimestamp(START.timestamp() + minutes * 60, UTC))  # fmt: skip


@needs_systemd
@many
@given(text=events, zone=st.sampled_from(ZONES), after=moments)
def test_events_elapse_when_systemd_says(text: str, zone: str, after: datetime) -> None:
    assert ours(text, zone, after, 6) == systemds(text, zone, after, 6)


@needs_systemd
@many
@given(text=st.text("0129*,-./:~ Mondaysu@UTC", max_size=14))
def test_what_systemd_does_not_read_is_no_event(text: str) -> None:
    assert ours(text, "Europe/Berlin", START, 2) == systemds(text, "Europe/Berlin", START, 2)


@needs_systemd
@pytest.mark.parametrize("text", MANUAL)
def test_examples_of_the_manual(text: str) -> None:
    found = ours(text, "Asia/Shanghai", START, 5)
    assert found
    assert found == systemds(text, "Asia/Shanghai", START, 5)


@pytest.mark.parametrize("text", MALFORMED)
def test_what_is_no_event_is_said(text: str) -> None:
    with pytest.raises(ValueError, match="[a-z]"):
        calendar.parse(text, ZoneInfo("UTC"))


@pytest.mark.parametrize(
    ("text", "zone", "after", "expected"),
    [
        ("02:30", "Europe/Berlin", "2026-03-28T12:00Z", "2026-03-30T00:30Z"),  # left out by the change
        ("*:0/30", "Europe/Berlin", "2026-10-25T00:30Z", "2026-10-25T02:00Z"),  # the second 02:00 and 02:30 do not come
        ("*:0/30", "Europe/Berlin", "2026-10-25T01:10Z", "2026-10-25T01:30Z"),  # unless it is the second already
        ("00:00", "Africa/Cairo", "2026-04-23T00:00Z", "2026-04-24T21:00Z"),  # a day without midnight
        ("daily CEST", "Europe/Berlin", "2026-12-01T00:00Z", None),
        ("*-02-30", "UTC", "2026-12-01T00:00Z", None),
        ("Fri *-02-30", "UTC", "2026-12-01T00:00Z", None),
        ("2025-01-01", "UTC", "2026-12-01T00:00Z", None),
        ("*:*:0/0.25", "UTC", "2026-12-01T00:00:00.1Z", "2026-12-01T00:00:00.25Z"),
    ],
)
def test_known_answers(text: str, zone: str, after: str, expected: str | None) -> None:
    where = ZoneInfo(zone)
    found = calendar.next_elapse(calendar.parse(text, where), datetime.fromisoformat(after), where)
    assert found == (datetime.fromisoformat(expected) if expected else None)
