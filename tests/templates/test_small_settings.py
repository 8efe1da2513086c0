"""Settings files of a few lines: the journal's and MariaDB's, read as their programs read them."""

import configparser

from tests.templates.rendering import render


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
