"""A rescue against a cloud in memory: killed at every step, refused, failing its proof; the original is never lost."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from hikeshi import bombs, probes
from hikeshi.copies import digests, disk, making, mending, proving, record, replay, rescue, swap, work
from hikeshi.copies.disk import DiskLook
from hikeshi.copies.driver import Rehearsal
from hikeshi.copies.mending import DiskMended
from hikeshi.copies.proving import Login
from hikeshi.copies.record import Check, Copy
from hikeshi.errors import HikeshiError, RefusedError
from hikeshi.incident import clock, store
from hikeshi.incident import journal as journals
from hikeshi.incident import state as states
from hikeshi.probes import ProbeResult
from hikeshi.repair import Mended
from hikeshi.site import Site, load
from hikeshi.triage.drift import Drift
from hikeshi.triage.findings import Step
from hikeshi.triage.plan import Plan, Planned
from tests.unit.commands import Runs, hikeshi, stopped
from tests.unit.conftest import SITE, Project
from tests.unit.copy_cloud import Cloud, Killed, alive, cloud, copied
from tests.unit.test_copies import ALLOWED, MOST_STEPS, NONE, agree, items, shop, uses
from tests.unit.test_triage import HEALTHY

__all__ = ["cloud"]
STEP = Step("web1", "remote_access", "nologin_gone", "disk", {"path": "/etc/nologin"})
SPOOL = "file:/var/spool/cron/atjobs/a00003"
BOMB: Any = SimpleNamespace(
    host="web1", id="at:a1", next=None, does="reboots", first_line="reboot", grave=True, kind="at"
)


def probe(ident: str, *, passed: bool) -> ProbeResult:
    return ProbeResult(ident, ident, "direct", passed, "seen", 0.1)


@dataclass
class World:
    """What disk, machines and customers show; the parts that are not a copy's own, replaced at their seams."""

    cloud: Cloud
    did: list[str] = field(default_factory=list)
    bombs: list[Any] = field(default_factory=list)
    rehearsed: dict[str, str] = field(default_factory=dict)  # what the rehearsed machine tells, over what is right
    lets_in: bool = True  # the swapped machine
    before: list[str] = field(default_factory=lambda: ["top"])  # green on the original
    on_login: Any = None
    after: list[ProbeResult] = field(default_factory=lambda: [probe("top", passed=True)])

    def judge(self, site: Site, copy: Copy) -> DiskLook:
        with work.opened(site, copy):
            broken = self.cloud.works[copy.id] == "broken"
        self.did.append("judge")
        steps = (Planned(STEP, ()),) if broken else ()
        seen: Any = SimpleNamespace(
            bombs=self.bombs,
            until=datetime.now(UTC),
            standing=[],
            as_data=dict,
            on_purpose=lambda _, subject: "atjobs" in subject,
        )
        return DiskLook(copy.id, "web1", {}, [], Plan(steps), seen, [], [], None)

    def mend(self, site: Site, copy: Copy, look: DiskLook, *, holds: Sequence[Any], recovery: int | None) -> DiskMended:
        with work.opened(site, copy):
            if holds:
                told = {"jobs": [{"id": job.id, "result": "held"} for job in holds]}
                bombs.hold_on_disk(site, copy.id, look.agenda, holds, lambda _: [told], recovery)
            self.cloud.step()
            self.cloud.works[copy.id] = "mended"
            self.cloud.step()
        self.did.append(f"mend, hold {len(holds)}")
        took = [Mended(item, changed=True, failed=False, seconds=0.1) for item in look.plan.steps]
        gone = [Drift("web1", subject, {"kind": "file"}, None) for subject in ("file:/etc/nologin", SPOOL)]
        return DiskMended(look, took, difference=gone)

    def log_in(self, site: Site, host: str, **_: Any) -> Login:
        if site.ssh_more:
            (disk_says,) = self.cloud.rehearsals.values()
            right = {"uid": "0", "machine": "0123", "routes": "", "timers": "", "daemons": ""}
            self.did.append("rehearse")
            return Login(right | self.rehearsed) if disk_says == "mended" else Login(why="Connection refused")
        self.did.append("log in")
        there = self.cloud.serving.running and self.cloud.serving.disk == "mended" and self.lets_in
        if there and self.on_login:
            self.on_login()
        return Login({"uid": "0"}) if there else Login(why="Connection refused")

    def look(self, site: Site, views: Sequence[str], **_: Any) -> list[ProbeResult]:
        return [probe("top", passed=True)] if site.ssh_more else self.after


