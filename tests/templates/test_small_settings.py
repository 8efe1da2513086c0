"""Settings files of a few lines: the journal's and MariaDB's, read as their programs read them."""

import configparser
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.templates.rendering import render, value


def settings(role: str, template: str, **inputs: object) -> configparser.ConfigParser:
    found = configparser.ConfigParser(allow_no_value=True)
    found.optionxform = str  # type: ignore[assignment,method-assign]
    found.read_string(render(role, template, **inputs))
    return found


def test_journal_stays_on_disk_within_its_bound() -> None:
    journal = settings("host_base", "journald.conf.j2", host_base_journal_max="64M")["Journal"]
    assert dict(journal) == {"Storage": "persistent", "SystemMaxUse": "64M"}, (
        "roles/host_base/templates/journald.conf.j2"
    )


def test_database_holds_every_character_and_stays_at_home() -> None:
    given: dict[str, object] = {"database_max_connections": 33, "database_buffer_pool_megabytes": 64}
    server = settings("database", "hikeshi.cnf.j2", **given)["mysqld"]
    file = "roles/database/templates/hikeshi.cnf.j2"
    assert server["character-set-server"] == "utf8mb4" and server["collation-server"].startswith("utf8mb4_"), file
    assert server["bind-address"] == "127.0.0.1", f"{file}: the database must not be reached from outside"
    assert not {"skip-name-resolve", "aria_recover_options"} & set(server), f"{file}: the server's own choice"
    assert (server["max_connections"], server["innodb_buffer_pool_size"]) == ("33", "64M"), file
    assert (server["socket"], server["port"]) == ("/run/mysqld/mysqld.sock", "3306"), f"{file}: the shop asks there"


def test_database_keeps_the_port_that_a_site_has() -> None:
    assert settings("database", "hikeshi.cnf.j2", database_port=3307)["mysqld"]["port"] == "3307"
    wanted = value("database", "__database_subject", database_port=3307)["listens"]
    assert [item["port"] for item in wanted if "port" in item] == [3307], "roles/database/vars/main.yml"


def test_database_that_others_reach_asks_no_name_server() -> None:
    file = "roles/database/templates/hikeshi.cnf.j2"
    for addresses, remote in (
        (["127.0.0.1", "::1", "127.0.0.2"], False),
        (["127.0.0.1", "192.0.2.10"], True),
        (["::1", "2001:db8::10"], True),
        (["::"], True),
        (["::10"], True),
    ):
        server = settings("database", "hikeshi.cnf.j2", database_addresses=addresses)["mysqld"]
        assert server["bind-address"] == ",".join(addresses), file
        assert ("skip-name-resolve" in server) is remote, f"{file}: {addresses}"


def test_repair_of_aria_tables_is_the_sites_choice() -> None:
    server = settings("database", "hikeshi.cnf.j2", database_aria_recover_options="OFF")["mysqld"]
    assert server["aria_recover_options"] == "OFF", "roles/database/templates/hikeshi.cnf.j2"


def test_database_keeps_a_binary_log_where_it_is_wanted() -> None:
    file, names = "roles/database/templates/hikeshi.cnf.j2", {"log_bin", "expire_logs_days", "sync_binlog"}
    assert not names & set(settings("database", "hikeshi.cnf.j2")["mysqld"]), f"{file}: it was not asked for"
    server = settings("database", "hikeshi.cnf.j2", database_binary_log=True, database_binary_log_days=3)["mysqld"]
    assert server["log_bin"] == "/var/log/mysql/mariadb-bin", f"{file}: the role makes that directory"
    assert (server["expire_logs_days"], server["sync_binlog"]) == ("3", "1"), file


def test_database_is_looked_for_where_it_is_told_to_listen() -> None:
    wanted = value("database", "__database_subject", database_addresses=["127.0.0.1", "::1"])["listens"]
    places = [{key: item[key] for key in ("socket", "address", "port") if key in item} for item in wanted]
    assert places == [
        {"socket": "/run/mysqld/mysqld.sock"},
        {"address": "127.0.0.1", "port": 3306},
        {"address": "::1", "port": 3306},
    ]
    assert {item["settings"] for item in wanted} == {"/etc/mysql/mariadb.conf.d"}


# As my_print_defaults prints the server's options that one file names.
STRAYS = [
    ("--sort_buffer_size=4M\n", False),
    ("--socket=/run/mysqld/mysqld.sock\n--port=3306\n", False),
    ("--socket=/tmp/mysql.sock\n", True),
    ("--loose-socket=/tmp/mysql.sock\n", True),
    ("# tuned\n\n--port=3307\n", True),
    ("--port=3307\n--datadir=/srv/mysql\n", None),
    ("--bind-address=localhost,192.0.2.10\n", False),
    ("--bind-address=127.0.0.1,192.0.2.10\n", False),
    ("--bind_address=192.0.2.10, 127.0.0.1, ::1\n", False),
    ("--bind-address=*\n", False),
    ("--bind-address=127.0.0.1\n", True),
    ("--bind_address=192.0.2.99\n", True),
    ("--skip-networking\n", True),
    ("--skip_networking=ON\n", True),
    ("--skip-networking=0\n", False),
    ("--socket_timeout=3\n", False),
    ("", False),
]


@pytest.mark.parametrize(("says", "stray"), STRAYS)
def test_file_is_taken_away_only_if_the_server_would_listen_elsewhere(
    tmp_path: Path, says: str, stray: bool | None
) -> None:
    """None: it says more than that, and is refused."""
    (tmp_path / "my_print_defaults").write_text('#!/bin/sh\ncat "${1#--defaults-file=}"\n')
    (tmp_path / "my_print_defaults").chmod(0o700)
    file = tmp_path / "99-{{ x }} y.cnf"
    file.write_text(says)
    program = value("database", "__database_find_strays")
    wanted = ["/run/mysqld/mysqld.sock", "3306", "127.0.0.1,192.0.2.10"]
    words = [sys.executable, "-c", program, *wanted, str(file), str(file)]
    path = f"{tmp_path}:/usr/bin:/bin"
    done = subprocess.run(words, capture_output=True, text=True, check=True, env={"PATH": path})
    assert json.loads(done.stdout) == {
        "strays": [str(file)] * 2 if stray else [],
        "mixed": [str(file)] * 2 if stray is None else [],
    }


def test_only_what_is_read_later_is_asked_for() -> None:
    names = ["50-server.cnf", "90-hikeshi.cnf", "90-hikeshi.cnf.cnf", "99-x.cnf", "zz\nx.cnf", "60-galera.cnf"]
    files = {"files": [{"path": f"/etc/mysql/mariadb.conf.d/{name}"} for name in names]}
    later = value("database", "__database_later_files", __database_files=files)
    assert [Path(path).name for path in later] == ["90-hikeshi.cnf.cnf", "99-x.cnf"]
