"""Is this an attack, or are many customers coming? Judged by rates against the log's own past. Pure: no host, no clock.

A *tick* is one second of a load balancer's log, counted on its host: how many came, which clients, networks, paths and
agents asked most, and how each did. Somebody is accused only with a rate beyond what anybody had before (or beyond
stated limits, where there is no past) *and* for a reason; that more people come than ever is a surge, and no attack.
"""

import ipaddress
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

SECONDS = 5  # a rate is over so many ticks, and somebody must have come in most of them
SUSTAINED = 3
TIMES_CLIENT, TIMES_NETWORK, TIMES_ALL = 4.0, 4.0, 3.0  # beyond the most that anybody, any network, all had before
LEAST_CLIENT, LEAST_NETWORK, LEAST_ALL = 5.0, 15.0, 10.0  # requests/s; below these nothing is a flood
QUIET_AFTER = 30  # ticks without anybody accused until it is over
SAME = 0.8  # share of one path or one agent from which on it is always the same
FEW_ASSETS = 0.2  # share of pictures and the like below which it is no browser that asks so fast
CROWD_AGENTS, CROWD_TIMES = 5, 5.0  # agents behind one address that are many people; beyond so many limits they are not
PAST_LEAST_S = 60  # of past that is needed to compare with

What = Literal["client", "network"]


@dataclass(frozen=True)
class Asker:
    """What one client or network did in one tick, or in several added up."""

    hits: int = 0
    addresses: int = 1
    assets: int = 0  # pictures, styles, scripts: what browsers ask for besides pages
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


@dataclass(frozen=True)
class Tick:
    """One second. `clients` and `networks` are those with the most hits; `hits` are all."""

    at: int  # seconds since 1970
    hits: int
    sorry: int = 0
    addresses: int = 0
    clients: Mapping[str, Asker] = field(default_factory=dict)
    networks: Mapping[str, Asker] = field(default_factory=dict)


@dataclass(frozen=True)
class Past:
    """What was usual: requests a second, over SECONDS, of the log before the watch began, its busiest 5 % left out."""

    seconds: int
    most: float
    client: float
    network: float


@dataclass(frozen=True)
class Limits:
    """Where there is no past: requests a second from which on it is too much."""

    client: float = 20.0
    network: float = 60.0
    all: float = 200.0


@dataclass(frozen=True)
class Accused:
    """Somebody who floods, with the evidence."""

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
    def words(self) -> str:
        """Say who, how much over what, of how much, and why."""
        many = f" ({self.addresses} addresses)" if self.what == "network" else ""
        return (
            f"{self.what} {self.name}{many}: {self.rate:.0f} requests/s, {self.basis}; {self.share:.0%} of all; "
            f"{self.path_share:.0%} of it {self.path}; agent {self.agent}; " + "; ".join(self.reasons)
        )


@dataclass(frozen=True)
class Verdict:
    """What is judged of some seconds: an attack has accused, a surge none."""

    kind: Literal["quiet", "surge", "attack"]
    at: int
    rate: float
    usual: float | None  # None: no past to compare with
    accused: tuple[Accused, ...] = ()
    surge: bool = False  # many customers come besides
    paths: tuple[tuple[str, float], ...] = ()  # what is asked for most, with its share
    addresses: int = 0

    def as_data(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "kind": self.kind, "at": self.at, "rate": self.rate, "usual": self.usual, "surge": self.surge,
            "accused": [item.as_data() for item in self.accused], "words": self.words, "cure": self.cure,
            "paths": [list(item) for item in self.paths], "addresses": self.addresses,
        }  # fmt: skip

    @property
    def words(self) -> str:
        """Say it in one sentence."""
        past = "there is no past to compare with" if self.usual is None else f"up to {self.usual:.0f} were usual before"
        before = f"{self.rate:.0f} requests/s, {past}"
        if self.kind == "attack":
            who = ", ".join(f"{item.name} ({item.rate:.0f}/s)" for item in self.accused[:3])
            more = f" and {len(self.accused) - 3} more" if len(self.accused) > 3 else ""
            return f"a flood from {who}{more}; {before}" + ("; more customers than usual come besides" * self.surge)
        if self.kind == "surge":
            return f"many customers come: {before}, from {self.addresses} addresses, none of which asks unusually much"
        return f"nothing unusual: {self.rate:.0f} requests/s"

    @property
    def cure(self) -> str:
        """Propose what would stop it; nothing here carries it out."""
        if not self.accused:
            return ""
        names = " ".join(item.name for item in self.accused)
        rule = f"http-request deny deny_status 429 if {{ src {names} }}"
        return f"at the load balancer: {rule}; or the platform's own filter"


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
        rate = sum(item.hits for item in ticks) / SECONDS
        accused = self._accused(ticks, "client", rate)
        clients = {item.name for item in accused}
        accused += [item for item in self._accused(ticks, "network", rate) if not self._told(item, ticks, clients)]
        usual = self.past.most if self.past else None
        limit = max(TIMES_ALL * self.past.most, LEAST_ALL) if self.past else self.limits.all
        ours = rate - sum(item.rate for item in accused)
        surge = ours > limit
        paths: Counter[str] = Counter()
        for item in ticks:
            for asker in item.clients.values():
                paths.update(asker.paths)
        seen = sum(paths.values())
        most = tuple((path, count / seen) for path, count in paths.most_common(3)) if seen else ()
        addresses = max((item.addresses for item in ticks), default=0)
        kind: Literal["quiet", "surge", "attack"] = "attack" if accused else "surge" if surge else "quiet"
        return Verdict(kind, tick.at, rate, usual, tuple(accused), surge, most, addresses)

    def _accused(self, ticks: Sequence[Tick], what: What, rate: float) -> list[Accused]:
        found = []
        asking = {name for tick in ticks for name in (tick.clients if what == "client" else tick.networks)}
        for name in sorted(asking):
            seen = [tick.clients if what == "client" else tick.networks for tick in ticks]
            mine = [askers[name] for askers in seen if name in askers]
            whole = _added(mine)
            limit, basis = self._limit(what)
            own = whole.hits / SECONDS
            if own <= limit or len(mine) < min(SUSTAINED, len(ticks)) or len(ticks) < SUSTAINED:
                self._since.pop((what, name), None) if own <= limit / 2 else None
                continue
            reasons = _client_reasons(whole, own / limit) if what == "client" else _network_reasons(whole)
            if not reasons:
                continue
            first = next(tick.at for tick, askers in zip(ticks, seen, strict=True) if name in askers)
            since = self._since.setdefault((what, name), first)
            found.append(
                Accused(
                    what, name, own, limit, basis, own / rate if rate else 0.0, since, *whole.path, whole.agent[0],
                    whole.addresses, tuple(reasons),
                )
            )  # fmt: skip
        return sorted(found, key=lambda item: -item.rate)

    def _limit(self, what: What) -> tuple[float, str]:
        if self.past is None:
            limit = self.limits.client if what == "client" else self.limits.network
            return limit, f"over the stated limit of {limit:.0f} (no past to compare with)"
        before = self.past.client if what == "client" else self.past.network
        times, least = (TIMES_CLIENT, LEAST_CLIENT) if what == "client" else (TIMES_NETWORK, LEAST_NETWORK)
        return max(times * before, least), f"the busiest {what} before usually had {before:.1f}"

    @staticmethod
    def _told(item: Accused, ticks: Sequence[Tick], clients: set[str]) -> bool:
        """Say whether accused clients make up what a network does."""
        own = sum(
            asker.hits
            for tick in ticks
            for name, asker in tick.clients.items()
            if name in clients and inside(name, item.name)
        )
        return own / SECONDS > item.rate * SAME


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


