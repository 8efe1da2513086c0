#!/usr/bin/python3
"""Count the accesses that this host's logs hold: exactly, in bounded memory. Standard library only.

    count files [options] FILE…             count these files; writes nothing here
    count store --store DIR [options] FILE… read what is new since the last time into DIR
    count answer --store DIR [options]      answer from DIR; with FILE… read what is new first
    count auto --store DIR [options] FILE…  answer where DIR is, else count the files
    count follow FILE                       a line of JSON each second on what HAProxy logs, after one on its past
    count trim --store DIR [options] FILE…  remove rotated logs that were counted, and are too old or too many

Files in, a *partial* out: gzip'd text, a line of JSON that says the method (files, ranges, lines, malformed, …), then
sorted lines of counts, then `end` and their number. A line is a key, a TAB, what adds up, at times a TAB and a text:

    c CLIENT SLOT GROUP        hits      [address]    CLIENT, PATH, VISITOR: keyed BLAKE2 digests, 128 bits
    n SLOT GROUP KIND STATUS OUTCOME     hits bytes   SLOT: begin of minute, hour or day, minutes since 1970
    p PATH SLOT GROUP          hits      path         GROUP: w web server or l load balancer; then p people, b declared
    v VISITOR SLOT GROUP                              bots, m probes, h health checks, n no request at all

A visitor is a client and its agent. Keys add up over hosts, so that partials merge by merging sorted lines; no address
leaves a host unless --addresses asks for it. The same lines, by the minute, are what DIR holds (`segments`) and what
is spilled to disk when memory is short.

What was read is kept in DIR/state.json, which names the segments: one rename commits both. A log is known by its first
bytes, whatever it is called, renamed to, or compressed into, and by those before the place where reading ended.

Logs: nginx and Apache combined, common, with a virtual host before and any fields after; HAProxy httplog, with or
without a syslog header. A line without its line end is not read yet. Lines are split at LF only, and are bytes: all
of it may be hostile.
"""

import argparse
import collections
import contextlib
import datetime
import errno
import fcntl
import fnmatch
import functools
import glob
import gzip
import hashlib
import heapq
import io
import ipaddress
import itertools
import json
import multiprocessing
import operator
import os
import queue
import re
import resource
import socket
import stat
import subprocess
import sys
import tempfile
import time
import zlib
import zoneinfo

SCHEMA = 1
KEY = "HIKESHI_COUNT_KEY"
BLOCK = 256 << 10
LINE_MOST = 1 << 20  # bytes of a line; a longer one is malformed, and is not held in memory
HEAD = 4096  # bytes by which a log is looked for, and as many before the place where reading ended
TEXT_MOST = 400  # bytes of a path or an agent that are kept; the digest of a longer one stands for the rest
CLIENT_MOST = 200
SAMPLES, SAMPLE_MOST = 8, 300
FORMAT_LINES, HTTPLOG = 50, "HAProxy httplog"
FATES = ("lines", "counted", "malformed", "pending")  # the first is the sum of the others
MEMO_MOST, MEMO_TEXT_MOST = 20_000, 1024
ENTRY = 260  # bytes that an entry of a table takes: its place in the dictionary, the tuple, the client
UNIT = 64 << 20  # bytes of a plain file that one process takes at a time
SEGMENTS_MOST = 8
FOLLOWED = 40  # clients, networks, agents and paths of a second that are told
# Requests/s, and share of one path: a flood in the past.
FLOOD_CLIENT, FLOOD_NETWORK, FLOOD_AGENT, FLOOD_SAME = 5, 15, 15, 0.8
FOLLOW_S, FOLLOW_PAST = 5, 8 << 20  # over how many seconds a rate is, and bytes of the past that it is compared with
COPY_KINDS = ((b"\x1f\x8b", "gz"), (b"\x28\xb5\x2f\xfd", "zst"))
ROTATED = re.compile(r"(\.\d+|-\d{8}(-\d+)?)?(\.gz|\.zst)?$")
MONTHS = {name: number for number, name in enumerate(b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), 1)}
NO_SERVER = b"<NOSRV>"
NO_REQUEST = (b"CR", b"cR")  # states of those who sent none, or only a part
SECONDS = frozenset(b":%02d" % second for second in range(61))
SLOT, NO_SLOT = b"%09d", b"000000000"  # a minute; of what is counted over the whole window, none
YEARS = range(1971, 2200)  # whose minutes have nine digits at most

# Every repetition is possessive or bounded by the next quote, so that the worst line takes time in proportion to its
# length. The last alternative takes a line that is not the usual one whole; `careful` looks at it again.
Q = rb'[^"\\\n]*+(?:\\[^\n][^"\\\n]*+)*+'  # within quotes; Apache escapes a quote by \", nginx by \x22
WEB_FAST = re.compile(
    rb'(?:([^\s",]++) - (?:-|[^\s"\\\[]++|"") \[([^\]"\n]{26})\] '
    # Of a request what stands before its query: there are far fewer of these, and each is looked at once.
    rb'"([A-Z][A-Z_-]{0,29} [^"\\\s?]++)(?:\?' + Q + rb')?+(?: HTTP/\d(?:\.\d)?)?+" (\d{3}) (\d{1,20}+|-)'
    rb'(?: "' + Q + rb'" "(' + Q + rb')"|(?! "))(?: [^\n]*+)?+|([^\n]*+))\n'
)  # fmt: skip
WEB_EMPTY_USER = re.compile(rb'([^\s"]+) ([^\s"]+) ((?:[^\s"]+ )*+)"" \[([^\]"]{26})\] "')
# Neither a user's name nor anything else before the request holds a quote: the time is what stands right before it.
WEB_HEAD = re.compile(rb'([^\s"]+) ([^\s"]+) ([^"\\]*+(?:\\.[^"\\]*+)*+)"', re.DOTALL)
ADDRESS = re.compile(rb"[0-9A-Fa-f]*[.:][0-9A-Fa-f.:]*")
WEB_TAIL = re.compile(
    rb"(" + Q + rb')" (\d{3}) (\d{1,20}|-)(?: "' + Q + rb'" "(' + Q + rb')"|(?! "))(?: .*+)?\Z', re.DOTALL
)
LB_FRONT = (
    rb'([^\s"\[]+):\d+ \[([^\]\s"]{17}):\d\d\.\d{3}\] [^\s"]+ ([^\s"/]+)/([^\s"]+) [-+\d/]+ (-1|\d{3}) \+?(\d{1,20}) '
)
LB_BACK = rb'([A-Za-z-]{4}) [\d/+]+ [\d/]+ (?:\{([^{}"\n]*+)\} )?(?:\{[^{}"\n]*+\} )?'
LB_FAST = re.compile(
    rb'(?:(?:([^ <\n][^ \n]*) [^\n\["]*\[\d+\]: )?' + LB_FRONT + rb'[^\s"]+ [^\s"]+ ' + LB_BACK
    + rb'"([A-Z][A-Z_-]{0,29} [^"\s?]++)(?:\?[^"\n]*+)?+(?: HTTP/\d(?:\.\d)?)?+"(?: [^\n]*+)?+|([^\n]*+))\n'
)  # fmt: skip
# Before syslog's time there may be a priority, and in RFC 5424 a version.
LB_HEAD = re.compile(
    rb'(?:<\d{1,3}>(?:\d{1,2} )?)?+(?:([^\s"]+) [^\["]*\[\d+\]: |([^\s"]+) (?:[^\["]* )??|)' + LB_FRONT
)
# What stands in a cookie may look like this too, but comes before it: HAProxy writes a quote in anything as #22.
LB_END = re.compile(rb" " + LB_BACK + rb"\Z")
CLIENT = {WEB_FAST: 0, LB_FAST: 1}  # which group is never empty in a line that was read
STAMP = re.compile(rb"\d{4}-\d\d-\d\dT[^\s]*?(Z|[+-]\d\d:\d\d)\Z")

REQUEST = re.compile(rb"([A-Z][A-Z_-]{0,29}) (.+?)(?: HTTP/\d(?:\.\d)?)?\Z", re.DOTALL)
ORIGIN = re.compile(rb"\A[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")
PICTURES = frozenset(b"png jpg jpeg jpe gif webp avif svg ico bmp heic tif tiff".split())
ASSETS = frozenset(b"css js mjs map woff woff2 ttf otf eot webmanifest wasm mp4 webm mp3 json xml txt".split())
CHECKS = re.compile(rb"(?i)health-?check|ELB-|GoogleHC|kube-probe|\AHAProxy|Consul Health|\Acheck_http")
PROBES = re.compile(rb"(?i)hikeshi-probe|uptime|pingdom|statuscake|site24x7|monitor|nagios|zabbix|blackbox|newrelic")
BOTS = re.compile(
    rb"(?i)(?<!cu)bot(?![a-z])|crawl|spider|slurp|archiver|facebookexternalhit|mediapartners|preview|fetch|scan|"
    rb"\A(curl|wget|python|java|go-http|okhttp|libwww|httpx|aiohttp|ruby|perl|php|axios|node)|headless|zgrab|masscan|nikto"
)


class RefusedError(Exception):
    """Not done; the words say why, and what to do."""


@contextlib.contextmanager
def writing(what, place, cure="make room there"):
    """Refuse, with what cannot be written where, when a disk is full or fails."""
    try:
        yield
    except OSError as error:
        raise RefusedError(f"{what} cannot be written to {place}: {error.strerror or error}; {cure}") from error


# What a line says


def kind_of(method, path):
    """Return what was asked for: page, picture, asset, or other (not by GET or HEAD)."""
    if method not in (b"GET", b"HEAD"):
        return b"other"
    name = path[path.rfind(b"/") + 1 :]
    ending = name[name.rfind(b".") + 1 :].lower() if b"." in name else b""
    return b"picture" if ending in PICTURES else b"asset" if ending in ASSETS else b"page"


def asked(request):
    """Return (kind, path) of a request line, its query left out; (none, '') where it is no request."""
    found = REQUEST.match(request)
    if not found:
        return b"none", b""
    method, target = found.groups()
    if method != b"CONNECT":
        target = ORIGIN.sub(b"", target, count=1) or b"/"
    path = target.partition(b"?")[0] or b"/"
    return kind_of(method, path), path


