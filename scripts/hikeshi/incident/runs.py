"""A run of Ansible in the journal: start, end, what changed and what failed; the whole of it stays in `runs/`."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from hikeshi.errors import HikeshiError
from hikeshi.files import make_private_folder
from hikeshi.incident import store
from hikeshi.incident.journal import Action, Journal, explained
from hikeshi.incident.record import digest
from hikeshi.site import Site

# The drill's own hand: what it breaks is no part of the incident, and the journal must not give the answers away.
_NOT_JOURNALED = ("inject-fault.yml",)
_SO = "The run went on to its end; not all of what it did is on record."


class Recorded:
    """One run under way: its whole output and every event in files of `folder`, and what matters in the journal.

    A disk that fills up meanwhile must not cut a repair in two: it is written no more, and `end` says why.
    """

    def __init__(self, folder: Path, journal: Journal | None, action: Action | None) -> None:
        """Make the run's folder; write into the action under way, if there is one."""
        self.folder = folder
        self._journal, self._action = journal, action
        self._problem: HikeshiError | None = None
        with explained(f"the record of a run, {folder},", folder.parent):
            make_private_folder(folder)
            self._output = (folder / "output.txt").open("w", encoding="utf-8", errors="backslashreplace")
            self._events = (folder / "events.jsonl").open("w", encoding="ascii")

    def __enter__(self) -> Self:
        """Nothing more than the folder and its files is needed."""
        return self

    def __exit__(self, *_: object) -> None:
        """Have both files on disk and close them."""
        self._sync()
        for handle in (self._output, self._events):
            with suppress(OSError):
                handle.close()

    def _sync(self) -> None:
        """Have both files on disk: the record of the run's end vouches for them."""
        for handle in (self._output, self._events):
            with self._tolerated():
                handle.flush()
                os.fsync(handle.fileno())

    def words(self, words: str) -> None:
        """Keep words of Ansible's own."""
        with self._tolerated():
            self._output.write(words + "\n")

    def event(self, event: Mapping[str, Any]) -> None:
        """Keep an event."""
        with self._tolerated():
            self._events.write(json.dumps(event, ensure_ascii=True) + "\n")
            self._events.flush()

    def task(self, host: str, data: Mapping[str, Any]) -> None:
        """Write what became of a task into the journal."""
        if self._journal and self._action:
            with self._tolerated():
                self._journal.append("task", {"run": self._action.start.seq, **data}, host=host)

    def end(self, status: int, why: str, changed: Mapping[str, int], returned: Mapping[str, Any]) -> None:
        """Say how it ended, keeping what the hosts returned; raise what kept the record from being written."""
        if self._journal and self._action:
            if status:
                self._action.failed(why)
            self._action.data.update(status=status, changed=changed)
            with self._tolerated():
                kept = {host: self._journal.keep(json.dumps(data)) for host, data in returned.items()}
                self._action.data.update(returned=kept)
        self._sync()
        if self._problem:
            raise self._problem

    @contextmanager
    def _tolerated(self) -> Iterator[None]:
        try:
            with explained(f"the record of a run, {self.folder},", self.folder, _SO):
                yield
        except HikeshiError as problem:
            self._problem = self._problem or problem


@contextmanager
def recorded(site: Site, playbook: str, verb: str, *, check: bool) -> Iterator[Recorded]:
    """Make the folder of a run, and write its start and its end into the journal that is open now."""
    name = f"runs/{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{verb}"
    if playbook in _NOT_JOURNALED:
        with Recorded(site.records / name, None, None) as run:
            yield run
        return
    journal = store.journal(site)
    marks = {"verb": verb, "playbook": playbook, "check": check, "folder": name}
    with journal.action("run", marks) as action:
        folder = journal.folder / name
        try:
            with Recorded(folder, journal, action) as run:
                yield run
        finally:
            files = {path.name: digest(path.read_bytes()) for path in sorted(folder.glob("*")) if path.is_file()}
            action.data.update({**marks, "files": files})
