"""`hikeshi jobs`: argv → what each host is asked → the journal, the screen, the exit status."""

import json
from typing import Any

import pytest

from hikeshi import runner
from hikeshi.errors import ExitStatus
from hikeshi.incident import state as states
from hikeshi.incident import store
from hikeshi.runner import Event
from hikeshi.schedule import agenda
from hikeshi.site import load
from tests.unit import schedules
from tests.unit.commands import hikeshi, stopped
from tests.unit.conftest import SITE, Project
from tests.unit.scheduled_site import ScheduledSite, soon
from tests.unit.shop import Shop

ALLOWED = {"hold-jobs": {"by": "Ms Sato", "when": "2026-11-01", "words": "hold what you must"}}
REBOOTS = {"reboot": {"by": "Ms Sato", "when": "2026-11-01", "words": "once"}}


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch, project: Project, shop: Shop) -> ScheduledSite:
    made = ScheduledSite()
    monkeypatch.setattr(runner, "run", made)
    made.site_data = {  # type: ignore[attr-defined]
        **SITE, "views": dict.fromkeys(("customer", "direct"), {"url": shop.url}), "permissions": ALLOWED,
        "time_zone": "Asia/Tokyo",
    }  # fmt: skip
    project.site(made.site_data)  # type: ignore[attr-defined]
    return made


def reboot_in(jobs: ScheduledSite, **span: float) -> str:
    return jobs.add(schedules.at("shutdown -r now", soon(**span)))


def records(kind: str) -> list[dict[str, Any]]:
    return [record.data for record in store.journal(load()).records() if record.kind == kind]


def items() -> dict[str, Any]:
    return states.derive(store.journal(load()).records()).items


def test_the_clock_shows_jobs_and_deadlines_in_order(
    monkeypatch: pytest.MonkeyPatch, jobs: ScheduledSite, capsys: Any
) -> None:
    reboot_in(jobs, minutes=30)
    jobs.add(schedules.file("/etc/cron.d/far", "cron.d", f"0 0 {(soon(days=5)).day} * * root true\n"))
    hikeshi(monkeypatch, "incident", "open", "tv")
    hikeshi(monkeypatch, "incident", "deadline", "report", soon(minutes=90).isoformat())
    capsys.readouterr()
    assert hikeshi(monkeypatch, "jobs", "list") == ExitStatus.DONE
    told = capsys.readouterr().out
    assert "1 of 2 jobs may go off until" in told and "deadline report" in told
    assert told.index("shutdown -r now") < told.index("deadline report", told.index("when"))
    assert "/etc/cron.d/far" not in told
    assert jobs.calls == [["collect"]]
    assert hikeshi(monkeypatch, "jobs", "list", "--json") == ExitStatus.DONE
    data = json.loads(capsys.readouterr().out)
    assert [job["before"] for job in data["agenda"]["jobs"]] == [True, False]
    hikeshi(monkeypatch, "incident", "status")
    assert "web1 · reboots · shutdown -r now" in capsys.readouterr().out


def test_hold_saves_evidence_first_and_release_puts_back(
    monkeypatch: pytest.MonkeyPatch, jobs: ScheduledSite, capsys: Any
) -> None:
    ident = reboot_in(jobs, minutes=30)
    assert hikeshi(monkeypatch, "jobs", "hold", "--yes") == ExitStatus.DONE
    assert jobs.order == ["list-jobs.yml", "save-evidence.yml", "hold-jobs.yml"]
    assert [words[0] for words in jobs.calls] == ["collect", "hold", "shield"]
    assert jobs.calls[1][1].startswith(f"{ident}=") and jobs.shield["on"]
    (held,) = records("jobs.held")
    assert (held["jobs"][0]["does"], held["jobs"][0]["grave"]) == ("reboots", True)
    assert [data["name"] for data in records("permission.used")] == ["hold-jobs"]
    assert "1 jobs are held on web1" in items()["jobs"].words
    capsys.readouterr()
    hikeshi(monkeypatch, "incident", "status")
    assert "nothing would go off" in capsys.readouterr().out, "what is held is not on the clock"
    assert hikeshi(monkeypatch, "jobs", "release", "--yes") == ExitStatus.DONE
    assert [words[0] for words in jobs.calls[4:]] == ["shield", "release"]
    assert (items(), list(jobs.files), jobs.shield["on"]) == ({}, [ident], False)
    told = capsys.readouterr()
    assert "goes off" in told.err and "before the last deadline" in told.err
    assert hikeshi(monkeypatch, "jobs", "release", "--yes") == ExitStatus.DONE
    assert "nothing is held" in capsys.readouterr().out


