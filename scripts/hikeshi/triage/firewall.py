"""What rules of iptables do to a packet, as far as their words are understood. Pure.

A rule is said to drop a packet only where it surely does, and nothing before it may have let the packet pass: a rule
that is not understood may do anything. So no rule is accused that an earlier one makes an exception from.
"""

import ipaddress
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from hikeshi.triage.findings import Evidence, Step

# Without which IPv6 dies: errors, of which one tells how long a packet may be, and the way to neighbours. Not those of
# routers: a host with an address of its own is well advised to take none from them.
NEEDED_KINDS = (1, 2, 3, 4, 135, 136)
NEIGHBOURS = (135, 136)
# The packet goes on to the next rule.
_PASSING = ("", "LOG", "NFLOG", "MARK", "CONNMARK", "SET", "TCPMSS", "TRACE")
_BLOCKING = ("DROP", "REJECT")
_MODULES = ("tcp", "udp", "icmp", "icmp6", "comment", "multiport", "conntrack", "state")
_LONG = {
    "--protocol": "-p", "--destination": "-d", "--dst": "-d", "--source": "-s", "--src": "-s", "--in-interface": "-i",
    "--out-interface": "-o", "--jump": "-j", "--goto": "-g", "--match": "-m", "--destination-port": "--dport",
    "--destination-ports": "--dports", "--source-port": "--sport", "--source-ports": "--sports", "--state": "--ctstate",
}  # fmt: skip
_WITH_VALUE = ("-p", "-d", "-s", "-i", "-o", "-m", "-j", "-g", "--dport", "--dports", "--sport", "--sports",
               "--ctstate", "--icmpv6-type", "--comment")  # fmt: skip
_PROTOCOLS = {"0": "all", "1": "icmp", "6": "tcp", "17": "udp", "58": "ipv6-icmp", "icmpv6": "ipv6-icmp"}
_FLAGS = {"FIN", "SYN", "RST", "PSH", "ACK", "URG"}
_SYN = "FIN,SYN,RST,ACK SYN"
# The collector tells no more than this.
_DEPTH, _CHAINS, _RULES, _ADDRESSES = 20, 50, 100, 8
# How the chains of programs begin that write them again by themselves, and what tells of such a program's rules.
MANAGERS = {
    "HIKESHI": "iptables -S HIKESHI", "ufw6?-": "ufw status numbered", "f2b-|fail2ban-": "fail2ban-client status",
    "DOCKER": "docker network ls", "KUBE-|cali-|CILIUM_": "kubectl get networkpolicies -A",
    "LIBVIRT_": "virsh net-list", "IN_|OUT_|INPUT_|OUTPUT_": "firewall-cmd --list-all-zones",
    "neutron-": "openstack security group list", "NETAVARK|CNI-": "podman network ls", "ts-": "tailscale debug prefs",
    "CROWDSEC": "cscli decisions list", "LOCALIN|LOCALOUT|DENYIN|DENYOUT|LOGDROP": "csf -l",
}  # fmt: skip
# What host_base's steps take: nothing of such programs' chains, and no words that shlex and iptables read differently.
REMOVABLE = re.compile(
    rf"-A (?!{'|'.join(MANAGERS)})"
    r'[A-Za-z0-9_.-]{1,28} [A-Za-z0-9_.,:;/+@%=!"() -]*-j (?:DROP|REJECT)(?: --reject-with [a-z0-9-]+)?'
)

Test = tuple[str, str, bool]  # option, value, whether it is negated
Chains = Mapping[str, Evidence]


@dataclass(frozen=True)
class Packet:
    """The first packet of a TCP connection, or an ICMPv6 message of a `kind`."""

    family: str
    protocol: str
    address: str = ""
    port: int = 0
    kind: int = 0


