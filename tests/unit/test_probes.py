"""Each probe fails for the right reason, over real HTTP."""

import contextlib
import io
import json
import os
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from socksio.exceptions import ProtocolError

from hikeshi import probes
from hikeshi.errors import HikeshiError, MisconfiguredError, UnreachableError, UsageError
from hikeshi.site import PROJECT, Site, View, load
from tests.unit.conftest import SITE, Project
from tests.unit.shop import COUNT, Shop, picture

PICTURES = {
    "select": "article img", "name": "alt", "count": COUNT, "recorded": "pictures.json", "min_pixels": 50,
}  # fmt: skip
PROBES: dict[str, Any] = {
    "probes": [
        {"id": "top", "title": "Top", "steps": [{"get": "/", "expect": {"contains": ["Lantern"]}}]},
        {"id": "pictures", "title": "Pictures", "steps": [{"get": "/catalogue/"}, {"pictures": PICTURES}]},
        {
            "id": "cart",
            "title": "Cart",
            "steps": [
                {"get": "/cart", "expect": {"contains": ["Your basket is empty"]}},
                {"get": "/product/seven"},
                {"submit": {"form": "#add", "fields": {"quantity": "2"}}},
                {"get": "/cart", "expect": {"contains": ["seven"], "values": {"input[name=q-seven]": "2"}}},
            ],
        },
    ]
}


@pytest.fixture
def site(project: Project, shop: Shop) -> Site:
    """The little shop as a site, with its pictures recorded."""
    project.site({**SITE, "views": {"customer": {"url": shop.url}, "direct": {"url": shop.url}}})
    project.probes(PROBES)
    loaded = load()
    probes.record_pictures(loaded, "customer")
    return loaded


def verdict(site: Site, probe: str) -> probes.ProbeResult:
    (result,) = probes.run(site, "customer", [probe])
    return result


def test_healthy_shop_is_green(site: Site) -> None:
    results = probes.run(site, "customer")
    assert [item.passed for item in results] == [True, True, True], results
    assert f"{COUNT} pictures right" in results[1].seen


def test_recompressed_and_resized_pictures_are_still_right(site: Site, shop: Shop) -> None:
    for path, (_, body) in shop.pictures.items():
        buffer = io.BytesIO()
        Image.open(io.BytesIO(body)).resize((97, 97)).save(buffer, "JPEG", quality=60)
        shop.pictures[path] = ("image/jpeg", buffer.getvalue())
    assert verdict(site, "pictures").passed


def test_swapped_pictures_are_named(site: Site, shop: Shop) -> None:
    shop.pictures["/media/0.jpg"], shop.pictures["/media/1.jpg"] = (
        shop.pictures["/media/1.jpg"], shop.pictures["/media/0.jpg"],
    )  # fmt: skip
    result = verdict(site, "pictures")
    assert not result.passed
    assert "2 of 4" in result.seen
    assert "it shows Lantern 1" in result.seen


def test_tiny_picture_fails(site: Site, shop: Shop) -> None:
    shop.pictures["/media/2.jpg"] = ("image/jpeg", picture(2, size=1))
    assert "only 1×1 pixels" in verdict(site, "pictures").seen


@pytest.mark.parametrize(
    ("kind", "body", "words"),
    [
        ("text/html", picture(2), "Content-Type is text/html"),
        ("image/jpeg", b"", "not a picture"),
        ("image/jpeg", b"<html>404</html>", "not a picture"),
        ("image/jpeg", picture(2)[:400], "not a picture"),
    ],
)
def test_what_is_no_picture_fails(site: Site, shop: Shop, kind: str, body: bytes, words: str) -> None:
    shop.pictures["/media/2.jpg"] = (kind, body)
    result = verdict(site, "pictures")
    assert not result.passed
    assert words in result.seen


def test_missing_picture_fails(site: Site, shop: Shop) -> None:
    del shop.pictures["/media/3.jpg"]
    assert "404 for /media/3.jpg" in verdict(site, "pictures").seen


def test_fewer_products_fail(site: Site, project: Project) -> None:
    project.probes({"probes": [{**PROBES["probes"][1], "steps": [{"get": "/"}, {"pictures": PICTURES}]}]})
    assert "shows 0 pictures, not 4" in verdict(load(), "pictures").seen


@pytest.mark.parametrize("fault", ["cart is cached", "cart forgets"])
def test_cart_that_lies_fails(site: Site, shop: Shop, fault: str) -> None:
    shop.faults.add(fault)
    result = verdict(site, "cart")
    assert not result.passed
    assert "/cart" in result.seen


