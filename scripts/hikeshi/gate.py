"""The gate: the load balancer's health check, closed so that customers see the sorry page, and opened again.

The upper half is pure: which steps in which order, how long the load balancer may take, what is missing, in words. The
lower half drives: one run of Ansible for each step, and in between it looks from outside, as a customer does.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, tzinfo
from typing import Any

from hikeshi import lock, probes, runner, screen
from hikeshi.errors import ExitStatus, HikeshiError, MisconfiguredError, RefusedError, UnreachableError
from hikeshi.incident import permissions, show, store
from hikeshi.incident import state as states
from hikeshi.probes import ProbeFailure, ProbeResult
from hikeshi.runner import Event, RunResult
from hikeshi.site import Site, SorryPage, shown

ITEM = "gate"
SHOW, HIDE = "show-sorry-page.yml", "hide-sorry-page.yml"
INPUTS = "group_vars/web_servers/health_check_gate.yml"
REFUSED = "gate refused: "  # how the role begins what it will not do
ALIKE = 3  # looks in a row that must say the same: several balancers may answer for one name
PAUSE_S = 0.3  # between two looks
GRACE_S = 15.0  # beyond the load balancer's own time, before we give up

Status = Mapping[str, Any]  # what the host's program says, see files/gate.py of role health_check_gate


@dataclass(frozen=True)
class About:
    """What the site's data say of the load balancer and its check."""

    lb_kind: str
    what: str
    verified: bool
    check: str
    interval: float
    timeout: float
    fall: int
    rise: int


def about_of(data: Mapping[str, Any]) -> About:
    """Return what a host's variables say, as the role hands it on."""
    return About(
        str(data["lb_kind"]), str(data["what"]), bool(data["verified"]), str(data["check"]),
        float(data["interval"]), float(data["timeout"]), int(data["fall"]), int(data["rise"]),
    )  # fmt: skip


def closing(about: About) -> tuple[str, ...]:
    """Return the steps of closing; where nothing can be drained, a host that is asked to drain blocks at once."""
    return ("drain", "wait", "block", "prove") if about.check == "http" else ("drain", "wait", "prove")


def opening(about: About) -> tuple[str, ...]:
    """Return the steps of opening."""
    return ("unblock", "undrain", "wait", "prove") if about.check == "http" else ("unblock", "wait", "prove")


def worst_seconds(about: About, *, opens: bool = False) -> float:
    """Return how long the load balancer may take to notice: the next check comes up to an interval later."""
    checks = about.rise if opens else about.fall
    return about.interval * checks + (about.timeout if about.check == "icmp" else 0.0)


def worst_words(about: About, *, opens: bool = False) -> str:
    """Return the same for people."""
    seconds, what = worst_seconds(about, opens=opens), "the shop" if opens else "the sorry page"
    count = about.rise if opens else about.fall
    words = (
        f"{what} shows within {seconds:.0f} s: {about.lb_kind} asks every {about.interval:g} s and wants {count} alike"
    )
    return words if about.verified else f"{words}; nobody has verified that it {about.what}: trust what you see"


def missing(hosts: Mapping[str, Status], *, closed: bool, may_drain: bool = False) -> list[str]:
    """Return in words what keeps the hosts from being all closed, or all open; empty when they are.

    With `may_drain` one is open enough that only answers the check 503.
    """
    found = []
    for host, seen in sorted(hosts.items()):
        for family, one in sorted(seen["families"].items()):
            if not one["stands"]:
                found.append(f"{host}: chain, jump or set of {family} is missing")
            elif one["closed"] != (closed and one["needed"]):
                found.append(f"{host}: {family} is {'closed' if one['closed'] else 'open'}")
        if not closed and seen["drained"] and not may_drain:
            found.append(f"{host}: nginx still answers the check 503")
        if seen["drained"] and not seen["drain_ends_by_itself"]:
            found.append(f"{host}: a drain stands that no timer ends")
    return found


def amiss(hosts: Mapping[str, Status]) -> list[str]:
    """Return in words what does not stand as it was meant: somebody flushed our chain, say; empty where all does."""
    meant = any(seen["since"] is not None and seen["gate"] != "drained" for seen in hosts.values())
    return missing(hosts, closed=meant or state_of(hosts) == "half", may_drain=True)


