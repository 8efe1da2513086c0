"""A table that the database cannot open: a crash left it half written, and nothing repairs it by itself."""

import re
from collections.abc import Iterator

from hikeshi.triage.findings import Evidence, Finding, Step, effect_of_down

PLAIN = re.compile(r"[A-Za-z0-9_$-]+[.][A-Za-z0-9_$-]+")  # what the step takes: the name comes from the host


def find(evidence: Evidence) -> Iterator[Finding]:
    """Turn each table into the owner's step, which keeps a copy of its files first."""
    host = evidence["host"]
    for subject in evidence["subjects"]:
        wanted = subject.get("database")
        seen = evidence.get("databases", {}).get(wanted["socket"]) if wanted else None
        for item in seen["crashed"] if seen else ():
            table = item["table"]
            step = Step(host, subject["role"], "table_repair", "live", {"table": table})
            yield Finding(
                rule="table_crashed",
                host=host,
                subject=f"table:{table}",
                effect=effect_of_down(subject),
                cause=f"the database cannot open the table {table}",
                quote=item["words"],
                remedy=(step,) if PLAIN.fullmatch(table) else (),
            )
