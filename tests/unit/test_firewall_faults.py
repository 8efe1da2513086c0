"""The faults of the firewall that the drill makes, and the firewalls of administrators who made none.

Rules go the way of a host's: as iptables-save prints them, through the collector, to findings and steps. What a step
takes away is taken away here as host_base does it, and judged again; a login by ssh, wherever sshd listens, must never
be worse off for it.
"""

import copy
import itertools
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hikeshi.drill import faults
from hikeshi.errors import HikeshiError
from hikeshi.triage import findings, firewall, plan, shape
from tests.unit.host_program import loaded
from tests.unit.test_collect_evidence import COLLECT, STATE
from tests.unit.test_triage import HEALTHY

GATEWAY, V4, V6 = "pay.example:8420", "10.203.5.12", "fd00:1::12"
SSH = 2222
FAULTS = ("egress-blocked", "icmpv6-dropped", "firewall-unsaved")
SAVED = {"ipv4": "/etc/iptables/rules.v4", "ipv6": "/etc/iptables/rules.v6"}
PROGRAM = loaded(Path(__file__).parents[2] / "roles" / "host_base" / "library" / "firewall_rule.py")
OPEN = ":INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n"


@dataclass
class Wall:
    """The firewall of one host, live and saved: family → the table filter's lines, as iptables-save prints them."""

    live: dict[str, list[str]] = field(default_factory=lambda: dict.fromkeys(SAVED, OPEN.splitlines()))
    saved: dict[str, list[str]] = field(default_factory=lambda: dict.fromkeys(SAVED, OPEN.splitlines()))
    cut_off: bool = False

    def evidence(self, chance: random.Random | None = None) -> dict[str, Any]:
        """Return what the collector tells of it, in any order that it may come in."""
        told: dict[str, Any] = copy.deepcopy(HEALTHY)
        shop = next(item for item in told["subjects"] if item["role"] == "checkout_service")
        shop["reaches"] = [{"name": "pay.example", "port": 8420}]
        seen = [{"address": to, "ok": not self.cut_off, "why": "TIMEOUT" * self.cut_off} for to in (V4, V6)]
        collector = COLLECT.Collector()
        live = {("nft", family): (chains(lines), True) for family, lines in self.live.items()}
        saved: dict[str, Any] = {
            SAVED[family]: (family, collector.bounded(chains(lines), family, ""))
            for family, lines in self.saved.items()
        }
        told |= {
            "global_ipv6": True,
            "reaches": {GATEWAY: seen},
            "firewall": collector.firewall(live),
            "saved_firewall": {path: {"family": family, "chains": kept} for path, (family, kept) in saved.items()},
            "firewall_cut": sorted(collector.firewall_cut),
            "sshd_at": [{"address": "::", "port": SSH, "by": "ssh.socket"}],
        }
        if chance:
            for items in (seen, told["firewall"], *(item["chains"] for item in told["saved_firewall"].values())):
                chance.shuffle(items)
            told["saved_firewall"] = dict(chance.sample(list(told["saved_firewall"].items()), 2))
        shape.check("web1", told)
        return told

    def mend(self, steps: list[findings.Step]) -> None:
        """Take out what steps name: these very lines, as host_base's tasks do."""
        for step in steps:
            if step.step == "firewall_saved_rule":
                family = next(family for family, path in SAVED.items() if path == step.args["path"])
                found = self.saved
            else:
                assert (step.step, step.args["backend"], step.args["table"]) == ("firewall_rule", "nft", "filter")
                family, found = step.args["family"], self.live
                PROGRAM.split(step.args["chain"], step.args["rule"])  # which refuses what it must not take
            assert step.args["rule"] in found[family]
            found[family] = [line for line in found[family] if line != step.args["rule"]]


def chains(lines: list[str]) -> Any:
    return STATE.iptables_chains("\n".join(["*filter", *lines, "COMMIT"]))


