"""Small disks of the practice site: a file system in a file; where that cannot be, an ordinary volume and a word."""

from pathlib import Path

import pytest

from hikeshi.drill import containers, engine, faults, practice
from hikeshi.errors import HikeshiError, MisconfiguredError

NAME = "hikeshi-web1-nginx-log"


@pytest.fixture
def podman(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what podman is told, which does nothing; mkfs.ext4 does nothing, either."""
    told: list[str] = []

    def tell(*words: str, check: bool = True, text_input: bytes | None = None) -> str:
        told.append(" ".join(words))
        return ""

    monkeypatch.setattr(engine, "podman", tell)
    monkeypatch.setattr(containers, "practice_folder", lambda: tmp_path)
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "mkfs.ext4").write_text("#!/bin/sh\n")
    (tools / "mkfs.ext4").chmod(0o700)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    return told


def test_small_disk_is_a_file_system_in_a_sparse_file(podman: list[str], tmp_path: Path) -> None:
    assert containers._make_small_disk(NAME, 96) == ""
    file = tmp_path / "drill" / "disks" / f"{NAME}.img"
    assert (file.stat().st_size, file.stat().st_blocks) == (96 << 20, 0)
    assert podman == [
        f"volume create --label hikeshi=practice --opt type=ext4 --opt device={file} --opt o=loop {NAME}",
        f"volume mount {NAME}",
        f"volume unmount {NAME}",
    ]


def test_machine_without_loop_devices_gets_an_ordinary_volume_and_says_why(
    podman: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*words: str, check: bool = True, text_input: bytes | None = None) -> str:
        podman.append(" ".join(words))
        if words[:2] == ("volume", "mount"):
            raise HikeshiError("podman volume failed: no loop device")
        return ""

    monkeypatch.setattr(engine, "podman", refuse)
    assert containers._make_small_disk(NAME, 96) == "podman volume failed: no loop device"
    assert podman[-2:] == [f"volume rm --force {NAME}", f"volume create --label hikeshi=practice {NAME}"]
    assert not (tmp_path / "drill" / "disks" / f"{NAME}.img").exists()


def test_machine_without_mkfs_says_so(podman: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "mkfs.ext4" in containers._make_small_disk(NAME, 96)
    assert podman[-1] == f"volume create --label hikeshi=practice {NAME}"


def test_small_disks_are_disks_that_a_site_leaves_nothing_of(
    podman: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def list_volumes(*words: str, check: bool = True) -> str:
        podman.append(" ".join(words))
        return f"{NAME}\nother-volume" if words[:2] == ("volume", "ls") else ""

    monkeypatch.setattr(engine, "podman", list_volumes)
    containers.remove("hikeshi")
    assert f"volume rm --force {NAME}" in podman
    assert containers.cloud().instances["web1"].disks["nginx-log"] == "/var/log/nginx"


def test_fault_that_fills_a_disk_is_refused_where_there_is_no_small_one(monkeypatch: pytest.MonkeyPatch) -> None:
    state = containers.State("x", "12", "d", complete=True, no_small_disks="no loop device")
    monkeypatch.setattr(practice, "standing_state", lambda: state)
    monkeypatch.setattr(practice, "load", lambda name: None)
    with pytest.raises(MisconfiguredError, match="disk-full needs a small disk.*no loop device"):
        practice.break_site(["images-unreadable", "disk-full"], 1, "")


def test_faults_that_fill_name_a_small_disk_and_are_made_after_the_reboot() -> None:
    hosts = containers.cloud().instances
    for name, data in faults.catalogue().items():
        filled = {Path(item["fill"]).parent for variant in data.variants for item in variant if "fill" in item}
        small = {Path(disk.path) for disk in hosts[data.host].small_disks.values()}
        assert filled <= small, f"{name} fills {filled}; containers.yml gives {data.host} the small disks {small}"
        assert bool(filled) is data.small_disk, f"{name}: small_disk says whether it fills one"
