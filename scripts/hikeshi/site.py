"""Find the project; load and validate a site.

A site is an inventory folder: `hosts.yml` and `group_vars/` for Ansible, `site.yml` and `probes.yml` for hikeshi, and
for ssh `known_hosts`, `ssh_config`, `ssh_key` where there are such. What is private to the practice site (addresses,
keys, secrets of this very run) lies in `.drill/<prefix>/site/` and is laid over it.
"""

import hashlib
import ipaddress
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from hikeshi.errors import MisconfiguredError, UsageError

PROJECT = Path(__file__).resolve().parents[2]
INVENTORIES = PROJECT / "inventories"
PRACTICE_SITE = "drill"
MOST_SURGE = 200  # requests per second that `probe --surge` asks any site for; one machine sends no more on time


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class View(_Data):
    """A way of looking at the shop: through the load balancer, or at the web server directly."""

    url: Annotated[str, Field(pattern=r"^https?://[^\s/]+/?$")]
    host: str = ""  # Host header, where it is not the one in `url`
    via: str = ""  # host whose ssh carries the requests (SOCKS), for addresses that only the site's network reaches


class Pictures(_Data):
    """Fetch and decode every picture a page shows, and compare each with the recorded one of its name."""

    select: str  # CSS selector of the <img> elements
    name: str = "alt"  # attribute that names the picture
    count: Annotated[int, Field(ge=1)]  # how many the page must show at least
    recorded: str  # file of this site with the recorded fingerprints
    min_pixels: Annotated[int, Field(ge=1)] = 32  # shortest side that is still a picture


class Submit(_Data):
    """Send a form of the page last fetched, with its hidden fields, as a browser would."""

    form: str  # CSS selector
    fields: dict[str, str] = {}


class Expect(_Data):
    """What the answer must be."""

    status: int = 200
    contains: list[str] = []
    lacks: list[str] = []
    select: dict[str, int] = {}  # CSS selector → how many elements
    values: dict[str, str] = {}  # CSS selector of a form field → its value
    note: dict[str, str] = {}  # name → CSS selector of the element whose words are kept, such as an order's number


class Step(_Data):
    """One step of a probe: exactly one of get, submit, pictures."""

    get: str | None = None
    submit: Submit | None = None
    pictures: Pictures | None = None
    expect: Expect = Expect()

    @model_validator(mode="after")
    def one_action(self) -> "Step":
        """Refuse a step with no action or two."""
        actions = [name for name in ("get", "submit", "pictures") if getattr(self, name) is not None]
        if len(actions) != 1:
            raise ValueError(f"a step has exactly one of get, submit, pictures; this one has {actions or 'none'}")
        return self


class Probe(_Data):
    """One look at the shop with a customer's eyes."""

    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
    title: str  # a sentence that is true when the probe passes
    effects: Literal["", "cart", "order"] = ""  # what it leaves behind on the site
    steps: Annotated[list[Step], Field(min_length=1)]
    account: str = ""  # the test account an order is placed with; its name, for people
    undo: list[Step] = []  # takes the order back; {name} stands for what was noted


# What a customer may allow; hikeshi.incident.permissions says what each means and how to ask for it.
PermissionName = Literal["reboot", "copy", "sorry", "hold-jobs", "data-loss", "spend"]


class Permission(_Data):
    """What the customer allowed before any incident: who said it, when, in which words."""

    by: Annotated[str, Field(min_length=1, max_length=100)]
    when: Annotated[str, Field(min_length=1, max_length=100)]
    words: Annotated[str, Field(min_length=1, max_length=1000)]
    limit: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None  # most to be spent; else how often
    until: str = ""  # ISO 8601 with offset; empty: until it is withdrawn

    @field_validator("until")
    @classmethod
    def absolute(cls, until: str) -> str:
        """Insist on an absolute time."""
        if until and datetime.fromisoformat(until).tzinfo is None:
            raise ValueError("no offset, like 2026-11-25T18:00+09:00")
        return until


