"""Evaluate: compares a checkpoint's worlds with held-out photographs, in numbers, a table and pictures."""

import dataclasses
import io
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

import torch
from PIL import Image
from torch import Tensor

from model.bundled import resolve
from model.checkpoint import Checkpoint, load_checkpoint
from model.config import GeneratorConfig, check_tileable
from model.errors import InputError
from model.memory import reuse_freed_memory
from model.metrics.diversity import diversity, variations
from model.metrics.feature_networks import FeatureNetwork, feature_networks
from model.metrics.picture_sets import describe
from model.metrics.repetition import repetition
from model.networks.generator import Generator
from model.networks.inception import Inception
from model.networks.lpips import Lpips
from model.tensor_header import MOST_BYTES
from model.version import __version__
from pipelines.terminal.progress import track
from transforms.evaluation.crops import Photographs, read_photographs
from transforms.evaluation.figures import bands_picture, colours_picture, diversity_picture, frames_picture
from transforms.evaluation.results import DescribedSets, Findings, References, Results, measure
from transforms.evaluation.scaled import ScaledEvaluation, ScaledResults
from transforms.evaluation.settings import Evaluation, frame
from transforms.evaluation.windows import Renderer, cut_worlds, open_world, render_window
from transforms.storage.files import exists, filesystem, join, read_bytes, write_bytes, write_json
from transforms.storage.tensor_files import read_tensors

METRICS = "metrics.json"
"""Written last, so a folder that contains it holds a complete evaluation."""

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

Networks = Mapping[str, FeatureNetwork]
T = TypeVar("T")


E = TypeVar("E", Evaluation, ScaledEvaluation)


@dataclass(frozen=True, slots=True)
class EvaluateOptions(Generic[E]):
    """The options of an evaluation.

    Attributes:
        checkpoint: The URL of the generator, or "bundled".
        data: The URL of the training set with the held-out photographs.
        out: The URL of the output folder.
        inception: The URL of the standard Inception weights, for FID.
        evaluation: The sample sizes, and the protocol or the scale.
    """

    checkpoint: str
    data: str
    out: str
    inception: str | None = None
    evaluation: E = field(kw_only=True)

    def __post_init__(self) -> None:
        if not self.out:
            raise InputError("--out is empty; give a folder or URL")
        if exists(join(self.out, METRICS)):
            raise InputError(f"--out {self.out} already holds an evaluation; choose another folder")


def evaluate(options: EvaluateOptions[Evaluation]) -> Results:
    """Evaluates a checkpoint and writes the results.

    Raises:
        InputError: An option does not fit. Nothing was written.
    """
    checkpoint = load(options)
    generator, evaluation = checkpoint.generator, options.evaluation
    lpips, networks = load_networks(options)
    references = describe_photographs(options.data, generator.config, evaluation, networks)
    worlds = describe_worlds(partial(open_world, generator), references, networks)
    measured, repeated = measure(worlds, references), measure_repetition(generator, evaluation)
    varied = vary(generator, evaluation)
    pictures = {
        "bands.png": bands_picture(worlds, references),
        "frames.png": frames_picture(worlds, references),
        "colours.png": colours_picture(worlds, references),
        "diversity.png": diversity_picture(varied[:2].cpu()),
    }
    apart = photographs_apart(lpips, references.held_out[frame()].examples.to(DEVICE))
    varies = {**dataclasses.asdict(diversity(lpips, varied)), "photographs": apart}
    results: Results = {**measured, "repetition": repeated, "LPIPS": varies}
    write(options, checkpoint, results, pictures)
    return results


def load(options: EvaluateOptions[E]) -> Checkpoint:
    """Loads the checkpoint on this process's device: the GPU if there is one.

    Raises:
        InputError: It is missing or damaged, or its pictures have an edge.
    """
    reuse_freed_memory()
    checkpoint = load_checkpoint(read_tensors(resolve(options.checkpoint)), options.checkpoint)
    check_tileable(checkpoint.generator.config, options.checkpoint)
    for network in (checkpoint.generator, checkpoint.detail):
        if network is not None:
            network.to(DEVICE)
    return checkpoint


def load_networks(options: EvaluateOptions[E]) -> tuple[Lpips, Networks]:
    """Loads LPIPS, and all feature networks that are available, on this process's device."""
    inception = Inception(read_file(options.inception, "--inception"), options.inception) if options.inception else None
    lpips = Lpips().to(DEVICE)
    return lpips, feature_networks(lpips, inception, DEVICE)


