"""`hikeshi incident …` and what the other verbs leave in the journal: words → records → screen → exit status."""

import json
import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hikeshi import lock, screen
from hikeshi.errors import ExitStatus, RefusedError
from hikeshi.incident import permissions, stages, store
from hikeshi.incident.journal import Journal
from hikeshi.incident.record import Record
from hikeshi.site import load
from tests.unit.commands import Runs, hikeshi, stopped
from tests.unit.conftest import SITE, Project
from tests.unit.shop import Shop
from tests.unit.test_triage import HEALTHY


def later(minutes: int) -> str:
    return (datetime.now(UTC) + timedelta(minutes=minutes)).isoformat(timespec="seconds")


class Desk:
    """Types commands and reads what comes back."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys
        self.out = self.err = ""

    def __call__(self, *words: str) -> int:
        self.capsys.readouterr()
        status = hikeshi(self.monkeypatch, *words)
        self.out, self.err = self.capsys.readouterr()
        self.out, self.err = (re.sub(r"\s+", " ", text) for text in (self.out, self.err))
        return status

    def data(self, *words: str) -> Any:
        assert self(*words, "--json") == 0, self.err
        return json.loads(self.out)


@pytest.fixture
def desk(project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    monkeypatch.setattr(screen, "_zone", None)
    return Desk(monkeypatch, capsys)


@pytest.fixture
def opened(desk: Desk) -> Desk:
    assert desk("incident", "open", "tv", "--by", "Ms Ito", "--words", "pictures are not shown") == 0
    return desk


def records() -> list[Record]:
    return store.journal(load()).records()


def kinds() -> list[str]:
    return [record.kind for record in records()]


def test_open_makes_one_private_folder(project: Project, desk: Desk) -> None:
    assert desk("incident", "open", "tv") == 0
    (folder,) = (project.root / "incidents").glob("*-tv")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert store.folder(load()) == folder
    assert kinds() == ["journal.begun", "incident.opened"]
    assert desk("incident", "open", "again") == ExitStatus.REFUSED
    assert f"incident {folder.name} is open" in desk.err
    standing = Journal(load().records).records()
    assert [record.kind for record in standing] == ["journal.begun", "incident.opened"]


@pytest.mark.parametrize("name", ["", "../up", "Two Words", "x" * 50, "-x"])
def test_open_refuses_names_that_are_none(desk: Desk, name: str) -> None:
    assert desk("incident", "open", "--", name) == ExitStatus.USAGE


def test_half_opened_incident_is_taken_up_and_a_finished_one_is_not(desk: Desk) -> None:
    assert desk("incident", "open", "tv") == 0
    (load().records / "open").unlink()  # as if killed before it was pointed at
    assert desk("incident", "open", "tv") == 0
    assert desk("incident", "note", "work") == 0
    assert desk("incident", "close") == 0
    assert desk("incident", "open", "tv") == ExitStatus.USAGE
    assert "exists already" in desk.err


@pytest.mark.parametrize("dated", [False, True])
def test_incident_that_was_closed_too_early_goes_on(opened: Desk, dated: bool) -> None:
    folder = store.folder(load())
    name = folder.name if dated else "tv"
    assert opened("incident", "permit", "reboot", "--by", "Ms Ito", "--words", "yes") == 0
    assert opened("incident", "open", name, "--again") == ExitStatus.REFUSED, "it is open"
    assert opened("incident", "close") == 0
    assert opened("incident", "open", "tv-2", "--again") == ExitStatus.USAGE
    assert f"there are: {folder.name}" in opened.err
    assert opened("incident", "open", name, "--again", "--words", "the pictures are gone again") == 0
    assert opened.out.strip() == f"incident {folder.name} is open again"
    assert store.folder(load()) == folder
    assert opened("incident", "status") == 0
    assert "opened the incident again: the pictures are gone again" in opened.out
    assert "allowed, not used: reboot" in opened.out
    assert opened("incident", "verify") == 0
    assert Journal(load().records).records()[-1].data["folder"] == folder.name
    assert opened("incident", "close") == 0


def test_names_are_one_in_any_case_and_stand_in_one_line(opened: Desk) -> None:
    assert opened("incident", "deadline", "Report", later(60), "--kind", "Report", "--owner", "Aki") == 0
    assert opened("incident", "deadline", "REPORT", "--met") == 0
    assert opened("incident", "permit", "Reboot", "--by", "Ms Ito", "--words", "yes") == 0
    assert opened("incident", "note", "Bo", "--as", "Lead") == 0
    for words in (["note", "Bo\nlead", "--as", "hands"], ["deadline", "a\nb", later(9)]):
        assert opened("incident", *words) == ExitStatus.USAGE
        assert "allowed: one line of printable characters" in opened.err
    assert opened("incident", "permit", "copy", "--by", "Ms\nIto", "--words", "yes") == ExitStatus.USAGE


def test_note_about_a_host_takes_only_hosts_of_the_site(opened: Desk) -> None:
    assert opened("incident", "note", "the disk is full", "--host", "wbe1") == ExitStatus.USAGE
    assert "--host is 'wbe1'; allowed: web1" in opened.err
    assert opened("incident", "note", "the disk is full", "--host", "web1") == 0
    assert records()[-1].host == "web1"


def test_permit_says_what_it_was_bounded_to(opened: Desk) -> None:
    words = ["--by", "Ms Ito", "--words", "twice, until seven", "--limit", "2", "--until", later(60)]
    assert opened("incident", "permit", "reboot", *words) == 0
    assert "reboot: granted by Ms Ito, up to 2 times, until 20" in opened.out


def test_journal_that_is_gone_is_said(opened: Desk) -> None:
    shutil.rmtree(store.folder(load()))
    assert opened("incident", "status") == ExitStatus.MISCONFIGURED
    assert "the open incident's journal is gone" in opened.err


@pytest.mark.parametrize("verb", [["status"], ["note", "x"], ["verify"], ["close"]])
def test_emptied_journal_is_not_begun_anew(opened: Desk, verb: list[str]) -> None:
    path = store.journal(load()).path
    path.write_bytes(b"")
    assert opened("incident", *verb) == ExitStatus.MISCONFIGURED
    assert "the open incident's journal is gone: record 1 of" in opened.err
    assert path.read_bytes() == b""
    assert opened("incident", "verify", path.parent.name) == ExitStatus.FAILED
    assert "record 1 is missing" in opened.out


@pytest.mark.parametrize("content", [b"", b"\0" * 5000])
def test_emptied_standing_journal_is_not_begun_anew(desk: Desk, content: bytes) -> None:
    assert desk("incident", "note", "x" * 3000) == 0  # a blob is beside it
    path = store.standing(load()).path
    path.write_bytes(content)
    for verb in (["status"], ["note", "x"], ["open", "tv"]):
        assert desk("incident", *verb) == ExitStatus.MISCONFIGURED
        assert "the journal is empty, but its folder was in use" in desk.err
    assert path.read_bytes() == content
    path.unlink()  # as it says
    assert desk("incident", "note", "x") == 0
    assert "was gone; it is begun anew" in desk.err
    assert desk("incident", "verify") == 0
    assert "begun anew: one that stood here before is gone" in desk.out


def test_a_first_writer_killed_at_once_leaves_no_obstacle(desk: Desk) -> None:
    path = store.standing(load()).path
    path.parent.mkdir(parents=True)
    path.touch()
    assert desk("incident", "status") == 0
    assert desk("incident", "note", "x") == 0
    assert kinds() == ["journal.begun", "note"]


def test_notes_and_people(opened: Desk) -> None:
    assert opened("incident", "note", "--as", "lead", "Aki") == 0
    assert opened("incident", "note", "--as", "scribe", "Bo") == 0
    assert opened("incident", "note", "--as", "lead", "Chie") == 0
    assert opened("incident", "note", "the disk is full", "--host", "web1") == 0
    assert records()[-1].host == "web1"
    assert opened("incident", "note", " ") == ExitStatus.USAGE
    assert opened("incident", "note", "--as", "boss", "Dai") == ExitStatus.USAGE
    assert "allowed: lead, hands, timekeeper, scribe" in opened.err
    assert opened("incident", "status") == 0
    assert "lead Chie · scribe Bo" in opened.out
    assert "note: the disk is full" in opened.out


def test_without_an_incident_notes_go_to_the_standing_journal(desk: Desk) -> None:
    assert desk("incident", "note", "quiet day") == 0
    assert kinds() == ["journal.begun", "note"]
    assert store.folder(load()) == load().records
    assert desk("incident", "status") == 0
    assert "no incident is open" in desk.out
    words = [["permit", "reboot", "--by", "a", "--words", "b"], ["deadline", "r", later(9)], ["late", "r"], ["close"]]
    for verb in words:
        assert desk("incident", *verb) == ExitStatus.REFUSED
        assert "hikeshi incident open NAME" in desk.err


def test_deadline_is_set_moved_with_a_reason_and_met(opened: Desk) -> None:
    assert opened("incident", "deadline", "report", later(90), "--owner", "Aki", "--kind", "report") == 0
    assert "report" in opened.err
    assert "(Aki) in 1 h 29 min" in opened.err
    assert opened("incident", "deadline", "report", later(120)) == ExitStatus.USAGE
    assert "to move it, say why" in opened.err
    assert opened("incident", "deadline", "report", later(120), "--why", "x", "--owner", "Bo") == ExitStatus.USAGE
    assert "changes its time alone" in opened.err
    assert opened("incident", "deadline", "report", later(120), "--why", "the customer asked", "--by", "Bo") == 0
    moved = records()[-1]
    assert (moved.kind, moved.data["by"], moved.data["why"]) == ("deadline.moved", "Bo", "the customer asked")
    assert opened("incident", "deadline", "report", "--drop") == ExitStatus.USAGE
    assert "to drop it, say why" in opened.err
    assert opened("incident", "deadline", "report", "--met") == 0
    assert opened("incident", "deadline", "report", "--met") == ExitStatus.USAGE
    assert "no deadline 'report' stands; there are: none" in opened.err
    assert opened("incident", "deadline", "nosuch", "--drop", "--why", "x") == ExitStatus.USAGE
    assert opened("incident", "deadline", "report") == ExitStatus.USAGE
    assert opened("incident", "deadline", "report", later(5), "--kind", "x") == ExitStatus.USAGE
    assert opened("incident", "deadline", "report", "soon") == ExitStatus.USAGE


def test_every_verb_says_what_is_left_and_warns_once_in_the_journal(opened: Desk) -> None:
    opened("incident", "deadline", "report", later(25), "--owner", "Aki")
    opened("incident", "deadline", "box", later(8), "--owner", "Bo")
    for verb in (["note", "x"], ["status"], ["note", "--as", "lead", "Aki"], ["verify"]):
        assert opened("incident", *verb) == 0
        said = opened.out if verb == ["status"] else opened.err
        assert "T-10 box" in said
        assert "T-30 report" in said
    warned = [(record.data["name"], record.data["minutes"]) for record in records() if record.kind == "deadline.warned"]
    assert sorted(warned) == [("box", 10), ("report", 30)]


def test_a_deadline_that_passed_says_what_to_do(opened: Desk) -> None:
    at = (datetime.now(UTC) - timedelta(minutes=5)).isoformat()
    store.journal(load()).append("deadline.set", {"name": "report", "at": at, "owner": "Aki", "kind": "report"})
    assert opened("incident", "status") == 0
    assert "T-0 report" in opened.out
    assert "5 min ago" in opened.out
    assert "hikeshi incident deadline report --met; or hikeshi incident late report" in opened.out


def test_late_drafts_and_moves_only_when_sent(opened: Desk) -> None:
    opened("incident", "deadline", "report", later(20), "--owner", "Aki", "--kind", "report")
    assert opened("incident", "late", "report") == ExitStatus.USAGE
    assert opened("incident", "late", "nosuch", "--until", later(60), "--why", "x") == ExitStatus.USAGE
    assert opened("incident", "late", "report", "--until", later(10), "--why", "x") == ExitStatus.USAGE
    assert "not after the deadline" in opened.err
    until = later(60)
    assert opened("incident", "late", "report", "--until", until, "--why", "the disk is full") == 0
    assert "Test shop: our report, promised for" in opened.out
    assert "The reason: the disk is full." in opened.out
    drafted = opened.out.strip()
    before = opened.data("incident", "status")["deadlines"][0]["at"]
    assert opened("incident", "late", "report", "--sent") == 0
    moved = records()[-1]
    assert (moved.kind, moved.data["told"], moved.data["before"]) == ("deadline.moved", drafted, before)
    assert datetime.fromisoformat(opened.data("incident", "status")["deadlines"][0]["at"]) == (
        datetime.fromisoformat(until)
    )
    assert opened("incident", "late", "report", "--sent") == ExitStatus.USAGE  # the draft was used
    assert "nothing is drafted for 'report': what was sent?" in opened.err


def test_nobody_says_that_words_were_sent_that_nobody_has_seen(opened: Desk) -> None:
    opened("incident", "deadline", "report", later(20))
    assert opened("incident", "late", "report", "--until", later(60), "--why", "x", "--sent") == ExitStatus.USAGE
    assert "when they were sent, --sent alone" in opened.err
    assert "late.drafted" not in kinds()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["restart", "--by", "a", "--words", "b"], "unknown permission 'restart'; allowed: reboot, copy"),
        (["spend", "--by", "a", "--words", "b"], "'spend' needs an amount"),
        (["spend", "--limit", "-1", "--by", "a", "--words", "b"], "--limit is -1"),
        (["spend", "--limit", "nan", "--by", "a", "--words", "b"], "--limit is nan"),
        (["reboot", "--limit", "1.5", "--by", "a", "--words", "b"], "--limit is 1.5; allowed for reboot: how often"),
        (["reboot", "--refuse", "--limit", "1", "--by", "a", "--words", "b"], "belong to what is granted"),
        (["reboot", "--withdraw", "--until", "15:30", "--by", "a", "--words", "b"], "belong to what is granted"),
        (["reboot", "--refuse", "--withdraw", "--by", "a", "--words", "b"], "give one"),
        (["reboot", "--by", " ", "--words", "b"], "proves nothing"),
        (["reboot", "--by", "a", "--words", "x" * 1001], "has 1001 characters"),
        (["reboot", "--until", "yesterday", "--by", "a", "--words", "b"], "is no time"),
        (["reboot", "--by", "a"], "--words"),
    ],
)
def test_permit_refuses_what_proves_nothing(opened: Desk, words: list[str], message: str) -> None:
    assert opened("incident", "permit", *words) == ExitStatus.USAGE
    assert message in opened.err


def test_permissions_on_the_screen(opened: Desk, project: Project) -> None:
    project.site({**SITE, "permissions": {"reboot": {"by": "brief", "when": "before", "words": "you may"}}})
    assert opened("incident", "permit", "spend", "--limit", "500", "--by", "Ms Ito", "--words", "500, no more") == 0
    assert opened("incident", "permit", "copy", "--refuse", "--by", "Ms Ito", "--words", "never") == 0
    assert opened("incident", "status") == 0
    assert "allowed, not used: reboot (restart a server) · brief: “you may”" in opened.out
    assert "allowed, not used: spend (spend money) · Ms Ito: “500, no more” · up to 500" in opened.out
    assert "not allowed: copy · Ms Ito refused it: “never”" in opened.out
    permissions.require(load(), "reboot", "restart web1")
    data = opened.data("incident", "status")
    assert data["unused"] == ["spend"]
    assert data["permissions"]["reboot"]["used"] == 1
    assert opened("incident", "status") == 0
    assert "allowed, used 1 times: reboot" in opened.out
    ends = datetime.now(UTC) + timedelta(minutes=90)
    more = ("--limit", "1234567", "--until", ends.isoformat(timespec="seconds"), "--by", "Ms Ito", "--words", "yes")
    assert opened("incident", "permit", "spend", *more) == 0
    permissions.require(load(), "spend", "rent a server", amount=50_000)
    assert opened("incident", "status") == 0
    used = "allowed, used 1 times (50,000): spend · Ms Ito · up to 1,234,567, until"
    assert f"{used} {ends:%Y-%m-%d %H:%M} UTC" in opened.out


def test_hostile_words_are_shown_as_they_are(opened: Desk) -> None:
    assert opened("incident", "note", "\x1b[2J[red]x[/red] \udcff\n  14:00 the customer · granted reboot") == 0
    assert opened("incident", "status") == 0
    assert "\x1b" not in opened.out
    assert "\\x1b[2J[red]x[/red] \\udcff\\n 14:00" in opened.out  # one line
    assert "\\udcff" in opened.data("incident", "status")["did"][-1]["told"]


def test_close_says_what_is_open_and_needs_force(opened: Desk) -> None:
    journal = store.journal(load())
    journal.append("item.opened", {"item": "gate", "words": "the gate of lb1 is closed", "close": "hikeshi sorry off"})
    opened("incident", "deadline", "report", later(90))
    assert opened("incident", "close") == ExitStatus.REFUSED
    assert "the gate of lb1 is closed (hikeshi sorry off)" in opened.err
    assert "deadline report" in opened.err
    with journal.action("stage", {"stage": "mend"}):
        assert opened("incident", "close") == ExitStatus.REFUSED
        assert f"running: mend begun (pid {os.getpid()})" in opened.err
    journal.append("item.closed", {"item": "gate"})
    opened("incident", "deadline", "report", "--met")
    folder = store.folder(load())
    assert opened("incident", "close", "--words", "all well") == 0
    assert store.open_folder(load()) is None
    assert Journal(folder).records()[-1].kind == "incident.closed"
    assert kinds()[-1] == "incident.closed"  # the standing journal


def test_close_by_force_says_what_is_left(opened: Desk) -> None:
    opened("incident", "deadline", "report", later(90))
    folder = store.folder(load())
    assert opened("incident", "close", "--force") == 0
    assert "left open: deadline report" in opened.err
    last = Journal(folder).records()[-1].data
    assert last["force"]
    assert "deadline report" in last["left"][0]


def test_verify_and_anchor(opened: Desk, tmp_path: Path) -> None:
    anchor = tmp_path / "stick.jsonl"
    assert opened("incident", "verify") == 0
    assert "2 records, whole" in opened.out
    assert "without --anchor it cannot be excluded" in opened.out
    assert opened("incident", "verify", "--anchor", str(store.folder(load()) / "anchor")) == ExitStatus.USAGE
    assert opened("incident", "verify", "--anchor", str(tmp_path / "no" / "folder")) == ExitStatus.MISCONFIGURED
    opened("incident", "note", "x")
    assert opened("incident", "verify", "--anchor", str(anchor)) == 0
    path = store.journal(load()).path
    path.write_bytes(b"\n".join(path.read_bytes().split(b"\n")[:2]) + b"\n")
    assert opened("incident", "verify") == 0
    assert opened("incident", "verify", "--anchor", str(anchor)) == ExitStatus.FAILED
    assert "record 3 is missing: the end was cut off; the anchor knows it" in opened.out
    assert opened("incident", "verify", "nosuch") == ExitStatus.USAGE
    assert opened("incident", "verify", load().records.name, "--json") == 0
    assert json.loads(opened.out)["whole"] is True


def test_probe_and_recover_leave_their_traces(opened: Desk, runs: Runs, project: Project) -> None:
    assert opened("probe") == 0
    assert kinds()[-3:] == ["probe.start", "probes", "probe.end"]  # it may leave an order behind
    added = [{"kind": "user", "name": "kenji", "more": "uid 1001, /bin/bash"}]
    runs.evidence = [{**evidence, "additions": added} for evidence in (stopped("nginx.service"), HEALTHY)]
    assert opened("recover", "--yes") == 0
    told = [record for record in records() if record.kind in ("stage.end", "recovery.end", "findings")]
    assert [record.data.get("stage", record.kind) for record in told] == [
        "probe", "findings", "look", "mend", "findings", "look", "prove", "recovery.end",
    ]  # fmt: skip
    assert told[-1].data["healthy"] is True
    assert told[1].data["found"][0]["cause"]
    assert [[item["subject"] for item in record.data["kept"]] for record in (told[1], told[4])] == [["user:kenji"]] * 2
    data = opened.data("incident", "status")
    assert [item["passed"] for item in data["probes"]["customer"]] == [True]
    assert (data["findings"], data["running"], data["left_open"]) == ([], [], [])
    assert opened("incident", "status") == 0
    assert len(opened.out) < 4000  # one screen


def test_unused_permissions_stand_at_the_start_of_recover(
    opened: Desk,
    runs: Runs,
    project: Project,
    shop: Shop,
) -> None:
    views = dict.fromkeys(("customer", "direct"), {"url": shop.url})
    brief = {"reboot": {"by": "brief", "when": "before", "words": "you may"}}
    project.site({**SITE, "views": views, "permissions": brief})
    assert opened("recover", "--yes") == 0
    assert opened.err.index("allowed, not used: reboot") < opened.err.index("looking as a customer")


def test_what_was_cut_off_is_known() -> None:
    def record(seq: int, kind: str, **data: Any) -> Record:
        return Record(seq, "2026-11-25T05:30:00.000000Z", 1.0, "b", "a@b", 1, "", kind, data, "0" * 64)

    begun = [
        record(1, "recovery.start", check=False, plan=False),
        record(2, "stage.start", recovery=1, stage="probe"),
        record(3, "stage.end", recovery=1, stage="probe", start=2, outcome="done"),
        record(4, "stage.start", recovery=1, stage="mend"),
    ]
    earlier = stages.cut_off([*begun, record(5, "recovery.start", check=False, plan=True)])
    assert earlier
    assert earlier.ended("probe")
    assert not earlier.ended("mend")
    assert earlier.within == "mend"
    assert stages.cut_off([*begun, record(5, "recovery.end", start=1, outcome="done")]) is None
    assert stages.cut_off([]) is None


def test_a_look_with_one_probe_leaves_what_the_others_saw(opened: Desk) -> None:
    journal = store.journal(load())
    red, green = ({"id": name, "title": name, "seen": "x", "passed": name == "cart"} for name in ("top", "cart"))
    journal.append("probes", {"view": "customer", "results": [red, {**green, "passed": False}]})
    journal.append("probes", {"view": "customer", "results": [green]})
    seen = opened.data("incident", "status")["probes"]["customer"]
    assert [(item["id"], item["passed"]) for item in seen] == [("top", False), ("cart", True)]
    assert opened("incident", "status") == 0
    assert "customer) top: x" in opened.out
    assert "all" not in opened.out.partition("symptoms")[2].partition("done last")[0]


def test_what_several_views_see_alike_is_one_line(opened: Desk) -> None:
    journal = store.journal(load())
    for view, seen in (("customer", "503"), ("customer-ipv6", "503"), ("direct", "500")):
        look = {"id": "top", "title": "Top page", "seen": seen, "passed": False}
        journal.append("probes", {"view": view, "results": [look]})
    assert opened("incident", "status") == 0
    assert "customer, customer-ipv6) Top page: 503" in opened.out
    assert "direct) Top page: 500" in opened.out
    assert opened.out.count("since") == 1


def test_more_findings_than_a_record_holds_are_never_said_to_be_none(opened: Desk) -> None:
    store.journal(load()).append("findings", {"found": [{"cause": "c" * 1500}] * 500, "unseen": []})
    assert opened("incident", "status") == 0
    assert 'found [{"cause": "ccc' in opened.out
    assert "looked: [{" in opened.out


def test_what_failed_is_said_once(opened: Desk) -> None:
    journal = store.journal(load())
    with (
        pytest.raises(RefusedError),
        journal.action("recovery", {"check": False, "plan": False}),
        journal.action("stage", {"stage": "look"}),
    ):
        raise RefusedError("web1 does not answer")
    assert opened("incident", "status") == 0
    assert opened.out.count("web1 does not answer") == 1


def test_a_damaged_journal_is_said_loudly(opened: Desk, runs: Runs) -> None:
    opened("incident", "deadline", "report", later(90))
    path = store.journal(load()).path
    path.write_bytes(path.read_bytes().replace(b'"name":"report"', b'"name":"repurt"'))
    warning = "the journal is damaged at record 3: hikeshi incident verify"
    assert opened("incident", "note", "x") == 0
    assert warning in opened.err
    assert opened("incident", "status") == 0
    assert warning in opened.out
    assert opened.data("incident", "status")["damaged_at"] == 3
    opened("recover", "--plan")
    assert warning in opened.err
    assert opened("incident", "verify") == ExitStatus.FAILED
    assert "record 3 was changed" in opened.out


def test_close_says_that_the_journal_is_not_whole(opened: Desk) -> None:
    assert opened("incident", "note", "x") == 0
    assert opened("incident", "note", "y") == 0
    journal = store.journal(load())
    journal.path.write_bytes(journal.path.read_bytes().replace(b'"words":"x"', b'"words":"z"'))
    assert opened("incident", "close") == ExitStatus.REFUSED
    assert "the journal is not whole: record 3 was changed" in opened.err
    assert opened("incident", "close", "--force", "--words", "it is kept") == 0
    closed = journal.records()[-1].data
    assert (closed["verified"]["whole"], closed["verified"]["bad"]) == (False, 3)


def test_verify_takes_the_name_and_misses_what_only_the_anchor_knows(opened: Desk, tmp_path: Path) -> None:
    anchor = tmp_path / "stick.jsonl"
    folder = store.folder(load())
    assert opened("incident", "verify", "tv", "--anchor", str(anchor)) == 0
    other = {"journal": "2026-01-01-tv", "site": "elsewhere", "seq": 1, "hash": "0" * 64}
    with anchor.open("a") as handle:
        handle.write(json.dumps(other) + "\n")
    assert opened("incident", "close") == 0
    assert opened("incident", "verify", "--anchor", str(anchor)) == 0
    assert opened("incident", "verify", "nosuch") == ExitStatus.USAGE
    assert f"of site shop; there are: {folder.name}, shop" in opened.err
    shutil.rmtree(folder)
    assert opened("incident", "verify", "--anchor", str(anchor)) == ExitStatus.FAILED
    assert f"{folder.name}: the whole journal is missing; the anchor knows it" in opened.out
    assert opened("incident", "verify", "--anchor", str(anchor), "--json") == ExitStatus.FAILED
    assert json.loads(opened.out)["missing"] == [folder.name]
    assert opened("incident", "verify", folder.name, "--anchor", str(anchor)) == ExitStatus.FAILED
    assert "record 1 is missing" in opened.out


def test_verify_lists_only_this_sites_journals(opened: Desk) -> None:
    Journal(load().records.parent / "other", about={"records": "other"}).append("note", {})
    assert opened("incident", "verify", "nosuch") == ExitStatus.USAGE
    assert "other" not in opened.err
    assert "next: hikeshi incident verify" in opened.err


@pytest.mark.parametrize("anchor", ["/dev/full", "/dev/null/x"])
def test_an_anchor_that_is_none_is_no_defect(opened: Desk, anchor: str) -> None:
    assert opened("incident", "verify", "--anchor", anchor) in (ExitStatus.MISCONFIGURED, ExitStatus.FAILED)
    assert "defect" not in opened.err
    assert "the anchor" in opened.err


def test_no_incident_is_opened_or_closed_while_the_site_is_changed(desk: Desk) -> None:
    with lock.held(load(), "recover"):
        assert desk("incident", "open", "tv") == ExitStatus.REFUSED
        assert f"pid {os.getpid()}, recover" in desk.err
    assert store.open_folder(load()) is None
    assert desk("incident", "open", "tv") == 0
    with lock.held(load(), "recover"):
        assert desk("incident", "close", "--force") == ExitStatus.REFUSED
        assert f"pid {os.getpid()}, recover" in desk.err
        assert desk("incident", "status") == 0
        assert "the site is being changed by" in desk.out
    assert desk("incident", "status") == 0
    assert "being changed" not in desk.out
    assert desk.data("incident", "status")["lock"] is None


def test_the_customers_words_stand_in_the_sites_own_journal_too(opened: Desk) -> None:
    assert store.standing(load()).records()[-1].data["words"] == "pictures are not shown"


TYPED = """
import pathlib, sys
from hikeshi import cli, site
site.PROJECT = pathlib.Path(sys.argv.pop(1))
site.INVENTORIES = site.PROJECT / "inventories"
cli.main()
"""


@pytest.mark.parametrize(
    ("redirected", "status"),
    [
        ("2>&-", 0),
        ("2>/dev/full", 0),
        (">&-", 0),
        ("<&- >&- 2>&-", 0),
        (">/dev/full", 1),
        ("2>/dev/full >/dev/full", 1),
    ],
)
def test_a_screen_that_takes_nothing_loses_no_record(
    opened: Desk, project: Project, redirected: str, status: int
) -> None:
    opened("incident", "deadline", "report", later(5), "--owner", "Aki — lead")
    before = len(records())
    with store.journal(load()).path.open("ab") as handle:
        handle.write(b"torn")  # which is said, too
    words = [sys.executable, "-c", TYPED, str(project.root), "incident", "note", "火消し"]
    shell = ["sh", "-c", f'"$@" {redirected}', "sh", *words]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(shell, capture_output=True, text=True, check=False, env=environment)  # noqa: S603
    assert done.returncode == status, done.stderr
    assert [record.data.get("words") for record in records()[before:]][-1:] == ["火消し"]
    assert sum(record.kind == "note" for record in records()) == 1
    assert store.journal(load()).records().bad is None
    assert "defect" not in done.stderr
    if redirected == ">/dev/full":
        assert "the output cannot be printed: No space left on device" in done.stderr


def test_folders_we_may_not_read_and_words_that_are_wrong_are_said_as_data_too(
    opened: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert opened("incident", "note", "--nosuch", "--json") == ExitStatus.USAGE
    assert json.loads(opened.out)["status"] == ExitStatus.USAGE

    def readlink(path: Path) -> Path:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "readlink", readlink)
    assert opened("incident", "status", "--json") == ExitStatus.FAILED
    assert "Permission denied" in json.loads(opened.out)["error"]
    assert "defect" not in opened.err


def test_heading_names_the_time_and_its_zone_and_the_lines_below_use_it(opened: Desk, project: Project) -> None:
    project.site({**SITE, "time_zone": "Asia/Tokyo"})
    opened("incident", "deadline", "report", later(90))
    assert opened("incident", "late", "report", "--until", later(120), "--why", "x") == 0
    heading = re.search(r"now (\d\d):\d\d JST", opened.err)
    said = re.search(r"(\d\d):\d\d:\d\d send this", opened.err)
    assert heading
    assert said
    assert (int(said[1]) - int(heading[1])) % 24 in (0, 1)
    assert opened("incident", "status") == 0
    assert " JST" in opened.out
    project.site({**SITE, "time_zone": "America/Sao_Paulo"})
    opened("incident", "note", "x")
    assert "America/Sao_Paulo" in opened.err


def test_a_deadline_is_handed_over_with_a_reason(opened: Desk) -> None:
    opened("incident", "deadline", "report", later(25), "--owner", "Aki", "--kind", "report")
    opened("incident", "note", "x")  # warns
    assert opened("incident", "deadline", "report", "--owner", "Bo") == ExitStatus.USAGE
    assert "to hand it over, say why" in opened.err
    assert opened("incident", "deadline", "report", "--owner", "Bo", "--met", "--why", "x") == ExitStatus.USAGE
    assert opened("incident", "deadline", "nosuch", "--owner", "Bo", "--why", "x") == ExitStatus.USAGE
    assert opened("incident", "deadline", "report", "--owner", "Bo", "--why", "Aki goes home") == 0
    assert "handed from Aki to Bo: Aki goes home" in opened.out
    assert "(Bo) in 24 min" in opened.err
    (deadline,) = opened.data("incident", "status")["deadlines"]
    assert (deadline["owner"], deadline["kind"], deadline["moved"]) == ("Bo", "report", 0)
    assert kinds().count("deadline.warned") == 1
