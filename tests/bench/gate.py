"""What customers notice when the gate is closed and opened, beside a plain DROP of the load balancer's addresses.

    HIKESHI_DRILL=hikeshi-bench .venv/bin/python -m tests.bench.gate [--rounds N] [--haproxy-defaults] [--tcp]

Customers ask through the practice load balancer: RATE new ones a second, one that keeps his connection, and one whose
request is slow: it is begun before the switch and ends after it. Failed is what is neither the shop's (200, or where it
leads to another page) nor the sorry page; slow is a request longer than SLOW_S. `quiet` is the same load with nothing
done: what is slow there is this machine's. Command to sorry, and to shop, count from the start of the command to the
first such answer that stays; worst is of all requests. Shop, load balancer and Ansible share the machine's cores, so
run it on a quiet machine.

`--haproxy-defaults` measures the load balancer with inter 2s, fall 3, rise 2 and no words on retries or redispatch, and
puts its own settings back. `--tcp` has it check by connecting alone, and web1 built for that; both are put back. The
exit status is 1 where anybody behind the gate got neither page. A practice site that stands is used as it is; one that
does not is put up, and taken away at the end. Each phase is bounded by MOST_S.
"""

import argparse
import http.client
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from urllib.parse import urlsplit

import yaml

from hikeshi import gate
from hikeshi.site import Site, load, practice_folder, read_yaml
from tests.bench.practice import standing
from tests.drill.conftest import HIKESHI, hikeshi, ssh

RATE = 12  # new customers a second
SLOW_S = 1.0
TIMEOUT_S = 15.0  # longer than the load balancer tries to reach a server
BEFORE_S, AFTER_S = 2.0, 4.0  # load before the switch, and after what it is to bring has come
MOST_S = 120.0  # no phase is longer: the command is ended then
BUILD_S = 600.0
QUIET_S = 10.0
KEPT_PAUSE_S = 0.25
CONFIGURATION = "/etc/haproxy/haproxy.cfg"
IN_EFFECT = r"option (redispatch|httpchk|http-server-close)|retries|timeout (connect|check)|default-server"
# What a load balancer is that only connects, for HAProxy and for the gate.
HAPROXY_TCP = "-e '/^ *(option httpchk|http-check)/d'"
HAPROXY_DEFAULTS = "-e '/^ *(option redispatch|retries)/d' -e 's/^( *default-server) .*/\\1 inter 2s fall 3 rise 2/'"
GATE_TCP = {"health_check_gate_check": "tcp", "health_check_gate_check_path": ""}


@dataclass
class Seen:
    """One answer, or none: when it was asked for, how long it took, what it was."""

    began: float
    seconds: float
    what: str  # shop, sorry, or what else


@dataclass
class Phase:
    """All that customers saw in one phase."""

    name: str
    new: list[Seen] = field(default_factory=list)
    kept: list[Seen] = field(default_factory=list)
    slow: str = "-"
    began: float = 0.0  # of the command

    @property
    def all(self) -> list[Seen]:
        """Every request but the slow one."""
        return [*self.new, *self.kept]

    @property
    def failed(self) -> list[Seen]:
        """What neither the shop nor the sorry page answered."""
        return [item for item in self.all if item.what not in ("shop", "sorry")]

    def until(self, what: str) -> str:
        """Return the seconds from the command to the first of the answers that stay so to the end."""
        answers = sorted(self.new, key=lambda item: item.began + item.seconds)
        first = None
        for item in reversed(answers):
            if item.what != what:
                break
            first = item
        return f"{first.began + first.seconds - self.began:.1f}" if first else "never"


