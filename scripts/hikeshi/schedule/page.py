"""The clock as people see it: one page that fits a terminal, worst first; and the same for programs."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from rich.table import Table

from hikeshi import screen
from hikeshi.incident import clock as incident_clock
from hikeshi.schedule import marks
from hikeshi.schedule.job import Firing, Job
from hikeshi.screen import line

ROWS = 20  # of one page


def show(found: Sequence[Job], zone: ZoneInfo, now: datetime, *, verbose: bool) -> None:
    """Print jobs, worst first; with `verbose` all of them, and all of what each runs."""
    rows = sorted(found, key=_badness) if verbose else sorted((job for job in found if job.firings), key=_badness)
    if not rows:
        screen.out.print("nothing is scheduled that would fire" if not verbose else "nothing is scheduled")
        return
    table = Table(box=None, pad_edge=False)
    for column in ("when", "host", "id", "it", "runs"):
        table.add_column(column, overflow="fold")
    for job in rows if verbose else rows[:ROWS]:
        table.add_row(_when(job, zone, now), line(job.host), line(job.id, 200), _does(job), _runs(job, verbose=verbose))
    screen.out.print(table)
    left = len(found) - (len(rows) if verbose else min(len(rows), ROWS))
    if left:
        screen.out.print(f"… and {left} more, worst first or never firing (--verbose)")


def _badness(job: Job) -> tuple[bool, int, bool, float, str, str]:
    """Order: what fires before what does not, by what it does, what is not understood before what is, then by time."""
    at = job.next.timestamp() if job.next else float("inf")
    return not job.firings, marks.worst(job.marks), not job.unknown, at, job.host, job.id


def _when(job: Job, zone: ZoneInfo, now: datetime) -> str:
    if not job.firings:
        return f"never: {line(job.stopped, 200)}"
    times = [firing for firing in job.firings if firing.earliest is not None]
    words = [_firing(min(times, key=lambda item: item.earliest or now), zone, now)] if times else []
    words += [line(firing.why, 200) for firing in job.firings if firing.earliest is None]
    if job.stopped:
        words.append(f"[dim]{line(job.stopped, 200)}[/dim]")
    return "\n".join(words)


def _firing(firing: Firing, zone: ZoneInfo, now: datetime) -> str:
    said = incident_clock.said(firing.earliest, zone, now) if firing.earliest else ""
    if firing.latest is None:
        said += " or later"
    elif firing.latest != firing.earliest:
        said += f" to {incident_clock.said(firing.latest, zone, now)}"
    return said + (f"\n{line(firing.why, 200)}" if firing.why else "")


def _does(job: Job) -> str:
    words = [f"[bold red]{mark}[/bold red]" if mark in ("reboots", "deletes") else mark for mark in job.marks]
    words += [f"goes to {line(host)}" for host in job.reaches]
    words += ["is not understood"] * job.unknown
    return ", ".join(words) or "nothing marked"


def _runs(job: Job, *, verbose: bool) -> str:
    who = f"{line(job.user, 40)}: " if job.user else ""
    lines = [text for text in job.body.splitlines() if text.strip() and not text.startswith("#!")] or [""]
    if verbose:
        return who + screen.safe(job.body, 4000)
    more = f" … {len(lines) - 1} more lines" if len(lines) > 1 else ""
    return who + line(lines[0].strip(), 120) + more


def data(found: Sequence[Job]) -> list[dict[str, Any]]:
    """Return jobs for `--json`, in the order in which they were given.

    id, host, kind (at, cron, periodic, anacron, timer, shutdown, apt, unit), user, schedule, body; marks (of: reboots,
    deletes, stops, firewalls, overwrites, syncs), reaches (hosts); unknown: not all of the body is understood; stopped:
    what keeps it from firing, "" when nothing does; firings: earliest and latest (UTC, null: no clock says), why. A job
    without firings never fires as things are.
    """
    return [
        {
            "id": job.id, "host": job.host, "kind": job.kind, "user": job.user, "schedule": job.schedule,
            "body": job.body, "marks": list(job.marks), "reaches": list(job.reaches), "unknown": job.unknown,
            "stopped": job.stopped, "firings": [_firing_data(firing) for firing in job.firings],
        }
        for job in found
    ]  # fmt: skip


def _firing_data(firing: Firing) -> dict[str, str | None]:
    times = {"earliest": firing.earliest, "latest": firing.latest}
    return {name: at.isoformat() if at else None for name, at in times.items()} | {"why": firing.why}
