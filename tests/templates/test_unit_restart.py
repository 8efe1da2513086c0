"""host_base's unit_restart: whether a unit is older than what it read at its start, asked with the step's own words."""

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.templates.rendering import expression, value

TASKS = Path(__file__).parents[2] / "roles" / "host_base" / "tasks" / "unit_restart.yml"


def argv(start: str, **inputs: Any) -> list[str]:
    """Return the words of the step's task whose command begins so, rendered."""
    commands = [task.get("ansible.builtin.command", {}).get("argv", []) for task in yaml.safe_load(TASKS.read_text())]
    (words,) = (words for words in commands if words[:1] == [start])
    return [str(expression("host_base", word, **inputs)) for word in words]


def newer(path: Path, since: str) -> list[str]:
    """Ask as the step does what is newer, when systemctl says that the unit was started at `since`."""
    said = {"stdout": f"ActiveState=active\nInactiveExitTimestamp={since}"}
    given = {"repair_args": {"unit": "shop.service", "newer": str(path)}, "__host_base_restart_unit": said}
    words = argv("find", **given)
    done = subprocess.run(words, check=True, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    return sorted(done.stdout.splitlines())


def now() -> str:
    """Return this moment as `systemctl show --timestamp=us+utc` does; files that are written next are newer."""
    time.sleep(0.02)  # the clock of files ticks coarsely
    told = f"{time.time():.6f}"
    time.sleep(0.02)
    return time.strftime("%a %Y-%m-%d %H:%M:%S", time.gmtime(float(told))) + f".{told.partition('.')[2]} UTC"


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    folder = tmp_path / "mariadb.conf.d"
    (folder / "deeper").mkdir(parents=True)
    for path in (tmp_path / "old", folder / "a.cnf", folder / "deeper" / "b.cnf"):
        path.write_text("x")
    os.utime(tmp_path / "old", (0, 0))
    return folder


def test_what_stood_before_the_start_is_not_newer(settings: Path) -> None:
    assert newer(settings, now()) == []
    assert newer(settings / "a.cnf", now()) == []


@pytest.mark.parametrize("asked", [".", "a.cnf"])
def test_file_that_was_put_back_with_its_old_time_is_newer(settings: Path, asked: str) -> None:
    since = now()
    shutil.copy2(settings.parent / "old", settings / "a.cnf")  # as cp -p: into the file that stands
    assert (settings / "a.cnf").stat().st_mtime == 0
    assert newer(settings / asked, since) == [str(settings / "a.cnf")]


def test_file_that_came_or_went_shows_in_its_directory(settings: Path) -> None:
    since = now()
    (settings / "a.cnf").unlink()
    assert newer(settings, since) == [str(settings)]


def test_nothing_deeper_counts(settings: Path) -> None:
    since = now()
    shutil.copy2(settings.parent / "old", settings / "deeper" / "b.cnf")
    assert newer(settings, since) == []


def test_unit_is_asked_when_it_was_started_and_one_that_never_was_has_no_time() -> None:
    words = argv("systemctl", repair_args={"unit": "shop.service"})
    assert {"--timestamp=us+utc", "--property=InactiveExitTimestamp"} <= set(words)
    said = {"stdout": "ActiveState=inactive\nInactiveExitTimestamp="}
    assert value("host_base", "__host_base_restart_since", __host_base_restart_unit=said) == ""
