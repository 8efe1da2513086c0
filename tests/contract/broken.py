"""Evidence of a host that one role built, and of the same host with one thing after the other broken."""

import copy
import json
from collections.abc import Iterator
from typing import Any

from hikeshi.triage.rules.not_listening import place_of
from tests.contract.project import ROOT
from tests.templates.rendering import value

Evidence = dict[str, Any]
RECORDED: Evidence = json.loads((ROOT / "tests" / "unit" / "evidence" / "web1.json").read_text())

# What the least a role must be given would not show: a job with everything that can be wrong with one.
JOB = {"name": "nightly", "description": "A job", "schedule": "daily", "user": "nightly", "command": "/bin/true"}
MORE = {"catch_up": True, "catch_up_why": "it may", "directory": "/srv/nightly", "lock": "/srv/nightly/lock"}
ANSWERS = {"answers": True, "code": 0, "message": "", "connections": 2, "idle": 1, "crashed": []}
# And a binary log, a link to the pictures, and a shop that logs in at a database, and that needs a gateway.
LOGIN = {key: f"SHOP_DATABASE_{key.upper()}" for key in ("user", "password", "name", "socket")}
INPUTS: dict[str, dict[str, Any]] = {
    "database": {"database_binary_log": True},
    "batch_jobs": {"batch_jobs_jobs": [{**JOB, **MORE}]},
    "image_server": {"image_server_link": "/srv/shop/pictures"},
    "checkout_service": {
        "checkout_service_database": LOGIN,
        "checkout_service_reaches": [{"name": "pay.example", "port": 8420}],
    },
}
# A way in that is open, and what can shut it.
ACCOUNT = {"home": "/home/deploy", "shell": "/bin/bash", "shell_kind": "file", "groups": ["deploy"], "changed": 20000,
           "most": 99999, "inactive": None, "expires": None}  # fmt: skip
WAY_IN: dict[str, Any] = {"shut": [], "accounts": {"deploy": ACCOUNT}, "key_paths": {"deploy": []}, "sshd": [],
                          "modules": [], "wrappers": [], "ssh_unit": [], "boot": [], "jobs": []}  # fmt: skip
HOME = {"path": "/home/deploy", "kind": "directory", "mode": "0777", "owner": "root", "members": []}
DROP_IN = "/etc/systemd/system/ssh.service.d/x.conf"
AT_BOOT = {"unit": "x.mount", "file": "/etc/systemd/system/x.mount", "target": "local-fs.target", "need": True,
           "link": "/etc/systemd/system/local-fs.target.requires/x.mount", "before": [], "type": "", "bound": False,
           "waits": "", "source": "/gone", "source_kind": "missing"}  # fmt: skip
STUCK = [{"unit": "x.service", "type": "start", "state": "running"},
         {"unit": "systemd-user-sessions.service", "type": "start", "state": "waiting"}]  # fmt: skip
SHUT: list[dict[str, Any]] = [
    *({"shut": [path]} for path in ("/etc/nologin", "/etc/ssh/sshd_not_to_be_run")),
    *({"accounts": {"deploy": {**ACCOUNT, **wrong}}} for wrong in ({"changed": 0}, {"expires": 1})),
    {"accounts": {"deploy": None}},
    {"key_paths": {"deploy": [HOME]}},
    *(
        {"sshd": [{"file": file, "words": words, "match": ""}]}
        for file in ("/etc/ssh/sshd_config", "/etc/ssh/sshd_config.d/00-hikeshi.conf")
        for words in ("Bogus yes", "DenyUsers deploy", "MaxSessions 0")
    ),
    *(
        {"modules": [{"file": "/etc/pam.d/sshd", "words": "x", "kind": kind, "control": "required", "name": "x.so"}]}
        for kind in ("auth", "account")
    ),
    {"wrappers": [{"file": "/etc/hosts.deny", "words": "sshd: ALL"}]},
    {"ssh_unit": [{"file": DROP_IN, "words": "RuntimeDirectory=", "key": "RuntimeDirectory", "value": ""}]},
    {"boot": [AT_BOOT]},
    {"shut": ["/run/nologin"], "jobs": STUCK},
]
TOLD = {"table": "filter", "chain": "OUTPUT", "policy": "ACCEPT", "complete": True}