def class_of(agent):
    """Return the letter of who an agent says it is; nobody has to tell the truth."""
    if CHECKS.search(agent):
        return b"h"
    if PROBES.search(agent):
        return b"m"
    return b"b" if BOTS.search(agent) else b"p"


def outcome_of(sorry, unserved, state, status):
    """Return what the load balancer did with a request, by its termination state: NOSRV alone says nothing.

    served: a server answered · local: the load balancer answered itself · sorry: with its sorry page · refused: denied,
    or for want of room · failed: the server broke off or was too slow · unreached: no server was got, and no sorry
    page shown · aborted: the client broke off · left: it did before a server had the request.
    """
    first, second = state[:1], state[1:2]
    away = unserved or second in b"RQC"
    if sorry:
        return b"sorry"
    if first in b"Cc" and first != b"-":
        return b"left" if away else b"aborted"
    if status == b"503" and (first in b"LP" or (first != b"-" and second in b"CQ")):
        return b"sorry"
    if first == b"-":
        return b"served"
    if first == b"L":
        return b"local"
    if first == b"R" or (first == b"P" and second not in b"HDL"):
        return b"refused"
    return b"unreached" if away else b"failed"


def shortened(text, most=TEXT_MOST):
    """Return a text that is at most `most` bytes; of a longer one the digest keeps it apart from all others."""
    if len(text) <= most:
        return text
    return b"%b...%b.%d" % (text[: most // 2], hashlib.blake2b(text, digest_size=16).hexdigest().encode(), len(text))


def client_of(first, second, others):
    """Return the client, by the fields of a line before its time: a virtual host may stand before it.

    Then there is a field more than client, ident and user, and ident, which nobody fills in any more, is no dash or is
    an address. A user's name may hold blanks, but comes after these. Of a list that X-Forwarded-For brought only the
    last address was written by the server's own proxy; those before it may be anybody's words.
    """
    fields = [first, second, *others]
    named = len(others) > 1 and second != b"-" and others[0] == b"-" and not ADDRESS.fullmatch(first)
    if not first.endswith(b",") and (named or second.endswith(b",") or ADDRESS.fullmatch(second)):
        del fields[0]
    place = next((place for place, field in enumerate(fields) if not field.endswith(b",")), 0)
    client = fields[place].rpartition(b",")[2]
    if (place and len(fields) < place + 3) or len(client.split()) != 1 or b'"' in client:
        raise ValueError("no client, but a list of addresses without its end")
    return client


def careful_web(line):
    """Return (client, time, request, status, bytes, agent) of a line of a web server; raise ValueError, saying why."""
    found = WEB_EMPTY_USER.match(line)
    if found:
        first, second, others, when = found.groups()
        others += b'""'
    else:
        found = WEB_HEAD.match(line)
        if not found:
            raise ValueError("no client, or no request within quotes")
        first, second, before = found.groups()
        if before[-2:] != b"] " or before[-30:-28] != b" [" or len(before) < 31:
            raise ValueError("no user and time before the request")
        others, when = before[:-30], before[-28:-2]
    client = client_of(first, second, others.split(b" "))
    rest = WEB_TAIL.match(line, found.end())
    if not rest:
        raise ValueError("no end of the request, status, bytes, or an open quote after them")
    request, status, size, agent = rest.groups()
    return client, when, request, status, size, agent or b""


def careful_lb(line):
    """Return (stamp, client, date, backend, server, status, bytes, state, captures, request) of a line of HAProxy."""
    quote = line.find(b'"')
    if quote < 0:
        raise ValueError("no request: a notice, or cut off before it")
    front = LB_HEAD.match(line[:quote])
    if not front:
        raise ValueError("no client, date, backend and status before the request")
    end = LB_END.search(line[:quote], front.end() - 1)
    if not end:
        raise ValueError("no termination state before the request")
    stamp, other, *fields = front.groups()
    request = line[quote + 1 :].partition(b'"')
    if request[2] and not request[2].startswith(b" "):
        raise ValueError("a quote within the request")
    return (stamp or other or b"", *fields, end[1], end[2] or b"", request[0])


def minute_of(date, offset, zone):
    """Return the minute since 1970 (UTC) of '27/Nov/2026:08:37' at an offset in minutes, or in a zone without one."""
    day, month, year, hour, minute = date[:2], date[3:6], date[7:11], date[12:14], date[15:17]
    if date[2:3] + date[6:7] + date[11:12] + date[14:15] != b"//::":
        raise ValueError
    if not (day + year + hour + minute).isdigit() or len(date) != 17:
        raise ValueError
    if int(year) not in YEARS:
        raise ValueError
    local = datetime.datetime(int(year), MONTHS[month], int(day), int(hour), int(minute))
    if offset is None:
        return int(local.replace(tzinfo=zone).timestamp() if zone else local.timestamp()) // 60
    return int(local.replace(tzinfo=datetime.UTC).timestamp()) // 60 - offset


def offset_of(text):
    """Return the minutes of +0900 or +09:00."""
    text = text.replace(b":", b"")
    if len(text) != 5 or text[:1] not in b"+-" or not text[1:].isdigit() or text[3:5] > b"59" or text[1:3] > b"23":
        raise ValueError
    return (-1 if text[:1] == b"-" else 1) * (int(text[1:3]) * 60 + int(text[3:5]))


class Window:
    """From when to when is counted, and by what; minutes since 1970."""

    def __init__(self, since=None, until=None, by="all", zone="UTC"):
        """Begin and end may be open; until is not in it."""
        self.since, self.until, self.by = since, until, by
        try:
            self.zone = zoneinfo.ZoneInfo(zone)
        except (OSError, ValueError, KeyError) as error:
            raise RefusedError(f"time zone '{zone}' is not known here; apt-get install tzdata") from error
        self.name = zone

    def slot(self, minute):
        """Return the begin of a minute's slot, or None outside the window."""
        if (self.since is not None and minute < self.since) or (self.until is not None and minute >= self.until):
            return None
        if self.by == "all":
            return 0
        if self.by == "minute":
            return minute
        local = datetime.datetime.fromtimestamp(minute * 60, self.zone)
        if self.by == "hour":
            return minute - local.minute
        # Where midnight comes twice, the day begins with the first.
        return int(local.replace(hour=0, minute=0, fold=0).timestamp()) // 60

    def as_data(self):
        """Return it as plain data."""
        return {"since": self.since, "until": self.until, "by": self.by, "zone": self.name}


EVERY_MINUTE = Window(by="minute")


class Memo(dict):
    """What was made of each value, so that it is made once; bounded, because values are hostile."""

    def __init__(self, make):
        """Make what is missing by `make`."""
        super().__init__()
        self.make = make

    def __missing__(self, key):
        """Make it, and remember it."""
        made = self.make(key)
        if len(self) >= MEMO_MOST:
            self.clear()
        if len(key) <= MEMO_TEXT_MOST:
            self[key] = made
        return made


# What is counted


class Cells:
    """Tables of counts in memory, spilled as sorted runs to disk before they take more than they may."""

    def __init__(self, key, window, *, fine=False, addresses=True, most=200 << 20, folder=None):
        """With `fine`, paths and clients are kept by the slot too; else over the whole window."""
        self.key, self.window, self.fine, self.addresses = key, window, fine, addresses
        self.most, self.folder = most, folder
        self.slots, self.runs, self.strings, self.entries = {}, [], 0, 0
        self.paths = collections.Counter()

    def slot(self, start):
        """Return the tables of a slot: hits, bytes, paths, visitors."""
        found = self.slots.get(start)
        if found is None:
            paths = collections.Counter() if self.fine else self.paths
            found = self.slots[start] = (collections.Counter(), {}, paths, collections.Counter())
            self.strings += 2000
        return found

    def full(self):
        """Say whether there is too much to go on without spilling."""
        return self.entries * ENTRY + self.strings > self.most

    def lines(self):
        """Return all there is as sorted lines, and forget it."""
        made = []
        digest = {letter: hashlib.blake2b(letter, key=self.key, digest_size=16) for letter in (b"c", b"p", b"v")}

        def of(letter, text):
            one = digest[letter].copy()
            one.update(text)
            return one.hexdigest().encode()

        clients, known = {}, {}  # digests of this call: a visitor comes in many slots
        for start, (numbers, sizes, paths, visitors) in self.slots.items():
            slot = SLOT % start
            made += (b"n %b %b %b %b %b\t%d %d" % (slot, *key, hits, sizes[key]) for key, hits in numbers.items())
            if self.fine:
                made += (b"p %b %b %b\t%d\t%b" % (of(b"p", path), slot, group, hits, path)
                         for (path, group), hits in paths.items())  # fmt: skip
                clients.clear()
            for visitor, hits in visitors.items():
                logged, (group, agent) = visitor
                name = known.get(visitor)
                client = logged.removeprefix(b"::ffff:")
                if name is None:
                    name = known[visitor] = of(b"v", b"%d %b%b" % (len(client), client, agent))
                # One that was logged in both ways is one visitor.
                if len(client) == len(logged) or (client, visitor[1]) not in visitors:
                    made.append(b"v %b %b %b\t" % (name, slot, group))
                both = client, group
                clients[both] = clients.get(both, 0) + hits
            visitors.clear()
            if self.fine:
                made += self._clients(clients, slot, of)
        if not self.fine:
            made += (b"p %b %b %b\t%d\t%b" % (of(b"p", path), NO_SLOT, group, hits, path)
                     for (path, group), hits in self.paths.items())  # fmt: skip
            made += self._clients(clients, NO_SLOT, of)
        self.slots, self.paths, self.strings, self.entries = {}, collections.Counter(), 0, 0
        made.sort()
        return made

    def _clients(self, clients, slot, of):
        for (client, group), hits in clients.items():
            text = b"\t" + client if self.addresses else b""
            yield b"c %b %b %b\t%d%b" % (of(b"c", client), slot, group, hits, text)

    def spill(self):
        """Write all there is to disk, as one sorted run of a file that has no name any more."""
        run = tempfile.TemporaryFile(dir=self.folder, buffering=1 << 20)  # noqa: SIM115 (it is read at the end)
        write_run(run, self.lines(), self.folder)
        self.runs.append(run)

    def all(self):
        """Yield every line, in order, each key once."""
        if not self.runs:
            yield from self.lines()
            return
        self.spill()
        for run in self.runs:
            run.seek(0)
        yield from combined(heapq.merge(*map(stripped, self.runs)))
        self.runs = []


def write_run(run, lines, folder):
    """Write lines to a temporary file, which is read through another buffer."""
    cure = "make room there, or name another folder by --spill"
    with (
        writing("what does not fit into memory", folder or tempfile.gettempdir(), cure),
        open(run.fileno(), "wb", buffering=1 << 20, closefd=False) as out,
    ):
        out.writelines(line + b"\n" for line in lines)


def stripped(lines):
    """Yield lines without their line ends."""
    for line in lines:
        yield line[:-1]


def combined(lines):
    """Yield lines of which each key comes once: those that are equal are added up."""
    last = sums = text = None
    for line in lines:
        key, _, rest = line.partition(b"\t")
        if key != last:
            if last is not None:
                yield _joined(last, sums, text)
            last, sums, text = key, rest, None
            continue
        if not rest:
            continue
        if isinstance(sums, bytes):
            head, tab, tail = sums.partition(b"\t")
            sums, text = [int(part) for part in head.split()], tab + tail
        more = rest.partition(b"\t")[0].split()
        sums = [one + int(two) for one, two in zip(sums, more, strict=True)]
    if last is not None:
        yield _joined(last, sums, text)


def _joined(key, sums, text):
    if isinstance(sums, bytes):
        return key + b"\t" + sums
    return key + b"\t" + b" ".join(b"%d" % part for part in sums) + text


def fitted(lines, window, addresses):
    """Yield lines by the minute as lines of a window's slots, in order, each key once."""
    numbers, slots, held, last = {}, {}, {}, None
    for line in lines:
        key, _, rest = line.partition(b"\t")
        table, *parts = key.split(b" ")
        minute = parts[-2] if table != b"n" else parts[0]
        if numbers and table != b"n":
            yield from flushed(numbers)
        slot = slots.get(minute)
        if slot is None:
            start = window.slot(int(minute))
            slot = slots[minute] = b"" if start is None else SLOT % start
        if not slot:
            continue
        if table == b"n":
            yield from flushed(held)
            add(numbers, b"n %b %b" % (slot, b" ".join(parts[1:])), rest)
            continue
        if (table, parts[0]) != last:  # of one client, path or visitor there are no more lines than minutes
            yield from flushed(held)
            last = table, parts[0]
        if table == b"v":
            held[b"v %b %b %b" % (parts[0], slot, parts[2])] = None
            continue
        if table == b"c" and not addresses:
            rest = rest.partition(b"\t")[0]
        add(held, b"%b %b %b %b" % (table, parts[0], NO_SLOT, parts[2]), rest)
    yield from flushed(held)
    yield from flushed(numbers)


def add(table, key, rest):
    """Add up what stands behind a key."""
    known = table.get(key)
    if known is None:
        head, tab, text = rest.partition(b"\t")
        table[key] = [tab + text, *map(int, head.split(b" "))]
        return
    for place, number in enumerate(rest.partition(b"\t")[0].split(b" "), 1):
        known[place] += int(number)


def flushed(table):
    """Yield what was added up, in order, and forget it."""
    for key, sums in sorted(table.items()):
        yield key + b"\t" + (b" ".join(b"%d" % number for number in sums[1:]) + sums[0] if sums else b"")
    table.clear()


# Reading


class Counted:
    """What became of the lines of one file: lines = counted + malformed + pending; of the counted, some are outside."""

    def __init__(self, path):
        """Nothing has been read."""
        self.path = path
        self.counted = self.malformed = self.pending = self.outside = 0
        self.first = self.last = None
        self.format, self.note, self.kind, self.reasons, self.samples = "", "", "", {}, []
        self.start = self.end = self.size = 0
        self.stream = ""

    def as_data(self):
        """Return it as plain data."""
        return {
            "path": self.path, "kind": self.kind, "format": self.format, "from": self.start, "to": self.end,
            "size": self.size, "lines": self.counted + self.malformed + self.pending, "counted": self.counted,
            "malformed": self.malformed, "pending": self.pending, "outside": self.outside, "first": self.first,
            "last": self.last, "note": self.note, "reasons": self.reasons, "samples": self.samples,
            "stream": self.stream,
        }  # fmt: skip


class Reader:
    """Reads files into cells."""

    def __init__(self, cells, *, sorry=(), health_path=b"", agent_capture="last", log_zone=None):
        """`sorry` are names of backends; `log_zone` is that of times that name none, None being this host's."""
        self.cells, self.sorry, self.health_path = cells, frozenset(sorry), health_path
        self.agent_capture, self.log_zone = agent_capture, log_zone
        self.now = None
        self.outcomes = Memo(lambda key: outcome_of(*key))
        self._forget()

    def _forget(self):
        """Remember nothing of agents, requests and times: it is of tables that are gone."""
        self.agents = {role: Memo(functools.partial(self.agent, role)) for role in (b"w", b"l")}
        self.requests, self.minutes = Memo(self.request), Memo(self.web_minute)
        self.times = {b"w": Memo(self.web_cell), b"l": Memo(self.lb_cell)}

    def read(self, chunks, counted, parse=None):
        """Count the lines in chunks of bytes; leave the last one alone where its line end is missing."""
        self.now = counted
        self._forget()  # first and last time are noted where a time is new
        rest, held, too_long = [], 0, False
        for chunk in chunks:
            cut = chunk.rfind(b"\n") + 1
            if not cut:
                held += len(chunk)
                if held > LINE_MOST:
                    rest, too_long = [], True
                elif not too_long:
                    rest.append(chunk)
                continue
            if too_long or held + chunk.find(b"\n") > LINE_MOST:
                first = chunk.find(b"\n") + 1
                self.bad(b"", f"longer than {LINE_MOST} bytes")
                counted.end += held + first
                block = chunk[first:cut]
            else:
                block = b"".join([*rest, chunk[:cut]]) if rest else chunk[:cut]
            if block:
                parse = parse or self.parser(block)
                (parse or self.web)(block)
                counted.end += len(block)
            rest, held, too_long = ([chunk[cut:]], len(chunk) - cut, False) if cut < len(chunk) else ([], 0, False)
            if self.cells.full():
                self.spill()
        counted.pending = int(held > 0)

    def spill(self):
        """Give memory back."""
        self.cells.spill()
        self._forget()

    def parser(self, block):
        """Return what reads this file, by the first lines that can be read; None where there are none."""
        web = lb = named = syslog = 0
        for line in block.split(b"\n"):
            with contextlib.suppress(ValueError):
                careful_lb(line)
                lb += 1
                syslog += not re.match(rb'[^\s"\[]+:\d+ \[', line)
                continue
            with contextlib.suppress(ValueError):
                careful_web(line)
                web += 1
                named += bool(re.search(rb'" \d{3} (?:\d+|-) "', line))
            if web + lb == FORMAT_LINES:
                break
        if lb > web:
            self.now.format = HTTPLOG + (", syslog header" if syslog * 2 > lb else "")
            return self.lb
        if web:
            self.now.format = "combined (nginx, Apache)" if named * 2 > web else "common (nginx, Apache)"
            return self.web
        return None

    def parser_of(self, words):
        """Return what reads a file of which it is known."""
        return self.lb if words.startswith(HTTPLOG) else self.web if words else None

    # Each value is looked at once, and remembered; a line then costs a few look-ups.

    def agent(self, role, text):
        """Return (group, agent)."""
        agent = shortened(text) or b"-"
        self.cells.strings += len(agent) + 200
        return role + class_of(agent), agent

    def request(self, text):
        """Return (kind, path, letter of a class that it makes of anybody)."""
        kind, path = asked(text)
        letter = b"n" if kind == b"none" else b"h" if self.health_path and path == self.health_path else b""
        path = shortened(path)
        self.cells.strings += len(path) + 200
        return kind, path, letter

    def cell(self, minute):
        """Return the tables for a minute; None outside the window."""
        counted = self.now
        if counted.first is None or minute < counted.first:
            counted.first = minute
        if counted.last is None or minute > counted.last:
            counted.last = minute
        start = self.cells.window.slot(minute)
        return None if start is None else self.cells.slot(start)

    def web_cell(self, when):
        """Return the tables for '27/Nov/2026:08:37:46 +0000'; False where that is no time."""
        return self.minutes[when[:17] + when[20:]] if when[17:20] in SECONDS else False

    def web_minute(self, when):
        """Return the same for '27/Nov/2026:08:37 +0000'."""
        try:
            if when[17:18] != b" ":
                raise ValueError
            minute = minute_of(when[:17], offset_of(when[18:]), None)
        except (ValueError, KeyError, OverflowError):
            return False
        return self.cell(minute)

    def lb_cell(self, key):
        """Return the tables for ('27/Nov/2026:08:37', day and zone of a syslog time); False where that is no time."""
        date, stamp = key
        try:
            found = STAMP.match(stamp)
            offset = (0 if found[1] == b"Z" else offset_of(found[1])) if found else None
            minute = minute_of(date, offset, self.log_zone)
        except (ValueError, KeyError, OverflowError):
            return False
        return self.cell(minute)

    def bad(self, line, why, block=b"", number=0):
        """Count a line of a block that cannot be read, and keep the first few with the place where they begin."""
        counted = self.now
        counted.malformed += 1
        counted.reasons[why] = counted.reasons.get(why, 0) + 1
        if len(counted.samples) < SAMPLES and counted.reasons[why] <= SAMPLES // 2:
            text = line[:SAMPLE_MOST].decode("utf-8", "backslashreplace")
            before = block.split(b"\n", number)[:number]
            place = counted.end + sum(len(other) + 1 for other in before)
            counted.samples.append({"byte": place, "why": why, "line": text})

    def rows(self, block, pattern, careful):
        """Return (rows, which line each was) of a block of whole lines; count those that cannot be read."""
        rows = pattern.findall(block)
        self.now.counted += len(rows)
        unusual = map(operator.not_, map(operator.itemgetter(CLIENT[pattern]), rows))
        bad = set()
        for number in itertools.compress(range(len(rows)), unusual):
            line = rows[number][-1]
            try:
                rows[number] = (*careful(line), b"")
            except ValueError as error:
                bad.add(number)
                self.bad(line, str(error), block, number)
        if not bad:
            return rows, range(len(rows))
        self.now.counted -= len(bad)
        which = [number for number in range(len(rows)) if number not in bad]
        return [rows[number] for number in which], which

    def web(self, block):
        """Count a block of whole lines of a web server."""
        rows, which = self.rows(block, WEB_FAST, careful_web)
        if rows:
            clients, whens, requests, statuses, sizes, agents, _ = zip(*rows, strict=True)
            outcomes = itertools.repeat(b"served", len(rows))
            self.tally(block, which, b"w", clients, whens, requests, agents, statuses, outcomes, sizes)

    def lb(self, block):
        """Count a block of whole lines of HAProxy."""
        rows, which = self.rows(block, LB_FAST, careful_lb)
        if not rows:
            return
        columns = zip(*rows, strict=True)
        stamps, clients, dates, backends, servers, statuses, sizes, states, captures, requests, _ = columns
        whens = [(date, stamp[:11] + stamp[-6:]) for date, stamp in zip(dates, stamps, strict=True)]
        if self.agent_capture == "last":
            agents = [capture.rpartition(b"|")[2] for capture in captures]
        else:
            place = self.agent_capture
            agents = [(capture.split(b"|", place) + [b""] * place)[place - 1] if place else b"" for capture in captures]
        if any(state[:2] in NO_REQUEST for state in states):
            requests = [b"" if state[:2] in NO_REQUEST else request
                        for state, request in zip(states, requests, strict=True)]  # fmt: skip
        sorry = [backend in self.sorry for backend in backends]
        away = [server == NO_SERVER for server in servers]
        outcomes = map(self.outcomes.__getitem__, zip(sorry, away, states, statuses, strict=True))
        self.tally(block, which, b"l", clients, whens, requests, agents, statuses, outcomes, sizes)

    def tally(self, block, which, role, clients, whens, requests, agents, statuses, outcomes, sizes):
        """Add the columns of a block up, in runs of lines of one slot: what is done once a line is done by C."""
        cells = list(map(self.times[role].__getitem__, whens))
        asked_for = list(map(self.requests.__getitem__, requests))
        whos = list(map(self.agents[role].__getitem__, agents))
        kinds, paths, letters = zip(*asked_for, strict=True)
        if any(letters):
            whos = [(role + letter, who[1]) if letter else who for who, letter in zip(whos, letters, strict=True)]
        if max(map(len, clients)) > CLIENT_MOST:
            clients = [shortened(client, CLIENT_MOST) for client in clients]
        groups = list(map(operator.itemgetter(0), whos))
        keys = list(zip(groups, kinds, statuses, outcomes, strict=True))
        stop = 0
        for _, same_cell in itertools.groupby(map(id, cells)):
            start, stop = stop, stop + sum(1 for _ in same_cell)
            cell, run = cells[start], slice(start, stop)
            if cell:
                self._add(cell, clients[run], whos[run], paths[run], groups[run], keys[run], sizes[run])
            elif cell is None:
                self.now.outside += stop - start
            else:
                self.now.counted -= stop - start
                for number in which[run]:
                    line = block.split(b"\n", number + 1)[number]
                    self.bad(line, "no time that exists", block, number)

    def _add(self, cell, clients, whos, paths, groups, keys, sizes):
        numbers, bytes_of, paths_of, visitors = cell
        before = len(numbers) + len(paths_of) + len(visitors)
        visitors.update(zip(clients, whos, strict=True))
        paths_of.update(zip(paths, groups, strict=True))
        numbers.update(keys)
        for key, size in zip(keys, sizes, strict=True):
            bytes_of[key] = bytes_of.get(key, 0) + (int(size) if size != b"-" else 0)
        self.cells.entries += len(numbers) + len(paths_of) + len(visitors) - before


# Files


class Log:
    """One file: plain, or compressed, by what it begins with and not by its name."""

    def __init__(self, path):
        """Open it once, so that it stays this one whatever is renamed meanwhile."""
        self.path, self.note, self.cut, self.stream = path, "", False, None
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self.file, self.stat = os.fdopen(handle, "rb", buffering=0), os.fstat(handle)
        if not stat.S_ISREG(self.stat.st_mode):
            self.file.close()
            raise OSError(errno.EINVAL, "is no regular file", path)
        magic = self.at(0, 4)
        self.kind = next((kind for begin, kind in COPY_KINDS if magic.startswith(begin)), "plain")
        self.head = b""
        for chunk in self.chunks(0, HEAD):
            self.head = (self.head + chunk)[:HEAD]
            if len(self.head) == HEAD:
                break
        self.cut, self.note = False, ""

    def at(self, start, length):
        """Return bytes as they lie on disk."""
        return os.pread(self.file.fileno(), length, start)

    def piece(self, start, length):
        """Return so many of its bytes, decompressed, or as many as there are from there on."""
        data = b""
        with contextlib.closing(self.chunks(start, HEAD)) as chunks:
            while len(data) < length and (chunk := next(chunks, b"")):
                data += chunk
        return data[:length]

    def name(self, key):
        """Return by what the log is called in partials: the digest of its first line."""
        return fingerprint(key, self.head.partition(b"\n")[0])

    @property
    def seen(self):
        """By what a file that has not changed is known again."""
        return [self.stat.st_dev, self.stat.st_ino, self.stat.st_size, self.stat.st_mtime_ns]

    def chunks(self, start, size=BLOCK, stop=None, progress=None):
        """Yield its bytes, decompressed, from there on."""
        if self.kind == "plain":
            yield from self._plain(start, size, stop, progress)
            return
        place = 0
        for chunk in self._gz(progress) if self.kind == "gz" else self._zst(progress):
            if place + len(chunk) > start:
                yield chunk[max(0, start - place) :]
            place += len(chunk)

    def _plain(self, start, size, stop, progress):
        while stop is None or start < stop:
            chunk = self.at(start, size if stop is None else min(size, stop - start))
            if not chunk:
                return
            start += len(chunk)
            if progress:
                progress(len(chunk))
            yield chunk

    def _gz(self, progress):
        place, data, inflate, begun = 0, b"", None, False
        try:
            while True:
                if not data:
                    data = self.at(place, BLOCK)
                    place += len(data)
                    if progress:
                        progress(len(data))
                if not data:
                    if inflate:
                        self.cut, self.note = True, "compressed data end too early"
                        yield inflate.flush()
                    return
                if not inflate:
                    if begun and data[:1] != b"\x1f":  # zeros and other padding after the last member
                        return
                    inflate, begun = zlib.decompressobj(31), True
                out = inflate.decompress(data, BLOCK)
                data = inflate.unused_data if inflate.eof else inflate.unconsumed_tail
                if inflate.eof:
                    inflate = None
                if out:
                    yield out
        except zlib.error as error:
            self.cut, self.note = True, f"compressed data are damaged: {error}"

    def _zst(self, progress):
        try:
            reading = os.open(f"/proc/self/fd/{self.file.fileno()}", os.O_RDONLY | os.O_CLOEXEC)
            with (
                os.fdopen(reading, "rb") as source,
                tempfile.TemporaryFile() as errors,
                subprocess.Popen(["zstd", "-dcq"], stdin=source, stdout=subprocess.PIPE, stderr=errors) as running,
            ):
                done = 0
                try:
                    while chunk := running.stdout.read(BLOCK):
                        if progress:
                            now = os.lseek(source.fileno(), 0, os.SEEK_CUR)
                            progress(now - done)
                            done = now
                        yield chunk
                except BaseException:
                    running.kill()
                    raise
                if running.wait():
                    errors.seek(0)
                    words = errors.read(300).decode("utf-8", "replace").strip()
                    self.cut, self.note = True, f"compressed data are damaged or end too early: {words}"
        except FileNotFoundError:
            self.cut, self.note = True, "zstd is not installed, and nothing of it was read: apt-get install zstd"

    def close(self):
        """Close it."""
        self.file.close()


def opened(paths, problems):
    """Return the logs that can be opened, the oldest first; tell of the others."""
    logs = []
    for path in dict.fromkeys(paths):
        try:
            logs.append(Log(path))
        except OSError as error:
            problems.append({"path": path, "why": error.strerror or str(error), "unread": True})
    return sorted(logs, key=lambda log: (log.stat.st_mtime_ns, log.path))


def fingerprint(key, data):
    """Return the keyed digest of some bytes of a log."""
    return hashlib.blake2b(data, key=key, digest_size=16, person=b"head").hexdigest()


def longer(one, two):
    """Return which of two logs begins with all that the other holds; None where they differ.

    Of a compressed one that is cut off, all is what can be read. Where both hold the same, the plain one is taken.
    """
    least = min(len(one.head), len(two.head))
    if not least or one.head[:least] != two.head[:least]:
        return None
    if os.path.samestat(one.stat, two.stat):
        return one
    with contextlib.closing(one.chunks(0)) as ones, contextlib.closing(two.chunks(0)) as twos:
        mine, others = next(ones, b""), next(twos, b"")
        while mine and others:
            least = min(len(mine), len(others))
            if mine[:least] != others[:least]:
                return None
            mine = mine[least:] or next(ones, b"")
            others = others[least:] or next(twos, b"")
    if mine or others:
        return one if mine else two
    return min(one, two, key=lambda log: (log.kind != "plain", log.cut))


def grouped(logs, problems):
    """Return the logs in groups of copies, of each the one first that holds most; tell which are counted by another."""
    groups = []
    for log in logs:
        for group in groups:
            most = longer(group[0], log)
            if most:
                group.insert(0 if most is log else 1, log)
                break
        else:
            groups.append([log])
    for most, *copies in groups:
        problems.extend(copy_of(copy, most) for copy in copies)
    return groups


def copy_of(log, most):
    """Return the words on a log all of which another one begins with."""
    return {"path": log.path, "why": f"the same log as {most.path}, and counted once"}


# Counting some files


def options_of(words):
    """Return what a Reader takes."""
    return {
        "sorry": [name.encode() for name in words.sorry_backend], "health_path": words.health_path.encode(),
        "agent_capture": words.agent_capture, "log_zone": zoneinfo.ZoneInfo(words.log_zone) if words.log_zone else None,
    }  # fmt: skip


def budget(words):
    """Return how much of the memory tables may take: making lines of them takes as much again, and Python itself."""
    return max(8 << 20, int(words.memory * (1 << 20) * 0.28) - (8 << 20))


def units(logs, processes):
    """Yield (log, from, to) by which several processes share the work; only the last of a file looks at its end."""
    for log in logs:
        size, start = log.stat.st_size, 0
        piece = min(UNIT, size // processes + 1)
        while log.kind == "plain" and processes > 1 and size - start > max(LINE_MOST, piece * 1.5):
            stop = start + piece
            found = log.at(stop, LINE_MOST).find(b"\n")
            if found < 0:
                break
            stop += found + 1
            yield log, start, stop
            start = stop
        yield log, start, None


def count_files(paths, words, key, window):
    """Return (header, lines) of a partial of these files, each log once, whatever copies of it there are."""
    problems = []
    logs = opened(paths, problems)
    chosen = [most for most, *_ in grouped(logs, problems)]
    work = list(units(chosen, words.processes))
    told = Progress(words, sum(log.stat.st_size for log in chosen))
    if words.processes > 1 and len(work) > 1:
        files, lines = _shared(work, words, key, window, told)
    else:
        cells = new_cells(words, key, window)
        reader = Reader(cells, **options_of(words))
        files = [read_unit(reader, unit, key, told.add) for unit in work]
        lines = cells.all()
    for log in logs:
        log.close()
    return header(words, key, window, files, problems), lines


def new_cells(words, key, window, *, fine=False):
    """Return empty cells as the words want them."""
    most = budget(words)
    return Cells(key, window, fine=fine, addresses=fine or words.addresses, most=most, folder=words.spill or None)


def read_unit(reader, unit, key, progress):
    """Count one piece of a file."""
    log, start, stop = unit
    counted = Counted(log.path)
    counted.kind, counted.start, counted.end, counted.size = log.kind, start, start, log.stat.st_size
    counted.stream = log.name(key)
    reader.read(log.chunks(start, stop=stop, progress=progress), counted)
    counted.note = log.note
    return counted.as_data()


def _shared(work, words, key, window, told):
    """Count in several processes; each hands over its sorted lines in a file."""
    context = multiprocessing.get_context("fork")
    todo, results = context.SimpleQueue(), context.Queue()
    order = sorted(range(len(work)), key=lambda index: -_weight(work[index]))
    for index in [*order, *[None] * words.processes]:
        todo.put(index)
    runs = [tempfile.TemporaryFile(dir=words.spill or None) for _ in range(words.processes)]  # noqa: SIM115

    def worker(number):
        cells = new_cells(words, key, window)
        reader = Reader(cells, **options_of(words))
        try:
            done = []
            while (index := todo.get()) is not None:
                done.append((index, read_unit(reader, work[index], key, lambda size: results.put(size))))
            write_run(runs[number], cells.all(), words.spill)
        except (RefusedError, OSError) as error:
            results.put(error)
            return
        results.put((number, done))

    started = [context.Process(target=worker, args=(number,), daemon=True) for number in range(words.processes)]
    for process in started:
        process.start()
    files, left = {}, len(started)
    while left:
        try:
            result = results.get(timeout=1)
        except queue.Empty:
            if any(process.exitcode not in (None, 0) for process in started):
                raise RefusedError("a process that counts was ended, perhaps for want of memory; try again") from None
            continue
        if isinstance(result, int):
            told.add(result)
            continue
        if isinstance(result, Exception):
            raise result
        files.update(result[1])
        left -= 1
    for process in started:
        process.join()
    for run in runs:
        run.seek(0)
    return _joined_units([files[index] for index in sorted(files)]), combined(heapq.merge(*map(stripped, runs)))


def _weight(unit):
    log, start, stop = unit
    return (stop or log.stat.st_size) - start if log.kind == "plain" else log.stat.st_size * 8


def _joined_units(pieces):
    """Return one record of each file of the records of its pieces."""
    files = {}
    for piece in pieces:
        whole = files.setdefault(piece["path"], piece)
        if whole is piece:
            continue
        for name in ("lines", "counted", "malformed", "pending", "outside"):
            whole[name] += piece[name]
        for name, pick in (("first", min), ("last", max)):
            known = [item[name] for item in (whole, piece) if item[name] is not None]
            whole[name] = pick(known) if known else None
        whole["to"] = piece["to"]
        whole["note"] = whole["note"] or piece["note"]
        whole["samples"] = (whole["samples"] + piece["samples"])[:SAMPLES]
        for why, times in piece["reasons"].items():
            whole["reasons"][why] = whole["reasons"].get(why, 0) + times
    return list(files.values())


class Progress:
    """Says on stderr how far we are, a line of JSON now and then."""

    def __init__(self, words, total):
        """Say it only where it was asked for."""
        self.wanted, self.total, self.done = words.progress, total, 0
        self.began = self.said = time.monotonic()

    def add(self, size):
        """Take note of bytes that were read."""
        self.done += size
        now = time.monotonic()
        if self.wanted and now - self.said > 0.5:
            self.said = now
            left = (now - self.began) / max(1, self.done) * max(0, self.total - self.done)
            print(json.dumps({"read": self.done, "of": self.total, "left_s": round(left)}), file=sys.stderr, flush=True)


def shape(text):
    """Return what a text looks like, without what it says: 0 for each digit, a and A for each letter."""
    return "".join(
        "0" if sign.isdigit() else "A" if sign.isupper() else "a" if sign.isalpha() else sign for sign in text
    )


def header(words, key, window, files, problems, **more):
    """Return the first line of a partial: by which method it was made."""
    totals = {name: sum(file[name] for file in files) for name in (*FATES, "outside")}
    if not words.addresses:  # a line that nobody could read has all that a visitor sent
        files = [{**file, "samples": [{**item, "line": shape(item["line"])} for item in file["samples"]]}
                 for file in files]  # fmt: skip
    return {
        "schema": SCHEMA, "id": os.urandom(16).hex(), "host": words.host or socket.gethostname(),
        "made": int(time.time()), "key": fingerprint(key, b"key"), "window": window.as_data(),
        "addresses": words.addresses, "files": files, "problems": problems, **totals, **more,
    }  # fmt: skip


def write_partial(out, head, lines):
    """Write a partial to a binary file."""
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=1, mtime=0) as packed:
        packed.write(json.dumps(head).encode() + b"\n")
        number, waiting = 0, []
        for line in lines:
            number += 1
            waiting.append(line)
            if len(waiting) == 4000:
                packed.write(b"\n".join(waiting) + b"\n")
                waiting.clear()
        packed.write(b"\n".join([*waiting, b"end %d\n" % number]))


def read_partial(file):
    """Return (header, lines) of a partial; raise ValueError, where it is none or is not whole, saying why."""
    packed = io.BufferedReader(gzip.GzipFile(fileobj=file, mode="rb"), 1 << 20)
    try:
        head = json.loads(packed.readline(64 << 20))
    except (OSError, EOFError, ValueError, RecursionError, zlib.error) as error:
        raise ValueError(f"it is no partial: {error}") from error
    if not isinstance(head, dict) or head.get("schema") != SCHEMA:
        raise ValueError(f"it is no partial of schema {SCHEMA}")
    return head, _partial_lines(packed)


def _partial_lines(packed):
    number, last = 0, b""
    try:
        for line in stripped(packed):
            if line.startswith(b"end "):
                if line != b"end %d" % number:
                    raise ValueError("it does not hold as many lines as it says")
                return
            number += 1
            yield line
            last = line
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"it is damaged after {last[:40]!r}: {error}") from error
    raise ValueError("its end is missing")


def merged(partials):
    """Return (headers, lines) of several partials together; raise RefusedError where one would count twice."""
    heads, seen, ranges = [head for head, _ in partials], {}, {}
    for head in heads:
        if head["id"] in seen:
            raise RefusedError(f"the partial of {head['host']} is there twice, and would count twice. Name it once")
        seen[head["id"]] = True
        for name in ("key", "window"):
            if head[name] != heads[0][name]:
                raise RefusedError(
                    f"the partials of {heads[0]['host']} and {head['host']} differ in their {name}; "
                    "count both again, with the same key, --since, --until, --by and --zone"
                )
        for file in head["files"]:
            for start, end, path in ranges.get((head["host"], file["stream"]), ()):
                if file["from"] < end and start < file["to"]:
                    raise RefusedError(
                        f"{file['path']} and {path} of {head['host']} are the same log in two partials, and would be "
                        "counted twice. Merge one of them"
                    )
        for file in head["files"]:
            if file["to"] > file["from"]:
                mine = ranges.setdefault((head["host"], file["stream"]), [])
                mine.append((file["from"], file["to"], file["path"]))
    if len(partials) == 1:
        return heads, partials[0][1]
    return heads, combined(heapq.merge(*(lines for _, lines in partials)))


# What was read before


def asked_for(path, words):
    """Say whether a path is among those that are looked at now: of others nothing is known."""
    return path in words.file or any(fnmatch.fnmatch(path, pattern) for pattern in words.glob)


class Store:
    """A folder with what was counted so far, and how far each log was read."""

    def __init__(self, folder, key):
        """Read its state; refuse one that another key made."""
        self.folder, self.key = folder, key
        os.makedirs(folder, mode=0o700, exist_ok=True)
        self.lock = open(os.path.join(folder, "lock"), "w")  # noqa: SIM115 (held until we end)
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        self.state = {"schema": SCHEMA, "key": fingerprint(key, b"key"), "streams": [], "segments": [], "losses": [],
                      "forgotten": dict.fromkeys(("logs", *FATES), 0), "dropped": 0}  # fmt: skip
        self.place, self.damaged = os.path.join(folder, "state.json"), []
        with contextlib.suppress(FileNotFoundError), open(self.place, encoding="utf-8") as file:
            self.state |= self._loaded(file)
        if self.state["key"] != fingerprint(key, b"key"):
            raise RefusedError(f"what {folder} holds was counted with another key; move it away to count anew")
        self._tidy()

    def _loaded(self, file):
        """Return the state that a file holds; refuse one that is damaged."""
        try:
            state = json.load(file)
            if not all(state[name] for name in ("schema", "key")) or not isinstance(state["losses"], list):
                raise ValueError("it is no state")
            if not all(
                isinstance(item, kind) for name, kind in (("streams", dict), ("segments", str)) for item in state[name]
            ):
                raise ValueError("it does not say what was read")
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise self._refusal(self.place, error) from error
        return state

    def _refusal(self, path, error):
        return RefusedError(
            f"{path} is damaged: {error}. Move {self.folder} away, and count again: the logs that are still there are "
            "counted anew, and older days are lost; nothing here is mended or removed by itself"
        )

    def close(self):
        """Let others in."""
        self.lock.close()

    def _tidy(self):
        """Remove what a call that was killed left behind: no state names it."""
        for name in os.listdir(self.folder):
            if name.startswith("segment-") and name not in self.state["segments"]:
                os.unlink(os.path.join(self.folder, name))

    def take_in(self, paths, words, keep_days):
        """Read what is new in these files, and commit it; return the records of what was read now, and problems."""
        problems = self._other_method(words)
        logs = opened(paths, problems)
        # Of one that had no whole line yet nothing is known: it is found anew.
        streams = [dict(stream) for stream in self.state["streams"] if stream["offset"]]
        losses = list(self.state["losses"])
        cells = new_cells(words, self.key, EVERY_MINUTE, fine=True)
        reader = Reader(cells, **options_of(words))
        told = Progress(words, sum(log.stat.st_size for log in logs))
        files = []
        live, new = self._live(logs, streams, problems)
        for stream in list(streams):
            copies = live[id(stream)]
            if not copies and asked_for(stream["path"], words):
                self._look_for_loss(stream, logs, losses)
            for log in copies:
                if log.seen in stream["seen"]:
                    stream["path"], stream["kind"] = log.path, log.kind
            # Two that go on differently from where reading ended are two logs, of which one is new.
            mine, *others = grouped([log for log in copies if log.seen not in stream["seen"]], problems) or [[]]
            new += others
            if mine:
                files.append(self._read(mine, stream, reader, told, streams))
        for group in new:
            files.append(self._read(group, self._new(group[0], streams), reader, told, streams))
        for log in logs:
            log.close()
        state = {**self.state, "streams": [], "losses": losses[-50:], "forgotten": dict(self.state["forgotten"])}
        for stream in streams:
            if not self._forgotten(stream, keep_days):
                state["streams"].append(stream)
                continue
            state["forgotten"]["logs"] += 1  # what was counted of it may still be held: its sums stay
            for name in FATES:
                state["forgotten"][name] += stream[name]
        with writing("what was counted", self.folder):
            self._commit(cells, state, keep_days)
        if self.damaged:
            raise RefusedError(self.damaged[0])
        return files, problems

    def trim(self, paths, days, share):
        """Remove rotated logs that were counted whole: those older than days, then the oldest beyond a disk's share."""
        removed, logs = [], opened(paths, [])
        counted = [seen for stream in self.state["streams"] for seen in stream["seen"]]
        taken = {}  # device → bytes that all logs on it take
        for log in logs:
            taken[log.stat.st_dev] = taken.get(log.stat.st_dev, 0) + log.stat.st_size
        for log in logs:  # the oldest first
            disk = os.fstatvfs(log.file.fileno())
            device, size, most = log.stat.st_dev, log.stat.st_size, disk.f_frsize * disk.f_blocks * share // 100
            old = time.time() - log.stat.st_mtime > days * 86400
            rotated = ROTATED.search(os.path.basename(log.path))[0] != ""
            if rotated and log.seen in counted and (old or taken[device] > most):
                os.unlink(log.path)
                taken[device] -= size
                removed.append({"path": log.path, "bytes": size, "why": "old" if old else "the disk's share"})
            log.close()
        return removed

    def _other_method(self, words):
        """Take note of how lines are read from now on; tell it where those before were read otherwise."""
        now = {
            "sorry backends": sorted(words.sorry_backend), "health path": words.health_path,
            "agent capture": str(words.agent_capture), "log zone": words.log_zone,
        }  # fmt: skip
        before = self.state.get("method", now)
        self.state["method"] = now
        other = [f"{name} {before.get(name)!r}, now {now[name]!r}" for name in now if before.get(name) != now[name]]
        if not other:
            return []
        why = f"part of what it holds was read with other settings, and stays so: {', '.join(other)}"
        return [{"path": self.folder, "why": why}]

    def _live(self, logs, streams, problems):
        """Return the logs of each record (its id → logs), and groups of those that are new; tell of copies."""
        live, unknown, new = collections.defaultdict(list), [], []
        for log in logs:
            stream, ahead = self._known(log, streams)
            if stream:
                live[id(stream)].append(log)
            elif log.head:
                unknown.append((log, ahead))
        known = [(stream, log) for stream in streams for log in live[id(stream)]]
        for log, ahead in unknown:
            stream, most = next(((stream, one) for stream, one in known if longer(one, log) is one), (None, None))
            # Nothing that is there says whether it is how that log went on.
            unclear = next((one for one in ahead if all(longer(other, log) is log for other in live[id(one)])), None)
            if stream:
                problems.append(copy_of(log, most))
                self._note_seen(log, stream)
            elif unclear:
                problems.append({
                    "path": log.path, "why": f"it begins as {unclear['path']} did, of which more was counted and which "
                    "is not there to compare: taken for a copy, and not counted",
                })  # fmt: skip
            else:
                new.append(log)
        return live, grouped(new, problems)

    def _known(self, log, streams):
        """Return (the record of the log that this file is or goes on with, records that it is too short for).

        It begins as that log did, and holds the same before the place where reading ended.
        """
        for stream in streams:
            if log.seen in stream["seen"]:
                return stream, []
        fits = [stream for stream in streams if 0 < stream["head_length"] <= len(log.head)
                and fingerprint(self.key, log.head[: stream["head_length"]]) == stream["head"]]  # fmt: skip
        ahead = []
        for stream in sorted(fits, key=lambda stream: -stream["offset"]):
            length = stream["tail_length"]
            tail = log.piece(stream["offset"] - length, length)
            if fingerprint(self.key, tail) == stream["tail"]:
                return stream, []
            if len(tail) < length:
                ahead.append(stream)
        return None, ahead

    def _new(self, log, streams):
        stream = {
            "head": "", "head_length": 0, "tail": "", "tail_length": 0, "offset": 0, "seen": [], "path": log.path,
            "lines": 0, "counted": 0, "malformed": 0, "pending": 0, "outside": 0, "reasons": {}, "samples": [],
            "first": None, "last": None, "format": "", "kind": log.kind, "read": 0, "lost": False, "note": "",
            "name": log.name(self.key), "size": 0,
        }  # fmt: skip
        streams.append(stream)
        return stream

    def _read(self, copies, stream, reader, told, streams):
        """Read what is new of a log, in the first of its copies; return a record of it."""
        log = copies[0]
        counted = Counted(log.path)
        counted.kind, counted.size, counted.start = log.kind, log.stat.st_size, stream["offset"]
        counted.end = stream["offset"]
        keep = Kept(log, stream, self.key)
        counted.format = stream["format"]
        reader.read(keep.chunks(told.add), counted, reader.parser_of(stream["format"]))
        counted.note = log.note
        if keep.other:  # it was truncated, and written anew, since it was looked at
            return self._read([log], self._new(log, streams), reader, told, streams)
        counted.stream = stream["name"]
        data = counted.as_data()
        for name in ("counted", "malformed", "outside"):
            stream[name] += data[name]
        if keep.place >= stream["size"]:  # a compressed copy may be shorter than what was read
            stream["pending"], stream["size"] = data["pending"], keep.place
        stream["lines"] = stream["counted"] + stream["malformed"] + stream["pending"]
        for why, times in data["reasons"].items():
            stream["reasons"][why] = stream["reasons"].get(why, 0) + times
        stream["samples"] = (stream["samples"] + data["samples"])[:SAMPLES]
        for name, pick in (("first", min), ("last", max)):
            known = [item[name] for item in (stream, data) if item[name] is not None]
            stream[name] = pick(known) if known else None
        stream["format"] = data["format"] or stream["format"]
        stream.update(path=log.path, kind=log.kind, read=int(time.time()), note=log.note, lost=False)
        if counted.end > stream["offset"] or not stream["head"]:
            stream["offset"] = counted.end
            stream["head_length"] = min(HEAD, counted.end)
            stream["head"] = fingerprint(self.key, log.head[: stream["head_length"]]) if counted.end else ""
            tail = keep.tail(counted.end)
            stream["tail_length"], stream["tail"] = len(tail), fingerprint(self.key, tail)
        for copy in copies[1:] if data["pending"] else copies:
            self._note_seen(copy, stream)
        return data

    def _note_seen(self, log, stream):
        """Note that all a file holds was counted."""
        # One that is being compressed now may have the same size and time when it is looked at again.
        if not log.cut and time.time_ns() - log.stat.st_mtime_ns > 2_000_000_000:
            stream["seen"] = [*stream["seen"][-7:], log.seen]

    def _look_for_loss(self, stream, logs, losses):
        """Tell when a log that was being written to is gone: what came after we read it last may be lost."""
        if stream["lost"] or not stream["offset"]:
            return
        stream["lost"] = True
        name = stream["path"]
        if stream["kind"] == "plain" and ROTATED.search(os.path.basename(name))[0] == "":
            when = datetime.datetime.fromtimestamp(stream["read"], datetime.UTC).isoformat()
            there = any(log.path == name for log in logs)
            losses.append({
                "path": name, "read": stream["read"], "offset": stream["offset"],
                "words": f"{name} was read up to byte {stream['offset']} at {when}, and "
                + ("has been truncated or replaced since" if there else "is not there any more")
                + "; no rotated file continues it: what was written in between may be missing",
            })  # fmt: skip

    def _forgotten(self, stream, keep_days):
        return stream["lost"] and time.time() - stream["read"] > keep_days * 86400

    def _commit(self, cells, state, keep_days):
        """Write the new lines, then the state that names them: one rename makes both count."""
        lines, names = cells.all(), list(state["segments"])
        first = next(lines, None)
        old = []
        if first is not None:
            if len(names) >= SEGMENTS_MOST:
                size = {name: self._size(name) for name in names}
                old = [name for name in sorted(names, key=size.get)[:-1] if self._whole(name)]
            whole = heapq.merge(itertools.chain([first], lines), *(self.lines(name) for name in old))
            oldest = SLOT % max(0, int(time.time() / 60) - keep_days * 1440)
            name = f"segment-{os.urandom(8).hex()}.gz"
            with open(os.path.join(self.folder, name), "wb") as out:
                made = combined(whole)
                write_partial(out, {"schema": SCHEMA}, self._recent(made, oldest, state) if old else made)
                out.flush()
                os.fsync(out.fileno())
            names = [other for other in names if other not in old] + [name]
        state["segments"] = names
        self._write_state(state)
        self.state = state
        for name in old:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self.folder, name))

    def _size(self, name):
        try:
            return os.path.getsize(os.path.join(self.folder, name))
        except FileNotFoundError:
            return 0

    def _whole(self, name):
        """Say whether a segment can be read; a damaged one must not keep what is new from being counted."""
        try:
            collections.deque(self.lines(name), maxlen=0)
        except RefusedError as problem:
            self.damaged.append(str(problem))
            return False
        return True

    def _recent(self, lines, oldest, state):
        """Yield those lines that are not too old to be kept; note how many accesses are dropped with the others."""
        for line in lines:
            if not older(line, oldest):
                yield line
            elif line.startswith(b"n "):
                state["dropped"] += int(line.partition(b"\t")[2].partition(b" ")[0])

    def _write_state(self, state):
        with open(self.place + ".new", "w", encoding="utf-8") as out:
            json.dump(state, out)
            out.flush()
            os.fsync(out.fileno())
        os.replace(self.place + ".new", self.place)
        handle = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def lines(self, name):
        """Yield the lines of a segment."""
        path = os.path.join(self.folder, name)
        try:
            with open(path, "rb") as file:
                yield from read_partial(file)[1]
        except (OSError, ValueError) as error:
            raise self._refusal(path, error) from error

    def partial(self, words, window, problems):
        """Return (header, lines) of all that is held, for a window."""
        files = []
        for stream in self.state["streams"]:
            names = ("path", "kind", "format", "lines", "counted", "malformed", "pending", "outside", "first", "last",
                     "note", "reasons", "samples")  # fmt: skip
            data = {name: stream[name] for name in names}
            files.append(
                {**data, "from": 0, "to": stream["offset"], "size": stream["offset"], "stream": stream["name"]}
            )
        gone, dropped = self.state["forgotten"], self.state["dropped"]
        told = []
        if gone["logs"]:
            told.append(f"{gone['lines']} lines stood in {gone['logs']} logs that were gone too long to be named")
        if dropped:
            told.append(f"{dropped} accesses were too old to be kept, and are not among the counted any more")
        problems = [*({"words": text} for text in told), *problems]
        sums = {name: gone[name] + sum(file[name] for file in files) for name in FATES}
        sums["lines"], sums["counted"] = sums["lines"] - dropped, sums["counted"] - dropped
        head = header(words, self.key, window, files, problems, losses=self.state["losses"], outside=None, **sums)
        whole = combined(heapq.merge(*(self.lines(name) for name in self.state["segments"])))
        return head, combined(fitted(whole, window, words.addresses))


