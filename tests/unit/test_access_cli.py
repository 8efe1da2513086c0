"""hikeshi count: words → figures and exit status; on a site, with Ansible replaced at its one seam."""

import base64
import gzip
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from hikeshi.access import engine
from hikeshi.runner import Event, RunResult
from hikeshi.site import Site
from tests.unit.access_counter import program
from tests.unit.commands import Runs, hikeshi
from tests.unit.conftest import SITE, Project
from tests.unit.shop import Shop

LINE = b'192.0.2.%d - - [27/Nov/2026:0%d:10:00 +0000] "GET /%b HTTP/1.1" 200 5 "-" "Mozilla/5.0"\n'
LB = (
    b"2026-11-27T05:10:00.5+00:00 lb1 haproxy[9]: 192.0.2.7:4242 [27/Nov/2026:05:10:00.123] shop web/%b 0/0/0/1/1 %b 9 "
    b'- - %b 1/1/0/0/0 0/0 {shop.example|Mozilla/5.0} "GET / HTTP/1.1"\n'
)
WEB_LOG = LINE % (1, 4, b"") + LINE % (2, 5, b"a.jpg") + LINE % (1, 5, b"") + b"junk\n"
LB_LOG = LB % (b"web1", b"200", b"----") * 3 + LB % (b"<NOSRV>", b"503", b"SC--")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "access.log"
    path.write_bytes(WEB_LOG)
    return path


def test_loose_files_need_no_site(monkeypatch: pytest.MonkeyPatch, capsys: Any, log: Path) -> None:
    monkeypatch.setattr("hikeshi.site.INVENTORIES", log.parent / "none")
    assert hikeshi(monkeypatch, "count", str(log), "--zone", "Asia/Tokyo") == 0
    told = capsys.readouterr().out
    assert "3 hits, 3 of people: 2 page views, 2 visitors" in told
    assert "2026-11-27 13:00" in told and "4 lines = 3 counted + 1 malformed + 0 pending" in told and ": aaaa" in told
    assert "192.0.2.1" not in told


def test_what_a_visitor_sent_is_shown_to_those_alone_who_ask_for_addresses(
    monkeypatch: pytest.MonkeyPatch, capsys: Any, log: Path
) -> None:
    log.write_bytes(b'203.0.113.77 - Alice [99/Nov "GET /login?password=hunter2 HTTP/1.1" 200\n')
    for more, shown in (([], "000.0.000.00 - Aaaaa [00/Aaa"), (["--addresses"], "203.0.113.77 - Alice [99/Nov")):
        for form in ([], ["--json"]):
            assert hikeshi(monkeypatch, "count", str(log), *form, *more) == 0
            told = capsys.readouterr().out
            assert shown in told and ("hunter2" in told) == bool(more)


def test_a_file_of_which_nothing_can_be_read_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: Any, log: Path
) -> None:
    (folder := log.parent / "logs").mkdir()
    (cut := log.parent / "cut.gz").write_bytes(gzip.compress(WEB_LOG)[:10])
    for lost in (folder, cut):
        assert hikeshi(monkeypatch, "count", str(log), str(lost)) == 1
        told = capsys.readouterr()
        assert "3 hits" in told.out and f"nothing could be read of {lost}" in told.err.replace("\n", "")


def test_csv_has_its_method_beside_it(monkeypatch: pytest.MonkeyPatch, capsys: Any, log: Path) -> None:
    assert hikeshi(monkeypatch, "count", str(log), "--csv") == 0
    told = capsys.readouterr()
    assert "malformed" not in told.out and "4 lines = 3 counted + 1 malformed + 0 pending" in told.err


def test_which_header_is_the_agent_may_be_said_of_files(
    monkeypatch: pytest.MonkeyPatch, capsys: Any, log: Path
) -> None:
    log.write_bytes((LB % (b"web1", b"200", b"----")).replace(b"shop.example|Mozilla/5.0", b"Googlebot/2.1|x"))
    for more, bots in (([], 0), (["--agent-capture", "1"], 1)):
        assert hikeshi(monkeypatch, "count", str(log), "--json", *more) == 0
        assert json.loads(capsys.readouterr().out)["lb"]["total"]["bots"] == bots
    assert hikeshi(monkeypatch, "count", str(log), "--agent-capture", "first") != 0
    assert "--agent-capture is 'first'; allowed: last, none, 1, 2" in " ".join(capsys.readouterr().err.split())


