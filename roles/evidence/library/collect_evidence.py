#!/usr/bin/python3
"""Read facts from a host without changing it: standard library only, one call, bounded in size and time.

Collecting is dumb: it says what is there, never what it means. Schema 1 of the returned `hikeshi`:

    schema, host, at            1, host name, seconds since the epoch (UTC)
    boot                        {id, up_s, state}: boot id, age of PID 1 in seconds, `systemctl is-system-running`
    subjects                    the question, as it was asked (see roles/evidence/meta/argument_specs.yml)
    units      name → {load, active, sub, enabled, result, fragment, after, log}; after: which of the units asked for it
               is ordered after; log: last lines since boot when not active
    mounts     path → {mounted, source, entries}; entries: names below, at most 5
    paths      path → {kind, mode, owner, group, size, link, leads_to}; kind: directory, file, link, other, missing,
               unreadable; link: the target of a link as it is written; leads_to: the kind of what it leads to, missing
               when it leads nowhere; both "" for what is no link
    trees      path → {seen, wrong, complete}: directories and files whose modes are not the wanted ones
    configs    name → {ok, message, file, unresolved}: the service's own test of its configuration; unresolved, null or
               {name, code}: a host that nginx did not find, and what getaddrinfo says of it now (0: found; -2, -5:
               there is none; -3: nobody could say), null when it did not answer in time
    answers    "URL HOST" → {status, bytes, seconds, words} of what a web server of this host answered to one question,
               at most 64 KiB of it read, no redirect followed; words: where it leads to, else its first without tags;
               {why, error} where nothing whole came within 3 s: error is ECONNREFUSED where nobody listens, else "",
               and then it is listed under unseen, too
    listens    SOCKET or ADDRESS:PORT → whether anybody listens there; also where it is on all addresses
    sshd_at    [{address, port, by}]: where sshd listens now, in order; by: sshd, or ssh.socket where systemd does it
               for sshd; address: 0.0.0.0 or :: where on all of them
    names      name → addresses it resolves to now, in order; none when it does not
    disks      mount → {free_bytes, size_bytes, free_inodes, inodes} of what is mounted to be written to
    locks      path → {present, pid, alive, age_s, owner_age_s}: files that hold their owner's PID, null: it names none;
               age_s since it was written; owner_age_s of the process that has this PID now, null when none has
    reports    unit → {state, at, result, status, log}: what a job left about its last run; no report, no entry
    databases  socket → {answers, code, message, most, connections, idle, crashed}: of a MariaDB, connections there may
               be, there are (but for ours), and of these asleep; crashed: [{table, words}], at most 50: tables that it
               cannot open, of Aria and MyISAM where these repair nothing by themselves (*_recover_options OFF or empty)
    logs       directory → {mount, keep_mount, old_bytes, old, errors}: the disks that hold it and what is kept of it;
               old: [{name, bytes}] of rotated logs, the largest first, at most 5; old_bytes: of all of them; errors:
               the last lines of the file in which its unit tells of errors, at most 15, none where it has no such file
    deleted    [{pid, unit, path, bytes, mount}]: deleted files of 1 MiB and more on a disk of `disks` that a unit still
               holds open, largest first, at most 20; a root that may not trace others sees only what root holds
    logins     environment file → {ok, code, message}: a program's own login at its database; code 0: not even tried
    abandoned  [{pid, age_s, command}]: processes of logins that no longer exist
    reaches    NAME:PORT → [{address, ok, why}]: whether a TCP connection to each address of what a service must reach
               comes about within 3 s; why: the error's name, TIMEOUT, "" where it came about; nothing is sent
    global_ipv6  whether the host has an IPv6 address with which it is reached from beyond its links
    firewall   [{family, backend, table, chain, policy, rules, complete}]: the chains of iptables that INPUT or OUTPUT
               lead to, of each table in which one of them drops or rejects; family: ipv4, ipv6; backend: nft, legacy;
               rules: their words in order as iptables-save prints them, at most 100, complete: these are all
    saved_firewall  file → {family, chains}: the same of the rules that netfilter-persistent loads at the next boot
    firewall_cut  families whose rules, now or saved, could not be read or are not all told: what is not there may stand
    errors     last lines of priority err and worse since boot
    way_in     what decides whether anybody gets in, described in module_utils/hikeshi_way_in.py
    state      {facts, texts}, described in module_utils/hikeshi_state.py, only where it was asked for; of a disk that
               is mounted at `root`, way_in, state, programs, unseen and what module_utils/hikeshi_disk.py names are all
               that is told
    programs   name → what a program of another role told, as JSON, only where it was asked (see the action plugin);
               null where it told nothing; of a disk it is told the root, too
    additions  [{kind, name, more}]: what neither a role nor a Debian package put there, at most 100: a file or a link
               (more: its target) in a directory that a role fills; a package's setting that was changed (more: the
               package); a user who can log in (more: uid and shell)
    verify     [{path, package, what, conffile}], only where asked for (`packages`), null where dpkg did not answer:
               files that are not as their package brought them, at most 200, missing and changed ones first, settings
               (conffile) last; what: missing, changed (its content), mode (no ordinary file any more), unreadable;
               package: "" where that is not known
    unseen     [{source, why}]: what could not be read

Names are text: a byte that is no UTF-8 is written as \\xNN.
"""

import contextlib
import errno
import grp
import hashlib
import http.client
import json
import os
import pwd
import re
import selectors
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor

