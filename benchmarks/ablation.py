"""The paper's ablation: the effect of G_S and its coordinates, and of padding (Section 4).

python benchmarks/ablation.py DATA --out DIR [--images 16000] [--preset-family small|paper] [--precision NAME]

StyleGAN2+NCI, +NCI+FCG and InfinityGAN are trained on the same photographs, the same number of them, from the same
seed, into DIR/PRESET. A finished run is reused, and an unfinished one is resumed; one with other settings is refused.
Each network's pictures at 1, 2, 4 and 8 times the photographs' field of view, scaled down to their size (ScaleInv), are
compared with held-out photographs, and so are patches of the training size. Training photographs give the floor.
DIR/ablation.json has all figures, with precision and recall; DIR/ablation.png shows one world of each.

All networks use the same seeds and number of pictures. Each network's pictures are rendered as its kind allows:

InfinityGAN   windows of the world, in rows around the horizon, as `infinitygan evaluate` takes them.
+NCI+FCG      the same windows of the plane of its seed's latents. Without padding, they equal what one shot of
              any size would give; but it has no horizon, and all rows are alike.
+NCI          a picture of its own for each frame and patch, at its own size, since its layers pad and know where it
              ends: whole cells, minus up to 7 px at each edge. It is computed in parts that see zeros
              beyond the picture's ends and the picture itself elsewhere, to save memory.

Errors refer to the choice of worlds and photographs; another training run may differ by more. The projected recipe's
discriminator sees EfficientNet-Lite0's features; AlexNet's were not used in any training. A Fréchet distance depends on
the number of pictures, which falls with the scale and differs for the floor: compare networks, not scales.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from rich.console import Console

from model.checkpoint import Checkpoint, load_checkpoint
from model.config import PRECISIONS, precision_name
from model.errors import InputError
from model.memory import reuse_freed_memory
from model.metrics.feature_networks import feature_networks
from model.metrics.picture_sets import describe
from model.networks.generator import Generator
from model.networks.lpips import Lpips
from model.world.one_shot import render_part
from pipelines.cli import refuse
from pipelines.evaluate import Networks, describe_photographs, watched
from pipelines.terminal.evaluation_tables import number, table
from pipelines.train import TrainOptions, train
from transforms.evaluation.figures import GAP_PX, INK, LABEL_PX, PAPER, sheet
from transforms.evaluation.results import DescribedSets, Findings, References, distances
from transforms.evaluation.settings import PATCH, Evaluation, PictureSets, frame
from transforms.evaluation.windows import cut_pictures, cut_worlds, open_world
from transforms.training.run_folder import CHECKPOINT, CONFIG, RunFolder, flat, upgraded
from transforms.training.shard_reader import set_checksum
from transforms.training_set.dataset import read_dataset

FAMILIES = {
    "small": {"NCI": "small-nci", "NCI+FCG": "small-nci-fcg", "InfinityGAN": "small"},
    "paper": {"NCI": "stylegan2-nci", "NCI+FCG": "stylegan2-nci-fcg", "InfinityGAN": "paper"},
}
EVALUATION = Evaluation(bands_px=(0,), band_patches=1, band_crops=1)
"""Bands of height are meaningful only for InfinityGAN; the single band requested here is ignored."""

FLOOR = "photographs trained on"


def trained(options: TrainOptions) -> Checkpoint:
    """Returns the network of a run, which is started, resumed or reused."""
    if images_seen(options) < images_wanted(options):
        train(dataclasses.replace(options, resume=begun(options)))
    path = Path(options.out) / CHECKPOINT
    return load_checkpoint(path.read_bytes(), str(path))


def begun(options: TrainOptions) -> bool:
    """Returns whether a run exists."""
    return (Path(options.out) / CONFIG).exists()


def images_seen(options: TrainOptions) -> int:
    """Returns the number of images a run has seen according to its log; 0 if there is none."""
    log = RunFolder(options.out).read_log(sys.maxsize)
    return int(log[-1]["images"]) if log else 0


def images_wanted(options: TrainOptions) -> int:
    """Returns the number of images at which a run ends, in whole batches."""
    batch = options.settings.batch
    return -(-(options.images or 0) // batch) * batch


def check_run(options: TrainOptions) -> None:
    """Raises InputError for a run that has other settings than the requested one."""
    if images_seen(options) > images_wanted(options):
        raise InputError(f"{options.out} holds a run of {images_seen(options)} images: more than --images")
    config = {
        "preset": options.preset,
        "generator": dataclasses.asdict(options.network),
        "training": dataclasses.asdict(options.settings),
        "data": {"sha256": set_checksum(read_dataset(options.data)["shards"])},
    }
    expected, found = flat(json.loads(json.dumps(config))), flat(upgraded(RunFolder(options.out).read_config()))
    other = sorted(name for name in expected if found.get(name) != expected[name])
    if other:
        raise InputError(f"{options.out} holds a run with other settings ({', '.join(other)}); choose another --out")


def cut(generator: Generator) -> Iterator[PictureSets]:
    """Yields the patches and frames of each world, as the network's kind allows."""
    config, kind = generator.config, generator.config.kind
    if kind == "nci":
        for seed in range(EVALUATION.first_seed, EVALUATION.first_seed + EVALUATION.worlds):
            yield cut_pictures(generator, seed, EVALUATION, np.random.default_rng((EVALUATION.seed, seed)))
    elif kind == "nci-fcg":
        yield from cut_worlds(lambda seed: partial(render_part, generator, seed, None), config, EVALUATION)
    else:
        yield from cut_worlds(partial(open_world, generator), config, EVALUATION)


