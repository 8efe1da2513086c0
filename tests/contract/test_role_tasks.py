"""Task files: small, touching no input, naming no inventory group, with facts only as ansible_facts['x']."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.project import ROLE_NAMES, ROLES, ROOT, Role, lines_that_count, load, relative, tasks

each_role = pytest.mark.parametrize("role", ROLES, ids=ROLE_NAMES)
MAIN_LINES, OTHER_LINES = 20, 80
# Variables that Ansible itself gives; every other ansible_… is an injected fact or a connection setting of the site.
MAGIC = {
    "ansible_check_mode",
    "ansible_diff_mode",
    "ansible_facts",
    "ansible_failed_result",
    "ansible_failed_task",
    "ansible_loop",
    "ansible_managed",
    "ansible_no_target_syslog",
    "ansible_run_tags",
    "ansible_search_path",
    "ansible_version",
}


def groups(data: Any) -> Iterator[str]:
    """Yield every group of an inventory, `all` and `ungrouped` excepted: those are Ansible's."""
    for name, group in (data or {}).items():
        if name not in ("all", "ungrouped"):
            yield name
        yield from groups((group or {}).get("children"))


GROUPS = {name for path in (ROOT / "inventories").glob("*/hosts.yml") for name in groups(load(path))}
GROUPS |= {"load_balancers", "web_servers", "database_servers", "batch_servers", "clients", "not_owned"}


def code(role: Role) -> list[Path]:
    """Return everything of a role that Ansible reads; an example in the README may well name a group."""
    return sorted(path for path in role.path.rglob("*") if path.suffix in (".yml", ".j2"))


@each_role
def test_task_files_are_small(role: Role) -> None:
    for path in role.task_files:
        most = MAIN_LINES if path.name == "main.yml" else OTHER_LINES
        count = len(lines_that_count(path.read_text()))
        assert count < most, f"{relative(path)} has {count} lines that count, it must have less than {most}: split it"


@each_role
def test_facts_are_not_used_as_variables(role: Role) -> None:
    for path in code(role):
        for line in lines_that_count(path.read_text()):
            # Setting one, for the connection of one task, reads nothing.
            wrong = set(re.findall(r"\bansible_[a-z_]+", re.sub(r"^\s*ansible_[a-z_]+:", "", line))) - MAGIC
            assert not wrong, (
                f"{relative(path)}: '{line.strip()}' uses {sorted(wrong)}; write ansible_facts['…'] for a fact "
                "(or add a variable of Ansible's own to MAGIC in tests/contract/test_role_tasks.py)"
            )


@each_role
def test_no_inventory_group_is_named(role: Role) -> None:
    for path in code(role):
        for line in lines_that_count(path.read_text()):
            wrong = set(re.findall(r"\w+", line)) & GROUPS
            assert not wrong, f"{relative(path)}: '{line.strip()}' names the group {sorted(wrong)}; make it an input"


@each_role
def test_inputs_are_never_overwritten(role: Role) -> None:
    private = f"__{role.name}_"
    paths = [*role.task_files, *sorted((role.path / "handlers").glob("*.yml"))]
    for path in paths:
        for task in tasks(load(path)):
            place = f"{relative(path)}, '{task.get('name')}'"
            assert not {"include_vars", "ansible.builtin.include_vars"} & task.keys(), f"{place}: no include_vars"
            facts = task.get("ansible.builtin.set_fact", task.get("set_fact")) or {}
            names = [*(name for name in facts if name != "cacheable"), task.get("register")]
            names.append((task.get("loop_control") or {}).get("loop_var"))
            wrong = [name for name in names if name and not name.startswith(private)]
            assert not wrong, f"{place}: {wrong} must begin with {private}"
