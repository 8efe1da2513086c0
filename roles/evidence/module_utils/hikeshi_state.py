"""The whole observable state of a host as one flat mapping: standard library only, nothing changed, bounded.

What differs between two of them needs no knowledge of what is compared: the state of a healthy day is the baseline,
what differs now is drift. Returned are:

    facts   SUBJECT → {field: a text, a whole number or a boolean}, by SUBJECT:
      file:PATH              {kind, mode, owner, group, changed}, of a file also {secret, size, digest}, of a link
                             {link}: all below /etc, of cron, at, nologin, and of the roots asked for. kind: file,
                             directory, link, other; changed: seconds since the epoch; digest: HMAC-SHA256 of the
                             content with the key that was given, none of what is too large; secret: others may not read
                             it, or not enter a directory above. Tables of accounts have neither size nor digest
      user:NAME              {uid, gid, home, shell, groups}, and for who may read /etc/shadow {locked, expires,
                             must_change}. groups: further ones, sorted; expires: the day, since the epoch, or ""
      group:NAME             {gid}
      unit:NAME              {load, enabled, fragment, drop_ins}, of a running system also {active, condition,
                             user, dangerous}. active: active, failed, or inactive, which is also what is on its way;
                             condition: yes, no, "" where it was never asked; user: as whom it runs, "" for
                             root; dangerous: what systemd does to the host
                             when it fails, ends or takes too long. Paths below /lib are told as below /usr/lib. Left
                             out: what no file makes, templates, instances that sleep, what comes with each login, names
                             that lead to nothing
      mount:PATH             {type, source, options}: what is mounted last there; source[DIRECTORY]: a part of it
      listen:tcp/ADDRESS:PORT, listen:udp/ADDRESS:PORT (below 32768), listen:unix:PATH
                             {program}: the name of the oldest process that holds it, "" where that cannot be seen; an
                             IPv6 address stands in brackets
      sshd:NAME              {value}: as `sshd -T` says, in lines where it says it more than once
      mariadb:NAME           {value}: global variables of the first server that answers
      host_key:TYPE          {fingerprint}: as `ssh-keygen -l` prints it
      firewall:BACKEND/FAMILY/TABLE/CHAIN
                             {policy, rules}: iptables' chains; BACKEND: nft, legacy; FAMILY: ipv4, ipv6
      firewall:nft/FAMILY/TABLE
                             {rules}: a table that iptables knows nothing of; FAMILY: inet, ip, ip6, arp, bridge, netdev
      package:NAME           {version, status}
      pam:FILE:MODULE        {present}: whether a module that a file of /etc/pam.d names is there
      certificate:PATH       {not_after, subject}; not_after: seconds since the epoch
      time:clock             {zone}, of a running system also {synchronized}: yes, no, unknown
      resolver:PATH          {servers}: name servers, in order
      sysctl:NAME            {value}
      boot:previous          {ended, why}: clean, unclean, unknown
    texts   PATH → text of each ordinary file that is small, UTF-8, for all to read, and not known already

Names and values are text: a byte that is no UTF-8 is written as \\xNN; a value of more than 4,000 characters is cut and
ends in how many there were, and a digest of them all. With a root other than / only what files tell is told (file,
user, group, unit, host_key, pam, certificate, time, resolver): nothing out of that root is read, whatever its links
say, and paths are those within it.
"""

import base64
import contextlib
import ctypes
import errno
import grp
import hashlib
import hmac
import itertools
import os
import pwd
import re
import shutil
import socket
import ssl
import stat
import sys

