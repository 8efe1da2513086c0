"""remote_access's host program: what it refuses, what it merges, and that dying leaves nothing half done."""

import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.unit.host_program import loaded

SOURCE = Path(__file__).parents[2] / "roles" / "remote_access" / "files" / "access_guard.py"
ONE = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOneOneOneOne one"
TWO = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAITwoTwoTwoTwo two"


class Killed(BaseException):
    """The machine stopped here; nothing after it runs, no handler either."""


@pytest.fixture
def guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the program, at home in a folder of its own, with a systemd and a sshd that agree to everything."""
    module = loaded(SOURCE)
    (tmp_path / "etc").mkdir()
    (tmp_path / "home/deploy/.ssh").mkdir(parents=True)
    (tmp_path / "home/deploy/.ssh/authorized_keys").write_text(f"{ONE}\n")
    names = ("passwd", "shadow", "group", "gshadow", "subuid", "subgid")
    files = {name: str(tmp_path / "etc" / name) for name in names}
    uid, gid = os.getuid(), os.getgid()
    Path(files["passwd"]).write_text(
        f"root:x:0:0::/root:/bin/bash\ndeploy:x:{uid}:{gid}::{tmp_path}/home/deploy:/bin/bash\n"
    )
    Path(files["shadow"]).write_text("root:*:1:0:99999:7:::\ndeploy:!:1:0:99999:7:::\n")
    for name in names[2:]:
        Path(files[name]).write_text("")
    monkeypatch.setattr(module, "STATE", str(tmp_path / "state" / "access"))
    monkeypatch.setattr(module, "MAIN", str(tmp_path / "etc/sshd_config"))
    monkeypatch.setattr(module, "DROP_INS", str(tmp_path / "etc/sshd_config.d"))
    for name in ("passwd", "shadow", "group", "gshadow"):
        monkeypatch.setattr(module, name.upper(), files[name])
    monkeypatch.setattr(module, "ACCOUNT_FILES", tuple(files.values()))
    monkeypatch.setattr(module, "ACCOUNT_LOCK", str(tmp_path / "etc/.pwd.lock"))
    # The lock ends with its process; here all are one.
    (tmp_path / "state/access").mkdir(parents=True)
    monkeypatch.setattr(module, "locked", lambda: os.open(os.devnull, os.O_RDONLY))
    monkeypatch.setattr(module, "run", lambda *words, text="": (0, ""))
    monkeypatch.setattr(module, "problems", lambda wanted, changes: [])
    monkeypatch.setattr(module.os, "fchown", lambda *rest: None)
    monkeypatch.setattr(module.os, "chown", lambda *rest: None)
    return module


def tree(folder: Path) -> dict[str, Any]:
    paths = [path for top in ("etc", "home") for path in (folder / top).rglob("*") if path.is_file()]
    return {str(path): (path.read_text(), path.stat().st_mode) for path in paths if path.name != ".pwd.lock"}


def wanted(folder: Path, **more: Any) -> dict[str, Any]:
    one = {"path": f"{folder}/etc/sudoers", "mode": "0440", "text": "deploy ALL=(ALL) ALL\n"}
    return {
        "seconds": 30,
        "deploy": "deploy",
        "accounts": [{"name": "deploy", "state": "closed"}],
        "keys": [{"user": "deploy", "add": [TWO], "remove": [ONE]}],
        "files": [one, {"path": f"{folder}/etc/motd", "absent": True}],
        **more,
    }


def test_killed_at_any_step_the_change_is_undone_whole(
    guard: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "etc/motd").write_text("hello\n")
    before = tree(tmp_path)
    real = {name: getattr(os, name) for name in ("replace", "rename", "unlink", "mkdir")}
    steps, budget = 0, 0

    def counted(name: str) -> Any:
        def step(*words: Any, **more: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps > budget:
                raise Killed
            return real[name](*words, **more)

        return step

    for name in real:
        monkeypatch.setattr(guard.os, name, counted(name))
    deaths = 0
    while True:
        steps = 0
        try:
            done = guard.apply(wanted(tmp_path))
            break
        except Killed:
            deaths += 1
        # What the timer, or the unit at boot, does: killed as well, once, at each of its steps in turn.
        whole, budget, steps = budget, deaths % 7, 0
        try:
            guard.undo()
        except Killed:
            budget, steps = 10**6, 0
            guard.undo()
        assert tree(tmp_path) == before, f"killed at step {whole + 1}"
        assert guard.pending() is None
        budget = whole + 1
    assert deaths > 8 and done["changed"]
    assert tree(tmp_path) != before
    budget = 10**6
    assert guard.undo(done["token"])["changed"]
    assert tree(tmp_path) == before


def test_committed_change_stays_and_is_not_made_again(guard: ModuleType, tmp_path: Path) -> None:
    done = guard.apply(wanted(tmp_path))
    guard.commit(done["token"])
    after = tree(tmp_path)
    assert guard.undo() == {"changed": False}
    assert guard.apply(wanted(tmp_path)) == {"changed": False, "what": []}
    assert tree(tmp_path) == after
    assert "deploy:!:1:0:99999:7::1:" in (tmp_path / "etc/shadow").read_text()
    assert "root:*:1:0:99999:7:::" in (tmp_path / "etc/shadow").read_text()


def test_check_changes_nothing(guard: ModuleType, tmp_path: Path) -> None:
    before = tree(tmp_path)
    assert guard.apply(wanted(tmp_path), check=True)["changed"]
    assert tree(tmp_path) == before
    assert guard.pending() is None


def test_only_one_change_is_pending_and_only_its_token_commits(guard: ModuleType, tmp_path: Path) -> None:
    done = guard.apply(wanted(tmp_path))
    with pytest.raises(guard.RefusedError, match="another change of the way in is pending"):
        guard.apply(wanted(tmp_path))
    with pytest.raises(guard.RefusedError, match="no change 00 is pending"):
        guard.commit("00")
    assert guard.undo("00") == {"changed": False}, "the timer of an earlier change undid a later one"
    assert guard.undo(done["token"])["changed"]
    with pytest.raises(guard.RefusedError, match="undone or committed before"):
        guard.commit(done["token"])


def test_at_boot_only_what_an_earlier_boot_left_is_undone(
    guard: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard.apply(wanted(tmp_path))
    assert guard.undo(at_boot=True) == {"changed": False}
    monkeypatch.setattr(guard, "this_boot", lambda: "another")
    assert guard.undo(at_boot=True)["changed"]


def test_without_a_timer_nothing_is_changed(guard: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tree(tmp_path)
    monkeypatch.setattr(guard, "run", lambda *words, text="": (1, "no systemd here"))
    with pytest.raises(guard.RefusedError, match="cannot be armed, so nothing is changed.*no systemd here"):
        guard.apply(wanted(tmp_path))
    assert tree(tmp_path) == before


def test_account_changed_by_others_meanwhile_keeps_their_change(guard: ModuleType, tmp_path: Path) -> None:
    done = guard.apply(wanted(tmp_path))
    with (tmp_path / "etc/shadow").open("a") as shadow:
        shadow.write("clerk:*:1:0:99999:7:::\n")
    guard.undo(done["token"])
    lines = (tmp_path / "etc/shadow").read_text().splitlines()
    assert lines == ["root:*:1:0:99999:7:::", "deploy:!:1:0:99999:7:::", "clerk:*:1:0:99999:7:::"]


@pytest.mark.parametrize(
    ("text", "item", "after"),
    [
        ("", {"add": [ONE]}, f"{ONE}\n"),
        (f"# note\n{TWO}\n", {"add": [ONE]}, f"# note\n{TWO}\n{ONE}\n"),
        (f'command="x" {ONE}\n', {"add": [ONE]}, f"{ONE}\n"),
        (f"{ONE}\n{TWO}", {"remove": [f"{ONE} of another name"]}, f"{TWO}\n"),
        (f"# {ONE}\n", {"remove": [ONE]}, f"# {ONE}\n"),
        (f"{ONE}\n", {"exactly": []}, ""),
        (f"{ONE}\r\n", {}, f"{ONE}\n"),
    ],
)
def test_keys_are_known_by_the_key_alone(text: str, item: dict[str, Any], after: str) -> None:
    assert loaded(SOURCE).merged_keys(text, item) == after


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["allowusers root deploy"], ""),
        (["allowusers nobody"], "AllowUsers is 'nobody' and leaves deploy out"),
        (["allowusers nobody", "allowusers dep*"], ""),
        (["allowusers deploy@192.0.2.0/24"], ""),
        (["allowusers deploy@198.51.100.7"], "leaves deploy out"),
        (["allowusers deploy@*.example"], ""),
        (["allowusers * !deploy"], "leaves deploy out"),
        (["denyusers deploy"], "DenyUsers is 'deploy' and names deploy"),
        (["denyusers deploy@198.51.100.0/24"], ""),
        (["allowgroups sudo"], "AllowGroups is 'sudo' and leaves deploy out"),
        (["allowgroups staff sudo"], ""),
        (["denygroups staff"], "DenyGroups is 'staff' and names deploy"),
        (["pubkeyauthentication no"], "PubkeyAuthentication is 'no'"),
        (["authenticationmethods publickey,password"], "a key alone is not enough"),
        (["authenticationmethods publickey,password publickey"], ""),
        (["authenticationmethods any"], ""),
    ],
)
def test_lock_out_is_read_as_sshd_reads_it(lines: list[str], words: str) -> None:
    groups = ["staff"] if any("staff" in line for line in lines) else ["deploy"]
    found = "; ".join(loaded(SOURCE).locked_out("deploy", "192.0.2.9", lines, groups, 1))
    assert words in found if words else not found, found


@pytest.mark.parametrize(
    ("connected", "asked"), [(("deploy", "192.0.2.9", "192.0.2.1", "2022"), "2022"), (("", "", "", ""), "2222")]
)
def test_sshd_is_asked_about_the_port_where_it_listens(
    monkeypatch: pytest.MonkeyPatch, connected: tuple[str, ...], asked: str
) -> None:
    """From a console no login tells the port; what stands below `Match LocalPort` may shut everybody out."""
    guard, said = loaded(SOURCE), []

    def run(*words: str, text: str = "") -> tuple[int, str]:
        said.append(words)
        return 0, "addressfamily any\nport 2222\nport 22\n"

    monkeypatch.setattr(guard, "run", run)
    monkeypatch.setattr(guard, "connection", lambda: connected)
    monkeypatch.setattr(guard, "staged_tree", lambda folder, changes: "/staged")
    monkeypatch.setattr(guard, "refused_by_sshd", lambda main, folder: "")
    monkeypatch.setattr(guard, "groups_of", lambda name: [])
    monkeypatch.setattr(guard, "count_keys", lambda *rest: 1)
    assert guard.problems({"deploy": "deploy"}, []) == []
    (spec,) = {words[-1] for words in said if "-C" in words}
    assert spec.endswith(f",lport={asked}")


def test_no_key_is_a_lock_out_unless_somebody_else_knows_keys() -> None:
    guard = loaded(SOURCE)
    assert guard.locked_out("deploy", "", [], [], 0) == ["deploy would have no authorized key"]
    assert guard.locked_out("deploy", "", ["authorizedkeyscommand /usr/bin/ask"], [], 0) == []
    assert guard.locked_out("root", "", ["permitrootlogin no"], [], None)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("auth required pam_permit.so # why", ""),
        ("-auth optional pam_gone.so", ""),
        ("auth [success=1 default=ignore] pam_permit.so nullok", ""),
        ("@include here", ""),
        ("@include gone", "/etc/pam.d/gone is missing"),
        ("auth substack gone", "/etc/pam.d/gone is missing"),
        ("auth required pam_gone.so", "module pam_gone.so is not installed"),
        ("auth requierd pam_permit.so", "'requierd' is no control"),
        ("atuh required pam_permit.so", "is no rule"),
        ("auth required \\\n pam_permit.so", ""),
    ],
)
def test_pam_file_is_read_as_pam_reads_it(line: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    guard = loaded(SOURCE)
    monkeypatch.setattr(guard, "pam_module_exists", lambda name: name == "pam_permit.so")
    monkeypatch.setattr(guard.os.path, "exists", lambda path: path == "/etc/pam.d/here")
    found = "; ".join(guard.pam_problems("/etc/pam.d/sshd", f"{line}\n"))
    assert words in found if words else not found, found


def test_words_are_refused_with_the_allowed_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert loaded(SOURCE).main(["aply"]) == 2
    assert "usage: hikeshi-access apply" in capsys.readouterr().err


def test_status_of_a_host_without_a_change(guard: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert guard.main(["status"]) == 0
    assert json.loads(capsys.readouterr().out) == {}


LINES = "account required pam_gone.so\n\taccount required pam_unix.so # kept\n  account required pam_gone.so  \n"


def mending(path: Path, line: str, to: str = "", **more: Any) -> dict[str, Any]:
    return {"deploy": "deploy", "mends": True, "lines": [{"path": str(path), "line": line, "to": to}], **more}


@pytest.fixture
def off(guard: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the program on a disk whose system does not run."""
    monkeypatch.setattr(guard, "RUNNING", str(tmp_path / "run/systemd/system"))
    monkeypatch.setattr(guard, "this_boot", lambda: "rescue")
    return guard


