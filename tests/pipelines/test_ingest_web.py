"""Ingest from a real web server on loopback: polite behaviour, faults, and files that are fetched once."""

import io
import json
import os

import forks
import numpy as np
import pytest
from PIL import Image
from sets import read_index

from pipelines import cli
from pipelines.ingest import ingest
from transforms.ingest.options import IngestOptions
from transforms.photographs.prepare import Preparation
from transforms.sources import fetch
from transforms.sources.manners import Manners
from transforms.storage.tables import read_rows
from transforms.training_set.dataset import REJECTS_SCHEMA

QUICK = Manners(host_rate=1e4, deadline_s=2.5, attempts=3, allow_private=True, cap_bytes=300_000)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(fetch, "FIRST_PAUSE_S", 0.01)


def photograph(seed):
    """Returns a JPEG's bytes."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 120, (6, 9, 3)) + np.linspace(130, 0, 6).astype(int)[:, None, None]
    image = Image.fromarray(small.astype(np.uint8)).resize((320, 200), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def serve(server, count):
    """Serves some photographs, and writes the list of their URLs."""
    server.routes |= {f"/{index}.jpg": photograph(index) for index in range(count)}
    return [f"{server.url}/{index}.jpg" for index in range(count)]


def write_list(path, urls):
    path.write_text("".join(f"{json.dumps({'url': url, 'license': 'CC0-1.0', 'author': 'Å'})}\n" for url in urls))
    return str(path)


def rejects(out):
    return {row["source"]: row for row in read_rows(f"{out}/rejects.parquet", "rejects", REJECTS_SCHEMA)}


def test_whatever_servers_do_every_url_is_accounted_for_once_and_limits_are_kept(web_server, tmp_path):
    asked = {}

    def busy(status, headers, times, then):
        async def answer(request):
            asked[request.path] = asked.get(request.path, 0) + 1
            return (status, headers, b"") if asked[request.path] <= times else then

        return answer

    good = serve(web_server, 20)
    web_server.routes |= {
        "/robots.txt": b"User-agent: *\nDisallow: /secret\n",
        "/drop": web_server.drop,
        "/stall": web_server.stall,
        "/trickle": web_server.trickle,
        "/cut": web_server.cut,
        "/lies": (200, {}, photograph(30)[:1500]),
        "/circle": (302, {"Location": "/circle"}, b""),
        "/moved": (301, {"Location": "/0.jpg?moved"}, b""),
        "/busy": busy(429, {"Retry-After": "1"}, 1, photograph(31)),
        "/flaky": busy(500, {}, 2, photograph(32)),
        "/dead": (500, {}, b""),
        "/huge": (200, {}, b"x" * 300_001),
        "/page": b"<html>",
        "/secret": photograph(33),
        "/noai": (200, {"X-Robots-Tag": "noai"}, photograph(34)),
    }
    bad = {
        "drop": "connection",
        "stall": "timeout",
        "trickle": "timeout",
        "cut": "cut_short",
        "lies": "truncated",
        "circle": "redirects",
        "dead": "server_error",
        "huge": "too_large",
        "page": "not_a_picture",
        "gone": "not_found",
        "secret": "robots",
        "noai": "opt_out",
        "moved": "duplicate",
    }
    urls = [*good, *(f"{web_server.url}/{name}" for name in [*bad, "busy", "flaky"])]
    dataset = ingest(IngestOptions((write_list(tmp_path / "l.jsonl", urls * 2),), str(tmp_path / "out"), manners=QUICK))
    kept = [row["source"] for row in read_index(str(tmp_path / "out"))]
    rows = rejects(tmp_path / "out")
    assert sorted([*kept, *rows]) == sorted(urls)
    assert {source.rsplit("/", 1)[1]: row["reason"] for source, row in rows.items()} == bad
    assert sum(dataset["samples"].values()) == 22
    assert rows[f"{web_server.url}/dead"]["attempts"] == web_server.asked("/dead") == 3
    assert rows[f"{web_server.url}/dead"]["licence"] == "CC0-1.0"
    assert web_server.asked("/secret") == 0
    assert web_server.most_at_once <= QUICK.host_connections


def test_a_host_gets_no_more_requests_a_second_than_it_is_owed(web_server, tmp_path):
    urls = serve(web_server, 24)
    manners = Manners(host_rate=20, host_connections=3, allow_private=True)
    ingest(IngestOptions((write_list(tmp_path / "l.jsonl", urls),), str(tmp_path / "out"), manners=manners))
    times = [when for when, _, _ in web_server.log]
    in_a_second = max(sum(start <= when < start + 1 for when in times) for start in times)
    assert in_a_second <= 21
    assert web_server.most_at_once <= 3


def test_nothing_is_fetched_twice_and_only_rejects_are_tried_again(web_server, tmp_path):
    urls = serve(web_server, 6)
    late = web_server.routes.pop("/5.jpg")
    options = IngestOptions((write_list(tmp_path / "l.jsonl", urls),), str(tmp_path / "out"), manners=QUICK)
    ingest(options)
    ingest(options)
    assert {web_server.asked(f"/{index}.jpg") for index in range(6)} == {1}
    web_server.routes["/5.jpg"] = late
    again = ingest(IngestOptions((), str(tmp_path / "out"), manners=QUICK, retry_rejects=("not_found",)))
    assert (sum(again["samples"].values()), again["rejects"]) == (6, {})
    assert [web_server.asked(f"/{index}.jpg") for index in range(6)] == [1, 1, 1, 1, 1, 2]
    row = next(row for row in read_index(str(tmp_path / "out")) if row["source"] == urls[5])
    assert (row["licence"], row["author"]) == ("CC0-1.0", "Å")


def test_a_killed_run_does_not_fetch_again_what_it_has(web_server, tmp_path):
    urls = serve(web_server, 30)
    source, out = write_list(tmp_path / "l.jsonl", urls), str(tmp_path / "out")
    program = (
        "import os, transforms.ingest.batches as s, transforms.ingest.crawler as c\n"
        "c.STAGE_EVERY_PHOTOGRAPHS = 6\n"
        "real, calls = s.write_lines, []\n"
        "def killing(*arguments):\n"
        "    real(*arguments); calls.append(0)\n"
        "    if len(calls) == 4: os.kill(os.getpid(), 9)\n"
        "s.write_lines = killing\n"
        "from pipelines.ingest import IngestOptions, ingest\n"
        "from transforms.sources.manners import Manners\n"
        f"ingest(IngestOptions(({source!r},), {out!r}, manners=Manners(host_rate=1e4, allow_private=True)))\n"
    )
    code, said = forks.run(program)
    assert code == -9, said
    staged = {
        json.loads(line)["source"]
        for file in (tmp_path / "out" / ".staging" / "staged").rglob("*.jsonl")
        for line in file.read_text().splitlines()
    }
    assert len(staged) >= 18
    before = {url: web_server.asked(f"/{index}.jpg") for index, url in enumerate(urls)}
    dataset = ingest(IngestOptions((source,), out, manners=QUICK))
    after = {url: web_server.asked(f"/{index}.jpg") for index, url in enumerate(urls)}
    assert {url for url in urls if after[url] > before[url]} == set(urls) - staged
    assert sum(dataset["samples"].values()) == 30
    ingest(IngestOptions((source,), str(tmp_path / "fresh"), manners=QUICK))
    for name in os.listdir(tmp_path / "fresh"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes()


def test_sources_of_all_kinds_are_mixed_at_will(web_server, tmp_path):
    urls = serve(web_server, 4)
    web_server.routes["/gallery"] = b'<img src="/2.jpg" alt="Two"><a href="/3.jpg"><img src="/small.jpg"></a>'
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.jpg").write_bytes(photograph(40))
    sources = (str(tmp_path / "folder"), write_list(tmp_path / "l.jsonl", urls[:2]), f"{web_server.url}/gallery")
    ingest(IngestOptions(sources, str(tmp_path / "one"), manners=QUICK))
    index = read_index(str(tmp_path / "one"))
    assert sorted(row["source"] for row in index) == sorted([*urls, str(tmp_path / "folder" / "a.jpg")])
    assert next(row["title"] for row in index if row["source"] == urls[2]) == "Two"
    made = ingest(
        IngestOptions((f"{tmp_path}/one/*.tar",), str(tmp_path / "two"), preparation=Preparation(full_height_px=150))
    )
    assert sum(made["samples"].values()) == 5
    again = {row["source"]: row for row in read_index(str(tmp_path / "two"))}
    assert set(again) == {row["source"] for row in index}
    assert again[urls[0]]["licence"] == "CC0-1.0"


def test_several_crawlers_make_the_same_set_and_a_host_belongs_to_one(web_server, tmp_path):
    source = write_list(tmp_path / "l.jsonl", serve(web_server, 8))
    for crawlers in (1, 3):
        ingest(IngestOptions((source,), str(tmp_path / str(crawlers)), manners=QUICK, crawlers=crawlers))
    assert web_server.asked("/robots.txt") == 2
    for name in os.listdir(tmp_path / "1"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "3" / name).read_bytes()


def test_a_dry_run_prints_the_plan_and_writes_nothing(web_server, tmp_path, capsys):
    source = write_list(tmp_path / "l.jsonl", serve(web_server, 8))
    (tmp_path / "a.jpg").write_bytes(photograph(1))
    arguments = [source, str(tmp_path / "a.jpg"), "--out", str(tmp_path / "out"), "--host-rate", "2"]
    assert cli.run(["ingest", *arguments, "--dry-run"]) == 0
    shown = capsys.readouterr().err
    assert f"from {web_server.url}" in shown
    assert "4 s" in shown
    assert not (tmp_path / "out").exists()
    assert web_server.log == []


def test_private_addresses_are_refused_unless_allowed(web_server, tmp_path, capsys):
    urls = serve(web_server, 2)
    assert cli.run(["ingest", write_list(tmp_path / "l.jsonl", urls), "--out", str(tmp_path / "out")]) == 1
    assert {row["reason"] for row in rejects(tmp_path / "out").values()} == {"private_address"}
    assert web_server.log == []
    again = ["ingest", "--out", str(tmp_path / "out"), "--retry-rejects", "private_address", "--allow-private"]
    assert cli.run(again) == 0
    assert len(read_index(str(tmp_path / "out"))) == 2