KEY = re.compile("(?:[0-9a-fA-F]{2}){16,}")
PLACES = ("/etc", "/var/spool/cron/crontabs", "/var/spool/cron/atjobs", "/run/nologin")
ENTRIES_LIMIT, DEPTH_LIMIT, LINKS_LIMIT = 20000, 40, 40
DIGEST_LIMIT, READ_LIMIT = 8 << 20, 64 << 20
TEXT_LIMIT, TEXTS_LIMIT = 256 << 10, 8 << 20
CHUNK, SETTING_LIMIT, VALUE_LIMIT = 1 << 16, 4 << 20, 4000
KNOWN_DIGITS = 16
CERTIFICATES_LIMIT, SHOW_LIMIT, SHOW_TRIES = 50, 500, 5
OPEN_LIMIT = 100000
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
# What changes by itself, and says nothing.
SKIPPED = re.compile(
    r"""
    /etc/ld\.so\.cache                                  # ldconfig's cache, written anew by every package
    | /etc/\.pwd\.lock                                  # a lock
    | /etc/(?:passwd|shadow|group|gshadow|subuid|subgid)-   # what stood before the last change
    | /etc/mtab                                         # the kernel's words, told as mounts
    | /etc/adjtime                                      # the clock's drift, written when the host stops
    | /etc/ssl/certs/.*                                 # a package's: thousands of links, made by its trigger
    | .*/__pycache__ | .*\.pyc                          # Python's caches
    """,
    re.VERBOSE | re.DOTALL,
)
# Of these every entry is told by itself.
PEOPLE_FILES = ("/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow")
CERTIFICATE = re.compile(r"(?s)/etc/(?:ssl|letsencrypt/live|nginx|haproxy)/.*\.(?:pem|crt|cer)")
UNIT = re.compile(r"(?s).+\.(?:service|socket|timer|path|mount)")
# A login's own, and one for each connection that a socket accepts.
FLEETING_UNIT = re.compile(r"user@\d+\.service|user-runtime-dir@\d+\.service|[^@]+@\d+-.*\.service")
UNIT_PLACES = ("/etc/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
ACTIONS = ("FailureAction", "SuccessAction", "StartLimitAction", "JobTimeoutAction")
UNIT_PROPERTIES = (
    "Id", "LoadState", "ActiveState", "UnitFileState", "FragmentPath", "DropInPaths", "Transient", "ConditionResult",
    "ConditionTimestampMonotonic", "User", *ACTIONS,
)  # fmt: skip
KERNEL_MOUNT = re.compile(r"(?s)/(?:proc|sys|dev|run)(?:/.*)?")
# Numbers of processes and pipes, and where a container's storage happens to lie.
FLEETING_OPTIONS = ("fd", "pgrp", "pipe_ino", "lowerdir", "upperdir", "workdir")
LISTENING_TCP, UNCONNECTED_UDP, LISTENING_UNIX, UDP_PORTS = "0A", "07", 0x10000, 32768
# What a server counts or remembers, what its package says already, the time of the year, and passwords.
FLEETING_VARIABLE = re.compile(
    r"(?:.*_)?gtid_.*|timestamp|.*_pos(?:_.*)?|pseudo_.*|hostname|server_uid|version.*|system_time_zone"
    r"|innodb_buffer_pool_(?:load|dump|filename).*|insert_id|last_insert_id|identity|rand_seed\d|error_count"
    r"|warning_count|report_password|wsrep_sst_auth|wsrep_provider_options|ssl_passphrase"
)
FIREWALL = (  # family, nft's word for it, program, where the kernel names the tables of the older backend
    ("ipv4", "ip", "iptables", "/proc/net/ip_tables_names"),
    ("ipv6", "ip6", "ip6tables", "/proc/net/ip6_tables_names"),
)
SYSCTLS = (
    "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding", "net.ipv6.conf.all.disable_ipv6",
    "net.ipv4.ip_nonlocal_bind", "vm.overcommit_memory", "fs.file-max", "net.core.somaxconn",
    "net.netfilter.nf_conntrack_max",
)  # fmt: skip
SYNCHRONIZED_US = 16000000  # systemd's own measure: the kernel's greatest error where nothing sets the clock


class Root:
    """Reads what lies below a root, as a process would whose root that is: no link leads out of it."""

    def __init__(self, collector, root):
        """Open the root; nothing is read yet."""
        self.collector, self.live = collector, os.path.realpath(root) == "/"
        self.root = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self):
        """Use the root for a while."""
        return self

    def __exit__(self, *_):
        """Close the root."""
        os.close(self.root)

    def reach(self, path, follow=True):
        """Return a handle of what lies at a path within the root, neither opened nor waited for.

        Links are followed as a process would whose root this is: none leads out of it.
        """
        stack, todo, links = [os.dup(self.root)], path.split("/")[::-1], 0
        try:
            while todo:
                name = todo.pop()
                if name == "..":
                    if len(stack) > 1:
                        os.close(stack.pop())
                elif name not in ("", "."):
                    stack.append(os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=stack[-1]))
                    if (todo or follow) and stat.S_ISLNK(os.fstat(stack[-1]).st_mode):
                        links += 1
                        if links > LINKS_LIMIT:
                            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                        target = os.readlink("", dir_fd=stack[-1])
                        todo += target.split("/")[::-1]
                        for handle in stack[1:] if target.startswith("/") else stack[-1:]:
                            os.close(handle)
                            stack.remove(handle)
            return os.dup(stack[-1])
        finally:
            for handle in stack:
                os.close(handle)

    @contextlib.contextmanager
    def reached(self, path, follow=True):
        """Hold a handle of what lies at a path within the root, or None; a note where it cannot be seen."""
        try:
            handle = self.reach(path, follow)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                self.collector.note(text(path), error.strerror)
            yield None
            return
        try:
            yield handle
        finally:
            os.close(handle)

    def names(self, path):
        """Return the sorted names in a directory; none where there is no directory."""
        with self.reached(path) as handle:
            if handle is None or not stat.S_ISDIR(os.fstat(handle).st_mode):
                return []
            try:
                names = directory(handle, ENTRIES_LIMIT)
            except OSError as error:
                self.collector.note(text(path), error.strerror)
                return []
            if len(names) > ENTRIES_LIMIT:
                self.collector.note(text(path), f"more than {ENTRIES_LIMIT} entries")
            return sorted(names[:ENTRIES_LIMIT])

    def read(self, path):
        """Return the text of an ordinary file; None where there is none, and a note if that is odd."""
        with self.reached(path) as handle:
            if handle is None:
                return None
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode) or status.st_size > SETTING_LIMIT:
                self.collector.note(text(path), "not an ordinary file of at most 4 MiB")
                return None
            try:
                return b"".join(pieces(handle, SETTING_LIMIT)).decode(errors="backslashreplace")
            except OSError as error:
                self.collector.note(text(path), error.strerror)
                return None

    def exists(self, path):
        """Say whether a path leads to something within the root."""
        with self.reached(path) as handle:
            return handle is not None

    def link(self, path):
        """Return where a link says that it leads; "" of anything else."""
        with self.reached(path, follow=False) as handle:
            is_link = handle is not None and stat.S_ISLNK(os.fstat(handle).st_mode)
            return os.readlink("", dir_fd=handle) if is_link else ""

    def table(self, path, width):
        """Return the lines of a table of accounts, those that have all its fields."""
        rows = (line.split(":") for line in (self.read(path) or "").split("\n"))
        return [row for row in rows if len(row) == width and row[0]]


