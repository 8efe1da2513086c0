"""The journal: append-only, fsynced, hash-chained JSON Lines, written by several processes at once.

Every append takes the file's lock, reads where the journal ends, writes one line and has it on disk before it returns.
A writer killed in the middle leaves a line without its end; the next one sets that aside, says so, and goes on.
"""

import errno
import fcntl
import getpass
import json
import math
import os
import shlex
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal

from hikeshi.errors import HikeshiError, MisconfiguredError
from hikeshi.files import make_private_folder, sync_folder, write_private
from hikeshi.incident.record import FIRST_PREV, TIME_FORMAT, BadRecord, Record, digest, parse
from hikeshi.text import Redactor

NAME = "journal.jsonl"
OPEN = "open"  # in a site's records: a link to the folder of the open incident
LONG_TEXT = 2000  # characters from which a text becomes a blob
LONG_LINE = 256 << 10  # bytes of data above which its largest parts become blobs
DEEPEST = 40  # levels of nesting that are kept; hosts may send any
CHUNK = 16 << 10
Outcome = Literal["done", "failed", "interrupted"]


class Records(list[Record]):
    """The records of a journal that can be read, and where it is damaged.

    `bad` is the number of the first bad record, None in a whole chain; `sure` is the index of the first record after
    the last damage: what stands before it may have been taken back by a record that is lost.
    """

    bad: int | None = None
    sure: int = 0


@dataclass
class Action:
    """An action under way: what is put into `data` is written with its end."""

    start: Record
    data: dict[str, Any] = field(default_factory=dict)
    outcome: Outcome = "done"

    def failed(self, why: str) -> None:
        """Say that it failed, where no exception does."""
        self.outcome, self.data["why"] = "failed", why


