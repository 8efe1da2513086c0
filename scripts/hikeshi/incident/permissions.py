"""What the customer allowed: granted, limited, refused, withdrawn, expired, used; and the sentence that asks for it."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, tzinfo
from typing import Any, get_args

from hikeshi.errors import RefusedError
from hikeshi.incident import clock, store
from hikeshi.incident.journal import Journal, Locked, Records
from hikeshi.incident.record import Record
from hikeshi.site import Permission, PermissionName, Site
from hikeshi.triage.findings import Step

NAMES: tuple[PermissionName, ...] = get_args(PermissionName)


@dataclass(frozen=True)
class Meaning:
    """What a permission allows, and how to ask for it. One `by_amount` is limited in money, others in uses."""

    allows: str
    ask: str
    by_amount: bool = False


# The one registry: an action that is not ours to decide names its permission here, and asks `require` before it begins.
REGISTRY: dict[PermissionName, Meaning] = {
    "reboot": Meaning(
        "restart a server", "May we restart the server? The shop is away for a few minutes, once, at a time you choose."
    ),
    "copy": Meaning(
        "copy a server with its data",
        "May we make a copy of the server, with your customers' data, to work on? It is removed afterwards.",
    ),
    "sorry": Meaning(
        "show the sorry page",
        "May we show every visitor the sorry page until the shop works? Nobody can buy meanwhile.",
    ),
    "hold-jobs": Meaning(
        "hold scheduled jobs back",
        "May we hold the scheduled jobs back until we are done? What comes due meanwhile is not run.",
    ),
    "data-loss": Meaning(
        "lose data",
        "May we put an older state back? What was entered since then is lost; we will say what.",
    ),
    "spend": Meaning("spend money", "May we spend money on this, and how much at most?", by_amount=True),
}


# Repair steps (role, step) that need one. None does yet: what they change is what we were called for.
STEPS: dict[tuple[str, str], PermissionName] = {}


@dataclass(frozen=True)
class Decision:
    """The customer's last word on one permission. `seq` is its record's number; `used` counts, `spent` sums.

    `limit` is the most that may be spent, of a permission that is not by amount how often it may be used.
    """

    name: PermissionName
    seq: int
    granted: bool
    by: str
    words: str
    at: str
    limit: float | None = None
    until: datetime | None = None
    standing: bool = False
    withdrawn: bool = False
    used: int = 0
    spent: float = 0.0
    doubt: int = 0  # the journal is damaged at this record, after or at the decision: the last word may be lost

    def why_not(self, now: datetime, amount: float = 0, zone: tzinfo = UTC) -> str:
        """Return why this does not allow an action now that takes an amount, or anything; empty when it does."""
        if self.doubt:
            return f"the journal is damaged at record {self.doubt}: it may have been taken back there"
        if self.withdrawn:
            return f"{self.by} withdrew it: “{self.words}”"
        if not self.granted:
            return f"{self.by} refused it: “{self.words}”"
        if self.until and now >= self.until:
            return f"it was granted until {self.until.astimezone(zone):%Y-%m-%d %H:%M %Z} only"
        if REGISTRY[self.name].by_amount:
            if self.limit is None:
                return "no amount was named"
            if self.spent + amount > self.limit:
                spent = f"{number(self.limit)}, of which {number(self.spent)} are spent"
                return f"it is limited to {spent}; this takes {number(amount)}"
        elif self.limit is not None and self.used >= self.limit:
            return f"it was granted for {number(self.limit)} times, and used {self.used} times"
        return ""

    def bounds(self, zone: tzinfo) -> str:
        """Return what it is bounded to, in words; empty when nothing bounds it."""
        return bounds(REGISTRY[self.name], self.limit, self.until, zone)


def bounds(meaning: Meaning, limit: float | None, until: datetime | None, zone: tzinfo) -> str:
    """Return what a permission is bounded to, in words; empty when nothing bounds it."""
    words = []
    if limit is not None:
        words.append(f"up to {number(limit)}" + ("" if meaning.by_amount else " times"))
    if until:
        words.append(f"until {until.astimezone(zone):%Y-%m-%d %H:%M %Z}")
    return ", ".join(words)


def number(value: float) -> str:
    """Return an amount or a count as people write it."""
    return f"{value:,.2f}".rstrip("0").rstrip(".")


def ledger(records: Iterable[Record]) -> dict[PermissionName, Decision]:
    """Return the last decision on each permission that records speak of. Pure.

    Of a damaged journal only decisions written after the last damage allow anything: an earlier one may have been taken
    back, or used up, by a record that is lost.
    """
    found: dict[PermissionName, Decision] = {}
    bad, sure = (records.bad or 0, records.sure) if isinstance(records, Records) else (0, 0)
    for index, record in enumerate(records):
        name = next((name for name in NAMES if name == record.data.get("name")), None)
        if name is None or not record.kind.startswith("permission."):
            continue
        try:
            if record.kind == "permission.used":
                known = found[name]
                spent = known.spent + float(record.data.get("amount") or 0)
                found[name] = replace(known, used=known.used + 1, spent=spent)
            elif record.kind != "permission.missing":
                found[name] = replace(_decision(name, record), doubt=bad if index < sure else 0)
        except (KeyError, TypeError, ValueError):
            continue  # written by somebody else than us; `verify` is for that
    return found


def _decision(name: PermissionName, record: Record) -> Decision:
    data = record.data
    return Decision(
        name,
        record.seq,
        granted=record.kind == "permission.granted",
        by=str(data["by"]),
        words=str(data["words"]),
        at=record.at,
        limit=float(data["limit"]) if data.get("limit") is not None else None,
        until=clock.read(data["until"]) if data.get("until") else None,
        standing=bool(data.get("standing")),
        withdrawn=record.kind == "permission.withdrawn",
    )


def unused(decisions: Mapping[PermissionName, Decision], now: datetime) -> list[Decision]:
    """Return what the customer allowed and nobody has used."""
    return [item for item in decisions.values() if not item.used and not item.why_not(now)]


def take_over_standing(site: Site, journal: Journal) -> None:
    """Write the site's standing permissions into a journal, where they are new or were changed since."""
    wanted = {name: journal.redacted(_standing_data(name, given)) for name, given in site.data.permissions.items()}
    records = journal.records()
    if records.bad:  # the record that is lost may be the customer's refusal: no file grants anything over it
        return
    if _missing_standing(wanted, records):
        with journal.locked() as ours:
            for kind, data in _missing_standing(wanted, ours.records()):
                ours.append(kind, data)


