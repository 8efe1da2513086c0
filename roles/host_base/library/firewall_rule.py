#!/usr/bin/python3
"""Take one rule of iptables out of the firewall that works now: these very words, in this chain, and nothing else.

Whether they stand there is asked when the step is taken, and again afterwards; a rule that stands there twice goes
twice. The commands that put it back in its place are written to `record` before it goes. Chains of the gate
(HIKESHI…), and of programs that keep rules of their own, are left alone, and so is whatever neither drops nor rejects.
"""

import os
import re
import shlex
import subprocess
import time

PROGRAMS = {"ipv4": "iptables", "ipv6": "ip6tables"}
TABLES = ["filter", "mangle", "raw", "security"]
# Other programs write theirs again.
CHAIN = re.compile(
    r"(?!HIKESHI|ufw6?-|f2b-|fail2ban-|DOCKER|KUBE-|cali-|CILIUM_|LIBVIRT_|"
    r"IN_|OUT_|INPUT_|OUTPUT_|neutron-|NETAVARK|CNI-|ts-|CROWDSEC|LOCALIN|LOCALOUT|DENYIN|DENYOUT|LOGDROP)"
    r"[A-Za-z0-9_.-]{1,28}"
)
# As iptables-save prints it; of ' and \ in a comment it and shlex think differently.
WORDS = re.compile(r'[A-Za-z0-9_.,:;/+@%=!"() -]*-j (?:DROP|REJECT)(?: --reject-with [a-z0-9-]+)?')
WAIT_S, TIMEOUT_S = 10, 30
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


class Refused(Exception):
    """The rule is left as it is; the words say why."""


def split(chain, rule):
    """Return the words of a rule behind its chain; refuse what is not to be taken out."""
    if not CHAIN.fullmatch(chain):
        raise Refused(f"chain is '{chain}'; allowed: the name of a chain of no program's own (HIKESHI…, ufw-…, f2b-…)")
    start = f"-A {chain} "
    if not rule.startswith(start) or not WORDS.fullmatch(rule[len(start) :]):
        raise Refused(f"rule is '{rule}'; allowed: '{start}… -j DROP' or REJECT, as iptables-save prints it")
    try:
        return shlex.split(rule)[2:]
    except ValueError as error:
        raise Refused(f"rule is '{rule}', of which a quote is not closed") from error


def run(*words):
    """Run a program of iptables and return what it says; refuse with its own words when it fails."""
    try:
        done = subprocess.run(
            words, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="backslashreplace",
            env=ENVIRONMENT, timeout=TIMEOUT_S,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Refused(f"{words[0]}: {error}") from error
    if done.returncode:
        raise Refused(f"{words[0]}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def standing(program, table, chain):
    """Return the rules of a chain as they stand now."""
    found, here = [], ""
    for line in run(f"{program}-save").split("\n"):
        if line.startswith("*"):
            here = line[1:]
        elif here == table and line.startswith(f"-A {chain} "):
            found.append(line)
    return found


def write_down(record, commands):
    """Add commands to the record; they are on the disk before a rule goes."""
    os.makedirs(os.path.dirname(record), mode=0o700, exist_ok=True)
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with open(record, "a", encoding="utf-8") as handle:
        handle.writelines(f"{command} # {at}\n" for command in commands)
        handle.flush()
        os.fsync(handle.fileno())


def remove(given, check):
    """Take the rule out; return whether it stood there."""
    table, chain, rule = given["table"], given["chain"], given["rule"]
    words = split(chain, rule)
    program = f"{PROGRAMS[given['family']]}-{given['backend']}"
    places = [place for place, line in enumerate(standing(program, table, chain), 1) if line == rule]
    if not places or check:
        return bool(places)
    command = [program, "-w", str(WAIT_S), "-t", table]
    # They are run from the last line upwards.
    lines = [shlex.join([*command, "-I", chain, str(place), *words]) for place in reversed(places)]
    write_down(given["record"], lines)
    for _ in places:
        run(*command, "-D", chain, *words)
    if rule in standing(program, table, chain):
        raise Refused(f"'{rule}' still stands in table {table}: somebody puts it back")
    return True


def main():
    """Ansible's entry point."""
    from ansible.module_utils.basic import AnsibleModule

    module = AnsibleModule(
        argument_spec={
            "family": {"choices": list(PROGRAMS), "required": True},
            "backend": {"choices": ["nft", "legacy"], "required": True},
            "table": {"choices": TABLES, "required": True},
            "chain": {"type": "str", "required": True},
            "rule": {"type": "str", "required": True},
            "record": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    os.umask(0o077)
    try:
        changed = remove(module.params, module.check_mode)
    except Refused as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{module.params['record']}: {error}")
    module.exit_json(changed=changed)


if __name__ == "__main__":
    main()
