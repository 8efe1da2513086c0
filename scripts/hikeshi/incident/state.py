"""What the records of a journal add up to. A pure function: no file, no clock; whoever shows it brings the time."""

import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from zoneinfo import ZoneInfo

from hikeshi.incident import clock, journal, permissions
from hikeshi.incident.clock import Deadline
from hikeshi.incident.permissions import Decision
from hikeshi.incident.record import Record
from hikeshi.site import PermissionName

PEOPLE = ("lead", "hands", "timekeeper", "scribe")


@dataclass(frozen=True)
class Item:
    """Something that was taken out of its usual state and must be put back: a closed gate, held jobs, a copy."""

    item: str
    words: str
    close: str  # the command that closes it
    record: Record


@dataclass(frozen=True)
class Look:
    """What one probe saw at its last look, and the record that says so."""

    result: dict[str, Any]
    record: Record

    @property
    def red(self) -> bool:
        """Whether the probe failed."""
        return not self.result.get("passed")


@dataclass
class State:
    """An incident, or a site's quiet days, as the journal tells it."""

    site: str = ""
    name: str = ""
    opened: Record | None = None
    closed: Record | None = None
    deadlines: dict[str, Deadline] = field(default_factory=dict)
    permissions: dict[PermissionName, Decision] = field(default_factory=dict)
    people: dict[str, str] = field(default_factory=dict)  # role → name
    looks: dict[str, dict[str, Look]] = field(default_factory=dict)  # view → probe → its last look
    findings: Record | None = None
    agenda: Record | None = None  # of the last look at what is scheduled
    disks: dict[str, Record] = field(default_factory=dict)  # host → the same of the disk of its copy, since then
    originals: dict[str, Record] = field(default_factory=dict)  # host → the first such look: what its own disk has
    swapped: set[str] = field(default_factory=set)  # hosts that run from the disk of their copy
    held: set[tuple[str, str]] = field(default_factory=set)  # host and id of jobs that were held since that look
    items: dict[str, Item] = field(default_factory=dict)
    unfinished: list[Record] = field(default_factory=list)  # starts of actions that have no end
    did: list[Record] = field(default_factory=list)  # what people want to read, in order
    records: int = 0
    bad: int | None = None  # the first bad record of a damaged journal

    @property
    def standing(self) -> list[Deadline]:
        """The deadlines that are neither met nor dropped, the next one first."""
        return [deadline for deadline in self.deadlines.values() if not deadline.ended]

    def left_open(self) -> list[str]:
        """Return what is still open, in words with the command that closes it; empty when all may go home."""
        words = [f"{item.words} ({item.close})" for item in self.items.values()]
        words += [
            f"deadline {deadline.name} of {deadline.owner} is neither met nor dropped"
            f" (hikeshi incident deadline {shlex.quote(deadline.name)} --met)"
            for deadline in self.standing
        ]
        return words


_ACTIONS = ("stage", "run", "recovery", "probe", "baseline", "gate", "jobs", "copy", "rescue", "count")

# Too many and too small to be read one by one, as is what went well of runs and probes; they stand in the journal, and
# in what is derived from them.
_QUIET = (
    "journal.begun",
    "deadline.warned",
    "run.start",
    "recovery.start",
    "rescue.start",
    "stage.start",
    "probe.start",
    "baseline.start",
    "gate.start",
    "jobs.start",
    "copy.start",
    "count.start",
    "agenda",
    "task",
)


def derive(records: Sequence[Record]) -> State:
    """Return the state that records add up to."""
    state = State(
        deadlines=clock.deadlines(records),
        permissions=permissions.ledger(records),
        unfinished=journal.unfinished(records),
        records=len(records),
        bad=records.bad if isinstance(records, journal.Records) else None,
    )
    for record in records:
        _add(state, record)
    return state


