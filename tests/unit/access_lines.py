"""Lines of access logs: ordinary ones, hostile ones that are accesses all the same, malformed ones that are none."""

import random
import time
from collections.abc import Callable
from datetime import datetime
from zoneinfo import ZoneInfo

AGENTS = [
    b"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    b"Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148 Safari/604.1",
    b"Mozilla/5.0 (Linux; Android 14; CUBOT X18) AppleWebKit/537.36 Chrome/126.0 Mobile Safari/537.36",
    b"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    b"curl/7.88.1", b"python-requests/2.31", b"hikeshi-probe", b"hikeshi-health-check", b"ELB-HealthChecker/2.0",
    b"Pingdom.com_bot_version_1.4_(http://www.pingdom.com/)", b"-",
]  # fmt: skip
PATHS = [b"/", b"/catalogue/", b"/catalogue/lantern-03_3/", b"/basket/", b"/media/a.jpg", b"/media/b.WebP", b"/s/x.css",
         b"/s/x.min.js", b"/favicon.ico", b"/healthz", b"/a.b/c", b"/robots.txt", b"/checkout/?step=2"]  # fmt: skip
NOW = 1795737600  # 2026-11-27 00:00 UTC
BACK = chr(92).encode()


class Lines:
    """Draws lines of one log, in the order of time but for a few."""

    def __init__(self, seed: int, *, log_zone: str = "UTC") -> None:
        self.draw = random.Random(seed)
        self.now = float(NOW)
        self.log_zone = log_zone
        self.pace = 0.7

    def when(self) -> bytes:
        """Return the time of a web server's line."""
        self.now += self.draw.expovariate(1 / self.pace)
        at = self.now - (self.draw.random() < 0.02) * self.draw.uniform(0, 7200)
        offset = self.draw.choice([0] * 9 + [9 * 60, -210])  # a zone that changes within a log
        text = time.strftime("%d/%b/%Y:%H:%M:%S", time.gmtime(at + offset * 60))
        return f"{text} {'-' if offset < 0 else '+'}{abs(offset) // 60:02d}{abs(offset) % 60:02d}".encode()

    def client(self) -> bytes:
        """Return an address."""
        number = int(self.draw.paretovariate(0.7)) % 60000
        if self.draw.random() < 0.2:
            return f"2001:db8:{number >> 8:x}::{number & 255:x}".encode()
        return f"198.{18 + number % 2}.{number >> 8}.{number & 255}".encode()

    def agent(self) -> bytes:
        return self.draw.choice(AGENTS)

    def path(self) -> bytes:
        path = self.draw.choice(PATHS)
        return path + (b"?q=%d" % self.draw.randrange(999) if self.draw.random() < 0.3 and b"?" not in path else b"")

    def size(self) -> bytes:
        return b"%d" % self.draw.randrange(99999)

    def status(self) -> bytes:
        return self.draw.choice([b"200"] * 8 + [b"304", b"301", b"404", b"500", b"503", b"499"])

    def combined(self, **but: bytes) -> bytes:
        """Return a line of nginx or Apache, some of its fields being these."""
        method = self.draw.choice([b"GET"] * 9 + [b"POST", b"HEAD"])
        fields: dict[str, bytes] = {
            "client": self.client(), "user": b"-", "when": self.when(), "size": self.size(), "agent": self.agent(),
            "request": b"%b %b HTTP/1.1" % (method, self.path()), "status": self.status(), "after": b"",
            "referer": b"https://shop.example/", "ident": b"-", "before": b"",
        }  # fmt: skip
        line = (
            b'%(before)b%(client)b %(ident)b %(user)b [%(when)b] "%(request)b" %(status)b %(size)b '
            b'"%(referer)b" "%(agent)b"%(after)b'
        )
        return line % {name.encode(): value for name, value in (fields | but).items()}

    def common(self, after: bytes = b"") -> bytes:
        """Return a line without referer and agent."""
        return b'%b - - [%b] "GET %b HTTP/1.0" %b %b%b' % (
            self.client(), self.when(), self.path(), self.status(), self.size(), after,
        )  # fmt: skip

    def haproxy(self, **but: bytes) -> bytes:
        """Return a line of HAProxy, some of its fields being these."""
        self.now += self.draw.expovariate(1 / self.pace)
        local = datetime.fromtimestamp(self.now, ZoneInfo(self.log_zone))
        state, status = self.draw.choice(STATES)
        server = b"<NOSRV>" if state[1] in "RQC" or state[0] in "LP" else b"web1"
        fields: dict[str, bytes] = {
            "stamp": local.isoformat(timespec="microseconds").encode() + b" lb1 haproxy[812]: ",
            "client": self.client(), "date": local.strftime("%d/%b/%Y:%H:%M:%S.%f").encode()[:24], "front": b"shop",
            "backend": b"web", "server": server, "timers": b"0/0/1/12/13", "status": status.encode(),
            "size": self.size(), "cookies": b"- -", "state": state.encode(), "counts": b"5/5/1/1/0", "queues": b"0/0",
            "captures": b"{shop.example|%b} " % self.agent(), "request": b"GET %b HTTP/1.1" % self.path(), "after": b"",
            "quote": b'"',
        }  # fmt: skip
        line = (
            b"%(stamp)b%(client)b:50123 [%(date)b] %(front)b %(backend)b/%(server)b %(timers)b %(status)b %(size)b "
            b'%(cookies)b %(state)b %(counts)b %(queues)b %(captures)b"%(request)b%(quote)b%(after)b'
        )
        return line % {name.encode(): value for name, value in (fields | but).items()}


