"""The verbs `hikeshi incident …`: parses, calls, maps to an exit status."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from hikeshi import screen
from hikeshi.errors import ExitStatus, RefusedError, UsageError
from hikeshi.incident import audit, clock, permissions, show, store
from hikeshi.incident import state as states
from hikeshi.incident.journal import Journal, actor
from hikeshi.incident.permissions import REGISTRY
from hikeshi.incident.record import Record
from hikeshi.options import JsonOption, SiteOption
from hikeshi.site import Site, load
from hikeshi.text import well_formed

app = typer.Typer(help="The incident's memory: journal, clock, permissions.", no_args_is_help=True)

LONGEST = 1000  # characters of words that are acted on; more belongs into a note
ByOption = Annotated[str, typer.Option("--by", help="Who said so; you when left out.", show_default=False)]
WordsOption = Annotated[str, typer.Option("--words", help="The words that were used.", show_default=False)]


def _words(text: str, what: str, limit: int = LONGEST) -> str:
    """Return words of the command line as they are kept; refuse what nobody would read."""
    text = well_formed(text).strip()
    if len(text) > limit:
        raise UsageError(
            f"{what} has {len(text)} characters; allowed: {limit}.", "keep it short; the whole text goes into a note"
        )
    return text


def _name(text: str) -> str:
    """Return the name of a deadline."""
    text = _words(text, "the name", 40)
    if not text or not text.isprintable():
        raise UsageError(f"{text!r} cannot name a deadline; allowed: up to 40 printable characters.")
    return text


def _done(record: Record, words: str, *, as_json: bool, **data: Any) -> None:
    if as_json:
        screen.print_json({"seq": record.seq, "at": record.at, "kind": record.kind, **record.data, **data})
    else:
        screen.out.print(screen.safe(words))


@app.command("open")
def open_incident(
    name: Annotated[str, typer.Argument(help="A short name, like tv-day.")],
    by: ByOption = "",
    words: WordsOption = "",
    site: SiteOption = None,
    as_json: JsonOption = False,
) -> None:
    """Open an incident: from now on everything done to the site is written into its journal."""
    chosen = load(site)
    now = datetime.now(UTC).astimezone(chosen.zone)
    folder = store.begin(chosen, name, _words(by, "--by") or actor(), _words(words, "--words", 10_000), now)
    journal = store.opened(chosen)
    permissions.take_over_standing(chosen, journal)
    if as_json:
        screen.print_json(show.status_data(chosen, journal, states.derive(journal.records())))
        return
    screen.out.print(f"incident {screen.safe(folder.name)} is open")
    show.remind(chosen)
    screen.say("next: hikeshi incident deadline report 15:30 --kind report --owner WHO; hikeshi recover --plan")


@app.command()
def note(
    words: Annotated[str, typer.Argument(help="What is to be remembered; with --as, a person's name.")],
    role: Annotated[
        str | None, typer.Option("--as", help=f"Give this person a role: {', '.join(states.PEOPLE)}.")
    ] = None,
    host: Annotated[str, typer.Option(help="The host it is about.")] = "",
    by: ByOption = "",
    site: SiteOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a note, or who is lead, hands, timekeeper, scribe."""
    chosen = load(site)
    show.heading(chosen)
    journal = store.journal(chosen)
    if role is None:
        text = well_formed(words)
        record = journal.append("note", {"words": text, "by": _words(by, "--by") or actor()}, host=well_formed(host))
        _done(record, "noted", as_json=as_json)
        return
    if role not in states.PEOPLE:
        raise UsageError(f"--as is '{role}'; allowed: {', '.join(states.PEOPLE)}.")
    person = _words(words, "the name", 100)
    record = journal.append("person", {"role": role, "name": person})
    _done(record, f"{person} is {role}", as_json=as_json)


