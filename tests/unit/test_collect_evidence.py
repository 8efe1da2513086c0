"""The collector against what hosts hold: hostile environment files, servers that say too much, nonsense or nothing."""

import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.templates.rendering import render
from tests.unit.host_program import loaded

SOURCE = Path(__file__).parents[2] / "roles" / "evidence" / "library" / "collect_evidence.py"
SOCKET = "/run/mysqld/mysqld.sock"
NAMES = {"user": "DB_USER", "password": "DB_PASSWORD", "name": "DB_NAME", "socket": "DB_SOCKET"}
SECRET = "a canary that nothing may show"  # noqa: S105
FILE = f'DB_USER="shop"\nDB_PASSWORD="{SECRET}"\nDB_NAME="shop"\nDB_SOCKET="{SOCKET}"\n'
DENIED = "ERROR 1045 (28000): Access denied for user 'shop'@'localhost' (using password: YES)"
COUNTS = "60\n3\t1\n"
Done = tuple[int, str, str]


COLLECT = loaded(SOURCE)
STATE = loaded(SOURCE.parents[1] / "module_utils" / "hikeshi_state.py")


class Client:
    """Stands where the mariadb client would: remembers how it was called, says what it is told to say."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []
        self.settings: list[bytes] = []
        self.says: Callable[[], Done | None] = lambda: (0, COUNTS, "")

    def __call__(self, *words: str, source: str = "", keep: tuple[int, ...] = ()) -> Done | None:
        self.calls.append(words)
        for handle in keep:
            # For all to write, the real client ignores it, and logs in as whoever runs it.
            assert os.fstat(handle).st_mode & 0o077 == 0
            assert f"--defaults-file=/proc/self/fd/{handle}" in words
            self.settings.append(os.pread(handle, 100000, 0))
        return self.says()


@pytest.fixture
def collector() -> Any:
    found = COLLECT.Collector()
    found.unseen.clear()
    found.command = Client()
    return found


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(COLLECT.time, "sleep", lambda seconds: None)


def databases(collector: Any) -> Any:
    return collector.databases([{"database": {"socket": SOCKET}}, {"units": []}]).get(SOCKET)


def login(collector: Any, tmp_path: Path, text: str = FILE) -> Any:
    file = tmp_path / "shop.env"
    file.write_bytes(text.encode(errors="surrogateescape"))
    return collector.logins([{"login": {"environment": str(file), **NAMES}}]).get(str(file))


# As systemd 252 reads them; the last two are how checkout_service writes values.
ENVIRONMENT = [
    ("A=b\n", "b"),
    (" A = b c \n", "b c"),
    ("A=\n", ""),
    ("A=b#c\n", "b#c"),
    ("A='b \\n \"c\"'\n", 'b \\n "c"'),
    ("A=\"b\" 'c'd\n", "bcd"),
    ("A=b'c\"d\n", "b'c\"d"),
    ("A=\\ b\\\nc\n", " bc"),
    ('A="two\nlines"\n', "two\nlines"),
    ("A=first\nA=last\nA\n#A=comment\n;A=comment\n", "last"),
    ("A=b\r\nB=c\r\n", "b"),
    ("A=b\0A=c\n", "b"),
    ("A=b\x85c\u2028d\x0be\n", "b\x85c\u2028d\x0be"),
    (r'A="\" \\ \` \$ \n"', '" \\ ` $ \\n'),
    ('A="火消し 🚒"', "火消し 🚒"),
]


@pytest.mark.parametrize(("text", "value"), ENVIRONMENT)
def test_environment_file_is_read_as_systemd_reads_it(text: str, value: str) -> None:
    assert COLLECT.environment(text)["A"] == value


@settings(deadline=None)  # rendering takes its time on a busy machine
@given(st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"])))
def test_environment_file_is_read_as_the_shops_role_writes_it(value: str) -> None:
    written = render("checkout_service", "checkout.env.j2", checkout_service_environment={"A": value, "B": "b"})
    assert COLLECT.environment(written) == {"A": value, "B": "b"}


@given(st.text(st.sampled_from("A=\"'\\ \n#b$"), max_size=60))
def test_any_environment_file_can_be_read(text: str) -> None:
    assert all(not {"=", "\n"} & set(name) for name in COLLECT.environment(text))


@pytest.mark.parametrize("text", ["\n" * 20000, 'A="\n' * 5000, "A='\\" * 5000, "A" * 20000, 'A=""' + '""\\' * 6000])
def test_environment_file_made_to_take_long_does_not(text: str) -> None:
    before = time.monotonic()
    COLLECT.environment(text)
    assert time.monotonic() - before < 2


def options(settings: bytes) -> dict[str, str]:
    """Read an option file as MariaDB's clients do (mysys/my_default.c); fails on anything but options of one group."""
    lines = settings.decode().removesuffix("\n").split("\n")
    assert lines[0] == "[client]"
    found, escapes = {}, {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "s": " "}
    for line in lines[1:]:
        assert len(line.encode()) < 4000, "the client reads 4096 bytes at a time"
        match = re.fullmatch(r'([a-z]+)="((?:\\.|[^"\\])*)"', line, re.DOTALL)
        assert match, line
        found[match[1]] = re.sub(r"(?s)\\(.)", lambda seen: escapes.get(seen[1], seen[1]), match[2])
    return found


