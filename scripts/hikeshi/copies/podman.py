"""The driver of the practice site: instances are containers, podman is the cloud's control panel.

A copy is an image of the container's file system and a volume for each of its volumes, of one moment while it is
frozen. A working copy is a container of that image that is never started, with volumes of its own; the mended machine
is a container of the working copy's file system, created as the original was, so with its addresses, ports and volumes.
Within the disk another container runs, whose root it is; nothing of the image is its, and nothing of this machine.
"""

import importlib.util
import io
import json
import os
import secrets
import shlex
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from hikeshi.copies.driver import Bench, Found, Rehearsal, Space, Verified
from hikeshi.copies.opening import check_database
from hikeshi.copies.record import Check, Copy, Disk, Size, Taken
from hikeshi.errors import HikeshiError, MisconfiguredError, RefusedError
from hikeshi.site import PROJECT, PodmanCopies

FILES = PROJECT / "roles" / "instance_copy" / "files"
FREEZE_MOST_S = 120  # a shop that hangs for longer loses its customers; the copy is refused then
FREEZE_TRIES = 25
GUARD, GUARD_MOST_S = "hikeshi.copies.guard", 30
DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL")
LASTING = ("pause", "unpause", "stop", "start", "rename")
COMMAND_S, READ_S, BENCH_S = 600, 1800, 4 * 3600
ROOM_LEFT = 1 << 30  # stays free: the controller and the other instances live on the same disk
MARK, OF, SITE = "hikeshi.copy", "hikeshi.instance", "hikeshi.copies"
# Its own process table, network and file system, and no power over this machine: its root may do there what a root
# does to files, and is nobody here. Every user of a disk is itself, so that owners can be read and written.
ALL_IDS = "0:0:4294967294"
APART = (
    "--network", "none", "--ipc", "private", "--uidmap", ALL_IDS, "--gidmap", ALL_IDS, "--cap-drop", "ALL",
    "--security-opt", "no-new-privileges", "--pids-limit", "256", "--memory", "1g", "--no-hosts",
    "--log-driver", "none",
)  # fmt: skip
# What an original was created with that ties it to its network, its name and its disks: a rehearsal has its own.
TIED = frozenset(
    {"--name", "--network", "--net", "--ip", "--ip6", "--mac-address", "--network-alias", "--publish", "-p", "--volume",
     "-v", "--mount", "--label", "-l", "--restart", "--pod", "--volumes-from", "--dns", "--add-host"}
)  # fmt: skip
# What starts jobs by the clock: none of it starts in a rehearsal. systemd takes `timer.d` for every timer.
CLOCKED = (
    "system/timer", "user/timer", *(f"system/{name}.service" for name in ("cron", "crond", "cronie", "atd", "anacron")),
)  # fmt: skip
NEVER = "[Unit]\nConditionPathExists=/no/jobs/in/a/rehearsal\n"
SSH_PORT = 22
FILE_POWERS = "CHOWN,DAC_OVERRIDE,FOWNER,FSETID"
# Within the disk the copy's own programs run. Its /dev is of nodes of our own: those that a container with users of its
# own is given else are this machine's, and whoever is root there may change their modes.
NODES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9)}
PLAIN = ("/etc", "/proc", "/sys", "/dev", "/run", "/tmp")  # noqa: S108 (of a copy): where podman mounts something
# What of podman's own bounds for programs is left out there: with a name space of users of its own, or another's, a
# program has powers that were taken from it here.
CALLS = Path("/usr/share/containers/seccomp.json")
NO_CALLS = {"unshare", "setns", "clone3", "mount", "umount", "umount2", "pivot_root", "chroot", "keyctl", "add_key",
            "request_key", "ptrace", "fsopen", "fsmount", "fspick", "open_tree", "move_mount",
            "mount_setattr"}  # fmt: skip
NEW_SPACES = 0x7E020000  # of clone: CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
WITHIN_S, CALL_S, SAID_MOST = 3600, 300, 4 << 20
ROOM_LEAST, ROOM_LOOK_S = ROOM_LEFT // 2, 0.25
SAFE = "nosuid,nodev,noexec"
MEMORY = "/tmp"  # noqa: S108 (a container's own)


