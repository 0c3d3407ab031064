"""The train job: its files, and interrupted runs that continue as if they had not been interrupted."""

import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import forks
import pytest
import torch
from apache_beam.options.pipeline_options import PipelineOptions
from landscapes import write_landscapes
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import pipelines.training_run
from model.checkpoint import load_checkpoint
from model.config import PRESETS, ablation
from model.errors import DivergenceError, InputError
from model.training.trainer import Trainer
from pipelines.cli import run
from pipelines.ingest import ingest
from pipelines.train import TrainOptions, packages, train
from tests.transforms.training_set.test_dataset import write_as_version_1
from transforms.ingest.options import IngestOptions
from transforms.render.options import RenderOptions
from transforms.training import run_folder
from transforms.training.run_lock import locked

PRESETS_BY_NAME = dict(PRESETS)
REPOSITORY = Path(__file__).parents[2]
BATCH = 4


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Returns a training set of twenty skies over twenty lands."""
    folder = tmp_path_factory.mktemp("photographs")
    write_landscapes(folder, 20, 200, 300)
    out = str(tmp_path_factory.mktemp("set") / "shards")
    ingest(IngestOptions((str(folder),), out), PipelineOptions(["--runner=FnApiRunner"]))
    return out


def tiny(data, out, **options):
    return TrainOptions(
        **{"data": data, "out": str(out), "preset": "tiny", "batch": BATCH, "images": 2 * BATCH, **options}
    )


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """Returns the folder of an uninterrupted run of four steps."""
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


def test_the_environment_has_what_torch_says_of_itself(monkeypatch):
    """A build for a GPU may report more than its metadata does."""
    monkeypatch.setattr(torch, "__version__", f"{metadata.version('torch').split('+')[0]}+cu130")
    assert packages()["torch"].endswith("+cu130")


def test_the_folder_tells_the_environment_and_the_curves(finished):
    environment = json.loads((finished / "environment.json").read_text())
    assert environment["packages"]["torch"] == torch.__version__
    assert (environment["processes"], environment["options"]["preset"]) == (1, "tiny")
    log = [json.loads(line) for line in (finished / "log.jsonl").read_text().splitlines()]
    assert 0 <= log[-1]["waiting"] <= 1
    assert log[-1]["skipped_shards"] == 0
    assert log[-1]["peak_bytes"] > 2**20
    curves = EventAccumulator(str(finished / "tensorboard")).Reload()
    assert curves.Scalars("r1")[-1].step == 4 * BATCH
    assert curves.Scalars("r1")[-1].value == pytest.approx(log[-1]["r1"])


def test_a_resumed_run_equals_one_that_was_not_interrupted(data, finished, tmp_path):
    train(tiny(data, tmp_path / "run", images=2 * BATCH))
    train(tiny(data, tmp_path / "run", images=4 * BATCH, resume=True))
    for name in ("checkpoint.safetensors", "training.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (finished / name).read_bytes()


def test_a_finished_run_stays_as_it_is(data, finished):
    before = (finished / "training.safetensors").read_bytes()
    train(tiny(data, finished, images=4 * BATCH, resume=True))
    assert (finished / "training.safetensors").read_bytes() == before


@pytest.mark.parametrize("missing", [[], ["checkpoint"], ["strip", "samples", "photographs", "tensorboard"]])
def test_a_finished_run_says_so_and_makes_again_what_is_missing(data, finished, tmp_path, capsys, missing):
    out = shutil.copytree(finished, tmp_path / "run")
    before = {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for name in missing:
        for path in out.glob(f"{name}*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    train(tiny(data, out, images=4 * BATCH, resume=True))
    said = capsys.readouterr().err
    assert f"{out} has already seen {4 * BATCH} images; give a larger --images" in said
    after = {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    del before[Path("environment.json")], after[Path("environment.json")]
    assert after == before


@pytest.mark.parametrize("content", [b"", b"x" * 1000])
def test_a_damaged_checkpoint_is_written_again_from_the_state(data, finished, tmp_path, content):
    out = shutil.copytree(finished, tmp_path / "run")
    (out / "checkpoint.safetensors").write_bytes(content)
    train(tiny(data, out, images=4 * BATCH, resume=True))
    assert (out / "checkpoint.safetensors").read_bytes() == (finished / "checkpoint.safetensors").read_bytes()


def test_a_run_is_not_resumed_on_other_photographs(data, finished, tmp_path):
    """The other photographs have the same number and the same licences."""
    other = Path(shutil.copytree(data, tmp_path / "other"))
    dataset = json.loads((other / "dataset.json").read_text())
    dataset["shards"]["train-000000.tar"]["sha256"] = "0" * 64
    (other / "dataset.json").write_text(json.dumps(dataset))
    out = shutil.copytree(finished, tmp_path / "run")
    with pytest.raises(InputError, match=r"started with other settings \(data\)"):
        train(tiny(str(other), out, images=6 * BATCH, resume=True))
    moved = shutil.copytree(data, tmp_path / "moved")
    train(tiny(str(moved), out, images=4 * BATCH, resume=True))


@pytest.mark.parametrize(
    ("environment", "told"), [('{"processes": 2}', True), ('{"processes": 1}', False), ("{", False)]
)
def test_another_number_of_processes_is_told(data, finished, tmp_path, capsys, environment, told):
    """The order of the photographs depends on it."""
    out = Path(shutil.copytree(finished, tmp_path / "run"))
    (out / "environment.json").write_text(environment)
    train(tiny(data, out, images=4 * BATCH, resume=True))
    assert ("Processes: 2 before, 1 now; from now on" in capsys.readouterr().err) == told


def test_a_folder_in_use_is_refused(data, finished, tmp_path, capsys):
    """This holds for a resumed run and for a new one; and the folder stays as it is."""
    out = shutil.copytree(finished, tmp_path / "run")
    with locked(str(out)):
        before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
        flags = ["train", "--data", data, "--preset", "tiny", "--out", str(out), "--images", "96"]
        assert run([*flags, "--resume"]) == 2
        assert "is in use by another run" in capsys.readouterr().err
        assert run(flags) == 2
        assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_a_run_that_has_lost_its_folder_writes_there_no_more(data, finished, tmp_path, monkeypatch):
    out = Path(shutil.copytree(finished, tmp_path / "run"))
    step = Trainer.step

    def step_without_lock(self, *arguments):
        (out / "lock.json").unlink()
        return step(self, *arguments)

    monkeypatch.setattr(Trainer, "step", step_without_lock)
    state = (out / "training.safetensors").read_bytes()
    with pytest.raises(InputError, match="is no longer locked by this run"):
        train(tiny(data, out, images=5 * BATCH, resume=True))
    assert (out / "training.safetensors").read_bytes() == state


def shown(out):
    """Returns the images seen at each tick, by the log, by TensorBoard, and by each kind of picture."""
    log = [json.loads(line)["images"] for line in (out / "log.jsonl").read_text().splitlines()]
    curves = [int(path.name.rsplit(".", 1)[1]) for path in sorted((out / "tensorboard").iterdir())]
    pictures = [[int(path.stem.rsplit("-", 1)[1]) for path in sorted(out.glob(f"{x}-*"))] for x in ("samples", "strip")]
    return log, curves, *pictures


def test_a_run_that_ends_at_any_write_goes_on_as_if_it_had_not(data, finished, tmp_path, monkeypatch):
    """The disk is full at the first write of the resumed run, then at the second, and so on to the last."""
    out, write = tmp_path / "run", run_folder.write_bytes
    train(tiny(data, out, images=3 * BATCH))
    for writes in range(30):
        left = iter(range(writes))

        def write_while_there_is_room(url, content, left=left):
            if next(left, None) is None:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), url)
            write(url, content)

        monkeypatch.setattr(run_folder, "write_bytes", write_while_there_is_room)
        with suppress(OSError):
            train(tiny(data, out, images=4 * BATCH, resume=True))
            break
    assert 10 <= writes < 29
    assert shown(out) == 4 * ([3 * BATCH, 4 * BATCH],)
    for name in ("checkpoint.safetensors", "training.safetensors"):
        assert (out / name).read_bytes() == (finished / name).read_bytes()


def test_after_a_kill_all_that_shows_the_run_agrees_with_its_log(data, tmp_path, monkeypatch):
    """The kill comes when a tick is shown but not yet saved; the resumed run ticks elsewhere."""
    out = tmp_path / "run"
    train(tiny(data, out, images=BATCH))
    with monkeypatch.context() as patch:
        patch.setattr(pipelines.training_run.Run, "save", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(tiny(data, out, images=2 * BATCH, resume=True))
    assert shown(out)[1:] == 3 * ([BATCH, 2 * BATCH],)
    train(tiny(data, out, images=BATCH, resume=True))
    assert shown(out) == 4 * ([BATCH],)
    train(tiny(data, out, images=3 * BATCH, resume=True))
    assert shown(out) == 4 * ([BATCH, 3 * BATCH],)


def start(data, out, *flags):
    """Starts the command in a separate process, saving after every step; returns once it has saved."""
    program = "from pipelines import cli, training_run; training_run.TICK_S = 0.0; cli.main(sys.argv[1:])"
    process = forks.Fork(program, "train", "--data", data, "--out", out, "--preset", "tiny", "--batch", BATCH, *flags)
    for _ in range(600):
        log = out / "log.jsonl"
        if (log.exists() and log.read_text()) or process.ended:
            break
        time.sleep(0.1)
    return process


@pytest.mark.slow
def test_a_killed_run_goes_on(data, finished, tmp_path):
    out = tmp_path / "run"
    process = start(data, out)
    process.send(signal.SIGKILL)
    code, said = process.end()
    assert code == -signal.SIGKILL, said
    seen = json.loads((out / "log.jsonl").read_text().splitlines()[-1])["images"]
    goal = max(4 * BATCH, seen)
    train(tiny(data, out, images=goal, resume=True))
    if goal == 4 * BATCH:
        assert (out / "checkpoint.safetensors").read_bytes() == (finished / "checkpoint.safetensors").read_bytes()
    assert load_checkpoint((out / "checkpoint.safetensors").read_bytes(), "").provenance["images_seen"] == goal


def test_a_run_killed_before_its_first_step_keeps_its_start(data, finished, tmp_path, monkeypatch):
    init = str(finished / "checkpoint.safetensors")
    monkeypatch.setattr(pipelines.training_run.Run, "go", lambda self, stream: None)
    train(tiny(data, tmp_path / "run", init=init))
    resumed = train(tiny(data, tmp_path / "run", resume=True))
    assert resumed.images == 4 * BATCH
    started = load_checkpoint((finished / "checkpoint.safetensors").read_bytes(), "").generator.state_dict()
    assert all(torch.equal(x, started[name]) for name, x in resumed.ema.state_dict().items())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_finishes_its_step_and_saves(data, tmp_path, number):
    process = start(data, tmp_path / "run")
    process.send(number)
    code, errors = process.end()
    assert code == 130, errors
    assert errors.strip().splitlines()[-1] == "infinitygan: interrupted"
    last = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])["images"]
    content = (tmp_path / "run" / "checkpoint.safetensors").read_bytes()
    assert load_checkpoint(content, "").provenance["images_seen"] == last


def test_a_terminal_that_is_gone_is_spoken_to_without_an_error(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as gone:
        monkeypatch.setattr(sys, "stderr", gone)
        for _ in range(2):
            pipelines.training_run.say("16 images")
        print("infinitygan: interrupted", file=sys.stderr, flush=True)


def test_a_signal_that_is_ignored_stays_so():
    """Under nohup, a run outlives its terminal."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with pipelines.training_run.stop_between_steps() as asked:
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGTERM)
        assert asked == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


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
    size = ["--preset", "tiny", "--batch", str(BATCH), "--images", "64"]
    assert run(["train", "--data", data, "--out", str(tmp_path / "run"), *size, "--resume"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "infinitygan: training diverged at image 16"
    assert (tmp_path / "run" / "training.safetensors").read_bytes() == good


def test_a_state_that_is_not_finite_never_replaces_one_that_is(data, tmp_path, monkeypatch):
    train(tiny(data, tmp_path / "run", images=BATCH))
    good = (tmp_path / "run" / "training.safetensors").read_bytes()
    step = Trainer.step

    def poison(self, *arguments):
        losses = step(self, *arguments)
        next(self.generator.parameters()).data.view(-1)[0] = torch.nan
        return losses

    monkeypatch.setattr(Trainer, "step", poison)
    with pytest.raises(DivergenceError, match=r"the first is generator.structure.*; resume from the last"):
        train(tiny(data, tmp_path / "run", images=2 * BATCH, resume=True))
    assert (tmp_path / "run" / "training.safetensors").read_bytes() == good


def test_the_best_checkpoint_is_that_of_the_least_measure(data, tmp_path, monkeypatch):
    """This holds across a restart, because earlier measures are in the log."""
    monkeypatch.setattr(pipelines.training_run, "TICK_S", 0.0)
    measures = iter([3.0, 1.0, 2.0, 1.5])
    best = tmp_path / "run" / "best.safetensors"
    train(tiny(data, tmp_path / "run", images=2 * BATCH), lambda generator: next(measures))
    assert load_checkpoint(best.read_bytes(), "").provenance["images_seen"] == 2 * BATCH
    train(tiny(data, tmp_path / "run", images=4 * BATCH, resume=True), lambda generator: next(measures))
    assert load_checkpoint(best.read_bytes(), "").provenance["images_seen"] == 2 * BATCH
    previous = load_checkpoint((tmp_path / "run" / "previous.safetensors").read_bytes(), "")
    assert previous.provenance["images_seen"] == 3 * BATCH


def test_a_shard_that_cannot_be_read_is_told_or_fatal(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("transforms.training.shard_reader.RETRY_AFTER_S", (0.0,))
    copy = shutil.copytree(data, tmp_path / "copy")
    (copy / "train-000003.tar").write_bytes(b"")
    train(tiny(str(copy), tmp_path / "run", images=BATCH))
    assert "train-000003.tar is skipped: its checksum differs from that in dataset.json" in capsys.readouterr().err
    assert json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])["skipped_shards"] == 1
    with pytest.raises(InputError, match=r"train-000003.tar is damaged"):
        train(tiny(str(copy), tmp_path / "strict", images=BATCH, strict=True))


def test_an_ablation_is_trained_and_not_rendered_by_tiles(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(PRESETS_BY_NAME, "tiny-nci", ablation(PRESETS["tiny"], "nci"))
    monkeypatch.setattr("pipelines.train.PRESETS", PRESETS_BY_NAME)
    train(tiny(data, tmp_path / "run", images=BATCH, preset="tiny-nci"))
    checkpoint = str(tmp_path / "run" / "checkpoint.safetensors")
    flags = ["--checkpoint", checkpoint, "--width", "256", "--height", "128", "--out", str(tmp_path / "out")]
    assert run(["render", *flags]) == 2
    assert "a nci network renders in one shot only" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def under_torchrun(data, out, *flags):
    """Returns the job by torchrun, on two processes of this machine, over gloo."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "pipelines.train", "--data", data, "--out", str(out), "--preset", "tiny", *flags]
    done = subprocess.run(
        command, cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def as_under_torchrun(data, out, *flags):
    """Returns the same in processes that cost less, and are told what torchrun tells its own."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    told = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0"}
    told |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    words = ("train", "--data", data, "--out", out, "--preset", "tiny", *flags)
    program = "from pipelines.cli import main; main(sys.argv[1:])"
    processes = [forks.Fork(program, *words, **told, RANK=rank, LOCAL_RANK=rank) for rank in ("0", "1")]
    for process in processes:
        code, said = process.end()
        assert code == 0, said


@pytest.mark.slow
def test_two_processes_train_together_and_resume(data, tmp_path):
    """The resumed run is equal bit for bit, as with one process."""
    as_under_torchrun(data, tmp_path / "whole", "--images", "32")
    under_torchrun(data, tmp_path / "parts", "--images", "16")
    as_under_torchrun(data, tmp_path / "parts", "--images", "32", "--resume")
    for name in ("checkpoint.safetensors", "training.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()
    assert json.loads((tmp_path / "whole" / "environment.json").read_text())["processes"] == 2
    log = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert [entry["images"] for entry in log] == [32]


def test_a_training_set_of_either_version_is_read_once(data, tmp_path, files_read):
    train(tiny(data, tmp_path / "run", images=BATCH))
    assert (files_read["dataset.json"], files_read["index.parquet"]) == (1, 0), "the index is read in parts"
    files_read.clear()
    old = shutil.copytree(data, tmp_path / "version 1")
    write_as_version_1(old)
    train(tiny(str(old), tmp_path / "run", resume=True))
    assert (files_read["dataset.json"], files_read["index.parquet"]) == (1, 0), "the index is read in parts"


@pytest.mark.parametrize("name", ["bfloat16", "bf16"])
def test_a_precision_has_one_name_whatever_it_is_spelt_like(tmp_path, name):
    """The name is that of ``render``; a run's folder says bf16, as it always has."""
    options = tiny(data="set", out=tmp_path / "run", precision=name)
    assert (options.precision, options.settings.precision) == ("bfloat16", "bf16")
    assert RenderOptions((), "out", precision=name).precision == "bfloat16"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "huge"}, "--preset huge: choose paper or paper-197 or"),
        ({"recipe": "secret"}, "--recipe secret"),
        ({"images": 0}, "--images 0"),
        ({"minutes": -1.0}, "--minutes -1.0"),
        ({"minutes": float("nan")}, "--minutes nan"),
        ({"seed": -1}, "seed is -1"),
        ({"data": "nowhere"}, "nowhere is not a training set"),
        ({"init": "nowhere.safetensors"}, "--init nowhere.safetensors"),
        ({"init": "bundled"}, "another preset"),
        ({"init": "."}, r"--init \. is a folder; give a \.safetensors file"),
        ({"resume": True}, "holds no run to resume"),
        ({"precision": "half"}, "--precision half: choose float32 or tf32 or bfloat16"),
        ({"vertical_law": "newton"}, "--vertical-law newton: choose crop or paper"),
        ({"batch": 0}, "batch is 0"),
        ({"accumulate": 3}, "accumulate is 3; it must divide the batch, 4"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(data, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        train(tiny(**{"data": data, "out": tmp_path / "run", **options}))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"images": None}, 800_000 * BATCH), ({"images": None, "minutes": 1e-4}, None), ({}, 2 * BATCH)],
)
def test_without_an_end_of_its_own_a_run_ends_where_its_recipe_does(data, tmp_path, monkeypatch, options, expected):
    ends = []
    monkeypatch.setattr(pipelines.training_run.Run, "go", lambda self, stream: ends.append(self.images))
    train(tiny(data, tmp_path / "run", **options))
    assert ends == [expected]


def test_a_run_is_not_overwritten(data, finished):
    with pytest.raises(InputError, match="--resume"):
        train(tiny(data, finished))


def test_the_command_line_names_a_missing_flag(capsys):
    assert run(["train", "--out", "run"]) == 2
    assert capsys.readouterr().err == "infinitygan: Missing option '--data'.\n"
    assert pipelines.training_run.TICK_S > 0
