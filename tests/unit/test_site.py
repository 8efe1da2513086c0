"""A site's data: what is refused, and with which words."""

from pathlib import Path
from typing import Any

import pytest

from hikeshi import site as sites
from hikeshi.errors import MisconfiguredError, UsageError
from tests.unit.conftest import PROBES, SITE, Project


def test_the_only_site_needs_no_name(project: Project) -> None:
    assert sites.load().name == "shop"


def test_two_sites_are_never_guessed(project: Project) -> None:
    other = project.root / "inventories" / "other"
    other.mkdir()
    (other / "site.yml").write_text("title: other\n")
    with pytest.raises(UsageError, match="no site named; allowed: other, shop"):
        sites.load()


@pytest.fixture
def template(project: Project) -> Project:
    """A project with one site and one template."""
    folder = project.root / "inventories" / "example"
    folder.mkdir()
    (folder / "site.yml").write_text("title: Example\ntemplate: true\n")
    return project


def test_template_is_no_second_site(template: Project) -> None:
    assert sites.site_names() == ["shop"]
    assert sites.load().name == "shop"


def test_template_alone_is_not_chosen(template: Project) -> None:
    (template.folder / "site.yml").unlink()
    with pytest.raises(UsageError, match="no site named; allowed: none yet"):
        sites.load()


@pytest.mark.parametrize("by", ["argument", "environment"])
def test_named_template_says_copy_it_first(template: Project, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    monkeypatch.setenv("HIKESHI_SITE", "example")
    with pytest.raises(UsageError, match="'example' is a template and no site: .* copy it first") as caught:
        sites.load("example" if by == "argument" else None)
    assert caught.value.fix.startswith("cp -r inventories/example inventories/NAME")


def test_copied_template_is_a_site(template: Project) -> None:
    folder = template.root / "inventories" / "example"
    (folder / "site.yml").write_text("title: Example\ntemplate: false\n")
    with pytest.raises(UsageError, match="no site named; allowed: example, shop"):
        sites.load()


def test_unreadable_site_is_not_taken_for_a_template(project: Project) -> None:
    project.write("site.yml", "template: [\n")
    with pytest.raises(MisconfiguredError, match="is not YAML"):
        sites.load()


def test_site_from_environment(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIKESHI_SITE", "nosuch")
    with pytest.raises(UsageError, match="unknown site 'nosuch'; allowed: shop"):
        sites.load()
    assert sites.load("shop").name == "shop"


@pytest.mark.parametrize("name", ["site.yml", "probes.yml", "hosts.yml"])
def test_broken_yaml_names_file_and_line(project: Project, name: str) -> None:
    project.write(name, "a: 1\nb: [1, 2\nc: 3\n")
    with pytest.raises(MisconfiguredError, match=rf"inventories/shop/{name} line 3, column \d+ is not YAML"):
        sites.load()


@pytest.mark.parametrize("name", ["probes.yml", "hosts.yml"])
def test_missing_file_is_named(project: Project, name: str) -> None:
    (project.folder / name).unlink()
    with pytest.raises(MisconfiguredError, match=f"inventories/shop/{name} is missing"):
        sites.load()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"title": None}, "title: .*seen: 'None'"),
        ({"views": {"customer": {"url": "http://a"}}}, "missing: direct"),
        ({"views": {**SITE["views"], "direct": {"url": "ftp://a"}}}, "views.direct.url: .*seen: 'ftp://a'"),  # type: ignore[dict-item]
        ({"tilte": "x"}, "tilte: Extra inputs are not permitted"),
        ({"timeout_s": 0}, "timeout_s: .*greater than 0"),
    ],
)
def test_invalid_site_names_key_and_value(project: Project, change: dict[str, Any], words: str) -> None:
    project.site({**SITE, **change})
    with pytest.raises(MisconfiguredError, match=words):
        sites.load()


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ({}, "exactly one of get, submit, pictures; this one has none"),
        ({"get": "/", "submit": {"form": "f"}}, "exactly one of"),
        ({"got": "/"}, "got: Extra inputs"),
    ],
)
def test_invalid_step_is_refused(project: Project, step: dict[str, Any], words: str) -> None:
    project.probes({"probes": [{**PROBES["probes"][0], "steps": [step]}]})
    with pytest.raises(MisconfiguredError, match=words):
        sites.load()


