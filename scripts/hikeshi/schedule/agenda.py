"""All that is scheduled on a site at one moment: what would go off before the last deadline, and what is held.

Pure: whoever looked brings what hosts told, the time and the deadlines.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any

from hikeshi.errors import HikeshiError
from hikeshi.incident.clock import Deadline
from hikeshi.schedule import clock, seam, walltime
from hikeshi.schedule.job import Job
from hikeshi.site import VitalJob
from hikeshi.text import Redactor

WITHOUT_DEADLINE = timedelta(hours=3)  # how far is looked ahead while no deadline stands
MOST = 20  # jobs of one page, and of one record
_SKEW = timedelta(seconds=30)  # less is the time that asking takes
# Timers of our own, by name and by what they run: they open the gate, end the shield, take half a change back.
_OURS = re.compile(
    r"timer:hikeshi-(?:gate-watch|gate-undrain-[0-9a-f]+|jobs-shield-[0-9a-f]+|access-undo-[0-9a-f]+)\.timer"
)
_OUR_PROGRAM = re.compile(r"/usr/local/lib/hikeshi/[a-z_-]+(?: [a-z0-9 -]*)?")

_TARGETS = ("reboot", "poweroff", "halt", "kexec", "soft-reboot", "ctrl-alt-del")
_SHIELDED = frozenset(
    name for target in _TARGETS for name in (f"{target}.target", f"/etc/systemd/system/{target}.target")
) | {"/etc/dbus-1/system.d/hikeshi-shield.conf"}


@dataclass(frozen=True)
class Held:
    """A job that is held on a host. `due`: when it would have gone off; None where no clock says."""

    host: str
    id: str
    state: str
    at: datetime | None
    due: datetime | None
    by: str = ""
    active: bool = True  # what did not run before is not so because it is held

    @property
    def came_due(self) -> bool:
        """Whether it was released too late and is only kept: it goes off by name alone, and nothing waits for it."""
        return self.state == "came due"

    def missed(self, now: datetime) -> bool:
        """Whether its time has come while it was held."""
        return self.due is not None and self.due <= now


@dataclass
class Agenda:
    """What one look at a site's schedules found. `until` is the end of what is looked at, `until_why` why that."""

    now: datetime
    until: datetime
    until_why: str
    jobs: list[Job] = field(default_factory=list)  # the next one first
    held: list[Held] = field(default_factory=list)
    shields: dict[str, seam.Shield] = field(default_factory=dict)  # of hosts that refuse reboots
    kept: dict[tuple[str, str], str] = field(default_factory=dict)  # host, id → why it is never held unasked
    deadlines: list[Deadline] = field(default_factory=list)
    skews: dict[str, timedelta] = field(default_factory=dict)  # how far a host's clock is ahead of ours
    unseen: list[str] = field(default_factory=list)
    untold: dict[str, HikeshiError] = field(default_factory=dict)  # hosts whose words cannot be judged
    silent: list[str] = field(default_factory=list)  # hosts that told nothing
    lost: list[str] = field(default_factory=list)  # sentences on held jobs that their host cannot put back

    @property
    def before(self) -> list[Job]:
        """The jobs that may go off until then, in order, also those that wait for an event, as a boot."""
        held = {(item.host, item.id) for item in self.held}
        # A timer is still told while it is held; one that runs all the same somebody started.
        free = [job for job in self.jobs if not (job.stopped and (job.host, job.id) in held)]
        found = [
            job for host in sorted({job.host for job in free})
            for job in clock.before((job for job in free if job.host == host), self.until + self._skew(host))
        ]  # fmt: skip
        return clock.ordered(found)

    @property
    def bombs(self) -> list[Job]:
        """The same without what is never held unasked."""
        return [job for job in self.before if (job.host, job.id) not in self.kept]

    @property
    def standing(self) -> list[Held]:
        """What is held and waits to be put back."""
        return [item for item in self.held if not item.came_due]

    @property
    def kept_back(self) -> list[Held]:
        """What was released too late, and is only kept."""
        return [item for item in self.held if item.came_due]

    def on_purpose(self, host: str, subject: str) -> bool:
        """Say whether a subject of a finding or of drift is as it is because something is held, or reboots refused."""
        name = subject.partition(":")[2]
        held = (item for item in self.held if item.host == host and (item.active or name.startswith("/")))
        touched = (name in _touched(item.id) for item in held)
        return any(touched) or (host in self.shields and name in _SHIELDED)

    def _skew(self, host: str) -> timedelta:
        return self.skews.get(host, timedelta())

    def as_data(self) -> dict[str, Any]:
        """Return everything for `--json`.

        now, until (UTC), until_why; jobs: as Job.as_data has them, the next one first, each with before: whether it may
        go off until then, and kept: why it is not held unasked, or ""; held: [{host, id, state, at, due, by, missed}];
        shields: {host: {on, until, left_s, by, refused_by_dbus, not_masked}}; deadlines: [{name, at}]; skews: {host:
        seconds that its clock is ahead}; unseen, lost: [sentence]; untold: [{host, why}].
        """
        soon = {(job.host, job.id) for job in self.before}
        return {
            "now": self.now.isoformat(),
            "until": self.until.isoformat(),
            "until_why": self.until_why,
            "jobs": [
                {
                    **job.as_data(),
                    "before": (job.host, job.id) in soon,
                    "kept": self.kept.get((job.host, job.id), ""),
                }
                for job in self.jobs
            ],
            "held": [held_data(item, self.now) for item in self.held],
            "shields": {host: shield.model_dump() for host, shield in self.shields.items()},
            "deadlines": [{"name": item.name, "at": item.at.isoformat()} for item in self.deadlines],
            "skews": {host: round(skew.total_seconds()) for host, skew in self.skews.items()},
            "unseen": self.unseen,
            "lost": self.lost,
            "untold": [{"host": host, "why": problem.message} for host, problem in self.untold.items()],
        }

    def brief(self) -> dict[str, Any]:
        """Return what a record says of it: the bombs, the worst of too many; and what is held."""
        return {
            "until": self.until.isoformat(),
            "until_why": self.until_why,
            "bombs": [_brief(job) for job in clock.worst(self.bombs, MOST)],
            "more": max(0, len(self.bombs) - MOST),
            "held": [{"host": item.host, "id": item.id} for item in self.held[:MOST]],
            "held_count": len(self.held),
            "unseen": [*self.unseen, *(problem.message for problem in self.untold.values())],
            "silent": sorted({*self.silent, *self.untold}),
        }