class State(Root):
    """Reads the state of one host, or of a disk that is mounted at a root."""

    def __init__(self, collector, key, roots, known, texts, subjects, root):
        """Open the root; nothing is read yet."""
        super().__init__(collector, root)
        self.key, self.roots, self.subjects = bytes.fromhex(key), roots, subjects
        self.known, self.wants_texts = set(known), texts
        self.facts, self.texts = {}, {}
        self.paths, self.entered, self.hidden = {}, set(), []
        self.entries_left, self.bytes_left, self.text_left = ENTRIES_LIMIT, READ_LIMIT, TEXTS_LIMIT
        self.users, self.groups = {}, {}

    def accounts(self):
        """Return users and groups, as files tell them."""
        people, groups = self.table("/etc/passwd", 7), self.table("/etc/group", 4)
        for rows, names in ((people, self.users), (groups, self.groups)):
            for row in rows:
                if row[2].isdecimal():
                    names.setdefault(int(row[2]), row[0])
        secrets, further, found = {row[0]: row for row in reversed(self.table("/etc/shadow", 9))}, {}, {}
        for row in groups:
            for name in row[3].split(","):
                further.setdefault(name, set()).add(row[0])
        for name, password, uid, gid, _, home, shell in people:
            member = ",".join(sorted(further.get(name, ())))
            user = {"uid": number(uid), "gid": number(gid), "home": home, "shell": shell, "groups": member}
            secret = secrets.get(name)
            if secret or (secrets and password != "x"):  # noqa: S105 (no password: x says that it stands in the other file)
                password = secret[1] if secret else password
                user["locked"] = password.startswith(("!", "*"))
                user["expires"] = secret[7] if secret else ""
                user["must_change"] = bool(secret) and secret[2] == "0"
            found.setdefault(f"user:{name}", user)
        for name, _, gid, _ in groups:
            found.setdefault(f"group:{name}", {"gid": number(gid)})
        return found

    def owner(self, names, database, identity):
        """Return a user's or group's name; its number where there is none."""
        if identity not in names:
            try:
                names[identity] = text(database(identity)[0]) if self.live else str(identity)
            except KeyError:
                names[identity] = str(identity)
        return names[identity]

    def files(self):
        """Keep what lies in the places that matter."""
        for path in dict.fromkeys("/" + os.path.normpath(path).lstrip("/") for path in (*PLACES, *self.roots)):
            with self.reached(path, follow=False) as handle:
                if handle is not None:
                    self.look(path, handle, os.fstat(handle).st_dev)
        if self.hidden:
            self.collector.note("state: files", f"{len(self.hidden)} could not be read, first {self.hidden[0]}")
        return {}

    def look(self, path, handle, device, closed=False, depth=0):
        """Keep what is to be said of a path, and of all below it on the same disk; follow no link.

        `closed`: a directory above keeps others out.
        """
        status, subject = os.fstat(handle), f"file:{text(path)}"
        mode, kind = stat.S_IMODE(status.st_mode), kind_of(status)
        if self.paths.setdefault(subject, path) != path:
            self.hidden.append(f"{text(path)}: another has this name, but for bytes that are no UTF-8")
            return
        if subject not in self.facts:
            self.facts[subject] = told = {
                "kind": kind, "mode": f"{mode:04o}", "owner": self.owner(self.users, pwd.getpwuid, status.st_uid),
                "group": self.owner(self.groups, grp.getgrgid, status.st_gid), "changed": status.st_mtime_ns // 10**9,
            }  # fmt: skip
            if kind == "link":
                told["link"] = text(os.readlink("", dir_fd=handle))
            elif kind == "file":
                told["secret"] = closed or not mode & stat.S_IROTH
                if path not in PEOPLE_FILES:
                    told["size"] = status.st_size
                    self.content(path, handle, told)
        if kind == "directory" and status.st_dev == device and path not in self.entered:
            self.entered.add(path)
            self.below(path, handle, device, closed or not mode & stat.S_IXOTH, depth + 1)

    def below(self, path, handle, device, closed, depth):
        """Look at what lies in a directory: all of it, or nothing, so that what is cut off is the same each time."""
        try:
            every = directory(handle, 2 * ENTRIES_LIMIT)
        except OSError as error:
            self.hidden.append(f"{text(path)}: {error.strerror}")
            return
        names = sorted(name for name in every if not SKIPPED.fullmatch(os.path.join(path, name)))
        if len(every) > 2 * ENTRIES_LIMIT or len(names) > self.entries_left or (names and depth > DEPTH_LIMIT):
            self.hidden.append(f"{text(path)}: more than {ENTRIES_LIMIT} entries in all, or {DEPTH_LIMIT} levels")
            return
        self.entries_left -= len(names)
        for name in names:
            inner = os.path.join(path, name)
            try:
                child = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=handle)
            except FileNotFoundError:
                continue
            except OSError as error:
                self.hidden.append(f"{text(inner)}: {error.strerror}")
                continue
            try:
                self.look(inner, child, device, closed, depth)
            finally:
                os.close(child)

    def content(self, path, handle, told):
        """Add the digest of a file, and keep its text where it is wanted."""
        size = told["size"]
        if size > DIGEST_LIMIT:
            return
        if size > self.bytes_left:
            if self.bytes_left >= 0:
                self.collector.note(
                    "state: files", f"from {text(path)} on without contents: {READ_LIMIT} bytes were read"
                )
            self.bytes_left = -1
            return
        self.bytes_left -= size
        digest, kept = hmac.new(self.key, digestmod="sha256"), []
        try:
            # No further than it reached when we looked: it may grow faster than we read.
            for piece in pieces(handle, size):
                digest.update(piece)
                if size <= TEXT_LIMIT:
                    kept.append(piece)
        except OSError as error:
            self.hidden.append(f"{text(path)}: {error.strerror}")
            return
        told["digest"] = digest.hexdigest()
        wanted = self.wants_texts and not told["secret"] and told["digest"][:KNOWN_DIGITS] not in self.known
        if wanted and size <= TEXT_LIMIT:
            self.keep_text(path, b"".join(kept))

    def keep_text(self, path, content):
        """Keep the text of a file, where it is one; never that of a private key, whoever may read it."""
        if b"\0" in content or b"PRIVATE KEY-----" in content:
            return
        try:
            words = content.decode()
        except UnicodeDecodeError:
            return
        if len(content) > self.text_left:
            if self.text_left >= 0:
                self.collector.note("state: texts", f"from {text(path)} on without: {TEXTS_LIMIT} bytes were kept")
            self.text_left = -1
            return
        self.text_left -= len(content)
        self.texts[text(path)] = words

    def units(self):
        """Return what systemd makes of each unit, or what it would."""
        return self.loaded_units() if self.live else self.unit_files()

    def loaded_units(self):
        """Return what systemd says of each unit that a file makes."""
        names = set()
        for listing in (("list-unit-files",), ("list-units", "--all")):
            kinds = "--type=service,socket,timer,path,mount"
            done = self.collector.command(
                "systemctl", *listing, kinds, "--full", "--plain", "--no-legend", "--no-pager"
            )
            if not done or done[0] != 0:
                if done:
                    self.collector.note(f"systemctl {listing[0]}", done[2])
                return {}
            listed = {line.split()[0] for line in done[1].splitlines() if line.strip()}
            # A template is no unit, and an instance is one only while it is loaded.
            names |= {name for name in listed if "@" not in name or (listing[1:] and "@." not in name)}
        names, found = sorted(name for name in names if not FLEETING_UNIT.fullmatch(name)), {}
        for start in range(0, len(names), SHOW_LIMIT):
            for fields in self.shown(names[start : start + SHOW_LIMIT]):
                if unit := unit_of(fields):
                    found[f"unit:{fields['Id']}"] = unit
        return found

    def shown(self, names):
        """Return the properties of units; one that systemd cannot show is noted, and those after it are asked again."""
        found = []
        for _ in range(SHOW_TRIES):
            done = self.collector.command("systemctl", "show", f"--property={','.join(UNIT_PROPERTIES)}", "--", *names)
            told = properties(done[1]) if done else []
            found += told
            if not done or len(told) >= len(names):
                break
            self.collector.note(f"systemctl show {names[len(told)]}", done[2])
            names = names[len(told) + 1 :]
            if not names:
                break
        return found

    def unit_files(self):
        """Return what the files on a disk make of each unit."""
        found, wanted, drop_ins = {}, set(), {}
        for place in UNIT_PLACES:
            for name in self.names(place):
                path = f"{place}/{name}"
                if UNIT.fullmatch(name):
                    target = self.link(path)
                    found.setdefault(name, (path, target))
                    if place == UNIT_PLACES[0] and os.path.basename(target) != name:
                        wanted.add(os.path.basename(target))  # by another name
                elif name.endswith((".wants", ".requires", ".upholds")) and place == UNIT_PLACES[0]:
                    wanted |= set(self.names(path))
                elif name.endswith(".d"):
                    for file in self.names(path):
                        if file.endswith(".conf"):
                            drop_ins.setdefault(name[:-2], {}).setdefault(file, f"{path}/{file}")
        told = {}
        for name in sorted(set(found) | {name for name in wanted if UNIT.fullmatch(name)}):
            template = re.sub(r"@.*(?=\.)", "@", name)
            path, target = found.get(name) or found.get(template, ("", ""))
            leads_to = os.path.normpath(os.path.join(os.path.dirname(path), target))
            masked = leads_to == "/dev/null" or (path and not target and self.read(path) == "")
            if not path or "@." in name or (target and not masked and os.path.basename(target) not in (name, template)):
                continue
            added = {}
            for owner in (name.rpartition(".")[2], template, name):
                added |= drop_ins.get(owner, {})
            told[f"unit:{text(name)}"] = {
                "load": "masked" if masked else "loaded",
                "enabled": "masked" if masked else "enabled" if name in wanted else self.installed(path, target),
                "fragment": "" if masked else text(usual(path)),
                "drop_ins": text(" ".join(usual(added[file]) for file in sorted(added))),
            }
        return told

    def installed(self, path, target):
        """Return what systemd calls a unit's file that nothing wants."""
        if target and path.startswith(UNIT_PLACES[0]):
            return "linked"
        section = re.search(r"(?ms)^\[Install\]\s*$(.*?)(?=^\[|\Z)", self.read(path) or "")
        if section and re.search(r"(?m)^(WantedBy|RequiredBy|UpheldBy|Alias)\s*=\s*\S", section[1]):
            return "disabled"
        return "indirect" if section and re.search(r"(?m)^Also\s*=\s*\S", section[1]) else "static"

    def mounts(self):
        """Return what is mounted, but for what the kernel and a container's storage make."""
        return mounts(read_kernel("/proc/self/mountinfo"))

    def listeners(self):
        """Return who listens where."""
        programs, found = self.programs(), {}
        for protocol, state in (("tcp", LISTENING_TCP), ("udp", UNCONNECTED_UDP)):
            for file in filter(os.path.exists, (f"/proc/net/{protocol}", f"/proc/net/{protocol}6")):
                for place, port, inode in inet_sockets(read_kernel(file), state):
                    if protocol == "tcp" or port < UDP_PORTS:
                        held = programs.get(inode, (sys.maxsize, ""))
                        name = f"listen:{protocol}/{place}:{port}"
                        found[name] = min(found.get(name, held), held)
        for path, inode in unix_sockets(read_kernel("/proc/net/unix")):
            held = programs.get(inode, (sys.maxsize, ""))
            found[f"listen:unix:{path}"] = min(found.get(f"listen:unix:{path}", held), held)
        return {name: {"program": program} for name, (_, program) in found.items()}

    def programs(self):
        """Return for each socket's inode the oldest process that holds it, and its name."""
        found, seen = {}, 0
        for pid in sorted(map(int, filter(str.isdigit, os.listdir("/proc")))):
            try:
                name = read_kernel(f"/proc/{pid}/comm").rstrip("\n")
                numbers = os.listdir(f"/proc/{pid}/fd")
            except OSError:
                continue  # it ended, or we may not trace it
            seen += len(numbers)
            if seen > OPEN_LIMIT:
                self.collector.note("/proc/*/fd", f"more than {OPEN_LIMIT} open files")
                break
            for descriptor in numbers:
                with contextlib.suppress(OSError):  # it was closed while we looked
                    target = os.readlink(f"/proc/{pid}/fd/{descriptor}")
                    if target.startswith("socket:["):
                        found.setdefault(target[8:-1], (pid, name))
        return found

    def sshd(self):
        """Return sshd's settings as they are in effect."""
        done = self.collector.apart("sshd", "-T", source="sshd -T") if installed("sshd") else None
        if done and done[0] != 0:
            self.collector.note("sshd -T", done[2])
        return sshd_settings(done[1]) if done and done[0] == 0 else {}

    def mariadb(self):
        """Return the settings of the database server; what is wrong with one that does not answer, others say."""
        for place in (subject["database"]["socket"] for subject in self.subjects if subject.get("database")):
            done = self.collector.mariadb("--no-defaults", place, "SHOW GLOBAL VARIABLES")
            if done and done[1] == 0:
                rows = (row for row in done[0] if len(row) == 2 and not FLEETING_VARIABLE.fullmatch(row[0]))
                return {f"mariadb:{name}": {"value": value} for name, value in rows}
        return {}

    def host_keys(self):
        """Return the fingerprints of the keys that this host shows."""
        found = {}
        for name in self.names("/etc/ssh"):
            key = re.fullmatch(r"(?s)ssh_host_(.+)_key\.pub", name)
            words = (self.read(f"/etc/ssh/{name}") or "").split() if key else []
            with contextlib.suppress(ValueError, IndexError):  # no key: its file is told all the same
                digest = hashlib.sha256(base64.b64decode(words[1], validate=True)).digest()
                fingerprint = "SHA256:" + base64.b64encode(digest).decode().rstrip("=")
                found[f"host_key:{text(key[1])}"] = {"fingerprint": fingerprint}
        return found

    def firewall(self):
        """Return the rules of both backends and all families."""
        found, compatible = {}, set()
        words = {family: word for family, word, _, _ in FIREWALL}
        for (backend, family), (chains, _) in iptables(self.collector).items():
            found |= {f"firewall:{backend}/{family}/{name}": chain for name, chain in chains.items()}
            if backend == "nft":
                compatible |= {(words[family], name.split("/")[0]) for name in chains}
        if installed("nft"):
            tables = nft_tables(self.collector.output("nft", "--stateless", "list", "ruleset"))
            for table in tables.keys() - compatible:
                found[f"firewall:nft/{'/'.join(table)}"] = {"rules": tables[table]}
        return found

    def packages(self):
        """Return the packages that are here, wholly or half."""
        wanted = "--showformat=${binary:Package}\\t${Version}\\t${db:Status-Status}\\n"
        told = self.collector.output("dpkg-query", "--show", wanted) if installed("dpkg-query") else ""
        rows = [line.split("\t") for line in told.splitlines()]
        return {
            f"package:{row[0]}": {"version": row[1], "status": row[2]}
            for row in rows
            if len(row) == 3 and row[2] not in ("not-installed", "config-files")
        }

    def pam(self):
        """Return whether the modules are there that logins need."""
        there = set()
        for base in ("/lib", "/usr/lib"):
            for place in (f"{base}/security", *(f"{base}/{name}/security" for name in self.names(base))):
                there |= set(self.names(place))
        found = {}
        for file in self.names("/etc/pam.d"):
            for module in pam_modules(self.read(f"/etc/pam.d/{file}") or ""):
                present = self.exists(module) if module.startswith("/") else module in there
                found[f"pam:{text(file)}:{module}"] = {"present": present}
        return found

    def certificates(self):
        """Return until when the certificates of this host are good."""
        found = {}
        for path in sorted(filter(CERTIFICATE.fullmatch, self.paths.values())):
            with self.reached(path) as handle:
                if handle is None or not stat.S_ISREG(os.fstat(handle).st_mode):
                    continue
                first = b"".join(pieces(handle, CHUNK)).partition(b"-----BEGIN ")[2]
                if not re.match(rb"(?:X509 |TRUSTED )?CERTIFICATE-----", first):
                    continue
                if len(found) == CERTIFICATES_LIMIT:
                    self.collector.note("state: certificates", f"more than {CERTIFICATES_LIMIT}")
                    break
                told = self.collector.command(
                    "openssl", "x509", "-in", f"/proc/self/fd/{handle}", "-noout", "-enddate", "-subject", "-nameopt",
                    "RFC2253", source=text(path), keep=(handle,),
                )  # fmt: skip
            if told and told[0] != 0:
                self.collector.note(text(path), told[2])
            elif told and (certificate := certificate_of(told[1])):
                found[f"certificate:{text(path)}"] = certificate
        return found

    def clock(self):
        """Return the time zone, and whether something sets the clock."""
        zone = self.link("/etc/localtime").partition("zoneinfo/")[2] or (self.read("/etc/timezone") or "").strip()
        told = {"zone": text(zone)}
        if self.live:
            told["synchronized"] = synchronized()
        return {"time:clock": told}

    def resolver(self):
        """Return the name servers."""
        told = self.read("/etc/resolv.conf")
        if told is None:
            return {}
        return {
            "resolver:/etc/resolv.conf": {"servers": " ".join(re.findall(r"(?m)^[ \t]*nameserver[ \t]+(\S+)", told))}
        }

    def sysctls(self):
        """Return the kernel's settings that matter to a shop."""
        found = {}
        for name in SYSCTLS:
            with contextlib.suppress(OSError):
                value = " ".join(read_kernel(f"/proc/sys/{name.replace('.', '/')}").split())
                found[f"sysctl:{name}"] = {"value": value}
        return found

    def boot(self):
        """Return how the boot before this one ended."""
        version = self.collector.command("last", "--version") if installed("last") else None
        if not version or "util-linux" not in version[1]:
            return {}
        told = self.collector.command("last", "-x", "-n", "20", "shutdown", "reboot")
        return {"boot:previous": previous_boot(told[1] if told and told[0] == 0 else "")}


