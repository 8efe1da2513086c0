"""Is this an attack, or are many customers coming? Judged by rates against the log's own past. Pure: no host, no clock.

A *tick* is one second of a load balancer's log, counted on its host: how many came, which clients, networks, agents and
paths had most, and how each did. What has a rate far beyond what any of its kind had before (or beyond a stated limit,
where there is no past) *asks much*, and that is shown. It is accused only *for a reason* besides; that more people come
than ever is a surge, and no attack, also when they have the same few browsers and all want the same page.
"""

import ipaddress
import re
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

What = Literal["client", "network", "agent", "path"]
Kind = Literal["quiet", "much", "surge", "attack"]  # each is worse than the one before
WHATS: tuple[What, ...] = ("client", "network", "agent", "path")  # who can be named by an address is, before others are
KINDS: tuple[Kind, ...] = ("quiet", "much", "surge", "attack")

SECONDS = 5  # a rate is over so many ticks
# In so many of them it must be busy. Agents and paths take longer, as a few clients may turn out to be behind them.
SUSTAINED: Mapping[What, int] = {"client": 3, "network": 3, "agent": 5, "path": 5}
TIMES, TIMES_ALL = 4.0, 3.0  # beyond the most that any of its kind, and all together, had before
LEAST: Mapping[What, float] = {
    "client": 5.0,
    "network": 15.0,
    "agent": 15.0,
    "path": 15.0,
}  # requests/s; less is no flood
LEAST_ALL = 10.0
QUIET_AFTER = 30  # ticks without anybody accused until it is over
SAME = 0.8  # share of one path or one agent from which on it is always the same
FEW_ASSETS = 0.2  # share of pictures and the like below which it is no browser that asks so fast
PICTURED = 0.4  # share of them in the past from which on readers of this shop's pages do ask for them
RARE = 0.05  # share in the past below which an agent hardly came
AGAIN = 2.0  # requests a second of each address, for one path: nobody reloads a page so often
AGAIN_AGENTS = 5  # agents from which on those who ask again are others, who share the addresses
CROWD_AGENTS = 3  # agents behind one address, none of them nearly alone, that are many people
ANSWERED = 0.5  # share of requests that got what they asked for; with less, readers see no page and so no pictures
PAST_LEAST_S = 60  # of past that is needed to compare with
PLAIN = r"[A-Za-z0-9_ ./:;,()+@~-]{1,199}"  # an agent that can be written into a rule
MUCH_MOST = 3  # of a kind, who ask much and are accused of nothing, that are named


@dataclass(frozen=True)
class Asker:
    """What a client or network did in one tick, or in several added up; or what came by one agent, or for one path."""

    hits: int = 0
    addresses: int = 1
    assets: int = 0  # pictures, styles, scripts: what browsers ask for besides pages
    declared: int = 0  # hits by agents that say themselves that they are programs
    paths: Mapping[str, int] = field(default_factory=dict)  # those it asked for most
    agents: Mapping[str, int] = field(default_factory=dict)

    @property
    def path(self) -> tuple[str, float]:
        """The path it asked for most, and its share."""
        return _most(self.paths, self.hits)

    @property
    def agent(self) -> tuple[str, float]:
        """Its commonest agent, and the agent's share."""
        return _most(self.agents, self.hits)

    @property
    def crowd(self) -> bool:
        """Say whether it has the agents of many people, though few kinds of phones: an office, a carrier."""
        return len(self.agents) >= CROWD_AGENTS and self.agent[1] < SAME


@dataclass(frozen=True)
class Tick:
    """One second. `clients`, `networks`, `agents` and `paths` are those with the most hits; the numbers are of all."""

    at: int  # seconds since 1970
    hits: int
    sorry: int = 0
    answered: int = 0  # got what they asked for: no sorry page, no error of the shop
    assets: int = 0
    addresses: int = 0
    clients: Mapping[str, Asker] = field(default_factory=dict)
    networks: Mapping[str, Asker] = field(default_factory=dict)
    agents: Mapping[str, Asker] = field(default_factory=dict)
    paths: Mapping[str, Asker] = field(default_factory=dict)

    def those(self, what: What) -> Mapping[str, Asker]:
        """Return the busiest of a kind."""
        return {"client": self.clients, "network": self.networks, "agent": self.agents, "path": self.paths}[what]


