"""remote_access: who gets in, asked of the sshd that listens; and that no change ever shuts everybody out for long."""

import hashlib
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from hikeshi.triage import findings
from tests.infra.asking import Apply, Mend, must, wait_until
from tests.templates.rendering import value

PROJECT = Path(__file__).resolve().parents[2]
INSTANCE = Path(os.environ.get("MOLECULE_EPHEMERAL_DIRECTORY", "")).name
KEPT = "/var/lib/hikeshi/kept"
PENDING = "/var/lib/hikeshi/access/pending"
DROP_IN = "/etc/ssh/sshd_config.d/00-hikeshi.conf"
KEYS = "/home/deploy/.ssh/authorized_keys"
ADDRESSES = ["127.0.0.1", "::1"]
MINUTE = 60
# Everything that decides who gets in.
WAY_IN = (
    "find /etc/ssh /etc/pam.d /etc/sudoers.d /home/*/.ssh -printf '%p %m %U:%G %l\\n' -type f -exec md5sum {} ';'"
    " | sort; grep -E '^(root|deploy|break-glass):' /etc/passwd /etc/shadow || true"
)


def enters(host: Host, user: str = "deploy", address: str = "127.0.0.1", key: str = "/root/controller") -> bool:
    """Say whether a new login, by ssh, from inside, gets as far as being root."""
    options = "-F none -o BatchMode=yes -o ConnectTimeout=5 -o IdentitiesOnly=yes -o StrictHostKeyChecking=no"
    command = f"ssh {options} -o UserKnownHostsFile=/root/known -o LogLevel=ERROR -i {key} -l {user} {address}"
    return str(host.run(f"timeout 20 {command} sudo -n id -u").stdout).strip() == "0"


@pytest.fixture(autouse=True)
def nothing_pending(host: Host) -> None:
    """Begin with nothing pending. Whether anybody gets in each test asks itself: a stopped sshd must fail them all."""
    host.run("hikeshi-access undo")