def test_one_visitor_does_not_see_anothers_cart(site: Site) -> None:
    assert verdict(site, "cart").passed
    assert verdict(site, "cart").passed


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ({"get": "/gone"}, "answered 404, not 200: Not found"),
        ({"get": "/huge"}, "larger than 8 MiB"),
        ({"get": "/loop"}, "redirected more than five times"),
        ({"get": "/", "expect": {"contains": ["Umbrella"]}}, "does not say “Umbrella”"),
        ({"get": "/", "expect": {"lacks": ["Lantern"]}}, "says “Lantern”"),
        ({"get": "/", "expect": {"select": {"form": 1}}}, "shows 0 of form, not 1"),
    ],
)
def test_wrong_page_fails_with_what_was_seen(project: Project, shop: Shop, step: Any, words: str) -> None:
    project.site({**SITE, "views": {"customer": {"url": shop.url}, "direct": {"url": shop.url}}})
    project.probes({"probes": [{"id": "one", "title": "One", "steps": [step]}]})
    result = verdict(load(), "one")
    assert not result.passed
    assert words in result.seen


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("/basket/?a=1", "/basket/?a=1"),
        ("https://shop.example/basket/", "/basket/"),
        ("//elsewhere.example/basket/", "/basket/"),
        ("http://user:word@elsewhere.example:81/", "/"),
        ("?page=2", "/?page=2"),
    ],
)
def test_no_page_sends_the_customer_elsewhere(address: str, path: str) -> None:
    view = View(url="http://127.0.0.1:8080", host="shop.example")
    assert str(probes.inside(view, address)) == f"http://127.0.0.1:8080{path}"


def test_dead_server_fails(project: Project) -> None:
    project.site(
        {**SITE, "views": dict.fromkeys(("customer", "direct"), {"url": f"http://127.0.0.1:{probes.free_port()}"})}
    )
    result = verdict(load(), "top")
    assert not result.passed
    assert "connection refused" in result.seen


def test_unknown_probe_and_view_are_usage_errors(site: Site) -> None:
    with pytest.raises(UsageError, match="unknown probe 'nosuch'; allowed: top, pictures, cart"):
        probes.run(site, "customer", ["nosuch"])
    with pytest.raises(UsageError, match="unknown view 'nosuch'"):
        probes.run(site, "nosuch")


def test_broken_pictures_are_not_recorded(site: Site, shop: Shop) -> None:
    before = (site.folder / "pictures.json").read_bytes()
    del shop.pictures["/media/0.jpg"]
    with pytest.raises(HikeshiError, match="not recorded"):
        probes.record_pictures(site, "customer")
    assert (site.folder / "pictures.json").read_bytes() == before


def test_dead_tunnel_is_unreachable(project: Project, shop: Shop) -> None:
    (project.folder / "ssh_config").write_text(f"Host web1\n  HostName 127.0.0.1\n  Port {probes.free_port()}\n")
    project.site({**SITE, "views": dict.fromkeys(("customer", "direct"), {"url": shop.url, "via": "web1"})})
    with pytest.raises(UnreachableError, match="no ssh tunnel through web1"):
        probes.run(load(), "direct")


DEAF_SSH = """#!/usr/bin/python3
import os, signal, socket, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(os.environ["DEAF_SSH_PID"], "w").write(str(os.getpid()))
listener = socket.create_server(("127.0.0.1", int(sys.argv[sys.argv.index("-D") + 1].split(":")[1])))
time.sleep(600)
"""


def test_a_tunnel_ends_although_ssh_missed_the_signal(
    project: Project, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ssh sleeps on when the signal comes between its looking for one and its falling asleep."""
    (folder := tmp_path / "bin").mkdir()
    (folder / "ssh").write_text(DEAF_SSH)
    (folder / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("DEAF_SSH_PID", str(tmp_path / "pid"))
    monkeypatch.setattr(probes, "ENDING_S", 0.1)
    project.site({**SITE, "views": dict.fromkeys(("customer", "direct"), {"url": shop.url, "via": "web1"})})
    with probes.tunnel(site := load(), site.data.views["direct"]) as proxy:
        assert proxy and proxy.startswith("socks5://")
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_practice_products_differ_more_than_the_threshold() -> None:
    recorded = json.loads((PROJECT / "inventories/drill/pictures.json").read_text())
    prints = [list(bytes.fromhex(value)) for value in recorded.values()]
    least = min(probes.difference(a, b) for i, a in enumerate(prints) for b in prints[i + 1 :])
    assert len(prints) == 24
    assert least > 2 * probes.SAME_PICTURE


@given(st.binary(max_size=400))
def test_any_bytes_decode_or_fail_cleanly(body: bytes) -> None:
    with contextlib.suppress(probes.ProbeFailure):
        assert len(probes.fingerprint(body)) == 3 * probes.GRID**2


def test_refused_connection_behind_the_tunnel_is_red(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise ProtocolError("Malformed reply")  # what httpx lets through when ssh cannot reach the web server

    monkeypatch.setattr(httpx.Client, "send", refused)
    assert "connection refused or failed" in verdict(site, "top").seen


def test_recorded_pictures_that_are_no_pictures_are_refused(site: Site) -> None:
    (site.folder / "pictures.json").write_text('{"Lantern 0": "zz"}')
    with pytest.raises(MisconfiguredError, match="is not a list of recorded pictures"):
        probes.run(site, "customer", ["pictures"])
