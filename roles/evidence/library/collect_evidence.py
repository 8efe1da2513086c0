#!/usr/bin/python3
"""Read facts from a host without changing it: standard library only, one call, bounded in size and time.

Collecting is dumb: it says what is there, never what it means. Schema 1 of the returned `hikeshi`:

    schema, host, at            1, host name, seconds since the epoch (UTC)
    boot                        {id, up_s, state}: boot id, age of PID 1 in seconds, `systemctl is-system-running`
    subjects                    the question, as it was asked (see roles/evidence/meta/argument_specs.yml)
    units      name → {load, active, sub, enabled, result, fragment, log}; log: last lines since boot when not active
    mounts     path → {mounted, source, entries}; entries: names below, at most 5
    paths      path → {kind, mode, owner, group, size, link}; kind: directory, file, link, other, missing, unreadable
    trees      path → {seen, wrong, complete}: directories and files whose modes are not the wanted ones
    configs    name → {ok, message, file}: the service's own test of its configuration
    names      name → addresses it resolves to now, in order; none when it does not
    disks      mount → {free_bytes, size_bytes, free_inodes, inodes}
    locks      path → {present, pid, alive, age_s, owner_age_s}: files that hold their owner's PID, null: it names none;
               age_s since it was written; owner_age_s of the process that has this PID now, null when none has
    reports    unit → {state, at, result, status, log}: what a job left about its last run; no report, no entry
    abandoned  [{pid, age_s, command}]: processes of logins that no longer exist
    errors     last lines of priority err and worse since boot
    unseen     [{source, why}]: what could not be read

Names are text: a byte that is no UTF-8 is written as \\xNN.
"""

import grp
import json
import os
import pwd
import re
import signal
import socket
import stat
import subprocess
import time

COMMAND_TIMEOUT_S = 5
LINE_LIMIT = 300
REPORT_LIMIT = 20000
TREE_LIMIT = 20000
WRONG_LIMIT = 50
UNIT_LINES, ERROR_LINES = 20, 15
SCHEMA = 1


