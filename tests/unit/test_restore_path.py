"""file_restore's program: bytes arrive as they are, what stood there comes back whole, nothing goes through a link."""

import base64
import hashlib
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.unit.host_program import loaded

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "roles" / "file_restore" / "library" / "restore_path.py"
# What a template, a string or a text file would take apart.
TEXTS = {
    "braces": b"{{ lookup('pipe', 'id') }} {% raw %}\n",
    "vault": b"$ANSIBLE_VAULT;1.1;AES256\n6162\n",
    "nul": b"a\0b\0",
    "invalid": b"\xff\xfe latin \xe4\n",
    "crlf": b"one\r\ntwo\r\n",
    "no end": b"no newline at the end",
    "spaces": b"\n\n  \n\n",
    "empty": b"",
}
OWN = {"mode": "0640", "owner": str(os.geteuid()), "group": str(os.getegid())}
Restore = Callable[..., tuple[bool, bool]]


@pytest.fixture
def program() -> ModuleType:
    return loaded(SOURCE)


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    """Return a folder of settings, on a path without links."""
    folder = tmp_path.resolve() / "etc"
    folder.mkdir()
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path.resolve() / "store"


@pytest.fixture
def restore(program: ModuleType, store: Path, monkeypatch: pytest.MonkeyPatch) -> Restore:
    """Take a step as the role does: look, keep what stands there as host_base does, put it back."""
    monkeypatch.chdir(store.parent)  # undone at the end: the program goes elsewhere

    def run(step: str, path: Path | str, **args: Any) -> tuple[bool, bool]:
        given = {"step": step, "path": str(path), "kept": str(store / "kept"), "record": str(store / "record"),
                 "trial": "", **args}  # fmt: skip
        different, keep = program.restore(given, True)
        if keep:
            copy = f"{store / 'kept'}{path}"
            Path(copy).parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "--archive", "--backup=numbered", "-T", "--", str(path), copy], check=True)
        if different:
            assert program.restore(given, False) == (True, keep)
        return different, keep

    return run


def file(text: bytes, **more: str) -> dict[str, str]:
    """Return the arguments of the step file."""
    return {"text": base64.b64encode(text).decode(), "sha256": hashlib.sha256(text).hexdigest(), **OWN, **more}


def record(store: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (store / "record").read_text().splitlines()]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def target(path: Path) -> str:
    return str(path.readlink())


def seen(path: Path) -> tuple[Any, ...]:
    """Return everything of a path that must come back."""
    status = path.lstat()
    content = path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None
    return content, status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns


def test_only_what_bears_the_mark_is_undone(restore: Restore, etc: Path) -> None:
    path = etc / "stray"
    path.write_text("one")
    assert restore("move_aside", path, trial="earlier") == (True, True)
    assert restore("put_back", path, trial="later") == (False, False), "an earlier recovery's work stays"
    path.write_text("two")
    assert restore("move_aside", path, trial="later") == (True, True)
    assert restore("put_back", path, trial="later") == (True, False)
    assert path.read_text() == "two"
    assert restore("put_back", path, trial="later") == (False, False)
    assert restore("put_back", path) == (True, True), "without a mark it is the newest"
    assert path.read_text() == "one"


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_bytes_arrive_and_leave_as_they_are(restore: Restore, etc: Path, text: bytes) -> None:
    path = etc / "settings"
    path.write_bytes(text[::-1] + b"\r\0 before")
    os.utime(path, ns=(1_700_000_000_000_000_123, 1_700_000_000_000_000_123))
    before = seen(path)
    assert restore("file", path, **file(text)) == (True, True)
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (text, 0o640)
    assert restore("file", path, **file(text)) == (False, False), "the second time nothing is different"
    assert restore("put_back", path) == (True, True)
    assert seen(path) == before
    assert restore("put_back", path) == (False, False)
    assert names(etc) == ["settings"], "something temporary stayed"


