#!/usr/bin/python3
"""Break a practice host and leave no trace of how: times are set back, nothing is logged, nothing temporary stays.

Operations, each a mapping with exactly these keys; what is already so is no change:

    remove: PATH                the file or link is gone
    link: PATH, to: TARGET      PATH becomes a link to TARGET; its directory is made where there is none
    chmod: PATH, mode: MODE     PATH has this octal mode
    write: PATH, text: TEXT     PATH is a file with this text; its directory is made where there is none
    append: PATH, text: TEXT    PATH ends with this line
    move: PATH, to: PATH        the file stands elsewhere
    cut: PATH, match: PATTERN   the lines of the file in which the pattern is found are gone
    replace: PATH, match: PATTERN, with: TEXT
                                whatever in the file matches the pattern is this text
    fill: PATH, leave: KIB      the log has grown until no more than this is left of its file system, a small one
    shadow: USER, field: FIELD, value: DAYS
                                changed or expires of an account in /etc/shadow is this day
    rekey: PATH                 the private key of a host, and the public one beside it, are new ones
    saved: PATH, rule: RULE     the rules that a boot loads from PATH end, in the table filter, with this one (-A …)

and what befalls a running system; these always change something:

    kill: UNIT                  its processes die as in a power failure; whether it comes back is systemd's business
    start: UNIT                 it was started, and may have failed
    sql: STATEMENT              the local MariaDB has carried it out
    iptables: WORDS, family: FAMILY   iptables has carried out these words (-A …), for ipv4 or ipv6
    hold: PATH, unit: UNIT      a forgotten program, the transient UNIT, sits on every connection that the database has
                                for the user of this environment file (…_DATABASE_USER, …_PASSWORD, …_SOCKET)

Paths are absolute, modes four digits in quotes; all but remove, link and move follow links. One that is not understood
keeps all of them back.
"""

import errno
import os
import re
import shlex
import stat
import subprocess
from contextlib import contextmanager

OPERATIONS = {
    "remove": set(), "link": {"to"}, "chmod": {"mode"}, "write": {"text"}, "append": {"text"}, "move": {"to"},
    "cut": {"match"}, "replace": {"match", "with"}, "kill": set(), "start": set(), "sql": set(), "hold": {"unit"},
    "fill": {"leave"}, "saved": {"rule"}, "iptables": {"family"}, "shadow": {"field", "value"}, "rekey": set(),
}  # fmt: skip
SHADOW, DAYS = "/etc/shadow", {"changed": 2, "expires": 7}
IPTABLES = {"ipv4": "iptables", "ipv6": "ip6tables"}
EMPTY_TABLE = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n"
SMALL_DISK = 1 << 30
# Of an address that no customer of the practice site has, so that it can be told from theirs.
LOG_LINE = (
    b'192.0.2.77 - - [25/Nov/2026:04:02:11 +0900] "GET /catalogue/?page=2 HTTP/1.1" 200 18231 "-" "old-crawler/1.2"\n'
)
UNIT = re.compile(r"[A-Za-z0-9@:_.-]+\.service")
# Takes connections for some seconds, because others give theirs back, then says that it is ready and does nothing more.
# This text is what an operator finds in the list of processes: it is the culprit, and names neither drill nor fault.
HOLD = """
import os, pymysql, socket, time
given = {name.rsplit("_DATABASE_")[-1]: value for name, value in os.environ.items() if "_DATABASE_" in name}
held, end = [], time.monotonic() + 3
while time.monotonic() < end:
    try:
        held.append(pymysql.connect(user=given["USER"], password=given["PASSWORD"], unix_socket=given["SOCKET"]))
    except pymysql.MySQLError:
        time.sleep(0.05)
if not held:
    raise SystemExit("no connection to be had")
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
time.sleep(100000)
"""


