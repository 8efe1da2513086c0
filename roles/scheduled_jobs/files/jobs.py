#!/usr/bin/python3
"""What is scheduled to go off on this host: told, held, and put back exactly. Standard library only.

    jobs collect [--root DIR]                    all of it as JSON (schema 1); reads only
    jobs hold ID[=EPOCH]… [--root DIR]           take jobs out of reach; EPOCH is when each would go off next
    jobs release [ID…] [--due ID=EPOCH]…         put back all, or these; what came due meanwhile is told, and not run
    jobs release --run ID                        run one job that is held, as it would have run
    jobs shield on [SECONDS]|off|status          refuse reboot, poweroff, halt and kexec, root's as well; ends by itself
    jobs restore                                 at boot: finish what was killed, arm the shield for what it has left
    jobs note                                    log who submitted a job to at, and which left the spool
    jobs going                                   while the host goes down: log who is logged in

`--check` behind hold, release and shield only says what would change. An ID is what the thing is: at:a0000301b8a2f4,
cron:PATH:LINE:HASH, periodic:PATH, anacron:NAME, timer:UNIT, shutdown:scheduled, apt:automatic-reboot, unit:UNIT.

Each job is saved in STATE with a manifest that says what is meant, on disk before anything is done, so that whatever
was killed is finished by the next call, or at boot. No job is run here but by `--run`, no daemon started or stopped:

- at: the file leaves the spool; atd (3.2.5, run_loop) runs what it finds there. One that came due is not put back.
- cron, anacron: the line becomes a comment, the file replaced by rename; cron reads it again by its time.
- periodic: without its x bits, run-parts passes over it.
- timer: stopped, then a condition that never holds keeps it so. systemd reads that in a reload, which is left out where
  it could fire timers whose files were edited (systemd 252, timer_coldplug). Started again it counts from now; one with
  OnBootSec= would elapse at once (timer_enter_waiting), and is left stopped and told.
- timer of systemd-run: systemd forgets it when it stops (unit_remove_transient), so its files are saved, and put back;
  one that counts from its start gets what is left of its time. One that came due, and has no other time, is kept.
- shutdown: cancelled by logind, and scheduled anew. apt: a setting that comes last. unit: its actions set to none.

Exit status: 0 done · 1 failed · 2 something was refused, and is named; nothing of it was changed.
"""

import base64
import codecs
import contextlib
import datetime
import errno
import fcntl
import hashlib
import json
import os
import pwd
import re
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import time
import urllib.parse

ROOT = ""  # every path below is looked for in there
KNOWN = None  # the manifests, once they were read
OFFLINE = False  # the disk of a system that does not run: nobody is asked, only files are changed
STATE = "/var/lib/hikeshi/jobs"
FORGOTTEN = "forgotten.json"  # what a manifest is called of which nothing is held any more
PROGRAM = "/usr/local/lib/hikeshi/jobs"
SPOOL = "/var/spool/cron/atjobs"
ANACRON, STAMPS = "/etc/anacrontab", "/var/spool/anacron"
SHUTDOWN = "/run/systemd/shutdown/scheduled"
APT, APT_MAIN, APT_HELD = "/etc/apt/apt.conf.d", "/etc/apt/apt.conf", "/etc/apt/apt.conf.d/zzz-hikeshi-held"
UNITS, DROP_IN = "/etc/systemd/system", "zz-hikeshi-held.conf"
TRANSIENT = "/run/systemd/transient"
TIMER_STAMPS = "/var/lib/systemd/timers"
POLICY = "/etc/dbus-1/system.d/hikeshi-shield.conf"
SESSIONS = "/run/systemd/sessions"
SEEN = "/run/hikeshi-jobs.json"
PERIODS = ("hourly", "daily", "weekly", "monthly", "yearly")
FOLDERS = (
    ("at", SPOOL),
    ("crontab", "/var/spool/cron/crontabs"),
    ("cron.d", "/etc/cron.d"),
    *(("periodic", f"/etc/cron.{period}") for period in PERIODS),
    ("anacron_stamp", STAMPS),
    ("apt", APT),
)
FILES = (("cron.d", "/etc/crontab"), ("anacrontab", ANACRON), ("shutdown", SHUTDOWN), ("apt", APT_MAIN))
DAEMONS = {"atd": "/usr/sbin/atd", "cron": "/usr/sbin/cron", "anacron": "/usr/sbin/anacron",
           "unattended-upgrades": "/usr/bin/unattended-upgrade"}  # fmt: skip
ACTIONS = ("FailureAction", "SuccessAction", "StartLimitAction", "JobTimeoutAction")
# They reboot because somebody asked for it: that is the shield's business.
MEANT = re.compile(r"(systemd-)?(reboot|poweroff|halt|kexec|soft-reboot|exit)\.(service|target)")
TARGETS = (
    "reboot.target",
    "poweroff.target",
    "halt.target",
    "kexec.target",
    "soft-reboot.target",
    "ctrl-alt-del.target",
)
MEMBERS = ("Reboot", "RebootWithFlags", "PowerOff", "PowerOffWithFlags", "Halt", "HaltWithFlags", "ScheduleShutdown")
LOGIN = ("org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager")
MARK = b"#hikeshi-held "
TEXT, TOTAL, MOST, SECONDS = 256 << 10, 16 << 20, 2000, 20  # bytes of a file and of all, files, seconds of `collect`
UNCHANGED = ("refused", "failed", "not there", "already held")
SHIELD_S, SHIELD_MOST_S = 3 * 3600, 86400
LOCK_WAIT_S, COMMAND_S = 30, 20
# UTC, because systemctl (252) tells when a timer elapses in the zone's own words, whatever --timestamp= says.
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
HEX = re.compile(r"\s*(?P<number>[+-]?(?:0[xX](?=[0-9a-fA-F]))?[0-9a-fA-F]+)", re.ASCII)
# Behind the environment that a job of at carries (at.c, writefile).
AT_BEGIN = re.compile(rb"^cd [^\n]* \|\| \{\n[^\n]*\n[^\n]*\n\}\n", re.MULTILINE)
UNIT_NAME = re.compile(r"[A-Za-z0-9@:_.\\-]{1,250}\.[a-z]+", re.ASCII)
UNIT_FILE = re.compile(r".{1,250}\.(service|timer|target|socket|mount|automount|path|slice|swap)", re.DOTALL)
ANACRON_JOB = re.compile(r"[ \t]*(@[^ \t]+|[0-9]+)[ \t]+[0-9]+[ \t]+([^ \t/]+)[ \t]+[^ \t]", re.ASCII)
SPANS = {"y": 31557600, "month": 2629800, "w": 604800, "d": 86400, "h": 3600, "min": 60, "s": 1, "ms": 1e-3, "us": 1e-6}


class RefusedError(Exception):
    """Not done, nothing changed; the words say why and what to do."""


class GoneError(Exception):
    """There is no such job any more."""


def run(*words):
    """Run a command that changes something; raise OSError with its own words when it fails."""
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", env=ENVIRONMENT,
            timeout=COMMAND_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{' '.join(words)}: no answer in {COMMAND_S} s") from error
    except FileNotFoundError as error:
        raise OSError(f"{words[0]} is not installed") from error
    if done.returncode:
        raise OSError(f"{' '.join(words)}: {done.stderr.strip() or done.stdout.strip() or done.returncode}")
    return done.stdout


def asks(*words):
    """Run a command that asks; return what it says, whatever its exit status."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", env=ENVIRONMENT,
            timeout=COMMAND_S, check=False,
        ).stdout  # fmt: skip
    return ""


# Files


def at(path):
    """Return where a path lies in the root: no link among its folders leads out; its last part is not followed."""
    done, todo, links = [], [part for part in path.split("/") if part], 0
    while todo:
        part = todo.pop(0)
        if part in ("..", "."):
            done = done[:-1] if part == ".." else done
            continue
        here = f"{ROOT}/{'/'.join([*done, part])}"
        if todo and os.path.islink(here):
            links += 1
            if links > 40:
                raise OSError(errno.ELOOP, "too many links", path)
            target = os.readlink(here)
            done = [] if target.startswith("/") else done
            todo = [word for word in target.split("/") if word] + todo
            continue
        done.append(part)
    return f"{ROOT}/{'/'.join(done)}"


def opened(path):
    """Open a regular file to read, and nothing else; leave its time of access alone."""
    place = at(path)
    if not stat.S_ISREG(os.lstat(place).st_mode):
        raise OSError(errno.EINVAL, "is a link" if os.path.islink(place) else "is no regular file", path)
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        handle = os.open(place, flags | os.O_NOATIME)
    except PermissionError:
        handle = os.open(place, flags)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "is no regular file", path)
    return os.fdopen(handle, "rb")


def read(path, most=-1):
    """Return a file's bytes; raise FileNotFoundError where there is none."""
    with opened(path) as file:
        return file.read(most)


def look(path):
    """Return what must be put back of a file besides its bytes."""
    found = os.lstat(at(path))
    if not stat.S_ISREG(found.st_mode):
        raise RefusedError(f"{path} is no regular file; hold it by hand")
    return {"mode": stat.S_IMODE(found.st_mode), "uid": found.st_uid, "gid": found.st_gid,
            "atime_ns": found.st_atime_ns, "mtime_ns": found.st_mtime_ns}  # fmt: skip


