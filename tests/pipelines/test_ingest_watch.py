import os
import shutil
import signal
import threading
import time
from contextlib import contextmanager

import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from forks import Fork
from sets import read_index
from waiting import until

from model.errors import InputError
from pipelines import cli, ingest_watch
from pipelines.ingest import ingest, repack
from pipelines.ingest_watch import ingest_arrivals
from pipelines.terminal import jobs
from tests.pipelines.test_ingest import scene
from transforms.ingest.options import IngestOptions
from transforms.storage import arrivals
from transforms.training_set.dataset import read_dataset_if_any, read_rejects

AT_ONCE = 1e-9
NEVER = 1e9


@pytest.fixture(autouse=True)
def in_haste(monkeypatch):
    monkeypatch.setattr(arrivals, "EVERY_S", 0.05)


def photograph(folder, name, seed):
    folder.mkdir(parents=True, exist_ok=True)
    scene(seed).save(folder / f".{name}", "JPEG")
    (folder / f".{name}").rename(folder / name)


@contextmanager
def watching(options, shard_minutes=AT_ONCE):
    """Watches in another thread while the block runs."""
    stop, errors = threading.Event(), []

    def watch():
        try:
            ingest_arrivals(options, shard_minutes, stop)
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join(60)
        assert not thread.is_alive()
    assert not errors


def size(out):
    dataset = read_dataset_if_any(str(out))
    return sum(dataset["samples"].values()) if dataset else 0


def shards(out):
    return {path.name: path.read_bytes() for path in sorted(out.glob("*.tar"))}


def test_what_arrives_is_taken_as_one_run_would(tmp_path):
    inside, out, at_once = tmp_path / "in", tmp_path / "set", tmp_path / "at-once"
    options = IngestOptions((str(inside),), str(out), dedup="off")
    with watching(options):
        photograph(inside, "a.jpg", 1)
        until(lambda: size(out) == 1)
        (inside / "inventory.tsv").write_text("file\tlicense\tauthor\nday/b.jpg\tCC0\tAda\n")
        photograph(inside / "day", "b.jpg", 2)
        (inside / "bad.jpg").write_text("no picture")
        until(lambda: size(out) == 2 and list(read_rejects(str(out))))
    assert not (out / ".staging").exists()
    ingest(IngestOptions((str(inside),), str(at_once), dedup="off", samples_per_shard=1000))
    repack(str(out), 1000)
    assert shards(out) == shards(at_once)
    assert {row["author"] for row in read_index(str(out))} == {None, "Ada"}
    assert [reject.source for reject in read_rejects(str(out))] == [str(inside / "bad.jpg")]


def test_a_shard_is_closed_by_number_or_by_time(tmp_path):
    inside, out = tmp_path / "in", tmp_path / "set"
    options = IngestOptions((str(inside),), str(out), samples_per_shard=2, dedup="off")
    with watching(options, NEVER):
        photograph(inside, "a.jpg", 1)
        time.sleep(0.5)
        assert size(out) == 0
        photograph(inside, "b.jpg", 2)
        until(lambda: size(out) == 2)
        photograph(inside, "c.jpg", 3)
        time.sleep(0.5)
    assert size(out) == 2
    with watching(options, AT_ONCE):
        until(lambda: size(out) == 3)


def test_many_jobs_record_their_options_once(tmp_path):
    inside, out = tmp_path / "in", tmp_path / "set"
    with watching(IngestOptions((str(inside),), str(out), dedup="off")):
        for seed in range(3):
            photograph(inside, f"{seed}.jpg", seed)
            until(lambda seed=seed: size(out) == seed + 1)
    dataset = read_dataset_if_any(str(out))
    assert dataset["configuration"]["sources"] == [str(inside)]
    assert not dataset.get("later_configurations")


def test_only_new_files_cost_more_than_a_listing(tmp_path, monkeypatch):
    inside = tmp_path / "in"
    photograph(inside, "a.jpg", 1)
    watched = ingest_watch.Arrivals((str(inside),), str(tmp_path / "set"))
    assert watched.look() == []
    assert watched.look() == [(str(inside / "a.jpg"), str(inside))]
    with monkeypatch.context() as patch:
        patch.setattr(arrivals, "_local_version", lambda path: pytest.fail("it is known"))
        assert watched.look() == []
    (inside / "a.jpg").unlink()
    assert watched.look() == []
    assert not watched._known


def test_a_listing_that_fails_is_tried_again(tmp_path, monkeypatch):
    photograph(tmp_path / "in", "a.jpg", 1)
    watched = ingest_watch.Arrivals((str(tmp_path / "in"),), str(tmp_path / "set"))
    watched.look()
    with monkeypatch.context() as patch:
        patch.setattr(ingest_watch, "list_arrivals", lambda *_: 1 / 0)
        assert watched.look() == []
    assert watched.look() + watched.look() == [(str(tmp_path / "in" / "a.jpg"), str(tmp_path / "in"))]


