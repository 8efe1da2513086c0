"""From what hosts tell to jobs on one clock: each kind, when it fires, and what keeps it from that."""

import base64
import io
import json
import os
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hikeshi import screen
from hikeshi.errors import HikeshiError
from hikeshi.schedule import anacron, apt, at_spool, calendar, clock, page, seam, timers
from hikeshi.schedule.agenda import Agenda
from hikeshi.schedule.job import Firing, Job
from tests.unit import schedules
from tests.unit.schedules import NOW, file, host, timer

EXAMPLES = 3000 if os.environ.get("HIKESHI_TEST_ALL") else 300
HOSTILE = 1000 if os.environ.get("HIKESHI_TEST_ALL") else 100
TOKYO = ZoneInfo("Asia/Tokyo")
HOUR = timedelta(hours=1)
NAMES = {"web1": ["10.0.0.2"], "batch1": ["batch.example"]}


def jobs(told: dict[str, Any]) -> dict[str, Job]:
    return {job.id: job for job in clock.jobs({"web1": told}, NAMES)}


def only(told: dict[str, Any]) -> Job:
    (job,) = jobs(told).values()
    return job


def at_web(told: dict[str, Any]) -> list[str]:
    return [f"{job.next.astimezone(TOKYO):%d %H:%M}" if job.next else "" for job in jobs(told).values()]


def test_a_job_of_at_is_shown_without_its_environment() -> None:
    job = only(host(schedules.at("shutdown -r now", NOW + 90 * timedelta(minutes=1))))
    assert (job.kind, job.user, job.schedule, job.body) == ("at", "root", "job 3, queue a", "shutdown -r now")
    assert job.marks == ("reboots",)
    assert job.firings == (Firing(NOW + 1.5 * HOUR, NOW + 1.5 * HOUR),)
    assert job.id == "at:a0000301c8a9e6"


@pytest.mark.parametrize(
    ("more", "daemons", "firing", "stopped"),
    [
        ({}, {"atd": "active"}, NOW, ""),
        ({}, {"atd": "inactive"}, None, "atd is inactive"),
        ({"queue": "b"}, {"atd": "active"}, NOW, ""),
        ({"queue": "="}, {"atd": "active"}, 0, "it is running, or its lock was left over"),
        ({"queue": "."}, {"atd": "active"}, 0, "atd knows no queue '.'"),
        ({"mode": "0600"}, {"atd": "active"}, 0, "atd waits until it is executable"),
        ({"uid": 33}, {"atd": "active"}, 0, "atd refuses it: it names user 0 and belongs to 33"),
    ],
)
def test_an_overdue_job_of_at(more: dict[str, Any], daemons: dict[str, str], firing: Any, stopped: str) -> None:
    job = only(host(schedules.at("true", NOW - HOUR, **more), daemons=daemons))
    assert job.stopped == stopped
    assert [item.earliest for item in job.firings] == ([] if firing == 0 else [firing])


