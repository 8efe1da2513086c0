"""access_count: what nginx, Apache and HAProxy log of real requests is counted, over a rotation, to the last hit."""

import json
from typing import Any

from testinfra.host import Host

from tests.infra.asking import must

COUNT = "/usr/local/lib/hikeshi/count"
STORE = "--store /var/lib/hikeshi/access --key-file /etc/hikeshi/access_count.key"
NGINX, APACHE, HAPROXY = "127.0.0.1:80", "127.0.0.1:8080", "127.0.0.1:8081"


def ask(host: Host, where: str, path: str, times: int, agent: str = "Mozilla/5.0") -> None:
    must(host, f"for n in $(seq {times}); do curl -s -o /dev/null -A '{agent}' http://{where}{path}; done")


def counted(host: Host) -> dict[str, Any]:
    """Read what is new by the timer's own unit; return what is held."""
    must(host, "sleep 1; systemctl start hikeshi-count.service")
    return json.loads(must(host, f"{COUNT} store {STORE}"))  # type: ignore[no-any-return]


def hits(host: Host) -> dict[str, int]:
    """Return how many hits there are, by group, kind, status and outcome."""
    found: dict[str, int] = {}
    for line in must(host, f"{COUNT} answer {STORE} --by all | zcat").splitlines():
        key, _, numbers = line.partition("\t")
        if key.startswith("n "):
            found[key.split(" ", 2)[2]] = int(numbers.split()[0])
    return found


def more(after: dict[str, int], before: dict[str, int]) -> dict[str, int]:
    return {key: number - before.get(key, 0) for key, number in after.items() if number != before.get(key, 0)}


def test_every_hit_is_counted(host: Host) -> None:
    counted(host)
    before = hits(host)
    ask(host, NGINX, "/", 7)
    ask(host, NGINX, "/missing.png", 3)
    ask(host, NGINX, "/healthz", 2)
    ask(host, APACHE, "/", 5, "Googlebot/2.1")
    ask(host, HAPROXY, "/", 4)
    ask(host, HAPROXY, "/denied", 2)
    counted(host)
    assert more(hits(host), before) == {
        "wp page 200 served": 7 + 4, "wp picture 404 served": 3, "wh page 404 served": 2, "wb page 200 served": 5,
        "lp page 200 served": 4, "lp page 403 refused": 2,
    }  # fmt: skip


def test_the_sorry_page_is_told_from_the_shop(host: Host) -> None:
    counted(host)
    before = hits(host)
    must(host, "systemctl stop nginx && sleep 2")
    ask(host, HAPROXY, "/", 6)
    must(host, "systemctl start nginx && sleep 2")
    counted(host)
    assert more(hits(host), before) == {"lp page 503 sorry": 6}


def test_nothing_is_doubled_or_lost_over_rotations(host: Host) -> None:
    counted(host)
    before = hits(host)
    for number in range(3):
        # Two logs with the same bytes from the start, of one second, would be one and its copy.
        ask(host, NGINX, f"/?before={number}", 5)
        must(host, "logrotate --force /etc/logrotate.d/nginx")
        ask(host, NGINX, f"/?after={number}", 5)
    head = counted(host)
    assert more(hits(host), before) == {"wp page 200 served": 30}
    assert head["losses"] == [] and head["lines"] == head["counted"] + head["malformed"] + head["pending"]


def test_logs_are_kept_as_long_as_was_said(host: Host) -> None:
    assert "rotate 60" in must(host, "cat /etc/logrotate.d/nginx")


def test_the_key_is_roots_and_nobody_elses(host: Host) -> None:
    assert host.file("/etc/hikeshi/access_count.key").mode == 0o600
    assert host.file("/var/lib/hikeshi/access").mode == 0o700
    assert "00112233" not in must(host, "systemctl cat hikeshi-count.service hikeshi-count.timer")
