"""The evaluate job: its files and output, the distances of photographs from themselves, and refused input."""

import dataclasses
import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from apache_beam.options.pipeline_options import PipelineOptions
from PIL import Image

from model.bundled import CHECKPOINT
from model.checkpoint import load_checkpoint
from model.config import PRESETS
from model.errors import InputError
from model.metrics.feature_networks import feature_networks
from model.metrics.picture_sets import describe
from pipelines.cli import run
from pipelines.evaluate import EvaluateOptions, describe_photographs, describe_worlds, evaluate
from pipelines.ingest import ingest
from transforms.evaluation.results import frechet_name, measure
from transforms.evaluation.scaled import ScaledEvaluation, compare, difference_from, read_frames
from transforms.evaluation.settings import Evaluation
from transforms.evaluation.windows import open_world
from transforms.ingest.options import IngestOptions
from transforms.photographs.prepare import Preparation

SAMPLES = Path(__file__).parents[2] / "samples"
FEW = Evaluation(
    worlds=4, patches=4, bands_px=(-128, 0, 128), band_patches=2, band_crops=2, scales=(1, 2), frames=2, frame_crops=2,
    panoramas=2, panorama_periods=2, varied_worlds=2, variations=2, trained_photographs=6, bootstraps=5,
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Returns a training set of the photographs in samples/."""
    out = str(tmp_path_factory.mktemp("set") / "shards")
    ingest(IngestOptions((str(SAMPLES),), out), PipelineOptions(["--runner=FnApiRunner"]))
    return out


@pytest.fixture(scope="module")
def evaluated(data, tiny_checkpoint, tmp_path_factory):
    """Returns the folder of an evaluation, and what it returned."""
    out = tmp_path_factory.mktemp("evaluated") / "out"
    return out, evaluate(EvaluateOptions(tiny_checkpoint, data, str(out), evaluation=FEW))


@pytest.fixture(scope="module")
def networks():
    return feature_networks(None, None, "cpu")


@pytest.fixture(scope="module")
def references(data, networks):
    return describe_photographs(data, PRESETS["small"], FEW, networks)


@pytest.mark.slow
def test_the_report_says_what_was_measured_how_and_of_what(evaluated, tiny_checkpoint):
    out, results = evaluated
    report = json.loads((out / "metrics.json").read_text())
    assert report["evaluation"] == json.loads(json.dumps(dataclasses.asdict(FEW)))
    assert report["checkpoint"]["sha256"] == load_checkpoint(Path(tiny_checkpoint).read_bytes(), "").sha256
    assert report["results"] == json.loads(json.dumps(results))
    assert set(report["results"]["sets"]) == {"patch", "frame 1x", "frame 2x"}
    assert set(report["results"]["bands"]) == {"-128", "-128 sky", "+0", "+128", "+128 ground"}
    assert report["results"]["sets"]["frame 1x"]["pictures"] == 8


def test_the_pictures_can_be_looked_at(evaluated):
    out, _ = evaluated
    names = ["bands", "colours", "frames", "diversity"]
    for name in names:
        with Image.open(out / f"{name}.png") as picture:
            assert np.asarray(picture).std() > 10


@pytest.mark.slow
def test_a_trained_network_is_nearer_to_photographs_than_an_untrained_one(evaluated, references, networks):
    generator = load_checkpoint(CHECKPOINT.read_bytes(), "bundled").generator
    trained = measure(describe_worlds(lambda seed: open_world(generator, seed), references, networks), references)
    untrained = evaluated[1]
    for name in trained["sets"]:
        near, far = (results["sets"][name]["KID-EffNetLite0"] for results in (trained, untrained))
        assert near["value"] < far["value"] / 2
    assert trained["bands"]["+0"]["KID-EffNetLite0"]["value"] < untrained["bands"]["+0"]["KID-EffNetLite0"]["value"] / 2


def test_photographs_are_at_no_distance_from_themselves(references):
    """The photographs are compared as if they were worlds."""
    posing = dict(references.held_out)
    posing |= {f"frame {scale}x": posing["frame"] for scale in FEW.scales}
    posing |= {f"band {band_px:+d}": posing[f"band {48 * np.sign(band_px):+d}"] for band_px in FEW.bands_px}
    found = measure(posing, references)
    for row in found["sets"].values():
        assert row["KID-EffNetLite0"]["value"] < 0
        assert row["FD-EffNetLite0"]["value"] == pytest.approx(0, abs=1e-3)
        assert row["precision-EffNetLite0"]["value"] == 1
    for row in (found["bands"][f"{band_px:+d}"] for band_px in FEW.bands_px):
        assert row["contrast"]["ratio"]["value"] == pytest.approx(1)
        assert row["colours"]["brightness"]["value"] == pytest.approx(0, abs=1e-9)
    assert found["horizon"]["between frames"]["ratio"]["value"] == pytest.approx(1)


def test_only_the_standard_inception_gives_an_fid():
    assert [frechet_name(name) for name in ("EffNetLite0", "AlexNet", "Inception")] == [
        "FD-EffNetLite0", "FD-AlexNet", "FID"
    ]  # fmt: skip


@pytest.mark.slow
def test_the_command_finds_the_same_and_prints_tables(evaluated, data, tiny_checkpoint, tmp_path, monkeypatch, capsys):
    """With the paper's protocol besides, which changes nothing else."""
    few = partial(dataclasses.replace, FEW)
    monkeypatch.setattr("transforms.evaluation.settings.Evaluation", few)
    arguments = ["evaluate", tiny_checkpoint, data, "--out", str(tmp_path / "out"), "--protocol", "paper"]
    assert run(arguments) == 0
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())["results"]
    assert any(name.startswith("paper") for name in found["sets"])
    found["sets"] = {name: row for name, row in found["sets"].items() if not name.startswith("paper")}
    assert found == json.loads(json.dumps(evaluated[1]))
    shown = capsys.readouterr()
    assert "KID-EffNetLite0" in shown.out
    assert "paper" in shown.out
    assert str(tmp_path / "out") in shown.err
    assert run(arguments) == 2
    assert "already holds an evaluation" in capsys.readouterr().err


