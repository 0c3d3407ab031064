"""Train: streams shards and writes a run folder with checkpoints."""

import dataclasses
import os
import platform
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from importlib import metadata
from typing import Any, cast

import torch

from model import checkpoint as files
from model.bundled import BUNDLED, resolve
from model.checkpoint import Checkpoint, DetailParent, Parent, Provenance
from model.checks import is_count
from model.config import (
    DETAIL,
    DETAIL_RECIPE,
    DETAIL_STAGE,
    PRECISIONS,
    PRESETS,
    RECIPES,
    VERTICAL_LAWS,
    DetailTrainingConfig,
    GeneratorConfig,
    TrainingConfig,
    check_tileable,
    default_recipe,
    generator_config,
    precision_name,
    recipe_for,
)
from model.errors import InputError
from model.memory import reuse_freed_memory
from model.networks.detail import FACTOR
from model.training.detail import DetailTrainer
from model.training.processes import Processes, launch
from model.training.trainer import Trainer
from model.version import __version__
from pipelines.detail_run import DetailRun
from pipelines.terminal.progress import say
from pipelines.training_run import Metric, Run
from transforms.storage.files import exists, join
from transforms.storage.tensor_files import read_tensors
from transforms.training.run_folder import CHECKPOINT, RunConfig, RunFolder, state_beside
from transforms.training.run_lock import locked
from transforms.training.shard_reader import Shards, set_checksum
from transforms.training.stream import PatchStream
from transforms.training_set.dataset import DATASET, Dataset, check_fits, count_licences, read_dataset

PACKAGES = ("torch", "numpy", "pillow", "webdataset", "fsspec", "safetensors")
"""The packages that determine what a run computes."""


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """The options of a training run.

    Attributes:
        data: The URL of the training set.
        out: The URL of the run folder.
        preset: The name of the network; "detail" for a detail stage of the generator that `init` names.
        recipe: The name of the training settings; by default the preset's own.
        images: Stop after this many photographs.
        minutes: Stop after this many minutes.
        init: The checkpoint to start from, or "bundled", which is also where a detail stage's generator comes from.
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
            ("preset", self.preset, (*PRESETS, DETAIL)),
            ("recipe", self.recipe, RECIPES),
            ("precision", self.precision, PRECISIONS),
            ("vertical-law", self.vertical_law, VERTICAL_LAWS),
        ):
            if value is not None and value not in choices:
                raise InputError(f"--{name} {value}: choose {' or '.join(choices)}")
        if self.preset == DETAIL:
            self.check_detail()
        if self.images is not None and self.images < 1:
            raise InputError(f"--images {self.images}: give 1 or more, or omit it")
        if self.minutes is not None and not 0 < self.minutes < 1e6:
            raise InputError(f"--minutes {self.minutes}: give a positive number, or omit it")

    def check_detail(self) -> None:
        """Raises InputError for an option that the training of a detail stage does not have."""
        plain = {field.name: field.default for field in dataclasses.fields(self)}
        for name in ("recipe", "accumulate", "vertical_law"):
            value = getattr(self, name)
            if value != plain[name]:
                flag = name.replace("_", "-")
                raise InputError(f"--{flag} {value}: the preset {DETAIL} has no such setting; omit it")

    @property
    def detail_settings(self) -> DetailTrainingConfig:
        """Returns the configuration of a detail stage's run."""
        batch = DETAIL_RECIPE.batch if self.batch is None else self.batch
        return dataclasses.replace(DETAIL_RECIPE, batch=batch, precision=self.products, seed=self.seed)

    @property
    def products(self) -> str:
        """Returns the precision of products as a configuration names it."""
        return PRECISIONS[self.precision or ("tf32" if torch.cuda.is_available() else "float32")]

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
            precision=self.products,
            seed=self.seed,
        )


def train(options: TrainOptions, metric: Metric | None = None) -> Trainer | DetailTrainer:
    """Trains until the given number of images or minutes; with neither, for the recipe's number of steps.

    Args:
        options: The options of the run.
        metric: Measures the averaged generator at each tick; lower is better. The best checkpoint is kept.

    Raises:
        InputError: An option does not fit. Nothing was written.
        DivergenceError: A loss is no longer finite. The run folder holds the last good state.
    """
    reuse_freed_memory()
    processes = launch(options.products, options.deterministic)
    folder = RunFolder(options.out)
    job = (detail_job if options.preset == DETAIL else generator_job)(options, folder, processes)
    trainer = job.trainer
    dataset = read_dataset(options.data)
    check_fits(options.data, dataset, job.patch_px, job.full_px, processes.count)
    stream = PatchStream(
        Shards(options.data, dataset["shards"], options.strict),
        job.patch_px,
        job.full_px,
        options.seed,
        beyond_share=job.beyond_share,
        rank=processes.rank,
        ranks=processes.count,
    )
    licences = count_licences(options.data, dataset) if processes.rank == 0 else Counter()
    origin = provenance(options, dataset, job, licences)
    config = cast(RunConfig, {**job.config, "training": dataclasses.asdict(trainer.config), **origin})
    images = options.images
    if images is None and options.minutes is None and job.iterations:
        images = job.iterations * trainer.config.batch
    with locked(options.out) if processes.rank == 0 else nullcontext(lambda: None) as still_ours:
        run = job.run(trainer, folder, origin, images, options.minutes, metric, still_ours)
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


