"""The only import of ansible_runner: one playbook in, one result out, its events handed on as they happen."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import ansible_runner
import psutil

from hikeshi.errors import ExitStatus, MisconfiguredError
from hikeshi.files import remove_abandoned
from hikeshi.incident.journal import explained
from hikeshi.incident.runs import Recorded, recorded
from hikeshi.site import PROJECT, Site, site_secrets
from hikeshi.text import Redactor, printable

Outcome = Literal["start", "ok", "changed", "failed", "unreachable", "skipped"]


@dataclass(frozen=True)
class Event:
    """What happened to one task on one host."""

    host: str
    role: str
    task: str
    outcome: Outcome
    seconds: float = 0.0
    message: str = ""
    at: str = ""  # UTC, ISO 8601
    step: int | None = None  # of the plan, where recover-site.yml says that it takes the next one
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunResult:
    """The end of one run. `status` 0 is success; `failures` are the events that failed, in order."""

    playbook: str
    status: int
    seconds: float
    changed: dict[str, int]
    failures: list[Event]
    returned: dict[str, dict[str, Any]]  # host → result of the last task that returned `hikeshi`
    output: str  # the end of Ansible's own words, for errors that are no event
    folder: Path | None = None  # where the whole of them and every event are kept

    @property
    def ok(self) -> bool:
        """True when the playbook ran to its end on every host."""
        return self.status == 0

    @property
    def exit_status(self) -> ExitStatus:
        """What this run means for the command's exit status."""
        if self.ok:
            return ExitStatus.DONE
        if self.unreachable:
            return ExitStatus.UNREACHABLE
        words = " ".join(event.message for event in self.failures)
        return ExitStatus.MISCONFIGURED if _INPUT_IS_WRONG.search(words) else ExitStatus.FAILED

    @property
    def unreachable(self) -> list[Event]:
        """The hosts that did not answer or did not let us in."""
        return [event for event in self.failures if event.outcome == "unreachable"]


Listener = Callable[[Event], None]

_OUTCOMES: dict[str, Outcome] = {
    "runner_on_start": "start",
    "runner_on_ok": "ok",
    "runner_on_failed": "failed",
    "runner_on_unreachable": "unreachable",
    "runner_on_skipped": "skipped",
    "runner_item_on_failed": "failed",
}
_PREFIX = "hikeshi-run-"
# A variable is missing or of the wrong kind: the site's data must be mended, not the host.
_INPUT_IS_WRONG = re.compile(r"' is undefined|Validation of arguments failed")
# As playbooks/tasks/repair.yml says it; a role's own `debug` says something else.
_STEP = re.compile(r"hikeshi: step ([0-9]+) of the plan")
_DEBUG = ("debug", "ansible.builtin.debug")


def _memory_folder(fallback: Path) -> Path:
    """Return a private folder in memory: ansible-runner writes the whole environment beside its artifacts."""
    for candidate in (os.environ.get("XDG_RUNTIME_DIR", ""), "/dev/shm"):  # noqa: S108 (mkdtemp makes it private)
        if candidate and os.access(candidate, os.W_OK | os.X_OK):
            return Path(candidate)
    return fallback


def _event(raw: dict[str, Any]) -> Event | None:
    data = raw.get("event_data") or {}
    outcome = _OUTCOMES.get(raw.get("event", ""))
    if outcome is None or not data.get("host") or data.get("ignore_errors"):
        return None
    result = data.get("res") or {}
    if outcome == "ok" and result.get("changed"):
        outcome = "changed"
    told = _STEP.fullmatch(str(result.get("msg", ""))) if data.get("task_action") in _DEBUG else None
    return Event(
        host=data["host"],
        role=str(data.get("role") or ""),
        task=str(data.get("task") or ""),
        outcome=outcome,
        seconds=float(data.get("duration") or 0.0),
        message=_message(result) if outcome in ("failed", "unreachable") else "",
        at=str(raw.get("created") or ""),
        step=int(told[1]) if told else None,
        data=result.get("hikeshi") or {} if isinstance(result, dict) else {},
    )


def _message(result: dict[str, Any]) -> str:
    parts = [str(result.get(key, "")).strip() for key in ("msg", "stderr", "module_stderr", "module_stdout")]
    return "\n".join(dict.fromkeys(part for part in parts if part)) or "no message"


def run(
    site: Site,
    playbook: str,
    *,
    verb: str,
    extra: dict[str, Any] | None = None,
    limit: str = "",
    check: bool = False,
    listen: Listener = lambda event: None,
) -> RunResult:
    """Run `playbooks/<playbook>` against the site and wait for its end.

    `extra` becomes extra variables (no secrets: they are kept with the run); `limit` and `check` are Ansible's. Events
    are redacted before anybody sees them; what changes or fails goes to the journal. On KeyboardInterrupt everything
    the run started here is ended first.
    """
    os.umask(0o077)
    with recorded(site, playbook, verb, check=check) as record:
        return _run(site, playbook, record, extra=extra or {}, limit=limit, check=check, listen=listen)


