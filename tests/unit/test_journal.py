"""The journal: nothing gets lost, nothing hostile gets out, and every meddling is found at the right record."""

import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hikeshi import screen
from hikeshi.errors import HikeshiError, MisconfiguredError
from hikeshi.incident import audit
from hikeshi.incident.journal import Journal, unfinished
from hikeshi.incident.record import BadRecord, Record, digest, parse
from hikeshi.incident.state import derive, told
from hikeshi.text import Redactor

ALL = bool(os.environ.get("HIKESHI_TEST_ALL"))
MUTATIONS = 3000 if ALL else 300
EACH = 500 if ALL else 50  # events of each of 20 processes
KILLS = 40 if ALL else 8
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "incidents" / "2026-11-25-tv")


def lines(journal: Journal) -> list[bytes]:
    return journal.path.read_bytes().split(b"\n")[:-1]


def filled(journal: Journal, count: int) -> list[bytes]:
    for number in range(count - 1):
        journal.append("note", {"words": f"note {number}"}, host="web1")
    return lines(journal)


def test_first_record_and_chain(journal: Journal) -> None:
    journal.append("note", {"words": "hello"})
    first, second = map(parse, lines(journal))
    assert (first.seq, first.kind, second.seq, second.kind) == (1, "journal.begun", 2, "note")
    assert second.prev == digest(lines(journal)[0])
    assert second.pid == os.getpid()
    assert journal.path.stat().st_mode & 0o777 == 0o600
    assert journal.folder.stat().st_mode & 0o777 == 0o700
    assert audit.verify(journal.folder).whole


def test_action_is_on_disk_before_it_begins_and_with_its_outcome(journal: Journal) -> None:
    with journal.action("stage", {"stage": "mend"}, host="web1") as action:
        assert unfinished(journal.records())[0].data == {"stage": "mend"}
        action.data["changed"] = 3
    end = journal.records()[-1]
    assert (end.kind, end.data["outcome"], end.data["changed"]) == ("stage.end", "done", 3)
    with pytest.raises(ZeroDivisionError), journal.action("stage"):
        raise ZeroDivisionError("by zero")
    assert journal.records()[-1].data["outcome"] == "failed"
    assert journal.records()[-1].data["why"] == "by zero"
    with pytest.raises(KeyboardInterrupt), journal.action("stage"):
        raise KeyboardInterrupt
    assert journal.records()[-1].data["outcome"] == "interrupted"
    assert unfinished(journal.records()) == []


# --- hostile text -------------------------------------------------------------------------------------------------

