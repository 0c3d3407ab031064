"""Files from the web, politely: what could not be had is a ``Rejection`` with a reason, and nothing can hang.

One event loop makes all requests of a worker. The address that a socket is about to be connected to is what is
checked, so neither a redirect nor a DNS answer that changes leads into someone's private network.
"""

import asyncio
import errno
import random
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeVar
from urllib.parse import urljoin

import aiohttp
from protego import Protego

from model.errors import one_line
from transforms.manners import AGENT, Host, Manners, host_of, is_private, opt_out
from transforms.photographs import Rejection

REDIRECTS: Final = 5
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 600.0
"""A server that asks for more patience than this is left alone, and the photograph rejected."""

GIVE_UP_AFTER: Final = 20
"""A host of which so many files in a row could not be had, for faults of its own, is asked for no more in this run."""

_FAULTS: Final = {"timeout", "connection", "server_error", "too_many_requests"}
ROBOTS_CAP_BYTES: Final = 512 * 1024
_TRY_AGAIN = {408, 425, 429, 500, 502, 503, 504}
_REASONS = {401: "forbidden", 403: "forbidden", 451: "forbidden", 404: "not_found", 410: "not_found"}
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Fetched:
    """A body and what came with it.

    Attributes:
        url: after redirects.
        content: the body.
        headers: of the response, by lower-case name.
        attempts: how often it was asked for.
    """

    url: str
    content: bytes
    headers: Mapping[str, str]
    attempts: int


class FetchError(Rejection):
    """A request that failed.

    Attributes:
        again: it may succeed if made again.
        pause_s: the server asked for this much time before that.
        attempts: how often it was made.
    """

    def __init__(self, reason: str, message: str, again: bool = False, pause_s: float | None = None) -> None:
        super().__init__(reason, message)
        self.again = again
        self.pause_s = pause_s
        self.attempts = 1


_PRIVATE: Final = "is not a public address"


