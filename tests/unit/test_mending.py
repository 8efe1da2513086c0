"""A copied disk judged and mended against a cloud in memory: what is asked, in which order, also after a kill."""

import copy as copies
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hikeshi import repair
from hikeshi.baseline import Baseline
from hikeshi.copies import disk, making, mending, record, work
from hikeshi.copies.mending import DiskMended
from hikeshi.copies.record import Copy
from hikeshi.errors import HikeshiError, RefusedError
from hikeshi.incident import state as states
from hikeshi.incident import store
from hikeshi.repair import Mended
from hikeshi.site import Site
from hikeshi.triage import findings
from hikeshi.triage.plan import Plan
from tests.unit import schedules
from tests.unit.commands import hikeshi
from tests.unit.conftest import Project
from tests.unit.copy_cloud import Cloud, alive, cloud, copied
from tests.unit.test_copies import MOST_STEPS, items, shop, take, uses
from tests.unit.test_triage import HEALTHY

__all__ = ["cloud"]
WHEN = datetime.now(UTC) + timedelta(minutes=30)
JOB = f"at:a00003{int(WHEN.timestamp()) // 60:08x}"
SPOOL = f"file:/var/spool/cron/atjobs/{JOB.partition(':')[2]}"
MASKED, MODES = "unit:nginx.service", "path:/etc/nginx"
ALLOWED = ("copy", "hold-jobs", "reboot")


def evidence_of_disk() -> dict[str, Any]:
    """Return what a healthy disk tells: what a host tells, without all that only runs."""
    seen = copies.deepcopy(HEALTHY)
    for name in (
        "boot",
        "answers",
        "listens",
        "reaches",
        "databases",
        "logins",
        "firewall",
        "saved_firewall",
        "reports",
    ):
        seen.pop(name, None)
    for unit in seen["units"].values():
        unit |= {"active": "", "sub": "", "result": "", "after": []}
    for mount in seen["mounts"].values():
        mount["mounted"] = False
    seen["paths"] = {path: told for path, told in seen["paths"].items() if not path.startswith("/run/")}
    return {**seen, "configs": {}, "names": {}, "disks": {}, "unseen": []}


@dataclass
class Disk:
    """What is on the one disk, which stays when whoever works on it is killed."""

    cloud: Cloud
    broken: set[str] = field(default_factory=lambda: {MASKED, MODES})
    held: set[str] = field(default_factory=set)
    stubborn: set[str] = field(default_factory=set)  # what no step mends
    took: list[str] = field(default_factory=list)
    dead: bool = False  # its own programs take no step

    def inside(self, site: Site, copy: Copy, bench: Any, **_: Any) -> work.Inside:
        assert copy.id in self.cloud.benches and copy.id not in self.cloud.inside
        seen = evidence_of_disk()
        facts = {"unit:nginx.service": {"load": "loaded"}, "file:/etc/nginx": {"kind": "directory", "mode": "0755"}}
        if MASKED in self.broken:
            seen["units"]["nginx.service"] |= {"load": "masked", "enabled": "masked"}
            facts["unit:nginx.service"]["load"] = "masked"
        if MODES in self.broken:
            seen["paths"]["/etc/nginx"]["mode"] = facts["file:/etc/nginx"]["mode"] = "0700"
        jobs, held = [], [{"id": ident} for ident in self.held]
        if not held:
            jobs = [schedules.at("reboot", WHEN)]
            facts[SPOOL] = {"kind": "file", "mode": "0700"}
        seen["state"] = {"facts": facts, "texts": {}}
        schedule = {**schedules.now(*jobs), "held": held, "offline": True}
        return work.Inside(seen, seen["state"], schedule, [])

    def call_jobs(self, site: Site, copy: Copy, bench: Any, calls: Sequence[Sequence[str]], **_: Any) -> list[Any]:
        assert bench.root == "/disk", "nothing of the copy runs where its jobs are held"
        self.cloud.step()
        told = [{"id": word.rpartition("=")[0], "result": "held"} for word in calls[0][1:]]
        self.held |= {str(job["id"]) for job in told}
        self.cloud.step()
        return [{"jobs": told}]

    def take(self, site: Site, plan: Plan, playbook: str, *, extra: Any, limit: str, **_: Any) -> Any:
        assert (playbook, extra["instance_copy_root"], limit) == ("mend-copy.yml", "/", "web1")
        assert self.cloud.inside
        took = []
        for item in plan.steps:
            assert item.step.kind == "disk"
            self.cloud.step()
            self.took.append(item.step.words)
            subjects = {finding.subject for finding in item.findings}
            took.append(Mended(item, changed=bool(subjects & self.broken), failed=self.dead, seconds=0.1))
            self.broken -= subjects - self.stubborn
        failures = [SimpleNamespace(role="", task="", message="no python3")] if self.dead else []
        return took, SimpleNamespace(ok=not self.dead, failures=failures, output="")


