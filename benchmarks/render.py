"""Measures rendering: `infinitygan bench`, and the patch-by-patch way on the same pixels.

python benchmarks/render.py [--preset small] [--preset paper] [--out FILE.json]

The patch-by-patch way follows the authors' release, in a fair implementation: patches of 101 px, 96 of which are new,
each from its own window of cells; the style modulates and demodulates the weights for each patch; channels first.
"""

import json
from collections.abc import Sequence
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from model import cost, geometry, speed
from model.geometry import Window
from model.memory import reuse_freed_memory
from model.networks.generator import Generator
from model.networks.layers import GAIN, LEAK, ModulatedConvolution, blur, upsample_skip
from model.networks.structure import crop_to
from model.world.fields import z_g_vector
from model.world.world import World
from pipelines.bench import bench, table

TURNS = {"paper": 3, "small": 30, "tiny": 30}
USEFUL_CELLS = 6
"""Patches of 11 cells overlap in 5."""

TARGET, FAIR = 1.35, 0.9


def modulated(convolution: ModulatedConvolution, x: Tensor, style: Tensor) -> Tensor:
    """Applies a convolution whose weights are modulated and demodulated by the style for this patch."""
    weight = convolution.weight * convolution.gain * convolution.affine(style)[0, :, None, None]
    if convolution.demodulate:
        weight = weight * torch.rsqrt(weight.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8)
    if convolution.up:
        return blur(F.conv_transpose2d(x, weight.transpose(0, 1).flip(2, 3), stride=2, padding=1))
    return F.conv2d(x, weight)


def activated(x: Tensor, bias: Tensor) -> Tensor:
    """Applies bias and leaky ReLU in place."""
    return F.leaky_relu_(x.add_(bias[:, None, None]), LEAK).mul_(GAIN)


