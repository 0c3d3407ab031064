"""Looks for the causes of flaws beyond the photographs' frame: holes, scraps, hatching and clipped colours.

python benchmarks/flaws.py clipping CHECKPOINT [--worlds 40]
python benchmarks/flaws.py distances CHECKPOINT DATA
python benchmarks/flaws.py picture CHECKPOINT FILE.png [--seeds 23 6 9]

Worlds are rendered with one input of the network changed at a time. `clipping` prints the share of pixels with a
channel at 0, 1, 254 or 255 in windows far above and below the horizon: of all worlds, and without the three worst.
`distances` prints KID in EfficientNet-Lite0's features, by height and by scale, for factors of z_l; it takes fewer
pictures than `evaluate`. `picture` draws columns of worlds from far above the horizon to far below, one row for each
world.
"""

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from rich.console import Console
from rich.table import Table
from torch import Tensor

from model.bundled import resolve
from model.checkpoint import load_checkpoint
from model.geometry import Window
from model.memory import reuse_freed_memory
from model.metrics.feature_networks import feature_networks
from model.metrics.statistics import clipped
from model.networks.generator import Generator
from model.quantise import quantise
from model.world.definition import Definition
from model.world.engine import Engine, StyleVectors
from model.world.fields import NoiseWindow
from model.world.latents import Latents
from model.world.styles import kept_mean_w, styles_of
from model.world.world import World
from pipelines.evaluate import describe_photographs, describe_worlds
from transforms.evaluation.results import measure
from transforms.evaluation.settings import Evaluation
from transforms.evaluation.windows import render_window
from transforms.storage.tensor_files import read_tensors

FIRST_WORLD, WORST = 1000, 3
FAR_PX, SIDE_PX, WIDTH_PX = 388, 101, 404
COLUMN_PX, GAP_PX = (450, 200), 16

FEW = Evaluation(
    patches=4,
    bands_px=(-388, -128, 0, 128, 388),
    band_patches=4,
    band_crops=6,
    scales=(1, 2, 4),
    frames=2,
    frame_crops=4,
    trained_photographs=20,
)


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """A change of the network's inputs.

    Attributes:
        noise_layers: The layers of G_T that keep their noise; None for all.
        z_l: The factor of the local latents.
        furthest_cells: The distance from the horizon beyond which the vertical coordinate stays the same.
        one_column: Whether the horizontal coordinates are those of column 0 everywhere.
        mean_w: Whether all layers of G_T have the average style.
    """

    noise_layers: tuple[int, ...] | None = None
    z_l: float = 1.0
    furthest_cells: int | None = None
    one_column: bool = False
    mean_w: bool = False


CHANGES = {
    "none": Change(),
    "without noise": Change(noise_layers=()),
    "noise of layer 3 alone": Change(noise_layers=(3,)),
    "noise of layer 4 alone": Change(noise_layers=(4,)),
    "z_l x 0.85": Change(z_l=0.85),
    "z_l x 0.7": Change(z_l=0.7),
    "z_l x 0.5": Change(z_l=0.5),
    "vertical coordinate of the frame's edge": Change(furthest_cells=6),
    "one column's coordinates": Change(one_column=True),
    "average w": Change(mean_w=True),
}


class ChangedLatents(Latents):
    """The inputs of a world, with a change."""

    def __init__(self, latents: Latents, change: Change):
        super().__init__(latents.definition, latents.config)
        self.change = change

    def z_l(self, rows: Window, columns: Window) -> Tensor:
        """Returns the local latents."""
        return super().z_l(rows, columns) * self.change.z_l

    def z_n(self, windows: Sequence[NoiseWindow]) -> list[Tensor]:
        """Returns the noise."""
        kept = self.change.noise_layers
        fields = zip(windows, super().z_n(windows), strict=True)
        return [field if kept is None or layer in kept else 0 * field for (layer, _, _), field in fields]

    def coordinates(self, rows: Window, columns: Window) -> Tensor:
        """Returns the coordinates."""
        field = super().coordinates(rows, columns)
        if self.change.furthest_cells is not None:
            cells = torch.arange(rows[0], rows[1] + 1).clamp(-self.change.furthest_cells, self.change.furthest_cells)
            field[:, 0] = torch.tanh(self.config.vertical_step * cells.double()).float()[None, :, None]
        if self.change.one_column:
            field[:, 1:] = super().coordinates((0, 0), (0, 0))[:, 1:]
        return field


