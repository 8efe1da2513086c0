"""Whether a machine lets us in, and what customers would see of it: of a host, or of what stands in for one.

What it tells is hostile: it is read up to a bound and never interpreted.
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import httpx

from hikeshi import probes
from hikeshi.copies.driver import Rehearsal
from hikeshi.errors import HikeshiError
from hikeshi.probes import ProbeResult
from hikeshi.site import Site
from hikeshi.text import printable

LOGIN_S = 90.0  # how long a machine that was just started may take until it lets us in
TRY_S, PAUSE_S = 30.0, 1.0  # while a host boots, PAM may wait for 25 s until it lets somebody in
MOST_TOLD = 64 << 10
# One line each; what is asked changes nothing.
ASK = r"""
echo "uid=$(id -u)"
echo "machine=$(cat /etc/machine-id)"
echo "routes=$(ip route show default; ip -6 route show default)"
list() { systemctl list-units --type=timer --state=active --no-legend --plain --no-pager; }
echo "timers=$(list | cut -d' ' -f1 | tr '\n' ' ')"
echo "daemons=$(ps -eo comm= | grep -xE 'cron|crond|atd|anacron' | sort -u | tr '\n' ' ')"
"""


@dataclass(frozen=True)
class Login:
    """What a machine told to who got in with sudo; or why nobody did."""

    told: dict[str, str] = field(default_factory=dict)
    why: str = ""

    @property
    def ok(self) -> bool:
        """Whether we are root there."""
        return self.told.get("uid") == "0"


def log_in(site: Site, host: str, *, wait_s: float = LOGIN_S) -> Login:
    """Log in by ssh as the site does, with sudo; try again until it lets us in, or the time is over."""
    deadline = time.monotonic() + wait_s
    while True:
        seen = _try(site, host)
        if seen.ok or time.monotonic() > deadline:
            return seen
        time.sleep(PAUSE_S)


def _try(site: Site, host: str) -> Login:
    words = ["ssh", *site.ssh_arguments, "-T", "-a", "-x", "-o", "BatchMode=yes", "-o", "ConnectTimeout=8", "-o",
             "ControlPath=none", host, "sudo -n sh -s"]  # fmt: skip
    # A group of its own: what speaks for ssh with a rehearsed machine ends with it.
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    ) as process:
        assert process.stdin and process.stdout  # noqa: S101 (they are pipes)
        late = threading.Timer(TRY_S, _end, (process,))
        late.start()
        try:
            with suppress(OSError):  # it said no before it was asked; what it said is read below
                process.stdin.write(ASK.encode())
                process.stdin.close()
            said = process.stdout.read(MOST_TOLD).decode(errors="replace")
        finally:
            late.cancel()
            _end(process)
    told = {}
    for line in said.splitlines():
        key, found, value = line.partition("=")
        if found and key in ("uid", "machine", "routes", "timers", "daemons"):
            told[key] = printable(value.strip(), 300)
    return Login(told, "" if told.get("uid") == "0" else printable(said.strip(), 300) or f"no answer in {TRY_S:.0f} s")


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def serving(site: Site, host: str) -> list[str]:
    """Return the direct views that this host answers; none of a host that no customer's request reaches."""
    known = {host, *site.names().get(host, [])}
    return [name for name in site.views("direct") if httpx.URL(site.data.views[name].url).host in known]


def showing(site: Site, host: str) -> list[str]:
    """Return the views that show whether this host works: its own, else what customers see of the whole shop."""
    return serving(site, host) or site.views("customer")[:1]


def stand_in(site: Site, host: str, machine: Rehearsal) -> Site:
    """Return the site as it is where a rehearsed machine stands in for a host: one direct view, through its own ssh."""
    views = {}
    for name in serving(site, host)[:1]:
        view = site.data.views[name]
        url = httpx.URL(view.url)
        there = {"url": str(url.copy_with(host=machine.address)), "host": view.host or url.netloc.decode(), "via": host}
        views[name] = view.model_copy(update=there)
    more = ("-o", f"ProxyCommand={machine.proxy}", "-o", "ControlPath=none")
    return replace(site, data=site.data.model_copy(update={"views": views}), ssh_more=more)


def look(site: Site, views: Sequence[str], *, green: Collection[str] = (), settle_s: float = 0.0) -> list[ProbeResult]:
    """Run the probes that place no order; look again for a while as long as one is red that is in `green`."""
    chosen = [probe.id for probe in site.data.probes if probe.effects != "order"]
    deadline = time.monotonic() + settle_s
    while chosen and views:
        try:
            seen = [item for view in views for item in probes.run(site, view, chosen)]
        except HikeshiError:  # the tunnel: its sshd may have started anew
            if time.monotonic() > deadline:
                raise
        else:
            if not worse(seen, green) or time.monotonic() > deadline:
                return seen
        time.sleep(PAUSE_S)
    return []


def worse(seen: Sequence[ProbeResult], green: Collection[str]) -> list[ProbeResult]:
    """Return what is red now and was green before."""
    return [item for item in seen if not item.passed and item.id in green]


def green_now(site: Site, host: str) -> list[str]:
    """Return the probes that pass now, past the load balancer, else through it: no swap may take one of them away."""
    try:
        seen = look(site, showing(site, host))
    except HikeshiError:  # the way there leads through the host itself
        seen = look(site, site.views("customer")[:1])
    red = {item.id for item in seen if not item.passed}
    return sorted({item.id for item in seen} - red)
