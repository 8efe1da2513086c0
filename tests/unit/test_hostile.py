"""A host may say anything: what can be judged is judged and shown as text, the rest is refused by name.

Generated evidence goes the whole way of `hikeshi triage`, from where Ansible hands it over to page, JSON and journal.
"""

import copy
import json
import os
import shutil
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hikeshi import baseline, look, page, screen
from hikeshi.errors import HikeshiError
from hikeshi.site import Site, load
from hikeshi.triage import drift, findings, plan, restore, shape
from tests.unit.commands import Runs
from tests.unit.test_triage import HEALTHY

EXAMPLES = 5000 if os.environ.get("HIKESHI_TEST_ALL") else 500  # of each of two tests
SOCKET, LOGS, LOCK, ENVIRONMENT = "/run/mysqld/mysqld.sock", "/var/log/nginx", "/srv/lock", "/etc/shop/checkout.env"
# HEALTHY asks about less than today's roles do.
SUBJECT: dict[str, Any] = {
    "role": "database",
    "units": [
        {"name": "mariadb.service", "enabled": True},
        {"name": "export.service", "oneshot": True, "run_step": "x"},
    ],
    "paths": [{"path": "/srv/link", "link": "/srv/shop"}, {"path": "/run/mysqld", "runtime": "mariadb.service"}],
    "roots": ["/opt/shop"],
    "database": {"socket": SOCKET},
    "login": {"environment": ENVIRONMENT, "unit": "checkout.service", "restore_step": "environment_file"},
    "locks": [{"path": LOCK, "unit": "export.service"}],
    "logs": [
        {
            "directory": LOGS,
            "unit": "nginx.service",
            "written": ".+",
            "move_step": "logs_move",
            "reopen_step": "logs_reopen",
            "resume_step": "logs_resume",
            "means": "cannot_buy",
        }
    ],
    "config_test": "mariadbd --validate",
    "listens": [{"unit": "mariadb.service", "socket": SOCKET, "restore_step": "x", "settings": "/etc/mysql"}],
    "reaches": [{"name": "pay.example", "port": 8420}],
}
# With nothing wrong that would speak in their place.
ANSWERING: dict[str, Any] = {
    "role": "load_balancer",
    "units": [{"name": "haproxy.service", "enabled": True}],
    "config_test": "",
    "answers": [
        {
            "url": url,
            "host": "localhost",
            "status": ["2xx", 301],
            "what": "x",
            "means": "cannot_buy",
            "unit": "haproxy.service",
            "restore_step": "x",
        }
        for url in ("/lb-health", "/refused", "/late")
    ],
}
ADMITTING: dict[str, Any] = {
    "role": "remote_access",
    "units": [],
    "accounts": ["deploy", "gone"],
    "config_test": "",
    "configuration_step": "sshd_configuration",
}
WAY_IN: dict[str, Any] = {
    "shut": ["/etc/nologin", "/run/nologin"],
    "accounts": {"deploy": {"home": "/home/deploy", "shell": "/bin/gone", "shell_kind": "missing", "groups": ["deploy"],
                            "changed": 0, "most": 9, "inactive": None, "expires": 1}, "gone": None},
    "key_paths": {"deploy": [
        {"path": "/home/deploy", "kind": "directory", "mode": "0777", "owner": "bob", "members": ["bob"]}]},
    "sshd": [{"file": "/etc/ssh/sshd_config", "words": words, "match": match}
             for words, match in (("Bogus yes", ""), ("DenyUsers deploy", "all"), ("AllowGroups x", "User deploy"))],
    "modules": [{"file": "/etc/pam.d/sshd", "words": "account required x.so", "kind": "account",
                 "control": "[success=ok default=bad]", "name": "x.so"}],
    "wrappers": [{"file": "/etc/hosts.deny", "words": "ALL, vsftpd: ALL"}],
    "ssh_unit": [{"file": "/etc/x.conf", "words": "RuntimeDirectory=", "key": "RuntimeDirectory", "value": ""}],
    "boot": [{"unit": "x.mount", "file": "/x", "link": "/y", "target": "local-fs.target", "need": True, "before": [],
              "type": "", "bound": False, "waits": "sleep inf", "source": "/gone", "source_kind": "missing"}],
    "jobs": [{"unit": "systemd-user-sessions.service", "type": "start", "state": "waiting"},
             {"unit": "y.service", "type": "start", "state": "running"}],
}  # fmt: skip
LINK = {
    "kind": "link",
    "mode": "0777",
    "owner": "root",
    "group": "root",
    "size": 9,
    "link": "/x",
    "leads_to": "missing",
}
EVIDENCE: dict[str, Any] = {
    **HEALTHY,
    "subjects": [*HEALTHY["subjects"], SUBJECT, ANSWERING, ADMITTING],
    "boot": {**HEALTHY["boot"], "up_s": 9000.0},
    "way_in": WAY_IN,
    "units": {**HEALTHY["units"], "export.service": {**HEALTHY["units"]["nginx.service"], "active": "failed"},
              "haproxy.service": HEALTHY["units"]["nginx.service"]},
    "paths": {**HEALTHY["paths"], "/srv/link": LINK, "/run/mysqld": {"kind": "missing"}},
    "trees": {"/srv/shop/media": {"seen": 1, "complete": True, "wrong": [
        {"path": "/srv/shop/media/a", "kind": "file", "mode": "0600"}]}},
    "configs": {
        "nginx": {"ok": False, "message": "[emerg] no", "file": "/etc/nginx/x.conf", "unresolved": None},
        "mariadbd": {"ok": False, "message": "no", "file": "", "unresolved": {"name": "cdn", "code": -2}},
    },
    "disks": {LOGS: {"free_bytes": 0, "size_bytes": 1 << 26, "free_inodes": 9, "inodes": 9}},
    "locks": {LOCK: {"present": True, "pid": 7, "alive": True, "age_s": 90.0, "owner_age_s": 3.0}},
    "reports": {"export.service": {"state": "ended", "at": 1.0, "result": "exit-code", "status": "1", "log": ["no"]}},
    "databases": {SOCKET: {"answers": True, "code": 0, "message": "", "most": 3, "connections": 3, "idle": 3,
                           "crashed": [{"table": "shop.orders", "words": "is crashed"}]}},
    "logs": {LOGS: {"mount": LOGS, "keep_mount": "/", "old_bytes": 9, "old": [{"name": "access.log.1", "bytes": 9}]}},
    "deleted": [{"pid": 1, "unit": "nginx.service", "path": f"{LOGS}/access.log", "bytes": 1 << 21, "mount": LOGS}],
    "logins": {ENVIRONMENT: {"ok": False, "code": 1045, "message": "Access denied"}},
    "answers": {"/lb-health localhost": {"status": 404, "bytes": 3, "seconds": 0.1, "words": "404 Not Found"},
                "/refused localhost": {"why": "Connection refused", "error": "ECONNREFUSED"},
                "/late localhost": {"why": "no answer within 3 s", "error": ""}},
    "listens": {SOCKET: False},
    "sshd_at": [{"address": "192.0.2.5", "port": 2222, "by": "sshd"}],
    "reaches": {"pay.example:8420": [{"address": "10.0.0.5", "ok": False, "why": "TIMEOUT"}]},
    "global_ipv6": True,
    "firewall_cut": ["ipv4"],
    "firewall": [{"family": "ipv4", "backend": "nft", "table": "filter", "chain": "OUTPUT", "policy": "ACCEPT",
                  "rules": ["-A OUTPUT -p tcp --dport 8420 -j DROP"], "complete": True}],
    "saved_firewall": {"/etc/iptables/rules.v6": {"family": "ipv6", "chains": [
        {"table": "filter", "chain": "INPUT", "policy": "ACCEPT", "rules": ["-A INPUT -p ipv6-icmp -j DROP"],
         "complete": True}]}},
    "additions": [{"kind": "link", "name": "/etc/nginx/sites-enabled/blog", "more": "/srv/blog"}],
    "unseen": [{"source": "/srv", "why": "Permission denied"}],
}  # fmt: skip
FILE = {"kind": "file", "mode": "0644", "owner": "root", "group": "root", "size": 3, "digest": "a1b2" * 16,
        "secret": False, "changed": 1764000000}  # fmt: skip
