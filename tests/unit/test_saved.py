"""Evidence before stopping: the collector's own program, and what a real run of Ansible saves into the incident."""

import json
import os
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from hikeshi import runner
from hikeshi.errors import HikeshiError
from hikeshi.incident import audit, saved, store
from hikeshi.runner import Event
from hikeshi.site import load
from tests.unit.commands import Runs
from tests.unit.conftest import Project
from tests.unit.host_program import loaded

ROOT = Path(__file__).parents[2]
AT_JOB = """#!/bin/sh
# atrun uid=0 gid=0
umask 22
LANG=C.UTF-8; export LANG
DB_PASSWORD=only-the-host-knows; export DB_PASSWORD
MESSAGE=one\\ line"
"two\\ lines; export MESSAGE
cd /root || { echo 'Execution directory inaccessible' >&2; exit 1; }
/sbin/reboot
"""


@pytest.fixture
def program() -> ModuleType:
    return loaded(ROOT / "roles/evidence/library/save_evidence.py")


def test_spools_are_read_as_they_are_but_for_the_environment_of_jobs(program: ModuleType, tmp_path: Path) -> None:
    spool = tmp_path / "atjobs"
    (spool / "subdirectory").mkdir(parents=True)
    (spool / "a00001").write_text(AT_JOB)
    (spool / "latin\udce4").write_bytes(b"\xe4 {{ x }} \x1b[2J")
    (tmp_path / "crontab").write_text("30 15 * * * root reboot\n")
    seen = program.save([], [str(spool), str(tmp_path / "crontab"), str(tmp_path / "nothing")])
    assert seen["unseen"] == []
    job = seen["spools"].pop(str(spool / "a00001"))
    assert "only-the-host-knows" not in job
    assert "lines" not in job
    assert "DB_PASSWORD=[hidden]; export DB_PASSWORD\nMESSAGE=[hidden]; export MESSAGE\ncd /root" in job
    assert job.endswith("/sbin/reboot\n")
    assert seen["spools"] == {
        f"{spool}/latin\\xe4": "\\xe4 {{ x }} \x1b[2J",
        str(tmp_path / "crontab"): "30 15 * * * root reboot\n",
    }


def test_a_hostile_spool_neither_leads_elsewhere_nor_keeps_us(program: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/shadow")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "long").write_text("x" * 100_000)
    for number in range(300):
        (tmp_path / f"y{number:03}").touch()
    began = time.monotonic()
    seen = program.save([], [str(tmp_path)])
    assert time.monotonic() - began < 5
    assert len(seen["spools"][str(tmp_path / "long")]) == program.FILE_LIMIT
    assert len(seen["spools"]) == program.FILES_LIMIT - 2
    why = " / ".join(item["why"] for item in seen["unseen"])
    assert "303 files, of which the first 200 were read" in why
    assert "not an ordinary file" in why
    assert "100000 bytes, of which the first 65536 were read" in why
    assert str(tmp_path / "link") not in seen["spools"]


def test_a_host_without_systemd_is_said(program: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program.subprocess, "run", lambda *_, **__: (_ for _ in ()).throw(FileNotFoundError(2, "gone")))
    seen = program.save(["x.service"], [])
    assert seen["units"] == {"x.service": {"state": {}, "log": ""}}
    assert [item["source"].split()[0] for item in seen["unseen"]] == ["systemctl", "journalctl"]


def test_a_real_run_saves_into_the_incident(project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("playbooks", "roles"):
        (project.root / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "ansible.cfg", project.root)
    monkeypatch.setattr(runner, "PROJECT", project.root)
    hosts = {"hosts": {"web1": {"ansible_connection": "local", "ansible_become": False}}}
    project.write("hosts.yml", yaml.safe_dump({"all": {**hosts, "children": {"not_owned": {}}}}))
    (project.folder / "group_vars" / "all").mkdir(parents=True)
    project.write("group_vars/all/secrets.yml", yaml.safe_dump({"secret_mail": "s3cret-mail"}))
    spool = tmp_path / "spool"
    spool.mkdir()
    (spool / "job").write_text("{{ lookup('pipe', 'id') }} --password=s3cret-mail\n")
    # A host that would have us vouch for a file of its choice.
    (spool / "forged").write_text(json.dumps({"blob": "0" * 64}))
    monkeypatch.setattr(saved, "SPOOLS", (str(spool),))
    site = load()
    store.begin(site, "tv", "me", "", datetime(2026, 11, 25, tzinfo=UTC))
    (record,) = saved.save_before(site, ["web1"], ["nosuch.service"], "hold the job")
    assert (record.kind, record.host, record.data["why"]) == ("evidence.saved", "web1", "hold the job")
    kept = (store.folder(site) / "blobs" / record.data["evidence"]["blob"]).read_text()
    assert json.loads(kept)["spools"][str(spool / "job")] == "{{ lookup('pipe', 'id') }} --password=[hidden]\n"
    assert set(json.loads(kept)["units"]) == {"nosuch.service"}
    assert audit.verify(store.folder(site)).whole
    kinds = [item.kind for item in store.journal(site).records()]
    assert kinds[-3:] == ["run.start", "run.end", "evidence.saved"]


def test_what_cannot_be_saved_is_not_stopped(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs()
    monkeypatch.setattr(runner, "run", runs)
    runs.failures["save-evidence.yml"] = [Event("web1", "", "", "unreachable", message="Connection refused")]
    with pytest.raises(HikeshiError, match=r"could not be saved, so it was not begun to stop x: Connection refused"):
        saved.save_before(load(), ["web1"], ["nginx.service"], "stop x")
    for host, unit in (("{{ x }}", "nginx.service"), ("web1", "{{ x }}"), ("all:!web1", "x"), ("web1", "")):
        with pytest.raises(HikeshiError, match="has no proper name"):
            saved.save_before(load(), [host], [unit], "stop x")
