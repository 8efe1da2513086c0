"""database: answers its own users and nobody else, holds any text, and comes back from whatever befell it."""

import json
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from hikeshi.triage.findings import Effect
from tests.infra.asking import Apply, Mend, collected, judge, must, wait_until

PASSWORD = "for-this-scenario-only"  # noqa: S105 - of a container that lives for a minute
READER = "for-this-scenario-as-well"
TEXT = "火消し𠮷野家🚒"
SOCKET = "/run/mysqld/mysqld.sock"
KEPT = "/var/lib/hikeshi/kept"
# Of a program that is not here; molecule/database/collect.yml asks about its login.
ENVIRONMENT = "/etc/shop.env"
# Over the network and from an address of one's choice, which the command line client cannot do.
CONNECT = """
import json, pymysql, sys
given = json.loads(sys.argv[1])
try:
    with pymysql.connect(**given["login"], connect_timeout=10) as connection, connection.cursor() as cursor:
        cursor.execute(given["statement"])
        print(json.dumps([0, str(cursor.fetchall())]))
except pymysql.MySQLError as error:
    print(json.dumps(error.args))
"""

# Sits on every connection that it is given, as a forgotten program would.
HOLD = f"""
import pymysql, time
held, end = [], time.monotonic() + 2
while time.monotonic() < end:
    try:
        held.append(pymysql.connect(user="shop", password="{PASSWORD}", unix_socket="{SOCKET}"))
    except pymysql.MySQLError:
        time.sleep(0.05)
time.sleep(1000)
"""


def sql(
    host: Host, statement: str, database: str = "shop", user: str = "shop", password: str = PASSWORD
) -> tuple[int, str]:
    """Run a statement as the shop does, through the socket, and return the status and what was said."""
    result = host.run(
        f"mariadb --user={user} --password={shlex.quote(password)} --batch --skip-column-names "
        f"{database} -e {shlex.quote(statement)}"
    )
    return result.rc, str(result.stdout + result.stderr).strip()


def remote(host: Host, statement: str, source: str, address: str = "127.0.0.5", **login: str) -> tuple[int, str]:
    """Run a statement as the reader does, from an address; return the error's number (0: none) and what was said."""
    login = {"user": "reader", "password": READER, "database": "other_shop", **login}
    given: dict[str, Any] = {"login": {"host": address, "bind_address": source, **login}, "statement": statement}
    number, said = json.loads(must(host, f"python3 -c {shlex.quote(CONNECT)} {shlex.quote(json.dumps(given))}"))
    return number, said


def test_shop_logs_in_with_its_password(host: Host) -> None:
    assert sql(host, "SELECT CURRENT_USER()") == (0, "shop@localhost")


def test_wrong_password_is_refused(host: Host) -> None:
    status, said = sql(host, "SELECT 1", password="guess")  # noqa: S106
    assert status != 0
    assert "ERROR 1045" in said, said


@pytest.mark.parametrize("database", ["mysql", "other_shop", "otherXshop"])
def test_shop_sees_no_other_database(host: Host, database: str) -> None:
    status, said = sql(host, "SELECT 1", database=database)
    assert status != 0
    assert "ERROR 1044" in said, said


def test_underscore_in_a_grant_is_no_wildcard(host: Host) -> None:
    must(host, "mariadb -e 'CREATE DATABASE IF NOT EXISTS otherXshop'")
    status, said = sql(host, "SELECT 1", database="otherXshop", user="other", password="for-this-scenario-too")  # noqa: S106
    must(host, "mariadb -e 'DROP DATABASE otherXshop'")
    assert status != 0
    assert "ERROR 1044" in said, said


def test_new_tables_hold_rare_kanji_and_emoji(host: Host) -> None:
    assert sql(host, "CREATE OR REPLACE TABLE words (word VARCHAR(40))")[0] == 0
    assert sql(host, f"INSERT INTO words VALUES ('{TEXT}')")[0] == 0  # noqa: S608 - a constant
    said = sql(host, "SELECT HEX(word), CHAR_LENGTH(word) FROM words; DROP TABLE words")
    assert said == (0, f"{TEXT.encode().hex().upper()}\t{len(TEXT)}")


def test_rows_outlive_a_killed_server(host: Host) -> None:
    assert sql(host, "CREATE OR REPLACE TABLE kept (n INT) ENGINE=InnoDB; INSERT INTO kept VALUES (42)")[0] == 0
    must(host, "systemctl kill --signal=KILL mariadb; sleep 0.5; systemctl start mariadb")
    wait_until(lambda: sql(host, "SELECT n FROM kept") == (0, "42"), seconds=20)
    assert sql(host, "DROP TABLE kept")[0] == 0


def test_it_listens_exactly_where_told(host: Host) -> None:
    listening = {line.split()[3] for line in must(host, "ss -Hlnt").splitlines()}
    wanted = {"127.0.0.1:3306", "[::1]:3306", "127.0.0.5:3306", "192.0.2.10:3306"}
    assert {address for address in listening if address.endswith(":3306")} == wanted


@pytest.mark.parametrize(("source", "address"), [("127.0.0.2", "127.0.0.5"), ("::1", "::1")])
def test_user_logs_in_from_its_addresses(host: Host, source: str, address: str) -> None:
    assert remote(host, "SELECT CURRENT_USER()", source, address) == (0, f"(('reader@{source}',),)")


