"""Checks of a feed's URLs and addresses, so that it cannot make us probe our own network (SSRF).

A host name is resolved once and each of its addresses is checked; connections go to a checked
address (:mod:`fashionrec.dataset.feed.safe_http`), so a second resolution cannot return something
else (DNS rebinding).

This module needs urllib3 and is imported by name at call time
(:func:`fashionrec.common.extras.need`).
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urljoin

from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

_MAX_URL_LENGTH = 8192
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NAT64_LOCAL = ipaddress.IPv6Network("64:ff9b:1::/48")


class FetchError(Exception):
    """A failed fetch.

    It stays inside the download, which turns it into the ``reason`` and ``message`` of a row.
    ``reason`` is a short stable word; ``retry`` is whether another attempt can help, ``after`` the
    minimum wait in seconds if the server gave one.
    """

    def __init__(self, reason: str, message: str, *, retry: bool = False, after: float | None = None) -> None:
        super().__init__(" ".join(message.split()))
        self.reason, self.retry, self.after = reason, retry, after


class AbortableConnection:
    """A connection that another thread can abort through ``line``, a duplicate of its socket."""

    line: socket.socket | None = None

    def keep_line(self, connected: socket.socket) -> None:
        self.drop_line()
        self.line = connected.dup()

    def drop_line(self) -> None:
        if self.line is not None:
            self.line.close()
            self.line = None

    def cut(self) -> None:
        """Abort the connection, even in the middle of a read or write."""
        line = self.line
        if line is not None:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)


@dataclass(frozen=True)
class Target:
    """A normalized http or https URL with a host and without user name and password."""

    url: str
    scheme: str
    host: str
    port: int
    path: str

    @property
    def origin(self) -> tuple[str, str, int]:
        return self.scheme, self.host, self.port

    def join(self, location: str) -> Target:
        """Return the target of a redirect. Raises :class:`FetchError` (``bad-url``)."""
        with contextlib.suppress(UnicodeError):  # headers are decoded as Latin-1; servers send UTF-8
            location = location.encode("latin-1").decode("utf-8")
        try:
            return parse_target(urljoin(self.url, location))
        except ValueError:
            raise FetchError("bad-url", "the redirect has an invalid URL") from None


def parse_target(text: str) -> Target:
    """Check and normalize a URL; ``//host/path`` is https.

    Raises :class:`FetchError` (``bad-url``).
    """
    text = text.strip()
    if text.startswith("//"):
        text = f"https:{text}"
    if len(text) > _MAX_URL_LENGTH:
        raise FetchError("bad-url", f"the URL has more than {_MAX_URL_LENGTH} characters")
    scheme = text.partition(":")[0].lower()
    if scheme not in ("http", "https"):
        raise FetchError("bad-url", f"only http and https are supported, not {scheme[:20]!r}")
    try:
        parts = parse_url(text)
        host = (parts.host or "").strip("[]").rstrip(".").lower()
        if parts.auth is not None:
            raise FetchError("bad-url", "the URL contains a user name or password")
        if not host or parts.scheme != scheme:
            raise FetchError("bad-url", "the URL has no host")
        host.encode("ascii")
        parts.request_uri.encode("ascii")
    except (LocationParseError, UnicodeError):
        raise FetchError("bad-url", "the URL is invalid") from None
    port = parts.port if parts.port is not None else (443 if scheme == "https" else 80)
    if port == 0:
        raise FetchError("bad-url", "port 0 is invalid")
    return Target(parts._replace(fragment=None).url, scheme, host, port, parts.request_uri)


def shown(url: str) -> str:
    """Return a URL for reports and logs, with credentials and control characters replaced."""
    url = re.sub(r"//[^/?#]*@", "//***@", url)
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in url)[:_MAX_URL_LENGTH]


def resolve_host(host: str, port: int) -> list[str]:
    """Return all addresses of a host name in the system's order.

    Unusual spellings of IPv4 (``0x7f.1``) become dotted decimals.
    """
    entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in entries))


def is_public(address: str) -> bool:
    """Return whether an IP address, and any IPv4 address embedded in it, is public."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False  # for example an address with a zone (fe80::1%eth0)
    if isinstance(ip, ipaddress.IPv6Address):
        if ip in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
        embedded = ip.ipv4_mapped or ip.sixtofour
        if embedded is not None:
            return is_public(str(embedded))
        if ip.is_site_local or ip.teredo is not None or ip in _NAT64_LOCAL:
            return False
    is_special = ip.is_multicast or ip.is_reserved or ip.is_unspecified or ip.is_loopback or ip.is_link_local
    return ip.is_global and not ip.is_private and not is_special


@dataclass(frozen=True)
class AddressPolicy:
    """The policy of which servers may be reached.

    ``allow_private`` allows every address; ``open_to`` allows these pairs of address and port in
    addition to public ones. ``resolve`` returns the addresses of a host. ``tls`` replaces the
    default verification, which uses the certificates of the system and of certifi.
    """

    allow_private: bool = False
    open_to: frozenset[tuple[str, int]] = frozenset()
    resolve: Callable[[str, int], Sequence[str]] = resolve_host
    tls: ssl.SSLContext | None = None

    def addresses(self, host: str, port: int) -> Sequence[str]:
        """Return the checked addresses of a host.

        Raises :class:`FetchError` (``dns``, ``refused-address``).
        """
        try:
            addresses = self.resolve(host, port)
        except socket.gaierror as error:
            is_temporary = error.errno == socket.EAI_AGAIN
            raise FetchError("dns", f"{host} has no address: {error.strerror}", retry=is_temporary) from None
        except (OSError, UnicodeError) as error:
            raise FetchError("dns", f"{host} has no address: {error}") from None
        if not addresses:
            raise FetchError("dns", f"{host} has no address")
        for address in addresses:
            if not (self.allow_private or is_public(address) or (address, port) in self.open_to):
                raise FetchError(
                    "refused-address", f"{host} has the non-public address {address} (allowed by feed.allow_private)"
                )
        return addresses
