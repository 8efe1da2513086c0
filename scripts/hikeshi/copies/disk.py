"""What the disk of a copy tells, judged by the same rules as a host: findings, plan, and what would go off.

The working copy's disk is opened and looked at; nothing of it is changed, and what is scheduled there is not held yet.
"""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from hikeshi import baseline, look, screen
from hikeshi.baseline import Baseline
from hikeshi.copies import journaled, work
from hikeshi.copies.driver import Bench
from hikeshi.copies.drivers import driver_of
from hikeshi.copies.record import Copy
from hikeshi.errors import HikeshiError
from hikeshi.incident import store
from hikeshi.schedule.agenda import Agenda
from hikeshi.schedule.job import Job
from hikeshi.site import PROJECT, Site
from hikeshi.triage import drift, findings, plan
from hikeshi.triage.drift import Drift
from hikeshi.triage.findings import Finding
from hikeshi.triage.plan import Plan

COLLECTOR = PROJECT / "roles" / "evidence" / "library" / "collect_evidence.py"
TEST_S, TOLD_MOST = 20, 8 << 10  # of a service's own test; no service needs more to say what is wrong
NO_PROGRAM = (126, 127)
NOT_THERE = "[emerg] bind() to "  # an address that the host has, and nobody within a disk


@dataclass(frozen=True)
class DiskLook:
    """One look at the disk of a working copy."""

    copy: str  # its id
    host: str
    evidence: Mapping[str, Any]  # schema 1, as far as a disk tells, and its `state`
    found: list[Finding]
    plan: Plan  # disk steps only
    agenda: Agenda  # of this disk alone
    drift: list[Drift]  # from the baseline, reported; what is held differs on purpose
    unseen: list[str]  # in sentences
    against: Baseline | None

    @property
    def bombs(self) -> list[Job]:
        """What would go off before the last deadline once this disk boots: to be held on it before."""
        return self.agenda.bombs

    @property
    def facts(self) -> Mapping[str, Mapping[str, Any]]:
        """The disk's whole state, as a baseline has a host's."""
        found: Mapping[str, Mapping[str, Any]] = self.evidence["state"]["facts"]
        return found

    def as_data(self) -> dict[str, Any]:
        """Return it for `--json`: {copy, host, findings, plan, agenda, drift, unseen}, as triage has them."""
        return {
            "copy": self.copy,
            "host": self.host,
            "findings": [look.finding_data(item) for item in self.found],
            "plan": look.plan_data(self.plan),
            "agenda": self.agenda.as_data(),
            "drift": [look.drift_data(item, {}) for item in self.drift],
            "unseen": self.unseen,
        }


def judge(site: Site, copy: Copy) -> DiskLook:
    """Open the working copy (made if there is none), look, judge, close it again. Changes nothing on it.

    Journaled as step `judge` of the copy, with a record `agenda` that says that nothing of it is held. Raises
    RefusedError for a copy that is not verified or is swapped in, HikeshiError where the disk does not tell. Whoever
    calls holds the site's lock.
    """
    with work.opened(site, copy) as bench:
        return judge_open(site, copy, bench)


def judge_open(site: Site, copy: Copy, bench: Bench) -> DiskLook:
    """Do the same with a disk that is open."""
    with journaled.step(site, copy, "judge") as action:
        seen = work.inside(site, copy, bench, texts=True)
        evidence = dict(seen.evidence)
        evidence["configs"], untested = _configs(site, copy, evidence)
        against = _baseline(site)
        found = findings.judge_disk({copy.host: evidence}, against.hosts if against else None)
        agenda = look.agenda_of(site, {copy.host: seen.schedule})
        found = [item for item in found if not agenda.on_purpose(item.host, item.subject)]
        drifts = _drift(against, copy.host, evidence) if against else []
        drifts = [item for item in drifts if not agenda.on_purpose(item.host, item.subject)]
        unseen = findings.unreadable({copy.host: evidence}) + untested + agenda.unseen
        action.data.update(
            found=[look.finding_data(item) for item in found],
            unseen=unseen,
            drift=[{"host": item.host, "subject": item.subject, "words": item.words} for item in drifts],
        )
        store.journal(site).append("agenda", {**agenda.brief(), "disk": copy.id}, host=copy.host)
    made = plan.make(found, {copy.host: evidence})
    return DiskLook(copy.id, copy.host, evidence, found, made, agenda, drifts, unseen, against)


def _configs(site: Site, copy: Copy, evidence: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Have the copy's own services test their configuration; return what they say, and what they could not judge.

    They run apart from all else, and what they write is thrown away; who lies here lies about itself. Names of other
    hosts mean nothing there.
    """
    found: dict[str, Any] = {}
    unseen = []
    tests = (subject.get("config_test") for subject in evidence["subjects"])
    for test in dict.fromkeys(filter(None, tests)):
        name = test.split()[0]
        # sshd wants a folder that only its unit makes.
        try:
            status, told = driver_of(site).test(copy, f"mkdir -p -m 0755 /run/sshd; exec {test}", TEST_S)
        except HikeshiError as problem:
            unseen.append(f"{copy.host}: {name} did not test its configuration: {problem.message[:300]}")
            continue
        message, file, lost = _collector().configuration(told[:TOLD_MOST])
        if status in NO_PROGRAM or status < 0 or lost is not None or NOT_THERE in message:
            why = f"it names a host ({lost})" if lost is not None else message or f"exit status {status}"
            unseen.append(f"{copy.host}: whether {name} takes its configuration could not be tested on its disk: {why}")
            continue
        found[name] = {"ok": status == 0, "message": message, "file": file, "unresolved": None}
    return found, unseen


@cache
def _collector() -> Any:
    """Return the collector as a module: it knows what services say of their configuration."""
    spec = importlib.util.spec_from_file_location("collect_evidence", COLLECTOR)
    assert spec and spec.loader  # noqa: S101 (the file is there)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _baseline(site: Site) -> Baseline | None:
    try:
        return baseline.newest(site)
    except HikeshiError as problem:
        screen.say(f"going on without a baseline: {screen.line(problem.message)}")
        return None


def _drift(against: Baseline, host: str, evidence: Mapping[str, Any]) -> list[Drift]:
    """Return what differs from the baseline, as far as a disk tells what a running host told."""
    if host not in against.hosts:
        return []
    now = evidence["state"]["facts"]
    before = {}
    for subject, fields in against.hosts[host]["facts"].items():
        kind, _, name = subject.partition(":")
        if kind == "unit":
            # What a generator makes has no file, and what runs has fields that a file has not.
            if subject not in now and name not in evidence["units"]:
                continue
            known = now.get(subject, {"load": "", "enabled": "", "fragment": ""})
            fields = {key: value for key, value in fields.items() if key in known}
        if not name.startswith("/run/"):
            before[subject] = fields
    return drift.compare(host, before, now, evidence["subjects"], evidence["unseen"])
