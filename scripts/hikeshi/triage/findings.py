"""Judge evidence: what is wrong, what it means for the customer, and the remedy as data."""

import importlib
import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any, Literal

from hikeshi.triage import rules

Evidence = Mapping[str, Any]  # of one host: roles/evidence/library/collect_evidence.py, schema 1
SCHEMA = 1


class Effect(IntEnum):
    """What a finding means for the shop's customer, worst first."""

    CANNOT_BUY = 1
    CANNOT_SEE = 2
    CANNOT_BE_REPAIRED = 3
    WILL_BREAK = 4
    UNTIDY = 5

    @property
    def words(self) -> str:
        """The same in words, to be read after "the customer"."""
        return _EFFECTS[self]


_EFFECTS = {
    Effect.CANNOT_BUY: "cannot buy",
    Effect.CANNOT_SEE: "cannot see",
    Effect.CANNOT_BE_REPAIRED: "waits longer: repairs need this",
    Effect.WILL_BREAK: "will be cut off soon or at the next restart",
    Effect.UNTIDY: "notices nothing",
}


@dataclass(frozen=True)
class Step:
    """One repair step: `kind` disk (valid with the system off) or live. `args` are the step's own.

    A `late` step leans on all that is mended before it, on whatever host: a job that reads another host's database.
    """

    host: str
    role: str
    step: str
    kind: Literal["disk", "live"]
    args: Mapping[str, str] = field(default_factory=dict)
    late: bool = False

    @property
    def key(self) -> tuple[str, str, str, str, tuple[tuple[str, str], ...]]:
        """Identity of a step: two findings that want the same step get it once."""
        return self.host, self.role, self.step, self.kind, tuple(sorted(self.args.items()))

    @property
    def words(self) -> str:
        """The step in one line; of a digest, how it begins."""
        arguments = " ".join(f"{name}={value}" for name, value in self.args.items())
        return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1…", f"{self.role}: {self.step} {arguments}".rstrip())


@dataclass(frozen=True)
class Finding:
    """A judgement on one host's evidence.

    `subject` is what it is about (`unit:NAME`, `path:PATH`, `mount:PATH`, `config:NAME`, `lock:PATH`,
    `disk:MOUNT`, `name:NAME`, `login:FILE`, `connections:UNIT`, `table:DATABASE.TABLE`, `answer:URL`,
    `listen:SOCKET` or `listen:ADDRESS:PORT`, `reach:NAME:PORT`, `firewall:icmpv6`, `firewall:PATH` of saved rules,
    `account:NAME`, `access:PATH` of a file that decides who gets in, `host_key:TYPE`);
    `id` is rule and subject; `quote` is the evidence itself, as it was seen. `explains` are subjects of the same host
    that suffer from it; a `symptom` says that something does not work and not why, and is folded into what explains it.
    """

    rule: str
    host: str
    subject: str
    effect: Effect
    cause: str
    quote: str
    remedy: tuple[Step, ...]
    explains: tuple[str, ...] = ()
    symptom: bool = False

    @property
    def id(self) -> str:
        """Identity of the finding, the same each time it is found."""
        return f"{self.rule}/{self.subject}"


def effect_of_down(subject: Evidence) -> Effect:
    """Return what it means that a subject's service is down: ssh, say, serves the operators and not the customers."""
    others = {"operators": Effect.CANNOT_BE_REPAIRED, "back_office": Effect.UNTIDY}
    return others.get(subject.get("serves", "customers"), Effect.CANNOT_BUY)


def effect_of_risk(subject: Evidence) -> Effect:
    """Return what it means that a subject's service still does its work, but not for long."""
    return Effect.UNTIDY if subject.get("serves") == "back_office" else Effect.WILL_BREAK


Rule = Callable[[Evidence], Iterator[Finding]]
Healthy = Mapping[str, Mapping[str, Any]]  # host → {facts, texts} of a healthy day, as a baseline has them


def on_disk(evidence: Evidence) -> bool:
    """Say whether evidence is of a disk whose system does not run: what runs has booted."""
    return not evidence.get("boot")


def all_rules(*, disk: bool = False) -> list[Rule]:
    """Return every rule: the function `find` of every module in `triage/rules/`, by name.

    With `disk` only those that can judge the evidence of a disk: they say so (`ON_DISK`).
    """
    names = sorted(module.name for module in pkgutil.iter_modules(rules.__path__))
    modules = [importlib.import_module(f"{rules.__name__}.{name}") for name in names]
    return [module.find for module in modules if not disk or getattr(module, "ON_DISK", False)]


def judge(evidence: Mapping[str, Evidence], healthy: Healthy | None = None) -> list[Finding]:
    """Return the findings on all hosts, worst first, then by host and subject. Deterministic.

    What a healthy day knew of a host stands in its evidence under `healthy`, whatever the host itself says there.
    """
    return _judge(evidence, healthy, all_rules())


def judge_disk(evidence: Mapping[str, Evidence], healthy: Healthy | None = None) -> list[Finding]:
    """Return the findings on disks, by host, as `judge` does: by the rules that can, with disk steps alone."""
    found = _judge(evidence, healthy, all_rules(disk=True))
    return [replace(item, remedy=tuple(step for step in item.remedy if step.kind == "disk")) for item in found]


def _judge(evidence: Mapping[str, Evidence], healthy: Healthy | None, wanted: Sequence[Rule]) -> list[Finding]:
    known = {host: {**evidence[host], "healthy": (healthy or {}).get(host)} for host in sorted(evidence)}
    return ordered([finding for seen in known.values() for rule in wanted for finding in rule(seen)])


def ordered(found: Iterable[Finding]) -> list[Finding]:
    """Return findings worst first, then by host and subject."""
    return sorted(found, key=lambda finding: (finding.effect, finding.host, finding.subject, finding.rule))


def fold(found: Sequence[Finding]) -> list[tuple[Finding, list[Finding]]]:
    """Return the causes, each with the symptoms that follow from it, in the order of the worst that each brings about.

    Nothing is left out. A cause may be harmless in itself: what its symptoms do to the customer counts.
    """
    roots = [_root(number, found) for number in range(len(found))]
    folded = [
        (found[cause], [found[number] for number, root in enumerate(roots) if root == cause != number])
        for cause in sorted(set(roots))
    ]
    return sorted(folded, key=lambda group: worst(*group))


def worst(cause: Finding, symptoms: Sequence[Finding]) -> Effect:
    """Return the worst that a cause and what follows from it mean for the customer."""
    return min(item.effect for item in (cause, *symptoms))


def _root(number: int, found: Sequence[Finding]) -> int:
    """Return which finding explains this one, or what explains it, and so on; itself when nothing does."""
    passed = {number}
    while (cause := _cause(found[number], found)) is not None:
        if cause in passed:  # they explain each other: the first of them stands for all
            return min(passed)
        passed.add(cause)
        number = cause
    return number


def _cause(finding: Finding, found: Sequence[Finding]) -> int | None:
    if not finding.symptom:
        return None
    explaining = (
        number for number, other in enumerate(found)
        if other is not finding and other.host == finding.host and finding.subject in other.explains
    )  # fmt: skip
    return next(explaining, None)


def unreadable(evidence: Mapping[str, Evidence]) -> list[str]:
    """Return what could not be seen, in sentences; what was not looked at is not healthy."""
    return [
        f"{host}: {item['source']} could not be read: {item['why']}"
        for host in sorted(evidence)
        for item in evidence[host].get("unseen", [])
    ]
