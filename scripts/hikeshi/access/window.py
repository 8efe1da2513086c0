"""Which accesses are asked for: from when to when, by what, in which time zone."""

import os
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Literal, get_args
from zoneinfo import ZoneInfo

from hikeshi.errors import UsageError
from hikeshi.incident import clock

By = Literal["minute", "hour", "day", "all"]
_DAY = re.compile(r"\d{4}-\d\d-\d\d")


@dataclass(frozen=True)
class Window:
    """Whole minutes since 1970, UTC; an end that is left open is None. `until` itself is not counted any more."""

    since: int | None
    until: int | None
    by: By
    zone: ZoneInfo

    def words(self) -> list[str]:
        """Return it as the counter takes it."""
        words = ["--by", self.by, "--zone", self.zone.key]
        for name, minute in (("--since", self.since), ("--until", self.until)):
            words += [] if minute is None else [name, str(minute)]
        return words

    def time(self, minute: int) -> datetime:
        """Return a minute as time in the window's zone."""
        return datetime.fromtimestamp(minute * 60, UTC).astimezone(self.zone)

    def following(self, slot: int) -> int:
        """Return the begin of the slot after this one: days differ where the clocks change."""
        if self.by in ("minute", "hour"):
            return slot + (1 if self.by == "minute" else 60)
        local = self.time(slot).replace(tzinfo=None) + timedelta(days=1)
        return int(local.replace(hour=0, minute=0, tzinfo=self.zone).timestamp()) // 60

    def said(self, slot: int) -> str:
        """Return how a slot is called."""
        form = {"minute": "%Y-%m-%d %H:%M", "hour": "%Y-%m-%d %H:00", "day": "%Y-%m-%d", "all": "all"}[self.by]
        if self.by == "hour" and self.time(slot).minute:  # a zone that is half an hour off
            form = "%Y-%m-%d %H:%M"
        return self.time(slot).strftime(form)


def asked(since: str, until: str, by: str, zone: ZoneInfo, now: datetime) -> Window:
    """Return the window that was typed; refuse what cannot be meant."""
    if by not in get_args(By):
        raise UsageError(f"--by is '{by}'; allowed: {', '.join(get_args(By))}.", "hikeshi count --by hour")
    begin, end = (_minute(words, zone, now) if words else None for words in (since, until))
    if begin is not None and end is not None and begin >= end:
        raise UsageError(
            f"nothing lies between --since '{since}' and --until '{until}': the first is not before the second.",
            "hikeshi count --since 14:00 --until 15:00",
        )
    return Window(begin, end, by, zone)  # type: ignore[arg-type]  # it is one of them


def _minute(words: str, zone: ZoneInfo, now: datetime) -> int:
    """Return the minute of a time; of a day, its begin."""
    text = words.strip()
    day = {"today": now.astimezone(zone).date(), "yesterday": now.astimezone(zone).date() - timedelta(days=1)}.get(text)
    if day is None and _DAY.fullmatch(text):
        try:
            day = date.fromisoformat(text)
        except ValueError as error:
            raise UsageError(f"'{words}' is no day.", "write it as 2026-11-27") from error
    if day is not None:
        return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()) // 60
    try:
        time = clock.typed(text, now, zone)
    except UsageError as error:
        raise UsageError(
            error.message, 'a time of today (14:00), a day (2026-11-27, today, yesterday), or "2026-11-27 14:00"'
        ) from error
    if time.second or time.microsecond:
        raise UsageError(
            f"'{words}' is within a minute; accesses are counted by whole minutes.", f"{time:%Y-%m-%d %H:%M}"
        )
    return int(time.timestamp()) // 60


def zone_of(name: str) -> ZoneInfo:
    """Return the zone of a name; without one, that of this machine."""
    try:
        return ZoneInfo(name or _machine_zone())
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(
            f"'{name}' is no time zone that this machine knows.", "one like Asia/Tokyo (tzdata)"
        ) from error


def _machine_zone() -> str:
    """Return the name of this machine's zone; UTC where nothing says it."""
    name = os.environ.get("TZ", "").removeprefix(":")
    link = Path("/etc/localtime")
    if not name and link.is_symlink():
        name = str(link.readlink()).rpartition("zoneinfo/")[2]
    try:
        return ZoneInfo(name).key if name else "UTC"
    except (OSError, ValueError, KeyError):
        return "UTC"
