"""Pictures over http and https, on Spark's Python workers: many at once, each within bounds of time and size.

The environment's proxies are not used; its SSL_CERT_FILE and SSL_CERT_DIR are.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from queue import SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Self, TypeAlias, TypeVar

import httpcore
import httpx

from pipeline.config.models import Fetch
from pipeline.on_spark.lanes import Host, Lane, now
from pipeline.on_spark.pictures import ImageFault, shown
from pipeline.on_spark.web_hosts import CheckedBackend, WebHosts
from schemas.reasons import Reason

WAITING = 256  # requests that are known at once; more than are made at once, since some wait for their host
REDIRECTS = 5
LONGEST_VALIDATOR = 200  # characters
PASSING = (408, 425, 429)  # answers that may be another one soon, like all from 500 on
GONE = (404, 410)
MOVED = (301, 302, 303, 307, 308)
ASKED_BY = {"E": "If-None-Match", "M": "If-Modified-Since"}  # by the first letter of a validator

T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    """A picture to fetch.

    ``lane`` is one of a host's ``per_host`` lanes: requests of a lane are made one after the other. ``validator`` is
    that of the picture which is known already, or ``""``.
    """

    url: str
    lane: int = 0
    validator: str = ""


@dataclass(frozen=True)
class Reply:
    """``data`` of a picture, ``None`` where it is the known one, and the validator to ask by next time."""

    data: bytes | None
    validator: str


Answers: TypeAlias = SimpleQueue[tuple[T, Reply | Exception]]


class _Failed(Exception):
    """A try without a picture, for what may pass soon."""


class Fetcher:
    """Fetches pictures, as a context: requests are made in an event loop on a thread of its own.

    At most ``settings.workers`` pictures are being received, or wait to be taken, at once.
    """

    def __init__(self, settings: Fetch, max_bytes: int) -> None:
        self._settings = settings
        self._max_bytes = max_bytes
        self._allowed = WebHosts(frozenset(settings.hosts))
        self._headers: dict[bytes | str, bytes | str] = {
            "User-Agent": f"hi-sam/{version('hi-sam')}",
            "Accept": "image/*",
            "Accept-Encoding": "identity",
        }
        self._hosts: dict[str, Host] = defaultdict(Host)
        self._lanes: dict[tuple[str, int], Lane] = {}
        self._slots = asyncio.Semaphore(settings.workers)
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, daemon=True, name="fetch")

    def __enter__(self) -> Self:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=httpx.create_ssl_context(),
            max_connections=self._settings.workers,
            keepalive_expiry=10.0,
            network_backend=CheckedBackend(self._allowed),
        )
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        unfinished = asyncio.all_tasks() - {asyncio.current_task()}
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)
        await self._pool.aclose()

    def replies(self, requests: Iterable[tuple[T, Request | None]]) -> Iterator[tuple[T, Reply | Exception | None]]:
        """Every request's key with its picture or what is wrong with it, as they come; keys without a request, too.

        What is wrong is an :class:`ImageFault`, ``fetch_failed`` for what may pass, or the exception of a bug of ours.
        """
        ready: Answers[T] = SimpleQueue()
        left, waiting = iter(requests), 0
        while True:
            while waiting < WAITING and (following := next(left, None)) is not None:
                key, request = following
                if request is None:
                    yield key, None
                else:
                    waiting += 1
                    asyncio.run_coroutine_threadsafe(self._reply(key, request, ready), self._loop)
            if not waiting:
                return
            key, reply = ready.get()
            waiting -= 1
            yield key, reply
            if isinstance(reply, Reply):
                self._loop.call_soon_threadsafe(self._slots.release)

    async def _reply(self, key: T, request: Request, ready: Answers[T]) -> None:
        try:
            ready.put((key, await self._picture(request)))
        except Exception as error:  # noqa: BLE001  (of the picture, or a bug's: whoever asked is told)
            ready.put((key, error))

    async def _picture(self, request: Request) -> Reply:
        """The picture, after as many tries as are allowed; its slot stays taken."""
        url = self._allowed.url(request.url)
        lane = self._lanes.setdefault((url.host, request.lane), Lane(self._hosts[url.host]))
        async with lane.one:
            began, left = now(), self._settings.retries
            while True:
                await lane.ready()
                try:
                    reply = await self._in_a_slot(url, request, lane.host)
                except _Failed as failed:
                    lane.failed += 1
                    if not left:
                        lane.host.gave_nothing(began, str(failed))
                        raise _fetch_failed(request, str(failed)) from failed
                    left -= 1
                except ImageFault:
                    lane.answered()
                    raise
                else:
                    lane.answered()
                    return reply

    async def _in_a_slot(self, url: httpx.URL, request: Request, host: Host) -> Reply:
        await self._slots.acquire()
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                return await self._follow(url, request, host)
        except BaseException as error:
            self._slots.release()
            if isinstance(error, TimeoutError):
                raise _Failed(f"no whole answer came within {self._settings.timeout_s:g} s") from error
            if isinstance(error, (OSError, httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException)):
                raise _Failed(f"{type(error).__name__} {error}".strip()) from error
            raise

    async def _follow(self, url: httpx.URL, request: Request, host: Host) -> Reply:
        """One try, through the server's redirects."""
        for _ in range(REDIRECTS + 1):
            headers = self._headers | {"Host": url.netloc}
            if request.validator:
                headers[ASKED_BY[request.validator[0]]] = request.validator[1:]
            place = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
            async with self._pool.stream("GET", place, headers=headers) as response:
                found = httpx.Headers(response.headers)
                if response.status not in MOVED or "Location" not in found:
                    return await self._read(response, found, request, host)
                url = self._allowed.url(found["Location"], base=url)
        raise ImageFault(Reason.IMAGE_NOT_ALLOWED, f"{shown(request.url)} is redirected more than {REDIRECTS} times")

    async def _read(self, response: httpcore.Response, headers: httpx.Headers, request: Request, host: Host) -> Reply:
        status, told = response.status, shown(request.url)
        if status in PASSING or status >= 500:
            host.rest(_seconds(headers.get("Retry-After", "")))
            raise _Failed(f"the server answered {status}")
        if status == 304 and request.validator:
            return Reply(None, request.validator)
        if status in GONE:
            raise ImageFault(Reason.MISSING_IMAGE, f"{told}: the server answered {status}")
        if status != 200:
            raise _fetch_failed(request, f"the server answered {status}")
        length = headers.get("Content-Length", "0")
        size, chunks = int(length[:20]) if length.isdecimal() else 0, []
        if size <= self._max_bytes:
            size = 0
            async for chunk in response.aiter_stream():
                size += len(chunk)
                chunks.append(chunk)
                if size > self._max_bytes:
                    break
        if size > self._max_bytes:
            raise ImageFault(Reason.IMAGE_TOO_LARGE, f"{told} has {size} bytes or more, allowed are {self._max_bytes}")
        return Reply(b"".join(chunks), _validator(headers))


