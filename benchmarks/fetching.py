"""How fast pictures are fetched: beside a client that does nothing else, and on a night after which nothing changed.

A server in a process of its own answers after a fixed time, as one far away would, and fails for one picture in a
hundred: in turn for good (404), for what may pass (503), and by closing the connection. The bare client fetches the
same URLs in one event loop, as many at once, asks once for each and keeps nothing. The fetching stage is
:class:`Fetcher` alone, with its retries and checks; ``extract`` decodes, normalises and writes the pictures besides.
"""

import asyncio
import io
import json
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import typer
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.trials import RESULTS
from pipeline.config.file import load_config
from pipeline.config.models import Config
from pipeline.lake.run import Run
from pipeline.on_spark.extract import extract
from pipeline.on_spark.fetch import Fetcher, Reply, Request
from pipeline.on_spark.session import spark_session

FAILURES = 100  # one picture in so many
MAX_BYTES = 20_000_000
DIFFERENT = 50  # pictures that the server has


class PictureServer(ThreadingHTTPServer):
    """Answers after ``seconds``; counts in ``answers`` the pictures that were sent, and those that had not to be."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, seconds: float, answers: Any) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.seconds, self.answers = seconds, answers
        self.pictures = [_photograph(seed) for seed in range(DIFFERENT)]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections are closed on purpose here."""


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: PictureServer

    def log_message(self, format: str, *args: Any) -> None:
        """Silence."""

    def do_GET(self) -> None:
        """``/N.jpg``, with an entity tag."""
        time.sleep(self.server.seconds)
        number = int(self.path.strip("/").removesuffix(".jpg"))
        status, body = 200, self.server.pictures[number % DIFFERENT]
        if number % FAILURES == FAILURES - 1:
            status, body = (404, 503, 0)[number // FAILURES % 3], b""
        if status == 0:
            self.close_connection = True
            return
        if status == 200 and self.headers["If-None-Match"]:
            status, body = 304, b""
        with self.server.answers.get_lock():
            self.server.answers[0] += status == 200
            self.server.answers[1] += status == 304
        self.send_response(status)
        self.send_header("ETag", f'"{number}"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _photograph(seed: int) -> bytes:
    """A JPEG of the size of a shop's pictures, about 96 kB."""
    smooth = Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 40, 3), dtype=np.uint8))
    target = io.BytesIO()
    smooth.resize((800, 800), Image.Resampling.BICUBIC).save(target, "JPEG", quality=85)
    return target.getvalue()


@contextmanager
def picture_server(seconds: float) -> Iterator[tuple[str, Any]]:
    """The host of a running server, and the counts of its answers: pictures, and 304."""
    context = multiprocessing.get_context("spawn")
    answers, (port, port_of_server) = context.Array("q", 2), context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(seconds, answers, port_of_server), daemon=True)
    process.start()
    try:
        yield f"127.0.0.1:{port.recv()}", answers
    finally:
        process.terminate()
        process.join()


def _serve(seconds: float, answers: Any, port: Any) -> None:
    server = PictureServer(seconds, answers)
    port.send(server.server_port)
    server.serve_forever()


def bare_client(urls: list[str], at_once: int) -> int:
    """Fetch every URL once; how many pictures came."""

    async def fetch(client: httpx.AsyncClient, left: Iterator[str]) -> int:
        came = 0
        for url in left:
            try:
                came += (await client.get(url)).status_code == 200
            except httpx.TransportError:
                continue
        return came

    async def all_of_them() -> int:
        left = iter(urls)
        async with httpx.AsyncClient(trust_env=False, limits=httpx.Limits(max_connections=at_once)) as client:
            return sum(await asyncio.gather(*(fetch(client, left) for _ in range(at_once))))

    return asyncio.run(all_of_them())


def fetching_stage(config: Config, urls: list[str], at_once: int) -> int:
    """The same by the fetcher of ``extract``, its lanes taken in turn."""
    assert config.catalog.image is not None
    assert config.catalog.image.fetch is not None
    with Fetcher(config.catalog.image.fetch, MAX_BYTES) as fetcher:
        requests = ((url, Request(url, lane=i % at_once)) for i, url in enumerate(urls))
        return sum(isinstance(reply, Reply) for _, reply in fetcher.replies(requests))


def night(config: Config) -> Run:
    """One ``extract``."""
    with Run("extract", config) as run, spark_session(config.spark, "benchmark") as spark:
        extract(spark, run)
    return run


def configured(home: Path, urls: list[str], host: str, at_once: int) -> Config:
    """A catalogue of one item a URL, every URL asked again on every night."""
    rows = (json.dumps({"id": str(i), "title": f"item {i}", "image": url}) + "\n" for i, url in enumerate(urls))
    (home / "items.json").write_text("".join(rows))
    fetch = {"hosts": [host], "workers": at_once, "per_host": at_once, "recheck_days": 0}
    catalog = {"source": {"path": "items.json", "format": "json"}, "id": "id", "text": "{title}"}
    catalog["image"] = {"column": "image", "fetch": fetch, "max_bytes": MAX_BYTES}
    (home / "hisam.yaml").write_text(json.dumps({"lake": "lake", "catalog": catalog}))
    return load_config(home / "hisam.yaml")


def main(
    items: Annotated[int, typer.Option(help="URLs, one in a hundred of which fails.")] = 5_000,
    at_once: Annotated[int, typer.Option(help="Pictures fetched at once, by every client.")] = 16,
    milliseconds: Annotated[float, typer.Option(help="After which the server answers.")] = 50,
) -> None:
    """Print the table and write ``results/fetching.json``."""
    with tempfile.TemporaryDirectory() as scratch, picture_server(milliseconds / 1000) as (host, answers):
        urls = [f"http://{host}/{i}.jpg" for i in range(items)]
        config = configured(Path(scratch), urls, host, at_once)
        found: dict[str, dict[str, float]] = {}

        def measure(name: str, work: Any) -> None:
            answers[:] = [0, 0]
            clock = time.perf_counter()
            result = work()
            seconds = time.perf_counter() - clock
            if isinstance(result, Run):
                seconds = result.seconds["prepare"]
            found[name] = {"seconds": round(seconds, 2), "urls_per_second": round(items / seconds, 1)}
            found[name] |= {"sent": answers[0], "unchanged": answers[1]}

        with spark_session(config.spark, "benchmark"):
            measure("bare client", lambda: bare_client(urls, at_once))
            measure("fetching stage", lambda: fetching_stage(config, urls, at_once))
            measure("first night, extract's phase prepare", lambda: night(config))
            measure("second night, extract's phase prepare", lambda: night(config))
            measure("bare client again", lambda: bare_client(urls, at_once))
    fastest = max(found[name]["urls_per_second"] for name in ("bare client", "bare client again"))
    table = Table("", "seconds", "URLs a second", "of the faster bare client", "pictures sent", "answers 304")
    for name, row in found.items():
        row["ratio"] = round(row["urls_per_second"] / fastest, 3)
        figures = (f"{row['seconds']:.1f}", f"{row['urls_per_second']:.0f}", f"{row['ratio']:.2f}")
        table.add_row(name, *figures, f"{row['sent']:,}", f"{row['unchanged']:,}")
    settings = {"items": items, "at_once": at_once, "milliseconds": milliseconds}
    (RESULTS / "fetching.json").write_text(json.dumps(settings | found, indent=1) + "\n")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
