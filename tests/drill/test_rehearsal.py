"""A mended disk rehearsed beside its original, and a small instance rescued by its disk, killed at each call.

It needs podman and the base image, and no practice site.
"""

import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from hikeshi.copies import making, proving, record, rehearsal, rescue, swap, work
from hikeshi.copies.drivers import driver_of
from hikeshi.copies.record import Copy
from hikeshi.drill import engine
from hikeshi.errors import HikeshiError, RefusedError
from hikeshi.incident import permissions, store
from hikeshi.site import PROJECT, Site
from tests.drill import copy_site, way_in_site
from tests.drill.conftest import ALL
from tests.drill.copy_site import INSTANCE, inside, left, status, told
from tests.drill.way_in_site import PAGE, page

pytestmark = pytest.mark.long


def agree(words: Sequence[str], question: str) -> bool:
    return True


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    way_in_site.make(tmp_path)
    yield tmp_path
    copy_site.sweep()
    assert left() == []


@pytest.fixture
def site(root: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return copy_site.look_there(monkeypatch, root)


def sealed(site: Site) -> Copy:
    """Return a copy whose disk, as it is, is ready to be rehearsed."""
    making.take(site, approve=agree)
    (copy,) = record.read_all(site)
    work.make(site, copy)
    swap.seal(site, copy)
    return copy


def within(name: str, script: str) -> str:
    return engine.podman("exec", name, "sh", "-ec", script)


def test_a_rehearsed_machine_lets_us_in_and_reaches_nobody(site: Site) -> None:
    copy = sealed(site)
    driver, before = driver_of(site), left()
    machine = driver.rehearse(copy)
    name = f"{INSTANCE}-rehearsal-{copy.stamp}"
    there = proving.stand_in(site, "web1", machine)
    login = proving.log_in(there, "web1")
    assert login.ok, login.why
    assert (login.told["machine"], login.told["timers"], login.told["daemons"]) == (machine.machine_id, "", "")
    assert machine.machine_id != "0123456789abcdef0123456789abcdef" and login.told["routes"] == ""
    assert [item.passed for item in proving.look(there, ["direct"], green=["top"], settle_s=20)] == [True]
    # The data disk is whose it was; what is written there is thrown away, and the job of the original never runs.
    assert within(name, "stat -c '%U:%G %a' /mnt/images-disk") == "www-data:games 2751"
    within(name, "echo x > /mnt/images-disk/written; echo x > /etc/written")
    time.sleep(2)
    assert machine.machine_id not in within(name, "cat /mnt/images-disk/ran")
    for address in (way_in_site.ADDRESS, "1.1.1.1"):
        with pytest.raises(HikeshiError, match="unreachable"):
            within(
                name,
                f"exec 2>&1; timeout 5 bash -c 'echo > /dev/tcp/{address}/22' || {{ echo unreachable >&2; exit 1; }}",
            )
    assert status() == "running" and page() == PAGE
    driver.end_rehearsal(copy)
    assert left() == before
    with work.opened(site, copy) as bench:
        bench_name = bench.variables["ansible_host"]
        assert within(bench_name, "ls /disk/etc/written /disk/mnt/images-disk/written 2>/dev/null || true") == ""
        assert within(bench_name, "cat /disk/etc/machine-id") == "0123456789abcdef0123456789abcdef"
        assert within(bench_name, "stat -c '%U:%G %a' /disk/mnt/images-disk") == "www-data:games 2751"


def test_what_a_killed_rehearsal_left_is_removed_by_the_next_call(site: Site) -> None:
    copy = sealed(site)
    before = left()
    driver_of(site).rehearse(copy)
    assert copy.swap
    copy.swap.rehearsal = "up"
    record.save(site, copy)
    checks = rehearsal.rehearse(site, record.find(site, copy.id), green=["top"])
    assert all(check.ok for check in checks), checks
    assert left() == before
    driver_of(site).rehearse(copy)
    making.delete(site, copy.id)
    assert not [name for kind, name in left() if copy.stamp in name]


def broken() -> None:
    """Let nobody in any more: who tries is refused, and sshd does not start again either."""
    inside("""
        echo 'No logins' > /etc/nologin; chmod 0644 /etc/ssh/ssh_host_ed25519_key
        echo 'NoSuchWord yes' > /etc/ssh/sshd_config.d/60-broken.conf; systemctl restart ssh.service || true
    """)


def test_nobody_gets_in_and_the_disk_lets_us_in(site: Site) -> None:
    broken()
    machine = told("{{.Id}}")
    assert not proving.log_in(site, "web1", wait_s=0).ok
    taken_away = {"name": "reboot", "by": "Ms Ito", "words": "Not yet", "limit": None, "until": None}
    store.journal(site).append("permission.refused", taken_away)
    with pytest.raises(RefusedError, match="permission 'reboot'.*Ms Ito refused it"):
        rescue.rescue(site, "web1", ask=agree)
    (copy,) = record.read_all(site)
    assert copy.swap and (copy.swap.state, copy.swap.rehearsal) == ("sealing", "passed")
    assert told("{{.Id}}") == machine and status() == "running" and page() == PAGE
    inside("echo two >> /var/lib/shop/orders")
    store.journal(site).append("permission.granted", {**taken_away, "words": "Now"})
    done = rescue.rescue(site, "web1", ask=agree)
    assert done.swapped and done.mended is None, "nothing was done twice"
    assert told("{{.Id}}") != machine and page() == PAGE and proving.log_in(site, "web1").ok
    assert inside("cat /var/lib/shop/orders") == "one\ntwo"
    assert inside("cat /etc/machine-id") == "0123456789abcdef0123456789abcdef"
    assert all(check.ok for check in making.verify_again(site, copy.id)[1]), "the copy was never written"
    swap.swap_back(site, record.find(site, copy.id))
    assert told("{{.Id}}") == machine and inside("cat /var/lib/shop/orders") == "one\ntwo"


def test_what_lets_nobody_in_after_the_swap_is_swapped_back(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the rehearsal cannot know: somebody breaks the disk between it and the swap."""
    broken()
    machine, go_in = told("{{.Id}}"), swap.swap_in

    def spoiled(site: Site, copy: Copy) -> None:
        assert copy.swap
        tree = Path(engine.podman("mount", copy.swap.mended))
        (tree / "etc" / "ssh" / "sshd_config.d" / "spoiled.conf").write_text("NoSuchWord yes\n")
        engine.podman("umount", copy.swap.mended)
        go_in(site, copy)

    monkeypatch.setattr(swap, "swap_in", spoiled)
    log_in = proving.log_in
    monkeypatch.setattr(proving, "log_in", lambda site, host: log_in(site, host, wait_s=15))
    with pytest.raises(HikeshiError, match="runs from its original again"):
        rescue.rescue(site, "web1", ask=agree)
    assert told("{{.Id}}") == machine and status() == "running"


def killed(root: Path, number: int) -> tuple[bool, str]:
    """Let a rescue die before a call of podman; say whether it did, and what it was about to do."""
    words = [sys.executable, "-m", "tests.drill.copy_dies", str(root), "rescue", str(number)]
    died = subprocess.run(words, cwd=PROJECT, capture_output=True, text=True, check=False)
    print(f"killed before call {number}: podman {died.stdout.strip() or '(it was done)'}; {died.stderr[-300:]}")
    return died.returncode == -9, died.stdout.strip()


def test_killed_before_a_call_of_podman_a_rescue_goes_on(site: Site, root: Path, seed: int) -> None:
    """Each call in `--all`; else as many as there is time for, the swap and the rehearsal among them."""
    broken()
    machine, chance = told("{{.Id}}"), random.Random(seed)
    number, orders = chance.randrange(8), "one"
    while True:
        died, _ = killed(root, number)
        assert told("{{.State.Status}}", machine), "the original is never lost"
        found = record.read_all(site)
        if not any(copy.swapped for copy in found):
            deadline = time.monotonic() + 20
            while status() != "running" and time.monotonic() < deadline:
                time.sleep(0.1)
            assert told("{{.Id}}") == machine and status() == "running"
        if died:
            rescue.rescue(site, "web1", ask=agree)
        (copy,) = record.read_all(site)
        assert proving.log_in(site, "web1").ok and page() == PAGE and inside("cat /var/lib/shop/orders") == orders
        assert all(check.ok for check in making.verify_again(site, copy.id)[1]), "the copy was never written"
        names = [name for _, name in left() if copy.stamp in name]
        assert not [name for name in names if any(kind in name for kind in ("rehearsal", "way", "bench", "within"))]
        inside(f"echo {number} >> /var/lib/shop/orders")
        orders += f"\n{number}"
        swap.swap_back(site, copy)
        making.delete(site, copy.id)
        assert told("{{.Id}}") == machine
        if not died:
            break
        number += 1 if ALL else chance.randrange(30, 50)
    assert number > 40
    used = permissions.ledger(store.journal(site).records())["reboot"].used
    assert used >= 2