@dataclass(frozen=True)
class Barrier:
    """Where a packet is dropped; `rule` is empty where a chain's policy does it. `backend`: "" in a saved file.

    `passed`: the rules that came before and may let other packets through.
    """

    family: str
    backend: str
    table: str
    chain: str
    rule: str
    passed: tuple[str, ...] = field(default=(), compare=False)

    @property
    def words(self) -> str:
        """The rule as people look for it."""
        asked = next((words for prefix, words in MANAGERS.items() if re.match(prefix, self.chain)), "")
        words = f"{self.family}, table {self.table}: {self.rule or f'-P {self.chain} DROP'}"
        return words + (f" (kept by a program: see `{asked}`)" if asked else "")

    @property
    def removable(self) -> bool:
        """Whether the steps take this rule out."""
        return bool(REMOVABLE.fullmatch(self.rule))

    def step(self, host: str) -> Step:
        """The step that takes the rule out of the firewall that works now."""
        words = {"family": self.family, "backend": self.backend, "table": self.table, "chain": self.chain}
        return Step(host, "host_base", "firewall_rule", "live", {**words, "rule": self.rule})


@dataclass(frozen=True)
class Rule:
    """A rule as it was understood; not `clear`: it asks for more than this."""

    tests: tuple[Test, ...]
    target: str
    clear: bool


@lru_cache(4096)
def read(rule: str) -> Rule:
    """Read the words of a rule, `-A CHAIN …`; what it says of its target is left out."""
    tests: list[Test] = []
    clear, negated = True, False
    try:
        words = shlex.split(rule)[2:]
    except ValueError:
        return Rule((), "?", False)
    while words:
        option = words.pop(0)
        option = _LONG.get(option, option)
        if option == "!":
            negated = True
            continue
        value = words.pop(0) if words and option in _WITH_VALUE else ""
        if option == "-j":
            return Rule(tuple(tests), value, clear)
        if option == "-g":
            return Rule(tuple(tests), "?", clear)
        if option == "-m":
            clear = clear and value in _MODULES
            continue
        if option == "--syn":
            option, value = "--tcp-flags", _SYN
        elif option == "--tcp-flags":
            value, words = " ".join(words[:2]), words[2:]
        elif option not in _WITH_VALUE:
            clear = False
        if option != "--comment":
            try:
                value = _usual(option, value)
            except ValueError:
                clear = False
            if negated or not _is_any(option, value):
                tests.append((option, value, negated))
        negated = False
    return Rule(tuple(tests), "", clear)


def _is_any(option: str, value: str) -> bool:
    """Say whether a test is met by every packet: iptables leaves it out."""
    return value == "all" if option == "-p" else option in ("-s", "-d") and value in ("0.0.0.0/0", "::/0")


def _usual(option: str, value: str) -> str:
    """Return a value as iptables itself would write it; raise ValueError for a name in a number's place."""
    if option == "-p":
        value = value.lower()
        if value.isdigit() and value not in _PROTOCOLS:
            raise ValueError(value)
        return _PROTOCOLS.get(value, value)
    if option in ("-d", "-s"):
        return str(ipaddress.ip_network(value, strict=False))
    if option == "--ctstate":
        return ",".join(sorted(value.split(",")))
    if option in ("--dport", "--dports", "--sport", "--sports"):
        return ",".join(sorted(map(_range, value.split(","))))
    if option == "--tcp-flags":
        mask, _, wanted = value.partition(" ")
        return f"{_flags(mask)} {_flags(wanted)}"
    if option == "--icmpv6-type":
        int(value.partition("/")[0])
    return value


def _range(ports: str) -> str:
    """Return a port, or the first and last of a range."""
    least, ranged, most = ports.partition(":")
    first = int(least or 0) if ranged else int(least)
    last = int(most or 65535) if ranged else first
    return str(first) if first == last else f"{first}:{last}"


def _flags(words: str) -> str:
    flags = _FLAGS if words == "ALL" else set(words.split(",")) - {"NONE"}
    if not flags <= _FLAGS:
        raise ValueError(words)
    return ",".join(sorted(flags))


def matches(rule: Rule, packet: Packet) -> bool | None:
    """Say whether a rule is about this packet; None where that is not sure."""
    seen = []
    for option, value, negated in rule.tests:
        try:
            hit = _hit(option, value, packet)
        except ValueError:
            hit = None
        seen.append(hit if hit is None else hit != negated)
    if False in seen:
        return False
    return None if None in seen or not rule.clear else True


