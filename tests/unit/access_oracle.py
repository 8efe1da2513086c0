"""Counts accesses slowly, a line and a character at a time: what the fast counter is compared with.

It shares nothing with the counter: no expression, no table. What it knows of agents and of HAProxy's states is listed.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from zoneinfo import ZoneInfo

BLANKS = b" \t\n\r\x0b\x0c"
PICTURES = {"png", "jpg", "jpeg", "jpe", "gif", "webp", "avif", "svg", "ico", "bmp", "heic", "tif", "tiff"}
ASSETS = {"css", "js", "mjs", "map", "woff", "woff2", "ttf", "otf", "eot", "webmanifest", "wasm", "mp4", "webm", "mp3"}
ASSETS |= {"json", "xml", "txt"}
AGENTS = {
    b"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)": "b",
    b"curl/7.88.1": "b",
    b"python-requests/2.31": "b",
    b"hikeshi-probe": "m",
    b"Pingdom.com_bot_version_1.4_(http://www.pingdom.com/)": "m",
    b"hikeshi-health-check": "h",
    b"ELB-HealthChecker/2.0": "h",
}  # everybody else is taken for a person
# Without the connection's end on the server's side: NOSRV is looked at apart.
OUTCOMES = {
    ("----", "200"): "served", ("----", "503"): "served", ("LR--", "302"): "local", ("LR--", "503"): "sorry",
    ("SC--", "503"): "sorry", ("sC--", "503"): "sorry", ("sQ--", "503"): "sorry", ("PR--", "403"): "refused",
    ("PR--", "503"): "sorry", ("PR--", "400"): "refused", ("PT--", "500"): "refused", ("PH--", "502"): "failed",
    ("SH--", "502"): "failed", ("sH--", "504"): "failed", ("SD--", "200"): "failed", ("CD--", "200"): "aborted",
    ("CH--", "-1"): "aborted", ("CC--", "-1"): "left", ("CQ--", "503"): "left", ("CR--", "400"): "left",
    ("cR--", "408"): "left", ("CR--", "-1"): "left", ("cD--", "200"): "aborted", ("RC--", "500"): "refused",
}  # fmt: skip


Number = tuple[int, str, str, str, str]  # slot, group, kind, status, outcome


class Malformed(Exception):
    """A line that is no access."""


@dataclass(frozen=True)
class Hit:
    """What one line says."""

    client: bytes
    minute: int
    request: bytes
    status: bytes
    size: int
    agent: bytes
    outcome: str
    role: str


@dataclass
class Truth:
    """All that is to be counted."""

    lines: int = 0
    counted: int = 0
    malformed: int = 0
    pending: int = 0
    outside: int = 0
    numbers: dict[tuple[int, str, str, str, str], list[int]] = field(
        default_factory=lambda: defaultdict(lambda: [0, 0])
    )
    paths: Counter[tuple[str, bytes]] = field(default_factory=Counter)
    clients: Counter[tuple[str, bytes]] = field(default_factory=Counter)
    visitors: dict[tuple[int, str], set[tuple[bytes, bytes]]] = field(default_factory=lambda: defaultdict(set))


def quoted(line: bytes, start: int) -> int:
    """Return where the quote is that ends what begins at start; a backslash takes the next character with it."""
    while start < len(line):
        if line[start] == ord("\\"):
            start += 2
            if start > len(line):
                break
            continue
        if line[start] == ord('"'):
            return start
        start += 1
    raise Malformed


def token(line: bytes, start: int) -> tuple[bytes, int]:
    """Return what stands before the next blank, and where it goes on."""
    end = line.find(b" ", start)
    word = line[start : end if end >= 0 else len(line)]
    if end < 0 or not word or b'"' in word or any(char in BLANKS for char in word):
        raise Malformed
    return word, end + 1


def address(word: bytes) -> bool:
    """Say whether a word can be an address."""
    return bool(word) and all(char in b"0123456789abcdefABCDEF.:" for char in word) and (b"." in word or b":" in word)


def minute(text: bytes, zone: ZoneInfo | None = None) -> int:
    """Return a time's minute."""
    try:
        local = datetime.strptime(text.decode(), "%d/%b/%Y:%H:%M:%S" + " %z" * (zone is None))
    except ValueError as error:
        raise Malformed from error
    if zone is not None:
        local = local.replace(tzinfo=zone)
    return int(local.replace(second=0).timestamp()) // 60


