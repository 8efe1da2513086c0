"""The drill's faults: data in `inventories/drill/faults.yml`, parameters chosen by a seed."""

import json
import random
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hikeshi import runner, screen
from hikeshi.drill import containers
from hikeshi.errors import HikeshiError, MisconfiguredError, UnreachableError, UsageError
from hikeshi.files import write_private
from hikeshi.site import Site, practice_folder, read_yaml


class FaultData(BaseModel):
    """One entry of `faults.yml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    title: str
    row: str = Field(default="", pattern="^([A-Z][1-9][0-9]?)?$")  # its number in the catalogue of faults
    host: str
    probe: str = ""  # that turns red; none where no customer notices
    subjects: list[str]
    after_reboot: bool = False  # a restart would mend it, or it need not wait for one: it comes after the scenario's
    excludes: list[str] = []  # faults beside which this one cannot be made
    small_disk: bool = False  # it fills a disk: only one of an instance's `small_disks`
    unnamed: bool = False  # no rule knows it: it is mended through the baseline
    keeps_out: bool = False  # nobody gets in by ssh any more: it is made last, and mended by way of a copied disk
    mendable: bool = True  # false of what only a backup could bring back: it must be reported, and nothing made worse
    choose: dict[str, list[str]] = {}
    variants: list[list[dict[str, str]]]

    @model_validator(mode="after")
    def _is_about_what_finds_it(self) -> Self:
        if self.unnamed and not self.probe:
            raise ValueError("an unnamed fault needs a probe: what nobody suffers from is not put back")
        if self.mendable == (not self.subjects):
            raise ValueError("a fault has subjects, by which its repair is known; one that nothing can mend has none")
        if any(subject.startswith("file:/") != self.unnamed for subject in self.subjects):
            raise ValueError("subjects of an unnamed fault, and of no other, are file:PATH: the baseline puts it back")
        return self


@dataclass(frozen=True)
class Fault:
    """A fault with its parameters chosen: what will be done to which host, and what a finding on it is about."""

    name: str
    title: str
    host: str
    probe: str
    seed: int
    subjects: list[str]
    after_reboot: bool
    operations: list[dict[str, str]]
    unnamed: bool = False
    keeps_out: bool = False


def catalogue() -> dict[str, FaultData]:
    """Load every fault the drill knows."""
    path = containers.PRACTICE / "faults.yml"
    try:
        return {name: FaultData.model_validate(data) for name, data in read_yaml(path)["faults"].items()}
    except (ValidationError, AttributeError, KeyError, TypeError) as error:
        raise MisconfiguredError(
            f"inventories/drill/faults.yml is not valid: {error}", "mend inventories/drill/faults.yml"
        ) from error


def choose(name: str, seed: int) -> Fault:
    """Choose a fault's parameters by seed: the same seed gives the same fault, everywhere."""
    known = catalogue()
    if name not in known:
        raise UsageError(f"unknown fault '{name}'; allowed: {', '.join(known)}.", "hikeshi drill list")
    data = known[name]
    chance = random.Random(f"{seed}:{name}")
    chosen = {key: chance.choice(values) for key, values in data.choose.items()}
    variant = chance.choice(data.variants)
    return Fault(
        name=name,
        title=data.title,
        host=data.host,
        probe=data.probe,
        seed=seed,
        subjects=[subject.format(**chosen) for subject in data.subjects],
        after_reboot=data.after_reboot,
        operations=[{key: value.format(**chosen) for key, value in operation.items()} for operation in variant],
        unnamed=data.unnamed,
        keeps_out=data.keeps_out,
    )


def compatible(names: Collection[str]) -> bool:
    """Say whether these faults can be made side by side."""
    known = {name: catalogue()[name] for name in names}
    # Nobody gets in after the restart to make what comes then.
    shut = {data.host for data in known.values() if data.keeps_out and not data.after_reboot}
    late = {data.host for data in known.values() if data.after_reboot}
    return not shut & late and not any(set(data.excludes) & known.keys() for data in known.values())


def choose_all(names: Sequence[str], seed: int) -> list[Fault]:
    """Choose the parameters of several faults; raise when they cannot be made side by side."""
    chosen = [choose(name, seed) for name in names]
    if not compatible(names):
        pairs = [f"{name} and {other}" for name in names for other in catalogue()[name].excludes if other in names]
        pairs = pairs or ["after one that keeps us out, none can be made that comes after the restart"]
        raise UsageError(f"these faults cannot be made side by side: {', '.join(pairs)}.", "leave one of them out")
    return chosen


def inject(site: Site, faults: list[Fault]) -> None:
    """Break the practice site, and keep the answer sheet where recovery does not look."""
    if not faults:
        return
    operations: dict[str, list[dict[str, str]]] = {}
    # What dies dies last: another fault may need it alive. After that only the way in is shut, by the same login.
    for fault in sorted(faults, key=lambda fault: (fault.keeps_out, any("kill" in item for item in fault.operations))):
        operations.setdefault(fault.host, []).extend(fault.operations)
    with screen.run_progress(f"breaking: {len(faults)} faults") as progress:
        result = runner.run(
            site, "inject-fault.yml", verb="break", extra={"inject_fault_operations": operations}, listen=progress
        )
    if not result.ok:
        words = result.failures[0].message if result.failures else result.output[-400:]
        if result.unreachable:
            raise UnreachableError(
                f"the faults were not injected, ssh says: {words}", "hikeshi drill down; hikeshi drill up"
            )
        # Most often the site is broken already; `up` would leave a standing site as it is.
        raise HikeshiError(
            f"the faults were not injected: {words}", "hikeshi recover, or hikeshi drill down; hikeshi drill up"
        )
    write_private(_answers(), json.dumps([asdict(fault) for fault in [*injected(), *faults]], indent=2))


def injected() -> list[Fault]:
    """Return the faults injected since the site was last whole."""
    try:
        raw: list[dict[str, Any]] = json.loads(_answers().read_text())
    except (FileNotFoundError, ValueError):
        return []
    return [Fault(**item) for item in raw]


def forget() -> None:
    """Forget the injected faults: the site is whole again, or gone."""
    _answers().unlink(missing_ok=True)


def _answers() -> Path:
    return practice_folder() / "drill" / "faults.json"