HOSTILE = [
    "\x1b[2J\x1b]0;title\x07", "{{ lookup('pipe', 'id') }}", "two\nlines\r\n", "\udcff\ud800 half", "\u202egnp.exe",
    '","sum":"' + "0" * 64 + '"}', "\x00", "[red]rich[/red]", b"\xff\xfe not UTF-8", "a\u2028b",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_comes_back_as_it_was_and_is_shown_escaped(
    journal: Journal, text: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = text.decode("utf-8", "surrogateescape") if isinstance(text, bytes) else text
    journal.append("note", {"words": text, "deep": [{str(expected): text}]}, host="web1")
    (note,) = [record for record in journal.records() if record.kind == "note"]
    assert note.data == {"words": expected, "deep": [{expected: expected}]}
    assert len(lines(journal)) == 2
    assert audit.verify(journal.folder).whole
    screen.print_json(note.data)
    assert json.loads(capsys.readouterr().out) == note.data
    shown = screen.safe(note.data["words"])
    assert not any(char in shown for char in "\x1b\x00\u202e\udcff")
    assert "\\[red]" in shown or "[red]" not in shown


def folded(value: Any) -> Any:
    """What JSON makes of text: two halves that meet are one character."""
    return json.loads(json.dumps(value))


@settings(max_examples=2000 if ALL else 200, deadline=None)
@given(st.dictionaries(st.text(st.characters(), min_size=1), st.text(st.characters()) | st.integers() | st.none()))
def test_any_data_round_trips(data: dict[str, Any]) -> None:
    record = Record(1, "2026-11-25T05:30:00.000000Z", 1.5, "b", "a@b", 1, "h", "note", data, "0" * 64)
    assert b"\n" not in record.line()
    assert parse(record.line()).data == folded(data)


def test_what_json_does_not_know_is_kept_as_text(journal: Journal) -> None:
    deep: Any = "x"
    for _ in range(5000):
        deep = [deep]
    journal.append("note", {"a": float("nan"), "b": {1, 2}, "c": Path("/x"), "d": 10**5000, "e": deep, "f": 1.5})
    data = journal.records()[-1].data
    assert (data["a"], sorted(data["b"]), data["c"], data["f"]) == ("nan", [1, 2], "/x", 1.5)
    assert "nested too deeply" in json.dumps(data["e"])
    assert audit.verify(journal.folder).whole


def test_long_text_becomes_a_file_named_by_its_hash(journal: Journal) -> None:
    journal.append("stage.end", {"start": 1, "words": "x" * 100_000, "many": ["y" * 1500] * 500, "few": ["z"]})
    data = journal.records()[-1].data
    assert (data["start"], data["few"]) == (1, ["z"]), "what is short stays where it is looked for"
    for name, content in (("words", b"x" * 100_000), ("many", json.dumps(["y" * 1500] * 500).encode())):
        path = journal.folder / "blobs" / data[name]["blob"]
        assert path.read_bytes() == content
        assert digest(content) == data[name]["blob"]
        assert path.stat().st_mode & 0o777 == 0o600
    assert audit.verify(journal.folder).whole
    path.write_text("something else")
    verdict = audit.verify(journal.folder)
    assert (verdict.bad, verdict.why) == (2, f"names blobs/{path.name}, which was changed")


def test_secrets_never_reach_the_disk(journal: Journal) -> None:
    journal = Journal(journal.folder, Redactor(["s3cret-value"]))
    journal.append("note", {"words": "is s3cret-value", "s3cret-value": 1, "password": "other"}, host="s3cret-value")
    journal.keep("s3cret-value " * 1000)
    with pytest.raises(RuntimeError), journal.action("stage"):
        raise RuntimeError("failed with s3cret-value")
    for cut in (590, 1990, 195):  # where a text is cut, half a secret must not be left
        with pytest.raises(RuntimeError), journal.action("stage"):
            raise RuntimeError("x" * cut + "s3cret-value" + "x" * 3000)
    for path in journal.folder.rglob("*"):
        assert not path.is_file() or b"s3cret" not in path.read_bytes()


# --- many writers, killed writers, full disks -----------------------------------------------------------------------


def write_many(folder: Path, name: int, count: int) -> None:
    journal = Journal(folder)
    for number in range(count):
        journal.append("note", {"words": f"{name}/{number}"})


def test_twenty_processes_append_at_once(journal: Journal) -> None:
    writers = [FORK.Process(target=write_many, args=(journal.folder, name, EACH)) for name in range(20)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * 20
    notes = [record.data["words"] for record in journal.records() if record.kind == "note"]
    assert sorted(notes) == sorted(f"{name}/{number}" for name in range(20) for number in range(EACH))
    for name in range(20):  # each one's own in order
        mine = [words for words in notes if words.startswith(f"{name}/")]
        assert mine == [f"{name}/{number}" for number in range(EACH)]
    assert audit.verify(journal.folder).whole


def write_and_tell(folder: Path, teller: Any) -> None:
    journal = Journal(folder)
    for number in range(100_000):
        journal.append("note", {"words": "x" * 1500, "number": number})
        teller.send_bytes(number.to_bytes(4))


def test_kill_loses_at_most_the_line_being_written(journal: Journal) -> None:
    chance = random.Random(7)
    for _ in range(KILLS):
        ours, theirs = FORK.Pipe(duplex=False)
        writer = FORK.Process(target=write_and_tell, args=(journal.folder, theirs))
        writer.start()
        assert writer.pid
        theirs.close()
        time.sleep(chance.uniform(0.02, 0.15))
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        last = -1
        while ours.poll():
            try:
                last = int.from_bytes(ours.recv_bytes())
            except (EOFError, OSError):
                break
        journal.append("note", {"words": "going on"})
        mine = [record for record in journal.records() if record.pid == writer.pid and record.kind == "note"]
        assert [record.data["number"] for record in mine] == list(range(len(mine)))
        assert len(mine) > last, "what was said to be on disk is"
        assert audit.verify(journal.folder).whole


@pytest.mark.parametrize("cut", [1, 7, 60, -2, -1])
def test_torn_line_is_set_aside_and_said(journal: Journal, cut: int, capsys: pytest.CaptureFixture[str]) -> None:
    filled(journal, 3)
    *whole, last = lines(journal)
    torn = last[:cut] if cut > 0 else last[: len(last) + cut + 1]
    journal.path.write_bytes(b"\n".join([*whole, torn]))
    verdict = audit.verify(journal.folder)
    assert verdict.bad == 3
    assert "cut off in the middle" in verdict.why
    Journal(journal.folder).append("note", {"words": "going on"})
    assert f"killed in the middle of record 3; its {len(torn)} bytes are set aside" in capsys.readouterr().err
    kinds = [record.kind for record in journal.records()]
    assert kinds == ["journal.begun", "note", "journal.torn", "note"]
    blob = journal.records()[2].data["blob"]
    assert (journal.folder / "blobs" / blob).read_bytes() == torn
    verdict = audit.verify(journal.folder)
    assert verdict.whole
    assert "unfinished line was set aside before record 3" in " ".join(verdict.notes)


def test_death_while_setting_aside_is_mended_too(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(journal, 3)
    with journal.path.open("ab") as handle:
        handle.write(b'{"v":1,"seq":4')
    with monkeypatch.context() as patched:
        patched.setattr(os, "ftruncate", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            Journal(journal.folder).append("note")
    assert (journal.folder / "journal.torn").exists()
    Journal(journal.folder).append("note")
    (journal.folder / "journal.torn").write_bytes(b"left after the line was cut, before it was said")
    Journal(journal.folder).append("note")
    assert [record.kind for record in journal.records()].count("journal.torn") == 2
    assert not (journal.folder / "journal.torn").exists()
    assert audit.verify(journal.folder).whole


def test_torn_first_line(journal: Journal) -> None:
    journal.folder.mkdir(parents=True)
    journal.path.write_bytes(b'{"v":1,"se')
    journal.append("note")
    assert [record.kind for record in journal.records()] == ["journal.begun", "journal.torn", "note"]
    assert audit.verify(journal.folder).whole


def limited(folder: Path, limit: int, did: Any) -> None:
    """Write until the file may grow no more, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    journal = Journal(folder)
    try:
        for number in range(100):
            with journal.action("stage", {"number": number}):
                did.send(("begun", number))
    except HikeshiError as problem:
        did.send(("stopped", problem.message + " / " + problem.fix))


@pytest.mark.parametrize("limit", [100, 1000, 5000, 5001, 5200])
def test_full_disk_stops_an_action_before_it_begins(journal: Journal, limit: int) -> None:
    ours, theirs = FORK.Pipe(duplex=False)
    writer = FORK.Process(target=limited, args=(journal.folder, limit, theirs))
    writer.start()
    writer.join()
    theirs.close()
    said = []
    while ours.poll():
        try:
            said.append(ours.recv())
        except EOFError:
            break
    *begun, (verdict, words) = said
    assert verdict == "stopped"
    assert "cannot be written: File too large. What would leave no trace is not begun." in words
    assert "df -h" in words
    records = journal.records()
    starts = [record.data["number"] for record in records if record.kind == "stage.start"]
    assert starts == [number for _, number in begun]  # nothing begun without its record, no record of what was not
    assert journal.path.read_bytes()[-1:] in (b"\n", b"")
    journal.append("note", {"words": "room again"})
    assert audit.verify(journal.folder).whole


SMALL_DISK = """
import subprocess, sys
from pathlib import Path
from hikeshi.errors import HikeshiError
from hikeshi.incident import audit
from hikeshi.incident.journal import Journal
disk = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", disk], check=True)
print("mounted")
journal, begun = Journal(disk / "tv"), 0
filler = disk / "filler"
filler.write_bytes(bytes(20_000))
try:
    while True:
        with journal.action("stage", {"number": begun, "long": "x" * 3000}):
            begun += 1
except HikeshiError as problem:
    print(problem.message, problem.fix)
numbers = [record.data["number"] for record in journal.records() if record.kind == "stage.start"]
assert numbers == list(range(begun)), (numbers, begun)
filler.unlink()
journal.append("note", {"words": "room again"})
assert audit.verify(journal.folder).whole, audit.verify(journal.folder)
"""


def test_a_really_full_disk_stops_an_action_before_it_begins(tmp_path: Path) -> None:
    """On a small file system of its own; where none can be mounted, the limit above stands for it."""
    if shutil.which("unshare") is None:
        pytest.skip("no unshare")
    namespace = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    done = subprocess.run(
        [*namespace, sys.executable, "-c", SMALL_DISK, tmp_path], capture_output=True, text=True, check=False
    )
    if not done.stdout.startswith("mounted"):
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    assert "cannot be written: No space left on device. What would leave no trace is not begun. df -h" in done.stdout


def test_disk_that_cannot_keep_its_word_stops_it_too(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(journal, 3)

    def broken(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", broken)
        with pytest.raises(HikeshiError, match="Input/output error"), journal.action("stage"):
            pytest.fail("begun without a trace")
    assert len(lines(journal)) == 3
    journal.append("note")
    assert audit.verify(journal.folder).whole


# --- meddling -------------------------------------------------------------------------------------------------------


def reseal(line: bytes, **change: Any) -> bytes:
    """The line of a record with another content and a checksum that fits."""
    return Record(**{**parse(line).__dict__, **change}).line()


def rehash(kept: list[bytes], start: int) -> list[bytes]:
    """Number, chain and seal everything from a place anew, as somebody would who knows how."""
    done = kept[:start]
    for number, line in enumerate(kept[start:], start + 1):
        done.append(reseal(line, seq=number, prev=digest(done[-1]) if done else "0" * 64))
    return done


Mutation = Callable[[random.Random, list[bytes]], tuple[list[bytes], int]]  # → lines, number of the first bad record


def flip(chance: random.Random, kept: list[bytes]) -> tuple[list[bytes], int]:
    at = chance.randrange(len(kept))
    place = chance.randrange(len(kept[at]))
    other = chance.choice([byte for byte in range(32, 127) if byte != kept[at][place]])
    kept[at] = kept[at][:place] + bytes([other]) + kept[at][place + 1 :]
    return kept, at + 1


def edit_and_seal(chance: random.Random, kept: list[bytes]) -> tuple[list[bytes], int]:
    at = chance.randrange(len(kept) - 1)
    kept[at] = reseal(kept[at], data={"words": "never happened"})
    return kept, at + 1


def delete(chance: random.Random, kept: list[bytes]) -> tuple[list[bytes], int]:
    at = chance.randrange(len(kept) - 1)
    count = chance.randint(1, min(3, len(kept) - 1 - at))
    return kept[:at] + kept[at + count :], at + 1


def swap(chance: random.Random, kept: list[bytes]) -> tuple[list[bytes], int]:
    first, second = sorted(chance.sample(range(len(kept)), 2))
    kept[first], kept[second] = kept[second], kept[first]
    return kept, first + 1


def double(chance: random.Random, kept: list[bytes]) -> tuple[list[bytes], int]:
    at = chance.randrange(len(kept))
    return [*kept[: at + 1], kept[at], *kept[at + 1 :]], at + 2


def put_in(chance: random.Random, kept: list[bytes]) -> tuple[list[bytes], int]:
    at = chance.randrange(1, len(kept) - 1)
    forged = reseal(kept[at], data={"words": "forged"}, prev="f" * 64)
    return [*kept[:at], forged, *kept[at + 1 :]], at + 1


def break_line(chance: random.Random, kept: list[bytes]) -> tuple[list[bytes], int]:
    at = chance.randrange(len(kept))
    place = chance.randrange(1, len(kept[at]))
    return [*kept[:at], kept[at][:place], kept[at][place:], *kept[at + 1 :]], at + 1


def empty(chance: random.Random, kept: list[bytes]) -> tuple[list[bytes], int]:
    return [], 1


UNKEYED: list[Mutation] = [flip, edit_and_seal, delete, swap, double, put_in, break_line, empty]


def cut_tail(chance: random.Random, kept: list[bytes]) -> tuple[list[bytes], int]:
    at = chance.randrange(1, len(kept))
    return kept[:at], at + 1


def edit_all(chance: random.Random, kept: list[bytes]) -> tuple[list[bytes], int]:
    at = chance.randrange(len(kept))
    kept[at] = reseal(kept[at], data={"words": "never happened"})
    return rehash(kept, at), at + 1


def delete_all(chance: random.Random, kept: list[bytes]) -> tuple[list[bytes], int]:
    at = chance.randrange(len(kept) - 1)
    return rehash(kept[:at] + kept[at + 1 :], at), at + 1


def swap_all(chance: random.Random, kept: list[bytes]) -> tuple[list[bytes], int]:
    first, second = sorted(chance.sample(range(len(kept)), 2))
    kept[first], kept[second] = kept[second], kept[first]
    return rehash(kept, first), first + 1


def cut_middle(chance: random.Random, kept: list[bytes]) -> tuple[list[bytes], int]:
    """Cut within a line, so that the next verb sets the rest aside in good faith and goes on."""
    at = chance.randrange(1, len(kept))
    return [*kept[:at], b"cut" + kept[at][: chance.randrange(1, len(kept[at]))]], at + 1


ANCHORED: list[Mutation] = [cut_tail, edit_all, delete_all, swap_all, cut_middle]


def test_every_mutation_is_found_at_its_first_record(journal: Journal, tmp_path: Path) -> None:
    seed = int(os.environ.get("HIKESHI_TEST_SEED", random.SystemRandom().randrange(10**6)))
    original = filled(journal, 25)
    anchor = tmp_path / "stick" / "anchor.jsonl"
    anchor.parent.mkdir()
    assert audit.verify(journal.folder, anchor).whole
    known = anchor.read_bytes()
    mutations = [*UNKEYED, *ANCHORED]
    for number in range(MUTATIONS):
        chance = random.Random(seed + number)
        mutation = mutations[number % len(mutations)]
        kept, bad = mutation(chance, list(original))
        where = f"{mutation.__name__}, HIKESHI_TEST_SEED={seed}, number {number}"
        torn = mutation is cut_middle
        journal.path.write_bytes(b"\n".join(kept) + (b"" if torn or not kept else b"\n"))
        if torn and number % 2:
            Journal(journal.folder).append("note", {"words": "in good faith"})
        if mutation in UNKEYED:
            verdict = audit.verify(journal.folder)
            assert verdict.bad == bad, f"{where}: {verdict.bad} {verdict.why}, not {bad}"
        verdict = audit.verify(journal.folder, anchor)
        assert verdict.bad == bad, f"{where}, anchored: {verdict.bad} {verdict.why}, not {bad}"
        assert anchor.read_bytes() == known, f"{where}: a journal that is not whole was anchored"


def test_what_needs_an_anchor_is_said_without_one(journal: Journal) -> None:
    original = filled(journal, 9)
    for mutation in (cut_tail, edit_all, delete_all, swap_all):
        kept, _ = mutation(random.Random(1), list(original))
        journal.path.write_bytes(b"\n".join(kept) + b"\n")
        verdict = audit.verify(journal.folder)
        assert verdict.whole
        assert "cannot be excluded that the end was cut off or that everything was written anew" in verdict.notes[-1]


def test_anchor_grows_with_the_journal_and_holds_several(journal: Journal, tmp_path: Path) -> None:
    anchor = tmp_path / "anchor.jsonl"
    other = Journal(journal.folder.with_name("2026-11-26-other"))
    for folder in (journal, other, journal, other):
        filled(folder, 4)
        assert audit.verify(folder.folder, anchor).whole
    assert len(anchor.read_text().splitlines()) == len(lines(journal)) + len(lines(other))
    assert anchor.stat().st_mode & 0o777 == 0o600
    with anchor.open("ab") as handle:
        handle.write(b'{"journal": "20')  # killed in the middle of a line
    journal.append("note")
    assert audit.verify(journal.folder, anchor).whole
    assert all(json.loads(line) for line in anchor.read_text().splitlines())
    first = json.loads(anchor.read_text().splitlines()[0])
    anchor.write_text(anchor.read_text() + json.dumps({**first, "hash": "0" * 64}) + "\n")
    assert "the anchor itself was changed" in audit.verify(journal.folder, anchor).why
    anchor.write_text("not an anchor\n")
    with pytest.raises(MisconfiguredError, match="line 1 is not an anchor's line"):
        audit.verify(journal.folder, anchor)


def test_damaged_journal_goes_on_and_says_where(journal: Journal) -> None:
    kept = filled(journal, 5)
    journal.path.write_bytes(b"\n".join([*kept[:4], b"garbage"]) + b"\n")
    Journal(journal.folder).append("note", {"words": "the incident goes on"})
    assert parse(lines(journal)[-1]).seq == 6
    assert audit.verify(journal.folder).bad == 5
    assert derive(journal.records()).records == 5
    assert derive(journal.records()).bad == 5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seq": True}, "seq of the wrong kind"),
        ({"at": "yesterday"}, "no valid time"),
        ({"prev": "x"}, "no valid prev"),
        ({"data": []}, "data of the wrong kind"),
    ],
)
def test_sealed_nonsense_is_no_record(journal: Journal, change: dict[str, Any], words: str) -> None:
    (line, _) = filled(journal, 2)
    with pytest.raises(BadRecord, match=words):
        parse(reseal(line, **change))


KINDS = "deadline.set deadline.moved deadline.ended late.drafted permission.granted permission.used probes findings "
KINDS += "item.opened item.closed person stage.start stage.end run.end incident.opened lock.taken"
KEYS = ["name", "at", "how", "results", "found", "start", "by", "words", "limit", "until", "item", "owner", "blob"]
VALUES = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(
    ["spend", "2026-11-25T05:30:00+00:00", [], [1], [{}], [{"passed": 1}], {"blob": 1}, "inf"]
)  # fmt: skip


@settings(max_examples=2000 if ALL else 200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(KINDS.split()), st.dictionaries(st.sampled_from(KEYS), VALUES)), max_size=12))
def test_state_reads_any_records_without_falling_over(events: list[tuple[str, dict[str, Any]]]) -> None:
    records = [
        Record(number, "2026-11-25T05:30:00.000000Z", 1.0, "b", "a@b", 1, "", kind, data, "0" * 64)
        for number, (kind, data) in enumerate(events, 1)
    ]
    state = derive(records)
    assert state.records == len(events)
    assert derive(records) == state
    state.left_open()
    for record in records:
        assert "\n" not in screen.safe(told(record))