class Customers:
    """They come while the block runs."""

    def __init__(self, site: Site, phase: Phase) -> None:
        """Come through the plain view of the customer."""
        view, page = site.data.views["customer"], gate.page_of(site)
        address = urlsplit(view.url)
        self.host, self.port = address.hostname or "", address.port or 80
        self.headers = {"Host": view.host or address.netloc, "User-Agent": "hikeshi-bench"}
        self.page, self.phase = page, phase
        self.end = threading.Event()
        self.threads = [threading.Thread(target=work) for work in (self.come, self.stay)]
        self.pool = ThreadPoolExecutor(RATE * int(TIMEOUT_S))

    def __enter__(self) -> "Customers":
        """Let them come."""
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Let no more come, and wait for the answers to those who came."""
        self.end.set()
        for thread in self.threads:
            thread.join()
        self.pool.shutdown()

    def come(self) -> None:
        """Begin requests at an even rate, whatever becomes of those before."""
        began = time.monotonic()
        for number in range(int(RATE * 2 * MOST_S)):
            if self.end.wait(max(0.0, began + number / RATE - time.monotonic())):
                return
            self.pool.submit(self.new)

    def new(self) -> None:
        """Ask once, on a connection of one's own."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=TIMEOUT_S)
        self.phase.new.append(self.ask(connection))
        connection.close()

    def stay(self) -> None:
        """Ask again and again on one connection, a new one only where the other side ended it in so many words."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=TIMEOUT_S)
        while not self.end.wait(KEPT_PAUSE_S):
            seen = self.ask(connection)
            self.phase.kept.append(seen)
            if seen.what not in ("shop", "sorry"):
                connection.close()
        connection.close()

    def ask(self, connection: http.client.HTTPConnection) -> Seen:
        """Send one request; a connection that the answer closed is opened anew by the next."""
        began = time.monotonic()
        try:
            connection.request("GET", self.page.path, headers=self.headers)
            answer = connection.getresponse()
            what = self.named(answer.status, answer.read(1 << 20).decode(errors="replace"))
        except (OSError, http.client.HTTPException) as error:
            what = type(error).__name__
        return Seen(began, time.monotonic() - began, what)

    def named(self, status: int, text: str) -> str:
        """Return what an answer is."""
        if status in (200, 302):
            return "shop"
        if status == self.page.status and all(words in text for words in self.page.contains):
            return "sorry"
        return str(status)

    @contextmanager
    def slowly(self) -> Iterator[None]:
        """Have a request in flight meanwhile: its body comes a byte at a time, the rest at the end.

        The shop refuses such a form (403); that is an answer of the shop's all the same.
        """
        length = int(4 * MOST_S)
        head = f"POST {self.page.path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in self.headers.items()) + "\r\n"
        enough = threading.Event()

        def send() -> None:
            try:
                with socket.create_connection((self.host, self.port), TIMEOUT_S) as line:
                    line.sendall(head.encode())
                    sent = 0
                    while sent < length - 1 and not enough.wait(0.5):
                        line.sendall(b"x")
                        sent += 1
                    line.sendall(b"x" * (length - sent))
                    first = line.makefile("rb").readline(200).decode(errors="replace").split()
                    self.phase.slow = first[1] if len(first) > 1 else "cut off"
            except OSError as error:
                self.phase.slow = type(error).__name__

        sender = threading.Thread(target=send)
        sender.start()
        try:
            yield
        finally:
            enough.set()
            sender.join(TIMEOUT_S + 5)


def wait_for(phase: Phase, what: str) -> None:
    """Wait until customers see it, and a while longer."""
    deadline = time.monotonic() + MOST_S
    while not all(item.what == what for item in phase.new[-RATE:]) or time.monotonic() < phase.began + 1:
        if time.monotonic() > deadline:
            print(f"{phase.name}: no {what} within {MOST_S:.0f} s", file=sys.stderr)
            return
        time.sleep(0.1)
    time.sleep(AFTER_S)


def measure(site: Site, name: str, what: str, switch: Callable[[], object], *, slow: bool) -> Phase:
    """Let customers come while something is switched; `what` they are to see afterwards."""
    phase = Phase(name)
    with Customers(site, phase) as customers:
        time.sleep(BEFORE_S)
        if slow:
            with customers.slowly():
                time.sleep(0.5)
                phase.began = time.monotonic()
                switch()
                wait_for(phase, what)
        else:
            phase.began = time.monotonic()
            switch()
            wait_for(phase, what)
    return phase


def verb(*words: str, most_s: float = MOST_S) -> Callable[[], None]:
    """Return what runs one command of ours; one that fails ends the benchmark."""

    def run() -> None:
        done = subprocess.run(
            [HIKESHI, *words, "--site", "drill"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=most_s, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)}: exit status {done.returncode}\n{done.stderr[-2000:]}")

    return run


def rules(verb: str) -> list[str]:
    """Return what adds (-I), removes (-D) or asks for (-C) a plain DROP of the load balancer's addresses, in shell."""
    known = read_yaml(practice_folder() / "site" / "hosts.yml")["all"]["hosts"]["lb1"]
    pairs = (("iptables", known["practice_ipv4"]), ("ip6tables", known["practice_ipv6"]))
    return [f"{program} -w {verb} INPUT -s {address} -j DROP" for program, address in pairs]


