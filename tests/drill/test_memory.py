"""The incident's memory on the practice site: killed at every boundary, no permission, secrets over ssh, evidence."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from hikeshi import runner
from hikeshi.errors import ExitStatus
from hikeshi.incident import saved, store
from hikeshi.incident.record import Record
from hikeshi.site import PROJECT, load
from tests.bent_command import BOUNDARIES, GATE_BOUNDARIES
from tests.drill.conftest import ALL, Done, hikeshi, red, ssh
from tests.unit import canaries


@pytest.fixture
def incident(whole: Path) -> Iterator[Path]:
    """An incident of the practice site; closed and removed afterwards."""
    hikeshi("incident", "close", "--force")  # left by a test that was killed
    done = hikeshi("incident", "open", f"test-{os.getpid()}-{os.urandom(3).hex()}")
    assert done.status == 0, done.err
    folder = store.folder(load("drill"))
    yield folder
    assert hikeshi("incident", "close", "--force").status == 0
    if not os.environ.get("HIKESHI_TEST_KEEP"):
        shutil.rmtree(folder)


def bent(*words: str) -> Done:
    """Run the command, bent by its first word; see tests/bent_command.py."""
    done = subprocess.run(
        [sys.executable, PROJECT / "tests" / "bent_command.py", *words],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)


def records(kind: str) -> list[Record]:
    return [record for record in store.journal(load("drill")).records() if record.kind == kind]


@pytest.mark.long
def test_killed_at_every_stage_boundary_and_resumed(incident: Path, seed: int) -> None:
    assert hikeshi("drill", "break", "--seed", str(seed + 11)).status == 0
    for boundary in BOUNDARIES:
        done = bent(f"--die-at={boundary}", "recover", "--yes")
        # What one round has mended can bring to light more: then there is nothing to skip yet.
        whole = done.status == 0 and boundary == "stage.skipped/mend"
        assert whole or done.status == -9, f"{boundary} was not met: {done.err}"
    done = hikeshi("recover", "--yes", "--json")
    assert done.status == 0, done.err
    assert done.data["healthy"]
    mended = [record.data["steps"] for record in records("stage.end")
              if record.data["stage"] == "mend" and record.data["outcome"] == "done"]  # fmt: skip
    # A late step leans on all the others: it may be taken once in each round.
    steps = [step for taken in mended for step in taken if "run_job" not in step]
    assert mended
    assert len(steps) == len(set(steps)), f"a step was taken twice: {mended}"
    status = hikeshi("incident", "status", "--json").data
    assert status["running"] == []
    assert hikeshi("incident", "verify").status == 0


@pytest.mark.long
def test_killed_at_every_boundary_of_the_gate_it_ends_open(incident: Path, seed: int) -> None:
    assert hikeshi("incident", "permit", "sorry", "--by", "Ms Ito", "--words", "Show it meanwhile").status == 0
    # Two recoveries each: the ordinary run takes one of them.
    for boundary in GATE_BOUNDARIES if ALL else [GATE_BOUNDARIES[seed % len(GATE_BOUNDARIES)]]:
        assert hikeshi("drill", "break", "database-disabled", "--seed", str(seed + 19)).status == 0
        done = bent(f"--die-at={boundary}", "recover", "--yes")
        assert done.status == -9, f"{boundary} was not met: {done.err}"
        status = hikeshi("sorry", "status", "--json").data
        assert all(host["gate"] == "open" or host["until"] for host in status["hosts"].values()), boundary
        done = hikeshi("recover", "--yes", "--json")
        assert (done.status, done.data["gate"]) == (0, ""), f"{boundary}: {done.err}"
        assert hikeshi("sorry", "status", "--json").data["gate"] == "open"
    assert {record.data["name"] for record in records("permission.used")} == {"sorry"}
    assert not red(hikeshi("probe", "--json").data)


@pytest.mark.long
def test_of_twenty_recoveries_one_runs_and_nineteen_name_it(incident: Path, seed: int) -> None:
    assert hikeshi("drill", "break", "database-disabled", "--seed", str(seed + 17)).status == 0
    with ThreadPoolExecutor(20) as people:
        ends = list(people.map(lambda _: hikeshi("recover", "--yes"), range(20)))
    assert sorted(done.status for done in ends) == [0] + 19 * [ExitStatus.REFUSED], [done.err for done in ends]
    owner = f", pid {records('recovery.start')[0].pid}, recover"
    refused = [done.err for done in ends if done.status == ExitStatus.REFUSED]
    assert all(owner in " ".join(words.split()) for words in refused), refused[0]
    assert len(records("recovery.start")) == 1
    assert len([record for record in records("run.start") if record.data["playbook"] == "recover-site.yml"]) == 1
    assert not red(hikeshi("probe", "--json").data)


@pytest.mark.long
def test_without_a_permission_it_stops_and_after_it_goes_on(incident: Path, seed: int) -> None:
    assert hikeshi("drill", "break", "database-disabled", "--seed", str(seed + 13)).status == 0
    done = bent("--needs=copy", "recover", "--yes")
    assert done.status == ExitStatus.REFUSED, done.err
    words = " ".join(done.err.split())
    assert "needs the customer's permission 'copy', and nobody has allowed it. Ask the customer:" in words
    assert "allowed, not used: reboot" in words, "what the drill's brief grants stands at the top"
    assert "recover-site.yml" not in [record.data["playbook"] for record in records("run.start")]
    assert red(hikeshi("probe", "--json").data), "nothing was mended"
    assert hikeshi("incident", "permit", "copy", "--by", "Ms Ito", "--words", "Yes, go on").status == 0
    done = bent("--needs=copy", "recover", "--yes", "--json")
    assert done.status == 0, done.err
    assert done.data["healthy"]
    assert {record.data["name"] for record in records("permission.used")} == {"copy"}


def test_forty_canaries_over_ssh_are_found_nowhere(
    incident: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The practice site's own addresses and keys, with canaries among its secrets; a project with one playbook.
    private = tmp_path / "site"
    shutil.copytree(whole / "site", private)
    canaries.plant(private)
    (tmp_path / "playbooks").mkdir()
    (tmp_path / "playbooks" / canaries.PLAYBOOK).write_text(json.dumps(canaries.PLAYS))
    shutil.copy(PROJECT / "ansible.cfg", tmp_path)
    site = replace(load("drill"), private=private)
    monkeypatch.setattr(runner, "PROJECT", tmp_path)
    # The same incident, whose records must be redacted with this site's secrets, too.
    monkeypatch.setattr(store, "folder", lambda _: incident)
    canaries.must_be_nowhere(site, incident, limit="web1")
    assert ssh("web1", "ps -eo args | grep -c '[c]anary' || test $? = 1").strip() == "0"


def test_evidence_is_saved_off_the_host(incident: Path) -> None:
    line = "# 30 15 * * * root /sbin/reboot {{ 1 + 1 }}"
    ssh("web1", f"echo '{line}' > /etc/cron.d/hikeshi-test")
    try:
        (record,) = saved.save_before(load("drill"), ["web1"], ["nginx.service", "mariadb.service"], "stop both")
    finally:
        ssh("web1", "rm /etc/cron.d/hikeshi-test")
    kept = json.loads((incident / "blobs" / record.data["evidence"]["blob"]).read_text())
    assert kept["spools"]["/etc/cron.d/hikeshi-test"] == line + "\n"
    for unit in ("nginx.service", "mariadb.service"):
        assert kept["units"][unit]["state"]["ActiveState"] == "active"
        assert "Started" in kept["units"][unit]["log"]
    assert hikeshi("incident", "verify").status == 0
