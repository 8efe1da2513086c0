"""The spool of at: when a job is due, whether atd will run it, and its commands without the environment it carries.

The facts are those of at 3.2.5 (Debian 12): `run_loop` and `run_file` in atd.c, `writefile` in at.c.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from hikeshi.schedule import walltime
from hikeshi.schedule.job import Firing

_HEADER = re.compile(r"#!/bin/sh\s*# atrun uid=\s*(-?\d+) gid=\s*(-?\d+)\s*# mail\s+(\S+)\s+(-?\d+)", re.ASCII)
# at writes it behind the environment; no value can look like it, as at puts every line end and blank in quotes.
_BEGIN = re.compile(r"^cd [^\n]* \|\| \{\n[^\n]*\n[^\n]*\n\}\n", re.MULTILINE)
# What at writes of a variable: blanks are escaped, a line end stands in quotes.
_VARIABLE = re.compile(r'^([A-Za-z_]\w*)=((?:"\n"|\\.|[^\n;\\])*); export \1$', re.MULTILINE | re.ASCII | re.DOTALL)


_FAR = datetime(9999, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Spooled:
    """What the name of a file in the spool says."""

    queue: str
    number: int
    due: datetime

    @property
    def batch(self) -> bool:
        """Whether it waits for the load to fall, one job at a time."""
        return self.queue == "b" or self.queue.isupper()


@dataclass(frozen=True)
class Script:
    """What the file says: who runs it, and the commands. `variables` are names only: their values may be secrets."""

    uid: int | None
    body: str
    variables: tuple[str, ...] = ()


def parse_name(name: str) -> Spooled | None:
    """Return what atd reads in a name with `%c%5lx%8lx`, whatever stands behind; None for what is no job to it."""
    queue = name[:1]
    number, end = _hex(name, 1, 5)
    minute, _ = _hex(name, end, 8)
    if not queue or number is None or minute is None:
        return None
    # A negative one has passed for atd, too; of one that no calendar of ours has, only that it is far away matters.
    return Spooled(queue, number, walltime.from_epoch(max(0, minute) * 60) or _FAR)


def _hex(text: str, at: int, width: int) -> tuple[int | None, int]:
    """Return the number that scanf finds there, and where it ends."""
    while text[at : at + 1].isspace():
        at += 1
    found = re.match(r"[+-]?(?:0[xX](?=[0-9a-fA-F]))?[0-9a-fA-F]+", text[at : at + width])
    return (int(found[0], 16), at + found.end()) if found else (None, at)


def parse_body(content: bytes) -> Script:
    """Return the commands of a job; of one that at did not write, all there is but the values of variables."""
    text = content.decode("utf-8", "surrogateescape")
    header, begin = _HEADER.match(text), _BEGIN.search(text)
    names = tuple(dict.fromkeys(name[1] for name in _VARIABLE.finditer(text[: begin.end()] if begin else text)))
    uid = int(header[1]) if header and len(header[1]) < 12 else None
    if begin:
        return Script(uid, text[begin.end() :].strip("\n"), names)
    return Script(uid, _VARIABLE.sub(r"\1=[hidden]; export \1", text).strip("\n"), names)


def never(spooled: Spooled, script: Script, *, mode: int, uid: int) -> str:
    """Return why atd does not run a job, as things are; "" when it does."""
    if spooled.queue == "=":
        return "it is running, or its lock was left over"
    if not re.fullmatch(r"[A-Za-z]", spooled.queue):
        return f"atd knows no queue {spooled.queue!r}"
    if not mode & 0o100:
        return "atd waits until it is executable"
    if script.uid is None:
        return "atd does not know its format"
    if script.uid != uid:
        return f"atd refuses it: it names user {script.uid} and belongs to {uid}"
    return ""


def firings(spooled: Spooled, now: datetime, *, running: bool) -> tuple[Firing, ...]:
    """Return when a job that atd will run goes off: one that is overdue as soon as atd looks, or starts."""
    loaded = "when the load falls" if spooled.batch else ""
    if spooled.due > now:
        return (Firing(spooled.due, None if spooled.batch else spooled.due, loaded),)
    if not running:
        return (Firing(None, None, "when atd starts"),)
    # atd looks when something changes in the spool, and once an hour.
    return (Firing(now, None if spooled.batch else now + timedelta(hours=1), loaded or "overdue: at atd's next look"),)
