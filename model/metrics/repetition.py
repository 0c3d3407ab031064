"""Whether a long panorama repeats itself where its horizontal coordinate does, every T cells."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from model.metrics.distances import Estimate

BLOCK_CELLS = 10
SHUFFLES = 200


@dataclass(frozen=True, slots=True)
class Repetition:
    """Correlation of panoramas with themselves one period on; 1 would be a copy.

    Attributes:
        at_period: the mean over worlds, with its standard error.
        shuffled_mean: of the same with the columns of one period shuffled in blocks.
        shuffled_95: below this lie 95 of 100 such controls.
    """

    at_period: Estimate
    shuffled_mean: float
    shuffled_95: float


def repetition(panoramas: Tensor, period_px: int, cell_px: int, seed: int = 0) -> Repetition:
    """Of panoramas [N,3,H,W], W a multiple of the period and at least two.

    Pictures are averaged over cells, and each row's mean is taken away: that sky is like sky does not count.
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
    """Of each of N pairs, over all other axes: [N]."""
    x, y = x.flatten(1), y.flatten(1)
    return (x * y).sum(dim=1) / (x.square().sum(dim=1) * y.square().sum(dim=1)).sqrt()
