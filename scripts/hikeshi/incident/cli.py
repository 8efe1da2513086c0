"""The verbs `hikeshi incident …`: parses, calls, maps to an exit status."""

import shlex
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from hikeshi import lock, screen
from hikeshi.errors import ExitStatus, HikeshiError, RefusedError, UsageError
from hikeshi.incident import audit, clock, deadline, opening, permissions, show, store
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
    """Return the name of a deadline: in small letters, so that Report and report are one."""
    text = _line(text, "the name of a deadline", 40)
    if not text:
        raise UsageError(f"{text!r} cannot name a deadline; allowed: up to 40 printable characters.")
    return text.casefold()


def _line(text: str, what: str, limit: int = 100) -> str:
    """Return a name of the command line, which must stand in one line of a screen."""
    text = _words(text, what, limit)
    if not text.isprintable():
        raise UsageError(f"{what} is {text!r}; allowed: one line of printable characters.")
    return text


def _done(record: Record, words: str, *, as_json: bool) -> None:
    if as_json:
        screen.print_json({"seq": record.seq, "at": record.at, "kind": record.kind, "data": record.data})
    else:
        screen.out.print(screen.safe(words), soft_wrap=True)  # words to copy: no line may end where they do not


@app.command("open")
def open_incident(
    name: Annotated[str, typer.Argument(help="A short name, like tv-day.")],
    by: ByOption = "",
    words: WordsOption = "",
    again: Annotated[
        bool, typer.Option("--again", help="Go on with one that was closed; its journal goes on.")
    ] = False,
    site: SiteOption = None,
    as_json: JsonOption = False,
) -> None:
    """Open an incident: from now on everything done to the site is written into its journal."""
    chosen = load(site)
    who, said = _line(by, "--by") or actor(), _words(words, "--words", 10_000)
    journal = opening.begin(chosen, name, who, said, again=again)
    if as_json:
        screen.print_json(show.status_data(chosen, journal, states.derive(journal.records())))
        return
    screen.out.print(f"incident {screen.safe(journal.folder.name)} is open{' again' if again else ''}")
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
    text = well_formed(words).strip()
    if not text:
        raise UsageError("there is nothing to note.", 'hikeshi incident note "the disk is full"')
    if host and host not in (hosts := chosen.hosts()):
        raise UsageError(f"--host is {host!r}; allowed: {', '.join(hosts)}.")
    if role is None:
        data = {"words": text, "by": _line(by, "--by") or actor()}
        record = journal.append("note", data, host=host)
        _done(record, "noted", as_json=as_json)
        return
    role = role.casefold()
    if role not in states.PEOPLE:
        raise UsageError(f"--as is '{role}'; allowed: {', '.join(states.PEOPLE)}.")
    person = _line(text, "the name")
    record = journal.append("person", {"role": role, "name": person})
    _done(record, f"{person} is {role}", as_json=as_json)


