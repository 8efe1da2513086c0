"""Files only we may read, written whole or not at all; what is written outlives a crash of the machine."""

import errno
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import psutil
import yaml


def make_private_folder(path: Path) -> None:
    """Make a folder, and those above it that are missing, open to us alone."""
    if not path.is_dir():
        make_private_folder(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on disk: a file that was synced has none before."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that does this by itself, or never
            raise
    finally:
        os.close(descriptor)


def write_private(path: Path, text: str | bytes) -> None:
    """Write a file only we may read, whole or not at all."""
    make_private_folder(path.parent)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(text.encode() if isinstance(text, str) else text)
            handle.flush()
            os.fsync(handle.fileno())
        Path(temporary).replace(path)
        sync_folder(path.parent)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def remove_abandoned(folder: Path, prefix: str) -> None:
    """Remove temporary folders, named PREFIX, pid, -, anything, of our own processes that were killed too early."""
    for left in folder.glob(f"{prefix}*"):
        number = left.name.removeprefix(prefix).split("-")[0]
        if number.isdigit() and not psutil.pid_exists(int(number)) and left.stat().st_uid == os.geteuid():
            shutil.rmtree(left, ignore_errors=True)


def remove_tree(path: Path) -> None:
    """Remove a folder that may be there, or fail with why not: it may hold secrets."""
    if path.exists():
        shutil.rmtree(path)


def write_private_yaml(path: Path, data: Any) -> None:
    """Write data as a YAML file only we may read."""
    write_private(path, yaml.safe_dump(data, sort_keys=False, allow_unicode=True))
