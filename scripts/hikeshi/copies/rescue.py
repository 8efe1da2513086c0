"""`hikeshi rescue`, the way in when nobody can log in: copy, judge the disk, mend it, rehearse, swap it in, prove.

Each step is skipped where the copy's file says that it is done; so a call that was killed, or had no permission to
stop the original, is gone on with by the next one. Up to the swap nothing of the original is changed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from hikeshi import bombs, lock, look, screen
from hikeshi.copies import digests, disk, making, mending, proving, record, rehearsal, swap, work
from hikeshi.copies.disk import DiskLook
from hikeshi.copies.driver import AskedError, DoneByHandError
from hikeshi.copies.drivers import driver_of
from hikeshi.copies.mending import DiskMended
from hikeshi.copies.record import Check, Copy, Repaired
from hikeshi.errors import HikeshiError, HostKeyError, RefusedError, UsageError
from hikeshi.incident import clock, permissions, stages, state, store
from hikeshi.incident.stages import Stages
from hikeshi.probes import ProbeResult
from hikeshi.schedule.job import Job
from hikeshi.site import PermissionName, Site
from hikeshi.triage.plan import Planned

FRESH = timedelta(hours=1)  # the age of a copy that may be swapped in where no incident says since when it is needed
SETTLE_S = 60.0  # how long services may take after the swap until what was green is green again

Ask = Callable[[Sequence[str], str], bool]  # what is about to be done, in lines; and the question


@dataclass
class Rescue:
    """All that one call did and saw; the screen and `--json` read nothing else."""

    site: str
    host: str
    copy: str = ""  # its id
    steps: list[str] = field(default_factory=list)  # what is left to do, in sentences (--check, --plan)
    missing: list[str] = field(default_factory=list)  # why it would be refused (--check, --plan)
    look: DiskLook | None = None
    mended: DiskMended | None = None
    rehearsed: list[Check] = field(default_factory=list)
    probes: list[ProbeResult] = field(default_factory=list)  # after the swap
    swapped: bool = False

    def as_data(self) -> dict[str, Any]:
        """Return everything for `--json`.

        site, host, copy: its id, or ""; steps, missing: sentences, what is left to do and why it would be refused;
        look: what its disk told before, mended: what was done to it and what is left, see there, or null where that was
        done by an earlier call; rehearsed: [{what, ok, words}]; swapped; probes: after that, as probes.
        """
        return {
            "site": self.site,
            "host": self.host,
            "copy": self.copy,
            "steps": self.steps,
            "missing": self.missing,
            "look": self.look.as_data() if self.look else None,
            "mended": self.mended.as_data() if self.mended else None,
            "rehearsed": [check.model_dump() for check in self.rehearsed],
            "swapped": self.swapped,
            "probes": [asdict(item) for item in self.probes],
        }


def rescue(site: Site, host: str, *, ask: Ask, again: bool = False, check: bool = False, plan: bool = False) -> Rescue:
    """Rescue a host by way of its disk, to its end; with `check` and `plan` say what would be done.

    `plan` also judges the disk of a copy that is there, for which a working copy is made. Raises RefusedError without
    a permission, HikeshiError where something did not prove itself; what was done until then is kept.
    """
    done = Rescue(site.name, host)
    data = site.data.copying
    if data is None or host not in data.instances:
        known = ", ".join(sorted(data.instances)) if data else ""
        raise UsageError(f"HOST is {host!r}; rescued can be: {known or 'none'}.", "hikeshi rescue HOST --check")
    with lock.held(site, "rescue"), stages.rescue(store.journal(site), host, check=check or plan) as (track, action):
        if check or plan:
            _foresee(site, done, judged=plan)
        else:
            carry_out(site, done, track, ask=ask, again=again)
        action.data.update(copy=done.copy, swapped=done.swapped)
    return done


def begun(site: Site, host: str) -> Copy | None:
    """Return the copy from which a host runs, or which is on its way in or back."""
    return next((copy for copy in record.read_all(site, host) if copy.swapped), None)


def under_way(site: Site) -> list[str]:
    """Return the hosts whose swap was killed half way: between two disks, or not proven."""
    return sorted(copy.host for copy in record.read_all(site)
                  if copy.swap and copy.swap.state in ("in", "back"))  # fmt: skip


def carry_out(
    site: Site, done: Rescue, track: Stages, *, ask: Ask, again: bool = False, recovery: int | None = None
) -> None:
    """Do the same for whoever holds the site's lock; `recovery` is the number of the recovery that does it."""
    copy = begun(site, done.host)
    if copy is None:
        copy = _copied(site, done, track, ask, again=again)
        done.copy = copy.id
        _made_ready(site, done, copy, track, ask, recovery)
        _may_stop(site, copy)
        _ask_to_swap(copy, ask)
    done.copy = copy.id
    if copy.swap and copy.swap.state == "proven":
        if proving.log_in(site, done.host, wait_s=0).ok:
            screen.say(f"{screen.line(done.host)} runs from its mended disk already, and lets us in: nothing to do")
            done.swapped = True
            return
        raise RefusedError(
            f"{done.host} runs from copy {copy.id} already, and lets nobody in again.",
            f"hikeshi copy {done.host} --swap-back --site {site.name}: it has its original again, and the same command "
            "judges a new copy of it; or --swap-commit first, if the original is not wanted back",
        )
    if copy.swap and copy.swap.state == "back":
        _back(site, copy, track, "a call before had begun to swap it back")
    _swapped_in(site, copy, track)
    _proven(site, done, copy, track)
    swap.proven(site, copy)
    done.swapped = True


