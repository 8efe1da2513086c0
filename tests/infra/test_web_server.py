"""web_server: what a customer and the load balancer get, and that no bad change ever reaches them."""

from collections.abc import Iterator

import pytest
from testinfra.host import Host

from tests.infra.asking import Apply, Ask, Mend, must, wait_until

KEPT = "/var/lib/hikeshi/kept"
LOG = "/var/log/nginx/access.log"
FILES = "find /etc/nginx -type f -exec md5sum {} + -o -type l -printf '%l %p\\n' | sort"


@pytest.fixture(autouse=True)
def backend(host: Host) -> None:
    """Let the backend run, whatever an earlier test did to it."""
    must(
        host,
        "rm -f /run/backend-closed; systemctl start backend && "
        "while ! test -S /run/checkout/gunicorn.sock; do sleep 0.1; done",
    )


def test_pages_come_from_the_shop(ask: Ask) -> None:
    for address in ("127.0.0.1", "::1"):
        answer = ask("/basket/?a=1", address, Host="shop.example")
        assert answer.status == 200
        assert answer.data["path"] == "/basket/?a=1"
        assert answer.data["headers"]["host"] == "shop.example"


def test_load_balancer_is_believed_about_the_customer(host: Host, ask: Ask) -> None:
    answer = ask("/believed", "127.0.0.1", X_Forwarded_For="198.51.100.7")
    assert answer.data["headers"]["x-forwarded-for"] == "198.51.100.7"
    wait_until(lambda: "198.51.100.7 - - " in must(host, f"grep believed {LOG}"))


def test_stranger_is_not_believed(ask: Ask) -> None:
    answer = ask("/", "::1", X_Forwarded_For="198.51.100.7")
    assert answer.data["headers"]["x-forwarded-for"] == "::1"


def test_static_files_come_from_disk(host: Host, ask: Ask) -> None:
    must(
        host,
        "mkdir -p /opt/shop/static/css && echo 'body {}' > /opt/shop/static/css/shop.css && systemctl stop backend",
    )
    answer = ask("/static/css/shop.css")
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/css"
    assert answer.text == "body {}\n"


def test_health_check_says_what_the_shop_says_and_fills_no_log(host: Host, ask: Ask) -> None:
    assert ask("/lb-health").status == 200
    must(host, "touch /run/backend-closed")
    assert ask("/lb-health").status == 503
    assert ask("/page-beside-the-check").status == 200, "a closed check closed a page too"
    wait_until(lambda: "page-beside-the-check" in must(host, f"cat {LOG}"))
    assert "lb-health" not in must(host, f"cat {LOG}")


def test_without_the_shop_nginx_starts_and_recovers_by_itself(host: Host, ask: Ask) -> None:
    assert ask("/").status == 200
    must(host, "systemctl stop backend; rm -rf /run/checkout; systemctl restart nginx")
    assert ask("/").status == 502
    assert ask("/lb-health").status == 502
    must(host, "systemctl start backend")
    wait_until(lambda: ask("/").status == 200)


@pytest.mark.at_rest
def test_bad_change_is_refused_and_the_old_site_goes_on(host: Host, ask: Ask, apply: Apply) -> None:
    must(host, "systemctl start nginx")
    before = must(host, FILES)
    applied = apply("web_server", "main", web_server_name="shop.example; nonsense on")
    assert applied.status != 0
    assert 'unknown directive \\"nonsense\\"' in applied.output or 'unknown directive "nonsense"' in applied.output, (
        applied.output
    )
    assert must(host, FILES) == before
    must(host, "nginx -t")
    must(host, "systemctl reload nginx")
    assert ask("/").status == 200


@pytest.mark.at_rest
def test_good_change_that_others_make_bad_is_taken_back(host: Host, ask: Ask, apply: Apply) -> None:
    """Each file alone is right: only the whole of them shows that the site's socket is defined twice."""
    must(host, "systemctl start nginx; echo 'upstream shop { server 127.0.0.1:1; }' > /etc/nginx/conf.d/twice.conf")
    before = must(host, FILES)
    applied = apply("web_server", "main", web_server_body_limit="30m")
    must(host, "rm /etc/nginx/conf.d/twice.conf")
    assert applied.status != 0
    assert "duplicate upstream" in applied.output, applied.output
    assert must(host, FILES) == "\n".join(line for line in before.splitlines() if "twice.conf" not in line) + "\n"
    assert ask("/").status == 200


@pytest.mark.at_rest
def test_broken_file_of_somebody_else_is_moved_away(host: Host, ask: Ask, mend: Mend) -> None:
    path = "/etc/nginx/conf.d/campaign.conf"
    must(host, f"echo 'gzip_lvl 9;' > {path}; systemctl stop nginx")
    assert host.run("systemctl start nginx").rc != 0
    mend("web_server", "disk", "configuration", path=path)
    assert must(host, f"cat {KEPT}{path}") == "gzip_lvl 9;\n"
    assert host.run("systemctl is-active nginx").rc != 0, "a disk step started something"
    mend("web_server", "live", "reload")
    assert ask("/").status == 200