def kind_of(status):
    """Return what a status is the status of."""
    kinds = ((stat.S_ISDIR, "directory"), (stat.S_ISREG, "file"), (stat.S_ISLNK, "link"))
    return next((name for test, name in kinds if test(status.st_mode)), "other")


def text(name):
    """Return a file's name as text that every reader accepts."""
    return os.fsencode(name).decode(errors="backslashreplace")


def number(words):
    """Return a number; the words themselves where they are none."""
    return int(words) if words.isdecimal() and len(words) < 20 else words


def installed(program):
    """Say whether there is such a program."""
    return shutil.which(program, path=PATH) is not None


def directory(handle, limit):
    """Return the names in a directory, and one more than the limit where there are more."""
    opened = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=handle)
    try:
        with os.scandir(opened) as entries:
            return [entry.name for entry in itertools.islice(entries, limit + 1)]
    finally:
        os.close(opened)


def pieces(handle, limit):
    """Return the beginning of an ordinary file, piece by piece."""
    # By the handle, not by its name, where a pipe may lie by now.
    opened = os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        while limit > 0 and (piece := os.read(opened, min(limit, CHUNK))):
            limit -= len(piece)
            yield piece
    finally:
        os.close(opened)


def read_kernel(path):
    """Return what the kernel says in a file of /proc."""
    with open(path, encoding="utf-8", errors="backslashreplace") as handle:
        return handle.read()


