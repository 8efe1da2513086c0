"""Partials in, figures out. Pure: no host, no file, no clock."""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal

from hikeshi.access.window import Window
from hikeshi.errors import HikeshiError

Role = Literal["lb", "web"]
ROLES: dict[str, Role] = {"l": "lb", "w": "web"}
CLASSES = {"p": "people", "b": "bots", "m": "probes", "h": "checks", "n": "no_request"}
KINDS = ("page", "picture", "asset", "other", "none")
OUTCOMES = ("served", "local", "sorry", "refused", "failed", "unreached", "aborted", "left")


@dataclass
class Sums:
    """What adds up over some time at one side, load balancer or web servers. Each breakdown sums up to `hits`."""

    hits: int = 0
    size: int = 0
    classes: Counter[str] = field(default_factory=Counter)  # people, declared bots, probes, checks, no request
    kinds: Counter[str] = field(default_factory=Counter)  # of people: what they asked for
    statuses: Counter[str] = field(default_factory=Counter)  # 1xx … 5xx, and none
    outcomes: Counter[str] = field(default_factory=Counter)  # what the load balancer did
    views: int = 0  # pages that people were shown
    visitors: int = 0  # people, by address and agent
    sorry_people: int = 0

    def add(self, letter: str, kind: str, status: str, outcome: str, hits: int, size: int) -> None:
        """Add what one line of a partial says."""
        self.hits += hits
        self.size += size
        self.classes[CLASSES[letter]] += hits
        self.statuses[f"{status[0]}xx" if status[0] in "12345" else "none"] += hits
        self.outcomes[outcome] += hits
        if letter != "p":
            return
        self.kinds[kind] += hits
        self.sorry_people += hits if outcome == "sorry" else 0
        if kind == "page" and outcome in ("served", "local") and (status[0] == "2" or status == "304"):
            self.views += hits

    def as_data(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "hits": self.hits, "bytes": self.size, "views": self.views, "visitors": self.visitors,
            **{name: self.classes[name] for name in CLASSES.values()},
            "sorry_people": self.sorry_people,
            "kinds": {name: self.kinds[name] for name in KINDS if self.kinds[name]},
            "statuses": dict(sorted(self.statuses.items())),
            "outcomes": {name: self.outcomes[name] for name in OUTCOMES if self.outcomes[name]},
        }  # fmt: skip


@dataclass(frozen=True)
class Top:
    """One of those with the most hits: a path, or a client, which is a digest unless addresses were asked for."""

    name: str
    hits: int
    who: str  # people, bots, …

    def as_data(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"name": self.name, "hits": self.hits, "who": self.who}


@dataclass
class Side:
    """All figures of the load balancer, or of the web servers together."""

    slots: dict[int, Sums] = field(default_factory=dict)
    total: Sums = field(default_factory=Sums)
    paths: list[Top] = field(default_factory=list)
    clients: list[Top] = field(default_factory=list)
    distinct_paths: int = 0
    distinct_clients: int = 0

    def as_data(self, window: Window) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "total": self.total.as_data(),
            "slots": [{"begin": window.time(at).isoformat(), **sums.as_data()} for at, sums in self.slots.items()],
            "paths": [top.as_data() for top in self.paths],
            "clients": [top.as_data() for top in self.clients],
            "distinct_paths": self.distinct_paths,
            "distinct_clients": self.distinct_clients,
        }


@dataclass
class Answer:
    """How many accesses, and by which method they were counted."""

    window: Window
    heads: list[dict[str, Any]]
    sides: dict[Role, Side]

    @property
    def lines(self) -> dict[str, int]:
        """What became of all lines that were read: lines = counted + malformed + pending."""
        sums = {
            name: sum(int(head[name]) for head in self.heads) for name in ("lines", "counted", "malformed", "pending")
        }
        sums["outside"] = sums["counted"] - sum(side.total.hits for side in self.sides.values())
        return sums

    @property
    def span(self) -> tuple[int, int] | None:
        """The first and the last minute that stand in the logs."""
        files = [file for head in self.heads for file in head["files"]]
        first = [file["first"] for file in files if file["first"] is not None]
        last = [file["last"] for file in files if file["last"] is not None]
        return (min(first), max(last)) if first and last else None


