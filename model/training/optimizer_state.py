"""Networks and their optimisers as named tensors. Adam's first moment is left out, since its beta is 0 here."""

from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor, nn

from model.errors import InputError


def state_of(networks: Mapping[str, nn.Module], optimizers: Mapping[str, torch.optim.Adam]) -> dict[str, Tensor]:
    """Returns the tensors of networks and optimisers, each under its name."""
    tensors = {f"{part}.{name}": x for part, network in networks.items() for name, x in network.state_dict().items()}
    for part, optimizer in optimizers.items():
        tensors |= second_moments(part, optimizer)
    return {name: x.detach().contiguous() for name, x in tensors.items()}


def check_names(tensors: Mapping[str, Tensor], parts: Collection[str]) -> None:
    """Raises InputError if a tensor belongs to none of the parts of a state."""
    others = sorted(name for name in tensors if name.split(".")[0] not in parts)
    if others:
        raise InputError(f"the training state has an unexpected tensor {others[0][:80]!r}; use another one")


def second_moments(name: str, optimizer: torch.optim.Adam) -> dict[str, Tensor]:
    """Returns Adam's running squares and number of steps, by the parameter's index."""
    tensors = {}
    for index, parameter in enumerate(parameters_of(optimizer)):
        for key, value in optimizer.state.get(parameter, {}).items():
            if key != "exp_avg":
                tensors[f"{name}.{index}.{key}"] = value
    return tensors


def load_second_moments(optimizer: torch.optim.Adam, tensors: Mapping[str, Tensor]) -> None:
    """Restores what `second_moments` returned; there is nothing for an optimiser that has not stepped yet."""
    for index, parameter in enumerate(parameters_of(optimizer) if tensors else ()):
        step, square = tensors[f"{index}.step"], tensors[f"{index}.exp_avg_sq"].to(parameter)
        if step.shape or square.shape != parameter.shape:
            raise RuntimeError(f"moments of parameter {index} are {list(square.shape)}, not {list(parameter.shape)}")
        optimizer.state[parameter] = {
            "step": step.float(),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.empty_like(parameter).copy_(square),
        }


def parameters_of(optimizer: torch.optim.Adam) -> Iterable[nn.Parameter]:
    """Returns the parameters of an optimiser with one group."""
    return optimizer.param_groups[0]["params"]


def below(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors whose names begin with a prefix, by the rest of their names."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): x for key, x in tensors.items() if key.startswith(prefix)}