def test_what_came_due_is_told_and_kept(monkeypatch: pytest.MonkeyPatch, jobs: ScheduledSite, capsys: Any) -> None:
    ident = reboot_in(jobs, minutes=30)
    hikeshi(monkeypatch, "jobs", "hold", "--yes")
    jobs.held[ident]["due"] = soon(minutes=-1).timestamp()
    assert hikeshi(monkeypatch, "jobs", "release", "--yes") == ExitStatus.DONE
    told = capsys.readouterr()
    assert "came due" in told.out and "hikeshi jobs release --run ID" in told.err
    (released,) = records("jobs.released")
    assert released["jobs"][0]["missed"] is True
    hikeshi(monkeypatch, "incident", "status")
    assert "came due meanwhile and were not run: web1 at:" in capsys.readouterr().out
    assert items() == {}
    assert hikeshi(monkeypatch, "jobs", "list") == ExitStatus.DONE
    told = capsys.readouterr().out
    assert "1 jobs came due while they were held" in told and "jobs are held" not in told
    assert hikeshi(monkeypatch, "baseline") == ExitStatus.DONE, "a job that is only kept keeps nobody from recording"
    assert hikeshi(monkeypatch, "jobs", "release", "--run", ident, "--yes") == ExitStatus.DONE
    assert jobs.calls[-1] == ["release", "--run", ident]


def test_an_incident_is_not_closed_over_held_jobs(
    monkeypatch: pytest.MonkeyPatch, jobs: ScheduledSite, capsys: Any
) -> None:
    reboot_in(jobs, minutes=30)
    hikeshi(monkeypatch, "incident", "open", "tv")
    hikeshi(monkeypatch, "jobs", "hold", "--yes")
    assert hikeshi(monkeypatch, "incident", "close") == ExitStatus.REFUSED
    assert "hikeshi jobs release" in capsys.readouterr().err
    assert hikeshi(monkeypatch, "incident", "close", "--force", "--words", "later") == ExitStatus.DONE
    assert "jobs" in items(), "the site's own journal remembers them"
    hikeshi(monkeypatch, "incident", "open", "tv-2")
    assert "jobs" in items(), "and so does the next incident's"
    assert hikeshi(monkeypatch, "incident", "close") == ExitStatus.REFUSED


def test_without_permission_nothing_is_held(
    monkeypatch: pytest.MonkeyPatch, jobs: ScheduledSite, project: Project, capsys: Any
) -> None:
    reboot_in(jobs, minutes=30)
    project.site({**jobs.site_data, "permissions": {}})  # type: ignore[attr-defined]
    assert hikeshi(monkeypatch, "jobs", "hold", "--yes") == ExitStatus.REFUSED
    assert "May we hold the scheduled jobs back" in capsys.readouterr().err
    assert jobs.order == ["list-jobs.yml"] and items() == {}
    assert hikeshi(monkeypatch, "jobs", "hold") == ExitStatus.REFUSED
    assert "May we hold the scheduled jobs back" in capsys.readouterr().err, "nobody is asked to approve it before"


def test_nobody_to_approve_and_check_change_nothing(
    monkeypatch: pytest.MonkeyPatch, jobs: ScheduledSite, capsys: Any
) -> None:
    ident = reboot_in(jobs, minutes=30)
    assert hikeshi(monkeypatch, "jobs", "hold") == ExitStatus.REFUSED
    assert hikeshi(monkeypatch, "jobs", "hold", "--check") == ExitStatus.DONE
    assert "would be held" in capsys.readouterr().out
    assert (jobs.held, items(), records("permission.used")) == ({}, {}, [])
    assert "save-evidence.yml" not in jobs.order
    hikeshi(monkeypatch, "jobs", "hold", "--yes")
    assert hikeshi(monkeypatch, "jobs", "release", "--check") == ExitStatus.DONE
    assert list(jobs.held) == [ident] and "jobs" in items()


