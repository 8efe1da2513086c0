"""batch_jobs: jobs run at their time, are heard when they fail, keep their output for a while, and their locks mend."""

import csv
import io
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from hikeshi.triage import findings
from tests.infra.asking import Apply, Mend, collected, judge, must, wait_until

INSTANCE = Path(os.environ.get("MOLECULE_EPHEMERAL_DIRECTORY", "")).name
EXPORT = "/srv/orders-export"
LOCK = f"{EXPORT}/export.lock"
REPORTS = "/var/lib/hikeshi/batch"
KEPT = "/var/lib/hikeshi/kept"
NOBODY = 4194303  # the kernel gives no such PID before four million others


def look() -> dict[str, Any]:
    """Return the evidence of the jobs, of which nothing may be hidden."""
    evidence = collected("batch_jobs")
    assert evidence["unseen"] == []
    return evidence


def judged() -> tuple[list[str], list[findings.Step]]:
    """Return what is wrong with the host, and the steps that would mend it."""
    found, steps = judge(look())
    assert all(item.effect is findings.Effect.UNTIDY for item in found), "no customer waits for a job"
    return [item.id for item in found], steps


def run(host: Host, job: str) -> int:
    """Run a job now and return systemctl's status; the timer must be there, else nothing of this would ever run."""
    must(host, f"systemctl is-active batch-{job}.timer")
    return int(host.run(f"systemctl start batch-{job}").rc)


