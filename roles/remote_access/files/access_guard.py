#!/usr/bin/python3
"""Change the way into this host so that no change can lock everybody out: standard library only.

    hikeshi-access apply [--check] < WANTED  validate, keep what stands, arm the undoing, put the new in place, reload
    hikeshi-access mend-disk [--check] < WANTED
                                             the same of a disk whose system is off: nothing to arm, prove or reload
    hikeshi-access commit TOKEN              a new login succeeded: the change stays
    hikeshi-access undo [TOKEN]              put the former back, reload sshd
    hikeshi-access at-boot                   undo what a reboot interrupted, before sshd starts
    hikeshi-access status                    what is pending

What is not committed is undone by a transient systemd timer, whoever is dead or cut off by then, and by a unit at boot.
The one thing that says "not committed" is the folder `pending`: it appears by one rename when everything needed to undo
is on disk and the timer is armed, before anything is changed, and leaves by one rename: to `committed` or to `undone`,
where the former files stay. WANTED is JSON:

    seconds   after which an uncommitted change is undone
    deploy    the user who must be able to log in afterwards
    accounts  [{name, state, password}]: open (made when missing, not expired; password: a hash, optional) or closed
    keys      [{user, add, remove}] or [{user, exactly}]: lines of ~/.ssh/authorized_keys
    files     [{path, text, mode}] or [{path, absent: true}]: of root
    lines     [{path, line, to}]: a line, but for blanks around it, becomes another, or goes where `to` is empty
    mends     true of what mends: what was wrong before and still is keeps nobody from mending the rest

Exit status: 0 done · 1 failed, and undone · 2 refused, nothing changed.
"""

import fcntl
import fnmatch
import grp
import ipaddress
import json
import os
import pwd
import re
import secrets
import shutil
import stat
import subprocess
import sys
import tempfile
import time

STATE = "/var/lib/hikeshi/access"
PROGRAM = "/usr/local/sbin/hikeshi-access"
SSH = "/etc/ssh"
MAIN = f"{SSH}/sshd_config"
DROP_INS = f"{SSH}/sshd_config.d"
INCLUDE = f"Include {DROP_INS}/*.conf"
INCLUDES = re.compile(rf"(?im)^(\s*include\s.*?)(?:{SSH}/)?\bsshd_config\.d/")
PRISTINE = "/usr/share/openssh/sshd_config"  # the package's own, for a main file that is lost
UNIT = "ssh.service"
RUNNING = "/run/systemd/system"  # there where systemd runs (sd_booted)
DAY_S = 86400
PASSWD, SHADOW, GROUP, GSHADOW = "/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow"
ACCOUNT_FILES = (PASSWD, SHADOW, GROUP, GSHADOW, "/etc/subuid", "/etc/subgid")
ACCOUNT_LOCK = "/etc/.pwd.lock"  # what useradd and passwd take, too
NO_SHELLS = ("/usr/sbin/nologin", "/sbin/nologin", "/bin/false", "/usr/bin/false")
KEY = re.compile(r"(?:^|\s)((?:ssh|ecdsa|sk)-[\w@.-]+)\s+([A-Za-z0-9+/]{16,}=*)")


class RefusedError(Exception):
    """Not done, nothing changed; the words say why and what to do."""


def run(*words, text=""):
    """Run a command; return (exit status, output and errors)."""
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        words, input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        env=environment, timeout=30, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


# Files


def read(path):
    """Return a file's text, or None where there is none."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as handle:
            return handle.read()
    except FileNotFoundError:
        return None


def write(path, text, mode=0o600, owner=0, group=0):
    """Write a file whole or not at all; a link in its place is replaced, never written through."""
    temporary = temporary_of(path)
    remove(temporary)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with open(handle, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
            os.fchown(file.fileno(), owner, group)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        remove(temporary)
        raise
    sync(os.path.dirname(path))


def temporary_of(path):
    """Return the name under which a file is written: hidden, and one that sshd, sudo and PAM do not read."""
    return f"{os.path.dirname(path)}/.{os.path.basename(path)}.hikeshi"


def remove(path):
    """Remove a file or link that may be there."""
    if os.path.lexists(path):
        os.unlink(path)


def sync(folder):
    """Make renames in a folder outlive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def look(path):
    """Return what stands at a path, as it must be put back: absent, a link, or a file with its text."""
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return {"kind": "absent"}
    if stat.S_ISLNK(status.st_mode):
        return {"kind": "link", "to": os.readlink(path)}
    if not stat.S_ISREG(status.st_mode):
        raise RefusedError(f"{path} is neither a file nor a link; move it away first")
    mode = f"{stat.S_IMODE(status.st_mode):04o}"
    return {"kind": "file", "text": read(path), "mode": mode, "owner": status.st_uid, "group": status.st_gid}


