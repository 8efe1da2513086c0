"""What the infra tests share: answers, results, evidence, and commands that may not fail."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testinfra.host import Host

from hikeshi.triage import findings, plan

PROJECT = Path(__file__).resolve().parents[2]


@dataclass
class Answer:
    """What came back for a request."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def data(self) -> Any:
        return json.loads(self.body)


Ask = Callable[..., Answer]
Apply = Callable[..., "Applied"]
Mend = Callable[..., None]


@dataclass
class Applied:
    """One run of an entry point."""

    status: int
    changed: int
    output: str


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait for what takes its time, and fail when it takes too long."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {condition}"
        time.sleep(0.2)


def must(host: Host, command: str) -> str:
    """Run a command that may not fail."""
    result = host.run(command)
    assert result.rc == 0, f"{command}: {result.stdout}{result.stderr}"
    return str(result.stdout)


def collected(scenario: str) -> dict[str, Any]:
    """Return the evidence of the scenario's instance as a recovery collects it; molecule/SCENARIO/collect.yml asks."""
    with tempfile.TemporaryDirectory() as folder:
        to = Path(folder, "evidence.json")
        result = subprocess.run(
            [str(Path(sys.executable).with_name("ansible-playbook")), "--inventory=molecule/shared/inventory/hosts.yml",
             f"--extra-vars={json.dumps({'evidence_to': str(to)})}", f"molecule/{scenario}/collect.yml"],
            cwd=PROJECT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert result.returncode == 0, result.stdout + result.stderr
        evidence: dict[str, Any] = json.loads(to.read_text())["hikeshi"]
    return evidence


def judge(evidence: dict[str, Any]) -> tuple[list[findings.Finding], list[findings.Step]]:
    """Return what is wrong with the instance, and the steps that would mend it."""
    found = findings.judge({"instance": evidence})
    return found, [item.step for item in plan.make(found, {"instance": evidence}).steps]
