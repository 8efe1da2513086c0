"""A site of one small instance in a container of our own, to be copied; no practice site is needed."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from hikeshi import site as sites
from hikeshi.drill import engine
from hikeshi.site import PROJECT, Site

NAME = "hikeshi-copytest"  # of all that is made here
INSTANCE = f"{NAME}-web1"
NET = "10.199.77"
KINDS = (("container", ("ps", "--all", "--format", "{{.Names}}")), ("volume", ("volume", "ls", "--quiet")),
         ("image", ("image", "ls", "--format", "{{.Repository}}:{{.Tag}}")),
         ("network", ("network", "ls", "--format", "{{.Name}}")))  # fmt: skip


def left() -> list[tuple[str, str]]:
    """Return all there is of ours, as kind and name."""
    found = []
    for kind, words in KINDS:
        names = engine.podman(*words).splitlines()
        found += [(kind, name) for name in names if name.removeprefix("localhost/").startswith(NAME)]
    # Those without a name: a commit that took the name away, or was killed.
    unnamed = ("image", "ls", "--quiet", "--filter", "dangling=true", "--filter", f"label=hikeshi.instance={INSTANCE}")
    return found + [("image", ident) for ident in engine.podman(*unnamed).splitlines()]


def sweep() -> None:
    """Remove all there is of ours."""
    for kind, name in left():
        how = {"container": ["--force", "--time", "0"], "volume": ["--force"], "network": ["--force"]}.get(kind, [])
        engine.podman(kind, "rm", *how, name, check=False)


def make_instance(image: str, *more: str, command: tuple[str, ...] = ("sleep", "infinity")) -> None:
    """Make the instance, with fixed addresses and a data disk, as the practice cloud does."""
    engine.podman("network", "create", "--ipv6", "--subnet", f"{NET}.0/24", "--subnet", "fd77:1:2:3::/64", NAME)
    engine.podman("volume", "create", f"{INSTANCE}-images")
    engine.podman(
        "create", "--name", INSTANCE, "--hostname", "web1", "--network",
        f"{NAME}:ip={NET}.11,ip=fd77:1:2:3::11,mac=02:11:22:33:44:0b", "--stop-timeout", "1", "--no-hosts",
        "--volume", f"{INSTANCE}-images:/mnt/images-disk", *more, image, *command,
    )  # fmt: skip
    engine.podman("start", INSTANCE)


def inside(script: str, name: str = INSTANCE) -> str:
    """Run a shell script in a container of ours."""
    return engine.podman("exec", name, "sh", "-ec", script)


def told(form: str, name: str = INSTANCE) -> str:
    """Return what podman tells of a container."""
    return engine.podman("container", "inspect", "--format", form, name)


def status() -> str:
    """Return whether the instance runs, as podman says it."""
    return told("{{.State.Status}}")


def write_site(root: Path, **copy: Any) -> None:
    """Write a site whose one host is the instance."""
    folder = root / "inventories" / "shop"
    folder.mkdir(parents=True, exist_ok=True)
    allowed = {"by": "a test", "when": "before", "words": "You may."}
    settings = str(PROJECT / ".drill" / "engine" / "containers.conf")
    site = {
        "title": "Copied shop",
        "views": {"customer": {"url": "http://127.0.0.1:1"}, "direct": {"url": "http://127.0.0.1:1"}},
        "permissions": {"copy": allowed, "hold-jobs": allowed, "reboot": allowed},
        "copy": {"driver": "podman", "instances": {"web1": INSTANCE}, "bench": engine.base_image(),
                 "settings": settings if Path(settings).exists() else "", **copy},
    }  # fmt: skip
    probe = {"id": "top", "title": "The top page opens", "steps": [{"get": "/"}]}
    (folder / "site.yml").write_text(yaml.safe_dump(site))
    (folder / "probes.yml").write_text(yaml.safe_dump({"probes": [probe]}))
    (folder / "hosts.yml").write_text("all: {hosts: {web1: {}}}\n")


def look_there(patch: pytest.MonkeyPatch, root: Path) -> Site:
    """Take the folder for the project, and return its site; playbooks and roles stay the project's own."""
    patch.setattr(sites, "PROJECT", root)
    patch.setattr(sites, "INVENTORIES", root / "inventories")
    return sites.read_site("shop")
