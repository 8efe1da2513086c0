"""Copies of a small instance of our own by podman: verified, killed, looked into, swapped; nothing of it is left.

It needs podman and the base image, and no practice site.
"""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from hikeshi.copies import making, podman, record, swap, work
from hikeshi.copies.drivers import driver_of
from hikeshi.copies.record import Copy
from hikeshi.drill import engine
from hikeshi.errors import HikeshiError
from hikeshi.incident import permissions, store
from hikeshi.site import PROJECT, Site
from tests.drill import copy_site
from tests.drill.conftest import ALL
from tests.drill.copy_site import INSTANCE, inside, left, status, told

pytestmark = pytest.mark.long  # some twenty seconds each, of which an hour has no room for all

# What a bench has of its own; the rest is the kernel's.
MEMORY = {"/tmp", "/run", "/var/tmp"}  # noqa: S108
GIVEN = {"/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/run/.containerenv"}


def agree(words: Sequence[str], question: str) -> bool:
    return True


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A folder with a site whose one instance runs, has a data disk, a job and orders on its system disk."""
    engine.prepare(print)
    copy_site.sweep()
    copy_site.write_site(tmp_path, carried={"web1": ["/var/lib/shop"]})
    copy_site.make_instance(engine.base_image())
    inside("""
        cd /mnt/images-disk; echo lantern > lantern; chown 4711 lantern; chmod 0600 lantern
        mkdir -p /var/lib/shop /var/spool/cron/atjobs; echo one > /var/lib/shop/orders
        echo 'broken' > /etc/shop.conf; echo 0123456789abcdef0123456789abcdef > /etc/machine-id
        printf '#!/bin/sh\n# atrun uid=0 gid=0\n# mail root 0\ncd / || {\n\t echo no\n\t exit 1\n}\nreboot\n' \
            > /var/spool/cron/atjobs/a0000301ffffff
        chown -R daemon:daemon /var/spool/cron/atjobs; chmod 1770 /var/spool/cron/atjobs
        chmod 0700 /var/spool/cron/atjobs/a0000301ffffff
    """)
    yield tmp_path
    copy_site.sweep()
    assert left() == []


@pytest.fixture
def site(root: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return copy_site.look_there(monkeypatch, root)


def taken(site: Site) -> Copy:
    """Copy the instance; return its copy."""
    making.take(site, approve=agree)
    (copy,) = record.read_all(site)
    return copy


def ours(before: list[tuple[str, str]]) -> list[str]:
    """Return what there is besides what there was."""
    return sorted(name for kind, name in left() if (kind, name) not in before)


def test_copy_work_swap_and_back(site: Site) -> None:
    """The whole way, on one instance: each part costs seconds of podman."""
    before, machine = left(), told("{{.Id}}")
    copy = taken(site)
    assert [check.what for check in copy.checks if check.ok] == ["id", "time", "size", "readable"]
    assert copy.taken and copy.taken.disks[0].held == record.Size(files=1, bytes=8)
    assert status() == "running" and told("{{.Id}}") == machine
    assert {item.copy_id for item in driver_of(site).list()} == {copy.id} and not making.listing(site).unknown

    with work.opened(site, copy) as bench:
        name = bench.variables["ansible_host"]
        seen = work.inside(site, copy, bench)
        _assert_seen(seen)
        # Late: the job must not go off meanwhile.
        (held,) = work.call_jobs(site, copy, bench, [["hold", "at:a0000301ffffff=1900000000"]])
        assert [job["result"] for job in held["jobs"]] == ["held"], held
        engine.podman("exec", name, "sh", "-ec", "echo mended > /disk/etc/shop.conf; echo x > /disk/mnt/images-disk/x")
    assert record.find(site, copy.id).work == "ready"

    copy = record.find(site, copy.id)
    swap.swap_in(site, copy)
    _assert_in_place("mended", "one", machine_differs_from=machine)
    assert inside("ls /mnt/images-disk") == "lantern", "the data disk is the original's, not the working copy's"
    assert inside("ls /var/spool/cron/atjobs; ls /var/lib/hikeshi/jobs | head -1") != "", "what was held comes along"
    inside("echo two >> /var/lib/shop/orders")
    swap.proven(site, copy)
    swap.swap_back(site, copy)
    _assert_in_place("broken", "one\ntwo")
    assert told("{{.Id}}") == machine
    assert all(check.ok for check in making.verify_again(site, copy.id)[1]), "the copy was never written"

    making.delete(site, copy.id)
    assert ours(before) == []


def test_a_committed_swap_leaves_one_machine_which_can_be_copied_again(site: Site) -> None:
    machine = told("{{.Id}}")
    first = taken(site)
    with pytest.raises(HikeshiError, match="in no swap"):
        swap.commit(site, first)
    swap.swap_in(site, first)
    swap.proven(site, first)
    swap.commit(site, record.find(site, first.id))
    mended = told("{{.Id}}")
    assert status() == "running" and mended != machine and not record.read_all(site)
    assert machine not in engine.podman("ps", "--all", "--quiet", "--no-trunc"), "the original went"
    assert not making.listing(site).unknown, "what runs is the site's own"
    second = taken(site)
    swap.swap_in(site, second)
    swap.proven(site, second)
    swap.swap_back(site, second)
    assert status() == "running" and told("{{.Id}}") == mended
    making.delete(site, second.id)
    third = taken(site)
    swap.swap_in(site, third)
    swap.proven(site, third)
    swap.commit(site, record.find(site, third.id))
    assert status() == "running" and not making.listing(site).unknown, "the first swap's image went with its machine"


def _assert_seen(seen: work.Inside) -> None:
    """Assert that the collector told what is on the disk, also what only its owner may read."""
    facts = seen.state["facts"]
    assert facts["file:/etc/shop.conf"]["kind"] == "file" and "user:deploy" in facts
    assert not seen.unseen
    jobs = [item for item in seen.schedule["files"] if item["source"] == "at"]
    assert [item["path"] for item in jobs] == ["/var/spool/cron/atjobs/a0000301ffffff"]
    assert seen.schedule["offline"] is True


def _assert_in_place(setting: str, orders: str, machine_differs_from: str = "") -> None:
    """Assert that the instance runs with this disk, and with the addresses and the identity it always had."""
    assert status() == "running" and told("{{.Id}}") != machine_differs_from
    assert inside("cat /etc/shop.conf") == setting
    assert inside("cat /var/lib/shop/orders") == orders
    assert inside("cat /etc/machine-id; hostname").split() == ["0123456789abcdef0123456789abcdef", "web1"]
    network = json.loads(told("{{json .NetworkSettings.Networks}}"))[copy_site.NAME]
    assert (network["IPAddress"], network["GlobalIPv6Address"], network["MacAddress"]) == (
        f"{copy_site.NET}.11", "fd77:1:2:3::11", "02:11:22:33:44:0b",
    )  # fmt: skip


def test_a_bench_lets_nothing_out(site: Site) -> None:
    """What is on the disk may be anything; what works on it there is root, and nobody here."""
    inside("""
        ln -s / /etc/root; mknod /etc/disk b 254 0 || true
        rmdir /srv; ln -s /etc /srv
        printf '#!/bin/sh\ntouch /tmp/ran\n' > /usr/bin/python3.evil; chmod 4755 /usr/bin/python3.evil
    """)
    with work.opened(site, taken(site)) as bench:

        def on_bench(script: str) -> tuple[int, str]:
            done = subprocess.run(
                ["podman", "exec", bench.variables["ansible_host"], "sh", "-c", script],
                capture_output=True, text=True, check=False, env={**os.environ, **_settings()},
            )  # fmt: skip
            return done.returncode, done.stdout + done.stderr

        assert on_bench("ls /sys/class/net")[1].split() == ["lo"]
        assert on_bench("cat /proc/1/comm")[1].strip() == "sleep", "its own process table"
        powers = int(on_bench("grep CapBnd /proc/self/status")[1].split()[1], 16)
        assert powers == 0b11011, "chown, dac_override, fowner, fsetid"
        assert on_bench("/disk/usr/bin/python3.evil")[0] == 126, "nothing of the disk is run"
        assert on_bench("mknod /disk/x b 254 0")[0] and on_bench("mount -t tmpfs x /mnt")[0]
        assert on_bench("chroot /disk /bin/true")[0] and on_bench("echo x > /usr/bin/x")[0]
        # Its root is root of files, whoever owns them, and has no power over this machine.
        assert on_bench("chown 4242:4242 /disk/etc/shop.conf && stat -c %u /disk/etc/shop.conf")[1].strip() == "4242"
        mounts = on_bench("cut -d' ' -f2 /proc/mounts")[1].split()
        of_disk = {place for place in mounts if not place.startswith(("/proc", "/sys", "/dev"))}
        assert {"/disk", "/disk/mnt/images-disk"} < of_disk <= {"/", "/disk", "/disk/mnt/images-disk"} | MEMORY | GIVEN
    assert record.read_all(site)[0].work == "ready"


def _settings() -> dict[str, str]:
    return {"CONTAINERS_CONF": str(engine.SETTINGS)} if engine.SETTINGS.exists() else {}


def test_a_hostile_disk_tells_of_itself_and_of_nothing_else(site: Site, tmp_path: Path) -> None:
    """Links that would lead out, names that are templates, a unit file of 10 MB: told, or named as not told."""
    secret = tmp_path / "secret"
    secret.write_text("only this machine knows")
    inside(f"""
        ln -s {secret} /etc/outside; ln -s /proc/1/root{tmp_path} /etc/around; rm -rf /etc/cron.d
        ln -s {tmp_path} /etc/cron.d; ln -s ../../../../../../../..{secret} /etc/systemd/system/above.service
        touch '/etc/{{{{ 7 * 7 }}}}'; mkfifo /etc/pipe
        head -c 10000000 /dev/zero | tr '\\0' x > /etc/systemd/system/long.service
    """)
    copy = taken(site)
    with work.opened(site, copy) as bench:
        seen = work.inside(site, copy, bench, texts=True)
    told_of = json.dumps([seen.state, seen.schedule])
    assert "only this machine knows" not in told_of and '"file:/etc/{{ 7 * 7 }}"' in told_of
    assert seen.state["facts"]["file:/etc/outside"]["link"] == str(secret)
    assert seen.state["facts"]["file:/etc/pipe"]["kind"] == "other"


def test_a_data_disk_is_not_mounted_over_the_bench(site: Site) -> None:
    """A link where the data disk belongs would lead out of the disk, over the bench's own files."""
    copy = taken(site)
    work.make(site, copy)
    name = podman.Podman.container(copy, "work")
    tree = Path(engine.podman("mount", name))
    (tree / "mnt" / "images-disk").rmdir()
    (tree / "mnt" / "images-disk").symlink_to("/usr/bin")
    engine.podman("umount", name)
    with work.opened(site, record.find(site, copy.id)) as bench:
        (note,) = bench.notes
        assert note.startswith("the data disk of /mnt/images-disk lies at /data/0")
        assert engine.podman("exec", bench.variables["ansible_host"], "cat", "/data/0/lantern") == "lantern"


