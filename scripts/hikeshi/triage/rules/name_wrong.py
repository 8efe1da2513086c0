"""A name that a role made known resolves to nothing, or to somebody else."""

from collections.abc import Iterator

from hikeshi.triage.findings import Effect, Evidence, Finding, Step


def find(evidence: Evidence) -> Iterator[Finding]:
    """Compare what each name resolves to with the addresses its role wants; what more it resolves to is not ours."""
    host = evidence["host"]
    for subject in evidence["subjects"]:
        for wanted in subject.get("names") or []:
            name = wanted["name"]
            seen = evidence["names"].get(name)
            if seen is None or set(wanted["addresses"]) <= set(seen):
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
