"""A recovery closes the gate early, keeps it closed while it lives, and opens it late."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from hikeshi import gate, recovery_gate
from hikeshi import site as sites
from hikeshi.errors import ExitStatus
from hikeshi.incident import audit, store
from hikeshi.runner import Event
from tests.unit.commands import hikeshi
from tests.unit.conftest import SITE, Project
from tests.unit.gated_shop import GatedShop, killed_at, shop_behind
from tests.unit.test_gate import ABOUT, GRANT, WORDS, items, kinds
from tests.unit.test_triage import HEALTHY

__all__ = ["shop_behind"]  # the fixture
LOST = Event("web1", "", "Take the step", "unreachable", message="timed out")


def run(monkeypatch: pytest.MonkeyPatch, shop: GatedShop, *words: str) -> int:
    shop.forget()
    return hikeshi(monkeypatch, *words)


def stages() -> list[str]:
    records = store.journal(sites.load()).records()
    return [str(record.data["stage"]) for record in records if record.kind == "stage.end"]


def test_closes_mends_proves_directly_opens_and_proves_it_all(
    monkeypatch: pytest.MonkeyPatch, shop_behind: GatedShop, capsys: Any
) -> None:
    shop_behind.write(broken=True)
    assert run(monkeypatch, shop_behind, "recover", "--yes") == ExitStatus.DONE
    assert shop_behind.did == [
        "probe customer", "drain", "block", "recover-site.yml", "probe direct", "unblock", "undrain",
        "probe direct", "probe customer",
    ]  # fmt: skip
    assert stages() == ["probe", "look", "close the gate", "mend", "look", "prove", "open the gate", "prove"]
    assert (shop_behind.state, items()) == ("open", {})
    assert kinds().count("permission.used") == 1
    told = capsys.readouterr()
    assert "meanwhile every customer sees the sorry page" in told.err
    assert "the gate is closed" not in told.out


def test_where_the_customer_has_not_allowed_it_the_mending_goes_on(
    monkeypatch: pytest.MonkeyPatch, shop_behind: GatedShop, project: Project, capsys: Any
) -> None:
    project.site({**SITE, "sorry": {"contains": [WORDS]}})
    shop_behind.write(broken=True)
    assert run(monkeypatch, shop_behind, "recover", "--yes") == ExitStatus.DONE
    assert not {"drain", "block"} & set(shop_behind.did) and "recover-site.yml" in shop_behind.did
    told = " ".join(capsys.readouterr().err.split())
    assert told.count("May we show every visitor the sorry page") == 1
    assert "hikeshi incident permit sorry --by WHO" in told
    assert "every customer sees the sorry page" not in told
    assert "permission.missing" not in kinds() and "stage.skipped" in kinds()


def test_a_site_without_a_sorry_page_is_not_asked_about(
    monkeypatch: pytest.MonkeyPatch, shop_behind: GatedShop, project: Project, capsys: Any
) -> None:
    project.site({**SITE, "permissions": GRANT})
    shop_behind.write(broken=True)
    assert run(monkeypatch, shop_behind, "recover", "--yes") == ExitStatus.DONE
    assert shop_behind.steps == []
    assert "gate" not in capsys.readouterr().err


def test_what_customers_do_not_notice_closes_nothing(monkeypatch: pytest.MonkeyPatch, shop_behind: GatedShop) -> None:
    untidy = json.loads(json.dumps(HEALTHY))
    untidy["units"]["nginx.service"]["enabled"] = "disabled"
    shop_behind.wrong_evidence = untidy
    shop_behind.write(broken=True)
    monkeypatch.setattr("hikeshi.probes.run", lambda *_, **__: [])
    assert run(monkeypatch, shop_behind, "recover", "--yes") in (ExitStatus.DONE, ExitStatus.FAILED)
    assert "recover-site.yml" in shop_behind.did
    assert shop_behind.steps == []


@pytest.mark.parametrize("words", [("--plan",), ("--check",), ()])
def test_plan_check_and_nobody_to_approve_leave_it_open(
    monkeypatch: pytest.MonkeyPatch, shop_behind: GatedShop, words: tuple[str, ...]
) -> None:
    shop_behind.write(broken=True)
    run(monkeypatch, shop_behind, "recover", *words)
    assert not {"drain", "block"} & set(shop_behind.did)
    assert "permission.used" not in kinds()


def test_what_somebody_closed_before_stays_closed(
    monkeypatch: pytest.MonkeyPatch, shop_behind: GatedShop, capsys: Any
) -> None:
    assert run(monkeypatch, shop_behind, "sorry", "on", "--yes") == ExitStatus.DONE
    shop_behind.write(broken=True)
    assert run(monkeypatch, shop_behind, "recover", "--yes") == ExitStatus.DONE
    assert shop_behind.did == [
        "probe customer", "probe direct", "recover-site.yml", "probe direct"
    ]  # fmt: skip
    assert shop_behind.state == "closed" and "gate" in items()
    told = capsys.readouterr().out
    assert "the gate was closed before this recovery, and stays closed until" in told
    assert "hikeshi sorry off" in told
    # Nothing is wrong behind it any more: the sorry page is no reason to build anything anew.
    assert run(monkeypatch, shop_behind, "recover", "--yes") == ExitStatus.DONE
    assert shop_behind.did == ["probe customer", "probe direct", "probe direct"]


def test_broken_shop_stays_behind_the_sorry_page_and_the_next_recovery_opens(
    monkeypatch: pytest.MonkeyPatch, shop_behind: GatedShop, capsys: Any
) -> None:
    shop_behind.mendable = False
    shop_behind.write(broken=True)
    assert run(monkeypatch, shop_behind, "recover", "--yes", "--json") == ExitStatus.FAILED
    told = json.loads(capsys.readouterr().out)
    assert "customers see the sorry page until" in told["gate"] and "hikeshi sorry off" in told["gate"]
    assert {item["view"] for item in told["probes_after"]} == {"direct"}
    assert shop_behind.state == "closed" and "gate" in items()
    assert not {"unblock", "undrain"} & set(shop_behind.did)
    shop_behind.write(broken=False)  # somebody mended it by hand
    assert run(monkeypatch, shop_behind, "recover", "--yes") == ExitStatus.DONE
    assert (shop_behind.state, items()) == ("open", {})


def test_a_load_balancer_that_does_not_switch_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, shop_behind: GatedShop, capsys: Any
) -> None:
    shop_behind.fails_open = True
    shop_behind.write(broken=True)
    assert run(monkeypatch, shop_behind, "recover", "--yes") == ExitStatus.DONE
    assert (shop_behind.state, items()) == ("open", {})
    assert "the gate was not closed, going on:" in capsys.readouterr().err


def test_a_gate_that_does_not_open_is_said_and_is_no_success(
    monkeypatch: pytest.MonkeyPatch, shop_behind: GatedShop, capsys: Any
) -> None:
    shop_behind.write(broken=True)
    shop_behind.fails["unblock"] = LOST
    assert run(monkeypatch, shop_behind, "recover", "--yes") == ExitStatus.FAILED
    told = capsys.readouterr()
    assert "the gate does not open" in told.err
    assert "customers see the sorry page until" in told.out and "not healthy" in told.out
    assert shop_behind.state == "closed" and "gate" in items()


def test_an_error_in_the_middle_says_what_stays_closed(
    monkeypatch: pytest.MonkeyPatch, shop_behind: GatedShop, capsys: Any
) -> None:
    shop_behind.write(broken=True)

    def full(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hikeshi.recover.mend", full)
    assert run(monkeypatch, shop_behind, "recover", "--yes") == ExitStatus.INTERRUPTED
    assert "customers see the sorry page until" in capsys.readouterr().err
    assert shop_behind.state == "closed"


# Renewing


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch, shop_behind: GatedShop) -> GatedShop:
    """Its time is short, mending takes long, and renewals may come at once."""
    shop_behind.lasts_s = 0.6
    monkeypatch.setattr(recovery_gate, "LEAST_S", 0.01)
    others = shop_behind._others

    def slow(playbook: str) -> Any:
        if playbook == "recover-site.yml":
            time.sleep(1)
        return others(playbook)

    monkeypatch.setattr(shop_behind, "_others", slow)
    return shop_behind


def test_it_is_renewed_while_the_recovery_lives(monkeypatch: pytest.MonkeyPatch, often: GatedShop) -> None:
    often.write(broken=True)
    assert run(monkeypatch, often, "recover", "--yes") == ExitStatus.DONE
    assert often.did.count("renew") >= 2
    assert often.did.index("block") < often.did.index("renew") < often.did.index("unblock")
    assert "renew" not in often.did[often.did.index("unblock") :]


def test_a_renewal_that_fails_is_said_once_and_mending_goes_on(
    monkeypatch: pytest.MonkeyPatch, often: GatedShop, capsys: Any
) -> None:
    often.write(broken=True)
    often.fails["renew"] = LOST
    assert run(monkeypatch, often, "recover", "--yes") == ExitStatus.DONE
    assert capsys.readouterr().err.count("the gate cannot be renewed") == 1


def test_somebody_elses_is_renewed_for_the_time_it_had(monkeypatch: pytest.MonkeyPatch, often: GatedShop) -> None:
    run(monkeypatch, often, "sorry", "on", "--yes")
    often.write(broken=True, until=time.time() + 100)
    monkeypatch.setattr(recovery_gate, "SHARE", 1000)
    often.lasts_s = 100
    assert run(monkeypatch, often, "recover", "--yes") == ExitStatus.DONE
    renewals = [extra for extra in often.extras if extra["sorry_page_step"] == "renew"]
    assert renewals and all(extra["health_check_gate_minutes"] == 2 for extra in renewals)


# Killed


def sound(shop: GatedShop, where: str) -> None:
    """Say that what a killed command left is open, or ends by itself."""
    left = shop.read()
    assert shop.state == "open" or left["until"] > time.time(), f"{where}: {left}"
    assert audit.verify(store.journal(sites.load()).folder).whole


class Moment:
    """A moment to come back to: the shop, and what the journal says. A short journal is a quick one."""

    def __init__(self, shop: GatedShop, folder: Path) -> None:
        self.shop, self.state, self.kept = shop, shop.read(), folder / "kept"
        shutil.copytree(self.records, self.kept)

    @property
    def records(self) -> Path:
        return sites.load().records

    def back(self) -> None:
        shutil.rmtree(self.records)
        shutil.copytree(self.kept, self.records)
        self.shop.write(**self.state)


def test_recovery_killed_at_any_moment_and_run_again(
    monkeypatch: pytest.MonkeyPatch, shop_behind: GatedShop, tmp_path: Path
) -> None:
    assert run(monkeypatch, shop_behind, "recover", "--yes") == ExitStatus.DONE
    shop_behind.write(broken=True)
    begin, states, killed, number = Moment(shop_behind, tmp_path), set(), True, 0
    while killed:
        number += 1
        begin.back()
        killed = killed_at(number, shop_behind, "recover", "--yes")
        states.add((shop_behind.state, shop_behind.read()["broken"]))
        sound(shop_behind, f"killed at {number}")
        assert run(monkeypatch, shop_behind, "recover", "--yes") == ExitStatus.DONE, number
        assert (shop_behind.state, items(), shop_behind.read()["broken"]) == ("open", {}, False), number
    assert states == {
        ("open", True), ("drained", True), ("closed", True), ("closed", False), ("drained", False), ("open", False),
    }  # fmt: skip


@pytest.mark.parametrize("check", ["http", "tcp", "icmp"])
@pytest.mark.parametrize("verb", ["on", "off"])
def test_sorry_killed_between_any_two_steps(
    monkeypatch: pytest.MonkeyPatch, shop_behind: GatedShop, tmp_path: Path, verb: str, check: str
) -> None:
    shop_behind.about["check"] = check
    about = gate.about_of({**ABOUT, "check": check})
    verbs = {"on": ("sorry", "on", "--yes"), "off": ("sorry", "off")}
    assert run(monkeypatch, shop_behind, *verbs["off" if verb == "on" else "on"]) == ExitStatus.DONE
    begin = Moment(shop_behind, tmp_path)
    assert run(monkeypatch, shop_behind, *verbs[verb]) == ExitStatus.DONE
    steps = [step for step in (gate.closing if verb == "on" else gate.opening)(about) if step not in ("wait", "prove")]
    # A drain is asked for, and lifted, everywhere: where the check is not http the host has none.
    assert [step for step in shop_behind.did if step in steps] == steps
    states, number, killed = set(), 0, True
    while killed:
        number += 1
        for again in ("on", "off"):
            begin.back()
            killed = killed_at(number, shop_behind, *verbs[verb])
            states.add(shop_behind.state)
            sound(shop_behind, f"killed at {number}")
            assert run(monkeypatch, shop_behind, *verbs[again]) == ExitStatus.DONE, number
            assert (shop_behind.state, "gate" in items()) == (("closed", True) if again == "on" else ("open", False))
    assert states == ({"open", "drained", "closed"} if check == "http" else {"open", "closed"})
