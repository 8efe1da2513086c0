"""A recovery by way of the disk: hosts that let nobody in are rescued first, and then recovered as any other.

A swap that was killed half way is finished before anybody looks: until then nobody knows which machine is the host.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hikeshi import screen
from hikeshi.copies import rescue
from hikeshi.copies.driver import AskedError
from hikeshi.copies.rescue import Ask, Rescue
from hikeshi.errors import ExitStatus, HikeshiError, HostKeyError, RefusedError
from hikeshi.incident.stages import Stages
from hikeshi.look import Refused
from hikeshi.site import Site

STAGE = "rescue"
# What ssh says where nothing of a host answers: of all hosts at once, it is sooner the way to them.
NO_WAY = ("timed out", "No route to host", "Network is unreachable", "Could not resolve hostname")


@dataclass
class Disks:
    """What one recovery does by way of disks."""

    site: Site
    track: Stages
    ask: Ask
    done: list[Rescue] = field(default_factory=list)
    foreseen: list[str] = field(default_factory=list)  # what would be done (--plan, --check)
    stopped: dict[str, HikeshiError] = field(default_factory=dict)  # hosts that wait: for a permission, for a person

    def finish(self) -> bool:
        """Finish swaps that were killed half way; say whether there were any."""
        hosts = rescue.under_way(self.site)
        for host in hosts:
            screen.say(f"[bold]{screen.line(host)} is between two disks[/bold]: an earlier call was cut off; going on")
        self._rescue(hosts, alone=True)
        return bool(hosts)

    def get_in(self, refused: Sequence[Refused], *, alone: bool) -> bool:
        """Rescue the hosts that let nobody in and can be copied; say whether any of them is another machine now.

        `alone` is true where no host at all was judged.
        """
        hosts = self._by_disk(refused, alone=alone)
        for host in hosts:
            screen.say(f"[bold]nobody gets in to {screen.line(host)}: by way of its disk[/bold]")
        before = len(self.done)
        self._rescue(hosts, alone=alone)
        return len(self.done) > before

    def foresee(self, refused: Sequence[Refused], *, alone: bool) -> None:
        """Note what would be done by way of disks; changes nothing, and asks no cloud."""
        for host in dict.fromkeys([*rescue.under_way(self.site), *self._by_disk(refused, alone=alone)]):
            steps, missing = rescue.foresee(self.site, host)
            self.foreseen.append(f"{host} lets nobody in; by way of its disk: {'; then '.join(steps)}")
            self.foreseen += [f"{host}: refused it would be: {why}" for why in missing]

    def _by_disk(self, refused: Sequence[Refused], *, alone: bool) -> list[str]:
        """Return the hosts whose disk may be what keeps us out. What is wrong on our side no disk mends."""
        data = self.site.data.copying
        shut = [item for item in refused if item.unreachable]
        if alone and len(shut) > 1:
            told = [item.problem.message for item in shut]
            if all("Permission denied" in words for words in told):
                screen.say("[bold]no host takes our key[/bold]: sooner than all of them it is the key that is wrong, "
                           "and their disks stay as they are")  # fmt: skip
                return []
            if all(any(sign in words for sign in NO_WAY) for words in told):
                screen.say("[bold]no host can be reached[/bold]: sooner than all of them it is the way to them that is "
                           "broken, such as this machine's network, and their disks stay as they are")  # fmt: skip
                return []
        known = data.instances if data else {}
        return [item.host for item in shut if item.host in known and not isinstance(item.problem, HostKeyError)]

    def _rescue(self, hosts: Sequence[str], *, alone: bool) -> None:
        """Rescue hosts; what of the others can be mended is mended meanwhile, unless there are none (`alone`)."""
        for host in hosts:
            done = Rescue(self.site.name, host)
            try:
                with self.track.stage(STAGE, host=host):
                    rescue.carry_out(self.site, done, self.track, ask=self.ask, recovery=self.track.number)
            except HikeshiError as problem:
                if alone and not isinstance(problem, AskedError):
                    raise
                screen.say(f"[bold]{screen.line(host)} waits[/bold], and the others are gone on with: "
                           f"{screen.line(f'{problem.message} {problem.fix}', 2000)}")  # fmt: skip
                self.stopped[host] = problem
                continue
            self.done.append(done)

    @property
    def swapped(self) -> list[str]:
        """The hosts that run from their mended disk now."""
        return [item.host for item in self.done if item.swapped]

    @property
    def next_step(self) -> str:
        """What a person must do before a host can be rescued; empty where nobody waits."""
        return "; ".join(f"{host}: {item.message} {item.fix}" for host, item in self.stopped.items())

    @property
    def status(self) -> ExitStatus | None:
        """Exit status that says why a host waits; None where none does, or a person is asked to do it by hand."""
        return next((item.status for item in self.stopped.values() if not isinstance(item, AskedError)), None)

    def as_data(self) -> dict[str, Any]:
        """Return it as plain data: {rescued: [rescue], stopped: {host: why, in a sentence}, foreseen: [sentence]}."""
        return {
            "rescued": [item.as_data() for item in self.done],
            "stopped": {host: item.message for host, item in self.stopped.items()},
            "foreseen": self.foreseen,
        }


def nobody(told: Sequence[str], question: str) -> bool:
    """Refuse: there is nobody who could be asked."""
    raise RefusedError(f"{question} Nobody is here to answer.", "hikeshi recover --yes")
