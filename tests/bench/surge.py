"""What the practice shop carries on this machine: the highest rate of page views, and where it saturates.

    HIKESHI_DRILL=hikeshi-bench .venv/bin/python -m tests.bench.surge

Doubles the rate until the shop does not carry it, then halves the gap a few times; each trial is one `hikeshi probe
--surge`, and its row is that of its last step: the rate itself, or where the ramp to it ended. Shop, database, load
balancer and this program share the machine's cores, so run it on a quiet machine. A practice site that stands is used
as it is; one that does not is put up, and taken away at the end. The ratio is that of p95 to p95 at the lowest rate
that was carried, in the same run.
"""

import os
import sys
import time
from typing import Any

from hikeshi.site import MOST_SURGE
from tests.bench.practice import busy_s, standing
from tests.drill.conftest import hikeshi

FIRST = 2  # requests per second
HALVINGS = 3
REST_S = 5  # after a trial that failed, for what the shop still had to do


def trial(rate: float) -> tuple[dict[str, Any], float]:
    """Ask for one rate; return the probe's data and the busy share of all cores. An error ends the benchmark."""
    wall, busy = time.monotonic(), busy_s()
    done = hikeshi("probe", "--surge", f"{rate:g}", "--site", "drill", "--json", timeout=120)
    share = (busy_s() - busy) / (time.monotonic() - wall) / (os.cpu_count() or 1)
    data = done.data if done.status in (0, 1) else {}
    if "steps" not in data:
        sys.exit(f"{rate:g}/s: exit status {done.status}\n{done.err[-2000:]}")
    if not data["carried"]:
        time.sleep(REST_S)
    return data, share


def search() -> list[tuple[dict[str, Any], float]]:
    """Return all trials: doubled until one fails, then halfway between what held and what failed."""
    trials = [trial(FIRST)]
    while trials[-1][0]["carried"] and trials[-1][0]["rate"] < MOST_SURGE:
        trials.append(trial(min(MOST_SURGE, 2 * trials[-1][0]["rate"])))
    for _ in range(HALVINGS):
        held = max((data["rate"] for data, _ in trials if data["carried"]), default=0)
        failed = min((data["saturates"] for data, _ in trials if not data["carried"]), default=0)
        if held and failed - held > 1:
            trials.append(trial(round((held + failed) / 2)))
    return trials


def main() -> None:
    """Measure, and print one table, lowest rate first."""
    with standing():
        trials = sorted(search(), key=lambda item: float(item[0]["steps"][-1]["asked"]))
    print(f"{'asked/s':>8}{'achieved/s':>12}{'p50 s':>8}{'p95 s':>8}{'ratio':>8}{'busy':>7}")
    base = next((data["steps"][-1]["p95_s"] for data, _ in trials if data["carried"]), None)
    for data, share in trials:
        last = data["steps"][-1]
        p50, p95 = (f"{last[key]:.2f}" if last[key] is not None else "-" for key in ("p50_s", "p95_s"))
        ratio = f"{last['p95_s'] / base:.1f}" if base and last["p95_s"] is not None else "-"
        verdict = "carried" if data["carried"] else last["why"] or "not carried"
        print(
            f"{last['asked']:>8g}{last['achieved']:>12.1f}{p50:>8}{p95:>8}{ratio:>8}{share:>7.0%}  {verdict}"
            + (f" (this machine sent up to {data['late_s']:.1f} s late)" if data["late_s"] > 0.25 else "")
        )
    held = [data for data, _ in trials if data["carried"]]
    failed = [data["steps"][-1] for data, _ in trials if not data["carried"]]
    carries = f"carries {held[-1]['rate']:g} requests/s" if held else f"does not carry {FIRST} requests/s"
    saturates = f", saturates at {max(step['achieved'] for step in failed):.1f}/s" if failed else ""
    print(f"{carries}{saturates}, on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
