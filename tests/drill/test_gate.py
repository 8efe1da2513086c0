"""The gate on the practice site: nobody falls between the two pages, and of many who switch one does."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hikeshi.errors import ExitStatus
from hikeshi.site import load
from tests.bench import gate
from tests.drill.conftest import hikeshi, red


@pytest.fixture
def allowed(whole: Path) -> Iterator[None]:
    """An incident in which the customer allows the sorry page; at its end the gate is open."""
    with gate.allowed():
        yield
        opened = hikeshi("sorry", "off", "--force")
        assert opened.status == 0, opened.err


def test_nobody_gets_neither_the_shop_nor_the_sorry_page(allowed: None) -> None:
    """Only what was lost is judged here; what was slow is for the benchmark to say, on a machine that is quiet."""
    closed, opened = gate.by_gate(load("drill"))
    assert [item for phase in (closed, opened) for item in phase.failed] == []
    assert {item.what for item in closed.new[-gate.RATE :]} == {"sorry"}
    assert {item.what for item in opened.new[-gate.RATE :]} == {"shop"}
    assert not red(hikeshi("probe", "--json").data)


@pytest.mark.long
def test_of_twenty_who_switch_at_once_one_after_the_other_does(allowed: None) -> None:
    verbs = [("on", "--yes"), ("off", "--force")] * 10
    with ThreadPoolExecutor(len(verbs)) as people:
        ends = list(people.map(lambda words: hikeshi("sorry", *words), verbs))
    assert {done.status for done in ends} <= {0, ExitStatus.REFUSED}, [done.err for done in ends]
    refused = [" ".join(done.err.split()) for done in ends if done.status == ExitStatus.REFUSED]
    assert all(", pid " in words and ", sorry o" in words for words in refused), refused
    assert len(refused) < len(ends), "somebody must have been first"
    status = hikeshi("sorry", "status", "--json").data
    assert all(
        host["gate"] == "open" or (host["gate"] == "closed" and host["until"]) for host in status["hosts"].values()
    )
    assert hikeshi("incident", "verify").status == 0
