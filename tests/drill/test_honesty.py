"""Recovery knows nothing of the drill: fresh clone, ordinary user, inventory and keys only, no podman in PATH."""

import os
import pwd
import subprocess
from pathlib import Path

import pytest

from hikeshi.site import PROJECT
from tests.drill.conftest import hikeshi

# What recovery may use of the operator's machine: bootstrap's tools, then those of openssh-client.
TOOLS = ("ssh", "sftp", "sh", "env", "bash", "dirname", "dpkg-query", "grep", "cat", "sha256sum", "rm")


@pytest.mark.long
def test_recovery_as_ordinary_user_without_podman(clone: Path, seed: int) -> None:
    if os.geteuid() != 0:
        pytest.fail("run as root: this test becomes an ordinary user")
    assert hikeshi("drill", "break", "--seed", str(seed + 7)).status == 0
    user = pwd.getpwnam("nobody")
    programs, home = clone.parent / "programs", clone.parent / "home"
    programs.mkdir()
    home.mkdir()
    for name in TOOLS:
        (programs / name).symlink_to(Path("/usr/bin") / name)
    for path in [clone.parent, *clone.parent.rglob("*")]:
        os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)
    environment = {
        "PATH": str(programs), "HOME": str(home), "HIKESHI_DRILL": os.environ["HIKESHI_DRILL"], "LANG": "C.UTF-8",
        # Where this machine gets packages from.
        **{key: value for key, value in os.environ.items() if key.startswith("PIP_")},
    }  # fmt: skip
    for command in (["scripts/bootstrap", "--controller"], [".venv/bin/hikeshi", "recover", "--yes"]):
        done = subprocess.run(
            command, cwd=clone, env=environment, user=user.pw_uid, group=user.pw_gid, extra_groups=[],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=400, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.stderr[-3000:]}"
        assert f"{PROJECT}/" not in done.stderr, "it used something outside its own clone"
    assert "healthy" in done.stdout
    assert hikeshi("probe").status == 0