def sync(folder):
    """Make renames in a folder outlive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def temporary_of(place):
    """Return the name under which a file is written: hidden, and one that no daemon reads."""
    return f"{os.path.dirname(place)}/.{os.path.basename(place)[:200]}.hikeshi"


def remove(place):
    """Remove a file of ours that may be there, whole or half written."""
    for path in (temporary_of(place), place):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    with contextlib.suppress(FileNotFoundError):
        sync(os.path.dirname(place))


def put(place, data, like, times=True):
    """Write a file whole or not at all, with owner, mode and times; a link in its place is replaced."""
    temporary = temporary_of(place)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchown(handle, like["uid"], like["gid"])
            os.fchmod(handle, like["mode"])
            if times:
                os.utime(handle, ns=(like["atime_ns"], like["mtime_ns"]))
            os.fsync(handle)
        os.replace(temporary, place)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    sync(os.path.dirname(place))


def move(source, target):
    """Move a file so that it is never in both places under its own name, nor half in one."""
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with open(source, "rb") as file:
            found = os.fstat(file.fileno())
            put(target, file.read(), {"mode": stat.S_IMODE(found.st_mode), "uid": found.st_uid, "gid": found.st_gid,
                                      "atime_ns": found.st_atime_ns, "mtime_ns": found.st_mtime_ns})  # fmt: skip
        os.unlink(source)
    sync(os.path.dirname(target))
    sync(os.path.dirname(source))


# What is meant, on disk


def folder_of(ident):
    """Return the folder of a job that is held."""
    kind, digest = ident.split(":")[0], hashlib.sha256(os.fsencode(ident)).hexdigest()[:16]
    return f"{at(STATE)}/{kind}-{digest}"


def entries():
    """Return the manifests of all that is held, by id; read once a call of this program, which alone changes them."""
    if KNOWN is None:
        return known(os.listdir(at(STATE)) if os.path.isdir(at(STATE)) else [])
    return KNOWN


def known(names):
    """Read the manifests from disk."""
    global KNOWN  # noqa: PLW0603 (one program, which alone changes them)
    KNOWN = {}
    for name in sorted(names):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            if not name.startswith("."):
                entry = json.loads(read(f"{STATE}/{name}/manifest.json"))
                KNOWN[entry["id"]] = entry
    return KNOWN


def lost():
    """Return the folders of held jobs whose manifest cannot be read: nothing else tells what they hold."""
    names = os.listdir(at(STATE)) if os.path.isdir(at(STATE)) else []
    told = {os.path.basename(folder_of(ident)) for ident in entries()}
    return [
        f"{STATE}/{name}" for name in sorted(names)
        if not name.startswith(".") and name not in told and not os.path.exists(f"{at(STATE)}/{name}/{FORGOTTEN}")
    ]  # fmt: skip


def save(entry):
    """Write a manifest, whole and on disk, before what it says is done."""
    owner = {"mode": 0o600, "uid": os.geteuid(), "gid": os.getegid()}
    put(f"{folder_of(entry['id'])}/manifest.json", json.dumps(entry, indent=1).encode(), owner, times=False)
    entries()[entry["id"]] = entry


def begin(entry, data):
    """Save a job and say that it is to be held, by one rename; then everything needed to put it back is on disk."""
    folder = folder_of(entry["id"])
    new = f"{os.path.dirname(folder)}/.new"
    shutil.rmtree(new, ignore_errors=True)
    os.mkdir(new, 0o700)
    for name, (content, like) in data.items():
        put(f"{new}/{name}", content, like)
    with open(f"{new}/manifest.json", "w", encoding="ascii") as file:
        json.dump(entry, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    sync(new)
    if os.path.exists(f"{folder}/{FORGOTTEN}"):
        shutil.rmtree(folder)
    os.rename(new, folder)
    sync(os.path.dirname(folder))
    entries()[entry["id"]] = entry


def forget(ident):
    """Say by one rename that nothing of a job is held any more."""
    folder = folder_of(ident)
    gone = f"{os.path.dirname(folder)}/.gone"
    shutil.rmtree(gone, ignore_errors=True)
    try:
        os.rename(folder, gone)
    except OSError as error:
        if error.errno != errno.EXDEV:  # on layers (overlay) no directory is renamed that came with a lower one
            raise
        os.rename(f"{folder}/manifest.json", f"{folder}/{FORGOTTEN}")
        gone = folder
    sync(os.path.dirname(folder))
    entries().pop(ident, None)
    shutil.rmtree(gone, ignore_errors=True)


def saved(entry, name="saved"):
    """Return the bytes that were saved of a job."""
    with open(f"{folder_of(entry['id'])}/{name}", "rb") as file:
        return file.read()


@contextlib.contextmanager
def locked(verb):
    """Hold the lock of all changes; refuse, naming its holder, when it is not let go in time."""
    for folder in (os.path.dirname(STATE), STATE):
        os.makedirs(at(folder), mode=0o700, exist_ok=True)
    handle = os.open(at(f"{STATE}/.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        end = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > end:
                    holder = os.pread(handle, 200, 0).decode(errors="replace") or "somebody"
                    raise RefusedError(
                        f"jobs are being changed by {holder} for {LOCK_WAIT_S} s and more; run again then"
                    ) from error
                time.sleep(0.05)
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"pid {os.getpid()}, {verb}, {time.strftime('%H:%M:%S %Z')}".encode(), 0)
        yield
    finally:
        os.close(handle)


# systemd


def blocks(*words):
    """Return what `systemctl show` says, a dictionary a unit, of name → its values; in the order asked for."""
    found = []
    for block in asks("systemctl", "show", *words).strip().split("\n\n"):
        unit = {}
        for line in block.splitlines():
            name, sign, value = line.partition("=")
            if sign:
                unit.setdefault(name, []).append(value)
        if unit:
            found.append(unit)
    return found


def shown(properties, names):
    """Return what systemd says of units, by id; those behind one that it cannot show are asked for again."""
    found, todo = {}, list(names)
    while todo:
        told = blocks(f"--property={','.join(('Id', *properties))}", "--", *todo)
        found.update({unit.get("Id", [""])[0]: unit for unit in told})
        todo = todo[max(1, len(told)) :]
    return found


def one(unit, name):
    """Return the only value of a property."""
    return (unit.get(name) or [""])[0]


def seconds(text):
    """Return a time span of systemd's in seconds; None for one without end, or none at all."""
    parts = re.findall(r"(\d+(?:\.\d+)?)(month|min|ms|us|[ywdhs])", text)
    return sum(float(number) * SPANS[unit] for number, unit in parts) if parts or text == "0" else None


def epoch(text):
    """Return a point in time that systemd tells, as `Sat 2026-11-28 03:00:00 UTC`; None where there is none."""
    with contextlib.suppress(ValueError):
        told = datetime.datetime.strptime(text.strip(), "%a %Y-%m-%d %H:%M:%S UTC")
        return told.replace(tzinfo=datetime.UTC).timestamp() or None
    return None


def monotonic(unit):
    """Return the monotonic settings of a timer, as [(name, seconds)]."""
    pairs = [re.match(r"\{ (\w+)=(.*?) ; next_elapse=", value) for value in unit.get("TimersMonotonic", [])]
    return [(pair[1].replace("USec", "Sec"), seconds(pair[2]) or 0.0) for pair in pairs if pair]


def calendar(unit):
    """Return the calendar events of a timer."""
    pairs = [re.match(r"\{ OnCalendar=(.*?) ; next_elapse=", value) for value in unit.get("TimersCalendar", [])]
    return [pair[1] for pair in pairs if pair]


def next_of(unit):
    """Return when systemd means to let a timer elapse next; None when it does not."""
    times = (epoch(one(unit, "NextElapseUSecRealtime")), next_monotonic(unit))
    return min((when for when in times if when), default=None)


def next_monotonic(unit):
    """Return when a timer elapses next that counts from something; None when it does not."""
    span = seconds(one(unit, "NextElapseUSecMonotonic"))
    return time.time() - time.clock_gettime(time.CLOCK_MONOTONIC) + span if span else None


def foreign_timers():
    """Return the timers that a reload of systemd could fire: active, edited since it read them, and not held."""
    ours = {entry.get("unit") for entry in entries().values() if entry["kind"] == "timer"}
    told = blocks("--property=Id,ActiveState,NeedDaemonReload", "--", "*.timer")
    edited = [one(unit, "Id") for unit in told if one(unit, "ActiveState") == "active"
              and one(unit, "NeedDaemonReload") == "yes"]  # fmt: skip
    return sorted(set(edited) - ours)


def may_reload(why):
    """Refuse where a reload of systemd could fire somebody's timer."""
    edited = foreign_timers()
    if edited:
        raise RefusedError(
            f"{why} needs systemctl daemon-reload, which could fire what was edited and not read yet: "
            f"{', '.join(edited)}. Hold it first: hold {' '.join(f'timer:{name}' for name in edited)}"
        )


def drop_in(unit):
    """Return the path of our drop-in of a unit."""
    return f"{UNITS}/{unit}.d/{DROP_IN}"


def write_drop_in(unit, text):
    """Write our drop-in of a unit; return whether it was missing."""
    place = at(drop_in(unit))
    if os.path.lexists(place):
        return False
    if not os.path.isdir(os.path.dirname(place)):
        os.mkdir(os.path.dirname(place))
        os.chmod(os.path.dirname(place), 0o755)  # noqa: S103 (as any folder of drop-ins)
    owner = {"mode": 0o644, "uid": os.geteuid(), "gid": os.getegid()}
    put(place, f"# hikeshi holds this unit; `jobs release` takes the file away.\n[Unit]\n{text}".encode(), owner, False)
    return True


