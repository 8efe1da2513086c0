"""Words of the command line → request → result → exit status, with the runner replaced at its one seam."""

import json
from typing import Any

import pytest

from hikeshi import probes, runner
from hikeshi.errors import ExitStatus, MisconfiguredError
from hikeshi.runner import Event
from tests.unit.commands import Runs, hikeshi, stopped
from tests.unit.conftest import SITE, Project
from tests.unit.shop import Shop
from tests.unit.test_triage import HEALTHY


def test_usage_errors_are_2(monkeypatch: pytest.MonkeyPatch, project: Project) -> None:
    for words in (["nosuch"], ["probe", "--nosuch"], ["probe", "--site", "nosuch"], ["probe", "nosuch"]):
        assert hikeshi(monkeypatch, *words) == ExitStatus.USAGE, words


def test_broken_site_is_4(
    monkeypatch: pytest.MonkeyPatch, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.write("hosts.yml", "all: [\n")
    assert hikeshi(monkeypatch, "recover", "--yes") == ExitStatus.MISCONFIGURED
    assert "hosts.yml line" in capsys.readouterr().err


def test_red_probe_is_1_and_json_says_why(monkeypatch: pytest.MonkeyPatch, project: Project, capsys: Any) -> None:
    project.site(
        {**SITE, "views": dict.fromkeys(("customer", "direct"), {"url": f"http://127.0.0.1:{probes.free_port()}"})}
    )
    assert hikeshi(monkeypatch, "probe", "--json") == ExitStatus.FAILED
    (result,) = json.loads(capsys.readouterr().out)
    assert (result["id"], result["passed"]) == ("top", False)
    assert "connection refused" in result["seen"]


def test_healthy_site_is_left_alone(monkeypatch: pytest.MonkeyPatch, runs: Runs, capsys: Any) -> None:
    assert hikeshi(monkeypatch, "recover", "--yes", "--json") == ExitStatus.DONE
    assert runs.playbooks == ["collect-evidence.yml"]
    assert json.loads(capsys.readouterr().out)["healthy"] is True


def test_stopped_service_is_mended_by_the_plan(monkeypatch: pytest.MonkeyPatch, runs: Runs) -> None:
    runs.evidence = [stopped("nginx.service"), HEALTHY]
    assert hikeshi(monkeypatch, "recover", "--yes") == ExitStatus.DONE
    assert runs.playbooks == ["collect-evidence.yml", "recover-site.yml", "collect-evidence.yml"]
    disk = runs.asked[1][1]["recover_site_disk_steps"]["web1"]
    args = {"unit": {"__ansible_unsafe": "nginx.service"}}
    assert [(step["step"], step["args"]) for step in disk] == [("unit_enable", args)]


def test_what_no_step_mends_is_converged_and_then_reported(monkeypatch: pytest.MonkeyPatch, runs: Runs) -> None:
    runs.evidence = [stopped("nginx.service")]
    assert hikeshi(monkeypatch, "recover", "--yes") == ExitStatus.FAILED
    assert runs.playbooks.count("recover-site.yml") == 1
    assert runs.playbooks.count("build-site.yml") == 1


def test_where_converging_stopped_is_said_with_what_is_still_wrong(
    monkeypatch: pytest.MonkeyPatch, runs: Runs, capsys: Any
) -> None:
    runs.evidence = [stopped("nginx.service")]
    runs.failures = {"build-site.yml": [Event("web1", "database", "Ask it", "failed", message="permission denied")]}
    assert hikeshi(monkeypatch, "recover", "--yes") == ExitStatus.FAILED
    told = capsys.readouterr().out
    assert "converging stopped at web1 · database · Ask it: permission denied" in told
    assert "still wrong" in told
    assert "found and mended" not in told
    assert hikeshi(monkeypatch, "incident", "status") == ExitStatus.DONE
    assert ", not healthy" in capsys.readouterr().out


def test_what_a_person_must_think_about_converges_nothing(monkeypatch: pytest.MonkeyPatch, runs: Runs) -> None:
    """A disk that is full of who knows what: no step, no customer suffers, and building the site anew helps nobody."""
    full: dict[str, Any] = json.loads(json.dumps(HEALTHY))
    full["disks"]["/"]["free_bytes"] = 0
    runs.evidence = [full]
    assert hikeshi(monkeypatch, "recover", "--yes") == ExitStatus.FAILED
    assert runs.playbooks == ["collect-evidence.yml"]


def test_giving_up_says_where_to_look(monkeypatch: pytest.MonkeyPatch, runs: Runs, capsys: Any) -> None:
    runs.evidence = [stopped("nginx.service")]
    assert hikeshi(monkeypatch, "recover", "--yes") == ExitStatus.FAILED
    told = capsys.readouterr().err
    assert "web1 sudo journalctl -n 50 -u nginx.service; mend what it names, then hikeshi recover" in told


def test_what_people_added_is_named_and_left_alone(monkeypatch: pytest.MonkeyPatch, runs: Runs, capsys: Any) -> None:
    added = [{"kind": "file", "name": f"/etc/nginx/conf.d/{n:02}\x1b[31m.conf", "more": ""} for n in range(14)]
    runs.evidence = [{**stopped("nginx.service"), "additions": added}, {**HEALTHY, "additions": added}]
    assert hikeshi(monkeypatch, "recover", "--yes") == ExitStatus.DONE
    told = capsys.readouterr().out
    assert "kept as they are" in told
    assert "web1 · file:/etc/nginx/conf.d/11" in told
    assert "\x1b" not in told
    assert "… and 2 more" in told

    assert hikeshi(monkeypatch, "recover", "--yes", "--json") == ExitStatus.DONE
    data = json.loads(capsys.readouterr().out)
    assert [item["host"] for item in data["kept"]] == ["web1"] * 14
    assert (data["changed"], data["findings"]) == (0, [])


def test_plan_and_check_change_nothing(monkeypatch: pytest.MonkeyPatch, runs: Runs) -> None:
    runs.evidence = [stopped("nginx.service")]
    assert hikeshi(monkeypatch, "recover", "--plan") == ExitStatus.DONE
    assert runs.playbooks == ["collect-evidence.yml"]
    assert hikeshi(monkeypatch, "recover", "--check") == ExitStatus.DONE
    assert [check for playbook, _, check in runs.asked if playbook == "recover-site.yml"] == [True]


def test_plan_shows_the_steps(monkeypatch: pytest.MonkeyPatch, runs: Runs, capsys: Any) -> None:
    runs.evidence = [stopped("nginx.service")]
    assert hikeshi(monkeypatch, "recover", "--plan") == ExitStatus.DONE
    assert "host_base: unit_enable unit=nginx.service" in capsys.readouterr().out
    assert hikeshi(monkeypatch, "recover", "--plan", "--json") == ExitStatus.DONE
    assert [step["step"] for step in json.loads(capsys.readouterr().out)["plan"]] == ["unit_enable", "unit_start"]


def test_nothing_is_converged_unasked(
    monkeypatch: pytest.MonkeyPatch, runs: Runs, project: Project, shop: Shop
) -> None:
    """Only the direct view is red, and no rule knows why: converging changes the whole site, so somebody must agree."""
    monkeypatch.setattr("hikeshi.recover.SETTLE_S", 0)
    dead = {"url": f"http://127.0.0.1:{probes.free_port()}"}
    project.site({**SITE, "views": {"customer": {"url": shop.url}, "direct": dead}})
    assert hikeshi(monkeypatch, "recover") == ExitStatus.REFUSED
    assert "build-site.yml" not in runs.playbooks
    assert hikeshi(monkeypatch, "recover", "--yes") == ExitStatus.FAILED
    assert "build-site.yml" in runs.playbooks


def test_what_converging_stopped_at_is_where_to_go_on(
    monkeypatch: pytest.MonkeyPatch, runs: Runs, project: Project, shop: Shop, capsys: Any
) -> None:
    """No rule sees why the shop is red, but the task that asked it did: an account of the database was locked, say."""
    monkeypatch.setattr("hikeshi.recover.SETTLE_S", 0)
    dead = {"url": f"http://127.0.0.1:{probes.free_port()}"}
    project.site({**SITE, "views": {"customer": {"url": shop.url}, "direct": dead}})
    runs.failures["build-site.yml"] = [
        Event("web1", "checkout_service", "Ask it", "failed", message="account is locked")
    ]
    assert hikeshi(monkeypatch, "recover", "--yes") == ExitStatus.FAILED
    captured = capsys.readouterr()
    told = " ".join((captured.out + captured.err).split())
    assert "converging stopped at web1 · checkout_service · Ask it: account is locked" in told
    assert "next: mend what converging stopped at, above, then hikeshi recover --site shop --plan" in told
    assert "no host shows" not in told


def test_errors_are_json_too(monkeypatch: pytest.MonkeyPatch, project: Project, capsys: Any) -> None:
    assert hikeshi(monkeypatch, "probe", "--site", "nosuch", "--json") == ExitStatus.USAGE
    told = json.loads(capsys.readouterr().out)
    assert told["status"] == ExitStatus.USAGE
    assert "unknown site 'nosuch'" in told["error"]


def test_a_defect_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, runs: Runs, capsys: Any) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr(runner, "run", broken)
    assert hikeshi(monkeypatch, "recover", "--yes") == ExitStatus.FAILED
    told = capsys.readouterr().err
    assert "a defect of hikeshi: ZeroDivisionError: of ours" in told
    assert "Traceback" not in told


