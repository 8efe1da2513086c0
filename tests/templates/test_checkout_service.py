"""The shop's environment file is read back by systemd exactly; what it cannot hold is refused. And the shop's unit."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contract.project import ROOT, load, tasks
from tests.templates.reading import environment, unit
from tests.templates.rendering import expression, render, value

FILE = "roles/checkout_service/templates/checkout.env.j2"
AWKWARD = [
    "plain",
    "",
    " blank before, behind ",
    "two  blanks",
    'double "quotes"',
    "single 'quotes'",
    '"',
    "'",
    "back\\slash",
    "\\",
    'ends with a quoted backslash\\"',
    "\\n is no newline",
    "\\\\",
    "$HOME ${HOME} $(id) $$",
    "`id`",
    "100 % %n %%",
    "# no comment",
    "; no comment",
    "a=b",
    "{{ no_template }} {% raw %}",
    "ランタン 🔥",
    "tab\there",
    "*?[a]~!&|<>",
]


def written(values: dict[str, Any]) -> str:
    return render("checkout_service", "checkout.env.j2", checkout_service_environment=values)


@pytest.mark.parametrize("value", AWKWARD)
def test_systemd_reads_back_what_was_given(value: str) -> None:
    values = {"BEFORE": "1", "NAME": value, "AFTER": "2"}
    assert environment(written(values)) == values, f"{FILE}: systemd reads something else than {value!r}"


@given(st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"])))
@settings(max_examples=60, deadline=None)
def test_systemd_reads_back_any_line(value: str) -> None:
    assert environment(written({"NAME": value, "AFTER": "2"})) == {"NAME": value, "AFTER": "2"}, FILE


def test_a_shell_reads_the_same(tmp_path: Path) -> None:
    values = {f"NAME{number}": value for number, value in enumerate(AWKWARD)}
    file = tmp_path / "checkout.env"
    file.write_text(written(values))
    words = ["sh", "-c", 'set -a; . "$1"; env -0', "sh", str(file)]
    done = subprocess.run(words, capture_output=True, check=True, env={"PATH": "/usr/bin:/bin"})
    seen = dict(item.split("=", 1) for item in done.stdout.decode().split("\0") if item.startswith("NAME"))
    assert seen == values, f"{FILE}: sh reads something else"


@pytest.mark.parametrize(("value", "text"), [(8080, "8080"), (True, "True"), (1.5, "1.5")])
def test_values_that_are_no_text(value: object, text: str) -> None:
    assert environment(written({"NAME": value})) == {"NAME": text}, FILE


def refused(values: dict[str, Any]) -> list[str]:
    """Return the names that tasks/inputs.yml refuses."""
    found = tasks(load(ROOT / "roles" / "checkout_service" / "tasks" / "inputs.yml"))
    (given_vars,) = [task["vars"] for task in found if "__checkout_service_unreadable" in (task.get("vars") or {})]
    text = given_vars["__checkout_service_unreadable"]
    items = [{"key": name, "value": value} for name, value in values.items()]
    return list(expression("checkout_service", text, __checkout_service_items=items))


@pytest.mark.parametrize("value", AWKWARD)
def test_what_can_be_written_is_not_refused(value: str) -> None:
    assert refused({"NAME": value}) == [], (
        "roles/checkout_service/tasks/inputs.yml refuses a value that systemd can read"
    )


@pytest.mark.parametrize("value", ["two\nlines", "ends\n", "\n", "old\rmac", "dos\r\n"])
def test_more_than_one_line_is_refused(value: str) -> None:
    assert refused({"GOOD": "1", "NAME": value}) == ["NAME"], "roles/checkout_service/tasks/inputs.yml lets it through"


@pytest.mark.parametrize("name", ["lower", "1ST", "WITH-DASH", "WITH BLANK", "A=B", "", "ENDS\n", "É"])
def test_names_that_systemd_drops_are_refused(name: str) -> None:
    assert refused({"GOOD": "1", name: "value"}) == [name], "roles/checkout_service/tasks/inputs.yml lets it through"


LOGIN = {"user": "U", "password": "P", "name": "N", "socket": "S"}


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ({}, []),
        (LOGIN, []),
        ({**LOGIN, "password": "hunter2"}, ["password"]),
        ({"user": "U", "name": "N"}, ["password", "socket"]),
    ],
)
def test_login_must_be_variables_of_the_environment(given: dict[str, str], wrong: list[str]) -> None:
    task = load(ROOT / "roles/checkout_service/tasks/inputs.yml")[1]
    inputs = {"checkout_service_environment": dict.fromkeys("UPNS", "x"), "checkout_service_database": given}
    unnamed = list(expression("checkout_service", task["vars"]["__checkout_service_unnamed"], **inputs))
    assert unnamed == (wrong if given else list(LOGIN))
    check = task["ansible.builtin.assert"]["that"]
    allowed = expression("checkout_service", f"{{{{ {check} }}}}", **inputs, __checkout_service_unnamed=unnamed)
    assert allowed == (not wrong), "roles/checkout_service/tasks/inputs.yml"
    assert "hunter2" not in expression(
        "checkout_service", task["ansible.builtin.assert"]["fail_msg"], **inputs, __checkout_service_unnamed=unnamed
    ), "roles/checkout_service/tasks/inputs.yml shows what was given"


def test_socket_is_in_the_directory_that_the_unit_makes() -> None:
    service = unit(render("checkout_service", "checkout.service.j2"))["Service"]
    paths = value("checkout_service", "__checkout_service_subject")["paths"]
    folder, socket = [item for item in paths if "runtime" in item]
    assert folder["path"] == f"/run/{service['RuntimeDirectory'][0]}"
    assert [folder[key] for key in ("mode", "owner", "group")] == [
        service[key][0] for key in ("RuntimeDirectoryMode", "User", "Group")
    ]
    assert socket["path"].startswith(f"{folder['path']}/") and f"unix:{socket['path']} " in service["ExecStart"][0]


def test_unit_is_ordered_after_what_evidence_looks_for() -> None:
    (wanted,) = value("checkout_service", "__checkout_service_subject")["units"]
    assert unit(render("checkout_service", "checkout.service.j2"))["Unit"]["After"] == [" ".join(wanted["after"])]
    assert {"mariadb.service", "srv-shop-media.mount"} <= set(wanted["after"])


def test_unit_uses_its_inputs() -> None:
    inputs = {
        "checkout_service_user": "seller",
        "checkout_service_workers": 7,
        "checkout_service_timeout": 44,
        "checkout_service_application": "other.wsgi",
    }
    service = unit(render("checkout_service", "checkout.service.j2", **inputs))["Service"]
    assert service["User"] == ["seller"]
    (command,) = service["ExecStart"]
    words = command.split()
    assert words[-1] == "other.wsgi" and words[words.index("--workers") + 1] == "7"
    assert words[words.index("--timeout") + 1] == "44"
    assert service["EnvironmentFile"] == ["/etc/shop/checkout.env"], "without '-': a lost file must be an error"


def test_unit_starts_at_boot_and_is_bound_to_nothing() -> None:
    sections = unit(render("checkout_service", "checkout.service.j2"))
    assert sections["Install"] == {"WantedBy": ["multi-user.target"]}
    bound = sections["Unit"].keys() & {"Requires", "BindsTo", "Requisite", "PartOf"}
    assert not bound, f"checkout.service.j2: {bound} would stop the shop together with the pictures or the database"


def test_manage_command_is_valid_shell() -> None:
    text = render("checkout_service", "checkout-manage.j2", checkout_service_user="seller")
    done = subprocess.run(["sh", "-n"], input=text, text=True, capture_output=True, check=False)
    assert done.returncode == 0, f"checkout-manage.j2: {done.stderr}"
    assert "\nuser=seller\n" in text and "EnvironmentFile=/etc/shop/checkout.env" in text
