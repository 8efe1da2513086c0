"""Evidence of a disk whose system does not run, as its files tell it: standard library only, nothing changed.

The same subjects are asked about as on a host, and told are the fields of schema 1 that a rule can judge there:

    units      as on a host, by the files that make them: load, enabled and fragment; active, sub and result are "", for
               nobody knows. Left out: what only a generator makes, of /etc/fstab or /etc/init.d
    mounts     path → {mounted: false, source, entries}: nothing is mounted, so what lies below is not the volume's
    paths, trees    as on a host, owners by the disk's own tables of accounts
    locks      as on a host; no process lives, so none is alive
    disks, names, configs, abandoned, errors, additions: empty

No link leads out of the disk, and what is not there to be known is not told.
"""

import errno
import os
import re
import stat
import time

TREE_LIMIT, WRONG_LIMIT = 20000, 50
LOCK_LIMIT = 64
NOT_ON_DISK = ("/proc/", "/sys/", "/dev/", "/run/")


class Disk:
    """Reads a disk through a State whose root it is."""

    def __init__(self, state, tools, subjects, facts):
        """`tools` is the module that State comes from; `facts` is what it told of this disk."""
        self.state, self.tools, self.subjects, self.facts = state, tools, subjects, facts
        state.accounts()  # owners have names

    def asked(self, key):
        """Return all that subjects ask about under a key."""
        return [item for subject in self.subjects for item in subject.get(key) or []]

    def units(self):
        """Return what files make of each unit that subjects ask about."""
        found = {}
        for name in dict.fromkeys(unit["name"] for unit in self.asked("units")):
            told = self.facts.get(f"unit:{name}")
            if told is None and self.generated(name):
                continue
            load, enabled = (told["load"], told["enabled"]) if told else ("not-found", "")
            fragment = told["fragment"] if told else ""
            found[name] = {
                "load": load, "active": "", "sub": "", "enabled": enabled, "result": "", "fragment": fragment,
                "after": [], "log": [],
            }  # fmt: skip
        return found

    def generated(self, name):
        """Say whether a unit without a file may be made at boot."""
        stem, _, kind = name.rpartition(".")
        if kind == "mount":
            lines = (line.split() for line in (self.state.read("/etc/fstab") or "").splitlines())
            return any(len(words) > 1 and words[0][0] != "#" and escaped(words[1]) == stem for words in lines)
        return kind == "service" and self.state.exists(f"/etc/init.d/{stem}")

    def describe(self, path):
        """Return what lies at a path, without following a link at its end."""
        try:
            handle = self.state.reach(path, follow=False)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return {"kind": "missing"}
            self.state.collector.note(path, error.strerror)
            return {"kind": "unreadable"}
        try:
            status = os.fstat(handle)
            kind = self.tools.kind_of(status)
            return {
                "kind": kind,
                "mode": f"{stat.S_IMODE(status.st_mode):04o}",
                "owner": self.state.users.get(status.st_uid, str(status.st_uid)),
                "group": self.state.groups.get(status.st_gid, str(status.st_gid)),
                "size": status.st_size,
                "link": self.tools.text(os.readlink("", dir_fd=handle)) if kind == "link" else "",
                "leads_to": self.end_of(path) if kind == "link" else "",
            }
        finally:
            os.close(handle)

    def end_of(self, path):
        """Return the kind of what a link leads to within the disk."""
        with self.state.reached(path) as handle:
            return "missing" if handle is None else self.tools.kind_of(os.fstat(handle))

    def walk(self, tree):
        """Return directories and files below a tree whose modes lack bits they should have; follows no link."""
        wanted = {"directory": int(tree["directories"], 8), "file": int(tree["files"], 8)}
        seen, wrong, stack = 0, [], [tree["path"]]
        while stack:
            path = stack.pop()
            for name in self.state.names(path):
                seen += 1
                if seen > TREE_LIMIT or len(wrong) >= WRONG_LIMIT:
                    return {"seen": seen, "wrong": wrong, "complete": False}
                below = f"{path}/{name}"
                with self.state.reached(below, follow=False) as handle:
                    status = os.fstat(handle) if handle is not None else None
                kind = self.tools.kind_of(status) if status else "other"
                if kind not in wanted:
                    continue
                mode = stat.S_IMODE(status.st_mode)
                if mode & wanted[kind] != wanted[kind]:
                    wrong.append({"path": self.tools.text(below), "kind": kind, "mode": f"{mode:04o}"})
                if kind == "directory":
                    stack.append(below)
        return {"seen": seen, "wrong": wrong, "complete": True}

    def lock(self, path):
        """Return what a lock file says, whose owner is dead whoever it was."""
        with self.state.reached(path, follow=False) as handle:
            status = os.fstat(handle) if handle is not None else None
        if status is None or not stat.S_ISREG(status.st_mode):
            return {"present": status is not None, "pid": None, "alive": False, "age_s": 0.0, "owner_age_s": None}
        number = re.fullmatch(r"\s*([1-9][0-9]{0,9})\s*", (self.state.read(path) or "")[:LOCK_LIMIT])
        age = round(time.time() - status.st_mtime, 1)
        return {"present": True, "pid": int(number[1]) if number else None, "alive": False, "age_s": age,
                "owner_age_s": None}  # fmt: skip


def escaped(path):
    """Return the name of the unit that mounts a path, without its ending, as systemd makes it."""
    parts = [part for part in path.split("/") if part]
    return "-".join(re.sub("[^A-Za-z0-9:_.]", hexadecimal, part) for part in parts) or "-"


def hexadecimal(found):
    """Return a character as systemd writes it in the name of a unit."""
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(found[0]))


def collect(state, tools, subjects, facts):
    """Return the evidence of the disk at the root of a State, of which `facts` are known already."""
    disk = Disk(state, tools, subjects, facts)
    mounts = {mount["path"]: {"mounted": False, "source": "", "entries": []} for mount in disk.asked("mounts")}
    paths, locks = ([item["path"] for item in disk.asked(key)] for key in ("paths", "locks"))
    return {
        "units": disk.units(),
        "mounts": mounts,
        "paths": {path: disk.describe(path) for path in paths if not path.startswith(NOT_ON_DISK)},
        "trees": {tree["path"]: disk.walk(tree) for tree in disk.asked("trees") if tree["path"] not in mounts},
        "locks": {path: disk.lock(path) for path in locks if not path.startswith(NOT_ON_DISK)},
        "configs": {}, "names": {}, "disks": {}, "abandoned": [], "errors": [], "additions": [],
    }  # fmt: skip
