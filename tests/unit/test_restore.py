"""What differs from the baseline is put back only where that helps: the steps, what undoes them, the recovery."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from hikeshi import look, probes, recover
from hikeshi.errors import ExitStatus
from hikeshi.incident import store
from hikeshi.probes import ProbeResult
from hikeshi.runner import Event
from hikeshi.site import load
from hikeshi.triage import drift, restore
from hikeshi.triage.drift import Drift
from hikeshi.triage.findings import Step
from tests.unit.commands import Runs, hikeshi
from tests.unit.test_baseline import FACTS, a_file
from tests.unit.test_triage import HEALTHY

FILE = a_file("a1b2")
TEXTS = {"web1": {"/etc/nginx/nginx.conf": "0" * 64}}
EVIDENCE = {"web1": HEALTHY}


def steps(subject: str, before: Any, after: Any) -> tuple[list[str], list[str]]:
    """Return the words of what puts one difference back, and of what undoes that."""
    made = restore.restorations(
        [Drift("web1", subject, before, after)], TEXTS, EVIDENCE, accounts={"web1": {"shop", "lead"}}, trial=TRIAL
    )
    if not made:
        return [], []
    return [step.words for step in made[0].steps], [step.words for step in made[0].undo]


REREAD = "file_restore: reread unit=nginx.service how=restart path="
CONF = "/etc/nginx/nginx.conf"
TRIAL = "5a5a"
WRITTEN = f"file_restore: file path={CONF} mode=0644 owner=root group=root text={'0' * 12}… trial={TRIAL}"
BACK = f"file_restore: put_back path={CONF} trial={TRIAL}"


@pytest.mark.parametrize(
    ("before", "after", "done", "undone"),
    [
        (FILE, None, WRITTEN, BACK),
        (FILE, a_file("ffff"), WRITTEN, BACK),
        (None, FILE, f"file_restore: move_aside path={CONF} trial={TRIAL}", BACK),
        ({"kind": "link", "link": "/x"}, FILE, f"file_restore: link path={CONF} target=/x trial={TRIAL}", BACK),
        (
            FILE, {**FILE, "mode": "0600"},
            f"host_base: path_mode path={CONF} mode=0644 owner=root group=root",
            f"host_base: path_mode path={CONF} mode=0600 owner=root group=root",
        ),
    ],
)  # fmt: skip
def test_each_difference_has_its_step_and_what_takes_it_back(before: Any, after: Any, done: str, undone: str) -> None:
    assert steps(f"file:{CONF}", before, after) == ([done, REREAD + CONF], [undone, REREAD + CONF])


def test_removed_account_is_made_again_and_stays() -> None:
    user = {"uid": 1001, "gid": 1001, "home": "/srv", "shell": "/bin/sh", "groups": "www-data"}
    assert restore.accounts_of({"unit:shop.service": {"user": "shop"}, "unit:x.service": {"user": ""}}) == {"shop"}
    words = "file_restore: user name=shop uid=1001 gid=1001 home=/srv shell=/bin/sh groups=www-data"
    assert steps("user:shop", user, None) == ([words], [])


@pytest.mark.parametrize(
    ("subject", "before", "after"),
    [
        ("file:/etc/shop/checkout.env", a_file("c3d4", secret=True), None),  # no text of it is kept
        ("file:/etc/ssh/sshd_config.d/x.conf", None, FILE),  # decides who gets in
        ("file:/etc/sudoers", FILE, a_file("ffff")),
        # sshd may have moved to another port since: what was right then shuts us out at the next boot.
        ("file:/etc/iptables/rules.v4", FILE, {**FILE, "mode": "0600"}),
        ("file:/etc/iptables/rules.v6", None, FILE),
        ("file:/etc/nftables.conf", None, FILE),
        ("file:/etc/systemd/system/ssh.socket.d/port.conf", None, FILE),
        ("file:/etc/systemd/system/ssh.service.d/x.conf", None, FILE),
        ("file:/etc/new.d", None, {"kind": "directory"}),
        ("user:eve", None, {"uid": 1002}),
        ("user:tanaka", {"uid": 1003, "gid": 1003, "groups": ""}, None),  # no unit ran as this one
        ("user:lead", {"uid": 1004, "gid": 1004, "groups": "audio,sudo"}, None),
        ("package:nginx", {"version": "1"}, {"version": "2"}),
        ("listen:tcp/0.0.0.0:80", {"program": "nginx"}, None),
    ],
)
def test_what_is_left_alone(subject: str, before: Any, after: Any) -> None:
    assert steps(subject, before, after) == ([], [])


def test_drop_in_is_read_again_by_its_own_unit() -> None:
    path = "/etc/systemd/system/mariadb.service.d/x.conf"
    done, _ = steps(f"file:{path}", None, FILE)
    assert done[1] == f"file_restore: reread unit=mariadb.service how=restart path={path}"


def test_what_a_suffering_unit_reads_comes_first_and_others_are_spared_a_restart() -> None:
    places = ("/etc/nginx/x", "/etc/systemd/system/mariadb.service.d/x.conf")
    drifts = [Drift("web1", f"file:{path}", None, FILE) for path in places]
    made = restore.restorations(drifts, TEXTS, EVIDENCE, {("web1", "unit:mariadb.service")}, gently=True)
    assert [step.words.partition(" path")[0] for item in made for step in item.steps if step.step == "reread"] == [
        "file_restore: reread unit=mariadb.service how=restart",
        "file_restore: reread unit=nginx.service how=reload",
    ]


def test_unit_of_no_role_is_started_again_with_whatever_is_put_back_on_its_host() -> None:
    user = {"uid": 1001, "gid": 1001, "home": "/srv", "shell": "/bin/sh", "groups": ""}
    own = "/etc/systemd/system/reports.service.d/x.conf"
    drifts = [Drift("web1", "user:reports", user, None), Drift("web1", f"file:{own}", None, FILE)]
    whole = {"web1": {"reports"}}
    made = restore.restorations(drifts, TEXTS, EVIDENCE, {("web1", "unit:reports.service")}, whole, gently=True)
    assert [(item.drift.subject, item.steps[1:]) for item in made] == [
        (f"file:{own}", (again := reread(path=own),)),
        ("user:reports", (reread(),)),
    ]
    assert made[0].undo[1:] == (again,)
    elsewhere = restore.restorations(drifts, TEXTS, EVIDENCE, {("batch1", "unit:reports.service")}, whole, gently=True)
    assert [len(item.steps) for item in elsewhere] == [1, 1]


def test_for_a_unit_that_serves_no_customer_only_what_is_near_to_it_is_tried() -> None:
    user = {"uid": 999, "gid": 999, "home": "/srv", "shell": "/bin/sh", "groups": ""}
    failed = Drift("web1", "unit:reports.service", {"active": "active", "user": "reports"}, {"active": "failed"})
    far = [
        "file:/etc/cron.d/purge",
        "file:/etc/hosts",
        "file:/etc/systemd/system/purge.timer",
        "file:/etc/netplan/50-cloud.yaml",
    ]
    drifts = [
        Drift("web1", "user:reports", user, None),
        Drift("web1", "user:other", user, None),
        Drift("web1", "file:/etc/reports.conf", None, FILE),
        Drift("web1", "file:/etc/nginx/x.conf", None, FILE, near=True),
        Drift("batch1", "file:/etc/reports.conf", None, FILE),
        *(Drift("web1", subject, None, FILE) for subject in far),
    ]
    both = {host: {**HEALTHY, "host": host} for host in ("web1", "batch1")}
    made = restore.restorations(drifts, {}, both, accounts={"web1": {"reports", "other"}})
    assert len(made) == len(drifts)
    kept = restore.for_units_of_others(made, [failed])
    assert [item.drift.subject for item in kept] == ["file:/etc/reports.conf", "user:reports"]


def reread(**path: str) -> Step:
    return Step("web1", "file_restore", "reread", "live", {"unit": "reports.service", "how": "restart", **path})


def test_only_undoing_steps_are_read_from_a_journal() -> None:
    (made,) = restore.restorations([Drift("web1", f"file:{CONF}", None, FILE)], TEXTS, EVIDENCE)
    told = json.loads(json.dumps([{**step.__dict__} for step in made.undo]))
    assert restore.read_undo(told) == made.undo
    forbidden = {"host": "web1", "role": "host_base", "step": "unit_start", "args": {}}
    odd_ones: tuple[Any, ...] = (None, "x", [1], [{}], [forbidden], [*told, 7])
    for odd in odd_ones:
        assert restore.read_undo(odd) == ()


# The recovery: one of these differences makes the shop red, the others are somebody's good work.
CULPRIT, INNOCENT = "file:/etc/nginx/conf.d/a.conf", "file:/etc/nginx/conf.d/b.conf"


class Story:
    """A host on which the shop is red while the culprit is there."""

    def __init__(self, runs: Runs) -> None:
        self.runs = runs
        self.asked: list[str] = []

    def __call__(self, site: Any, playbook: str, *, extra: Any = None, **more: Any) -> Any:
        # Like Ansible: each step says that it begins.
        for kind in ("disk", "live"):
            for step in (extra or {}).get(f"recover_site_{kind}_steps", {}).get("web1", []):
                args = {name: value["__ansible_unsafe"] for name, value in step["args"].items()}
                more["listen"](Event("web1", step["role"], "Begin the step", "ok", step=step["number"]))
                self.asked.append(f"{step['step']} {args['path']}")
                subject = f"file:{args['path']}"
                if step["step"] == "move_aside":
                    self.runs.state["facts"].pop(subject)
                elif step["step"] == "put_back":
                    self.runs.state["facts"][subject] = a_file("eeee")
        return self.runs(site, playbook, extra=extra, **more)

    def look(self, *_: Any, **__: Any) -> list[ProbeResult]:
        red = CULPRIT in self.runs.state["facts"]
        return [ProbeResult("top", "Top", "customer", passed=not red, seen="500" if red else "fine", seconds=0.1)]


@pytest.fixture
def story(monkeypatch: pytest.MonkeyPatch, runs: Runs) -> Story:
    runs.state = {"facts": dict(FACTS), "texts": {"/etc/motd": "hi\n"}}
    assert hikeshi(monkeypatch, "baseline") == ExitStatus.DONE
    told = Story(runs)
    monkeypatch.setattr("hikeshi.runner.run", told)
    monkeypatch.setattr("hikeshi.probes.run", told.look)
    monkeypatch.setattr(look, "probe_all", told.look)
    monkeypatch.setattr(recover, "SETTLE_S", 0)
    return told


def test_only_the_difference_that_hurts_is_put_back(
    monkeypatch: pytest.MonkeyPatch, story: Story, capsys: pytest.CaptureFixture[str]
) -> None:
    story.runs.state["facts"] |= {INNOCENT: a_file("eeee", changed=99), CULPRIT: a_file("eeee", changed=50)}
    capsys.readouterr()
    assert hikeshi(monkeypatch, "recover", "--yes", "--json") == ExitStatus.DONE
    done = json.loads(capsys.readouterr().out)
    assert (done["healthy"], len(done["restored"]), len(done["tried"])) == (True, 1, 1)
    assert CULPRIT in done["restored"][0]
    assert [CULPRIT] in [step["subjects"] for step in done["steps"]], "the drill's score joins by subject"
    assert [INNOCENT] not in [step["subjects"] for step in done["steps"]], "what was taken back has put nothing back"
    assert [item["subject"] for item in done["drift"]] == [INNOCENT], "it stands, and is reported"
    assert [step for step in story.asked if not step.startswith("reread")] == [
        "move_aside /etc/nginx/conf.d/b.conf",
        "put_back /etc/nginx/conf.d/b.conf",
        "move_aside /etc/nginx/conf.d/a.conf",
    ]


def test_what_a_trial_makes_worse_is_no_measure_for_the_next(
    monkeypatch: pytest.MonkeyPatch, story: Story, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the newest file more is red: that it comes back is no merit of the one that is tried next."""
    facts = story.runs.state["facts"]
    needed, bystander = "file:/etc/nginx/conf.d/needed.conf", "file:/etc/nginx/conf.d/by.conf"
    facts |= {needed: a_file("eeee", changed=99), bystander: a_file("eeee", changed=60)}

    def look_red(*_: Any, **__: Any) -> list[ProbeResult]:
        red = {"top": True, "cart": needed not in facts}
        return [ProbeResult(name, name, "customer", not red[name], "seen", 0.1) for name in red]

    monkeypatch.setattr("hikeshi.probes.run", look_red)
    monkeypatch.setattr(look, "probe_all", look_red)
    capsys.readouterr()
    assert hikeshi(monkeypatch, "recover", "--yes", "--json") == ExitStatus.FAILED
    done = json.loads(capsys.readouterr().out)
    assert (done["restored"], len(done["tried"])) == ([], 2)
    assert {item["subject"] for item in done["drift"]} == {needed, bystander}
    assert [item["id"] for item in done["probes_after"] if not item["passed"]] == ["top"]


