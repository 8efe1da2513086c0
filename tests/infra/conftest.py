"""What the infra tests share: requests from inside a host, and entry points of roles as playbooks apply them."""

import base64
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from tests.infra.asking import Answer, Applied, Apply, Ask, Mend

PROJECT = Path(__file__).resolve().parents[2]

# Runs on the host with its own Python: a real request, without a client to install there.
ASK = """
import base64, http.client, json, sys
request = json.loads(sys.argv[1])
connection = http.client.HTTPConnection(request["address"], request["port"], timeout=15)
connection.request("GET", request["path"], headers=request["headers"])
answer = connection.getresponse()
body = base64.b64encode(answer.read()).decode()
print(json.dumps({"status": answer.status, "headers": {k.lower(): v for k, v in answer.getheaders()}, "body": body}))
"""


def pytest_configure(config: pytest.Config) -> None:
    """Name the tests that the must-fail step leaves out."""
    config.addinivalue_line("markers", "at_rest: also passes while the role's unit is stopped, or starts it itself")


@pytest.fixture
def ask(host: Host) -> Ask:
    """Send a GET from inside the host to itself."""

    def send(path: str, address: str = "127.0.0.1", port: int = 80, **headers: str) -> Answer:
        request = {"path": path, "address": address, "port": port}
        request["headers"] = {name.replace("_", "-"): value for name, value in headers.items()}
        result = host.run(f"python3 -c {shlex.quote(ASK)} {shlex.quote(json.dumps(request))}")
        assert result.rc == 0, f"no answer from {address}:{port}{path}: {result.stderr}"
        answer = json.loads(result.stdout)
        return Answer(answer["status"], answer["headers"], base64.b64decode(answer["body"]))

    return send


@pytest.fixture
def apply() -> Apply:
    """Apply one entry point of a role to the scenario's instance."""

    def run(
        role: str, tasks_from: str, step: str = "", args: dict[str, Any] | None = None, **variables: Any
    ) -> Applied:
        entry = {"role": role, "tasks_from": tasks_from, "step": step, "args": args or {}}
        result = subprocess.run(
            [
                str(Path(sys.executable).with_name("ansible-playbook")),
                "--inventory=molecule/shared/inventory/hosts.yml",
                f"--extra-vars={json.dumps({'entry': entry, **variables})}",
                "molecule/shared/repair.yml",
            ],
            cwd=PROJECT,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"},
            capture_output=True,
            text=True,
            check=False,
        )
        changed = re.search(r"^instance .*\bchanged=(\d+)", result.stdout, re.MULTILINE)
        return Applied(result.returncode, int(changed[1]) if changed else -1, result.stdout + result.stderr)

    return run


@pytest.fixture
def mend(apply: Apply) -> Mend:
    """Take a repair step twice: the first time it mends, the second time it finds nothing to do."""

    def run(role: str, where: str, step: str, **args: Any) -> None:
        first = apply(role, f"repair-{where}", step, args)
        assert first.status == 0, first.output
        assert first.changed > 0, first.output
        second = apply(role, f"repair-{where}", step, args)
        assert (second.status, second.changed) == (0, 0), second.output

    return run