class Kept:
    """Passes on what is new of a log, and remembers the bytes before it, by which it is known again."""

    def __init__(self, log, stream, key):
        """Begin a little before the place where reading ended."""
        self.log, self.stream, self.key = log, stream, key
        self.other = False
        self.recent, self.place = b"", stream["offset"]
        self.held = []

    def chunks(self, progress):
        """Yield what is new; nothing at all where what lies before it is not what was read then."""
        length, wanted = self.stream["tail_length"], self.stream["offset"] - self.stream["tail_length"]
        known = b""
        for chunk in self.log.chunks(wanted, progress=progress):
            if len(known) < length:
                known += chunk
                if len(known) < length:
                    continue
                chunk = known[length:]
                known = known[:length]
                if fingerprint(self.key, known) != self.stream["tail"]:
                    self.other = True
                    return
                self.held = [known]
            if chunk:
                self._keep(chunk)
                yield chunk

    def _keep(self, chunk):
        self.held.append(chunk)
        self.place += len(chunk)
        # A line that has not ended may be long: what is kept reaches back before it.
        while sum(map(len, self.held[1:])) > LINE_MOST + HEAD:
            del self.held[0]

    def tail(self, offset):
        """Return the bytes before an offset."""
        data = b"".join(self.held)
        end = len(data) - (self.place - offset)
        return data[max(0, end - HEAD) : max(0, end)]