def as_saved(words: str, family: str) -> str:
    """Return a rule as iptables-save prints it."""
    six = "6" * (family == "ipv6")
    words = words.replace("-d pay.example", f"-d {V6}/128" if six else f"-d {V4}/32")
    words = re.sub(r"-p tcp --dport", "-p tcp -m tcp --dport", words)
    words = words.replace("-p ipv6-icmp --icmpv6-type", "-p ipv6-icmp -m icmp6 --icmpv6-type")
    return re.sub(r"-j REJECT$", f"-j REJECT --reject-with icmp{six}-port-unreachable", words)


def add(lines: list[str], words: str, family: str) -> list[str]:
    """Return lines after iptables has carried out some words."""
    verb, name = words.split()[:2]
    if verb == "-N":
        return [*lines, f":{name} - [0:0]"]
    rule = as_saved(f"-A{words[2:]}", family)
    first = next((place for place, line in enumerate(lines) if line.startswith("-A")), len(lines))
    return [*lines[:first], rule, *lines[first:]] if verb == "-I" else [*lines, rule]


def broken(name: str) -> Iterator[tuple[Wall, list[str]]]:
    """Yield each way in which the drill makes a fault, and the subjects that may be found."""
    data = faults.catalogue()[name]
    for variant in data.variants:
        for values in itertools.product(*data.choose.values()):
            chosen = dict(zip(data.choose, values, strict=True))
            wall = Wall(cut_off=name == "egress-blocked")
            for operation in variant:
                given = {key: words.format(**chosen) for key, words in operation.items()}
                if "saved" in given:
                    family = "ipv6" if given["saved"].endswith("6") else "ipv4"
                    wall.saved[family] = add(wall.saved[family], given["rule"], family)
                else:
                    family = given["family"]
                    wall.live[family] = add(wall.live[family], given["iptables"], family)
            yield wall, [subject.format(**chosen) for subject in data.subjects]