COMMAND_TIMEOUT_S = 5
ANSWER_TIMEOUT_S = 3
PROGRAM_TIMEOUT_S = 30  # it has bounds of its own
ANSWER_LIMIT, GIST_LIMIT = 64 << 10, 2000
REACH_TIMEOUT_S, ADDRESSES_LIMIT = 3, 8
VERIFY_TIMEOUT_S, VERIFY_LIMIT = 60, 200  # dpkg reads every file of every package: 6 to 12 s on a small host
OUTPUT_LIMIT = 1000000
LINE_LIMIT = 300
FILE_LIMIT = 20000
TREE_LIMIT = 20000
WRONG_LIMIT = 50
SETTING_LIMIT = 1 << 20
ADDITIONS_LIMIT = 100
PEOPLE = range(1000, 60000)  # uids of accounts made for people (login.defs)
DELETED_LEAST, DELETED_LIMIT, OLD_LIMIT = 1 << 20, 20, 5
OPEN_LIMIT = 100000
UNIT_LINES, ERROR_LINES, TAIL_LIMIT = 20, 15, 64 << 10
CHAINS_LIMIT, RULES_LIMIT = 50, 100
BLOCKS = re.compile(r" -j (?:DROP|REJECT)(?: |$)")
IPV6_ADDRESSES = "/proc/net/if_inet6"  # address, interface, length, scope (00: global), flags, name
SAVED_FIREWALL = {"/etc/iptables/rules.v4": "ipv4", "/etc/iptables/rules.v6": "ipv6"}
SCHEMA = 1
# Writes nothing. Opening a table (TABLE_ROWS asks for that) may have the server repair it: only tables of engines that
# are told not to are opened, which also stay crashed; which these are stands in their definitions. Of a table that
# cannot be opened ENGINE is NULL, and the server says why where the comment would be.
ASK_DATABASE = """
SET max_statement_time = 4, lc_messages = 'en_US';
SELECT @@max_connections;
SELECT COUNT(*) - 1, COALESCE(SUM(COMMAND = 'Sleep'), 0) FROM information_schema.PROCESSLIST
    WHERE USER NOT IN ('system user', 'event_scheduler');
DELIMITER //
FOR one IN (
    SELECT TABLE_SCHEMA AS place, TABLE_NAME AS name FROM information_schema.TABLES
    WHERE TABLE_TYPE = 'BASE TABLE' AND (
        ENGINE = 'Aria' AND @@aria_recover_options IN ('', 'OFF')
        OR ENGINE = 'MyISAM' AND @@myisam_recover_options IN ('', 'OFF')
    )
) DO
    SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_COMMENT, TABLE_ROWS FROM information_schema.TABLES
    WHERE TABLE_SCHEMA = one.place AND TABLE_NAME = one.name AND ENGINE IS NULL
    AND TABLE_COMMENT RLIKE '(is|as) crashed|is corrupt|^Incorrect ';
END FOR//
"""
CRASHED_LIMIT = 50
NO_SERVER, TOO_MANY_CONNECTIONS = 2002, 1040
# As bytes, like nginx does: a name that is no name is for the resolver to refuse.
RESOLVE = """
import os, socket, sys
try:
    socket.getaddrinfo(os.fsencode(sys.argv[1]), None)
    print(0)
except socket.gaierror as error:
    print(error.errno)
"""
# The client reads its settings in lines of 4096 bytes: the rest of a longer one would be a setting of its own.
SETTINGS_LIMIT = 3000


