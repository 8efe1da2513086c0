"""The counter of access_count: equal to a slow oracle, whatever stands in the logs."""

import gzip
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.unit import access_oracle as oracle
from tests.unit.access_counter import KEY, PROGRAM, check, count, program
from tests.unit.access_lines import HOSTILE, LB_HOSTILE, LB_MALFORMED, MALFORMED, NOW, Lines, drawn

ALL = bool(os.environ.get("HIKESHI_TEST_ALL"))
SEED = int(os.environ.get("HIKESHI_TEST_SEED", "0")) or random.randrange(10**6)
LINES = 1_000_000
BAD_FILES = 10_000 if ALL else 1_000
MANY = 2_500_000 if ALL else 500_000


@pytest.fixture(autouse=True)
def seed() -> None:
    print(f"HIKESHI_TEST_SEED={SEED}")


def text(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def test_there_are_enough_kinds() -> None:
    assert len(HOSTILE) >= 25 and len(MALFORMED) >= 15 and len(LB_HOSTILE) >= 20 and len(LB_MALFORMED) >= 15


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_line_is_an_access(kind: str, tmp_path: Path) -> None:
    """Each kind alone between ordinary lines, so that the fast way and the careful one are both taken."""
    of = Lines(SEED)
    data = text([of.combined(), HOSTILE[kind](of), of.combined(), HOSTILE[kind](of)])
    (tmp_path / "access.log").write_bytes(data)
    truth = oracle.count(oracle.read(data, "w"), by="minute")
    assert (truth.counted, truth.malformed) == (4, 0)
    check(count(tmp_path, "files", "--by", "minute", tmp_path / "access.log"), truth)


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_line_is_none_and_is_shown(kind: str, tmp_path: Path) -> None:
    of = Lines(SEED)
    data = text([of.combined(), MALFORMED[kind](of), of.combined()])
    (tmp_path / "access.log").write_bytes(data)
    truth = oracle.count(oracle.read(data, "w"))
    assert (truth.counted, truth.malformed) == (2, 1)
    made = count(tmp_path, "files", tmp_path / "access.log")
    check(made, truth)
    sample = made.head["files"][0]["samples"][0]
    assert sample["why"] in made.head["files"][0]["reasons"] and sample["byte"] == data.index(b"\n") + 1


@pytest.mark.parametrize("kind", LB_HOSTILE)
def test_a_hostile_line_of_the_load_balancer_is_an_access(kind: str, tmp_path: Path) -> None:
    of = Lines(SEED, log_zone="Asia/Tokyo")
    data = text([of.haproxy(), LB_HOSTILE[kind](of), of.haproxy(), of.haproxy()])
    (tmp_path / "haproxy.log").write_bytes(data)
    truth = oracle.count(oracle.read(data, "l", "Asia/Tokyo"))
    assert (truth.counted, truth.malformed) == (4, 0)
    check(
        count(tmp_path, "files", "--sorry-backend", "sorry", "--log-zone", "Asia/Tokyo", tmp_path / "haproxy.log"),
        truth,
    )


@pytest.mark.parametrize("kind", LB_MALFORMED)
def test_a_malformed_line_of_the_load_balancer_is_none(kind: str, tmp_path: Path) -> None:
    of = Lines(SEED)
    data = text([of.haproxy(), LB_MALFORMED[kind](of), of.haproxy()])
    (tmp_path / "haproxy.log").write_bytes(data)
    truth = oracle.count(oracle.read(data, "l"))
    assert (truth.counted, truth.malformed) == (2, 1)
    check(count(tmp_path, "files", "--sorry-backend", "sorry", tmp_path / "haproxy.log"), truth)


@pytest.mark.parametrize(
    ("front", "client"),
    [
        (b"www.shop.example %b - -", b"198.18.0.%d"),
        (b"203.0.113.4 %b - bob", b"198.18.0.%d"),
        (b"www.shop.example %b - - -", b"198.18.0.%d"),
        (b"www.shop.example %b -", b"198.18.0.%d"),
        (b"shop %b - -", b"host-%d.example.net"),
        (b"www.shop.example:443 %b - -", b"host-%d.example.net"),
        (b"%b - -", b"host-%d.example.net"),
        (b"%b - a b c", b"host-%d.example.net"),
        (b"%b www.shop.example - -", b"198.18.0.%d"),
        (b"spoofed, 10.0.0.1, %b - -", b"198.18.0.%d"),
        (b"www.shop.example spoofed, %b - -", b"2001:db8::%d"),
    ],
)
def test_the_client_is_who_asked(front: bytes, client: bytes, tmp_path: Path) -> None:
    clients = [client % number for number in range(1, 101)]
    rest = b' [27/Nov/2026:08:00:00 +0000] "GET / HTTP/1.1" 200 5 "-" "Mozilla"\n'
    (tmp_path / "access.log").write_bytes(b"".join(front % one + rest for one in clients))
    made = count(tmp_path, "files", tmp_path / "access.log")
    assert made.head["malformed"] == 0 and made.clients == {("wp", one): 1 for one in clients}


def test_of_a_list_of_addresses_no_comma_is_a_client(tmp_path: Path) -> None:
    (tmp_path / "access.log").write_bytes(b'a, - - [27/Nov/2026:08:00:00 +0000] "GET / HTTP/1.1" 200 5\n')
    made = count(tmp_path, "files", tmp_path / "access.log")
    assert made.head["malformed"] == 1 and not made.clients


@pytest.mark.parametrize(
    "header",
    [
        b"2026-11-27T08:00:01.000001+09:00 lb1 haproxy[812]:",
        b"<134>1 2026-11-27T08:00:01.000001+09:00 lb1 haproxy 812 - -",
        b"<134>2026-11-27T08:00:01+09:00 lb1 haproxy[812]:",
    ],
)
def test_a_syslog_header_that_names_a_zone_is_used(header: bytes, tmp_path: Path) -> None:
    line = b' 1.2.3.4:5 [27/Nov/2026:08:00:00.000] f b/s 0/0/0/0/0 200 1 - - ---- 1/1/1/1/0 0/0 {x} "GET / HTTP/1.1"\n'
    (tmp_path / "haproxy.log").write_bytes(header + line)
    made = count(tmp_path, "files", "--by", "minute", "--log-zone", "America/Lima", tmp_path / "haproxy.log")
    assert [at for at, *_ in made.numbers] == [(NOW - 3600) // 60]


def test_an_address_logged_in_two_ways_is_one_visitor(tmp_path: Path) -> None:
    rest = b'198.18.0.7 - - [27/Nov/2026:08:00:00 +0000] "GET / HTTP/1.1" 200 5 "-" "Mozilla"\n'
    (tmp_path / "access.log").write_bytes(rest + b"::ffff:" + rest)
    made = count(tmp_path, "files", tmp_path / "access.log")
    assert made.clients == {("wp", b"198.18.0.7"): 2} and sum(map(len, made.visitors.values())) == 1


def test_a_day_whose_midnight_comes_twice_is_one(tmp_path: Path) -> None:
    """At 01:00 of 2026-11-01 (05:00 UTC) Havana's clocks go back to midnight: a day of 25 hours, from 04:00 UTC on."""
    line = b'1.2.3.4 - - [%b:30:00 +0000] "GET / HTTP/1.1" 200 5\n'
    hours = [b"01/Nov/2026:%02d" % hour for hour in range(24)] + [b"02/Nov/2026:%02d" % hour for hour in range(6)]
    (tmp_path / "access.log").write_bytes(b"".join(line % hour for hour in hours))
    made = count(tmp_path, "files", "--by", "day", "--zone", "America/Havana", tmp_path / "access.log")
    first = 1793505600 // 60  # 2026-11-01 04:00 UTC
    assert {at: hits for (at, *_), (hits, _) in made.numbers.items()} == {first - 1440: 4, first: 25, first + 1500: 1}


def rotated(folder: Path, name: str, data: bytes, cuts: list[int]) -> list[Path]:
    """Write a log as three rotations left it: .gz, .zst, plain, and the one that is written to, its end cut off."""
    pieces = [data[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    places = [folder / f"{name}.{number}" for number in (3, 2, 1)] + [folder / name]
    for place, piece in zip(places, pieces, strict=True):
        place.write_bytes(piece)
    packed = places[0].with_name(places[0].name + ".gz")
    packed.write_bytes(gzip.compress(pieces[0][:1000]) + gzip.compress(pieces[0][1000:]))  # two members, as cat makes
    places[0].unlink()
    subprocess.run(["zstd", "-q", "--rm", places[1]], check=True)
    return [packed, places[1].with_name(places[1].name + ".zst"), *places[2:]]


@pytest.mark.parametrize("role", ["w", "l"])
def test_equal_to_the_oracle_field_by_field(role: str, tmp_path: Path) -> None:
    """Rotated three times, compressed in two ways, its last line cut off."""
    of = Lines(SEED, log_zone="Asia/Tokyo")
    number = LINES if role == "w" else LINES // 4
    lines = drawn(of, number, role)
    data = text(lines)[:-9]
    ends = [data.index(b"\n", len(data) * part // 4) + 1 for part in (1, 2, 3)]
    paths = rotated(tmp_path, "access.log", data, ends)
    hits = oracle.read(data, role, "Asia/Tokyo")
    since, until = NOW // 60 + 7, NOW // 60 + max(60, number // 100)
    asked: dict[str, Any]
    for words, asked in (
        ([], {}),
        (["--by", "day", "--zone", "Asia/Kathmandu"], {"by": "day", "zone": "Asia/Kathmandu"}),
        (["--since", since, "--until", until, "--by", "minute"], {"since": since, "until": until, "by": "minute"}),
    ):
        more = ["--health-path", "/healthz", "--sorry-backend", "sorry", "--log-zone", "Asia/Tokyo"]
        truth = oracle.count(hits, pending=1, health=b"/healthz", **asked)
        check(count(tmp_path, "files", *more, *map(str, words), *paths), truth)
    assert truth.malformed > number * 0.02 and truth.pending == 1
    # In two processes, and with so little memory that it is spilled to disk.
    again = count(tmp_path, "files", *more, *map(str, words), "--processes", "2", "--memory", "128", *paths)
    check(again, truth)


def test_one_file_is_shared_by_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "UNIT", 100_000)
    data = text(drawn(Lines(SEED), 5000))[:-5]
    (tmp_path / "access.log").write_bytes(data)
    made = count(tmp_path, "files", "--processes", "3", tmp_path / "access.log")
    check(made, oracle.count(oracle.read(data, "w"), pending=1))
    assert len(made.head["files"]) == 1


def test_memory_is_bounded_and_the_count_stays_exact(tmp_path: Path) -> None:
    """Every line has another client, another path and another agent; an attacker may do that."""
    log, out = tmp_path / "access.log", tmp_path / "partial.gz"
    memory = 512 if ALL else 128
    with log.open("wb") as file:
        for number in range(MANY):
            file.write(
                b'10.%d.%d.%d - - [27/Nov/2026:%02d:%02d:07 +0000] "GET /f/%d/%d HTTP/1.1" 200 7 "-" "Mozilla x%d"\n'
                % (number >> 16, number >> 8 & 255, number & 255, number % 24, number % 60, number, number * 7, number)
            )
    words = [
        "files",
        str(log),
        "--key",
        "00" * 32,
        "--memory",
        str(memory),
        "--output",
        str(out),
        "--spill",
        str(tmp_path),
    ]
    measured = "import resource,subprocess,sys; code=subprocess.call(sys.argv[1:]); "
    measured += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)"
    done = subprocess.run(
        [sys.executable, "-c", measured, sys.executable, str(PROGRAM), *words],
        env={**os.environ, program.KEY: "00" * 32},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < memory << 10, done.stdout
    found = {"c": 0, "p": 0, "v": 0}
    with out.open("rb") as file:
        head, lines = program.read_partial(file)
        for line in lines:
            key = line[:1].decode()
            if key in found:
                found[key] += 1
    assert head["counted"] == MANY and found == {"c": MANY, "p": MANY, "v": MANY}
    assert {path.name for path in tmp_path.iterdir()} == {"access.log", "partial.gz"}


def many(number: int) -> bytes:
    """Return lines of which each has another client, path and agent."""
    line = b'10.0.%d.%d - - [27/Nov/2026:08:00:07 +0000] "GET /%d HTTP/1.1" 200 7 "-" "Mozilla %d"\n'
    return b"".join(line % (one >> 8, one & 255, one, one) for one in range(number))


@pytest.mark.parametrize("more", [["--processes", "2"], ["--memory", "64"], ["--memory", "512"]])
def test_a_full_disk_is_one_sentence(more: list[str], tmp_path: Path) -> None:
    """Where several processes hand over, where memory is short, and where the partial is written."""
    (tmp_path / "many.log").write_bytes(many(40_000))
    words = ["files", f"{tmp_path}/many.log", *more, "--output", f"{tmp_path}/partial.gz", "--spill", str(tmp_path)]
    done = subprocess.run(
        ["/bin/bash", "-c", 'ulimit -f 200; exec "$@"', "-", sys.executable, str(PROGRAM), *words],
        env={**os.environ, program.KEY: "00" * 32}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and done.stdout == ""
    (said,) = done.stderr.splitlines()
    assert said.startswith("count refused: ") and f"cannot be written to {tmp_path}" in said and "make room" in said
    assert "File too large" in said
    assert {path.name for path in tmp_path.iterdir()} <= {"many.log", "partial.gz"}


@pytest.mark.parametrize("verb", ["files", "auto", "store"])
def test_what_does_not_fit_into_memory_goes_to_a_disk(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On hosts nobody says where to, and the folder for what is temporary may be memory."""
    (tmp_path / "many.log").write_bytes(many(40_000))
    (tmp_path / "disk").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "disk"))
    monkeypatch.setattr(program, "budget", lambda _: 1 << 20)
    folders: list[object] = []
    real = program.tempfile.TemporaryFile

    def noted(**named: Any) -> Any:
        folders.append(named["dir"])
        return real(**named)

    monkeypatch.setattr(program.tempfile, "TemporaryFile", noted)
    store = [] if verb == "files" else ["--store", str(tmp_path / "store")]
    assert program.main([verb, *store, "--output", str(tmp_path / "out"), str(tmp_path / "many.log")], KEY.hex()) == 0
    assert set(folders) == {str(tmp_path / ("store" if verb == "store" else "disk"))}
    assert not list((tmp_path / "disk").iterdir())


def test_bad_files_do_no_harm(tmp_path: Path) -> None:
    """Any bytes: no crash, nothing slow, and every line is one of the three."""
    draw = random.Random(SEED)
    of = Lines(SEED)
    log = tmp_path / "access.log"
    good = drawn(of, 300, "w", 0.3) + drawn(of, 300, "l", 0.3)
    good = [line for line in good if len(line) < 4000]
    for _ in range(BAD_FILES):
        data = bad_file(draw, good)
        log.write_bytes(data)
        began = time.monotonic()
        made = count(tmp_path, "files", log)
        assert time.monotonic() - began < 5
        head = made.head
        assert head["lines"] == head["counted"] + head["malformed"] + head["pending"]
        inside = sum(hits for hits, _ in made.numbers.values())
        assert inside == head["counted"] == sum(made.paths.values()) == sum(made.clients.values())
        if not data.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd")):
            assert head["lines"] == data.count(b"\n") + (not data.endswith(b"\n") and bool(data))


def bad_file(draw: random.Random, good: list[bytes]) -> bytes:
    """Return what may lie where a log should be."""
    lines = [draw.choice(good) for _ in range(draw.randrange(1, 30))]
    data = bytearray(text(lines))
    how = draw.randrange(9)
    if how == 0:
        return draw.randbytes(draw.randrange(3000))
    if how == 1:
        for _ in range(draw.randrange(1, 60)):
            data[draw.randrange(len(data))] = draw.randrange(256)
    elif how == 2:
        for _ in range(draw.randrange(1, 9)):
            start = draw.randrange(len(data) + 1)
            del data[start : start + draw.randrange(40)]
    elif how == 3:
        data = data.replace(b'"', draw.choice([b"", b'""', b"\\", b'\\"', b"'"]))
    elif how == 4:
        return gzip.compress(bytes(data))[: draw.randrange(1, 200)]
    elif how == 5:
        packed = bytearray(gzip.compress(bytes(data)))
        packed[draw.randrange(len(packed))] ^= 255
        return bytes(packed) + draw.choice([b"", b"\x00" * 30, b"junk", gzip.compress(bytes(data))])
    elif how == 6:
        return draw.choice(
            [b"", b"\n", b"\n" * 50, b"\x00" * 5000, b"\xff\xfe", b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b'"' * 999]
        )
    elif how == 7:
        data = data.replace(b" ", draw.choice([b"  ", b"\t", b""]), draw.randrange(1, 200))
    else:
        data = bytearray(b"".join(bytes(draw.sample(list(line), len(line))) + b"\n" for line in lines))
    return bytes(data)


@pytest.mark.parametrize(
    "line",
    [
        b'"' * 900_000, b"\\" * 900_000, b"1 - - [" * 130_000, b'a - a "' + b"\\x" * 440_000, b"{" * 900_000,
        b"a:1 " * 220_000, b"x[1]: " * 150_000, b" " * 900_000, b"a:1 1.2.3.4 " * 75_000, b"1" * 900_000,
        b"1.1.1.1:1 [27/Nov/2026:08:00:00.000] f b/s 0/0 200 1 " + b" ---- 1/1/1/1/1 0/0 {" * 40_000 + b'"',
        b'1.1.1.1 - - [27/Nov/2026:08:00:00 +0000] "' + b"GET " * 220_000,
        b'1.1.1.1 - - [27/Nov/2026:08:00:00 +0000] "GET /' + b"A" * 900_000 + b' HTTP/1.1" 200 5',
        b'1.1.1.1 - - [27/Nov/2026:08:00:00 +0000] "GET ' + b" /" * 450_000 + b' HTTP/1.1" 200 5',
        b"a " * 450_000 + b'"', b"\x1b" * 900_000,
    ],
    ids=lambda line: line[:12].decode("latin-1"),
)  # fmt: skip
def test_no_line_takes_a_second(line: bytes, tmp_path: Path) -> None:
    (tmp_path / "access.log").write_bytes(line + b"\n")
    began = time.process_time()
    count(tmp_path, "files", tmp_path / "access.log")
    assert time.process_time() - began < 1


def test_a_copy_is_counted_once(tmp_path: Path) -> None:
    data = text(drawn(Lines(SEED), 500))
    log = tmp_path / "access.log"
    log.write_bytes(data)
    shutil.copy(log, tmp_path / "copy.log")
    (tmp_path / "short.log").write_bytes(data[: len(data) // 2])
    (tmp_path / "packed.gz").write_bytes(gzip.compress(data))
    (tmp_path / "link.log").symlink_to(log)
    made = count(
        tmp_path,
        "files",
        *(tmp_path / name for name in ("copy.log", "short.log", "access.log", "packed.gz", "link.log")),
    )
    check(made, oracle.count(oracle.read(data, "w")))
    assert len(made.head["problems"]) == 4


def zst(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-qc"], input=data, stdout=subprocess.PIPE, check=True).stdout


def test_of_copies_the_one_that_holds_most_is_counted(tmp_path: Path) -> None:
    """Whatever it takes on disk: a plain one that is short, a packed one that is whole, a packed one that is cut."""
    lines = drawn(Lines(SEED), 3000, odd=0)
    data, short = text(lines), text(lines[:1000])
    packed = gzip.compress(data, 0)  # greater than the whole, even when cut
    files = {
        "a": {"snapshot.log": short, "access.log.1.gz": gzip.compress(data)},
        "b": {"cut.gz": packed[: len(packed) * 2 // 3], "whole.zst": zst(data)},
        "c": {"cut.gz": packed[: len(packed) * 2 // 3], "plain.log": short},
    }
    for folder, some in files.items():
        (tmp_path / folder).mkdir()
        for name, content in some.items():
            (tmp_path / folder / name).write_bytes(content)
    for folder in "ab":
        for order in (1, -1):
            made = count(tmp_path, "files", *sorted((tmp_path / folder).iterdir())[::order])
            check(made, oracle.count(oracle.read(data, "w")))
            assert [item["why"][:12] for item in made.head["problems"]] == ["the same log"]
    made = count(tmp_path, "files", *(tmp_path / "c").iterdir())
    assert 1500 < made.head["counted"] < 2500 and len(made.head["files"]) == 1


def alike(of: Lines) -> bytes:
    """Return more than the first bytes by which a log is looked for: a health check's lines, all of one second."""
    line = of.combined(client=b"10.0.0.1", request=b"GET /healthz HTTP/1.1", agent=b"hikeshi-health-check")
    return text([line] * 60)


def test_two_logs_that_only_begin_alike_are_two(tmp_path: Path) -> None:
    of = Lines(SEED)
    begin = alike(of)
    logs = [begin + text(drawn(of, number, odd=0)) for number in (500, 300, 400)]
    (tmp_path / "one.log").write_bytes(logs[0])
    (tmp_path / "two.log").write_bytes(logs[1])
    (tmp_path / "three.log.gz").write_bytes(gzip.compress(logs[2]))
    made = count(tmp_path, "files", *tmp_path.glob("*.log*"))
    check(made, oracle.count(oracle.read(b"".join(logs), "w")))
    assert made.head["problems"] == []


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    data = text(drawn(Lines(SEED), 2000, odd=0))
    (tmp_path / "cut.gz").write_bytes(gzip.compress(data)[:-2000])
    words = [tmp_path / "fifo", tmp_path, tmp_path / "missing", tmp_path / "cut.gz"]
    made = count(tmp_path, "files", *words)
    assert len(made.head["problems"]) == 3
    (cut,) = made.head["files"]
    assert "end too early" in cut["note"] and 0 < cut["counted"] < 2000 and cut["pending"] <= 1


@pytest.mark.parametrize(
    ("words", "said"),
    [([], "openssl rand"), (["--memory", "1"], "64 MiB"), (["--zone", "Mars/Base"], "time zone"),
     (["--processes", "0"], "1 to 64"), (["--agent-capture", "first"], "last, none")],
)  # fmt: skip
def test_words_that_cannot_be_meant(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["files", *words, "x"], "00" * 16 if words else "xx") == 2
    assert said in capsys.readouterr().err
