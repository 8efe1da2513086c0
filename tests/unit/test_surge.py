"""The load probe: its judgement on made-up answers, its sending against real servers on loopback."""

import asyncio
import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hikeshi import lock, probes, surge
from hikeshi.errors import ExitStatus, HikeshiError, MisconfiguredError, RefusedError, UsageError
from hikeshi.incident import store
from hikeshi.site import MOST_SURGE, Expect, Site, load
from hikeshi.surge import Answer, Page, Step, Surge
from tests.unit.commands import hikeshi
from tests.unit.conftest import SITE, Project
from tests.unit.shop import COUNT, Shop
from tests.unit.test_probes import PROBES as ALL_PROBES

TOP, PICTURES, CART = ALL_PROBES["probes"]
PROBES = {"probes": [TOP, PICTURES, {**CART, "effects": "cart"}]}
BOUND = {"most": 100, "why": "a test, on loopback"}


class Server:
    """Counts what it is asked, and answers as `behave` says: a function of the how-manieth request it is."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []  # method, path, cookie
        self.behave: Any = lambda number: 200
        server = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                server.asked.append((self.command, self.path, self.headers.get("Cookie", "")))
                status = server.behave(len(server.asked))
                with contextlib.suppress(OSError):  # a visitor who went away
                    self.send_response(status)
                    self.send_header("Set-Cookie", "session=one; Path=/")
                    self.send_header("Content-Length", "7")
                    self.end_headers()
                    self.wfile.write(b"Lantern")

        class Many(ThreadingHTTPServer):
            request_queue_size = 256
            daemon_threads = True

        self.http = Many(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    threading.Thread(target=running.http.serve_forever, args=(0.05,), daemon=True).start()
    yield running
    running.http.shutdown()
    running.http.server_close()


def site_of(project: Project, url: str, **more: Any) -> Site:
    project.site({**SITE, "views": dict.fromkeys(("customer", "direct"), {"url": url}), "surge": BOUND, **more})
    return load()


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short steps, and no judgement on a growing queue: other work on this machine must not look like one."""
    for name, value in {"SHORT_S": 0.5, "LONG_S": 1.0, "GROWTH_S": 60.0}.items():
        monkeypatch.setattr(surge, name, value)


def steady(rate: float, requests: int, seconds: float = 0.1) -> Step:
    """A step in which every answer takes as long."""
    step = Step(rate, requests, ended=True)
    step.answers = [Answer(number / rate, number / rate + seconds) for number in range(requests)]
    return step


# --- what is planned


def test_ramp_has_three_short_steps_and_a_long_one() -> None:
    assert [(step.rate, step.requests) for step in surge.plan(20)] == [(5, 10), (10, 20), (15, 30), (20, 120)]


def test_steps_that_say_nothing_are_left_out() -> None:
    assert [(step.rate, step.requests) for step in surge.plan(4)] == [(3, 6), (4, 24)]
    assert [(step.rate, step.requests) for step in surge.plan(1)] == [(1, 6)]


@given(st.floats(1, MOST_SURGE))
def test_any_ramp_is_bounded(rate: float) -> None:
    steps = surge.plan(rate)
    assert steps[-1].rate == rate
    assert all(step.rate <= rate and step.at_once <= 200 for step in steps)
    assert sum(step.requests for step in steps) <= 9 * rate + len(steps)
    assert sum(step.seconds for step in steps) <= 13


@pytest.mark.parametrize("words", ["0", "-3", "nan", "inf", "-inf", "many", "", "0.5", "201", "20/s", "1e9"])
def test_rate_that_is_none_is_a_usage_error(words: str) -> None:
    with pytest.raises(UsageError, match="allowed: requests per second, from 1 to 200") as caught:
        surge.parse_rate(words)
    assert f"'{words}'" in caught.value.message


@pytest.mark.parametrize("words", ["1", "20", "12.5", "200"])
def test_rate_is_a_number(words: str) -> None:
    assert surge.parse_rate(words) == float(words)


# --- what is judged


def test_steady_answers_are_carried() -> None:
    step = steady(20, 120, 0.3)
    assert step.carried
    assert [step.p50, step.p95, step.achieved] == pytest.approx([0.3, 0.3, 20])


def test_quantiles_are_those_of_the_waiting() -> None:
    step = Step(20, 20)
    step.answers = [Answer(0, float(seconds)) for seconds in range(20, 0, -1)]
    assert (step.p50, step.p95) == (10.5, 19)
    step.answers = [Answer(0, 4.0)]
    assert (step.p50, step.p95) == (4, 4)
    step.answers = []
    assert (step.p50, step.p95, step.achieved, step.why) == (None, None, 0, "")