def test_user_from_another_address_is_refused(host: Host) -> None:
    number, said = remote(host, "SELECT 1", "127.0.0.3")
    assert number == 1130, said
    assert "127.0.0.3" in said


def test_shop_is_let_in_through_the_socket_only(host: Host) -> None:
    number, said = remote(host, "SELECT 1", "127.0.0.2", user="shop", password=PASSWORD, database="shop")
    assert number == 1045, said


def test_reader_reads_one_database_and_writes_nothing(host: Host) -> None:
    must(host, "mariadb other_shop -e 'CREATE OR REPLACE TABLE orders (n INT); INSERT INTO orders VALUES (7)'")
    assert remote(host, "SELECT n FROM orders", "127.0.0.2") == (0, "((7,),)")
    for statement in ("INSERT INTO orders VALUES (8)", "DROP TABLE orders", "CREATE TABLE mine (n INT)"):
        number, said = remote(host, statement, "127.0.0.2")
        assert number == 1142, f"{statement}: {said}"
    for database in ("shop", "mysql", "otherXshop"):
        assert remote(host, "SELECT 1", "127.0.0.2", database=database)[0] == 1044, database
    assert must(host, "mariadb other_shop -Ne 'SELECT n FROM orders; DROP TABLE orders'").strip() == "7"


@pytest.mark.at_rest
def test_converging_brings_a_masked_server_back(host: Host, apply: Apply) -> None:
    must(host, "systemctl disable --now mariadb; systemctl mask mariadb")
    first = apply("database", "main")
    assert first.status == 0, first.output
    assert sql(host, "SELECT 1")[0] == 0
    assert must(host, "systemctl is-enabled mariadb").strip() == "enabled"
    second = apply("database", "main")
    assert (second.status, second.changed) == (0, 0), second.output


@pytest.mark.at_rest
def test_converging_sets_a_password_changed_on_one_side(host: Host, apply: Apply) -> None:
    must(host, "systemctl start mariadb; mariadb -e \"ALTER USER shop@localhost IDENTIFIED BY 'rotated'\"")
    assert sql(host, "SELECT 1")[0] != 0
    applied = apply("database", "main")
    assert applied.status == 0, applied.output
    assert sql(host, "SELECT 1")[0] == 0
    assert PASSWORD not in applied.output


@pytest.mark.at_rest
def test_converging_takes_away_what_was_granted_besides(host: Host, apply: Apply) -> None:
    grants = "mariadb -Ne \"SHOW GRANTS FOR reader@'127.0.0.2'\""
    before = must(host, f"systemctl start mariadb; {grants}")
    must(host, "mariadb -e \"GRANT INSERT, DROP ON other_shop.* TO reader@'127.0.0.2'; "
               "GRANT SELECT ON shop.* TO reader@'127.0.0.2'\"")  # fmt: skip
    applied = apply("database", "main")
    assert applied.status == 0, applied.output
    assert must(host, grants) == before
    assert READER not in applied.output


@pytest.mark.at_rest
def test_aria_tables_are_repaired_unless_the_site_says_no(host: Host, apply: Apply) -> None:
    """A table that a killed server left open: the server's own choice repairs it unasked, OFF leaves it to people."""
    asked = "mariadb -Ne 'SELECT @@aria_recover_options; SELECT COUNT(*) FROM shop.words'"
    for options, recovers in (("OFF", False), ("", True)):
        applied = apply("database", "main", database_aria_recover_options=options)
        assert applied.status == 0, applied.output
        # Opened again and closed by nobody, with an index that does not fit its data.
        must(
            host,
            "mariadb shop -e 'CREATE OR REPLACE TABLE words (n INT, KEY (n)) ENGINE=Aria TRANSACTIONAL=0; "
            "INSERT INTO words VALUES (1), (2), (3)'; systemctl kill --signal=KILL mariadb; sleep 0.5; "
            "systemctl start mariadb",
        )
        result = host.run(asked)
        if recovers:
            assert result.stdout.split() == ["BACKUP,QUICK", "3"], result.stderr
        else:
            assert result.stdout.split() == ["OFF"]
            assert "marked as crashed" in result.stderr
    must(host, "mariadb shop -e 'DROP TABLE words'")


@pytest.mark.at_rest
@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"database_addresses": []}, "is []"),
        ({"database_addresses": ["127.0.0.1", "::"]}, "only alone"),
        ({"database_addresses": ["192.0.2.300"]}, "'192.0.2.300' is no address"),
        ({"database_addresses": ["db.shop.example"]}, "'db.shop.example' is no address"),
        ({"database_addresses": ["2001:DB8:0::1"]}, "must be written 2001:db8::1"),
        ({"database_port": 70000}, "database_port is 70000"),
        ({"database_aria_recover_options": "SOMETIMES"}, "'SOMETIMES'"),
        ({"database_aria_recover_options": "OFF,QUICK"}, "'OFF,QUICK'"),
        ({"database_binary_log_days": 0}, "database_binary_log_days is 0"),
        ({"database_binary_log_days": 100}, "database_binary_log_days is 100"),
        ({"hosts": ["%"]}, "'%' is no address"),
        ({"privileges": ["ALL"]}, "ALL"),
    ],
)
def test_what_would_not_mean_what_it_says_is_refused(
    host: Host, apply: Apply, given: dict[str, Any], named: str
) -> None:
    user = {"name": "reader", "password": READER, "hosts": ["::1"], "database": "shop", "privileges": ["SELECT"]}
    if not any(name.startswith("database_") for name in given):
        given = {"database_users": [{**user, **given}]}
    state = "systemctl show --property=MainPID mariadb; md5sum /etc/mysql/mariadb.conf.d/90-hikeshi.cnf"
    before = must(host, state)
    applied = apply("database", "main", **given)
    assert applied.status != 0
    assert named in " ".join(applied.output.split()), applied.output
    assert must(host, state) == before