@pytest.fixture
def world(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    made = World(cloud)
    monkeypatch.setattr(disk, "judge", made.judge)
    monkeypatch.setattr(mending, "mend", made.mend)
    monkeypatch.setattr(proving, "log_in", made.log_in)
    monkeypatch.setattr(proving, "look", made.look)
    monkeypatch.setattr(proving, "green_now", lambda site, host: made.before)
    yield made


def go(site: Site, **more: Any) -> rescue.Rescue:
    return rescue.rescue(site, "web1", ask=agree, **more)


def anew(project: Project, *allowed: str, **more: Any) -> Site:
    """Return a site to which nothing has happened yet."""
    site = shop(project, *allowed, **more)
    shutil.rmtree(site.records, ignore_errors=True)
    return site


def stages_of(site: Site) -> list[str]:
    records = store.journal(site).records()
    return [str(item.data.get("stage")) for item in records if item.kind in ("stage.end", "stage.skipped")]


def test_the_whole_way_in_its_order(project: Project, cloud: Cloud, world: World) -> None:
    site = shop(project, carried={"web1": ["/var/lib/mysql"]})
    done = go(site)
    assert done.swapped and cloud.serving.disk == "mended" and cloud.serving.orders == ["one"]
    assert [check.what for check in done.rehearsed] == ["login", "identity", "jobs", "cut off", "top"]
    assert stages_of(site) == [
        "copy", "judge the disk", "mend the copy", "seal the disk", "rehearse", "swap", "prove the swap",
    ]  # fmt: skip
    assert world.did == ["judge", "mend, hold 0", "rehearse", "log in"]
    copy = copied(site)
    assert copy.swap and (copy.swap.state, copy.swap.rehearsal) == ("proven", "passed")
    assert copy.repaired and copy.repaired.passed and copy.repaired.steps[0]["step"] == "nologin_gone"
    assert cloud.copies == {copy.id: "broken"}, "the copy is never written"
    assert not cloud.rehearsals and not cloud.benches
    assert go(site).swapped and world.did[4:] == ["log in"], "there is nothing left to do"
    world.lets_in = False
    with pytest.raises(RefusedError, match="runs from copy .* lets nobody in again"):
        go(site)
    (start,) = [item for item in store.journal(site).records() if item.kind == "rescue.start"][:1]
    assert start.host == "web1"


@pytest.mark.parametrize("why", ["old", "lost at the cloud"])
def test_a_copy_of_another_day_or_one_that_is_gone_is_not_swapped_in(
    project: Project, cloud: Cloud, world: World, why: str
) -> None:
    site = shop(project)
    making.take(site, "web1", approve=agree)
    first = copied(site)
    if why == "old":
        first.begun -= rescue.FRESH
        record.save(site, first)
    else:
        cloud.copies.clear()
    if why == "old":
        assert "copy web1" in rescue.rescue(site, "web1", ask=agree, check=True).steps[0]
    done = go(site)
    assert done.swapped and done.copy != first.id


def test_killed_at_any_step_it_goes_on_and_nothing_is_left(project: Project, cloud: Cloud, world: World) -> None:
    world.bombs = [BOMB]
    for step in range(MOST_STEPS):
        site = anew(project, "copy", "reboot", "hold-jobs", once="Once", carried={"web1": ["/var/lib/mysql"]})
        orders = [*cloud.original.orders]
        with alive(cloud, step):
            go(site)
        whole = not cloud.dead
        assert "original" in cloud.machines and cloud.original.disk == "broken" and cloud.original.orders == orders
        if not any(copy.swapped for copy in record.read_all(site)):
            assert cloud.serving is cloud.original and cloud.original.running
        with alive(cloud):
            if not (whole or (record.read_all(site) and _proven(site))):
                assert go(site).swapped
        assert cloud.serving.disk == "mended" and cloud.serving.running and not cloud.original.running
        assert cloud.serving.orders == orders, "no order is lost"
        copy = copied(site)
        assert cloud.copies == {copy.id: "broken"} and not cloud.rehearsals and not cloud.benches
        assert copy.swap and copy.swap.state == "proven" and copy.swap.rehearsal == "passed"
        assert copy.repaired and len(copy.repaired.steps) == 1 and copy.repaired.passed
        assert (uses(site, "reboot"), uses(site, "copy"), uses(site, "hold-jobs")) == (1, 1, 1)
        assert {"jobs", "swap web1", f"copy {copy.id}"} <= items(site), "what is to be put back is known"
        with alive(cloud):
            swap.swap_back(site, copied(site))
            making.delete(site, copied(site).id)
        if whole:
            break
    assert whole and step > 40


def _proven(site: Site) -> bool:
    known = copied(site).swap
    return known is not None and known.state == "proven"


def test_without_permission_it_stops_before_the_swap_and_goes_on_after_it(
    project: Project, cloud: Cloud, world: World
) -> None:
    site = shop(project, "copy")
    with pytest.raises(RefusedError, match="permission 'reboot'.*May we restart.*stays as it is") as refused:
        go(site)
    assert "hikeshi incident permit reboot" in refused.value.fix and "goes on with the swap" in refused.value.fix
    assert cloud.serving is cloud.original and cloud.original.running and not copied(site).swapped
    before = [*world.did]
    with pytest.raises(RefusedError, match="permission 'reboot'"):
        go(site)
    assert world.did == before, "nothing is done twice"
    assert rescue.foresee(site, "web1") == (
        ["stop web1, start it from the mended disk, prove ssh and probes, or swap back"],
        ["permission 'reboot' is needed: nobody has allowed it"],
    )
    permit(site, "reboot")
    assert go(site).swapped and world.did == [*before, "log in"] and uses(site, "copy") == 1


@pytest.mark.parametrize("what", ["login", "worse"])
def test_what_does_not_prove_itself_is_swapped_back(project: Project, cloud: Cloud, world: World, what: str) -> None:
    site = shop(project, carried={"web1": ["/var/lib/mysql"]})
    world.lets_in = what != "login"
    if what == "worse":
        world.after = [probe("top", passed=False)]
    with pytest.raises(HikeshiError, match="runs from its original again.*(Connection refused|green before)"):
        go(site)
    assert cloud.serving is cloud.original and cloud.original.running and copied(site).swap is None
    assert "swap web1" not in items(site) and stages_of(site)[-1] == "swap back"


def test_what_was_red_before_is_no_reason_to_swap_back(project: Project, cloud: Cloud, world: World) -> None:
    site = shop(project)
    world.before, world.after = [], [probe("top", passed=False)]
    assert go(site).swapped and cloud.serving.disk == "mended"


def test_a_swap_back_that_was_killed_is_finished(project: Project, cloud: Cloud, world: World) -> None:
    world.lets_in = False
    for step in range(MOST_STEPS):
        site = anew(project)
        with alive(cloud, step), pytest.raises(HikeshiError):
            go(site)
        whole = not cloud.dead
        with alive(cloud):
            if copied_or_none(site) is None or not whole:
                with pytest.raises(HikeshiError, match="runs from its original again"):
                    go(site)
        assert cloud.serving is cloud.original and cloud.original.running
        with alive(cloud):
            making.delete(site, copied(site).id)
        if whole:
            break
    assert whole and step > 40


def copied_or_none(site: Site) -> Copy | None:
    return next(iter(record.read_all(site)), None)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"machine": "9999"}, "identity: machine-id 9999"),
        ({"timers": "backup.timer"}, "jobs: backup.timer"),
        ({"daemons": "cron"}, "jobs: cron"),
        ({"routes": "default via 10.0.0.1"}, "cut off: default via"),
    ],
)
def test_a_rehearsal_that_shows_something_wrong_is_no_reason_to_swap(
    project: Project, cloud: Cloud, world: World, told: dict[str, str], words: str
) -> None:
    site = shop(project)
    world.rehearsed = told
    with pytest.raises(HikeshiError, match=f"did not prove itself, and is not swapped in.*{words}"):
        go(site)
    assert cloud.serving is cloud.original and cloud.original.running and not uses(site, "reboot")
    assert not cloud.rehearsals
    world.rehearsed = {}
    assert go(site).swapped, "it is judged, mended and rehearsed once more"
    assert world.did.count("judge") == 2


