"""A repair step that was carried out."""

from dataclasses import dataclass

from hikeshi.triage.plan import Planned


@dataclass(frozen=True)
class Mended:
    """One step that was carried out: how long it took, whether it changed anything, which difference it put back."""

    planned: Planned
    changed: bool
    failed: bool
    seconds: float
    restored: str = ""