@pytest.mark.at_rest
@pytest.mark.parametrize("megabytes", [2, "plenty"])
def test_size_the_server_cannot_start_with_is_refused(host: Host, apply: Apply, megabytes: object) -> None:
    must(host, "systemctl start mariadb")
    state = "systemctl show --property=MainPID mariadb; md5sum /etc/mysql/mariadb.conf.d/90-hikeshi.cnf"
    before = must(host, state)
    applied = apply("database", "main", database_buffer_pool_megabytes=megabytes)
    assert applied.status != 0
    assert str(megabytes) in applied.output
    assert must(host, state) == before
    assert sql(host, "SELECT 1")[0] == 0


def give(host: Host, **more: str) -> None:
    """Write the environment file of a program, each value as it stands."""
    given = {"SHOP_USER": "shop", "SHOP_NAME": "shop", "SHOP_SOCKET": SOCKET, "SHOP_PASSWORD": PASSWORD, **more}
    text = "".join(f"{name}={value}\n" for name, value in given.items())
    must(host, f"install -m 0600 /dev/null {ENVIRONMENT}; printf %s {shlex.quote(text)} > {ENVIRONMENT}")


def root(host: Host, statement: str) -> str:
    """Run a statement as root, who is let in through the socket; return what was said."""
    words = ["mariadb", "--default-character-set=utf8mb4", "--batch", "--skip-column-names", "-e", statement]
    return must(host, shlex.join(words)).strip()


def wrong() -> tuple[list[str], list[str]]:
    """Return what is wrong with the host, and the steps in words."""
    found, steps = judge(collected("database"))
    return [item.id for item in found], [f"{step.kind} {step.words}" for step in steps]


def test_healthy_server_and_login_are_seen_as_such(host: Host) -> None:
    give(host)
    evidence = collected("database")
    counts = {"most": 60, "connections": 0, "idle": 0, "crashed": []}
    assert evidence["databases"] == {SOCKET: {"answers": True, "code": 0, "message": "", **counts}}
    assert evidence["logins"] == {ENVIRONMENT: {"ok": True, "code": 0, "message": ""}}
    places = (SOCKET, "127.0.0.1:3306", "[::1]:3306", "127.0.0.5:3306", "192.0.2.10:3306")
    assert evidence["listens"] == dict.fromkeys(places, True)
    assert (evidence["unseen"], judge(evidence)) == ([], ([], []))


@pytest.mark.at_rest
def test_crashed_table_is_repaired_with_all_its_rows(host: Host, apply: Apply, mend: Mend) -> None:
    applied = apply("database", "main", database_aria_recover_options="OFF")
    assert applied.status == 0, applied.output
    must(host, f"rm -rf {KEPT}/var/lib/mysql")
    give(host)
    files = {"words": "words", "rare-$1": "rare@002d@00241"}
    for table in (*files, "two\nlines"):
        root(host, f"CREATE OR REPLACE TABLE shop.`{table}` (n INT, KEY (n)) ENGINE=Aria TRANSACTIONAL=0")
        root(host, f"INSERT INTO shop.`{table}` VALUES (1); INSERT INTO shop.`{table}` VALUES (2)")  # noqa: S608
    root(host, "CREATE OR REPLACE VIEW shop.crashed AS SELECT * FROM shop.words")
    must(host, "systemctl kill --signal=KILL mariadb; sleep 0.5; systemctl start mariadb")
    state = "cd /var/lib/mysql/shop && md5sum words.* rare*"
    before = must(host, state)
    ids, steps = wrong()
    assert ids == [f"table_crashed/table:shop.{name}" for name in ("rare-$1", "two\\nlines", "words")]
    assert steps == [f"live database: table_repair table=shop.{name}" for name in ("rare-$1", "words")]
    assert must(host, state) == before, "looking changes nothing"
    root(host, "DROP TABLE shop.`two\nlines`")
    for table, file in files.items():
        mend("database", "live", "table_repair", table=f"shop.{table}")
        assert root(host, f"SELECT COUNT(*) FROM shop.`{table}`") == "2"  # noqa: S608
        kept = must(host, f"cd {KEPT}/var/lib/mysql/shop && md5sum {file}.*")
        assert kept.splitlines() == [line for line in before.splitlines() if f"  {file}." in line]
    assert must(host, f"stat --format='%a %U' {KEPT}").strip() == "700 root"
    assert wrong() == ([], [])
    root(host, "DROP VIEW shop.crashed; DROP TABLE shop.words, shop.`rare-$1`")
    assert apply("database", "main").status == 0


