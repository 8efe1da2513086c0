"""The driver of clouds that no driver knows: it refuses, says what to do by hand, and goes on when told it was done."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NoReturn

from hikeshi.copies.driver import AskedError, DoneByHandError, Found, Rehearsal, Space, Verified
from hikeshi.copies.record import Check, Copy, Taken

# Step → what to do at the control panel, one line each; and what to say when it is done.
STEPS: dict[str, tuple[list[str], str]] = {
    "copy": (
        [
            "Open the cloud's control panel, and there the server {instance}.",
            "Where it offers a snapshot of the running server with all its disks, take that: the shop goes on. Else "
            "each disk by itself, the system disk last; say so, because then they are not of one moment.",
            "Name each {id}. Make it private: no other account, no public image.",
            "Wait until the control panel says that each is complete, and note its id and its size.",
        ],
        "IDS-AND-SIZES",
    ),
    "verify": (
        [
            "Make a new server or disk of {disk}, with no public address and no route to the internet.",
            "Mount it there read-only (mount -o ro,nodev,nosuid,noexec), read it to the end (tar c . | wc -c), and "
            "compare with what `df` says on {instance}.",
            "Start its database there with --skip-networking{databases}: it must open.",
            "Remove that server again. If any of it was not so, the copy is not good: hikeshi copy --delete {id}, and "
            "copy anew. Only what is good is done.",
        ],
        "WHAT-YOU-SAW",
    ),
    "work": (["Make a disk of {disk} to work on, named {id}-work; never touch {disk} itself."], "ID-OF-THE-DISK"),
    "open": (
        [
            "Make a rescue server of a clean image, with no public address and no route to the internet.",
            "Attach {id}-work as its second disk, and mount it: mount -o nodev,nosuid,noexec /dev/DISK /mnt.",
            "hikeshi has no way to such a server yet: work on /mnt by hand.",
        ],
        "WHAT-YOU-CHANGED",
    ),
    "close": (["Unmount /mnt, detach {id}-work, and remove the rescue server."], "DONE"),
    "seal": (
        ["Note which disk of {instance} is its system disk, its addresses, and in which order its disks are attached."],
        "ID-OF-THE-SYSTEM-DISK",
    ),
    "rehearse": (
        [
            "Make a new server of a copy of {id}-work and of the data disks' copies, without a public address and in a "
            "network without a route to anywhere; before its first start write another /etc/machine-id on its disk, "
            "and mask there cron.service, atd.service, anacron.service and every timer.",
            "Start it, log in to it as the site does (the host keys are {instance}'s own), with sudo, and look at its "
            "pages from itself: curl http://127.0.0.1/. Place no order there.",
            "Remove that server again. If any of it was not so, mend {id}-work once more as before, and try again. "
            "Only what let you in is done.",
        ],
        "WHAT-YOU-SAW",
    ),
    "stop": (["Stop the server {instance} (not “delete”, not “terminate”), and wait until it is stopped."], "DONE"),
    "swap_in": (
        [
            "Detach the system disk of {instance} ({seal}) and keep it: it is the original.",
            "Attach {id}-work as its system disk. Leave the data disks as they are.",
            "Check that the addresses are those noted before.",
        ],
        "DONE",
    ),
    "swap_back": (
        ["Detach {id}-work from {instance}, and keep it. Attach {seal} as its system disk again."],
        "DONE",
    ),
    "carry": (
        [
            "Before {instance} is started, bring {path} from the disk that ran last to the one that will run: attach "
            "both to a rescue server, keep what stands there under another name, then cp --archive."
        ],
        "DONE",
    ),
    "start": (["Start the server {instance}, and wait until it runs."], "DONE"),
    "remove": (["Remove at the control panel what is named {id}, and {id}-work."], "DONE"),
}  # fmt: skip


class ByHand:
    """Asks a person for each step, once; what was said of it stands in the copy's file (`told`)."""

    name = "none"

    def __init__(self, site: str) -> None:
        """Nothing is asked yet; `site` is its name, for the command that goes on."""
        self.site = site

    def _told(self, copy: Copy, step: str, key: str = "", **more: str) -> str:
        """Return what was said of a step that is done; raise AskedError, which says how to do it, when it is not."""
        key = key or step
        if key in copy.told:
            return copy.told[key]
        lines, answer = STEPS[step]
        words = {
            "id": copy.id,
            "instance": copy.instance,
            "disk": copy.taken.disk if copy.taken else copy.id,
            "seal": copy.told.get("seal", "its system disk"),
            **more,
        }
        listed = "".join(f"\n  {number}. {line.format(**words)}" for number, line in enumerate(lines, 1))
        raise AskedError(
            key,
            f"no driver makes copies at this cloud (driver none). To {_VERBS[step]} {copy.instance} by hand:{listed}",
            f"when it is done: hikeshi copy {copy.host} --done {answer} --site {self.site}; then this command again",
        )

    def list(self) -> Sequence[Found]:
        """Nobody is asked: the control panel knows."""
        return []

    def there(self, copy: Copy) -> bool:
        """Nobody is asked: whoever removes it there says so by --delete."""
        return True

    def space(self, instance: str) -> Space:
        """Nobody is asked: the control panel says it before it copies."""
        return Space(0)

    def copy(self, copy: Copy) -> Taken:
        """Ask for a copy."""
        return Taken(disk=self._told(copy, "copy"), at=datetime.now(UTC))

    def verify(self, copy: Copy, databases: Sequence[str]) -> Verified:
        """Ask for somebody who saw it."""
        where = "".join(f", --datadir={path}" for path in databases)
        return Verified([Check(what="by hand", ok=True, words=self._told(copy, "verify", databases=where))])

    def work(self, copy: Copy) -> None:
        """Ask for a working copy."""
        self._told(copy, "work")

    def open(self, copy: Copy) -> NoReturn:
        """Ask for the work on the disk itself."""
        raise DoneByHandError(
            f"the disk of {copy.id} is open to you, not to hikeshi: {self._told(copy, 'open')}",
            f"hikeshi copy --list --site {self.site}",
        )

    def within(self, copy: Copy) -> NoReturn:
        """Ask for the work on the disk itself."""
        self.open(copy)

    def test(self, copy: Copy, script: str, seconds: int) -> NoReturn:
        """Ask for the work on the disk itself."""
        self.open(copy)

    def close(self, copy: Copy) -> None:
        """Ask for the bench to be removed, where there is one."""
        if "open" in copy.told:
            self._told(copy, "close")

    def stop(self, copy: Copy, machine: str) -> None:
        """Ask for the stop of whichever server runs."""
        self._told(copy, "stop", _way(copy, "stop"))

    def start(self, copy: Copy, machine: str) -> None:
        """Ask for the start."""
        self._told(copy, "start", _way(copy, "start"))

    def seal(self, copy: Copy) -> tuple[str, str]:
        """Ask what must be known of the original."""
        return self._told(copy, "seal"), f"{copy.id}-work"

    def rehearse(self, copy: Copy) -> Rehearsal:
        """Ask for somebody who tried it."""
        return Rehearsal(told=self._told(copy, "rehearse"))

    def end_rehearsal(self, copy: Copy) -> None:
        """Nobody is asked: whoever tried it removed it."""

    def carry(self, copy: Copy, path: str, *, back: bool) -> None:
        """Ask for data to be brought along."""
        self._told(copy, "carry", _way(copy, f"carry {path}"), path=path)

    def swap_in(self, copy: Copy) -> None:
        """Ask for the mended disk to be attached."""
        self._told(copy, "swap_in", _way(copy, "swap"))

    def swap_back(self, copy: Copy) -> None:
        """Ask for the original disk to be attached."""
        self._told(copy, "swap_back", _way(copy, "swap"))

    def remove(self, copy: Copy, *, work_only: bool = False) -> None:
        """Ask for it to be removed, where it was made."""
        if "copy" in copy.told and not work_only:
            self._told(copy, "remove")


def _way(copy: Copy, step: str) -> str:
    """Return the name of a step on one way of a swap: on the way back it is another one."""
    return f"{copy.swap.state if copy.swap else ''} {step}"


_VERBS = {
    "copy": "copy", "verify": "verify the copy of", "work": "work on the copy of", "open": "work on the copy of",
    "close": "end the work on the copy of", "seal": "swap the disk of",
    "rehearse": "try the mended disk of", "stop": "swap the disk of",
    "swap_in": "swap the disk of", "swap_back": "swap back the disk of", "carry": "swap the disk of",
    "start": "swap the disk of", "remove": "remove the copy of",
}  # fmt: skip
