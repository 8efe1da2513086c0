"""health_check_gate: what the load balancer, a customer and a stranger reach before, while and after it is closed."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from tests.infra.asking import Apply, must, wait_until

FOLDER = Path(os.environ.get("MOLECULE_EPHEMERAL_DIRECTORY", ""))
INSTANCE = FOLDER.name
PROGRAM = "/usr/local/lib/hikeshi/gate"
FAMILIES = ["ipv4", "ipv6"]
LATE_S = 90 if os.environ.get("HIKESHI_TEST_ALL") else 45  # IPv6 without neighbours dies after half a minute
SWITCH = "switch"
LEGACY = os.environ.get("MOLECULE_SCENARIO_NAME", "").endswith("legacy")
asked_once = pytest.mark.skipif(LEGACY, reason="no generation of iptables has a part in it")
# All rules but the gate's own, without the time of asking and what was counted; order counts. grep says 1 where no
# set but ours is there, which is as it should be.
FOREIGN = (
    "for p in iptables-nft iptables-legacy ip6tables-nft ip6tables-legacy; do"
    " $p-save -t filter | sed -n '/HIKESHI/d; s/ \\[.*\\]//; /^[:-]/p'; done; ipset list -n | grep -v hikeshi || true"
)
# Runs on the others with their own Python: a new connection each time, and whether it was reset, or never answered.
ASK = """
import http.client, json, sys
address, path = sys.argv[1:]
connection = http.client.HTTPConnection(address, 80, timeout=3)
try:
    connection.request("GET", path, headers={"Host": "localhost"})
    print(connection.getresponse().status)
except ConnectionRefusedError:
    print("reset")
except TimeoutError:
    print("silence")
"""
PING = """
import socket, struct, sys
address = sys.argv[1]
six = ":" in address
one = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_RAW, 58 if six else 1)
one.settimeout(0.5)
message = struct.pack("!BBHHH", 128 if six else 8, 0, 0, 7, 1)
if not six:
    total = sum(struct.unpack("!4H", message))
    total = (total >> 16) + (total & 0xFFFF)
    message = struct.pack("!BBHHH", 8, 0, ~total & 0xFFFF, 7, 1)
for _ in range(4):
    one.sendto(message, (address, 0))
    try:
        while True:
            got = one.recv(1500)
            if (got[0] == 129) if six else (got[20] == 0):
                sys.exit(print("answer"))
    except TimeoutError:
        pass
print("silence")
"""
# One connection that asks again and again, as a load balancer's pool does.
KEPT = """
import http.client, sys, time
connection = http.client.HTTPConnection(sys.argv[1], 80, timeout=5)
for _ in range(int(sys.argv[2])):
    connection.request("GET", "/", headers={"Host": "localhost"})
    answer = connection.getresponse()
    answer.read()
    print(answer.status, flush=True)
    time.sleep(0.2)