def remove_drop_in(entry):
    """Take our drop-in away, and its folder if that was ours."""
    place = at(drop_in(entry["unit"]))
    remove(place)
    if entry["made_folder"]:
        with contextlib.suppress(OSError):  # somebody else's drop-in lies there by now
            os.rmdir(os.path.dirname(place))


def has_read(unit):
    """Say whether systemd has read our drop-in."""
    return drop_in(one(unit, "Id")) in " ".join(unit.get("DropInPaths", [])).split()


# Kinds: `find` says what is to be saved (facts, and its files by name: bytes and what they are like), `take` takes out
# of reach, `give` puts back; these two may be called again


def minute_of(name):
    """Return the minute in a name of at's as atd reads it, `%c%5lx%8lx` and whatever stands behind; None for no job."""
    number = HEX.match(name[1:6])
    minute = HEX.match(name[1 + number.end() :][:8]) if number else None
    return max(0, int(minute["number"], 16)) if minute else None


class At:
    """A file in at's spool."""

    def find(self, ident):
        """Return the facts of a job, and its bytes."""
        name = ident.partition(":")[2]
        if name.startswith("="):
            raise RefusedError(
                f"{ident} runs already: see `ps -ef --forest` for atd, and stop it by hand if it must not"
            )
        minute = minute_of(name)
        if minute is None or "/" in name:
            raise RefusedError(f"{ident}: atd reads no such name")
        path = f"{SPOOL}/{name}"
        facts = {"path": path, "stat": look(path), "due": minute * 60}
        if os.path.lexists(at(f"{SPOOL}/={name[1:]}")):
            raise RefusedError(f"{ident} is being started by atd this moment")
        return facts, {"saved": (read(path), facts["stat"])}

    def take(self, entry):
        """Take the file out of the spool; it stays the same file."""
        source, target = at(entry["path"]), f"{folder_of(entry['id'])}/job"
        if os.path.lexists(target):
            return False
        if not os.path.lexists(source):
            raise GoneError("it left the spool while it was being held: atd has run it, or somebody removed it")
        move(source, target)
        # atd starts a job by a second name for its file (run_file: link, then unlink).
        if os.path.lexists(f"{os.path.dirname(source)}/={os.path.basename(source)[1:]}"):
            raise GoneError("atd had begun to run it when it was taken out of the spool")
        return True

    def give(self, entry, due):
        """Put the file back into the spool; one that came due atd would run at once, and it is kept."""
        source, target = f"{folder_of(entry['id'])}/job", at(entry["path"])
        if not os.path.lexists(source):
            return "exact", ""
        if entry["due"] <= time.time() and not entry.get("run"):
            return "came due", f"atd would run it at once, so it is kept; `release --run {entry['id']}` runs it"
        if os.path.lexists(target):
            raise RefusedError(f"{entry['path']} stands there again, and is another file; move it away first")
        os.utime(source, ns=(entry["stat"]["atime_ns"], entry["stat"]["mtime_ns"]))
        move(source, target)
        wake_atd()
        return "exact", ""

    def start(self, entry):
        """Let atd run a job as its user: it does with what is overdue in its spool."""
        if OFFLINE or asks("systemctl", "is-active", "atd.service").strip() != "active":
            raise RefusedError(
                "atd is not active, so putting the job back would run it some time later; start atd first"
            )
        entry["run"] = True
        save(entry)
        self.give(entry, None)
        return "put back: atd runs it now as its user"


def wake_atd():
    """Let atd look into its spool again, as at(1) does: it sleeps until what it knew of."""
    with contextlib.suppress(OSError, ValueError):
        pid = int(read("/run/atd.pid", 20))
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as comm:
            if comm.read().strip() == "atd" and not OFFLINE:
                os.kill(pid, signal.SIGHUP)


class Line:
    """A line of a crontab or of the anacrontab."""

    def parts(self, ident):
        """Return (path, what a line must be) of an id."""
        kind, _, rest = ident.partition(":")
        if kind == "anacron":

            def named(number, line):
                job = ANACRON_JOB.match(line.decode("utf-8", "surrogateescape"))
                return bool(job) and job[2] == rest

            return ANACRON, named
        found = re.fullmatch(r"(/(?:etc/crontab|etc/cron\.d/[^/]+|var/spool/cron/crontabs/[^/]+)):(\d+):([0-9a-f]{8})",
                             rest, re.DOTALL)  # fmt: skip
        if not found:
            raise RefusedError(f"{ident}: allowed is cron:PATH:LINE:HASH of a crontab that cron reads")
        return (
            found[1],
            lambda number, line: (
                (number is None or number == int(found[2])) and hashlib.sha256(line).hexdigest()[:8] == found[3]
            ),
        )

    def mark(self, ident):
        """Return what stands before a line that is held."""
        return MARK + urllib.parse.quote(os.fsencode(ident), safe="/:@+=,-._~").encode() + b" "

    def marked(self, data, ident):
        """Return the bytes of a file with the line, or lines, of a job marked."""
        _, fits = self.parts(ident)
        lines = data.split(b"\n")
        return b"\n".join(
            self.mark(ident) + line if fits(number, line) else line for number, line in enumerate(lines, start=1)
        )

    def stripped(self, data, idents):
        """Return the bytes of a file without the marks of these jobs; what only looks like one of ours stays."""
        marks = {self.mark(ident): self.parts(ident)[1] for ident in idents}
        lines = data.split(b"\n")
        for index, line in enumerate(lines):
            mark = b" ".join(line.split(b" ", 2)[:2]) + b" " if line.startswith(MARK) else b""
            if mark in marks and marks[mark](None, line[len(mark) :]):
                lines[index] = line[len(mark) :]
        return b"\n".join(lines)

    def beside(self, entry):
        """Return the others held in the same file."""
        lines = (other for other in entries().values() if other["kind"] in ("cron", "anacron"))
        return [other for other in lines if other["path"] == entry["path"] and other["id"] != entry["id"]]

    def find(self, ident):
        """Return the facts of a line, and the bytes of its file as they were before we held anything in it."""
        path, _ = self.parts(ident)
        data = read(path)
        facts = {"path": path, "stat": look(path), "due": None}
        beside = self.beside({"id": ident, "path": path})
        whole = self.stripped(data, [other["id"] for other in beside])
        if self.marked(data, ident) == data:
            raise GoneError("there is no such line any more; collect again")
        for other in beside:
            if saved(other) == whole:
                facts["stat"] = {**other["stat"], **{key: facts["stat"][key] for key in ("mode", "uid", "gid")}}
        return facts, {"saved": (whole, facts["stat"])}

    def write(self, entry, data, like=None):
        """Replace the file; cron reads it again where a time changed by a second, of the file and of its folder."""
        place = at(entry["path"])
        folder, now = os.path.dirname(place), look(entry["path"])
        before, file_before = os.stat(folder), now["mtime_ns"]
        put(place, data, like or now, times=like is not None)
        if like is None and os.stat(place).st_mtime_ns // 10**9 in (
            file_before // 10**9,
            entry["stat"]["mtime_ns"] // 10**9,
        ):
            later = max(file_before, entry["stat"]["mtime_ns"]) + 10**9
            os.utime(place, ns=(now["atime_ns"], later))
        if os.stat(folder).st_mtime_ns // 10**9 <= before.st_mtime_ns // 10**9:
            os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns + 10**9))

    def take(self, entry):
        """Make the line a comment."""
        try:
            data = read(entry["path"])
        except FileNotFoundError as error:
            raise GoneError("its file is gone") from error
        if any(line.startswith(self.mark(entry["id"])) for line in data.split(b"\n")):
            return False
        held = self.marked(data, entry["id"])
        if held == data:
            raise GoneError("its line is gone, or was edited: then it is another job; collect again")
        self.write(entry, held)
        return True

    def give(self, entry, due):
        """Put the file back as it was, or, where somebody edited it, only take our mark away."""
        try:
            data, stands = read(entry["path"]), look(entry["path"])
        except FileNotFoundError:
            return "gone", "somebody removed the file while its line was held; it stays away"
        others = [other["id"] for other in self.beside(entry)]
        mine = self.stripped(data, [entry["id"]])
        same = self.stripped(mine, others) == saved(entry)
        owner = all(stands[key] == entry["stat"][key] for key in ("mode", "uid", "gid"))
        if same and mine == saved(entry):
            like = {**entry["stat"], **{key: stands[key] for key in ("mode", "uid", "gid")}}
            if mine != data or stands["mtime_ns"] != like["mtime_ns"]:
                self.write(entry, mine, like)
        elif mine != data:
            self.write(entry, mine)
        why = "" if same and owner else "somebody edited the file since: only our mark was taken away"
        if entry["kind"] == "anacron" and due and due <= time.time():
            why = "; ".join(filter(None, (why, self.stamp(entry))))
        return ("exact" if same and owner else "edited"), why

    def stamp(self, entry):
        """Make anacron believe that a job that came due has run today, so that it does not catch up."""
        path = f"{STAMPS}/{entry['id'].partition(':')[2]}"
        today = time.strftime("%Y%m%d\n").encode()
        try:
            old, like = read(path), look(path)
        except FileNotFoundError:
            old, like = b"", {"mode": 0o600, "uid": os.geteuid(), "gid": os.getegid()}
        if old == today:
            return ""
        put(at(path), today, like, times=False)
        was = old.decode(errors="replace").strip() or "nothing"
        return f"its stamp said {was}, and says today, so that it does not catch up"

    def start(self, entry):
        """Refuse: outside cron a line would run with another environment than it was written for."""
        raise RefusedError(
            f"a line of cron is not run from here. It stands in {folder_of(entry['id'])}/saved; run its "
            "command by hand as its user, or release it and wait for its time"
        )


