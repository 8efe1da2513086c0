"""Copies and swaps against a cloud in memory: killed at every step they end well when they are asked for again."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hikeshi.copies import making, record, rescue, swap, work
from hikeshi.copies.record import Check, Copy
from hikeshi.errors import HikeshiError, RefusedError
from hikeshi.incident import permissions, store
from hikeshi.incident import state as states
from hikeshi.site import Site, load
from tests.unit.commands import hikeshi
from tests.unit.conftest import SITE, Project
from tests.unit.copy_cloud import Cloud, alive, cloud, copied

__all__ = ["cloud"]
MOST_STEPS = 200
ALLOWED = {"by": "Ms Ito", "when": "before", "words": "You may."}
NONE = {"driver": "none", "instances": {"web1": "shop-web1"}}


def agree(told: Sequence[str], question: str) -> bool:
    return True


def shop(project: Project, *allowed: str, once: str = "", **copy: Any) -> Site:
    """Return a site whose host may be copied; in words that were not said before once more."""
    more = {"limit": 1, "words": once} if once else {}
    permitted = {name: {**ALLOWED, **more} for name in allowed or ("copy", "reboot")}
    project.site({**SITE, "permissions": permitted, "copy": {**NONE, **copy}})
    return load("shop")


def uses(site: Site, name: str) -> int:
    decision = permissions.ledger(store.journal(site).records()).get(name)  # type: ignore[call-overload]
    return decision.used if decision else 0


def items(site: Site) -> set[str]:
    return set(states.derive(store.journal(site).records()).items)


def take(site: Site) -> None:
    making.take(site, approve=agree)


def test_a_copy_is_verified_journaled_and_to_be_taken_away(project: Project, cloud: Cloud) -> None:
    site = shop(project)
    take(site)
    copy = copied(site)
    assert (copy.state, copy.digest, cloud.copies) == ("verified", "d", {copy.id: "broken"})
    assert items(site) == {f"copy {copy.id}"}
    making.take(site, approve=agree)
    assert copied(site).id == copy.id, "a verified copy is no reason for another"
    making.take(site, approve=agree, again=True)
    assert len(record.read_all(site)) == 2 and uses(site, "copy") == 2


def test_a_copy_killed_at_any_step_is_made_once_and_allowed_once(project: Project, cloud: Cloud) -> None:
    for step in range(MOST_STEPS):
        site = shop(project, once=f"Once, {step}")
        with alive(cloud, step):
            take(site)
        whole = not cloud.dead
        assert not cloud.frozen
        with alive(cloud):
            take(site)
        copy = copied(site)
        assert copy.state == "verified" and set(cloud.copies) == {copy.id}
        assert uses(site, "copy") == 1 and items(site) == {f"copy {copy.id}"}
        with alive(cloud):
            making.delete(site, copy.id)
        if whole:
            break
    assert whole and step > 10


def test_a_copy_that_is_not_good_is_refused_and_nothing_is_left(project: Project, cloud: Cloud) -> None:
    site = shop(project)
    cloud.bad = [Check(what="database /var/lib/mysql", ok=False, words="does not open: a log is missing")]
    with pytest.raises(HikeshiError, match="not good, and was removed.*a log is missing"):
        take(site)
    assert not cloud.copies and not record.read_all(site) and not items(site)


def test_refused_before_anything_is_made_or_used_up(project: Project, cloud: Cloud) -> None:
    site = shop(project, "reboot")
    with pytest.raises(RefusedError, match="needs the customer's permission 'copy'"):
        take(site)
    site = shop(project, "copy", price_per_gib_day=1.5)
    with pytest.raises(RefusedError, match="permission 'spend'"):
        take(site)
    project.site({**SITE, "permissions": {"copy": ALLOWED, "spend": {**ALLOWED, "limit": 29}},
                  "copy": {**NONE, "price_per_gib_day": 1.5}})  # fmt: skip
    with pytest.raises(RefusedError, match="limited to 29.*this takes 30"):
        take(load("shop"))
    site = shop(project)
    cloud.free = 9 << 30
    with pytest.raises(RefusedError, match="takes up to 10.0 GiB, and only 9.0 GiB may be filled"):
        take(site)
    cloud.free = None
    with pytest.raises(RefusedError, match="not approved"):
        making.take(site, approve=lambda told, question: False)
    assert not cloud.copies and not record.read_all(site) and not uses(site, "copy") and not items(site)


def test_money_is_spent_once(project: Project, cloud: Cloud) -> None:
    project.site({**SITE, "permissions": {"copy": ALLOWED, "spend": {**ALLOWED, "limit": 30}},
                  "copy": {**NONE, "price_per_gib_day": 1.5}})  # fmt: skip
    site = load("shop")
    for step in (4, 6, 8, 10, 12, 14):
        with alive(cloud, step):
            take(site)
    with alive(cloud):
        take(site)
    decision = permissions.ledger(store.journal(site).records())["spend"]
    assert (decision.used, decision.spent) == (1, 30.0)


def test_a_permission_taken_back_stops_a_copy_that_was_begun(project: Project, cloud: Cloud) -> None:
    site = shop(project)
    step = 0
    while not uses(site, "copy"):
        with alive(cloud, step):
            take(site)
        step += 1
    assert copied(site).state == "making"
    with alive(cloud):
        store.journal(site).append("permission.withdrawn", {"name": "copy", "by": "Ms Ito", "words": "No copy"})
    with alive(cloud), pytest.raises(RefusedError, match="Ms Ito withdrew it"):
        take(site)


def test_check_says_what_it_would_take_and_changes_nothing(project: Project, cloud: Cloud) -> None:
    site = shop(project, "reboot")
    done = making.take(site, approve=agree, check=True)
    assert done.missing == ["permission 'copy' is needed: nobody has allowed it"]
    assert [item.space.needed for item in done.estimates] == [10 << 30]
    assert not record.read_all(site) and not store.journal(site).records()


def test_a_copy_that_was_written_to_is_told_and_kept(project: Project, cloud: Cloud) -> None:
    site = shop(project)
    take(site)
    copy = copied(site)
    assert all(check.ok for check in making.verify_again(site, copy.id)[1])
    cloud.digest = "another"
    assert [check.what for check in making.verify_again(site, copy.id)[1] if not check.ok] == ["digest"]
    assert cloud.copies


def test_what_expired_goes_and_what_the_cloud_lost_is_forgotten(project: Project, cloud: Cloud) -> None:
    site = shop(project)
    take(site)
    copy = copied(site)
    assert making.delete_expired(site).removed == []
    copy.expires = datetime.now(UTC) - timedelta(seconds=1)
    record.save(site, copy)
    assert making.delete_expired(site).removed == [copy.id]
    assert not cloud.copies and not items(site)
    take(site)
    lost = copied(site)
    cloud.copies.clear()
    take(site)
    assert [one.id for one in record.read_all(site)] == list(cloud.copies) and items(site) == {
        f"copy {copied(site).id}"
    }
    assert lost.id not in cloud.copies or lost.begun != copied(site).begun


def test_removing_is_gone_on_with(project: Project, cloud: Cloud) -> None:
    site = shop(project)
    for step in range(MOST_STEPS):
        with alive(cloud):
            take(site)
        ident = copied(site).id
        with alive(cloud, step):
            making.delete(site, ident)
        whole = not cloud.dead
        with alive(cloud):
            making.delete_expired(site)
            for copy in record.read_all(site):  # it died before it had written that it removes
                assert copy.state == "verified" and copy.id in cloud.copies
                making.delete(site, copy.id)
        assert not cloud.copies and not record.read_all(site) and not items(site)
        if whole:
            break
    assert whole


# Working copy and swap


def ready(site: Site, cloud: Cloud) -> Copy:
    """Have a mended working copy."""
    with alive(cloud):
        take(site)
        copy = copied(site)
        with work.opened(site, copy) as bench:
            assert (bench.root, cloud.benches) == ("/disk", {copy.id})
            cloud.works[copy.id] = "mended"
    return copied(site)


def test_a_working_copy_killed_at_any_step_is_made_of_the_copy(project: Project, cloud: Cloud) -> None:
    site = shop(project)
    with alive(cloud):
        take(site)
    for step in range(MOST_STEPS):
        with alive(cloud, step), work.opened(site, copied(site)):
            cloud.works[copied(site).id] = "half mended"
        whole = not cloud.dead
        with alive(cloud), work.opened(site, copied(site)):
            assert cloud.works[copied(site).id] in ("broken", "half mended")
        assert copied(site).work == "ready" and not cloud.benches and cloud.copies == {copied(site).id: "broken"}
        with alive(cloud):
            work.throw_away(site, copied(site))
        assert not cloud.works
        if whole:
            break
    assert whole and step > 10


def test_a_swap_killed_at_any_step_goes_on_in_its_direction(project: Project, cloud: Cloud) -> None:
    carried = {"carried": {"web1": ["/var/lib/mysql"]}, "databases": {"web1": ["/var/lib/mysql"]}}
    for step in range(MOST_STEPS):
        site = shop(project, once=f"Once, {step}", **carried)
        copy = ready(site, cloud)
        orders = [*cloud.original.orders]
        with alive(cloud, step):
            swap.swap_in(site, copy)
        whole = not cloud.dead
        assert "original" in cloud.machines and cloud.original.orders == orders and cloud.original.disk == "broken"
        with alive(cloud):
            swap.swap_in(site, copied(site))
        assert cloud.serving.disk == "mended" and cloud.serving.running and not cloud.original.running
        assert cloud.serving.orders == orders, "no order is lost on the way"
        assert uses(site, "reboot") == 1 and "swap web1" in items(site)
        with pytest.raises(RefusedError, match="runs from copy"):
            making.delete(site, copy.id)
        cloud.serving.orders.append(f"while mended {step}")
        with alive(cloud):
            swap.proven(site, copied(site))
        with alive(cloud, step):
            swap.swap_back(site, copied(site))
        whole &= not cloud.dead
        with alive(cloud):
            swap.swap_back(site, copied(site))
        assert cloud.serving is cloud.original and cloud.original.running
        assert cloud.original.orders == [*orders, f"while mended {step}"]
        assert copied(site).swap is None and "swap web1" not in items(site)
        with alive(cloud):
            making.delete(site, copied(site).id)
        if whole:
            break
    assert whole and step > 20


def test_a_swap_in_that_was_killed_may_be_taken_back(project: Project, cloud: Cloud) -> None:
    """Whatever a mended disk that never ran has of the orders, nothing of it goes back."""
    for step in range(MOST_STEPS):
        site = shop(project, once=f"Once, {step}", carried={"web1": ["/var/lib/mysql"]})
        copy = ready(site, cloud)
        cloud.original.orders = orders = ["one", f"placed after the copy {step}"]
        with alive(cloud, step):
            swap.swap_in(site, copy)
        whole = not cloud.dead
        with alive(cloud):
            swap.swap_back(site, copied(site))
        assert cloud.serving is cloud.original and cloud.original.running
        assert cloud.original.orders == orders, f"killed at step {step}"
        with alive(cloud):
            making.delete(site, copied(site).id)
        if whole:
            break
    assert whole and step > 10


def test_a_proven_host_is_stopped_again_by_permission_alone(
    project: Project, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    site = shop(project, databases={"web1": ["/var/lib/mysql"]})
    copy = ready(site, cloud)
    for name in ("data-loss", "reboot"):
        permitted = {"name": name, "by": "Ms Ito", "words": "Yes", "limit": 1, "until": None}
        store.journal(site).append("permission.granted", permitted)
    swap.swap_in(site, copy)
    swap.proven(site, copied(site))
    for missing in ("data-loss", "reboot"):
        assert hikeshi(monkeypatch, "copy", "web1", "--swap-back", "--check") == 0
        assert f"refused it would be: permission '{missing}'" in " ".join(capsys.readouterr().err.split())
        assert hikeshi(monkeypatch, "copy", "web1", "--swap-back", "--yes") == 5
        assert f"hikeshi incident permit {missing}" in " ".join(capsys.readouterr().err.split())
        assert cloud.serving.disk == "mended" and cloud.serving.running
        permitted = {"name": missing, "by": "Ms Ito", "words": "Once more", "limit": None, "until": None}
        store.journal(site).append("permission.granted", permitted)
    assert hikeshi(monkeypatch, "copy", "web1", "--swap-back", "--yes") == 0
    assert cloud.serving is cloud.original and cloud.original.running


def test_a_swap_is_committed_once_it_is_proven_and_killed_it_goes_on(project: Project, cloud: Cloud) -> None:
    for step in range(MOST_STEPS):
        site = shop(project)
        copy = ready(site, cloud)
        swap.swap_in(site, copy)
        with pytest.raises(RefusedError, match="not proven to work from copy"):
            swap.commit(site, copied(site))
        swap.proven(site, copied(site))
        with alive(cloud, step):
            swap.commit(site, copied(site))
        whole = not cloud.dead
        assert cloud.serving.disk == "mended" and cloud.serving.running
        with alive(cloud):
            if any(kept.swapped for kept in record.read_all(site)):  # killed before it was written
                swap.commit(site, copied(site))
            making.delete_expired(site)
        assert [*cloud.machines] == [f"mended {copy.id}"] and cloud.serving.running
        assert not record.read_all(site) and not cloud.copies and not items(site)
        if whole:
            break
        cloud.machines = {"original": cloud.original}
        cloud.original.name, cloud.original.running = "shop-web1", True
    assert whole and step > 1


def test_a_swap_that_would_lose_orders_needs_to_be_allowed(project: Project, cloud: Cloud) -> None:
    site = shop(project, databases={"web1": ["/var/lib/mysql"]})
    copy = ready(site, cloud)
    with pytest.raises(RefusedError, match="lose what /var/lib/mysql was given.*permission 'data-loss'"):
        swap.swap_in(site, copy)
    assert rescue.foresee(site, "web1")[1] == ["permission 'data-loss' is needed: nobody has allowed it"]
    assert cloud.original.running and copied(site).swap and not copied(site).swapped


def test_a_swap_without_permission_stops_nothing_and_resumes_after_it(project: Project, cloud: Cloud) -> None:
    site = shop(project, "copy")
    copy = ready(site, cloud)
    with pytest.raises(RefusedError, match="permission 'reboot'"):
        swap.swap_in(site, copy)
    assert cloud.original.running and "swap web1" not in items(site)
    permitted = {"name": "reboot", "by": "Ms Ito", "words": "Yes", "limit": None, "until": None}
    store.journal(site).append("permission.granted", permitted)
    swap.swap_in(site, copied(site))
    assert cloud.serving.disk == "mended"


def test_what_is_sealed_is_older_than_what_is_opened_again(project: Project, cloud: Cloud) -> None:
    site = shop(project)
    copy = ready(site, cloud)
    swap.seal(site, copy)
    with work.opened(site, copied(site)):
        cloud.works[copy.id] = "mended twice"
    assert copied(site).swap is None
    swap.swap_in(site, copied(site))
    assert cloud.serving.disk == "mended twice"


def test_nothing_is_made_of_a_copy_that_is_not_verified(project: Project, cloud: Cloud) -> None:
    site = shop(project)
    take(site)
    copy = copied(site)
    copy.state = "made"
    with pytest.raises(RefusedError, match="is made, not verified"):
        work.make(site, copy)


# Files and words


def test_a_file_that_tells_nothing_is_named(project: Project, cloud: Cloud) -> None:
    site = shop(project)
    take(site)
    path = record.folder(site) / f"{copied(site).id}.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "state": "lost"}))
    with pytest.raises(HikeshiError, match=r"state: Input should be 'making', 'made', 'verified' or 'deleting'"):
        take(site)
    path.write_text("{")
    with pytest.raises(HikeshiError, match=f"{path.name} does not tell"):
        take(site)


@pytest.mark.parametrize(
    ("copy", "words"),
    [
        ({"driver": "libvirt"}, "'podman', 'none'"),
        ({"driver": "none", "instances": {"web1": "--all"}}, "copy.none.instances.web1"),
        ({"driver": "none", "instances": {"web1": "a"}, "databases": {"db1": ["/x"]}}, "not in instances: web1"),
        ({"driver": "none", "carried": {"web1": ["/var/../etc"]}}, "copy.none.carried.web1.0"),
        ({"driver": "none", "keep_hours": 0}, "copy.none.keep_hours"),
        ({"driver": "none", "settings": "x"}, "copy.none.settings"),
    ],
)
def test_wrong_data_is_named(
    copy: dict[str, Any], words: str, project: Project, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    project.site({**SITE, "copy": copy})
    assert hikeshi(monkeypatch, "copy", "--list") == 4
    assert words in capsys.readouterr().err


def test_a_site_that_does_not_say_how_is_told_how(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hikeshi(monkeypatch, "copy") == 4
    assert "copy: {driver: none" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nosuch",), "copied can be: web1"),
        (("--list", "--delete", "x"), "--list goes with nothing else"),
        (("--verify", "x"), "there is no copy 'x'; there are: none"),
        (("--delete", "x"), "there is no copy 'x'"),
        (("web1", "--swap-back"), "web1 runs from no copy"),
        (("web1", "--done", "x"), "asked for is: nothing"),
    ],
)
def test_wrong_words_are_named(
    words: tuple[str, ...], said: str, project: Project, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    shop(project)
    assert hikeshi(monkeypatch, "copy", *words) == 2
    assert said in capsys.readouterr().err


def test_the_command_copies_lists_and_removes(
    project: Project, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shop(project)
    assert hikeshi(monkeypatch, "copy", "web1") == 5
    assert "hikeshi copy --yes" in capsys.readouterr().err
    assert hikeshi(monkeypatch, "copy", "web1", "--yes", "--json") == 0
    (copy,) = json.loads(capsys.readouterr().out)["copies"]
    cloud.copies["web1-of-a-friend"] = "x"
    assert hikeshi(monkeypatch, "copy", "--list") == 0
    out = capsys.readouterr().out
    assert copy["id"] in out and "unknown image web1-of-a-friend" in out
    assert hikeshi(monkeypatch, "copy", "--delete", copy["id"]) == 0
    assert set(cloud.copies) == {"web1-of-a-friend"}


# By hand


def test_without_a_driver_each_step_is_asked_for_and_gone_on_with(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site = shop(project, databases={"web1": ["/var/lib/mysql"]}, price_per_gib_day=0)
    assert hikeshi(monkeypatch, "copy", "--yes") == 5
    asked = capsys.readouterr().err
    assert "1. Open the cloud's control panel, and there the server shop-web1." in asked
    assert "hikeshi copy web1 --done IDS-AND-SIZES --site shop" in asked
    assert hikeshi(monkeypatch, "copy", "--yes") == 5, "it is asked for again, and nothing is used up twice"
    capsys.readouterr()
    assert hikeshi(monkeypatch, "copy", "--done", "snap-1, 40 GiB") == 5
    asked = capsys.readouterr().err
    assert "Make a new server or disk of snap-1, 40 GiB" in asked and "--datadir=/var/lib/mysql" in asked
    assert hikeshi(monkeypatch, "copy", "web1", "--done", "Aki saw 213 tables open") == 0
    copy = copied(site)
    assert (copy.state, copy.taken and copy.taken.disk) == ("verified", "snap-1, 40 GiB")
    assert [check.words for check in copy.checks] == ["Aki saw 213 tables open"]
    assert uses(site, "copy") == 1
    assert hikeshi(monkeypatch, "copy", "--delete", copy.id) == 5
    assert f"Remove at the control panel what is named {copy.id}" in capsys.readouterr().err
    assert hikeshi(monkeypatch, "copy", "--done", "gone") == 0
    assert not record.read_all(site) and not items(site)


def test_without_a_driver_a_swap_is_told_step_by_step(project: Project) -> None:
    site = shop(project, carried={"web1": ["/var/lib/mysql"]}, databases={"web1": ["/var/lib/mysql"]})
    asked = []
    for words in ("snap-1", "Aki saw it", "disk-1", "disk-0", "stopped", "carried", "attached", "started"):
        with pytest.raises(RefusedError, match="no driver makes copies") as refused:
            making.take(site, approve=agree)
            swap.swap_in(site, copied(site))
        asked.append(refused.value.message.partition("1. ")[2][:32])
        copy = copied(site)
        copy.told, copy.asked = {**copy.told, copy.asked: words}, ""  # as --done writes it
        record.save(site, copy)
    swap.swap_in(site, copied(site))
    assert copied(site).swapped and uses(site, "reboot") == 1
    assert asked == [
        "Open the cloud's control panel, ", "Make a new server or disk of sna", "Make a disk of snap-1 to work on",
        "Note which disk of shop-web1 is ", "Stop the server shop-web1 (not “", "Before shop-web1 is started, bri",
        "Detach the system disk of shop-w", "Start the server shop-web1, and ",
    ]  # fmt: skip
