"""A job's units and environment file: words as they were given, hardened, bounded; and what the inputs refuse."""

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contract.project import ROLES, ROOT, load, tasks
from tests.templates.reading import environment, unit
from tests.templates.rendering import expression, render, value
from tests.templates.test_checkout_service import AWKWARD

SERVICE = "roles/batch_jobs/templates/job.service.j2"
JOB = {
    "name": "nightly",
    "description": "A job",
    "schedule": "*-*-* 03:10:00",
    "user": "owl",
    "command": "/usr/bin/env",
    "catch_up": True,
    "catch_up_why": "it may",
}


def job(**more: Any) -> dict[str, Any]:
    return {"batch_jobs_jobs": [{**JOB, **more}]}


def service(**more: Any) -> dict[str, list[str]]:
    return unit(render("batch_jobs", "job.service.j2", **job(**more)))["Service"]


def words(line: str) -> list[str]:
    """Take a command line apart as systemd does: quotes and backslashes, then specifiers, then variables."""
    found = []
    for part in re.findall(r'"((?:[^"\\]|\\.)*)"', line):
        plain = re.sub(r"\\(.)", r"\1", part)
        assert not re.search(r"%(?!%)", plain.replace("%%", "")), f"{SERVICE}: a specifier is left in {line}"
        plain = plain.replace("%%", "%")
        assert "$" not in plain.replace("$$", ""), f"{SERVICE}: a variable is left in {line}"
        found.append(plain.replace("$$", "$"))
    return found


@given(
    st.lists(
        st.text(st.characters(exclude_characters="\r\n\0\t", exclude_categories=["Cs", "Cc", "Zl", "Zp"])), max_size=3
    )
)
@settings(max_examples=60, deadline=None)
def test_arguments_arrive_as_they_were_given(arguments: list[str]) -> None:
    (line,) = service(arguments=arguments)["ExecStart"]
    assert words(line) == ["/usr/bin/env", *arguments], SERVICE


@pytest.mark.parametrize("text", AWKWARD)
def test_systemd_reads_back_every_variable(text: str) -> None:
    written = render("batch_jobs", "job.env.j2", **job(environment={"NAME": text, "AFTER": "2"}))
    assert environment(written) == {"NAME": text, "AFTER": "2"}, "roles/batch_jobs/templates/job.env.j2"


def test_script_is_run_from_where_it_is_installed() -> None:
    (line,) = service(command="", script="/srv/somewhere.py")["ExecStart"]
    assert words(line) == ["/usr/local/lib/batch-jobs/nightly"]


def test_report_stands_from_start_to_success() -> None:
    seen = service(directory="/srv/nightly", keep_days=3)
    assert seen["ExecStartPre"] == ["-+/usr/local/sbin/batch-report started %n"], SERVICE
    remove, clear = seen["ExecStartPost"]
    assert remove == "/usr/bin/find /srv/nightly -xdev -type f -mmin +4320 -delete", SERVICE
    assert clear == "+/usr/local/sbin/batch-report succeeded %n", f"{SERVICE}: cleared last, when all of it is done"
    sections = unit(render("batch_jobs", "job.service.j2", **job()))
    assert sections["Unit"]["OnFailure"] == ["batch-failed@%n.service"], SERVICE


def test_nothing_is_removed_and_nothing_written_without_a_directory() -> None:
    seen = service()
    assert len(seen["ExecStartPost"]) == 1 and "ReadWritePaths" not in seen, SERVICE
    assert seen["ProtectSystem"] == ["strict"], SERVICE


def test_lock_outside_the_directory_can_be_made() -> None:
    assert service(directory="/srv/nightly", lock="/srv/nightly/lock")["ReadWritePaths"] == ["-/srv/nightly"]
    seen = service(directory="/srv/nightly", lock="/run/lock/nightly")["ReadWritePaths"]
    assert seen == ["-/srv/nightly", "-/run/lock"], SERVICE


@pytest.mark.parametrize(("catch_up", "word"), [(True, "true"), (False, "false")])
def test_timer_says_whether_and_why_it_catches_up(catch_up: bool, word: str) -> None:
    text = render("batch_jobs", "job.timer.j2", **job(catch_up=catch_up, catch_up_why="100 % sure"))
    timer = unit(text)["Timer"]
    assert timer["OnCalendar"] == ["*-*-* 03:10:00"] and timer["Persistent"] == [word]
    assert "# 100 % sure\n" in text
    found = value("batch_jobs", "__batch_jobs_subject", **job(catch_up=catch_up))
    (unit_entry,) = [item for item in found["units"] if item.get("oneshot")]
    assert ("run_step" in unit_entry) is catch_up, "a recovery may run only what may be made up for"