STATES = [
    *[("----", "200")] * 12, ("----", "503"), ("LR--", "302"), ("LR--", "503"), ("SC--", "503"), ("sC--", "503"),
    ("sQ--", "503"), ("PR--", "403"), ("PR--", "503"), ("PR--", "400"), ("PT--", "500"), ("PH--", "502"),
    ("SH--", "502"),
    ("sH--", "504"), ("SD--", "200"), ("CD--", "200"), ("CH--", "-1"), ("CC--", "-1"), ("CQ--", "503"), ("CR--", "400"),
    ("cR--", "408"), ("CR--", "-1"), ("cD--", "200"), ("RC--", "500"),
]  # fmt: skip

Kind = Callable[[Lines], bytes]

# Each is an access, whatever it looks like.
HOSTILE: dict[str, Kind] = {
    "TLS on the port of HTTP, as nginx writes it": lambda of: of.combined(request=rb"\x16\x03\x01\x00", status=b"400"),
    "TLS as raw bytes": lambda of: of.combined(request=b"\x16\x03\x01\x02\x00\xfc\x03", status=b"400"),
    "no request at all": lambda of: of.combined(request=b"", status=b"400"),
    "a request that is a dash": lambda of: of.combined(request=b"-", status=b"408"),
    "a request of 60 kB": lambda of: of.combined(request=b"GET /" + b"A" * 60000 + b" HTTP/1.1", status=b"414"),
    "a path of 60 kB that differs at its end": lambda of: of.combined(
        request=b"GET /" + b"B" * 60000 + of.size() + b" HTTP/1.1"
    ),
    "not UTF-8": lambda of: of.combined(request=b"GET /\xff\xfe\x80 HTTP/1.1", agent=b"\xc3\x28\xff"),
    "NUL": lambda of: of.combined(request=b"GET /a\x00b HTTP/1.1", agent=b"a\x00b"),
    "a carriage return within": lambda of: of.combined(agent=b"Mozilla\r127.0.0.1 - - x"),
    "other line ends than LF": lambda of: of.combined(agent=b"a\x0bb\x0cc\xc2\x85d\xe2\x80\xa8e\x1cf"),
    "a TAB": lambda of: of.combined(request=b"GET /a\tb HTTP/1.1", agent=b"a\tb"),
    "a quote in the agent, as Apache escapes it": lambda of: of.combined(agent=rb"a\" 200 5 \"x"),
    "a quote in the agent, as nginx escapes it": lambda of: of.combined(agent=rb"a\x22 200 5 \x22x"),
    "a quote in the request": lambda of: of.combined(request=b"GET /" + BACK + b'" HTTP/1.1'),
    "an agent that ends in a backslash": lambda of: of.combined(agent=b"evil" + BACK * 2),
    "an agent of a backslash and a quote": lambda of: of.combined(agent=BACK * 3 + b'"'),
    "many backslashes": lambda of: of.combined(agent=BACK * 4000),
    "a user with spaces": lambda of: of.combined(user=b"a b  c"),
    "a user with a forged time": lambda of: of.combined(user=b"x [01/Jan/2020:00:00:00 +0000] GET / 200 5"),
    "a user with a forged line": lambda of: of.combined(
        user=b"x [01/Jan/2020:00:00:00 +0000] " + BACK + b'"GET / HTTP/1.1' + BACK + b'" 200 5'
    ),
    "an empty user, as Apache writes it": lambda of: of.combined(user=b'""'),
    "a user that is a bracket": lambda of: of.combined(user=b"["),
    "an answer of the ident protocol": lambda of: of.combined(ident=b"root"),
    "a forged line within the agent": lambda of: of.combined(
        agent=rb"x\x22\n1.2.3.4 - - [27/Nov/2026:00:00:00 +0000] \x22GET /"
    ),
    "a forged line within the referer": lambda of: of.combined(referer=rb"\" \"bot\"\n1.2.3.4 - - "),
    "a proxy's request": lambda of: of.combined(request=b"GET http://other.example/x.png?y HTTP/1.1"),
    "a proxy's request without a path": lambda of: of.combined(request=b"GET http://other.example HTTP/1.1"),
    "a tunnel's request": lambda of: of.combined(request=b"CONNECT other.example:443 HTTP/1.1", status=b"405"),
    "a path with spaces": lambda of: of.combined(request=b"GET /a b c HTTP/1.1"),
    "a path that ends as a protocol": lambda of: of.combined(request=b"GET /x HTTP/1.1 HTTP/1.1"),
    "HTTP/0.9": lambda of: of.combined(request=b"GET /old"),
    "HTTP/2": lambda of: of.combined(request=b"GET /new HTTP/2.0"),
    "a method nobody knows": lambda of: of.combined(request=b"M-SEARCH * HTTP/1.1"),
    "a method in small letters": lambda of: of.combined(request=b"get / HTTP/1.1"),
    "a query only": lambda of: of.combined(request=b"GET ?x=1 HTTP/1.1"),
    "a query with blanks": lambda of: of.combined(request=b"GET /find?q=a b c HTTP/1.1"),
    "escape sequences of a terminal": lambda of: of.combined(
        agent=b"\x1b]0;x\x07\x1b[31m", request=b"GET /\x1b[2J HTTP/1.1"
    ),
    "a template": lambda of: of.combined(agent=b"{{ lookup('pipe', 'id') }}", request=b"GET /{{7*7}} HTTP/1.1"),
    "no size": lambda of: of.combined(size=b"-", status=b"304"),
    "a size of twenty digits": lambda of: of.combined(size=b"99999999999999999999"),
    "a status that nobody knows": lambda of: of.combined(status=b"999"),
    "a leap second": lambda of: of.combined(when=b"31/Dec/2026:23:59:59 +0000"),
    "a client by name": lambda of: of.combined(client=b"host-1.example.net"),
    "an address of IPv4 within IPv6": lambda of: of.combined(client=b"::ffff:198.18.0.7"),
    "a client of 5 kB": lambda of: of.combined(client=b"x" * 5000),
    "a virtual host before it": lambda of: of.combined(before=b"www.shop.example:443 "),
    "a virtual host before IPv6": lambda of: of.combined(before=b"www.shop.example:80 ", client=b"2001:db8::9"),
    "a virtual host without a port": lambda of: of.combined(before=b"www.shop.example "),
    "a virtual host that is an address": lambda of: of.combined(before=b"203.0.113.4 "),
    "a virtual host before a name": lambda of: of.combined(before=b"shop ", client=b"host-1.example.net"),
    "a virtual host, and a user with spaces": lambda of: of.combined(before=b"www.shop.example ", user=b"a b - c"),
    "a virtual host, and an empty user": lambda of: of.combined(before=b"www.shop.example ", user=b'""'),
    "a name, and a user like a host": lambda of: of.combined(client=b"host-1.example.net", user=b"b 9.9.9.9"),
    "a list of addresses": lambda of: of.combined(client=b"203.0.113.9, 10.0.0.1, 198.18.0.7"),
    "a list of addresses without blanks": lambda of: of.combined(client=b"203.0.113.9,198.18.0.8"),
    "a list of addresses behind a virtual host": lambda of: of.combined(
        before=b"shop.example:80 ", client=b"unknown, 198.18.0.7"
    ),
    "fields after it": lambda of: of.combined(after=b' "203.0.113.9, 10.0.0.1" 0.012 "-" . x'),
    "an agent that looks like fields": lambda of: of.combined(agent=rb"- [27/Nov/2026] GET / HTTP/1.1 200 5"),
    "common, without an agent": lambda of: of.common(),
    "common, with fields after it": lambda of: of.common(b" 0.123 upstream"),
    "an agent of 9 kB": lambda of: of.combined(agent=b"Z" * 9000 + of.size()),
    "a path that only looks like a picture": lambda of: of.combined(request=b"GET /a.png/../b HTTP/1.1"),
    "a digit that is none": lambda of: of.combined(agent="٣".encode()),
}  # fmt: skip
MALFORMED: dict[str, Kind] = {
    "nothing": lambda of: b"",
    "a blank": lambda of: b" ",
    "junk": lambda of: b"hello world",
    "NULs": lambda of: b"\x00" * 300,
    "an error log's line": lambda of: b"2026/11/27 08:00:00 [error] 12#12: *1 open() failed (2: No such file)",
    "cut within the client": lambda of: of.combined()[:4],
    "cut within the time": lambda of: of.combined()[:40],
    "cut within the request": lambda of: of.combined(request=b"GET /" + b"c" * 50 + b" HTTP/1.1").partition(b"ccc")[0],
    "cut before the status": lambda of: of.combined().partition(b'HTTP/1.1" ')[0] + b'"',
    "cut within the referer": lambda of: of.combined().partition(b"shop.exam")[0],
    "cut within the agent": lambda of: of.combined(agent=b"Mozilla/5.0")[:-4],
    "cut behind a backslash": lambda of: of.combined(agent=b"evil" + BACK)[:-1],
    "a quote that is not escaped": lambda of: of.combined(agent=b'a"b'),
    "a list of addresses without its end": lambda of: of.combined(client=b"198.18.0.1,"),
    "no brackets": lambda of: of.combined().replace(b"[", b"").replace(b"]", b""),
    "a day that does not exist": lambda of: of.combined(when=b"31/Feb/2026:08:00:00 +0000"),
    "a month that does not exist": lambda of: of.combined(when=b"27/Nvo/2026:08:00:00 +0000"),
    "an hour that does not exist": lambda of: of.combined(when=b"27/Nov/2026:25:00:00 +0000"),
    "no zone": lambda of: of.combined(when=b"27/Nov/2026:08:00:00      "),
    "an offset that does not exist": lambda of: of.combined(when=b"27/Nov/2026:08:00:00 +9900"),
    "a year before the web": lambda of: of.combined(when=b"27/Nov/1066:08:00:00 +0000"),
    "a status of two digits": lambda of: of.combined(status=b"20"),
    "a status of letters": lambda of: of.combined(status=b"OK!"),
    "a negative size": lambda of: of.combined(size=b"-5"),
    "a size of 5,000 digits": lambda of: of.combined(size=b"9" * 5000),
    "two lines glued": lambda of: of.common() + of.common(),
    "JSON": lambda of: b'{"client": "198.18.0.1", "status": 200}',
    "longer than a megabyte": lambda of: of.combined(agent=b"L" * ((1 << 20) + 7)),
}  # fmt: skip
LB_HOSTILE: dict[str, Kind] = {
    "no request": lambda of: of.haproxy(request=b"<BADREQ>", state=b"PR--", status=b"400", server=b"<NOSRV>"),
    "a quote, as HAProxy writes it": lambda of: of.haproxy(request=b"GET /#22 HTTP/1.1", captures=b"{a|b#22c} "),
    "spaces in captures": lambda of: of.haproxy(captures=b"{a b c|d  e [27/Nov/2026] 200 5} "),
    "a forged end in a capture": lambda of: of.haproxy(captures=b"{x ---- 1/1/1/1/1 0/0 |y ---- 1/1/1/1/1 0/0 } "),
    "a forged end in a cookie": lambda of: of.haproxy(cookies=b"a=b ---- 1/1/1/1/1 0/0 {evil|bot} -"),
    "spaces in a cookie": lambda of: of.haproxy(cookies=b"session=a b c d -"),
    "captures of the answer": lambda of: of.haproxy(captures=b"{shop|curl/7.88.1} {gunicorn} "),
    "no captures": lambda of: of.haproxy(captures=b""),
    "empty captures": lambda of: of.haproxy(captures=b"{|} "),
    "cut off by syslog": lambda of: of.haproxy(request=b"GET /" + b"a" * 900, quote=b""),
    "IPv6": lambda of: of.haproxy(client=b"2001:db8::1"),
    "a socket": lambda of: of.haproxy(client=b"unix"),
    "a status of -1": lambda of: of.haproxy(state=b"CH--", status=b"-1"),
    "logged as soon as possible": lambda of: of.haproxy(size=b"+412", timers=b"0/0/1/12/+13"),
    "tried again": lambda of: of.haproxy(counts=b"5/5/1/1/+3"),
    "the sorry backend": lambda of: of.haproxy(backend=b"sorry", server=b"page"),
    "TLS in front": lambda of: of.haproxy(front=b"shop~"),
    "HTTP/2": lambda of: of.haproxy(request=b"GET https://shop.example/x.png HTTP/2.0"),
    "not UTF-8": lambda of: of.haproxy(request=b"GET /\xff HTTP/1.1"),
    "fields after it": lambda of: of.haproxy(after=b" 0/0/0/0/0 shop.example/TLSv1.3"),
    "no syslog header": lambda of: of.haproxy().partition(b"]: ")[2],
    "another program's name": lambda of: of.haproxy().replace(b"haproxy[812]", b"hapee-lb[9]"),
    "a time in UTC": lambda of: _in_utc(of),
    "RFC 5424": lambda of: _in_rfc_5424(of),
    "a priority": lambda of: b"<134>" + of.haproxy(),
    "an open brace": lambda of: of.haproxy(cookies=b"{ -"),
    "a comma of a time": lambda of: of.haproxy(captures=b"{shop|x [27/Nov/2026:08:00:00.000] y} "),
}  # fmt: skip
LB_MALFORMED: dict[str, Kind] = {
    "a notice": lambda of: of.haproxy().partition(b"]: ")[0] + b"]: Server web/web1 is DOWN, reason: Layer7 timeout",
    "nothing": lambda of: b"",
    "junk": lambda of: b"\x00\x01 junk",
    "TCP": lambda of: of.haproxy().partition(b" 0/0/1/12/13 ")[0] + b" 0/0/5 212 -- 0/0/0/0/0 0/0",
    "cut before the request": lambda of: of.haproxy().partition(b'"')[0],
    "cut within the captures": lambda of: of.haproxy(captures=b"{shop|Mozilla} ").partition(b"zilla")[0] + b'"',
    "cut within the date": lambda of: of.haproxy().partition(b":50123 [2")[0],
    "no backend": lambda of: of.haproxy(backend=b"").replace(b" /", b" "),
    "a status of letters": lambda of: of.haproxy(status=b"abc"),
    "a size of 5,000 digits": lambda of: of.haproxy(size=b"9" * 5000),
    "a month that does not exist": lambda of: of.haproxy(date=b"27/Nvo/2026:08:00:00.000"),
    "a day that does not exist": lambda of: of.haproxy(date=b"31/Feb/2026:08:00:00.000"),
    "a state of three letters": lambda of: of.haproxy(state=b"---"),
    "no port": lambda of: of.haproxy(client=b"198.18.0.1").replace(b":50123 ", b" "),  # of IPv6 a group would be one
    "a quote within": lambda of: of.haproxy(request=b'GET /"x HTTP/1.1'),
    "no counts": lambda of: of.haproxy(counts=b"-"),
}  # fmt: skip