def make(window: Window, heads: Sequence[dict[str, Any]], lines: Iterable[bytes], top: int = 10) -> Answer:
    """Return the figures of merged partials, whose lines come in order: clients, numbers, paths, visitors."""
    sides: dict[Role, Side] = defaultdict(Side)
    tables: Counter[tuple[str, str]] = Counter()  # table, side → hits: they must agree
    for table, some in groupby(lines, key=lambda line: line[:1]):
        if table == b"n":
            _numbers(sides, some)
        elif table == b"v":
            _visitors(sides, some)
        elif table in (b"c", b"p"):
            _tops(sides, table.decode(), some, top, tables)
        else:
            raise HikeshiError(f"a partial has a line of a kind that is not known: {table!r}.", "count again")
    for side, mine in sides.items():
        mine.slots = dict(sorted(mine.slots.items()))
        if not tables["c", side] == tables["p", side] == mine.total.hits == sum(mine.total.classes.values()):
            raise HikeshiError(
                f"the figures of {side} do not agree: {mine.total.hits} accesses, {tables['c', side]} of clients, "
                f"{tables['p', side]} of paths. This is a defect of the counter.",
                "keep the logs, and report it",
            )
    return Answer(window, list(heads), dict(sorted(sides.items())))


def _key(line: bytes) -> tuple[list[str], bytes]:
    key, _, rest = line.partition(b"\t")
    return key.decode("ascii").split(" "), rest


def _numbers(sides: Mapping[Role, Side], lines: Iterator[bytes]) -> None:
    for line in lines:
        (_, slot, group, kind, status, outcome), rest = _key(line)
        hits, size = map(int, rest.split(b" "))
        side = sides[ROLES[group[0]]]
        for sums in (side.slots.setdefault(int(slot), Sums()), side.total):
            sums.add(group[1], kind, status, outcome, hits, size)


def _visitors(sides: Mapping[Role, Side], lines: Iterator[bytes]) -> None:
    """Count visitors who are people: in each slot, and over all of them together."""
    for _, some in groupby(lines, key=lambda line: line[:34]):
        seen: set[Role] = set()
        for line in some:
            (_, _, slot, group), _ = _key(line)
            if group[1] != "p":
                continue
            role = ROLES[group[0]]
            sides[role].slots.setdefault(int(slot), Sums()).visitors += 1
            seen.add(role)
        for role in seen:
            sides[role].total.visitors += 1


def _tops(
    sides: Mapping[Role, Side], table: str, lines: Iterator[bytes], most: int, tables: Counter[tuple[str, str]]
) -> None:
    """Keep those with the most hits; every one of all hosts is looked at, none of their own lists of the greatest."""
    heaps: dict[Role, list[tuple[int, str, str]]] = defaultdict(list)
    for name, some in groupby(lines, key=lambda line: line[2:34]):
        of: dict[Role, Counter[str]] = defaultdict(Counter)
        text = name.decode("ascii")[:12]
        for line in some:
            (_, _, _, group), rest = _key(line)
            hits, tab, told = rest.partition(b"\t")
            of[ROLES[group[0]]][group[1]] += int(hits)
            text = told.decode("utf-8", "backslashreplace") if tab else text
        for role, letters in of.items():
            side, hits_of = sides[role], sum(letters.values())
            tables[table, role] += hits_of
            if table == "p":
                side.distinct_paths += 1
                hits_of, letters = letters["p"], Counter({"p": letters["p"]})  # what people ask for
            else:
                side.distinct_clients += 1
            if hits_of:
                heap = heaps[role]
                # The greatest first, and among equals the first by name.
                item = (hits_of, text, CLASSES[letters.most_common(1)[0][0]])
                if len(heap) < most:
                    heapq.heappush(heap, item)
                elif most:
                    heapq.heappushpop(heap, item)
    for role, heap in heaps.items():
        tops = [Top(text, hits, who) for hits, text, who in sorted(heap, key=lambda item: (-item[0], item[1]))]
        if table == "p":
            sides[role].paths = tops
        else:
            sides[role].clients = tops


def gaps(side: Side, window: Window, most: int = 1000) -> list[tuple[int, int]]:
    """Return the times in between in which nothing at all stands in the logs: begin, end."""
    found: list[tuple[int, int]] = []
    if window.by == "all":
        return []
    slots = list(side.slots)
    for one, two in zip(slots, slots[1:], strict=False):
        begin = window.following(one)
        if begin < two and len(found) < most:
            found.append((begin, two))
    return found
