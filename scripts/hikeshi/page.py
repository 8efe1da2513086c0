"""What `hikeshi triage` and `baseline` show to people: one page that fits a terminal, worst first."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.table import Table

from hikeshi import bombs, screen
from hikeshi.baseline import Baseline
from hikeshi.incident import clock
from hikeshi.look import Triage, Wanted
from hikeshi.schedule import page as schedule
from hikeshi.screen import line
from hikeshi.site import Site
from hikeshi.triage import drift, findings
from hikeshi.triage.additions import Addition
from hikeshi.triage.drift import Drift
from hikeshi.triage.findings import Finding
from hikeshi.triage.packaged import Altered

FINDINGS, DRIFTS, DEEP = 12, 8, 8  # lines of each on one page


def triage(site: Site, done: Triage, *, verbose: bool) -> None:
    """Print one look at a site; with `verbose` all of it."""
    _probes(done)
    for item in done.put_back:
        screen.out.print(
            f"[bold yellow]on purpose[/bold yellow] {line(item.words, 200)}; to put it back: {line(item.close, 200)}"
        )
    for refused in done.refused:
        screen.out.print(f"[bold red]not judged[/bold red] {line(refused.problem.message, 400)}")
    if done.agenda:
        for words in schedule.bombs(done.agenda, site.zone):
            screen.out.print(words)
    _findings(site, done, verbose=verbose)
    _drift(site, done, verbose=verbose)
    _deep(done, verbose=verbose)
    _since(site, done)
    if verbose:
        screen.kept_lines(done.kept)
    for words in done.unseen if verbose else done.unseen[:3]:
        screen.out.print(f"not seen: {line(words, 300)}")
    if not verbose and len(done.unseen) > 3:
        screen.out.print(f"… and {len(done.unseen) - 3} more things were not seen (--verbose)")
    verdict = "[bold green]nothing is wrong[/bold green]" if done.healthy else "[bold red]not healthy[/bold red]"
    verdict += " with what was seen" if done.healthy and done.unseen else ""
    screen.out.print(f"{verdict}; looked at in {done.seconds:.1f} s")
    for words in _next(site, done):
        screen.err.print(f"[bold]next:[/bold]  {words}")


def _probes(done: Triage) -> None:
    red = [item for item in done.probes if not item.passed]
    for item in red:
        screen.out.print(f"[bold red]red[/bold red] {line(item.title, 100)}: {line(item.seen, 300)}")
    if done.probes and not red:
        screen.out.print(f"[green]{len(done.probes)} probes green[/green] (only those that leave nothing behind)")
    if not done.probes:
        screen.out.print("no probe was run, each leaves something behind: hikeshi probe looks as a customer does")


def _findings(site: Site, done: Triage, *, verbose: bool) -> None:
    folded = findings.fold(done.found)
    if not folded:
        return
    table = Table(box=None, pad_edge=False)
    for column in ("the customer", "host", "what is wrong", "mended by"):
        table.add_column(column, overflow="fold")
    for finding, symptoms in folded if verbose else folded[:FINDINGS]:
        words = line(finding.cause, 300)
        if symptoms:
            words += "".join(f"\n  so {line(item.cause, 200)}" for item in symptoms)
        if verbose:
            words += f"\n  seen: {line(finding.quote, 300)}"
        table.add_row(
            findings.worst(finding, symptoms).words, line(finding.host), words, line(_mended_by(site, finding), 200)
        )
    screen.out.print(table)
    if not verbose and len(folded) > FINDINGS:
        screen.out.print(f"… and {len(folded) - FINDINGS} more (--verbose)")


def _mended_by(site: Site, finding: Finding) -> str:
    if finding.remedy:
        return f"hikeshi recover ({', '.join(dict.fromkeys(f'{step.role} {step.step}' for step in finding.remedy))})"
    if finding.rule == drift.FAILED:
        return "hikeshi recover (tries what differs near to it, one by one)"
    if finding.effect < findings.Effect.WILL_BREAK:
        return "hikeshi recover (no step is known: by building anew, or by hand)"
    return "by hand (no step is known, and recover builds nothing anew for this alone)"


def _drift(site: Site, done: Triage, *, verbose: bool) -> None:
    if done.against is None:
        screen.out.print("judged without a baseline: what was changed cannot be said (hikeshi baseline, when healthy)")
        return
    at = f"{done.against.at.astimezone(site.zone):%Y-%m-%d %H:%M}"
    if not done.drift:
        away = [line(item.host) for item in done.refused]
        compared = f" on the hosts that were compared, not {', '.join(away)}" if away else ""
        screen.out.print(f"nothing differs from the baseline of {at}{compared}")
        return
    _drift_lines(
        site, f"{len(done.drift)} differences from the baseline of {at}", done.drift, done.texts, verbose=verbose
    )


def _drift_lines(
    site: Site,
    title: str,
    drifts: Sequence[Drift],
    texts: Mapping[tuple[str, str], Sequence[str]],
    *,
    verbose: bool,
) -> None:
    screen.out.print(f"[bold]{title}[/bold]")
    for item in drifts if verbose else drifts[:DRIFTS]:
        at = f"{clock.moment(item.changed, site.zone)} · " if item.changed else ""
        screen.out.print(f"  {line(item.host)} · {line(item.subject, 200)} · {at}{line(item.words, 300)}")
        for words in texts.get((item.host, item.subject), []) if verbose else []:
            screen.out.print(f"      {line(words, 300)}")
    if not verbose and len(drifts) > DRIFTS:
        screen.out.print(f"  … and {len(drifts) - DRIFTS} more: hikeshi triage --verbose")


def kept_and_drift(site: Site, kept: Sequence[Addition], drifts: Sequence[Drift], *, changed: bool) -> None:
    """Print what people added and what differs from the baseline, after a recovery or before one; nothing twice."""
    told = {(item.host, item.subject) for item in drifts}
    screen.kept_lines([item for item in kept if (item.host, item.subject) not in told])
    if drifts:
        title = "changed since the baseline" + (", and left as it is" if changed else "")
        _drift_lines(site, title, drifts, {}, verbose=False)


def _deep(done: Triage, *, verbose: bool) -> None:
    for title, items in (
        ("not as its package brought it", done.packages),
        ("building would change", done.desired),
    ):
        if items is None:
            continue
        lines = [_deep_line(item) for item in items]
        screen.out.print(
            f"[bold]{title}[/bold]" + ("" if lines else ": nothing" + (" that was seen" * bool(done.unseen)))
        )
        for told in lines if verbose else lines[:DEEP]:
            screen.out.print(f"  {told}")
        if not verbose and len(lines) > DEEP:
            screen.out.print(f"  … and {len(lines) - DEEP} more (--verbose)")


def _deep_line(item: Altered | Wanted) -> str:
    if isinstance(item, Altered):
        return f"{line(item.host)} · {line(item.path, 200)} · {line(item.words, 300)}"
    return f"{line(item.host)} · {line(item.role or 'a play')} · {line(item.task, 300)}"


def _since(site: Site, done: Triage) -> None:
    if not done.since:
        return
    at = f"{datetime.fromisoformat(done.since).astimezone(site.zone):%Y-%m-%d %H:%M}"
    screen.out.print(f"[bold]since the look of {at}[/bold]")
    for title, names in (("new", done.new), ("gone", done.gone)):
        for name in names:
            screen.out.print(f"  {title}: {line(name, 300)}")
    if not done.new and not done.gone:
        screen.out.print("  the same findings")


def _next(site: Site, done: Triage) -> list[str]:
    if done.found:
        return [f"hikeshi recover --plan --site {line(site.name)}"]
    if done.refused and all(item.passed for item in done.probes):
        return [line(done.refused[0].problem.fix, 400)]
    shut = [item for item in done.put_back if item.item != bombs.ITEM]  # held jobs keep no customer out
    if not done.healthy and shut and not done.drift:
        return [line(item.close, 200) for item in shut]
    if not done.healthy:
        suspects = " (no rule says why: the newest differences above are where to look)" if done.drift else ""
        return [f"hikeshi recover --site {line(site.name)}{suspects}"]
    return []


def baselines(site: Site, records: Sequence[Baseline], *, as_json: bool) -> None:
    """Print the records there are, the oldest first."""
    if as_json:
        screen.print_json([baseline_data(item) for item in records])
        return
    if not records:
        screen.out.print(f"no baseline of site {line(site.name)}: hikeshi baseline, when it is healthy")
    for item in records:
        state = "healthy" if item.healthy else f"not healthy: {line(item.why, 200)}"
        at = f"{item.at.astimezone(site.zone):%Y-%m-%d %H:%M}"
        screen.out.print(f"{line(item.name)} · {at} · {', '.join(map(line, item.hosts))} · {line(item.by)} · {state}")


def baseline_data(item: Baseline) -> dict[str, Any]:
    """Return what is known of a record for `--json`, without what it holds.

    name, at (UTC), healthy, by, why: "" where it was healthy, facts: host → how many.
    """
    facts = {host: len(kept["facts"]) for host, kept in item.hosts.items()}
    return {
        "name": item.name, "at": item.at.isoformat(), "healthy": item.healthy, "by": item.by, "why": item.why,
        "facts": facts,
    }  # fmt: skip
