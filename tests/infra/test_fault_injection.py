"""fault_injection: each operation does what it says, times tell nothing, and the host keeps no answer sheet."""

import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from testinfra.host import Host

from tests.infra.asking import Apply, must, wait_until

TREE = "/srv/target"


def listing(host: Host) -> dict[str, str]:
    """Return what lies in the tree: path → type, mode, day of its time, target of a link."""
    told = must(host, f"find {TREE} -printf '%p %y %m %TY-%Tm-%Td %l\\n'")
    return {path: rest.strip() for path, rest in (line.split(" ", 1) for line in told.splitlines())}


@pytest.mark.parametrize(
    ("path", "state", "text"),
    [
        ("removed", None, ""),
        ("relinked", "l 777 2021-01-01 /dev/null", ""),
        ("masked", "l 777 2024-01-01 /dev/null", ""),
        ("closed", "d 0 2023-01-01", ""),
        ("written", "f 640 2021-01-01", "server {\n"),
        ("made", "f 644 2024-01-01", "gzip_levle 6;\n"),
        ("appended", "f 644 2022-01-01", "healthy\ninclude gone.conf;\n"),
        ("far/real", "f 644 2022-01-01", "healthy\ninclude gone.conf;\n"),
        ("shortened", "f 640 2022-01-01", "first\nmiddle pay.example\n"),
        ("reworded", "f 644 2022-01-01", "alias /srv;\n"),
        ("new.d", "d 755 2024-01-01", ""),
        ("new.d/made", "f 644 2024-01-01", "[Service]\nNice=1\n"),
        ("needed.requires", "d 755 2024-01-01", ""),
        ("needed.requires/x.mount", "l 777 2024-01-01 /srv/x.mount", ""),
        ("moved", None, ""),
        ("away/moved.bak", "f 644 2022-01-01", "healthy\n"),
    ],
)
def test_operation_does_what_it_says_and_keeps_the_times(host: Host, path: str, state: str | None, text: str) -> None:
    seen = listing(host)
    if path == "far/real":
        assert seen[f"{TREE}/linked"].endswith(" far/real"), "a link was replaced instead of followed"
    assert seen.get(f"{TREE}/{path}") == state
    if text:
        assert must(host, f"cat {TREE}/{path}") == text


def test_folders_look_untouched(host: Host) -> None:
    assert must(host, f"cat {TREE}/made")
    days = {path: listing(host)[f"{TREE}{path}"].split()[2] for path in ("", "/away", "/far")}
    assert days == {"": "2024-01-01", "/away": "2023-01-01", "/far": "2023-01-01"}


def injected(apply: Apply, *operations: dict[str, Any], practice: bool = True) -> Any:
    return apply("fault_injection", "main", fault_injection_operations=operations, fault_injection_practice=practice)


@pytest.mark.at_rest
def test_no_answer_sheet_is_left_on_the_host(host: Host, apply: Apply) -> None:
    applied = injected(apply, {"write": f"{TREE}/made", "text": "unseen_marker 1;"})
    assert (applied.status, applied.changed) == (0, 1), applied.output
    assert "unseen_marker" not in applied.output, "the operator of a drill is told nothing, either"
    assert must(host, f"cat {TREE}/made") == "unseen_marker 1;\n"
    words = "unseen_marker|inject_fault"
    assert must(host, f"journalctl --sync; journalctl -o export | grep -aE '{words}' || true") == ""
    assert must(host, f"grep -rlaE '{words}' /var/log /tmp /var/tmp /run /root /home /etc 2>/dev/null || true") == ""
    left = must(host, "find /tmp /var/tmp /root /home -newer /proc/1 -iname '*ansible*'")
    assert left == "", "a temporary file stayed"


@pytest.mark.at_rest
def test_host_that_is_no_practice_host_is_refused(host: Host, apply: Apply) -> None:
    before = listing(host)
    applied = injected(apply, {"remove": f"{TREE}/far"}, {"remove": f"{TREE}/far/real"}, practice=False)
    assert (applied.status != 0, applied.changed) == (True, 0), applied.output
    assert "instance is no practice host" in applied.output, applied.output
    assert listing(host) == before


