"""The whole state of a host: what is told of files that lie in wait, of accounts, units and what programs print."""

import base64
import hashlib
import hmac
import json
import os
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.host_program import loaded

ROLE = Path(__file__).parents[2] / "roles" / "evidence"
COLLECT = loaded(ROLE / "library" / "collect_evidence.py")
STATE = loaded(ROLE / "module_utils" / "hikeshi_state.py")
EXAMPLES = 1000 if os.environ.get("HIKESHI_TEST_ALL") else 100
KEY = "5eed" * 16
TEMPLATE = "{{ 'x' | upper }}"
not_root = pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return the root of a mounted disk, in which there is /etc."""
    (tmp_path / "disk" / "etc").mkdir(parents=True)
    return tmp_path / "disk"


def look(root: Path, **more: Any) -> tuple[dict[str, Any], dict[str, str], list[dict[str, str]]]:
    """Return facts, texts and what was not seen; whatever lies there must fit into JSON, and be the same again."""
    collector = COLLECT.Collector()
    collector.unseen.clear()
    told = STATE.collect(collector, KEY, root=str(root), **more)
    assert list(told["facts"]) == sorted(told["facts"])
    assert json.loads(json.dumps(told).encode()) == told
    assert STATE.collect(COLLECT.Collector(), KEY, root=str(root), **more) == told
    return told["facts"], told["texts"], collector.unseen


def write(root: Path, path: str, content: str | bytes = "", mode: int = 0o644) -> Path:
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    file.chmod(mode)
    return file


def keyed(content: bytes) -> str:
    return hmac.new(bytes.fromhex(KEY), content, "sha256").hexdigest()


def files(facts: dict[str, Any]) -> set[str]:
    return {name for name in facts if name.startswith("file:")}


def test_files_are_told_as_they_are(root: Path) -> None:
    file = write(root, "/etc/shop/a.conf", "a = 1\n", 0o640)
    os.utime(file, (1000.9, 1000.9))
    (root / "etc" / "shop" / "link").symlink_to("../none")
    write(root, "/srv/shop/page.html", "<p>")
    write(root, "/srv/other/page.html", "<p>")
    facts, _, unseen = look(root, roots=["/srv/shop"])
    told = facts["file:/etc/shop/a.conf"]
    assert (told["kind"], told["mode"], told["size"], told["changed"]) == ("file", "0640", 6, 1000)
    assert (told["digest"], told["secret"]) == (keyed(b"a = 1\n"), True)
    assert (told["owner"], told["group"]) == (str(os.getuid()), str(os.getgid())), "no account of this machine's"
    assert facts["file:/etc/shop/link"]["link"] == "../none"
    assert facts["file:/etc/shop"]["kind"] == "directory"
    assert facts["file:/srv/shop/page.html"]["secret"] is False
    assert not {"file:/srv/other/page.html", "file:/srv/other", "file:/srv"} & set(facts)
    assert unseen == []


def test_owners_are_those_of_the_disk(root: Path) -> None:
    write(root, "/etc/passwd", f"aki:x:{os.getuid()}:1::/:/bin/sh\nbo:x:{os.getuid()}:1::/:/bin/sh\n")
    write(root, "/etc/group", f"crew:x:{os.getgid()}:\n")
    facts, _, _ = look(root)
    assert (facts["file:/etc"]["owner"], facts["file:/etc"]["group"]) == ("aki", "crew")


def test_what_changes_by_itself_is_left_out(root: Path) -> None:
    for path in ("ld.so.cache", ".pwd.lock", "passwd-", "shadow-", "mtab", "adjtime", "a/__pycache__/b", "a/b.pyc"):
        write(root, f"/etc/{path}")
    for path in ("ssl/certs/ca.pem", "ld.so.cache.d/a", "passwd-a", "a/ld.so.cache"):
        write(root, f"/etc/{path}")
    facts, _, _ = look(root)
    wanted = ["", "/a", "/a/ld.so.cache", "/ld.so.cache.d", "/ld.so.cache.d/a", "/passwd-a", "/ssl", "/ssl/certs"]
    assert files(facts) == {f"file:/etc{path}" for path in wanted}


def test_tables_of_people_are_told_by_their_people_alone(root: Path) -> None:
    write(root, "/etc/passwd", "aki:x:1000:1000::/home/aki:/bin/bash\n")
    facts, texts, _ = look(root, texts=True)
    assert facts["file:/etc/passwd"].keys() == {"kind", "mode", "owner", "group", "changed", "secret"}
    assert texts == {}


def test_odd_files_neither_hang_nor_fill_anything(root: Path) -> None:
    os.mkfifo(root / "etc" / "pipe", 0o644)
    os.mkfifo(root / "etc" / "resolv.conf", 0o644)
    with (root / "etc" / "huge").open("wb") as sparse:
        sparse.truncate(1 << 40)
    (root / "etc" / "loop").symlink_to("loop")
    (root / "etc" / "pam.d").symlink_to("../etc/pam.d")
    write(root, "/etc/line", b"x" * 10_000_000)
    write(root, "/etc/large", b"x" * 8_000_000)
    before = time.monotonic()
    facts, texts, unseen = look(root, texts=True)
    assert time.monotonic() - before < 10
    assert (facts["file:/etc/pipe"]["kind"], facts["file:/etc/huge"]["size"]) == ("other", 1 << 40)
    assert "digest" not in facts["file:/etc/huge"] | facts["file:/etc/line"] | facts["file:/etc/pipe"]
    assert facts["file:/etc/large"]["digest"] == keyed(b"x" * 8_000_000)
    assert (texts, facts["file:/etc/loop"]["link"]) == ({}, "loop")
    assert {item["source"] for item in unseen} == {"/etc/resolv.conf", "/etc/pam.d"}


def test_names_are_text_for_every_reader(root: Path) -> None:
    for name in (TEMPLATE, "two\nlines", "\x1b[31mred", "火消し"):
        write(root, f"/etc/{name}", name)
    Path(os.fsdecode(os.fsencode(root) + b"/etc/latin\xe4")).write_text("x")
    facts, texts, _ = look(root, texts=True)
    wanted = {f"/etc/{name}" for name in (TEMPLATE, "two\nlines", "\x1b[31mred", "火消し", "latin\\xe4")}
    assert set(texts) == wanted
    assert files(facts) == {f"file:{name}" for name in wanted} | {"file:/etc"}


def test_name_that_looks_like_another_hides_nothing_unsaid(root: Path) -> None:
    Path(os.fsdecode(os.fsencode(root) + b"/etc/latin\xe4")).write_text("x")
    write(root, "/etc/latin\\xe4", "xyz")
    facts, _, unseen = look(root)
    assert facts["file:/etc/latin\\xe4"]["size"] == 3
    assert "another has this name" in unseen[0]["why"]


def test_texts_are_small_open_and_not_known_yet(root: Path) -> None:
    write(root, "/etc/a", "new\n")
    write(root, "/etc/known", "old\n")
    write(root, "/etc/secret", "canary", 0o640)
    write(root, "/etc/closed/open", "canary")
    (root / "etc" / "closed").chmod(0o750)
    write(root, "/etc/binary", b"a\0b")
    write(root, "/etc/latin", b"\xe4")
    write(root, "/etc/long", "x" * (256 * 1024 + 1))
    write(root, "/etc/key", "-----BEGIN X " + "PRIVATE KEY-----\ncanary\n")
    facts, texts, unseen = look(root, texts=True, known=[keyed(b"old\n")[:16]])
    assert texts == {"/etc/a": "new\n"}
    assert facts["file:/etc/closed/open"]["secret"], "who may not enter may not read"
    assert unseen == []
    assert look(root) == (facts, {}, [])


def test_texts_end_where_they_are_too_many(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(STATE, "TEXTS_LIMIT", 10)
    for name in "abc":
        write(root, f"/etc/{name}", name * (6 if name < "c" else 1))
    _, texts, unseen = look(root, texts=True)
    assert texts == {"/etc/a": "aaaaaa"}
    assert [item["why"] for item in unseen] == ["from /etc/b on without: 10 bytes were kept"]


def test_reading_ends_where_it_is_too_much(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(STATE, "READ_LIMIT", 10)
    for name in "abc":
        write(root, f"/etc/{name}", name * (6 if name < "c" else 1))
    facts, _, unseen = look(root)
    assert ["digest" in facts[f"file:/etc/{name}"] for name in "abc"] == [True, False, False]
    assert [item["why"] for item in unseen] == ["from /etc/b on without contents: 10 bytes were read"]


def test_directory_that_is_too_full_is_left_out_whole(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of it would make whatever is cut off look like a file that is gone."""
    monkeypatch.setattr(STATE, "ENTRIES_LIMIT", 8)
    for place, count in (("full", 7), ("fuller", 50), ("small", 2)):
        for number in range(count):
            write(root, f"/etc/{place}/{number}")
    facts, _, unseen = look(root)
    wanted = {"file:/etc", "file:/etc/full", "file:/etc/fuller", "file:/etc/small"}
    assert files(facts) == {*wanted, "file:/etc/small/0", "file:/etc/small/1"}
    assert unseen[0]["why"].startswith("2 could not be read, first /etc/full: more than 8 entries")


