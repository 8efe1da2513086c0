"""A web server answers, and not what it should: the load balancer takes the server out, or pictures are not found."""

from collections.abc import Iterator

from hikeshi.triage.findings import Effect, Evidence, Finding, Step
from hikeshi.triage.rules import path_wrong, unit_down

BROKEN = 500  # from here on what stands behind the web server does not work, or is only starting


def find(evidence: Evidence) -> Iterator[Finding]:
    """Compare what came back with what the role wants: another answer means that the configuration leads elsewhere.

    Judged only where the server runs, its configuration is valid, and nothing is wrong with the role's own units and
    paths: else it would be said twice. The step writes the role's part again, and the server's owner has it served. A
    server that runs and does not listen there is its owner's, whoever asks. What came too late is no answer to judge.
    """
    host = evidence["host"]
    for subject in evidence["subjects"]:
        for wanted in subject.get("answers") or []:
            url, unit = wanted["url"], wanted["unit"]
            owner, question = _owner(evidence, unit), f"GET {url}, Host: {wanted['host']}"
            seen = evidence.get("answers", {}).get(f"{url} {wanted['host']}", {})
            if "status" in seen:
                if seen["status"] >= BROKEN or _is_right(seen["status"], wanted["status"]):
                    continue
                right = " or ".join(map(str, wanted["status"]))
                cause = f"{unit} answers {url} with {seen['status']}, not {right}: {wanted['what']}"
                quote = f"{question}: {seen['status']}, {seen['bytes']} bytes: {seen.get('words', '')}"
            elif seen.get("error") == "ECONNREFUSED" and owner is subject:
                cause = f"{unit} runs, and nobody listens where {url} is asked: {wanted['what']}"
                quote = f"{question}: {seen['why']}"
            else:
                continue
            if evidence["units"].get(unit, {}).get("active") != "active" or _said_already(evidence, subject):
                continue
            test = (owner.get("config_test") or "-").split()[0]
            if not evidence["configs"].get(test, {"ok": True})["ok"]:
                continue
            steps = [Step(host, subject["role"], wanted["restore_step"], "disk")]
            if owner.get("reload_step"):
                steps.append(Step(host, owner["role"], owner["reload_step"], "live"))
            if _is_gone(evidence, wanted):
                cause = (
                    f"there is no directory {wanted['directory']}: what lay in it is lost, or another disk is mounted"
                )
                steps = []
            yield Finding(
                rule="answer_wrong",
                host=host,
                subject=f"answer:{url}",
                effect=Effect[wanted["means"].upper()],
                cause=cause,
                quote=quote,
                remedy=tuple(steps),
            )


def _is_right(status: int, wanted: list[int | str]) -> bool:
    return not {str(status), f"{status // 100}xx"}.isdisjoint(map(str, wanted))


def _is_gone(evidence: Evidence, wanted: Evidence) -> bool:
    """Say whether a server does not find the directory that is asked for because there is none."""
    seen = evidence["paths"].get(wanted["directory"]) if wanted.get("directory") else None
    if seen is None:
        return False
    return "directory" not in (seen["kind"], seen.get("leads_to")) and seen["kind"] != "unreadable"


def _said_already(evidence: Evidence, subject: Evidence) -> bool:
    alone = {**evidence, "subjects": [subject]}
    return any(True for rule in (unit_down, path_wrong) for _ in rule.find(alone))


def _owner(evidence: Evidence, unit: str) -> Evidence:
    """Return the subject that owns a unit, which may be another role's; {} when none does."""
    for subject in evidence["subjects"]:
        if any(own["name"] == unit for own in subject.get("units") or []):
            return subject  # type: ignore[no-any-return]
    return {}
