"""The driver podman without podman: what it is told of a container, and what it makes of that."""

import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hikeshi.copies import podman
from hikeshi.copies.opening import check_database
from hikeshi.copies.podman import Podman
from hikeshi.copies.record import Check, Copy, Disk, Size, Taken
from hikeshi.drill import containers, engine
from hikeshi.errors import HikeshiError, MisconfiguredError
from hikeshi.site import PodmanCopies

NOW = datetime(2026, 11, 27, 9, 0, tzinfo=UTC)
CREATED = [
    "podman", "create", "--name", "shop-web1", "--hostname", "web1", "--network", "net:ip=10.0.0.11", "--volume",
    "shop-web1-images:/mnt/images-disk", "localhost/built:1", "/sbin/init", "--name", "x",
]  # fmt: skip


def copy(**more: Any) -> Copy:
    base = {"id": "web1-20261127t090000000", "host": "web1", "instance": "shop-web1", "driver": "podman"}
    return Copy(**{**base, "state": "making", "begun": NOW, "expires": NOW + timedelta(days=2), **more})


def original(words: list[str], image: str = "localhost/built:1") -> dict[str, Any]:
    return {"Name": "shop-web1", "ImageName": image, "Config": {"CreateCommand": words}}


def test_a_mended_machine_is_created_as_the_original_was() -> None:
    words = podman._as_created(original(CREATED), "shop-web1-mended-1", "localhost/mended:1")
    assert words[:7] == ["create", "--name", "shop-web1-mended-1", *CREATED[4:8]]
    assert words[-4:] == ["localhost/mended:1", "/sbin/init", "--name", "x"]
    assert "--name" not in words[3:-4] and "localhost/built:1" not in words
    assert "hikeshi.copy=" in words, "the image bears a mark by which its containers could be removed"
    again = podman._as_created(original(["podman", *words], "localhost/mended:1"), "other", "localhost/mended:2")
    assert again[1:3] == ["--name", "other"] and again[3:8] == words[3:8]


@pytest.mark.parametrize("words", [[], ["podman", "run", "localhost/built:1"], CREATED[:-4]])
def test_a_machine_of_which_nobody_knows_how_it_was_made_is_not_swapped(words: list[str]) -> None:
    with pytest.raises(HikeshiError, match="does not tell how shop-web1 was created"):
        podman._as_created(original(words), "name", "image")


def test_a_rehearsal_is_in_no_network_and_has_no_disk_of_the_original() -> None:
    words = ["--hostname", "web1", "--cap-add", "SYS_ADMIN", "--network=net:ip=10.0.0.11", "--publish", "1:22",
             "--volume", "a:/b", "-v", "c:/d", "--mount", "type=bind,src=/", "--label", "x=y",
             "--no-hosts", "--systemd=always", "--mac-address=02:00:00:00:00:01", "--stop-timeout", "20"]  # fmt: skip
    kept = ["--hostname", "web1", "--cap-add", "SYS_ADMIN", "--no-hosts", "--systemd=always", "--stop-timeout", "20"]
    assert podman._untied(words) == kept


def test_names_come_from_the_id_and_tell_copy_from_working_copy() -> None:
    disk = Disk(name="shop-web1-images", path="/mnt/images-disk")
    assert Podman.image(copy()) == "localhost/shop-web1-copy:20261127t090000000"
    assert Podman.container(copy(), "work") == "shop-web1-work-20261127t090000000"
    assert Podman.volume(copy(), disk, "work") == "shop-web1-images-work-20261127t090000000"


def test_what_is_mounted_and_no_volume_is_in_no_copy() -> None:
    mounts = [
        {"Type": "volume", "Name": "b", "Destination": "/srv/b"},
        {"Type": "bind", "Source": "/home/aki", "Destination": "/mnt/aki"},
        {"Type": "volume", "Name": "a", "Destination": "/srv/a"},
    ]
    disks, left_out = podman._disks({"Mounts": mounts})
    assert [disk.name for disk in disks] == ["a", "b"] and left_out == ["/mnt/aki (bind of /home/aki)"]


@pytest.mark.parametrize(
    ("created", "good"),
    [("2026-11-27T09:00:03.1Z", True), ("2026-11-27T08:00:00Z", False), ("2027-11-27T08:00:00Z", False), ("x", False)],
)
def test_an_image_of_another_time_is_not_this_copy(created: str, good: bool) -> None:
    assert podman._of_its_time({"Created": created}, copy()).ok is good


