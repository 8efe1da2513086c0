"""instance_copy: a host is refused; the programs for a bench read all of a disk, and carry data so that it is whole."""

import json
import shlex
from pathlib import Path
from typing import Any

from testinfra.host import Host

from tests.infra.asking import must

FILES = Path(__file__).parents[2] / "roles" / "instance_copy" / "files"
DISKS = "/srv/disks"


def program(host: Host, name: str, *words: str) -> str:
    """Run a program of the role as a driver does: its text comes by standard input."""
    text = (FILES / f"{name}.py").read_text()
    return must(host, f"python3 -c {shlex.quote(text)} {shlex.join(words)}")


def test_a_host_with_a_network_is_no_bench(host: Host) -> None:
    refused = must(host, "cat /srv/refused")
    for words in ("instance_copy refused", "network interface", "more than files need", "no disk is mounted at /disk"):
        assert words in refused


def test_every_byte_counts_and_nothing_is_written(host: Host) -> None:
    disk = f"{DISKS}/from"

    def read() -> Any:
        return json.loads(program(host, "read_copy", "read", disk))

    before = read()
    assert before == read() and before["disks"][disk] == {"files": 1, "bytes": 4} and not before["unreadable"]
    must(host, f"touch --reference={disk} {disk}/mark && ln -s /etc/shadow {disk}/link")
    after = read()
    assert after["digest"] != before["digest"] and after["disks"][disk] == {"files": 3, "bytes": 4}
    must(host, f"rm {disk}/mark {disk}/link")


def test_data_is_carried_whole_and_what_stood_there_is_kept_once(host: Host) -> None:
    for _ in range(2):
        program(host, "carry_data", f"{DISKS}/from", f"{DISKS}/to", "/var/lib/shop", "before-x")
        assert must(host, f"cat {DISKS}/to/var/lib/shop/orders").strip() == "new"
        assert must(host, f"stat --format=%u {DISKS}/to/var/lib/shop/orders").strip() == "4711"
        assert must(host, f"cat {DISKS}/to/var/lib/shop.before-x/orders").strip() == "old"
        assert must(host, f"ls {DISKS}/to/var/lib").split() == ["shop", "shop.before-x"]
