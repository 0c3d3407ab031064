"""Computes the patches of a shard, with the model loaded on a worker through Beam's RunInference."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import torch
from apache_beam import pvalue
from apache_beam.ml.inference.base import ModelHandler, PredictionResult, RunInference
from apache_beam.typehints.decorators import no_annotations
from torch import Tensor

from model import geometry
from model.bundled import resolve
from model.checkpoint import Checkpoint, load_checkpoint
from model.errors import InputError, one_line
from model.geometry import Window
from model.kernels import exact_kernels
from model.memory import reuse_freed_memory
from model.quantise import quantise
from model.threads import threads_of_a_worker
from model.world.definition import Definition
from model.world.detailed import DetailedWorld, at_scale
from model.world.world import World
from transforms.panoramas.overlays import read_overlay
from transforms.panoramas.patch_shards import EncodedShard
from transforms.panoramas.patches import Difference, EncodedPatch, Patch, encode_patch
from transforms.panoramas.plan import REFERENCE, Failure, PatchShard, Plan
from transforms.panoramas.seams import shared_strips
from transforms.storage.prefetch import map_ahead
from transforms.storage.retry import retried
from transforms.storage.tally import TILES, Tally
from transforms.storage.tensor_files import read_tensors
from transforms.storage.urls import redact

PATCHES_DONE, PIXELS = Tally(TILES), "pixels"
"""The patches computed and encoded; the number of their pixels, within the panoramas, has a name of its own."""

PATCHES_AHEAD = 4
"""The number of patches computed while the first is encoded."""

FAILED_TILES = "failed tiles"


def share_cores() -> None:
    """Leaves the other worker processes on this machine their share of the cores. They come and go."""
    threads = threads_of_a_worker()
    if threads is not None and threads != torch.get_num_threads():
        torch.set_num_threads(threads)


class Synthesizer:
    """Computes patches on this worker's device: the GPU where there is one.

    The last few checkpoints, overlays and worlds stay loaded; the results do not depend on which.
    """

    def __init__(self) -> None:
        reuse_freed_memory()
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        exact_kernels()
        self.checkpoint = lru_cache(maxsize=4)(self._checkpoint)
        self.overlay = lru_cache(maxsize=4)(read_overlay)
        self.world = lru_cache(maxsize=4)(self._world)

    def parts(self, shard: PatchShard) -> list[EncodedShard | Failure]:
        """Computes a shard as far as possible: a tile that fails, and fails again alone, costs no other tile."""
        share_cores()
        samples = self.samples(shard)
        again = [place for place, sample in enumerate(samples) if isinstance(sample, Exception)]
        for place in again:
            index = shard.indices[place]
            (samples[place],) = self.samples(PatchShard(shard.plan, index, index))
        return divide(shard, samples)

    def samples(self, shard: PatchShard) -> list[EncodedPatch | Exception]:
        """Returns the patches of a shard as `encode_patch` encodes them, by index, or the errors in their place.

        Other threads fetch them from the device and encode them while the next ones are computed.
        """
        world, plan = self.world_of(shard.plan), shard.plan

        def compute(index: int) -> Any:
            return compute_tile(world, plan, index), self.reference(plan, index)

        computed = (attempt(compute, index) for index in shard.indices)
        return list(map_ahead(lambda tiles: attempt(finish, plan, tiles), computed, ahead=PATCHES_AHEAD))

    def reference(self, plan: Plan, index: int) -> "ComputedTile | None":
        """Computes the middle tile of a plan of reduced precision in float32, for comparing the two."""
        if plan.precision == REFERENCE or index != plan.tiles // 2:
            return None
        return compute_tile(self.world_of(dataclasses.replace(plan, precision=REFERENCE)), plan, index)

    def world_of(self, plan: Plan) -> World | DetailedWorld:
        """Returns the world of a plan, at its scale."""
        checkpoint = plan.checkpoint_url, plan.checkpoint_sha256
        world = self.world(*checkpoint, plan.request.definition, plan.precision, plan.overlays)
        return at_scale(world, self.checkpoint(*checkpoint).detail, plan.request.scale)

    def _world(self, url: str, sha256: str, definition: Definition, precision: str, overlays: tuple[str, ...]) -> World:
        named = zip(definition.overlay_names, overlays, strict=True)
        laid = {name: self.overlay(name, overlay) for name, overlay in named}
        return World(self.checkpoint(url, sha256).generator, definition, precision, laid)

    def _checkpoint(self, url: str, sha256: str) -> Checkpoint:
        checkpoint = load_checkpoint(retried(read_tensors, resolve(url)), url)
        if checkpoint.sha256 != sha256:
            raise InputError(
                f"{redact(url)} is no longer the checkpoint of the plan, {sha256[:12]}: give that one by --checkpoint, "
                "or run render again"
            )
        checkpoint.generator.to(self.device)
        if checkpoint.detail is not None:
            checkpoint.detail.to(self.device)
        return checkpoint


@dataclass(frozen=True, slots=True)
class ComputedTile:
    """A tile's pixels on their way to the host.

    Attributes:
        index: the index of the tile in its plan.
        levels: uint8 [H,W,3] on the host, including the pixels beyond the tile.
        rows: the rows of world pixels in it.
        columns: the columns of world pixels in it.
        beyond: the number of pixels computed before and after a tile at a border between two.
        copied: the event after which they have arrived; None if nothing had to be copied.
    """

    index: int
    levels: Tensor
    rows: Window
    columns: Window
    beyond: tuple[int, int]
    copied: torch.cuda.Event | None

    def cut(self, plan: Plan) -> Patch:
        """Returns the patch, once its pixels have arrived."""
        if self.copied is not None:
            self.copied.synchronize()
        levels = self.levels.numpy()
        rows, columns = plan.cropped(self.index)
        pixels = levels[geometry.part(rows, self.rows), geometry.part(columns, self.columns)]
        whole_rows, whole_columns = plan.computed(self.index)
        inside = geometry.part(whole_rows, self.rows), geometry.part(whole_columns, self.columns)
        return Patch(self.index, columns[0], rows[0], pixels, shared_strips(levels, *inside, self.beyond))


def compute_tile(world: World | DetailedWorld, plan: Plan, index: int) -> ComputedTile:
    """Computes one tile; on a GPU, returns once the work has been submitted."""
    picture = world.compute(*plan.computed(index))
    levels = quantise(picture.pixels).permute(1, 2, 0).contiguous()
    copied = None
    if levels.is_cuda:
        # Into pinned memory, so that the GPU can go on with the next tile meanwhile.
        levels, copied = levels.to("cpu", non_blocking=True), torch.cuda.Event()
        copied.record()
    return ComputedTile(index, levels, picture.rows, picture.columns, world.beyond, copied)


def patch(world: World | DetailedWorld, plan: Plan, index: int) -> Patch:
    """Computes one tile and crops it."""
    return compute_tile(world, plan, index).cut(plan)


def attempt(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function; returns its result or its error. An error among the arguments is passed on."""
    before = next((argument for argument in arguments if isinstance(argument, Exception)), None)
    try:
        return function(*arguments) if before is None else before
    except Exception as error:
        return error


