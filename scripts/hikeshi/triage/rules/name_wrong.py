"""A name that a role made known resolves to nothing, or to somebody else."""

import ipaddress
from collections.abc import Iterable, Iterator

from hikeshi.triage.findings import Effect, Evidence, Finding, Step


def find(evidence: Evidence) -> Iterator[Finding]:
    """Compare what each name resolves to with the addresses its role wants; what more it resolves to is not ours."""
    host = evidence["host"]
    for subject in evidence["subjects"]:
        for wanted in subject.get("names") or []:
            name = wanted["name"]
            seen = evidence["names"].get(name)
            if seen is None or _same(wanted["addresses"]) <= _same(seen):
                continue
            known = f"resolves to {', '.join(seen)}" if seen else "is not known"
            yield Finding(
                rule="name_wrong",
                host=host,
                subject=f"name:{name}",
                effect=Effect.CANNOT_BUY,
                cause=f"the name {name} {known}; it should be {', '.join(wanted['addresses'])}",
                quote=f"getent ahosts {name}: {' '.join(seen) or 'no answer'}",
                remedy=(Step(host, subject["role"], "hosts", "disk"),),
            )


def _same(addresses: Iterable[str]) -> set[str]:
    """Return addresses in one way of writing each: fd00:0::1 and fd00::1 are the same."""
    found = set()
    for address in addresses:
        try:
            found.add(str(ipaddress.ip_address(address)))
        except ValueError:
            found.add(address)
    return found