def state_of(hosts: Mapping[str, Status]) -> str:
    """Return the whole gate in one word: open, drained, closed, or half."""
    seen = {str(status["gate"]) for status in hosts.values()}
    return seen.pop() if len(seen) == 1 else "half"


def until(hosts: Mapping[str, Status]) -> float | None:
    """Return when all of them have opened by themselves; None when one never does, or none is closed."""
    ends = [seen["until"] for seen in hosts.values() if seen["gate"] != "open"]
    return None if not ends or None in ends else max(ends)


def until_words(until: float | None, zone: tzinfo) -> str:
    """Return until when it is closed, for people."""
    return "until somebody opens it" if until is None else f"until {datetime.fromtimestamp(until, zone):%H:%M:%S %Z}"


def told(hosts: Mapping[str, Status], zone: tzinfo) -> list[str]:
    """Return a status for people, a line for each host and family."""
    lines = []
    for host, seen in sorted(hosts.items()):
        head = f"{host}: {seen['gate']}, check {seen['check']}, iptables on {seen['backend']}"
        if seen["since"] is not None:
            since = datetime.fromtimestamp(seen["since"], zone)
            head += f", since {since:%H:%M:%S} by {seen['by'] or 'somebody'}, {until_words(seen['until'], zone)}"
        lines.append(head)
        for family, one in sorted(seen["families"].items()):
            word = "closed" if one["closed"] else "open"
            words = [word if one["needed"] else f"{word} (the check does not come over it)"]
            words += [] if one["stands"] else ["chain, jump or set is missing"]
            words += [f"{one['packets']} packets refused"]
            words += [f"{address} for {seconds or 'ever'} s" for address, seconds in sorted(one["entries"].items())]
            lines.append(f"  {family}: {', '.join(words)}")
        if seen["others"]:
            lines.append(
                f"  also keep rules here: {', '.join(seen['others'])} (the jump is put back after their reload)"
            )
    return lines


@dataclass(frozen=True)
class Look:
    """What one view of the customer shows."""

    view: str
    sorry: bool
    seen: str


@dataclass
class Outcome:
    """All that a verb did; the page and `--json` read nothing else."""

    hosts: dict[str, Status] = field(default_factory=dict)
    about: About | None = None
    changed: bool = False
    looks: list[Look] = field(default_factory=list)
    probes: list[ProbeResult] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether everything is as it was meant."""
        return not self.wrong

    @property
    def balancer(self) -> About:
        """The load balancer; known from the first step on, whichever it is."""
        if self.about is None:
            raise HikeshiError("no host has told how its load balancer checks it.", "hikeshi sorry status")
        return self.about

    def as_data(self) -> dict[str, Any]:
        """Return everything for `--json`."""
        return {
            "ok": self.ok,
            "gate": state_of(self.hosts) if self.hosts else None,
            "changed": self.changed,
            "worst_close_s": worst_seconds(self.about) if self.about else None,
            "worst_open_s": worst_seconds(self.about, opens=True) if self.about else None,
            "hosts": self.hosts,
            "seen": [asdict(item) for item in self.looks],
            "probes": [asdict(item) for item in self.probes],
            "wrong": self.wrong,
        }


# Looking from outside


def page_of(site: Site) -> SorryPage:
    """Return how the site's sorry page is known."""
    if site.data.sorry is None:
        raise MisconfiguredError(
            f"{shown(site.folder)}/site.yml does not say how the sorry page is known: key `sorry` is missing.",
            f"add to {shown(site.folder)}/site.yml a line like: sorry: {{contains: [words that stand on it]}}",
        )
    return site.data.sorry


def look(site: Site, view: str, proxy: str | None) -> Look:
    """Ask once, as a new visitor."""
    page = page_of(site)
    with probes.visitor(site, site.data.views[view], proxy) as visitor:
        try:
            answer = visitor.fetch("GET", page.path)
        except ProbeFailure as failure:
            return Look(view, sorry=False, seen=str(failure))
    lacks = [words for words in page.contains if words not in answer.text]
    if answer.status_code != page.status:
        return Look(view, sorry=False, seen=f"answered {answer.status_code}")
    if lacks:
        return Look(view, sorry=False, seen=f"answered {answer.status_code} without “{lacks[0]}”")
    later = answer.headers.get("retry-after", "")
    if page.retry_after and not later:
        return Look(view, sorry=False, seen="shows the sorry page without Retry-After")
    return Look(view, sorry=True, seen=f"{answer.status_code}, Retry-After {later or 'none'}")


