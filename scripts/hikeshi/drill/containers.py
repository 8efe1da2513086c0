"""The practice site's cloud: instances, network, disks, images. Only the drill's control panel calls this.

An instance is a systemd container. Its identity (host key, machine id, the operator's public key) is given to it when
it is created, as a cloud's first-boot data would be; afterwards hosts are reached by ssh alone.
"""

import hashlib
import json
import re
import secrets
import shutil
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from hikeshi.drill import engine
from hikeshi.errors import HikeshiError, MisconfiguredError, RefusedError
from hikeshi.files import remove_tree, write_private, write_private_yaml
from hikeshi.probes import free_port
from hikeshi.site import INVENTORIES, PRACTICE_SITE, PROJECT, practice_folder, practice_prefix, read_yaml

PRACTICE = INVENTORIES / PRACTICE_SITE
SSH_WAIT_S = 60


class SmallDisk(BaseModel):
    """A file system of an instance's own, small enough to be filled."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    path: str
    mib: int


class Instance(BaseModel):
    """One host of `containers.yml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    address: int
    capabilities: list[str] = []
    volumes: dict[str, str] = {}
    small_disks: dict[str, SmallDisk] = {}
    publish: dict[str, int]

    @property
    def disks(self) -> dict[str, str]:
        """All that outlives a reboot and is no part of the image: name → where it is mounted."""
        return {**self.volumes, **{name: disk.path for name, disk in self.small_disks.items()}}


class Cloud(BaseModel):
    """`containers.yml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    instances: dict[str, Instance]
    disk_gib: dict[str, int]


@dataclass
class State:
    """What stands: kept in `.drill/<prefix>/drill/state.json`, the drill's own and no business of recovery's."""

    prefix: str
    release: str
    digest: str
    ipv4: str = ""  # the network's first three octets
    ipv6: str = ""  # the network's first four groups
    mac: str = ""  # middle of the hosts' hardware addresses
    ports: dict[str, dict[str, int]] = field(default_factory=dict)
    no_small_disks: str = ""  # why this machine gives none; what stands in their place must not be filled
    complete: bool = False

    def save(self) -> None:
        """Write the state."""
        write_private(state_file(), json.dumps(self.__dict__, indent=2))


def state_file() -> Path:
    """Return where the state is kept."""
    return practice_folder() / "drill" / "state.json"