def test_a_spooled_file_that_at_did_not_write() -> None:
    told = file("/var/spool/cron/atjobs/a0000301c8a9e6.old", "at", "A=s3cret; export A\nreboot\n", mode="0700")
    job = only(host(told))
    assert (job.stopped, job.firings) == ("atd does not know its format", ())
    assert "s3cret" not in job.body
    assert job.marks == ("reboots",)


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    queue=st.sampled_from("abcdefghijklmnopqrstuvwxyzABCZ"),
    number=st.integers(0, 0xFFFFF),
    minute=st.integers(0, 0xFFFFFFFF),
    running=st.booleans(),
)
def test_generated_spools(queue: str, number: int, minute: int, running: bool) -> None:
    # at.c: "%c%5lx%8lx", blanks made zeros
    name = f"{queue}{number:5x}{minute:8x}".replace(" ", "0")
    spooled = at_spool.parse_name(name)
    assert spooled is not None
    far = datetime(9999, 1, 1, tzinfo=UTC).timestamp()  # as far as we count
    minute = min(minute, int(far) // 60)
    assert (spooled.queue, spooled.number, spooled.due.timestamp()) == (queue, number, minute * 60)
    (firing,) = at_spool.firings(spooled, NOW, running=running)
    if minute * 60 > NOW.timestamp():
        assert firing.earliest == datetime.fromtimestamp(minute * 60, UTC)
    else:
        assert firing.earliest == (NOW if running else None)
    assert (firing.latest is None) == (queue in "bABCZ" or firing.earliest is None)


@pytest.mark.parametrize(
    "name", ["", "a", ".SEQ", "a00003", "lost+found", "a0000g01c8a9e6", "a00003\0", "ÿÿÿ", "a" * 5000]
)
def test_names_that_are_no_jobs_of_at(name: str) -> None:
    assert at_spool.parse_name(name) is None or name == "a" * 5000


def test_lines_of_cron() -> None:
    found = jobs(
        host(
            file("/etc/cron.d/wipe", "cron.d", "0 15 * * * root find /srv -delete\n@reboot root /opt/x\n"),
            file("/var/spool/cron/crontabs/shop", "crontab", "*/5 * * * * sh%reboot\n", mode="0600", owner="shop"),
        )
    )
    wipe, user, boot = found.values()
    by_body = {job.body: job for job in found.values()}
    assert by_body["find /srv -delete"].next == NOW + HOUR
    assert by_body["find /srv -delete"].marks == ("deletes",)
    assert by_body["/opt/x"].firings == (Firing(None, None, "at the next boot, when cron starts"),)
    assert by_body["/opt/x"].unknown
    assert by_body["sh\nreboot"].marks == ("reboots",)
    assert by_body["sh\nreboot"].user == "shop"


@pytest.mark.parametrize(
    ("told", "stopped"),
    [
        (file("/etc/cron.d/a.sh", "cron.d", "@daily root x\n"), "cron passes over a name"),
        (file("/etc/cron.d/a", "cron.d", "@daily root x\n", uid=33), "cron ignores the file: it is not root's"),
        (
            file("/etc/cron.d/a", "cron.d", "@daily root x\n", mode="0664"),
            "cron ignores the file: others may write to it",
        ),
        (file("/var/spool/cron/crontabs/a", "crontab", "@daily x\n"), "cron ignores the file: its mode is 0644"),
        (
            file("/etc/cron.d/a", "cron.d", "@daily root x\n60 * * * * root x\n"),
            "cron ignores the whole file: line 2: bad",
        ),
        (file("/etc/cron.d/a", "cron.d", "0 0 30 2 * root x\n"), ""),
        (file("/etc/cron.d/a", "cron.d", "9-8 0 * * * root x\n"), "its times never come"),
    ],
)
def test_what_cron_never_runs_is_told(told: dict[str, Any], stopped: str) -> None:
    for job in jobs(host(told)).values():
        assert job.firings == ()
        assert job.stopped.startswith(stopped)


def test_anacron_catches_up() -> None:
    told = host(
        file("/etc/anacrontab", "anacrontab", schedules.ANACRONTAB),
        file("/etc/crontab", "cron.d", schedules.CRONTAB),
        file("/var/spool/anacron/cron.daily", "anacron_stamp", "20261125\n"),
        file("/var/spool/anacron/cron.weekly", "anacron_stamp", "20261120\n"),
        file("/var/spool/anacron/cron.monthly", "anacron_stamp", "20261126\n"),
        file("/etc/cron.daily/wipe", "periodic", "#!/bin/sh\nrm -rf /srv/images\n", mode="0755"),
        file("/etc/cron.daily/a.b", "periodic", "#!/bin/sh\n", mode="0755"),
        file("/etc/cron.hourly/off", "periodic", "#!/bin/sh\n"),
        timers=[timer("anacron.timer", calendar=["*-*-* 07..23:30"], randomized_delay_s=300.0,
                      next=(NOW + HOUR / 2).timestamp())],
        daemons={"atd": "active", "cron": "active", "anacron": "inactive"},
    )  # fmt: skip
    found = jobs(told)
    minute = timedelta(minutes=1)
    first = Firing(NOW + 35 * minute, NOW + 36 * minute, "or once the jobs before it are done")
    boot = Firing(None, None, "catch-up at boot, 5 min after it")
    assert found["anacron:cron.daily"].firings == (boot, first)
    assert set(found["periodic:/etc/cron.daily/wipe"].firings) == {boot, first}
    assert found["periodic:/etc/cron.daily/wipe"].marks == ("deletes",)
    assert found["periodic:/etc/cron.daily/a.b"].firings == ()
    assert found["periodic:/etc/cron.hourly/off"].stopped == "run-parts passes over what is not executable"
    # Due on the 27th; its next start that is known of is today's.
    assert not [item for item in found["anacron:cron.weekly"].firings if item.on_event]
    told["offline"] = True
    assert jobs(told)["anacron:cron.daily"].firings == (boot,)


@pytest.mark.parametrize(
    ("period", "last", "today", "due"),
    [
        ("1", "2026-11-25", "2026-11-26", True), ("1", "2026-11-26", "2026-11-26", False), ("1", "2026-11-27",
        "2026-11-26", True),
        ("7", "2026-11-20", "2026-11-26", False), ("7", "2026-11-19", "2026-11-26", True), ("0", "2026-11-26",
        "2026-11-26", True),
        ("@monthly", "2026-10-27", "2026-11-26", True), ("@monthly", "2026-10-26", "2026-11-25", True),
        ("@monthly", "2026-02-01", "2026-03-01", True), ("@monthly", "2026-11-01", "2026-11-26", False),
        ("@yearly", "2025-11-26", "2026-11-26", True), ("@yearly", "2025-11-27", "2026-11-26", False),
        ("1", None, "2026-11-26", True),
    ],
)  # fmt: skip
def test_when_anacron_thinks_a_job_is_due(period: str, last: str | None, today: str, due: bool) -> None:
    entry = anacron.Entry(1, "x", period, 5, "true")
    assert anacron.due(entry, date.fromisoformat(last) if last else None, date.fromisoformat(today)) is due


def test_lines_of_an_anacrontab() -> None:
    text = b"RANDOM_DELAY=45\nSTART_HOURS_RANGE=3-22\n1 5 a x\n@yearly 1 b y \\\nz\n@often 1 c x\nno\n"
    text += b"1 99999999999 d x\n# 1 1 e x\n"
    entries, random = anacron.parse(text)
    assert random == 45 * timedelta(minutes=1)
    assert [(entry.name, entry.period, entry.command, bool(entry.wrong)) for entry in entries] == [
        ("a", "1", "x", False), ("b", "@yearly", "y  z", False), ("c", "@often", "x", True), ("line 6", "", "no", True),
        ("d", "1", "x", True),
    ]  # fmt: skip
    assert anacron.parse_stamp(b"20261126\n") == date(2026, 11, 26)
    assert [anacron.parse_stamp(text) for text in (b"", b"2026112", b"20261399", b"\xff")] == [None] * 4


def test_timers() -> None:
    planned = timer("a.timer", calendar=["daily"], next=(NOW + HOUR).timestamp(), accuracy_s=3600.0, needs_reload=True)
    missed = timer(
        "b.timer", calendar=["*-*-* 06:00"], persistent=True, stamp=(NOW - 30 * HOUR).timestamp(), active=False
    )
    ranged = timer("c.timer", calendar=["15:00"], randomized_delay_s=600.0)
    boot = timer("d.timer", monotonic=[["OnBootSec", 7200.0], ["OnUnitActiveSec", 86400.0]], last=NOW.timestamp() - 60)
    wrong = timer("e.timer", calendar=["never ever"], commands=[])
    found = jobs(host(timers=[planned, missed, ranged, boot, wrong]))
    minute = timedelta(minutes=1)
    a, b, c, d, e = (found[f"timer:{letter}.timer"] for letter in "abcde")
    assert a.firings[0] == Firing(
        NOW + HOUR, NOW + 2 * HOUR, "as systemd has planned, until systemd reads its changed file"
    )
    assert a.firings[1].earliest == NOW + 10 * HOUR
    assert b.firings[-1] == Firing(None, None, "catch-up when the timer starts, as at boot")
    assert b.stopped == "the timer is not active"
    assert c.firings[0] == Firing(NOW + HOUR, NOW + HOUR + 11 * minute, "with its randomised delay")
    assert d.firings[0] == Firing(NOW + HOUR, NOW + HOUR + minute, "OnBootSec=120 min")
    assert d.firings[-1] == Firing(None, None, "120 min after the next boot")
    assert (e.firings, e.unknown) == ((), True)
    assert e.stopped.startswith("OnCalendar=never ever: ")


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    texts=st.lists(st.sampled_from(("daily", "hourly", "*:0/7", "Mon 03:00", "*-*~01 12:00")), min_size=1, max_size=3),
    delay=st.integers(0, 7200),
    accuracy=st.integers(0, 3600),
    planned=st.none() | st.integers(1, 10**6),
    stamp=st.none() | st.integers(0, 10**6),
)
def test_generated_timers(texts: list[str], delay: int, accuracy: int, planned: int | None, stamp: int | None) -> None:
    due = NOW + timedelta(seconds=planned) if planned else None
    told = seam.Timer(
        unit="x.timer", calendar=texts, persistent=stamp is not None, randomized_delay_s=delay, accuracy_s=accuracy,
        active=due is not None, next=due.timestamp() if due else None,
        stamp=NOW.timestamp() - stamp if stamp is not None else None,
    )  # fmt: skip
    firings, wrong = timers.firings(told, NOW, None, TOKYO, offline=False)
    times = [item for item in firings if item.earliest is not None]
    assert not wrong
    events = [calendar.parse(text, TOKYO) for text in texts]
    first = min(at for event in events if (at := calendar.next_elapse(event, due or NOW, TOKYO)))
    assert times[0].earliest == (due or first)
    assert first in [item.earliest for item in times]
    for item in times:
        assert item.earliest is not None
        assert item.latest is not None
        spread = accuracy if item.earliest == due else delay + accuracy
        assert item.latest - item.earliest == timedelta(seconds=spread)
    overdue = (
        stamp is not None
        and not due
        and any(
            at <= NOW for event in events if (at := calendar.next_elapse(event, NOW - timedelta(seconds=stamp), TOKYO))
        )
    )
    assert any(item.on_event for item in firings) is overdue