class Journal:
    """The journal of one folder. `about` is written into its first record; `redactor` sees everything first."""

    def __init__(self, folder: Path, redactor: Redactor | None = None, about: dict[str, Any] | None = None) -> None:
        """Nothing is made before the first record is written."""
        self.folder = folder
        self.path = folder / NAME
        self.redactor = redactor or Redactor()
        self.about = about or {}
        self.known_end = (0, 0, 0, FIRST_PREV)  # inode, size, seq and hash as we left it: spares reading the end

    def append(self, kind: str, data: dict[str, Any] | None = None, *, host: str = "") -> Record:
        """Write one record; it is on disk when this returns. Raise HikeshiError when it cannot be."""
        with self.locked() as end:
            return end.append(kind, data, host=host)

    @contextmanager
    def action(self, kind: str, data: dict[str, Any] | None = None, *, host: str = "") -> Iterator[Action]:
        """Do something between two records. Nothing is begun when the first cannot be written."""
        action = Action(self.append(f"{kind}.start", data, host=host))
        began = time.monotonic()
        try:
            yield action
        except BaseException as error:
            action.outcome = "failed" if isinstance(error, Exception) else "interrupted"
            action.data.setdefault("why", str(error))  # not cut here: of a secret cut in two the redactor knows no half
            try:
                self._end(kind, action, began, host)
            except HikeshiError as problem:
                error.add_note(problem.message)
            raise
        self._end(kind, action, began, host)

    def _end(self, kind: str, action: Action, began: float, host: str) -> None:
        seconds = round(time.monotonic() - began, 3)
        ending = {"start": action.start.seq, "outcome": action.outcome, "seconds": seconds}
        self.append(f"{kind}.end", {**action.data, **ending}, host=host)

    @contextmanager
    def locked(self) -> Iterator["Locked"]:
        """Hold the journal: for what must be read and written with nobody in between."""
        with self.errors_explained():
            make_private_folder(self.folder)
            new = not self.path.exists()
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            descriptor = os.open(self.path, flags, 0o600)
        # Opened anew each time: a lock belongs to an open file, and threads or forked children would share it.
        try:
            with self.errors_explained():
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if not new:
                self.refuse_emptied(os.fstat(descriptor).st_size)
            yield Locked(self, descriptor)
        finally:
            os.close(descriptor)

    def records(self) -> Records:
        """Return every record that can be read, in order; `hikeshi incident verify` says what is wrong with others."""
        try:
            with self.path.open("rb") as handle:
                fcntl.flock(handle, fcntl.LOCK_SH)
                content = handle.read()
        except FileNotFoundError:
            return Records()
        except OSError as error:
            raise HikeshiError(f"{self.path} cannot be read: {error.strerror}.", f"ls -l {self.path}") from error
        self.refuse_emptied(content.find(b"\n") + 1)
        return _readable(content)

    def refuse_emptied(self, size: int) -> None:
        """Refuse an empty journal in a folder that was in use: beginning it anew would hide that it was emptied.

        A writer killed at the very first record leaves an empty file, too, but in a folder that holds nothing else.
        """
        if not size and self.in_use():
            raise MisconfiguredError(
                f"record 1 of {self.path} is missing: the journal is empty, but its folder was in use.",
                f"put a copy of it back; or, to begin it anew without what it held: rm {shlex.quote(str(self.path))}",
            )

    def in_use(self) -> bool:
        """Return whether the folder holds what only a journal's records can have put there."""
        return (self.folder / OPEN).is_symlink() or any(
            next((self.folder / name).glob("*"), None) for name in ("blobs", "runs")
        )

    def keep(self, text: str) -> dict[str, Any]:
        """Keep something long in a file named by its hash, redacted; return what a record says of it."""
        text = self.redactor.text(text)
        content = text.encode("utf-8", "surrogatepass")
        name = digest(content)
        path = self.folder / "blobs" / name
        if not path.exists():
            with self.errors_explained():
                write_private(path, content)
        return {"blob": name, "bytes": len(content), "begins": text[:200]}

    def redacted(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return data as a record will have it: plain, without secrets."""
        plain: dict[str, Any] = self.redactor.data(_plain(data))
        return plain

    def prepared(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return data as a line will hold it: redacted, what is long kept in files."""
        short: dict[str, Any] = self._shortened(self.redacted(data))
        sizes = {key: len(json.dumps(value)) for key, value in short.items()}
        for key in sorted(sizes, key=sizes.__getitem__, reverse=True):
            if sum(sizes.values()) <= LONG_LINE:
                break
            short[key], sizes[key] = self.keep(json.dumps(short[key])), 0
        return short

    def _shortened(self, value: Any) -> Any:
        if isinstance(value, str):
            return value if len(value) <= LONG_TEXT else self.keep(value)
        if isinstance(value, dict):
            return {key: self._shortened(item) for key, item in value.items()}
        return [self._shortened(item) for item in value] if isinstance(value, list) else value

    @contextmanager
    def errors_explained(self) -> Iterator[None]:
        """Explain what keeps this journal from being written."""
        with explained(f"the journal {self.path}", self.folder):
            yield


@contextmanager
def explained(what: str, folder: Path, so: str = "What would leave no trace is not begun.") -> Iterator[None]:
    """Say what keeps something from being written, what follows from it, and the way out."""
    try:
        yield
    except OSError as error:
        ways = {errno.ENOSPC: "make room there", errno.EDQUOT: "make room there", errno.EFBIG: "make room there"}
        way = ways.get(error.errno or 0, "make it writable")
        look = "df -h" if error.errno in ways else "ls -ld"
        raise HikeshiError(
            f"{what} cannot be written: {error.strerror}. {so}",
            f"{look} {shlex.quote(str(folder))}; {way}, then run the same command again",
        ) from error


class Locked:
    """A journal that nobody else writes to at this moment."""

    def __init__(self, journal: Journal, descriptor: int) -> None:
        """Take over the open, locked file."""
        self._journal = journal
        self._descriptor = descriptor

    def append(self, kind: str, data: dict[str, Any] | None = None, *, host: str = "") -> Record:
        """Write one record, and have it on disk."""
        with self._journal.errors_explained():
            seq, prev = self._end()
            return self._write(seq, prev, kind, data or {}, host)

    def records(self) -> Records:
        """Return every record that can be read."""
        return _readable(os.pread(self._descriptor, os.fstat(self._descriptor).st_size, 0))

    def _write(self, seq: int, prev: str, kind: str, data: dict[str, Any], host: str) -> Record:
        # The data first: what it needs to keep beside the journal must be there when the journal speaks of it.
        prepared = self._journal.prepared(data)
        host = self._journal.redactor.text(host)
        now, mono_s = datetime.now(UTC), round(time.clock_gettime(time.CLOCK_BOOTTIME), 6)
        record = Record(
            seq, now.strftime(TIME_FORMAT), mono_s, boot_id(), actor(), os.getpid(), host, kind, prepared, prev
        )
        line = record.line()
        size = os.fstat(self._descriptor).st_size
        try:
            _write_all(self._descriptor, line + b"\n")
            os.fsync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, size)  # half a record is none
            raise
        self._remember(seq, digest(line))
        return record

    def _remember(self, seq: int, prev: str) -> None:
        status = os.fstat(self._descriptor)
        self._journal.known_end = (status.st_ino, status.st_size, seq, prev)

    def _end(self) -> tuple[int, str]:
        """Return the next record's number and the hash of the last line; begin or mend the journal where needed."""
        status = os.fstat(self._descriptor)
        inode, size, seq, prev = self._journal.known_end
        if not size or (inode, size) != (status.st_ino, status.st_size):
            seq, prev = self._read_end(status.st_size)
        if seq == 0:
            first = self._begin()
            sync_folder(self._journal.folder)
            return 2, digest(first.line())
        return seq + 1, prev

    def _begin(self) -> Record:
        """Write the first record; say so where there had been a journal that somebody took away."""
        anew = self._journal.in_use()
        if anew:
            _tell(f"{self._journal.path} was gone; it is begun anew, and what it held (permissions, too) is not known")
        about = {**self._journal.about, **({"anew": True} if anew else {})}
        return self._write(1, FIRST_PREV, "journal.begun", about, "")

    def _read_end(self, size: int) -> tuple[int, str]:
        if not size:
            return 0, FIRST_PREV
        line = self._last_line(size)
        if not line.endswith(b"\n"):
            self._journal.refuse_emptied(size - len(line))
            return self._set_aside(line, size - len(line))
        if _torn_file(self._journal).exists():  # somebody died while setting a torn line aside
            return self._note_torn(*self._seq_and_hash(line), _torn_file(self._journal).read_bytes())
        return self._seq_and_hash(line)

    def _seq_and_hash(self, line: bytes) -> tuple[int, str]:
        line = line[:-1]
        try:
            seq = parse(line).seq
        except BadRecord:  # damaged, but the incident goes on; `verify` will say so
            seq = os.pread(self._descriptor, os.fstat(self._descriptor).st_size, 0).count(b"\n")
        return seq, digest(line)

    def _last_line(self, size: int) -> bytes:
        content = b""
        while len(content) < size:
            start = max(0, size - len(content) - CHUNK)
            content = os.pread(self._descriptor, size - len(content) - start, start) + content
            if (cut := content.rfind(b"\n", 0, -1)) >= 0:
                return content[cut + 1 :]
        return content

    def _set_aside(self, torn: bytes, size: int) -> tuple[int, str]:
        write_private(_torn_file(self._journal), torn)
        os.ftruncate(self._descriptor, size)
        os.fsync(self._descriptor)
        seq, prev = self._seq_and_hash(self._last_line(size)) if size else (0, FIRST_PREV)
        return self._note_torn(seq, prev, torn)

    def _note_torn(self, seq: int, prev: str, torn: bytes) -> tuple[int, str]:
        """Write that a torn line was set aside; only then is it given its name among the blobs."""
        _tell(
            f"{self._journal.path}: a writer was killed in the middle of record {seq + 1}; its {len(torn)} bytes "
            "are set aside, and the journal goes on"
        )
        if seq == 0:
            first = self._begin()
            seq, prev = 1, digest(first.line())
        path = self._journal.folder / "blobs" / digest(torn)
        record = self._write(seq + 1, prev, "journal.torn", {"blob": path.name, "bytes": len(torn)}, "")
        make_private_folder(path.parent)
        _torn_file(self._journal).replace(path)
        return record.seq, digest(record.line())


