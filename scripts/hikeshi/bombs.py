"""What is scheduled on the site's hosts: listed on one clock, held before it goes off, and released exactly.

A small program on each host does what must be exact there (roles/scheduled_jobs); here is decided what is held, and the
journal told. Evidence is saved off the hosts before anything of them is held.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from hikeshi import exchange, lock, look, runner, screen
from hikeshi.errors import HikeshiError, RefusedError, UsageError
from hikeshi.incident import clock, permissions, saved, store
from hikeshi.incident import state as states
from hikeshi.look import Refused
from hikeshi.schedule.agenda import Agenda, Held
from hikeshi.schedule.job import Job
from hikeshi.site import Site

LIST, HOLD, RELEASE = "list-jobs.yml", "hold-jobs.yml", "release-jobs.yml"
ITEM = "jobs"  # of what must be put back
SHIELD_LEAST_S, SHIELD_MOST_S = 60, 86400  # as the program has them
_PROPER_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]{1,255}")
_SHOWN = 20  # jobs of a question
# What is taken out of reach first: one that is a timer may keep a unit from being held (systemd would be reloaded).
_ORDER = ("shutdown", "at", "timer", "cron", "periodic", "anacron", "apt", "unit")

Calls = Mapping[str, Sequence[Sequence[str]]]  # host → what its program is asked, one call after the other
Approve = Callable[[Sequence[str], str], bool]  # what is about to be done, in lines; and the question


@dataclass(frozen=True)
class Result:
    """What became of one job on a host; `result` and `why` are the program's words, `due` its next time."""

    host: str
    id: str
    result: str
    why: str = ""
    due: datetime | None = None
    missed: bool = False

    @property
    def failed(self) -> bool:
        """Whether it is not as it was wanted."""
        return self.result in ("failed", "refused")

    def as_data(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "host": self.host, "id": self.id, "result": self.result, "why": self.why,
            "due": self.due.isoformat() if self.due else None, "missed": self.missed,
        }  # fmt: skip


@dataclass
class Outcome:
    """All that one verb did and saw; the screen and `--json` read nothing else."""

    agenda: Agenda
    refused: list[Refused] = field(default_factory=list)  # hosts that nothing is known of
    asked: list[str] = field(default_factory=list)  # hosts: of a load balancer that is not ours nobody asks
    results: list[Result] = field(default_factory=list)
    shields: dict[str, bool] = field(default_factory=dict)  # host → whether reboots are refused now
    wrong: list[str] = field(default_factory=list)
    check: bool = False

    @property
    def ok(self) -> bool:
        """Whether every host was asked, and all became as wanted."""
        return not self.refused and not self.wrong and not any(item.failed for item in self.results)

    @property
    def changed(self) -> bool:
        """Whether anything was changed on a host."""
        return bool(self.shields) or any(item.result not in ("not there", "already held") and not item.failed
                                         for item in self.results)  # fmt: skip

    def as_data(self) -> dict[str, Any]:
        """Return everything for `--json`.

        ok, check, changed; results: [{host, id, result, why, due, missed}], result as the program says it: held,
        already held, exact, edited, came due, left stopped, gone, run, not there, refused, failed, would be held,
        would be released; shields: {host: whether reboots are refused}, of hosts where that was changed; refused, as
        triage has it; wrong: [sentence]; agenda: as it was before, see Agenda.as_data.
        """
        return {
            "ok": self.ok,
            "check": self.check,
            "changed": self.changed and not self.check,
            "results": [item.as_data() for item in self.results],
            "shields": self.shields,
            "refused": [item.as_data() for item in self.refused],
            "wrong": self.wrong,
            "agenda": self.agenda.as_data(),
        }


def _call(
    site: Site, playbook: str, calls: Calls, words: str, *, check: bool = False
) -> tuple[dict[str, Any], list[Refused]]:
    """Make calls on hosts; return what each host answered, and the hosts that answered nothing."""
    with exchange.folder(site, calls) as where, screen.run_progress(words) as progress:
        result = runner.run(
            site, playbook, verb="jobs", limit=",".join(calls), check=check, listen=progress,
            extra={"scheduled_jobs_exchange": str(where)},
        )  # fmt: skip
        answers, refused = {}, look.silent(result)
        silent = {item.host for item in refused}
        for host in result.returned.keys() - silent:
            try:
                answers[host] = exchange.answer(where, host, "what became of its jobs")
            except HikeshiError as problem:
                refused.append(Refused(host, problem))
    return answers, sorted(refused, key=lambda item: item.host)