def _standing_data(name: str, given: Permission) -> dict[str, Any]:
    return {"name": name, **given.model_dump(), "until": given.until or None, "standing": True}


_DECISIONS = ("permission.granted", "permission.refused", "permission.withdrawn")


def _missing_standing(wanted: dict[PermissionName, dict[str, Any]], records: list[Record]) -> list[tuple[str, Any]]:
    """Return what must be written so that the journal knows the site's data.

    What the customer said in this incident stays the last word: no edit of a file takes it back.
    """
    last = {record.data.get("name"): record for record in records if record.kind in _DECISIONS}
    missing: list[tuple[str, Any]] = []
    for name in NAMES:
        said = last.get(name)
        if said and not said.data.get("standing"):
            continue
        granted = said is not None and said.kind == "permission.granted"
        if name in wanted and not (granted and said and {**said.data, **wanted[name]} == said.data):
            missing.append(("permission.granted", wanted[name]))
        elif name not in wanted and granted:
            words = "no longer in the site's data"
            missing.append(("permission.withdrawn", {"name": name, "by": "site.yml", "words": words, "standing": True}))
    return missing


def require(site: Site, name: PermissionName, action: str, *, amount: float = 0) -> Decision:
    """Return the permission that allows an action, its use written down; else raise RefusedError with what to ask.

    `action` says what is about to be done ("restart web1"); `amount` what it takes of a permission by amount. `--yes`
    has no say here.
    """
    if not math.isfinite(amount) or (amount > 0) != REGISTRY[name].by_amount:
        raise ValueError(f"to {action} takes {amount} of permission {name}")
    journal = store.journal(site)
    take_over_standing(site, journal)
    with journal.locked() as ours:  # or two would spend the same amount
        decision = ledger(ours.records()).get(name)
        why = decision.why_not(datetime.now(UTC), amount, site.zone) if decision else "nobody has allowed it"
        if decision and not why:
            ours.append("permission.used", {"name": name, "grant": decision.seq, "action": action, "amount": amount})
            return decision
        _refuse(site, ours, name, action, why)
    raise AssertionError("unreachable")


def missing(site: Site, name: PermissionName, amount: float = 0) -> str:
    """Return why an action would be refused for want of a permission; empty when it would not. Writes nothing."""
    known = ledger(store.journal(site).records()).get(name)
    if known is None and name in site.data.permissions:
        return ""
    why = known.why_not(datetime.now(UTC), amount, site.zone) if known else "nobody has allowed it"
    return f"permission '{name}' is needed: {why}" if why else ""


def used_for(records: Iterable[Record], name: PermissionName, mark: str) -> bool:
    """Say whether a permission was used by an action in whose words this mark stands: a killed one goes on by it."""
    used = (record.data for record in records if record.kind == "permission.used")
    return any(data.get("name") == name and mark in str(data.get("action")) for data in used)


def require_for(site: Site, steps: Iterable[Step]) -> None:
    """Require what each repair step of a plan needs, before the first of them is taken."""
    for step in steps:
        if name := STEPS.get((step.role, step.step)):
            require(site, name, f"take the step “{step.words}” on {step.host}")


def how_to_allow(site: Site, name: PermissionName) -> str:
    """Return the command that writes down what the customer allows; where no incident is open, it begins with that."""
    limit = " --limit AMOUNT" if REGISTRY[name].by_amount else ""
    first = "" if store.open_folder(site) else f"hikeshi incident open NAME --site {site.name}; then "
    return f"{first}hikeshi incident permit {name}{limit} --by WHO --words THEIR-WORDS --site {site.name}"


def _refuse(site: Site, ours: Locked, name: PermissionName, action: str, why: str) -> None:
    ask = REGISTRY[name].ask
    ours.append("permission.missing", {"name": name, "action": action, "why": why, "ask": ask})
    raise RefusedError(
        f"to {action} needs the customer's permission '{name}', and {why}. Ask the customer: “{ask}”",
        how_to_allow(site, name),
    )