def older(line, oldest):
    """Say whether a line by the minute is older than that."""
    parts = line.partition(b"\t")[0].split(b" ")
    return (parts[1] if parts[0] == b"n" else parts[2]) < oldest


# Following


class Second:
    """Who asked for what in one second, or in a few."""

    def __init__(self):
        """Nobody yet."""
        self.hits = self.sorry = self.answered = 0
        self.asked = collections.Counter()  # client, path, agent

    def as_data(self, at, fast):
        """Return it as plain data, of the busiest only: floods may have a million names."""
        told = {"at": at, "hits": self.hits, "sorry": self.sorry, "answered": self.answered}
        told["assets"] = assets_of(self.asked)
        told["addresses"] = len({client for client, _, _ in self.asked})
        told["clients"] = busiest(self.asked, address_of, fast.clients(self.asked))
        told["networks"] = busiest(self.asked, net_of, fast.networks(self.asked))
        told["agents"], told["paths"] = busiest(self.asked, agent_of), busiest(self.asked, path_of)
        return told


class Fast:
    """Who asked so often in the last FOLLOW_S seconds that it may be a flood: only their addresses leave the host."""

    def __init__(self):
        """Nobody did yet."""
        self._clients = collections.deque(maxlen=FOLLOW_S)
        self._networks = collections.deque(maxlen=FOLLOW_S)

    def clients(self, asked):
        """Take one more second; return the clients."""
        return faster(self._clients, hits_of(asked, address_of), FLOOD_CLIENT)

    def networks(self, asked):
        """Take one more second; return the networks."""
        return faster(self._networks, hits_of(asked, net_of), FLOOD_NETWORK)