def test_login_is_tried_as_the_program_would(collector: Any, tmp_path: Path) -> None:
    assert login(collector, tmp_path) == {"ok": True, "code": 0, "message": ""}
    assert options(collector.command.settings[0]) == {"user": "shop", "password": SECRET, "database": "shop"}
    (words,) = collector.command.calls
    assert f"--socket={SOCKET}" in words
    assert {"--skip-local-infile", "--connect-timeout=3"} <= set(words), "a hostile server asks for files, or hangs"
    assert SECRET not in str(words), "every user of the host may read the list of processes"


VALUES = st.text(st.characters(exclude_characters="\r\0", exclude_categories=["Cs"]), min_size=1, max_size=40)


@given(user=VALUES, password=VALUES, name=VALUES)
def test_no_value_becomes_an_option(user: str, password: str, name: str) -> None:
    settings = f"user={COLLECT.quoted(user)}\npassword={COLLECT.quoted(password)}\ndatabase={COLLECT.quoted(name)}\n"
    assert options(b"[client]\n" + settings.encode()) == {"user": user, "password": password, "database": name}


@pytest.mark.parametrize(
    ("key", "written", "value"),
    [
        ("password", '"a\nplugin-dir=/tmp/evil"', "a\nplugin-dir=/tmp/evil"),
        ("password", 'a"\\\nplugin-dir=/tmp/evil', 'a"plugin-dir=/tmp/evil'),
        ("password", "a\rplugin-dir=/tmp/evil", "a"),
        ("password", "a\0plugin-dir=/tmp/evil", "a"),
        ("user", '"shop\n!include /etc/shadow"', "shop\n!include /etc/shadow"),
        ("name", '"shop\n[mysql]\ninit-command=DROP DATABASE shop"', "shop\n[mysql]\ninit-command=DROP DATABASE shop"),
    ],
)
def test_hostile_value_stays_a_value(collector: Any, tmp_path: Path, key: str, written: str, value: str) -> None:
    login(collector, tmp_path, FILE + f"{NAMES[key]}={written}\n")
    seen = options(collector.command.settings[0])
    assert seen["database" if key == "name" else key] == value
    assert seen.keys() == {"user", "password", "database"}


@pytest.mark.parametrize(
    "value", ["a" * 4090 + "plugin-dir=/tmp/evil", "é" * 2000, '"' + '\\"' * 2000 + '"', "a" * 30000]
)
def test_value_too_long_for_a_line_is_not_tried(collector: Any, tmp_path: Path, value: str) -> None:
    assert login(collector, tmp_path, FILE + f"DB_PASSWORD={value}\n") is None
    assert collector.command.calls == []
    assert [item["why"] for item in collector.unseen] == ["too long to be tried as a login"]