class Periodic:
    """A script that run-parts runs."""

    def find(self, ident):
        """Return the facts of a script, and its bytes."""
        path = ident.partition(":")[2]
        if not re.fullmatch(rf"/etc/cron\.(?:{'|'.join(PERIODS)})/[^/]+", path, re.DOTALL) or path.endswith(
            ("/.", "/..")
        ):
            raise RefusedError(f"{ident}: allowed is a file in /etc/cron.{{{','.join(PERIODS)}}}")
        facts = {"path": path, "stat": look(path), "due": None}
        if not facts["stat"]["mode"] & 0o111:
            raise GoneError("it is not executable, so that run-parts passes over it anyway")
        return facts, {"saved": (read(path), facts["stat"])}

    def take(self, entry):
        """Take its x bits away."""
        return self.change(entry, lambda mode: mode & ~0o111)

    def change(self, entry, mode_of):
        """Change the mode of the file that stands there; return whether that was needed."""
        try:
            with opened(entry["path"]) as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                if mode_of(mode) == mode:
                    return False
                os.fchmod(file.fileno(), mode_of(mode))
                os.fsync(file.fileno())
                return True
        except FileNotFoundError as error:
            raise GoneError("the file is gone") from error

    def give(self, entry, due):
        """Give it its x bits back."""
        before, ours = entry["stat"]["mode"], entry["stat"]["mode"] & ~0o111
        try:
            mode, same = look(entry["path"])["mode"], read(entry["path"]) == saved(entry)
            self.change(entry, lambda mode: before if mode == ours else mode if mode & 0o111 else mode | before & 0o111)
        except (FileNotFoundError, GoneError):
            return "gone", "somebody removed the file while it was held; it stays away"
        exact = same and mode in (ours, before)
        return ("exact", "") if exact else ("edited", "somebody edited the file since: only its x bits were put back")

    def start(self, entry):
        """Refuse: it belongs to a run of run-parts."""
        raise RefusedError(f"release it, then run it by hand: {entry['path']}")


class Timer:
    """A timer of systemd."""

    properties = ("LoadState", "ActiveState", "SubState", "Persistent", "NextElapseUSecRealtime",
                  "NextElapseUSecMonotonic", "TimersMonotonic", "TimersCalendar", "Unit", "DropInPaths",
                  "UnitFileState", "FragmentPath")  # fmt: skip

    def asked(self, unit):
        """Return what systemd says of the timer."""
        return shown(self.properties, [unit]).get(unit, {"Id": [unit]})

    def find(self, ident):
        """Return the facts of a timer; there is nothing to save but its state, unless systemd forgets it."""
        unit = ident.partition(":")[2]
        if not UNIT_NAME.fullmatch(unit) or not unit.endswith(".timer"):
            raise RefusedError(f"{ident}: no name of a timer")
        if unit.startswith("hikeshi-"):
            raise RefusedError(f"{ident} is ours: it ends, or undoes, what was begun here")
        facts = {"unit": unit, "due": None, "made_folder": not os.path.lexists(os.path.dirname(at(drop_in(unit))))}
        if OFFLINE:  # what is missed until the disk runs, nobody knows: it counts as missed
            wanted = os.path.lexists(at(f"{UNITS}/timers.target.wants/{unit}"))
            return {**facts, "active": wanted, "boot": "", "offline": True, "calendar": []}, {}
        told = self.asked(unit)
        if one(told, "LoadState") != "loaded":
            raise GoneError(f"systemd says that it is {one(told, 'LoadState') or 'unknown'}")
        facts |= {"active": one(told, "ActiveState") == "active", "due": next_of(told), "triggers": one(told, "Unit"),
                  "boot": boot_id(), "calendar": calendar(told)}  # fmt: skip
        return self.forgotten(facts, told) if transient(told) else (facts, {})

    def forgotten(self, facts, told):
        """Return the facts of a timer that systemd forgets when it stops, and the files it would remove then."""
        spans = [span for name, span in monotonic(told) if name in ("OnUnitActiveSec", "OnUnitInactiveSec")]
        if not facts["active"] or one(told, "SubState") == "elapsed" or not (facts["due"] or spans):
            raise GoneError("it was made by systemd-run, and fires no more, or this moment")
        units = [facts["unit"]]
        if transient(shown(("FragmentPath",), [facts["triggers"]]).get(facts["triggers"], {})):
            units.append(facts["triggers"])
        facts |= {"files": {unit: look(f"{TRANSIENT}/{unit}") for unit in units}, "counts": bool(monotonic(told)),
                  "counts_to": next_monotonic(told), "again_s": min(spans, default=None)}  # fmt: skip
        return facts, {unit: (read(f"{TRANSIENT}/{unit}"), like) for unit, like in facts["files"].items()}

    def another(self, entry):
        """Say whether a timer runs that has only the name of one that we hold."""
        return entry["state"] != "holding" and not entry.get("given") and self.runs(entry)

    def runs(self, entry):
        """Say whether the timer is active."""
        return one(self.asked(entry["unit"]), "ActiveState") == "active"

    def take(self, entry):
        """Stop the timer, then keep it from starting. One that has elapsed for good fires no more before a boot."""
        stopped = False
        if "files" in entry:
            if self.runs(entry):
                run("systemctl", "stop", entry["unit"])
                stopped = True
            if os.path.lexists(at(f"{TRANSIENT}/{entry['unit']}")):  # systemd leaves a file that we had put back
                remove(at(f"{TRANSIENT}/{entry['unit']}"))
                look_again()
            entry["given"] = False
            return stopped
        if not OFFLINE:
            told = self.asked(entry["unit"])
            if one(told, "ActiveState") == "active" and one(told, "SubState") != "elapsed":
                run("systemctl", "stop", entry["unit"])
                stopped = True
        return write_drop_in(entry["unit"], "ConditionPathExists=!/\n") or stopped

    def give(self, entry, due):
        """Let it start again without firing: what it missed is told."""
        if OFFLINE:
            remove_drop_in(entry)
            return "exact", ""
        if "files" in entry:
            return self.give_forgotten(entry)
        told = self.asked(entry["unit"])
        reload = has_read(told)
        if reload:
            may_reload(f"{entry['id']}, whose condition systemd has read,")
        remove_drop_in(entry)
        if reload:
            run("systemctl", "daemon-reload")
            told = self.asked(entry["unit"])  # somebody may have edited it
        if one(told, "LoadState") != "loaded":
            return "gone", f"systemd says that it is {one(told, 'LoadState')} by now; it stays so"
        missed = entry.get("offline", False) or bool(due and due <= time.time())
        late = missed or entry["calendar"] != calendar(told)
        said = [self.forgive(entry, due)] if late and one(told, "Persistent") == "yes" else []
        if entry["active"] and one(told, "ActiveState") != "active":
            if self.at_once(entry, told, missed):
                said.append("started now it would fire at once, so it stays stopped until the next boot; "
                            f"`systemctl start {entry['unit']}` starts and fires it")  # fmt: skip
                return "left stopped", "; ".join(filter(None, said))
            run("systemctl", "start", entry["unit"])
        return "exact", "; ".join(filter(None, said))

    def forgive(self, entry, due):
        """Make systemd believe that a timer has just fired, so that it does not catch up."""
        stamp = at(f"{TIMER_STAMPS}/stamp-{entry['unit']}")
        if not os.path.lexists(stamp) or os.lstat(stamp).st_mtime >= (due or time.time()):
            return ""
        os.utime(stamp, follow_symlinks=False)
        return "its stamp was moved to now, so that it does not catch up"

    def give_forgotten(self, entry):
        """Put the files of a timer of systemd-run back, and start it, so that it fires when it would have."""
        unit, now, said = entry["unit"], time.time(), []
        if entry["boot"] != boot_id():
            return "gone", "it was made by systemd-run: the host was restarted since, which forgets such a timer anyway"
        if self.runs(entry):
            if entry.get("given"):
                return "exact", ""
            raise RefusedError(f"another timer has its name by now; stop it first: systemctl stop {unit}")
        missed = bool(entry["due"]) and entry["due"] <= now
        still = (entry["counts_to"] or 0) > now
        left = entry["counts_to"] - now if still else entry["again_s"]
        data = {name: saved(entry, name) for name in entry["files"]}
        if entry["counts"]:
            if left is None and not entry["calendar"]:
                return "came due", f"it would fire at once, so it is kept; `release --run {entry['id']}` runs it"
            data[unit] = re.sub(rb"(?m)^On(?:Active|Boot|Startup)Sec=.*\n?", b"", data[unit])
            if left is not None:
                data[unit] += b"\n[Timer]\nOnActiveSec=%dms\n" % max(1, round(left * 1000))
                why = "what is left until it would fire" if still else "counted from now"
                said.append(f"its file says OnActiveSec={left:.0f}s, {why}")
        entry["given"] = True
        save(entry)
        self.put_back(entry, data)
        said += [self.forgive(entry, entry["due"])] if missed else []
        run("systemctl", "start", unit)
        if missed and next_of(self.asked(unit)) is None:
            self.take(entry)
            return "came due", f"it has no other time, so it is kept; `release --run {entry['id']}` runs it"
        return "exact", "; ".join(filter(None, said))

    def put_back(self, entry, data):
        """Write files that systemd-run had made."""
        os.makedirs(at(TRANSIENT), mode=0o755, exist_ok=True)
        for name, content in data.items():
            put(at(f"{TRANSIENT}/{name}"), content, entry["files"][name])
        look_again()

    def at_once(self, entry, told, missed):
        """Say whether the timer would elapse as soon as it starts: what counts from a time that is past does."""
        up = time.clock_gettime(time.CLOCK_MONOTONIC)
        since = up - (seconds_of_start() or 0)
        for name, span in monotonic(told):
            # In a container OnBootSec= counts from the start of its systemd.
            base = up if name == "OnBootSec" and not os.path.exists(at("/run/systemd/container")) else since
            if name in ("OnBootSec", "OnStartupSec") and span <= base + 1:
                return True
            if name in ("OnUnitActiveSec", "OnUnitInactiveSec") and missed and entry["boot"] == boot_id():
                return True
        return False

    def start(self, entry):
        """Start what the timer would have started; the timer stays held."""
        if "files" in entry:
            self.put_back(entry, {name: saved(entry, name) for name in entry["files"] if name != entry["unit"]})
        run("systemctl", "start", "--no-block", "--", entry["triggers"])
        if entry["state"] == "came due":
            return f"{entry['triggers']} was started"
        return f"{entry['triggers']} was started; the timer is still held"


