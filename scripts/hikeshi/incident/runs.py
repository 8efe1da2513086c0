"""A run of Ansible in the journal: start, end, what changed and what failed; the whole of it stays in `runs/`."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hikeshi.errors import HikeshiError
from hikeshi.files import make_private_folder
from hikeshi.incident import store
from hikeshi.incident.journal import Action, Journal
from hikeshi.incident.record import digest
from hikeshi.site import Site

# The drill's own hand: what it breaks is no part of the incident, and the journal must not give the answers away.
_NOT_JOURNALED = ("inject-fault.yml",)


class Recorded:
    """One run under way. `folder` is where its output and events go."""

    def __init__(self, folder: Path, journal: Journal | None, action: Action | None) -> None:
        """Write into the action under way, if there is one."""
        self.folder = folder
        self._journal, self._action = journal, action
        self._problem: HikeshiError | None = None

    def task(self, host: str, data: Mapping[str, Any]) -> None:
        """Write what became of a task. A disk that fills up meanwhile must not cut a repair in two: see `end`."""
        if self._journal and self._action and not self._problem:
            try:
                self._journal.append("task", {"run": self._action.start.seq, **data}, host=host)
            except HikeshiError as problem:
                self._problem = problem

    def end(self, status: int, why: str, changed: Mapping[str, int], returned: Mapping[str, Any]) -> None:
        """Say how it ended, keeping what the hosts returned; raise what kept the journal from being written."""
        if self._journal and self._action:
            if status:
                self._action.failed(why)
            kept = {host: self._journal.keep(json.dumps(data)) for host, data in returned.items()}
            self._action.data.update(status=status, changed=changed, returned=kept)
        if self._problem:
            raise self._problem


@contextmanager
def recorded(site: Site, playbook: str, verb: str, *, check: bool) -> Iterator[Recorded]:
    """Make the folder of a run, and write its start and its end into the journal that is open now."""
    name = f"runs/{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{verb}"
    if playbook in _NOT_JOURNALED:
        make_private_folder(site.records / name)
        yield Recorded(site.records / name, None, None)
        return
    journal = store.journal(site)
    marks = {"verb": verb, "playbook": playbook, "check": check, "folder": name}
    with journal.action("run", marks) as action:
        folder = journal.folder / name
        make_private_folder(folder)
        try:
            yield Recorded(folder, journal, action)
        finally:
            files = {path.name: digest(path.read_bytes()) for path in sorted(folder.iterdir()) if path.is_file()}
            action.data.update({**marks, "files": files})
