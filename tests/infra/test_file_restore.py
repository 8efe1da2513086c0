"""file_restore: what it puts back arrives byte for byte, what stood there is kept, and every step can be undone."""

import base64
import hashlib
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from tests.infra.asking import Applied, Apply, Mend, must

KEPT = "/var/lib/hikeshi/kept"
RECORD = "/var/lib/hikeshi/restored.jsonl"
TREE = "/srv/restored"
TRIED = "/srv/tried"
PATH = f"{TRIED}/settings"
ACCOUNT = {"name": "hikeshi-shop", "uid": "4712", "gid": "4712", "home": "/srv/hikeshi-shop", "shell": "/bin/sh"}
ARCHIVE = "/var/cache/apt/archives/hikeshi-test_1%3a2.0-1_all.deb"

Restore = Callable[..., None]
Once = Callable[..., Applied]


def content(host: Host, path: str) -> bytes:
    return base64.b64decode(must(host, f"base64 --wrap=0 {shlex.quote(path)}"))


def write(host: Host, path: str, text: bytes) -> None:
    """Write a file, with a mode and a time that nobody else gives to it."""
    must(
        host,
        f"printf %s {base64.b64encode(text).decode()} | base64 --decode > {path} && chown www-data:adm {path} && "
        f"chmod 0604 {path} && touch --date='2021-02-03 04:05:06.789 UTC' {path}",
    )


def seen(host: Host, path: str) -> str:
    """Return kind, mode, owner, time and size of a path, and where a link leads."""
    return must(host, f"stat --format='%F %a %U %G %y %s %N' {path}").replace(path, "PATH")


@pytest.fixture
def once(apply: Apply, tmp_path: Path) -> Once:
    """Take a disk step; a text lies on the controller under its digest, as a baseline has it."""

    def run(step: str, text: bytes | None = None, /, **args: Any) -> Applied:
        if text is not None:
            digest = hashlib.sha256(text).hexdigest()
            (tmp_path / digest).write_bytes(text)
            args = {"mode": "0640", "owner": "root", "group": "www-data", "text": digest, **args}
        return apply("file_restore", "repair-disk", step, args, file_restore_texts=str(tmp_path))

    return run


@pytest.fixture
def restore(once: Once) -> Restore:
    """Take a disk step twice: the first time it mends, the second time it finds nothing to do."""

    def run(step: str, text: bytes | None = None, /, **args: Any) -> None:
        first = once(step, text, **args)
        assert first.status == 0, first.output
        assert first.changed > 0, first.output
        second = once(step, text, **args)
        assert (second.status, second.changed) == (0, 0), second.output

    return run


@pytest.fixture
def tried(host: Host) -> None:
    """Make an empty folder to try steps in, with nothing kept of it."""
    must(host, f"rm -rf {TRIED} {KEPT}{TRIED} {RECORD} && mkdir {TRIED}")


def test_file_is_as_the_baseline_has_it(host: Host) -> None:
    text = b"# {{ inventory_hostname }} is data here, {% and so is this %}\nanswer = 42\n"
    assert content(host, f"{TREE}/settings") == text
    assert must(host, f"stat --format='%a %U %G' {TREE}/settings").strip() == "640 root www-data"


def test_link_leads_where_it_did(host: Host) -> None:
    assert must(host, f"readlink {TREE}/link").strip() == "settings"


def test_stray_file_is_gone(host: Host) -> None:
    must(host, f"test ! -e {TREE}/stray.conf")


def test_account_owns_its_home_again(host: Host) -> None:
    assert must(host, f"stat --format='%U %G %a' {TREE}/home/mine {TREE}/home").splitlines() == [
        "restored restored 644",
        "restored restored 710",
    ]
    assert must(host, "id --name --groups restored").split() == ["restored", "www-data"]