@pytest.mark.parametrize("line", ["DB_PASSWORD=", 'DB_USER=""', "DB_SOCKET", "DB_NAME=''"])
def test_what_a_login_lacks_is_named_and_root_does_not_stand_in_for_it(
    collector: Any, tmp_path: Path, line: str
) -> None:
    name = line.partition("=")[0]
    kept = "".join(item for item in FILE.splitlines(keepends=True) if not item.startswith(name))
    seen = login(collector, tmp_path, f"{kept}{line}\n")
    assert (seen["ok"], seen["code"]) == (False, 0)
    assert seen["message"] == f"{name} not in {tmp_path / 'shop.env'}"
    assert collector.command.calls == []


def test_login_as_root_says_nothing(collector: Any, tmp_path: Path) -> None:
    assert login(collector, tmp_path, f"{FILE}DB_USER=root\n") is None
    assert "without a password" in collector.unseen[0]["why"]


def test_no_environment_file_is_no_login(collector: Any) -> None:
    assert collector.logins([{"login": {"environment": "/nonexistent/shop.env", **NAMES}}]) == {}
    assert collector.unseen == []


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (DENIED, 1045),
        (f"--------------\nSELECT 1\n--------------\n\n{DENIED}", 1045),
        ("ERROR 2002 (HY000): Can't connect to local server through socket '/none' (2)", 2002),
    ],
)
def test_refusal_is_told_by_its_number(collector: Any, tmp_path: Path, said: str, code: int) -> None:
    collector.command.says = lambda: (1, "", said)
    seen = login(collector, tmp_path)
    assert (seen["ok"], seen["code"]) == (False, code)
    assert seen["message"].startswith("ERROR")


def test_clients_own_complaint_is_not_repeated(collector: Any, tmp_path: Path) -> None:
    """It quotes its settings: an unknown option would be a piece of the password."""
    collector.command.says = lambda: (7, "", f"mariadb: unknown option '--{SECRET}'")
    assert login(collector, tmp_path) is None
    assert [item["why"] for item in collector.unseen] == ["it ended with status 7"]


def test_client_that_is_not_there_or_hangs_is_no_login(collector: Any, tmp_path: Path) -> None:
    collector.command.says = lambda: None
    assert login(collector, tmp_path) is None
    assert databases(collector) is None


def test_healthy_database(collector: Any) -> None:
    counts = {"most": 60, "connections": 3, "idle": 1, "crashed": []}
    assert databases(collector) == {"answers": True, "code": 0, "message": "", **counts}
    assert "--no-defaults" in collector.command.calls[0], "root's own option files decide nothing"


def test_crashed_tables_are_data(collector: Any) -> None:
    words = "Got error '145'" + "!" * 400
    rows = f"shop\tsessions\t{words}\tNULL\nshop\tevil\\n\\\\tname\t145\tNULL\nhalf a row\n"
    collector.command.says = lambda: (0, COUNTS + rows, "")
    crashed = databases(collector)["crashed"]
    assert [item["table"] for item in crashed] == ["shop.sessions", "shop.evil\\n\\\\tname"]
    assert len(crashed[0]["words"]) == 300


def test_server_that_is_full_is_asked_again(collector: Any) -> None:
    full: Iterator[Done] = iter([(1, "", "ERROR 1040 (HY000): Too many connections")] * 2 + [(0, "60\n60\t58\n", "")])
    collector.command.says = lambda: next(full)
    assert (databases(collector)["answers"], len(collector.command.calls)) == (True, 3)


def test_server_that_stays_full_says_so(collector: Any) -> None:
    collector.command.says = lambda: (1, "", "ERROR 1040 (HY000): Too many connections")
    seen = databases(collector)
    assert (seen["answers"], seen["code"], len(collector.command.calls)) == (False, 1040, 4)
    assert collector.unseen == []


