"""ICMPv6 is dropped: IPv6 works for as long as its neighbours are remembered, half a minute or so, and then dies."""

from collections.abc import Iterator

from hikeshi.triage import firewall
from hikeshi.triage.findings import Effect, Evidence, Finding


def find(evidence: Evidence) -> Iterator[Finding]:
    """Take out the rules that drop messages without which IPv6 does not work; the end of a list of others stays."""
    host = evidence["host"]
    found = firewall.without_neighbours(evidence.get("firewall", []), evidence)
    if not found:
        return
    kinds = sorted({kind for kinds in found.values() for kind in kinds})
    neighbours = any(kind in firewall.NEIGHBOURS for kind in kinds)
    yield Finding(
        rule="neighbours_blocked",
        host=host,
        subject="firewall:icmpv6",
        effect=Effect.CANNOT_SEE if neighbours else Effect.WILL_BREAK,
        cause=f"the firewall drops ICMPv6 of type {', '.join(map(str, kinds))}: "
        + ("IPv6 works for half a minute, then dies" if neighbours else "over IPv6 some connections hang"),
        quote="; ".join(barrier.words for barrier in found),
        remedy=tuple(barrier.step(host) for barrier in found if barrier.removable and firewall.is_plain(barrier)),
    )
