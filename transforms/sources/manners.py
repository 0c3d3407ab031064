"""Good behaviour towards other people's servers: per-host limits, robots.txt, opt-outs, and forbidden addresses."""

import asyncio
import codecs
import ipaddress
import re
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final

from model.errors import InputError
from model.version import __version__

AGENT: Final = "infinitygan"
"""The name that robots.txt and X-Robots-Tag may use for this program."""

_GLOBAL_UNICAST: Final = ipaddress.ip_network("2000::/3")
_TRANSLATED: Final = ipaddress.ip_network("64:ff9b::/96")
_SPECIAL: Final = tuple(
    ipaddress.ip_network(network)
    for network in (
        # IANA's special-purpose registry: this host, private, carriers, loopback, link-local, protocols, documentation,
        # the old 6to4 relays, benchmarks, multicast, reserved. Last, the address that serves Azure's hosts.
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24"),
        *("203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32"),
        # Ranges of IPv6's global unicast: protocols (including Teredo) and documentation.
        *("2001::/23", "2001:db8::/32", "3fff::/20"),
    )
)

ROBOTS_CAP_BYTES: Final = 500 * 1024
"""The number of bytes read of a robots.txt (RFC 9309, section 2.5)."""

_USER_AGENT: Final = re.compile(r"\s*user[- ]?agent(?=[\s:])", re.IGNORECASE)

