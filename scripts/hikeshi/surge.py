"""A bounded load probe: can the shop carry RATE requests a second, and if not, where does it stop?

Open loop: each request is sent when it is due, whether or not earlier ones came back, and its time counts from then. So
a shop that stands still for a second shows it in every request that a customer would have made in that second. The rate
rises in a few short steps, each request is a new visitor's who reads one page or picture, and the ramp ends as soon as
it is sure that the shop does not carry a step: what is measured is where it bends, not what it does when broken.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from itertools import count
from statistics import median
from typing import Any

import httpx
from socksio.exceptions import SOCKSError

from hikeshi import lock, probes
from hikeshi.errors import HikeshiError, MisconfiguredError, RefusedError, UsageError
from hikeshi.site import MOST_SURGE, Expect, Site, View, shown
from hikeshi.site import Step as ProbeStep

SHARES = (0.25, 0.5, 0.75)  # of RATE: the steps before the last, which is RATE itself and takes longer
SHORT_S, LONG_S = 2.0, 6.0
FEWEST = 5  # requests that make a step; with fewer it says nothing and is left out
SLOW_S = 2.0  # 95 of 100 customers must see the page by then
ANSWER_S = 3.0  # no answer by then is none: the customer has gone
# A queue grows where answers come slower than they are asked for, and take longer at a step's end than at its start.
# Either alone may be chance: one slow page at the end, a cache that was cold.
BEHIND, GROWTH_S = 0.9, 0.15
SLOW_SHARE, WRONG_SHARE = 20, 50  # one in so many may be slower than SLOW_S; may fail
AT_ONCE = (8, 200)  # requests waiting for an answer at one time: at least, at most
LOOKS = 10  # times per second that the verdict is looked at while asking
LATE_S = 0.25  # sent so late, a request tells of this machine and not of the shop


@dataclass(frozen=True)
class Page:
    """What a visitor reads: one address, or the pictures of a page, taken in turn; and what the answer must be."""

    addresses: tuple[str, ...]
    expect: Expect = Expect()
    picture: bool = False

    def wrong(self, answer: httpx.Response, body: bytes) -> str:
        """Say what is wrong with an answer; empty when it is what the customer came for."""
        if answer.status_code != self.expect.status:
            return f"status {answer.status_code}"
        if self.picture:
            return "" if answer.headers.get("content-type", "").startswith("image/") and body else "no picture"
        text = body.decode(answer.encoding or "utf-8", "replace") if self.expect.contains or self.expect.lacks else ""
        right = all(words in text for words in self.expect.contains) and not any(
            words in text for words in self.expect.lacks
        )
        return "" if right else "another page than the right one"


@dataclass(frozen=True)
class Answer:
    """How one request ended. `due` and `done` are seconds since its step began; `wrong` is empty when all was well."""

    due: float
    done: float
    wrong: str = ""
    in_time: bool = True

    @property
    def seconds(self) -> float:
        """How long the customer waited, from the moment he wanted the page."""
        return self.done - self.due


@dataclass
class Step:
    """One rate, asked for some seconds. `cycle` requests in a row are one of each page."""

    rate: float
    requests: int
    cycle: int = 1
    answers: list[Answer] = field(default_factory=list)
    full: bool = False  # as many were waiting as may wait at once
    cut_off: int = 0  # sent, and given up when the step was stopped
    late_s: float = 0.0  # how late this machine sent the latest one
    ended: bool = False

    @property
    def seconds(self) -> float:
        """How long it asks."""
        return self.requests / self.rate

    @property
    def at_once(self) -> int:
        """How many may wait at one time: as many as come in SLOW_S, so that a shop that stands still is left alone."""
        least, most = AT_ONCE
        return min(most, max(least, math.ceil(self.rate * SLOW_S)))

    @property
    def times(self) -> list[float]:
        """How long right answers took, and how long those waited who got none in time; shortest first."""
        return sorted(item.seconds for item in self.answers if not item.wrong or not item.in_time)

    @property
    def p50(self) -> float | None:
        """What half of the customers waited at most."""
        return median(self.times) if self.times else None

    @property
    def p95(self) -> float | None:
        """What 95 of 100 customers waited at most."""
        times = self.times
        return times[len(times) - len(times) // SLOW_SHARE - 1] if times else None

    @property
    def achieved(self) -> float:
        """Right answers per second, between the first and the last of them; never more than was asked."""
        done = sorted(item.done for item in self.answers if not item.wrong)
        if len(done) < 2 or done[-1] <= done[0]:
            return min(self.rate, len(done) / self.seconds)
        return min(self.rate, (len(done) - 1) / (done[-1] - done[0]))

    @property
    def errors(self) -> dict[str, int]:
        """What went wrong, and how often; most often first."""
        return dict(Counter(item.wrong for item in self.answers if item.wrong).most_common())

    @property
    def growth(self) -> float:
        """How much longer answers took in the step's last quarter so far than in its first; each has the same pages."""
        quarter = math.ceil(self.requests / 4 / self.cycle) * self.cycle
        counted = sorted((item for item in self.answers if not item.wrong or not item.in_time), key=lambda a: a.due)
        if len(counted) < 2 * quarter:
            return 0.0
        first, last = counted[:quarter], counted[-quarter:]
        return median(item.seconds for item in last) - median(item.seconds for item in first)

    @property
    def why(self) -> str:
        """Why the shop does not carry this rate, as soon as that is sure; empty while it may."""
        errors, slow = self.errors, sum(seconds > SLOW_S for seconds in self.times)
        if sum(errors.values()) > self.requests // WRONG_SHARE:
            return ", ".join(f"{number} × {kind}" for kind, number in errors.items())
        if slow > self.requests // SLOW_SHARE:
            return f"p95 of {self.p95:.1f} s, more than {SLOW_S:.1f} s"
        if self.full:
            return f"{self.at_once} requests waited for an answer at one time"
        if self.growth > GROWTH_S and self.achieved < BEHIND * self.rate:
            return f"a queue grows, answers took {self.growth:.1f} s longer at the end than at first"
        return ""

    @property
    def carried(self) -> bool:
        """True when the step went to its end and all was well."""
        return self.ended and not self.why

    def as_data(self) -> dict[str, Any]:
        """Return the step for `--json`; its keys are explained at Surge.as_data."""
        return {
            "asked": self.rate,
            "achieved": round(self.achieved, 2),
            "requests": self.requests,
            "right": sum(not item.wrong for item in self.answers),
            "cut_off": self.cut_off,
            "p50_s": _rounded(self.p50),
            "p95_s": _rounded(self.p95),
            "errors": self.errors,
            "carried": self.carried,
            "why": self.why,
        }


