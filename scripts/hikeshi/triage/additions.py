"""What people added to a host, told apart from what roles and packages made: reported, and never judged."""

from collections.abc import Mapping
from dataclasses import dataclass

from hikeshi.triage.findings import Evidence

_WORDS = {
    "file": "no role and no package wrote it",
    "link": "no role and no package made it; it leads to {more}",
    "setting": "not as the package {more} brought it",
    "user": "no role made this account ({more})",
}


@dataclass(frozen=True)
class Addition:
    """One thing that people added. `subject` is file:PATH, link:PATH, setting:PATH or user:NAME."""

    host: str
    subject: str
    words: str


def find(evidence: Mapping[str, Evidence]) -> list[Addition]:
    """Return what people added to all hosts, by host, in the order of the evidence. No rule and no plan reads it."""
    return [
        Addition(host, f"{item['kind']}:{item['name']}", _WORDS[item["kind"]].replace("{more}", item["more"]))
        for host in sorted(evidence)
        for item in evidence[host].get("additions", [])
    ]
