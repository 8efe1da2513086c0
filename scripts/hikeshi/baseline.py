"""The baseline: a healthy site's state, recorded in peacetime and kept off the host.

It lies beside the site's private data, open to us alone, and never in a journal or in git:

    baselines/key             makes the digests of files: who reads a baseline learns nothing of a secret file
    baselines/texts/HASH      the text of a file that others may read, too; named by the SHA-256 of its content
    baselines/TIME.json       one record: schema, site, at, healthy, by, why, probes, hosts: host → {facts, texts}

`facts` are the host's (roles/evidence/module_utils/hikeshi_state.py); `texts`: path → name of its text. All records are
kept; the newest healthy one is what drift is judged against.
"""

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hikeshi.errors import MisconfiguredError, UsageError
from hikeshi.files import write_private
from hikeshi.incident.journal import actor, explained
from hikeshi.incident.record import digest
from hikeshi.probes import ProbeResult
from hikeshi.site import Site, shown, site_secrets
from hikeshi.text import Redactor

SCHEMA = 1
_KEY = re.compile("[0-9a-f]{64}")
_TIME = "%Y%m%dT%H%M%S%fZ"


@dataclass(frozen=True)
class Baseline:
    """One recorded state. `hosts`: host → {facts, texts}, texts being path → name of the file that holds it."""

    name: str
    at: datetime
    healthy: bool
    by: str
    why: str
    hosts: Mapping[str, Mapping[str, Any]]
    folder: Path

    def text(self, host: str, path: str) -> str | None:
        """Return the text that a file had; None where it was not kept."""
        name = self.hosts.get(host, {}).get("texts", {}).get(path)
        try:
            return (self.folder / "texts" / name).read_text(encoding="utf-8") if name else None
        except (OSError, ValueError):
            return None  # somebody took it away; what it was is not known any more

    def known(self, host: str) -> dict[str, str]:
        """Return the texts that are kept: beginning of the file's digest → name. These need not be sent again."""
        kept = self.hosts.get(host, {"facts": {}, "texts": {}})
        digests = ((kept["facts"].get(f"file:{path}", {}).get("digest"), name) for path, name in kept["texts"].items())
        return {str(digest)[:16]: name for digest, name in digests if digest}


def folder(site: Site) -> Path:
    """Return where a site's baselines lie."""
    return site.private / "baselines"


def key(site: Site) -> str:
    """Return the key of the digests, made with the first record; with another one every file would seem changed."""
    path = folder(site) / "key"
    try:
        kept = path.read_text(encoding="ascii").strip()
        if not _KEY.fullmatch(kept):
            raise ValueError(f"it is {len(kept)} characters long; 64 hexadecimal digits were written")
        return kept
    except FileNotFoundError as error:
        if names(site):
            raise MisconfiguredError(
                f"{shown(path)} is missing, and without it nothing can be compared with the baselines beside it.",
                f"put it back; or begin anew: mv {shown(path.parent)} {shown(path.parent)}.old, then hikeshi baseline",
            ) from error
        made = secrets.token_hex(32)
        with explained(f"the key of the baselines, {path},", path.parent, "Nothing was recorded."):
            write_private(path, made + "\n")
        return made
    except (OSError, ValueError) as error:
        raise MisconfiguredError(
            f"{shown(path)} cannot be used: {error}.",
            f"put it back; or begin anew: mv {shown(path.parent)} {shown(path.parent)}.old, then hikeshi baseline",
        ) from error


def names(site: Site) -> list[str]:
    """Return the names of all records, the oldest first."""
    return sorted(path.stem for path in folder(site).glob("*.json"))


def read(site: Site, name: str) -> Baseline:
    """Return one record."""
    path = folder(site) / f"{name}.json"
    if name not in names(site):
        raise UsageError(
            f"no baseline '{name}' of site {site.name}; there are: {', '.join(names(site)) or 'none'}.",
            "hikeshi baseline --list",
        )
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["schema"] != SCHEMA:
            raise ValueError(f"schema {data['schema']!r}; known: {SCHEMA}")
        at = datetime.fromisoformat(data["at"])
        hosts = {
            host: {"facts": dict(kept["facts"]), "texts": dict(kept["texts"])} for host, kept in data["hosts"].items()
        }
        return Baseline(name, at, bool(data["healthy"]), str(data["by"]), str(data["why"]), hosts, folder(site))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise MisconfiguredError(
            f"{shown(path)} cannot be used: {error}.",
            f"move it away, then hikeshi baseline --site {site.name} when the site is healthy",
        ) from error


def newest(site: Site) -> Baseline | None:
    """Return the newest healthy record; None while there is none."""
    for name in reversed(names(site)):
        found = read(site, name)
        if found.healthy:
            key(site)  # refuses here what could not be compared later
            return found
    return None


def keep(
    site: Site,
    evidence: Mapping[str, Mapping[str, Any]],
    probes: Sequence[ProbeResult],
    *,
    before: Baseline | None,
    healthy: bool,
    why: str,
) -> Baseline:
    """Write a record of the state in the evidence, and return it. Texts that `before` knows were not sent again."""
    redactor = Redactor(site_secrets(site))
    now = datetime.now(UTC)
    where = folder(site)
    hosts: dict[str, Any] = {}
    with explained(f"the baseline in {where}", where, "Nothing was recorded."):
        for host, seen in evidence.items():
            texts = _known_texts(seen["state"]["facts"], before.known(host) if before else {})
            for path, text in seen["state"]["texts"].items():
                if redactor.text(text) != text:
                    continue  # a file that all may read holds a secret of ours: not one more copy of it
                name = digest(text.encode())
                if not (where / "texts" / name).exists():
                    write_private(where / "texts" / name, text)
                texts[path] = name
            hosts[host] = {"facts": _redacted(redactor, seen["state"]["facts"]), "texts": texts}
        data = {
            "schema": SCHEMA, "site": site.name, "at": now.isoformat(timespec="seconds"), "healthy": healthy,
            "by": actor(), "why": why, "probes": [asdict(item) for item in probes], "hosts": hosts,
        }  # fmt: skip
        write_private(where / f"{now:{_TIME}}.json", json.dumps(data, ensure_ascii=True))
    return read(site, f"{now:{_TIME}}")


def _known_texts(facts: Mapping[str, Mapping[str, Any]], known: Mapping[str, str]) -> dict[str, str]:
    """Return path → name of text of every file whose content is known already; of none that became secret since."""
    return {
        subject.partition(":")[2]: known[str(fields["digest"])[:16]]
        for subject, fields in facts.items()
        if subject.startswith("file:") and not fields.get("secret") and str(fields.get("digest", ""))[:16] in known
    }


def _redacted(redactor: Redactor, facts: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return facts without known secrets; their names say nothing secret, though they may contain "password"."""
    return {
        subject: {name: redactor.text(value) if isinstance(value, str) else value for name, value in fields.items()}
        for subject, fields in facts.items()
    }