def test_what_cannot_be_taken_back_ends_the_trials(
    monkeypatch: pytest.MonkeyPatch, story: Story, capsys: pytest.CaptureFixture[str]
) -> None:
    story.runs.state["facts"] |= {INNOCENT: a_file("eeee", changed=99), CULPRIT: a_file("eeee", changed=50)}
    real = recover.mend

    def fails_to_undo(site: Any, plan: Any, *, check: bool) -> Any:
        done = real(site, plan, check=check)
        undoing = any(item.step.step == "put_back" for item in plan.steps)
        return [replace(item, failed=undoing) for item in done]

    monkeypatch.setattr(recover, "mend", fails_to_undo)
    assert hikeshi(monkeypatch, "recover", "--yes") == ExitStatus.FAILED
    assert "could not be taken back: look at the host" in " ".join(capsys.readouterr().out.split())
    assert not [step for step in story.asked if step.startswith("move_aside") and "a.conf" in step]


def test_unit_of_no_role_that_failed_is_mended_past_what_serves_customers(
    monkeypatch: pytest.MonkeyPatch, story: Story, capsys: pytest.CaptureFixture[str]
) -> None:
    """Customers are served all the while: of what serves them nothing is tried."""
    own, unit = "file:/etc/default/reports", "unit:reports.service"
    facts = story.runs.state["facts"]
    facts |= {unit: {"load": "loaded", "enabled": "enabled", "active": "active"}}
    assert hikeshi(monkeypatch, "baseline", "--force", "--why", "it has reports") == ExitStatus.DONE
    facts |= {unit: {**facts[unit], "active": "failed"}, own: a_file("eeee"), INNOCENT: a_file("eeee", changed=99)}
    real = recover.mend

    def mend(*words: Any, **more: Any) -> Any:
        done = real(*words, **more)
        facts[unit] = {**facts[unit], "active": "failed" if own in facts else "active"}
        return done

    monkeypatch.setattr(recover, "mend", mend)
    capsys.readouterr()
    assert hikeshi(monkeypatch, "triage", "--json") == ExitStatus.FAILED
    assert [item["id"] for item in json.loads(capsys.readouterr().out)["findings"]] == [
        "unit_failed/unit:reports.service"
    ]
    assert hikeshi(monkeypatch, "recover", "--yes", "--json") == ExitStatus.DONE
    done = json.loads(capsys.readouterr().out)
    assert (done["converged"], [own in words for words in done["restored"]]) == (False, [True])
    assert "move_aside /etc/nginx/conf.d/b.conf" not in story.asked