@dataclass
class Surge:
    """What came of a whole ramp."""

    site: str
    view: str
    rate: float
    steps: list[Step] = field(default_factory=list)
    interrupted: bool = False

    @property
    def best(self) -> Step | None:
        """The highest step that was carried."""
        return next((step for step in reversed(self.steps) if step.carried), None)

    @property
    def bent(self) -> Step | None:
        """The step that was not carried."""
        return next((step for step in self.steps if step.why), None)

    @property
    def carried(self) -> bool:
        """True when the shop carried the rate it was asked for."""
        return bool(self.steps) and self.steps[-1].rate == self.rate and self.steps[-1].carried

    @property
    def late_s(self) -> float:
        """How late this machine sent the latest request."""
        return max((step.late_s for step in self.steps), default=0.0)

    @property
    def verdict(self) -> str:
        """One sentence for people."""
        best, bent = self.best, self.bent
        words = f"carries {best.rate:g} requests/s with p95 of {best.p95:.2f} s" if best else ""
        if self.carried:
            return f"{words}; that is all it was asked for"
        if bent:
            limit = f"at {bent.rate:g} (it answered {bent.achieved:.1f}/s): {bent.why}"
            return f"{words}; saturates {limit}" if best else f"saturates already {limit}"
        return f"{words or 'nothing is known yet'}; stopped before {self.rate:g} requests/s"

    def as_data(self) -> dict[str, Any]:
        """Return everything for `--json`.

        site, view, rate (asked for, requests per second); carried: whether it carried that; carries: the highest rate
        it carried, null for none; saturates: the rate it did not carry, null when none was met; interrupted; verdict:
        the sentence for people; late_s: how late this machine sent the latest request; steps, in order, each with asked
        and achieved (requests and right answers per second), requests (planned), right (answers), cut_off (sent, and
        given up when the step was stopped), p50_s and p95_s (null when nothing was answered; requests without an answer
        in time count with the time they waited, other errors do not count), errors (kind → number), carried, and why
        (empty, or why not).
        """
        return {
            "site": self.site,
            "view": self.view,
            "rate": self.rate,
            "carried": self.carried,
            "carries": self.best.rate if self.best else None,
            "saturates": self.bent.rate if self.bent else None,
            "interrupted": self.interrupted,
            "verdict": self.verdict,
            "late_s": round(self.late_s, 3),
            "steps": [step.as_data() for step in self.steps],
        }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def parse_rate(words: str) -> float:
    """Return RATE as a number of requests per second that may be asked for at all."""
    try:
        rate = float(words)
    except ValueError:
        rate = math.nan
    if not 1 <= rate <= MOST_SURGE:
        raise UsageError(
            f"--surge is '{words}'; allowed: requests per second, from 1 to {MOST_SURGE}.", "hikeshi probe --surge 20"
        )
    return rate


