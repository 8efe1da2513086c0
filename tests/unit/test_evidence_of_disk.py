"""Evidence of a disk whose system does not run: what its files tell, and nothing that lies outside of it."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from hikeshi.triage import findings, shape
from tests.unit.host_program import loaded

ROLE = Path(__file__).parents[2] / "roles" / "evidence"
COLLECT = loaded(ROLE / "library" / "collect_evidence.py")
STATE = loaded(ROLE / "module_utils" / "hikeshi_state.py")
DISK = loaded(ROLE / "module_utils" / "hikeshi_disk.py")
KEY = "ab" * 16
SUBJECT: dict[str, Any] = {
    "role": "web_server",
    "units": [
        {"name": "nginx.service", "enabled": True},
        {"name": "srv-images.mount", "enabled": True, "restore_step": "mount_unit"},
    ],
    "paths": [
        {"path": "/etc/nginx", "mode": "0755"},
        {"path": "/srv/link", "link": "/srv/images", "restore_step": "link"},
        {"path": "/run/app.sock", "runtime": "nginx.service"},
    ],
    "mounts": [{"path": "/srv/images", "unit": "srv-images.mount"}],
    "trees": [
        {"path": "/srv/images", "directories": "0755", "files": "0644"},
        {"path": "/var/www", "directories": "0755", "files": "0644"},
    ],
    "locks": [{"path": "/var/lib/job/lock", "unit": "job.service"}],
}
UNIT = "[Install]\nWantedBy=multi-user.target\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A healthy disk."""
    for name in ("etc/nginx", "srv/images", "var/www/a", "var/lib/job", "usr/lib/systemd/system",
                 "etc/systemd/system/multi-user.target.wants"):  # fmt: skip
        (tmp_path / name).mkdir(parents=True, mode=0o755)
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    for unit in ("usr/lib/systemd/system/nginx.service", "etc/systemd/system/srv-images.mount"):
        (tmp_path / unit).write_text(UNIT)
        name = unit.rpartition("/")[2]
        (tmp_path / "etc/systemd/system/multi-user.target.wants" / name).symlink_to(f"/{unit}")
    (tmp_path / "srv/link").symlink_to("/srv/images")
    (tmp_path / "var/www/a/page").write_text("x")
    return tmp_path


def look(root: Path) -> dict[str, Any]:
    """Return what the collector tells of a disk, as the controller gets it."""
    collector = COLLECT.Collector()
    collector.unseen.clear()
    facts = STATE.collect(collector, KEY, root=str(root))["facts"]
    with STATE.State(collector, KEY, (), (), False, [SUBJECT], str(root)) as state:
        told = DISK.collect(state, STATE, [SUBJECT], facts)
    seen: dict[str, Any] = json.loads(json.dumps(told))
    seen |= {"schema": 1, "host": "web1", "at": 0.0, "subjects": [SUBJECT], "unseen": collector.unseen}
    shape.check("web1", seen)
    return seen


def found(root: Path) -> dict[str, list[str]]:
    judged = findings.judge_disk({"web1": {"way_in": None, **look(root)}})
    return {item.subject: [step.words for step in item.remedy] for item in judged}