def apply_on_host(host: Host, wanted: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Make a change as a controller does that dies right afterwards: nobody commits it, nobody undoes it."""
    whole = {"seconds": 8, "deploy": "deploy", **wanted}
    done = host.run(f"printf %s {shlex.quote(json.dumps(whole))} | hikeshi-access apply")
    return subprocess.CompletedProcess([], done.rc, done.stdout, done.stderr)


def public_key(host: Host, name: str) -> str:
    return must(host, f"ssh-keygen -y -f /root/{name}").strip()


def file(path: str, text: str) -> dict[str, str]:
    return {"path": path, "text": text, "mode": "0644"}


def locking_change(host: Host, name: str) -> dict[str, Any]:
    """Return a change that looks well and lets nobody in; none of them can be foreseen by reading alone."""
    if name == "algorithm":
        return {"files": [file("/etc/ssh/sshd_config.d/10-strong.conf", "PubkeyAcceptedAlgorithms rsa-sha2-512\n")]}
    if name == "users":  # allowed from anywhere else than where we come from
        return {"files": [file("/etc/ssh/sshd_config.d/00-a.conf", "AllowUsers nobody deploy@192.0.2.0/24\n")]}
    if name == "pam":
        old = must(host, "cat /etc/pam.d/sshd")
        return {"files": [file("/etc/pam.d/sshd", f"account required pam_deny.so\n{old}")]}
    if name == "sudo":
        return {
            "files": [
                {"path": "/etc/sudoers.d/zz", "text": "deploy ALL=(ALL) NOPASSWD: /bin/true, !ALL\n", "mode": "0440"}
            ]
        }
    wanted = {"user": "deploy", "add": [public_key(host, "other")], "remove": [public_key(host, "controller")]}
    return {"keys": [wanted]}


def test_key_opens_over_both_families_and_strangers_stay_out(host: Host) -> None:
    for address in ADDRESSES:
        assert enters(host, address=address), address
        assert not enters(host, key="/root/other", address=address), address
    assert not enters(host, user="root")


def test_passwords_are_not_asked_for(host: Host) -> None:
    told = host.run(
        "ssh -F none -v -o BatchMode=yes -o StrictHostKeyChecking=no -o PubkeyAuthentication=no deploy@127.0.0.1"
    )
    assert "Authentications that can continue: publickey\r" in told.stderr.replace("\n", "\r"), told.stderr


def test_what_is_missing_in_sshd_is_refused_in_words(host: Host, apply: Apply) -> None:
    before = must(host, WAY_IN)
    applied = apply("remote_access", "main", remote_access_allow_users=["nobody"])
    assert applied.status != 0
    assert "AllowUsers is 'nobody' and leaves deploy out" in applied.output
    applied = apply("remote_access", "main", remote_access_settings={"Cyphers": "aes128-ctr"})
    assert applied.status != 0
    assert "/etc/ssh/sshd_config.d/00-hikeshi.conf" in applied.output and "Cyphers" in applied.output
    assert must(host, WAY_IN) == before
    assert enters(host)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"files": [file(DROP_IN, "DenyUsers deploy\n")]}, "DenyUsers is 'deploy' and names deploy"),
        ({"files": [file(DROP_IN, "AllowGroups sudo\n")]}, "AllowGroups is 'sudo' and leaves deploy out"),
        ({"files": [file(DROP_IN, "PubkeyAuthentication no\n")]}, "PubkeyAuthentication is 'no'"),
        ({"keys": [{"user": "deploy", "exactly": []}]}, "deploy would have no authorized key"),
        ({"files": [file("/etc/pam.d/sshd", "auth required pam_nix.so\n")]}, "module pam_nix.so is not installed"),
        ({"files": [file("/etc/pam.d/sshd", "@include common-none\n")]}, "/etc/pam.d/common-none is missing"),
        ({"files": [{"path": "/etc/sudoers.d/x", "text": "deploy ALL=\n", "mode": "0440"}]}, "/etc/sudoers.d/x:1"),
    ],
)
def test_obvious_lock_out_changes_nothing(host: Host, wanted: dict[str, Any], words: str) -> None:
    before = must(host, WAY_IN)
    done = apply_on_host(host, wanted)
    assert done.returncode == 2 and words in done.stderr, done.stderr
    assert must(host, WAY_IN) == before
    assert not host.file(PENDING).exists
    assert enters(host)


@pytest.mark.parametrize("name", ["algorithm", "users", "pam", "sudo", "key"])
def test_lock_out_is_undone_by_itself(host: Host, name: str) -> None:
    assert enters(host)
    before, began = must(host, WAY_IN), time.monotonic()
    done = apply_on_host(host, locking_change(host, name))
    assert done.returncode == 0, done.stderr
    assert not enters(host), f"{name} was meant to lock out; the test proves nothing"
    while not enters(host):
        assert time.monotonic() - began < MINUTE, f"{name}: still locked out after a minute"
        time.sleep(0.3)
    print(f"\n{name}: locked out, and undone after {time.monotonic() - began:.1f} s")
    wait_until(lambda: not host.file(PENDING).exists)
    assert must(host, WAY_IN) == before


def test_role_undoes_at_once_what_no_new_login_proves(host: Host, apply: Apply) -> None:
    before, began = must(host, WAY_IN), time.monotonic()
    applied = apply("remote_access", "main", remote_access_settings={"PubkeyAcceptedAlgorithms": "rsa-sha2-512"})
    assert applied.status != 0
    assert "a new login as deploy with sudo failed, so the former state was put back" in applied.output, applied.output
    assert time.monotonic() - began < MINUTE
    assert must(host, WAY_IN) == before
    assert enters(host)


def test_entry_point_for_other_files_undoes_as_well(host: Host, apply: Apply) -> None:
    before = must(host, WAY_IN)
    files = [file("/etc/pam.d/sshd", must(host, "cat /etc/pam.d/sshd") + "account required pam_deny.so\n")]
    applied = apply("remote_access", "change", remote_access_files=files)
    assert applied.status != 0
    assert "the former state was put back" in applied.output, applied.output
    assert must(host, WAY_IN) == before
    assert apply("remote_access", "change", remote_access_files=[file("/etc/passwd", "")]).status != 0
    assert enters(host)


def test_killed_controller_leaves_nothing_behind(host: Host) -> None:
    """Ansible is killed between the change and its proof, as hard as can be."""
    assert enters(host)
    before = must(host, WAY_IN)
    entry = {"role": "remote_access", "tasks_from": "main", "step": "", "args": {}}
    more = {
        "entry": entry,
        "remote_access_settings": {"RequiredRSASize": "4096", "PubkeyAcceptedAlgorithms": "rsa-sha2-512"},
    }
    words = [str(Path(sys.executable).with_name("ansible-playbook")), "--inventory=molecule/shared/inventory/hosts.yml"]
    words += [f"--extra-vars={json.dumps(more)}", "molecule/shared/repair.yml"]
    # A folder of its own for shared connections: killed as well, by the folder's name.
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "ANSIBLE_SSH_CONTROL_PATH_DIR": folder}
        run = subprocess.Popen(words, cwd=PROJECT, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
        wait_until(lambda: host.file(PENDING).exists, 60)
        began = time.monotonic()
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        subprocess.run(["pkill", "-KILL", "-f", folder], check=False)
    assert must(host, WAY_IN) != before
    wait_until(lambda: not host.file(PENDING).exists, MINUTE)
    print(f"\nkilled controller: undone after {time.monotonic() - began:.1f} s")
    assert must(host, WAY_IN) == before
    assert enters(host)


def test_reboot_in_the_middle_brings_the_old_state_back(host: Host) -> None:
    assert enters(host)
    before = must(host, WAY_IN)
    assert apply_on_host(host, {**locking_change(host, "key"), "seconds": 600}).returncode == 0
    assert not enters(host)
    for words in (["stop", "--time=20"], ["start"]):
        subprocess.run(["podman", *words, INSTANCE], check=True, capture_output=True)
    wait_until(lambda: enters(host), 30)
    assert must(host, WAY_IN) == before
    assert not host.file(PENDING).exists
    order = must(host, "systemctl show --property=ExecMainExitTimestampMonotonic --value hikeshi-access-undo.service")
    start = must(host, "systemctl show --property=ExecMainStartTimestampMonotonic --value ssh.service")
    assert 0 < int(order) <= int(start), "sshd started before the change was undone"


def test_good_change_stays_and_cuts_no_session(host: Host, apply: Apply) -> None:
    assert enters(host)
    must(
        host,
        "rm -f /run/session; ssh -F none -i /root/controller -o StrictHostKeyChecking=no deploy@127.0.0.1 "
        "'for n in $(seq 100); do echo $n; sleep 0.5; done' > /run/session 2>&1 &",
    )
    wait_until(lambda: host.run("grep -q 1 /run/session").rc == 0)
    main_pid = must(host, "systemctl show --property=MainPID ssh")
    settings = {"remote_access_settings": {"ClientAliveInterval": "77"}}
    applied = apply("remote_access", "main", **settings)
    assert applied.status == 0 and applied.changed == 2, applied.output  # changed, committed
    time.sleep(17)  # longer than it would have taken to undo it
    assert must(host, "sshd -T | grep clientaliveinterval").strip() == "clientaliveinterval 77"
    assert must(host, "systemctl list-units --all --plain --no-legend 'hikeshi-access-undo-*'") == ""
    assert must(host, "systemctl show --property=MainPID ssh") == main_pid, "sshd was restarted"
    count = int(must(host, "tail -n 1 /run/session"))
    wait_until(lambda: int(must(host, "tail -n 1 /run/session")) > count)
    again = apply("remote_access", "main", **settings)
    assert (again.status, again.changed) == (0, 0), again.output
    assert apply("remote_access", "main").status == 0
    assert "clientaliveinterval 0" in must(host, "sshd -T")


def test_second_change_is_refused_while_one_is_pending(host: Host, apply: Apply) -> None:
    # It must still be pending when the role comes, however slow the machine is.
    assert apply_on_host(host, {"files": [file(f"{DROP_IN}.disabled", "# one\n")], "seconds": 600}).returncode == 0
    applied = apply("remote_access", "main", remote_access_settings={"ClientAliveInterval": "78"})
    assert applied.status != 0
    assert "another change of the way in is pending" in applied.output
    assert "hikeshi-access undo" in applied.output
    assert host.run("hikeshi-access commit 0123456789abcdef").rc == 2
    assert json.loads(must(host, "hikeshi-access undo"))["changed"] is True
    assert not host.file(f"{DROP_IN}.disabled").exists
    assert enters(host)


def test_somebodys_key_stays_until_it_is_revoked(host: Host, apply: Apply) -> None:
    other = public_key(host, "other")
    must(host, f"echo '{other}' >> {KEYS}")
    applied = apply("remote_access", "main")
    assert (applied.status, applied.changed) == (0, 0), applied.output
    assert enters(host, key="/root/other")
    assert apply("remote_access", "main", remote_access_revoked_keys=[other]).status == 0
    assert not enters(host, key="/root/other")
    assert enters(host)


def test_break_glass_is_shut_unless_opened_and_opens_from_its_addresses_only(host: Host, apply: Apply) -> None:
    def break_glass(address: str = "127.0.0.1") -> bool:
        return enters(host, "break-glass", address, "/root/other")

    def console(password: str) -> bool:
        command = f"echo {password} | runuser -u nobody -- su break-glass -c 'sudo -n id -u'"
        return str(host.run(command).stdout).strip() == "0"

    host.run("userdel --force --remove break-glass")
    assert not break_glass()
    applied = apply("remote_access", "main")
    assert (applied.status, applied.changed) == (0, 0), (
        "an account that is not there needs no closing: " + applied.output
    )
    key = {"remote_access_break_glass": True, "remote_access_break_glass_keys": [public_key(host, "other")]}
    assert "0 addresses" in apply("remote_access", "main", **key).output
    assert "no password hash" in apply("remote_access", "main", remote_access_break_glass=True).output
    key["remote_access_break_glass_addresses"] = ["127.0.0.1", "198.51.100.0/24"]
    applied = apply("remote_access", "main", **key)
    assert applied.status == 0, applied.output
    assert break_glass() and not break_glass("::1")
    assert not console("open-sesame")

    hashed = must(host, "openssl passwd -6 open-sesame").strip()
    applied = apply(
        "remote_access", "main", remote_access_break_glass=True, remote_access_break_glass_password_hash=hashed
    )
    assert applied.status == 0, applied.output
    assert hashed not in applied.output
    assert hashed not in must(host, "journalctl --no-pager"), "the hash of the password is in the log"
    assert console("open-sesame") and not console("open-barley") and not break_glass()

    # Shut again, and a key put there by whoever knows of the account opens nothing.
    assert apply("remote_access", "main").status == 0
    home = "/home/break-glass/.ssh"
    key_line = public_key(host, "other")
    must(host, f"install -d -o break-glass -m 0700 {home}; echo '{key_line}' > {home}/authorized_keys")
    must(host, f"chown break-glass {home}/authorized_keys")
    assert not console("open-sesame") and not break_glass()
    assert apply("remote_access", "main").status == 0
    assert host.run(f"ls {home}/authorized_keys /etc/sudoers.d/hikeshi-break-glass").stdout == ""
    assert enters(host)


def test_host_keys_are_closed_and_never_made_again(host: Host, apply: Apply) -> None:
    keys = must(host, "md5sum /etc/ssh/ssh_host_*")
    must(host, "chmod 0644 /etc/ssh/ssh_host_rsa_key")
    applied = apply("remote_access", "main")
    assert (applied.status, applied.changed) == (0, 1), applied.output
    assert must(host, "stat --format=%a /etc/ssh/ssh_host_rsa_key").strip() == "600"
    assert must(host, "md5sum /etc/ssh/ssh_host_*") == keys


def test_keys_others_may_write_to_are_closed(host: Host, mend: Mend) -> None:
    must(host, "chmod 0770 /home/deploy/.ssh")
    assert apply_on_host(host, {"keys": [{"user": "deploy", "add": [public_key(host, "controller")]}]}).returncode == 0
    assert must(host, "stat --format='%a %U' /home/deploy/.ssh").split() == ["700", "deploy"]
    must(host, "hikeshi-access undo")
    assert enters(host)


def look(subject: dict[str, Any]) -> dict[str, Any]:
    """Return the evidence of this host, collected over the sshd that listens."""
    variables = f"@{PROJECT}/molecule/remote_access/vars/main.yml"
    with tempfile.TemporaryDirectory() as folder:
        to = Path(folder, "evidence.json")
        done = subprocess.run(
            [
                str(Path(sys.executable).with_name("ansible-playbook")),
                "--inventory=molecule/shared/inventory/hosts.yml",
                f"--extra-vars={variables}",
                f"--extra-vars={json.dumps({'evidence_subjects': [subject], 'evidence_to': str(to)})}",
                "molecule/evidence/converge.yml",
            ],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        evidence: dict[str, Any] = json.loads(to.read_text())["hikeshi"]
        return evidence


@pytest.fixture
def subject() -> dict[str, Any]:
    found: dict[str, Any] = value("remote_access", "__remote_access_subject")
    return found


def test_looking_finds_nothing_on_a_healthy_host_and_changes_nothing(host: Host, subject: dict[str, Any]) -> None:
    state = f"{WAY_IN}; find /run/sshd* /etc/ssh /var/lib/hikeshi -printf '%p %m %U:%G %T@ %C@\\n' | sort"
    before = must(host, state)
    seen = look(subject)
    assert must(host, state) == before
    assert seen["configs"] == {"sshd": {"ok": True, "message": "", "file": "", "unresolved": None}}
    assert findings.judge({"instance": seen}) == []
    assert seen["unseen"] == []


@pytest.fixture
def broken(host: Host) -> Iterator[str]:
    path = "/etc/ssh/sshd_config.d/50-hasty.conf"
    must(host, f"echo 'PermitRotLogin no' > {path}")
    yield path
    must(host, f"rm -f {path} {KEPT}{path}*")


def test_broken_file_of_somebody_else_is_found_and_moved_away(
    host: Host, subject: dict[str, Any], broken: str, mend: Mend
) -> None:
    (found,) = findings.judge({"instance": look(subject)})
    assert (found.subject, found.effect) == ("config:sshd", findings.Effect.WILL_BREAK)
    (step,) = found.remedy
    assert (step.step, step.kind, step.args) == ("sshd_configuration", "disk", {"path": broken})
    mend("remote_access", "disk", "sshd_configuration", path=broken)
    assert must(host, f"cat {KEPT}{broken}") == "PermitRotLogin no\n"
    assert enters(host)


def test_lost_and_broken_files_of_sshd_are_written_again(host: Host, mend: Mend) -> None:
    before = must(host, f"cat {DROP_IN}")
    must(host, f"echo 'Cyphers none' > {DROP_IN}")
    mend("remote_access", "disk", "sshd_configuration", path=DROP_IN)
    assert must(host, f"cat {DROP_IN}") == before
    assert must(host, f"cat {KEPT}{DROP_IN}") == "Cyphers none\n"
    must(host, "echo 'Match Nobody' >> /etc/ssh/sshd_config")
    mend("remote_access", "disk", "sshd_configuration", path="/etc/ssh/sshd_config")
    must(host, "sshd -t && tail -n 1 /var/lib/hikeshi/kept/etc/ssh/sshd_config | grep 'Match Nobody'")
    must(host, "rm /etc/ssh/sshd_config")
    mend("remote_access", "disk", "sshd_configuration")
    must(host, "systemctl reload ssh")
    assert enters(host)


@pytest.mark.at_rest
def test_file_that_sshd_accepts_stays(host: Host, apply: Apply) -> None:
    path = "/etc/ssh/sshd_config.d/60-fine.conf"
    must(host, f"echo 'MaxAuthTries 5' > {path}")
    applied = apply("remote_access", "repair-disk", "sshd_configuration", {"path": path})
    assert (applied.status, applied.changed) == (0, 0), applied.output
    must(host, f"rm {path}")
    for wrong in ("/etc/ssh/../passwd", "/etc/passwd"):
        assert apply("remote_access", "repair-disk", "sshd_configuration", {"path": wrong}).status != 0
    assert host.file("/etc/passwd").exists


def mend_without_ssh(apply: Apply, step: str, where: str = "disk", **args: str) -> None:
    """Take a step twice where nobody gets in by ssh, as rescue would: from the side."""
    aside = {"ansible_connection": "containers.podman.podman", "ansible_user": "root", "ansible_become": False}
    first = apply("remote_access", f"repair-{where}", step, args, **aside)
    assert first.status == 0 and first.changed > 0, first.output
    second = apply("remote_access", f"repair-{where}", step, args, **aside)
    assert (second.status, second.changed) == (0, 0), second.output


def test_lost_access_of_the_deploy_user_is_given_back(host: Host, apply: Apply) -> None:
    must(host, f"rm /etc/sudoers.d/hikeshi-deploy; echo '# lost' > {KEYS}")
    assert not enters(host)
    mend_without_ssh(apply, "deploy_access")
    assert must(host, "cat /etc/sudoers.d/hikeshi-deploy").splitlines()[-1] == "deploy ALL=(ALL:ALL) NOPASSWD: ALL"
    assert must(host, f"cat {KEPT}{KEYS}") == "# lost\n"
    assert enters(host)


def test_nologin_is_moved_away(host: Host, apply: Apply) -> None:
    must(host, "echo maintenance > /etc/nologin")
    assert not enters(host)
    mend_without_ssh(apply, "nologin")
    assert must(host, f"cat {KEPT}/etc/nologin") == "maintenance\n"
    assert enters(host)


@pytest.mark.parametrize("broken", ["chage --lastday 0 deploy", "usermod --expiredate 1 deploy"])
def test_account_is_opened_again(host: Host, apply: Apply, broken: str) -> None:
    assert enters(host)
    must(host, broken)
    assert not enters(host)
    mend_without_ssh(apply, "account_open", user="deploy")
    assert enters(host)
    assert must(host, f"ls {KEPT}/etc/shadow")


def test_line_is_put_right_and_the_rest_of_the_file_stays(host: Host, mend: Mend) -> None:
    before = must(host, "cat /etc/pam.d/login")
    must(host, "printf '  session required pam_gone.so\\n# more\\n' >> /etc/pam.d/login")
    mend("remote_access", "disk", "replace_line", path="/etc/pam.d/login", line="session required pam_gone.so", to="")
    assert must(host, "cat /etc/pam.d/login") == f"{before}# more\n"
    assert "pam_gone" in must(host, f"cat {KEPT}/etc/pam.d/login")
    assert json.loads(must(host, "hikeshi-access status")) == {}, "what was proved is committed"
    mend("remote_access", "disk", "replace_line", path="/etc/pam.d/login", line="# more", to="# less")
    assert must(host, "cat /etc/pam.d/login") == f"{before}# less\n"
    assert enters(host)


def test_line_that_would_shut_us_out_is_undone(host: Host, apply: Apply) -> None:
    path = "/etc/ssh/sshd_config.d/70-ours.conf"
    must(host, f"echo '# ours' > {path}")
    before = must(host, WAY_IN)
    args = {"path": path, "line": "# ours", "to": "PubkeyAcceptedAlgorithms rsa-sha2-512"}
    applied = apply("remote_access", "repair-disk", "replace_line", args)
    assert applied.status != 0 and "the former state was put back" in applied.output, applied.output
    assert must(host, WAY_IN) == before
    must(host, f"rm {path}")
    assert enters(host)


def test_file_comes_back_as_the_baseline_has_it(host: Host, apply: Apply, tmp_path: Path) -> None:
    whole = must(host, "cat /etc/pam.d/common-account")
    text = f"{whole}# as on a healthy day: {{{{ 7 * 7 }}}}\n"
    name = hashlib.sha256(text.encode()).hexdigest()
    (tmp_path / name).write_text(text)
    must(host, "sed -i s/pam_unix.so/pam_unix2.so/ /etc/pam.d/common-account")
    assert not enters(host)
    args = {"path": "/etc/pam.d/common-account", "text": name, "mode": "0644"}
    aside = {"ansible_connection": "containers.podman.podman", "ansible_user": "root", "ansible_become": False}
    for changed in (True, False):
        applied = apply("remote_access", "repair-disk", "login_file", args, remote_access_texts=str(tmp_path), **aside)
        assert applied.status == 0 and bool(applied.changed) == changed, applied.output
    assert must(host, "cat /etc/pam.d/common-account") == text
    assert "pam_unix2" in must(host, f"cat {KEPT}/etc/pam.d/common-account")
    assert enters(host)
    must(host, "sed -i '$d' /etc/pam.d/common-account")
    assert apply("remote_access", "repair-disk", "login_file", args).status != 0, "without a folder of texts"


@pytest.mark.at_rest  # of links below /etc/systemd, whatever runs
def test_boot_goes_on_without_what_it_needed(host: Host, mend: Mend) -> None:
    units, name = "/etc/systemd/system", "mnt-gone.mount"
    must(
        host,
        f"printf '[Mount]\\nWhat=/srv/gone.img\\nWhere=/mnt/gone\\n' > {units}/{name}; "
        f"mkdir -p {units}/local-fs.target.requires; ln -s {units}/{name} {units}/local-fs.target.requires/",
    )
    mend("remote_access", "disk", "boot_link", link=f"{units}/local-fs.target.requires/{name}")
    assert must(host, f"readlink {units}/local-fs.target.wants/{name}").strip() == f"{units}/{name}"
    assert not host.file(f"{units}/local-fs.target.requires/{name}").exists
    mend("remote_access", "disk", "boot_link", link=f"{units}/local-fs.target.wants/{name}")
    assert not host.file(f"{units}/local-fs.target.wants/{name}").exists
    assert host.file(f"{units}/{name}").exists
    must(host, f"rm {units}/{name}")


def test_boot_that_waits_is_let_go_on(host: Host, apply: Apply) -> None:
    unit = "/run/systemd/system/wait-for-nfs.service"
    text = "[Unit]\\nBefore=systemd-user-sessions.service\\n[Service]\\nType=oneshot\\nExecStart=/bin/sleep infinity\\n"
    must(
        host,
        f"printf '{text}' > {unit}; systemctl daemon-reload; systemctl stop systemd-user-sessions; "
        "touch /run/nologin; systemctl start --no-block wait-for-nfs systemd-user-sessions",
    )
    assert not enters(host)
    mend_without_ssh(apply, "let_go", "live", unit="wait-for-nfs.service")
    assert enters(host)
    must(host, f"rm {unit}; systemctl daemon-reload")


@pytest.mark.at_rest
@pytest.mark.parametrize(
    ("step", "args", "words"),
    [
        ("nologin", {"path": "/etc/passwd"}, "allowed: /etc/nologin"),
        ("account_open", {"user": "root"}, "allowed: remote_access_deploy_user"),
        ("replace_line", {"path": "/etc/shadow", "line": "x", "to": ""}, "allowed: a file of sshd"),
        ("replace_line", {"path": "/etc/ssh/../shadow", "line": "x", "to": ""}, "allowed: a file of sshd"),
        ("replace_line", {"path": "/etc/pam.d/su", "line": "auth sufficient x.so"}, "none that asks who somebody is"),
        ("replace_line", {"path": "/etc/hosts.deny", "line": "x", "to": "a\nb"}, "one line"),
        ("boot_link", {"link": "/etc/systemd/system/ssh.service"}, "allowed: a link below"),
    ],
)
def test_step_that_cannot_be_meant_is_refused(host: Host, apply: Apply, step: str, args: Any, words: str) -> None:
    before = must(host, WAY_IN)
    applied = apply("remote_access", "repair-disk", step, args)
    assert applied.status != 0 and words in applied.output, applied.output
    assert must(host, WAY_IN) == before
