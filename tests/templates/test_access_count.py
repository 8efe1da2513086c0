"""The units that count: every pattern is a word of its own, no key in them, and what was not counted is not trimmed."""

from tests.templates.reading import unit
from tests.templates.rendering import render

GIVEN = {
    "access_count_key": "ab" * 16,
    "access_count_logs": ["/var/log/nginx/access.log*", "/var/log/haproxy.log*"],
    "access_count_sorry_backends": ["sorry", "later"],
    "access_count_health_path": "/healthz",
    "access_count_agent_capture": "2",
    "access_count_log_zone": "Asia/Tokyo",
}


def test_the_program_gets_every_word() -> None:
    text = render("access_count", "hikeshi-count.service.j2", **GIVEN)
    service = unit(text)["Service"]
    (start,), (after,) = service["ExecStart"], service["ExecStopPost"]
    words = start.split()
    assert words[:2] == ["/usr/local/lib/hikeshi/count", "store"] and after.split()[1] == "trim"
    for line in (start, after):
        assert [word for word in line.split() if "glob" in word] == [
            '"--glob=/var/log/nginx/access.log*"', '"--glob=/var/log/haproxy.log*"'
        ]  # fmt: skip
    assert [words[at + 1] for at, word in enumerate(words) if word == "--sorry-backend"] == ["sorry", "later"]
    assert '"--health-path=/healthz"' in words
    assert "--agent-capture 2 --log-zone Asia/Tokyo" in start
    assert "ab" * 16 not in text and "--key-file /etc/hikeshi/access_count.key" in start
    assert service["Nice"] == ["19"] and service["MemoryMax"] == ["576M"]


def test_what_is_not_said_is_no_word() -> None:
    given = {**GIVEN, "access_count_sorry_backends": [], "access_count_health_path": "", "access_count_log_zone": ""}
    (start,) = unit(render("access_count", "hikeshi-count.service.j2", **given))["Service"]["ExecStart"]
    assert not [word for word in ("sorry", "health", "zone") if word in start]
