"""image_server: a picture on the volume is what a customer gets, before and after what closes the way to it."""

import pytest
from testinfra.host import Host

from tests.infra.asking import Apply, Ask, Mend, must, wait_until

ROOT = "/srv/shop/media"
PICTURE = f"{ROOT}/images/products/lantern.jpg"
LINK = "/srv/shop/pictures"
KEPT = "/var/lib/hikeshi/kept"
UNIT = "srv-shop-media.mount"
# The bytes of a picture; that they decode is the probes' business.
CONTENT = b"\xff\xd8\xff\xe0 not the whole of a JPEG \xff\xd9"


@pytest.fixture(autouse=True)
def picture(host: Host) -> None:
    """Put a picture on the volume, as the cloud attached it, below the mount."""
    octal = "".join(f"\\{byte:03o}" for byte in CONTENT)
    products = "/mnt/images-disk/images/products"
    must(
        host,
        f"mkdir -p {products}; cd {products}; printf '{octal}' > lantern.jpg; "
        "chown shop:www-data lantern.jpg; chmod 0644 lantern.jpg",
    )


def test_picture_is_served_as_it_is(ask: Ask) -> None:
    for address in ("127.0.0.1", "::1"):
        answer = ask("/media/images/products/lantern.jpg", address)
        assert answer.status == 200, answer
        assert answer.body == CONTENT
        assert answer.headers["content-type"] == "image/jpeg"
        assert answer.headers["cache-control"] == "public, max-age=600"


def test_missing_picture_is_never_cached(host: Host, ask: Ask) -> None:
    assert host.mount_point(ROOT).exists
    answer = ask("/media/images/products/none.jpg")
    assert answer.status == 404
    assert answer.headers["cache-control"] == "no-store"


def test_directories_are_not_listed(host: Host, ask: Ask) -> None:
    assert host.mount_point(ROOT).exists
    answer = ask("/media/images/")
    assert answer.status == 403
    assert answer.headers["cache-control"] == "no-store"


def test_nothing_above_the_pictures_is_served(host: Host, ask: Ask) -> None:
    assert host.mount_point(ROOT).exists
    for path in ("/media../etc/passwd", "/media/../../../etc/passwd", "/media/%2e%2e/%2e%2e/etc/passwd"):
        answer = ask(path)
        assert b"root:" not in answer.body
        assert answer.status >= 400


def test_shop_writes_and_nginx_reads(host: Host, ask: Ask) -> None:
    new = f"{ROOT}/images/products/new.jpg"
    must(host, f"su -s /bin/sh shop -c 'umask 0027; echo new > {new}'")
    assert must(host, f"stat --format='%U %G' {new}").strip() == "shop www-data"
    assert ask("/media/images/products/new.jpg").body == b"new\n"
    assert host.run(f"su -s /bin/sh www-data -c 'echo bad > {new}'").rc != 0
    assert must(host, f"su -s /bin/sh www-data -c 'cat {new}'") == "new\n"


@pytest.mark.at_rest
def test_without_the_volume_nothing_is_written_in_its_place(host: Host) -> None:
    must(host, f"systemctl stop {UNIT}")
    assert not host.mount_point(ROOT).exists
    assert host.run(f"su -s /bin/sh shop -c 'touch {ROOT}/lost.jpg'").rc != 0
    must(host, f"systemctl start {UNIT}")


@pytest.mark.at_rest
def test_nginx_starts_without_the_volume(host: Host, ask: Ask) -> None:
    must(host, f"systemctl stop {UNIT}; systemctl restart nginx")
    assert ask("/media/images/products/lantern.jpg").status == 404
    must(host, f"systemctl start {UNIT}")
    assert ask("/media/images/products/lantern.jpg").body == CONTENT


@pytest.mark.at_rest
def test_masked_mount_is_mended(host: Host, ask: Ask, mend: Mend) -> None:
    unit_file = f"/etc/systemd/system/{UNIT}"
    must(host, f"systemctl disable --now {UNIT}; ln -sf /dev/null {unit_file}; systemctl daemon-reload")
    assert ask("/media/images/products/lantern.jpg").status == 404
    mend("image_server", "disk", "mount_unit")
    assert must(host, f"readlink /var/lib/hikeshi/kept{unit_file}").strip() == "/dev/null"
    assert not host.mount_point(ROOT).exists, "a disk step mounted something"
    mend("host_base", "disk", "unit_enable", unit=UNIT)
    mend("host_base", "live", "unit_start", unit=UNIT)
    assert ask("/media/images/products/lantern.jpg").body == CONTENT


@pytest.mark.at_rest
def test_closed_directory_is_mended(host: Host, ask: Ask, mend: Mend) -> None:
    must(host, f"systemctl start {UNIT}; chmod 0700 /srv/shop")
    assert ask("/media/images/products/lantern.jpg").status in (403, 404), "nginx reads through a closed directory"
    mend("host_base", "disk", "path_mode", path="/srv/shop", mode="0755")
    assert ask("/media/images/products/lantern.jpg").body == CONTENT


