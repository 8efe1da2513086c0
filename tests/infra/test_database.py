"""database: answers its own users and nobody else, holds any text, and comes back however it was switched off."""

import shlex

import pytest
from testinfra.host import Host

from tests.infra.asking import Apply, must, wait_until

PASSWORD = "for-this-scenario-only"  # noqa: S105 - of a container that lives for a minute
TEXT = "火消し𠮷野家🚒"


def sql(
    host: Host, statement: str, database: str = "shop", user: str = "shop", password: str = PASSWORD
) -> tuple[int, str]:
    """Run a statement as the shop does, through the socket, and return the status and what was said."""
    result = host.run(
        f"mariadb --user={user} --password={shlex.quote(password)} --batch --skip-column-names "
        f"{database} -e {shlex.quote(statement)}"
    )
    return result.rc, str(result.stdout + result.stderr).strip()


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


def test_nobody_outside_the_host_reaches_it(host: Host) -> None:
    listening = [line.split()[3] for line in must(host, "ss -Hlnt").splitlines()]
    assert "127.0.0.1:3306" in listening
    assert all(address == "127.0.0.1:3306" for address in listening if address.endswith(":3306")), listening


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