def transient(told):
    """Say whether systemd-run made a unit, so that systemd forgets it when it ends."""
    return one(told, "FragmentPath").startswith(f"{TRANSIENT}/")


def look_again():
    """Let systemd see what changed in TRANSIENT, which alone does not make it look (lookup_paths_mtime_exclude)."""
    os.utime(at("/run/systemd/system"))


def seconds_of_start():
    """Return when systemd started, in seconds since the machine did."""
    told = blocks("--property=UserspaceTimestampMonotonic")
    number = one(told[0], "UserspaceTimestampMonotonic") if told else ""
    return int(number) / 1e6 if number.isdigit() else seconds(number)


def boot_id():
    """Return what tells this boot from others: a container has its machine's boot id, but its own PID 1."""
    with (
        open("/proc/sys/kernel/random/boot_id", encoding="ascii") as one_id,
        open("/proc/1/stat", encoding="utf-8") as first,
    ):
        return f"{one_id.read().strip()} {first.read().rsplit(')', 1)[1].split()[19]}"


class Shutdown:
    """The shutdown that logind holds ready."""

    def find(self, ident):
        """Return the facts of the shutdown, and the file that says them."""
        if ident != "shutdown:scheduled" or OFFLINE:
            raise RefusedError(f"{ident}: allowed is shutdown:scheduled, on a host that runs")
        data = read(SHUTDOWN, TEXT)
        told = dict(line.partition("=")[::2] for line in data.decode("utf-8", "replace").splitlines())
        if not told.get("USEC", "").isdigit():
            raise RefusedError(f"{SHUTDOWN} tells no time; cancel it by hand: shutdown -c")
        facts = {"path": SHUTDOWN, "stat": look(SHUTDOWN), "due": int(told["USEC"]) / 1e6, "usec": told["USEC"],
                 "mode": told.get("MODE", ""), "wall": told.get("WARN_WALL") == "1",
                 "message": told.get("WALL_MESSAGE", "")}  # fmt: skip
        return facts, {"saved": (data, facts["stat"])}

    def take(self, entry):
        """Cancel it."""
        if not os.path.lexists(at(SHUTDOWN)):
            return False
        run("busctl", "call", *LOGIN, "CancelScheduledShutdown")
        return True

    def give(self, entry, due):
        """Schedule it anew, if its time is still to come."""
        if entry["due"] <= time.time():
            return "came due", "it is not scheduled again"
        if shield()["on"]:
            raise RefusedError(f"the shield is on and refuses it; take that away first: {PROGRAM} shield off")
        if os.path.lexists(at(SHUTDOWN)):
            if f"USEC={entry['usec']}\n".encode() in read(SHUTDOWN, TEXT):
                return "exact", ""
            raise RefusedError("another shutdown is scheduled by now; see `shutdown --show`, or cancel it: shutdown -c")
        message = codecs.escape_decode(entry["message"].encode("utf-8", "replace"))[0].decode("utf-8", "replace")
        run("busctl", "call", *LOGIN, "SetWallMessage", "sb", message, "true" if entry["wall"] else "false")
        run("busctl", "call", *LOGIN, "ScheduleShutdown", "st", entry["mode"], entry["usec"])
        return "exact", ""

    def start(self, entry):
        """Refuse: a reboot is nothing that a released job does."""
        raise RefusedError("a shutdown is not run from here; it needs the customer's permission, and its own command")


class Apt:
    """The reboot that unattended-upgrades makes."""

    def find(self, ident):
        """Return the facts; nothing of others' is changed."""
        if ident != "apt:automatic-reboot":
            raise RefusedError(f"{ident}: allowed is apt:automatic-reboot")
        with contextlib.suppress(FileNotFoundError):
            if b"automatic-reboot" in read(APT_MAIN, TEXT).lower():
                raise RefusedError(f"{APT_MAIN} speaks of Automatic-Reboot, and apt reads it last; change it by hand")
        later = [name for name in sorted(os.listdir(at(APT))) if name > os.path.basename(APT_HELD)]
        if later:
            raise RefusedError(f"{APT}/{later[-1]} is read behind ours; rename it, or change it by hand")
        return {"path": APT_HELD, "due": None}, {}

    def take(self, entry):
        """Write a setting that comes last."""
        if os.path.lexists(at(APT_HELD)):
            return False
        owner = {"mode": 0o644, "uid": os.geteuid(), "gid": os.getegid()}
        put(
            at(APT_HELD), b'// hikeshi holds this.\nUnattended-Upgrade::Automatic-Reboot "false";\n', owner, times=False
        )
        return True

    def give(self, entry, due):
        """Take the setting away."""
        remove(at(APT_HELD))
        return "exact", ""

    def start(self, entry):
        """Refuse, as for a shutdown."""
        Shutdown().start(entry)


class Unit:
    """A unit whose failure, or end, reboots."""

    def find(self, ident):
        """Return the facts of a unit."""
        unit = ident.partition(":")[2]
        if not UNIT_NAME.fullmatch(unit):
            raise RefusedError(f"{ident}: no name of a unit")
        made = not os.path.lexists(os.path.dirname(at(drop_in(unit))))
        if not OFFLINE:
            told = shown(("LoadState", *ACTIONS), [unit]).get(unit, {})
            if one(told, "LoadState") != "loaded":
                raise GoneError(f"systemd says that it is {one(told, 'LoadState') or 'unknown'}")
            may_reload(ident)
        return {"unit": unit, "due": None, "made_folder": made}, {}

    def take(self, entry):
        """Set its actions to none, and let systemd read that."""
        wrote = write_drop_in(entry["unit"], "".join(f"{name}=none\n" for name in ACTIONS))
        if OFFLINE or has_read(self.asked(entry["unit"])):
            return wrote
        try:
            may_reload(entry["id"])
        except RefusedError:
            remove_drop_in(entry)
            raise
        run("systemctl", "daemon-reload")
        return True

    def asked(self, unit):
        """Return what systemd says of the unit's drop-ins."""
        return {} if OFFLINE else shown(("DropInPaths",), [unit]).get(unit, {})

    def give(self, entry, due):
        """Give it its actions back."""
        reload = has_read(self.asked(entry["unit"]))
        if reload:
            may_reload(entry["id"])
        remove_drop_in(entry)
        if reload:
            run("systemctl", "daemon-reload")
        return "exact", ""

    def start(self, entry):
        """Refuse, as for a shutdown."""
        Shutdown().start(entry)


KINDS = {"at": At(), "cron": Line(), "anacron": Line(), "periodic": Periodic(), "timer": Timer(),
         "shutdown": Shutdown(), "apt": Apt(), "unit": Unit()}  # fmt: skip


def kind_of(ident):
    """Return what an id speaks of."""
    kind, _, rest = ident.partition(":")
    if kind not in KINDS or not rest or "\0" in rest:
        raise RefusedError(f"{ident!r} is no id; allowed: {', '.join(f'{name}:…' for name in KINDS)}")
    return KINDS[kind]


# Verbs


def result(ident, word, why="", **more):
    """Return what became of one job."""
    return {"id": ident, "result": word, "why": why, **more}