def test_what_nobody_approved_is_not_put_back_and_what_is_wrong_is_still_reported(
    monkeypatch: pytest.MonkeyPatch, story: Story, capsys: pytest.CaptureFixture[str]
) -> None:
    unit = "unit:reports.service"
    facts = story.runs.state["facts"]
    facts |= {unit: {"load": "loaded", "enabled": "enabled", "active": "active"}}
    assert hikeshi(monkeypatch, "baseline", "--force", "--why", "it has reports") == ExitStatus.DONE
    facts |= {unit: {**facts[unit], "active": "failed"}, "file:/etc/default/reports": a_file("eeee")}
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.confirm", lambda *_, **__: False)
    capsys.readouterr()
    assert hikeshi(monkeypatch, "recover") == ExitStatus.FAILED
    said = capsys.readouterr()
    assert "nothing was put back: that was not approved" in said.err
    assert "/etc/default/reports" in said.err, "what is asked for is named"
    assert "reports.service failed" in " ".join(said.out.split())
    assert story.asked == []


def test_drift_that_hurts_nobody_is_not_touched(
    monkeypatch: pytest.MonkeyPatch, story: Story, capsys: pytest.CaptureFixture[str]
) -> None:
    story.runs.state["facts"] |= {INNOCENT: a_file("eeee")}
    assert hikeshi(monkeypatch, "recover", "--yes") == ExitStatus.DONE
    assert story.asked == []
    assert "changed since the baseline, and left as it is" in capsys.readouterr().out


