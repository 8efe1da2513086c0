"""What the counter keeps between two counts: nothing doubled, nothing lost, whatever rotates, and whenever it dies."""

import contextlib
import gzip
import json
import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit import access_oracle as oracle
from tests.unit.access_counter import KEY, check, count, program
from tests.unit.access_lines import NOW, Lines, drawn

ALL = bool(os.environ.get("HIKESHI_TEST_ALL"))
RUNS = 500 if ALL else 50
SEED = int(os.environ.get("HIKESHI_TEST_SEED", "0")) or random.randrange(10**6)


class Killed(BaseException):
    """The process ends here; nothing is tidied up."""


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """No power is cut, so that no disk has to be waited for."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(program, "SEGMENTS_MOST", 3)


def take_in(*words: str) -> None:
    """Read what is new, and say nothing."""
    assert program.main(["store", *words], KEY.hex()) == 0


class Server:
    """A web server that writes a log, and a logrotate that moves it away in one of its ways."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        folder.mkdir()
        self.log = folder / "access.log"
        self.log.touch()
        self.of = Lines(seed)
        self.draw = random.Random(seed)
        self.written = b""  # all of it, ever
        self.open = b""  # begun, and not ended yet

    def write(self, number: int) -> None:
        """Write whole lines, and at times a part of one."""
        lines = drawn(self.of, number, odd=0.1)
        data = self.open + b"".join(line + b"\n" for line in lines)
        self.open = b""
        if self.draw.random() < 0.4 and len(data) > 30:
            cut = self.draw.randrange(1, 30)
            data, self.open = data[:-cut], data[-cut:]
        with self.log.open("ab") as file:
            file.write(data)
        self.written += data

    def finish_line(self) -> None:
        """A line is one write: nobody rotates in the middle of it."""
        if self.open:
            with self.log.open("ab") as file:
                file.write(self.open)
            self.written, self.open = self.written + self.open, b""

    def rotate(self, how: str) -> None:
        """Rotate: by a new name, by a date, or by a copy; compress what is old."""
        self.finish_line()
        names = sorted(self.folder.glob("access.log.[0-9]*"), key=lambda path: -int(path.name.split(".")[2]))
        for path in names:
            number, *ending = path.name.removeprefix("access.log.").split(".", 1)
            path.rename(self.folder / ".".join(["access.log", str(int(number) + 1), *ending]))
        if how == "copytruncate":
            shutil.copy2(self.log, self.folder / "access.log.1")
            os.truncate(self.log, 0)
            return
        name = "access.log.1" if how == "rename" else f"access.log-20261127-{self.draw.randrange(10**9)}"
        self.log.rename(self.folder / name)
        self.log.touch()

    def compress(self) -> None:
        """Compress one file that is not compressed."""
        plain = [path for path in self.folder.iterdir() if path != self.log and path.suffix not in (".gz", ".zst")]
        if not plain:
            return
        path = self.draw.choice(plain)
        if self.draw.random() < 0.5:
            subprocess.run(["zstd", "-q", "--rm", path], check=True)
            return
        packed = path.with_name(path.name + ".gz")
        packed.write_bytes(gzip.compress(path.read_bytes()))
        shutil.copystat(path, packed)
        path.unlink()

    def truth(self, **how: Any) -> oracle.Truth:
        pending = int(bool(self.written) and not self.written.endswith(b"\n"))
        return oracle.count(oracle.read(self.written, "w"), pending=pending, **how)

    def patterns(self) -> list[str]:
        return ["--glob", str(self.folder / "access.log*")]


def killing(after: int) -> Iterator[None]:
    """Let so many steps pass, then die at each."""
    for _ in range(after):
        yield
    while True:
        raise Killed


