"""What repair steps are made of, as digests: what passed on a copy says nothing of other roles or variables."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from hikeshi.site import PROJECT, Site

# Of a role and of the playbooks no host ever sees these.
_UNSEEN_PARTS, _UNSEEN_SUFFIXES = frozenset({"__pycache__"}), frozenset({".pyc", ".md"})
_VARIABLES = ("hosts.yml", "group_vars", "host_vars")


def of(site: Site) -> dict[str, str]:
    """Return the digests of roles, playbooks and variables with which a site is mended now."""
    return {
        "roles": _digest(PROJECT, [PROJECT / "roles"]),
        "playbooks": _digest(PROJECT, [PROJECT / "playbooks", PROJECT / "ansible.cfg"]),
        # Of the practice site those of this run: in `private`.
        "variables": _digest(None, [folder / name for folder in (site.folder, site.private) for name in _VARIABLES]),
    }


def _digest(root: Path | None, places: Iterable[Path]) -> str:
    """Return one digest of all files at these places; of which name below `root`, or at all, it is part of it."""
    total = hashlib.sha256()
    for place in places:
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            parts = path.parts
            if not path.is_file() or _UNSEEN_PARTS.intersection(parts) or path.suffix in _UNSEEN_SUFFIXES:
                continue
            name = path.relative_to(root) if root else path.relative_to(place.parent)
            total.update(str(name).encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()