def _client_reasons(asker: Asker, times: float) -> list[str]:
    """Return why one address that asks so much is no crowd of people behind it."""
    path, share = asker.path
    agents = len(asker.agents)
    if agents >= CROWD_AGENTS and asker.agent[1] < SAME and times < CROWD_TIMES:
        return []  # an office, a carrier: many browsers behind one address
    reasons = []
    if share >= SAME:
        reasons.append(f"always the same path, {path}")
    if asker.assets < asker.hits * FEW_ASSETS:
        reasons.append("pages and next to no pictures, faster than anybody reads")
    if times >= CROWD_TIMES:
        reasons.append(f"{times:.0f} times the limit")
    return reasons


def _network_reasons(asker: Asker) -> list[str]:
    """Return why a network that asks so much is no crowd: its addresses do the same, as people would not."""
    path, path_share = asker.path
    agent, agent_share = asker.agent
    reasons = []
    if agent_share >= SAME and asker.addresses > 1:
        reasons.append(f"its addresses have the same agent, {agent}")
    if path_share >= SAME:
        reasons.append(f"they ask for the same path, {path}")
    # One alone may be: customers of a carrier at the start of a broadcast all ask for the top page.
    return reasons if len(reasons) > 1 else []


def _added(askers: Sequence[Asker]) -> Asker:
    paths: Counter[str] = Counter()
    agents: Counter[str] = Counter()
    for asker in askers:
        paths.update(asker.paths)
        agents.update(asker.agents)
    addresses = max((item.addresses for item in askers), default=1)
    return Asker(sum(item.hits for item in askers), addresses, sum(item.assets for item in askers), paths, agents)


def _most(counts: Mapping[str, int], hits: int) -> tuple[str, float]:
    if not counts or not hits:
        return "", 0.0
    name = max(counts, key=lambda key: (counts[key], key))
    return name, min(1.0, counts[name] / hits)


# What hosts send


def tick_of(told: Any) -> Tick:
    """Return a tick of what a host sent; raise ValueError where it is none. Hosts and logs may say anything."""
    try:
        clients, networks = (
            {str(name): _asker(item) for name, item in told[key].items()} for key in ("clients", "networks")
        )
        return Tick(
            _count(told["at"]),
            _count(told["hits"]),
            _count(told["sorry"]),
            _count(told["addresses"]),
            clients,
            networks,
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"no tick: {type(error).__name__}: {error}") from error


def past_of(told: Any) -> Past:
    """Return the past of what a host sent; raise ValueError where it is none."""
    try:
        rates = [float(_count(told[key])) / SECONDS for key in ("most", "client", "network")]
        return Past(_count(told["seconds"]), *rates)
    except (KeyError, TypeError) as error:
        raise ValueError(f"no past: {type(error).__name__}: {error}") from error


def _asker(told: Any) -> Asker:
    paths, agents = ({str(name): _count(hits) for name, hits in told[key].items()} for key in ("paths", "agents"))
    return Asker(_count(told["hits"]), _count(told["addresses"]), _count(told["assets"]), paths, agents)


def _count(number: Any) -> int:
    if type(number) is not int or not 0 <= number < 1 << 53:
        raise ValueError(f"{number!r} is no count")
    return number
