"""The table of faults in docs/faults.md: each broken alone, looked at, recovered from; written anew after each row."""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, astuple, dataclass, fields, replace
from pathlib import Path
from typing import Any

from hikeshi import baseline, lock, look, recover, screen
from hikeshi.copies import record, swap
from hikeshi.drill import faults, practice
from hikeshi.drill.faults import Fault
from hikeshi.errors import UsageError
from hikeshi.files import write_private
from hikeshi.incident import opening, show
from hikeshi.look import Triage
from hikeshi.recover import Recovery
from hikeshi.site import PROJECT, Site
from hikeshi.text import one_line
from hikeshi.triage.drift import Drift
from hikeshi.triage.findings import Finding

DOCUMENT = PROJECT / "docs" / "faults.md"
NOT_MEASURED, NOT_TRIED, NO, NONE = "not measured", "not tried: ", "no", "–"
_HEAD = """\
# The faults, tried one by one

`hikeshi drill table` writes this document; what is written by hand, it writes anew. On the practice site each fault is
made alone, with a seed that is drawn, and web1 restarted as by `hikeshi drill break`; then come `hikeshi triage` and
`hikeshi recover`, which know nothing of it, and every probe must be green again.

- **row**: the fault's number in the catalogue of faults that the drill began with; – where it has none there.
- **found**: by what triage saw that something is wrong: finding, probe, unreachable (nobody gets in), drift (that did
  not stand before); or no.
- **named**: whether a finding is about what was broken; where nobody gets in, one on the copied disk.
- **mended by**: the steps that changed something about it; `converge` where building the site from code did.
- **seconds**: from the beginning of the recovery until the site was proved healthy.

A fault is “not measured” until the command was run for it, and “not tried” where a machine cannot make it.

Row L13 of the catalogue, the root file system full, is not among them: a container's root is the machine's disk. What
would mend it, moving logs of known names and letting go of deleted ones that are held open, is tried on small disks
(C5, D4). Nor is L10: no host of ours has fail2ban, and whom it bans only its own program could say. L16 is none of a
host: our ssh_config offers one key (`IdentitiesOnly`), which a test looks for.

"""
_COLUMNS = ("fault", "title", "row", "found", "named", "mended by", "seconds")


@dataclass(frozen=True)
class Row:
    """One fault's row, its cells as they are shown."""

    fault: str
    title: str
    row: str
    found: str = NOT_MEASURED
    named: str = NOT_MEASURED
    mended: str = NOT_MEASURED
    seconds: str = NOT_MEASURED

    @property
    def measured(self) -> bool:
        """True when the fault was tried."""
        return not self.mended.startswith((NOT_MEASURED, NOT_TRIED))


def rows(document: str) -> dict[str, Row]:
    """Return the row of every fault there is: as it stands in the document, else not measured; by name."""
    stand = {row.fault: row for row in read(document)}
    found = {}
    for name, data in sorted(faults.catalogue().items()):
        fresh = Row(name, data.title, data.row or NONE)
        found[name] = replace(stand.get(name, fresh), title=fresh.title, row=fresh.row)
    return found