def load_state() -> State | None:
    """Return what stands according to the last `up`, or None."""
    try:
        return State(**json.loads(state_file().read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def cloud() -> Cloud:
    """Load `containers.yml`."""
    try:
        return Cloud.model_validate(read_yaml(PRACTICE / "containers.yml"))
    except ValidationError as error:
        raise MisconfiguredError(f"inventories/drill/containers.yml is not valid: {error}") from error


def container(host: str, prefix: str | None = None) -> str:
    """Return the container's name of a host."""
    return f"{prefix or practice_prefix()}-{host}"


def volume(host: str, name: str, prefix: str | None = None) -> str:
    """Return the volume's name of a host's disk."""
    return f"{container(host, prefix)}-{name}"


def build_digest(release: str) -> str:
    """Return the digest of all that built hosts are made from: roles, inventory, playbooks, lock, base image."""
    total = hashlib.sha256(engine.base_image(release).encode())
    kept_out = {"scenarios", "faults.yml", "probes.yml", "pictures.json", "site.yml"}
    files = [PROJECT / "requirements.lock"]
    for folder in ("roles", "playbooks", "inventories/drill"):
        files += sorted(path for path in (PROJECT / folder).rglob("*") if path.is_file())
    for path in files:
        parts = path.relative_to(PROJECT).parts
        if "__pycache__" in parts or path.suffix in (".pyc", ".md") or kept_out.intersection(parts[2:3]):
            continue
        if parts[:2] in (("roles", "fault_injection"), ("roles", "evidence"), ("roles", "instance_copy")):
            continue  # never part of a built host
        total.update("/".join(parts).encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()[:12]


def image(host: str, release: str, digest: str) -> str:
    """Return the name of a built host's kept image."""
    return f"localhost/hikeshi-built-{host}:{release}-{digest}"


def images_kept(release: str, digest: str) -> bool:
    """Say whether every host of this build is kept as an image."""
    return all(engine.image_exists(image(host, release, digest)) for host in cloud().instances)


def running(prefix: str | None = None) -> set[str]:
    """Return the hosts whose containers run."""
    names = engine.podman("ps", "--format", "{{.Names}}").splitlines()
    return {host for host in cloud().instances if container(host, prefix) in names}


def check_disk(kind: str) -> None:
    """Refuse when the disk that holds containers has too little room for `up` (`kind`: build or cached)."""
    needed = cloud().disk_gib[kind]
    root = Path(engine.podman("info", "--format", "{{.Store.GraphRoot}}"))
    for place in (root, PROJECT):
        free = shutil.disk_usage(place).free / (1 << 30)
        if free < needed:
            raise MisconfiguredError(
                f"{place} has {free:.1f} GiB free; `drill up` needs {needed} GiB there.",
                "hikeshi drill down --images, or free space by hand, then hikeshi drill up",
            )


def pick_network(prefix: str) -> tuple[str, str]:
    """Create the practice network on subnets that are free here; return (first three octets, first four groups)."""
    taken = subprocess.run(["ip", "-4", "route"], capture_output=True, text=True, check=False).stdout
    for _ in range(20):
        ipv4 = f"10.{200 + secrets.randbelow(50)}.{secrets.randbelow(250)}"
        ipv6 = f"fd{secrets.token_hex(1)}:{secrets.token_hex(2)}:{secrets.token_hex(2)}:1"
        if f"{ipv4}." in taken:
            continue
        try:
            engine.podman("network", "create", "--ipv6", "--subnet", f"{ipv4}.0/24", "--subnet", f"{ipv6}::/64",
                          "--label", "hikeshi=practice", prefix)  # fmt: skip
        except HikeshiError as error:
            if "subnet" in error.message:
                continue
            raise
        return ipv4, ipv6
    raise HikeshiError("no free subnet found for the practice network.", "podman network prune")


def make_site(state: State) -> None:
    """Write the run-time part of the practice site: addresses, ports, keys, known hosts, secrets. All new."""
    site = practice_folder() / "site"
    remove_tree(site)
    site.mkdir(parents=True, mode=0o700)
    _keygen(site / "ssh_key", f"hikeshi {state.prefix}")
    hosts: dict[str, Any] = {}
    known, config = [], []
    for host, instance in cloud().instances.items():
        key = _host_key(host)
        key.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _keygen(key, host)
        known.append(f"{host} {' '.join(key.with_suffix('.pub').read_text().split()[:2])}")
        config.append(
            f"Host {host}\n  HostName 127.0.0.1\n  Port {state.ports[host]['ssh']}\n  HostKeyAlias {host}\n"
            "  User deploy\n  CheckHostIP no\n  IdentitiesOnly yes\n"
        )
        hosts[host] = {
            "practice_ipv4": f"{state.ipv4}.{instance.address}",
            "practice_ipv6": f"{state.ipv6}::{instance.address}",
        }
    write_private(site / "known_hosts", "\n".join(known) + "\n")
    write_private(site / "ssh_config", "\n".join(config))
    write_private_yaml(site / "hosts.yml", {"all": {"hosts": hosts}})
    write_private_yaml(
        site / "group_vars" / "all" / "secrets.yml",
        {
            "secret_shop_database_password": secrets.token_urlsafe(24),
            "secret_shop_secret_key": secrets.token_urlsafe(48),
            "secret_shop_payment_key": f"sk_test_{secrets.token_urlsafe(24)}",
            "secret_batch_database_password": secrets.token_urlsafe(24),
            "secret_access_count_key": secrets.token_hex(32),
        },
    )
    lb, web = hosts["lb1"], hosts["web1"]
    addresses = {
        "customer": f"127.0.0.1:{state.ports['lb1']['http']}",
        "customer-ipv4": lb["practice_ipv4"],
        "customer-ipv6": f"[{lb['practice_ipv6']}]",
        "direct": web["practice_ipv4"],
        "direct-ipv6": f"[{web['practice_ipv6']}]",
    }
    views = {view: {"url": f"http://{address}"} for view, address in addresses.items()}
    foreign = read_yaml(PRACTICE / "hosts.yml")["all"]["children"]["not_owned"]["hosts"]
    # What the driver of copies must know of this cloud; a real site has it in its own site.yml.
    copy = {
        "instances": {host: container(host, state.prefix) for host in hosts if host not in foreign},
        "bench": engine.base_image(state.release),
        "settings": str(engine.SETTINGS),
    }
    write_private_yaml(site / "site.yml", {"views": views, "copy": copy})


def _keygen(path: Path, comment: str) -> None:
    path.unlink(missing_ok=True)
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)], check=True, capture_output=True
    )


def _host_key(host: str) -> Path:
    return practice_folder() / "drill" / "host_keys" / host