def test_gz_and_json_and_a_window(monkeypatch: pytest.MonkeyPatch, capsys: Any, log: Path) -> None:
    packed = log.with_name("old.gz")
    packed.write_bytes(gzip.compress(WEB_LOG))
    log.unlink()
    words = ["--json", "--since", "2026-11-27 05:00", "--zone", "UTC", "--by", "day", "--addresses"]
    assert hikeshi(monkeypatch, "count", str(packed), *words) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["window"]["since"] == "2026-11-27T05:00:00+00:00" and data["reconciled"] is None
    assert data["web"]["total"]["hits"] == 2 and data["method"]["lines"]["outside"] == 1
    assert {top["name"] for top in data["web"]["clients"]} == {"192.0.2.1", "192.0.2.2"}


def test_html_is_written_for_us_alone(monkeypatch: pytest.MonkeyPatch, capsys: Any, log: Path) -> None:
    page = log.with_name("count.html")
    assert hikeshi(monkeypatch, "count", str(log), "--html", str(page), "--csv") == 0
    assert page.read_text().startswith("<!DOCTYPE html>") and page.stat().st_mode & 0o077 == 0
    assert capsys.readouterr().out.startswith("side,begin,hits")
    assert hikeshi(monkeypatch, "count", str(log), "--html", str(log.parent / "none" / "x.html")) == 1


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [(["count", "/no/such.log"], 2, "there is no file"), (["count", "LOG", "--by", "week"], 2, "minute, hour, day"),
     (["count", "LOG", "--zone", "Mars/Base"], 2, "no time zone"), (["count", "LOG", "--json", "--csv"], 2, "two"),
     (["count", "LOG", "--site", "x"], 2, "two things"), (["count", "LOG", "--since", "25:00"], 2, "is no time")],
)  # fmt: skip
def test_wrong_words(
    monkeypatch: pytest.MonkeyPatch, capsys: Any, log: Path, words: list[str], status: int, said: str
) -> None:
    given = [str(log) if word == "LOG" else word for word in words]
    assert hikeshi(monkeypatch, *given) == status
    assert said in re.sub(r"\s+", " ", capsys.readouterr().err)


def test_nothing_is_left_behind(monkeypatch: pytest.MonkeyPatch, capsys: Any, log: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(log.parent))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert hikeshi(monkeypatch, "count", str(log), "--processes", "3") == 0
    assert os.listdir(log.parent) == ["access.log"]  # noqa: PTH208
    monkeypatch.setattr("tempfile.tempdir", None)


# On a site