class Collector:
    """Collects evidence of one host; a source that fails is noted in `unseen`, and the others go on."""

    def __init__(self):
        """Start with nothing unseen, but for what only root sees."""
        self.unseen = []
        self.firewall_cut = set()
        if os.geteuid() != 0:
            self.note("what only root may see", f"asked as {name_of(pwd.getpwuid, os.geteuid())}: of the log, too")
        # Since PID 1 started, not `-b`: the boot id of a container is its machine's, and does not change.
        self.since = f"--since=@{time.time() - age_s(1):.0f}"

    def note(self, source, why):
        """Note a source as unseen."""
        self.unseen.append({"source": source[:LINE_LIMIT], "why": why.strip()[:LINE_LIMIT]})

    def command(self, *words, source="", keep=(), timeout_s=None):
        """Run a reading command; return (exit status, output, errors), or None when it cannot be run in time.

        `keep`: file descriptors that it inherits.
        """
        timeout_s = timeout_s or COMMAND_TIMEOUT_S
        source = source or " ".join(words[:3])
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "SYSTEMD_PAGER": "cat"}
        try:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment,
                start_new_session=True, pass_fds=keep,
            )  # fmt: skip
        except OSError as error:
            self.note(source, error.strerror)
            return None
        with process:
            told, why = listen(process, timeout_s)
            if why:
                os.killpg(process.pid, signal.SIGKILL)  # with whatever it started
                self.note(source, why)
                return None
        return process.returncode, *(piece.decode(errors="backslashreplace") for piece in told)

    def program(self, name, code, root):
        """Return what a reading program, whose text is given, tells as JSON; None, and a note, when that is nothing."""
        where = [] if os.path.realpath(root) == "/" else ["--root", root]
        try:
            done = subprocess.run(
                [sys.executable, "-", "collect", *where], input=code.encode(), capture_output=True, check=False,
                timeout=PROGRAM_TIMEOUT_S, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
            )  # fmt: skip
            return json.loads(done.stdout)
        except (OSError, subprocess.SubprocessError) as error:
            self.note(name, str(error))
        except ValueError:
            self.note(name, done.stderr.decode(errors="backslashreplace") or "it told nothing")
        return None

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

    def units(self, asked):
        """Return what systemd says of each unit that subjects ask about, and of every failed one."""
        failed = self.output("systemctl", "list-units", "--state=failed", "--plain", "--no-legend", "--all")
        after = {}
        for unit in asked:
            after.setdefault(unit["name"], []).extend(unit.get("after") or [])
        names = list(dict.fromkeys([*after, *(line.split()[0] for line in failed.splitlines() if line.split())]))
        if not names:
            return {}
        wanted = "Id,Names,LoadState,ActiveState,SubState,UnitFileState,Result,FragmentPath,After"
        shown = self.output("systemctl", "show", "--property", wanted, "--", *names).strip()
        blocks = [
            dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
            for block in (shown.split("\n\n") if shown else [])
        ]
        fresh = self.enabled([fields["Id"] for fields in blocks if fields.get("Id") and fields.get("UnitFileState")])
        found = {}
        for name, fields in zip(names, blocks, strict=False):
            unit = {
                "load": fields.get("LoadState", ""),
                "active": fields.get("ActiveState", ""),
                "sub": fields.get("SubState", ""),
                "enabled": fresh.get(fields.get("Id"), fields.get("UnitFileState", "")),
                "result": fields.get("Result", ""),
                "fragment": fields.get("FragmentPath", ""),
                "after": [other for other in after.get(name, []) if other in fields.get("After", "").split()],
                "log": [],
            }
            if unit["active"] != "active":
                unit["log"] = self.newest(UNIT_LINES, "-o", "cat", "-u", name)
            found[name] = unit
        return found

    def enabled(self, names):
        """Return the states of unit files as they are: `show` tells what systemd knew when it last read them."""
        lines = self.command("systemctl", "is-enabled", "--", *names)[1].split() if names else []
        return dict(zip(names, lines, strict=True)) if len(lines) == len(names) else {}

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

    def apart(self, *words, source):
        """Have a service read its configuration in a private view of the file system; return what `command` does.

        `nginx -t` makes its pid file, its logs and temporary folders when they are missing: it runs in a mount
        namespace of its own, with those places in memory, so that nothing stays. `sshd -t` wants a folder
        there that only a started sshd has made.
        """
        done = self.command(
            "unshare", "--mount", "--propagation", "private", "sh", "-c",
            "names=$(cat /etc/resolv.conf 2> /dev/null); for place in /run /var/log/nginx /var/lib/nginx; do"
            " [ ! -d $place ] || mount -t tmpfs -o mode=0755 none $place || exit 97; done;"
            # Where systemd-resolved writes it, it lay in what is hidden now.
            ' file=$(readlink -m /etc/resolv.conf); [ -z "$names" ] || [ -e "$file" ] ||'
            ' { mkdir -p "${file%/*}" && printf "%s\\n" "$names" > "$file"; };'
            ' mkdir -m 0755 /run/sshd; exec "$@"',
            "sh", *words, source=source,
        )  # fmt: skip
        if done and (done[0] in (97, 126, 127) or "unshare failed" in done[2]):
            self.note(source, done[2])
            return None
        return done

    def configs(self, subjects):
        """Ask services whether their configuration is valid."""
        found = {}
        for test in dict.fromkeys(subject["config_test"] for subject in subjects if subject.get("config_test")):
            name = test.split()[0]
            done = self.apart(*test.split(), source=test)
            if done:
                message, file, _ = configuration(done[2] or done[1])
                found[name] = {
                    "ok": done[0] == 0, "message": message, "file": file,
                    "unresolved": self.unresolved(message),
                }  # fmt: skip
        return found

    def unresolved(self, message):
        """Return the host that nginx did not find and what the resolver says of it; None when it is not about one."""
        name = configuration(message)[2]
        if name is None:
            return None
        told = self.command("python3", "-c", RESOLVE, name, source=f"name {name}") if name else None
        code = re.fullmatch(r"(-?\d{1,4})\n", told[1]) if told else None
        return {"name": name, "code": int(code[1]) if code else None}

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
        kind = kind_of(status)
        return {
            "kind": kind,
            "mode": f"{stat.S_IMODE(status.st_mode):04o}",
            "owner": name_of(pwd.getpwuid, status.st_uid),
            "group": name_of(grp.getgrgid, status.st_gid),
            "size": status.st_size,
            "link": text(os.readlink(path)) if kind == "link" else "",
            "leads_to": end_of(path) if kind == "link" else "",
        }

    def piece(self, path, limit, end=False):
        """Return an ordinary file's first, or last, bytes and when it was written; None, noted if odd, without one."""
        try:
            # Neither a link is followed nor a pipe waited for.
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            self.note(text(path), error.strerror)
            return None
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                self.note(text(path), "not an ordinary file")
                return None
            return os.pread(handle, limit, max(0, status.st_size - limit) if end else 0), status.st_mtime
        finally:
            os.close(handle)

    def small_file(self, path, limit):
        """Return the beginning of an ordinary file as text, and when it was written."""
        seen = self.piece(path, limit)
        return seen and (seen[0].decode(errors="replace"), seen[1])

    def last_lines(self, path):
        """Return the last lines of a log; the first of them may lack its beginning."""
        seen = self.piece(path, TAIL_LIMIT, end=True)
        return lines(text(seen[0]))[-ERROR_LINES:] if seen else []

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
            seen = self.small_file(unit["report"], FILE_LIMIT)
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

    def mariadb(self, defaults, place, statements, keep=()):
        """Run reading statements at a socket; return (lines of cells, MariaDB's error or 0, its words) or None."""
        done = self.command(
            "mariadb", defaults, f"--socket={place}", "--connect-timeout=3", "--skip-ssl", "--skip-local-infile",
            "--batch", "--skip-column-names", "-e", statements, source=f"mariadb at {place}", keep=keep,
        )  # fmt: skip
        if done is None:
            return None
        # The server's words alone: the client's own may quote its settings, and a password with them.
        said = re.search(r"(?m)^ERROR (\d{1,9})\b.*", done[2]) if done[0] else None
        if done[0] and not said:
            self.note(f"mariadb at {place}", f"it ended with status {done[0]}")
            return None
        rows = [line.split("\t") for line in done[1].split("\n")]
        return rows, int(said[1]) if said else 0, said[0][:LINE_LIMIT] if said else ""

    def databases(self, subjects):
        """Return how full each database server is, and which of its tables it cannot open."""
        found = {}
        for place in (subject["database"]["socket"] for subject in subjects if subject.get("database")):
            # Beyond the last connection there is one for root; whoever is just being refused holds it for a moment.
            for pause in (0.2, 0.4, 0.8, 0):
                done = self.mariadb("--no-defaults", place, ASK_DATABASE)
                if not done or done[1] != TOO_MANY_CONNECTIONS:
                    break
                time.sleep(pause)
            if done is None:
                continue
            rows, code, message = done
            try:
                most, (connections, idle), answers = int(rows[0][0]), map(int, rows[1]), True
            except (ValueError, IndexError):
                most, connections, idle, answers = 0, 0, 0, False
            # Of a stopped server its unit says enough.
            if code not in (0, NO_SERVER, TOO_MANY_CONNECTIONS):
                self.note(f"mariadb at {place}", message)
            tables = [row for row in rows[2:] if len(row) == 4][:CRASHED_LIMIT]
            crashed = [{"table": f"{row[0]}.{row[1]}", "words": row[2][:LINE_LIMIT]} for row in tables]
            found[place] = {
                "answers": answers, "code": code, "message": message, "most": most, "connections": connections,
                "idle": idle, "crashed": crashed,
            }  # fmt: skip
        return found

    def logins(self, subjects):
        """Log in at the database as each program would: with what stands in its environment file."""
        found = {}
        for wanted in (subject["login"] for subject in subjects if subject.get("login")):
            file = wanted["environment"]
            seen = self.small_file(file, FILE_LIMIT)
            if seen is None:
                continue
            told = environment(seen[0])
            # Without a name or a password root, who asks, would be let in.
            lacking = [wanted[key] for key in ("user", "password", "name", "socket") if not told.get(wanted[key])]
            user, password, name = (quoted(told.get(wanted[key], "")) for key in ("user", "password", "name"))
            settings = f"[client]\nuser={user}\npassword={password}\ndatabase={name}\n".encode()
            if len(seen[0].encode()) >= FILE_LIMIT or len(settings) > SETTINGS_LIMIT:
                self.note(file, "too long to be tried as a login")
            elif lacking:
                found[file] = {"ok": False, "code": 0, "message": f"{', '.join(lacking)} not in {file}"[:LINE_LIMIT]}
            elif told[wanted["user"]] == "root":
                self.note(file, "names root, whom the server lets in without a password")
            elif done := self.login(settings, told[wanted["socket"]]):
                found[file] = {"ok": done[1] == 0, "code": done[1], "message": done[2]}
        return found

    def login(self, settings, place):
        """Log in at a socket with the settings of a client; return what `mariadb` returns."""
        # In memory, and inherited: neither the list of processes nor a disk may show it.
        handle = os.memfd_create("login")
        try:
            # Memory is open to all at first, and the client would read none of it, and log in as root.
            os.fchmod(handle, 0o600)
            os.write(handle, settings)
            return self.mariadb(f"--defaults-file=/proc/self/fd/{handle}", place, "SELECT 1", keep=(handle,))
        finally:
            os.close(handle)

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

    def answers(self, subjects):
        """Ask each address that subjects name, once; return what came back."""
        found = {}
        for wanted in [item for subject in subjects for item in subject.get("answers") or []]:
            url = wanted["url"] if "://" in wanted["url"] else f"http://{own_address()}{wanted['url']}"
            told = found[f"{wanted['url']} {wanted['host']}"] = answer(url, wanted["host"])
            if "why" in told and not told["error"]:
                self.note(f"the answer to {wanted['url']}", told["why"])
        return found

    def names(self, subjects):
        """Return what each wanted name resolves to, as any program of this host would see it."""
        found = {}
        for wanted in [item for subject in subjects for item in subject.get("names") or []]:
            # A process of its own: a name server that does not answer must not hold the others up.
            told = self.command("getent", "ahosts", wanted["name"])
            if told:
                found[wanted["name"]] = list(dict.fromkeys(line.split()[0] for line in told[1].splitlines() if line))
        return found

    def reaches(self, subjects):
        """Try a connection to each address of what services must reach, all at once: one that hangs takes its time."""
        places = []
        for wanted in [item for subject in subjects for item in subject.get("reaches") or []]:
            told = self.command("getent", "ahosts", wanted["name"])
            addresses = dict.fromkeys(line.split()[0] for line in told[1].splitlines() if line) if told else ()
            places += [(wanted["name"], address, wanted["port"]) for address in list(addresses)[:ADDRESSES_LIMIT]]
        found = {}
        with ThreadPoolExecutor(max_workers=max(len(places), 1)) as pool:
            whys = pool.map(lambda place: why_not_reached(*place[1:]), places)
            for (name, address, port), why in zip(places, whys, strict=True):
                found.setdefault(f"{name}:{port}", []).append({"address": address, "ok": not why, "why": why})
        return found

    def global_ipv6(self):
        """Say whether an IPv6 address of this host is known beyond its links."""
        try:
            with open(IPV6_ADDRESSES, encoding="ascii") as handle:
                return any(line.split()[3] == "00" for line in handle)
        except FileNotFoundError:  # the kernel has no IPv6
            return False

    def firewall(self, told):
        """Return the chains that may block, of all backends and families."""
        found = []
        for (backend, family), (chains, whole) in told.items():
            if not whole:
                self.firewall_cut.add(family)
            bounded = self.bounded(chains, family, f"firewall of {family} ({backend})")
            found += [{"family": family, "backend": backend, **chain} for chain in bounded]
        return found

    def bounded(self, chains, family, source):
        """Return as many of the chains that may block as are told; note that there are more."""
        found = blocking(chains)
        if len(found) > CHAINS_LIMIT:
            self.note(source, f"more than {CHAINS_LIMIT} chains")
            self.firewall_cut.add(family)
        return found[:CHAINS_LIMIT]

    def saved_firewall(self, read):
        """Return the chains that may block once the host has started again; nothing where no boot loads any."""
        texts = {path: self.small_file(path, SETTING_LIMIT) for path in SAVED_FIREWALL if os.path.lexists(path)}
        loads = self.command("systemctl", "is-enabled", "netfilter-persistent.service") if texts else None
        if not loads or loads[1].strip() != "enabled":
            return {}
        return {
            path: {"family": SAVED_FIREWALL[path], "chains": self.bounded(read(seen[0]), SAVED_FIREWALL[path], path)}
            for path, seen in texts.items()
            if seen
        }

    def disks(self, paths):
        """Return free space and inodes of the file systems that are mounted at these paths and may be written to."""
        found = {}
        for path in filter(os.path.ismount, paths):  # of any other, the numbers would be those of the disk it is on
            try:
                numbers = os.statvfs(path)
            except OSError as error:
                self.note(path, error.strerror)
                continue
            if numbers.f_flag & os.ST_RDONLY:
                continue  # an image of a CD is full for ever
            found[path] = {
                "free_bytes": numbers.f_bavail * numbers.f_frsize,
                "size_bytes": numbers.f_blocks * numbers.f_frsize,
                "free_inodes": numbers.f_favail,
                "inodes": numbers.f_files,
            }
        return found

    def logs(self, places):
        """Return of each directory of logs what its rotated ones take, and which disks are concerned."""
        found = {}
        for place in places:
            old, pattern = [], re.compile(place["rotated"])
            try:
                for entry in os.scandir(place["directory"]):
                    if pattern.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                        old.append((entry.stat(follow_symlinks=False).st_blocks * 512, text(entry.name)))
            except FileNotFoundError:
                pass
            except OSError as error:
                self.note(place["directory"], error.strerror)
            old.sort(reverse=True)
            told = place.get("errors")
            found[place["directory"]] = {
                "mount": mount_of(place["directory"]),
                "keep_mount": mount_of(place["keep"]),
                "old_bytes": sum(size for size, _ in old),
                "old": [{"name": name, "bytes": size} for size, name in old[:OLD_LIMIT]],
                "errors": self.last_lines(os.path.join(place["directory"], told)) if told else [],
            }
        return found

    def deleted(self, disks):
        """Return the deleted files on these disks that are held open, once for each unit that holds them."""
        by_device, found, seen = {}, {}, 0
        for mount in disks:
            try:
                by_device.setdefault(os.stat(mount).st_dev, mount)
            except OSError as error:
                self.note(mount, error.strerror)
        for pid in sorted(map(int, filter(str.isdigit, os.listdir("/proc")))):
            try:
                names = [f"/proc/{pid}/fd/{number}" for number in os.listdir(f"/proc/{pid}/fd")]
            except OSError:
                continue  # it ended, or we may not trace it
            seen += len(names)
            if seen > OPEN_LIMIT:
                self.note("/proc/*/fd", f"more than {OPEN_LIMIT} open files")
                break
            for name in names:
                try:
                    path = os.readlink(name)
                    if not path.endswith(" (deleted)"):
                        continue
                    status = os.stat(name)
                    size, mount = status.st_blocks * 512, by_device.get(status.st_dev)
                    if mount and stat.S_ISREG(status.st_mode) and status.st_nlink == 0 and size >= DELETED_LEAST:
                        unit = unit_of(pid)
                        item = {"pid": pid, "unit": unit, "path": text(path[: -len(" (deleted)")]), "bytes": size}
                        found.setdefault((status.st_dev, status.st_ino, unit), {**item, "mount": mount})
                except OSError:
                    continue  # it was closed while we looked
        return sorted(found.values(), key=lambda item: (-item["bytes"], item["path"], item["pid"]))[:DELETED_LIMIT]

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

    def additions(self, subjects):
        """Return what people added: to the directories that roles fill, to packages' settings, and as accounts."""
        own = {item["path"] for subject in subjects for item in subject.get("paths") or []}
        places = [place for subject in subjects for place in subject.get("directories") or []]
        own |= {f"{place['path']}/{name}" for place in places for name in place["own"]}
        standing = self.standing(dict.fromkeys(place["path"] for place in places), own)
        settings = self.settings() if standing else {}
        found, unknown = [], {}
        for path, target in standing.items():
            if target in settings:  # a link to a package's file is how a package is switched on
                package, digest = settings[target]
                seen = self.piece(path, SETTING_LIMIT) if path == target and digest else None
                if seen and hashlib.md5(seen[0], usedforsecurity=False).hexdigest() != digest:
                    found.append({"kind": "setting", "name": text(path), "more": package})
            else:
                unknown[path] = target
        packaged = self.packaged([name for pair in unknown.items() for name in pair])
        for path, target in unknown.items():
            if not {path, target} & packaged:
                kind = "file" if path == target else "link"
                found.append({"kind": kind, "name": text(path), "more": "" if path == target else text(target)})
        found.sort(key=lambda item: (item["name"], item["kind"]))
        found += self.people({name for subject in subjects for name in subject.get("users") or []})
        if len(found) > ADDITIONS_LIMIT:
            self.note("what people added", f"{len(found)} things, of which {ADDITIONS_LIMIT} are told")
        return found[:ADDITIONS_LIMIT]

    def standing(self, places, own):
        """Return the files in these directories, and in those below that end in .d: path → what a link leads to."""
        found, stack = {}, list(places)[::-1]
        while stack:
            place = stack.pop()
            try:
                entries = sorted(os.scandir(place), key=lambda entry: entry.name)
            except FileNotFoundError:
                continue
            except OSError as error:
                self.note(text(place), error.strerror)
                continue
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    stack += [entry.path] if entry.name.endswith(".d") else []
                elif entry.path not in own and os.path.isfile(entry.path):
                    found[entry.path] = os.path.realpath(entry.path) if entry.is_symlink() else entry.path
                if len(found) > TREE_LIMIT:
                    self.note(text(place), f"more than {TREE_LIMIT} files in such directories")
                    return found
        return found

    def settings(self):
        """Return the settings that packages brought: path → package and MD5 of what it brought, "" where not known."""
        found, package = {}, ""
        for line in self.output("dpkg-query", "--show", "--showformat=${Package}\n${Conffiles}\n").splitlines():
            if not line.startswith(" "):
                package = line
                continue
            told = re.fullmatch(r" (/.+?) (\S+)(?: obsolete| remove-on-upgrade)*", line)
            if told:
                found[told[1]] = package, told[2] if re.fullmatch("[0-9a-f]{32}", told[2]) else ""
        return found

    def packaged(self, paths):
        """Return those of these paths that a package owns, under either name where /lib is /usr/lib."""
        names = {path: [path, path.removeprefix("/usr")] for path in paths}
        owned = self.owners({name for both in names.values() for name in both}).keys()
        return {path for path, both in names.items() if owned & set(both)}

    def owners(self, names):
        """Return the packages that own these names: name → packages, "" where one moved it aside for another."""
        wanted = sorted(re.sub(r"([\\*?[])", r"\\\1", name) for name in names)[:TREE_LIMIT]
        # Exit status 1: some belong to none.
        told = self.command("dpkg-query", "--search", "--", *wanted) if wanted else None
        found = {}
        for line in told[1].splitlines() if told else ():
            packages, _, name = line.partition(": ")
            found[name] = found.get(name) or (
                "" if packages.startswith(("diversion by ", "local diversion")) else packages
            )
        return found

    def verify(self):
        """Return the files that are not as their package brought them; None where dpkg does not say."""
        told = self.command(
            "dpkg", "--verify-format", "rpm", "--verify", source="dpkg --verify", timeout_s=VERIFY_TIMEOUT_S
        )
        if told is None:
            return None
        if told[0] not in (0, 1):
            self.note("dpkg --verify", told[2] or f"it ended with status {told[0]}")
            return None
        found = verified(told[1])
        if len(found) > VERIFY_LIMIT:
            self.note("dpkg --verify", f"{len(found)} files, of which {VERIFY_LIMIT} are told")
        found = found[:VERIFY_LIMIT]
        packages = self.owners({item["path"] for item in found})
        return [{**item, "package": packages.get(item["path"], "")[:LINE_LIMIT]} for item in found]

    def people(self, own):
        """Return the accounts of this host that a person may log in with, but for these."""
        found = []
        with open("/etc/passwd", encoding="utf-8", errors="replace") as handle:
            for line in handle:
                fields = line.rstrip("\n").split(":")
                if len(fields) != 7 or not fields[2].isdigit() or int(fields[2]) not in PEOPLE or fields[0] in own:
                    continue
                if fields[6].rpartition("/")[2] not in ("nologin", "false"):
                    more = f"uid {fields[2]}, {fields[6] or '/bin/sh'}"
                    found.append({"kind": "user", "name": fields[0], "more": more})
        return found