def compared(sets: DescribedSets, references: References, name: str, photographs: str) -> Findings:
    """Returns a set's distances to a set of the held-out photographs."""
    return distances(*references.compare(sets, name, photographs))


def evaluated(generator: Generator, data: str, networks: Networks) -> tuple[DescribedSets, References]:
    """Describes the worlds, and the photographs as a network with patches of this size sees them."""
    references = describe_photographs(data, generator.config, EVALUATION, networks)
    return describe(watched("Worlds", cut(generator), EVALUATION.worlds), networks), references


def results_of(worlds: DescribedSets, references: References) -> tuple[Findings, Findings]:
    """Returns, by set, the distances of a network's pictures and of its training photographs."""
    reals = {PATCH: PATCH, **{frame(scale): frame() for scale in EVALUATION.scales}}
    floor = {name: compared(references.trained, references, name, name) for name in (PATCH, frame())}
    own = {name: compared(worlds, references, name, photographs) for name, photographs in reals.items()}
    return own, {name: floor[photographs] for name, photographs in reals.items()}


def picture(shown: Mapping[str, DescribedSets], references: References) -> Image.Image:
    """Draws one row per network: one world at each scale, next to a photograph; all of the same size."""
    photographs = references.held_out[frame()].examples
    rows = []
    for place, (name, worlds) in enumerate(shown.items()):
        at_scales = torch.cat([worlds[frame(scale)].examples[:1] for scale in EVALUATION.scales])
        rows.append((name, (photographs[place : place + 1], at_scales)))
    body = sheet(rows)
    whole = Image.new("RGB", (body.width, body.height + 3 * GAP_PX), PAPER)
    whole.paste(body, (0, 3 * GAP_PX))
    titles, side = ImageDraw.Draw(whole), references.config.full_px
    titles.text((LABEL_PX, GAP_PX), "a photograph", INK)
    for place, scale in enumerate(EVALUATION.scales):
        titles.text((LABEL_PX + GAP_PX + (place + 1) * side, GAP_PX), f"{scale}x the field of view", INK)
    return whole


def show(results: Mapping[str, Findings]) -> None:
    """Prints the table: networks by scales."""
    sets = next(iter(results.values()))
    measures = [name for name in next(iter(sets.values())) if name.startswith(("KID", "FD"))]
    rows = [
        [
            measure,
            name,
            *(f"{number(row[measure]['value'])} ± {number(row[measure]['error'])}" for row in found.values()),
        ]
        for measure in measures
        for name, found in results.items()
    ]
    Console(width=140).print(table("Distance to held-out photographs", ["", "network", *sets], rows))


def compare(runs: Mapping[str, TrainOptions], data: str, out: Path) -> dict[str, Findings]:
    """Trains the missing networks, evaluates all, and writes the report and the picture."""
    for options in filter(begun, runs.values()):
        check_run(options)
    checkpoints = {name: trained(options) for name, options in runs.items()}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    networks = feature_networks(Lpips(), None, device)
    results: dict[str, Findings] = {}
    shown: dict[str, DescribedSets] = {}
    for name, checkpoint in checkpoints.items():
        shown[name], references = evaluated(checkpoint.generator.to(device), data, networks)
        results[name], floor = results_of(shown[name], references)
    results[FLOOR] = floor
    report = {
        "runs": {name: dataclasses.asdict(options) for name, options in runs.items()},
        "checkpoints": {name: {"sha256": x.sha256, "provenance": x.provenance} for name, x in checkpoints.items()},
        "evaluation": dataclasses.asdict(EVALUATION),
        "results": results,
    }
    (out / "ablation.json").write_text(json.dumps(report, indent=2))
    picture(shown, references).save(out / "ablation.png")
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=16_000)
    parser.add_argument("--preset-family", choices=list(FAMILIES), default="small")
    parser.add_argument("--precision", type=precision_name, choices=list(PRECISIONS))
    given = parser.parse_args()
    runs = {
        name: TrainOptions(given.data, str(given.out / preset), preset, images=given.images, precision=given.precision)
        for name, preset in FAMILIES[given.preset_family].items()
    }
    show(compare(runs, given.data, given.out))


if __name__ == "__main__":
    reuse_freed_memory()
    try:
        main()
    except InputError as error:
        sys.exit(refuse(str(error)))
