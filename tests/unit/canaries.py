"""Forty secrets that sing: a playbook that says them in every way, and where they must not be found afterwards."""

import base64
import json
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import yaml

from hikeshi import runner
from hikeshi.site import Site

PLAYBOOK = "leak-secrets.yml"
CANARIES = {
    f"secret_canary_{number}": text.format(number)
    for number, text in enumerate(
        [
            "canary-{}-plain", 'canary {} "quoted"', "canary/{}/slash+plus", "canary&{}=form%done",
            "canary\\{}\\back", "canary-{}-鍵", "canary:{}:<tag>", "canary'{}'single",
        ] * 5
    )
}  # fmt: skip
WAYS = [
    "{{ item.value }}",
    "{{ item.value | b64encode }}",
    "{{ item.value | urlencode }}",
    "{{ item.value | to_json }}",
]
PLAYS = [
    {
        "hosts": "all",
        "gather_facts": False,
        "tasks": [
            {"name": "Say", "ansible.builtin.debug": {"msg": WAYS}, "loop": "{{ canaries | dict2items }}"},
            {
                "name": "Let the host say {{ item.value }}",
                "ansible.builtin.command": {"cmd": "cat", "stdin": " ".join(WAYS)},
                "loop": "{{ (canaries | dict2items)[:8] }}",
                "changed_when": True,
            },
            {
                "name": "Fail in a loop",
                "ansible.builtin.fail": {"msg": "cannot use " + " ".join(WAYS)},
                "loop": "{{ canaries | dict2items }}",
            },
        ],
    }
]


@contextmanager
def watching_processes() -> Iterator[set[str]]:
    """Collect the command lines of every process that is seen meanwhile."""
    seen: set[str] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            for process in psutil.process_iter(["cmdline"]):
                seen.add(" ".join(process.info["cmdline"] or []))
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


def disguises(secret: str) -> set[str]:
    quoted = {urllib.parse.quote(secret), urllib.parse.quote(secret, safe=""), urllib.parse.quote_plus(secret)}
    escaped = {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1]}
    escaped |= {json.dumps(text)[1:-1] for text in escaped}
    return {secret, base64.b64encode(secret.encode()).decode().rstrip("="), *quoted, *escaped}


def plant(folder: Path) -> None:
    """Give a site's folder of variables the canaries, as secrets and in a variable made of them."""
    variables = folder / "group_vars" / "all"
    variables.mkdir(parents=True, exist_ok=True)
    path = variables / "secrets.yml"
    secrets = yaml.safe_load(path.read_text()) if path.exists() else {}
    path.write_text(yaml.safe_dump({**secrets, **CANARIES}))
    named = {name: f"{{{{ {name} }}}}" for name in CANARIES}
    (variables / "canaries.yml").write_text(yaml.safe_dump({"canaries": named}))


def must_be_nowhere(site: Site, records: Path, limit: str = "") -> None:
    """Run the playbook; no canary may be in the records, in the result or in any command line seen meanwhile."""
    with watching_processes() as seen:
        result = runner.run(site, PLAYBOOK, verb="leak", limit=limit)
    assert result.status == 2, result.output
    assert len(result.failures) > len(CANARIES)  # each item, then the task
    assert result.folder
    kept = [path for path in records.rglob("*") if path.is_file()]
    assert {"journal.jsonl", "events.jsonl", "output.txt"} <= {path.name for path in kept}
    texts = {str(path): path.read_text(errors="replace") for path in kept}
    texts["command lines"] = "\n".join(seen)
    texts["result"] = json.dumps([event.__dict__ for event in result.failures], ensure_ascii=False) + result.output
    for path in (records, *records.rglob("*")):
        assert path.is_symlink() or path.stat().st_mode & 0o077 == 0, f"{path} can be read by others"
    for name, text in texts.items():
        for canary in CANARIES.values():
            for disguise in disguises(canary):
                assert disguise not in text, f"{disguise!r} stands in {name}"
    assert "[hidden]" in (result.folder / "output.txt").read_text()