OPT_OUTS: Final = {"noai", "noimageai", "noml", "noindex", "noimageindex", "none"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Manners:
    """Limits on the requests to servers, and which of their rules are followed.

    Attributes:
        connections: the most connections at once, to all hosts together.
        host_connections: the most connections at once to one host.
        host_rate: the most requests a second to one host.
        deadline_s: the time limit for one request, including its body.
        cap_bytes: the largest size of one body.
        attempts: the number of attempts for a request that may succeed when repeated.
        contact: an address or page about the crawler, shown in the User-Agent.
        allow_private: whether private, loopback and link-local addresses may be connected to.
        heed_robots: whether robots.txt is requested and obeyed.
    """

    connections: int = 32
    host_connections: int = 4
    host_rate: float = 4.0
    deadline_s: float = 60.0
    cap_bytes: int = 50_000_000
    attempts: int = 4
    contact: str | None = None
    allow_private: bool = False
    heed_robots: bool = True

    def __post_init__(self) -> None:
        bounds = {"connections": "--connections", "host_connections": "--host-connections", "attempts": "--attempts"}
        for name, flag in (bounds | {"cap_bytes": "--cap-mb"}).items():
            if getattr(self, name) < 1:
                raise InputError(f"{flag} {getattr(self, name)} is too small: give 1 or more")
        for name, flag in {"host_rate": "--host-rate", "deadline_s": "--deadline"}.items():
            if not getattr(self, name) > 0:
                raise InputError(f"{flag} {getattr(self, name)} is too small: give more than 0")
        if self.contact is not None and not (self.contact.isascii() and self.contact.isprintable()):
            raise InputError(f"--contact {self.contact!r} cannot appear in a User-Agent: give an address or a URL")

    @property
    def user_agent(self) -> str:
        """The User-Agent: who makes the requests, and why."""
        contact = f"; {self.contact}" if self.contact else ""
        return f"{AGENT}/{__version__} (collects landscape photographs to train an image model{contact})"


class Host:
    """Limits for one host: concurrent requests, rate, and pauses it asks for.

    Attributes:
        failures: the number of consecutive files that failed through the host's fault.
    """

    def __init__(self, manners: Manners, slots: asyncio.Semaphore) -> None:
        self._connections = asyncio.Semaphore(manners.host_connections)
        self._slots = slots
        self._spacing_s = 1 / manners.host_rate
        self._next_s = 0.0
        self.failures = 0

    def slow_down(self, spacing_s: float) -> None:
        """Sets the least time between two requests from now on."""
        self._spacing_s = max(self._spacing_s, spacing_s)

    def be_silent(self, silence_s: float) -> None:
        """Makes no request for the given time."""
        self._next_s = max(self._next_s, time.monotonic() + silence_s)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Waits until a request may be made, which counts as one of the connections while the block runs."""
        async with self._connections:
            await self._wait_for_slot()
            try:
                yield
            finally:
                self._slots.release()

    async def _wait_for_slot(self) -> None:
        while True:
            await asyncio.sleep(max(0.0, self._next_s - time.monotonic()))
            await self._slots.acquire()
            now = time.monotonic()
            if now >= self._next_s:
                self._next_s = now + self._spacing_s
                return
            self._slots.release()  # another task took this turn while we waited for a slot


def robots_text(content: bytes) -> str:
    """Decodes a robots.txt, by its byte order mark or zero bytes; otherwise as UTF-8.

    The last line of a file that was cut off is dropped: half a path would forbid or allow something else. A version
    after an agent's name is dropped, because only the name counts (RFC 9309, section 2.2.1). All
    other agents get one name: each agent takes a copy of each rule, and a file may name thousands.
    """
    marks = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF8: "utf-8-sig"}
    marks |= {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
    encoding = next((name for mark, name in marks.items() if content.startswith(mark)), None)
    if encoding is None and b"\0" in content[:2]:
        encoding = "utf-16-be" if content[:1] == b"\0" else "utf-16-le"
    text = content.decode(encoding or "utf-8", "replace")
    if len(content) >= ROBOTS_CAP_BYTES:
        text = text[: max(text.rfind("\n"), text.rfind("\r")) + 1]
    return "\n".join(map(_agent_alone, text.splitlines()))


def _agent_alone(line: str) -> str:
    """Returns a line of a robots.txt; an agent is named without its version, or "other" if it is not ours."""
    match = _USER_AGENT.match(line)
    if not match:
        return line
    rest = line[match.end() :].lstrip(" \t:").lower()
    name = re.match("[a-z_*-]*", rest)[0]  # type: ignore[index]  # it matches nothing rather than fail
    ours = name == "*" or (name.strip("*") or "other") in AGENT
    return f"User-agent: {name if ours else 'other'}"


def directives(values: Iterable[str]) -> Iterator[str]:
    """Yields the directives for this program, in lower case, of X-Robots-Tag headers or a page's robots meta tags.

    A directive right after a name and a colon is for the agent of that name. Those after a comma are taken to be for
    everyone: directives such as ``max-snippet: 5`` and dates contain colons too, and in doubt a refusal is obeyed.
    """
    for value in values:
        for part in re.split("[,;]", value.lower()):
            name, colon, rest = part.partition(":")
            if not colon or name.strip() in (AGENT, "*"):
                yield from (rest if colon else part).split()


def opt_out(values: Iterable[str]) -> str | None:
    """Returns the first directive, of X-Robots-Tag headers or of a page's robots meta tags, that forbids use."""
    return next((word for word in directives(values) if word in OPT_OUTS), None)


def may_follow(values: Iterable[str]) -> bool:
    """Returns whether X-Robots-Tag headers or a page's robots meta tags allow following the page's links."""
    return not {"nofollow", "none"} & set(directives(values))


def retry_after_s(value: str | None) -> float | None:
    """Returns the wait that a Retry-After header asks for, in seconds or until a date; None if it gives neither."""
    if value is None:
        return None
    seconds = re.fullmatch(r"[ \t]*([0-9]+)[ \t]*", value)
    if seconds:
        return float(seconds[1])
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError, OSError, TypeError, IndexError):
        return None


def is_private(address: str) -> bool:
    """Returns whether an IP address is not that of a public server; for an embedded address, whether that is not.

    The ranges are listed here because ``ipaddress`` knows different ones in different versions of Python.
    """
    ip = ipaddress.ip_address(address.split("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = _inner(ip)
        return is_private(str(inner)) if inner else ip not in _GLOBAL_UNICAST or _is_special(ip)
    return _is_special(ip)


def _inner(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Returns the IPv4 address that an IPv6 address reaches through a translator or a tunnel."""
    if ip in _TRANSLATED:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour


def _is_special(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return any(ip in network for network in _SPECIAL) or not ip.is_global or ip.is_multicast