def test_a_copy_that_is_not_good_is_refused_and_nothing_is_changed(
    project: Project, cloud: Cloud, world: World
) -> None:
    site = shop(project)
    cloud.bad = [Check(what="database /var/lib/mysql", ok=False, words="does not open")]
    with pytest.raises(HikeshiError, match="not good, and was removed"):
        go(site)
    cloud.bad, cloud.free = [], 1
    with pytest.raises(RefusedError, match="only 0 MiB may be filled"):
        go(site)
    assert world.did == [] and not cloud.copies and cloud.serving is cloud.original and cloud.original.running


def test_what_was_mended_is_shown_apart_from_the_jobs_that_are_held(
    project: Project, cloud: Cloud, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    go(shop(project))
    said = capsys.readouterr().err
    assert f"different now, because jobs are held · {SPOOL}" in said
    assert "different now · file:/etc/nologin: is gone" in said and f"now · {SPOOL}" not in said


def test_jobs_nobody_allowed_to_hold_are_said_and_left(
    project: Project, cloud: Cloud, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    site = shop(project)
    world.bombs = [BOMB]
    assert go(site).swapped
    assert "1 scheduled job on the disk are not held" in " ".join(capsys.readouterr().err.split())
    assert "mend, hold 0" in world.did and "jobs" not in items(site)


def test_held_jobs_are_told_with_what_they_would_do(project: Project, cloud: Cloud, world: World) -> None:
    site = shop(project, "copy", "reboot", "hold-jobs")
    world.bombs = [BOMB]
    go(site)
    (told,) = [item for item in store.journal(site).records() if item.kind == "jobs.held"]
    assert told.data["jobs"][0] | {"due": None} == {
        "host": "web1", "id": "at:a1", "result": "held", "why": "", "due": None, "missed": False, "does": "reboots",
        "runs": "reboot", "grave": True,
    }  # fmt: skip
    assert states.derive(store.journal(site).records()).items["jobs"].close == "hikeshi jobs release --site shop"


def test_a_disk_mended_by_other_roles_is_begun_anew(project: Project, cloud: Cloud, world: World) -> None:
    site = shop(project)
    world.rehearsed = {"machine": "9999"}
    with pytest.raises(HikeshiError):
        go(site)
    project.write("hosts.yml", "all: {hosts: {web1: {some_variable: 1}}}\n")
    world.rehearsed = {}
    go(load("shop"))
    assert world.did == ["judge", "mend, hold 0", "rehearse"] * 2 + ["log in"]
    assert [item.data["step"] for item in store.journal(site).records() if item.kind == "copy.end"].count("work") == 2


def test_a_sealed_disk_of_other_roles_is_not_swapped_in(project: Project, cloud: Cloud, world: World) -> None:
    site = shop(project, "copy")
    with pytest.raises(RefusedError, match="permission 'reboot'"):
        go(site)
    project.write("hosts.yml", "all: {hosts: {web1: {some_variable: 1}}}\n")
    permit(site, "reboot")
    assert len(rescue.foresee(site, "web1")[0]) == 3, "it is mended and rehearsed once more"
    assert go(load("shop")).swapped
    assert world.did == ["judge", "mend, hold 0", "rehearse"] * 2 + ["log in"]


def test_jobs_that_may_be_held_by_now_are_held_before_the_swap(project: Project, cloud: Cloud, world: World) -> None:
    site = shop(project, "copy")
    world.bombs = [BOMB]
    with pytest.raises(RefusedError, match="permission 'reboot'"):
        go(site)
    permit(site, "hold-jobs")
    permit(site, "reboot")
    assert go(site).swapped and uses(site, "hold-jobs") == 1
    assert world.did == [
        "judge", "mend, hold 0", "rehearse", "judge", "mend, hold 1", "rehearse", "log in",
    ]  # fmt: skip


def test_a_deadline_that_was_moved_is_a_reason_to_look_for_jobs_again(
    project: Project, cloud: Cloud, world: World
) -> None:
    site = shop(project, "copy", "hold-jobs")
    with pytest.raises(RefusedError, match="permission 'reboot'"):
        go(site)
    at = datetime.now(UTC) + timedelta(hours=2)
    told = {"name": "report", "at": clock.write(at), "kind": "report", "owner": "Aki", "zone": "Asia/Tokyo"}
    store.journal(site).append("deadline.set", told)
    permit(site, "reboot")
    assert go(site).swapped and world.did[3:5] == ["judge", "mend, hold 0"]


def permit(site: Site, name: str) -> None:
    permitted = {"name": name, "by": "Ms Ito", "words": "Yes", "limit": None, "until": None}
    store.journal(site).append("permission.granted", permitted)


@pytest.mark.parametrize("what", ["stop", "carry"])
def test_a_swap_that_fails_before_the_mended_disk_ran_brings_nothing_back(
    project: Project, cloud: Cloud, world: World, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """What the mended disk has of the orders is as old as the copy: the original's are newer."""
    site = shop(project, carried={"web1": ["/var/lib/mysql"]})

    def fails(copy: Copy, *words: Any, **more: Any) -> None:
        raise HikeshiError("no space left on device")

    monkeypatch.setattr(cloud, what, fails)
    if what == "stop":  # of the original alone
        whole = Cloud.stop
        monkeypatch.setattr(
            cloud, what, lambda copy, one: fails(copy) if one == "original" else whole(cloud, copy, one)
        )
    cloud.original.orders = ["one", "placed after the copy"]
    with pytest.raises(HikeshiError, match=r"web1 runs from its original again: the swap failed\. no space left"):
        go(site)
    assert cloud.serving is cloud.original and cloud.original.running
    assert cloud.original.orders == ["one", "placed after the copy"] and copied(site).swap is None


def test_a_killed_call_of_before_leaves_no_rehearsal_where_it_is_copied_again(
    project: Project, cloud: Cloud, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = shop(project)

    def dies(*_: Any, **__: Any) -> Login:
        cloud.dead = True
        raise Killed

    with monkeypatch.context() as patch, alive(cloud):
        patch.setattr(proving, "log_in", dies)
        go(site)
    assert cloud.rehearsals
    with alive(cloud):
        assert go(site, again=True).swapped
    assert not cloud.rehearsals


def test_a_host_without_a_view_of_its_own_is_judged_by_what_customers_see(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = shop(project)
    looked: list[str] = []

    def run(site: Site, view: str, chosen: Any) -> list[ProbeResult]:
        looked.append(view)
        return [probe("top", passed=True)]

    monkeypatch.setattr(probes, "run", run)
    assert proving.serving(site, "db1") == [] and proving.green_now(site, "db1") == ["top"]
    assert looked == ["customer"]


def test_check_changes_nothing(
    project: Project, cloud: Cloud, world: World, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    shop(project, "copy")
    for way in ("--check", "--plan"):
        assert hikeshi(monkeypatch, "rescue", "web1", way, "--json") == 0
        data = json.loads(capsys.readouterr().out)
        assert len(data["steps"]) == 4 and data["missing"] == ["permission 'reboot' is needed: nobody has allowed it"]
    assert not cloud.copies and world.did == []
    assert hikeshi(monkeypatch, "rescue", "nosuch", "--check") == 2
    assert "rescued can be: web1" in capsys.readouterr().err


def test_the_command_says_what_became_of_it(
    project: Project, cloud: Cloud, world: World, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    shop(project)
    assert hikeshi(monkeypatch, "rescue", "web1") == 5, "nobody is here to approve it"
    capsys.readouterr()
    assert hikeshi(monkeypatch, "rescue", "web1", "--yes") == 0
    assert "web1 runs from its mended disk" in capsys.readouterr().out
    assert hikeshi(monkeypatch, "copy", "--list") == 0
    assert "mended: 1 steps, rehearsed, swapped in" in " ".join(capsys.readouterr().out.split())
    for option in ("--swap-back", "--swap-commit"):
        assert hikeshi(monkeypatch, "copy", option) == 2
        assert f"{option} needs a host; allowed: web1" in " ".join(capsys.readouterr().err.split())
        assert hikeshi(monkeypatch, "copy", "web1", option, "--check") == 0
        assert "Nothing was changed" in " ".join(capsys.readouterr().err.split())
    assert len(cloud.copies) == 1 and cloud.serving.disk == "mended"


def test_what_a_killed_call_left_unfinished_is_ended_by_the_next(project: Project, cloud: Cloud, world: World) -> None:
    site = shop(project)
    dead = subprocess.Popen(["true"])
    dead.wait()
    journal = store.journal(site)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "getpid", lambda: dead.pid)
        journal.append("stage.start", {"stage": "rehearse"})
    assert journals.abandoned(journal.records(), journals.writer_lives)
    assert go(site).swapped
    assert not journals.unfinished(journal.records())


# By hand


def test_without_a_driver_each_step_is_asked_for(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    site = shop(project)
    monkeypatch.setattr(proving, "green_now", lambda site, host: [])
    monkeypatch.setattr(proving, "log_in", lambda site, host, **_: Login({"uid": "0"}))
    monkeypatch.setattr(proving, "look", lambda *_, **__: [])
    monkeypatch.setattr(disk, "judge", lambda site, copy: work.opened(site, copy).__enter__())
    asked = []
    for words in ("snap-1", "Aki saw it", "disk-1", "nologin removed", "done", "disk-0", "sshd let us in", "stopped",
                  "attached", "started"):  # fmt: skip
        with pytest.raises(RefusedError, match="no driver makes copies"):
            go(site)
        asked.append(copied(site).asked)
        making.take(site, approve=agree, done=words) if asked[-1] != "copy" else _tell(site, words)
    assert go(site).swapped and uses(site, "reboot") == 1
    assert asked == ["copy", "verify", "work", "open", "close", "seal", "rehearse", "in stop", "in swap", "in start"]


def _tell(site: Site, words: str) -> None:
    copy = copied(site)
    copy.told, copy.asked = {**copy.told, copy.asked: words}, ""
    record.save(site, copy)


# Replay


@pytest.fixture
def passed(project: Project, cloud: Cloud, world: World, runs: Runs) -> Site:
    """A site on whose copy a step passed; the swap was not allowed, and ssh lets us in again."""
    project.site({**SITE, "permissions": {"copy": ALLOWED}, "copy": NONE})
    site = load("shop")
    with pytest.raises(RefusedError, match="permission 'reboot'"):
        go(site)
    return site


def test_what_passed_is_taken_on_the_host(passed: Site, runs: Runs) -> None:
    done = replay.replay(passed, "web1", ask=agree, check=True)
    assert [step.step for step in done.steps] == ["nologin_gone"] and not done.mended
    assert "recover-site.yml" not in runs.playbooks
    done = replay.replay(passed, "web1", ask=agree)
    assert runs.playbooks[-2:] == ["recover-site.yml", "collect-evidence.yml"]
    variables = next(extra for playbook, extra, _ in runs.asked if playbook == "recover-site.yml")
    (step,) = variables["recover_site_disk_steps"]["web1"]
    assert step["args"] == {"path": {"__ansible_unsafe": "/etc/nologin"}}
    assert not done.left


def test_what_passed_with_other_variables_or_roles_is_not_taken(
    passed: Site, project: Project, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write("hosts.yml", "all: {hosts: {web1: {some_variable: 1}}}\n")
    with pytest.raises(RefusedError, match="not replayed: variables were changed since; it passed with variables "):
        replay.replay(load("shop"), "web1", ask=agree)
    monkeypatch.setattr(digests, "_digest", lambda *_: "another")
    with pytest.raises(RefusedError, match="roles and playbooks and variables were changed since"):
        replay.replay(passed, "web1", ask=agree)
    assert "recover-site.yml" not in runs.playbooks


def test_a_host_that_lets_nobody_in_gets_no_replay(passed: Site, runs: Runs) -> None:
    runs.away = {"web1": "Connection refused"}
    with pytest.raises(HikeshiError, match="does not let us in to web1"):
        replay.replay(passed, "web1", ask=agree)
    with pytest.raises(RefusedError, match="nothing passed on a copy of web2"):
        replay.replay(passed, "web2", ask=agree)


def test_a_machine_that_stands_in_is_asked_through_its_own_ssh(project: Project) -> None:
    project.site(
        {
            **SITE,
            "views": {
                "customer": {"url": "http://127.0.0.1:1"},
                "direct": {"url": "http://web1:8080", "host": "shop.example", "via": "client1"},
            },
        }
    )
    site = load("shop")
    assert proving.serving(site, "web1") == ["direct"] and proving.serving(site, "batch1") == []
    there = proving.stand_in(site, "web1", Rehearsal("relay %%", "10.0.0.2", "0123"))
    view = there.data.views["direct"]
    assert (view.url, view.host, view.via) == ("http://10.0.0.2:8080", "shop.example", "web1")
    assert there.ssh_arguments[-4:-2] == ["-o", "ProxyCommand=relay %%"]
    assert there.control_folder != site.control_folder, "no shared connection may lead to the original"


# A recovery by way of the disk


@pytest.fixture
def shut(project: Project, world: World, runs: Runs) -> Runs:
    """A site of two hosts, one of which lets nobody in until it runs from its mended disk; its nginx does not run."""
    data = yaml.safe_load((project.folder / "site.yml").read_text())
    permitted = dict.fromkeys(("copy", "reboot", "hold-jobs"), ALLOWED)
    project.site({**data, "permissions": permitted, "copy": NONE})
    runs.away, runs.others = {"web1": "Connection refused"}, {"web2": HEALTHY}
    runs.evidence = [HEALTHY, stopped("nginx.service"), HEALTHY]
    world.on_login = runs.away.clear
    return runs


def test_a_recovery_gets_in_by_the_disk_and_goes_on(
    cloud: Cloud, world: World, shut: Runs, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    world.bombs = [BOMB]
    assert hikeshi(monkeypatch, "recover", "--yes", "--json") == 0
    data = json.loads(capsys.readouterr().out)
    (rescued,) = data["disks"]["rescued"]
    assert rescued["swapped"] and rescued["host"] == "web1" and cloud.serving.disk == "mended"
    assert data["healthy"] and not data["refused"] and data["steps"][0]["args"] == {"unit": "nginx.service"}
    look_again = ["collect-evidence.yml", "recover-site.yml", "collect-evidence.yml"]
    assert shut.playbooks[:4] == ["collect-evidence.yml", *look_again], "first who lets nobody in, then the rest"
    records = store.journal(load()).records()
    (start,) = [item for item in records if item.kind == "recovery.start"]
    opened = [item for item in records if item.kind == "item.opened" and item.data["item"] == "jobs"]
    assert {item.data["recovery"] for item in opened} == {start.seq}, "a recovery holds them, and will release them"
    stages = [item.data["stage"] for item in records if item.kind == "stage.start"]
    assert stages[:3] == ["probe", "look", "rescue"] and "swap" in stages and stages[-1] != "rescue"
    assert hikeshi(monkeypatch, "recover", "--yes") == 0, "nothing is left to do"


def test_what_a_recovery_would_do_by_the_disk_is_said(
    cloud: Cloud, world: World, shut: Runs, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    for way in ("--plan", "--check"):
        assert hikeshi(monkeypatch, "recover", way) == 3
        said = " ".join(capsys.readouterr().out.split())
        assert "by way of the disk: web1 lets nobody in; by way of its disk: copy web1 with its data" in said
        shut.others = {}  # and where no other host is left to be judged
    assert not cloud.copies and world.did == [] and "recover-site.yml" not in shut.playbooks


def test_a_recovery_without_permission_stops_before_the_swap_and_goes_on_after_it(
    cloud: Cloud, world: World, shut: Runs, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    site = load()
    refused = {"name": "reboot", "by": "Ms Ito", "words": "Not yet", "limit": None, "until": None}
    store.journal(site).append("permission.refused", refused)
    assert hikeshi(monkeypatch, "recover", "--yes") == 5
    assert "hikeshi incident permit reboot" in " ".join(capsys.readouterr().err.split())
    assert cloud.serving is cloud.original and cloud.original.running
    before = [*world.did]
    store.journal(site).append("permission.granted", {**refused, "words": "Now"})
    assert hikeshi(monkeypatch, "recover", "--yes") == 0
    assert world.did == [*before, "log in"] and cloud.serving.disk == "mended"


@pytest.mark.parametrize("words", ["Host key verification failed.", "REMOTE HOST IDENTIFICATION HAS CHANGED!"])
def test_a_host_that_shows_another_key_is_not_rescued_for_that(
    cloud: Cloud, world: World, shut: Runs, monkeypatch: pytest.MonkeyPatch, capsys: Any, words: str
) -> None:
    """No disk mends our known_hosts, and only a person may accept another key."""
    shut.away = {"web1": words}
    shut.evidence = [HEALTHY]
    assert hikeshi(monkeypatch, "recover", "--yes") == 3
    assert world.did == [] and not cloud.copies
    assert "only then change known_hosts" in " ".join(capsys.readouterr().err.split())


def test_where_no_host_takes_our_key_no_disk_is_copied(
    cloud: Cloud, world: World, shut: Runs, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    shut.away = dict.fromkeys(("web1", "web2"), "deploy@192.0.2.1: Permission denied (publickey).")
    for more in ([], ["--check"]):
        assert hikeshi(monkeypatch, "recover", "--yes", *more) == 3
        assert "no host takes our key" in "".join(capsys.readouterr())
    assert world.did == [] and not cloud.copies
    shut.away["web2"] = "Connection refused"
    assert hikeshi(monkeypatch, "recover", "--yes") == 3
    assert cloud.serving.disk == "mended", "they have not one reason"


def test_a_lone_host_is_rescued(
    cloud: Cloud, world: World, shut: Runs, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    shut.others = {}
    shut.evidence = [HEALTHY]
    assert hikeshi(monkeypatch, "recover", "--yes") == 0
    assert cloud.serving.disk == "mended"


def test_a_recovery_killed_between_two_disks_goes_on_there_before_it_looks(
    cloud: Cloud, world: World, shut: Runs, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    site = load()

    def dies(copy: Copy) -> None:
        cloud.dead = True
        raise Killed

    with monkeypatch.context() as patch, alive(cloud):
        patch.setattr(cloud, "swap_in", dies)
        go(site)
    assert copied(site).swapped and not _proven(site) and not cloud.original.running
    shut.evidence = [HEALTHY]
    with alive(cloud):
        assert hikeshi(monkeypatch, "recover", "--yes") == 0
    assert _proven(site) and cloud.serving.disk == "mended" and cloud.serving.running
    assert "is between two disks" in " ".join(capsys.readouterr().err.split())


def test_where_a_person_must_do_it_the_others_are_mended_meanwhile(
    project: Project, runs: Runs, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    data = yaml.safe_load((project.folder / "site.yml").read_text())
    project.site({**data, "permissions": {"copy": ALLOWED}, "copy": NONE})
    runs.away, runs.others = {"web1": "Connection refused"}, {"web2": stopped("nginx.service") | {"host": "web2"}}
    assert hikeshi(monkeypatch, "recover", "--yes") == 3
    assert "recover-site.yml" in runs.playbooks
    said = " ".join(capsys.readouterr().err.split())
    assert "web1 waits, and the others are gone on with: no driver makes copies" in said
    assert "next: web1: no driver makes copies at this cloud" in said


def test_a_host_that_must_wait_keeps_nobody_from_mending_the_others(
    project: Project, cloud: Cloud, world: World, shut: Runs, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    data = yaml.safe_load((project.folder / "site.yml").read_text())
    project.site({**data, "permissions": {}})
    shut.others = {"web2": stopped("nginx.service") | {"host": "web2"}}
    assert hikeshi(monkeypatch, "recover", "--yes", "--json") == 5
    told = capsys.readouterr()
    stopped_there = json.loads(told.out)["disks"]["stopped"]
    assert "permission 'copy'" in stopped_there["web1"] and "hikeshi incident permit copy" in " ".join(told.err.split())
    assert "recover-site.yml" in shut.playbooks
    assert not cloud.copies and cloud.original.running


@pytest.mark.parametrize("words", ["ssh: connect to host port 22: Connection timed out", "No route to host"])
def test_where_no_host_can_be_reached_no_disk_is_copied(
    cloud: Cloud, world: World, shut: Runs, monkeypatch: pytest.MonkeyPatch, capsys: Any, words: str
) -> None:
    shut.away = dict.fromkeys(("web1", "web2"), words)
    assert hikeshi(monkeypatch, "recover", "--yes") == 3
    assert "no host can be reached" in "".join(capsys.readouterr())
    assert world.did == [] and not cloud.copies
