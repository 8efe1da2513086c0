"""The page of `hikeshi triage`, read by somebody with a customer on the phone: worst first, true, with the way out."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from hikeshi import look, page, recover
from hikeshi.errors import ExitStatus, HikeshiError
from hikeshi.incident import store
from hikeshi.probes import ProbeResult
from hikeshi.site import Site, load
from hikeshi.triage import findings
from hikeshi.triage.findings import Effect, Finding, Step
from tests.unit.commands import Runs, hikeshi

GREEN = ProbeResult("top", "The top page opens", "customer", True, "200", 0.1)
STEP = Step("web1", "web_server", "reload", "live")


def finding(subject: str, effect: Effect, **more: Any) -> Finding:
    given: dict[str, Any] = {"cause": f"about {subject}", "quote": "x", "remedy": (STEP,), **more}
    return Finding("rule", "web1", subject, effect, **given)


@pytest.fixture
def site(runs: Runs) -> Site:
    return load()


def shown(site: Site, capsys: pytest.CaptureFixture[str], done: look.Triage, *, verbose: bool = False) -> str:
    capsys.readouterr()
    page.triage(site, done, verbose=verbose)
    return " ".join("".join(capsys.readouterr()).split())


def test_cause_stands_where_the_worst_that_follows_from_it_belongs(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    """A lost file is harmless in itself; that the shop is down for want of it is what the customer calls about."""
    found = findings.ordered([
        finding("path:/lost", Effect.UNTIDY, explains=("unit:shop.service",)),
        finding("unit:shop.service", Effect.CANNOT_BUY, symptom=True),
        finding("disk:/", Effect.CANNOT_SEE),
    ])  # fmt: skip
    folded = findings.fold(found)
    assert [cause.subject for cause, _ in folded] == ["path:/lost", "disk:/"]
    assert findings.worst(*folded[0]) is Effect.CANNOT_BUY
    told = shown(site, capsys, look.Triage("shop", probes=[GREEN], found=found))
    assert told.index("cannot buy") < told.index("about path:/lost") < told.index("about disk:/")
    assert "notices nothing" not in told


@pytest.mark.parametrize(
    ("effect", "remedy", "words"),
    [
        (Effect.UNTIDY, (STEP,), "hikeshi recover (web_server reload)"),
        (Effect.CANNOT_SEE, (), "hikeshi recover (no step is known: by building anew, or by hand)"),
        (Effect.WILL_BREAK, (), "by hand (no step is known"),
        (Effect.UNTIDY, (), "by hand (no step is known"),
    ],
)
def test_what_mends_it_is_no_promise_that_recover_breaks(effect: Effect, remedy: Any, words: str, site: Site) -> None:
    item = finding("disk:/", effect, remedy=remedy)
    assert page._mended_by(site, item).startswith(words)
    assert recover._worth_converging([item]) is ("hikeshi recover" in words)


def test_what_was_not_seen_is_not_said_to_be_well(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    told = shown(site, capsys, look.Triage("shop", probes=[GREEN], unseen=["web1: nginx -t could not be read: x"]))
    assert "nothing is wrong with what was seen" in told
    assert "nothing is wrong; looked" in shown(site, capsys, look.Triage("shop", probes=[GREEN]))


def test_no_probe_is_not_taken_for_green(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    told = shown(site, capsys, look.Triage("shop"))
    assert "no probe was run" in told and "hikeshi probe" in told
    assert "green" not in told


def test_what_stands_closed_on_purpose_is_told_beside_what_it_makes_red(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    """Red probes alone would send the next person after a fault that somebody made on purpose."""
    store.journal(site).append("item.opened", {
        "item": "gate", "words": "the gate is closed until 15:30", "close": "hikeshi sorry off --site shop",
    })  # fmt: skip
    done = look.triage(site, against=None)
    assert [(item.item, item.close) for item in done.put_back] == [("gate", "hikeshi sorry off --site shop")]
    assert done.as_data()["put_back"][0]["words"] == "the gate is closed until 15:30"
    told = shown(site, capsys, replace(done, found=[], probes=[replace(GREEN, passed=False, seen="answered 503")]))
    assert "on purpose the gate is closed until 15:30; to put it back: hikeshi sorry off --site shop" in told
    assert "next: hikeshi sorry off --site shop" in told
    store.journal(site).append("item.closed", {"item": "gate", "words": "open again"})
    assert look.triage(site, against=None).put_back == []


def test_earlier_look_is_told_in_the_time_of_the_site(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    at = "2026-11-26T08:05:00.123456Z"
    told = shown(site, capsys, look.Triage("shop", probes=[GREEN], since=at))
    assert f"since the look of {datetime(2026, 11, 26, 8, 5, tzinfo=UTC).astimezone(site.zone):%Y-%m-%d %H:%M}" in told


def test_times_of_the_journal_are_understood(site: Site) -> None:
    look.triage(site, against=None)
    (earlier,) = [record for record in store.journal(site).records() if record.kind == "findings"]
    assert datetime.fromisoformat(earlier.at) == earlier.time


def test_host_that_could_not_be_judged_is_a_symptom_of_the_incident(
    monkeypatch: pytest.MonkeyPatch, runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    runs.away = {"web2": "Connection refused"}
    assert hikeshi(monkeypatch, "triage") == ExitStatus.UNREACHABLE
    capsys.readouterr()
    assert hikeshi(monkeypatch, "incident", "status") == ExitStatus.DONE
    told = " ".join(capsys.readouterr().out.split())
    assert "not judged ssh does not let us in to web2: Connection refused" in told
    assert "1 hosts could not be judged" in told
    assert hikeshi(monkeypatch, "incident", "status", "--json") == ExitStatus.DONE
    assert [item["host"] for item in json.loads(capsys.readouterr().out)["refused"]] == ["web2"]


def test_worse_finding_of_a_later_round_comes_first() -> None:
    kept = [finding("a", Effect.UNTIDY), finding("b", Effect.CANNOT_BUY)]
    assert [item.subject for item in findings.ordered(kept)] == ["b", "a"]


@pytest.mark.parametrize("kind", [look.Triage, recover.Recovery])
def test_json_says_what_its_document_names(kind: type[look.Triage] | type[recover.Recovery]) -> None:
    """Every key stands in the words above the code that makes it."""
    done = kind("shop", refused=[look.Refused("web2", HikeshiError("x", "y"))])
    data, words = done.as_data(), str(kind.as_data.__doc__)
    assert [key for key in data if key not in words] == []
    assert data["refused"] == [{"host": "web2", "unreachable": False, "why": "x", "fix": "y"}]
    assert json.loads(json.dumps(data)) == data


def test_json_of_findings_names_what_explains_them() -> None:
    cause, symptom = finding("a", Effect.UNTIDY, explains=("b",)), finding("b", Effect.CANNOT_BUY, symptom=True)
    data = look.Triage("shop", found=findings.ordered([cause, symptom, replace(symptom, subject="c")])).as_data()
    assert [(item["subject"], item["because"]) for item in data["findings"]] == [
        ("b", cause.id), ("c", None), ("a", None)
    ]  # fmt: skip
    words = str(look.Triage.as_data.__doc__)
    assert [key for item in data["findings"] for key in item if key not in words] == []
