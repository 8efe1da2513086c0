"""What a host tells of its schedules (schema 1), checked once where it comes in, so that nothing behind it has to.

Times are seconds since the epoch, by the host's clock. Bounds are wide of what a program of ours would send.
"""

import base64
import binascii
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from hikeshi.errors import HikeshiError
from hikeshi.text import printable

SCHEMA = 1
_MOST, _LONGEST = 10_000, 20_000

Text = Annotated[str, Field(strict=True, max_length=_LONGEST)]
Flag = Annotated[bool, Field(strict=True)]
Number = Annotated[int, Field(strict=True, ge=-(2**63), lt=2**63)]
Real = Annotated[float, Field(allow_inf_nan=False, ge=-(2.0**63), le=2.0**63)]
Texts = Annotated[list[Text], Field(max_length=_MOST)]
Source = Literal["at", "crontab", "cron.d", "periodic", "anacrontab", "anacron_stamp", "shutdown", "apt"]


class File(BaseModel):
    """A file that schedules something, its bytes in `b64`; with `truncated`, only its beginning is here.

    Sources: at (the spool), crontab (one of a user's), cron.d (and /etc/crontab), periodic (a script that run-parts
    runs), anacrontab, anacron_stamp, shutdown (logind's), apt (apt.conf.d).
    """

    path: Text
    source: Source
    owner: Text = ""
    uid: Number
    gid: Number
    mode: Annotated[str, Field(strict=True, pattern="^[0-7]{3,5}$")]
    b64: Annotated[str, Field(strict=True, max_length=32 << 20)]
    truncated: Flag = False

    @property
    def name(self) -> str:
        """The file's name without its directory."""
        return self.path.rpartition("/")[2]

    @property
    def content(self) -> bytes:
        """What stands in it."""
        try:
            return base64.b64decode(self.b64)
        except (binascii.Error, ValueError):
            return b""


class Timer(BaseModel):
    """A timer of systemd, as systemd and its files tell.

    `monotonic` are settings with their seconds; `next` and `last` are what systemd has planned and done, `stamp` what
    Persistent= keeps on disk; `needs_reload`: its files say something else than what systemd has read. `commands` are
    the ExecStart= of what it triggers, `user` is who runs them.
    """

    unit: Text
    triggers: Text = ""
    calendar: Texts = []
    monotonic: Annotated[list[tuple[Text, Real]], Field(max_length=_MOST)] = []
    persistent: Flag = False
    randomized_delay_s: Real = 0.0
    accuracy_s: Real = 60.0
    active: Flag = False
    enabled: Text = ""
    next: Real | None = None
    last: Real | None = None
    stamp: Real | None = None
    needs_reload: Flag = False
    commands: Texts = []
    user: Text = "root"


class RebootUnit(BaseModel):
    """A unit that reboots the host, or powers it off, when it fails or ends."""

    unit: Text
    active: Flag = False
    actions: Annotated[dict[Text, Text], Field(max_length=100)]


class Held(BaseModel):
    """A job that is held: when that was, who did it, when it would have gone off next.

    `state`: held; holding or releasing, where that was cut off; came due, of a job of at that missed its time and is
    kept.
    """

    id: Text
    state: Text = "held"
    at: Real = 0.0
    by: Text = ""
    due: Real | None = None
    active: Flag = True  # of a timer: whether it ran


class Shield(BaseModel):
    """What refuses reboots, if it is `on`; it ends by itself after `left_s`. `not_masked`: targets that still work."""

    on: Flag = False
    until: Real | None = None
    left_s: Real = 0.0
    by: Text = ""
    refused_by_dbus: Flag = False
    not_masked: Texts = []


class Host(BaseModel):
    """All that a host tells. `offline`: it is the disk of a system that does not run.

    `unseen` are sentences on what could not be read, `lost` the folders of held jobs of which it knows no more than
    that. `daemons` are the states of atd, cron, anacron and
    unattended-upgrades, "absent" for what is not installed.
    """

    now: Real
    boot: Real | None = None
    zone: Text
    offline: Flag = False
    files: Annotated[list[File], Field(max_length=_MOST)]
    timers: Annotated[list[Timer], Field(max_length=_MOST)] = []
    reboot_units: Annotated[list[RebootUnit], Field(max_length=_MOST)] = []
    daemons: Annotated[dict[Text, Text], Field(max_length=100)] = {}
    reboot_required: Flag = False
    held: Annotated[list[Held], Field(max_length=_MOST)] = []
    lost: Texts = []
    shield: Shield = Shield()
    unseen: Texts = []


def read(host: str, told: Any) -> Host:
    """Return what a host tells; raise when it cannot be judged, naming the field."""
    schema = told.get("schema") if isinstance(told, dict) else None
    fix = f"the same command again; if it stays so, trust nothing that {host} says, and look at it by hand"
    if schema != SCHEMA:
        raise HikeshiError(f"{host} told its schedules in schema {printable(schema, 40)}; known: {SCHEMA}.", fix)
    try:
        return Host.model_validate(told)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = printable(" · ".join(map(str, first["loc"])) or "all of it", 200)
        raise HikeshiError(
            f"{host} told schedules that cannot be judged: {field}: {printable(first['msg'], 200)}.", fix
        ) from None
