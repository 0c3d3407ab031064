import asyncio
import base64
import gzip
import json
import socket
import time
import tracemalloc
import zlib
from email.utils import formatdate
from itertools import pairwise
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.sources import fetch as fetch_module
from transforms.sources.fetch import Fetcher, FetchError
from transforms.sources.manners import ROBOTS_CAP_BYTES, Manners, retry_after_s
from transforms.storage.memory import Budget

QUICK = {"host_rate": 1e4, "deadline_s": 0.6, "allow_private": True}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(fetch_module, "FIRST_PAUSE_S", 0.01)


def fetch(*urls, **manners):
    """Fetches each URL; returns the files, with errors in place of those that failed."""

    async def itself(file):
        return file

    async def main():
        async with Fetcher(Manners(**{**QUICK, **manners})) as fetcher:
            return await asyncio.gather(*(fetcher.fetch(url, itself) for url in urls), return_exceptions=True)

    return asyncio.run(asyncio.wait_for(main(), 30))


def reason_of(url, **manners):
    (error,) = fetch(url, **manners)
    assert isinstance(error, FetchError), error
    assert "\n" not in error.message
    return error.reason


def test_a_file_is_fetched_with_a_name_and_without_cookies(web_server):
    web_server.routes["/a.jpg"] = (200, {"Set-Cookie": "a=b", "X-Kind": "jpeg"}, b"picture")
    (file,) = fetch(f"{web_server.url}/a.jpg")
    assert (file.content, file.headers["x-kind"], file.attempts) == (b"picture", "jpeg", 1)
    assert all(agent.startswith("infinitygan/") for _, _, agent in web_server.log)


def test_robots_txt_is_asked_for_once_and_obeyed(web_server):
    web_server.routes |= {
        "/robots.txt": b"User-agent: infinitygan\nDisallow: /private\n",
        "/private/a": b"x",
        "/b": b"y",
    }
    urls = [f"{web_server.url}/{path}" for path in ("private/a", "b", "private/c")]
    private, public, other = fetch(*urls)
    assert (private.reason, other.reason, public.content) == ("robots", "robots", b"y")
    assert web_server.asked("/robots.txt") == 1
    assert web_server.asked("/private/a") == 0
    assert fetch(urls[0], heed_robots=False)[0].content == b"x"


def test_crawl_delay_is_kept(web_server):
    web_server.routes |= {"/robots.txt": b"User-agent: *\nCrawl-delay: 0.2\n", "/a": b"x"}
    fetch(*[f"{web_server.url}/a"] * 4)
    times = [when for when, path, _ in web_server.log if path == "/a"]
    assert all(later - earlier > 0.17 for earlier, later in pairwise(times))


@pytest.mark.parametrize(("status", "reason"), [(404, None), (403, None), (500, "robots_unreachable")])
def test_robots_txt_that_is_not_there_allows_all_and_one_that_cannot_be_had_nothing(web_server, status, reason):
    web_server.routes |= {"/robots.txt": (status, {}, b""), "/a": b"x"}
    (outcome,) = fetch(f"{web_server.url}/a")
    assert getattr(outcome, "reason", None) == reason


def test_robots_txt_holds_for_what_one_is_redirected_to(web_server):
    web_server.routes |= {
        "/robots.txt": b"User-agent: *\nDisallow: /private\n",
        "/a": (302, {"Location": "/private/b"}, b""),
        "/private/b": b"x",
    }
    assert reason_of(f"{web_server.url}/a") == "robots"


@pytest.mark.parametrize("directive", ["noai", "noimageai", "noindex, nofollow"])
def test_an_opt_out_is_heeded_and_the_body_left(web_server, directive):
    web_server.routes["/a"] = (200, {"X-Robots-Tag": directive}, b"x" * 1000)
    assert reason_of(f"{web_server.url}/a") == "opt_out"
    assert web_server.asked("/a") == 1


@pytest.mark.parametrize(
    ("status", "reason", "asked"),
    [
        (404, "not_found", 1),
        (410, "not_found", 1),
        (403, "forbidden", 1),
        (418, "http_error", 1),
        (204, "http_error", 1),
    ],
)
def test_what_will_never_succeed_is_asked_for_once(web_server, status, reason, asked):
    web_server.routes["/a"] = (status, {}, b"")
    assert reason_of(f"{web_server.url}/a") == reason
    assert web_server.asked("/a") == 1