def test_mode_alone_is_put_right_with_the_file(restore: Restore, etc: Path) -> None:
    path = etc / "settings"
    path.write_bytes(b"x")
    path.chmod(0o666)
    assert restore("file", path, **file(b"x", mode="4750")) == (True, True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o4750
    restore("put_back", path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666


def test_what_had_not_existed_is_removed_again(restore: Restore, etc: Path, store: Path) -> None:
    path = etc / "new"
    assert restore("file", path, **file(b"x")) == (True, False)
    (noted,) = record(store)
    assert (noted["path"], noted["step"], noted["copy"]) == (str(path), "file", None)
    path.write_bytes(b"somebody went on with it")
    assert restore("put_back", path) == (True, True)
    assert not path.exists()
    assert Path(f"{store}/kept{path}").read_bytes() == b"somebody went on with it", "undoing lost what stood there"
    assert record(store) == []


def test_link_is_made_again_and_undone(restore: Restore, etc: Path) -> None:
    path = etc / "link"
    path.symlink_to("/dev/null")
    before = seen(path)
    assert restore("link", path, target="{{ 6 * 7 }}/../x") == (True, True)
    assert target(path) == "{{ 6 * 7 }}/../x"
    assert restore("link", path, target="{{ 6 * 7 }}/../x") == (False, False)
    restore("put_back", path)
    assert seen(path) == before


def test_link_to_a_folder_is_replaced_and_not_entered(restore: Restore, etc: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    path = etc / "settings"
    path.symlink_to(elsewhere)
    restore("file", path, **file(b"x"))
    assert (path.is_symlink(), path.read_bytes(), names(elsewhere)) == (False, b"x", [])


def test_stray_file_is_moved_aside_and_comes_back(restore: Restore, etc: Path, store: Path) -> None:
    path = etc / "stray.conf"
    path.write_bytes(b"stray\0")
    path.chmod(0o604)
    before = seen(path)
    assert restore("move_aside", path) == (True, True)
    assert not path.exists()
    assert seen(Path(f"{store}/kept{path}")) == before
    assert restore("move_aside", path) == (False, False)
    restore("put_back", path)
    assert seen(path) == before


def test_fifo_is_kept_as_one_and_nobody_waits_for_it(restore: Restore, etc: Path) -> None:
    path = etc / "settings"
    os.mkfifo(path, 0o600)
    restore("file", path, **file(b""))
    assert path.is_file()
    restore("put_back", path)
    assert path.is_fifo()


def test_steps_are_undone_one_by_one_whatever_others_keep_between(restore: Restore, etc: Path, store: Path) -> None:
    path = etc / "settings"
    path.write_bytes(b"first")
    restore("file", path, **file(b"second"))
    path.write_bytes(b"somebody's")
    kept = f"{store}/kept{path}"
    subprocess.run(["cp", "--archive", "--backup=numbered", "-T", str(path), kept], check=True)
    restore("link", path, target="/dev/null")
    restore("move_aside", path)
    restore("put_back", path)
    assert target(path) == "/dev/null"
    restore("put_back", path)
    assert path.read_bytes() == b"somebody's"
    restore("put_back", path)
    assert path.read_bytes() == b"first"
    assert restore("put_back", path) == (False, False)


def test_other_paths_are_not_undone(restore: Restore, etc: Path, store: Path) -> None:
    for name in ("one", "two"):
        restore("file", etc / name, **file(b"x"))
    restore("put_back", etc / "one")
    assert [entry["path"] for entry in record(store)] == [str(etc / "two")]
    assert names(etc) == ["two"]


@pytest.mark.parametrize("step", ["file", "link", "move_aside", "put_back"])
def test_directory_is_refused(program: ModuleType, restore: Restore, etc: Path, step: str) -> None:
    path = etc / "conf.d"
    if step == "put_back":
        restore("file", path, **file(b"x"))
        path.unlink()
    path.mkdir()
    (path / "mine").write_bytes(b"mine")
    with pytest.raises(program.Refused, match="is a directory"):
        restore(step, path, target="/dev/null", **file(b"x"))
    assert names(path) == ["mine"]


@pytest.mark.parametrize("step", ["file", "link", "move_aside", "put_back"])
def test_link_on_the_way_is_refused(program: ModuleType, restore: Restore, etc: Path, step: str) -> None:
    (etc / "real").mkdir()
    (etc / "real" / "mine").write_bytes(b"mine")
    (etc / "way").symlink_to("real")
    with pytest.raises(program.Refused, match=f"{etc}/way leads to {etc}/real"):
        restore(step, etc / "way" / "mine", target="/dev/null", **file(b"x"))
    assert (etc / "real" / "mine").read_bytes() == b"mine"


@pytest.mark.parametrize(
    "path", ["", "etc/x", "/etc/../x", "/etc//x", "//etc/x", "/etc/x/", "/etc/./x", "/", "/etc/x\ny", "/etc/x\0y"]
)
def test_path_that_cannot_be_meant_is_refused(program: ModuleType, restore: Restore, path: str) -> None:
    with pytest.raises(program.Refused, match="path is"):
        restore("move_aside", path)


def test_missing_folder_and_own_files_are_refused(
    program: ModuleType, restore: Restore, etc: Path, store: Path
) -> None:
    with pytest.raises(program.Refused, match="does not exist: make the directory"):
        restore("file", etc / "none" / "x", **file(b"x"))
    (etc / "plain").write_bytes(b"")
    with pytest.raises(program.Refused, match="is no directory"):
        restore("file", etc / "plain" / "x", **file(b"x"))
    with pytest.raises(program.Refused, match="this program's own"):
        restore("file", store / "record", **file(b"x"))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"mode": "644"}, "four octal digits"),
        ({"mode": "0999"}, "four octal digits"),
        ({"owner": "no-such-one"}, "owner is 'no-such-one'"),
        ({"group": "no-such-one"}, "group is 'no-such-one'"),
        ({"text": "eA="}, "not base64"),
        ({"text": "eQ=="}, "not what was recorded"),
    ],
    ids=str,
)
def test_wrong_input_changes_nothing(
    program: ModuleType, restore: Restore, etc: Path, wrong: dict[str, str], words: str
) -> None:
    with pytest.raises(program.Refused, match=words):
        restore("file", etc / "settings", **{**file(b"x"), **wrong})
    assert names(etc) == []