class SorryPage(_Data):
    """How the load balancer's sorry page is known from any other answer."""

    contains: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]  # words that stand on it
    status: int = 503
    retry_after: bool = True  # whether it says when to come again
    path: Annotated[str, Field(pattern=r"^/([^/\s]\S*)?$")] = "/"  # asked for


class VitalJob(_Data):
    """Scheduled jobs that are never held unasked, as * and ? match their ids and hosts; `jobs list` shows the ids."""

    job: Annotated[str, Field(min_length=3, max_length=300)]
    host: Annotated[str, Field(min_length=1, max_length=100)] = "*"
    why: Annotated[str, Field(min_length=1, max_length=300)]


# A name that a cloud knows, and that no program takes for an option, or for two.
CloudName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$")]
DiskPath = Annotated[str, Field(pattern=r"^(/[A-Za-z0-9][A-Za-z0-9._-]*)+$")]


class _Copies(_Data):
    """What of this site is copied, for how long a copy is kept, and what it costs."""

    instances: dict[str, CloudName] = {}  # host → what the cloud calls it; hosts that are not named are not copied
    databases: dict[str, list[DiskPath]] = {}  # host → data directories of MariaDB, which must open in the copy
    carried: dict[str, list[DiskPath]] = {}  # host → data on its system disk that a swap takes along
    keep_hours: Annotated[float, Field(gt=0, le=720)] = 48.0
    price_per_gib_day: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0  # in the unit of permission `spend`

    @model_validator(mode="after")
    def of_copied_hosts(self) -> "_Copies":
        """Refuse what is said of a host that is not copied: it would never be looked at."""
        for key in ("databases", "carried"):
            if odd := sorted(getattr(self, key).keys() - self.instances.keys()) if self.instances else []:
                raise ValueError(
                    f"{key} names {odd[0]}, which is not in instances: {', '.join(sorted(self.instances))}"
                )
        return self


class PodmanCopies(_Copies):
    """Instances are containers of this machine's podman: the practice site."""

    driver: Literal["podman"]
    bench: str = ""  # image of the instance on which the disk of a copy is worked on; it has python3
    settings: str = ""  # containers.conf with which podman works on this machine


class CopiesByHand(_Copies):
    """No driver knows the cloud: a person makes what is needed at its control panel, and says when it is done."""

    driver: Literal["none"]


class SurgeBound(_Data):
    """How much a load probe may ask of the site, as agreed with whoever owns the shop."""

    most: Annotated[float, Field(ge=1, le=MOST_SURGE)]  # requests per second
    why: Annotated[str, Field(min_length=1)]  # who agreed, when, and why this is no harm
    pages: list[Annotated[str, Field(pattern=r"^/([^/\s]\S*)?$")]] = []  # read besides those of probes without effects


class Accesses(_Data):
    """Where accesses are logged, and how the load balancer's log is to be read."""

    # Host → patterns of files that may be read there, on a host that is not ours as well.
    logs: dict[str, Annotated[list[Annotated[str, Field(pattern=r"^/[^\x00]*$")]], Field(min_length=1)]] = {}
    sorry_backends: list[str] = []  # HAProxy's backends that are nothing but the sorry page
    health_path: Annotated[str, Field(pattern=r"^(/[^\s?]*)?$")] = ""  # asked for by checks only, whoever asks
    # Which of HAProxy's captured request headers is the User-Agent.
    agent_capture: Annotated[str, Field(pattern=r"^(last|none|[1-9][0-9]?)$")] = "last"
    log_zone: str = ""  # of times that name none, as HAProxy's do without a syslog header; the host's own when empty


