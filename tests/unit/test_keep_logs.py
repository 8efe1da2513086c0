"""The program of host_base that makes room for logs: oldest first, nothing but logs, and no line is lost."""

import gzip
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.unit.host_program import loaded

SOURCE = Path(__file__).parents[2] / "roles" / "host_base" / "library" / "keep_logs.py"
ROTATED = r"(access|error)\.log[.-][0-9][0-9.-]*(\.gz)?"
KIB = 1 << 10


@pytest.fixture
def keeper(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the program, which takes this process for nginx's."""
    module = loaded(SOURCE)
    monkeypatch.setattr(module, "main_pid", lambda unit: os.getpid())
    monkeypatch.setattr(module, "SETTLE_S", 0)
    monkeypatch.setattr(module, "WAIT_S", 0.3)
    return module


@pytest.fixture
def logs() -> Iterator[Path]:
    """Return a folder of logs on a disk of its own: memory."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:  # noqa: S108 # a second file system is what is wanted
        yield Path(folder)


def written(folder: Path, name: str, age_s: int = 0, size: int = 64 * KIB) -> bytes:
    content = (name.encode() + b" ") * (size // (len(name) + 1))
    (folder / name).write_bytes(content)
    os.utime(folder / name, (1_795_000_000 - age_s,) * 2)
    return content


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def move(keeper: ModuleType, logs: Path, keep: Path, lacking: int, check: bool = False) -> Any:
    wanted = keeper.free(str(logs)) + lacking
    return keeper.move(str(logs), str(keep), ROTATED, "nginx.service", wanted, check)


def kept(logs: Path, keep: Path) -> Path:
    return keep / str(logs).lstrip("/")


def test_oldest_logs_go_and_only_as_many_as_it_takes(keeper: ModuleType, logs: Path, tmp_path: Path) -> None:
    content = {name: written(logs, name, age) for name, age in (("access.log.1", 10), ("access.log.2", 20))}
    content |= {"error.log.1": written(logs, "error.log.1", 30), "access.log": written(logs, "access.log", 90)}
    before = (logs / "error.log.1").stat()
    assert move(keeper, logs, tmp_path, 100 * KIB) == ["error.log.1", "access.log.2"]
    assert names(logs) == ["access.log", "access.log.1"]
    for name in ("error.log.1", "access.log.2"):
        assert (kept(logs, tmp_path) / name).read_bytes() == content[name]
    after = (kept(logs, tmp_path) / "error.log.1").stat()
    assert (after.st_mtime_ns, after.st_uid) == (before.st_mtime_ns, before.st_uid)
    assert move(keeper, logs, tmp_path, 0) == [], "so much is free: the second run finds nothing to do"


def test_of_the_same_age_the_higher_number_is_older(keeper: ModuleType, logs: Path, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        written(logs, f"access.log.{number}")
    assert move(keeper, logs, tmp_path, KIB) == ["access.log.3"]


def test_nothing_but_old_logs_is_touched(keeper: ModuleType, logs: Path, tmp_path: Path) -> None:
    for name in ("access.log", "error.log", "notes.txt", "access.log.1.txt"):
        written(logs, name)
    (logs / "access.log.4").symlink_to("/etc/hostname")
    (logs / "access.log.5").mkdir()
    os.mkfifo(logs / "access.log.6")
    written(logs, "access.log.7")
    (logs / "other-name").hardlink_to(logs / "access.log.7")
    before = names(logs)
    assert move(keeper, logs, tmp_path, 1 << 40) == []
    assert names(logs) == before


def test_old_log_that_the_service_still_writes_to_stays(keeper: ModuleType, logs: Path, tmp_path: Path) -> None:
    written(logs, "access.log.1")
    with (logs / "access.log.1").open("ab"):
        assert move(keeper, logs, tmp_path, 1 << 40) == []
    assert move(keeper, logs, tmp_path, 1 << 40) == ["access.log.1"]


def test_older_copy_of_that_name_is_numbered_and_the_same_one_is_not_kept_twice(
    keeper: ModuleType, logs: Path, tmp_path: Path
) -> None:
    old = kept(logs, tmp_path)
    old.mkdir(parents=True)
    first, second = written(old, "access.log.1", size=10 * KIB), written(logs, "access.log.1")
    move(keeper, logs, tmp_path, 1 << 40)
    assert names(old) == ["access.log.1", "access.log.1.~1~"]
    assert ((old / "access.log.1").read_bytes(), (old / "access.log.1.~1~").read_bytes()) == (second, first)
    written(logs, "access.log.1")  # as a run leaves it that was killed after the copy
    move(keeper, logs, tmp_path, 1 << 40)
    assert names(old) == ["access.log.1", "access.log.1.~1~"]


def test_checking_only_says_what_it_would_move(keeper: ModuleType, logs: Path, tmp_path: Path) -> None:
    written(logs, "access.log.1")
    assert move(keeper, logs, tmp_path / "keep", KIB, check=True) == ["access.log.1"]
    assert (names(logs), names(tmp_path)) == (["access.log.1"], [])


def test_too_little_room_is_refused(
    keeper: ModuleType, logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = written(logs, "access.log.1")
    monkeypatch.setattr(keeper, "free", lambda path: 3 * len(content) if path == str(tmp_path) else 0)
    with pytest.raises(keeper.Refused, match="4 times"):
        keeper.move(str(logs), str(tmp_path), ROTATED, "nginx.service", KIB, False)
    assert names(logs) == ["access.log.1"]


def test_copy_that_differs_lets_nothing_go(
    keeper: ModuleType, logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = written(logs, "access.log.1")
    monkeypatch.setattr(keeper, "digest", lambda handle, size, real=keeper.digest: real(handle, size) + os.urandom(8))
    with pytest.raises(keeper.Refused, match="not what was copied"):
        move(keeper, logs, tmp_path, KIB)
    assert (logs / "access.log.1").read_bytes() == content
    assert names(kept(logs, tmp_path)) == []


def test_log_that_grows_meanwhile_stays(
    keeper: ModuleType, logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(logs, "access.log.1")

    def grow(source: FileIO, target: str, packed: bool, real: Any = keeper.copy) -> int:
        size: int = real(source, target, packed)
        with (logs / "access.log.1").open("ab") as handle:
            handle.write(b"one more\n")
        return size

    monkeypatch.setattr(keeper, "copy", grow)
    with pytest.raises(keeper.Refused, match="changed while it was copied"):
        move(keeper, logs, tmp_path, KIB)
    assert (logs / "access.log.1").read_bytes().endswith(b"one more\n")
    with pytest.raises(keeper.Refused, match="changed while it was copied"):
        move(keeper, logs, logs / "keep", KIB)
    assert names(logs) == ["access.log.1"]


def test_on_the_same_disk_the_oldest_are_compressed_where_they_lie(keeper: ModuleType, logs: Path) -> None:
    content = {name: written(logs, name, age) for name, age in (("access.log.1", 10), ("error.log.1", 20))}
    written(logs, "access.log.2.gz", 30)
    (logs / "error.log.1").chmod(0o640)
    before = (logs / "error.log.1").stat()
    assert move(keeper, logs, logs / "keep", KIB, check=True) == ["error.log.1"]
    assert move(keeper, logs, logs / "keep", KIB) == ["error.log.1"]
    assert names(logs) == ["access.log.1", "access.log.2.gz", "error.log.1.gz"]
    assert gzip.decompress((logs / "error.log.1.gz").read_bytes()) == content["error.log.1"]
    after = (logs / "error.log.1.gz").stat()
    assert (after.st_mtime_ns, after.st_uid, after.st_mode) == (before.st_mtime_ns, before.st_uid, before.st_mode)
    written(logs, "access.log.1.gz", size=10)  # of an older log
    assert move(keeper, logs, logs / "keep", 1 << 40) == ["access.log.1"]
    assert names(logs) == ["access.log.1.gz", "access.log.1.gz.~1~", "access.log.2.gz", "error.log.1.gz"]
    assert gzip.decompress((logs / "access.log.1.gz").read_bytes()) == content["access.log.1"]
    written(logs, "access.log.1", 10)  # as a run leaves it that was killed after the copy
    assert move(keeper, logs, logs / "keep", 1 << 40) == ["access.log.1"]
    assert "access.log.1.gz.~2~" not in names(logs)
    assert move(keeper, logs, logs / "keep", 1 << 40) == [], "the second run finds nothing to do"


def test_where_the_oldest_does_not_fit_beside_itself_the_smaller_make_room(
    keeper: ModuleType, logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, age, size in (("access.log.3", 30, 900), ("access.log.2", 20, 300), ("access.log.1", 10, 600)):
        written(logs, name, age, size * KIB)

    def room(handle: FileIO) -> int:
        """Have 400 KiB but for the reserve, and what was let go."""
        there = sum(path.stat().st_size for path in logs.iterdir() if path.suffix != ".part")
        return int(keeper.RESERVE) + 2200 * KIB - there

    monkeypatch.setattr(keeper, "room", room)
    assert move(keeper, logs, logs / "keep", 1 << 40) == ["access.log.2", "access.log.1", "access.log.3"]
    assert names(logs) == ["access.log.1.gz", "access.log.2.gz", "access.log.3.gz"]


def test_without_room_for_the_smallest_nothing_is_compressed(
    keeper: ModuleType, logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = {name: written(logs, name, size=size * KIB) for name, size in (("error.log.1", 64), ("error.log.2", 200))}
    monkeypatch.setattr(keeper, "room", lambda handle: keeper.RESERVE + 50 * KIB)
    with pytest.raises(keeper.NoRoom, match=r"1074 KiB are free, .* of 63 KiB and leave 1024 KiB"):
        move(keeper, logs, logs / "keep", KIB)
    assert {path.name: path.read_bytes() for path in logs.iterdir()} == content


def test_compressed_copy_that_differs_lets_nothing_go(
    keeper: ModuleType, logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = written(logs, "access.log.1")
    monkeypatch.setattr(keeper, "same", lambda *_: False)
    with pytest.raises(keeper.Refused, match="not what was copied"):
        move(keeper, logs, logs / "keep", KIB)
    assert {path.name: path.read_bytes() for path in logs.iterdir()} == {"access.log.1": content}


# Writes to a log as nginx does, and opens it anew when it is told; one that is deaf only writes.
SERVICE = """
import os, signal, sys
log, deaf = sys.argv[1], sys.argv[2:]
handle = open(log, "ab", buffering=0)
def told(*_):
    global handle
    handle.write(b"between copy and signal\\n")
    if not deaf:
        handle.close()
        handle = open(log, "ab", buffering=0)
signal.signal(signal.SIGUSR1, told)
handle.write(b"a line\\n" * 1000)
os.unlink(log)
print("ready", flush=True)
while True:
    signal.pause()
"""
LINES = b"a line\n" * 1000


@pytest.fixture
def service(
    keeper: ModuleType, logs: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[None]:
    """Let a service run that holds a deleted log."""
    words = [sys.executable, "-c", SERVICE, str(logs / "access.log"), *getattr(request, "param", ())]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as running:
        assert running.stdout and running.stdout.readline() == b"ready\n"
        monkeypatch.setattr(keeper, "main_pid", lambda unit: running.pid)
        monkeypatch.setattr(keeper, "let_reopen", lambda words: running.send_signal(signal.SIGUSR1))
        yield
        running.kill()


def reopen(keeper: ModuleType, logs: Path, keep: Path, check: bool = False) -> Any:
    return keeper.reopen(str(logs), str(keep), r".+\.log", "nginx.service", ["reopen"], check)


@pytest.mark.usefixtures("service")
def test_deleted_log_is_kept_to_its_last_line_and_let_go(keeper: ModuleType, logs: Path, tmp_path: Path) -> None:
    assert reopen(keeper, logs, tmp_path, check=True) == ["access.log"]
    assert names(logs) == []
    assert reopen(keeper, logs, tmp_path) == ["access.log"]
    assert (kept(logs, tmp_path) / "access.log").read_bytes() == LINES + b"between copy and signal\n"
    assert (names(kept(logs, tmp_path)), names(logs)) == (["access.log"], ["access.log"])
    assert reopen(keeper, logs, tmp_path) == [], "the second run finds nothing to do"


@pytest.mark.usefixtures("service")
def test_deleted_log_is_kept_compressed_on_the_same_disk(keeper: ModuleType, logs: Path) -> None:
    keep = logs / "keep"
    assert reopen(keeper, logs, keep) == ["access.log"]
    content = gzip.decompress((kept(logs, keep) / "access.log.gz").read_bytes())
    assert content == LINES + b"between copy and signal\n"
    assert (names(kept(logs, keep)), names(logs)) == (["access.log.gz"], ["access.log", "keep"])


@pytest.mark.usefixtures("service")
def test_deleted_log_that_does_not_even_fit_compressed_stays_open(
    keeper: ModuleType, logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "room", lambda handle: keeper.RESERVE)
    with pytest.raises(keeper.NoRoom, match="1024 KiB are free"):
        reopen(keeper, logs, logs / "keep")
    assert names(kept(logs, logs / "keep")) == []
    assert keeper.deleted(keeper.main_pid(""), str(logs), ".+"), "it was let go"


@pytest.mark.parametrize("service", [["deaf"]], indirect=True)
@pytest.mark.usefixtures("service")
def test_service_that_does_not_listen_is_named_and_its_lines_are_kept(
    keeper: ModuleType, logs: Path, tmp_path: Path
) -> None:
    with pytest.raises(keeper.Refused, match=r"nginx\.service still holds its deleted logs"):
        reopen(keeper, logs, tmp_path)
    assert (kept(logs, tmp_path) / "access.log").read_bytes() == LINES


@pytest.mark.usefixtures("service")
def test_deleted_log_without_room_to_keep_it_stays_open(
    keeper: ModuleType, logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "free", lambda path: 0)
    with pytest.raises(keeper.Refused, match="4 times"):
        reopen(keeper, logs, tmp_path)
    assert keeper.deleted(keeper.main_pid(""), str(logs), ".+"), "it was let go"


def test_what_a_service_says_of_reopening_is_kept_and_not_believed(keeper: ModuleType) -> None:
    assert keeper.let_reopen(["sh", "-c", "echo flush failed >&2; exit 1"]) == "flush failed"


def test_deleted_file_that_no_reopening_lets_go_of_is_left_alone(
    keeper: ModuleType, logs: Path, tmp_path: Path
) -> None:
    with (logs / "mariadb-bin.000007").open("wb") as handle:
        handle.write(b"x")
        (logs / "mariadb-bin.000007").unlink()
        assert reopen(keeper, logs, tmp_path) == []
    assert names(tmp_path) == []


def test_deleted_files_from_elsewhere_are_none_of_ours(keeper: ModuleType, logs: Path, tmp_path: Path) -> None:
    (logs / "deeper").mkdir()
    with (logs / "deeper" / "access.log").open("wb") as handle:
        handle.write(b"x")
        (logs / "deeper" / "access.log").unlink()
        assert reopen(keeper, logs, tmp_path) == []
