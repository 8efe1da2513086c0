"""The drill's faults are data: each can be injected, is seen by a probe, and is about something a role owns."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hikeshi.drill import faults
from tests.contract.project import ROLES, ROOT, load
from tests.templates.rendering import value

FILE = "inventories/drill/faults.yml"
DRILL = ROOT / "inventories" / "drill"
CATALOGUE = faults.catalogue()
SEEDS = range(50)
# Operation → what else it needs; roles/fault_injection/library/inject_fault.py.
OPERATIONS = {"remove": set(), "link": {"to"}, "chmod": {"mode"}, "write": {"text"}, "append": {"text"}, "move": {"to"}}

each_fault = pytest.mark.parametrize("name", CATALOGUE)


@pytest.fixture(autouse=True)
def read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty seeds of every fault need not read the file each time."""
    monkeypatch.setattr(faults, "catalogue", lambda: CATALOGUE)


def chosen(name: str) -> Iterator[faults.Fault]:
    return (faults.choose(name, seed) for seed in SEEDS)


@each_fault
def test_the_seed_decides(name: str) -> None:
    assert list(chosen(name)) == list(chosen(name)), (
        "scripts/hikeshi/drill/faults.py: the same seed must choose the same"
    )
    data = CATALOGUE[name]
    possible = len(data.variants) * max([len(values) for values in data.choose.values()], default=1)
    different = {str((fault.subjects, fault.operations)) for fault in chosen(name)}
    assert len(different) > 1 or possible == 1, f"{FILE}, {name}: fifty seeds choose the same; the seed has no effect"


@each_fault
def test_no_placeholder_is_left(name: str) -> None:
    for fault in chosen(name):
        texts = [*fault.subjects, *(text for operation in fault.operations for text in operation.values())]
        left = [text for text in texts if re.search(r"\{\w*\}|\{\{|\}\}", text)]
        assert not left, f"{FILE}, {name}, seed {fault.seed}: {left} still holds braces that are not nginx's"


@each_fault
def test_everything_to_choose_is_used(name: str) -> None:
    written = str([CATALOGUE[name].subjects, CATALOGUE[name].variants])
    unused = [key for key in CATALOGUE[name].choose if f"{{{key}}}" not in written]
    assert not unused, f"{FILE}, {name}: nothing uses {unused} of choose"


@each_fault
def test_operations_are_those_of_the_injector(name: str) -> None:
    for fault in chosen(name):
        assert fault.operations, f"{FILE}, {name}: a variant without operations breaks nothing"
        for operation in fault.operations:
            kinds = operation.keys() & OPERATIONS.keys()
            assert len(kinds) == 1, f"{FILE}, {name}: {operation} must have exactly one of {sorted(OPERATIONS)}"
            (kind,) = kinds
            rest = operation.keys() - kinds
            assert rest == OPERATIONS[kind], f"{FILE}, {name}: {kind} needs {OPERATIONS[kind]}, {operation} has {rest}"
            paths = [operation[kind], operation.get("to", "/")]
            assert all(re.fullmatch(r"(/[\w.+@:\\-]+)+|/", path) for path in paths), f"{FILE}, {name}: odd path {paths}"
            assert kind != "chmod" or re.fullmatch("[0-7]{4}", operation["mode"]), f"{FILE}, {name}: {operation}"


def test_operations_are_known_to_the_injector() -> None:
    source = (ROOT / "roles" / "fault_injection" / "library" / "inject_fault.py").read_text()
    documented = re.findall(r"^    (\w+): PATH", source, re.MULTILINE)
    assert set(documented) == set(OPERATIONS), "bring OPERATIONS in tests/contract/test_faults.py up to date"


@each_fault
def test_probe_and_host_exist(name: str) -> None:
    fault = CATALOGUE[name]
    probes = [probe["id"] for probe in load(DRILL / "probes.yml")["probes"]]
    assert fault.probe in probes, f"{FILE}, {name}: probe {fault.probe} is none of probes.yml: {probes}"
    hosts = load(DRILL / "containers.yml")["instances"]
    assert fault.host in hosts, f"{FILE}, {name}: host {fault.host} is none of containers.yml: {list(hosts)}"


def owned() -> set[str]:
    """Return every subject that a finding on something a role owns can have."""
    found: set[str] = set()
    for role in ROLES:
        if f"__{role.name}_subject" in role.variables:
            given: dict[str, Any] = {}  # names of jobs are the practice site's
            for path in DRILL.glob(f"group_vars/*/{role.name}.yml"):
                given |= {name: item for name, item in load(path).items() if name.endswith("_jobs")}
            subject = value(role.name, f"__{role.name}_subject", **given)
            found |= {f"lock:{item['path']}" for item in subject.get("locks") or []}
            found |= {f"unit:{item['name']}" for item in subject["units"]}
            found |= {f"path:{item['path']}" for item in subject["paths"]}
            found |= {f"mount:{item['path']}" for item in subject["mounts"]}
            found |= {f"config:{subject['config_test'].split()[0]}"} if subject["config_test"] else set()
    return found


@each_fault
def test_subjects_can_be_found_by_a_rule(name: str) -> None:
    known = owned()
    for fault in chosen(name):
        assert fault.subjects, f"{FILE}, {name}: without subjects the score can never join it with a repair"
        for subject in fault.subjects:
            assert re.match(r"(unit|path|config|mount|lock):\S", subject), (
                f"{FILE}, {name}: subject {subject} must look like unit:NAME, or path:, config:, mount:, lock:PATH"
            )
            assert subject in known, (
                f"{FILE}, {name}: no role's __<role>_subject has {subject}, so no evidence is collected about it"
            )


@pytest.mark.parametrize("path", sorted((DRILL / "scenarios").glob("*.yml")), ids=lambda path: path.stem)
def test_scenarios_name_known_faults(path: Path) -> None:
    scenario = load(path)
    unknown = [name for name in scenario["faults"] if name not in CATALOGUE]
    assert not unknown, f"{path.name}: {unknown} is not in {FILE}"
    assert scenario["faults"], f"{path.name}: a scenario without faults is no drill"
    hosts = load(DRILL / "containers.yml")["instances"]
    assert scenario.get("reboot") in (None, *hosts), f"{path.name}: reboot names no host of containers.yml"
