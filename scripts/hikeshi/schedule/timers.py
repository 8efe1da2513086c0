"""When a timer of systemd elapses: as systemd itself has planned, else worked out as its `timer_enter_waiting` does.

The facts are those of systemd.timer(5) and of systemd 252, src/core/timer.c: a calendar event counts from the last
time the unit was triggered; Persistent= reads that from the stamp, so that what was missed elapses as soon as the timer
starts; RandomizedDelaySec= draws a delay from 0 to that; AccuracySec= lets systemd be later by up to that.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from hikeshi.schedule import calendar, seam, walltime
from hikeshi.schedule.job import AHEAD, Firing

_LONGEST = timedelta(days=366 * 200)


def firings(
    timer: seam.Timer, now: datetime, boot: datetime | None, where: ZoneInfo, *, offline: bool, count: int = AHEAD
) -> tuple[tuple[Firing, ...], str]:
    """Return when a timer elapses, and what of it cannot be read."""
    late = _span(timer.randomized_delay_s) + _span(timer.accuracy_s)
    events, wrong = _events(timer.calendar, where)
    found: list[Firing] = []
    begin, planned, stamp = now, told(timer.next), told(timer.stamp)
    if timer.active and not offline and planned is not None and planned >= now - late:
        changed = ", until systemd reads its changed file" if timer.needs_reload else ""
        found.append(Firing(planned, planned + _span(timer.accuracy_s), f"as systemd has planned{changed}"))
        begin = max(now, planned)
    elif timer.persistent and stamp is not None:
        since = min(stamp, now)
        missed = [calendar.next_elapse(event, since, where) for event in events]
        if any(at is not None and at <= now for at in missed):
            found.append(Firing(None, None, "catch-up when the timer starts, as at boot"))
    if timer.needs_reload:  # timer_coldplug: what it says by then counts, and may be past
        found.append(Firing(None, None, "when systemd reads its changed file"))
    found += _after_boot(timer, now, boot, late, offline=offline)
    for at in _calendar(events, begin, where, count):
        found.append(Firing(at, at + late, "with its randomised delay" if timer.randomized_delay_s > 0 else ""))
    times = sorted((item for item in found if item.earliest is not None), key=lambda item: item.earliest or now)
    return (*times[:count], *(item for item in found if item.earliest is None)), wrong


def _events(texts: Sequence[str], where: ZoneInfo) -> tuple[list[calendar.Event], str]:
    events, wrong = [], ""
    for text in texts:
        try:
            events.append(calendar.parse(text, where))
        except ValueError as error:
            wrong = wrong or f"OnCalendar={text}: {error}"
    return events, wrong


def _calendar(events: Sequence[calendar.Event], after: datetime, where: ZoneInfo, count: int) -> Iterator[datetime]:
    """Yield when any of the events elapses, the first ones."""
    at = after
    for _ in range(count):
        times = [time for event in events if (time := calendar.next_elapse(event, at, where)) is not None]
        if not times:
            return
        at = min(times)
        yield at


def _after_boot(
    timer: seam.Timer, now: datetime, boot: datetime | None, late: timedelta, *, offline: bool
) -> Iterator[Firing]:
    """Yield when the monotonic settings elapse: those that count from a boot do so after the next one, too."""
    for name, seconds in timer.monotonic:
        span = _span(seconds)
        base = None
        if name in ("OnBootSec", "OnStartupSec"):
            base = boot
            yield Firing(None, None, f"{_said(span)} after the next boot")
        elif name in ("OnUnitActiveSec", "OnUnitInactiveSec"):
            base = told(timer.last)
        elif name == "OnActiveSec":
            yield Firing(None, None, f"{_said(span)} after the timer starts")
        if base is None or offline or not timer.active or told(timer.next) is not None or base + span <= now:
            continue
        # It counts from when the unit ended, which is told by nobody.
        unbounded = name == "OnUnitInactiveSec"
        yield Firing(base + span, None if unbounded else base + span + late, f"{name}={_said(span)}")


def _span(seconds: float) -> timedelta:
    return min(timedelta(seconds=max(0.0, min(seconds, _LONGEST.total_seconds()))), _LONGEST)


def _said(span: timedelta) -> str:
    minutes, seconds = divmod(round(span.total_seconds()), 60)
    return f"{minutes} min" if minutes and not seconds else f"{round(span.total_seconds())} s"


def told(seconds: float | None) -> datetime | None:
    """Return the time that systemd tells in seconds since the epoch; 0 stands for none."""
    return walltime.from_epoch(seconds) if seconds else None
