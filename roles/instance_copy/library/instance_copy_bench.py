#!/usr/bin/python
"""Refuse to go on unless this is a bench: no way out, no power but over files, the disk of a copy mounted safely.

Within the disk, where its root is / and its own programs run, none of them may gain powers.
"""

import os
import re

from ansible.module_utils.basic import AnsibleModule

# What root of a bench may do, by the kernel's numbers: chown, dac_override, dac_read_search, fowner, fsetid.
FILE_POWERS = sum(1 << number for number in (0, 1, 2, 3, 4))
OPTIONS = ("nosuid", "nodev", "noexec")
INTERFACES, STATUS, MOUNTS = "/sys/class/net", "/proc/self/status", "/proc/self/mounts"


def reasons(root):
    """Return why this is no bench for the disk at `root`."""
    found = [f"it has the network interface {name}" for name in sorted(os.listdir(INTERFACES)) if name != "lo"]
    with open(STATUS, encoding="ascii") as handle:
        status = handle.read()
    for kind, powers in re.findall(r"^Cap(Eff|Bnd):\s*([0-9a-f]+)$", status, re.MULTILINE):
        if int(powers, 16) & ~FILE_POWERS:
            found.append(f"its root may do more than files need (Cap{kind} {powers})")
    with open(MOUNTS, encoding="utf-8", errors="replace") as handle:
        mounts = {line.split()[1]: line.split()[3].split(",") for line in handle}
    if root == "/":  # the disk's own programs run: no setuid helps them
        return found + ["programs may gain powers"] * (not re.search(r"(?m)^NoNewPrivs:\s*1$", status))
    if root not in mounts:
        found.append(f"no disk is mounted at {root}")
    found += [f"{root} is mounted without {word}" for word in OPTIONS if word not in mounts.get(root, OPTIONS)]
    return found


def main():
    """Ansible's entry point."""
    module = AnsibleModule(argument_spec={"root": {"type": "path", "required": True}}, supports_check_mode=True)
    if found := reasons(module.params["root"]):
        module.fail_json(msg=f"instance_copy refused: this is no bench for the disk of a copy: {'; '.join(found)}")
    module.exit_json(changed=False)


if __name__ == "__main__":
    main()
