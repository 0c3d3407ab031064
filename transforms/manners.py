"""How a guest behaves on other people's servers: limits a host, robots.txt, opt-outs, and which addresses are taboo."""

import asyncio
import ipaddress
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from model.errors import InputError
from model.version import __version__

AGENT: Final = "infinitygan"
"""The name that robots.txt and X-Robots-Tag may address us by."""

OPT_OUTS: Final = {"noai", "noimageai", "noindex", "noimageindex", "none"}


@dataclass(frozen=True, slots=True)
class Manners:
    """What a server is asked for at most, and what of it is heeded.

    Attributes:
        connections: at once, to all hosts together.
        host_connections: at once, to one host.
        host_rate: requests a second to one host.
        deadline_s: for one request, its body included.
        cap_bytes: for one body.
        attempts: how often a request that may yet succeed is made.
        contact: an address or page for those who wonder who asks; it stands in the User-Agent.
        allow_private: private, loopback and link-local addresses may be connected to.
        heed_robots: robots.txt is asked for and obeyed.
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
            raise InputError(f"--contact {self.contact!r} cannot stand in a User-Agent: give an address or a URL")

    @property
    def user_agent(self) -> str:
        """Who asks, and why."""
        contact = f"; {self.contact}" if self.contact else ""
        return f"{AGENT}/{__version__} (collects landscape photographs to train an image model{contact})"


def host_of(url: str) -> str:
    """The host and port of a web URL, which share limits and robots.txt; nothing for what is not on the web."""
    try:
        parts = urlsplit(url)
    except ValueError:  # brackets that are no address
        return ""
    return f"{parts.scheme}://{parts.netloc.lower()}" if parts.scheme in ("http", "https") else ""


class Host:
    """What we owe to one host: so many requests at once, so many a second, and silence while it asks for that.

    Attributes:
        failures: files in a row that could not be had for faults of the host.
    """

    def __init__(self, manners: Manners, slots: asyncio.Semaphore) -> None:
        self._connections = asyncio.Semaphore(manners.host_connections)
        self._slots = slots
        self._spacing_s = 1 / manners.host_rate
        self._next_s = 0.0
        self.failures = 0

    def slow_down(self, spacing_s: float) -> None:
        """Leaves at least so much time between two requests from now on."""
        self._spacing_s = max(self._spacing_s, spacing_s)

    def be_silent(self, silence_s: float) -> None:
        """Makes no request for so long."""
        self._next_s = max(self._next_s, time.monotonic() + silence_s)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Waits until a request may be made, and counts as making it while the block runs.

        A slot of all connections together is held when the turn begins, and is left for the caller to give back.
        """
        async with self._connections:
            while True:
                await asyncio.sleep(max(0.0, self._next_s - time.monotonic()))
                await self._slots.acquire()
                now = time.monotonic()
                if now >= self._next_s:
                    break
                self._slots.release()  # somebody else took this turn while we waited for a slot
            self._next_s = now + self._spacing_s
            try:
                yield
            except BaseException:
                self._slots.release()
                raise


def opt_out(values: Iterable[str]) -> str | None:
    """The first directive, of X-Robots-Tag headers or of a page's robots meta tags, that keeps us out.

    A directive may be meant for one agent, whose name stands before a colon; then it stands for all that follow it.
    """
    for value in values:
        addressed = True
        for part in value.lower().split(","):
            name, colon, rest = part.partition(":")
            if colon and name.strip() not in ("unavailable_after", "max-snippet", "max-image-preview"):
                addressed = name.strip() in (AGENT, "*")
                part = rest
            if addressed and part.strip() in OPT_OUTS:
                return part.strip()
    return None


def is_private(address: str) -> bool:
    """Whether an IP address belongs to no public server; of one that stands for another, whether that does."""
    ip = ipaddress.ip_address(address.split("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if inner is None and ip in ipaddress.ip_network("64:ff9b::/96"):  # IPv4 behind a translator
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        ip = inner or ip
    return not ip.is_global or ip.is_multicast