def test_a_job_is_tried_again_when_storage_fails(tmp_path, monkeypatch, capsys):
    failures = [OSError("the store is away")]

    def ingest_or_fail(*how):
        if failures:
            raise failures.pop()
        return ingest(*how)

    monkeypatch.setattr(ingest_watch, "ingest", ingest_or_fail)
    monkeypatch.setattr(jobs, "WAITS_S", (0.1,))
    photograph(tmp_path / "in", "a.jpg", 1)
    with watching(IngestOptions((str(tmp_path / "in"),), str(tmp_path / "set"), dedup="off")):
        until(lambda: size(tmp_path / "set") == 1)
    assert "the job is tried again: the store is away" in capsys.readouterr().err


def test_a_photograph_that_goes_before_its_job_is_no_reject_and_may_come_again(tmp_path):
    inside, out = tmp_path / "in", tmp_path / "set"
    with watching(IngestOptions((str(inside),), str(out), samples_per_shard=2, dedup="off"), NEVER):
        photograph(inside, "a.jpg", 1)
        time.sleep(0.5)
        (inside / "a.jpg").unlink()
        time.sleep(0.3)
        photograph(inside, "b.jpg", 2)
        time.sleep(0.5)
        photograph(inside, "a.jpg", 1)
        until(lambda: size(out) == 2)
    assert not list(read_rejects(str(out)))


def test_a_name_that_is_not_utf_8_is_a_reject(tmp_path):
    inside, out = tmp_path / "in", tmp_path / "set"
    photograph(inside, "a\nb.jpg", 1)
    shutil.copy(inside / "a\nb.jpg", os.fsencode(inside) + b"/\xff.jpg")
    with watching(IngestOptions((str(inside),), str(out), dedup="off")):
        until(lambda: size(out) == 1 and list(read_rejects(str(out))))
    (reject,) = read_rejects(str(out))
    assert (reject.source, reject.reason) == (f"{inside}/\ufffd.jpg", "unreadable")


def test_a_set_within_its_source_is_not_taken_for_new_photographs(tmp_path):
    with watching(IngestOptions((str(tmp_path),), str(tmp_path / "set"), dedup="off")):
        photograph(tmp_path, "a.jpg", 1)
        until(lambda: size(tmp_path / "set") == 1)
        time.sleep(0.5)
    assert size(tmp_path / "set") == 1
    assert not list(read_rejects(str(tmp_path / "set")))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["https://example.org"], "only folders and patterns"),
        (["commons:Category:Hills"], "only folders and patterns"),
        (["in", "--shard-minutes=0"], "--shard-minutes 0.0: give more"),
        ([], "no source given"),
        ([""], "is empty"),
        (["set"], "the folder of --out"),
        (["--repack"], "--repack cannot be combined"),
        (["--retry-rejects=all"], "cannot be combined with --retry-rejects"),
    ],
)
def test_what_cannot_be_watched_is_refused(tmp_path, capsys, monkeypatch, words, reason):
    monkeypatch.chdir(tmp_path)
    assert cli.run(["ingest", "--watch", *words, "--out", str(tmp_path / "set")]) == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "set").exists()


def test_a_detached_job_cannot_watch(tmp_path):
    flags = PipelineOptions(["--runner=PortableRunner", "--detach"])
    with pytest.raises(InputError, match="--detach"):
        ingest_arrivals(IngestOptions((str(tmp_path),), str(tmp_path / "set")), 1, threading.Event(), flags)


WATCH = """
from pipelines.cli import main
from transforms.storage import arrivals

arrivals.EVERY_S = 0.05
main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_watch_after_its_job(tmp_path, number):
    photograph(tmp_path / "in", "a.jpg", 1)
    words = ("ingest", "--watch", tmp_path / "in", "--out", tmp_path / "set", "--shard-minutes=0.0001")
    watch = Fork(WATCH, *words)
    until(lambda: size(tmp_path / "set") == 1)
    watch.send(number)
    code, said = watch.end(30)
    assert code == 0
    assert "Traceback" not in said
    assert "1 samples in 1 shards" in said
    assert not (tmp_path / "set" / ".staging").exists()


def test_a_watch_that_is_killed_goes_on_when_it_is_started_again(tmp_path):
    inside, out = tmp_path / "in", tmp_path / "set"
    words = ("ingest", "--watch", inside, "--out", out, "--shard-minutes=0.0001", "--dedup=off", "--quiet")
    for kill in range(3):
        for seed in range(4):
            photograph(inside, f"{kill}-{seed}.jpg", 10 * kill + seed)
        watch = Fork(WATCH, *words)
        until((out / ".staging").exists)
        time.sleep(0.3 * kill)
        watch.send(signal.SIGKILL)
        watch.end(30)
    watch = Fork(WATCH, *words)
    until(lambda: size(out) == 12)
    watch.send(signal.SIGINT)
    assert watch.end(30)[0] == 0
    ingest(IngestOptions((str(inside),), str(tmp_path / "at-once"), dedup="off", samples_per_shard=1000))
    repack(str(out), 1000)
    assert shards(out) == shards(tmp_path / "at-once")
    shutil.rmtree(out)