@pytest.mark.at_rest
@pytest.mark.usefixtures("tried")
@pytest.mark.parametrize(
    "text",
    [b"{{ lookup('pipe', 'id') }}\r\n\0\xff\xfe{% raw %} no end", b"", b"$ANSIBLE_VAULT;1.1;AES256\n6162\n"],
    ids=["hostile", "empty", "vault"],
)
def test_bytes_arrive_and_what_stood_there_comes_back(host: Host, restore: Restore, text: bytes) -> None:
    before = b"{{ 6 * 7 }} stood\r\n\0\xe4"
    write(host, PATH, before)
    status = seen(host, PATH)
    restore("file", text, path=PATH)
    assert content(host, PATH) == text
    assert must(host, f"stat --format='%a %U %G' {PATH}").strip() == "640 root www-data"
    assert (content(host, f"{KEPT}{PATH}"), seen(host, f"{KEPT}{PATH}")) == (before, status)
    assert must(host, f"stat --format='%a %U' {KEPT} {RECORD}").splitlines() == ["700 root", "600 root"]
    restore("put_back", path=PATH)
    assert (content(host, PATH), seen(host, PATH)) == (before, status)
    assert must(host, f"ls -A {TRIED}").split() == ["settings"]


@pytest.mark.at_rest
@pytest.mark.usefixtures("tried")
def test_file_that_had_not_existed_is_removed_again(host: Host, restore: Restore) -> None:
    restore("file", b"new\n", path=PATH)
    restore("put_back", path=PATH)
    must(host, f'test ! -e {PATH} && test -z "$(ls -A {TRIED})"')


@pytest.mark.at_rest
@pytest.mark.usefixtures("tried")
def test_link_is_made_again_and_undone(host: Host, restore: Restore) -> None:
    must(host, f"ln -s /dev/null {PATH} && touch --no-dereference --date='2021-02-03 04:05:06' {PATH}")
    before = seen(host, PATH)
    # As a plan must hand over what it read on a host: braces would be a template otherwise.
    restore("link", path=PATH, target={"__ansible_unsafe": "{{ 6 * 7 }}"})
    assert must(host, f"readlink {PATH}").strip() == "{{ 6 * 7 }}"
    restore("put_back", path=PATH)
    assert seen(host, PATH) == before


@pytest.mark.at_rest
@pytest.mark.usefixtures("tried")
def test_stray_file_is_moved_below_kept_and_comes_back(host: Host, restore: Restore) -> None:
    write(host, PATH, b"stray\0")
    before = seen(host, PATH)
    restore("move_aside", path=PATH)
    must(host, f"test ! -e {PATH}")
    assert content(host, f"{KEPT}{PATH}") == b"stray\0"
    restore("put_back", path=PATH)
    assert (content(host, PATH), seen(host, PATH)) == (b"stray\0", before)


@pytest.mark.at_rest
@pytest.mark.usefixtures("tried")
@pytest.mark.parametrize("step", ["file", "link", "move_aside"])
def test_directory_and_link_on_the_way_are_refused(host: Host, once: Once, step: str) -> None:
    must(host, f"mkdir {PATH} && touch {PATH}/mine && ln -s settings {TRIED}/way")
    for path, words in ((PATH, "is a directory"), (f"{TRIED}/way/mine", f"{TRIED}/way leads to {PATH}")):
        more: dict[str, Any] = {"target": "/dev/null"} if step == "link" else {}
        applied = once(step, b"x" if step == "file" else None, path=path, **more)
        assert applied.status != 0
        assert words in " ".join(applied.output.split()), applied.output
        assert applied.changed == 0
    assert must(host, f"find {PATH} -printf '%y %f %s\\n' | grep -v ^d").strip() == "f mine 0"
    must(host, f"test ! -e {KEPT}{TRIED}")


@pytest.mark.at_rest
@pytest.mark.usefixtures("tried")
def test_text_that_is_no_recorded_one_is_refused(host: Host, once: Once, tmp_path: Path) -> None:
    digest = hashlib.sha256(b"recorded").hexdigest()
    for wrong in ("../../../etc/shadow", digest, ""):
        assert once("file", b"x", path=PATH, text=wrong).status != 0
    (tmp_path / digest).write_bytes(b"changed since")
    applied = once("file", b"x", path=PATH, text=digest)
    assert "not what was recorded" in applied.output, applied.output
    must(host, f"test ! -e {PATH}")


