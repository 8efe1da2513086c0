"""An answer as people see it: a sparkline, a table, the method. Whatever came from logs is escaped."""

from collections.abc import Iterable, Sequence

from rich.table import Table

from hikeshi import screen
from hikeshi.access import method
from hikeshi.access.answer import Answer, Side, Sums
from hikeshi.access.reconcile import Reconciled
from hikeshi.screen import line

TITLES = {"lb": "load balancer", "web": "web servers"}
_BARS = "▁▂▃▄▅▆▇█"
MOST_EMPTY = 24  # rows of nothing in a row: a line whose time is wrong may be years away


def show(answer: Answer, reconciled: Reconciled | None, *, verbose: bool) -> None:
    """Print all of it; with `verbose` also every file's malformed lines, and what each word means."""
    for role, side in answer.sides.items():
        people = side.total
        screen.out.print(
            f"[bold]{TITLES[role]}[/bold]: {people.hits} hits, {people.classes['people']} of people: {people.views} "
            f"page views, {people.visitors} visitors; {size(people.size)}"
        )
        slots = filled(side, answer)
        if len(slots) > 1:
            screen.out.print(f"{sparkline([sums.hits for _, sums in slots])}  hits by the {answer.window.by}")
        screen.out.print(_table(answer, role, side, slots))
        _tops(side)
    if not answer.sides:
        screen.out.print("nothing was counted in this window")
    if reconciled:
        style = "[bold red]differs[/bold red]" if reconciled.flagged else "[bold]load balancer and web servers[/bold]"
        screen.out.print(
            f"{style}: {reconciled.least} to {reconciled.most} handed on, {reconciled.web} logged by the web servers; "
            f"{line(reconciled.words)}"
        )
        for words in reconciled.reasons:
            screen.out.print(f"  {line(words)}")
    screen.out.print("[bold]method[/bold]")
    for words in method.sentences(answer):
        screen.out.print(f"  {line(words, 500)}")
    found = method.samples(answer)
    for words in found if verbose else found[:2]:
        screen.out.print(f"  malformed: {line(words, 400)}")
    if verbose:
        for words in method.MEANINGS:
            screen.out.print(f"  {words}")


def filled(side: Side, answer: Answer) -> list[tuple[int, Sums]]:
    """Return the slots in order, with those in which nothing came; of a longer time without a line the method tells."""
    made: list[tuple[int, Sums]] = []
    for at, sums in side.slots.items():
        if made and answer.window.by != "all":
            empty: list[tuple[int, Sums]] = []
            between = answer.window.following(made[-1][0])
            while between < at and len(empty) <= MOST_EMPTY:
                empty.append((between, Sums()))
                between = answer.window.following(between)
            made += empty if len(empty) <= MOST_EMPTY else []
        made.append((at, sums))
    return made


def _table(answer: Answer, role: str, side: Side, slots: Sequence[tuple[int, Sums]]) -> Table:
    table = Table(box=None, pad_edge=False)
    outcomes = ("served", "sorry", "refused", "failed", "aborted") if role == "lb" else ()
    columns = ["", "hits", "people", "views", "pictures", "assets", "visitors", "bytes", *outcomes]
    columns += ["2xx", "3xx", "4xx", "5xx", "bots", "probes", "checks", "no request"]
    for column in columns:
        table.add_column(column, justify="left" if not column else "right", no_wrap=True)
    for at, sums in slots:
        table.add_row(
            answer.window.said(at), *_cells(sums, outcomes), style="yellow" if sums.outcomes["sorry"] else None
        )
    if len(slots) != 1:
        table.add_row("all", *_cells(side.total, outcomes), style="bold")
    return table


def _cells(sums: Sums, outcomes: Iterable[str]) -> list[str]:
    counts = sums.outcomes
    shown = {
        "served": counts["served"] + counts["local"], "sorry": counts["sorry"], "refused": counts["refused"],
        "failed": counts["failed"] + counts["unreached"], "aborted": counts["aborted"] + counts["left"],
    }  # fmt: skip
    numbers = [sums.hits, sums.classes["people"], sums.views, sums.kinds["picture"], sums.kinds["asset"], sums.visitors]
    statuses = [sums.statuses[f"{number}xx"] for number in (2, 3, 4, 5)]
    others = [sums.classes[name] for name in ("bots", "probes", "checks", "no_request")]
    cells = [*map(str, numbers), size(sums.size), *(str(shown[name]) for name in outcomes)]
    return cells + [str(number) if number else "·" for number in (*statuses, *others)]


def _tops(side: Side) -> None:
    for title, tops, distinct in (
        ("what people asked for most", side.paths, side.distinct_paths),
        ("who came most", side.clients, side.distinct_clients),
    ):
        if tops:
            screen.out.print(f"[bold]{title}[/bold], of {distinct}")
        for top in tops:
            who = f"  {top.who}" if tops is side.clients else ""
            screen.out.print(f"  {top.hits:>9}  {line(top.name, 120)}{who}")


def sparkline(numbers: Sequence[int]) -> str:
    """Return a bar for each number; what is not zero is seen. Of very many, neighbours are one bar."""
    if len(numbers) > 120:
        step = -(-len(numbers) // 120)
        numbers = [sum(numbers[at : at + step]) for at in range(0, len(numbers), step)]
    most = max(numbers, default=0)
    return "".join(_BARS[(number * (len(_BARS) - 1) + most - 1) // most] if number else " " for number in numbers)


def size(number: int) -> str:
    """Return bytes as people say them."""
    shown = float(number)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if shown < 1000:
            return f"{shown:.0f} {unit}" if unit in ("B", "kB") else f"{shown:.1f} {unit}"
        shown /= 1000
    return f"{shown:.1f} PB"
