"""Figures of partials: equal to what a slow oracle's hits add up to; both sides compared; the method told."""

import csv
import io
import json
from collections import Counter, defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from hikeshi.access import answer, engine, export, method, page
from hikeshi.access import window as windows
from hikeshi.access.answer import Answer, Side, Sums
from hikeshi.access.engine import Asked
from hikeshi.access.reconcile import reconcile
from hikeshi.access.window import Window
from hikeshi.errors import HikeshiError, UsageError
from tests.unit import access_oracle as oracle
from tests.unit.access_lines import NOW, Lines, drawn

TOKYO = ZoneInfo("Asia/Tokyo")
AT = datetime(2026, 11, 27, 5, 30, tzinfo=UTC)  # 14:30 in Tokyo


def logs(folder: Path, number: int = 4000) -> tuple[list[str], dict[str, list[oracle.Hit]]]:
    """Write the logs of a web server and a load balancer; return their paths, and what they say."""
    paths, hits = [], {}
    for role, name in (("w", "access.log"), ("l", "haproxy.log")):
        of = Lines(7)
        of.pace = 9
        data = b"".join(line + b"\n" for line in drawn(of, number, role))
        (folder / name).write_bytes(data)
        paths.append(str(folder / name))
        hits[role] = [hit for hit in oracle.read(data, role) if hit]
    return paths, hits


def counted(paths: list[str], window: Window, **how: Any) -> Answer:
    asked = Asked(window, sorry_backends=["sorry"], **how)
    return engine.files(asked, paths, 1, 256, lambda *_: None).answer


@pytest.mark.parametrize("by", ["minute", "hour", "day", "all"])
def test_figures_are_what_the_lines_add_up_to(by: Any, tmp_path: Path) -> None:
    paths, hits = logs(tmp_path)
    made = counted(paths, Window(None, None, by, TOKYO), top=5, addresses=True)
    assert set(made.sides) == {"lb", "web"}
    for role, name in (("w", "web"), ("l", "lb")):
        side = made.sides[name]  # type: ignore[index]
        slots: dict[int, list[oracle.Hit]] = defaultdict(list)
        for hit in hits[role]:
            slots[oracle.slot(hit.minute, by, TOKYO)].append(hit)
        assert list(side.slots) == sorted(slots)
        for at, some in slots.items():
            compare(side.slots[at], some)
        compare(side.total, hits[role])
        clients = Counter(oracle.short(hit.client, 200).removeprefix(b"::ffff:") for hit in hits[role])
        assert side.distinct_clients == len(clients)
        most = sorted(clients.values(), reverse=True)[:5]
        assert [top.hits for top in side.clients] == most
        for top in side.clients:
            assert clients[top.name.encode()] == top.hits
    lines = made.lines
    assert lines["lines"] == lines["counted"] + lines["malformed"] + lines["pending"] and lines["outside"] == 0


def compare(sums: Sums, hits: list[oracle.Hit]) -> None:
    people = [hit for hit in hits if group(hit) == "p"]
    assert sums.hits == len(hits) and sums.size == sum(hit.size for hit in hits)
    assert sums.classes["people"] == len(people)
    assert sums.visitors == len({(hit.client.removeprefix(b"::ffff:"), hit.agent or b"-") for hit in people})
    shown = [hit for hit in people if oracle.path_of(hit.request)[0] == "page" and hit.outcome in ("served", "local")]
    assert sums.views == sum(hit.status[:1] == b"2" or hit.status == b"304" for hit in shown)
    assert sums.outcomes == Counter(hit.outcome for hit in hits)
    for breakdown in (sums.classes, sums.statuses, sums.outcomes):
        assert sum(breakdown.values()) == sums.hits
    assert sum(sums.kinds.values()) == sums.classes["people"]


def group(hit: oracle.Hit) -> str:
    return "n" if oracle.path_of(hit.request)[0] == "none" else oracle.AGENTS.get(hit.agent, "p")


