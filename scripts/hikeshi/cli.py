"""The command line: parses, calls, maps to an exit status. No logic."""

import io
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from hikeshi import baseline, bombs, gate, lock, look, page, probes, recover, runner, screen, surge
from hikeshi.access import aside, export, method, verb
from hikeshi.access import page as access_page
from hikeshi.access.reconcile import reconcile
from hikeshi.copies import cli as copies
from hikeshi.errors import ExitStatus, HikeshiError, RefusedError, UsageError
from hikeshi.incident import cli as incident
from hikeshi.incident import clock, show, store
from hikeshi.options import JsonOption, SiteOption
from hikeshi.schedule import page as schedule_page
from hikeshi.schedule.job import Job
from hikeshi.site import PRACTICE_SITE, Site, load, shown
from hikeshi.text import well_formed
from hikeshi.triage.plan import Plan

app = typer.Typer(
    help="Lead an operator through the recovery of a small web shop. New here? Run scripts/drill first.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
drill = typer.Typer(help="The practice incident; alone: end to end.", invoke_without_command=True)
app.add_typer(drill, name="drill")
app.add_typer(incident.app, name="incident")
jobs = typer.Typer(help="What is scheduled to go off: on one clock, held, released.", no_args_is_help=True)
app.add_typer(jobs, name="jobs")
sorry = typer.Typer(help="The sorry page, by the load balancer's health check.", no_args_is_help=True)
app.add_typer(sorry, name="sorry")

CheckOption = Annotated[bool, typer.Option("--check", help="Show what would change; change nothing.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Answer the operator's questions with yes.")]
SeedOption = Annotated[
    int | None, typer.Option(help="Chooses each fault's parameters; drawn and printed when left out.")
]
ReleaseOption = Annotated[str, typer.Option(help="Debian release of the practice hosts: 12 or 13.")]


@app.command()
def build(site: SiteOption = None, check: CheckOption = False, as_json: JsonOption = False) -> None:
    """Build or converge a site from code."""
    chosen = load(site)
    show.heading(chosen)
    with lock.held(chosen, "build"), screen.run_progress(f"building site {chosen.name}") as progress:
        result = runner.run(chosen, "build-site.yml", verb="build", check=check, listen=progress)
    changed = sum(result.changed.values())
    if as_json:
        screen.print_json({"ok": result.ok, "changed": changed, "seconds": round(result.seconds, 1)})
    else:
        screen.out.print(f"changed {changed} in {result.seconds:.0f} s" + (" (check)" * check))
    if not result.ok:
        again = f"hikeshi build --site {chosen.name}"
        if result.exit_status == ExitStatus.MISCONFIGURED:
            again = (
                f"give what it names a value in {shown(chosen.folder)}/group_vars (secrets: outside git), then {again}"
            )
        recover.explain(chosen, result, again)
        raise typer.Exit(result.exit_status)


@app.command()
def probe(
    only: Annotated[list[str] | None, typer.Argument(help="Probes to run; all when none is named.")] = None,
    site: SiteOption = None,
    direct: Annotated[bool, typer.Option("--direct", help="Past the load balancer, at the web server itself.")] = False,
    everywhere: Annotated[
        bool, typer.Option("--everywhere", help="Over every address the site names: IPv4, IPv6, from inside.")
    ] = False,
    record_pictures: Annotated[
        bool, typer.Option("--record-pictures", help="Take the pictures shown now as the right ones.")
    ] = False,
    rate: Annotated[
        str | None,
        typer.Option(
            "--surge",
            metavar="RATE",
            help="Carries it RATE requests a second? Reads pages only, for some 12 s; a real site must allow it.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Look at the site as a customer does. Leaves a cart behind, and an order where the site lets it."""
    chosen = load(site)
    show.heading(chosen)
    kind = "direct" if direct else "customer"
    if rate is not None:
        if only or everywhere or record_pictures:
            raise UsageError(
                "--surge goes with --direct and --json only: no probes, not --everywhere, not --record-pictures.",
                f"hikeshi probe --surge {rate}",
            )
        show_surge(chosen, kind, surge.parse_rate(rate), as_json=as_json)
        return
    if record_pictures:
        path = probes.record_pictures(chosen, kind)
        screen.out.print(f"recorded in {path.name}; look at the shop, then commit it")
        return
    views = [kind] if not everywhere else chosen.views(kind)
    probes.choose(chosen, only or [])
    results = []
    with store.journal(chosen).action("probe", {"views": views, "only": only}):  # it may leave an order behind
        for view in views:
            seen = probes.run(chosen, view, only, report=screen.probe_line)
            show.note_probes(chosen, view, seen)
            results += seen
    if as_json:
        screen.print_json([asdict(item) for item in results])
    else:
        screen.probe_table(results)
    if not all(item.passed for item in results):
        raise typer.Exit(ExitStatus.FAILED)


def show_surge(site: Site, view: str, rate: float, *, as_json: bool) -> None:
    """Carry out a load probe and print it; also the part that was measured before somebody interrupted it."""
    screen.say(f"asking site {screen.safe(site.name)} for up to {rate:g} requests/s, view {view}")
    with store.journal(site).action("probe", {"views": [view], "surge": rate}) as action:
        done = surge.run(site, view, rate, announce=screen.surge_begins, report=screen.surge_ended)
        action.data.update(carried=done.carried, verdict=done.verdict)
    if as_json:
        screen.print_json(done.as_data())
    else:
        screen.surge_table(done)
    if done.interrupted:
        raise KeyboardInterrupt
    if not done.carried:
        raise typer.Exit(ExitStatus.FAILED)


@app.command("triage")
def triage_site(
    since: Annotated[
        str | None,
        typer.Option(
            help="Also what is new and what is gone since the look at or before this time.", show_default=False
        ),
    ] = None,
    against: Annotated[
        str, typer.Option(help="Judge drift against this baseline; the newest healthy one when left out.")
    ] = "",
    deep: Annotated[
        bool,
        typer.Option(
            "--deep",
            help="Also what is not as its package brought it, and what building would change: half a minute more.",
        ),
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="All of it, with the evidence and changed lines.")] = False,
    site: SiteOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what is wrong, what was changed, and what mends it. Changes nothing."""
    chosen = load(site)
    show.heading(chosen)
    show.remind(chosen)
    at = clock.typed(since, datetime.now(UTC), chosen.zone) if since is not None else None
    if at and at > datetime.now(UTC):
        raise UsageError(f"--since '{since}' is still to come; say when it was looked at.", "hikeshi incident status")
    recorded = baseline.read(chosen, against) if against else baseline.newest(chosen)
    done = look.triage(chosen, against=recorded, since=at, deep=deep)
    if as_json:
        screen.print_json(done.as_data())
    else:
        page.triage(chosen, done, verbose=verbose)
    if not done.healthy:
        raise typer.Exit(_failed(done.refused))


def _failed(refused: Sequence[look.Refused]) -> ExitStatus:
    """Return with which status a verb ends that did not end well."""
    return ExitStatus.UNREACHABLE if any(item.unreachable for item in refused) else ExitStatus.FAILED


def _agreed(question: str, command: str, *, yes: bool) -> bool:
    """Ask the operator; refuse where nobody is there to answer, naming the command that answers beforehand."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise RefusedError("nobody is here to approve it (no terminal).", command)
    return typer.confirm(question, err=True)


copies.add_to(app, _agreed)
copies.add_rescue_to(app, _agreed)


@app.command("baseline")
def record_baseline(
    listing: Annotated[bool, typer.Option("--list", help="The records there are; record nothing.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Record although the site is not healthy; takes --why.")
    ] = False,
    why: Annotated[str, typer.Option(help="Why it is recorded all the same.", show_default=False)] = "",
    site: SiteOption = None,
    as_json: JsonOption = False,
) -> None:
    """Record the healthy site: what later looks are compared with."""
    chosen = load(site)
    show.heading(chosen)
    if listing:
        page.baselines(chosen, [baseline.read(chosen, name) for name in baseline.names(chosen)], as_json=as_json)
        return
    if force != bool(why.strip()):
        given, missing = ("--force", "--why") if force else ("--why", "--force")
        raise UsageError(f"{given} without {missing}: the two go together.", "hikeshi baseline --force --why WHY")
    with lock.held(chosen, "baseline"):
        made = look.record(chosen, why=well_formed(why).strip() if force else None)
    if as_json:
        screen.print_json(page.baseline_data(made))
    else:
        facts = sum(len(host["facts"]) for host in made.hosts.values())
        state = "" if made.healthy else ", not healthy: drift is not judged against it unless --against names it"
        screen.out.print(f"baseline {made.name}: {len(made.hosts)} hosts, {facts} facts{state}")


@app.command(name="recover")
def recover_site(
    site: SiteOption = None,
    plan: Annotated[bool, typer.Option("--plan", help="Show findings and plan; change nothing.")] = False,
    check: CheckOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Recover a site: probe, look, plan, mend, prove. A healthy site is left as it is; run it again at any time."""
    chosen = load(site)
    show.heading(chosen)

    def approve(proposed: Plan, trials: Sequence[str], closes: bool, holds: Sequence[Job]) -> bool:
        if trials:
            screen.say(
                "no step is known for this; one by one, and taken back where it does not help, would be put back:"
            )
        elif proposed.steps:
            screen.say(f"{len(proposed.steps)} steps; if they are not enough, the whole site is converged from code:")
        else:
            screen.say("no step is known for this: the whole site would be converged from code, as hikeshi build does")
        for planned in proposed.steps:
            screen.say(
                f"  {planned.step.kind} · {screen.line(planned.step.host)} · {screen.line(planned.step.words, 200)}"
            )
        for words in trials:
            screen.say(f"  {screen.line(words, 200)}")
        if holds:
            screen.say(f"meanwhile {bombs.count(holds)} are held, and reboots are refused; evidence is saved first")
        if closes:
            screen.say("meanwhile every customer sees the sorry page, and nobody can buy; it goes when the shop works")
        return _agreed("Carry it out?", "hikeshi recover --yes", yes=yes or check)

    def ask(told: Sequence[str], question: str) -> bool:
        for words in told:
            screen.say(f"  {screen.line(words, 300)}")
        return _agreed(question, "hikeshi recover --yes", yes=yes)

    done = recover.recover(chosen, approve=approve, ask=ask, check=check, plan_only=plan)
    if as_json:
        screen.print_json(done.as_data())
    else:
        show_recovery(chosen, done, plan_only=plan, check=check)
    if done.refused or (not plan and not check and not done.healthy):
        waits = done.disks.status if done.disks else None
        raise typer.Exit(_failed(done.refused) if waits is None else waits)


def show_recovery(site: Site, done: recover.Recovery, *, plan_only: bool, check: bool) -> None:
    """Print a recovery's result; of a plan or a check, what would be done."""
    for refused in done.refused:
        screen.out.print(
            f"[bold red]not judged[/bold red], and left as it is: {screen.line(refused.problem.message, 400)}"
        )
    for line in done.disks.foreseen if done.disks else ():
        screen.out.print(f"by way of the disk: {screen.line(line, 600)}")
    for line in done.unseen:
        screen.out.print(f"not seen: {screen.line(line, 300)}")
    still = done.found if plan_only or check else done.left
    for title, findings in (
        ("found and mended", [item for item in done.found if item not in still]),
        ("findings" if plan_only or check else "[bold red]still wrong[/bold red]", still),
    ):
        if findings:
            screen.out.print(f"[bold]{title}[/bold]")
            screen.findings_table(findings)
    if plan_only:
        screen.out.print("[bold]plan[/bold]")
        screen.plan_table(done.proposed)
        screen.probe_table(done.before)
        page.kept_and_drift(site, done.kept, done.drift, changed=False)
        return
    if check:
        screen.out.print("[bold]steps, none of them taken (--check)[/bold]")
        for item in done.mended:
            screen.out.print(f"  {screen.line(item.planned.step.words, 200)}" + ("  would fail" * item.failed))
        screen.out.print(f"nothing was changed; {len(done.found)} findings, {len(done.proposed.steps)} steps")
        return
    if done.mended:
        screen.out.print("[bold]steps[/bold]")
        for item in done.mended:
            state = "failed" if item.failed else "changed" if item.changed else "nothing to do"
            screen.out.print(f"  {item.seconds:5.1f} s  {state:<13} {screen.line(item.planned.step.words, 200)}")
    if done.converged:
        whole = "the whole site" if not done.refused else "what of the site can be judged"
        screen.out.print(f"{whole} was converged from code: {done.converged_changes} tasks changed something")
    for title, words in (("put back, and it helped:", done.restored), ("tried:", done.tried)):
        for line in words:
            screen.out.print(f"[bold]{title}[/bold] {screen.line(line, 400)}")
    if done.converge_stopped:
        screen.out.print(f"[bold red]converging stopped[/bold red] at {screen.safe(done.converge_stopped, 1000)}")
    if done.after:
        screen.probe_table(done.after)
    page.kept_and_drift(site, done.kept, done.drift, changed=True)
    for host in done.disks.swapped if done.disks else ():
        kept = f"original kept, stopped; hikeshi copy {host} --swap-commit removes it, or --swap-back"
        screen.out.print(
            f"[bold yellow]{screen.line(host)} runs from its mended disk[/bold yellow]: {screen.line(kept)}"
        )
    if done.jobs_told:
        screen.out.print(f"[bold yellow]jobs are held[/bold yellow]: {screen.line(done.jobs_told, 400)}")
    if done.gate_told:
        screen.out.print(f"[bold yellow]the gate is closed[/bold yellow]: {screen.line(done.gate_told, 400)}")
    verdict = "[bold green]healthy[/bold green]" if done.healthy else "[bold red]not healthy[/bold red]"
    blind = f"; {len(done.unseen)} things could not be looked at" if done.unseen else ""
    screen.out.print(f"{verdict} after {done.seconds:.0f} s; {done.changed} changes{blind}")
    if not done.healthy:
        screen.err.print(f"[bold]next:[/bold]  {screen.line(done.next_look, 600)}")


@sorry.command("on")
def sorry_on(
    minutes: Annotated[
        int | None,
        typer.Option(min=1, max=1440, help="Opens by itself after so many; the site's own bound when left out."),
    ] = None,
    never_expires: Annotated[
        bool, typer.Option("--never-expires", help="Closed until somebody opens it, for ever if nobody does.")
    ] = False,
    site: SiteOption = None,
    check: CheckOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show every visitor the sorry page; it goes by itself. Once more: for longer."""
    chosen = load(site)
    show.heading(chosen)
    if minutes is not None and never_expires:
        raise UsageError("--minutes and --never-expires say two things.", "hikeshi sorry on --minutes 30")

    def approve() -> bool:
        question = "Every visitor will see the sorry page, and nobody can buy. Close the gate?"
        return _agreed(question, "hikeshi sorry on --yes", yes=yes)

    done = gate.on(chosen, approve=approve, minutes=minutes, never=never_expires, check=check)
    if not check:
        aside.begin(chosen)
    show_gate(chosen, done, as_json=as_json)


@sorry.command("off")
def sorry_off(
    force: Annotated[bool, typer.Option("--force", help="Although the shop does not work behind it.")] = False,
    site: SiteOption = None,
    check: CheckOption = False,
    as_json: JsonOption = False,
) -> None:
    """Let customers in again, once the shop works behind the gate."""
    chosen = load(site)
    show.heading(chosen)
    show_gate(chosen, gate.off(chosen, force=force, check=check), as_json=as_json)


@sorry.command("status")
def sorry_status(site: SiteOption = None, as_json: JsonOption = False) -> None:
    """Open or closed, per host and family, since when, until when, and what customers see. Changes nothing."""
    chosen = load(site)
    show.heading(chosen)
    show_gate(chosen, gate.status(chosen), as_json=as_json)


def show_gate(site: Site, done: gate.Outcome, *, as_json: bool) -> None:
    """Print what stands, and what customers see."""
    if as_json:
        screen.print_json(done.as_data())
    else:
        for line in [*gate.told(done.hosts, site.zone), *gate.titles(done.looks)]:
            screen.out.print(screen.line(line, 400))
        if done.probes:
            screen.probe_table(done.probes)
        for line in done.wrong:
            screen.out.print(f"[bold red]wrong[/bold red] {screen.line(line, 400)}")
    if not done.ok:
        raise typer.Exit(ExitStatus.FAILED)


@app.command("count")
def count_accesses(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILE]...", help="Logs on this machine, .gz and .zst too; the site's where none is named."
        ),
    ] = None,
    since: Annotated[
        str, typer.Option(help="From this minute or day on (14:00, 2026-11-27, yesterday).", show_default=False)
    ] = "",
    until: Annotated[str, typer.Option(help="Up to this minute or day, which is not in it.", show_default=False)] = "",
    by: Annotated[str, typer.Option(help="minute, hour, day or all.")] = "hour",
    zone: Annotated[
        str, typer.Option(help="Time zone of the answer; the site's, else this machine's.", show_default=False)
    ] = "",
    top: Annotated[int, typer.Option(min=0, max=1000, help="How many paths and clients are named.")] = 10,
    addresses: Annotated[
        bool, typer.Option("--addresses", help="Name clients by their addresses; without it none leaves a host.")
    ] = False,
    sorry_backend: Annotated[
        list[str] | None, typer.Option(help="HAProxy's backend that is the sorry page; of FILEs.", show_default=False)
    ] = None,
    health_path: Annotated[str, typer.Option(help="What health checks ask for; of FILEs.", show_default=False)] = "",
    agent_capture: Annotated[
        str,
        typer.Option(
            help="Which of HAProxy's captured headers is the agent: last, none, 1, …; of FILEs. last.",
            show_default=False,
        ),
    ] = "",
    log_zone: Annotated[
        str, typer.Option(help="Zone of times that name none; of FILEs. This machine's.", show_default=False)
    ] = "",
    processes: Annotated[
        int | None, typer.Option(min=1, max=64, help="How many count FILEs; one for each core.", show_default=False)
    ] = None,
    memory: Annotated[int, typer.Option(min=64, help="MiB that counting may take; more is spilled to disk.")] = 512,
    watching: Annotated[
        bool,
        typer.Option("--watch", help="Follow the load balancer's log until interrupted: who floods, and over what."),
    ] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print a line of CSV for each slot.")] = False,
    html: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Also write one HTML page, with a picture.", show_default=False)
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="More malformed lines, and what each word means.")] = False,
    site: SiteOption = None,
    as_json: JsonOption = False,
) -> None:
    """Count accesses, exactly, for any time of which there are logs. Changes nothing."""
    if as_json and as_csv:
        raise UsageError("--json and --csv say two things.", "hikeshi count --csv")
    if watching:
        if files or since or until or as_csv or html:
            raise UsageError("--watch goes with --site and --json only.", "hikeshi count --watch")
        verb.watch(site, as_json=as_json)
        return
    done = verb.count(
        verb.Words(
            files or [], since, until, by, zone, top, addresses, sorry_backend or [], health_path, agent_capture,
            log_zone, processes, memory, site,
        )
    )  # fmt: skip
    compared = reconcile(done.answer)
    if html:
        verb.write_html(html, done.answer, compared)
    if as_json:
        screen.print_json(
            {**export.as_data(done.answer, compared), "refused": [item.as_data() for item in done.refused]}
        )
    elif as_csv:
        with screen.printing():
            print(export.as_csv(done.answer), end="", flush=True)
        for words in method.sentences(done.answer):  # whoever reads figures must know what they are of
            screen.err.print(screen.line(words, 400))
    else:
        access_page.show(done.answer, compared, verbose=verbose)
    for item in done.refused:
        screen.err.print(f"[bold red]not counted[/bold red] {screen.line(item.problem.message, 400)}")
    if done.refused:
        raise typer.Exit(_failed(done.refused))
    if files and (lost := method.unread(done.answer)):
        raise HikeshiError(
            f"nothing could be read of {', '.join(lost[:5])}: the method above says why.",
            "mend what it names, or count without: hikeshi count FILE…",
        )


HostOption = Annotated[str, typer.Option("--host", help="Of this host only.", show_default=False)]
UntilOption = Annotated[
    str | None,
    typer.Option(help="Look ahead until then; the last deadline, else three hours, when left out.", show_default=False),
]


@jobs.command("list")
def jobs_list(
    until: UntilOption = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Every job, worst first, and all of what it runs.")
    ] = False,
    site: SiteOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what will go off, with the deadlines on one clock; at, cron, timers, shutdowns. Changes nothing."""
    chosen = load(site)
    show.heading(chosen)
    done = bombs.agenda(chosen, _until(chosen, until))
    if as_json:
        screen.print_json(done.as_data())
    else:
        schedule_page.show(done.agenda, chosen.zone, verbose=verbose)
    _end_jobs(done, as_json=as_json)


@jobs.command("hold")
def jobs_hold(
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID]...", help="Jobs to hold; all that may go off until the end when none is named."),
    ] = None,
    host: HostOption = "",
    until: UntilOption = None,
    no_shield: Annotated[
        bool, typer.Option("--no-shield", help="Do not also refuse reboots on these hosts until then.")
    ] = False,
    site: SiteOption = None,
    check: CheckOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Take jobs out of reach before they go off; nothing is lost, and nothing is run."""
    chosen = load(site)
    show.heading(chosen)
    done = bombs.hold(
        chosen, approve=_jobs_agreed("hikeshi jobs hold --yes", yes=yes), ids=ids or [], host=host,
        until=_until(chosen, until), shield=not no_shield, check=check,
    )  # fmt: skip
    show_jobs(chosen, done, nothing="nothing is to be held", as_json=as_json)


@jobs.command("release")
def jobs_release(
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Held jobs to put back; all when none is named.")
    ] = None,
    host: HostOption = "",
    run: Annotated[
        str | None,
        typer.Option(
            "--run", metavar="ID", help="Run this one now, of at or a timer; it was held.", show_default=False
        ),
    ] = None,
    reboot: Annotated[
        str | None,
        typer.Option(
            "--reboot",
            metavar="HOST",
            help="Only let this host be rebooted; its jobs stay held. Takes the permission 'reboot'.",
            show_default=False,
        ),
    ] = None,
    site: SiteOption = None,
    check: CheckOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Put held jobs back exactly; what came due meanwhile is told, and not run."""
    chosen = load(site)
    show.heading(chosen)
    if sum((bool(ids), run is not None, reboot is not None)) > 1 or (reboot is not None and host):
        raise UsageError("say one of: ids, --run ID, --reboot HOST.", "hikeshi jobs release ID")
    if "" in (run, reboot):  # an empty variable of a shell must not put everything back
        raise UsageError("--run and --reboot take a name, and '' is none.", "hikeshi jobs list")
    if reboot:
        done = bombs.let_reboot(chosen, reboot, check=check)
    else:
        approve = _jobs_agreed("hikeshi jobs release --yes", yes=yes)
        done = bombs.release(chosen, approve=approve, ids=ids or [], host=host, run=run or "", check=check)
    show_jobs(chosen, done, nothing="nothing is held", as_json=as_json)


def _until(site: Site, words: str | None) -> datetime | None:
    return clock.parse(well_formed(words), datetime.now(UTC), site.zone) if words is not None else None


def _jobs_agreed(command: str, *, yes: bool) -> bombs.Approve:
    def approve(told: Sequence[str], question: str) -> bool:
        for words in told:
            screen.say(f"  {screen.line(words, 300)}")
        return _agreed(question, command, yes=yes)

    return approve


def show_jobs(site: Site, done: bombs.Outcome, *, nothing: str, as_json: bool) -> None:
    """Print what became of each job, and what is refused now."""
    if as_json:
        screen.print_json(done.as_data())
    else:
        for item in done.results:
            at = f"{clock.said(item.due, site.zone, done.agenda.now)} · " if item.due else ""
            missed = "came due while it was held, not run" if item.missed and item.result != "came due" else ""
            style = "[bold red]" if item.failed else "[bold]"
            why = "; ".join(filter(None, (missed, screen.line(item.why, 300))))
            told = f"{screen.line(item.host)} · {screen.line(item.id, 200)} · {at}{why}"
            screen.out.print(f"{style}{screen.line(item.result, 40)}[/] {told.removesuffix(' · ')}")
        for host, on in done.shields.items():
            screen.out.print(f"reboots are {'refused' if on else 'possible again'} on {screen.line(host)}")
        if not done.results and not done.shields:
            screen.out.print(nothing)
        if done.check:
            screen.out.print("nothing was changed (--check)")
        if any(item.result == "came due" for item in done.results):
            command = f"hikeshi jobs release --run ID --site {screen.line(site.name)}"
            screen.err.print(f"[bold]next:[/bold]  {command} runs one that came due; else it stays kept")
    _end_jobs(done, as_json=as_json)


def _end_jobs(done: bombs.Outcome, *, as_json: bool) -> None:
    if not as_json:
        for words in (*(item.problem.message for item in done.refused), *done.wrong):
            screen.out.print(f"[bold red]wrong[/bold red] {screen.line(words, 400)}")
    if not done.ok or done.agenda.untold:
        raise typer.Exit(_failed(done.refused))


@drill.callback()
def drill_alone(
    context: typer.Context,
    scenario: Annotated[str, typer.Option(help="Which scenario to play.")] = "torashu05",
    seed: SeedOption = None,
    release: ReleaseOption = "12",
    as_json: JsonOption = False,
) -> None:
    """The practice incident; alone: up, break, recover, prove, score."""
    if context.invoked_subcommand:
        return
    from hikeshi.drill import practice

    result = practice.play(scenario, seed, release)
    show_score(result, as_json=as_json)
    whole = result["recovery"]["healthy"] and all(row["mended"] for row in result["faults"])
    if not whole or result["money"]["wrong"] or result["waiting"]:
        raise typer.Exit(ExitStatus.FAILED)


@drill.command("up")
def drill_up(release: ReleaseOption = "12") -> None:
    """Put the practice site up; a standing one is left as it is."""
    from hikeshi.drill import practice

    practice.up(release)


@drill.command("down")
def drill_down(
    images: Annotated[bool, typer.Option("--images", help="Remove the kept images and wheels, too.")] = False,
) -> None:
    """Take the practice site away; nothing of it is left but the kept images."""
    from hikeshi.drill import practice

    practice.down(images=images)


@drill.command("list")
def drill_list(as_json: JsonOption = False) -> None:
    """List the faults the drill can inject."""
    from hikeshi.drill import faults

    known = faults.catalogue()
    if as_json:
        screen.print_json({name: data.title for name, data in known.items()})
        return
    width = max(map(len, known))
    for name, data in known.items():
        screen.out.print(f"{name:<{width}}  {data.title}")


@drill.command("break")
def drill_break(
    names: Annotated[
        list[str] | None, typer.Argument(help="Faults; those of platform-reboot when none is named.")
    ] = None,
    seed: SeedOption = None,
    reboot: Annotated[bool, typer.Option(help="Restart web1 afterwards, as the platform did.")] = True,
) -> None:
    """Break the practice site."""
    from hikeshi.drill import practice

    chosen = practice.break_site(names or practice.scenario(practice.BROKEN).faults, seed, "web1" if reboot else "")
    for fault in chosen:
        screen.say(f"injected {fault.name}")


@drill.command("table")
def drill_table(
    names: Annotated[list[str] | None, typer.Argument(help="Faults; every one when none is named.")] = None,
    seed: SeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Try each fault alone on the practice site that is up, and write what came of it into docs/faults.md."""
    from hikeshi.drill import table

    measured = table.measure(names or [], seed)
    if as_json:
        screen.print_json(table.as_data(measured))
    else:
        for row in measured:
            screen.out.print(
                screen.line(f"{row.fault}: found {row.found}, named {row.named}, mended by {row.mended}", 600)
            )
    if not table.whole(measured):
        raise typer.Exit(ExitStatus.FAILED)


@drill.command("customers")
def drill_customers(
    every: Annotated[float, typer.Option(help="Mean seconds between two customers.")] = 2.0,
    seconds: Annotated[float, typer.Option(help="How long they come, at most an hour.")] = 600.0,
    orders: Annotated[float, typer.Option(help="Share of them who buy, 0 to 1.")] = 0.4,
    seed: SeedOption = None,
    stop: Annotated[bool, typer.Option("--stop", help="Send them home and show what they saw.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Let customers come to the practice shop: they browse, fill carts and buy."""
    from hikeshi.drill import customers
    from hikeshi.drill.practice import draw_seed

    site = load(PRACTICE_SITE)
    if stop:
        summary = customers.stop(site).summary()
        if as_json:
            screen.print_json(summary)
        else:
            screen.out.print(
                f"{summary['requests']} requests, answers {summary['answers']}, {summary['orders']} orders"
            )
        return
    number = draw_seed(seed)
    customers.start(site, number, every=every, seconds=seconds, orders=orders)
    screen.say(f"customers come for {seconds:.0f} s (seed {number}); hikeshi drill customers --stop sends them home")


@drill.command("audit")
def drill_audit(as_json: JsonOption = False) -> None:
    """Compare the practice shop's orders with the gateway's payments; exit status 1 when they differ."""
    from hikeshi.drill import ledger

    orders, wrong = ledger.audit(load(PRACTICE_SITE))
    if as_json:
        screen.print_json({"orders": orders, "wrong": wrong})
    else:
        for sentence in wrong:
            screen.out.print(screen.safe(sentence))
        screen.out.print(f"{orders} orders, {len(wrong) or 'no'} differences")
    if wrong:
        raise typer.Exit(ExitStatus.FAILED)


@drill.command("score")
def drill_score(as_json: JsonOption = False) -> None:
    """Show the last drill's score again."""
    from hikeshi.drill import practice

    show_score(practice.last_score(), as_json=as_json)


def show_score(result: dict[str, Any], *, as_json: bool) -> None:
    """Print which fault was mended by which step, in how long."""
    if as_json:
        screen.print_json(result)
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("fault", "mended", "by", "s"):
        table.add_column(column, justify="right" if column == "s" else "left", overflow="fold")
    for row in result["faults"]:
        mended = "[green]yes[/green]" if row["mended"] else "[bold red]no[/bold red]"
        table.add_row(row["fault"], mended, screen.safe("; ".join(row["by"]), 300), f"{row['seconds']:.1f}")
    screen.out.print(table)
    recovery = result["recovery"]
    verdict = "[bold green]healthy[/bold green]" if recovery["healthy"] else "[bold red]not healthy[/bold red]"
    red = [item["id"] for item in result["probes_broken"] if not item["passed"]]
    screen.out.print(
        f"red before: {', '.join(red) or 'none'}; {verdict} {recovery['seconds']:.0f} s after recovery began"
    )
    for sentence in result["waiting"]:
        screen.out.print(f"[bold red]waiting[/bold red] {screen.safe(sentence)}")
    money, came = result["money"], result["money"]["customers"]
    for sentence in money["wrong"]:
        screen.out.print(f"[bold red]money[/bold red] {screen.safe(sentence)}")
    screen.out.print(
        f"customers: {came['requests']} requests, {came['orders']} orders on their screens; the shop holds "
        f"{money['orders']} orders, " + ("each paid once" if not money["wrong"] else f"{len(money['wrong'])} wrong")
    )


def _fail(problem: HikeshiError) -> ExitStatus:
    """Show an error, with --json also as data; return its exit status."""
    screen.error(problem)
    if "--json" in sys.argv:
        with suppress(HikeshiError):  # nobody reads it
            screen.print_json({"error": problem.message, "next": problem.fix, "status": int(problem.status)})
    return problem.status


def main() -> None:
    """Entry point: every error becomes one clear message and its exit status."""
    os.umask(0o077)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that knows ASCII only must not end a verb

    def terminate(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, terminate)
    try:
        status = app(standalone_mode=False)
    except typer.Exit as ended:
        status = ended.exit_code
    except HikeshiError as problem:
        status = _fail(problem)
    except (typer.Abort, KeyboardInterrupt):
        status = ExitStatus.INTERRUPTED
    except Exception as usage:
        if not hasattr(usage, "format_message"):
            if os.environ.get("HIKESHI_DEBUG"):
                raise
            if isinstance(usage, OSError):
                what = f"{usage.filename}: " if usage.filename else ""
                fix = f"ls -ld {shlex.quote(str(usage.filename))}" if usage.filename else "df -h"
                failed = _fail(HikeshiError(f"{what}{usage.strerror or usage}.", f"{fix}; then the same command again"))
                raise SystemExit(int(failed)) from usage
            screen.err.print(
                f"[bold red]error:[/bold red] a defect of hikeshi: {type(usage).__name__}: {screen.safe(usage)}"
            )
            screen.err.print("[bold]next:[/bold]  the same command with HIKESHI_DEBUG=1 shows where; please report it")
            raise SystemExit(int(ExitStatus.FAILED)) from usage
        if usage.format_message():  # without any words the help was shown, and says it all
            _fail(UsageError(usage.format_message(), "the same command with --help"))
        status = ExitStatus.USAGE
    if status == ExitStatus.INTERRUPTED:  # Typer makes an exit or an abort of Ctrl-C, depending on where it came
        screen.err.print("\n[bold]interrupted[/bold]; nothing is half done for good: run the same command again")
    if not screen.drained():
        status = status or ExitStatus.FAILED
    raise SystemExit(int(status or 0))
