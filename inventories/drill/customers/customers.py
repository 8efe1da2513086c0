#!/usr/bin/env python3
"""The practice shop's customers: they browse, fill carts and buy, seeded and bounded, and remember what happened.

    customers.py --to 10.0.0.10 --to fd00::10 --seed 1 --every 2.0 --seconds 600 --orders 0.25 --truth FILE

Standard library of Debian's python3. Each request becomes one JSON line of the truth, written when it ended: at
(seconds since the epoch), ms, visitor, agent, to, method, path, status (0: no answer), bytes, why. An order on the
screen is one more line: at, visitor, order. Sends only to the addresses given, to at most MOST_AT_ONCE visitors at a
time, and stops by itself.
"""

import argparse
import http.client
import http.cookies
import json
import random
import re
import signal
import sys
import threading
import time
import urllib.parse

MOST_AT_ONCE = 4
TIMEOUT_S = 15
MOST_SECONDS = 3600
LEAST_EVERY_S = 0.2
PRODUCTS = 24
AGENTS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/142.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 Version/18.1 Mobile Safari/604.1",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 14_7) Gecko/20100101 Firefox/144.0",
)


class Lost(Exception):
    """The visitor got no usable answer and goes away."""


class Visitor:
    """One customer with cookies of his own."""

    def __init__(self, name, address, host, chance, truth):
        """Come to the shop at one address."""
        self.name, self.address, self.host, self.truth = name, address, host, truth
        self.agent = chance.choice(AGENTS)
        self.cookies = {}
        self.page = ""

    def ask(self, method, path, fields=None):
        """Send one request, follow redirects; return the page. Every request is written to the truth."""
        for _ in range(6):
            status, headers, body = self._send(method, path, fields)
            if status in (301, 302, 303):
                target = urllib.parse.urlsplit(headers.get("Location", "/"))
                method, path, fields = "GET", target.path + (f"?{target.query}" if target.query else ""), None
                continue
            if status != 200:
                raise Lost(f"{status} for {path}")
            self.page = body.decode("utf-8", "replace")
            self.path = path
            return self.page
        raise Lost(f"{path}: redirected without end")

    def _send(self, method, path, fields):
        body = urllib.parse.urlencode(fields).encode() if fields is not None else None
        headers = {"Host": self.host, "User-Agent": self.agent, "Accept-Language": "en", "Connection": "close"}
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{key}={value}" for key, value in self.cookies.items())
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        began, status, size, why = time.time(), 0, 0, ""
        try:
            connection = http.client.HTTPConnection(self.address, 80, timeout=TIMEOUT_S)
            try:
                connection.request(method, path, body, headers)
                answer = connection.getresponse()
                content = answer.read()
                status, size = answer.status, len(content)
                for line in answer.headers.get_all("Set-Cookie", []):
                    for morsel in http.cookies.SimpleCookie(line).values():
                        self.cookies[morsel.key] = morsel.value
                return status, answer.headers, content
            finally:
                connection.close()
        except (OSError, http.client.HTTPException) as error:
            why = f"{type(error).__name__}: {error}"
            raise Lost(why) from error
        finally:
            self.truth(
                at=round(began, 3), ms=round((time.time() - began) * 1000), visitor=self.name, agent=self.agent,
                to=self.address, method=method, path=path, status=status, bytes=size, why=why,
            )  # fmt: skip

    def send(self, form, **fields):
        """Send a form of the page in view (found by a piece of its tag) with its hidden fields."""
        found = re.search(rf"<form\b[^>]*{form}.*?</form>", self.page, re.DOTALL)
        if not found:
            raise Lost(f"no form {form} on {self.path}")
        tag = found[0].split(">", 1)[0]
        action = re.search(r'action="([^"]+)"', tag)
        data = {}
        for field in re.findall(r"<input\b[^>]*>", found[0]):
            name = re.search(r'name="([^"]+)"', field)
            value = re.search(r'value="([^"]*)"', field)
            if name and 'type="hidden"' in field:
                data[name[1]] = value[1] if value else ""
        return self.ask("POST", action[1] if action else self.path, {**data, **fields})


def browse(visitor, chance):
    """Look at the catalogue, some pictures and a product."""
    visitor.ask("GET", "/")
    page = visitor.ask("GET", "/catalogue/")
    for picture in chance.sample(re.findall(r'<img src="(/media/[^"]+)"', page) or [""], 3):
        if picture:
            visitor._send("GET", picture, None)
    number = chance.randint(1, PRODUCTS)
    visitor.ask("GET", f"/catalogue/lantern-{number:02d}_{number}/")


def fill(visitor, chance):
    """Put a product in the cart and look at the cart."""
    browse(visitor, chance)
    visitor.send('id="add_to_basket_form"', quantity=str(chance.randint(1, 3)))
    visitor.ask("GET", "/basket/")


def buy(visitor, chance):
    """Buy as a guest; an order's number on the screen is written to the truth."""
    fill(visitor, chance)
    visitor.ask("GET", "/checkout/")
    visitor.send('class="card', username=f"{visitor.name}@customer.example", options="anonymous")
    visitor.send('id="new_shipping_address"', first_name="Taro", last_name=visitor.name, line1="4-5-6 Kanda",
                 line4="Tokyo", postcode="101-0021")  # fmt: skip
    visitor.send('id="card_form"', number="4242424242424242", month="12", year="2030", code="123")
    page = visitor.send('id="place_order_form"')
    number = re.search(r"your order number is\s*<strong>(\w+)</strong>", page)
    if number:
        visitor.truth(at=round(time.time(), 3), visitor=visitor.name, order=number[1])


def main():
    """Send visitors until the time is over or somebody says stop; those inside may finish."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--to", action="append", required=True, help="address of the shop; visitors take turns")
    parser.add_argument("--host", default="shop.example", help="the shop's name")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--every", type=float, default=2.0, help="mean seconds between two visitors")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--orders", type=float, default=0.25, help="share of visitors who buy")
    parser.add_argument("--truth", required=True, help="file to write to")
    given = parser.parse_args()
    if given.every < LEAST_EVERY_S or not 0 < given.seconds <= MOST_SECONDS:
        parser.error(f"--every is at least {LEAST_EVERY_S}, --seconds at most {MOST_SECONDS}")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    chance = random.Random(given.seed)
    lock, places = threading.Lock(), threading.Semaphore(MOST_AT_ONCE)
    with open(given.truth, "a", encoding="utf-8") as handle:

        def truth(**event):
            with lock:
                handle.write(json.dumps(event) + "\n")
                handle.flush()

        def visit(name, address, seed):
            own = random.Random(seed)
            draw = own.random()
            way = buy if draw < given.orders else fill if draw < given.orders + 0.25 else browse
            try:
                way(Visitor(name, address, given.host, own, truth), own)
            except Lost:
                pass  # written already; he goes away
            finally:
                places.release()

        ends, count, threads = time.monotonic() + given.seconds, 0, []
        while time.monotonic() < ends and not stop.is_set():
            if places.acquire(timeout=0.5):
                count += 1
                words = (f"visitor-{given.seed}-{count}", given.to[count % len(given.to)], chance.random())
                threads.append(threading.Thread(target=visit, args=words))
                threads[-1].start()
            stop.wait(chance.expovariate(1 / given.every))
        for thread in threads:
            thread.join()
    return 0


if __name__ == "__main__":
    sys.exit(main())
