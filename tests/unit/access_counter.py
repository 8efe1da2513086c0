"""Runs the counter of the role access_count in this process, and reads what it hands over."""

import io
from collections import defaultdict
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from hikeshi.site import PROJECT
from tests.unit.access_oracle import Truth
from tests.unit.host_program import loaded

PROGRAM = PROJECT / "roles" / "access_count" / "files" / "count.py"
KEY = bytes(range(32))

program = loaded(PROGRAM)


@dataclass
class Partial:
    """What a partial says, in the words of the oracle."""

    head: dict[str, Any]
    numbers: dict[tuple[int, str, str, str, str], list[int]] = field(default_factory=dict)
    paths: dict[tuple[str, bytes], int] = field(default_factory=dict)
    clients: dict[tuple[str, bytes], int] = field(default_factory=dict)
    visitors: dict[tuple[int, str], set[bytes]] = field(default_factory=lambda: defaultdict(set))
    lines: list[bytes] = field(default_factory=list)


def read(data: bytes) -> Partial:
    """Return what stands in a partial."""
    head, lines = program.read_partial(io.BytesIO(data))
    made = Partial(head)
    for line in lines:
        made.lines.append(line)
        key, _, rest = line.partition(b"\t")
        table, *parts = key.decode().split(" ")
        number, _, text = rest.partition(b"\t")
        if table == "n":
            at, group, kind, status, outcome = parts
            hits, size = map(int, rest.split())
            assert (int(at), group, kind, status, outcome) not in made.numbers
            made.numbers[int(at), group, kind, status, outcome] = [hits, size]
        elif table == "v":
            assert bytes.fromhex(parts[0]) not in made.visitors[int(parts[1]), parts[2]]
            made.visitors[int(parts[1]), parts[2]].add(bytes.fromhex(parts[0]))
        else:
            kept = made.paths if table == "p" else made.clients
            assert (parts[2], text) not in kept
            kept[parts[2], text] = int(number)
    return made


def count(folder: Path, *words: str | Path) -> Partial:
    """Count, and return the partial."""
    out = folder / "partial.gz"
    given = [*map(str, words), "--addresses", "--output", str(out)]
    assert program.main(given, KEY.hex()) == 0
    return read(out.read_bytes())


def digest(letter: bytes, text: bytes) -> bytes:
    return blake2b(letter + text, key=KEY, digest_size=16).digest()


def visitor(client: bytes, agent: bytes) -> bytes:
    """Return by what a visitor is known in a partial."""
    return digest(b"v", str(len(client)).encode() + b" " + client + agent)


def check(made: Partial, truth: Truth) -> None:
    """Compare field by field."""
    head = made.head
    assert head["lines"] == head["counted"] + head["malformed"] + head["pending"]
    assert (head["lines"], head["counted"], head["malformed"], head["pending"]) == (
        truth.lines, truth.counted, truth.malformed, truth.pending,
    )  # fmt: skip
    if head["outside"] is not None:
        assert head["outside"] == truth.outside
    assert made.numbers == dict(truth.numbers)
    assert made.paths == dict(truth.paths)
    assert made.clients == dict(truth.clients)
    assert {key: found for key, found in made.visitors.items() if found} == {
        key: {visitor(*one) for one in people} for key, people in truth.visitors.items()
    }
    inside = truth.counted - truth.outside
    for table in (made.paths, made.clients):
        assert sum(table.values()) == inside
    assert sum(hits for hits, _ in made.numbers.values()) == inside
