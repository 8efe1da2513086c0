"""What the journal costs: records per second, and its share of a run of Ansible.

    .venv/bin/python -m tests.bench.journal

The run is of this machine over Ansible's local connection, with TASKS tasks that each change something: every one of
them is a record with its own fsync, so this is the worst a run can be. Ratios are to the first line of each table.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

from hikeshi import runner
from hikeshi import site as sites
from hikeshi.incident import audit, state, store
from hikeshi.incident.journal import Journal
from hikeshi.incident.runs import Recorded
from hikeshi.text import Redactor

ROOT = sites.PROJECT
RECORDS = 2000
TASKS = 40
ROUNDS = 5
PROBES = {"probes": [{"id": "top", "title": "The top page opens", "steps": [{"get": "/"}]}]}
VIEW = {"url": "http://127.0.0.1:1"}


def table(title: str, rows: list[tuple[str, float, str]]) -> None:
    """Print rows of name, seconds and words, with the ratio to the first."""
    print(f"\n{title:<44}{'s':>9}{'ratio':>9}")
    for name, seconds, words in rows:
        print(f"{name:<44}{seconds:>9.3f}{seconds / rows[0][1]:>9.3f}  {words}")


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that some work takes."""
    began = time.monotonic()
    work()
    return time.monotonic() - began


def records(folder: Path) -> None:
    """Measure appending, reading and verifying."""
    plain = folder / "plain"

    def write_and_sync() -> None:
        with plain.open("ab", buffering=0) as handle:
            for _ in range(RECORDS):
                handle.write(b"x" * 500 + b"\n")
                os.fsync(handle.fileno())

    def append() -> None:
        for number in range(RECORDS):
            journal.append("task", {"role": "web_server", "task": "Write the file", "number": number}, host="web1")

    journal = Journal(folder / "journal", Redactor([f"secret-number-{number}" for number in range(10)]))
    rows = [("write a line and fsync, nothing else", timed(write_and_sync), "")]
    for name, work in (
        ("append a record", append),
        ("read and derive the state", lambda: state.derive(journal.records())),
        ("verify", lambda: audit.verify(journal.folder)),
        ("verify and anchor", lambda: audit.verify(journal.folder, folder / "anchor.jsonl")),
    ):
        seconds = timed(work)
        rows.append((name, seconds, f"{RECORDS / seconds:,.0f} records/s"))
    table(f"{RECORDS} records", rows)


def project(folder: Path) -> sites.Site:
    """Make a site whose only host is this machine."""
    shop = folder / "inventories" / "shop"
    shop.mkdir(parents=True)
    (folder / "playbooks").mkdir()
    data = {"title": "Bench", "views": {"customer": VIEW, "direct": VIEW}}
    tasks = [
        {"name": f"Change {number}", "ansible.builtin.command": "true", "changed_when": True} for number in range(TASKS)
    ]
    play = [{"hosts": "all", "gather_facts": False, "tasks": tasks}]
    files: dict[str, Any] = {"inventories/shop/site.yml": data, "inventories/shop/probes.yml": PROBES}
    files |= {"playbooks/bench.yml": play}
    files |= {"inventories/shop/hosts.yml": {"all": {"hosts": {"web1": {"ansible_connection": "local"}}}}}
    for name, content in files.items():
        (folder / name).write_text(yaml.safe_dump(content))
    (folder / "ansible.cfg").write_text((ROOT / "ansible.cfg").read_text())
    return sites.load("shop")


def run(folder: Path) -> None:
    """Measure a run with and without its journal, in turn, so that a noisy machine disturbs both alike."""
    with mock.patch.multiple(sites, PROJECT=folder, INVENTORIES=folder / "inventories"):
        site = project(folder)
    with mock.patch.multiple(sites, PROJECT=folder), mock.patch.object(runner, "PROJECT", folder):
        store.begin(site, "bench", "bench", "", datetime.now(UTC))

        def without() -> None:
            where = folder / "plain" / str(time.monotonic_ns())
            with mock.patch.object(runner, "recorded", lambda *_, **__: Recorded(where, None, None)):
                runner.run(site, "bench.yml", verb="bench")

        append, within = Journal.append, [0.0]

        def watched(*words: Any, **more: Any) -> Any:
            began = time.monotonic()
            try:
                return append(*words, **more)
            finally:
                within[0] += time.monotonic() - began

        seconds = {"without": 0.0, "with": 0.0}
        for _ in range(ROUNDS):
            seconds["without"] += timed(without)
            with mock.patch.object(Journal, "append", watched):
                seconds["with"] += timed(lambda: runner.run(site, "bench.yml", verb="bench"))
        written = len(store.journal(site).records())
    rows = [("without a journal", seconds["without"] / ROUNDS, "")]
    rows.append(("with it", seconds["with"] / ROUNDS, f"{written / ROUNDS:.0f} records a run"))
    rows.append(("of which the journal took", within[0] / ROUNDS, "the rest is the machine's noise"))
    table(f"a run of {TASKS} changing tasks, mean of {ROUNDS}", rows)


def main() -> None:
    """Measure everything on the disk of the temporary folder, or of the one named."""
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
        records(Path(folder))
        run(Path(folder) / "project")


if __name__ == "__main__":
    main()