def put(path, state):
    """Make a path what `look` once returned, or what is wanted there."""
    if state["kind"] == "file":
        write(path, state["text"], int(state["mode"], 8), state["owner"], state["group"])
    else:
        remove(path)
    if state["kind"] == "link":
        os.symlink(state["to"], path)


# Accounts


def home_of(user):
    """Return (home, uid, gid) of a user; of one not made yet, where it will be."""
    line = account_line(PASSWD, user)
    if line is None:
        return f"/home/{user}", None, None
    fields = line.split(":")
    return fields[5], int(fields[2]), int(fields[3])


def account_line(path, user):
    """Return a user's line of an account file, or None."""
    found = (line for line in (read(path) or "").splitlines() if line.split(":", 1)[0] == user)
    return next(found, None)


def put_account_line(path, user, line):
    """Make a user's line of an account file what it must be; None removes it. The others' lines stay as they are."""
    text = read(path)
    if text is None or account_line(path, user) == line:
        return
    lines = text.splitlines()
    at = next((n for n, old in enumerate(lines) if old.split(":", 1)[0] == user), len(lines))
    lines[at : at + 1] = [] if line is None else [line]
    status = os.stat(path)
    write(path, "".join(f"{line}\n" for line in lines), stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)


def account_lines(user):
    """Return all lines an account has, by file."""
    return {path: account_line(path, user) for path in ACCOUNT_FILES}


