"""A host that is not reached, or says what cannot be judged, keeps nobody from judging and mending the others.

It is named, never judged and never changed, and no verb ends as if all were well.
"""

import dataclasses
import json
from typing import Any

import pytest

from hikeshi import baseline, look, recover, runner
from hikeshi.copies.proving import Login
from hikeshi.errors import ExitStatus, HikeshiError, UnreachableError
from hikeshi.incident import store
from hikeshi.repair import Mended
from hikeshi.runner import Event
from hikeshi.site import load
from hikeshi.triage import plan
from tests.unit.commands import Runs, hikeshi, stopped
from tests.unit.test_triage import HEALTHY

SAYS_NOTHING = "web2 sent evidence of schema None; known: 1."
REKEYED = "Host key verification failed."
CLOSED = "ssh does not let us in to web2: Connection refused"


@pytest.fixture(params=["lies", "away"])
def refused(request: pytest.FixtureRequest, runs: Runs) -> tuple[str, ExitStatus]:
    """web2 tells nothing that can be judged, or is not reached; returned are the words for it and the exit status."""
    if request.param == "away":
        runs.away = {"web2": "Connection refused"}
        return CLOSED, ExitStatus.UNREACHABLE
    runs.others = {"web2": {"hello": "\x1b[2J"}}
    return SAYS_NOTHING, ExitStatus.FAILED


def said(words: str) -> str:
    return " ".join(words.split())


def test_the_others_are_mended_and_the_site_is_not_called_healthy(
    monkeypatch: pytest.MonkeyPatch, runs: Runs, capsys: Any, refused: tuple[str, ExitStatus]
) -> None:
    words, status = refused
    runs.evidence = [stopped("nginx.service"), HEALTHY]
    assert hikeshi(monkeypatch, "recover", "--yes") == status
    assert runs.playbooks == ["collect-evidence.yml", "recover-site.yml", "collect-evidence.yml"]
    variables = runs.asked[1][1]
    assert {host for kind in ("disk", "live", "late") for host in variables[f"recover_site_{kind}_steps"]} == {"web1"}
    told = capsys.readouterr()
    assert f"not judged, and left as it is: {words}" in said(told.out)
    assert f"not judged, and left as it is: {words}" in said(told.err)
    assert "not healthy after" in told.out and "found and mended" in told.out
    assert "\x1b" not in told.out + told.err


def test_green_probes_and_no_finding_are_not_enough(
    monkeypatch: pytest.MonkeyPatch, runs: Runs, capsys: Any, refused: tuple[str, ExitStatus]
) -> None:
    words, status = refused
    assert hikeshi(monkeypatch, "recover", "--yes", "--json") == status
    data = json.loads(capsys.readouterr().out)
    assert (data["healthy"], data["changed"], data["left"]) == (False, 0, [])
    assert [(item["host"], item["why"]) for item in data["refused"]] == [("web2", words)]
    assert data["refused"][0]["unreachable"] is (status == ExitStatus.UNREACHABLE)
    assert data["refused"][0]["fix"]
    assert runs.playbooks == ["collect-evidence.yml"]
    for way in ("--plan", "--check"):
        assert hikeshi(monkeypatch, "recover", way) == status


def test_nothing_is_converged_on_it(
    monkeypatch: pytest.MonkeyPatch, runs: Runs, capsys: Any, refused: tuple[str, ExitStatus]
) -> None:
    runs.evidence = [stopped("nginx.service")]
    assert hikeshi(monkeypatch, "recover", "--yes") == refused[1]
    assert "build-site.yml" in runs.playbooks
    assert runs.limits == [("build-site.yml", "all:!web2")]
    told = capsys.readouterr()
    assert "what of the site can be judged was converged from code" in told.out
    assert "web1 sudo journalctl -n 50 -u nginx.service" in told.err


def test_triage_names_it_beside_what_is_wrong_elsewhere(
    monkeypatch: pytest.MonkeyPatch, runs: Runs, capsys: Any, refused: tuple[str, ExitStatus]
) -> None:
    words, status = refused
    runs.evidence = [stopped("nginx.service")]
    assert hikeshi(monkeypatch, "triage", "--deep") == status
    told = capsys.readouterr().out
    assert f"not judged {words}" in said(told)
    assert told.index("not judged") < told.index("nginx.service is not enabled")
    assert runs.limits == [("build-site.yml", "all:!web2")]
    assert hikeshi(monkeypatch, "triage", "--json") == status
    data = json.loads(capsys.readouterr().out)
    assert data["healthy"] is False and [item["host"] for item in data["refused"]] == ["web2"]
    assert {item["host"] for item in data["findings"]} == {"web1"}
    runs.evidence = [HEALTHY]
    assert hikeshi(monkeypatch, "triage") == status
    told = said("".join(capsys.readouterr()))
    assert "nothing is wrong" not in told
    assert "next: " + ("the same command again" if status == ExitStatus.FAILED else "does it run?") in told


def test_half_a_site_is_no_baseline(runs: Runs, refused: tuple[str, ExitStatus]) -> None:
    for why in (None, "it is known"):
        with pytest.raises(HikeshiError, match="web2"):
            look.record(load(), why=why)
    assert baseline.names(load()) == []