def agenda(site: Site, until: datetime | None = None) -> Outcome:
    """Look at what is scheduled on every host; changes nothing."""
    calls = {host: [["collect"]] for host in site.hosts()}
    answers, refused = _call(site, LIST, calls, "reading what is scheduled (changes nothing)")
    if refused and not answers:
        raise refused[0].problem
    told = {item.host: None for item in refused} | {host: words[0] for host, words in answers.items()}
    seen = look.agenda_of(site, told, until)
    look.note_agenda(site, seen)
    return Outcome(seen, refused, asked=sorted(told), wrong=list(seen.lost))


# What is meant


def choose(seen: Agenda, ids: Sequence[str], host: str) -> list[Job]:
    """Return the jobs that are meant: those named, else all that may go off until the end and are not kept."""
    known = [job for job in seen.jobs if not host or job.host == host]
    if not ids:
        return [job for job in seen.bombs if not host or job.host == host]
    return [_named(ident, known, host) for ident in dict.fromkeys(ids)]


def _named(ident: str, known: Sequence[Any], host: str) -> Any:
    """Return the one thing of that id, a job or a held one."""
    found = [item for item in known if item.id == ident]
    if len(found) > 1:
        hosts = ", ".join(sorted(item.host for item in found))
        raise UsageError(f"'{ident}' is on several hosts: {hosts}.", f"name one: --host {found[0].host}")
    if not found:
        near = [item.id for item in known if ident and ident in item.id][:5]
        also = f"; like it: {', '.join(near)}" if near else ""
        raise UsageError(f"there is no '{ident}'{f' on {host}' * bool(host)}{also}.", "hikeshi jobs list --verbose")
    return found[0]