def wanted_lines(account):
    """Return passwd's and shadow's lines as they should be; None where the account has to be made first."""
    passwd, shadow = account_line(PASSWD, account["name"]), account_line(SHADOW, account["name"])
    if passwd is None or shadow is None:
        return None
    one, two, today = passwd.split(":"), shadow.split(":"), int(time.time() // DAY_S)
    if account["state"] == "open":
        one[6] = "/bin/bash" if one[6] in NO_SHELLS or not os.path.exists(one[6] or "/bin/sh") else one[6]
        two[1] = account.get("password") or two[1]
        two[2] = str(today) if must_change(two, today) else two[2]
        two[7] = ""
    else:
        two[1], two[7] = "!", "1"  # expired as well: a locked password does not keep a key out
    return {PASSWD: ":".join(one), SHADOW: ":".join(two)}


def must_change(fields, today):
    """Say whether a password must be changed before anybody gets in with a key, by the fields of shadow's line."""
    changed, most = fields[2], fields[4]
    return changed == "0" or (changed.isdecimal() and most.isdecimal() and int(changed) + int(most) < today)


def account_differs(account):
    """Say whether an account is not yet as it should be; one that is closed may also not exist."""
    lines = wanted_lines(account)
    if lines is None:
        return account["state"] == "open"
    return any(account_line(path, account["name"]) != line for path, line in lines.items())


def put_account(account):
    """Make an account what it should be. The hash of a password passes through no command line."""
    if wanted_lines(account) is None:
        if account["state"] != "open":
            return
        status, told = run("useradd", "--create-home", "--shell", "/bin/bash", "--", account["name"])
        if status:
            raise OSError(f"useradd {account['name']}: {told.strip()}")
    with open(ACCOUNT_LOCK, "a", encoding="ascii") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        for path, line in wanted_lines(account).items():
            put_account_line(path, account["name"], line)


def blob(line):
    """Return the key itself of a line of authorized_keys, without options and comment; "" where there is none."""
    found = KEY.search(line) if not line.lstrip().startswith("#") else None
    return found[2] if found else ""


def merged_keys(text, wanted):
    """Return the text of authorized_keys with some keys added and some removed; the others' lines stay as they are."""
    if "exactly" in wanted:
        return "".join(f"{line}\n" for line in wanted["exactly"])
    given = {blob(line): line for line in wanted.get("add", [])}
    gone = {blob(line) for line in wanted.get("remove", [])}
    lines = [given.pop(blob(line), line) for line in text.splitlines() if not blob(line) or blob(line) not in gone]
    return "".join(f"{line}\n" for line in [*lines, *given.values()])


# What is wanted, and what of it is not yet so


def with_include(text):
    """Return sshd's main file so that it reads the folder of drop-ins, first of all: its first value wins."""
    return text if INCLUDES.search(text) else f"{INCLUDE}\n{text}"


def targets(wanted):
    """Return [(path, state wanted there, its user or None)]."""
    found = []
    for item in wanted.get("files", []):
        state = {"kind": "absent"}
        if not item.get("absent"):
            state = {"kind": "file", "text": item["text"], "mode": item["mode"], "owner": 0, "group": 0}
        found.append((item["path"], state, None))
    for item in wanted.get("lines", []):
        text, state = found_text(found, item["path"])
        lines = text.splitlines(keepends=True)
        left = [changed_line(line, item["to"]) if line.strip() == item["line"] else line for line in lines]
        if left != lines:
            found = [entry for entry in found if entry[0] != item["path"]]
            found.append((item["path"], {**state, "text": "".join(left)}, None))
    paths = [path for path, _, _ in found]
    if MAIN not in paths and not wanted.get("mends") and any(path.startswith(f"{DROP_INS}/") for path in paths):
        text = with_include(read(MAIN) or read(PRISTINE) or "")
        if text != read(MAIN):
            found.append((MAIN, {"kind": "file", "text": text, "mode": "0644", "owner": 0, "group": 0}, None))
    for item in wanted.get("keys", []):
        home, uid, gid = home_of(item["user"])
        path = f"{home}/.ssh/authorized_keys"
        standing = look(path)
        if standing["kind"] == "link" or os.path.islink(os.path.dirname(path)):
            raise RefusedError(f"{path} is or lies behind a link; make it a file of {item['user']}")
        text = merged_keys(standing.get("text", ""), item)
        state = {"kind": "file", "text": text, "mode": "0600", "owner": uid, "group": gid}
        found.append((path, state if text else {"kind": "absent"}, item["user"]))
    return found


def found_text(found, path):
    """Return a file's text, and its state, as it will be so far; of none, no text."""
    state = next((state for other, state, _ in found if other == path), None) or look(path)
    if state["kind"] == "link":
        raise RefusedError(f"{path} is a link, and nothing is written through one")
    return state.get("text") or "", state


def changed_line(line, to):
    """Return a line with other words, its blanks kept; nothing where there are none."""
    return line.replace(line.strip(), to, 1) if to else ""


def differences(wanted):
    """Return (accounts, targets) that are not yet as wanted."""
    accounts = [item for item in wanted.get("accounts", []) if account_differs(item)]
    return accounts, [item for item in targets(wanted) if look(item[0]) != item[1] or folder_is_open(item)]


def folder_is_open(target):
    """Say whether the folder of a user's keys is not theirs alone: sshd then ignores the keys, or others read them."""
    path, state, user = target
    folder = os.path.dirname(path)
    if user is None or state["kind"] != "file" or not os.path.isdir(folder):
        return False
    status = os.stat(folder)
    return (stat.S_IMODE(status.st_mode), status.st_uid) != (0o700, state["owner"])


# What must not be


def staged_tree(folder, changes):
    """Lay sshd's configuration out in a folder as it would be: sshd judges it there before anything is changed."""
    if os.path.isdir(DROP_INS):
        shutil.copytree(DROP_INS, f"{folder}/sshd_config.d")
    else:
        os.mkdir(f"{folder}/sshd_config.d")
    texts = {path: state.get("text") for path, state, _ in changes}
    for path, text in texts.items():
        if os.path.dirname(path) == DROP_INS:
            place = f"{folder}/sshd_config.d/{os.path.basename(path)}"
            remove(place)
            if text is not None:
                write(place, text)
    main = texts.get(MAIN, read(MAIN)) or ""
    write(f"{folder}/sshd_config", INCLUDES.sub(rf"\g<1>{folder}/sshd_config.d/", main))
    return f"{folder}/sshd_config"


def refused_by_sshd(main, folder):
    """Return sshd's own words when it refuses a configuration, else ""."""
    os.makedirs("/run/sshd", mode=0o755, exist_ok=True)  # sshd -t wants it, and only a started sshd has made it
    status, told = run("sshd", "-t", "-f", main)
    return told.replace(folder, SSH).strip() or f"sshd -t ended with status {status}" if status else ""


def pam_problems(path, text):
    """Return what is wrong with a PAM file: modules and files that are not there, words PAM does not know."""
    found = []
    for number, line in enumerate(text.replace("\\\n", "  ").splitlines(), 1):
        place, line = f"{path} line {number}", line.split("#", 1)[0].strip()
        if not line:
            continue
        included = re.fullmatch(r"@include\s+(\S+)", line)
        rule = re.fullmatch(r"-?(auth|account|password|session)\s+(\[[^\]]*\]|\w+)\s+(\S+)(\s.*)?", line)
        if included or (rule and rule[2] in ("include", "substack")):
            name = included[1] if included else rule[3]
            if not os.path.exists(os.path.join("/etc/pam.d", name)):
                found.append(f"{place}: /etc/pam.d/{name} is missing")
        elif not rule:
            found.append(f"{place}: '{line}' is no rule")
        elif not rule[2].startswith("[") and rule[2] not in ("required", "requisite", "sufficient", "optional"):
            found.append(f"{place}: '{rule[2]}' is no control")
        elif not line.startswith("-") and not pam_module_exists(rule[3]):
            found.append(f"{place}: module {rule[3]} is not installed")
    return found


def pam_module_exists(name):
    """Say whether PAM can load a module."""
    if name.startswith("/"):
        return os.path.exists(name)
    roots = ["/lib", "/usr/lib"]
    folders = [f"{root}/{sub}" for root in roots if os.path.isdir(root) for sub in ["", *os.listdir(root)]]
    return any(os.path.exists(f"{folder}/security/{name}") for folder in folders)


def connection():
    """Return (user, address, own address, own port) of the ssh login that runs this; address "" where there is none."""
    pid = os.getpid()
    while pid > 1:
        try:
            with open(f"/proc/{pid}/environ", "rb") as handle:
                pairs = (item.split(b"=", 1) for item in handle.read().split(b"\0") if b"=" in item)
                environment = {key.decode(errors="replace"): value.decode(errors="replace") for key, value in pairs}
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as handle:
                pid = int(handle.read().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError, ValueError):
            break
        words = environment.get("SSH_CONNECTION", "").split()
        if len(words) == 4:
            places = (words[0], words[2], words[3]) if words[0] != "UNKNOWN" else ("", "", "")
            return environment.get("USER", ""), *places
    return os.environ.get("SUDO_USER", ""), "", "", ""


def pattern_matches(pattern, user, address):
    """Say whether an AllowUsers pattern, USER or USER@HOST, speaks of this login; an unknown address matches."""
    name, _, place = pattern.lstrip("!").partition("@")
    if not fnmatch.fnmatchcase(user, name):
        return False
    if not place or not address:
        return True
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(place, strict=False)
    except ValueError:
        return fnmatch.fnmatchcase(address, place) or not re.search(r"\d", place)  # a name: sshd would ask for it


def listed(patterns, names, address=""):
    """Say whether a list of sshd's patterns matches one of these names, negated ones considered."""
    hits = [item for item in patterns if any(pattern_matches(item, name, address) for name in names)]
    return bool(hits) and not any(item.startswith("!") for item in hits)


def groups_of(user):
    """Return the names of a user's groups; of one not made yet, its own."""
    try:
        return [grp.getgrgid(number).gr_name for number in os.getgrouplist(user, pwd.getpwnam(user).pw_gid)]
    except KeyError:
        return [user]


def locked_out(user, address, effective, groups, keys):
    """Return in words why a user could obviously not log in with a key. `effective` is `sshd -T`, as lines.

    `keys` is the number of keys the user will have, None where somebody else than we knows.
    """
    values = {}
    for line in effective:
        name, _, value = line.partition(" ")
        values.setdefault(name, []).append(value)
    words = {name: " ".join(found).split() for name, found in values.items()}
    found = []
    for name, names, place in (("users", [user], address), ("groups", groups, "")):
        allowed, denied = words.get(f"allow{name}", []), words.get(f"deny{name}", [])
        title = name.capitalize()
        if allowed and not listed(allowed, names, place):
            found.append(f"Allow{title} is '{' '.join(allowed)}' and leaves {user} out")
        if denied and listed(denied, names, place):
            found.append(f"Deny{title} is '{' '.join(denied)}' and names {user}")
    if values.get("pubkeyauthentication") == ["no"]:
        found.append("PubkeyAuthentication is 'no', and automation logs in with a key")
    if user == "root" and values.get("permitrootlogin") == ["no"]:
        found.append("PermitRootLogin is 'no', and root is who is connected")
    methods = words.get("authenticationmethods", ["any"])
    if not {"any", "publickey"} & set(methods):
        found.append(f"AuthenticationMethods is '{' '.join(methods)}': a key alone is not enough")
    elsewhere = {*words.get("authorizedkeyscommand", []), *words.get("trustedusercakeys", [])} - {"none"}
    if keys == 0 and not elsewhere:
        found.append(f"{user} would have no authorized key")
    return found


def count_keys(user, files, changes):
    """Return how many keys a user will have in the files that sshd reads."""
    home, _, _ = home_of(user)
    texts = {path: state.get("text") for path, state, _ in changes}
    total = 0
    for name in files:
        path = os.path.join(home, name.replace("%h", home).replace("%u", user).replace("%%", "%"))
        total += sum(bool(blob(line)) for line in (texts.get(path, read(path)) or "").splitlines())
    return total


def first_port(main):
    """Return where sshd would take a login; for a console, where none says it: what a Match allows may depend on it."""
    _, told = run("sshd", "-T", "-f", main)
    return next((line.split()[1] for line in told.splitlines() if re.fullmatch(r"port \d+", line)), "22")


def problems(wanted, changes):
    """Return in words why a change must not be made."""
    found, mends = [], wanted.get("mends")
    for path, state, _ in changes:
        if path.startswith("/etc/pam.d/") and state["kind"] == "file":
            words = pam_problems(path, state["text"])
            before = pam_problems(path, read(path) or "") if mends else []
            found += [item for item in words if numberless(item) not in map(numberless, before)]
    with tempfile.TemporaryDirectory(prefix="hikeshi-access-") as folder:
        main = staged_tree(folder, changes)
        for number, (path, state, _) in enumerate(changes):
            if path.startswith("/etc/sudoers") and state["kind"] == "file":
                write(f"{folder}/{number}", state["text"], 0o440)
                status, told = run("visudo", "-c", "-f", f"{folder}/{number}")
                if status:
                    found.append(told.replace(f"{folder}/{number}", path).strip())
        if mends and not any(path.startswith(f"{SSH}/") for path, _, _ in changes):
            return found
        words = refused_by_sshd(main, folder)
        if mends:  # who gets in then, a new login says
            return [*found, words] if words and not refused_by_sshd(MAIN, SSH) else found
        return [*found, words] if words else found + locked_out_now(wanted, changes, main)


def numberless(words):
    """Return what is wrong with a line, wherever it stands now."""
    return re.sub(r" line \d+:", ":", words)


def locked_out_now(wanted, changes, main):
    """Return in words who could obviously not log in with the configuration that is laid out at `main`."""
    found = []
    user, address, own, port = connection()
    for name in dict.fromkeys(name for name in (wanted["deploy"], user) if name):
        spec = f"user={name},host={address or 'localhost'},addr={address or '127.0.0.1'}"
        spec += f",laddr={own or '127.0.0.1'},lport={port or first_port(main)}"
        status, told = run("sshd", "-T", "-f", main, "-C", spec)
        if status:
            continue  # it passed sshd -t: a question that cannot be asked is no obvious lock-out
        effective = told.splitlines()
        files = next((line.split()[1:] for line in effective if line.startswith("authorizedkeysfile ")), [])
        keys = count_keys(name, files, changes) if name == wanted["deploy"] else None
        found += locked_out(name, address, effective, groups_of(name), keys)
    return found


# The change


def locked():
    """Hold the lock that apply, commit and undo share; it ends with the process."""
    for folder in (os.path.dirname(STATE), STATE):
        os.makedirs(folder, mode=0o700, exist_ok=True)
    handle = os.open(f"{STATE}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(handle, fcntl.LOCK_EX)
    return handle


def this_boot():
    """Return what tells this boot from others: a container has its machine's boot id, but its own PID 1."""
    boot_id, first = read("/proc/sys/kernel/random/boot_id"), read("/proc/1/stat")
    return f"{boot_id.strip()} {first.rsplit(')', 1)[1].split()[19]}"


def pending():
    """Return the change that is not committed, or None."""
    text = read(f"{STATE}/pending/change.json")
    return json.loads(text) if text else None


def undo_timer(token):
    """Return the name of the unit that undoes a change."""
    return f"hikeshi-access-undo-{token}"


def arm(token, seconds):
    """Let systemd undo the change after some seconds, whatever becomes of us."""
    status, told = run(
        "systemd-run", f"--unit={undo_timer(token)}", "--collect", f"--on-active={seconds}",
        "--timer-property=AccuracySec=100ms", "--property=Restart=on-failure", "--property=RestartSec=3",
        "--description=Undo an uncommitted change of the way in", PROGRAM, "undo", token,
    )  # fmt: skip
    if status:
        raise RefusedError(f"the undoing cannot be armed, so nothing is changed. systemd-run: {told.strip()}")


def disarm(token):
    """Stop the timer of a change; not its service, which may be us."""
    run("systemctl", "stop", f"{undo_timer(token)}.timer")


def record(change):
    """Keep everything needed to undo, on disk, then say by one rename that a change is pending."""
    folder = f"{STATE}/preparing"
    shutil.rmtree(folder, ignore_errors=True)
    os.mkdir(folder, 0o700)
    write(f"{folder}/change.json", json.dumps(change, indent=1))
    os.rename(folder, f"{STATE}/pending")
    sync(STATE)


def finish(outcome):
    """Say by one rename what became of the pending change; the former files stay there until the next one."""
    shutil.rmtree(f"{STATE}/{outcome}", ignore_errors=True)
    os.rename(f"{STATE}/pending", f"{STATE}/{outcome}")
    sync(STATE)


def reload_sshd():
    """Let a running sshd read its configuration again; sessions go on. Raises OSError with its words."""
    if run("systemctl", "is-active", "--quiet", UNIT)[0] == 0:
        status, told = run("systemctl", "reload", UNIT)
        if status:
            raise OSError(f"systemctl reload {UNIT}: {told.strip()}")


def place(accounts, changes):
    """Put the new in place."""
    for account in accounts:
        put_account(account)
    for path, state, user in changes:
        folder = os.path.dirname(path)
        if user and state["kind"] == "file":
            _, uid, gid = home_of(user)
            state = {**state, "owner": uid, "group": gid}
            os.makedirs(folder, mode=0o700, exist_ok=True)
            os.chown(folder, uid, gid)
            os.chmod(folder, 0o700)
        elif state["kind"] == "file":
            os.makedirs(folder, mode=0o755, exist_ok=True)
        put(path, state)


def put_back(change):
    """Put back what stood before a change, as often as needed."""
    for item in reversed(change["files"]):
        if os.path.isdir(os.path.dirname(item["path"])):
            put(item["path"], item["former"])
    with open(ACCOUNT_LOCK, "a", encoding="ascii") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        for user, lines in change["accounts"].items():
            for path, line in lines.items():
                put_account_line(path, user, line)
    for path in (*(item["path"] for item in change["files"]), *ACCOUNT_FILES):
        remove(temporary_of(path))


def apply(wanted, check=False):
    """Make a change, to be committed; return what was done."""
    lock = locked()
    standing = pending()
    if standing:
        left = standing["deadline"] - time.clock_gettime(time.CLOCK_BOOTTIME)
        when = f"in {left:.0f} s" if left > 0 and standing["boot"] == this_boot() else f"by '{PROGRAM} undo'"
        raise RefusedError(
            f"another change of the way in is pending, made {standing['at']} by {standing['by']}; it is undone {when} "
            f"unless it is committed. Run again then, or undo it now: {PROGRAM} undo"
        )
    accounts, changes, what = judged(wanted)
    if check or not what:
        return {"changed": bool(what), "what": what}
    token, seconds = secrets.token_hex(8), int(wanted["seconds"])
    change = change_of(token, accounts, changes, what, seconds)
    arm(token, seconds)
    record(change)
    try:
        place(accounts, changes)
        reload_sshd()
    except Exception as error:
        undo(token, lock)
        raise OSError(f"{error}. The former state stands again") from error
    return {"changed": True, "token": token, "seconds": seconds, "what": what}


def judged(wanted):
    """Return (accounts, targets) that are not yet as wanted, and their names; raise where that must not be made."""
    accounts, changes = differences(wanted)
    found = problems(wanted, changes) if accounts or changes else []
    if found:
        raise RefusedError("; ".join(found) + ". Nothing was changed")
    return accounts, changes, [item["name"] for item in accounts] + [path for path, _, _ in changes]


def change_of(token, accounts, changes, what, seconds):
    """Return all that is needed to undo a change, and who makes it when."""
    user, address, _, _ = connection()
    return {
        "token": token,
        "at": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        "by": f"{user or 'root'} from {address or 'here'}",
        "boot": this_boot(),
        "deadline": time.clock_gettime(time.CLOCK_BOOTTIME) + seconds,
        "what": what,
        "files": [{"path": path, "former": look(path)} for path, _, _ in changes],
        "accounts": {item["name"]: account_lines(item["name"]) for item in accounts},
    }


def mend_disk(wanted, check=False):
    """Make a change on a disk whose system does not run: what proves it is the login after the next boot.

    What a killed call left, or a system that stopped before its change was proved, is undone first.
    """
    if os.path.isdir(RUNNING):
        raise RefusedError("systemd runs here: a change of the way in has to be proved, so apply it")
    lock = locked()
    standing = pending()
    if standing and not check:
        put_back(standing)
        finish("undone")
    accounts, changes, what = judged(wanted)
    if what and not check:
        record(change_of(secrets.token_hex(8), accounts, changes, what, 0))
        place(accounts, changes)
        finish("committed")
    os.close(lock)
    return {"changed": bool(what), "what": what}


def commit(token):
    """Let a change stay."""
    lock = locked()
    standing = pending()
    if not standing or standing["token"] != token:
        raise RefusedError(f"no change {token} is pending: it was undone or committed before; see {STATE}")
    finish("committed")
    disarm(token)
    os.close(lock)
    return {"changed": True, "what": standing["what"]}


def undo(token="", lock=None, at_boot=False):
    """Undo the pending change, or only the one named; `at_boot`: only one that an earlier boot left."""
    lock = locked() if lock is None else lock
    standing = pending()
    if not standing or (token and standing["token"] != token) or (at_boot and standing["boot"] == this_boot()):
        return {"changed": False}
    put_back(standing)
    reload_sshd()
    finish("undone")
    disarm(standing["token"])
    os.close(lock)
    return {"changed": True, "what": standing["what"]}


def main(words):
    """Do what the words say; return the exit status."""
    verb, rest = (words or [""])[0], words[1:]
    try:
        if verb == "apply" and rest in ([], ["--check"]):
            done = apply(json.load(sys.stdin), check=bool(rest))
        elif verb == "mend-disk" and rest in ([], ["--check"]):
            done = mend_disk(json.load(sys.stdin), check=bool(rest))
        elif verb == "commit" and len(rest) == 1:
            done = commit(rest[0])
        elif verb == "undo" and len(rest) <= 1:
            done = undo(*rest)
        elif verb == "at-boot" and not rest:
            done = undo(at_boot=True)
        elif verb == "status" and not rest:
            standing = pending() or {}
            done = {key: standing[key] for key in ("token", "at", "by", "what") if key in standing}
        else:
            raise RefusedError(
                "usage: hikeshi-access apply [--check] | mend-disk [--check] | commit TOKEN | undo [TOKEN] | at-boot "
                "| status"
            )
    except RefusedError as why:
        print(why, file=sys.stderr)
        return 2
    except (OSError, subprocess.SubprocessError, ValueError, KeyError) as why:
        print(f"{type(why).__name__}: {why}", file=sys.stderr)
        return 1
    print(json.dumps(done))
    return 0


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main(sys.argv[1:]))
