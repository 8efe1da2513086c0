"""A little shop over real HTTP, to show that each probe fails for the right reason. It misbehaves on request."""

import io
import threading
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs

from PIL import Image, ImageDraw

COUNT = 4


def picture(number: int, size: int = 200) -> bytes:
    """A JPEG of one product; each has a colour and a bar of its own."""
    image = Image.new("RGB", (size, size), (40 + 50 * number, 200 - 40 * number, 90 * (number % 2)))
    ImageDraw.Draw(image).rectangle((size // 8, size * number // 8, size // 2, size * (number + 2) // 8), "white")
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


class Shop:
    """The server. `pictures` maps a path to (Content-Type, body); `faults` are the names of misbehaviours."""

    def __init__(self) -> None:
        self.pictures = {f"/media/{n}.jpg": ("image/jpeg", picture(n)) for n in range(COUNT)}
        self.faults: set[str] = set()
        self.carts: dict[str, dict[str, str]] = {}
        self.cached_cart: bytes | None = None
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        self.server.shutdown()
        self.server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        shop = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None:
                pass

            def session(self) -> str:
                cookie = SimpleCookie(self.headers.get("Cookie", ""))
                return cookie["session"].value if "session" in cookie else f"s{len(shop.carts)}"

            def answer(self, body: bytes, kind: str = "text/html; charset=utf-8", status: int = 200) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Set-Cookie", f"session={self.session()}; Path=/")
                shop.carts.setdefault(self.session(), {})
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self) -> None:
                if self.path in shop.pictures:
                    kind, body = shop.pictures[self.path]
                    self.answer(body, kind)
                elif self.path == "/":
                    self.answer(b"<title>Lanterns</title>" + b"Lantern")
                elif self.path == "/catalogue/":
                    images = "".join(
                        f'<article><img src="/media/{n}.jpg" alt="Lantern {n}"></article>' for n in range(COUNT)
                    )
                    self.answer(images.encode())
                elif self.path.startswith("/product/"):
                    name = self.path.rsplit("/", 1)[1]
                    self.answer(
                        f'<form id="add" method="post" action="/add"><input type="hidden" name="token" value="t">'
                        f'<input type="hidden" name="name" value="{name}"><input name="quantity" value="1">'
                        "</form>".encode()
                    )
                elif self.path == "/cart":
                    if "cart is cached" in shop.faults and shop.cached_cart is not None:
                        self.answer(shop.cached_cart)
                        return
                    cart = shop.carts.get(self.session(), {})
                    rows = "".join(f'{name}<input name="q-{name}" value="{count}">' for name, count in cart.items())
                    shop.cached_cart = (rows or "Your basket is empty").encode()
                    self.answer(shop.cached_cart)
                elif self.path == "/huge":
                    self.answer(b"x" * (9 << 20))
                elif self.path == "/loop":
                    self.send_response(302)
                    self.send_header("Location", "/loop")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                else:
                    self.answer(b"<title>Not found</title>", status=404)

            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                if form.get("token") != ["t"]:
                    self.answer(b"<title>Forbidden</title>", status=403)
                    return
                if "cart forgets" not in shop.faults:
                    shop.carts.setdefault(self.session(), {})[form["name"][0]] = form["quantity"][0]
                self.send_response(302)
                self.send_header("Location", f"http://shop.example{'/cart'}")
                self.send_header("Content-Length", "0")
                self.end_headers()

        return Handler
