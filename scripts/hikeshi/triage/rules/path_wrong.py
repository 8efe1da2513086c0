"""A file or directory a role owns is missing, or its owner or mode is not what the role made."""

from collections.abc import Iterator

from hikeshi.triage.findings import Effect, Evidence, Finding, Step, effect_of_down, effect_of_risk

ON_DISK = True


def find(evidence: Evidence) -> Iterator[Finding]:
    """Compare paths and trees with what their roles made.

    What lies below a mount point is judged only while the volume is mounted: under it is another directory.
    """
    host = evidence["host"]
    unmounted = [path for path, mount in evidence["mounts"].items() if not mount["mounted"]]
    for subject in evidence["subjects"]:
        # A job is not started because a file of it came back: it waits for its time.
        units = [unit["name"] for unit in subject.get("units") or [] if not unit.get("oneshot")]
        for wanted in subject.get("paths") or []:
            path = wanted["path"]
            seen = evidence["paths"].get(path)
            if seen is None or any(path == mount or path.startswith(f"{mount}/") for mount in unmounted):
                continue
            if "link" in wanted:
                # One that leads elsewhere was led there by somebody, and works.
                nowhere = seen.get("leads_to") == "missing" and seen["link"] != wanted["link"]
                if seen["kind"] not in ("link", "unreadable") or nowhere:
                    yield _link(host, subject, wanted, seen)
                continue
            if seen["kind"] == "missing" and "runtime" in wanted:
                yield from _runtime(evidence, subject, wanted)
                continue
            if seen["kind"] == "missing":
                if not wanted.get("restore_step"):
                    continue  # converging makes it again
                starts = [Step(host, "host_base", "unit_start", "live", {"unit": unit}) for unit in units]
                if subject.get("reload_step"):
                    starts.append(Step(host, subject["role"], subject["reload_step"], "live"))
                yield Finding(
                    rule="path_missing",
                    host=host,
                    subject=f"path:{path}",
                    effect=effect_of_down(subject) if _any_down(evidence, units) else effect_of_risk(subject),
                    cause=f"{path} of role {subject['role']} is missing",
                    quote=f"{path}: no such file or directory",
                    remedy=(Step(host, subject["role"], wanted["restore_step"], "disk"), *starts),
                    explains=tuple(f"unit:{unit}" for unit in units),
                )
                continue
            wrong = {
                key: wanted[key] for key in ("mode", "owner", "group") if key in wanted and seen.get(key) != wanted[key]
            }
            if wrong and seen["kind"] in ("file", "directory"):
                for_customers = subject.get("serves", "customers") == "customers"
                effect = Effect.CANNOT_SEE if for_customers else effect_of_risk(subject)
                yield _wrong(host, path, wrong, f"{seen['mode']} {seen['owner']}:{seen['group']}", effect)
        for tree in subject.get("trees") or []:
            listed = {item["path"] for item in subject.get("paths") or []}
            if tree["path"] in unmounted:
                continue
            for item in evidence["trees"].get(tree["path"], {}).get("wrong", []):
                path = item["path"]
                # The names come from the host: nothing outside the tree is ever touched on its word.
                if path not in listed and path.startswith(f"{tree['path']}/") and ".." not in path.split("/"):
                    bits = int(tree["directories" if item["kind"] == "directory" else "files"], 8)
                    yield _wrong(host, path, {"mode": f"{int(item['mode'], 8) & 0o7777 | bits:04o}"}, item["mode"])


def _runtime(evidence: Evidence, subject: Evidence, wanted: Evidence) -> Iterator[Finding]:
    """Judge the absence of what a unit makes when it starts: under a running unit, it comes back with a restart."""
    path, unit = wanted["path"], wanted["runtime"]
    if evidence["units"].get(unit, {}).get("active") != "active":
        return
    yield Finding(
        rule="path_missing",
        host=evidence["host"],
        subject=f"path:{path}",
        effect=effect_of_down(subject),
        cause=f"{unit} runs, but {path}, which it made when it started, is gone: nobody reaches it",
        quote=f"{path}: no such file or directory; {unit}: active",
        remedy=(Step(evidence["host"], "host_base", "unit_restart", "live", {"unit": unit, "missing": path}),),
        symptom=True,
    )


def _link(host: str, subject: Evidence, wanted: Evidence, seen: Evidence) -> Finding:
    path = wanted["path"]
    there = (
        f"leads to {seen['link']}, which is not there"
        if seen["kind"] == "link"
        else f"is {_KINDS.get(seen['kind'], seen['kind'])}"
    )
    return Finding(
        rule="link_wrong",
        host=host,
        subject=f"path:{path}",
        effect=Effect.CANNOT_SEE,
        cause=f"{path} {there}; it should lead to {wanted['link']}",
        quote=f"{path}: {seen['kind']}" + (f" to {seen['link']}" if seen["kind"] == "link" else ""),
        remedy=(Step(host, subject["role"], wanted["restore_step"], "disk"),) if wanted.get("restore_step") else (),
    )


_KINDS = {"missing": "missing", "file": "a file", "directory": "a directory", "other": "no link"}


def _any_down(evidence: Evidence, units: list[str]) -> bool:
    return any(evidence["units"].get(unit, {}).get("active") != "active" for unit in units)


def _wrong(host: str, path: str, wrong: dict[str, str], seen: str, effect: Effect = Effect.CANNOT_SEE) -> Finding:
    return Finding(
        rule="path_wrong",
        host=host,
        subject=f"path:{path}",
        effect=effect,
        cause=f"{path} should have " + ", ".join(f"{key} {value}" for key, value in wrong.items()),
        quote=f"{path}: {seen}",
        remedy=(Step(host, "host_base", "path_mode", "disk", {"path": path, **wrong}),),
    )
