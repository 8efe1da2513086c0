"""health_check_gate's program: killed anywhere, it leaves the gate open, or closed with an end; never half.

iptables, ipset and systemd are those of gate_host, which keep their state in a file.
"""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.gate_host import FOREIGN, ROOT, V4, V6, Host


class Killed(BaseException):
    """The process, or the machine, stopped here; nothing after it runs, no handler either."""


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A host on which the gate is not yet installed; whatever a test does, others' rules stay."""
    made = Host(tmp_path)
    yield made
    assert made.foreign() == [FOREIGN, FOREIGN]
    assert not [call for call in made.asked() if {"-F", "flush"} & set(call)]


@pytest.fixture
def gate(host: Host) -> Host:
    assert host.do("install") == 0
    return host


def test_installed_twice_it_stands_open_in_both_families(host: Host, capsys: Any) -> None:
    assert host.do("install") == 0
    assert json.loads(capsys.readouterr().out)["changed"] is True
    before = host.world
    assert host.do("install") == 0
    assert json.loads(capsys.readouterr().out)["changed"] is False
    assert host.world == before
    assert host.closed() == (False, False)
    assert [one["stands"] for one in host.status()["families"].values()] == [True, True]


@pytest.mark.parametrize(
    ("check", "ipv4", "ipv6"),
    [
        (
            "tcp",
            "-p tcp -m set --match-set hikeshi-gate4 src -m tcp --dport 80",
            "--match-set hikeshi-gate6 src -m tcp",
        ),
        (
            "icmp",
            "-p icmp -m set --match-set hikeshi-gate4 src -m icmp --icmp-type 8 -j DROP",
            "--icmpv6-type 128 -j DROP",
        ),
    ],
)
def test_only_what_begins_a_check_is_refused(host: Host, check: str, ipv4: str, ipv6: str) -> None:
    host.want(check=check)
    assert host.do("install") == 0
    for family, words in (("ipv4", ipv4), ("ipv6", ipv6)):
        (rule,) = host.world[family]["HIKESHI-GATE"]
        assert words in rule
        assert f"--match-set {host.gate.SETS[family]} src" in rule, "from the load balancer only"
        assert check == "icmp" or rule.endswith("--tcp-flags FIN,SYN,RST,ACK SYN -j REJECT --reject-with tcp-reset")
    assert host.do("drain") == 0
    assert not host.drained(), "there is nothing in nginx to drain"


def test_closing_and_opening_step_by_step(gate: Host) -> None:
    assert gate.do("drain", "600") == 0
    assert (gate.drained(), gate.closed()) == (True, (False, False))
    assert gate.do("block", "600") == 0
    assert (gate.drained(), gate.closed()) == (False, (True, True))
    assert not gate.world["timers"], "nothing but the kernel's own timeout is left to end"
    assert gate.do("unblock") == 0
    assert (gate.drained(), gate.closed()) == (True, (False, False))
    assert gate.do("undrain") == 0
    assert (gate.drained(), gate.closed(), gate.status()["gate"]) == (False, (False, False), "open")


def test_second_closing_renews_and_second_opening_does_nothing(gate: Host, capsys: Any) -> None:
    gate.do("block", "60")
    since = gate.status()["since"]
    gate.do("drain", "60")
    assert not gate.drained(), "what is blocked needs no drain"
    gate.do("block", "600")
    assert gate.status()["left_s"] > 500 and gate.status()["since"] == since
    assert all(0 < seconds <= 600 for one in gate.status()["families"].values() for seconds in one["entries"].values())
    gate.do("renew", "900")
    assert gate.status()["left_s"] > 800
    gate.do("unblock")
    gate.do("undrain")
    for verb in ("unblock", "undrain"):
        capsys.readouterr()
        before = gate.world
        assert gate.do(verb) == 0
        assert json.loads(capsys.readouterr().out)["changed"] is False
        assert gate.world == before
    assert gate.do("renew", "900") == 2
    assert "nothing to renew" in capsys.readouterr().err


def test_check_changes_nothing(gate: Host) -> None:
    before = (gate.world, sorted(gate.folder.rglob("*")))
    for words in (["drain"], ["block", "60"], ["unblock"], ["undrain"], ["remove"]):
        assert gate.do(*words, "--check") == 0
    assert (gate.world, sorted(gate.folder.rglob("*"))) == before


def test_it_opens_by_itself_with_everything_of_ours_dead(gate: Host) -> None:
    gate.do("drain", "30")
    assert gate.drained()
    gate.later(31)
    assert not gate.drained()
    gate.do("block", "30")
    assert gate.closed() == (True, True)
    gate.later(31)
    assert gate.closed() == (False, False)
    assert gate.do("watch") == 0
    assert gate.closed() == (False, False), "what is over is not closed again"