def looks(site: Site) -> list[Look]:
    """Look once at every view of the customer."""
    found = []
    for view in site.views("customer"):
        with probes.tunnel(site, site.data.views[view]) as proxy:
            found.append(look(site, view, proxy))
    return found


def wait_for(site: Site, seconds: float, *, sorry: bool) -> Look:
    """Look until customers see what is wanted, several times in a row; return the last look, right or not."""
    deadline, alike = time.monotonic() + seconds, 0
    with probes.tunnel(site, site.data.views["customer"]) as proxy:
        while True:
            seen = look(site, "customer", proxy)
            alike = alike + 1 if seen.sorry == sorry else 0
            if alike >= ALIKE or time.monotonic() > deadline:
                return seen
            time.sleep(PAUSE_S)


# One step


def _step(
    site: Site, playbook: str, step: str, done: Outcome, *, check: bool = False, quiet: bool = False, **extra: Any
) -> None:
    """Take one step on every web server; note what stands then. Raise HikeshiError where one did not take it."""
    with nullcontext(_unheard) if quiet else screen.run_progress(f"the gate: {step}") as progress:

        def listen(event: Event) -> None:
            if event.data.get("about") and done.about is None:
                done.about = about_of(event.data["about"])
                if step in ("drain", "block"):
                    screen.say(screen.line(worst_words(done.about), 400))
            if (event.data.get("gate") or {}).get("families"):
                done.hosts[event.host] = event.data["gate"]
            done.changed = done.changed or event.outcome == "changed"
            progress(event)

        result = runner.run(
            site, playbook, verb=f"sorry {step}", extra={"sorry_page_step": step, **extra}, check=check, listen=listen
        )
    if not result.ok:
        raise _failure(site, step, result)
    if not done.hosts:
        raise MisconfiguredError(
            f"site {site.name} has no web server of its own on which a gate could be closed.",
            f"say how its load balancer checks it, in {shown(site.folder)}/{INPUTS} (inventories/example has one to "
            f"copy), then: hikeshi build --site {site.name}",
        )


def _unheard(event: Event) -> None:
    pass


def _failure(site: Site, step: str, result: RunResult) -> HikeshiError:
    """Return what a failed step means for the operator."""
    first = result.failures[0]
    where, words = first.host, first.message
    if result.unreachable:
        return UnreachableError(
            f"{where} cannot be reached to {step} the gate: {words}", f"hikeshi triage --site {site.name}"
        )
    if REFUSED in words:
        return RefusedError(f"{where}: {words.partition(REFUSED)[2]}", f"hikeshi sorry status --site {site.name}")
    if result.exit_status == ExitStatus.MISCONFIGURED:
        return MisconfiguredError(f"{where}: {words}", f"mend {shown(site.folder)}/{INPUTS}")
    return HikeshiError(
        f"{where}: the step {step} failed: {words}",
        f"hikeshi sorry status --site {site.name}; where no gate was ever installed: hikeshi build --site {site.name}",
    )


def _bounds(minutes: int | None, *, never: bool) -> dict[str, Any]:
    """Return the role's inputs that say for how long."""
    chosen: dict[str, Any] = {} if minutes is None else {"health_check_gate_minutes": minutes}
    return {**chosen, "health_check_gate_never_expires": True} if never else chosen


# The verbs


def on(
    site: Site, *, approve: Callable[[], bool], minutes: int | None = None, never: bool = False, check: bool = False
) -> Outcome:
    """Close the gate until customers see the sorry page; a closed one stays closed for longer."""
    page_of(site)
    done = Outcome()
    with lock.held(site, "sorry on"):
        if check:
            _step(site, SHOW, "drain", done, check=True, **_bounds(minutes, never=never))
            return done
        if not approve():
            raise RefusedError("nothing was changed: closing was not approved.", "hikeshi sorry on --yes")
        close(site, done, minutes=minutes, never=never)
    return done