def test_breakdowns_that_do_not_agree_are_a_defect() -> None:
    lines = [b"c %b 000000000 wp\t3\t192.0.2.1" % (b"0" * 32), b"n 029928960 wp page 200 served\t2 100",
             b"p %b 000000000 wp\t2\t/" % (b"0" * 32)]  # fmt: skip
    with pytest.raises(HikeshiError, match="do not agree"):
        answer.make(Window(None, None, "hour", TOKYO), [], lines)


# What was asked


@pytest.mark.parametrize(
    ("since", "until", "begin", "end"),
    [("14:00", "", "2026-11-27T14:00", None), ("yesterday", "today", "2026-11-26T00:00", "2026-11-27T00:00"),
     ("2026-11-25", "2026-11-25 06:30", "2026-11-25T00:00", "2026-11-25T06:30"),
     ("2026-11-25T06:00+00:00", "", "2026-11-25T15:00", None), ("", "", None, None)],
)  # fmt: skip
def test_what_is_typed_is_a_window_in_the_sites_zone(since: str, until: str, begin: Any, end: Any) -> None:
    made = windows.asked(since, until, "hour", TOKYO, AT)
    for seen, wanted in ((made.since, begin), (made.until, end)):
        assert (seen is None) == (wanted is None)
        if seen is not None:
            assert made.time(seen).isoformat(timespec="minutes").startswith(wanted)


