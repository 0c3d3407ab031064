"""Train: streamed shards in, a run folder with checkpoints out."""

import dataclasses
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
import typer

from model import checkpoint as files
from model.bundled import resolve
from model.checks import is_count
from model.config import DEFAULT_RECIPE, PRESETS, RECIPES, GeneratorConfig, TrainingConfig
from model.errors import InputError
from model.memory import reuse_freed_memory
from model.training import Trainer
from model.version import __version__
from pipelines.progress import track
from transforms.previews import GRID, grid, sample_grid, strip
from transforms.run_folder import RunFolder, state_beside
from transforms.storage import exists, join, read_bytes
from transforms.stream import PatchBatch, PatchStream
from transforms.training_shards import DATASET, read_dataset, read_index

TICK_S = 300.0


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """What a person asks of a training run.

    Attributes:
        data: URL of the training set.
        out: URL of the run folder.
        preset: names the network.
        recipe: names the settings; the preset's own by default.
        images: stop after as many photographs.
        minutes: stop after as many minutes.
        init: checkpoint to start from, or "bundled".
        resume: go on with the run in `out`.
        seed: of everything random.
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

    def __post_init__(self) -> None:
        if not self.out:
            raise InputError("--out is empty; give a folder or URL")
        if exists(join(self.out, DATASET)):
            raise InputError(f"--out {self.out} holds a training set; choose another folder")
        for name, value, choices in (("preset", self.preset, PRESETS), ("recipe", self.recipe, RECIPES)):
            if value is not None and value not in choices:
                raise InputError(f"--{name} {value}: choose {' or '.join(choices)}")
        if self.images is not None and self.images < 1:
            raise InputError(f"--images {self.images}: give 1 or more, or leave it away")
        if self.minutes is not None and not 0 < self.minutes < 1e6:
            raise InputError(f"--minutes {self.minutes}: give a positive number, or leave it away")

    @property
    def network(self) -> GeneratorConfig:
        """The preset's configuration."""
        return PRESETS[self.preset]

    @property
    def settings(self) -> TrainingConfig:
        """The recipe's configuration."""
        return dataclasses.replace(RECIPES[self.recipe or DEFAULT_RECIPE[self.preset]], seed=self.seed)


def train(options: TrainOptions) -> Trainer:
    """Trains until the images or minutes asked for are reached, or for ever.

    Raises:
        InputError: something asked for does not fit; nothing was written.
        DivergenceError: a loss is no longer finite; the run folder holds the last good state.
    """
    reuse_freed_memory()
    settings, network = options.settings, options.network
    stream = PatchStream(options.data, network.patch_px, network.full_px, options.seed)
    folder = RunFolder(options.out)
    trainer = Trainer(network, settings, "cuda" if torch.cuda.is_available() else "cpu")
    parent = folder.read_config().get("init") if options.resume else start_from(trainer, options.init)
    run = Run(trainer, folder, options, provenance(options, parent))
    config = {"generator": dataclasses.asdict(network), "training": dataclasses.asdict(settings), **run.provenance}
    folder.begin(config, options.resume)
    if options.resume:
        run.resume()
    else:
        run.save()  # so that a run killed at once goes on from where it started
    run.go(stream)
    return trainer


