"""A disk that is nearly full: services stop saving, and logging, without a word."""

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from hikeshi.triage.findings import Effect, Evidence, Finding, Step

# Nearly full: less than a tenth is left, and less than this; a tenth of a large disk is no trouble.
FEW_BYTES, FEW_INODES = 1 << 30, 1000
NO_BYTES = 1 << 20  # who needs room to go on is stopped, or will be within minutes
NAMED = 4  # how many of the largest files the finding names


def find(evidence: Evidence) -> Iterator[Finding]:
    """Free what its owner can keep in less room: deleted logs that a unit still holds open, then rotated ones.

    Deleted ones alone where that is enough. A unit that waits for room is waited for. Of what no role owns, only the
    finding is left.
    """
    host, logs = evidence["host"], evidence.get("logs", {})
    for mount, seen in evidence["disks"].items():
        few = seen["free_bytes"] < min(seen["size_bytes"] // 10, FEW_BYTES)
        if not few and seen["free_inodes"] >= min(seen["inodes"] // 10, FEW_INODES):
            continue
        deleted = [item for item in evidence.get("deleted", []) if item["mount"] == mount]
        places = [
            (subject, wanted, logs[wanted["directory"]])
            for subject in evidence["subjects"]
            for wanted in subject.get("logs") or []
            if logs.get(wanted["directory"], {}).get("mount") == mount
        ]
        enough = min(seen["size_bytes"] // 5, 2 * FEW_BYTES)
        steps, lacking = [], enough - seen["free_bytes"]
        movable = places if few else []
        for subject, wanted, _ in movable:
            held = sum(item["bytes"] for item in deleted if _is_of(item, wanted))
            if held:
                steps.append(Step(host, subject["role"], wanted["reopen_step"], "live"))
                lacking -= held
        for subject, wanted, place in movable:
            if lacking > 0 and place["old_bytes"]:
                arguments = {"free_mib": str(-(-enough >> 20))}
                steps.append(Step(host, subject["role"], wanted["move_step"], "disk", arguments))
        for subject, wanted, _ in movable:
            if wanted.get("resume_step") and steps:
                steps.append(Step(host, subject["role"], wanted["resume_step"], "live"))
        left = f"{_size(seen['free_bytes'])} of {_size(seen['size_bytes'])}, {seen['free_inodes']} inodes"
        yield Finding(
            rule="disk_full",
            host=host,
            subject=f"disk:{mount}",
            effect=_effect(mount, evidence, [wanted for _, wanted, _ in places]),
            cause=f"{mount} is nearly full: {left} left",
            quote="; ".join(_largest(deleted, [place for _, _, place in places])),
            remedy=tuple(steps),
        )


def _is_of(item: Evidence, wanted: Evidence) -> bool:
    place = str(item["unit"]), str(PurePosixPath(item["path"]).parent)
    name = PurePosixPath(item["path"]).name
    return place == (wanted["unit"], wanted["directory"]) and re.fullmatch(wanted["written"], name) is not None


def _effect(mount: str, evidence: Evidence, places: Sequence[Evidence]) -> Effect:
    """Return what it means for the customer: more where somebody waits for room, less where only logs lie."""
    stopped = [Effect[place["means"].upper()] for place in places if place.get("means")]
    if stopped and evidence["disks"][mount]["free_bytes"] < NO_BYTES:
        return min(stopped)
    return Effect.UNTIDY if places and not stopped and _only_logs(mount, evidence) else Effect.WILL_BREAK


def _only_logs(mount: str, evidence: Evidence) -> bool:
    """Say whether nobody but who reads logs would miss this disk."""
    others = [item["path"] for subject in evidence["subjects"] for item in subject.get("mounts") or []]
    return mount != "/" and mount not in others


def _largest(deleted: list[Evidence], places: list[Evidence]) -> Iterator[str]:
    for item in deleted[:NAMED]:
        yield f"{_size(item['bytes'])} of {item['path']}, deleted, held by {item['unit'] or 'PID'} {item['pid']}"
    for place in places:
        for item in place["old"][:NAMED]:
            yield f"{_size(item['bytes'])} of {item['name']}"


def _size(count: int) -> str:
    for unit, shift in (("GiB", 30), ("MiB", 20)):
        if count >= 1 << shift:
            return f"{count / (1 << shift):.1f} {unit}"
    return f"{count >> 10} KiB"
