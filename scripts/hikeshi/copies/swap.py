"""Put a mended disk in the original's place, keeping addresses, identity and data disks; or put the original back.

The way is written down before the first step, and only a proof or its failure changes it: a call that was killed is
gone on with in the same direction, and each step asks the cloud whether it is done already. The original is put aside,
stopped, and removed by nobody here. Whoever calls holds the site's lock, and has proven the mended disk before.
"""

import secrets

from hikeshi import screen
from hikeshi.copies import journaled, making, record, work
from hikeshi.copies.driver import AskedError, Driver
from hikeshi.copies.drivers import driver_of
from hikeshi.copies.record import Copy, Swap
from hikeshi.errors import HikeshiError, RefusedError
from hikeshi.incident import permissions, store
from hikeshi.site import PermissionName, Site


def seal(site: Site, copy: Copy) -> None:
    """Make of the working copy a machine that can take the original's place; nothing of the original is touched."""
    if copy.swapped:
        return
    driver = driver_of(site)
    work.make(site, copy)  # whoever had it open is gone
    with journaled.step(site, copy, "seal"), screen.run_progress(f"sealing the disk of {copy.id}"):
        copy.swap = Swap(state="sealing", mark=f"{copy.id}-{secrets.token_hex(3)}")
        record.save(site, copy)
        original, mended = driver.seal(copy)
        copy.swap = copy.swap.model_copy(update={"original": original, "mended": mended})
        record.save(site, copy)


def swap_in(site: Site, copy: Copy) -> None:
    """Have the mended disk run in the original's place; needs the customer's permission to stop the original."""
    _refuse_other(site, copy)
    if copy.swap is None or (copy.swap.state == "sealing" and not copy.swap.mended):
        seal(site, copy)
    swap = _swap(copy)
    if swap.state == "back":
        raise RefusedError(f"{copy.host} is on its way back to the original.", "swap back to the end first")
    if swap.state == "sealing":
        _ask_for_data_loss(site, copy, swap)
        _require(site, "reboot", f"stop {copy.host} and start it from its mended disk", swap.mark)
        journaled.note_swap_open(site, copy)
        copy.swap = swap.model_copy(update={"state": "in", "carried": []})
        record.save(site, copy)  # from here on every call goes inwards
    if _swap(copy).state == "in":
        _go(site, copy, back=False)


def proven(site: Site, copy: Copy) -> None:
    """Write that the host works from its mended disk; only `swap_back` undoes it now."""
    if _swap(copy).state == "in":
        journaled.note_swap_open(site, copy, proven=True)
        copy.swap = _swap(copy).model_copy(update={"state": "proven"})
        record.save(site, copy)


def may_go_back(site: Site, copy: Copy) -> None:
    """Use up what it needs to stop a host that is proven to run from its mended disk; an undo of ours needs no more."""
    swap = _swap(copy)
    if swap.state == "proven":
        for path in lost_with(site, copy):
            lost = f"swap the disk of {copy.host} back, and lose what {path} was given since it was swapped"
            _require(site, "data-loss", lost, f"back from {swap.mark}")
        _require(site, "reboot", f"stop {copy.host} and start it from its original disk", f"back from {swap.mark}")


def keeps_from_back(site: Site, copy: Copy) -> list[str]:
    """Return why that would be refused; nothing is used up."""
    names: list[PermissionName] = ["data-loss", "reboot"] if lost_with(site, copy) else ["reboot"]
    proven = _swap(copy).state == "proven"
    return [why for name in names if proven and (why := permissions.missing(site, name))]


def swap_back(site: Site, copy: Copy) -> None:
    """Have the original run again; by itself where a proof fails, or because somebody wants it."""
    if copy.swap is None or copy.swap.state == "sealing":
        return
    if copy.swap.state != "back":
        copy.swap = copy.swap.model_copy(update={"state": "back", "carried": []})
        record.save(site, copy)  # from here on every call goes back
    _go(site, copy, back=True)
    journaled.note_swap_closed(site, copy)  # before its file says so: the next call would see nothing to do
    copy.swap = None
    of_swap = ("in ", "back ", "seal", "rehearse")
    copy.told = {key: words for key, words in copy.told.items() if not key.startswith(of_swap)}
    record.save(site, copy)