class Hosts(Runs):
    """Counts as the hosts' programs would, by the real one."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.asked_words: dict[str, list[str]] = {}
        self.answers: dict[str, Any] = {}

    def __call__(self, site: Site, playbook: str, *, extra: Any = None, check: bool = False, **more: Any) -> RunResult:
        assert playbook == "count-accesses.yml"
        exchange = Path(extra["access_count_exchange"])
        asked = json.loads((exchange / "ask.json").read_text())
        self.asked_words = asked["hosts"]
        failures = [Event(host, "", "", "unreachable", message=why) for host, why in self.away.items()]
        for host, words in asked["hosts"].items():
            if host in self.away:
                continue
            out = self.folder / f"{host}.gz"
            if words[words.index("--store") + 1] == engine.STORE:
                assert program.main([*words, "--output", str(out)], asked["key"]) == 0
            told = {"partial": base64.b64encode(out.read_bytes()).decode()}
            (exchange / f"{host}.json").write_text(json.dumps(self.answers.get(host, told)))
        return RunResult(playbook, 2 if failures else 0, 0.1, {}, failures, {}, "")


@pytest.fixture
def hosts(project: Project, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hosts:
    """A site whose web server and load balancer have logs."""
    for host, data in (("web1", WEB_LOG), ("lb1", LB_LOG)):
        (tmp_path / host).mkdir()
        (tmp_path / host / "x.log").write_bytes(data)
    made = Hosts(tmp_path)
    monkeypatch.setattr("hikeshi.runner.run", made)
    monkeypatch.setattr(engine, "STORE", str(tmp_path / "no-store"))
    project.write("hosts.yml", "all: {hosts: {web1: {}, lb1: {}}}\n")
    views = dict.fromkeys(("customer", "direct"), {"url": shop.url})
    logs = {host: [f"{tmp_path}/{host}/x.log*"] for host in ("web1", "lb1")}
    project.site({**SITE, "time_zone": "Asia/Tokyo", "views": views, "accesses": {"logs": logs}})
    return made


def test_a_site_is_counted_where_its_logs_lie(hosts: Hosts, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    assert hikeshi(monkeypatch, "count", "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert data["window"]["zone"] == "Asia/Tokyo"
    assert data["web"]["total"]["hits"] == 3 and data["lb"]["total"]["outcomes"] == {"served": 3, "sorry": 1}
    assert data["reconciled"]["unexplained"] == 0 and {file["host"] for file in data["method"]["files"]} == {
        "web1",
        "lb1",
    }
    assert all("--low" in words and "--addresses" not in words for words in hosts.asked_words.values())
    assert "192.0.2.7" not in json.dumps(data["lb"])


def test_what_was_counted_is_in_the_journal(hosts: Hosts, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hikeshi(monkeypatch, "count", "--since", "2026-11-27") == 0
    journal = (project.root / "incidents" / "shop" / "journal.jsonl").read_text()
    (end,) = [line for line in map(json.loads, journal.splitlines()) if line["kind"] == "count.end"]
    assert end["data"]["lines"]["counted"] == 7 and end["data"]["sides"]["web"]["hits"] == 3


def test_a_host_that_is_away_is_named_and_the_others_counted(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    hosts.away["lb1"] = "No route to host"
    assert hikeshi(monkeypatch, "count") == 3
    seen = capsys.readouterr()
    assert "web servers" in seen.out and "lb1" in seen.err and "No route to host" in seen.err


@pytest.mark.parametrize(
    "told",
    [{}, {"partial": 5}, {"partial": "not base64!"}, {"partial": base64.b64encode(b"junk").decode()},
     {"partial": base64.b64encode(gzip.compress(b'{"schema": 1}\nend 0\n')).decode()},
     {"partial": base64.b64encode(gzip.compress(b"[" * 5000)).decode()}],
)  # fmt: skip
def test_a_host_that_lies_is_refused(hosts: Hosts, monkeypatch: pytest.MonkeyPatch, capsys: Any, told: Any) -> None:
    hosts.answers["lb1"] = told
    assert hikeshi(monkeypatch, "count") == 1
    assert "lb1" in capsys.readouterr().err


def test_a_site_that_names_no_logs(
    hosts: Hosts, project: Project, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    project.site(SITE)
    assert hikeshi(monkeypatch, "count") == 4
    assert "inventories/example/site.yml" in re.sub(r"\s+", " ", capsys.readouterr().err)
    project.site({**SITE, "accesses": {"logs": {"web9": ["/var/log/x"]}}})
    assert hikeshi(monkeypatch, "count") == 4
    assert "web9" in capsys.readouterr().err


def test_the_sites_secret_is_the_key(hosts: Hosts, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    (project.folder / "group_vars" / "all").mkdir(parents=True)
    project.write("group_vars/all/secrets.yml", f"{engine.SECRET}: '{'ab' * 32}'\n")
    seen: list[str] = []
    real = program.main

    def main(words: list[str], key: str) -> int:
        seen.append(key)
        return int(real(words, key))

    monkeypatch.setattr(program, "main", main)
    assert hikeshi(monkeypatch, "count") == 0
    assert set(seen) == {"ab" * 32}
