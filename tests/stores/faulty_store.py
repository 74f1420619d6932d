"""A proxy before an S3 server, which fails as stores do; ``python faulty_store.py SERVER RULE`` prints its port."""

import http.client
import json
import re
import sys
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

REASONS = {403: "AccessDenied", 404: "NoSuchBucket", 503: "SlowDown", 507: "InsufficientStorage"}
SLOW_SECONDS = 2
BESIDE = {"transfer-encoding", "connection", "content-length", "expect"}


class FaultyStore:
    """The S3 server of the tests behind the proxy; ``options`` are those of its storage."""

    def __init__(self, port: str, rule: Path) -> None:
        self.options = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port.strip()}"}
        self._rule = rule

    def fails(self, fault: str | int, method: str, path: str, times: int = 10_000, *, wholly: bool = False) -> None:
        """What befalls requests: ``silent`` (no answer), ``slow``, ``lost`` (done, no answer), or an HTTP status.

        Of those with the ``method`` and a ``path`` in which the pattern is found, so many ``times``; ``wholly``: of
        the first of them, and of every request after it.
        """
        rule = {"fault": fault, "method": method, "path": path, "times": times, "wholly": wholly}
        self._rule.write_text(json.dumps(rule))

    def struck(self) -> bool:
        """Whether the fault that was ``wholly`` to come has come."""
        return json.loads(self._rule.read_text()).get("path") == ""

    def works(self) -> None:
        self._rule.write_text("")


class Proxy(BaseHTTPRequestHandler):
    """Hands requests on as they are, signatures included."""

    protocol_version = "HTTP/1.1"

    def do(self) -> None:
        body, fault = self._body(), self._fault()
        if fault in ("silent", "slow"):
            time.sleep(600 if fault == "silent" else SLOW_SECONDS)
        if isinstance(fault, int):
            said = f"<Error><Code>{REASONS[fault]}</Code><Message>no</Message></Error>".encode()
            self._answer(fault, [("Content-Type", "application/xml")], said)
            return
        server = http.client.HTTPConnection(sys.argv[1])
        server.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in BESIDE:
                server.putheader(name, value)
        server.putheader("Content-Length", str(len(body)))
        server.endheaders(body)
        got = server.getresponse()
        said = got.read()
        server.close()
        if fault == "lost":
            self.close_connection = True
            return
        with suppress(BrokenPipeError):  # it was tired of waiting
            self._answer(got.status, got.getheaders(), said)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = do

    def _answer(self, status: int, headers: list[tuple[str, str]], said: bytes) -> None:
        length = dict(headers).get("Content-Length", "0") if self.command == "HEAD" else str(len(said))
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in BESIDE:
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(said)

    def _body(self) -> bytes:
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(chunks)

    def _fault(self) -> str | int | None:
        rule_file = Path(sys.argv[2])
        rule = json.loads(rule_file.read_text() or "{}")
        if not rule or not re.fullmatch(rule["method"], self.command) or not re.search(rule["path"], self.path):
            return None
        if rule["wholly"]:
            rule |= {"method": ".*", "path": "", "wholly": False}
        left = rule["times"] - 1
        rule_file.write_text(json.dumps(rule | {"times": left}) if left else "")
        return rule["fault"]

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()
