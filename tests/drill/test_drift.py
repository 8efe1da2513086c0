"""What nobody listed: changes that no rule knows, found by the baseline, mended exactly where something suffers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hikeshi.drill import customers, faults, ledger
from hikeshi.site import load
from tests.drill.administrator import Administrator
from tests.drill.conftest import ALL, hikeshi, reboot, red, ssh, wait_for_orders
from tests.drill.test_seeing import state

# An administrator's good work: nobody suffers from it.
INNOCENT = {
    "file:/etc/systemd/system/mariadb.service.d/nice.conf": "printf '[Service]\\nNice=1\\n'",
    "file:/etc/nginx/conf.d/note.conf": "printf '# note\\n'",
    "file:/etc/cron.d/zz-note": "printf '# {{ note }}\\n'",
}
SETUP = "".join(
    f"mkdir -p $(dirname {path}); {words} > {path}; " for path, words in
    ((subject.removeprefix("file:"), words) for subject, words in INNOCENT.items())
)  # fmt: skip
PATHS = " ".join(subject.removeprefix("file:") for subject in INNOCENT)
NO_INNOCENT = f"rm -f {PATHS}; systemctl daemon-reload; systemctl reload nginx"
LOOK = f"stat -c '%n %a %U %Y' {PATHS}; sha256sum {PATHS}"
FAULTS = faults.catalogue()
# Of a day, and how long customers come for it: the shop bounds them. With 500 the whole test took 1,675 s.
ORDERS, DAY_S = (500, 3000) if ALL else (5, 300)
UNNAMED = [name for name, fault in FAULTS.items() if fault.unnamed]
# What an administrator runs beside the shop, and an account that nothing needs.
REPORTS = """
useradd --system reports; useradd --system visitor
echo daily > /etc/reports.conf
cat > /etc/systemd/system/reports.service <<'UNIT'
[Unit]
Description=The administrator's reports
[Service]
User=reports
ExecStart=/bin/sh -c 'grep -q daily /etc/reports.conf && exec sleep infinity'
[Install]
WantedBy=multi-user.target
UNIT
systemctl daemon-reload; systemctl enable --now reports
"""
# Of what a test made of it each part may be gone already.
NO_REPORTS = """
systemctl disable --now reports || true
rm -f /etc/systemd/system/reports.service /etc/reports.conf; systemctl daemon-reload; systemctl reset-failed
userdel reports || true; userdel visitor || true
"""
BREAKS_REPORTS = {
    "removed user": ("user:reports", "systemctl stop reports; userdel reports"),
    "changed mode": ("file:/etc/reports.conf", "chmod 0600 /etc/reports.conf"),
}

pytestmark = pytest.mark.long


@pytest.fixture
def tidy(whole: Path) -> Iterator[Path]:
    """The practice site; what a test left is taken away, whatever became of it."""
    yield whole
    ssh("web1", NO_INNOCENT)


def drift() -> dict[str, Any]:
    done = hikeshi("triage", "--json")
    return {item["subject"]: item for item in done.data["drift"]}


@pytest.fixture
def reports(whole: Path) -> Iterator[Path]:
    """The practice site, and what an administrator runs beside the shop, in the baseline."""
    ssh("web1", REPORTS)
    try:
        assert hikeshi("baseline").status == 0
        yield whole
    finally:
        ssh("web1", NO_REPORTS)
        assert hikeshi("baseline").status == 0


def finds_nothing() -> None:
    done = hikeshi("triage", "--json")
    assert (done.status, done.data["findings"], done.data["drift"], done.data["unseen"]) == (0, [], [], []), done.out


def test_a_working_day_is_no_drift(tidy: Path, seed: int) -> None:
    site = load("drill")
    customers.start(site, seed, every=0.5, orders=1, seconds=DAY_S)
    try:
        wait_for_orders(ORDERS, timeout=DAY_S)
    finally:
        truth = customers.stop(site)
    assert ledger.audit(site, truth.order_numbers)[1] == []
    ssh("batch1", "systemctl start batch-export-orders.service")
    for host in ("lb1", "web1"):
        ssh(host, "logrotate --force /etc/logrotate.conf")
    for host in ("lb1", "web1", "batch1"):
        reboot(host)
    finds_nothing()


def test_what_an_administrator_had_in_the_baseline_is_no_drift(tidy: Path) -> None:
    try:
        with Administrator():
            ssh("web1", "echo '7 3 * * 0 kenji test -e /srv' > /etc/cron.d/zz-kenji")
            assert hikeshi("baseline").status == 0
            reboot()
            finds_nothing()
    finally:
        ssh("web1", "rm -f /etc/cron.d/zz-kenji")
        assert hikeshi("baseline").status == 0


def test_changes_that_hurt_nobody_are_reported_with_before_and_after(tidy: Path) -> None:
    ssh("web1", SETUP + "chmod 0600 /etc/debian_version; useradd visitor")
    try:
        found = drift()
        assert set(INNOCENT) | {"file:/etc/debian_version", "user:visitor"} <= set(found)
        modes = [found["file:/etc/debian_version"][key]["mode"] for key in ("before", "after")]
        assert modes == ["0644", "0600"]
        assert found["file:/etc/cron.d/zz-note"]["text"] == ["@@ -0,0 +1 @@", "+# {{ note }}"]
        done = hikeshi("recover", "--yes", "--json")
        assert (done.status, done.data["changed"]) == (0, 0), done.err
        assert set(INNOCENT) <= {item["subject"] for item in done.data["drift"]}
    finally:
        ssh("web1", "chmod 0644 /etc/debian_version; userdel -r visitor 2> /dev/null")


@pytest.mark.parametrize("name", BREAKS_REPORTS)
def test_what_only_a_unit_of_others_suffers_from_is_put_back(reports: Path, name: str) -> None:
    subject, commands = BREAKS_REPORTS[name]
    # It cannot start any more; whether the restart says so depends on how soon it dies. Triage must see it below.
    ssh("web1", f"{SETUP}{commands}; userdel visitor; systemctl restart reports || true; sleep 1")
    try:
        seen = hikeshi("triage", "--json")
        assert [item["id"] for item in seen.data["findings"]] == ["unit_failed/unit:reports.service"]
        changed = next(item for item in seen.data["drift"] if item["subject"] == subject)
        assert changed["before"]
        assert (changed["after"] is None) == (name == "removed user")
        done = hikeshi("recover", "--yes", "--json")
        assert done.status == 0, done.err
        assert [words.split(" ")[2] for words in done.data["restored"]] == [subject]
        assert {*INNOCENT, "user:visitor"} <= {item["subject"] for item in done.data["drift"]}, (
            "nobody suffers from them"
        )
        assert ssh("web1", "systemctl is-active reports").strip() == "active"
    finally:
        ssh("web1", NO_INNOCENT)


@pytest.mark.parametrize("name", UNNAMED)
def test_what_no_rule_knows_is_put_back_and_nothing_else(tidy: Path, seed: int, name: str) -> None:
    ssh("web1", SETUP)
    broken = hikeshi("drill", "break", name, "--seed", str(seed))
    assert broken.status == 0, broken.err
    before = ssh("web1", LOOK)
    assert FAULTS[name].probe in red(hikeshi("probe", "--json").data)
    done = hikeshi("recover", "--yes", "--json")
    assert done.status == 0, done.err
    assert done.data["converged"], "steps or rules were enough: it is not unnamed"
    (subject,) = faults.choose(name, seed).subjects
    assert [words.split(" ")[2] for words in done.data["restored"]] == [subject]
    assert ssh("web1", LOOK) == before
    left = drift()
    assert subject not in left
    assert set(INNOCENT) <= set(left)
    again = hikeshi("recover", "--yes", "--json")
    assert (again.status, again.data["changed"]) == (0, 0)


def test_what_nothing_can_mend_is_said_and_nothing_else_is_touched(whole: Path, seed: int) -> None:
    """The goods are gone from the database, and there is no backup."""
    broken = hikeshi("drill", "break", "catalogue-deleted", "--seed", str(seed))
    assert broken.status == 0, broken.err
    try:
        before = {host: state(host) for host in ("web1", "batch1")}
        done = hikeshi("recover", "--yes", "--json")
        assert (done.status, done.data["healthy"], done.data["changed"]) == (1, False, 0), done.err
        assert "pictures" in red(done.data["probes_after"])
        assert {host: state(host) for host in before} == before
    finally:
        ssh("web1", "checkout-manage seed_catalogue")