def test_practice_site_that_is_down_says_how_to_put_it_up(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HIKESHI_DRILL", "nothing-here")
    project.site({**SITE, "practice": True})
    with pytest.raises(MisconfiguredError, match="not up") as caught:
        sites.load()
    assert caught.value.fix == "hikeshi drill up"


@pytest.mark.parametrize("prefix", ["", "UPPER", "../up", "a" * 40])
def test_bad_drill_prefix_is_refused(monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    monkeypatch.setenv("HIKESHI_DRILL", prefix)
    with pytest.raises(UsageError, match="HIKESHI_DRILL"):
        sites.practice_prefix()


def test_shared_connections_are_keyed_by_host_keys(project: Project) -> None:
    site = sites.load()
    (site.private / "known_hosts").write_text("web1 ssh-ed25519 AAAA\n")
    first = site.control_folder
    (site.private / "known_hosts").write_text("web1 ssh-ed25519 BBBB\n")
    assert site.control_folder != first


def test_overlay_merges_mappings_and_replaces_the_rest() -> None:
    assert sites.overlay({"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"b": 3}, "d": [2]}) == {
        "a": {"b": 3, "c": 2},
        "d": [2],
    }


def test_probe_that_orders_on_a_real_site_needs_a_way_back(project: Project) -> None:
    order: dict[str, Any] = {"id": "checkout", "title": "Buys", "effects": "order", "steps": [{"get": "/"}]}
    project.probes({"probes": [order]})
    with pytest.raises(MisconfiguredError, match="probe checkout places an order: on a real site it needs an account"):
        sites.load()
    project.probes({"probes": [{**order, "account": "probe@shop.example", "undo": [{"get": "/cancel/{order}"}]}]})
    assert sites.load().data.probes[0].account == "probe@shop.example"


def test_views_are_customers_or_direct(project: Project) -> None:
    views: dict[str, Any] = {name: {"url": "http://127.0.0.1:1"} for name in ("customer", "direct")}
    project.site({**SITE, "views": {**views, "sideways": {"url": "http://127.0.0.1:1"}}})
    with pytest.raises(MisconfiguredError, match="seen: sideways"):
        sites.load()
    project.site({**SITE, "views": {**views, "customer-ipv6": {"url": "http://[::1]:1"}}})
    assert sites.load().views("customer") == ["customer", "customer-ipv6"]


def test_every_value_within_a_secret_is_one(project: Project) -> None:
    (project.folder / "group_vars" / "all").mkdir(parents=True)
    project.write("group_vars/all/secrets.yml", "secret_keys: {pay: k-one, mail: [k-two, 3]}\nsecret_none:\nplain: x\n")
    assert sorted(sites.site_secrets(sites.load())) == ["3", "k-one", "k-two"]


def test_practice_site_that_is_not_up_is_not_what_to_name_next(project: Project) -> None:
    drill = project.folder.parent / "drill"
    drill.mkdir()
    (drill / "site.yml").write_text("practice: true\n")
    with pytest.raises(UsageError, match="no site named; allowed: drill, shop") as caught:
        sites.choose(None)
    assert caught.value.fix == "--site shop"


def test_one_key_is_offered_and_host_keys_are_checked(project: Project) -> None:
    """With seven keys in an agent a server says that these are too many before it is offered the right one."""
    (project.folder / "ssh_key").write_text("")
    (project.folder / "known_hosts").write_text("")
    arguments = sites.load("shop").ssh_arguments
    assert "IdentitiesOnly=yes" in arguments and "StrictHostKeyChecking=yes" in arguments