@dataclass(frozen=True, slots=True)
class Job:
    """What is trained, and on which patches.

    Attributes:
        trainer: The trainer, with the networks to start from unless the run is resumed.
        run: Begins its run.
        config: The configuration of its networks, for the run folder.
        parent: A description of the checkpoint that it starts from, if any.
        recipe: The name of the training settings.
        patch_px: The side of the photographs' patches.
        full_px: The height of the photographs that they are cropped from.
        beyond_share: The share of patches cropped far from the horizon.
        iterations: The number of steps after which a run ends by default; 0 for no limit.
    """

    trainer: Trainer | DetailTrainer
    run: Callable[..., Run]
    config: dict[str, dict[str, Any]]
    parent: Parent | None
    recipe: str
    patch_px: int
    full_px: int
    beyond_share: float = 0.0
    iterations: int = 0


def generator_job(options: TrainOptions, folder: RunFolder, processes: Processes) -> Job:
    """Prepares the training of a generator."""
    settings, network = options.settings, options.network
    trainer = Trainer(network, settings, processes)
    parent = folder.read_config().get("init") if options.resume else start_from(trainer, options.init)
    return Job(
        trainer,
        Run,
        {"generator": dataclasses.asdict(network)},
        parent,
        settings.recipe,
        network.patch_px,
        network.full_px,
        settings.beyond_share,
        settings.iterations,
    )


def detail_job(options: TrainOptions, folder: RunFolder, processes: Processes) -> Job:
    """Prepares the training of a detail stage for the generator of a checkpoint."""
    settings = options.detail_settings
    if options.resume:
        config = folder.read_config()
        network, parent = generator_config(config["generator"]), config.get("init")
        if not isinstance(parent, dict) or not isinstance(parent.get("base"), dict):
            raise InputError(
                f"{options.out} holds no run of a detail stage; resume with the preset it was started with"
            )
        trainer = DetailTrainer(network, DETAIL_STAGE, settings, processes)
    else:
        url = resolve(options.init or BUNDLED)
        found = files.load_checkpoint(read_tensors(url, "--init", usual=CHECKPOINT), url)
        check_tileable(found.generator.config, url)
        network = found.generator.config
        trainer = DetailTrainer(network, DETAIL_STAGE, settings, processes)
        parent = start_detail_from(trainer, found, url)
    stages = {"generator": dataclasses.asdict(network), DETAIL: dataclasses.asdict(DETAIL_STAGE)}
    return Job(trainer, DetailRun, stages, cast(Parent, parent), DETAIL, settings.patch_px, FACTOR * network.full_px)


def images_seen(provenance: object) -> int:
    """Returns the number of images in a provenance that has not been checked; 0 if there is none."""
    images = provenance.get("images_seen") if isinstance(provenance, dict) else None
    return images if is_count(images) else 0


def start_detail_from(trainer: DetailTrainer, found: Checkpoint, url: str) -> DetailParent:
    """Loads the generator, and another run's detail stage and training state if they are there.

    Returns:
        A description of the checkpoint, with the provenance of its generator as ``base``.
    """
    tensors = {**trainer.state(), **{f"base.{key}": x for key, x in found.generator.state_dict().items()}}
    base, images = found.provenance.copy(), 0
    seen = base.pop("detail", None)
    if found.detail is not None:
        if found.detail.config != trainer.detail_config:
            raise InputError(f"--init {url}: its detail stage has another size; train one from a checkpoint without")
        stage = found.detail.state_dict()
        tensors |= {f"{name}.{key}": x for name in ("detail", "ema") for key, x in stage.items()}
        images = images_seen(seen)
        beside = state_beside(url)
        state = files.load_state(read_tensors(beside, "the state"), beside)[1] if exists(beside) else {}
        if any(name.startswith("detail.") for name in state):
            tensors |= state
    trainer.load_state(tensors, steps=0, images_before=images)
    return {"sha256": found.sha256, "images_seen": images, "base": base}


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


def provenance(options: TrainOptions, dataset: Dataset, job: Job, licences: Counter[str]) -> Provenance:
    """Describes the origin of this run's checkpoints, except for the number of images seen."""
    return {
        "version": __version__,
        "preset": options.preset,
        "recipe": job.recipe,
        "data": {
            "sha256": set_checksum(dataset["shards"]),
            "samples": dataset["samples"],
            "licences": dict(sorted(licences.items())),
        },
        "init": job.parent,
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
