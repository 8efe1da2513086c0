"""The practice incident: up, break, recover, score, down."""

import json
import re
import secrets
import shlex
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hikeshi import lock, look, probes, recover, runner, screen
from hikeshi.copies import journaled, record
from hikeshi.drill import containers, customers, engine, faults, ledger, wheelhouse
from hikeshi.drill.containers import State
from hikeshi.errors import HikeshiError, MisconfiguredError, RefusedError, UsageError
from hikeshi.files import remove_tree, write_private
from hikeshi.incident import opening, show
from hikeshi.incident.opening import Brief
from hikeshi.recover import Recovery
from hikeshi.site import (
    PRACTICE_SITE,
    PROJECT,
    Site,
    load,
    practice_folder,
    practice_prefix,
    practice_records,
    read_yaml,
)

READY_WAIT_S = 60
# How long customers come before the first fault and after the last repair: long enough for some to have bought.
CUSTOMERS_S = 8
SETTLE_S = (
    4  # longer than the practice load balancer needs for its verdict: two checks, a second apart, and their timeout
)
PLAYED, BROKEN = "torashu05", "platform-reboot"  # the scenarios of `drill` alone, and of `drill break` without names
PYTHON = {"12": "3.11", "13": "3.13"}  # Debian release → its Python, which the wheels are for


