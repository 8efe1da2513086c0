"""A site that says nothing of its load balancer has no gate, and everything else goes on: asked of Ansible itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hikeshi.site import PROJECT

ANSIBLE = Path(sys.executable).with_name("ansible-playbook")
HOSTS = "[web_servers]\nweb1 ansible_connection=local\n[not_owned]\n"


@pytest.mark.parametrize("playbook", ["show-sorry-page", "hide-sorry-page", "build-site", "harden-site"])
def test_where_no_load_balancer_is_described_the_gate_is_passed_over(tmp_path: Path, playbook: str) -> None:
    (tmp_path / "hosts").write_text(HOSTS)
    plays = (PROJECT / "playbooks" / f"{playbook}.yml").read_text().split("\n- name:")
    gates = [play for play in plays if "health_check_gate" in play]
    assert len(gates) == 1
    # Of a play with other roles only the gate's: those would change this machine.
    play = "".join(line for line in gates[0].splitlines(keepends=True) if "role: " not in line or "gate" in line)
    (tmp_path / "play.yml").write_text(f"---\n- name:{play.removeprefix('---')}")
    done = subprocess.run(
        [ANSIBLE, "-i", tmp_path / "hosts", "-e", "sorry_page_step=drain", tmp_path / "play.yml"],
        env={**os.environ, "ANSIBLE_CONFIG": f"{PROJECT}/ansible.cfg", "ANSIBLE_ROLES_PATH": f"{PROJECT}/roles"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipping" in done.stdout
    assert "ok=0 " in done.stdout, done.stdout
