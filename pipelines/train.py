"""Train: streams shards and writes a run folder with checkpoints."""

import dataclasses
import os
import platform
import sys
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass
from importlib import metadata
from typing import cast

import torch

from model import checkpoint as files
from model.bundled import resolve
from model.checkpoint import Parent, Provenance
from model.config import (
    PRECISIONS,
    PRESETS,
    RECIPES,
    VERTICAL_LAWS,
    GeneratorConfig,
    TrainingConfig,
    default_recipe,
    precision_name,
    recipe_for,
)
from model.errors import InputError
from model.memory import reuse_freed_memory
from model.training.processes import Processes, launch
from model.training.trainer import Trainer
from model.version import __version__
from pipelines.terminal.progress import say
from pipelines.training_run import Metric, Run
from transforms.storage.files import exists, join
from transforms.storage.tensor_files import read_tensors
from transforms.training.run_folder import CHECKPOINT, RunConfig, RunFolder, state_beside
from transforms.training.run_lock import locked
from transforms.training.shard_reader import Shards, set_checksum
from transforms.training.stream import PatchStream
from transforms.training_set.dataset import DATASET, Dataset, check_fits, read_dataset, read_index

PACKAGES = ("torch", "numpy", "pillow", "webdataset", "fsspec", "safetensors")
"""The packages that determine what a run computes."""


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """The options of a training run.

    Attributes:
        data: The URL of the training set.
        out: The URL of the run folder.
        preset: The name of the network.
        recipe: The name of the training settings; by default the preset's own.
        images: Stop after this many photographs.
        minutes: Stop after this many minutes.
        init: The checkpoint to start from, or "bundled".
        resume: Whether to resume the run in `out`.
        seed: The random seed.
        batch: The number of photographs per step, over all processes; by default the recipe's.
        accumulate: The number of parts into which each process splits its share of a batch.
        precision: The precision of convolutions and matrix products; by default float32 on a CPU and TF32 on a GPU.
        deterministic: Whether to use only GPU kernels that reproduce the same bits.
        vertical_law: How training windows are drawn along the height; "paper" to reproduce the paper.
        strict: Whether to stop if a shard cannot be read, instead of continuing without it.
    """

    data: str
    out: str
    preset: str = "small"
    recipe: str | None = None
    images: int | None = None
    minutes: float | None = None
    init: str | None = None
    resume: bool = False
    seed: int = 0
    batch: int | None = None
    accumulate: int = 1
    precision: str | None = None
    deterministic: bool = False
    vertical_law: str = "crop"
    strict: bool = False

    def __post_init__(self) -> None:
        if self.precision is not None:
            object.__setattr__(self, "precision", precision_name(self.precision))
        if not self.out:
            raise InputError("--out is empty; give a folder or URL")
        if exists(join(self.out, DATASET)):
            raise InputError(f"--out {self.out} holds a training set; choose another folder")
        for name, value, choices in (
            ("preset", self.preset, PRESETS),
            ("recipe", self.recipe, RECIPES),
            ("precision", self.precision, PRECISIONS),
            ("vertical-law", self.vertical_law, VERTICAL_LAWS),
        ):
            if value is not None and value not in choices:
                raise InputError(f"--{name} {value}: choose {' or '.join(choices)}")
        if self.images is not None and self.images < 1:
            raise InputError(f"--images {self.images}: give 1 or more, or omit it")
        if self.minutes is not None and not 0 < self.minutes < 1e6:
            raise InputError(f"--minutes {self.minutes}: give a positive number, or omit it")

    @property
    def network(self) -> GeneratorConfig:
        """Returns the preset's configuration."""
        return dataclasses.replace(PRESETS[self.preset], vertical_law=self.vertical_law)

    @property
    def settings(self) -> TrainingConfig:
        """Returns the recipe's configuration with these options applied."""
        recipe = recipe_for(self.network, self.recipe or default_recipe(self.preset))
        return dataclasses.replace(
            recipe,
            batch=recipe.batch if self.batch is None else self.batch,
            accumulate=self.accumulate,
            precision=PRECISIONS[self.precision or ("tf32" if torch.cuda.is_available() else "float32")],
            seed=self.seed,
        )


