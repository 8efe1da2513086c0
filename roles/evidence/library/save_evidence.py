#!/usr/bin/python3
"""Read what stopping a unit or holding a job takes away: state, log and spool. Standard library only, nothing changed.

Schema 1 of the returned `hikeshi`:

    schema, at       1, seconds since the epoch (UTC)
    units    name → {state, log}: what systemd says of the unit, property by property; its newest log lines, in order
    spools   path → text of each file in a spool; of an at job, the values of its environment are left out
    unseen   [{source, why}]: what could not be read, or not wholly

Names and texts are text: a byte that is no UTF-8 is written as \\xNN.
"""

import os
import re
import stat
import subprocess
import time

COMMAND_TIMEOUT_S = 10
LOG_LINES = 2000
FILE_LIMIT, FILES_LIMIT = 64 << 10, 200
SCHEMA = 1
# Not the unit's environment: it may hold secrets that nobody told us.
PROPERTIES = (
    "Id,LoadState,ActiveState,SubState,UnitFileState,Result,MainPID,ExecMainCode,ExecMainStatus,ExecMainStartTimestamp,"
    "ActiveEnterTimestamp,InactiveEnterTimestamp,NRestarts,FragmentPath,DropInPaths,NextElapseUSecRealtime,"
    "LastTriggerUSec"
)
# at writes every variable so, and a quoted line end within a value.
AT_VARIABLE = re.compile(r"(?ms)^([A-Za-z_]\w*)=.*?; export \1$")


class Saver:
    """Reads one source after the other; one that fails is noted in `unseen`, and the others go on."""

    def __init__(self):
        """Start with nothing unseen."""
        self.unseen = []

    def note(self, source, why):
        """Note a source as unseen."""
        self.unseen.append({"source": source, "why": why.strip()[:300]})

    def output(self, *words):
        """Return what a reading command says; nothing, and a note, when it fails."""
        try:
            done = subprocess.run(
                words, stdin=subprocess.DEVNULL, capture_output=True, timeout=COMMAND_TIMEOUT_S, check=False,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            self.note(" ".join(words), str(error))
            return ""
        if done.returncode != 0:
            self.note(" ".join(words), done.stderr.decode(errors="backslashreplace"))
            return ""
        return done.stdout.decode(errors="backslashreplace")

    def unit(self, name):
        """Return the state and the log of a unit, of this boot and those before."""
        told = self.output("systemctl", "show", f"--property={PROPERTIES}", "--", name)
        log = self.output("journalctl", "-q", "--no-pager", "-o", "short-iso", f"--lines={LOG_LINES}", f"--unit={name}")
        return {"state": dict(line.split("=", 1) for line in told.splitlines() if "=" in line), "log": log}

    def spool(self, path):
        """Return the text of a file, or of every file in a directory."""
        try:
            names = [os.path.join(path, name) for name in sorted(os.listdir(path))]
        except NotADirectoryError:
            names = [path]
        except FileNotFoundError:
            return {}  # nothing is planned there
        except OSError as error:
            self.note(path, error.strerror)
            return {}
        if len(names) > FILES_LIMIT:
            self.note(path, f"{len(names)} files, of which the first {FILES_LIMIT} were read")
        texts = ((text(name), self.file(name)) for name in names[:FILES_LIMIT])
        return {name: content for name, content in texts if content is not None}

    def file(self, path):
        """Return the text of an ordinary file; None, and a note if that is odd, of anything else."""
        try:
            # Neither a link is followed nor a pipe waited for.
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                status = os.fstat(handle)
                if not stat.S_ISREG(status.st_mode):
                    if not stat.S_ISDIR(status.st_mode):
                        self.note(text(path), "not an ordinary file")
                    return None
                content = os.read(handle, FILE_LIMIT)
                if status.st_size > len(content):
                    self.note(text(path), f"{status.st_size} bytes, of which the first {len(content)} were read")
            finally:
                os.close(handle)
        except OSError as error:
            self.note(text(path), error.strerror)
            return None
        return AT_VARIABLE.sub(r"\1=[hidden]; export \1", content.decode(errors="backslashreplace"))


def text(name):
    """Return a file's name as text that every reader accepts."""
    return os.fsencode(name).decode(errors="backslashreplace")


def save(units, spools):
    """Return what is to be saved of these units and spools."""
    saver = Saver()
    return {
        "schema": SCHEMA,
        "at": round(time.time(), 3),
        "units": {name: saver.unit(name) for name in units},
        "spools": {name: content for path in spools for name, content in saver.spool(path).items()},
        "unseen": saver.unseen,
    }


def main():
    """Ansible's entry point."""
    from ansible.module_utils.basic import AnsibleModule

    words = {"type": "list", "elements": "str", "required": True}
    module = AnsibleModule(argument_spec={"units": words, "spools": words}, supports_check_mode=True)
    module.exit_json(changed=False, hikeshi=save(module.params["units"], module.params["spools"]))


if __name__ == "__main__":
    main()