def test_a_scheduled_shutdown() -> None:
    text = f"USEC={int((NOW + HOUR).timestamp() * 1e6)}\nWARN_WALL=1\nMODE={{}}\nUID=1000\n"
    job = only(host(file("/run/systemd/shutdown/scheduled", "shutdown", text.format("reboot"))))
    assert (job.id, job.marks, job.next, job.user) == ("shutdown:scheduled", ("reboots",), NOW + HOUR, "1000")
    assert only(host(file("/run/systemd/shutdown/scheduled", "shutdown", text.format("dry-reboot")))).firings == ()
    assert only(host(file("/run/systemd/shutdown/scheduled", "shutdown", "USEC=x\nMODE=reboot\n"))).next == NOW


def test_the_reboot_of_unattended_upgrades() -> None:
    settings = (
        'APT::Periodic::Unattended-Upgrade "1";\n// Unattended-Upgrade::Automatic-Reboot "false";\n'
        'Unattended-Upgrade { /* x */ Automatic-Reboot "true"; Automatic-Reboot-Time "02:00"; };\n'
    )
    told = host(
        file("/etc/apt/apt.conf.d/50u", "apt", settings),
        timers=[timer("apt-daily-upgrade.timer", calendar=["*-*-* 6:00"], next=(NOW + HOUR).timestamp())],
        daemons={"unattended-upgrades": "active"},
    )
    job = jobs(told)["apt:automatic-reboot"]
    assert job.next == datetime.fromisoformat("2026-11-27T02:00+09:00")
    assert (job.marks, job.body) == (("reboots",), "shutdown -r 02:00")
    told["daemons"] = {"unattended-upgrades": "absent"}
    assert jobs(told)["apt:automatic-reboot"].firings == ()
    assert not apt.reboots(apt.parse([b'Unattended-Upgrade::Automatic-Reboot "false";']))