@pytest.mark.at_rest
def test_unknown_step_is_refused(apply: Apply) -> None:
    applied = apply("file_restore", "repair-disk", "format_everything")
    assert applied.status != 0
    assert "format_everything" in applied.output
    assert "move_aside, put_back" in applied.output


@pytest.fixture
def package(host: Host) -> str:
    """Install a package with one file, whose archive is not kept; return the file's path."""
    path = "/usr/share/hikeshi-test/settings"
    must(
        host,
        f"rm -rf /srv/package {ARCHIVE} {KEPT}{path}; "
        "mkdir -p /srv/package/DEBIAN /srv/package/usr/share/hikeshi-test && "
        "printf '%s\\n' 'Package: hikeshi-test' 'Version: 1:2.0-1' 'Architecture: all' 'Description: test' "
        "'Maintainer: nobody <nobody@example.com>' > /srv/package/DEBIAN/control && "
        f"printf 'shipped {{{{ 7 }}}}\\000\\r\\n' > /srv/package{path} && chmod 0750 /srv/package{path} && "
        "dpkg-deb --root-owner-group --build /srv/package /srv/package.deb && dpkg --install /srv/package.deb",
    )
    return path


@pytest.mark.at_rest
def test_file_of_a_package_comes_from_its_kept_archive(host: Host, once: Once, restore: Restore, package: str) -> None:
    whole, status = content(host, package), must(host, f"stat --format='%a %U %G %Y' {package}")
    write(host, package, b"broken")
    before = seen(host, package)
    applied = once("package_file", path=package, package="hikeshi-test")
    assert applied.status != 0
    assert "apt-get download hikeshi-test=1:2.0-1" in " ".join(applied.output.split()), applied.output
    assert content(host, package) == b"broken"
    must(host, f"mkdir -p $(dirname {ARCHIVE}) && cp /srv/package.deb {ARCHIVE}")
    restore("package_file", path=package, package="hikeshi-test")
    assert (content(host, package), must(host, f"stat --format='%a %U %G %Y' {package}")) == (whole, status)
    assert content(host, f"{KEPT}{package}") == b"broken"
    restore("put_back", path=package)
    assert (content(host, package), seen(host, package)) == (b"broken", before)


@pytest.fixture
def no_account(host: Host) -> None:
    """Make the home and a file of an account that is gone."""
    must(
        host,
        "! id hikeshi-shop 2> /dev/null || userdel hikeshi-shop; ! id somebody 2> /dev/null || userdel somebody; "
        "rm -rf /srv/hikeshi-shop && mkdir -m 0710 /srv/hikeshi-shop && echo mine > /srv/hikeshi-shop/mine && "
        "chown -R 4712:4712 /srv/hikeshi-shop",
    )


@pytest.mark.at_rest
@pytest.mark.usefixtures("no_account")
def test_account_is_made_again_with_its_numbers_and_locked(host: Host, restore: Restore) -> None:
    restore("user", **ACCOUNT, groups="adm, www-data")
    assert must(host, "getent passwd hikeshi-shop").split(":")[2:4] == ["4712", "4712"]
    assert must(host, "getent passwd hikeshi-shop").strip().endswith(":/srv/hikeshi-shop:/bin/sh")
    assert set(must(host, "id --name --groups hikeshi-shop").split()) == {"hikeshi-shop", "adm", "www-data"}
    assert must(host, "getent shadow hikeshi-shop").split(":")[1].startswith("!")
    assert must(host, "ls -A /srv/hikeshi-shop").split() == ["mine"], "the home was filled anew"
    assert must(host, "stat --format='%a %U' /srv/hikeshi-shop").strip() == "710 hikeshi-shop"


