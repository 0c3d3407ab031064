"""The world's randomness: normal numbers that are a pure function of (seed, position), computed on demand.

They use Philox 4×32 with 10 rounds (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"). The key is
the seed's low and high 32 bits. The counters are, in two's complement:

    z_l      (column, row, 1, channel >> 2)          normal number channel & 3
    z_n      (column >> 2, row, 16 + layer, 0)       normal number column & 3; detail stages' layers follow those of G_T
    z_g      (0, 0, 2, index >> 2)                   normal number index & 3
    journey  (column, row, 3, 0)                     words 0 and 1: the place of a style in its square of the grid
    samples  (sample, 0, 4, index >> 2)              normal number index & 3; of z_g, with the seed 0
    journey  (column, row, 5, index >> 2)            normal number index & 3; the z_g of a style

A word x gives u = ((x >> 8) + ½)·2⁻²⁴; words 0 and 1 give the normals √(-2 ln u₀)·(cos, sin)(2π u₁), words 2 and 3
two more. Integers are equal on all devices; normals are equal on devices of one kind, and to 1e-6 across kinds.
"""

import math
from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from model.geometry import Window, length

SCHEME_VERSION = 1
"""The version of everything that determines pixels besides the network: counters, positions, coordinates, rounding."""

NoiseWindow: TypeAlias = tuple[int, Window, Window]
"""The number of a layer, and the rows and columns of its output."""

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_MASK = 0xFFFFFFFF
_ROUNDS = 10
_OPENING = 4
"""The number of rounds after which each word depends on every word of the counter."""
_Z_L, _Z_G, _JITTER, _SAMPLE, _JOURNEY, _Z_N = 1, 2, 3, 4, 5, 16


