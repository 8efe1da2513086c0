"""The database takes no more connections, or fewer than its role set."""

from collections.abc import Iterator

from hikeshi.triage.findings import Evidence, Finding, Step, effect_of_down, effect_of_risk

TOO_MANY_CONNECTIONS = 1040  # said to root, too, when somebody holds the one connection kept for root


def find(evidence: Evidence) -> Iterator[Finding]:
    """Compare the connections there are with those there may be, and these with what the role wants."""
    host = evidence["host"]
    for subject in evidence["subjects"]:
        wanted = subject.get("database")
        seen = evidence.get("databases", {}).get(wanted["socket"]) if wanted else None
        if not wanted or seen is None or not (seen["answers"] or seen["code"] == TOO_MANY_CONNECTIONS):
            continue
        used_up = not seen["answers"] or seen["connections"] >= seen["most"]
        if not used_up and seen["most"] >= wanted["connections"]:
            continue
        unit = subject["units"][0]["name"]
        fewer = f"takes {seen['most']} connections instead of {wanted['connections']}"
        counts = f"{seen['connections']} of {seen['most']} connections, {seen['idle']} of them asleep"
        yield Finding(
            rule="connections_used",
            host=host,
            subject=f"connections:{unit}",
            effect=effect_of_down(subject) if used_up else effect_of_risk(subject),
            cause=f"{unit} {'has all its connections in use' if used_up else fewer}",
            quote=counts if seen["answers"] else seen["message"],
            remedy=(Step(host, subject["role"], "connections", "live"),),
        )