def test_p95_beyond_the_limit_is_not_carried() -> None:
    step = steady(20, 120)
    for number in range(6):
        step.answers[number * 20] = Answer(number, number + 2.5)
    assert step.carried
    step.answers[7] = Answer(7 / 20, 7 / 20 + 2.5)
    assert step.why == "p95 of 2.5 s, more than 2.0 s"


def test_errors_are_counted_by_kind() -> None:
    step = steady(20, 120)
    step.answers[3:5] = [Answer(1, 1.01, "status 503")] * 2
    assert step.carried
    step.answers[5:7] = [Answer(1, 1.01, "status 503"), Answer(1, 4, "no answer in 3 s", in_time=False)]
    assert step.why == "3 × status 503, 1 × no answer in 3 s"
    assert step.errors == {"status 503": 3, "no answer in 3 s": 1}


def test_fast_errors_do_not_make_the_shop_look_fast() -> None:
    step = steady(20, 40, 0.8)
    step.answers += [Answer(1, 1.001, "status 503")] * 400
    assert step.p50 == pytest.approx(0.8)


def test_growing_queue_is_seen_long_before_it_is_slow() -> None:
    step = Step(20, 120, ended=True)
    step.answers = [Answer(number / 20, number / 20 + 0.1 + number / 20 * 0.2) for number in range(120)]
    assert step.p95 is not None and step.p95 < surge.SLOW_S
    assert "a queue grows" in step.why
    assert step.achieved == pytest.approx(20 / 1.2)  # what such a shop really answers


def test_slower_answers_are_no_queue_while_all_come() -> None:
    step = Step(20, 120, ended=True)
    step.answers = [Answer(number / 20, number / 20 + (0.1 if number < 60 else 0.5)) for number in range(120)]
    assert step.carried


def test_heavy_and_light_pages_are_no_queue() -> None:
    step = Step(5, 10, cycle=3, ended=True)
    step.answers = [Answer(number / 5, number / 5 + (1.5 if number % 3 == 2 else 0.01)) for number in range(10)]
    assert step.carried


def test_many_waiting_at_once_is_not_carried() -> None:
    step = Step(20, 120, full=True)
    assert step.why == "40 requests waited for an answer at one time"


def test_verdict_is_one_sentence() -> None:
    done = Surge("shop", "customer", 20, [steady(15, 30), steady(20, 120)])
    assert done.carried
    assert done.verdict == "carries 20 requests/s with p95 of 0.10 s; that is all it was asked for"
    done.steps[1].answers = [Answer(0, 0.1, "status 503")] * 120
    assert not done.carried
    assert done.verdict == (
        "carries 15 requests/s with p95 of 0.10 s; saturates at 20 (it answered 0.0/s): 120 × status 503"
    )
    assert Surge("shop", "customer", 20, done.steps[1:]).verdict.startswith("saturates already at 20 (")
    assert Surge("shop", "customer", 20).verdict == "nothing is known yet; stopped before 20 requests/s"
    assert Surge("shop", "customer", 20, [steady(15, 30)], interrupted=True).verdict == (
        "carries 15 requests/s with p95 of 0.10 s; stopped before 20 requests/s"
    )


@pytest.mark.parametrize(
    ("status", "kind", "body", "page", "wrong"),
    [
        (200, "text/html", b"Lantern", Page(("/",), Expect(contains=["Lantern"])), ""),
        (200, "text/html", b"Sorry", Page(("/",), Expect(contains=["Lantern"])), "another page than the right one"),
        (200, "text/html", b"Lantern", Page(("/",), Expect(lacks=["Lantern"])), "another page than the right one"),
        (200, "text/html; charset=nosuch", b"\xff", Page(("/",), Expect(contains=["L"])), "another page"),
        (503, "text/html", b"Lantern", Page(("/",)), "status 503"),
        (302, "text/html", b"", Page(("/",)), "status 302"),
        (200, "image/jpeg", b"x", Page(("/1.jpg",), picture=True), ""),
        (200, "image/jpeg", b"", Page(("/1.jpg",), picture=True), "no picture"),
        (200, "text/html", b"x", Page(("/1.jpg",), picture=True), "no picture"),
    ],
)
def test_answer_must_be_the_right_one(status: int, kind: str, body: bytes, page: Page, wrong: str) -> None:
    answer = httpx.Response(status, headers={"content-type": kind}, content=body)
    assert page.wrong(answer, body).startswith(wrong) and bool(page.wrong(answer, body)) == bool(wrong)


