"""Distances between two sets of pictures, given as features or statistics, and their standard errors.

Pictures come in groups: the crops of one photograph, or the windows of one world. Pictures of a group resemble each
other, so the bootstrap resamples groups. Each function takes the weights of such draws, one row per draw and one
column per group, and returns one value per draw. The first row is all ones; its value is the measurement itself.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 1024
"""The number of rows of a matrix of all pairs that are held in memory at once."""

NEIGHBOURS = 3


@dataclass(frozen=True, slots=True)
class Estimate:
    """A measured value and its standard error by bootstrap."""

    value: float
    error: float


def estimate(values: Tensor) -> Estimate:
    """Summarises one value per draw, the measurement first. A draw that repeats a single group may have no value."""
    draws = values[1:]
    return Estimate(float(values[0]), float(draws[draws.isfinite()].std()))


def bootstrap_weights(groups: int, draws: int, seed: int) -> Tensor:
    """Returns how often each draw takes each group, float64: once in the first row, at random in `draws` more."""
    random = torch.Generator().manual_seed(seed)
    chosen = torch.randint(groups, (draws, groups), generator=random)
    drawn = torch.zeros(draws, groups, dtype=torch.float64).scatter_add_(1, chosen, torch.ones(draws, groups).double())
    return torch.cat([torch.ones(1, groups, dtype=torch.float64), drawn])


@dataclass(frozen=True, slots=True)
class WeightedValues:
    """Values of pictures, float [N] or [N,d], the group of each, int64 [N], and the groups' weights [draws,G]."""

    values: Tensor
    groups: Tensor
    weights: Tensor

    @property
    def each(self) -> Tensor:
        """Returns the weight of each picture, [draws,N]."""
        return self.weights[:, self.groups]

    def sums(self, values: Tensor) -> Tensor:
        """Sums values [N,...] over each group: float64 [G,...]."""
        total = torch.zeros(self.weights.shape[1], *values.shape[1:], dtype=torch.float64)
        return total.index_add_(0, self.groups, values.double())

    @property
    def counts(self) -> Tensor:
        """Returns the number of pictures in each group: float64 [G]."""
        return self.sums(torch.ones(len(self.groups)))


def mean(x: WeightedValues) -> Tensor:
    """Returns the mean, [draws] or [draws,d]."""
    total = x.weights @ x.sums(x.values)
    return total / (x.weights @ x.counts).reshape(-1, *[1] * (total.ndim - 1))


def deviation(x: WeightedValues) -> Tensor:
    """Returns the standard deviation of values [N], [draws]."""
    square = x.weights @ x.sums(x.values.double().square()) / (x.weights @ x.counts)
    return (square - mean(x).square()).clamp(min=0).sqrt()


def kernel_distance(x: WeightedValues, y: WeightedValues) -> Tensor:
    """Computes KID: the unbiased squared maximum mean discrepancy, kernel (x·y/d + 1)³ (Bińkowski et al. 2018).

    No picture is paired with itself or with a copy of itself in a draw.
    """
    across = torch.einsum("bg,gh,bh->b", x.weights, kernel_sums(x, y), y.weights)
    across = across / (x.weights @ x.counts) / (y.weights @ y.counts)
    return _kernel_within(x) + _kernel_within(y) - 2 * across


def _kernel_within(x: WeightedValues) -> Tensor:
    squares = x.weights.square()
    itself = (x.values.double().square().mean(dim=1) + 1) ** 3
    pairs = (x.weights @ x.counts).square() - squares @ x.counts
    total = torch.einsum("bg,gh,bh->b", x.weights, kernel_sums(x, x), x.weights) - squares @ x.sums(itself)
    return total / pairs


def kernel_sums(x: WeightedValues, y: WeightedValues) -> Tensor:
    """Sums the kernel over all pairs of two groups: float64 [G,H]. Memory does not grow with the number of pairs."""
    values, sums = y.values.double(), torch.zeros(x.weights.shape[1], y.weights.shape[1], dtype=torch.float64)
    for part, groups in zip(x.values.double().split(BLOCK), x.groups.split(BLOCK), strict=True):
        kernel = (part @ values.T / values.shape[1] + 1) ** 3
        sums.index_add_(0, groups, y.sums(kernel.T).T)
    return sums


def frechet_distance(x: WeightedValues, y: WeightedValues) -> Tensor:
    """Computes the Fréchet distance between normal distributions fitted to the samples (Heusel et al. 2017).

    With fewer pictures than features, covariances do not have full rank: the distance is exact for the given pictures,
    but larger than for many pictures. Compare it only at equal numbers of pictures.
    """
    draws = []
    for mine, theirs in zip(x.each, y.each, strict=True):
        (mean_x, root_x), (mean_y, root_y) = normal(x.values, mine), normal(y.values, theirs)
        # The trace of (Σx Σy)^½ is the sum of the singular values of Σx^½ Σy^½.
        common = torch.linalg.svdvals(root_x @ root_y.T).sum()
        spread = root_x.square().sum() + root_y.square().sum() - 2 * common
        draws.append((mean_x - mean_y).square().sum() + spread)
    return torch.stack(draws)


def normal(values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the mean [d] of values [N,d] and a matrix R of at most d rows with RᵀR equal to their covariance."""
    values = values[weights > 0].double()
    weights = weights[weights > 0]
    middle = weights @ values / weights.sum()
    root = (values - middle) * (weights / (weights.sum() - 1)).sqrt()[:, None]
    return middle, torch.linalg.qr(root, mode="r").R if len(root) > root.shape[1] else root


def precision(x: WeightedValues, y: WeightedValues) -> Tensor:
    """Returns the share of x that is as near to a picture of y as its third neighbour (Kynkäänniemi et al. 2019).

    Neighbours come from other groups, since the crops of one photograph are so similar that nothing else would be near.
    """
    return mean(WeightedValues(covered(x.values, y).double(), x.groups, x.weights))


def recall(x: WeightedValues, y: WeightedValues) -> Tensor:
    """Returns the share of y that is near to x, like `precision`."""
    return precision(y, x)


def covered(points: Tensor, support: WeightedValues) -> Tensor:
    """Returns which points [N,d] are as near to some support point as its third neighbour is; bool [N]."""
    radii = []
    for part, groups in zip(support.values.split(BLOCK), support.groups.split(BLOCK), strict=True):
        distances = torch.cdist(part, support.values)
        distances[groups[:, None] == support.groups] = torch.inf
        radii.append(distances.kthvalue(min(NEIGHBOURS, len(support.values))).values)
    return torch.cat(
        [(torch.cdist(part, support.values) <= torch.cat(radii)).any(dim=1) for part in points.split(BLOCK)]
    )


def shift_distance(x: WeightedValues, y: WeightedValues) -> Tensor:
    """Returns the 1-Wasserstein distance of values [N] and [M]: the mean distance that they must be moved."""
    values, order = torch.cat([x.values, y.values]).double().sort()
    mine, theirs = x.each / x.each.sum(dim=1, keepdim=True), y.each / y.each.sum(dim=1, keepdim=True)
    difference = torch.cat([mine, -theirs], dim=1)[:, order].cumsum(dim=1)
    return (difference[:, :-1].abs() * values.diff()).sum(dim=1)
