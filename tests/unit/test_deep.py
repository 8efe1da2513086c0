"""`hikeshi triage --deep`: what is not as its package brought it, and what building would change."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from hikeshi.errors import ExitStatus
from hikeshi.runner import Event
from hikeshi.triage import packaged
from tests.unit.commands import Runs, hikeshi
from tests.unit.host_program import loaded
from tests.unit.test_triage import HEALTHY

COLLECT = loaded(Path(__file__).parents[2] / "roles" / "evidence" / "library" / "collect_evidence.py")
VERIFIED = """\
??5?????? c /etc/nginx/mime.types
??5?????? c /etc/nginx/nginx.conf
missing     /usr/share/nginx/html/index.html
missing     /srv/a (b) c
missing     /root/x (Permission denied)
?M5??????   /usr/sbin/nginx
??5??????   /usr/lib/{{ evil }}
dpkg: warning: something
??5??????   relative
"""


def altered(path: str, what: str = "changed", *, conffile: bool = False) -> dict[str, Any]:
    return {"path": path, "package": "nginx", "what": what, "conffile": conffile}


@pytest.fixture
def deep(runs: Runs) -> Runs:
    """A host with a program and two settings that are not as their package brought them; one setting is a role's."""
    evidence = copy.deepcopy(HEALTHY)
    evidence["verify"] = [
        altered("/etc/nginx/mime.types", conffile=True),
        altered("/etc/nginx/nginx.conf", conffile=True),
        altered("/usr/sbin/ngi\x1b[2Jnx"),
    ]
    runs.evidence = [evidence]
    events = [
        ("web_server", "Write nginx.conf", "changed"),
        ("web_server", "Look", "ok"),
        ("", "Say {{ x }}", "changed"),
    ]
    runs.events["build-site.yml"] = [
        Event("web1", role, task, outcome, 0.1)  # type: ignore[arg-type]
        for role, task, outcome in [*events, events[0]]
    ]
    return runs


def test_lines_of_dpkg_are_told_programs_first() -> None:
    assert [(item["path"], item["what"], item["conffile"]) for item in COLLECT.verified(VERIFIED)] == [
        ("/srv/a (b) c", "missing", False),
        ("/usr/share/nginx/html/index.html", "missing", False),
        ("/usr/lib/{{ evil }}", "changed", False),
        ("/usr/sbin/nginx", "mode", False),
        ("/root/x", "unreadable", False),
        ("/etc/nginx/mime.types", "changed", True),
        ("/etc/nginx/nginx.conf", "changed", True),
    ]


class Host(COLLECT.Collector):  # type: ignore[misc, name-defined]
    """Answers in dpkg's place."""

    def __init__(self, *answers: tuple[int, str, str] | None) -> None:
        self.unseen: list[dict[str, str]] = []
        self.answers = list(answers)
        self.asked: list[tuple[str, int | None]] = []

    def command(self, *words: str, **how: Any) -> tuple[int, str, str] | None:
        self.asked.append((words[0], how.get("timeout_s")))
        return self.answers.pop(0)


def test_each_file_is_told_with_its_package_and_dpkg_has_a_minute() -> None:
    host = Host((0, "??5??????   /usr/sbin/nginx\n??5??????   /bin/sh\n", ""), (
        1, "nginx-light:amd64, nginx-full: /usr/sbin/nginx\ndiversion by dash from: /bin/sh\ndash: /bin/sh\n", "no path"
    ))  # fmt: skip
    assert [(item["path"], item["package"]) for item in host.verify()] == [
        ("/bin/sh", "dash"), ("/usr/sbin/nginx", "nginx-light:amd64, nginx-full"),
    ]  # fmt: skip
    assert host.asked == [("dpkg", 60), ("dpkg-query", None)]
    assert host.unseen == []


def test_a_host_that_is_all_changed_is_told_of_in_part() -> None:
    told = "".join(f"??5??????   /usr/{number:04}\n" for number in range(500))
    host = Host((0, told, ""), (1, "", ""))
    assert len(host.verify()) == 200
    assert host.unseen == [{"source": "dpkg --verify", "why": "500 files, of which 200 are told"}]


@pytest.mark.parametrize("answer", [None, (2, "", "dpkg: error: database is locked")])
def test_dpkg_that_does_not_answer_tells_nothing(answer: tuple[int, str, str] | None) -> None:
    host = Host(answer)
    assert host.verify() is None
    assert len(host.unseen) == (answer is not None), "of one that took too long, the command has said so"


def test_what_a_role_writes_is_not_told() -> None:
    subject = {"role": "web_server", "paths": [{"path": "/etc/a"}], "directories": [{"path": "/etc/d", "own": ["b"]}]}
    verify = [altered("/etc/a"), altered("/etc/d/b"), altered("/etc/d/c", conffile=True), altered("/usr/x", "missing")]
    found = packaged.find({"web1": {"subjects": [subject], "verify": verify}, "web2": {"subjects": [], "verify": None}})
    assert [(item.path, item.words) for item in found] == [
        ("/usr/x", "is missing (package nginx)"),
        ("/etc/d/c", "has another content, a setting (package nginx)"),
    ]


def test_both_are_shown_and_are_nothing_wrong(
    monkeypatch: pytest.MonkeyPatch, deep: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hikeshi(monkeypatch, "triage", "--deep", "--json") == ExitStatus.DONE
    data = json.loads(capsys.readouterr().out)
    assert [item["path"] for item in data["packages"]] == ["/usr/sbin/ngi\x1b[2Jnx", "/etc/nginx/mime.types"]
    assert data["desired"] == [
        {"host": "web1", "role": "web_server", "task": "Write nginx.conf"},
        {"host": "web1", "role": "", "task": "Say {{ x }}"},
    ]
    (looked, packages, _), *built = deep.asked
    assert (looked, packages["evidence_packages"]) == ("collect-evidence.yml", True)
    assert built == [("build-site.yml", {}, True)], "building is only tried"
    assert hikeshi(monkeypatch, "triage", "--deep") == ExitStatus.DONE
    shown = capsys.readouterr()
    told = shown.out.split("not as its package brought it")[1]
    assert "web1 · /usr/sbin/ngi\\x1b[2Jnx · has another content (package nginx)" in told
    assert "building would change\n  web1 · web_server · Write nginx.conf\n  web1 · a play · Say {{ x }}" in told
    assert "changed web1" not in shown.err, "nothing was"


def test_nothing_is_asked_for_unless_deep(
    monkeypatch: pytest.MonkeyPatch, runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hikeshi(monkeypatch, "triage", "--json") == ExitStatus.DONE
    data = json.loads(capsys.readouterr().out)
    assert (data["packages"], data["desired"]) == (None, None)
    ((looked, asked, _),) = runs.asked
    assert (looked, list(asked)) == ("collect-evidence.yml", ["evidence_exchange"])


def test_build_that_cannot_be_tried_to_its_end_is_said(
    monkeypatch: pytest.MonkeyPatch, deep: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    deep.failures["build-site.yml"] = [Event("web1", "database", "Ask", "failed", 0.1, "no\nserver")]
    assert hikeshi(monkeypatch, "triage", "--deep", "--json") == ExitStatus.DONE
    data = json.loads(capsys.readouterr().out)
    assert data["unseen"] == ["web1: what building would change after “Ask” of database: no\nserver"]
    assert len(data["desired"]) == 2