# The copy and its disk


def usable(site: Site, host: str) -> Copy | None:
    """Return the newest good copy if it is of this incident, or fresh: an older one would take the host back."""
    copy, since = making.good(site, host), datetime.now(UTC) - FRESH
    if store.open_folder(site) and (opened := state.derive(store.journal(site).records()).opened):
        since = min(since, opened.time)
    return copy if copy and copy.begun >= since else None


def _copied(site: Site, done: Rescue, track: Stages, ask: Ask, *, again: bool) -> Copy:
    making.finish_half_done(site, driver_of(site), [done.host])  # one that the cloud lost is no copy
    if again or usable(site, done.host) is None:
        with track.stage("copy", host=done.host):
            making.take_locked(site, done.host, approve=ask, again=True)
    copy = usable(site, done.host)
    if copy is None:
        raise HikeshiError(f"there is no copy of {done.host} any more.", f"hikeshi copy {done.host} --site {site.name}")
    return copy


def _sealed(copy: Copy) -> bool:
    """Say whether the working copy is mended and sealed, and no rehearsal showed that something is wrong with it."""
    return copy.swap is not None and bool(copy.swap.mended) and copy.swap.rehearsal != "failed"


def _made_ready(site: Site, done: Rescue, copy: Copy, track: Stages, ask: Ask, recovery: int | None) -> None:
    """Take a verified copy to a sealed and rehearsed disk."""
    for other in record.read_all(site, copy.host):  # what a killed call left of a copy before this one
        if other.id != copy.id and not other.swapped:
            work.let_go(site, other)
    work.let_go(site, copy)
    if why := _out_of_date(site, copy):
        screen.say(f"copy {copy.id} was mended before, and is once more: {why}")
    if why or not _sealed(copy):
        _mend(site, done, copy, track, ask, recovery)
        with track.stage("seal the disk", host=copy.host):
            swap.seal(site, copy)
    else:
        track.skip("mend the copy", f"copy {copy.id} is mended and sealed")
    if copy.swap and copy.swap.rehearsal == "passed":
        track.skip("rehearse", f"copy {copy.id} was rehearsed, and nothing was done to it since")
    else:
        _rehearse(site, done, copy, track)
    if copy.repaired and not copy.repaired.passed:
        copy.repaired = copy.repaired.model_copy(update={"passed": datetime.now(UTC)})
        record.save(site, copy)


