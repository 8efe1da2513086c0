#!/usr/bin/python3
"""Put one path back to what the baseline says, or back to what stood there before; whole, or not at all.

    step: file           the path is a file with this text, mode, owner and group
    step: link           the path is a link to this target
    step: package_file   the path is what its package's own archive, kept by apt, has there
    step: move_aside     nothing stands there
    step: put_back       the newest of these that was done to this path is undone

In check mode the answer says what would be done: `different`, whether anything, and `keep`, whether something stands
there that has to be kept first. That is the caller's work (host_base's `keep`): nothing is replaced or removed here
that does not stand below `kept` as well. What was done is noted in `record`, a line of JSON each: path, step, at (UTC)
copy, the number that cp gives to this copy as soon as it keeps the next one, or null where nothing had stood there, and
trial, the mark that the caller gave, if any: put_back with a mark undoes only what bears it.

No link on the way to the path is followed, and no directory is ever replaced or removed.
"""

import base64
import binascii
import grp
import hashlib
import json
import os
import pwd
import re
import stat
import subprocess
import tarfile
import time
from contextlib import suppress
from subprocess import DEVNULL, PIPE
from typing import NamedTuple

ARCHIVES = "/var/cache/apt/archives"
# In the folder itself, because only there a rename is all or nothing; hidden, so that no service reads it.
PARTIAL = ".hikeshi-restore"
PACKAGE = re.compile(r"[a-z0-9][a-z0-9.+-]+(:[a-z0-9-]+)?")


class Refused(Exception):
    """Nothing was changed; the words say why."""


class File(NamedTuple):
    """A file as it should be; without a time it gets that of its writing."""

    text: bytes
    mode: int
    uid: int
    gid: int
    mtime: "int | None" = None


class Link(NamedTuple):
    """A link as it should be."""

    target: str


class Nothing(NamedTuple):
    """There should be nothing."""


class Copy(NamedTuple):
    """It should be again what was kept as this path."""

    path: str


def enter(path, store):
    """Make the folder of a path the current one, following no link, and return the path's name in it."""
    folder, name = os.path.split(path)
    if (
        not path.startswith("/")
        or path.startswith("//")
        or os.path.normpath(path) != path
        or re.search(r"[\n\0]", path)
    ):
        raise Refused(f"path is '{path}'; allowed: an absolute path without '..', '.', doubled slashes or line breaks")
    if name in ("", PARTIAL) or path.startswith(f"{store}/"):
        raise Refused(f"path is '{path}', which is this program's own, or no name of a file")
    here = os.open("/", os.O_PATH | os.O_DIRECTORY)
    for part in folder.split("/"):
        try:
            below = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=here) if part else os.dup(here)
        except FileNotFoundError as error:
            raise Refused(
                f"{folder} does not exist: make the directory first, with its right owner and mode"
            ) from error
        except NotADirectoryError as error:
            real = os.path.realpath(folder)
            if real == folder:
                raise Refused(f"{folder} is no directory: {path} cannot stand there") from error
            raise Refused(f"{folder} leads to {real}: nothing is written through a link; name {real}/{name}") from error
        finally:
            os.close(here)
        here = below
    os.fchdir(here)
    os.close(here)
    return name


def look(name, path):
    """Return the status of what stands there, None where nothing does; refuse a directory."""
    try:
        status = os.lstat(name)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(status.st_mode):
        raise Refused(f"{path} is a directory, and a directory is never replaced or removed: look what it holds")
    return status


def number(text, look_up, what):
    """Return the number of a user or group, given as name or number."""
    if text.isdecimal():
        return int(text)
    try:
        return look_up(text)
    except KeyError as error:
        raise Refused(f"{what} is '{text}', and this host has none of that name") from error


def uid(text):
    """Return a user's number."""
    return number(text, lambda name: pwd.getpwnam(name).pw_uid, "owner")


def gid(text):
    """Return a group's number."""
    return number(text, lambda name: grp.getgrnam(name).gr_gid, "group")


def given_file(given):
    """Return the file that the baseline describes; its text must be the one that was recorded."""
    if not re.fullmatch(r"[0-7]{4}", given["mode"]):
        raise Refused(f"mode is '{given['mode']}'; allowed: four octal digits")
    try:
        text = base64.b64decode(given["text"], validate=True)
    except binascii.Error as error:
        raise Refused(f"text is not base64: {error}") from error
    if hashlib.sha256(text).hexdigest() != given["sha256"]:
        raise Refused(f"text is not what was recorded as {given['sha256']}: the baseline's copy was changed or cut off")
    return File(text, int(given["mode"], 8), uid(given["owner"]), gid(given["group"]))


def told(words):
    """Return what a command says, None where it fails."""
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else None


