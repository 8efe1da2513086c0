"""What of the journal stands on the screen: the heading of every verb, and the status for who has just arrived."""

import shlex
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from hikeshi import lock, screen
from hikeshi.errors import HikeshiError
from hikeshi.incident import clock, permissions, store
from hikeshi.incident import journal as journals
from hikeshi.incident import state as states
from hikeshi.incident.clock import Deadline
from hikeshi.incident.journal import Journal
from hikeshi.incident.permissions import REGISTRY, Decision
from hikeshi.incident.record import Record
from hikeshi.incident.state import Look, State
from hikeshi.probes import ProbeResult
from hikeshi.site import Site

BOMBS = 6  # of what is scheduled
LAST = 8  # how many of the last things that were done the status shows
FLOOD_TOLD = timedelta(hours=1)  # how long a flood is told that nobody saw the end of
_STYLES = {None: "", 30: "yellow", 10: "bold yellow", 0: "bold red"}


def _safe(text: object, limit: int = 2000) -> str:
    """Return text that nothing interprets, in one line: nobody may write lines of a status of his own."""
    return screen.safe(text, limit).replace("\n", "\\n")


def damage(bad: int | None) -> list[str]:
    """Return the warning that a journal is damaged; nothing for a whole one."""
    if not bad:
        return []
    so = "what it says may be incomplete, deadlines too, and earlier permissions do not count"
    return [f"[bold red]the journal is damaged at record {bad}: hikeshi incident verify[/bold red] ({so})"]


def heading(site: Site) -> None:
    """Say in one line what is left until the open incident's deadlines; nothing while there is none."""
    note_shown(site)
    time_left(site)


def note_shown(site: Site) -> None:
    """Write down what is about to be shown: the site's standing permissions, and each warning the first time."""
    if store.open_folder(site) is not None:
        journal = store.journal(site)
        with suppress(HikeshiError):  # a full disk must not keep anybody from looking
            permissions.take_over_standing(site, journal)
            _note_warnings(journal, datetime.now(UTC))


def time_left(site: Site) -> None:
    """Say the heading, and write nothing."""
    now, journal = datetime.now(UTC), store.journal(site)
    screen.use_zone(site.zone)  # every time on the page is the site's
    records = journal.records()
    for line in damage(records.bad):
        screen.err.print(line)
    for line in _flood(site, records, now):
        screen.err.print(line)
    if store.open_folder(site) is None:
        return
    standing = clock.standing(records)
    parts = [_time_left(site, deadline, now) for deadline in standing] or ["no deadline"]
    screen.err.print(" · ".join([f"[bold]{_safe(journal.folder.name)}[/bold]", _now(site, now), *parts]))
    for line in _way_out(standing, now):
        screen.err.print(line)


def _flood(site: Site, records: Iterable[Record], now: datetime) -> list[str]:
    """Return what was told last of a flood that is not over; nobody may be watching any more, so it says when."""
    last = None
    for record in records:
        if record.kind in ("flood", "flood.over"):
            last = record
    if last is None or last.kind == "flood.over" or last.data.get("kind") != "attack":
        return []
    when = clock.read(last.at)
    if now - when > FLOOD_TOLD:
        return []
    words = _safe(last.data.get("words"), 300)
    return [f"[bold red]flood[/bold red] seen {clock.said(when, site.zone, now)}: {words} (hikeshi count --watch)"]


def _now(site: Site, now: datetime) -> str:
    """Return the time now with its zone, in which every other time is said."""
    local = now.astimezone(site.zone)
    name = f"{local:%Z}"
    return f"now {local:%H:%M} {name if name.isalpha() else site.zone.key}"  # some zones have no name but a number


def _note_warnings(journal: Journal, now: datetime) -> None:
    """Write down each warning the first time it is shown."""
    if any(_new_warning(deadline, now) is not None for deadline in clock.standing(journal.records())):
        with journal.locked() as ours:
            for deadline in clock.standing(ours.records()):
                minutes = _new_warning(deadline, now)
                if minutes is not None:
                    at = clock.write(deadline.at)
                    ours.append("deadline.warned", {"name": deadline.name, "at": at, "minutes": minutes})


def _new_warning(deadline: Deadline, now: datetime) -> int | None:
    minutes = deadline.warning(now)
    return minutes if minutes is not None and (deadline.warned is None or minutes < deadline.warned) else None


