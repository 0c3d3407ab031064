"""Jobs that lose what they depend on: the process that submitted them, their workers, or the store."""

import asyncio
import os
import signal
import time
from pathlib import Path

import fsspec
import pytest

from pipelines.cli import run

REPOSITORY = Path(__file__).parents[2]
PHOTOGRAPHS = sorted((REPOSITORY / "samples").glob("*.jpg"))[:4]


def wait_until(condition, what):
    late = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < late, what
        time.sleep(0.1)


@pytest.fixture
def slow(web_server, tmp_path):
    """Returns a list of photographs on a server that does not answer before `slow.go` is set."""
    go = {"now": False}

    def answer(photo):
        async def wait(request):
            while not go["now"]:
                await asyncio.sleep(0.05)
            return photo.read_bytes()

        return wait

    web_server.routes = {f"/{photo.name}": answer(photo) for photo in PHOTOGRAPHS}
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"{web_server.url}{path}\n" for path in web_server.routes))
    return listed, go


def test_an_orphan_changes_nothing_in_a_finished_set(cluster, slow, web_server, contents, tmp_path):
    listed, go = slow
    words = ("ingest", listed, f"--out={tmp_path / 'set'}", "--allow-private", "--dedup=off", "--host-rate=100")
    left = cluster.start(*words)
    wait_until(lambda: web_server.log, "the worker asks the server")
    left.send(signal.SIGKILL)
    frozen = cluster.workers()
    assert frozen
    for worker in frozen:
        os.kill(worker, signal.SIGSTOP)
    go["now"] = True
    try:
        assert run([*map(str, words), "--quiet"]) == 0
        finished = contents(tmp_path / "set")
        assert len(finished) >= len(PHOTOGRAPHS) + 4
    finally:
        for worker in frozen:
            os.kill(worker, signal.SIGCONT)
    wait_until(lambda: cluster.states()[:1] == ["FAILED"], cluster.states())
    assert contents(tmp_path / "set") == finished
    assert not (tmp_path / "set" / ".staging").exists()


def test_a_killed_worker_is_one_line_and_the_next_run_does_the_rest(cluster, slow, web_server, contents, tmp_path):
    listed, go = slow
    words = ("ingest", listed, f"--out={tmp_path / 'set'}", "--allow-private", "--host-rate=100", "--quiet")
    process = cluster.start(*words)
    wait_until(lambda: web_server.log, "the worker asks the server")
    start = time.monotonic()
    for worker in cluster.workers():
        os.kill(worker, signal.SIGKILL)
    code, said = process.end(60)
    assert time.monotonic() - start < 30
    assert code == 1
    assert len(said.splitlines()) == 1
    assert said.startswith("infinitygan: the job failed: ")
    go["now"] = True
    assert cluster.infinitygan(*words)[0] == 0
    there = contents(tmp_path / "set")
    (tmp_path / "set").rename(tmp_path / "first")
    assert run([*map(str, words)]) == 0
    assert there == contents(tmp_path / "set")


def test_a_killed_store_is_one_line_and_the_next_run_needs_nothing_of_it(
    cluster_and_mortal_store, slow, web_server, contents, tmp_path
):
    (cluster, store), (listed, go) = cluster_and_mortal_store, slow
    words = ("ingest", listed, "--allow-private", "--host-rate=100", "--quiet")
    process = cluster.start(*words, "--out=s3://bucket/set")
    wait_until(lambda: web_server.log, "the worker asks the server")
    store.kill()
    go["now"] = True
    code, said = process.end(90)
    assert code == 1
    assert len(said.splitlines()) == 1
    assert said.startswith("infinitygan: storage: Could not connect to the endpoint URL")
    store.start()
    code, said = cluster.infinitygan(*words, "--out=s3://bucket/set")
    assert code == 0, said
    assert run([*map(str, words), f"--out={tmp_path / 'set'}"]) == 0
    fs = fsspec.filesystem("s3", skip_instance_cache=True, **store.settings)
    there = {name.removeprefix("bucket/set/"): fs.cat_file(name) for name in fs.find("bucket/set")}
    assert there == contents(tmp_path / "set")