def hold_one(ident, due, check):
    """Hold one job."""
    kind, entry = kind_of(ident), entries().get(ident)
    if entry is not None and "files" in entry and not OFFLINE and kind.another(entry):
        if entry["state"] != "came due":
            raise RefusedError("another timer has its name by now, and only one can be held; stop one of them by hand")
        if not check:
            keep(entry)
        entry = None
    if entry is None:
        facts, data = kind.find(ident)
        if check:
            return result(ident, "would be held")
        entry = {"id": ident, "kind": ident.partition(":")[0], "state": "holding", "at": time.time(),
                 "by": caller(), **facts}  # fmt: skip
        entry["due"] = entry["due"] or due
        begin(entry, data)
    elif check or entry["state"] == "came due":
        return result(ident, "already held")
    before = entry["state"]
    try:
        changed = kind.take(entry)
    except (GoneError, RefusedError):
        if before == "holding":  # nothing of it is out of reach, or it can be no more
            forget(ident)
        raise
    if before != "held":
        entry["state"] = "held"
        save(entry)
    return result(ident, "held" if changed or before != "held" else "already held", due=entry["due"])


def release_one(ident, due, check):
    """Release one job."""
    entry = entries().get(ident)
    if entry is None:
        raise GoneError("it is not held")
    due = due or entry["due"]
    missed = bool(due) and due <= time.time()
    if check:
        return result(ident, "would be released", due=due, missed=missed)
    if entry["state"] != "came due":
        entry["state"] = "releasing"
        save(entry)
    try:
        word, why = kind_of(ident).give(entry, due)
    except RefusedError:
        entry["state"] = "held"
        save(entry)
        raise
    if word == "came due" and entry["kind"] in ("at", "timer"):
        entry["state"] = word
        save(entry)
    elif word == "gone":
        keep(entry)
    else:
        forget(ident)
    return result(ident, word, why, due=due, missed=missed)


def keep(entry):
    """Keep what was saved of a file that somebody removed meanwhile: nobody else may have it."""
    place = f"{at(STATE)}/.kept-{entry['kind']}-{hashlib.sha256(os.fsencode(entry['id'])).hexdigest()[:16]}"
    shutil.rmtree(place, ignore_errors=True)
    try:
        os.rename(folder_of(entry["id"]), place)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.copytree(folder_of(entry["id"]), place)
        sync(place)
        forget(entry["id"])
    sync(at(STATE))
    entries().pop(entry["id"], None)


def run_one(ident, check):
    """Run one job that is held; only at's and timers' can be."""
    entry = entries().get(ident)
    if entry is None:
        raise GoneError("it is not held")
    if check:
        return result(ident, "would be run")
    why = kind_of(ident).start(entry)
    if entry["kind"] == "at" or entry["state"] == "came due":
        forget(ident)
    return result(ident, "run", why)


def each(idents, do, check):
    """Do something with each of the jobs, whatever becomes of the others; return (results, exit status)."""
    found = []
    for ident, due in idents:
        try:
            found.append(do(ident, due, check))
        except RefusedError as why:
            found.append(result(ident, "refused", str(why)))
        except (GoneError, FileNotFoundError) as why:
            found.append(result(ident, "not there", str(why)))
        except (OSError, ValueError, KeyError, TypeError, subprocess.SubprocessError) as why:
            found.append(result(ident, "failed", f"{type(why).__name__}: {why}"))
    words = {item["result"] for item in found}
    return found, 1 if "failed" in words else 2 if "refused" in words else 0


def heed(found):
    """Let systemd read the conditions of the timers that are held, where its reload can fire nobody's timer.

    Without them a start of timers.target would start a timer that systemd still has in memory.
    """
    held = {entry["unit"]: ident for ident, entry in entries().items() if entry["kind"] == "timer"
            and entry["state"] == "held" and "files" not in entry}  # fmt: skip
    told = shown(("DropInPaths",), held) if held and not OFFLINE else {}
    unread = [held[unit] for unit, about in told.items() if unit in held and not has_read(about)]
    if not unread:
        return
    why = f"its reload could fire {', '.join(foreign_timers())}: hold these, then this again"
    if not foreign_timers():
        try:
            run("systemctl", "daemon-reload")
        except OSError as error:
            why = str(error)
        else:
            return
    for item in found:
        if item["id"] in unread:
            item["why"] = f"it is stopped, but systemd has not read yet that it must not be started; {why}"


def caller():
    """Return who runs this, as far as the environment says it."""
    return os.environ.get("SUDO_USER") or os.environ.get("USER") or "root"


def collect():
    """Return everything that is scheduled; reads only."""
    end, unseen = time.monotonic() + SECONDS, []
    files = collect_files(end, unseen)
    live = not OFFLINE
    timers, reboots = (collect_timers(unseen), collect_reboots()) if live else collect_units(end, unseen)
    return {
        "schema": 1, "now": time.time(), "boot": booted() if live else None, "zone": zone(), "offline": OFFLINE,
        "files": files, "timers": timers, "reboot_units": reboots, "daemons": daemons(),
        "reboot_required": os.path.lexists(at("/run/reboot-required")), "held": list(entries().values()),
        "lost": lost(),
        "shield": shield(), "unseen": unseen,
    }  # fmt: skip


def collect_files(end, unseen):
    """Return every file that schedules something."""
    found, left = [], TOTAL
    todo = [(path, source) for source, path in FILES if os.path.lexists(at(path))]
    for source, folder in FOLDERS:
        try:
            names = sorted(os.listdir(at(folder)))
        except FileNotFoundError:
            continue
        except OSError as error:
            unseen.append(f"{folder}: {(error.strerror or str(error)).lower()}")
            continue
        # at keeps its counter and its lock there, Debian's packages a placeholder.
        todo += [(f"{folder}/{name}", source) for name in names if name != ".placeholder" and
                 not (source == "at" and name.startswith("."))]  # fmt: skip
    for path, source in sorted(todo):
        if len(found) >= MOST or time.monotonic() > end:
            unseen.append(f"{len(todo) - len(found)} files from {path} on: more than {MOST}, or than {SECONDS} s")
            break
        try:
            with opened(path) as file:
                about, data = os.fstat(file.fileno()), file.read(min(TEXT, left))
        except OSError as error:
            unseen.append(f"{path}: {(error.strerror or str(error)).lower()}")
            continue
        left -= len(data)
        found.append({
            "path": path, "source": source, "owner": owner(about.st_uid), "uid": about.st_uid, "gid": about.st_gid,
            "mode": f"{stat.S_IMODE(about.st_mode):04o}", "mtime_ns": about.st_mtime_ns, "size": about.st_size,
            "b64": base64.b64encode(data).decode(), "truncated": len(data) < about.st_size,
        })  # fmt: skip
    return found


def owner(uid):
    """Return a user's name, in the root's own list."""
    if not ROOT:
        with contextlib.suppress(KeyError):
            return pwd.getpwuid(uid).pw_name
        return ""
    with contextlib.suppress(OSError):
        for line in read("/etc/passwd", 1 << 20).decode("utf-8", "replace").splitlines():
            fields = line.split(":")
            if len(fields) > 2 and fields[2] == str(uid):
                return fields[0]
    return ""


def collect_timers(unseen):
    """Return systemd's timers."""
    names = [line.split()[0] for words in (("list-units", "--all"), ("list-unit-files",))
             for line in asks("systemctl", *words, "--type=timer", "--plain", "--no-legend").splitlines()
             if line.split() and not re.search(r"@\.", line.split()[0])]  # fmt: skip
    if not names:
        unseen.append("timers: systemctl names none")
        return []
    wanted = (*Timer.properties, "RandomizedDelayUSec", "FixedRandomDelay", "AccuracyUSec", "LastTriggerUSec",
              "NeedDaemonReload")  # fmt: skip
    told = {name: unit for name, unit in shown(wanted, dict.fromkeys(names)).items() if name.endswith(".timer")}
    services = shown(
        ("ExecStart", "User"), dict.fromkeys(one(unit, "Unit") for unit in told.values() if one(unit, "Unit"))
    )
    return [timer_fact(name, unit, services.get(one(unit, "Unit"), {})) for name, unit in sorted(told.items())]


def timer_fact(name, unit, service):
    """Return what is told of one timer."""
    commands = [re.search(r"argv\[\]=(.*?) ; ignore_errors=", value) for value in service.get("ExecStart", [])]
    accuracy = seconds(one(unit, "AccuracyUSec"))
    stamp = None
    with contextlib.suppress(OSError):
        stamp = os.lstat(at(f"{TIMER_STAMPS}/stamp-{name}")).st_mtime
    return {
        "unit": name, "triggers": one(unit, "Unit"), "calendar": calendar(unit),
        "monotonic": [list(pair) for pair in monotonic(unit)], "persistent": one(unit, "Persistent") == "yes",
        "randomized_delay_s": seconds(one(unit, "RandomizedDelayUSec")) or 0.0,
        "fixed_random_delay": one(unit, "FixedRandomDelay") == "yes",
        "accuracy_s": 60.0 if accuracy is None else accuracy, "active": one(unit, "ActiveState") == "active",
        "enabled": one(unit, "UnitFileState"), "next": next_of(unit), "last": epoch(one(unit, "LastTriggerUSec")),
        "stamp": stamp, "needs_reload": one(unit, "NeedDaemonReload") == "yes", "file": one(unit, "FragmentPath"),
        "drop_ins": one(unit, "DropInPaths").split(), "commands": [command[1] for command in commands if command],
        "user": one(service, "User") or "root",
    }  # fmt: skip


