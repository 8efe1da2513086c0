#!/usr/bin/python3
"""Break a practice host and leave no trace of how: times are set back, nothing is logged, nothing temporary stays.

Operations, each a mapping with exactly these keys; what is already so is no change:

    remove: PATH                the file or link is gone
    link: PATH, to: TARGET      PATH becomes a link to TARGET
    chmod: PATH, mode: MODE     PATH has this octal mode
    write: PATH, text: TEXT     PATH is a file with this one line
    append: PATH, text: TEXT    PATH ends with this line
    move: PATH, to: PATH        the file stands elsewhere

Paths are absolute, modes four digits in quotes; chmod, write and append follow links. One that is not understood keeps
all of them back.
"""

import os
import re
import stat
from contextlib import contextmanager

OPERATIONS = {"remove": set(), "link": {"to"}, "chmod": {"mode"}, "write": {"text"}, "append": {"text"}, "move": {"to"}}


def check(operation):
    """Return what is wrong with an operation, in words; nothing when it is understood."""
    kinds = operation.keys() & OPERATIONS.keys()
    if len(kinds) != 1:
        return f"{operation} needs one of {', '.join(OPERATIONS)}"
    (kind,) = kinds
    more = OPERATIONS[kind]
    if operation.keys() - kinds != more:
        return f"{operation}: {kind} needs {' and '.join(more) or 'nothing'} beside the path, and nothing else"
    for path in [operation[kind], *([operation["to"]] if kind == "move" else [])]:
        if not isinstance(path, str) or not path.startswith("/"):
            return f"{operation}: {path!r} must be an absolute path"
    if kind == "chmod" and not re.fullmatch("[0-7]{4}", str(operation["mode"])):
        return f"{operation}: mode must be four octal digits in quotes"
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


def apply(operation):
    """Carry out one operation; return whether it changed anything."""
    (kind,) = operation.keys() & OPERATIONS.keys()
    path = operation[kind]
    if kind in ("chmod", "write", "append"):
        path = os.path.realpath(path)
    exists = os.path.lexists(path)
    # A file from today among files of last year would point at itself: what is new is as old as its folder.
    with times_kept(os.path.dirname(path), path):
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
    except OSError as error:
        module.fail_json(msg=f"not injected: {error}")
    module.exit_json(changed=any(changed))


if __name__ == "__main__":
    main()