class Podman:
    """Copies of containers."""

    name = "podman"

    def __init__(self, data: PodmanCopies, site: str) -> None:
        """Nothing is asked yet; `site` marks what is made."""
        self.data, self.site = data, site

    # Names, all from the copy's id

    @staticmethod
    def image(copy: Copy, kind: str = "copy") -> str:
        """Return the name of the image of a copy, or of its `mended` disk."""
        return f"localhost/{copy.instance}-{kind}:{copy.stamp}"

    @staticmethod
    def container(copy: Copy, kind: str) -> str:
        """Return the name of a container: work, bench, read, open, mended, rehearsal; way: by which that is reached.

        Also of the network of these two, rehearsal; before: the original, put aside.
        """
        return f"{copy.instance}-{kind}-{copy.stamp}"

    @staticmethod
    def volume(copy: Copy, disk: Disk, kind: str) -> str:
        """Return the name of a volume of a copy, or of its working copy."""
        return f"{disk.name}-{kind}-{copy.stamp}"

    def marks(self, copy: Copy) -> list[str]:
        """Return the labels of all that a copy makes."""
        told = {MARK: copy.id, OF: copy.instance, SITE: self.site, "hikeshi.expires": copy.expires.isoformat()}
        return [word for key, value in told.items() for word in ("--label", f"{key}={value}")]

    # Asking podman

    def _words(self, *arguments: str) -> list[str]:
        if shutil.which("podman") is None:
            raise MisconfiguredError(
                "podman is not in PATH; copies of this site are made with it.", "scripts/bootstrap"
            )
        # Dies with us, for what it would go on with is what the next call removes; but for what changes a machine in
        # service: killed half way, podman would not know what has become of it.
        return [*(() if arguments[0] in LASTING else DIES_WITH_US), "podman", *arguments]

    def _environment(self) -> dict[str, str]:
        settings = {"CONTAINERS_CONF": self.data.settings} if self.data.settings else {}
        return {**os.environ, **settings}

    def _ask(self, *arguments: str, text: bytes | None = None, seconds: int = COMMAND_S) -> tuple[int, str, str]:
        """Run podman; return exit status, output and errors."""
        try:
            done = subprocess.run(
                self._words(*arguments), input=text, stdin=subprocess.DEVNULL if text is None else None,
                capture_output=True, env=self._environment(), timeout=seconds, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise HikeshiError(f"podman {arguments[0]} did not end within {seconds} s.", "podman ps --all") from error
        told, errors = (piece.decode(errors="backslashreplace") for piece in (done.stdout, done.stderr))
        return done.returncode, told, errors

    def _podman(self, *arguments: str, text: bytes | None = None, seconds: int = COMMAND_S) -> str:
        """Run podman; return what it says, or raise with its own words."""
        status, told, errors = self._ask(*arguments, text=text, seconds=seconds)
        if status:
            raise HikeshiError(f"podman {arguments[0]} failed: {(errors or told).strip()[-600:]}", "podman ps --all")
        return told.strip()

    def _inspect(self, kind: str, name: str) -> dict[str, Any] | None:
        """Return what podman knows of a container, an image or a volume; None when there is none."""
        status, told, errors = self._ask(kind, "inspect", name)
        if status:
            if "no such" in errors.lower() or "not known" in errors or "not found" in errors:
                return None
            raise HikeshiError(f"podman {kind} inspect failed: {errors.strip()[-600:]}", "podman ps --all")
        found: dict[str, Any] = json.loads(told)[0]
        return found

    def _machine(self, name: str) -> dict[str, Any]:
        found = self._inspect("container", name)
        if found is None:
            raise HikeshiError(
                f"podman knows no container '{name}'.", "podman ps --all; `copy.instances` in site.yml has the names"
            )
        return found

    def list(self) -> Sequence[Found]:
        """Return all that bears this site's mark."""
        # The mark is in images too, so that a container made of one bears it; one without an id is none of ours.
        asked = (
            ("image", ("image", "ls"), '{{index .Labels "%s"}} {{.Repository}}:{{.Tag}}'),
            ("volume", ("volume", "ls"), '{{index .Labels "%s"}} {{.Name}}'),
            ("container", ("ps", "--all"), '{{index .Labels "%s"}} {{.Names}}'),
        )
        # A machine bears no mark, and after a committed swap it runs from an image that does.
        form = '{{.Image}} {{index .Labels "%s"}}'
        machines = self._podman("ps", "--all", "--format", form % MARK).splitlines()
        serving = {image for image, _, mark in (line.partition(" ") for line in machines) if not mark}
        found = []
        for kind, words, form in asked:
            told = self._podman(*words, "--filter", f"label={SITE}={self.site}", "--format", form % MARK)
            for line in told.splitlines():
                ident, _, name = line.strip().partition(" ")
                if name and ident not in ("", "<no") and name not in serving:
                    found.append(Found(ident, kind, name))
        return found

    def there(self, copy: Copy) -> bool:
        """Say whether the image and the volumes are there."""
        disks = copy.taken.disks if copy.taken else []
        volumes = [("volume", self.volume(copy, disk, "copy")) for disk in disks]
        return all(self._inspect(kind, name) for kind, name in [("image", self.image(copy)), *volumes])

    def _places(self, names: Sequence[str]) -> Sequence[str]:
        """Return where volumes lie.

        They are always bound from there: podman takes the root of a volume that it mounts by name for the first time
        for its own, and gives it another owner and another mode.
        """
        return self._podman("volume", "inspect", "--format", "{{.Mountpoint}}", *names).splitlines() if names else ()

    # Making

    def space(self, instance: str) -> Space:
        """Estimate by what the container wrote and its volumes hold; the working copy has the volumes once more."""
        seen = self._inspect_size(instance)
        disks, _ = _disks(seen)
        with ExitStack() if _runs(seen) else self._mounted(disks):
            volumes = sum(size.bytes for size in _held(seen).values())
        root = self._podman("info", "--format", "{{.Store.GraphRoot}}")
        free = max(0, shutil.disk_usage(root).free - ROOM_LEFT)
        return Space(2 * (int(seen.get("SizeRw") or 0) + volumes), free, root)

    def _inspect_size(self, instance: str) -> dict[str, Any]:
        self._machine(instance)
        found: dict[str, Any] = json.loads(self._podman("container", "inspect", "--size", instance))[0]
        return found

    def copy(self, copy: Copy) -> Taken:
        """Make the image and the volumes while the container is frozen."""
        seen = self._machine(copy.instance)
        disks, left_out = _disks(seen)
        for disk in disks:
            self._podman("volume", "create", *self.marks(copy), self.volume(copy, disk, "copy"))
        places = self._places([self.volume(copy, disk, "copy") for disk in disks])
        sources = {mount["Name"]: mount["Source"] for mount in seen["Mounts"] if mount.get("Type") == "volume"}
        changes = [word for mark in self.marks(copy)[1::2] for word in ("--change", f"LABEL {mark}")]
        with self._frozen(copy.instance) if _runs(seen) else self._mounted(disks):
            at = datetime.now(UTC)
            self._podman(
                "commit", "--pause=false", "--quiet", "--format", "oci", *changes, copy.instance, self.image(copy)
            )  # fmt: skip
            held = _held(seen)
            for disk, place in zip(disks, places, strict=True):
                self._copy_volume(disk.name, self.volume(copy, disk, "copy"))
                _same_root(Path(sources[disk.name]), Path(place))
        known = [disk.model_copy(update={"held": held[disk.name]}) for disk in disks]
        made = self._inspect("image", self.image(copy)) or {}
        return Taken(disk=str(made.get("Id", "")) or "none", at=at, disks=known, left_out=left_out)

    @contextmanager
    def _frozen(self, instance: str) -> Iterator[None]:
        """Freeze a container, so that its disks are of one moment; whatever happens to us, it goes on."""
        command = ["podman", "unpause", instance]
        _wait_for_guards(command)
        words = [sys.executable, "-m", GUARD, str(FREEZE_MOST_S), *command]
        guard = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=self._environment(),
            start_new_session=True,
        )  # fmt: skip
        with guard:
            assert guard.stdin and guard.stdout  # noqa: S101 (they are pipes)
            if guard.stdout.readline().strip() != b"ready":
                raise HikeshiError(f"nothing could be armed that lets {instance} go on; it was not frozen.")
            try:
                self._freeze(instance)
                yield
                if guard.poll() is not None or not self._is_frozen(instance):
                    raise HikeshiError(
                        f"{instance} went on before its copy was whole, after {FREEZE_MOST_S} s at the most: what was "
                        "copied is not of one moment.",
                        "hikeshi copy again at a quieter time",
                    )
            finally:
                with suppress(OSError):  # it has ended already
                    guard.stdin.write(b"\n")  # lets the container go on, at once
                    guard.stdin.close()
                guard.wait()
                if self._is_frozen(instance):  # it was killed itself
                    self._podman("unpause", instance)

    def _freeze(self, instance: str) -> None:
        """Freeze a container; on control groups v1 that fails now and then while it starts processes all the time."""
        for _ in range(FREEZE_TRIES):
            status, _, errors = self._ask("pause", instance)
            if not status:
                return
            time.sleep(0.2)
        raise HikeshiError(
            f"{instance} cannot be frozen, so that no copy of it would be of one moment: {errors.strip()[-300:]}",
            "the same command at a quieter time; or stop the instance, if the customer allows it",
        )

    @contextmanager
    def _mounted(self, disks: Sequence[Disk]) -> Iterator[None]:
        """Have the volumes of a stopped container mounted: one that is a file system of its own is not, else."""
        with ExitStack() as mounted:
            for disk in disks:
                self._podman("volume", "mount", disk.name)
                mounted.callback(self._ask, "volume", "unmount", disk.name)
            yield

    def _is_frozen(self, instance: str) -> bool:
        return bool(self._machine(instance)["State"]["Status"] == "paused")

    def _copy_volume(self, source: str, target: str) -> None:
        export, load = self._words("volume", "export", source), self._words("volume", "import", target, "-")
        with subprocess.Popen(
            export, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self._environment()
        ) as sender:
            done = subprocess.run(load, stdin=sender.stdout, capture_output=True, env=self._environment(), check=False)
            assert sender.stdout and sender.stderr  # noqa: S101 (they are pipes)
            sender.stdout.close()
            errors = sender.stderr.read()
        if done.returncode or sender.returncode:
            words = (errors + done.stderr).decode(errors="backslashreplace").strip()
            raise HikeshiError(f"volume {source} could not be copied: {words[-600:]}", "df -h; podman volume ls")

    # Verifying

    def _read(self, name: str, verb: str, mounts: Mapping[str, str]) -> dict[str, Any]:
        """Run the reading program on a bench with these mounts (place → podman's words); return what it tells."""
        words = [
            "run",
            "--rm",
            "--replace",
            "--interactive",
            "--name",
            name,
            *APART,
            "--read-only",
            "--cap-add",
            "DAC_OVERRIDE",
        ]
        for mount in mounts.values():
            words += ["--mount", mount] if mount.startswith("type=") else ["--volume", mount]
        program = (FILES / "read_copy.py").read_bytes()
        told = self._podman(*words, self._bench_image(), "python3", "-", verb, *mounts, text=program, seconds=READ_S)
        try:
            found: dict[str, Any] = json.loads(told)
        except ValueError as error:
            raise HikeshiError(f"the bench did not tell what it read: {told[-300:]}") from error
        return found

    def verify(self, copy: Copy, databases: Sequence[str]) -> Verified:
        """Read all of the image and the volumes, compare them with what was there, start the database's server."""
        taken = copy.taken
        image = self._inspect("image", self.image(copy))
        if taken is None or image is None:
            return Verified([Check(what="id", ok=False, words=f"podman has no image {self.image(copy)}")])
        checks = [_same_id(image, taken), _of_its_time(image, copy)]
        places = {f"/data/{number}": disk for number, disk in enumerate(taken.disks)}
        if lost := [disk.name for disk in taken.disks if not self._inspect("volume", self.volume(copy, disk, "copy"))]:
            return Verified([*checks, Check(what="size", ok=False, words=f"the copy of {lost[0]} is missing")])
        mounts = {"/disk": f"type=image,source={self.image(copy)},destination=/disk"}
        lie = self._places([self.volume(copy, disk, "copy") for disk in taken.disks])
        mounts |= {place: f"{source}:{place}:ro" for place, source in zip(places, lie, strict=True)}
        told = self._read(self.container(copy, "read"), "read", mounts)
        sizes = {place: Size(**size) for place, size in told["disks"].items()}
        checks.append(_as_large([(disk, sizes[place]) for place, disk in places.items()]))
        checks.append(_readable(told, sizes))
        checks += [check_database(self._open_database, copy, path) for path in databases]
        whole = Size(files=sum(size.files for size in sizes.values()), bytes=sum(size.bytes for size in sizes.values()))
        return Verified(checks, str(told["digest"]), whole)

    def _open_database(self, copy: Copy, script: str, seconds: int) -> tuple[int, str]:
        """Run a script with the copy's own programs, on layers that are thrown away."""
        name = self.container(copy, "open")
        words = ["run", "--rm", "--replace", "--name", name, "--timeout", str(seconds), *APART, "--user", "mysql"]
        words += self._disposable(copy, "copy")
        words += ["--tmpfs", f"{MEMORY}:mode=1777", "--tmpfs", "/run/mysqld:mode=1777", "--entrypoint", "/bin/sh"]
        try:
            with _few_calls() as calls, self._room_watched(name):
                return self._hear(*words, *calls, self.image(copy), "-c", script, seconds=seconds)
        finally:
            self._ask("rm", "--force", "--time", "0", name)

    def _disposable(self, copy: Copy, kind: str) -> Sequence[str]:
        """Return the words that mount volumes where they belong; what is written there is thrown away."""
        disks = copy.taken.disks if copy.taken else []
        lie = self._places([self.volume(copy, disk, kind) for disk in disks])
        pairs = zip(disks, lie, strict=True)
        return [word for disk, place in pairs for word in ("--volume", f"{place}:{disk.path}:O")]

    # Working

    def work(self, copy: Copy) -> None:
        """Make volumes of the copy's volumes, and a container of its image."""
        disks = copy.taken.disks if copy.taken else []
        volumes = []
        for disk in disks:
            self._podman("volume", "create", *self.marks(copy), self.volume(copy, disk, "work"))
            self._copy_volume(self.volume(copy, disk, "copy"), self.volume(copy, disk, "work"))
            whole, made = self._places([self.volume(copy, disk, kind) for kind in ("copy", "work")])
            _same_root(Path(whole), Path(made))
            volumes += ["--volume", f"{self.volume(copy, disk, 'work')}:{disk.path}"]
        self._podman("create", "--name", self.container(copy, "work"), "--network", "none", *self.marks(copy), *volumes,
                     self.image(copy), "/sbin/init")  # fmt: skip

    def open(self, copy: Copy) -> Bench:
        """Start a bench from a clean image, and bind the working copy's file system and volumes into it."""
        self.close(copy)
        work, bench = self.container(copy, "work"), self.container(copy, "bench")
        tree = Path(self._podman("mount", work))
        notes, words = [], ["--volume", f"{tree}:/disk:{SAFE}"]
        disks = copy.taken.disks if copy.taken else []
        lie = self._places([self.volume(copy, disk, "work") for disk in disks])
        for number, (disk, source) in enumerate(zip(disks, lie, strict=True)):
            place = f"/disk{disk.path}"
            if not _plain_folder(tree, disk.path):  # a link there would have it mounted over the bench's own files
                place = f"/data/{number}"
                notes.append(f"the data disk of {disk.path} lies at {place}: the copy has no such directory, or a link")
            words += ["--volume", f"{source}:{place}:{SAFE}"]
        self._podman("run", "--detach", "--rm", "--name", bench, *APART, "--cap-add", FILE_POWERS, "--read-only",
                     *self.marks(copy), *words, self._bench_image(), "sleep", str(BENCH_S))  # fmt: skip
        return Bench(self._reached_by(bench), "/disk", notes)

    def _reached_by(self, container: str, **more: Any) -> dict[str, Any]:
        """Return the variables with which Ansible runs its tasks in a container."""
        settings = ("env", f"CONTAINERS_CONF={self.data.settings}") if self.data.settings else ()
        return {
            "ansible_connection": "bench",
            "ansible_bench_command": [*settings, *self._words("exec", "--interactive", "--user", "0:0", container)],
            "ansible_host": container,
            "ansible_user": "root",
            "ansible_become": False,
            "ansible_pipelining": True,
            "ansible_remote_tmp": f"{MEMORY}/.ansible",
            "ansible_python_interpreter": "/usr/bin/python3",
            **more,
        }

    @contextmanager
    def within(self, copy: Copy) -> Iterator[Bench]:
        """Run a container whose root is the disk itself, on which whoever holds it has a bench as well."""
        name = self.container(copy, "within")
        self._gone("container", name)
        with _few_calls() as calls:
            self._podman("run", "--detach", "--rm", "--name", name, "--timeout", str(WITHIN_S), *calls,
                         *self._as_root(copy), "/bin/sleep", str(WITHIN_S))  # fmt: skip
        with self._room_watched(name):
            try:
                yield Bench(self._reached_by(name, ansible_bench_seconds=CALL_S, ansible_bench_bytes=SAID_MOST), "/")
            finally:
                self._gone("container", name)

    def test(self, copy: Copy, script: str, seconds: int) -> tuple[int, str]:
        """Run a script with the copy's own programs, on a layer over the disk that is thrown away."""
        name = self.container(copy, "test")
        self._gone("container", name)
        words = (*self._as_root(copy, ":O"), "/bin/sh", "-c", script)
        try:
            with _few_calls() as calls, self._room_watched(name):
                told = ("run", "--rm", "--name", name, "--timeout", str(seconds), *calls)
                return self._hear(*told, *words, seconds=seconds)
        finally:
            self._gone("container", name)

    def _hear(self, *arguments: str, seconds: int) -> tuple[int, str]:
        """Run podman for a copy's own programs, which may say anything; return exit status and what was said."""
        with subprocess.Popen(
            self._words(*arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=self._environment(),
        ) as process:  # fmt: skip
            late = threading.Timer(seconds, process.kill)
            late.start()
            try:
                assert process.stdout  # noqa: S101 (it is a pipe)
                told = process.stdout.read(SAID_MOST)
                if len(told) == SAID_MOST:
                    process.kill()
                process.wait()
            except BaseException:
                process.kill()
                raise
            finally:
                late.cancel()
        return process.returncode, told.decode(errors="backslashreplace")

    def _as_root(self, copy: Copy, layer: str = "") -> Sequence[str]:
        """Return podman's words for a container whose root is the working copy's disk, or a layer over it."""
        tree = Path(self._podman("mount", self.container(copy, "work")))
        if odd := [place for place in PLAIN if not _plain_folder(tree, place)]:
            raise RefusedError(
                f"{odd[0]} on the disk of {copy.id} is no directory, or a link: nothing of the disk is run.",
                "put that right on the bench; or mend this host from what its baseline and its code say",
            )
        words = [*APART, "--cap-add", FILE_POWERS, "--passwd=false", "--systemd", "false", *self.marks(copy),
                 "--tmpfs", f"{MEMORY}:mode=1777", "--tmpfs", "/run", "--env", "SYSTEMD_OFFLINE=1",
                 # nginx binds where it is told to listen, to test that; nobody hears it there.
                 "--sysctl", "net.ipv4.ip_unprivileged_port_start=0"]  # fmt: skip
        # By its place: one by name is mounted beside podman's own /dev, in whichever order.
        words += ["--volume", f"{self._devices(copy)}:/dev:ro,dev,nosuid,noexec"]
        how = "O" if layer else "nosuid,nodev"  # nginx opens its logs to test what it is told
        disks = copy.taken.disks if copy.taken else []
        lie = self._places([self.volume(copy, disk, "work") for disk in disks])
        for disk, source in zip(disks, lie, strict=True):
            if _plain_folder(tree, disk.path):
                words += ["--volume", f"{source}:{disk.path}:{how}"]
        return [*words, "--rootfs", f"{tree}{layer}"]

    def _devices(self, copy: Copy) -> Path:
        """Return where a volume lies with what a container must find in /dev."""
        name = self.container(copy, "dev")
        if self._inspect("volume", name) is None:
            self._podman("volume", "create", *self.marks(copy), name)
        place = Path(self._podman("volume", "inspect", "--format", "{{.Mountpoint}}", name))
        for folder in ("pts", "shm", "mqueue"):
            (place / folder).mkdir(exist_ok=True)
        for node, (major, minor) in NODES.items():
            with suppress(FileExistsError):
                os.mknod(place / node, stat.S_IFCHR | 0o666, os.makedev(major, minor))
            (place / node).chmod(0o666)
        with suppress(FileExistsError):
            (place / "fd").symlink_to("/proc/self/fd")
        return place

    @contextmanager
    def _room_watched(self, container: str) -> Iterator[None]:
        """End a container that would fill the disk of this machine."""
        root, done = self._podman("info", "--format", "{{.Store.GraphRoot}}"), threading.Event()

        def watch() -> None:
            while not done.wait(ROOM_LOOK_S):
                if shutil.disk_usage(root).free < ROOM_LEAST:
                    self._ask("kill", container)

        watching = threading.Thread(target=watch, daemon=True)
        watching.start()
        try:
            yield
        finally:
            done.set()
            watching.join()

    def close(self, copy: Copy) -> None:
        """Remove the bench and what ran within the disk, and let go of the working copy's file system."""
        for kind in ("within", "test", "bench"):
            self._gone("container", self.container(copy, kind))
        self._gone("volume", self.container(copy, "dev"))
        if self._inspect("container", self.container(copy, "work")):
            self._ask("umount", "--force", self.container(copy, "work"))

    def _bench_image(self) -> str:
        if not self.data.bench:
            raise MisconfiguredError(
                "site.yml does not name the image of the bench on which copies are read (copy.bench).",
                "hikeshi drill down, then hikeshi drill up; or name an image there that has python3",
            )
        return self.data.bench

    # Swapping

    def stop(self, copy: Copy, machine: str) -> None:
        """Stop a container."""
        self._podman("stop", machine)

    def start(self, copy: Copy, machine: str) -> None:
        """Start a container."""
        self._podman("start", machine)

    def seal(self, copy: Copy) -> tuple[str, str]:
        """Make an image of the working copy, and a container of it as the original was made."""
        original = self._machine(copy.instance)
        self.end_rehearsal(copy)  # it is of the image that is made anew
        self._gone("container", self.container(copy, "mended"))
        self._no_images(copy, but=self._inspect("image", self.image(copy)))
        self._podman("commit", "--quiet", "--format", "oci", self.container(copy, "work"), self.image(copy, "mended"))
        words = _as_created(original, self.container(copy, "mended"), self.image(copy, "mended"))
        return str(original["Id"]), self._podman(*words)

    def rehearse(self, copy: Copy) -> Rehearsal:
        """Start a container of the sealed image in a network of its own, and another one by which ssh gets there."""
        self.end_rehearsal(copy)
        name, way = self.container(copy, "rehearsal"), self.container(copy, "way")
        # The original may be put aside by now, or be another container: how it was created is asked of its name.
        options, after = _creation(self._machine(copy.instance))
        self._podman("network", "create", "--internal", "--disable-dns", *self.marks(copy), name)
        self._podman("create", "--name", name, "--network", name, *_untied(options), *self.marks(copy),
                     *self._disposable(copy, "work"), self.image(copy, "mended"), *after)  # fmt: skip
        machine_id = secrets.token_hex(16)
        files = {"etc/machine-id": f"{machine_id}\n"}
        files |= {f"etc/systemd/{unit}.d/hikeshi-rehearsal.conf": NEVER for unit in CLOCKED}
        self._podman("cp", "--archive=false", "-", f"{name}:/", text=_tar(files))
        self._podman("start", name)
        self._podman("run", "--detach", "--rm", "--name", way, *_networked(name), "--read-only", *self.marks(copy),
                     self._bench_image(), "sleep", str(COMMAND_S))  # fmt: skip
        address = str(self._machine(name)["NetworkSettings"]["Networks"][name]["IPAddress"])
        return Rehearsal(self._proxy(way, address), address, machine_id)

    def _proxy(self, way: str, address: str) -> str:
        """Return ssh's ProxyCommand: only from within its network a rehearsal is to be reached."""
        settings = [f"CONTAINERS_CONF={self.data.settings}"] if self.data.settings else []
        program = (FILES / "relay.py").read_text(encoding="utf-8")
        words = ["env", *settings, "podman", "exec", "-i", way, "python3", "-c", program, address, str(SSH_PORT)]
        return shlex.join(words).replace("%", "%%")

    def end_rehearsal(self, copy: Copy) -> None:
        """Remove both containers and their network."""
        for kind in ("way", "rehearsal"):
            self._gone("container", self.container(copy, kind))
        self._gone("network", self.container(copy, "rehearsal"))

    def carry(self, copy: Copy, path: str, *, back: bool) -> None:
        """Copy data between the two containers' file systems, on a bench."""
        swap = copy.swap
        if swap is None:
            raise RefusedError(f"copy {copy.id} is in no swap: nothing is carried.")
        pair = (swap.mended, swap.original) if back else (swap.original, swap.mended)
        with ExitStack() as mounted:
            trees = []
            for machine in pair:
                trees.append(self._podman("mount", machine))
                mounted.callback(self._ask, "umount", machine)
            program = (FILES / "carry_data.py").read_bytes()
            self._podman(
                "run", "--rm", "--replace", "--interactive", "--name", self.container(copy, "bench"), *APART,
                "--cap-add", FILE_POWERS, "--read-only", "--volume", f"{trees[0]}:/from:ro,{SAFE}",
                "--volume", f"{trees[1]}:/to:{SAFE}", self._bench_image(), "python3", "-", "/from", "/to", path,
                f"before-{swap.mark.removeprefix(f'{copy.host}-')}", text=program, seconds=READ_S,
            )  # fmt: skip

    def swap_in(self, copy: Copy) -> None:
        """Give the original's name to the mended container."""
        self._trade(copy, copy.instance, out=copy.swap.original if copy.swap else "", aside="before",
                    into=copy.swap.mended if copy.swap else "")  # fmt: skip

    def swap_back(self, copy: Copy) -> None:
        """Give the name back to the original."""
        self._trade(copy, copy.instance, out=copy.swap.mended if copy.swap else "", aside="mended",
                    into=copy.swap.original if copy.swap else "")  # fmt: skip

    def _trade(self, copy: Copy, name: str, *, out: str, aside: str, into: str) -> None:
        """Take a name from one container and give it to another; done already is as well."""
        if self._machine(out)["Name"] == name:
            self._podman("rename", out, self.container(copy, aside))
        if self._machine(into)["Name"] != name:
            self._podman("rename", into, name)

    # Removing

    def _gone(self, kind: str, name: str) -> None:
        """Have no container, image or volume of this name."""
        if self._inspect(kind, name) is None:
            return
        words = {"container": ["--force", "--time", "0"], "volume": ["--force"], "network": ["--force"]}.get(kind, [])
        self._podman(kind, "rm", *words, name)

    def _no_images(self, copy: Copy, but: Mapping[str, Any] | None) -> None:
        """Have no image with this copy's mark, but for one: also one without a name, whose commit was killed.

        That from which the instance itself runs, since a swap was committed, stays.
        """
        serving = self._inspect("container", copy.instance) or {"Image": ""}
        told = self._podman("image", "ls", "--quiet", "--no-trunc", "--filter", f"label={MARK}={copy.id}")
        for ident in dict.fromkeys(told.split()):
            if ident.removeprefix("sha256:") not in (serving["Image"], but["Id"] if but else ""):
                self._podman("image", "rm", ident)

    def _no_spent_images(self, copy: Copy) -> None:
        """Remove the image of an earlier swap, from which the original ran: no container does any more."""
        used = self._podman("ps", "--all", "--no-trunc", "--format", "{{.ImageID}}").split()
        words = (
            "--no-trunc",
            "--filter",
            f"label={OF}={copy.instance}",
            "--format",
            "{{.ID}} {{.Repository}}:{{.Tag}}",
        )
        for ident, name in (line.split() for line in self._podman("image", "ls", *words).splitlines()):
            if "-mended:" in name and ident.removeprefix("sha256:") not in used:
                self._podman("image", "rm", name)

    def remove(self, copy: Copy, *, work_only: bool = False) -> None:
        """Remove containers, then images and volumes."""
        with suppress(HikeshiError):  # an instance that is gone, or runs
            if not work_only and copy.state == "making" and self._is_frozen(copy.instance):
                self._podman("unpause", copy.instance)
        disks = copy.taken.disks if copy.taken else []
        if copy.taken is None:  # killed before it was told which they are
            with suppress(HikeshiError):
                disks = _disks(self._machine(copy.instance))[0]
        self.end_rehearsal(copy)
        if copy.swap and copy.swap.state == "committed":
            if self._machine(copy.instance)["Id"] != copy.swap.mended:
                raise HikeshiError(f"{copy.instance} is not the machine of {copy.id}: the original is not removed.")
            self._gone("container", copy.swap.original)
            self._no_spent_images(copy)
        for kind in ("within", "test", "bench", "read", "open", "mended", "work"):
            self._gone("container", self.container(copy, kind))
        self._gone("volume", self.container(copy, "dev"))
        self._no_images(copy, but=self._inspect("image", self.image(copy)) if work_only else None)
        for disk in disks:
            for kind in ("work",) if work_only else ("work", "copy"):
                self._gone("volume", self.volume(copy, disk, kind))


@contextmanager
def _few_calls() -> Iterator[Sequence[str]]:
    """Give podman's words for what programs of a copy may ask of the kernel: what podman allows, but for new powers."""
    try:
        profile = json.loads(CALLS.read_text(encoding="utf-8"))
        if profile["defaultAction"] != "SCMP_ACT_ERRNO":
            raise ValueError(f"what it does not name is {profile['defaultAction']}")
        for rule in profile["syscalls"]:
            rule["names"] = [name for name in rule["names"] if name not in NO_CALLS | {"clone"}]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MisconfiguredError(
            f"{CALLS} cannot be used: {error}. Without it no program of a copy is run.", "scripts/bootstrap"
        ) from error
    profile["syscalls"] = [rule for rule in profile["syscalls"] if rule["names"]]
    no_space = {"index": 0, "value": NEW_SPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
    profile["syscalls"].append({"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [no_space]})
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(profile, file)
        file.flush()
        yield "--security-opt", f"seccomp={file.name}"


def _disks(seen: Mapping[str, Any]) -> tuple[list[Disk], list[str]]:
    """Return a container's volumes, and what else is mounted there and is in no copy."""
    disks, left_out = [], []
    for mount in seen.get("Mounts") or []:
        if mount.get("Type") == "volume":
            disks.append(Disk(name=mount["Name"], path=mount["Destination"]))
        else:
            left_out.append(f"{mount.get('Destination')} ({mount.get('Type')} of {mount.get('Source')})")
    return sorted(disks, key=lambda disk: disk.path), left_out


def _runs(seen: Mapping[str, Any]) -> bool:
    return bool(seen["State"]["Status"] == "running")


def _held(seen: Mapping[str, Any]) -> dict[str, Size]:
    """Return what each volume of a container holds now.

    Counted here and not on a bench, which would take a second of the time for which the shop is frozen: names and sizes
    are asked for, no link is followed, nothing is opened but directories.
    """
    reader = _reading_program().Reader(whole=False)
    found = {}
    for mount in seen.get("Mounts") or []:
        if mount.get("Type") == "volume":
            reader.disk(mount["Source"])
            found[mount["Name"]] = Size(**reader.disks[mount["Source"]])
    return found


def _reading_program() -> Any:
    """Return the program that reads disks as a module; benches are given its text."""
    spec = importlib.util.spec_from_file_location("read_copy", FILES / "read_copy.py")
    assert spec and spec.loader  # noqa: S101 (the file is there)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _wait_for_guards(command: Sequence[str]) -> None:
    """Wait until no guard of a call that was killed would let go on what we are about to freeze."""
    deadline = time.monotonic() + GUARD_MOST_S
    while time.monotonic() < deadline:
        words = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
        if not any(GUARD in line and line[-len(command) :] == list(command) for line in words):
            return
        time.sleep(0.2)


def _plain_folder(tree: Path, path: str) -> bool:
    """Say whether a path within a tree is a directory, with no link on the way."""
    place = tree
    for part in path.strip("/").split("/"):
        place /= part
        if place.is_symlink() or not place.is_dir():
            return False
    return True


def _creation(original: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the options with which a container was created, and what stood behind its image."""
    words = [str(word) for word in original["Config"].get("CreateCommand") or []]
    old = str(original.get("ImageName", ""))
    if len(words) < 3 or words[1] != "create" or old not in words:
        raise HikeshiError(
            f"podman does not tell how {original.get('Name')} was created: {' '.join(words)[:200]!r}; expected is "
            "podman create … IMAGE …",
            "only an instance made by `podman create` can be swapped",
        )
    return words[2 : words.index(old)], words[words.index(old) + 1 :]


def _without(options: Sequence[str], unwanted: Container[str]) -> list[str]:
    """Return options without those named, each of which takes a value."""
    kept: list[str] = []
    rest = iter(options)
    for word in rest:
        if word in unwanted:
            next(rest, None)
        elif word.partition("=")[0] not in unwanted:
            kept.append(word)
    return kept


def _as_created(original: Mapping[str, Any], name: str, image: str) -> list[str]:
    """Return the words that create a container as the original was created, but for its name and its image."""
    options, after = _creation(original)
    # The image bears the mark of its copy; a machine in service is nobody's to remove.
    unmarked = [word for key in (MARK, OF, SITE) for word in ("--label", f"{key}=")]
    return ["create", "--name", name, *_without(options, {"--name"}), *unmarked, image, *after]


def _untied(options: Sequence[str]) -> list[str]:
    """Return the options with which an original was created, but for those that tie it to its network and disks."""
    kept = _without(options, TIED)
    # `-p80:80` and its like are one word.
    return [word for word in kept if word[:2] not in ("-p", "-v", "-l", "-P") and word != "--publish-all"]


def _networked(name: str) -> list[str]:
    """Return the words of a bench that is in a network."""
    words = list(APART)
    words[words.index("none")] = name
    return words


def _tar(files: Mapping[str, str]) -> bytes:
    """Return a tar of root's files that all may read."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(text.encode()), 0o644, int(time.time())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return made.getvalue()


def _same_root(source: Path, target: Path) -> None:
    """Give the root of a volume the owner and mode of another's: an export has what is in it, and not itself."""
    found = source.stat()
    os.chown(target, found.st_uid, found.st_gid)
    target.chmod(stat.S_IMODE(found.st_mode))


def _same_id(image: Mapping[str, Any], taken: Taken) -> Check:
    same = image.get("Id") == taken.disk
    return Check(
        what="id", ok=same, words=f"image {taken.disk[:12]}" + (f", but podman has {image.get('Id')}" * (not same))
    )


def _of_its_time(image: Mapping[str, Any], copy: Copy) -> Check:
    """Say whether the image was made by this copy, and not by one before it."""
    try:
        made = datetime.fromisoformat(str(image.get("Created"))[:19]).replace(tzinfo=UTC)
    except ValueError:
        return Check(what="time", ok=False, words=f"podman says it is of {image.get('Created')!r}")
    late = (made - copy.begun).total_seconds()
    return Check(what="time", ok=-2 <= late <= COMMAND_S, words=f"made {max(late, 0):.0f} s after it was begun")


def _as_large(found: Sequence[tuple[Disk, Size]]) -> Check:
    """Compare the data disks with what was counted while the instance was frozen."""
    for disk, size in found:
        if disk.held != size:
            held = disk.held or Size(files=0, bytes=0)
            words = f"{disk.path}: {size.files} files, {size.bytes} bytes; there were {held.files}, {held.bytes}"
            return Check(what="size", ok=False, words=words)
    return Check(what="size", ok=True, words=f"{len(found)} data disks as large as they were")


def _readable(told: Mapping[str, Any], sizes: Mapping[str, Size]) -> Check:
    for item in told["unreadable"]:
        return Check(what="readable", ok=False, words=f"{item['path']}: {item['why']}")
    system = sizes["/disk"]
    return Check(what="readable", ok=system.files > 0, words=f"system disk of {system.files} files read to the end")