def test_killed_while_trying_the_next_one_takes_it_back(
    monkeypatch: pytest.MonkeyPatch, story: Story, capsys: pytest.CaptureFixture[str]
) -> None:
    story.runs.state["facts"] |= {INNOCENT: a_file("eeee", changed=99), CULPRIT: a_file("eeee", changed=50)}
    real = look.evidence
    monkeypatch.setattr(look, "evidence", _dies_after_the_first_trial(story, real))
    assert hikeshi(monkeypatch, "recover", "--yes") == 130
    assert INNOCENT not in story.runs.state["facts"]
    monkeypatch.setattr(look, "evidence", real)
    probed = probes.run
    monkeypatch.setattr(probes, "run", _dies)
    assert hikeshi(monkeypatch, "recover", "--yes") == 130
    assert INNOCENT not in story.runs.state["facts"], "who came next died before it could do anything"
    monkeypatch.setattr(probes, "run", probed)
    assert hikeshi(monkeypatch, "recover", "--yes") == ExitStatus.DONE
    assert INNOCENT in story.runs.state["facts"]
    assert CULPRIT not in story.runs.state["facts"]
    assert "that is taken back first" in " ".join(capsys.readouterr().err.split())
    kinds = [record.data.get("what") for record in store.journal(load()).records() if record.kind == "stage.start"]
    assert "taken back" in kinds