def _first_boot_data(host: str, prefix: str) -> bytes:
    """Return a tar of what a cloud gives an instance at first boot: host key, machine id, name, the operator's key."""
    files = {
        "etc/ssh/ssh_host_ed25519_key": (_host_key(host).read_bytes(), 0o600, 0),
        "etc/ssh/ssh_host_ed25519_key.pub": (_host_key(host).with_suffix(".pub").read_bytes(), 0o644, 0),
        "etc/machine-id": (f"{secrets.token_hex(16)}\n".encode(), 0o444, 0),
        "etc/hostname": (f"{host}\n".encode(), 0o644, 0),
        "etc/hosts": (f"{engine.HOSTS_FILE}127.0.1.1 {host}\n".encode(), 0o644, 0),
        "home/deploy/.ssh/authorized_keys": (
            (practice_folder() / "site" / "ssh_key.pub").read_bytes(), 0o600, 1000
        ),
    }  # fmt: skip
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        folder = tarfile.TarInfo("home/deploy/.ssh")
        folder.type, folder.mode, folder.uid, folder.gid = tarfile.DIRTYPE, 0o700, 1000, 1000
        folder.mtime = int(time.time())
        archive.addfile(folder)
        for name, (content, mode, owner) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.uid, entry.gid = len(content), mode, owner, owner
            entry.mtime = int(time.time())
            archive.addfile(entry, BytesIO(content))
    return buffer.getvalue()


def _make_small_disk(name: str, mib: int) -> str:
    """Make a volume whose file system lies in a file of this size; where that cannot be, an ordinary one.

    Return why it could not be.
    """
    file = practice_folder() / "drill" / "disks" / f"{name}.img"
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    create = ["volume", "create", "--label", "hikeshi=practice"]
    try:
        with file.open("wb") as handle:
            handle.truncate(mib << 20)
        # -m 0: without a reserve, full means full for root as well.
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(file)], check=True, capture_output=True)
        engine.podman(*create, "--opt", "type=ext4", "--opt", f"device={file}", "--opt", "o=loop", name)
        # Tried now: without loop devices it would be the instance that does not start.
        engine.podman("volume", "mount", name)
        engine.podman("volume", "unmount", name)
    except (OSError, subprocess.CalledProcessError, HikeshiError) as error:
        file.unlink(missing_ok=True)
        engine.podman("volume", "rm", "--force", name, check=False)
        engine.podman(*create, name)
        return error.message if isinstance(error, HikeshiError) else str(error)
    return ""


def create(state: State, images: dict[str, str]) -> None:
    """Create every instance from its image, give it its identity, start it."""
    for host, instance in cloud().instances.items():
        for name in instance.volumes:
            engine.podman("volume", "create", "--label", "hikeshi=practice", volume(host, name, state.prefix))
        for name, disk in instance.small_disks.items():
            state.no_small_disks = _make_small_disk(volume(host, name, state.prefix), disk.mib) or state.no_small_disks
        ports = [f"127.0.0.1:{state.ports[host][name]}:{inside}" for name, inside in instance.publish.items()]
        arguments = [
            "create", "--name", container(host, state.prefix), "--hostname", host, "--systemd=always",
            "--label", f"hikeshi.project={PROJECT}",
            # A cloud keeps an instance's hardware address through a restart; a new one would leave neighbours talking
            # to the old one for most of a minute.
            "--network", f"{state.prefix}:ip={state.ipv4}.{instance.address},ip={state.ipv6}::{instance.address}"
            f",mac=02:{state.mac}:{instance.address:02x}",
            "--stop-timeout", "20",
            # podman would write /etc/hosts anew at every start; on a real host it is a file like any other.
            "--no-hosts",
        ]  # fmt: skip
        for capability in instance.capabilities:
            arguments += ["--cap-add", capability]
        for name, path in instance.disks.items():
            arguments += ["--volume", f"{volume(host, name, state.prefix)}:{path}"]
        for port in ports:
            arguments += ["--publish", port]
        engine.podman(*arguments, images[host], "/sbin/init")
        engine.podman(
            "cp",
            "--archive=false",
            "-",
            f"{container(host, state.prefix)}:/",
            text_input=_first_boot_data(host, state.prefix),
        )
        engine.podman("start", container(host, state.prefix))


def pick_ports() -> dict[str, dict[str, int]]:
    """Return a free loopback port for everything that is published."""
    used: set[int] = set()
    ports: dict[str, dict[str, int]] = {}
    for host, instance in cloud().instances.items():
        for name in instance.publish:
            port = free_port()
            while port in used:
                port = free_port()
            used.add(port)
            ports.setdefault(host, {})[name] = port
    return ports