def _brief(job: Job) -> dict[str, Any]:
    return {
        "host": job.host,
        "id": job.id,
        "next": job.next.isoformat() if job.next else None,
        "why": next((firing.why for firing in job.firings if firing.earliest is None), ""),
        "does": job.does,
        "runs": job.first_line[:200],
    }


def _touched(ident: str) -> set[str]:
    """Return the units and files that holding a job changes; see the table in roles/scheduled_jobs/README.md."""
    kind, _, rest = ident.partition(":")
    if kind in ("timer", "unit"):
        return {rest, f"/etc/systemd/system/{rest}.d", f"/etc/systemd/system/{rest}.d/zz-hikeshi-held.conf"}
    if kind == "cron":
        return {rest.rsplit(":", 2)[0]}
    files = {"at": f"/var/spool/cron/atjobs/{rest}", "anacron": "/etc/anacrontab", "periodic": rest,
             "apt": "/etc/apt/apt.conf.d/zzz-hikeshi-held"}  # fmt: skip
    return {files[kind]} if kind in files else set()


def held_data(item: Held, now: datetime) -> dict[str, Any]:
    """Return one held job as plain data."""
    return {
        "host": item.host, "id": item.id, "state": item.state, "at": item.at.isoformat() if item.at else None,
        "due": item.due.isoformat() if item.due else None, "by": item.by, "missed": item.missed(now),
    }  # fmt: skip


def horizon(deadlines: Sequence[Deadline], now: datetime) -> tuple[datetime, str]:
    """Return until when is looked ahead, and why: the last deadline that is still to come, else three hours."""
    coming = [item for item in deadlines if item.at > now]
    if not coming:
        return now + WITHOUT_DEADLINE, "no deadline stands, so three hours"
    last = max(coming, key=lambda item: item.at)
    return last.at, f"deadline {last.name}"


def make(
    told: Mapping[str, Any],
    names: Mapping[str, Iterable[str]],
    *,
    now: datetime,
    deadlines: Sequence[Deadline],
    vital: Sequence[VitalJob] = (),
    redactor: Redactor | None = None,
    until: datetime | None = None,
) -> Agenda:
    """Return the agenda of what hosts told, by host; `names` as `clock.jobs` has them, `vital` what the site needs.

    A host whose words cannot be judged keeps nobody from judging the others.
    """
    end, why = (until, "as asked") if until else horizon(deadlines, now)
    found = Agenda(now, end, why, deadlines=list(deadlines))
    known = {name.lower(): host for host, others in names.items() for name in (host, *others)}
    for host in sorted(told):
        try:
            seen = seam.read(host, told[host])
        except HikeshiError as problem:
            found.untold[host] = problem
            continue
        found.jobs += clock.host_jobs(host, seen, known)
        found.held += [
            Held(host, item.id, item.state, walltime.from_epoch(item.at), _time(item.due), item.by, item.active)
            for item in seen.held
        ]
        if seen.shield.on:
            found.shields[host] = seen.shield
        skew = (walltime.from_epoch(seen.now) or now) - now
        if abs(skew) > _SKEW and not seen.offline:
            found.skews[host] = skew
        found.unseen += [f"{host}: {words}" for words in seen.unseen]
        found.lost += [
            f"{host} holds a job that it cannot put back, its manifest in {path} cannot be read; put back by hand what "
            "is saved there, then remove that folder"
            for path in seen.lost
        ]
    found.jobs = clock.ordered(job.redacted(redactor) if redactor else job for job in found.jobs)
    found.kept = {(job.host, job.id): why for job in found.jobs if (why := _never_unasked(job, vital))}
    return found


def _time(seconds: float | None) -> datetime | None:
    return walltime.from_epoch(seconds) if seconds else None


def _never_unasked(job: Job, vital: Sequence[VitalJob]) -> str:
    if _OURS.fullmatch(job.id) and _OUR_PROGRAM.fullmatch(job.body.strip()):
        return "one of hikeshi's own"
    for item in vital:
        if fnmatchcase(job.id, item.job) and fnmatchcase(job.host, item.host):
            return f"vital: {item.why}"
    return ""