def _add(state: State, record: Record) -> None:
    data = record.data
    if record.kind == "journal.begun":
        state.site = str(data.get("site"))
    elif record.kind == "incident.opened":
        state.name, state.opened, state.closed = str(data.get("folder") or data.get("name")), record, None
    elif record.kind == "incident.closed":
        state.closed = record
    elif record.kind == "incident.reopened":
        state.closed = None
    elif record.kind == "person":
        state.people[str(data.get("role"))] = str(data.get("name"))
    elif record.kind == "probes":
        seen = {str(item.get("id")): Look(item, record) for item in dicts(data.get("results"))}
        state.looks.setdefault(str(data.get("view")), {}).update(seen)
    elif record.kind == "findings":
        state.findings = record
    elif record.kind == "agenda" and data.get("disk"):
        host = str(record.host)
        state.disks[host] = record
        if host not in state.originals or state.originals[host].data.get("disk") != data["disk"]:
            state.originals[host] = record
        state.held = {job for job in state.held if job[0] != host}
    elif record.kind == "agenda":
        # Of a host that told nothing, what its copy's disk told is still the best that is known.
        silent = {str(host) for host in data["silent"]} if isinstance(data.get("silent"), list) else set()
        state.agenda, state.held = record, {job for job in state.held if job[0] in silent}
        state.disks = {host: seen for host, seen in state.disks.items() if host in silent}
        state.originals = {host: seen for host, seen in state.originals.items() if host in silent}
    elif record.kind == "copy.end" and data.get("outcome") == "done" and data.get("step") in ("swap-in", "swap-back"):
        (state.swapped.add if data["step"] == "swap-in" else state.swapped.discard)(str(record.host))
    elif record.kind in ("jobs.held", "jobs.released"):
        told = {(str(item.get("host")), str(item.get("id"))): item.get("result") for item in dicts(data.get("jobs"))}
        if record.kind == "jobs.held":
            state.held |= {job for job, result in told.items() if result in ("held", "already held")}
        else:
            state.held -= {job for job, result in told.items() if result not in ("came due", "refused", "failed")}
    elif record.kind == "item.opened":
        name = str(data.get("item"))
        state.items[name] = Item(name, str(data.get("words")), str(data.get("close")), record)
    elif record.kind == "item.closed":
        state.items.pop(str(data.get("item")), None)
    went_well = record.kind in ("run.end", "probe.end", "jobs.end") and data.get("outcome") == "done"
    if record.kind not in _QUIET and not went_well:
        if data.get("why") and state.did and state.did[-1].data.get("why") == data["why"]:
            state.did.pop()  # a run that failed, its stage and its recovery say the same: the last word is enough
        state.did.append(record)


