"""scheduled_jobs: real jobs of atd, cron, anacron and systemd, held over a reboot, come back exactly and do not run."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from hikeshi.schedule import clock
from tests.infra.asking import must, wait_until

INSTANCE = Path(os.environ.get("MOLECULE_EPHEMERAL_DIRECTORY", "")).name
JOBS = "/usr/local/lib/hikeshi/jobs"
SPOOL = "/var/spool/cron/atjobs"
RAN = "/run/hikeshi-ran"  # what every bomb here leaves behind it
TIMER = "[Timer]\nOnCalendar=*-*-* *:*:00\nAccuracySec=1s\nPersistent=yes\n[Install]\nWantedBy=timers.target\n"
TRANSIENT = "/run/systemd/transient"
RUN = "systemd-run --quiet --unit=bomb --timer-property=AccuracySec=1s"
# Bytes, owner, mode and time; of reading, which cron and systemd do as well, the unit tests speak.
FACTS = "sha256sum {0} && stat -c '%n %s %a %u %g %.Y' {0}"


def told(host: Host, words: str) -> dict[str, Any]:
    return json.loads(must(host, f"{JOBS} {words}"))  # type: ignore[no-any-return]


def ids(host: Host, word: str) -> list[str]:
    """Return the ids of the jobs whose body names a word, as an independent reader finds them."""
    found = clock.jobs({"instance": told(host, "collect")}, {"instance": []})
    return [job.id for job in found if word in job.body]


def restart(signal: str = "") -> None:
    """Stop and start the host, as a control panel does; with KILL, as a power cut does."""
    stop = ["podman", "kill", f"--signal={signal}", INSTANCE] if signal else ["podman", "stop", "--time=20", INSTANCE]
    for words in (stop, ["podman", "start", INSTANCE]):
        subprocess.run(words, check=True, capture_output=True, timeout=90)
    wait = ["podman", "exec", INSTANCE, "systemctl", "is-system-running", "--wait"]
    for _ in range(20):
        done = subprocess.run(wait, capture_output=True, text=True, check=False, timeout=90)
        if done.stdout.strip() in ("running", "degraded"):
            return
        time.sleep(1)
    raise AssertionError("it did not boot")


def past(moment: float) -> None:
    """Wait until a moment has passed, and what it starts has begun."""
    time.sleep(max(0.0, moment - time.time()) + 5)


def past_the_minute() -> None:
    """Wait until cron has begun another minute."""
    past(time.time() // 60 * 60 + 60)


def write(host: Host, path: str, text: str, mode: str = "644") -> None:
    encoded = "".join(f"\\{byte:03o}" for byte in text.encode())
    must(host, f"printf '{encoded}' > {path} && chmod {mode} {path} && touch -d '2026-01-02 03:04:05.678' {path}")


@pytest.fixture(autouse=True)
def clean(host: Host) -> Iterator[None]:
    """Begin and end with nothing held, no job of ours, and what runs jobs running."""
    take_away = (
        f"{JOBS} shield off; {JOBS} release; rm -rf /var/lib/hikeshi/jobs/[a-z]*; rm -f {RAN}* {SPOOL}/[a-z]0*; "
        "systemctl disable --now bomb.timer bomb2.timer; systemctl stop bomb.service; "
        "rm -f /etc/systemd/system/bomb*.* /run/systemd/transient/bomb.* /var/lib/systemd/timers/stamp-bomb*; "
        "rm -f /etc/cron.d/bomb /etc/cron.daily/bomb; "
        "systemctl daemon-reload; systemctl start atd cron"
    )
    host.run(take_away)
    yield
    host.run(take_away)


def test_a_reboot_by_at_does_not_go_off(host: Host) -> None:
    must(host, f"echo 'touch {RAN}; shutdown -r now' | at now + 2 minutes")
    (ident,) = ids(host, "shutdown -r now")
    path = f"{SPOOL}/{ident.partition(':')[2]}"
    before = must(host, FACTS.format(path))
    boot = must(host, "stat -c %Y /proc/1")
    (held,) = told(host, f"hold {ident}")["jobs"]
    assert held["result"] == "held"
    assert not host.file(path).exists
    restart()
    booted = must(host, "stat -c %Y /proc/1")
    assert booted != boot
    past(held["due"])
    (item,) = told(host, "release")["jobs"]
    assert (item["result"], item["missed"]) == ("came due", True)
    must(host, "systemctl restart atd")
    time.sleep(5)
    assert not host.file(RAN).exists and must(host, "stat -c %Y /proc/1") == booted
    kept = must(host, "ls /var/lib/hikeshi/jobs/at-*/job").strip()
    now = must(host, FACTS.format(kept)).replace(kept, path)
    assert now == before, "kept exactly"


def test_a_job_of_at_whose_time_is_to_come_runs_then(host: Host) -> None:
    must(host, f"echo 'id -un > {RAN}' | at now + 2 minutes")
    (ident,) = ids(host, RAN)
    told(host, f"hold {ident}")
    assert told(host, f"release {ident}")["jobs"][0]["result"] == "exact"
    wait_until(lambda: bool(host.file(RAN).exists), 150)
    assert must(host, f"cat {RAN}").strip() == "root"


def test_a_job_of_at_is_run_by_name_alone(host: Host) -> None:
    must(host, f"echo 'id -un > {RAN}' | at now + 1 minute")
    (ident,) = ids(host, RAN)
    past(told(host, f"hold {ident}")["jobs"][0]["due"])
    assert not host.file(RAN).exists
    told(host, f"release --run {ident}")
    wait_until(lambda: bool(host.file(RAN).exists), 30)


def test_a_wipe_by_cron_does_not_go_off(host: Host) -> None:
    write(host, "/etc/cron.d/bomb", f"* * * * * root touch {RAN}\n@reboot root touch {RAN}-boot\n")
    before = must(host, FACTS.format("/etc/cron.d/bomb"))
    found = ids(host, RAN)
    assert len(found) == 2
    told(host, f"hold {' '.join(found)}")
    must(host, f"rm -f {RAN}*")
    past_the_minute()
    restart()
    past_the_minute()
    assert not host.file(RAN).exists and not host.file(f"{RAN}-boot").exists
    assert {item["result"] for item in told(host, "release")["jobs"]} == {"exact"}
    assert must(host, FACTS.format("/etc/cron.d/bomb")) == before
    wait_until(lambda: bool(host.file(RAN).exists), 125)
    assert not host.file(f"{RAN}-boot").exists


def test_the_times_of_timers_are_those_that_systemd_means(host: Host) -> None:
    bus = "org.freedesktop.systemd1"
    asked = (
        f"path=$(busctl call {bus} /org/freedesktop/systemd1 {bus}.Manager GetUnit s UNIT | cut -d '\"' -f 2); "
        f"busctl get-property {bus} $path {bus}.Timer NextElapseUSecRealtime"
    )
    zone = must(host, "readlink /etc/localtime").strip()
    must(host, "ln -sf /usr/share/zoneinfo/Asia/Tokyo /etc/localtime")
    time.sleep(3)  # systemd notices another zone, and draws random delays anew
    try:
        found = {timer["unit"]: timer["next"] for timer in told(host, "collect")["timers"] if timer["active"]}
        meant = {unit: int(must(host, asked.replace("UNIT", unit)).split()[1]) for unit in found}
    finally:
        must(host, f"ln -sf {zone} /etc/localtime")
    assert any(found.values()), "some of Debian's timers have a date"
    for unit, when in found.items():
        usec = meant[unit]
        if 0 < usec < 2**63:
            assert when is not None and abs(when - usec / 1e6) < 1, unit


def test_a_hold_that_was_killed_is_finished_before_a_timer_catches_up(host: Host) -> None:
    write(host, "/etc/systemd/system/bomb.service", f"[Service]\nType=oneshot\nExecStart=/usr/bin/touch {RAN}\n")
    write(host, "/etc/systemd/system/bomb.timer", TIMER.replace("*:*:00", "03:00:00"))
    must(host, "systemctl daemon-reload && systemctl enable --now bomb.timer")
    must(host, "touch -d '-3 days' /var/lib/systemd/timers/stamp-bomb.timer")
    told(host, "hold timer:bomb.timer")
    must(host, "rm -r /etc/systemd/system/bomb.timer.d")
    must(host, 'sed -i \'s/"held"/"holding"/\' /var/lib/hikeshi/jobs/timer-*/manifest.json')
    restart()
    assert not host.file(RAN).exists
    assert [entry["state"] for entry in told(host, "collect")["held"]] == ["held"]
    assert host.run("systemctl is-active bomb.timer").stdout.strip() == "inactive"


def test_a_timer_that_missed_its_time_does_not_catch_up(host: Host) -> None:
    write(host, "/etc/systemd/system/bomb.service", f"[Service]\nType=oneshot\nExecStart=/usr/bin/touch {RAN}\n")
    write(host, "/etc/systemd/system/bomb.timer", TIMER.replace("*:*:00", "03:00:00"))
    must(host, "systemctl daemon-reload && systemctl enable --now bomb.timer")
    must(host, "touch -d '-3 days' /var/lib/systemd/timers/stamp-bomb.timer")
    told(host, f"hold timer:bomb.timer={int(time.time()) - 60}")
    restart()
    assert not host.file(RAN).exists, "overdue at boot, it would have caught up"
    (item,) = told(host, f"release --due timer:bomb.timer={int(time.time()) - 60} timer:bomb.timer")["jobs"]
    assert (item["result"], item["missed"]) == ("exact", True)
    assert must(host, "systemctl is-active bomb.timer").strip() == "active"
    time.sleep(3)
    assert not host.file(RAN).exists
    assert not host.file("/etc/systemd/system/bomb.timer.d").exists


def test_a_timer_that_is_held_is_not_started_by_others(host: Host) -> None:
    write(host, "/etc/systemd/system/bomb.service", f"[Service]\nType=oneshot\nExecStart=/usr/bin/touch {RAN}\n")
    write(host, "/etc/systemd/system/bomb.timer", TIMER.replace("*:*:00", "03:00:00"))
    must(host, "systemctl daemon-reload && systemctl enable --now bomb.timer")
    held = told(host, "hold timer:bomb.timer")["jobs"]
    assert [(item["result"], item["why"]) for item in held] == [("held", "")]
    for command in (
        "start timers.target",
        "start bomb.timer",
        "restart timers.target",
        "daemon-reload",
        "reenable bomb.timer",
    ):
        host.run(f"systemctl {command}; systemctl start timers.target")
        assert host.run("systemctl is-active bomb.timer").stdout.strip() == "inactive", command
    told(host, "release")
    assert must(host, "systemctl is-active bomb.timer").strip() == "active"


def test_a_timer_that_was_edited_while_held_does_not_fire(host: Host) -> None:
    write(host, "/etc/systemd/system/bomb.service", f"[Service]\nType=oneshot\nExecStart=/usr/bin/touch {RAN}\n")
    write(host, "/etc/systemd/system/bomb.timer", TIMER.replace("*:*:00", "03:00:00"))
    must(host, "systemctl daemon-reload && systemctl enable --now bomb.timer")
    must(host, "touch -d '-10 minutes' /var/lib/systemd/timers/stamp-bomb.timer")
    told(host, "hold timer:bomb.timer")
    # Every minute now, and nine times overdue.
    write(host, "/etc/systemd/system/bomb.timer", TIMER)
    must(host, "systemctl start timers.target && systemctl daemon-reload && systemctl start timers.target bomb.timer")
    past_the_minute()
    assert not host.file(RAN).exists
    assert host.run("systemctl is-active bomb.timer").stdout.strip() == "inactive"
    wait_until(lambda: time.time() % 60 < 40, 30)
    (item,) = told(host, "release")["jobs"]
    assert item["result"] == "exact" and "does not catch up" in item["why"]
    assert not host.file(RAN).exists, "what it missed is not made up for"
    assert must(host, "systemctl is-active bomb.timer").strip() == "active"
    wait_until(lambda: bool(host.file(RAN).exists), 65)


def test_a_timer_edited_and_not_read_yet_is_held_without_a_reload(host: Host) -> None:
    for name, date in (("bomb", "03:00:00"), ("bomb2", "04:00:00")):
        write(host, f"/etc/systemd/system/{name}.service", f"[Service]\nType=oneshot\nExecStart=/usr/bin/touch {RAN}\n")
        write(host, f"/etc/systemd/system/{name}.timer", TIMER.replace("*:*:00", date))
    must(host, "systemctl daemon-reload && systemctl enable --now bomb.timer bomb2.timer")
    must(host, "touch -d '-3 days' /var/lib/systemd/timers/stamp-bomb2.timer")
    must(host, "printf '# edited\\n' >> /etc/systemd/system/bomb2.timer")
    (item,) = told(host, "hold timer:bomb.timer")["jobs"]
    assert item["result"] == "held" and "bomb2.timer" in item["why"]
    assert "NeedDaemonReload=yes" in must(host, "systemctl show -p NeedDaemonReload bomb2.timer"), (
        "nothing was reloaded"
    )
    told(host, "hold timer:bomb2.timer")
    must(host, "systemctl start timers.target")
    assert host.run("systemctl is-active bomb.timer bomb2.timer").stdout.split() == ["inactive", "inactive"]
    assert not host.file(RAN).exists


def test_a_date_of_systemd_run_comes_back_exactly(host: Host) -> None:
    due = int(must(host, "date +%s")) + 20
    must(host, f"{RUN} --on-calendar=@{due} touch {RAN}")
    files = f"{TRANSIENT}/bomb.timer {TRANSIENT}/bomb.service"
    before = must(host, FACTS.format(files))
    assert told(host, "hold timer:bomb.timer")["jobs"][0]["result"] == "held"
    assert host.run(f"ls {files}").rc != 0, "systemd has forgotten it"
    (item,) = told(host, "release")["jobs"]
    assert (item["result"], item["why"]) == ("exact", "")
    assert must(host, FACTS.format(files)) == before
    wait_until(lambda: bool(host.file(RAN).exists), 40)


def test_a_time_of_systemd_run_fires_when_it_would_have(host: Host) -> None:
    begun = time.time()
    must(host, f"{RUN} --on-active=50s touch {RAN}")
    for _ in range(2):
        told(host, "hold timer:bomb.timer")
        time.sleep(10)
        (item,) = told(host, "release")["jobs"]
        assert item["result"] == "exact" and "what is left" in item["why"]
    wait_until(lambda: bool(host.file(RAN).exists), 60)
    ran = float(must(host, f"stat -c %.Y {RAN}"))
    assert 49 < ran - begun < 60, "neither earlier nor later than it would have"


def test_a_time_of_systemd_run_that_passed_is_kept_and_a_restart_forgets_it(host: Host) -> None:
    make = f"{RUN} --on-active=10s touch {RAN}"
    must(host, make)
    told(host, "hold timer:bomb.timer")
    time.sleep(15)
    (item,) = told(host, "release")["jobs"]
    assert (item["result"], item["missed"]) == ("came due", True)
    time.sleep(3)
    assert not host.file(RAN).exists
    told(host, "release --run timer:bomb.timer")
    wait_until(lambda: bool(host.file(RAN).exists), 20)
    assert told(host, "collect")["held"] == []
    must(host, f"rm -f {RAN} {TRANSIENT}/bomb.*; systemctl daemon-reload; {make}")
    told(host, "hold timer:bomb.timer")
    restart()
    (item,) = told(host, "release")["jobs"]
    assert item["result"] == "gone" and "restarted" in item["why"]
    assert not host.file(RAN).exists


def test_a_script_of_anacron_does_not_run(host: Host) -> None:
    write(host, "/etc/cron.daily/bomb", f"#!/bin/sh\ntouch {RAN}\n", "755")
    before = must(host, FACTS.format("/etc/cron.daily/bomb"))
    told(host, "hold periodic:/etc/cron.daily/bomb anacron:cron.daily")
    must(host, "rm -f /var/spool/anacron/cron.daily; anacron -f -n -d")
    must(host, "run-parts /etc/cron.daily")
    assert not host.file(RAN).exists
    assert {item["result"] for item in told(host, "release")["jobs"]} == {"exact"}
    assert must(host, FACTS.format("/etc/cron.daily/bomb")) == before


def test_a_scheduled_shutdown_is_held_and_scheduled_again(host: Host) -> None:
    must(host, "shutdown -r +50")
    before = must(host, "grep -E 'USEC|MODE' /run/systemd/shutdown/scheduled")
    told(host, "hold shutdown:scheduled")
    assert not host.file("/run/systemd/shutdown/scheduled").exists
    told(host, "release")
    assert must(host, "grep -E 'USEC|MODE' /run/systemd/shutdown/scheduled") == before
    must(host, "shutdown -c")


def test_a_unit_whose_failure_reboots_only_fails(host: Host) -> None:
    write(host, "/etc/systemd/system/bomb.service", "[Unit]\nFailureAction=reboot\n[Service]\nExecStart=/bin/false\n")
    must(host, "systemctl daemon-reload")
    told(host, "hold unit:bomb.service")
    boot = must(host, "stat -c %Y /proc/1")
    host.run("systemctl start bomb.service")
    time.sleep(3)
    assert must(host, "stat -c %Y /proc/1") == boot
    told(host, "release")
    assert "FailureAction=reboot\n" in must(host, "systemctl show -p FailureAction bomb.service")
    must(host, "systemctl reset-failed bomb.service")


@pytest.mark.parametrize(
    "command",
    ["reboot", "poweroff", "halt", "shutdown -r now", "shutdown -h +1", "systemctl reboot", "systemctl kexec",
     "systemctl start reboot.target", "kill -s INT 1"],
)  # fmt: skip
def test_the_shield_refuses_root(host: Host, command: str) -> None:
    since = must(host, "date +%s").strip()
    boot = must(host, "stat -c %Y /proc/1")
    shield = told(host, "shield on 120")
    assert shield["refused_by_dbus"] and shield["not_masked"] == []
    host.run(command)
    time.sleep(3)
    assert must(host, "stat -c %Y /proc/1") == boot, "the same system runs"
    assert not host.file("/run/systemd/shutdown/scheduled").exists
    if command.split()[0] in ("reboot", "poweroff", "halt", "shutdown"):
        tried = must(host, f"journalctl --since=@{since} --grep='Rejected send message' -o cat")
        assert "uid=0" in tried and command in tried, "who tried stands in the journal"


def test_the_shield_survives_a_power_cut_and_ends_by_itself(host: Host) -> None:
    told(host, "shield on 60")
    restart("KILL")
    assert told(host, "shield status")["on"]
    assert must(host, "systemctl is-active hikeshi-jobs.service").strip() == "active"
    wait_until(lambda: not told(host, "shield status")["on"], 90)
    assert host.run("systemctl is-enabled reboot.target").stdout.strip() != "masked"
    restart()


def test_the_shield_goes_off_exactly(host: Host) -> None:
    facts = "find /etc/systemd/system /etc/dbus-1 -printf '%p %y %l %m %u\\n' | sort"
    before = must(host, facts)
    told(host, "shield on")
    assert must(host, facts) != before
    told(host, "shield off")
    assert must(host, facts) == before


def test_only_those_who_are_named_may_use_at(host: Host) -> None:
    must(host, "id nobody2 || useradd nobody2")
    assert host.run("echo true | runuser -u nobody2 -- at now + 1 hour").rc != 0
    must(host, f"echo 'touch {RAN}' | runuser -u deploy -- at now + 1 hour")


def test_what_is_submitted_and_run_is_logged(host: Host) -> None:
    since = must(host, "date +%s").strip()
    must(host, f"SECRET=hush sh -c \"echo 'touch {RAN}' | at now + 1 minute\"")
    log = f"journalctl --since=@{since} -o cat"
    wait_until(lambda: f"touch {RAN}" in must(host, f"{log} -u hikeshi-jobs-spool"), 20)
    assert "hush" not in must(host, f"{log} -u hikeshi-jobs-spool")
    wait_until(lambda: "left the spool" in must(host, f"{log} -u hikeshi-jobs-spool"), 90)
    write(host, "/etc/cron.d/bomb", "* * * * * root true logged\n")
    wait_until(lambda: "END" in must(host, f"{log} -t CRON; true"), 90)
