"""The customer's eyes: run the site's probes from the controller and say pass or fail with what was seen."""

import io
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from bs4 import BeautifulSoup, Tag
from PIL import Image, UnidentifiedImageError
from socksio.exceptions import SOCKSError

from hikeshi.errors import HikeshiError, MisconfiguredError, UnreachableError, UsageError
from hikeshi.site import Expect, Pictures, Probe, Site, Step, Submit, View, read_yaml, shown
from hikeshi.text import printable

PAGE_LIMIT = 8 << 20  # bytes of one answer that are read; a shop's page or picture is far smaller
GRID = 8  # a picture's fingerprint: its mean colours on a grid of 8 × 8
# Mean difference per channel (0 to 255) up to which two pictures are the same. JPEG at another size and quality moves
# the practice shop's by under 3; its two most alike products differ by more than 20 (tests/unit/test_probes.py).
SAME_PICTURE = 10.0
ENDING_S = 2.0  # that ssh may take to say goodbye


@dataclass(frozen=True)
class ProbeResult:
    """One probe's verdict. `seen` says what went wrong, or what was seen when all is well; `seconds` is wall time."""

    id: str
    title: str
    view: str
    passed: bool
    seen: str
    seconds: float
    noted: Mapping[str, str] = field(default_factory=dict)  # what the probe kept, such as the number of its order


class ProbeFailure(Exception):
    """The page is not what a customer should see."""


def fingerprint(picture: bytes, min_pixels: int = 1) -> list[int]:
    """Decode a picture; return the mean colours of an 8 × 8 grid, row by row, as 192 numbers from 0 to 255."""
    try:
        with Image.open(io.BytesIO(picture)) as image:
            if min(image.size) < min_pixels:
                raise ProbeFailure(f"only {image.size[0]}×{image.size[1]} pixels")
            return list(image.convert("RGB").resize((GRID, GRID), Image.Resampling.BOX).tobytes())
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ProbeFailure(f"not a picture ({printable(error, 120)})") from error


def difference(first: list[int], second: list[int]) -> float:
    """Return the mean absolute difference per channel of two fingerprints, 0 (same) to 255."""
    return sum(abs(a - b) for a, b in zip(first, second, strict=True)) / len(first)


def inside(view: View, address: str) -> httpx.URL:
    """Return the address in this view that a page means, whatever host it names.

    The shop gives its public name; a broken or hostile page may name anybody, and an order's form must not go to him.
    """
    base = httpx.URL(view.url)
    return base.copy_with(raw_path=base.join(address).raw_path)


