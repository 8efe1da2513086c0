"""Nobody gets in to the Web/DB server of the practice site: recovered by way of its disk, with its orders.

Of a small instance the same is asked, call by call of podman, in test_rehearsal.py.
"""

import itertools
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hikeshi.copies import making, podman, record
from hikeshi.drill import containers, customers, engine, faults, ledger, practice
from hikeshi.errors import HikeshiError
from hikeshi.incident import store
from hikeshi.site import PROJECT, load, practice_folder
from tests.bent_command import RESCUE_BOUNDARIES
from tests.drill.conftest import ALL, SEED, Done, hikeshi, ssh, wait_for_orders

pytestmark = pytest.mark.long

SHUT = [name for name, fault in sorted(faults.catalogue().items()) if fault.keeps_out and fault.mendable]
PAIRS = random.Random(SEED).sample(
    [list(pair) for pair in itertools.combinations(SHUT, 2) if faults.compatible(pair)], 3
)
SHOP = ("images-unreadable", "checkout-disabled")
RAN = "/var/tmp/hikeshi-bomb-went-off"  # noqa: S108 (it must outlive a restart)
BOUGHT_AT = "stage.start/seal the disk"
CUSTOMER = ("--by", "Ms Ito", "--words", "Do what you must")
# sshd refuses its configuration, a forgotten nologin, and a line of PAM that names no module.
CLOSE = """
    sed -i '1i account required pam_of_another_day.so' /etc/pam.d/sshd
    echo 'Bogus yes' > /etc/ssh/sshd_config.d/90-hardening.conf
    echo 'Migration. Call the office first.' > /etc/nologin
    systemctl restart ssh.service || true
    systemd-run --quiet --collect --on-active=1 pkill -f '^sshd: deploy'
"""
ENDED_S = 3  # until connections that stood before, and would let recovery in, are gone


def machine() -> str:
    """Return the id of the container that plays the Web/DB server now."""
    return engine.podman("container", "inspect", "--format", "{{.Id}}", containers.container("web1"))


def gets_in() -> bool:
    site = practice_folder() / "site"
    words = ["ssh", "-F", str(site / "ssh_config"), "-i", str(site / "ssh_key"), "-o", "BatchMode=yes",
             "-o", f"UserKnownHostsFile={site / 'known_hosts'}", "-o", "ConnectTimeout=5", "web1", "true"]  # fmt: skip
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def shut() -> None:
    """Wait until nobody gets in, nor is in."""
    time.sleep(ENDED_S)
    assert not gets_in(), "this keeps nobody out"


def remains() -> list[str]:
    """Return what is left of copies that is no copy, no original put aside and no machine in service."""
    prefix = containers.container("web1")
    names = engine.podman("ps", "--all", "--format", "{{.Names}}").splitlines()
    names += engine.podman("network", "ls", "--format", "{{.Name}}").splitlines()
    kinds = ("rehearsal", "way", "bench", "within", "test", "read", "open")
    return [name for name in names if name.startswith(tuple(f"{prefix}-{kind}-" for kind in kinds))]


@pytest.fixture
def incident(whole: Path) -> Iterator[None]:
    """An incident with a deadline in an hour, in which jobs may be held and hosts copied; no copy is left of it."""
    deadline = (datetime.now(UTC) + timedelta(hours=1)).isoformat(timespec="seconds")
    assert hikeshi("incident", "open", f"shut-{int(time.time())}").status == 0
    assert hikeshi("incident", "deadline", "tv", deadline, "--owner", "Aki").status == 0
    for name in ("hold-jobs", "copy", "reboot"):
        assert hikeshi("incident", "permit", name, *CUSTOMER).status == 0
    yield
    try:
        if gets_in():
            hikeshi("jobs", "release", "--yes")
            ssh("web1", "rm -f /var/spool/cron/atjobs/a*; rm -rf /var/lib/hikeshi/jobs/at-*")
        back_to_the_original()
    finally:
        assert hikeshi("incident", "close", "--force", "--words", "the test is over").status == 0