EVERY = [(name, wall, subjects) for name in FAULTS for wall, subjects in broken(name)]
# What the administrator of a web server has, of which none is a fault.
DENY = [
    ":INPUT DROP [0:0]", ":FORWARD DROP [0:0]", ":OUTPUT ACCEPT [0:0]",
    "-A INPUT -i lo -j ACCEPT", "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "-A INPUT -m conntrack --ctstate INVALID -j DROP", "-A INPUT -p {icmp} -j ACCEPT",
    f"-A INPUT -p tcp -m tcp --dport {SSH} -j ACCEPT", "-A INPUT -p tcp -m multiport --dports 80,443 -j ACCEPT",
    "-A INPUT -m limit --limit 3/min -j LOG",
]  # fmt: skip
STRICT = [
    ":INPUT DROP [0:0]", ":FORWARD DROP [0:0]", ":OUTPUT DROP [0:0]", *DENY[3:],
    "-A OUTPUT -o lo -j ACCEPT", "-A OUTPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "-A OUTPUT -p {icmp} -j ACCEPT", "-A OUTPUT -p udp -m udp --dport 53 -j ACCEPT",
    "-A OUTPUT -p tcp -m tcp --dport 8420 -j ACCEPT", "-A OUTPUT -j REJECT --reject-with {unreachable}",
]  # fmt: skip
UFW = [
    ":INPUT DROP [0:0]", ":FORWARD DROP [0:0]", ":OUTPUT ACCEPT [0:0]",
    *(f":ufw{{n}}-{name} - [0:0]" for name in ("before-input", "user-input", "after-input", "reject-input",
                                               "user-limit", "not-local", "before-output", "user-output")),
    "-A INPUT -j ufw{n}-before-input", "-A INPUT -j ufw{n}-after-input", "-A INPUT -j ufw{n}-reject-input",
    "-A OUTPUT -j ufw{n}-before-output",
    "-A ufw{n}-before-input -i lo -j ACCEPT",
    "-A ufw{n}-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "-A ufw{n}-before-input -m conntrack --ctstate INVALID -j DROP",
    "-A ufw{n}-before-input -p {icmp} -j ACCEPT",
    "-A ufw{n}-before-input -j ufw{n}-not-local", "-A ufw{n}-before-input -j ufw{n}-user-input",
    "-A ufw{n}-not-local -m addrtype --dst-type LOCAL -j RETURN",
    "-A ufw{n}-not-local -m limit --limit 3/min --limit-burst 10 -j LOG --log-prefix \"[UFW BLOCK] \"",
    "-A ufw{n}-not-local -m addrtype --dst-type BROADCAST -j DROP",
    f"-A ufw{{n}}-user-input -p tcp -m tcp --dport {SSH} -m conntrack --ctstate NEW -m recent --update --seconds 30 "
    "--hitcount 6 --name DEFAULT --rsource -j ufw{n}-user-limit",
    f"-A ufw{{n}}-user-input -p tcp -m tcp --dport {SSH} -j ACCEPT",
    "-A ufw{n}-user-input -p tcp -m tcp --dport 80 -j ACCEPT",
    "-A ufw{n}-user-limit -j REJECT --reject-with {unreachable}",
    "-A ufw{n}-after-input -p udp -m udp --dport 137 -j DROP",
    "-A ufw{n}-reject-input -j REJECT --reject-with {unreachable}",
    "-A ufw{n}-before-output -j ufw{n}-user-output",
    "-A ufw{n}-user-output -p tcp -m tcp --dport 25 -j REJECT --reject-with {unreachable}",
]  # fmt: skip
DOCKER = [
    ":INPUT ACCEPT [0:0]", ":FORWARD DROP [0:0]", ":OUTPUT ACCEPT [0:0]", ":DOCKER - [0:0]", ":DOCKER-USER - [0:0]",
    ":DOCKER-ISOLATION-STAGE-2 - [0:0]", "-A FORWARD -j DOCKER-USER", "-A FORWARD -o docker0 -j DOCKER",
    "-A DOCKER-USER -p tcp -m tcp --dport 8420 -j DROP", "-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP",
]  # fmt: skip
FAIL2BAN = [
    *OPEN.splitlines(), ":f2b-sshd - [0:0]",
    f"-A INPUT -p tcp -m multiport --dports {SSH} -j f2b-sshd",
    "-A f2b-sshd -s {scanner} -j REJECT --reject-with {unreachable}", "-A f2b-sshd -j RETURN",
]  # fmt: skip
SCANNER = [
    *OPEN.splitlines(),
    "-A INPUT -s {scanner} -j DROP",
    "-A INPUT -s {scanner} -p {icmp} -j DROP",
    f"-A INPUT -s {{scanner}} -p tcp -m tcp --dport {SSH} -j DROP",
    "-A OUTPUT -d {scanner} -j DROP",
]
HEALTHY_WALLS = {"deny": DENY, "strict": STRICT, "ufw": UFW, "docker": DOCKER, "f2b": FAIL2BAN, "scanner": SCANNER}
WORDS = {
    "ipv4": {"icmp": "icmp", "n": "", "scanner": "198.51.100.7/32", "unreachable": "icmp-port-unreachable"},
    "ipv6": {"icmp": "ipv6-icmp", "n": "6", "scanner": "2001:db8::bad/128", "unreachable": "icmp6-port-unreachable"},
}


def wall_of(lines: list[str], *, saved: bool) -> Wall:
    """Return a firewall of these lines in both families, and whether the boot loads the same."""
    told = {family: [line.format(**words) for line in lines] for family, words in WORDS.items()}
    kept = {family: list(told[family]) if saved else OPEN.splitlines() for family in WORDS}
    return Wall(told, kept)


def judged(told: dict[str, Any]) -> tuple[list[findings.Finding], list[findings.Step]]:
    found = findings.judge({"web1": told})
    return found, [planned.step for planned in plan.make(found, {"web1": told}).steps]


