"""The story: seeded faults, a real reboot, the right probe red, recovery, green; alone, in threes, and the whole night.

In threes customers come all the while, and an administrator has made three changes of his own before.
"""

import itertools
import random
import re
import time

import pytest

from hikeshi.drill import containers, customers, faults, ledger
from hikeshi.drill.practice import PLAYED, scenario
from hikeshi.site import load
from tests.drill.administrator import Administrator
from tests.drill.conftest import ALL, Done, hikeshi, reboot, red, ssh, wait_for_orders

FAULTS = faults.catalogue()
# Those that keep us out are mended by way of a copied disk: tests/drill/test_login.py.
NAMED = [name for name, fault in sorted(FAULTS.items()) if fault.mendable and not fault.unnamed and not fault.keeps_out]
SEEDS, THREES = (3, 20) if ALL else (1, 1)
# What the probe that turns red says, a pattern; a fault that no customer notices has neither.
WHY = {
    "images-not-mounted": "404",
    "images-unreadable": "40",  # 403 where the file is seen and refused, 404 where the way to it is closed
    "database-disabled": "503",
    "checkout-disabled": "503",
    "environment-lost": "503",
    "nginx-include-broken": "503",
    "gateway-name-gone": "Preview order",  # the page asks for the card again, and never comes to the preview
    "image-link-dangling": "404",
    "runtime-directory-lost": "503",
    "sessions-crashed": "500",
    "database-password-changed": "503",
    "connections-used-up": "503",
    # Whoever writes waits; when all workers do, the load balancer sends the rest away.
    "database-disk-full": "no answer in time|50[234]",
    "nginx-host-not-found": "503",
    "health-path-gone": "503",
    "alias-mismatch": "404",
    "database-elsewhere": "503",
    "start-limit-hit": "503",
    # The card is not taken in time, or not at all: the page never comes, or asks for the card again.
    "egress-blocked": "/checkout/preview/",
}
EXPORTS = "/srv/orders-export"


def possible() -> list[str]:
    """Return the faults that rules know and that can be made on this machine."""
    state = containers.load_state()
    assert state
    return [name for name in NAMED if not (FAULTS[name].small_disk and state.no_small_disks)]


def named(recovery: Done, name: str, seed: int) -> bool:
    """Say whether a finding of a recovery is about what was broken."""
    found = {(item["host"], item["subject"]) for item in recovery.data["findings"]}
    fault = faults.choose(name, seed)
    return bool(found & {(fault.host, subject) for subject in fault.subjects})


def unchanged(why: str) -> None:
    """Recover again: there must be nothing to do."""
    again = hikeshi("recover", "--yes", "--json")
    assert (again.status, again.data["changed"], again.data["findings"]) == (0, 0, []), f"{why}\n{again.err}"


def recovered() -> Done:
    """Recover, and do it again."""
    first = hikeshi("recover", "--yes", "--json")
    assert first.status == 0, first.err
    assert first.data["healthy"]
    unchanged("a second recovery must find nothing")
    return first


@pytest.mark.long
@pytest.mark.parametrize("number", range(SEEDS))
@pytest.mark.parametrize("name", NAMED)
def test_each_fault_alone(whole: object, seed: int, name: str, number: int) -> None:
    if name not in possible():
        pytest.skip("this machine gives no small disk that could be filled")
    broken = hikeshi("drill", "break", name, "--seed", str(seed + number))
    assert broken.status == 0, broken.err

    before = hikeshi("probe", "--json")
    if FAULTS[name].probe:
        assert before.status == 1
        assert FAULTS[name].probe in red(before.data)
        seen = next(item["seen"] for item in before.data if item["id"] == FAULTS[name].probe)
        assert re.search(WHY[name], seen), seen
    else:
        assert before.status == 0, "no customer should notice this"

    first = recovered()
    assert named(first, name, seed + number), first.data["findings"]
    assert not first.data["converged"], "the plan's steps should be enough for a fault that a rule knows"

    reboot()
    unchanged("a reboot must stay green")
    audited = hikeshi("drill", "audit", "--json")
    assert audited.status == 0, audited.out


def three(seed: int, number: int) -> list[str]:
    """Draw three faults that can be made side by side."""
    chance, names = random.Random(f"{seed}:{number}"), possible()
    draws = (chance.sample(names, 3) for _ in itertools.count())
    return next(drawn for drawn in draws if faults.compatible(drawn))


@pytest.mark.long
@pytest.mark.parametrize("number", range(THREES))
def test_three_faults_lose_no_order_and_no_work_of_others(whole: object, seed: int, number: int) -> None:
    names, site = three(seed, number), load("drill")
    print(f"seed {seed + number}: {', '.join(names)}")
    with Administrator() as administrator:
        customers.start(site, seed + number)
        try:
            bought_before = wait_for_orders()
            broken = hikeshi("drill", "break", *names, "--seed", str(seed + number))
            assert broken.status == 0, broken.err
            first = recovered()
            assert all(named(first, name, seed + number) for name in names), first.data["findings"]
            administrator.finds_everything_as_it_was(first.data["kept"])
            mended = time.time()
            wait_for_orders()
            reboot()
            unchanged("a reboot must stay green")
            administrator.finds_everything_as_it_was(first.data["kept"])
        finally:
            truth = customers.stop(site)
    times = [item["at"] for item in truth.orders]
    assert min(times) < bought_before
    assert any(bought_before < item["at"] < mended for item in truth.requests), "nobody came while it was broken"
    assert max(times) > mended
    assert ledger.audit(site, truth.order_numbers)[1] == []


@pytest.mark.long
def test_job_that_a_stale_lock_stopped_is_made_up_for(whole: object, seed: int) -> None:
    """Nobody notices by day: the export of yesterday is missing until the lock's dead owner is buried."""
    failing = next(
        number
        for number in itertools.count(seed)
        if any("start" in operation for operation in faults.choose("stale-lock", number).operations)
    )
    csv = f"orders-{ssh('batch1', 'date -d yesterday +%F').strip()}.csv"
    ssh("batch1", f"rm -f {EXPORTS}/{csv}")
    broken = hikeshi("drill", "break", "stale-lock", "--seed", str(failing), "--no-reboot")
    assert broken.status == 0, broken.err
    assert csv not in ssh("batch1", f"ls {EXPORTS}").split()
    assert [item["step"] for item in recovered().data["steps"]] == ["stale_lock", "run_job"]
    assert csv in (left := ssh("batch1", f"ls {EXPORTS}").split())
    assert "export.lock" not in left


def test_all_faults_of_the_night_at_once_unattended(whole: object, seed: int) -> None:
    played = hikeshi("drill", "--seed", str(seed), "--json")
    assert played.status == 0, played.err
    result = played.data
    assert red(result["probes_broken"])
    assert result["recovery"]["healthy"]
    wanted = dict.fromkeys(scenario(PLAYED).faults, True)
    assert {row["fault"]: row["mended"] for row in result["faults"]} == wanted
    assert all(row["by"] for row in result["faults"])

    built = hikeshi("build", "--json")
    assert built.status == 0, built.err
    assert built.data["changed"] == 0, "what recovery mended must be what the roles would build"
