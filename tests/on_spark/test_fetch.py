"""Fetching from a server that fails in every way: nothing is lost, nothing hangs, no host is asked too much at once."""

import asyncio
import re
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpcore
import pytest
from picture_server import MODIFIED, PictureServer, picture_server, png

import pipeline.on_spark.lanes as lanes
from pipeline.config.models import Fetch
from pipeline.on_spark.fetch import Fetcher, Reply, Request
from pipeline.on_spark.pictures import ImageFault
from pipeline.on_spark.web_hosts import CheckedBackend, WebHosts, is_public

MAX_BYTES = 50_000


@pytest.fixture
def server() -> Iterator[PictureServer]:
    with picture_server() as running:
        yield running


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "LONGEST_PAUSE", 0.02)


def fetched(
    requests: list[Request], hosts: list[str], max_bytes: int = MAX_BYTES, **settings: Any
) -> dict[str, Reply | str]:
    """By URL the reply, or reason and message of its fault."""
    limits = Fetch.model_validate({"hosts": hosts, "timeout_s": 0.7} | settings)
    with Fetcher(limits, max_bytes) as fetcher:
        replies = list(fetcher.replies((request.url, request) for request in requests))
    assert len(replies) == len(requests)
    return {url: f"{got.reason.value}: {got}" if isinstance(got, ImageFault) else got for url, got in replies}


def test_whatever_a_server_does_a_picture_or_a_reason_comes_of_it(server: PictureServer) -> None:
    outside = "http://localhost:1/a.png"
    expected = {
        "/ok/a.png": None,
        "/ok/a b\u00e4.png?v=3": None,
        "/flaky/2/a.png": None,
        "/limit/0/a.png": None,
        "/limit/nonsense/a.png": None,
        f"/to/{server.url('/ok/b.png')}": None,
        "/to//ok/c.png": None,
        "/404/a.png": "missing_image: .*answered 404",
        "/410/a.png": "missing_image: .*answered 410",
        "/403/a.png": "fetch_failed: .*answered 403; the next night tries again",
        "/204/a.png": "fetch_failed: .*answered 204",
        "/500/a.png": "fetch_failed: .*answered 500",
        "/flaky/3/a.png": "fetch_failed: .*answered 503",
        "/reset/a.png": "fetch_failed: ",
        "/short/a.png": "fetch_failed: .*peer closed connection",
        "/drip/a.png": "fetch_failed: .*no whole answer came within 0.7 s",
        "/drip-headers/a.png": "fetch_failed: .*no whole answer came within 0.7 s",
        "/huge/a.png": "image_too_large: .*100000000 bytes or more, allowed are 50000",
        "/endless/a.png": "image_too_large: .*allowed are 50000",
        f"/to/{outside}": "image_not_allowed: .*is redirected, and: localhost is not fetched from: name it under "
        r"catalog\.image\.fetch\.hosts",
        "/to/ftp://127.0.0.1/a.png": "image_not_allowed: .*a URL is http",
        "/loop/a.png": "image_not_allowed: .*redirected more than 5 times",
    }
    began = time.monotonic()
    found = fetched([Request(server.url(path)) for path in expected], [server.host], retries=2, per_host=1)
    parallel = fetched(
        [Request(server.url(path), lane=i) for i, path in enumerate(expected)], ["127.0.0.1"], retries=2, per_host=22
    )
    assert time.monotonic() - began < 30
    for path, reason in expected.items():
        reply = found[server.url(path)]
        if reason is None:
            assert isinstance(reply, Reply), (path, reply)
            assert (reply.data or b"").startswith(b"\x89PNG"), path
        else:
            assert isinstance(reply, str), (path, reply)
            assert re.search(reason, reply), (path, reply)
        if "flaky" not in path and "limit" not in path:
            assert (parallel[server.url(path)] == reply) or "/reset" in path, path
    assert not server.headers.get("Authorization")
    assert server.headers["User-Agent"].startswith("hi-sam/")


def test_a_known_picture_is_not_sent_again(server: PictureServer) -> None:
    etag, modified = server.url("/ok/a.png"), server.url("/modified/a.png")
    first = fetched([Request(etag), Request(modified)], [server.host])
    assert [reply.data for reply in first.values() if isinstance(reply, Reply)] == [
        png("/ok/a.png"),
        png("/modified/a.png"),
    ]
    validators = [reply.validator for reply in first.values() if isinstance(reply, Reply)]
    assert validators[1] == f"M{MODIFIED}"
    assert server.statuses() == [200, 200]
    again = fetched([Request(etag, validator=validators[0]), Request(modified, validator=validators[1])], [server.host])
    assert list(again.values()) == [Reply(None, validator) for validator in validators]
    assert server.statuses() == [304, 304]
    server.pictures["/ok/a.png"] = png("another")
    (changed,) = fetched([Request(etag, validator=validators[0])], [server.host]).values()
    assert isinstance(changed, Reply)
    assert (changed.data, changed.validator == validators[0]) == (png("another"), False)


def test_a_host_is_never_asked_for_more_at_once_than_was_allowed() -> None:
    with picture_server(seconds=0.01) as server:
        paths = [f"/ok/{i}.png" for i in range(90)] + [f"/limit/1/{i}.png" for i in range(1)]
        requests = [Request(server.url(path), lane=i % 3) for i, path in enumerate(paths)]
        found = fetched(requests, [server.host], per_host=3)
        assert all(isinstance(reply, Reply) for reply in found.values())
        assert server.most == 3
        server.most = 0
        fetched(requests, [server.host], per_host=3, workers=2)
        assert server.most == 2


