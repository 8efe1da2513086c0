"""Look at a site and change nothing: the evidence of every host, judged, and beside it what the customer sees."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from hikeshi import baseline, exchange, probes, runner, screen
from hikeshi.baseline import Baseline
from hikeshi.copies import proving
from hikeshi.errors import HikeshiError, HostKeyError, RefusedError, UnreachableError
from hikeshi.incident import clock, show, store
from hikeshi.incident import state as states
from hikeshi.probes import ProbeResult
from hikeshi.runner import Event, RunResult
from hikeshi.schedule import agenda
from hikeshi.schedule.agenda import Agenda
from hikeshi.site import PROJECT, Site, site_secrets
from hikeshi.text import Redactor, printable
from hikeshi.triage import additions, drift, findings, packaged, plan, shape
from hikeshi.triage.additions import Addition
from hikeshi.triage.drift import Drift
from hikeshi.triage.findings import Finding
from hikeshi.triage.packaged import Altered
from hikeshi.triage.plan import Plan

_SCHEDULE = "schedule"  # what the program of scheduled_jobs tells
KINDS = ("direct", "customer")  # of views, in the order in which they are proven
SETTLE_S = 10  # how long a load balancer may take to be green again after something else

Evidence = Mapping[str, Mapping[str, Any]]  # of all hosts that can be judged
_Subject = TypeVar("_Subject", Finding, Drift, Addition)


@dataclass(frozen=True)
class Refused:
    """A host that is neither judged nor changed: it is not reached, or what it says cannot be judged."""

    host: str
    problem: HikeshiError

    @property
    def unreachable(self) -> bool:
        """True when nobody gets in to it."""
        return isinstance(self.problem, UnreachableError)

    def as_data(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "host": self.host,
            "unreachable": self.unreachable,
            "why": self.problem.message,
            "fix": self.problem.fix,
        }


@dataclass(frozen=True)
class Looked:
    """The evidence of the hosts that can be judged, and beside it those that cannot; and what is scheduled there."""

    hosts: Evidence
    refused: list[Refused]
    agenda: Agenda

    def not_on_purpose(self, items: Sequence[_Subject]) -> list[_Subject]:
        """Return findings, drift or additions without those that are so because jobs are held."""
        return [item for item in items if not self.agenda.on_purpose(item.host, item.subject)]


def evidence(
    site: Site,
    *,
    against: Baseline | None = None,
    texts: bool = False,
    state: bool = False,
    packages: bool = False,
    even_none: bool = False,
) -> Looked:
    """Collect the evidence of every host of the site; raise when none of them can be judged, unless `even_none`.

    A host that is not reached, or says what cannot be judged, keeps nobody from judging and mending the others.

    What is scheduled is told in the same round trip. With `state` the evidence of each host has its whole state under
    that key, with `texts` also those of ordinary files that `against` does not know. They go past Ansible's events and
    the journal: texts of files belong into neither. With `packages` it says which files are not as their packages
    brought them, which takes up to a minute.
    """
    asked: dict[str, Any] = {"state": None, "programs": {_SCHEDULE: jobs_program()}}
    if state:
        known = {host: sorted(against.known(host)) for host in against.hosts} if against else {}
        asked["state"] = {"key": baseline.key(site), "texts": texts, "known": known}
    with exchange.folder(site, asked) as where:
        extra: dict[str, Any] = {"evidence_exchange": str(where)}
        if packages:
            extra["evidence_packages"] = True
        with screen.run_progress("looking at every host (changes nothing)") as progress:
            result = runner.run(site, "collect-evidence.yml", verb="evidence", extra=extra, listen=progress)
        hosts, refused = judgeable(result)
        refused = [_shut_out(site, item) for item in refused]
        schedules: dict[str, Any] = dict.fromkeys(item.host for item in refused)
        for host, seen in list(hosts.items()):
            try:
                told = exchange.answer(where, host, "its whole state")
                programs = told.get("programs")
                schedules[host] = programs.get(_SCHEDULE) if isinstance(programs, dict) else None
                if state:
                    shape.check_state(host, told.get("state"))
                    hosts[host] = {**seen, "state": told["state"]}
            except HikeshiError as problem:
                schedules[host] = None
                if state:
                    del hosts[host]
                    refused.append(Refused(host, problem))
    if refused and not hosts and not even_none:
        raise none_judged(refused)
    return Looked(hosts, sorted(refused, key=lambda item: item.host), agenda_of(site, schedules))


def none_judged(refused: Sequence[Refused]) -> HikeshiError:
    """Return the error that says that no host at all can be judged."""
    first, *more = refused
    also = f" (nor can be judged: {', '.join(item.host for item in more)})" if more else ""
    return type(first.problem)(first.problem.message + also, first.problem.fix)


def jobs_program() -> str:
    """Return the text of the program that tells what is scheduled: the one that the role installs."""
    return (PROJECT / "roles" / "scheduled_jobs" / "files" / "jobs.py").read_text(encoding="utf-8")


def agenda_of(site: Site, told: Mapping[str, Any], until: datetime | None = None) -> Agenda:
    """Return what is scheduled, of what hosts told, with the deadlines that stand."""
    silent = sorted(host for host, words in told.items() if words is None)
    made = agenda.make(
        {host: words for host, words in told.items() if words is not None},
        site.names(),
        now=datetime.now(UTC),
        deadlines=clock.standing(store.journal(site).records()),
        vital=site.data.vital_jobs,
        redactor=Redactor(site_secrets(site)),
        until=until,
    )
    made.silent = silent
    made.unseen += [f"{host}: what is scheduled" for host in silent]
    return made


def judgeable(result: RunResult) -> tuple[dict[str, Mapping[str, Any]], list[Refused]]:
    """Return what hosts told that can be judged, by host, and those that told nothing of the kind."""
    refused = silent(result)
    away = {item.host for item in refused}
    hosts: dict[str, Mapping[str, Any]] = {}
    for host, seen in result.returned.items():
        if host in away:
            continue
        try:
            shape.check(host, seen)
            hosts[host] = seen
        except HikeshiError as problem:
            refused.append(Refused(host, problem))
    return hosts, refused


def silent(result: RunResult) -> list[Refused]:
    """Return the hosts of a run that told nothing: not reached, or failed; raise where it came to no host at all."""
    failed = {event.host: event for event in reversed(result.failures)}  # the first of each
    if not result.ok and not failed:
        raise _not_collected(result.output[-400:])
    away = {event.host: event.message for event in reversed(result.unreachable)}
    refused = [Refused(host, kept_out(host, words)) for host, words in sorted(away.items())]
    return refused + [
        Refused(host, _not_collected(event.message, host)) for host, event in failed.items() if host not in away
    ]


def _shut_out(site: Site, item: Refused) -> Refused:
    """Return a host that told nothing as one that lets nobody in, where that is why.

    sshd may let somebody in who is then told that his password has expired, or who may not become root. To Ansible
    that host is reached, and a task failed.
    """
    if item.unreachable or (seen := proving.log_in(site, item.host, wait_s=0)).ok:
        return item
    return Refused(item.host, kept_out(item.host, seen.why))


def kept_out(host: str, words: str) -> UnreachableError:
    """Return the error that says that a host does not let us in, of what ssh said."""
    if re.search("host key verification failed|remote host identification has changed", words, re.IGNORECASE):
        return HostKeyError(
            f"{host} shows another host key than the one in known_hosts, or none is there: {words}",
            "ask whoever runs the host, by another way than ssh, for its fingerprint (at the console: ssh-keygen -l -f "
            "/etc/ssh/ssh_host_ed25519_key.pub), compare it with what ssh shows, and only then change known_hosts",
        )
    return UnreachableError(
        f"ssh does not let us in to {host}: {words}",
        "does it run? Then check address, key and known_hosts of the site; where nobody gets in at all, the way in is "
        f"its disk: hikeshi rescue {host} --check. hikeshi probe works without ssh",
    )


def _not_collected(words: str, host: str = "") -> HikeshiError:
    return HikeshiError(
        f"evidence could not be collected{f' of {host}' * bool(host)}: {words}",
        "mend what it names, then run the same command again",
    )


@dataclass(frozen=True)
class Wanted:
    """One task by which building from code would change something on a host."""

    host: str
    role: str
    task: str


@dataclass
class Triage:
    """All that one look at a site found; the screen and `--json` read nothing else."""

    site: str
    at: str = ""
    seconds: float = 0.0
    probes: list[ProbeResult] = field(default_factory=list)
    found: list[Finding] = field(default_factory=list)
    proposed: Plan = field(default_factory=lambda: Plan(()))
    refused: list[Refused] = field(default_factory=list)  # hosts that are not judged
    agenda: Agenda | None = None
    drift: list[Drift] = field(default_factory=list)
    texts: dict[tuple[str, str], list[str]] = field(default_factory=dict)  # host, path → how a file's text differs
    against: Baseline | None = None
    unseen: list[str] = field(default_factory=list)
    put_back: list[states.Item] = field(default_factory=list)  # what we took out of its usual state, such as the gate
    kept: list[Addition] = field(default_factory=list)
    packages: list[Altered] | None = None  # not as their packages brought them; None: not asked
    desired: list[Wanted] | None = None  # tasks by which building would change something; None: not asked
    since: str = ""  # when the earlier look was that this one is compared with
    new: list[str] = field(default_factory=list)  # findings that the earlier look did not have: host and id
    gone: list[str] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        """True when every probe is green, every host was judged, and nothing was found."""
        return all(item.passed for item in self.probes) and not self.found and not self.refused

    def as_data(self) -> dict[str, Any]:
        """Return everything for `--json`, schema 1.

        schema, site, at (UTC), seconds, healthy; probes: [{id, title, view, passed, seen, seconds, noted}]; findings:
        worst first, [{id, rule, host, subject, effect, cause, quote, remedy: [step], explains, symptom, because: id of
        the finding that explains it, or null}]; plan: [{host, role, step, kind, args, late, findings: [id]}]; refused:
        [{host, unreachable, why, fix}], hosts that are neither judged nor changed; baseline: {name, at} or null: drift
        was judged without one; drift: [{host, subject, before, after, near, changed,
        words, text: [line of the difference]}], before or after null where there is none; kept: [{host, subject,
        words}]; packages: [{host, path, package, what, conffile}], files that are not as their package brought them,
        and desired: [{host, role, task}], what building would change, both null unless --deep asked; unseen:
        [sentence]; put_back: [{item, words, close}], what stands so on purpose, and the command that ends it; agenda:
        what is scheduled and held, as `jobs list` has it; since, new, gone: against an earlier look, or "", [], [].
        """
        because = {id(item): cause.id for cause, symptoms in findings.fold(self.found) for item in symptoms}
        return {
            "schema": 1,
            "site": self.site,
            "at": self.at,
            "seconds": round(self.seconds, 2),
            "healthy": self.healthy,
            "probes": [asdict(item) for item in self.probes],
            "findings": [{**finding_data(item), "because": because.get(id(item))} for item in self.found],
            "plan": plan_data(self.proposed),
            "refused": [item.as_data() for item in self.refused],
            "baseline": {"name": self.against.name, "at": self.against.at.isoformat()} if self.against else None,
            "drift": [drift_data(item, self.texts) for item in self.drift],
            "kept": [asdict(item) for item in self.kept],
            "packages": None if self.packages is None else [asdict(item) for item in self.packages],
            "desired": None if self.desired is None else [asdict(item) for item in self.desired],
            "unseen": self.unseen,
            "put_back": [{"item": item.item, "words": item.words, "close": item.close} for item in self.put_back],
            "agenda": self.agenda.as_data() if self.agenda else None,
            "since": self.since,
            "new": self.new,
            "gone": self.gone,
        }


def finding_data(finding: Finding) -> dict[str, Any]:
    """Return a finding as plain data."""
    return {**asdict(finding), "id": finding.id, "effect": finding.effect.words}


def plan_data(proposed: Plan) -> list[dict[str, Any]]:
    """Return a plan as plain data: each step with the findings it should make vanish."""
    return [{**asdict(item.step), "findings": [finding.id for finding in item.findings]} for item in proposed.steps]


def drift_data(item: Drift, texts: Mapping[tuple[str, str], list[str]]) -> dict[str, Any]:
    """Return one difference from the baseline as plain data."""
    text = texts.get((item.host, item.subject), [])
    return {**asdict(item), "changed": item.changed, "words": item.words, "text": text}


def probe_all(
    site: Site,
    *,
    settle_s: float = 0.0,
    kinds: Sequence[str] = KINDS,
    report: Callable[[ProbeResult], None] = screen.probe_line,
) -> list[ProbeResult]:
    """Run every probe, directly and then through the load balancer; look again for `settle_s` while any is red.

    Behind a closed gate, where customers see the sorry page, only the direct kind says anything.
    """
    deadline = time.monotonic() + settle_s
    results: list[ProbeResult] = []
    for kind in kinds:
        while True:
            seen = probes.run_views(site, site.views(kind))
            if all(item.passed for item in seen) or time.monotonic() > deadline:
                break
            time.sleep(1)
        for item in seen:
            report(item)
        results += seen
    return results


def triage(site: Site, *, against: Baseline | None, since: datetime | None = None, deep: bool = False) -> Triage:
    """Look at a site and judge what is seen; nothing is changed, so only probes that leave nothing behind are run.

    With `deep` also compare it with its packages and with what building would make of it, which takes half a minute.
    """
    began = time.monotonic()
    done = Triage(site.name, datetime.now(UTC).isoformat(timespec="seconds"), against=against)
    harmless = [probe.id for probe in site.data.probes if not probe.effects]
    with ThreadPoolExecutor(1) as eyes:
        seen = eyes.submit(lambda: probes.run(site, "customer", harmless) if harmless else [])
        whole = against is not None
        looked = evidence(site, against=against, texts=whole, state=whole, packages=deep)
        done.probes = seen.result()
    told, done.refused, done.agenda = looked.hosts, looked.refused, looked.agenda
    done.found = findings.judge(told, against.hosts if against else None)
    done.unseen, done.kept = findings.unreadable(told), additions.find(told)
    if against:
        done.drift, done.texts = drifted(against, told)
        done.unseen += not_compared(against, told)
        done.found = findings.ordered([*done.found, *drift.failed(done.drift, told)])
    done.found = looked.not_on_purpose(done.found)
    done.drift, done.kept = looked.not_on_purpose(done.drift), looked.not_on_purpose(done.kept)
    done.proposed = plan.make(done.found, told)
    if deep:
        done.packages = packaged.find(told)
        done.desired, stopped = desired(site, done.refused)
        done.unseen += stopped
    if since:
        _compare(site, done, since)
    done.put_back = list(states.derive(store.journal(site).records()).items.values())
    done.seconds = time.monotonic() - began
    if done.probes:
        show.note_probes(site, "customer", done.probes)
    note_findings(site, done.found, done.unseen, done.kept, done.drift, done.refused)
    note_agenda(site, done.agenda)
    return done


def note_agenda(site: Site, seen: Agenda) -> None:
    """Write down what would go off before the last deadline: status shows it, and whoever asks later what was known."""
    store.journal(site).append("agenda", seen.brief())


def others(refused: Sequence[Refused]) -> str:
    """Return Ansible's limit to all hosts but these; "" where there are none."""
    return ":!".join(["all", *(item.host for item in refused)]) if refused else ""


