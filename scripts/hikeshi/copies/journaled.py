"""What the journal and the copy's file are told of every step."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from hikeshi.copies import record
from hikeshi.copies.driver import AskedError
from hikeshi.copies.record import Copy
from hikeshi.errors import HikeshiError
from hikeshi.incident import state as states
from hikeshi.incident import store
from hikeshi.incident.journal import Action
from hikeshi.site import Site


@contextmanager
def step(site: Site, copy: Copy, name: str) -> Iterator[Action]:
    """Do one step between two records; where a person must do it, the copy's file says what was asked."""
    with store.journal(site).action("copy", {"step": name, "copy": copy.id}, host=copy.host) as action:
        action.data.update(step=name, copy=copy.id)
        try:
            yield action
        except AskedError as question:
            copy.asked = question.step
            record.save(site, copy)
            raise


def note_open(site: Site, copy: Copy) -> None:
    """Write that a copy is to be taken away some day: the customer was promised it."""
    until = copy.expires.astimezone(site.zone)
    words = f"copy {copy.id} of {copy.host}, with its data, is kept until {until:%Y-%m-%d %H:%M}"
    close = f"hikeshi copy --delete {copy.id} --site {site.name}"
    store.journal(site).append("item.opened", {"item": item(copy), "words": words, "close": close})


def note_closed(site: Site, copy: Copy) -> None:
    """Write that a copy is gone, where it was written that there is one."""
    _close(site, item(copy), f"copy {copy.id} is removed")


def note_swap_open(site: Site, copy: Copy, *, proven: bool = False) -> None:
    """Write that a host is about to leave its own disk, and once more when it is proven to run from the mended one."""
    words = f"{copy.host} is on its way to copy {copy.id}, and may be stopped"
    close = f"hikeshi rescue {copy.host} --site {site.name}"
    if proven:
        words = f"{copy.host} runs from copy {copy.id}; the original is kept, stopped"
        close = f"hikeshi copy {copy.host} --swap-commit --site {site.name}, or --swap-back"
    store.journal(site).append("item.opened", {"item": f"swap {copy.host}", "words": words, "close": close})


def note_swap_closed(site: Site, copy: Copy) -> None:
    """Write that a host runs from its own disk, as far as this copy goes, where it was written that it does not."""
    committed = copy.swap is not None and copy.swap.state == "committed"
    own = "its mended disk, which is its own now" if committed else "its original disk"
    if not any(other.swapped and other.id != copy.id for other in record.read_all(site, copy.host)):
        _close(site, f"swap {copy.host}", f"{copy.host} runs from {own}")


def note_gone(site: Site, copy: Copy, words: str) -> None:
    """Write that a copy is gone with all that it belonged to."""
    for name in (f"swap {copy.host}", item(copy)):
        _close(site, name, words)


def _close(site: Site, name: str, words: str) -> None:
    journal = store.journal(site)
    if name in states.derive(journal.records()).items:
        with suppress(HikeshiError):  # it is so; a full disk must not make a failure of that
            journal.append("item.closed", {"item": name, "words": words})


def item(copy: Copy) -> str:
    """Return the name under which the journal knows a copy that is to be taken away."""
    return f"copy {copy.id}"