def test_sizes_and_ids_are_compared() -> None:
    disk = Disk(name="a", path="/srv/a", held=Size(files=2, bytes=10))
    assert podman._as_large([(disk, Size(files=2, bytes=10))]).ok
    short = podman._as_large([(disk, Size(files=2, bytes=9))])
    assert not short.ok and short.words == "/srv/a: 2 files, 9 bytes; there were 2, 10"
    assert not podman._as_large([(Disk(name="a", path="/srv/a"), Size(files=0, bytes=0))]).ok
    taken = Taken(disk="abc", at=NOW)
    assert podman._same_id({"Id": "abc"}, taken).ok and not podman._same_id({"Id": "abd"}, taken).ok


@pytest.mark.parametrize(
    ("answer", "ok", "words"),
    [
        ((0, "120\t0\t10.11.6\n"), True, "opens, 120 tables"),
        ((0, "a warning of its client\n120\t2\t10.11.6\n"), True, "opens, 120 tables, of which 2 do not"),
        ((3, "InnoDB: ibdata1 is corrupt\n"), False, "does not open: InnoDB: ibdata1 is corrupt"),
        ((0, "\x1b[2J{{ x }} yes"), False, "does not open: \x1b[2J{{ x }} yes"),
        ((0, ""), False, "does not open: its server ended with status 0"),
        ((-9, "y" * 9000), False, f"does not open: {'y' * 500}"),
    ],
)
def test_of_a_hostile_server_only_numbers_are_believed(answer: tuple[int, str], ok: bool, words: str) -> None:
    seen = check_database(lambda copy, script, seconds: answer, copy(), "/var/lib/mysql")
    assert seen == Check(what="database /var/lib/mysql", ok=ok, words=words)


def test_a_server_that_does_not_end_is_no_database_that_opens() -> None:
    def late(copy: Copy, script: str, seconds: int) -> tuple[int, str]:
        assert script.startswith("DATA=/var/lib/mysql\n")
        raise HikeshiError("podman run did not end within 180 s.")

    seen = check_database(late, copy(), "/var/lib/mysql")
    assert not seen.ok and "did not end" in seen.words


def test_without_podman_or_a_bench_it_is_said_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    driver = Podman(PodmanCopies(driver="podman"), "shop")
    with pytest.raises(MisconfiguredError, match="does not name the image of the bench"):
        driver._bench_image()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MisconfiguredError, match="podman is not in PATH"):
        driver.stop(copy(), "shop-web1")


def test_the_guard_acts_when_its_parent_ends(tmp_path: Path) -> None:
    mark = tmp_path / "thawed"
    parent = (
        "import os, subprocess, sys\n"
        f"words = [sys.executable, '-m', 'hikeshi.copies.guard', '60', 'touch', {str(mark)!r}]\n"
        "guard = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)\n"
        "assert guard.stdout.readline() == b'ready\\n'\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True, check=False)
    assert done.returncode == -9, done.stderr
    deadline = time.monotonic() + 20
    while not mark.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert mark.exists()


def test_the_guard_acts_once_when_it_is_told_to(tmp_path: Path) -> None:
    count = tmp_path / "count"
    words = [sys.executable, "-m", "hikeshi.copies.guard", "60", "sh", "-c", f"echo x >> {count}"]
    done = subprocess.run(words, input="\n", capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout, count.read_text()) == (0, "ready\n", "x\n")


def test_what_changes_a_machine_in_service_is_not_cut_in_two() -> None:
    driver = Podman(PodmanCopies(driver="podman"), "shop")
    if shutil.which("podman") is None:
        pytest.skip("no podman here")
    assert driver._words("commit", "x")[0] == "setpriv"
    for verb in ("pause", "unpause", "stop", "start", "rename"):
        assert driver._words(verb, "x") == ["podman", verb, "x"]


def test_drill_down_removes_what_was_copied_and_the_original_of_a_swap(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    names = ["hikeshi-web1", "hikeshi-web1-before-20261127t090000000", "hikeshi-web1-work-20261127t090000000",
             "hikeshi-web10-work-20261127t090000000", "hikeshi-web1-other"]  # fmt: skip

    def tell(*words: str, check: bool = True) -> str:
        told.append(" ".join(words))
        return "\n".join(names) if words[0] == "ps" else "found" if words[1] == "ls" else ""

    monkeypatch.setattr(engine, "podman", tell)
    containers._remove_copies(["hikeshi-web1"])
    removed = [words.rpartition(" ")[2] for words in told if words.startswith("rm ")]
    assert removed == names[1:3]
    assert told[3:] == [
        "network ls --quiet --filter label=hikeshi.instance=hikeshi-web1", "network rm --force found",
        "volume ls --quiet --filter label=hikeshi.instance=hikeshi-web1", "volume rm --force found",
        "image ls --quiet --filter label=hikeshi.instance=hikeshi-web1", "image rm found",
    ]  # fmt: skip
