"""Scheduled jobs around a recovery: held before anything is mended, released when the shop works again.

Holding is an option of a recovery's: what keeps it from holding is said, and keeps nobody from mending.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from hikeshi import bombs, screen
from hikeshi.bombs import Outcome
from hikeshi.errors import HikeshiError
from hikeshi.incident import clock, permissions, store
from hikeshi.incident.stages import Stages
from hikeshi.schedule import page
from hikeshi.schedule.agenda import Agenda, Held
from hikeshi.schedule.job import Job
from hikeshi.site import Site
from hikeshi.triage.findings import Finding

HOLD, RELEASE = "hold jobs", "release jobs"


class Jobs:
    """The site's scheduled jobs as one recovery finds, holds and leaves them."""

    def __init__(self, site: Site, track: Stages) -> None:
        """Know nothing of them yet."""
        self.site, self._track = site, track
        self._grave: dict[tuple[str, str], Job] = {}  # what we hold that must not go off before the last deadline
        self.left: list[Held] = []  # what stays held at the end

    def look(self, seen: Agenda) -> None:
        """Say what would go off, as the first look saw it."""
        for words in page.bombs(seen, self.site.zone):
            screen.say(words)
        for host, problem in seen.untold.items():
            words = f"{screen.line(host)}: {screen.line(problem.message, 300)}"
            screen.say(f"[bold red]its jobs are not judged[/bold red]: {words}")

    @property
    def ours(self) -> bool:
        """Whether a recovery, this one or one before, holds jobs: what a person held, only a person releases."""
        held = bombs.held_open(self.site)
        return held is not None and held.record.data.get("recovery") is not None

    @property
    def told(self) -> str:
        """In one sentence what stays held at the end; empty where nothing does."""
        if not self.left:
            return ""
        due = [item.due for item in self.left if item.due and item.due > datetime.now(UTC)]
        first = f", the first until {self._said(min(due))}" if due else ""
        return (
            f"{bombs.count(self.left)} stay held{first}; to put them back: hikeshi jobs release --site {self.site.name}"
        )

    def _said(self, at: datetime) -> str:
        return clock.said(at, self.site.zone, datetime.now(UTC))

    def may_hold(self, seen: Agenda, found: Sequence[Finding]) -> list[Job]:
        """Return what would be held now; nothing where the customer has not allowed it, which is said once.

        A unit that is to be mended is not held: nobody could see whether that helped.
        """
        ill = {(item.host, item.subject.partition(":")[2]) for item in found}
        jobs = [job for job in seen.bombs if (job.host, job.id.partition(":")[2]) not in ill]
        if not jobs:
            return []
        why = bombs.why_not(self.site)
        if why and any(job.grave for job in jobs):
            ask = permissions.REGISTRY["hold-jobs"].ask
            screen.say(f"no job is held: permission 'hold-jobs' is needed, and {screen.line(why, 300)}")
            screen.say(f"ask the customer: “{ask}” Then: {permissions.how_to_allow(self.site, 'hold-jobs')}")
        if why:
            self._track.skip(HOLD, f"permission 'hold-jobs': {why}")
        return [] if why else jobs

    def hold(self, seen: Agenda, jobs: Sequence[Job]) -> None:
        """Hold them; what cannot be held is said, and left."""
        done = Outcome(seen)
        try:
            with self._track.stage(HOLD, count=len(jobs)) as action:
                bombs.hold_jobs(self.site, done, jobs, recovery=self._track.number)
                if not done.ok:
                    action.failed("; ".join(self._wrong(done)))
        except HikeshiError as problem:
            screen.say(f"jobs were not held, going on: {screen.line(problem.message, 400)}")
            return
        self._grave = {(job.host, job.id): job for job in jobs if job.grave}
        self.left = [
            Held(item.host, item.id, "held", None, item.due) for item in done.results if item.result == "held"
        ] + seen.standing
        for words in self._wrong(done):
            screen.say(f"[bold red]wrong[/bold red] {screen.line(words, 400)}")
        refusing = [host for host, on in done.shields.items() if on]
        also = f"; reboots are refused on {screen.line(', '.join(refusing))}" if refusing else ""
        held = sum(item.result in ("held", "already held") for item in done.results)
        screen.say(f"{held} jobs are held until the end{also}")

    @staticmethod
    def _wrong(done: Outcome) -> list[str]:
        return [
            *(f"{item.host} · {item.id}: {item.why}" for item in done.results if item.failed),
            *(item.problem.message for item in done.refused),
            *done.wrong,
        ]

    def release(self) -> None:
        """Put back what a recovery held, but for what would still do harm before the last deadline."""
        if not self.ours:
            return
        try:
            with self._track.stage(RELEASE) as action:
                done = bombs.agenda(self.site)
                kept = [item for item in done.agenda.standing if self._too_early(item, done.agenda)]
                chosen = [item for item in done.agenda.standing if item not in kept]
                keeping = {item.host for item in kept}
                shields = sorted(done.agenda.shields.keys() - keeping)
                bombs.release_jobs(self.site, done, chosen, shields=shields)
                if not chosen and not shields:
                    bombs.note_closed(self.site, done)
                gone = {(item.host, item.id) for item in done.results if not item.failed}
                self.left = [item for item in done.agenda.standing if (item.host, item.id) not in gone]
                if not done.ok:
                    action.failed("; ".join(self._wrong(done)))
        except HikeshiError as problem:
            screen.say(f"[bold red]jobs are not released[/bold red]: {screen.line(problem.message, 400)}")
            return
        for words in self._wrong(done):
            screen.say(f"[bold red]wrong[/bold red] {screen.line(words, 400)}")
        grave = self._grave_ids()
        for item in done.results:
            what = f"{screen.line(item.host)} · {screen.line(item.id, 200)}"
            if item.missed and item.due:
                screen.say(f"came due at {self._said(item.due)} while it was held, and was not run: {what}")
            elif item.due and item.due < done.agenda.until and (grave is None or (item.host, item.id) in grave):
                screen.say(f"[bold yellow]put back, goes off {self._said(item.due)}[/bold yellow]: {what}")
        for left in kept:
            at = self._said(left.due) if left.due else "on an event"
            what = f"{screen.line(left.host)} · {screen.line(left.id, 200)}"
            until = self._said(done.agenda.until)
            screen.say(f"[bold yellow]still held[/bold yellow]: {what}, which would go off {at}, before {until}")

    def _too_early(self, item: Held, seen: Agenda) -> bool:
        """Say whether a held job would still go off before a deadline that stands, and is not known to be harmless.

        Without a deadline nobody waits for anything, and all of it goes back.
        """
        if not any(deadline.at > seen.now for deadline in seen.deadlines) or item.missed(seen.now):
            return False
        known = self._grave_ids()
        soon = item.due is None or item.due < seen.until
        return soon and ((item.host, item.id) in known if known is not None else True)

    def _grave_ids(self) -> set[tuple[str, str]] | None:
        """Return which of the held jobs may do harm, as the journal tells of their holding; None where it does not."""
        found = set(self._grave)  # and what was held on a disk, or by a recovery before
        told = bool(found)
        for record in store.journal(self.site).records():
            if record.kind == "jobs.held" and isinstance(record.data.get("jobs"), list):
                told = True
                found |= {
                    (str(item.get("host")), str(item.get("id"))) for item in record.data["jobs"] if item.get("grave")
                }
        return found if told else None
