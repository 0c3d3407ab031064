"""The training run of a detail stage: what differs from that of a generator."""

from collections.abc import Callable, Iterator
from typing import cast

import numpy as np
import numpy.typing as npt
import torch

from model.checkpoint import Checkpoint, DetailParent, Parent, Provenance, save_checkpoint
from model.training.detail import DetailTrainer
from model.world.styles import with_mean_w
from pipelines.training_run import Run
from transforms.training.previews import detail_strip
from transforms.training.stream import PatchBatch, PatchStream


class DetailRun(Run):
    """A run whose checkpoints hold the base generator as it was and the averaged detail stage.

    The provenance of its checkpoints is the base's, with that of the detail stage under ``detail``.
    """

    trainer: DetailTrainer  # type: ignore[assignment]

    def patches(self, stream: PatchStream, size: int, after: int = 0) -> Iterator[PatchBatch]:
        """Yields batches of patches, without the first `after` patches."""
        return stream.batches(size, after)

    def batches(self, stream: PatchStream) -> Iterator[PatchBatch]:
        """Yields the batch of each step."""
        return self.patches(stream, self.trainer.share, self.trainer.steps * self.trainer.share)

    def step(self, batch: PatchBatch) -> dict[str, float]:
        """Takes one training step; returns its losses."""
        return self.trainer.step(torch.from_numpy(batch.pixels))

    def origin_in(self, checkpoint: Checkpoint) -> Provenance:
        """Returns the provenance of the detail stage from a checkpoint."""
        return checkpoint.provenance["detail"]

    def pictures(self) -> dict[str, Callable[[], npt.NDArray[np.uint8]]]:
        """Returns what draws each picture of a tick, by the beginning of its name."""
        return {"strip": lambda: detail_strip(self.trainer.base, self.trainer.ema)}

    def checkpoint(self) -> bytes:
        """Returns the file of the base generator and the averaged detail stage."""
        trainer = self.trainer
        init = cast(DetailParent, self.provenance["init"])
        parent = cast(Parent, {name: value for name, value in init.items() if name != "base"})
        stage: Provenance = {**self.provenance, "init": parent, "images_seen": trainer.images}
        provenance: Provenance = {**init["base"], "detail": stage}
        tensors, config = with_mean_w(trainer.base), trainer.generator_config
        return save_checkpoint(tensors, config, provenance, "unstated", trainer.ema)
