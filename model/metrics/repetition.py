"""Measures whether a long panorama repeats itself with the period of its horizontal coordinate, T cells."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from model.metrics.distances import Estimate

BLOCK_CELLS = 10
SHUFFLES = 200


@dataclass(frozen=True, slots=True)
class Repetition:
    """Correlation of panoramas with themselves shifted by one period; 1 would be a copy.

    Attributes:
        at_period: The mean over worlds, with its standard error.
        shuffled_mean: The mean of controls, in which the columns of one period are shuffled in blocks.
        shuffled_95: The 95th percentile of these controls.
    """

    at_period: Estimate
    shuffled_mean: float
    shuffled_95: float


def repetition(panoramas: Tensor, period_px: int, cell_px: int, seed: int = 0) -> Repetition:
    """Measures panoramas [N,3,H,W], where W is a multiple of the period and at least two periods.

    Pictures are averaged over cells, and each row's mean is subtracted, so that similar skies do not count.
    """
    columns = period_px // cell_px
    cells = F.avg_pool2d(panoramas.double(), cell_px)
    cells = (cells - cells.mean(dim=3, keepdim=True)).unflatten(3, (-1, columns))
    first, second = cells[:, :, :, :-1], cells[:, :, :, 1:]
    values = correlation(first, second)
    random, controls = torch.Generator().manual_seed(seed), []
    blocks = torch.arange(columns).split(BLOCK_CELLS)
    for _ in range(SHUFFLES):
        order = torch.cat([blocks[n] for n in torch.randperm(len(blocks), generator=random).tolist()])
        controls.append(correlation(first, second[..., order]).mean())
    shuffled = torch.stack(controls)
    return Repetition(
        Estimate(float(values.mean()), float(values.std() / len(values) ** 0.5)),
        float(shuffled.mean()),
        float(shuffled.quantile(0.95)),
    )


def correlation(x: Tensor, y: Tensor) -> Tensor:
    """Returns the correlation of each of N pairs over all other axes: [N]."""
    x, y = x.flatten(1), y.flatten(1)
    return (x * y).sum(dim=1) / (x.square().sum(dim=1) * y.square().sum(dim=1)).sqrt()
