"""How fast accesses are counted, beside other ways, on the same log in the same run.

    .venv/bin/python -m tests.bench.count [--lines N] [--rounds N] [--log FILE]

Rounds take turns, so that a slow moment of the machine hits all alike; the median counts. mawk and GoAccess are
measured where they are installed (apt-get install mawk goaccess). They do not answer the same question, and GoAccess is
not exact: see ALSO. The log is made of ordinary lines with one hostile or malformed in a hundred, unless --log names
one. Of memory, what this process itself takes (some 35 MiB) is the least that can be told. Exit status 1 where one of
the ratios that are promised (PROMISED) does not hold, or GoAccess is not there to compare with.
"""

import argparse
import gzip
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from hikeshi.site import PROJECT
from tests.unit.access_lines import AGENTS, Lines, drawn

PROGRAM = PROJECT / "roles" / "access_count" / "files" / "count.py"
LEAST = 2_000_000
# Way → how many times as fast as GoAccess; MiB a process; .gz against plain.
PROMISED, MOST_MIB, MOST_PACKED = {"counter, 1 process": 2.5, "counter, 2 processes": 4.0}, 256, 1.6
ALSO = """counter: by the hour hits, bytes, status, kind, class and outcome; every path, client and visitor, exactly; a
  sorted partial with keyed digests on disk. mawk: hits a minute, status, bytes, paths, clients, visitors, in tables
  that are then dropped. GoAccess computes besides: referrers, time ranges, browsers, systems, not-found pages, response
  sizes a panel; visitors a day, not a window; it cuts long lines and caps its panels."""
AWK = (
    "{hits[substr($4, 2, 17)]++; status[$9]++; bytes += $10; path[$7]++; client[$1]++; split($0, q, \"\\\"\"); "
    "visitor[$1 q[6]]++} END {print length(hits), length(path), length(client), length(visitor), bytes}"
)  # fmt: skip


