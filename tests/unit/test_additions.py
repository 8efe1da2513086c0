"""What people added, told from what roles and packages made: the collector on a tree of its own, dpkg replaced."""

import hashlib
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.unit.host_program import loaded

SOURCE = Path(__file__).parents[2] / "roles" / "evidence" / "library" / "collect_evidence.py"


@pytest.fixture
def program() -> ModuleType:
    return loaded(SOURCE)


class Dpkg:
    """Answers for dpkg-query: what each package brought as a setting, and what else it owns."""

    def __init__(self) -> None:
        self.settings: list[str] = []
        self.owned: set[str] = set()
        self.asked: list[str] = []

    def __call__(self, *words: str, **_: Any) -> tuple[int, str, str]:
        if "--show" in words:
            return 0, "\n".join(self.settings), ""
        self.asked = list(words[words.index("--") + 1 :])
        known = [path for path in self.asked if path in self.owned]
        return (
            (0 if len(known) == len(self.asked) else 1),
            "".join(f"some: {path}\n" for path in known),
            "no path found",
        )


@pytest.fixture
def dpkg() -> Dpkg:
    return Dpkg()


@pytest.fixture
def added(program: ModuleType, dpkg: Dpkg) -> Any:
    """Return what the collector says of directories: kind, name below the first of them, more."""
    collector = program.Collector()
    collector.command = dpkg
    collector.people = lambda own: []

    def look(*places: Path, **own: list[str]) -> list[tuple[str, str, str]]:
        directories = [{"path": str(place), "own": own.get(place.name, [])} for place in places]
        told = collector.additions([{"directories": directories}])
        assert collector.unseen == [item for item in collector.unseen if "only root" in item["source"]]
        return [(item["kind"], item["name"].removeprefix(f"{places[0]}/"), item["more"]) for item in told]

    return look


def test_roles_own_files_are_no_additions(tmp_path: Path, added: Any) -> None:
    for name in ("ours.conf", "theirs.conf"):
        (tmp_path / name).write_text("")
    assert added(tmp_path, **{tmp_path.name: ["ours.conf"]}) == [("file", "theirs.conf", "")]


def test_packages_setting_is_one_once_it_was_changed(tmp_path: Path, added: Any, dpkg: Dpkg) -> None:
    for name in ("as brought", "tuned", "brought by hand"):
        (tmp_path / name).write_text(name)
    digest = hashlib.md5(b"as brought", usedforsecurity=False).hexdigest()
    dpkg.settings = [
        "nginx-common",
        f" {tmp_path}/as brought {digest}",
        f" {tmp_path}/tuned {digest} obsolete",
        "other",
        f" {tmp_path}/brought by hand newconffile remove-on-upgrade",
        f" {tmp_path}/gone {digest}",
    ]
    assert added(tmp_path) == [("setting", "tuned", "nginx-common")]


def test_link_counts_by_what_it_leads_to(tmp_path: Path, added: Any, dpkg: Dpkg) -> None:
    (enabled := tmp_path / "enabled").mkdir()
    for name in ("intranet", "packaged", "setting"):
        (tmp_path / name).write_text("")
        (enabled / name).symlink_to(f"../{name}")
    (enabled / "masked").symlink_to(os.devnull)
    (enabled / "dangling").symlink_to("nowhere")
    (enabled / "loop").symlink_to("loop")
    dpkg.owned = {f"{tmp_path}/packaged"}
    dpkg.settings = ["some", f" {tmp_path}/setting {'0' * 32}"]
    assert added(enabled) == [("link", "intranet", f"{tmp_path}/intranet")]


def test_directories_of_drop_ins_are_looked_into_and_others_are_not(tmp_path: Path, added: Any) -> None:
    for folder in ("nginx.service.d", "multi-user.target.wants", "deep.d/deeper.d"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "one.conf").write_text("")
    os.mkfifo(tmp_path / "pipe")
    assert added(tmp_path, tmp_path / "nginx.service.d", tmp_path / "none") == [
        ("file", "deep.d/deeper.d/one.conf", ""),
        ("file", "nginx.service.d/one.conf", ""),
    ]


def test_names_are_no_patterns_for_dpkg(tmp_path: Path, added: Any, dpkg: Dpkg) -> None:
    for name in ("*", "a?[b]\\"):
        (tmp_path / name).write_text("")
    (tmp_path / os.fsdecode(b"latin\xe4")).write_text("")
    assert [name for _, name, _ in added(tmp_path)] == ["*", "a?[b]\\", "latin\\xe4"]
    assert {f"{tmp_path}/\\*", f"{tmp_path}/a\\?\\[b]\\\\"} <= set(dpkg.asked)


def test_package_may_know_a_file_of_usr_by_its_old_name(program: ModuleType, dpkg: Dpkg) -> None:
    collector = program.Collector()
    collector.command = dpkg
    dpkg.owned = {"/lib/systemd/system/ssh.service"}
    assert collector.packaged(["/usr/lib/systemd/system/ssh.service", "/usr/lib/other"]) == {
        "/usr/lib/systemd/system/ssh.service"
    }


def test_too_many_are_cut_and_that_is_said(tmp_path: Path, program: ModuleType, dpkg: Dpkg) -> None:
    for number in range(program.ADDITIONS_LIMIT + 7):
        (tmp_path / f"{number:04}").write_text("")
    collector = program.Collector()
    collector.command, collector.people = dpkg, lambda own: []
    assert len(collector.additions([{"directories": [{"path": str(tmp_path), "own": []}]}])) == program.ADDITIONS_LIMIT
    assert collector.unseen[-1]["why"] == "107 things, of which 100 are told"


def test_without_directories_nobody_asks_dpkg(program: ModuleType) -> None:
    collector = program.Collector()
    collector.command, collector.people = None, lambda own: []
    assert collector.additions([{"role": "web_server"}]) == []
