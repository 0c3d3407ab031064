"""Files from the web, fetched politely: a file that cannot be fetched raises a ``Rejection``; nothing can hang.

One event loop makes all requests of a worker. Addresses are checked when a socket is about to connect, so neither a
redirect nor a changing DNS answer leads into a private network.
"""

import asyncio
import errno
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar
from urllib.parse import urljoin

import aiohttp
from protego import Protego
from yarl import URL

from model.errors import one_line
from transforms.sources.encodings import EncodingError, decoded
from transforms.sources.manners import (
    AGENT,
    ROBOTS_CAP_BYTES,
    Host,
    Manners,
    is_private,
    opt_out,
    retry_after_s,
    robots_text,
)
from transforms.storage.memory import DEFAULT_BYTES, Budget, Memory
from transforms.storage.retry import repeat_async
from transforms.storage.text import clean_text
from transforms.storage.urls import asked_url, host_key, redact
from transforms.training_set.records import Rejection

REDIRECTS: Final = 5
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 600.0
"""The longest pause accepted from a server; if it asks for more, the photograph is rejected."""

GIVE_UP_AFTER: Final = 20
"""After this many consecutive files fail through a host's fault, the host is not asked again in this run."""

HEADER_CAP_BYTES: Final = 128 * 1024
"""The longest line of headers, as in browsers: some policies have thousands of characters."""

_FAULTS: Final = {"timeout", "connection", "server_error", "too_many_requests"}
_TRY_AGAIN = {408, 425, 429, 500, 502, 503, 504}
_REASONS = {401: "forbidden", 403: "forbidden", 451: "forbidden", 404: "not_found", 410: "not_found"}
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Fetched:
    """A body and its response.

    Attributes:
        url: the URL after redirects.
        content: the body.
        headers: the headers of the response, by lower-case name; repeated ones are joined by commas.
        attempts: the number of attempts.
    """

    url: str
    content: bytes
    headers: Mapping[str, str]
    attempts: int


class FetchError(Rejection):
    """Raised for a request that failed. The message holds no secrets.

    Attributes:
        again: whether the request may succeed if repeated.
        pause_s: the pause that the server asked for before that.
        attempts: the number of attempts.
    """

    def __init__(self, reason: str, message: str, again: bool = False, pause_s: float | None = None) -> None:
        super().__init__(reason, redact(clean_text(message)))
        self.again = again
        self.pause_s = pause_s
        self.attempts = 1


@dataclass(frozen=True, slots=True)
class _Wish:
    """A file to fetch, and the parameters of the request.

    Attributes:
        url: the URL of the first request.
        by_program: whether the URL is an API, to which robots.txt and opt-outs do not apply.
        parameters: the parameters of the query.
        cap_bytes: the largest size of the body.
        may_cut: whether a larger body is cut off, as for robots.txt, instead of refused.
    """

    url: str
    by_program: bool
    parameters: Mapping[str, str] | None
    cap_bytes: int
    may_cut: bool = False

    def check_may_cut(self) -> None:
        """Raises FetchError if a body above the cap is an error."""
        if not self.may_cut:
            raise FetchError("too_large", f"the file is larger than {self.cap_bytes} bytes")

    def within_cap(self, content: bytes) -> bytes:
        """Returns the content, cut off at the cap if allowed."""
        if len(content) > self.cap_bytes:
            self.check_may_cut()
        return content[: self.cap_bytes]


_PRIVATE: Final = "is not a public address"


