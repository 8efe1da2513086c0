"""inventories/example: a whole site to copy, that names every knob and nothing else."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from hikeshi import site as sites
from hikeshi.errors import UsageError
from tests.contract.project import ROLES, ROOT, Role, load, relative

EXAMPLE = ROOT / "inventories" / "example"
# fault_injection and payment_gateway are the drill's alone. What evidence is asked decides the playbook, and what
# file_restore puts back, who holds the baseline; where the disk of a copy lies, its driver.
OF_NO_SITE = ("fault_injection", "payment_gateway", "evidence", "file_restore", "instance_copy")
KNOBS = [role for role in ROLES if role.name not in OF_NO_SITE]
FILES = sorted((EXAMPLE / "group_vars").glob("*/*.yml"))
LINE = re.compile(r"(# )?([a-z]\w*):(?:\s|$)")
# Documentation's own (RFC 5737, RFC 3849, RFC 2606) and what means the host itself.
ADDRESS = re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}\b|\b[0-9a-f]{1,4}(?::[0-9a-f]{0,4}){2,}")
DOCUMENTATION = re.compile(r"127\.0\.0\.1|192\.0\.2\.|198\.51\.100\.|203\.0\.113\.|2001:db8:")


def lines(path: Path) -> list[tuple[bool, str, str]]:
    """Return (commented, name, line) of every variable at the top of a file."""
    found = ((LINE.match(line), line) for line in path.read_text().splitlines())
    return [(bool(match[1]), match[2], line) for match, line in found if match]


def named() -> dict[str, tuple[bool, str, Path]]:
    return {name: (off, line, path) for path in FILES for off, name, line in lines(path)}


def test_it_loads_and_is_no_site() -> None:
    example = sites.read_site("example")
    assert example.data.template and not example.data.practice
    assert "example" not in sites.site_names()
    with pytest.raises(UsageError, match="copy it first"):
        sites.load("example")


def test_surge_is_off_and_its_comment_can_be_taken_as_it_is() -> None:
    assert sites.read_site("example").data.surge is None, "a copy must not allow load before anybody agreed"
    block = re.search(r"^# surge:\n(?:# .*\n)+", (EXAMPLE / "site.yml").read_text(), re.MULTILINE)
    assert block, "inventories/example/site.yml: show `surge`, as a comment"
    shown = yaml.safe_load(re.sub(r"^# ", "", block[0], flags=re.MULTILINE))["surge"]
    assert sites.SurgeBound.model_validate(shown).model_fields_set == set(sites.SurgeBound.model_fields)


def test_copies_are_off_and_their_comment_can_be_taken_as_it_is() -> None:
    assert sites.read_site("example").data.copying is None, "nobody said what the cloud calls the instances"
    block = re.search(r"^# copy:\n(?:# .*\n)+", (EXAMPLE / "site.yml").read_text(), re.MULTILINE)
    assert block, "inventories/example/site.yml: show `copy`, as a comment"
    shown = yaml.safe_load(re.sub(r"^# ", "", block[0], flags=re.MULTILINE))["copy"]
    assert sites.CopiesByHand.model_validate(shown).model_fields_set == set(sites.CopiesByHand.model_fields)


@pytest.mark.parametrize("role", KNOBS, ids=lambda role: role.name)
def test_every_knob_is_named(role: Role) -> None:
    options, seen = role.entry_points["main"], named()
    missing = sorted(options.keys() - seen.keys())
    assert not missing, (
        f"inventories/example/group_vars: name {missing} of {role.name}, as a comment where it is default"
    )
    off = sorted(name for name, option in options.items() if option.get("required") and seen[name][0])
    assert not off, f"inventories/example/group_vars: {off} must be set, it is required"


def test_every_name_exists_and_stands_in_its_roles_file() -> None:
    for name, (_, _, path) in named().items():
        owner = next((role for role in KNOBS if name in role.entry_points["main"]), None)
        assert owner, f"{relative(path)}: {name} is no input of any role"
        assert path.stem == owner.name, f"{relative(path)}: {name} belongs into {owner.name}.yml"


def test_commented_knobs_show_the_default() -> None:
    for name, (off, line, path) in named().items():
        default = next(role.defaults.get(name) for role in KNOBS if name in role.entry_points["main"])
        shown: Any = yaml.safe_load(line.removeprefix("# "))
        assert not off or shown == {name: default}, f"{relative(path)}: '{line}' must show the default, {default!r}"


@pytest.mark.parametrize("path", [*FILES, EXAMPLE / "hosts.yml"], ids=relative)
def test_every_knob_says_why_one_would_change_it(path: Path) -> None:
    covered = 0  # variables that the comment above may still explain
    for line in path.read_text().splitlines()[1:]:
        match = LINE.match(line)
        if line.startswith("#") and not (match and (match[2].startswith(path.stem))):
            covered = 3
        elif match:
            assert covered, f"{relative(path)}: write above '{line}' why one would change it"
            covered -= 1


@pytest.mark.parametrize("path", sorted(p for p in EXAMPLE.rglob("*") if p.is_file()), ids=relative)
def test_addresses_are_documentations_own(path: Path) -> None:
    wrong = [text for text in ADDRESS.findall(path.read_text()) if not DOCUMENTATION.match(text)]
    assert not wrong, (
        f"{relative(path)}: {wrong} may be somebody's; take 192.0.2.x, 198.51.100.x, 203.0.113.x, 2001:db8::x"
    )


def ansible(program: str, *words: str) -> str:
    command = [str(Path(sys.executable).with_name(program)), "--inventory", str(EXAMPLE / "hosts.yml"), *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_ansible_accepts_the_inventory() -> None:
    listed = json.loads(ansible("ansible-inventory", "--list"))
    groups_of = {"web1": {"all", "web_servers", "database_servers"}, "batch1": {"all", "batch_servers"}}
    for host, own in groups_of.items():
        seen = listed["_meta"]["hostvars"][host]
        active = {name for name, (off, _, path) in named().items() if not off and path.parent.name in own}
        assert active <= seen.keys(), f"group_vars of {host} lack {sorted(active - seen.keys())}"
    groups = {
        group for play in load(ROOT / "playbooks" / "build-site.yml") for group in re.findall(r"\w+", play["hosts"])
    }
    unknown = sorted(groups - {"all", *listed})
    assert not unknown, f"inventories/example/hosts.yml has no group {unknown}, which build-site.yml builds"


@pytest.mark.parametrize("playbook", ["build-site.yml", "harden-site.yml", "collect-evidence.yml"])
def test_playbooks_can_be_read_for_it(playbook: str) -> None:
    ansible("ansible-playbook", "--syntax-check", f"playbooks/{playbook}")


def test_shop_knows_the_name_with_which_its_health_is_asked() -> None:
    given = {path.stem: load(path) for path in FILES if path.parent.name == "web_servers"}
    names = given["checkout_service"]["checkout_service_environment"]["SHOP_ALLOWED_HOSTS"].split(",")
    assert given["web_server"]["web_server_health_host"] in names, "Django answers 400, and the shop is said to be down"
    assert given["image_server"]["image_server_host"] in names