def contents(reply: Reply | Exception) -> bytes | None:
    """The bytes of a picture, ``None`` where it is the known one.

    Raises:
        ImageFault: what is wrong with it.
    """
    if isinstance(reply, Reply):
        return reply.data
    if isinstance(reply, ImageFault):
        raise reply
    raise ImageFault(Reason.FETCH_FAILED, f"{type(reply).__name__}: {reply}") from reply  # a bug of ours


def _fetch_failed(request: Request, why: str) -> ImageFault:
    return ImageFault(Reason.FETCH_FAILED, f"{shown(request.url)}: {why}; the next night tries again")


def _seconds(retry_after: str) -> float:
    """The rest that a server asks for; what cannot be read asks for none."""
    if retry_after.isdecimal():
        return float(retry_after[:9])
    with suppress(ValueError):
        return max((parsedate_to_datetime(retry_after).astimezone(UTC) - datetime.now(UTC)).total_seconds(), 0.0)
    return 0.0


def _validator(headers: httpx.Headers) -> str:
    """A letter and the value to ask by: of the entity tag, else of the last modification; empty where there is none."""
    for letter, name in (("E", "ETag"), ("M", "Last-Modified")):
        value = headers.get(name, "")
        if value and len(value) <= LONGEST_VALIDATOR and value.isascii() and value.isprintable():
            return letter + value
    return ""
