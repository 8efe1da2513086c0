"""Open an incident: by a person's word, or as a brief says it, with what the customer allowed and by when.

What is left to be put back goes along, so that it is not forgotten with the journal in which it was written.
"""

from datetime import UTC, datetime, timedelta

from pydantic import BaseModel, ConfigDict, Field

from hikeshi import lock
from hikeshi.incident import deadline, permissions, store
from hikeshi.incident import state as states
from hikeshi.incident.clock import Kind
from hikeshi.incident.journal import Journal
from hikeshi.site import PermissionName, Site


class BriefDeadline(BaseModel):
    """One deadline of a brief, counted from the customer's call."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    minutes: int = Field(gt=0)
    kind: Kind = "other"
    owner: str = Field(min_length=1)
    words: str = ""


class Brief(BaseModel):
    """What the customer said in the call with which an incident begins."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    by: str = Field(min_length=1)
    words: str = Field(min_length=1)
    permissions: dict[PermissionName, str] = {}  # name → the words that allow it; none by amount: see `permit`
    deadlines: dict[str, BriefDeadline] = {}


def begin(site: Site, name: str, by: str, words: str, *, again: bool = False) -> Journal:
    """Open an incident, or go on with one that was closed; return its journal."""
    now = datetime.now(UTC).astimezone(site.zone)
    with lock.held(site, "incident open"):  # a recovery ends in the journal in which it began
        if again:
            store.reopen(site, name, by, words)
        else:
            store.begin(site, name, by, words, now)
    journal = store.opened(site)
    permissions.take_over_standing(site, journal)
    carry(store.standing(site), journal)
    return journal


def by_brief(site: Site, brief: Brief, name: str) -> Journal:
    """Open an incident under this name as a brief says it, now being when the customer called; return its journal."""
    journal = begin(site, name, brief.by, brief.words)
    called = datetime.now(UTC)
    for allowed, words in brief.permissions.items():
        data = {"name": allowed, "by": brief.by, "words": words, "limit": None, "until": None, "standing": False}
        journal.append("permission.granted", data)
    for title, item in brief.deadlines.items():
        at = called + timedelta(minutes=item.minutes)
        deadline.set_or_move(
            site, journal, title, at, by=brief.by, why="", owner=item.owner, kind=item.kind, words=item.words
        )
    return journal


def carry(source: Journal, target: Journal) -> None:
    """Let one journal know what another has left to be put back: with its incident it must not be forgotten."""
    for item in states.derive(source.records()).items.values():
        target.append("item.opened", item.record.data)
        source.append(
            "item.closed", {"item": item.item, "words": f"{item.item}: to be put back, see {target.folder.name}"}
        )


def end(site: Site, by: str, words: str) -> None:
    """Close the open incident, whatever it left open, which goes along; nothing where none is open."""
    if store.open_folder(site) is None:
        return
    with lock.held(site, "incident close"):
        journal = store.opened(site)
        store.end(site, {"words": words, "by": by, "force": True, "left": [], "verified": {}})
        carry(journal, store.standing(site))