class Visitor:
    """One customer: cookies of his own, and the page he looks at."""

    def __init__(self, client: httpx.Client, view: View, site: Site) -> None:
        """Start as a new visitor of one view of the site."""
        self.client, self.view, self.site = client, view, site
        self.page: httpx.Response | None = None
        self.notes: list[str] = []
        self.noted: dict[str, str] = {}

    def fetch(self, method: str, address: str, data: dict[str, str] | None = None) -> httpx.Response:
        """Request an address of this view, following redirects inside it, reading at most PAGE_LIMIT bytes."""
        headers = {"Host": self.view.host} if self.view.host else {}
        for _ in range(6):
            try:
                request = self.client.build_request(method, inside(self.view, address), data=data, headers=headers)
                response = self.client.send(request, stream=True)
                body = bytearray()
                for chunk in response.iter_bytes():
                    body += chunk
                    if len(body) > PAGE_LIMIT:
                        raise ProbeFailure(f"{_short(address)} is larger than {PAGE_LIMIT >> 20} MiB")
                response.close()
            # Through the tunnel a refused connection is a broken answer of the proxy's, which httpx hands on as it is.
            except (httpx.HTTPError, httpx.InvalidURL, SOCKSError, OSError) as error:
                raise ProbeFailure(f"{_short(address)}: {why_no_answer(error)}") from error
            response._content = bytes(body)  # noqa: SLF001 (httpx's own way for streamed answers read by hand)
            if not response.is_redirect:
                return response
            method, data, address = "GET", None, response.headers["location"]
        raise ProbeFailure(f"{_short(address)}: redirected more than five times")

    def take(self, step: Step) -> None:
        """Do one step; raise ProbeFailure when the customer does not see what he should."""
        if step.pictures:
            self.look_at(step.pictures)
            return
        if step.submit:
            self.page = self.send_form(step.submit)
        elif step.get is not None:
            self.page = self.fetch("GET", step.get)
        self.check(step.expect)

    def soup(self) -> BeautifulSoup:
        """Return the page in view, parsed."""
        if self.page is None:
            raise MisconfiguredError("a probe's first step must be `get`.", f"mend probes.yml of site {self.site.name}")
        return BeautifulSoup(self.page.content, "html.parser")

    def send_form(self, submit: Submit) -> httpx.Response:
        """Send a form of the page in view with its hidden fields."""
        assert self.page is not None or self.soup()  # noqa: S101
        form = self.soup().select_one(submit.form)
        if not isinstance(form, Tag):
            raise ProbeFailure(f"no form {submit.form} on {_short(self._path())}")
        data = {
            str(field["name"]): str(field.get("value", ""))
            for field in form.select("input[name]")
            if field.get("type") not in ("submit", "button", "checkbox", "radio")
        }
        data.update(submit.fields)
        return self.fetch(str(form.get("method", "get")).upper(), str(form.get("action") or self._path()), data)

    def _path(self) -> str:
        return self.page.request.url.raw_path.decode() if self.page else ""

    def check(self, expect: Expect) -> None:
        """Compare the page in view with what it must be."""
        page, where = self.page, _short(self._path())
        if page is None:
            return
        if page.status_code != expect.status:
            raise ProbeFailure(f"{where} answered {page.status_code}, not {expect.status}: {_heading(page)}")
        text = page.text
        for words in expect.contains:
            if words not in text:
                raise ProbeFailure(f"{where} does not say “{words}”: {_heading(page)}")
        for words in expect.lacks:
            if words in text:
                raise ProbeFailure(f"{where} says “{words}”, which it should not")
        soup = self.soup() if expect.select or expect.values or expect.note else None
        for selector, count in expect.select.items():
            found = len(soup.select(selector)) if soup else 0
            if found != count:
                raise ProbeFailure(f"{where} shows {found} of {selector}, not {count}")
        for selector, value in expect.values.items():
            element = soup.select_one(selector) if soup else None
            seen = str(element.get("value")) if element else "nothing"
            if seen != value:
                raise ProbeFailure(f"{where} shows {printable(seen, 60)} in {selector}, not {value}")

        for name, selector in expect.note.items():
            element = soup.select_one(selector) if soup else None
            words = " ".join(element.get_text().split()) if element else ""
            if not words:
                raise ProbeFailure(f"{where} shows no {name}: {_heading(page)}")
            self.noted[name] = printable(words, 60)
            self.notes.append(f"{name} {self.noted[name]}")

    def pictures(self, wanted: Pictures) -> dict[str, list[int] | ProbeFailure]:
        """Fetch every picture of the page in view; return each name's fingerprint, or why there is none."""
        images = self.soup().select(wanted.select)
        if len(images) < wanted.count:
            raise ProbeFailure(f"{_short(self._path())} shows {len(images)} pictures, not {wanted.count}")

        def one(image: Tag) -> tuple[str, list[int] | ProbeFailure]:
            name, source = str(image.get(wanted.name, "")), str(image.get("src", ""))
            try:
                return name, self.picture(source, wanted.min_pixels)
            except ProbeFailure as failure:
                return name, failure

        with ThreadPoolExecutor(max_workers=4) as pool:
            return dict(pool.map(one, images))

    def picture(self, source: str, min_pixels: int) -> list[int]:
        """Fetch one picture and decode it."""
        if not source:
            raise ProbeFailure("the page names no address for it")
        answer = self.fetch("GET", source)
        if answer.status_code != 200:
            raise ProbeFailure(f"{answer.status_code} for {_short(source)}")
        kind = answer.headers.get("content-type", "none")
        if not kind.startswith("image/"):
            raise ProbeFailure(f"Content-Type is {printable(kind, 60)}, not image/…")
        return fingerprint(answer.content, min_pixels)

    def look_at(self, wanted: Pictures) -> None:
        """Compare every picture of the page in view with the recorded one of its name."""
        recorded = _fingerprints(self.site.folder / wanted.recorded)
        wrong: list[str] = []
        seen = self.pictures(wanted)
        for name, found in seen.items():
            if isinstance(found, ProbeFailure):
                wrong.append(f"{name}: {found}")
            elif name not in recorded:
                wrong.append(f"{name}: no recorded picture of this name")
            elif difference(found, recorded[name]) > SAME_PICTURE:
                like = next((other for other, known in recorded.items() if other != name
                             and difference(found, known) <= SAME_PICTURE), "")  # fmt: skip
                wrong.append(f"{name}: the wrong picture" + (f", it shows {like}" if like else ""))
        if wrong:
            more = f" … and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            raise ProbeFailure(f"{len(wrong)} of {len(seen)} pictures are wrong: {printable(wrong[0], 200)}{more}")
        self.notes.append(f"{len(seen)} pictures right")


