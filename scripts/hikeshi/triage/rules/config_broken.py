"""A service's own test refuses its configuration: a reload is ignored, a restart fails."""

from collections.abc import Iterator

from hikeshi.triage.findings import Effect, Evidence, Finding, Step


def find(evidence: Evidence) -> Iterator[Finding]:
    """Turn a failed configuration test into the owner's `configuration` step, naming the broken file."""
    host = evidence["host"]
    for subject in evidence["subjects"]:
        name = (subject.get("config_test") or "-").split()[0]
        seen = evidence["configs"].get(name)
        if seen is None or seen["ok"]:
            continue
        down = any(evidence["units"].get(unit["name"], {}).get("active") != "active" for unit in subject["units"])
        yield Finding(
            rule="config_broken",
            host=host,
            subject=f"config:{name}",
            effect=Effect.CANNOT_BUY if down else Effect.WILL_BREAK,
            cause=f"{name} refuses its configuration" + (f", in {seen['file']}" if seen["file"] else ""),
            quote=seen["message"],
            remedy=_remedy(host, subject, seen["file"]),
        )


def _remedy(host: str, subject: Evidence, file: str) -> tuple[Step, ...]:
    if not subject.get("reload_step"):
        return ()  # a role without repair steps is mended by converging
    role = subject["role"]
    return (
        Step(host, role, "configuration", "disk", {"path": file} if file else {}),
        Step(host, role, subject["reload_step"], "live"),
    )