def back_to_the_original() -> None:
    """Have no copy, and no machine made of one: the next test begins anew."""
    if any(copy.swapped for copy in record.read_all(load("drill"))):
        hikeshi("drill", "down")
        assert hikeshi("drill", "up", timeout=1800).status == 0
    for copy in record.read_all(load("drill")):
        assert hikeshi("copy", "--delete", copy.id).status == 0


def stages_done() -> list[str]:
    records = store.journal(load("drill")).records()
    done = [item for item in records if item.kind == "stage.end" and item.data.get("outcome") == "done"]
    return [str(item.data["stage"]) for item in done]


def digests_are_as_they_were() -> None:
    """Assert that no copy was written."""
    site = load("drill")
    for copy in record.read_all(site):
        assert all(check.ok for check in making.verify_again(site, copy.id)[1])


def test_the_way_in_is_the_disk(incident: None, seed: int) -> None:
    """The whole of it: nobody gets in, pictures and checkout are broken, a reboot waits in the spool of at."""
    site, original = load("drill"), machine()
    customers.start(site, seed)
    try:
        bought_before = wait_for_orders()
        broken = hikeshi("drill", "break", *SHOP, "--seed", str(seed))
        assert broken.status == 0, broken.err
        ssh("web1", f"echo 'touch {RAN}; shutdown -r now' | at now + 40 minutes 2> /dev/null\n{CLOSE}")
        shut()
        planned = hikeshi("recover", "--plan", "--json")
        assert planned.status == 3 and "web1 lets nobody in" in planned.data["disks"]["foreseen"][0]
        done = hikeshi("recover", "--yes", "--json", timeout=1200)
        assert done.status == 0, done.out[-3000:] + done.err[-6000:]
        mended = time.time()
        wait_for_orders()
    finally:
        truth = customers.stop(site)
    data = done.data
    print("\n".join(f"{check['what']}: {check['words']}" for check in data["disks"]["rescued"][0]["rehearsed"]))
    assert data["healthy"] and machine() != original
    held_there = data["disks"]["rescued"][0]["mended"]["held"]
    assert {item["result"] for item in held_there} == {"held"}
    assert [item["id"] for item in held_there if item["id"].startswith("at:")], "before the disk booted"
    times = [item["at"] for item in truth.orders]
    assert min(times) < bought_before and max(times) > mended
    assert ledger.audit(site, truth.order_numbers)[1] == [], "no order is lost, doubled or unpaid"
    held = hikeshi("jobs", "list", "--json").data["agenda"]["held"]
    assert any(item["id"].startswith("at:") for item in held), "it stays held until its deadline is over"
    assert ssh("web1", f"ls {RAN} 2> /dev/null || true") == "" and remains() == []
    digests_are_as_they_were()
    assert hikeshi("recover", "--yes", "--json").data["changed"] == 0


def assert_kept(bought: Done) -> None:
    """Ask the shop's database for the order that a probe placed."""
    (number,) = [item["noted"]["order"] for item in bought.data if item["noted"]]
    assert number in ssh("web1", "mariadb shop -Ne 'SELECT number FROM order_order'").split()


def test_without_permission_it_stops_before_the_swap_and_resumes_after_it(incident: None) -> None:
    original = machine()
    assert hikeshi("incident", "permit", "reboot", "--refuse", *CUSTOMER).status == 0
    ssh("web1", CLOSE)
    shut()
    stopped = hikeshi("recover", "--yes", timeout=1200)
    assert stopped.status == 5, stopped.err[-3000:]
    assert "May we restart the server?" in " ".join(stopped.err.split())
    assert "hikeshi incident permit reboot" in " ".join(stopped.err.split())
    assert machine() == original and remains() == [] and not gets_in()
    assert stages_done().count("rehearse") == 1
    bought = hikeshi("probe", "checkout", "--json")
    assert bought.status == 0, "the half of the shop that sells goes on"
    assert hikeshi("incident", "permit", "reboot", *CUSTOMER).status == 0
    done = hikeshi("recover", "--yes", "--json", timeout=1200)
    assert done.status == 0, done.err[-3000:]
    assert machine() != original and stages_done().count("rehearse") == 1, "nothing was done twice"
    assert_kept(bought)


