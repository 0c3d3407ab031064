"""Reads and writes checkpoints and training state as safetensors with one JSON document in the header.

A checkpoint holds the averaged generator and, in its header, the configuration, the provenance and the licence. Its
tensor ``w_mean`` is the mean of w, for truncation; files of earlier versions lack it. It may also hold a detail stage
for that generator: its tensors' names begin with ``detail.``, and its configuration is in the header. A training state
holds everything needed to resume a run. Nothing is unpickled.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from model import config as configs
from model.checks import is_count
from model.config import GeneratorConfig
from model.errors import InputError, one_line
from model.networks.ablations import build_generator
from model.networks.detail import DetailStage
from model.networks.generator import Generator
from model.tensor_header import HEADER_KEY, read_header

FORMAT_VERSION = 1
CHECKPOINT, TRAINING_STATE = "checkpoint", "training state"
W_MEAN = "w_mean"
"""The name of the tensor with the mean of w."""

DETAIL, PREFIX = "detail", "detail."
"""The header's name of the detail stage's configuration, and what the names of its tensors begin with."""


class TrainingData(TypedDict):
    """The training set of a run.

    Attributes:
        sha256: The checksum over its shards.
        samples: The number of samples by split.
        licences: The number of photographs trained on by licence.
    """

    sha256: str
    samples: dict[str, int]
    licences: dict[str, int]


class Parent(TypedDict):
    """The checkpoint that a run started from.

    Attributes:
        sha256: The checksum of its file.
        images_seen: The number of images that it had been trained on.
    """

    sha256: str
    images_seen: int


class DetailParent(Parent):
    """The checkpoint that a run of a detail stage started from; its number of images is the detail stage's.

    Attributes:
        base: How the generator was trained.
    """

    base: "Provenance"


class Provenance(TypedDict, total=False):
    """How and on what a generator was trained. Of a file from elsewhere, only `images_seen` has been checked.

    Attributes:
        version: The version of this package.
        preset: The name of the network.
        recipe: The name of the training settings.
        data: The training set.
        init: The checkpoint that the run started from, if any.
        images_seen: The number of images that the generator was trained on.
        detail: The same of the detail stage, if the checkpoint has one.
    """

    version: str
    preset: str
    recipe: str
    data: TrainingData
    init: Parent | None
    images_seen: int
    detail: "Provenance"


class StateHeader(TypedDict):
    """The numbers in the header of a training state.

    Attributes:
        steps: The number of steps taken.
        images_before: The number of images seen before the first of them.
    """

    steps: int
    images_before: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A generator that can render, and the detail stage that was trained for it, if any.

    Attributes:
        generator: The generator, in evaluation mode and float32.
        sha256: The checksum of the file.
        provenance: How and on what the generator was trained.
        licence: An SPDX identifier or a sentence.
        detail: The detail stage, in evaluation mode and float32; None if there is none.
    """

    generator: Generator
    sha256: str
    provenance: Provenance
    licence: str
    detail: DetailStage | None = None


def save_checkpoint(
    tensors: Mapping[str, Tensor],
    config: GeneratorConfig,
    provenance: Provenance,
    licence: str,
    detail: DetailStage | None = None,
) -> bytes:
    """Returns the file of a generator and, if given, a detail stage; equal content gives equal bytes.

    Args:
        tensors: The generator's state dict, with the mean of w as `W_MEAN` if it is known.
        config: The generator's configuration.
        provenance: How and on what the generator was trained.
        licence: An SPDX identifier or a sentence.
        detail: The detail stage.
    """
    header = {"generator": dataclasses.asdict(config), "provenance": provenance, "licence": licence}
    if detail is not None:
        tensors = {**tensors, **{PREFIX + name: x for name, x in detail.state_dict().items()}}
        header[DETAIL] = dataclasses.asdict(detail.config)
    return save(CHECKPOINT, tensors, header)


