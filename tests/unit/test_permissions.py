"""What the customer allowed: the last word counts, limits hold, and nothing else grants."""

import multiprocessing
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest
import yaml

from hikeshi.errors import MisconfiguredError, RefusedError
from hikeshi.incident import permissions, store
from hikeshi.incident.journal import Journal
from hikeshi.incident.permissions import REGISTRY, ledger, require
from hikeshi.incident.record import Record
from hikeshi.site import PROJECT, PermissionName, Site, load
from tests.unit.conftest import SITE, Project

BRIEF = {"by": "the customer", "when": "in the brief", "words": "You may restart it."}


@pytest.fixture
def site(project: Project) -> Site:
    site = load()
    store.begin(site, "tv", "me", "", datetime(2026, 11, 25, tzinfo=UTC))
    return site


def grant(site: Site, name: str, kind: str = "granted", **more: Any) -> Record:
    return store.journal(site).append(f"permission.{kind}", {"name": name, "by": "Ms Ito", "words": "yes", **more})


def kinds(site: Site) -> list[str]:
    return [item.kind for item in store.journal(site).records() if item.kind.startswith("permission.")]


def test_every_permission_has_a_meaning_and_a_question() -> None:
    assert set(REGISTRY) == set(get_args(PermissionName))
    assert all(meaning.ask.endswith("?") or "?" in meaning.ask for meaning in REGISTRY.values())


@pytest.mark.parametrize("name", get_args(PermissionName))
def test_without_it_the_action_stops_with_the_question(site: Site, name: PermissionName) -> None:
    with pytest.raises(RefusedError) as caught:
        require(site, name, "do it to web1", amount=5 if REGISTRY[name].by_amount else 0)
    assert f"needs the customer's permission '{name}', and nobody has allowed it" in caught.value.message
    assert REGISTRY[name].ask in caught.value.message
    assert f"hikeshi incident permit {name}" in caught.value.fix
    assert kinds(site) == ["permission.missing"]


def test_a_grant_is_used_by_its_number(site: Site) -> None:
    given = grant(site, "reboot")
    assert [item.name for item in permissions.unused(ledger(store.journal(site).records()), datetime.now(UTC))] == [
        "reboot"
    ]
    assert require(site, "reboot", "restart web1").words == "yes"
    used = store.journal(site).records()[-1]
    assert (used.kind, used.data["grant"], used.data["action"]) == ("permission.used", given.seq, "restart web1")
    assert permissions.unused(ledger(store.journal(site).records()), datetime.now(UTC)) == []


@pytest.mark.parametrize(("kind", "words"), [("refused", "refused it: “no”"), ("withdrawn", "withdrew it: “no”")])
def test_the_last_word_counts(site: Site, kind: str, words: str) -> None:
    grant(site, "copy")
    grant(site, "copy", kind, words="no")
    with pytest.raises(RefusedError, match=words):
        require(site, "copy", "copy web1")
    grant(site, "copy")
    require(site, "copy", "copy web1")


def test_expiry(site: Site) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    grant(site, "sorry", until=soon.isoformat())
    require(site, "sorry", "close the gate")
    grant(site, "sorry", until=(soon - timedelta(hours=2)).isoformat())
    with pytest.raises(RefusedError, match="it was granted until .* only"):
        require(site, "sorry", "close the gate")


def test_a_limit_is_a_sum(site: Site) -> None:
    grant(site, "spend", limit=100)
    require(site, "spend", "rent a server", amount=60)
    with pytest.raises(RefusedError, match="limited to 100, of which 60 are spent; this takes 50") as caught:
        require(site, "spend", "rent another", amount=50)
    assert "--limit AMOUNT" in caught.value.fix
    require(site, "spend", "rent a smaller one", amount=40)


@pytest.mark.parametrize(
    ("name", "amount"), [("spend", 0), ("spend", -5), ("spend", float("nan")), ("spend", float("inf")), ("reboot", 1)]
)
def test_no_action_asks_for_a_senseless_amount(site: Site, name: PermissionName, amount: float) -> None:
    grant(site, name, limit=100)
    with pytest.raises(ValueError, match="takes"):
        require(site, name, "do it", amount=amount)
    assert kinds(site) == ["permission.granted"]


def test_a_limit_of_what_costs_nothing_is_how_often(site: Site) -> None:
    grant(site, "reboot", limit=2)
    require(site, "reboot", "restart web1")
    require(site, "reboot", "restart web1")
    with pytest.raises(RefusedError, match="granted for 2 times, and used 2 times"):
        require(site, "reboot", "restart web1")


def spend(site: Site, done: Any) -> None:
    try:
        require(site, "spend", "rent", amount=30)
        done.put(True)
    except RefusedError:
        done.put(False)


def test_two_never_spend_the_same_amount(site: Site) -> None:
    grant(site, "spend", limit=100)
    context = multiprocessing.get_context("fork")
    done = context.Queue()
    spenders = [context.Process(target=spend, args=(site, done)) for _ in range(10)]
    for spender in spenders:
        spender.start()
    results = [done.get(timeout=30) for _ in spenders]
    for spender in spenders:
        spender.join()
    assert sum(results) == 3