def hosts(first: bytes, second: bytes, rest: bytes) -> bool:
    """Say whether the first of a line's words is a virtual host, and the second the client."""
    if address(second) or second[-1:] == b",":
        return True
    return not address(first) and second != b"-" and rest[:2] == b"- " and rest[2:3] != b"["


def web(line: bytes) -> Hit:
    """Read a line of a web server."""
    client, at = token(line, 0)
    second, behind = token(line, at)
    hosted = client[-1:] != b"," and hosts(client, second, line[behind:])
    if hosted:
        client, at = second, behind
    while client[-1:] == b",":  # a list of addresses, the last of which counts
        client, at = token(line, at)
    client = client.split(b",")[-1]
    if not client:
        raise Malformed
    _, behind = token(line, at)
    if not hosted or line[behind : behind + 1] != b"[":  # else there is a user, but nothing of the ident protocol
        at = behind
    if line[at : at + 4] == b'"" [' and line[at + 30 : at + 33] == b'] "':
        when, at = line[at + 4 : at + 30], at + 33
    else:
        end = quoted(line, at)
        before, at = line[at:end], end + 1
        if len(before) < 31 or before[-30:-28] != b" [" or before[-2:] != b"] ":
            raise Malformed
        when = before[-28:-2]
    end = quoted(line, at)
    request, at = line[at:end], end + 1
    if line[at : at + 1] != b" ":
        raise Malformed
    rest = line[at + 1 :]
    status, _, rest = rest.partition(b" ")
    size, blank, rest = rest.partition(b" ")
    if len(status) != 3 or not status.isdigit() or not (size == b"-" or (size.isdigit() and len(size) <= 20)):
        raise Malformed
    agent = b""
    if rest[:1] == b'"':
        end = quoted(rest, 1)
        if rest[end + 1 : end + 3] != b' "':
            raise Malformed
        begin = end + 3
        end = quoted(rest, begin)
        agent = rest[begin:end]
        if rest[end + 1 : end + 2] not in (b"", b" "):
            raise Malformed
    if len(when) != 26 or when[2:3] != b"/" or when[20:21] != b" " or when[21:22] not in (b"+", b"-"):
        raise Malformed
    if not 1971 <= int(when[7:11] if when[7:11].isdigit() else b"0") < 2200:
        raise Malformed
    return Hit(client, minute(when), request, status, 0 if size == b"-" else int(size), agent, "served", "w")


def haproxy(line: bytes, zone: ZoneInfo) -> Hit:
    """Read a line of HAProxy; what stands in cookies may look like anything."""
    end = line.find(b'"')
    if end < 0:
        raise Malformed
    front, request, after = line[:end], *line[end + 1 :].partition(b'"')[::2]
    if after and after[:1] != b" ":
        raise Malformed
    words = front.split(b" ")
    place = next(
        (n for n, word in enumerate(words) if n and word[:1] == b"[" and word[-1:] == b"]" and b"/" in word), 0
    )
    if not place or words[-1] or len(words) < place + 8:
        raise Malformed
    client, _, port = words[place - 1].rpartition(b":")
    backend, slash, server = words[place + 2].partition(b"/")
    status, size = words[place + 4], words[place + 5].removeprefix(b"+")
    if (
        not client
        or not port.isdigit()
        or not slash
        or not (status == b"-1" or (status.isdigit() and len(status) == 3))
    ):
        raise Malformed
    if not size.isdigit() or len(size) > 20:
        raise Malformed
    tail = front[:-1]
    groups: list[bytes] = []
    while tail.endswith(b"}") and len(groups) < 2:
        begin = tail.rfind(b" {")
        if begin < 0:
            raise Malformed
        groups.insert(0, tail[begin + 2 : -1])
        tail = tail[:begin]
    state, counts, queues = tail.rsplit(b" ", 3)[1:]
    if len(state) != 4 or counts.count(b"/") != 4 or queues.count(b"/") != 1:
        raise Malformed
    date, dot, _ = words[place][1:-1].partition(b".")
    if not dot:
        raise Malformed
    stamp = words[0] if place > 1 else b""
    if stamp[:1] == b"<":  # a priority, and perhaps the version of RFC 5424, before the time
        stamp = stamp.partition(b">")[2]
        stamp = words[1] if stamp.isdigit() else stamp
    if b"T" in stamp and stamp[:4].isdigit():
        offset = b"+00:00" if stamp.endswith(b"Z") else stamp[-6:]
        at = minute(date + b" " + offset.replace(b":", b""))
    else:
        at = minute(date, zone)
    agent = groups[0].split(b"|")[-1] if groups else b""
    if backend == b"sorry":
        outcome = "sorry"
    else:
        outcome = OUTCOMES[state.decode(), status.decode()]
        if server == b"<NOSRV>":
            outcome = {"aborted": "left", "failed": "unreached"}.get(outcome, outcome)
    if state[:2] in (b"CR", b"cR"):
        request = b""
    return Hit(client, at, request, status, int(size), agent, outcome, "l")