@pytest.mark.at_rest
def test_table_that_repair_cannot_help_is_kept_and_said(host: Host, apply: Apply) -> None:
    assert apply("database", "main", database_aria_recover_options="OFF").status == 0
    must(host, f"rm -rf {KEPT}/var/lib/mysql")
    root(host, "CREATE OR REPLACE TABLE shop.words (n INT, KEY (n)) ENGINE=Aria TRANSACTIONAL=0; FLUSH TABLES")
    must(host, ": > /var/lib/mysql/shop/words.MAI")
    give(host)
    assert wrong()[0] == ["table_crashed/table:shop.words"]
    applied = apply("database", "repair-live", "table_repair", {"table": "shop.words"})
    assert applied.status != 0
    assert "Incorrect file format" in applied.output
    assert set(must(host, f"ls {KEPT}/var/lib/mysql/shop").split()) == {"words.MAD", "words.MAI", "words.frm"}
    must(host, "rm /var/lib/mysql/shop/words.*")
    root(host, "FLUSH TABLES")
    assert apply("database", "main").status == 0


@pytest.mark.at_rest
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("truncate --size=4T words.MAD", "bytes free below"),
        ("mv words.MAD /var/lib/mysql/elsewhere && ln -s ../elsewhere words.MAD", "words.MAD: a link"),
        ("rm words.MAD", "there is no data file"),
    ],
    ids=["no room", "link", "no data"],
)
def test_table_that_cannot_be_kept_is_not_repaired(host: Host, apply: Apply, change: str, said: str) -> None:
    must(host, f"systemctl start mariadb; rm -rf {KEPT}/var/lib/mysql")
    root(host, "CREATE OR REPLACE TABLE shop.words (n INT, KEY (n)) ENGINE=Aria TRANSACTIONAL=0; FLUSH TABLES")
    must(host, f"cd /var/lib/mysql/shop && : > words.MAI && {change}")
    state = "stat --format='%n %s %Y' /var/lib/mysql/shop/words.*"
    before = must(host, state)
    applied = apply("database", "repair-live", "table_repair", {"table": "shop.words"})
    after = must(host, state)
    must(host, "rm -f /var/lib/mysql/shop/words.* /var/lib/mysql/elsewhere")
    root(host, "FLUSH TABLES")
    assert applied.status != 0
    assert said in " ".join(applied.output.split()), applied.output
    assert after == before
    assert host.run(f"ls {KEPT}/var/lib/mysql").rc != 0


@pytest.mark.at_rest
def test_looking_repairs_no_table_that_the_server_would_repair(host: Host) -> None:
    must(host, "systemctl start mariadb")
    give(host)
    root(host, "CREATE OR REPLACE TABLE shop.words (n INT, KEY (n)) ENGINE=Aria TRANSACTIONAL=0")
    root(host, "INSERT INTO shop.words VALUES (1)")
    state = "cd /var/lib/mysql/shop && md5sum words.*"
    # Debian opens every table after a start: the crashed files are put back when it has.
    must(host, "systemctl kill --signal=KILL mariadb; sleep 0.5; rm -rf /tmp/crashed; mkdir /tmp/crashed; "
               "cp --archive /var/lib/mysql/shop/words.* /tmp/crashed; systemctl start mariadb; sleep 3")  # fmt: skip
    root(host, "FLUSH TABLES")
    must(host, "cp --archive /tmp/crashed/words.* /var/lib/mysql/shop")
    before = must(host, state)
    assert wrong() == ([], [])
    assert must(host, state) == before
    assert root(host, "SELECT @@aria_recover_options; SELECT COUNT(*) FROM shop.words") == "BACKUP,QUICK\n1"
    assert must(host, state) != before, "it was crashed, and the server repairs it at its next use"
    root(host, "DROP TABLE shop.words")


@pytest.mark.at_rest
@pytest.mark.parametrize("table", ["", "shop.words; DROP DATABASE shop", "shop.wo\nrds", "../x.y"])
def test_what_is_no_plain_name_of_a_table_is_refused(host: Host, apply: Apply, table: str) -> None:
    must(host, "systemctl start mariadb")
    applied = apply("database", "repair-live", "table_repair", {"table": table})
    assert applied.status != 0
    assert "allowed: DATABASE.TABLE" in " ".join(applied.output.split()), applied.output
    assert sql(host, "SELECT 1")[0] == 0


def hold(host: Host) -> None:
    """Have a program sit on every connection that is left, and forget it."""
    program = f"/usr/bin/python3 -c {shlex.quote(HOLD)}"
    must(host, f"systemctl stop forgotten; systemd-run --quiet --collect --unit=forgotten {program}")
    time.sleep(2)
    wait_until(lambda: "ERROR 1040" in sql(host, "SELECT 1")[1])


@pytest.mark.at_rest
def test_connections_that_sleep_are_ended_when_there_are_no_others(host: Host, mend: Mend) -> None:
    must(host, "systemctl restart mariadb")
    give(host)
    hold(host)
    evidence = collected("database")
    seen = evidence["databases"][SOCKET]
    assert (seen["most"], seen["connections"], seen["idle"]) == (60, 60, 60)
    assert evidence["logins"][ENVIRONMENT]["code"] == 1040
    found, steps = judge(evidence)
    assert [item.id for item in found] == ["connections_used/connections:mariadb.service"]
    assert [step.words for step in steps] == ["database: connections"]
    mend("database", "live", "connections")
    assert sql(host, "SELECT 1")[0] == 0
    left = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER = 'shop'"
    wait_until(lambda: root(host, left) == "45")
    assert wrong() == ([], [])
    must(host, "systemctl stop forgotten")


