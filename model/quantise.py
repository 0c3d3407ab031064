"""From the network's numbers to pixels, the same way everywhere."""

import torch
from torch import Tensor


def quantise(pictures: Tensor) -> Tensor:
    """Values in [-1, 1], clamped and rounded to uint8; any shape."""
    return ((pictures.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
