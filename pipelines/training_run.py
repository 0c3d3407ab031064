"""Runs the training loop, shows its progress, and saves at every tick."""

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import numpy.typing as npt
import torch

from model import checkpoint as files
from model.checkpoint import Provenance
from model.errors import DivergenceError, InputError
from model.networks.generator import Generator
from model.training.processes import peak_bytes
from model.training.trainer import Trainer
from model.world.styles import with_mean_w
from pipelines.terminal.progress import say, track
from transforms.storage.files import join
from transforms.storage.tensor_files import read_tensors
from transforms.training.curves import events
from transforms.training.previews import GRID, grid, sample_grid, strip
from transforms.training.run_folder import BEST, CHECKPOINT, LogEntry, RunFolder, curves_name
from transforms.training.run_lock import Check
from transforms.training.stream import PatchBatch, PatchStream

TICK_S = 300.0
STOPS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
SHOWN_STEPS = 50
"""The number of steps over which the progress line averages the losses."""

Metric = Callable[[Generator], float]
"""A measure of the averaged generator; lower is better."""


COUNTED = ("images", "time_s", "skipped_shards")
"""The entries of a log line that have no curve."""


class Steps:
    """Collects the losses of steps, and the seconds spent on them and on waiting for photographs.

    Args:
        most: Keep only this many of the latest steps.
    """

    def __init__(self, most: int | None = None):
        self.entries: deque[tuple[Mapping[str, float], float, float]] = deque(maxlen=most)

    def add(self, losses: Mapping[str, float], step_s: float, wait_s: float) -> None:
        """Adds one step and the time spent waiting for its photographs."""
        self.entries.append((losses, step_s, wait_s))

    def means(self) -> dict[str, float]:
        """Returns the mean of each loss over the steps that had it."""
        losses = [entry for entry, _, _ in list(self.entries)]
        names = sorted({name for entry in losses for name in entry})
        return {name: float(np.mean([entry[name] for entry in losses if name in entry])) for name in names}

    def rates(self, batch: int) -> dict[str, float]:
        """Returns images per second, and the share of time spent waiting for photographs."""
        entries = list(self.entries)
        seconds = sum(step_s for _, step_s, _ in entries) or float("inf")
        waited = sum(wait_s for _, _, wait_s in entries)
        return {"images_per_s": round(len(entries) * batch / seconds, 2), "waiting": round(waited / seconds, 4)}