@pytest.mark.at_rest
def test_session_with_an_open_transaction_is_not_ended(host: Host, apply: Apply) -> None:
    """A checkout that waits for a slow payment: it slept longest, and would be the first to be ended."""
    must(host, "systemctl restart mariadb")
    root(host, "SET GLOBAL max_connections = 10")
    root(host, "CREATE OR REPLACE TABLE shop.paid (n INT PRIMARY KEY) ENGINE=InnoDB; INSERT INTO shop.paid VALUES (1)")
    client = f"mariadb --user=shop --password={PASSWORD} --unbuffered shop"
    begin = "echo 'BEGIN; SELECT n FROM paid FOR UPDATE;'; sleep 60"
    must(host, f"systemd-run --quiet --collect --unit=checkout {shlex.join(['sh', '-c', f'({begin}) | {client}'])}")
    opened = "SELECT GROUP_CONCAT(trx_mysql_thread_id) FROM information_schema.INNODB_TRX"
    wait_until(lambda: root(host, opened) != "NULL")
    session = root(host, opened)
    hold(host)
    time.sleep(6)
    applied = apply("database", "repair-live", "connections", database_max_connections=10)
    assert applied.status == 0, applied.output
    left = "SELECT COUNT(*), SUM(ID = {}) FROM information_schema.PROCESSLIST WHERE USER = 'shop'"
    wait_until(lambda: root(host, left.format(session)) == "7\t1")
    assert root(host, opened) == session
    must(host, "systemctl stop forgotten checkout; systemctl restart mariadb")
    root(host, "DROP TABLE shop.paid")


@pytest.mark.at_rest
def test_fewer_connections_than_the_role_sets_are_a_choice(host: Host) -> None:
    must(host, "systemctl restart mariadb")
    give(host)
    root(host, "SET GLOBAL max_connections = 20")
    assert wrong() == ([], [])
    must(host, "systemctl restart mariadb")


@pytest.mark.at_rest
def test_where_more_connections_are_enough_nobody_is_ended(host: Host, mend: Mend) -> None:
    must(host, "systemctl restart mariadb")
    give(host)
    root(host, "SET GLOBAL max_connections = 10")
    hold(host)
    assert wrong() == (["connections_used/connections:mariadb.service"], ["live database: connections"])
    time.sleep(6)
    mend("database", "live", "connections")
    held = root(host, "SELECT @@max_connections, COUNT(*) FROM information_schema.PROCESSLIST WHERE USER = 'shop'")
    assert held == "60\t10"
    assert wrong() == ([], [])
    must(host, "systemctl stop forgotten")


@pytest.mark.at_rest
def test_more_connections_than_wanted_stay(host: Host, apply: Apply) -> None:
    must(host, "systemctl restart mariadb")
    root(host, "SET GLOBAL max_connections = 99")
    applied = apply("database", "repair-live", "connections")
    assert (applied.status, applied.changed) == (0, 0), applied.output
    assert root(host, "SELECT @@max_connections") == "99"
    must(host, "systemctl restart mariadb")


@pytest.mark.at_rest
def test_connections_that_work_are_not_ended(host: Host, apply: Apply) -> None:
    must(host, "systemctl restart mariadb")
    root(host, "SET GLOBAL max_connections = 10")
    client = f"mariadb --user=shop --password={PASSWORD} -e 'DO SLEEP(60)'"
    must(host, f"for n in $(seq 10); do systemd-run --quiet --collect --unit=work-$n {client}; done")
    wait_until(lambda: "ERROR 1040" in sql(host, "SELECT 1")[1])
    applied = apply("database", "repair-live", "connections", database_max_connections=10)
    assert (applied.status != 0, applied.changed) == (True, 0), applied.output
    assert "what works is not ended" in " ".join(applied.output.split())
    assert root(host, "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER = 'shop'") == "10"
    must(host, "systemctl stop 'work-*'; systemctl restart mariadb")


CHANGED = {
    "another password": "ALTER USER shop@localhost IDENTIFIED BY 'rotated'",
    "no such user": "DROP USER shop@localhost",
    "no such right": "REVOKE ALL ON shop.* FROM shop@localhost",
}


