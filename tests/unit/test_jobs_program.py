"""scheduled_jobs' program: what is held goes off nowhere, and comes back exactly; killed anywhere, it is finished.

systemd is that of jobs_host, which notes what it fires.
"""

import base64
import errno
import fcntl
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hikeshi.schedule import clock, seam
from tests.unit.jobs_host import DROP_IN, SOURCE, Host, Killed

CRONTAB = (
    b"# a comment\nMAILTO=root\n5 * * * * root rm -rf /srv\xff/x\n@reboot root /usr/bin/boom\n0 3 * * 1 root true\n"
)
ANACRONTAB = b"SHELL=/bin/sh\n1\t5\tcron.daily\trun-parts /etc/cron.daily\n7 10 weekly rm -rf /srv\n"
HOUR = 3600.0


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A host; whatever a test does, nothing may have been fired that it did not ask for."""
    made = Host(tmp_path)
    yield made
    assert made.fired == []
    assert {call[0] for call in made.calls} <= {"systemctl", "busctl", "systemd-run"}


@pytest.fixture(autouse=True)
def jobs_of_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("no process of this machine is to be signalled"))
    monkeypatch.setattr(os, "fsync", lambda _: None)  # no power is cut here, and the disk of whoever tests is slow


def everything(host: Host) -> list[str]:
    """Put one job of each kind on a host; return their ids."""
    now = time.time()
    host.write("/etc/anacrontab", ANACRONTAB)
    host.write("/var/spool/anacron/weekly", b"20260101\n", 0o600)
    host.write("/etc/cron.daily/apt", b"#!/bin/sh\nreboot\n", 0o755)
    host.write("/etc/systemd/system/app.service.d/own.conf", "[Service]\nUser=app\n")
    host.units["app.service"] = host.drop_ins("app.service")
    host.write("/var/lib/systemd/timers/stamp-wipe.timer", b"", mtime=int(now) - 7200)
    return [
        host.at(now + HOUR),
        host.cron("/etc/cron.d/wipe", CRONTAB, 3),
        host.line("/etc/cron.d/wipe", 4),
        host.cron("/var/spool/cron/crontabs/app", b"* * * * * reboot\n", 1),
        "anacron:weekly",
        "periodic:/etc/cron.daily/apt",
        host.timer("wipe.timer", persistent=True, next=now + HOUR),
        host.shutdown(now + HOUR),
        "apt:automatic-reboot",
        "unit:app.service",
    ]


def results(out: str) -> dict[str, str]:
    return {item["id"]: item["result"] for item in json.loads(out)["jobs"]}


def quiet(tree: dict[str, Any]) -> dict[str, Any]:
    """Return a tree without the times of what logind writes anew."""
    found = dict(tree)
    found.pop("run/systemd/shutdown/scheduled", None)
    return found


def out_of_reach(host: Host, told: dict[str, Any]) -> None:
    """Nothing that the clock would call goes off."""
    found = [job for job in clock.jobs({"web1": told}, {"web1": []}) if job.firings and not job.stopped]
    assert [job.id for job in found] == [], "an independent reader finds a job that may go off"
    assert all(not timer["active"] or timer["sub"] == "elapsed" for timer in host.timers.values())


def collected(host: Host, capsys: Any) -> dict[str, Any]:
    capsys.readouterr()
    assert host.do("collect") == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    seam.read("web1", told)
    return told


def test_every_kind_is_held_and_comes_back_exactly(host: Host, capsys: Any) -> None:
    ids = everything(host)
    before, systemd = host.tree(), host.state()
    assert host.do("hold", *ids) == 0
    assert set(results(capsys.readouterr().out).values()) == {"held"}
    told = collected(host, capsys)
    assert [entry["state"] for entry in told["held"]] == ["held"] * len(ids)
    stays = {"cron": host.line("/etc/cron.d/wipe", 5), "anacron": "anacron:cron.daily"}
    assert host.do("hold", *stays.values()) == 0
    out_of_reach(host, collected(host, capsys))
    assert host.do("release", *stays.values(), *ids) == 0
    assert set(results(capsys.readouterr().out).values()) == {"exact"}
    assert quiet(host.tree()) == quiet(before)
    assert b"MODE=reboot" in host.tree()["run/systemd/shutdown/scheduled"][0]
    assert host.state() == systemd
    assert host.held() == {}


@pytest.mark.parametrize("seed", range(5))
def test_lines_of_one_file_come_back_exactly_in_any_order(host: Host, seed: int) -> None:
    host.cron("/etc/crontab", CRONTAB, 3)
    before = host.tree()
    ids = [host.line("/etc/crontab", number) for number in (3, 4, 5)]
    draw = random.Random(seed)
    for _ in range(2):
        draw.shuffle(ids)
        for ident in ids:
            assert host.do("hold", ident) == 0
        draw.shuffle(ids)
        assert host.do("release", *ids) == 0
        assert host.tree() == before


def test_cron_notices_each_change(host: Host) -> None:
    ident = host.cron("/etc/cron.d/wipe", CRONTAB, 3)
    place = host.root / "etc/cron.d/wipe"
    seen: set[tuple[int, int]] = set()
    now = int(time.time())
    os.utime(place, (now, now))
    for verb in ("", "hold", "release", "hold", "release"):
        if verb:
            assert host.do(verb, ident) == 0
        moment = (int(place.stat().st_mtime), int(place.parent.stat().st_mtime))
        assert moment[1] not in {folder for _, folder in seen}, "cron compares whole seconds, and would not look"
        if verb == "hold":
            assert moment[0] != now, "cron would keep the file that it has read"
        seen.add(moment)


def test_what_came_due_is_told_and_not_run(host: Host, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    ids = everything(host)
    assert host.do("hold", *(f"{ident}={time.time() + 60:.0f}" for ident in ids)) == 0
    host.timers["wipe.timer"]["next"] = None
    later = time.time() + 3 * HOUR
    monkeypatch.setattr(host.jobs.time, "time", lambda: later)
    capsys.readouterr()
    assert host.do("release") == 0
    told = {item["id"]: item for item in json.loads(capsys.readouterr().out)["jobs"]}
    assert all(item["missed"] and item["due"] for item in told.values())
    assert {ident.split(":")[0] for ident, item in told.items() if item["result"] == "came due"} == {"at", "shutdown"}
    assert "its stamp" in told["timer:wipe.timer"]["why"] and "its stamp" in told["anacron:weekly"]["why"]
    assert list((host.root / "var/spool/cron/atjobs").iterdir()) == []
    assert not (host.root / "run/systemd/shutdown/scheduled").exists()
    assert (host.root / "var/spool/anacron/weekly").read_bytes() == time.strftime("%Y%m%d\n").encode()
    assert [entry["state"] for entry in host.held().values()] == ["came due"]
    host.atd()


def test_an_overdue_job_of_at_survives_a_reboot_and_is_not_run(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    ident = host.at(time.time() + 60)
    before = host.tree()
    assert host.do("hold", ident) == 0
    later = time.time() + 300
    monkeypatch.setattr(time, "time", lambda: later)
    host.boot()
    assert host.do("restore") == 0
    assert host.do("release") == 0
    host.atd()
    assert host.fired == []
    assert host.do("release", "--run", ident) == 0
    after = host.tree()
    (name,) = [name for name in before if "atjobs/" in name]
    assert after[name] == before[name], "put back as it was, for atd to run it as its user"
    assert host.held() == {}


@pytest.mark.parametrize(
    ("more", "word", "started"),
    [
        ({"monotonic": [("OnUnitActiveUSec", "1d")]}, "exact", True),
        ({"monotonic": [("OnBootUSec", "1us")], "fires_on_start": True}, "left stopped", False),
        ({"monotonic": [("OnStartupUSec", "1us")], "fires_on_start": True}, "left stopped", False),
        ({"active": False, "sub": "dead"}, "exact", False),
        ({"sub": "elapsed", "monotonic": [("OnBootUSec", "1us")], "fires_on_start": True}, "exact", True),
    ],
)
def test_a_timer_that_would_fire_when_it_starts_is_left_stopped(
    host: Host, capsys: Any, more: dict[str, Any], word: str, started: bool
) -> None:
    ident = host.timer("x.timer", **more)
    assert host.do("hold", ident) == 0
    capsys.readouterr()
    assert host.do("release", ident) == 0
    assert results(capsys.readouterr().out) == {ident: word}
    assert host.timers["x.timer"]["active"] is started


def test_a_held_timer_stays_away_over_a_reboot_and_comes_back(host: Host, capsys: Any) -> None:
    ident = host.timer("x.timer", persistent=True, next=time.time() - 10)
    host.write("/var/lib/systemd/timers/stamp-x.timer", b"", mtime=int(time.time()) - 9000)
    assert host.do("hold", ident) == 0
    host.boot()
    assert not host.timers["x.timer"]["active"]
    host.timer("edited.timer", edited=True, fires_on_reload=True)
    capsys.readouterr()
    assert host.do("release", ident) == 2
    assert "edited.timer" in capsys.readouterr().out, "its reload could fire somebody's timer: refused by name"
    assert host.held()[ident]["state"] == "held"
    assert not host.timers["x.timer"]["active"] and host.drop_ins("x.timer")
    assert host.do("hold", "timer:edited.timer") == 0
    assert host.do("release", ident) == 0
    assert host.timers["x.timer"]["active"] and not (host.root / "etc/systemd/system/x.timer.d").exists()


def test_holding_a_timer_reloads_nothing_that_could_fire(host: Host) -> None:
    host.timer("edited.timer", edited=True, fires_on_reload=True)
    assert host.do("hold", host.timer("x.timer")) == 0
    assert host.do("release") == 0
    assert not [call for call in host.calls if "daemon-reload" in call]


def test_what_holds_a_timer_is_read_where_that_fires_nothing(host: Host, capsys: Any) -> None:
    host.timer("edited.timer", edited=True, fires_on_reload=True)
    ident = host.timer("x.timer")
    assert host.do("hold", ident) == 0
    (item,) = json.loads(capsys.readouterr().out)["jobs"]
    assert item["result"] == "held" and "edited.timer" in item["why"], "what that leaves open is told"
    assert host.do("hold", "timer:edited.timer") == 0
    host.systemctl(["start", "timers.target"])
    assert not host.timers["x.timer"]["active"] and not host.timers["edited.timer"]["active"]
    capsys.readouterr()
    assert host.do("hold", ident) == 0
    assert json.loads(capsys.readouterr().out)["jobs"][0]["why"] == ""
    assert host.do("release") == 0
    assert host.timers["x.timer"]["active"]


def test_a_timer_edited_while_it_was_held_does_not_catch_up(host: Host, capsys: Any) -> None:
    stamp = host.write("/var/lib/systemd/timers/stamp-x.timer", b"", mtime=int(time.time()) - 9000)
    ident = host.timer("x.timer", persistent=True, next=time.time() + HOUR)
    assert host.do("hold", ident) == 0
    host.timers["x.timer"].update(calendar=["*-*-* *:00:00"], next=time.time() - 10)
    capsys.readouterr()
    assert host.do("release", ident) == 0
    assert "its stamp" in capsys.readouterr().out and stamp.stat().st_mtime > time.time() - 60
    assert host.timers["x.timer"]["active"]


def test_a_timer_that_was_removed_while_it_was_held_stays_away(host: Host, capsys: Any) -> None:
    ident = host.timer("x.timer")
    assert host.do("hold", ident) == 0
    del host.timers["x.timer"]
    capsys.readouterr()
    assert host.do("release", ident) == 0
    assert results(capsys.readouterr().out) == {ident: "gone"} and host.held() == {}


# Timers that systemd forgets: systemd-run's


def made(host: Host) -> dict[str, Any]:
    return {name: told for name, told in host.tree().items() if name.startswith("run/systemd/transient/")}


def later(host: Host, monkeypatch: pytest.MonkeyPatch, span: float) -> None:
    """Let time pass, for both clocks."""
    wall, ticks = time.time, time.clock_gettime
    monkeypatch.setattr(time, "time", lambda: wall() + span)
    monkeypatch.setattr(time, "clock_gettime", lambda clock: ticks(clock) + span)


def test_a_date_of_systemd_run_comes_back_exactly(host: Host, capsys: Any) -> None:
    ident = host.systemd_run_timer("run-r1.timer", f"OnCalendar=@{int(time.time() + HOUR)}")
    before = made(host)
    assert len(before) == 2
    assert host.do("hold", ident) == 0
    assert made(host) == {} and "run-r1.timer" not in host.timers
    capsys.readouterr()
    assert host.do("release", ident) == 0
    assert results(capsys.readouterr().out) == {ident: "exact"}
    assert made(host) == before and host.timers["run-r1.timer"]["active"] and host.held() == {}


def test_a_time_of_systemd_run_fires_when_it_would_have(
    host: Host, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ident = host.systemd_run_timer("run-r1.timer", "OnActiveSec=10min")
    due, before = time.time() + 600, made(host)
    for span in (200, 300):
        assert host.do("hold", ident) == 0
        assert made(host).keys() <= {"run/systemd/transient/run-r1.service"}
        later(host, monkeypatch, span)
        capsys.readouterr()
        assert host.do("release", ident) == 0
        assert "what is left" in capsys.readouterr().out
        assert host.timers["run-r1.timer"]["active"]
        assert abs(host.timers["run-r1.timer"]["counts_to"] - due) < 5
        assert made(host).keys() == before.keys()
        assert made(host)["run/systemd/transient/run-r1.service"] == before["run/systemd/transient/run-r1.service"]
    assert (host.root / "run/systemd/transient/run-r1.timer").read_text().count("OnActiveSec=") == 1


@pytest.mark.parametrize("setting", ["OnActiveSec=10min", "OnCalendar=@DUE"])
def test_a_time_of_systemd_run_that_passed_is_kept(
    host: Host, capsys: Any, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    ident = host.systemd_run_timer("run-r1.timer", setting.replace("DUE", f"{int(time.time() + 600)}"))
    assert host.do("hold", ident) == 0
    later(host, monkeypatch, 700)
    capsys.readouterr()
    for _ in range(2):
        assert host.do("release", ident) == 0
        (item,) = json.loads(capsys.readouterr().out)["jobs"]
        assert (item["result"], item["missed"]) == ("came due", True)
        assert "run/systemd/transient/run-r1.timer" not in made(host)
        assert host.held()[ident]["state"] == "came due"
    assert host.do("hold", ident) == 0
    assert results(capsys.readouterr().out) == {ident: "already held"}
    assert host.do("release", "--run", ident) == 0
    assert host.fired == ["run-r1.service"] and "run/systemd/transient/run-r1.service" in made(host)
    assert host.held() == {}
    host.fired.clear()


@pytest.mark.parametrize("settings", [("OnCalendar=hourly",), ("OnActiveSec=10min", "OnUnitActiveSec=1h")])
def test_what_repeats_goes_on_after_a_time_that_passed(
    host: Host, monkeypatch: pytest.MonkeyPatch, settings: tuple[str, ...]
) -> None:
    ident = host.systemd_run_timer("run-r1.timer", *settings)
    assert host.do("hold", ident) == 0
    later(host, monkeypatch, 5000)
    assert host.do("release", ident) == 0
    timer = host.timers["run-r1.timer"]
    assert timer["active"] and (timer["next"] or timer["counts_to"]) > time.time() and host.held() == {}


def test_a_restart_forgets_what_systemd_run_made_and_that_is_told(host: Host, capsys: Any) -> None:
    ident = host.systemd_run_timer("run-r1.timer", "OnActiveSec=10min")
    assert host.do("hold", ident) == 0
    host.boot()
    assert host.do("restore") == 0
    capsys.readouterr()
    assert host.do("release", ident) == 0
    (item,) = json.loads(capsys.readouterr().out)["jobs"]
    assert item["result"] == "gone" and "restarted" in item["why"]
    assert host.held() == {} and list((host.root / "var/lib/hikeshi/jobs").glob(".kept-*/run-r1.service"))


def test_another_timer_of_the_same_name_is_not_lost(host: Host, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ident = host.systemd_run_timer("backup.timer", "OnActiveSec=10min")
    assert host.do("hold", ident) == 0
    host.systemd_run_timer("backup.timer", "OnActiveSec=20min")
    for verb in ("hold", "release"):
        assert host.do(verb, ident) == 2
        assert host.timers["backup.timer"]["active"]
    host.systemctl(["stop", "backup.timer"])
    later(host, monkeypatch, 700)
    assert host.do("release", ident) == 0
    host.systemd_run_timer("backup.timer", "OnActiveSec=20min")
    assert host.do("hold", ident) == 0
    assert "backup.timer" not in host.timers
    assert b"20min" in (host.root / f"var/lib/hikeshi/jobs/{held_in(host, ident)}/backup.timer").read_bytes()


def held_in(host: Host, ident: str) -> str:
    return Path(host.jobs.folder_of(ident)).name


def test_our_own_timers_are_not_held(host: Host) -> None:
    assert host.do("hold", host.systemd_run_timer("hikeshi-gate-expiry.timer", "OnActiveSec=10min")) == 2
    assert host.timers["hikeshi-gate-expiry.timer"]["active"] and host.held() == {}


def test_a_unit_is_refused_while_a_reload_could_fire(host: Host, capsys: Any) -> None:
    host.units["app.service"] = []
    host.timer("edited.timer", edited=True, fires_on_reload=True)
    before = host.tree()
    assert host.do("hold", "unit:app.service") == 2
    assert "edited.timer" in capsys.readouterr().out
    assert host.tree() == before and host.held() == {}


def test_a_timer_that_runs_by_hand_stays_held(host: Host) -> None:
    ident = host.timer("x.timer")
    assert host.do("hold", ident) == 0
    assert host.do("release", "--run", ident) == 0
    assert (host.fired, host.held()[ident]["state"]) == (["x.service"], "held")
    host.fired.clear()


def test_what_cannot_be_run_from_here_says_how(host: Host, capsys: Any) -> None:
    ids = everything(host)
    assert host.do("hold", *ids) == 0
    for ident in ids:
        if not ident.startswith(("at:", "timer:")):
            capsys.readouterr()
            assert host.do("release", "--run", ident) == 2
            assert json.loads(capsys.readouterr().out)["jobs"][0]["why"]
    assert len(host.held()) == len(ids)


def test_a_running_job_is_refused(host: Host, capsys: Any) -> None:
    ident = host.at(time.time() - 60)
    (path,) = (host.root / "var/spool/cron/atjobs").iterdir()
    os.link(path, path.with_name(f"={path.name[1:]}"))
    assert host.do("hold", ident, f"at:={path.name[1:]}") == 2
    assert set(results(capsys.readouterr().out).values()) == {"refused"}
    assert host.held() == {}


def test_atd_that_began_meanwhile_is_told(host: Host, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ident = host.at(time.time() - 60)
    (path,) = (host.root / "var/spool/cron/atjobs").iterdir()
    begin = host.jobs.begin

    def late(*words: Any) -> None:
        begin(*words)
        os.link(path, path.with_name(f"={path.name[1:]}"))

    monkeypatch.setattr(host.jobs, "begin", late)
    host.do("hold", ident)
    assert "had begun to run it" in capsys.readouterr().out
    assert host.held() == {}


@pytest.mark.parametrize("kind", ["cron", "anacron", "periodic"])
def test_an_edit_since_is_kept(host: Host, capsys: Any, kind: str) -> None:
    ident = next(ident for ident in everything(host) if ident.startswith(f"{kind}:"))
    path = {"cron": "etc/cron.d/wipe", "anacron": "etc/anacrontab", "periodic": "etc/cron.daily/apt"}[kind]
    before = (host.root / path).read_bytes()
    assert host.do("hold", ident) == 0
    with (host.root / path).open("ab") as file:
        file.write(b"# edited\n")
    capsys.readouterr()
    assert host.do("release", ident) == 0
    assert results(capsys.readouterr().out) == {ident: "edited"}
    assert (host.root / path).read_bytes() == before + b"# edited\n"
    assert os.access(host.root / path, os.X_OK) is (kind == "periodic")


@pytest.mark.parametrize("layered", [False, True])
@pytest.mark.parametrize("kind", ["cron", "periodic"])
def test_a_file_that_was_removed_stays_away(
    host: Host, capsys: Any, monkeypatch: pytest.MonkeyPatch, kind: str, layered: bool
) -> None:
    ident = next(ident for ident in everything(host) if ident.startswith(f"{kind}:"))
    path = host.root / {"cron": "etc/cron.d/wipe", "periodic": "etc/cron.daily/apt"}[kind]
    assert host.do("hold", ident) == 0
    path.unlink()
    capsys.readouterr()
    dying(host, 1000, monkeypatch, layered=layered)
    assert host.do("release", ident) == 0
    assert results(capsys.readouterr().out) == {ident: "gone"}
    assert not path.exists() and host.held() == {}
    assert list((host.root / "var/lib/hikeshi/jobs").glob(".kept-*/saved"))


def test_a_line_that_only_looks_held_stays_a_comment(host: Host) -> None:
    path = "/etc/cron.d/x"
    host.write(path, CRONTAB)
    ident = host.line(path, 3)
    mark = host.jobs.KINDS["cron"].mark(ident)
    host.write(path, CRONTAB + mark + b"* * * * * root reboot\n" + b"#hikeshi-held other * * * * * root reboot\n")
    before = host.tree()
    host.do("hold", ident)
    host.do("release", ident)
    assert host.tree() == before


def test_changed_line_is_another_job(host: Host, capsys: Any) -> None:
    ident = host.cron("/etc/cron.d/x", CRONTAB, 3)
    host.write("/etc/cron.d/x", CRONTAB.replace(b"rm", b"ls"))
    before = host.tree()
    assert host.do("hold", ident) == 0
    assert results(capsys.readouterr().out) == {ident: "not there"}
    assert host.tree() == before and host.held() == {}


def test_check_changes_nothing(host: Host, capsys: Any) -> None:
    ids = everything(host)
    before = (host.tree(), host.state(), list(host.transient))
    assert host.do("hold", *ids, "--check") == 0
    assert set(results(capsys.readouterr().out).values()) == {"would be held"}
    assert host.do("shield", "on", "--check") == 0
    assert not (host.root / "var/lib/hikeshi").exists()
    assert (host.tree(), host.state(), list(host.transient)) == before
    assert host.do("hold", *ids) == 0
    now = (host.tree(), host.state(), host.held())
    for words in (["release"], ["hold", *ids], ["release", "--run", ids[0]], ["shield", "off"]):
        assert host.do(*words, "--check") == 0
    assert (host.tree(), host.state(), host.held()) == now


def test_holding_twice_does_nothing_more(host: Host, capsys: Any) -> None:
    ids = everything(host)
    assert host.do("hold", *ids) == 0
    before = (host.tree(), host.state())
    capsys.readouterr()
    assert host.do("hold", *ids) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["changed"] is False and (host.tree(), host.state()) == before


# Killed


CHANGES = ("rename", "replace", "unlink", "mkdir", "rmdir", "fsync", "fchmod", "utime", "symlink")


def dying(host: Host, at: int, monkeypatch: pytest.MonkeyPatch, *, layered: bool = False) -> Callable[[], int]:
    """Let the program die at its n-th change of the disk, or call of systemd; return how many it had made.

    `layered`: no directory that was there before can be renamed, as of a lower layer of an overlay.
    """
    count = 0

    def step() -> None:
        nonlocal count
        count += 1
        if count >= at:  # also in what would tidy up
            raise Killed

    class Bent:
        """os, with a death in it."""

        def __getattr__(self, name: str) -> Any:
            real = getattr(os, name)
            if name not in CHANGES:
                return real

            def call(*words: Any, **more: Any) -> Any:
                step()
                if layered and name == "rename" and Path(words[0]).is_dir() and not words[0].endswith("/.new"):
                    raise OSError(errno.EXDEV, "Invalid cross-device link")
                return real(*words, **more)

            return call

    def run(*words: Any, **more: Any) -> Any:
        step()
        return host.run(*words, **more)

    monkeypatch.setattr(host.jobs, "os", Bent())
    monkeypatch.setattr(host.jobs.subprocess, "run", run)
    return lambda: count


@pytest.mark.parametrize(("verb", "layered"), [("hold", False), ("release", False), ("release", True)])
@pytest.mark.parametrize("kind", ["at", "cron", "anacron", "periodic", "timer", "transient", "shutdown", "apt", "unit"])
@pytest.mark.parametrize("by", ["again", "boot"])
def test_killed_anywhere_it_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, layered: bool, kind: str, by: str
) -> None:
    at, died = 0, True
    while died:
        at, died = at + 1, False
        host = Host(tmp_path / str(at))
        if kind == "transient":
            ident = host.systemd_run_timer("run-r1.timer", "OnCalendar=hourly")
        else:
            ident = next(ident for ident in everything(host) if ident.startswith(f"{kind}:"))
        before, systemd = host.tree(), host.state()
        if verb == "release":
            assert host.do("hold", ident) == 0
        with monkeypatch.context() as bent:
            dying(host, at, bent, layered=layered)
            try:
                host.do(verb, ident)
            except Killed:
                died = True
        if by == "boot" and verb == "hold" and died and kind != "shutdown":
            host.jobs.KNOWN = None
            begun = bool(host.held())
            assert host.do("restore") == 0
            assert not begun or [entry["state"] for entry in host.held().values()] == ["held"]
        assert host.do("hold", ident) == 0
        if kind != "shutdown" or host.held():
            assert [entry["state"] for entry in host.held().values()] == ["held"], at
            assert host.do("release", ident) == 0
        assert host.held() == {} and host.fired == []
        assert quiet(host.tree()) == quiet(before), at
        assert host.state() == systemd, at
        assert not list(host.root.rglob("*.hikeshi")), "a temporary file was left"
    assert at > 3


def test_two_at_once_wait_for_each_other(host: Host, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ident = host.at(time.time() + HOUR)
    monkeypatch.setattr(host.jobs, "LOCK_WAIT_S", 0.2)
    state = host.root / "var/lib/hikeshi/jobs"
    state.mkdir(parents=True)
    with (state / ".lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        other.write("pid 1, hold")
        other.flush()
        assert host.do("hold", ident) == 2
        assert "pid 1, hold" in capsys.readouterr().err
    assert host.do("hold", ident) == 0


def test_two_processes_hold_different_jobs(host: Host) -> None:
    ids = [host.at(time.time() + HOUR, number) for number in range(40)]
    children = []
    for part in (ids[:30], ids[10:]):
        child = os.fork()
        if child == 0:
            os._exit(host.do("hold", *part))
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
    assert sorted(host.held()) == sorted(ids)
    assert list((host.root / "var/spool/cron/atjobs").iterdir()) == []


def test_a_held_job_whose_manifest_is_spoilt_is_not_forgotten(host: Host, capsys: Any) -> None:
    first, second = host.at(time.time() + 3600), host.at(time.time() + 3600, number=4)
    assert host.do("hold", first, second) == 0
    folder = host.jobs.folder_of(first)
    Path(folder, "manifest.json").write_text("x\n")
    told = collected(host, capsys)
    assert told["lost"] == [folder.removeprefix(str(host.root))]
    assert [entry["id"] for entry in told["held"]] == [second]
    assert host.do("release") == 0
    assert Path(folder, "job").exists(), "it can still be put back by hand"


# Hostile


def test_links_pipes_and_devices_are_not_opened(host: Host, capsys: Any, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("* * * * * root secret\n")
    crond = host.root / "etc/cron.d"
    os.mkfifo(crond / "pipe")
    (crond / "link").symlink_to(secret)
    (crond / "loop").symlink_to("loop")
    (crond / "folder").mkdir()
    (host.root / "etc/cron.weekly").symlink_to(tmp_path)
    (host.root / "var/spool/cron/crontabs").rmdir()
    (host.root / "var/spool/cron/crontabs").symlink_to("crontabs")
    told = collected(host, capsys)
    assert "secret" not in base64.b64decode("".join(file["b64"] for file in told["files"])).decode()
    for name in ("pipe", "link", "loop", "folder"):
        assert any(f"/etc/cron.d/{name}: " in line for line in told["unseen"])
        assert host.do("hold", f"cron:/etc/cron.d/{name}:1:00000000") != 0
    assert secret.read_text() == "* * * * * root secret\n" and host.held() == {}


def test_folders_that_are_links_stay_within_the_root(host: Host, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x").write_bytes(CRONTAB)
    crond = host.root / "etc/cron.d"
    crond.rmdir()
    crond.symlink_to(f"../../../../../../../{outside}")
    assert host.jobs.at("/etc/cron.d/x") == f"{host.root}{outside}/x"
    host.do("hold", "cron:/etc/cron.d/x:3:00000000")
    assert (outside / "x").read_bytes() == CRONTAB


def test_a_job_of_ten_megabytes(host: Host, capsys: Any) -> None:
    ident = host.at(time.time() + HOUR, body=os.urandom(10 << 20))
    before = host.tree()
    (file,) = [file for file in collected(host, capsys)["files"] if file["source"] == "at"]
    assert file["truncated"] and len(base64.b64decode(file["b64"])) == host.jobs.TEXT
    assert host.do("hold", ident) == 0
    assert host.do("release", ident) == 0
    assert host.tree() == before


@pytest.mark.parametrize(
    "ident",
    ["", "x", "at:", "at:../../etc/passwd", "at:a0000301b8a2f4/x", "cron:/etc/passwd:1:00000000", "cron:/etc/cron.d/x",
     "cron:/etc/cron.d/../passwd:1:00000000", "periodic:/etc/cron.daily/../passwd", "periodic:/etc/passwd",
     "periodic:/etc/cron.daily/..", "timer:x.service", "timer:--help.timer/..", "timer:../x.timer", "unit:../../x",
     "shutdown:now", "apt:x", "at:a0000301b8a2f4\0"],
)  # fmt: skip
def test_what_is_no_id_touches_nothing(host: Host, ident: str) -> None:
    before = host.tree()
    for words in (["hold", ident], ["release", ident], ["release", "--run", ident]):
        host.do(*words)
    assert host.tree() == before and host.held() == {}


# Told


def test_the_program_may_come_from_standard_input(host: Host) -> None:
    ident = host.at(time.time() + HOUR)
    with SOURCE.open("rb") as text:
        words = [sys.executable, "-", "collect", "--root", str(host.root)]
        done = subprocess.run(words, stdin=text, capture_output=True, check=True, timeout=60, cwd="/")
    told = json.loads(done.stdout)
    assert [f"at:{file['path'].rpartition('/')[2]}" for file in told["files"]] == [ident]
    seam.read("web1", told)


def test_collect_tells_what_the_clock_reads(host: Host, capsys: Any) -> None:
    ids = everything(host)
    host.write("/etc/apt/apt.conf.d/50x", b'Unattended-Upgrade::Automatic-Reboot "true";\n')
    before = host.tree()
    told = collected(host, capsys)
    found = {job.id: job for job in clock.jobs({"web1": told}, {"web1": []})}
    assert set(ids) - {"apt:automatic-reboot"} <= found.keys()
    assert "reboots" in found[ids[0]].marks and "reboots" in found["shutdown:scheduled"].marks
    (timer,) = told["timers"]
    assert timer["calendar"] == ["*-*-* 00:00:00"] and timer["randomized_delay_s"] == 5400.0
    assert host.tree() == before
    assert not [call for call in host.calls if call[:2] not in (("systemctl", "show"), ("systemctl", "is-active"))
                and call[1] not in ("list-units", "list-unit-files")]  # fmt: skip


def test_more_files_than_it_may_send_are_told(host: Host, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(12):
        host.at(time.time() + HOUR, number)
    monkeypatch.setattr(host.jobs, "MOST", 5)
    told = collected(host, capsys)
    assert len(told["files"]) == 5 and "7 files from" in told["unseen"][0]


def test_the_disk_of_a_system_that_is_off(host: Host, capsys: Any) -> None:
    ids = [ident for ident in everything(host) if not ident.startswith(("shutdown:", "unit:"))]
    host.write(
        "/usr/lib/systemd/system/wipe.timer", "[Timer]\nOnCalendar=daily\nOnBootSec=15 minutes\nPersistent=yes\n"
    )
    host.write("/usr/lib/systemd/system/wipe.service", "[Service]\nExecStart=/bin/rm -rf /srv\nFailureAction=reboot\n")
    (host.root / "etc/systemd/system/timers.target.wants").mkdir()
    (host.root / "etc/systemd/system/timers.target.wants/wipe.timer").symlink_to("/usr/lib/systemd/system/wipe.timer")
    (host.root / "etc/localtime").symlink_to("/usr/share/zoneinfo/Asia/Tokyo")
    before = host.tree()
    host.calls.clear()
    root = str(host.root)
    assert host.do("collect", "--root", root) == 0
    told = json.loads(capsys.readouterr().out)
    seam.read("web1", told)
    assert (told["offline"], told["zone"], told["boot"]) == (True, "Asia/Tokyo", None)
    (timer,) = told["timers"]
    assert (timer["calendar"], timer["monotonic"], timer["enabled"]) == (["daily"], [["OnBootSec", 900.0]], "enabled")
    assert timer["persistent"] and timer["commands"] == ["/bin/rm -rf /srv"]
    assert told["reboot_units"][0]["actions"] == {"FailureAction": "reboot"}
    assert host.do("hold", *ids, "--root", root) == 0
    assert host.drop_ins("wipe.timer") == [f"/etc/systemd/system/wipe.timer.d/{DROP_IN}"]
    assert host.do("release", "--root", root) == 0
    assert host.tree() == before and host.calls == []


@pytest.mark.parametrize(
    ("told", "meant"),
    [("15min", 900.0), ("1h 30min", 5400.0), ("1month 2d", 2802600.0), ("0", 0.0), ("infinity", None), ("", None),
     ("1.5s", 1.5), ("500ms", 0.5), ("1w", 604800.0)],
)  # fmt: skip
def test_time_spans_as_systemd_prints_them(host: Host, told: str, meant: float | None) -> None:
    assert host.jobs.seconds(told) == meant


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("15 minutes", 900.0),
        ("90", 90.0),
        ("1h30m", 5400.0),
        ("2 hours 5 sec", 7205.0),
        ("1M", 2629800.0),
        ("3us", 3e-6),
    ],
)
def test_time_spans_as_people_write_them(host: Host, written: str, meant: float) -> None:
    assert host.jobs.seconds(host.jobs.short(written)) == pytest.approx(meant)


def test_what_at_is_given_is_logged_without_its_environment(host: Host, capsys: Any) -> None:
    ident = host.at(time.time() + HOUR, body=b"shutdown -r now\n\x1b[2J")
    assert host.do("note") == 0
    told = capsys.readouterr().out
    assert "shutdown -r now" in told and "hush" not in told and "\x1b" not in told
    assert host.do("note") == 0
    assert capsys.readouterr().out == ""
    host.do("hold", ident)
    capsys.readouterr()
    assert host.do("note") == 0
    assert "left the spool" in capsys.readouterr().out


def test_a_timer_held_on_a_disk_comes_back_where_it_runs(host: Host, capsys: Any) -> None:
    ident = host.timer("wipe.timer", persistent=True)
    wants = host.root / "etc/systemd/system/timers.target.wants"
    wants.mkdir()
    (wants / "wipe.timer").symlink_to("/usr/lib/systemd/system/wipe.timer")
    host.write("/var/lib/systemd/timers/stamp-wipe.timer", b"", mtime=1)
    assert host.do("hold", ident, "--root", str(host.root)) == 0
    host.jobs.OFFLINE = False
    host.boot()
    assert not host.timers["wipe.timer"]["active"]
    capsys.readouterr()
    assert host.do("release") == 0
    assert "does not catch up" in capsys.readouterr().out
    assert host.timers["wipe.timer"]["active"]


# The shield


def test_shield_goes_on_and_off_exactly(host: Host) -> None:
    (host.root / "etc/systemd/system/halt.target").symlink_to("/dev/null")
    before = host.tree()
    assert host.do("shield", "on", "600") == 0
    told = host.jobs.shield()
    assert told["on"] and set(told["masked"]) == set(host.jobs.TARGETS) and told["refused_by_dbus"]
    assert 590 < told["left_s"] <= 600 and told["not_masked"] == []
    ending = next(words for name, words in host.transient.items() if name.endswith(".timer"))
    armed = next(call for call in host.calls if call[0] == "systemd-run" and "--on-active=601" in call)
    assert any(word.startswith("--on-calendar=@") for word in armed), "a reload lets the other one count anew"
    assert ending[1:] == ["shield", "off"], "systemd ends it with everything of ours dead"
    assert host.do(*ending[1:]) == 0
    assert host.tree() == before and host.transient == {}
    assert host.do("shield", "off") == 0


def test_nothing_is_shielded_before_its_end_is_armed(host: Host, capsys: Any) -> None:
    host.broken.add("systemd-run")
    before = host.tree()
    assert host.do("shield", "on") == 1
    assert host.tree() == before and not host.jobs.shield()["on"]


def test_shield_survives_a_reboot_for_the_time_it_has_left(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    assert host.do("shield", "on", "600") == 0
    host.boot()
    assert host.do("restore") == 0
    assert len([name for name in host.transient if name.endswith(".timer")]) == 1
    later = time.time() + 700
    host.boot()
    monkeypatch.setattr(host.jobs.time, "time", lambda: later)
    assert host.do("restore") == 0
    assert host.jobs.shield() == {"on": False, "until": None, "left_s": 0.0, "by": "", "masked": [],
                                  "refused_by_dbus": False, "not_masked": []}  # fmt: skip


def test_renewed_shield_has_one_end(host: Host) -> None:
    before = host.tree()
    assert host.do("shield", "on", "600") == 0
    assert host.do("shield", "on", "900") == 0
    assert len([name for name in host.transient if name.endswith(".timer")]) == 1
    assert host.jobs.shield()["left_s"] > 800
    assert host.do("shield", "off") == 0
    assert host.tree() == before


def test_target_in_memory_is_reloaded_only_where_that_fires_nothing(host: Host, capsys: Any) -> None:
    host.in_memory["reboot.target"] = "loaded"
    host.timer("edited.timer", edited=True, fires_on_reload=True)
    assert host.do("shield", "on") == 0
    assert json.loads(capsys.readouterr().out)["not_masked"] == ["reboot.target"]
    host.timers["edited.timer"]["edited"] = False
    assert host.do("shield", "on") == 0
    assert json.loads(capsys.readouterr().out)["not_masked"] == []
    host.timers["edited.timer"]["edited"] = True
    assert host.do("shield", "off") == 1, "tried again by systemd every minute"
    assert "edited.timer" in capsys.readouterr().err
    host.timers["edited.timer"]["edited"] = False
    assert host.do("shield", "off") == 0


@pytest.mark.parametrize("verb", ["on", "off"])
def test_shield_killed_anywhere_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    at, died = 0, True
    while died:
        at, died = at + 1, False
        host = Host(tmp_path / str(at))
        before = host.tree()
        if verb == "off":
            host.do("shield", "on")
        with monkeypatch.context() as bent:
            dying(host, at, bent)
            try:
                host.do("shield", verb)
            except Killed:
                died = True
        if host.tree() != before:
            assert any(name.endswith(".timer") for name in host.transient), "nothing is refused without an end"
        assert host.do("shield", "off") == 0
        assert host.tree() == before, at
    assert at > 5


def test_no_shutdown_is_scheduled_anew_behind_the_shield(host: Host, capsys: Any) -> None:
    ident = host.shutdown(time.time() + HOUR)
    assert host.do("hold", ident) == 0
    assert host.do("shield", "on") == 0
    assert host.do("release", ident) == 2
    assert host.do("shield", "off") == 0
    assert host.do("release", ident) == 0


def test_settings_of_apt_that_come_later_are_refused(host: Host, capsys: Any) -> None:
    host.write("/etc/apt/apt.conf", b'Unattended-Upgrade::Automatic-Reboot "true";')
    assert host.do("hold", "apt:automatic-reboot") == 2
    (host.root / "etc/apt/apt.conf").unlink()
    host.write("/etc/apt/apt.conf.d/zzzz-own", b"")
    assert host.do("hold", "apt:automatic-reboot") == 2
    assert "zzzz-own" in capsys.readouterr().out
