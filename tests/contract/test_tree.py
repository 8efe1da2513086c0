"""The whole tree: locked requirements, no private key, strict shell scripts."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.contract.project import ROOT, relative, tracked

LOCKS = [ROOT / "requirements.lock", ROOT / "inventories" / "drill" / "shop" / "requirements.lock"]
# POSIX sh has no pipefail.
STRICT = {"bash": "set -euo pipefail", "sh": "set -eu"}

each_lock = pytest.mark.parametrize("lock", LOCKS, ids=relative)


def requirements(lock: Path) -> list[str]:
    """Return the lines of a lock, continued ones joined, comments left out."""
    text = re.sub(r"^\s*#.*\n", "", lock.read_text(), flags=re.MULTILINE)
    return [line.strip() for line in text.replace("\\\n", " ").splitlines() if line.strip()]


@each_lock
def test_lock_pins_every_requirement_by_hash(lock: Path) -> None:
    for line in requirements(lock):
        assert re.match(r"[\w.-]+(\[[\w,-]+\])?==[\w.+!]+(\s*;.*?)?\s+--hash=sha256:[0-9a-f]{64}", line), (
            f"{relative(lock)}: '{line[:60]}' needs one exact version and a hash"
        )


@each_lock
def test_lock_names_no_index(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text, (
        f"{relative(lock)}: names an address; the machine's own settings say where packages come from"
    )
    assert not re.search(r"^\s*(-i|-f|--index|--extra-index|--find-links|--trusted)", text, re.MULTILINE), relative(
        lock
    )


def test_lock_holds_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [Requirement(text) for text in [*project["dependencies"], *project["optional-dependencies"]["dev"]]]
    found = [line.split()[0].split("==") for line in requirements(LOCKS[0])]
    locked = {canonicalize_name(name.split("[")[0]): version for name, version in found}
    for need in wanted:
        version = locked.get(canonicalize_name(need.name))
        assert version, f"requirements.lock: {need.name} of pyproject.toml is missing; lock again (CONTRIBUTING.md)"
        assert need.specifier.contains(version), (
            f"requirements.lock has {need.name} {version}, pyproject.toml wants {need}"
        )


@pytest.mark.parametrize("kind", ["OPENSSH ", "RSA ", "EC ", "DSA ", "ENCRYPTED ", "PGP ", ""])
def test_no_private_key_is_kept(kind: str) -> None:
    # Put together here: this file must not hold the words it looks for.
    header = f"-----BEGIN {kind}PRIVATE KEY".encode()
    holding = [relative(path) for path in tracked() if header in path.read_bytes()]
    assert not holding, f"{holding} holds a private key: take it out, and use that key nowhere any more"


def scripts() -> list[tuple[Path, str]]:
    """Return every shell script, templates included, with the shell it asks for."""
    found = []
    for path in tracked():
        first = path.read_bytes().split(b"\n", 1)[0]
        shell = re.match(rb"#!\s*(?:/usr/bin/env\s+|/(?:usr/)?bin/)(bash|sh)\b", first)
        if shell:
            found.append((path, shell[1].decode()))
    return found


@pytest.mark.parametrize(("path", "shell"), [pytest.param(*item, id=relative(item[0])) for item in scripts()])
def test_shell_script_stops_at_the_first_error(path: Path, shell: str) -> None:
    code = [line for line in path.read_text().splitlines()[1:] if line.strip() and not line.startswith("#")]
    assert code[:1] == [STRICT[shell]], f"{relative(path)}: the first line of code must be '{STRICT[shell]}'"
