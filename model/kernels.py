"""Selects exact and reproducible GPU kernels, for rendering, inversion and their metrics."""

import torch


def exact_kernels() -> None:
    """Makes a GPU compute in true float32, with algorithms that give the same bits each time. A CPU always does."""
    # Another tile size or device may change a pixel by one level at most; TF32 has only ten bits.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    # Choose the same algorithm for the same shapes, one that always adds in the same order.
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