def test_evidence_that_cannot_be_saved_holds_nothing(
    monkeypatch: pytest.MonkeyPatch, jobs: ScheduledSite, capsys: Any
) -> None:
    reboot_in(jobs, minutes=30)
    jobs.failures["save-evidence.yml"] = [Event("web1", "", "", "failed", message="no space left")]
    assert hikeshi(monkeypatch, "jobs", "hold", "--yes") == ExitStatus.FAILED
    assert "could not be saved" in capsys.readouterr().err
    assert (jobs.held, items()) == ({}, {})


def test_what_is_vital_is_held_by_name_alone(
    monkeypatch: pytest.MonkeyPatch, jobs: ScheduledSite, project: Project, capsys: Any
) -> None:
    bomb = reboot_in(jobs, minutes=30)
    vital = jobs.add(schedules.at("true vital", soon(minutes=20), number=9))
    project.site({**jobs.site_data, "vital_jobs": [{"job": vital, "why": "invoices"}]})  # type: ignore[attr-defined]
    hikeshi(monkeypatch, "jobs", "list")
    assert "vital: invoices" in capsys.readouterr().out
    hikeshi(monkeypatch, "jobs", "hold", "--yes")
    assert list(jobs.held) == [bomb]
    hikeshi(monkeypatch, "jobs", "hold", vital, "--yes")
    assert list(jobs.held) == [bomb, vital]


@pytest.mark.parametrize("words", [("hold", "at:none"), ("release", "at:none"), ("release", "--run", "at:none"),
                                   ("hold", "--host", "web9"), ("release", "at:x", "--reboot", "web1"),
                                   ("list", "--until", "yesterday")])  # fmt: skip
def test_what_is_not_there_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, jobs: ScheduledSite, words: tuple[str, ...]
) -> None:
    reboot_in(jobs, minutes=30)
    more = () if words[0] == "list" else ("--yes",)
    assert hikeshi(monkeypatch, "jobs", *words, *more) == ExitStatus.USAGE
    assert (jobs.held, items()) == ({}, {})


def test_what_the_host_refuses_is_said_and_the_rest_is_held(
    monkeypatch: pytest.MonkeyPatch, jobs: ScheduledSite, capsys: Any
) -> None:
    first = reboot_in(jobs, minutes=30)
    second = jobs.add(schedules.at("true", soon(minutes=20), number=9))
    jobs.refusals[first] = "it runs already \x1b[2J{{ 1 }}"
    assert hikeshi(monkeypatch, "jobs", "hold", "--yes") == ExitStatus.FAILED
    told = capsys.readouterr().out
    assert "refused" in told and "\\x1b[2J{{ 1 }}" in told
    assert list(jobs.held) == [second] and "jobs" in items()


def test_a_reboot_passes_with_its_own_permission_and_jobs_stay_held(
    monkeypatch: pytest.MonkeyPatch, jobs: ScheduledSite, project: Project
) -> None:
    reboot_in(jobs, minutes=30)
    hikeshi(monkeypatch, "jobs", "hold", "--yes")
    assert hikeshi(monkeypatch, "jobs", "release", "--reboot", "web1") == ExitStatus.REFUSED
    assert jobs.shield["on"]
    project.site({**jobs.site_data, "permissions": {**ALLOWED, **REBOOTS}})  # type: ignore[attr-defined]
    assert hikeshi(monkeypatch, "jobs", "release", "--reboot", "web1") == ExitStatus.DONE
    assert (jobs.shield["on"], len(jobs.held), "jobs" in items()) == (False, 1, True)
    assert [data["name"] for data in records("permission.used")] == ["hold-jobs", "reboot"]


def test_secrets_that_the_site_knows_are_shown_nowhere(
    monkeypatch: pytest.MonkeyPatch, jobs: ScheduledSite, project: Project, capsys: Any
) -> None:
    (project.folder / "group_vars" / "all").mkdir(parents=True)
    project.write("group_vars/all/secrets.yml", "secret_database_password: tiger-in-the-tank\n")
    jobs.add(schedules.at("mysqldump -ptiger-in-the-tank shop", soon(minutes=20)))
    for words in (
        ("list",),
        ("list", "--json"),
        ("list", "--verbose"),
        ("hold", "--yes"),
        ("release", "--yes", "--json"),
    ):
        assert hikeshi(monkeypatch, "jobs", *words) == ExitStatus.DONE
    told = capsys.readouterr()
    assert "tiger" not in told.out + told.err and "mysqldump" in told.out
    journal = store.folder(load())
    assert not [path for path in journal.rglob("*") if path.is_file() and b"tiger" in path.read_bytes()]