def path_of(request: bytes) -> tuple[str, bytes]:
    """Return what kind of thing is asked for, and its path."""
    method, blank, target = request.partition(b" ")
    name = method.decode("latin-1")
    if not blank or not name or not ("A" <= name[0] <= "Z") or len(name) > 30:
        return "none", b""
    if any(not ("A" <= char <= "Z" or char in "_-") for char in name):
        return "none", b""
    for protocol in (b" HTTP/1.1", b" HTTP/1.0", b" HTTP/2.0", b" HTTP/2", b" HTTP/0.9", b" HTTP/3.0"):
        if target.endswith(protocol) and len(target) > len(protocol):
            target = target.removesuffix(protocol)
            break
    if not target:
        return "none", b""
    scheme, mark, behind = target.partition(b"://")
    if method != b"CONNECT" and mark and scheme.isalpha():
        rest = [behind.find(char) for char in (b"/", b"?", b"#") if char in behind]
        target = behind[min(rest) :] if rest else b"/"
    path = target.split(b"?")[0] or b"/"
    if name not in ("GET", "HEAD"):
        return "other", path
    last = path.split(b"/")[-1].decode("latin-1")
    ending = last.split(".")[-1].lower() if "." in last else ""
    return "picture" if ending in PICTURES else "asset" if ending in ASSETS else "page", path


def short(text: bytes, most: int) -> bytes:
    """Return what is kept of a long text."""
    if len(text) <= most:
        return text
    digest = hashlib.blake2b(text, digest_size=16).hexdigest()
    return text[: most // 2] + b"..." + digest.encode() + b"." + str(len(text)).encode()


def slot(at: int, by: str, zone: ZoneInfo) -> int:
    """Return the begin of the minute, hour or day, in minutes."""
    local = datetime.fromtimestamp(at * 60, zone)
    if by == "all":
        return 0
    if by == "hour":
        return at - local.minute
    if by == "day":
        first = datetime(local.year, local.month, local.day, tzinfo=zone)  # of two midnights the first
        return int(first.timestamp()) // 60
    return at


def read(data: bytes, role: str, log_zone: str = "UTC") -> list[Hit | None]:
    """Return what each whole line of a log says; None where it is malformed."""
    made: list[Hit | None] = []
    for line in data.split(b"\n")[:-1]:
        try:
            if len(line) > 1 << 20:
                raise Malformed
            made.append(web(line) if role == "w" else haproxy(line, ZoneInfo(log_zone)))
        except Malformed:
            made.append(None)
    return made


def count(
    hits: Iterable[Hit | None], *, pending: int = 0, by: str = "hour", zone: str = "UTC", since: int | None = None,
    until: int | None = None, health: bytes = b"",
) -> Truth:  # fmt: skip
    """Count what lines say."""
    truth = Truth(lines=pending, pending=pending)
    for hit in hits:
        truth.lines += 1
        if hit is None:
            truth.malformed += 1
            continue
        truth.counted += 1
        if (since is not None and hit.minute < since) or (until is not None and hit.minute >= until):
            truth.outside += 1
            continue
        add(truth, hit, slot(hit.minute, by, ZoneInfo(zone)), health)
    return truth


def add(truth: Truth, hit: Hit, start: int, health: bytes) -> None:
    """Add one hit."""
    kind, path = path_of(hit.request)
    agent = short(hit.agent, 400) or b"-"
    letter = "n" if kind == "none" else "h" if health and path == health else AGENTS.get(hit.agent, "p")
    group, client = hit.role + letter, short(hit.client, 200).removeprefix(b"::ffff:")
    sums = truth.numbers[start, group, kind, hit.status.decode(), hit.outcome]
    sums[0] += 1
    sums[1] += hit.size
    truth.paths[group, short(path, 400)] += 1
    truth.clients[group, client] += 1
    truth.visitors[start, group].add((client, agent))
