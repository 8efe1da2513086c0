"""What a real run of Ansible leaves behind: its whole trace in the journal, and no secret anywhere.

The host is this machine, over Ansible's local connection: nothing but a temporary folder is touched.
"""

import base64
import json
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from hikeshi import runner
from hikeshi.errors import HikeshiError
from hikeshi.incident import audit, store
from hikeshi.incident.journal import Journal
from hikeshi.site import Site, load
from tests.unit.conftest import Project

CANARIES = {
    f"secret_canary_{number}": text.format(number)
    for number, text in enumerate(
        [
            "canary-{}-plain", 'canary {} "quoted"', "canary/{}/slash+plus", "canary&{}=form%done",
            "canary\\{}\\back", "canary-{}-鍵", "canary:{}:<tag>", "canary'{}'single",
        ] * 5
    )
}  # fmt: skip
WAYS = [
    "{{ item.value }}",
    "{{ item.value | b64encode }}",
    "{{ item.value | urlencode }}",
    "{{ item.value | to_json }}",
]
PLAYBOOK = [
    {
        "hosts": "all",
        "gather_facts": False,
        "tasks": [
            {"name": "Say", "ansible.builtin.debug": {"msg": WAYS}, "loop": "{{ canaries | dict2items }}"},
            {
                "name": "Let the host say {{ item.value }}",
                "ansible.builtin.command": {"cmd": "cat", "stdin": " ".join(WAYS)},
                "loop": "{{ (canaries | dict2items)[:8] }}",
                "changed_when": True,
            },
            {
                "name": "Fail in a loop",
                "ansible.builtin.fail": {"msg": "cannot use " + " ".join(WAYS)},
                "loop": "{{ canaries | dict2items }}",
            },
        ],
    }
]
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
    for name, plays in (("leak-secrets.yml", PLAYBOOK), ("change-nothing.yml", QUIET)):
        (project.root / "playbooks" / name).write_text(yaml.safe_dump(plays))
    monkeypatch.setattr(runner, "PROJECT", project.root)
    project.write("hosts.yml", "all: {hosts: {web1: {ansible_connection: local}}}\n")
    (project.folder / "group_vars" / "all").mkdir(parents=True)
    project.write("group_vars/all/secrets.yml", yaml.safe_dump(CANARIES))
    canaries = {name: f"{{{{ {name} }}}}" for name in CANARIES}
    project.write("group_vars/all/canaries.yml", yaml.safe_dump({"canaries": canaries}))
    return load()


@contextmanager
def watching_processes() -> Iterator[set[str]]:
    """Collect the command lines of every process that is seen meanwhile."""
    seen: set[str] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            for process in psutil.process_iter(["cmdline"]):
                seen.add(" ".join(process.info["cmdline"] or []))
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


def disguises(secret: str) -> set[str]:
    quoted = {urllib.parse.quote(secret), urllib.parse.quote(secret, safe=""), urllib.parse.quote_plus(secret)}
    escaped = {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1]}
    escaped |= {json.dumps(text)[1:-1] for text in escaped}
    return {secret, base64.b64encode(secret.encode()).decode().rstrip("="), *quoted, *escaped}


def test_forty_canaries_are_found_nowhere(site: Site) -> None:
    store.begin(site, "leak", "me", "", datetime(2026, 11, 25, tzinfo=UTC))
    with watching_processes() as seen:
        result = runner.run(site, "leak-secrets.yml", verb="leak")
    assert result.status == 2
    assert len(result.failures) > len(CANARIES)  # each item, then the task
    kept = [path for path in site.records.parent.rglob("*") if path.is_file()]
    assert {"journal.jsonl", "events.jsonl", "output.txt"} <= {path.name for path in kept}
    texts = {str(path): path.read_text() for path in kept}
    texts["command lines"] = "\n".join(seen)
    texts["result"] = json.dumps([event.__dict__ for event in result.failures], ensure_ascii=False) + result.output
    for path in sorted(site.records.parent.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path
    for name, text in texts.items():
        for canary in CANARIES.values():
            for disguise in disguises(canary):
                assert disguise not in text, f"{disguise!r} stands in {name}"
    assert any("[hidden]" in text for text in texts.values())
    assert "cannot use" in texts[str(store.journal(site).path)]


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