STATE: dict[str, Any] = {
    "facts": {
        "file:/etc/motd": FILE,
        "file:/opt/shop": {"kind": "directory", "mode": "0755", "owner": "root", "group": "root", "changed": 1},
        "file:/opt/shop/app.py": FILE,
        "user:deploy": {"uid": 1000, "gid": 1000, "home": "/home/deploy", "shell": "/bin/bash", "groups": ""},
        "unit:nginx.service": {"load": "loaded", "enabled": "enabled", "active": "active", "drop_ins": ""},
        "mariadb:max_connections": {"value": "151"},
    },
    "texts": {"/etc/motd": "hi\n", "/opt/shop/app.py": "print()\n"},
}
TRICKS = [
    "{{ lookup('pipe', 'id') }}", "{% raw %}", "\x1b[2J\x1b]0;owned\x07", "\nnothing is wrong; looked at", "\r",
    "[bold red]x[/bold red]", "[/]", "\\", ":warning:", "\u202eoff\u2066", "\u061c", "\u2028", "\x00", "\x9b31m", "\t",
    "../../etc/passwd", "/srv/shop/media/../x", "%s%n{0}", "é" * 40, "x" * shape.LONGEST,
]  # fmt: skip
Changes = list[tuple[tuple[Any, ...], Any]]  # ways and what stands there instead
NO_TEXT = ["\ud800", "a\udfffb", "x" * (shape.LONGEST + 1)]
texts = st.sampled_from(TRICKS) | st.text(max_size=40)
numbers = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, -1, 2**63 - 1, -(2**63)])
anything = (
    texts | numbers | st.sampled_from([*NO_TEXT, 10**400, -(10**30)]) | st.none() | st.booleans() | st.floats()
    | st.lists(texts, max_size=2) | st.dictionaries(texts, texts, max_size=2)
)  # fmt: skip