def test_line_of_a_disk_goes_or_becomes_another_once(off: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "etc/common-account"
    file.write_text(LINES)
    file.chmod(0o640)
    line = "account required pam_gone.so"
    assert off.mend_disk(mending(file, line), check=True) == {"changed": True, "what": [str(file)]}
    assert file.read_text() == LINES
    assert off.mend_disk(mending(file, line, "account required pam_permit.so"))["changed"]
    assert file.read_text() == LINES.replace("pam_gone", "pam_permit")
    assert off.mend_disk(mending(file, "account required pam_permit.so"))["changed"]
    assert file.read_text() == "\taccount required pam_unix.so # kept\n"
    assert file.stat().st_mode & 0o7777 == 0o640
    assert off.mend_disk(mending(file, line)) == {"changed": False, "what": []}
    assert off.mend_disk(mending(tmp_path / "etc/none", line)) == {"changed": False, "what": []}
    assert off.pending() is None


def test_nothing_is_written_through_a_link_of_a_disk(off: ModuleType, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text(LINES)
    (tmp_path / "etc/hosts.deny").symlink_to(outside)
    with pytest.raises(off.RefusedError, match="is a link"):
        off.mend_disk(mending(tmp_path / "etc/hosts.deny", "account required pam_gone.so"))
    assert outside.read_text() == LINES


def test_running_system_is_not_taken_for_a_disk(off: ModuleType, tmp_path: Path) -> None:
    Path(off.RUNNING).mkdir(parents=True)
    with pytest.raises(off.RefusedError, match="systemd runs here"):
        off.mend_disk(mending(tmp_path / "etc/motd", "x"))


@pytest.mark.parametrize("fields", ["!:0:0:99999:7:::", "!:1:0:30:7:::", "!:20000:0:99999:7::1:"])
def test_account_is_opened_on_a_disk_and_keeps_its_password(off: ModuleType, tmp_path: Path, fields: str) -> None:
    shadow = tmp_path / "etc/shadow"
    shadow.write_text(f"root:*:1:0:99999:7:::\ndeploy:{fields}\n")
    wanted = {"deploy": "deploy", "mends": True, "accounts": [{"name": "deploy", "state": "open"}]}
    assert off.mend_disk(wanted) == {"changed": True, "what": ["deploy"]}
    changed, most, expires = (shadow.read_text().splitlines()[1].split(":")[at] for at in (2, 4, 7))
    assert shadow.read_text().startswith("root:*:1:0:99999:7:::\ndeploy:!:")
    assert int(changed) + int(most) >= off.time.time() // 86400 and expires == ""
    assert off.mend_disk(wanted) == {"changed": False, "what": []}


def test_killed_at_any_step_a_disk_is_mended_by_the_next_call(
    off: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, shadow = tmp_path / "etc/common-account", tmp_path / "etc/shadow"
    wanted = mending(file, "account required pam_gone.so", accounts=[{"name": "deploy", "state": "open"}])
    closed = "root:*:1:0:99999:7:::\ndeploy:!:0:0:99999:7::1:\n"
    real = {name: getattr(os, name) for name in ("replace", "rename", "unlink", "mkdir")}
    steps, budget, deaths = 0, 0, 0

    def counted(name: str) -> Any:
        def step(*words: Any, **more: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps > budget:
                raise Killed
            return real[name](*words, **more)

        return step

    for name in real:
        monkeypatch.setattr(off.os, name, counted(name))
    while True:
        budget = 10**6
        file.write_text(LINES)
        shadow.write_text(closed)
        steps, budget = 0, deaths
        try:
            off.mend_disk(wanted)
            break
        except Killed:
            deaths += 1
        budget = 10**6
        off.mend_disk(wanted)
        assert "pam_gone" not in file.read_text() and "::1:" not in shadow.read_text(), f"killed at step {deaths}"
        assert off.pending() is None
    assert deaths > 5


def test_what_was_wrong_before_keeps_nobody_from_mending_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard = loaded(SOURCE)
    monkeypatch.setattr(guard, "SSH", str(tmp_path))
    monkeypatch.setattr(guard, "run", lambda *words, text="": (1, ""))
    monkeypatch.setattr(guard, "MAIN", str(tmp_path / "sshd_config"))
    monkeypatch.setattr(guard, "DROP_INS", str(tmp_path / "sshd_config.d"))
    monkeypatch.setattr(guard, "refused_by_sshd", lambda main, _: "no" if "B" in Path(main).read_text() else "")
    changes = [(f"{tmp_path}/sshd_config", {"kind": "file", "text": "B 2\n"}, None)]
    for before, told in (("B 1\nB 2\n", []), ("fine\n", ["no"])):
        (tmp_path / "sshd_config").write_text(before)
        assert guard.problems({"deploy": "deploy", "mends": True}, changes) == told
    monkeypatch.setattr(guard, "read", lambda path: "x\naccount required /gone/1.so\naccount required /gone/2.so\n")
    left = [("/etc/pam.d/sshd", {"kind": "file", "text": "account required /gone/2.so\n"}, None)]
    assert guard.problems({"deploy": "deploy", "mends": True}, left) == []
    assert "/gone/2.so" in guard.problems({"deploy": "deploy"}, left)[0]
