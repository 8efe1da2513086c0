"""`hikeshi count`: what was typed, the answer."""

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from hikeshi import screen
from hikeshi.access import engine, export, page
from hikeshi.access import watch as following
from hikeshi.access import window as windows
from hikeshi.access.answer import Answer
from hikeshi.access.engine import Asked, Counted
from hikeshi.access.flood import Verdict
from hikeshi.access.reconcile import Reconciled
from hikeshi.errors import HikeshiError, UsageError
from hikeshi.incident import clock, show, store
from hikeshi.site import load


@dataclass(frozen=True)
class Words:
    """The words of the command."""

    files: Sequence[str]
    since: str
    until: str
    by: str
    zone: str
    top: int
    addresses: bool
    sorry_backends: Sequence[str]
    health_path: str
    agent_capture: str
    log_zone: str
    processes: int | None
    memory: int
    site: str | None


def count(words: Words) -> Counted:
    """Count files of this machine where some are named, else a site's logs where they lie."""
    now = datetime.now(UTC)
    if words.files:
        if words.site:
            raise UsageError("--site and FILE say two things.", "hikeshi count FILE…, or hikeshi count --site NAME")
        zone = windows.zone_of(words.zone)
        if words.log_zone:
            windows.zone_of(words.log_zone)
        if not re.fullmatch(r"(last|none|[1-9][0-9]?)?", words.agent_capture):
            raise UsageError(
                f"--agent-capture is '{words.agent_capture}'; allowed: last, none, 1, 2 and so on, as HAProxy numbers "
                "what it captures.",
                "hikeshi count --agent-capture 1 FILE…",
            )
        asked = Asked(
            windows.asked(words.since, words.until, words.by, zone, now), words.top, words.addresses,
            words.sorry_backends, words.health_path, words.agent_capture or "last", words.log_zone,
        )  # fmt: skip
        processes = words.processes or min(8, os.cpu_count() or 1)
        with _progress() as told:
            return engine.files(asked, words.files, processes, max(words.memory, 64 * processes), told)
    for option, given in (
        ("--sorry-backend", words.sorry_backends), ("--health-path", words.health_path),
        ("--agent-capture", words.agent_capture), ("--log-zone", words.log_zone), ("--processes", words.processes),
    ):  # fmt: skip
        if given:
            raise UsageError(
                f"{option} goes with FILE; of a site, `accesses` in its site.yml says it.", "hikeshi count"
            )
    chosen = load(words.site)
    show.heading(chosen)
    zone = windows.zone_of(words.zone) if words.zone else chosen.zone
    how = chosen.data.accesses
    asked = Asked(
        windows.asked(words.since, words.until, words.by, zone, now), words.top, words.addresses, how.sorry_backends,
        how.health_path, how.agent_capture, how.log_zone,
    )  # fmt: skip
    with store.journal(chosen).action("count", {"since": words.since, "until": words.until, "by": words.by}) as action:
        done = engine.site(chosen, asked, words.memory)
        action.data.update(
            lines=done.answer.lines, sides={role: side.total.as_data() for role, side in done.answer.sides.items()}
        )
    return done


def watch(name: str | None, *, as_json: bool) -> None:
    """Follow the load balancer's log until somebody interrupts; tell, and journal, what is new."""
    chosen = load(name)
    show.heading(chosen)
    screen.say("following the load balancer's log; interrupt ends it")

    def tell(verdict: Verdict) -> None:
        if as_json:
            print(json.dumps(verdict.as_data()), flush=True)
            return
        style = {
            "attack": "[bold red]attack[/bold red]",
            "surge": "[bold yellow]surge[/bold yellow]",
            "much": "[yellow]much[/yellow]",
        }.get(verdict.kind, "calm")
        screen.out.print(f"{clock.moment(verdict.at, chosen.zone)} {style} {screen.line(verdict.words, 500)}")
        for item in (*verdict.accused[:10], *verdict.much[:5]):
            screen.out.print(f"  {screen.line(item.words, 500)}; since {clock.moment(item.since, chosen.zone)}")
        if verdict.cure:
            screen.out.print(f"  proposed, not applied: {screen.line(verdict.cure, 500)}")

    following.follow(chosen, tell)


@contextmanager
def _progress() -> Iterator[engine.Progress]:
    """Show on a terminal how far counting is, and how long it will take."""
    if not screen.err.is_terminal:
        yield lambda read, total, left: None
        return
    with screen.err.status("counting") as status:
        yield lambda read, total, left: status.update(
            f"counting · {page.size(min(read, total))} of {page.size(total)} · {left} s left"
        )


def write_html(path: Path, answer: Answer, compared: Reconciled | None) -> None:
    """Write the page; it may name clients, so that only we may read it."""
    ends = " to ".join(answer.window.time(at).strftime("%Y-%m-%d %H:%M") for at in answer.span or ())
    text = export.as_html(answer, compared, f"Accesses {ends}".strip())
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise HikeshiError(f"'{path}' cannot be written: {error.strerror}.", "hikeshi count --html PATH") from error
