"""`hikeshi copy`: make a copy, verify it before anything else happens, keep it for a while, take it away.

Space, cost and permissions first, then one question. A copy that is not found good is refused and removed; nothing was
changed. What an earlier call left half done is told by the copy's file: removed and begun anew, or verified again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hikeshi import bombs, lock, screen
from hikeshi.copies import journaled, record
from hikeshi.copies.driver import AskedError, Driver, Found, Space
from hikeshi.copies.drivers import driver_of
from hikeshi.copies.record import Check, Copy, Taken
from hikeshi.errors import HikeshiError, MisconfiguredError, RefusedError, UsageError
from hikeshi.incident import permissions, store
from hikeshi.site import PermissionName, Site, shown

GIB = 1 << 30

Approve = Callable[[Sequence[str], str], bool]  # what is about to be done, in lines; and the question


@dataclass(frozen=True)
class Estimate:
    """What a copy of a host will take, before anything is made."""

    host: str
    instance: str
    space: Space
    cost: float  # in the unit of permission `spend`
    until: datetime

    @property
    def words(self) -> str:
        """What is told before anybody agrees."""
        said = [f"copy {self.host} ({self.instance}) with its data"]
        if self.space.needed:
            said.append(f"takes up to {gib(self.space.needed)}")
        if self.space.free is not None:
            said.append(f"{gib(self.space.free)} free in {self.space.where}")
        if self.cost:
            said.append(f"costs up to {permissions.number(self.cost)}")
        return ", ".join([*said, f"kept until {self.until:%Y-%m-%d %H:%M %Z}"])

    def as_data(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "host": self.host, "instance": self.instance, "needed_bytes": self.space.needed,
            "free_bytes": self.space.free, "cost": round(self.cost, 2), "until": self.until.isoformat(),
        }  # fmt: skip


@dataclass
class Outcome:
    """All that one call did and saw; the screen and `--json` read nothing else."""

    copies: list[Copy] = field(default_factory=list)  # as they are at the end
    made: list[str] = field(default_factory=list)  # ids
    removed: list[str] = field(default_factory=list)
    estimates: list[Estimate] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # permissions that would be needed (--check)
    unknown: list[Found] = field(default_factory=list)  # at the cloud, with this site's mark, of no copy we know
    check: bool = False

    def as_data(self) -> dict[str, Any]:
        """Return everything for `--json`.

        check; made, removed: [id]; copies: [{id, host, instance, driver, state, at, expires, size: {files, bytes},
        digest, checks: [{what, ok, words}], data: [{name, path, held}], left_out, work, repaired:
        {digests, steps, passed} or null, swap: {state, rehearsal, …} or null, told}], the oldest
        first; estimates: [{host, instance, needed_bytes, free_bytes, cost, until}], before a copy is made; missing:
        [sentence], why it would be refused; unknown: [{copy_id, kind, name}].
        """
        return {
            "check": self.check,
            "made": self.made,
            "removed": self.removed,
            "copies": [_data(copy) for copy in self.copies],
            "estimates": [item.as_data() for item in self.estimates],
            "missing": self.missing,
            "unknown": [item.__dict__ for item in self.unknown],
        }


def _data(copy: Copy) -> dict[str, Any]:
    plain: dict[str, Any] = copy.model_dump(mode="json", exclude={"taken", "begun", "asked"})
    taken = copy.taken.model_dump(mode="json") if copy.taken else {}
    return {**plain, "at": taken.get("at"), "data": taken.get("disks", []), "left_out": taken.get("left_out", [])}


def gib(amount: int) -> str:
    """Return bytes as people read them."""
    return f"{amount / GIB:.1f} GiB" if amount >= GIB // 10 else f"{amount / (1 << 20):.0f} MiB"


# Making


def take(
    site: Site, host: str = "", *, approve: Approve, again: bool = False, done: str = "", check: bool = False
) -> Outcome:
    """Have a verified copy of a host, or of all that the site names; `done` tells what a person did by hand."""
    with lock.held(site, "copy"):
        return take_locked(site, host, approve=approve, again=again, done=done, check=check)


def take_locked(
    site: Site, host: str = "", *, approve: Approve, again: bool = False, done: str = "", check: bool = False
) -> Outcome:
    """Do the same for whoever holds the site's lock."""
    driver, hosts = driver_of(site), _hosts(site, host)
    outcome = Outcome(check=check)
    if done and not check and _tell(site, hosts, done) not in ("copy", "verify"):
        finish_half_done(site, driver, hosts)  # it was said of the removal, or of work: no copy is begun by that
        outcome.copies = record.read_all(site, host)
        return outcome
    if not check:
        finish_half_done(site, driver, hosts)
    begun = {name: copy for name in hosts if (copy := _under_way(site, name))}
    wanted = [name for name in hosts if name in begun or again or not good(site, name)]
    fresh = [name for name in wanted if name not in begun or not _allowed_before(site, "copy", begun[name])]
    outcome.estimates = [estimate(site, driver, name) for name in fresh]
    if check:
        outcome.missing = _why_not(site, outcome.estimates)
    else:
        _refuse(site, outcome.estimates)
        if fresh and not approve([item.words for item in outcome.estimates], "Copy?"):
            raise RefusedError("nothing was changed: copying was not approved.", "the same command with --yes")
        for item in outcome.estimates:
            begun[item.host] = _allow(site, begun.get(item.host) or _new(site, driver, item), item)
        for name in wanted:
            _carry_on(site, driver, begun[name])
            outcome.made.append(begun[name].id)
    outcome.copies = record.read_all(site, host)
    return outcome


