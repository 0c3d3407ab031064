"""The train job: what it leaves behind, and that a run cut short goes on as if it had not been."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from apache_beam.options.pipeline_options import PipelineOptions
from PIL import Image

import pipelines.train
from model.checkpoint import load_checkpoint
from model.errors import DivergenceError, InputError
from model.training import Trainer
from pipelines.cli import run
from pipelines.ingest import IngestOptions, ingest
from pipelines.train import TrainOptions, train

REPOSITORY = Path(__file__).parents[2]
BATCH = 16


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A training set of twenty skies over twenty lands."""
    folder = tmp_path_factory.mktemp("photographs")
    random = np.random.default_rng(0)
    for index in range(20):
        pixels = random.integers(0, 60, (200, 300, 3))
        pixels[:100] += random.integers(60, 190, 3)
        pixels[100:] += random.integers(0, 120, 3)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index:02d}.png")
    out = str(tmp_path_factory.mktemp("set") / "shards")
    ingest(IngestOptions((str(folder),), out), PipelineOptions(["--runner=FnApiRunner"]))
    return out


def tiny(data, out, **options):
    return TrainOptions(**{"data": data, "out": str(out), "preset": "tiny", "images": 2 * BATCH, **options})


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """The folder of a run of four steps that nothing cut short."""
    out = tmp_path_factory.mktemp("finished") / "run"
    train(tiny(data, out, images=4 * BATCH))
    return out


def test_the_folder_explains_itself(finished):
    config = json.loads((finished / "config.json").read_text())
    assert config["preset"] == "tiny"
    assert config["recipe"] == "paper"
    assert config["data"]["licences"] == {"unstated": config["data"]["samples"]["train"]}
    log = [json.loads(line) for line in (finished / "log.jsonl").read_text().splitlines()]
    assert log[-1]["images"] == 4 * BATCH
    assert {"discriminator", "generator", "diversity", "r1", "vertical_real", "vertical_fake"} <= set(log[-1])
    assert Image.open(finished / f"strip-{4 * BATCH:08d}.png").size == (1024, 256)
    assert Image.open(finished / f"samples-{4 * BATCH:08d}.png").size == (8 * 101, 4 * 101)
    assert Image.open(finished / "photographs.png").size == (8 * 101, 8 * 101)
    checkpoint = load_checkpoint((finished / "checkpoint.safetensors").read_bytes(), "checkpoint")
    assert checkpoint.provenance["images_seen"] == 4 * BATCH
    assert checkpoint.provenance["data"] == config["data"]


def test_a_resumed_run_equals_one_that_was_not_interrupted(data, finished, tmp_path):
    train(tiny(data, tmp_path / "run", images=2 * BATCH))
    train(tiny(data, tmp_path / "run", images=4 * BATCH, resume=True))
    for name in ("checkpoint.safetensors", "training.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (finished / name).read_bytes()


def test_a_finished_run_stays_as_it_is(data, finished):
    before = (finished / "training.safetensors").read_bytes()
    train(tiny(data, finished, images=4 * BATCH, resume=True))
    assert (finished / "training.safetensors").read_bytes() == before


def start(data, out, *flags):
    """The command in a process of its own, saving after every step, once it has saved."""
    code = "import pipelines.train, pipelines.cli, sys; pipelines.train.TICK_S = 0.0; pipelines.cli.main(sys.argv[1:])"
    command = [sys.executable, "-c", code, "train", "--data", data, "--out", str(out), "--preset", "tiny", *flags]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stderr=subprocess.PIPE, text=True)
    for _ in range(600):
        log = out / "log.jsonl"
        if (log.exists() and log.read_text()) or process.poll() is not None:
            break
        time.sleep(0.1)
    return process


def test_a_killed_run_goes_on(data, finished, tmp_path):
    out = tmp_path / "run"
    process = start(data, out)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    seen = json.loads((out / "log.jsonl").read_text().splitlines()[-1])["images"]
    goal = max(4 * BATCH, seen)
    train(tiny(data, out, images=goal, resume=True))
    if goal == 4 * BATCH:
        assert (out / "checkpoint.safetensors").read_bytes() == (finished / "checkpoint.safetensors").read_bytes()
    assert load_checkpoint((out / "checkpoint.safetensors").read_bytes(), "").provenance["images_seen"] == goal


def test_a_run_killed_before_its_first_step_keeps_its_start(data, finished, tmp_path, monkeypatch):
    init = str(finished / "checkpoint.safetensors")
    monkeypatch.setattr(pipelines.train.Run, "go", lambda self, stream: None)
    train(tiny(data, tmp_path / "run", init=init))
    resumed = train(tiny(data, tmp_path / "run", resume=True))
    assert resumed.images == 4 * BATCH
    started = load_checkpoint((finished / "checkpoint.safetensors").read_bytes(), "").generator.state_dict()
    assert all(torch.equal(x, started[name]) for name, x in resumed.ema.state_dict().items())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_finishes_its_step_and_saves(data, tmp_path, number):
    process = start(data, tmp_path / "run")
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert errors.strip().splitlines()[-1] == "infinitygan: interrupted"
    last = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])["images"]
    content = (tmp_path / "run" / "checkpoint.safetensors").read_bytes()
    assert load_checkpoint(content, "").provenance["images_seen"] == last


def test_a_run_starts_from_a_checkpoint_and_its_training_state(data, finished, tmp_path):
    trainer = train(tiny(data, tmp_path / "run", images=BATCH, init=str(finished / "checkpoint.safetensors"), seed=1))
    assert trainer.images == 5 * BATCH
    provenance = load_checkpoint((tmp_path / "run" / "checkpoint.safetensors").read_bytes(), "").provenance
    assert provenance["images_seen"] == 5 * BATCH
    assert provenance["init"]["images_seen"] == 4 * BATCH


def test_divergence_ends_a_run_and_keeps_the_last_good_state(data, tmp_path, monkeypatch, capsys):
    train(tiny(data, tmp_path / "run", images=BATCH))
    good = (tmp_path / "run" / "training.safetensors").read_bytes()

    def diverge(self, *arguments):
        raise DivergenceError("training diverged at image 16")

    monkeypatch.setattr(Trainer, "step", diverge)
    flags = ["train", "--data", data, "--out", str(tmp_path / "run"), "--preset", "tiny", "--images", "64", "--resume"]
    assert run(flags) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "infinitygan: training diverged at image 16"
    assert (tmp_path / "run" / "training.safetensors").read_bytes() == good


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "huge"}, "--preset huge: choose paper or small or tiny"),
        ({"recipe": "secret"}, "--recipe secret"),
        ({"images": 0}, "--images 0"),
        ({"minutes": -1.0}, "--minutes -1.0"),
        ({"minutes": float("nan")}, "--minutes nan"),
        ({"seed": -1}, "seed is -1"),
        ({"data": "nowhere"}, "nowhere is no training set"),
        ({"init": "nowhere.safetensors"}, "--init nowhere.safetensors"),
        ({"init": "bundled"}, "another preset"),
        ({"resume": True}, "holds no run to resume"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(data, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        train(tiny(**{"data": data, "out": tmp_path / "run", **options}))
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_overwritten(data, finished):
    with pytest.raises(InputError, match="--resume"):
        train(tiny(data, finished))


def test_the_command_line_names_a_missing_flag(capsys):
    assert run(["train", "--out", "run"]) == 2
    assert capsys.readouterr().err == "infinitygan: Missing option '--data'.\n"
    assert pipelines.train.TICK_S > 0
