"""The world's randomness: normal numbers that are a pure function of (seed, position), computed where needed.

Philox 4×32 with 10 rounds (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"). The key is the seed's
low and high 32 bits. The counters are, in two's complement:

    z_l      (column, row, 1, channel >> 2)          normal number channel & 3
    z_n      (column >> 2, row, 16 + layer, 0)       normal number column & 3
    z_g      (0, 0, 2, index >> 2)                   normal number index & 3

A word x gives u = ((x >> 8) + ½)·2⁻²⁴; words 0 and 1 give the normals √(-2 ln u₀)·(cos, sin)(2π u₁), words 2 and 3 two
more. Integers are equal on every device; normals are equal on one kind of device, and to 1e-6 across kinds.
"""

import math
from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from model.errors import InputError
from model.geometry import Window

SCHEME_VERSION = 1
"""Of everything that decides pixels besides the network: counters, positions, coordinates, quantising."""

LIMIT = 2**31 - 2**16
"""Positions are smaller than this in magnitude."""

NoiseWindow: TypeAlias = tuple[int, Window, Window]
"""A layer's number, and rows and columns of its output."""

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_MASK = 0xFFFFFFFF
_ROUNDS = 10
_Z_L, _Z_G, _Z_N = 1, 2, 16


def z_l_field(seed: int, rows: Window, columns: Window, channels: int, device: str = "cpu") -> Tensor:
    """Local latents float32 [1,channels,H,W] at a window of cells."""
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
    """Noise of layers of G_T, each at a window of its own positions.

    Returns:
        float32 [1,1,H,W] of each window.
    """
    counters, shapes = [], []
    for layer, rows, (low, high) in windows:
        row, quad = torch.meshgrid(positions(rows, device), positions((low >> 2, high >> 2), device), indexing="ij")
        counters.append(torch.stack([quad.flatten(), row.flatten(), torch.full_like(row, _Z_N + layer).flatten()]))
        shapes.append(row.shape)
    if not counters:
        return []
    # One evaluation for all layers: most of them are too small to be worth one of their own.
    c0, c1, c2 = torch.cat(counters, dim=1)
    values = torch.stack(normals(philox((c0, c1, c2, torch.zeros_like(c2[:1])), seed)), dim=1)
    fields = []
    parts = values.split([h * q for h, q in shapes])
    for (_, _, (low, high)), (height, quads), part in zip(windows, shapes, parts, strict=True):
        first = low & 3
        fields.append(part.reshape(height, 4 * quads)[None, None, :, first : first + high - low + 1])
    return fields


def z_g_vector(seed: int, length: int, device: str = "cpu") -> Tensor:
    """The global latent float32 [1,length] of a style's seed."""
    index = torch.arange(-(-length // 4), device=device)
    zero = torch.zeros(1, dtype=torch.int64, device=device)
    words = philox((zero, zero, torch.full((1,), _Z_G, device=device), index), seed)
    return torch.stack(normals(words), dim=-1).flatten()[None, :length]


def check_seed(seed: int) -> None:
    """Raises InputError for a seed that is no key."""
    if not 0 <= seed < 2**64:
        raise InputError(f"seed is {seed}; it must be from 0 to 2^64 - 1")


def positions(window: Window, device: str) -> Tensor:
    """The positions of a window as unsigned 32-bit words, int64 [n]."""
    return torch.arange(window[0], window[1] + 1, device=device) & _MASK


def philox(counter: Sequence[Tensor], seed: int) -> list[Tensor]:
    """Philox 4×32-10.

    Args:
        counter: four int64 tensors of values below 2³², of shapes that broadcast. Words that vary along few axes
            stay small for the first rounds.
        seed: the key, below 2⁶⁴.

    Returns:
        Four int64 tensors of values below 2³², of the broadcast shape.
    """
    c0, c1, c2, c3 = counter
    key = [seed & _MASK, seed >> 32]
    for _ in range(_ROUNDS):
        # The low half of a product is taken when it is next used: what is above it falls to the mask then.
        first, second = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0 = ((second >> 32) ^ c1).bitwise_xor_(key[0]).bitwise_and_(_MASK)
        c2 = ((first >> 32) ^ c3).bitwise_xor_(key[1]).bitwise_and_(_MASK)
        c1, c3 = second, first
        key = [(word + step) & _MASK for word, step in zip(key, _WEYL, strict=True)]
    return list(torch.broadcast_tensors(c0, c1 & _MASK, c2, c3 & _MASK))


def normals(words: Sequence[Tensor]) -> list[Tensor]:
    """Four normal numbers from four words, by Box and Muller's transform in float32."""
    u = [(word >> 8).float().add_(0.5).mul_(2.0**-24) for word in words]
    result = []
    for radius, angle in ((u[0], u[1]), (u[2], u[3])):
        length = radius.log().mul_(-2.0).sqrt_()
        angle.mul_(2.0 * math.pi)
        result += [angle.cos().mul_(length), angle.sin().mul_(length)]
    return result
