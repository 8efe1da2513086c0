"""The recovery: probe, look, judge, plan, close the gate, mend, look again, prove it directly, open, prove it all.

Decides nothing that the plan can decide.
"""

import secrets
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from hikeshi import baseline, lock, look, probes, repair, runner, screen
from hikeshi.baseline import Baseline
from hikeshi.copies.rescue import Ask
from hikeshi.errors import HikeshiError, RefusedError
from hikeshi.incident import permissions, show, stages, store
from hikeshi.incident.stages import Stages
from hikeshi.look import Evidence, Refused
from hikeshi.probes import ProbeResult
from hikeshi.recovery_gate import Gate
from hikeshi.recovery_jobs import Jobs
from hikeshi.recovery_rescue import Disks, nobody
from hikeshi.repair import ROUNDS, Mended
from hikeshi.runner import RunResult
from hikeshi.schedule.agenda import Agenda
from hikeshi.schedule.job import Job
from hikeshi.site import Site
from hikeshi.triage import additions, drift, restore
from hikeshi.triage import findings as triage
from hikeshi.triage import plan as planning
from hikeshi.triage.additions import Addition
from hikeshi.triage.drift import Drift
from hikeshi.triage.findings import Finding, Step
from hikeshi.triage.plan import Plan, Planned
from hikeshi.triage.restore import Restoration

# Asked before the first change: the plan, or in words the differences that would be tried one by one; whether customers
# see the sorry page meanwhile; and the scheduled jobs that are held meanwhile.
Approve = Callable[[Plan, Sequence[str], bool, Sequence[Job]], bool]
ABANDONED_WAIT_S = 60  # how long the leftovers of a killed run may take to end by themselves
MOST_RESTORED = 12  # differences from the baseline that are tried, some 15 s each
TAKEN_BACK = "that did not help, and was taken back"
STAYS = "that did not help; it stays, and hurts nobody"
STUCK = "that did not help, and could not be taken back: look at the host"
SETTLE_S = 20  # how long services and load balancer may take to be green after the last step