def z_l_field(seed: int, rows: Window, columns: Window, channels: int, device: str = "cpu") -> Tensor:
    """Returns the local latents float32 [1,channels,H,W] at a window of cells."""
    groups = torch.arange(-(-channels // 4), device=device)
    counter = (
        positions(columns, device)[None, None, :],
        positions(rows, device)[None, :, None],
        torch.full((1, 1, 1), _Z_L, device=device),
        groups[:, None, None],
    )
    words = philox(counter, seed)
    return torch.stack(normals(words), dim=1).flatten(0, 1)[None, :channels]


def z_n_fields(seed: int, windows: Sequence[NoiseWindow], device: str = "cpu") -> list[Tensor]:
    """Returns the noise of layers of G_T or of detail stages, each at a window of its own positions.

    Returns:
        float32 [1,1,H,W] for each window.
    """
    if not windows:
        return []
    quads = [(low >> 2, high >> 2) for _, _, (low, high) in windows]
    shapes = [(length(rows), length(quad)) for (_, rows, _), quad in zip(windows, quads, strict=True)]
    sizes = [height * width for height, width in shapes]
    # All layers are evaluated at once, because most of them are small.
    counter = torch.empty(3, sum(sizes), dtype=torch.int64, device=device)
    parts = counter.split(sizes, dim=1)
    for (layer, rows, _), quad, shape, part in zip(windows, quads, shapes, parts, strict=True):
        part[0].view(shape).copy_(positions(quad, device))
        part[1].view(shape).copy_(positions(rows, device)[:, None])
        part[2].fill_(_Z_N + layer)
    words = philox((*counter, torch.zeros(1, dtype=torch.int64, device=device)), seed)
    values = torch.stack(normals(words), dim=1).split(sizes)
    fields = []
    for (_, _, (low, high)), (height, width), part in zip(windows, shapes, values, strict=True):
        first = low & 3
        fields.append(part.reshape(height, 4 * width)[None, None, :, first : first + high - low + 1])
    return fields


def z_g_vector(seed: int, size: int, device: str = "cpu") -> Tensor:
    """Returns the global latent float32 [1,size] of a style's seed."""
    return global_latents(seed, (0, 0), 0, _Z_G, size, device)


def journey_z_g(seed: int, row: int, column: int, size: int, device: str = "cpu") -> Tensor:
    """Returns the global latent float32 [1,size] of a journey's style at a place of the grid."""
    return global_latents(seed, (column, column), row, _JOURNEY, size, device)


def z_g_samples(count: int, size: int) -> Tensor:
    """Returns global latents float32 [count,size], always the same ones."""
    return global_latents(0, (0, count - 1), 0, _SAMPLE, size, "cpu")


def global_latents(seed: int, columns: Window, row: int, kind: int, size: int, device: str) -> Tensor:
    """Returns the global latents float32 [n,size] at a row of the grid of their kind."""
    counter = (
        positions(columns, device)[:, None],
        positions((row, row), device)[:, None],
        torch.full((1, 1), kind, device=device),
        torch.arange(-(-size // 4), device=device)[None, :],
    )
    return torch.stack(normals(philox(counter, seed)), dim=-1).flatten(1)[:, :size]


def journey_jitter(seed: int, row: int, column: int) -> tuple[int, int]:
    """Returns two numbers below 2²⁴, for y and x: the place of a journey's style in its square of the grid."""
    counter = [torch.tensor([word & _MASK]) for word in (column, row, _JITTER, 0)]
    across, down, *_ = (int(word) >> 8 for word in philox(counter, seed))
    return down, across


def positions(window: Window, device: str) -> Tensor:
    """Returns the positions of a window as unsigned 32-bit words, int64 [n]."""
    return torch.arange(window[0], window[1] + 1, device=device) & _MASK


def philox(counter: Sequence[Tensor], seed: int) -> list[Tensor]:
    """Computes Philox 4×32-10.

    Args:
        counter: Four int64 tensors of values below 2³², with shapes that broadcast. Words that vary along few axes
            stay small for the first rounds.
        seed: The key, below 2⁶⁴.

    Returns:
        Four int64 tensors of values below 2³², of the broadcast shape.
    """
    keys = round_keys(seed)
    words = list(counter)
    for key in keys[:_OPENING]:
        first, second = words[0] * _MULTIPLIERS[0], words[2] * _MULTIPLIERS[1]
        words = [mixed(second >> 32, words[1], key[0]), second, mixed(first >> 32, words[3], key[1]), first]
    # All words have the full shape now; the other rounds reuse their memory and that of one more.
    c0, c1, c2, c3 = (word.contiguous() for word in torch.broadcast_tensors(*words))
    spare = torch.empty_like(c0)
    for key in keys[_OPENING:]:
        first, second = c0.mul_(_MULTIPLIERS[0]), c2.mul_(_MULTIPLIERS[1])
        mixed(torch.bitwise_right_shift(second, 32, out=spare), c1, key[0])
        mixed(torch.bitwise_right_shift(first, 32, out=c1), c3, key[1])
        c0, c1, c2, c3, spare = spare, second, c1, first, c3
    return [c0, c1.bitwise_and_(_MASK), c2, c3.bitwise_and_(_MASK)]


def mixed(high: Tensor, word: Tensor, key: int) -> Tensor:
    """Returns the high half of a product xor a word and a round's key, in the product's memory if it is large enough.

    The word may itself be a product; only its low half counts, because the mask removes the rest.
    """
    total = high.bitwise_xor_(word) if high.shape == word.shape else high ^ word
    return total.bitwise_xor_(key).bitwise_and_(_MASK)


def round_keys(seed: int) -> list[tuple[int, int]]:
    """Returns the two words of each round's key."""
    return [((seed + r * _WEYL[0]) & _MASK, ((seed >> 32) + r * _WEYL[1]) & _MASK) for r in range(_ROUNDS)]


def normals(words: Sequence[Tensor]) -> list[Tensor]:
    """Returns four normal numbers from four words by the Box-Muller transform in float32. Overwrites the words."""
    u = [word.bitwise_right_shift_(8).float().add_(0.5).mul_(2.0**-24) for word in words]
    result = []
    for radius, angle in ((u[0], u[1]), (u[2], u[3])):
        length = radius.log_().mul_(-2.0).sqrt_()
        angle.mul_(2.0 * math.pi)
        result += [angle.cos().mul_(length), angle.sin_().mul_(length)]
    return result
