#!/usr/bin/python3
"""Make room where logs lie, and lose no line: each is copied, compared, and only then let go.

    state: moved      the oldest of the rotated logs stand below `keep`, as many as it takes for `free_mib` to be free
    state: reopened   the unit writes to files that have names; what it held of deleted ones stands below `keep`

Nothing is touched but ordinary files that lie directly in `directory`: of those with a name, what the pattern `rotated`
matches and the unit does not write to; of the deleted ones, what the pattern `written` matches and the unit's main
process holds, until the command `reopen` makes it let them go. A copy has the path of its original below `keep`; an
older one of that name is numbered, as `cp --backup=numbered` does.

Where `keep` is on the same disk, copies are compressed, and their names end in .gz: that of a deleted log stands below
`keep`, that of a rotated one beside it, and one that is compressed already stays as it is.
"""

import errno
import gzip
import hashlib
import os
import re
import stat
import subprocess
import time
import zlib
from contextlib import ExitStack, nullcontext, suppress

CHUNK = 1 << 20
ROOM = 4  # times what is copied must be free where it goes: a second full disk would help nobody
RESERVE = 1 << 20  # stays free on a disk that is full already while logs are compressed there
WAIT_S = 10
SETTLE_S = 0.5  # the workers follow their main process
DELETED = " (deleted)"


class Refused(Exception):
    """Nothing was let go; the words say why."""


class NoRoom(Refused):
    """What is compressed does not fit beside its original."""


def free(path):
    """Return how many bytes are free on the disk of a path."""
    numbers = os.statvfs(path)
    return numbers.f_bavail * numbers.f_frsize


def room(handle):
    """Return how many bytes root may still write to the disk of an open file: what is reserved for it is for this."""
    numbers = os.fstatvfs(handle.fileno())
    return numbers.f_bfree * numbers.f_frsize


def main_pid(unit):
    """Return the PID of a unit's main process; 0 when it does not run, or nothing does."""
    shown = subprocess.run(
        ["systemctl", "show", "--property=MainPID", "--value", "--", unit], check=False, capture_output=True
    )
    return int(shown.stdout.strip() or 0)


def let_reopen(words):
    """Have a service open its logs by their names again; return what was said of it, which need not be true.

    MariaDB says that it failed where the old log could not be ended for want of room, and has opened the new one.
    """
    told = subprocess.run(
        words, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace", timeout=WAIT_S
    )
    return told.stdout.strip()[-300:]


def held(pid):
    """Yield (descriptor's path, link, status) of each file that a process holds open."""
    for number in os.listdir(f"/proc/{pid}/fd") if pid else ():
        path = f"/proc/{pid}/fd/{number}"
        try:
            yield path, os.readlink(path), os.stat(path)
        except FileNotFoundError:
            continue  # closed while we looked


def deleted(pid, directory, pattern):
    """Return the deleted logs of a directory that a process holds: (device, inode) → (descriptor's path, name)."""
    found = {}
    for path, link, status in held(pid):
        if link.endswith(DELETED) and stat.S_ISREG(status.st_mode) and status.st_nlink == 0:
            folder, name = os.path.split(link[: -len(DELETED)])
            if folder == directory and re.fullmatch(pattern, name):
                taken = any(name == other for _, other in found.values())
                found.setdefault((status.st_dev, status.st_ino), (path, f"{name}.{status.st_ino}" if taken else name))
    return found


def rotated(directory, pattern, pid):
    """Return the names of rotated logs, the oldest first, without those that a process still writes to."""
    writing = {(status.st_dev, status.st_ino) for _, _, status in held(pid)}
    found = []
    for entry in os.scandir(directory):
        status = entry.stat(follow_symlinks=False)
        log = re.fullmatch(pattern, entry.name) and stat.S_ISREG(status.st_mode) and status.st_nlink == 1
        if log and (status.st_dev, status.st_ino) not in writing:
            found.append((status.st_mtime_ns, entry.name))
    found.sort(key=lambda item: item[1], reverse=True)  # where the times say nothing, access.log.2 is older than .1
    return [name for _, name in sorted(found, key=lambda item: item[0])]