def changed_world(generator: Generator, seed: int, change: Change) -> World:
    """Returns a world with a change of its inputs."""
    world = World(generator, Definition(seed, local_truncation=1))
    world.latents = ChangedLatents(world.latents, change)
    if change.mean_w:
        own = styles_of(world.definition, generator, "cpu", {})(0)
        mean = StyleVectors(own.z_g, [kept_mean_w(generator)] * len(own.ws))
        with torch.inference_mode():
            world.engine = Engine(generator, [mean].__getitem__)
    return world


def clipping(generator: Generator, worlds: int) -> None:
    """Prints the share of clipped pixels."""
    table = Table("change", "above", "without the worst", "below", "without the worst")
    for name, change in CHANGES.items():
        cells = []
        for y in (-FAR_PX, FAR_PX):
            rows, columns = (y - SIDE_PX // 2, y + SIDE_PX // 2), (0, WIDTH_PX - 1)
            seeds = range(FIRST_WORLD, FIRST_WORLD + worlds)
            pictures = [render_window(changed_world(generator, seed, change).render, rows, columns) for seed in seeds]
            shares = clipped(torch.stack(pictures)).sort().values
            cells += [f"{shares.mean():.1%} ± {shares.std() / worlds**0.5:.1%}", f"{shares[:-WORST].mean():.1%}"]
        table.add_row(name, *cells)
    Console().print(table)


def distances(generator: Generator, data: str) -> None:
    """Prints KID, and precision and recall of patches, for factors of z_l."""
    networks = feature_networks(None, None, "cpu")
    references = describe_photographs(data, generator.config, FEW, networks)
    factors = [name for name in CHANGES if name == "none" or "z_l" in name]
    table, rows = Table("set", *factors), dict[str, list[str]]()
    for name in factors:
        worlds = partial(renderer, generator, CHANGES[name])
        found = measure(describe_worlds(worlds, references, networks), references)
        for part, values in {**found["sets"], **found["bands"]}.items():
            for key in [key for key in values if key.partition("-")[0] in ("KID", "precision", "recall")]:
                rows.setdefault(f"{key}, {part}", []).append("{value:.4f} ± {error:.4f}".format(**values[key]))
    for row, cells in rows.items():
        table.add_row(row, *cells)
    Console().print(table)


def renderer(generator: Generator, change: Change, seed: int) -> Callable[[Window, Window], Tensor]:
    """Returns the function that renders windows of a changed world."""
    return changed_world(generator, seed, change).render


def picture(generator: Generator, seeds: Sequence[int]) -> Image.Image:
    """Draws columns of worlds at half their size, one row for each world."""
    height, width = COLUMN_PX
    page = Image.new("RGB", (len(CHANGES) * (width + 4), len(seeds) * (height + GAP_PX)), "white")
    for row, seed in enumerate(seeds):
        for column, (name, change) in enumerate(CHANGES.items()):
            world = changed_world(generator, seed, change)
            drawn = quantise(world.render((-height, height - 1), (0, 2 * width - 1)))
            one = Image.fromarray(drawn.permute(1, 2, 0).contiguous().numpy()).reduce(2)
            corner = column * (width + 4), row * (height + GAP_PX)
            page.paste(one, (corner[0], corner[1] + GAP_PX))
            ImageDraw.Draw(page).text(corner, f"{seed}, {name[:30]}", "black")
    return page


def main() -> None:
    """Runs one of the three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    for name in ("clipping", "distances", "picture"):
        parts.add_parser(name).add_argument("checkpoint")
    parts.choices["clipping"].add_argument("--worlds", type=int, default=40)
    parts.choices["distances"].add_argument("data")
    parts.choices["picture"].add_argument("file", type=Path)
    parts.choices["picture"].add_argument("--seeds", type=int, nargs="+", default=[23, 6, 9])
    arguments = parser.parse_args()
    reuse_freed_memory()
    url = resolve(arguments.checkpoint)
    generator = load_checkpoint(read_tensors(url), url).generator
    if arguments.part == "clipping":
        clipping(generator, arguments.worlds)
    elif arguments.part == "distances":
        distances(generator, arguments.data)
    else:
        picture(generator, arguments.seeds).save(arguments.file)


if __name__ == "__main__":
    main()
