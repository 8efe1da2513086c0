"""What decides whether anybody gets in to a host, as its files say it: standard library only, nothing changed, bounded.

Read alike on a running host and on a disk that is mounted at a root, out of which nothing is read. Nothing is judged
here. `way_in` of the evidence:

    shut        paths that are there, and by being there keep everybody out: nologin, sshd_not_to_be_run
    accounts    name → {uid, gid, home, shell, shell_kind, groups, locked, changed, most, inactive, expires} of each
                account that subjects name (`accounts`), null where there is none. shell_kind: as in `paths`, of what it
                leads to; changed, most, inactive, expires: shadow's numbers of days, null where it has none; no hash
    key_paths   name → [{path, kind, mode, owner, members}] of what sshd wants to be the account's or root's alone, from
                the home down to authorized_keys; those that are there. members: who belongs to its group
    sshd        [{file, line, words, match}]: what sshd reads, in its order, at most 500 lines; what Include names in
                its place; match: the words of the Match in which a line stands, "" in none
    modules     [{file, line, words, kind, control, name}]: lines of the files by which PAM lets people in that name a
                module, or a file, that is not there; kind: auth, account, password, session, "" of @include
    wrappers    [{file, line, words}]: of hosts.allow and hosts.deny, in that order
    ssh_unit    [{file, line, words, key, value}]: how ssh.service is changed by drop-ins of /etc, in systemd's order:
                the lines of [Service], and the conditions
    boot        [{unit, file, link, target, need, before, type, bound, waits, source, source_kind}]: units of
                /etc/systemd/system that a boot starts by a link there, before anybody is let in. need: whether the
                target fails with it (requires); before: of what stands between a boot and logins, what it is started
                before; type; bound: whether its start has a bound in time; waits: of what it runs, the first words that
                wait or loop, "" where none do; source: of a mount, what it mounts; source_kind: as in `paths`, or
                unknown where only the running system could say
    jobs        [{unit, type, state}] of a running system: what systemd is at, or waits for, at most 50

Names and words are text: a byte that is no UTF-8 is written as \\xNN; a line of more than 300 characters is left out.
"""

import os
import posixpath
import re
import stat

SHUT = ("/etc/nologin", "/run/nologin", "/etc/ssh/sshd_not_to_be_run")
SSHD, SSHD_LIMIT, INCLUDES_LIMIT = "/etc/ssh/sshd_config", 500, 16
PAM = "/etc/pam.d"
# What sshd, the console and sudo ask; what these include is asked, too.
SERVICES = ("sshd", "login", "su", "sudo", "other")
UNITS = "/etc/systemd/system"
# What must be over before systemd-user-sessions lets people in, in systemd's words and in those of Debian's unit.
BEFORE_LOGINS = (
    "systemd-user-sessions.service", "ssh.service", "remote-fs.target", "remote-fs-pre.target", "nss-lookup.target",
    "nss-user-lookup.target", "network.target", "network-pre.target", "network-online.target", "home.mount",
    "sysinit.target", "basic.target", "local-fs.target", "local-fs-pre.target",
)  # fmt: skip
# Without one of these a boot ends in the emergency shell.
NEEDED = ("local-fs.target", "sysinit.target", "basic.target")
WAITS = re.compile(
    r"""(?x) \bsleep\s+(?:inf\w*|\d{4,}|[1-9]\d*[hd]) | (?:^|[;&|\s'"])(?:while|until)\s(?!\s*(?:IFS=\S*\s+)?read\b)
    | wait-online | \btail\s+-\w*[fF] | \binotifywait\b"""
)
SCRIPT_LIMIT, LINKS_LIMIT, JOBS_LIMIT, LINES_LIMIT, LINE_LIMIT = 64 << 10, 200, 50, 200, 300
SECTION = re.compile(r"\[([^\]]+)\]\s*")


