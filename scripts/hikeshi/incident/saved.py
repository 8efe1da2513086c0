"""Evidence before stopping: nothing is stopped or held before what it would take away is saved off the host."""

import json
import re
from collections.abc import Sequence

from hikeshi import runner
from hikeshi.errors import HikeshiError, UsageError
from hikeshi.incident import store
from hikeshi.incident.record import Record
from hikeshi.site import Site

# Names go into variables of a playbook, which Ansible would read as templates: only what systemd itself writes.
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]{1,255}")
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# Where at, cron, anacron and shutdown keep what is to come: stopping them, or holding a job, is what changes it.
SPOOLS = (
    "/var/spool/cron/atjobs",
    "/var/spool/cron/crontabs",
    "/etc/crontab",
    "/etc/cron.d",
    "/etc/anacrontab",
    "/etc/cron.hourly",
    "/etc/cron.daily",
    "/etc/cron.weekly",
    "/etc/cron.monthly",
    "/var/spool/anacron",
    "/run/systemd/shutdown/scheduled",
)


def save_before(site: Site, hosts: Sequence[str], units: Sequence[str], why: str) -> list[Record]:
    """Save the state and recent log of units, and the spools, of hosts into the incident; return the records of it.

    `why` says what comes next ("stop mariadb.service"). Raise HikeshiError when it cannot be saved of each of them:
    then nothing may be stopped. What a host could not tell is in its record's `unseen`.
    """
    if not hosts or not all(_HOST.fullmatch(host) for host in hosts) or not all(map(_UNIT.fullmatch, units)):
        raise UsageError(f"a host of {list(hosts)!r} or a unit of {list(units)!r} has no proper name.")
    asked = {"evidence_units": list(units), "evidence_spools": list(SPOOLS)}
    result = runner.run(site, "save-evidence.yml", verb="save", limit=",".join(hosts), extra=asked)
    silent = [host for host in hosts if not result.returned.get(host)]
    if not result.ok or silent:
        words = result.failures[0].message if result.failures else result.output[-400:]
        raise HikeshiError(
            f"the evidence of {', '.join(silent or hosts)} could not be saved, so it was not begun to {why}: {words}",
            "mend what it names, then run the same command again",
        )
    # As a text of its own: whatever a host says, it must not look like something that our records vouch for.
    journal, records = store.journal(site), []
    for host in hosts:
        seen = result.returned[host]
        told = {"evidence": journal.keep(json.dumps(seen)), "unseen": [str(item) for item in seen.get("unseen") or []]}
        records.append(journal.append("evidence.saved", {"units": list(units), "why": why, **told}, host=host))
    return records