class Collector:
    """Collects evidence of one host; a source that fails is noted in `unseen`, and the others go on."""

    def __init__(self):
        """Start with nothing unseen, but for what only root sees."""
        self.unseen = []
        if os.geteuid() != 0:
            self.note("what only root may see", f"asked as {name_of(pwd.getpwuid, os.geteuid())}: of the log, too")
        # Since PID 1 started, not `-b`: the boot id of a container is its machine's, and does not change.
        self.since = f"--since=@{time.time() - age_s(1):.0f}"

    def note(self, source, why):
        """Note a source as unseen."""
        self.unseen.append({"source": source, "why": why.strip()[:LINE_LIMIT]})

    def command(self, *words, source=""):
        """Run a reading command; return (exit status, output, errors), or None when it cannot be run in time."""
        source = source or " ".join(words[:3])
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "SYSTEMD_PAGER": "cat"}
        try:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            self.note(source, error.strerror)
            return None
        with process:
            try:
                output, errors = process.communicate(timeout=COMMAND_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # with whatever it started
                self.note(source, f"no answer within {COMMAND_TIMEOUT_S} s")
                return None
        return process.returncode, output.decode(errors="replace"), errors.decode(errors="replace")

    def output(self, *words):
        """Return what a reading command says; nothing, and a note, when it fails."""
        done = self.command(*words)
        if done and done[0] != 0:
            self.note(" ".join(words[:3]), done[2])
        return done[1] if done and done[0] == 0 else ""

    def boot(self):
        """Return the boot's identity, its age and systemd's own verdict."""
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as handle:
            boot_id = handle.read().strip()
        state = self.command("systemctl", "is-system-running")
        return {"id": boot_id, "up_s": age_s(1), "state": state[1].strip() if state else "unknown"}

    def units(self, names):
        """Return what systemd says of each unit, and of every failed one."""
        failed = self.output("systemctl", "list-units", "--state=failed", "--plain", "--no-legend", "--all")
        names = list(dict.fromkeys([*names, *(line.split()[0] for line in failed.splitlines() if line.split())]))
        if not names:
            return {}
        wanted = "Id,Names,LoadState,ActiveState,SubState,UnitFileState,Result,FragmentPath"
        shown = self.output("systemctl", "show", "--property", wanted, "--", *names).strip()
        found = {}
        for name, block in zip(names, shown.split("\n\n") if shown else [], strict=False):
            fields = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
            unit = {
                "load": fields.get("LoadState", ""),
                "active": fields.get("ActiveState", ""),
                "sub": fields.get("SubState", ""),
                "enabled": fields.get("UnitFileState", ""),
                "result": fields.get("Result", ""),
                "fragment": fields.get("FragmentPath", ""),
                "log": [],
            }
            if unit["active"] != "active":
                unit["log"] = self.newest(UNIT_LINES, "-o", "cat", "-u", name)
            found[name] = unit
        return found

    def mounts(self, subjects):
        """Return for each wanted mount whether something is mounted there, and what lies in the directory."""
        mounted = {}
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as handle:
            for line in handle:
                fields = line.split()
                mounted[fields[4].replace("\\040", " ")] = fields[3]
        found = {}
        for path in (mount["path"] for subject in subjects for mount in subject.get("mounts") or []):
            try:
                entries = sorted(map(text, os.listdir(path)))[:5]
            except OSError as error:
                entries = []
                if not isinstance(error, FileNotFoundError):
                    self.note(path, error.strerror)
            found[path] = {"mounted": path in mounted, "source": mounted.get(path, ""), "entries": entries}
        return found

    def configs(self, subjects):
        """Ask services whether their configuration is valid, in a private view of the file system.

        `nginx -t` makes its pid file, its logs and temporary folders when they are missing: it runs in a mount
        namespace of its own, with those places in memory, so that nothing stays. `sshd -t` wants a folder
        there that only a started sshd has made.
        """
        found = {}
        for test in dict.fromkeys(subject["config_test"] for subject in subjects if subject.get("config_test")):
            name = test.split()[0]
            done = self.command(
                "unshare", "--mount", "--propagation", "private", "sh", "-c",
                "for place in /run /var/log/nginx /var/lib/nginx; do"
                " [ ! -d $place ] || mount -t tmpfs -o mode=0755 none $place || exit 97; done;"
                ' mkdir -m 0755 /run/sshd; exec "$@"',
                "sh", *test.split(), source=test,
            )  # fmt: skip
            if done and (done[0] in (97, 126, 127) or "unshare failed" in done[2]):
                self.note(test, done[2])
            elif done:
                told = done[2] or done[1]
                # sshd warns of what it no longer knows, and goes on.
                words = [line for line in lines(told) if "Deprecated option" not in line]
                message = next((line for line in words if "[emerg]" in line or "[ALERT]" in line), "".join(words[:1]))
                # nginx: the place ends the message, which may quote a file's text before it, in several lines.
                place = re.search(r"(?ms).* in (/[^\n]+?):\d+$", told[max(told.find("[emerg]"), 0) :])
                # sshd: it begins the message.
                place = place or re.match(r"(/[^\n]+?):? line \d+: ", message)
                found[name] = {"ok": done[0] == 0, "message": message, "file": place[1] if place else ""}
        return found

    def errors(self):
        """Return the last error lines of the journal since boot."""
        return self.newest(ERROR_LINES, "-o", "short-iso", "-p", "err")

    def newest(self, count, *words):
        """Return the newest lines of the journal since boot, oldest of them first."""
        # --reverse: with --since alone, -n counts from the beginning and not from the end.
        told = self.output("journalctl", self.since, "--reverse", "-q", "-n", str(count), "--no-pager", *words)
        return lines(told)[:count][::-1]

    def describe(self, path):
        """Return what lies at a path, without following a link at its end."""
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return {"kind": "missing"}
        except OSError as error:
            self.note(path, error.strerror)
            return {"kind": "unreadable"}
        kinds = ((stat.S_ISDIR, "directory"), (stat.S_ISREG, "file"), (stat.S_ISLNK, "link"))
        kind = next((name for test, name in kinds if test(status.st_mode)), "other")
        return {
            "kind": kind,
            "mode": f"{stat.S_IMODE(status.st_mode):04o}",
            "owner": name_of(pwd.getpwuid, status.st_uid),
            "group": name_of(grp.getgrgid, status.st_gid),
            "size": status.st_size,
            "link": text(os.readlink(path)) if kind == "link" else "",
        }

    def small_file(self, path, limit):
        """Return the beginning of an ordinary file and when it was written; None, with a note if odd, without one."""
        try:
            # Neither a link is followed nor a pipe waited for.
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            self.note(path, error.strerror)
            return None
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                self.note(path, "not an ordinary file")
                return None
            return os.read(handle, limit).decode(errors="replace"), status.st_mtime
        finally:
            os.close(handle)

    def locks(self, subjects):
        """Return of each lock file whether it stands, the PID in it, and the ages of both."""
        found = {}
        for path in (lock["path"] for subject in subjects for lock in subject.get("locks") or []):
            seen = self.small_file(path, 64)
            lock = {"present": seen is not None, "pid": None, "alive": False, "age_s": None, "owner_age_s": None}
            if seen:
                number = re.fullmatch(r"\s*([1-9][0-9]{0,9})\s*", seen[0])
                lock["age_s"] = round(time.time() - seen[1], 1)
                lock["pid"] = int(number[1]) if number else None
                lock["owner_age_s"] = living_age_s(number[1]) if number else None
                lock["alive"] = lock["owner_age_s"] is not None
            found[path] = lock
        return found

    def reports(self, subjects):
        """Return what jobs left about their last run; a job that succeeded left nothing."""
        found = {}
        units = (unit for subject in subjects for unit in subject.get("units") or [] if unit.get("report"))
        for unit in units:
            seen = self.small_file(unit["report"], REPORT_LIMIT)
            if seen is None:
                continue
            try:
                told = json.loads(seen[0])
                found[unit["name"]] = {
                    **{key: str(told[key])[:LINE_LIMIT] for key in ("state", "result", "status")},
                    "at": float(told["at"]),
                    "log": [str(line)[:LINE_LIMIT] for line in told["log"]][-8:],
                }
            except (ValueError, KeyError, TypeError) as error:
                self.note(unit["report"], f"not a report: {error!r}")
        return found

    def walk(self, tree):
        """Return directories and files below a tree whose modes lack bits they should have; follows no link."""
        wanted = {"directory": int(tree["directories"], 8), "file": int(tree["files"], 8)}
        seen, wrong, hidden = 0, [], []
        stack = [tree["path"]]
        while stack:
            path = stack.pop()
            try:
                entries = list(os.scandir(path))
            except OSError as error:
                hidden.append(f"{text(path)}: {error.strerror}")
                continue
            for entry in entries:
                seen += 1
                if seen > TREE_LIMIT or len(wrong) >= WRONG_LIMIT:
                    return {"seen": seen, "wrong": wrong, "complete": False}
                kind = "directory" if entry.is_dir(follow_symlinks=False) else "file"
                if kind == "file" and not entry.is_file(follow_symlinks=False):
                    continue
                try:
                    mode = stat.S_IMODE(entry.stat(follow_symlinks=False).st_mode)
                except OSError as error:
                    hidden.append(f"{text(entry.path)}: {error.strerror}")
                    continue
                if mode & wanted[kind] != wanted[kind]:
                    wrong.append({"path": text(entry.path), "kind": kind, "mode": f"{mode:04o}"})
                if kind == "directory":
                    stack.append(entry.path)
        if hidden:
            self.note(tree["path"], f"{len(hidden)} below it, first {hidden[0]}")
        return {"seen": seen, "wrong": wrong, "complete": not hidden}

    def names(self, subjects):
        """Return what each wanted name resolves to, as any program of this host would see it."""
        found = {}
        for wanted in [item for subject in subjects for item in subject.get("names") or []]:
            # A process of its own: a name server that does not answer must not hold the others up.
            told = self.command("getent", "ahosts", wanted["name"])
            if told:
                found[wanted["name"]] = list(dict.fromkeys(line.split()[0] for line in told[1].splitlines() if line))
        return found

    def disks(self, paths):
        """Return free space and inodes of the file systems that hold these paths."""
        found = {}
        for path in paths:
            try:
                numbers = os.statvfs(path)
            except OSError as error:
                self.note(path, error.strerror)
                continue
            found[path] = {
                "free_bytes": numbers.f_bavail * numbers.f_frsize,
                "size_bytes": numbers.f_blocks * numbers.f_frsize,
                "free_inodes": numbers.f_favail,
                "inodes": numbers.f_files,
            }
        return found

    def abandoned(self):
        """Return processes that a dropped connection left behind: their login is gone, they still run."""
        # systemd's own word for a scope whose login has ended; a login at the console or by su has no sshd, and lives.
        told = self.output("systemctl", "list-units", "--type=scope", "--state=abandoned", "--plain", "--no-legend")
        scopes = {line.split()[0] for line in told.splitlines() if line.startswith("session-")}
        found = []
        for entry in filter(str.isdigit, os.listdir("/proc") if scopes else []):
            try:
                with open(f"/proc/{entry}/cgroup", encoding="utf-8", errors="replace") as handle:
                    scope = re.search(r"session-[^/\n]+\.scope", handle.read())
                if scope and scope[0] in scopes:
                    with open(f"/proc/{entry}/cmdline", "rb") as handle:
                        command = handle.read().replace(b"\0", b" ").decode(errors="replace").strip()
                    found.append({"pid": int(entry), "age_s": age_s(entry), "command": command[:120]})
            except (OSError, IndexError):
                continue  # it ended while we looked
        return found


def lines(text):
    """Return the non-empty lines of a text, each cut at LINE_LIMIT characters."""
    return [line[:LINE_LIMIT] for line in text.splitlines() if line.strip()]


def text(name):
    """Return a file's name as text that every reader accepts."""
    return os.fsencode(name).decode(errors="backslashreplace")


def age_s(pid):
    """Return the age of a process in seconds."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as handle:
        started = int(handle.read().rsplit(")", 1)[1].split()[19]) / os.sysconf("SC_CLK_TCK")
    return round(time.clock_gettime(time.CLOCK_BOOTTIME) - started, 1)


def living_age_s(pid):
    """Return the age of a process in seconds; None when there is none, or only what its parent has not yet buried."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as handle:
            state = handle.read().rsplit(")", 1)[1].split()[0]
        return None if state in "ZX" else age_s(pid)
    except (OSError, IndexError):
        return None


def name_of(database, number):
    """Return a user's or group's name, the number where there is none."""
    try:
        return database(number)[0]
    except KeyError:
        return str(number)


def collect(subjects):
    """Return the evidence of this host for the subjects asked about."""
    collector = Collector()
    unit_names = [unit["name"] for subject in subjects for unit in subject.get("units") or []]
    mount_paths = [mount["path"] for subject in subjects for mount in subject.get("mounts") or []]
    paths = [item["path"] for subject in subjects for item in subject.get("paths") or []]
    trees = [tree for subject in subjects for tree in subject.get("trees") or []]
    reports = collector.reports(subjects)
    units = collector.units(unit_names)
    # A job that started or ended while we looked would seem to be cut off: only what stood before and after is told.
    again = collector.reports(subjects)
    return {
        "schema": SCHEMA,
        "host": socket.gethostname(),
        "at": round(time.time(), 3),
        "boot": collector.boot(),
        "subjects": subjects,
        "units": units,
        "mounts": collector.mounts(subjects),
        "paths": {path: collector.describe(path) for path in paths},
        "trees": {tree["path"]: collector.walk(tree) for tree in trees},
        "configs": collector.configs(subjects),
        "names": collector.names(subjects),
        "locks": collector.locks(subjects),
        "reports": {name: told for name, told in again.items() if reports.get(name) == told},
        "disks": collector.disks(["/", *mount_paths]),
        "abandoned": collector.abandoned(),
        "errors": collector.errors(),
        "unseen": [item for number, item in enumerate(collector.unseen) if item not in collector.unseen[:number]],
    }


def main():
    """Ansible's entry point."""
    from ansible.module_utils.basic import AnsibleModule

    module = AnsibleModule(
        argument_spec={"subjects": {"type": "list", "elements": "dict", "default": []}}, supports_check_mode=True
    )
    evidence = collect(module.params["subjects"])
    module.exit_json(changed=False, hikeshi=evidence)


if __name__ == "__main__":
    main()
