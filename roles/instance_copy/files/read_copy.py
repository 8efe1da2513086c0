#!/usr/bin/python3
"""Read the disks of a copy, on a bench where they are mounted read-only: standard library only, nothing changed.

    read_copy.py measure DIR…     {DIR: {files, bytes}}: how much is there, by names and sizes alone
    read_copy.py read DIR…        {digest, disks: {DIR: {files, bytes}}, unreadable: [{path, why}]}: every byte is read

`files` counts everything but directories. `digest` is of all names, kinds, modes, owners, times, targets of links and
contents, in one order: of a disk that nobody wrote to it stays the same. No link is followed, no device or pipe opened.
Of what cannot be read the first 20 are named. Names are text: a byte that is no UTF-8 is written as \\xNN.
"""

import hashlib
import json
import os
import stat
import sys

CHUNK = 1 << 20
NAMED = 20


def text(path):
    """Return a name as text that every reader accepts."""
    return os.fsencode(path).decode(errors="backslashreplace")


class Reader:
    """Reads disks; `whole` says whether also their contents."""

    def __init__(self, whole):
        """Nothing is read yet."""
        self.whole, self.total, self.disks, self.unreadable = whole, hashlib.sha256(), {}, []

    def failed(self, error):
        """Note what cannot be read."""
        if len(self.unreadable) < NAMED:
            self.unreadable.append({"path": text(error.filename or ""), "why": error.strerror or str(error)})

    def disk(self, top):
        """Read one disk."""
        files = size = 0
        for folder, folders, names, handle in os.fwalk(os.fsencode(top), onerror=self.failed):
            folders.sort()
            for name in sorted(folders + names):
                path = os.path.join(folder, name)
                try:
                    found = os.lstat(name, dir_fd=handle)
                    files += not stat.S_ISDIR(found.st_mode)
                    size += found.st_size if stat.S_ISREG(found.st_mode) else 0
                    if self.whole:
                        self.entry(path, name, found, handle)
                except OSError as error:
                    error.filename = path
                    self.failed(error)
        self.disks[top] = {"files": files, "bytes": size}

    def entry(self, path, name, found, handle):
        """Take one name, and what it is of, into the digest."""
        regular, link = stat.S_ISREG(found.st_mode), stat.S_ISLNK(found.st_mode)
        about = (found.st_mode, found.st_uid, found.st_gid, found.st_mtime_ns, found.st_rdev, found.st_size * regular)
        self.total.update(b"%d %s " % (len(path), path) + " ".join(map(str, about)).encode() + b"\0")
        if link:
            self.total.update(os.readlink(name, dir_fd=handle) + b"\0")
        if regular:
            with os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=handle), "rb", 0) as file:
                while piece := file.read(CHUNK):
                    self.total.update(piece)


def main(words):
    """Read what the words say; return the exit status."""
    verb, tops = (words or [""])[0], words[1:]
    if verb not in ("measure", "read") or not tops:
        print("usage: read_copy.py measure|read DIR…", file=sys.stderr)
        return 2
    reader = Reader(verb == "read")
    for top in tops:
        reader.disk(top)
    whole = {"digest": reader.total.hexdigest(), "disks": reader.disks, "unreadable": reader.unreadable}
    print(json.dumps(whole if reader.whole else reader.disks))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