def installed(package):
    """Return name, version and architecture of an installed package."""
    if not PACKAGE.fullmatch(package):
        raise Refused(f"package is '{package}'; allowed: the name of a package, such as nginx-common or libc6:amd64")
    form = "--showformat=${Package} ${Version} ${Architecture} ${db:Status-Status}\n"
    lines = (told(["dpkg-query", "--show", form, "--", package]) or "").splitlines()
    found = [words for words in map(str.split, lines) if len(words) == 4 and words[3] == "installed"]
    if len(found) != 1:
        raise Refused(f"{package} is installed {len(found)} times; needed: once (name its architecture: PACKAGE:ARCH)")
    return found[0][:3]


def archive(package):
    """Return the archive of exactly the installed version; where there is none, say which command fetches it."""
    name, version, architecture = installed(package)
    path = f"{ARCHIVES}/{name}_{version.replace(':', '%3a')}_{architecture}.deb"
    if not os.path.isfile(path):
        raise Refused(
            f"{path} is not there, and nothing is fetched unasked; on the host: "
            f"cd {ARCHIVES} && apt-get download {package}={version}"
        )
    form = "--showformat=${Package} ${Version} ${Architecture}"
    if (told(["dpkg-deb", "--show", form, path]) or "").split() != [name, version, architecture]:
        raise Refused(f"{path} is damaged, or not {name} {version} for {architecture}: remove it and fetch it again")
    return path


def names_in_archive(path):
    """Return the names under which an archive may hold a path: where /lib is a link, older ones still name that."""
    names, short = {f".{path}"}, path.removeprefix("/usr")
    if short != path and os.path.islink("/" + short.split("/")[1]):
        names.add(f".{short}")
    return names


def packaged(path, package):
    """Return a file or link as its package's archive has it."""
    deb, names = archive(package), names_in_archive(path)
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=PIPE, stderr=DEVNULL) as unpacking:
        try:
            with tarfile.open(fileobj=unpacking.stdout, mode="r|") as members:
                for member in members:
                    if member.name in names or f"./{member.name}" in names:
                        return shipped(path, member, members)
        except tarfile.TarError as error:
            raise Refused(f"{deb} cannot be read: {error}; remove it and fetch it again") from error
    raise Refused(f"{deb} has no {path}: another package's, or a script of the package made it")


def shipped(path, member, members):
    """Return what a member of an archive is, with the owner and mode that the administrator told dpkg to give it."""
    if member.issym():
        return Link(member.linkname)
    if not member.isfile():
        raise Refused(f"{path} is neither a file nor a link in its package")
    text = members.extractfile(member).read()
    override = (told(["dpkg-statoverride", "--list", path]) or "").split()
    if len(override) >= 3:
        owner, group, mode = override[0].lstrip("#"), override[1].lstrip("#"), int(override[2], 8)
    else:
        owner, group, mode = member.uname or str(member.uid), member.gname or str(member.gid), member.mode & 0o7777
    return File(text, mode, uid(owner), gid(group), int(member.mtime))


def read_record(record):
    """Return what was done and not undone, the oldest first."""
    try:
        with open(record, encoding="utf-8") as handle:
            return [json.loads(line) for line in handle]
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise Refused(f"{record} cannot be read: {error}") from error


def write_record(record, entries):
    """Replace the record; it is on the disk before anything is changed."""
    os.makedirs(os.path.dirname(record), mode=0o700, exist_ok=True)
    with open(f"{record}.part", "w", encoding="utf-8") as handle:
        handle.writelines(json.dumps(entry, sort_keys=True) + "\n" for entry in entries)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(f"{record}.part", record)
    sync(os.path.dirname(record))


def next_number(copy):
    """Return the number that `cp --backup=numbered` will give to a copy when it keeps the next one there."""
    folder, name = os.path.split(copy)
    pattern = re.compile(re.escape(name) + r"\.~([1-9][0-9]*)~")
    found = [pattern.fullmatch(other) for other in (os.listdir(folder) if os.path.isdir(folder) else ())]
    return max((int(match[1]) for match in found if match), default=0) + 1


def kept_as(copy, wanted):
    """Return where the copy of this number stands now."""
    if os.path.lexists(f"{copy}.~{wanted}~"):
        return f"{copy}.~{wanted}~"
    if os.path.lexists(copy) and next_number(copy) == wanted:
        return copy
    raise Refused(f"{copy}.~{wanted}~, which was kept, is not there any more: what stood there cannot be put back")


def same(name, status, wanted):
    """Say whether what stands there is what is wanted."""
    if status is None or isinstance(wanted, (Nothing, Copy)):
        return status is None and isinstance(wanted, Nothing)
    if isinstance(wanted, Link):
        return stat.S_ISLNK(status.st_mode) and os.readlink(name) == wanted.target
    told_apart = (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_size)
    if not stat.S_ISREG(status.st_mode) or told_apart != (wanted.mode, wanted.uid, wanted.gid, len(wanted.text)):
        return False
    with os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as handle:
        return handle.read(len(wanted.text) + 1) == wanted.text