@pytest.mark.at_rest
@pytest.mark.parametrize("statement", CHANGED.values(), ids=CHANGED)
def test_user_changed_on_one_side_gets_in_again(host: Host, apply: Apply, statement: str) -> None:
    must(host, "systemctl start mariadb")
    users = f"{KEPT}/run/hikeshi-database-users.sql"
    must(host, f"rm -rf {KEPT}/run")
    give(host)
    root(host, "GRANT INSERT ON other_shop.* TO reader@'127.0.0.2'")
    root(host, statement)
    ids, steps = wrong()
    assert ids == [f"login_refused/login:{ENVIRONMENT}"]
    assert "live database: user_password" in steps
    first = apply("database", "repair-live", "user_password")
    assert first.status == 0, first.output
    # The tasks with the passwords hide it: without these words a recovery would say that nothing was changed.
    assert "not as they should be, and are now" in first.output
    second = apply("database", "repair-live", "user_password")
    assert (second.status, second.changed) == (0, 0), second.output
    assert PASSWORD not in first.output + second.output
    assert READER not in first.output + second.output
    assert sql(host, "SELECT 1") == (0, "1")
    assert wrong() == ([], [])
    assert "INSERT" in root(host, "SHOW GRANTS FOR reader@'127.0.0.2'"), "what was granted besides stays"
    root(host, "REVOKE INSERT ON other_shop.* FROM reader@'127.0.0.2'")
    assert must(host, f"stat --format='%a %U' {users}; ls {KEPT}/run").split("\n")[:2] == ["600 root", Path(users).name]
    assert "CREATE USER `reader`@`127.0.0.2`" in must(host, f"cat {users}")
    assert not host.file("/run/hikeshi-database-users.sql").exists


@pytest.mark.at_rest
def test_login_with_what_the_file_says_alone(host: Host) -> None:
    """Root, who asks, would be let in: neither that nor another place may hide a refusal."""
    must(host, "systemctl start mariadb")
    for more, code in (
        ({"SHOP_PASSWORD": "guess"}, 1045),
        ({"SHOP_USER": ""}, 0),
        ({"SHOP_NAME": "mysql"}, 1044),
        ({"SHOP_SOCKET": "/run/none.sock"}, 2002),
    ):
        give(host, **more)
        seen = collected("database")["logins"][ENVIRONMENT]
        assert (seen["ok"], seen["code"]) == (False, code), seen
        assert "guess" not in str(seen)


@pytest.mark.at_rest
def test_login_is_tried_with_the_password_that_systemd_hands_over(host: Host, apply: Apply) -> None:
    must(host, "systemctl start mariadb")
    show = "import os, sys; sys.stdout.buffer.write(os.environb[b'SHOP_PASSWORD'].hex().encode())"
    for written in (r'"\" \ \` \$ #; \n"', "'a \"b\" \\n'", "plain\\ with 'quotes' ", '"a" \'b\'"c"', '"火消し 🚒"'):
        give(host, SHOP_PASSWORD=written)
        words = ["systemd-run", "--quiet", "--wait", "--pipe", "--collect", f"--property=EnvironmentFile={ENVIRONMENT}"]
        told = must(host, shlex.join([*words, "/usr/bin/python3", "-c", show])).strip()
        value = f"QUOTE(CONVERT(X'{told}' USING utf8mb4))"
        root(host, f"EXECUTE IMMEDIATE CONCAT('ALTER USER shop@localhost IDENTIFIED BY ', {value})")
        assert collected("database")["logins"][ENVIRONMENT] == {"ok": True, "code": 0, "message": ""}, written
    assert apply("database", "repair-live", "user_password").status == 0


@pytest.mark.at_rest
def test_server_that_hangs_is_given_up(host: Host) -> None:
    must(host, "systemctl restart mariadb; systemctl kill --signal=STOP mariadb")
    give(host)
    evidence = collected("database")
    must(host, "systemctl kill --signal=CONT mariadb")
    seen = evidence["databases"][SOCKET]
    assert (seen["answers"], seen["code"]) == (False, 2013), seen
    assert [item["source"] for item in evidence["unseen"]] == [f"mariadb at {SOCKET}"]
    assert judge(evidence) == ([], [])


@pytest.mark.at_rest
def test_lost_socket_of_a_running_server_is_seen(host: Host) -> None:
    must(host, f"systemctl restart mariadb; rm {SOCKET}")
    give(host)
    evidence = collected("database")
    must(host, "systemctl restart mariadb")
    assert evidence["databases"][SOCKET]["code"] == evidence["logins"][ENVIRONMENT]["code"] == 2002
    assert [item.id for item in judge(evidence)[0]] == [f"path_missing/path:{SOCKET}"]
    assert wrong() == ([], [])


SETTINGS = "/etc/mysql/mariadb.conf.d"
STRAY = f"{SETTINGS}/99-migration.cnf"
ELSEWHERE = {
    "own socket": (f"sed -i 's|^socket = .*|socket = /run/mysqld/other.sock|' {SETTINGS}/90-hikeshi.cnf", SOCKET),
    "own address": (f"sed -i 's|^bind-address = .*|bind-address = 127.0.0.9|' {SETTINGS}/90-hikeshi.cnf", "[::1]:3306"),
    "stray socket": (f"printf '[mariadbd]\\nsocket = /run/mysqld/other.sock\\n' > {STRAY}", SOCKET),
    "stray port": (f"printf '[mysqld]\\nport = 3307\\n' > {STRAY}", "127.0.0.5:3306"),
    "no network": (f"printf '[server]\\nskip-networking\\n' > {STRAY}", "127.0.0.1:3306"),
}


