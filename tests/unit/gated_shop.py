"""A shop behind a gate, kept in a file, so that a command that is killed half way leaves what it left."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hikeshi import cli, gate, recover
from hikeshi.incident.journal import Journal
from hikeshi.incident.record import Record
from hikeshi.probes import ProbeResult
from hikeshi.runner import RunResult
from hikeshi.site import Site
from tests.unit.commands import stopped
from tests.unit.conftest import Project
from tests.unit.test_gate import Gates, behind
from tests.unit.test_triage import HEALTHY

OPENING = ("unblock", "undrain")


class GatedShop(Gates):
    """Stands where Ansible and the customers would. Every `moment` is one at which the command may be killed."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path, self.asked = folder / "shop.json", folder / "asked"
        self.moment: Callable[[], None] = lambda: None
        self.mendable, self.wrong_evidence, self.lasts_s = True, stopped("nginx.service"), 1800.0
        self.write(drained=False, closed=False, broken=False, until=0.0)

    def read(self) -> dict[str, Any]:
        return json.loads(self.path.read_text())  # type: ignore[no-any-return]

    def write(self, **what: Any) -> None:
        known = self.read() if self.path.exists() else {}
        self.path.write_text(json.dumps({**known, **what}))
        self.hosts = {"web1": {key: bool(self.read()[key]) for key in ("drained", "closed")}}

    @property
    def state(self) -> str:
        now = self.read()
        return "closed" if now["closed"] else "drained" if now["drained"] else "open"

    @property
    def did(self) -> list[str]:
        """What changed something, or looked as a customer, in order."""
        return self.asked.read_text().splitlines() if self.asked.exists() else []

    def forget(self) -> None:
        self.asked.unlink(missing_ok=True)

    def note(self, words: str) -> None:
        with self.asked.open("a") as log:
            log.write(words + "\n")

    def status(self, host: str) -> dict[str, Any]:
        until = self.read()["until"] or None
        return {**super().status(host), "until": until, "since": until and until - 1800}

    def __call__(self, site: Site, playbook: str, *, extra: Any = None, check: bool = False, **more: Any) -> RunResult:
        self.moment()
        try:
            if "sorry-page" in playbook:
                step = extra["sorry_page_step"]
                if step != "status":
                    self.note(step)
                self.hosts = {"web1": {key: bool(self.read()[key]) for key in ("drained", "closed")}}
                done = super().__call__(site, playbook, extra=extra, check=check, **more)
                until = {"drain": self.end, "block": self.end, "renew": self.end, "undrain": 0.0}.get(step)
                unlocked = step not in self.fails
                self.write(**self.hosts["web1"], **({} if until is None or not unlocked else {"until": until}))
                if self.state == "open":
                    self.write(until=0.0)
                return done
            return self._others(playbook)
        finally:
            self.moment()

    @property
    def end(self) -> float:
        return time.time() + self.lasts_s

    def _others(self, playbook: str) -> RunResult:
        returned = {}
        if playbook == "collect-evidence.yml":
            returned = {"web1": self.wrong_evidence if self.read()["broken"] else HEALTHY}
        else:
            self.note(playbook)
        if playbook == "recover-site.yml" and self.mendable:
            self.write(broken=False)
        return RunResult(playbook, 0, 0.1, {"web1": 0}, [], returned, "")

    def look(self, site: Site, view: str, proxy: str | None) -> gate.Look:
        shut = self.state != "open" and not self.fails_open
        return gate.Look(view, sorry=shut, seen="503" if shut else "200")

    def probe(self, site: Site, view: str, only: Any = None, report: Any = None) -> list[ProbeResult]:
        self.note(f"probe {view}")
        shut = view == "customer" and self.look(site, view, None).sorry
        return [ProbeResult("top", "The top page opens", view, not shut and not self.read()["broken"], "seen", 0.1)]


@pytest.fixture
def shop_behind(monkeypatch: pytest.MonkeyPatch, project: Project, tmp_path: Path) -> GatedShop:
    """The site `shop`, healthy and open, with the customer's permission to close it."""
    monkeypatch.setattr(recover, "SETTLE_S", 0)
    fake = GatedShop(tmp_path)
    behind(monkeypatch, project, fake)
    return fake


def killed_at(number: int, shop: GatedShop, *words: str) -> bool:
    """Type a command in a process of its own, and kill it at its moment of this number; False when it has no such one.

    A moment is before and after each run of Ansible, and after each record in the journal.
    """
    child = os.fork()
    if child == 0:
        _die_at(number, shop, words)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, f"{words} at {number}: {status}"
    return os.WIFSIGNALED(status)


def _die_at(number: int, shop: GatedShop, words: tuple[str, ...]) -> None:
    """Be that process. Nothing of the test may go on in it, whatever happens."""
    status = 99
    try:
        moments, append = [0], Journal.append

        def moment() -> None:
            moments[0] += 1
            if moments[0] == number:
                os.kill(os.getpid(), signal.SIGKILL)

        def watched(self: Journal, kind: str, *more: Any, **data: Any) -> Record:
            record = append(self, kind, *more, **data)
            moment()
            return record

        shop.moment = moment
        Journal.append = watched  # type: ignore[method-assign]
        sys.argv = ["hikeshi", *words]
        try:
            cli.main()
        except SystemExit as ended:
            status = int(ended.code or 0)
    finally:
        os._exit(status)