def standing(path):
    """Return a folder, or the nearest above it that there is."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def one_disk(directory, keep):
    """Say whether what is moved from a directory to where logs are kept would free nothing."""
    return os.stat(standing(keep)).st_dev == os.stat(directory).st_dev


def folder_for(directory, keep, size):
    """Return the folder for copies of what lies in a directory; refuse one without room for such a size."""
    left = free(standing(keep))
    if left < ROOM * size:
        raise Refused(f"{keep} has {left >> 20} MiB free, not {ROOM} times the {size >> 20} MiB to keep")
    folder = os.path.join(keep, directory.lstrip("/"))
    os.makedirs(folder, exist_ok=True)
    return folder


def digest(handle, size):
    """Return the digest of the first bytes of an open file."""
    handle.seek(0)
    total = hashlib.sha256()
    while size > 0 and (chunk := handle.read(min(CHUNK, size))):
        total.update(chunk)
        size -= len(chunk)
    return total.digest()


def same(source, handle, size, packed):
    """Say whether a copy begins with the first bytes of an open file."""
    handle.seek(0)
    try:
        return digest(gzip.GzipFile("", "rb", fileobj=handle) if packed else handle, size) == digest(source, size)
    except (gzip.BadGzipFile, EOFError, zlib.error):
        return False


def make_way(source, target, packed):
    """Number what stands at a target, unless it is the same: a run that was killed left it."""
    if not os.path.lexists(target):
        return
    with open(target, "rb") as there:
        if same(source, there, os.fstat(source.fileno()).st_size + 1, packed):
            return
    number = 1
    while os.path.lexists(f"{target}.~{number}~"):
        number += 1
    os.rename(target, f"{target}.~{number}~")


def copy(source, target, packed):
    """Copy an open file to a path, with owner, mode and times: it stands there whole and on the disk, or not at all.

    Return how many bytes it had; it may go on growing.
    """
    partial = f"{target}.part"
    with suppress(FileNotFoundError):
        os.unlink(partial)
    try:
        with open(partial, "xb+") as handle:
            size = pour(source, handle, packed, 0, RESERVE)
        os.replace(partial, target)
    except OSError as error:
        # Even to give up takes room: what compressed it writes its last bytes.
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        log = f"a log of {os.fstat(source.fileno()).st_size >> 10} KiB"
        raise NoRoom(
            f"{partial}: nothing is free, too little to {'compress' if packed else 'keep'} {log}; it stays where it is"
        ) from error
    finally:
        with suppress(FileNotFoundError):
            os.unlink(partial)
    sync(os.path.dirname(target))
    return size


def pour(source, handle, packed, start, reserve):
    """Add what an open file has from `start` on to the end of its copy, and compare all; return its size."""
    status, size = os.fstat(source.fileno()), start
    source.seek(start)
    handle.seek(0, os.SEEK_END)
    packer = gzip.GzipFile("", "wb", 6, handle) if packed else nullcontext(handle)
    with packer as writer:
        while chunk := source.read(CHUNK):
            if packed and room(handle) < reserve + len(chunk):
                raise NoRoom(
                    f"{handle.name}: {room(handle) >> 10} KiB are free, too little to compress a log of "
                    f"{status.st_size >> 10} KiB and leave {reserve >> 10} KiB; the original stays where it is"
                )
            writer.write(chunk)
            size += len(chunk)
    handle.flush()
    os.fchown(handle.fileno(), status.st_uid, status.st_gid)
    os.fchmod(handle.fileno(), stat.S_IMODE(status.st_mode))
    os.utime(handle.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
    os.fsync(handle.fileno())
    if not same(source, handle, size, packed):
        raise Refused(f"{handle.name} is not what was copied; the original stays where it is")
    return size


def sync(folder):
    """Bring a folder's own entries to the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def move(directory, keep, pattern, unit, wanted, check):
    """Move the oldest rotated logs away until so many bytes are free; return their names."""
    lacking, moved, by_size = wanted - free(directory), [], False
    packed = one_disk(directory, keep)
    names = [name for name in rotated(directory, pattern, main_pid(unit)) if not (packed and name.endswith(".gz"))]
    while names and lacking > 0:
        try:
            lacking -= move_one(directory, names[0], keep, packed, check)
        except NoRoom:
            if by_size and not moved:
                raise
            if by_size:
                break
            # What the small ones free may be room for the large ones.
            names.sort(key=lambda name: os.lstat(os.path.join(directory, name)).st_size)
            by_size = True
            continue
        moved.append(names.pop(0))
    return moved


