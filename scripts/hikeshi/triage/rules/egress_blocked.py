"""A service cannot reach what it needs elsewhere, such as the payment gateway: our own firewall is in the way."""

from collections.abc import Iterator

from hikeshi.triage import firewall
from hikeshi.triage.findings import Evidence, Finding, effect_of_down, effect_of_risk


def find(evidence: Evidence) -> Iterator[Finding]:
    """Take out a rule that names the address, or the port where no other address is let out by it; more is for people.

    A destination that is not reached for another reason is not ours to mend.
    """
    host, chains = evidence["host"], evidence.get("firewall", [])
    for subject, name, tried in firewall.destinations(evidence):
        found: dict[firewall.Barrier, bool] = {}
        for packet, reached, _ in tried:
            for barrier in () if reached else firewall.barriers(chains, "OUTPUT", packet):
                found[barrier] = found.get(barrier, False) or firewall.names(barrier, packet)
        if not found:
            continue
        some = any(reached for _, reached, _ in tried)
        whys = ", ".join(f"{packet.address} {why}" for packet, reached, why in tried if not reached)
        yield Finding(
            rule="egress_blocked",
            host=host,
            subject=f"reach:{name}",
            effect=effect_of_risk(subject) if some else effect_of_down(subject),
            cause=f"the firewall drops what goes to {name}" + (" at one of its addresses" if some else ""),
            quote="; ".join(barrier.words for barrier in found) + f" ({whys})",
            remedy=tuple(barrier.step(host) for barrier, named in found.items() if named and barrier.removable),
        )
