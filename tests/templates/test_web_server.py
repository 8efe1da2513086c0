"""The shop's site of nginx: listeners, who may name the customer, and what goes to the shop."""

import pytest

from tests.templates.reading import Block, nginx
from tests.templates.rendering import render, value

FILE = "roles/web_server/templates/shop.conf.j2"
PROXIES = ["192.0.2.10/32", "2001:db8::10/128", "198.51.100.0/24"]


def server(**inputs: object) -> Block:
    return nginx(render("web_server", "shop.conf.j2", **inputs)).block("server")


def test_listens_on_both_families() -> None:
    assert server().values("listen") == ["80 default_server", "[::]:80 default_server"], (
        f"{FILE}: listen on IPv4 and IPv6"
    )


def test_without_trusted_proxies_nobody_names_the_customer() -> None:
    assert server().values("set_real_ip_from") == [], f"{FILE}: believes X-Forwarded-For of strangers"


@pytest.mark.parametrize("count", [1, 2, 3])
def test_trusts_the_given_proxies_and_no_other(count: int) -> None:
    seen = server(web_server_trusted_proxies=PROXIES[:count])
    assert seen.values("set_real_ip_from") == PROXIES[:count], f"{FILE}: must trust each proxy, in order"
    assert seen.values("real_ip_header") == ["X-Forwarded-For"], FILE


def test_the_shop_is_told_the_address_nginx_believes() -> None:
    headers = dict(line.split() for line in server(web_server_trusted_proxies=PROXIES).values("proxy_set_header"))
    assert headers["X-Forwarded-For"] == headers["X-Real-IP"] == "$remote_addr", f"{FILE}: hands on the client's words"


def test_the_health_check_has_a_location_of_its_own() -> None:
    location = server(web_server_health_path="/are-you-well").block("location = /are-you-well")
    assert location.values("proxy_pass") == ["http://shop"], f"{FILE}: the check must ask the shop"
    assert location.values("access_log") == ["off"], f"{FILE}: the check would drown the customers' lines"


def test_inputs_reach_the_configuration() -> None:
    inputs = {
        "web_server_name": "shop.example www.shop.example",
        "web_server_upstream_socket": "/run/other.sock",
        "web_server_upstream_timeout": 71,
    }
    seen = nginx(render("web_server", "shop.conf.j2", **inputs))
    assert seen.block("server").values("server_name") == ["shop.example www.shop.example"], FILE
    assert seen.block("server").values("proxy_read_timeout") == ["71s"], FILE
    assert seen.block("upstream shop").values("server") == ["unix:/run/other.sock max_fails=0"], FILE
    assert "/etc/nginx/shop.d/*.conf" in seen.block("server").values("include"), f"{FILE}: other roles' locations"


@pytest.mark.parametrize("location", ["/static/", "/static"])
def test_static_files_never_open_the_directory_above(location: str) -> None:
    (found,) = [item for item in server(web_server_static_location=location).blocks if item.values("alias")]
    assert found.name.endswith("/") and found.values("alias")[0].endswith("/"), (
        f"{FILE}: '{found.name}' with 'alias {found.values('alias')[0]}' serves {location}../ from "
        "the directory above; both must end with a slash"
    )


def test_main_configuration_is_whole() -> None:
    seen = nginx(render("web_server", "nginx.conf.j2", web_server_worker_connections=64, web_server_open_files=256))
    assert seen.values("worker_rlimit_nofile") == ["256"]
    assert seen.block("events").values("worker_connections") == ["64"]
    includes = seen.block("http").values("include")
    assert {"/etc/nginx/conf.d/*.conf", "/etc/nginx/sites-enabled/*"} <= set(includes), "the shop's site is not read"


def test_health_is_asked_as_the_load_balancer_does() -> None:
    inputs = {"web_server_health_path": "/up", "web_server_health_host": "shop.example"}
    (asked,) = value("web_server", "__web_server_subject", **inputs)["answers"]
    assert (asked["url"], asked["host"], asked["status"]) == ("/up", "shop.example", ["2xx", "3xx"])