def _hosts(site: Site, host: str) -> list[str]:
    data = site.data.copying
    known = sorted(data.instances) if data else []
    if not known:
        raise MisconfiguredError(
            f"{shown(site.folder)}/site.yml names no instance to copy (copy.instances).",
            "name there each host with what the cloud calls it; of the practice site: hikeshi drill down, drill up",
        )
    if host and host not in known:
        raise UsageError(f"HOST is {host!r}; copied can be: {', '.join(known)}.", f"hikeshi copy {known[0]}")
    return [host] if host else known


def good(site: Site, host: str) -> Copy | None:
    """Return the newest verified copy of a host that has not expired."""
    now = datetime.now(UTC)
    good = [copy for copy in record.read_all(site, host) if copy.state == "verified" and copy.expires > now]
    return good[-1] if good else None


def _under_way(site: Site, host: str) -> Copy | None:
    """Return the copy of a host that is being made, or waits to be verified."""
    found = [copy for copy in record.read_all(site, host) if copy.state in ("making", "made")]
    return found[-1] if found else None


def _tell(site: Site, hosts: Sequence[str], words: str) -> str:
    """Write down that what was asked for is done, and what was said of it; return what it was."""
    asked = [copy for host in hosts for copy in record.read_all(site, host) if copy.asked]
    if len(asked) != 1:
        waiting = ", ".join(f"{copy.id} ({copy.asked})" for copy in asked) or "nothing"
        raise UsageError(
            f"--done answers what was asked for last of one copy; asked for is: {waiting}.",
            "name the host: hikeshi copy HOST --done WORDS" if asked else "hikeshi copy HOST, which asks",
        )
    copy, what = asked[0], asked[0].asked
    copy.told, copy.asked = {**copy.told, what: words[:300]}, ""
    record.save(site, copy)
    store.journal(site).append("copy.told", {"copy": copy.id, "step": what, "words": words[:300]}, host=copy.host)
    return what


def estimate(site: Site, driver: Driver, host: str) -> Estimate:
    """Return what a copy of a host will take, for as long as it is kept."""
    data = site.data.copying
    assert data is not None  # noqa: S101 (there is a driver)
    space = driver.space(data.instances[host])
    until = datetime.now(site.zone) + timedelta(hours=data.keep_hours)
    # Of what cannot be asked, what is told by the site: at least one GiB, so that a price is never nothing.
    size = max(space.needed / GIB, 1.0)
    return Estimate(host, data.instances[host], space, size * data.keep_hours / 24 * data.price_per_gib_day, until)


def finish_half_done(site: Site, driver: Driver, hosts: Sequence[str]) -> None:
    """Remove what a killed call left of a copy that was being made, or removed; and what somebody took away."""
    for copy in [copy for host in hosts for copy in record.read_all(site, host)]:
        if copy.state == "deleting":
            remove(site, driver, copy, "as was begun")
        elif copy.state == "making" and not (copy.asked or copy.told):  # by hand, nothing is begun anew
            driver.remove(copy)
        elif copy.state == "verified" and not copy.swapped and not driver.there(copy):
            remove(site, driver, copy, "the cloud does not have it any more")


