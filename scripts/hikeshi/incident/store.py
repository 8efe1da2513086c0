"""Where a site's incident lies: its folder, and which one is open."""

import os
import re
from datetime import datetime
from pathlib import Path

from hikeshi.errors import HikeshiError, MisconfiguredError, RefusedError, UsageError
from hikeshi.files import make_private_folder
from hikeshi.incident.journal import NAME, OPEN, Journal, explained
from hikeshi.incident.record import BadRecord, Record, parse
from hikeshi.site import Site, shown, site_secrets
from hikeshi.text import Redactor, well_formed

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,40}")


def open_folder(site: Site) -> Path | None:
    """Return the folder of the site's open incident; None while none is open."""
    return _open_in(site.records)


def _open_in(records: Path) -> Path | None:
    link = records / OPEN
    try:
        return _standing_open(records.parent / link.readlink().name, link)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HikeshiError(
            f"{shown(records.parent)} cannot be read: {error.strerror}.",
            f"ls -ld {shown(records.parent)}/* {shown(link)}",
        ) from error


def _standing_open(folder: Path, link: Path) -> Path:
    """Return the folder of the open incident; refuse one whose journal is gone."""
    try:
        emptied = (folder / NAME).stat().st_size == 0
        lost = f"record 1 of {shown(folder / NAME)} is missing" if emptied else ""
    except FileNotFoundError:
        lost = f"{shown(folder / NAME)} is missing"
    if lost:
        raise MisconfiguredError(
            f"the open incident's journal is gone: {lost}.",
            f"put {shown(folder)} back; or, to go on without it: rm {shown(link)}",
        )
    return folder


def folder(site: Site) -> Path:
    """Return where records go now: the open incident's folder, else the site's own."""
    return open_folder(site) or site.records


def journal(site: Site) -> Journal:
    """Return the journal that records go to now: the open incident's, else the site's standing one."""
    return _journal(site, folder(site))


def journal_in(records: Path, name: str) -> Journal:
    """Return the same for a site that need not be there; what is written there must hold no secret of it."""
    return Journal(_open_in(records) or records, about={"site": name, "records": records.name})


def standing(site: Site) -> Journal:
    """Return the site's standing journal."""
    return _journal(site, site.records)


def opened(site: Site) -> Journal:
    """Return the open incident's journal; raise RefusedError while none is open."""
    found = open_folder(site)
    if found is None:
        raise RefusedError(
            f"no incident of site {site.name} is open; this would be lost with the next one.",
            f"hikeshi incident open NAME --site {site.name}",
        )
    return _journal(site, found)


def folders(site: Site) -> list[str]:
    """Return the names of the site's journals, its own and its incidents'; one without a first record is anybody's."""
    names = []
    for path in sorted(site.records.parent.glob(f"*/{NAME}")):
        try:
            with path.open("rb") as handle:
                ours = parse(handle.readline().rstrip(b"\n")).data.get("records") == site.records.name
        except (OSError, BadRecord):
            ours = True
        if ours:
            names.append(path.parent.name)
    return names


def begin(site: Site, name: str, by: str, words: str, now: datetime) -> Path:
    """Open an incident; `now` is in the site's time zone. One that was left half opened is taken up again."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"'{name}' cannot name an incident; allowed: up to 41 small letters, digits and hyphens.",
            "hikeshi incident open tv-day",
        )
    standing(site).records()  # refuses one that was emptied, before anything is opened that it could not tell of
    with standing(site).locked() as ours:
        _refuse_second(site)
        made = site.records.parent / f"{now:%Y-%m-%d}-{name}"
        inner = _journal(site, made)
        if (made / NAME).exists() and not _left_half_opened(inner.records(), site):
            raise UsageError(
                f"{shown(made)} exists already.",
                f"hikeshi incident open {name} --again --site {site.name}, to go on with it; for a new one "
                f"hikeshi incident open {name}-2 --site {site.name}",
            )
        inner.append(
            "incident.opened", {"site": site.name, "title": site.data.title, "name": name, "by": by, "words": words}
        )
        with explained(f"the pointer to the open incident, {site.records / OPEN},", site.records):
            _point(site, made)
        ours.append("incident.opened", {"folder": made.name, "name": name, "by": by, "words": words})
    return made


def reopen(site: Site, name: str, by: str, words: str) -> Path:
    """Go on with an incident that was closed, named with or without its date; of several the newest."""
    standing(site).records()  # as above
    with standing(site).locked() as ours:
        _refuse_second(site)
        known = [found for found in folders(site) if found != site.records.name]
        named = [found for found in known if name in (found, undated(found))]
        if not named:
            raise UsageError(
                f"no incident '{well_formed(name)}' of site {site.name}; there are: {', '.join(known) or 'none'}.",
                f"hikeshi incident open {well_formed((known or ['NAME'])[-1])} --again --site {site.name}",
            )
        target = site.records.parent / named[-1]
        _journal(site, target).append("incident.reopened", {"by": by, "words": words})
        with explained(f"the pointer to the open incident, {site.records / OPEN},", site.records):
            _point(site, target)
        ours.append("incident.reopened", {"folder": target.name, "by": by, "words": words})
    return target


def end(site: Site, data: dict[str, object]) -> None:
    """Close the open incident; `data` is written into its last record."""
    inner = opened(site)
    inner.append("incident.closed", data)
    with explained(f"the pointer to the open incident, {site.records / OPEN},", site.records):
        (site.records / OPEN).unlink(missing_ok=True)
    standing(site).append("incident.closed", {"folder": inner.folder.name, **data})


def undated(folder: str) -> str:
    """Return the name of an incident, without the date that its folder has before it."""
    return folder[len("2026-11-25-") :]


def _refuse_second(site: Site) -> None:
    if already := open_folder(site):
        raise RefusedError(f"incident {already.name} is open.", f"hikeshi incident close --site {site.name}")


def _journal(site: Site, where: Path) -> Journal:
    return Journal(where, Redactor(site_secrets(site)), {"site": site.name, "records": site.records.name})


def _left_half_opened(records: list[Record], site: Site) -> bool:
    """Return whether somebody died between making this site's incident and pointing at it."""
    kinds = {record.kind for record in records}
    ours = bool(records) and records[0].data.get("records") == site.records.name
    return ours and kinds <= {"journal.begun", "journal.torn", "incident.opened"}


def _point(site: Site, target: Path) -> None:
    temporary = site.records / f".{OPEN}-{os.getpid()}"
    make_private_folder(site.records)
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(Path("..") / target.name)
    temporary.replace(site.records / OPEN)