@dataclass
class Recovery:
    """All that a recovery did; the drill's score and the report read nothing else."""

    site: str
    started: str = ""
    seconds: float = 0.0
    before: list[ProbeResult] = field(default_factory=list)
    found: list[Finding] = field(default_factory=list)
    mended: list[Mended] = field(default_factory=list)
    proposed: Plan = field(default_factory=lambda: Plan(()))
    converged: bool = False
    converged_changes: int = 0
    converge_stopped: str = ""  # where converging failed, and why
    left: list[Finding] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)  # hosts that the last look could not judge
    unseen: list[str] = field(default_factory=list)
    kept: list[Addition] = field(default_factory=list)  # what people added, and stands as it stood
    against: Baseline | None = None
    restored: list[str] = field(default_factory=list)  # differences from the baseline that were put back, and it helped
    tried: list[str] = field(default_factory=list)  # the same, but it did not help; and what became of it
    evidence: Evidence = field(default_factory=dict, repr=False)  # of the last look
    judged: list[Finding] = field(default_factory=list, repr=False)  # what that found
    drift: list[Drift] = field(default_factory=list)  # what differed from the baseline at the last look
    after: list[ProbeResult] = field(default_factory=list)
    gate: Gate | None = field(default=None, repr=False)
    gate_told: str = ""  # what stays closed at the end, until when, and what opens it
    jobs: Jobs | None = field(default=None, repr=False)
    agenda: Agenda | None = field(default=None, repr=False)  # of the first look
    disks: Disks | None = field(default=None, repr=False)
    jobs_told: str = ""  # what stays held at the end, and what releases it
    next_look: str = ""  # where a person looks next when it is not healthy

    @property
    def healthy(self) -> bool:
        """True when every probe is green, every host was judged, no finding is left, and no gate of ours is closed.

        Behind a gate that somebody else closed only the direct probes are asked.
        """
        shut = bool(self.gate_told) and self.gate is not None and self.gate.ours
        return bool(self.after) and not self.red and not self.left and not self.refused and not shut

    @property
    def red(self) -> bool:
        """Whether a probe of the last look failed."""
        return any(not item.passed for item in self.after)

    @property
    def kinds(self) -> Sequence[str]:
        """The kinds of views that say something of the shop now."""
        return look.KINDS[:1] if self.gate and self.gate.shut else look.KINDS

    @property
    def changed(self) -> int:
        """How many steps, and tasks of a convergence, changed something."""
        return sum(step.changed for step in self.mended) + self.converged_changes

    def as_data(self) -> dict[str, Any]:
        """Return everything for `--json` and the drill.

        site, started (UTC), seconds, healthy, changed: how many steps and tasks of a convergence changed something,
        converged, converge_stopped: where that failed, or ""; findings: all that was found, and left: what still is,
        both as `triage` has them, without because; plan: as there, of the first look; steps: those that were taken,
        [{host, role, step, kind, args, late, findings, subjects, changed, failed, seconds}]; refused: as there, of the
        last look; unseen, kept, drift: as there, of the last look; baseline: its name or null; restored, tried:
        [sentence], differences that were put back, with and without help; gate: sentence, what stays closed until
        when, or ""; jobs: sentence, what stays held, or ""; agenda: what was scheduled at the first look, as `jobs
        list` has it, or null; disks: {rescued: [as rescue has it], stopped: {host: why}, foreseen: [sentence]}, hosts
        that let nobody in, or null; probes_before, probes_after: as probes there.
        """
        return {
            "site": self.site,
            "started": self.started,
            "seconds": round(self.seconds, 2),
            "healthy": self.healthy,
            "changed": self.changed,
            "converged": self.converged,
            "converge_stopped": self.converge_stopped,
            "probes_before": [asdict(item) for item in self.before],
            "findings": [look.finding_data(item) for item in self.found],
            "plan": look.plan_data(self.proposed),
            "steps": [item.as_data() for item in self.mended],
            "left": [look.finding_data(item) for item in self.left],
            "refused": [item.as_data() for item in self.refused],
            "unseen": self.unseen,
            "kept": [asdict(item) for item in self.kept],
            "baseline": self.against.name if self.against else None,
            "restored": self.restored,
            "tried": self.tried,
            "drift": [look.drift_data(item, {}) for item in self.drift],
            "gate": self.gate_told,
            "jobs": self.jobs_told,
            "agenda": self.agenda.as_data() if self.agenda else None,
            "disks": self.disks.as_data() if self.disks else None,
            "probes_after": [asdict(item) for item in self.after],
        }


def mend(site: Site, plan: Plan, *, check: bool) -> list[Mended]:
    """Carry out a plan on the site's hosts in one play; return what each step did."""
    done, result = repair.take(site, plan, "recover-site.yml", verb="recover", check=check)
    if result.failures:
        explain(site, result, f"hikeshi recover --site {site.name} --plan")
    return done


def explain(site: Site, result: RunResult, next_command: str) -> None:
    """Show why a run failed, with the last error lines of the host it failed on."""
    log: list[str] = []
    if not result.unreachable:
        seen = runner.run(site, "collect-evidence.yml", verb="evidence")
        with suppress(HikeshiError):  # what cannot be judged explains nothing, and is refused where it is looked at
            hosts, _ = look.judgeable(seen)
            log = _last_words(hosts, {event.host for event in result.failures})
    screen.failure(site, result, log, next_command)


def _last_words(seen: Mapping[str, Mapping[str, Any]], hosts: set[str]) -> list[str]:
    """Return the last lines of units that do not run, and the last errors, of these hosts."""
    log: list[str] = []
    for host in sorted(hosts & seen.keys()):
        log += [f"{name}: {line}" for name, unit in seen[host]["units"].items() for line in unit["log"][-8:]]
        for place, logs in sorted(seen[host].get("logs", {}).items()):
            log += [f"{place}: {line}" for line in logs.get("errors", [])[-5:]]
        log += seen[host]["errors"][-5:]
    return log