def with_standing(project: Project, **given: Any) -> Site:
    project.site({**SITE, "permissions": given})
    return load()


def test_standing_permissions_come_from_the_sites_data(project: Project, site: Site) -> None:
    site = with_standing(project, reboot=BRIEF)
    assert require(site, "reboot", "restart web1").by == "the customer"
    assert require(site, "reboot", "restart web1").standing
    assert kinds(site) == ["permission.granted", "permission.used", "permission.used"]


def test_a_customers_later_word_beats_a_standing_permission(project: Project, site: Site) -> None:
    site = with_standing(project, reboot=BRIEF)
    require(site, "reboot", "restart web1")
    grant(site, "reboot", "withdrawn", words="not now")
    with pytest.raises(RefusedError, match="not now"):
        require(site, "reboot", "restart web1")
    with pytest.raises(RefusedError, match="not now"):  # nor does an edit of the file take it back
        require(with_standing(project, reboot={**BRIEF, "words": "You may restart it at any time."}), "reboot", "x")


def test_changed_and_removed_standing_permissions_are_noticed(project: Project, site: Site) -> None:
    require(with_standing(project, reboot=BRIEF), "reboot", "restart web1")
    site = with_standing(project, reboot={**BRIEF, "until": "2020-01-01T00:00+09:00"})
    with pytest.raises(RefusedError, match="until 2019-12-31 15:00 UTC"):
        require(site, "reboot", "restart web1")
    site = with_standing(project)
    with pytest.raises(RefusedError, match="no longer in the site's data"):
        require(site, "reboot", "restart web1")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"restart": BRIEF}, "permissions.restart"),
        ({"reboot": {**BRIEF, "until": "tomorrow"}}, "permissions.reboot.until"),
        ({"reboot": {**BRIEF, "until": "2026-11-25T18:00"}}, "no offset"),
        ({"spend": {**BRIEF, "limit": 0}}, "permissions.spend.limit"),
        ({"spend": BRIEF}, "spend needs a limit"),
        ({"reboot": {**BRIEF, "limit": 1.5}}, "the limit of reboot says how often"),
        ({"reboot": {**BRIEF, "words": ""}}, "permissions.reboot.words"),
        ({"reboot": {"words": "yes"}}, "permissions.reboot.by"),
    ],
)
def test_wrong_standing_permissions_are_named(project: Project, given: dict[str, Any], words: str) -> None:
    with pytest.raises(MisconfiguredError, match=words):
        with_standing(project, **given)


def test_the_drills_brief_grants_a_reboot() -> None:
    data = yaml.safe_load((PROJECT / "inventories/drill/site.yml").read_text())
    assert set(data["permissions"]) == {"reboot"}


def test_without_an_incident_the_standing_journal_remembers(project: Project) -> None:
    site = with_standing(project, reboot=BRIEF)
    require(site, "reboot", "restart web1")
    assert [item.kind for item in Journal(site.records).records()][-1] == "permission.used"
    with pytest.raises(RefusedError) as caught:
        require(site, "copy", "copy web1")
    assert caught.value.fix.startswith("hikeshi incident open NAME --site shop; then")


def damage(site: Site, kind: str) -> None:
    """Change one byte of the last record of a kind."""
    path = store.journal(site).path
    lines = path.read_bytes().split(b"\n")
    at = max(number for number, line in enumerate(lines) if f'"kind":"{kind}"'.encode() in line)
    lines[at] = lines[at].replace(b"Ms Ito", b"Ms Eto")
    path.write_bytes(b"\n".join(lines))


@pytest.mark.parametrize("more", [0, 2])
def test_a_lost_refusal_does_not_give_the_permission_back(site: Site, more: int) -> None:
    grant(site, "copy")
    grant(site, "copy", "refused", words="no")
    for _ in range(more):
        store.journal(site).append("note", {"words": "x"})
    damage(site, "permission.refused")
    with pytest.raises(RefusedError, match="the journal is damaged at record 4"):
        require(site, "copy", "copy web1")
    assert not permissions.unused(ledger(store.journal(site).records()), datetime.now(UTC))
    grant(site, "copy")  # the customer was asked again
    require(site, "copy", "copy web1")


def test_a_refusal_that_is_gone_does_not_either(site: Site) -> None:
    grant(site, "copy")
    grant(site, "copy", "withdrawn")
    store.journal(site).append("note", {"words": "x"})
    path = store.journal(site).path
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([*lines[:3], *lines[4:]]))
    with pytest.raises(RefusedError, match="the journal is damaged at record 4"):
        require(site, "copy", "copy web1")


def test_no_file_grants_anything_over_a_lost_refusal(project: Project, site: Site) -> None:
    grant(site, "reboot", "refused")
    damage(site, "permission.refused")
    project.site({**SITE, "permissions": {"reboot": BRIEF}})
    with pytest.raises(RefusedError, match="nobody has allowed it"):
        require(load(), "reboot", "restart web1")