def _time_left(site: Site, deadline: Deadline, now: datetime) -> str:
    minutes = deadline.warning(now)
    at, left = clock.said(deadline.at, site.zone, now), clock.span(deadline.left(now))
    words = f"{_safe(deadline.name, 60)} {at} ({_safe(deadline.owner, 60)}) {left}"
    return words if minutes is None else f"[{_STYLES[minutes]}]T-{minutes} {words}[/{_STYLES[minutes]}]"


def _way_out(standing: list[Deadline], now: datetime) -> list[str]:
    """Return what to do about the deadline that presses most, if one does."""
    if not standing or standing[0].warning(now) not in (0, 10):
        return []
    name = _safe(shlex.quote(standing[0].name))
    return [f"[bold]next:[/bold]  hikeshi incident deadline {name} --met; or hikeshi incident late {name} …"]


def remind(site: Site) -> None:
    """Say what the customer allowed and nobody has used: it may be what is needed."""
    journal = store.journal(site)
    screen.use_zone(site.zone)  # where an incident is being opened no heading came before
    permissions.take_over_standing(site, journal)
    now = datetime.now(UTC)
    for line in _unused(site, states.derive(journal.records()), now):
        screen.say(line)


def _unused(site: Site, state: State, now: datetime) -> list[str]:
    return [
        f"[bold]allowed, not used:[/bold] {item.name} ({REGISTRY[item.name].allows})"
        f" · {_safe(item.by, 100)}: “{_safe(item.words, 200)}”" + _bounds(site, item)
        for item in permissions.unused(state.permissions, now)
    ]


def _bounds(site: Site, item: Decision) -> str:
    bounds = item.bounds(site.zone)
    return f" · {bounds}" if bounds else ""


def note_probes(site: Site, view: str, results: list[ProbeResult]) -> None:
    """Write down what the customer's eyes saw."""
    store.journal(site).append("probes", {"view": view, "results": [asdict(item) for item in results]})


def status(site: Site, journal: Journal, state: State) -> None:
    """Print everything that someone who has just arrived needs, on one screen."""
    now = datetime.now(UTC)
    for line in damage(state.bad):
        screen.out.print(line)
    for part in (_header, _permissions, _people, _symptoms, _clock, _running, _left_open, _did):
        for line in part(site, state, now):
            screen.out.print(line)
    screen.out.print(f"[dim]{state.records} records in {_safe(journal.path)}[/dim]")


def _header(site: Site, state: State, now: datetime) -> list[str]:
    if state.opened and not state.closed:
        since = f"since {clock.said(state.opened.time, site.zone, now)} · {_now(site, now)}"
        words = states.words(state.opened.data.get("words"))
        lines = [f"[bold]incident {_safe(state.name)}[/bold] · {_safe(site.data.title)} · {since}"]
        lines += [f"  “{_safe(words, 500)}”"] if words else []
        lines += [f"  {_time_left(site, deadline, now)}" for deadline in state.standing]
        lines += [f"  {line}" for line in _way_out(state.standing, now)]
        return lines + ([] if state.standing else ["  no deadline: hikeshi incident deadline NAME TIME --owner WHO"])
    return [f"[bold]no incident is open[/bold] · {_safe(site.data.title)} · hikeshi incident open NAME"]


def _permissions(site: Site, state: State, now: datetime) -> list[str]:
    lines = [f"  {line}" for line in _unused(site, state, now)]
    for name, item in state.permissions.items():
        why = item.why_not(now, zone=site.zone)
        if why:
            lines.append(f"  [red]not allowed:[/red] {name} · {_safe(why, 300)}")
        elif item.used:
            spent = f" ({permissions.number(item.spent)})" if item.spent else ""
            used = f"used {item.used} times{spent}"
            lines.append(f"  allowed, {used}: {name} · {_safe(item.by, 100)}{_bounds(site, item)}")
    return ["[bold]permissions[/bold]", *lines] if lines else []


def _people(site: Site, state: State, now: datetime) -> list[str]:
    said = [f"{role} {_safe(state.people[role], 100)}" for role in states.PEOPLE if role in state.people]
    return [f"[bold]people[/bold] {' · '.join(said)}"] if said else []