def _out_of_date(site: Site, copy: Copy) -> str:
    """Return why what a call before did to the working copy is not enough now; empty when it is, or nothing was."""
    kept = copy.repaired
    if kept is None or copy.swap is None:
        return ""
    if kept.digests != digests.of(site):
        return "by other roles, playbooks or variables"
    if not _may_hold(site, copy.id):
        return ""
    if kept.held_until is None:
        return "what would go off there may be held now"
    standing = [deadline.at for deadline in clock.standing(store.journal(site).records())]
    last = max(standing, default=kept.held_until)
    return f"the last deadline is {last.astimezone(site.zone):%H:%M} now" if last > kept.held_until else ""


def _rehearse(site: Site, done: Rescue, copy: Copy, track: Stages) -> None:
    """Boot it, and prove it; raise where something is wrong."""
    with track.stage("rehearse", host=copy.host) as action:
        done.rehearsed = rehearsal.rehearse(site, copy, green=proving.green_now(site, copy.host))
        bad = [f"{check.what}: {check.words}" for check in done.rehearsed if not check.ok]
        if bad:
            action.failed("; ".join(bad)[:2000])
    for check in done.rehearsed:
        verdict = "[green]good[/green]" if check.ok else "[bold red]not good[/bold red]"
        screen.say(f"{verdict} rehearsal · {screen.line(check.what, 100)} · {screen.line(check.words, 300)}")
    if bad:
        again = f"hikeshi rescue {copy.host} --site {site.name} judges and mends its disk anew; --again copies anew"
        shut = look.kept_out(copy.host, "; ".join(bad))
        raise HikeshiError(
            f"the mended copy of {copy.host} did not prove itself, and is not swapped in; nothing of the original was "
            f"changed. {'; '.join(bad)}",
            f"{shut.fix}. Then {again}" if isinstance(shut, HostKeyError) else again,
        )


def _mend(site: Site, done: Rescue, copy: Copy, track: Stages, ask: Ask, recovery: int | None) -> None:
    """Judge the disk, ask, hold what would go off, mend."""
    with_what = digests.of(site)
    if copy.repaired and copy.repaired.digests != with_what:
        screen.say(f"the working copy of {copy.id} was mended by other roles or variables: it is made anew")
        work.throw_away(site, copy)
    try:
        with track.stage("judge the disk", host=copy.host):
            look = done.look = disk.judge(site, copy)
    except DoneByHandError:
        track.skip("mend the copy", "a person did it by hand")
        return
    for finding in look.found:
        screen.finding_line(finding)
    if not look.found:
        screen.say(
            f"nothing wrong is found on the disk of {screen.line(copy.host)}: what keeps us out may be elsewhere"
        )
    jobs = _would_go_off(look)
    holds = _holds(site, look, track, jobs)
    told = [f"on the copy of {copy.host}, {copy.id}:"]
    told += [f"{item.step.kind} · {item.step.words}" for item in look.plan.steps] or ["no step is known for its disk"]
    told += [f"hold {job.id}: {job.does}" for job in holds]
    if not ask(told, "Mend the copy? Nothing of the original is changed."):
        raise RefusedError("the copy was not mended: that was not approved.", f"hikeshi rescue {copy.host} --yes")
    _will_repair(site, copy, with_what, look.plan.steps)
    with track.stage("mend the copy", host=copy.host, steps=[item.step.words for item in look.plan.steps]) as action:
        done.mended = mending.mend(site, copy, look, holds=holds, recovery=recovery)
        took = done.mended.steps
        _will_repair(site, copy, with_what, [item.planned for item in took if not item.failed])
        _did_not_pass(site, copy, [item.planned for item in took if item.failed])
        if lost := [f"{item.id}: {item.why}" for item in done.mended.held if item.failed]:
            action.failed("; ".join(lost)[:2000])
    if copy.repaired:
        copy.repaired.held_until = look.agenda.until if len(holds) == len(jobs) and not lost else None
        record.save(site, copy)
    on_purpose = done.mended.look.agenda.on_purpose
    held = [item.subject for item in done.mended.difference if on_purpose(item.host, item.subject)]
    for item in done.mended.difference:
        if item.subject not in held:
            screen.say(f"  different now · {screen.line(item.subject, 200)}: {screen.line(item.words, 300)}")
    if held:
        screen.say(f"  different now, because jobs are held · {screen.line(', '.join(held), 300)}")
    for finding in done.mended.look.found:
        screen.say(f"[bold yellow]still so on the disk[/bold yellow] · {screen.line(finding.cause, 300)}")
    if lost:
        raise HikeshiError(
            f"jobs on the disk of {copy.id} are not held, and would go off when it boots; nothing of the original was "
            f"changed. {'; '.join(lost)[:1000]}",
            f"hikeshi rescue {copy.host} --site {site.name} tries again",
        )