def recover(
    site: Site,
    *,
    approve: Approve,
    ask: Ask = nobody,
    check: bool = False,
    plan_only: bool = False,
) -> Recovery:
    """Recover a site. `approve` is asked before the first change; a healthy site is left as it is.

    `ask` is asked before a host that lets nobody in is rescued by way of its disk.
    """
    done = Recovery(site.name, started=datetime.now(UTC).isoformat(timespec="seconds"))
    began = time.monotonic()
    show.remind(site)
    journal = store.journal(site)
    with (
        lock.held(site, "recover"),
        stages.recovery(journal, check=check, plan=plan_only) as (track, action),
    ):
        done.gate, done.jobs = Gate(site, track), Jobs(site, track)
        done.disks = Disks(site, track, ask)
        with done.gate.kept():
            _recover(
                site, done, track, done.gate, done.jobs, done.disks, approve=approve, check=check, plan_only=plan_only
            )
        done.gate_told, done.jobs_told = done.gate.told, done.jobs.told
        action.data.update(healthy=done.healthy, changed=done.changed)
    done.seconds = time.monotonic() - began
    done.next_look = _next_look(site, done)
    return done


def _look(site: Site, done: Recovery, *, even_none: bool = False) -> list[Finding]:
    """Look at every host and return what is wrong; note it, what could not be seen, what people added or changed."""
    looked = look.evidence(site, against=done.against, state=done.against is not None, even_none=even_none)
    done.evidence, done.refused = looked.hosts, looked.refused
    done.agenda = done.agenda or looked.agenda
    found = triage.judge(done.evidence, done.against.hosts if done.against else None)
    done.unseen, done.kept = triage.unreadable(done.evidence), additions.find(done.evidence)
    if done.against:
        done.drift, _ = look.drifted(done.against, done.evidence)
        done.unseen += look.not_compared(done.against, done.evidence)
        found += drift.failed(done.drift, done.evidence)
    found, done.drift = looked.not_on_purpose(found), looked.not_on_purpose(done.drift)
    done.kept = looked.not_on_purpose(done.kept)
    # What was found on a host that tells nothing any more still stands: nobody saw it go.
    silent = {item.host for item in done.refused}
    done.judged = triage.ordered([*found, *(item for item in done.judged if item.host in silent)])
    look.note_findings(site, done.judged, done.unseen, done.kept, done.drift, done.refused)
    return done.judged


def _look_when_quiet(site: Site, done: Recovery, *, even_none: bool = False) -> list[Finding]:
    """Look; wait until no host runs any more what an earlier, killed run started there, and look again."""
    found = _look(site, done, even_none=even_none)
    deadline = time.monotonic() + ABANDONED_WAIT_S
    while left := [(host, item) for host, seen in done.evidence.items() for item in seen["abandoned"]]:
        host, item = left[0]
        if time.monotonic() > deadline:
            raise RefusedError(
                f"{host} still runs what a broken connection left behind: pid {item['pid']}, since "
                f"{item['age_s']:.0f} s: {item['command']}",
                f"let it end, or end it by hand on {host} (kill {item['pid']}), then run the same command again",
            )
        screen.say(
            f"{screen.line(host)} still runs what an earlier run left behind ({screen.line(item['command'])}); waiting"
        )
        time.sleep(2)
        found = _look(site, done)
    return found


def _next_look(site: Site, done: Recovery) -> str:
    """Return the command with which a person goes on where we gave up."""
    again = f"hikeshi recover --site {site.name} --plan"
    if done.disks and done.disks.next_step:
        return done.disks.next_step
    for finding in done.left:
        kind, _, name = finding.subject.partition(":")
        if kind == "unit":
            ssh = shlex.join(["ssh", *site.ssh_arguments, finding.host])
            return f"{ssh} sudo journalctl -n 50 -u {shlex.quote(name)}; mend what it names, then {again}"
    for refused in done.refused:
        return f"{refused.host}: {refused.problem.fix}; then {again}"
    if done.gate_told and not done.left and not done.red:
        return f"hikeshi sorry status --site {site.name}; then hikeshi sorry off --site {site.name}"
    if not done.left and done.converge_stopped:
        return f"mend what converging stopped at, above, then {again}"
    if not done.left:
        return (
            "no host shows what is wrong: the shop's own data may be lost, which only a backup brings back, or "
            f"something outside the site that it needs. Look at what is red above, then {again}"
        )
    return f"look at what is still wrong above, mend it by hand, then {again}"


