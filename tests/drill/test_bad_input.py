"""Bad input on the real site: each a clear error with its exit status, and nothing lost."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.drill.conftest import hikeshi


@pytest.fixture
def site(whole: Path) -> Iterator[Path]:
    """The run-time part of the site, put back afterwards."""
    kept = whole / "kept-site"
    shutil.copytree(whole / "site", kept, symlinks=True)
    yield whole / "site"
    shutil.rmtree(whole / "site")
    kept.rename(whole / "site")


def rewrite_port(site: Path, port: int) -> None:
    text = (site / "ssh_config").read_text().splitlines()
    (site / "ssh_config").write_text("\n".join(f"  Port {port}" if "Port" in line else line for line in text) + "\n")


def test_unreachable_host(site: Path) -> None:
    rewrite_port(site, 1)
    done = hikeshi("recover", "--yes")
    assert done.status == 3, done.err
    assert "web1" in done.err
    assert "Connection refused" in done.err


def test_wrong_key(site: Path) -> None:
    (site / "ssh_key").unlink()
    os.system(f"ssh-keygen -q -t ed25519 -N '' -f {site / 'ssh_key'}")  # noqa: S605
    done = hikeshi("recover", "--yes")
    assert done.status == 3, done.err
    assert "Permission denied" in done.err


def test_wrong_host_key(site: Path) -> None:
    lines = (site / "known_hosts").read_text().splitlines()
    other = next(line.split()[2] for line in lines if line.startswith("lb1 "))
    swapped = [f"web1 ssh-ed25519 {other}" if line.startswith("web1 ") else line for line in lines]
    (site / "known_hosts").write_text("\n".join(swapped) + "\n")
    done = hikeshi("recover", "--yes")
    assert done.status == 3, done.err
    assert "host key" in done.err.lower()


def test_missing_variable(site: Path) -> None:
    path = site / "group_vars" / "all" / "secrets.yml"
    secrets = yaml.safe_load(path.read_text())
    del secrets["secret_shop_database_password"]
    path.write_text(yaml.safe_dump(secrets))
    done = hikeshi("build")
    assert done.status == 4, done.err
    assert "secret_shop_database_password" in done.err


def test_broken_inventory(site: Path) -> None:
    (site / "hosts.yml").write_text("all: [\n")
    done = hikeshi("recover", "--yes")
    assert done.status == 4, done.err
    assert "hosts.yml line" in done.err


def test_no_podman(whole: Path, tmp_path: Path) -> None:
    done = hikeshi("drill", "up", PATH=str(tmp_path))
    assert done.status == 4, done.err
    assert "podman is not in PATH" in done.err


def test_unknown_fault_and_site(whole: Path) -> None:
    assert hikeshi("drill", "break", "nosuch").status == 2
    assert hikeshi("recover", "--site", "nosuch").status == 2


def test_second_recovery_is_refused_by_name(whole: Path) -> None:
    from hikeshi import lock
    from hikeshi.site import load

    with lock.held(load("drill"), "recover"):
        done = hikeshi("recover", "--yes")
    assert done.status == 5, done.err
    assert "is being changed by" in done.err
