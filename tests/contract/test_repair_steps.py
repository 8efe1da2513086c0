"""Repair steps: what a rule may ask for is what a role has, declares, carries out and documents."""

import ast
import importlib
import pkgutil
import re
from typing import Any

import pytest

from hikeshi.triage import findings, rules
from tests.contract.broken import RECORDED, broken, healthy
from tests.contract.project import KINDS, ROLE_NAMES, ROLES, ROOT, Role, load

each_role = pytest.mark.parametrize("role", ROLES, ids=ROLE_NAMES)
each_kind = pytest.mark.parametrize("kind", KINDS)
BY_NAME = dict(zip(ROLE_NAMES, ROLES, strict=True))
WITH_SUBJECT = [role.name for role in ROLES if f"__{role.name}_subject" in role.variables]
RULES = sorted(module.name for module in pkgutil.iter_modules(rules.__path__))
EVIDENCE = {**{name: healthy(name) for name in WITH_SUBJECT}, "tests/unit/evidence/web1.json": RECORDED}


@each_role
def test_every_repair_file_is_an_entry_point(role: Role) -> None:
    for path in role.task_files:
        if path.name.startswith("repair-"):
            options = role.entry_points.get(path.stem)
            assert options is not None, (
                f"roles/{role.name}/tasks/{path.name} is no entry point of meta/argument_specs.yml; declare it there, "
                "or give a file that only other task files include a name without 'repair-'"
            )
            assert {"repair_step", "repair_args"} <= options.keys(), (
                f"roles/{role.name}/meta/argument_specs.yml: {path.stem} must have repair_step and repair_args"
            )


@each_role
@each_kind
def test_steps_are_carried_out_and_documented(role: Role, kind: str) -> None:
    path = role.path / "tasks" / f"repair-{kind}.yml"
    steps = role.steps(kind)
    assert bool(steps) == path.is_file(), (
        f"roles/{role.name}: tasks/repair-{kind}.yml and __{role.name}_{kind}_steps in vars/main.yml belong together"
    )
    if not steps:
        return
    carried_out = set(re.findall(r"repair_step == ['\"](\w+)['\"]", path.read_text()))
    assert carried_out == set(steps), f"roles/{role.name}/tasks/{path.name} must carry out {steps}, not {carried_out}"
    declared = role.entry_points[path.stem]["repair_step"]
    place = f"roles/{role.name}/meta/argument_specs.yml, {path.stem}, repair_step"
    if "choices" in declared:
        assert declared["choices"] == steps, f"{place}: the choices must be {steps}"
    for step in steps:
        word = re.compile(rf"\b{step}\b")
        assert "choices" in declared or word.search(declared["description"]), f"{place}: name {step}, or give choices"
        assert word.search(role.readme), f"roles/{role.name}/README.md: document the repair step {step} by its name"


@each_role
def test_restore_steps_exist(role: Role) -> None:
    subject = role.variables.get(f"__{role.name}_subject", {})
    items = [item for key in ("units", "paths") for item in subject.get(key) or [] if isinstance(item, dict)]
    wrong = {item["restore_step"] for item in items if "restore_step" in item} - set(role.steps("disk"))
    assert not wrong, (
        f"roles/{role.name}/vars/main.yml: restore_step names {wrong}, no step of __{role.name}_disk_steps"
    )


def exists(step: findings.Step) -> bool:
    return step.role in BY_NAME and step.step in BY_NAME[step.role].steps(step.kind)


@pytest.mark.parametrize("name", EVIDENCE)
def test_every_remedy_is_a_step_of_its_role(name: str) -> None:
    asked = {}
    for label, evidence in broken(EVIDENCE[name]):
        found = findings.judge({evidence["host"]: evidence})
        asked.update({step.key: (step, label, finding.rule) for finding in found for step in finding.remedy})
    assert asked or not EVIDENCE[name]["units"], f"no rule asks for any step, whatever of {name} is broken"
    for step, label, rule in asked.values():
        assert exists(step), (
            f"{label}: rule {rule} asks for the {step.kind} step '{step.words}'; roles/{step.role} does not have it: "
            f"add it to __{step.role}_{step.kind}_steps and tasks/repair-{step.kind}.yml, or change the rule"
        )


@pytest.mark.parametrize("name", EVIDENCE)
def test_healthy_evidence_of_a_role_has_no_finding(name: str) -> None:
    evidence = EVIDENCE[name]
    found = findings.judge({evidence["host"]: evidence})
    assert not found, f"{name} is healthy, but scripts/hikeshi/triage/rules find {[item.id for item in found]}"


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_was_heard(rule: str) -> None:
    find = importlib.import_module(f"{rules.__name__}.{rule}").find
    heard = (list(find(evidence)) for whole in EVIDENCE.values() for _, evidence in broken(whole))
    assert any(heard), (
        f"nothing broken in tests/contract/broken.py makes scripts/hikeshi/triage/rules/{rule}.py speak: add what it "
        "looks for there, so that its remedies are compared with the roles"
    )


def literal_steps(rule: str) -> list[dict[str, Any]]:
    """Return role, step and kind of every `Step(…)` in a rule's source, as far as they are written out."""
    source = (ROOT / "scripts" / "hikeshi" / "triage" / "rules" / f"{rule}.py").read_text()
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    found = []
    for call in calls:
        if isinstance(call.func, ast.Name) and call.func.id == "Step":
            given = dict(zip(("host", "role", "step", "kind"), call.args, strict=False))
            given |= {word.arg: word.value for word in call.keywords if word.arg}
            found.append({key: node.value for key, node in given.items() if isinstance(node, ast.Constant)})
    return found


@pytest.mark.parametrize("rule", RULES)
def test_steps_written_in_a_rule_exist(rule: str) -> None:
    for given in literal_steps(rule):
        owners = [BY_NAME[given["role"]]] if given.get("role") in BY_NAME else ROLES if "role" not in given else []
        kinds = [given["kind"]] if "kind" in given else KINDS
        known = {step for role in owners for kind in kinds for step in role.steps(kind)}
        assert "step" not in given or given["step"] in known, (
            f"scripts/hikeshi/triage/rules/{rule}.py asks for {given}; no role has this step in its vars/main.yml"
        )


@pytest.mark.parametrize("name", WITH_SUBJECT)
def test_the_collector_is_told_what_the_role_owns(name: str) -> None:
    playbook = "playbooks/collect-evidence.yml"
    play = load(ROOT / playbook)[0]
    assert f"__{name}_subject" in play["vars"]["evidence_subjects"], f"{playbook}: add __{name}_subject"
    imported = [task.get("ansible.builtin.import_role", {}).get("name") for task in play["tasks"]]
    assert name in imported, f"{playbook}: import {name} with tasks_from: subject, else its variables are not loaded"


# A payment gateway belongs to somebody else; only the practice site has one of its own.
@pytest.mark.parametrize("name", sorted(set(WITH_SUBJECT) - {"payment_gateway"}))
def test_hardening_knows_what_must_outlive_a_restart(name: str) -> None:
    playbook = "playbooks/harden-site.yml"
    used = set()
    for play in load(ROOT / playbook):
        used |= {item["role"] for item in play.get("roles", [])}
        used |= {task["ansible.builtin.import_role"]["name"] for task in play.get("tasks", [])}
    assert name in used, f"{playbook}: {name} owns units or files that a restart must leave as they are; let it join"
