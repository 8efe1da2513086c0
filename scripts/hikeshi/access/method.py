"""By which method an answer was counted, in sentences: what was read, what was not, and what a word means. Pure."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from hikeshi.access.answer import Answer, gaps
from hikeshi.text import one_line

_NUMBERED = re.compile(r"(.*?)\.(\d{1,3})(\.gz|\.zst)?")
MOST_GAPS = 5
MEANINGS = (
    "a visitor is an address with an agent; two people behind one address with the same browser are one",
    "page views are what people got by GET or HEAD that is no picture, style, script or the like, with 2xx or 304",
    "bots, probes and health checks are those whose agent says so (or who ask for the health check's path); "
    "one that calls itself a browser counts as people",
    "no request: a connection that was broken off, or spoke something else than HTTP",
    "paths are counted without their query; times are of when a line's request came (HAProxy) or was answered (others)",
)


def as_data(answer: Answer) -> dict[str, Any]:
    """Return all of it as plain data."""
    span = answer.span
    return {
        "lines": answer.lines,
        "span": [answer.window.time(minute).isoformat() for minute in span] if span else None,
        "files": [{"host": head["host"], **file} for head in answer.heads for file in head["files"]],
        "problems": [{"host": head["host"], **item} for head in answer.heads for item in _dicts(head["problems"])],
        "losses": [{"host": head["host"], **item} for head in answer.heads for item in _dicts(head.get("losses"))],
        "gaps": {
            role: [[answer.window.time(at).isoformat() for at in gap] for gap in gaps(side, answer.window)]
            for role, side in answer.sides.items()
        },
        "meanings": list(MEANINGS),
    }


def _dicts(items: Any) -> Iterable[Mapping[str, Any]]:
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def sentences(answer: Answer) -> list[str]:
    """Return it as people read it; texts of hosts are within one line and no control characters."""
    lines = answer.lines
    told = [
        f"{lines['lines']} lines = {lines['counted']} counted + {lines['malformed']} malformed "
        f"+ {lines['pending']} pending"
        + (f"; {lines['outside']} of the counted are outside the window" if lines["outside"] else "")
    ]
    if answer.span:
        first, last = (f"{answer.window.time(minute):%Y-%m-%d %H:%M}" for minute in answer.span)
        told.append(f"the logs hold {first} to {last} ({answer.window.zone.key})")
    told += [_file(head["host"], file) for head in answer.heads for file in head["files"]]
    for name, most in (("problems", 10), ("losses", 10)):
        for head in answer.heads:
            for item in list(_dicts(head.get(name)))[:most]:
                words = item.get("words") or f"{item.get('path')}: {item.get('why')}"
                told.append(one_line(f"{'POSSIBLE LOSS ' * (name == 'losses')}{head['host']} · {words}", 400))
    told += _missing(answer)
    for role, side in answer.sides.items():
        found = sorted(gaps(side, answer.window), key=lambda gap: gap[0] - gap[1])
        for begin, end in found[:MOST_GAPS]:
            told.append(
                f"{role}: nothing from {answer.window.time(begin):%Y-%m-%d %H:%M} "
                f"to {answer.window.time(end):%Y-%m-%d %H:%M}"
            )
        if len(found) > MOST_GAPS:
            told.append(f"{role}: … and {len(found) - MOST_GAPS} shorter times without a line")
    return told


def _file(host: str, file: Mapping[str, Any]) -> str:
    words = f"{host} · {file['path']} · {file['format'] or 'nothing readable'}"
    words += f", {file['kind']}" * (file["kind"] != "plain")
    words += f" · bytes {file['from']} to {file['to']} · {file['lines']} lines"
    for name in ("malformed", "pending"):
        words += f", {file[name]} {name}" if file[name] else ""
    return one_line(words + (f" · {file['note']}" if file["note"] else ""), 400)


def unread(answer: Answer) -> list[str]:
    """Return the files of which nothing at all could be read."""
    return [
        one_line(str(item.get("path")), 200)
        for head in answer.heads
        for item in (
            *(item for item in _dicts(head["problems"]) if item.get("unread") is True),
            *(file for file in head["files"] if file["note"] and not file["lines"]),
        )
    ]


def samples(answer: Answer, most: int = 5) -> list[str]:
    """Return malformed lines with why they are none, the first of each file."""
    found = []
    for head in answer.heads:
        for file in head["files"]:
            for item in list(_dicts(file["samples"]))[:most]:
                words = (
                    f"{head['host']} · {file['path']} at byte {item.get('byte')}: {item.get('why')}: {item.get('line')}"
                )
                found.append(one_line(words, 300))
    return found[: most * 2]


def _missing(answer: Answer) -> list[str]:
    """Return the numbers that are missing among rotated files: .1 and .3 without .2 is a hole in time."""
    numbers: dict[tuple[str, str], set[int]] = defaultdict(set)
    for head in answer.heads:
        if head.get("losses") is not None:
            continue  # what was stored does not need the files any more
        for file in head["files"]:
            found = _NUMBERED.fullmatch(str(file["path"]))
            if found:
                numbers[head["host"], found[1]].add(int(found[2]))
    told = []
    for (host, name), seen in numbers.items():
        absent = [str(number) for number in range(min(seen), max(seen)) if number not in seen]
        if absent and len(absent) < len(seen) + 5:
            told.append(
                one_line(f"{host} · {name}: the rotated files {', '.join(absent)} in between are not there", 300)
            )
    return told