@app.command()
def permit(
    name: Annotated[str, typer.Argument(help=f"What: {', '.join(permissions.NAMES)}.")],
    by: Annotated[str, typer.Option("--by", help="Who at the customer's said so.", show_default=False)],
    words: Annotated[str, typer.Option("--words", help="The words that were used.", show_default=False)],
    limit: Annotated[float | None, typer.Option(help="The most that may be spent, in the customer's currency.")] = None,
    until: Annotated[str, typer.Option(help="When it expires; at no time when left out.", show_default=False)] = "",
    refuse: Annotated[bool, typer.Option("--refuse", help="The customer refused it.")] = False,
    withdraw: Annotated[bool, typer.Option("--withdraw", help="The customer takes it back.")] = False,
    site: SiteOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write down what the customer allowed, refused or took back, in the customer's words."""
    chosen = load(site)
    meaning = REGISTRY.get(name)  # type: ignore[call-overload]
    if meaning is None:
        raise UsageError(f"unknown permission '{name}'; allowed: {', '.join(permissions.NAMES)}.")
    if refuse and withdraw:
        raise UsageError("--refuse and --withdraw say different things; give one.")
    granting = not refuse and not withdraw
    if limit is not None and (not granting or not meaning.limited or not 0 < limit < float("inf")):
        raise UsageError(f"--limit is {limit:g}; it is an amount above 0, for a permission to spend that is granted.")
    if granting and meaning.limited and limit is None:
        raise UsageError(f"'{name}' needs an amount.", f"hikeshi incident permit {name} --limit 50000 …")
    if not by.strip() or not words.strip():
        raise UsageError("a permission without --by and --words proves nothing: who said it, in which words?")
    ends = clock.parse(until, datetime.now(UTC), chosen.zone) if until and granting else None
    journal = store.opened(chosen)
    show.heading(chosen)
    kind = "permission.refused" if refuse else "permission.withdrawn" if withdraw else "permission.granted"
    data = {"name": name, "by": _words(by, "--by"), "words": _words(words, "--words"), "limit": limit}
    record = journal.append(kind, {**data, "until": clock.write(ends) if ends else None, "standing": False})
    _done(record, f"{name}: {kind.partition('.')[2]} by {data['by']}", as_json=as_json)


@app.command()
def deadline(
    name: Annotated[str, typer.Argument(help="Its name, like report.")],
    time: Annotated[
        str | None, typer.Argument(help='15:30 (today, at the site), "2026-11-25 15:30", or ISO with offset.')
    ] = None,
    owner: Annotated[str, typer.Option(help="Who keeps it; you when left out.", show_default=False)] = "",
    kind: Annotated[str, typer.Option(help=f"{', '.join(clock.KINDS)}.")] = "other",
    words: WordsOption = "",
    why: Annotated[str, typer.Option(help="Why one that stands is moved or dropped.", show_default=False)] = "",
    met: Annotated[bool, typer.Option("--met", help="It was kept.")] = False,
    drop: Annotated[bool, typer.Option("--drop", help="It no longer holds.")] = False,
    by: ByOption = "",
    site: SiteOption = None,
    as_json: JsonOption = False,
) -> None:
    """Set a deadline or a time box; move one, which needs --why; say that it was met or is dropped."""
    chosen = load(site)
    journal = store.opened(chosen)
    now = datetime.now(UTC)
    name, who = _name(name), _words(by, "--by", 100) or actor()
    if sum((time is not None, met, drop)) != 1:
        raise UsageError(
            "say one of a time, --met, --drop.", f"hikeshi incident deadline {name} 15:30 --kind report --owner WHO"
        )
    if kind not in clock.KINDS:
        raise UsageError(f"--kind is '{kind}'; allowed: {', '.join(clock.KINDS)}.")
    at = clock.parse(well_formed(time), now, chosen.zone) if time is not None else None
    with journal.locked() as ours:
        known = clock.deadlines(ours.records()).get(name)
        stands = known is not None and not known.ended
        data: dict[str, Any] = {"name": name, "by": who, "why": _words(why, "--why")}
        if not stands and at is None:
            raise UsageError(f"no deadline '{name}' stands{_standing(ours.records())}.", "hikeshi incident status")
        if stands and not met and not data["why"]:
            raise UsageError(
                f"deadline '{name}' stands ({clock.said(known.at, chosen.zone, now) if known else ''}); "  # mypy
                "to move or drop it, say why.",
                f"hikeshi incident deadline {name} {time or '--drop'} --why WHY",
            )
        if at is None:
            record = ours.append("deadline.ended", {**data, "how": "met" if met else "dropped"})
        elif known is not None and stands:
            record = ours.append("deadline.moved", {**data, "at": clock.write(at), "before": clock.write(known.at)})
        else:
            keeper = _words(owner, "--owner", 100) or actor()
            said = {"at": clock.write(at), "owner": keeper, "kind": kind, "words": _words(words, "--words")}
            record = ours.append("deadline.set", {**data, **said})
    show.heading(chosen)
    _done(
        record, states.told(record, chosen.zone) if at is None else f"{name}: {_when(chosen, at, now)}", as_json=as_json
    )


def _when(site: Site, at: datetime, now: datetime) -> str:
    return f"{clock.said(at, site.zone, now)} {site.zone.key}, {clock.span(at - now)}"


def _standing(records: list[Record]) -> str:
    return f"; there are: {', '.join(item.name for item in clock.standing(records)) or 'none'}"


@app.command()
def late(
    name: Annotated[str, typer.Argument(metavar="DEADLINE", help="The deadline that cannot be kept.")],
    until: Annotated[str, typer.Option(help="The new time.", show_default=False)] = "",
    why: Annotated[str, typer.Option(help="The reason, as the customer may read it.", show_default=False)] = "",
    sent: Annotated[bool, typer.Option("--sent", help="The words were sent: move the deadline.")] = False,
    by: ByOption = "",
    site: SiteOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the words that tell the customer we will be late; with --sent, move the deadline."""
    chosen = load(site)
    journal = store.opened(chosen)
    now = datetime.now(UTC)
    with journal.locked() as ours:
        name, records = _name(name), ours.records()
        known = clock.deadlines(records).get(name)
        if known is None or known.ended:
            raise UsageError(f"no deadline '{name}' stands{_standing(records)}.", "hikeshi incident status")
        written = clock.draft(records, name)
        if until or why or not written:
            record = ours.append("late.drafted", _draft(chosen, known, until, why, now))
            written = record.data
        if sent:
            move = {"name": name, "at": written["until"], "before": clock.write(known.at)}
            told = {"by": _words(by, "--by", 100) or actor(), "why": written["why"], "told": written["words"]}
            record = ours.append("deadline.moved", {**move, **told})
    show.heading(chosen)
    if sent:
        _done(record, f"{name} moved: {_when(chosen, clock.read(written['until']), now)}", as_json=as_json)
        return
    _done(record, str(written["words"]), as_json=as_json)
    screen.say(f"send this, then: hikeshi incident late {screen.safe(name)} --sent")


def _draft(site: Site, known: clock.Deadline, until: str, why: str, now: datetime) -> dict[str, Any]:
    why = _words(why, "--why")
    if not until or not why:
        raise UsageError(
            "the customer wants to know until when, and why.",
            f"hikeshi incident late {known.name} --until 16:00 --why WHY",
        )
    at = clock.parse(well_formed(until), now, site.zone)
    if at <= known.at:
        raise UsageError(f"--until is '{until}', not after the deadline ({clock.said(known.at, site.zone, now)}).")
    words = clock.late_words(site.data.title, known, at, why, site.zone, now)
    return {"name": known.name, "until": clock.write(at), "why": why, "words": words}


@app.command()
def status(site: SiteOption = None, as_json: JsonOption = False) -> None:
    """Show on one screen what someone who has just arrived needs to know."""
    chosen = load(site)
    show.heading(chosen)
    journal = store.journal(chosen)
    state = states.derive(journal.records())
    if as_json:
        screen.print_json(show.status_data(chosen, journal, state))
    else:
        show.status(chosen, journal, state)


@app.command()
def verify(
    incident: Annotated[
        str | None, typer.Argument(help="Folder in incidents/; the open incident, else the site's own, when left out.")
    ] = None,
    anchor: Annotated[
        Path | None,
        typer.Option(
            help="File, kept elsewhere, that knows the records so far; the new ones are added.", dir_okay=False
        ),
    ] = None,
    site: SiteOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether a journal is as it was written, and name the first bad record."""
    chosen = load(site)
    folder = _folder(chosen, incident)
    if anchor and anchor.resolve().is_relative_to(folder.parent.resolve()):
        raise UsageError(
            f"an anchor beside the journal proves nothing: {anchor}.", "--anchor /media/stick/anchor.jsonl"
        )
    verdict = audit.verify(folder, anchor)
    if as_json:
        screen.print_json({**verdict.__dict__, "whole": verdict.whole})
    else:
        _say_verdict(verdict, anchor)
    if not verdict.whole:
        raise typer.Exit(ExitStatus.FAILED)


def _folder(site: Site, incident: str | None) -> Path:
    if incident is None:
        return store.folder(site)
    root = site.records.parent
    known = sorted(path.parent.name for path in root.glob("*/journal.jsonl"))
    if incident not in known:
        raise UsageError(f"no journal '{well_formed(incident)}'; there are: {', '.join(known) or 'none'}.")
    return root / incident


def _say_verdict(verdict: audit.Verdict, anchor: Path | None) -> None:
    if verdict.whole:
        known = f", {verdict.anchored} of them anchored before" if anchor else ""
        screen.out.print(f"{screen.safe(verdict.journal)}: {verdict.records} records, whole{known}")
        screen.out.print(f"head {verdict.head}")
    else:
        screen.out.print(
            f"[bold red]{screen.safe(verdict.journal)}: record {verdict.bad} {screen.safe(verdict.why)}[/bold red]"
        )
    for line in verdict.notes:
        screen.out.print(screen.safe(line))


@app.command()
def close(
    words: WordsOption = "",
    by: ByOption = "",
    force: Annotated[bool, typer.Option("--force", help="Close although something is still open.")] = False,
    site: SiteOption = None,
    as_json: JsonOption = False,
) -> None:
    """Close the incident; refused, with what is still open, unless --force says otherwise."""
    chosen = load(site)
    show.heading(chosen)
    journal = store.opened(chosen)
    left = _left(journal)
    if left and not force:
        raise RefusedError(
            "something is still open:\n" + "\n".join(f"  {line}" for line in left),
            "close it, or: hikeshi incident close --force --words WHY",
        )
    said = {"words": _words(words, "--words"), "by": _words(by, "--by", 100) or actor()}
    store.end(chosen, {**said, "force": force, "left": left})
    if as_json:
        screen.print_json({"closed": journal.folder.name, "left": left})
        return
    for line in left:
        screen.say(f"left open: {screen.safe(line, 300)}")
    screen.out.print(f"incident {screen.safe(journal.folder.name)} is closed")


def _left(journal: Journal) -> list[str]:
    return show.left_open(states.derive(journal.records()))