@pytest.mark.parametrize(
    ("done", "answers", "noted"),
    [
        ((1, "", "ERROR 2002 (HY000): Can't connect"), False, False),  # its unit says enough
        ((1, "", "ERROR 2013 (HY000): Lost connection"), False, True),
        ((1, COUNTS, "ERROR 1969 (70100): max_statement_time exceeded"), True, True),
        ((0, "many\nfew\n", ""), False, False),
        ((0, "60\n1\t2\t3\n", ""), False, False),
        ((0, "", ""), False, False),
    ],
)
def test_server_that_says_little_or_nonsense(collector: Any, done: Done, answers: bool, noted: bool) -> None:
    collector.command.says = lambda: done
    assert databases(collector)["answers"] is answers
    assert bool(collector.unseen) is noted


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("while True: print('x' * 4096)", "it said more than 1000000 bytes"),
        ("import sys\nwhile True: print('x' * 4096, file=sys.stderr)", "it said more than 1000000 bytes"),
        ("import time; print('half', flush=True); time.sleep(60)", "no answer within 1 s"),
        ("import os, time; os.close(1); os.close(2); time.sleep(60)", "no answer within 1 s"),
        ("import os, time\nif os.fork(): os._exit(0)\ntime.sleep(60)", "no answer within 1 s"),
    ],
)
def test_command_is_bounded_in_size_and_time(monkeypatch: pytest.MonkeyPatch, program: str, why: str) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(COLLECT, "COMMAND_TIMEOUT_S", 1)
    collector = COLLECT.Collector()
    before = time.monotonic()
    assert collector.command(sys.executable, "-c", program, source="it") is None
    assert time.monotonic() - before < 4
    assert collector.unseen[-1] == {"source": "it", "why": why}


def test_command_says_how_it_ended() -> None:
    program = "import sys; print('o' * 200000); print('e' * 200000, file=sys.stderr); sys.exit(3)"
    status, output, errors = COLLECT.Collector().command(sys.executable, "-c", program)
    assert (status, len(output), len(errors)) == (3, 200001, 200001)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ('upstream "cdn.example:8080" in /etc/nginx/conf.d/x.conf:2', "cdn.example"),
        ('upstream "cdn.example/pictures/" in /etc/nginx/conf.d/x.conf:2', "cdn.example"),
        ('"old.example:80" of the "listen" directive in /etc/nginx/conf.d/x.conf:2', "old.example"),
        ('resolver "-c" in /etc/nginx/conf.d/x.conf:2', "-c"),
    ],
)
@pytest.mark.parametrize(
    ("done", "code"), [((0, "-2\n", ""), -2), ((0, "0\n", ""), 0), ((1, "", "x"), None), (None, None)]
)
def test_host_that_nginx_did_not_find_is_asked_for(
    collector: Any, words: str, name: str, done: Done | None, code: int | None
) -> None:
    collector.command.says = lambda: done
    for begins in ("nginx: [emerg] ", "2026/11/26 03:40:24 [emerg] 617#617: "):  # as its log is open, or not yet
        assert collector.unresolved(f"{begins}host not found in {words}") == {"name": name, "code": code}
    assert collector.command.calls[0][-1] == name


def test_where_no_host_is_named_none_is_asked_for(collector: Any) -> None:
    assert collector.unresolved('nginx: [emerg] unknown directive "host not found in" in /etc/nginx/x.conf:1') is None
    assert collector.unresolved("nginx: [emerg] host not found in ") == {"name": "", "code": None}
    assert collector.command.calls == []


def test_resolver_is_really_asked() -> None:
    told = COLLECT.Collector().unresolved('nginx: [emerg] host not found in upstream "127.0.0.1:80" in /etc/x.conf:1')
    assert told == {"name": "127.0.0.1", "code": 0}


