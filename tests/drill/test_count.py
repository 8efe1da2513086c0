"""Counting on the practice site: customers' own truth, before, during and after a closed gate; a flood is named."""

import json
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from hikeshi.drill import customers
from hikeshi.drill.ledger import run_on
from hikeshi.site import load, read_yaml
from tests.bench import gate
from tests.drill.conftest import HIKESHI, SEED, hikeshi

NAMED_S = 10


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


@pytest.mark.long
def test_counts_are_what_customers_saw(allowed: None) -> None:
    """To the last hit, sorry page and shop apart; the flood of others is not theirs."""
    since, site = next_minute(), load("drill")
    customers.start(site, SEED, every=0.5, seconds=240)
    time.sleep(40)
    assert hikeshi("sorry", "on", "--yes").status == 0
    time.sleep(30)
    assert hikeshi("sorry", "off", "--force").status == 0
    time.sleep(30)
    truth = customers.stop(site)
    time.sleep(3)
    data = hikeshi("count", "--json", "--since", since, "--by", "minute").data
    answers = Counter(item["status"] for item in truth.requests)
    lb = data["lb"]["total"]
    seen = lb["outcomes"].get("sorry", 0), lb["outcomes"].get("served", 0)
    assert lb["people"] == len(truth.requests) - answers[0], (answers, lb)
    assert seen[0] >= answers[503] > 0 and seen[1] > 0
    lines = data["method"]["lines"]
    assert lines["lines"] == lines["counted"] + lines["malformed"] + lines["pending"]
    assert not data["reconciled"]["flagged"], data["reconciled"]


def watching() -> subprocess.Popen[str]:
    return subprocess.Popen([HIKESHI, "count", "--watch", "--json"], stdout=subprocess.PIPE, text=True)


@pytest.mark.long
def test_a_flood_is_named_within_ten_seconds_and_a_surge_is_none(whole: Path) -> None:
    site = load("drill")
    lb = read_yaml(site.private / "hosts.yml")["all"]["hosts"]["lb1"]
    with watching() as watch:
        assert watch.stdout
        try:
            time.sleep(8)
            # All of them have client1's address: one crowd with many agents, which must not be accused.
            customers.start(site, SEED, every=0.2, seconds=60)
            time.sleep(30)
            began = time.time()
            flood = (
                f"for n in $(seq 1500); do curl -s -o /dev/null -A flooder http://{lb['practice_ipv4']}/ & done; wait"
            )
            run_on(site, "client1", flood)
            told: dict[str, Any] = {}
            while told.get("kind") != "attack":
                told = json.loads(watch.stdout.readline())
            assert told["at"] - began < NAMED_S and told["accused"][0]["agent"] == "flooder"
        finally:
            watch.kill()
            customers.stop(site)
    assert "flood" in hikeshi("incident", "status").err
