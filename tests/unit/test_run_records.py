"""What a real run of Ansible leaves behind: its whole trace in the journal, and no secret anywhere.

The host is this machine, over Ansible's local connection: nothing but a temporary folder is touched.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from hikeshi import runner
from hikeshi.errors import HikeshiError
from hikeshi.incident import audit, store
from hikeshi.incident.journal import Journal
from hikeshi.site import Site, load
from tests.unit import canaries
from tests.unit.conftest import Project

QUIET = [
    {
        "hosts": "all",
        "gather_facts": False,
        "tasks": [{"name": "Change", "ansible.builtin.debug": {"msg": "x"}, "changed_when": True}],
    }
]


@pytest.fixture
def site(project: Project, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A site whose only host is this machine, with playbooks and secrets of its own."""
    (project.root / "playbooks").mkdir()
    (project.root / "ansible.cfg").write_text((Path(__file__).parents[2] / "ansible.cfg").read_text())
    for name, plays in ((canaries.PLAYBOOK, canaries.PLAYS), ("change-nothing.yml", QUIET)):
        (project.root / "playbooks" / name).write_text(yaml.safe_dump(plays))
    monkeypatch.setattr(runner, "PROJECT", project.root)
    project.write("hosts.yml", "all: {hosts: {web1: {ansible_connection: local}}}\n")
    canaries.plant(project.folder)
    return load()


def test_forty_canaries_are_found_nowhere(site: Site) -> None:
    store.begin(site, "leak", "me", "", datetime(2026, 11, 25, tzinfo=UTC))
    canaries.must_be_nowhere(site, site.records.parent)
    assert "cannot use" in store.journal(site).path.read_text()


def test_a_run_is_written_before_it_begins_with_what_it_changed_and_how_it_ended(site: Site) -> None:
    began: list[str] = []
    result = runner.run(
        site,
        "change-nothing.yml",
        verb="test",
        listen=lambda event: began.append(store.journal(site).records()[1].kind),
    )
    assert result.ok
    assert set(began) == {"run.start"}
    records = store.journal(site).records()
    assert [record.kind for record in records] == ["journal.begun", "run.start", "task", "run.end"]
    task, end = records[2:]
    assert (task.host, task.data["task"], task.data["outcome"]) == ("web1", "Change", "changed")
    assert (end.data["outcome"], end.data["status"], end.data["changed"]) == ("done", 0, {"web1": 1})
    assert set(end.data["files"]) == {"events.jsonl", "output.txt"}
    assert result.folder
    assert audit.verify(site.records).whole
    (result.folder / "output.txt").write_text("all went well")
    assert audit.verify(site.records).bad == end.seq


def test_full_disk_stops_a_run_before_it_begins(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hikeshi.incident.journal.os.write", full)
    monkeypatch.setattr("hikeshi.runner.ansible_runner.run", lambda **_: pytest.fail("begun without a trace"))
    with pytest.raises(HikeshiError, match="No space left on device"):
        runner.run(site, "change-nothing.yml", verb="test")


def test_a_disk_that_fills_up_within_does_not_cut_a_run_in_two(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    append, ended = Journal.append, []

    def full(self: Journal, kind: str, *words: Any, **more: Any) -> Any:
        if kind == "task":
            raise HikeshiError("the journal cannot be written: No space left on device.")
        return append(self, kind, *words, **more)

    monkeypatch.setattr(Journal, "append", full)
    with pytest.raises(HikeshiError, match="No space left"):
        runner.run(site, "change-nothing.yml", verb="test", listen=lambda event: ended.append(event.outcome))
    assert ended[-1] == "changed"
    end = store.journal(site).records()[-1]
    assert (end.kind, end.data["outcome"], end.data["status"]) == ("run.end", "failed", 0)


def test_the_drills_own_hand_is_not_journaled(site: Site, project: Project) -> None:
    (project.root / "playbooks" / "inject-fault.yml").write_text(yaml.safe_dump(QUIET))
    store.begin(site, "drill", "me", "", datetime(2026, 11, 25, tzinfo=UTC))
    result = runner.run(site, "inject-fault.yml", verb="break")
    assert [record.kind for record in store.journal(site).records()] == ["journal.begun", "incident.opened"]
    assert result.folder == site.records / "runs" / Path(str(result.folder)).name