@pytest.mark.parametrize(
    ("since", "until", "by", "said"),
    [("noon", "", "hour", "is no time"), ("15:00", "14:00", "hour", "nothing lies between"),
     ("", "", "week", "allowed"), ("2026-02-30", "", "hour", "is no day"),
     ("2026-11-27 14:00:30", "", "hour", "within a minute")],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(since: str, until: str, by: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as problem:
        windows.asked(since, until, by, TOKYO, AT)
    assert problem.value.fix


def test_days_are_as_long_as_the_clocks_make_them() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    day = Window(None, None, "day", berlin)
    begin = int(datetime(2026, 10, 25, tzinfo=berlin).timestamp()) // 60
    assert day.following(begin) - begin == 25 * 60
    assert day.said(begin) == "2026-10-25"


# Both sides


def two_sides(served: int, web: int, **outcomes: int) -> Answer:
    lb, servers = Sums(hits=served + sum(outcomes.values())), Sums(hits=web + 9)
    lb.outcomes.update({"served": served, **outcomes})
    servers.classes.update(people=web, checks=9)
    sides: dict[answer.Role, Side] = {"lb": Side(total=lb), "web": Side(total=servers)}
    return Answer(Window(None, None, "hour", TOKYO), [], sides)


@pytest.mark.parametrize(
    ("served", "web", "outcomes", "unexplained", "flagged"),
    [(100, 100, {"sorry": 50}, 0, False), (100, 103, {"aborted": 3, "failed": 2}, 0, False), (100, 98, {}, -2, False),
     (1000, 900, {}, -100, True), (1000, 1100, {"aborted": 10}, 90, True), (0, 0, {"sorry": 9}, 0, False)],
)  # fmt: skip
def test_what_differs_is_explained_or_flagged(
    served: int, web: int, outcomes: dict[str, int], unexplained: int, flagged: bool
) -> None:
    made = reconcile(two_sides(served, web, **outcomes))
    assert made is not None
    assert (made.unexplained, made.flagged) == (unexplained, flagged)
    assert made.words and all(str(number) in " ".join(made.reasons) for number in outcomes.values() if number == 50)
    assert any("health checks" in words for words in made.reasons)


def test_one_side_alone_is_not_compared(tmp_path: Path) -> None:
    paths, _ = logs(tmp_path, 50)
    assert reconcile(counted(paths[:1], Window(None, None, "hour", TOKYO))) is None


# The method, and how it is shown


def test_the_method_is_told(tmp_path: Path) -> None:
    line = b'192.0.2.1 - - [27/Nov/2026:%02d:00:00 +0000] "GET / HTTP/1.1" 200 5 "-" "Mozilla/5.0"\n'
    (tmp_path / "access.log").write_bytes(line % 9 + b"cut")
    (tmp_path / "access.log.1").write_bytes(line % 4 + b"\x1b[31mbad\n")
    (tmp_path / "access.log.3").write_bytes(line % 1)
    (tmp_path / "copy.log").write_bytes(line % 1)
    paths = [str(path) for path in sorted(tmp_path.iterdir())]
    made = counted(paths, Window(None, None, "hour", TOKYO))
    told = "\n".join(method.sentences(made))
    assert "5 lines = 3 counted + 1 malformed + 1 pending" in told
    assert "2026-11-27 10:00 to 2026-11-27 18:00 (Asia/Tokyo)" in told
    assert "rotated files 2 in between are not there" in told and "counted once" in told
    assert "web: nothing from 2026-11-27 14:00 to 2026-11-27 18:00" in told
    assert any("\\x1b[00aaaa" in sample for sample in method.samples(made))


def test_json_and_csv_say_the_same(tmp_path: Path) -> None:
    paths, _ = logs(tmp_path, 1500)
    made = counted(paths, Window(None, None, "hour", TOKYO))
    data = json.loads(json.dumps(export.as_data(made, reconcile(made))))
    assert data["method"]["lines"] == made.lines and data["reconciled"]["web"] > 0
    rows = list(csv.DictReader(io.StringIO(export.as_csv(made))))
    for side in ("lb", "web"):
        mine = [row for row in rows if row["side"] == side]
        for name in ("hits", "bytes", "views", "people", "bots", "no_request"):
            assert sum(int(row[name]) for row in mine) == data[side]["total"][name]


def test_the_page_needs_nothing_else_and_runs_nothing(tmp_path: Path) -> None:
    evil = b"<script>alert(1)</script><img src=x onerror=alert(2)>"
    line = b'192.0.2.1 - - [27/Nov/2026:%02d:00:00 +0000] "GET /%b HTTP/1.1" 200 5 "-" "%b"\n'
    (tmp_path / "access.log").write_bytes(
        line % (3, evil.replace(b" ", b"/"), evil) + line % (5, b"x", b"y") + evil + b"\n"
    )
    made = counted([str(tmp_path / "access.log")], Window(None, None, "hour", TOKYO))
    text = export.as_html(made, reconcile(made), "Accesses <b>")
    assert "<script" not in text and "<img" not in text and "http://" not in text and "https://" not in text
    assert "<svg" in text and "&lt;script&gt;" in text and "Accesses &lt;b&gt;" in text


def test_the_sorry_window_is_shaded(tmp_path: Path) -> None:
    of = Lines(1)
    of.pace = 60
    lines = [of.haproxy(state=b"----", status=b"200", server=b"web1") for _ in range(90)]
    lines += [of.haproxy(state=b"SC--", status=b"503", server=b"<NOSRV>") for _ in range(90)]
    (tmp_path / "haproxy.log").write_bytes(b"".join(line + b"\n" for line in lines))
    made = counted([str(tmp_path / "haproxy.log")], Window(None, None, "hour", ZoneInfo("UTC")))
    text = export.as_html(made, None, "x")
    sorry = sum(bool(sums.outcomes["sorry"]) for sums in made.sides["lb"].slots.values())
    assert 0 < sorry < len(made.sides["lb"].slots) and text.count('fill="#ffe9a8"') == sorry


@pytest.mark.parametrize(
    ("numbers", "drawn_as"), [([], ""), ([0, 1, 1000], " ▂█"), ([5, 5], "██"), ([1] * 121, "█" * 60 + "▅")]
)
def test_what_is_not_nothing_is_seen_in_a_sparkline(numbers: list[int], drawn_as: str) -> None:
    assert page.sparkline(numbers) == drawn_as


def test_a_wrong_time_makes_no_thousand_rows() -> None:
    side = Side(slots={NOW // 60: Sums(hits=1), NOW // 60 + 180: Sums(hits=1), NOW // 60 + 60 * 24 * 365: Sums(hits=1)})
    made = Answer(Window(None, None, "hour", TOKYO), [], {"web": side})
    assert [sums.hits for _, sums in page.filled(side, made)] == [1, 0, 0, 1, 1]
