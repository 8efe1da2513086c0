"""A flood is told from a surge, within seconds, by evidence; and the counter follows a log through its rotation."""

import io
import json
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hikeshi import site as sites
from hikeshi.access import aside, flood, watch
from hikeshi.access.flood import Judge, Past, Tick, Verdict
from hikeshi.gate import ITEM
from hikeshi.incident import store
from tests.unit.access_counter import program
from tests.unit.access_lines import Lines
from tests.unit.conftest import Project

SEEDS = 100 if os.environ.get("HIKESHI_TEST_ALL") else 5
USUAL = Past(seconds=3600, most=12.0, client=3.0, network=4.0, agent=4.0, path=2.0, assets=0.8)
AGENTS = [f"Mozilla/5.0 Browser/{number}" for number in range(40)]
PAGES = ["/", "/catalogue/", "/basket/", *(f"/catalogue/lantern-{number}/" for number in range(30))]
PICTURES = [f"/media/{number}.jpg" for number in range(60)]


@dataclass
class Street:
    """Who comes in each second."""

    seed: int
    at: int = 1_795_737_600
    closed: bool = False
    draw: random.Random = field(init=False)
    fast: Any = field(default_factory=program.Fast)

    def __post_init__(self) -> None:
        self.draw = random.Random(self.seed)

    def tick(self, *groups: list[tuple[str, str, str]]) -> Tick:
        """Return a second in which these (client, path, agent) came."""
        self.at += 1
        rows = [row for group in groups for row in group]
        second = program.Second()
        second.hits = len(rows)
        second.sorry, second.answered = (second.hits, 0) if self.closed else (0, second.hits)
        second.asked.update(tuple(word.encode() for word in row) for row in rows)
        return flood.tick_of(second.as_data(self.at, self.fast))

    def customers(self, pages: float, networks: int = 200) -> list[tuple[str, str, str]]:
        """People: each reads a page and gets its pictures, and is seldom seen twice."""
        made = []
        for _ in range(int(pages) + (self.draw.random() < pages % 1)):
            client = f"10.{self.draw.randrange(networks)}.{self.draw.randrange(9)}.{self.draw.randrange(250)}"
            agent = self.draw.choice(AGENTS)
            made.append((client, self.draw.choice(PAGES), agent))
            made += [(client, path, agent) for path in self.draw.sample(PICTURES, 4)]
        return made

    def flood(self, client: str, rate: int, path: str = "/") -> list[tuple[str, str, str]]:
        return [(client, path, "python-requests/2.31")] * rate

    def network(self, rate: int) -> list[tuple[str, str, str]]:
        """Another address of the same /48 each time."""
        address = "2001:db8:7:{:x}::{:x}".format
        return [
            (address(self.draw.randrange(65536), self.draw.randrange(65536)), "/catalogue/", "Mozilla/4.0")
            for _ in range(rate)
        ]

    def reloading(self, people: int) -> list[tuple[str, str, str]]:
        """Behind a sorry page: no pictures, always the same path, and everybody tries again."""
        return [
            (f"10.{number % 200}.{number % 9}.{number % 250}", "/", AGENTS[number % 40])
            for number in (self.draw.randrange(people) for _ in range(people // 10))
        ]


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("past", [USUAL, None], ids=["past", "limits"])
def test_ordinary_days_are_quiet(seed: int, past: Past | None) -> None:
    street, judge = Street(seed), Judge(past)
    assert {judge.add(street.tick(street.customers(1.5))).kind for _ in range(300)} == {"quiet"}


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("past", [USUAL, None], ids=["past", "limits"])
def test_a_flood_is_named_within_ten_seconds(seed: int, past: Past | None) -> None:
    street, judge = Street(seed), Judge(past)
    for _ in range(30):
        judge.add(street.tick(street.customers(1.5)))
    began = street.at
    wanted = {"203.0.113.7", "203.0.113.200", "2001:db8:7::/48"}
    for _ in range(10):
        said = judge.add(
            street.tick(
                street.customers(1.5),
                street.flood("203.0.113.7", 40),
                street.flood("203.0.113.200", 35),
                street.network(90),
            )
        )
        if {item.name for item in said.accused} >= wanted:
            break
    assert said.kind == "attack" and street.at - began <= 10
    named = {item.name: item for item in said.accused}
    assert set(named) - wanted <= {"203.0.113.0/24"}, "no customer is accused"
    one, whole = named["203.0.113.7"], named["2001:db8:7::/48"]
    assert began < one.since <= began + 3 and one.path == "/" and one.agent == "python-requests/2.31"
    assert one.rate > one.limit and one.reasons and whole.reasons and whole.addresses > 50
    assert "203.0.113.7" in said.words and "429" in said.cure and "2001:db8:7::/48" in said.cure


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("past", [USUAL, None], ids=["past", "limits"])
def test_a_surge_is_no_attack(seed: int, past: Past | None) -> None:
    """Twenty times as many customers, as on television; nobody is accused."""
    street, judge = Street(seed), Judge(past)
    kinds = set()
    for second in range(120):
        said = judge.add(street.tick(street.customers(min(60, 1.5 + second))))
        kinds.add(said.kind)
        assert said.accused == (), said.words
    assert "surge" in kinds and said.kind == "surge" and "none of which asks unusually much" in said.words


@pytest.mark.parametrize("seed", range(SEEDS))
def test_customers_who_try_again_behind_the_sorry_page_are_no_attack(seed: int) -> None:
    street, judge = Street(seed, closed=True), Judge(USUAL)
    for _ in range(120):
        assert judge.add(street.tick(street.reloading(2000))).accused == ()


def test_an_office_behind_one_address_is_no_attack() -> None:
    street, judge = Street(1), Judge(USUAL)
    for _ in range(60):
        rows = [("192.0.2.1", street.draw.choice(PAGES + PICTURES), street.draw.choice(AGENTS)) for _ in range(20)]
        assert judge.add(street.tick(rows)).accused == ()


def test_one_page_with_many_pictures_is_no_attack() -> None:
    """A past of a quiet night, and the first customer of the morning opens the catalogue."""
    street, judge = Street(1), Judge(Past(3600, 1.0, 0.4, 0.4, 0.4, 0.2, 0.8))
    page = [("192.0.2.1", "/catalogue/", AGENTS[0]), *(("192.0.2.1", path, AGENTS[0]) for path in PICTURES[:14])]
    for _ in range(3):
        assert judge.add(street.tick(page)).accused == ()


def test_a_flood_in_a_surge_is_told_from_it() -> None:
    street, judge = Street(3), Judge(USUAL)
    for second in range(60):
        said = judge.add(street.tick(street.customers(40), street.flood("203.0.113.7", 60) if second > 20 else []))
    assert [item.name for item in said.accused] == ["203.0.113.7"] and said.surge
    assert "more customers than usual" in said.words


PHONES = [f"Mozilla/5.0 Phone/{number}" for number in range(6)]


def everywhere(street: Street, rate: int, path: str, agents: list[str]) -> list[tuple[str, str, str]]:
    """Requests of clients each of which has a /24 of its own."""
    draw = street.draw
    return [
        (f"{20 + number % 9}.{number // 9}.{draw.randrange(256)}.1", path, draw.choice(agents))
        for number in range(rate)
    ]


def television(street: Street, people: int, phones: list[str]) -> list[tuple[str, str, str]]:
    """In a second so many people with the same few phones look at one product, some behind one carrier's addresses."""
    rows = []
    for _ in range(people):
        number = street.draw.randrange(60_000)
        client = f"10.{number % 200}.{number // 256}.{number % 256}" if number % 4 else f"192.0.2.{number % 7}"
        agent = street.draw.choice(phones)
        rows += [(client, path, agent) for path in ("/catalogue/lantern-7/", *PICTURES[:4])]
    return rows


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("past", [USUAL, None], ids=["past", "limits"])
def test_an_agent_that_comes_from_everywhere_is_named(past: Past | None, closed: bool) -> None:
    street, judge = Street(1, closed=closed), Judge(past)
    for _ in range(20):
        judge.add(street.tick(street.customers(1)))
    began = street.at
    for _ in range(10):
        said = judge.add(street.tick(street.customers(1), everywhere(street, 500, "/x", ["evil-bot/1"])))
    assert said.kind == "attack" and not said.surge
    (named,) = said.accused
    assert (named.what, named.name, named.path, round(named.rate)) == ("agent", "evil-bot/1", "/x", 500)
    assert named.since == began + 1 and named.share > 0.9 and "a program, by its own name" in named.words
    assert "agent evil-bot/1" in said.words and "req.hdr(user-agent) -m str -- 'evil-bot/1'" in said.cure


@pytest.mark.parametrize("closed", [False, True])
def test_an_agent_that_calls_itself_a_browser_is_named_for_what_it_does(closed: bool) -> None:
    street, judge = Street(1, closed=closed), Judge(USUAL)
    for _ in range(6):
        said = judge.add(street.tick(street.customers(2), everywhere(street, 300, "/x", ["Mozilla/4.0"])))
    assert [(item.what, item.name) for item in said.accused] == [("agent", "Mozilla/4.0")]
    assert "nearly all that comes has this agent, and 0% of what came before had" in said.accused[0].reasons


def test_a_network_of_several_agents_with_one_path_is_named() -> None:
    street, judge = Street(1), Judge(Past(3600, 5.0, 1.0, 1.0, 2.0, 2.0))
    rows = [(f"203.0.113.{number % 40}", "/x", f"Mozilla/5.0 Any/{number % 3}") for number in range(160)]
    for _ in range(8):
        said = judge.add(street.tick(rows))
    assert [item.name for item in said.accused] == ["203.0.113.0/24"]
    assert said.accused[0].reasons == ("they ask for the same path, /x", "each address asks 4 times a second")


@pytest.mark.parametrize("each", [1, 4])
def test_a_path_asked_for_by_several_agents_from_everywhere_is_named(each: int) -> None:
    """It is called a flood only when the same few ask again and again, without pictures; else it asks much."""
    street, judge = Street(1), Judge(USUAL)
    agents = [f"Mozilla/5.0 Any/{number}" for number in range(4)]
    rows = [(f"20.{number % (160 // each)}.1.1", "/x", agents[number % 4]) for number in range(160)]
    for _ in range(8):
        said = judge.add(street.tick(rows))
    assert said.kind == "attack" and {item.what for item in said.accused} <= {"agent", "path"}
    paths = [item for item in (*said.accused, *said.much) if item.what == "path"]
    assert paths == [] or paths[0].name == "/x"


@pytest.mark.parametrize(
    ("closed", "phones"), [(False, PHONES[:2]), (False, PHONES), (True, PHONES[:3]), (True, PHONES)]
)
@pytest.mark.parametrize("past", [USUAL, None], ids=["past", "limits"])
def test_people_sent_by_television_to_one_product_are_no_attack(
    past: Past | None, closed: bool, phones: list[str]
) -> None:
    """The same few phones, of which hardly any came before; behind the sorry page they get no pictures, either."""
    street, judge = Street(1, closed=closed), Judge(past)
    for second in range(30):
        rows = television(street, min(30 * second, 700), phones)
        said = judge.add(street.tick([row for row in rows if not closed or row[1] not in PICTURES]))
        assert said.accused == (), said.words
    assert said.kind == "surge" and said.cure == ""
    assert "/catalogue/lantern-7/" in {item.name for item in said.much if item.what == "path"}
    assert said.as_data()["much"][0]["rate"] > said.much[0].limit
    assert "nothing says that it is a flood" in said.much[-1].words


def test_an_app_that_never_asks_for_pictures_is_no_flood_when_all_open_it() -> None:
    known = {"okhttp/4.9": flood.Known(share=0.2, assets=0.0)}
    judge = Judge(Past(3600, 12.0, 3.0, 4.0, 4.0, 2.0, 0.6, known))
    street = Street(1)
    for _ in range(10):
        said = judge.add(street.tick(street.customers(4), everywhere(street, 90, "/api/offer", ["okhttp/4.9"])))
    assert said.kind == "surge" and said.accused == ()


def test_pages_whose_pictures_come_from_elsewhere_make_nobody_a_flooder() -> None:
    """Where nobody ever asked for pictures here, that a crowd does not says nothing."""
    judge, street = Judge(Past(3600, 12.0, 3.0, 4.0, 4.0, 2.0, 0.0)), Street(1)
    for _ in range(20):
        rows = [row for row in television(street, 200, PHONES) if row[1] not in PICTURES]
        assert judge.add(street.tick(rows)).accused == ()


@pytest.mark.parametrize("rate", [26, 300])
def test_a_rate_alone_is_shown_and_accuses_nobody(rate: int) -> None:
    """A carrier's address on a quiet day: many agents, pages with their pictures."""
    street, judge = Street(1), Judge(Past(3600, 1.0, 1.0, 1.0, 1.0, 1.0, 0.7))
    for _ in range(30):
        rows = [
            ("192.0.2.1", street.draw.choice(PICTURES if number % 10 < 7 else PAGES), AGENTS[number % 8])
            for number in range(rate)
        ]
        said = judge.add(street.tick(rows))
        assert said.accused == ()
    assert said.much[0].what == "client" and said.much[0].name == "192.0.2.1" and said.much[0].reasons == ()
    assert "192.0.2.1" in said.words and said.cure == "" and "none of which" not in said.words


def test_an_address_with_many_agents_that_asks_for_one_path_only_is_accused() -> None:
    street, judge = Street(1), Judge(USUAL)
    rows = [("192.0.2.1", "/x", AGENTS[number % 8]) for number in range(60)]
    for _ in range(6):
        said = judge.add(street.tick(rows))
    assert [item.name for item in said.accused] == ["192.0.2.1"] and len(said.accused[0].reasons) == 2


def test_who_floods_chooses_no_rule_of_the_load_balancer() -> None:
    item = flood.Accused("agent", "bot' } || { src 0/0", 90.0, 20.0, "over", 0.9, 95, "/", 1.0, "bot", 1, ("one",))
    assert "src" not in Verdict("attack", 100, 90.0, 3.0, (item,)).cure


def test_of_a_second_with_a_million_names_a_few_are_told() -> None:
    second = program.Second()
    for number in range(5000):
        second.asked[b"203.0.113.%d" % (number % 250), b"/%d" % number, b"bot/%d" % number] += 1
    second.asked[b"203.0.113.7", b"/a.png", b"bot/7"] += 9
    second.asked.update({(b"198.51.%d.1" % number, b"/", b"-"): 80 for number in range(50)})
    told = second.as_data(1, program.Fast())
    assert max(len(told[word]) for word in ("clients", "networks", "agents", "paths")) == program.FOLLOWED
    assert told["agents"]["bot/7"] | {"agents": {}} == {
        "hits": 10, "addresses": 1, "assets": 9, "declared": 10, "paths": {"/a.png": 9, "/7": 1}, "agents": {},
    }  # fmt: skip
    assert told["assets"] == 9 and told["addresses"] == 300


def test_of_who_asks_as_customers_do_no_address_leaves_the_host() -> None:
    street = Street(1)
    said = [street.tick(street.customers(40), street.flood("203.0.113.7", 6)) for _ in range(8)]
    named = [(set(tick.clients), set(tick.networks)) for tick in said]
    assert named[0] == (set(), set()) and all(tick.addresses > 20 and tick.agents and tick.paths for tick in said)
    assert set().union(*(clients for clients, _ in named)) == {"203.0.113.7"}


def test_too_short_a_past_is_none() -> None:
    assert Judge(Past(20, 1.0, 1.0, 1.0, 1.0, 1.0)).past is None


@pytest.mark.parametrize(
    "told",
    [None, [], {}, {"at": "x"}, {"at": 1, "hits": -1, "sorry": 0, "addresses": 0, "clients": {}, "networks": {}},
     {"at": 1, "hits": 1, "sorry": 0, "addresses": 1, "clients": {"a": {"hits": True}}, "networks": {}},
     {"at": 1, "hits": 1 << 60, "sorry": 0, "addresses": 1, "clients": [], "networks": {}}],
)  # fmt: skip
def test_what_is_no_tick_is_refused(told: Any) -> None:
    with pytest.raises(ValueError, match="no tick"):
        flood.tick_of(told)


# On the host


def following(log: Path, steps: list[Any]) -> list[dict[str, Any]]:
    """Follow a log while something is done in each second; return what is said."""
    out = io.StringIO()
    reader = program.Reader(program.Cells(b"", program.EVERY_MINUTE))
    todo = iter(steps)
    program.follow(str(log), reader, seconds=len(steps), out=out, pause=lambda _: next(todo)())
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_log_is_followed_through_its_rotation(tmp_path: Path) -> None:
    log, of = tmp_path / "haproxy.log", Lines(1)
    of.pace = 0.5
    log.write_bytes(
        b"".join(of.haproxy(client=b"198.51.100.1", state=b"----", server=b"web1") + b"\n" for _ in range(900))
    )
    evil = of.haproxy(
        client=b"203.0.113.7", request=b"GET /x?1 HTTP/1.1", captures=b"{shop|evil\xff} ", state=b"SC--", status=b"503"
    )

    def write(number: int, cut: int = 0) -> None:
        with log.open("ab") as file:
            data = (evil + b"\n") * number
            file.write(data[: len(data) - cut])

    def rotate() -> None:
        log.rename(tmp_path / "haproxy.log.1")
        write(4)

    def truncate() -> None:
        log.write_bytes(b"")

    def end_line() -> None:
        with log.open("ab") as file:
            file.write(evil[-9:] + b"\n")

    past, *ticks = following(
        log,
        [
            lambda: None,
            lambda: write(50),
            lambda: write(3, 10),
            end_line,
            rotate,
            lambda: None,
            truncate,
            lambda: write(2),
        ],
    )
    assert past["past"]["seconds"] > 300 and past["past"]["client"] > 0
    assert [tick["hits"] for tick in ticks] == [0, 50, 2, 1, 0, 4, 0, 2]
    tick = flood.tick_of(ticks[1])
    assert tick.sorry == 50 and tick.clients["203.0.113.7"].paths == {"/x": 50}
    assert tick.clients["203.0.113.7"].agents == {"evil\\xff": 50} and tick.networks == {}


def test_what_is_followed_is_judged(tmp_path: Path) -> None:
    """The host's words, read back, accuse the right one; checks and probes are nobody."""
    log, of = tmp_path / "haproxy.log", Lines(2)
    log.write_bytes(b"")
    line = of.haproxy(
        client=b"203.0.113.7", request=b"GET / HTTP/1.1", captures=b"{shop|bad} ", state=b"----", status=b"200"
    )
    check = of.haproxy(client=b"192.0.2.9", captures=b"{shop|hikeshi-health-check} ", state=b"----", status=b"200")

    def write() -> None:
        with log.open("ab") as file:
            file.write((line + b"\n") * 70 + (check + b"\n") * 90)

    past, *ticks = following(log, [write] * 8)
    judge = Judge(flood.past_of(past["past"]))
    verdicts: list[Verdict] = [judge.add(flood.tick_of(tick)) for tick in ticks]
    assert [item.name for item in verdicts[-1].accused][:1] == ["203.0.113.7"]
    assert "stated limit" in verdicts[-1].accused[0].basis


def test_an_agent_from_everywhere_is_named_from_the_log_alone(tmp_path: Path) -> None:
    """Five a second were usual; now a hundred times as many come, each from a network of its own."""
    log, of = tmp_path / "haproxy.log", Lines(3)

    def line(number: int, agent: bytes, path: bytes) -> bytes:
        client = b"20.%d.%d.1" % (number // 250, number % 250)
        date = b"27/Nov/2026:09:%02d:%02d.000" % divmod(number // 5 % 3600, 60)
        request = b"GET %b HTTP/1.1" % path
        more = {"state": b"----", "status": b"200", "captures": b"{shop|%b} " % agent}
        return of.haproxy(client=client, date=date, request=request, **more) + b"\n"

    log.write_bytes(
        b"".join(line(number, AGENTS[number % 9].encode(), b"/%d" % (number % 7)) for number in range(1500))
    )

    def write() -> None:
        with log.open("ab") as file:
            file.write(b"".join(line(number, b"evil-bot/1", b"/x") for number in range(500)))

    past, *ticks = following(log, [write] * 6)
    judge = Judge(flood.past_of(past["past"]))
    verdicts = [judge.add(flood.tick_of(tick)) for tick in ticks]
    assert judge.past and judge.past.most == 5.0 and verdicts[-1].kind == "attack"
    assert [(item.what, item.name) for item in verdicts[-1].accused] == [("agent", "evil-bot/1")]
    assert all(tick["clients"] == {} for tick in ticks)  # nobody of them asks so often that an address need be told


def test_all_who_watch_are_told_and_one_writes(project: Project) -> None:
    site, told = sites.load(), list[Verdict]()
    seats = [watch.Seat(site, watch.WRITER) for _ in range(2)]
    flooded = Verdict("attack", 100, 90.0, 3.0, (accused("203.0.113.7"),))
    for seat in seats:
        watch.Watch(site, told.append, seat).take(flooded)
    assert told == [flooded] * 2
    assert [record.kind for record in store.journal(site).records()].count("flood") == 1
    seats[0].leave()
    watch.Watch(site, told.append, seats[1]).take(flooded)  # whoever is left writes from now on
    assert [record.kind for record in store.journal(site).records()].count("flood") == 2


def accused(name: str) -> flood.Accused:
    return flood.Accused("client", name, 90.0, 20.0, "over the limit", 0.9, 95, "/", 1.0, "curl", 1, ("the same path",))


@pytest.mark.parametrize("ends", ["opened", "expired", "never closed"])
def test_the_watch_aside_ends_with_the_gate(project: Project, monkeypatch: pytest.MonkeyPatch, ends: str) -> None:
    site, followed = sites.load(), 0
    if ends != "never closed":
        until = time.time() + (0.2 if ends == "expired" else 60)
        closed = {"item": ITEM, "words": "the gate is closed", "close": "hikeshi sorry off", "until": until}
        store.journal(site).append("item.opened", closed)
    monkeypatch.setattr(aside, "ASK_S", 0)

    def follow(_: Any, tell: Any, *, each: Any) -> None:
        nonlocal followed
        while True:
            followed += 1
            if followed == 5 and ends == "opened":
                store.journal(site).append("item.closed", {"item": ITEM, "words": "the gate is open"})
            each()

    monkeypatch.setattr(watch, "follow", follow)
    assert aside.main("shop") == 0
    assert (followed > 0) == (ends != "never closed")


def test_a_second_watch_aside_ends_at_once(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    site = sites.load()
    first = watch.Seat(site, aside.PLACE)
    assert first.taken()
    monkeypatch.setattr(watch, "follow", lambda *_, **__: pytest.fail("two watch"))
    assert aside.main("shop") == 0
    first.leave()


def test_a_flood_of_before_does_not_make_the_next_one_usual() -> None:
    assert program.usual([5] * 57 + [900] * 3) == 5
    assert program.usual([3, 9, 4]) == 9  # of a short past nothing is left out


def past(
    seconds: int, who: dict[str, Callable[[int], int]], path: Callable[[int], bytes], crowd: bytes = b"a"
) -> dict[str, Any]:
    """The past of a log in which these clients ask so often in each of its seconds; those of 203.0 have their agent."""
    of, lines = Lines(5), [b""]
    for at in range(seconds):
        when = b"27/Nov/2026:09:%02d:%02d.000" % divmod(at, 60)
        for client, hits in who.items():
            request = b"GET %b HTTP/1.1" % path(at)
            agent = crowd if client.startswith("203.0.") else b"a"
            line = of.haproxy(
                client=client.encode(), date=when, request=request, captures=b"{shop|%b} " % agent, state=b"----"
            )
            lines += hits(at) * [line]
    told: dict[str, Any] = program.past_of(
        b"\n".join([*lines, b""]), program.Reader(program.Cells(b"", program.EVERY_MINUTE))
    )
    return told


def test_a_flood_of_a_short_past_is_not_usual_but_a_program_that_polls_is() -> None:
    people = {"198.51.100.7": lambda at: at % 3}
    flooder = {"203.0.113.9": lambda at: 60 * (100 <= at < 130)}
    poller = {"192.0.2.4": lambda at: 20}
    crowd = {f"203.0.113.{number}": (lambda at: int(100 <= at < 130)) for number in range(60)}
    calm = past(240, people, lambda at: b"/")
    assert past(240, people | flooder, lambda at: b"/") == calm
    assert past(240, people | crowd, lambda at: b"/x")["network"] == calm["network"]
    assert past(240, people | poller, lambda at: b"/")["client"] == 100
    # Many pages, one after the other: no flood of one path, and so what a client may do.
    assert past(240, people | flooder, lambda at: b"/%d" % at)["client"] == 300


def test_the_past_tells_agents_and_paths_too() -> None:
    people = {f"198.51.{number}.7": lambda at: 1 for number in range(4)}
    told = past(120, people, lambda at: b"/a.png" if at % 2 else b"/")
    assert told["agent"] == 20 and told["path"] == 12 and told["agents"] == {"a": [480, 240]}
    usual = flood.past_of(told)
    assert usual.assets == 0.5 and usual.agents == {"a": flood.Known(1.0, 0.5)} and usual.agent == 4.0
    # Sixty networks with one agent and one path, for a while: that was a flood.
    crowd = {f"203.0.{number}.1": (lambda at: int(60 <= at < 90)) for number in range(60)}
    assert past(120, people | crowd, lambda at: b"/x", b"evil")["agent"] < 300


@pytest.mark.parametrize("told", [None, {}, {"seconds": 1, "most": -1}])
def test_what_is_no_past_is_refused(told: Any) -> None:
    with pytest.raises(ValueError, match="no past"):
        flood.past_of(told)


def test_a_lesser_trouble_is_told_when_it_grows(project: Project) -> None:
    site, told = sites.load(), list[Verdict]()
    watched = watch.Watch(site, told.append, watch.Seat(site, watch.WRITER))
    for kind in ("much", "surge", "much", "attack", "surge"):
        watched.take(Verdict(kind, 100, 90.0, 3.0))
    assert [item.kind for item in told] == ["much", "surge", "attack"]


def test_what_was_usual_is_said_only_where_there_is_a_past() -> None:
    said = [Judge(past).add(Street(1).tick()).words for past in (USUAL, None)]
    assert said == ["nothing unusual: 0 requests/s"] * 2
    rushed = [Verdict("surge", 1, 90.0, past).words for past in (12.0, None)]
    assert "up to 12 were usual before" in rushed[0] and "no past to compare with" in rushed[1]