def faster(seconds, hits, least):
    """Return whose hits are at least so many a second, with those of this second."""
    seconds.append(hits)
    total = collections.Counter()
    for one in seconds:
        total.update(one)
    return {name for name, number in total.items() if number >= least * FOLLOW_S}


def address_of(key):
    """Return the client of (client, path, agent)."""
    return key[0]


def net_of(key):
    """Return its network."""
    return network_of(key[0])


def path_of(key):
    """Return its path."""
    return key[1]


def agent_of(key):
    """Return its agent."""
    return key[2]


def is_asset(path):
    """Say whether browsers ask for this besides pages."""
    return kind_of(b"GET", path) in (b"picture", b"asset")


def assets_of(asked):
    """Return how many of the hits of each (client, path, agent) were for assets."""
    return sum(hits for key, hits in asked.items() if is_asset(key[1]))


def busiest(asked, name_of, of=None):
    """Return what those did who had most of the hits of each (client, path, agent), of these names if not of all."""
    names = [name_of(key) for key in asked]
    total = collections.Counter()
    for name, hits in zip(names, asked.values(), strict=True):  # names of networks cost: once is enough
        if of is None or name in of:
            total[name] += hits
    # Only of these is more looked at: names are as many as who floods likes.
    parts = {name: collections.Counter() for name, _ in total.most_common(FOLLOWED)}
    for name, (key, hits) in zip(names, asked.items(), strict=True):
        if name in parts:
            parts[name][key] = hits
    return {text_of(name): asker_of(part) for name, part in parts.items()}