def _in_utc(of: Lines) -> bytes:
    now = time.gmtime(of.now)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ lb1 haproxy[812]: ", now).encode()
    return of.haproxy(stamp=stamp, date=time.strftime("%d/%b/%Y:%H:%M:%S.123", now).encode())


def _in_rfc_5424(of: Lines) -> bytes:
    stamp = datetime.fromtimestamp(of.now, ZoneInfo("Asia/Kathmandu"))
    return of.haproxy(
        stamp=stamp.isoformat(timespec="microseconds").join(["<134>1 ", " lb1 haproxy 812 - - "]).encode(),
        date=stamp.strftime("%d/%b/%Y:%H:%M:%S.123").encode(),
    )


def drawn(of: Lines, number: int, role: str = "w", odd: float = 0.03) -> list[bytes]:
    """Return lines of which a share is hostile, and as many are malformed; each kind comes as often as another."""
    hostile, malformed = (HOSTILE, MALFORMED) if role == "w" else (LB_HOSTILE, LB_MALFORMED)
    ordinary: Kind = Lines.combined if role == "w" else Lines.haproxy
    # What is very long is drawn seldom, or a million lines would be gigabytes.
    kinds: list[tuple[list[Kind], float]] = [([ordinary], 1 - 2 * odd)]
    kinds += [(list(kind.values()), odd) for kind in (hostile, malformed)]
    made = []
    for _ in range(number):
        some = of.draw.choices([names for names, _ in kinds], [weight for _, weight in kinds])[0]
        line = of.draw.choice(some)(of)
        if len(line) > 4000 and of.draw.random() < 0.97:
            line = ordinary(of)
        made.append(line)
    return made