# Within a recovery


def test_a_recovery_holds_before_it_mends_and_releases_at_the_end(
    monkeypatch: pytest.MonkeyPatch, jobs: ScheduledSite, capsys: Any
) -> None:
    ident = reboot_in(jobs, minutes=30)
    jobs.evidence = [stopped("nginx.service"), schedules_healthy(jobs)]
    assert hikeshi(monkeypatch, "recover", "--yes") == ExitStatus.DONE
    mine = [name for name in jobs.order if name != "collect-evidence.yml"]
    assert mine == ["save-evidence.yml", "hold-jobs.yml", "recover-site.yml", "list-jobs.yml", "release-jobs.yml"]
    assert (list(jobs.files), items()) == ([ident], {})
    told = capsys.readouterr().err
    assert "will go off" in told and "put back, goes off" in told


def schedules_healthy(jobs: ScheduledSite) -> dict[str, Any]:
    return jobs.evidence[0]


def test_what_would_still_go_off_before_the_deadline_stays_held(
    monkeypatch: pytest.MonkeyPatch, jobs: ScheduledSite, capsys: Any
) -> None:
    bomb = reboot_in(jobs, minutes=30)
    harmless = jobs.add(schedules.at("true", soon(minutes=20), number=9))
    hikeshi(monkeypatch, "incident", "open", "tv")
    hikeshi(monkeypatch, "incident", "deadline", "tv", (soon(minutes=90)).isoformat())
    jobs.evidence = [stopped("nginx.service"), schedules_healthy(jobs)]
    assert hikeshi(monkeypatch, "recover", "--yes") == ExitStatus.DONE
    assert (list(jobs.held), list(jobs.files)) == ([bomb], [harmless])
    assert jobs.shield["on"] and "1 jobs are held on web1" in items()["jobs"].words
    told = capsys.readouterr()
    assert "still held" in told.err and "jobs are held" in told.out
    jobs.held[bomb]["due"] = soon(minutes=-1).timestamp()
    assert hikeshi(monkeypatch, "recover", "--yes") == ExitStatus.DONE
    assert items() == {} and not jobs.shield["on"]


def test_a_recovery_of_what_is_healthy_or_not_allowed_holds_nothing(
    monkeypatch: pytest.MonkeyPatch, jobs: ScheduledSite, project: Project, capsys: Any
) -> None:
    reboot_in(jobs, minutes=30)
    assert hikeshi(monkeypatch, "recover", "--yes") == ExitStatus.DONE
    assert jobs.held == {} and set(jobs.order) == {"collect-evidence.yml"}
    project.site({**jobs.site_data, "permissions": {}})  # type: ignore[attr-defined]
    jobs.evidence = [stopped("nginx.service"), schedules_healthy(jobs)]
    assert hikeshi(monkeypatch, "recover", "--yes") == ExitStatus.DONE
    assert "hold-jobs.yml" not in jobs.order
    assert "May we hold the scheduled jobs back" in capsys.readouterr().err


def test_what_a_person_held_stays_held(monkeypatch: pytest.MonkeyPatch, jobs: ScheduledSite) -> None:
    mine = reboot_in(jobs, minutes=30)
    hikeshi(monkeypatch, "jobs", "hold", "--yes")
    jobs.evidence = [stopped("nginx.service"), schedules_healthy(jobs)]
    assert hikeshi(monkeypatch, "recover", "--yes") == ExitStatus.DONE
    assert list(jobs.held) == [mine] and "jobs" in items()


def test_what_is_held_is_no_finding_and_no_drift(monkeypatch: pytest.MonkeyPatch, jobs: ScheduledSite) -> None:
    ill = stopped("nginx.service")
    ident = "timer:nginx.service"  # as if it were one: what matters is the name
    jobs.evidence = [ill]
    at = soon().timestamp()
    jobs.held[ident] = {"id": ident, "kind": "timer", "state": "held", "at": at, "by": "op", "due": 0.0}
    assert hikeshi(monkeypatch, "triage") == ExitStatus.DONE
    jobs.held[ident]["active"] = False  # it did not run before
    assert hikeshi(monkeypatch, "triage") == ExitStatus.FAILED


