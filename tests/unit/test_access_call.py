"""The way of a count through Ansible itself: what is asked, and the partial, stand in no variable and no event."""

import base64
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hikeshi.site import PROJECT
from tests.unit.access_counter import KEY, program

ANSIBLE = Path(sys.executable).with_name("ansible-playbook")
LOCAL = "ansible_connection=local ansible_python_interpreter=/usr/bin/python3 ansible_become=false"
EVIL = b'203.0.113.77 - - [27/Nov/2026:08:00:00 +0000] "GET /{{lookup(1)}} HTTP/1.1" 200 5 "-" "{{ 7 * 7 }}"\n'


def play(folder: Path, playbook: Path, hosts: str, *words: str) -> subprocess.CompletedProcess[str]:
    (folder / "hosts").write_text(hosts)
    return subprocess.run(
        [ANSIBLE, "-vv", "-i", folder / "hosts", *words, playbook],
        env={**os.environ, "ANSIBLE_CONFIG": f"{PROJECT}/ansible.cfg", "ANSIBLE_ROLES_PATH": f"{PROJECT}/roles"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.fixture
def exchange(tmp_path: Path) -> Path:
    (tmp_path / "access.log").write_bytes(EVIL * 3 + b"junk\n")
    words = ["auto", "--store", str(tmp_path / "none"), "--glob", f"{tmp_path}/access.log*", "--by", "day"]
    asks = {"key": KEY.hex(), "hosts": {"web1": words}}
    folder = tmp_path / "exchange"
    folder.mkdir()
    (folder / "ask.json").write_text(json.dumps(asks))
    return folder


def test_a_partial_comes_past_events_and_variables(tmp_path: Path, exchange: Path) -> None:
    hosts = f"web1 {LOCAL}\nweb2 {LOCAL}\n"
    playbook = PROJECT / "playbooks" / "count-accesses.yml"
    done = play(tmp_path, playbook, hosts, "-e", f"access_count_exchange={exchange}")
    assert done.returncode == 0, done.stdout + done.stderr
    partial = json.loads((exchange / "web1.json").read_text())["partial"]
    head, lines = program.read_partial(io.BytesIO(base64.b64decode(partial)))
    assert (head["lines"], head["counted"], head["malformed"]) == (4, 3, 1)
    assert any(line.endswith(b"\t3\t/{{lookup(1)}}") for line in lines)
    assert not (exchange / "web2.json").exists(), "it was asked nothing"
    for secret in (KEY.hex(), "203.0.113.77", "lookup(1)"):
        assert secret not in done.stdout + done.stderr


def test_what_a_host_refuses_is_told(tmp_path: Path, exchange: Path) -> None:
    asks = json.loads((exchange / "ask.json").read_text())
    asks["hosts"]["web1"] += ["--memory", "1"]
    (exchange / "ask.json").write_text(json.dumps(asks))
    playbook = PROJECT / "playbooks" / "count-accesses.yml"
    done = play(tmp_path, playbook, f"web1 {LOCAL}\n", "-e", f"access_count_exchange={exchange}")
    assert done.returncode != 0 and "64 MiB and more" in done.stdout
    assert not (exchange / "web1.json").exists()


@pytest.mark.parametrize("name", ["build-site", "harden-site"])
def test_without_a_key_nothing_is_installed(tmp_path: Path, name: str) -> None:
    plays = (PROJECT / "playbooks" / f"{name}.yml").read_text().split("\n# ")
    (ours,) = [play for play in plays if "role: access_count" in play]
    (tmp_path / "play.yml").write_text("---\n# " + ours.partition("\n\n- name:")[0])
    done = play(tmp_path, tmp_path / "play.yml", f"[web_servers]\nweb1 {LOCAL}\n[load_balancers]\n[not_owned]\n")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ok=0 " in done.stdout and "changed=0" in done.stdout, done.stdout
