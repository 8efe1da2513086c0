"""HAProxy's configuration: listeners, backends, the check, and a sorry page that says what it must."""

import ipaddress
import re

import pytest

from tests.templates.rendering import render

FILE = "roles/load_balancer/templates/haproxy.cfg.j2"
BACKENDS = [
    {"name": "web1", "address": "192.0.2.11", "port": 80},
    {"name": "web2", "address": "2001:db8::12", "port": 8080},
    {"name": "web3", "address": "192.0.2.13", "port": 80},
]


def sections(**inputs: object) -> dict[str, list[str]]:
    """Read HAProxy's configuration: section → its lines."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in render("load_balancer", "haproxy.cfg.j2", **inputs).splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            if line[0].isspace():
                lines.append(line.strip())
            else:
                lines = found.setdefault(line, [])
    return found


@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_backend_is_checked(count: int) -> None:
    given = BACKENDS[:count]
    servers = [
        line.split() for line in sections(load_balancer_backends=given)["backend web"] if line.startswith("server ")
    ]
    assert [words[1] for words in servers] == [item["name"] for item in given], f"{FILE}: one server line per backend"
    for words, item in zip(servers, given, strict=True):
        address, port = words[2].rsplit(":", 1)  # HAProxy, too, takes what follows the last colon for the port
        assert ipaddress.ip_address(address.strip("[]")) == ipaddress.ip_address(str(item["address"])), FILE
        assert port == str(item["port"]), FILE
        assert "check" in words, f"{FILE}: without check a dead server gets customers for ever"


def test_listens_on_both_families() -> None:
    binds = [line for line in sections()["frontend shop"] if line.startswith("bind ")]
    assert binds == ["bind 0.0.0.0:80", "bind [::]:80 v6only"], f"{FILE}: listen on IPv4 and IPv6"


def test_the_check_is_as_asked_for() -> None:
    inputs = {
        "load_balancer_health_path": "/are-you-well",
        "load_balancer_check_interval": "500ms",
        "load_balancer_check_fall": 4,
        "load_balancer_check_rise": 5,
    }
    lines = sections(**inputs)["backend web"]
    assert "default-server inter 500ms fall 4 rise 5" in lines, FILE
    assert any(line.startswith("http-check send meth GET uri /are-you-well ") for line in lines), FILE
    assert "http-check expect status 200" in lines, f"{FILE}: a redirect or an error would pass the check"


def test_the_client_cannot_name_itself() -> None:
    lines = sections()["frontend shop"]
    assert "http-request set-header X-Forwarded-For %[src]" in lines, f"{FILE}: replace, never append"
    assert "option forwardfor" not in str(sections()), f"{FILE}: forwardfor appends to what the client wrote"


def test_the_sorry_page_is_not_kept() -> None:
    (line,) = [item for item in sections(load_balancer_retry_after=77)["defaults"] if item.startswith("http-error ")]
    assert line.startswith('http-error status 503 content-type "text/html; charset=utf-8"'), FILE
    assert 'hdr "Retry-After" "77"' in line and 'hdr "Cache-Control" "no-store"' in line, FILE
    assert " file /etc/haproxy/errors/sorry.html " in line, FILE


def test_the_sorry_page_speaks_to_everybody() -> None:
    page = render("load_balancer", "sorry.html.j2")
    assert '<html lang="ja">' in page and 'lang="en"' in page, "sorry.html.j2: Japanese and English"
    assert "<script" not in page and not re.search(r"(src|href)=", page), "sorry.html.j2: must need nothing of the shop"


def test_the_log_goes_past_the_rate_limit_and_is_kept() -> None:
    rsyslog = render("load_balancer", "rsyslog.conf.j2")
    ring = sections()["ring requests"]
    assert 'Path="/var/lib/haproxy/dev/hikeshi-log"' in rsyslog and 'RateLimit.Interval="0"' in rsyslog
    assert any(" unix@/dev/hikeshi-log " in f"{line} " for line in ring), f"{FILE}: the socket as seen from the chroot"
    assert "    rotate 33\n" in render("load_balancer", "logrotate.j2", load_balancer_log_days=33)
    rotated = render("load_balancer", "logrotate.j2").splitlines()[1]
    assert 'file="/var/log/haproxy.log"' in rsyslog and rotated == "/var/log/haproxy.log {", (
        "rsyslog writes one file and logrotate turns another"
    )
