"""Rules against evidence, and the order of the plan. Evidence of a healthy host, changed in one place at a time."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hikeshi.triage import findings, plan

HEALTHY: dict[str, Any] = json.loads((Path(__file__).parent / "evidence" / "web1.json").read_text())
MOUNT = "srv-shop-media.mount"
MEDIA = "/srv/shop/media"


@pytest.fixture
def evidence() -> dict[str, Any]:
    return copy.deepcopy(HEALTHY)


def judge(evidence: dict[str, Any]) -> list[findings.Finding]:
    return findings.judge({"web1": evidence})


def steps(evidence: dict[str, Any]) -> list[str]:
    made = plan.make(judge(evidence), {"web1": evidence})
    return [f"{item.step.kind} {item.step.words}" for item in made.steps]


def stop(evidence: dict[str, Any], unit: str, **more: str) -> None:
    evidence["units"][unit].update({"active": "inactive", "sub": "dead", **more})


def test_healthy_host_has_no_findings(evidence: dict[str, Any]) -> None:
    assert judge(evidence) == []
    assert steps(evidence) == []


def test_disabled_and_stopped_database(evidence: dict[str, Any]) -> None:
    stop(evidence, "mariadb.service", enabled="disabled")
    (found,) = judge(evidence)
    assert (found.subject, found.effect) == ("unit:mariadb.service", findings.Effect.CANNOT_BUY)
    assert "it will not start at boot" in found.cause
    assert steps(evidence) == [
        "disk host_base: unit_enable unit=mariadb.service",
        "live host_base: unit_start unit=mariadb.service",
    ]


def test_disabled_but_running_unit_will_break(evidence: dict[str, Any]) -> None:
    evidence["units"]["checkout.service"]["enabled"] = "disabled"
    (found,) = judge(evidence)
    assert found.effect is findings.Effect.WILL_BREAK
    assert steps(evidence) == ["disk host_base: unit_enable unit=checkout.service"]


@pytest.mark.parametrize("load", ["masked", "not-found"])
def test_lost_mount_unit_is_written_again_first(evidence: dict[str, Any], load: str) -> None:
    stop(evidence, MOUNT, load=load, enabled="")
    evidence["mounts"][MEDIA]["mounted"] = False
    found = judge(evidence)
    assert [item.subject for item in found] == [f"unit:{MOUNT}"]
    assert found[0].effect is findings.Effect.CANNOT_SEE
    assert steps(evidence) == [
        "disk image_server: mount_unit",
        f"disk host_base: unit_enable unit={MOUNT}",
        f"live host_base: unit_start unit={MOUNT}",
    ]


def test_nothing_below_an_unmounted_volume_is_judged(evidence: dict[str, Any]) -> None:
    stop(evidence, MOUNT, enabled="disabled")
    evidence["mounts"][MEDIA]["mounted"] = False
    evidence["paths"][MEDIA]["mode"] = "0700"
    evidence["paths"][f"{MEDIA}/images"] = {"kind": "missing"}
    assert [item.subject for item in judge(evidence)] == [f"unit:{MOUNT}"]


def test_wrong_modes_from_the_top_down(evidence: dict[str, Any]) -> None:
    evidence["paths"]["/srv/shop"]["mode"] = "0700"
    evidence["paths"][f"{MEDIA}/images"]["mode"] = "0600"
    assert steps(evidence) == [
        "disk host_base: path_mode path=/srv/shop mode=0755",
        f"disk host_base: path_mode path={MEDIA}/images mode=2755",
    ]


def test_file_in_a_tree_gets_the_bits_it_lacks(evidence: dict[str, Any]) -> None:
    picture = f"{MEDIA}/images/products/lantern-07.jpg"
    evidence["trees"][MEDIA]["wrong"] = [{"path": picture, "kind": "file", "mode": "0600"}]
    assert steps(evidence) == [f"disk host_base: path_mode path={picture} mode=0644"]


@pytest.mark.parametrize("path", ["/etc/shadow", f"{MEDIA}/../../../etc/shadow", f"{MEDIA}-other/x"])
def test_nothing_outside_a_tree_is_touched_on_the_hosts_word(evidence: dict[str, Any], path: str) -> None:
    evidence["trees"][MEDIA]["wrong"] = [{"path": path, "kind": "file", "mode": "0600"}]
    assert steps(evidence) == []


def test_lost_environment_file(evidence: dict[str, Any]) -> None:
    evidence["paths"]["/etc/shop/checkout.env"] = {"kind": "missing"}
    stop(evidence, "checkout.service", active="failed", result="resources")
    assert {item.rule for item in judge(evidence)} == {"path_missing", "unit_down"}
    assert steps(evidence) == [
        "disk checkout_service: environment_file",
        "live host_base: unit_start unit=checkout.service",
    ]


def test_broken_include_names_the_file(evidence: dict[str, Any]) -> None:
    broken = "/etc/nginx/conf.d/old-cdn.conf"
    evidence["configs"]["nginx"] = {"ok": False, "message": f"nginx: [emerg] what in {broken}:1", "file": broken}
    stop(evidence, "nginx.service", active="failed")
    assert steps(evidence) == [
        f"disk web_server: configuration path={broken}",
        "live host_base: unit_start unit=nginx.service",
        "live web_server: reload",
    ]


def test_live_steps_follow_the_order_of_building(evidence: dict[str, Any]) -> None:
    for unit in ("nginx.service", "checkout.service", "mariadb.service", MOUNT):
        stop(evidence, unit, enabled="disabled")
    live = [line.rsplit("=", 1)[1] for line in steps(evidence) if line.startswith("live")]
    assert live == ["mariadb.service", MOUNT, "checkout.service", "nginx.service"]


def test_what_could_not_be_seen_is_said(evidence: dict[str, Any]) -> None:
    evidence["unseen"] = [{"source": "nginx -t", "why": "unshare failed"}]
    assert findings.unreadable({"web1": evidence}) == ["web1: nginx -t could not be read: unshare failed"]


def test_plan_variables_number_every_step(evidence: dict[str, Any]) -> None:
    stop(evidence, "mariadb.service", enabled="disabled")
    made = plan.make(judge(evidence), {"web1": evidence}).extra_variables()
    assert made == {
        "recover_site_disk_steps": {
            "web1": [{"number": 0, "role": "host_base", "step": "unit_enable", "args": {"unit": "mariadb.service"}}]
        },
        "recover_site_live_steps": {
            "web1": [{"number": 1, "role": "host_base", "step": "unit_start", "args": {"unit": "mariadb.service"}}]
        },
        "recover_site_late_steps": {},
    }


@given(st.data())
def test_plan_is_deterministic_and_disk_comes_first(data: st.DataObject) -> None:
    evidence = copy.deepcopy(HEALTHY)
    for unit in data.draw(st.sets(st.sampled_from(sorted(evidence["units"])))):
        stop(evidence, unit, enabled=data.draw(st.sampled_from(["enabled", "disabled"])))
    for path in data.draw(st.sets(st.sampled_from(sorted(evidence["paths"])))):
        evidence["paths"][path]["mode"] = "0000"
    found = judge(evidence)
    made = plan.make(found, {"web1": evidence})
    other = plan.make(list(reversed(found)), {"web1": evidence})
    assert [item.step.key for item in made.steps] == [item.step.key for item in other.steps]
    kinds = [item.step.kind for item in made.steps]
    assert kinds == sorted(kinds)
    assert len({item.step.key for item in made.steps}) == len(made.steps)


@pytest.fixture
def ssh(evidence: dict[str, Any]) -> dict[str, Any]:
    """Evidence with a subject that serves the operators, and none of the customers."""
    evidence["subjects"].append(
        {
            "role": "remote_access",
            "serves": "operators",
            "units": [{"name": "ssh.service", "enabled": True}],
            "paths": [{"path": "/etc/ssh", "mode": "0755", "owner": "root", "group": "root"}],
            "mounts": [],
            "config_test": "sshd -t",
            "configuration_step": "sshd_configuration",
        }
    )
    evidence["units"]["ssh.service"] = {**evidence["units"]["nginx.service"]}
    evidence["paths"]["/etc/ssh"] = {"kind": "directory", "mode": "0755", "owner": "root", "group": "root"}
    evidence["configs"]["sshd"] = {"ok": True, "message": "", "file": ""}
    return evidence


def test_what_serves_the_operators_keeps_no_customer_from_buying(ssh: dict[str, Any]) -> None:
    assert judge(ssh) == []
    stop(ssh, "ssh.service")
    ssh["paths"]["/etc/ssh"]["mode"] = "0777"
    effects = {item.subject: item.effect for item in judge(ssh)}
    assert effects == {
        "unit:ssh.service": findings.Effect.CANNOT_BE_REPAIRED,
        "path:/etc/ssh": findings.Effect.WILL_BREAK,
    }


def test_role_may_name_its_own_step_for_a_refused_configuration_and_reload_nothing(ssh: dict[str, Any]) -> None:
    path = "/etc/ssh/sshd_config.d/50-hasty.conf"
    ssh["configs"]["sshd"] = {"ok": False, "message": f"{path}: line 1: Bad configuration option: X", "file": path}
    (found,) = judge(ssh)
    assert found.effect is findings.Effect.WILL_BREAK
    assert steps(ssh) == [f"disk remote_access: sshd_configuration path={path}"]


def test_name_that_is_gone_or_somebody_elses(evidence: dict[str, Any]) -> None:
    for seen in ([], ["192.0.2.9"]):
        evidence["names"]["pay.example"] = seen
        (found,) = judge(evidence)
        assert found.subject == "name:pay.example"
        assert steps(evidence) == ["disk host_base: hosts"]


def test_an_address_may_be_written_in_many_ways(evidence: dict[str, Any]) -> None:
    evidence["names"]["pay.example"] = ["10.203.5.12", "fd00:0001:0::12"]
    assert judge(evidence) == []


def test_last_words_say_why_and_not_that_it_stopped(evidence: dict[str, Any]) -> None:
    stop(evidence, "checkout.service")
    evidence["units"]["checkout.service"]["log"] = [
        "checkout.service: Failed at step EXEC spawning /opt/shop/venv/bin/gunicorn: No such file or directory",
        "checkout.service: Failed with result 'exit-code'.",
        "Failed to start checkout.service - Shop and checkout.",
        "Stopped checkout.service - Shop and checkout.",
    ]
    (found,) = judge(evidence)
    assert found.quote.endswith("No such file or directory")
    evidence["units"]["checkout.service"]["log"] = ["Stopped checkout.service - Shop and checkout."]
    (found,) = judge(evidence)
    assert "last words: Stopped" in found.quote


JOB, LOCK = "batch-nightly.service", "/srv/nightly/lock"
STARTED = {"state": "started", "at": 1795495000.0, "result": "", "status": "", "log": []}


@pytest.fixture
def nightly(evidence: dict[str, Any]) -> dict[str, Any]:
    """Evidence of a healthy host with a job that succeeded last night."""
    unit = {"name": JOB, "enabled": False, "oneshot": True, "restore_step": "job_files", "run_step": "run_job"}
    timer = {"name": "batch-nightly.timer", "enabled": True, "restore_step": "job_files"}
    locks = [{"path": LOCK, "unit": JOB}]
    subject = {"role": "batch_jobs", "serves": "back_office", "units": [timer, unit], "paths": [], "mounts": []}
    evidence["subjects"].append({**subject, "config_test": "", "locks": locks})
    healthy = {"load": "loaded", "sub": "", "result": "success", "fragment": "", "log": []}
    evidence["units"]["batch-nightly.timer"] = {**healthy, "active": "active", "enabled": "enabled"}
    evidence["units"][JOB] = {**healthy, "active": "inactive", "enabled": "static"}
    evidence["locks"][LOCK] = {"present": False, "pid": None, "alive": False, "age_s": None, "owner_age_s": None}
    return evidence


def held(evidence: dict[str, Any], **more: Any) -> None:
    evidence["locks"][LOCK].update({"present": True, "pid": 312, "age_s": 40000.0, **more})


def test_job_that_ended_well_is_no_stopped_unit(nightly: dict[str, Any]) -> None:
    assert judge(nightly) == []


def test_failed_job_is_run_again_after_all_else(nightly: dict[str, Any]) -> None:
    nightly["units"][JOB].update({"active": "failed", "result": "exit-code", "log": ["the database said no"]})
    stop(nightly, "mariadb.service")
    found = judge(nightly)
    assert [(item.id, item.effect) for item in found] == [
        ("unit_down/unit:mariadb.service", findings.Effect.CANNOT_BUY),
        (f"job_failed/unit:{JOB}", findings.Effect.UNTIDY),
    ]
    assert found[1].quote == "exit-code; last words: the database said no"
    assert steps(nightly)[-1] == f"live batch_jobs: run_job unit={JOB}"


def test_job_waits_for_the_hosts_it_leans_on(nightly: dict[str, Any]) -> None:
    """batch1 comes before web1 in every list; what it reads stands on web1."""
    batch1, web1 = {**nightly, "host": "batch1"}, copy.deepcopy(HEALTHY)
    batch1["units"][JOB]["active"] = "failed"
    stop(web1, "mariadb.service")
    both = {"batch1": batch1, "web1": web1}
    made = plan.make(findings.judge(both), both)
    assert [item.step.host for item in made.steps] == ["web1", "batch1"]
    variables = made.extra_variables()
    assert list(variables["recover_site_live_steps"]) == ["web1"]  # type: ignore[call-overload]
    assert list(variables["recover_site_late_steps"]) == ["batch1"]  # type: ignore[call-overload]


def test_run_cut_off_with_its_host_is_found_though_nothing_failed(nightly: dict[str, Any]) -> None:
    nightly["reports"][JOB] = STARTED
    (found,) = judge(nightly)
    assert found.cause == f"{JOB} was cut off in its last run"
    assert steps(nightly) == [f"live batch_jobs: run_job unit={JOB}"]


def test_failure_is_remembered_over_a_reboot(nightly: dict[str, Any]) -> None:
    nightly["reports"][JOB] = {**STARTED, "state": "failed", "result": "exit-code", "status": "75", "log": ["held"]}
    (found,) = judge(nightly)
    assert found.quote == "exit-code 75; last words: held"


@pytest.mark.parametrize("active", ["activating", "deactivating"])
def test_job_that_runs_is_not_judged(nightly: dict[str, Any], active: str) -> None:
    nightly["reports"][JOB] = STARTED
    nightly["units"][JOB]["active"] = active
    held(nightly, age_s=90000.0, alive=False)
    assert judge(nightly) == []


def test_job_that_must_not_run_at_another_hour_is_only_reported(nightly: dict[str, Any]) -> None:
    del nightly["subjects"][-1]["units"][1]["run_step"]
    nightly["units"][JOB]["active"] = "failed"
    assert len(judge(nightly)) == 1
    assert steps(nightly) == []


@pytest.mark.parametrize("load", ["masked", "not-found"])
def test_lost_job_is_written_again_and_not_run(nightly: dict[str, Any], load: str) -> None:
    nightly["units"][JOB].update({"load": load, "enabled": ""})
    assert steps(nightly) == ["disk batch_jobs: job_files", f"disk host_base: unit_enable unit={JOB}"]


def test_stopped_timer_is_no_customers_trouble(nightly: dict[str, Any]) -> None:
    stop(nightly, "batch-nightly.timer", enabled="disabled")
    (found,) = judge(nightly)
    assert found.effect is findings.Effect.UNTIDY


@pytest.mark.parametrize(("alive", "owner_age_s"), [(False, None), (True, 39000.0), (True, 39994.0)])
def test_lock_of_a_dead_owner_is_removed_before_the_job_runs(
    nightly: dict[str, Any], alive: bool, owner_age_s: float | None
) -> None:
    held(nightly, alive=alive, owner_age_s=owner_age_s)
    nightly["units"][JOB]["active"] = "failed"
    assert [item.id for item in judge(nightly)] == [f"lock_stale/lock:{LOCK}", f"job_failed/unit:{JOB}"]
    assert steps(nightly) == [
        f"disk batch_jobs: stale_lock path={LOCK}",
        f"live batch_jobs: run_job unit={JOB}",
    ]


@pytest.mark.parametrize("owner_age_s", [39996.0, 40000.0, 50000.0])
def test_lock_of_a_living_owner_is_none_of_ours(nightly: dict[str, Any], owner_age_s: float) -> None:
    held(nightly, alive=True, owner_age_s=owner_age_s)
    assert judge(nightly) == []


def test_lock_that_names_nobody_is_reported_once_it_is_old(nightly: dict[str, Any]) -> None:
    held(nightly, pid=None, age_s=3.0)
    assert judge(nightly) == []
    held(nightly, pid=None, age_s=300.0)
    assert len(judge(nightly)) == 1
    assert steps(nightly) == []


def test_evidence_recorded_before_there_were_jobs_is_still_read(evidence: dict[str, Any]) -> None:
    del evidence["locks"], evidence["reports"]
    assert judge(evidence) == []
