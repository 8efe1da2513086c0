"""checkout_service: the shop answers on its socket, to the web server alone, and comes back when its files are lost."""

import base64
import json
import shlex

import pytest
from testinfra.host import Host

from tests.infra.asking import Answer, Apply, Mend, must, wait_until

ENVIRONMENT = "/etc/shop/checkout.env"
KEPT = "/var/lib/hikeshi/kept"
SOCKET = "/run/checkout/gunicorn.sock"
ASK = """
import base64, http.client, json, socket, sys
connection = http.client.HTTPConnection("shop.example", timeout=20)
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.connect(sys.argv[1])
connection.request("GET", sys.argv[2])
answer = connection.getresponse()
body = base64.b64encode(answer.read()).decode()
print(json.dumps({"status": answer.status, "headers": {k.lower(): v for k, v in answer.getheaders()}, "body": body}))
"""


def ask(host: Host, path: str) -> Answer:
    """Ask the shop as the web server does: as its user, through the socket."""
    command = f"python3 -c {shlex.quote(ASK)} {SOCKET} {shlex.quote(path)}"
    answer = json.loads(must(host, f"su -s /bin/sh www-data -c {shlex.quote(command)}"))
    return Answer(answer["status"], answer["headers"], base64.b64decode(answer["body"]))


def test_shop_answers_the_web_server(host: Host) -> None:
    for path in ("/catalogue/", "/basket/", "/checkout/"):
        assert ask(host, path).status in (200, 302), path
    assert b"<html" in ask(host, "/catalogue/").body


def test_health_is_the_databases_too(host: Host) -> None:
    answer = ask(host, "/lb-health")
    assert (answer.status, answer.headers["cache-control"]) == (200, "no-store")
    must(host, "systemctl stop mariadb")
    assert ask(host, "/lb-health").status == 503
    must(host, "systemctl start mariadb")
    wait_until(lambda: ask(host, "/lb-health").status == 200)


def test_nobody_else_reaches_the_socket(host: Host) -> None:
    must(host, f"test -S {SOCKET}")
    refused = host.run(f"su -s /bin/sh nobody -c {shlex.quote(f'python3 -c {shlex.quote(ASK)} {SOCKET} /')}")
    assert refused.rc != 0
    assert "PermissionError" in refused.stderr


def test_shop_runs_as_itself_and_owns_nothing_it_runs(host: Host) -> None:
    workers = must(host, "ps -o user= --ppid $(systemctl show --property=MainPID --value checkout)").split()
    assert workers
    assert set(workers) == {"shop"}
    for place in ("/opt/shop/app", "/opt/shop/venv/lib", "/opt/shop/static", ENVIRONMENT):
        assert host.run(f"su -s /bin/sh shop -c 'test -w {place}'").rc != 0, place


def test_secrets_are_not_for_other_users(host: Host) -> None:
    must(host, "systemctl is-active checkout")
    assert host.run(f"su -s /bin/sh www-data -c 'cat {ENVIRONMENT}'").rc != 0
    assert "for-this-scenario-only" not in must(host, "ps -ewwo args=")


def test_static_files_are_there_for_the_web_server(host: Host) -> None:
    styles = [
        part for part in ask(host, "/catalogue/").text.split('"') if part.startswith("/static/") and ".css" in part
    ]
    assert styles
    for style in styles:
        must(
            host, f"su -s /bin/sh www-data -c 'test -s /opt/shop/static/{style.removeprefix('/static/').split('?')[0]}'"
        )


def test_killed_workers_are_replaced(host: Host) -> None:
    must(host, "systemctl kill --signal=KILL checkout")
    wait_until(lambda: host.run(f"test -S {SOCKET} && systemctl is-active checkout").rc == 0)
    wait_until(lambda: ask(host, "/lb-health").status == 200)


@pytest.mark.at_rest
def test_lost_environment_file_is_mended(host: Host, apply: Apply, mend: Mend) -> None:
    before = must(host, f"md5sum {ENVIRONMENT}").split()[0]
    must(host, f"rm {ENVIRONMENT}; systemctl stop checkout")
    assert host.run("systemctl start checkout").rc != 0
    mend("checkout_service", "disk", "environment_file")
    assert must(host, f"stat --format='%a %U' {ENVIRONMENT}").strip() == "600 root"
    assert must(host, f"md5sum {ENVIRONMENT}").split()[0] == before
    # systemd goes on trying by itself; the step waits until that, or its own start, has worked.
    applied = apply("host_base", "repair-live", "unit_start", {"unit": "checkout.service"})
    assert applied.status == 0, applied.output
    assert ask(host, "/lb-health").status == 200