@pytest.mark.at_rest
@pytest.mark.parametrize(("change", "place"), ELSEWHERE.values(), ids=ELSEWHERE)
def test_server_that_listens_elsewhere_comes_back(host: Host, mend: Mend, change: str, place: str) -> None:
    """Settings of others that read later and say nothing about it stay."""
    tuned = f"{SETTINGS}/95-tuned.cnf"
    must(host, f"rm -rf {KEPT}{SETTINGS}; printf '[mariadbd]\\nsort_buffer_size = 4M\\n' > {tuned}")
    must(host, f"md5sum {tuned} {SETTINGS}/90-hikeshi.cnf > /run/before; {change}; systemctl restart mariadb")
    # Root asks where nobody listens; the program's own login is none of this test's.
    evidence = collected("database")
    assert evidence["listens"][place] is False
    found, steps = judge(evidence)
    assert f"not_listening/listen:{place}" in [item.id for item in found]
    assert [step.words for step in steps if step.kind == "disk"] == ["database: configuration"]
    pid = must(host, "systemctl show --property=MainPID mariadb")
    mend("database", "disk", "configuration")
    must(host, "md5sum --check /run/before")
    assert len(must(host, f"ls {KEPT}{SETTINGS}").split()) == 1
    assert not host.file(STRAY).exists
    assert must(host, "systemctl show --property=MainPID mariadb") == pid, "a disk step restarted something"
    mend("host_base", "live", "unit_restart", unit="mariadb.service", newer=SETTINGS)
    give(host)
    assert wrong() == ([], [])
    assert root(host, "SELECT @@sort_buffer_size") == str(4 << 20)
    must(host, f"rm {tuned}; systemctl restart mariadb")


@pytest.mark.at_rest
def test_configuration_that_is_right_stays(host: Host, apply: Apply) -> None:
    must(host, f"printf '[client]\\nsocket = /run/mysqld/other.sock\\n' > {STRAY}")
    applied = apply("database", "repair-disk", "configuration")
    must(host, f"rm {STRAY}")
    assert (applied.status, applied.changed) == (0, 0), applied.output


LOGS = "/var/log/mysql"


def test_what_is_written_stands_in_the_binary_log_for_two_weeks(host: Host) -> None:
    asked = "SELECT @@log_bin_basename, @@sync_binlog, @@binlog_expire_logs_seconds"
    assert root(host, asked) == f"{LOGS}/mariadb-bin\t1\t{14 * 86400}"
    assert must(host, f"stat --format='%a %U:%G' {LOGS}").strip() == "2750 mysql:adm"
    assert sql(host, "CREATE OR REPLACE TABLE since (word TEXT); INSERT INTO since VALUES ('ordered-today')")[0] == 0
    assert "ordered-today" in must(host, f"mariadb-binlog --no-defaults {LOGS}/mariadb-bin.[0-9]*")
    assert sql(host, "DROP TABLE since")[0] == 0


@pytest.mark.at_rest
def test_no_password_stands_in_the_binary_log(host: Host, apply: Apply) -> None:
    must(host, "systemctl start mariadb")
    root(host, "DROP USER shop@localhost, reader@'127.0.0.2'")
    assert apply("database", "main").status == 0
    assert sql(host, "SELECT 1")[0] == 0
    must(host, f"grep --text --quiet 'DROP USER shop@localhost' {LOGS}/mariadb-bin.[0-9]*")
    for password in (PASSWORD, READER):
        found = host.run(f"grep --text --recursive --files-with-matches -e {password} {LOGS}")
        assert (found.rc, found.stdout) == (1, "")


@pytest.fixture
def small_disk(host: Host) -> Iterator[None]:
    """Give the database's logs a small disk of their own, which belongs to root at first, as any new one does."""
    must(
        host,
        f"systemctl stop mariadb && mount -t tmpfs -o size=32m,mode=0755 small {LOGS} && mkdir {LOGS}/lost+found && "
        f"rm -rf {KEPT}{LOGS}",
    )
    yield
    must(host, f"systemctl stop mariadb; umount {LOGS} && systemctl start mariadb")


@pytest.fixture
def in_use(small_disk: None, host: Host, apply: Apply) -> None:
    """Converge with the small disk; a first file of the binary log is complete."""
    applied = apply("database", "main")
    assert applied.status == 0, applied.output
    give(host)
    root(host, "CREATE OR REPLACE TABLE shop.words (word MEDIUMTEXT); FLUSH BINARY LOGS")


def order(host: Host) -> None:
    """Have the shop write something, and not wait for it."""
    words = f"mariadb --user=shop --password={PASSWORD} shop -e".split()
    # Longer than what is left of the last block.
    statement = f"INSERT INTO words VALUES ('{'x' * 20000}')"  # noqa: S608 - a constant
    must(host, shlex.join(["systemd-run", "--quiet", "--collect", "--unit=order", *words, statement]))


def free_kib(host: Host) -> int:
    return int(must(host, f"df --output=avail {LOGS} | tail -n 1"))


@pytest.mark.at_rest
@pytest.mark.usefixtures("in_use")
def test_disk_that_came_later_is_the_servers(host: Host, apply: Apply) -> None:
    assert must(host, f"stat --format='%a %U:%G' {LOGS}").strip() == "2750 mysql:adm"
    assert host.file(f"{LOGS}/mariadb-bin.000002").exists
    again = apply("database", "main")
    assert (again.status, again.changed) == (0, 0), again.output