def _recover(
    site: Site, done: Recovery, track: Stages, gate: Gate, jobs: Jobs, disks: Disks, *, approve: Approve, check: bool,
    plan_only: bool,
) -> None:  # fmt: skip
    if track.earlier:
        words = track.earlier.words(site.zone)
        screen.say(f"going on after a recovery that did not come to its end: {screen.line(words)}")
    with track.stage("probe"):
        screen.say("[bold]looking as a customer[/bold]")
        done.before = probes.run(site, "customer", report=screen.probe_line)
        show.note_probes(site, "customer", done.before)
    done.against = _baseline(site)
    swapped = not plan_only and not check and disks.finish()
    if not plan_only and not check:
        _take_back_half(site, track, approve)
    with track.stage("look"):
        found = _look_when_quiet(site, done, even_none=True)
    if plan_only or check:
        disks.foresee(done.refused, alone=not done.evidence)
    elif disks.get_in(done.refused, alone=not done.evidence):
        swapped, done.agenda = True, None
        with track.stage("look"):
            found = _look_when_quiet(site, done, even_none=True)
    if not done.evidence and not disks.foreseen and not disks.stopped:
        raise look.none_judged(done.refused)
    done.found = found
    for refused in done.refused:
        screen.say(f"[bold red]not judged[/bold red], and left as it is: {screen.line(refused.problem.message, 400)}")
    for finding in found:
        screen.finding_line(finding)
    if done.agenda:
        look.note_agenda(site, done.agenda)
        jobs.look(done.agenda)
    plan = done.proposed = planning.make(found, done.evidence)
    red = not all(item.passed for item in done.before)
    if swapped:  # what customers saw before says nothing of the machine that runs now
        with track.stage("probe"):
            red = not all(item.passed for item in look.probe_all(site, kinds=look.KINDS[:1]))
    if not plan_only and not check:
        gate.look(red=red)
        if gate.shut:  # then customers see the sorry page, and it says nothing of the shop
            red = _red_behind(site, done, track)
        gate.keep()
    approved = False
    if plan_only:
        done.left, done.after = found, done.before
    elif found or red:
        # What is red may be a host that waits: then no customer is shut out for it, and nothing is built or tried.
        red = red and not disks.stopped
        approved = bool(plan.steps) or red or _worth_converging(found)
        # A shop whose probes are green is not closed for what a finding says of it.
        closes = red and not check and gate.may_close()
        holds = jobs.may_hold(done.agenda, found) if approved and done.agenda and not check else []
        if approved and not approve(plan, (), closes, holds):
            raise RefusedError("nothing was changed: the plan was not approved.", "hikeshi recover --yes")
        if holds and done.agenda:
            jobs.hold(done.agenda, holds)
        if closes:
            gate.close()
        _mend_in_rounds(site, done, track, check=check)
    if not found and track.done_before("mend"):
        track.skip("mend", "done by the recovery before, which did not come to its end; no finding is left")
    if not plan_only and not check:
        screen.say("[bold]proving it[/bold]")
        # What we, or the recovery that was cut off, have started may still be starting.
        _prove(site, done, track, settle_s=SETTLE_S if done.mended or track.earlier else 0)
        _try_more(site, done, track, approve, approved=approved)
        if gate.shut and gate.ours and not done.red:
            gate.open()
            _prove(site, done, track, settle_s=SETTLE_S)
            if done.red:
                _try_more(site, done, track, approve, approved=approved)
        if done.healthy:
            jobs.release()