class Run:
    """One training run: its trainer, folder, log and clock.

    Args:
        trainer: The trainer.
        folder: The run folder; only the first process writes to it.
        provenance: The origin recorded in checkpoints, except for the number of images seen.
        images: The number of images after which the run ends, if any.
        minutes: The number of minutes after which this process ends, if any.
        metric: Measured at each tick; the best checkpoint is kept.
        still_ours: Raises an error if another run has taken over the folder; called before a tick is written.
    """

    def __init__(
        self,
        trainer: Trainer,
        folder: RunFolder,
        provenance: Provenance,
        images: int | None = None,
        minutes: float | None = None,
        metric: Metric | None = None,
        still_ours: Check = lambda: None,
    ):
        self.trainer, self.folder, self.provenance, self.metric = trainer, folder, provenance, metric
        self.images, self.minutes, self.still_ours = images, minutes, still_ours
        self.first = trainer.processes.rank == 0
        self.log: list[LogEntry] = []
        self.images_this_run = 0
        self.since_tick, self.lately = Steps(), Steps(SHOWN_STEPS)

    def resume(self) -> None:
        """Loads the run's last state, and makes the folder agree with it."""
        content = self.folder.read_state()
        header, tensors = files.load_state(content, f"the state of {self.folder.url}")
        self.trainer.load_state(tensors, header["steps"], header["images_before"])
        self.log = self.folder.read_log(self.trainer.images)
        if self.first:
            self.folder.drop_beyond(self.trainer.images)
            self.make_again()

    def make_again(self) -> None:
        """Restores files that are missing after a crash or deletion, as far as the state and the log allow."""
        folder, images = self.folder, self.trainer.images
        if self.images_of(CHECKPOINT) != images:
            folder.write_checkpoint(self.checkpoint())
        folder.write_log(self.log)
        for entry in self.log:
            if not folder.has(curves_name(int(entry["images"]))):
                self.write_curves(entry)
        if not self.log or self.log[-1]["images"] != images:
            return
        self.draw(missing=True)
        if is_best(self.log) and self.images_of(BEST) != images:
            folder.write_best(self.checkpoint())

    def images_of(self, name: str) -> int | None:
        """Returns the number of images that a checkpoint of the folder has seen; None if it is missing or damaged."""
        url = join(self.folder.url, name)
        try:
            return int(self.origin_in(files.load_checkpoint(read_tensors(url), url))["images_seen"])
        except (InputError, KeyError, TypeError, ValueError):
            return None

    def origin_in(self, checkpoint: files.Checkpoint) -> Provenance:
        """Returns the provenance of what this run trains from a checkpoint."""
        return checkpoint.provenance

    def go(self, stream: PatchStream) -> None:
        """Trains to the end, saving at every tick, at the end and when interrupted."""
        trainer = self.trainer
        self.images_this_run = trainer.steps * trainer.config.batch
        if self.first and self.enough_images():
            cure = "give a larger --images to continue"
            say(f"{self.folder.url} has already seen {self.images} images; {cure}")
        if self.first:
            photographs = next(self.patches(stream, GRID * GRID)).pixels
            self.folder.write_picture("photographs.png", grid(torch.from_numpy(photographs)))
        with self.shown(), stop_between_steps() as asked:
            self.loop(self.batches(stream), stream.shards.skipped, asked)
        if asked:
            raise KeyboardInterrupt

    def patches(self, stream: PatchStream, size: int, after: int = 0) -> Iterator[PatchBatch]:
        """Yields batches of patches, without the first `after` patches."""
        return stream.batches(size, after, self.trainer.patches_within_frame)

    def batches(self, stream: PatchStream) -> Iterator[PatchBatch]:
        """Yields the batch of each step: patches, or whole frames where the discriminator judges frames."""
        trainer, frames_seen = self.trainer, self.trainer.frame_steps(self.trainer.steps)
        patches_seen = (trainer.steps - frames_seen) * trainer.share
        patches = self.patches(stream, trainer.share, patches_seen)
        frames = stream.frame_batches(trainer.share, frames_seen * trainer.share)
        while True:
            yield next(frames if trainer.critic.sees_frames else patches)

    def step(self, batch: PatchBatch) -> dict[str, float]:
        """Takes one training step; returns its losses."""
        return self.trainer.step(torch.from_numpy(batch.pixels), torch.from_numpy(batch.vertical_positions))

    def shown(self) -> AbstractContextManager[None]:
        """Shows progress in images, or in seconds if only the time is limited."""
        if not self.first:
            return nullcontext()
        if self.images is None and self.minutes is not None:
            start = time.monotonic()
            seconds = round(60 * self.minutes)
            return track("Seconds of training", seconds, lambda: int(time.monotonic() - start), self.note)
        return track("Images", self.images or 0, lambda: self.images_this_run, self.note)

    def note(self) -> str:
        """Summarises the last steps in a few words."""
        if not self.lately.entries:
            return ""
        means, rates = self.lately.means(), self.lately.rates(self.trainer.config.batch)
        parts = [f"{rates['images_per_s']:.1f}/s", f"D {means['discriminator']:.2f} G {means['generator']:.2f}"]
        if "vertical_real" in means:
            parts.append(f"vertical {means['vertical_real']:.2f} real {means['vertical_fake']:.2f} fake")
        parts += [f"waiting {rates['waiting']:.0%}", f"{peak_bytes(self.trainer.device) / 2**30:.1f} GiB"]
        return ", ".join(parts)

    def loop(self, batches: Iterator[PatchBatch], skipped: Mapping[str, str], asked_to_stop: Sequence[int]) -> None:
        """Runs the steps, with a tick every `TICK_S` seconds."""
        start = last_tick = time.monotonic()
        told: set[str] = set()
        done = self.trainer.processes.anywhere(self.ended(start))
        while not done:
            begin = time.monotonic()
            batch = next(batches)
            wait_s = time.monotonic() - begin
            losses = self.step(batch)
            step_s = time.monotonic() - begin
            self.since_tick.add(losses, step_s, wait_s)
            self.lately.add(losses, step_s, wait_s)
            self.images_this_run += self.trainer.config.batch
            for name in sorted(set(skipped) - told):
                say(f"{name} is skipped: {skipped[name]}")
                told.add(name)
            done = self.trainer.processes.anywhere(self.ended(start) or bool(asked_to_stop))
            if self.first and (done or time.monotonic() - last_tick >= TICK_S):
                self.tick(len(skipped))
                last_tick = time.monotonic()

    def ended(self, start: float) -> bool:
        """Tells whether the limit on images or minutes is reached."""
        return self.enough_images() or (self.minutes is not None and time.monotonic() - start >= 60 * self.minutes)

    def enough_images(self) -> bool:
        """Tells whether the limit on images is reached."""
        return self.images is not None and self.images_this_run >= self.images

    def tick(self, skipped_shards: int) -> None:
        """Logs the mean losses since the last tick, draws samples, measures and saves."""
        trainer = self.trainer
        check_finite(trainer)
        self.still_ours()
        means = self.since_tick.means()
        values = {**self.since_tick.rates(trainer.config.batch), **means, "peak_bytes": peak_bytes(trainer.device)}
        self.since_tick = Steps()
        if self.metric is not None:
            values["metric"] = self.metric(trainer.ema)
        now = dict(zip(COUNTED, (trainer.images, round(time.time(), 1), skipped_shards), strict=True))
        self.log.append({**now, **values})
        self.draw()
        self.write_curves(self.log[-1])
        self.save()
        if is_best(self.log):
            self.folder.write_best(self.checkpoint())
        summary = ", ".join(f"{name} {value:.3f}" for name, value in means.items())
        say(f"{trainer.images} images, {values['images_per_s']:.1f}/s: {summary}")

    def draw(self, missing: bool = False) -> None:
        """Writes the current pictures, or only the missing ones."""
        for name, picture in self.pictures().items():
            file = f"{name}-{self.trainer.images:08d}.png"
            if not (missing and self.folder.has(file)):
                self.folder.write_picture(file, picture())

    def pictures(self) -> dict[str, Callable[[], npt.NDArray[np.uint8]]]:
        """Returns what draws each picture of a tick, by the beginning of its name."""
        return {"samples": lambda: sample_grid(self.trainer.ema), "strip": lambda: strip(self.trainer.ema)}

    def write_curves(self, entry: LogEntry) -> None:
        """Writes the values of a line of the log for TensorBoard."""
        values = {name: value for name, value in entry.items() if name not in COUNTED}
        images = int(entry["images"])
        self.folder.write_curves(images, events(images, entry["time_s"], values))

    def checkpoint(self) -> bytes:
        """Returns the file of the averaged generator."""
        provenance: Provenance = {**self.provenance, "images_seen": self.trainer.images}
        tensors, config = with_mean_w(self.trainer.ema), self.trainer.generator_config
        return files.save_checkpoint(tensors, config, provenance, "unstated")

    def save(self) -> None:
        """Writes the checkpoint, the log and the training state."""
        header = {"steps": self.trainer.steps, "images_before": self.trainer.images_before}
        self.folder.write_log(self.log)
        state = files.save(files.TRAINING_STATE, self.trainer.state(), header)
        self.folder.write_state(self.checkpoint(), state)


def is_best(log: Sequence[LogEntry]) -> bool:
    """Tells whether the last tick's metric is the best so far."""
    *before, last = (entry.get("metric", float("inf")) for entry in log)
    return last < min(before, default=float("inf"))


def check_finite(trainer: Trainer) -> None:
    """Raises DivergenceError if the state is not finite, so that it never replaces a state that can be resumed."""
    broken = [name for name, x in trainer.state().items() if not torch.isfinite(x).all()]
    if broken:
        raise DivergenceError(
            f"training diverged before image {trainer.images}: {len(broken)} tensors are not finite, the first is "
            f"{broken[0]}; resume from the last checkpoint"
        )


@contextmanager
def stop_between_steps() -> Iterator[list[int]]:
    """Collects Ctrl-C, SIGTERM and SIGHUP in a list, so that the current step is still saved.

    Signals that were ignored stay ignored, such as SIGHUP under nohup or SIGINT in a shell's background jobs.
    """
    asked: list[int] = []
    signals = STOPS if threading.current_thread() is threading.main_thread() else ()
    heeded = [number for number in signals if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, lambda number, frame: asked.append(number)) for number in heeded}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
