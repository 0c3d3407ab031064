"""Measures the quality of outpainting: the pictures next to photographs, and the transition between them.

python benchmarks/outpaint.py PHOTOGRAPHS OVERLAY... [--checkpoint FILE] [--out FILE.json]

PHOTOGRAPHS is a folder of photographs that the network has not seen; the OVERLAYs are made from others it has not
seen. To the left and right of each overlay's photograph two squares of its height are taken: from several outpainted
variants, from plain worlds at the same place, and from mirrored and replicated edges. KID compares them with squares
of the photographs, scaled to the same height; its error is the bootstrap's over photographs.

The step across the border is the mean absolute difference of neighbouring columns there, of 255, and of their
differences to the columns next to them. It is compared with the same between columns inside the photographs.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from model.bundled import CHECKPOINT
from model.checkpoint import load_checkpoint
from model.metrics.distances import WeightedValues, bootstrap_weights, estimate, kernel_distance
from model.metrics.feature_networks import FeatureNetwork, feature_networks
from model.networks.generator import Generator
from model.quantise import quantise
from model.world.definition import Definition, Style
from model.world.overlay import Overlay, box_windows
from model.world.world import World
from transforms.applications.arrange import PASTE_PX
from transforms.applications.invert import fit
from transforms.panoramas.overlays import read_overlay

VARIANTS, SQUARES, DRAWS = 4, 2, 200


def widened(generator: Generator, overlay: Overlay, definition: Definition) -> npt.NDArray[np.int64]:
    """Renders the window of a world that is SQUARES wider on each side than the photograph: [h,w,3]."""
    rows, (left, right) = box_windows(overlay.box_px)
    more = SQUARES * overlay.box_px[3]
    pixels = World(generator, definition, overlays={"o": overlay}).render(rows, (left - more, right + more))
    return quantise(pixels).permute(1, 2, 0).numpy().astype(np.int64)


def beside(picture: npt.NDArray[np.int64], side: int) -> Tensor:
    """Returns the squares on the left and right of a widened picture: uint8 [N,3,side,side]."""
    starts = [k * side for k in range(SQUARES)]
    starts += [picture.shape[1] - start - side for start in starts]
    return torch.stack([torch.from_numpy(picture[:, x : x + side].astype(np.uint8)).permute(2, 0, 1) for x in starts])


def steps(picture: npt.NDArray[np.int64], columns: list[int]) -> npt.NDArray[np.float64]:
    """Returns the mean colour step and gradient step between each column and the one before."""
    result = []
    for x in columns:
        step = picture[:, x] - picture[:, x - 1]
        before, after = picture[:, x - 1] - picture[:, x - 2], picture[:, x + 1] - picture[:, x]
        result.append((np.abs(step).mean(), np.abs(step - (before + after) / 2).mean()))
    return np.array(result)


def sample(groups: list[Tensor], network: FeatureNetwork, seed: int) -> WeightedValues:
    """Returns the features of squares, where each group is resampled as one."""
    numbers = torch.cat([torch.full((len(group),), place) for place, group in enumerate(groups)])
    return WeightedValues(network.features(torch.cat(groups)), numbers, bootstrap_weights(len(groups), DRAWS, seed))


def squares(photographs: Path, side: int) -> list[Tensor]:
    """Cuts the photographs into squares."""
    groups = []
    for path in sorted(photographs.iterdir()):
        if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"):
            pixels = torch.from_numpy(fit(path.read_bytes(), None, side).copy()).permute(2, 0, 1)
            lefts = range(0, pixels.shape[2] - side + 1, side)
            groups.append(torch.stack([pixels[:, :, left : left + side] for left in lefts]))
    return groups


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photographs", type=Path)
    parser.add_argument("overlays", nargs="+")
    parser.add_argument("--checkpoint", default=str(CHECKPOINT))
    parser.add_argument("--out")
    arguments = parser.parse_args()
    generator = load_checkpoint(Path(arguments.checkpoint).read_bytes(), arguments.checkpoint).generator
    ways = ("outpainted", "plain worlds", "mirrored", "edges replicated")
    found: dict[str, list[Tensor]] = {way: [] for way in ways}
    seams: dict[str, list[npt.NDArray[np.float64]]] = {"pasted": [], "not pasted": [], "inside photographs": []}
    for number, overlay in enumerate(map(read_overlay, arguments.overlays)):
        _, _, width, side = overlay.box_px
        photograph = overlay.photograph.permute(1, 2, 0).numpy().astype(np.int64)
        more = SQUARES * side
        made: list[Tensor] = []
        for seed in range(VARIANTS):
            for paste_px, name in ((PASTE_PX, "pasted"), (None, "not pasted")):
                style, where = Style(overlay="o"), {"overlays": ("o",), "paste_px": paste_px}
                picture = widened(generator, overlay, Definition(seed, styles=(style,), **where))
                seams[name].append(steps(picture, [more, more + width]))
            made.append(beside(picture, side))
        seams["inside photographs"].append(steps(photograph, list(range(2, width - 1))))
        worlds = [widened(generator, overlay, Definition(1000 * (number + 1) + seed)) for seed in range(VARIANTS)]
        found["outpainted"].append(torch.cat(made))
        found["plain worlds"].append(torch.cat([beside(world, side) for world in worlds]))
        for way, mode in (("mirrored", "symmetric"), ("edges replicated", "edge")):
            padded = np.pad(photograph, ((0, 0), (more, more), (0, 0)), mode=mode)  # type: ignore[call-overload]
            found[way].append(beside(padded, side))
    network = feature_networks(None, None, "cpu")["EffNetLite0"]
    reference = sample(squares(arguments.photographs, side), network, 0)
    distances = {way: estimate(kernel_distance(sample(found[way], network, 1), reference)) for way in ways}
    table = Table("next to the photographs", "KID (EffNetLite0)", "±")
    for way, distance in distances.items():
        table.add_row(way, f"{distance.value:.3f}", f"{distance.error:.3f}")
    borders = Table("step between columns, of 255", "colour", "gradient")
    means = {name: np.concatenate(values).mean(axis=0).tolist() for name, values in seams.items()}
    for name, (colour, gradient) in means.items():
        borders.add_row(name, f"{colour:.1f}", f"{gradient:.1f}")
    Console().print(table, borders)
    if arguments.out:
        kid = {way: [distance.value, distance.error] for way, distance in distances.items()}
        Path(arguments.out).write_text(json.dumps({"kid": kid, "steps": means}, indent=2))


if __name__ == "__main__":
    main()
