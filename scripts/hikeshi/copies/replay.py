"""What passed on a copy, taken once more on the host itself: only with the same roles, playbooks and variables.

A rehearsal says what these steps do; it says nothing of steps that were changed since.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from hikeshi import lock, look, recover
from hikeshi.copies import digests, record
from hikeshi.copies.record import Copy, Repaired
from hikeshi.errors import RefusedError, UnreachableError
from hikeshi.incident import permissions, stages, store
from hikeshi.repair import Mended
from hikeshi.site import Site
from hikeshi.triage import findings as triage
from hikeshi.triage.findings import Finding, Step
from hikeshi.triage.plan import Plan, Planned

Ask = Callable[[Sequence[str], str], bool]


@dataclass
class Replay:
    """What a replay did, and what is wrong with the host after it."""

    site: str
    host: str
    copy: str
    steps: list[Step] = field(default_factory=list)
    mended: list[Mended] = field(default_factory=list)
    left: list[Finding] = field(default_factory=list)

    @property
    def failed(self) -> list[Mended]:
        """The steps that did not go through."""
        return [item for item in self.mended if item.failed]

    def as_data(self) -> dict[str, Any]:
        """Return everything for `--json`.

        site, host, copy: id of the copy on which it passed; steps: [step], as in a plan; mended: as recover has its
        steps, empty with --check; left: findings after it, as triage has them.
        """
        return {
            "site": self.site,
            "host": self.host,
            "copy": self.copy,
            "steps": [asdict(step) for step in self.steps],
            "mended": [item.as_data() for item in self.mended],
            "left": [look.finding_data(item) for item in self.left],
        }


def replay(site: Site, host: str, *, ask: Ask, check: bool = False) -> Replay:
    """Take the steps that passed on a copy of a host on the host itself; refuse when they are not the same any more."""
    with lock.held(site, "replay"):
        copy, passed = _passed(site, host)
        _refuse_others(site, copy, passed)
        done = Replay(site.name, host, copy.id, [Step(**item) for item in passed.steps])
        with stages.rescue(store.journal(site), host, check=check) as (track, action):
            action.data.update(replay=True, copy=copy.id)
            with track.stage("look", host=host):
                _look(site, host)  # a host that does not let us in is not mended so
            told = [f"{step.kind} · {step.words}" for step in done.steps]
            if not check and not ask(told, f"Take these steps on {host} itself?"):
                raise RefusedError("nothing was changed: the replay was not approved.", f"hikeshi rescue {host} --yes")
            if check:
                return done
            permissions.require_for(site, done.steps)
            plan = Plan(tuple(Planned(step, ()) for step in done.steps))
            with track.stage("mend", host=host, steps=[step.words for step in done.steps]) as stage:
                done.mended = recover.mend(site, plan, check=False)
                if done.failed:
                    stage.failed("; ".join(item.planned.step.words for item in done.failed)[:2000])
            with track.stage("look", host=host):
                done.left = _look(site, host)
    return done


def _passed(site: Site, host: str) -> tuple[Copy, Repaired]:
    """Return the newest copy of a host whose mended disk was rehearsed and passed."""
    for copy in reversed(record.read_all(site, host)):
        if copy.repaired and copy.repaired.passed and copy.repaired.steps:
            return copy, copy.repaired
    raise RefusedError(
        f"nothing passed on a copy of {host} that could be replayed.", f"hikeshi rescue {host} --site {site.name}"
    )


def _refuse_others(site: Site, copy: Copy, passed: Repaired) -> None:
    now = digests.of(site)
    other = [name for name in now if passed.digests.get(name) != now[name]]
    if other:
        then, today = (
            ", ".join(f"{name} {known.get(name, 'none')[:12]}" for name in other) for known in (passed.digests, now)
        )
        raise RefusedError(
            f"what passed on copy {copy.id} is not replayed: {' and '.join(other)} were changed since; it passed with "
            f"{then}, now there are {today}.",
            f"hikeshi rescue {copy.host} --site {site.name}, which rehearses them anew; or take the change back",
        )


def _look(site: Site, host: str) -> list[Finding]:
    seen = look.evidence(site)
    for refused in seen.refused:
        if refused.host == host:
            raise UnreachableError(refused.problem.message, f"hikeshi rescue {host} --site {site.name}, by its disk")
    return [item for item in seen.not_on_purpose(triage.judge(seen.hosts)) if item.host == host]