def test_state_that_cannot_be_compared_refuses_its_host_alone(
    monkeypatch: pytest.MonkeyPatch, runs: Runs, capsys: Any
) -> None:
    look.record(load())
    runs.others = {"web2": HEALTHY}  # but it sends no state
    runs.evidence = [stopped("nginx.service"), HEALTHY]
    assert hikeshi(monkeypatch, "recover", "--yes") == ExitStatus.FAILED
    assert "recover-site.yml" in runs.playbooks
    assert "web2 did not tell its whole state" in said(capsys.readouterr().out)


def test_collector_that_failed_on_one_host_refuses_that_one(runs: Runs) -> None:
    result = runner.run(load(), "collect-evidence.yml", verb="evidence")
    result.returned["web2"] = HEALTHY
    result.failures.append(Event("web2", "evidence", "Read", "failed", message="no space left"))
    hosts, refused = look.judgeable(dataclasses.replace(result, status=2))
    assert list(hosts) == ["web1"]
    assert [item.problem.message for item in refused] == ["evidence could not be collected of web2: no space left"]


EXPIRED = "WARNING: Your password has expired. Password change required but no TTY available."


@pytest.mark.parametrize("lets_in", [True, False])
def test_login_that_ends_in_words_lets_nobody_in(monkeypatch: pytest.MonkeyPatch, runs: Runs, lets_in: bool) -> None:
    """Ansible reaches a host where a password must be changed first, and fails there as it does on a full disk."""
    asked: list[str] = []

    def log_in(_: Any, host: str, **__: Any) -> Login:
        asked.append(host)
        return Login({"uid": "0"}) if lets_in else Login(why=EXPIRED)

    monkeypatch.setattr("hikeshi.look.proving.log_in", log_in)
    broken = [Event("web2", "evidence", "Read", "failed", message="No start of json char found")]
    runs.failures["collect-evidence.yml"] = broken
    (item,) = look.evidence(load(), even_none=True).refused
    assert (asked, item.unreachable) == (["web2"], not lets_in)
    assert (EXPIRED if not lets_in else "No start of json") in item.problem.message
    assert ("hikeshi rescue web2" in item.problem.fix) is not lets_in


def test_nobody_is_left_to_judge(runs: Runs) -> None:
    runs.away = {"web1": "No route to host", "web2": "Connection refused"}
    with pytest.raises(UnreachableError, match="to web1: No route to host .nor can be judged: web2."):
        look.evidence(load())
    runs.away, runs.evidence, runs.others = {}, [{"schema": 7}], {"web2": {}}
    with pytest.raises(HikeshiError, match="web1 sent evidence of schema 7; known: 1. .nor can be judged: web2."):
        look.evidence(load())


def test_what_was_found_on_a_host_that_falls_silent_still_stands(
    monkeypatch: pytest.MonkeyPatch, runs: Runs, capsys: Any
) -> None:
    """The step that was to mend it cut us off: that is no success."""
    runs.others = {"web2": stopped("nginx.service") | {"host": "web2"}}

    def mend(_: Any, proposed: plan.Plan, *, check: bool) -> list[Mended]:
        assert {planned.step.host for planned in proposed.steps} == {"web2"}
        runs.away = {"web2": "Connection timed out"}
        return [Mended(planned, changed=True, failed=False, seconds=0.1) for planned in proposed.steps]

    monkeypatch.setattr(recover, "mend", mend)
    assert hikeshi(monkeypatch, "recover", "--yes", "--json") == ExitStatus.UNREACHABLE
    data = json.loads(capsys.readouterr().out)
    assert [(item["host"], item["rule"]) for item in data["left"]] == [("web2", "unit_down")]
    assert [item["host"] for item in data["refused"]] == ["web2"]
    assert runs.limits == [("build-site.yml", "all:!web2")]


def test_trial_after_which_a_host_is_silent_did_not_help() -> None:
    healthy = recover.Recovery("shop")
    silent = recover.Recovery("shop", refused=[look.Refused("web2", HikeshiError("x"))])
    assert not recover._ill(silent) < recover._ill(healthy)
    assert recover._ill(healthy) < recover._ill(silent)


def test_finding_of_a_silent_host_is_not_said_to_be_gone(runs: Runs) -> None:
    runs.others = {"web2": stopped("nginx.service") | {"host": "web2"}}
    look.triage(load(), against=None)
    (earlier,) = [record for record in store.journal(load()).records() if record.kind == "findings"]
    runs.away = {"web2": "Connection refused"}
    done = look.triage(load(), against=None, since=earlier.time)
    assert (done.new, done.gone) == ([], [])
    runs.away, runs.others = {}, {"web2": HEALTHY}
    assert len(look.triage(load(), against=None, since=earlier.time).gone) == 1


def test_changed_host_key_is_for_a_person_to_accept(monkeypatch: pytest.MonkeyPatch, runs: Runs, capsys: Any) -> None:
    runs.away = {"web2": REKEYED}
    assert hikeshi(monkeypatch, "triage", "--json") == ExitStatus.UNREACHABLE
    (refused,) = json.loads(capsys.readouterr().out)["refused"]
    assert refused["unreachable"] and "shows another host key" in refused["why"]
    assert "by another way than ssh" in refused["fix"] and "StrictHostKeyChecking" not in refused["fix"]