def test_a_host_rests_for_as_long_as_it_asks(server: PictureServer) -> None:
    began = time.monotonic()
    paths = ["/limit/1/a.png", "/ok/b.png"]
    found = fetched([Request(server.url(path)) for path in paths], [server.host])
    assert all(isinstance(reply, Reply) for reply in found.values())
    assert 1 <= time.monotonic() - began < 5
    assert [path for path, _ in server.asked] == ["/limit/1/a.png", "/limit/1/a.png", "/ok/b.png"]
    far = "/limit/Fri, 01 Jan 2100 00:00:00 GMT/a.png"
    found = fetched([Request(server.url(path)) for path in (far, "/ok/c.png")], [server.host])
    assert [str(reply)[:12] for reply in found.values()] == ["fetch_failed"] * 2
    assert "asked for a rest of" in str(found[server.url("/ok/c.png")])


def test_a_host_that_is_down_is_given_up_and_others_are_not(
    server: PictureServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "PATIENCE", 0.1)
    with socket.create_server(("127.0.0.3", 0)) as free:
        dead = f"127.0.0.3:{free.getsockname()[1]}"
    with picture_server(address="127.0.0.2") as down:
        down.down = True
        requests = [Request(down.url(f"/ok/{i}.png"), lane=i % 4) for i in range(200)]
        requests += [Request(f"http://{dead}/{i}.png") for i in range(2)]
        requests += [Request(server.url(f"/ok/{i}.png")) for i in range(9)]
        found = fetched(requests, ["127.0.0.1", "127.0.0.2", "127.0.0.3"], retries=1)
        reached = {url for url, reply in found.items() if not str(reply).startswith("fetch_failed")}
        assert reached == {server.url(f"/ok/{i}.png") for i in range(9)}
        assert 10 <= len(down.statuses()) < 200
    assert "takes no connection" in str(found[f"http://{dead}/0.png"])
    assert any("pictures of its server failed in a row" in str(reply) for reply in found.values())


def test_only_named_hosts_and_public_addresses_are_connected_to(server: PictureServer) -> None:
    url = f"http://localhost:{server.server_port}/ok/a.png"
    (private,) = fetched([Request(url)], ["localhost"]).values()
    assert "localhost has the address " in str(private)
    assert "is not public: name the address itself under catalog.image.fetch.hosts" in str(private)
    (named,) = fetched([Request(url)], ["localhost", "127.0.0.1", "::1"]).values()
    assert isinstance(named, Reply)
    refused = ["http://u:p@127.0.0.1/a", "http://[bad/a", "http:///a", "http://2130706433/a", "http://127.0.0.1:1/\0"]
    refused += ["http://xn--a.example/a", f"http://{server.host.partition(':')[0]}:99999/a"]
    found = fetched([Request(url) for url in refused], [server.host, "127.0.0.1"])
    assert [str(reply)[:17] for reply in found.values()] == ["image_not_allowed"] * 7


def test_messages_hold_neither_user_nor_query(server: PictureServer) -> None:
    url = server.url("/404/a.png?sig=needle")
    urls = [url, server.url("/500/a.png?sig=needle"), url.replace("//", "//user:needle@"), "https://h/a?sig=needle"]
    found = fetched([Request(url) for url in urls], [server.host], retries=0)
    assert len(found) == 4
    assert "needle" not in str([*found.values()])


def test_addresses_of_the_inside_are_not_public() -> None:
    for address in (
        *("10.1.2.3", "127.0.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "240.0.0.1", "192.168.0.1"),
        *(
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "2002:7f00:1::",
            "64:ff9b:1::1",
            "2001:db8::1",
        ),
    ):
        assert not is_public(address), address
    assert is_public("8.8.8.8")
    assert is_public("2606:4700::1111")


def test_the_address_that_was_checked_is_the_one_connected_to(
    server: PictureServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is public when it is looked up and private a moment later."""
    connected = []

    async def connect(self: object, host: str, port: int, *_: object) -> None:
        connected.append(host)
        raise httpcore.ConnectError("no way there")

    async def resolve() -> None:
        loop, answers = asyncio.get_running_loop(), iter(["93.184.216.34", "127.0.0.1"])

        async def getaddrinfo(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
            return [(2, 1, 6, "", (next(answers), port))]

        monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo, raising=False)
        with pytest.raises(httpcore.ConnectError, match=r"rebinding\.example takes no connection"):
            await CheckedBackend(WebHosts(frozenset({"rebinding.example"}))).connect_tcp("rebinding.example", 80)
        with pytest.raises(ImageFault, match=r"has the address 127\.0\.0\.1, which is not public"):
            await CheckedBackend(WebHosts(frozenset({"rebinding.example"}))).connect_tcp("rebinding.example", 80)

    monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", connect)
    asyncio.run(resolve())
    assert connected == ["93.184.216.34"]


def test_no_proxy_of_the_environment_is_used(server: PictureServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    (reply,) = fetched([Request(server.url("/ok/a.png"))], [server.host]).values()
    assert isinstance(reply, Reply)


def test_who_stops_early_leaves_nothing_behind() -> None:
    with picture_server(seconds=0.05) as server, Fetcher(Fetch(hosts=[server.host], workers=2), MAX_BYTES) as fetcher:
        replies = fetcher.replies((i, Request(server.url(f"/ok/{i}.png"), lane=i)) for i in range(1000))
        assert isinstance(next(replies)[1], Reply)
    assert len(server.asked) < 20
    assert not fetcher._thread.is_alive()
