"""This process's device, memory and rank among the processes that train together, by Lightning Fabric."""

import logging
import os
import sys

import torch
from lightning_fabric import Fabric


def launch(precision: str = "float32", deterministic: bool = False) -> Fabric:
    """Joins torchrun's processes, or starts the only one; uses a GPU if torch finds one.

    Args:
        precision: The precision of products on a GPU; float32 forbids TF32.
        deterministic: Whether a GPU uses only kernels that reproduce the same bits, where they exist.
    """
    for name in ("lightning_fabric", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    gpu = torch.cuda.is_available()
    if gpu:
        choose_kernels(precision, deterministic)
    accelerator = "cuda" if gpu else "cpu"
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return Fabric(accelerator=accelerator, devices=1)
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    machines = int(os.environ["WORLD_SIZE"]) // here
    fabric = Fabric(accelerator=accelerator, strategy="ddp", devices=here, num_nodes=machines)
    fabric.launch()
    return fabric


def choose_kernels(precision: str, deterministic: bool) -> None:
    """Selects the kernels of a GPU."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision != "float32"
    torch.backends.cudnn.benchmark = not deterministic
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)


def peak_bytes(device: str) -> int:
    """Returns the peak memory of this process: on its GPU or, if it computes on the CPU, in main memory."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    import resource  # not available on every platform

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