def report(host: Host, job: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(must(host, f"cat {REPORTS}/batch-{job}.service.json"))
    return told


@pytest.fixture(autouse=True)
def clean(host: Host) -> None:
    """Take away what an earlier test left."""
    must(
        host,
        # A run that this cuts off has left its report: those go last. One that is cut off within its first or last
        # command has failed, and only then is the unit started that reports it: it is stopped by doing so twice.
        "systemctl stop 'batch-*.service'; systemctl stop 'batch-*.service'; systemctl reset-failed 'batch-*'; "
        f"rm -f {LOCK} /srv/slow/* /srv/charge/* {REPORTS}/*; systemctl start mariadb",
    )


def test_job_runs_by_its_timer_with_its_words_as_they_stand(host: Host) -> None:
    begun = int(must(host, "rm -f /srv/tick/ticks; date +%s"))
    wait_until(lambda: host.file("/srv/tick/ticks").exists and host.file("/srv/tick/ticks").size > 0)
    said, words, end = must(host, "cat /srv/tick/ticks").split("|")
    assert begun - 1 <= int(said) <= int(must(host, "date +%s"))
    assert (words, end) == ("$HOME ${TWO} %n a'b\"c", "\\n")
    assert must(host, "systemctl show --property=Description --value batch-tick").strip() == "100 % alive"
    assert must(host, "stat --format='%U %a' /srv/tick/ticks").strip() == "ticker 640"


def test_orders_of_a_day_of_the_site_are_exported(host: Host) -> None:
    must(host, "systemctl is-active batch-export-orders.timer")
    # As the job, for a day that has orders; its schedule exports yesterday's.
    environment = "--property=EnvironmentFile=/etc/batch-jobs/export-orders.env --uid=orders-export"
    program = "/usr/local/lib/batch-jobs/export-orders"
    said = must(host, f"systemd-run --quiet --wait --pipe --collect {environment} {program} --day 2026-11-24")
    assert said.strip() == f"export_orders: {EXPORT}/orders-2026-11-24.csv: 3 rows"
    text = must(host, f"cat {EXPORT}/orders-2026-11-24.csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(row["order"], row["sku"], row["price"]) for row in rows] == [
        ("100001", "LANTERN-07", "3000.00"),
        ("100001", "LANTERN-11", "1480.00"),
        ("100002", "", ""),
    ]
    assert [row["placed"] for row in rows[1:]] == ["2026-11-24T00:00:00+09:00", "2026-11-24T23:59:59+09:00"]
    assert (rows[0]["last_name"], rows[0]["city"], rows[0]["title"]) == ("火消", "東京", "Lantern 07 提灯")
    assert rows[0]["line1"] == '1-2-3 "Kanda", Chiyoda'
    assert not host.file(LOCK).exists


def test_nightly_run_exports_yesterday_and_leaves_no_report(host: Host) -> None:
    assert run(host, "export-orders") == 0
    yesterday = must(host, "date --date=yesterday +%F").strip()
    assert must(host, f"head -c 13 {EXPORT}/orders-{yesterday}.csv") == "order,placed,"
    assert not host.file(f"{REPORTS}/batch-export-orders.service.json").exists
    assert must(host, "systemctl list-timers --no-legend batch-export-orders.timer").split()[2] == "03:10:00"


def test_failed_run_is_heard_and_the_next_success_clears_it(host: Host) -> None:
    must(host, "touch /srv/charge/broken")
    assert run(host, "charge") != 0
    wait_until(lambda: report(host, "charge")["state"] == "failed")
    told = report(host, "charge")
    assert (told["unit"], told["result"], told["status"]) == ("batch-charge.service", "exit-code", "3")
    assert "counting the money" in told["log"]
    assert abs(told["at"] - time.time()) < 60
    assert must(host, f"stat --format='%U %a' {REPORTS}/batch-charge.service.json").strip() == "root 600"
    heard = must(host, "journalctl --sync; journalctl -q -p err --since=-1min -o cat --no-pager")
    assert "batch-charge.service failed (exit-code 3): " in heard
    must(host, "rm /srv/charge/broken")
    assert run(host, "charge") == 0
    assert not host.file(f"{REPORTS}/batch-charge.service.json").exists


def test_run_without_its_database_fails_with_its_reason_and_writes_nothing(host: Host) -> None:
    must(host, f"rm -f {EXPORT}/*; systemctl stop mariadb")
    assert run(host, "export-orders") != 0
    wait_until(lambda: report(host, "export-orders")["state"] == "failed")
    assert any("the database at 127.0.0.1 said no" in line for line in report(host, "export-orders")["log"])
    assert must(host, f"ls -A {EXPORT}") == ""


def test_old_output_goes_after_a_success_only(host: Host) -> None:
    old, young = f"{EXPORT}/orders-old.csv", f"{EXPORT}/orders-young.csv"
    for path, when in ((old, "14 days ago -1 minute"), (young, "14 days ago +10 minutes")):
        must(host, f"touch -d '{when}' {path}; chown orders-export {path}")
    must(host, "systemctl stop mariadb")
    assert run(host, "export-orders") != 0
    assert host.file(old).exists, "while the job fails, what it wrote last must stay"
    must(host, "systemctl start mariadb")
    assert run(host, "export-orders") == 0
    assert not host.file(old).exists
    assert host.file(young).exists


def test_secrets_are_for_root_and_the_job(host: Host) -> None:
    must(host, "systemctl is-active batch-export-orders.timer")
    assert host.run("su -s /bin/sh ticker -c 'cat /etc/batch-jobs/export-orders.env'").rc != 0
    assert host.run("su -s /bin/sh orders-export -c 'cat /etc/batch-jobs/export-orders.env'").rc != 0
    assert "canary" not in must(host, "systemctl show batch-export-orders")


def test_job_writes_nothing_but_its_directory(host: Host) -> None:
    must(host, "systemctl is-active batch-tick.timer")
    words = "touch /var/tmp/x /srv/charge/in; touch /srv/tick/x /etc/x /srv/x"
    must(
        host,
        "mkdir -p /run/systemd/system/batch-charge.service.d; chmod 0777 /srv; "
        f"printf '[Service]\\nExecStart=\\nExecStart=/bin/sh -c \"{words}\"\\n' "
        "> /run/systemd/system/batch-charge.service.d/try.conf; systemctl daemon-reload",
    )
    assert run(host, "charge") != 0
    must(host, "chmod 0755 /srv; rm -r /run/systemd/system/batch-charge.service.d; systemctl daemon-reload")
    assert host.file("/srv/charge/in").exists
    assert [path for path in ("/srv/tick/x", "/etc/x", "/srv/x", "/var/tmp/x") if host.file(path).exists] == []  # noqa: S108


def test_stale_lock_stops_the_job_and_its_step_mends_it(host: Host, mend: Mend) -> None:
    must(host, f"echo {NOBODY} > {LOCK}")
    assert run(host, "export-orders") != 0
    wait_until(lambda: report(host, "export-orders")["state"] == "failed")
    found, steps = judged()
    assert found == [f"lock_stale/lock:{LOCK}", "job_failed/unit:batch-export-orders.service"]
    assert [(step.kind, step.words) for step in steps] == [
        ("disk", f"batch_jobs: stale_lock path={LOCK}"),
        ("live", "batch_jobs: run_job unit=batch-export-orders.service"),
    ]
    for step in steps:
        mend(step.role, step.kind, step.step, **step.args)
    assert must(host, f"cat {KEPT}{LOCK}").strip() == str(NOBODY)
    assert not host.file(LOCK).exists
    yesterday = must(host, "date --date=yesterday +%F").strip()
    assert host.file(f"{EXPORT}/orders-{yesterday}.csv").exists
    assert judged() == ([], [])


@pytest.mark.at_rest
def test_lock_of_another_life_of_its_pid_is_stale(host: Host, mend: Mend) -> None:
    """The PID lives, but its process began long after the lock was written: a restart gave the number to another."""
    must(host, f"sleep 600 > /dev/null 2>&1 & echo $! > {LOCK}; touch -d '2 hours ago' {LOCK}")
    assert judged()[0] == [f"lock_stale/lock:{LOCK}"]
    mend("batch_jobs", "disk", "stale_lock", path=LOCK)
    must(host, "pkill -fx 'sleep 600'")


@pytest.mark.at_rest
def test_lock_of_a_living_owner_is_left_alone(host: Host, apply: Apply) -> None:
    must(host, f"sleep 601 > /dev/null 2>&1 & sleep 1; echo $! > {LOCK}")
    assert judged() == ([], [])
    applied = apply("batch_jobs", "repair-disk", "stale_lock", {"path": LOCK})
    must(host, "pkill -fx 'sleep 601'")
    assert applied.status != 0
    assert "sleep 601" in applied.output
    assert host.file(LOCK).exists


@pytest.mark.at_rest
@pytest.mark.parametrize(
    "broken", ["chmod 0644 /bin/ps", "printf '#!/bin/sh\\necho no /proc >&2; exit 1\\n' > /bin/ps"]
)
def test_lock_is_left_alone_where_ps_does_not_answer(host: Host, apply: Apply, broken: str) -> None:
    must(host, f"echo {NOBODY} > {LOCK}; cp -a /bin/ps /run/ps; {broken}")
    applied = apply("batch_jobs", "repair-disk", "stale_lock", {"path": LOCK})
    must(host, "cp -a /run/ps /bin/ps")
    assert applied.status != 0
    assert "ps does not say" in " ".join(applied.output.split()), applied.output
    assert host.file(LOCK).exists


@pytest.mark.at_rest
def test_lock_of_a_running_job_is_left_alone(host: Host, apply: Apply) -> None:
    """Even one that looks old: a clock that was set must not take the lock of a job that runs."""
    must(host, "touch /srv/slow/wait; systemctl start --no-block batch-slow")
    wait_until(lambda: host.file("/srv/slow/lock").exists)
    must(host, "touch -d '1 day ago' /srv/slow/lock")
    assert judged() == ([], [])
    applied = apply("batch_jobs", "repair-disk", "stale_lock", {"path": "/srv/slow/lock"})
    assert applied.status != 0
    assert "activating" in applied.output
    assert host.file("/srv/slow/lock").exists
    must(host, "rm /srv/slow/wait")
    wait_until(lambda: host.file("/srv/slow/done").exists)


@pytest.mark.at_rest
@pytest.mark.parametrize("content", ["", "the export\n", "-1", "0"])
def test_lock_that_names_nobody_is_reported_and_left(host: Host, apply: Apply, content: str) -> None:
    must(host, f"printf '%s' '{content}' > {LOCK}")
    assert judged() == ([], []), "it may be one that is being written"
    must(host, f"touch -d '1 hour ago' {LOCK}")
    assert judged() == ([f"lock_stale/lock:{LOCK}"], [])
    assert apply("batch_jobs", "repair-disk", "stale_lock", {"path": LOCK}).status != 0
    assert host.file(LOCK).exists


@pytest.mark.at_rest
@pytest.mark.parametrize("path", ["/etc/passwd", f"{EXPORT}/../../etc/passwd", "", f"{EXPORT}/orders.csv"])
def test_nothing_but_a_lock_is_removed(host: Host, apply: Apply, path: str) -> None:
    assert apply("batch_jobs", "repair-disk", "stale_lock", {"path": path}).status != 0
    assert host.file("/etc/passwd").exists


@pytest.mark.at_rest
def test_job_that_must_not_run_twice_is_not_run_by_a_recovery(host: Host, apply: Apply) -> None:
    must(host, "touch /srv/charge/broken")
    assert host.run("systemctl start batch-charge").rc != 0
    wait_until(lambda: report(host, "charge")["state"] == "failed")
    assert judged() == (["job_failed/unit:batch-charge.service"], [])
    must(host, "rm /srv/charge/broken")
    applied = apply("batch_jobs", "repair-live", "run_job", {"unit": "batch-charge.service"})
    assert applied.status != 0
    assert "catch_up" in applied.output
    assert not host.file("/srv/charge/done").exists


@pytest.mark.at_rest
def test_run_cut_off_with_its_host_is_known_afterwards_and_mended(host: Host, mend: Mend) -> None:
    """As the platform does it: power gone in the middle of a run. Nothing failed afterwards, and nothing ran either."""
    must(host, "touch /srv/slow/wait; systemctl start --no-block batch-slow")
    wait_until(lambda: host.file("/srv/slow/lock").exists)
    must(host, "sync")
    for words in (["kill", "--signal=KILL"], ["start"]):
        subprocess.run(["podman", *words, INSTANCE], check=True, capture_output=True)
    wait_until(lambda: host.run("systemctl is-system-running --wait").stdout.strip() in ("running", "degraded"), 30)
    must(host, "systemctl start sshd || systemctl start ssh; rm -f /srv/slow/wait")
    assert must(host, "systemctl list-units --failed --no-legend --plain") == ""
    assert not host.file("/srv/slow/done").exists
    found, steps = judged()
    assert found == ["lock_stale/lock:/srv/slow/lock", "job_failed/unit:batch-slow.service"]
    for step in steps:
        mend(step.role, step.kind, step.step, **step.args)
    assert host.file("/srv/slow/done").exists
    assert judged() == ([], [])


@pytest.mark.at_rest
def test_missed_run_is_made_up_for_only_where_it_may_be(host: Host) -> None:
    for job in ("slow", "charge"):
        stamp = f"/var/lib/systemd/timers/stamp-batch-{job}.timer"
        must(host, f"systemctl start batch-{job}.timer; touch -d '3 days ago' {stamp}")
        must(host, f"systemctl restart batch-{job}.timer")
    wait_until(lambda: host.file("/srv/slow/done").exists)
    assert not host.file("/srv/charge/done").exists


@pytest.mark.at_rest
def test_masked_and_lost_units_are_found_and_mended(host: Host, mend: Mend) -> None:
    units = "/etc/systemd/system"
    must(
        host,
        f"systemctl disable --now batch-slow.timer; ln -sf /dev/null {units}/batch-slow.service; "
        f"rm {units}/batch-charge.service /etc/batch-jobs/slow.env /usr/local/lib/batch-jobs/export-orders; "
        "echo 'exit 0' > /usr/local/sbin/batch-report; rm -r /srv/charge; systemctl daemon-reload",
    )
    found, steps = judged()
    assert {item.split("/", 1)[1] for item in found} >= {
        "unit:batch-slow.timer",
        "unit:batch-slow.service",
        "unit:batch-charge.service",
        "path:/etc/batch-jobs/slow.env",
        "path:/usr/local/lib/batch-jobs/export-orders",
        "path:/srv/charge",
    }
    words = [step.words for step in steps]
    assert words.count("batch_jobs: job_files") == 1
    assert not any("unit_start" in word and ".service" in word for word in words), "mending a file is no reason to run"
    mend("batch_jobs", "disk", "job_files")
    assert "def main" in must(host, "cat /usr/local/sbin/batch-report")
    assert must(host, f"cat {KEPT}/usr/local/sbin/batch-report").strip() == "exit 0"
    mend("host_base", "disk", "unit_enable", unit="batch-slow.timer")
    mend("host_base", "live", "unit_start", unit="batch-slow.timer")
    assert judged() == ([], [])
    assert host.run("systemctl start batch-charge").rc == 0


@pytest.mark.at_rest
def test_converging_again_changes_nothing_and_runs_nothing(host: Host, apply: Apply) -> None:
    must(host, "systemctl disable --now batch-charge.timer; systemctl mask --runtime batch-slow.service")
    first = apply("batch_jobs", "main")
    assert first.status == 0, first.output
    second = apply("batch_jobs", "main")
    assert (second.status, second.changed) == (0, 0), second.output
    assert "canary" not in first.output + second.output
    assert must(host, "systemctl is-enabled batch-charge.timer").strip() == "enabled"
    assert not host.file("/srv/charge/done").exists


JOB = {
    "name": "charge",
    "description": "one line",
    "schedule": "daily",
    "user": "charge",
    "command": "/bin/true",
    "catch_up": False,
    "catch_up_why": "for a reason",
}


@pytest.mark.at_rest
@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"schedule": "every other moon"}, "every other moon"),
        ({"schedule": "daily\nOnBootSec=1"}, "one line of text"),
        ({"name": "../x"}, "each name once"),
        ({"user": "root"}, "not root"),
        ({"command": ""}, "one of both"),
        ({"script": "/no/such/file"}, "one of both"),
        ({"directory": "/var/lib"}, "at least three levels deep"),
        ({"directory": "/srv/../etc"}, "at least three levels deep"),
        ({"directory": "/var/lib/mysql"}, "none of the system's"),
        ({"directory": "/srv/somebodys"}, "belongs to nobody"),
        ({"lock": "lock"}, "an absolute path"),
        ({"keep_days": 0}, "a number of 1 or more"),
        ({"environment": {"SECRET": "canary\nin two lines"}}, "names in capitals"),
        ({"catch_up": None}, "catch_up"),
    ],
)
def test_job_that_cannot_be_meant_is_refused(host: Host, apply: Apply, given: dict[str, Any], named: str) -> None:
    must(host, "mkdir -p /srv/somebodys; chown nobody /srv/somebodys")
    before = must(host, "md5sum /etc/systemd/system/batch-*")
    jobs = [{key: value for key, value in {**JOB, **given}.items() if value is not None}]
    applied = apply("batch_jobs", "main", batch_jobs_jobs=jobs)
    assert applied.status != 0
    assert named in " ".join(applied.output.split()), applied.output
    assert "canary" not in applied.output
    assert must(host, "md5sum /etc/systemd/system/batch-*") == before
