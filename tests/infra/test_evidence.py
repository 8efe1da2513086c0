"""evidence: what is there is said, what could not be seen is said too, and looking leaves nothing behind."""

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from tests.infra.asking import Apply, must, wait_until

PROJECT = Path(__file__).resolve().parents[2]
INSTANCE = Path(os.environ.get("MOLECULE_EPHEMERAL_DIRECTORY", "")).name
# What every login writes is left out: wtmp and the like, the sessions, and the time of /tmp, where Ansible unpacks.
STATE = (
    "find / /run -xdev ! -path '/run/systemd/sessions*' ! -path '/run/systemd/users*' ! -path '/run/log/*' "
    "! -path '/var/log/wtmp' ! -path '/var/log/lastlog' ! -path /run/utmp ! -path /tmp "
    "! -path '/run/systemd/transient*' ! -path '/run/systemd/units*' ! -path '/run/user*' "
    "-printf '%p %y %m %U:%G %s %T@ %C@ %l\\n' | sort | LC_ALL=C cat -v; "
    "systemctl list-units --all --plain --no-legend | grep -vE '^(session-|user-|user@|user-runtime-dir@)'"
)
# As a file system and a log may hold them: a template, a terminal's escape, a line end, a byte that is no UTF-8.
TEMPLATE = "{{ 'x' | upper }}"
NAMES = f'"{TEMPLATE}" "$(printf \'\\033[31mred\')" "$(printf \'two\\nlines\')" "$(printf \'latin\\344\')"'