@dataclass(frozen=True)
class Known:
    """What an agent did in the past."""

    share: float  # of all requests
    assets: float  # share of its own that were for pictures and the like


@dataclass(frozen=True)
class Past:
    """What was usual: requests a second, over SECONDS, of the log before the watch began, its busiest 5 % left out."""

    seconds: int
    most: float
    client: float
    network: float
    agent: float
    path: float
    assets: float = 0.0  # share of all requests that were for pictures and the like
    agents: Mapping[str, Known] = field(default_factory=dict)  # those that came most

    def of(self, what: What) -> float:
        """Return the rate of the busiest of a kind."""
        return {"client": self.client, "network": self.network, "agent": self.agent, "path": self.path}[what]


@dataclass(frozen=True)
class Limits:
    """Where there is no past: requests a second from which on it is too much."""

    client: float = 20.0
    network: float = 60.0
    agent: float = 100.0
    path: float = 100.0
    all: float = 200.0

    def of(self, what: What) -> float:
        """Return the limit of a kind."""
        return {"client": self.client, "network": self.network, "agent": self.agent, "path": self.path}[what]


@dataclass(frozen=True)
class Scene:
    """What the last seconds, and the past, say of all who came: by that is judged what one of them did."""

    hits: int
    assets: int
    answered: bool
    past: Past | None

    @property
    def pictures(self) -> bool:
        """Say whether who reads pages now asks for pictures, too: they did before, and pages do come."""
        return self.answered and self.past is not None and self.past.assets >= PICTURED

    def bare(self, asker: Asker) -> bool:
        """Say whether many ask for next to no pictures, although readers of these pages would."""
        return self.pictures and asker.assets < asker.hits * FEW_ASSETS

    def known(self, agent: str) -> Known:
        """Return what an agent did in the past; one that is not among those that came most hardly came."""
        return (self.past.agents if self.past else {}).get(agent, Known(0.0, 1.0))