def healthy(role: str) -> Evidence:
    """Return what the collector would say of a healthy host that has this role and nothing else."""
    subject = value(role, f"__{role}_subject", **INPUTS.get(role, {}))
    unit = {"load": "loaded", "active": "active", "sub": "running", "enabled": "enabled", "result": "success"}
    ended = {**unit, "active": "inactive", "sub": "dead", "enabled": "static"}
    units = {
        item["name"]: {
            **(ended if item.get("oneshot") else unit),
            "fragment": "",
            "after": item.get("after", []),
            "log": [],
        }
        for item in subject["units"]
    }
    lock = {"present": False, "pid": None, "alive": False, "age_s": None, "owner_age_s": None}
    paths = {
        item["path"]: {"kind": "link" if "link" in item else "file", "size": 1, "link": "", "leads_to": "", **item}
        for item in subject["paths"]
    }
    places = subject.get("logs") or []
    room = {"size_bytes": 90 << 20, "free_bytes": 60 << 20, "inodes": 24000, "free_inodes": 23900}
    tests = [subject["config_test"]] if subject["config_test"] else []
    return {
        **copy.deepcopy(RECORDED),
        "subjects": [subject],
        "units": units,
        "paths": paths,
        "mounts": {item["path"]: {"mounted": True, "source": "/", "entries": []} for item in subject["mounts"]},
        "trees": {item["path"]: {"seen": 0, "wrong": [], "complete": True} for item in subject.get("trees") or []},
        "answers": {
            f"{item['url']} {item['host']}": {
                "status": int(str(item["status"][0]).replace("x", "0")),
                "bytes": 3,
                "seconds": 0.1,
                "words": "ok",
            }
            for item in subject.get("answers") or []
        },
        "listens": {place_of(item): True for item in subject.get("listens") or []},
        "names": {item["name"]: list(item["addresses"]) for item in subject.get("names") or []},
        "reaches": {
            f"{item['name']}:{item['port']}": [{"address": "192.0.2.7", "ok": True, "why": ""}]
            for item in subject.get("reaches") or []
        },
        "locks": {item["path"]: dict(lock) for item in subject.get("locks") or []},
        "disks": {**copy.deepcopy(RECORDED["disks"]), **{place["directory"]: dict(room) for place in places}},
        "logs": {
            place["directory"]: {"mount": place["directory"], "keep_mount": "/", "old_bytes": 9 << 20, "old": []}
            for place in places
        },
        "deleted": [],
        "way_in": copy.deepcopy(WAY_IN) if subject.get("accounts") else None,
        "configs": {words.split()[0]: {"ok": True, "message": "", "file": ""} for words in tests},
        "databases": {item["socket"]: {**ANSWERS, "most": 60} for item in [subject.get("database")] if item},
        "logins": {
            item["environment"]: {"ok": True, "code": 0, "message": ""} for item in [subject.get("login")] if item
        },
    }