def usual(path):
    """Return a path of a unit's file as of today's systemd, to which /lib is /usr/lib."""
    return "/usr" + path if path.startswith("/lib/") else path


def properties(told):
    """Return the properties of each unit that `systemctl show` told of."""
    blocks = told.strip("\n").split("\n\n") if told.strip() else []
    return [dict(line.split("=", 1) for line in block.split("\n") if "=" in line) for block in blocks]


def unit_of(fields):
    """Return what is to be said of a unit; None of one that comes and goes, or that no file makes."""
    name, load, active = fields.get("Id", ""), fields.get("LoadState", ""), fields.get("ActiveState", "")
    enabled, fragment = fields.get("UnitFileState", ""), fields.get("FragmentPath", "")
    active = {"reloading": "active", "refreshing": "active"}.get(active, active)
    active = active if active in ("active", "failed") else "inactive"
    # Instances and names without a file are loaded only as long as somebody speaks of them.
    asleep = active == "inactive" and (load == "not-found" or ("@" in name and not enabled.startswith("enabled")))
    nobodys = name.endswith(".mount") and load == "loaded" and not fragment
    if not UNIT.fullmatch(name) or fields.get("Transient") == "yes" or asleep or nobodys:
        return None
    tested = fields.get("ConditionTimestampMonotonic", "0") != "0"
    return {
        "load": load,
        "enabled": enabled,
        "active": active,
        "fragment": "" if load == "masked" else usual(fragment),
        "drop_ins": " ".join(map(usual, fields.get("DropInPaths", "").split())),
        "condition": fields.get("ConditionResult", "") if tested else "",
        "user": fields.get("User", ""),
        "dangerous": " ".join(fields[key] for key in ACTIONS if fields.get(key, "none") not in ("none", "")),
    }


