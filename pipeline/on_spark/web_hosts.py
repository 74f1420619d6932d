"""Which hosts a picture may be fetched from, and which addresses may be connected to for them.

A host must be named. What its name resolves to must be a public address, or an address that is named itself; the
connection is made to the address that was looked at, so that a name which resolves otherwise a moment later has no say.
"""

import asyncio
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

import httpcore
import httpx

from pipeline.on_spark.pictures import ImageFault, shown
from schemas.reasons import Reason

CONNECT_S = 10.0  # for one address of a host
PORTS = {"http": 80, "https": 443}
LAST_PORT = 65_535
KEY = "catalog.image.fetch.hosts"


@dataclass(frozen=True)
class WebHosts:
    """The hosts of ``catalog.image.fetch``, in the spelling that its validation gives them."""

    named: frozenset[str]

    def allow(self, host: str, port: int) -> bool:
        """Whether a name or an address is named, for any port or for this one."""
        return host in self.named or (f"[{host}]:{port}" if ":" in host else f"{host}:{port}") in self.named

    def url(self, reference: str, base: httpx.URL | None = None) -> httpx.URL:
        """``reference`` as a URL that may be asked for, relative to ``base`` where a server redirected from there.

        Raises:
            ImageFault: ``image_not_allowed``.
        """
        told = shown(reference) if base is None else f"{shown(str(base))} is redirected, and"
        try:
            url = httpx.URL(reference) if base is None else base.join(reference)
            host = url.host
        except (httpx.InvalidURL, ValueError) as error:  # a name that is no name of the internet is a ValueError
            raise ImageFault(Reason.IMAGE_NOT_ALLOWED, f"{told}: {error}") from error
        if url.scheme not in PORTS or not host or url.userinfo or port_of(url) > LAST_PORT:
            raise ImageFault(Reason.IMAGE_NOT_ALLOWED, f"{told}: a URL is http(s)://HOST/PATH, without a user's name")
        if not any(self.allow(name, port_of(url)) for name in (host, url.raw_host.decode())):
            raise ImageFault(Reason.IMAGE_NOT_ALLOWED, f"{told}: {host} is not fetched from: name it under {KEY}")
        return url


class CheckedBackend(httpcore.AnyIOBackend):
    """Connects to addresses that may be connected to; TLS and the header ``Host`` speak of the name as ever."""

    def __init__(self, hosts: WebHosts) -> None:
        self._hosts = hosts

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """A connection to the first of the host's addresses that takes one.

        Raises:
            ImageFault: ``image_not_allowed``: none of the addresses may be connected to.
            httpcore.ConnectError: the name does not resolve, or no address takes a connection.
        """
        failure: Exception | None = None
        for address in await self._addresses(host, port):
            try:
                return await super().connect_tcp(address, port, timeout or CONNECT_S, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise httpcore.ConnectError(f"{host} takes no connection ({failure or 'it has no address'})")

    async def _addresses(self, host: str, port: int) -> list[str]:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"{host} does not resolve ({error})") from error
        addresses = list(dict.fromkeys(str(at[0]) for *_, at in found))
        allowed = [address for address in addresses if is_public(address) or self._hosts.allow(address, port)]
        if addresses and not allowed:
            detail = f"{host} has the address {addresses[0]}, which is not public: name the address itself under {KEY}"
            raise ImageFault(Reason.IMAGE_NOT_ALLOWED, detail)
        return allowed


def is_public(address: str) -> bool:
    """Whether an address is one of the open internet: not private, loopback, link-local, multicast or reserved."""
    found = ip_address(address)
    if isinstance(found, IPv6Address):
        found = found.ipv4_mapped or found.sixtofour or found
    return found.is_global and not found.is_multicast and not found.is_reserved


def port_of(url: httpx.URL) -> int:
    """The port that a URL of http or https leads to."""
    return url.port or PORTS[url.scheme]
