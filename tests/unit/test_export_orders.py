"""The practice site's nightly export: whole files or none, one at a time, and a day as the site's clock has it."""

import csv
import datetime
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.host_program import loaded

PROGRAM = Path(__file__).parents[2] / "inventories" / "drill" / "batch" / "export_orders.py"
TOKYO = ZoneInfo("Asia/Tokyo")


export = loaded(PROGRAM)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory to export to, and an environment that names it."""
    for name in export.SETTINGS:
        monkeypatch.setenv(f"EXPORT_{name}", "value")
    monkeypatch.setenv("EXPORT_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("EXPORT_LOCK", str(tmp_path / "lock"))
    return tmp_path


def answer(monkeypatch: pytest.MonkeyPatch, *rows: Any) -> None:
    """Put rows in the place of the database; an exception among them is raised there."""

    def orders(*_: object) -> Iterator[Any]:
        for row in rows:
            if isinstance(row, BaseException):
                raise row
            yield row

    monkeypatch.setattr(export, "orders", orders)


def test_a_day_is_the_sites_day() -> None:
    begin, end = export.bounds(datetime.date(2026, 11, 24), TOKYO)
    assert (begin.isoformat(), end.isoformat()) == ("2026-11-23T15:00:00", "2026-11-24T15:00:00")


def test_a_day_of_25_hours_is_whole() -> None:
    begin, end = export.bounds(datetime.date(2026, 10, 25), ZoneInfo("Europe/Berlin"))
    assert end - begin == datetime.timedelta(hours=25)


@given(
    st.dates(datetime.date(2000, 1, 1), datetime.date(2100, 1, 1)), st.sampled_from(["Asia/Tokyo", "America/St_Johns"])
)
def test_days_follow_each_other_without_gap_or_overlap(day: datetime.date, zone: str) -> None:
    following = day + datetime.timedelta(days=1)
    assert export.bounds(day, ZoneInfo(zone))[1] == export.bounds(following, ZoneInfo(zone))[0]


def test_a_row_is_text() -> None:
    placed = datetime.datetime(2026, 11, 23, 15, 0, 0, 5)
    assert export.row(["100001", placed, None, 2], TOKYO) == ["100001", "2026-11-24T00:00:00+09:00", "", "2"]


def test_every_column_has_a_name_and_a_table() -> None:
    assert len(set(export.COLUMNS.values())) == len(export.COLUMNS)
    assert all(column[:2] in ("o.", "l.", "a.") for column in export.COLUMNS.values())
    assert export.QUERY.count("%s") == 2


def test_file_is_read_back_as_it_was(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    awkward = ["1", 'a "quoted", word', "two\nlines", "火消し 🚒", *[""] * (len(export.COLUMNS) - 4)]
    answer(monkeypatch, awkward)
    assert export.main(["--day", "2026-11-24"]) == 0
    with (place / "orders-2026-11-24.csv").open(encoding="utf-8", newline="") as handle:
        assert list(csv.reader(handle)) == [list(export.COLUMNS), awkward]
    assert sorted(path.name for path in place.iterdir()) == ["orders-2026-11-24.csv"]


def test_day_without_orders_is_a_heading(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch)
    assert export.main([]) == 0
    yesterday = datetime.date.today() - datetime.timedelta(days=1)
    assert (place / f"orders-{yesterday}.csv").read_text().strip() == ",".join(export.COLUMNS)


@pytest.mark.parametrize("error", [export.ExportError("gone away"), OSError(28, "No space left on device")])
def test_half_an_export_is_none(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    earlier = place / "orders-2026-11-24.csv"
    earlier.write_text("earlier")
    answer(monkeypatch, ["1"] * len(export.COLUMNS), error)
    assert export.main(["--day", "2026-11-24"]) == 1
    assert earlier.read_text() == "earlier"
    assert [path.name for path in place.iterdir()] == [earlier.name], "a lock or half a file was left"
    said = capsys.readouterr()
    assert str(error) in said.err and "orders of 2026-11-24 were not written" in said.err
    assert said.out == ""


def test_signal_ends_it_as_an_error_does(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def orders(*_: object) -> Iterator[Any]:
        assert (place / "lock").read_text() == f"{os.getpid()}\n"
        export.stop(15, None)
        yield

    monkeypatch.setattr(export, "orders", orders)
    assert export.main([]) == 143
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("content", ["312\n", "", "\xff not a number"])
def test_lock_is_respected_whoevers_it_is(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    (place / "lock").write_text(content, encoding="latin1")
    answer(monkeypatch, AssertionError("the database was asked"))
    assert export.main([]) == 75
    assert (place / "lock").exists()
    assert str(place / "lock") in capsys.readouterr().err


def test_missing_settings_are_named(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("EXPORT_DATABASE_HOST")
    monkeypatch.setenv("EXPORT_DATABASE_PASSWORD", "")
    assert export.main([]) == 2
    assert "EXPORT_DATABASE_HOST, EXPORT_DATABASE_PASSWORD" in capsys.readouterr().err


@pytest.mark.parametrize("day", ["yesterday", "2026-02-30", "24.11.2026"])
def test_day_that_is_none_is_refused(day: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        export.main(["--day", day])
    assert stopped.value.code == 2