def _tell(words: str) -> None:
    """Tell the operator, who is the first to know; no module that draws screens may be needed here."""
    with suppress(OSError):  # a screen that takes nothing is no reason to write nothing
        print(words, file=sys.stderr)


def abandoned(records: Sequence[Record], alive: Callable[[Record], bool]) -> list[Record]:
    """Return the starts of actions that have no end and whose process is gone."""
    return [record for record in unfinished(records) if not alive(record)]


def unfinished(records: Sequence[Record]) -> list[Record]:
    """Return the starts of actions that have no end."""
    starts = {record.seq: record for record in records if record.kind.endswith(".start")}
    for record in records:
        if record.kind.endswith(".end") and isinstance(record.data.get("start"), int):
            starts.pop(record.data["start"], None)
    return list(starts.values())


def writer_lives(record: Record) -> bool:
    """Return whether the process that wrote a record may still be at it; of another machine's we cannot know.

    A process that began after the record was written only bears the number of the one that wrote it.
    """
    if record.actor.rpartition("@")[2] != socket.gethostname():
        return True
    if record.boot != boot_id():
        return False
    try:
        status = Path(f"/proc/{record.pid}/stat").read_text(errors="replace")
    except OSError:
        return False
    fields = status.rpartition(")")[2].split()
    began = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return fields[0] not in ("Z", "X") and began <= record.mono_s + 1


