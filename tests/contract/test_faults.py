"""The drill's faults are data: each can be injected, is seen by a probe, and is about something a role owns."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader

from hikeshi.drill import faults
from hikeshi.triage import restore
from hikeshi.triage.rules.not_listening import place_of
from tests.contract.project import ROLES, ROOT, load
from tests.templates.rendering import value

FILE = "inventories/drill/faults.yml"
DRILL = ROOT / "inventories" / "drill"
CATALOGUE = faults.catalogue()
SEEDS = range(50)
# Operation → what else it needs; roles/fault_injection/library/inject_fault.py.
OPERATIONS = {
    "remove": set(), "link": {"to"}, "chmod": {"mode"}, "write": {"text"}, "append": {"text"}, "move": {"to"},
    "cut": {"match"}, "replace": {"match", "with"}, "kill": set(), "start": set(), "sql": set(), "hold": {"unit"},
    "fill": {"leave"}, "saved": {"rule"}, "iptables": {"family"}, "shadow": {"field", "value"}, "rekey": set(),
}  # fmt: skip
WITHOUT_PATH = {"kill", "start", "sql", "iptables", "shadow"}
# Of no role: every host is asked for its firewall.
FIREWALL = {f"firewall:{name}" for name in ("icmpv6", "/etc/iptables/rules.v4", "/etc/iptables/rules.v6")}

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
            paths = [] if kind in WITHOUT_PATH else [operation[kind]]
            paths += [operation["to"]] if kind == "move" else []  # a link may lead to a name beside it
            assert all(re.fullmatch(r"(/[\w.+@:\\-]+)+|/", path) for path in paths), f"{FILE}, {name}: odd path {paths}"
            assert kind != "chmod" or re.fullmatch("[0-7]{4}", operation["mode"]), f"{FILE}, {name}: {operation}"
            unit = operation[kind] if kind in ("kill", "start") else operation.get("unit", "any.service")
            assert re.fullmatch(r"[\w@:.-]+\.service", unit), f"{FILE}, {name}: {unit} is no service"
            assert re.compile(operation.get("match", "")), f"{FILE}, {name}: {operation}"
            assert operation.get("family", "ipv4") in ("ipv4", "ipv6"), f"{FILE}, {name}: {operation}"
            rule = operation.get("rule", operation.get("iptables", "-A"))
            assert re.match("-[AIN]", rule), f"{FILE}, {name}: {rule} is no rule of iptables"


def test_operations_are_known_to_the_injector() -> None:
    source = (ROOT / "roles" / "fault_injection" / "library" / "inject_fault.py").read_text()
    documented = re.findall(r"^    (\w+): (?:PATH|UNIT|STATEMENT|WORDS|USER)", source, re.MULTILINE)
    assert set(documented) == set(OPERATIONS), "bring OPERATIONS in tests/contract/test_faults.py up to date"


@each_fault
def test_probe_and_host_exist(name: str) -> None:
    fault = CATALOGUE[name]
    probes = [probe["id"] for probe in load(DRILL / "probes.yml")["probes"]]
    assert fault.probe in ("", *probes), f"{FILE}, {name}: probe {fault.probe} is none of probes.yml: {probes}"
    hosts = load(DRILL / "containers.yml")["instances"]
    assert fault.host in hosts, f"{FILE}, {name}: host {fault.host} is none of containers.yml: {list(hosts)}"


def practice_variables() -> dict[str, Any]:
    """Return the variables of the practice site, of all groups together; what `drill up` would add is made up."""
    files = sorted(DRILL.glob("group_vars/*/*.yml"))
    made_up = {name: "made-up" for path in files for name in re.findall(r"\bsecret_\w+", path.read_text())}
    host = {"practice_ipv4": "192.0.2.1", "practice_ipv6": "2001:db8::1"}
    hosts = dict.fromkeys(load(DRILL / "containers.yml")["instances"], host)
    found = {"playbook_dir": str(ROOT / "playbooks"), "site_private": "/srv/site", "hostvars": hosts, **host, **made_up}
    for path in files:
        found |= DataLoader().load_from_file(str(path), trusted_as_template=True)
    return found


def owned() -> set[str]:
    """Return every subject that a finding on something a role owns can have."""
    found = set(FIREWALL)
    variables = practice_variables()
    for role in ROLES:
        if f"__{role.name}_subject" in role.variables:
            subject = value(role.name, f"__{role.name}_subject", **variables)
            found |= {f"account:{name}" for name in subject.get("accounts") or []}
            found |= {f"path:/home/{name}" for name in subject.get("accounts") or []}
            found |= {f"lock:{item['path']}" for item in subject.get("locks") or []}
            found |= {f"name:{item['name']}" for item in subject.get("names") or []}
            found |= {f"reach:{item['name']}:{item['port']}" for item in subject.get("reaches") or []}
            found |= {f"unit:{item['name']}" for item in subject["units"]}
            found |= {f"path:{item['path']}" for item in subject["paths"]}
            found |= {f"mount:{item['path']}" for item in subject["mounts"]}
            found |= {f"config:{subject['config_test'].split()[0]}"} if subject["config_test"] else set()
            found |= {f"disk:{item['directory']}" for item in subject.get("logs") or []}
            found |= {f"answer:{item['url']}" for item in subject.get("answers") or []}
            found |= {f"listen:{place_of(item)}" for item in subject.get("listens") or []}
            if subject.get("login"):
                found.add(f"login:{subject['login']['environment']}")
            if subject.get("database"):
                found.add(f"connections:{subject['units'][0]['name']}")
                # Which tables it has is the shop's business: the database is enough.
                found |= {f"table:{item['name']}" for item in variables["database_databases"]}
    return found


@pytest.mark.parametrize("name", [name for name, fault in CATALOGUE.items() if fault.unnamed])
def test_what_no_rule_names_the_baseline_can_put_back(name: str) -> None:
    for fault in chosen(name):
        touched = {path for operation in fault.operations for path in operation.values() if path.startswith("/")}
        assert fault.subjects == [f"file:{path}" for path in touched], (
            f"{FILE}, {name}: an unnamed fault is one file, its subject file:PATH; it touches {touched}"
        )
        assert all(path.startswith("/etc/") for path in touched), f"{FILE}, {name}: no baseline has {touched}"
        assert not any(path.startswith(restore.LOGIN) for path in touched), f"{FILE}, {name}: is never put back"


@pytest.mark.parametrize("name", [name for name, fault in CATALOGUE.items() if fault.mendable and not fault.unnamed])
def test_subjects_can_be_found_by_a_rule(name: str) -> None:
    known = owned()
    for fault in chosen(name):
        for subject in fault.subjects:
            assert re.match(r"[a-z]+:\S", subject), f"{FILE}, {name}: {subject} must look like unit:NAME or path:PATH"
            whole = subject.split(".")[0] if subject.startswith("table:") else subject
            if CATALOGUE[name].keeps_out and is_of_the_way_in(subject, fault):
                continue
            assert whole in known, (
                f"{FILE}, {name}: no role's __<role>_subject has {subject}, so no evidence is collected about it"
            )


def is_of_the_way_in(subject: str, fault: faults.Fault) -> bool:
    """Say whether a subject is a file that lets people in or not, or a unit that the fault itself has a boot start."""
    kind, _, what = subject.partition(":")
    started = {operation["link"].rpartition("/")[2] for operation in fault.operations if "link" in operation}
    within = any(what == place or what.startswith(f"{place}/") for place in restore.LOGIN)
    return (kind == "access" and within) or (kind == "unit" and what in started)


@pytest.mark.parametrize("path", sorted((DRILL / "scenarios").glob("*.yml")), ids=lambda path: path.stem)
def test_scenarios_name_known_faults(path: Path) -> None:
    scenario = load(path)
    unknown = [name for name in scenario["faults"] if name not in CATALOGUE]
    assert not unknown, f"{path.name}: {unknown} is not in {FILE}"
    assert scenario["faults"], f"{path.name}: a scenario without faults is no drill"
    assert faults.compatible(scenario["faults"]), f"{path.name}: some of these faults exclude others, see {FILE}"
    alone = [name for name in scenario["faults"] if CATALOGUE[name].unnamed or not CATALOGUE[name].mendable]
    assert not alone, f"{path.name}: {alone} is unnamed or cannot be mended, and is made alone"
    hosts = load(DRILL / "containers.yml")["instances"]
    assert scenario.get("reboot") in (None, *hosts), f"{path.name}: reboot names no host of containers.yml"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"probe": ""}, "needs a probe"),
        ({"subjects": ["unit:nginx.service"]}, "are file:PATH"),
        ({"unnamed": False}, "are file:PATH"),
        ({"subjects": []}, "has subjects"),
        ({"mendable": False}, "has none"),
    ],
)
def test_faults_are_about_what_finds_them(wrong: dict[str, Any], words: str) -> None:
    fine = {"title": "T", "host": "web1", "probe": "top", "subjects": ["file:/etc/x"], "unnamed": True, "variants": []}
    assert faults.FaultData.model_validate(fine).unnamed
    with pytest.raises(ValueError, match=words):
        faults.FaultData.model_validate({**fine, **wrong})


def test_nobody_gets_in_to_make_what_comes_after_the_restart() -> None:
    assert faults.compatible(["sshd-refuses", "nologin-left", "pam-module-missing"])
    assert faults.compatible(["sshd-refuses", "egress-blocked"])
    assert not faults.compatible(["boot-waits", "egress-blocked"])


@each_fault
def test_excluded_faults_exist(name: str) -> None:
    unknown = [other for other in CATALOGUE[name].excludes if other not in CATALOGUE]
    assert not unknown, f"{FILE}, {name}: excludes {unknown}, which is no fault"
