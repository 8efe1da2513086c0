"""What a role tells the collector about itself has the shape that roles/evidence documents."""

import re
from pathlib import PurePosixPath
from typing import Any

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from tests.contract.broken import INPUTS
from tests.contract.project import ROLES, Role
from tests.templates.rendering import value

SUBJECT = [role for role in ROLES if f"__{role.name}_subject" in role.variables]
EVIDENCE = next(role for role in ROLES if role.name == "evidence").entry_points["main"]
# Shapes of an item: keys needed, and allowed besides. roles/evidence/meta/argument_specs.yml says the same in words.
ITEMS: dict[str, list[tuple[set[str], set[str]]]] = {
    "units": [({"name", "enabled"}, {"restore_step", "oneshot", "report", "run_step", "after"})],
    "paths": [
        ({"path", "mode", "owner", "group"}, {"restore_step"}),
        ({"path", "link"}, {"restore_step"}),
        ({"path", "runtime"}, {"mode", "owner", "group"}),
    ],
    "directories": [({"path", "own"}, set())],
    "mounts": [({"path", "unit"}, set())],
    "locks": [({"path", "unit"}, set())],
    "trees": [({"path", "directories", "files"}, set())],
    "names": [({"name", "addresses"}, set())],
    "answers": [({"url", "host", "status", "what", "means", "unit", "restore_step"}, {"directory"})],
    "listens": [
        ({"unit", "socket"}, {"restore_step", "settings"}),
        ({"unit", "address", "port"}, {"restore_step", "settings"}),
    ],
    "reaches": [({"name", "port"}, set())],
    "logs": [
        (
            {"directory", "rotated", "written", "unit", "keep", "move_step", "reopen_step"},
            {"errors", "means", "resume_step"},
        )
    ],
}
DATABASE = {"socket"}
LOGIN = {"environment", "user", "password", "name", "socket", "unit", "restore_step"}

each_subject = pytest.mark.parametrize("role", SUBJECT, ids=lambda role: role.name)


def subject(role: Role) -> dict[str, Any]:
    found: dict[str, Any] = value(role.name, f"__{role.name}_subject", **INPUTS.get(role.name, {}))
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
    for key, shapes in ITEMS.items():
        for item in found.get(key) or []:
            assert any(needed <= item.keys() <= needed | allowed for needed, allowed in shapes), (
                f"{place(role)}, {key}: {item} must have {' or '.join(str(sorted(needed)) for needed, _ in shapes)}"
            )
    for key, keys in (("database", DATABASE), ("login", LOGIN)):
        assert (found.get(key) or dict.fromkeys(keys)).keys() == keys, f"{place(role)}, {key}: must have {sorted(keys)}"


@each_subject
def test_paths_are_absolute_and_named_once(role: Role) -> None:
    found = subject(role)
    for key in ("paths", "mounts", "trees", "locks", "directories"):
        paths = [item["path"] for item in found.get(key) or []]
        odd = [path for path in paths if not path.startswith("/") or str(PurePosixPath(path)) != path or ".." in path]
        assert not odd, f"{place(role)}, {key}: {odd} must be absolute, without '..', '//' and a slash at the end"
        assert len(paths) == len(set(paths)), f"{place(role)}, {key}: a path stands there twice: {paths}"


@each_subject
def test_own_files_are_named_as_they_lie_in_their_directory(role: Role) -> None:
    names = [name for item in subject(role).get("directories") or [] for name in item["own"]]
    assert not [name for name in names if not name or "/" in name], f"{place(role)}, directories: {names}"


@each_subject
def test_modes_are_four_octal_digits(role: Role) -> None:
    # The collector writes modes so; anything else would be a finding on every healthy host.
    found = subject(role)
    modes = [item["mode"] for item in found["paths"] if "mode" in item]
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
    leaned_on = [item["unit"] for item in [*found["mounts"], *found.get("locks", [])]]
    leaned_on += [item["runtime"] for item in found["paths"] if "runtime" in item]
    leaned_on += [item["unit"] for item in found.get("listens") or []]
    leaned_on += [found["login"]["unit"]] if found.get("login") else []
    missing = [name for name in leaned_on if name not in names]
    assert not missing, (
        f"{place(role)}: the units {missing} of mounts, locks, paths, login, listens must be among its units"
    )


@each_subject
def test_steps_that_restore_exist(role: Role) -> None:
    found = subject(role)
    items = [*found["units"], *found["paths"], found.get("login") or {}]
    items += [*(found.get("answers") or []), *(found.get("listens") or [])]
    steps = {item["restore_step"] for item in items if "restore_step" in item}
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
def test_steps_of_a_database_exist(role: Role) -> None:
    found = subject(role)
    if "database" in found:
        assert found["units"], f"{place(role)}: a database needs a unit, by which findings call it"
        steps = {"connections", "table_repair", "user_password"}
        assert steps <= set(role.steps("live")), f"{place(role)}: {steps} are not all in __{role.name}_live_steps"


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
def test_answers_can_be_judged(role: Role) -> None:
    units = {unit["name"] for other in SUBJECT for unit in subject(other)["units"]}
    for item in subject(role).get("answers") or []:
        assert re.match(r"(http://[^/]+)?/", item["url"]), (
            f"{place(role)}, answers: {item['url']} must be a path or URL"
        )
        right = [str(status) for status in item["status"]]
        assert all(re.fullmatch("[1-4]([0-9]{2}|xx)", status) for status in right), f"{place(role)}, answers: {right}"
        paths = [path["path"] for path in subject(role)["paths"]]
        assert item.get("directory", paths[0]) in paths, f"{place(role)}, answers: {item} asks for what it does not own"
        assert item["means"] in ("cannot_buy", "cannot_see"), f"{place(role)}, answers: {item['means']}"
        assert item["unit"] in units, f"{place(role)}, answers: no role has the unit {item['unit']}"


