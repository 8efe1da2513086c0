"""The collector's eyes for full disks, on this machine: what deleted files still take, and what old logs do."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.unit.host_program import loaded

SOURCE = Path(__file__).parents[2] / "roles" / "evidence" / "library" / "collect_evidence.py"
MIB = 1 << 20


@pytest.fixture
def program() -> ModuleType:
    return loaded(SOURCE)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder on a disk that is not the machine's: memory."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:  # noqa: S108 # a second file system is what is wanted
        yield Path(name)


def test_large_deleted_files_that_are_held_open_are_named(program: ModuleType, folder: Path) -> None:
    names = ("huge", "small", "there", "odd\nname")
    handles = [(folder / name).open("wb") for name in names]
    try:
        for handle, size in zip(handles, (3 * MIB, 1000, 2 * MIB, 2 * MIB), strict=True):
            handle.write(b"x" * size)
            handle.flush()
        for name in ("huge", "small", "odd\nname"):
            (folder / name).unlink()
        collector = program.Collector()
        told = collector.deleted({"/": {}, "/dev/shm": {}})  # noqa: S108
        ours = [item for item in told if item["pid"] == os.getpid() and item["path"].startswith(str(folder))]
        elsewhere = [item for item in collector.deleted({"/": {}}) if item["pid"] == os.getpid()]
    finally:
        for handle in handles:
            handle.close()
    assert [(item["path"], item["bytes"] // MIB, item["mount"]) for item in ours] == [
        (f"{folder}/huge", 3, "/dev/shm"),  # noqa: S108
        (f"{folder}/odd\nname", 2, "/dev/shm"),  # noqa: S108
    ]
    assert elsewhere == []


def test_each_disk_is_told_once_and_none_that_cannot_be_written_to(
    program: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["/", "/dev/shm", str(folder), f"{folder}/none"]  # noqa: S108
    collector = program.Collector()
    assert list(collector.disks(asked)) == ["/", "/dev/shm"]  # noqa: S108
    read_only = list(os.statvfs("/"))
    read_only[8] |= os.ST_RDONLY
    monkeypatch.setattr(program.os, "statvfs", lambda path: os.statvfs_result(read_only))
    assert (collector.disks(asked), collector.unseen) == ({}, [])


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("0::/system.slice/nginx.service\n", "nginx.service"),
        ("12:pids:/x\n1:name=systemd:/libpod_parent/libpod-1/system.slice/nginx.service\n0::/\n", "nginx.service"),
        ("0::/machine.slice/libpod-1.scope/system.slice/nginx.service\n", "nginx.service"),
        ("0::/user.slice/user-0.slice/session-3.scope\n", "session-3.scope"),
        ("9:memory:/system.slice/other.service\n0::/init.scope\n", "init.scope"),
        ("0::/\n", ""),
    ],
)
def test_unit_of_a_process(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, unit: str
) -> None:
    (tmp_path / "cgroup").write_text(text)
    monkeypatch.setattr(program, "open", lambda path, **more: (tmp_path / "cgroup").open(**more), raising=False)
    assert program.unit_of(7) == unit


def test_old_logs_are_added_up_and_the_largest_named(program: ModuleType, folder: Path, tmp_path: Path) -> None:
    for number in range(1, 9):
        (folder / f"access.log.{number}").write_bytes(b"x" * number * 65536)
    (folder / "access.log").write_bytes(b"x" * MIB)
    (folder / "access.log.99").symlink_to("/etc/hostname")
    place: dict[str, Any] = {"directory": str(folder), "rotated": r"access\.log\.[0-9]+", "keep": f"{tmp_path}/not/yet"}
    collector = program.Collector()
    told = collector.logs([place])[str(folder)]
    assert (told["mount"], told["keep_mount"]) == ("/dev/shm", program.mount_of(str(tmp_path)))  # noqa: S108
    assert told["old_bytes"] == 36 * 65536
    assert [item["name"] for item in told["old"]] == [f"access.log.{number}" for number in (8, 7, 6, 5, 4)]
    gone = collector.logs([{**place, "directory": f"{folder}/none"}])[f"{folder}/none"]
    assert (gone["old"], gone["mount"]) == ([], "/dev/shm")  # noqa: S108


def test_last_words_of_a_service_are_told_whatever_its_log_has_become(program: ModuleType, folder: Path) -> None:
    collector, log = program.Collector(), folder / "error.log"
    collector.unseen.clear()
    place = {"directory": str(folder), "rotated": r"error\.log\.1", "keep": "/", "errors": "error.log"}

    def told() -> list[str]:
        return collector.logs([place])[str(folder)]["errors"]  # type: ignore[no-any-return]

    assert told() == []
    log.write_bytes(b"\n".join(b"%d no such picture \xff\x1b[31m" % number for number in range(30)) + b"\n")
    assert told() == [rf"{number} no such picture \xff" + "\x1b[31m" for number in range(15, 30)]
    log.write_bytes(b"x" * (10 * MIB))
    assert told() == ["x" * 300]
    os.truncate(log, 1 << 40)  # sparse: it takes no disk, and reading it all would take for ever
    assert all(len(line) <= 300 for line in told())
    assert collector.unseen == []
    log.unlink()
    os.mkfifo(log)
    assert told() == []
    log.unlink()
    log.symlink_to("/etc/shadow")
    assert told() == []
    assert len(collector.unseen) == 2