def test_for_ever_only_in_so_many_words(gate: Host, capsys: Any) -> None:
    for words in (["block"], ["block", "0"], ["block", "-1"], ["block", "9999999"], ["drain", "never"]):
        assert gate.do(*words) == 2, words
    assert gate.closed() == (False, False)
    assert gate.do("block", "never") == 0
    assert gate.status()["until"] is None and gate.closed() == (True, True)
    assert gate.do("unblock") == 0
    ((end, _),) = gate.world["timers"].values()
    assert end < gate.gate.time.time() + 601, "also then a drain ends"


@pytest.mark.parametrize("step", ["drain", "block"])
def test_reboot_while_closed_comes_back_closed_for_the_rest(gate: Host, step: str) -> None:
    gate.do(step, "600")
    gate.reboot()
    assert gate.closed() == (False, False)
    gate.later(200)
    assert gate.do("restore") == 0
    assert gate.closed() == (True, True)
    assert 390 <= gate.status()["left_s"] <= 400
    assert gate.do("restore") == 0  # the second unit, after who loads saved rules
    assert 390 <= gate.status()["left_s"] <= 400
    gate.reboot()
    gate.later(500)
    assert gate.do("restore") == 0
    assert gate.closed() == (False, False)


def test_full_disk_keeps_nothing_closed(
    gate: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gate.do("block", "600")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(gate.gate.json, "dump", full)
    assert gate.do("block", "900") == 1
    assert "state cannot be written: No space left on device; the gate stays as it was" in capsys.readouterr().err
    assert gate.do("unblock") == 0
    assert gate.do("undrain") == 0
    assert gate.do("watch") == 0
    assert (gate.closed(), gate.drained(), gate.status()["gate"]) == ((False, False), False, "open")


def test_clock_that_was_set_back_closes_no_longer_than_was_asked(gate: Host) -> None:
    gate.do("block", "600")
    gate.reboot()
    gate.later(-10 * 365 * 86400)
    gate.do("restore")
    assert gate.status()["left_s"] == 600


def test_watch_puts_back_what_a_reload_took(gate: Host) -> None:
    gate.do("block", "600")
    gate.change(ipv4={"INPUT": list(FOREIGN)})
    gate.change(ipv6={**gate.world["ipv6"], "INPUT": [*FOREIGN, "-A INPUT -j HIKESHI-GATE"]})
    assert gate.closed() == (False, False)
    assert gate.do("watch") == 0
    assert gate.closed() == (True, True)
    before = gate.world
    assert gate.do("watch") == 0
    assert gate.world == before


def test_watch_ends_a_drain_that_nobody_would_end(gate: Host) -> None:
    gate.do("drain", "600")
    gate.change(timers={})
    gate.do("watch")
    assert not gate.drained()


def test_drain_is_not_begun_where_its_end_cannot_be_armed(gate: Host, capsys: Any) -> None:
    gate.change(broken=["systemd-run"])
    assert gate.do("drain") == 1
    assert not gate.drained() and not gate.gate.state()["drain"]
    gate.change(broken=["systemctl"])  # it took the timer, and nobody can say that it stands
    assert gate.do("drain") == 1
    assert not gate.drained()


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ({"keep_open": [V4]}, "192.0.2.10 (keep_open) is one of the load balancer's addresses"),
        ({"keep_open": ["2001:db8::/64"]}, "2001:db8::/64 (keep_open) is one of"),
        ({"load_balancer": [V6]}, "no ipv4 address of the load balancer is named"),
        ({"load_balancer": ["10.0.0.0/8", V6]}, "10.0.0.0/8 is no load balancer's"),
    ],
)
def test_what_would_hurt_is_refused(gate: Host, capsys: Any, what: dict[str, Any], words: str) -> None:
    gate.want(**what)
    before = gate.world
    for verb in (["install"], ["drain"], ["block", "60"]):
        assert gate.do(*verb) == 2, verb
        assert words in capsys.readouterr().err
    assert gate.world == before


def test_login_that_runs_it_is_never_cut_off(gate: Host, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate.gate, "caller", lambda: ("deploy", V6))
    assert gate.do("block", "60") == 2
    assert "2001:db8::10 (this login)" in capsys.readouterr().err


def test_one_family_alone_must_be_said(gate: Host, capsys: Any) -> None:
    gate.want(load_balancer=[V4])
    (gate.folder / "net/if_inet6").write_text("20010db8000000000000000000000020 02 40 00 80 eth0\n")
    assert gate.do("block", "60") == 2
    assert "health_check_gate_one_family: ipv4" in capsys.readouterr().err
    gate.want(load_balancer=[V4], one_family="ipv4")
    assert gate.do("block", "60") == 0
    assert gate.status()["gate"] == "closed"
    (gate.folder / "net/if_inet6").write_text("fe800000000000000000000000000001 02 40 20 80 eth0\n")
    gate.want(load_balancer=[V4])
    assert gate.do("block", "60") == 0, "a host without IPv6 has one family"


