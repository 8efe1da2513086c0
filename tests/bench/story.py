"""How long each part of the story takes: the whole scenario played once, its recovery's stages from the journal.

    HIKESHI_DRILL=hikeshi-bench .venv/bin/python -m tests.bench.story [SCENARIO]

A practice site that stands is used; one that does not is put up first, and taken away at the end. Seconds are wall time
of a stage as the journal has them, what a stage does within itself (a copy's steps) below it; the last column is the
share of the recovery. The promise is five minutes on two cores, the site being up.
"""

import sys
from collections.abc import Sequence
from datetime import timedelta

from hikeshi.incident import store
from hikeshi.incident.record import Record
from hikeshi.site import load
from tests.bench.practice import standing
from tests.drill.conftest import hikeshi

PROMISE_S = 300
TITLES = {"stage": "stage", "copy": "step"}  # kind of record → what of its data names the part


def rows(records: Sequence[Record]) -> list[tuple[str, float, float]]:
    """Return (name, seconds since the recovery began, seconds) of each part of the last recovery, in order."""
    begun = [number for number, record in enumerate(records) if record.kind == "recovery.start"]
    if not begun:
        sys.exit("the journal knows of no recovery")
    mine = records[begun[-1] :]
    found = []
    for record in mine:
        kind = record.kind.removesuffix(".end")
        if record.kind.endswith(".end") and kind in TITLES:
            seconds = float(record.data.get("seconds") or 0)
            name = str(record.data.get(TITLES[kind]))
            name = name if kind == "stage" else f"  {kind}: {name}"
            began = record.time - timedelta(seconds=seconds)
            found.append((name, (began - mine[0].time).total_seconds(), seconds))
    return sorted(found, key=lambda row: (row[1], -row[2]))


def main() -> None:
    """Play the scenario and print one table."""
    scenario = sys.argv[1] if len(sys.argv) > 1 else "torashu05"
    with standing():
        played = hikeshi("drill", "--scenario", scenario, "--json", timeout=3600)
        if not played.out.strip():
            sys.exit(f"drill: exit status {played.status}\n{played.err[-3000:]}")
        recovery = played.data["recovery"]
        found = rows(store.journal(load("drill")).records())
    whole = max(float(recovery["seconds"]), 0.1)
    print(f"{'':<36}{'at s':>8}{'wall s':>8}{'share':>8}")
    for name, began, seconds in found:
        print(f"{name:<36}{began:>8.1f}{seconds:>8.1f}{seconds / whole:>8.0%}")
    mended = sum(row["mended"] for row in played.data["faults"])
    print(f"{'recovery, all of it':<36}{0:>8.1f}{whole:>8.1f}{1:>8.0%}")
    health = "healthy" if recovery["healthy"] else "not healthy"
    share = f"{whole / PROMISE_S:.0%} of the {PROMISE_S} s that were promised"
    print(f"{mended} of {len(played.data['faults'])} faults mended, {health}, {share}")
    if played.status:
        sys.exit(f"drill: exit status {played.status}\n{played.err[-3000:]}")


if __name__ == "__main__":
    main()
