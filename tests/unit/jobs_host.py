"""A host on which the program of scheduled_jobs runs: a folder as its root, and a systemd that keeps its state there.

systemctl, busctl and systemd-run answer in this process; what they do not know they refuse, as the real ones would.
Nothing else can be run: a job that was executed would be seen, by its trace and by the call.
"""

import json
import os
import re
import shutil
import stat
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.unit.host_program import loaded

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "roles" / "scheduled_jobs" / "files" / "jobs.py"
DROP_IN = "zz-hikeshi-held.conf"
TRANSIENT = "run/systemd/transient"
FOLDERS = (
    "var/spool/cron/atjobs", "var/spool/cron/crontabs", "var/spool/anacron", "etc/cron.d", "etc/cron.daily", "run",
    "etc/apt/apt.conf.d", "etc/systemd/system", "etc/dbus-1/system.d", "run/systemd/shutdown", "run/systemd/system",
    "var/lib/systemd/timers", "usr/sbin",
)  # fmt: skip
BODY = (
    "#!/bin/sh\n# atrun uid=0 gid=0\n# mail root 0\nSECRET=hush; export SECRET\ncd / || {\n\t echo no\n\t exit 1\n}\n"
)
TIMER = {
    "active": True, "sub": "waiting", "persistent": False, "monotonic": [], "next": None, "read": [], "edited": False,
    "fires_on_reload": False, "fires_on_start": False, "file": "/lib/systemd/system/x.timer", "made": False,
    "wanted": True, "calendar": ["*-*-* 00:00:00"],
}  # fmt: skip


class Killed(BaseException):
    """The process, or the machine, stopped here; nothing after it runs, no handler either."""