def _by_host(items: Iterable[Any]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for item in items:
        found.setdefault(item.host, []).append(item)
    return found


def _told(ident: str, due: datetime | None) -> str:
    """Return an id with its next time, as the program takes them; 0 where no clock says: an id may end in =NUMBER."""
    return f"{ident}={due.timestamp() if due else 0:.0f}"


def _results(host: str, told: Any) -> list[Result]:
    """Return what a host says became of its jobs; hosts may say anything."""
    found = []
    for item in states.dicts(told.get("jobs") if isinstance(told, dict) else None):
        due = item.get("due")
        at = datetime.fromtimestamp(due, UTC) if isinstance(due, int | float) and 0 < due < 1e11 else None
        words = [str(item.get(key, ""))[:2000] for key in ("id", "result", "why")]
        found.append(Result(host, words[0], words[1], words[2], at, missed=bool(item.get("missed"))))
    return found


# Holding


def hold(
    site: Site, *, approve: Approve, ids: Sequence[str] = (), host: str = "", until: datetime | None = None,
    shield: bool = True, check: bool = False,
) -> Outcome:  # fmt: skip
    """Hold jobs until they are released, with the customer's permission; refuse reboots on their hosts meanwhile."""
    with lock.held(site, "jobs hold"):
        _known_host(site, host)
        done = agenda(site, until)
        _asked_host(done, host)
        jobs = choose(done.agenda, ids, host)
        if not jobs:
            return done
        if check:
            done.check = True
            _hold(site, done, jobs, shield_s=0, check=True)
            return done
        _refuse_unallowed(site, jobs)
        if not approve(lines(jobs, done.agenda, site), f"Hold {count(jobs)}?"):
            raise RefusedError("nothing was changed: holding was not approved.", "hikeshi jobs hold --yes")
        hold_jobs(site, done, jobs, shield=shield)
    return done


def hold_jobs(
    site: Site, done: Outcome, jobs: Sequence[Job], *, shield: bool = True, recovery: int | None = None
) -> None:
    """Save evidence, hold jobs, and let the journal tell what. Whoever calls holds the site's lock.

    `recovery` is the number of the recovery that holds them: what a person held, only a person releases.
    """
    hosts = sorted({job.host for job in jobs})
    _refuse_unallowed(site, jobs)
    saved.save_before(site, hosts, _units(jobs), f"hold {count(jobs)}")
    permissions.require(site, "hold-jobs", _action(jobs))  # used up by what is done, not by what could not be begun
    journal = store.journal(site)
    before = held_open(site)
    if before is not None and recovery is not None and before.record.data.get("recovery") is None:
        recovery = None
    with journal.action("jobs", {"step": "hold", "count": len(jobs)}) as action:
        action.data["step"] = "hold"
        # Written first: whoever comes after a crash must know what to put back.
        _note_open(site, f"jobs are being held on {', '.join(hosts)}", recovery)
        seconds = (done.agenda.until - datetime.now(UTC)).total_seconds()
        _hold(site, done, jobs, shield_s=seconds if shield else 0)
        took = [item for item in done.results if item.result in ("held", "already held")]
        lost = [f"{item.host} · {item.id}: {item.result}: {item.why}" for item in done.results if item not in took]
        journal.append(
            "jobs.held",
            {"jobs": [_record(item, jobs) for item in done.results], "until": clock.write(done.agenda.until)},
        )
        if took or done.agenda.standing:
            _note_open(site, f"{len(took) + _held_besides(done, took)} jobs are held on {', '.join(hosts)}", recovery)
        elif not done.refused and before is None:
            journal.append("item.closed", {"item": ITEM, "words": "nothing could be held"})
        if lost or done.refused or done.wrong:
            action.failed("; ".join([*lost, *(item.problem.message for item in done.refused), *done.wrong])[:2000])


def hold_on_disk(
    site: Site, copy_id: str, seen: Agenda, jobs: Sequence[Job],
    call: Callable[[Sequence[Sequence[str]]], Sequence[Any]], recovery: int | None = None,
) -> list[Result]:  # fmt: skip
    """Hold jobs on the disk of a copy, before it boots, with the customer's permission; the journal is told as ever.

    `call` has the program that holds make its calls there. Nothing is saved before: the copy itself keeps all of it. No
    reboot is refused, for nothing runs. A copy that was begun with is gone on with by the same permission.
    """
    if not permissions.used_for(store.journal(site).records(), "hold-jobs", copy_id):
        permissions.require(site, "hold-jobs", f"{_action(jobs)}, on the disk of copy {copy_id}")
    journal, hosts = store.journal(site), ", ".join(sorted({job.host for job in jobs}))
    with journal.action("jobs", {"step": "hold", "count": len(jobs)}) as action:
        action.data["step"] = "hold"
        where = f"on the disk of copy {copy_id} of {hosts}, as soon as that runs"
        _note_open(site, f"jobs are being held {where}", recovery, copy_id)
        words = [_told(job.id, job.next) for job in sorted(jobs, key=lambda job: _ORDER.index(job.kind))]
        results = [item for told in call([["hold", *words]]) for item in _results(hosts, told)]
        journal.append(
            "jobs.held", {"jobs": [_record(item, jobs) for item in results], "until": clock.write(seen.until)}
        )
        took = [item for item in results if item.result in ("held", "already held")]
        _note_open(site, f"{len(took) + len(seen.standing)} jobs are held {where}", recovery, copy_id)
        if lost := [f"{item.id}: {item.result}: {item.why}" for item in results if item not in took]:
            action.failed("; ".join(lost)[:2000])
    return results


def _refuse_unallowed(site: Site, jobs: Sequence[Job]) -> None:
    """Refuse, saying what to ask the customer, before anybody is asked anything; uses nothing up."""
    permissions.take_over_standing(site, store.journal(site))
    if why_not(site):
        permissions.require(site, "hold-jobs", _action(jobs))


def _action(jobs: Sequence[Job]) -> str:
    return f"hold {count(jobs)} on {', '.join(sorted({job.host for job in jobs}))}"


def _held_besides(done: Outcome, took: Sequence[Result]) -> int:
    ours = {(item.host, item.id) for item in took}
    return sum((item.host, item.id) not in ours for item in done.agenda.standing)


def _hold(site: Site, done: Outcome, jobs: Sequence[Job], *, shield_s: float, check: bool = False) -> None:
    calls: dict[str, list[list[str]]] = {}
    for host, mine in _by_host(sorted(jobs, key=lambda job: _ORDER.index(job.kind))).items():
        calls[host] = [["hold", *(_told(job.id, job.next) for job in mine)]]
        if shield_s:
            calls[host].append(["shield", "on", f"{min(SHIELD_MOST_S, max(SHIELD_LEAST_S, shield_s)):.0f}"])
    answers, refused = _call(site, HOLD, calls, f"holding {count(jobs)}", check=check)
    done.refused = _merged(done.refused, refused)
    for host, told in sorted(answers.items()):
        done.results += _results(host, told[0])
        if len(told) > 1:
            on = done.shields[host] = isinstance(told[1], dict) and told[1].get("on") is True
            if not on:
                done.wrong.append(f"{host} does not refuse reboots")


def _merged(one: Sequence[Refused], two: Sequence[Refused]) -> list[Refused]:
    return sorted({item.host: item for item in (*one, *two)}.values(), key=lambda item: item.host)


def _units(jobs: Iterable[Job]) -> list[str]:
    """Return the units whose log tells what jobs did before; of hostile names nothing is asked."""
    daemons = {"at": "atd.service", "cron": "cron.service", "periodic": "cron.service", "anacron": "anacron.service"}
    units = {daemons[job.kind] for job in jobs if job.kind in daemons}
    units |= {job.id.partition(":")[2] for job in jobs if job.kind in ("timer", "unit")}
    return sorted(unit for unit in units if _PROPER_UNIT.fullmatch(unit))


def _record(item: Result, jobs: Iterable[Job]) -> dict[str, Any]:
    """Return one result for the journal, with what the job would have done: its body is gone from the host's tables."""
    job = next((job for job in jobs if (job.host, job.id) == (item.host, item.id)), None)
    about = {"does": job.does, "runs": job.first_line, "grave": job.grave} if job else {}
    return {**item.as_data(), **about}


# Releasing


def release(
    site: Site, *, approve: Approve, ids: Sequence[str] = (), host: str = "", run: str = "", check: bool = False
) -> Outcome:
    """Put back what is held, all of it or what is named; nothing that came due is run, unless `run` names it."""
    with lock.held(site, "jobs release"):
        _known_host(site, host)
        done = agenda(site)
        done.check = check
        _asked_host(done, host)
        meant = {host} if host else set(done.asked)
        known = [item for item in done.agenda.held if item.host in meant]
        if run:
            chosen = [_named(run, known, host)]
            question = f"Run {chosen[0].id} on {chosen[0].host} now?"
        else:
            chosen = [_named(ident, known, host) for ident in dict.fromkeys(ids)] if ids else known
            question = f"Put {len(chosen)} jobs back?"
        shields = [] if ids or run else sorted(done.agenda.shields.keys() & meant)
        if not chosen and not shields:
            note_closed(site, done)
            return done
        if not check and not approve(held_lines(chosen, done.agenda, site), question):
            raise RefusedError("nothing was changed: it was not approved.", "hikeshi jobs release --yes")
        release_jobs(site, done, chosen, run=bool(run), shields=shields, check=check)
    return done


def release_jobs(
    site: Site, done: Outcome, chosen: Sequence[Held], *, run: bool = False, shields: Sequence[str] = (),
    check: bool = False,
) -> None:  # fmt: skip
    """Put held jobs back, and take the shield off hosts; the journal tells what came due meanwhile."""
    mine = _by_host(chosen)
    calls: dict[str, list[list[str]]] = {host: [] for host in sorted({*mine, *shields})}
    for host, made in calls.items():
        held = mine.get(host, [])
        if host in shields and host in done.agenda.shields:
            made.append(["shield", "off"])  # first: a shutdown that was held could not be scheduled again
        if held and run:
            made.append(["release", "--run", held[0].id])
        elif held:
            made.append(["release", *(_told(item.id, item.due) for item in held)])
    calls = {host: made for host, made in calls.items() if made}
    if not calls:
        return
    words = f"releasing {len(chosen)} jobs"
    if check:
        _release(site, done, calls, words, check=True)
        return
    journal = store.journal(site)
    step = "run" if run else "release"
    with journal.action("jobs", {"step": step, "count": len(chosen)}) as action:
        action.data["step"] = step
        _release(site, done, calls, words)
        journal.append("jobs.released", {"jobs": [item.as_data() for item in done.results]})
        wrong = [f"{item.host} · {item.id}: {item.why}" for item in done.results if item.failed]
        if wrong or done.refused:
            action.failed("; ".join([*wrong, *(item.problem.message for item in done.refused)])[:2000])
        note_closed(site, done)


def _release(site: Site, done: Outcome, calls: Calls, words: str, *, check: bool = False) -> None:
    answers, refused = _call(site, RELEASE, calls, words, check=check)
    done.refused = _merged(done.refused, refused)
    for host, told in sorted(answers.items()):
        for call, answer in zip(calls[host], told, strict=False):
            if call[0] == "shield":
                done.shields[host] = isinstance(answer, dict) and answer.get("on") is True
            else:
                done.results += _results(host, answer)


def let_reboot(site: Site, host: str, *, check: bool = False) -> Outcome:
    """Take the shield off a host so that it can be rebooted, with the customer's permission; its jobs stay held."""
    _known_host(site, host, "--reboot")
    with lock.held(site, "jobs release"):
        done = agenda(site)
        done.check = check
        _asked_host(done, host)
        if host not in done.agenda.shields:
            return done
        if not check:
            permissions.require(site, "reboot", f"let {host} be rebooted")
        release_jobs(site, done, (), shields=(host,), check=check)
    return done


def _known_host(site: Site, host: str, option: str = "--host") -> None:
    """Refuse what is no host of the site, before anybody is asked; "" is all of them."""
    if host and host not in (known := site.hosts()):
        raise UsageError(f"{option} is {host!r}; allowed: {', '.join(known)}.")


def _asked_host(done: Outcome, host: str) -> None:
    """Refuse a host of which nobody asks what is scheduled."""
    if host and host not in done.asked:
        raise UsageError(f"nobody looks at what is scheduled on {host}; looked at: {', '.join(done.asked)}.")


# What the journal knows


def held_open(site: Site) -> states.Item | None:
    """Return what the journal says of jobs that are to be put back; None when it knows of none."""
    return states.derive(store.journal(site).records()).items.get(ITEM)


def why_not(site: Site) -> str:
    """Return why the customer's permission does not allow holding; empty when it does. Uses nothing up."""
    decision = permissions.ledger(store.journal(site).records()).get("hold-jobs")
    return decision.why_not(datetime.now(UTC), zone=site.zone) if decision else "nobody has allowed it"


def _note_open(site: Site, words: str, recovery: int | None, copy_id: str = "") -> None:
    """Write what is to be put back; `copy_id` where all of it is on the disk of a copy, and is gone with that."""
    data = {"item": ITEM, "words": words, "close": f"hikeshi jobs release --site {site.name}"}
    if copy_id and (before := held_open(site)) and before.record.data.get("copy") != copy_id:
        data["words"], copy_id = f"{before.words.partition('; ')[0]}; {words}", ""
    data |= {"copy": copy_id} if copy_id else {}
    store.journal(site).append("item.opened", data if recovery is None else {**data, "recovery": recovery})


def gone_with(site: Site, copy_id: str) -> None:
    """Write that nothing is to be put back, where all that is held was on the disk of a copy that is removed."""
    before = held_open(site)
    if before is not None and before.record.data.get("copy") == copy_id:
        words = "the disk on which they were held is removed; the host never ran from it, or does not any more"
        store.journal(site).append("item.closed", {"item": ITEM, "words": words})


def note_closed(site: Site, done: Outcome) -> None:
    """Write that nothing has to be put back any more, when that is so; a job of at that came due stays kept."""
    gone = {(item.host, item.id) for item in done.results if not item.failed}
    left = [item for item in done.agenda.standing if (item.host, item.id) not in gone]
    opened = held_open(site)
    if opened is None or done.refused or done.agenda.untold:
        return
    words = [f"{len(left)} jobs are held on {', '.join(sorted({item.host for item in left}))}"] if left else []
    words += [f"{len(done.agenda.lost)} held jobs must be put back by hand"] if done.agenda.lost else []
    if words:
        _note_open(site, "; ".join(words), opened.record.data.get("recovery"))
        return
    due = {(item.host, item.id) for item in done.agenda.kept_back}
    due -= {(item.host, item.id) for item in done.results if item.result == "run"}
    due |= {(item.host, item.id) for item in done.results if item.result == "came due"}
    kept = f"; kept, because they came due and were not run: {len(due)}" if due else ""
    with suppress(HikeshiError):  # they are back; a full disk must not make a failure of that
        store.journal(site).append("item.closed", {"item": ITEM, "words": f"no job is held any more{kept}"})


# Words


def count(jobs: Sequence[Any]) -> str:
    """Return how many jobs, in words."""
    return "1 scheduled job" if len(jobs) == 1 else f"{len(jobs)} scheduled jobs"


def lines(jobs: Sequence[Job], seen: Agenda, site: Site) -> list[str]:
    """Return a line for each job that is about to be held."""
    told = [
        f"{clock.said(job.next, site.zone, seen.now) if job.next else 'on an event'} · {job.host} · {job.does} · "
        f"{job.first_line[:100]} ({job.id})"
        for job in jobs[:_SHOWN]
    ]
    return told + [f"… and {len(jobs) - _SHOWN} more"] * (len(jobs) > _SHOWN)


def held_lines(held: Sequence[Held], seen: Agenda, site: Site) -> list[str]:
    """Return a line for each job that is about to be put back, those first that would still go off before the end."""

    def words(item: Held) -> str:
        if item.due is None:
            return f"{item.host} · {item.id}"
        at = clock.said(item.due, site.zone, seen.now)
        if item.missed(seen.now):
            return f"{item.host} · {item.id} · came due {at}, is not run"
        return f"{item.host} · {item.id} · goes off {at}" + (", before the last deadline" * (item.due < seen.until))

    told = [words(item) for item in held[:_SHOWN]]
    return told + [f"… and {len(held) - _SHOWN} more"] * (len(held) > _SHOWN)