def test_nobody_to_approve_is_refused(monkeypatch: pytest.MonkeyPatch, runs: Runs) -> None:
    runs.evidence = [stopped("nginx.service")]
    assert hikeshi(monkeypatch, "recover") == ExitStatus.REFUSED
    assert "recover-site.yml" not in runs.playbooks


def test_unreachable_host_is_3(monkeypatch: pytest.MonkeyPatch, runs: Runs, capsys: Any) -> None:
    runs.failures["collect-evidence.yml"] = [Event("web1", "", "", "unreachable", message="Connection refused")]
    assert hikeshi(monkeypatch, "recover", "--yes") == ExitStatus.UNREACHABLE
    assert "web1: Connection refused" in capsys.readouterr().err


def test_failed_build_is_1_and_names_the_task(monkeypatch: pytest.MonkeyPatch, runs: Runs, capsys: Any) -> None:
    runs.failures["build-site.yml"] = [Event("web1", "database", "Start", "failed", message="no such unit")]
    assert hikeshi(monkeypatch, "build") == ExitStatus.FAILED
    told = capsys.readouterr().err
    assert "web1 · database · Start" in told
    assert "no such unit" in told
    assert "hikeshi build --site shop" in told


def test_interrupt_is_130(monkeypatch: pytest.MonkeyPatch, runs: Runs, capsys: Any) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run", interrupted)
    assert hikeshi(monkeypatch, "recover", "--yes") == ExitStatus.INTERRUPTED
    assert "run the same command again" in capsys.readouterr().err


def test_unknown_fault_is_2(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from hikeshi.drill import containers, practice

    monkeypatch.setattr(practice, "load", lambda name: None)
    monkeypatch.setattr(containers, "load_state", lambda: containers.State("x", "12", "d", complete=True))
    assert hikeshi(monkeypatch, "drill", "break", "nosuch") == ExitStatus.USAGE
    assert "unknown fault 'nosuch'; allowed: images-not-mounted" in capsys.readouterr().err


def test_full_disk_refuses_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    from hikeshi.drill import containers, engine

    monkeypatch.setattr(engine, "podman", lambda *words, **_: str(tmp_path))
    monkeypatch.setattr("shutil.disk_usage", lambda place: type("Usage", (), {"free": 100 << 20})())
    with pytest.raises(MisconfiguredError, match=r"0\.1 GiB free; `drill up` needs \d+ GiB"):
        containers.check_disk("build")
