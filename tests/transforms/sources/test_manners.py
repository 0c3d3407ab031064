import asyncio
import time
from itertools import pairwise

import pytest
from protego import Protego

from model.errors import InputError
from transforms.sources.manners import Host, Manners, is_private, may_follow, opt_out, robots_text


@pytest.mark.parametrize(
    "address",
    [
        *(
            "127.0.0.1",
            "10.1.2.3",
            "192.168.0.1",
            "172.16.0.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "224.0.0.1",
        ),
        *("192.0.0.192", "192.88.99.1", "198.18.0.1", "240.0.0.1", "255.255.255.255", "168.63.129.16"),
        *("64:ff9b:1::5db8:d822", "64:ff9b:1:a00::1", "fec0::1", "::10.0.0.1", "::93.184.216.34", "::ffff:0:127.0.0.1"),
        *("2001:0:5db8:d822::1", "2001:db8::1", "3fff::1", "100::1", "5f00::1", "4000::1", "::"),
        *("::1", "fe80::1%eth0", "fc00::1", "::ffff:10.0.0.1", "2002:a00:1::", "64:ff9b::a00:1", "ff02::1"),
    ],
)
def test_addresses_of_no_public_server_are_private(address):
    assert is_private(address)


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "2606:2800:220:1::1", "::ffff:93.184.216.34", "64:ff9b::5db8:d822", "2002:5db8:d822::"]
)
def test_addresses_of_public_servers_are_not(address):
    assert not is_private(address)


@pytest.mark.parametrize(
    ("values", "directive"),
    [
        ([], None),
        (["all"], None),
        (["nofollow, NoAI"], "noai"),
        (["max-snippet: 5, noimageai"], "noimageai"),
        (["all", "noindex"], "noindex"),
        (["otherbot: noai"], None),
        (["otherbot: noindex"], None),
        (["infinitygan: noindex"], "noindex"),
        (["otherbot: nofollow, infinitygan: noai"], "noai"),
        (["unavailable_after: 2030-01-01, noindex"], "noindex"),
        (["unavailable_after: Saturday, 25-Jun-2050 15:00:00 GMT, noai"], "noai"),
        (["index, max-image-preview:large, max-video-preview:-1, noai"], "noai"),
        (["googlebot: x, noai"], "noai"),
        (["otherbot: noindex nofollow"], None),
        (["new-directive: 7; noml"], "noml"),
        (["noindex nofollow"], "noindex"),
        (["*: noindex"], "noindex"),
    ],
)
def test_opt_outs_are_heeded_where_they_are_meant_for_us(values, directive):
    assert opt_out(values) == directive


@pytest.mark.parametrize(
    ("values", "follows"),
    [
        ([], True),
        (["index, follow"], True),
        (["nofollow"], False),
        (["none"], False),
        (["max-snippet:-1, nofollow"], False),
        (["otherbot: nofollow"], True),
        (["", "infinitygan: nofollow"], False),
    ],
)
def test_links_are_followed_unless_that_is_refused(values, follows):
    assert may_follow(values) is follows


def test_the_user_agent_says_who_why_and_whom_to_ask():
    assert Manners().user_agent.startswith("infinitygan/")
    assert "collects landscape photographs to train" in Manners().user_agent
    assert Manners(contact="me@example.org").user_agent.endswith("; me@example.org)")
    with pytest.raises(InputError, match="--contact"):
        Manners(contact="me\r\nX: 1")


@pytest.mark.parametrize(
    ("field", "flag"),
    [
        ("connections", "--connections"),
        ("host_connections", "--host-connections"),
        ("host_rate", "--host-rate"),
        ("deadline_s", "--deadline"),
        ("cap_bytes", "--cap-mb"),
        ("attempts", "--attempts"),
    ],
)
def test_limits_of_nothing_are_refused(field, flag):
    with pytest.raises(InputError, match=f"{flag} 0 is too small"):
        Manners(**{field: 0})


def times_of_turns(manners, turns, before=lambda host: None):
    """Returns when each of some turns on one host began, in seconds, and the most that were held at once."""
    started, held = [], [0, 0]

    async def take(host, slots, begin):
        async with host.turn():
            started.append(time.monotonic() - begin)
            held[0] += 1
            held[1] = max(held)
            await asyncio.sleep(0.02)
            held[0] -= 1

    async def main():
        slots = asyncio.Semaphore(manners.connections)
        host = Host(manners, slots)
        before(host)
        begin = time.monotonic()
        await asyncio.gather(*(take(host, slots, begin) for _ in range(turns)))

    asyncio.run(main())
    return sorted(started), held[1]


def test_requests_to_a_host_keep_their_distance():
    started, _ = times_of_turns(Manners(host_rate=50, host_connections=8), 10)
    assert all(later - earlier >= 0.0199 for earlier, later in pairwise(started))


def test_connections_to_a_host_are_few():
    assert times_of_turns(Manners(host_rate=1e6, host_connections=3), 20)[1] == 3
    assert times_of_turns(Manners(host_rate=1e6, host_connections=9, connections=2), 20)[1] == 2


def test_a_host_that_asks_for_silence_has_it():
    started, _ = times_of_turns(Manners(host_rate=1e6), 5, lambda host: host.be_silent(0.2))
    assert started[0] >= 0.2


@pytest.mark.parametrize(
    "content",
    [
        b"\n" * 500_000,
        b" \t" * 250_000,
        b"user-agent" + b" " * 500_000 + b"x",
        b"".join(b"User-agent: bot%d\n" % number for number in range(13_000)) + b"Disallow: /a\n" * 17_000,
    ],
)
def test_the_longest_robots_txt_takes_no_time(content):
    begin_s = time.process_time()
    Protego.parse(robots_text(content))
    assert time.process_time() - begin_s < 5


@pytest.mark.parametrize("ends", ["\n", "\r", "\r\n"])
@pytest.mark.parametrize(
    ("agents", "allowed"),
    [
        ("User-agent: infinitygan/1.0", False),
        ("user-agent : InfinityGAN", False),
        ("User-agent: *", False),
        ("User-agent: otherbot\nUser-agent: infinitygan 2", False),
        ("User-agent: otherbot/1.0", True),
        ("User-agent: otherbot", True),
        ("User-agent: 360spider", True),
        ("User-agent: other", True),
    ],
)
def test_rules_for_us_by_any_version_are_ours_and_those_for_others_are_not(agents, allowed, ends):
    rules = Protego.parse(robots_text(f"{agents}\nDisallow: /\n".replace("\n", ends).encode()))
    assert rules.can_fetch("https://a.example/b", "infinitygan") == allowed
