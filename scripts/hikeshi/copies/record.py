"""What is known of a copy: one private file each, written whole before what it names is begun.

It is the only truth about how far a copy has come; the cloud is asked whether a thing is there, never what it means.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hikeshi.errors import HikeshiError, UsageError
from hikeshi.files import sync_folder, write_private
from hikeshi.incident.journal import explained
from hikeshi.site import CloudName, DiskPath, Site, shown

FOLDER = "copies"
# making: nothing of it is trusted · made: whole at the cloud, to be verified · verified: never written from now on ·
# deleting: to be removed to the end.
State = Literal["making", "made", "verified", "deleting"]
# making: to be made anew · ready: nobody has its disk · open: a bench has it.
WorkState = Literal["", "making", "ready", "open"]
# sealing: the original is untouched · in: towards the mended disk · proven · back: towards the original ·
# committed: the mended disk is the host's own, and the original goes with the copy.
SwapState = Literal["sealing", "in", "proven", "back", "committed"]
# up: its machine may be there, and is removed by the next call · passed, failed: what it proved of this very seal.
RehearsalState = Literal["", "up", "passed", "failed"]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_assignment=True)


class Size(_Record):
    """How much a disk held, counted at one moment."""

    files: int
    bytes: int


class Disk(_Record):
    """A data disk of the instance: its name at the cloud, where it was mounted, and what it held when it was copied."""

    name: CloudName
    path: DiskPath
    held: Size | None = None  # None: nobody counted


class Taken(_Record):
    """What the cloud made: the name of the system disk's copy, of which moment, and the data disks."""

    disk: Annotated[str, Field(min_length=1, max_length=300)]
    at: datetime
    disks: list[Disk] = []
    left_out: list[str] = []  # what of the instance is in no copy


class Check(_Record):
    """One thing that was verified, and what was seen."""

    what: str
    ok: bool
    words: str


class Swap(_Record):
    """A swap under way: which machine is the original, which one has the mended disk."""

    state: SwapState
    mark: str  # tells this swap from others of the same copy
    original: str = ""
    mended: str = ""
    carried: list[str] = []  # data that was taken along, on the way that `state` says
    started: bool = False  # whether the mended machine was: only then it may hold what the original has not
    rehearsal: RehearsalState = ""
    green: list[str] = []  # probes that passed on the original just before it was stopped


class Repaired(_Record):
    """What was done to the disk of a working copy since that was made; written before it is done."""

    digests: dict[str, str]  # roles, playbooks, variables → digest of what it was done with
    steps: list[dict[str, Any]] = []  # repair steps, in order, as a plan has them
    passed: datetime | None = None  # when a rehearsal proved all of it
    held_until: datetime | None = None  # up to when nothing goes off on that disk; None: what would was left there


class Copy(_Record):
    """A copy of one instance."""

    id: CloudName
    host: str
    instance: CloudName
    driver: str
    state: State
    begun: datetime
    expires: datetime
    taken: Taken | None = None
    size: Size | None = None  # of all of it, as it was read
    digest: str = ""  # of all of it
    checks: list[Check] = []
    work: WorkState = ""
    repaired: Repaired | None = None
    swap: Swap | None = None
    asked: str = ""  # what a person was last asked to do by hand
    told: dict[str, str] = {}  # what a person did by hand, and what was said of it

    @property
    def stamp(self) -> str:
        """What tells this copy from others of its host."""
        return self.id.removeprefix(f"{self.host}-")

    @property
    def swapped(self) -> bool:
        """Whether the site may run from it, or is on its way there or back."""
        return self.swap is not None and self.swap.state not in ("sealing", "committed")


def stamp(now: datetime) -> str:
    """Return the part of an id that says when, to the millisecond: no id is ever used twice."""
    return now.astimezone(UTC).strftime("%Y%m%dt%H%M%S%f")[:-3]


def folder(site: Site) -> Path:
    """Return where the files of a site's copies are."""
    return site.records / FOLDER


def save(site: Site, copy: Copy) -> None:
    """Have what is known of a copy on disk."""
    with explained(f"what is known of copy {copy.id}, in {shown(folder(site))},", folder(site)):
        write_private(folder(site) / f"{copy.id}.json", copy.model_dump_json(indent=2) + "\n")


def forget(site: Site, copy: Copy) -> None:
    """Take the files of a copy away; nothing of it is left at the cloud."""
    forget_first(site, copy)
    (folder(site) / f"{copy.id}.json").unlink(missing_ok=True)
    sync_folder(folder(site))


def first(site: Site, copy: Copy, state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the state that its working copy's disk had before anything was changed there: this one, the first time."""
    path = folder(site) / f"{copy.id}.first"
    with suppress(OSError, ValueError):
        kept = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(kept, dict) and isinstance(kept.get("facts"), dict) and isinstance(kept.get("texts"), dict):
            return kept
    with explained(f"what the disk of copy {copy.id} was like, in {shown(folder(site))},", folder(site)):
        write_private(path, json.dumps(state))
    return state


def forget_first(site: Site, copy: Copy) -> None:
    """Take away what is known of a working copy that is made anew."""
    (folder(site) / f"{copy.id}.first").unlink(missing_ok=True)


def read_all(site: Site, host: str = "") -> list[Copy]:
    """Return the copies there are, of a host or of all, the oldest first."""
    found = [_read(path) for path in folder(site).glob("*.json")]
    return sorted((copy for copy in found if host in ("", copy.host)), key=lambda copy: (copy.begun, copy.id))


def _read(path: Path) -> Copy:
    try:
        return Copy.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        what = error.errors(include_url=False)[0] if isinstance(error, ValidationError) else {"msg": str(error)}
        where = ".".join(map(str, what.get("loc", ())))
        raise HikeshiError(
            f"{shown(path)} does not tell what became of a copy: {where}{': ' * bool(where)}{what['msg']}.",
            "put that file right; or look at the cloud's control panel for what bears its name, remove it there, "
            f"then rm {shown(path)}",
        ) from error


def find(site: Site, ident: str) -> Copy:
    """Return the copy of this id."""
    known = read_all(site)
    for copy in known:
        if copy.id == ident:
            return copy
    raise UsageError(
        f"there is no copy '{ident}'; there are: {', '.join(copy.id for copy in known) or 'none'}.",
        f"hikeshi copy --list --site {site.name}",
    )
