"""load_balancer: the shop while its check passes, the sorry page while it does not, and each request on disk."""

import json
import shlex
import time

import pytest
from testinfra.host import Host

from tests.infra.asking import Apply, Ask, must, wait_until

LOG = "/var/log/haproxy.log"
BURST = """
import http.client, sys
for n in range(int(sys.argv[2])):
    if n % 100 == 0:
        connection = http.client.HTTPConnection("127.0.0.1", 80, timeout=15)
    connection.request("GET", f"/{sys.argv[1]}/{n}")
    assert connection.getresponse().read()
"""


@pytest.fixture(autouse=True)
def backend(host: Host) -> None:
    """Let the backend run with its check open, whatever an earlier test did to it."""
    must(host, "rm -f /run/backend-closed; systemctl start backend")


@pytest.fixture
def shop(ask: Ask) -> None:
    """Wait until customers reach the shop."""
    wait_until(lambda: ask("/").status == 200)


def logged(host: Host, word: str) -> list[str]:
    """Return the log's lines with a word."""
    return str(host.run(f"grep -h -- {shlex.quote(word)} {LOG}").stdout).splitlines()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_customers_reach_the_shop_and_cannot_lie_about_who_they_are(shop: None, ask: Ask, address: str) -> None:
    answer = ask("/cart?x=1", address, X_Forwarded_For="203.0.113.9, 10.0.0.1", Host="shop.example")
    assert answer.status == 200
    assert answer.data["path"] == "/cart?x=1"
    assert answer.data["headers"]["host"] == "shop.example"
    assert answer.data["headers"]["x-forwarded-for"] == address


def test_sorry_page_while_the_check_fails(shop: None, host: Host, ask: Ask) -> None:
    must(host, "touch /run/backend-closed")
    wait_until(lambda: ask("/basket/").status == 503)
    for address in ("127.0.0.1", "::1"):
        answer = ask("/basket/", address)
        assert answer.status == 503
        assert answer.headers["retry-after"] == "120"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert "ただいまメンテナンス中です" in answer.text
        assert "We will be right back" in answer.text
    must(host, "rm /run/backend-closed")
    wait_until(lambda: ask("/").status == 200)


def test_sorry_page_while_the_shop_is_gone(shop: None, host: Host, ask: Ask) -> None:
    must(host, "systemctl stop backend")
    wait_until(lambda: ask("/").status == 503)
    assert "ただいまメンテナンス中です" in ask("/").text


def test_every_request_is_logged_once_with_client_and_agent(shop: None, host: Host, ask: Ask) -> None:
    word = f"burst{time.time_ns()}"
    must(host, f"python3 -c {shlex.quote(BURST)} {word} 5000")
    ask(f"/{word}/agent", User_Agent="Mozilla/5.0 (one of a kind)", Host="shop.example")
    wait_until(lambda: len(logged(host, word)) >= 5001)
    time.sleep(0.5)
    lines = logged(host, word)
    assert len(lines) == 5001
    assert "{shop.example|Mozilla/5.0 (one of a kind)}" in lines[-1]
    assert " 127.0.0.1:" in lines[-1]
    assert len({line.split(f"/{word}/")[1].split()[0] for line in lines}) == 5001


def test_no_line_is_lost_while_the_log_restarts(shop: None, host: Host, ask: Ask) -> None:
    word = f"restart{time.time_ns()}"
    must(host, "systemctl stop rsyslog.service syslog.socket")
    must(host, f"python3 -c {shlex.quote(BURST)} {word} 200")
    must(host, "systemctl start rsyslog")
    wait_until(lambda: len(logged(host, word)) >= 200)
    assert len(logged(host, word)) == 200


def test_log_goes_on_after_rotation(shop: None, host: Host, ask: Ask) -> None:
    before, after = f"before{time.time_ns()}", f"after{time.time_ns()}"
    ask(f"/{before}")
    wait_until(lambda: len(logged(host, before)) == 1)
    must(host, f"rm -f {LOG}-*; logrotate --force /etc/logrotate.d/haproxy")
    ask(f"/{after}")
    wait_until(lambda: len(logged(host, after)) == 1)
    assert not logged(host, before)
    assert before in must(host, f"cat {LOG}-*")


def test_log_is_not_for_everybody(shop: None, host: Host, ask: Ask) -> None:
    ask("/who-may-read")
    wait_until(lambda: len(logged(host, "who-may-read")) >= 1)
    assert must(host, f"stat --format='%a %U %G' {LOG}").strip() == "640 root adm"


@pytest.mark.at_rest
def test_bad_configuration_is_refused_and_the_old_one_goes_on(host: Host, ask: Ask, apply: Apply) -> None:
    must(host, "systemctl start haproxy")
    before = must(host, "md5sum /etc/haproxy/haproxy.cfg")
    backends = [{"name": "web1", "address": "127.0.0.1 nonsense", "port": 8080}]
    applied = apply("load_balancer", "main", load_balancer_backends=backends)
    assert applied.status != 0, applied.output
    assert must(host, "md5sum /etc/haproxy/haproxy.cfg") == before
    wait_until(lambda: ask("/").status == 200)


@pytest.mark.at_rest
def test_missing_backends_are_named(apply: Apply) -> None:
    applied = apply("load_balancer", "main", load_balancer_backends=[{"name": "web1", "port": 80}])
    assert applied.status != 0
    assert "address" in json.dumps(applied.output)
