"""What a clock on the wall says, and the instants at which it says so: none, one or two of them."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo


def zone(name: str) -> ZoneInfo | None:
    """Return the time zone of this name; None when there is none."""
    try:
        return ZoneInfo(name)
    except (ValueError, KeyError, OSError):  # names are paths below zoneinfo: of a folder, of none, too long
        return None


def instants(wall: datetime, where: ZoneInfo) -> list[datetime]:
    """Return when it is this time there: never as clocks go forward, twice as they go back. In UTC."""
    try:
        found = [wall.replace(tzinfo=where, fold=fold).astimezone(UTC) for fold in (0, 1)]
        if found[0].astimezone(where).replace(tzinfo=None, fold=0) != wall:
            return []
    except OverflowError:  # the first and the last hours that Python knows
        return []
    return sorted(set(found))


def local(instant: datetime, where: ZoneInfo) -> datetime:
    """Return what the clock there says, without its zone."""
    return instant.astimezone(where).replace(tzinfo=None, fold=0)


def from_epoch(seconds: float) -> datetime | None:
    """Return the time that a host told in seconds since the epoch; None for one that cannot be said in every zone."""
    try:
        at = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return at if 1900 <= at.year < 9999 else None
