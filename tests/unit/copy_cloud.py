"""A cloud in memory that a driver of copies drives, and a death at any of its steps, or of the files we write."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import pytest

from hikeshi.copies import disk, making, mending, record, rehearsal, rescue, swap, work
from hikeshi.copies.driver import Bench, Found, Rehearsal, Space, Verified
from hikeshi.copies.record import Check, Copy, Size, Taken
from hikeshi.incident.journal import Journal
from hikeshi.site import Site


class Killed(BaseException):
    """The process ended here; nothing after it runs, no handler either."""


class Machine:
    """A machine at the cloud: its name, what its system disk says, and the orders that lie there."""

    def __init__(self, name: str, disk: str, orders: list[str]) -> None:
        self.name, self.disk, self.orders, self.running = name, disk, orders, False


class Cloud:
    """Stands where podman would: keeps what is there, while the processes that ask it come and go."""

    name = "memory"

    def __init__(self) -> None:
        self.original = Machine("shop-web1", "broken", ["one"])
        self.original.running = True
        self.machines = {"original": self.original}
        self.copies: dict[str, str] = {}  # id → what its disk says
        self.works: dict[str, str] = {}
        self.benches: set[str] = set()
        self.inside: set[str] = set()  # ids of disks whose own programs run
        self.tests: dict[str, tuple[int, str]] = {}  # service → exit status and words of its test
        self.rehearsals: dict[str, str] = {}  # id → what the disk says of which it runs
        self.frozen = False
        self.bad: list[Check] = []
        self.digest = "d"
        self.free: int | None = 100 << 30
        self.needed = 10 << 30
        self.steps, self.dies_at, self.dead = 0, -1, False

    def step(self) -> None:
        """Die here, if this is where it is to be."""
        if self.dead or self.steps == self.dies_at:
            self.dead, self.frozen = True, False  # the guard lets it go on
            raise Killed
        self.steps += 1

    def list(self) -> Sequence[Found]:
        return [Found(ident, "image", ident) for ident in self.copies]

    def there(self, copy: Copy) -> bool:
        return copy.id in self.copies

    def space(self, instance: str) -> Space:
        return Space(self.needed, self.free, "the cloud")

    def copy(self, copy: Copy) -> Taken:
        assert copy.id not in self.copies, "a half made copy was left"
        self.frozen = True
        self.step()
        self.copies[copy.id] = self.machines["original"].disk
        self.step()
        self.frozen = False
        return Taken(disk=f"disk of {copy.id}", at=datetime.now(UTC))

    def verify(self, copy: Copy, databases: Sequence[str]) -> Verified:
        self.step()
        checks = [Check(what="id", ok=copy.id in self.copies, words="it"), *self.bad]
        return Verified(checks, self.digest, Size(files=1, bytes=2))

    def work(self, copy: Copy) -> None:
        assert copy.id not in self.works, "a half made working copy was left"
        self.step()
        self.works[copy.id] = self.copies[copy.id]
        self.step()

    def open(self, copy: Copy) -> Bench:
        self.close(copy)
        self.step()
        self.benches.add(copy.id)
        self.step()
        return Bench({"ansible_host": copy.id}, "/disk")

    @contextmanager
    def within(self, copy: Copy) -> Iterator[Bench]:
        assert copy.id in self.benches, "the disk is open"
        self.step()
        self.inside.add(copy.id)
        try:
            yield Bench({"ansible_host": f"in {copy.id}"}, "/")
        finally:
            if not self.dead:
                self.inside.discard(copy.id)

    def test(self, copy: Copy, script: str, seconds: int) -> tuple[int, str]:
        assert copy.id in self.benches and copy.id not in self.inside, "nothing of it runs while it is looked at"
        self.step()
        return self.tests.get(script.split("exec ")[1].split()[0], (0, ""))

    def close(self, copy: Copy) -> None:
        self.benches.discard(copy.id)
        self.inside.discard(copy.id)

    def stop(self, copy: Copy, machine: str) -> None:
        self.step()
        self.machines[machine].running = False

    def start(self, copy: Copy, machine: str) -> None:
        self.step()
        assert not [one for one in self.machines.values() if one.running and one is not self.machines[machine]]
        assert self.machines[machine].name == "shop-web1", "it has its place before it runs"
        self.machines[machine].running = True

    def seal(self, copy: Copy) -> tuple[str, str]:
        self.step()
        self.rehearsals.pop(copy.id, None)
        self.machines[f"mended {copy.id}"] = Machine("mended", self.works[copy.id], ["at the time of the copy"])
        self.step()
        return "original", f"mended {copy.id}"

    def rehearse(self, copy: Copy) -> Rehearsal:
        assert copy.id not in self.rehearsals, "one that was killed was left"
        self.step()
        self.rehearsals[copy.id] = self.machines[f"mended {copy.id}"].disk
        self.step()
        return Rehearsal("relay", "10.0.0.2", "0123")

    def end_rehearsal(self, copy: Copy) -> None:
        if not self.dead:  # nothing that runs afterwards is ours
            self.rehearsals.pop(copy.id, None)

    def carry(self, copy: Copy, path: str, *, back: bool) -> None:
        self.step()
        assert copy.swap
        leaves, comes = copy.swap.original, copy.swap.mended
        if back:
            leaves, comes = comes, leaves
        assert not self.machines[leaves].running and not self.machines[comes].running
        self.machines[comes].orders = [*self.machines[leaves].orders]
        self.step()

    def swap_in(self, copy: Copy) -> None:
        assert copy.swap
        self._trade(copy.swap.original, copy.swap.mended)

    def swap_back(self, copy: Copy) -> None:
        assert copy.swap
        self._trade(copy.swap.mended, copy.swap.original)

    def _trade(self, out: str, into: str) -> None:
        if self.machines[out].name == "shop-web1":
            self.step()
            self.machines[out].name = "aside"
        if self.machines[into].name != "shop-web1":
            self.step()
            self.machines[into].name = "shop-web1"

    def remove(self, copy: Copy, *, work_only: bool = False) -> None:
        self.frozen = False
        self.benches.discard(copy.id)
        self.rehearsals.pop(copy.id, None)
        self.step()
        self.works.pop(copy.id, None)
        if copy.swap and copy.swap.state == "committed":
            assert self.serving is self.machines[f"mended {copy.id}"]
            self.machines.pop(copy.swap.original, None)
        else:
            self.machines.pop(f"mended {copy.id}", None)
        self.step()
        if not work_only:
            self.copies.pop(copy.id, None)

    @property
    def serving(self) -> Machine:
        """The machine that customers reach; there is always one at most."""
        return next(one for one in self.machines.values() if one.name == "shop-web1")


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """A cloud whose driver every site has, and a death that stops files and journal as well."""
    made = Cloud()
    for module in (disk, making, mending, rehearsal, rescue, swap, work):
        monkeypatch.setattr(module, "driver_of", lambda site: made)

    def watched(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*words: Any, **more: Any) -> Any:
            made.step()
            done = function(*words, **more)
            made.step()
            return done

        return run

    monkeypatch.setattr(record, "save", watched(record.save))
    monkeypatch.setattr(record, "forget", watched(record.forget))
    monkeypatch.setattr(Journal, "append", watched(Journal.append))
    yield made


@contextmanager
def alive(cloud: Cloud, dies_at: int = -1) -> Iterator[None]:
    """Be a new process, which dies at a step of its own or not at all."""
    cloud.steps, cloud.dies_at, cloud.dead = 0, dies_at, False
    with suppress(Killed):
        yield


def copied(site: Site) -> Copy:
    """Return the one copy of the site."""
    (copy,) = record.read_all(site)
    return copy
