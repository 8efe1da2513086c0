"""The way Ansible reaches a bench: through pipes alone, and bounded; here what it runs runs on this machine."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleConnectionFailure
from ansible.playbook.play_context import PlayContext
from ansible.plugins.loader import connection_loader

PLUGINS = Path(__file__).parents[2] / "roles" / "instance_copy" / "connection_plugins"


def bench(*command: str, **options: Any) -> Any:
    """Return a connection that runs what it is told behind a command."""
    connection_loader.add_directory(str(PLUGINS))
    made = connection_loader.get("bench", PlayContext(), os.devnull)
    made.set_options(direct={"command": list(command), **options})
    return made


def test_input_output_errors_and_status_come_through() -> None:
    told = bench("env").exec_command("/bin/sh -c 'cat; echo no >&2; exit 3'", b"in" * 200_000)
    assert told == (3, b"in" * 200_000, b"no\n")


def test_words_stay_words() -> None:
    status, told, _ = bench("env", "A=$(id)").exec_command("/bin/sh -c 'printf %s \"$A\"'")
    assert (status, told) == (0, b"$(id)")


def test_one_that_does_not_read_its_input_is_heard() -> None:
    assert bench("env").exec_command("/bin/sh -c 'exec <&-; echo no; exit 1'", b"x" * (1 << 20))[:2] == (1, b"no\n")


@pytest.mark.parametrize(
    ("script", "why"), [("exec yes", "said more than 1000 bytes"), ("exec sleep 60", "did not end within 1 s"),
                        ("sleep 60 & exec >&- 2>&-; wait", "did not end within 1 s"),
                        ("while :; do echo x; sleep 0.1; done", "did not end within 1 s")],
)  # fmt: skip
def test_who_has_no_end_is_ended(script: str, why: str) -> None:
    began = time.monotonic()
    with pytest.raises(AnsibleConnectionFailure, match=why):
        bench("env", "MARK=bench-test", seconds=1, bytes=1000).exec_command(f"/bin/sh -c '{script}'")
    assert time.monotonic() - began < 10
    running = subprocess.run(["pgrep", "-f", "sleep 60"], capture_output=True, text=True, check=False).stdout.split()
    ours = [pid for pid in running if b"MARK=bench-test" in Path(f"/proc/{pid}/environ").read_bytes()]
    assert ours == [], "with all that it started"


def test_a_name_of_a_file_means_something_only_there(tmp_path: Path) -> None:
    """A link on a disk that leads to this machine's files: what is written goes where the disk's root says."""
    disk, outside, sent = tmp_path / "disk", tmp_path / "outside", tmp_path / "sent"
    (disk / "tmp").mkdir(parents=True)
    outside.mkdir()
    sent.write_bytes(b"\0\xff text")
    (disk / "tmp" / "way").symlink_to(outside)
    # In place of a container: whoever is asked to write sees names, and opens none here.
    spy = tmp_path / "spy"
    spy.write_text('#!/bin/sh\nprintf "%s\\n" "$@" > "${0%/*}/words"\ncat > "${0%/*}/data"\n')
    spy.chmod(0o755)
    for name in ("/tmp/way/x", "../../../outside/x", f"{outside}/x", "$(touch x)`x`;x"):  # noqa: S108
        bench(str(spy)).put_file(str(sent), name)
        assert (tmp_path / "words").read_text().split("\n")[-2] == name
        assert (tmp_path / "data").read_bytes() == b"\0\xff text"
    assert list(outside.iterdir()) == []


def test_no_file_is_fetched(tmp_path: Path) -> None:
    with pytest.raises(AnsibleConnectionFailure, match="no file is fetched"):
        bench("env").fetch_file("/etc/passwd", str(tmp_path / "x"))
    assert not (tmp_path / "x").exists()


def test_a_template_is_written_without_a_file_of_this_machine(tmp_path: Path) -> None:
    """Ansible's own `copy` of a text, through the plugin: nothing but the command is run, and nothing mounted."""
    place = tmp_path / "etc"
    place.mkdir()
    inventory, play = tmp_path / "hosts.yml", tmp_path / "play.yml"
    variables = {
        "ansible_connection": "bench", "ansible_bench_command": ["env"], "ansible_pipelining": True,
        "ansible_python_interpreter": sys.executable, "ansible_remote_tmp": str(tmp_path / "remote"),
    }  # fmt: skip
    inventory.write_text(f"all: {{hosts: {{web1: {variables!r}}}}}\n".replace("True", "true").replace("'", '"'))
    play.write_text(f"""
- hosts: web1
  gather_facts: false
  tasks:
    - ansible.builtin.copy: {{content: "{{{{ 6 * 7 }}}} lines", dest: "{place}/written", mode: "0640"}}
""")
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", inventory, play],
        env={**os.environ, "ANSIBLE_CONNECTION_PLUGINS": str(PLUGINS), "ANSIBLE_LOCALHOST_WARNING": "0"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert (place / "written").read_text() == "42 lines"