def test_a_role_refuses_a_bench_that_is_none(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = taken(site)
    monkeypatch.setattr(podman, "SAFE", "nosuid,nodev")
    with work.opened(site, copy) as bench, pytest.raises(HikeshiError, match="/disk is mounted without noexec"):
        work.inside(site, copy, bench)


def test_a_truncated_volume_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    before, copied = left(), podman.Podman._copy_volume

    def cut(self: podman.Podman, source: str, target: str) -> None:
        copied(self, source, target)
        place = Path(engine.podman("volume", "inspect", "--format", "{{.Mountpoint}}", target))
        os.truncate(place / "lantern", 3)

    monkeypatch.setattr(podman.Podman, "_copy_volume", cut)
    with pytest.raises(HikeshiError, match="not good, and was removed.*1 files, 3 bytes; there were 1, 8"):
        taken(site)
    assert ours(before) == [] and not record.read_all(site) and status() == "running"


def test_an_instance_that_goes_on_too_early_is_not_copied(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(podman, "FREEZE_MOST_S", 0)
    before = left()
    with pytest.raises(HikeshiError, match="went on before its copy was whole"):
        taken(site)
    assert status() == "running" and ours(before) == []
    assert permissions.ledger(store.journal(site).records())["copy"].used == 1
    monkeypatch.setattr(podman, "FREEZE_MOST_S", 60)
    taken(site)
    assert permissions.ledger(store.journal(site).records())["copy"].used == 1, "the next call goes on by it"


def test_a_pristine_copy_that_was_written_is_noticed(site: Site) -> None:
    copy = taken(site)
    assert copy.taken
    volume = podman.Podman.volume(copy, copy.taken.disks[0], "copy")
    place = Path(engine.podman("volume", "inspect", "--format", "{{.Mountpoint}}", volume))
    found = (place / "lantern").stat()
    (place / "lantern").write_text("lanterN\n")
    os.utime(place / "lantern", ns=(found.st_atime_ns, found.st_mtime_ns))
    assert [check.what for check in making.verify_again(site, copy.id)[1] if not check.ok] == ["digest"]


def test_a_stopped_instance_with_a_disk_of_its_own_size_is_copied(site: Site, tmp_path: Path) -> None:
    """The practice site's small disks are file systems in files; of a stopped instance they are not mounted."""
    engine.podman("rm", "--force", "--time", "0", INSTANCE)
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(8 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True, capture_output=True)
    name = f"{INSTANCE}-log"
    engine.podman("volume", "create", "--opt", "type=ext4", "--opt", f"device={image}", "--opt", "o=loop", name)
    try:
        words = ("create", "--name", INSTANCE, "--volume", f"{name}:/var/log/shop")
        engine.podman(*words, engine.base_image(), "sleep", "60")
        engine.podman("start", INSTANCE)
    except HikeshiError as problem:
        pytest.skip(f"no loop device here: {problem.message}")
    inside("echo line > /var/log/shop/log")
    engine.podman("stop", "--time", "0", INSTANCE)
    copy = taken(site)
    assert copy.taken and copy.taken.disks[0].held and copy.taken.disks[0].held.bytes == 5


def killed(root: Path, verb: str, number: int) -> bool:
    """Let a process of its own die before a call of podman; return False when it had none so late."""
    words = [sys.executable, "-m", "tests.drill.copy_dies", str(root), verb, str(number)]
    died = subprocess.run(words, cwd=PROJECT, capture_output=True, text=True, check=False)
    print(f"{verb} killed before call {number}: podman {died.stdout.strip() or '(it was done)'}; {died.stderr[-200:]}")
    return died.returncode == -9


def test_a_swap_killed_before_a_call_of_podman_goes_on(site: Site, root: Path, seed: int) -> None:
    """In the same direction, whoever comes next; the original is always there, and no order is lost."""
    copy = taken(site)
    with work.opened(site, copy) as bench:
        engine.podman("exec", bench.variables["ansible_host"], "sh", "-ec", "echo mended > /disk/etc/shop.conf")
    swap.seal(site, record.find(site, copy.id))
    machine, orders = told("{{.Id}}"), "one"
    number = random.Random(seed).randrange(3)
    while True:
        died = killed(root, "in", number)
        assert status_of(machine)
        swap.swap_in(site, record.find(site, copy.id))
        _assert_in_place("mended", orders, machine_differs_from=machine)
        inside(f"echo {number} >> /var/lib/shop/orders")
        orders += f"\n{number}"
        died |= killed(root, "back", number)
        assert status_of(machine)
        swap.swap_back(site, record.find(site, copy.id))
        _assert_in_place("broken", orders)
        assert told("{{.Id}}") == machine
        if not died:
            break
        number += 1 if ALL else 4
        swap.seal(site, record.find(site, copy.id))
    assert number > 6


def status_of(machine: str) -> str:
    """Return the state of a container that must be there."""
    return told("{{.State.Status}}", machine)


# Of podman's calls in one copy: while the instance is frozen, and all of them.
FROZEN, CALLS = range(6, 11), range(16)


@pytest.mark.parametrize("chosen", ["frozen", "any"])
def test_killed_before_a_call_of_podman_it_is_made_anew(chosen: str, site: Site, root: Path, seed: int) -> None:
    before = left()
    numbers = FROZEN if chosen == "frozen" else CALLS
    steps = list(numbers) if ALL else random.Random(seed).sample(numbers, 2)
    for number in steps:
        killed(root, "copy", number)
        deadline = time.monotonic() + 20
        while status() != "running" and time.monotonic() < deadline:
            time.sleep(0.1)
        assert status() == "running", "nobody else is there to let it go on"
        copy = taken(site)
        assert copy.state == "verified"
        assert permissions.ledger(store.journal(site).records())["copy"].used == steps.index(number) + 1
        making.delete(site, copy.id)
        assert ours(before) == []


DATABASE = f"localhost/{copy_site.NAME}-database:1"


@pytest.fixture
def database() -> str:
    """An image with MariaDB, made of the base image; from this machine's apt sources, half a minute."""
    engine.podman("run", "--name", f"{copy_site.NAME}-build", engine.base_image(), "sh", "-ec", """
        apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends mariadb-server
        install -d -o mysql -g mysql /run/mysqld
        rm -rf /var/lib/apt/lists /var/cache/apt
    """)  # fmt: skip
    engine.podman("commit", "--quiet", f"{copy_site.NAME}-build", DATABASE)
    engine.podman("rm", f"{copy_site.NAME}-build")
    return DATABASE


def test_the_database_must_open(
    root: Path, database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a server that runs and writes; with settings it refuses; and with its log gone it is no copy."""
    copy_site.write_site(root, databases={"web1": ["/var/lib/mysql"]}, carried={"web1": ["/var/lib/mysql"]})
    site = copy_site.look_there(monkeypatch, root)
    engine.podman("rm", "--force", "--time", "0", INSTANCE)
    engine.podman("create", "--name", INSTANCE, database, "sh", "-c", "su mysql -s /bin/sh -c mariadbd; sleep infinity")
    engine.podman("start", INSTANCE)
    inside("""
        until mariadb -e 'SELECT 1' > /dev/null 2>&1; do sleep 0.2; done
        mariadb -e 'CREATE DATABASE shop; CREATE TABLE shop.orders (n INT) ENGINE=InnoDB'
    """)
    writes = "while :; do mariadb -e 'INSERT INTO shop.orders SELECT 1 + COUNT(*) FROM shop.orders'; done"
    engine.podman("exec", "--detach", INSTANCE, "sh", "-c", writes)
    time.sleep(1)
    copy = taken(site)
    assert _database(copy).startswith("opens, ")
    making.delete(site, copy.id)

    inside("printf '[mysqld]\nno_such_setting=1\n' > /etc/mysql/mariadb.conf.d/99-broken.cnf")
    copy = taken(site)
    assert _database(copy).startswith("opens, "), "a broken setting must not hide a database that is whole"
    making.delete(site, copy.id)

    engine.podman("stop", "--time", "20", INSTANCE)
    tree = Path(engine.podman("mount", INSTANCE))
    (tree / "var/lib/mysql/ibdata1").write_bytes(b"x" * (1 << 20))
    engine.podman("umount", INSTANCE)
    with pytest.raises(HikeshiError, match="not good, and was removed.*database /var/lib/mysql: does not open"):
        taken(site)
    assert not record.read_all(site)


def _database(copy: Copy) -> str:
    return next(check.words for check in copy.checks if check.what == "database /var/lib/mysql")