def close(
    site: Site, done: Outcome, *, minutes: int | None = None, never: bool = False, recovery: int | None = None
) -> None:
    """Close it, or keep it closed for longer, with the customer's permission. Whoever calls holds the site's lock.

    `recovery` is the number of the recovery that closes it: what a person closed, only a person opens.
    """
    bounds = _bounds(minutes, never=never)
    journal = store.journal(site)
    renews = left_open(site) is not None
    _allowed(site, again=renews)
    with journal.action("gate", {"step": "on", "minutes": minutes, "never": never}) as action:
        # Written first: whoever comes after a crash must know what to open.
        _note_opened(site, "the gate is being closed", recovery)
        try:
            _close(site, done, bounds)
        except HikeshiError as problem:
            if not renews:  # a closing that cannot be renewed still stands, and whoever works behind it needs it
                _back(site, done, problem)
            raise
        action.data.update(gate=state_of(done.hosts), changed=done.changed)
        if done.wrong:
            action.failed("; ".join(done.wrong))
        end = until(done.hosts)
        _note_opened(site, f"the gate is closed {until_words(end, site.zone)}", recovery, end)


def _close(site: Site, done: Outcome, bounds: Mapping[str, Any]) -> None:
    # Only the host knows how it is checked. A drain of what is closed does nothing but look.
    _step(site, SHOW, "drain", done, **bounds)
    patience = worst_seconds(done.balancer) + GRACE_S
    was_closed = done.balancer.check == "http" and state_of(done.hosts) == "closed"
    for step in closing(done.balancer)[1:]:
        if step == "block":
            _step(site, SHOW, "block", done, **bounds)
        elif step == "wait" and not was_closed:
            screen.say("waiting until customers see the sorry page")
            seen = wait_for(site, patience, sorry=True)
            if not seen.sorry:
                raise HikeshiError(
                    f"{patience:.0f} s after its check was closed the load balancer shows no sorry page: {seen.seen}.",
                    "see whether the check comes from the addresses named in health_check_gate.yml, and whether the "
                    f"load balancer has a sorry page at all; hikeshi sorry status --site {site.name}",
                )
    done.looks = looks(site)
    done.wrong = missing(done.hosts, closed=True)
    done.wrong += [f"view {item.view} shows no sorry page: {item.seen}" for item in done.looks if not item.sorry]


def _back(site: Site, done: Outcome, problem: HikeshiError) -> None:
    """Open again what a failed closing left; what cannot be opened opens by itself."""
    if isinstance(problem, RefusedError) and all(seen["gate"] == "open" for seen in done.hosts.values()):
        note_closed(site, "closing was refused; the gate is open")
        return
    screen.say("closing failed; opening again")
    again = Outcome()
    try:
        for step in ("unblock", "undrain"):
            _step(site, HIDE, step, again)
        note_closed(site, "closing failed; the gate is open again")
    except HikeshiError as worse:
        problem.add_note(worse.message)
        screen.say(f"it opens by itself at its expiry: {screen.line(worse.message, 300)}")


def off(site: Site, *, force: bool = False, check: bool = False) -> Outcome:
    """Open the gate once the shop works behind it, and prove it through the load balancer."""
    page_of(site)
    done = Outcome()
    with lock.held(site, "sorry off"):
        _step(site, SHOW, "status", done)
        if state_of(done.hosts) == "open":
            note_closed(site, "the gate is open")
            return done
        if check:
            _step(site, HIDE, "unblock", done, check=True)
            return done
        if not force:
            _prove_direct(site, done)
        let_in(site, done, force=force, prove=lambda: _prove(site, done))
    return done


def let_in(site: Site, done: Outcome, *, force: bool = False, prove: Callable[[], None] = lambda: None) -> None:
    """Open it, and wait until customers see the shop again. Whoever calls holds the site's lock."""
    with store.journal(site).action("gate", {"step": "off", "force": force}) as action:
        _open(site, done)
        prove()
        action.data.update(gate=state_of(done.hosts), changed=done.changed)
        if done.wrong:
            action.failed("; ".join(done.wrong))
        if not missing(done.hosts, closed=False):
            note_closed(site, "the gate is open again")


