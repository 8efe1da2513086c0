"""On the real shop: swapped pictures, a 1×1 picture and a cached cart each make their probe fail."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.drill.conftest import hikeshi, ssh

CACHE = "/srv/shop/media/cache"


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
    swap = f"set -- $(find {CACHE} -name '*.jpg' -size +2k | sort | head -n 2); mv $1 $1.x; mv $2 $1; mv $1.x $2"
    with changed(swap, swap):
        passed, seen = verdict("pictures")
    assert not passed
    assert "it shows Lantern" in seen
    assert verdict("pictures")[0]


@pytest.mark.usefixtures("whole")
def test_tiny_picture() -> None:
    one = f"$(find {CACHE} -name '*.jpg' | sort | head -n 1)"
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