def check(operation):
    """Return what is wrong with an operation, in words; nothing when it is understood."""
    kinds = operation.keys() & OPERATIONS.keys()
    if len(kinds) != 1:
        return f"{operation} needs one of {', '.join(OPERATIONS)}"
    (kind,) = kinds
    more = OPERATIONS[kind]
    if operation.keys() - kinds != more:
        return f"{operation}: {kind} needs {' and '.join(sorted(more)) or 'nothing'} beside the path, and nothing else"
    if kind in ("kill", "start", "hold"):
        unit = operation.get("unit", operation[kind])
        if not UNIT.fullmatch(str(unit)):
            return f"{operation}: {unit!r} must be the name of a service"
    if kind == "iptables" and operation["family"] not in IPTABLES:
        return f"{operation}: family must be one of {', '.join(IPTABLES)}"
    words = operation.get("rule", operation[kind])
    if kind in ("saved", "iptables") and not re.fullmatch(r"-[AIN] [^\n'\"\\]+", str(words)):
        return f"{operation}: {words!r} must be a rule of iptables, -A CHAIN …, without quotes"
    if kind == "shadow" and not (
        re.fullmatch("[a-z][a-z0-9-]*", str(operation[kind]))
        and operation["field"] in DAYS
        and re.fullmatch("[0-9]{1,6}", str(operation["value"]))
    ):
        return f"{operation}: an account, one of {', '.join(DAYS)}, and a day in quotes are needed"
    paths = [] if kind in ("kill", "start", "sql", "iptables", "shadow") else [operation[kind]]
    for path in [*paths, *([operation["to"]] if kind == "move" else [])]:
        if not isinstance(path, str) or not path.startswith("/"):
            return f"{operation}: {path!r} must be an absolute path"
    if kind == "fill" and not re.fullmatch("[0-9]{1,7}", str(operation["leave"])):
        return f"{operation}: leave must be a number of KiB"
    if kind == "chmod" and not re.fullmatch("[0-7]{4}", str(operation["mode"])):
        return f"{operation}: mode must be four octal digits in quotes"
    if kind in ("cut", "replace"):
        try:
            re.compile(operation["match"])
        except (re.error, TypeError) as error:
            return f"{operation}: match must be a pattern: {error}"
    return ""


@contextmanager
def times_kept(*paths):
    """Set the access and change times of these paths back to what they were; what is new gets those of the first."""
    before = [(path, os.lstat(path) if os.path.lexists(path) else os.lstat(paths[0])) for path in paths]
    try:
        yield
    finally:
        for path, status in before:
            if os.path.lexists(path):
                os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)


def run(*words, told=""):
    """Run a command that must not fail, and says nothing; `told` is its standard input."""
    subprocess.run(words, check=True, input=told.encode(), capture_output=True, timeout=60)


def befall(kind, operation):
    """Carry out an operation on the running system."""
    what = operation[kind]
    if kind == "kill":
        run("systemctl", "kill", "--signal=KILL", "--", what)
    elif kind == "start":
        subprocess.run(["systemctl", "start", "--", what], check=False, capture_output=True, timeout=60)
    elif kind == "sql":
        run("mariadb", "--batch", told=what)  # a password in it is in no list of processes
    elif kind == "iptables":
        run(IPTABLES[operation["family"]], "-w", "10", *shlex.split(what))
    else:
        # A name of its own: else the journal would repeat the whole program at its start.
        unit = ["--collect", f"--unit={operation['unit']}", f"--description={operation['unit']}"]
        unit += ["--property=Type=notify", f"--property=EnvironmentFile={what}"]
        run("systemd-run", *unit, "/usr/bin/python3", "-c", HOLD)


def room(path):
    """Return how many bytes are free on the file system of a path."""
    numbers = os.statvfs(path)
    return numbers.f_bavail * numbers.f_frsize