def check_allowed(site: Site, rate: float) -> None:
    """Refuse more load than the site may be asked for; a real site must say how much that is."""
    allowed = site.data.surge.most if site.data.surge else MOST_SURGE if site.data.practice else None
    if allowed is None:
        raise RefusedError(
            f"{rate:g} requests/s are load, and {site.name} is a real site that allows none: customers would feel it.",
            f"agree on a bound with whoever owns the shop; write surge: {{most: {rate:g}, why: WHO AGREED, WHEN}} into "
            f"{shown(site.folder)}/site.yml; then the same command again",
        )
    if rate > allowed:
        why = f" ({site.data.surge.why})" if site.data.surge else ""
        raise RefusedError(
            f"{rate:g} requests/s are more than site {site.name} allows: up to {allowed:g}{why}.",
            f"hikeshi probe --surge {allowed:g} --site {site.name}",
        )


def plan(rate: float, cycle: int = 1) -> list[Step]:
    """Return the steps of a ramp up to `rate`, about 12 s in all; those too short to say anything are left out."""
    wanted = [*((rate * share, SHORT_S) for share in SHARES), (rate, LONG_S)]
    steps = [Step(step_rate, max(1, round(step_rate * seconds)), cycle) for step_rate, seconds in wanted]
    return [step for step in steps if step.requests >= FEWEST or step is steps[-1]]


def pages(site: Site, view: View, proxy: str | None) -> list[Page]:
    """Read once, as one visitor, what the surge will ask for; return it.

    That is what the site's probes without effects get before they send any form, the pictures they look at there, and
    what the site names besides. A shop that does not show these to one visitor is not asked for more.
    """
    found: list[Page] = []
    try:
        for probe in site.data.probes:
            if not probe.effects:
                with probes.visitor(site, view, proxy) as customer:
                    found += _read(customer, probe.steps)
        for address in site.data.surge.pages if site.data.surge else []:
            with probes.visitor(site, view, proxy) as customer:
                found += _read(customer, [ProbeStep(get=address)])
    except probes.ProbeFailure as failure:
        raise HikeshiError(
            f"the shop does not carry one visitor: {failure}", f"hikeshi probe --site {site.name}"
        ) from failure
    if not found:
        raise MisconfiguredError(
            f"no probe of site {site.name} reads a page without effects: there is nothing to ask for.",
            f"name pages in {shown(site.folder)}/site.yml: surge: {{most: …, why: …, pages: [/]}}",
        )
    return list({page.addresses: page for page in found}.values())


def _read(customer: probes.Visitor, steps: Sequence[ProbeStep]) -> list[Page]:
    found: list[Page] = []
    for step in steps:
        if step.submit:
            break  # what a form does, and what comes after it, is not for a crowd
        if step.get is not None:
            customer.take(step)
            if customer.page and step.expect.status == 200:
                found.append(Page((customer.page.request.url.raw_path.decode(),), step.expect))
        elif step.pictures:
            sources = [str(image.get("src") or "") for image in customer.soup().select(step.pictures.select)]
            addresses = tuple(dict.fromkeys(source for source in sources if source))
            found += [Page(addresses, picture=True)] if addresses else []
    return found