def _symptoms(site: Site, state: State, now: datetime) -> list[str]:
    lines = []
    red: dict[tuple[str, str], list[str]] = {}  # what several views see alike is said once
    for view, looks in state.looks.items():
        for look in looks.values():
            if look.red:
                what = f"{_safe(look.result.get('title'), 100)}: {_safe(look.result.get('seen'), 200)}"
                red.setdefault((_seen(site, look, now), what), []).append(_safe(view))
    for (at, what), views in red.items():
        lines.append(f"  [bold red]red[/bold red] ({at}, {', '.join(views)}) {what}")
    for view, looks in state.looks.items():
        if looks and not any(look.red for look in looks.values()):
            oldest = min(looks.values(), key=lambda look: look.record.seq)
            lines.append(f"  [green]all {len(looks)} green[/green] ({_seen(site, oldest, now)}, {_safe(view)})")
    kept = state.findings.data.get("found") if state.findings else []
    found = states.dicts(kept)
    lines += [f"  [yellow]found[/yellow] {_safe(states.words(kept), 300)}"] if isinstance(kept, dict) else []
    lines += [
        f"  [yellow]found[/yellow] the customer {_safe(item.get('effect'))} · {_safe(item.get('host'))}"
        f" · {_safe(item.get('cause'), 200)}"
        for item in found[:10]
    ]
    lines += [f"  … and {len(found) - 10} more"] if len(found) > 10 else []
    refused = states.dicts(state.findings.data.get("refused")) if state.findings else []
    lines += [f"  [bold red]not judged[/bold red] {_safe(item.get('why'), 300)}" for item in refused]
    return ["[bold]symptoms[/bold]", *(lines or ["  nobody has looked yet: hikeshi probe"])]


def _clock(site: Site, state: State, now: datetime) -> list[str]:
    """Return what would go off before the last deadline, as the last look saw it; held jobs are to be put back."""
    if state.agenda is None and not state.disks:
        return ["[bold]clock[/bold] nobody has looked yet what is scheduled: hikeshi jobs list"]
    data = state.agenda.data if state.agenda else {"until_why": "hosts: nobody has looked"}
    seen = clock.said(state.agenda.time, site.zone, now) if state.agenda else "never"
    told = [*states.dicts(data.get("bombs")), *(job for record in state.disks.values() for job in _on_disk(record))]
    rows = [item for item in told if _ident(item) not in state.held]
    # What is held on a copy's disk alone still goes off on the original, as long as that runs.
    rows += [
        {**item, "where": "not held on its original disk, from which it runs; nobody gets in"}
        for host, record in state.originals.items() if host not in state.swapped
        for item in states.dicts(record.data.get("bombs")) if _ident(item) not in map(_ident, rows)
    ]  # fmt: skip
    lines = [f"  {_bomb(site, item, now)}" for item in rows[:BOMBS]]
    untold = [data.get("more"), *(record.data.get("more") for record in state.disks.values())]
    more = len(rows) - len(rows[:BOMBS]) + sum(count for count in untold if isinstance(count, int))
    lines += [f"  … and {more} more: hikeshi jobs list"] if more else []
    if not rows:
        lines = ["  nothing would go off before the last deadline"]
    unseen = data.get("unseen")
    lines += [f"  not seen: {_safe(words, 200)}" for words in (unseen if isinstance(unseen, list) else [])[:3]]
    return [f"[bold]clock[/bold] (seen {seen}; {_safe(data.get('until_why'), 100)})", *lines]


def _ident(job: dict[str, Any]) -> tuple[str, str]:
    return str(job.get("host")), str(job.get("id"))


def _on_disk(record: Record) -> list[dict[str, Any]]:
    """Return what would go off when the disk of a copy boots: nobody holds it yet."""
    where = f"not held, on the disk of copy {record.data.get('disk')}"
    return [{**item, "where": where} for item in states.dicts(record.data.get("bombs"))]


def _bomb(site: Site, item: dict[str, Any], now: datetime) -> str:
    try:
        at = clock.said(clock.read(str(item.get("next"))), site.zone, now)
    except (ValueError, OverflowError):
        at = _safe(item.get("why") or "on an event", 100)
    words = f"{at} · {_safe(item.get('host'), 60)} · {_safe(item.get('does'), 100)} · {_safe(item.get('runs'), 100)}"
    return words + (f" · {_safe(item['where'], 100)}" if "where" in item else "")


