"""Follows a load balancer's log on its host, second by second, and tells when it is flooded."""

import fcntl
import json
import os
import selectors
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from hikeshi import screen
from hikeshi.access import flood
from hikeshi.access.engine import PROGRAM
from hikeshi.access.flood import KINDS, Judge, Kind, Verdict
from hikeshi.errors import HikeshiError, MisconfiguredError, UnreachableError
from hikeshi.files import make_private_folder
from hikeshi.incident import store
from hikeshi.site import Site, shown
from hikeshi.text import printable

SILENT_S = 15  # without a tick, the way to the host is gone
WRITER = "lock-flood"

Told = Callable[[Verdict], None]


class Seat:
    """What only one process has at a time, for a site: a lock of this name, let go by the kernel when it ends."""

    def __init__(self, site: Site, name: str) -> None:
        """Have nothing yet."""
        make_private_folder(site.records)
        self._descriptor = os.open(site.records / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def taken(self) -> bool:
        """Say whether it is ours now; once it is, it stays so."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def leave(self) -> None:
        """Let others have it."""
        os.close(self._descriptor)


@dataclass
class Watch:
    """What was told last, so that it is told and journaled once: by one of all who watch."""

    site: Site
    tell: Told
    writer: Seat
    kind: Kind = "quiet"
    names: frozenset[str] = frozenset()
    calm: int = 0

    def take(self, verdict: Verdict) -> None:
        """Tell, and write down, what is new: a flood, who else floods, a surge, much from somebody, that it is over."""
        names = frozenset(item.name for item in verdict.accused)
        if verdict.kind == "quiet" or KINDS.index(verdict.kind) < KINDS.index(self.kind):
            self.calm += 1
            if self.kind != "quiet" and self.calm >= flood.QUIET_AFTER:
                self._write("flood.over", {"kind": self.kind, "at": verdict.at})
                self.kind, self.names = "quiet", frozenset()
                self.tell(verdict)
            return
        self.calm = 0
        if verdict.kind != self.kind or names - self.names:
            self._write("flood", verdict.as_data())
            self.kind, self.names = verdict.kind, self.names | names
            self.tell(verdict)

    def _write(self, kind: str, data: dict[str, Any]) -> None:
        if self.writer.taken():
            store.journal(self.site).append(kind, data)


def follow(site: Site, tell: Told, *, seconds: float | None = None, each: Callable[[], None] = lambda: None) -> None:
    """Watch until interrupted, or for so many seconds."""
    host, pattern = _log(site)
    ends = time.monotonic() + seconds if seconds is not None else None
    with _may_write(site) as writer, _following(site, host, pattern) as lines:
        watch = Watch(site, tell, writer)
        judge = Judge(None)
        for line in lines:
            each()
            if line is not None:
                try:
                    told = json.loads(line)
                    if isinstance(told, dict) and "past" in told:
                        judge = Judge(flood.past_of(told["past"]))
                    else:
                        watch.take(judge.add(flood.tick_of(told)))
                except ValueError as problem:
                    raise HikeshiError(
                        f"{host} told what is no count of its log: {problem}.", "look at it by hand"
                    ) from problem
            if ends is not None and time.monotonic() > ends:
                return


@contextmanager
def _may_write(site: Site) -> Iterator[Seat]:
    """Have the place of who writes the journal, if it becomes free; leave it at the end."""
    seat = Seat(site, WRITER)
    try:
        yield seat
    finally:
        seat.leave()


class Beside:
    """Watches beside something else, in a thread; that it cannot is said once, and keeps nobody from anything."""

    def __init__(self, site: Site) -> None:
        """Begin, where the site names a log of a load balancer."""
        self._site, self._enough = site, threading.Event()
        self._thread = threading.Thread(target=self._run, name="flood", daemon=True)
        if site.data.accesses.logs:
            self._thread.start()

    def stop(self) -> None:
        """End it; it notices within a second."""
        self._enough.set()
        if self._thread.ident is not None:
            self._thread.join(5)

    def _run(self) -> None:
        try:
            follow(self._site, self._tell, each=self._go_on)
        except InterruptedError:
            return
        except (HikeshiError, OSError) as problem:
            if not self._enough.is_set():
                words = problem.message if isinstance(problem, HikeshiError) else str(problem)
                screen.say(f"nobody watches for a flood: {screen.line(words, 300)}")

    def _go_on(self) -> None:
        if self._enough.is_set():
            raise InterruptedError

    @staticmethod
    def _tell(verdict: Verdict) -> None:
        style = "[bold red]flood[/bold red] " if verdict.kind == "attack" else ""
        screen.say(f"{style}{screen.line(verdict.words, 400)}")
        for item in (*verdict.accused[:5], *verdict.much[:3]):
            screen.say(f"  {screen.line(item.words, 400)}")
        if verdict.cure:
            screen.say(f"  proposed, not applied: {screen.line(verdict.cure, 400)}")


def _log(site: Site) -> tuple[str, str]:
    """Return the host and the log that is followed: that of a load balancer."""
    for host, patterns in site.data.accesses.logs.items():
        for pattern in patterns:
            if "haproxy" in pattern or "hapee" in pattern:
                return host, pattern.rstrip("*")
    raise MisconfiguredError(
        f"site {site.name} names no log of a load balancer (one with haproxy in its name).",
        f"accesses.logs in {shown(site.folder)}/site.yml",
    )


@contextmanager
def _following(site: Site, host: str, path: str) -> Iterator[Iterator[bytes | None]]:
    """Run the counter's `follow` on the host; give what it says, line by line, and None now and then in between."""
    how = site.data.accesses
    words = ["follow", path, "--low", "--health-path", how.health_path, "--agent-capture", how.agent_capture]
    for backend in how.sorry_backends:
        words += ["--sorry-backend", backend]
    # The program comes with the call; nothing is left on the host, where it ends when nobody reads it any more.
    remote = 'sudo -n /usr/bin/python3 -c \'import sys; exec(compile(sys.stdin.buffer.read(), "count", "exec"))\' '
    quoted = shlex.join(words)
    command = ["ssh", *site.ssh_arguments, "-o", "BatchMode=yes", "-o", "ConnectTimeout=8", "-o", "ControlPath=none",
               "-o", "ServerAliveInterval=5", host, remote + quoted]  # fmt: skip
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdin and running.stdout and running.stderr  # noqa: S101 (pipes were asked for)
        try:
            with suppress(BrokenPipeError):
                running.stdin.write(PROGRAM.read_bytes())
                running.stdin.close()
            yield _lines(running, host)
        finally:
            running.kill()


def _lines(running: Any, host: str) -> Iterator[bytes | None]:
    heard, rest = time.monotonic(), b""
    with selectors.DefaultSelector() as waiting:
        waiting.register(running.stdout, selectors.EVENT_READ)
        while True:
            if not waiting.select(1.0):
                if time.monotonic() - heard > SILENT_S:
                    raise UnreachableError(
                        f"{host} has said nothing of its log for {SILENT_S} s.", "hikeshi count --watch"
                    )
                yield None
                continue
            part = running.stdout.read1(1 << 16)
            if not part:
                words = running.stderr.read().decode(errors="replace").strip()
                raise UnreachableError(
                    f"the log of {host} cannot be followed: {printable(words, 400) or 'it ended without a word'}",
                    "does ssh let us in, and may we sudo there? Then: hikeshi count --watch",
                )
            heard = time.monotonic()
            *lines, rest = (rest + part).split(b"\n")
            if len(rest) > 1 << 24:
                raise HikeshiError(f"{host} told a line that does not end.", "look at it by hand")
            yield from lines