def asker_of(part):
    """Return what one did, of its hits of each (client, path, agent)."""
    return {
        "hits": part.total(),
        "addresses": len({client for client, _, _ in part}),
        "assets": assets_of(part),
        "declared": sum(hits for key, hits in part.items() if class_of(key[2]) == b"b"),
        "paths": most_of(hits_of(part, path_of)),
        "agents": most_of(hits_of(part, agent_of)),
    }


def text_of(data):
    """Return bytes as text that JSON takes, whatever they are."""
    return data.decode("utf-8", "backslashreplace")[:200]


def most_of(counts):
    """Return the commonest few."""
    return {text_of(name): hits for name, hits in counts.most_common(8)}


def network_of(client):
    """Return the /24 or /48 of an address; of what is none, itself."""
    try:
        address = ipaddress.ip_address(client.decode())
    except ValueError:
        return client
    return str(ipaddress.ip_network((address, 24 if address.version == 4 else 48), strict=False)).encode()


def seconds_of(lines, reader):
    """Yield (time, (client, path, agent), outcome) of the lines of customers; what checks and probes ask is no flood.

    The outcome of who got an error of the shop is failed, as for who looks at it.
    """
    for line in lines:
        try:
            stamp, client, date, backend, server, status, _, state, captures, request = careful_lb(line)
        except ValueError:
            continue
        agent = shortened(captures.rpartition(b"|")[2])
        if reader.agent_capture != "last":
            place = reader.agent_capture
            agent = shortened((captures.split(b"|", place) + [b""] * place)[place - 1]) if place else b""
        kind, path, letter = reader.requests[request]
        if (letter or class_of(agent)) in (b"h", b"m"):
            continue
        outcome = outcome_of(backend in reader.sorry, server == NO_SERVER, state, status)
        found = re.search(re.escape(date) + rb":(\d\d)", line)
        outcome = b"failed" if outcome == b"served" and status >= b"500" else outcome
        yield (date, found[1] if found else b"00"), (client.removeprefix(b"::ffff:"), path, agent or b"-"), outcome