def _run(
    site: Site, playbook: str, record: Recorded, *, extra: dict[str, Any], limit: str, check: bool, listen: Listener
) -> RunResult:
    redactor = Redactor(site_secrets(site))
    with explained(f"the folder of ssh's connections, {site.control_folder},", site.control_folder.parent):
        site.control_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    memory = _memory_folder(record.folder)
    remove_abandoned(memory, _PREFIX)
    private = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=memory))
    (private / "bin").mkdir()
    (private / "bin" / "ansible-playbook").symlink_to(Path(sys.executable).with_name("hikeshi-supervise"))
    failures: list[Event] = []
    returned: dict[str, dict[str, Any]] = {}
    changed: dict[str, int] = {}
    tail: list[str] = []
    started = time.monotonic()

    def handle(raw: dict[str, Any]) -> bool:
        words = redactor.text(raw.get("stdout") or "")
        if words:
            record.words(words)
            tail.append(words)
            del tail[:-40]
        if raw.get("event") == "playbook_on_stats":
            changed.update((raw.get("event_data") or {}).get("changed") or {})
        event = _event(raw)
        if event is not None:
            event = Event(**redactor.data(asdict(event)))
            if event.data:
                returned[event.host] = event.data
            if event.outcome in ("failed", "unreachable"):
                failures.append(event)
            if event.outcome != "start":
                record.event({**asdict(event), "data": {}})
            if event.outcome in ("changed", "failed", "unreachable"):
                record.task(event.host, _in_journal(event))
            listen(event)
        return False  # nothing of Ansible's own events is written to disk

    environment = {
        "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"),
        # ansible-runner turns this off, whatever ansible.cfg says.
        "ANSIBLE_HOST_KEY_CHECKING": "True",
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(site.control_folder),
        "ANSIBLE_SSH_COMMON_ARGS": shlex.join(site.ssh_arguments),
        "HIKESHI_RUN_BY": str(os.getpid()),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_DEPRECATION_WARNINGS": "0",
        # `ansible-playbook` is our supervisor there, which starts the real one.
        "PATH": f"{private / 'bin'}:{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
    }
    try:
        ended = ansible_runner.run(
            private_data_dir=str(private),
            project_dir=str(PROJECT / "playbooks"),
            playbook=str(PROJECT / "playbooks" / playbook),
            inventory=[str(path) for path in site.inventory],
            extravars={"site_private": str(site.private), **extra},
            limit=limit or None,
            cmdline="--check --diff" if check else None,
            envvars=environment,
            settings={"pexpect_timeout": 1},
            # With none of ours, ansible-runner takes SIGINT and SIGTERM over for good, and kills half of a run.
            cancel_callback=lambda: False,
            event_handler=handle,
            suppress_env_files=True,
            quiet=True,
        )
        status = int(ended.rc if ended.rc is not None else 1)
    except BaseException:  # an interrupt, or whoever listens has fallen over: nothing goes on with nobody looking
        _stop_supervisor(private)
        raise
    finally:
        shutil.rmtree(private, ignore_errors=True)
    seconds = time.monotonic() - started
    record.end(status, failures[0].message if failures else "no event says why", changed, returned)
    if status and not failures:
        _explain_no_event(tail)
    return RunResult(playbook, status, seconds, changed, failures, returned, "\n".join(tail), record.folder)


def hang_up(site: Site) -> None:
    """End the connections that runs before kept: the next one gets in by a new login, or not at all."""
    for socket in site.control_folder.glob("*"):
        words = ["ssh", "-O", "exit", "-o", f"ControlPath={socket}", "any"]
        subprocess.run(words, capture_output=True, check=False)  # one that nobody listens on has ended


def _in_journal(event: Event) -> dict[str, Any]:
    return {key: getattr(event, key) for key in ("role", "task", "outcome", "seconds", "message")}


def _explain_no_event(tail: list[str]) -> None:
    """Raise for a run that ended before any task: inventory, variables or playbook are wrong."""
    words = printable("\n".join(tail[-12:]).strip())
    raise MisconfiguredError(f"Ansible stopped before any task:\n{words or 'without a word'}", "mend what it names")


def _stop_supervisor(private: Path) -> None:
    """End the run whose folder this is, and wait for it."""
    supervisors = [child for child in psutil.Process().children() if _runs_from(child, private)]
    for child in supervisors:
        with suppress(psutil.NoSuchProcess):
            child.terminate()
    psutil.wait_procs(supervisors, timeout=10)


def _runs_from(process: psutil.Process, folder: Path) -> bool:
    with suppress(psutil.Error):
        return any(str(folder) in part for part in process.cmdline())
    return False
