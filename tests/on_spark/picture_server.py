"""A server of pictures on loopback that is asked for good ones, and for every way in which servers fail."""

import io
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

from PIL import Image

MODIFIED = "Tue, 03 Feb 2026 04:05:06 GMT"


def png(name: str) -> bytes:
    """A picture of its own for every name."""
    target = io.BytesIO()
    Image.new("RGB", (24, 16), tuple(sha256(name.encode()).digest()[:3])).save(target, "PNG")
    return target.getvalue()


class PictureServer(ThreadingHTTPServer):
    """``asked`` lists path and status of every answer; ``most`` is how many requests there were at once."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, seconds: float, address: str) -> None:
        super().__init__((address, 0), _Handler)
        self.seconds = seconds
        self.pictures: dict[str, bytes] = {}
        self.asked: list[tuple[str, int]] = []
        self.headers: dict[str, str] = {}
        self.now = self.most = 0
        self.down = False
        self.lock = threading.Lock()
        self.closing = threading.Event()

    @property
    def host(self) -> str:
        return f"{self.server_address[0]}:{self.server_port}"

    def url(self, path: str) -> str:
        return f"http://{self.host}{path}"

    def statuses(self) -> list[int]:
        """Of the answers since it was asked last, sorted."""
        with self.lock:
            found, self.asked = sorted(status for _, status in self.asked), []
        return found

    def tries(self, path: str) -> int:
        return sum(asked == path for asked, _ in self.asked)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: PictureServer

    def log_message(self, *_: object) -> None:
        """Silence."""

    def do_GET(self) -> None:
        server = self.server
        with server.lock:
            server.now += 1
            server.most = max(server.most, server.now)
            server.headers = dict(self.headers)
        try:
            time.sleep(server.seconds)
            kind = "503" if server.down else unquote(self.path).split("/")[1]
            {"ok": self.picture, "modified": self.picture}.get(kind, lambda: self.fault(kind))()
        finally:
            with server.lock:
                server.now -= 1

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        with self.server.lock:
            self.server.asked.append((self.path, status))
        self.send_response(status)
        for name, value in ({"Content_Length": str(len(body))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def picture(self) -> None:
        body = self.server.pictures.get(self.path) or png(self.path)
        if self.path.startswith("/modified"):
            known, validator = self.headers["If-Modified-Since"] == MODIFIED, {"Last_Modified": MODIFIED}
        else:
            tag = f'"{sha256(body).hexdigest()[:8]}"'
            known, validator = self.headers["If-None-Match"] == tag, {"ETag": tag}
        if known:
            self.answer(304, **validator)
        else:
            self.answer(200, body, Content_Type="text/html", **validator)

    def fault(self, kind: str) -> None:
        body = png(self.path)
        if kind.isdecimal():
            self.answer(int(kind), b"no")
        elif kind == "flaky":  # /flaky/N/…: fails N times
            again = self.server.tries(self.path) < int(self.path.split("/")[2])
            self.answer(503) if again else self.answer(200, body)
        elif kind == "limit":  # /limit/SECONDS/…: once asks for a rest
            rest = self.path.split("/")[2]
            self.answer(200, body) if self.server.tries(self.path) else self.answer(429, Retry_After=unquote(rest))
        elif kind == "to":  # /to/URL
            self.answer(302, Location=unquote(self.path.removeprefix("/to/")))
        elif kind == "loop":
            self.answer(302, Location=self.path + "x")
        elif kind == "short":
            self.close_connection = True
            self.answer(200, body[:-9], Content_Length=str(len(body)))
        elif kind == "cut":
            self.close_connection = True
            self.answer(200, body, Content_Length=str(len(body) // 2))
        elif kind == "huge":
            self.answer(200, b"", Content_Length="100000000")
            self.close_connection = True
        elif kind == "endless":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            self.flood(b"400\r\n" + bytes(1024) + b"\r\n", 0)
        elif kind == "drip":
            self.answer(200, Content_Length="40000")
            self.flood(b"x", 0.05)
        elif kind == "drip-headers":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Name: ")
            self.flood(b"x", 0.05)
        elif kind == "reset":
            self.close_connection = True
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def flood(self, data: bytes, seconds: float) -> None:
        self.close_connection = True
        while not self.server.closing.wait(seconds):
            self.wfile.write(data)


@contextmanager
def picture_server(seconds: float = 0.0, address: str = "127.0.0.1") -> Iterator[PictureServer]:
    """A running server that takes so long for every answer."""
    server = PictureServer(seconds, address)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