def drop(site: Site) -> Iterator[Phase]:
    """Cut the load balancer off as one does without the gate; a timer on web1 ends it where we die."""
    unit, there, away = f"hikeshi-bench-drop-{time.time_ns()}", rules("-C"), rules("-D")
    arm = f"systemd-run --quiet --collect --on-active={3 * MOST_S:.0f} --unit={unit} sh -c '{'; '.join(away)}'"
    try:
        yield measure(site, "DROP in", "sorry", lambda: ssh("web1", "\n".join([arm, *rules("-I")])), slow=True)
        yield measure(site, "DROP out", "shop", lambda: ssh("web1", "\n".join(away)), slow=False)
    finally:
        # Whichever of them stand: a rule that does not go away is an error, one that has gone is none.
        pairs = [
            *zip(there, away, strict=True),
            (f"systemctl -q is-active {unit}.timer", f"systemctl stop {unit}.timer"),
        ]
        ssh("web1", "\n".join(f"if {stands} 2>/dev/null; then {command}; fi" for stands, command in pairs))


def by_gate(site: Site) -> Iterator[Phase]:
    """Close and open as we do; a gate that was left closed is opened by force."""
    try:
        yield measure(site, "sorry on", "sorry", verb("sorry", "on", "--yes"), slow=True)
        yield measure(site, "sorry off", "shop", verb("sorry", "off"), slow=False)
    finally:
        hikeshi("sorry", "off", "--force", "--site", "drill", timeout=int(MOST_S))


@contextmanager
def haproxy(*, defaults: bool, tcp: bool) -> Iterator[None]:
    """Have the load balancer run with its own settings or with others, and say which are in effect."""
    kept, edits = f"{CONFIGURATION}.bench", [HAPROXY_DEFAULTS] * defaults + [HAPROXY_TCP] * tcp
    if edits:
        # Left by a benchmark that was killed: that is the true one.
        ssh("lb1", f"test -e {kept} || cp -p {CONFIGURATION} {kept}")
    try:
        if edits:
            ssh(
                "lb1",
                f"sed -i -E {' '.join(edits)} {CONFIGURATION}\n"
                f"haproxy -c -q -f {CONFIGURATION}\nsystemctl reload haproxy",
            )
            time.sleep(AFTER_S)
        seen = ssh("lb1", f"grep -E '^ *({IN_EFFECT})' {CONFIGURATION}")
        print("HAProxy:", "; ".join(re.sub(r"\s+", " ", line).strip() for line in seen.splitlines()))
        yield
    finally:
        if edits:
            ssh("lb1", f"mv {kept} {CONFIGURATION}\nsystemctl reload haproxy")