class SiteData(_Data):
    """`site.yml` and `probes.yml` of a site, validated."""

    title: str
    time_zone: str = "UTC"
    practice: bool = False
    template: bool = False  # only to be copied: no site, and never chosen
    views: dict[str, View]
    permissions: dict[PermissionName, Permission] = {}
    sorry: SorryPage | None = None  # without it nobody could tell whether the gate is closed
    vital_jobs: list[VitalJob] = []
    accesses: Accesses = Accesses()
    # How instances are copied; without it no copy can be made.
    copying: Annotated[PodmanCopies | CopiesByHand, Field(discriminator="driver")] | None = Field(None, alias="copy")
    surge: SurgeBound | None = None  # a real site without it is asked for no load at all
    probes: Annotated[list[Probe], Field(min_length=1)]
    timeout_s: Annotated[float, Field(gt=0, le=60)] = 10.0

    @model_validator(mode="after")
    def orders_can_be_undone(self) -> "SiteData":
        """Refuse a probe that places an order on a real site without a test account and a way to take it back."""
        for probe in self.probes:
            if probe.effects == "order" and not self.practice and not (probe.account and probe.undo):
                raise ValueError(f"probe {probe.id} places an order: on a real site it needs an account and undo steps")
        return self

    @field_validator("permissions")
    @classmethod
    def limits_that_count(cls, given: dict[PermissionName, Permission]) -> dict[PermissionName, Permission]:
        """Insist on an amount where money is spent, and on a number of times elsewhere."""
        for name, permission in given.items():
            if name == "spend" and permission.limit is None:
                raise ValueError("spend needs a limit: the amount")
            if name != "spend" and permission.limit is not None and not permission.limit.is_integer():
                raise ValueError(f"the limit of {name} says how often: 1, 2, 3 …")
        return given

    @field_validator("views")
    @classmethod
    def both_views(cls, views: dict[str, View]) -> dict[str, View]:
        """Insist on the two views every verb relies on."""
        odd = [name for name in views if not re.fullmatch(r"(customer|direct)(-[a-z0-9]+)*", name)]
        if odd:
            raise ValueError(f"views are named customer or direct, or begin with customer- or direct-; seen: {odd[0]}")
        missing = {"customer", "direct"} - views.keys()
        if missing:
            raise ValueError(f"views must name customer and direct; missing: {', '.join(sorted(missing))}")
        return views

    @field_validator("time_zone")
    @classmethod
    def known_zone(cls, name: str) -> str:
        """Insist on a time zone that this machine knows: deadlines are said in it."""
        try:
            ZoneInfo(name)
        except (OSError, ValueError, KeyError) as error:
            raise ValueError("no time zone that this machine knows, like Asia/Tokyo (package tzdata)") from error
        return name