@pytest.mark.at_rest
@pytest.mark.parametrize(
    "wrong",
    [f"ln -sfn /srv/shop/media-2019 {LINK}", f"ln -sfn media.old {LINK}", f"rm -f {LINK}"],
    ids=["dangling", "dangling-relative", "removed"],
)
def test_link_is_mended(host: Host, ask: Ask, mend: Mend, wrong: str) -> None:
    must(host, f"systemctl start {UNIT} nginx; {wrong}")
    assert ask("/media/images/products/lantern.jpg").status == 404, "nginx does not go through the link"
    mend("image_server", "disk", "link")
    assert must(host, f"stat --format='%F %U %G' {LINK}; readlink {LINK}").split("\n")[:2] == [
        "symbolic link root root",
        ROOT,
    ]
    assert ask("/media/images/products/lantern.jpg").body == CONTENT


def test_directory_of_pictures_is_found_and_asking_is_nobodys_access(host: Host, ask: Ask) -> None:
    log = "/var/log/nginx/access.log"
    assert host.mount_point(ROOT).exists
    assert ask("/media/images").status == 301
    assert ask("/media/images/products/lantern.jpg?logged").status == 200
    wait_until(lambda: "?logged" in must(host, f"cat {log}"))
    assert "GET /media/images HTTP" not in must(host, f"cat {log}")


@pytest.mark.at_rest
@pytest.mark.parametrize("wrong", [f"s|{LINK}/;|{LINK};|", "s|alias|root|"], ids=["slash", "root"])
def test_location_that_leads_elsewhere_is_mended(host: Host, ask: Ask, mend: Mend, wrong: str) -> None:
    file = "/etc/nginx/shop.d/media.conf"
    must(
        host, f"systemctl start {UNIT} nginx; ln -sfn {ROOT} {LINK}; rm -rf {KEPT}{file}*; md5sum {file} > /run/before"
    )
    must(host, f"sed -i '{wrong}' {file}; nginx -t && systemctl reload nginx")
    wait_until(lambda: ask("/media/images").status == 404)
    assert ask("/media/images/products/lantern.jpg").status == 404
    mend("image_server", "disk", "location")
    must(host, f"md5sum --check /run/before; test -f {KEPT}{file}")
    assert ask("/media/images").status == 404, "a disk step reloaded something"
    mend("web_server", "live", "reload")
    wait_until(lambda: ask("/media/images").status == 301)
    assert ask("/media/images/products/lantern.jpg").body == CONTENT


@pytest.mark.at_rest
def test_link_that_led_elsewhere_is_kept(host: Host, mend: Mend) -> None:
    must(host, f"ln -sfn /srv/shop/last-years {LINK}; rm -rf {KEPT}/srv/shop/pictures*")
    mend("image_server", "disk", "link")
    assert must(host, f"readlink {KEPT}{LINK}").strip() == "/srv/shop/last-years"


@pytest.mark.at_rest
@pytest.mark.parametrize("target", ["media", f"{ROOT}/", "/srv"])
def test_link_that_leads_to_something_stays(host: Host, apply: Apply, target: str) -> None:
    must(host, f"ln -sfn {target} {LINK}")
    applied = apply("image_server", "repair-disk", "link")
    left = must(host, f"readlink {LINK}; ln -sfn {ROOT} {LINK}").strip()
    assert (applied.status, applied.changed) == (0, 0), applied.output
    assert left == target


@pytest.mark.at_rest
def test_mount_point_in_the_links_place_is_refused(host: Host, apply: Apply) -> None:
    must(host, f"rm {LINK}; mkdir {LINK}; mount -t tmpfs none {LINK}; touch {LINK}/own.jpg")
    applied = apply("image_server", "repair-disk", "link")
    there = host.file(f"{LINK}/own.jpg").exists
    must(host, f"umount {LINK}; rmdir {LINK}; ln -s {ROOT} {LINK}")
    assert applied.status != 0
    assert "a disk is mounted there" in " ".join(applied.output.split()), applied.output
    assert there


@pytest.mark.at_rest
@pytest.mark.parametrize("wrong", [f"mkdir {LINK}; echo theirs > {LINK}/own.jpg", f"echo theirs > {LINK}"])
def test_what_stands_in_the_links_place_is_moved_aside_whole(
    host: Host, ask: Ask, apply: Apply, mend: Mend, wrong: str
) -> None:
    must(host, f"systemctl start {UNIT} nginx; rm -rf {LINK}.kept-*; echo older > {LINK}.kept-1; rm {LINK}; {wrong}")
    refused = apply("image_server", "main")
    assert refused.status != 0, "converging replaced what is somebody's"
    assert f"{LINK} is no link" in refused.output
    mend("image_server", "disk", "link")
    assert must(host, f"cat {LINK}.kept-1; cat $(find {LINK}.kept-2 -type f)") == "older\ntheirs\n"
    must(host, f"rm -rf {LINK}.kept-*")
    assert ask("/media/images/products/lantern.jpg").body == CONTENT


@pytest.mark.at_rest
def test_converging_mends_all_of_it_at_once(host: Host, ask: Ask, apply: Apply) -> None:
    must(
        host,
        f"chmod 0700 {ROOT}/images /srv/shop; ln -sfn /nowhere {LINK}; systemctl disable --now {UNIT}; "
        f"ln -sf /dev/null /etc/systemd/system/{UNIT}",
    )
    first = apply("image_server", "main")
    assert first.status == 0, first.output
    assert ask("/media/images/products/lantern.jpg").body == CONTENT
    second = apply("image_server", "main")
    assert (second.status, second.changed) == (0, 0), second.output