# --- what is asked for


def test_pages_are_what_probes_without_effects_read(project: Project, shop: Shop) -> None:
    project.probes(PROBES)
    site = site_of(project, shop.url, surge={**BOUND, "pages": ["/product/seven", "/"]})
    found = surge.pages(site, site.data.views["customer"], None)
    assert [page.addresses for page in found] == [
        ("/",), ("/catalogue/",), tuple(f"/media/{n}.jpg" for n in range(COUNT)), ("/product/seven",),
    ]  # fmt: skip
    assert [page.picture for page in found] == [False, False, True, False]
    assert all(cart == {} for cart in shop.carts.values())


def test_nothing_behind_a_form_is_read(project: Project, shop: Shop) -> None:
    steps = [{"get": "/product/seven"}, {"submit": {"form": "#add"}}, {"get": "/cart"}]
    project.probes({"probes": [{"id": "form", "title": "A form", "steps": steps}]})
    site = site_of(project, shop.url)
    assert [page.addresses for page in surge.pages(site, site.data.views["customer"], None)] == [("/product/seven",)]


def test_pages_that_should_fail_are_not_asked_for(project: Project, shop: Shop) -> None:
    hidden = {"id": "hidden", "title": "Not shown", "steps": [{"get": "/admin", "expect": {"status": 404}}]}
    project.probes({"probes": [hidden]})
    site = site_of(project, shop.url)
    with pytest.raises(MisconfiguredError, match="no probe of site shop reads a page without effects"):
        surge.pages(site, site.data.views["customer"], None)


@pytest.mark.parametrize("address", ["//elsewhere.example/", "http://elsewhere.example/", "top", "/a b"])
def test_pages_named_are_the_shops_own(project: Project, address: str) -> None:
    with pytest.raises(MisconfiguredError, match=r"surge\.pages"):
        site_of(project, "http://127.0.0.1:1", surge={**BOUND, "pages": [address]})


def test_address_on_a_page_does_not_lead_elsewhere(project: Project, server: Server) -> None:
    """A picture `https://shop.example//elsewhere.example/x.jpg` has a path that reads like another's address."""
    site = site_of(project, server.url)

    async def fetch() -> str:
        async with surge._crowd(None) as client:
            page = Page(("https://shop.example//elsewhere.example/x.jpg",))
            return await surge._fetch(client, site.data.views["customer"], page, page.addresses[0])

    assert asyncio.run(fetch()) == ""
    ((method, path, _),) = server.asked
    assert (method, path.lstrip("/")) == ("GET", "elsewhere.example/x.jpg")


# --- sending


def test_steady_server_carries(short: None, project: Project, server: Server) -> None:
    site = site_of(project, server.url)
    reported: list[Step] = []
    done = surge.run(site, "customer", 20, report=reported.append)
    assert done.carried, done.as_data()
    assert done.late_s < 5
    assert reported == done.steps
    assert [step.rate for step in done.steps] == [10, 15, 20]  # 5/s for half a second say nothing
    assert len(server.asked) == 1 + sum(step.requests for step in done.steps)
    assert {method for method, _, _ in server.asked} == {"GET"}
    assert {cookie for _, _, cookie in server.asked} == {""}, "each request must be a new visitor's"


def test_pages_and_pictures_take_turns(short: None, project: Project, shop: Shop) -> None:
    project.probes(PROBES)
    asked: list[str] = []
    taken = shop.server.RequestHandlerClass.do_GET  # type: ignore[attr-defined]

    def counting(handler: Any) -> None:
        asked.append(handler.path)
        taken(handler)

    shop.server.RequestHandlerClass.do_GET = counting  # type: ignore[attr-defined]
    done = surge.run(site_of(project, shop.url), "customer", 12)
    assert done.carried, done.as_data()
    ramp = asked[2:]  # the first two were one visitor's, to see that there is something to read
    assert ramp.count("/") == ramp.count("/catalogue/") == 4
    assert {path for path in ramp if "media" in path} == set(shop.pictures)
    assert "/cart" not in ramp


def test_server_with_a_capacity_saturates_and_the_ramp_ends(project: Project, server: Server) -> None:
    one = threading.Lock()

    def behave(number: int) -> int:
        with one:
            time.sleep(0.03)  # about 30 requests a second, or fewer
        return 200

    server.behave = behave
    done = surge.run(site_of(project, server.url), "customer", 100)
    assert not done.carried
    assert done.bent and done.bent is done.steps[-1]
    assert done.bent.achieved < 45
    assert len(server.asked) < 200, "a shop that cannot must not be asked for all 450"


