"""podman on this machine: which settings work here, and the base image every container starts from.

Some container hosts refuse one runtime, or forbid raising limits. What works is found by trying, once, and kept in
`.drill/engine/containers.conf`. `python -m hikeshi.drill.engine` does it all and is a no-op the second time.
"""

import hashlib
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hikeshi.errors import HikeshiError, MisconfiguredError
from hikeshi.site import PROJECT

Progress = Callable[[str], None]

SETTINGS = PROJECT / ".drill" / "engine" / "containers.conf"
CODENAMES = {"12": "bookworm", "13": "trixie"}
DEFAULT_RELEASE = "12"
# What a cloud's minimal Debian image brings; everything else is a role's work.
BASE_PACKAGES = (
    "ca-certificates,dbus,debian-archive-keyring,iproute2,libpam-systemd,openssh-server,procps,python3,"
    "sudo,systemd,systemd-sysv"
)
HOSTS_FILE = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"
# The account a cloud makes at first boot; its key is given to each instance when it is created.
BASE_HOOK = (
    'chroot "$1" useradd --create-home --shell /bin/bash deploy'
    ' && echo "deploy ALL=(ALL) NOPASSWD: ALL" > "$1/etc/sudoers.d/deploy" && chmod 0440 "$1/etc/sudoers.d/deploy"'
    # Without it every login writes an error, and a drill's last error lines are nothing else.
    ' && : > "$1/etc/default/locale"'
    f" && printf %b '{HOSTS_FILE.encode('unicode_escape').decode()}'"
    ' > "$1/etc/hosts"'
    ' && rm -f "$1"/etc/ssh/ssh_host_* && : > "$1/etc/machine-id"'
    # On control groups v1 stopping a user's manager takes two minutes in a container, and logins wait for it.
    ' && ln -s /dev/null "$1/etc/systemd/system/user@.service"'
)


def podman(*arguments: str, check: bool = True, text_input: bytes | None = None) -> str:
    """Run podman with this machine's settings and return its output.

    Raises HikeshiError with podman's own words when it fails (unless `check` is false: then an empty string).
    """
    if shutil.which("podman") is None:
        raise MisconfiguredError("podman is not in PATH; the practice site runs in containers.", "scripts/bootstrap")
    environment = dict(os.environ)
    if SETTINGS.exists():
        environment["CONTAINERS_CONF"] = str(SETTINGS)
    done = subprocess.run(["podman", *arguments], input=text_input, capture_output=True, env=environment, check=False)
    if done.returncode and check:
        words = done.stderr.decode(errors="replace").strip() or done.stdout.decode(errors="replace").strip()
        raise HikeshiError(f"podman {arguments[0]} failed: {words[-600:]}")
    return "" if done.returncode else done.stdout.decode(errors="replace").strip()


def limit_candidates() -> Iterator[tuple[int, int] | None]:
    """Yield (nofile, nproc) limits to try, the engine's own default first, then smaller and smaller."""
    yield None
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    processes = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    for ceiling in (1 << 20, 32768, 20000, 8192):
        yield min(files, ceiling) if files > 0 else ceiling, min(processes, ceiling) if processes > 0 else ceiling


def render_settings(runtime: str | None, limits: tuple[int, int] | None) -> str:
    """Return the text of a containers.conf for one candidate."""
    lines = ["# Found by trying: scripts/bootstrap. Delete this file to have it tried again.", "[containers]"]
    if limits:
        lines.append(f'default_ulimits = ["nofile={limits[0]}:{limits[0]}", "nproc={limits[1]}:{limits[1]}"]')
    if runtime:
        lines += ["[engine]", f'runtime = "{runtime}"']
    return "\n".join(lines) + "\n"


def boots(image: str) -> str:
    """Try one systemd container under the present settings; return "" when it boots, else why not."""
    name = f"hikeshi-trial-{uuid.uuid4().hex[:8]}"
    try:
        podman("run", "--detach", "--name", name, "--systemd=always", "--cap-add", "SYS_ADMIN,NET_ADMIN", image,
               "/sbin/init")  # fmt: skip
        podman("exec", name, "timeout", "30", "sh", "-c",
               "until systemctl is-active --quiet multi-user.target; do sleep 0.2; done;"
               " mkdir /mnt/a && mount --bind /mnt/a /mnt")  # fmt: skip
    except HikeshiError as error:
        return error.message
    finally:
        podman("rm", "--force", "--time", "0", name, check=False)
    return ""


def find_settings(image: str, progress: Progress) -> None:
    """Find runtime and limits under which a systemd container boots, and keep them in SETTINGS."""
    if SETTINGS.exists():
        return
    progress("finding out which container settings work on this machine")
    SETTINGS.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    reasons: list[str] = []
    # On hybrid control groups crun works only while some container happens to hold the last v2 controller: prefer runc.
    unified = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    for runtime in (None, "crun", "runc") if unified else ("runc", None, "crun"):
        if runtime and shutil.which(runtime) is None:
            continue
        for limits in limit_candidates():
            SETTINGS.write_text(render_settings(runtime, limits))
            try:
                why = boots(image)
            except BaseException:
                SETTINGS.unlink()
                raise
            if not why:
                return
            reasons.append(f"{runtime or 'default runtime'}, limits {limits}: {why.splitlines()[-1][:160]}")
            if "limit" not in why.lower():
                break  # other limits will not help this runtime
    SETTINGS.unlink()
    raise MisconfiguredError(
        "podman cannot start a systemd container here. Tried:\n  " + "\n  ".join(reasons),
        "mend podman on this machine (podman info), then run scripts/bootstrap again",
    )