def test_a_unit_that_reboots_when_it_fails() -> None:
    job = only(host(reboot_units=[{"unit": "x.service", "active": True, "actions": {"FailureAction": "reboot"}}]))
    assert (job.id, job.marks, job.schedule) == ("unit:x.service", ("reboots",), "FailureAction=reboot")
    assert job.firings == (Firing(None, None, "when x.service fails or ends"),)


def test_jobs_of_other_hosts_that_reach_in() -> None:
    batch = host(file("/etc/cron.d/reach", "cron.d", "30 14 * * * root ssh root@10.0.0.2 reboot\n"))
    (job,) = clock.jobs({"batch1": batch}, NAMES)
    assert (job.host, job.reaches, job.marks) == ("batch1", ("web1",), ("reboots",))


def test_what_fires_before_a_deadline() -> None:
    told = host(
        schedules.at("reboot", NOW + HOUR), schedules.at("true", NOW + 3 * HOUR, number=4),
        file("/etc/cron.d/boot", "cron.d", "@reboot root reboot\n"), file("/etc/cron.d/a.b", "cron.d",
        "* * * * * root reboot\n"),
    )  # fmt: skip
    found = clock.jobs({"web1": told}, NAMES)
    assert [job.kind for job in clock.before(found, NOW + 2 * HOUR)] == ["at", "cron"]
    assert [job.kind for job in clock.before(found, NOW + 2 * HOUR, events=False)] == ["at"]
    assert [job.next for job in found] == [NOW + HOUR, NOW + 3 * HOUR, None, None]