def _new(site: Site, driver: Driver, item: Estimate) -> Copy:
    now, taken = datetime.now(UTC), {copy.id for copy in record.read_all(site)}
    while (ident := f"{item.host}-{record.stamp(now)}") in taken:
        now += timedelta(milliseconds=1)
    return Copy(
        id=ident, host=item.host, instance=item.instance, driver=driver.name, state="making", begun=now,
        expires=item.until,
    )  # fmt: skip


def _carry_on(site: Site, driver: Driver, copy: Copy) -> None:
    """Take a copy from where it is to verified; refuse and remove it when it is not good."""
    if copy.state == "making":
        _still_allowed(site, copy)
        copy.begun = datetime.now(UTC)
        record.save(site, copy)
        with journaled.step(site, copy, "copy"), screen.run_progress(f"copying {copy.instance}"):
            copy.taken = _copied(driver, copy)
            copy.state = "made"
            record.save(site, copy)
    checks = verify(site, driver, copy)
    if bad := [check for check in checks if not check.ok]:
        remove(site, driver, copy, "it is not good")
        why = "; ".join(f"{check.what}: {check.words}" for check in bad)
        raise HikeshiError(
            f"the copy of {copy.host} is not good, and was removed; nothing else was changed. {why}",
            "mend what it names (room, the original's database), then run the same command again",
        )


def _copied(driver: Driver, copy: Copy) -> Taken:
    """Have the cloud copy; of one that fails nothing is left there, and its permission stays good for the next."""
    try:
        return driver.copy(copy)
    except AskedError:
        raise
    except HikeshiError as problem:
        try:
            driver.remove(copy)
        except HikeshiError as left:
            problem.add_note(left.message)
        raise


def verify(site: Site, driver: Driver, copy: Copy) -> list[Check]:
    """Verify a copy; of one that was found good before, also that nothing was written to it since."""
    data = site.data.copying
    with journaled.step(site, copy, "verify") as action, screen.run_progress(f"verifying copy {copy.id}"):
        seen = driver.verify(copy, data.databases.get(copy.host, []) if data else [])
        checks = list(seen.checks)
        if copy.state == "verified":
            same = seen.digest == copy.digest
            checks.append(Check(what="digest", ok=same, words="as it was" if same else "it was written since"))
        action.data["checks"] = [check.model_dump() for check in checks]
        if bad := [check for check in checks if not check.ok]:
            action.failed("; ".join(f"{check.what}: {check.words}" for check in bad))
        elif copy.state == "made":
            copy.checks, copy.size, copy.digest, copy.state = checks, seen.size, seen.digest, "verified"
            journaled.note_open(site, copy)  # before it counts: somebody must be told to take it away
            record.save(site, copy)
    return checks


# Permissions


def _needs(estimates: Sequence[Estimate]) -> list[tuple[PermissionName, float]]:
    """Return which permissions copies need, and how much they take of each."""
    cost = round(sum(item.cost for item in estimates), 2)
    spend: list[tuple[PermissionName, float]] = [("spend", cost)] if cost else []
    return [*spend, ("copy", 0.0)] if estimates else []


def _why_not(site: Site, estimates: Sequence[Estimate]) -> list[str]:
    """Return why copies would be refused; nothing is written and nothing used up."""
    reasons = [_no_room(estimates)]
    reasons += [permissions.missing(site, name, amount) for name, amount in _needs(estimates)]
    return [reason for reason in reasons if reason]


def _no_room(estimates: Sequence[Estimate]) -> str:
    """Return why there is no room for all of them; empty when there is."""
    needed = sum(item.space.needed for item in estimates)
    bounded = [(item.space.free, item.space.where) for item in estimates if item.space.free is not None]
    free, where = min(bounded, default=(needed, ""))
    if needed <= free:
        return ""
    return f"copying takes up to {gib(needed)}, and only {gib(free)} may be filled in {where}"


