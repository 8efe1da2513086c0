"""A practice site of our own, beside any other: prefix from HIKESHI_DRILL, which scripts/test sets."""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hikeshi.copies import record
from hikeshi.drill import customers
from hikeshi.incident import opening
from hikeshi.site import PROJECT, load, practice_folder

ALL = bool(os.environ.get("HIKESHI_TEST_ALL"))
HIKESHI = Path(sys.executable).with_name("hikeshi")
MOST_LONG = 2
SEED = int(os.environ.get("HIKESHI_TEST_SEED", random.SystemRandom().randrange(10**6)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of the tests marked `long` take MOST_LONG by the seed: an ordinary run must end within the hour."""
    if ALL:
        return
    chance, tests = random.Random(SEED), dict[str, list[pytest.Item]]()
    for item in items:
        if item.get_closest_marker("long"):
            # First the test, then its parameters: one test with many of them must not crowd out the others.
            tests.setdefault(item.nodeid.partition("[")[0], []).append(item)
    drawn = chance.sample(sorted(tests), min(MOST_LONG, len(tests)))
    taken = [chance.choice(tests[name]) for name in drawn]
    for item in (item for several in tests.values() for item in several if item not in taken):
        item.add_marker(pytest.mark.skip("it was not drawn; scripts/test --all takes every one"))


@dataclass(frozen=True)
class Done:
    """The end of one command."""

    status: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """The command's JSON."""
        return json.loads(self.out)


def hikeshi(*words: str, timeout: int = 600, **environment: str) -> Done:
    """Run the command as a user would, without a terminal."""
    done = subprocess.run(
        [HIKESHI, *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **environment},
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def ssh(host: str, command: str) -> str:
    """Run a shell script on a practice host as the operator may: by ssh, with sudo."""
    site = practice_folder() / "site"
    done = subprocess.run(
        ["ssh", "-F", site / "ssh_config", "-i", site / "ssh_key", "-o", f"UserKnownHostsFile={site / 'known_hosts'}",
         "-o", "BatchMode=yes", host, "sudo sh -se"],
        input=command, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def red(probes: list[dict[str, Any]]) -> set[str]:
    """The ids of the probes that failed."""
    return {item["id"] for item in probes if not item["passed"]}


def wait_for_orders(number: int = 1, timeout: int = 60) -> float:
    """Wait until so many more customers have bought; return when that was seen. Fail when they have gone home."""

    def look() -> tuple[str, int]:
        # Of customers who went home systemctl says so by failing; before the first one there is no file to count in.
        told = ssh(
            "client1",
            f"systemctl is-active {customers.UNIT} || true\n"
            f"grep -c '\"order\":' {customers.FOLDER}/truth.jsonl 2>/dev/null || true",
        ).split()
        return told[0], int(told[1]) if len(told) > 1 else 0

    deadline = time.monotonic() + timeout
    state, seen = look()
    wanted = seen + number
    while seen < wanted:
        bought = f"{seen - wanted + number} of {number} customers have bought"
        assert state == "active", f"{bought}, and the others went home: {customers.UNIT} is {state}"
        assert time.monotonic() < deadline, f"{bought} within {timeout} s"
        # No sooner can so many have come; each look costs the shop's machine.
        time.sleep(max(1.0, (wanted - seen) * customers.FASTEST))
        state, seen = look()
    return time.time()


def reboot(host: str = "web1") -> None:
    """Restart a host as the platform does, and wait until everything on it has started or given up."""
    from hikeshi.drill import containers

    state = containers.load_state()
    assert state
    containers.reboot(state, host)
    # Waited for, not judged: what is wrong after a reboot is for the test that asked for it to find.
    ssh(host, "timeout 50 systemctl is-system-running --wait || true")
    # The load balancer sends customers again when its checks have passed a few times in a row.
    for _ in range(15):
        if hikeshi("probe", "top").status == 0:
            return
        time.sleep(1)


@pytest.fixture(scope="session")
def seed() -> int:
    """A new seed each run, printed, or the one of HIKESHI_TEST_SEED."""
    print(f"\nseed {SEED}: repeat with HIKESHI_TEST_SEED={SEED}")
    return SEED


@pytest.fixture(scope="session")
def practice() -> Iterator[Path]:
    """A practice site that is up and green; taken down at the end unless HIKESHI_TEST_KEEP is set."""
    assert os.environ.get("HIKESHI_DRILL", "hikeshi") != "hikeshi", "set HIKESHI_DRILL: these tests break their site"
    done = hikeshi("drill", "up", timeout=1800)  # from nothing it takes minutes, on a busy machine many
    assert done.status == 0, done.err
    # A drill leaves its incident open; a test of this run, or of one before in this checkout, has its own.
    opening.end(load("drill"), "the tests", "left by a run before")
    yield practice_folder()
    opening.end(load("drill"), "the tests", "the tests are over")
    if not os.environ.get("HIKESHI_TEST_KEEP"):
        assert hikeshi("drill", "down").status == 0


@pytest.fixture
def whole(practice: Path) -> Path:
    """The practice site, green and no copy of itself before the test: an earlier failure must not spread."""
    if hikeshi("probe", "--json").status != 0 or record.read_all(load("drill")):
        hikeshi("drill", "down")
        assert hikeshi("drill", "up").status == 0
    return practice


@pytest.fixture
def clone(whole: Path) -> Iterator[Path]:
    """A fresh copy of the project as an ordinary user would have it: inventory, keys, no drill state, no .venv."""
    with tempfile.TemporaryDirectory(prefix="hikeshi-clone-", dir="/var/tmp") as folder:  # noqa: S108 (mkdtemp)
        target = Path(folder) / "clone"
        files = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
            cwd=PROJECT, capture_output=True, check=True,
        ).stdout  # fmt: skip
        for name in files.decode().split("\0"):
            if name and (PROJECT / name).exists():
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(PROJECT / name, target / name, follow_symlinks=False)
        shutil.copytree(whole / "site", target / ".drill" / whole.name / "site")
        yield target