def usual(values):
    """Return the greatest but for a twentieth of them: a flood of before must not make the next one usual."""
    return sorted(values)[len(values) - 1 - len(values) // 20] if values else 0


def past_of(data, reader):
    """Return the most that all, a client, network, agent or path usually had in FOLLOW_S seconds of a part of the log.

    Who came for a while only, fast and for one path, is no part of it: that was a flood. Who does so most of the time
    is (a program that polls), and so is a crowd. Of the agents that came most it says how often they did, and
    for how many assets.
    """
    slots = collections.defaultdict(collections.Counter)
    for (date, second), key, _ in seconds_of(data.split(b"\n")[1:-1], reader):
        with contextlib.suppress(ValueError, KeyError):
            slots[(minute_of(date, 0, None) * 60 + int(second)) // FOLLOW_S][key] += 1
    kept = list(slots.values())
    for name_of, least in ((address_of, FLOOD_CLIENT), (net_of, FLOOD_NETWORK), (agent_of, FLOOD_AGENT)):
        kept = without_floods(kept, name_of, least)
    whole = collections.Counter()
    for asked in kept:
        whole.update(asked)
    told = {
        "seconds": (max(slots) - min(slots) + 1) * FOLLOW_S if slots else 0,
        "most": usual([asked.total() for asked in kept]),
        "hits": whole.total(),
        "assets": assets_of(whole),
        "agents": {name: [agent["hits"], agent["assets"]] for name, agent in busiest(whole, agent_of).items()},
    }
    for word, name_of in (("client", address_of), ("network", net_of), ("agent", agent_of), ("path", path_of)):
        told[word] = usual([max(hits_of(asked, name_of).values(), default=0) for asked in kept])
    return told


def hits_of(asked, name_of):
    """Return the hits of each client, network, agent or path, of those of (client, path, agent)."""
    hits = collections.Counter()
    for key, number in asked.items():
        hits[name_of(key)] += number
    return hits


def without_floods(slots, name_of, least):
    """Return the same slots of (client, path, agent) without those who flooded for a while."""
    fast = [floods(asked, name_of, least * FOLLOW_S) for asked in slots]
    often = collections.Counter(name for names in fast for name in names)
    kept = []
    for asked, names in zip(slots, fast, strict=True):
        gone = {name for name in names if often[name] * 2 < len(slots)}
        kept.append(collections.Counter({key: hits for key, hits in asked.items() if name_of(key) not in gone}))
    return kept


def floods(asked, name_of, least):
    """Return the clients, networks or agents that asked at least so often, nearly always for the same path."""
    paths = collections.defaultdict(collections.Counter)
    for key, hits in asked.items():
        paths[name_of(key)][path_of(key)] += hits
    return {
        name for name, hits in paths.items() if max(hits.values()) >= hits.total() * FLOOD_SAME >= least * FLOOD_SAME
    }


def follow(path, reader, seconds=None, out=None, pause=time.sleep):
    """Say each second what came in, until nobody listens; through rotations, by whatever way."""
    out = out or sys.stdout
    log = Log(path)
    place, rest = log.stat.st_size, b""
    start = max(0, place - FOLLOW_PAST)
    past = past_of(b"\n" * (start == 0) + log.at(start, place - start), reader)
    print(json.dumps({"past": past}), file=out, flush=True)
    end, fast = time.monotonic(), Fast()
    while seconds is None or seconds > 0:
        end += 1
        pause(max(0, end - time.monotonic()))
        second = Second()
        chunks = []
        while chunk := log.at(place, BLOCK):
            place += len(chunk)
            chunks.append(chunk)
        with contextlib.suppress(OSError):
            now = os.stat(path)
            if (now.st_dev, now.st_ino) != (log.stat.st_dev, log.stat.st_ino) or now.st_size < place:
                log.close()
                log, place = Log(path), 0  # what came before is read: lines that come now go to the new one
        *lines, rest = (rest + b"".join(chunks)).split(b"\n")
        rest = rest[-LINE_MOST:]
        for _, key, outcome in seconds_of(lines, reader):
            second.hits += 1
            second.sorry += outcome == b"sorry"
            second.answered += outcome in (b"served", b"local")
            second.asked[key] += 1
        print(json.dumps(second.as_data(int(time.time()), fast)), file=out, flush=True)
        seconds = None if seconds is None else seconds - 1


# The command


def arguments():
    """Return the parser of the words."""
    made = argparse.ArgumentParser(prog="count", description=__doc__.split("\n")[0])
    made.add_argument("verb", choices=("files", "store", "answer", "auto", "trim", "follow"))
    made.add_argument("file", nargs="*")
    made.add_argument("--glob", action="append", default=[], help="files by pattern, besides those named")
    made.add_argument("--store", default="", help="folder of what was counted before")
    made.add_argument("--since", type=int, help="first minute since 1970")
    made.add_argument("--until", type=int, help="first minute that is not counted any more")
    made.add_argument("--by", choices=("all", "minute", "hour", "day"), default="hour")
    made.add_argument("--zone", default="UTC", help="time zone of hours and days")
    made.add_argument("--log-zone", default="", help="zone of times that name none; this host's")
    made.add_argument("--key-file", default="", help=f"file with the key, where there is one; else {KEY}")
    made.add_argument("--addresses", action="store_true", help="name clients by their addresses")
    made.add_argument("--sorry-backend", action="append", default=[])
    made.add_argument("--health-path", default="")
    made.add_argument("--agent-capture", default="last", help="which of HAProxy's is the agent: last, none, 1, …")
    made.add_argument("--memory", type=int, default=512, help="MiB")
    made.add_argument("--processes", type=int, default=1)
    made.add_argument("--keep-days", type=int, default=400)
    made.add_argument("--log-days", type=int, default=60, help="of trim: how many days of logs stay")
    made.add_argument("--log-share", type=int, default=20, help="of trim: percent of their disk that logs may take")
    made.add_argument("--spill", default="", help="folder for what does not fit into memory")
    made.add_argument("--host", default="")
    made.add_argument("--low", action="store_true", help="only when nobody else wants the processor")
    made.add_argument("--progress", action="store_true")
    made.add_argument("--output", default="", help="file for the partial; stdout")
    return made


def key_of(words, given):
    """Return the key of the digests; from a file or the environment: the words of a command are for all to read."""
    text = given if given is not None else os.environ.get(KEY, "")
    if words.key_file:
        with contextlib.suppress(FileNotFoundError), open(words.key_file, encoding="ascii") as file:
            text = file.read().strip()
    if not re.fullmatch(r"([0-9a-f]{2}){16,64}", text):
        raise RefusedError(
            f"the key in {KEY} or --key-file is not 32 to 128 hex digits, an even number of them; "
            "openssl rand -hex 32 makes one, and all hosts of a site need the same"
        )
    return bytes.fromhex(text)


def checked(words):
    """Make the words fit; return the window; raise RefusedError, saying what is allowed."""
    if words.memory < 64:
        raise RefusedError(f"--memory is {words.memory}; allowed: 64 MiB and more")
    if not 1 <= words.processes <= 64:
        raise RefusedError(f"--processes is {words.processes}; allowed: 1 to 64")
    if words.agent_capture not in ("last", "none") and not re.fullmatch(r"[1-9]\d?", words.agent_capture):
        raise RefusedError(f"--agent-capture is '{words.agent_capture}'; allowed: last, none, 1, 2, …")
    if words.agent_capture != "last":
        words.agent_capture = 0 if words.agent_capture == "none" else int(words.agent_capture)
    if words.verb not in ("files", "follow") and not words.store:
        raise RefusedError(f"count {words.verb} needs --store DIR")
    if words.log_zone:
        Window(zone=words.log_zone)
    words.memory //= words.processes
    return Window(words.since, words.until, words.by, words.zone)


def spill_folder(words):
    """Return where there is room for what does not fit into memory: /tmp may be memory itself."""
    if words.verb in ("store", "answer"):
        return words.store
    folders = (os.environ.get("TMPDIR", ""), "/var/tmp")  # noqa: S108 (what is written there has no name)
    return next((folder for folder in folders if folder and os.access(folder, os.W_OK)), "")


def main(given=None, key=None):
    """Do as the words say; return the exit status."""
    words = arguments().parse_intermixed_args(given)
    os.umask(0o077)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # every log is open from the moment it was looked at
    if words.low:
        with contextlib.suppress(OSError):
            os.nice(19)
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    try:
        window = checked(words)
        if words.verb == "follow":
            if len(words.file) != 1:
                raise RefusedError(f"follow takes one file; seen: {len(words.file)}")
            with contextlib.suppress(BrokenPipeError):
                follow(words.file[0], Reader(Cells(b"", EVERY_MINUTE), **options_of(words)))
            return 0
        key = key_of(words, key)
        if words.verb == "auto":
            words.verb = "answer" if os.path.isdir(words.store) else "files"
        words.spill = words.spill or spill_folder(words)
        paths = words.file + [path for pattern in words.glob for path in sorted(glob.glob(pattern))]
        if words.verb == "files":
            head, lines = count_files(paths, words, key, window)
        else:
            store, problems = Store(words.store, key), []
            if words.verb == "trim":
                print(json.dumps({"removed": store.trim(paths, words.log_days, words.log_share)}))
                return 0
            if words.file or words.glob or words.verb == "store":
                _, problems = store.take_in(paths, words, words.keep_days)
            head, lines = store.partial(words, window, problems)
            if words.verb == "store":
                print(json.dumps(head))
                return 0
        if words.output:
            with writing("what was counted", words.output), open(words.output, "wb") as out:
                write_partial(out, head, lines)
        else:
            write_partial(sys.stdout.buffer, head, lines)
            sys.stdout.buffer.flush()
    except RefusedError as problem:
        print(f"count refused: {problem}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"count: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