def _would_go_off(look: DiskLook) -> list[Job]:
    """Return what would go off on a disk, but for what is mended there itself."""
    ill = {item.subject.partition(":")[2] for item in look.found}
    return [job for job in look.bombs if job.id.partition(":")[2] not in ill]


def _may_hold(site: Site, copy_id: str) -> bool:
    """Say whether the customer has allowed to hold jobs on the disk of a copy."""
    return not permissions.missing(site, "hold-jobs") or permissions.used_for(
        store.journal(site).records(), "hold-jobs", copy_id
    )


def _holds(site: Site, look: DiskLook, track: Stages, jobs: Sequence[Job]) -> Sequence[Job]:
    """Return what is held on the disk before it boots; nothing where the customer has not allowed it, which is said."""
    if jobs and not _may_hold(site, look.copy):
        why, ask = permissions.missing(site, "hold-jobs"), permissions.REGISTRY["hold-jobs"].ask
        screen.say(
            f"[bold yellow]{bombs.count(jobs)} on the disk are not held, and go off when it has booted[/bold yellow]: "
            f"{screen.line(why, 300)}"
        )
        screen.say(f"ask the customer: “{ask}” Then: {permissions.how_to_allow(site, 'hold-jobs')}")
        track.skip("hold jobs", why)
        return []
    return jobs


def _will_repair(site: Site, copy: Copy, with_what: Mapping[str, str], planned: Sequence[Planned]) -> None:
    """Write what is done to the disk, each step once: a killed call leaves no step that a replay would not know."""
    kept = copy.repaired or Repaired(digests=dict(with_what))
    steps = [*kept.steps, *(asdict(item.step) for item in planned)]
    unique = [step for number, step in enumerate(steps) if step not in steps[:number]]
    copy.repaired = kept.model_copy(update={"steps": unique, "passed": None})
    record.save(site, copy)


def _did_not_pass(site: Site, copy: Copy, failed: Sequence[Planned]) -> None:
    """Take steps that failed off what may be replayed."""
    if copy.repaired and failed:
        lost = [asdict(item.step) for item in failed]
        kept = [step for step in copy.repaired.steps if step not in lost]
        copy.repaired = copy.repaired.model_copy(update={"steps": kept})
        record.save(site, copy)


# The swap


def _may_stop(site: Site, copy: Copy) -> None:
    """Refuse before the swap where the customer has not allowed it, saying that all before is kept."""
    journal = store.journal(site)
    permissions.take_over_standing(site, journal)
    records = journal.records()
    if copy.swap and permissions.used_for(records, "reboot", copy.swap.mark):
        return
    decision = permissions.ledger(records).get("reboot")
    if decision and not decision.why_not(datetime.now(UTC), zone=site.zone):
        return
    try:
        permissions.require(site, "reboot", f"stop {copy.host} and start it from its mended, rehearsed disk")
    except RefusedError as problem:
        raise RefusedError(
            f"{problem.message} Until then {copy.host} stays as it is; copy, mended disk and rehearsal are kept.",
            f"{problem.fix}; then the same command again, which goes on with the swap",
        ) from problem


def _ask_to_swap(copy: Copy, ask: Ask) -> None:
    taken = copy.taken.at if copy.taken else copy.begun
    minutes = (datetime.now(UTC) - taken).total_seconds() / 60
    told = [
        f"{copy.host} is stopped and started from its mended disk, as it was {minutes:.0f} minutes ago; its data disks "
        "and what the site carries along stay as they are; the original is kept",
        "if ssh does not let us in then, or something is worse than now, the original is swapped back",
    ]
    if not ask(told, f"Swap {copy.host}?"):
        raise RefusedError("nothing was swapped: that was not approved.", f"hikeshi rescue {copy.host} --yes")