def unescaped(words):
    """Return a field of the kernel's lists, in which blanks and line ends are written as octal numbers."""
    return re.sub(r"\\(040|011|012|134)", lambda told: chr(int(told[1], 8)), words)


def mounts(told):
    """Return what /proc/self/mountinfo says is mounted, by place."""
    found = {}
    for line in told.split("\n"):
        fields = line.split(" ")
        if "-" not in fields[6:]:
            continue
        kind, source, more = (*fields[fields.index("-", 6) + 1 :], "", "", "")[:3]
        place, part = unescaped(fields[4]), unescaped(fields[3])
        if KERNEL_MOUNT.fullmatch(place):
            continue
        options = {item for item in (*fields[5].split(","), *more.split(",")) if item}
        # Either may forbid to write: the mount, or the disk that had an error.
        options -= {"rw"} if "ro" in options else set()
        kept = sorted(item for item in options if item.partition("=")[0] not in FLEETING_OPTIONS)
        source = unescaped(source) + (f"[{part}]" if part != "/" else "")
        found[f"mount:{place}"] = {"type": kind, "source": source, "options": ",".join(kept)}
    return found


def address(words):
    """Return an address as people write it, from the kernel's words of 32 bits."""
    packed = b"".join(int(words[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(words), 8))
    return (
        socket.inet_ntop(socket.AF_INET, packed)
        if len(packed) == 4
        else f"[{socket.inet_ntop(socket.AF_INET6, packed)}]"
    )


def inet_sockets(told, state):
    """Return address, port and inode of the sockets in this state that the kernel lists."""
    found = []
    for line in told.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 9 and fields[3] == state:
            place, _, port = fields[1].partition(":")
            found.append((address(place), int(port, 16), fields[9]))
    return found


def unix_sockets(told):
    """Return path and inode of the sockets in the file system on which somebody listens."""
    found = []
    for line in told.split("\n")[1:]:
        fields = line.split(None, 7)
        if (
            len(fields) == 8
            and int(fields[3], 16) & LISTENING_UNIX
            and re.match(r"/(?!run/user/|tmp/|proc/)", fields[7])
        ):
            found.append((fields[7], fields[6]))
    return found


def resolved(path):
    """Return a socket's path with links in its directory followed: /var/run is /run, whatever a program calls it."""
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))


