#!/usr/bin/python3
"""Close and open the load balancer's health check on this host: standard library only.

    gate install              chain, jump and empty sets for IPv4 and IPv6; nothing when they stand
    gate drain [SECONDS]      nginx answers the check 503, customers are served; lifted by itself after SECONDS
    gate block SECONDS        the check is refused at layer 4; then the drain is lifted. SECONDS may be `never`
    gate renew SECONDS        what is closed stays closed for SECONDS from now on
    gate unblock              the check reaches nginx again, which answers 503 where it can, until `undrain`
    gate undrain              nginx answers the check as usual
    gate status               all of it, as JSON
    gate restore              at boot: closed as it was, for the time that is left
    gate watch                put right what somebody else's reload took, and what a killed call of ours left half done
    gate remove               open, and take chain, jump, sets and memory away

`--check` behind the others' words only says whether something would change. What is meant stands in STATE before it is
done, so `watch`, `restore` and the next call finish what was killed: an intended opening opens, an intended closing
closes until the same moment. Nothing of ours has to live for the gate to open: entries of ipset end in the kernel, and
a drain is a file that a timer of systemd removes, armed before the file is there.

Only the chain HIKESHI-GATE, the jump to it and the two sets are ever touched. Its rules match what begins a connection
to a checked port, or an echo request, and only from the load balancer's addresses.

Exit status: 0 done · 1 failed · 2 refused, nothing changed.
"""

import contextlib
import fcntl
import glob
import ipaddress
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time

CONFIG = "/etc/hikeshi/gate.json"
STATE = "/var/lib/hikeshi/gate"
RUN = "/run/hikeshi/gate"
PROC = "/proc"
CHAIN = "HIKESHI-GATE"
JUMP = f"-A INPUT -j {CHAIN}"
SETS = {"ipv4": "hikeshi-gate4", "ipv6": "hikeshi-gate6"}
KINDS = {"ipv4": "inet", "ipv6": "inet6"}
PROGRAMS = {"ipv4": "iptables", "ipv6": "ip6tables"}
ECHO = {
    "ipv4": "-p icmp {} -m icmp --icmp-type 8 -j DROP",
    "ipv6": "-p ipv6-icmp {} -m icmp6 --icmpv6-type 128 -j DROP",
}
SYN = "-p tcp {} -m tcp --dport {} --tcp-flags FIN,SYN,RST,ACK SYN -j REJECT --reject-with tcp-reset"
# Who else keeps rules: named in status, because their reload may take our jump, which `watch` puts back.
OTHERS = ("ufw", "firewalld", "docker", "fail2ban", "nftables", "netfilter-persistent")
LOCK_WAIT_S, COMMAND_S = 30, 20
MOST_S = 7 * 86400  # the kernel counts no more than 24 days
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
OPEN = {"drain": None, "block": None, "since": None, "by": ""}


class RefusedError(Exception):
    """Not done, nothing changed; the words say why and what to do."""