def broken(evidence: Evidence) -> Iterator[tuple[str, Evidence]]:
    """Yield copies of evidence with one thing broken each, and what it is."""
    wrongs: list[tuple[str, str, dict[str, Any]]] = []
    for name in evidence["units"]:
        for load in ("masked", "not-found", "bad-setting", "error"):
            wrongs.append(("units", name, {"load": load, "active": "inactive", "enabled": ""}))
        wrongs += [("units", name, {"active": state, "result": "exit-code"}) for state in ("failed", "inactive")]
        wrongs += [("units", name, {"enabled": "disabled", "active": state}) for state in ("active", "inactive")]
        wrongs.append(("units", name, {"after": []}))
    for path in evidence["paths"]:
        wrongs += [("paths", path, change) for change in ({"mode": "0000"}, {"owner": "nobody"}, {"group": "nogroup"})]
        wrongs.append(("paths", path, {"kind": "missing", "link": ""}))
        wrongs += [
            ("paths", path, {"kind": "link", "link": "/nowhere", "leads_to": "missing"}),
            ("paths", path, {"kind": "directory", "link": ""}),
        ]
    for path in evidence["mounts"]:
        wrongs.append(("mounts", path, {"mounted": False}))
    for path in evidence["trees"]:
        below = {"path": f"{path}/below", "mode": "0600", "kind": "file"}
        wrongs.append(("trees", path, {"wrong": [below]}))
    for path in evidence["locks"]:
        held = {"present": True, "pid": 312, "age_s": 40000.0}
        wrongs += [("locks", path, held), ("locks", path, {**held, "alive": True, "owner_age_s": 99.0})]
        wrongs.append(("locks", path, {**held, "pid": None}))
    for name in evidence["configs"]:
        for file in ("", "/etc/elsewhere.conf"):
            wrongs.append(("configs", name, {"ok": False, "message": f"refused in {file}:1", "file": file}))
    for place, seen in evidence.get("databases", {}).items():
        wrongs += [("databases", place, {"connections": seen["most"]}), ("databases", place, {"most": 3})]
        wrongs.append(("databases", place, {"answers": False, "code": 1040, "most": 0}))
        wrongs += [("databases", place, {"crashed": [{"table": name, "words": "145"}]}) for name in ("a.b", "a.`b")]
    for path in evidence.get("logins", {}):
        wrongs += [("logins", path, {"ok": False, "code": code}) for code in (0, 1044, 1045, 1698, 2002)]
    for question in evidence.get("answers", {}):
        wrongs += [("answers", question, {"status": status}) for status in (200, 301, 403, 404, 503)]
        worse = copy.deepcopy(evidence)
        worse["answers"][question] = {"why": "Connection refused", "error": "ECONNREFUSED"}
        yield f"nobody listens for {question}", worse
    for place in evidence.get("listens", {}):
        worse = copy.deepcopy(evidence)
        worse["listens"][place] = False
        yield f"nobody listens on {place}", worse
    for name in evidence["names"]:
        for seen in ([], ["192.0.2.99"]):
            worse = copy.deepcopy(evidence)
            worse["names"][name] = seen
            yield f"{name} resolves to {seen}", worse
    for rule in ("-d 192.0.2.7/32 -j DROP", "-p tcp -m tcp --dport 8420 -j REJECT", "-j DROP", "-p ipv6-icmp -j DROP"):
        family = "ipv6" if "ipv6" in rule else "ipv4"
        chain = {**TOLD, "rules": [f"-A OUTPUT {rule}"]}
        worse = copy.deepcopy(evidence)
        for seen in worse.get("reaches", {}).values():
            seen[0].update(ok=False, why="TIMEOUT")
        worse["global_ipv6"] = True
        worse["firewall"] = [{"family": family, "backend": "nft", **chain}]
        yield f"a firewall with {rule}", worse
        worse = copy.deepcopy(evidence)
        worse["global_ipv6"] = True
        worse["saved_firewall"] = {"/etc/iptables/rules.v4": {"family": family, "chains": [chain]}}
        yield f"a saved firewall with {rule}", worse
    for place in [place for subject in evidence["subjects"] for place in subject.get("logs") or []]:
        log = {"pid": 41, "unit": place["unit"], "path": f"{place['directory']}/x.log", "mount": place["directory"]}
        for size in (0, 4 << 20, 40 << 20):
            worse = copy.deepcopy(evidence)
            worse["disks"][place["directory"]]["free_bytes"] = 0
            worse["deleted"] = [{**log, "bytes": size}] if size else []
            yield f"{place['directory']} is full, {size} bytes of deleted logs", worse
    for change in SHUT if evidence.get("way_in") else ():
        for disk in (False, True):
            worse = copy.deepcopy(evidence)
            worse["way_in"].update(copy.deepcopy(change))
            if disk:
                del worse["boot"]
            else:
                worse["boot"]["up_s"] = 1000.0
            yield f"way in with {change}{' of a disk' * disk}", worse
    if evidence.get("way_in"):
        worse = copy.deepcopy(evidence)
        del worse["boot"]
        worse["healthy"], worse["state"] = ({"facts": {"host_key:rsa": {"fingerprint": sign}}} for sign in "ab")
        yield "a host key that is another", worse
    for room, name, change in wrongs:
        worse = copy.deepcopy(evidence)
        worse[room][name].update(change)
        yield f"{name} with {change}", worse
