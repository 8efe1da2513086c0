"""What a host's evidence must be like to be judged. Anything else is refused where it comes in, so that no rule checks.

The schema in words stands in roles/evidence/library/collect_evidence.py; here is of it what is read on the controller.
Bounds are wide of what the collector sends: who passes them is not our collector. Half a pair of surrogates is no text.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from hikeshi.errors import HikeshiError
from hikeshi.text import printable
from hikeshi.triage.findings import SCHEMA

LONGEST, LONGEST_TEXT = 20_000, 1 << 20  # characters of a value, and of the text of a file
MOST, MOST_FACTS = 10_000, 200_000

Text = Annotated[str, Field(strict=True, max_length=LONGEST)]
Flag = Annotated[bool, Field(strict=True)]
Number = Annotated[int, Field(strict=True, ge=-(2**63), lt=2**63)]
Real = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-(2.0**63), le=2.0**63)]
Mode = Annotated[str, Field(strict=True, pattern="^[0-7]{4}$")]
Lines = Annotated[list[Text], Field(max_length=MOST)]


class _Unit(BaseModel):
    load: Text
    active: Text
    enabled: Text
    result: Text
    log: Lines
    after: Lines = []


class _Mount(BaseModel):
    mounted: Flag


class _Absent(BaseModel):
    kind: Literal["missing", "unreadable"]


class _Present(BaseModel):
    kind: Literal["directory", "file", "link", "other"]
    mode: Text
    owner: Text
    group: Text
    link: Text
    leads_to: Text = ""


class _Wrong(BaseModel):
    path: Text
    kind: Text
    mode: Mode


class _Tree(BaseModel):
    wrong: Annotated[list[_Wrong], Field(max_length=MOST)]


class _Unresolved(BaseModel):
    name: Text
    code: Number | None


class _Config(BaseModel):
    ok: Flag
    message: Text
    file: Text
    unresolved: _Unresolved | None = None


class _Disk(BaseModel):
    free_bytes: Number
    size_bytes: Number
    free_inodes: Number
    inodes: Number


class _Lock(BaseModel):
    present: Flag
    pid: Number | None
    alive: Flag
    age_s: Real | None
    owner_age_s: Real | None


def _ages_fit(lock: _Lock) -> _Lock:
    if (lock.present and lock.age_s is None) or (lock.alive and lock.owner_age_s is None):
        raise ValueError("what is there has an age")
    return lock


class _Report(BaseModel):
    state: Text
    result: Text
    status: Text
    log: Lines


class _Crashed(BaseModel):
    table: Text
    words: Text


class _Database(BaseModel):
    answers: Flag
    code: Number
    message: Text
    most: Number
    connections: Number
    idle: Number
    crashed: Annotated[list[_Crashed], Field(max_length=MOST)]


class _Old(BaseModel):
    name: Text
    bytes: Number


class _Logs(BaseModel):
    mount: Text
    keep_mount: Text
    old_bytes: Number
    old: Annotated[list[_Old], Field(max_length=MOST)]
    errors: Lines = []


class _Deleted(BaseModel):
    pid: Number
    unit: Text
    path: Text
    bytes: Number
    mount: Text


class _Login(BaseModel):
    ok: Flag
    code: Number
    message: Text


class _Abandoned(BaseModel):
    pid: Number
    age_s: Real
    command: Text


class _Addition(BaseModel):
    kind: Literal["file", "link", "setting", "user"]
    name: Text
    more: Text


class _Altered(BaseModel):
    path: Text
    package: Text
    what: Literal["missing", "changed", "mode", "unreadable"]
    conffile: Flag


class _Answered(BaseModel):
    model_config = ConfigDict(extra="forbid")  # else what has no status could pass for the other

    status: Number
    bytes: Number
    seconds: Real
    words: Text = ""


class _Unanswered(BaseModel):
    model_config = ConfigDict(extra="forbid")

    why: Text
    error: Text = ""


class _Reached(BaseModel):
    address: Text
    ok: Flag
    why: Text


class _SshdAt(BaseModel):
    address: Text
    port: Annotated[int, Field(strict=True, ge=1, le=65535)]
    by: Literal["sshd", "ssh.socket"]


class _SavedChain(BaseModel):
    table: Text
    chain: Text
    policy: Text
    rules: Lines
    complete: Flag


class _Chain(_SavedChain):
    family: Text
    backend: Text


class _SavedFirewall(BaseModel):
    family: Text
    chains: Annotated[list[_SavedChain], Field(max_length=MOST)]


class _Account(BaseModel):
    home: Text
    shell: Text
    shell_kind: Text
    groups: Lines
    changed: Number | None
    most: Number | None
    inactive: Number | None
    expires: Number | None


class _KeyPath(BaseModel):
    path: Text
    kind: Text
    mode: Mode
    owner: Text
    members: Lines


class _Line(BaseModel):
    file: Text
    words: Text


class _SshdLine(_Line):
    match: Text


class _Module(_Line):
    kind: Text
    control: Text
    name: Text


class _Setting(_Line):
    key: Text
    value: Text


class _AtBoot(BaseModel):
    unit: Text
    file: Text
    link: Text
    target: Text
    need: Flag
    before: Lines
    type: Text
    bound: Flag
    waits: Text
    source: Text
    source_kind: Text


class _Job(BaseModel):
    unit: Text
    type: Text
    state: Text


class WayIn(BaseModel):
    """What decides whether anybody gets in: roles/evidence/module_utils/hikeshi_way_in.py."""

    shut: Lines
    accounts: Annotated[dict[Text, _Account | None], Field(max_length=MOST)]
    key_paths: Annotated[dict[Text, Annotated[list[_KeyPath], Field(max_length=MOST)]], Field(max_length=MOST)]
    sshd: Annotated[list[_SshdLine], Field(max_length=MOST)]
    modules: Annotated[list[_Module], Field(max_length=MOST)]
    wrappers: Annotated[list[_Line], Field(max_length=MOST)]
    ssh_unit: Annotated[list[_Setting], Field(max_length=MOST)]
    boot: Annotated[list[_AtBoot], Field(max_length=MOST)]
    jobs: Annotated[list[_Job], Field(max_length=MOST)]


class _Unseen(BaseModel):
    source: Text
    why: Text


class _Boot(BaseModel):
    up_s: Real


class _Evidence(BaseModel):
    host: Text
    at: Real
    boot: _Boot | None = None  # none of a disk
    subjects: list[dict[str, Any]]  # the controller's own words: the collector's action plugin puts them in
    units: Annotated[dict[Text, _Unit], Field(max_length=MOST)]
    mounts: Annotated[dict[Text, _Mount], Field(max_length=MOST)]
    paths: Annotated[dict[Text, Annotated[_Absent | _Present, Field(discriminator="kind")]], Field(max_length=MOST)]
    trees: Annotated[dict[Text, _Tree], Field(max_length=MOST)]
    configs: Annotated[dict[Text, _Config], Field(max_length=MOST)]
    names: Annotated[dict[Text, Lines], Field(max_length=MOST)]
    disks: Annotated[dict[Text, _Disk], Field(max_length=MOST)]
    locks: Annotated[dict[Text, Annotated[_Lock, AfterValidator(_ages_fit)]], Field(max_length=MOST)] = {}
    reports: Annotated[dict[Text, _Report], Field(max_length=MOST)] = {}
    databases: Annotated[dict[Text, _Database], Field(max_length=MOST)] = {}
    logs: Annotated[dict[Text, _Logs], Field(max_length=MOST)] = {}
    logins: Annotated[dict[Text, _Login], Field(max_length=MOST)] = {}
    answers: Annotated[dict[Text, _Answered | _Unanswered], Field(max_length=MOST)] = {}
    listens: Annotated[dict[Text, Flag], Field(max_length=MOST)] = {}
    sshd_at: Annotated[list[_SshdAt], Field(max_length=MOST)] = []
    reaches: Annotated[dict[Text, Annotated[list[_Reached], Field(max_length=MOST)]], Field(max_length=MOST)] = {}
    global_ipv6: Flag = False
    firewall: Annotated[list[_Chain], Field(max_length=MOST)] = []
    saved_firewall: Annotated[dict[Text, _SavedFirewall], Field(max_length=MOST)] = {}
    firewall_cut: Lines = []
    deleted: Annotated[list[_Deleted], Field(max_length=MOST)] = []
    abandoned: Annotated[list[_Abandoned], Field(max_length=MOST)]
    errors: Lines
    additions: Annotated[list[_Addition], Field(max_length=MOST)] = []
    verify: Annotated[list[_Altered], Field(max_length=MOST)] | None = None
    way_in: WayIn | None = None
    unseen: Annotated[list[_Unseen], Field(max_length=MOST)]


class _State(BaseModel):
    facts: Annotated[dict[Text, dict[Text, Text | Number | Flag]], Field(max_length=MOST_FACTS)]
    texts: Annotated[
        dict[Text, Annotated[str, Field(strict=True, max_length=LONGEST_TEXT)]], Field(max_length=MOST_FACTS)
    ]


def check(host: str, seen: Any) -> None:
    """Raise when a host's evidence cannot be judged, naming the field; nothing is changed or left out."""
    schema = seen.get("schema") if isinstance(seen, dict) else None
    if schema != SCHEMA:
        raise HikeshiError(f"{host} sent evidence of schema {printable(schema, 40)}; known: {SCHEMA}.", _fix(host))
    _checked(host, _Evidence, seen)


def check_state(host: str, told: Any) -> None:
    """Raise when a host's whole state is not what can be compared."""
    _checked(host, _State, told)


def _checked(host: str, wanted: type[BaseModel], told: Any) -> None:
    try:
        wanted.model_validate(told)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = printable(" · ".join(map(str, first["loc"])) or "all of it", 200)
        raise HikeshiError(
            f"{host} sent evidence that cannot be judged: {field}: {printable(first['msg'], 200)}.",
            _fix(host),
        ) from None


def _fix(host: str) -> str:
    return f"the same command again; if it stays so, trust nothing that {host} says, and look at it by hand"
