"""The command itself, as an operator types it: its own processes, the real lock, real runs of Ansible.

The site's only host is this machine over Ansible's local connection, and it is played by a file, `evidence.json`: the
playbooks of this project read it, and mend it. Nothing but a temporary folder is touched.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from hikeshi.errors import ExitStatus
from hikeshi.incident import audit
from hikeshi.incident.journal import Journal
from hikeshi.incident.record import Record
from tests.bent_command import BOUNDARIES
from tests.unit.commands import stopped
from tests.unit.conftest import PROBES
from tests.unit.test_triage import HEALTHY

ROOT = Path(__file__).parents[2]
COMMAND = ROOT / "tests" / "bent_command.py"
READ = """
import json
from ansible.module_utils.basic import AnsibleModule
module = AnsibleModule(argument_spec={"path": {"type": "path", "required": True}})
module.exit_json(hikeshi=json.load(open(module.params["path"])))
"""
PLAYBOOKS: dict[str, list[dict[str, Any]]] = {
    "collect-evidence.yml": [{"name": "Read", "read_evidence": {"path": "{{ site_private }}/evidence.json"}}],
    "recover-site.yml": [
        {
            "name": "Take the steps",
            "ansible.builtin.include_tasks": "take.yml",
            "loop": "{{ [recover_site_disk_steps, recover_site_live_steps, recover_site_late_steps]"
            " | map(attribute=inventory_hostname, default=[]) | flatten(1) }}",
        }
    ],
    "build-site.yml": [{"name": "Do nothing", "ansible.builtin.debug": {"msg": "nothing"}}],
}
TAKE = [
    {"name": "Mark", "ansible.builtin.debug": {"msg": "hikeshi: step {{ item.number }} of the plan"}},
    {"name": "Say", "ansible.builtin.debug": {"msg": "{{ item.args }}"}},
    {"name": "Wait", "ansible.builtin.wait_for": {"path": "{{ site_private }}/go"}},
    {
        "name": "Mend",
        "ansible.builtin.copy": {
            "src": "{{ site_private }}/healthy.json",
            "dest": "{{ site_private }}/evidence.json",
            "mode": "0600",
        },
    },
]


class Door:
    """A shop whose only page comes when the door is open; a visitor before that waits."""

    def __init__(self) -> None:
        self.opened, self.came = threading.Event(), threading.Event()
        door = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                door.came.set()
                door.opened.wait(120)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@dataclass(frozen=True)
class Checkout:
    """A project with one site, and the command."""

    root: Path
    door: Door

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start the command without a terminal."""
        environment = {**os.environ, "PYTHONPATH": str(self.root / "scripts")}
        environment.pop("HIKESHI_SITE", None)
        return subprocess.Popen(
            [sys.executable, COMMAND, *words],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip

    def run(self, *words: str) -> tuple[int, str, str]:
        """Run the command; return exit status, output and errors."""
        with self.start(*words) as process:
            out, err = process.communicate(timeout=120)
        return process.returncode, out, " ".join(err.split())

    def break_host(self) -> None:
        """Let the host stop serving."""
        (self.root / "inventories/shop/evidence.json").write_text(json.dumps(stopped("nginx.service")))

    @property
    def journal(self) -> Journal:
        folders = list((self.root / "incidents").glob("*-tv"))
        return Journal(folders[0] if folders else self.root / "incidents" / "shop")

    def records(self, kind: str) -> list[Record]:
        return [record for record in self.journal.records() if record.kind == kind]


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    door = Door()
    for folder in ("scripts/hikeshi", "roles/scheduled_jobs/files"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    settings = (ROOT / "ansible.cfg").read_text()
    (tmp_path / "ansible.cfg").write_text(settings.replace("library = ", f"library = {tmp_path}/library:"))
    views = dict.fromkeys(("customer", "direct"), {"url": door.url})
    plays = {
        name: [{"name": "Play", "hosts": "all", "gather_facts": False, "tasks": tasks}]
        for name, tasks in PLAYBOOKS.items()
    }
    files: dict[str, Any] = {f"playbooks/{name}": play for name, play in plays.items()}
    files |= {
        "playbooks/take.yml": TAKE,
        "library/read_evidence.py": READ,
        "inventories/shop/site.yml": {"title": "Test shop", "views": views, "timeout_s": 60},
        "inventories/shop/probes.yml": PROBES,
        "inventories/shop/hosts.yml": {"all": {"hosts": {"web1": {"ansible_connection": "local"}}}},
        "inventories/shop/healthy.json": json.dumps(HEALTHY),
        "inventories/shop/evidence.json": json.dumps(HEALTHY),
        "inventories/shop/go": "",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    yield Checkout(tmp_path, door)
    door.opened.set()
    door.server.shutdown()
    door.server.server_close()


def test_of_twenty_recoveries_one_runs_and_nineteen_name_it(checkout: Checkout) -> None:
    assert checkout.run("incident", "open", "tv")[0] == 0
    recoveries = [checkout.start("recover", "--yes") for _ in range(20)]
    deadline = time.monotonic() + 120
    while len(running := [process for process in recoveries if process.poll() is None]) > 1:
        assert time.monotonic() < deadline, f"{len(running)} recoveries at once"
        time.sleep(0.1)
    (owner,) = running
    checkout.door.opened.set()
    for process in recoveries:
        _, err = process.communicate(timeout=120)
        if process is owner:
            assert process.returncode == 0, err
        else:
            assert process.returncode == ExitStatus.REFUSED, err
            assert re.search(rf"site shop is being changed by \S+, pid {owner.pid}, recover", " ".join(err.split()))
    assert len(checkout.records("recovery.start")) == 1
    assert checkout.records("lock.taken") == []
    assert audit.verify(checkout.journal.folder).whole


def test_a_killed_owner_is_succeeded_at_once(checkout: Checkout) -> None:
    with checkout.start("recover", "--yes") as owner:
        assert checkout.door.came.wait(60)
        owner.kill()
    checkout.door.opened.set()
    status, _, err = checkout.run("recover", "--yes")
    assert status == 0, err
    assert "going on after a recovery that did not come to its end" in err
    assert "stopped within probe" in err
    (taken,) = checkout.records("lock.taken")
    assert f"pid {owner.pid}, recover" in taken.data["owner"]


def _words(process: psutil.Process) -> str:
    """Return a process's command; nothing when it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def test_killed_within_a_run_of_ansible_it_leaves_the_lock_to_the_next(checkout: Checkout) -> None:
    checkout.door.opened.set()
    checkout.break_host()
    go = checkout.root / "inventories/shop/go"
    go.unlink()
    family: list[psutil.Process] = []
    with checkout.start("recover", "--yes") as owner:
        deadline = time.monotonic() + 60
        while not any("wait_for" in words for words in (_words(process) for process in family)):
            assert time.monotonic() < deadline, "the step was not begun"
            time.sleep(0.1)
            with suppress(psutil.NoSuchProcess):
                family = psutil.Process(owner.pid).children(recursive=True)
        # All of the run stands still, so that it outlives its owner for certain: it must not hold what was his.
        family = [process for process in family if _words(process)]
        for process in family:
            with suppress(psutil.NoSuchProcess):  # some live for a moment only
                process.suspend()
        owner.kill()
    try:
        # Not asked again afterwards: its supervisor may have ended it by then, where this machine is busy.
        assert any(process.is_running() for process in family)
        status, _, err = checkout.run("recover", "--plan")
        assert status == 0, err
    finally:
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.resume()
    assert not psutil.wait_procs(family, timeout=20)[1], "a run outlives its dead owner"
    go.touch()
    status, out, err = checkout.run("recover", "--yes")
    assert (status, "healthy" in out) == (0, True), err
    (taken,) = checkout.records("lock.taken")
    assert f"pid {owner.pid}, recover" in taken.data["owner"]
    runs = [record for record in checkout.records("run.end") if record.data["playbook"] == "recover-site.yml"]
    assert [record.data["outcome"] for record in runs] == ["interrupted", "done"]


def test_killed_at_every_stage_boundary_and_resumed(checkout: Checkout) -> None:
    checkout.door.opened.set()
    checkout.break_host()
    assert checkout.run("incident", "open", "tv")[0] == 0
    for boundary in BOUNDARIES:
        status, _, err = checkout.run(f"--die-at={boundary}", "recover", "--yes")
        assert status == -9, f"{boundary} was not met: {err}"
    status, out, err = checkout.run("recover", "--yes")
    assert (status, "healthy" in out) == (0, True), err
    mended = [record for record in checkout.records("stage.end") if record.data["stage"] == "mend"]
    assert [record.data["outcome"] for record in mended if record.data["outcome"] == "done"] == ["done"]
    runs = [record for record in checkout.records("run.end") if record.data["playbook"] == "recover-site.yml"]
    assert [record.data["outcome"] for record in runs] == ["done"]
    assert audit.verify(checkout.journal.folder).whole
    status, out, _ = checkout.run("incident", "status", "--json")
    assert json.loads(out)["running"] == []


def test_a_files_name_is_no_template(checkout: Checkout) -> None:
    """A customer may upload a picture of any name; what stands in it would run on the controller."""
    checkout.door.opened.set()
    trace = checkout.root / "ran"
    (tree,) = HEALTHY["trees"]
    name = f"{tree}/{{{{ lookup('ansible.builtin.pipe', 'touch {trace}') }}}}.jpg"
    evidence = json.loads(json.dumps(HEALTHY))
    evidence["trees"][tree]["wrong"] = [{"path": name, "kind": "file", "mode": "0600"}]
    (checkout.root / "inventories/shop/evidence.json").write_text(json.dumps(evidence))
    status, out, err = checkout.run("recover", "--yes", "--json")
    assert status == 0, err
    assert [step["args"]["path"] for step in json.loads(out)["steps"]] == [name]
    assert not trace.exists()


def test_recover_stops_for_a_permission_and_goes_on_after_it(checkout: Checkout) -> None:
    checkout.door.opened.set()
    checkout.break_host()
    assert checkout.run("incident", "open", "tv")[0] == 0
    status, _, err = checkout.run("--needs=copy", "recover", "--yes")
    assert status == ExitStatus.REFUSED
    assert "needs the customer's permission 'copy', and nobody has allowed it. Ask the customer: “May we make a" in err
    assert "hikeshi incident permit copy --by WHO --words THEIR-WORDS --site shop" in err
    assert [record.data["playbook"] for record in checkout.records("run.end")] == ["collect-evidence.yml"]
    assert checkout.run("incident", "permit", "copy", "--refuse", "--by", "Ms Ito", "--words", "wait")[0] == 0
    status, _, err = checkout.run("--needs=copy", "recover", "--yes")
    assert (status, "Ms Ito refused it: “wait”" in err) == (ExitStatus.REFUSED, True)
    assert checkout.run("incident", "permit", "copy", "--by", "Ms Ito", "--words", "go on")[0] == 0
    status, out, err = checkout.run("--needs=copy", "recover", "--yes")
    assert (status, "healthy" in out) == (0, True), err
    (used,) = checkout.records("permission.used")
    (granted,) = checkout.records("permission.granted")
    assert used.data["grant"] == granted.seq
