"""Mend the disk of a working copy with the roles' own disk steps, in a container whose root it is."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hikeshi.bombs import Result
from hikeshi.copies.disk import DiskLook
from hikeshi.copies.record import Copy
from hikeshi.schedule.job import Job
from hikeshi.site import Site
from hikeshi.steps import Mended
from hikeshi.triage.drift import Drift


@dataclass
class DiskMended:
    """All that was done to a disk."""

    look: DiskLook  # the last one: `look.found` is what is left
    steps: list[Mended] = field(default_factory=list)
    held: list[Result] = field(default_factory=list)  # what became of each job that was to be held
    difference: list[Drift] = field(default_factory=list)  # the disk before (`before`) and after it (`after`)
    texts: dict[str, list[str]] = field(default_factory=dict)  # subject → lines of how an ordinary file's text differs

    @property
    def healthy(self) -> bool:
        """Whether nothing is left to be mended on the disk, and all that was to be held is held."""
        return not self.look.found and not any(item.failed for item in self.held)

    def as_data(self) -> dict[str, Any]:
        """Return it for `--json`: {look, steps, held, difference}, as recover and jobs have them."""
        raise NotImplementedError


def mend(site: Site, copy: Copy, look: DiskLook, *, holds: Sequence[Job]) -> DiskMended:
    """Hold these jobs on the working copy's disk, take the plan's steps, look again; up to four rounds.

    Journaled as steps `hold`, `mend` (one a round) and `judge` of the copy, and as a record `copy.difference`. Killed
    anywhere it is called again with a new look: what is held stays so, a step that was taken changes nothing. Raises
    where the disk cannot be worked on at all (a job that cannot be held is in `held`). Whoever calls holds the
    site's lock, and has the customer's permission to hold jobs (permissions.require "hold-jobs") where `holds` has any.
    """
    raise NotImplementedError