def divide(shard: PatchShard, samples: Sequence[EncodedPatch | Exception]) -> list[EncodedShard | Failure]:
    """Divides a shard into shards of adjacent samples, and a failure for each missing tile."""
    parts: list[EncodedShard | Failure] = []
    run: list[EncodedPatch] = []
    for index, sample in zip(shard.indices, samples, strict=True):
        if isinstance(sample, Exception):
            parts.append(Failure(shard.plan.request.id, f"tile {index}", one_line(sample)))
            run = []
            continue
        if not run:
            parts.append((PatchShard(shard.plan, index, index), run))
        run.append(sample)
    return [part if isinstance(part, Failure) else lengthened(*part) for part in parts]


def lengthened(shard: PatchShard, samples: list[EncodedPatch]) -> EncodedShard:
    """Adjusts a shard to the number of samples."""
    return PatchShard(shard.plan, shard.first, shard.first + len(samples) - 1), samples


def time_tile(plan: Plan) -> float:
    """Measures the seconds that a tile of a plan takes on this machine, with the network loaded and warm."""
    world = Synthesizer().world_of(plan)
    patch(world, plan, 0)
    start = time.monotonic()
    patch(world, plan, plan.tiles - 1)
    return time.monotonic() - start


def finish(plan: Plan, tiles: tuple[ComputedTile, ComputedTile | None]) -> EncodedPatch:
    """Crops and encodes a tile, with its difference from the reference, if there is one."""
    tile, reference = tiles
    patch = tile.cut(plan)
    if reference is not None:
        patch = dataclasses.replace(patch, difference=difference(patch.pixels, reference.cut(plan).pixels))
    sample = encode_patch(plan, patch)
    PATCHES_DONE.add()
    PATCHES_DONE.add(patch.pixels.shape[0] * patch.pixels.shape[1], PIXELS)
    return sample