def _fingerprints(path: Path) -> dict[str, list[int]]:
    """Return the recorded pictures: name → fingerprint."""
    raw = read_yaml(path)
    try:
        found = {str(name): list(bytes.fromhex(text)) for name, text in raw.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise MisconfiguredError(
            f"{shown(path)} is not a list of recorded pictures: {error}.", "hikeshi probe --record-pictures"
        ) from error
    if any(len(item) != GRID * GRID * 3 for item in found.values()):
        raise MisconfiguredError(f"{shown(path)} has a picture that is cut off.", "hikeshi probe --record-pictures")
    return found


def _short(address: str) -> str:
    return printable(address.split("?")[0], 100) or "/"


def why_no_answer(error: Exception) -> str:
    """Say in words why a request got no answer."""
    words: dict[type[Exception], str] = {
        SOCKSError: "connection refused or failed",
        httpx.ConnectError: "connection refused or failed",
        httpx.ConnectTimeout: "no connection in time",
        httpx.ReadTimeout: "no answer in time",
        httpx.RemoteProtocolError: "the connection was cut without an answer",
    }
    return next((text for kind, text in words.items() if isinstance(error, kind)), printable(error, 120))


def _heading(page: httpx.Response) -> str:
    soup = BeautifulSoup(page.content[:65536], "html.parser")
    title = soup.title or soup.h1
    return printable(" ".join(title.get_text().split()), 80) if title else f"{len(page.content)} bytes without a title"


def free_port() -> int:
    """Return a loopback TCP port that was free a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def tunnel(site: Site, view: View) -> Iterator[str | None]:
    """Open a SOCKS tunnel through the view's `via` host; give the proxy's address, or None where none is needed."""
    if not view.via:
        yield None
        return
    port = free_port()
    if shutil.which("ssh") is None:
        raise MisconfiguredError(
            "ssh is not in PATH; this view is reached through it.", "scripts/bootstrap --controller"
        )
    command = ["ssh", *site.ssh_arguments, "-N", "-D", f"127.0.0.1:{port}", "-o", "BatchMode=yes",
               "-o", "ExitOnForwardFailure=yes", "-o", "ConnectTimeout=8", "-o", "ControlPath=none",
               view.via]  # fmt: skip
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        try:
            deadline = time.monotonic() + 10
            while not _listens(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    process.kill()
                    words = process.stderr.read().decode(errors="replace").strip() if process.stderr else ""
                    raise UnreachableError(
                        f"no ssh tunnel through {view.via}: {printable(words, 300) or 'no answer in 10 s'}",
                        f"hikeshi probe --site {site.name} looks from outside, without the tunnel",
                    )
                time.sleep(0.05)
            yield f"socks5://127.0.0.1:{port}"
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End ssh: a signal that comes just as it begins to wait is one that it never notices."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(ENDING_S)
    process.kill()


def _listens(port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(0.5)
        return client.connect_ex(("127.0.0.1", port)) == 0


def choose(site: Site, only: list[str]) -> list[Probe]:
    """Return the probes named, all when none is named."""
    known = {probe.id: probe for probe in site.data.probes}
    unknown = [name for name in only if name not in known]
    if unknown:
        raise UsageError(f"unknown probe '{unknown[0]}'; allowed: {', '.join(known)}.", "hikeshi probe")
    return [known[name] for name in only] if only else list(known.values())


@contextmanager
def visitor(site: Site, view: View, proxy: str | None) -> Iterator[Visitor]:
    """Give a new visitor; the operator's proxies and cookies play no part."""
    with httpx.Client(
        timeout=site.data.timeout_s,
        proxy=proxy,
        trust_env=False,
        headers={"User-Agent": "hikeshi-probe", "Accept-Language": "en"},
    ) as client:
        yield Visitor(client, view, site)


def run(
    site: Site,
    view_name: str,
    only: list[str] | None = None,
    report: Callable[[ProbeResult], None] = lambda result: None,
) -> list[ProbeResult]:
    """Run probes on one view, one after the other, each as a new visitor."""
    view = site.data.views.get(view_name)
    if view is None:
        raise UsageError(f"unknown view '{view_name}'; allowed: {', '.join(site.data.views)}.")
    results: list[ProbeResult] = []
    with tunnel(site, view) as proxy:
        for probe in choose(site, only or []):
            if probe.effects == "order" and not site.data.practice and view_name != "customer" and not only:
                continue  # one order tells it all; a real site is not filled with them
            result = _run_one(site, view_name, probe, proxy)
            report(result)
            results.append(result)
    return results


def run_views(
    site: Site, view_names: Sequence[str], report: Callable[[ProbeResult], None] = lambda result: None
) -> list[ProbeResult]:
    """Run all probes on several views, two views at a time: a small shop has two workers."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        found = list(pool.map(lambda name: run(site, name), view_names))
    results = [result for results in found for result in results]
    for result in results:
        report(result)
    return results


def _run_one(site: Site, view_name: str, probe: Probe, proxy: str | None) -> ProbeResult:
    started = time.monotonic()
    with visitor(site, site.data.views[view_name], proxy) as customer:
        try:
            for step in probe.steps:
                customer.take(step)
            passed, seen = True, "; ".join(customer.notes) or "as it should be"
        except ProbeFailure as failure:
            passed, seen = False, str(failure)
        if customer.noted:
            try:
                for step in probe.undo:
                    customer.take(_filled(step, customer.noted))
            except ProbeFailure as failure:
                passed, seen = False, f"{seen}; it could not be undone: {failure}"
    seconds = time.monotonic() - started
    return ProbeResult(probe.id, probe.title, view_name, passed, seen, seconds, dict(customer.noted))


def _filled(step: Step, noted: Mapping[str, str]) -> Step:
    """Return a step with {name} replaced by what was noted under that name."""

    def fill(value: object) -> object:
        if isinstance(value, str):
            for name, words in noted.items():
                value = value.replace(f"{{{name}}}", words)
            return value
        if isinstance(value, dict):
            return {key: fill(item) for key, item in value.items()}
        return [fill(item) for item in value] if isinstance(value, list) else value

    return Step.model_validate(fill(step.model_dump()))


def record_pictures(site: Site, view_name: str) -> Path:
    """Write the fingerprints of the pictures shown now to the file the site's probe names, and return it.

    Look at the shop before you trust it: whatever is shown now becomes what is right.
    """
    view = site.data.views[view_name]
    for probe in site.data.probes:
        for index, step in enumerate(probe.steps):
            if step.pictures is None:
                continue
            with tunnel(site, view) as proxy, visitor(site, view, proxy) as customer:
                try:
                    for earlier in probe.steps[:index]:
                        customer.take(earlier)
                    found = customer.pictures(step.pictures)
                except ProbeFailure as failure:
                    raise HikeshiError(f"the shop does not show its pictures: {failure}") from failure
            broken = {name: item for name, item in found.items() if isinstance(item, ProbeFailure)}
            if broken:
                name, why = next(iter(broken.items()))
                raise HikeshiError(f"not recorded, {len(broken)} pictures are broken, the first: {name}: {why}")
            path = site.folder / step.pictures.recorded
            prints = {name: bytes(item).hex() for name, item in sorted(found.items()) if isinstance(item, list)}
            path.write_text(json.dumps(prints, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            return path
    raise MisconfiguredError(f"no probe of site {site.name} has a `pictures` step.", "see inventories/drill/probes.yml")