def listen(process, timeout_s):
    """Return what a process writes until it ends; of one that takes too long or says too much, why it was given up."""
    told = {process.stdout: b"", process.stderr: b""}
    end = time.monotonic() + timeout_s
    late = f"no answer within {timeout_s} s"
    with selectors.DefaultSelector() as open_ends:
        for pipe in told:
            open_ends.register(pipe, selectors.EVENT_READ)
        while open_ends.get_map():
            ready = open_ends.select(end - time.monotonic())
            if not ready or time.monotonic() > end:
                return (b"", b""), late
            for key, _ in ready:
                piece = os.read(key.fd, 65536)
                told[key.fileobj] += piece
                if not piece:
                    open_ends.unregister(key.fileobj)
            if sum(map(len, told.values())) > OUTPUT_LIMIT:
                return (b"", b""), f"it said more than {OUTPUT_LIMIT} bytes"
    try:
        process.wait(max(end - time.monotonic(), 0.1))
    except subprocess.TimeoutExpired:
        return (b"", b""), late
    return tuple(told.values()), ""


# A line of an environment file as systemd reads it: a comment, or a name and its value, first what is quoted of it.
ENTRY = re.compile(
    r"""
    [ \t\n]*
    (?: [#;] [^\n]*
      | (?P<name> [^=\n]+ ) = (?P<pieces> (?: [ \t] | '[^']*' | "(?:\\.|[^"\\])*" )* ) (?P<rest> (?: \\. | [^\\\n] )* )
      | [^\n]*
    )
    """,
    re.VERBOSE | re.DOTALL,
)
PIECE = re.compile(r"""'([^']*)'|"((?:\\.|[^"\\])*)\"""", re.DOTALL)