@dataclass(frozen=True)
class Site:
    """A loaded site. `folder` is its inventory folder; `private` holds what stays outside git."""

    name: str
    folder: Path
    private: Path
    data: SiteData
    ssh_more: tuple[str, ...] = ()  # further options of ssh, by which it gets to a machine that stands in for a host

    def views(self, kind: str) -> list[str]:
        """Return the names of all views of a kind, `customer` or `direct`, the plain one first."""
        return [name for name in self.data.views if name.split("-")[0] == kind]

    @property
    def inventory(self) -> list[Path]:
        """Inventory files, in Ansible's order of precedence (the later one wins)."""
        return [
            path for path in dict.fromkeys((self.folder / "hosts.yml", self.private / "hosts.yml")) if path.exists()
        ]

    def hosts(self) -> list[str]:
        """Return the names of the site's hosts, as Ansible reads them."""
        return list(self.names())

    def names(self) -> dict[str, list[str]]:
        """Return the site's hosts, each with its addresses and other names, as far as its inventory says them."""
        from ansible.inventory.manager import InventoryManager  # takes half a second, which few verbs need
        from ansible.parsing.dataloader import DataLoader

        known = InventoryManager(DataLoader(), [str(path) for path in self.inventory]).hosts
        return {
            name: [text for key, value in host.vars.items() if (text := str(value)) and _names_host(key, text)]
            for name, host in known.items()
        }

    @property
    def records(self) -> Path:
        """Folder of this site's runs and journal: private, outside git."""
        suffix = "" if self.private == self.folder else f"-{self.private.parent.name}"
        return PROJECT / "incidents" / f"{self.name}{suffix}"

    @property
    def zone(self) -> ZoneInfo:
        """The time zone in which this site's deadlines are said."""
        return ZoneInfo(self.data.time_zone)

    @property
    def ssh_arguments(self) -> list[str]:
        """Options that make ssh use this site's own keys and known hosts, and nothing else of the operator's."""
        arguments = ["-o", "StrictHostKeyChecking=yes"]
        for option, name in (("-F", "ssh_config"), ("-i", "ssh_key")):
            if (self.private / name).exists():
                arguments += [option, str(self.private / name)]
        if "-i" in arguments:
            # An agent's keys are offered before this one, and a server counts them: too many, and nobody is let in.
            arguments += ["-o", "IdentitiesOnly=yes"]
        if (self.private / "known_hosts").exists():
            arguments += ["-o", f"UserKnownHostsFile={self.private / 'known_hosts'}"]
        return [*arguments, *self.ssh_more]

    @property
    def control_folder(self) -> Path:
        """Folder of ssh's shared connections.

        Ansible names these after host, port and user only, so two practice sites, or one made anew, would share a
        connection to the wrong host; and one that stands would hide that the key is lost. So the folder is keyed by
        the site's path, its host keys and its own key.
        """
        known = self.private / "known_hosts"
        key = self.private / "ssh_key"
        identity = "\0".join([str(self.private), *self.ssh_more]).encode()
        for path in (known, key):
            identity += path.read_bytes() if path.exists() else b"-"
        return Path.home() / ".ansible" / "cp" / hashlib.sha256(identity).hexdigest()[:10]


def _names_host(key: str, value: str) -> bool:
    """Say whether a host's variable is a name or an address by which other hosts may know it."""
    try:
        return not ipaddress.ip_address(value).is_loopback
    except ValueError:
        return key == "ansible_host"


def practice_prefix() -> str:
    """Return the practice site's prefix, from HIKESHI_DRILL, else `hikeshi`."""
    prefix = os.environ.get("HIKESHI_DRILL", "hikeshi")
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,20}", prefix):
        raise UsageError(
            f"HIKESHI_DRILL is '{prefix}'; allowed: a small letter, then up to 20 small letters, digits, hyphens.",
            "export HIKESHI_DRILL=hikeshi",
        )
    return prefix


def practice_folder() -> Path:
    """Return the run-time folder of the practice site."""
    return PROJECT / ".drill" / practice_prefix()


def practice_records() -> Path:
    """Return the folder of the practice site's records, be it up or not; the same as its `Site.records`."""
    return PROJECT / "incidents" / f"{PRACTICE_SITE}-{practice_prefix()}"


def site_names() -> list[str]:
    """Return the names of all sites in this project; a template is none."""
    return sorted(path.parent.name for path in INVENTORIES.glob("*/site.yml") if not is_template(path))


def is_template(path: Path) -> bool:
    """Say whether this site.yml is a template's. One that cannot be read is a site: choosing it says what is wrong."""
    try:
        data = read_yaml(path)
    except MisconfiguredError:
        return False
    return isinstance(data, dict) and data.get("template") is True


def choose(name: str | None) -> str:
    """Return the site meant: the name given, else HIKESHI_SITE, else the only one there is. Never a guess."""
    names = site_names()
    chosen = name or os.environ.get("HIKESHI_SITE") or (names[0] if len(names) == 1 else "")
    if chosen in names:
        return chosen
    if chosen and "/" not in chosen and is_template(INVENTORIES / chosen / "site.yml"):
        folder = shown(INVENTORIES / chosen)
        raise UsageError(
            f"'{chosen}' is a template and no site: its hosts do not exist; copy it first.",
            f"cp -r {folder} {shown(INVENTORIES)}/NAME, take 'template' out of its site.yml, then --site NAME",
        )
    what = f"unknown site '{chosen}'" if chosen else "no site named"
    ready = [known for known in names if known != PRACTICE_SITE or (practice_folder() / "site" / "hosts.yml").exists()]
    raise UsageError(f"{what}; allowed: {', '.join(names) or 'none yet'}.", f"--site {ready[0] if ready else 'NAME'}")


