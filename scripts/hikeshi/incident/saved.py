"""Evidence before stopping: nothing is stopped or held before what it would take away is saved off the host."""

import re
from collections.abc import Sequence
from typing import Any

from hikeshi import runner
from hikeshi.errors import HikeshiError, UsageError
from hikeshi.incident import store
from hikeshi.incident.record import Record
from hikeshi.site import Site

# Names go into variables of a playbook, which Ansible would read as templates: only what systemd itself writes.
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]{1,255}")
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# Where at, cron and anacron keep what is to come: stopping them, or holding a job, is what changes it.
SPOOLS = ("/var/spool/cron/atjobs", "/var/spool/cron/crontabs", "/etc/crontab", "/etc/cron.d", "/var/spool/anacron")


def save_before(site: Site, host: str, units: Sequence[str], why: str) -> Record:
    """Save the state and recent log of units, and the spool, of a host into the incident; return the record of it.

    `why` says what comes next ("stop mariadb.service"). Raise HikeshiError when it cannot be saved: then nothing may be
    stopped. What the host could not tell is in the record's `unseen`.
    """
    if not _HOST.fullmatch(host) or not all(_UNIT.fullmatch(unit) for unit in units):
        raise UsageError(f"host {host!r} or a unit of {list(units)!r} has no proper name.")
    subject = {
        "role": "saved",
        "units": [{"name": unit, "enabled": False} for unit in units],
        "paths": [{"path": path} for path in SPOOLS],
    }
    result = runner.run(site, "collect-evidence.yml", verb="save", limit=host, extra={"evidence_subjects": [subject]})
    seen = result.returned.get(host)
    if not result.ok or not seen:
        words = result.failures[0].message if result.failures else result.output[-400:]
        raise HikeshiError(
            f"the evidence of {host} could not be saved, so it was not begun to {why}: {words}",
            "mend what it names, then run the same command again",
        )
    journal = store.journal(site)
    return journal.append(
        "evidence.saved",
        {"units": list(units), "why": why, "evidence": _kept(seen), "unseen": _unseen(seen, units)},
        host=host,
    )


def _kept(seen: dict[str, Any]) -> dict[str, Any]:
    """Return the parts that stopping something changes; the run's own record has everything."""
    return {key: seen.get(key) for key in ("at", "boot", "units", "paths", "errors")}


def _unseen(seen: dict[str, Any], units: Sequence[str]) -> list[str]:
    known = seen.get("units") or {}
    missing = [f"{unit}: not asked" for unit in units if unit not in known]
    return missing + [f"{item.get('source')}: {item.get('why')}" for item in seen.get("unseen") or []]
