"""Mend the disk of a working copy with the roles' own disk steps, in a container whose root it is."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hikeshi import bombs, repair, screen
from hikeshi.bombs import Result
from hikeshi.copies import disk, journaled, record, work
from hikeshi.copies.disk import DiskLook
from hikeshi.copies.drivers import driver_of
from hikeshi.copies.record import Copy
from hikeshi.errors import HikeshiError
from hikeshi.look import drift_data
from hikeshi.repair import ROUNDS, Mended
from hikeshi.schedule.job import Job
from hikeshi.site import Site
from hikeshi.triage import drift, restore
from hikeshi.triage.drift import Drift
from hikeshi.triage.plan import Plan, Planned

MEND = "mend-copy.yml"
NOTED = 200  # differences that one record tells


@dataclass
class DiskMended:
    """All that was done to a disk."""

    look: DiskLook  # the last one: `look.found` is what is left
    steps: list[Mended] = field(default_factory=list)
    held: list[Result] = field(default_factory=list)  # what became of each job that was to be held
    # Between the disk of the copy (`before`) and this one (`after`), also where a call before was killed.
    difference: list[Drift] = field(default_factory=list)
    texts: dict[str, list[str]] = field(default_factory=dict)  # subject → lines of how an ordinary file's text differs

    @property
    def healthy(self) -> bool:
        """Whether nothing is left to be mended on the disk, and all that was to be held is held."""
        return not self.look.found and not any(item.failed for item in self.held)

    def as_data(self) -> dict[str, Any]:
        """Return it for `--json`: {look, steps, held, difference}, as DiskLook, recover, jobs and triage have them."""
        texts = {(self.look.host, subject): lines for subject, lines in self.texts.items()}
        return {
            "look": self.look.as_data(),
            "steps": [item.as_data() for item in self.steps],
            "held": [item.as_data() for item in self.held],
            "difference": [drift_data(item, texts) for item in self.difference],
        }


def mend(site: Site, copy: Copy, look: DiskLook, *, holds: Sequence[Job], recovery: int | None = None) -> DiskMended:
    """Hold these jobs on the working copy's disk, take the plan's steps, look again; up to four rounds.

    What is left then and has a name in the baseline is put back from there, and looked at in the same way.
    Journaled as `jobs` and as steps `mend` (one a round) and `judge` of the copy. Killed anywhere it is called again
    with a new look: what is held stays so, a step that was taken changes nothing. Raises RefusedError without the
    permission to hold jobs where `holds` has any, HikeshiError where the disk cannot be worked on at all; a job that
    cannot be held is in `held`. Whoever calls holds the site's lock; `recovery` is the number of the recovery that
    holds, and will release.
    """
    done = DiskMended(look)
    with work.opened(site, copy) as bench:
        first = record.first(site, copy, look.evidence["state"])
        if holds:

            def call(calls: Sequence[Sequence[str]]) -> list[Any]:
                return work.call_jobs(site, copy, bench, calls)

            done.held = bombs.hold_on_disk(site, copy.id, look.agenda, holds, call, recovery)
        tried: set[object] = set()
        put_back: set[object] = set()
        for number in range(ROUNDS):
            plan = _untried(done.look.plan.steps, tried)
            if plan is None and (plan := _untried(_put_back(done.look), put_back)):
                put_back |= {planned.step.key for planned in plan.steps}
                tried.clear()  # what failed for want of it may help now
            if plan is None:
                break
            tried |= {planned.step.key for planned in plan.steps}
            with journaled.step(site, copy, "mend") as action:
                took = _take(site, copy, plan)
                done.steps += took
                action.data.update(round=number + 1, took=[item.as_data() for item in took])
                done.look = disk.judge_open(site, copy, bench)
                done.difference, done.texts = _difference(first, done.look)
                action.data["difference"] = [
                    {"subject": item.subject, "words": item.words} for item in done.difference[:NOTED]
                ]
        if done.held and not done.steps:  # what was held is not on the clock any more, and makes a difference
            done.look = disk.judge_open(site, copy, bench)
        done.difference, done.texts = _difference(first, done.look)
    return done


def _untried(steps: Sequence[Planned], tried: Container[object]) -> Plan | None:
    left = tuple(planned for planned in steps if planned.step.key not in tried)
    return Plan(left) if left else None


def _put_back(seen: DiskLook) -> list[Planned]:
    """Return the steps that put back from the baseline what is left wrong on the disk."""
    if seen.against is None:
        return []
    texts = {host: known["texts"] for host, known in seen.against.hosts.items()}
    return restore.pointed_at(seen.drift, seen.found, {seen.host: seen.evidence}, texts)


def _take(site: Site, copy: Copy, plan: Plan) -> list[Mended]:
    """Take steps within the disk; what the disk's own programs say of them is not believed, but looked at again."""
    # What runs there, and may be hostile, has ended when the disk is looked at.
    with driver_of(site).within(copy) as bench:
        extra = {**bench.variables, "instance_copy_root": bench.root}
        took, result = repair.take(site, plan, MEND, verb="copy", extra=extra, limit=copy.host)
    for event in result.failures:
        words = f"{event.role} · {event.task}: {event.message}" if event.role else event.message
        screen.say(f"on the disk of {screen.line(copy.id)}: {screen.line(words, 400)}")
    if not result.ok and all(item.failed for item in took):
        told = result.failures[0].message if result.failures else result.output[-400:]
        raise HikeshiError(
            f"no step could be taken within the disk of {copy.id}, whose own sh and python3 take them: {told}",
            f"look at that disk on a bench; mend this host by hand, or build it anew: hikeshi build --site {site.name}",
        )
    return took


def _difference(first: Mapping[str, Any], seen: DiskLook) -> tuple[list[Drift], dict[str, list[str]]]:
    """Return what differs between the first look at this disk and the last, and how the texts of files do."""
    host, now = seen.host, seen.evidence["state"]
    found = drift.compare(host, first["facts"], now["facts"], seen.evidence["subjects"], seen.evidence["unseen"])
    texts = {}
    for item in found:
        path = item.subject.partition(":")[2]
        if item.kind == "file" and "digest" in item.differences:
            before, after = (_text(seen, state, path) for state in (first, now))
            if after is not None and (before is not None or item.before is None):
                texts[item.subject] = drift.difference(before or "", after)
    return found, texts


def _text(seen: DiskLook, state: Mapping[str, Any], path: str) -> str | None:
    """Return the text of an ordinary file in a state; what the baseline has the disk need not tell again."""
    if path in state["texts"]:
        return str(state["texts"][path])
    kept = seen.against.hosts.get(seen.host, {}).get("facts", {}) if seen.against else {}
    then, now = (facts.get(f"file:{path}", {}).get("digest") for facts in (kept, state["facts"]))
    return seen.against.text(seen.host, path) if seen.against and now and then == now else None
