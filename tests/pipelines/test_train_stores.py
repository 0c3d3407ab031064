"""Training from shards in object stores and on a web server, and to buckets, with the same results as on disk."""

import itertools
from pathlib import Path

import fsspec
import numpy as np
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from PIL import Image

from model.errors import InputError
from pipelines.cli import run
from pipelines.ingest import ingest
from pipelines.train import TrainOptions, train
from transforms.ingest.options import IngestOptions
from transforms.photographs.prepare import Preparation
from transforms.storage.files import list_files
from transforms.training import run_lock
from transforms.training.shard_reader import Shards
from transforms.training.stream import PatchStream
from transforms.training_set.dataset import DATASET, INDEX, read_dataset

BATCH = 4


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Returns a training set of 24 photographs, three per shard."""
    folder, random = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for index in range(24):
        Image.fromarray(random.integers(0, 256, (197, 250, 3), np.uint8)).save(folder / f"{index:02d}.png")
    out = str(tmp_path_factory.mktemp("set") / "shards")
    options = IngestOptions(
        (str(folder),), out, preparation=Preparation(content_filters=False), samples_per_shard=3, dedup="off"
    )
    ingest(options, PipelineOptions(["--runner=FnApiRunner"]))
    return out


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Removes the pauses between attempts."""
    monkeypatch.setattr("transforms.training.shard_reader.RETRY_AFTER_S", (0.0, 0.0, 0.0))


@pytest.fixture(scope="module")
def stored(data, bucket):
    """Returns the same set in a bucket."""
    fs, path = fsspec.core.url_to_fs(f"{bucket}/shards")
    for file in Path(data).iterdir():
        fs.pipe_file(f"{path}/{file.name}", file.read_bytes())
    return f"{bucket}/shards"


@pytest.fixture
def served(data, web_server):
    """Returns the same set on a web server."""
    web_server.routes |= {f"/shards/{file.name}": file.read_bytes() for file in Path(data).iterdir()}
    return f"{web_server.url}/shards"


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """Returns the folder of a run of two steps, from a local set."""
    out = tmp_path_factory.mktemp("finished") / "run"
    train(options_for(data, out))
    return out


def options_for(data, out, images=2 * BATCH, **others):
    return TrainOptions(data, str(out), "tiny", images=images, batch=BATCH, **others)


def patches(data, after=0):
    """Returns two epochs of patches, and the skipped shards."""
    stream = PatchStream(Shards(data, read_dataset(data)["shards"]), 101, 197)
    return [(pixels.tobytes(), t) for pixels, t in itertools.islice(stream.patches(after), 48)], stream.shards.skipped


def same_run(url, folder):
    """Returns whether two run folders hold the same networks and training state, bit for bit."""
    names = ("checkpoint.safetensors", "training.safetensors")
    contents = [fsspec.open(f"{url}/{name}").open().read() for name in names]
    return contents == [(folder / name).read_bytes() for name in names]


def test_a_bucket_gives_the_patches_of_the_folder(data, stored):
    assert patches(stored) == patches(data)
    assert patches(stored, after=17) == patches(data, after=17)


def test_a_run_in_a_bucket_goes_on_from_there(stored, finished, bucket):
    out = f"{bucket}/run"
    train(options_for(stored, out, images=BATCH))
    assert not same_run(out, finished)
    train(options_for(stored, out, resume=True))
    assert same_run(out, finished)
    fs, path = fsspec.core.url_to_fs(out)
    fs.invalidate_cache()
    names = {name.removeprefix(f"{path}/").partition("-")[0] for name in fs.find(path)}
    assert {"config.json", "environment.json", "log.jsonl", "previous.safetensors", "samples"} < names


def test_a_run_folder_in_a_bucket_is_one_runs_until_that_is_dead(bucket, monkeypatch):
    for name, seconds in (("BEAT_S", 0.2), ("DEAD_S", 2.0), ("SETTLE_S", 0.2)):
        monkeypatch.setattr(run_lock, name, seconds)
    out = f"{bucket}/locked"
    with run_lock.locked(out) as check:
        with pytest.raises(InputError, match="is in use by another run"), run_lock.locked(out):
            pass
        check()
    run_lock.Lease(out).take()  # and never renewed
    with run_lock.locked(out) as check:
        check()
    assert not list_files(out)


def test_a_shard_that_is_lost_in_a_bucket_is_skipped_and_said(stored):
    fs, path = fsspec.core.url_to_fs(stored)
    shard = f"{path}/train-000001.tar"
    content = fs.cat_file(shard)
    fs.rm_file(shard)
    found, skipped = patches(stored)
    fs.pipe_file(shard, content)
    assert len(found) == 48
    assert skipped == {"train-000001.tar": "it is missing"}


def test_a_web_server_gives_the_patches_of_the_folder(data, served):
    assert patches(served) == patches(data)


def test_a_web_server_that_is_busy_at_first_is_asked_again(data, served, web_server):
    path = "/shards/train-000001.tar"
    answers = itertools.chain([(503, {}, b"")] * 2, itertools.repeat(web_server.routes[path]))

    async def answer(request):
        return next(answers)

    web_server.routes[path] = answer
    assert patches(served) == patches(data)
    assert web_server.asked(path) >= 3


def test_a_run_learns_from_a_web_server_and_cannot_be_written_there(served, finished, tmp_path, web_server, capsys):
    train(options_for(served, tmp_path / "run"))
    assert same_run(tmp_path / "run", finished)
    assert run(["train", "--data", served, "--out", f"{web_server.url}/run", "--preset", "tiny", "--images", "4"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert errors[-1] == f"infinitygan: {web_server.url}/run/lock.json: a web server is read-only; " + (
        "write to a folder, or a store such as gs:// or s3://"
    )


def test_what_is_no_set_on_a_web_server_is_refused(served, web_server, tmp_path, capsys):
    flags = ["--out", str(tmp_path / "run"), "--preset", "tiny", "--images", "4"]
    del web_server.routes[f"/shards/{INDEX}"]
    assert run(["train", "--data", served, *flags]) == 2
    assert "index.parquet is missing" in capsys.readouterr().err
    del web_server.routes[f"/shards/{DATASET}"]
    assert run(["train", "--data", served, *flags]) == 2
    assert "is not a training set" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
