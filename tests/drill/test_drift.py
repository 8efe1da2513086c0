"""What nobody listed: changes that no rule knows, found by the baseline, mended exactly where something suffers."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.drill.conftest import hikeshi, reboot, ssh

ALL = bool(os.environ.get("HIKESHI_TEST_ALL"))
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
# What breaks the shop: no rule has a name for it, and building the site anew leaves it as it is.
CULPRITS = {
    "stray drop-in": (
        "file:/etc/systemd/system/checkout.service.d/check.conf",
        "mkdir -p /etc/systemd/system/checkout.service.d; "
        "printf '[Service]\\nExecStartPre=/bin/false\\n' > /etc/systemd/system/checkout.service.d/check.conf; "
        # It cannot start any more: that is the fault.
        "systemctl daemon-reload; ! systemctl restart checkout",
    ),
    "altered setting": (
        "file:/etc/nginx/conf.d/zz-limit.conf",
        "printf 'limit_req_zone $server_name zone=all:1m rate=1r/m;\\nlimit_req zone=all;\\n' "
        "> /etc/nginx/conf.d/zz-limit.conf; systemctl reload nginx",
    ),
    "altered file of a package": (
        "file:/etc/nginx/mime.types",
        "sed -i '/jpeg/d' /etc/nginx/mime.types; systemctl reload nginx",
    ),
}


@pytest.fixture
def tidy(whole: Path) -> Iterator[Path]:
    """The practice site; what a test left is taken away, whatever became of it."""
    yield whole
    paths = " ".join(subject.removeprefix("file:") for subject in INNOCENT)
    ssh("web1", f"rm -f {paths}; systemctl daemon-reload; systemctl reload nginx")


def drift() -> dict[str, Any]:
    done = hikeshi("triage", "--json")
    return {item["subject"]: item for item in done.data["drift"]}


def test_a_working_day_is_no_drift(tidy: Path) -> None:
    assert hikeshi("drill", "customers", "--every", "0.5").status == 0
    ssh("batch1", "systemctl start batch-export-orders.service")
    reboot("web1")
    reboot("batch1")
    hikeshi("drill", "customers", "--stop")
    done = hikeshi("triage", "--json")
    assert (done.status, done.data["findings"], done.data["drift"], done.data["unseen"]) == (0, [], [], []), done.out


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


@pytest.mark.parametrize("name", list(CULPRITS))
def test_what_no_rule_knows_is_put_back_and_nothing_else(tidy: Path, seed: int, name: str) -> None:
    if not ALL and (list(CULPRITS).index(name) + seed) % len(CULPRITS):
        pytest.skip("another one this time; scripts/test --all takes them all")
    subject, commands = CULPRITS[name]
    ssh("web1", SETUP + commands)
    before = ssh("web1", "stat -c '%n %a %U %Y' " + " ".join(path.removeprefix("file:") for path in INNOCENT))
    done = hikeshi("recover", "--yes", "--json")
    assert done.status == 0, done.err
    assert done.data["healthy"]
    assert [words for words in done.data["restored"] if subject in words], done.data["restored"]
    assert len(done.data["restored"]) == 1
    after = ssh("web1", "stat -c '%n %a %U %Y' " + " ".join(path.removeprefix("file:") for path in INNOCENT))
    assert after == before
    left = drift()
    assert subject not in left
    assert set(INNOCENT) <= set(left)
    again = hikeshi("recover", "--yes", "--json")
    assert (again.status, again.data["changed"]) == (0, 0)
