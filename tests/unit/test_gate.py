"""The gate from the controller: in which order it closes and opens, and that a sorry page is seen before it goes on."""

import json
from typing import Any

import pytest

from hikeshi import gate, probes, runner
from hikeshi import site as sites
from hikeshi.errors import ExitStatus
from hikeshi.gate import About
from hikeshi.incident import state as states
from hikeshi.incident import store
from hikeshi.probes import ProbeResult
from hikeshi.runner import Event, RunResult
from hikeshi.site import Site
from tests.unit.commands import hikeshi
from tests.unit.conftest import SITE, Project
from tests.unit.shop import Shop

ABOUT: dict[str, Any] = {
    "lb_kind": "haproxy",
    "what": "answers 503 itself",
    "verified": True,
    "check": "http",
    "interval": 1.0,
    "timeout": 3.0,
    "fall": 2,
    "rise": 3,
}
WORDS = "We will be right back"
GRANT = {"sorry": {"by": "Ms Ito", "when": "before", "words": "Show it if you must."}}


class Gates:
    """Stands where Ansible would: web servers with a gate each, and a load balancer that obeys it."""

    def __init__(self) -> None:
        self.about, self.steps = dict(ABOUT), list[str]()
        self.hosts = {"web1": {"drained": False, "closed": False}}
        self.fails: dict[str, Event] = {}
        self.fails_open = False
        self.full_disk = False
        self.extras: list[dict[str, Any]] = []
        self.shop_works = True

    def status(self, host: str) -> dict[str, Any]:
        one = self.hosts[host]
        family = {"stands": True, "closed": one["closed"], "needed": True, "entries": {}, "packets": 3}
        shut = one["closed"] or one["drained"]
        return {
            "gate": "closed" if one["closed"] else "drained" if one["drained"] else "open",
            "check": self.about["check"],
            "ports": [80],
            "backend": "nft",
            "families": {"ipv4": family, "ipv6": dict(family)},
            "drained": one["drained"],
            "drain_ends_by_itself": True,
            "since": 1764000000.0 if shut else None,
            "by": "deploy from 192.0.2.7" if shut else "",
            "until": 1764001800.0 if shut else None,
            "left_s": 1800 if shut else 0,
            "others": ["ufw"],
        }

    def __call__(self, site: Site, playbook: str, *, extra: Any, check: bool = False, **more: Any) -> RunResult:
        step, failures = extra["sorry_page_step"], []
        self.steps.append(step + " (check)" * check)
        self.extras.append(extra)
        opens = step in ("unblock", "undrain")
        assert playbook == ("hide-sorry-page.yml" if opens else "show-sorry-page.yml")
        for host, one in self.hosts.items():
            more["listen"](Event(host, "", "Look", "ok", data={"gate": self.status(host), "about": self.about}))
            if step in self.fails:
                failures.append(self.fails[step])
                continue
            before = dict(one)
            if not check:
                self.take(one, step)
            outcome: Any = "changed" if one != before else "ok"
            more["listen"](Event(host, "", step, outcome, data={"gate": self.status(host), "about": self.about}))
        return RunResult(playbook, 2 if failures else 0, 0.1, {}, failures, {}, "")

    def take(self, one: dict[str, bool], step: str) -> None:
        http = self.about["check"] == "http"
        if step == "drain" and http:
            one["drained"] = not one["closed"]
        elif step in ("drain", "block"):
            one.update(closed=True, drained=False)
        elif step == "unblock":
            one.update(closed=False, drained=one["closed"] and http and not self.full_disk)
        elif step == "undrain":
            one["drained"] = False

    def look(self, site: Site, view: str, proxy: str | None) -> gate.Look:
        shut = all(one["closed"] or one["drained"] for one in self.hosts.values()) and not self.fails_open
        return gate.Look(view, sorry=shut, seen="503" if shut else "200")

    def probe(self, site: Site, view: str, only: Any = None, report: Any = None) -> list[ProbeResult]:
        shut = view == "customer" and self.look(site, view, None).sorry
        return [ProbeResult("top", "The top page opens", view, self.shop_works and not shut, "seen", 0.1)]


def behind(monkeypatch: pytest.MonkeyPatch, project: Project, fake: Gates) -> Gates:
    """Put it where Ansible, the customers and the load balancer would be; waiting takes no time."""
    project.site({**SITE, "sorry": {"contains": [WORDS]}, "permissions": GRANT})
    monkeypatch.setattr(runner, "run", fake)
    monkeypatch.setattr(gate, "look", fake.look)
    monkeypatch.setattr(probes, "run", fake.probe)
    monkeypatch.setattr(gate, "PAUSE_S", 0.001)
    monkeypatch.setattr(gate, "GRACE_S", 0.05)
    monkeypatch.setattr(gate, "worst_seconds", lambda about, opens=False: 0.05)
    return fake