@pytest.mark.parametrize(
    ("status", "reason"), [(500, "server_error"), (503, "server_error"), (429, "too_many_requests")]
)
def test_what_may_yet_succeed_is_asked_for_again_with_growing_pauses(web_server, monkeypatch, status, reason):
    monkeypatch.setattr(fetch_module, "FIRST_PAUSE_S", 0.1)
    web_server.routes["/a"] = (status, {}, b"")
    (error,) = fetch(f"{web_server.url}/a", attempts=3)
    assert (error.reason, error.attempts, web_server.asked("/a")) == (reason, 3, 3)
    first, second, third = (when for when, path, _ in web_server.log if path == "/a")
    assert second - first >= 0.05
    assert third - second >= 0.1


def test_a_server_that_recovers_gives_the_file(web_server):
    async def recovering(request):
        return (500, {}, b"") if web_server.asked("/a") < 3 else b"picture"

    web_server.routes["/a"] = recovering
    (file,) = fetch(f"{web_server.url}/a")
    assert (file.content, file.attempts) == (b"picture", 3)


def test_retry_after_silences_the_whole_host(web_server):
    async def busy(request):
        return (429, {"Retry-After": "1"}, b"") if web_server.asked("/a") < 2 else b"x"

    web_server.routes |= {"/a": busy, "/b": b"y"}
    begin = time.monotonic()
    fetch(f"{web_server.url}/a", *[f"{web_server.url}/b"] * 40, host_rate=200)
    first = next(when for when, path, _ in web_server.log if path == "/a") - begin
    silent = [when for when, _, _ in web_server.log if first + 0.1 < when - begin < first + 0.9]
    assert not silent
    assert web_server.asked("/b") == 40


def test_a_server_that_asks_for_an_hour_is_left_alone(web_server):
    web_server.routes["/a"] = (503, {"Retry-After": "3600"}, b"")
    assert reason_of(f"{web_server.url}/a") == "server_error"
    assert web_server.asked("/a") == 1


@pytest.mark.parametrize(
    "value",
    ["Mon, 99999999999 Jan 2000 00:00:00 GMT", "²", "-1", "1e9", "", ",", "Mon, 1 Jan 99999 00:00:00 GMT", "é", "()"],
)
def test_a_retry_after_that_means_nothing_is_ignored(value):
    assert retry_after_s(value) in (None, 0)


@given(st.text(max_size=30))
def test_whatever_a_retry_after_says_is_a_time_or_nothing(value):
    assert retry_after_s(value) is None or retry_after_s(value) >= 0


def test_retry_after_is_seconds_or_a_date():
    assert retry_after_s("7") == 7
    assert 8 < retry_after_s(formatdate(time.time() + 10, usegmt=True)) <= 10
    assert retry_after_s(formatdate(time.time() - 10, usegmt=True)) == 0
    assert retry_after_s(None) is retry_after_s("soon") is None


@pytest.mark.parametrize(
    ("route", "reason"),
    [
        ("stall", "timeout"),
        ("trickle", "timeout"),
        ("drop", "connection"),
        ("cut", "cut_short"),
        ("endless", "too_large"),
        ((200, {}, b"x" * 200_001), "too_large"),
        ((302, {"Location": "/a"}, b""), "redirects"),
        ((302, {"Location": "ftp://example.org/a"}, b""), "bad_url"),
        ((302, {"Location": "file:///etc/passwd"}, b""), "bad_url"),
    ],
)
def test_servers_that_misbehave_hang_nothing(web_server, route, reason):
    web_server.routes["/a"] = getattr(web_server, route) if isinstance(route, str) else route
    begin = time.monotonic()
    assert reason_of(f"{web_server.url}/a", attempts=2, cap_bytes=200_000) == reason
    assert time.monotonic() - begin < 5