def desired(site: Site, refused: Sequence[Refused] = ()) -> tuple[list[Wanted], list[str]]:
    """Return what building from code would change, and in sentences where it could not be tried to its end."""
    found: dict[Wanted, None] = {}
    with screen.run_progress("trying what building would change (changes nothing)") as progress:

        def listen(event: Event) -> None:
            if event.outcome == "changed":  # not shown as it comes: it was not
                found[Wanted(event.host, event.role, event.task)] = None
            else:
                progress(event)

        try:
            result = runner.run(site, "build-site.yml", verb="triage", check=True, limit=others(refused), listen=listen)
        except HikeshiError as problem:  # a variable is missing, say: what was seen of the hosts stands all the same
            return [], [f"what building would change: {problem.message}"]
    stopped = [
        f"{event.host}: what building would change after “{event.task}” of {event.role or 'a play'}: {event.message}"
        for event in result.failures
    ]
    if not result.ok and not stopped:
        stopped = [f"what building would change: {result.output[-400:]}"]
    return sorted(found, key=lambda item: item.host), stopped


def record(site: Site, *, why: str | None = None) -> Baseline:
    """Record the baseline; raise RefusedError while a probe is red or something is found, unless `why` says why."""
    with store.journal(site).action("baseline") as action:
        seen = probe_all(site, settle_s=SETTLE_S)
        before = baseline.newest(site)
        looked = evidence(site, against=before, texts=True, state=True)
        if looked.refused:  # half a site is no baseline
            raise looked.refused[0].problem
        told = looked.hosts
        found = findings.judge(told)
        wrong = [f"{item.view} · {item.title}: {item.seen}" for item in seen if not item.passed]
        wrong += [f"{item.host} · {item.cause}" for item in found]
        wrong += [f"{item.host} · {item.id} is held (hikeshi jobs release)" for item in looked.agenda.standing]
        wrong += looked.agenda.lost
        if wrong and why is None:
            lines = "\n".join(f"  {printable(line, 300)}" for line in wrong[:10])
            raise RefusedError(
                f"the site is not healthy, and a baseline says what healthy is:\n{lines}",
                "hikeshi recover; or, if that is how it should be: hikeshi baseline --force --why WHY",
            )
        made = baseline.keep(site, told, seen, before=before, healthy=not wrong, why=why or "")
        action.data.update(name=made.name, healthy=made.healthy, why_forced=made.why)
    return made