def wait_for_ssh(state: State, hosts: Iterator[str] | None = None) -> None:
    """Wait until each instance's sshd greets us; raise HikeshiError after SSH_WAIT_S seconds."""
    for host in hosts or iter(cloud().instances):
        deadline = time.monotonic() + SSH_WAIT_S
        while not _greets(state.ports[host]["ssh"]):
            if time.monotonic() > deadline:
                tail = engine.podman("logs", "--tail", "5", container(host, state.prefix), check=False)
                raise HikeshiError(
                    f"{host} did not answer by ssh within {SSH_WAIT_S} s. {tail}",
                    "hikeshi drill down, then hikeshi drill up",
                )
            time.sleep(0.1)


def _greets(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def stop(prefix: str, hosts: list[str]) -> None:
    """Shut instances down, as a control panel's stop does."""
    if hosts:
        engine.podman("stop", *(container(host, prefix) for host in hosts))


def start(state: State, hosts: list[str], *, greets: bool = True) -> None:
    """Start stopped instances and wait for their sshd, but where it is not to be expected that it greets us."""
    for host in hosts:
        engine.podman("start", container(host, state.prefix))
    if greets:
        wait_for_ssh(state, iter(hosts))


def reboot(state: State, host: str, *, greets: bool = True) -> None:
    """Stop and start an instance: runtime rules, `/run` and mounts are gone, addresses stay."""
    stop(state.prefix, [host])
    start(state, [host], greets=greets)


def keep_images(state: State) -> None:
    """Keep every built host as an image, replacing older builds of the same release."""
    hosts = list(cloud().instances)
    stop(state.prefix, hosts)
    for host in hosts:
        name = image(host, state.release, state.digest)
        engine.podman("commit", "--quiet", "--format", "oci", container(host, state.prefix), name)
    remove_images(keep=state.digest, release=state.release)
    start(state, hosts)


def remove_images(keep: str = "", release: str = "") -> None:
    """Remove kept images of built hosts; not those of digest `keep`, nor those of another release than `release`."""
    for line in engine.podman("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").splitlines():
        match = re.fullmatch(r"localhost/hikeshi-built-[^:]+:([^-]+)-(\w+)", line)
        if match and (not keep or match[2] != keep) and (not release or match[1] == release):
            # Without --force, which would also remove the containers of a practice site that runs from it.
            engine.podman("image", "rm", line, check=False)


def refuse_foreign(prefix: str) -> None:
    """Refuse to touch a practice site of this prefix that another checkout put up and still knows."""
    found = engine.podman("ps", "--all", "--format", '{{.Names}} {{index .Labels "hikeshi.project"}}')
    ours = {container(host, prefix) for host in cloud().instances}
    for line in found.splitlines():
        name, _, project = line.partition(" ")
        known = Path(project) / ".drill" / prefix / "drill" / "state.json"
        if name in ours and project and Path(project) != PROJECT and known.exists():
            raise RefusedError(
                f"the practice site '{prefix}' belongs to the checkout in {project}.",
                f"HIKESHI_DRILL={prefix}2 for one of your own, or `hikeshi drill down` there",
            )


def remove(prefix: str) -> None:
    """Remove instances, disks and network of a practice site; nothing of it is left but kept images."""
    refuse_foreign(prefix)
    names = [container(host, prefix) for host in cloud().instances]
    existing = set(engine.podman("ps", "--all", "--format", "{{.Names}}").splitlines())
    for name in names:
        if name in existing:
            engine.podman("rm", "--force", "--time", "2", name)
    _remove_copies(names)
    kept = set(engine.podman("volume", "ls", "--quiet").splitlines())
    for host, instance in cloud().instances.items():
        for name in instance.disks:
            if volume(host, name, prefix) in kept:
                engine.podman("volume", "rm", "--force", volume(host, name, prefix))
    if prefix in engine.podman("network", "ls", "--format", "{{.Name}}").splitlines():
        engine.podman("network", "rm", "--force", prefix)


def _remove_copies(names: list[str]) -> None:
    """Remove what the driver of copies made of these instances, and an original that a swap put aside."""
    for name in engine.podman("ps", "--all", "--format", "{{.Names}}").splitlines():
        if any(re.fullmatch(rf"{re.escape(of)}-[a-z]+-\d{{8}}t\d{{9}}", name) for of in names):
            engine.podman("rm", "--force", "--time", "2", name)
    for name in names:
        for kind in ("network", "volume", "image"):
            mark = f"label=hikeshi.instance={name}"
            for found in engine.podman(kind, "ls", "--quiet", "--filter", mark).splitlines():
                force = [] if kind == "image" else ["--force"]  # of an image it would remove containers, too
                engine.podman(kind, "rm", *force, found, check=False)