def check_kept(status, path, copy):
    """Refuse to touch what has no copy, or was changed since it was kept."""
    try:
        other = os.lstat(copy)
    except FileNotFoundError as error:
        raise Refused(f"{path} stands there and was not kept as {copy}") from error
    # Whole seconds: the disk of the copies may know no smaller ones.
    seen = [(item.st_mode, item.st_uid, item.st_gid, item.st_size, int(item.st_mtime)) for item in (status, other)]
    if seen[0] != seen[1]:
        raise Refused(f"{path} changed while it was kept as {copy}: take the step again")


def make(wanted):
    """Make what is wanted under the name PARTIAL."""
    if isinstance(wanted, Link):
        os.symlink(wanted.target, PARTIAL)
        return
    if isinstance(wanted, Copy):
        words = ["cp", "--archive", "--no-target-directory", "--", wanted.path, PARTIAL]
        subprocess.run(words, check=True, capture_output=True, text=True)
        if not stat.S_ISREG(os.lstat(PARTIAL).st_mode):
            return
        handle = os.open(PARTIAL, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        return
    with os.fdopen(os.open(PARTIAL, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as handle:
        handle.write(wanted.text)
        handle.flush()
        os.fchown(handle.fileno(), wanted.uid, wanted.gid)
        os.fchmod(handle.fileno(), wanted.mode)  # after chown, which takes setuid away
        if wanted.mtime is not None:
            os.utime(handle.fileno(), (wanted.mtime, wanted.mtime))
        os.fsync(handle.fileno())


def put(name, wanted):
    """Have what is wanted stand there, in one moment."""
    if isinstance(wanted, Nothing):
        with suppress(FileNotFoundError):
            os.unlink(name)
        sync(".")
        return
    with suppress(FileNotFoundError):
        os.unlink(PARTIAL)  # a run that was killed left it
    try:
        make(wanted)
        os.rename(PARTIAL, name)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(PARTIAL)
    sync(".")


def sync(folder):
    """Bring a folder's own entries to the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def restore(given, check):
    """Take the step; return whether anything was different, and whether something has to be kept first."""
    path, step, record, copy = given["path"], given["step"], given["record"], given["kept"] + given["path"]
    name = enter(path, os.path.dirname(record))
    status, entries = look(name, path), read_record(record)
    if step == "put_back":
        mine = (
            place
            for place, entry in enumerate(entries)
            if entry["path"] == path and given["trial"] in ("", entry.get("trial", ""))
        )
        newest = max(mine, default=None)
        if newest is None:
            return False, False
        entry = entries.pop(newest)
        # Its number must be known before what stands there now is kept beside it.
        wanted = Nothing() if entry["copy"] is None else Copy(kept_as(copy, entry["copy"]))
    else:
        wanted = {
            "file": lambda: given_file(given),
            "link": lambda: Link(given["target"]),
            "package_file": lambda: packaged(path, given["package"]),
            "move_aside": Nothing,
        }[step]()
        if same(name, status, wanted):
            return False, False
    if check:
        return True, status is not None
    if status is not None:
        check_kept(status, path, copy)
    if step == "put_back":
        put(name, wanted)
        write_record(record, entries)
    else:
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        noted = None if status is None else next_number(copy)
        entry = {"path": path, "step": step, "at": at, "copy": noted, "trial": given["trial"]}
        write_record(record, [*entries, entry])
        put(name, wanted)
    return True, status is not None


def main():
    """Ansible's entry point."""
    from ansible.module_utils.basic import AnsibleModule

    module = AnsibleModule(
        argument_spec={
            "path": {"type": "str", "required": True},
            "step": {"choices": ["file", "link", "package_file", "move_aside", "put_back"], "required": True},
            "text": {"type": "str", "no_log": True},  # base64; keeps it out of the host's log as well
            "sha256": {"type": "str"},
            "mode": {"type": "str"},
            "owner": {"type": "str"},
            "group": {"type": "str"},
            "target": {"type": "str"},
            "package": {"type": "str"},
            "trial": {"type": "str", "default": ""},
            "kept": {"type": "str", "required": True},
            "record": {"type": "str", "required": True},
        },
        required_if=[
            ("step", "file", ["text", "sha256", "mode", "owner", "group"]),
            ("step", "link", ["target"]),
            ("step", "package_file", ["package"]),
        ],
        supports_check_mode=True,
    )
    os.umask(0o077)
    path = module.params["path"]
    try:
        different, keep = restore(module.params, module.check_mode)
    except Refused as error:
        module.fail_json(msg=str(error))
    except subprocess.CalledProcessError as error:
        module.fail_json(msg=f"{path}: {error.stderr.strip() or error}")
    except OSError as error:
        module.fail_json(msg=f"{path}: {error}")
    module.exit_json(changed=different, different=different, keep=keep)


if __name__ == "__main__":
    main()
