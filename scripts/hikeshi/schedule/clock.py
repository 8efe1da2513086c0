"""One clock: every job that hosts tell of, with its next firings, in the order in which they come.

Times are the host's own. What is merged with them, as deadlines, is the caller's.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from hikeshi.schedule import anacron, apt, at_spool, crontab, marks, seam, timers, walltime
from hikeshi.schedule.job import AHEAD, Firing, Job, Kind

_MOST = 5000  # jobs of a host whose times are worked out; a host that tells more means no good
_RUN_PARTS = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)  # names that Debian's run-parts(8) runs
_PERIODS = re.compile(r"/etc/cron\.(hourly|daily|weekly|monthly|yearly)\b")
_UNSHELLED = re.compile(r"^[@:+!|-]*")  # what may stand before a program in ExecStart=
_SHEBANG = re.compile(r"#![^\n]*/(?:env\s+)?(?:ba|da|a|z|k)?sh\b")


def jobs(told: Mapping[str, Any], names: Mapping[str, Iterable[str]]) -> list[Job]:
    """Return the jobs of hosts, the next one first; `names` are the site's hosts, with what else each is called.

    `told` is what each host's program said, by host. Raises for a host whose words cannot be judged.
    """
    known = {name.lower(): host for host, others in names.items() for name in (host, *others)}
    found = [job for host in sorted(told) for job in host_jobs(host, seam.read(host, told[host]), known)]
    return ordered(found)


def host_jobs(host: str, told: seam.Host, known: Mapping[str, str]) -> list[Job]:
    """Return the jobs of one host; `known` says of every name and address of the site whose it is, in small letters."""
    return list(_Host(host, told, known).jobs())


def ordered(found: Iterable[Job]) -> list[Job]:
    """Return jobs by the time at which they may go off, the worse first; behind them those that no clock calls."""

    def key(job: Job) -> tuple[bool, datetime, bool, int, str, str]:
        return (job.next is None, job.next or datetime.max.replace(tzinfo=UTC), not job.firings, marks.worst(job.marks),
                job.host, job.id)  # fmt: skip

    return sorted(found, key=key)


def worst(found: Iterable[Job], most: int) -> list[Job]:
    """Return the worst of some jobs, in their order: what reboots or deletes is never left out for what comes first."""
    known = list(found)
    kept = set(sorted(range(len(known)), key=lambda index: (badness(known[index]), index))[:most])
    return [job for index, job in enumerate(known) if index in kept]


def badness(job: Job) -> tuple[bool, int, bool]:
    """Order by what a job would do: what fires before what does not, what is not understood before what is."""
    return not job.firings, marks.worst(job.marks), not job.unknown


def before(found: Iterable[Job], deadline: datetime, *, events: bool = True) -> list[Job]:
    """Return the jobs that may go off before a deadline; with `events` those that wait for one, too, as for a boot.

    What is stopped may start again before it: a stopped daemon does with the next boot.
    """
    return [
        job for job in found
        if any(at < deadline for at in job.times) or (events and any(firing.on_event for firing in job.firings))
    ]  # fmt: skip


class _Host:
    """What one host tells, and what comes of it."""

    def __init__(self, name: str, told: seam.Host, known: Mapping[str, str]) -> None:
        self.name = name
        self.told = told
        self.known = dict(known)
        self.now = walltime.from_epoch(told.now) or datetime(1970, 1, 1, tzinfo=UTC)
        self.boot = timers.told(told.boot)
        self.zone = walltime.zone(told.zone) or ZoneInfo("UTC")
        self.anacron_there = self._daemon("anacron") not in ("absent", "")

    def jobs(self) -> Iterator[Job]:
        """Yield the host's jobs; what another kind starts comes behind it."""
        found = list(self._timers())
        found += self._files("crontab", self._crontab)
        found += self._files("cron.d", self._crontab)
        found += self._anacron(found)
        found += self._files("at", self._at)
        found += self._files("shutdown", self._shutdown)
        found += self._periodic(found)
        found += self._apt(found)
        found += self._units()
        for number, job in enumerate(found):
            # Beyond any host that means well: it may go off at any time, for all we know.
            yield job if number < _MOST else replace(job, firings=(Firing(None, None, "not worked out"),), unknown=True)

    def _files(self, source: str, read: Any) -> Iterator[Job]:
        for file in self.told.files:
            if file.source == source:
                yield from read(file)

    def _daemon(self, name: str) -> str:
        return self.told.daemons.get(name, "")

    def _stopped(self, daemon: str) -> str:
        if self.told.offline:
            return "the host is off"
        state = self._daemon(daemon)
        return f"{daemon} is {state}" if state not in ("active", "") else ""

    def _job(
        self, job_id: str, kind: Kind, user: str, schedule: str, body: str, *, firings: tuple[Firing, ...] = (),
        stopped: str = "", stdin: str = "", shell: bool = True, cut: bool = False,
    ) -> Job:  # fmt: skip
        meaning = marks.meaning(body, stdin)
        reaches = marks.reaches(meaning.addresses, self.known, self.name)
        whole = f"{body}\n{stdin}" if stdin else body
        unknown = meaning.unknown or not shell or cut
        return Job(job_id, self.name, kind, user, schedule, whole, meaning.ordered, reaches, firings, unknown, stopped)

    def _crontab(self, file: seam.File) -> Iterator[Job]:
        system = file.source == "cron.d"
        table = crontab.parse(file.content, user="" if system else file.name)
        never = self._never_read(file) or (f"cron ignores the whole file: {table.ignored}" if table.ignored else "")
        for line in table.lines:
            said = line.wrong or ("" if line.expression else "its times never come")
            stopped = never or said or self._stopped("cron")
            firings: tuple[Firing, ...] = ()
            if line.expression == crontab.REBOOT:
                firings = (Firing(None, None, "at the next boot, when cron starts"),)
            elif line.expression:
                times = crontab.next_firings(line.expression, self.now, self.zone, AHEAD)
                firings = tuple(Firing(at, at) for at in times)
            yield self._job(
                f"cron:{file.path}:{line.number}:{line.digest}", "cron", _text(line.user), _text(line.times),
                _text(line.command), stdin=_text(line.stdin), firings=() if never or line.wrong else firings,
                stopped=stopped, cut=file.truncated,
            )  # fmt: skip

    def _never_read(self, file: seam.File) -> str:
        """Return why cron reads nothing of a file (database.c, process_crontab). A cut file it reads whole, not we."""
        mode = int(file.mode, 8)
        if file.source == "crontab":
            if file.name.startswith("."):
                return "cron passes over a name that begins with a dot"
            return "" if mode & 0o7777 == 0o600 else f"cron ignores the file: its mode is {file.mode}, not 0600"
        if file.path != "/etc/crontab" and not crontab.runs_of_name(file.name):
            return "cron passes over a name with other characters than letters, digits, _ and -"
        if file.uid != 0:
            return "cron ignores the file: it is not root's"
        return "cron ignores the file: others may write to it" if mode & 0o022 else ""

    def _at(self, file: seam.File) -> Iterator[Job]:
        spooled = at_spool.parse_name(file.name)
        if spooled is None:
            return
        script = at_spool.parse_body(file.content)
        never = at_spool.never(spooled, script, mode=int(file.mode, 8), uid=file.uid)
        running = not self.told.offline and self._daemon("atd") in ("active", "")
        firings = at_spool.firings(spooled, self.now, running=running)
        yield self._job(
            f"at:{file.name}", "at", file.owner or str(file.uid), f"job {spooled.number}, queue {spooled.queue}",
            script.body, firings=() if never else firings, stopped=never or self._stopped("atd"), cut=file.truncated,
        )  # fmt: skip

    def _timers(self) -> Iterator[Job]:
        for told in self.told.timers:
            firings, wrong = timers.firings(told, self.now, self.boot, self.zone, offline=self.told.offline)
            stopped = self._timer_stopped(told)
            schedule = ", ".join([*told.calendar, *(f"{name}={seconds:g}s" for name, seconds in told.monotonic)])
            body = "\n".join(_UNSHELLED.sub("", command) for command in told.commands)
            job = self._job(f"timer:{told.unit}", "timer", told.user, schedule, body, firings=firings, stopped=stopped)
            yield replace(job, unknown=job.unknown or bool(wrong) or not told.commands, stopped=job.stopped or wrong)

    def _timer_stopped(self, told: seam.Timer) -> str:
        if self.told.offline:
            return "the host is off"
        if told.active:
            return ""
        return "the timer is masked" if told.enabled.startswith("masked") else "the timer is not active"

    def _anacron(self, found: Iterable[Job]) -> Iterator[Job]:
        # Of a timer that is stopped, as on a host that is off, the times say nothing: it starts with the next boot.
        timer = [job for job in found if job.id == "timer:anacron.timer" and not job.stopped]
        starts = [firing for job in timer for firing in job.firings]
        stamps = {file.name: file.content for file in self.told.files if file.source == "anacron_stamp"}
        for file in self.told.files:
            if file.source != "anacrontab":
                continue
            entries, random = anacron.parse(file.content)
            for entry in entries:
                last = anacron.parse_stamp(stamps.get(entry.name, b""))
                firings: tuple[Firing, ...] = ()
                if not entry.wrong:
                    firings = anacron.firings(entry, last, self.now, self.zone, starts, random)
                absent = "" if self.anacron_there else "anacron is not installed"
                period = entry.period if entry.period.startswith("@") else f"every {entry.period} days"
                schedule = f"{period}, after {entry.delay} min"
                yield self._job(
                    f"anacron:{entry.name}", "anacron", "root", schedule, entry.command,
                    firings=() if absent else firings, stopped=entry.wrong or absent, cut=file.truncated,
                )  # fmt: skip

    def _periodic(self, found: Iterable[Job]) -> Iterator[Job]:
        """Yield the scripts that run-parts runs, at the times of what runs it on their directory."""
        runners: dict[str, list[Job]] = {}
        for job in found:
            # Debian's own crontab leaves its directories to anacron, where that is installed.
            guarded = job.kind == "cron" and "/usr/sbin/anacron" in job.body and self.anacron_there
            for period in set(_PERIODS.findall(job.body)) if "run-parts" in job.body and not guarded else ():
                runners.setdefault(period, []).append(job)
        for file in self.told.files:
            period = _PERIODS.match(file.path)
            if file.source != "periodic" or file.name == ".placeholder" or period is None:
                continue
            by = runners.get(period[1], [])
            never = self._never_run(file) or ("" if by else "nothing runs its directory")
            all_firings = {firing for job in by for firing in job.firings}
            firings = sorted(all_firings, key=lambda firing: (firing.earliest or self.now, firing.why))
            stopped = by[0].stopped if by and all(job.stopped for job in by) else ""
            text = file.content.decode("utf-8", "surrogateescape")
            yield self._job(
                f"periodic:{file.path}", "periodic", "root", period[1], text, shell=bool(_SHEBANG.match(text)),
                firings=() if never else tuple(firings[: AHEAD + 1]), stopped=never or stopped, cut=file.truncated,
            )  # fmt: skip

    @staticmethod
    def _never_run(file: seam.File) -> str:
        if not _RUN_PARTS.fullmatch(file.name):
            return "run-parts passes over a name with other characters than letters, digits, _ and -"
        return "" if int(file.mode, 8) & 0o111 else "run-parts passes over what is not executable"

    def _shutdown(self, file: seam.File) -> Iterator[Job]:
        """Yield the shutdown that logind holds ready (systemd 252, src/login/logind-dbus.c, USEC= and MODE=)."""
        text = file.content.decode("utf-8", "surrogateescape")
        lines = sorted(text.splitlines())  # what it does, MODE=, comes first
        settings = dict(line.partition("=")[::2] for line in lines)
        mode, micros = settings.get("MODE", ""), settings.get("USEC", "")
        at = walltime.from_epoch(int(micros) / 1_000_000) if re.fullmatch(r"[0-9]{1,18}", micros, re.ASCII) else None
        user = settings.get("UID", file.owner)
        never = "a dry run" if mode.startswith("dry-") else "the host is off" if self.told.offline else ""
        # One whose time cannot be read may come at once.
        firing = Firing(at, at) if at else Firing(self.now, None, "its time cannot be read")
        job = self._job(
            "shutdown:scheduled", "shutdown", user, f"{mode or 'shutdown'} by shutdown(8)", "\n".join(lines)
        )
        yield replace(job, marks=("reboots",), unknown=False, firings=() if never else (firing,), stopped=never)

    def _apt(self, found: Iterable[Job]) -> Iterator[Job]:
        files = sorted((file for file in self.told.files if file.source == "apt"), key=lambda file: file.path)
        settings = apt.parse(file.content for file in files)
        if not apt.reboots(settings):
            return
        stopped = apt.stopped(settings, self._daemon("unattended-upgrades"))
        upgrades = [firing for job in found if job.id == "timer:apt-daily-upgrade.timer" for firing in job.firings]
        firings = apt.firings(settings, upgrades, self.zone, wanted=self.told.reboot_required)
        time = apt.time(settings)
        job = self._job("apt:automatic-reboot", "apt", "root", f"Automatic-Reboot-Time {time}", f"shutdown -r {time}")
        if not firings:
            firings = (Firing(None, None, "after an upgrade that wants a reboot"),)
        yield replace(job, marks=("reboots",), firings=() if stopped else firings, stopped=stopped)

    def _units(self) -> Iterator[Job]:
        for told in self.told.reboot_units:
            actions = ", ".join(f"{name}={action}" for name, action in sorted(told.actions.items()))
            job = self._job(f"unit:{told.unit}", "unit", "root", actions, "")
            why = f"when {told.unit} fails or ends"
            stopped = "" if told.active else f"{told.unit} is not active"
            yield replace(job, marks=("reboots",), unknown=False, firings=(Firing(None, None, why),), stopped=stopped)


def _text(latin: str) -> str:
    """Return text that was read as Latin-1 as the UTF-8 that it mostly is; other bytes stay told apart."""
    return latin.encode("latin-1").decode("utf-8", "surrogateescape")