def collect_reboots():
    """Return the units whose failure or end reboots, or powers off."""
    found = []
    for unit in blocks(f"--property=Id,ActiveState,FragmentPath,DropInPaths,{','.join(ACTIONS)}", "--", "*"):
        actions = {name: one(unit, name) for name in ACTIONS if one(unit, name) not in ("", "none")}
        if actions and not MEANT.fullmatch(one(unit, "Id")):
            found.append({"unit": one(unit, "Id"), "active": one(unit, "ActiveState") == "active", "actions": actions,
                          "file": one(unit, "FragmentPath"), "drop_ins": one(unit, "DropInPaths").split()})  # fmt: skip
    return found


def collect_units(end, unseen):
    """Return timers and units that reboot as their files tell them, where no systemd runs."""
    places = ("/usr/lib/systemd/system", "/lib/systemd/system", "/usr/local/lib/systemd/system", UNITS)
    texts, wanted = {}, set()
    for place in places:
        for folder in (place, f"{place}/timers.target.wants"):
            with contextlib.suppress(OSError):
                for name in os.listdir(at(folder)):
                    wanted |= {name} if folder != place and name.endswith(".timer") else set()
                    if folder == place and UNIT_FILE.fullmatch(name) and time.monotonic() < end:
                        texts.setdefault(name, []).append(f"{place}/{name}")
    timers, reboots = [], []
    for name, paths in sorted(texts.items())[: 4 * MOST]:
        unit = settings(name, paths[-1:], places, unseen)
        actions = {key: unit[key][-1] for key in ACTIONS if unit.get(key, ["none"])[-1] not in ("", "none")}
        if actions and not MEANT.fullmatch(name):
            reboots.append({"unit": name, "active": False, "actions": actions, "file": paths[-1], "drop_ins": []})
        if not name.endswith(".timer") or "@." in name:
            continue
        service = (unit.get("Unit") or [name.replace(".timer", ".service")])[-1]
        about = settings(service, texts.get(service, [])[-1:], places, unseen)
        stamp = None
        with contextlib.suppress(OSError):
            stamp = os.lstat(at(f"{TIMER_STAMPS}/stamp-{name}")).st_mtime
        last = {key: values[-1] for key, values in unit.items() if values}
        timers.append({
            "unit": name, "triggers": service, "calendar": unit.get("OnCalendar", []),
            "monotonic": [[key, seconds(short(value)) or 0.0] for key in unit if re.fullmatch(r"On\w+Sec", key)
                          for value in unit[key]],
            "persistent": last.get("Persistent", "").lower() in ("1", "yes", "true", "on"),
            "randomized_delay_s": seconds(short(last.get("RandomizedDelaySec", "0"))) or 0.0,
            "fixed_random_delay": False,
            "accuracy_s": seconds(short(last.get("AccuracySec", "1min"))) or 0.0, "active": False,
            "enabled": "enabled" if name in wanted else "disabled", "next": None, "last": None, "stamp": stamp,
            "needs_reload": False, "file": paths[-1], "drop_ins": [], "commands": about.get("ExecStart", []),
            "user": (about.get("User") or ["root"])[-1],
        })  # fmt: skip
    return timers, reboots


def settings(name, paths, places, unseen):
    """Return the settings of a unit's file and drop-ins, key → values; an empty value takes back those before."""
    found = {}
    for place in places:
        with contextlib.suppress(OSError):
            folder = f"{place}/{name}.d"
            paths = [*paths, *(f"{folder}/{item}" for item in sorted(os.listdir(at(folder))) if item.endswith(".conf"))]
    for path in paths:
        if os.path.islink(at(path)):
            continue  # an alias, or a mask
        try:
            text = read(path, TEXT).decode("utf-8", "replace").replace("\\\n", " ")
        except OSError as error:
            unseen.append(f"{path}: {(error.strerror or str(error)).lower()}")
            continue
        for line in text.splitlines():
            key, sign, value = line.strip().partition("=")
            if sign and not key.startswith(("#", ";")):
                found[key.strip()] = [*found.get(key.strip(), []), value.strip()] if value.strip() else []
    return found


def short(text):
    """Return a time span as systemd itself would print it, from how people write it."""
    words = {"m": "min", "minute": "min", "hr": "h", "hour": "h", "day": "d", "week": "w", "second": "s", "sec": "s",
             "M": "month", "year": "y", "usec": "us", "msec": "ms", "": "s"}  # fmt: skip
    pairs = re.findall(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text)
    pairs = [(number, unit[:-1] if len(unit) > 2 and unit.endswith("s") else unit) for number, unit in pairs]
    return " ".join(f"{number}{words.get(unit, unit)}" for number, unit in pairs)


def daemons():
    """Return what runs jobs here: active, inactive or absent."""
    there = {name: os.path.lexists(at(path)) for name, path in DAEMONS.items()}
    active = asks("systemctl", "is-active", *(f"{name}.service" for name in DAEMONS)).split() if not OFFLINE else []
    states = dict(zip(DAEMONS, active, strict=False))
    return {
        name: ("active" if states.get(name) == "active" else "inactive") if there[name] else "absent" for name in there
    }


def booted():
    """Return when PID 1 started: of a container that is its own boot."""
    with open("/proc/1/stat", encoding="utf-8") as first, open("/proc/uptime", encoding="ascii") as up:
        ticks = int(first.read().rsplit(")", 1)[1].split()[19])
        return time.time() - float(up.read().split()[0]) + ticks / os.sysconf("SC_CLK_TCK")


def zone():
    """Return the host's time zone by its name."""
    with contextlib.suppress(OSError):
        found = re.search(r"zoneinfo/(?:posix/|right/)?(.+)$", os.readlink(at("/etc/localtime")))
        if found:
            return found[1]
    with contextlib.suppress(OSError):
        return read("/etc/timezone", 200).decode("utf-8", "replace").strip() or "UTC"
    return "UTC"


# The shield. Root passes by inhibitors (systemd 252, logind_check_inhibitors). What refuses root is a target that is
# masked (logind: "refusing operation"), and D-Bus, which writes into the journal who asked, by pid and command. Neither
# stops `reboot -f`, sysrq or reboot(2).


def policy():
    """Return the rules of D-Bus that refuse to pass on what would reboot."""
    rules = "".join(
        f'    <deny send_destination="{LOGIN[0]}" send_interface="{LOGIN[2]}" send_member="{member}"/>\n'
        for member in MEMBERS
    )
    return (
        '<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"\n'
        ' "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">\n'
        f"<!-- hikeshi refuses reboots; `{PROGRAM} shield off` takes this file away. -->\n"
        f'<busconfig>\n  <policy context="mandatory">\n{rules}  </policy>\n</busconfig>\n'
    ).encode()


def meant():
    """Return what is meant: the shield's state, {} while it is off."""
    with contextlib.suppress(OSError, ValueError):
        return json.loads(read(f"{STATE}/.shield.json"))
    return {}


def left(state):
    """Return how many seconds the shield still lasts; never more than were asked for, whatever the clock says."""
    return max(0.0, min(state["until"] - time.time(), state["seconds"])) if state else 0.0


def masked(target):
    """Say whether a target is masked."""
    place = at(f"{UNITS}/{target}")
    return os.path.islink(place) and os.readlink(place) == "/dev/null"


def shield():
    """Return what stands of the shield; changes nothing."""
    state = meant()
    stands = [target for target in TARGETS if masked(target)]
    return {
        "on": bool(state),
        "until": state.get("until"),
        "left_s": left(state),
        "by": state.get("by", ""),
        "masked": stands,
        "refused_by_dbus": os.path.lexists(at(POLICY)),
        "not_masked": state.get("open", []),
    }


def ends(token):
    """Return the unit that ends the shield."""
    return f"hikeshi-jobs-shield-{token}"


def arm(token, span, *more):
    """Let systemd end the shield after some seconds, whatever becomes of us.

    With each reload of systemd what counts from a start counts anew (252), so the hour by the clock is given as well.
    """
    run(
        "systemd-run", f"--unit={ends(token)}", "--collect", *more, f"--on-active={int(span) + 1}",
        f"--on-calendar=@{int(time.time() + span) + 1}", "--timer-property=AccuracySec=1s",
        "--property=Restart=on-failure", "--property=RestartSec=60",
        "--description=End the shield against reboots", "--", at(PROGRAM), "shield", "off",
    )  # fmt: skip


def shield_on(span, check):
    """Refuse reboots from now on, for some seconds."""
    if OFFLINE:
        raise RefusedError("a system that does not run needs no shield")
    if check:
        return {"changed": True, **shield()}
    before, token = meant(), secrets.token_hex(6)
    arm(token, span)
    if asks("systemctl", "is-active", f"{ends(token)}.timer").strip() != "active":
        raise OSError(f"{ends(token)}.timer is not active, so nothing is refused: nobody would end it")
    ours = before.get("masked", [target for target in TARGETS if not os.path.lexists(at(f"{UNITS}/{target}"))])
    state = {"until": time.time() + span, "seconds": span, "by": caller(), "token": token, "masked": ours, "open": []}
    remember(state)
    stand(state)
    if before.get("token"):
        asks("systemctl", "stop", f"{ends(before['token'])}.timer")
    return {"changed": True, **shield()}


def remember(state):
    """Write down what is meant, whole and on disk, before it is done."""
    owner_ = {"mode": 0o600, "uid": os.geteuid(), "gid": os.getegid()}
    put(at(f"{STATE}/.shield.json"), json.dumps(state).encode(), owner_, times=False)