def _hit(option: str, value: str, packet: Packet) -> bool | None:
    if option == "-p":
        return value == packet.protocol
    if option == "-d":
        return ipaddress.ip_address(packet.address) in ipaddress.ip_network(value) if packet.address else None
    if option in ("-i", "-o"):
        # Neighbours and gateways are not met on the loopback.
        return False if value == "lo" and not _loopback(packet.address) else None
    if option in ("--dport", "--dports"):
        return any(_within(packet.port, part) for part in value.split(","))
    if option == "--ctstate":
        if packet.protocol == "tcp":
            return "NEW" in value.split(",")
        # The kernel keeps no account of neighbours; an error may belong to a connection.
        return "UNTRACKED" in value.split(",") if packet.kind in NEIGHBOURS else None
    if option == "--tcp-flags":
        mask, _, wanted = value.partition(" ")
        return {"SYN"} & set(mask.split(",")) == set(filter(None, wanted.split(",")))
    if option == "--icmpv6-type":
        kind, _, code = value.partition("/")
        return False if int(kind) != packet.kind else None if code else True
    return None


def _loopback(address: str) -> bool:
    return bool(address) and ipaddress.ip_address(address).is_loopback


def _within(port: int, words: str) -> bool:
    least, ranged, most = words.partition(":")
    return int(least or 0) <= port <= (int(most or 65535) if ranged else int(least))


def barriers(chains: Iterable[Evidence], hook: str, packet: Packet) -> Iterator[Barrier]:
    """Yield where a packet is surely dropped on its way through INPUT or OUTPUT (`hook`), once in each table."""
    tables: dict[tuple[str, str], dict[str, Evidence]] = {}
    for chain in chains:
        if chain["family"] == packet.family:
            tables.setdefault((chain["backend"], chain["table"]), {})[chain["chain"]] = chain
    for (backend, table), inside in sorted(tables.items()):
        way = _Way()
        end = _walk(inside, hook, packet, way)
        if end and end != _FELL:
            yield Barrier(packet.family, backend, table, *end, tuple(way.passed))


_FELL = ("", "")  # past the last rule of a chain
_End = tuple[str, str] | None


@dataclass
class _Way:
    """What came of each chain, which hosts name: a few that all lead to each other have ways without end."""

    ends: dict[str, _End] = field(default_factory=dict)
    passed: list[str] = field(default_factory=list)


def _walk(chains: Chains, name: str, packet: Packet, way: _Way, depth: int = 0) -> _End:
    """Return chain and rule that drop a packet, _FELL where it comes to the end of a chain, None where nobody knows."""
    if name not in way.ends:
        way.ends[name] = None  # one that leads back to itself
        way.ends[name] = _follow(chains, name, packet, way, depth)
    return way.ends[name]


def _follow(chains: Chains, name: str, packet: Packet, way: _Way, depth: int) -> _End:
    chain = chains.get(name)
    if chain is None or depth > _DEPTH or len(way.ends) > _CHAINS or len(chain["rules"]) > _RULES:
        return None
    for words in chain["rules"]:
        rule = read(words)
        matched = matches(rule, packet)
        if rule.target in _PASSING:
            continue
        if matched is None:
            return None
        if matched and rule.target in _BLOCKING:
            return name, words
        if matched and rule.target == "RETURN" and depth:
            return _FELL
        if rule.target not in _BLOCKING:
            way.passed.append(words)
        if not matched:
            continue
        if rule.target not in chains:
            return None
        end = _walk(chains, rule.target, packet, way, depth + 1)
        if end != _FELL:
            return end
    if not chain["complete"]:
        return None
    return (name, "") if not depth and chain["policy"] == "DROP" else _FELL


def destinations(evidence: Evidence) -> Iterator[tuple[Evidence, str, list[tuple[Packet, bool, str]]]]:
    """Yield subject, name and port of what its service must reach, and of each address packet, whether, why not."""
    for subject in evidence["subjects"]:
        for wanted in subject.get("reaches") or []:
            name = f"{wanted['name']}:{wanted['port']}"
            tried = [
                (
                    Packet("ipv6" if ":" in seen["address"] else "ipv4", "tcp", seen["address"], int(wanted["port"])),
                    seen["ok"],
                    seen["why"],
                )
                for seen in evidence.get("reaches", {}).get(name, [])[:_ADDRESSES]
                if _is_address(seen["address"])
            ]
            if tried:
                yield subject, name, tried