def listens(collector, subjects):
    """Return of each socket and address that subjects want whether anybody listens there."""
    wanted = [item for subject in subjects for item in subject.get("listens") or []]
    names = {os.path.basename(item["socket"]) for item in wanted if "socket" in item}
    try:
        # As the program wrote it, which may lead through a link such as /var/run.
        bound = [path for path, _ in unix_sockets(read_kernel("/proc/net/unix"))] if names else []
        there = {resolved(path) for path in bound if os.path.basename(path) in names}
        for file in filter(os.path.exists, ("/proc/net/tcp", "/proc/net/tcp6") if wanted else ()):
            there |= {f"{place}:{port}" for place, port, _ in inet_sockets(read_kernel(file), LISTENING_TCP)}
    except (OSError, ValueError) as error:
        collector.note("who listens", getattr(error, "strerror", None) or str(error))
        return {}
    found = {}
    for item in wanted:
        if "socket" in item:
            found[item["socket"]] = resolved(item["socket"]) in there
            continue
        place, port = item["address"], item["port"]
        ways = [f"[{place}]:{port}"] if ":" in place else [f"{place}:{port}", f"0.0.0.0:{port}"]
        # On all addresses of the newer family is on those of the older as well, but where a program forbids it.
        found[ways[0]] = bool({*ways, f"[::]:{port}"} & there)
    return found


def sshd_at(collector):
    """Return where sshd listens, or systemd for it: what its settings say by now is another matter."""
    found, told = [], collector.command("systemctl", "show", "--property=ActiveState,Listen", "--", "ssh.socket")
    if told and "ActiveState=active" in told[1].splitlines():
        places = re.findall(r"(?m)^Listen=\[?([^\[\]\s]+?)\]?:(\d+) \(Stream\)$", told[1])
        found += [{"address": place, "port": int(port), "by": "ssh.socket"} for place, port in places]
    try:
        held = set()
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):  # it ended, or we may not trace it
                # Whoever is logged in has an sshd of its own, below that one, and may listen for what it forwards.
                if read_kernel(f"/proc/{pid}/comm") == "sshd\n" and parent_of(pid) == "1":
                    held |= open_files(pid)
        for file in filter(os.path.exists, ("/proc/net/tcp", "/proc/net/tcp6") if held else ()):
            for place, port, inode in inet_sockets(read_kernel(file), LISTENING_TCP):
                if f"socket:[{inode}]" in held:
                    found.append({"address": place.strip("[]"), "port": port, "by": "sshd"})
    except (OSError, ValueError, IndexError) as error:
        collector.note("where sshd listens", getattr(error, "strerror", None) or str(error))
    return sorted(found, key=lambda item: (item["port"], item["address"], item["by"]))


def open_files(pid):
    """Return what a process holds open, in the kernel's words."""
    found = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):  # it was closed while we looked
            found.add(os.readlink(f"/proc/{pid}/fd/{name}"))
    return found


def parent_of(pid):
    """Return the PID of a process's parent."""
    return read_kernel(f"/proc/{pid}/stat").rsplit(")", 1)[1].split()[1]


def sshd_settings(told):
    """Return what `sshd -T` says, by name."""
    found = {}
    for line in told.split("\n"):
        name, _, value = line.partition(" ")
        if name:
            found.setdefault(f"sshd:{name}", []).append(value)
    return {name: {"value": "\n".join(values)} for name, values in found.items()}


def iptables(collector):
    """Return what iptables tells of: (backend, family) → chains (TABLE/CHAIN → policy, rules), whether all of them."""

    def ask(program):
        noted = len(collector.unseen)
        told = collector.output(program)
        if re.search(r"(?m)^# Table .* is incompatible", told):
            collector.note(program, "a table has rules that only nft can tell")
        return iptables_chains(told), len(collector.unseen) == noted

    found = {}
    for family, _, program, names in FIREWALL:
        if installed(f"{program}-nft-save"):
            found["nft", family] = ask(f"{program}-nft-save")
        # Asking where there are none loads the kernel's modules.
        with contextlib.suppress(OSError):
            if read_kernel(names).strip() and installed(f"{program}-legacy-save"):
                found["legacy", family] = ask(f"{program}-legacy-save")
    return found