def commit(site: Site, copy: Copy) -> None:
    """Let the host keep its mended disk for good: the original goes, and the copy; nothing undoes that."""
    swap = _swap(copy)
    if swap.state != "proven":
        raise RefusedError(
            f"{copy.host} is not proven to work from copy {copy.id}: its original is not removed.",
            f"hikeshi rescue {copy.host} --site {site.name}",
        )
    copy.swap, copy.state = swap.model_copy(update={"state": "committed"}), "deleting"
    making.remove(site, driver_of(site), copy, f"{copy.host} keeps its mended disk")


def _go(site: Site, copy: Copy, *, back: bool) -> None:
    """Stop what runs, bring data along, change disks, start: each step is done once, however often this is called."""
    driver, swap = driver_of(site), _swap(copy)
    leaves, comes = (swap.mended, swap.original) if back else (swap.original, swap.mended)
    name = "swap-back" if back else "swap-in"
    with journaled.step(site, copy, name), screen.run_progress(f"{name}: {copy.instance}"):
        driver.stop(copy, leaves)
        # A mended machine that never ran has of this data what the copy had, or less: nothing of it goes back.
        if swap.started or not back:
            _carry(site, copy, driver, back=back)
        if back:
            driver.swap_back(copy)
        else:
            driver.swap_in(copy)
            swap.started = True
            record.save(site, copy)
        driver.start(copy, comes)


def _carry(site: Site, copy: Copy, driver: Driver, *, back: bool) -> None:
    """Bring along what the site names, each of it once; both machines are stopped."""
    data, swap = site.data.copying, _swap(copy)
    for path in data.carried.get(copy.host, []) if data else []:
        if path in swap.carried:
            continue
        try:
            driver.carry(copy, path, back=back)
        except AskedError:
            raise
        except HikeshiError as problem:
            if not back:  # the original has it, and runs again in a moment
                raise
            raise HikeshiError(
                f"{copy.host} stands still, between its two disks: {problem.message}",
                f"mend what it names (copies are removed by hikeshi copy --delete ID), then hikeshi copy {copy.host} "
                f"--swap-back --site {site.name}",
            ) from problem
        swap.carried = [*swap.carried, path]  # what comes may be written from now on: never carried twice
        record.save(site, copy)


def _swap(copy: Copy) -> Swap:
    if copy.swap is None:
        raise RefusedError(f"copy {copy.id} is in no swap.")
    return copy.swap


def _refuse_other(site: Site, copy: Copy) -> None:
    """Refuse while the host runs from another copy: which one is the original then?"""
    for other in record.read_all(site, copy.host):
        if other.swapped and other.id != copy.id:
            raise RefusedError(
                f"{copy.host} runs from copy {other.id}, or is on its way: another one is not swapped in over it.",
                "swap back first",
            )


def _require(site: Site, name: PermissionName, action: str, mark: str) -> None:
    """Use a permission up for this swap, once: a killed call goes on with it."""
    if not permissions.used_for(store.journal(site).records(), name, mark):
        permissions.require(site, name, f"{action} (swap {mark})")


def lost_with(site: Site, copy: Copy) -> list[str]:
    """Return the databases on the disk that is swapped that nobody brings along: what they are given is lost."""
    data, disks = site.data.copying, copy.taken.disks if copy.taken else []
    kept = [*(disk.path for disk in disks), *(data.carried.get(copy.host, []) if data else [])]
    known = data.databases.get(copy.host, []) if data else []
    return [path for path in known if not any(f"{path}/".startswith(f"{place}/") for place in kept)]


def _ask_for_data_loss(site: Site, copy: Copy, swap: Swap) -> None:
    for path in lost_with(site, copy):
        since = copy.taken.at.astimezone(site.zone) if copy.taken else copy.begun
        lost = f"swap the disk of {copy.host}, and lose what {path} was given since {since:%H:%M}"
        _require(site, "data-loss", lost, swap.mark)
