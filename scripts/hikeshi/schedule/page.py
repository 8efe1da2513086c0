"""The agenda as people see it: one clock that fits a terminal, jobs and deadlines in the order in which they come."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from rich.table import Table

from hikeshi import screen
from hikeshi.incident import clock as incident_clock
from hikeshi.schedule import clock
from hikeshi.schedule.agenda import MOST, Agenda, Held
from hikeshi.schedule.job import Firing, Job
from hikeshi.screen import line


def show(agenda: Agenda, zone: ZoneInfo, *, verbose: bool) -> None:
    """Print what would go off before the last deadline, and what is held; with `verbose` all jobs, worst first."""
    soon = agenda.before
    end = f"{incident_clock.said(agenda.until, zone, agenda.now)} ({line(agenda.until_why, 100)})"
    screen.out.print(f"[bold]{len(soon)} of {len(agenda.jobs)} jobs may go off until {end}[/bold]")
    rows = sorted(agenda.jobs, key=clock.badness) if verbose else clock.worst(soon, MOST)
    if rows:
        screen.out.print(_table(agenda, rows, zone, verbose=verbose))
    if not verbose and len(soon) > len(rows):
        screen.out.print(f"… and {len(soon) - len(rows)} less grave ones until then (--verbose)")
    _held(agenda, zone, verbose=verbose)
    for host, shield in agenda.shields.items():
        ends = datetime.fromtimestamp(agenda.now.timestamp() + shield.left_s, UTC)
        but = f", but for {line(', '.join(shield.not_masked), 200)}" if shield.not_masked else ""
        until = incident_clock.said(ends, zone, agenda.now)
        screen.out.print(f"[bold yellow]reboots are refused[/bold yellow] on {line(host)} until {until}{but}")
    for host, skew in agenda.skews.items():
        ahead = "ahead of" if skew.total_seconds() > 0 else "behind"
        screen.out.print(
            f"[bold yellow]{line(host)}'s clock is {abs(skew.total_seconds()):.0f} s {ahead} ours[/bold yellow]: "
            "its jobs' times are its own"
        )
    for host, problem in agenda.untold.items():
        screen.out.print(f"[bold red]not judged[/bold red] {line(host)}: {line(problem.message, 400)}")
    for words in agenda.unseen if verbose else agenda.unseen[:3]:
        screen.out.print(f"not seen: {line(words, 300)}")


def bombs(agenda: Agenda, zone: ZoneInfo, most: int = 6) -> list[str]:
    """Return lines on what would go off before the last deadline and may do harm, as one sees them among others.

    What is only not understood is counted: on any Debian some jobs of its own are, and would hide a real bomb.
    """
    grave = [job for job in agenda.bombs if job.harmful]
    dark = [job for job in agenda.bombs if job.grave and not job.harmful]
    rows = clock.worst(grave, most)
    end = incident_clock.said(agenda.until, zone, agenda.now)
    lines = [
        f"[bold yellow]will go off[/bold yellow] {_next(job, zone, agenda)} · {line(job.host)} · {_does(job)} · "
        f"{line(job.first_line, 100)} ({line(job.id, 100)})"
        for job in rows
    ]
    if len(grave) > len(rows):
        lines.append(f"… and {len(grave) - len(rows)} more until {end}: hikeshi jobs list")
    if dark:
        also = " more" if grave else ""
        lines.append(f"{len(dark)}{also} jobs that may go off until {end} are not understood: hikeshi jobs list")
    if agenda.standing:
        missed = sum(item.missed(agenda.now) for item in agenda.standing)
        would = f", {missed} of them would have gone off" if missed else ""
        lines.append(f"{len(agenda.standing)} jobs are held{would}: hikeshi jobs list")
    lines += [f"[bold red]wrong[/bold red] {line(words, 400)}" for words in agenda.lost]
    return lines


def _table(agenda: Agenda, rows: list[Job], zone: ZoneInfo, *, verbose: bool) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("when", "host", "id", "it", "runs"):
        table.add_column(column, overflow="fold")
    marks = [] if verbose else [item for item in agenda.deadlines if item.at > agenda.now]
    for job in rows:
        while marks and (job.next is None or marks[0].at <= job.next):
            _deadline(table, agenda, marks.pop(0), zone)
        kept = agenda.kept.get((job.host, job.id), "")
        does = _does(job) + (f"\n[dim]{line(kept, 200)}[/dim]" if kept else "")
        runs = _runs(job, verbose=verbose)
        table.add_row(_when(job, zone, agenda.now), line(job.host), line(job.id, 200), does, runs)
    for item in marks:
        _deadline(table, agenda, item, zone)
    return table


def _deadline(table: Table, agenda: Agenda, item: incident_clock.Deadline, zone: ZoneInfo) -> None:
    at = incident_clock.said(item.at, zone, agenda.now)
    table.add_row(f"[bold]{at}[/bold]", "", f"[bold]deadline {line(item.name, 60)}[/bold]", "", line(item.owner, 60))


def _held(agenda: Agenda, zone: ZoneInfo, *, verbose: bool) -> None:
    kept = "came due while they were held[/bold], and are kept; to run one: hikeshi jobs release --run ID"
    for held, what in (
        (agenda.standing, "are held[/bold]; to put them back: hikeshi jobs release"),
        (agenda.kept_back, kept),
    ):
        if held:
            screen.out.print(f"[bold]{len(held)} jobs {what}")
        for item in held if verbose else held[:MOST]:
            screen.out.print(f"  {line(item.host)} · {line(item.id, 200)} · {held_words(item, zone, agenda.now)}")
        if not verbose and len(held) > MOST:
            screen.out.print(f"  … and {len(held) - MOST} more (--verbose)")


def held_words(item: Held, zone: ZoneInfo, now: datetime) -> str:
    """Return how a held job stands."""
    words = [] if item.state == "held" else [line(item.state, 40)]
    if item.due:
        would = "would have gone off" if item.missed(now) else "would go off"
        words.append(f"{would} {incident_clock.said(item.due, zone, now)}")
    if item.at:
        words.append(
            f"held since {incident_clock.said(item.at, zone, now)}" + (f" by {line(item.by, 60)}" * bool(item.by))
        )
    return ", ".join(words)


def _next(job: Job, zone: ZoneInfo, agenda: Agenda) -> str:
    events = [line(firing.why, 100) for firing in job.firings if firing.on_event]
    if job.next and (job.next <= agenda.until or not events):
        return incident_clock.said(job.next, zone, agenda.now)
    return events[0] if events else "never"


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
    return who + (screen.safe(job.body, 4000) if verbose else line(job.first_line, 160))
