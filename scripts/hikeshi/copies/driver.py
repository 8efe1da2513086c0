"""What a cloud must be able to do with copies, and nothing more: everything else is the same for every driver.

A driver keeps nothing: all that it makes bears a name derived from the copy's id and a mark of the site, and every
call first asks the cloud what of it is done already, so that it can be made again after a kill at any point. It decides
nothing either: in which order, with which permission, what is journaled is for those who call it. It raises
HikeshiError where the cloud does not do as it is told; AskedError where a person must do it. To add a cloud: a class
with these methods, its data in site.py, its line in drivers.py; tests/drill/test_copies.py asks all of it of a real
one.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from hikeshi.copies.record import Check, Copy, Size, Taken
from hikeshi.errors import RefusedError


class DoneByHandError(RefusedError):
    """A person did this by hand: nothing of it is left to do."""


class AskedError(RefusedError):
    """No driver does this: a person is asked to, step by step, and says when it is done. `step` names it."""

    def __init__(self, step: str, message: str, fix: str) -> None:
        """Keep which step it is, so that the copy's file can tell what was asked."""
        super().__init__(message, fix)
        self.step = step


@dataclass(frozen=True)
class Space:
    """What a copy and a working copy of it will take, in bytes; `free` is None where the cloud has no such bound."""

    needed: int
    free: int | None = None
    where: str = ""


@dataclass(frozen=True)
class Found:
    """Something at the cloud that bears this site's mark."""

    copy_id: str
    kind: str  # in the cloud's own word: image, volume, container
    name: str


@dataclass(frozen=True)
class Verified:
    """What a copy is like when all of it is read."""

    checks: list[Check]
    digest: str = ""
    size: Size | None = None


@dataclass(frozen=True)
class Bench:
    """Where the disk of a working copy can be worked on: a machine with nothing of its own, and the disk at `root`.

    `variables` make Ansible reach it. None of the copy's programs runs there; where `root` is / they do, for there the
    disk is the root of all that runs. What runs has a network, a process table and a file system of its own, and no
    power over the controller; no call of it may last for ever or say without end.
    """

    variables: dict[str, Any]
    root: str
    notes: list[str] = field(default_factory=list)  # what of the copy is not where it was on the host


@dataclass(frozen=True)
class Rehearsal:
    """A mended machine that runs beside the original, and how to get to it; `told` where a person tried it by hand."""

    proxy: str = ""  # ssh's ProxyCommand: speaks with its sshd
    address: str = ""  # in its own network, which nothing else is in
    machine_id: str = ""  # that it was given
    told: str = ""


class Driver(Protocol):
    """What a cloud must do."""

    name: str

    def list(self) -> Sequence[Found]:
        """Return all at the cloud that bears this site's mark, whoever made it."""

    def there(self, copy: Copy) -> bool:
        """Say whether the cloud still has a copy that was made."""

    def space(self, instance: str) -> Space:
        """Estimate what a copy and a working copy take."""

    def copy(self, copy: Copy) -> Taken:
        """Copy system disk and data disks as of one moment, private and marked; the instance goes on afterwards.

        Whatever kills the caller, the instance goes on.
        """

    def verify(self, copy: Copy, databases: Sequence[str]) -> Verified:
        """Read all of a copy and open its databases, in isolation; nothing of it is written."""

    def work(self, copy: Copy) -> None:
        """Make a working copy: disks of its own, that nothing is mounted from."""

    def open(self, copy: Copy) -> Bench:
        """Attach the working copy's disks to a bench; a bench that stands already is replaced."""

    def within(self, copy: Copy) -> AbstractContextManager[Bench]:
        """While the disk is open: run tasks with the disk as their root, by its own shell and python3.

        systemctl is told that no system runs (SYSTEMD_OFFLINE); /run and /tmp are memory. Nothing runs on afterwards.
        """

    def test(self, copy: Copy, script: str, seconds: int) -> tuple[int, str]:
        """While the disk is open: run a shell script in the same way, but that nothing of what it writes stays.

        Return exit status, and output with errors, cut where there is no end of it.
        """

    def close(self, copy: Copy) -> None:
        """Remove the bench; the disks stay as they are."""

    def stop(self, copy: Copy, machine: str) -> None:
        """Stop a machine as its control panel does; one that is stopped stays so."""

    def start(self, copy: Copy, machine: str) -> None:
        """Start a machine; one that runs goes on."""

    def seal(self, copy: Copy) -> tuple[str, str]:
        """Make a machine of the working copy's system disk that can take the original's place; return both ids.

        It has the original's addresses, names and data disks, and is not started.
        """

    def rehearse(self, copy: Copy) -> Rehearsal:
        """Start what was sealed beside the original, with the working copy's data; one that is there is replaced.

        What it writes is thrown away. It has a machine-id of its own, none of the original's addresses, no way out of
        its network, and nothing in it that starts anything by the clock.
        """

    def end_rehearsal(self, copy: Copy) -> None:
        """Remove that machine and its network, where they are there."""

    def carry(self, copy: Copy, path: str, *, back: bool) -> None:
        """Bring data on the system disk to the mended one, or back; both are stopped. What stood there is kept."""

    def swap_in(self, copy: Copy) -> None:
        """Put the mended machine in the original's place; both are stopped, and none is lost."""

    def swap_back(self, copy: Copy) -> None:
        """Put the original in its place again; both are stopped."""

    def remove(self, copy: Copy, *, work_only: bool = False) -> None:
        """Remove all that this copy made (or only its working copy and what came of it), but never a swapped machine.

        Where its swap is committed, the original goes as well, and what is in its place stays.

        An instance that a killed `copy` left frozen goes on first.
        """