def ansible(program: str, *words: str, **environment: str) -> str:
    """Run a command of Ansible on the scenario's instance, over ssh as on a site."""
    result = subprocess.run(
        [str(Path(sys.executable).with_name(program)), "--inventory=molecule/shared/inventory/hosts.yml", *words],
        cwd=PROJECT,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def look(*subjects: dict[str, Any], user: str = "root") -> dict[str, Any]:
    """Return the evidence as the role hands it over; without subjects, those of the scenario are asked about."""
    more: dict[str, Any] = {"ansible_user": user}
    if subjects:
        more["evidence_subjects"] = [{"role": "web_server", **subject} for subject in subjects]
    return handed_over("converge.yml", **more)


def handed_over(playbook: str, **variables: Any) -> dict[str, Any]:
    """Return what the role returned, whichever of its entry points a playbook of the scenario calls."""
    with tempfile.TemporaryDirectory() as folder:
        to = Path(folder, "evidence.json")
        more = f"--extra-vars={json.dumps({'evidence_to': str(to), **variables})}"
        ansible("ansible-playbook", more, f"molecule/evidence/{playbook}")
        result = json.loads(to.read_text())
    assert result["changed"] is False
    evidence: dict[str, Any] = result["hikeshi"]
    return evidence


def test_healthy_host_is_described_as_it_is(host: Host) -> None:
    age = "ps -o etimes= -p 1"
    before = int(must(host, age))
    seen = look()
    after = int(must(host, age))
    unit = seen["units"]["nginx.service"]
    assert {key: unit[key] for key in ("load", "active", "sub", "enabled", "result", "log")} == {
        "load": "loaded",
        "active": "active",
        "sub": "running",
        "enabled": "enabled",
        "result": "success",
        "log": [],
    }
    assert seen["configs"] == {"nginx": {"ok": True, "message": "", "file": "", "unresolved": None}}
    for path in ("/etc/nginx/nginx.conf", "/var/log/nginx", "/srv/tree/link"):
        told = seen["paths"][path]
        words = f"0{told['mode'][-3:]} {told['owner']} {told['group']} {told['size']} {told['link'] or path}"
        assert (
            must(host, f"stat --format='0%a %U %G %s' {path}; readlink {path} || echo {path}").split() == words.split()
        )
    assert seen["paths"]["/srv/none"] == {"kind": "missing"}
    assert seen["trees"]["/srv/tree"] == {
        "seen": 5,
        "wrong": [{"path": "/srv/tree/closed", "kind": "directory", "mode": "0710"}],
        "complete": True,
    }
    assert seen["mounts"]["/mnt/images-disk"]["mounted"] is True
    assert seen["mounts"]["/srv/tree"] == {"mounted": False, "source": "", "entries": ["closed", "link", "open"]}
    size, inodes = must(host, "df --block-size=1 --output=size,itotal / | tail -n 1").split()
    assert (str(seen["disks"]["/"]["size_bytes"]), str(seen["disks"]["/"]["inodes"])) == (size, inodes)
    assert 0 < seen["disks"]["/"]["free_bytes"] < int(size)
    assert seen["boot"]["id"] == must(host, "cat /proc/sys/kernel/random/boot_id").strip()
    assert before - 1 <= seen["boot"]["up_s"] <= after + 1
    assert seen["boot"]["state"] == "running"
    assert (seen["abandoned"], seen["unseen"]) == ([], [])


TELLS = "import json, sys; print(json.dumps({'words': sys.argv[1:]}))"  # what another role's program may be


def whole_state(folder: Path) -> dict[str, Any]:
    """Return the host's whole state, as it comes through the controller's private folder."""
    asked = {"state": {"key": "5a" * 32, "texts": True, "known": {}}, "programs": {"more": TELLS}}
    (folder / "ask.json").write_text(json.dumps(asked))
    evidence = handed_over("converge.yml", evidence_exchange=str(folder))
    assert not {"state", "programs"} & evidence.keys(), "texts of files pass neither events nor journal"
    assert evidence["unseen"] == []
    told: dict[str, Any] = json.loads((folder / "instance.json").read_text())
    assert told["programs"] == {"more": {"words": ["collect"]}}
    state: dict[str, Any] = told["state"]
    return state


def test_asking_for_the_whole_state_changes_nothing_and_is_told_alike(host: Host, tmp_path: Path) -> None:
    must(host, "printf 'secret' > /etc/hikeshi-test.key; chmod 0600 /etc/hikeshi-test.key; touch /etc/{{1+1}}.conf")
    before = must(host, STATE)
    first = whole_state(tmp_path)
    after = must(host, STATE)
    assert sorted(set(before.splitlines()) ^ set(after.splitlines())) == []
    again = whole_state(tmp_path)
    for told in (first, again):
        told["facts"].pop("boot:previous", None)  # each login is a line of wtmp
    assert again == first
    facts, texts = first["facts"], first["texts"]
    assert facts["unit:nginx.service"]["active"] == "active"
    assert facts["listen:tcp/0.0.0.0:80"]["program"] == "nginx"
    assert facts["sshd:permitrootlogin"]["value"]
    assert facts["file:/etc/nginx/nginx.conf"]["mode"] == "0644"
    assert texts["/etc/nginx/nginx.conf"] == host.file("/etc/nginx/nginx.conf").content_string
    assert facts["file:/etc/hikeshi-test.key"]["secret"] is True
    assert "/etc/hikeshi-test.key" not in texts
    assert "file:/etc/{{1+1}}.conf" in facts
    must(host, "rm /etc/hikeshi-test.key '/etc/{{1+1}}.conf'")


@pytest.mark.at_rest
def test_looking_changes_nothing_where_nginx_never_ran(host: Host) -> None:
    must(host, "systemctl stop nginx; rm -rf /run/nginx.pid /var/log/nginx/* /var/lib/nginx/*")
    before = must(host, STATE)
    assert look()["configs"]["nginx"]["ok"] is True
    after = must(host, STATE)
    must(host, "systemctl start nginx")
    assert sorted(set(before.splitlines()) ^ set(after.splitlines())) == []


def test_looking_changes_nothing_where_nginx_runs(host: Host) -> None:
    before = must(host, STATE)
    assert look()["units"]["nginx.service"]["active"] == "active"
    assert sorted(set(before.splitlines()) ^ set(must(host, STATE).splitlines())) == []


def test_web_server_is_asked_and_who_listens_is_told() -> None:
    answers = [{"url": url, "host": "localhost"} for url in ("/", "http://127.0.0.1/none", "http://127.0.0.1:9/")]
    listens = [{"address": "127.0.0.1", "port": port} for port in (80, 9)]
    seen = look({"answers": answers, "listens": [*listens, {"socket": "/run/none.sock"}]})
    told = {name.split()[0]: item for name, item in seen["answers"].items()}
    assert [told[url].get("status") for url in ("/", "http://127.0.0.1/none")] == [200, 404]
    assert "refused" in told["http://127.0.0.1:9/"]["why"]
    assert seen["listens"] == {"127.0.0.1:80": True, "127.0.0.1:9": False, "/run/none.sock": False}
    assert seen["unseen"] == []


@pytest.mark.at_rest
def test_where_sshd_listens_is_told_also_on_another_port(host: Host) -> None:
    must(
        host,
        "mkdir -p /run/sshd; ssh-keygen -q -t ed25519 -N '' -f /run/hikeshi-test-key; /usr/sbin/sshd -p 2222 "
        "-h /run/hikeshi-test-key -o ListenAddress=127.0.0.1 -o PidFile=/run/hikeshi-test.pid",
    )
    told = look()
    must(host, "kill $(cat /run/hikeshi-test.pid); rm /run/hikeshi-test-key*")
    assert {"address": "127.0.0.1", "port": 2222, "by": "sshd"} in told["sshd_at"]
    assert told["unseen"] == []


@pytest.fixture(scope="module")
def broken(host: Host) -> Iterator[dict[str, Any]]:
    """Return the evidence of a host on which much is wrong at once."""
    must(
        host,
        f"mkdir -m 0755 /srv/hostile; cd /srv/hostile; touch {NAMES}; chmod 0600 ./*; "
        "printf '\"gzip in /etc/passwd:1\\nin /etc/group:1\" 9;' > '/etc/nginx/conf.d/spring sale.conf'; "
        f"printf '#!/bin/sh\\nls --literal /srv/hostile; exit 1\\n' > /srv/list; chmod 0755 /srv/list; "
        "printf '[Service]\\nType=oneshot\\nExecStart=/srv/list\\n' > /run/systemd/system/hostile.service; "
        "systemctl mask --runtime masked.service; systemctl daemon-reload; systemctl start hostile; "
        "echo 'an error of today' | systemd-cat -p err; journalctl --sync",
    )
    yield look(
        {
            "units": [{"name": "masked.service"}, {"name": "none.service"}],
            "paths": [{"path": "/etc/passwd/below"}],
            "mounts": [{"path": "/srv/hostile", "unit": "none.mount"}],
            "trees": [{"path": "/srv/hostile", "directories": "0755", "files": "0644"}],
            "config_test": "nginx -t -q",
        },
        {"config_test": "no-such-server -t"},
    )
    must(
        host,
        "rm -rf /srv/hostile /srv/list /etc/nginx/conf.d/*.conf /run/systemd/system/hostile.service; "
        "systemctl unmask --runtime masked.service; systemctl daemon-reload; systemctl reset-failed",
    )


@pytest.mark.at_rest
def test_broken_include_is_named(broken: dict[str, Any]) -> None:
    told = broken["configs"]["nginx"]
    assert told["ok"] is False
    assert "[emerg]" in told["message"], told
    assert 'unknown directive "gzip' in told["message"], told
    assert told["file"] == "/etc/nginx/conf.d/spring sale.conf", told


@pytest.mark.at_rest
def test_masked_lost_and_failed_units_are_told_apart(broken: dict[str, Any]) -> None:
    told = {name: (unit["load"], unit["active"]) for name, unit in broken["units"].items()}
    assert told == {
        "masked.service": ("masked", "inactive"),
        "none.service": ("not-found", "inactive"),
        "hostile.service": ("loaded", "failed"),  # nobody asked about it: it failed
    }
    assert any("an error of today" in line for line in broken["errors"])


@pytest.mark.at_rest
def test_hostile_names_and_lines_come_back_as_data(broken: dict[str, Any]) -> None:
    names = ["\x1b[31mred", "latin\\xe4", "two\nlines", TEMPLATE]
    assert broken["mounts"]["/srv/hostile"]["entries"] == names
    wrong = sorted(item["path"] for item in broken["trees"]["/srv/hostile"]["wrong"])
    assert wrong == [f"/srv/hostile/{name}" for name in names]
    log = broken["units"]["hostile.service"]["log"]
    assert {TEMPLATE, "\x1b[31mred", "latin\\xe4", "two", "lines"} <= set(log), log


@pytest.mark.at_rest
def test_what_could_not_be_looked_at_is_unseen(broken: dict[str, Any]) -> None:
    assert [item["source"] for item in broken["unseen"]] == ["/etc/passwd/below", "no-such-server -t"]
    assert "no-such-server" not in broken["configs"], "a test that cannot be run says nothing about the configuration"


@pytest.mark.at_rest
def test_of_a_long_log_the_newest_lines_are_shown(host: Host) -> None:
    must(
        host,
        "printf '[Service]\\nType=oneshot\\nExecStart=/bin/sh -c \"seq 60; exit 1\"\\n'"
        " > /run/systemd/system/talker.service; systemctl daemon-reload; systemctl start talker || true;"
        " seq --format=trouble-%g 40 | systemd-cat -p err; journalctl --sync",
    )
    seen = look({"units": [{"name": "talker.service"}]})
    must(host, "rm /run/systemd/system/talker.service; systemctl daemon-reload; systemctl reset-failed")
    said = [int(line) for line in seen["units"]["talker.service"]["log"] if line.isdigit()]
    assert (said[-1], 1 in said) == (60, False), said
    assert said == sorted(said), "oldest first, as people read"
    assert seen["errors"][-1].endswith("trouble-40"), seen["errors"]


@pytest.mark.at_rest
def test_name_that_systemd_refuses_is_no_stopped_unit() -> None:
    seen = look({"units": [{"name": "template@.service"}, {"name": "nginx.service"}]})
    assert seen["units"] == {}
    assert "template@.service" in seen["unseen"][0]["why"]


@pytest.mark.at_rest
def test_source_that_hangs_is_given_up_alone_and_leaves_nothing_running(host: Host) -> None:
    must(host, "mkfifo /etc/nginx/conf.d/pipe.conf")
    seen = look({"units": [{"name": "nginx.service"}], "config_test": "timeout 60 nginx -t -q"})
    must(host, "rm /etc/nginx/conf.d/pipe.conf")
    assert seen["unseen"] == [{"source": "timeout 60 nginx -t -q", "why": "no answer within 5 s"}]
    assert seen["configs"] == {}
    assert seen["units"]["nginx.service"]["load"] != "", "the others should have gone on"
    assert host.run("pgrep -f 'nginx -[t]'").stdout == ""


@pytest.mark.at_rest
def test_without_root_it_says_what_it_could_not_see(host: Host) -> None:
    must(host, "mkdir -p /srv/half && touch /srv/half/file && chmod 0744 /srv/half")
    seen = look(
        {
            "units": [{"name": "nginx.service"}],
            "paths": [{"path": "/srv/tree/closed/file"}, {"path": "/srv/tree"}],
            "mounts": [{"path": "/srv/tree/closed", "unit": "none.mount"}],
            "trees": [
                {"path": "/srv/tree", "directories": "0755", "files": "0644"},
                {"path": "/srv/half", "directories": "0755", "files": "0644"},
            ],
            "config_test": "nginx -t -q",
        },
        user="deploy",
    )
    assert seen["units"]["nginx.service"]["load"] != ""
    assert seen["paths"]["/srv/tree"]["kind"] == "directory"
    assert seen["paths"]["/srv/tree/closed/file"] == {"kind": "unreadable"}
    assert [seen["trees"][path]["complete"] for path in ("/srv/tree", "/srv/half")] == [False, False]
    unseen = {item["source"]: item["why"] for item in seen["unseen"]}
    assert unseen["what only root may see"] == "asked as deploy: of the log, too"
    assert unseen["/srv/tree/closed/file"] == unseen["/srv/tree/closed"] == "Permission denied"
    assert unseen["/srv/tree"] == "1 below it, first /srv/tree/closed: Permission denied"
    assert unseen["/srv/half"] == "1 below it, first /srv/half/file: Permission denied"
    assert "not permitted" in unseen["nginx -t -q"]


@pytest.mark.at_rest
def test_process_that_a_dropped_connection_left_behind_is_listed(host: Host) -> None:
    left, kept = "sleep 301", "sleep 302"
    must(host, f"su - deploy -c '{kept}' >/dev/null 2>&1 &")
    command = f"trap '' HUP; {left} >/dev/null 2>&1 &"
    ansible("ansible", "instance", "--module-name=raw", f"--args={command}", ANSIBLE_SSH_ARGS="")
    wait_until(lambda: host.run(f"pgrep -fx '{left}' && pgrep -fx '{kept}'").rc == 0)
    seen = look({"units": []})["abandoned"]
    must(host, "pkill -fx 'sleep 30[12]'")
    assert [item["command"] for item in seen] == [left], "of a local session that still stands, nothing is left behind"
    assert 0 <= seen[0]["age_s"] < 60


@pytest.fixture
def added(host: Host) -> Iterator[None]:
    """Put beside a role's and the packages' files what administrators do, and names that are patterns elsewhere."""
    must(
        host,
        "cd /etc/nginx; touch conf.d/ours.conf conf.d/theirs.conf 'conf.d/*' 'conf.d/[n]ginx.conf';"
        " touch sites-available/intranet; cd sites-enabled; ln -s ../sites-available/intranet intranet;"
        " ln -s nowhere dangling; ln -s /etc/hostname hostname; cd ..; echo '# tuned' >> mime.types;"
        " mkdir -p snippets.d/deep /etc/systemd/system/nginx.service.d; touch snippets.d/one snippets.d/deep/two;"
        " cd /etc/systemd/system; printf '[Service]\nNice=5\n' > nginx.service.d/nice.conf;"
        " ln -s /lib/systemd/system/ssh.service alias.service; ln -s /dev/null masked.service;"
        " useradd --create-home --shell /bin/bash kenji; useradd --no-create-home --shell /usr/sbin/nologin robot;"
        " useradd --system --shell /bin/bash service",
    )
    yield
    must(
        host,
        "cd /etc/nginx; rm -r conf.d/* sites-available/intranet sites-enabled/intranet sites-enabled/dangling"
        " sites-enabled/hostname snippets.d; sed -i '$d' mime.types; cd /etc/systemd/system;"
        " rm -r nginx.service.d alias.service masked.service; userdel -r kenji; userdel robot; userdel service;"
        " systemctl daemon-reload",
    )


@pytest.mark.at_rest
@pytest.mark.usefixtures("added")
def test_what_people_added_is_told_from_what_roles_and_packages_made(host: Host) -> None:
    before = must(host, STATE)
    names = ("nginx", "nginx/sites-available", "nginx/sites-enabled", "systemd/system", "none")
    places = [f"/etc/{name}" for name in names]
    own = {"/etc/nginx/sites-enabled": ["hostname"]}
    seen = look(
        {
            "paths": [{"path": "/etc/nginx/conf.d/ours.conf"}],
            "directories": [{"path": place, "own": own.get(place, [])} for place in places],
            "users": ["deploy"],
        }
    )
    package = must(host, "dpkg-query -S /etc/nginx/mime.types").split(":")[0]
    kenji = must(host, "id -u kenji").strip()
    others = [item for item in seen["additions"] if "spring sale" not in item["name"]]  # of the tests before
    assert [(item["kind"], item["name"], item["more"]) for item in others] == [
        ("file", "/etc/nginx/conf.d/*", ""),
        ("file", "/etc/nginx/conf.d/[n]ginx.conf", ""),
        ("file", "/etc/nginx/conf.d/theirs.conf", ""),
        ("setting", "/etc/nginx/mime.types", package),
        ("file", "/etc/nginx/sites-available/intranet", ""),
        ("link", "/etc/nginx/sites-enabled/intranet", "/etc/nginx/sites-available/intranet"),
        ("file", "/etc/nginx/snippets.d/one", ""),
        ("file", "/etc/systemd/system/nginx.service.d/nice.conf", ""),
        ("user", "kenji", f"uid {kenji}, /bin/bash"),
    ]
    assert seen["unseen"] == []
    assert sorted(set(before.splitlines()) ^ set(must(host, STATE).splitlines())) == []


@pytest.mark.at_rest
def test_locks_are_described_with_their_owners(host: Host) -> None:
    must(
        host,
        "mkdir -p /srv/locks; cd /srv/locks; sleep 303 > /dev/null 2>&1 & echo $! > /srv/locks/live; "
        "cd /srv/locks; echo 4194303 > dead; cp live reused; touch -d '1 day ago' reused dead; "
        "echo the export > nameless; "
        "ln -sf live link; mkfifo pipe; head -c 100000 /dev/zero | tr '\\0' 1 > huge",
    )
    names = ("live", "dead", "reused", "nameless", "link", "pipe", "huge", "none")
    evidence = look({"locks": [{"path": f"/srv/locks/{name}", "unit": "none.service"} for name in names]})
    pid = int(must(host, "cat /srv/locks/live"))
    must(host, "kill $(cat /srv/locks/live); rm -r /srv/locks")
    seen = {name: evidence["locks"][f"/srv/locks/{name}"] for name in names}
    assert [name for name in names if seen[name]["present"]] == ["live", "dead", "reused", "nameless", "huge"]
    assert [seen[name]["pid"] for name in ("live", "dead", "reused", "nameless", "huge")] == [
        pid,
        4194303,
        pid,
        None,
        None,
    ]
    assert [name for name in names if seen[name]["alive"]] == ["live", "reused"]
    assert 0 <= seen["live"]["age_s"] < 60
    assert abs(seen["live"]["owner_age_s"] - seen["live"]["age_s"]) < 2
    assert seen["reused"]["age_s"] > 86000 > 60 > seen["reused"]["owner_age_s"]
    assert seen["dead"]["owner_age_s"] is None
    assert {item["source"] for item in evidence["unseen"]} == {"/srv/locks/link", "/srv/locks/pipe"}


@pytest.mark.at_rest
def test_reports_of_jobs_come_back_as_data(host: Host) -> None:
    report = {
        "unit": "a.service",
        "state": "failed",
        "at": 1.5,
        "result": "exit-code",
        "status": 3,
        "log": [TEMPLATE] * 20,
    }
    for name, text in (("good", json.dumps(report)), ("half", json.dumps(report)[:40]), ("odd", '{"state": 1}')):
        must(host, f"printf '%s' {shlex.quote(text)} > /srv/{name}.json")
    names = ("good", "half", "odd", "none")
    seen = look({"units": [{"name": f"{name}.service", "report": f"/srv/{name}.json"} for name in names]})
    must(host, "rm /srv/*.json")
    told = {"state": "failed", "result": "exit-code", "status": "3", "at": 1.5, "log": [TEMPLATE] * 8}
    assert seen["reports"] == {"good.service": told}
    assert [item["source"] for item in seen["unseen"]] == ["/srv/half.json", "/srv/odd.json"]


@pytest.mark.at_rest
def test_what_fills_a_disk_is_named(host: Host) -> None:
    holder = (
        "exec 3> /srv/small/gone; head -c 3M /dev/zero >&3; rm /srv/small/gone; touch /srv/small/ready; exec sleep 304"
    )
    must(
        host,
        "mkdir -p /srv/small && mount -t tmpfs -o size=32m small /srv/small && "
        "head -c 2M /dev/zero > /srv/small/access.log.1 && echo 'no such picture' > /srv/small/error.log && "
        f"systemd-run --quiet --unit=holder sh -c '{holder}'",
    )
    wait_until(lambda: host.run("test -e /srv/small/ready").rc == 0)
    place = {
        "directory": "/srv/small",
        "rotated": r"access\.log\.[0-9]+",
        "unit": "holder.service",
        "errors": "error.log",
    }
    seen = look({"logs": [{**place, "keep": "/var/lib/hikeshi/kept"}]})
    must(host, "systemctl stop holder; umount /srv/small; rmdir /srv/small")
    assert seen["disks"]["/srv/small"]["size_bytes"] == 32 << 20
    assert seen["logs"]["/srv/small"] == {
        "mount": "/srv/small",
        "keep_mount": "/",
        "old_bytes": 2 << 20,
        "old": [{"name": "access.log.1", "bytes": 2 << 20}],
        "errors": ["no such picture"],
    }
    (told,) = [item for item in seen["deleted"] if item["mount"] == "/srv/small"]
    assert (told["unit"], told["path"], told["bytes"]) == ("holder.service", "/srv/small/gone", 3 << 20)
    assert seen["unseen"] == []


# Without the time of asking, and what was counted.
RULES = "{ iptables-save; ip6tables-save; } | sed '/^#/d; s/\\[.*\\]//'"


@pytest.fixture
def walled(host: Host) -> Iterator[None]:
    """Close the way to an address, to neighbours, and, for the next boot, to a port."""
    must(
        host,
        "iptables -A OUTPUT -o lo -j ACCEPT; iptables -N OWN; iptables -A OUTPUT -p tcp -j OWN;"
        " iptables -A OWN -d 192.0.2.9 -j REJECT; ip6tables -A INPUT -p ipv6-icmp -j DROP;"
        " mkdir -p /etc/iptables; ip6tables -A OUTPUT -p tcp --dport 8420 -j DROP;"
        " ip6tables-save -c > /etc/iptables/rules.v6; ip6tables -D OUTPUT -p tcp --dport 8420 -j DROP;"
        " printf '[Service]\nExecStart=/usr/bin/true\n[Install]\nWantedBy=multi-user.target\n'"
        " > /etc/systemd/system/netfilter-persistent.service; systemctl --quiet enable netfilter-persistent.service",
    )
    yield
    must(
        host,
        "systemctl --quiet disable netfilter-persistent.service;"
        " rm -r /etc/iptables /etc/systemd/system/netfilter-persistent.service; systemctl daemon-reload;"
        " ip6tables -D INPUT -p ipv6-icmp -j DROP; iptables -D OUTPUT -o lo -j ACCEPT;"
        " iptables -D OUTPUT -p tcp -j OWN; iptables -D OWN -d 192.0.2.9 -j REJECT; iptables -X OWN",
    )


@pytest.mark.at_rest
@pytest.mark.usefixtures("walled")
def test_what_may_be_in_the_way_of_a_service_is_told(host: Host) -> None:
    must(host, "systemctl start ssh")
    before = must(host, RULES)
    wanted = [{"name": "127.0.0.1", "port": 22}, {"name": "192.0.2.9", "port": 8420}]
    seen = look({"reaches": wanted})
    assert seen["reaches"] == {
        "127.0.0.1:22": [{"address": "127.0.0.1", "ok": True, "why": ""}],
        "192.0.2.9:8420": [{"address": "192.0.2.9", "ok": False, "why": "ECONNREFUSED"}],
    }
    told = {(item["family"], item["chain"]): item["rules"] for item in seen["firewall"]}
    assert told == {
        ("ipv4", "INPUT"): [],
        ("ipv4", "OUTPUT"): ["-A OUTPUT -o lo -j ACCEPT", "-A OUTPUT -p tcp -j OWN"],
        ("ipv4", "OWN"): ["-A OWN -d 192.0.2.9/32 -j REJECT --reject-with icmp-port-unreachable"],
        ("ipv6", "INPUT"): ["-A INPUT -p ipv6-icmp -j DROP"],
        ("ipv6", "OUTPUT"): [],
    }
    assert {(item["backend"], item["table"], item["complete"]) for item in seen["firewall"]} == {
        ("nft", "filter", True)
    }
    (saved,) = seen["saved_firewall"].items()
    assert (saved[0], saved[1]["family"]) == ("/etc/iptables/rules.v6", "ipv6")
    assert {item["chain"]: item["rules"] for item in saved[1]["chains"]} == {
        "INPUT": ["-A INPUT -p ipv6-icmp -j DROP"],
        "OUTPUT": ["-A OUTPUT -p tcp -m tcp --dport 8420 -j DROP"],
    }
    assert seen["unseen"] == []
    assert must(host, RULES) == before


AT_JOB = "#!/bin/sh\nTOKEN=only-the-host-knows; export TOKEN\ncd / || exit 1\n/sbin/reboot\n"
CRON_LINE = f"30 15 * * * root /sbin/reboot {TEMPLATE}\n"
SPOOL, CRONTAB = "/srv/atjobs", "/srv/crontab"


@pytest.fixture
def planned(host: Host) -> Iterator[None]:
    """Put there what stopping would take away: a unit that failed with its words, a job of at, a line of cron."""
    must(
        host,
        f"mkdir -p {SPOOL}; printf %s {shlex.quote(AT_JOB)} > {SPOOL}/a0000101a2b3c4;"
        f" printf %s {shlex.quote(CRON_LINE)} > {CRONTAB}; ln -s /etc/shadow {SPOOL}/link;"
        f" printf '%s\\n' '#!/bin/sh' 'cat {CRONTAB}' 'exit 3' > /srv/tell; chmod 0755 /srv/tell;"
        " printf '[Service]\\nType=oneshot\\nExecStart=/srv/tell\\n' > /run/systemd/system/teller.service;"
        " systemctl daemon-reload; systemctl start teller || true; journalctl --sync",
    )
    yield
    must(
        host,
        f"rm -r {SPOOL} {CRONTAB} /srv/tell /run/systemd/system/teller.service; systemctl daemon-reload;"
        " systemctl reset-failed",
    )


@pytest.mark.usefixtures("planned")
def test_what_stopping_takes_away_is_read_and_nothing_changes(host: Host) -> None:
    main_pid = must(host, "systemctl show --property=MainPID --value nginx.service").strip()
    before = must(host, STATE)
    units, spools = ["nginx.service", "teller.service"], [SPOOL, CRONTAB, "/srv/none"]
    saved = handed_over("save.yml", evidence_units=units, evidence_spools=spools)
    after = must(host, STATE)
    nginx, teller = saved["units"]["nginx.service"], saved["units"]["teller.service"]
    assert [nginx["state"][key] for key in ("ActiveState", "SubState", "MainPID")] == ["active", "running", main_pid]
    assert "Started nginx.service" in nginx["log"]
    assert [teller["state"][key] for key in ("ActiveState", "Result", "ExecMainStatus")] == ["failed", "exit-code", "3"]
    assert any(line.endswith(f": {CRON_LINE.strip()}") for line in teller["log"].splitlines()), teller["log"]
    hidden = AT_JOB.replace("only-the-host-knows", "[hidden]")
    assert saved["spools"] == {f"{SPOOL}/a0000101a2b3c4": hidden, CRONTAB: CRON_LINE}
    assert [item["source"] for item in saved["unseen"]] == [f"{SPOOL}/link"], "no link is followed"
    assert sorted(set(before.splitlines()) ^ set(after.splitlines())) == []
    assert "save_evidence" not in must(host, "journalctl --quiet --no-pager"), "reading leaves no line of its own"


@pytest.mark.at_rest
def test_saving_needs_to_be_told_what(apply: Apply) -> None:
    refused = apply("evidence", "save", evidence_units=["nginx.service"])
    assert refused.status != 0
    assert "missing required arguments: evidence_spools" in refused.output
    assert apply("evidence", "save", evidence_units=["nginx.service"], evidence_spools=[]).changed == 0


@pytest.mark.at_rest
def test_what_is_not_as_its_package_brought_it_is_told_when_asked(host: Host) -> None:
    assert "verify" not in look()
    must(
        host,
        "cp -p /etc/nginx/mime.types /usr/share/base-files/motd /root; "
        "echo '# more' >> /etc/nginx/mime.types; rm /usr/share/base-files/motd",
    )
    try:
        seen = handed_over("converge.yml", evidence_packages=True)
    finally:
        must(
            host,
            "mv /root/mime.types /etc/nginx/mime.types; mv /root/motd /usr/share/base-files/motd",
        )
    told = {item["path"]: item for item in seen["verify"]}
    assert told["/usr/share/base-files/motd"] == {
        "path": "/usr/share/base-files/motd", "package": "base-files", "what": "missing", "conffile": False,
    }  # fmt: skip
    assert told["/etc/nginx/mime.types"] == {
        "path": "/etc/nginx/mime.types", "package": "nginx-common", "what": "changed", "conffile": True,
    }  # fmt: skip
