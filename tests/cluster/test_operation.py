"""What surrounds a job on a cluster: paths, flags, errors, progress and interruption."""

import os
import re
import signal
import time
from pathlib import Path

import pytest
from waiting import until

from pipelines.cli import run

REPOSITORY = Path(__file__).parents[2]
PHOTOGRAPHS = sorted((REPOSITORY / "samples").glob("*.jpg"))[:3]


@pytest.fixture
def slow(web_server, tmp_path):
    """Returns a list of photographs on a server that does not answer in the test's time."""
    web_server.routes = {f"/{photo.name}": web_server.stall for photo in PHOTOGRAPHS}
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"{web_server.url}{path}\n" for path in web_server.routes))
    return listed


def started(cluster, web_server, *words):
    """Starts a command whose worker now waits for a web server."""
    process = cluster.start("ingest", *words, "--allow-private")
    late = time.monotonic() + 60
    while not web_server.log:
        assert not process.ended, process.end()
        assert time.monotonic() < late
        time.sleep(0.1)
    return process


def test_relative_paths_mean_the_same_to_workers_elsewhere(cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for photo in PHOTOGRAPHS:
        (tmp_path / photo.name).write_bytes(photo.read_bytes())
    words = ["ingest", *[photo.name for photo in PHOTOGRAPHS], "--quiet"]
    assert run([*words, "--out=here"]) == 0
    code, said = cluster.infinitygan(*words, "--out=there")
    assert code == 0, said
    tables = [(tmp_path / out / "index.parquet").read_bytes() for out in ("here", "there")]
    assert tables[0] == tables[1]


def test_what_workers_cannot_see_is_named_and_never_a_reject(blind_cluster, hidden, tmp_path):
    photo = hidden / "photo.jpg"
    photo.write_bytes(PHOTOGRAPHS[0].read_bytes())
    code, said = blind_cluster.infinitygan("ingest", photo, f"--out={tmp_path / 'set'}", "--quiet")
    assert code == 2
    assert re.fullmatch(f"infinitygan: worker .* does not see {photo}: .*mounted at this path on all workers\n", said)
    code, said = blind_cluster.infinitygan("ingest", PHOTOGRAPHS[0], f"--out={hidden / 'set'}", "--quiet")
    assert code == 2
    assert re.fullmatch(rf"infinitygan: worker .* does not see {hidden / 'set'}\S*: .*\n", said)


def test_a_render_that_stores_no_plan_shows_that_workers_see_its_folder_too(
    blind_cluster, hidden, tiny_checkpoint, tmp_path
):
    words = ("render", "--width=60", "--height=40", "--no-keep-patches", f"--checkpoint={tiny_checkpoint}", "--quiet")
    code, said = blind_cluster.infinitygan(*words, f"--out={hidden / 'out'}")
    assert code == 2
    assert re.fullmatch(rf"infinitygan: worker .* does not see {hidden / 'out'}\S*: .*\n", said)


def test_an_interrupted_job_is_cancelled(cluster, slow, web_server, tmp_path):
    process = started(cluster, web_server, slow, f"--out={tmp_path / 'set'}")
    until(lambda: re.search("waiting for workers|Photographs: 0/3", process.complained))
    start = time.monotonic()
    process.send(signal.SIGINT)
    code, said = process.end(30)
    assert time.monotonic() - start < 10
    assert code == 130
    assert said.splitlines()[-2:] == [
        "infinitygan: cancelling the job; interrupt again to leave at once",
        "infinitygan: interrupted",
    ]
    assert cluster.states()[0] == "CANCELLED"


def test_a_detached_job_is_watched_and_cancelled_by_its_folder(cluster, slow, web_server, tmp_path, capsys):
    out = tmp_path / "set"
    code, said = cluster.infinitygan("ingest", slow, f"--out={out}", "--allow-private", "--detach")
    assert code == 0, said
    assert f"infinitygan status {out}" in said
    while not web_server.log:
        time.sleep(0.1)
    assert run(["status", str(out)]) == 0
    assert "RUNNING" in capsys.readouterr().out
    assert run(["cancel", str(out)]) == 0
    assert "cancelled" in capsys.readouterr().out
    assert run(["status", str(out)]) == 0
    assert "no job" in capsys.readouterr().out


def test_a_detached_job_completes_by_itself(cluster, contents, tiny_checkpoint, tmp_path):
    jobs = [
        ("render", "--width=200", "--height=64", "--tile=64", f"--checkpoint={tiny_checkpoint}"),
        ("ingest", *PHOTOGRAPHS),
    ]
    for number, words in enumerate(jobs):
        here, there = tmp_path / f"here{number}", tmp_path / f"there{number}"
        assert run([*map(str, words), f"--out={here}", "--quiet"]) == 0
        code, said = cluster.infinitygan(*words, f"--out={there}", "--detach")
        assert code == 0, said
        late = time.monotonic() + 120
        while cluster.states()[0] != "DONE":
            assert time.monotonic() < late, cluster.states()
            time.sleep(0.2)
        assert contents(there) == contents(here)


def test_a_new_run_does_not_overrun_a_detached_job(cluster, slow, web_server, tmp_path, capsys):
    words = ["ingest", str(slow), f"--out={tmp_path / 'set'}", "--allow-private"]
    assert cluster.infinitygan(*words, "--detach")[0] == 0
    assert run(words) == 2
    assert "detached job" in capsys.readouterr().err
    assert run(["cancel", str(tmp_path / "set")]) == 0


def test_progress_comes_from_the_runner(cluster, tmp_path):
    code, said = cluster.infinitygan("ingest", REPOSITORY / "samples", f"--out={tmp_path / 'set'}")
    assert code == 0, said
    assert re.search(r"^Photographs: \d+/32", said, re.MULTILINE), said


def test_counts_come_from_the_workers(cluster, tmp_path):
    from pipelines.ingest import ingest
    from pipelines.terminal.beam_flags import beam_options
    from transforms.ingest.crawler import PHOTOGRAPHS_DONE
    from transforms.ingest.options import IngestOptions

    ingest(IngestOptions(tuple(map(str, PHOTOGRAPHS)), str(tmp_path / "set")), beam_options(list(cluster.flags)))
    assert PHOTOGRAPHS_DONE.count == len(PHOTOGRAPHS)
    assert PHOTOGRAPHS_DONE.named()["kept"] == len(PHOTOGRAPHS)


def test_a_full_disk_is_one_line_at_once(cluster, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if os.system(f"mount -t tmpfs -o size=64k none {small}"):
        pytest.skip("no right to mount a small disk")
    try:
        code, said = cluster.infinitygan("ingest", *PHOTOGRAPHS, f"--out={small / 'set'}", "--quiet")
    finally:
        os.system(f"umount -l {small}")
    assert code == 1
    assert len(said.splitlines()) == 1
    assert "No space left on device" in said
