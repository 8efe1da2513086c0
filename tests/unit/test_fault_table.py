"""`hikeshi drill table`: each fault alone, its row written at once, whatever becomes of the next one."""

import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hikeshi import baseline, look, recover
from hikeshi.drill import faults, practice, table
from hikeshi.errors import ExitStatus
from hikeshi.look import Triage
from hikeshi.probes import ProbeResult
from hikeshi.recover import Recovery
from hikeshi.triage.drift import Drift
from hikeshi.triage.findings import Effect, Finding
from tests.unit.commands import hikeshi

OLD = Drift("web1", "file:/etc/old", None, {"kind": "file"})
NEW = Drift("web1", "file:/etc/new", None, {"kind": "file"})
GREEN = ProbeResult("top", "The top page opens", "customer", passed=True, seen="", seconds=0.1)
RED = ProbeResult("top", "The top page opens", "customer", passed=False, seen="503", seconds=0.1)


def finding(subject: str) -> Finding:
    return Finding("x", "web1", subject, Effect.CANNOT_BUY, "cause", "quote", ())


class Drill:
    """Stands where the practice site would: each fault does what was put in for it."""

    def __init__(self) -> None:
        self.state = SimpleNamespace(release="12", no_small_disks="")
        self.broken: list[tuple[list[str], int | None, str]] = []
        self.made_whole = 0
        self.allowed = 0  # faults for which the way by the disk was allowed
        self.seen: dict[str, Triage] = {}
        self.left: dict[str, list[Finding]] = {}
        self.by: dict[str, list[str]] = {}
        self.stop_at = ""

    def whole(self, release: str) -> Any:
        self.made_whole += 1
        self.broken.append(([], None, ""))
        return SimpleNamespace(name="drill")

    def break_site(self, names: list[str], seed: int | None, reboot: str) -> list[faults.Fault]:
        if names == [self.stop_at]:
            raise KeyboardInterrupt
        self.broken.append((names, seed, reboot))
        return [faults.choose(names[0], seed or 0)]

    def way_by_the_disk(self, site: Any) -> AbstractContextManager[None]:
        self.allowed += 1
        return nullcontext()

    @property
    def now(self) -> str:
        return "".join(self.broken[-1][0])

    def triage(self, site: Any, **_: Any) -> Triage:
        return self.seen.get(self.now) or Triage("drill", probes=[GREEN], drift=[OLD])

    def recover(self, site: Any, **_: Any) -> Recovery:
        left = self.left.get(self.now, [])
        return Recovery("drill", seconds=31.4, after=[GREEN], left=left, drift=[OLD])

    def score(self, recovery: Recovery) -> dict[str, Any]:
        by = self.by.get(self.now, [])
        return {"faults": [{"mended": bool(by), "by": by}]}


@pytest.fixture
def document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "docs" / "faults.md"
    monkeypatch.setattr(table, "DOCUMENT", path)
    return path


@pytest.fixture
def drill(document: Path, monkeypatch: pytest.MonkeyPatch) -> Drill:
    made = Drill()
    monkeypatch.setattr(practice, "standing_state", lambda: made.state)
    for name in ("whole", "break_site", "score"):
        monkeypatch.setattr(practice, name, getattr(made, name))
    monkeypatch.setattr(look, "triage", made.triage)
    monkeypatch.setattr(recover, "recover", made.recover)
    monkeypatch.setattr(baseline, "newest", lambda site: None)
    monkeypatch.setattr(faults, "forget", lambda: None)
    monkeypatch.setattr(table, "_allowed", made.way_by_the_disk)
    return made


def test_hostile_cells_come_back_as_they_were() -> None:
    row = table.Row("a-fault", "a | b \\ *c* <d> [e](f) `g`", "I1", mended="host_base path_mode /srv/|x\\|")
    (read,) = table.read(table.render({"a-fault": row}))
    assert read == row