"""


def addresses() -> dict[str, dict[str, str]]:
    return json.loads((FOLDER / "addresses.json").read_text())  # type: ignore[no-any-return]


def beside(who: str, program: str, *words: str) -> str:
    """Run a program of Python in the container that plays the load balancer, or in the stranger's."""
    command = ["podman", "exec", f"{INSTANCE}-{who}", "python3", "-c", program, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()


def asked(who: str, path: str = "/lb-health") -> list[str]:
    """Return what a new request gets over IPv4 and over IPv6."""
    return [beside(who, ASK, addresses()["instance"][family], path) for family in FAMILIES]


def pinged(who: str) -> list[str]:
    return [beside(who, PING, addresses()["instance"][family]) for family in FAMILIES]


def status(host: Host) -> dict[str, Any]:
    return json.loads(must(host, f"{PROGRAM} status"))  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def opened(host: Host) -> Iterator[None]:
    """Begin and end with an open gate. Whether it closes each test asks itself."""
    host.run(f"{PROGRAM} unblock; {PROGRAM} undrain")
    yield
    host.run(f"{PROGRAM} unblock; {PROGRAM} undrain")


@pytest.fixture
def foreign(host: Host) -> Iterator[None]:
    """Others' rules stay as they are, byte by byte."""
    before = must(host, FOREIGN)
    assert "of somebody else" in before
    yield
    assert must(host, FOREIGN) == before


def step(apply: Apply, name: str, **more: Any) -> int:
    """Take one step as the playbooks do; return how many tasks changed something."""
    applied = apply("health_check_gate", SWITCH, health_check_gate_step=name, **more)
    assert applied.status == 0, applied.output
    return applied.changed


@pytest.mark.usefixtures("foreign")
def test_check_and_customers_before_while_and_after(host: Host, apply: Apply) -> None:
    assert status(host)["backend"] == ("legacy" if LEGACY else "nft")
    assert asked("balancer") == ["200", "200"]
    assert step(apply, "drain") == 1
    assert asked("balancer") == ["503", "503"]
    assert asked("balancer", "/") == ["200", "200"], "customers are served while the load balancer makes up its mind"
    assert step(apply, "block") == 1
    assert asked("balancer") == asked("balancer", "/") == ["reset", "reset"]
    assert asked("stranger") == ["200", "200"], "only the load balancer is refused, and nginx is drained no more"
    assert step(apply, "unblock") == 1
    assert asked("balancer") == ["503", "503"]
    assert step(apply, "undrain") == 1
    assert asked("balancer") == ["200", "200"]
    assert [step(apply, name) for name in ("unblock", "undrain")] == [0, 0]


@pytest.mark.usefixtures("foreign")
def test_connections_that_stand_go_on(host: Host) -> None:
    for family in FAMILIES:
        command = [
            "podman",
            "exec",
            f"{INSTANCE}-balancer",
            "python3",
            "-c",
            KEPT,
            addresses()["instance"][family],
            "20",
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as kept:
            assert kept.stdout and kept.stdout.readline().strip() == "200"
            must(host, f"{PROGRAM} block 60")
            assert asked("balancer") == ["reset", "reset"]
            rest, _ = kept.communicate(timeout=30)
        assert rest.split() == ["200"] * 19, family
        must(host, f"{PROGRAM} unblock; {PROGRAM} undrain")


def test_second_closing_lasts_longer(host: Host) -> None:
    must(host, f"{PROGRAM} block 60")
    since = status(host)["since"]
    must(host, f"{PROGRAM} block 600")
    seen = status(host)
    assert seen["since"] == since and seen["left_s"] > 500
    assert all(seconds > 500 for one in seen["families"].values() for seconds in one["entries"].values())


@pytest.mark.usefixtures("foreign")
@pytest.mark.parametrize(("verb", "closed"), [("drain 8", "503"), ("block 8", "reset")])
def test_it_opens_by_itself_with_everything_of_ours_dead(host: Host, verb: str, closed: str) -> None:
    must(host, "systemctl stop hikeshi-gate-watch.timer")
    must(host, f"{PROGRAM} {verb}; mv {PROGRAM} {PROGRAM}.away")
    try:
        assert asked("balancer") == [closed, closed]
        began = time.monotonic()
        wait_until(lambda: asked("balancer") == ["200", "200"], 20)
        print(f"\n{verb}: open again after {time.monotonic() - began:.1f} s")
    finally:
        must(host, f"mv {PROGRAM}.away {PROGRAM}; systemctl start hikeshi-gate-watch.timer")


@pytest.mark.parametrize("verb", ["drain", "block"])
def test_reboot_while_closed_comes_back_closed_for_the_rest(host: Host, verb: str) -> None:
    must(host, f"{PROGRAM} {verb} 60")
    until = status(host)["until"]
    for words in (["stop", "--time=20"], ["start"]):
        subprocess.run(["podman", *words, INSTANCE], check=True, capture_output=True)
    wait_until(lambda: host.run("systemctl is-system-running").stdout.strip() in ("running", "degraded"), 60)
    wait_until(lambda: "200" in asked("stranger"), 30)
    assert asked("balancer") == ["reset", "reset"]
    assert abs(status(host)["until"] - until) < 1
    must(host, "systemctl is-active hikeshi-gate-sets.service hikeshi-gate.service netfilter-persistent.service")
    order = [
        int(must(host, f"systemctl show --property=ExecMain{moment}TimestampMonotonic --value {unit}"))
        for unit, moment in (
            ("hikeshi-gate-sets.service", "Exit"),
            ("netfilter-persistent.service", "Start"),
            ("netfilter-persistent.service", "Exit"),
            ("hikeshi-gate.service", "Start"),
        )
    ]
    assert order == sorted(order) and order[0] > 0
    wait_until(lambda: asked("balancer") == ["200", "200"], 90)


@pytest.mark.usefixtures("foreign")
def test_saved_rules_with_ours_in_them_load_at_boot(host: Host) -> None:
    """Somebody saves the firewall while our chain stands in it: the next boot must load all of it."""
    must(host, "cp -a /etc/iptables /root/iptables; netfilter-persistent save")
    try:
        assert "hikeshi-gate6" in must(host, "cat /etc/iptables/rules.v6")
        for words in (["stop", "--time=20"], ["start"]):
            subprocess.run(["podman", *words, INSTANCE], check=True, capture_output=True)
        wait_until(lambda: host.run("systemctl is-system-running").stdout.strip() in ("running", "degraded"), 60)
        must(host, "systemctl is-active netfilter-persistent.service")
        assert [one["stands"] for one in status(host)["families"].values()] == [True, True]
    finally:
        must(host, "rm -r /etc/iptables; mv /root/iptables /etc/iptables")


@pytest.mark.usefixtures("foreign")
def test_jump_is_put_back_after_a_reload_of_others(host: Host) -> None:
    must(host, f"{PROGRAM} block 120")
    must(host, "systemctl restart netfilter-persistent.service")
    assert asked("balancer") == ["200", "200"], "a reload that takes nothing proves nothing"
    wait_until(lambda: asked("balancer") == ["reset", "reset"], 40)


def test_ipv6_lives_after_closing_and_opening(host: Host) -> None:
    """Without neighbour discovery IPv6 works for half a minute more; so look late, and with empty tables."""
    for verb, seen in (("block 300", "reset"), ("unblock", "503")):
        must(host, f"{PROGRAM} {verb}")
        time.sleep(LATE_S)
        must(host, "ip -6 neigh flush all")
        for who in ("balancer", "stranger"):
            subprocess.run(["podman", "exec", f"{INSTANCE}-{who}", "ip", "-6", "neigh", "flush", "all"], check=True)
        assert asked("balancer") == [seen, seen]
        assert asked("stranger", "/") == ["200", "200"]
        assert pinged("stranger") == ["answer", "answer"]


@pytest.mark.usefixtures("foreign")
def test_icmp_check_loses_its_echo_and_nothing_else(host: Host, apply: Apply) -> None:
    icmp = {"health_check_gate_check": "icmp", "health_check_gate_check_path": ""}
    try:
        assert apply("health_check_gate", "main", **icmp).status == 0
        assert not host.file("/etc/nginx/shop.d/hikeshi-gate.conf").exists
        assert pinged("balancer") == ["answer", "answer"]
        step(apply, "block", **icmp)
        assert pinged("balancer") == ["silence", "silence"]
        assert pinged("stranger") == ["answer", "answer"]
        assert asked("balancer", "/") == ["200", "200"]
        must(host, "ip -6 neigh flush all")
        assert asked("balancer", "/") == ["200", "200"], "neighbours are still found"
        assert step(apply, "unblock", **icmp) == 1
        assert pinged("balancer") == ["answer", "answer"]
    finally:
        assert apply("health_check_gate", "main").status == 0


@asked_once
def test_check_of_a_customers_page_is_told_by_where_it_comes_from(host: Host, apply: Apply) -> None:
    page = {"health_check_gate_check_path": "/", "health_check_gate_own_path": False}
    try:
        assert apply("health_check_gate", "main", **page).status == 0
        must(host, f"{PROGRAM} drain 60")
        assert asked("balancer", "/") == ["503", "503"]
        assert asked("stranger", "/") == ["200", "200"]
        assert asked("balancer", "/cart") == ["200", "200"]
    finally:
        assert apply("health_check_gate", "main").status == 0


def test_two_generations_of_rules_are_refused(host: Host, apply: Apply) -> None:
    other = "iptables-nft" if LEGACY else "iptables-legacy"
    must(host, f"{other} -w -A FORWARD -s 203.0.113.9/32 -j DROP")
    try:
        applied = apply("health_check_gate", SWITCH, health_check_gate_step="block")
        assert applied.status != 0
        assert "gate refused:" in applied.output and "203.0.113.9/32" in applied.output, applied.output
        assert asked("balancer") == ["200", "200"]
    finally:
        must(host, f"{other} -w -D FORWARD -s 203.0.113.9/32 -j DROP")


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ({"health_check_gate_lb_kind": "aws-alb"}, "There, instead: give its listener a rule"),
        ({"health_check_gate_lb_kind": "aws-nlb"}, "There, instead: let its listener forward"),
        ({"health_check_gate_lb_kind": "toaster"}, "health_check_gate_lb_kind is 'toaster'; allowed: haproxy"),
        ({"health_check_gate_check_path": ""}, "gate refused: health_check_gate_check is http"),
        ({"health_check_gate_check": "tcp"}, "with tcp and icmp none"),
        ({"health_check_gate_ports": [0]}, "ports from 1 to 65535"),
        ({"health_check_gate_addresses": ["lb.example"]}, "at least one of the load balancer"),
        ({"health_check_gate_minutes": 0}, "1 to 1440 minutes"),
    ],
)
@pytest.mark.at_rest
@asked_once
def test_what_cannot_be_meant_is_refused(apply: Apply, what: dict[str, Any], words: str) -> None:
    applied = apply("health_check_gate", SWITCH, health_check_gate_step="block", **what)
    assert applied.status != 0
    assert words in " ".join(applied.output.split()), applied.output