def _red_behind(site: Site, done: Recovery, track: Stages) -> bool:
    """Look past the gate; say whether the shop works behind it."""
    with track.stage("probe"):
        seen = _probe(site, done)
        done.before += seen
    return not all(item.passed for item in seen)


def _try_more(site: Site, done: Recovery, track: Stages, approve: Approve, *, approved: bool) -> None:
    """Where the steps were not enough: build it anew, then put back what differs from the baseline."""
    if done.disks and done.disks.stopped:
        return
    if done.red and not done.converged:
        if not approved and not approve(Plan(()), (), False, ()):
            raise RefusedError("nothing was changed: converging was not approved.", "hikeshi recover --yes")
        _converge(site, done, track)
        _prove(site, done, track, settle_s=SETTLE_S)
    if not done.healthy and (done.converged or any(item.rule == drift.FAILED for item in done.left)):
        _restore(site, done, track, approve)


def _baseline(site: Site) -> Baseline | None:
    """Return the baseline to compare with; a damaged one is said, and keeps nobody from recovering."""
    try:
        return baseline.newest(site)
    except HikeshiError as problem:
        screen.say(f"going on without a baseline: {screen.line(problem.message)}")
        return None


def _restore(site: Site, done: Recovery, track: Stages, approve: Approve) -> None:
    """Put back what differs from the baseline, one difference at a time; what helps nobody is taken back at once."""
    if done.against is None:
        return
    kept = done.against.hosts
    options = restore.restorations(
        done.drift,
        {host: then["texts"] for host, then in kept.items()},
        done.evidence,
        {(item.host, item.subject) for item in done.left},
        {host: restore.accounts_of(then["facts"]) for host, then in kept.items()},
        gently=any(item.passed for item in done.after),
        trial=secrets.token_hex(8),
    )
    if not done.converged:  # customers are served: only what lies near to the units of others is tried
        failed = {(item.host, item.subject) for item in done.left if item.rule == drift.FAILED}
        options = restore.for_units_of_others(
            options, [item for item in done.drift if (item.host, item.subject) in failed]
        )
    options = options[:MOST_RESTORED]
    if not options:
        return
    if not done.converged and not approve(Plan(()), [option.words for option in options], False, ()):
        screen.say("nothing was put back: that was not approved")  # what was mended before is still to be reported
        return
    screen.say(f"[bold]putting back what was changed since the baseline[/bold], {len(options)} differences, one by one")
    for option in options:
        if not _ill(done):
            break
        permissions.require_for(site, option.steps)
        with track.stage("restore", what=option.words, undo=[asdict(step) for step in option.undo]) as action:
            screen.say(f"putting back {screen.line(option.words, 300)}")
            became = _try(site, done, option)
            screen.say(screen.line(became))
            action.data["became"] = became
        if became == STUCK:
            break
    _prove(site, done, track, settle_s=SETTLE_S)


def _try(site: Site, done: Recovery, option: Restoration) -> str:
    """Put one difference back; keep it only if something that suffered no longer does. Return what became of it."""
    ill, before = _ill(done), done.after
    mended = mend(site, _plan_of(option.steps), check=False)
    done.after = look.probe_all(site, settle_s=SETTLE_S / 4, kinds=done.kinds, report=lambda _: None)
    done.left = _look(site, done)
    if _ill(done) < ill:
        done.mended += [replace(item, restored=option.drift.subject) for item in mended]
        done.restored.append(option.words)
        return "that helped"
    # What the trial itself made worse is no measure for the next one.
    taken_back = mend(site, _plan_of(option.undo), check=False) if option.undo else []
    done.after, done.left = before, _look(site, done)
    became = STAYS if not option.undo else STUCK if any(map(_left_half, taken_back)) else TAKEN_BACK
    if became != TAKEN_BACK:
        done.mended += mended
    done.tried.append(f"{option.words}: {became}")
    return became


def _left_half(item: Mended) -> bool:
    """Say whether a file is not as it stood; that a unit which failed before fails again is no news."""
    return item.failed and item.planned.step.kind == "disk"


