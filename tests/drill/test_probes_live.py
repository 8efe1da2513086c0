"""On the real shop: swapped pictures, a 1×1 picture and a cached cart each make their probe fail."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from hikeshi.site import load
from tests.drill.conftest import hikeshi, ssh

MEDIA = "/srv/shop/media"


def in_the_catalogue(number: int) -> list[str]:
    """Return pictures that the catalogue shows; others in the cache have another size, for the product's own page."""
    view = load("drill").data.views["customer"]
    page = httpx.get(f"{view.url.rstrip('/')}/catalogue/", headers={"Host": view.host} if view.host else {})
    found = [picture.removeprefix("/media") for picture in re.findall(r'src="(/media/cache/[^"]+)"', page.text)]
    assert len(found) >= number, page.text
    return [MEDIA + picture for picture in found[:number]]


@contextmanager
def changed(before: str, after: str) -> Iterator[None]:
    """Change web1 by a command, and back."""
    ssh("web1", before)
    try:
        yield
    finally:
        ssh("web1", after)


def verdict(probe: str) -> tuple[bool, str]:
    (result,) = hikeshi("probe", probe, "--json").data
    return result["passed"], result["seen"]


@pytest.mark.usefixtures("whole")
def test_swapped_pictures() -> None:
    assert verdict("pictures")[0]
    one, other = in_the_catalogue(2)
    swap = f"mv {one} {one}.x; mv {other} {one}; mv {one}.x {other}"
    with changed(swap, swap):
        passed, seen = verdict("pictures")
    assert not passed
    assert "it shows Lantern" in seen
    assert verdict("pictures")[0]


@pytest.mark.usefixtures("whole")
def test_tiny_picture() -> None:
    (one,) = in_the_catalogue(1)
    tiny = (
        f"f={one}; cp -p $f /root/kept.jpg; "
        "/opt/shop/venv/bin/python -c"
        " 'import sys; from PIL import Image; Image.new(\"RGB\", (1, 1)).save(sys.argv[1])' $f"
    )
    with changed(tiny, f"cp -p /root/kept.jpg {one}; rm /root/kept.jpg"):
        passed, seen = verdict("pictures")
    assert not passed
    assert "only 1×1 pixels" in seen
    assert verdict("pictures")[0]


@pytest.mark.usefixtures("whole")
def test_cached_cart() -> None:
    cached = (
        "printf '%s\\n' 'proxy_cache_path /tmp/carts keys_zone=carts:1m;' > /etc/nginx/conf.d/carts.conf; "
        "printf '%s\\n' 'location /basket/ { proxy_pass http://unix:/run/checkout/gunicorn.sock; proxy_cache carts;"
        " proxy_set_header Host shop.example; proxy_cache_methods GET; proxy_cache_valid any 1m;"
        " proxy_ignore_headers Cache-Control Expires Set-Cookie Vary; }' > /etc/nginx/shop.d/carts.conf; "
        "nginx -t && systemctl reload nginx"
    )
    restore = "rm /etc/nginx/conf.d/carts.conf /etc/nginx/shop.d/carts.conf; systemctl reload nginx"
    with changed(cached, restore):
        passed, seen = verdict("cart")
    assert not passed
    assert "/basket/" in seen
    assert verdict("cart")[0]


@pytest.mark.usefixtures("whole")
def test_surge_leaves_nothing_behind() -> None:
    """Many look, none buys: no cart and no order more than before. One request a second is carried by any shop."""
    count = "mariadb -Ne 'SELECT (SELECT COUNT(*) FROM basket_basket), (SELECT COUNT(*) FROM order_order)' shop"
    before = ssh("web1", count)
    done = hikeshi("probe", "--surge", "1", "--json")
    assert done.status == 0, done.out + done.err
    assert done.data["steps"][-1]["right"] == done.data["steps"][-1]["requests"]
    assert ssh("web1", count) == before
