"""database: answers its own users and nobody else, holds any text, and comes back however it was switched off."""

import json
import shlex
from typing import Any

import pytest
from testinfra.host import Host

from tests.infra.asking import Apply, must, wait_until

PASSWORD = "for-this-scenario-only"  # noqa: S105 - of a container that lives for a minute
READER = "for-this-scenario-as-well"
TEXT = "火消し𠮷野家🚒"
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
        ({"database_aria_recover_options": "SOMETIMES"}, "'SOMETIMES'"),
        ({"database_aria_recover_options": "OFF,QUICK"}, "'OFF,QUICK'"),
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