def raw(answer):
    """Returns a route that sends bytes which no web server should send, and hangs up."""

    async def route(request):
        request.transport.write(answer)
        request.transport.close()
        return b""

    return route


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"nonsense", "bad_answer"),
        (b"HTTP/1.1 20x OK\r\n\r\n", "bad_answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "bad_answer"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\nx", "bad_answer"),
        (b"HTTP/1.1 200 OK\r\nX: \x01\x00\r\nContent-Length: 1\r\n\r\nx", "bad_answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 1\r\n\r\nx", "bad_answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8bxx", "bad_answer"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nx", "bad_answer"),
        (b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: http://[\r\n\r\n", "bad_url"),
        (b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: ftp://h/\xe9t\xe9\r\n\r\n", "bad_url"),
        (b"HTTP/1.1 404 Non trouv\xe9\r\nContent-Length: 0\r\n\r\n", "not_found"),
        (b"HTTP/1.1 503 \xff\r\nContent-Length: 0\r\nRetry-After: Mon, 99999999999 Jan\r\n\r\n", "server_error"),
    ],
)
def test_broken_answers_are_rejects_whose_text_can_be_stored(web_server, answer, reason):
    web_server.routes["/a"] = raw(answer)
    (error,) = fetch(f"{web_server.url}/a", attempts=2, heed_robots=False)
    assert isinstance(error, FetchError), error
    assert error.reason == reason
    error.message.encode()
    assert web_server.asked("/a") == (2 if error.again else 1)


def test_errors_that_will_not_pass_are_not_tried_again_and_do_not_bring_a_host_down(web_server, monkeypatch):
    monkeypatch.setattr(fetch_module, "GIVE_UP_AFTER", 3)
    web_server.routes |= {f"/bad{i}": raw(b"HTTP/1.1 20x OK\r\n\r\n") for i in range(6)} | {"/good": b"x"}

    async def main():
        async with Fetcher(Manners(**{**QUICK, "heed_robots": False})) as fetcher:
            for number in range(6):
                with pytest.raises(FetchError) as caught:
                    await fetcher.fetch(f"{web_server.url}/bad{number}", lambda file: asyncio.sleep(0))
                assert (caught.value.reason, caught.value.attempts) == ("bad_answer", 1)
            return await fetcher.fetch(f"{web_server.url}/good", lambda file: asyncio.sleep(0, "file"))

    assert asyncio.run(main()) == "file"


@pytest.mark.parametrize("value", ["x" * 20_000, "caf\u00e9".encode("latin-1").decode("utf-8", "surrogateescape")])
def test_long_headers_and_those_in_other_alphabets_are_taken(web_server, value):
    head = f"HTTP/1.1 200 OK\r\nX-Policy: {value}\r\nContent-Length: 1\r\n\r\nx"
    web_server.routes["/a"] = raw(head.encode("utf-8", "surrogateescape"))
    (file,) = fetch(f"{web_server.url}/a", heed_robots=False)
    assert file.content == b"x"
    file.headers["x-policy"].encode()


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("none", bytes), ("UTF-8", bytes), ("gzip", bytes)],
)
def test_a_body_that_was_compressed_for_the_way_is_unpacked(web_server, encoding, pack):
    async def answer(request):
        head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nContent-Length: {len(body)}\r\n\r\n"
        return await raw(head.encode() + body)(request)

    body = pack(b"picture" * 1000)
    web_server.routes["/a"] = answer
    (file,) = fetch(f"{web_server.url}/a", heed_robots=False)
    assert file.content == b"picture" * 1000


def test_a_small_body_that_unpacks_to_a_huge_one_is_stopped_at_the_cap(web_server):
    bomb = gzip.compress(bytes(300_000_000), 1)
    web_server.routes["/a"] = (200, {"Content-Encoding": "gzip"}, bomb)
    tracemalloc.start()
    try:
        assert reason_of(f"{web_server.url}/a", cap_bytes=5_000_000, deadline_s=10) == "too_large"
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "target",
    [
        *("/s%27a.jpg?X=1%2F2&t=a%3Ab", "/thumb/http%3A%2F%2Fcdn%2Fa.jpg", "/p%28test%29.jpg", "/q.jpg?d=%7E&e=%2C"),
        *("/r.jpg?a=1+2%2B3", "/d//e.jpg", "/f.jpg?x=a|b", "/a;b=c,d/e'f(g)!$&*.jpg"),
    ],
)
def test_a_url_is_asked_for_as_it_is_written(web_server, target):
    seen = []

    async def answer(request):
        seen.append(request.raw_path)
        return b"x"

    web_server.routes |= {"/robots.txt": b"", unquote(target.split("?")[0]): answer}
    fetch(web_server.url + target)
    assert seen == [target]