@contextmanager
def gate_for(*, tcp: bool) -> Iterator[None]:
    """Have web1's gate built for the check: by variables laid over the practice site's, and taken away again."""
    variables = practice_folder() / "site" / "group_vars" / "web_servers" / "bench.yml"
    try:
        if tcp:
            variables.parent.mkdir(exist_ok=True)
            variables.write_text(yaml.safe_dump(GATE_TCP))
            verb("build", most_s=BUILD_S)()
        yield
    finally:
        if tcp:
            variables.unlink(missing_ok=True)
            verb("build", most_s=BUILD_S)()


@contextmanager
def allowed() -> Iterator[None]:
    """Have an incident of our own, in which the customer allows the sorry page."""
    opened = hikeshi("incident", "open", f"gate-bench-{os.getpid()}-{os.urandom(3).hex()}", "--site", "drill")
    if opened.status:
        sys.exit(f"incident open: exit status {opened.status}\n{opened.err[-2000:]}")
    try:
        words = ("--by", "the benchmark", "--words", "Show it as often as you like")
        permitted = hikeshi("incident", "permit", "sorry", *words, "--site", "drill")
        if permitted.status:
            sys.exit(f"incident permit: exit status {permitted.status}\n{permitted.err[-2000:]}")
        yield
    finally:
        closed = hikeshi("incident", "close", "--force", "--words", "measured", "--site", "drill")
        if closed.status:
            print(closed.err[-2000:], file=sys.stderr)


def quiet(site: Site) -> Iterator[Phase]:
    """Let customers come while nothing is done."""
    phase = Phase("quiet")
    with Customers(site, phase):
        time.sleep(QUIET_S)
    yield phase


def row(number: int, phase: Phase) -> str:
    """Return one phase as a line of the table."""
    sorry, shop = (
        phase.until(what) if phase.name.endswith(ends) else "-"
        for what, ends in (("sorry", (" on", " in")), ("shop", (" off", " out")))
    )
    slow = sum(item.seconds > SLOW_S for item in phase.all)
    worst = max((item.seconds for item in phase.all), default=0.0)
    kinds = ", ".join(sorted({item.what for item in phase.failed}))
    return (
        f"{number:>5} {phase.name:<10}{len(phase.new):>6}{len(phase.kept):>6}{len(phase.failed):>8}{slow:>6}"
        f"{worst:>9.2f}{sorry:>11}{shop:>10}  {phase.slow:<12}{kinds}".rstrip()
    )


def main() -> None:
    """Measure, and print one table; exit status 1 where the gate lost anybody."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument(
        "--rounds", type=int, default=1, choices=range(1, 11), metavar="1 to 10",
        help="how often the gate is closed and opened; what it is compared with is measured in the first",
    )  # fmt: skip
    asked.add_argument("--haproxy-defaults", action="store_true", help="HAProxy's own timing, no retries set")
    asked.add_argument("--tcp", action="store_true", help="a check that only connects; builds web1 for it, and back")
    options, lost = asked.parse_args(), 0
    with standing():
        site = load("drill")
        if not site.data.practice:
            sys.exit("this cuts a site off: it runs against the practice site only")
        with (
            gate_for(tcp=options.tcp),
            allowed(),
            haproxy(defaults=options.haproxy_defaults, tcp=options.tcp),
        ):
            print(
                f"{'round':>5} {'':<10}{'new':>6}{'kept':>6}{'failed':>8}{'slow':>6}{'worst s':>9}"
                f"{'to sorry s':>11}{'to shop s':>10}  {'in flight':<12}failed with",
                flush=True,
            )
            for number in range(1, options.rounds + 1):
                beside = (quiet(site), drop(site)) if number == 1 else ()
                for phase in chain(by_gate(site), *beside):
                    print(row(number, phase), flush=True)
                    lost += len(phase.failed) if phase.name.startswith("sorry") else 0
    if lost:
        sys.exit(f"{lost} requests got neither the shop nor the sorry page while the gate was closed or opened")


if __name__ == "__main__":
    main()