def image_exists(image: str) -> bool:
    """Say whether podman has this image."""
    return bool(podman("image", "ls", "--quiet", image))


def host_release() -> tuple[str, str]:
    """Return (id, codename) of the system this runs on."""
    fields = platform.freedesktop_os_release()
    return fields.get("ID", "unknown"), fields.get("VERSION_CODENAME", "unknown")


def apt_sources(codename: str, root: Path = Path("/etc/apt")) -> str:
    """Return one-line apt sources for Debian `codename`, taken from this machine's own, mirrors and keys kept.

    Third parties' sources are left out: an entry counts only if its suite is this release, its updates or security.
    """
    own = host_release()[1]
    entries: list[tuple[str, str, str, list[str]]] = []  # options, address, suite, components
    for path in [root / "sources.list", *sorted((root / "sources.list.d").glob("*"))]:
        if path.suffix not in (".list", ".sources") or not path.is_file():
            continue
        text = re.sub(r"(?m)^\s*#.*\n?", "", path.read_text(errors="replace"))
        if path.suffix == ".list":
            for options, address, suite, components in re.findall(
                r"(?m)^deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s+(.*)$", text
            ):
                entries.append((options, address, suite, components.split()))
            continue
        for stanza in re.split(r"\n\s*\n", text):
            fields = {key.lower(): value for key, value in re.findall(r"(?m)^([\w-]+):\s*(.*)$", stanza)}
            if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes") == "no":
                continue
            signed = fields.get("signed-by", "")
            options = f"signed-by={signed}" if signed.startswith("/") else ""
            for address in fields.get("uris", "").split():
                for suite in fields.get("suites", "").split():
                    entries.append((options, address, suite, fields.get("components", "").split()))
    lines = []
    for options, address, suite, components in entries:
        if suite in (own, f"{own}-updates", f"{own}-security") and "main" in components:
            bracket = f"[{options}] " if options else ""
            lines.append(f"deb {bracket}{address} {suite.replace(own, codename)} main")
    if not lines:
        raise MisconfiguredError(
            f"no apt source for Debian '{own}' in {root}; the base image is made from this machine's sources.",
            "add Debian's main archive to /etc/apt/sources.list",
        )
    return "\n".join(lines) + "\n"


def base_image(release: str = DEFAULT_RELEASE) -> str:
    """Return the name of the base image of a Debian release ("12" or "13"), keyed by what it is made from."""
    key = hashlib.sha256(f"{release}{BASE_PACKAGES}{BASE_HOOK}".encode()).hexdigest()[:12]
    return f"localhost/hikeshi-base:{release}-{key}"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Give a folder on a real disk (not a small /tmp in memory), removed afterwards."""
    (PROJECT / ".drill").mkdir(exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=PROJECT / ".drill", prefix="scratch-") as folder:
        yield Path(folder)


def ensure_base_image(release: str, progress: Progress) -> str:
    """Make the base image from this machine's apt sources unless it is there; return its name."""
    if release not in CODENAMES:
        raise MisconfiguredError(
            f"unknown Debian release '{release}'; allowed: {', '.join(CODENAMES)}.", f"--release {DEFAULT_RELEASE}"
        )
    image = base_image(release)
    if image_exists(image):
        return image
    progress(f"making the base image of Debian {release} (about half a minute)")
    with scratch_folder() as folder:
        done = subprocess.run(
            ["mmdebstrap", "--variant=minbase", "--quiet", f"--include={BASE_PACKAGES}",
             '--aptopt=APT::Install-Recommends "false"', f"--customize-hook={BASE_HOOK}",
             CODENAMES[release], str(folder / "base.tar"), "-"],
            input=apt_sources(CODENAMES[release]), capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise MisconfiguredError(
                f"mmdebstrap could not make Debian {release}: {done.stderr.strip()[-600:]}",
                "check that apt-get update works on this machine, then scripts/bootstrap",
            )
        podman("import", "--quiet", str(folder / "base.tar"), image)
    return image


def prepare(progress: Progress, release: str = DEFAULT_RELEASE) -> str:
    """Make this machine ready to run containers; return the base image's name."""
    image = ensure_base_image(release, progress)
    find_settings(image, progress)
    return image


def main() -> int:
    """Entry point of `python -m hikeshi.drill.engine`, the last step of scripts/bootstrap."""
    try:
        prepare(lambda line: print(f"bootstrap: {line}", file=sys.stderr))
    except HikeshiError as error:
        print(f"bootstrap: {error.message}\nbootstrap: next: {error.fix or 'scripts/bootstrap'}", file=sys.stderr)
        return int(error.status)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
