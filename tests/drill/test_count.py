"""Counting on the practice site: customers and a flood with their own truth, before, during and after a closed gate."""

import ipaddress
import json
import shlex
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from hikeshi.access import flood
from hikeshi.drill import customers
from hikeshi.drill.ledger import run_on
from hikeshi.site import Site, load, read_yaml
from tests.bench import gate
from tests.drill.conftest import HIKESHI, SEED, hikeshi

NAMED_S = 10
FLOOD_S, NETWORK_OF = 12, 20
LEAST_RATE = 40  # requests/s of a flooding client
BROWSER = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/120.0 Safari/537.36"
FLOODER = (Path(__file__).parent / "flooder.py").read_text(encoding="utf-8")


@pytest.fixture
def allowed(whole: Path) -> Iterator[None]:
    """An incident in which the customer allows the sorry page; at its end the gate is open."""
    with gate.allowed():
        yield
        hikeshi("sorry", "off", "--force")


def next_minute() -> str:
    """Wait for the next minute, from which on is counted; return it."""
    time.sleep(60 - time.time() % 60 + 1)
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M+00:00")


class Attacker:
    """Two clients, and one network of many, with addresses of their own on client1."""

    def __init__(self, site: Site) -> None:
        """Take addresses of the practice network that no host has."""
        self.site, self._pool = site, ThreadPoolExecutor()
        hosts = read_yaml(site.private / "hosts.yml")["all"]["hosts"]
        self.to = {family: str(hosts["lb1"][f"practice_{family}"]) for family in ("ipv4", "ipv6")}
        first = {family: ipaddress.ip_address(hosts["client1"][f"practice_{family}"]) for family in ("ipv4", "ipv6")}
        self.clients = [str(first["ipv4"] + 180 + number) for number in range(2)]
        self.network = [str(first["ipv6"] + 0x1000 + number) for number in range(NETWORK_OF)]

    def __enter__(self) -> "Attacker":
        """Have the addresses."""
        self._addresses("add", " nodad")
        return self

    def __exit__(self, *_: object) -> None:
        """Give them back."""
        self._pool.shutdown()
        self._addresses("del", "")

    def _addresses(self, verb: str, more: str) -> None:
        lines = [f"ip address {verb} {address}/24 dev eth0" for address in self.clients]
        lines += [f"ip address {verb} {address}/64 dev eth0{more}" for address in self.network]
        run_on(self.site, "client1", "\n".join(lines) + "\n")

    def _flood(self, family: str, rate: float, addresses: list[str]) -> "Future[Any]":
        words = [self.to[family], "/catalogue/", BROWSER, str(rate), str(FLOOD_S), *addresses]
        script = f"python3 - {shlex.join(words)} <<'PROGRAM-ENDS'\n{FLOODER}PROGRAM-ENDS\n"
        return self._pool.submit(lambda: json.loads(run_on(self.site, "client1", script, root=False)))

    def flood(self, rate: float) -> list["Future[Any]"]:
        """Begin, each client and all of the network at this rate; each tells when it began and what came."""
        return [
            self._flood("ipv4", rate, self.clients),
            self._flood("ipv6", rate / NETWORK_OF, self.network),
        ]


def flooding_rate(before: customers.Truth) -> float:
    """Return a rate that is a flood beside these customers of one address, who are as fast as the machine."""
    busiest = Counter((item["to"], int(item["at"]) // flood.SECONDS) for item in before.requests).most_common(1)[0][1]
    return max(LEAST_RATE, 2 * flood.TIMES * busiest / flood.SECONDS)


class Watcher:
    """`hikeshi count --watch`, and what it tells."""

    def __enter__(self) -> "Watcher":
        """Begin to watch."""
        self.told: list[dict[str, Any]] = []
        self._process = subprocess.Popen(
            [HIKESHI, "count", "--watch", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self._process.kill()
        self._thread.join()
        self._process.communicate()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self.told.append({**json.loads(line), "heard": time.time()})

    @property
    def attacks(self) -> list[dict[str, Any]]:
        """What was called an attack."""
        return [item for item in self.told if item["kind"] == "attack"]


def wait_for_shop(most_s: int = 120) -> None:
    """Wait until the load balancer lets customers in: with so many of them a check may take longer than it has."""
    deadline = time.monotonic() + most_s
    while hikeshi("probe", "top").status:
        assert time.monotonic() < deadline, f"no shop {most_s} s after the gate was opened"
        time.sleep(1)


@pytest.mark.long
def test_customers_a_surge_and_a_flood_behind_the_sorry_page_are_counted_to_the_last_hit(allowed: None) -> None:
    site = load("drill")
    customers.start(site, SEED, every=1.0, seconds=600)
    time.sleep(75)  # a past to compare with
    rate = flooding_rate(customers.stop(site))
    since = next_minute()
    with Watcher() as watch, Attacker(site) as attacker:
        # Many customers at once, all from client1: one crowd with many agents.
        customers.start(site, SEED, every=0.2, seconds=600)
        time.sleep(45)
        assert hikeshi("sorry", "on", "--yes").status == 0
        surge = list(watch.attacks)
        flooded = [told.result() for told in attacker.flood(rate)]
        time.sleep(3)
        hikeshi("sorry", "off", "--force")
        wait_for_shop()
        time.sleep(20)
        truth = customers.stop(site)
        time.sleep(3)
    assert surge == []
    # Named in time: who, how much over what, since when, what they asked for.
    began = min(item["began"] for item in flooded)
    accused = {item["name"]: item for told in watch.attacks for item in told["accused"]}
    network = flood.network_of(attacker.network[0])
    named = {*attacker.clients, network}
    # Two clients of one network may be over the network's limit a moment before each is over its own, and the agent
    # and the path of all of them before the last of them is named.
    may_be = {flood.network_of(attacker.clients[0]), BROWSER, "/catalogue/"}
    assert named <= accused.keys() <= named | may_be, watch.told
    first = {name: min(told["heard"] for told in watch.attacks if name in str(told)) for name in named}
    assert all(at - began < NAMED_S for at in first.values()), (began, first)
    assert {item["path"] for item in accused.values()} == {"/catalogue/"}
    assert all(item["reasons"] and item["rate"] > item["limit"] for item in accused.values())
    assert "a flood from" in hikeshi("incident", "status").out  # every verb shows it until it is over
    # Counted to the last hit.
    answers = Counter(item["status"] for item in truth.requests)
    for item in flooded:
        answers.update({int(status): hits for status, hits in item["answers"].items()})
    data = hikeshi("count", "--json", "--since", since, "--by", "minute").data
    lb = data["lb"]["total"]
    assert answers[0] == 0 and answers[503] > FLOOD_S * LEAST_RATE
    assert lb["people"] == answers.total(), (answers, lb)
    assert lb["sorry_people"] == answers[503], (answers, lb)
    assert lb["outcomes"]["served"] >= answers.total() - answers[503]
    lines = data["method"]["lines"]
    assert lines["lines"] == lines["counted"] + lines["malformed"] + lines["pending"]
    assert not data["reconciled"]["flagged"], data["reconciled"]
