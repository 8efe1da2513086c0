"""`hikeshi baseline` and `hikeshi triage`: words → what is asked → record, page, JSON, exit status."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from hikeshi import baseline
from hikeshi.errors import ExitStatus
from hikeshi.incident import store
from hikeshi.probes import ProbeResult
from hikeshi.site import load
from tests.unit.commands import Runs, hikeshi, stopped
from tests.unit.conftest import Project
from tests.unit.test_triage import HEALTHY


def a_file(digest: str, **more: Any) -> dict[str, Any]:
    return {"kind": "file", "mode": "0644", "owner": "root", "group": "root", "size": 3, "digest": digest * 16,
            "secret": False, "changed": 1764000000, **more}  # fmt: skip


FACTS = {
    "file:/etc/motd": a_file("a1b2"),
    "file:/etc/shop/checkout.env": a_file("c3d4", secret=True, mode="0600"),
    "user:root": {"uid": 0, "shell": "/bin/bash"},
    "user:deploy": {"uid": 1000, "shell": "/bin/bash"},
}

RED = ProbeResult("top", "The top page opens", "customer", passed=False, seen="500", seconds=0.1)


@pytest.fixture
def healthy(runs: Runs) -> Runs:
    runs.state = {"facts": dict(FACTS), "texts": {"/etc/motd": "hi\n"}}
    return runs


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_what_is_recorded_is_private_and_outside_the_journal(
    monkeypatch: pytest.MonkeyPatch, healthy: Runs, project: Project
) -> None:
    assert hikeshi(monkeypatch, "baseline") == ExitStatus.DONE
    folder = project.folder / "baselines"
    (record,) = folder.glob("*.json")
    assert {path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700
    found = baseline.newest(load())
    assert found
    assert (found.name, found.healthy) == (record.stem, True)
    assert found.text("web1", "/etc/motd") == "hi\n"
    assert found.text("web1", "/etc/shop/checkout.env") is None
    assert healthy.asked_state[0]["key"] == (folder / "key").read_text().strip()
    records = project.root / "incidents"
    assert not [path for path in records.rglob("*") if path.is_file() and b"hi\\n" in path.read_bytes()]
    assert not list(records.rglob(".exchange-*"))


def test_what_a_killed_look_left_is_removed(monkeypatch: pytest.MonkeyPatch, healthy: Runs) -> None:
    left, living = (load().records / f".exchange-{number}-x" for number in (4194303, os.getppid()))
    for folder in (left, living):
        folder.mkdir(parents=True)
    assert hikeshi(monkeypatch, "baseline") == ExitStatus.DONE
    assert (left.exists(), living.exists()) == (False, True)


def test_a_known_text_is_not_sent_again_and_still_kept(monkeypatch: pytest.MonkeyPatch, healthy: Runs) -> None:
    assert hikeshi(monkeypatch, "baseline") == ExitStatus.DONE
    first = baseline.newest(load())
    assert hikeshi(monkeypatch, "baseline") == ExitStatus.DONE
    second = baseline.newest(load())
    assert first
    assert second
    assert healthy.asked_state[1]["known"] == {"web1": ["a1b2" * 4]}
    assert (second.name > first.name, second.text("web1", "/etc/motd")) == (True, "hi\n")


def test_text_that_holds_a_secret_of_ours_is_not_kept(
    monkeypatch: pytest.MonkeyPatch, healthy: Runs, project: Project
) -> None:
    (project.folder / "group_vars" / "all").mkdir(parents=True)
    (project.folder / "group_vars" / "all" / "secrets.yml").write_text("secret_database: kx8-ruby-lantern\n")
    healthy.state["texts"]["/etc/motd"] = "password=kx8-ruby-lantern\n"
    healthy.state["facts"]["cron:x"] = {"value": "kx8-ruby-lantern"}
    assert hikeshi(monkeypatch, "baseline") == ExitStatus.DONE
    found = baseline.newest(load())
    assert found
    assert found.text("web1", "/etc/motd") is None
    assert not [
        path for path in (project.folder / "baselines").rglob("*") if path.is_file() and b"kx8" in path.read_bytes()
    ]


def test_a_site_that_is_not_healthy_is_not_recorded_unasked(
    monkeypatch: pytest.MonkeyPatch, healthy: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    healthy.evidence = [stopped("nginx.service")]
    assert hikeshi(monkeypatch, "baseline") == ExitStatus.REFUSED
    assert "nginx.service is not enabled" in " ".join(capsys.readouterr().err.split())
    assert baseline.names(load()) == []
    assert hikeshi(monkeypatch, "baseline", "--force") == ExitStatus.USAGE
    assert hikeshi(monkeypatch, "baseline", "--why", "x") == ExitStatus.USAGE
    assert hikeshi(monkeypatch, "baseline", "--force", "--why", "nginx is off on purpose") == ExitStatus.DONE
    assert baseline.newest(load()) is None, "drift is judged against a healthy one"
    (name,) = baseline.names(load())
    capsys.readouterr()
    assert hikeshi(monkeypatch, "baseline", "--list") == ExitStatus.DONE
    assert "not healthy: nginx is off on purpose" in " ".join(capsys.readouterr().out.split())
    healthy.evidence = [HEALTHY]
    assert hikeshi(monkeypatch, "triage", "--against", name, "--json") == ExitStatus.DONE
    assert printed(capsys)["baseline"]["name"] == name


@pytest.mark.parametrize("kept", [None, "", "short", "x" * 64])
def test_without_its_key_nothing_is_compared_and_no_other_is_made(
    monkeypatch: pytest.MonkeyPatch, healthy: Runs, capsys: pytest.CaptureFixture[str], kept: str | None
) -> None:
    assert hikeshi(monkeypatch, "baseline") == ExitStatus.DONE
    path = baseline.folder(load()) / "key"
    path.unlink()
    if kept is not None:
        path.write_text(kept)
    for words in (["triage"], ["baseline"]):
        assert hikeshi(monkeypatch, *words) == ExitStatus.MISCONFIGURED
        assert "put it back; or begin anew: mv" in " ".join(capsys.readouterr().err.split())
    assert hikeshi(monkeypatch, "recover", "--yes") == ExitStatus.DONE
    assert "going on without a baseline" in capsys.readouterr().err
    assert path.exists() is (kept is not None)


def test_a_host_that_the_baseline_does_not_know_is_said(
    monkeypatch: pytest.MonkeyPatch, healthy: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hikeshi(monkeypatch, "baseline") == ExitStatus.DONE
    (path,) = baseline.folder(load()).glob("*.json")
    path.write_text(path.read_text().replace('"web1"', '"web0"'))
    capsys.readouterr()
    assert hikeshi(monkeypatch, "triage") == ExitStatus.DONE
    assert "not seen: web1: what was changed: it is not in the baseline" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 2}', '{"schema": 1, "at": "x"}', "\0"])
def test_a_damaged_record_is_said(
    monkeypatch: pytest.MonkeyPatch, healthy: Runs, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    assert hikeshi(monkeypatch, "baseline") == ExitStatus.DONE
    path: Path = baseline.folder(load()) / f"{baseline.names(load())[0]}.json"
    path.write_text(text)
    assert hikeshi(monkeypatch, "triage") == ExitStatus.MISCONFIGURED
    assert "cannot be used" in capsys.readouterr().err


def test_a_healthy_site_is_one_quiet_page(
    monkeypatch: pytest.MonkeyPatch, healthy: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hikeshi(monkeypatch, "triage") == ExitStatus.DONE
    assert "judged without a baseline" in capsys.readouterr().out
    assert hikeshi(monkeypatch, "baseline") == ExitStatus.DONE
    capsys.readouterr()
    assert hikeshi(monkeypatch, "triage") == ExitStatus.DONE
    told = capsys.readouterr().out
    assert "nothing differs from the baseline" in told
    assert "nothing is wrong" in told
    assert healthy.playbooks == ["collect-evidence.yml"] * 3, "one round trip"


def test_what_was_changed_is_told_with_before_and_after(
    monkeypatch: pytest.MonkeyPatch, healthy: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hikeshi(monkeypatch, "baseline") == ExitStatus.DONE
    healthy.state["facts"] |= {
        "file:/etc/motd": a_file("ffff"),
        "file:/etc/cron.d/\x1b[2J{{ 1 }}": a_file("eeee"),
    }
    del healthy.state["facts"]["user:deploy"]
    healthy.state["texts"] = {"/etc/motd": "hello\n"}
    capsys.readouterr()
    assert hikeshi(monkeypatch, "triage", "--json") == ExitStatus.DONE, "drift alone is nothing wrong"
    data = printed(capsys)
    found = {item["subject"]: item for item in data["drift"]}
    assert found["user:deploy"]["after"] is None
    assert found["file:/etc/motd"]["text"] == ["@@ -1 +1 @@", "-hi", "+hello"]
    assert (found["file:/etc/motd"]["before"]["digest"], found["file:/etc/motd"]["after"]["digest"]) == (
        "a1b2" * 16, "ffff" * 16,
    )  # fmt: skip
    capsys.readouterr()
    assert hikeshi(monkeypatch, "triage", "--verbose") == ExitStatus.DONE
    told = capsys.readouterr().out
    assert "3 differences from the baseline" in told
    assert "\x1b" not in told
    assert "+hello" in told
    (record,) = [item for item in store.journal(load()).records() if item.kind == "findings"][-1:]
    assert "hello" not in json.dumps(record.data)
    assert len(record.data["drift"]) == 3


def test_symptoms_are_folded_and_each_finding_names_its_command(
    monkeypatch: pytest.MonkeyPatch, healthy: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    broken: dict[str, Any] = json.loads(json.dumps(HEALTHY))
    broken["configs"]["nginx"] |= {"ok": False, "message": "unknown directive", "file": "/etc/nginx/conf.d/x.conf"}
    broken["units"]["nginx.service"] |= {"active": "failed", "result": "exit-code"}
    healthy.evidence = [broken]
    assert hikeshi(monkeypatch, "triage", "--json") == ExitStatus.FAILED
    data = printed(capsys)
    because = {item["subject"]: item["because"] for item in data["findings"]}
    assert because == {"config:nginx": None, "unit:nginx.service": "config_broken/config:nginx"}
    assert data["plan"], "what is folded is mended all the same"
    assert hikeshi(monkeypatch, "triage") == ExitStatus.FAILED
    told = capsys.readouterr().out
    assert "so nginx.service is not running" in " ".join(told.split())
    assert "hikeshi recover (web_server configuration" in " ".join(told.split())


def test_against_an_earlier_look(
    monkeypatch: pytest.MonkeyPatch, healthy: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hikeshi(monkeypatch, "triage", "--since", "2020-01-01 00:00") == ExitStatus.REFUSED
    for words in ("2999-01-01 00:00", ""):
        assert hikeshi(monkeypatch, "triage", "--since", words) == ExitStatus.USAGE
    healthy.evidence = [stopped("nginx.service")]
    assert hikeshi(monkeypatch, "triage") == ExitStatus.FAILED
    at = store.journal(load()).records()[-1].time.isoformat()
    healthy.evidence = [stopped("checkout.service")]
    capsys.readouterr()
    assert hikeshi(monkeypatch, "triage", "--since", at, "--json") == ExitStatus.FAILED
    data = printed(capsys)
    assert data["new"] == ["web1 unit_down/unit:checkout.service"]
    assert data["gone"] == ["web1 unit_down/unit:nginx.service"]


def test_red_without_a_reason_points_at_the_newest_change(
    monkeypatch: pytest.MonkeyPatch, healthy: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hikeshi(monkeypatch, "baseline") == ExitStatus.DONE
    healthy.state["facts"]["file:/etc/motd"] = a_file("a1b2", mode="0600")
    monkeypatch.setattr("hikeshi.probes.run", lambda *_, **__: [RED])
    assert hikeshi(monkeypatch, "triage") == ExitStatus.FAILED
    told = capsys.readouterr()
    assert "mode 0644 → 0600" in told.out
    assert "no rule says why" in " ".join(told.err.split())