def login_is_dropped(wall: Wall) -> set[tuple[str, str]]:
    """Return where a login is surely dropped on its way in, at the port where sshd really listens."""
    told, found = wall.evidence(), set()
    walls = [("live", told["firewall"])]
    for path, kept in told["saved_firewall"].items():
        walls.append((path, [{"family": kept["family"], "backend": "", **chain} for chain in kept["chains"]]))
    for (where, inside), family in itertools.product(walls, SAVED):
        if any(True for _ in firewall.barriers(inside, "INPUT", firewall.Packet(family, "tcp", port=SSH))):
            found.add((where, family))
    return found


@pytest.mark.parametrize(("name", "wall", "subjects"), EVERY, ids=lambda item: item if isinstance(item, str) else "")
def test_each_fault_is_found_named_and_mended(name: str, wall: Wall, subjects: list[str]) -> None:
    rule = {"egress-blocked": "egress_blocked", "icmpv6-dropped": "neighbours_blocked"}
    found, steps = judged(wall.evidence())
    assert {item.subject for item in found} & set(subjects)
    assert rule.get(name, "firewall_blocks_at_boot") in {item.rule for item in found}
    assert steps and {step.step for step in steps} <= {"firewall_rule", "firewall_saved_rule"}
    before = login_is_dropped(wall)
    wall.mend(steps)
    wall.cut_off = False
    assert judged(wall.evidence()) == ([], [])
    assert login_is_dropped(wall) <= before == set()


@pytest.mark.parametrize("seed", range(20))
def test_steps_are_the_same_in_whatever_order_the_host_tells(seed: int) -> None:
    for _, wall, _ in EVERY:
        wall = Wall(wall.live, wall.saved, wall.cut_off)
        _, steps = judged(wall.evidence())
        assert judged(wall.evidence(random.Random(seed)))[1] == steps


@pytest.mark.parametrize("saved", [True, False])
@pytest.mark.parametrize("name", HEALTHY_WALLS)
def test_firewall_of_an_administrator_is_healthy(name: str, saved: bool) -> None:
    """What programs write again need not be saved; what the administrator wrote should be, and is told, not done."""
    found, steps = judged(wall_of(HEALTHY_WALLS[name], saved=saved).evidence())
    assert steps == []
    assert {item.rule for item in found} <= (
        set() if saved or name in ("ufw", "docker", "f2b") else {"firewall_unsaved"}
    )


@pytest.mark.parametrize("name", HEALTHY_WALLS)
@pytest.mark.parametrize("fault", FAULTS)
def test_fault_in_an_administrators_firewall_takes_nothing_of_his(fault: str, name: str) -> None:
    for broken_wall, _ in broken(fault):
        wall = wall_of(HEALTHY_WALLS[name], saved=True)
        for mine, theirs in ((wall.live, broken_wall.live), (wall.saved, broken_wall.saved)):
            for family, lines in theirs.items():
                chains_first = [line for line in lines if line.startswith(":") and line not in OPEN.splitlines()]
                mine[family] = [*chains_first, *mine[family], *(line for line in lines if line.startswith("-A"))]
        own = {family: set(wall_of(HEALTHY_WALLS[name], saved=True).live[family]) for family in SAVED}
        wall.cut_off = broken_wall.cut_off
        before = login_is_dropped(wall)
        _, steps = judged(wall.evidence())
        wall.mend(steps)
        for family in SAVED:
            assert own[family] <= set(wall.live[family])
            assert own[family] <= set(wall.saved[family])
        assert login_is_dropped(wall) <= before


SHUTTING_OUT = [
    [":INPUT DROP [0:0]", *DENY[3:7], "-A INPUT -p tcp -m multiport --dports 22,80 -j ACCEPT"],  # the port of before
    [*OPEN.splitlines(), f"-A INPUT -p tcp -m tcp --dport {SSH} -j REJECT --reject-with tcp-reset"],
    [*DENY[:7], "-A INPUT -p tcp -j GUARD", ":GUARD - [0:0]", "-A GUARD -p tcp -m tcp --dport 1024:65535 -j DROP"],
]


