"""The drill's score: what was broken joined with what a recovery did."""

import pytest

from hikeshi.drill import faults, practice
from hikeshi.probes import ProbeResult
from hikeshi.recover import Recovery
from hikeshi.repair import Mended
from hikeshi.triage.findings import Step
from hikeshi.triage.plan import Planned

FILE = "/etc/nginx/conf.d/zz-limit.conf"
FAULT = faults.Fault("request-limit", "A limit", "web1", "top", 1, [f"file:{FILE}"], False, [], unnamed=True)
GREEN = ProbeResult("top", "Top", "customer", passed=True, seen="fine", seconds=0.1)


def row(monkeypatch: pytest.MonkeyPatch, recovery: Recovery) -> tuple[bool, list[str], float]:
    monkeypatch.setattr(faults, "injected", lambda: [FAULT])
    (found,) = practice.score(recovery)["faults"]
    assert found["unnamed"] is True
    return found["mended"], found["by"], found["seconds"]


def put_back(path: str, host: str = "web1") -> Mended:
    step = Step(host, "file_restore", "move_aside", "disk", {"path": path})
    return Mended(Planned(step, ()), changed=True, failed=False, seconds=2.0, restored=f"file:{path}")


def test_unnamed_fault_was_mended_by_what_put_its_file_back(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [put_back("/etc/nginx/other.conf"), put_back(FILE, "batch1"), put_back(FILE)]
    recovery = Recovery("drill", mended=steps, converged=True, after=[GREEN])
    assert row(monkeypatch, recovery) == (True, [f"file_restore move_aside {FILE}"], 2.0)


def test_what_was_done_to_a_copied_disk_mends_its_host(monkeypatch: pytest.MonkeyPatch) -> None:
    recovery = Recovery("drill", after=[GREEN])
    data = recovery.as_data() | {
        "disks": {"rescued": [{"mended": None}, {"mended": {"steps": [put_back(FILE).as_data()]}}]}
    }
    monkeypatch.setattr(recovery, "as_data", lambda: data)
    assert row(monkeypatch, recovery) == (True, [f"file_restore move_aside {FILE}"], 2.0)


@pytest.mark.parametrize("after", [[GREEN], []])
def test_unnamed_fault_that_nothing_put_back_is_mended_only_if_all_is_well(
    monkeypatch: pytest.MonkeyPatch, after: list[ProbeResult]
) -> None:
    recovery = Recovery("drill", converged=True, after=after)
    assert row(monkeypatch, recovery) == (bool(after), ["converge"] if after else [], 0)