@pytest.fixture
def on_disk(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    made = Disk(cloud)
    monkeypatch.setattr(work, "inside", made.inside)
    monkeypatch.setattr(work, "call_jobs", made.call_jobs)
    monkeypatch.setattr(repair, "take", made.take)
    yield made


def mend(site: Site) -> DiskMended:
    """Judge, and mend with all held that would go off."""
    copy = copied(site)
    look = disk.judge(site, copy)
    return mending.mend(site, copy, look, holds=look.bombs)


def mended_rounds(site: Site) -> list[Any]:
    records = store.journal(site).records()
    return [item.data for item in records if item.kind == "copy.end" and item.data.get("step") == "mend"]


def test_a_healthy_disk_has_no_findings() -> None:
    assert findings.judge_disk({"web1": evidence_of_disk()}) == []


def test_a_disk_is_judged_and_nothing_of_it_is_changed(project: Project, cloud: Cloud, on_disk: Disk) -> None:
    site = shop(project, *ALLOWED)
    take(site)
    look = disk.judge(site, copied(site))
    assert {item.subject for item in look.found} == {MASKED, MODES}
    assert [item.step.words for item in look.plan.steps] == [
        "host_base: unit_enable unit=nginx.service", "host_base: path_mode path=/etc/nginx mode=0755",
    ]  # fmt: skip
    assert [job.id for job in look.bombs] == [JOB]
    assert on_disk.took == [] and not on_disk.held and not cloud.benches and copied(site).work == "ready"


def test_what_would_go_off_is_on_the_clock_as_not_held_until_it_is(
    project: Project, on_disk: Disk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site = shop(project, *ALLOWED)
    take(site)
    disk.judge(site, copied(site))

    def clock() -> str:
        capsys.readouterr()
        assert hikeshi(monkeypatch, "incident", "status") == 0
        return " ".join(capsys.readouterr().out.split())

    where = f"not held, on the disk of copy {copied(site).id}"
    assert f"web1 · reboots · reboot · {where}" in clock()
    mend(site)
    assert where not in clock() and "are held on the disk of copy" in clock()
    still = "web1 · reboots · reboot · not held on its original disk, from which it runs; nobody gets in"
    assert still in clock()
    store.journal(site).append("agenda", {"bombs": [], "silent": ["web1"]})
    assert still in clock(), "who looks at the others alone learns nothing of this one"
    with store.journal(site).action("copy", {"step": "swap-in"}, host="web1") as action:
        action.data["step"] = "swap-in"
    assert still not in clock()
    making.delete(site, copied(site).id)
    assert items(site) == set(), "what was held on a disk that is gone is not to be put back"


def test_a_disk_is_mended_and_the_difference_is_told(project: Project, on_disk: Disk) -> None:
    site = shop(project, *ALLOWED)
    take(site)
    done = mend(site)
    assert done.healthy and on_disk.held == {JOB}
    assert {item.subject: item.words for item in done.difference} == {
        "unit:nginx.service": "load masked → loaded", "file:/etc/nginx": "mode 0700 → 0755",
        SPOOL: "is gone (kind file, mode 0700)",
    }  # fmt: skip
    (told,) = mended_rounds(site)
    assert (len(told["difference"]), len(told["took"])) == (3, 2)
    assert items(site) == {f"copy {copied(site).id}", "jobs"}
    assert done.as_data()["difference"] and done.as_data()["held"][0]["result"] == "held"


def test_what_is_held_is_no_difference_from_a_healthy_day(
    project: Project, on_disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = shop(project, *ALLOWED)
    take(site)
    facts = {SPOOL: {"kind": "file", "mode": "0700"}, "file:/etc/x": {"kind": "file"}}
    against = Baseline("then", WHEN, True, "me", "", {"web1": {"facts": facts, "texts": {}}}, Path())
    monkeypatch.setattr(disk, "_baseline", lambda site: against)
    told = {item.subject: item.words for item in mend(site).look.drift}
    assert "file:/etc/x" in told and SPOOL not in told


def test_a_step_that_does_not_help_is_taken_once(project: Project, on_disk: Disk) -> None:
    site = shop(project, *ALLOWED)
    take(site)
    on_disk.stubborn = {MODES}
    done = mend(site)
    assert not done.healthy and [item.subject for item in done.look.found] == [MODES]
    assert len(on_disk.took) == 2


def test_what_only_runs_is_no_difference_from_a_healthy_day() -> None:
    unit = {"load": "loaded", "enabled": "enabled", "fragment": "/x", "drop_ins": ""}
    facts = {
        "unit:nginx.service": {**unit, "active": "active", "condition": "yes", "user": "", "dangerous": ""},
        "unit:mnt-generated.mount": {**unit, "active": "active"},
        "listen:tcp/0.0.0.0:80": {"program": "nginx"},
        "file:/run/nologin": {"kind": "file"},
        "time:clock": {"zone": "UTC", "synchronized": "yes"},
    }
    against = Baseline("then", WHEN, True, "me", "", {"web1": {"facts": facts, "texts": {}}}, Path())
    now = {"unit:nginx.service": unit, "time:clock": {"zone": "UTC"}, "file:/etc/x": {"kind": "file"}}
    seen = {**evidence_of_disk(), "state": {"facts": now, "texts": {}}}
    assert [item.subject for item in disk._drift(against, "web1", seen)] == ["file:/etc/x"]
    now["unit:nginx.service"] = {**unit, "enabled": "masked"}
    assert {item.subject: item.words for item in disk._drift(against, "web1", seen)}["unit:nginx.service"] == (
        "enabled enabled → masked"
    )
    del now["unit:nginx.service"]
    now["unit:other.service"] = unit
    assert "unit:nginx.service" in {item.subject for item in disk._drift(against, "web1", seen)}


def test_what_no_step_mends_is_put_back_as_it_was_on_a_healthy_day(
    project: Project, on_disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A unit whose file is gone: enabling it fails until the baseline's text is back; nothing else is touched."""
    site = shop(project, *ALLOWED)
    take(site)
    text, path = "ab" * 32, "/etc/systemd/system/nginx.service"
    file = {"kind": "file", "mode": "0644", "owner": "root", "group": "root", "changed": 1, "digest": "d"}
    facts = {f"file:{path}": file, "file:/etc/other": file, "unit:nginx.service": {"load": "loaded"}}
    against = Baseline(
        "then", WHEN, healthy=True, by="me", why="", folder=project.root,
        hosts={"web1": {"facts": facts, "texts": {path: text, "/etc/other": text}}},
    )  # fmt: skip
    monkeypatch.setattr(disk, "_baseline", lambda site: against)
    on_disk.broken, on_disk.stubborn = {MASKED}, {MASKED}
    took = on_disk.take

    def fails_until_it_is_back(*words: Any, **more: Any) -> Any:
        if any(words.startswith("file_restore: file") for words in on_disk.took):
            on_disk.stubborn.clear()
        return took(*words, **more)

    monkeypatch.setattr(repair, "take", fails_until_it_is_back)
    done = mend(site)
    enable = "host_base: unit_enable unit=nginx.service"
    back = f"file_restore: file path={path} mode=0644 owner=root group=root text={text[:12]}… trial="
    assert on_disk.took == [enable, back, enable] and not done.look.found


def test_nothing_is_held_without_the_customers_word(project: Project, on_disk: Disk) -> None:
    site = shop(project, "copy")
    take(site)
    with pytest.raises(RefusedError, match="hold-jobs"):
        mend(site)
    assert not on_disk.held and not on_disk.took and copied(site).work == "ready"
    look = disk.judge(site, copied(site))
    assert not mending.mend(site, copied(site), look, holds=[]).look.found


def test_a_disk_whose_programs_take_no_step_is_refused(project: Project, cloud: Cloud, on_disk: Disk) -> None:
    site = shop(project, *ALLOWED)
    take(site)
    on_disk.dead = True
    with pytest.raises(HikeshiError, match="no step could be taken within the disk of .*no python3"):
        mend(site)
    assert not cloud.benches and not cloud.inside and copied(site).work == "ready"


@pytest.mark.parametrize(
    ("told", "found", "unseen"),
    [
        ((1, "nginx: [emerg] unknown directive in /etc/nginx/nginx.conf:2"), "nginx refuses", ""),
        ((1, 'nginx: [emerg] host not found in upstream "app:80" in /etc/nginx/x.conf:2'), "", "names a host (app)"),
        ((1, "nginx: [emerg] bind() to 192.0.2.1:80 failed (99: no such address)"), "", "not be tested"),
        ((127, "sh: 1: exec: nginx: not found"), "", "could not be tested"),
        ((-9, ""), "", "could not be tested"),
        ((0, ""), "", ""),
    ],
)
def test_services_of_the_copy_test_their_configuration(
    told: tuple[int, str], found: str, unseen: str, project: Project, cloud: Cloud, on_disk: Disk
) -> None:
    site = shop(project, *ALLOWED)
    take(site)
    on_disk.broken.clear()
    cloud.tests = {"nginx": told}
    look = disk.judge(site, copied(site))
    assert [item.cause for item in look.found if not item.cause.startswith(found or "-")] == []
    assert bool(look.found) == bool(found)
    assert any(unseen in words for words in look.unseen) if unseen else look.unseen == []


def test_what_a_test_says_is_cut_before_it_is_read(project: Project, cloud: Cloud, on_disk: Disk) -> None:
    site = shop(project, *ALLOWED)
    take(site)
    on_disk.broken.clear()
    cloud.tests = {"nginx": (1, "[emerg] " + " in /" * 1_000_000)}
    (finding,) = disk.judge(site, copied(site)).found
    assert len(finding.quote) <= 300


def test_killed_anywhere_the_next_call_ends_it(project: Project, cloud: Cloud, on_disk: Disk) -> None:
    """Nothing is held or permitted twice, no program of the copy is left, and all of the difference is told."""
    site = shop(project, *ALLOWED)
    number = 0
    while number < MOST_STEPS:
        shutil.rmtree(site.records, ignore_errors=True)
        on_disk.broken, on_disk.held = {MASKED, MODES}, set()
        for kept in (cloud.copies, cloud.works, cloud.benches):
            kept.clear()
        with alive(cloud):
            take(site)
        with alive(cloud, dies_at=number):
            mend(site)
        if not (died := cloud.dead):
            break
        with alive(cloud):
            done = mend(site)
        assert not on_disk.broken and on_disk.held == {JOB}, f"killed at step {number}"
        different = {item.subject for item in done.difference}
        assert not done.look.found and different == {"unit:nginx.service", "file:/etc/nginx", SPOOL}
        assert not cloud.benches and not cloud.inside and copied(site).work == "ready"
        assert uses(site, "hold-jobs") == 1 and "jobs" in items(site)
        assert cloud.copies[copied(site).id] == "broken", "the copy itself is never written"
        number += 1
    assert not died and number > 20


def test_a_new_working_copy_is_compared_with_itself(project: Project, on_disk: Disk) -> None:
    site = shop(project, *ALLOWED)
    take(site)
    mend(site)
    work.throw_away(site, copied(site))
    on_disk.broken = {MODES}
    assert [item.subject for item in mend(site).difference] == ["file:/etc/nginx"]
    assert states.derive(store.journal(site).records()).disks["web1"].data["disk"] == copied(site).id
    assert record.find(site, copied(site).id).work == "ready"