class WayIn:
    """Reads the way in to one host, or to the system on a disk."""

    def __init__(self, root, subjects):
        """Take a root (hikeshi_state) and what roles own; nothing is read yet."""
        self.root, self.subjects = root, subjects

    def kind(self, path):
        """Return the kind of what a path leads to within the root."""
        with self.root.reached(path) as handle:
            return kind_of(os.fstat(handle)) if handle is not None else "missing"

    def lines(self, path):
        """Return (number, line) of a text file; nothing of one that is not there. What is too long is left out."""
        told = enumerate((self.root.read(path) or "").split("\n"), 1)
        return [(number, line) for number, line in told if len(line) <= LINE_LIMIT]

    def shut(self):
        """Return the paths that keep people out by being there."""
        return [path for path in SHUT if self.root.exists(path)]

    def wanted(self):
        """Return the accounts that subjects name."""
        return list(dict.fromkeys(name for subject in self.subjects for name in subject.get("accounts") or []))

    def accounts(self):
        """Return what the tables say of each account that is asked about."""
        people = {row[0]: row for row in reversed(self.root.table("/etc/passwd", 7))}
        secrets = {row[0]: row for row in reversed(self.root.table("/etc/shadow", 9))}
        groups = self.root.table("/etc/group", 4)
        found = {}
        for name in self.wanted():
            if name not in people:
                found[name] = None
                continue
            _, password, uid, gid, _, home, shell = people[name]
            secret = secrets.get(name, ["", password, "", "", "", "", "", "", ""])
            found[name] = {
                "uid": days(uid), "gid": days(gid), "home": home[:LINE_LIMIT], "shell": shell[:LINE_LIMIT],
                "shell_kind": self.kind(shell or "/bin/sh"), "locked": secret[1].startswith(("!", "*")),
                "groups": sorted({row[0] for row in groups if name in row[3].split(",") or row[2] == gid}),
                "changed": days(secret[2]), "most": days(secret[4]), "inactive": days(secret[6]),
                "expires": days(secret[7]),
            }  # fmt: skip
        return found

    def key_paths(self, accounts):
        """Return what lies between each account's home and its keys."""
        people, found = list(reversed(self.root.table("/etc/passwd", 7))), {}
        names = {row[2]: row[0] for row in people}
        for name, account in accounts.items():
            home = account and posixpath.normpath(account["home"])
            places = [home, f"{home}/.ssh", f"{home}/.ssh/authorized_keys"] if home and home.startswith("/") else []
            found[name] = []
            for path in places:
                with self.root.reached(path) as handle:
                    status = os.fstat(handle) if handle is not None else None
                if status:
                    owner, gid = str(status.st_uid), str(status.st_gid)
                    members = {row[0] for row in people if row[3] == gid}
                    for row in self.root.table("/etc/group", 4):
                        members |= set(filter(None, row[3].split(","))) if row[2] == gid else set()
                    found[name].append(
                        {
                            "path": text(path), "kind": kind_of(status), "owner": names.get(owner, owner),
                            "mode": f"{stat.S_IMODE(status.st_mode):04o}", "members": sorted(members)[:LINES_LIMIT],
                        }
                    )  # fmt: skip
        return found

    def sshd(self):
        """Return the lines that sshd reads."""
        found = []
        self.read_sshd(SSHD, "", found, 0)
        if len(found) > SSHD_LIMIT:
            self.root.collector.note(SSHD, f"more than {SSHD_LIMIT} lines")
        return found[:SSHD_LIMIT]

    def read_sshd(self, path, match, found, depth):
        """Add the lines of a file of sshd's, and of those it includes."""
        for number, line in self.lines(path):
            words = line.strip()
            if not words or words.startswith("#") or len(found) > SSHD_LIMIT:
                continue
            key, value = directive(words)
            if key == "match":
                match = value
            found.append({"file": text(path), "line": number, "words": text(words), "match": text(match)})
            if key == "include" and depth < INCLUDES_LIMIT:
                for pattern in value.split():
                    for place in self.matching(posixpath.join("/etc/ssh", pattern.strip('"'))):
                        self.read_sshd(place, match, found, depth + 1)  # a Match in it ends with it

    def matching(self, pattern):
        """Return the files that a pattern means whose last part alone has stars, as sshd's Include has on Debian."""
        folder, name = posixpath.split(pattern)
        wanted = re.compile("".join({"*": "[^/]*", "?": "[^/]"}.get(sign, re.escape(sign)) for sign in name))
        return [f"{folder}/{item}" for item in self.root.names(folder) if wanted.fullmatch(item) and item[0] != "."]

    def modules(self):
        """Return the lines of PAM that name what is not there."""
        found, seen, todo, there = [], set(), list(SERVICES), self.installed()
        while todo:
            name = todo.pop(0)
            if name in seen or len(found) > LINES_LIMIT:
                continue
            seen.add(name)
            path = posixpath.join(PAM, name)
            for number, line in self.lines(path):
                rule = pam_rule(line)
                if rule is None:
                    continue
                kind, control, named = rule
                if control in ("@include", "include", "substack"):
                    todo.append(named)
                    absent = self.kind(posixpath.join(PAM, named)) == "missing"
                elif named.startswith("/"):
                    absent = self.kind(named) == "missing"
                else:
                    absent = bool(there) and named.replace("$ISA/", "") not in there
                if absent:
                    item = {"file": text(path), "line": number, "words": text(line.strip()), "kind": kind}
                    found.append({**item, "control": text(control), "name": text(named)})
        return found[:LINES_LIMIT]

    def installed(self):
        """Return the names of the modules that PAM can load."""
        there = set()
        for base in ("/lib", "/usr/lib"):
            for place in (f"{base}/security", *(f"{base}/{name}/security" for name in self.root.names(base))):
                there |= set(self.root.names(place))
        return there

    def wrappers(self):
        """Return the rules of hosts.allow and hosts.deny."""
        return [
            {"file": path, "line": number, "words": text(line.strip())}
            for path in ("/etc/hosts.allow", "/etc/hosts.deny")
            for number, line in self.lines(path)
            if line.strip() and not line.lstrip().startswith("#")
        ][:LINES_LIMIT]

    def ssh_unit(self):
        """Return how drop-ins change sshd's unit."""
        names = {}
        for folder in ("service.d", "ssh.service.d"):  # the more special one wins where both have a name
            names |= {name: f"{UNITS}/{folder}/{name}" for name in self.root.names(f"{UNITS}/{folder}")}
        found = []
        for name in sorted(name for name in names if name.endswith(".conf")):
            lines = dict(self.lines(names[name]))
            for number, section, key, value in settings(lines.items()):
                if section == "Service" or key.startswith(("Condition", "Assert")):
                    item = {"file": text(names[name]), "line": number, "words": text(lines[number].strip())}
                    found.append({**item, "key": text(key), "value": text(value)})
        return found[:LINES_LIMIT]

    def boot(self):
        """Return the units of people that a boot starts before anybody is let in."""
        found = []
        for folder in self.root.names(UNITS):
            target, _, way = folder.rpartition(".")
            if way not in ("wants", "requires") or not target:
                continue
            for name in self.root.names(f"{UNITS}/{folder}")[:LINKS_LIMIT]:
                file = f"{UNITS}/{name}"
                if self.kind(file) != "file":
                    continue  # a package's own lies elsewhere
                told = list(settings(self.lines(file)))
                words = " ".join(value for _, section, key, value in told if (section, key) == ("Unit", "Before"))
                before = [name for name in BEFORE_LOGINS if name in words.split()]
                need = way == "requires" and target in NEEDED
                if before or need:
                    link = f"{UNITS}/{folder}/{name}"
                    found.append(self.at_boot(name, file, told, link=link, target=target, need=need, before=before))
        return found[:LINES_LIMIT]

    def at_boot(self, name, file, told, link, target, need, before):
        """Return what is to be said of a unit that a boot starts."""
        service = {key: value for _, section, key, value in told if section == "Service"}
        runs = [value for _, section, key, value in told if section == "Service" and key.startswith("ExecStart")]
        source = next((value for _, section, key, value in told if (section, key) == ("Mount", "What")), "")
        bound = service.get("TimeoutStartSec", service.get("TimeoutSec", ""))
        return {
            "unit": text(name), "file": text(file), "link": text(link), "target": text(target), "need": need,
            "before": before, "type": text(service.get("Type", "simple" if runs else "")),
            "bound": bound not in ("", "0", "infinity"),
            "waits": next(filter(None, map(self.waiting, runs)), ""), "source": text(source),
            "source_kind": self.source_kind(source),
        }  # fmt: skip

    def waiting(self, words):
        """Return the first words of a command, or of the script that it runs, that wait or loop."""
        if WAITS.search(words):
            return text(words)
        for program in re.findall(r"/[\w./+-]+", words)[:4]:
            beginning = (self.root.read(program) or "")[:SCRIPT_LIMIT] if self.is_script(program) else ""
            for line in beginning.split("\n"):
                if len(line) <= LINE_LIMIT and not line.lstrip().startswith("#") and WAITS.search(line):
                    return text(line.strip())
        return ""

    def is_script(self, path):
        """Say whether a path leads to a small file that may be a script."""
        with self.root.reached(path) as handle:
            if handle is None:
                return False
            status = os.fstat(handle)
            return stat.S_ISREG(status.st_mode) and status.st_size <= SCRIPT_LIMIT

    def source_kind(self, source):
        """Return the kind of what a mount mounts; a device is known to the running system alone."""
        if not source.startswith("/") or (source.startswith("/dev/") and not self.root.live):
            return "unknown"
        return self.kind(source)

    def jobs(self):
        """Return what systemd is at, on a running system."""
        if not self.root.live:
            return []
        told = self.root.collector.output("systemctl", "list-jobs", "--plain", "--no-legend", "--full")
        rows = (line.split() for line in told.splitlines())
        return [{"unit": row[1], "type": row[2], "state": row[3]} for row in rows if len(row) == 4][:JOBS_LIMIT]

    def collect(self):
        """Return all of it; what fails is noted, and the others are told."""
        accounts = self.part(self.accounts, {})
        return {
            "accounts": accounts,
            "key_paths": self.part(lambda: self.key_paths(accounts), {}),
            **{
                source.__name__: self.part(source, [])
                for source in (
                    self.shut, self.sshd, self.modules, self.wrappers, self.ssh_unit, self.boot, self.jobs
                )
            },
        }  # fmt: skip

    def part(self, source, nothing):
        """Return what a source tells; nothing, and a note, where it fails."""
        try:
            return source()
        except Exception as error:  # what it says may quote a file
            why = error.strerror if isinstance(error, OSError) else type(error).__name__
            self.root.collector.note(f"way in: {getattr(source, '__name__', '')}", why or "")
            return nothing