class PatchByPatch:
    """Computes patches of a plain world independently."""

    def __init__(self, generator: Generator, world: World):
        self.generator, self.config, self.latents = generator, generator.config, world.latents
        self.z_g = z_g_vector(world.definition.seed, self.config.z_g_dim, speed.device())
        self.side_px = self.config.cell_px * USEFUL_CELLS

    def windows(self, row: int, column: int) -> tuple[Window, Window]:
        """Returns the cells of z_S of a patch."""
        low_row, low_column = row * USEFUL_CELLS, column * USEFUL_CELLS
        last = self.config.visible_cells - 1
        return (low_row, low_row + last), (low_column, low_column + last)

    def patch(self, row: int, column: int) -> Tensor:
        """Computes pixels [3,101,101] of a patch."""
        return self.patches([(row, column)])[0]

    def patches(self, places: Sequence[tuple[int, int]]) -> Tensor:
        """Computes pixels [N,3,101,101] of the patches at some rows and columns as one batch."""
        texture, w = self.generator.texture, self.generator.mapping(self.z_g)
        fields = [self.fields(*self.windows(row, column)) for row, column in places]
        z_l, coordinate_fields, noise_fields = zip(*fields, strict=True)
        x, coordinates = torch.cat(z_l), torch.cat(coordinate_fields)
        for block in self.generator.structure.blocks:
            x = torch.cat([x, crop_to(coordinates, x)], dim=1)
            x = activated(modulated(block.convolution, x, self.z_g), block.bias)
        z_n = [torch.cat(layer) for layer in zip(*noise_fields, strict=True)]
        rgb = None
        for index, (layer, noise) in enumerate(zip(texture.layers, z_n, strict=True)):
            x = modulated(layer.convolution, x, w)
            x = activated(x.add_(noise * layer.noise_strength), layer.bias)
            if index % 2:
                to_rgb = texture.to_rgb[index // 2]
                new = modulated(to_rgb.convolution, x, w) + to_rgb.bias[:, None, None]
                rgb = new if rgb is None else upsample_skip(rgb) + new
        assert rgb is not None
        return rgb

    def fields(self, rows: Window, columns: Window) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Returns local latents, coordinates, and the noise of each layer, for a patch of these cells of z_S."""
        latents = [geometry.backward(self.config.structure, window) for window in (rows, columns)]
        outputs = zip(*(geometry.outputs(self.config.texture, window) for window in (rows, columns)), strict=True)
        z_n = self.latents.z_n([(layer, *windows) for layer, windows in enumerate(outputs)])
        return self.latents.z_l(*latents), self.latents.coordinates(*latents), z_n


@torch.inference_mode()
def convolution_rates(generator: Generator) -> tuple[float, float]:
    """Returns FLOP/s of the 3×3 convolutions of a single patch, and of the fastest channels-first one as wide."""
    config, sides = generator.config, [generator.config.visible_cells]
    sides += [geometry.length(window) for window in geometry.outputs(config.texture, (0, sides[0] - 1))]
    calls, operations = [], []
    for side, layer in zip(sides, generator.texture.layers, strict=False):
        weight = layer.convolution.weight
        outputs, inputs = weight.shape[:2]
        x = torch.randn(1, inputs, side, side, device=weight.device)
        calls.append(convolution(layer.convolution.up, x, weight))
        operations.append(2 * inputs * outputs * 9 * (side if layer.convolution.up else side - 2) ** 2)
    times = speed.fastest(calls, 5)
    plain = [work / time for work, time in zip(operations[1::2], times[1::2], strict=True)]
    return sum(operations) / sum(times), max(plain)


def convolution(up: bool, x: Tensor, weight: Tensor) -> speed.Call:
    """Returns a call of a convolution as a patch's layer runs it."""
    turned = weight.transpose(0, 1).flip(2, 3)
    if up:
        return lambda: F.conv_transpose2d(x, turned, stride=2, padding=1)
    return lambda: F.conv2d(x, weight)


def compare(preset: str) -> dict[str, float]:
    """Measures tiles and patches in turn, and checks that the pixels that both compute are equal."""
    generator = speed.network(preset)
    world = World(generator, 7)
    patches = PatchByPatch(generator, world)
    with torch.inference_mode():
        rows, columns = (geometry.forward(generator.config.texture, window) for window in patches.windows(-1, 2))
        apart = float((patches.patch(-1, 2) - world.render(rows, columns)).abs().max())
    if not apart < 1e-3:
        raise AssertionError(f"{preset}: a patch and its tile differ by {apart}")
    calls = [speed.tile(world, 0), lambda: patches.patch(-1, 2)]
    speed.fastest(calls, 1)
    tile_s, patch_s = speed.fastest(calls, TURNS[preset])
    own, best = convolution_rates(generator)
    ours, theirs = speed.TILE_PX**2 / tile_s, patches.side_px**2 / patch_s
    return {
        "tile_megapixels_per_s": ours / 1e6,
        "patch_megapixels_per_s": theirs / 1e6,
        "times_as_fast": ours / theirs,
        "patch_convolutions_of_their_best": own / best,
        "patch_margin_share": patch_margins(generator, patches.side_px),
        "largest_difference": apart,
    }


def patch_margins(generator: Generator, side_px: int) -> float:
    """Returns the share of a patch's arithmetic that its new pixels do not need."""
    config = generator.config
    window = geometry.forward(config.texture, (0, config.visible_cells - 1))
    spent = cost.spent(config, window, window)
    return 1 - cost.needed(config, side_px, side_px).network / spent.network


def show(rows: dict[str, dict[str, float]]) -> Table:
    shown = Table(title="A tile of 256 px against patches of 101 px")
    shown.add_column("figure")
    for preset in rows:
        shown.add_column(preset, justify="right")
    for name in next(iter(rows.values())):
        shown.add_row(name.replace("_", " "), *(f"{figures[name]:.3g}" for figures in rows.values()))
    return shown


def main(
    preset: Annotated[list[str] | None, typer.Option()] = None,
    out: Annotated[str | None, typer.Option()] = None,
) -> None:
    presets = preset or ["paper", "small"]
    document: dict[str, Any] = bench(presets)
    document["patch_by_patch"] = rows = {name: compare(name) for name in presets}
    console = Console()
    console.print(table(document))
    console.print(show(rows))
    console.print(f"Targets: {TARGET} × as fast as patch by patch, whose convolutions run at {FAIR} of their best.")
    if out:
        with open(out, "w") as file:
            json.dump(document, file, indent=2)


if __name__ == "__main__":
    reuse_freed_memory()
    typer.run(main)
