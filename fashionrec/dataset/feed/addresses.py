"""Which URLs and which servers may be asked: what keeps a feed from making us look around in our own network.

A host name is resolved once, and every address it has is checked; whoever connects does so to an address that was checked
(:mod:`fashionrec.dataset.feed.safe_http`), so that no second resolution can answer otherwise (DNS rebinding).

This module needs urllib3 and is imported by name at call time (:func:`fashionrec.common.extras.need`).
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

_LONGEST_URL = 8192
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NAT64_LOCAL = ipaddress.IPv6Network("64:ff9b:1::/48")


class Unfetched(Exception):
    """Why something could not be had. It never leaves the download: it becomes the ``reason`` and ``message`` of a row.

    ``reason`` is a short stable word; ``retry`` says whether asking again can help, ``after`` in how many seconds at the
    earliest, where the server said so.
    """

    def __init__(self, reason: str, message: str, *, retry: bool = False, after: float | None = None) -> None:
        super().__init__(" ".join(message.split()))
        self.reason, self.retry, self.after = reason, retry, after


class Cuttable:
    """A connection that another thread can end. ``line`` is a second handle of its socket, to cut it by."""

    line: socket.socket | None = None

    def keep_line(self, made: socket.socket) -> None:
        self.drop_line()
        self.line = made.dup()

    def drop_line(self) -> None:
        if self.line is not None:
            self.line.close()
            self.line = None

    def cut(self) -> None:
        """End the connection, whatever it is waiting for."""
        line = self.line
        if line is not None:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)


@dataclass(frozen=True)
class Target:
    """A URL that may be asked for: http or https, with a host, without user name and password. ``url`` is its one spelling."""

    url: str
    scheme: str
    host: str
    port: int
    path: str

    @property
    def origin(self) -> tuple[str, str, int]:
        return self.scheme, self.host, self.port

    def join(self, location: str) -> Target:
        """Where a redirect leads. Raises :class:`Unfetched` (``bad-url``)."""
        with contextlib.suppress(UnicodeError):  # a header is read as Latin-1; what servers mean is UTF-8
            location = location.encode("latin-1").decode("utf-8")
        try:
            return parse_target(urljoin(self.url, location))
        except ValueError:
            raise Unfetched("bad-url", "the redirect leads to no URL") from None


def parse_target(text: str) -> Target:
    """Check and normalize a URL; ``//host/path`` is https. Raises :class:`Unfetched` (``bad-url``)."""
    text = text.strip()
    if text.startswith("//"):
        text = f"https:{text}"
    if len(text) > _LONGEST_URL:
        raise Unfetched("bad-url", f"the URL has more than {_LONGEST_URL} characters")
    scheme = text.partition(":")[0].lower()
    if scheme not in ("http", "https"):
        raise Unfetched("bad-url", f"only http and https are fetched, not {scheme[:20]!r}")
    try:
        parts = parse_url(text)
        host = (parts.host or "").strip("[]").rstrip(".").lower()
        if parts.auth is not None:
            raise Unfetched("bad-url", "the URL holds a user name or password")
        if not host or parts.scheme != scheme:
            raise Unfetched("bad-url", "the URL names no host")
        host.encode("ascii")
        parts.request_uri.encode("ascii")
    except (LocationParseError, UnicodeError):
        raise Unfetched("bad-url", "the URL cannot be read") from None
    port = parts.port if parts.port is not None else (443 if scheme == "https" else 80)
    if port == 0:
        raise Unfetched("bad-url", "port 0 cannot be asked")
    return Target(parts._replace(fragment=None).url, scheme, host, port, parts.request_uri)


def shown(url: str) -> str:
    """A URL for reports and logs: a user name and password in it are struck out, control characters too."""
    url = re.sub(r"//[^/?#]*@", "//***@", url)
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in url)[:_LONGEST_URL]


def resolve_host(host: str, port: int) -> list[str]:
    """All addresses of a host name, as text, in the system's order. Odd spellings of IPv4 (``0x7f.1``) become plain ones."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet: also the IPv4 address that an IPv6 one stands for."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False  # among others, an address with a zone (fe80::1%eth0)
    if isinstance(ip, ipaddress.IPv6Address):
        if ip in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
        inside = ip.ipv4_mapped or ip.sixtofour
        if inside is not None:
            return is_public(str(inside))
        if ip.is_site_local or ip.teredo is not None or ip in _NAT64_LOCAL:
            return False
    odd = ip.is_multicast or ip.is_reserved or ip.is_unspecified or ip.is_loopback or ip.is_link_local
    return ip.is_global and not ip.is_private and not odd


@dataclass(frozen=True)
class Door:
    """Which servers may be reached.

    ``allow_private`` lets every address pass; ``open_to`` only these pairs of address and port, beside the public ones.
    ``resolve`` gives a host's addresses; ``tls`` replaces the verification by the system's and certifi's certificates.
    """

    allow_private: bool = False
    open_to: frozenset[tuple[str, int]] = frozenset()
    resolve: Callable[[str, int], Sequence[str]] = resolve_host
    tls: ssl.SSLContext | None = None

    def addresses(self, host: str, port: int) -> Sequence[str]:
        """The addresses to connect to, each checked. Raises :class:`Unfetched` (``dns``, ``refused-address``)."""
        try:
            addresses = self.resolve(host, port)
        except socket.gaierror as error:
            again = error.errno == socket.EAI_AGAIN
            raise Unfetched("dns", f"{host} has no address: {error.strerror}", retry=again) from None
        except (OSError, UnicodeError) as error:
            raise Unfetched("dns", f"{host} has no address: {error}") from None
        if not addresses:
            raise Unfetched("dns", f"{host} has no address")
        for address in addresses:
            if not (self.allow_private or is_public(address) or (address, port) in self.open_to):
                raise Unfetched(
                    "refused-address", f"{host} is {address}, no public address (feed.allow_private lets it pass)"
                )
        return addresses
