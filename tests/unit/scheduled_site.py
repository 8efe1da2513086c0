"""A site whose one host has jobs that can be held: stands where Ansible would, and answers as its program does."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hikeshi.runner import RunResult
from hikeshi.schedule import clock
from hikeshi.site import Site
from tests.unit import schedules
from tests.unit.commands import Runs

PLAYBOOKS = ("list-jobs.yml", "hold-jobs.yml", "release-jobs.yml")


def soon(**span: float) -> datetime:
    return datetime.now(UTC) + timedelta(**span)


class ScheduledSite(Runs):
    """Holds by moving files aside; what is asked for is kept, by playbook."""

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, dict[str, Any]] = {}  # id → file
        self.held: dict[str, dict[str, Any]] = {}  # id → what the host says of it, with the file
        self.refusals: dict[str, str] = {}  # id → why it can be neither held nor released
        self.shield: dict[str, Any] = {"on": False}
        self.calls: list[list[str]] = []
        self.order: list[str] = []  # the playbooks

    def add(self, file: dict[str, Any]) -> str:
        """Put a file on the host; return the id of its one job."""
        (job,) = clock.jobs({"web1": schedules.now(file)}, {"web1": []})
        self.files[job.id] = file
        return job.id

    def scheduled(self) -> dict[str, Any]:
        held = [{key: value for key, value in entry.items() if key != "file"} for entry in self.held.values()]
        return schedules.now(*self.files.values(), held=held, shield=self.shield)

    def __call__(self, site: Site, playbook: str, *, extra: Any = None, check: bool = False, **more: Any) -> RunResult:
        self.order.append(playbook)
        if playbook == "save-evidence.yml":
            told: dict[str, Any] = {"web1": {"schema": 1, "units": {}, "spools": {}, "unseen": []}}
            failures = self.failures.get(playbook, [])
            return RunResult(playbook, 2 if failures else 0, 0.1, {}, failures, told, "")
        if playbook not in PLAYBOOKS or self.failures.get(playbook):
            return super().__call__(site, playbook, extra=extra, check=check, **more)
        folder = Path(extra["scheduled_jobs_exchange"])
        asked = json.loads((folder / "ask.json").read_text())
        (folder / "web1.json").write_text(json.dumps([self.answer(words, check=check) for words in asked["web1"]]))
        return RunResult(playbook, 0, 0.1, {}, [], {"web1": {"host": "web1", "answered": 1}}, "")

    def answer(self, words: list[str], *, check: bool) -> dict[str, Any]:
        self.calls.append(words)
        match words:
            case ["collect"]:
                return self.scheduled()
            case ["shield", verb, *rest]:
                self.shield = {"on": verb == "on", "left_s": float(rest[0]) if rest else 0.0}
                return {"changed": True, **self.shield}
            case ["release", "--run", ident]:
                self.held.pop(ident)
                return {"changed": True, "jobs": [{"id": ident, "result": "run", "why": ""}]}
            case [verb, *idents]:
                return {
                    "changed": True,
                    "jobs": [self.one(verb, *ident.rsplit("=", 1), check=check) for ident in idents],
                }
        raise AssertionError(words)

    def one(self, verb: str, ident: str, due: str, *, check: bool) -> dict[str, Any]:
        if why := self.refusals.get(ident):
            return {"id": ident, "result": "refused", "why": why}
        if check:
            return {"id": ident, "result": "would be held" if verb == "hold" else "would be released", "why": ""}
        if verb == "hold":
            at = datetime.now(UTC).timestamp()
            made = {"id": ident, "kind": ident.split(":")[0], "state": "held", "at": at, "by": "op", "due": float(due)}
            self.held[ident] = {**made, "file": self.files.pop(ident)}
            return {"id": ident, "result": "held", "why": "", "due": float(due) or None}
        entry: dict[str, Any] = self.held[ident]
        missed = 0 < entry["due"] <= datetime.now(UTC).timestamp()
        told = {"id": ident, "why": "", "due": entry["due"] or None, "missed": missed}
        if missed and entry["kind"] == "at":
            entry["state"] = "came due"
            return {**told, "result": "came due", "why": "atd would run it at once, so it is kept"}
        self.files[ident] = self.held.pop(ident)["file"]
        return {**told, "result": "exact"}
