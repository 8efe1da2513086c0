"""What `hikeshi copy` and `hikeshi rescue` show to people."""

from rich.table import Table

from hikeshi import screen
from hikeshi.copies.making import Outcome, gib
from hikeshi.copies.record import Check, Copy
from hikeshi.copies.replay import Replay
from hikeshi.copies.rescue import Rescue
from hikeshi.site import Site

_STATES = {
    "making": "half made: the next `hikeshi copy` begins it anew",
    "made": "made, not verified: not to be relied on",
    "verified": "verified",
    "deleting": "half removed: the next `hikeshi copy --delete-expired` goes on",
}


def show(site: Site, done: Outcome) -> None:
    """Print the copies there are, and what this call did."""
    for ident in done.removed:
        screen.out.print(f"removed {screen.line(ident)}")
    for item in done.estimates if done.check else ():
        screen.out.print(f"would {screen.line(item.words, 400)}")
    for why in done.missing:
        screen.out.print(f"[bold red]refused[/bold red] it would be: {screen.line(why, 400)}")
    if done.copies:
        screen.out.print(_table(site, done))
    else:
        screen.out.print("there is no copy")
    for copy in done.copies:
        for words in copy.taken.left_out if copy.taken else ():
            screen.out.print(f"not in {screen.line(copy.id)}: {screen.line(words, 300)}")
    for found in done.unknown:
        what = f"{found.kind} {screen.line(found.name, 200)} of copy {screen.line(found.copy_id, 100)}"
        screen.out.print(f"[yellow]unknown[/yellow] {what}: somebody else's, or its file is lost")
    if done.check:
        screen.out.print("nothing was changed (--check)")


def _table(site: Site, done: Outcome) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("copy", "host", "taken", "holds", "kept until", "state"):
        table.add_column(column, overflow="fold")
    for copy in done.copies:
        at = f"{copy.taken.at.astimezone(site.zone):%Y-%m-%d %H:%M:%S}" if copy.taken else "–"
        size = gib(copy.size.bytes) if copy.size else "–"
        until = f"{copy.expires.astimezone(site.zone):%Y-%m-%d %H:%M}"
        table.add_row(screen.line(copy.id), screen.line(copy.host), at, size, until, screen.line(state(copy), 300))
    return table


def state(copy: Copy) -> str:
    """Return how far a copy has come, in words."""
    words = [_STATES[copy.state]]
    if copy.asked:
        words.append(f"waits for --done ({copy.asked})")
    if copy.work:
        words.append(
            {"making": "working copy half made", "open": "its disk is open", "ready": "working copy"}[copy.work]
        )
    if copy.repaired:
        done = "mended" if copy.swap and copy.swap.mended else "to be mended"
        words.append(f"{done}: {len(copy.repaired.steps)} steps")
    if copy.swap and copy.swap.rehearsal:
        words.append(
            {"up": "being rehearsed", "passed": "rehearsed", "failed": "its rehearsal failed"}[copy.swap.rehearsal]
        )
    if copy.swap:
        words.append({"sealing": "ready to be swapped in", "in": "being swapped in", "proven": "swapped in",
                      "back": "being swapped back", "committed": "swapped in for good"}[copy.swap.state])  # fmt: skip
    return ", ".join(words)


def checks(copy: Copy, seen: list[Check]) -> None:
    """Print what was verified."""
    for check in seen:
        verdict = "[green]good[/green]" if check.ok else "[bold red]not good[/bold red]"
        screen.out.print(
            f"{verdict} {screen.line(copy.id)} · {screen.line(check.what, 100)} · {screen.line(check.words, 500)}"
        )


def rescued(done: Rescue) -> None:
    """Print what a rescue did, or would do."""
    for words in done.steps:
        screen.out.print(f"would {screen.line(words, 400)}")
    for why in done.missing:
        screen.out.print(f"[bold red]refused[/bold red] it would be: {screen.line(why, 400)}")
    if done.look:
        screen.findings_table(done.look.found)
        screen.plan_table(done.look.plan)
    if done.steps:
        screen.out.print("nothing of the original was changed (--check, --plan)")
    if done.swapped:
        screen.probe_table(done.probes)
        host = screen.line(done.host)
        screen.out.print(
            f"[bold green]{host} runs from its mended disk[/bold green] (copy {screen.line(done.copy)}); "
            "the original is kept, stopped. Mend the rest: hikeshi recover. "
            f"Then hikeshi copy {host} --swap-commit, or --swap-back"
        )


def replayed(done: Replay, *, check: bool) -> None:
    """Print what a replay did, or would do."""
    if check:
        for step in done.steps:
            screen.out.print(f"would {step.kind} · {screen.line(step.words, 200)}")
        screen.out.print("nothing was changed (--check)")
    for item in done.mended:
        state = "failed" if item.failed else "changed" if item.changed else "nothing to do"
        screen.out.print(f"  {item.seconds:5.1f} s  {state:<13} {screen.line(item.planned.step.words, 200)}")
    if done.left:
        screen.findings_table(done.left)
