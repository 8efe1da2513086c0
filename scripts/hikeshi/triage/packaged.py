"""What is not as its package brought it. Pure, and no finding: people and roles change files for good reasons."""

from collections.abc import Mapping
from dataclasses import dataclass

from hikeshi.triage.findings import Evidence


@dataclass(frozen=True)
class Altered:
    """One file that differs from its package's. `package` is "" where that is not known; `conffile`: a setting."""

    host: str
    path: str
    package: str
    what: str
    conffile: bool

    @property
    def words(self) -> str:
        """What became of it, in one line."""
        words = _WORDS[self.what] + (", a setting" if self.conffile else "")
        return f"{words} (package {self.package})" if self.package else words


_WORDS = {
    "missing": "is missing",
    "changed": "has another content",
    "mode": "is no ordinary file any more",
    "unreadable": "cannot be read",
}


def find(evidence: Mapping[str, Evidence]) -> list[Altered]:
    """Return what is not as its package brought it, programs and data of all hosts before settings.

    What a role writes is left out: the role says how it should be, and rules and the build judge that.
    """
    found = [
        Altered(host, item["path"], item["package"], item["what"], item["conffile"])
        for host in sorted(evidence)
        for item in evidence[host].get("verify") or []
        if not _is_a_roles(item["path"], evidence[host])
    ]
    return sorted(found, key=lambda item: item.conffile)


def _is_a_roles(path: str, evidence: Evidence) -> bool:
    for subject in evidence["subjects"]:
        own = {item["path"] for item in subject.get("paths") or []}
        own |= {f"{place['path']}/{name}" for place in subject.get("directories") or [] for name in place["own"]}
        if path in own:
            return True
    return False