def logins(evidence: Evidence, family: str) -> list[Packet]:
    """Return the first packet, from anywhere, of a login by ssh at each place where somebody elsewhere can log in."""
    found = {}
    for seen in evidence.get("sshd_at", []):
        address = seen["address"]
        if not _is_address(address) or _loopback(address):
            continue
        families = {"ipv6" if ":" in address else "ipv4"}
        if seen["by"] == "ssh.socket" and address == "::":
            families.add("ipv4")  # systemd takes both there, and sshd opens one for each
        own = "" if ipaddress.ip_address(address).is_unspecified else address
        if family in families:
            found[own, seen["port"]] = Packet(family, "tcp", own, seen["port"])
    return [found[place] for place in sorted(found)[:_ADDRESSES]]


def shut_out(
    saved: Sequence[Evidence], live: Sequence[Evidence], evidence: Evidence, family: str
) -> dict[Barrier, str]:
    """Return where saved rules surely drop every login by ssh at a place that the live ones leave open: rule → what."""
    return {
        barrier: f"ssh at port {packet.port}"
        for packet in logins(evidence, family)
        if not any(True for _ in barriers(live, "INPUT", packet))
        for barrier in barriers(saved, "INPUT", packet)
    }


def names(barrier: Barrier, packet: Packet) -> bool:
    """Say whether a rule is about this very address, or closes the port and nothing before it opens that to anybody."""
    port_only = False
    for option, value, negated in read(barrier.rule).tests:
        if option == "-d":
            return not negated and value == _alone(packet.address)
        port_only = port_only or (not negated and option in ("--dport", "--dports") and value == str(packet.port))
    elsewhere = replace(packet, address="")
    return port_only and all(matches(read(rule), elsewhere) is not None for rule in barrier.passed)


def _is_address(words: str) -> bool:
    """Say whether these are an address: they come from the host."""
    try:
        ipaddress.ip_network(words)
    except ValueError:
        return False
    return "/" not in words


def _alone(address: str) -> str:
    return str(ipaddress.ip_network(address))


def without_neighbours(chains: Sequence[Evidence], evidence: Evidence) -> dict[Barrier, list[int]]:
    """Return the rules about ICMPv6 that drop what IPv6 cannot do without, each with the kinds of messages."""
    found: dict[Barrier, list[int]] = {}
    # A host that has no address but its links' own is to have no IPv6.
    for hook in ("INPUT", "OUTPUT") if evidence.get("global_ipv6") else ():
        for kind in NEEDED_KINDS:
            for barrier in barriers(chains, hook, Packet("ipv6", "ipv6-icmp", kind=kind)):
                # One that drops all there is means that there is to be no IPv6.
                if _ALL_ICMPV6 in read(barrier.rule).tests:
                    found.setdefault(barrier, []).append(kind)
    return found


_ALL_ICMPV6 = ("-p", "ipv6-icmp", False)


def is_plain(barrier: Barrier) -> bool:
    """Say whether a rule drops a needed kind of ICMPv6 by its number, or all of them: not what a list leaves over."""
    of_kinds = [test for test in read(barrier.rule).tests if test[0] == "--icmpv6-type"]
    if of_kinds:
        return not any(negated for _, _, negated in of_kinds)
    return not any(_ALL_ICMPV6 in read(rule).tests for rule in barrier.passed)


def harmful(chains: Sequence[Evidence], evidence: Evidence) -> dict[Barrier, str]:
    """Return the rules that surely keep a service from what it must reach, or IPv6 from its neighbours: rule → what."""
    found = {
        barrier: name
        for _, name, tried in destinations(evidence)
        for packet, _, _ in tried
        for barrier in barriers(chains, "OUTPUT", packet)
        if names(barrier, packet)
    }
    return found | dict.fromkeys(filter(is_plain, without_neighbours(chains, evidence)), "ICMPv6")