@pytest.fixture
def gates(monkeypatch: pytest.MonkeyPatch, project: Project) -> Gates:
    return behind(monkeypatch, project, Gates())


def items() -> dict[str, Any]:
    return states.derive(store.journal(sites.load()).records()).items


def kinds() -> list[str]:
    return [record.kind for record in store.journal(sites.load()).records()]


# The pure half


def about(**more: Any) -> About:
    return gate.about_of({**ABOUT, **more})


def test_order_of_steps() -> None:
    assert gate.closing(about()) == ("drain", "wait", "block", "prove")
    for check in ("tcp", "icmp"):
        assert gate.closing(about(check=check)) == ("drain", "wait", "prove"), "the first blocks there"
        assert gate.opening(about(check=check))[0] == "unblock"
    assert gate.opening(about())[:2] == ("unblock", "undrain")


def test_how_long_the_load_balancer_may_take() -> None:
    assert gate.worst_seconds(about()) == 2
    assert gate.worst_seconds(about(), opens=True) == 3
    assert gate.worst_seconds(about(check="icmp", interval=300.0, fall=10, timeout=5.0)) == 3005
    assert "within 2 s" in gate.worst_words(about())
    assert "nobody has verified" in gate.worst_words(about(verified=False))


def test_what_is_missing_is_said_in_words() -> None:
    gates = Gates()
    gates.hosts = {"web1": {"drained": False, "closed": True}, "web2": {"drained": True, "closed": False}}
    seen = {host: gates.status(host) for host in gates.hosts}
    assert gate.missing(seen, closed=True) == ["web2: ipv4 is open", "web2: ipv6 is open"]
    assert "web2: nginx still answers the check 503" in gate.missing(seen, closed=False)
    assert gate.state_of(seen) == "half"
    seen["web1"]["families"]["ipv6"].update(needed=False, closed=False)
    assert not [line for line in gate.missing(seen, closed=True) if line.startswith("web1")]
    seen["web1"]["families"]["ipv4"]["stands"] = False
    assert gate.missing(seen, closed=True)[0] == "web1: chain, jump or set of ipv4 is missing"


def test_sorry_page_is_known_by_status_words_and_when_to_come_again(project: Project, shop: Shop) -> None:
    views = dict.fromkeys(("customer", "direct"), {"url": shop.url})
    for page, sorry, seen in (
        ({"contains": ["nothing like it"]}, False, "answered 200"),
        ({"contains": ["nothing like it"], "status": 200}, False, "without “nothing like it”"),
        ({"contains": ["<"], "status": 200}, False, "without Retry-After"),
        ({"contains": ["<"], "status": 200, "retry_after": False}, True, "200"),
    ):
        project.site({**SITE, "views": views, "sorry": page})
        found = gate.look(sites.load(), "customer", None)
        assert (found.sorry, seen in found.seen) == (sorry, True), found


# The driving half


def test_closing_waits_for_the_sorry_page_before_it_blocks(
    monkeypatch: pytest.MonkeyPatch, gates: Gates, capsys: Any
) -> None:
    assert hikeshi(monkeypatch, "sorry", "on", "--yes", "--json") == ExitStatus.DONE
    assert gates.steps == ["drain", "block"]
    told = capsys.readouterr()
    assert json.loads(told.out)["gate"] == "closed"
    assert "the sorry page shows within" in told.err
    assert items()["gate"].close == "hikeshi sorry off --site shop"
    assert kinds().index("item.opened") > kinds().index("permission.used")


@pytest.mark.parametrize("check", ["tcp", "icmp"])
def test_without_http_nothing_is_drained(monkeypatch: pytest.MonkeyPatch, gates: Gates, check: str) -> None:
    gates.about["check"] = check
    assert hikeshi(monkeypatch, "sorry", "on", "--yes") == ExitStatus.DONE
    assert gates.steps == ["drain"], "the host blocks where it cannot drain: a second run would take its time"
    assert gates.hosts["web1"] == {"drained": False, "closed": True}


def test_opening_proves_the_shop_before_and_after(monkeypatch: pytest.MonkeyPatch, gates: Gates, capsys: Any) -> None:
    hikeshi(monkeypatch, "sorry", "on", "--yes")
    gates.steps.clear()
    assert hikeshi(monkeypatch, "sorry", "off") == ExitStatus.DONE
    assert gates.steps == ["status", "unblock", "undrain"]
    assert "gate" not in items()
    assert "customer: no sorry page" in capsys.readouterr().out


def test_host_that_cannot_drain_is_named_and_opens(monkeypatch: pytest.MonkeyPatch, gates: Gates, capsys: Any) -> None:
    hikeshi(monkeypatch, "sorry", "on", "--yes")
    gates.full_disk = True
    assert hikeshi(monkeypatch, "sorry", "off") == ExitStatus.DONE
    said = " ".join(capsys.readouterr().err.split())
    assert "web1 could not be drained first, so it opened in one step" in said
    assert "hikeshi triage" in said


