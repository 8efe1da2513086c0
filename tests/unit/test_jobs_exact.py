"""scheduled_jobs' program: whatever stands in crontabs, spools and scripts is held, and comes back exactly."""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hikeshi.schedule import clock
from tests.unit.jobs_host import BODY, Host

ALL = bool(os.environ.get("HIKESHI_TEST_ALL"))
EXACT = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
MINUTE = int(time.time()) // 60


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A host on which nothing may be fired; no power is cut, so that no disk has to be waited for."""
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("no process of this machine is to be signalled"))
    monkeypatch.setattr(os, "fsync", lambda _: None)
    made = Host(tmp_path)
    yield made
    assert made.fired == []


@dataclass(frozen=True)
class File:
    """A file that schedules something."""

    path: str
    data: bytes
    mode: int
    owner: tuple[int, int]
    times: tuple[int, int]


def files(paths: st.SearchStrategy[str], data: st.SearchStrategy[bytes], *modes: int) -> st.SearchStrategy[list[File]]:
    """Return some files, each at another path."""
    any_owner = st.tuples(st.integers(0, 70000), st.integers(0, 70000))
    owner = st.just((0, 0)) | any_owner if os.geteuid() == 0 else st.just((-1, -1))
    times = st.tuples(st.integers(0, 2 * 10**18), st.integers(0, 2 * 10**18))
    made = st.builds(File, paths, data, st.sampled_from(modes), owner, times)
    return st.lists(made, min_size=1, max_size=3, unique_by=lambda file: file.path)


NAME = st.text("abcdefghijklmnopqrstuvwxyzABC0123456789_-", min_size=1, max_size=8)
COMMANDS = st.sampled_from(
    [b"reboot", b"rm -rf /srv/x", b"cd / && run-parts --report /etc/cron.daily", b"rsync -a --delete /a/ b:/a/",
     b"test -x /x || { y; }%stdin", b"echo \xff\xfe", b"#hikeshi-held cron:/etc/cron.d/x:1:00000000 * * * * * root x"]
)  # fmt: skip
WHEN = st.one_of(
    st.sampled_from([b"@reboot", b"@daily", b"@hourly", b"* * * * *", b"*/2 1-5 1,15 jan-mar mon", b"-0 0 * * *"]),
    st.tuples(*(st.integers(0, most) for most in (59, 23))).map(lambda two: b"%d %d * * *" % two),
)
OTHER = st.sampled_from(
    [b"", b"# 0 0 * * * root x", b"MAILTO=root", b"PATH = /bin", b"  \t", b"0 0 * * * root", b"99 * x"]
)


def table(user: bytes) -> st.SearchStrategy[bytes]:
    """Return the text of a crontab; of one without a line end at its end cron reads nothing."""
    line = st.one_of(st.builds(lambda when, what: b"%b\t%b%b" % (when, user, what), WHEN, COMMANDS), OTHER)
    text = st.lists(line, min_size=1, max_size=8).map(lambda lines: b"\n".join([*lines, b""]))
    return st.one_of(text, text, text, text, st.builds(bytes.__add__, text, st.binary(max_size=80)))


SPOOL = st.builds(
    lambda queue, number, minutes: f"var/spool/cron/atjobs/{queue}{number:05x}{MINUTE + minutes:08x}",
    st.sampled_from("abzAB"), st.integers(0, 0xFFFFF), st.integers(10_000, 500_000),
)  # fmt: skip
PERIODIC = st.builds("etc/cron.{}/{}".format, st.sampled_from(["hourly", "daily", "weekly", "monthly"]), NAME)
PERIODS = st.sampled_from([b"1", b"7", b"@monthly"])
ANACRON_LINE = st.builds(lambda days, name, what: b"%b 5\t%b %b" % (days, name.encode(), what), PERIODS, NAME, COMMANDS)
ANACRON = st.lists(ANACRON_LINE, max_size=4, unique_by=lambda line: line.split()[2]).map(
    lambda lines: b"SHELL=/bin/sh\n" + b"\n".join([*lines, b""])
)
HOSTS = st.tuples(
    files(NAME.map("etc/cron.d/{}".format) | st.just("etc/crontab"), table(b"root "), 0o644, 0o600),
    files(NAME.map("var/spool/cron/crontabs/{}".format), table(b""), 0o600),
    files(SPOOL, COMMANDS.map(lambda body: BODY.encode() + body + b"\n"), 0o700, 0o500, 0o744),
    files(PERIODIC, COMMANDS, 0o755, 0o700, 0o4755, 0o644, 0o511),
    files(st.just("etc/anacrontab"), ANACRON, 0o644),
).map(lambda some: [file for group in some for file in group])


def collected(host: Host, capsys: Any) -> tuple[list[str], list[str]]:
    """Return the ids of what an independent reader sees, and of these, what would go off."""
    capsys.readouterr()
    assert host.do("collect") == 0
    found = clock.jobs({"web1": json.loads(capsys.readouterr().out)}, {"web1": []})
    live = [job.id for job in found if job.firings and not job.stopped]
    return list(dict.fromkeys(job.id for job in found)), list(dict.fromkeys(live))  # two lines may run one script


def results(host: Host, capsys: Any, *words: str) -> set[str]:
    capsys.readouterr()
    assert host.do(*words) == 0
    return {item["result"] for item in json.loads(capsys.readouterr().out)["jobs"]}


@settings(EXACT, max_examples=3000 if ALL else 300)
@given(found=HOSTS, draw=st.randoms(use_true_random=False))
def test_all_that_is_scheduled_comes_back_exactly(host: Host, capsys: Any, found: list[File], draw: Any) -> None:
    try:
        for file in found:
            place = host.write(file.path, file.data)
            os.chown(place, *file.owner)
            place.chmod(file.mode)
            os.utime(place, ns=file.times)
        before, (ids, live) = host.tree(), collected(host, capsys)
        draw.shuffle(ids)
        assert results(host, capsys, "hold", *ids) <= {"held", "not there"}
        assert set(live) <= host.held().keys()
        assert collected(host, capsys)[1] == []
        assert results(host, capsys, "hold", *live, ids[0]) <= {"already held", "not there"}
        draw.shuffle(live)
        if some := live[: draw.randrange(len(live) + 1)]:
            assert results(host, capsys, "release", *some) == {"exact"}
        assert results(host, capsys, "release") <= {"exact"}
        assert host.tree() == before and host.held() == {}
        assert sorted(collected(host, capsys)[1]) == sorted(live)
    finally:
        host.do("release")
        for file in found:
            (host.root / file.path).unlink(missing_ok=True)


NAMES = st.binary(min_size=1, max_size=40).filter(lambda name: not {0, 47} & set(name) and name not in (b".", b".."))
BODIES = st.one_of(st.binary(max_size=300), st.sampled_from([b"$(touch ran)\n", b"{{ 7 * 7 }}\n", b"\x1b]0;x\x07\n"]))


@settings(EXACT, max_examples=1000 if ALL else 100)
@given(name=NAMES, body=BODIES)
def test_hostile_names_and_bodies_come_back_exactly(host: Host, name: bytes, body: bytes) -> None:
    files = {
        b"/var/spool/cron/atjobs/a00003" + b"%08x" % (MINUTE + 10_000) + name: b"#!/bin/sh\n" + body,
        b"/etc/cron.d/" + name: b"* * * * * root " + body + b"\n",
        b"/var/spool/cron/crontabs/" + name: body,
        b"/etc/cron.daily/" + name: b"#!/bin/sh\n" + body,
        b"/etc/anacrontab": b"1 5 job " + body.replace(b"\n", b" ") + b"x\n",
    }
    for path, data in files.items():
        place = Path(os.fsdecode(os.fsencode(host.root) + path))
        place.write_bytes(data)
        place.chmod(0o700)
        os.utime(place, ns=(1, 10**18 + 7))
    before = host.tree()
    ids = [f"at:{os.fsdecode(path[23:])}" for path in files if b"atjobs" in path]
    ids += [f"periodic:{os.fsdecode(path)}" for path in files if b"daily" in path]
    for path, data in files.items():
        if b"cron.d/" in path or b"crontabs" in path:
            for number, line in enumerate(data.split(b"\n"), start=1):
                digest = host.jobs.hashlib.sha256(line).hexdigest()[:8]
                ids.append(f"cron:{os.fsdecode(path)}:{number}:{digest}")
    ids.append("anacron:job")
    assert host.do("collect") == 0
    assert host.do("hold", *ids) == 0
    assert host.do("hold", *ids) == 0
    assert list((host.root / "var/spool/cron/atjobs").iterdir()) == []
    assert host.do("release") == 0
    assert host.tree() == before and host.held() == {} and host.fired == []
    for path in files:
        Path(os.fsdecode(os.fsencode(host.root) + path)).unlink()