def iptables_chains(told):
    """Return the chains that iptables-save tells of, by table and chain."""
    found, table = {}, ""
    for line in told.split("\n"):
        if line.startswith("*"):
            table = line[1:]
        elif chain := re.match(r":(\S+) (\S+)", line):
            found[f"{table}/{chain[1]}"] = {"policy": chain[2].strip("-"), "rules": []}
        elif rule := re.match(r"(?:\[\d+:\d+\] )?(-A (\S+).*)", line):
            found.setdefault(f"{table}/{rule[2]}", {"policy": "", "rules": []})["rules"].append(rule[1])
    return {name: {"policy": chain["policy"], "rules": "\n".join(chain["rules"])} for name, chain in found.items()}


def nft_tables(told):
    """Return the tables that nft tells of, by family and name."""
    found, table = {}, []
    for line in told.split("\n"):
        if head := re.match(r"table (\S+) (\S+) \{", line):
            table = found.setdefault((head[1], head[2]), [])
        elif line != "}":
            table.append(line)
    return {name: "\n".join(lasting(rules)) for name, rules in found.items()}


def lasting(rules):
    """Return the lines of a table of nft's without its counts, and what rules or time put into sets and take out."""
    kept, fleeting, inside = [], False, False
    for line in rules:
        if re.match(r"\t\S", line):  # the next set, or chain
            fleeting = inside = False
        fleeting = fleeting or bool(re.match(r"\s+flags .*\b(?:dynamic|timeout)\b", line))
        inside = inside or (fleeting and line.lstrip().startswith("elements = {"))
        if not inside:
            kept.append(re.sub(r"\bcounter packets \d+ bytes \d+", "counter", line))
        inside = inside and not line.endswith("}")
    return kept


def pam_modules(told):
    """Return the modules that a file of PAM's names."""
    control = r"(?:\[[^\]\n]*\]|(?!(?:include|substack)\s)\S+)"
    line = rf"(?mi)^[ \t]*-?(?:auth|account|password|session)[ \t]+{control}[ \t]+(\S+)"
    return [name.replace("$ISA/", "") for name in re.findall(line, told.replace("\\\n", " "))]


def certificate_of(told):
    """Return end and subject of a certificate as `openssl x509` says them; None where it does not."""
    end, subject = re.search(r"(?m)^notAfter=(.+)$", told), re.search(r"(?m)^subject=(.*)$", told)
    try:
        return {"not_after": ssl.cert_time_to_seconds(end[1]), "subject": subject[1].strip()}
    except (TypeError, ValueError):
        return None


def synchronized():
    """Say whether something sets the clock, as the kernel knows: systemd's service would be started by asking it."""
    told = (ctypes.c_long * 64)()  # struct timex: modes (none: nothing is set), offset, freq, maxerror, ...
    try:
        status = ctypes.CDLL(None, use_errno=True).adjtimex(told)
    except (OSError, AttributeError):
        return "unknown"
    return "unknown" if status < 0 else "yes" if told[3] < SYNCHRONIZED_US else "no"


def previous_boot(told):
    """Return how the boot before this one ended, from what `last` says, the newest first."""
    lines = [" ".join(line.split()) for line in told.splitlines()]
    lines = [line for line in lines if re.match(r"reboot system boot |shutdown system down ", line)]
    if not lines or lines[0].startswith("shutdown"):
        return {"ended": "unknown", "why": "wtmp does not tell of this boot"}
    if len(lines) == 1:
        return {"ended": "unknown", "why": "wtmp tells of no boot before this one"}
    if lines[1].startswith("shutdown"):
        return {"ended": "clean", "why": lines[1]}
    return {"ended": "unclean", "why": f"no shutdown after: {lines[1]}"}


def cut(value, key):
    """Return a value, a long text cut; what is cut off still makes a difference."""
    if not isinstance(value, str) or len(value) <= VALUE_LIMIT:
        return value
    digest = hmac.new(key, value.encode(errors="backslashreplace"), "sha256").hexdigest()[:KNOWN_DIGITS]
    return f"{value[:VALUE_LIMIT]} … [cut: {len(value)} characters, digest {digest}]"


def collect(collector, key, roots=(), known=(), texts=False, subjects=(), root="/"):
    """Return the state of this host, or of the disk that is mounted at this root."""
    with State(collector, key, roots, known, texts, subjects, root) as state:
        return state_of(state)


def state_of(state):
    """Return facts and texts, from every source that tells."""
    # Accounts first: they name the owners of files; files before certificates, which are among them.
    sources = [
        state.accounts, state.files, state.units, state.host_keys, state.pam, state.certificates, state.clock,
        state.resolver,
    ]  # fmt: skip
    if state.live:
        sources += [
            state.mounts, state.listeners, state.sshd, state.mariadb, state.firewall, state.packages,
            state.sysctls, state.boot,
        ]  # fmt: skip
    for source in sources:
        try:
            state.facts |= source()
        except Exception as error:  # what it says may quote a file
            why = error.strerror if isinstance(error, OSError) else type(error).__name__
            state.collector.note(f"state: {source.__name__}", why or "")
    facts = sorted(state.facts.items())
    return {
        "facts": {name: {field: cut(value, state.key) for field, value in told.items()} for name, told in facts},
        "texts": dict(sorted(state.texts.items())),
    }
