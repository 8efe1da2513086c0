"""What the operator sees: results on stdout, progress and logs on stderr, colours only on a terminal."""

import json
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Table

from hikeshi.errors import HikeshiError
from hikeshi.probes import ProbeResult
from hikeshi.runner import Event, RunResult
from hikeshi.site import Site
from hikeshi.surge import LATE_S, Surge
from hikeshi.surge import Step as SurgeStep
from hikeshi.text import one_line, printable
from hikeshi.triage.additions import Addition
from hikeshi.triage.findings import Finding, Step
from hikeshi.triage.plan import Plan

KEPT_LINES = 12  # of what people added; all of it stands in --json
PIPE_WIDTH = 240  # a table that is piped or kept is searched, not looked at: nothing in it may be folded
_zone: ZoneInfo | None = None


def _open_streams() -> None:
    """Have all three streams: a file that took a closed one's number, a journal even, would get what is printed."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null == number:
                os.set_inheritable(null, True)  # noqa: FBT003 (Python's own signature)
            else:
                os.dup2(null, number)
                os.close(null)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: PTH123, SIM115


_open_streams()


def _let_go(stream: Any) -> None:
    """Let what a stream still holds go nowhere; or writing it fails once more when we end."""
    null = os.open(os.devnull, os.O_WRONLY)
    with suppress(OSError, ValueError):  # a stream without a descriptor holds nothing back
        os.dup2(null, stream.fileno())
    os.close(null)


def drained() -> bool:
    """Have on the screen what was printed; return whether that went well for stdout."""
    try:
        sys.stderr.flush()
    except OSError:
        _let_go(sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:
        _let_go(sys.stdout)
        return False
    return True


class _Out(Console):
    """Results. When they cannot be printed, the verb says so and fails; what it did is done, and journaled."""

    def print(self, *objects: Any, **how: Any) -> None:
        """Print, or raise HikeshiError."""
        with printing():
            super().print(*objects, **how)

    def on_broken_pipe(self) -> None:
        """Leave it to `printing`."""
        raise  # noqa: PLE0704 (rich calls this where it caught the error)


class _Err(Console):
    """Progress and headings: a verb goes on without them."""

    def print(self, *objects: Any, **how: Any) -> None:
        """Print, if that is possible."""
        try:
            super().print(*objects, **how)
        except OSError:
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        """Say nothing from now on."""
        self.quiet = True
        _let_go(sys.stderr)


@contextmanager
def printing() -> Iterator[None]:
    """Explain why results cannot be printed."""
    try:
        yield
    except OSError as error:
        _let_go(sys.stdout)
        if isinstance(error, BrokenPipeError):  # such as head, which has read enough
            raise HikeshiError("nobody reads the rest of the output; what was done is done.") from error
        raise HikeshiError(
            f"the output cannot be printed: {error.strerror}. What was done is done, and in the journal.",
            "hikeshi incident status",
        ) from error


# Highlights and emoji are rich's reading of a text.
out = _Out(
    highlight=False, emoji=False, width=None if sys.stdout.isatty() else PIPE_WIDTH, soft_wrap=not sys.stdout.isatty()
)
err = _Err(stderr=True, highlight=False, emoji=False, soft_wrap=not sys.stderr.isatty())


def safe(text: object, limit: int = 2000) -> str:
    """Return text that neither the terminal nor rich interprets."""
    return escape(printable(text, limit))


def line(text: object, limit: int = 2000) -> str:
    """Return the same within one line: a name that has a line end in it makes no line of its own."""
    return escape(one_line(text, limit))


def print_json(data: Any) -> None:
    """Print one JSON document on stdout."""
    # Half a pair of surrogates is no character, and no encoder takes it; JSON has an escape for it.
    text = json.dumps(data, ensure_ascii=False, indent=2, default=str)
    with printing():
        print(re.sub(r"[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", text), flush=True)


def use_zone(zone: ZoneInfo | None) -> None:
    """Say times in this zone from now on, None being this machine's: the heading has named it."""
    global _zone  # noqa: PLW0603 (there is one screen)
    _zone = zone


def say(words: str) -> None:
    """Say one line of progress."""
    err.print(f"[dim]{datetime.now(UTC).astimezone(_zone):%H:%M:%S}[/dim] {words}")


def error(problem: HikeshiError) -> None:
    """Show an error: what is wrong, then the way out."""
    err.print(f"[bold red]error:[/bold red] {safe(problem.message, 6000)}")
    if problem.fix:
        err.print(f"[bold]next:[/bold]  {safe(problem.fix)}")


class RunProgress:
    """Shows a run as it happens: on a terminal the running task with its age, and lines for what changed or failed."""

    def __init__(self, status: Status | None) -> None:
        """Show in `status`, or in lines only where that is None."""
        self._status = status
        self._began = time.monotonic()
        self._last_role: dict[str, str] = {}

    def __call__(self, event: Event) -> None:
        """Show one event."""
        where = f"{safe(event.host)} · {safe(event.role or 'play')} · {safe(event.task)}"
        if event.outcome == "start":
            if self._status:
                self._status.update(f"{where} · {time.monotonic() - self._began:.0f} s")
            elif event.role and self._last_role.get(event.host) != event.role:
                self._last_role[event.host] = event.role
                say(f"{safe(event.host)} · {safe(event.role)}")
        elif event.outcome == "changed":
            say(f"[yellow]changed[/yellow] {where} · {event.seconds:.1f} s")
        elif event.outcome in ("failed", "unreachable"):
            say(f"[bold red]{event.outcome}[/bold red] {where} · {event.seconds:.1f} s")
            for line in event.message.splitlines()[:12]:
                err.print(f"         {safe(line, 400)}")