@asked_once
def test_controller_is_never_cut_off(host: Host, apply: Apply) -> None:
    before = must(host, "cat /etc/hikeshi/gate.json")
    try:
        applied = apply("health_check_gate", "main", health_check_gate_keep_open=[addresses()["balancer"]["ipv6"]])
        assert applied.status != 0
        assert "(keep_open) is one of the load balancer's addresses" in " ".join(applied.output.split())
        assert asked("balancer") == ["200", "200"]
    finally:
        must(host, f"cat > /etc/hikeshi/gate.json <<'END'\n{before}END")


@asked_once
def test_switch_that_nginx_refuses_is_taken_away(host: Host, apply: Apply) -> None:
    must(host, f"{PROGRAM} status; echo 'set $hikeshi_other $nothing_like_it;' > /etc/nginx/shop.d/broken.conf")
    try:
        applied = apply("health_check_gate", "main", health_check_gate_check_path="/other")
        assert applied.status != 0
        assert "what nginx served is served still" in " ".join(applied.output.split())
        assert not host.file("/etc/nginx/shop.d/hikeshi-gate.conf").exists
        assert asked("stranger", "/") == ["200", "200"]
    finally:
        must(host, "rm /etc/nginx/shop.d/broken.conf")
        assert apply("health_check_gate", "main").status == 0


def test_removed_nothing_of_it_is_left_in_the_kernel(host: Host, apply: Apply) -> None:
    must(host, f"{PROGRAM} block 60; systemctl stop hikeshi-gate-watch.timer; {PROGRAM} remove")
    try:
        left = must(host, "iptables-save; ip6tables-save; ipset list -n")
        assert "HIKESHI" not in left and "hikeshi" not in left
        assert asked("balancer") == ["200", "200"]
    finally:
        assert apply("health_check_gate", "main").status == 0
