"""The database takes no more connections."""

from collections.abc import Iterator

from hikeshi.triage.findings import Evidence, Finding, Step, effect_of_down

TOO_MANY_CONNECTIONS = 1040  # said to root, too, when somebody holds the one connection kept for root


def find(evidence: Evidence) -> Iterator[Finding]:
    """Compare the connections there are with those there may be: how many these are is the administrator's choice."""
    host = evidence["host"]
    for subject in evidence["subjects"]:
        wanted = subject.get("database")
        seen = evidence.get("databases", {}).get(wanted["socket"]) if wanted else None
        if not wanted or seen is None or not (seen["answers"] or seen["code"] == TOO_MANY_CONNECTIONS):
            continue
        if seen["answers"] and seen["connections"] < seen["most"]:
            continue
        unit = subject["units"][0]["name"]
        counts = f"{seen['connections']} of {seen['most']} connections, {seen['idle']} of them asleep"
        yield Finding(
            rule="connections_used",
            host=host,
            subject=f"connections:{unit}",
            effect=effect_of_down(subject),
            cause=f"{unit} has all its connections in use",
            quote=counts if seen["answers"] else seen["message"],
            remedy=(Step(host, subject["role"], "connections", "live"),),
        )
