"""Runs the counter: on files of this machine, or on a site's hosts where the logs lie; merges what it hands over."""

import base64
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from hikeshi import exchange, look, runner, screen
from hikeshi.access import answer
from hikeshi.access.answer import Answer
from hikeshi.access.window import Window
from hikeshi.errors import HikeshiError, MisconfiguredError, RefusedError, UsageError
from hikeshi.files import write_private
from hikeshi.look import Refused
from hikeshi.site import PROJECT, Site, read_yaml, shown

PROGRAM = PROJECT / "roles" / "access_count" / "files" / "count.py"
PLAYBOOK = "count-accesses.yml"
STORE, KEY_FILE = "/var/lib/hikeshi/access", "/etc/hikeshi/access_count.key"  # where role access_count has them
SECRET = "secret_access_count_key"  # noqa: S105 (the name of the variable)
KEY = "HIKESHI_COUNT_KEY"  # as the counter reads it
HOST_MEMORY = 512  # MiB that the counter may take on a host that is serving customers

Progress = Callable[[int, int, int], None]  # bytes read, of how many, seconds left


@dataclass(frozen=True)
class Asked:
    """How accesses are to be counted."""

    window: Window
    top: int = 10
    addresses: bool = False
    sorry_backends: Sequence[str] = ()
    health_path: str = ""
    agent_capture: str = "last"
    log_zone: str = ""

    def words(self) -> list[str]:
        """Return it as the counter takes it."""
        words = [*self.window.words(), "--agent-capture", self.agent_capture]
        for name in self.sorry_backends:
            words += ["--sorry-backend", name]
        for option, value in (("--health-path", self.health_path), ("--log-zone", self.log_zone)):
            words += [option, value] if value else []
        return words + ["--addresses"] * self.addresses


@dataclass
class Counted:
    """What was counted, and the hosts of which nothing is known."""

    answer: Answer
    refused: list[Refused] = field(default_factory=list)


@cache
def program() -> ModuleType:
    """Return the counter itself: the file that runs on hosts, whose partials only it reads."""
    spec = spec_from_file_location("hikeshi_count", PROGRAM)
    if spec is None or spec.loader is None:
        raise MisconfiguredError(f"{shown(PROGRAM)} cannot be loaded.", f"git checkout -- {shown(PROGRAM)}")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _merged(asked: Asked, partials: Mapping[str, Path]) -> Answer:
    """Return the figures of partials, by the name of where each came from."""
    counter, last = program(), ""
    with ExitStack() as files:
        try:
            read = []
            for host, path in partials.items():
                last = host
                head, lines = counter.read_partial(files.enter_context(path.open("rb")))
                _check_head(head)
                read.append((head, lines))
            heads, lines = counter.merged(read)
            return answer.make(asked.window, heads, lines, asked.top)
        except counter.RefusedError as problem:
            raise RefusedError(f"{problem}.") from problem
        except (ValueError, KeyError, IndexError, TypeError) as problem:
            raise HikeshiError(
                f"what {last} counted cannot be read: {problem}.",
                "the same command again; then look at the host by hand",
            ) from problem


def _check_head(head: Mapping[str, Any]) -> None:
    """Refuse what is no method of ours; hosts may say anything."""
    numbers = [head[name] for name in ("lines", "counted", "malformed", "pending", "made")]
    for file in head["files"]:
        numbers += [file[name] for name in ("lines", "counted", "malformed", "pending", "from", "to", "size")]
        numbers += [file[name] or 0 for name in ("first", "last")]
        if not isinstance(file["samples"], list) or not isinstance(file["reasons"], dict):
            raise ValueError("its samples are none")
    if not all(type(number) is int and 0 <= number < 1 << 62 for number in numbers):
        raise ValueError("its numbers are none")
    if not isinstance(head["problems"], list) or not isinstance(head["host"], str):
        raise ValueError("its words are none")
    if head["lines"] != head["counted"] + head["malformed"] + head["pending"]:
        raise ValueError("its lines are not those that were counted, malformed and pending")


# Files of this machine


