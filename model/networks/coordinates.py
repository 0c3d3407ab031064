"""The coordinates that G_S sees, and how training draws them (paper, Appendix B).

c = (tanh v, cos φ, sin φ) with v = d·row and φ = 2π·column/T. Row 0 is the horizon; rows grow downwards. For both
photographs and generated windows t is uniform in [-1, 1]. A photograph is cropped at top = (full - patch)(t + 1)/2,
and the middle row of a generated window lies V/2·t cells below the horizon. The same t gives the same label.

The paper's law, kept to reproduce the paper, starts windows at V + 1 whole rows and T whole columns, each moved by
up to half a cell. Its windows travel further than the photographs' crops do.
"""

import math

import torch
from torch import Tensor

from model import geometry
from model.config import GeneratorConfig

CHANNELS = 3

BEYOND_CELLS = 20
"""How far beyond the photographs' frame a training window may lie; coordinates are constant there already."""


def coordinate_field(config: GeneratorConfig, rows: Tensor, columns: Tensor, turn_cells: int | None = None) -> Tensor:
    """Computes the coordinates at a grid of cells.

    Args:
        config: The network's configuration, which gives d and T.
        rows: The positions [H] in cells below the horizon; any real numbers.
        columns: The positions [W] in cells.
        turn_cells: The width of a cyclic world, in which T is stretched until it fits a whole number of times.

    Returns:
        float32 [3,H,W].
    """
    vertical = torch.tanh(config.vertical_step * rows.double())
    turn = config.period_cells if turn_cells is None else turn_cells
    times = max(1, round(turn / config.period_cells))
    phase = columns.double().remainder(turn) * (2 * math.pi * times / turn)
    shape = (len(rows), len(columns))
    field = torch.stack(
        [vertical[:, None].expand(shape), phase.cos()[None, :].expand(shape), phase.sin()[None, :].expand(shape)]
    )
    return field.float()


def draw_windows(
    config: GeneratorConfig, batch: int, random: torch.Generator, beyond_share: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Draws the coordinates of random training windows, by the vertical law.

    Args:
        config: The network's configuration, which gives the law.
        batch: The number of windows.
        random: The source of randomness.
        beyond_share: q, the share of windows that lie up to 20 cells beyond the photographs' frame.

    Returns:
        Coordinates [N,3,R,R] and t [N], each window's vertical position clamped to [-1, 1].
    """
    t = draw_positions(config, batch, random)
    if beyond_share:
        chosen, far = torch.rand(2, batch, generator=random)
        outside = t.sign() * (1 + 2 * BEYOND_CELLS / config.travel_cells * far)
        t = torch.where(chosen < beyond_share, outside, t)
    middle_column = draw_columns(config, batch, random)
    offsets = torch.arange(config.latent_cells) - (config.latent_cells - 1) / 2
    fields = [
        coordinate_field(config, config.travel_cells / 2 * position + offsets, column + offsets)
        for position, column in zip(t, middle_column, strict=True)
    ]
    return torch.stack(fields), t.clamp(-1, 1)


def draw_frames(config: GeneratorConfig, batch: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Returns coordinates [N,3,R',R'] of windows as high as a photograph and centred on the horizon, and t = 0 [N]."""
    low, high = geometry.backward(config.structure, (0, config.frame_cells - 1))
    offsets = torch.arange(high - low + 1) - (high - low) / 2
    columns = draw_columns(config, batch, random)
    return torch.stack([coordinate_field(config, offsets, column + offsets) for column in columns]), torch.zeros(batch)


def draw_positions(config: GeneratorConfig, batch: int, random: torch.Generator) -> Tensor:
    """Draws t [N] of the middle rows: uniform in [-1, 1], or up to ±(1 + 1/V) by the paper's law."""
    if config.vertical_law == "paper":
        travel = int(config.travel_cells)
        row = torch.randint(travel + 1, (batch,), generator=random)
        return (row + half_a_cell(batch, random)) * 2 / travel - 1
    return torch.rand(batch, generator=random) * 2 - 1


def draw_columns(config: GeneratorConfig, batch: int, random: torch.Generator) -> Tensor:
    """Draws the middle columns [N], anywhere in the period."""
    if config.vertical_law == "paper":
        return torch.randint(config.period_cells, (batch,), generator=random) + half_a_cell(batch, random)
    return torch.rand(batch, generator=random) * config.period_cells


def half_a_cell(batch: int, random: torch.Generator) -> Tensor:
    """Draws the shifts [N] of the paper's law: up to half a cell either way, the same for cos and sin."""
    return torch.rand(batch, generator=random) - 0.5


def vertical_label(config: GeneratorConfig, t: Tensor) -> Tensor:
    """Returns the label of the vertical task for position t: tanh v of the window's middle row."""
    return torch.tanh(config.vertical_step * config.travel_cells / 2 * t)