def read(document: str) -> list[Row]:
    """Return the rows that stand in a document; what is no row of seven cells is passed over."""
    lines = [line for line in document.splitlines() if line.startswith("| ")][2:]  # the first two are the table's head
    cells = [[_plain(cell) for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [Row(*row) for row in cells if len(row) == len(fields(Row))]


def render(table: Mapping[str, Row]) -> str:
    """Return the document that holds these rows."""
    lines = [_COLUMNS, ["---"] * len(_COLUMNS), *([_cell(cell) for cell in astuple(row)] for row in table.values())]
    return _HEAD + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(text: str) -> str:
    """Return text that ends no cell, and that Markdown takes for nothing else: some of it comes from hosts."""
    return re.sub(r"([\\|`*<>\[\]&~])", r"\\\1", text)


def _plain(cell: str) -> str:
    return re.sub(r"\\(.)", r"\1", cell.strip())


def write(table: Mapping[str, Row], path: Path) -> None:
    """Write the document, whole or not at all."""
    write_private(path, render(table))
    path.chmod(0o644)  # unlike all else that we write, it is for everybody


def current(path: Path) -> dict[str, Row]:
    """Return the rows of the document at a path, of every fault there is now."""
    return rows(path.read_text(encoding="utf-8") if path.exists() else "")


def measure(names: Sequence[str], seed: int | None) -> list[Row]:
    """Try these faults one by one, all of them when none is named; return their rows, which stand in the document, too.

    Who interrupts it keeps the rows that were measured; the site is made anew by whoever next needs it whole.
    """
    known = faults.catalogue()
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UsageError(f"unknown fault '{unknown[0]}'; allowed: {', '.join(known)}.", "hikeshi drill list")
    state = practice.standing_state()
    table = current(DOCUMENT)
    number = practice.draw_seed(seed)
    chosen = sorted(set(names)) or list(table)
    site: Site | None = None
    before: Sequence[Drift] = ()
    for count, name in enumerate(chosen, 1):
        screen.say(f"[bold]fault {count} of {len(chosen)}: {screen.line(name)}[/bold], seed {number}")
        if known[name].small_disk and state.no_small_disks:
            row = _not_tried(table[name], f"it needs a small disk: {state.no_small_disks}")
        else:
            if site is None:
                site = practice.whole(state.release)
                before = look.triage(site, against=baseline.newest(site)).drift
            with _allowed(site) if known[name].keeps_out else nullcontext():
                row, recovery = _try(site, table[name], number, before)
            before = recovery.drift
            if not recovery.healthy:
                site = None  # the next fault must not suffer from this one
        table[name] = row
        write(table, DOCUMENT)
        screen.say(
            f"{screen.line(name)}: found {row.found}, named {row.named}, mended by {screen.line(row.mended, 300)}"
        )
    return [table[name] for name in chosen]


@contextmanager
def _allowed(site: Site) -> Iterator[None]:
    """Have an incident in which the customer allows the way by the disk; at its end a host keeps what it runs from."""
    brief = practice.scenario(practice.PLAYED).incident
    assert brief  # noqa: S101 (test_opening asks for it)
    opening.end(site, "the drill", "another fault is tried")
    opening.by_brief(site, brief, f"table-{time.strftime('%H%M%S')}")
    show.time_left(site)
    yield
    with lock.held(site, "copy"):
        for copy in record.read_all(site):
            if copy.swap and copy.swap.state == "proven":
                swap.commit(site, copy)
    opening.end(site, "the drill", "the fault was tried")


def _not_tried(row: Row, why: str) -> Row:
    """Return the row of a fault that this machine cannot make; what another has measured stays."""
    if row.measured:
        screen.say(f"not tried here, its row stays as it was: {screen.line(why)}")
        return row
    return replace(row, found=NONE, named=NONE, mended=f"{NOT_TRIED}{one_line(why, 300)}", seconds=NONE)


def _try(site: Site, row: Row, seed: int, before: Sequence[Drift]) -> tuple[Row, Recovery]:
    """Break, look, recover and judge one fault on a whole site."""
    reboot = practice.scenario(practice.BROKEN).reboot
    (fault,) = practice.break_site([row.fault], seed, reboot)
    seen = look.triage(site, against=baseline.newest(site))
    recovery = recover.recover(site, approve=lambda *_: True, ask=lambda *_: True)
    (scored,) = practice.score(recovery)["faults"]
    if recovery.healthy:
        faults.forget()
    mended = scored["mended"] and recovery.healthy
    return replace(
        row,
        found=_found(seen, before),
        named="yes" if _named([*seen.found, *recovery.found, *_on_disks(recovery)], fault) else NO,
        mended=one_line("; ".join(scored["by"]), 300) if mended else NO,
        seconds=f"{recovery.seconds:.0f}" if mended else NONE,
    ), recovery


def _found(seen: Triage, before: Sequence[Drift]) -> str:
    known = {(item.host, item.subject, item.words) for item in before}
    kinds = {
        "finding": bool(seen.found),
        "probe": not all(item.passed for item in seen.probes),
        "unreachable": any(item.unreachable for item in seen.refused),
        "drift": any((item.host, item.subject, item.words) not in known for item in seen.drift),
    }
    return ", ".join(kind for kind, true in kinds.items() if true) or NO


def _on_disks(recovery: Recovery) -> list[Finding]:
    rescued = recovery.disks.done if recovery.disks else []
    return [finding for item in rescued if item.look for finding in item.look.found]


def _named(found: Sequence[Finding], fault: Fault) -> bool:
    return any(item.host == fault.host and item.subject in fault.subjects for item in found)


def as_data(table: Sequence[Row]) -> list[dict[str, Any]]:
    """Return rows as plain data."""
    return [asdict(row) for row in table]


def whole(table: Sequence[Row]) -> bool:
    """Say whether every fault of these that was tried was found, and mended where it can be."""
    known = faults.catalogue()
    return all(row.found != NO and (row.mended != NO or not known[row.fault].mendable) for row in table if row.measured)