class AtJob(BaseModel):
    """Something from the past that would go off so many minutes after it was laid."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    host: str
    minutes: int = Field(gt=0)
    command: str


class Scenario(BaseModel):
    """One drill: `inventories/drill/scenarios/<name>.yml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    title: str
    brief: str
    reboot: str = ""  # host that is restarted after the faults are in
    incident: Brief | None = None  # opened when the customer calls
    at_jobs: list[AtJob] = []  # laid before anything is broken
    faults: list[str]


def scenario(name: str) -> Scenario:
    """Load a scenario."""
    folder = containers.PRACTICE / "scenarios"
    known = sorted(path.stem for path in folder.glob("*.yml"))
    if name not in known:
        raise UsageError(
            f"unknown scenario '{name}'; allowed: {', '.join(known)}.", f"hikeshi drill --scenario {known[0]}"
        )
    try:
        return Scenario.model_validate(read_yaml(folder / f"{name}.yml"))
    except ValidationError as error:
        raise MisconfiguredError(f"scenario {name} is not valid: {error}") from error


def _locked(verb: str) -> AbstractContextManager[None]:
    return lock.held_in(practice_records(), PRACTICE_SITE, verb)


def up(release: str = engine.DEFAULT_RELEASE) -> tuple[Site, bool]:
    """Put the practice site up; return it, and whether it had to be made. A site that stands is left as it is."""
    with _locked("drill up"):
        return _up(release)


def _up(release: str) -> tuple[Site, bool]:
    prefix = practice_prefix()
    engine.prepare(screen.say, release)
    digest = containers.build_digest(release)
    state = containers.load_state()
    if state and state.complete and (state.release, state.digest) == (release, digest):
        if containers.running(prefix) == set(containers.cloud().instances):
            screen.say(f"practice site {prefix} is up")
            return load(PRACTICE_SITE), False
        screen.say("containers of an earlier run are dead; making the site anew")
    kept = containers.images_kept(release, digest)
    containers.check_disk("cached" if kept else "build")
    wheels = {
        link: wheelhouse.build(
            containers.PRACTICE / part / "requirements.lock",
            PROJECT / ".drill" / "wheelhouse",
            PYTHON[release],
            screen.say,
        )
        for link, part in (("wheelhouse", "shop"), ("gateway-wheelhouse", "gateway"))
    }
    _remove()
    began = time.monotonic()
    screen.say(
        f"making practice site {prefix} " + ("from kept images" if kept else "from nothing: a few minutes, once")
    )
    state = State(prefix, release, digest, mac=":".join(secrets.token_hex(1) for _ in range(4)))
    state.save()
    state.ipv4, state.ipv6 = containers.pick_network(prefix)
    state.ports = containers.pick_ports()
    state.save()
    containers.make_site(state)
    for link, target in wheels.items():
        (practice_folder() / "site" / link).symlink_to(target)
    base = engine.base_image(release)
    hosts = containers.cloud().instances
    containers.create(state, {host: containers.image(host, release, digest) if kept else base for host in hosts})
    if state.no_small_disks:
        screen.say(f"no disk can be filled in this drill: {screen.safe(state.no_small_disks)}")
    containers.wait_for_ssh(state)
    site = load(PRACTICE_SITE)
    with screen.run_progress("building the site with Ansible") as progress:
        result = runner.run(site, "build-practice-site.yml", verb="up", listen=progress)
    if not result.ok:
        recover.explain(site, result, "hikeshi drill up")
        raise HikeshiError("the practice site could not be built.", "mend what is named above, then hikeshi drill up")
    if not kept:
        screen.say("keeping the built hosts as images")
        containers.keep_images(state)
    wait_until_green(site)
    _record(site)
    state.complete = True
    state.save()
    screen.say(
        f"practice site {prefix} is up after {time.monotonic() - began:.0f} s: {site.data.views['customer'].url}/"
    )
    return site, True


def _record(site: Site) -> None:
    """Record the baseline; a shop that has just started may lose one order to another, or be slow once."""
    deadline = time.monotonic() + READY_WAIT_S
    while True:
        try:
            look.record(site)
        except RefusedError as problem:
            if time.monotonic() > deadline:
                raise
            screen.say(f"looking again: {screen.safe(problem.message, 300)}")
        else:
            return


def wait_until_green(site: Site) -> None:
    """Wait until every probe of the customer's view is green."""
    deadline = time.monotonic() + READY_WAIT_S
    while True:
        results = probes.run(site, "customer")
        red = [item for item in results if not item.passed]
        if not red:
            return
        if time.monotonic() > deadline:
            for item in results:
                screen.probe_line(item)
            raise HikeshiError(f"the practice site is up but not healthy: {red[0].title}: {red[0].seen}",
                               "hikeshi recover --site drill, or hikeshi drill down and hikeshi drill up")  # fmt: skip
        time.sleep(1)


def wait_until_settled(site: Site) -> None:
    """Wait until the customer sees the same twice: services have started or given up, the load balancer has decided."""
    deadline = time.monotonic() + READY_WAIT_S
    seen: list[tuple[str, bool, str]] = []
    while time.monotonic() < deadline:
        results = probes.run(site, "customer")
        # What a green probe saw differs each time: an order has a number of its own.
        before, seen = seen, [(item.id, item.passed, "" if item.passed else item.seen) for item in results]
        if seen == before:
            return
        time.sleep(SETTLE_S)


def down(*, images: bool = False) -> None:
    """Take the practice site away: containers, network, disks, keys, secrets, records of the drill."""
    with _locked("drill down"):
        _remove()
        if images:
            containers.remove_images()
            remove_tree(PROJECT / ".drill" / "wheelhouse")
    kept = ", and its images" if images else "; built images are kept"
    screen.say(f"practice site {practice_prefix()} is gone{kept}")


def _remove() -> None:
    containers.remove(practice_prefix())
    with suppress(HikeshiError):  # a site that was half made has no copies
        site = load(PRACTICE_SITE)
        for copy in record.read_all(site):
            journaled.note_gone(site, copy, f"the practice site {practice_prefix()} was taken away")
            record.forget(site, copy)
    remove_tree(practice_folder())


def standing_state() -> State:
    """Return the state of the site that is up; raise when none is."""
    state = containers.load_state()
    if state is None or not state.complete:
        raise MisconfiguredError("the practice site is not up.", "hikeshi drill up")
    return state


def break_site(names: list[str], seed: int | None, reboot: str) -> list[faults.Fault]:
    """Inject faults with a seed (drawn when None) and restart the host `reboot`; what it would mend comes after."""
    state = standing_state()
    site = load(PRACTICE_SITE)
    number = draw_seed(seed)
    chosen = faults.choose_all(names, number)
    filling = [name for name in names if faults.catalogue()[name].small_disk]
    if filling and state.no_small_disks:
        raise MisconfiguredError(
            f"{', '.join(filling)} needs a small disk, which this machine cannot give: {state.no_small_disks}",
            "leave it out, or give this machine loop devices, then hikeshi drill down and hikeshi drill up",
        )
    with _locked("drill break"):
        screen.say(f"seed {number}")
        faults.inject(site, [fault for fault in chosen if not (reboot and fault.after_reboot)])
        if reboot:
            screen.say(f"the platform restarts {reboot}")
            containers.reboot(
                state, reboot, greets=not any(fault.keeps_out and not fault.after_reboot for fault in chosen)
            )
            later = [fault for fault in chosen if fault.after_reboot]
            if later:
                # sshd is there long before the services are, and what they have not made yet cannot be taken from them.
                # Its status says whether all is well, which is not to be expected of a broken host.
                ledger.run_on(site, reboot, "timeout 60 systemctl is-system-running --wait || true")
            faults.inject(site, later)
        runner.hang_up(site)  # whoever broke it is not in any more
        wait_until_settled(site)
    return chosen


def draw_seed(seed: int | None) -> int:
    """Return the seed given, else a new one."""
    return secrets.randbelow(10**6) if seed is None else seed


def score(recovery: Recovery) -> dict[str, Any]:
    """Join what was broken with what was done: which fault was mended by which step, in how many seconds.

    An unnamed fault has no finding that could be left: a step that put its file back helped, or, where there is none,
    everything is well all the same.
    """
    data = recovery.as_data()
    mended = [rescued["mended"] for rescued in (data["disks"] or {"rescued": []})["rescued"]]
    took = [step for disk in mended if disk for step in disk["steps"]] + data["steps"]
    left = {(item["host"], item["subject"]) for item in data["left"]}
    rows = []
    for fault in faults.injected():
        steps = [
            step for step in took
            if step["host"] == fault.host and step["changed"] and set(fault.subjects) & set(step["subjects"])
        ]  # fmt: skip
        open_still = any((fault.host, subject) in left for subject in fault.subjects)
        if fault.unnamed:
            open_still = not (steps or recovery.healthy)
        rows.append(
            {
                "fault": fault.name,
                "title": fault.title,
                "unnamed": fault.unnamed,
                "seed": fault.seed,
                "operations": fault.operations,
                "mended": not open_still and bool(steps or recovery.converged),
                "by": [_words(step) for step in steps]
                or (["converge"] if recovery.converged and not open_still else []),
                "seconds": round(sum(step["seconds"] for step in steps), 1),
            }
        )
    return {"faults": rows, "probes_broken": data["probes_before"], "recovery": data}


def _words(step: Mapping[str, Any]) -> str:
    """Return a step and its arguments in one line, without the mark of its trial."""
    return " ".join(
        [step["role"], step["step"], *(value for name, value in step["args"].items() if value and name != "trial")]
    )


def whole(release: str) -> Site:
    """Return the practice site, put up where it is not; one that an earlier drill broke or copied is made anew."""
    site, made = up(release)
    if not made:
        red = [item for item in probes.run(site, "customer") if not item.passed]
        if red or faults.injected() or record.read_all(site):
            screen.say("the standing site is broken from an earlier drill, or has copies of it; making it anew")
            down()
            site, _ = up(release)
    return site


def play(name: str, seed: int | None, release: str) -> dict[str, Any]:
    """Play a scenario end to end, customers coming all the while: up, break, recover, prove; return the score."""
    plan = scenario(name)
    number = draw_seed(seed)
    site = whole(release)
    screen.say(f"[bold]{screen.safe(plan.title)}[/bold]: {screen.safe(plan.brief)}")
    screen.say("customers come to the shop")
    customers.start(site, number)
    time.sleep(CUSTOMERS_S)
    laid = [lay(site, job) for job in plan.at_jobs]
    break_site(plan.faults, number, plan.reboot)
    screen.say("[bold]the customer calls[/bold]")
    if plan.incident:
        opening.end(site, "the drill", "another drill begins")
        opening.by_brief(site, plan.incident, f"{plan.incident.name}-{time.strftime('%H%M%S')}")
        show.time_left(site)
    recovery = recover.recover(site, approve=lambda *_: True, ask=lambda *_: True)
    time.sleep(CUSTOMERS_S)
    result = score(recovery)
    result |= {"scenario": name, "money": count_money(site), "waiting": [*filter(None, map(waiting, laid))]}
    write_private(practice_folder() / "drill" / "score.json", json.dumps(result, indent=2, ensure_ascii=False))
    if recovery.healthy:
        faults.forget()
    return result


@dataclass(frozen=True)
class Laid:
    """A job of at that the drill laid: its number in the queue of its host."""

    site: Site
    job: AtJob
    number: str


def lay(site: Site, job: AtJob) -> Laid:
    """Have at run a command on a practice host."""
    told = ledger.run_on(site, job.host, f"echo {shlex.quote(job.command)} | at now + {job.minutes} minutes 2>&1")
    found = re.search(r"(?m)^job (\d+) at ", told)
    if found is None:
        raise HikeshiError(f"at on {job.host} took no job: {told.strip()[-300:]}")
    return Laid(site, job, found[1])


def waiting(laid: Laid) -> str:
    """Return in words that a laid job still waits in its host's queue, where it would go off; "" where it does not."""
    queue = ledger.run_on(laid.site, laid.job.host, "atq")
    there = re.search(rf"(?m)^{laid.number}\s", queue)
    return f"{laid.job.host}: “{laid.job.command}” is still to be run by at" if there else ""


def count_money(site: Site) -> dict[str, Any]:
    """Send the customers home and compare what they saw with the shop's orders and the gateway's payments."""
    screen.say("comparing orders, payments and what customers saw")
    truth = customers.stop(site)
    orders, wrong = ledger.audit(site, truth.order_numbers)
    return {"orders": orders, "wrong": wrong, "customers": truth.summary()}


def last_score() -> dict[str, Any]:
    """Return the score of the last drill."""
    try:
        data: dict[str, Any] = json.loads((practice_folder() / "drill" / "score.json").read_text())
    except (FileNotFoundError, ValueError) as error:
        raise MisconfiguredError("no drill has been played to its end yet.", "scripts/drill") from error
    return data