class Fetcher:
    """Makes requests with manners; an asynchronous context manager, of use in one event loop."""

    def __init__(self, manners: Manners) -> None:
        self._manners = manners
        self._slots = asyncio.Semaphore(manners.connections)
        self._hosts: dict[str, Host] = {}
        self._robots: dict[str, asyncio.Task[Protego | FetchError]] = {}
        self.bytes_received = 0

    async def __aenter__(self) -> "Fetcher":
        connector = aiohttp.TCPConnector(
            limit=0, socket_factory=None if self._manners.allow_private else _public_socket, keepalive_timeout=30
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=self._manners.deadline_s),
            headers={"User-Agent": self._manners.user_agent, "Accept-Encoding": "identity"},
        )
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._session.close()

    async def fetch(
        self,
        url: str,
        use: Callable[[Fetched], Awaitable[_Result]],
        by_program: bool = False,
        parameters: Mapping[str, str] | None = None,
    ) -> _Result:
        """What ``use`` makes of a file; meanwhile it counts as a connection, which bounds how many are in memory.

        Args:
            url: of the file.
            use: called with the file.
            by_program: the URL is an interface for programs, which robots.txt and opt-outs do not speak of.
            parameters: of the query; they may be secret, and stand in no message.

        Raises:
            FetchError: it could not be had; tried again as often as there was hope.
        """
        host, attempt = self._host(host_of(url)), 0
        while True:
            if host.failures >= GIVE_UP_AFTER:
                raise FetchError("host_down", f"{host_of(url)} failed {host.failures} times in a row")
            attempt += 1
            try:
                fetched = await self._follow(url, attempt, by_program, parameters)
                host.failures = 0
            except FetchError as error:
                error.attempts = attempt
                pause_s = FIRST_PAUSE_S * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)
                if error.pause_s is not None:
                    pause_s = error.pause_s
                if not error.again or attempt >= self._manners.attempts or pause_s > LONGEST_PAUSE_S:
                    host.failures = host.failures + 1 if error.reason in _FAULTS else 0
                    raise
                await asyncio.sleep(pause_s)
                continue
            try:
                return await use(fetched)
            finally:
                self._slots.release()

    async def _follow(
        self, url: str, attempt: int, by_program: bool, parameters: Mapping[str, str] | None = None
    ) -> Fetched:
        """Makes a request and those that it is redirected to; a slot is held when it returns."""
        for _ in range(1 + REDIRECTS):
            if not host_of(url):
                raise FetchError("bad_url", f"{url} is no http or https URL")
            if self._manners.heed_robots and not by_program:
                await self._check_robots(url)
            answer = await self._request(url, attempt, self._manners.cap_bytes, by_program, parameters)
            if isinstance(answer, Fetched):
                return answer
            url, parameters = answer, None
        raise FetchError("redirects", f"more than {REDIRECTS} redirects, the last to {url}")

    async def _request(
        self, url: str, attempt: int, cap_bytes: int, by_program: bool, parameters: Mapping[str, str] | None = None
    ) -> Fetched | str:
        """One request: a file, with a slot held, or the URL that it is redirected to."""
        host = self._host(host_of(url))
        async with host.turn():
            try:
                async with self._session.get(url, params=parameters, allow_redirects=False) as response:
                    location = response.headers.get("Location")
                    if location and response.status in (301, 302, 303, 307, 308):
                        self._slots.release()
                        return urljoin(url, location)
                    self._check_status(response, host)
                    out = None if by_program else opt_out(response.headers.getall("X-Robots-Tag", []))
                    if out:
                        raise FetchError("opt_out", f"X-Robots-Tag says {out}")
                    content = await self._read(response, cap_bytes)
                    headers = {name.lower(): value for name, value in response.headers.items()}
                    return Fetched(url, content, headers, attempt)
            except (asyncio.TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
                raise self._explain(error) from None

    def _check_status(self, response: aiohttp.ClientResponse, host: Host) -> None:
        status = response.status
        if status == 200:
            return
        message = f"the server answered {status} {response.reason or ''}".strip()
        if status not in _TRY_AGAIN:
            raise FetchError(_REASONS.get(status, "http_error"), message)
        pause_s = retry_after_s(response.headers.get("Retry-After"))
        if pause_s is not None and pause_s <= LONGEST_PAUSE_S:
            host.be_silent(pause_s)
        reason = "too_many_requests" if status == 429 else "server_error"
        raise FetchError(reason, message, again=True, pause_s=pause_s)

    async def _read(self, response: aiohttp.ClientResponse, cap_bytes: int) -> bytes:
        message = f"the file has more than {cap_bytes} bytes"
        if (response.content_length or 0) > cap_bytes:
            raise FetchError("too_large", message)
        content = bytearray()
        async for chunk in response.content.iter_any():
            content += chunk
            self.bytes_received += len(chunk)
            if len(content) > cap_bytes:
                raise FetchError("too_large", message)
        return bytes(content)

    def _explain(self, error: BaseException) -> FetchError:
        if _PRIVATE in str(error):
            return FetchError("private_address", f"{one_line(error)}; --allow-private lets it be")
        if isinstance(error, asyncio.TimeoutError):
            return FetchError("timeout", f"not there whole after {self._manners.deadline_s:g} s", again=True)
        if isinstance(error, aiohttp.ClientPayloadError):
            return FetchError("cut_short", "the server sent less than it had announced", again=True)
        if isinstance(error, (aiohttp.InvalidURL, ValueError)) and not isinstance(error, OSError):
            return FetchError("bad_url", f"not a URL that can be asked for: {one_line(error)}")
        return FetchError("connection", one_line(error), again=True)

    def _host(self, name: str) -> Host:
        if name not in self._hosts:
            self._hosts[name] = Host(self._manners, self._slots)
        return self._hosts[name]

    async def _check_robots(self, url: str) -> None:
        """Raises FetchError if the host's robots.txt forbids a URL, or cannot be had."""
        name = host_of(url)
        if name not in self._robots:
            self._robots[name] = asyncio.create_task(self._read_robots(name))
        robots = await asyncio.shield(self._robots[name])
        if isinstance(robots, FetchError):
            if not robots.again:  # nothing there can be asked for
                raise FetchError(robots.reason, robots.message)
            raise FetchError("robots_unreachable", f"{name}/robots.txt: {robots.message}; so nothing there is touched")
        if not robots.can_fetch(url, AGENT):
            raise FetchError("robots", f"{name}/robots.txt forbids it")

    async def _read_robots(self, name: str) -> Protego | FetchError:
        """A host's rules. One that has none allows all; one that cannot say so allows nothing."""
        url, attempt = f"{name}/robots.txt", 1
        for _ in range(self._manners.attempts * (1 + REDIRECTS)):
            try:
                answer = await self._request(url, attempt, ROBOTS_CAP_BYTES, by_program=True)
            except FetchError as error:
                if error.reason in ("forbidden", "not_found", "http_error"):
                    return Protego.parse("")
                if not error.again or attempt == self._manners.attempts:
                    return error
                await asyncio.sleep(min(LONGEST_PAUSE_S, error.pause_s or FIRST_PAUSE_S * 2 ** (attempt - 1)))
                attempt += 1
                continue
            if isinstance(answer, str):
                url = answer
                continue
            self._slots.release()
            rules = Protego.parse(answer.content.decode("utf-8", "replace"))
            self._host(name).slow_down(min(LONGEST_PAUSE_S, rules.crawl_delay(AGENT) or 0.0))
            return rules
        return FetchError("redirects", f"more than {REDIRECTS} redirects")


def retry_after_s(value: str | None) -> float | None:
    """How long a Retry-After header asks to wait: seconds, or a date."""
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _public_socket(address: Any) -> socket.socket:
    """A socket for an address that is about to be connected to, if it is a public one."""
    family, kind, protocol, _, place = address
    if is_private(place[0]):
        raise PermissionError(errno.EACCES, f"{place[0]} {_PRIVATE}")
    return socket.socket(family, kind, protocol)
