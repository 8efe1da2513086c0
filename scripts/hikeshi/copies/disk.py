"""What the disk of a copy tells, judged by the same rules as a host: findings, plan, and what would go off.

The working copy's disk is opened and looked at; nothing of it is changed, and what is scheduled there is not held yet.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hikeshi.baseline import Baseline
from hikeshi.copies.record import Copy
from hikeshi.schedule.agenda import Agenda
from hikeshi.schedule.job import Job
from hikeshi.site import Site
from hikeshi.triage.drift import Drift
from hikeshi.triage.findings import Finding
from hikeshi.triage.plan import Plan


@dataclass(frozen=True)
class DiskLook:
    """One look at the disk of a working copy."""

    copy: str  # its id
    host: str
    evidence: Mapping[str, Any]  # schema 1, as far as a disk tells, and its `state`
    found: list[Finding]
    plan: Plan  # disk steps only
    agenda: Agenda  # of this disk alone
    drift: list[Drift]  # from the baseline, reported; what of it matters is among the findings
    unseen: list[str]  # in sentences
    against: Baseline | None

    @property
    def bombs(self) -> list[Job]:
        """What would go off before the last deadline once this disk boots: to be held on it before."""
        return self.agenda.bombs

    def as_data(self) -> dict[str, Any]:
        """Return it for `--json`: {copy, host, findings, plan, agenda, drift, unseen}, as triage has them."""
        raise NotImplementedError


def judge(site: Site, copy: Copy) -> DiskLook:
    """Open the working copy (made if there is none), look, judge, close it again. Changes nothing on it.

    Journaled as step `judge` of the copy, with a record `agenda` that says that nothing of it is held. Raises
    RefusedError for a copy that is not verified or is swapped in, HikeshiError where the disk does not tell. Whoever
    calls holds the site's lock.
    """
    raise NotImplementedError