def test_second_closing_renews_and_takes_no_second_permission(monkeypatch: pytest.MonkeyPatch, gates: Gates) -> None:
    hikeshi(monkeypatch, "sorry", "on", "--yes")
    assert hikeshi(monkeypatch, "sorry", "on", "--yes", "--minutes", "45") == ExitStatus.DONE
    assert gates.extras[-1]["health_check_gate_minutes"] == 45
    assert kinds().count("permission.used") == 1


def test_second_opening_does_nothing(monkeypatch: pytest.MonkeyPatch, gates: Gates) -> None:
    assert hikeshi(monkeypatch, "sorry", "off") == ExitStatus.DONE
    assert gates.steps == ["status"]
    assert "gate.start" not in kinds()


def test_expired_gate_is_no_longer_to_be_put_back(monkeypatch: pytest.MonkeyPatch, gates: Gates) -> None:
    hikeshi(monkeypatch, "sorry", "on", "--yes")
    gates.hosts["web1"] = {"drained": False, "closed": False}
    assert hikeshi(monkeypatch, "sorry", "off") == ExitStatus.DONE
    assert "gate" not in items()


def test_broken_shop_stays_behind_the_sorry_page_unless_forced(
    monkeypatch: pytest.MonkeyPatch, gates: Gates, capsys: Any
) -> None:
    hikeshi(monkeypatch, "sorry", "on", "--yes")
    gates.shop_works = False
    assert hikeshi(monkeypatch, "sorry", "off") == ExitStatus.REFUSED
    assert "The sorry page stays" in capsys.readouterr().err
    assert gates.hosts["web1"]["closed"] and "gate" in items()
    assert hikeshi(monkeypatch, "sorry", "off", "--force") == ExitStatus.FAILED, "the shop is still broken"
    assert not gates.hosts["web1"]["closed"] and "gate" not in items()
    (forced,) = [item for item in store.journal(sites.load()).records() if item.kind == "gate.start"][1:]
    assert forced.data["force"] is True


def test_load_balancer_that_does_not_switch_is_let_go_again(
    monkeypatch: pytest.MonkeyPatch, gates: Gates, capsys: Any
) -> None:
    gates.fails_open = True
    assert hikeshi(monkeypatch, "sorry", "on", "--yes") == ExitStatus.FAILED
    assert gates.steps == ["drain", "unblock", "undrain"], "never blocked before customers see the page"
    assert gates.hosts["web1"] == {"drained": False, "closed": False}
    assert "shows no sorry page: 200" in capsys.readouterr().err
    assert "gate" not in items()


def test_refusal_of_the_role_is_5_and_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch, gates: Gates, capsys: Any
) -> None:
    words = "gate refused: aws-alb sends requests to all targets. There, instead: a fixed response"
    gates.fails["drain"] = Event("web1", "health_check_gate", "Refuse", "failed", message=words)
    assert hikeshi(monkeypatch, "sorry", "on", "--yes") == ExitStatus.REFUSED
    assert "There, instead: a fixed response" in capsys.readouterr().err
    assert gates.steps == ["drain"] and "gate" not in items()


def test_renewal_that_fails_leaves_the_gate_closed(monkeypatch: pytest.MonkeyPatch, gates: Gates) -> None:
    hikeshi(monkeypatch, "sorry", "on", "--yes")
    gates.fails["block"] = Event("web1", "", "Take the step", "unreachable", message="timed out")
    assert hikeshi(monkeypatch, "sorry", "on", "--yes") == ExitStatus.UNREACHABLE
    assert gates.hosts["web1"]["closed"] and "gate" in items()


def test_one_server_that_fails_opens_the_others(monkeypatch: pytest.MonkeyPatch, gates: Gates) -> None:
    gates.hosts["web2"] = {"drained": False, "closed": False}
    gates.fails["block"] = Event("web2", "", "Take the step", "failed", message="no ipset")
    assert hikeshi(monkeypatch, "sorry", "on", "--yes") == ExitStatus.FAILED
    assert not any(one["closed"] or one["drained"] for one in gates.hosts.values())


def test_without_permission_nothing_is_begun(
    monkeypatch: pytest.MonkeyPatch, gates: Gates, project: Project, capsys: Any
) -> None:
    project.site({**SITE, "sorry": {"contains": [WORDS]}})
    assert hikeshi(monkeypatch, "sorry", "on", "--yes") == ExitStatus.REFUSED
    assert "May we show every visitor the sorry page" in capsys.readouterr().err
    assert gates.steps == []