@pytest.mark.at_rest
def test_environment_file_with_another_password_is_mended_and_read(host: Host, mend: Mend) -> None:
    must(host, f"systemctl restart checkout; rm -rf {KEPT}{ENVIRONMENT}*")
    before = must(host, f"md5sum {ENVIRONMENT}").split()[0]
    must(host, f"sed -i 's/^SHOP_DATABASE_PASSWORD=.*/SHOP_DATABASE_PASSWORD=\"hunter2\"/' {ENVIRONMENT}")
    must(host, "systemctl restart checkout")
    wait_until(lambda: ask(host, "/lb-health").status == 503)
    mend("checkout_service", "disk", "environment_file")
    assert must(host, f"md5sum {ENVIRONMENT}").split()[0] == before
    assert must(host, f"stat --format='%a %U' {ENVIRONMENT} {KEPT}{ENVIRONMENT}").split("\n")[:2] == ["600 root"] * 2
    assert "hunter2" in must(host, f"cat {KEPT}{ENVIRONMENT}")
    assert ask(host, "/lb-health").status == 503, "a disk step restarted something"
    mend("host_base", "live", "unit_restart", unit="checkout.service", newer=ENVIRONMENT)
    wait_until(lambda: ask(host, "/lb-health").status == 200)


@pytest.mark.at_rest
@pytest.mark.parametrize("lost", [f"rm {SOCKET}", "mv /run/checkout /run/checkout.old"])
def test_lost_socket_comes_back_with_a_restart(host: Host, mend: Mend, lost: str) -> None:
    must(host, f"systemctl start checkout; rm -rf /run/checkout.old; {lost}")
    assert host.run(f"systemctl is-active checkout; test -S {SOCKET}").rc != 0
    mend("host_base", "live", "unit_restart", unit="checkout.service", missing=SOCKET)
    wait_until(lambda: ask(host, "/lb-health").status == 200)
    nobody = shlex.quote(f"python3 -c {shlex.quote(ASK)} {SOCKET} /")
    assert host.run(f"su -s /bin/sh nobody -c {nobody}").rc != 0, "the directory is open to all"


@pytest.mark.at_rest
def test_what_the_unit_makes_is_what_evidence_looks_for(host: Host) -> None:
    must(host, "systemctl start checkout")
    wait_until(lambda: host.run(f"test -S {SOCKET}").rc == 0)
    assert must(host, "stat --format='%a %U %G' /run/checkout").strip() == "750 shop www-data"


@pytest.mark.at_rest
def test_masked_unit_is_mended(host: Host, apply: Apply) -> None:
    must(host, "systemctl disable --now checkout; ln -sf /dev/null /etc/systemd/system/checkout.service")
    for role, where, step, args in (
        ("checkout_service", "disk", "unit_file", {}),
        ("host_base", "disk", "unit_enable", {"unit": "checkout.service"}),
        ("host_base", "live", "unit_start", {"unit": "checkout.service"}),
    ):
        applied = apply(role, f"repair-{where}", step, args)
        assert applied.status == 0, applied.output
        assert applied.changed > 0, applied.output
    assert must(host, "systemctl is-enabled checkout").strip() == "enabled"
    assert ask(host, "/lb-health").status == 200


@pytest.mark.at_rest
def test_lost_ordering_is_mended_and_nothing_is_restarted(host: Host, apply: Apply, mend: Mend) -> None:
    file = "/etc/systemd/system/checkout.service"
    pid = "systemctl show --property=MainPID checkout"
    must(host, f"systemctl start checkout; sed -i '/^After=/d' {file}; systemctl daemon-reload")
    before, after = must(host, pid), "systemctl show --property=After --value checkout"
    assert "mariadb.service" not in must(host, after).split()
    mend("checkout_service", "disk", "unit_file")
    applied = apply("file_restore", "repair-live", "reread", {"how": "daemon_reload"})
    assert applied.status == 0, applied.output
    assert "mariadb.service" in must(host, after).split()
    assert must(host, pid) == before


@pytest.mark.at_rest
def test_login_whose_variables_are_not_given_is_refused(apply: Apply) -> None:
    applied = apply("checkout_service", "main", checkout_service_environment={"SHOP_SECRET_KEY": "canary-of-this-test"})
    assert applied.status != 0
    assert "Wrong: user, password, name, socket" in " ".join(applied.output.split())
    assert "canary-of-this-test" not in applied.output


@pytest.mark.at_rest
def test_missing_secret_is_named_and_not_shown(host: Host, apply: Apply) -> None:
    """A shop that cannot start is noticed by the run, not by the customers; converging again brings it back."""
    must(host, "systemctl start checkout")
    few = {"SHOP_SECRET_KEY": "canary-of-this-test"}
    applied = apply("checkout_service", "main", checkout_service_environment=few, checkout_service_database={})
    assert applied.status != 0
    assert "SHOP_" in applied.output
    assert "canary-of-this-test" not in applied.output
    applied = apply("checkout_service", "main")
    assert applied.status == 0, applied.output
    assert ask(host, "/lb-health").status == 200
