"""A service's own test refuses its configuration: a reload is ignored, a restart fails."""

from collections.abc import Iterator

from hikeshi.triage.findings import Effect, Evidence, Finding, Step, effect_of_down

# EAI_NONAME and EAI_NODATA: the name server itself said that there is no such host.
DENIED = (-2, -5)
ON_DISK = True


def find(evidence: Evidence) -> Iterator[Finding]:
    """Turn a failed configuration test into the owner's step for it, naming the broken file."""
    host = evidence["host"]
    for subject in evidence["subjects"]:
        name = (subject.get("config_test") or "-").split()[0]
        seen = evidence["configs"].get(name)
        if seen is None or seen["ok"]:
            continue
        lost = seen.get("unresolved")
        # A file that names a host is right again once hosts are found again: nobody moves it away before that.
        doubtful = bool(lost) and lost["code"] not in DENIED
        cause = f"{name} refuses its configuration" + (f", in {seen['file']}" if seen["file"] else "")
        if doubtful:
            known = "is found now" if lost["code"] == 0 else "is not known: name resolution does not work now"
            cause += f"; the host {lost['name']} in it {known}"
        down = any(evidence["units"].get(unit["name"], {}).get("active") != "active" for unit in subject["units"])
        yield Finding(
            rule="config_broken",
            host=host,
            subject=f"config:{name}",
            effect=effect_of_down(subject) if down else Effect.WILL_BREAK,
            cause=cause,
            quote=seen["message"],
            remedy=() if doubtful else _remedy(host, subject, seen["file"]),
            explains=tuple(f"unit:{unit['name']}" for unit in subject["units"]),
        )


def _remedy(host: str, subject: Evidence, file: str) -> tuple[Step, ...]:
    role, reload = subject["role"], subject.get("reload_step")
    mend = subject.get("configuration_step") or ("configuration" if reload else "")
    if not mend:
        return ()  # a role without repair steps is mended by converging
    steps = [Step(host, role, mend, "disk", {"path": file} if file else {})]
    if reload:
        steps.append(Step(host, role, reload, "live"))
    return tuple(steps)