def test_nobody_to_approve_is_refused(monkeypatch: pytest.MonkeyPatch, gates: Gates) -> None:
    assert hikeshi(monkeypatch, "sorry", "on") == ExitStatus.REFUSED
    assert gates.steps == []


def test_site_without_a_sorry_page_is_4(
    monkeypatch: pytest.MonkeyPatch, gates: Gates, project: Project, capsys: Any
) -> None:
    project.site({**SITE, "permissions": GRANT})
    assert hikeshi(monkeypatch, "sorry", "on", "--yes") == ExitStatus.MISCONFIGURED
    assert "key `sorry` is missing" in capsys.readouterr().err


def test_check_changes_nothing(monkeypatch: pytest.MonkeyPatch, gates: Gates) -> None:
    assert hikeshi(monkeypatch, "sorry", "on", "--check") == ExitStatus.DONE
    assert gates.steps == ["drain (check)"]
    assert not {"permission.used", "gate.start", "item.opened"} & set(kinds())
    hikeshi(monkeypatch, "sorry", "on", "--yes")
    gates.steps.clear()
    assert hikeshi(monkeypatch, "sorry", "off", "--check") == ExitStatus.DONE
    assert gates.steps == ["status", "unblock (check)"] and "gate" in items()


def test_for_ever_only_in_so_many_words(monkeypatch: pytest.MonkeyPatch, gates: Gates) -> None:
    assert hikeshi(monkeypatch, "sorry", "on", "--yes", "--minutes", "0") == ExitStatus.USAGE
    assert hikeshi(monkeypatch, "sorry", "on", "--yes", "--minutes", "5", "--never-expires") == ExitStatus.USAGE
    assert hikeshi(monkeypatch, "sorry", "on", "--yes") == ExitStatus.DONE
    assert "health_check_gate_never_expires" not in gates.extras[-1]
    assert hikeshi(monkeypatch, "sorry", "on", "--yes", "--never-expires") == ExitStatus.DONE
    assert gates.extras[-1]["health_check_gate_never_expires"] is True


def test_lock_names_its_holder(monkeypatch: pytest.MonkeyPatch, gates: Gates, capsys: Any) -> None:
    from hikeshi import lock

    with lock.held(sites.load(), "recover"):
        assert hikeshi(monkeypatch, "sorry", "on", "--yes") == ExitStatus.REFUSED
        assert hikeshi(monkeypatch, "sorry", "off") == ExitStatus.REFUSED
    assert capsys.readouterr().err.count(", recover, ") == 2
    assert gates.steps == []


def test_status_says_who_closed_what_until_when(monkeypatch: pytest.MonkeyPatch, gates: Gates, capsys: Any) -> None:
    hikeshi(monkeypatch, "sorry", "on", "--yes")
    capsys.readouterr()
    assert hikeshi(monkeypatch, "sorry", "status") == ExitStatus.DONE
    told = capsys.readouterr().out
    assert "web1: closed, check http, iptables on nft, since 16:00:00 by deploy from 192.0.2.7, until 16:30:00" in told
    assert "ipv6: closed, 3 packets refused" in told
    assert "also keep rules here: ufw" in told
    assert "customer: sorry page" in told


def test_closed_gate_that_somebody_flushed_is_wrong(monkeypatch: pytest.MonkeyPatch, gates: Gates, capsys: Any) -> None:
    assert hikeshi(monkeypatch, "sorry", "on", "--yes") == ExitStatus.DONE
    assert hikeshi(monkeypatch, "sorry", "status") == ExitStatus.DONE
    whole = gates.status

    def flushed(host: str) -> dict[str, Any]:
        seen = whole(host)
        return {**seen, "gate": "open", "families": {
            family: {**one, "stands": False, "closed": False} for family, one in seen["families"].items()
        }}  # fmt: skip

    monkeypatch.setattr(gates, "status", flushed)
    capsys.readouterr()
    assert hikeshi(monkeypatch, "sorry", "status") == ExitStatus.FAILED
    assert "wrong web1: chain, jump or set of ipv4 is missing" in capsys.readouterr().out


def test_drained_is_as_it_was_meant(monkeypatch: pytest.MonkeyPatch, gates: Gates) -> None:
    gates.hosts["web1"]["drained"] = True
    assert hikeshi(monkeypatch, "sorry", "status") == ExitStatus.DONE
    gates.hosts["web2"] = {"drained": False, "closed": False}
    assert hikeshi(monkeypatch, "sorry", "status") == ExitStatus.FAILED


def test_renewal_while_somebody_works_behind_the_gate(gates: Gates) -> None:
    gates.hosts["web1"]["closed"] = True
    done = gate.renew(sites.load(), minutes=45)
    assert gates.steps == ["renew"] and gates.extras[-1]["health_check_gate_minutes"] == 45
    assert gate.state_of(done.hosts) == "closed"