@pytest.mark.at_rest
def test_file_that_names_a_host_stays_while_no_host_is_found(host: Host, apply: Apply) -> None:
    path = "/etc/nginx/conf.d/partner.conf"
    must(
        host, f"echo 'upstream partner {{ server partner.example.com; }}' > {path}; cat /etc/resolv.conf > /run/resolv"
    )
    # Written in place: it is mounted. Nobody listens there.
    must(host, "echo 'nameserver 127.0.0.1' > /etc/resolv.conf")
    applied = apply("web_server", "repair-disk", "configuration", {"path": path})
    there = host.file(path).exists
    must(host, f"cat /run/resolv > /etc/resolv.conf; rm -f {path}")
    assert applied.status != 0
    assert "Mend name resolution first" in " ".join(applied.output.split()), applied.output
    assert there


@pytest.mark.at_rest
def test_file_that_nginx_accepts_stays(host: Host, apply: Apply) -> None:
    path = "/etc/nginx/conf.d/fine.conf"
    must(host, f"echo 'server_names_hash_bucket_size 128;' > {path}")
    applied = apply("web_server", "repair-disk", "configuration", {"path": path})
    assert (applied.status, applied.changed) == (0, 0), applied.output
    must(host, f"rm {path}")


@pytest.mark.at_rest
def test_path_outside_is_refused(host: Host, apply: Apply) -> None:
    assert apply("web_server", "repair-disk", "configuration", {"path": "/etc/nginx/../passwd"}).status != 0
    assert host.file("/etc/passwd").exists


@pytest.mark.at_rest
def test_lost_configuration_is_written_again(host: Host, ask: Ask, apply: Apply) -> None:
    must(host, 'systemctl start nginx; before=$(md5sum /etc/nginx/nginx.conf); echo "$before" > /run/before')
    must(
        host,
        "echo '# lost' > /etc/nginx/nginx.conf; ln -sfn /dev/null /etc/nginx/sites-enabled/shop.conf",
    )
    assert host.run("nginx -t").rc != 0
    reloaded = must(host, "systemctl show --property=StateChangeTimestampMonotonic nginx")
    applied = apply("web_server", "repair-disk", "configuration")
    assert applied.status == 0, applied.output
    assert must(host, "systemctl show --property=StateChangeTimestampMonotonic nginx") == reloaded, (
        "a disk step reloaded something"
    )
    must(host, "md5sum --check /run/before")
    assert must(host, f"cat {KEPT}/etc/nginx/nginx.conf") == "# lost\n"
    applied = apply("web_server", "repair-live", "reload")
    assert (applied.status, applied.changed) == (0, 1), applied.output
    assert ask("/").status == 200


@pytest.mark.at_rest
def test_distribution_site_does_not_answer(host: Host, ask: Ask) -> None:
    must(host, "systemctl start nginx")
    assert b"Welcome to nginx" not in ask("/", Host="unknown.example").body


LOGS = "/var/log/nginx"


@pytest.fixture
def small_disk(host: Host) -> Iterator[None]:
    """Give nginx's logs a small disk of their own; the ordinary one stands again afterwards."""
    must(
        host,
        f"systemctl stop nginx && mount -t tmpfs -o size=32m,mode=0755 small {LOGS} && chgrp adm {LOGS} && "
        f"rm -rf {KEPT}{LOGS} && systemctl start nginx",
    )
    yield
    must(host, f"systemctl stop nginx && umount {LOGS} && systemctl start nginx")


@pytest.fixture
def one_disk(small_disk: None, host: Host) -> Iterator[None]:
    """Let what is kept stand on the small disk, too."""
    must(host, f"mkdir -p -m 0700 {LOGS}/.kept {KEPT} && mount --bind {LOGS}/.kept {KEPT}")
    yield
    must(host, f"umount {KEPT}")


def is_logged(host: Host, ask: Ask, path: str) -> None:
    """Ask for a page, and wait for its line."""
    assert ask(path).status == 200
    wait_until(lambda: path in must(host, f"cat {LOG}"))


@pytest.mark.at_rest
def test_logs_are_rotated_and_written_on(host: Host, ask: Ask) -> None:
    assert must(host, "systemctl is-enabled logrotate.timer").strip() == "enabled"
    is_logged(host, ask, "/before-it-was-rotated")
    must(host, f"rm -f {LOGS}/access.log.1; logrotate --force /etc/logrotate.d/nginx")
    assert must(host, f"grep --count /before-it-was-rotated {LOGS}/access.log.1").strip() == "1"
    is_logged(host, ask, "/after-it-was-rotated")
    must(host, f"rm -f {LOGS}/*.log.1")


def free_kib(host: Host) -> int:
    return int(must(host, f"df --output=avail {LOGS} | tail -n 1"))


