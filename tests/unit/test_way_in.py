"""Who gets in, by a disk's text alone: what the collector tells of it, and what the rules make of that."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hikeshi.triage import findings, login, shape
from tests.templates.rendering import value
from tests.unit.host_program import loaded
from tests.unit.test_triage import HEALTHY

ROLE = Path(__file__).parents[2] / "roles" / "evidence"
COLLECT = loaded(ROLE / "library" / "collect_evidence.py")
STATE = loaded(ROLE / "module_utils" / "hikeshi_state.py")
WAY_IN = loaded(ROLE / "module_utils" / "hikeshi_way_in.py")
SUBJECT: dict[str, Any] = value("remote_access", "__remote_access_subject")
DAY, NOW = 86400, 20784
ACCOUNT = "account_open user=deploy"
UNITS = "etc/systemd/system"
LETS_IN = "systemd-user-sessions.service"
# As Debian 12 and the role make it, in short.
DISK = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/bash\ndeploy:x:1000:1000::/home/deploy:/bin/bash\n",
    "etc/shadow": f"root:*:{NOW - 9}:0:99999:7:::\ndeploy:!:{NOW - 9}:0:99999:7:::\n",
    "etc/group": "root:x:0:\ndeploy:x:1000:\nadm:x:4:deploy\n",
    "bin/bash": "",
    "home/deploy/.ssh/authorized_keys": "ssh-ed25519 AAAA controller\n",
    "etc/ssh/sshd_config": "# Debian\nInclude /etc/ssh/sshd_config.d/*.conf\nUsePAM yes\nX11Forwarding yes\n"
    "Subsystem\tsftp\t/usr/lib/openssh/sftp-server\n",
    "etc/ssh/sshd_config.d/00-hikeshi.conf": "PasswordAuthentication no\nPermitRootLogin no\n",
    "etc/pam.d/sshd": "@include common-account\naccount required pam_nologin.so\n"
    "session [success=ok ignore=ignore module_unknown=ignore default=bad] pam_selinux.so close\n"
    "-session optional pam_gone.so\nsession optional pam_gone.so\n",
    "etc/pam.d/common-account": "account [success=1 default=ignore] pam_unix.so\naccount requisite pam_deny.so\n",
    "usr/lib/x86_64-linux-gnu/security/pam_unix.so": "",
    "usr/lib/x86_64-linux-gnu/security/pam_deny.so": "",
    "usr/lib/x86_64-linux-gnu/security/pam_nologin.so": "",
    "etc/hosts.allow": "# none\n",
    "etc/hosts.deny": "ALL: PARANOID\n",
    # A role's own, and an administrator's, which bounds itself.
    f"{UNITS}/hikeshi-access-undo.service": "[Unit]\nBefore=systemd-user-sessions.service\n[Service]\nType=oneshot\n"
    "ExecStart=/bin/sleep infinity\n",
    f"{UNITS}/mtu.service": "[Unit]\nBefore=network.target\n[Service]\nType=oneshot\nExecStart=ip link set eth0 up\n",
    f"{UNITS}/ssh.service.d/limits.conf": "[Service]\nTasksMax=200\n",
}
LINKS = ("multi-user.target.wants/hikeshi-access-undo.service", "multi-user.target.wants/mtu.service")
Disk = Callable[..., Path]


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    """Return what makes a healthy disk with some files of its own: path → text, or None for one that is not there."""

    def make(files: dict[str, str | None] | None = None, links: dict[str, str] | None = None) -> Path:
        for path, text in {**DISK, **(files or {})}.items():
            if text is not None:
                (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / path).write_text(text)
        for link in (*LINKS, *(links or {})):
            (tmp_path / UNITS / link).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / UNITS / link).unlink(missing_ok=True)
            (tmp_path / UNITS / link).symlink_to(f"/etc/systemd/system/{link.rpartition('/')[2]}")
        (tmp_path / "home" / "deploy").chmod(0o755)
        (tmp_path / "home" / "deploy" / ".ssh").chmod(0o700)
        return tmp_path

    return make


def look(root: Path) -> dict[str, Any]:
    """Return the evidence of a disk."""
    collector = COLLECT.Collector()
    collector.unseen.clear()
    with STATE.Root(collector, str(root)) as opened:
        told = WAY_IN.collect(opened, [SUBJECT])
    shape.WayIn.model_validate(json.loads(json.dumps(told)))
    if os.geteuid() != 0:
        pytest.skip("who owns what is the point, and only root can make it")
    assert collector.unseen == []
    others = ("units", "paths", "mounts", "trees", "configs", "locks")  # are looked at in tests of their own
    return {
        "host": "web1",
        "at": float(NOW * DAY),
        "subjects": [SUBJECT],
        "way_in": told,
        **{key: {} for key in others},
    }


def found(root: Path, healthy: dict[str, Any] | None = None, **more: Any) -> dict[str, list[str]]:
    """Return subject → words of the steps of what is found on a disk."""
    seen = {**look(root), **more}
    judged = findings.judge_disk({"web1": seen}, {"web1": healthy} if healthy else None)
    assert all(step.kind == "disk" for item in judged for step in item.remedy)
    assert all(item.effect is findings.Effect.CANNOT_BE_REPAIRED for item in judged)
    return {item.subject: [step.words.removeprefix("remote_access: ") for step in item.remedy] for item in judged}


def test_healthy_disk_has_no_findings(disk: Disk) -> None:
    assert found(disk()) == {}


@pytest.mark.parametrize("path", ["/etc/nologin", "/etc/ssh/sshd_not_to_be_run"])
def test_file_that_keeps_everybody_out(disk: Disk, path: str) -> None:
    assert found(disk({path[1:]: "maintenance"})) == {f"access:{path}": [f"nologin path={path}"]}


def test_nologin_of_the_boot_is_no_fault_of_a_disk(disk: Disk) -> None:
    assert found(disk({"run/nologin": "System is booting up."})) == {}


@pytest.mark.parametrize(
    "line",
    [
        "Bogus yes",
        "PermitRotLogin no",
        "PasswordAuthentication maybe",
        "MaxSessions many",
        "Port",
        "Cyphers = aes256-ctr",
    ],
)
def test_line_that_sshd_refuses_is_taken_away(disk: Disk, line: str) -> None:
    where = "etc/ssh/sshd_config.d/50-cloud.conf"
    assert found(disk({where: f"# a cloud's\n{line}\n"})) == {
        "config:sshd": [f"replace_line path=/{where} line={line} to="]
    }


def test_running_sshd_is_asked_itself(disk: Disk) -> None:
    seen = {**HEALTHY, **look(disk({"etc/ssh/sshd_config": "Bogus yes\n"}))}
    assert findings.judge({"web1": {**seen, "units": {}}}) == []


def test_broken_file_of_the_role_is_written_again(disk: Disk) -> None:
    assert found(disk({"etc/ssh/sshd_config.d/00-hikeshi.conf": "Cyphers none\n"})) == {
        "config:sshd": ["sshd_configuration"]
    }


@pytest.mark.parametrize(
    ("line", "to"),
    [
        ("DenyUsers deploy", ""),
        ("DenyUsers bob deploy", "DenyUsers bob"),
        ("DenyUsers d*", ""),
        ("AllowUsers bob", "AllowUsers bob deploy"),
        ("AllowGroups wheel", "AllowGroups wheel deploy"),
        ("DenyGroups adm sys", "DenyGroups sys"),
        ("MaxSessions 0", ""),
        ("PubkeyAuthentication no", ""),
        ("AuthenticationMethods publickey,password password", ""),
        ("AuthorizedKeysFile none", ""),
        ("ForceCommand /bin/false", ""),
    ],
)
def test_line_that_lets_us_in_no_more(disk: Disk, line: str, to: str) -> None:
    steps = [f"replace_line path=/etc/ssh/sshd_config line={line} to={to}"]
    for text in (f"{line}\nInclude /etc/ssh/sshd_config.d/*.conf\n", f"UsePAM yes\nMatch all\n  {line}\n"):
        assert found(disk({"etc/ssh/sshd_config": text})) == {"access:/etc/ssh/sshd_config": steps}


@pytest.mark.parametrize(
    "lines",
    [
        "AllowUsers bob deploy",
        "AllowUsers deploy@192.0.2.7",
        "AllowUsers *",
        "AllowGroups adm",
        "DenyUsers bob",
        "DenyUsers deploy@203.0.113.9",
        "MaxSessions 10\nMaxSessions 0",
        "AuthenticationMethods publickey",
        "Match User backup\n  ForceCommand /usr/bin/rrsync /srv\n  MaxSessions 0",
        "Match Address 203.0.113.0/24\n  DenyUsers deploy",
        "Match Group sftp\n  ChrootDirectory /srv/sftp",
    ],
)
def test_what_shuts_us_out_nowhere_or_somewhere_only_stays(disk: Disk, lines: str) -> None:
    assert found(disk({"etc/ssh/sshd_config": f"{lines}\n"})) == {}


@pytest.mark.parametrize("file", ["etc/pam.d/sshd", "etc/pam.d/common-account", "etc/pam.d/login", "etc/pam.d/sudo"])
def test_module_that_is_not_there(disk: Disk, file: str) -> None:
    line = "account required pam_gone.so"
    text = f"{DISK.get(file, '')}{line}\n"
    assert found(disk({file: text})) == {f"access:/{file}": [f"replace_line path=/{file} line={line} to="]}
    healthy = {"facts": {f"file:/{file}": {"digest": "a", "mode": "0644"}}, "texts": {f"/{file}": "f" * 64}}
    back = [f"login_file path=/{file} text={'f' * 12}… mode=0644"]
    assert found(disk({file: text}), healthy) == {f"access:/{file}": back}
    # The file is as it was: its module is lost, and no line of it is to blame.
    as_it_was = {"facts": {f"file:/{file}": {"digest": "a"}}}
    assert found(disk({file: text}), healthy, state=as_it_was) == {f"access:/{file}": []}


def test_question_of_a_password_is_not_taken_away(disk: Disk) -> None:
    assert found(disk({"etc/pam.d/sshd": "auth required pam_second_factor.so\n"})) == {"access:/etc/pam.d/sshd": []}


def test_lost_file_that_is_included_comes_back_itself(disk: Disk) -> None:
    path = "/etc/pam.d/common-session"
    root = disk({"etc/pam.d/sshd": "@include common-session\n"})
    assert found(root) == {"access:/etc/pam.d/sshd": []}
    healthy = {"facts": {f"file:{path}": {"digest": "a", "mode": "0644"}}, "texts": {path: "e" * 64}}
    assert found(root, healthy) == {"access:/etc/pam.d/sshd": [f"login_file path={path} text={'e' * 12}… mode=0644"]}


@pytest.mark.parametrize(
    "fields",
    [
        f"!:0:0:99999:7:::{''}",
        f"!:{NOW - 9}:0:99999:7::0:",
        f"!:{NOW - 9}:0:99999:7::{NOW}:",
        f"!:{NOW - 99}:0:30:7:::",
    ],
)
def test_account_that_has_expired(disk: Disk, fields: str) -> None:
    assert found(disk({"etc/shadow": f"deploy:{fields}\n"})) == {"account:deploy": [ACCOUNT]}


@pytest.mark.parametrize("shell", ["/usr/sbin/nologin", "/bin/gone"])
def test_account_without_a_shell(disk: Disk, shell: str) -> None:
    passwd = f"root:x:0:0::/root:/bin/bash\ndeploy:x:1000:1000::/home/deploy:{shell}\n"
    assert found(disk({"etc/passwd": passwd})) == {"account:deploy": [ACCOUNT]}


def test_account_that_is_not_there_is_told_of(disk: Disk) -> None:
    assert found(disk({"etc/passwd": "root:x:0:0::/root:/bin/bash\n"})) == {"account:deploy": []}


def test_account_that_expires_later_stays(disk: Disk) -> None:
    assert found(disk({"etc/shadow": f"deploy:!:{NOW - 9}:0:99999:7:30:{NOW + 1}:\n"})) == {}


def test_home_that_others_may_write_to(disk: Disk) -> None:
    root = disk()
    (root / "home" / "deploy").chmod(0o777)
    assert found(root) == {"path:/home/deploy": ["host_base: path_mode path=/home/deploy mode=0755"]}


@pytest.mark.parametrize("mode", [0o775, 0o750])
def test_home_that_the_group_may_write_to_is_open_where_others_are_in_it(disk: Disk, mode: int) -> None:
    root = disk()
    home = root / "home" / "deploy"
    home.chmod(mode)
    os.chown(home, 1000, 1000)
    assert found(root) == {}
    os.chown(home, 1000, 0)
    assert bool(found(root)) == (mode == 0o775)


@pytest.mark.parametrize(
    ("file", "rule", "to"),
    [
        ("deny", "sshd: ALL", ""),
        ("deny", "vsftpd, sshd : ALL", "vsftpd: ALL"),
        ("deny", "ALL:ALL", "ALL EXCEPT sshd:ALL"),
        ("allow", "sshd: ALL: deny", ""),
    ],
)
def test_wrappers_that_refuse_everybody(disk: Disk, file: str, rule: str, to: str) -> None:
    steps = [f"replace_line path=/etc/hosts.{file} line={rule} to={to}"]
    assert found(disk({f"etc/hosts.{file}": f"# ours\n{rule}\n"})) == {f"access:/etc/hosts.{file}": steps}


@pytest.mark.parametrize(
    ("allow", "deny"),
    [
        ("sshd: 192.0.2.0/255.255.255.0", "ALL: ALL"),
        ("", "sshd: 203.0.113."),
        ("", "ALL EXCEPT sshd: ALL"),
        ("", "vsftpd: ALL"),
        ("", "sshd: ALL: allow"),
    ],
)
def test_wrappers_that_let_somebody_in_stay(disk: Disk, allow: str, deny: str) -> None:
    assert found(disk({"etc/hosts.allow": f"{allow}\n", "etc/hosts.deny": f"{deny}\n"})) == {}


def test_directory_of_sshd_that_is_made_no_more(disk: Disk) -> None:
    file = f"{UNITS}/ssh.service.d/override.conf"
    step = f"replace_line path=/{file} line=RuntimeDirectory= to="
    assert found(disk({file: "[Service]\nRuntimeDirectory=\n"})) == {f"access:/{file}": [step]}
    assert found(disk({file: "[Service]\nRuntimeDirectory=\nRuntimeDirectory=sshd\n"})) == {}


@pytest.mark.parametrize(
    ("body", "script"),
    [
        ("Type=oneshot\nExecStart=/bin/sleep infinity", ""),
        ("Type=oneshot\nExecStart=/bin/sh -c 'until mountpoint -q /mnt/nfs; do sleep 1; done'", ""),
        (
            "Type=oneshot\nExecStart=/usr/local/sbin/wait-for-nfs",
            "#!/bin/sh\nwhile ! ping -c1 nas; do\n sleep 5\ndone\n",
        ),
    ],
)
def test_unit_that_a_boot_waits_for_without_end(disk: Disk, body: str, script: str) -> None:
    unit, link = "wait.service", "multi-user.target.wants/wait.service"
    text = f"[Unit]\nBefore=systemd-user-sessions.service\n[Service]\n{body}\n"
    root = disk({f"{UNITS}/{unit}": text, "usr/local/sbin/wait-for-nfs": script}, {link: unit})
    step = f"boot_link link=/{UNITS}/{link}"
    assert found(root) == {f"unit:{unit}": [step]}
    assert found(root, {"facts": {"unit:mtu.service": {}}, "texts": {}}) == {f"unit:{unit}": [step]}
    assert found(root, {"facts": {f"unit:{unit}": {}}, "texts": {}}) == {}, "on a healthy day it was there as well"
    (root / UNITS / unit).write_text(f"{text}TimeoutStartSec=30\n")
    assert found(root) == {}


def test_mount_without_which_a_boot_fails(disk: Disk) -> None:
    unit, link = "mnt-old.mount", "local-fs.target.requires/mnt-old.mount"
    text = "[Mount]\nWhat=/srv/old-disk\nWhere=/mnt/old\nType=none\nOptions=bind\n"
    root = disk({f"{UNITS}/{unit}": text}, {link: unit})
    step = f"boot_link link=/{UNITS}/{link}"
    known: dict[str, Any] = {"facts": {f"unit:{unit}": {}}, "texts": {}}
    assert found(root) == found(root, known) == {f"unit:{unit}": [step]}
    (root / "srv" / "old-disk").mkdir(parents=True)
    assert found(root) == found(root, known) == {}
    # Of a device only the running system could say; one that is new is not needed any more.
    (root / UNITS / unit).write_text(text.replace("/srv/old-disk", "/dev/vdc1"))
    assert found(root) == found(root, known) == {}
    assert found(root, {"facts": {"unit:mtu.service": {}}, "texts": {}}) == {f"unit:{unit}": [step]}


def test_boot_that_still_waits_is_let_go_on(disk: Disk) -> None:
    unit, link = "wait.service", "multi-user.target.wants/wait.service"
    text = "[Unit]\nBefore=network.target\n[Service]\nType=oneshot\nExecStart=/bin/sleep infinity\n"
    seen = {**HEALTHY, **look(disk({f"{UNITS}/{unit}": text}, {link: unit})), "units": {}}
    assert findings.judge({"web1": seen}) == [], "it may have ended long ago"
    jobs = [("wait.service", "running"), ("foreign.service", "running"), (LETS_IN, "waiting")]
    seen["way_in"]["jobs"] = [{"unit": unit, "type": "start", "state": state} for unit, state in jobs]
    seen["way_in"]["shut"] = ["/run/nologin"]
    seen["boot"] = {"id": "x", "up_s": 600.0, "state": "starting"}
    judged = findings.judge({"web1": seen})
    assert {item.subject: [f"{step.kind} {step.step}" for step in item.remedy] for item in judged} == {
        "unit:wait.service": ["disk boot_link", "live let_go"],
        "unit:foreign.service": ["live let_go"],
    }
    seen["boot"]["up_s"] = 20.0
    assert findings.judge({"web1": seen}) == [], "a boot may take a while"


def test_host_key_that_is_another_is_told_of_and_accepted_by_nobody(disk: Disk) -> None:
    facts = {"host_key:ed25519": {"fingerprint": "SHA256:one"}}
    now = {"facts": {"host_key:ed25519": {"fingerprint": "SHA256:two"}}}
    assert found(disk(), {"facts": facts, "texts": {}}, state=now) == {"host_key:ed25519": []}
    assert found(disk(), {"facts": facts, "texts": {}}, state={"facts": facts}) == {}


def test_what_a_healthy_day_knew_is_not_taken_from_the_host(disk: Disk) -> None:
    seen = {**look(disk()), "healthy": {"facts": {"host_key:x": {}}}, "state": {"facts": {"host_key:x": {"a": 1}}}}
    assert findings.judge_disk({"web1": seen}) == []


def test_links_lead_nowhere_out_of_the_disk(disk: Disk, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("controller")
    (outside / "sshd").write_text("account required pam_gone.so\n")
    (outside / "sshd_config").write_text("Bogus yes\n")
    root = disk({"etc/ssh/sshd_config": None})
    for link, target in (("etc/pam.d/su", outside / "sshd"), ("etc/ssh/sshd_config", outside / "sshd_config")):
        (root / link).symlink_to(target)
    os.mkfifo(root / "etc/pam.d/sudo")
    seen = COLLECT.Collector()
    with STATE.Root(seen, str(root)) as opened:
        told = WAY_IN.collect(opened, [SUBJECT])
    assert (told["sshd"], [line for line in told["modules"] if line["control"] == "required"]) == ([], [])


@pytest.mark.parametrize("control", ["required", "requisite", "@include", "[success=ok default=die]"])
def test_controls_with_which_a_lost_module_lets_nobody_in(control: str) -> None:
    assert login.stops_login(control)


@pytest.mark.parametrize("control", ["optional", "sufficient", "[success=1 default=ignore]", "[]"])
def test_controls_that_do_without_a_module(control: str) -> None:
    assert not login.stops_login(control)