@pytest.mark.at_rest
@pytest.mark.parametrize(
    ("operation", "words"),
    [
        ({"format": "/"}, "needs one of"),
        ({"remove": f"{TREE}/far/real", "link": f"{TREE}/far/real", "to": "/"}, "needs one of"),
        ({"link": f"{TREE}/far/real"}, "link needs to"),
        ({"chmod": f"{TREE}/far/real", "mode": 448}, "mode must be"),
        ({"remove": "far/real"}, "must be an absolute path"),
        ({"chmod": f"{TREE}/none", "mode": "0000"}, "No such file or directory"),
        ({"cut": f"{TREE}/far/real"}, "cut needs match"),
        ({"cut": f"{TREE}/far/real", "match": "pay("}, "match must be a pattern"),
        ({"cut": f"{TREE}/none", "match": "pay"}, "No such file or directory"),
        ({"replace": f"{TREE}/far/real", "match": "pay"}, "replace needs match and with"),
        ({"replace": f"{TREE}/far/real", "match": "pay(", "with": ""}, "match must be a pattern"),
        ({"kill": "everything"}, "must be the name of a service"),
        ({"kill": "none.service"}, "none.service"),
        ({"start": "--all.service /"}, "must be the name of a service"),
        ({"hold": "etc/shop.env", "unit": "report.service"}, "must be an absolute path"),
        ({"hold": "/etc/none.env", "unit": "report"}, "must be the name of a service"),
        ({"hold": "/etc/none.env", "unit": "report.service"}, "report.service"),
        ({"iptables": "-F OUTPUT", "family": "ipv4"}, "must be a rule of iptables"),
        ({"iptables": "-A OUTPUT -j DROP", "family": "inet"}, "family must be one of"),
        ({"iptables": "-A OUTPUT --nonsense", "family": "ipv4"}, "unknown option"),
        ({"saved": f"{TREE}/rules", "rule": "COMMIT"}, "must be a rule of iptables"),
        ({"shadow": "deploy", "field": "password", "value": "0"}, "one of changed, expires"),
        ({"shadow": "deploy:x", "field": "expires", "value": "0"}, "an account"),
        ({"rekey": f"{TREE}/none"}, "No such file or directory"),
        # No database here; its client is the first that is missing.
        ({"sql": "SELECT 1"}, "No such file or directory"),
    ],
)
def test_bad_operation_is_refused_in_words(host: Host, apply: Apply, operation: dict[str, Any], words: str) -> None:
    before = listing(host)
    applied = injected(apply, operation)
    assert (applied.status != 0, applied.changed) == (True, 0), applied.output
    assert words in applied.output, applied.output
    assert "censored" not in applied.output, "the runner reads what a task says, not the screen"
    assert listing(host) == before


@pytest.mark.at_rest
def test_account_expires_and_nothing_else_of_it_is_changed(host: Host, apply: Apply) -> None:
    before = must(host, "getent shadow deploy").strip().split(":")
    kept = must(host, "stat --format='%a %U:%G %y' /etc/shadow; cp --preserve /etc/shadow /etc/shadow.test")
    try:
        for changed in (1, 0):
            applied = injected(apply, {"shadow": "deploy", "field": "expires", "value": "1"})
            assert (applied.status, applied.changed) == (0, changed), applied.output
        after = must(host, "getent shadow deploy").strip().split(":")
        assert (after[:7], after[7], after[8:]) == (before[:7], "1", before[8:])
        assert must(host, "stat --format='%a %U:%G %y' /etc/shadow") == kept
    finally:
        must(host, "mv /etc/shadow.test /etc/shadow")