def _take_back_half(site: Site, track: Stages, approve: Approve) -> None:
    """Take back what an earlier recovery put back and died before it knew whether that helped."""
    steps = restore.read_undo(track.half_done.get("undo"))
    if steps:
        screen.say("a recovery before had put something back and not judged it: that is taken back first")
        if not approve(_plan_of(steps), (), False, ()):
            raise RefusedError("nothing was changed: taking it back was not approved.", "hikeshi recover --yes")
        with track.stage("restore", what="taken back", undo=[asdict(step) for step in steps]):
            mend(site, _plan_of(steps), check=False)


def _ill(done: Recovery) -> frozenset[tuple[str, str]]:
    """Return what suffers: red probes and findings, and hosts that tell nothing."""
    red = {(item.view, item.id) for item in done.after if not item.passed}
    return frozenset(red | {(item.host, item.id) for item in done.left} | {(item.host, "") for item in done.refused})


def _plan_of(steps: Sequence[Step]) -> Plan:
    return Plan(tuple(Planned(step, ()) for step in steps))


def _prove(site: Site, done: Recovery, track: Stages, *, settle_s: float) -> None:
    with track.stage("prove"):
        done.after = _probe(site, done, settle_s=settle_s)


def _probe(site: Site, done: Recovery, *, settle_s: float = 0.0) -> list[ProbeResult]:
    """Run every probe that says something of the shop now, and note what each view showed."""
    seen = look.probe_all(site, settle_s=settle_s, kinds=done.kinds)
    for view in dict.fromkeys(item.view for item in seen):
        show.note_probes(site, view, [item for item in seen if item.view == view])
    return seen


def _mend_in_rounds(site: Site, done: Recovery, track: Stages, *, check: bool) -> None:
    tried: set[object] = set()
    found = done.found
    for number in range(ROUNDS):
        whole = planning.make(found, done.evidence)
        plan = Plan(tuple(planned for planned in whole.steps if planned.step.key not in tried))
        if not plan.steps:
            break
        # A late step leans on what other rounds mend: it may be tried in each of them.
        tried |= {planned.step.key for planned in plan.steps if not planned.step.late}
        if not check:
            permissions.require_for(site, [planned.step for planned in plan.steps])
        with track.stage("mend", round=number + 1, steps=[planned.step.words for planned in plan.steps]):
            done.mended += mend(site, plan, check=check)
        if check:
            break
        with track.stage("look"):
            found = _look(site, done)
        known = {(finding.host, finding.id) for finding in done.found}
        new = [finding for finding in found if (finding.host, finding.id) not in known]
        for finding in new:
            screen.finding_line(finding)
        done.found = triage.ordered(done.found + new)
    done.left = found
    if _worth_converging(found) and not check:
        _converge(site, done, track)


def _worth_converging(found: Sequence[Finding]) -> bool:
    """Of what has no step and hurts nobody yet, a person must think: building everything anew would only disturb."""
    return any(item.remedy or item.effect < triage.Effect.WILL_BREAK for item in found)


def _converge(site: Site, done: Recovery, track: Stages) -> None:
    """Build the site from code again, all of it that can be judged: what no step could mend, its role may."""
    whole = "what of the site can be judged" if done.refused else "the whole site"
    title = f"the plan's steps were not enough: converging {whole}"
    with track.stage("converge") as action, screen.run_progress(title) as progress:
        limit = look.others(done.refused)
        result = runner.run(site, "build-site.yml", verb="converge", limit=limit, listen=progress)
        if not result.ok:
            first = result.failures[0] if result.failures else None
            done.converge_stopped = (
                f"{first.host} · {first.role} · {first.task}: {first.message}" if first else result.output[-400:]
            )
            action.failed(done.converge_stopped)
    done.converged = True
    done.converged_changes = sum(result.changed.values())
    if not result.ok:
        explain(site, result, f"hikeshi build --site {site.name}")
    with track.stage("look"):
        done.left = _look(site, done)