@contextmanager
def run_progress(title: str) -> Iterator[RunProgress]:
    """Announce a run and show its progress."""
    say(f"[bold]{title}[/bold]")
    if err.is_terminal:
        with err.status(title) as status:
            yield RunProgress(status)
    else:
        yield RunProgress(None)


def probe_line(result: ProbeResult) -> None:
    """Show one probe's verdict as progress."""
    verdict = "[bold green]green[/bold green]" if result.passed else "[bold red]red  [/bold red]"
    say(f"{verdict} {line(result.view)} · {line(result.title)} · {line(result.seen, 500)} · {result.seconds:.1f} s")


def surge_begins(step: SurgeStep) -> None:
    """Show that one rate of a load probe is asked for now."""
    say(f"asking for {step.rate:g} requests/s, {step.requests} in all, {step.seconds:.0f} s")


def surge_ended(step: SurgeStep) -> None:
    """Show how one rate of a load probe ended."""
    verdict = "[bold red]not carried[/bold red] · " + safe(step.why, 300) if step.why else "[green]carried[/green]"
    say(f"{verdict} · {step.rate:g} requests/s · p95 {_seconds(step.p95)} s")


def surge_table(surge: Surge) -> None:
    """Print what came of each rate of a load probe, then the verdict in one sentence."""
    table = Table(box=None, pad_edge=False)
    for column in ("asked/s", "achieved/s", "sent", "p50 s", "p95 s", "verdict", "errors"):
        table.add_column(column, justify="left" if column in ("verdict", "errors") else "right", overflow="fold")
    for step in surge.steps:
        verdict = "[green]carried[/green]" if step.carried else "[bold red]not carried[/bold red]"
        errors = ", ".join(f"{number} × {kind}" for kind, number in step.errors.items())
        table.add_row(
            f"{step.rate:g}",
            f"{step.achieved:.1f}",
            str(len(step.answers) + step.cut_off),
            _seconds(step.p50),
            _seconds(step.p95),
            verdict if step.carried or step.why else "cut off",
            safe(errors, 300) or "none",
        )
    out.print(table)
    out.print(("[bold green]" if surge.carried else "[bold red]") + safe(surge.verdict, 500) + "[/]")
    if surge.late_s > LATE_S:
        err.print(
            f"this machine sent up to {surge.late_s:.1f} s late: it was busy itself; the shop may be better than that"
        )


def _seconds(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds:.2f}"


def finding_line(finding: Finding) -> None:
    """Show one finding as progress: what it means for the customer, then the cause."""
    words = f"{line(finding.host)} · {line(finding.cause, 300)}"
    say(f"[yellow]found[/yellow] the customer {finding.effect.words} · {words}")


def step_line(number: int, count: int, step: Step) -> None:
    """Show that a step of the plan begins."""
    say(f"[bold]step {number}/{count}[/bold] {line(step.host)} · {step.kind} · {line(step.words, 200)}")


def probe_table(results: Sequence[ProbeResult]) -> None:
    """Print the verdicts of all probes."""
    table = Table(box=None, pad_edge=False)
    for column in ("probe", "view", "verdict", "what was seen", "s"):
        table.add_column(column, justify="right" if column == "s" else "left", overflow="fold")
    for item in results:
        verdict = "[green]green[/green]" if item.passed else "[bold red]red[/bold red]"
        table.add_row(line(item.id), line(item.view), verdict, line(item.seen, 500), f"{item.seconds:.1f}")
    out.print(table)


def findings_table(findings: Sequence[Finding]) -> None:
    """Print findings, worst first."""
    table = Table(box=None, pad_edge=False)
    for column in ("the customer", "host", "cause", "seen"):
        table.add_column(column, overflow="fold")
    for item in findings:
        table.add_row(item.effect.words, line(item.host), line(item.cause, 300), line(item.quote, 300))
    out.print(table)


def plan_table(plan: Plan) -> None:
    """Print a plan's steps in order, each with what it should make vanish."""
    table = Table(box=None, pad_edge=False)
    for column in ("#", "host", "kind", "step", "for"):
        table.add_column(column, overflow="fold")
    for number, planned in enumerate(plan.steps, 1):
        why = "; ".join(dict.fromkeys(finding.cause for finding in planned.findings))
        table.add_row(
            str(number), line(planned.step.host), planned.step.kind, line(planned.step.words, 300), line(why, 400)
        )
    out.print(table)


def kept_lines(kept: Sequence[Addition]) -> None:
    """Print what people added, and recovery leaves as it is."""
    if not kept:
        return
    out.print("[bold]kept as they are[/bold]")
    for item in kept[:KEPT_LINES]:
        out.print(f"  {line(item.host)} · {line(item.subject, 200)} · {line(item.words, 300)}")
    if len(kept) > KEPT_LINES:
        out.print(f"  … and {len(kept) - KEPT_LINES} more; --json names them all")


def failure(site: Site, result: RunResult, log: Sequence[str], next_command: str) -> None:
    """Show why a run failed: the module's message, the host's last log lines, the next command to try."""
    for event in result.failures[:5]:
        err.print(f"[bold red]{event.outcome}[/bold red] {safe(event.host)} · {safe(event.role)} · {safe(event.task)}")
        for line in event.message.splitlines()[:12]:
            err.print(f"  {safe(line, 400)}")
    if log:
        err.print("last error lines of the host:")
        for line in log[-14:]:
            err.print(f"  {safe(line, 300)}")
    kept = result.folder or site.records / "runs"
    err.print(f"[bold]next:[/bold]  {safe(next_command)} (whole output: {safe(kept)})")