def train(options: TrainOptions, metric: Metric | None = None) -> Trainer:
    """Trains until the given number of images or minutes; with neither, for the recipe's number of steps.

    Args:
        options: The options of the run.
        metric: Measures the averaged generator at each tick; lower is better. The best checkpoint is kept.

    Raises:
        InputError: An option does not fit. Nothing was written.
        DivergenceError: A loss is no longer finite. The run folder holds the last good state.
    """
    reuse_freed_memory()
    settings, network = options.settings, options.network
    processes = launch(settings.precision, options.deterministic)
    trainer = Trainer(network, settings, processes)
    dataset = read_dataset(options.data)
    check_fits(options.data, dataset, network.patch_px, network.full_px, processes.count)
    stream = PatchStream(
        Shards(options.data, dataset["shards"], options.strict),
        network.patch_px,
        network.full_px,
        options.seed,
        beyond_share=settings.beyond_share,
        rank=processes.rank,
        ranks=processes.count,
    )
    folder = RunFolder(options.out)
    parent = folder.read_config().get("init") if options.resume else start_from(trainer, options.init)
    origin = provenance(options, dataset, parent)
    parts = {"generator": dataclasses.asdict(network), "training": dataclasses.asdict(settings)}
    config = cast(RunConfig, parts | origin)
    images = options.images
    if images is None and options.minutes is None and settings.iterations:
        images = settings.iterations * settings.batch
    with locked(options.out) if processes.rank == 0 else nullcontext(lambda: None) as still_ours:
        run = Run(trainer, folder, origin, images, options.minutes, metric, still_ours)
        if processes.rank == 0:
            folder.begin(config, options.resume)
            tell_processes(folder.read_environment().get("processes"), processes.count)
            folder.write_environment(environment(options, processes))
        processes.wait()
        if options.resume:
            run.resume()
        elif processes.rank == 0:
            run.save()  # a run killed right away can then be resumed from its start
        run.go(stream)
    return trainer


def tell_processes(before: object, now: int) -> None:
    """Reports that a run resumes with another number of processes, because photographs then come in another order."""
    if before is not None and before != now:
        say(f"Processes: {before!r} before, {now} now; from now on the photographs come in another order")


def start_from(trainer: Trainer, init: str | None) -> Parent | None:
    """Loads another run's networks, and its training state if it is stored next to the checkpoint.

    Returns:
        A description of the checkpoint, for the provenance of this run.
    """
    if init is None:
        return None
    url = resolve(init)
    found = files.load_checkpoint(read_tensors(url, "--init", usual=CHECKPOINT), url)
    if found.generator.config != trainer.generator_config:
        raise InputError(f"--init {init}: it belongs to another preset; choose the --preset it was trained with")
    networks = {"ema": found.generator.state_dict(), "generator": found.generator.state_dict()}
    tensors = {f"{name}.{key}": x for name, state in networks.items() for key, x in state.items()}
    tensors |= {f"discriminator.{key}": x for key, x in trainer.discriminator.state_dict().items()}
    beside = state_beside(url)
    if exists(beside):
        tensors |= files.load_state(read_tensors(beside, "the state"), beside)[1]
    trainer.load_state(tensors, steps=0, images_before=found.provenance.get("images_seen", 0))
    return {"sha256": found.sha256, "images_seen": trainer.images_before}


def provenance(options: TrainOptions, dataset: Dataset, parent: Parent | None) -> Provenance:
    """Describes the origin of this run's checkpoints, except for the number of images seen."""
    licences = Counter(row["licence"] or "unstated" for row in read_index(options.data) if row["split"] == "train")
    return {
        "version": __version__,
        "preset": options.preset,
        "recipe": options.settings.recipe,
        "data": {
            "sha256": set_checksum(dataset["shards"]),
            "samples": dataset["samples"],
            "licences": dict(sorted(licences.items())),
        },
        "init": parent,
    }


def environment(options: TrainOptions, processes: Processes) -> dict[str, object]:
    """Describes the options, packages and hardware of a run."""
    gpu = processes.device.type == "cuda"
    return {
        "options": dataclasses.asdict(options),
        "python": platform.python_version(),
        "packages": packages(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(processes.device) if gpu else platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "processes": processes.count,
    }


def packages() -> dict[str, str]:
    """Returns the versions of the packages. Torch reports its own build, which its metadata may omit."""
    versions = {name: metadata.version(name) for name in PACKAGES}
    return {"infinitygan": __version__, **versions, "torch": str(torch.__version__)}


if __name__ == "__main__":
    from pipelines.cli import main

    main(["train", *sys.argv[1:]])