def test_optional_keys_are_those_of_the_specification() -> None:
    (role,) = [item for item in ROLES if item.name == "batch_jobs"]
    options = role.entry_points["main"]["batch_jobs_jobs"]["options"]
    defaults = {name: option["default"] for name, option in options.items() if "default" in option}
    assert role.variables["__batch_jobs_optional"] == defaults, "roles/batch_jobs: vars and argument_specs disagree"


def wrong(*jobs: dict[str, Any]) -> set[str]:
    """Return the keys that tasks/inputs.yml refuses."""
    (check,) = [
        task["vars"]
        for task in tasks(load(ROOT / "roles" / "batch_jobs" / "tasks" / "inputs.yml"))
        if "__batch_jobs_wrong" in (task.get("vars") or {})
    ]
    named = {name: text for name, text in check.items() if name != "__batch_jobs_wrong"}
    inputs: dict[str, Any] = {"batch_jobs_jobs": list(jobs)}
    for name, text in named.items():
        inputs[name] = expression("batch_jobs", text, **inputs)
    return {item["key"] for item in check["__batch_jobs_wrong"] if expression("batch_jobs", item["wrong"], **inputs)}


def test_a_whole_job_is_not_refused() -> None:
    more = {"directory": "/srv/nightly", "lock": "/run/lock/nightly", "environment": {"A": "b", "C": 1}}
    assert wrong({**JOB, **more}, {**JOB, "name": "other", "directory": "/var/lib/other-job"}) == set()


@pytest.mark.parametrize(
    ("more", "key"),
    [
        *(({"name": name}, "name") for name in ("", "Big", "a b", "a/b", "../a", "a\n", "-a", "a.b", "a@b")),
        *(({"user": name}, "user") for name in ("root", "", "a b", "a\n", "Owl")),
        *(({"directory": path}, "directory") for path in ("/", "/var", "/var/lib", "/srv", "srv/x", "/srv/../etc/x/y")),
        *(({"directory": path}, "directory") for path in ("/srv/a b", "/srv/x/", "/srv//x", "/srv/x\n", "/srv/-x")),
        *(({"directory": path}, "directory") for path in ("/etc/nginx/conf.d", "/var/lib/mysql", "/var/lib/apt/x")),
        *(({"directory": path}, "directory") for path in ("/usr/local/x", "/var/log/nightly", "/lib64/x", "/run/x/y")),
        *(({"lock": path}, "lock") for path in ("/etc/passwd", "/var/lib/mysql/x.pid", "/var/lib/hikeshi/lock")),
        *(({"lock": path}, "lock") for path in ("lock", "/lock", "/srv/../lock", "/srv/x\n")),
        *(({"command": text}, "command and script") for text in ("", "env", "/usr/bin/env x", "/usr/../bin/env")),
        ({"script": "/no/such/file"}, "command and script"),
        ({"script": __file__}, "command and script"),
        ({"command": "", "script": "/no/such/file"}, "command and script"),
        ({"keep_days": 0}, "keep_days or timeout"),
        ({"timeout": 0}, "keep_days or timeout"),
        *(({key: text}, "description, schedule or catch_up_why") for key in ("description", "schedule", "catch_up_why")
          for text in ("", "two\nlines", "end\n")),
        ({"arguments": ["good", "two\nlines"]}, "arguments"),
        *(({"environment": {name: "x"}}, "environment") for name in ("lower", "A B", "", "A\n")),
        ({"environment": {"A": "two\nlines"}}, "environment"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(more: dict[str, Any], key: str) -> None:
    assert wrong({**JOB, "name": "good", "directory": "/srv/good"}, {**JOB, **more}) == {key}


def test_names_and_directories_stand_once() -> None:
    assert wrong(JOB, JOB) == {"name"}
    shared = {"directory": "/srv/nightly"}
    assert wrong({**JOB, **shared}, {**JOB, **shared, "name": "other"}) == {"directory"}


def test_no_job_works_in_anothers_directory() -> None:
    outer, inner = {**JOB, "directory": "/srv/nightly"}, {**JOB, "name": "other", "directory": "/srv/nightly/other"}
    assert wrong(outer, inner) == wrong(inner, outer) == {"directory"}
    assert wrong(outer, {**inner, "directory": "/srv/nightly-other"}) == set()
    assert wrong({**JOB, "directory": "/var/lib/mysqldumps"}, {**inner, "directory": "/srv/etc/x"}) == set()