@pytest.mark.at_rest
@pytest.mark.usefixtures("in_use")
def test_who_waits_for_room_on_a_full_disk_goes_on_when_old_logs_are_moved(
    host: Host, apply: Apply, mend: Mend
) -> None:
    must(
        host,
        f"cd {LOGS} && head -c 12M /dev/urandom > mariadb-slow.log.2 && touch -d '2 days ago' mariadb-slow.log.2 && "
        "{ head -c 40M /dev/urandom > mariadb-slow.log.1 || true; } && "
        "sha256sum mariadb-slow.log.* mariadb-bin.000001 mariadb-bin.index > /run/before",
    )
    order(host)
    time.sleep(2)
    assert must(host, "systemctl is-active order").strip() == "active", "it waits, and does not fail"
    evidence = collected("database")
    found, steps = judge(evidence)
    assert [(item.id, item.effect) for item in found] == [(f"disk_full/disk:{LOGS}", Effect.CANNOT_BUY)]
    assert [step.words for step in steps] == ["database: logs_move free_mib=7", "database: logs_resume"]
    assert evidence["databases"][SOCKET]["answers"] and evidence["unseen"] == [], "who only reads does not wait"
    refused = apply("database", "repair-live", "logs_resume", __database_resume_seconds=3)
    assert refused.status != 0
    assert "does not write to its binary log" in " ".join(refused.output.split()), refused.output
    mend("database", "disk", "logs_move", free_mib="7")
    resumed = apply("database", "repair-live", "logs_resume")
    assert (resumed.status, resumed.changed) == (0, 0), resumed.output
    wait_until(lambda: root(host, "SELECT COUNT(*) FROM shop.words WHERE LENGTH(word) = 20000") == "1")
    must(host, f"cd {KEPT}{LOGS} && grep slow.log.2 /run/before | sha256sum --check")
    must(host, f"cd {LOGS} && grep --invert-match slow.log.2 /run/before | sha256sum --check")
    assert wrong() == ([], [])


@pytest.mark.at_rest
@pytest.mark.usefixtures("in_use")
def test_deleted_log_that_the_server_holds_is_kept_and_let_go(host: Host, mend: Mend) -> None:
    root(host, f"SET GLOBAL general_log_file = '{LOGS}/general.log'; SET GLOBAL general_log = ON")
    root(host, "SELECT 'before-the-deletion'")
    must(host, f"head -c 40M /dev/zero >> {LOGS}/general.log; rm {LOGS}/general.log")
    assert free_kib(host) < 64, "the deleted file still takes the room"
    order(host)
    pid = must(host, "systemctl show --property=MainPID mariadb")
    assert wrong() == (
        [f"disk_full/disk:{LOGS}"],
        ["live database: logs_reopen", "live database: logs_resume"],
    )
    mend("database", "live", "logs_reopen")
    wait_until(lambda: free_kib(host) > 20000)
    assert must(host, "systemctl show --property=MainPID mariadb") == pid
    kept = must(host, f"grep --text --count before-the-deletion {KEPT}{LOGS}/general.log")
    assert kept.strip() == "1"
    root(host, "SET GLOBAL general_log = OFF")


@pytest.mark.at_rest
def test_whatever_room_is_asked_for_no_binary_log_is_moved(host: Host, apply: Apply) -> None:
    must(host, f"systemctl start mariadb; rm -f {LOGS}/slow.log*; rm -rf {KEPT}{LOGS}")
    root(host, "FLUSH BINARY LOGS")
    # The last one is still written to: Debian's own check of the tables goes on after the start.
    files = f"cd {LOGS} && ls mariadb-bin.* && ls mariadb-bin.0* | head -n -1 | xargs sha256sum"
    before = must(host, f"{files}; echo old > slow.log.1")
    assert before.count("mariadb-bin.0") > 1
    # Compressed where it lies: what is kept is on the same disk here.
    applied = apply("database", "repair-disk", "logs_move", {"free_mib": "9999999"})
    assert (applied.status, applied.changed) == (0, 1), applied.output
    assert must(host, files) == before
    assert must(host, f"cd {LOGS} && ls slow.log* && zcat slow.log.1.gz && rm slow.log*").split() == [
        "slow.log.1.gz",
        "old",
    ]


@pytest.mark.at_rest
def test_lost_directory_of_logs_keeps_the_server_from_starting_until_it_is_back(host: Host, mend: Mend) -> None:
    must(host, f"systemctl stop mariadb; mv {LOGS} {LOGS}.lost")
    assert host.run("systemctl start mariadb").rc != 0
    give(host)
    ids, steps = wrong()
    assert f"path_missing/path:{LOGS}" in ids
    assert "disk database: configuration" in steps
    mend("database", "disk", "configuration")
    mend("host_base", "live", "unit_start", unit="mariadb.service")
    assert wrong() == ([], [])
    must(host, f"systemctl stop mariadb; rm -r {LOGS}; mv {LOGS}.lost {LOGS}; systemctl start mariadb")


@pytest.mark.at_rest
def test_server_without_a_binary_log_waits_for_no_room(host: Host, apply: Apply) -> None:
    applied = apply("database", "main", database_binary_log=False)
    assert applied.status == 0, applied.output
    assert root(host, "SELECT @@log_bin") == "0"
    resumed = apply("database", "repair-live", "logs_resume")
    assert (resumed.status, resumed.changed) == (0, 0), resumed.output
    assert apply("database", "main").status == 0
    assert root(host, "SELECT @@log_bin") == "1"