@pytest.mark.at_rest
def test_host_key_becomes_another(host: Host, apply: Apply) -> None:
    key = "/srv/keys/ssh_host_ed25519_key"
    must(host, f"mkdir -p /srv/keys; ssh-keygen -q -t ed25519 -N '' -f {key}; touch -d 2021-01-01 {key} {key}.pub")

    def print_of(path: str) -> str:
        return must(host, f"ssh-keygen -l -f {path}").split()[1]

    before = print_of(key)
    try:
        applied = injected(apply, {"rekey": key})
        assert (applied.status, applied.changed) == (0, 1), applied.output
        assert print_of(key) == print_of(f"{key}.pub") != before
        assert must(host, f"stat --format='%a %y' {key}").split()[:2] == ["600", "2021-01-01"]
    finally:
        must(host, "rm -r /srv/keys")


@pytest.fixture
def service(host: Host) -> Iterator[str]:
    """Make a service that is up, and one that fails whenever it is started."""
    must(
        host,
        "printf '[Service]\\nExecStart=/usr/bin/sleep infinity\\n' > /run/systemd/system/target-up.service; "
        "printf '[Service]\\nType=oneshot\\nExecStart=/usr/bin/false\\n' > /run/systemd/system/target-fails.service; "
        "systemctl daemon-reload; systemctl start target-up",
    )
    yield "target-up.service"
    must(
        host,
        "systemctl stop target-up; rm /run/systemd/system/target-*; systemctl daemon-reload; systemctl reset-failed",
    )


@pytest.mark.at_rest
def test_service_dies_as_in_a_power_failure(host: Host, apply: Apply, service: str) -> None:
    applied = injected(apply, {"kill": service})
    assert (applied.status, applied.changed) == (0, 1), applied.output
    wait_until(lambda: host.run(f"systemctl is-active {service}").stdout.strip() == "failed")
    assert must(host, f"systemctl show --property=Result --value {service}").strip() == "signal"


@pytest.mark.at_rest
def test_service_is_started_whatever_comes_of_it(host: Host, apply: Apply, service: str) -> None:
    must(host, f"systemctl stop {service}")
    applied = injected(apply, {"start": service}, {"start": "target-fails.service"})
    assert (applied.status, applied.changed) == (0, 1), applied.output
    assert host.run(f"systemctl is-active {service} target-fails.service").stdout.split() == ["active", "failed"]


# Stands where Debian's would, for the program that holds connections: gives three, and then no more.
PYMYSQL = """
class MySQLError(Exception):
    pass
given = []
def connect(**wanted):
    if len(given) == 3 or wanted != {"user": "shop", "password": "canary-of-the-shop", "unix_socket": "/run/db.sock"}:
        raise MySQLError("Too many connections")
    given.append(open("/dev/null"))
    return given[-1]
"""


@pytest.mark.at_rest
def test_forgotten_program_holds_what_connections_it_gets(host: Host, apply: Apply) -> None:
    """Without a database: what is asked of it, what stays on the host, and who can read the password."""
    settings = (
        "PYTHONPATH=/srv/library\nSHOP_DATABASE_USER=shop\nSHOP_DATABASE_NAME=shop\n"
        'SHOP_DATABASE_PASSWORD="canary-of-the-shop"\nSHOP_DATABASE_SOCKET=/run/db.sock\n'
    )
    must(
        host,
        f"mkdir -p /srv/library; printf '%s' {shlex.quote(PYMYSQL)} > /srv/library/pymysql.py; "
        f"printf {shlex.quote(settings)} > /etc/target.env; chmod 0600 /etc/target.env",
    )
    try:
        applied = injected(apply, {"hold": "/etc/target.env", "unit": "monthly-report.service"})
        assert (applied.status, applied.changed) == (0, 1), applied.output
        assert must(host, "systemctl is-active monthly-report.service").strip() == "active"
        pid = must(host, "systemctl show --property=MainPID --value monthly-report.service").strip()
        assert must(host, f"ls -l /proc/{pid}/fd").count("/dev/null") >= 4  # its standard input, too
        words = must(host, "journalctl --sync; journalctl -o export -u monthly-report.service; ps -eo args")
        assert "Started monthly-report.service" in words, words
        for canary in ("canary-of-the-shop", "inject_fault"):
            assert canary not in words
            assert canary not in applied.output
        must(host, "systemctl stop monthly-report.service")
        assert host.run("systemctl cat monthly-report.service").rc != 0, "the unit outlived its program"
    finally:
        must(host, "systemctl stop monthly-report.service 2>/dev/null; rm -rf /srv/library /etc/target.env")