@pytest.mark.parametrize("lines", SHUTTING_OUT)
def test_boot_that_would_shut_us_out_is_told_by_the_port_where_sshd_listens(lines: list[str]) -> None:
    wall = wall_of(DENY, saved=True)
    wall.saved = wall_of(lines, saved=False).live
    found, steps = judged(wall.evidence())
    blocks = [item for item in found if item.rule == "firewall_blocks_at_boot"]
    assert [item.subject for item in blocks] == [f"firewall:{path}" for path in SAVED.values()]
    for item in blocks:
        assert f"drops ssh at port {SSH}" in item.cause
        assert item.effect is findings.Effect.WILL_BREAK
        assert item.quote
    assert steps == []  # who is to get in, people decide
    assert judged({**wall.evidence(), "firewall_cut": ["ipv4", "ipv6"]})[0] == []


@pytest.mark.parametrize(
    "listening",
    [
        [],
        [{"address": "::", "port": 22, "by": "ssh.socket"}],  # which is let in
        [{"address": "127.0.0.1", "port": SSH, "by": "sshd"}, {"address": "::1", "port": SSH, "by": "sshd"}],
        [{"address": "no address", "port": SSH, "by": "sshd"}, {"address": "", "port": SSH, "by": "sshd"}],
    ],
)
def test_port_where_nobody_elsewhere_logs_in_may_be_closed(listening: list[dict[str, Any]]) -> None:
    wall = wall_of(SHUTTING_OUT[0], saved=True)
    wall.live = {family: OPEN.splitlines() for family in SAVED}
    told = wall.evidence() | {"sshd_at": listening}
    shape.check("web1", told)
    assert "ssh" not in " ".join(item.cause for item in judged(told)[0])


def test_one_family_is_enough_for_a_finding_and_sshd_itself_opens_each_alone() -> None:
    wall = wall_of(DENY, saved=True)
    wall.saved = wall_of(SHUTTING_OUT[0], saved=False).live
    told = wall.evidence() | {"sshd_at": [{"address": "::", "port": SSH, "by": "sshd"}]}
    assert [item.subject for item in judged(told)[0]] == ["firewall:/etc/iptables/rules.v6"]


@pytest.mark.parametrize(
    "exception",
    [
        "-A INPUT -s 192.0.2.0/24 -j ACCEPT", "-A INPUT -i wg0 -j ACCEPT",
        "-A INPUT -m set --match-set ours src -j ACCEPT",
        "-A INPUT -j OURS", f"-A INPUT -p tcp -m tcp --dport {SSH} -m recent --rcheck --name KNOCK --rsource -j ACCEPT",
    ],
)  # fmt: skip
def test_way_in_for_some_is_a_way_in(exception: str) -> None:
    """Whether it is ours nobody can say: no rule is accused that an earlier one makes an exception from."""
    wall = wall_of(DENY, saved=True)
    wall.saved["ipv4"] = [*SHUTTING_OUT[0][:1], exception, *DENY[3:6], "-A INPUT -p icmp -j ACCEPT"]
    assert "ssh" not in " ".join(item.cause for item in judged(wall.evidence())[0])


def test_evidence_recorded_before_sshd_was_asked_is_still_read() -> None:
    told = wall_of(DENY, saved=True).evidence()
    del told["sshd_at"]
    shape.check("web1", told)
    assert judged(told) == ([], [])


@pytest.mark.parametrize(
    "wrong", [{"port": 0}, {"port": 65536}, {"port": "22"}, {"port": True}, {"by": "telnetd"}, {"address": None}]
)
def test_what_is_no_place_of_sshd_is_refused(wrong: dict[str, Any]) -> None:
    told = wall_of(DENY, saved=True).evidence()
    told["sshd_at"][0] |= wrong
    with pytest.raises(HikeshiError, match="web1 sent evidence that cannot be judged: sshd_at"):
        shape.check("web1", told)
