"""Every playbook and every command is documented, and what documents name exists."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from hikeshi.cli import app
from tests.contract.project import ROLE_NAMES, ROOT, load, relative

PLAYBOOKS = sorted((ROOT / "playbooks").glob("*.yml"))
TABLE = ROOT / "playbooks" / "README.md"


def commands(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """Yield every command below one, as the words typed to reach it."""
    for name, found in getattr(command, "commands", {}).items():
        yield " ".join((*words, name)), found
        yield from commands(found, (*words, name))


COMMANDS = dict(commands(typer.main.get_command(app), ("hikeshi",)))


def rows() -> list[str]:
    return [line for line in TABLE.read_text().splitlines() if line.startswith("|")] if TABLE.is_file() else []


@pytest.mark.parametrize("playbook", PLAYBOOKS, ids=lambda path: path.stem)
def test_playbook_is_in_the_table(playbook: Path) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)+\.yml", playbook.name), f"{relative(playbook)}: name it verb-noun.yml"
    named = [row for row in rows() if playbook.name in row.split("|")[1]]
    assert len(named) == 1, f"playbooks/README.md: the table needs one row that begins with {playbook.name}"


def test_table_names_only_what_exists() -> None:
    names = {name for row in rows() for name in re.findall(r"[\w-]+\.yml", row.split("|")[1])}
    missing = sorted(names - {path.name for path in PLAYBOOKS})
    assert not missing, f"playbooks/README.md: the table has rows for {missing}, which do not exist"


@pytest.mark.parametrize("playbook", PLAYBOOKS, ids=lambda path: path.stem)
def test_playbook_uses_roles_that_exist(playbook: Path) -> None:
    for play in load(playbook):
        used = [item["role"] if isinstance(item, dict) else item for item in play.get("roles", [])]
        unknown = sorted(set(used) - set(ROLE_NAMES))
        assert not unknown, f"{relative(playbook)}: {unknown} is no folder of roles/"


@pytest.mark.parametrize("words", COMMANDS)
def test_command_is_in_the_readme(words: str) -> None:
    path = ROOT / "README.md"
    text = path.read_text() if path.is_file() else ""
    *group, verb = words.split()
    # `hikeshi drill up`, or within one line `hikeshi drill [up|down|…]`
    pattern = rf"\b{' '.join(group)} (\[[^\]\n]*\b)?{re.escape(verb)}\b"
    assert re.search(pattern, text), f"README.md: name the command `{words}`"


@pytest.mark.parametrize("words", COMMANDS)
def test_command_explains_itself(words: str) -> None:
    command = COMMANDS[words]
    assert (command.help or "").strip(), f"scripts/hikeshi/cli.py: `{words}` has no help text"
    silent = [item.name for item in command.params if item.name != "help" and not (getattr(item, "help", "") or "")]
    assert not silent, f"scripts/hikeshi/cli.py: {silent} of `{words}` has no help text"


@pytest.mark.parametrize("name", ["scripts/bootstrap", "scripts/drill", "scripts/test", ".ci/run"])
def test_entry_points_can_be_run(name: str) -> None:
    path = ROOT / name
    assert path.is_file(), f"{name} is missing"
    assert os.access(path, os.X_OK), f"{name}: chmod +x"
    assert path.read_text().startswith("#!"), f"{name}: needs a first line like '#!/usr/bin/env bash'"
