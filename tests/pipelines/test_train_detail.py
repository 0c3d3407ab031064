"""The training of a detail stage: its files, and interrupted runs that continue as if they had not been interrupted."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from apache_beam.options.pipeline_options import PipelineOptions
from landscapes import write_landscapes
from PIL import Image

import pipelines.training_run
from model import bundled
from model.checkpoint import load_checkpoint, save_checkpoint
from model.config import DETAIL_STAGE, PRESETS, ablation
from model.errors import InputError
from model.networks.ablations import build_generator
from pipelines.cli import run
from pipelines.ingest import ingest
from pipelines.release import release
from pipelines.train import TrainOptions, train
from transforms.ingest.options import IngestOptions
from transforms.photographs.prepare import Preparation

BATCH = 2


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Returns a training set of five skies over five lands, four times as high as a generator's."""
    folder = tmp_path_factory.mktemp("photographs")
    write_landscapes(folder, 5, 800, 400)
    out = str(tmp_path_factory.mktemp("set") / "shards")
    options = IngestOptions((str(folder),), out, preparation=Preparation(full_height_px=788, patch_size_px=256))
    ingest(options, PipelineOptions(["--runner=FnApiRunner"]))
    return out


@pytest.fixture(scope="module")
def base(tiny_checkpoint):
    return tiny_checkpoint


def detail(data, out, **options):
    return TrainOptions(**{"data": data, "out": str(out), "preset": "detail", "batch": BATCH, **options})


def read(folder, name="checkpoint.safetensors"):
    return load_checkpoint((folder / name).read_bytes(), name)


@pytest.fixture(scope="module")
def finished(data, base, tmp_path_factory):
    """Returns the folder of an uninterrupted run of two steps."""
    out = tmp_path_factory.mktemp("finished") / "run"
    train(detail(data, out, init=base, images=2 * BATCH))
    return out


def test_the_folder_explains_itself(finished):
    config = json.loads((finished / "config.json").read_text())
    assert (config["preset"], config["recipe"], config["detail"]["channels"]) == ("detail", "detail", 48)
    log = [json.loads(line) for line in (finished / "log.jsonl").read_text().splitlines()]
    assert log[-1]["images"] == 2 * BATCH
    assert {"discriminator", "generator", "pixels", "features", "consistency"} <= set(log[-1])
    assert Image.open(finished / f"strip-{2 * BATCH:08d}.png").size == (1024, 768)
    assert Image.open(finished / "photographs.png").size == (8 * 256, 8 * 256)


def test_the_checkpoint_holds_the_base_as_it_was_and_the_stage(finished, base):
    before, after = load_checkpoint(Path(base).read_bytes(), base), read(finished)
    known = before.generator.state_dict()
    assert all(torch.equal(x, known[name]) for name, x in after.generator.state_dict().items())
    assert after.detail.config == DETAIL_STAGE
    origin = after.provenance.pop("detail")
    assert after.provenance == before.provenance
    assert (origin["images_seen"], origin["init"]["sha256"]) == (2 * BATCH, before.sha256)


def test_a_resumed_run_equals_one_that_was_not_interrupted(data, base, finished, tmp_path):
    train(detail(data, tmp_path / "run", init=base, images=BATCH))
    train(detail(data, tmp_path / "run", images=2 * BATCH, resume=True))
    for name in ("checkpoint.safetensors", "training.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (finished / name).read_bytes()


def test_a_finished_run_makes_again_what_is_missing(data, finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / "run")
    before = {path.name: path.read_bytes() for path in out.glob("*s-*")} | {
        "checkpoint.safetensors": (out / "checkpoint.safetensors").read_bytes()
    }
    for name in before:
        (out / name).unlink()
    train(detail(data, out, images=2 * BATCH, resume=True))
    assert {name: (out / name).read_bytes() for name in before} == before


def test_another_run_goes_on_from_a_checkpoint_and_its_training_state(data, finished, tmp_path, monkeypatch):
    monkeypatch.setattr(pipelines.training_run.Run, "go", lambda self, stream: None)
    init = str(finished / "checkpoint.safetensors")
    trainer = train(detail(data, tmp_path / "run", init=init, images=1))
    assert trainer.images == 2 * BATCH
    known = read(finished).detail.state_dict()
    assert all(torch.equal(x, known[name]) for name, x in trainer.ema.state_dict().items())
    assert not all(torch.equal(x, known[name]) for name, x in trainer.detail.state_dict().items())
    alone = str(shutil.copy(init, tmp_path / "alone.safetensors"))
    trainer = train(detail(data, tmp_path / "other", init=alone, images=1))
    assert all(torch.equal(x, known[name]) for name, x in trainer.detail.state_dict().items())
    assert read(tmp_path / "other").provenance["detail"]["init"]["images_seen"] == 2 * BATCH


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recipe": "paper"}, "--recipe paper: the preset detail has no such setting; omit it"),
        ({"accumulate": 2}, "--accumulate 2: the preset detail has no such setting"),
        ({"vertical_law": "paper"}, "--vertical-law paper: the preset detail has no such setting"),
        ({"batch": 0}, "batch is 0"),
        ({"resume": True}, "holds no run to resume"),
        ({"init": "nowhere.safetensors"}, "--init nowhere.safetensors"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(data, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        train(detail(data, tmp_path / "run", **options))
    assert not (tmp_path / "run").exists()


def test_a_generators_run_is_not_resumed_as_that_of_a_detail_stage(data, finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / "run")
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**config, "preset": "tiny", "init": None}))
    with pytest.raises(InputError, match="holds no run of a detail stage"):
        train(detail(data, out, resume=True))


def test_photographs_of_a_generators_height_are_refused(data, base, tmp_path):
    low = json.loads(Path(data, "dataset.json").read_text())
    copy = shutil.copytree(data, tmp_path / "low")
    (copy / "dataset.json").write_text(json.dumps({**low, "full_height_px": 197}))
    with pytest.raises(InputError, match=r"ingest them with --full-size 788 --patch-size 256"):
        train(detail(str(copy), tmp_path / "run", init=base))


def test_an_ablation_has_no_detail_stage(data, tmp_path):
    generator = build_generator(ablation(PRESETS["tiny"], "nci"))
    init = tmp_path / "ablation.safetensors"
    init.write_bytes(save_checkpoint(generator.state_dict(), generator.config, {}, "CC0-1.0"))
    with pytest.raises(InputError, match="a nci network renders in one shot only"):
        train(detail(data, tmp_path / "run", init=str(init)))


def test_the_command_line_refuses_a_setting_in_one_line(data, tmp_path, capsys):
    flags = ["--data", data, "--out", str(tmp_path / "run"), "--accumulate", "2"]
    assert run(["train", "--preset", "detail", *flags]) == 2
    assert capsys.readouterr().err.startswith("infinitygan: --accumulate 2: the preset detail")


def test_a_release_bundles_both_networks_and_leaves_the_generators_state(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(bundled, "CHECKPOINT", tmp_path / "bundled.safetensors")
    release(str(finished))
    released = read(tmp_path, "bundled.safetensors")
    known = read(finished)
    assert released.detail.config == known.detail.config
    assert all(torch.equal(x, known.detail.state_dict()[name]) for name, x in released.detail.state_dict().items())
    assert released.provenance == known.provenance
    assert [path.name for path in tmp_path.iterdir()] == ["bundled.safetensors"]