def _dies(*_: Any, **__: Any) -> Any:
    raise KeyboardInterrupt


def _dies_after_the_first_trial(story: Story, real: Callable[..., Any]) -> Callable[..., Any]:
    def evidence(*words: Any, **more: Any) -> Any:
        if any(step.startswith("move_aside") for step in story.asked):
            raise KeyboardInterrupt
        return real(*words, **more)

    return evidence


def test_a_damaged_baseline_keeps_nobody_from_recovering(
    monkeypatch: pytest.MonkeyPatch, story: Story, capsys: pytest.CaptureFixture[str]
) -> None:
    from hikeshi import baseline

    (path,) = baseline.folder(load()).glob("*.json")
    path.write_text("{")
    assert hikeshi(monkeypatch, "recover", "--yes") == ExitStatus.DONE
    assert "going on without a baseline" in capsys.readouterr().err


def test_the_differences_of_two_hosts_keep_their_order() -> None:
    both = {host: {**HEALTHY, "host": host} for host in ("web1", "batch1")}
    drifts = [
        item for host in both for item in drift.compare(host, {}, {"file:/etc/nginx/x": FILE}, HEALTHY["subjects"])
    ]
    assert [item.drift.host for item in restore.restorations(drifts, {}, both)] == ["web1", "batch1"]
