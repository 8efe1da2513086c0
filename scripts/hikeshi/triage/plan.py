"""Findings → steps in the order in which they unblock each other. Pure and deterministic."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hikeshi.triage.findings import Evidence, Finding, Step


@dataclass(frozen=True)
class Planned:
    """One step of a plan and the findings it should make vanish."""

    step: Step
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Plan:
    """Disk steps first, then live ones, then the late ones; a plan with no steps mends nothing."""

    steps: tuple[Planned, ...]

    def extra_variables(self) -> dict[str, object]:
        """Return the plan as variables of playbooks/recover-site.yml: kind → host → list of steps.

        Arguments are marked as text: they name what a host has, and Ansible takes a plain string in extra variables for
        a template, which runs on the controller.
        """
        wanted: dict[str, dict[str, list[dict[str, object]]]] = {"disk": {}, "live": {}, "late": {}}
        for number, planned in enumerate(self.steps):
            step = planned.step
            args = {name: {"__ansible_unsafe": value} for name, value in step.args.items()}
            data: dict[str, object] = {"number": number, "role": step.role, "step": step.step, "args": args}
            wanted["late" if step.late else step.kind].setdefault(step.host, []).append(data)
        return {f"recover_site_{kind}_steps": steps for kind, steps in wanted.items()}


def make(findings: Sequence[Finding], evidence: Mapping[str, Evidence]) -> Plan:
    """Order the remedies of all findings, each step once; none for a host whose evidence is not there to be judged.

    Disk before live, and late ones last. Within each: hosts by name; a role's own steps (which put a file back) before
    the general ones (which enable, start or set modes on it); general ones in the order in which the site is built,
    because a later role's service needs the earlier one's; paths from the top of the tree down. What no unit is needed
    for comes first: nginx asks for names while its configuration is tested.
    """
    causes: dict[object, list[Finding]] = {}
    steps: dict[object, Step] = {}
    for finding in findings:
        for step in (step for step in finding.remedy if step.host in evidence):
            steps.setdefault(step.key, step)
            causes.setdefault(step.key, []).append(finding)

    def order(step: Step) -> tuple[object, ...]:
        subjects = evidence[step.host]["subjects"]
        units = [unit["name"] for subject in subjects for unit in subject.get("units") or []]
        roles = [subject["role"] for subject in subjects]
        unit, path = step.args.get("unit", ""), step.args.get("path", "")
        general = step.role == "host_base" and ("unit" in step.args or "path" in step.args)
        return (
            step.kind != "disk",
            step.late,
            step.host,
            # A live step of a role's own (reload) comes where its unit would: after the services it needs.
            general if step.kind == "disk" else False,
            units.index(unit) if unit in units else len(units) if general else _last_unit(subjects, units, step.role),
            roles.index(step.role) if step.role in roles else len(roles),
            path.count("/"),
            step.key,
        )

    ordered = sorted(steps.values(), key=order)
    return Plan(tuple(Planned(step, tuple(causes[step.key])) for step in ordered))


def _last_unit(subjects: Sequence[Mapping[str, object]], units: list[str], role: str) -> int:
    for subject in subjects:
        if subject["role"] == role and isinstance(subject.get("units"), list):
            own = [unit["name"] for unit in subject["units"]]  # type: ignore[attr-defined]
            return max((units.index(name) for name in own), default=-1)
    return len(units)
