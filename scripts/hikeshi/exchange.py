"""Ask hosts, and hear them, past Ansible's variables and events: through a private folder that is gone afterwards.

Names and texts of hosts are hostile, and would be read as templates in a variable; some may hold secrets, which no
event and no record may carry.
"""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hikeshi.errors import HikeshiError
from hikeshi.files import make_private_folder, remove_abandoned, write_private
from hikeshi.incident.journal import explained
from hikeshi.site import Site

_PREFIX = ".exchange-"


@contextmanager
def folder(site: Site, asked: Mapping[str, Any]) -> Iterator[Path]:
    """Make the folder, with what is asked in ask.json; an action plugin reads it, and writes HOST.json."""
    make_private_folder(site.records)
    remove_abandoned(site.records, _PREFIX)  # of those that were killed
    with tempfile.TemporaryDirectory(dir=site.records, prefix=f"{_PREFIX}{os.getpid()}-") as name:
        with explained(f"the folder {name}", site.records, "Nothing was asked."):
            write_private(Path(name) / "ask.json", json.dumps(asked))
        yield Path(name)


def answer(where: Path, host: str, what: str) -> Any:
    """Return what a host answered; raise, saying `what` it did not tell, when it answered nothing."""
    try:
        return json.loads((where / f"{host}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HikeshiError(
            f"{host} did not tell {what}: {type(error).__name__}: {error}.",
            "the same command again; if it stays so, look at the host by hand",
        ) from error
