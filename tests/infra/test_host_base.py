"""host_base: the clock people read, a journal that outlives a reboot, and the repair steps of no single role."""

from collections.abc import Iterator

import pytest
from testinfra.host import Host

from tests.infra.asking import Apply, Mend, must

KEPT = "/var/lib/hikeshi/kept"


def test_time_is_told_in_the_zone_of_the_site(host: Host) -> None:
    # Through the journal: what people read on the day of the fire.
    must(host, "echo hello | systemd-cat -t hikeshi-zone && journalctl --sync")
    line = must(host, "journalctl --output=short-full -t hikeshi-zone --no-pager -n 1")
    assert line.split()[3] == "JST", line


def test_journal_is_written_to_disk(host: Host) -> None:
    must(host, "echo 'a line of today' | systemd-cat -t hikeshi-disk && journalctl --sync")
    assert "a line of today" in must(host, "journalctl --directory=/var/log/journal -t hikeshi-disk --no-pager -n 1")


@pytest.mark.at_rest
def test_journal_remembers_what_was_before_the_reboot(host: Host) -> None:
    booted = float(must(host, "stat --format=%Y /proc/1"))
    oldest = must(host, "journalctl --output=short-unix --no-pager | sed -n '/^[0-9]/{p;q}'")
    assert float(oldest.split()[0]) < booted - 2


@pytest.mark.at_rest
def test_unknown_time_zone_is_refused_and_changes_nothing(host: Host, apply: Apply) -> None:
    applied = apply("host_base", "main", host_base_timezone="Asia/Tokio")
    assert applied.status != 0
    assert "Asia/Tokio" in applied.output
    assert applied.changed == 0
    assert must(host, "readlink -f /etc/localtime").strip() == "/usr/share/zoneinfo/Asia/Tokyo"


@pytest.mark.at_rest
def test_unknown_step_is_refused(apply: Apply) -> None:
    applied = apply("host_base", "repair-disk", "format_everything")
    assert applied.status != 0
    assert "format_everything" in applied.output
    assert "unit_enable, path_mode" in applied.output


@pytest.fixture
def unit(host: Host) -> str:
    """Make a unit that needs /run/hikeshi-test to start, gives up after two tries, and makes /run/hikeshi-made."""
    must(
        host,
        "rm -f /run/hikeshi-test /etc/systemd/system/hikeshi-test.service; "
        "printf '[Unit]\\nStartLimitBurst=2\\nStartLimitIntervalSec=600\\n"
        "[Service]\\nType=exec\\nRuntimeDirectory=hikeshi-made\\n"
        "ExecStartPre=/usr/bin/test -e /run/hikeshi-test\\nExecStart=/usr/bin/sleep 600\\n"
        "[Install]\\nWantedBy=multi-user.target\\n' > /lib/systemd/system/hikeshi-test.service; "
        "systemctl daemon-reload; systemctl stop hikeshi-test",
    )
    return "hikeshi-test.service"


@pytest.mark.at_rest
def test_unit_enable_removes_a_mask_and_keeps_it(host: Host, unit: str, mend: Mend) -> None:
    must(host, f"systemctl disable {unit}; systemctl mask {unit}")
    mend("host_base", "disk", "unit_enable", unit=unit)
    assert must(host, f"systemctl is-enabled {unit}").strip() == "enabled"
    assert must(host, f"readlink {KEPT}/etc/systemd/system/{unit}").strip() == "/dev/null"
    assert must(host, f"stat --format=%a {KEPT}").strip() == "700"
    assert host.run(f"systemctl is-active {unit}").stdout.strip() == "inactive", "a disk step started something"


@pytest.mark.at_rest
def test_unit_enable_refuses_what_is_no_unit(apply: Apply) -> None:
    assert apply("host_base", "repair-disk", "unit_enable", {"unit": "--now nginx"}).status != 0


@pytest.mark.at_rest
def test_unit_start_starts_what_gave_up(host: Host, unit: str, mend: Mend) -> None:
    for _ in range(3):
        host.run(f"systemctl start {unit}")
    must(host, "touch /run/hikeshi-test")
    assert host.run(f"systemctl start {unit}").rc != 0, "the unit was meant to have given up"
    mend("host_base", "live", "unit_start", unit=unit)
    assert must(host, f"systemctl is-active {unit}").strip() == "active"


def started(host: Host, unit: str) -> str:
    """Start the test's unit and return the PID that a restart changes."""
    must(host, f"touch /run/hikeshi-test; systemctl reset-failed {unit}; systemctl start {unit}")
    return pid(host, unit)


def pid(host: Host, unit: str) -> str:
    return must(host, f"systemctl show --property=MainPID --value {unit}").strip()


