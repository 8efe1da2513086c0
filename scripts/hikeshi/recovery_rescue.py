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
from hikeshi.errors import HostKeyError, RefusedError
from hikeshi.incident.stages import Stages
from hikeshi.look import Refused
from hikeshi.site import Site

STAGE = "rescue"


@dataclass
class Disks:
    """What one recovery does by way of disks."""

    site: Site
    track: Stages
    ask: Ask
    done: list[Rescue] = field(default_factory=list)
    foreseen: list[str] = field(default_factory=list)  # what would be done (--plan, --check)
    asked: list[AskedError] = field(default_factory=list)  # what a person must do at a cloud that no driver knows

    def finish(self) -> bool:
        """Finish swaps that were killed half way; say whether there were any."""
        hosts = rescue.under_way(self.site)
        for host in hosts:
            screen.say(f"[bold]{screen.line(host)} is between two disks[/bold]: an earlier call was cut off; going on")
        self._rescue(hosts)
        return bool(hosts)

    def get_in(self, refused: Sequence[Refused], *, alone: bool) -> bool:
        """Rescue the hosts that let nobody in and can be copied; say whether any of them is another machine now.

        `alone` is true where no host at all was judged.
        """
        hosts = self._by_disk(refused, alone=alone)
        for host in hosts:
            screen.say(f"[bold]nobody gets in to {screen.line(host)}: by way of its disk[/bold]")
        before = len(self.done)
        self._rescue(hosts)
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
        if alone and len(shut) > 1 and all("Permission denied" in item.problem.message for item in shut):
            screen.say("[bold]no host takes our key[/bold]: sooner than all of them it is the key that is wrong, and "
                       "their disks stay as they are")  # fmt: skip
            return []
        known = data.instances if data else {}
        return [item.host for item in shut if item.host in known and not isinstance(item.problem, HostKeyError)]

    def _rescue(self, hosts: Sequence[str]) -> None:
        for host in hosts:
            done = Rescue(self.site.name, host)
            try:
                with self.track.stage(STAGE, host=host):
                    rescue.carry_out(self.site, done, self.track, ask=self.ask, recovery=self.track.number)
            except AskedError as question:  # nobody is to wait for that: what can be mended is mended meanwhile
                screen.say(f"{screen.line(host)} waits for a person: {screen.line(question.message, 2000)}")
                self.asked.append(question)
                continue
            self.done.append(done)

    @property
    def swapped(self) -> list[str]:
        """The hosts that run from their mended disk now."""
        return [item.host for item in self.done if item.swapped]

    @property
    def next_step(self) -> str:
        """What a person must do before a host can be rescued; empty where nobody waits."""
        return "; ".join(f"{item.message} {item.fix}" for item in self.asked)

    def as_data(self) -> dict[str, Any]:
        """Return it as plain data: {rescued: [rescue], foreseen: [sentence]}."""
        return {"rescued": [item.as_data() for item in self.done], "foreseen": self.foreseen}


def nobody(told: Sequence[str], question: str) -> bool:
    """Refuse: there is nobody who could be asked."""
    raise RefusedError(f"{question} Nobody is here to answer.", "hikeshi recover --yes")
