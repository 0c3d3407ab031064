"""Evaluate: a checkpoint's worlds against held-out photographs, as numbers, a table and pictures."""

import dataclasses
import io
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import torch
from PIL.Image import Image as Picture
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
from model.networks.lpips import CURE, Lpips, is_installed
from model.tensor_header import MOST_BYTES
from model.version import __version__
from pipelines.terminal.progress import track
from transforms.evaluation.crops import read_photographs
from transforms.evaluation.figures import bands_picture, colours_picture, diversity_picture, frames_picture
from transforms.evaluation.results import DescribedSets, References, Results, measure
from transforms.evaluation.settings import Evaluation, frame
from transforms.evaluation.windows import Renderer, cut_worlds, open_world, render_window
from transforms.storage.files import exists, filesystem, join, read_bytes, write_bytes, write_json
from transforms.storage.tensor_files import read_tensors

METRICS = "metrics.json"
"""Written last: a folder with it holds a whole evaluation."""

Networks = Mapping[str, FeatureNetwork]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class EvaluateOptions:
    """What a person asks of an evaluation.

    Attributes:
        checkpoint: URL of the generator, or "bundled".
        data: URL of the training set with the held-out photographs.
        out: URL of the folder for what is found.
        inception: URL of the standard Inception's weights, for FID.
        evaluation: the numbers.
    """

    checkpoint: str
    data: str
    out: str
    inception: str | None = None
    evaluation: Evaluation = field(default_factory=Evaluation)

    def __post_init__(self) -> None:
        if not self.out:
            raise InputError("--out is empty; give a folder or URL")
        if exists(join(self.out, METRICS)):
            raise InputError(f"--out {self.out} already holds an evaluation; choose another folder")


def evaluate(options: EvaluateOptions) -> Results:
    """Evaluates a checkpoint and writes all that was found.

    Raises:
        InputError: something asked for does not fit; nothing was written.
    """
    reuse_freed_memory()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    checkpoint = load_checkpoint(read_tensors(resolve(options.checkpoint)), options.checkpoint)
    check_tileable(checkpoint.generator.config, options.checkpoint)
    generator, evaluation = checkpoint.generator.to(device), options.evaluation
    inception = Inception(read_file(options.inception, "--inception"), options.inception) if options.inception else None
    lpips = Lpips().to(device) if is_installed() else None
    if lpips is None:
        print(f"LPIPS diversity and figures in AlexNet's features are left out; {CURE}", file=sys.stderr)
    networks = feature_networks(lpips, inception, device)
    references = describe_photographs(options.data, generator.config, evaluation, networks)
    worlds = describe_worlds(partial(open_world, generator), references, networks)
    results = measure(worlds, references) | {"repetition": measure_repetition(generator, evaluation)}
    pictures = {
        "bands.png": bands_picture(worlds, references),
        "frames.png": frames_picture(worlds, references),
        "colours.png": colours_picture(worlds, references),
    }
    if lpips is not None:
        varied = vary(generator, evaluation)
        apart = photographs_apart(lpips, references.held_out[frame()].examples.to(device))
        results["LPIPS"] = {**dataclasses.asdict(diversity(lpips, varied)), "photographs": apart}
        pictures["diversity.png"] = diversity_picture(varied[:2].cpu())
    write(options, checkpoint, results, pictures)
    return results


def write(options: EvaluateOptions, checkpoint: Checkpoint, results: Results, pictures: Mapping[str, Picture]) -> None:
    """Writes the pictures, then the figures with all that they depend on."""
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
    """The photographs, described once for any number of generators of one configuration.

    Raises:
        InputError: the training set does not fit, or is damaged.
    """
    held_out, trained = read_photographs(data, config, evaluation)
    return References(
        describe(watched("Held-out photographs", held_out, len(held_out.rows)), networks),
        describe(watched("Training photographs", trained, len(trained.rows)), networks),
        config,
        evaluation,
    )


def describe_worlds(worlds: Callable[[int], Renderer], references: References, networks: Networks) -> DescribedSets:
    """The worlds of a generator, for `measure`.

    Args:
        worlds: the renderer of a seed's world.
        references: give the numbers.
        networks: those of the references.
    """
    evaluation = references.evaluation
    cuts = cut_worlds(worlds, references.config, evaluation)
    return describe(watched("Worlds", cuts, evaluation.worlds), networks)


def measure_repetition(generator: Generator, evaluation: Evaluation) -> Results:
    """Whether panoramas repeat themselves after the coordinate's period."""
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
    """Pictures [worlds,latents,textures,3,H,W] that differ in local latents or textures alone."""
    seeds = range(evaluation.first_seed, evaluation.first_seed + evaluation.varied_worlds)
    side = evaluation.variations
    return torch.stack(
        [variations(generator, seed, side, side) for seed in watched("Variations", seeds, evaluation.varied_worlds)]
    )


@torch.inference_mode()
def photographs_apart(lpips: Lpips, photographs: Tensor) -> float:
    """Mean LPIPS of photographs uint8 [N,3,H,W], each to the next."""
    pictures = photographs.float() / 127.5 - 1
    return float(lpips(pictures, pictures.roll(1, dims=0)).mean())


def watched(description: str, items: Iterable[T], total: int) -> Iterator[T]:
    """The items, with a bar or a line now and then that says how many have been dealt with."""
    done = 0
    with track(description, total, lambda: done):
        for item in items:
            yield item
            done += 1


def read_file(url: str, name: str) -> bytes:
    """The content of a file.

    Raises:
        InputError: there is none.
    """
    fs, path = filesystem(url)
    if not fs.isfile(path):
        raise InputError(f"{name} {url}: there is no such file")
    if (fs.size(path) or 0) > MOST_BYTES:
        raise InputError(f"{name} {url} has {fs.size(path)} bytes; at most {MOST_BYTES} are read")
    return read_bytes(url)


if __name__ == "__main__":
    from pipelines.cli import main

    main(["evaluate", *sys.argv[1:]])