def test_a_name_and_password_are_sent_but_stand_in_no_message(web_server):
    async def guarded(request):
        given = request.headers.get("Authorization", "")
        return b"x" if given == "Basic " + base64.b64encode(b"alice:S3CRET").decode() else (401, {}, b"")

    web_server.routes["/a"] = guarded
    url = web_server.url.replace("//", "//alice:S3CRET@")
    (file,) = fetch(f"{url}/a")
    assert file.content == b"x"
    web_server.routes |= {
        "/a": (302, {"Location": "/a?token=T0KEN"}, b""),
        "/robots.txt": b"User-agent: *\nDisallow: /b",
    }
    for path in ("a", "b", "c", "d\ud800"):
        (error,) = fetch(f"{url}/{path}?api_key=K3Y")
        assert not any(secret in error.message for secret in ("S3CRET", "T0KEN", "K3Y"))


def test_however_a_host_is_spelled_it_has_one_robots_txt_and_one_pace(web_server):
    web_server.routes |= {"/robots.txt": b"User-agent: *\nCrawl-delay: 0.2\n"} | {f"/{i}": b"x" for i in range(5)}
    port = web_server.port
    hosts = ["127.0.0.1", "u1@127.0.0.1", "u2:p@127.0.0.1", "127.1", "0x7f000001"]
    fetch(*(f"http://{host}:{port}/{i}" for i, host in enumerate(hosts)))
    times = [when for when, path, _ in web_server.log if path != "/robots.txt"]
    assert len(times) == 5
    assert all(later - earlier > 0.17 for earlier, later in pairwise(times))
    assert web_server.asked("/robots.txt") == 1


RULES = "User-agent: *\nDisallow: /private/\n"


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + RULES.encode(),
        RULES.encode("utf-16"),
        RULES.encode("utf-16-le"),
        RULES.encode("utf-16-be"),
        RULES.encode("utf-32"),
        RULES.replace("\n", "\r").encode(),
        RULES.replace("\n", "\r\n").encode(),
        b"\xe9\xff\n" + RULES.encode(),
        RULES.encode() + b"Disallow: /tag/\n" * 40_000,
        RULES.replace("*", "infinitygan/0.1 (x)").encode(),
    ],
)
def test_robots_txt_is_understood_however_it_is_written(web_server, content):
    web_server.routes |= {"/robots.txt": content, "/private/a": b"x", "/open/b": b"x", "/private/../private/c": b"x"}
    outcomes = fetch(
        *(f"{web_server.url}/{path}" for path in ("private/a", "%70rivate/a", "x/%2e%2E/private/a", "open/b"))
    )
    assert [getattr(outcome, "reason", "file") for outcome in outcomes] == ["robots", "robots", "robots", "file"]