@cache
def boot_id() -> str:
    """Return this machine's boot id."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@cache
def actor() -> str:
    """Return who we are: user@host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def _readable(content: bytes) -> Records:
    """Return what can be read, and see in passing whether the chain holds. A line being written is no damage yet."""
    *lines, rest = content.split(b"\n")
    found = Records()
    before, seq = FIRST_PREV, 0
    for number, line in enumerate(lines, 1):
        record = _parsed(line)
        fits = record is not None and record.prev == before and record.seq == seq + 1
        if record:
            found.append(record)
        if not fits:
            found.bad = found.bad or _first_bad(lines, number, record)
            found.sure = len(found)
        before, seq = digest(line), record.seq if record else number  # as a writer goes on after a damaged line
    if last := _parsed(rest):
        found.append(last)
    return found


def _first_bad(lines: list[bytes], number: int, record: Record | None) -> int:
    """Return which record is bad where the chain breaks: the same that verifying names."""
    if record is None or record.seq != number or number == 1:
        return number
    after = _parsed(lines[number]) if number < len(lines) else None
    follows = number >= len(lines) or (after is not None and after.prev == digest(lines[number - 1]))
    return number - 1 if follows else number


def _parsed(line: bytes) -> Record | None:
    try:
        return parse(line)
    except BadRecord:
        return None


def _plain(value: Any, depth: int = 0) -> Any:
    """Return a value as what JSON knows, whatever it was."""
    if depth > DEEPEST:
        return "[nested too deeply]"
    if isinstance(value, dict):
        return {str(key): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item, depth + 1) for item in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 1 << 63:
        return hex(value)  # no reader need know numbers without end
    if value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return str(value)


def _torn_file(journal: Journal) -> Path:
    return journal.folder / "journal.torn"


def _write_all(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]