def dicts(value: object) -> list[dict[str, Any]]:
    """Return the mappings of a list that came out of a journal, whatever it is."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def words(value: object) -> str:
    """Return a text that came out of a journal; of one that was kept apart, how it begins."""
    if isinstance(value, dict) and "blob" in value:
        return f"{value.get('begins')}… (blobs/{str(value['blob'])[:12]}…)"
    return "" if value is None else str(value)


def told(record: Record, zone: ZoneInfo | None = None) -> str:
    """Return in one line what a record says happened; its times in a time zone, or as they are written."""
    return _told(record, zone).replace("\n", "\\n")


def _told(record: Record, zone: ZoneInfo | None) -> str:
    data = record.data
    get = {key: words(value) for key, value in data.items()}
    with suppress(KeyError, ValueError):
        if zone:
            get["at"] = f"{clock.read(get['at']).astimezone(zone):%Y-%m-%d %H:%M}"
    match record.kind:
        case "incident.opened":
            return f"opened incident {get.get('name')}: {get.get('words') or 'no words of the customer'}"
        case "incident.closed":
            return "closed the incident" + (" by force" if data.get("force") else "")
        case "incident.reopened":
            return f"opened the incident again: {get.get('words') or 'no words why'}"
        case "note":
            return f"note: {get.get('words')}"
        case "person":
            return f"{get.get('name')} is {get.get('role')}"
        case "deadline.set":
            return f"deadline {get.get('name')} set to {get.get('at')} for {get.get('owner')}"
        case "deadline.moved":
            return f"deadline {get.get('name')} moved to {get.get('at')}: {get.get('why')}"
        case "deadline.handed":
            return f"deadline {get.get('name')} handed from {get.get('before')} to {get.get('owner')}: {get.get('why')}"
        case "deadline.ended":
            return f"deadline {get.get('name')} {get.get('how')}"
        case "late.drafted":
            return f"drafted for the customer: {get.get('words')}"
        case "permission.granted" | "permission.refused" | "permission.withdrawn":
            return f"{get.get('by')} {record.kind.partition('.')[2]} {get.get('name')}: “{get.get('words')}”"
        case "permission.used":
            return f"used permission {get.get('name')} to {get.get('action')}"
        case "permission.missing":
            return f"stopped: to {get.get('action')} needs permission {get.get('name')}; {get.get('why')}"
        case "probes":
            results = dicts(data.get("results"))
            red = sum(not item.get("passed") for item in results)
            return f"probed ({get.get('view')}): {red} of {len(results)} red"
        case "findings":
            found = data.get("found")
            refused = len(dicts(data.get("refused")))
            return f"looked: {words(found) if isinstance(found, dict) else f'{len(dicts(found))} findings'}" + (
                f", {refused} hosts could not be judged" if refused else ""
            )
        case "jobs.held" | "jobs.released":
            return _jobs(record)
        case "copy.told":
            return f"told of {get.get('copy')}, {get.get('step')}: {get.get('words')}"
        case "item.opened" | "item.closed":
            return get.get("words") or f"{get.get('item')} {record.kind.partition('.')[2]}"
        case "flood":
            return f"{get.get('kind')}: {get.get('words')}"
        case "flood.over":
            return "nobody asks much any more" if get.get("kind") == "much" else f"the {get.get('kind')} is over"
        case "watch.failed":
            return f"nobody watches for a flood: {get.get('why')}"
        case "lock.taken":
            return f"took over from {get.get('owner')}, who died in the middle"
        case "evidence.saved":
            return f"saved evidence: {get.get('why')}"
        case "journal.torn":
            return f"set {get.get('bytes')} bytes of a killed writer aside"
        case "stage.skipped":
            return f"skipped {get.get('stage')}: {get.get('why')}"
    kind, _, event = record.kind.partition(".")
    by_step = f"{kind} {get.get('step')}" if kind == "jobs" else f"{get.get('step')} {get.get('copy')}"
    what = get.get("stage") or get.get("playbook") or (by_step if kind in ("jobs", "copy") else kind)
    if data.get("check") or data.get("plan"):
        what = f"{what}, of which nothing is carried out,"
    if kind in _ACTIONS and event == "start":
        return f"{what} begun"
    if kind in _ACTIONS and event == "end":
        why = f": {get['why']}" if get.get("why") else ""
        if "healthy" in data:
            why = (", healthy" if data["healthy"] else ", not healthy") + why
        return f"{what} {get.get('outcome')} in {get.get('seconds')} s{why}"
    return f"{record.kind} {' '.join(f'{key}={value}' for key, value in get.items())}"


def _jobs(record: Record) -> str:
    """Return what became of scheduled jobs; of those that came due while they were held, when they would have run."""
    found, verb = dicts(record.data.get("jobs")), record.kind.partition(".")[2]
    failed = sum(item.get("result") in ("failed", "refused") for item in found)
    missed = [f"{item.get('host')} {item.get('id')} at {item.get('due')}" for item in found if item.get("missed")]
    told = f"{verb} {len(found) - failed} jobs" + (f", {failed} could not be" if failed else "")
    return told + (f"; came due meanwhile and were not run: {', '.join(missed)}" if missed else "")