@pytest.fixture(autouse=True)
def rules_of_disks_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the rules of the way in: they have tests of their own."""
    every = findings.all_rules(disk=True)
    names = ("path_wrong", "unit_down", "config_broken", "lock_stale")
    kept = [rule for rule in every if rule.__module__.rpartition(".")[2] in names]
    assert len(kept) == len(names)
    monkeypatch.setattr(findings, "all_rules", lambda **_: kept)


def test_a_healthy_disk_is_healthy_though_nothing_runs(root: Path) -> None:
    assert found(root) == {}
    seen = look(root)
    assert seen["units"]["nginx.service"]["enabled"] == "enabled" and seen["units"]["nginx.service"]["active"] == ""
    assert "/run/app.sock" not in seen["paths"] and "/srv/images" not in seen["trees"]
    assert seen["paths"]["/srv/link"]["leads_to"] == "directory"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root sees what others hide")
def test_what_is_wrong_on_disk_has_steps_for_a_disk(root: Path) -> None:
    (root / "etc/nginx").chmod(0o700)
    (root / "var/www/a").chmod(0o700)
    (root / "etc/systemd/system/srv-images.mount").unlink()
    (root / "etc/systemd/system/srv-images.mount").symlink_to("/dev/null")
    (root / "etc/systemd/system/multi-user.target.wants/nginx.service").unlink()
    (root / "srv/link").unlink()
    (root / "srv/link").symlink_to("/srv/gone")
    (root / "var/lib/job/lock").write_text("4711\n")
    os.utime(root / "var/lib/job/lock", (0, 0))
    enable = "host_base: unit_enable unit="
    assert found(root) == {
        "path:/etc/nginx": ["host_base: path_mode path=/etc/nginx mode=0755"],
        "path:/var/www/a": ["host_base: path_mode path=/var/www/a mode=0755"],
        "path:/srv/link": ["web_server: link"],
        "unit:srv-images.mount": ["web_server: mount_unit", f"{enable}srv-images.mount"],
        "unit:nginx.service": [f"{enable}nginx.service"],
        "lock:/var/lib/job/lock": ["web_server: stale_lock path=/var/lib/job/lock"],
    }


def test_what_a_boot_makes_is_not_missing(root: Path) -> None:
    for place in ("etc/systemd/system/srv-images.mount", "usr/lib/systemd/system/nginx.service"):
        (root / place).unlink()
        (root / "etc/systemd/system/multi-user.target.wants" / place.rpartition("/")[2]).unlink()
    (root / "etc/fstab").write_text("# old\n\nLABEL=images /srv/images ext4 defaults 0 2\n")
    (root / "etc/init.d").mkdir()
    (root / "etc/init.d/nginx").write_text("#!/bin/sh\n")
    assert found(root) == {}
    (root / "etc/fstab").write_text("LABEL=images /srv/other ext4 defaults 0 2\n")
    assert set(found(root)) == {"unit:srv-images.mount"}


@pytest.mark.parametrize(
    ("path", "name"), [("/srv/images", "srv-images"), ("/mnt/images-disk", r"mnt-images\x2ddisk"), ("/", "-"),
                       ("/a//b c/é", r"a-b\x20c-\xc3\xa9")],
)  # fmt: skip
def test_a_mount_is_called_as_systemd_calls_it(path: str, name: str) -> None:
    assert DISK.escaped(path) == name


def test_links_lead_within_the_disk_alone(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "nginx").mkdir()
    (outside / "page").write_text("the controller's")
    (root / "etc/nginx").rmdir()
    (root / "etc/nginx").symlink_to(f"../../../../../../..{outside}/nginx")
    (root / "srv/link").unlink()
    (root / "srv/link").symlink_to(f"{outside}/nginx")
    (root / "var/www/out").symlink_to(outside)
    (root / "var/lib/job").rmdir()
    (root / "var/lib/job").symlink_to("/proc/self/root/etc")
    seen = look(root)
    assert seen["paths"]["/etc/nginx"]["leads_to"] == seen["paths"]["/srv/link"]["leads_to"] == "missing"
    assert seen["trees"]["/var/www"]["seen"] == 3 and not seen["locks"]["/var/lib/job/lock"]["present"]
    (root / "etc/nginx").unlink()
    (root / "etc/nginx").symlink_to("nginx")
    assert look(root)["paths"]["/etc/nginx"]["leads_to"] in ("missing", "unreadable")


def test_a_pipe_or_a_device_is_waited_for_by_nobody(root: Path) -> None:
    os.mkfifo(root / "var/lib/job/lock")
    os.mkfifo(root / "var/www/pipe")
    assert look(root)["locks"]["/var/lib/job/lock"]["pid"] is None
