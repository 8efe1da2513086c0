"""Drift: two states compared, without a word about what anything is for."""

import random
from typing import Any

import pytest

from hikeshi.triage import drift

FILE = {"kind": "file", "mode": "0644", "owner": "root", "group": "root", "size": 3, "digest": "a" * 64, "changed": 100}
FACTS: dict[str, dict[str, Any]] = {
    "file:/etc/nginx/nginx.conf": FILE,
    "file:/etc/motd": FILE,
    "user:root": {"uid": 0, "shell": "/bin/bash"},
    "user:deploy": {"uid": 1000, "gid": 1000, "home": "/home/deploy", "shell": "/bin/bash", "groups": "sudo"},
    "unit:nginx.service": {"load": "loaded", "enabled": "enabled", "active": "active", "drop_ins": ""},
    "mariadb:max_connections": {"value": "151"},
    "mount:/srv/shop/media": {"type": "ext4", "options": "rw", "source": "/dev/loop3"},
    "boot:previous": {"ended": "clean", "why": ""},
}
SUBJECTS = [{"role": "web_server", "paths": [{"path": "/etc/nginx"}], "units": [{"name": "nginx.service"}]}]


def compare(**changes: Any) -> list[drift.Drift]:
    """Compare FACTS with the same, changed: subject → fields to change, or None for what is gone."""
    after = {subject: dict(fields) for subject, fields in FACTS.items()}
    for subject, fields in changes["changes"].items():
        if fields is None:
            after.pop(subject)
        else:
            after[subject] = {**after.get(subject, {}), **fields}
    return drift.compare("web1", FACTS, after, SUBJECTS)


def test_unit_that_failed_is_a_finding_where_no_role_owns_it() -> None:
    then = FACTS | {"unit:reports.service": FACTS["unit:nginx.service"]}
    now = then | {name: {**then[name], "active": "failed"} for name in ("unit:reports.service", "unit:nginx.service")}
    (found,) = drift.failed(drift.compare("web1", then, now), {"web1": {"subjects": SUBJECTS}})
    assert (found.id, found.host, found.remedy) == ("unit_failed/unit:reports.service", "web1", ())
    assert drift.failed(drift.compare("web1", now, now), {"web1": {"subjects": SUBJECTS}}) == []


def test_the_same_is_no_drift() -> None:
    assert compare(changes={}) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"file:/etc/motd": {"mode": "0600"}}, "mode 0644 → 0600"),
        ({"file:/etc/motd": {"digest": "b" * 64, "size": 9}}, "its content was changed"),
        (
            {"file:/etc/x.conf": {"kind": "link", "mode": "0777", "link": "/y"}},
            "is new (kind link, mode 0777, link /y)",
        ),
        ({"user:deploy": None}, "is gone (uid 1000, shell /bin/bash)"),
        ({"unit:nginx.service": {"drop_ins": "/etc/systemd/system/nginx.service.d/x.conf"}}, "drop_ins none → /etc/"),
        ({"unit:nginx.service": {"active": "failed"}}, "active active → failed"),
        ({"mariadb:max_connections": {"value": "3"}}, "value 151 → 3"),
        ({"mount:/srv/shop/media": {"options": "ro"}}, "options rw → ro"),
    ],
)
def test_what_was_changed_is_said_with_before_and_after(changes: dict[str, Any], words: str) -> None:
    (found,) = compare(changes=changes)
    assert found.words.startswith(words)
    assert [found.subject] == list(changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"file:/etc/motd": {"changed": 900}},
        {"mount:/srv/shop/media": {"source": "/dev/loop9"}},
        {"boot:previous": {"ended": "unclean"}},
        {"unit:nginx.service": {"active": "inactive"}},  # a rule speaks of it where it should run
        {"mariadb:max_connections": None},  # nothing of a kind is seen: it could not be looked at
    ],
)
def test_what_differs_by_itself_is_none(changes: dict[str, Any]) -> None:
    assert compare(changes=changes) == []


def test_what_was_not_told_is_not_gone() -> None:
    after = {subject: fields for subject, fields in FACTS.items() if subject != "file:/etc/motd"}
    cut = [{"source": "state: files", "why": "from /etc/motd on without"}]
    assert [item.subject for item in drift.compare("web1", FACTS, after)] == ["file:/etc/motd"]
    assert drift.compare("web1", FACTS, after, unseen=cut) == []


def test_what_serves_customers_comes_first_then_the_newest() -> None:
    found = compare(
        changes={
            "file:/etc/motd": {"mode": "0600", "changed": 900},
            "file:/etc/a": {**FILE, "changed": 950},
            "file:/etc/nginx/nginx.conf": {"mode": "0600", "changed": 50},
        }
    )
    assert [item.subject for item in found] == ["file:/etc/nginx/nginx.conf", "file:/etc/a", "file:/etc/motd"]
    assert [item.near for item in found] == [True, False, False]


def test_hostile_values_neither_raise_nor_grow() -> None:
    chance = random.Random(3)
    values: list[Any] = ["{{ 1 }}", "\x1b[31m", "a\nb", "x" * 10**6, None, [], {}, 7, True, "\udcff"]
    for _ in range(300):
        after = {
            f"{chance.choice(['file', 'unit', 'odd', ''])}:{chance.choice(values)!s:.40}": {
                str(chance.choice(["mode", "digest", "changed", "active", "x"])): chance.choice(values[:8])
                for _ in range(3)
            }
            for _ in range(5)
        }
        for item in drift.compare("web1", {**FACTS, **after}, after, SUBJECTS):
            assert len(item.words) < 2000


def test_difference_of_texts_is_short() -> None:
    assert drift.difference("a\nb\n", "a\nc\n") == ["@@ -1,2 +1,2 @@", " a", "-b", "+c"]
    assert len(drift.difference("", "x\n" * 1000)) == drift.DIFF_LINES + 1