def difference(pixels: npt.NDArray[np.uint8], reference: npt.NDArray[np.uint8]) -> Difference:
    """Computes the difference between a tile's pixels and the reference."""
    apart = np.abs(pixels.astype(np.int16) - reference)
    return Difference(int(apart.max()), float(apart.mean()))


class PatchModelHandler(ModelHandler[PatchShard, PredictionResult, Synthesizer]):
    """The model handler for RunInference. A batch is one shard; the engine divides it into batches of tiles.

    Args:
        model_copies: the number of networks that all processes of a machine share; None for one in each process. Even
            with 1, Beam serves the network from one process to all, through a proxy that also returns the patches.
    """

    def __init__(self, model_copies: int | None = None):
        super().__init__(min_batch_size=1, max_batch_size=1, model_copies=model_copies)

    def load_model(self) -> Synthesizer:
        """Loads the model; called once per process."""
        return Synthesizer()

    def run_inference(
        self, batch: Sequence[PatchShard], model: Synthesizer, inference_args: dict[str, Any] | None = None
    ) -> Iterator[PredictionResult]:
        """Computes the parts of each shard of a batch."""
        return (PredictionResult(shard, model.parts(shard)) for shard in batch)

    def get_metrics_namespace(self) -> str:
        """Returns the namespace of Beam's counts and times."""
        return "infinitygan_synthesize"


@dataclass(eq=False)
class SynthesizePatches(
    beam.PTransform[beam.PCollection[PatchShard], tuple[beam.PCollection[EncodedShard], beam.PCollection[Failure]]]
):
    """Computes shards; outputs (shard, encoded patches) pairs, and failures."""

    model_copies: int | None = None

    @no_annotations
    def expand(
        self, shards: beam.PCollection[PatchShard]
    ) -> tuple[beam.PCollection[EncodedShard], beam.PCollection[Failure]]:
        """Applies the transform; called by Beam."""
        results, dead = shards | "Infer" >> RunInference(PatchModelHandler(self.model_copies)).with_exception_handling()
        parts = results | "Part" >> beam.FlatMap(tell_apart).with_outputs(FAILED_TILES, main="pairs")
        whole = dead.failed_inferences | "Explain" >> beam.FlatMap(explain)
        return parts.pairs, (parts[FAILED_TILES], whole) | "Failures" >> beam.Flatten()


def tell_apart(result: PredictionResult) -> Iterator[Any]:
    """Yields the parts of a shard; failed ones have a separate tag."""
    for part in cast(list[EncodedShard | Failure], result.inference):
        yield pvalue.TaggedOutput(FAILED_TILES, part) if isinstance(part, Failure) else part


def explain(dead: tuple[Sequence[PatchShard], tuple[type, str, list[str]]]) -> Iterator[Failure]:
    """Yields a failure for each shard of a batch for which RunInference failed."""
    shards, (_, message, _) = dead
    for shard in shards:
        yield Failure(shard.plan.request.id, shard.name, message)
