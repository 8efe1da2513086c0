"""Evidence of a host that one role built, and of the same host with one thing after the other broken."""

import copy
import json
from collections.abc import Iterator
from typing import Any

from tests.contract.project import ROOT
from tests.templates.rendering import value

Evidence = dict[str, Any]
RECORDED: Evidence = json.loads((ROOT / "tests" / "unit" / "evidence" / "web1.json").read_text())

# What the least a role must be given would not show: a job with everything that can be wrong with one.
JOB = {"name": "nightly", "description": "A job", "schedule": "daily", "user": "nightly", "command": "/bin/true"}
MORE = {"catch_up": True, "catch_up_why": "it may", "directory": "/srv/nightly", "lock": "/srv/nightly/lock"}
INPUTS: dict[str, dict[str, Any]] = {"batch_jobs": {"batch_jobs_jobs": [{**JOB, **MORE}]}}


def healthy(role: str) -> Evidence:
    """Return what the collector would say of a healthy host that has this role and nothing else."""
    subject = value(role, f"__{role}_subject", **INPUTS.get(role, {}))
    unit = {"load": "loaded", "active": "active", "sub": "running", "enabled": "enabled", "result": "success"}
    ended = {**unit, "active": "inactive", "sub": "dead", "enabled": "static"}
    units = {
        item["name"]: {**(ended if item.get("oneshot") else unit), "fragment": "", "log": []}
        for item in subject["units"]
    }
    lock = {"present": False, "pid": None, "alive": False, "age_s": None, "owner_age_s": None}
    paths = {item["path"]: {"kind": "file", "size": 1, "link": "", **item} for item in subject["paths"]}
    tests = [subject["config_test"]] if subject["config_test"] else []
    return {
        **copy.deepcopy(RECORDED),
        "subjects": [subject],
        "units": units,
        "paths": paths,
        "mounts": {item["path"]: {"mounted": True, "source": "/", "entries": []} for item in subject["mounts"]},
        "trees": {item["path"]: {"seen": 0, "wrong": [], "complete": True} for item in subject.get("trees") or []},
        "names": {item["name"]: list(item["addresses"]) for item in subject.get("names") or []},
        "locks": {item["path"]: dict(lock) for item in subject.get("locks") or []},
        "configs": {words.split()[0]: {"ok": True, "message": "", "file": ""} for words in tests},
    }


def broken(evidence: Evidence) -> Iterator[tuple[str, Evidence]]:
    """Yield copies of evidence with one thing broken each, and what it is."""
    wrongs: list[tuple[str, str, dict[str, Any]]] = []
    for name in evidence["units"]:
        for load in ("masked", "not-found", "bad-setting", "error"):
            wrongs.append(("units", name, {"load": load, "active": "inactive", "enabled": ""}))
        wrongs += [("units", name, {"active": state, "result": "exit-code"}) for state in ("failed", "inactive")]
        wrongs += [("units", name, {"enabled": "disabled", "active": state}) for state in ("active", "inactive")]
    for path in evidence["paths"]:
        wrongs += [("paths", path, change) for change in ({"mode": "0000"}, {"owner": "nobody"}, {"group": "nogroup"})]
        wrongs.append(("paths", path, {"kind": "missing"}))
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
    for name in evidence["names"]:
        for seen in ([], ["192.0.2.99"]):
            worse = copy.deepcopy(evidence)
            worse["names"][name] = seen
            yield f"{name} resolves to {seen}", worse
    for room, name, change in wrongs:
        worse = copy.deepcopy(evidence)
        worse[room][name].update(change)
        yield f"{name} with {change}", worse
