"""Rehearse a mended disk: boot it beside the original, cut off from everything, and prove there what a swap promises.

What is proven is the very seal that is swapped in. The machine writes on layers that are thrown away, and is removed at
the end, however that comes; one that a killed call left is removed by the next.
"""

from collections.abc import Collection

from hikeshi import screen
from hikeshi.copies import journaled, proving, record, work
from hikeshi.copies.driver import Driver, Rehearsal
from hikeshi.copies.drivers import driver_of
from hikeshi.copies.record import Check, Copy, RehearsalState
from hikeshi.errors import HikeshiError, RefusedError
from hikeshi.site import Site

SETTLE_S = 60.0  # how long its services may take to start, on a machine that also carries the original


def rehearse(site: Site, copy: Copy, *, green: Collection[str]) -> list[Check]:
    """Boot what is sealed, and prove it; return what was seen. It passes when each check is good.

    `green` names the probes that pass on the original now: one of these that is red here would be made worse by a
    swap. Orders are not placed: the payment gateway is not to be reached, and nobody is to be charged. Raises where
    the cloud does not do it, AskedError where a person must. Whoever calls holds the site's lock.
    """
    if copy.swap is None or copy.swap.state != "sealing" or not copy.swap.mended:
        raise RefusedError(f"copy {copy.id} is not sealed: there is nothing to rehearse.")
    driver = driver_of(site)
    work.let_go(site, copy)
    with journaled.step(site, copy, "rehearse") as action, screen.run_progress(f"rehearsing the mended {copy.host}"):
        checks = _try(site, copy, driver, green)
        action.data["checks"] = [check.model_dump() for check in checks]
        bad = [f"{check.what}: {check.words}" for check in checks if not check.ok]
        _note(site, copy, "failed" if bad else "passed")
        if bad:
            action.failed("; ".join(bad)[:2000])
    return checks


def _try(site: Site, copy: Copy, driver: Driver, green: Collection[str]) -> list[Check]:
    _note(site, copy, "up")
    try:
        machine = driver.rehearse(copy)
        if machine.told:
            return [Check(what="by hand", ok=True, words=machine.told)]
        return prove(proving.stand_in(site, copy.host, machine), copy.host, machine, green)
    finally:
        driver.end_rehearsal(copy)


def prove(there: Site, host: str, machine: Rehearsal, green: Collection[str]) -> list[Check]:
    """Return what the rehearsed machine showed; `there` is the site where it stands in for the host."""
    seen = proving.log_in(there, host)
    if not seen.ok:
        return [Check(what="login", ok=False, words=seen.why)]
    told = seen.told
    jobs = " ".join(filter(None, (told.get("timers", "?"), told.get("daemons", "?"))))
    checks = [
        Check(what="login", ok=True, words="ssh lets us in, and sudo makes us root"),
        Check(what="identity", ok=told.get("machine") == machine.machine_id, words=f"machine-id {told.get('machine')}"),
        Check(what="jobs", ok=not jobs, words=jobs or "no timer, no cron, no at runs"),
        Check(what="cut off", ok=told.get("routes") == "", words=told.get("routes") or "no way out of its network"),
    ]
    try:
        results = proving.look(there, list(there.data.views), green=green, settle_s=SETTLE_S)
    except HikeshiError as problem:
        return [*checks, Check(what="probes", ok=False, words=problem.message)]
    broken = {item.id for item in proving.worse(results, green)}
    for item in results:
        also = "" if item.passed else ": as on the original" if item.id not in broken else ": green on the original"
        verdict = "green" if item.passed else "red"
        checks.append(Check(what=item.title, ok=item.id not in broken, words=f"{verdict}{also}, {item.seen}"))
    return checks


def _note(site: Site, copy: Copy, state: RehearsalState) -> None:
    if copy.swap:
        copy.swap = copy.swap.model_copy(update={"rehearsal": state})
        record.save(site, copy)
