"""One change of a site at a time: a lock with its owner's name, let go by the kernel when its owner dies."""

import fcntl
import getpass
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import psutil

from hikeshi.errors import RefusedError
from hikeshi.files import make_private_folder
from hikeshi.incident import store
from hikeshi.incident.journal import explained
from hikeshi.site import Site

NAMING_S = 2.0  # how long a new owner may take to write its name


@contextmanager
def held(site: Site, verb: str) -> Iterator[None]:
    """Hold the site's lock; raise RefusedError, naming the owner, while somebody else holds it."""
    with held_in(site.records, site.name, verb):
        yield


@contextmanager
def held_in(records: Path, name: str, verb: str) -> Iterator[None]:
    """Hold the lock of the site with this folder of records, which need not be there yet.

    The owner's name is taken out when the lock is let go. One that is still there was left by an owner who died: the
    lock is ours all the same, and the journal says so.
    """
    with explained(f"the lock {records / 'lock'}", records):
        make_private_folder(records)
        descriptor = os.open(records / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RefusedError(
                f"site {name} is being changed by {_living_owner(descriptor)}.",
                "wait for it to end, or ask its owner",
            ) from error
        if dead := _owner(descriptor):
            store.journal_in(records, name).append("lock.taken", {"owner": dead, "verb": verb})
        owner = f"{getpass.getuser()}@{socket.gethostname()}, pid {os.getpid()}, {verb}, {datetime.now(UTC):%H:%M:%SZ}"
        with explained(f"the lock {records / 'lock'}", records):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, owner.encode(), 0)
        try:
            yield
        finally:
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def living_owner(site: Site) -> str:
    """Return who holds the site's lock; empty when nobody living does. Takes no lock itself: others may want it."""
    try:
        owner = (site.records / "lock").read_text(errors="replace").strip()[:500]
    except OSError:
        return ""
    return owner if _alive(owner) else ""


def _alive(owner: str) -> bool:
    pid = re.search(r", pid (\d+), ", owner)
    return pid is not None and psutil.pid_exists(int(pid[1]))


def _owner(descriptor: int) -> str:
    return os.pread(descriptor, 500, 0).decode(errors="replace").strip()


def _living_owner(descriptor: int) -> str:
    """Return the owner's name. Just after it took the lock, none is written yet, or still that of a dead one."""
    deadline = time.monotonic() + NAMING_S
    while time.monotonic() < deadline:
        owner = _owner(descriptor)
        if _alive(owner):
            return owner
        time.sleep(0.01)
    return _owner(descriptor) or "somebody"