@pytest.mark.parametrize(
    "words",
    [("release", "--reboot", ""), ("release", "--run", ""), ("list", "--until", ""), ("hold", "--host", "nosuch"),
     ("release", "--reboot", "nosuch")],
)  # fmt: skip
def test_an_empty_or_unknown_name_is_refused_before_anybody_is_asked(
    monkeypatch: pytest.MonkeyPatch, jobs: ScheduledSite, words: tuple[str, ...]
) -> None:
    assert hikeshi(monkeypatch, "jobs", *words) == ExitStatus.USAGE
    assert jobs.order == []


def test_held_jobs_of_which_nobody_knows_any_more_are_not_forgotten(
    monkeypatch: pytest.MonkeyPatch, jobs: ScheduledSite, capsys: Any
) -> None:
    reboot_in(jobs, minutes=30)
    hikeshi(monkeypatch, "jobs", "hold", "--yes")
    for told in ({"schema": 7}, schedules.now(lost=["/var/lib/hikeshi/jobs/at-5"])):
        monkeypatch.setattr(jobs, "scheduled", lambda told=told: told)
        capsys.readouterr()
        assert hikeshi(monkeypatch, "jobs", "release", "--yes") == ExitStatus.FAILED
        assert "jobs" in items()
    assert "web1 holds a job that it cannot put back" in capsys.readouterr().out
    assert items()["jobs"].words == "1 held jobs must be put back by hand"
    assert hikeshi(monkeypatch, "baseline") == ExitStatus.REFUSED
    hikeshi(monkeypatch, "triage")
    assert "/var/lib/hikeshi/jobs/at-5" in capsys.readouterr().out


def test_red_probes_are_no_reason_to_release_jobs(
    monkeypatch: pytest.MonkeyPatch, jobs: ScheduledSite, shop: Shop, capsys: Any
) -> None:
    reboot_in(jobs, minutes=30)
    assert hikeshi(monkeypatch, "jobs", "hold", "--yes") == ExitStatus.DONE
    shop.server.shutdown()
    shop.server.server_close()
    assert hikeshi(monkeypatch, "triage") == ExitStatus.FAILED
    assert "next:  hikeshi recover" in capsys.readouterr().err


@pytest.mark.parametrize("active", [False, True])
def test_a_timer_that_is_held_goes_off_only_where_somebody_started_it(active: bool) -> None:
    timer = schedules.timer("nightly.timer", active=active, calendar=["*:*"], persistent=True)
    held = {"id": "timer:nightly.timer", "kind": "timer", "state": "held", "at": 1.0, "by": "op", "due": 0.0}
    told = schedules.host(timers=[timer], held=[held])
    made = agenda.make({"web1": told}, {"web1": []}, now=schedules.NOW, deadlines=[])
    assert [job.id for job in made.before] == ["timer:nightly.timer"] * active


def test_triage_shows_what_will_go_off(monkeypatch: pytest.MonkeyPatch, jobs: ScheduledSite, capsys: Any) -> None:
    reboot_in(jobs, minutes=30)
    assert hikeshi(monkeypatch, "triage") == ExitStatus.DONE
    told = capsys.readouterr().out
    assert "will go off" in told and "shutdown -r now" in told and "nothing is wrong" in told
    assert hikeshi(monkeypatch, "triage", "--json") == ExitStatus.DONE
    assert json.loads(capsys.readouterr().out)["agenda"]["jobs"][0]["marks"] == ["reboots"]


def test_a_host_whose_clock_is_wrong_is_said(monkeypatch: pytest.MonkeyPatch, jobs: ScheduledSite, capsys: Any) -> None:
    monkeypatch.setattr(jobs, "scheduled", lambda: schedules.host(now=(soon(minutes=7)).timestamp()))
    assert hikeshi(monkeypatch, "jobs", "list") == ExitStatus.DONE
    assert "ahead of ours" in capsys.readouterr().out


def test_a_host_that_tells_nonsense_is_not_judged(
    monkeypatch: pytest.MonkeyPatch, jobs: ScheduledSite, capsys: Any
) -> None:
    monkeypatch.setattr(jobs, "scheduled", lambda: {"schema": 7, "x": "\x1b[2J"})
    assert hikeshi(monkeypatch, "jobs", "list") == ExitStatus.FAILED
    assert "not judged" in capsys.readouterr().out
    assert hikeshi(monkeypatch, "triage") == ExitStatus.DONE  # a program that says nonsense is no broken shop