@pytest.mark.parametrize("names", [*([name] for name in SHUT), *PAIRS] if ALL else PAIRS[:1], ids=" and ".join)
def test_faults_that_shut_us_out_alone_and_two_at_once(incident: None, seed: int, names: list[str]) -> None:
    broken = hikeshi("drill", "break", *names, "--seed", str(seed))
    assert broken.status == 0, broken.err
    shut()
    done = hikeshi("recover", "--yes", "--json", timeout=1200)
    assert done.status == 0, done.err[-6000:]
    (rescued,) = done.data["disks"]["rescued"]
    found = {item["subject"] for item in rescued["look"]["findings"]}
    for name in names:
        assert found & set(faults.choose(name, seed).subjects), (name, rescued["look"]["findings"])
    assert gets_in() and remains() == []


def bent(boundary: str) -> Done:
    """Recover, and die when a record is on disk."""
    words = [sys.executable, "-m", "tests.bent_command", f"--die-at={boundary}", "recover", "--yes"]
    environment = {**os.environ, "PYTHONPATH": f"{PROJECT}:{PROJECT / 'scripts'}"}
    done = subprocess.run(
        words, cwd=PROJECT, capture_output=True, text=True, timeout=1200, env=environment, check=False
    )
    return Done(done.returncode, done.stdout, done.stderr)


def test_killed_at_each_stage_it_goes_on(incident: None) -> None:
    """One rescue, killed on its way as often as it has stages; the original is always there, and no order is lost."""
    original = machine()
    ssh("web1", CLOSE)
    shut()
    for boundary in RESCUE_BOUNDARIES:
        died = bent(boundary)
        assert died.status == -9, f"{boundary}: {died.status}\n{died.err[-3000:]}"
        assert engine.podman("container", "inspect", "--format", "{{.State.Status}}", original)
        if boundary == BOUGHT_AT:  # after the copy, before the swap: on the original alone
            bought = hikeshi("probe", "checkout", "--json")
            assert bought.status == 0, bought.err
    done = hikeshi("recover", "--yes", "--json", timeout=1200)
    assert done.status == 0, done.err[-6000:]
    assert gets_in() and machine() != original and remains() == []
    assert_kept(bought)
    digests_are_as_they_were()
    used = [item.data["name"] for item in store.journal(load("drill")).records() if item.kind == "permission.used"]
    assert (used.count("copy"), used.count("reboot")) == (1, 1)


def refused_and_unchanged(monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    """Assert that a copy is refused with these words, and that nothing came of it."""
    site, original = load("drill"), machine()
    with pytest.raises(HikeshiError, match=words):
        making.take(site, "web1", approve=lambda *_: True)
    assert machine() == original and not record.read_all(site, "web1") and remains() == []
    assert (
        engine.podman("image", "ls", "--quiet", "--filter", f"label=hikeshi.instance={containers.container('web1')}")
        == ""
    )


def test_a_copy_that_is_not_good_is_refused(incident: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Truncated, without room, or with a database that does not open: nothing of the site is changed."""
    copied: Any = podman.Podman._copy_volume

    def cut(self: podman.Podman, source: str, target: str) -> None:
        copied(self, source, target)
        place = Path(engine.podman("volume", "inspect", "--format", "{{.Mountpoint}}", target))
        largest = max((path for path in place.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
        os.truncate(largest, 3)

    with monkeypatch.context() as patch:
        patch.setattr(podman.Podman, "_copy_volume", cut)
        refused_and_unchanged(monkeypatch, "is not good, and was removed.*bytes; there were")
    with monkeypatch.context() as patch:
        patch.setattr(podman, "ROOM_LEFT", 1 << 60)
        refused_and_unchanged(monkeypatch, "only 0 MiB may be filled")
    ssh("web1", "systemctl stop mariadb; mv /var/lib/mysql/ibdata1 /root/; echo nothing > /var/lib/mysql/ibdata1")
    try:
        refused_and_unchanged(monkeypatch, "is not good, and was removed.*database /var/lib/mysql: does not open")
    finally:
        ssh("web1", "mv /root/ibdata1 /var/lib/mysql/ibdata1; systemctl start mariadb")
    practice.wait_until_green(load("drill"))