def _prove_direct(site: Site, done: Outcome) -> None:
    """Refuse to open on a shop that does not work behind the gate."""
    screen.say("looking past the load balancer")
    found = probes.run(site, "direct", report=screen.probe_line)
    show.note_probes(site, "direct", found)
    red = [item for item in found if not item.passed]
    if red:
        done.probes = found
        raise RefusedError(
            f"the shop does not work behind the gate: {red[0].title}: {red[0].seen}. The sorry page stays.",
            f"hikeshi recover --site {site.name}; to open all the same: hikeshi sorry off --force --site {site.name}",
        )


def _open(site: Site, done: Outcome) -> None:
    screen.say(screen.line(worst_words(done.balancer, opens=True), 400))
    _step(site, HIDE, "unblock", done)
    # The self-test: nothing is refused any more, in either family, before the load balancer is let in.
    shut = missing(done.hosts, closed=False, may_drain=True)
    if shut:
        raise HikeshiError(
            f"the gate does not open: {'; '.join(shut)}.", f"hikeshi sorry off --force --site {site.name}"
        )
    for host, seen in done.hosts.items():
        if seen["check"] == "http" and not seen["drained"]:
            screen.say(
                f"{screen.line(host)} could not be drained first, so it opened in one step; a full disk does that: "
                f"hikeshi triage --site {site.name}"
            )
    _step(site, HIDE, "undrain", done)
    screen.say("waiting until customers see the shop")
    wait_for(site, worst_seconds(done.balancer, opens=True) + GRACE_S, sorry=False)
    done.looks = looks(site)
    done.wrong = missing(done.hosts, closed=False)
    done.wrong += [f"view {item.view} still shows the sorry page" for item in done.looks if item.sorry]


def _prove(site: Site, done: Outcome) -> None:
    """Look as a customer does, through the load balancer."""
    done.probes = probes.run(site, "customer", report=screen.probe_line)
    show.note_probes(site, "customer", done.probes)
    done.wrong += [f"{item.title}: {item.seen}" for item in done.probes if not item.passed]


def status(site: Site) -> Outcome:
    """Look at every host and at what customers see. Changes nothing."""
    done = stands(site)
    done.looks = looks(site) if site.data.sorry else []
    done.wrong = amiss(done.hosts)
    return done


def stands(site: Site) -> Outcome:
    """Look at every host only."""
    done = Outcome()
    _step(site, SHOW, "status", done)
    return done


def renew(site: Site, *, minutes: int | None = None) -> Outcome:
    """Keep a closed gate closed for longer, without a word: it is called while something else is shown.

    Whoever holds the site's lock calls this while it works behind it.
    """
    done = Outcome()
    _step(site, SHOW, "renew", done, quiet=True, **_bounds(minutes, never=False))
    return done


# What the journal knows


def left_open(site: Site) -> states.Item | None:
    """Return what the journal says of a gate that is to be opened; None when it knows of none."""
    return states.derive(store.journal(site).records()).items.get(ITEM)


def why_not(site: Site) -> str:
    """Return why the customer's permission does not allow closing; empty when it does. Uses nothing up.

    A renewal takes no second use of it, but must still be allowed.
    """
    decision = permissions.ledger(store.journal(site).records()).get("sorry")
    if decision is None:
        return "nobody has allowed it"
    used = 0 if left_open(site) else decision.used
    return replace(decision, used=used).why_not(datetime.now(UTC), zone=site.zone)


def _allowed(site: Site, *, again: bool) -> None:
    """Require the customer's permission; a renewal takes no second use of it."""
    if not again or why_not(site):
        permissions.require(site, "sorry", "show every visitor the sorry page")


def _note_opened(site: Site, words: str, recovery: int | None, end: float | None = None) -> None:
    data = {"item": ITEM, "words": words, "close": f"hikeshi sorry off --site {site.name}", "until": end}
    store.journal(site).append("item.opened", data if recovery is None else {**data, "recovery": recovery})


def note_closed(site: Site, words: str) -> None:
    """Write that nothing has to be put back any more, where something had."""
    if left_open(site):
        with suppress(HikeshiError):  # it is open; a full disk must not make a failure of that
            store.journal(site).append("item.closed", {"item": ITEM, "words": words})


def titles(outcomes: Sequence[Look]) -> list[str]:
    """Return what customers see, a line for each view."""
    return [f"{item.view}: {'sorry page' if item.sorry else 'no sorry page'} ({item.seen})" for item in outcomes]