@pytest.mark.at_rest
def test_bad_operation_keeps_the_good_ones_back(host: Host, apply: Apply) -> None:
    before = listing(host)
    applied = injected(apply, {"remove": f"{TREE}/far/real"}, {"chmod": f"{TREE}/far/real", "mode": "rwx"})
    assert applied.status != 0
    assert listing(host) == before


@pytest.mark.at_rest
def test_times_are_kept_where_an_operation_fails(host: Host, apply: Apply) -> None:
    """The old link is gone when the new one turns out to be impossible."""
    before = listing(host)
    applied = injected(apply, {"link": f"{TREE}/far/real", "to": "x" * 5000})
    assert applied.status != 0
    assert "name too long" in applied.output, applied.output
    assert listing(host) == before


@pytest.mark.at_rest
def test_rule_stands_in_the_firewall_that_was_named(host: Host, apply: Apply) -> None:
    words = "OUTPUT -p tcp -m tcp --dport 8420 -j DROP"
    applied = injected(apply, {"iptables": f"-A {words}", "family": "ipv6"})
    seen = [must(host, f"{program} -w -S OUTPUT") for program in ("iptables", "ip6tables")]
    must(host, f"ip6tables -w -D {words}")
    assert (applied.status, applied.changed) == (0, 1), applied.output
    assert [f"-A {words}" in told.splitlines() for told in seen] == [False, True]


@pytest.mark.at_rest
def test_saved_rule_is_one_that_a_boot_would_load(host: Host, apply: Apply) -> None:
    must(
        host,
        f"printf '*nat\\n:OUTPUT ACCEPT [0:0]\\nCOMMIT\\n' > {TREE}/far/rules; touch -d 2022-01-01 {TREE}/far/rules",
    )
    rules = [f"-A OUTPUT -p tcp -m tcp --dport {port} -j DROP" for port in (8420, 443)]
    operations = [{"saved": f"{TREE}/far/rules", "rule": rule} for rule in rules]
    applied, again = injected(apply, *operations), injected(apply, *operations)
    seen = must(host, f"cat {TREE}/far/rules; iptables-restore --test {TREE}/far/rules").splitlines()
    day = listing(host)[f"{TREE}/far/rules"].split()[2]
    must(host, f"rm {TREE}/far/rules; touch -d 2023-01-01 {TREE}/far")
    assert (applied.status, applied.changed, again.changed) == (0, 1, 0), applied.output
    assert (seen[3], seen[-3:]) == ("*filter", [*rules, "COMMIT"])
    assert day == "2022-01-01"


@pytest.mark.at_rest
def test_small_disk_is_filled_and_the_machines_is_not(host: Host, apply: Apply) -> None:
    must(host, "mkdir -p /srv/small && mount -t tmpfs -o size=16m small /srv/small")
    operations = [
        {"fill": "/srv/small/access.log.1", "leave": "8000"},
        {"fill": "/srv/small/access.log", "leave": "64"},
    ]
    applied, again = injected(apply, *operations), injected(apply, *operations)
    free, sizes = must(host, "df --output=avail /srv/small | tail -n 1; stat --format=%s /srv/small/*").split("\n", 1)
    must(host, "umount /srv/small; rmdir /srv/small")
    assert (applied.status, applied.changed) == (0, 1), applied.output
    assert (again.status, again.changed) == (0, 0), again.output
    assert 0 <= int(free) <= 64
    assert all(7_000_000 < int(size) < 9_000_000 for size in sizes.split()), sizes
    before = listing(host)
    refused = injected(apply, {"fill": f"{TREE}/written", "leave": "64"})
    assert refused.status != 0
    assert "no small disk" in refused.output, refused.output
    assert listing(host) == before