SCALED = ScaledEvaluation(scale=4, worlds=3, patches=4, photographs=8, bootstraps=20)


@pytest.fixture(scope="module")
def high_data(tmp_path_factory):
    """Returns a training set of some of the photographs in samples/, 788 px high."""
    folder = tmp_path_factory.mktemp("high")
    out, some = str(folder / "shards"), folder / "some"
    some.mkdir()
    for path in sorted(SAMPLES.glob("*.jpg"))[:16]:
        shutil.copy(path, some)
    options = IngestOptions((str(some),), out, preparation=Preparation(full_height_px=788))
    ingest(options, PipelineOptions(["--runner=FnApiRunner"]))
    return out


@pytest.mark.slow
def test_at_a_scale_the_detail_stage_is_compared_with_photographs_and_enlargements(
    high_data, detailed_checkpoint, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("transforms.evaluation.scaled.ScaledEvaluation", partial(dataclasses.replace, SCALED))
    arguments = ["evaluate", detailed_checkpoint, high_data, "--scale", "4", "--out", str(tmp_path / "out")]
    assert run(arguments) == 0
    report = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert report["evaluation"] == dataclasses.asdict(SCALED)
    methods = report["results"]["methods"]
    assert set(methods) == {"detail stage", "bicubic", "Lanczos", "photographs trained on"}
    assert report["results"]["pictures"]["patch"] == 12
    assert methods["bicubic"]["fine power"]["value"] < methods["photographs trained on"]["fine power"]["value"] / 10
    more = methods["bicubic"]["KID-EffNetLite0, frame more than the detail stage"]["value"]
    kids = [methods[name]["KID-EffNetLite0, frame"]["value"] for name in ("bicubic", "detail stage")]
    assert more == pytest.approx(kids[0] - kids[1])
    assert methods["detail stage"]["difference from the base"]["value"] > 0
    assert "Lanczos" in capsys.readouterr().out
    with Image.open(tmp_path / "out" / "patch.png") as picture:
        assert picture.height > 4 * 101


def test_photographs_at_a_scale_are_at_no_distance_from_themselves(high_data, networks):
    held_out, _ = read_frames(high_data, PRESETS["tiny"], SCALED)
    described = describe(held_out, networks)
    found = compare(described, described, SCALED)
    assert found["KID-EffNetLite0, patch"][0] < 0
    assert found["KID-EffNetLite0, frame"][0] < 0
    assert float(found["fine power"][0]) == pytest.approx(1)


def test_the_difference_from_the_base_is_that_of_the_mean_of_each_square():
    base = torch.randint(20, 200, (3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    picture = base.repeat_interleave(4, 1).repeat_interleave(4, 2)
    assert difference_from(base, picture) == 0
    picture[:, ::2] += 10
    assert difference_from(base, picture) == pytest.approx(5)


def test_an_evaluation_at_a_scale_that_does_not_fit_is_refused(
    data, tiny_checkpoint, detailed_checkpoint, tmp_path, capsys
):
    for checkpoint, flags, message in (
        (tiny_checkpoint, ("--scale", "4"), "scale 4 needs a detail stage, which checkpoint"),
        (detailed_checkpoint, ("--scale", "4"), "holds photographs 197 px high"),
        (detailed_checkpoint, ("--scale", "2"), "scale is 2; choose 1, 4, 16"),
        (detailed_checkpoint, ("--scale", "4", "--protocol", "paper"), "--protocol paper applies at scale 1"),
    ):
        out = tmp_path / "out"
        assert run(["evaluate", checkpoint, data, "--out", str(out), *flags]) == 2
        assert message in capsys.readouterr().err
        assert not out.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"checkpoint": "nowhere.safetensors"}, "checkpoint nowhere.safetensors: there is no such file"),
        ({"checkpoint": str(SAMPLES)}, "samples is a folder; give a .safetensors file"),
        ({"inception": str(CHECKPOINT)}, "Conv2d_1a_3x3"),
        ({"data": "nowhere"}, "nowhere is not a training set"),
        ({"inception": "nowhere.npz"}, "--inception nowhere.npz: there is no such file"),
        ({"out": ""}, "--out is empty"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(options, message, data, tiny_checkpoint, tmp_path):
    out = tmp_path / "out"
    given = {"checkpoint": tiny_checkpoint, "data": data, "out": str(out), "evaluation": FEW, **options}
    with pytest.raises(InputError, match=message):
        evaluate(EvaluateOptions(**given))
    assert not out.exists()


def test_a_damaged_set_leaves_nothing_behind(data, tiny_checkpoint, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(data, copy)
    for shard in copy.glob("*.tar"):
        shard.write_bytes(bytes(len(shard.read_bytes())))
    with pytest.raises(InputError, match="is damaged"):
        evaluate(EvaluateOptions(tiny_checkpoint, str(copy), str(tmp_path / "out"), evaluation=FEW))
    assert not (tmp_path / "out").exists()