def drifted(against: Baseline, told: Evidence) -> tuple[list[Drift], dict[tuple[str, str], list[str]]]:
    """Return what differs from a baseline on all hosts, and how the texts of changed files differ."""
    found = [
        item
        for host in sorted(told)
        if host in against.hosts
        for item in drift.compare(
            host,
            against.hosts[host]["facts"],
            told[host]["state"]["facts"],
            told[host]["subjects"],
            told[host]["unseen"],
        )
    ]
    texts = {}
    for item in found:
        path = item.subject.partition(":")[2]
        if item.kind == "file" and "digest" in item.differences:
            then, now = against.text(item.host, path), told[item.host]["state"]["texts"].get(path)
            if now is not None and (then is not None or item.before is None):
                texts[item.host, item.subject] = drift.difference(then or "", now)
    return found, texts


def not_compared(against: Baseline, told: Evidence) -> list[str]:
    """Return, in sentences, the hosts that a baseline knows nothing of."""
    return [
        f"{host}: what was changed: it is not in the baseline" for host in sorted(told) if host not in against.hosts
    ]


def note_findings(
    site: Site,
    found: Sequence[Finding],
    unseen: Sequence[str],
    kept: Sequence[Addition],
    drifts: Sequence[Drift] = (),
    refused: Sequence[Refused] = (),
) -> None:
    """Write down what was found. Of drift the words are enough: texts of files do not belong into a journal."""
    data = {
        "found": [finding_data(item) for item in found],
        "unseen": unseen,
        "kept": [asdict(item) for item in kept],
        "drift": [{"host": item.host, "subject": item.subject, "words": item.words} for item in drifts],
        "refused": [item.as_data() for item in refused],
    }
    store.journal(site).append("findings", data)


def _compare(site: Site, done: Triage, since: datetime) -> None:
    """Say what is new and what is gone against the last look at or before a time."""
    looks = [item for item in store.journal(site).records() if item.kind == "findings" and item.time <= since]
    if not looks:
        raise RefusedError(
            f"nobody looked at site {site.name} at or before {since.astimezone(site.zone):%Y-%m-%d %H:%M}.",
            "hikeshi triage, without --since",
        )
    kept = looks[-1].data.get("found")
    silent = {item.host for item in done.refused}  # what was found there may still be
    earlier = {f"{item.get('host')} {item.get('id')}" for item in states.dicts(kept) if item.get("host") not in silent}
    now = {f"{item.host} {item.id}" for item in done.found}
    done.since = looks[-1].at
    done.new = sorted(now - earlier)
    done.gone = sorted(earlier - now)