def run(*words, text=None):
    """Run a command and return what it says; raise OSError with its own words when it fails."""
    try:
        done = subprocess.run(
            words, input=text, capture_output=True, text=True, errors="replace", env=ENVIRONMENT, timeout=COMMAND_S,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{' '.join(words)}: no answer in {COMMAND_S} s") from error
    if done.returncode:
        raise OSError(f"{' '.join(words)}: {done.stderr.strip() or done.stdout.strip() or done.returncode}")
    return done.stdout


def asks(*words):
    """Run a command that asks; return what it says, whatever its exit status."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(
            words, capture_output=True, text=True, errors="replace", env=ENVIRONMENT, timeout=COMMAND_S, check=False
        ).stdout
    return ""


def read(path):
    """Return a file's text; empty where there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as handle:
            return handle.read()
    except (OSError, ValueError):
        return ""


# What is wanted


def config():
    """Return the role's inputs, its addresses in the form in which ipset tells them."""
    text = read(CONFIG)
    if not text:
        raise RefusedError(f"{CONFIG} is missing: role health_check_gate writes it")
    found = json.loads(text)
    found["addresses"] = {family: [] for family in SETS}
    for word in found["load_balancer"]:
        found["addresses"]["ipv6" if ":" in word else "ipv4"].append(member(word))
    return found


def member(word):
    """Return an address or network as ipset tells it: a single address without its length."""
    network = ipaddress.ip_network(word, strict=False)
    return str(network.network_address if network.num_addresses == 1 else network)


def rules(wanted, family):
    """Return the rules of our chain, as iptables-save prints them."""
    source = f"-m set --match-set {SETS[family]} src"
    if wanted["check"] == "icmp":
        return [f"-A {CHAIN} {ECHO[family].format(source)}"]
    return [f"-A {CHAIN} {SYN.format(source, port)}" for port in wanted["ports"]]


# What is meant, on disk


def state():
    """Return what is meant: drain and block, each None or {until, seconds, …}; until None: never ends by itself."""
    try:
        return {**OPEN, **json.loads(read(f"{STATE}/state.json") or "{}")}
    except ValueError:  # not ours, or a disk that lied: the kernel's own timeouts still end everything
        return dict(OPEN)


def save(meant):
    """Write down what is meant, whole and on disk, before it is done; nothing meant needs no room to be written in."""
    if meant["drain"] or meant["block"]:
        temporary = f"{STATE}/.state.json"
        try:
            with open(temporary, "w", encoding="utf-8") as handle:
                json.dump(meant, handle)
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(temporary, f"{STATE}/state.json")
        except OSError as why:
            raise OSError(
                f"{STATE} cannot be written: {why.strerror}; the gate stays as it was. Make room there"
            ) from why
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{STATE}/state.json")
    folder = os.open(STATE, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def spell(seconds):
    """Return a closing that lasts some seconds from now on, None being for ever."""
    return {"until": None if seconds is None else time.time() + seconds, "seconds": seconds}


def left(closing):
    """Return how many whole seconds a closing still lasts, 0 being over, None for ever.

    Never more than were asked for: a clock that was set back, or lost while the host was off, must not close for years.
    """
    if not closing:
        return 0
    if closing["until"] is None:
        return None
    return max(0, min(int(closing["until"] - time.time() + 0.999), int(closing["seconds"])))


@contextlib.contextmanager
def locked(verb):
    """Hold the lock of all changes; refuse, naming its holder, when it is not let go in time."""
    os.makedirs(STATE, mode=0o700, exist_ok=True)
    for folder in (os.path.dirname(RUN), RUN):
        os.makedirs(folder, exist_ok=True)
        os.chmod(folder, 0o755)  # noqa: S103 (nginx's workers look in here)
    # In memory: a full disk must not keep the gate from opening, nor the watch write to one three times a minute.
    handle = os.open(f"{RUN}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        end = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > end:
                    holder = os.pread(handle, 200, 0).decode(errors="replace") or "somebody"
                    raise RefusedError(
                        f"the gate is being changed by {holder} for {LOCK_WAIT_S} s and more; run again then"
                    ) from error
                time.sleep(0.05)
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"pid {os.getpid()}, {verb}, {caller()[0]}, {time.strftime('%H:%M:%S %Z')}".encode(), 0)
        yield
    finally:
        os.close(handle)


def caller():
    """Return (who, address) of the ssh login that runs this; the address is empty where there is none."""
    pid = os.getpid()
    while pid > 1:
        try:
            with open(f"{PROC}/{pid}/environ", "rb") as handle:
                pairs = (item.split(b"=", 1) for item in handle.read().split(b"\0") if b"=" in item)
                environment = {key.decode(errors="replace"): value.decode(errors="replace") for key, value in pairs}
            pid = int(read(f"{PROC}/{pid}/stat").rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError, ValueError):
            break
        words = environment.get("SSH_CONNECTION", "").split()
        if len(words) == 4:
            address = "" if words[0] == "UNKNOWN" else words[0]
            return f"{environment.get('USER', '')} from {address or 'here'}", address
    return os.environ.get("SUDO_USER", "root"), ""


# What must not be


def refuse(wanted):
    """Raise RefusedError where closing could hurt more than it helps; ask before every closing."""
    kept = [("keep_open", word) for word in wanted["keep_open"]] + [("this login", caller()[1])]
    for what, word in kept:
        for network in (ipaddress.ip_network(item) for item in sum(wanted["addresses"].values(), [])):
            if word and ipaddress.ip_network(word.split("%")[0], strict=False).overlaps(network):
                raise RefusedError(
                    f"{word} ({what}) is one of the load balancer's addresses, {network}: it would be cut off as well. "
                    "Name the addresses from which the check comes, and no others"
                )
    for network in map(ipaddress.ip_network, sum(wanted["addresses"].values(), [])):
        if network.prefixlen < (16 if network.version == 4 else 32):
            raise RefusedError(f"{network} is no load balancer's: allowed are networks of at most 65536 IPv4 addresses")
    for family, other in (("ipv4", "ipv6"), ("ipv6", "ipv4")):
        if not wanted["addresses"][family] and wanted["one_family"] != other and has(family):
            raise RefusedError(
                f"no {family} address of the load balancer is named, and this host has {family}: half a gate is none. "
                f"Name it, or say that it asks over {other} only: health_check_gate_one_family: {other}"
            )
    backend = ours()
    for program in PROGRAMS.values():
        other = "legacy" if backend == "nft" else "nft"
        foreign = [line for line in elsewhere(program, other) if CHAIN not in line]
        if foreign:
            raise RefusedError(
                f"{program} works on {backend}, but {len(foreign)} rules stand in {other} as well: {foreign[0]}. "
                f"Both decide about a packet. Bring them together first: {program}-{other}-save shows them, "
                f"update-alternatives --config {program} chooses"
            )


def has(family):
    """Say whether this host has a global address of a family; of IPv4 it always has."""
    if family == "ipv4":
        return True
    rows = (line.split() for line in read(f"{PROC}/net/if_inet6").splitlines())
    return any(row[3] == "00" and row[5] != "lo" for row in rows if len(row) == 6)


def ours():
    """Return on which backend iptables works here."""
    return "nft" if "nf_tables" in run("iptables", "--version") else "legacy"


def elsewhere(program, backend):
    """Return the rules of the other backend; asking the older one where it has no tables would load its modules."""
    names = f"{PROC}/net/{program.replace('tables', '_tables')}_names"
    if not shutil.which(f"{program}-{backend}-save", path=ENVIRONMENT["PATH"]):
        return []
    if backend == "legacy" and not read(names).strip():
        return []
    return [line for line in run(f"{program}-{backend}-save").splitlines() if line.startswith("-A ")]


# The kernel


def standing(family):
    """Return (whether our chain is there, its rules, the rules of INPUT) as they stand now."""
    told = run(f"{PROGRAMS[family]}-save", "-t", "filter")
    if "is incompatible" in told:
        raise OSError(f"table filter of {family} has rules that only nft can tell; {PROGRAMS[family]} cannot change it")
    lines = told.splitlines()
    own = [line for line in lines if line.startswith(f"-A {CHAIN} ")]
    return f":{CHAIN} " in told, own, [line for line in lines if line.startswith("-A INPUT ")]


def differences(wanted, family):
    """Return what iptables-restore must be told so that chain and jump stand; nothing when they do. One transaction."""
    there, own, entry = standing(family)
    lines = []
    if not there or own != rules(wanted, family):
        lines += [f":{CHAIN} - [0:0]", *rules(wanted, family)]
    if entry[:1] != [JUMP] or entry.count(JUMP) != 1:
        lines += [f"-D INPUT -j {CHAIN}"] * entry.count(JUMP) + [f"-I INPUT 1 -j {CHAIN}"]
    return lines


def restored(family, lines):
    """Change table filter of one family in one transaction, others' rules untouched."""
    text = "\n".join(["*filter", *lines, "COMMIT", ""])
    run(f"{PROGRAMS[family]}-restore", "-w", "10", "--noflush", text=text)


def install(wanted, check=False):
    """Make sets, chain and jump stand in both families; return whether anything was missing."""
    missing = [family for family in SETS if members(family) is None]
    if missing and not check:
        words = [f"create {SETS[family]} hash:net family {KINDS[family]} timeout 0" for family in SETS]
        run("ipset", "-exist", "restore", text="\n".join([*words, ""]))
    changed = bool(missing)
    for family in SETS:
        lines = differences(wanted, family)
        changed = changed or bool(lines)
        if lines and not check:
            restored(family, lines)
            if differences(wanted, family):
                raise OSError(f"chain {CHAIN} of {family} does not stand as it was written: somebody else changes it")
    return changed


def members(family):
    """Return the entries of a family's set, address → seconds left (0: for ever); None where there is no set."""
    try:
        told = run("ipset", "save", SETS[family])
    except OSError as error:
        if "does not exist" in str(error):
            return None
        raise
    found = re.findall(rf"(?m)^add {SETS[family]} (\S+)(?: timeout (\d+))?", told)
    return {address: int(seconds or 0) for address, seconds in found}


def fill(wanted, seconds):
    """Put the load balancer's addresses, and no others, into the sets of both families, in one call."""
    words = []
    for family, name in SETS.items():
        gone = set(members(family) or ()) - set(wanted["addresses"][family])
        words += [f"del {name} {address}" for address in sorted(gone)]
        words += [f"add {name} {address} timeout {seconds or 0}" for address in wanted["addresses"][family]]
    run("ipset", "-exist", "restore", text="\n".join([*words, ""]))
    short = [family for family in SETS if set(members(family) or ()) != set(wanted["addresses"][family])]
    if short:
        raise OSError(f"the sets of {', '.join(short)} do not hold what was put in")


def empty():
    """Take every entry out of both sets, in one call; return whether there was any."""
    words = [f"del {SETS[family]} {address}" for family in SETS for address in members(family) or ()]
    if words:
        run("ipset", "-exist", "restore", text="\n".join([*words, ""]))
    return bool(words)


# The drain: nginx looks for RUN/drain, a link to a file that a timer of systemd removes


def timer(token):
    """Return the unit that ends a drain."""
    return f"hikeshi-gate-undrain-{token}.timer"


def armed(token):
    """Say whether systemd will end a drain."""
    return asks("systemctl", "is-active", timer(token)).strip() == "active"


def drained():
    """Return the tokens of the drains whose files are there, and the one that nginx sees."""
    seen = os.path.realpath(f"{RUN}/drain").rpartition("-")[2] if os.path.isfile(f"{RUN}/drain") else ""
    return [path.rpartition("-")[2] for path in glob.glob(f"{RUN}/drain-*")], seen


def drain(meant, seconds):
    """Let nginx answer the check 503; systemd ends it, and must have agreed to before it begins."""
    token = secrets.token_hex(6)
    run(
        "systemd-run", f"--unit={timer(token).removesuffix('.timer')}", "--collect", f"--on-active={seconds}",
        "--timer-property=AccuracySec=100ms", "--description=End a drain of the health check", "--",
        "/usr/bin/rm", "-f", f"{RUN}/drain-{token}",
    )  # fmt: skip
    if not armed(token):
        raise OSError(f"{timer(token)} is not active, so nothing was drained: nobody would end it")
    meant["drain"] = {**spell(seconds), "token": token}
    save(meant)
    with open(f"{RUN}/drain-{token}", "w", encoding="ascii"):
        pass
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{RUN}/.drain")
    os.symlink(f"drain-{token}", f"{RUN}/.drain")
    os.replace(f"{RUN}/.drain", f"{RUN}/drain")
    if not armed(token):  # we were held up for longer than the drain was to last
        lift()
        raise OSError(f"{timer(token)} has ended already; nothing is drained")
    lift(but=token)


def lift(but=""):
    """End every drain, or all but one; return whether there was any."""
    tokens, seen = drained()
    gone = [token for token in tokens if token != but]
    if os.path.lexists(f"{RUN}/drain") and seen != (but or None):
        os.unlink(f"{RUN}/drain")
    for token in gone:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{RUN}/drain-{token}")
        asks("systemctl", "stop", timer(token))
    return bool(gone)


# Verbs; each holds the lock


def begun(meant):
    """Note since when and by whom the gate is closed, at its first closing."""
    if not meant["since"]:
        meant.update(since=time.time(), by=caller()[0])
    return meant


def do_drain(wanted, seconds, check):
    """Drain; a gate that is blocked needs none, and where the check asks nothing of nginx there is none."""
    refuse(wanted)
    meant = state()
    if wanted["check"] != "http" or left(meant["block"]) != 0:
        return install(wanted, check)
    if not check:
        install(wanted)
        drain(begun(meant), seconds or wanted["seconds"])
    return True


def do_block(wanted, seconds, check):
    """Block, or block for longer; then nginx may answer as usual, so that nothing but the block must end."""
    refuse(wanted)
    if not check:
        install(wanted)
        meant = begun(state())
        meant["block"] = spell(seconds)
        save(meant)
        fill(wanted, seconds)
        meant["drain"] = None
        save(meant)
        lift()
    return True


def do_renew(wanted, seconds, check):
    """Let what is closed stay closed for longer."""
    meant = state()
    if left(meant["block"]) != 0:
        return do_block(wanted, seconds, check)
    if left(meant["drain"]) != 0 and drained()[1]:
        return do_drain(wanted, seconds, check)
    raise RefusedError("the gate is open: there is nothing to renew")


def do_unblock(wanted, seconds, check):
    """Let the check reach nginx, which answers 503 until `undrain`, at the latest until the block would have ended."""
    meant = state()
    if left(meant["block"]) == 0 and not any(members(family) for family in SETS):
        return False
    if not check:
        if wanted["check"] == "http":
            try:
                drain(meant, left(meant["block"]) or wanted["seconds"])
            except OSError:  # a full disk must keep nothing closed: then it opens in one step, which `drained` tells
                meant["drain"] = None
        meant["block"] = None
        save(meant)
        empty()
    return True


def do_undrain(wanted, seconds, check):
    """Let nginx answer as usual."""
    meant = state()
    if not meant["drain"] and not drained()[0]:
        return False
    if not check:
        meant["drain"] = None
        save(meant)
        lift()
    return True


def do_restore(wanted, seconds, check):
    """Close as before the boot. A drain comes back as a block: the load balancer has seen this host away already, and a
    block needs nobody to end it.
    """
    meant = state()
    rest = left(meant["drain"])
    if rest != 0 and not drained()[0]:
        if left(meant["block"]) == 0:
            meant["block"] = {key: meant["drain"][key] for key in ("until", "seconds")}
        meant["drain"] = None
        save(meant)
    return do_watch(wanted, seconds, check)


def do_watch(wanted, seconds, check):
    """Make chain, sets and nginx what is meant; forget what is over."""
    meant, before = state(), state()
    changed = install(wanted)
    if left(meant["block"]) == 0:
        meant["block"] = None
    token = (meant["drain"] or {}).get("token")
    if not token or left(meant["drain"]) == 0 or drained()[1] != token or not armed(token):
        meant["drain"] = None
    if meant != before:
        save(meant)
    if not meant["drain"]:
        changed = lift() or changed
    if not meant["block"]:
        return empty() or changed
    if any(set(members(family)) != set(wanted["addresses"][family]) for family in SETS):
        fill(wanted, left(meant["block"]))
        changed = True
    return changed


def do_remove(wanted, seconds, check):
    """Open, and leave nothing of ours but the program and its settings."""
    if check:
        return True
    save(dict(OPEN))
    empty()
    lift()
    for family, name in SETS.items():
        there, _, entry = standing(family)
        if there:
            restored(family, [f"-D INPUT -j {CHAIN}"] * entry.count(JUMP) + [f":{CHAIN} - [0:0]", f"-X {CHAIN}"])
        if members(family) is not None:
            run("ipset", "destroy", name)
    return True


def status(wanted):
    """Return what is meant and what stands, per family; changes nothing."""
    meant = state()
    tokens, seen = drained()
    families = {}
    for family in SETS:
        _, own, entry = standing(family)
        found = members(family)
        counted = re.findall(rf"(?m)^\[(\d+):\d+\] -A {CHAIN} ", run(f"{PROGRAMS[family]}-save", "-c", "-t", "filter"))
        stands = own == rules(wanted, family) and entry[:1] == [JUMP] and found is not None
        families[family] = {
            "stands": stands,
            "closed": stands and bool(found) and set(found) == set(wanted["addresses"][family]),
            "needed": bool(wanted["addresses"][family]),
            "entries": found or {},
            "packets": sum(map(int, counted)),
        }
    needed = [one["closed"] for one in families.values() if one["needed"]]
    closing = next((item for item in (meant["block"], meant["drain"]) if left(item) != 0), None)
    active = asks("systemctl", "is-active", *(f"{name}.service" for name in OTHERS)).split()
    return {
        "gate": "closed" if all(needed) else "half" if any(needed) else "drained" if seen else "open",
        "check": wanted["check"],
        "ports": wanted["ports"],
        "backend": ours(),
        "families": families,
        "drained": bool(seen),
        "drain_ends_by_itself": all(armed(token) for token in tokens),
        "since": meant["since"] if closing else None,
        "by": meant["by"] if closing else "",
        "until": closing["until"] if closing else None,
        "left_s": left(closing),
        "others": [name for name, word in zip(OTHERS, active, strict=False) if word == "active"],
    }


VERBS = {
    "install": lambda wanted, seconds, check: refuse(wanted) or install(wanted, check),
    "drain": do_drain,
    "block": do_block,
    "renew": do_renew,
    "unblock": do_unblock,
    "undrain": do_undrain,
    "restore": do_restore,
    "watch": do_watch,
    "remove": do_remove,
}
TIMED = ("drain", "block", "renew")


def seconds_of(verb, words):
    """Return the seconds given, None for `never`."""
    if verb not in TIMED:
        if words:
            raise RefusedError(f"{verb} takes no further words; given: {' '.join(words)}")
        return None
    if words == (["never"] if verb != "drain" else []):
        return None  # a drain is one step of a closing, and never for ever: the settings say how long
    if len(words) != 1 or not words[0].isdigit() or not 1 <= int(words[0]) <= MOST_S:
        raise RefusedError(f"{verb} takes seconds, 1 to {MOST_S}{'' if verb == 'drain' else ', or never'}")
    return int(words[0])


def main(words):
    """Do what the words say; return the exit status."""
    verb, check = (words or [""])[0], "--check" in words
    try:
        if verb == "status":
            print(json.dumps(status(config())))
            return 0
        if verb not in VERBS:
            raise RefusedError(f"usage: gate {'|'.join([*VERBS, 'status'])} [SECONDS] [--check]")
        seconds = seconds_of(verb, [word for word in words[1:] if word != "--check"])
        with locked(verb):
            wanted = config()
            changed = VERBS[verb](wanted, seconds, check)
            # What happened stands in the journal of the host as well, whoever called.
            told = {} if check or verb == "remove" else status(wanted)
    except RefusedError as why:
        print(why, file=sys.stderr)
        return 2
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError) as why:
        print(f"{type(why).__name__}: {why}", file=sys.stderr)
        return 1
    print(json.dumps({"changed": bool(changed), **told}))
    return 0


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main(sys.argv[1:]))