@pytest.mark.at_rest
def test_unit_restart_brings_back_what_the_unit_makes(host: Host, unit: str, mend: Mend) -> None:
    before = started(host, unit)
    must(host, "rmdir /run/hikeshi-made")
    mend("host_base", "live", "unit_restart", unit=unit, missing="/run/hikeshi-made")
    must(host, "test -d /run/hikeshi-made")
    assert pid(host, unit) not in (before, "0")


@pytest.mark.at_rest
def test_unit_restart_says_when_it_was_in_vain(host: Host, unit: str, apply: Apply) -> None:
    started(host, unit)
    applied = apply("host_base", "repair-live", "unit_restart", {"unit": unit, "missing": "/run/never-made"})
    assert applied.status != 0
    assert "/run/never-made is still missing" in applied.output


@pytest.mark.at_rest
def test_unit_restart_lets_it_read_what_was_written_since(host: Host, unit: str, mend: Mend) -> None:
    before = started(host, unit)
    must(host, "touch /srv/read-at-start")
    mend("host_base", "live", "unit_restart", unit=unit, newer="/srv/read-at-start")
    assert pid(host, unit) not in (before, "0")
    must(host, f"systemctl stop {unit}")
    mend("host_base", "live", "unit_restart", unit=unit, newer="/srv/read-at-start")
    assert must(host, f"systemctl is-active {unit}").strip() == "active"


@pytest.mark.at_rest
def test_unit_restart_sees_a_file_put_back_with_its_old_time(host: Host, unit: str, mend: Mend, apply: Apply) -> None:
    """As `cp -p` and rsync do, here into a file that stands, so that no directory changes."""
    must(host, "mkdir -p /srv/settings/deeper; touch /srv/settings/a.conf /srv/settings/deeper/a.conf")
    must(host, "touch -d 2020-01-01 /srv/kept.conf")
    before = started(host, unit)
    must(host, "cp -p /srv/kept.conf /srv/settings/deeper/a.conf")
    applied = apply("host_base", "repair-live", "unit_restart", {"unit": unit, "newer": "/srv/settings"})
    assert (applied.status, applied.changed) == (0, 0), applied.output
    assert pid(host, unit) == before
    must(host, "cp -p /srv/kept.conf /srv/settings/a.conf")
    mend("host_base", "live", "unit_restart", unit=unit, newer="/srv/settings")
    assert pid(host, unit) not in (before, "0")


@pytest.mark.at_rest
def test_unit_restart_leaves_alone_what_needs_none(host: Host, unit: str, apply: Apply) -> None:
    must(host, "touch /srv/read-at-start")
    before = started(host, unit)
    for reason in ({"missing": "/run/hikeshi-made"}, {"newer": "/srv/read-at-start"}):
        applied = apply("host_base", "repair-live", "unit_restart", {"unit": unit, **reason})
        assert (applied.status, applied.changed) == (0, 0), applied.output
    assert pid(host, unit) == before
    must(host, f"systemctl stop {unit}")
    applied = apply("host_base", "repair-live", "unit_restart", {"unit": unit, "missing": "/run/hikeshi-made"})
    assert (applied.status, applied.changed) == (0, 0), applied.output
    assert host.run(f"systemctl is-active {unit}").stdout.strip() == "inactive"


@pytest.mark.at_rest
@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"unit": "--now nginx", "missing": "/run/gone"},
        {"missing": "/run/gone", "newer": "/etc/hosts"},
        {"missing": "run/gone"},
        {"missing": "/run/../gone"},
        {"newer": "/srv/no-such-file"},
    ],
    ids=str,
)
def test_unit_restart_refuses_what_is_no_reason(host: Host, unit: str, apply: Apply, wrong: dict[str, str]) -> None:
    before = started(host, unit)
    assert apply("host_base", "repair-live", "unit_restart", {"unit": unit, **wrong}).status != 0
    assert pid(host, unit) == before


@pytest.mark.at_rest
def test_path_mode_puts_one_path_right_and_nothing_below_it(host: Host, mend: Mend) -> None:
    must(
        host,
        "rm -rf /srv/test && mkdir -p /srv/test/below && "
        "chmod 0700 /srv/test /srv/test/below && chown www-data /srv/test",
    )
    mend("host_base", "disk", "path_mode", path="/srv/test", mode="0755", owner="root", group="root")
    assert must(host, "stat --format='%a %U %G' /srv/test").strip() == "755 root root"
    assert must(host, "stat --format=%a /srv/test/below").strip() == "700"
    assert "0700 www-data root /srv/test" in must(host, f"cat {KEPT}/modes")


