"""Computing the patches of a shard: the model's life on a worker, through Beam's RunInference."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import torch
from apache_beam.ml.inference.base import ModelHandler, PredictionResult, RunInference
from apache_beam.typehints.decorators import no_annotations

from model.bundled import resolve
from model.checkpoint import Checkpoint, load_checkpoint
from model.definition import Definition
from model.errors import InputError
from model.memory import reuse_freed_memory
from model.quantise import quantise
from model.world import Picture, World
from transforms.overlays import read_overlay
from transforms.plan import Failure, PatchShard, Plan
from transforms.seams import shared_strips
from transforms.storage import read_bytes
from transforms.tally import Tally

PATCHES_DONE = Tally()


@dataclass(frozen=True, slots=True)
class Patch:
    """A tile's pixels.

    Attributes:
        index: of the tile in its plan.
        pixels: uint8 [h,w,3], cropped to the panorama.
        edges: uint8 [4·overlap,tile,3], the strips that this tile and each neighbour both compute, as this tile has
            them, left, right, top and bottom; the first two are turned to lie along the rows.
    """

    index: int
    pixels: npt.NDArray[np.uint8]
    edges: npt.NDArray[np.uint8]


class Synthesizer:
    """Computes patches on this worker's device: the GPU where there is one.

    The last few checkpoints and worlds stay loaded; what is computed does not depend on which.
    """

    def __init__(self) -> None:
        reuse_freed_memory()
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        # Promise 2 speaks of float32; TF32 would have ten bits of it.
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        # Promise 1: the same algorithm for the same shapes, and one that always adds in the same order.
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        self.checkpoint = lru_cache(maxsize=4)(self._checkpoint)
        self.world = lru_cache(maxsize=4)(self._world)

    def patches(self, shard: PatchShard) -> list[Patch]:
        """The patches of a shard, in the order of their indices."""
        world = self.world_of(shard.plan)
        return [patch(world, shard.plan, index) for index in shard.indices]

    def world_of(self, plan: Plan) -> World:
        """The world of a plan."""
        checkpoint = plan.checkpoint_url, plan.checkpoint_sha256
        return self.world(*checkpoint, plan.request.definition, plan.precision, plan.overlays)

    def _world(self, url: str, sha256: str, definition: Definition, precision: str, overlays: tuple[str, ...]) -> World:
        named = zip(definition.overlay_names, overlays, strict=True)
        laid = {name: read_overlay(name, overlay) for name, overlay in named}
        return World(self.checkpoint(url, sha256).generator, definition, precision, laid)

    def _checkpoint(self, url: str, sha256: str) -> Checkpoint:
        checkpoint = load_checkpoint(read_bytes(resolve(url)), url)
        if checkpoint.sha256 != sha256:
            raise InputError(f"{url} is no longer the checkpoint of the plan; run render again")
        checkpoint.generator.to(self.device)
        return checkpoint


def patch(world: World, plan: Plan, index: int) -> Patch:
    """Computes one tile, whole, and crops it."""
    tile = plan.tile(index)
    picture = world.compute(*plan.pixels(tile))
    levels = Picture(quantise(picture.pixels).cpu(), picture.rows, picture.columns)
    pixels = levels.crop(*plan.cropped(tile)).permute(1, 2, 0).contiguous().numpy()
    PATCHES_DONE.add()
    return Patch(index, pixels, shared_strips(levels, plan, tile))


class PatchModelHandler(ModelHandler[PatchShard, PredictionResult, Synthesizer]):
    """What RunInference needs to know. A batch is one shard: its tiles are the batch that the engine decides on."""

    def __init__(self) -> None:
        super().__init__(min_batch_size=1, max_batch_size=1)

    def load_model(self) -> Synthesizer:
        """Called once a process."""
        return Synthesizer()

    def run_inference(
        self, batch: Sequence[PatchShard], model: Synthesizer, inference_args: dict[str, Any] | None = None
    ) -> Iterator[PredictionResult]:
        """The patches of each shard of a batch."""
        return (PredictionResult(shard, model.patches(shard)) for shard in batch)

    def get_metrics_namespace(self) -> str:
        """Under which Beam shows its counts and times."""
        return "infinitygan_synthesize"


@dataclass(eq=False)
class SynthesizePatches(beam.PTransform):
    """Computes shards; outputs (shard, patches) pairs, and failures."""

    @no_annotations
    def expand(self, shards: beam.PCollection) -> tuple[beam.PCollection, beam.PCollection]:
        """Beam's hook."""
        results, dead = shards | "Infer" >> RunInference(PatchModelHandler()).with_exception_handling()
        pairs = results | "Pair" >> beam.Map(lambda result: (result.example, result.inference))
        failures = dead.failed_inferences | "Explain" >> beam.FlatMap(explain)
        return pairs, failures


def explain(dead: tuple[Sequence[PatchShard], tuple[type, str, list[str]]]) -> Iterator[Failure]:
    """What RunInference says of a failed batch, a failure a shard."""
    shards, (_, message, _) = dead
    for shard in shards:
        yield Failure(shard.plan.request.id, shard.name, message)
