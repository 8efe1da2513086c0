"""A role's inputs: declared once in argument_specs, repeated truthfully in defaults, named by the role."""

from typing import Any

import pytest

from tests.contract.project import ROLE_NAMES, ROLES, Role

each_role = pytest.mark.parametrize("role", ROLES, ids=ROLE_NAMES)
REPAIR_INPUTS = {"repair_step", "repair_args"}
# One comment may stand above a few keys that it explains together; more would be a heading, not a reason.
KEYS_PER_COMMENT = 3


def options(role: Role) -> list[tuple[str, str, dict[str, Any]]]:
    return [(entry, name, option) for entry, found in role.entry_points.items() for name, option in found.items()]


@each_role
def test_defaults_are_those_of_the_specification(role: Role) -> None:
    wanted = {name: option["default"] for name, option in role.entry_points["main"].items() if "default" in option}
    files = f"roles/{role.name}/defaults/main.yml and the entry point main of meta/argument_specs.yml"
    assert list(role.defaults) == list(wanted), f"{files} must have the same keys in the same order"
    for name, default in wanted.items():
        seen = role.defaults[name]
        assert (seen, type(seen)) == (default, type(default)), f"{files} disagree about {name}"


@each_role
def test_every_input_is_declared_well(role: Role) -> None:
    for entry, name, option in options(role):
        place = f"roles/{role.name}/meta/argument_specs.yml, {entry}, {name}"
        assert name in REPAIR_INPUTS or name.startswith(f"{role.name}_"), f"{place}: must begin with {role.name}_"
        assert option.get("type"), f"{place}: has no type"
        assert option.get("description", "").strip(), f"{place}: has no description"
        assert ("default" in option) != bool(option.get("required")), f"{place}: needs either `required` or a default"
        if option["type"] == "list":
            assert option.get("elements"), f"{place}: a list must declare its elements"


@each_role
def test_entry_points_agree_about_an_input(role: Role) -> None:
    main = role.entry_points["main"]
    for entry, name, option in options(role):
        for key in ("type", "elements", "default", "required", "no_log"):
            if name in main:
                assert option.get(key) == main[name].get(key), (
                    f"roles/{role.name}/meta/argument_specs.yml: {entry} and main disagree about {key} of {name}"
                )


@each_role
def test_every_entry_point_has_its_tasks(role: Role) -> None:
    for entry in role.entry_points:
        assert (role.path / "tasks" / f"{entry}.yml").is_file(), (
            f"roles/{role.name}/meta/argument_specs.yml declares {entry}, but tasks/{entry}.yml is missing"
        )


@each_role
def test_private_variables_are_named_so(role: Role) -> None:
    wrong = [name for name in role.variables if not name.startswith(f"__{role.name}_")]
    assert not wrong, f"roles/{role.name}/vars/main.yml: constants must begin with __{role.name}_: {wrong}"


@each_role
def test_every_default_says_why(role: Role) -> None:
    path = role.path / "defaults" / "main.yml"
    covered = 0  # keys that the comment above may still explain
    for line in path.read_text().splitlines() if path.is_file() else []:
        if line.startswith("#"):
            covered = KEYS_PER_COMMENT
        elif not line.strip():
            covered = 0
        elif line[0].isalpha():
            assert covered, f"roles/{role.name}/defaults/main.yml: write a comment that says why above '{line}'"
            covered -= 1
