"""Carry out a plan in one run of Ansible, on hosts or on the disk of a copy; say what became of each step."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from hikeshi import baseline, runner, screen
from hikeshi.runner import Event, RunResult
from hikeshi.site import Site
from hikeshi.triage.plan import Plan, Planned

ROUNDS = 4  # a repair can bring to light what it hid: a mounted volume its own wrong modes, a started service the next


@dataclass(frozen=True)
class Mended:
    """One step that was carried out: how long it took, whether it changed anything, which difference it put back."""

    planned: Planned
    changed: bool
    failed: bool
    seconds: float
    restored: str = ""

    def as_data(self) -> dict[str, Any]:
        """Return it as plain data: the step's own, findings (ids), subjects, changed, failed, seconds."""
        return {
            **asdict(self.planned.step),
            "findings": [finding.id for finding in self.planned.findings],
            "subjects": sorted({finding.subject for finding in self.planned.findings} | {self.restored} - {""}),
            "changed": self.changed,
            "failed": self.failed,
            "seconds": round(self.seconds, 2),
        }


def take(
    site: Site, plan: Plan, playbook: str, *, verb: str, extra: Mapping[str, Any] | None = None, limit: str = "",
    check: bool = False,
) -> tuple[list[Mended], RunResult]:  # fmt: skip
    """Take the steps of a plan; return what each did, and how the run ended."""
    # One play takes a host's disk steps, then its live steps: they say which step of the plan begins.
    texts = dict.fromkeys(("file_restore_texts", "remote_access_texts"), str(baseline.folder(site) / "texts"))
    variables = {**plan.extra_variables(), **texts, **(extra or {})}
    windows: dict[int, list[Event]] = {}
    current: dict[str, int] = {}

    with screen.run_progress(f"mending: {len(plan.steps)} steps") as progress:

        def listen(event: Event) -> None:
            # A number is of the plan, or a host that says so means nothing by it.
            if event.step is not None and current.get(event.host) != event.step and event.step < len(plan.steps):
                number = current[event.host] = event.step
                screen.step_line(number + 1, len(plan.steps), plan.steps[number].step)
            if event.host in current:
                windows.setdefault(current[event.host], []).append(event)
            progress(event)

        result = runner.run(site, playbook, verb=verb, extra=variables, limit=limit, check=check, listen=listen)
    done: list[Mended] = []
    for number, planned in enumerate(plan.steps):
        events = windows.get(number, [])
        done.append(
            Mended(
                planned,
                changed=any(event.outcome == "changed" for event in events),
                failed=not events or any(event.outcome in ("failed", "unreachable") for event in events),
                seconds=sum(event.seconds for event in events),
            )
        )
    return done, result