@dataclass(frozen=True)
class Accused:
    """Who or what asks far more than any of its kind did, with the evidence; without reasons accused of nothing."""

    what: What
    name: str
    rate: float
    limit: float
    basis: str  # over what
    share: float  # of all that came
    since: int
    path: str
    path_share: float
    agent: str
    addresses: int
    reasons: tuple[str, ...]

    def as_data(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {**self.__dict__, "reasons": list(self.reasons)}

    @property
    def title(self) -> str:
        """Name it; of an address it is plain what it is."""
        return self.name if self.what in ("client", "network") else f"{self.what} {self.name}"

    @property
    def words(self) -> str:
        """Say who, how much over what, of how much, and why."""
        many = "" if self.what == "client" else f" ({self.addresses} addresses)"
        asked = "" if self.what == "path" else f"{self.path_share:.0%} of it {self.path}; "
        by = "" if self.what == "agent" else f"agent {self.agent}; "
        why = "; ".join(self.reasons) or "but for the rate nothing says that it is a flood"
        return (
            f"{self.what} {self.name}{many}: {self.rate:.0f} requests/s, {self.basis}; {self.share:.0%} of all; "
            f"{asked}{by}{why}"
        )


@dataclass(frozen=True)
class Verdict:
    """What is judged of some seconds: an attack has accused, all else has none."""

    kind: Kind
    at: int
    rate: float
    usual: float | None  # None: no past to compare with
    accused: tuple[Accused, ...] = ()
    surge: bool = False  # many customers come besides
    paths: tuple[tuple[str, float], ...] = ()  # what is asked for most, with its share
    addresses: int = 0
    much: tuple[Accused, ...] = ()  # who asks much, and is accused of nothing

    def as_data(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "kind": self.kind, "at": self.at, "rate": self.rate, "usual": self.usual, "surge": self.surge,
            "accused": [item.as_data() for item in self.accused], "words": self.words, "cure": self.cure,
            "paths": [list(item) for item in self.paths], "addresses": self.addresses,
            "much": [item.as_data() for item in self.much],
        }  # fmt: skip

    @property
    def words(self) -> str:
        """Say it in one sentence."""
        past = "there is no past to compare with" if self.usual is None else f"up to {self.usual:.0f} were usual before"
        before = f"{self.rate:.0f} requests/s, {past}"
        if self.kind == "attack":
            return f"a flood from {_listed(self.accused)}; {before}" + (
                "; more customers than usual come besides" * self.surge
            )
        much = f"; more than ever: {_listed(self.much)}" if self.much else ""
        if self.kind == "surge":
            none = ", none of which asks unusually much"
            if any(item.what in ("client", "network") for item in self.much):
                none = ""
            return f"many customers come: {before}, from {self.addresses} addresses{none}{much}"
        if self.kind == "much":
            return f"much is asked, and nobody accused: {before}{much}"
        return f"nothing unusual: {self.rate:.0f} requests/s"

    @property
    def cure(self) -> str:
        """Propose what would stop it; nothing here carries it out."""
        sources = [item.name for item in self.accused if item.what in ("client", "network")]
        rules = [f"src {' '.join(sources)}"] if sources else []
        # Who floods chooses the agent: what could mean more to the load balancer than its letters is not proposed.
        agents = [item.name for item in self.accused if item.what == "agent" and re.fullmatch(PLAIN, item.name)]
        rules += [f"req.hdr(user-agent) -m str -- '{name}'" for name in agents]
        told = [f"http-request deny deny_status 429 if {{ {rule} }}" for rule in rules]
        told += [
            f"a limit by address for {item.name}, as customers want it, too"
            for item in self.accused
            if item.what == "path"
        ]
        return f"at the load balancer: {', '.join(told)}; or the platform's own filter" if told else ""


class Judge:
    """Takes ticks in order, and says what they mean."""

    def __init__(self, past: Past | None, limits: Limits | None = None) -> None:
        """Compare with the past, if it is long enough, else with limits."""
        self.past = past if past and past.seconds >= PAST_LEAST_S else None
        self.limits = limits or Limits()
        self._ticks: deque[Tick] = deque(maxlen=SECONDS)
        self._since: dict[tuple[What, str], int] = {}

    def add(self, tick: Tick) -> Verdict:
        """Return the verdict on the last few seconds."""
        self._ticks.append(tick)
        ticks = list(self._ticks)
        hits = sum(item.hits for item in ticks)
        answered = sum(item.answered for item in ticks) >= hits * ANSWERED
        scene = Scene(hits, sum(item.assets for item in ticks), answered, self.past)
        accused, much, others = self._told_apart(ticks, scene)
        limit = max(TIMES_ALL * self.past.most, LEAST_ALL) if self.past else self.limits.all
        surge = others > limit
        kind: Kind = "attack" if accused else "surge" if surge else "much" if much else "quiet"
        paths: Counter[str] = Counter()
        for item in ticks:
            paths.update({path: asker.hits for path, asker in item.paths.items()})
        most = tuple((path, count / hits) for path, count in paths.most_common(3)) if hits else ()
        addresses = max((item.addresses for item in ticks), default=0)
        usual = self.past.most if self.past else None
        return Verdict(kind, tick.at, hits / SECONDS, usual, tuple(accused), surge, most, addresses, tuple(much))

    def _told_apart(self, ticks: Sequence[Tick], scene: Scene) -> tuple[list[Accused], list[Accused], float]:
        """Return who is accused, who asks much, and the rate of all who are not accused; nobody is told twice."""
        accused: list[Accused] = []
        much: list[Accused] = []
        others = scene.hits / SECONDS
        for what in WHATS:
            for item in self._fast(ticks, what, scene):
                told = _told(item, ticks, accused)
                if told > item.rate * SAME:
                    continue
                if item.reasons:
                    accused.append(item)
                    others -= item.rate - told
                elif _told(item, ticks, _of("client", much) + _of("network", much)) <= item.rate * SAME:
                    much.append(item)
        return accused, [item for what in WHATS for item in _of(what, much)[:MUCH_MOST]], others

    def _fast(self, ticks: Sequence[Tick], what: What, scene: Scene) -> list[Accused]:
        """Return who of a kind asks more than any did, the fastest first."""
        found = []
        limit, basis = self._limit(what)
        for name in sorted({name for tick in ticks for name in tick.those(what)}):
            mine = [(tick.at, tick.those(what)[name]) for tick in ticks if name in tick.those(what)]
            whole = _added([asker for _, asker in mine])
            rate = whole.hits / SECONDS
            busy = [at for at, asker in mine if asker.hits > limit / 2]
            if rate <= limit or len(busy) < SUSTAINED[what]:
                self._since.pop((what, name), None) if rate <= limit / 2 else None
                continue
            since = self._since.setdefault((what, name), busy[0])
            found.append(
                Accused(
                    what, name, rate, limit, basis, whole.hits / scene.hits if scene.hits else 0.0, since, *whole.path,
                    whole.agent[0], whole.addresses, tuple(_reasons(what, name, whole, scene)),
                )
            )  # fmt: skip
        return sorted(found, key=lambda item: -item.rate)

    def _limit(self, what: What) -> tuple[float, str]:
        if self.past is None:
            limit = self.limits.of(what)
            return limit, f"over the stated limit of {limit:.0f} (no past to compare with)"
        before = self.past.of(what)
        return max(TIMES * before, LEAST[what]), f"the busiest {what} before usually had {before:.1f}"


def _of(what: What, items: Sequence[Accused]) -> list[Accused]:
    """Return those of a kind."""
    return [item for item in items if item.what == what]


def _told(item: Accused, ticks: Sequence[Tick], before: Sequence[Accused]) -> float:
    """Return how much of a rate is that of those who were found before, by clients and networks or by agents."""
    networks = {other.name for other in before if other.what == "network"}
    hits: Counter[bool] = Counter()
    for other in before:
        if other.what == item.what or (
            other.what == "client" and item.what != "network" and network_of(other.name) in networks
        ):
            continue
        askers = [tick.those(other.what)[other.name] for tick in ticks if other.name in tick.those(other.what)]
        hits[other.what == "agent"] += sum(_part(item, other, asker) for asker in askers)
    return max(hits.values(), default=0) / SECONDS


def _part(item: Accused, other: Accused, asker: Asker) -> int:
    """Return how many of another's hits are also those of this one."""
    if item.what == "network":
        return asker.hits if inside(other.name, item.name) else 0
    return (asker.agents if item.what == "agent" else asker.paths).get(item.name, 0)


def inside(client: str, network: str) -> bool:
    """Say whether an address is of a network, as `network_of` names it."""
    return network_of(client) == network


def network_of(client: str) -> str:
    """Return the /24 or /48 of an address; of what is none, itself."""
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return client
    return str(ipaddress.ip_network((address, 24 if address.version == 4 else 48), strict=False))


def _reasons(what: What, name: str, asker: Asker, scene: Scene) -> list[str]:
    """Return why it is no crowd of people that asks so much; none, where nothing but the rate says so."""
    if what == "client":
        return _client_reasons(asker, scene)
    if what == "agent":
        return _agent_reasons(name, asker, scene)
    reasons = _network_reasons(asker, scene) if what == "network" else _path_reasons(asker, scene)
    # One alone may be: customers of a carrier at the start of a broadcast all ask for the top page.
    return reasons if len(reasons) > 1 else []


def _client_reasons(asker: Asker, scene: Scene) -> list[str]:
    """Return why one address is nobody who reads. Of an address with many people behind it one reason is not enough."""
    path, share = asker.path
    same = [f"always the same path, {path}"] if share >= SAME else []
    if asker.crowd:
        return [*same, "by many agents, and next to no pictures"] if same and scene.bare(asker) else []
    bare = asker.assets < asker.hits * FEW_ASSETS  # whatever the shop answers: nobody reads so fast
    return same + ["pages and next to no pictures, faster than anybody reads"] * bare


def _network_reasons(asker: Asker, scene: Scene) -> list[str]:
    """Return why a network is no crowd: its addresses do the same, as people would not."""
    path, path_share = asker.path
    agent, agent_share = asker.agent
    reasons = []
    if agent_share >= SAME and asker.addresses > 1:
        reasons.append(f"its addresses have the same agent, {agent}")
    if path_share >= SAME:
        reasons += [f"they ask for the same path, {path}", *_again(asker, scene)]
    if scene.bare(asker):
        reasons.append("they ask for next to no pictures")
    return reasons


def _agent_reasons(name: str, asker: Asker, scene: Scene) -> list[str]:
    """Return why what has an agent is no crowd with the same browser."""
    path, path_share = asker.path
    known = scene.known(name)
    rare = known.share < RARE
    reasons = []
    if scene.past and rare and asker.hits >= scene.hits * SAME:
        reasons.append(f"nearly all that comes has this agent, and {known.share:.0%} of what came before had")
    if path_share >= SAME:
        reasons.append(f"always the same path, {path}")
    # An app that never asked for pictures does not begin to when its owner tells everybody of an offer.
    if scene.bare(asker) and known.assets >= FEW_ASSETS:
        reasons.append("next to no pictures")
    if rare and asker.declared >= asker.hits * SAME:
        return [
            "a program, by its own name, that hardly came before" if scene.past else "a program, by its own name",
            *reasons,
        ]
    return reasons if len(reasons) > 1 else []


def _path_reasons(asker: Asker, scene: Scene) -> list[str]:
    """Return why those who ask for a path are no crowd that wants this page."""
    agent, share = asker.agent
    reasons = _again(asker, scene)
    rare = scene.known(agent).share < RARE
    if share >= SAME and rare:
        hardly = ", that hardly came before" if scene.past else ""
        reasons.append(f"{share:.0%} of it by one agent, {agent}{hardly}")
    if (share < SAME or rare) and asker.declared >= asker.hits * SAME:
        reasons.append("by programs, as their agents say")
    # Of whom the pictures are that are asked for is not known; were all theirs, it would still be too few.
    if scene.pictures and scene.assets < asker.hits * FEW_ASSETS:
        reasons.append("who ask for it ask for next to no pictures")
    return reasons


def _again(asker: Asker, scene: Scene) -> list[str]:
    """Say that the same few ask again and again, although they are answered, and do not share their addresses."""
    each = asker.hits / SECONDS / max(1, asker.addresses)
    told = scene.answered and each >= AGAIN and (len(asker.agents) < AGAIN_AGENTS or asker.agent[1] >= SAME)
    return [f"each address asks {each:.0f} times a second"] * told


def _listed(items: Sequence[Accused]) -> str:
    """Name the first few, with their rates."""
    who = ", ".join(f"{item.title} ({item.rate:.0f}/s)" for item in items[:3])
    return who + (f" and {len(items) - 3} more" if len(items) > 3 else "")


def _added(askers: Sequence[Asker]) -> Asker:
    paths: Counter[str] = Counter()
    agents: Counter[str] = Counter()
    for asker in askers:
        paths.update(asker.paths)
        agents.update(asker.agents)
    addresses = max((item.addresses for item in askers), default=1)
    hits, assets, declared = (sum(getattr(item, name) for item in askers) for name in ("hits", "assets", "declared"))
    return Asker(hits, addresses, assets, declared, paths, agents)


def _most(counts: Mapping[str, int], hits: int) -> tuple[str, float]:
    if not counts or not hits:
        return "", 0.0
    name = max(counts, key=lambda key: (counts[key], key))
    return name, min(1.0, counts[name] / hits)


# What hosts send


def tick_of(told: Any) -> Tick:
    """Return a tick of what a host sent; raise ValueError where it is none. Hosts and logs may say anything."""
    try:
        at, hits, sorry, answered, assets, addresses = (
            _count(told[key]) for key in ("at", "hits", "sorry", "answered", "assets", "addresses")
        )
        clients, networks, agents, paths = (
            {str(name): _asker(item) for name, item in told[key].items()}
            for key in ("clients", "networks", "agents", "paths")
        )
        return Tick(at, hits, sorry, answered, assets, addresses, clients, networks, agents, paths)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"no tick: {type(error).__name__}: {error}") from error


def past_of(told: Any) -> Past:
    """Return the past of what a host sent; raise ValueError where it is none."""
    try:
        most, client, network, agent, path = (
            _count(told[key]) / SECONDS for key in ("most", "client", "network", "agent", "path")
        )
        hits, assets = (max(1, _count(told["hits"])), _count(told["assets"]))
        agents = {
            str(name): Known(_count(own) / hits, _count(pictures) / max(1, _count(own)))
            for name, (own, pictures) in told["agents"].items()
        }
        return Past(_count(told["seconds"]), most, client, network, agent, path, assets / hits, agents)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"no past: {type(error).__name__}: {error}") from error


def _asker(told: Any) -> Asker:
    paths, agents = ({str(name): _count(hits) for name, hits in told[key].items()} for key in ("paths", "agents"))
    hits, addresses, assets, declared = (_count(told[key]) for key in ("hits", "addresses", "assets", "declared"))
    return Asker(hits, addresses, assets, declared, paths, agents)


def _count(number: Any) -> int:
    if type(number) is not int or not 0 <= number < 1 << 53:
        raise ValueError(f"{number!r} is no count")
    return number