def test_of_a_huge_robots_txt_no_half_line_counts(web_server):
    filler = b"Disallow: /tag/\n" * (ROBOTS_CAP_BYTES // 16)
    head = RULES.encode()
    cut = ROBOTS_CAP_BYTES - len(head) - len(b"Disallow: /")
    content = head + filler[: cut - cut % 16] + b"#" * (cut % 16 - 1) + b"\n" + b"Disallow: /open-not\n"
    web_server.routes |= {"/robots.txt": content, "/open/b": b"x"}
    assert len(content) > ROBOTS_CAP_BYTES
    assert fetch(f"{web_server.url}/open/b")[0].content == b"x"


def test_a_use_that_finds_its_file_wanting_has_it_asked_for_again(web_server):
    web_server.routes["/a"] = b"busy"

    async def use(file):
        if file.attempts < 3:
            raise FetchError("server_error", "busy", again=True)
        return file.attempts

    async def main():
        async with Fetcher(Manners(**QUICK)) as fetcher:
            return await fetcher.fetch(f"{web_server.url}/a", use)

    assert asyncio.run(main()) == 3


def test_a_host_that_is_down_is_given_up(web_server, monkeypatch):
    monkeypatch.setattr(fetch_module, "GIVE_UP_AFTER", 3)
    web_server.routes |= {"/bad": (500, {}, b""), "/good": b"x"}

    async def main():
        async with Fetcher(Manners(**{**QUICK, "attempts": 1, "host_connections": 1})) as fetcher:
            paths = ["bad", "bad", "good", "bad", "bad", "bad", "good", "bad"]
            return [await outcome(fetcher, f"{web_server.url}/{path}") for path in paths]

    async def outcome(fetcher, url):
        try:
            return await fetcher.fetch(url, lambda file: asyncio.sleep(0, "file"))
        except FetchError as error:
            return error.reason

    error = "server_error"
    assert asyncio.run(main()) == [error, error, "file", error, error, error, "host_down", "host_down"]
    assert web_server.asked("/good") == 1


@pytest.mark.parametrize("url", ["http://[", "http://", "http://a b/", "http://x:99999/"])
def test_what_is_no_url_is_said(url):
    assert reason_of(url, heed_robots=False, attempts=1) in ("bad_url", "connection")


def test_a_port_that_nobody_listens_on_is_a_failed_connection():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but not listening
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/a"
        assert reason_of(url, heed_robots=False, attempts=2) == "connection"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0x7f.1", "2130706433"])
def test_private_addresses_are_not_connected_to_however_they_are_written(web_server, host):
    (error,) = fetch(f"http://{host}:{web_server.port}/a", allow_private=False, attempts=1)
    assert error.reason == "private_address" or host in ("0x7f.1", "2130706433")
    assert web_server.log == []


def test_a_redirect_does_not_lead_to_a_private_address(web_server, monkeypatch):
    monkeypatch.setattr(fetch_module, "is_private", lambda address: address != "127.0.0.1")
    web_server.routes["/a"] = (302, {"Location": f"http://127.0.0.2:{web_server.port}/secret"}, b"")
    (error,) = fetch(f"{web_server.url}/a", allow_private=False)
    assert error.reason == "private_address"
    assert web_server.asked("/secret") == 0


def test_it_is_the_address_connected_to_that_counts_not_what_a_name_led_to_before(web_server, monkeypatch):
    """The name server gives a new address each time: the check is made when the socket is created."""
    checked = []
    real = fetch_module.is_private
    monkeypatch.setattr(fetch_module, "is_private", lambda address: checked.append(address) or real(address))
    (error,) = fetch(f"http://localhost:{web_server.port}/a", allow_private=False)
    assert error.reason == "private_address"
    assert set(checked) <= {"127.0.0.1", "::1"}
    assert checked


def test_secret_parameters_stand_in_no_message(web_server):
    async def main():
        async with Fetcher(Manners(**QUICK)) as fetcher:

            async def use(file):
                return json.loads(file.content)

            await fetcher.fetch(f"{web_server.url}/api", use, by_program=True, parameters={"key": "s3cret"})

    with pytest.raises(FetchError) as caught:
        asyncio.run(main())
    assert "s3cret" not in str(caught.value)


def test_no_more_files_are_in_memory_than_there_may_be_connections(web_server):
    web_server.routes["/a"] = b"x"
    held = [0, 0]

    async def use(file):
        held[0] += 1
        held[1] = max(held)
        await asyncio.sleep(0.005)
        held[0] -= 1

    async def main():
        async with Fetcher(Manners(**{**QUICK, "connections": 5, "host_connections": 50})) as fetcher:
            await asyncio.gather(*(fetcher.fetch(f"{web_server.url}/a", use) for _ in range(60)))

    asyncio.run(main())
    assert held[1] <= 5


def test_bodies_that_are_in_memory_at_once_stay_within_the_budget(web_server):
    body, at_once, most = b"x" * 100_000, [], []
    web_server.routes |= {f"/{number}": (200, {}, body) for number in range(12)}

    async def use(file):
        at_once.append(file.url)
        most.append(len(at_once))
        await asyncio.sleep(0.02)
        at_once.remove(file.url)

    async def fetch_all():
        manners = Manners(allow_private=True, host_connections=12, host_rate=1000, heed_robots=False)
        async with Fetcher(manners, Budget(500_000)) as fetcher:
            await asyncio.gather(*(fetcher.fetch(f"{web_server.url}/{number}", use) for number in range(12)))

    asyncio.run(fetch_all())
    assert len(most) == 12
    assert max(most) <= 2