def test_deep_directories_end(root: Path) -> None:
    deep = root / "etc" / "/".join("d" * 200)
    deep.mkdir(parents=True)
    facts, _, unseen = look(root)
    assert len(files(facts)) == STATE.DEPTH_LIMIT + 1
    assert "40 levels" in unseen[0]["why"]


def test_roots_may_overlap(root: Path) -> None:
    for name in "ab":
        write(root, f"/etc/{name}/file", name)
    once, _, _ = look(root)
    again, _, unseen = look(root, roots=["/etc/b/", "/etc", "//etc/a", "/etc/a/file", "/none", "/etc/a/file/none"])
    assert (once, unseen) == (again, [])


@not_root
def test_closed_directory_is_said_and_the_others_go_on(root: Path) -> None:
    write(root, "/etc/a/file").parent.chmod(0)
    write(root, "/etc/b", mode=0)
    write(root, "/etc/c")
    facts, _, unseen = look(root)
    (root / "etc" / "a").chmod(0o755)
    assert "file:/etc/c" in facts
    assert "digest" not in facts["file:/etc/b"]
    assert unseen[0]["why"].startswith("2 could not be read, first /etc/a: Permission denied")


def test_file_that_cannot_be_opened_is_said(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(root, "/etc/a", "x")

    def refuse(handle: int, limit: int) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(STATE, "pieces", refuse)
    facts, _, unseen = look(root)
    assert "digest" not in facts["file:/etc/a"]
    assert unseen == [{"source": "state: files", "why": "1 could not be read, first /etc/a: Permission denied"}]


def test_file_that_grows_while_it_is_read_ends(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, read = write(root, "/etc/log", "x" * 100_000), os.read

    def growing(handle: int, limit: int) -> bytes:
        with file.open("ab") as more:
            more.write(b"y" * 100_000)
        return read(handle, limit)

    monkeypatch.setattr(STATE.os, "read", growing)
    told = STATE.collect(COLLECT.Collector(), KEY, root=str(root))["facts"]["file:/etc/log"]
    assert (told["size"], told["digest"]) == (100_000, keyed(b"x" * 100_000))


def test_directory_that_becomes_a_link_while_we_look_is_not_entered(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "outside/canary")
    write(root, "/etc/sub/file")
    names = STATE.directory

    def swapping(handle: int, limit: int) -> Any:
        found = names(handle, limit)
        if "sub" in found and not (root / "etc" / "sub").is_symlink():
            (root / "etc" / "sub").rename(root / "etc" / "moved")
            (root / "etc" / "sub").symlink_to(tmp_path / "outside")
        return found

    monkeypatch.setattr(STATE, "directory", swapping)
    facts = STATE.collect(COLLECT.Collector(), KEY, root=str(root))["facts"]
    assert facts["file:/etc/sub"]["kind"] == "link"
    assert not any("canary" in name for name in facts)


@pytest.mark.parametrize("target", ["/outside", "../../../../../../outside", "{outside}", "up/outside"])
def test_no_link_leads_out_of_the_root(root: Path, tmp_path: Path, target: str) -> None:
    """Not at the end of a path, not in the middle of one, and not by way of another link."""
    write(tmp_path, "outside/canary.pem", "-----BEGIN CERTIFICATE-----")
    write(tmp_path, "outside/ssh_host_rsa_key.pub", "ssh-rsa AAAA")
    write(tmp_path, "outside/sshd", "auth required pam_canary.so\n")
    write(tmp_path, "outside/canary.service")
    (root / "up").symlink_to("..")
    for place in ("srv", "etc/pam.d", "etc/ssh", "etc/systemd", "etc/ssl", "lib"):
        (root / place).symlink_to(target.format(outside=tmp_path / "outside"))
    for name in ("passwd", "shadow", "group", "resolv.conf", "timezone"):
        (root / "etc" / name).symlink_to(target.format(outside=tmp_path / "outside") + "/sshd")
    facts, texts, _ = look(root, roots=["/srv", "/srv/", "/srv/deeper"], texts=True)
    assert "canary" not in json.dumps([facts, texts])
    assert {name.partition(":")[0] for name in facts} == {"file", "time"}


def test_links_within_the_root_are_followed_as_on_the_running_system(root: Path) -> None:
    write(root, "/run/resolve/stub.conf", "nameserver 192.0.2.1\nsearch x\n nameserver\t2001:db8::1\n#nameserver x\n")
    (root / "etc" / "resolv.conf").symlink_to("../run/resolve/link")
    (root / "run" / "resolve" / "link").symlink_to("/../run/./resolve/stub.conf")
    (root / "etc" / "localtime").symlink_to("/usr/share/zoneinfo/Asia/Tokyo")
    facts, _, _ = look(root)
    assert facts["resolver:/etc/resolv.conf"] == {"servers": "192.0.2.1 2001:db8::1"}
    assert facts["time:clock"] == {"zone": "Asia/Tokyo"}


def test_accounts(root: Path) -> None:
    people = "aki:x:1000:1000:Aki:/home/aki:/bin/bash\nbo:x:1001:1001::/home/bo:/bin/sh\naki:x:0:0::/:/bin/evil\n"
    write(root, "/etc/passwd", people + "new:x:1002:1002::/home/new:\nopen::1003:1003::/:\n+::::::\nhalf:x:1\n\n")
    write(root, "/etc/group", "adm:x:4:syslog,aki\nsudo:x:27:aki\nempty:x:30:\nodd:x:many:\n")
    hashes = "aki:$y$canary:19000:0:99999:7::20500:\nbo:!$y$canary:19000:0:99999:7:::\nnew:*:0:0:99999:7:::\n"
    write(root, "/etc/shadow", hashes, 0o640)
    facts, _, _ = look(root)
    users = {name: told for name, told in facts.items() if name.startswith("user:")}
    assert set(users) == {"user:aki", "user:bo", "user:new", "user:open", "user:+"}
    assert users["user:aki"] == {
        "uid": 1000, "gid": 1000, "home": "/home/aki", "shell": "/bin/bash", "groups": "adm,sudo", "locked": False,
        "expires": "20500", "must_change": False,
    }  # fmt: skip
    assert (users["user:bo"]["locked"], users["user:bo"]["expires"]) == (True, "")
    assert (users["user:new"]["locked"], users["user:new"]["must_change"]) == (True, True)
    assert users["user:open"]["locked"] is False, "no password at all"
    assert facts["group:sudo"] == {"gid": 27}
    assert facts["group:odd"] == {"gid": "many"}
    assert "canary" not in json.dumps(facts)


def test_without_the_table_of_passwords_nothing_is_said_of_them(root: Path) -> None:
    write(root, "/etc/passwd", "aki:x:1000:1000:Aki:/home/aki:/bin/bash\n")
    facts, _, _ = look(root)
    assert facts["user:aki"].keys() == {"uid", "gid", "home", "shell", "groups"}


def test_tables_made_to_take_long_do_not(root: Path) -> None:
    def takes(rows: int) -> float:
        write(root, "/etc/passwd", "".join(f"u{number}:x:{number}:1::/:/bin/sh\n" for number in range(rows)))
        write(root, "/etc/group", "".join(f"g{number}:x:{number}:u1,u2,u{number}\n" for number in range(rows)))
        before = time.process_time()
        look(root)
        return time.process_time() - before

    # Eight times the rows: 8 where each is read once, 64 where each is compared with all.
    assert takes(40_000) / takes(5_000) < 30


def test_units_of_a_disk(root: Path) -> None:
    install = "[Unit]\nDescription=x\n[Install]\nWantedBy=multi-user.target\n"
    lib, etc = "/usr/lib/systemd/system", "/etc/systemd/system"
    for name in ("nginx", "ssh", "off", "masked"):
        write(root, f"{lib}/{name}.service", install)
    write(root, f"{lib}/static.service", "[Service]\nWantedBy=none\n")
    write(root, f"{lib}/also.socket", "[Install]\nAlso=static.service\n")
    write(root, f"{lib}/getty@.service", install)
    write(root, f"{lib}/empty.timer", "")
    write(root, f"{lib}/some.target", install)
    write(root, f"{etc}/own.mount", install)
    write(root, f"{etc}/ssh.service.d/b.conf")
    write(root, f"{lib}/ssh.service.d/a.conf")
    write(root, f"{lib}/ssh.service.d/b.conf")
    write(root, f"{lib}/service.d/c.conf")
    write(root, f"{lib}/ssh.service.d/README")
    (root / "lib").symlink_to("usr/lib")
    wants = root / etc.lstrip("/") / "multi-user.target.wants"
    wants.mkdir()
    for name in ("nginx.service", "getty@tty1.service", "gone.service", "own.mount"):
        (wants / name).symlink_to(f"{lib}/{name}")
    (root / etc.lstrip("/") / "masked.service").symlink_to("/dev/null")
    (root / etc.lstrip("/") / "sshd.service").symlink_to("/lib/systemd/system/ssh.service")
    (root / etc.lstrip("/") / "linked.service").symlink_to("/opt/linked.service")
    told = {name[5:]: fact for name, fact in look(root)[0].items() if name.startswith("unit:")}
    assert {name: (fact["load"], fact["enabled"]) for name, fact in told.items()} == {
        "nginx.service": ("loaded", "enabled"),
        "ssh.service": ("loaded", "enabled"),
        "off.service": ("loaded", "disabled"),
        "masked.service": ("masked", "masked"),
        "static.service": ("loaded", "static"),
        "also.socket": ("loaded", "indirect"),
        "empty.timer": ("masked", "masked"),
        "getty@tty1.service": ("loaded", "enabled"),
        "own.mount": ("loaded", "enabled"),
        "linked.service": ("loaded", "linked"),
    }
    assert told["own.mount"]["fragment"] == f"{etc}/own.mount"
    assert told["getty@tty1.service"]["fragment"] == f"{lib}/getty@.service"
    assert told["ssh.service"]["drop_ins"].split() == [
        f"{lib}/ssh.service.d/a.conf", f"{etc}/ssh.service.d/b.conf", f"{lib}/service.d/c.conf",
    ]  # fmt: skip


def test_host_keys_are_told_as_ssh_keygen_prints_them(root: Path) -> None:
    key = base64.b64encode(b"\0\0\0\x0bssh-ed25519").decode()
    write(root, "/etc/ssh/ssh_host_ed25519_key.pub", f"ssh-ed25519 {key} root@host\n")
    for name, words in (("rsa", "ssh-rsa AAA"), ("ecdsa", ""), ("dsa", "ssh-dss !!!! x")):
        write(root, f"/etc/ssh/ssh_host_{name}_key.pub", words)
    facts, _, unseen = look(root)
    digest = base64.b64encode(hashlib.sha256(b"\0\0\0\x0bssh-ed25519").digest()).decode().rstrip("=")
    told = {name: fact for name, fact in facts.items() if name.startswith("host_key:")}
    assert told == {"host_key:ed25519": {"fingerprint": f"SHA256:{digest}"}}
    assert unseen == []


def test_pam_modules(root: Path) -> None:
    write(
        root,
        "/etc/pam.d/sshd",
        "# auth required pam_comment.so\n@include common-auth\nauth include other\naccount required pam_nologin.so #\n"
        "-session optional pam_none.so\nauth [success=1 default=ignore] pam_unix.so nullok\n"
        "session required \\\n  /opt/pam/pam_shop.so arg\npassword substack common\nauth required pam_old.so\n",
    )
    (root / "lib").symlink_to("usr/lib")
    for path in ("/usr/lib/x86_64-linux-gnu/security/pam_unix.so", "/opt/pam/pam_shop.so", "/lib/security/pam_old.so"):
        write(root, path)
    told = {name[9:]: fact["present"] for name, fact in look(root)[0].items() if name.startswith("pam:")}
    assert told == {
        "pam_nologin.so": False, "pam_none.so": False, "pam_unix.so": True, "/opt/pam/pam_shop.so": True,
        "pam_old.so": True,
    }  # fmt: skip


def test_certificates_are_asked_of_openssl_by_handle(root: Path) -> None:
    words = "-----BEGIN CERTIFICATE-----\nMIIB\n"
    write(root, "/etc/letsencrypt/archive/shop/cert1.pem", f"subject\n{words}")
    live = root / "etc/letsencrypt/live/shop/cert.pem"
    live.parent.mkdir(parents=True)
    live.symlink_to("../../archive/shop/cert1.pem")
    write(root, "/etc/ssl/bad.crt", words)
    write(root, "/etc/ssl/private/own.pem", "-----BEGIN PRIVATE " + f"KEY-----\n{words}", 0o600)
    write(root, "/etc/ssl/certs/ca.pem", words)
    write(root, "/etc/ssl/readme.txt", words)
    collector, asked = COLLECT.Collector(), []

    def openssl(*command: str, source: str, keep: tuple[int, ...]) -> tuple[int, str, str]:
        asked.append(source)
        if Path(f"/proc/self/fd/{keep[0]}").read_text() == words:
            return 1, "", "Could not read certificate"
        assert f"/proc/self/fd/{keep[0]}" in command
        return 0, "notAfter=Nov 26 12:00:00 2027 GMT\nsubject=CN=shop.example\n", ""

    collector.command = openssl
    collector.unseen.clear()
    facts = STATE.collect(collector, KEY, root=str(root))["facts"]
    assert asked == ["/etc/letsencrypt/live/shop/cert.pem", "/etc/ssl/bad.crt"]
    told = {name: fact for name, fact in facts.items() if name.startswith("certificate:")}
    wanted = {"not_after": 1827230400, "subject": "CN=shop.example"}
    assert told == {"certificate:/etc/letsencrypt/live/shop/cert.pem": wanted}
    assert collector.unseen == [{"source": "/etc/ssl/bad.crt", "why": "Could not read certificate"}]


def test_one_source_that_fails_takes_no_other_along(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(told: str) -> Any:
        raise ValueError("canary")  # errors quote what they could not read

    write(root, "/etc/pam.d/sshd", "auth required pam_unix.so\n")
    monkeypatch.setattr(STATE, "pam_modules", fail)
    facts, _, unseen = look(root)
    assert {"file:/etc", "time:clock"} <= set(facts)
    assert unseen == [{"source": "state: pam", "why": "ValueError"}]


def test_long_values_are_cut_and_still_differ(root: Path) -> None:
    for name, end in (("a", "x"), ("b", "y")):
        (root / "etc" / name).symlink_to("t" * 200)
        write(root, "/etc/passwd", f"{name}:x:1:1::{'t' * 5000}{end}:/bin/sh\n")
        value = look(root)[0][f"user:{name}"]["home"]
        assert value.startswith("t" * 4000 + " … [cut: 5001 characters, digest ")
        assert len(value) < 4100
        assert value.endswith(f"{keyed(('t' * 5000 + end).encode())[:16]}]")


SHOWN = """\
Id=nginx.service
LoadState=loaded
ActiveState=active
FragmentPath=/lib/systemd/system/nginx.service
DropInPaths=/etc/systemd/system/nginx.service.d/a.conf /lib/systemd/system/service.d/b.conf
UnitFileState=enabled
Transient=no
ConditionResult=yes
ConditionTimestampMonotonic=12345
FailureAction=reboot-force
SuccessAction=none
StartLimitAction=poweroff
JobTimeoutAction=none

Id={name}
LoadState={load}
ActiveState={active}
FragmentPath={fragment}
UnitFileState={enabled}
Transient={transient}
ConditionResult=no
ConditionTimestampMonotonic=0

"""
SLEEPING = {
    "name": "a.service", "load": "loaded", "active": "inactive", "fragment": "/etc/systemd/system/a.service",
    "enabled": "disabled", "transient": "no",
}  # fmt: skip


def test_unit_is_told_as_systemd_shows_it() -> None:
    nginx, sleeping = map(STATE.unit_of, STATE.properties(SHOWN.format(**SLEEPING)))
    assert nginx == {
        "load": "loaded", "enabled": "enabled", "active": "active",
        "fragment": "/usr/lib/systemd/system/nginx.service",
        "drop_ins": "/etc/systemd/system/nginx.service.d/a.conf /usr/lib/systemd/system/service.d/b.conf",
        "condition": "yes", "user": "", "dangerous": "reboot-force poweroff",
    }  # fmt: skip
    assert (sleeping["active"], sleeping["condition"], sleeping["dangerous"]) == ("inactive", "", "")


@pytest.mark.parametrize(
    ("differs", "told"),
    [
        ({"active": "activating"}, "inactive"),
        ({"active": "reloading"}, "active"),
        ({"active": "failed", "load": "not-found", "fragment": ""}, "failed"),
        ({"load": "not-found", "fragment": ""}, None),
        ({"name": "a@b.service"}, None),
        ({"name": "a@b.service", "active": "active"}, "active"),
        ({"name": "a@b.service", "enabled": "enabled"}, "inactive"),
        ({"transient": "yes", "active": "active"}, None),
        ({"name": "srv.mount", "fragment": "", "active": "active"}, None),
        ({"name": "srv.mount", "fragment": "/run/systemd/generator/srv.mount", "active": "active"}, "active"),
        ({"name": "a.scope", "active": "active"}, None),
        ({"name": "", "active": "active"}, None),
    ],
)
def test_units_that_come_and_go_are_left_out(differs: dict[str, str], told: str | None) -> None:
    unit = STATE.unit_of(STATE.properties(SHOWN.format(**SLEEPING | differs))[1])
    assert (unit and unit["active"]) == told


class Systemctl:
    """Stands where systemctl would: lists units, and cannot show some of them."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def __call__(self, *words: str, **more: Any) -> tuple[int, str, str]:
        if words[1] == "list-unit-files":
            return (
                0,
                "a.service enabled\nbad.service bad\nc.service static\ngetty@.service enabled\nx@y.service x\n",
                "",
            )
        if words[1] == "list-units":
            loaded = ("a.service", "getty@tty1.service", "user@0.service", "ssh@3-192.0.2.1:22-192.0.2.2:9.service")
            return 0, "".join(f"{name} loaded active running Words\n" for name in loaded), ""
        names = list(words[words.index("--") + 1 :])
        self.asked.append(names)
        good = names[: names.index("bad.service")] if "bad.service" in names else names
        shown = "\n".join(f"Id={name}\nLoadState=loaded\nActiveState=active\n" for name in good)
        return int(good != names), shown, "" if good == names else "Failed to get properties: bad\n"


def test_unit_that_cannot_be_shown_hides_no_other() -> None:
    collector, systemctl = COLLECT.Collector(), Systemctl()
    collector.unseen.clear()
    collector.command = systemctl
    state = STATE.State(collector, KEY, [], [], False, [], "/")
    assert set(state.units()) == {"unit:a.service", "unit:c.service", "unit:getty@tty1.service"}
    assert systemctl.asked == [
        ["a.service", "bad.service", "c.service", "getty@tty1.service"], ["c.service", "getty@tty1.service"]
    ]  # fmt: skip
    assert [item["source"] for item in collector.unseen] == ["systemctl show bad.service"]


IPTABLES = """\
# Generated by iptables-nft-save v1.8.9 (nf_tables) on Thu Nov 26 06:59:53 2026
*filter
:INPUT DROP [12:3456]
:HIKESHI - [0:0]
[7:420] -A INPUT -p tcp -m tcp --dport 80 -j HIKESHI
-A INPUT -m comment --comment "two\x85words" -j ACCEPT
-A HIKESHI -j RETURN
COMMIT
# Completed on Thu Nov 26 06:59:53 2026
# Table `raw' is incompatible, use 'nft' tool.
*nat
:PREROUTING ACCEPT [0:0]
COMMIT
"""


def test_firewall_of_iptables() -> None:
    assert STATE.iptables_chains(IPTABLES) == {
        "filter/INPUT": {
            "policy": "DROP",
            "rules": "-A INPUT -p tcp -m tcp --dport 80 -j HIKESHI\n"
            '-A INPUT -m comment --comment "two\x85words" -j ACCEPT',
        },
        "filter/HIKESHI": {"policy": "", "rules": "-A HIKESHI -j RETURN"},
        "nat/PREROUTING": {"policy": "ACCEPT", "rules": ""},
    }


NFT = """\
# Warning: table ip filter is managed by iptables-nft, do not touch!
table ip filter {
	chain INPUT {
		type filter hook input priority filter; policy accept;
	}
}
table inet guard {
	set banned {
		type ipv4_addr
		flags dynamic,timeout
		timeout 1h
		elements = { 192.0.2.1 timeout 1h expires 59m,
			     192.0.2.2 }
	}

	set office {
		type ipv4_addr
		elements = { 198.51.100.7 }
	}

	chain input {
		type filter hook input priority filter; policy drop;
		tcp dport 22 counter packets 15 bytes 900 accept
	}
}
"""  # noqa: E101, W191 (nft indents with tabs, and this is what it says)


def test_firewall_of_nft() -> None:
    told = STATE.nft_tables(NFT)
    assert set(told) == {("ip", "filter"), ("inet", "guard")}
    assert "192.0.2" not in told["inet", "guard"], "these come and go by themselves"
    assert "198.51.100.7" in told["inet", "guard"]
    assert "tcp dport 22 counter accept" in told["inet", "guard"]


def test_each_table_is_told_by_one_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    collector = COLLECT.Collector()
    collector.output = lambda *words: {"iptables-nft-save": IPTABLES, "nft": NFT}.get(words[0], "")
    monkeypatch.setattr(STATE, "installed", lambda program: True)
    monkeypatch.setattr(STATE, "read_kernel", lambda path: "")
    told = STATE.State(collector, KEY, [], [], False, [], "/").firewall()
    wanted = {"ipv4/filter/INPUT", "ipv4/filter/HIKESHI", "ipv4/nat/PREROUTING", "inet/guard"}
    assert set(told) == {f"firewall:nft/{name}" for name in wanted}


@pytest.mark.parametrize(
    ("program", "told", "whole"),
    [
        ("true", "", True),
        ("false", "", False),
        ("true", IPTABLES, False),
        ("true", IPTABLES.replace("# Table", "#"), True),
    ],
)
def test_tables_that_could_not_be_read_are_no_empty_ones(
    monkeypatch: pytest.MonkeyPatch, program: str, told: str, whole: bool
) -> None:
    collector = COLLECT.Collector()
    real = collector.output
    collector.output = lambda *words: real(program) or told
    monkeypatch.setattr(STATE, "installed", lambda program: program.endswith("-nft-save"))
    monkeypatch.setattr(STATE, "read_kernel", lambda path: "")
    assert {key: seen[1] for key, seen in STATE.iptables(collector).items()} == {
        ("nft", "ipv4"): whole,
        ("nft", "ipv6"): whole,
    }
    assert any(item["source"] in ("false", "iptables-nft-save") for item in collector.unseen) is not whole


def test_older_tables_are_asked_for_only_where_there_are_some(monkeypatch: pytest.MonkeyPatch) -> None:
    collector, asked = COLLECT.Collector(), []

    def output(*words: str) -> str:
        asked.append(words[0])
        return IPTABLES if words[0] == "ip6tables-legacy-save" else ""

    collector.output = output
    monkeypatch.setattr(STATE, "installed", lambda program: program.endswith("-legacy-save"))
    monkeypatch.setattr(STATE, "read_kernel", lambda path: "filter\n" if "ip6" in path else "")
    told = STATE.State(collector, KEY, [], [], False, [], "/").firewall()
    assert asked == ["ip6tables-legacy-save"]
    assert told["firewall:legacy/ipv6/filter/INPUT"]["policy"] == "DROP"


def test_sshd_settings() -> None:
    said = "port 22\nlistenaddress [::]:22\nlistenaddress 0.0.0.0:22\nbanner none\nsetenv A=b c\nempty\n"
    assert STATE.sshd_settings(said) == {
        "sshd:port": {"value": "22"},
        "sshd:listenaddress": {"value": "[::]:22\n0.0.0.0:22"},
        "sshd:banner": {"value": "none"},
        "sshd:setenv": {"value": "A=b c"},
        "sshd:empty": {"value": ""},
    }


def test_sshd_is_asked_apart_and_refusal_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    collector = COLLECT.Collector()
    collector.unseen.clear()
    monkeypatch.setattr(STATE, "installed", lambda program: True)
    state = STATE.State(collector, KEY, [], [], False, [], "/")
    collector.command = lambda *words, **more: (255, "", "/etc/ssh/sshd_config: line 3: Bad configuration option: x")
    assert state.sshd() == {}
    collector.command = lambda *words, **more: (1, "", "unshare: unshare failed: Operation not permitted")
    assert state.sshd() == {}
    assert [item["source"] for item in collector.unseen] == ["sshd -T", "sshd -T"]
    collector.command = lambda *words, **more: (0, "port 22\n", "") if words[-2:] == ("sshd", "-T") else None
    assert state.sshd() == {"sshd:port": {"value": "22"}}


def test_database_settings_without_what_differs_by_itself() -> None:
    rows = (
        "max_connections\t60\ngtid_binlog_pos\t0-1-5\nhostname\tweb1\nsystem_time_zone\tJST\nversion_comment\tDebian\n"
    )
    rows += "report_password\tcanary\ninnodb_buffer_pool_size\t134217728\ninnodb_buffer_pool_load_now\tOFF\n"
    rows += "sql_mode\ta\\nb\n"
    collector = COLLECT.Collector()
    collector.command = lambda *words, **more: (0, rows, "")
    subjects = [{"units": []}, {"database": {"socket": "/run/mysqld/mysqld.sock"}}]
    assert STATE.State(collector, KEY, [], [], False, subjects, "/").mariadb() == {
        "mariadb:max_connections": {"value": "60"},
        "mariadb:innodb_buffer_pool_size": {"value": "134217728"},
        "mariadb:sql_mode": {"value": "a\\nb"},
    }
    collector.command = lambda *words, **more: (1, "", "ERROR 2002 (HY000): Can't connect")
    assert STATE.State(collector, KEY, [], [], False, subjects, "/").mariadb() == {}


TCP6 = """\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt
   0: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0
   1: B80D0120000000000000000001000000:01BB 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4712 1 0
   2: 00000000000000000000000001000000:8B1E 00000000000000000000000001000000:0016 01 00000000:00000000 00:00000000 00000000     0        0 4713 1 0
"""  # noqa: E501 (as the kernel writes it)
UNIX = """\
Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01 100 /run/mysqld/mysqld.sock
0000000000000000: 00000002 00000000 00010000 0001 01 101 /run/odd name.sock
0000000000000000: 00000002 00000000 00010000 0001 01 102 /run/user/0/bus
0000000000000000: 00000002 00000000 00010000 0001 01 103 /tmp/x.sock
0000000000000000: 00000002 00000000 00010000 0001 01 104 @/abstract
0000000000000000: 00000003 00000000 00000000 0001 03 105 /run/connected.sock
0000000000000000: 00000003 00000000 00000000 0001 03 106
"""


def test_sockets_as_the_kernel_lists_them() -> None:
    assert STATE.inet_sockets(TCP6, "0A") == [("[::]", 22, "4711"), ("[2001:db8::1]", 443, "4712")]
    told = "\n   0: 0100007F:0019 00000000:0000 07 0:0 0:0 0 0 0 9\n"
    assert STATE.inet_sockets(told, "07") == [("127.0.0.1", 25, "9")]
    assert STATE.unix_sockets(UNIX) == [("/run/mysqld/mysqld.sock", "100"), ("/run/odd name.sock", "101")]


SOCKET_UNIT = "ActiveState=active\nListen=[::]:2222 (Stream)\nListen=192.0.2.5:2022 (Stream)\nListen=/run/x (Stream)\n"
BY_SYSTEMD = [
    {"address": "192.0.2.5", "port": 2022, "by": "ssh.socket"},
    {"address": "::", "port": 2222, "by": "ssh.socket"},
]
BY_ITSELF = [{"address": "::", "port": 22, "by": "sshd"}]


@pytest.mark.parametrize(
    ("comm", "parent", "unit", "told"),
    [
        ("sshd", 1, "ActiveState=inactive\n", BY_ITSELF),
        ("sshd", 1, SOCKET_UNIT, BY_ITSELF + BY_SYSTEMD),
        ("sshd", 1, SOCKET_UNIT.replace("=active", "=inactive"), BY_ITSELF),
        ("sshd", 612, SOCKET_UNIT, BY_SYSTEMD),  # somebody who is logged in, and what he has forwarded
        ("nginx", 1, "", []),
    ],
)
def test_where_sshd_listens(
    monkeypatch: pytest.MonkeyPatch, comm: str, parent: int, unit: str, told: list[dict[str, Any]]
) -> None:
    said = {"/proc/net/tcp": "head\n", "/proc/net/tcp6": TCP6, "/proc/7/comm": f"{comm}\n",
            "/proc/7/stat": f"7 (odd) name) S {parent} 7"}  # fmt: skip
    monkeypatch.setattr(STATE, "read_kernel", lambda path: said[path])
    monkeypatch.setattr(STATE.os, "listdir", lambda path: ["7", "self"] if path == "/proc" else ["3", "4"])
    monkeypatch.setattr(STATE.os, "readlink", lambda path: {"3": "socket:[4711]", "4": "/dev/null"}[path[-1]])
    collector = COLLECT.Collector()
    collector.command = lambda *words, **more: (0, unit, "")
    noted = len(collector.unseen)
    assert STATE.sshd_at(collector) == told
    assert len(collector.unseen) == noted


def test_where_sshd_listens_is_not_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that speaks otherwise is noted as unseen; nobody assumes port 22."""
    said = {"comm": "sshd\n", "stat": "7 (sshd) S 1 7", "tcp": "head\n 0: odd 0 0A 0 0 0 0 0 4711\n", "tcp6": ""}
    monkeypatch.setattr(STATE, "read_kernel", lambda path: said[path.rpartition("/")[2]])
    monkeypatch.setattr(STATE, "open_files", lambda pid: {"socket:[4711]"})
    collector = COLLECT.Collector()
    collector.command = lambda *words, **more: None
    collector.unseen.clear()
    assert STATE.sshd_at(collector) == []
    assert [item["source"] for item in collector.unseen] == ["where sshd listens"]


def test_listener_is_named_by_the_oldest_process(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"tcp6": TCP6, "unix": UNIX, "tcp": "", "udp": "", "udp6": ""}
    monkeypatch.setattr(STATE, "read_kernel", lambda path: told[path.rpartition("/")[2]])
    monkeypatch.setattr(STATE.State, "programs", lambda self: {"4711": (1, "systemd"), "100": (70, "mariadbd")})
    assert STATE.State(COLLECT.Collector(), KEY, [], [], False, [], "/").listeners() == {
        "listen:tcp/[::]:22": {"program": "systemd"},
        "listen:tcp/[2001:db8::1]:443": {"program": ""},
        "listen:unix:/run/mysqld/mysqld.sock": {"program": "mariadbd"},
        "listen:unix:/run/odd name.sock": {"program": ""},
    }


@pytest.mark.parametrize(
    ("wanted", "there"),
    [
        ({"socket": "/run/mysqld/mysqld.sock"}, {"/run/mysqld/mysqld.sock": True}),
        ({"socket": "/run/connected.sock"}, {"/run/connected.sock": False}),
        ({"socket": "/run/none.sock"}, {"/run/none.sock": False}),
        ({"address": "2001:db8::1", "port": 443}, {"[2001:db8::1]:443": True}),
        ({"address": "2001:db8::2", "port": 443}, {"[2001:db8::2]:443": False}),
        ({"address": "2001:db8::2", "port": 22}, {"[2001:db8::2]:22": True}),
        ({"address": "127.0.0.1", "port": 22}, {"127.0.0.1:22": True}),
        ({"address": "127.0.0.1", "port": 443}, {"127.0.0.1:443": False}),
        ({"address": "192.0.2.1", "port": 3306}, {"192.0.2.1:3306": True}),
    ],
)
def test_who_wants_to_know_is_told_whether_anybody_listens(
    monkeypatch: pytest.MonkeyPatch, wanted: dict[str, Any], there: dict[str, bool]
) -> None:
    everywhere = "\n   0: 00000000:0CEA 00000000:0000 0A 0:0 0:0 0 0 0 9\n"
    told = {"tcp6": TCP6, "unix": UNIX, "tcp": everywhere}
    monkeypatch.setattr(STATE, "read_kernel", lambda path: told[path.rpartition("/")[2]])
    assert STATE.listens(COLLECT.Collector(), [{"listens": [{"unit": "x.service", **wanted}]}, {}]) == there


def test_socket_is_the_same_through_a_link_of_its_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "var").symlink_to("run")
    one, other = f"{tmp_path}/run/x.sock", f"{tmp_path}/var/x.sock"
    for bound, wanted in ((one, other), (other, one)):
        monkeypatch.setattr(STATE, "unix_sockets", lambda _, bound=bound: [(bound, "7"), ("/run/y.sock", "8")])
        assert STATE.listens(COLLECT.Collector(), [{"listens": [{"socket": wanted}]}]) == {wanted: True}
    gone = f"{tmp_path}/var/y.sock"
    assert STATE.listens(COLLECT.Collector(), [{"listens": [{"socket": gone}]}]) == {gone: False}


def test_what_the_kernel_does_not_tell_is_not_said_to_be_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(STATE, "read_kernel", lambda path: "head\nodd odd odd odd odd odd odd /run/x.sock\n")
    collector = COLLECT.Collector()
    collector.unseen.clear()
    assert STATE.listens(collector, [{"listens": [{"socket": "/run/x.sock"}]}]) == {}
    assert [item["source"] for item in collector.unseen] == ["who listens"]


def test_this_machine_is_asked_who_listens(tmp_path: Path) -> None:
    # Not below /tmp, where sockets come and go.
    with (
        tempfile.TemporaryDirectory(dir="/var/tmp") as folder,
        socket.socket() as line,
        socket.socket(socket.AF_UNIX) as local,
    ):  # noqa: S108
        path = f"{folder}/x.sock"
        line.bind(("127.0.0.1", 0))
        local.bind(path)
        port = line.getsockname()[1]
        wanted = [{"listens": [{"socket": path}, {"address": "127.0.0.1", "port": port}]}]
        assert STATE.listens(COLLECT.Collector(), wanted) == {path: False, f"127.0.0.1:{port}": False}
        line.listen()
        local.listen()
        other = tmp_path / "run"
        other.symlink_to(folder)
        by_link = [{"listens": [{"socket": f"{other}/x.sock"}]}]
        assert STATE.listens(COLLECT.Collector(), by_link) == {f"{other}/x.sock": True}, "as /var/run is /run"
        Path(path).unlink()
        assert STATE.listens(COLLECT.Collector(), wanted) == {path: True, f"127.0.0.1:{port}": True}, (
            "removed, not left"
        )


MOUNTS = r"""22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro
28 27 254:1 / /srv/odd\040name ro,nosuid - ext4 /dev/vdb rw
29 27 254:0 /images /srv/media rw,relatime - ext4 /dev/vda1 ro,discard
30 27 0:9 / /run/credentials/a.service ro - ramfs ramfs rw,mode=700
31 27 0:9 / /data rw - overlay overlay rw,lowerdir=/a,upperdir=/b,workdir=/c,index=off
half a line
"""


def test_mounts_as_the_kernel_lists_them() -> None:
    assert STATE.mounts(MOUNTS) == {
        "mount:/": {"type": "ext4", "source": "/dev/vda1", "options": "errors=remount-ro,relatime,rw"},
        "mount:/srv/odd name": {"type": "ext4", "source": "/dev/vdb", "options": "nosuid,ro"},
        "mount:/srv/media": {"type": "ext4", "source": "/dev/vda1[/images]", "options": "discard,relatime,ro"},
        "mount:/data": {"type": "overlay", "source": "overlay", "options": "index=off,rw"},
    }


REBOOT = "reboot   system boot  6.1.0-40-amd64   Thu Nov 26 03:12   still running\n"
BEFORE = "reboot   system boot  6.1.0-40-amd64   Wed Nov 25 03:12 - 23:59  (20:47)\n"
DOWN = "shutdown system down  6.1.0-40-amd64   Thu Nov 26 03:11 - 03:12  (00:00)\n"
END = "\nwtmp begins Tue Nov  3 00:00:00 2026\n"


@pytest.mark.parametrize(
    ("said", "ended", "why"),
    [
        (REBOOT + DOWN + BEFORE + END, "clean", "shutdown system down 6.1.0-40-amd64 Thu Nov 26 03:11 - 03:12 (00:00)"),
        (REBOOT + BEFORE + DOWN + END, "unclean", "no shutdown after: reboot system boot 6.1.0-40-amd64 Wed Nov 25"),
        (REBOOT + END, "unknown", "wtmp tells of no boot before this one"),
        (DOWN + BEFORE + END, "unknown", "wtmp does not tell of this boot"),
        (END, "unknown", "wtmp does not tell of this boot"),
        ("", "unknown", "wtmp does not tell of this boot"),
    ],
)
def test_how_the_boot_before_ended(said: str, ended: str, why: str) -> None:
    told = STATE.previous_boot(said)
    assert told["ended"] == ended
    assert told["why"].startswith(why)


@pytest.mark.parametrize(("version", "told"), [((0, "last from util-linux 2.38.1\n", ""), True), (None, False)])
def test_only_the_known_last_is_asked(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, str, str] | None, told: bool
) -> None:
    collector = COLLECT.Collector()
    monkeypatch.setattr(STATE, "installed", lambda program: True)
    collector.command = lambda *words, **more: version if "--version" in words else (0, REBOOT + DOWN, "")
    assert bool(STATE.State(collector, KEY, [], [], False, [], "/").boot()) is told


def test_this_machine_is_told_the_same_twice() -> None:
    def steady() -> dict[str, Any]:
        # Others may open sockets and start containers on this machine meanwhile.
        told = STATE.collect(COLLECT.Collector(), KEY)["facts"]
        return {name: fact for name, fact in told.items() if not name.startswith(("listen:", "mount:", "firewall:"))}

    before = time.monotonic()
    told = steady()
    assert time.monotonic() - before < 20
    assert told == steady()
    assert {"file:/etc/passwd", "user:root", "group:root", "time:clock", "sysctl:fs.file-max"} <= set(told)
    assert all(type(value) in (str, int, bool) for fact in told.values() for value in fact.values())


NAMES = st.binary(min_size=1, max_size=8).filter(lambda name: not {0, 47} & set(name) and name not in (b".", b".."))
TARGETS = st.sampled_from([b"/", b"..", b"../..", b"a", b"../../../../etc/passwd", b"/etc/a", b"/proc/self/root"])
ENTRIES = st.recursive(
    st.one_of(st.binary(max_size=40), st.tuples(st.just("link"), TARGETS), st.just(("pipe", b""))),
    lambda inner: st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
# Where names mean something.
MEANING = ("passwd", "shadow", "group", "pam.d", "ssh", "resolv.conf", "localtime", "systemd", "ssl", "a")


def plant(place: bytes, entry: Any) -> None:
    """Make what was generated; nothing where a directory stands already."""
    if isinstance(entry, dict):
        os.makedirs(place, exist_ok=True)  # noqa: PTH103 (a name of bytes, which Path does not take)
        for name, inner in entry.items():
            plant(place + b"/" + name, inner)
    elif isinstance(entry, bytes):
        Path(os.fsdecode(place)).write_bytes(entry)
    elif entry[0] == "link":
        os.symlink(entry[1], place)  # noqa: PTH211
    else:
        os.mkfifo(place)


def standing(root: Path) -> list[tuple[Any, ...]]:
    """Return what a look must not change; the time of the last reading is the file system's."""
    found = []
    for place, directories, names in os.walk(os.fsencode(root)):
        for name in sorted([*directories, *names]):
            status = os.lstat(place + b"/" + name)
            found.append((place, name, status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    return sorted(found)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.dictionaries(st.sampled_from(MEANING), ENTRIES), st.booleans())
def test_whatever_lies_there_is_told_and_left_alone(tree: dict[str, Any], texts: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "disk"
        (root / "etc").mkdir(parents=True)
        for name, entry in tree.items():
            plant(os.fsencode(root / "etc" / name), entry)
        before = standing(root)
        facts, told, _ = look(root, texts=texts)
        assert standing(root) == before
        assert len(files(facts)) >= 1
        assert texts or not told


WORDS = st.text(st.sampled_from("auth required[]*:-A {}=\"'\\\n\t@0123456789abc.so-IX\x85\x1b"), max_size=200)
PARSERS: list[Callable[[str], Any]] = [
    STATE.iptables_chains, STATE.nft_tables, STATE.sshd_settings, STATE.pam_modules, STATE.certificate_of,
    STATE.previous_boot, STATE.mounts, STATE.unescaped,
    lambda told: [STATE.unit_of(fields) for fields in STATE.properties(told)],
]  # fmt: skip


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    st.sampled_from(["", "Id=", "*filter\n:", "table ip x {\n", "notAfter=", "auth [", "reboot system boot "]), WORDS
)
def test_whatever_programs_print_is_read(begins: str, words: str) -> None:
    for parser in PARSERS:
        json.dumps(repr(parser(begins + words)))


@pytest.mark.parametrize(
    "words",
    ["auth " + " " * 200_000, "auth [" + "x" * 200_000, "table ip x {\n" * 20_000, "[Install]\n" * 20_000,
     "\n" * 200_000, "auth\t\\\n" * 50_000, "table a b {\n" + "\tset x {\n\t\tflags timeout\n elements = {\n" * 10_000],
)  # fmt: skip
def test_nothing_made_to_take_long_does(root: Path, words: str) -> None:
    write(root, "/usr/lib/systemd/system/a.service", words)
    write(root, "/etc/resolv.conf", words)
    before = time.monotonic()
    look(root)
    for parser in PARSERS:
        parser(words)
    assert time.monotonic() - before < 10


@needs_root
def test_owner_without_a_name_is_a_number(root: Path) -> None:
    os.chown(write(root, "/etc/a"), 54321, 54322)
    told = look(root)[0]["file:/etc/a"]
    assert (told["owner"], told["group"]) == ("54321", "54322")