@app.command()
def permit(
    name: Annotated[str, typer.Argument(help=f"What: {', '.join(permissions.NAMES)}.")],
    by: Annotated[str, typer.Option("--by", help="Who at the customer's said so.", show_default=False)],
    words: Annotated[str, typer.Option("--words", help="The words that were used.", show_default=False)],
    limit: Annotated[
        float | None, typer.Option(help="How often; of spend, how much at most, in the customer's currency.")
    ] = None,
    until: Annotated[str, typer.Option(help="When it expires; at no time when left out.", show_default=False)] = "",
    refuse: Annotated[bool, typer.Option("--refuse", help="The customer refused it.")] = False,
    withdraw: Annotated[bool, typer.Option("--withdraw", help="The customer takes it back.")] = False,
    site: SiteOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write down what the customer allowed, refused or took back, in the customer's words."""
    chosen = load(site)
    name = name.casefold()
    meaning = REGISTRY.get(name)  # type: ignore[call-overload]
    if meaning is None:
        raise UsageError(f"unknown permission '{name}'; allowed: {', '.join(permissions.NAMES)}.")
    if refuse and withdraw:
        raise UsageError("--refuse and --withdraw say different things; give one.")
    granting = not refuse and not withdraw
    if not granting and (limit is not None or until):
        raise UsageError("--limit and --until belong to what is granted.")
    if limit is not None and not (0 < limit < float("inf") and (meaning.by_amount or limit.is_integer())):
        allowed = "an amount above 0" if meaning.by_amount else "how often: 1, 2, 3 …"
        raise UsageError(f"--limit is {limit:g}; allowed for {name}: {allowed}")
    if granting and meaning.by_amount and limit is None:
        raise UsageError(f"'{name}' needs an amount.", f"hikeshi incident permit {name} --limit 50000 …")
    if not by.strip() or not words.strip():
        raise UsageError("a permission without --by and --words proves nothing: who said it, in which words?")
    ends = clock.parse(well_formed(until), datetime.now(UTC), chosen.zone) if until else None
    journal = store.opened(chosen)
    show.heading(chosen)
    kind = "permission.refused" if refuse else "permission.withdrawn" if withdraw else "permission.granted"
    data = {"name": name, "by": _line(by, "--by"), "words": _words(words, "--words"), "limit": limit}
    record = journal.append(kind, {**data, "until": clock.write(ends) if ends else None, "standing": False})
    bounds = permissions.bounds(meaning, limit, ends, chosen.zone)
    said = f"{name}: {kind.partition('.')[2]} by {data['by']}" + (f", {bounds}" if bounds else "")
    _done(record, said, as_json=as_json)


@app.command("deadline")
def keep_deadline(
    name: Annotated[str, typer.Argument(help="Its name, like report.")],
    time: Annotated[
        str | None, typer.Argument(help='15:30 (today, at the site), "2026-11-25 15:30", or ISO with offset.')
    ] = None,
    owner: Annotated[str, typer.Option(help="Who keeps it; you when left out.", show_default=False)] = "",
    kind: Annotated[
        str | None, typer.Option(help=f"{', '.join(clock.KINDS)}; other when left out.", show_default=False)
    ] = None,
    words: WordsOption = "",
    why: Annotated[
        str, typer.Option(help="Why one that stands is moved, handed over or dropped.", show_default=False)
    ] = "",
    met: Annotated[bool, typer.Option("--met", help="It was kept.")] = False,
    drop: Annotated[bool, typer.Option("--drop", help="It no longer holds.")] = False,
    by: ByOption = "",
    site: SiteOption = None,
    as_json: JsonOption = False,
) -> None:
    """Set a deadline or a time box; move it or hand it over, which needs --why; say that it was met or is dropped."""
    chosen = load(site)
    journal = store.opened(chosen)
    now = datetime.now(UTC)
    name, who, reason = _name(name), _line(by, "--by") or actor(), _words(why, "--why")
    keeper = _line(owner, "--owner")
    hand_over = bool(keeper) and time is None
    if sum((time is not None, met, drop, hand_over)) != 1:
        raise UsageError(
            "say one of a time, --met, --drop; or --owner alone, to hand it over.",
            f"hikeshi incident deadline {shlex.quote(name)} 15:30 --kind report --owner WHO",
        )
    if hand_over:
        record = deadline.hand_over(chosen, journal, name, keeper, by=who, why=reason)
        said = states.told(record, chosen.zone)
    elif time is None:
        record = deadline.end(chosen, journal, name, "met" if met else "dropped", by=who, why=reason)
        said = states.told(record, chosen.zone)
    else:
        sort = next((known for known in clock.KINDS if kind and known == kind.casefold()), None)
        if kind is not None and sort is None:
            raise UsageError(f"--kind is '{kind}'; allowed: {', '.join(clock.KINDS)}.")
        at = clock.parse(well_formed(time), now, chosen.zone)
        more = {"owner": keeper, "words": _words(words, "--words")}
        record = deadline.set_or_move(chosen, journal, name, at, by=who, why=reason, kind=sort, **more)
        said = f"{name}: {_when(chosen, at, now)}"
    show.heading(chosen)
    _done(record, said, as_json=as_json)


def _when(site: Site, at: datetime, now: datetime) -> str:
    return f"{clock.said(at, site.zone, now)} {site.zone.key}, {clock.span(at - now)}"


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
    """Write the words that tell the customer we will be late; then, with --sent alone, move the deadline."""
    chosen = load(site)
    journal = store.opened(chosen)
    now = datetime.now(UTC)
    name, reason = _name(name), _words(why, "--why")
    if (until or reason) if sent else not (until and reason):
        raise UsageError(
            "first the words, with --until and --why; when they were sent, --sent alone.",
            f"hikeshi incident late {shlex.quote(name)} --until 16:00 --why WHY",
        )
    if sent:
        record = deadline.sent(journal, name, by=_line(by, "--by") or actor())
        said = f"{name}: {_when(chosen, clock.read(record.data['at']), now)}"
    else:
        at = clock.parse(well_formed(until), now, chosen.zone)
        record = deadline.draft(chosen, journal, name, at, why=reason, now=now)
        said = str(record.data["words"])
    show.heading(chosen)
    _done(record, said, as_json=as_json)
    if not sent:
        screen.say(f"send this, then: hikeshi incident late {screen.safe(shlex.quote(name))} --sent")


@app.command()
def status(site: SiteOption = None, as_json: JsonOption = False) -> None:
    """Show on one screen what someone who has just arrived needs to know."""
    chosen = load(site)
    show.note_shown(chosen)  # what a heading says is in it
    journal = store.journal(chosen)
    state = states.derive(journal.records())
    if as_json:
        screen.print_json(show.status_data(chosen, journal, state))
    else:
        show.status(chosen, journal, state)


@app.command()
def verify(
    incident: Annotated[
        str | None, typer.Argument(help="Its name or folder; the open incident, else the site's own, when left out.")
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
    folder = _folder(chosen, incident, anchor)
    if anchor and anchor.resolve().is_relative_to(folder.parent.resolve()):
        raise UsageError(
            f"an anchor beside the journal proves nothing: {anchor}.", "--anchor /media/stick/anchor.jsonl"
        )
    with suppress(HikeshiError):  # a journal that is gone keeps nobody from verifying
        show.time_left(chosen)  # without the heading's records: what is verified stays as it is
    verdict = audit.verify(folder, anchor, chosen.records.name)
    if as_json:
        screen.print_json({**verdict.__dict__, "whole": verdict.whole})
    else:
        _say_verdict(verdict, anchor)
    if not verdict.whole:
        raise typer.Exit(ExitStatus.FAILED)


def _folder(site: Site, incident: str | None, anchor: Path | None) -> Path:
    """Return the folder of a journal: of its name with or without the date. One that is gone may be the anchor's."""
    if incident is None:
        return store.folder(site)
    known = store.folders(site)
    gone = audit.known_journals(anchor) if anchor else set()
    named = {incident} & ({*known} | gone) or {name for name in known if store.undated(name) == incident}
    if len(named) != 1:
        raise UsageError(
            f"{'more than one' if named else 'no'} journal '{well_formed(incident)}' of site {site.name}; there are: "
            f"{', '.join(sorted(named) or known) or 'none'}.",
            f"hikeshi incident verify {(sorted(named) or known or ['NAME'])[-1]} --site {site.name}",
        )
    return site.records.parent / named.pop()


def _say_verdict(verdict: audit.Verdict, anchor: Path | None) -> None:
    for name in verdict.missing:
        screen.out.print(f"[bold red]{screen.safe(name)}: the whole journal is missing; the anchor knows it[/bold red]")
    if verdict.bad is None:
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
    with lock.held(chosen, "incident close"):  # not even by force: half of a recovery would go to another journal
        journal, left = _close(chosen, words, by, force=force)
    if as_json:
        screen.print_json({"closed": journal.folder.name, "left": left})
        return
    for line in left:
        screen.say(f"left open: {screen.safe(line, 300)}")
    screen.out.print(f"incident {screen.safe(journal.folder.name)} is closed")


def _close(chosen: Site, words: str, by: str, *, force: bool) -> tuple[Journal, list[str]]:
    """Close the incident; return its journal, and what was left open."""
    journal = store.opened(chosen)
    verdict = audit.verify(journal.folder)
    left = _left(journal)
    if not verdict.whole:
        left.insert(0, f"the journal is not whole: record {verdict.bad} {verdict.why} (hikeshi incident verify)")
    if left and not force:
        raise RefusedError(
            "something is still open:\n" + "\n".join(f"  {line}" for line in left),
            "close it, or: hikeshi incident close --force --words WHY",
        )
    said = {"words": _words(words, "--words"), "by": _line(by, "--by") or actor()}
    verified = {"whole": verdict.whole, "bad": verdict.bad, "why": verdict.why, "head": verdict.head}
    store.end(chosen, {**said, "force": force, "left": left, "verified": verified})
    opening.carry(journal, store.standing(chosen))
    return journal, left


def _left(journal: Journal) -> list[str]:
    return show.left_open(states.derive(journal.records()))