class Run:
    """One run: its trainer, its folder, its log and its clock."""

    def __init__(self, trainer: Trainer, folder: RunFolder, options: TrainOptions, provenance: dict[str, Any]):
        self.trainer, self.folder, self.options, self.provenance = trainer, folder, options, provenance
        self.log: list[dict[str, Any]] = []
        self.images_this_run = 0

    def resume(self) -> None:
        """Takes up the run's last state."""
        content = self.folder.read_state()
        header, tensors = files.load(files.TRAINING_STATE, content, f"the state of {self.folder.url}")
        steps, before = header.get("steps"), header.get("images_before")
        if not (is_count(steps) and is_count(before)):
            raise InputError(f"the state of {self.folder.url} is damaged; start a new run with --init")
        self.trainer.load_state(tensors, steps, before)
        self.log = self.folder.read_log(self.trainer.images)

    def go(self, stream: PatchStream) -> None:
        """Trains to the end, saving at every tick, at the end and when interrupted."""
        batch = self.trainer.config.batch
        self.images_this_run = self.trainer.steps * batch
        settings = self.trainer.config
        edge_after = settings.beyond_after - self.trainer.images_before
        stream = dataclasses.replace(stream, edge_share=settings.beyond_share, edge_after=edge_after)
        batches = stream.batches(batch, after=self.images_this_run)
        photographs = next(stream.batches(GRID * GRID)).pixels
        self.folder.write_picture("photographs.png", grid(torch.from_numpy(photographs)))
        with self.shown(), stop_between_steps() as asked:
            self.loop(batches, asked)
        if asked:
            raise KeyboardInterrupt

    def shown(self) -> AbstractContextManager[None]:
        """Progress: in images, or in seconds where only the time is limited."""
        if self.options.images is None and self.options.minutes is not None:
            start = time.monotonic()
            return track("Seconds of training", round(60 * self.options.minutes), lambda: int(time.monotonic() - start))
        return track("Images", self.options.images or 0, lambda: self.images_this_run)

    def loop(self, batches: Iterator[PatchBatch], asked_to_stop: Sequence[int]) -> None:
        """Steps and ticks."""
        start = last_tick = time.monotonic()
        losses: list[Mapping[str, float]] = []
        done = self.ended(start)
        while not done:
            batch = next(batches)
            patches, t = torch.from_numpy(batch.pixels), torch.from_numpy(batch.vertical_positions)
            losses.append(self.trainer.step(patches, t))
            self.images_this_run += self.trainer.config.batch
            done = self.ended(start) or bool(asked_to_stop)
            since_tick = time.monotonic() - last_tick
            if done or since_tick >= TICK_S:
                self.tick(losses, since_tick)
                losses, last_tick = [], time.monotonic()

    def ended(self, start: float) -> bool:
        """Whether enough has been done."""
        images, minutes = self.options.images, self.options.minutes
        enough_images = images is not None and self.images_this_run >= images
        return enough_images or (minutes is not None and time.monotonic() - start >= 60 * minutes)

    def tick(self, losses: list[Mapping[str, float]], seconds: float) -> None:
        """Logs the mean losses since the last tick, draws samples and saves."""
        names = sorted({name for entry in losses for name in entry})
        means = {name: float(np.mean([entry[name] for entry in losses if name in entry])) for name in names}
        rate = len(losses) * self.trainer.config.batch / seconds
        self.log.append({"images": self.trainer.images, "images_per_s": round(rate, 2), **means})
        images = self.trainer.images
        self.folder.write_picture(f"samples-{images:08d}.png", sample_grid(self.trainer.ema))
        self.folder.write_picture(f"strip-{images:08d}.png", strip(self.trainer.ema))
        self.save()
        summary = ", ".join(f"{name} {value:.3f}" for name, value in means.items())
        print(f"{images} images, {rate:.1f}/s: {summary}", file=sys.stderr, flush=True)

    def save(self) -> None:
        """Writes the checkpoint, the log and the training state."""
        trainer = self.trainer
        provenance = {**self.provenance, "images_seen": trainer.images}
        checkpoint = files.save_checkpoint(trainer.ema.state_dict(), trainer.generator_config, provenance, "unstated")
        header = {"steps": trainer.steps, "images_before": trainer.images_before}
        self.folder.write_log(self.log)
        self.folder.write_state(checkpoint, files.save(files.TRAINING_STATE, trainer.state(), header))


@contextmanager
def stop_between_steps() -> Iterator[list[int]]:
    """Ctrl-C and a request to terminate end up in the list, so that the step under way is finished and saved."""
    asked: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, lambda number, frame: asked.append(number)) for number in signals}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def start_from(trainer: Trainer, init: str | None) -> dict[str, Any] | None:
    """Takes over another run's networks, with its training state where one lies beside the checkpoint.

    Returns:
        What the checkpoint is, for the provenance of what follows.
    """
    if init is None:
        return None
    url = resolve(init)
    if not exists(url):
        raise InputError(f"--init {init}: there is no such file")
    found = files.load_checkpoint(read_bytes(url), url)
    if found.generator.config != trainer.generator_config:
        raise InputError(f"--init {init}: its network is of another preset; choose the --preset it was trained with")
    networks = {"ema": found.generator.state_dict(), "generator": found.generator.state_dict()}
    tensors = {f"{name}.{key}": x for name, state in networks.items() for key, x in state.items()}
    tensors |= {f"discriminator.{key}": x for key, x in trainer.discriminator.state_dict().items()}
    beside = state_beside(url)
    if exists(beside):
        tensors |= files.load(files.TRAINING_STATE, read_bytes(beside), beside)[1]
    trainer.load_state(tensors, steps=0, images_before=found.provenance.get("images_seen", 0))
    return {"sha256": found.sha256, "images_seen": trainer.images_before}


def provenance(options: TrainOptions, parent: dict[str, Any] | None) -> dict[str, Any]:
    """What a checkpoint of this run says of itself, but for the images seen."""
    dataset = read_dataset(options.data)
    licences = Counter(row["licence"] or "unstated" for row in read_index(options.data) if row["split"] == "train")
    return {
        "version": __version__,
        "preset": options.preset,
        "recipe": options.settings.recipe,
        "data": {"samples": dataset["samples"], "licences": dict(sorted(licences.items()))},
        "init": parent,
    }


def train_command(
    data: Annotated[str, typer.Option(help="Training set made by ingest; folder or URL.")],
    out: Annotated[str, typer.Option(help="Folder or URL for the run.")],
    preset: Annotated[str, typer.Option(help=f"Network: {', '.join(PRESETS)}.")] = "small",
    recipe: Annotated[
        str | None, typer.Option(help=f"Settings: {', '.join(RECIPES)}.", show_default="the preset's")
    ] = None,
    images: Annotated[int | None, typer.Option(help="Stop when this run has seen so many photographs.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Stop after so many minutes.")] = None,
    init: Annotated[str | None, typer.Option(help="Checkpoint to start from, or bundled.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
) -> None:
    """Trains a generator from shards; what it leaves in --out explains itself."""
    train(TrainOptions(data, out, preset, recipe, images, minutes, init, resume, seed))


if __name__ == "__main__":
    from pipelines.cli import main

    main(["train", *sys.argv[1:]])
