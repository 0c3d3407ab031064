"""How a GPU computes where its results must be exact and the same again: in rendering, inversion and their figures."""

import torch


def exact_kernels() -> None:
    """Makes a GPU compute in float32 proper, by algorithms that give the same bits each time. A CPU does so anyway."""
    # Another tile size or device may change a pixel by one level only; TF32 has ten bits.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    # The same algorithm for the same shapes, and one that always adds in the same order.
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