def test_server_that_breaks_down_is_left_alone(short: None, project: Project, server: Server) -> None:
    server.behave = lambda number: 200 if number <= 10 else 503
    done = surge.run(site_of(project, server.url), "customer", 40)
    assert not done.carried and done.bent
    assert set(done.bent.errors) == {"status 503"}
    assert "status 503" in done.verdict
    assert len(server.asked) < 40


def test_shop_that_is_down_is_asked_once(project: Project, server: Server) -> None:
    server.behave = lambda number: 503
    with pytest.raises(HikeshiError, match="does not carry one visitor: / answered 503") as caught:
        surge.run(site_of(project, server.url), "customer", 20)
    assert caught.value.status == ExitStatus.FAILED
    assert len(server.asked) == 1


def test_refused_connection_is_said(project: Project) -> None:
    with pytest.raises(HikeshiError, match="connection refused"):
        surge.run(site_of(project, f"http://127.0.0.1:{probes.free_port()}"), "customer", 20)


def test_connection_refused_in_the_middle(short: None, project: Project, server: Server) -> None:
    site = site_of(project, server.url)

    def gone(step: Step) -> None:
        if step.rate == 40:
            server.http.shutdown()
            server.http.server_close()

    done = surge.run(site, "customer", 40, announce=gone)
    assert done.best and done.best.rate == 30
    assert done.bent and set(done.bent.errors) == {"connection refused or failed"}