def _seen(site: Site, look: Look, now: datetime) -> str:
    return clock.said(look.record.time, site.zone, now)


def _running(site: Site, state: State, now: datetime) -> list[str]:
    owner = lock.living_owner(site)
    lines = [f"  the site is being changed by {_safe(owner, 300)}"] if owner else []
    for record in state.unfinished:
        alive = journals.writer_lives(record)
        what = states.words(record.data.get("stage") or record.data.get("playbook") or record.kind.partition(".")[0])
        verdict = "running" if alive else "[red]cut off[/red]"
        since = clock.said(record.time, site.zone, now)
        who = f"{_safe(record.actor)}, pid {record.pid}"
        lines.append(f"  {verdict}: {_safe(what, 100)} since {since} · {who}")
    return ["[bold]running[/bold]", *lines] if lines else []


def _left_open(site: Site, state: State, now: datetime) -> list[str]:
    lines = [f"  {_safe(item.words, 200)} · {_safe(item.close, 200)}" for item in state.items.values()]
    return ["[bold]to be put back[/bold]", *lines] if lines else []


def left_open(state: State) -> list[str]:
    """Return what keeps an incident from being closed: what must be put back, what stands, what still runs."""
    running = [record for record in state.unfinished if journals.writer_lives(record)]
    return state.left_open() + [f"running: {states.told(record)} (pid {record.pid})" for record in running]


def _did(site: Site, state: State, now: datetime) -> list[str]:
    lines = [f"  {_line(site, record, now)}" for record in state.did[-LAST:]]
    return ["[bold]done last[/bold]", *lines] if lines else []


def _line(site: Site, record: Record, now: datetime) -> str:
    host = f" · {_safe(record.host, 60)}" if record.host else ""
    at = clock.said(record.time, site.zone, now)
    return f"{at} {_safe(record.actor, 60)}{host} · {_safe(states.told(record, site.zone), 120)}"


def status_data(site: Site, journal: Journal, state: State) -> dict[str, Any]:
    """Return the same as data."""
    now = datetime.now(UTC)
    return {
        "site": site.name,
        "incident": journal.folder.name if state.opened and not state.closed else None,
        "folder": str(journal.folder),
        "opened": state.opened.at if state.opened else None,
        "deadlines": [_deadline_data(deadline, now) for deadline in state.deadlines.values()],
        "permissions": {
            name: {
                "allowed": not item.why_not(now),
                "why_not": item.why_not(now, zone=site.zone),
                "by": item.by,
                "words": item.words,
                "limit": item.limit,
                "until": clock.write(item.until) if item.until else None,
                "used": item.used,
                "spent": item.spent,
            }
            for name, item in state.permissions.items()
        },
        "unused": [item.name for item in permissions.unused(state.permissions, now)],
        "people": state.people,
        "probes": {
            view: [{**look.result, "at": look.record.at} for look in looks.values()]
            for view, looks in state.looks.items()
        },
        "findings": state.findings.data.get("found") if state.findings else None,
        "refused": state.findings.data.get("refused", []) if state.findings else None,
        "agenda": {"at": state.agenda.at, **state.agenda.data} if state.agenda else None,
        "disks": {host: {"at": record.at, **record.data} for host, record in state.disks.items()},
        "running": [
            {**asdict(record), "alive": journals.writer_lives(record), "told": states.told(record)}
            for record in state.unfinished
        ],
        "lock": lock.living_owner(site) or None,
        "left_open": left_open(state),
        "did": [
            {"at": item.at, "actor": item.actor, "host": item.host, "kind": item.kind, "told": states.told(item)}
            for item in state.did[-LAST:]
        ],
        "records": state.records,
        "damaged_at": state.bad,
    }


def _deadline_data(deadline: Deadline, now: datetime) -> dict[str, Any]:
    return {
        "name": deadline.name,
        "at": clock.write(deadline.at),
        "left_s": round(deadline.left(now).total_seconds()),
        "owner": deadline.owner,
        "kind": deadline.kind,
        "words": deadline.words,
        "moved": deadline.moved,
        "ended": deadline.ended,
    }
