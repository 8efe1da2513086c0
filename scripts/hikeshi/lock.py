"""One change of a site at a time: a lock with its owner's name, let go by the kernel when its owner dies."""

import fcntl
import getpass
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from hikeshi.errors import RefusedError
from hikeshi.site import Site


@contextmanager
def held(site: Site, verb: str) -> Iterator[None]:
    """Hold the site's lock; raise RefusedError, naming the owner, while somebody else holds it."""
    with held_in(site.records, site.name, verb):
        yield


@contextmanager
def held_in(records: Path, name: str, verb: str) -> Iterator[None]:
    """Hold the lock of the site with this folder of records, which need not be there yet."""
    records.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(records / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(descriptor, 500, 0).decode(errors="replace").strip() or "somebody"
            raise RefusedError(
                f"site {name} is being changed by {owner}.", "wait for it to end, or ask its owner"
            ) from error
        owner = f"{getpass.getuser()}@{socket.gethostname()}, pid {os.getpid()}, {verb}, {datetime.now(UTC):%H:%M:%SZ}"
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, owner.encode(), 0)
        yield
    finally:
        os.close(descriptor)