@pytest.mark.at_rest
@pytest.mark.usefixtures("small_disk")
def test_full_disk_of_old_logs_gets_room_and_no_line_is_lost(host: Host, ask: Ask, mend: Mend) -> None:
    must(
        host,
        f"cd {LOGS} && head -c 12M /dev/urandom > access.log.2 && touch -d '2 days ago' access.log.2 && "
        "{ head -c 40M /dev/urandom > access.log.1 || true; } && sha256sum access.log.* > /run/before",
    )
    assert free_kib(host) < 64
    assert ask("/while-it-is-full").status == 200, "nginx serves on, and only stops logging"
    mend("web_server", "disk", "logs_move", free_mib="6")
    assert must(host, f"ls {LOGS}").split() == ["access.log", "access.log.1", "error.log"], (
        "the oldest alone was enough"
    )
    for name, folder in (("access.log.1", LOGS), ("access.log.2", f"{KEPT}{LOGS}")):
        must(host, f"cd {folder} && grep {name} /run/before | sha256sum --check")
    assert must(host, f"stat --format=%a {KEPT}").strip() == "700", "logs hold customers' addresses"
    is_logged(host, ask, "/logged-again")


@pytest.mark.at_rest
@pytest.mark.usefixtures("small_disk")
def test_deleted_log_is_kept_and_let_go_without_a_restart(host: Host, ask: Ask, mend: Mend) -> None:
    is_logged(host, ask, "/before-the-deletion")
    must(host, f"head -c 40M /dev/zero >> {LOG}; rm {LOG}")
    assert free_kib(host) < 64, "the deleted file still takes the room"
    pid = must(host, "systemctl show --property=MainPID nginx")
    mend("web_server", "live", "logs_reopen")
    wait_until(lambda: free_kib(host) > 30000)
    assert must(host, "systemctl show --property=MainPID nginx") == pid
    assert must(host, f"grep --text --count /before-the-deletion {KEPT}{LOG}").strip() == "1"
    assert int(must(host, f"stat --format=%s {KEPT}{LOG}")) > 30_000_000
    is_logged(host, ask, "/into-the-new-one")


@pytest.mark.at_rest
@pytest.mark.usefixtures("one_disk")
def test_old_logs_on_the_disk_that_keeps_them_are_compressed(host: Host, apply: Apply, mend: Mend) -> None:
    must(
        host,
        f"cd {LOGS} && {{ yes 'an old line' | head -c 12M > access.log.2; }} && touch -d '2 days ago' access.log.2 && "
        "chmod 0640 access.log.2 && head -c 16M /dev/urandom > access.log.1 && sha256sum access.log.2 > /run/before",
    )
    mend("web_server", "disk", "logs_move", free_mib="12")
    assert must(host, f"ls {LOGS}").split() == ["access.log", "access.log.1", "access.log.2.gz", "error.log"]
    assert must(host, f"stat --format=%a {LOGS}/access.log.2.gz").strip() == "640"
    must(host, f"cd {LOGS} && gunzip --keep access.log.2.gz && sha256sum --check /run/before && rm access.log.2")
    must(host, f"head -c 40M /dev/zero > {LOGS}/filling || true")
    full = apply("web_server", "repair-disk", "logs_move", {"free_mib": "12"})
    assert (full.status != 0, full.changed) == (True, 0), full.output
    assert "too little to compress" in full.output, full.output
    assert must(host, f"ls {LOGS}").split() == ["access.log", "access.log.1", "access.log.2.gz", "error.log", "filling"]


@pytest.mark.at_rest
@pytest.mark.usefixtures("one_disk")
def test_deleted_log_on_the_disk_that_keeps_it_is_kept_compressed(host: Host, ask: Ask, mend: Mend) -> None:
    is_logged(host, ask, "/before-the-deletion")
    must(host, f"head -c 24M /dev/zero >> {LOG}; rm {LOG}")
    assert free_kib(host) < 9000, "the deleted file still takes the room"
    mend("web_server", "live", "logs_reopen")
    wait_until(lambda: free_kib(host) > 30000)
    assert must(host, f"zcat {KEPT}{LOG}.gz | grep --text --count /before-the-deletion").strip() == "1"
    is_logged(host, ask, "/into-the-new-one")


@pytest.mark.at_rest
def test_logs_stay_where_there_is_room(host: Host, apply: Apply) -> None:
    must(host, f"echo old > {LOGS}/access.log.1")
    stale = apply("web_server", "repair-disk", "logs_move", {"free_mib": "1"})
    assert (stale.status, stale.changed) == (0, 0), stale.output
    for amount in ("", "0", "1; reboot", "all"):
        odd = apply("web_server", "repair-disk", "logs_move", {"free_mib": amount})
        assert odd.status != 0, odd.output
        assert "how many MiB" in odd.output, odd.output
    assert must(host, f"cat {LOGS}/access.log.1; rm {LOGS}/access.log.1") == "old\n"
