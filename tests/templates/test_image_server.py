"""The pictures' mount unit, named as systemd wants it, and the location that serves them."""

import pytest

from tests.contract.project import ROOT, load
from tests.templates.reading import escaped_path, nginx, unit
from tests.templates.rendering import expression, render, value

MOUNT = "roles/image_server/templates/volume.mount.j2"
LOCATION = "roles/image_server/templates/media.conf.j2"


def test_the_escaping_used_here_is_systemds() -> None:
    assert escaped_path("/srv/shop/media") == "srv-shop-media"
    assert escaped_path("/srv/my-shop/.hidden") == "srv-my\\x2dshop-.hidden"
    assert escaped_path("/.hidden/a b") == "\\x2ehidden-a\\x20b"


@pytest.mark.parametrize(
    "root", ["/srv/shop/media", "/srv/my-shop/media", "/srv/a-b-c/d", "/srv/shop_2/media.d", "/srv"]
)
def test_mount_unit_has_the_name_of_its_path(root: str) -> None:
    name = value("image_server", "__image_server_unit", image_server_root=root)
    assert name == f"{escaped_path(root)}.mount", (
        f"roles/image_server/vars/main.yml: systemd wants the name {escaped_path(root)}.mount for {root}"
    )
    file = value("image_server", "__image_server_unit_file", image_server_root=root)
    assert file == f"/etc/systemd/system/{name}", "roles/image_server/vars/main.yml: the unit's file has another name"
    assert unit(render("image_server", "volume.mount.j2", image_server_root=root))["Mount"]["Where"] == [root], MOUNT


def test_bind_mount_by_default() -> None:
    mount = unit(render("image_server", "volume.mount.j2"))["Mount"]
    assert mount == {
        "What": ["/mnt/images-disk"],
        "Where": ["/srv/shop/media"],
        "Type": ["none"],
        "Options": ["bind"],
    }, MOUNT


def test_device_with_options() -> None:
    inputs = {
        "image_server_volume": "/dev/disk/by-uuid/0a1b2c3d",
        "image_server_volume_type": "ext4",
        "image_server_volume_options": "noatime,nodev",
    }
    mount = unit(render("image_server", "volume.mount.j2", **inputs))["Mount"]
    assert (mount["What"], mount["Type"], mount["Options"]) == (
        ["/dev/disk/by-uuid/0a1b2c3d"],
        ["ext4"],
        ["noatime,nodev"],
    ), MOUNT


def test_a_missing_volume_never_holds_the_boot() -> None:
    sections = unit(render("image_server", "volume.mount.j2"))
    assert sections["Install"] == {"WantedBy": ["local-fs.target"]}, f"{MOUNT}: wanted, never required"
    assert set(sections["Unit"]["Before"][0].split()) == {"nginx.service", "checkout.service"}, MOUNT


def test_every_directory_on_the_way_is_named() -> None:
    inputs = {"image_server_root": "/data/shops/one/media", "image_server_directories": ["images"]}
    assert value("image_server", "__image_server_parents", **inputs) == ["/data", "/data/shops", "/data/shops/one"]
    assert value("image_server", "__image_server_paths", **inputs) == [
        "/data/shops/one/media",
        "/data/shops/one/media/images",
    ]


def test_way_to_the_link_is_open_as_well() -> None:
    inputs = {"image_server_link": "/srv/www/pictures"}
    assert value("image_server", "__image_server_parents", **inputs) == ["/srv", "/srv/shop", "/srv/www"]
    paths = value("image_server", "__image_server_subject", **inputs)["paths"]
    assert {"path": "/srv/www", "mode": "0755", "owner": "root", "group": "root"} in paths
    assert {"path": "/srv/www/pictures", "link": "/srv/shop/media", "restore_step": "link"} in paths
    without = value("image_server", "__image_server_subject")["paths"]
    assert not [item for item in without if "link" in item], "roles/image_server/vars/main.yml: none was wanted"


def test_pictures_are_read_through_the_link() -> None:
    seen = nginx(render("image_server", "media.conf.j2", image_server_link="/srv/shop/pictures"))
    assert seen.block("location /media/").values("alias") == ["/srv/shop/pictures/"], LOCATION


@pytest.mark.parametrize(
    ("directories", "check"),
    [
        (["images", "cache"], "/media/images"),
        (["a b", 'c"; return 404;', "images/products"], "/media/images/products"),
        ([], ""),
    ],
)
def test_whether_pictures_are_found_is_asked_through_their_own_location(directories: list[str], check: str) -> None:
    inputs = {"image_server_directories": directories}
    location = nginx(render("image_server", "media.conf.j2", **inputs)).block("location /media/")
    asked = [item["url"] for item in value("image_server", "__image_server_subject", **inputs)["answers"]]
    assert [item.name for item in location.blocks] == [f"location = {url}" for url in asked], LOCATION
    assert asked == ([check] if check else []), "roles/image_server/vars/main.yml"
    for inner in location.blocks:
        assert inner.directives == ["access_log off"], f"{LOCATION}: it must take everything else from around it"


def test_pictures_are_asked_for_by_the_shops_name_and_only_where_they_are() -> None:
    inputs = {"image_server_host": "shop.example", "image_server_directories": ["goods"]}
    (asked,) = value("image_server", "__image_server_subject", **inputs)["answers"]
    assert (asked["host"], asked["directory"]) == ("shop.example", "/srv/shop/media/goods"), (
        "roles/image_server/vars/main.yml"
    )


LINKS = {"": True, "/srv/shop/pictures": True, "/srv/shop/media-now": True, "/srv/shop/media": False}
LINKS |= {"/srv/shop/media/now": False, "/srv/shop": False, "/": False, "pictures": False, "/srv/a b": False}


@pytest.mark.parametrize(("link", "allowed"), LINKS.items())
def test_link_that_would_lead_to_itself_is_refused(link: str, allowed: bool) -> None:
    checks = [task["ansible.builtin.assert"]["that"] for task in load(ROOT / "roles/image_server/tasks/inputs.yml")]
    verdicts = [expression("image_server", f"{{{{ {check} }}}}", image_server_link=link) for check in checks[1]]
    assert all(verdicts) == allowed, "roles/image_server/tasks/inputs.yml"


def test_pictures_are_cached_and_errors_are_not() -> None:
    seen = nginx(render("image_server", "media.conf.j2", image_server_cache_seconds=99))
    location = seen.block("location /media/")
    assert location.values("alias") == ["/srv/shop/media/"], LOCATION
    assert 'Cache-Control "public, max-age=99"' in location.values("add_header"), LOCATION
    for error in location.values("error_page"):
        status, target = error.split()
        handler = seen.block(f"location {target}")
        assert handler.values("return") == [status], f"{LOCATION}: {status} must stay {status}"
        assert handler.values("add_header") == ['Cache-Control "no-store" always'], (
            f"{LOCATION}: a cached {status} stays"
        )


@pytest.mark.parametrize("location", ["/media/", "/media"])
def test_pictures_never_open_the_directory_above(location: str) -> None:
    seen = nginx(render("image_server", "media.conf.j2", image_server_location=location))
    (found,) = [item for item in seen.blocks if item.values("alias")]
    assert found.name.endswith("/") and found.values("alias")[0].endswith("/"), (
        f"{LOCATION}: '{found.name}' with 'alias {found.values('alias')[0]}' serves {location}../ from "
        "the directory above; both must end with a slash"
    )