def fill(path, leave):
    """Let a log grow until so many bytes are left; return whether it grew."""
    folder = os.path.dirname(path)
    numbers = os.statvfs(folder)
    if numbers.f_blocks * numbers.f_frsize > SMALL_DISK:
        raise OSError(f"{folder} is on no small disk of its own: what would run full is the machine's")
    if room(folder) - leave < len(LOG_LINE):
        return False
    with open(path, "ab", buffering=0) as handle:
        try:
            while (more := (room(folder) - leave) // len(LOG_LINE)) > 0:
                handle.write(LOG_LINE * min(more, 4096))
            os.fsync(handle.fileno())
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
    return True


def with_rule(text, rule):
    """Return the text of saved rules with one more at the end of the table filter."""
    text = text if re.search(r"(?m)^\*filter$", text) else text + EMPTY_TABLE
    return re.sub(r"(?ms)^(\*filter$.*?^)(COMMIT)$", lambda table: f"{table[1]}{rule}\n{table[2]}", text, count=1)


def set_day(operation):
    """Set a day of an account, which programs made for that would write to the log; return whether it was another."""
    with open(SHADOW, encoding="utf-8", errors="surrogateescape") as handle:
        before = handle.read().split("\n")
    lines = [line.split(":") for line in before]
    for fields in lines:
        if fields[0] == operation["shadow"] and len(fields) > max(DAYS.values()):
            fields[DAYS[operation["field"]]] = operation["value"]
    after = [":".join(fields) for fields in lines]
    if after != before:
        with open(SHADOW, "w", encoding="utf-8", errors="surrogateescape") as handle:
            handle.write("\n".join(after))
    return after != before


def apply(operation):
    """Carry out one operation; return whether it changed anything."""
    (kind,) = operation.keys() & OPERATIONS.keys()
    if kind == "shadow":
        with times_kept("/etc", SHADOW):
            return set_day(operation)
    if kind in ("kill", "start", "sql", "hold", "iptables"):
        befall(kind, operation)
        return True
    path = operation[kind]
    if kind in ("chmod", "write", "append", "cut", "replace", "fill", "saved"):
        path = os.path.realpath(path)
    folder = os.path.dirname(path)
    if kind == "rekey":
        with times_kept(folder, path, f"{path}.pub"):
            os.unlink(path)
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path)
        return True
    if kind in ("write", "link") and not os.path.isdir(folder):
        with times_kept(os.path.dirname(folder), folder):
            os.mkdir(folder)
    exists = os.path.lexists(path)
    # A file from today among files of last year would point at itself: what is new is as old as its folder.
    with times_kept(folder, path):
        if kind == "remove":
            if not exists:
                return False
            os.unlink(path)
        elif kind == "link":
            if os.path.islink(path) and os.readlink(path) == operation["to"]:
                return False
            os.symlink(operation["to"], f"{path}~")
            os.replace(f"{path}~", path)
        elif kind == "chmod":
            mode = int(operation["mode"], 8)
            if stat.S_IMODE(os.stat(path).st_mode) == mode:
                return False
            os.chmod(path, mode)
        elif kind == "move":
            to = operation["to"]
            if not exists and os.path.lexists(to):
                return False
            with times_kept(os.path.dirname(to)):
                os.rename(path, to)
        elif kind == "cut":
            with open(path, encoding="utf-8", errors="surrogateescape") as handle:
                old = handle.read().splitlines(keepends=True)
            left = [line for line in old if not re.search(operation["match"], line)]
            if left == old:
                return False
            with open(path, "w", encoding="utf-8", errors="surrogateescape") as handle:
                handle.writelines(left)
        elif kind == "replace":
            with open(path, encoding="utf-8", errors="surrogateescape") as handle:
                before = handle.read()
            after = re.sub(operation["match"], lambda _: operation["with"], before)
            if after == before:
                return False
            with open(path, "w", encoding="utf-8", errors="surrogateescape") as handle:
                handle.write(after)
        elif kind == "saved":
            old = ""
            if exists:
                with open(path, encoding="utf-8", errors="surrogateescape") as handle:
                    old = handle.read()
            if operation["rule"] in old.split("\n"):
                return False
            with open(path, "w", encoding="utf-8", errors="surrogateescape") as handle:
                handle.write(with_rule(old, operation["rule"]))
        elif kind == "fill":
            return fill(path, int(operation["leave"]) << 10)
        else:
            line = operation["text"] + "\n"
            old = ""
            if exists:
                with open(path, encoding="utf-8", errors="surrogateescape") as handle:
                    old = handle.read()
            if old == line or (kind == "append" and old.endswith(f"\n{line}")):
                return False
            with open(path, "a" if kind == "append" else "w", encoding="utf-8") as handle:
                # A last line without its end must not swallow this one.
                handle.write(line if kind == "write" or not old or old.endswith("\n") else f"\n{line}")
    return True


def main():
    """Ansible's entry point."""
    from ansible.module_utils.basic import AnsibleModule

    module = AnsibleModule(argument_spec={"operations": {"type": "list", "elements": "dict", "required": True}})
    operations = module.params["operations"]
    wrong = [words for words in map(check, operations) if words]
    if wrong:
        module.fail_json(msg=f"nothing injected: {wrong[0]}")
    try:
        changed = [apply(operation) for operation in operations]
    except subprocess.SubprocessError as error:
        told = (getattr(error, "stderr", b"") or b"").decode(errors="replace").strip()
        module.fail_json(msg=f"not injected: {told or type(error).__name__}")
    except OSError as error:
        module.fail_json(msg=f"not injected: {error}")
    module.exit_json(changed=any(changed))


if __name__ == "__main__":
    main()
