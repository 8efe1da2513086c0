"""The working copy: made of a verified copy, its disk opened on a bench, looked at and worked on there.

The copy itself is only read from. Whoever calls holds the site's lock; it is what says that nobody else has the disk.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hikeshi import baseline, exchange, look, runner, screen
from hikeshi.copies import journaled, record
from hikeshi.copies.driver import Bench
from hikeshi.copies.drivers import driver_of
from hikeshi.copies.record import Copy
from hikeshi.errors import HikeshiError, RefusedError
from hikeshi.site import Site
from hikeshi.triage import shape

LOOK, CALL_JOBS = "look-into-copy.yml", "hold-copy-jobs.yml"


@dataclass(frozen=True)
class Inside:
    """What the disk of a working copy tells: its state, as a baseline has it, and what is scheduled there.

    `evidence` is what a rule can judge of it (roles/evidence/module_utils/hikeshi_disk.py), with that state.
    """

    evidence: Mapping[str, Any]
    state: Mapping[str, Any]
    schedule: Any  # what the program of scheduled_jobs told, schema 1; None: nothing
    unseen: Sequence[Any]


def make(site: Site, copy: Copy) -> None:
    """Have a working copy of a verified copy; one that there is stays as it was left."""
    driver = driver_of(site)
    if copy.state != "verified":
        raise RefusedError(
            f"copy {copy.id} is {copy.state}, not verified: nothing is made of it.",
            f"hikeshi copy {copy.host} --site {site.name}",
        )
    if copy.swapped:
        raise RefusedError(f"copy {copy.id} is swapped in, or on its way: its disk is no working copy now.")
    let_go(site, copy)
    if copy.work == "ready":
        return
    with journaled.step(site, copy, "work"), screen.run_progress(f"making a working copy of {copy.id}"):
        copy.work, copy.repaired = "making", None
        record.save(site, copy)
        record.forget_first(site, copy)
        driver.remove(copy, work_only=True)
        driver.work(copy)
        copy.work = "ready"
        record.save(site, copy)


def let_go(site: Site, copy: Copy) -> None:
    """Remove what a killed call left running of a copy: the lock is ours, so nobody works there."""
    driver = driver_of(site)
    if copy.swap and copy.swap.rehearsal == "up":
        driver.end_rehearsal(copy)
        copy.swap = copy.swap.model_copy(update={"rehearsal": ""})
        record.save(site, copy)
    if copy.work == "open":
        driver.close(copy)
        copy.work = "ready"
        record.save(site, copy)


def throw_away(site: Site, copy: Copy) -> None:
    """Remove the working copy, so that the next one is as the copy is."""
    if copy.swapped:
        raise RefusedError(f"copy {copy.id} is swapped in, or on its way: its disk is no working copy now.")
    with journaled.step(site, copy, "throw-away"):
        copy.work, copy.swap, copy.repaired = "making", None, None
        record.save(site, copy)
        driver_of(site).remove(copy, work_only=True)
        copy.work = ""
        record.save(site, copy)


@contextmanager
def opened(site: Site, copy: Copy) -> Iterator[Bench]:
    """Have the working copy's disk on a bench; what is written to it stays when it is closed."""
    driver = driver_of(site)
    make(site, copy)
    with journaled.step(site, copy, "open"):
        copy.work, copy.swap = "open", None  # what was sealed before is older than what is done now
        record.save(site, copy)
        try:
            bench = driver.open(copy)
            for note in bench.notes:
                screen.say(screen.line(note, 300))
            yield bench
        finally:
            driver.close(copy)
            copy.work = "ready"
            record.save(site, copy)


def inside(site: Site, copy: Copy, bench: Bench, *, texts: bool = False) -> Inside:
    """Collect what the disk tells, by the same collector as of a host; nothing of the copy is run, nothing changed."""
    against = baseline.newest(site)
    known = sorted(against.known(copy.host)) if against and copy.host in against.hosts else []
    state = {"key": baseline.key(site), "texts": texts, "known": {copy.host: known}}
    asked = {"state": state, "programs": {"schedule": look.jobs_program()}}
    with exchange.folder(site, asked) as where:
        extra = {"evidence_exchange": str(where), "evidence_root": bench.root}
        result = run(site, copy, bench, LOOK, extra, f"looking into copy {copy.id} (changes nothing)")
        told = exchange.answer(where, copy.host, "what is on its disk")
    shape.check_state(copy.host, told.get("state"))
    programs = told.get("programs")
    seen = {**result.returned.get(copy.host, {}), "state": told["state"]}
    shape.check(copy.host, seen)
    schedule = programs.get("schedule") if isinstance(programs, dict) else None
    return Inside(seen, told["state"], schedule, seen["unseen"])


def call_jobs(
    site: Site, copy: Copy, bench: Bench, calls: Sequence[Sequence[str]], *, check: bool = False
) -> list[Any]:
    """Have the program that holds jobs do these calls on the disk (`hold ID=EPOCH …`); return what it answered."""
    words = [[*call, "--root", bench.root] for call in calls]
    with exchange.folder(site, {copy.host: words}) as where:
        extra = {"scheduled_jobs_exchange": str(where)}
        run(site, copy, bench, CALL_JOBS, extra, f"holding jobs on the disk of {copy.id}", check=check)
        answers: list[Any] = exchange.answer(where, copy.host, "what became of the jobs on its disk")
    return answers


def run(
    site: Site, copy: Copy, bench: Bench, playbook: str, extra: dict[str, Any], words: str, *, check: bool = False
) -> runner.RunResult:
    """Run a playbook on the bench, which stands in for the host: its variables are the host's own."""
    extra = {**extra, **bench.variables, "instance_copy_root": bench.root}
    with screen.run_progress(words) as progress:
        result = runner.run(
            site, playbook, verb="copy", limit=copy.host, extra=extra, check=check, listen=progress
        )  # fmt: skip
    if not result.ok:
        told = result.failures[0].message if result.failures else result.output[-400:]
        raise HikeshiError(
            f"the disk of {copy.id} was not worked on as asked: {told}",
            "mend what it names, then the same command again",
        )
    return result
