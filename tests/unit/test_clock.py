"""Deadlines: absolute, in the site's time zone, moved only with a name and a reason, and shown in time."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hikeshi.errors import UsageError
from hikeshi.incident import clock
from hikeshi.incident.record import Record

TOKYO = ZoneInfo("Asia/Tokyo")
BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 25, 5, 0, tzinfo=UTC)  # 14:00 in Tokyo


def records(*events: tuple[str, dict[str, Any]]) -> list[Record]:
    return [
        Record(number, "2026-11-25T05:00:00.000000Z", 1.0, "b", "a@b", 1, "", kind, data, "0" * 64)
        for number, (kind, data) in enumerate(events, 1)
    ]


SET = ("deadline.set", {"name": "report", "at": "2026-11-25T06:30:00+00:00", "owner": "Aki", "kind": "report"})


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("15:30", datetime(2026, 11, 25, 6, 30, tzinfo=UTC)),
        ("15.30", datetime(2026, 11, 25, 6, 30, tzinfo=UTC)),
        (" 15:30 ", datetime(2026, 11, 25, 6, 30, tzinfo=UTC)),
        ("2026-11-25 15:30", datetime(2026, 11, 25, 6, 30, tzinfo=UTC)),
        ("2026-11-26 00:30", datetime(2026, 11, 25, 15, 30, tzinfo=UTC)),
        ("2026-11-25T15:30", datetime(2026, 11, 25, 6, 30, tzinfo=UTC)),
        ("2026-11-25T15:30+09:00", datetime(2026, 11, 25, 6, 30, tzinfo=UTC)),
        ("2026-11-25T06:30:00Z", datetime(2026, 11, 25, 6, 30, tzinfo=UTC)),
        ("2026-11-25T15:30+01:00", datetime(2026, 11, 25, 14, 30, tzinfo=UTC)),
    ],
)
def test_times_are_read_in_the_sites_zone(words: str, expected: datetime) -> None:
    assert clock.parse(words, NOW, TOKYO) == expected


def test_today_is_the_sites_today() -> None:
    late = datetime(2026, 11, 25, 16, 0, tzinfo=UTC)  # 01:00 of the 26th in Tokyo
    assert clock.parse("01:30", late, TOKYO) == datetime(2026, 11, 25, 16, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    "words",
    [
        "",
        "soon",
        "25:00",
        "15:60",
        "15:30:00 pm",
        "2026-11-26",
        "20261126",
        "9999-12-31T23:59Z",
        "0001-01-01T00:00+14:00",
        "9999-12-31T23:59-12:00",
        "２５:００",
    ],
)
def test_no_time_is_refused(words: str) -> None:
    with pytest.raises(UsageError, match="is no time"):
        clock.parse(words, NOW, TOKYO)


@pytest.mark.parametrize("words", ["13:59", "14:00", "00:30", "2026-11-24 15:30"])
def test_a_time_that_has_passed_is_never_taken_for_tomorrow(words: str) -> None:
    with pytest.raises(UsageError, match="has passed: .* now it is 14:00") as caught:
        clock.parse(words, NOW, TOKYO)
    assert '"2026-11-26 00:30"' in caught.value.fix


def test_hours_that_come_twice_or_never_are_refused() -> None:
    with pytest.raises(UsageError, match="no certain time") as caught:
        clock.parse("2026-10-25 02:30", datetime(2026, 10, 24, tzinfo=UTC), BERLIN)
    assert "2026-10-25T02:30:00+02:00" in caught.value.fix
    with pytest.raises(UsageError, match="no certain time"):
        clock.parse("2027-03-28 02:30", NOW, BERLIN)
    assert clock.parse("2026-10-25T02:30+02:00", datetime(2026, 10, 24, tzinfo=UTC), BERLIN).hour == 0


def test_an_hour_that_comes_twice_is_said_with_its_offset() -> None:
    first = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    said = [clock.said(time, BERLIN, first) for time in (first, first + timedelta(hours=1), first + timedelta(hours=2))]
    assert said == ["02:30 (UTC+02:00)", "02:30 (UTC+01:00)", "03:30"]


def test_moved_met_and_set_again() -> None:
    moved = ("deadline.moved", {"name": "report", "at": "2026-11-25T07:00:00+00:00", "by": "Aki", "why": "disk"})
    found = clock.deadlines(records(SET, moved))["report"]
    assert (found.at.hour, found.moved, found.owner, found.kind) == (7, 1, "Aki", "report")
    ended = ("deadline.ended", {"name": "report", "how": "met"})
    assert clock.standing(records(SET, moved, ended)) == []
    assert clock.standing(records(SET, ended, SET))[0].ended == ""
    assert clock.standing(records(("deadline.moved", {"name": "nosuch", "at": "2026-11-25T07:00:00+00:00"}))) == []


def test_the_next_one_comes_first() -> None:
    early = ("deadline.set", {"name": "box", "at": "2026-11-25T06:00:00+00:00", "owner": "Bo", "kind": "other"})
    assert [item.name for item in clock.standing(records(SET, early))] == ["box", "report"]


@pytest.mark.parametrize(
    ("minutes", "warning"), [(31, None), (30, 30), (29, 30), (11, 30), (10, 10), (1, 10), (0, 0), (-5, 0)]
)
def test_warnings_at_30_10_0(minutes: int, warning: int | None) -> None:
    (deadline,) = clock.standing(records(SET))
    assert deadline.warning(deadline.at - timedelta(minutes=minutes)) == warning


def test_a_warning_is_known_to_be_shown_until_the_deadline_moves() -> None:
    warned = ("deadline.warned", {"name": "report", "at": "2026-11-25T06:30:00+00:00", "minutes": 30})
    assert clock.standing(records(SET, warned))[0].warned == 30
    moved = ("deadline.moved", {"name": "report", "at": "2026-11-25T07:00:00+00:00"})
    assert clock.standing(records(SET, warned, moved))[0].warned is None


def test_draft_lasts_until_it_is_used() -> None:
    drafted = ("late.drafted", {"name": "report", "until": "2026-11-25T07:00:00+00:00", "why": "w", "words": "late"})
    assert clock.draft(records(SET), "report") is None
    found = clock.draft(records(SET, drafted), "report")
    assert found and found["words"] == "late"
    assert clock.draft(records(SET, drafted, ("deadline.moved", {"name": "report", "at": "x"})), "report") is None


def test_words_for_the_customer() -> None:
    (deadline,) = clock.standing(records(SET))
    words = clock.late_words(
        "The shop", deadline, datetime(2026, 11, 25, 7, tzinfo=UTC), "the disk is full.", TOKYO, NOW
    )
    assert words == (
        "The shop: our report, promised for 15:30, will be late. The new time is 16:00 (Asia/Tokyo). "
        "The reason: the disk is full. You will hear from us by then in any case. Aki"
    )


@given(st.timedeltas(timedelta(days=-3), timedelta(days=3)))
def test_span_says_before_or_after(left: timedelta) -> None:
    assert clock.span(left).startswith("in ") == (left > timedelta(0))
    assert clock.span(left).endswith(" ago") == (left <= timedelta(0))
