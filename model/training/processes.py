"""This process's device, memory and rank among the processes that train together."""

import atexit
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed
from torch import Tensor, nn

from model.errors import InputError

CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Processes:
    """The processes that train together, as one of them sees them. By default there is one, on the CPU.

    Attributes:
        device: The device of this process.
        rank: The number of this process, from 0.
        count: The number of processes.
    """

    device: torch.device = CPU
    rank: int = 0
    count: int = 1

    def mean(self, values: Tensor) -> Tensor:
        """Returns the mean over all processes, which must all call this. It may overwrite the values."""
        if self.count == 1:
            return values
        if self.device.type == "cuda":
            torch.distributed.all_reduce(values, torch.distributed.ReduceOp.AVG)
            return values
        torch.distributed.all_reduce(values)  # gloo can only add
        return values.div_(self.count)

    def anywhere(self, flag: bool) -> bool:
        """Returns whether a flag is set in any process, which must all call this."""
        return bool(self.mean(torch.tensor(float(flag), device=self.device)) > 0)

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replaces the gradients with their mean over all processes, which must all call this."""
        if self.count == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        mean = self.mean(torch.cat([x.flatten() for x in gradients]))
        for gradient, part in zip(gradients, mean.split([x.numel() for x in gradients]), strict=True):
            gradient.copy_(part.view(gradient.shape))

    def wait(self) -> None:
        """Waits until all processes have called this."""
        if self.count > 1:
            torch.distributed.barrier(device_ids=[self.device.index] if self.device.type == "cuda" else None)


ALONE = Processes()


def launch(precision: str = "float32", deterministic: bool = False) -> Processes:
    """Joins torchrun's processes, or starts the only one; uses a GPU if torch finds one.

    Args:
        precision: The precision of products on a GPU; float32 forbids TF32.
        deterministic: Whether a GPU uses only kernels that reproduce the same bits, where they exist.

    Raises:
        InputError: The machine has more processes than GPUs.
    """
    here = int(os.environ["LOCAL_RANK"]) if "TORCHELASTIC_RUN_ID" in os.environ else 0
    device = CPU
    if torch.cuda.is_available():
        choose_kernels(precision, deterministic)
        gpus = torch.cuda.device_count()
        if here >= gpus:
            raise InputError(
                f"this machine has {gpus} GPUs, one for each process; give torchrun --nproc-per-node {gpus}"
            )
        device = torch.device("cuda", here)
        torch.cuda.set_device(device)
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return Processes(device)
    torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    atexit.register(torch.distributed.destroy_process_group)
    return Processes(device, torch.distributed.get_rank(), torch.distributed.get_world_size())


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
