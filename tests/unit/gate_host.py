"""A host on which the gate's program runs: iptables, ipset and systemd that keep their state in a file, and a clock.

They answer in this process, or, for programs that run at the same time, as executables of their own on PATH. What they
do not know they refuse, as the real ones would.
"""

import fcntl
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.unit.host_program import loaded

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "roles" / "health_check_gate" / "files" / "gate.py"
V4, V6 = "192.0.2.10", "2001:db8::10"
WANTED = {"check": "http", "ports": [80], "load_balancer": [V4, V6], "one_family": "", "keep_open": [], "seconds": 600}
FOREIGN = ["-A INPUT -i lo -j ACCEPT", "-A INPUT -p tcp -m tcp --dport 3306 -j DROP"]
NAMES = ("iptables", "ip6tables", "iptables-save", "ip6tables-save", "iptables-restore", "ip6tables-restore",
         "iptables-legacy-save", "ip6tables-legacy-save", "ipset", "systemd-run", "systemctl")  # fmt: skip
EXECUTABLE = f"""#!{sys.executable}
import sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from tests.unit.gate_host import executable
executable(Path(sys.argv[0]), sys.argv[1:])
"""


class No(Exception):
    """What a program says when it does not do what it was asked."""


class World:
    """The state behind all of them; each call reads it, and writes it down again."""

    def __init__(self, folder: Path) -> None:
        self.path, self.calls = folder / "world.json", folder / "calls"

    def read(self) -> dict[str, Any]:
        return json.loads(self.path.read_text())  # type: ignore[no-any-return]

    def write(self, world: dict[str, Any]) -> None:
        self.path.write_text(json.dumps(world))

    def answer(self, name: str, words: list[str], text: str) -> str:
        """Do what one call of a program does; return what it prints."""
        with self.calls.open("a") as log:
            fcntl.flock(log, fcntl.LOCK_EX)
            log.write(json.dumps([name, *words]) + "\n")
            world = self.read()
            if name in world["broken"]:
                raise No(f"{name} does not work")
            try:
                return _answer(world, name, words, text)
            finally:
                self.write(world)


def _answer(world: dict[str, Any], name: str, words: list[str], text: str) -> str:
    family = "ipv6" if name.startswith("ip6") else "ipv4"
    if name == "iptables" and words == ["--version"]:
        return f"iptables v1.8.9 ({world['backend']})\n"
    if name.endswith("-legacy-save"):
        return "\n".join(["*filter", *world["legacy"], "COMMIT", ""])
    if name.endswith("-save"):
        count = "[7:420] " if "-c" in words else ""
        heads = [f":{chain} - [0:0]" for chain in world[family]]
        rules = [count + rule for chain in world[family].values() for rule in chain]
        return "\n".join(["*filter", *heads, *rules, "COMMIT", ""])
    if name.endswith("-restore"):
        assert "--noflush" in words and "-w" in words, "others' rules, and others who change them"
        world[family] = _transaction(world, family, text)
        return ""
    if name == "ipset":
        return _ipset(world, words, text)
    if name == "systemd-run":
        (unit,) = [word[7:] for word in words if word.startswith("--unit=")]
        (seconds,) = [word[12:] for word in words if word.startswith("--on-active=")]
        world["timers"][f"{unit}.timer"] = [
            time.time() + world["skew"] + float(seconds),
            words[words.index("--") + 1 :],
        ]
        return ""
    if name == "systemctl" and words[0] == "stop":
        world["timers"].pop(words[1], None)
        return ""
    if name == "systemctl" and words[0] == "is-active":
        there = {*world["timers"], *world["units"]}
        return "".join("active\n" if unit in there else "inactive\n" for unit in words[1:])
    raise No(f"unknown: {name} {words}")


def _transaction(world: dict[str, Any], family: str, text: str) -> dict[str, list[str]]:
    chains = {chain: list(rules) for chain, rules in world[family].items()}
    for line in text.splitlines():
        if line.startswith(":"):
            chains[line[1:].split()[0]] = []
        elif line.startswith("-A "):
            for used in re.findall(r"--match-set (\S+)", line):
                if used not in world["sets"]:
                    raise No(f"Set {used} doesn't exist.")
            chains[line.split()[1]].append(line)
        elif line.startswith("-I INPUT 1 "):
            chains["INPUT"].insert(0, line.replace("-I INPUT 1", "-A INPUT"))
        elif line.startswith("-D "):
            chains["INPUT"].remove(line.replace("-D", "-A", 1))
        elif line.startswith("-X "):
            del chains[line.split()[1]]
        elif line not in ("*filter", "COMMIT"):
            raise No(f"unknown: {line}")
    return chains