def load_checkpoint(content: bytes, name: str) -> Checkpoint:
    """Loads a generator, and its detail stage if there is one, from their file.

    Args:
        content: The whole file.
        name: The name of the file in error messages.

    Raises:
        InputError: The file is not a checkpoint, or does not fit its own configuration.
    """
    header, tensors = load(CHECKPOINT, content, name)
    check_numbers(tensors, name)
    try:
        with torch.device("meta"):  # check all shapes before allocating memory
            generator = build_generator(configs.generator_config(header["generator"]))
            detail = DetailStage(configs.detail_config(header[DETAIL])) if DETAIL in header else None
        if detail is not None:
            put_into(detail, {key: tensors.pop(key) for key in list(tensors) if key.startswith(PREFIX)}, PREFIX)
        mean = tensors.pop(W_MEAN, None)
        if mean is not None and mean.shape != (1, generator.config.w_dim):
            raise InputError(f"{W_MEAN} is {list(mean.shape)}; it must be [1, {generator.config.w_dim}]")
        put_into(generator, tensors)
        generator.mapping.mean = None if mean is None else mean.float()
    except (InputError, RuntimeError, KeyError, TypeError) as error:
        raise InputError(f"{name}: the checkpoint does not fit its own configuration: {one_line(error)}") from None
    provenance = header.get("provenance", {})
    if not isinstance(provenance, dict) or not is_count(provenance.get("images_seen", 0)):
        raise InputError(f"{name}: the checkpoint's provenance is damaged; use another one")
    licence = str(header.get("licence", "unknown"))
    return Checkpoint(generator, sha256(content), cast(Provenance, provenance), licence, detail)


def put_into(network: nn.Module, tensors: Mapping[str, Tensor], prefix: str = "") -> None:
    """Gives a network its weights, in float32, and prepares it for evaluation."""
    network.load_state_dict({key.removeprefix(prefix): x.float() for key, x in tensors.items()}, assign=True)
    network.eval().requires_grad_(False)


def load_state(content: bytes, name: str) -> tuple[StateHeader, dict[str, Tensor]]:
    """Returns the header and tensors of a training state.

    Raises:
        InputError: The file is not a training state, or is damaged.
    """
    header, tensors = load(TRAINING_STATE, content, name)
    if not (is_count(header.get("steps")) and is_count(header.get("images_before"))):
        raise InputError(f"{name} is damaged: its header lacks the number of steps and images; use an earlier one")
    check_numbers(tensors, name)
    return cast(StateHeader, header), tensors


def check_numbers(tensors: Mapping[str, Tensor], name: str) -> None:
    """Checks that tensors hold finite floating point numbers that stay finite in float32.

    Raises:
        InputError: A tensor does not.
    """
    for key, x in tensors.items():
        if not x.is_floating_point():
            kind = str(x.dtype).removeprefix("torch.")
            raise InputError(f"{name}: tensor {key[:80]!r} holds {kind} numbers; save it again as float32 or float16")
        if not torch.isfinite(x.float()).all():
            raise InputError(f"{name}: tensor {key[:80]!r} holds values that are not finite; use an earlier file")


def save(kind: str, tensors: Mapping[str, Tensor], header: Mapping[str, object]) -> bytes:
    """Returns a safetensors file of a given kind."""
    document = {"kind": kind, "format_version": FORMAT_VERSION, **header}
    contiguous = {name: x.detach().cpu().contiguous() for name, x in tensors.items()}
    return save_tensors(contiguous, {HEADER_KEY: json.dumps(document, sort_keys=True)})


def load(kind: str, content: bytes, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Returns the header and tensors of a file of the given kind.

    Raises:
        InputError: The file is of another kind, or damaged.
    """
    header = read_header(content, name)
    if header.get("kind") != kind or header.get("format_version") != FORMAT_VERSION:
        found = f"{str(header.get('kind'))[:40]!r} of format {str(header.get('format_version'))[:40]!r}"
        raise InputError(f"{name} is a {found}; give a {kind} of format {FORMAT_VERSION}")
    try:
        return header, load_tensors(content)
    except (SafetensorError, KeyError) as error:  # KeyError: a data type that torch does not support
        raise InputError(f"{name} is damaged: {one_line(error)}") from None


def sha256(content: bytes) -> str:
    """Returns the checksum by which plans and provenance refer to a file."""
    return hashlib.sha256(content).hexdigest()