def test_what_was_not_kept_or_changed_since_is_not_replaced(program: ModuleType, etc: Path, store: Path) -> None:
    path = etc / "settings"
    path.write_bytes(b"mine")
    given = {"step": "move_aside", "path": str(path), "kept": f"{store}/kept", "record": f"{store}/record"}
    with pytest.raises(program.Refused, match="was not kept"):
        program.restore(given, False)
    copy = Path(f"{store}/kept{path}")
    copy.parent.mkdir(parents=True)
    copy.write_bytes(b"mine, yesterday")
    with pytest.raises(program.Refused, match="changed while it was kept"):
        program.restore(given, False)
    assert path.read_bytes() == b"mine"


def test_copy_that_is_gone_is_named(program: ModuleType, restore: Restore, etc: Path, store: Path) -> None:
    path = etc / "settings"
    path.write_bytes(b"mine")
    restore("file", path, **file(b"x"))
    Path(f"{store}/kept{path}").unlink()
    with pytest.raises(program.Refused, match="cannot be put back"):
        restore("put_back", path)
    assert path.read_bytes() == b"x"


def test_run_that_was_killed_is_taken_again(
    program: ModuleType, restore: Restore, etc: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = etc / "settings"
    path.write_bytes(b"mine")
    with monkeypatch.context() as patched:

        def killed(wanted: Any) -> None:
            Path(program.PARTIAL).write_bytes(b"half")
            raise KeyboardInterrupt

        patched.setattr(program, "make", killed)
        with pytest.raises(KeyboardInterrupt):
            restore("file", path, **file(b"x"))
    assert path.read_bytes() == b"mine"
    (etc / program.PARTIAL).write_bytes(b"half")  # as one leaves it that could not tidy up
    restore("file", path, **file(b"x"))
    assert (path.read_bytes(), names(etc)) == (b"x", ["settings"])
    restore("put_back", path)
    restore("put_back", path)
    assert (path.read_bytes(), record(store)) == (b"mine", [])


@pytest.fixture
def package(program: ModuleType, etc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the archive of a package that has a file and a link in `etc`, and take it for installed."""
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    control = "Package: hikeshi-test\nVersion: 1:2~3+4\nArchitecture: all\nMaintainer: x <x@example>\nDescription: x\n"
    (tree / "DEBIAN" / "control").write_text(control)
    inside = Path(f"{tree}{etc}")
    inside.mkdir(parents=True)
    (inside / "settings").write_bytes(b"shipped \xff\0")
    (inside / "settings").chmod(0o751)
    os.utime(inside / "settings", (1_600_000_000, 1_600_000_000))
    (inside / "link").symlink_to("settings")
    archives = tmp_path / "archives"
    archives.mkdir()
    deb = archives / "hikeshi-test_1%3a2~3+4_all.deb"
    subprocess.run(["dpkg-deb", "--build", str(tree), str(deb)], check=True, capture_output=True)
    monkeypatch.setattr(program, "ARCHIVES", str(archives))
    monkeypatch.setattr(program, "installed", lambda package: ["hikeshi-test", "1:2~3+4", "all"])
    monkeypatch.setattr(program, "uid", lambda text: os.geteuid())
    monkeypatch.setattr(program, "gid", lambda text: os.getegid())
    return deb


@pytest.mark.usefixtures("package")
def test_file_comes_from_its_package(restore: Restore, etc: Path) -> None:
    path = etc / "settings"
    path.write_bytes(b"mine")
    before = seen(path)
    assert restore("package_file", path, package="hikeshi-test") == (True, True)
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"shipped \xff\0", 0o751)
    assert path.stat().st_mtime == 1_600_000_000
    assert restore("package_file", path, package="hikeshi-test") == (False, False)
    restore("put_back", path)
    assert seen(path) == before
    assert restore("package_file", etc / "link", package="hikeshi-test") == (True, False)
    assert target(etc / "link") == "settings"


def test_without_the_right_archive_the_command_is_named(
    program: ModuleType, restore: Restore, etc: Path, package: Path
) -> None:
    with pytest.raises(program.Refused, match="has no .*/other"):
        restore("package_file", etc / "other", package="hikeshi-test")
    whole = package.read_bytes()
    package.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(program.Refused, match="damaged|cannot be read"):
        restore("package_file", etc / "settings", package="hikeshi-test")
    package.rename(package.with_name("hikeshi-test_1%3a2~3+3_all.deb"))
    with pytest.raises(program.Refused, match=r"apt-get download hikeshi-test=1:2~3\+4$"):
        restore("package_file", etc / "settings", package="hikeshi-test")
    assert names(etc) == []


@pytest.mark.parametrize("name", ["--help", "a*", "", "no-such-package-here", "A"])
def test_package_that_is_not_installed_is_refused(program: ModuleType, name: str) -> None:
    with pytest.raises(program.Refused, match="package is|is installed 0 times"):
        program.installed(name)


def test_older_archives_name_the_place_that_is_a_link_today(program: ModuleType) -> None:
    assert program.names_in_archive("/etc/x") == {"./etc/x"}
    both = {"./usr/lib/systemd/x", "./lib/systemd/x"} if Path("/lib").is_symlink() else {"./usr/lib/systemd/x"}
    assert program.names_in_archive("/usr/lib/systemd/x") == both


PLAY = """
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: file_restore, tasks_from: repair-disk}
      loop: "{{ steps }}"
      vars: {repair_step: "{{ item.step }}", repair_args: "{{ item.args }}"}
"""


@pytest.mark.parametrize(
    "stood", [False, pytest.param(True, marks=pytest.mark.skipif(os.geteuid() != 0, reason="root"))]
)
def test_role_brings_the_bytes_through_ansible(etc: Path, store: Path, tmp_path: Path, stood: bool) -> None:
    """Without something to keep anybody can try it; host_base keeps as root."""
    texts = {name: TEXTS[name] for name in ("braces", "nul")} if stood else TEXTS
    folder = tmp_path / "texts"
    folder.mkdir()
    steps = []
    for name, text in texts.items():
        digest = hashlib.sha256(text).hexdigest()
        (folder / digest).write_bytes(text)
        steps.append({"step": "file", "args": {"path": str(etc / name), "text": digest, **OWN}})
        if stood:
            (etc / name).write_bytes(b"before " + text)
    steps.append({"step": "link", "args": {"path": str(etc / "link"), "target": {"__ansible_unsafe": "{{ 6 * 7 }}"}}})
    (tmp_path / "play.yml").write_text(PLAY)
    places = {"__host_base_kept": f"{store}/kept", "__file_restore_kept": f"{store}/kept"}
    variables = {
        "steps": steps,
        "file_restore_texts": str(folder),
        **places,
        "__file_restore_record": f"{store}/record",
    }
    words = [str(Path(sys.executable).with_name("ansible-playbook")), "--connection=local", "--inventory=localhost,"]
    words += ["--extra-vars", json.dumps(variables), str(tmp_path / "play.yml")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {name: (etc / name).read_bytes() for name in texts} == texts
    assert target(etc / "link") == "{{ 6 * 7 }}"
    if stood:
        kept = {name: Path(f"{store}/kept{etc}", name).read_bytes() for name in texts}
        assert kept == {name: b"before " + text for name, text in texts.items()}
    assert len(record(store)) == len(steps)