@pytest.mark.at_rest
@pytest.mark.usefixtures("no_account")
def test_account_with_anothers_numbers_or_a_missing_group_is_refused(host: Host, once: Once) -> None:
    must(host, "useradd --uid 4712 --no-create-home somebody")
    applied = once("user", **ACCOUNT)
    assert applied.status != 0
    assert "The uid belongs to: somebody" in " ".join(applied.output.split()), applied.output
    must(host, "userdel somebody")
    applied = once("user", **{**ACCOUNT, "gid": must(host, "getent group adm").split(":")[2]})
    assert "The gid belongs to: adm" in " ".join(applied.output.split()), applied.output
    applied = once("user", **ACCOUNT, groups="adm,no-such-group")
    assert "groups names no-such-group" in " ".join(applied.output.split()), applied.output
    assert host.run("id hikeshi-shop").rc != 0
    assert host.run("getent group hikeshi-shop").rc != 0


@pytest.fixture
def unit(host: Host) -> str:
    """Start a unit that needs /run/hikeshi-go, and makes /run/hikeshi-reloaded when it is reloaded."""
    must(
        host,
        "rm -f /run/hikeshi-reloaded; printf '[Service]\\nType=exec\\nExecStartPre=/usr/bin/test -e /run/hikeshi-go\\n"
        "ExecStart=/usr/bin/sleep 600\\nExecReload=/usr/bin/touch /run/hikeshi-reloaded\\n' "
        "> /etc/systemd/system/hikeshi-reread.service; touch /srv/reread /run/hikeshi-go; systemctl daemon-reload; "
        "systemctl reset-failed hikeshi-reread; systemctl restart hikeshi-reread",
    )
    return "hikeshi-reread.service"


def pid(host: Host, unit: str) -> str:
    return must(host, f"systemctl show --property=MainPID --value {unit}").strip()


@pytest.mark.at_rest
def test_unit_rereads_what_is_newer_than_itself(host: Host, unit: str, mend: Mend) -> None:
    before = pid(host, unit)
    must(host, "touch --date=2021-01-01 /srv/reread")
    mend("file_restore", "live", "reread", unit=unit, how="reload", path="/srv/reread")
    must(host, "test -e /run/hikeshi-reloaded")
    assert pid(host, unit) == before
    must(host, "rm /srv/reread")
    mend("file_restore", "live", "reread", unit=unit, how="restart", path="/srv/reread")
    assert pid(host, unit) not in (before, "0")


@pytest.mark.at_rest
def test_failed_unit_is_restarted_and_a_stopped_one_is_not(host: Host, unit: str, apply: Apply, mend: Mend) -> None:
    must(host, f"rm /run/hikeshi-go; ! systemctl restart {unit}; touch /run/hikeshi-go")
    assert host.run(f"systemctl is-active {unit}").stdout.strip() == "failed"
    mend("file_restore", "live", "reread", unit=unit, how="reload", path="/srv/reread")
    assert must(host, f"systemctl is-active {unit}").strip() == "active"
    must(host, f"systemctl stop {unit}")
    applied = apply("file_restore", "repair-live", "reread", {"unit": unit, "how": "restart"})
    assert (applied.status, applied.changed) == (0, 0), applied.output
    assert host.run(f"systemctl is-active {unit}").stdout.strip() == "inactive"


@pytest.mark.at_rest
def test_systemd_rereads_its_own_files(host: Host, unit: str, apply: Apply) -> None:
    before = pid(host, unit)
    must(host, f"echo 'Environment=NEW=1' >> /etc/systemd/system/{unit}")
    applied = apply("file_restore", "repair-live", "reread", {"unit": "", "how": "daemon_reload"})
    assert (applied.status, applied.changed) == (0, 0), applied.output
    assert must(host, f"systemctl show --property=Environment --value {unit}").strip() == "NEW=1"
    assert pid(host, unit) == before
    for wrong in ({"unit": unit, "how": "stop"}, {"unit": "--now nginx", "how": "restart"}, {"unit": unit}):
        assert apply("file_restore", "repair-live", "reread", wrong).status != 0