def _swapped_in(site: Site, copy: Copy, track: Stages) -> None:
    if copy.swap and copy.swap.state == "sealing":
        copy.swap = copy.swap.model_copy(update={"green": proving.green_now(site, copy.host)})
        record.save(site, copy)
    try:
        with track.stage("swap", host=copy.host):
            swap.swap_in(site, copy)
    except RefusedError:  # a person is asked, or the customer
        raise
    except HikeshiError as problem:
        _back(site, copy, track, f"the swap failed. {problem.message}")


def _proven(site: Site, done: Rescue, copy: Copy, track: Stages) -> None:
    """Prove that we get in and that nothing is worse; else swap back and raise."""
    green = copy.swap.green if copy.swap else []
    why = ""
    with track.stage("prove the swap", host=copy.host) as action, screen.run_progress(f"proving {copy.host}"):
        login = proving.log_in(site, copy.host)
        if not login.ok:
            why = f"ssh does not let us in: {login.why}"
        else:
            try:
                done.probes = proving.look(site, proving.showing(site, copy.host), green=green, settle_s=SETTLE_S)
            except HikeshiError as problem:
                why = problem.message
            if red := proving.worse(done.probes, green):
                why = f"{red[0].title}: {red[0].seen}; it was green before"
        if why:
            action.failed(why)
    if why:
        _back(site, copy, track, f"its mended disk did not prove itself. {why}")


def _back(site: Site, copy: Copy, track: Stages, why: str) -> None:
    """Let the original run again, and raise."""
    screen.say(f"[bold red]swapping {screen.line(copy.host)} back[/bold red]: {screen.line(why, 400)}")
    with track.stage("swap back", host=copy.host):
        swap.swap_back(site, copy)
    raise HikeshiError(
        f"{copy.host} runs from its original again: {why}",
        f"hikeshi rescue {copy.host} --site {site.name} --again copies anew; hikeshi copy --list shows what is there",
    )


# What would be done


def foresee(site: Site, host: str) -> tuple[list[str], list[str]]:
    """Return what a rescue of a host would do from now on, and why it would be refused, in sentences; asks nobody."""
    copy = begun(site, host) or usable(site, host)
    steps, needs = [], list[PermissionName]()
    if copy is None:
        steps.append(f"copy {host} with its data, and verify the copy")
        needs.append("copy")
        if site.data.copying and site.data.copying.price_per_gib_day:
            needs.append("spend")
    ready = copy is not None and _sealed(copy) and not _out_of_date(site, copy)
    if copy is None or not (copy.swapped or ready):
        unheld = permissions.missing(site, "hold-jobs")
        holds = f"leave there what would go off, not held ({unheld})" if unheld else "hold there what would go off"
        steps.append(f"judge the copy's disk, {holds}, mend it with the roles' disk steps")
    proof = copy.swap.rehearsal if copy and copy.swap else ""
    if copy is None or not (copy.swapped or (ready and proof == "passed")):
        steps.append("boot it beside the original, cut off from everything, and prove login and probes there")
    if copy is None or copy.swap is None or copy.swap.state == "sealing":
        needs.append("reboot")
        if copy and swap.lost_with(site, copy):
            needs.append("data-loss")
    if copy and copy.swap and copy.swap.state == "back":
        steps.append(f"swap {host} back to its original, which was begun")
    elif copy and copy.swap and copy.swap.state == "proven":
        steps.append(f"nothing: {host} runs from copy {copy.id} already")
    else:
        steps.append(f"stop {host}, start it from the mended disk, prove ssh and probes, or swap back")
    return steps, [why for name in needs if (why := permissions.missing(site, name))]


def _foresee(site: Site, done: Rescue, *, judged: bool) -> None:
    done.steps, done.missing = foresee(site, done.host)
    copy = begun(site, done.host) or usable(site, done.host)
    done.copy = copy.id if copy else ""
    if judged and copy and not copy.swapped and (not _sealed(copy) or _out_of_date(site, copy)):
        try:
            done.look = disk.judge(site, copy)
        except (AskedError, DoneByHandError) as problem:
            done.steps.insert(0, problem.message)