def leaves(data: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to everything that is neither a mapping nor a list, the controller's own words left out."""
    for key, item in data.items() if isinstance(data, dict) else enumerate(data):
        if (*way, key) in (("schema",), ("host",), ("subjects",)):
            continue
        if isinstance(item, dict | list):
            yield from leaves(item, (*way, key))
        else:
            yield (*way, key)


def mappings(data: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to every mapping whose names are the host's."""
    named = (
        "units",
        "mounts",
        "paths",
        "trees",
        "configs",
        "names",
        "disks",
        "locks",
        "reports",
        "logins",
        "facts",
        "answers",
        "listens",
        "reaches",
        "saved_firewall",
    )
    yield from ((key,) for key in data if key in named and data[key])


def at(data: Any, way: tuple[Any, ...]) -> Any:
    for key in way:
        data = data[key]
    return data


def alike(value: Any) -> st.SearchStrategy[Any]:
    """Return what the collector might say in the place of a value."""
    kinds = {bool: st.booleans(), str: texts, int: numbers, float: st.floats(-(2.0**62), 2.0**62)}
    return kinds.get(type(value), st.none())


@st.composite
def changes(draw: st.DrawFn, base: dict[str, Any], *, well_formed: bool) -> Changes:
    """Return what a host says otherwise: ways and values. Well formed ones keep their kinds; names may be new."""
    made = []
    for way in draw(st.lists(st.sampled_from(list(mappings(base))), max_size=2)):
        made.append(((*way, draw(texts)), draw(st.sampled_from(list(at(base, way).values())))))
    free = [
        way
        for way in leaves(base)
        if not (well_formed and way[-1] in ("mode", "kind", "present", "alive", "port", "by"))
    ]
    for way in draw(st.lists(st.sampled_from(free), max_size=6)):
        made.append((way, draw(alike(at(base, way)) if well_formed else anything)))
    if not well_formed and draw(st.booleans()):
        way = draw(st.sampled_from(free))
        made.append((way[: draw(st.integers(1, len(way)))], draw(anything)))
    return made


def said(base: dict[str, Any], made: Changes) -> dict[str, Any]:
    """Return evidence or state with these changes."""
    data = copy.deepcopy(base)
    for way, value in made:
        at(data, way[:-1])[way[-1]] = copy.deepcopy(value)
    return data


@pytest.fixture
def site(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A site with a baseline; `runs` answers for its host, and from now on with any state, as it is."""
    chosen = load()
    runs.evidence, runs.state = [HEALTHY], STATE
    look.record(chosen)

    def answer(folder: Path) -> None:
        told = {"state": runs.state, "programs": {"schedule": runs.scheduled()}}
        (folder / "web1.json").write_text(json.dumps(told))

    monkeypatch.setattr(runs, "_exchange", answer)
    return chosen


def triaged(site: Site, runs: Runs, evidence: dict[str, Any], state: dict[str, Any]) -> look.Triage:
    shutil.rmtree(site.records, ignore_errors=True)  # a journal of thousands of triages would be read by each next one
    runs.evidence, runs.state = [evidence], state
    done = look.triage(site, against=baseline.newest(site))
    told = {"web1": {**evidence, "state": state}}
    restore.restorations(done.drift, {"web1": {"/etc/motd": "hash"}}, told)
    return done


def check_shown(site: Site, done: look.Triage, capsys: pytest.CaptureFixture[str]) -> None:
    """Show it in every way there is: within bounds, as text, and as JSON that says the same."""
    capsys.readouterr()
    for verbose in (False, True):
        page.triage(site, done, verbose=verbose)
        told = "".join(capsys.readouterr())
        bad = {f"{char!r}" for char in told if char != "\n" and unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")}
        bad |= {f"{char!r}" for char in told if unicodedata.bidirectional(char) in BIDI or char == "\u061c"}
        assert not bad
        assert verbose or len(told) < 60_000
        claims = [line for line in told.splitlines() if line.startswith("nothing is wrong")]
        assert bool(claims) == done.healthy
    data = done.as_data()
    screen.print_json(data)
    printed = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert printed == json.loads(json.dumps(data))
    variables = done.proposed.extra_variables()
    arguments = [step["args"] for hosts in variables.values() for steps in hosts.values() for step in steps]  # type: ignore[attr-defined]
    assert all(set(value) == {"__ansible_unsafe"} for args in arguments for value in args.values())


BIDI = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
many = settings(
    max_examples=EXAMPLES, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip


def test_evidence_that_is_asked_about_here_is_judged(site: Site, runs: Runs) -> None:
    told = triaged(site, runs, EVIDENCE, STATE).found
    assert {item.rule for item in told} >= {
        "answer_wrong", "config_broken", "connections_used", "disk_full", "job_failed", "lock_stale", "login_refused",
        "account_shut", "boot_stuck", "login_denied", "login_modules", "link_wrong", "not_listening", "path_missing",
        "path_wrong", "table_crashed"}  # fmt: skip
    assert {item.subject for item in told} >= {"answer:/lb-health", "answer:/refused"}


@pytest.mark.parametrize(
    "told",
    [
        {"status": None, "bytes": 3, "seconds": 0.1},
        {"status": None, "why": "x"},
        {"status": 404},
        {"status": 404, "bytes": 3, "seconds": 0.1, "why": "x"},
        {"status": "404", "bytes": 3, "seconds": 0.1},
        {"bytes": 3},
        {"why": None},
        {"error": "ECONNREFUSED"},
        {},
        None,
    ],
)
def test_answer_that_is_neither_whole_nor_a_reason_is_refused(site: Site, runs: Runs, told: Any) -> None:
    with pytest.raises(HikeshiError, match="web1 sent evidence that cannot be judged: answers"):
        triaged(site, runs, said(EVIDENCE, [(("answers", "/lb-health localhost"), told)]), STATE)


@many
@given(changes(EVIDENCE, well_formed=True), changes(STATE, well_formed=True))
def test_hostile_values_are_judged_and_shown_as_text(
    site: Site, runs: Runs, capsys: pytest.CaptureFixture[str], host: Changes, facts: Changes
) -> None:
    evidence, state = said(EVIDENCE, host), said(STATE, facts)
    done = triaged(site, runs, evidence, state)
    assert plan.make(done.found, {"web1": evidence}) == done.proposed
    assert sum(1 + len(symptoms) for _, symptoms in findings.fold(done.found)) == len(done.found)
    check_shown(site, done, capsys)


@many
@given(changes(EVIDENCE, well_formed=False), changes(STATE, well_formed=False))
def test_evidence_of_any_kind_is_judged_or_refused_by_name(
    site: Site, runs: Runs, capsys: pytest.CaptureFixture[str], host: Changes, facts: Changes
) -> None:
    try:
        done = triaged(site, runs, said(EVIDENCE, host), said(STATE, facts))
    except HikeshiError as problem:
        assert problem.message.startswith("web1 sent evidence")  # noqa: PT017
        assert len(problem.message) < 600
        screen.error(problem)
        assert "\x1b" not in capsys.readouterr().err
        return
    check_shown(site, done, capsys)


@pytest.mark.parametrize("way", [("errors", 0), ("units", "nginx.service", "log"), ("configs", "nginx", "message")])
def test_line_of_ten_megabytes_is_refused(
    site: Site, runs: Runs, capsys: pytest.CaptureFixture[str], way: tuple[Any, ...]
) -> None:
    line = "x" * (10 << 20)
    with pytest.raises(HikeshiError, match="web1 sent evidence that cannot be judged: .*at most 20000 characters"):
        triaged(site, runs, said(EVIDENCE, [(way, [line] if way[-1] == "log" else line)]), STATE)


def test_evidence_that_is_none_at_all_is_refused(site: Site, runs: Runs) -> None:
    runs.evidence = [[]]  # type: ignore[list-item]
    with pytest.raises(HikeshiError, match="web1 sent evidence of schema None"):
        look.evidence(site)
    runs.evidence = [{**EVIDENCE, "schema": 2}]
    with pytest.raises(HikeshiError, match="web1 sent evidence of schema 2; known: 1"):
        look.evidence(site)


def test_long_texts_that_are_made_to_be_slow_are_not_compared() -> None:
    before, after = ("".join(f"{number}\n{words}" for number in range(50_000)) for words in ("", "x\n"))
    assert drift.difference(before, after) == ["… 50000 lines became 100000: too many to be compared one by one"]


def test_new_tree_is_told_by_what_lies_in_it() -> None:
    directory = {"kind": "directory", "mode": "0755"}
    after: dict[str, dict[str, Any]] = {f"file:/etc/a/{number}": dict(directory) for number in range(10_000)}
    after |= {f"{name}/x": dict(FILE) for name in list(after)[:5_000]} | {"file:/etc/a": dict(directory)}
    found = [item.subject for item in drift.compare("web1", {}, after)]
    assert len(found) == 10_000
    assert "file:/etc/a" not in found
    assert {"file:/etc/a/1/x", "file:/etc/a/9999"} <= set(found)
    assert "file:/etc/a/1" not in found
