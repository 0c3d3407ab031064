"""Converts the network's output to pixels, the same way everywhere."""

import torch
from torch import Tensor


def quantise(pictures: Tensor) -> Tensor:
    """Clamps values in [-1, 1] and rounds them to uint8; any shape."""
    return ((pictures.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