def test_link_tells_where_it_leads(collector: Any, tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    (tmp_path / "a.jpg").write_text("x")
    targets = {"media": "directory", f"{tmp_path}/media/": "directory", "a.jpg": "file", "/dev/null": "other"}
    targets |= {"gone": "missing", "a.jpg/x": "missing", "link": "missing"}
    for target, kind in targets.items():
        (tmp_path / "link").symlink_to(target)
        told = collector.describe(str(tmp_path / "link"))
        assert (told["kind"], told["link"], told["leads_to"]) == ("link", target, kind)
        (tmp_path / "link").unlink()
    assert collector.describe(str(tmp_path / "media"))["leads_to"] == ""


@pytest.mark.parametrize(
    ("asked", "after"),
    [
        ([{"name": "a.service", "after": ["b.service", "c.mount"]}], ["b.service"]),
        ([{"name": "a.service"}], []),
        ([{"name": "a.service", "after": ["b.service"]}, {"name": "a.service", "after": ["d.service"]}], ["b.service"]),
    ],
)
def test_of_a_units_order_only_what_was_asked_is_told(collector: Any, asked: list[Any], after: list[str]) -> None:
    told = iter(["", "Id=a.service\nLoadState=loaded\nActiveState=active\nAfter=basic.target b.service\n"])
    collector.command.says = lambda: (0, next(told), "")
    assert collector.units(asked)["a.service"]["after"] == after


@contextmanager
def serving(*pieces: bytes, pause: float = 0.0) -> Iterator[tuple[str, list[bytes]]]:
    """Answer one connection with these pieces, whatever is asked; yield the address and what was asked."""
    asked: list[bytes] = []

    def serve() -> None:
        # Who asks may have left.
        with suppress(OSError):
            line, _ = server.accept()
            with line:
                asked.append(line.recv(65536))
                for piece in pieces:
                    line.sendall(piece)
                    time.sleep(pause)

    with socket.create_server(("127.0.0.1", 0)) as server:
        worker = threading.Thread(target=serve)
        worker.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/lb-health", asked
        worker.join(timeout=10)


def ask(collector: Any, url: str) -> Any:
    collector.unseen.clear()
    return collector.answers([{"answers": [{"url": url, "host": "localhost"}]}, {}])[f"{url} localhost"]


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"


def test_answer_is_told_as_it_came(collector: Any) -> None:
    with serving(OK) as (url, asked):
        told = ask(collector, url)
    assert (told["status"], told["bytes"], told["seconds"] < 3) == (200, 3, True)
    assert asked[0].startswith(b"GET /lb-health HTTP/1.1\r\n")
    assert asked[0].count(b"Host: localhost\r\n") == asked[0].lower().count(b"host:") == 1
    assert (told["words"], collector.unseen) == ("ok", [])


def test_question_keeps_what_stands_behind_its_path(collector: Any) -> None:
    with serving(OK) as (url, asked):
        ask(collector, f"{url}?deep=1&x=%20")
    assert asked[0].startswith(b"GET /lb-health?deep=1&x=%20 HTTP/1.1\r\n")


def test_what_is_not_spoken_here_is_not_asked_in_clear(collector: Any) -> None:
    with serving(OK) as (url, asked):
        told = ask(collector, url.replace("http:", "https:"))
        ask(collector, url)  # the one connection that is waited for
    assert told == {"why": "https is not asked, only http", "error": ""}
    assert asked[0].startswith(b"GET ")


@pytest.mark.parametrize(
    ("page", "words"),
    [
        (b"<html>\r\n<h1>404 Not\tFound</h1><hr>nginx", "404 Not Found nginx"),
        (b"\xff\x00{{ x }}", "\\xff\x00{{ x }}"),
        (b"<" * 60000, "<" * 300),
        (b"", ""),
    ],
)
def test_who_answered_is_told_in_the_first_words(collector: Any, page: bytes, words: str) -> None:
    head = f"HTTP/1.1 404 No\r\nContent-Length: {len(page)}\r\n\r\n".encode()
    with serving(head + page) as (url, _):
        assert ask(collector, url)["words"] == words


def test_redirect_is_an_answer_and_not_followed(collector: Any) -> None:
    with serving(b"HTTP/1.1 301 Moved\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\n\r\n") as (url, _):
        told = ask(collector, url)
    assert (told["status"], told["words"]) == (301, "http://192.0.2.1/")


def test_long_answer_is_read_so_far(collector: Any) -> None:
    with serving(b"HTTP/1.0 200 OK\r\n\r\n", *[b"x" * 65536] * 9) as (url, _):
        assert ask(collector, url)["bytes"] == 65536


@pytest.mark.parametrize(
    ("pieces", "pause"),
    [
        ([b""], 2.0),  # nothing at all
        ([b"HTTP/1.1 200 OK\r\n", *[b"X-A: b\r\n"] * 40], 0.05),  # headers, one now and then
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", *[b"x"] * 40], 0.05),
        ([b"HTTP/1.1 100 Continue\r\n\r\n"] * 40, 0.05),
    ],
)
def test_server_that_takes_its_time_is_given_up(
    monkeypatch: pytest.MonkeyPatch, collector: Any, pieces: list[bytes], pause: float
) -> None:
    monkeypatch.undo()  # time passes here
    monkeypatch.setattr(COLLECT, "ANSWER_TIMEOUT_S", 0.5)
    before = time.monotonic()
    with serving(*pieces, pause=pause) as (url, _):
        told = ask(collector, url)
        assert time.monotonic() - before < 1.5
    assert told.keys() == {"why", "error"} and told["error"] == ""
    assert [item["source"] for item in collector.unseen] == [f"the answer to {url}"]


@pytest.mark.parametrize(
    "said", [b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 many\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"a" * 70000]
)
def test_what_is_no_answer_is_said_and_raises_nothing(collector: Any, said: bytes) -> None:
    with serving(said) as (url, _):
        told = ask(collector, url)
    assert told.keys() == {"why", "error"} and len(told["why"]) <= 300
    assert [item["source"] for item in collector.unseen] == [f"the answer to {url}"]


def test_where_nobody_serves_that_is_said(collector: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
    told = ask(collector, url)
    assert "Connection refused" in told["why"]
    assert (told["error"], collector.unseen) == ("ECONNREFUSED", []), "a rule knows what that means"


def test_path_is_asked_at_the_address_of_this_host(monkeypatch: pytest.MonkeyPatch, collector: Any) -> None:
    monkeypatch.setattr(COLLECT, "answer", lambda *asked: {"asked": asked})
    monkeypatch.setattr(COLLECT, "own_address", lambda: "192.0.2.7")
    assert ask(collector, "/lb-health") == {"asked": ("http://192.0.2.7/lb-health", "localhost")}


def test_this_host_has_an_address() -> None:
    assert re.fullmatch(r"[0-9]+(\.[0-9]+){3}", COLLECT.own_address())


def rules(*words: str, policy: str = "ACCEPT") -> dict[str, str]:
    return {"policy": policy, "rules": "\n".join(words)}


def test_only_chains_on_the_way_in_and_out_are_told_and_only_where_one_blocks() -> None:
    own = [f"-A OWN -s 192.0.2.{number}/32 -j REJECT" for number in range(150)]
    told = COLLECT.blocking(
        {
            "filter/INPUT": rules("-A INPUT -p tcp -j OWN", "-A INPUT -g GONE"),
            "filter/FORWARD": rules("-A FORWARD -j OTHER", policy="DROP"),
            "filter/OWN": rules(*own, "-A OWN -j INPUT", policy=""),
            "filter/OTHER": rules("-A OTHER -j DROP", policy=""),
            "mangle/OUTPUT": rules("-A OUTPUT -j MARK"),
            "raw/OUTPUT": rules(policy="DROP"),
        }
    )
    assert [(item["table"], item["chain"], item["complete"]) for item in told] == [
        ("filter", "INPUT", True), ("filter", "OWN", False), ("raw", "OUTPUT", True),
    ]  # fmt: skip
    assert told[1]["rules"] == own[:100]
    assert told[2] == {"table": "raw", "chain": "OUTPUT", "policy": "DROP", "rules": [], "complete": True}


def test_many_chains_of_a_firewall_are_bounded() -> None:
    jumps = [f"-A INPUT -j C{number}" for number in range(200)]
    chains = {f"filter/C{number}": rules(f"-A C{number} -j DROP", policy="") for number in range(200)}
    collector, whole = COLLECT.Collector(), {"filter/INPUT": rules("-A INPUT -p tcp -j DROP")}
    noted = len(collector.unseen)
    assert len(collector.firewall({("nft", "ipv4"): (whole, True)})) == 1 and collector.firewall_cut == set()
    told = collector.firewall({("nft", "ipv4"): ({"filter/INPUT": rules(*jumps), **chains}, True)})
    assert len(told) == 50 and collector.firewall_cut == {"ipv4"} and len(collector.unseen) == noted + 1
    assert collector.firewall({("nft", "ipv6"): ({}, False)}) == [] and collector.firewall_cut == {"ipv4", "ipv6"}


@pytest.mark.parametrize("answer", ["enabled\n", "disabled\n", ""])
def test_saved_rules_are_told_where_a_boot_loads_them(
    collector: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    file = tmp_path / "rules.v4"
    file.write_text("*filter\n:OUTPUT ACCEPT [0:0]\n[3:9] -A OUTPUT -p tcp -j DROP\nCOMMIT\n")
    monkeypatch.setattr(COLLECT, "SAVED_FIREWALL", {str(file): "ipv4", str(tmp_path / "none"): "ipv6"})
    collector.command.says = lambda: (0, answer, "")
    told = collector.saved_firewall(STATE.iptables_chains)
    rule = {"table": "filter", "chain": "OUTPUT", "policy": "ACCEPT", "complete": True}
    chains = [{**rule, "rules": ["-A OUTPUT -p tcp -j DROP"]}]
    assert told == ({str(file): {"family": "ipv4", "chains": chains}} if answer.startswith("enabled") else {})
    assert collector.unseen == []


@pytest.mark.parametrize(
    ("scopes", "told"), [(["10"], False), (["10", "20"], False), (["20", "00"], True), ([], False), (None, False)]
)
def test_only_an_address_known_beyond_the_links_makes_a_host_of_ipv6(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scopes: list[str] | None, told: bool
) -> None:
    file = tmp_path / "if_inet6"
    if scopes is not None:
        file.write_text("".join(f"fd000001000000000000000000000011 02 40 {scope} 80     eth0\n" for scope in scopes))
    monkeypatch.setattr(COLLECT, "IPV6_ADDRESSES", str(file))
    assert COLLECT.Collector().global_ipv6() is told


def test_what_a_service_must_reach_is_tried_at_each_address(monkeypatch: pytest.MonkeyPatch) -> None:
    collector = COLLECT.Collector()
    monkeypatch.setattr(COLLECT, "REACH_TIMEOUT_S", 0.2)
    # A queue that is full answers nobody, like a rule that drops.
    with socket.create_server(("127.0.0.1", 0)) as open_, socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        ports = [sock.getsockname()[1] for sock in (open_, full)]
        waiting = [socket.socket() for _ in range(3)]
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", ports[1]))
        with socket.create_server(("127.0.0.1", 0)) as closed:
            ports.append(closed.getsockname()[1])
        wanted = [{"name": "127.0.0.1", "port": port} for port in ports]
        seen = collector.reaches([{"reaches": wanted}, {"reaches": [{"name": "no.invalid", "port": 1}]}, {}])
        sent, _ = open_.accept()
        with sent:
            assert sent.recv(1) == b"", "something was sent"
        for client in waiting:
            client.close()
    assert seen == {
        f"127.0.0.1:{port}": [{"address": "127.0.0.1", "ok": not why, "why": why}]
        for port, why in zip(ports, ("", "TIMEOUT", "ECONNREFUSED"), strict=True)
    }
