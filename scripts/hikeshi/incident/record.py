"""One line of a journal, schema 1.

A record is one JSON object on one line, ASCII only (whatever a host said is in escapes), its keys in this order:

    v       1, the schema
    seq     1, 2, 3 …: its place in the journal
    at      UTC, ISO 8601 with microseconds: 2026-11-25T05:30:00.000000Z
    mono_s  seconds since boot, sleep included (CLOCK_BOOTTIME): orders and measures when somebody sets the clock
    boot    boot id of the machine that wrote it: mono_s compares only within one
    actor   user@host who wrote it, not the host it is about
    pid     the writing process
    host    host of the site it is about; empty when it is about none
    kind    what happened; hikeshi.incident lists the kinds and their data
    data    a mapping; what it holds follows from kind. A long text is {"blob": SHA-256, "bytes": N, "begins": TEXT}
    prev    SHA-256 of the line before, without its newline; 64 zeros in the first
    sum     SHA-256 of this line as it would be without its sum

`sum` tells which record was changed, `prev` that one was changed, taken out or moved. Neither is a secret: whoever
rewrites everything computes both anew, and only a head kept elsewhere shows it (hikeshi.incident.audit).
"""

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

SCHEMA = 1
FIRST_PREV = "0" * 64
TIME_FORMAT = "%Y-%m-%dT%H:%M:%S.%fZ"
_SUM = re.compile(rb',"sum":"([0-9a-f]{64})"\}\Z')
_HASH = re.compile(r"[0-9a-f]{64}")


class BadRecord(ValueError):
    """A line is no record as we write them; the words say why."""


@dataclass(frozen=True)
class Record:
    """One thing that happened."""

    seq: int
    at: str
    mono_s: float
    boot: str
    actor: str
    pid: int
    host: str
    kind: str
    data: dict[str, Any]
    prev: str

    @property
    def time(self) -> datetime:
        """When it was written."""
        return datetime.strptime(self.at, TIME_FORMAT).replace(tzinfo=UTC)

    def line(self) -> bytes:
        """Return the line of this record, sealed, without its newline."""
        body = json.dumps({"v": SCHEMA, **self.__dict__}, separators=(",", ":"), allow_nan=False).encode("ascii")
        return body[:-1] + b',"sum":"' + digest(body).encode() + b'"}'


_FIELDS: dict[str, tuple[type, ...]] = {
    "v": (int,), "seq": (int,), "at": (str,), "mono_s": (float, int), "boot": (str,), "actor": (str,), "pid": (int,),
    "host": (str,), "kind": (str,), "data": (dict,), "prev": (str,),
}  # fmt: skip


def digest(content: bytes) -> str:
    """Return the SHA-256 of bytes in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def parse(line: bytes) -> Record:
    """Return the record of one line; raise BadRecord for anything that we did not write just so."""
    seal = _SUM.search(line)
    if not seal:
        raise BadRecord("is not whole")
    body = line[: seal.start()] + b"}"
    if digest(body) != seal[1].decode():
        raise BadRecord("was changed: its own checksum is another")
    try:
        values = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRecord("is not JSON") from error
    if not isinstance(values, dict) or values.get("v") != SCHEMA:
        seen = values.get("v") if isinstance(values, dict) else None
        raise BadRecord(f"has schema {seen!r}; known: {SCHEMA}")
    if list(values) != list(_FIELDS):
        raise BadRecord(f"has the keys {', '.join(values)}; a record has {', '.join(_FIELDS)}")
    for name, kinds in _FIELDS.items():
        if not isinstance(values[name], kinds) or isinstance(values[name], bool):
            raise BadRecord(f"has a {name} of the wrong kind")
    values.pop("v")
    record = Record(**values)
    try:
        record.time  # noqa: B018 (it parses)
    except ValueError as error:
        raise BadRecord("has no valid time") from error
    if not _HASH.fullmatch(record.prev):
        raise BadRecord("has no valid prev")
    return record