def test_faults_are_measured_and_the_others_stay(
    drill: Drill, document: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table.write(table.current(document) | {
        "stale-lock": table.Row("stale-lock", "an old title", "–", "finding", "yes", "batch_jobs stale_lock", "9"),
        "a-gone-fault": table.Row("a-gone-fault", "gone", "–"),
    }, document)  # fmt: skip
    drill.seen["database-disabled"] = Triage(
        "drill", probes=[RED], found=[finding("unit:mariadb.service")], drift=[OLD, NEW]
    )
    drill.seen["images-unreadable"] = Triage(
        "drill", probes=[GREEN], found=[finding("unit:other.service")], drift=[OLD]
    )
    drill.by = {name: ["host_base unit_start {{ x }}|y"] for name in ("database-disabled", "images-unreadable")}
    status = hikeshi(monkeypatch, "drill", "table", "images-unreadable", "database-disabled", "--seed", "7", "--json")
    assert status == ExitStatus.DONE
    first, second = json.loads(capsys.readouterr().out)
    assert (first["found"], first["named"], first["mended"], first["seconds"]) == (
        "finding, probe, drift", "yes", "host_base unit_start {{ x }}|y", "31",
    )  # fmt: skip
    assert (second["found"], second["named"]) == ("finding", "no")
    rows = {row.fault: row for row in table.read(document.read_text())}
    assert list(rows) == sorted(faults.catalogue())
    assert rows["database-disabled"].mended == "host_base unit_start {{ x }}|y"
    assert rows["stale-lock"].mended == "batch_jobs stale_lock"
    assert rows["stale-lock"].title == faults.catalogue()["stale-lock"].title
    assert rows["disk-full"].mended == table.NOT_MEASURED
    assert drill.broken[1:] == [(["database-disabled"], 7, "web1"), (["images-unreadable"], 7, "web1")]
    assert document.stat().st_mode & 0o777 == 0o644


def test_what_is_not_mended_is_told_and_the_next_fault_gets_a_whole_site(
    drill: Drill, document: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drill.left["database-disabled"] = [finding("unit:mariadb.service")]
    drill.by["images-unreadable"] = ["host_base path_mode"]
    drill.seen["images-unreadable"] = Triage("drill", probes=[GREEN], drift=[NEW])
    status = hikeshi(monkeypatch, "drill", "table", "database-disabled", "images-unreadable")
    assert status == ExitStatus.FAILED
    rows = {row.fault: row for row in table.read(document.read_text())}
    assert (rows["database-disabled"].found, rows["database-disabled"].mended) == ("no", "no")
    assert (rows["images-unreadable"].found, rows["images-unreadable"].mended) == ("drift", "host_base path_mode")
    assert drill.made_whole == 2


def test_interruption_keeps_the_rows_that_were_measured(
    drill: Drill, document: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drill.by = dict.fromkeys(faults.catalogue(), ["x"])
    drill.stop_at = sorted(faults.catalogue())[2]
    assert hikeshi(monkeypatch, "drill", "table") == ExitStatus.INTERRUPTED
    rows = table.read(document.read_text())
    first = [fault for _, fault in sorted(faults.catalogue().items())][:3]
    assert drill.allowed == sum(fault.keeps_out for fault in first) > 0
    assert [row.measured for row in rows] == [True, True] + [False] * (len(rows) - 2)


def test_fault_that_this_machine_cannot_make_says_why(
    drill: Drill, document: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drill.state.no_small_disks = "no loop\ndevices"
    assert hikeshi(monkeypatch, "drill", "table", "disk-full") == ExitStatus.DONE
    told = {row.fault: row for row in table.read(document.read_text())}["disk-full"]
    assert told.mended == "not tried: it needs a small disk: no loop\\ndevices"
    assert drill.broken == []
    measured = table.Row("disk-full", told.title, told.row, "finding", "yes", "web_server logs_move", "12")
    table.write(table.current(document) | {"disk-full": measured}, document)
    assert hikeshi(monkeypatch, "drill", "table", "disk-full") == ExitStatus.DONE
    assert measured in table.read(document.read_text()), "what another machine has measured stays"


def test_unknown_fault_is_an_error(drill: Drill, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hikeshi(monkeypatch, "drill", "table", "nosuch") == ExitStatus.USAGE


@pytest.mark.parametrize("row", ["i1", "I", "I123", "I0", "1"])
def test_row_of_the_catalogue_is_a_letter_and_a_number(row: str) -> None:
    data: dict[str, Any] = {"title": "x", "host": "web1", "subjects": ["unit:x"], "variants": []}
    assert faults.FaultData(**data, row="C13").row == "C13"
    with pytest.raises(ValueError, match="row"):
        faults.FaultData(**data, row=row)
