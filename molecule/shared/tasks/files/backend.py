"""A small real HTTP server for a proxy to stand in front of: says what it was asked, and can close its health check."""

import http.server
import json
import pathlib
import socket
import sys

CLOSED = pathlib.Path("/run/backend-closed")


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers every GET with the request as JSON."""

    def do_GET(self) -> None:
        """Answer; the health check with 503 while the file that closes it stands."""
        closed = self.path == "/lb-health" and CLOSED.exists()
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = json.dumps({"path": self.path, "headers": headers}).encode()
        self.send_response(503 if closed else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Stay silent: a Unix socket has no client address to log."""


class Server(http.server.ThreadingHTTPServer):
    """Listens on a port of the loopback address or on a socket's path."""

    def __init__(self, where: str) -> None:
        """Listen; on a socket everybody may connect to it."""
        if where.startswith("/"):
            self.address_family = socket.AF_UNIX
            pathlib.Path(where).unlink(missing_ok=True)
        super().__init__(where if where.startswith("/") else ("127.0.0.1", int(where)), Handler)  # type: ignore[arg-type]
        if where.startswith("/"):
            pathlib.Path(where).chmod(0o666)

    def server_bind(self) -> None:
        """Bind without asking for a name, which a socket's path has not."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = "backend", 0


Server(sys.argv[1]).serve_forever()