def run(
    site: Site,
    view_name: str,
    rate: float,
    announce: Callable[[Step], None] = lambda step: None,
    report: Callable[[Step], None] = lambda step: None,
) -> Surge:
    """Ask one view of the site for more and more until `rate`, or until it bends; interrupted, say what was measured.

    The site's lock is held: a recovery is not disturbed, and two surges do not add up to more than was allowed.
    """
    check_allowed(site, rate)
    view = site.data.views[view_name]
    surge = Surge(site.name, view_name, rate)
    with lock.held(site, "probe --surge"), probes.tunnel(site, view) as proxy:
        wanted = pages(site, view, proxy)
        try:
            asyncio.run(_ramp(surge, view, proxy, wanted, announce, report))
        except KeyboardInterrupt:
            surge.interrupted = True
    return surge


async def _ramp(
    surge: Surge,
    view: View,
    proxy: str | None,
    wanted: Sequence[Page],
    announce: Callable[[Step], None],
    report: Callable[[Step], None],
) -> None:
    turn = count()
    async with _crowd(proxy) as client:

        async def ask() -> str:
            lap, index = divmod(next(turn), len(wanted))
            page = wanted[index]
            return await _fetch(client, view, page, page.addresses[lap % len(page.addresses)])

        for step in plan(surge.rate, len(wanted)):
            surge.steps.append(step)
            announce(step)
            await _take(step, ask)
            report(step)
            if step.why:
                return


def _crowd(proxy: str | None) -> httpx.AsyncClient:
    """Give the client of all visitors: each has a connection of his own, and takes no cookie from another."""
    return httpx.AsyncClient(
        timeout=None,  # noqa: S113 (each request has a time of its own, counted from when it was due)
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        proxy=proxy,
        trust_env=False,
        headers={"User-Agent": "hikeshi-surge", "Accept-Language": "en"},
    )


async def _fetch(client: httpx.AsyncClient, view: View, page: Page, address: str) -> str:
    """Fetch one page; return what is wrong with it."""
    try:
        target = probes.inside(view, address)
        async with client.stream("GET", target, headers={"Host": view.host} if view.host else {}) as answer:
            body = bytearray()
            async for chunk in answer.aiter_bytes():
                body += chunk
                if len(body) > probes.PAGE_LIMIT:
                    return f"larger than {probes.PAGE_LIMIT >> 20} MiB"
            return page.wrong(answer, bytes(body))
    except (httpx.HTTPError, httpx.InvalidURL, SOCKSError, OSError) as error:
        return probes.why_no_answer(error)


async def _take(step: Step, ask: Callable[[], Awaitable[str]]) -> None:
    """Ask for one step's requests, each when it is due; stop as soon as it is sure that the shop does not carry it."""
    clock = asyncio.get_running_loop().time
    began = clock()
    waiting: set[asyncio.Task[None]] = set()

    async def one(due: float) -> None:
        step.late_s = max(step.late_s, clock() - began - due)
        try:
            async with asyncio.timeout_at(began + due + ANSWER_S):
                wrong = await ask()
            answer = Answer(due, clock() - began, wrong)
        except TimeoutError:
            answer = Answer(due, clock() - began, f"no answer in {ANSWER_S:g} s", in_time=False)
        step.answers.append(answer)

    look = max(1, int(step.rate / LOOKS))
    async with asyncio.TaskGroup() as group:
        try:
            for number in range(step.requests):
                due = number / step.rate
                await asyncio.sleep(max(0.0, began + due - clock()))
                step.full = len(waiting) >= step.at_once
                if step.full or (number % look == 0 and step.why):
                    break
                task = group.create_task(one(due))
                waiting.add(task)
                task.add_done_callback(waiting.discard)
            while waiting and not step.why:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            step.ended = not step.why
        finally:
            step.cut_off = len(waiting)
            for task in waiting:
                task.cancel()