def environment(text):
    """Return the variables of an environment file, the last of each name."""
    found = {}
    for name, pieces, rest in ENTRY.findall(text.partition("\0")[0].replace("\r", "\n")):
        # A backslash takes a line's end away, and itself: within double quotes before these four, elsewhere always.
        within = (single + re.sub(r'\\(?:\n|(["\\`$]))', r"\1", double) for single, double in PIECE.findall(pieces))
        if name:
            found[name.strip(" \t")] = "".join(within) + re.sub(r"(?s)\\(?:\n|(.))", r"\1", rest.rstrip(" \t"))
    return found


def quoted(value):
    """Return a value as the option files of MariaDB's clients hold it."""
    return '"' + re.sub(r'(["\\])', r"\\\1", value).replace("\n", r"\n") + '"'


def verified(told):
    """Return what `dpkg --verify` says, settings last: nine marks or "missing", c for a setting, and the path."""
    found = []
    for line in told.splitlines():
        marks = re.fullmatch(r"(missing  |[?.SM5DLUGTPC]{9}) ([c ]) (/.*)", line)
        if not marks:
            continue
        missing, path = marks[1].startswith("missing"), marks[3]
        # Why it cannot be seen, where it may well be there.
        hidden = re.fullmatch(r"(/.*) \(([^()]+)\)", path) if missing else None
        what = "unreadable" if hidden else "missing" if missing else "mode" if marks[1][1] == "M" else "changed"
        found.append({"path": hidden[1] if hidden else path, "what": what, "conffile": marks[2] == "c"})
    order = ("missing", "changed", "mode", "unreadable")
    return sorted(found, key=lambda item: (item["conffile"], order.index(item["what"]), item["path"]))