def write(
    options: EvaluateOptions[E],
    checkpoint: Checkpoint,
    results: Results | ScaledResults,
    pictures: Mapping[str, Image.Image],
) -> None:
    """Writes the pictures, then the metrics with everything they depend on."""
    for name, picture in pictures.items():
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        write_bytes(join(options.out, name), buffer.getvalue())
    report = {
        "version": __version__,
        "checkpoint": {"url": options.checkpoint, "sha256": checkpoint.sha256, "provenance": checkpoint.provenance},
        "data": options.data,
        "inception": options.inception,
        "evaluation": dataclasses.asdict(options.evaluation),
        "results": results,
    }
    write_json(join(options.out, METRICS), report)


def describe_photographs(data: str, config: GeneratorConfig, evaluation: Evaluation, networks: Networks) -> References:
    """Describes the photographs once, for any number of generators of one configuration.

    Raises:
        InputError: The training set does not fit, or is damaged.
    """
    return References(*describe_both(read_photographs(data, config, evaluation), networks), config, evaluation)


def describe_both(
    photographs: tuple[Photographs, Photographs], networks: Networks
) -> tuple[DescribedSets, DescribedSets]:
    """Describes held-out photographs and those of the training split, and shows progress."""
    held_out, trained = photographs
    return (
        describe(watched("Held-out photographs", held_out, len(held_out.rows)), networks),
        describe(watched("Training photographs", trained, len(trained.rows)), networks),
    )


def describe_worlds(worlds: Callable[[int], Renderer], references: References, networks: Networks) -> DescribedSets:
    """Describes the worlds of a generator, for `measure`.

    Args:
        worlds: Returns the renderer of a seed's world.
        references: The descriptions of the photographs, which set the sample sizes.
        networks: The feature networks of the references.
    """
    evaluation = references.evaluation
    cuts = cut_worlds(worlds, references.config, evaluation)
    return describe(watched("Worlds", cuts, evaluation.worlds), networks)


def measure_repetition(generator: Generator, evaluation: Evaluation) -> Findings:
    """Measures whether panoramas repeat with the coordinate's period."""
    config = generator.config
    period_px = config.period_cells * config.cell_px
    rows = (-(config.full_px // 2), config.full_px - config.full_px // 2 - 1)
    columns = (0, evaluation.panorama_periods * period_px - 1)
    seeds = range(evaluation.first_seed, evaluation.first_seed + evaluation.panoramas)
    panoramas = [
        render_window(open_world(generator, seed), rows, columns)
        for seed in watched("Panoramas", seeds, evaluation.panoramas)
    ]
    return dataclasses.asdict(repetition(torch.stack(panoramas), period_px, config.cell_px, evaluation.seed))


def vary(generator: Generator, evaluation: Evaluation) -> Tensor:
    """Renders pictures [worlds,latents,textures,3,H,W] that differ only in local latents or in textures."""
    seeds = range(evaluation.first_seed, evaluation.first_seed + evaluation.varied_worlds)
    side = evaluation.variations
    return torch.stack(
        [variations(generator, seed, side, side) for seed in watched("Variations", seeds, evaluation.varied_worlds)]
    )


@torch.inference_mode()
def photographs_apart(lpips: Lpips, photographs: Tensor) -> float:
    """Returns the mean LPIPS between consecutive photographs, uint8 [N,3,H,W]."""
    pictures = photographs.float() / 127.5 - 1
    return float(lpips(pictures, pictures.roll(1, dims=0)).mean())


def watched(description: str, items: Iterable[T], total: int) -> Iterator[T]:
    """Yields the items and shows how many have been processed."""
    done = 0
    with track(description, total, lambda: done):
        for item in items:
            yield item
            done += 1


def read_file(url: str, name: str) -> bytes:
    """Returns the content of a file.

    Raises:
        InputError: The file does not exist or is too large.
    """
    fs, path = filesystem(url)
    if not fs.isfile(path):
        raise InputError(f"{name} {url}: there is no such file")
    if (fs.size(path) or 0) > MOST_BYTES:
        raise InputError(f"{name} {url} has {fs.size(path)} bytes; the limit is {MOST_BYTES}")
    return read_bytes(url)


if __name__ == "__main__":
    from pipelines.cli import main

    main(["evaluate", *sys.argv[1:]])
