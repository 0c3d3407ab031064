"""The losses (paper, Sections 3.4 and C). Verdicts are lists of maps: one map [N,1], or one a head and scale."""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

Verdicts = list[Tensor]

DIVERSITY_EPSILON = 1e-5


def logistic_discriminator(real: Verdicts, fake: Verdicts) -> Tensor:
    """Non-saturating logistic loss of the discriminator: softplus(-real) + softplus(fake)."""
    return average([F.softplus(-x) for x in real]) + average([F.softplus(x) for x in fake])


def logistic_generator(fake: Verdicts) -> Tensor:
    """Non-saturating logistic loss of the generator: softplus(-fake)."""
    return average([F.softplus(-x) for x in fake])


def hinge_discriminator(real: Verdicts, fake: Verdicts) -> Tensor:
    """Hinge loss of the discriminator: max(0, 1 - real) + max(0, 1 + fake)."""
    return average([F.relu(1 - x) for x in real]) + average([F.relu(1 + x) for x in fake])


def hinge_generator(fake: Verdicts) -> Tensor:
    """Hinge loss of the generator: -fake."""
    return average([-x for x in fake])


ADVERSARIAL: Mapping[str, tuple[Callable[[Verdicts, Verdicts], Tensor], Callable[[Verdicts], Tensor]]] = (
    MappingProxyType(
        {
            "paper": (logistic_discriminator, logistic_generator),
            "projected": (hinge_discriminator, hinge_generator),
        }
    )
)
"""Each recipe's losses of the discriminator and of the generator."""


def average(maps: Verdicts) -> Tensor:
    """The mean over the values of all maps together."""
    return torch.cat([x.flatten() for x in maps]).mean()


def vertical_task(predicted: Tensor, label: Tensor) -> Tensor:
    """L1 between predicted vertical positions and labels, both [N] (paper, Equation of L_ar)."""
    return F.l1_loss(predicted, label)


def diversity(z_s: Tensor, twin_z_s: Tensor, z_l: Tensor, twin_z_l: Tensor) -> Tensor:
    """1/(mean|Δz_S| / mean|Δz_l| + 1e-5) for two structures of the same z_g and coordinates.

    Minimising it makes the structure depend more on z_l. The authors' released code does the opposite: it puts a
    similarity where the formula has a distance.
    """
    ratio = (z_s - twin_z_s).abs().mean() / (z_l - twin_z_l).abs().mean()
    return 1 / (ratio + DIVERSITY_EPSILON)


def r1_penalty(real: Verdicts, pictures: Tensor) -> Tensor:
    """R1: the squared norm of the verdicts' gradient by the pictures [N,3,h,w], averaged over pictures.

    To be weighted by λ/2, and by the interval when it is applied lazily.
    """
    total = torch.stack([x.sum() for x in real]).sum()
    (gradient,) = torch.autograd.grad(total, pictures, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean()


def path_length_penalty(pictures: Tensor, ws: Tensor, mean: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Path length regularisation (StyleGAN2, Section 3.2): each picture's Jacobian by w is to keep to the mean length.

    Args:
        pictures: [N,3,h,w], computed from `ws`.
        ws: each picture's w of each layer [N,layers,w_dim].
        mean: the running mean of lengths, a scalar.
        noise: normal numbers of the pictures' shape, the random direction y.

    Returns:
        The penalty, mean over pictures of (|Jᵀy| - mean)², to be weighted by λ and, when it is applied lazily, by the
        interval; and the lengths [N], detached.
    """
    pixels = pictures.shape[2] * pictures.shape[3]
    (gradient,) = torch.autograd.grad((pictures * noise).sum() / math.sqrt(pixels), ws, create_graph=True)
    lengths = gradient.square().sum(dim=2).mean(dim=1).sqrt()
    return (lengths - mean).square().mean(), lengths.detach()