@pytest.mark.parametrize(
    "told", [None, [], {"schema": 2}, {"schema": 1}, host(zone=5), host(files=[{"path": "x"}]), host(now=float("nan"))]
)
def test_what_cannot_be_judged_is_refused_by_name(told: Any) -> None:
    with pytest.raises(HikeshiError, match="web1 told"):
        clock.jobs({"web1": told}, NAMES)


@pytest.mark.parametrize("now", [1e18, -1e18, 253370764800.0, 253402300799.0, -2208988800.0, -62135596800.0, 0.0])
def test_a_zone_that_nobody_knows_and_times_that_no_calendar_has(now: float, monkeypatch: pytest.MonkeyPatch) -> None:
    told = host(
        schedules.at("true", NOW), file("/etc/cron.d/a", "cron.d", "0 0 29 2 * root x\n@daily root x\n"),
        file("/etc/anacrontab", "anacrontab", schedules.ANACRONTAB),
        timers=[timer("a.timer", calendar=["daily", "hourly UTC"], next=now, stamp=now, persistent=True,
                      randomized_delay_s=1e18, accuracy_s=-1.0, monotonic=[["OnBootSec", 1e18]])],
        zone="../../etc/passwd", now=now, boot=now,
    )  # fmt: skip
    shown(clock.jobs({"web1": told}, NAMES), verbose=True, monkeypatch=monkeypatch)