def kind_of(status):
    """Return what a status is the status of."""
    kinds = ((stat.S_ISDIR, "directory"), (stat.S_ISREG, "file"), (stat.S_ISLNK, "link"))
    return next((name for test, name in kinds if test(status.st_mode)), "other")


def text(words):
    """Return words as text that every reader accepts, cut at LINE_LIMIT."""
    return os.fsencode(words).decode(errors="backslashreplace")[:LINE_LIMIT]


def days(words):
    """Return a number of a table; None where there is none, or none that could be meant."""
    return int(words) if re.fullmatch(r"\d{1,10}", words, re.ASCII) else None


def directive(words):
    """Return a line of sshd's as (its word in small letters, the rest)."""
    told = re.fullmatch(r"([^\s=\"]+)\s*=?\s*(.*)", words)
    return (told[1].lower(), told[2]) if told else (words.lower(), "")


def pam_rule(line):
    """Return (kind, control, name) of a line of PAM that must be able to load what it names; None of any other."""
    line = line.split("#", 1)[0].strip()
    included = re.fullmatch(r"@include\s+(\S+)", line)
    if included:
        return "", "@include", included[1]
    rule = re.fullmatch(r"(auth|account|password|session)\s+(\[[^\]]*\]|\w+)\s+(\S+)(?:\s.*)?", line, re.IGNORECASE)
    return (rule[1].lower(), rule[2].lower(), rule[3]) if rule else None


def settings(lines):
    """Yield (line, section, key, value) of a unit's file; a line that goes on in the next is told by its first."""
    section, begun, told = "", 0, ""
    for number, line in lines:
        if not told and (not line.strip() or line.lstrip().startswith(("#", ";"))):
            continue
        begun = begun if told else number
        told += line.strip()
        if told.endswith("\\"):
            told = told[:-1] + " "
            continue
        head = SECTION.fullmatch(told)
        if head:
            section = head[1]
        else:
            key, _, value = told.partition("=")
            yield begun, section, key.strip(), value.strip()
        told = ""


def collect(root, subjects):
    """Return what decides whether anybody gets in; `root` is opened by hikeshi_state."""
    return WayIn(root, subjects).collect()
