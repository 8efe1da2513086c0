"""What a role tells the collector about itself has the shape that roles/evidence documents."""

import re
from pathlib import PurePosixPath
from typing import Any

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from tests.contract.project import ROLES, Role
from tests.templates.rendering import value

SUBJECT = [role for role in ROLES if f"__{role.name}_subject" in role.variables]
EVIDENCE = next(role for role in ROLES if role.name == "evidence").entry_points["main"]
# Keys of each item: needed, and allowed besides. roles/evidence/meta/argument_specs.yml says the same in words.
ITEMS = {
    "units": ({"name", "enabled"}, {"restore_step", "oneshot", "report", "run_step"}),
    "paths": ({"path", "mode", "owner", "group"}, {"restore_step"}),
    "mounts": ({"path", "unit"}, set()),
    "locks": ({"path", "unit"}, set()),
    "trees": ({"path", "directories", "files"}, set()),
    "names": ({"name", "addresses"}, set()),
}

each_subject = pytest.mark.parametrize("role", SUBJECT, ids=lambda role: role.name)


def subject(role: Role) -> dict[str, Any]:
    found: dict[str, Any] = value(role.name, f"__{role.name}_subject")
    return found


def place(role: Role) -> str:
    return f"roles/{role.name}/vars/main.yml, __{role.name}_subject"


@each_subject
def test_shape_is_the_collectors(role: Role) -> None:
    found = subject(role)
    checked = ArgumentSpecValidator(EVIDENCE).validate({"evidence_subjects": [found]})
    assert not checked.error_messages, f"{place(role)}: {checked.error_messages}"
    assert found["role"] == role.name, f"{place(role)}: role must be {role.name}, the role that repairs all this"
    # The rules read these without asking whether they are there.
    assert {"role", "units", "paths", "mounts", "config_test"} <= found.keys(), f"{place(role)}: has {sorted(found)}"
    for key, (needed, allowed) in ITEMS.items():
        for item in found.get(key) or []:
            assert needed <= item.keys() <= needed | allowed, f"{place(role)}, {key}: {item} must have {sorted(needed)}"


@each_subject
def test_paths_are_absolute_and_named_once(role: Role) -> None:
    found = subject(role)
    for key in ("paths", "mounts", "trees", "locks"):
        paths = [item["path"] for item in found.get(key) or []]
        odd = [path for path in paths if not path.startswith("/") or str(PurePosixPath(path)) != path or ".." in path]
        assert not odd, f"{place(role)}, {key}: {odd} must be absolute, without '..', '//' and a slash at the end"
        assert len(paths) == len(set(paths)), f"{place(role)}, {key}: a path stands there twice: {paths}"


@each_subject
def test_modes_are_four_octal_digits(role: Role) -> None:
    # The collector writes modes so; anything else would be a finding on every healthy host.
    found = subject(role)
    modes = [item["mode"] for item in found["paths"]]
    modes += [item[key] for item in found.get("trees") or [] for key in ("directories", "files")]
    wrong = [mode for mode in modes if not (isinstance(mode, str) and re.fullmatch("[0-7]{4}", mode))]
    assert not wrong, f"{place(role)}: modes {wrong} must be quoted and have four octal digits"


@each_subject
def test_units_can_be_repaired(role: Role) -> None:
    found = subject(role)
    pattern = value("host_base", "__host_base_unit_pattern")
    names = [item["name"] for item in found["units"]]
    odd = [name for name in names if not re.match(pattern, name)]
    assert not odd, f"{place(role)}: host_base's steps refuse the unit {odd}; see __host_base_unit_pattern"
    assert all(isinstance(item["enabled"], bool) for item in found["units"]), f"{place(role)}: enabled is true or false"
    missing = [item["unit"] for item in [*found["mounts"], *found.get("locks", [])] if item["unit"] not in names]
    assert not missing, (
        f"{place(role)}: the mounts' and locks' units {missing} must stand under units, else nobody looks at them"
    )


@each_subject
def test_steps_that_restore_exist(role: Role) -> None:
    found = subject(role)
    steps = {item["restore_step"] for key in ("units", "paths") for item in found[key] if "restore_step" in item}
    assert steps <= set(role.steps("disk")), f"{place(role)}: {steps} are not all in __{role.name}_disk_steps"


@each_subject
def test_steps_that_run_and_unlock_exist(role: Role) -> None:
    found = subject(role)
    steps = {item["run_step"] for item in found["units"] if "run_step" in item}
    assert steps <= set(role.steps("live")), f"{place(role)}: {steps} are not all in __{role.name}_live_steps"
    assert not found.get("locks") or "stale_lock" in role.steps("disk"), (
        f"{place(role)}: locks need a disk step 'stale_lock'"
    )


@each_subject
def test_step_that_reloads_exists(role: Role) -> None:
    step = subject(role).get("reload_step")
    if step:
        assert step in role.steps("live"), f"{place(role)}: reload_step {step} is not in __{role.name}_live_steps"
        mends = subject(role).get("configuration_step") or "configuration" in role.steps("disk")
        assert mends, f"{place(role)}: reload_step needs a disk step 'configuration', or a configuration_step"


@each_subject
def test_step_for_a_refused_configuration_exists(role: Role) -> None:
    step = subject(role).get("configuration_step")
    assert not step or step in role.steps("disk"), f"{place(role)}: {step} is not in __{role.name}_disk_steps"


@each_subject
def test_configuration_test_is_words_without_quotes(role: Role) -> None:
    command = subject(role)["config_test"]
    assert not re.search(r"[\"'$`|&;<>\\]", command), f"{place(role)}: config_test is run without a shell: {command}"


def test_some_roles_have_a_subject() -> None:
    assert len(SUBJECT) >= 6, "the roles' subjects were not found; has __<role>_subject been renamed?"