def shown(found: list[Job], *, verbose: bool, monkeypatch: pytest.MonkeyPatch) -> str:
    out = screen._Out(file=io.StringIO(), width=200, highlight=False, emoji=False)
    monkeypatch.setattr(screen, "out", out)
    agenda = Agenda(NOW, NOW + 3 * HOUR, "three hours", jobs=found)
    page.show(agenda, TOKYO, verbose=verbose)
    json.dumps(agenda.as_data())
    json.dumps(agenda.brief())
    text = out.file
    assert isinstance(text, io.StringIO)
    return text.getvalue()


def test_the_page_has_the_order_of_the_clock_and_all_of_it_begins_with_the_worst(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = host(schedules.at("true", NOW + HOUR / 2), schedules.at("sleep 1\nreboot", NOW + HOUR, number=4))
    found = clock.jobs({"web1": told}, NAMES)
    lines = shown(found, verbose=False, monkeypatch=monkeypatch).splitlines()
    assert "14:30" in lines[2]
    assert " ".join(lines[3].split()) == "15:00 web1 at:a0000401c8a9c8 reboots root: sleep 1 … 1 more lines"
    assert "15:00" in shown(found, verbose=True, monkeypatch=monkeypatch).splitlines()[2]


PIECES = st.sampled_from(("{{ lookup('env', 'HOME') }}", "\x1b[2J\x1b]0;x\x07", "[red]x[/red]", "\0", "\udcff\udcc0",
                          "\u202e", "\r\n", "$(reboot)", "'", '"', "`", "%", "\\", "0 0 * * * root x", "é", " ",
                          "\n"))  # fmt: skip
TEXTS = st.lists(PIECES | st.text(max_size=8), max_size=12).map("".join)


@settings(
    max_examples=HOSTILE,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(body=TEXTS, name=TEXTS)
def test_hostile_texts_are_shown_and_do_nothing(body: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = body.encode("utf-8", "surrogateescape" if body.isprintable() else "surrogatepass")
    path = name.encode("utf-8", "backslashreplace").decode()
    told = host(
        schedules.at(content, NOW + HOUR), file(f"/var/spool/cron/atjobs/a0000401c8a9c8{path}", "at",
        content, mode="0700"),
        file(f"/etc/cron.d/{path}", "cron.d", b"* * * * * root " + content + b"\n"),
        file("/etc/cron.d/plain", "cron.d", content), file("/etc/anacrontab", "anacrontab", b"1 5 x " + content),
        file(f"/etc/cron.daily/{path}", "periodic", content, mode="0755"), file("/etc/apt/apt.conf.d/x", "apt",
        content),
        file("/run/systemd/shutdown/scheduled", "shutdown", content), file("/var/spool/anacron/x", "anacron_stamp",
        content),
        timers=[timer(f"{path}.timer", calendar=[path, "daily"], commands=[path], user=path)],
        reboot_units=[{"unit": path, "actions": {path: path}}],
    )  # fmt: skip
    found = clock.jobs({"web1": told}, NAMES)
    assert len(found) >= 4
    for verbose in (False, True):
        text = shown(found, verbose=verbose, monkeypatch=monkeypatch)
        assert not any(ord(char) < 32 and char != "\n" or char in "\x7f\u202e" for char in text)
        text.encode()


def test_a_job_of_ten_megabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    told = host(schedules.at(b"reboot\n" + b"x" * 10_000_000, NOW + HOUR, truncated=True))
    (found,) = clock.jobs({"web1": told}, NAMES)
    assert (found.marks, found.unknown) == (("reboots",), True)
    assert len(shown([found], verbose=True, monkeypatch=monkeypatch)) < 100_000


def test_what_is_no_base64_is_no_content() -> None:
    told = {**file("/etc/cron.d/x", "cron.d", ""), "b64": "\x1b!"}
    assert jobs(host(told)) == {}
    assert base64.b64decode(file("/x", "apt", "a")["b64"]) == b"a"