def _ipset(world: dict[str, Any], words: list[str], text: str) -> str:
    now, sets = time.time() + world["skew"], world["sets"]
    if words[0] == "save":
        if words[1] not in sets:
            raise No("The set with the given name does not exist")
        left = {address: end and int(end - now) for address, end in sets[words[1]].items() if end == 0 or end > now}
        return "".join(f"add {words[1]} {address} timeout {seconds}\n" for address, seconds in left.items())
    if words[0] == "destroy":
        del sets[words[1]]
        return ""
    if words != ["-exist", "restore"]:
        raise No(f"unknown: ipset {words}")
    for number, line in enumerate(text.splitlines(), 1):
        verb, which, *rest = line.split()
        if verb == "create":
            sets.setdefault(which, {})
        elif verb == "add":
            sets[which][rest[0]] = now + int(rest[2]) if rest[2] != "0" else 0
        elif verb == "del":
            sets[which].pop(rest[0], None)
        else:
            raise No(f"unknown: {line}")
        if world["ipset_dies_after"] == number:
            raise No("killed")
    return ""


def executable(path: Path, words: list[str]) -> None:
    """Be one of the programs, as an executable of its own."""
    text = "" if sys.stdin is None or not path.name.endswith(("restore", "ipset")) else sys.stdin.read()
    try:
        print(World(path.parents[1]).answer(path.name, words, text), end="")
    except No as why:
        sys.exit(str(why))


class Host:
    """A host with nothing but our program, and what stands on it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.kernel = folder, World(folder)
        if not self.kernel.path.exists():
            self._make()
        self.gate = self.program()
        self.gate.subprocess = SimpleNamespace(
            run=self.run, SubprocessError=subprocess.SubprocessError, TimeoutExpired=subprocess.TimeoutExpired
        )

    def _make(self) -> None:
        for name in ("bin", "net", "run"):
            (self.folder / name).mkdir()
        for name in NAMES:
            (self.folder / "bin" / name).write_text(EXECUTABLE)
            (self.folder / "bin" / name).chmod(0o755)
        self.want()
        chains = {"INPUT": list(FOREIGN)}
        world = {"ipv4": chains, "ipv6": chains, "sets": {}, "timers": {}, "units": [], "legacy": [], "broken": []}
        self.kernel.write({**world, "backend": "nf_tables", "ipset_dies_after": 0, "skew": 0.0})

    def program(self) -> Any:
        """Return the program, at home on this host; its caller is nobody's login."""
        module: Any = loaded(SOURCE)
        module.CONFIG, module.STATE = str(self.folder / "config.json"), str(self.folder / "state")
        module.RUN, module.PROC = str(self.folder / "run/gate"), str(self.folder)
        module.ENVIRONMENT = {"PATH": str(self.folder / "bin"), "LC_ALL": "C.UTF-8"}
        module.caller = lambda: ("tester", "")
        clock = SimpleNamespace(**{name: getattr(time, name) for name in ("monotonic", "sleep", "strftime")})
        clock.time = lambda: time.time() + self.world["skew"]
        module.time = clock
        return module

    def run(self, words: tuple[str, ...], input: str | None = None, **_: Any) -> Any:
        """Stand where subprocess.run would."""
        try:
            return SimpleNamespace(
                returncode=0, stdout=self.kernel.answer(words[0], list(words[1:]), input or ""), stderr=""
            )
        except No as why:
            return SimpleNamespace(returncode=1, stdout="", stderr=str(why))

    @property
    def world(self) -> dict[str, Any]:
        return self.kernel.read()

    def change(self, **what: Any) -> None:
        self.kernel.write({**self.world, **what})

    def want(self, **what: Any) -> None:
        (self.folder / "config.json").write_text(json.dumps({**WANTED, **what}))

    def do(self, *words: str) -> int:
        return int(self.gate.main(list(words)))

    def status(self) -> dict[str, Any]:
        return self.gate.status(self.gate.config())  # type: ignore[no-any-return]

    def closed(self) -> tuple[bool, bool]:
        """Say for each family whether the check is refused, by what the kernel holds alone."""
        world, found = self.world, []
        for family, name in self.gate.SETS.items():
            chains = world[family]
            jumped = chains["INPUT"][:1] == ["-A INPUT -j HIKESHI-GATE"] and bool(chains.get("HIKESHI-GATE"))
            entries = world["sets"].get(name, {}).values()
            found.append(jumped and any(end == 0 or end > self.gate.time.time() for end in entries))
        return found[0], found[1]

    def drained(self) -> bool:
        return (self.folder / "run/gate/drain").is_file()

    def later(self, seconds: float) -> None:
        """Let time pass. systemd does what it was asked, whoever of ours is dead."""
        world = self.world
        world["skew"] += seconds
        for unit, (at, command) in list(world["timers"].items()):
            if at <= time.time() + world["skew"]:
                assert command[:2] == ["/usr/bin/rm", "-f"] and len(command) == 3, command
                Path(command[2]).unlink(missing_ok=True)
                del world["timers"][unit]
        self.kernel.write(world)

    def reboot(self) -> None:
        """Lose what lives in memory."""
        shutil.rmtree(self.folder / "run/gate", ignore_errors=True)
        chains = {"INPUT": list(FOREIGN)}
        self.change(ipv4=chains, ipv6=chains, sets={}, timers={})

    def foreign(self) -> list[list[str]]:
        """Return others' rules, of both families."""
        return [[rule for rule in self.world[name]["INPUT"] if "HIKESHI" not in rule] for name in ("ipv4", "ipv6")]

    def asked(self) -> list[list[str]]:
        """Return every call that was made."""
        return [json.loads(line) for line in self.kernel.calls.read_text().splitlines()]