@each_subject
def test_what_a_unit_reads_again_is_named(role: Role) -> None:
    for item in subject(role).get("listens") or []:
        assert ("restore_step" in item) == ("settings" in item), f"{place(role)}, listens: both or none: {item}"
        assert item.get("settings", "/").startswith("/"), f"{place(role)}, listens: {item}"


@each_subject
def test_logs_can_be_kept(role: Role) -> None:
    found = subject(role)
    for item in found.get("logs") or []:
        assert item["unit"] in [unit["name"] for unit in found["units"]], f"{place(role)}: {item['unit']} is no unit"
        assert item["move_step"] in role.steps("disk"), f"{place(role)}: {item['move_step']} is no disk step"
        assert item["reopen_step"] in role.steps("live"), f"{place(role)}: {item['reopen_step']} is no live step"
        assert item["directory"] in [path["path"] for path in found["paths"]], f"{place(role)}: {item} is not owned"
        names = ("error.log.1", "error.log.2.gz", "error.log-20261101")
        assert all(re.fullmatch(item["rotated"], name) for name in names), f"{place(role)}: rotated misses old logs"
        live = ("access.log", "error.log", "error.log.1/x", "../error.log.1", "lost+found")
        assert not any(re.fullmatch(item["rotated"], name) for name in live), f"{place(role)}: rotated takes too much"
        assert re.fullmatch(item["written"], "error.log"), f"{place(role)}: written misses a log"
        assert not re.fullmatch(item["rotated"], item.get("errors", "")), f"{place(role)}: errors is an old log"
        assert item.get("means", "cannot_buy") in ("cannot_buy", "cannot_see"), f"{place(role)}: {item['means']}"
        assert item.get("resume_step", "") in ("", *role.steps("live")), f"{place(role)}: {item['resume_step']}"


# A binary log is what a restore needs: a step that took one for an old log would lose the day.
BINARY_LOGS = [
    *("mariadb-bin.000001", "mysql-bin.000042", "mysqld-bin.1000000", "web1-bin.000001", "mariadb-relay-bin.000003"),
    *("mariadb-bin.index", "mariadb-bin.state", "mariadb-bin.~rec~", "mariadb-bin.000001.gz", "mysql-bin.log.000001"),
    *("general.log.000001", "error.log.000123", "master.info", "ib_logfile0", "aria_log.00000001"),
]


@pytest.mark.parametrize("name", BINARY_LOGS)
def test_no_binary_log_is_taken_for_an_old_one(name: str) -> None:
    logs = value("database", "__database_logs")
    assert not re.fullmatch(logs["rotated"], name), "roles/database/vars/main.yml: rotated"
    assert not re.fullmatch(logs["written"], name), "roles/database/vars/main.yml: written"


@pytest.mark.parametrize("name", ["mariadb-slow.log.1", "slow.log.12.gz", "general.log-20261101", "mysql.log.1"])
def test_old_logs_of_the_database_are_known(name: str) -> None:
    assert re.fullmatch(value("database", "__database_logs")["rotated"], name), "roles/database/vars/main.yml"


def test_full_disk_of_a_binary_log_is_the_customers_business() -> None:
    (plain,) = value("database", "__database_subject")["logs"]
    (binary,) = value("database", "__database_subject", database_binary_log=True)["logs"]
    assert binary == {**plain, "means": "cannot_buy", "resume_step": "logs_resume"}
    assert "means" not in plain, "without one, only who reads logs would miss the disk"


def test_directory_of_logs_is_missed_only_where_the_server_needs_it() -> None:
    for wanted in (True, False):
        paths = value("database", "__database_subject", database_binary_log=wanted)["paths"]
        (found,) = [item for item in paths if item["path"] == "/var/log/mysql"]
        assert ("restore_step" in found) is wanted


def test_shop_without_a_database_has_no_login() -> None:
    assert value("checkout_service", "__checkout_service_subject")["login"] == {}


@each_subject
def test_configuration_test_is_words_without_quotes(role: Role) -> None:
    command = subject(role)["config_test"]
    assert not re.search(r"[\"'$`|&;<>\\]", command), f"{place(role)}: config_test is run without a shell: {command}"


def test_some_roles_have_a_subject() -> None:
    assert len(SUBJECT) >= 6, "the roles' subjects were not found; has __<role>_subject been renamed?"