def move_one(directory, name, keep, packed, check):
    """Move one rotated log away, or compress it where it lies; return how many bytes that frees."""
    path = os.path.join(directory, name)
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as source:
        before = os.fstat(source.fileno())
        if check:
            return before.st_blocks * 512
        target = f"{path}.gz" if packed else os.path.join(folder_for(directory, keep, before.st_size), name)
        make_way(source, target, packed)
        copy(source, target, packed)
        after = os.stat(path, follow_symlinks=False)
        told = [(item.st_ino, item.st_size, item.st_mtime_ns) for item in (before, after)]
        if told[0] != told[1]:
            os.unlink(target)
            raise Refused(f"{path} changed while it was copied; it stays where it is")
        os.unlink(path)
        sync(directory)
    return (before.st_blocks - (os.stat(target).st_blocks if packed else 0)) * 512


def reopen(directory, keep, pattern, unit, words, check):
    """Keep what a unit holds of deleted logs and let it write to new ones; return the names of the deleted ones."""
    pid = main_pid(unit)
    files = deleted(pid, directory, pattern)
    if not files or check:
        return [name for _, name in files.values()]
    packed = one_disk(directory, keep)
    with ExitStack() as stack, ExitStack() as undo:
        # Held by us as well, whatever the unit does.
        sources = [(stack.enter_context(open(path, "rb")), name) for path, name in files.values()]
        size = sum(os.fstat(source.fileno()).st_size for source, _ in sources)
        folder = folder_for(directory, keep, 0 if packed else size)
        copies = []
        for source, name in sources:
            target = os.path.join(folder, f"{name}.gz" if packed else name)
            make_way(source, target, packed)
            copies.append((source, target, copy(source, target, packed)))
            undo.callback(os.unlink, target)  # where the next one does not fit, this one only takes room
        undo.pop_all()
        told = let_reopen(words)
        end = time.monotonic() + WAIT_S
        while files.keys() & deleted(pid, directory, pattern).keys():
            if time.monotonic() > end:
                raise Refused(
                    f"{unit} still holds its deleted logs; what stands in them until now is kept in {folder}. {told}"
                )
            time.sleep(0.1)
        time.sleep(SETTLE_S)
        # Lines that were written between the copy and the signal, whatever room they take.
        for source, target, size in copies:
            if os.fstat(source.fileno()).st_size > size:
                with open(target, "rb+") as handle:
                    pour(source, handle, packed, size, 0)
    return [name for _, name in sources]


def main():
    """Ansible's entry point."""
    from ansible.module_utils.basic import AnsibleModule

    module = AnsibleModule(
        argument_spec={
            "state": {"choices": ["moved", "reopened"], "required": True},
            "directory": {"type": "path", "required": True},
            "rotated": {"type": "str"},
            "written": {"type": "str"},
            "reopen": {"type": "list", "elements": "str"},
            "unit": {"type": "str", "required": True},
            "keep": {"type": "path", "required": True},
            "free_mib": {"type": "int", "default": 0},
        },
        required_if=[("state", "moved", ("rotated",)), ("state", "reopened", ("written", "reopen"))],
        supports_check_mode=True,
    )
    given = module.params
    directory, keep, unit, check = given["directory"], given["keep"], given["unit"], module.check_mode
    os.umask(0o077)  # logs hold customers' addresses
    try:
        if given["state"] == "moved":
            kept = move(directory, keep, given["rotated"], unit, given["free_mib"] << 20, check)
        else:
            kept = reopen(directory, keep, given["written"], unit, given["reopen"], check)
    except Refused as error:
        module.fail_json(msg=str(error))
    except (OSError, subprocess.SubprocessError) as error:
        module.fail_json(msg=f"{directory}: {error}")
    module.exit_json(changed=bool(kept), kept=kept)


if __name__ == "__main__":
    main()
