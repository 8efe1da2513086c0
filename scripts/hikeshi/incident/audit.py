"""Is a journal as it was written? Names the first bad record, and says what it cannot exclude.

The chain shows what was changed, taken out, moved or added between records. It cannot show that the end was cut off,
nor that somebody wrote everything anew: for these the hashes of the lines are kept elsewhere, in an anchor.

An anchor is a file of JSON Lines, one for every record known to it: {"journal": FOLDER, "seq": N, "hash": SHA-256 of
the line, "at": when it was anchored, "site": folder of the site's own journal}. It may hold several, and misses
those of the site that are gone. Keep it on another machine's disk, or on a stick.
"""

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hikeshi.errors import HikeshiError, MisconfiguredError
from hikeshi.incident.journal import NAME
from hikeshi.incident.record import FIRST_PREV, TIME_FORMAT, BadRecord, Record, digest, parse

_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass
class Verdict:
    """What verifying found. `bad` is the number of the first bad record, None for a whole journal."""

    journal: str
    records: int = 0
    head: str = ""  # hash of the last line
    bad: int | None = None
    why: str = ""
    anchored: int = 0  # records that the anchor knew
    missing: list[str] = field(default_factory=list)  # other journals of the site that the anchor knows, and are gone
    notes: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """True when nothing wrong was found."""
        return self.bad is None and not self.missing

    def blame(self, number: int, why: str) -> None:
        """Note a bad record, unless an earlier one is bad."""
        if self.bad is None or number < self.bad:
            self.bad, self.why = number, why


def verify(folder: Path, anchor: Path | None = None, site: str = "") -> Verdict:
    """Verify the journal of a folder, against an anchor if there is one; a whole journal's new records are anchored.

    `site` names the folder of the site's own journal: an anchor of several sites misses only what is this one's.
    """
    try:
        with (folder / NAME).open("rb") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH)
            content = handle.read()
    except FileNotFoundError:
        content = b""
    except OSError as error:
        raise HikeshiError(f"{folder / NAME} cannot be read: {error.strerror}.", f"ls -l {folder / NAME}") from error
    verdict, lines, records = check(folder.name, content)
    for record in records:
        for path, name in _files(record):
            _check_file(verdict, record, folder, path, name)
    torn = [str(record.seq) for record in records if record.kind == "journal.torn"]
    if torn:
        verdict.notes.append(f"a killed writer's unfinished line was set aside before record {', '.join(torn)}")
    if records and records[0].data.get("anew"):
        verdict.notes.append("this journal was begun anew: one that stood here before is gone")
    if anchor is None:
        verdict.notes.append(
            "without --anchor it cannot be excluded that the end was cut off or that everything was written anew"
        )
    else:
        _check_anchor(verdict, lines, anchor, folder.parent, site)
    return verdict


def check(name: str, content: bytes) -> tuple[Verdict, list[bytes], list[Record]]:
    """Check a journal's own chain; return the verdict, its lines and the records before the first bad one."""
    *lines, rest = content.split(b"\n")
    verdict = Verdict(name, len(lines), digest(lines[-1]) if lines else "")
    records: list[Record] = []
    before = FIRST_PREV
    for number, line in enumerate(lines, 1):
        try:
            record = parse(line)
        except BadRecord as error:
            verdict.blame(number, str(error))
            break
        if record.seq != number:
            verdict.blame(number, f"is missing or was moved: record {record.seq} stands in its place")
            break
        if record.prev != before:
            _blame_link(verdict, number, lines)
            break
        records.append(record)
        before = digest(line)
    if rest:
        verdict.blame(
            len(lines) + 1,
            "is cut off in the middle: its writer was killed (the next verb sets it aside), or it was cut",
        )
    if not lines:
        verdict.blame(1, "is missing: every journal has a first record")
    return verdict, lines, records


def _blame_link(verdict: Verdict, number: int, lines: list[bytes]) -> None:
    """Blame one of two records that do not belong together; each is whole in itself."""
    if number == 1:
        verdict.blame(1, "was not the first record")
    elif number < len(lines) and not _follows(lines[number], lines[number - 1]):
        verdict.blame(number, "was put in or sealed anew: it fits neither the record before nor the one after")
    else:
        verdict.blame(number - 1, f"was changed and sealed anew: record {number} was written after another one")