class Host:
    """A host with some jobs; what systemd fires is noted in `fired`."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        if not self.root.exists():
            for name in FOLDERS:
                (self.root / name).mkdir(parents=True, exist_ok=True)
            for name in ("atd", "cron", "anacron"):
                (self.root / "usr/sbin" / name).touch()
        self.timers: dict[str, dict[str, Any]] = {}
        self.units: dict[str, list[str]] = {}  # service → the drop-ins that systemd has read
        self.in_memory: dict[str, str] = {}  # target → what systemd believes of it
        self.transient: dict[str, list[str]] = {}
        self.fired: list[str] = []
        self.looked = 0  # when another folder of units than that of systemd-run last changed
        self.calls: list[tuple[str, ...]] = []
        self.broken: set[str] = set()
        self.jobs = self.program()

    def program(self) -> Any:
        """Return the program, at home in the root."""
        module: Any = loaded(SOURCE)
        module.ROOT = str(self.root)
        module.boot_id = lambda: "this boot"
        module.subprocess = SimpleNamespace(
            run=self.run, DEVNULL=subprocess.DEVNULL, SubprocessError=subprocess.SubprocessError,
            TimeoutExpired=subprocess.TimeoutExpired,
        )  # fmt: skip
        return module

    # What is on it

    def write(self, path: str, data: bytes | str, mode: int = 0o644, mtime: int = 1_700_000_000) -> Path:
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data.encode() if isinstance(data, str) else data)
        place.chmod(mode)
        os.utime(place, ns=(mtime * 10**9 + 1, mtime * 10**9 + 2))
        return place

    def at(self, due: float, number: int = 3, body: bytes = b"reboot\n", queue: str = "a") -> str:
        name = f"{queue}{number:05x}{int(due) // 60:08x}"
        self.write(f"/var/spool/cron/atjobs/{name}", BODY.encode() + body, 0o700)
        return f"at:{name}"

    def cron(self, path: str, text: bytes, number: int) -> str:
        self.write(path, text, 0o600 if "spool" in path else 0o644)
        return self.line(path, number)

    def line(self, path: str, number: int) -> str:
        line = (self.root / path.lstrip("/")).read_bytes().split(b"\n")[number - 1]
        return f"cron:{path}:{number}:{self.jobs.hashlib.sha256(line).hexdigest()[:8]}"

    def timer(self, unit: str, **more: Any) -> str:
        self.timers[unit] = {**TIMER, **more}
        return f"timer:{unit}"

    def systemd_run_timer(self, unit: str, *settings: str) -> str:
        """Let systemd-run make a timer and its service, as systemd 252 writes them."""
        head = "# This is a transient unit file, created programmatically via the systemd API. Do not edit.\n[Unit]\n"
        text = "".join(f"{line}\n" for line in ("[Timer]", *settings, "RemainAfterElapse=no"))
        self.write(f"{TRANSIENT}/{unit}", f"{head}Description=a\n\n{text}")
        service = unit.replace(".timer", ".service")
        self.write(f"{TRANSIENT}/{service}", f'{head}Description=b\n\n[Service]\nExecStart="/sbin/reboot"\n')
        self.looked = 0
        self.load(unit)
        self.timers[unit].update(made=True, active=True, sub="waiting")
        return f"timer:{unit}"

    def load(self, unit: str) -> bool:
        """Read a timer from its file, as systemd does when it is asked for one that it does not know."""
        place, looked = self.root / TRANSIENT / unit, (self.root / "run/systemd/system").stat().st_mtime_ns
        if unit not in self.timers and place.is_file() and looked != self.looked:
            self.looked = looked
            with os.fdopen(os.open(place, os.O_RDONLY | os.O_NOATIME)) as file:
                lines = [line.strip().partition("=")[::2] for line in file]
            spans = [(key.replace("Sec", "USec"), value) for key, value in lines if re.fullmatch("On.*Sec", key)]
            dates = [value for key, value in lines if key == "OnCalendar"]
            counts = [time.time() + (self.jobs.seconds(value) or 0) for key, value in spans if key == "OnActiveUSec"]
            hour = (time.time() // 3600 + 1) * 3600
            times = [hour if date == "hourly" else float(date[1:]) for date in dates]
            self.timers[unit] = {
                **TIMER, "active": False, "sub": "dead", "wanted": False, "file": f"/{TRANSIENT}/{unit}",
                "monotonic": spans, "calendar": dates, "counts_to": min(counts, default=None),
                "next": min((when for when in times if when > time.time()), default=None),
            }  # fmt: skip
        return unit in self.timers

    def shutdown(self, due: float) -> str:
        text = f"USEC={int(due * 1e6)}\nWARN_WALL=1\nMODE=reboot\nWALL_MESSAGE=bye\\x21\n"
        self.write("/run/systemd/shutdown/scheduled", text)
        return "shutdown:scheduled"

    # What systemd does

    def run(self, words: tuple[str, ...], **more: Any) -> Any:
        """Stand where subprocess.run would."""
        assert more["env"]["TZ"] == "UTC" and more["stdin"] == subprocess.DEVNULL
        self.calls.append(tuple(words))
        if words[0] in self.broken:
            return SimpleNamespace(returncode=1, stdout="", stderr=f"{words[0]} does not work")
        answer = {"systemctl": self.systemctl, "busctl": self.busctl, "systemd-run": self.systemd_run}[words[0]]
        told = answer(list(words[1:]))
        return SimpleNamespace(returncode=0, stdout=told, stderr="")

    def systemctl(self, words: list[str]) -> str:
        verb, rest = words[0], words[1:]
        names = [word for word in rest if not word.startswith("--")]
        if verb == "show":
            return self.show(rest, names)
        if verb in ("list-units", "list-unit-files"):
            return "".join(f"{name} x\n" for name in self.timers)
        if verb == "is-active":
            there = {"atd.service", "cron.service", *self.transient}
            return "".join("active\n" if name in there else "inactive\n" for name in names)
        if verb == "daemon-reload":
            self.reload()
        elif verb == "stop":
            for name in names:
                self.transient.pop(name, None)
                if name in self.timers:
                    self.timers[name].update(active=False, sub="dead")
                self.collect(name)
        elif verb == "start" and "--no-block" in rest:
            self.fired.append(names[0])
        elif verb == "start" and names == ["timers.target"]:
            for name in [name for name, timer in self.timers.items() if timer["wanted"] and not timer["active"]]:
                self.systemctl(["start", name])
        elif verb == "start":
            assert self.load(names[0]), f"Unit {names[0]} not found"
            timer = self.timers[names[0]]
            if any(self.jobs.seconds(span) < 0.001 for key, span in timer["monotonic"] if key == "OnActiveUSec"):
                self.fired.append(names[0])
            if not any(DROP_IN in path for path in timer["read"]):
                timer.update(active=True, sub="waiting")
                stamp = self.root / f"var/lib/systemd/timers/stamp-{names[0]}"
                late = timer["persistent"] and stamp.exists() and (timer["next"] or 1e18) > stamp.stat().st_mtime
                if timer["fires_on_start"] or (late and timer["next"] and timer["next"] <= time.time()):
                    self.fired.append(names[0])
        else:
            raise AssertionError(f"unknown: systemctl {words}")
        return ""

    def collect(self, name: str) -> None:
        """Forget a timer that stopped and nobody wants: its files are removed if systemd-run made it."""
        if name in self.timers and not self.timers[name]["wanted"]:
            timer = self.timers.pop(name)
            for unit in (name, name.replace(".timer", ".service")) if timer["made"] else ():
                (self.root / TRANSIENT / unit).unlink()

    def drop_ins(self, unit: str) -> list[str]:
        place = self.root / f"etc/systemd/system/{unit}.d"
        return [f"/etc/systemd/system/{unit}.d/{path.name}" for path in sorted(place.glob("*.conf"))]

    def reload(self) -> None:
        for name, timer in self.timers.items():
            if timer["active"] and timer["edited"] and timer["fires_on_reload"]:
                self.fired.append(name)
            timer.update(read=self.drop_ins(name), edited=False)
        for name in self.units:
            self.units[name] = self.drop_ins(name)
        for name in self.in_memory:
            self.in_memory[name] = "masked" if self.jobs.masked(name) else "loaded"

    def boot(self) -> None:
        """Start anew: what lives in memory is gone; timers start, unless held; atd runs what is due."""
        self.transient.clear()
        shutil.rmtree(self.root / "run")
        for name in ("shutdown", "system"):
            (self.root / "run/systemd" / name).mkdir(parents=True)
        self.jobs.boot_id = lambda: "another boot"
        self.timers = {name: timer for name, timer in self.timers.items() if TRANSIENT not in timer["file"]}
        for name, timer in self.timers.items():
            timer.update(read=self.drop_ins(name), edited=False)
            if not any(DROP_IN in path for path in timer["read"]):
                timer.update(active=True, sub="waiting")
                self.systemctl(["start", name])
            else:
                timer.update(active=False, sub="dead")
        for name in self.units:
            self.units[name] = self.drop_ins(name)
        self.atd()

    def atd(self) -> None:
        """Run what is overdue in the spool, as atd does when it starts."""
        for path in (self.root / "var/spool/cron/atjobs").iterdir():
            if re.match("[a-zA-Z][0-9a-f]{13}", path.name) and int(path.name[6:14], 16) * 60 <= time.time():
                self.fired.append(path.name)

    def show(self, rest: list[str], names: list[str]) -> str:
        (asked,) = [word[11:].split(",") for word in rest if word.startswith("--property=")]
        if asked == ["UserspaceTimestampMonotonic"]:
            return "UserspaceTimestampMonotonic=1000000\n"
        if names == ["*.timer"]:
            names = list(self.timers)
        if names == ["*"]:
            names = [*self.timers, *self.units]
        return "\n\n".join(self.unit(name, asked) for name in names)

    def unit(self, name: str, asked: list[str]) -> str:
        lines = [("Id", name)]
        if name.endswith(".timer") and self.load(name):
            timer = self.timers[name]
            at = time.strftime("%a %Y-%m-%d %H:%M:%S UTC", time.gmtime(timer["next"])) if timer["next"] else ""
            changed = timer["edited"] or timer["read"] != self.drop_ins(name)
            lines += [("LoadState", "loaded"), ("ActiveState", "active" if timer["active"] else "inactive"),
                      ("SubState", timer["sub"]), ("Persistent", "yes" if timer["persistent"] else "no"),
                      ("NextElapseUSecRealtime", at), ("Unit", name.replace(".timer", ".service")),
                      ("DropInPaths", " ".join(timer["read"])), ("NeedDaemonReload", "yes" if changed else "no"),
                      ("AccuracyUSec", "1min"), ("RandomizedDelayUSec", "1h 30min"), ("UnitFileState", "enabled"),
                      ("FragmentPath", timer["file"])]  # fmt: skip
            lines += [("TimersCalendar", f"{{ OnCalendar={event} ; next_elapse=n/a }}") for event in timer["calendar"]]
            if timer.get("counts_to"):
                span = timer["counts_to"] - time.time() + time.clock_gettime(time.CLOCK_MONOTONIC)
                lines.append(("NextElapseUSecMonotonic", f"{span * 1000:.0f}ms"))
            lines += [("TimersMonotonic", f"{{ {key}={value} ; next_elapse=1s }}") for key, value in timer["monotonic"]]
        elif name in self.units:
            held = any(DROP_IN in path for path in self.units[name])
            lines += [("LoadState", "loaded"), ("ActiveState", "active"), ("DropInPaths", " ".join(self.units[name])),
                      ("FailureAction", "none" if held else "reboot"), ("SuccessAction", "none"),
                      ("ExecStart", "{ path=/bin/x ; argv[]=/bin/x a b ; ignore_errors=no }")]  # fmt: skip
        else:
            if (self.root / TRANSIENT / name).is_file():
                lines.append(("FragmentPath", f"/{TRANSIENT}/{name}"))
            state = "masked" if name.endswith(".target") and self.jobs.masked(name) else "not-found"
            lines += [("LoadState", self.in_memory.get(name, state)), ("ActiveState", "inactive")]
        return "\n".join(f"{key}={value}" for key, value in lines if key in asked)

    def busctl(self, words: list[str]) -> str:
        scheduled = self.root / "run/systemd/shutdown/scheduled"
        if "CancelScheduledShutdown" in words:
            scheduled.unlink(missing_ok=True)
        elif "ScheduleShutdown" in words:
            mode, usec = words[-2:]
            scheduled.write_text(f"USEC={usec}\nWARN_WALL=1\nMODE={mode}\n")
        elif not {"ReloadConfig", "SetWallMessage"} & set(words):
            raise AssertionError(f"unknown: busctl {words}")
        return ""

    def systemd_run(self, words: list[str]) -> str:
        (unit,) = [word[7:] for word in words if word.startswith("--unit=")]
        timed = any(word.startswith("--on-active=") for word in words)
        name = f"{unit}.{'timer' if timed else 'service'}"
        assert name not in self.transient, "systemd-run: the unit exists already"
        self.transient[name] = words[words.index("--") + 1 :]
        return ""

    # What a test asks

    def do(self, *words: str) -> int:
        return int(self.jobs.main(list(words)))

    def held(self) -> dict[str, Any]:
        self.jobs.KNOWN = None
        return dict(self.jobs.entries())

    def tree(self) -> dict[str, Any]:
        """Return all that stands on the host but our own memory: bytes, owner, mode, times."""
        found: dict[str, Any] = {}
        for path in sorted(self.root.rglob("*")):
            name = str(path.relative_to(self.root))
            if name.startswith(("var/lib/hikeshi", "run/hikeshi")):
                continue
            about = path.lstat()
            if path.is_dir() and not path.is_symlink():
                found[name] = (about.st_mode, about.st_uid)
                continue
            data, read = b"", about.st_atime_ns
            if path.is_symlink():
                data, read = os.fsencode(path.readlink()), 0  # following a link is a reading of it
            elif stat.S_ISREG(about.st_mode):
                with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOATIME), "rb") as file:
                    data = file.read()
            found[name] = (data, about.st_mode, about.st_uid, about.st_gid, about.st_mtime_ns, read)
        return found

    def state(self) -> Any:
        """Return what systemd believes; who wrote a file of systemd-run's changes nothing before it stops."""
        timers = {name: {key: timer[key] for key in timer if key != "made"} for name, timer in self.timers.items()}
        return json.loads(json.dumps([timers, self.units]))