def configuration(told):
    """Return what a service's test of its configuration says: its message, and which file it is about, "" for none.

    And the host that nginx did not find: "" where it does not name it, None when it is not about one.
    """
    # sshd warns of what it no longer knows, and goes on.
    words = [line for line in lines(told) if "Deprecated option" not in line]
    message = next((line for line in words if "[emerg]" in line or "[ALERT]" in line), "".join(words[:1]))
    # nginx: the place ends the message, which may quote a file's text before it, in several lines. Looked for from the
    # beginning alone: from every character, a long text that is meant so would take hours.
    place = re.match(r"(?ms).* in (/[^\n]+?):\d+$", told[max(told.find("[emerg]"), 0) :])
    # sshd: it begins the message.
    place = place or re.match(r"(/[^\n]+?):? line \d+: ", message)
    lost = re.search(r'\[emerg\] [\d#: ]*host not found in (?:[A-Za-z]+ )*(?:"([^"/:?\s]+)[^"]*")?', message)
    return message, place[1] if place else "", (lost[1] or "") if lost else None


def lines(text):
    """Return the non-empty lines of a text, each cut at LINE_LIMIT characters."""
    return [line[:LINE_LIMIT] for line in text.splitlines() if line.strip()]


def text(name):
    """Return a file's name as text that every reader accepts."""
    return os.fsencode(name).decode(errors="backslashreplace")