def test_two_generations_of_rules_are_refused(gate: Host, capsys: Any) -> None:
    gate.change(legacy=["-A INPUT -j HIKESHI-GATE", "-A INPUT -s 203.0.113.9/32 -j DROP"])
    assert gate.do("block", "60") == 0, "nothing of the older one is loaded"
    (gate.folder / "net/ip_tables_names").write_text("filter\n")
    assert gate.do("block", "60") == 2
    told = capsys.readouterr().err
    assert "rules stand in legacy as well: -A INPUT -s 203.0.113.9/32 -j DROP" in told
    assert gate.do("unblock") == 0, "opening is never refused"


def test_others_are_named(gate: Host) -> None:
    gate.change(units=["ufw.service", "fail2ban.service"])
    assert gate.status()["others"] == ["ufw", "fail2ban"]


def test_removed_nothing_is_left(gate: Host) -> None:
    gate.do("block", "60")
    assert gate.do("remove") == 0
    world = gate.world
    assert (world["ipv4"], world["ipv6"], world["sets"]) == ({"INPUT": FOREIGN}, {"INPUT": FOREIGN}, {})
    assert gate.do("remove") in (0, 1)


# Killed between any two steps

STEPS = ("replace", "symlink", "unlink", "makedirs", "fsync")
CLOSING = [["drain", "600"], ["block", "600"]]
OPENING = [["unblock"], ["undrain"]]


def killed_at(host: Host, budget: int, monkeypatch: pytest.MonkeyPatch, script: list[list[str]]) -> bool:
    """Run a script of steps that is killed before its outer step number `budget`; say whether it came to its end."""
    done = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*words: Any, **more: Any) -> Any:
            nonlocal done
            done += 1
            if done > budget:
                raise Killed
            return real(*words, **more)

        return step

    with monkeypatch.context() as patch:
        for name in STEPS:
            patch.setattr(host.gate.os, name, counted(getattr(os, name)))
        patch.setattr(host.gate.subprocess, "run", counted(host.run))
        try:
            return all(host.do(*words) == 0 for words in script)
        except Killed:
            return False


def settled(host: Host) -> None:
    """Check what may never be: half a gate once `watch` has run, or a closing or a 503 without an end."""
    assert not host.drained() or host.world["timers"], "a 503 that nobody ends"
    assert host.do("watch") == 0
    one, other = host.closed()
    assert one == other, "half a gate"
    ends = [end for entries in host.world["sets"].values() for end in entries.values()]
    assert all(0 < end <= host.gate.time.time() + 601 for end in ends), "a closing without an end"
    if host.drained():
        (token,) = [path.name[6:] for path in (host.folder / "run/gate").glob("drain-*")]
        assert f"hikeshi-gate-undrain-{token}.timer" in host.world["timers"]


@pytest.mark.parametrize(("before", "script"), [([], CLOSING), (CLOSING, OPENING), (CLOSING, [["renew", "600"]])])
@pytest.mark.parametrize("boots", [False, True])
def test_killed_between_any_two_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: list[list[str]], script: list[list[str]], boots: bool
) -> None:
    budget, ended = 0, False
    while not ended:
        (tmp_path / str(budget)).mkdir()
        host = Host(tmp_path / str(budget))
        host.do("install")
        assert all(host.do(*words) == 0 for words in before)
        ended = killed_at(host, budget, monkeypatch, script)
        if boots:
            host.reboot()
            assert host.do("restore") == 0
        settled(host)
        # Whatever happened, both ends can be reached from there, and it ends by itself.
        host.later(700)
        assert (host.drained(), host.closed()) == (False, (False, False)), f"killed at {budget}: never opens"
        assert host.do("block", "60") == 0 and host.closed() == (True, True)
        assert host.do("unblock") == 0 and host.do("undrain") == 0
        assert (host.drained(), host.closed()) == (False, (False, False))
        budget += 1
    assert budget > 20, "the steps were not counted"


def test_ipset_killed_between_the_families_is_mended_at_once(gate: Host) -> None:
    gate.change(ipset_dies_after=1)
    assert gate.do("block", "600") == 1
    gate.change(ipset_dies_after=0)
    gate.do("watch")
    assert gate.closed() == (True, True)


DRIVER = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from tests.unit.gate_host import Host
gate = Host(Path(sys.argv[2])).program()
gate.LOCK_WAIT_S = float(sys.argv[3])
sys.exit(gate.main(sys.argv[4:]))
"""


def start(host: Host, wait: float, *words: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", DRIVER, str(ROOT), str(host.folder), str(wait), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_twenty_at_once_come_one_after_the_other(gate: Host) -> None:
    words = [["drain"], ["block", "600"], ["unblock"], ["undrain"]] * 5
    running = [start(gate, 120, *item) for item in words]
    for process, item in zip(running, words, strict=True):
        out, errors = process.communicate(timeout=180)
        assert process.returncode == 0, (item, errors)
        assert json.loads(out)["gate"] in ("open", "drained", "closed"), item
    settled(gate)


def test_refusal_names_who_holds_the_lock(gate: Host, capsys: Any) -> None:
    gate.gate.LOCK_WAIT_S = 0
    with gate.gate.locked("block"):
        process = start(gate, 0, "undrain")
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert f"changed by pid {os.getpid()}, block, tester" in errors