@pytest.mark.at_rest
@pytest.mark.parametrize("path", ["/srv/link", "/srv/missing", "srv", "/srv/../etc"])
def test_path_mode_refuses_what_cannot_be_meant(host: Host, apply: Apply, path: str) -> None:
    must(host, "ln -sfn /etc/shadow /srv/link")
    before = must(host, "stat --format=%a /etc/shadow")
    assert apply("host_base", "repair-disk", "path_mode", {"path": path, "mode": "0777"}).status != 0
    assert must(host, "stat --format=%a /etc/shadow") == before


BLOCKING = '-p tcp -m tcp --dport 8420 -m comment --comment "no way out" -j REJECT --reject-with tcp-reset'


@pytest.fixture
def rules(host: Host) -> Iterator[str]:
    """Put three rules of OUTPUT there, and return them as iptables says them."""
    own = ["-o lo -j ACCEPT", BLOCKING, "-p udp -m udp --dport 9 -j DROP"]
    must(host, " && ".join(f"ip6tables -w -A OUTPUT {rule}" for rule in own))
    yield must(host, "ip6tables -w -S OUTPUT")
    must(host, "ip6tables -w -F OUTPUT")


def rule_of(host: Host, words: str) -> dict[str, str]:
    rule = must(host, f"ip6tables-save | grep -e '^-A OUTPUT .*{words}'").rstrip("\n")
    return {"family": "ipv6", "backend": "nft", "table": "filter", "chain": "OUTPUT", "rule": rule}


@pytest.mark.at_rest
def test_firewall_rule_takes_one_rule_out_and_tells_how_to_put_it_back(host: Host, rules: str, mend: Mend) -> None:
    mend("host_base", "live", "firewall_rule", **rule_of(host, "8420"))
    left = [line for line in rules.splitlines() if "8420" not in line]
    assert must(host, "ip6tables -w -S OUTPUT").splitlines() == left
    assert must(host, f"stat --format=%a {KEPT}/firewall").strip() == "600"
    must(host, f"tail -n 1 {KEPT}/firewall | sh")
    assert must(host, "ip6tables -w -S OUTPUT") == rules


@pytest.mark.at_rest
@pytest.mark.parametrize(
    "wrong",
    [
        {"rule": "-A OUTPUT -o lo -j ACCEPT"},
        {"chain": "HIKESHI", "rule": "-A HIKESHI -p tcp -j DROP"},
        {"family": "inet"},
        {"backend": "; reboot"},
        {"table": "nat"},
        {"rule": "-A OUTPUT -p tcp -j DROP\nCOMMIT"},
    ],
    ids=str,
)
def test_firewall_rule_refuses_what_is_no_rule_that_blocks(
    host: Host, rules: str, apply: Apply, wrong: dict[str, str]
) -> None:
    assert apply("host_base", "repair-live", "firewall_rule", rule_of(host, "8420") | wrong).status != 0
    assert must(host, "ip6tables -w -S OUTPUT") == rules


SAVED = "/etc/iptables/rules.v6"


@pytest.mark.at_rest
@pytest.mark.parametrize("options", ["", "-c"])
def test_firewall_saved_rule_takes_one_line_out_and_keeps_the_file(
    host: Host, rules: str, mend: Mend, options: str
) -> None:
    must(host, f"ip6tables-save {options} > {SAVED}; rm -f {KEPT}{SAVED}*")
    before = must(host, f"cat {SAVED}")
    try:
        mend("host_base", "disk", "firewall_saved_rule", path=SAVED, rule=rule_of(host, "8420")["rule"])
        left = [line for line in before.splitlines() if "8420" not in line]
        assert must(host, f"cat {SAVED}").splitlines() == left
        assert must(host, f"cat {KEPT}{SAVED}") == before
        assert must(host, "ip6tables -w -S OUTPUT") == rules, "a disk step touched what works now"
        must(host, f"ip6tables-restore --test {SAVED}")
    finally:
        must(host, f"sed -i '/^\\(\\[.*\\] \\)\\?-A /d' {SAVED}")


@pytest.mark.at_rest
@pytest.mark.parametrize(
    "wrong",
    [
        {"path": "/etc/passwd", "rule": "-A OUTPUT -j DROP"},
        {"path": SAVED, "rule": "-A OUTPUT -j ACCEPT"},
        {"path": SAVED, "rule": "COMMIT"},
        {"path": SAVED, "rule": "-A HIKESHI -j DROP"},
        {"path": SAVED, "rule": "-A OUTPUT -j DROP\nCOMMIT"},
    ],
    ids=str,
)
def test_firewall_saved_rule_refuses_what_is_no_saved_rule(host: Host, apply: Apply, wrong: dict[str, str]) -> None:
    before = must(host, f"sha256sum /etc/passwd {SAVED}")
    assert apply("host_base", "repair-disk", "firewall_saved_rule", wrong).status != 0
    assert must(host, f"sha256sum /etc/passwd {SAVED}") == before
