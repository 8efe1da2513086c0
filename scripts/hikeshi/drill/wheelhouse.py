"""Build a wheelhouse: every wheel of a hashed lock, for a web host that must not need the internet.

Everything named in the lock is downloaded with its hash verified. What comes only as source is built here; its build
tools are the source's own choice and not in the lock, and the result must be pure Python, or the build is refused. The
wheelhouse carries a ``requirements.txt`` with the digests of the wheels it really holds: the host verifies them again.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

_FORMAT = "1"  # goes up when the content of a wheelhouse changes for an unchanged lock
_NEWEST_GLIBC = 36  # Debian 12 has glibc 2.36; what runs there runs on Debian 13
_OLDEST_GLIBC = 17  # manylinux2014, below which nobody builds for current Pythons
_LINES_SHOWN = 12


class WheelhouseError(Exception):
    """The wheelhouse could not be built; the message says why, with pip's last lines."""


def build(
    lock: Path, target: Path, python: str = "3.11", progress: Callable[[str], None] = lambda _message: None
) -> Path:
    """Return the wheelhouse below ``target`` for ``lock`` and the hosts' Python; build it when it is not there yet."""
    if not re.fullmatch(r"3\.\d+", python):
        raise WheelhouseError(f"target Python {python!r} is not a version such as 3.11")
    try:
        text = lock.read_text(encoding="utf-8")
    except OSError as error:
        raise WheelhouseError(f"cannot read the lock {lock}: {error.strerror}") from error
    if "--hash=" not in text:
        raise WheelhouseError(f"{lock} has no hashes: make it with `uv pip compile --generate-hashes`")
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    if python != running and re.search(r";.*\bpython_(full_)?version\b", text):
        # pip evaluates markers for the Python it runs under, whatever target it is given.
        raise WheelhouseError(f"{lock} depends on the Python version: build it for {python} with Python {python}")

    machine = platform.machine()
    digest = hashlib.sha256("\0".join((_FORMAT, text, python, machine)).encode()).hexdigest()[:16]
    wheelhouse = target / f"wheels-{python}-{machine}-{digest}"
    if (wheelhouse / "requirements.txt").is_file():
        return wheelhouse

    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target, prefix=".wheels-") as temporary:
            work = Path(temporary) / "wheels"
            work.mkdir()
            _fill(lock, work, python, machine, progress)
            (work / "requirements.txt").write_text(_requirements(work), encoding="utf-8")
            try:
                work.rename(wheelhouse)
            except OSError:
                # Another build of the same lock was faster; its content is the same.
                if not (wheelhouse / "requirements.txt").is_file():
                    raise
    except OSError as error:
        raise WheelhouseError(f"cannot write the wheelhouse below {target}: {error}") from error
    return wheelhouse


def _fill(lock: Path, work: Path, python: str, machine: str, progress: Callable[[str], None]) -> None:
    """Download what the lock names into ``work`` and turn sources into wheels."""
    platforms = [f"manylinux_2_{glibc}_{machine}" for glibc in range(_NEWEST_GLIBC, _OLDEST_GLIBC - 1, -1)]
    platforms += [f"manylinux2014_{machine}", f"linux_{machine}"]
    abi = "cp" + python.replace(".", "")
    progress(f"downloading the wheels of {lock.name} for Python {python} on {machine}")
    _pip(
        "download", "--no-deps", "--require-hashes", "--dest", str(work), "--requirement", str(lock),
        "--implementation", "cp", "--python-version", python, "--abi", abi, "--abi", "abi3", "--abi", "none",
        *(f"--platform={name}" for name in platforms),
    )  # fmt: skip
    for source in sorted(path for path in work.iterdir() if path.suffix != ".whl"):
        progress(f"building a wheel from {source.name}")
        before = set(work.iterdir())
        _pip("wheel", "--no-deps", "--wheel-dir", str(work), str(source))
        for wheel in set(work.iterdir()) - before:
            if not wheel.name.endswith("-none-any.whl"):
                raise WheelhouseError(f"{source.name} gives {wheel.name}, not pure Python: pin a version with wheels")
        source.unlink()


def _pip(command: str, *arguments: str) -> None:
    """Run pip and speak up with its last lines when it fails."""
    argv = [sys.executable, "-m", "pip", command, "--quiet", "--disable-pip-version-check", "--no-input", *arguments]
    # No cache of pip's: a wheel it built earlier would hide the source that has to be verified.
    environment = {**os.environ, "PIP_NO_CACHE_DIR": "1", "PYTHONNOUSERSITE": "1"}
    result = subprocess.run(
        argv, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL, check=False
    )
    if result.returncode:
        lines = (result.stderr + result.stdout).strip().splitlines()[-_LINES_SHOWN:]
        raise WheelhouseError("\n".join([f"pip {command} failed with status {result.returncode}:", *lines]))


def _requirements(work: Path) -> str:
    """List the wheels of ``work`` as pip requirements with their digests."""
    lines = []
    for wheel in sorted(work.glob("*.whl")):
        name, version = wheel.name.split("-")[:2]
        lines.append(f"{name}=={version} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n")
    return "".join(lines)