def make(path: Path, lines: int) -> None:
    """Write a log of a day."""
    draw = random.Random(41)
    odd = [line for line in drawn(Lines(41), 4000, odd=0.5) if len(line) < 2000]
    agents = [AGENTS[0].replace(b"128", b"%d" % number) for number in range(60, 160)] + AGENTS
    pages = [b"/catalogue/lantern-%d/" % number for number in range(3000)]
    pages += [b"/media/cache/%05d.jpg" % number for number in range(5000)] + [b"/static/%d.css" % n for n in range(40)]
    with path.open("wb") as file:
        for number in range(lines):
            if number % 100 == 50:
                file.write(draw.choice(odd) + b"\n")
                continue
            at = number * 86400 // lines
            visitor = int(draw.paretovariate(0.35)) % (lines // 12 + 1)
            page = pages[int(draw.paretovariate(0.5)) % len(pages)]
            query = b"?page=%d" % draw.randrange(99) if number % 5 == 0 else b""
            file.write(
                b'10.%d.%d.%d - - [27/Nov/2026:%02d:%02d:%02d +0900] "GET %b%b HTTP/1.1" %b %d '
                b'"https://shop.example%b" "%b"\n'
                % (visitor >> 16, visitor >> 8 & 255, visitor & 255, at // 3600, at // 60 % 60, at % 60, page, query,
                   b"404" if number % 17 == 0 else b"200", draw.randrange(60000), page, agents[visitor % len(agents)])
            )  # fmt: skip


def run(words: list[str], out: Path) -> tuple[float, int]:
    """Run a command; return its seconds, and the most memory that one of its processes took, in MiB."""
    began = time.monotonic()
    with out.open("wb") as sink:
        process = subprocess.Popen(
            words, stdout=sink, stderr=subprocess.PIPE, env={**os.environ, "HIKESHI_COUNT_KEY": "00" * 32}
        )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{words[0]} failed: {process.stderr.read().decode() if process.stderr else ''}")
    return time.monotonic() - began, used.ru_maxrss >> 10


def ways(log: Path, packed: Path, out: Path) -> dict[str, list[str] | None]:
    """Return the commands, None for a tool that is not here."""
    counter = [sys.executable, "-I", str(PROGRAM), "files", "--output", str(out), "--memory", "512"]

    def tool(name: str, words: Callable[[str], list[str]]) -> list[str] | None:
        found = shutil.which(name)
        return words(found) if found else None

    return {
        "wc -l": ["wc", "-l", str(log)],
        "mawk": tool("mawk", lambda name: [name, AWK, str(log)]),
        "GoAccess": tool(
            "goaccess",
            lambda name: [
                name,
                str(log),
                "--no-global-config",
                "--log-format=COMBINED",
                "--no-progress",
                "-o",
                f"{out}.json",
            ],
        ),
        "counter, 1 process": [*counter, str(log)],
        "counter, 2 processes": [*counter, "--processes", "2", str(log)],
        "counter, 1 process, .gz": [*counter, str(packed)],
    }


def main() -> int:
    """Measure, and print the table; return the exit status."""
    words = argparse.ArgumentParser(description="How fast accesses are counted.")
    words.add_argument("--lines", type=int, default=LEAST)
    words.add_argument("--rounds", type=int, default=5)
    words.add_argument("--log", type=Path)
    given = words.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log = given.log or folder / "access.log"
        if not given.log:
            make(log, given.lines)
        packed = folder / "access.log.gz"
        with log.open("rb") as source, gzip.open(packed, "wb", compresslevel=6) as target:
            shutil.copyfileobj(source, target, 1 << 20)
        lines = int(subprocess.run(["wc", "-l", log], capture_output=True, check=True).stdout.split()[0])
        commands = ways(log, packed, folder / "out")
        seconds: dict[str, list[float]] = {way: [] for way in commands}
        memory = dict.fromkeys(commands, 0)
        for number in range(given.rounds):
            print(f"round {number + 1} of {given.rounds}", file=sys.stderr)
            for way, command in commands.items():
                if command:
                    took, used = run(command, folder / "stdout")
                    seconds[way].append(took)
                    memory[way] = max(memory[way], used)
                    print(f"  {took:8.1f} s  {way}", file=sys.stderr, flush=True)
        print(f"{lines:,} lines, {log.stat().st_size / 1e6:,.0f} MB, median of {given.rounds}\n")
        show(lines, seconds, memory)
        print(f"\n{ALSO}")
        missed = broken(seconds, memory)
        for why in missed:
            print(f"not as promised: {why}", file=sys.stderr)
        return 1 if missed else 0


def show(lines: int, seconds: dict[str, list[float]], memory: dict[str, int]) -> None:
    """Print what was measured, with the ratio to GoAccess."""
    print(f"{'':<26}{'s':>8}{'thousand lines/s':>18}{'× GoAccess':>12}{'MiB a process':>15}")
    compared = statistics.median(seconds["GoAccess"]) if seconds["GoAccess"] else None
    for way, took in seconds.items():
        if not took:
            print(f"{way:<26}not installed")
            continue
        median = statistics.median(took)
        ratio = f"{compared / median:.1f}" if compared else "-"
        print(f"{way:<26}{median:>8.1f}{lines / median / 1000:>18,.0f}{ratio:>12}{memory[way]:>15}")
    plain, packed = (statistics.median(seconds[f"counter, 1 process{end}"]) for end in ("", ", .gz"))
    print(f"\n.gz takes {packed / plain:.2f} of the time of the plain file")


def broken(seconds: dict[str, list[float]], memory: dict[str, int]) -> list[str]:
    """Return which promises do not hold."""
    if not seconds["GoAccess"]:
        return ["GoAccess is not installed: apt-get install goaccess"]
    took = {way: statistics.median(all_of_it) for way, all_of_it in seconds.items() if all_of_it}
    missed = [
        f"{way} is {took['GoAccess'] / took[way]:.1f} times as fast as GoAccess, not {least}"
        for way, least in PROMISED.items() if took["GoAccess"] < least * took[way]
    ]  # fmt: skip
    missed += [f"{way} takes {memory[way]} MiB a process, not under {MOST_MIB}" for way in took
               if way.startswith("counter") and memory[way] >= MOST_MIB]  # fmt: skip
    plain, packed = took["counter, 1 process"], took["counter, 1 process, .gz"]
    return missed + [f".gz takes {packed / plain:.2f} of the time of plain"] * (packed > MOST_PACKED * plain)


if __name__ == "__main__":
    sys.exit(main())