def read_yaml(path: Path) -> Any:
    """Return a YAML file's content; an empty file is an empty mapping."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError as error:
        raise MisconfiguredError(f"{shown(path)} is missing.", f"git status; git checkout -- {shown(path)}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise MisconfiguredError(f"{shown(path)} cannot be read: {error}.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise MisconfiguredError(f"{shown(path)}{where} is not YAML: {problem}.", f"mend {shown(path)}") from error


def shown(path: Path) -> str:
    """Return a path as the operator would type it: relative to the project where it is inside."""
    return str(path.relative_to(PROJECT)) if path.is_relative_to(PROJECT) else str(path)


def overlay(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `top` laid over it, mappings merged key by key."""
    merged = dict(base)
    for key, value in top.items():
        below = merged.get(key)
        merged[key] = overlay(below, value) if isinstance(value, Mapping) and isinstance(below, Mapping) else value
    return merged


def load(name: str | None = None) -> Site:
    """Load and validate a site; every error names the file, the key, the value seen and what is allowed."""
    return read_site(choose(name))


def read_site(chosen: str) -> Site:
    """Load and validate the folder of this name, be it a site or a template."""
    folder = INVENTORIES / chosen
    raw = read_yaml(folder / "site.yml")
    probes = read_yaml(folder / "probes.yml")
    private = folder
    _must_be_mapping(raw, folder / "site.yml")
    _must_be_mapping(probes, folder / "probes.yml")
    if raw.get("practice"):
        private = practice_folder() / "site"
        if not (private / "hosts.yml").exists():
            raise MisconfiguredError(
                f"the practice site is not up: {shown(private / 'hosts.yml')} is missing.", "hikeshi drill up"
            )
        top = read_yaml(private / "site.yml")
        _must_be_mapping(top, private / "site.yml")
        raw = overlay(raw, top)
    try:
        data = SiteData.model_validate({**raw, "probes": probes.get("probes", [])})
    except (ValidationError, TypeError, AttributeError) as error:
        raise MisconfiguredError(
            f"{shown(folder)}/site.yml or probes.yml is not valid:\n{_explain(error)}", f"mend {shown(folder)}"
        ) from error
    for inventory in (folder / "hosts.yml", private / "hosts.yml"):
        if not isinstance(read_yaml(inventory), dict):
            raise MisconfiguredError(
                f"{shown(inventory)} is not an inventory: a mapping of groups is expected.", f"mend {shown(inventory)}"
            )
    return Site(chosen, folder, private, data)


def _must_be_mapping(data: Any, path: Path) -> None:
    if not isinstance(data, dict):
        raise MisconfiguredError(
            f"{shown(path)} is not valid: a mapping of keys is expected, seen is a {type(data).__name__}.",
            f"mend {shown(path)}",
        )


def site_secrets(site: Site) -> Iterable[str]:
    """Yield the values of the site's unencrypted `secret_*` variables: they are taken out of every record."""
    for path in {*site.folder.glob("group_vars/*/secrets.yml"), *site.private.glob("group_vars/*/secrets.yml")}:
        try:
            values = read_yaml(path)
        except MisconfiguredError:
            continue  # encrypted with ansible-vault: Ansible decrypts it, we never see it
        if isinstance(values, dict):
            yield from (text for key, value in values.items() if key.startswith("secret_") for text in _leaves(value))


def _leaves(value: Any) -> Iterable[str]:
    """Yield every value of nested data as text."""
    if isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _leaves(item)
    elif value is not None:
        yield str(value)


def _explain(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return f"  {error}"
    return "\n".join(
        f"  {'.'.join(map(str, item['loc'])) or 'site'}: {item['msg']} (seen: {str(item['input'])[:80]!r})"
        for item in error.errors(include_url=False)
    )