def kind_of(status):
    """Return what a status is the status of."""
    kinds = ((stat.S_ISDIR, "directory"), (stat.S_ISREG, "file"), (stat.S_ISLNK, "link"))
    return next((name for test, name in kinds if test(status.st_mode)), "other")


def end_of(link):
    """Return the kind of what a link leads to."""
    try:
        return kind_of(os.stat(link))
    except OSError as error:
        return "missing" if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP) else "unreadable"


def own_address():
    """Return the address at which others reach this host, as far as it has one; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
        try:
            way.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return way.getsockname()[0]


def answer(url, host):
    """Return what a web server answers to one question, or why nothing whole came back in time."""
    parts, began, late = urllib.parse.urlsplit(url), time.monotonic(), threading.Event()
    if parts.scheme != "http":  # in clear on port 80, the answer would be another server's
        return {"why": f"{parts.scheme} is not asked, only http", "error": ""}
    connection = http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=ANSWER_TIMEOUT_S)

    def hang_up(line):
        late.set()
        with contextlib.suppress(OSError):
            line.shutdown(socket.SHUT_RDWR)

    watch = None
    try:
        connection.connect()
        # The limit of http.client is for each piece: who sends one now and then would hold us for ever.
        rest = began + ANSWER_TIMEOUT_S - time.monotonic()
        watch = threading.Timer(max(rest, 0), hang_up, [connection.sock])
        watch.start()
        headers = {"Host": host, "User-Agent": "hikeshi-evidence", "Connection": "close"}
        connection.request("GET", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""), headers=headers)
        with connection.getresponse() as response:
            body, leads_to = response.read(ANSWER_LIMIT), response.getheader("Location", "")
        seconds = round(time.monotonic() - began, 3)
        told = {"status": response.status, "bytes": len(body), "seconds": seconds, "words": gist(leads_to, body)}
    except (OSError, http.client.HTTPException, ValueError) as error:
        refused = "ECONNREFUSED" if isinstance(error, ConnectionRefusedError) else ""
        told = {"why": f"{type(error).__name__}: {error}"[:LINE_LIMIT], "error": refused}
    finally:
        if watch:
            watch.cancel()
        connection.close()
    return {"why": f"no answer within {ANSWER_TIMEOUT_S} s", "error": ""} if late.is_set() else told


def gist(leads_to, body):
    """Return where an answer leads to, else the first words of its page: it may be another server's than was meant."""
    page = text(body[:GIST_LIMIT])  # of a long one without an end of a tag, to look for that would take for ever
    return leads_to[:LINE_LIMIT] or " ".join(re.sub(r"<[^>]*>", " ", page).split())[:LINE_LIMIT]