def files(asked: Asked, paths: Sequence[str], processes: int, memory: int, progress: Progress) -> Counted:
    """Count some files, without any site."""
    missing = [path for path in paths if not os.path.lexists(path)]
    if missing:
        raise UsageError(f"there is no file '{missing[0]}'.", "hikeshi count /var/log/nginx/access.log*")
    with tempfile.TemporaryDirectory(prefix="hikeshi-count-") as folder:
        out = Path(folder) / "partial"
        words = ["files", *asked.words(), "--processes", str(processes), "--memory", str(memory), "--progress"]
        words += ["--output", str(out), "--", *(os.path.abspath(path) for path in paths)]  # noqa: PTH100
        _run([sys.executable, "-I", str(PROGRAM), *words], progress)
        return Counted(_merged(asked, {"the counter": out}))


def _run(command: Sequence[str], progress: Progress) -> None:
    """Run the counter to its end; on an interrupt end it, and all its processes, first."""
    environment = {**os.environ, KEY: secrets.token_hex(32)}
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        errors="replace", env=environment, start_new_session=True,
    ) as running:  # fmt: skip
        said = []
        try:
            for line in running.stderr or ():
                try:
                    told = json.loads(line)
                    progress(int(told["read"]), int(told["of"]), int(told["left_s"]))
                except (ValueError, KeyError, TypeError):
                    said.append(line)
                    del said[:-20]
            status = running.wait()
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
            raise
    words = "".join(said).strip()
    if status == 2:  # noqa: PLR2004 (as the counter says it)
        raise RefusedError(words.removeprefix("count refused: ") + ".")
    if status:
        raise HikeshiError(
            f"counting ended with status {status}: {words or 'without a word'}", "the same command again"
        )


# A site's hosts


def key(site: Site) -> str:
    """Return the key of the site's digests: its secret, else one for this call alone."""
    for folder in dict.fromkeys((site.private, site.folder)):
        for path in sorted(folder.glob("group_vars/*/secrets.yml")):
            with suppress(MisconfiguredError):  # encrypted: Ansible reads it, and role access_count has it on the hosts
                value = read_yaml(path).get(SECRET)
                if isinstance(value, str):
                    return value
    return secrets.token_hex(32)


def site(chosen: Site, asked: Asked, memory: int = HOST_MEMORY) -> Counted:
    """Count where the logs lie, in one round trip a host; what was stored there before is not read again."""
    logs = chosen.data.accesses.logs
    if not logs:
        raise MisconfiguredError(
            f"site {chosen.name} does not say where its logs lie.",
            f"accesses in {shown(chosen.folder)}/site.yml, as inventories/example/site.yml has it; "
            "or hikeshi count FILE…, of copies",
        )
    unknown = sorted(set(logs) - set(chosen.hosts()))
    if unknown:
        raise MisconfiguredError(
            f"{shown(chosen.folder)}/site.yml names logs of '{unknown[0]}', which is no host of the site; "
            f"allowed: {', '.join(chosen.hosts())}.",
            "mend accesses.logs there",
        )
    calls = {}
    for host, patterns in logs.items():
        words = ["auto", *asked.words(), "--store", STORE, "--key-file", KEY_FILE, "--memory", str(memory), "--low"]
        calls[host] = [*words, "--host", host, *(word for pattern in patterns for word in ("--glob", pattern))]
    asks = {"key": key(chosen), "hosts": calls}
    with exchange.folder(chosen, asks) as where, screen.run_progress("counting where the logs lie") as progress:
        result = runner.run(
            chosen,
            PLAYBOOK,
            verb="count",
            limit=",".join(logs),
            extra={"access_count_exchange": str(where)},
            listen=progress,
        )
        refused = look.silent(result)
        partials = {}
        for host in sorted(logs.keys() - {item.host for item in refused}):
            try:
                told = exchange.answer(where, host, "what it counted")
                partials[host] = where / f"{host}.partial"
                write_private(partials[host], base64.b64decode(told["partial"], validate=True))
            except HikeshiError as problem:
                refused.append(Refused(host, problem))
            except (KeyError, TypeError, ValueError) as problem:
                refused.append(Refused(host, HikeshiError(f"{host} did not tell what it counted: {problem}.")))
        if not partials:
            raise refused[0].problem
        return Counted(_merged(asked, partials), refused)
