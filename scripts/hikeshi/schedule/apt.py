"""The reboot that unattended-upgrades makes after an upgrade that asks for one.

The facts: apt.conf(5); `reboot_if_requested_and_needed` of unattended-upgrades (2.9.1, Debian 12), which runs behind
apt-daily-upgrade.timer, by default leaves the host as it is, and hands Automatic-Reboot-Time to shutdown(8). Where
Automatic-Reboot-WithUsers is false it does not reboot while somebody is logged in: nobody knows that beforehand.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from hikeshi.schedule import crontab
from hikeshi.schedule.job import Firing

_TOKEN = re.compile(
    r"""(?P<comment>//[^\n]*|\#[^\n]*|/\*(?:.*?\*/|.*))|"(?P<text>(?:\\.|[^"\\])*)"|(?P<sign>[{};])|(?P<word>[^\s"{};]+)""",
    re.VERBOSE | re.DOTALL,
)
_YES = frozenset({"yes", "true", "with", "on", "enable", "1"})


def parse(contents: Iterable[bytes]) -> dict[str, str]:
    """Return the settings of apt's files, given in the order in which it reads them; names in small letters."""
    settings: dict[str, str] = {}
    for content in contents:
        scope: list[str] = []
        words: list[str] = []
        for token in _TOKEN.finditer(content.decode("utf-8", "replace")):
            if token["comment"] is not None:
                continue
            if token["sign"] is None:
                words.append(token["text"] if token["text"] is not None else token["word"])
                continue
            if token["sign"] == "{":
                scope.append(words[0] if words else "")
            elif token["sign"] == "}":
                scope = scope[:-1]
            elif len(words) > 1:
                settings["::".join([*scope[:20], words[0]]).lower()] = words[1]
            words = []
    return settings


def reboots(settings: Mapping[str, str]) -> bool:
    """Say whether an upgrade may end in a reboot at all."""
    return settings.get("unattended-upgrade::automatic-reboot", "false").lower() in _YES


def stopped(settings: Mapping[str, str], daemon: str) -> str:
    """Return what keeps the upgrades from coming; "" when nothing does."""
    if daemon == "absent":
        return "unattended-upgrades is not installed"
    if settings.get("apt::periodic::unattended-upgrade", "0") in ("", "0"):
        return "APT::Periodic::Unattended-Upgrade is off"
    return ""


def time(settings: Mapping[str, str]) -> str:
    """Return when it reboots, as shutdown(8) is told: `now`, or an hour and a minute."""
    return settings.get("unattended-upgrade::automatic-reboot-time", "now")


def firings(
    settings: Mapping[str, str], upgrades: Iterable[Firing], where: ZoneInfo, *, wanted: bool
) -> tuple[Firing, ...]:
    """Return when the host may reboot: behind each upgrade, or at the time that is set. `wanted`: one is waited for."""
    why = "after an upgrade; a reboot is wanted already" if wanted else "after an upgrade that wants a reboot"
    clock = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", time(settings))
    found: dict[datetime | None, Firing] = {}
    for upgrade in upgrades:
        if upgrade.earliest is None:
            found[None] = Firing(None, None, f"{why}; {upgrade.why}")
            continue
        first, last = upgrade.earliest, upgrade.latest or upgrade.earliest
        if clock:
            line = f"{int(clock[2])} {int(clock[1])} * * *"
            first, last = (next(iter(crontab.next_firings(line, at, where, 1)), at) for at in (first, last))
        else:
            last += timedelta(hours=2)  # an upgrade takes its time
        found.setdefault(first, Firing(first, last, why))
    return tuple(found.values())