def stand(state):
    """Make the shield stand: masks, the rules of D-Bus, and an inhibitor for those whom one binds."""
    for target in state["masked"]:
        place = at(f"{UNITS}/{target}")
        if not os.path.lexists(place):
            os.symlink("/dev/null", place)
    sync(at(UNITS))
    state["open"] = settle("masked")
    remember(state)
    if os.path.isdir(os.path.dirname(at(POLICY))):
        put(at(POLICY), policy(), {"mode": 0o644, "uid": os.geteuid(), "gid": os.getegid()}, times=False)
        reload_dbus()
    asks(
        "systemd-run", f"--unit=hikeshi-jobs-inhibit-{state['token']}", "--collect", "--no-block",
        "--property=After=systemd-logind.service", "--property=Restart=on-failure", "--property=RestartSec=5", "--",
        "systemd-inhibit", "--what=shutdown", "--who=hikeshi", "--mode=block",
        "--why=A recovery is at work; reboots need the customer's permission", "sleep", str(int(left(state)) + 1),
    )  # fmt: skip


def settle(wanted):
    """Let systemd see what stands of the targets; return those of which it still believes otherwise.

    A target that nobody refers to is read when it is asked for. One that it has in memory needs a reload, which is made
    only where it can fire nobody's timer.
    """

    def otherwise():
        told, wrong = shown(("LoadState",), TARGETS), "loaded" if wanted == "masked" else "masked"
        right = [name for name in TARGETS if masked(name) is (wanted == "masked")]
        return [name for name in right if one(told.get(name, {}), "LoadState") == wrong]

    found = otherwise()
    if found and not foreign_timers():
        run("systemctl", "daemon-reload")
        found = otherwise()
    return found


def reload_dbus():
    """Let D-Bus read its rules now; it also notices by itself."""
    asks("busctl", "call", "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "ReloadConfig")


def shield_off(check):
    """Let reboots pass again; what was masked before us stays so."""
    state = meant()
    if check or not state:
        return {"changed": bool(state), **shield()}
    remove(at(POLICY))
    reload_dbus()
    for target in state["masked"]:
        if masked(target):
            os.unlink(at(f"{UNITS}/{target}"))
    sync(at(UNITS))
    stuck = settle("free")
    if stuck:
        raise OSError(
            f"systemd still takes {', '.join(stuck)} for masked, and its reload could fire "
            f"{', '.join(foreign_timers())}: hold these, then say `shield off` again"
        )
    remove(at(f"{STATE}/.shield.json"))
    asks("systemctl", "stop", f"hikeshi-jobs-inhibit-{state['token']}.service", f"{ends(state['token'])}.timer")
    return {"changed": True, **shield()}


def restore():
    """At boot, before what runs jobs: finish what was killed, let the shield stand for the time it has left."""
    begun = [(ident, None) for ident, entry in entries().items() if entry["state"] == "holding"]
    found, status = each(begun, hold_one, check=False)
    heed(found)
    state = meant()
    if state and left(state) > 0:
        state["token"] = secrets.token_hex(6)
        # Else the timer waits for the rest of the boot, systemd-run (252) for the timer, and the boot for us.
        arm(state["token"], left(state), "--timer-property=DefaultDependencies=no")
        remember(state)
        stand(state)
    elif state:
        shield_off(check=False)
    return {"jobs": found, "shield": shield()}, status


def note():
    """Log who submitted a job to at, and which left the spool: at says nothing. The environment stays out of it."""
    before, now = {}, {}
    with contextlib.suppress(OSError, ValueError):
        before = json.loads(read(SEEN))
    for name in sorted(os.listdir(at(SPOOL)) if os.path.isdir(at(SPOOL)) else [])[:MOST]:
        with contextlib.suppress(OSError):
            if minute_of(name) is not None and name[0].isalpha():
                now[name] = owner(os.lstat(at(f"{SPOOL}/{name}")).st_uid)
    for name in sorted(now.keys() - before.keys()):
        when = time.strftime("%Y-%m-%d %H:%M %Z", time.localtime(minute_of(name) * 60))
        told = "a body that at did not write"
        with contextlib.suppress(OSError):
            begin = AT_BEGIN.search(read(f"{SPOOL}/{name}", TEXT))
            told = ascii(begin.string[begin.end() :].strip()[:300].decode("utf-8", "replace")) if begin else told
        print(f"at job {ascii(name)} of {ascii(now[name])}, due {when}: {told}")
    for name in sorted(before.keys() - now.keys()):
        print(f"at job {ascii(name)} of {ascii(before[name])} left the spool: run, held or removed")
    put(at(SEEN), json.dumps(now).encode(), {"mode": 0o600, "uid": os.geteuid(), "gid": os.getegid()}, times=False)


def going():
    """Log who is logged in while the host goes down: what asked for it, sudo and cron have logged."""
    if asks("systemctl", "is-system-running").strip() != "stopping":
        return
    print("the host goes down")
    with contextlib.suppress(OSError):
        print(f"scheduled: {ascii(read(SHUTDOWN, 1000).decode('utf-8', 'replace'))}")
    for name in sorted(os.listdir(at(SESSIONS)) if os.path.isdir(at(SESSIONS)) else [])[:MOST]:
        with contextlib.suppress(OSError):
            lines = read(f"{SESSIONS}/{name}", TEXT).decode("utf-8", "replace").splitlines()
            told = dict(line.partition("=")[::2] for line in lines)
            words = (f"{key}={told[key]}" for key in ("USER", "UID", "REMOTE_HOST", "TTY", "SERVICE") if key in told)
            print(f"logged in: {ascii(' '.join(words))}")


def parsed(words):
    """Return (words, ids with their times, {id: due}, ids to run) of what follows a verb."""
    idents, dues, runs, rest = [], {}, [], list(words)
    while rest:
        word = rest.pop(0)
        if word in ("--due", "--run"):
            if not rest:
                raise RefusedError(f"{word} takes an id")
            ident, due = timed(rest.pop(0)) if word == "--due" else (rest.pop(0), None)
            if word == "--run":
                runs.append(ident)
            else:
                dues[ident] = due
        elif word.startswith("--"):
            raise RefusedError(f"{word} is no option; allowed: --root DIR, --check, --due ID=EPOCH, --run ID")
        else:
            idents.append(timed(word))
    return idents, dues, runs


def timed(word):
    """Return (id, time) of ID=EPOCH, or of ID alone."""
    found = re.fullmatch(r"(.*)=(\d{1,12}(?:\.\d+)?)", word, re.DOTALL)
    return (found[1], float(found[2])) if found else (word, None)


def change(verb, words, check):
    """Hold or release; return (results, exit status)."""
    idents, dues, runs = parsed(words)
    if verb == "hold":
        if not idents or runs or dues:
            raise RefusedError("hold takes ids; `collect` tells them")
        found, status = each(idents, hold_one, check)
        if not check:
            heed(found)
        return found, status
    if runs:
        return each(((ident, None) for ident in runs), lambda ident, due, check: run_one(ident, check), check)
    # The other way round: of several lines of one file, the last that goes has the file as it was.
    newest = sorted(entries(), key=lambda name: entries()[name]["at"], reverse=True)
    wanted = idents or [(ident, None) for ident in newest]
    return each(((ident, due or dues.get(ident)) for ident, due in wanted), release_one, check)


def main(words):
    """Do what the words say; return the exit status."""
    global ROOT, OFFLINE, KNOWN  # noqa: PLW0603 (one program, one root)
    words, KNOWN = list(words), None
    try:
        check = "--check" in words
        words = [word for word in words if word != "--check"]
        if "--root" in words:
            where = words.index("--root")
            ROOT, OFFLINE = os.path.realpath(words[where + 1]).rstrip("/"), True
            del words[where : where + 2]
        verb, rest = (words or [""])[0], words[1:]
        if verb == "collect" and not rest:
            told, status = collect(), 0
        elif verb in ("hold", "release"):
            with contextlib.nullcontext() if check else locked(verb):
                found, status = change(verb, rest, check)
            told = {"changed": any(item["result"] not in UNCHANGED for item in found), "jobs": found}
        elif verb == "shield" and rest == ["status"]:
            told, status = shield(), 0
        elif verb == "shield" and (rest == ["off"] or (rest[:1] == ["on"] and len(rest) < 3)):
            span = rest[1] if len(rest) == 2 else str(SHIELD_S)
            if not span.isdigit() or not 60 <= int(span) <= SHIELD_MOST_S:
                raise RefusedError(f"shield on takes seconds, 60 to {SHIELD_MOST_S}; given: {span}")
            with contextlib.nullcontext() if check else locked(verb):
                told, status = (shield_on(int(span), check) if rest[0] == "on" else shield_off(check)), 0
        elif verb in ("restore", "note") and not rest:
            with locked(verb):
                told, status = restore() if verb == "restore" else (note(), 0)
        elif verb == "going" and not rest:
            told, status = going(), 0
        else:
            raise RefusedError(
                "usage: jobs collect | hold ID[=EPOCH]… | release [ID…] [--due ID=EPOCH] [--run ID] | "
                "shield on [SECONDS]|off|status | restore | note | going; --root DIR, --check"
            )
    except RefusedError as why:
        print(why, file=sys.stderr)
        return 2
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, IndexError, TypeError) as why:
        print(f"{type(why).__name__}: {why}", file=sys.stderr)
        return 1
    if told is not None:
        print(json.dumps(told))
    return status


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main(sys.argv[1:]))