@pytest.fixture
def dying(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Returns a function that has a call die after so many steps to disk."""
    replace, real_open, unlink = os.replace, open, os.unlink

    def arm(steps: int | None) -> None:
        left = killing(steps) if steps is not None else None

        def step() -> None:
            if left is not None:
                next(left)

        def dying_replace(*words: Any) -> None:
            step()
            replace(*words)
            step()

        def dying_unlink(*words: Any) -> None:
            step()
            unlink(*words)

        def dying_open(path: Any, mode: str = "r", *words: Any, **named: Any) -> Any:
            file = real_open(path, mode, *words, **named)
            if "w" in mode:
                step()
            return file

        monkeypatch.setattr(program.os, "replace", dying_replace)
        monkeypatch.setattr(program.os, "unlink", dying_unlink)
        monkeypatch.setattr(program, "open", dying_open, raising=False)

    yield arm
    monkeypatch.undo()


@pytest.mark.parametrize("run", range(RUNS))
def test_append_rotate_compress_crash_count_again(run: int, tmp_path: Path, dying: Any) -> None:
    print(f"HIKESHI_TEST_SEED={SEED}")
    server = Server(tmp_path / "log", SEED + run)
    draw, store = server.draw, tmp_path / "store"
    words = ["--store", str(store), *server.patterns()]
    for _ in range(draw.randrange(4, 14)):
        for _ in range(draw.randrange(4)):
            what = draw.choice(["write", "write", "write", "compress", "rename", "date", "copytruncate"])
            if what == "write":
                server.write(draw.randrange(1, 40))
            elif what == "compress":
                server.compress()
            elif server.log.stat().st_size:
                server.rotate(what)
        if draw.random() < 0.5:
            dying(draw.randrange(9))
            with contextlib.suppress(Killed):
                take_in(*words)
            dying(None)
        if draw.random() < 0.7:
            made = count(tmp_path, "answer", *words, "--by", "minute")
            check(made, server.truth(by="minute"))
            assert not made.head["losses"]
    made = count(tmp_path, "answer", *words, "--by", "day", "--zone", "Asia/Tokyo")
    check(made, server.truth(by="day", zone="Asia/Tokyo"))
    again = count(tmp_path, "answer", *words, "--by", "day", "--zone", "Asia/Tokyo")
    assert again.lines == made.lines
    middle = int(server.of.now) // 60 - 5
    check(
        count(tmp_path, "answer", *words, "--since", str(middle), "--by", "all"), server.truth(since=middle, by="all")
    )


def test_the_second_count_reads_only_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(tmp_path / "log", SEED)
    words = ["--store", str(tmp_path / "store"), *server.patterns()]
    server.write(5000)
    server.rotate("rename")
    server.compress()
    server.write(5000)
    server.finish_line()
    old = server.log.stat().st_mtime_ns - 5 * 10**9
    for path in server.folder.iterdir():
        os.utime(path, ns=(old, old))
    take_in(*words)
    server.write(10)
    sizes: list[int] = []
    real = program.Log.chunks

    def noted(log: Any, *words: Any, **named: Any) -> Iterator[bytes]:
        for part in real(log, *words, **named):
            sizes.append(len(part))
            yield part

    monkeypatch.setattr(program.Log, "chunks", noted)
    check(count(tmp_path, "answer", *words, "--by", "minute"), server.truth(by="minute"))
    heads = 2 * program.BLOCK  # the first bytes of each file, by which it is known
    assert sum(sizes) < heads + program.HEAD + 10 * 70_000 < len(server.written)


def test_what_was_truncated_without_a_copy_is_told(tmp_path: Path) -> None:
    server = Server(tmp_path / "log", SEED)
    words = ["--store", str(tmp_path / "store"), *server.patterns()]
    server.write(50)
    server.finish_line()
    take_in(*words)
    before = server.truth(by="minute")
    os.truncate(server.log, 0)
    made = count(tmp_path, "answer", *words, "--by", "minute")
    check(made, before)
    (loss,) = made.head["losses"]
    assert "truncated or replaced" in loss["words"] and loss["offset"] == len(server.written)
    server.write(50)
    check(count(tmp_path, "answer", *words, "--by", "minute"), server.truth(by="minute"))


def test_what_was_deleted_is_told(tmp_path: Path) -> None:
    server = Server(tmp_path / "log", SEED)
    words = ["--store", str(tmp_path / "store"), *server.patterns()]
    server.write(50)
    take_in(*words)
    server.log.unlink()
    (loss,) = count(tmp_path, "answer", *words).head["losses"]
    assert "not there any more" in loss["words"]


def test_what_nobody_looks_for_is_no_loss(tmp_path: Path) -> None:
    server = Server(tmp_path / "log", SEED)
    store = ["--store", str(tmp_path / "store")]
    server.write(50)
    take_in(*store, *server.patterns())
    take_in(*store)
    take_in(*store, "--glob", str(tmp_path / "elsewhere" / "*.log"))
    assert count(tmp_path, "answer", *store, *server.patterns()).head["losses"] == []


def test_old_logs_that_expire_are_no_loss(tmp_path: Path) -> None:
    server = Server(tmp_path / "log", SEED)
    words = ["--store", str(tmp_path / "store"), *server.patterns()]
    server.write(50)
    server.rotate("rename")
    take_in(*words)
    (server.folder / "access.log.1").unlink()
    made = count(tmp_path, "answer", *words, "--by", "minute")
    assert made.head["losses"] == []
    check(made, server.truth(by="minute"))


def test_a_compressed_file_that_is_not_whole_yet(tmp_path: Path) -> None:
    """gzip writes it beside the plain one; a count in between must neither double nor lose."""
    server = Server(tmp_path / "log", SEED)
    words = ["--store", str(tmp_path / "store"), *server.patterns()]
    server.write(3000)
    server.rotate("rename")
    plain = server.folder / "access.log.1"
    packed = gzip.compress(plain.read_bytes())
    for part in (0, 10, len(packed) // 2, len(packed)):
        (server.folder / "access.log.1.gz").write_bytes(packed[:part])
        check(count(tmp_path, "answer", *words, "--by", "minute"), server.truth(by="minute"))
    plain.unlink()
    check(count(tmp_path, "answer", *words, "--by", "minute"), server.truth(by="minute"))


def test_logs_that_only_begin_alike_are_not_one(tmp_path: Path) -> None:
    """One at a time, both at once, and grown, renamed and compressed since; each line of both is counted once."""
    of = Lines(SEED)
    begin = b"".join([of.combined(agent=b"hikeshi-health-check") + b"\n"] * 60)
    folder = tmp_path / "log"
    folder.mkdir()
    words = ["--store", str(tmp_path / "store"), "--glob", f"{folder}/*"]
    written = dict.fromkeys(("a.log", "b.log", "c.log"), begin)

    def write(*names: str, number: int = 200) -> None:
        for name in names:
            written[name] += b"".join(line + b"\n" for line in drawn(of, number, odd=0))
            (folder / name).write_bytes(written[name])

    def right(*names: str) -> None:
        made = count(tmp_path, "answer", *words, "--by", "minute")
        check(made, oracle.count(oracle.read(b"".join(written[name] for name in names), "w"), by="minute"))
        assert made.head["problems"] == made.head["losses"] == []

    write("a.log", number=900)
    right("a.log")
    write("b.log")
    right("a.log", "b.log")
    write("b.log", "c.log")
    right("a.log", "b.log", "c.log")
    write("a.log", "b.log", number=5)
    for name in ("a.log", "b.log"):
        (folder / f"{name}.1.gz").write_bytes(gzip.compress(written[name]))
        (folder / name).unlink()
    right("a.log", "b.log", "c.log")


def test_a_shorter_copy_of_what_was_counted_is_not_counted_again(tmp_path: Path) -> None:
    server = Server(tmp_path / "log", SEED)
    words = ["--store", str(tmp_path / "store"), *server.patterns()]
    server.write(300)
    server.finish_line()
    take_in(*words)
    for part in (1000, 20_000):  # less and more than the first bytes by which a log is looked for
        (server.folder / "access.log.copy").write_bytes(server.written[:part])
        (server.folder / "access.log.copy.gz").write_bytes(gzip.compress(server.written[:part]))
        made = count(tmp_path, "answer", *words, "--by", "minute")
        check(made, server.truth(by="minute"))
        assert [item["why"][:12] for item in made.head["problems"]] == ["the same log"] * 2
    server.log.rename(tmp_path / "elsewhere")
    made = count(tmp_path, "answer", *words, "--by", "minute")
    check(made, server.truth(by="minute"))
    assert ["taken for a copy" in item["why"] for item in made.head["problems"]] == [True, True]
    assert len(made.head["losses"]) == 1


def test_copies_that_are_new_to_the_store_are_counted_once(tmp_path: Path) -> None:
    server = Server(tmp_path / "log", SEED)
    words = ["--store", str(tmp_path / "store"), *server.patterns()]
    server.write(3000)
    server.finish_line()
    server.log.unlink()
    packed = gzip.compress(server.written)
    (server.folder / "access.log.copy").write_bytes(server.written[:20_000])
    (server.folder / "access.log.1.gz").write_bytes(packed)
    (server.folder / "access.log.2.gz").write_bytes(packed[:-3000])
    made = count(tmp_path, "answer", *words, "--by", "minute")
    check(made, server.truth(by="minute"))
    assert len(made.head["files"]) == 1 and len(made.head["problems"]) == 2


def test_only_what_was_counted_is_trimmed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server = Server(tmp_path / "log", SEED)
    words = ["--store", str(tmp_path / "store"), *server.patterns()]
    for _ in range(3):
        server.write(20)
        server.rotate("rename")
    for number, path in enumerate(sorted(server.folder.glob("access.log.*"))):
        os.utime(path, (time.time() - 60 - number * 20 * 3600,) * 2)
    trim = ["trim", *words, "--log-days", "1"]
    assert program.main(trim, KEY.hex()) == 0
    assert len(list(server.folder.iterdir())) == 4, "nothing was counted yet"
    take_in(*words)
    before = server.truth(by="minute")
    assert program.main(trim, KEY.hex()) == 0
    assert sorted(path.name for path in server.folder.iterdir()) == ["access.log", "access.log.1", "access.log.2"]
    assert program.main([*trim, "--log-share", "0"], KEY.hex()) == 0
    assert [path.name for path in server.folder.iterdir()] == ["access.log"], "one that is written to stays"
    made = count(tmp_path, "answer", *words, "--by", "minute")
    check(made, before)
    assert made.head["losses"] == []


def test_another_key_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server = Server(tmp_path / "log", SEED)
    words = ["--store", str(tmp_path / "store"), *server.patterns()]
    take_in(*words)
    assert program.main(["store", *words], "ff" * 32) == 2
    assert "another key" in capsys.readouterr().err


def test_old_days_are_dropped_when_segments_are_joined(tmp_path: Path) -> None:
    """Lines of the tests are of 2026; what is kept is counted from now."""
    server = Server(tmp_path / "log", SEED)
    words = ["--store", str(tmp_path / "store"), "--keep-days", "1", *server.patterns()]
    server.of.now = 1_000_000_000.0
    for _ in range(12):
        server.write(20)
        made = count(tmp_path, "answer", *words)
    state = json.loads((tmp_path / "store" / "state.json").read_text())
    assert len(state["segments"]) <= 4
    assert sum(hits for hits, _ in made.numbers.values()) == made.head["counted"] > 0
    assert f"{state['dropped']} accesses were too old" in made.head["problems"][0]["words"] and state["dropped"] > 0


def test_the_sums_hold_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log a day, gone a week later; 90 days are kept, then 400, over more days than that."""
    for keep, days in ((90, 240), (400, 431)):
        folder = tmp_path / str(keep)
        folder.mkdir()
        words = ["--store", str(folder / "store"), "--keep-days", str(keep), "--glob", f"{folder}/*.log*"]
        of = Lines(SEED)
        of.pace = 3600
        said: list[str] = []
        for day in range(days):
            now = NOW + day * 86400
            of.now = float(now)
            monkeypatch.setattr(program.time, "time", lambda now=now: now + 90000)
            log = folder / f"access.log.{day}"
            # One in ten is malformed, and each week one breaks off in the middle of a line.
            data = b"".join(line + b"\n" for line in drawn(of, 9, odd=0.05))
            log.write_bytes(data[: -9 if day % 7 == 3 else None])
            os.utime(log, (now, now))
            if day >= 7:
                (folder / f"access.log.{day - 7}").unlink()
            take_in(*words)
            if day % 10 == 0:
                made = count(folder, "answer", *words, "--by", "all")
                head = made.head
                assert head["lines"] == head["counted"] + head["malformed"] + head["pending"]
                assert sum(hits for hits, _ in made.numbers.values()) == head["counted"] > 0
                said = [item["words"] for item in head["problems"]]
        assert any("gone too long" in words for words in said), said
        assert any("too old" in words for words in said) or keep == 400, said


@pytest.mark.parametrize("damage", ["cut", "empty", "no object", "an empty object", "other lists"])
def test_a_damaged_state_is_named_with_the_way_out(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = Server(tmp_path / "log", SEED)
    words = ["--store", str(tmp_path / "store"), *server.patterns()]
    server.write(50)
    server.finish_line()
    take_in(*words)
    state = tmp_path / "store" / "state.json"
    whole = json.loads(state.read_text())
    state.write_text({
        "cut": state.read_text()[:200], "empty": "", "no object": "[1]", "an empty object": "{}",
        "other lists": json.dumps({**whole, "streams": [1]}),
    }[damage])  # fmt: skip
    for verb in ("store", "answer", "trim"):
        capsys.readouterr()
        assert program.main([verb, *words], KEY.hex()) == 2
        (said,) = capsys.readouterr().err.splitlines()
        assert f"{state} is damaged" in said and f"Move {tmp_path}/store away" in said
    assert all((tmp_path / "store" / name).is_file() for name in whole["segments"])
    (tmp_path / "store").rename(tmp_path / "aside")
    check(count(tmp_path, "answer", *words, "--by", "minute"), server.truth(by="minute"))


@pytest.mark.parametrize("damage", ["cut", "removed"])
def test_a_damaged_segment_keeps_nothing_from_being_counted_and_trimmed(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = Server(tmp_path / "log", SEED)
    words = ["--store", str(tmp_path / "store"), *server.patterns()]
    statuses = set()
    for day in range(12):
        server.write(20)
        server.rotate("rename")
        old = time.time() - 86400 * (20 - day)
        os.utime(server.folder / "access.log.1", (old, old))
        statuses.add(program.main(["store", *words], KEY.hex()))
        if day == 1:
            segment = max((tmp_path / "store").glob("segment-*"), key=lambda path: path.stat().st_mtime_ns)
            whole = segment.read_bytes()
            segment.write_bytes(whole[:-50])
            if damage == "removed":
                segment.unlink()
    assert statuses == {0, 2}
    capsys.readouterr()
    assert program.main(["answer", *words, "--output", str(tmp_path / "out")], KEY.hex()) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert f"{segment} is damaged" in said and f"Move {tmp_path}/store away" in said
    assert program.main(["trim", *words, "--log-days", "12"], KEY.hex()) == 0
    assert len(list(server.folder.glob("access.log.*"))) == 3
    segment.write_bytes(whole)
    check(count(tmp_path, "answer", *words, "--by", "minute"), server.truth(by="minute"))


def two_partials(tmp_path: Path) -> tuple[Path, bytes, bytes]:
    """Return a folder with the partials a.gz and b.gz of two hosts that some visitors share, and their logs."""
    logs = []
    for number, name in enumerate("ab"):
        log = b"".join(line + b"\n" for line in drawn(Lines(SEED + number), 3000))
        (tmp_path / f"{name}.log").write_bytes(log)
        given = ["files", "--host", name, "--addresses", "--output", str(tmp_path / f"{name}.gz")]
        assert program.main([*given, str(tmp_path / f"{name}.log")], KEY.hex()) == 0
        logs.append(log)
    return tmp_path, logs[0], logs[1]


def merge(*paths: Path) -> tuple[list[dict[str, Any]], list[bytes]]:
    files = [path.open("rb") for path in paths]
    try:
        heads, lines = program.merged([program.read_partial(file) for file in files])
        return heads, list(lines)
    finally:
        for file in files:
            file.close()


def test_partials_of_hosts_add_up_and_visitors_are_a_union(tmp_path: Path) -> None:
    folder, one, two = two_partials(tmp_path)
    heads, lines = merge(folder / "a.gz", folder / "b.gz")
    assert [head["host"] for head in heads] == ["a", "b"]
    (folder / "both.log").write_bytes(one + two)
    assert lines == count(folder, "files", folder / "both.log").lines


def test_stored_counts_merge_as_others_do(tmp_path: Path) -> None:
    folder, one, two = two_partials(tmp_path)
    store = ["answer", "--host", "c", "--store", str(folder / "store"), "--addresses", "--output", str(folder / "c.gz")]
    assert program.main([*store, str(folder / "b.log")], KEY.hex()) == 0
    _, lines = merge(folder / "a.gz", folder / "c.gz")
    assert lines == merge(folder / "a.gz", folder / "b.gz")[1] == sorted(lines)


def test_a_partial_is_not_merged_twice(tmp_path: Path) -> None:
    folder, *_ = two_partials(tmp_path)
    with pytest.raises(program.RefusedError, match="there twice"):
        merge(folder / "a.gz", folder / "b.gz", folder / "a.gz")
    # Nor another one of the same log, which has grown since.
    with (folder / "a.log").open("ab") as file:
        file.write(Lines(1).combined() + b"\n")
    given = ["files", "--host", "a", "--addresses", "--output", str(folder / "later.gz")]
    assert program.main([*given, str(folder / "a.log")], KEY.hex()) == 0
    with pytest.raises(program.RefusedError, match="the same log"):
        merge(folder / "a.gz", folder / "later.gz")


@pytest.mark.parametrize(("more", "key", "said"), [(["--by", "day"], KEY.hex(), "window"), ([], "ee" * 32, "key")])
def test_partials_that_do_not_fit_are_refused(more: list[str], key: str, said: str, tmp_path: Path) -> None:
    folder, *_ = two_partials(tmp_path)
    given = ["files", "--host", "c", *more, "--output", str(folder / "c.gz"), str(folder / "b.log")]
    assert program.main(given, key) == 0
    with pytest.raises(program.RefusedError, match=said):
        merge(folder / "a.gz", folder / "c.gz")


def test_no_address_leaves_unless_it_is_asked_for(tmp_path: Path) -> None:
    data = b'203.0.113.77 - - [27/Nov/2026:08:00:00 +0000] "GET /x HTTP/1.1" 200 5 "-" "secret-agent"\n' * 3
    (tmp_path / "access.log").write_bytes(data)
    for verb in (["files", str(tmp_path / "access.log")],
                 ["answer", "--store", str(tmp_path / "store"), str(tmp_path / "access.log")]):  # fmt: skip
        assert program.main([*verb, "--output", str(tmp_path / "out.gz")], KEY.hex()) == 0
        told = gzip.decompress((tmp_path / "out.gz").read_bytes())
        assert b"203.0.113.77" not in told and b"secret-agent" not in told and b"/x" in told


@pytest.mark.parametrize("damage", ["cut", "bent", "not one", "empty"])
def test_a_damaged_partial_is_refused(damage: str, tmp_path: Path) -> None:
    folder, *_ = two_partials(tmp_path)
    data = bytearray((folder / "a.gz").read_bytes())
    if damage == "cut":
        data = data[: len(data) // 2]
    elif damage == "bent":
        data[len(data) // 2] ^= 255
    else:
        data = bytearray(b"junk" if damage == "not one" else b"")
    (folder / "a.gz").write_bytes(data)
    with pytest.raises(ValueError, match="damaged|no partial|end is missing"):
        merge(folder / "a.gz")


def test_what_was_read_with_other_settings_is_told(tmp_path: Path) -> None:
    (log := tmp_path / "access.log").write_bytes(b"")
    words = ["answer", str(log), "--store", str(tmp_path / "store")]
    assert count(tmp_path, *words).head["problems"] == []
    (problem,) = count(tmp_path, *words, "--agent-capture", "1").head["problems"]
    assert "read with other settings, and stays so: agent capture 'last', now '1'" in problem["why"]
    assert count(tmp_path, *words, "--agent-capture", "1").head["problems"] == []