def why_not_reached(address, port):
    """Return the name of the error with which a TCP connection fails; "" when it comes about."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as client:
            client.settimeout(REACH_TIMEOUT_S)
            client.connect((address, int(port)))
    except OSError as error:
        return errno.errorcode.get(error.errno, "TIMEOUT")
    except (ValueError, OverflowError) as error:
        return type(error).__name__
    return ""


def blocking(chains):
    """Return what INPUT and OUTPUT lead to in each table, where one of these chains drops or rejects."""
    tables, found = {}, []
    for name, chain in chains.items():
        table, _, name = name.partition("/")
        rules = chain["rules"].split("\n") if chain["rules"] else []
        tables.setdefault(table, {})[name] = {"policy": chain["policy"], "rules": rules}
    for table, inside in tables.items():
        reached, names = {}, ["INPUT", "OUTPUT"]
        for name in names:  # which grows
            if name in inside and name not in reached:
                reached[name] = inside[name]
                names += [target for rule in inside[name]["rules"] for target in re.findall(r" -[jg] (\S+)", rule)]
        if any(chain["policy"] == "DROP" or any(map(BLOCKS.search, chain["rules"])) for chain in reached.values()):
            for name, chain in reached.items():
                complete, told = len(chain["rules"]) <= RULES_LIMIT, chain["rules"][:RULES_LIMIT]
                found.append({"table": table, "chain": name, **chain, "rules": told, "complete": complete})
    return found


def mount_of(path):
    """Return where the file system is mounted that holds a path, or would hold it."""
    path = os.path.realpath(path)
    while not os.path.ismount(path):
        path = os.path.dirname(path)
    return path


def unit_of(pid):
    """Return the unit that a process belongs to; nothing for one that belongs to none."""
    with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="replace") as handle:
        # The last of them: above it may stand what the whole host is to its own host.
        found = re.search(r"(?m)^\d+:(?:name=systemd)?:.*/([^/\n]+\.(?:service|scope))(?:/|$)", handle.read())
    return found[1] if found else ""


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


def heading(subjects):
    """Return what stands at the head of all evidence: who was asked what, and when."""
    return {"schema": SCHEMA, "host": socket.gethostname(), "at": round(time.time(), 3), "subjects": subjects}


def collect(collector, subjects, reader):
    """Return the evidence of this host for the subjects asked about; `reader` knows how the kernel's tables speak."""
    mount_paths = [mount["path"] for subject in subjects for mount in subject.get("mounts") or []]
    paths = [item["path"] for subject in subjects for item in subject.get("paths") or []]
    trees = [tree for subject in subjects for tree in subject.get("trees") or []]
    places = [place for subject in subjects for place in subject.get("logs") or []]
    logs = collector.logs(places)
    disks = collector.disks(
        ["/", *mount_paths, *(place[key] for place in logs.values() for key in ("mount", "keep_mount"))]
    )
    reports = collector.reports(subjects)
    units = collector.units([unit for subject in subjects for unit in subject.get("units") or []])
    # A job that started or ended while we looked would seem to be cut off: only what stood before and after is told.
    again = collector.reports(subjects)
    return {
        **heading(subjects),
        "boot": collector.boot(),
        "units": units,
        "mounts": collector.mounts(subjects),
        "paths": {path: collector.describe(path) for path in paths},
        "trees": {tree["path"]: collector.walk(tree) for tree in trees},
        "configs": collector.configs(subjects),
        "answers": collector.answers(subjects),
        "listens": reader.listens(collector, subjects),
        "sshd_at": reader.sshd_at(collector),
        "names": collector.names(subjects),
        "reaches": collector.reaches(subjects),
        "global_ipv6": collector.global_ipv6(),
        "firewall": collector.firewall(reader.iptables(collector)),
        "saved_firewall": collector.saved_firewall(reader.iptables_chains),
        "firewall_cut": sorted(collector.firewall_cut),
        "locks": collector.locks(subjects),
        "reports": {name: told for name, told in again.items() if reports.get(name) == told},
        "databases": collector.databases(subjects),
        "logins": collector.logins(subjects),
        "logs": logs,
        "disks": disks,
        "deleted": collector.deleted(disks),
        "abandoned": collector.abandoned(),
        "errors": collector.errors(),
        "additions": collector.additions(subjects),
    }


def main():
    """Ansible's entry point."""
    from ansible.module_utils import hikeshi_disk, hikeshi_state, hikeshi_way_in
    from ansible.module_utils.basic import AnsibleModule

    words = {"type": "list", "elements": "str", "default": []}
    state = {
        "key": {"type": "str", "required": True, "no_log": True},
        "roots": words,
        "known": words,
        "texts": {"type": "bool", "default": False},
    }
    module = AnsibleModule(
        argument_spec={
            "subjects": {"type": "list", "elements": "dict", "default": []},
            "state": {"type": "dict", "options": state},
            "packages": {"type": "bool", "default": False},
            "programs": {"type": "dict", "default": {}},
            "root": {"type": "str", "default": "/"},
        },
        supports_check_mode=True,
    )
    subjects, state, root = (module.params[name] for name in ("subjects", "state", "root"))
    live = os.path.realpath(root) == "/"
    if state and not hikeshi_state.KEY.fullmatch(state["key"]):
        module.fail_json(msg="state.key must be an even number of hexadecimal digits, 32 or more")
    if not live and not (state and os.path.isdir(root)):
        module.fail_json(msg=f"root is {root}: of a mounted disk its directory, and `state`, are needed")
    collector = Collector()
    programs = module.params["programs"]
    with ThreadPoolExecutor() as beside:  # they mostly wait, as we do
        told = {name: beside.submit(collector.program, name, code, root) for name, code in programs.items()}
        # Of a disk that is mounted here, what runs here says nothing.
        evidence = collect(collector, subjects, hikeshi_state) if live else heading(subjects)
        with hikeshi_state.Root(collector, root) as disk:
            evidence["way_in"] = hikeshi_way_in.collect(disk, subjects)
    if programs:
        evidence["programs"] = {name: future.result() for name, future in told.items()}
    if live and module.params["packages"]:
        evidence["verify"] = collector.verify()
    if state:
        evidence["state"] = hikeshi_state.collect(collector, **state, subjects=subjects, root=root)
    if not live:
        with hikeshi_state.State(collector, state["key"], (), (), False, subjects, root) as whole:
            evidence |= hikeshi_disk.collect(whole, hikeshi_state, subjects, evidence["state"]["facts"])
    unseen = collector.unseen
    evidence["unseen"] = [item for number, item in enumerate(unseen) if item not in unseen[:number]]
    module.exit_json(changed=False, hikeshi=evidence)


if __name__ == "__main__":
    main()