def _refuse(site: Site, estimates: Sequence[Estimate]) -> None:
    """Refuse before anything is used up, written or made: for want of room, or of a permission."""
    if why := _no_room(estimates):
        raise RefusedError(f"{why}; nothing was changed.", "make room there; hikeshi copy --list shows older copies")
    journal = store.journal(site)
    permissions.take_over_standing(site, journal)
    for name, amount in _needs(estimates):
        decision = permissions.ledger(journal.records()).get(name)
        if decision is None or decision.why_not(datetime.now(UTC), amount, site.zone):
            what = f"copy {', '.join(item.host for item in estimates)} with its data"
            permissions.require(site, name, what, amount=amount)  # refuses, and says what to ask


def _allow(site: Site, copy: Copy, item: Estimate) -> Copy:
    """Use up what a copy needs; its file is there before, so that a killed call uses up nothing twice."""
    record.save(site, copy)
    for name, amount in _needs([item]):
        if not _allowed_before(site, name, copy):
            permissions.require(site, name, f"copy {copy.host} with its data, as {copy.id}", amount=amount)
    return copy


def _allowed_before(site: Site, name: PermissionName, copy: Copy) -> bool:
    """Say whether a permission was used for this very copy already."""
    return permissions.used_for(store.journal(site).records(), name, copy.id)


def _still_allowed(site: Site, copy: Copy) -> None:
    """Refuse to go on with a copy whose permission was taken back since it was begun; nothing more is used up."""
    decision = permissions.ledger(store.journal(site).records()).get("copy")
    if decision and (why := replace(decision, used=0).why_not(datetime.now(UTC), zone=site.zone)):
        raise RefusedError(
            f"the copy of {copy.host} was begun and is not gone on with: permission 'copy': {why}.",
            f"ask the customer, or hikeshi copy --delete {copy.id} --site {site.name}",
        )


# Keeping


def listing(site: Site, host: str = "") -> Outcome:
    """Return the copies there are, and what at the cloud bears this site's mark and is of none of them."""
    if host:
        _hosts(site, host)
    copies = record.read_all(site)
    known = {copy.id for copy in copies}
    unknown = [item for item in driver_of(site).list() if item.copy_id not in known]
    return Outcome([copy for copy in copies if host in ("", copy.host)], unknown=unknown)


def verify_again(site: Site, ident: str) -> tuple[Copy, list[Check]]:
    """Read a verified copy once more; return what was seen. Nothing is removed: somebody must look why."""
    with lock.held(site, "copy"):
        copy = record.find(site, ident)
        if copy.state != "verified":
            raise RefusedError(f"copy {ident} is {copy.state}: it was never found good.", f"hikeshi copy {copy.host}")
        return copy, verify(site, driver_of(site), copy)


def delete(site: Site, ident: str) -> Outcome:
    """Remove one copy, its working copy and what came of that."""
    with lock.held(site, "copy"):
        copy = record.find(site, ident)
        if copy.swapped:
            raise RefusedError(
                f"{copy.host} runs from copy {ident}, or is on its way: neither it nor the original is removed.",
                "swap back first",
            )
        remove(site, driver_of(site), copy, "as it was asked")
        return Outcome(record.read_all(site), removed=[ident])


def delete_expired(site: Site) -> Outcome:
    """Remove every copy whose time is over, but for one from which its host runs."""
    with lock.held(site, "copy"):
        driver, now = driver_of(site), datetime.now(UTC)
        gone = [copy for copy in record.read_all(site)
                if (copy.expires <= now or copy.state == "deleting") and not copy.swapped]  # fmt: skip
        for copy in gone:
            remove(site, driver, copy, "its time is over")
        return Outcome(record.read_all(site), removed=[copy.id for copy in gone])


def remove(site: Site, driver: Driver, copy: Copy, why: str) -> None:
    """Remove a copy and all that came of it; killed in the middle, the next call goes on."""
    with journaled.step(site, copy, "delete") as action:
        action.data["removed_because"] = why
        copy.state = "deleting"
        record.save(site, copy)
        driver.remove(copy)
        journaled.note_swap_closed(site, copy)
        if not (copy.swap and copy.swap.state == "committed"):
            bombs.gone_with(site, copy.id)
        journaled.note_closed(site, copy)  # before its file goes: the next call would know of nothing to close
        record.forget(site, copy)