def test_time_counts_from_when_a_request_was_due(
    short: None, project: Project, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server stands still once. A client that waits for each answer sees one slow request, customers see many."""
    monkeypatch.setattr(surge, "SHARES", ())
    until: list[float] = []

    def behave(number: int) -> int:
        if number == 11:
            until.append(time.monotonic() + 0.6)
        while until and time.monotonic() < until[0]:
            time.sleep(0.01)
        return 200

    server.behave = behave
    done = surge.run(site_of(project, server.url), "customer", 40)
    (step,) = done.steps
    assert sum(item.seconds > 0.2 for item in step.answers) >= 5
    assert step.p95 is not None and step.p95 > 0.4


def test_own_delay_counts_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine is busy for half a second: those whose requests were due waited, and the figures say whose fault."""

    async def ask() -> str:
        if not taken:
            time.sleep(0.5)  # nothing else runs meanwhile, as on a machine without a free core
        taken.append(1)
        return ""

    taken: list[int] = []
    step = Step(20, 20)
    asyncio.run(surge._take(step, ask))
    assert len(step.answers) == 20
    assert step.late_s > 0.3
    assert sum(item.seconds > 0.1 for item in step.answers) >= 5


def test_silent_server_ends_the_ramp(project: Project, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surge, "ANSWER_S", 0.5)
    release = threading.Event()
    server.behave = lambda number: 200 if number == 1 or release.wait(30) else 200
    done = surge.run(site_of(project, server.url), "customer", 40)
    release.set()
    assert len(done.steps) == 1
    assert set(done.steps[0].errors) == {"no answer in 0.5 s"}
    assert done.steps[0].p95 is not None and done.steps[0].p95 >= 0.5
    assert len(server.asked) <= 1 + done.steps[0].requests


def test_no_more_wait_at_once_than_allowed(project: Project, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surge, "AT_ONCE", (3, 3))
    release = threading.Event()
    server.behave = lambda number: 200 if number == 1 or release.wait(30) else 200
    done = surge.run(site_of(project, server.url), "customer", 40)
    release.set()
    assert done.verdict.endswith("3 requests waited for an answer at one time")
    assert done.steps[0].cut_off == 3
    assert len(server.asked) <= 4


def test_a_defect_is_not_swallowed() -> None:
    async def ask() -> str:
        raise ZeroDivisionError("of ours")

    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(surge._take(Step(50, 10), ask))
    assert isinstance(caught.value.exceptions[0], ZeroDivisionError)


# --- what is refused, and how it ends


def test_real_site_is_asked_for_nothing_by_default(project: Project, server: Server) -> None:
    with pytest.raises(RefusedError, match="shop is a real site that allows none") as caught:
        surge.run(site_of(project, server.url, surge=None), "customer", 20)
    assert "inventories/shop/site.yml" in caught.value.fix
    assert server.asked == []


def test_real_site_is_asked_for_no_more_than_it_allows(project: Project, server: Server) -> None:
    bound = {"most": 10, "why": "Hanako, 2026-01-15"}
    with pytest.raises(RefusedError, match=r"20 requests/s are more than .* allows: up to 10 \(Hanako") as caught:
        surge.run(site_of(project, server.url, surge=bound), "customer", 20)
    assert caught.value.fix == "hikeshi probe --surge 10 --site shop"
    assert server.asked == []


@pytest.mark.parametrize("bound", [{"most": 10}, {"most": 10, "why": ""}, {"most": 201, "why": "x"}, {"most": 0}])
def test_bound_must_be_whole(project: Project, bound: dict[str, Any]) -> None:
    with pytest.raises(MisconfiguredError, match="surge"):
        site_of(project, "http://127.0.0.1:1", surge=bound)


def test_site_that_is_being_changed_is_not_disturbed(project: Project, server: Server) -> None:
    site = site_of(project, server.url)
    with lock.held(site, "recover"), pytest.raises(RefusedError, match="is being changed by"):
        surge.run(site, "customer", 20)
    assert server.asked == []


def test_command_that_carries_is_0_and_json_is_whole(
    short: None, project: Project, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    site = site_of(project, server.url)
    assert hikeshi(monkeypatch, "probe", "--surge", "20", "--json") == ExitStatus.DONE
    told = capsys.readouterr()
    data = json.loads(told.out)
    assert data.keys() == {
        "site", "view", "rate", "carried", "carries", "saturates", "interrupted", "verdict", "late_s", "steps",
    }  # fmt: skip
    assert (data["site"], data["view"], data["rate"]) == ("shop", "customer", 20)
    assert (data["carried"], data["carries"], data["saturates"], data["interrupted"]) == (True, 20, None, False)
    last = data["steps"][-1]
    assert last.keys() == {
        "asked", "achieved", "requests", "right", "cut_off", "p50_s", "p95_s", "errors", "carried", "why",
    }  # fmt: skip
    assert (last["asked"], last["requests"], last["right"], last["cut_off"]) == (20, 20, 20, 0)
    assert 0 < last["p50_s"] <= last["p95_s"]
    assert "asking for 20 requests/s" in told.err
    begun, ended = store.journal(site).records()[-2:]
    assert (begun.kind, begun.data) == ("probe.start", {"views": ["customer"], "surge": 20})
    assert (ended.kind, ended.data["carried"]) == ("probe.end", True)


def test_command_that_bends_is_1_and_says_where(
    short: None, project: Project, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    site_of(project, server.url)
    server.behave = lambda number: 200 if number <= 6 else 503
    assert hikeshi(monkeypatch, "probe", "--surge", "20", "--direct") == ExitStatus.FAILED
    told = capsys.readouterr()
    assert "carries 10 requests/s with p95 of" in told.out
    assert "saturates at 15" in told.out
    assert "view direct" in told.err


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["--surge", "0"], ExitStatus.USAGE),
        (["--surge", "-1"], ExitStatus.USAGE),
        (["--surge", "nan"], ExitStatus.USAGE),
        (["--surge", "lots"], ExitStatus.USAGE),
        (["--surge"], ExitStatus.USAGE),
        (["--surge", "20", "top"], ExitStatus.USAGE),
        (["--surge", "20", "--everywhere"], ExitStatus.USAGE),
        (["--surge", "20", "--record-pictures"], ExitStatus.USAGE),
        (["--surge", "20"], ExitStatus.REFUSED),
    ],
)
def test_command_that_asks_for_nothing(
    project: Project, monkeypatch: pytest.MonkeyPatch, words: list[str], status: ExitStatus
) -> None:
    assert hikeshi(monkeypatch, "probe", *words) == status


@pytest.mark.parametrize("how", [[], ["--json"]])
def test_interrupted_ramp_says_what_it_measured(
    short: None, project: Project, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: Any, how: list[str]
) -> None:
    site_of(project, server.url)

    def behave(number: int) -> int:
        if number == 20:  # 1 + 5 + 7 of them come before the last step
            signal_us()
        return 200

    server.behave = behave
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background begins with it ignored
    assert hikeshi(monkeypatch, "probe", "--surge", "20", *how) == ExitStatus.INTERRUPTED
    told = capsys.readouterr()
    if how:
        data = json.loads(told.out)
        assert (data["interrupted"], data["carried"], data["carries"]) == (True, False, 15)
    else:
        assert "carries 15 requests/s" in told.out
        assert "stopped before 20 requests/s" in told.out
    asked = len(server.asked)
    assert asked < 33, "it must stop at once"


def signal_us() -> None:
    """Do what Ctrl-C does."""
    os.kill(os.getpid(), signal.SIGINT)