class Fetcher:
    """Makes requests within the limits of ``Manners``; an asynchronous context manager for one event loop."""

    def __init__(self, manners: Manners, files: Budget | None = None) -> None:
        self._manners = manners
        self._files = files or Memory(DEFAULT_BYTES).files
        self._slots = asyncio.Semaphore(manners.connections)
        self._hosts: dict[str, Host] = {}
        self._robots: dict[str, asyncio.Task[Protego | FetchError]] = {}

    async def __aenter__(self) -> "Fetcher":
        connector = aiohttp.TCPConnector(
            limit=0, socket_factory=None if self._manners.allow_private else _public_socket, keepalive_timeout=30
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=self._manners.deadline_s),
            headers={"User-Agent": self._manners.user_agent, "Accept-Encoding": "identity"},
            auto_decompress=False,
            max_line_size=HEADER_CAP_BYTES,
            max_field_size=HEADER_CAP_BYTES,
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
        """Fetches a file and applies ``use`` to it; it counts as a connection until then, which bounds memory.

        Args:
            url: the URL of the file.
            use: the function called with the file. It may raise a FetchError to have the file requested again.
            by_program: whether the URL is an API, to which robots.txt and opt-outs do not apply.
            parameters: the parameters of the query; they may be secret and appear in no message.

        Raises:
            FetchError: the file cannot be fetched, after all retries.
        """
        host = self._host(url)
        wish = _Wish(url, by_program, parameters, self._manners.cap_bytes)

        async def try_once(attempt: int) -> _Result:
            if host.failures >= GIVE_UP_AFTER:
                raise FetchError("host_down", f"{host_key(url)} failed {host.failures} times in a row")
            return await self._follow(wish, attempt, use)

        try:
            result = await repeat_async(try_once, self._pause_s)
        except FetchError as error:
            if error.reason != "host_down":
                host.failures = host.failures + 1 if error.reason in _FAULTS else 0
            raise
        host.failures = 0
        return result

    def _pause_s(self, error: Exception, attempt: int) -> float | None:
        """Decides whether a failed request is made again, and after how many seconds."""
        if not isinstance(error, FetchError):
            return None
        error.attempts = attempt
        pause_s = FIRST_PAUSE_S * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)
        if error.pause_s is not None:
            pause_s = error.pause_s
        gives_up = not error.again or attempt >= self._manners.attempts or pause_s > LONGEST_PAUSE_S
        return None if gives_up else pause_s

    async def _follow(self, wish: _Wish, attempt: int, use: Callable[[Fetched], Awaitable[_Result]]) -> _Result:
        """Makes a request, follows its redirects, and uses the file at the end."""
        url, parameters = wish.url, wish.parameters
        for _ in range(1 + REDIRECTS):
            target = _target(url)
            if self._manners.heed_robots and not wish.by_program:
                await self._check_robots(target)
            async with self._request(target, parameters, wish, attempt) as answer:
                if isinstance(answer, Fetched):
                    return await use(answer)
            url, parameters = answer, None
        raise FetchError("redirects", f"more than {REDIRECTS} redirects; the last leads to {url}")

    @asynccontextmanager
    async def _request(
        self, url: URL, parameters: Mapping[str, str] | None, wish: _Wish, attempt: int
    ) -> AsyncIterator[Fetched | str]:
        """Sends one request, a connection while the block runs; yields the file or the URL that it redirects to."""
        host = self._host(str(url))
        async with host.turn():
            with ExitStack() as held:
                try:
                    async with self._session.get(url, params=parameters, allow_redirects=False) as response:
                        location = response.headers.get("Location")
                        if location and response.status in (301, 302, 303, 307, 308):
                            answer: Fetched | str = urljoin(str(url), location)
                        else:
                            _check_status(response, host)
                            # Twice, because an assembled body exists at the same time as its pieces.
                            most_bytes = min(wish.cap_bytes, response.content_length or wish.cap_bytes)
                            await self._files.hold_in_loop(2 * most_bytes, held)
                            answer = await self._accept(str(url), response, wish, attempt)
                except (asyncio.TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
                    raise self._explain(error) from None
                yield answer

    async def _accept(self, url: str, response: aiohttp.ClientResponse, wish: _Wish, attempt: int) -> Fetched:
        """Checks a response and returns its file."""
        headers = {name.lower(): clean_text(", ".join(response.headers.getall(name))) for name in response.headers}
        out = None if wish.by_program else opt_out([headers.get("x-robots-tag", "")])
        if out:
            raise FetchError("opt_out", f"X-Robots-Tag says {out}")
        content = await self._read(response, wish)
        if headers.get("content-encoding"):
            content = await asyncio.to_thread(decoded, content, headers["content-encoding"], wish.cap_bytes)
        return Fetched(url, wish.within_cap(content), headers, attempt)

    async def _read(self, response: aiohttp.ClientResponse, wish: _Wish) -> bytes:
        """Reads the body as far as it is wanted."""
        content = bytearray()
        if (response.content_length or 0) > wish.cap_bytes:
            wish.check_may_cut()
        async for chunk in response.content.iter_any():
            content += chunk
            if len(content) > wish.cap_bytes:
                break
        return wish.within_cap(bytes(content))

    def _explain(self, error: BaseException) -> FetchError:
        text = one_line(error)
        if _PRIVATE in text:
            return FetchError("private_address", f"{text}; use --allow-private to allow it")
        if isinstance(error, asyncio.TimeoutError):
            return FetchError("timeout", f"not complete after {self._manners.deadline_s:g} s", again=True)
        if isinstance(error, EncodingError):
            return FetchError("bad_answer", text)
        if isinstance(error, aiohttp.ClientPayloadError):
            return FetchError("cut_short", "the server sent less than it had announced", again=True)
        if isinstance(error, aiohttp.ClientResponseError):  # its own text would show the URL with the parameters
            return FetchError("bad_answer", f"the answer is not HTTP: {one_line(ValueError(error.message))[:200]}")
        if isinstance(error, aiohttp.ClientSSLError):
            return FetchError("bad_answer", f"the encrypted connection failed: {text}")
        if isinstance(error, (aiohttp.InvalidURL, ValueError)) and not isinstance(error, OSError):
            return FetchError("bad_url", f"the URL is not valid: {text}")
        return FetchError("connection", text, again=True)

    def _host(self, url: str) -> Host:
        name = host_key(url)
        if name not in self._hosts:
            self._hosts[name] = Host(self._manners, self._slots)
        return self._hosts[name]

    async def _check_robots(self, url: URL) -> None:
        """Raises FetchError if the host's robots.txt forbids a URL or cannot be fetched."""
        name = host_key(str(url))
        if name not in self._robots:
            self._robots[name] = asyncio.create_task(self._read_robots(name))
        robots = await asyncio.shield(self._robots[name])
        if isinstance(robots, FetchError):
            if robots.reason in ("private_address", "bad_url"):  # no URL of this host can be requested
                raise FetchError(robots.reason, robots.message)
            raise FetchError("robots_unreachable", f"{name}/robots.txt: {robots.message}; so nothing is fetched there")
        if not robots.can_fetch(str(url.with_user(None)), AGENT):
            raise FetchError("robots", f"{name}/robots.txt forbids it")

    async def _read_robots(self, name: str) -> Protego | FetchError:
        """Returns a host's rules. A missing robots.txt allows all; one that cannot be fetched allows nothing."""
        wish = _Wish(f"{name}/robots.txt", True, None, ROBOTS_CAP_BYTES, may_cut=True)
        try:
            rules = await repeat_async(partial(self._follow, wish, use=_rules), self._pause_s)
        except FetchError as error:
            if error.reason in ("forbidden", "not_found", "http_error"):
                return Protego.parse("")
            return error
        self._hosts[name].slow_down(min(LONGEST_PAUSE_S, rules.crawl_delay(AGENT) or 0.0))
        return rules


def fetch_file(url: str, manners: Manners) -> bytes:
    """Fetches a single file, outside a crawl.

    Raises:
        FetchError: the file cannot be fetched.
    """

    async def content(file: Fetched) -> bytes:
        return file.content

    async def fetch() -> bytes:
        async with Fetcher(manners) as fetcher:
            return await fetcher.fetch(url, content)

    return asyncio.run(fetch())


def _target(url: str) -> URL:
    try:
        return asked_url(url)
    except ValueError as error:
        raise FetchError("bad_url", f"{url} is not valid: {one_line(error)}") from None


async def _rules(file: Fetched) -> Protego:
    return Protego.parse(robots_text(file.content))


def _check_status(response: aiohttp.ClientResponse, host: Host) -> None:
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


def _public_socket(address: Any) -> socket.socket:
    """Creates a socket for an address about to be connected to, if the address is public."""
    family, kind, protocol, _, place = address
    if is_private(place[0]):
        raise PermissionError(errno.EACCES, f"{place[0]} {_PRIVATE}")
    return socket.socket(family, kind, protocol)
