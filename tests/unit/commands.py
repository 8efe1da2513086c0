"""Type a command, with Ansible replaced at its one seam."""

import json
from pathlib import Path
from typing import Any

import pytest

from hikeshi import cli
from hikeshi.runner import Event, RunResult
from hikeshi.site import Site
from tests.unit import schedules
from tests.unit.test_triage import HEALTHY


class Runs:
    """Stands where Ansible would: answers each playbook with what was put in, and keeps what was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any], bool]] = []
        self.evidence: list[dict[str, Any]] = [HEALTHY]
        self.others: dict[str, Any] = {}  # what other hosts than web1 say, always
        self.away: dict[str, str] = {}  # hosts that are not reached, and why
        self.limits: list[tuple[str, str]] = []  # of each playbook that was given one
        self.failures: dict[str, list[Event]] = {}
        self.events: dict[str, list[Event]] = {}
        self.state: dict[str, Any] = {"facts": {}, "texts": {}}
        self.asked_state: list[dict[str, Any]] = []

    def __call__(self, site: Site, playbook: str, *, extra: Any = None, check: bool = False, **more: Any) -> RunResult:
        self.asked.append((playbook, extra or {}, check))
        if more.get("limit"):
            self.limits.append((playbook, more["limit"]))
        failures = self.failures.get(playbook, [])
        for event in self.events.get(playbook, []):
            more["listen"](event)
        returned = {}
        if playbook == "collect-evidence.yml" and not failures:
            returned = {"web1": self.evidence.pop(0) if len(self.evidence) > 1 else self.evidence[0], **self.others}
            failures = [Event(host, "", "", "unreachable", message=why) for host, why in self.away.items()]
            returned = {host: told for host, told in returned.items() if host not in self.away}
            if exchange := (extra or {}).get("evidence_exchange"):
                self._exchange(Path(exchange))
        return RunResult(playbook, 2 if failures else 0, 0.1, {"web1": 0}, failures, returned, "")

    def scheduled(self) -> dict[str, Any]:
        """Return what web1 says of its jobs."""
        return schedules.now()

    def _exchange(self, folder: Path) -> None:
        """Answer as the host would: texts that are known already are not sent again."""
        told: dict[str, Any] = {"programs": {"schedule": self.scheduled()}}
        asked = json.loads((folder / "ask.json").read_text())["state"]
        if asked is None:
            (folder / "web1.json").write_text(json.dumps(told))
            return
        self.asked_state.append(asked)
        known = asked["known"].get("web1", [])
        texts = {
            path: text
            for path, text in self.state["texts"].items()
            if asked["texts"] and self.state["facts"][f"file:{path}"]["digest"][:16] not in known
        }
        told["state"] = {"facts": self.state["facts"], "texts": texts}
        (folder / "web1.json").write_text(json.dumps(told))

    @property
    def playbooks(self) -> list[str]:
        return [playbook for playbook, _, _ in self.asked]


def hikeshi(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["hikeshi", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def stopped(unit: str) -> dict[str, Any]:
    evidence: dict[str, Any] = json.loads(json.dumps(HEALTHY))
    evidence["units"][unit].update({"active": "inactive", "enabled": "disabled"})
    return evidence