def _follows(line: bytes, before: bytes) -> bool:
    try:
        return parse(line).prev == digest(before)
    except BadRecord:
        return False


def _files(record: Record) -> Iterator[tuple[str, str]]:
    """Yield path and hash of every file that a record vouches for."""
    pending: list[Any] = [record.data]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            if _is_hash(value.get("blob")):
                yield f"blobs/{value['blob']}", value["blob"]
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
    files, folder = record.data.get("files"), record.data.get("folder")
    if record.kind == "run.end" and isinstance(files, dict):
        yield from ((f"{folder}/{path}", name) for path, name in files.items() if _is_hash(name))


def _is_hash(value: object) -> bool:
    return isinstance(value, str) and bool(_HASH.fullmatch(value))


def _check_file(verdict: Verdict, record: Record, folder: Path, path: str, name: str) -> None:
    try:
        whole = digest((folder / path).read_bytes()) == name
    except OSError as error:
        verdict.blame(record.seq, f"names {path}, which cannot be read: {error.strerror}")
        return
    if not whole:
        verdict.blame(record.seq, f"names {path}, which was changed")


def known_journals(anchor: Path) -> set[str]:
    """Return the names of the journals that an anchor knows; none of one that is not there yet."""
    if not anchor.exists():
        return set()
    with _anchor_explained(anchor):
        content = anchor.read_bytes()
    return {name for name, *_ in _heads(anchor, content[: content.rfind(b"\n") + 1])}


@contextmanager
def _anchor_explained(anchor: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MisconfiguredError(
            f"the anchor {anchor} cannot be used: {error.strerror}.", "--anchor FILE, a plain file we may write"
        ) from error


def _check_anchor(verdict: Verdict, lines: list[bytes], anchor: Path, root: Path, site: str) -> None:
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    with _anchor_explained(anchor), os.fdopen(os.open(anchor, flags, 0o600), "r+b", buffering=0) as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        content = os.pread(handle.fileno(), os.fstat(handle.fileno()).st_size, 0)
        whole = content[: content.rfind(b"\n") + 1]  # we may have been killed in the middle of an anchor's line, too
        known: dict[int, str] = {}
        others: set[str] = set()
        for journal, number, name, owner in _heads(anchor, whole):
            if journal != verdict.journal:
                others |= {journal} if owner in ("", site) else set()  # older anchors do not say whose a journal is
            elif known.setdefault(number, name) != name:
                verdict.blame(number, "was anchored twice with different hashes: the anchor itself was changed")
        verdict.anchored = len(known)
        for number, name in sorted(known.items()):
            if number > len(lines):
                verdict.blame(number, "is missing: the end was cut off; the anchor knows it")
            elif digest(lines[number - 1]) != name:
                verdict.blame(number, "is not the one that was anchored")
        if not known:
            verdict.notes.append(f"{anchor} knew nothing of this journal; from now on it does")
        if verdict.whole:
            os.ftruncate(handle.fileno(), len(whole))
            _anchor(handle.fileno(), {"journal": verdict.journal, "site": site}, lines, set(known))
    verdict.missing = sorted(name for name in others if not _has_records(root / name / NAME))


def _has_records(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False


def _heads(anchor: Path, content: bytes) -> Iterator[tuple[str, int, str, str]]:
    """Yield of every line the journal, the number, the hash and the site."""
    for number, line in enumerate(content.splitlines(), 1):
        try:
            head = json.loads(line)
            journal, seq, name = str(head["journal"]), int(head["seq"]), str(head["hash"])
            if seq < 1 or Path(journal).name != journal:
                raise ValueError(line)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise MisconfiguredError(
                f"{anchor} line {number} is not an anchor's line.", "name the file that verify --anchor made"
            ) from error
        yield journal, seq, name, str(head.get("site") or "")


def _anchor(descriptor: int, whose: dict[str, str], lines: list[bytes], known: set[int]) -> None:
    at = datetime.now(UTC).strftime(TIME_FORMAT)
    heads = (
        json.dumps({**whose, "seq": number, "hash": digest(line), "at": at}) + "\n"
        for number, line in enumerate(lines, 1)
        if number not in known
    )
    try:
        content = "".join(heads).encode()
        while content:
            content = content[os.write(descriptor, content) :]
        os.fsync(descriptor)
    except OSError as error:
        raise HikeshiError(
            f"the anchor cannot be written: {error.strerror}.", "make room, then verify again"
        ) from error
