"""The losses (paper, Sections 3.4 and C). Verdicts are lists of maps: one map [N,1], or one per head and scale."""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

Verdicts = list[Tensor]

DIVERSITY_EPSILON = 1e-5


def logistic_discriminator(real: Verdicts, fake: Verdicts) -> Tensor:
    """Returns the non-saturating logistic loss of the discriminator: softplus(-real) + softplus(fake)."""
    return average([F.softplus(-x) for x in real]) + average([F.softplus(x) for x in fake])


def logistic_generator(fake: Verdicts) -> Tensor:
    """Returns the non-saturating logistic loss of the generator: softplus(-fake)."""
    return average([F.softplus(-x) for x in fake])


def hinge_discriminator(real: Verdicts, fake: Verdicts) -> Tensor:
    """Returns the hinge loss of the discriminator: max(0, 1 - real) + max(0, 1 + fake)."""
    return average([F.relu(1 - x) for x in real]) + average([F.relu(1 + x) for x in fake])


def hinge_generator(fake: Verdicts) -> Tensor:
    """Returns the hinge loss of the generator: -fake."""
    return average([-x for x in fake])


ADVERSARIAL: Mapping[str, tuple[Callable[[Verdicts, Verdicts], Tensor], Callable[[Verdicts], Tensor]]] = (
    MappingProxyType(
        {
            "paper": (logistic_discriminator, logistic_generator),
            "projected": (hinge_discriminator, hinge_generator),
        }
    )
)
"""The losses of the discriminator and the generator in each recipe."""


def average(maps: Verdicts) -> Tensor:
    """Returns the mean over the values of all maps together."""
    return torch.cat([x.flatten() for x in maps]).mean()


def vertical_task(predicted: Tensor, label: Tensor) -> Tensor:
    """Returns the L1 distance between predicted vertical positions and labels, both [N] (paper, Equation of L_ar)."""
    return F.l1_loss(predicted, label)


def diversity(z_s: Tensor, twin_z_s: Tensor, z_l: Tensor, twin_z_l: Tensor) -> Tensor:
    """Returns 1/(mean|Δz_S| / mean|Δz_l| + 1e-5) for two structures with the same z_g and coordinates.

    Minimising it makes the structure depend more on z_l. The authors' released code does the opposite: it uses a
    similarity where the formula has a distance.
    """
    ratio = (z_s - twin_z_s).abs().mean() / (z_l - twin_z_l).abs().mean()
    return 1 / (ratio + DIVERSITY_EPSILON)


def r1_penalty(real: Verdicts, pictures: Tensor) -> Tensor:
    """Returns R1: the squared norm of the verdicts' gradient by the pictures [N,3,h,w], averaged over pictures.

    The caller multiplies it by λ/2, and by the interval if it is applied lazily.
    """
    total = torch.stack([x.sum() for x in real]).sum()
    (gradient,) = torch.autograd.grad(total, pictures, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean()


def path_length_penalty(pictures: Tensor, ws: Tensor, mean: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Computes path length regularisation (StyleGAN2, Section 3.2): Jacobians by w should have the mean length.

    Args:
        pictures: The pictures [N,3,h,w], computed from `ws`.
        ws: The w of each picture and layer [N,layers,w_dim].
        mean: The running mean of lengths, a scalar.
        noise: Normal numbers of the pictures' shape: the random direction y.

    Returns:
        The penalty, the mean over pictures of (|Jᵀy| - mean)², which the caller multiplies by λ and, if it is applied
        lazily, by the interval; and the lengths [N], detached.
    """
    pixels = pictures.shape[2] * pictures.shape[3]
    (gradient,) = torch.autograd.grad((pictures * noise).sum() / math.sqrt(pixels), ws, create_graph=True)
    lengths = gradient.square().sum(dim=2).mean(dim=1).sqrt()
    return (lengths - mean).square().mean(), lengths.detach()
