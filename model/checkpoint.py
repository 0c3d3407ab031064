"""Checkpoints and training state as safetensors: tensors, and one JSON document in the header. Nothing is unpickled.

A checkpoint holds the averaged generator and, in its header, the configuration, where it comes from and its licence.
A training state holds all that a run goes on from.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from model import config as configs
from model.checks import is_count
from model.config import GeneratorConfig
from model.errors import InputError, one_line
from model.networks.ablations import build_generator
from model.networks.generator import Generator
from model.tensor_header import HEADER_KEY, read_header

FORMAT_VERSION = 1
CHECKPOINT, TRAINING_STATE = "checkpoint", "training state"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A generator that can render.

    Attributes:
        generator: in evaluation mode, float32.
        sha256: of the file.
        provenance: what it was trained on and how; JSON values.
        licence: SPDX identifier or a sentence.
    """

    generator: Generator
    sha256: str
    provenance: Mapping[str, Any]
    licence: str


def save_checkpoint(
    tensors: Mapping[str, Tensor], config: GeneratorConfig, provenance: Mapping[str, Any], licence: str
) -> bytes:
    """The file of a generator's state dict; the same bytes for the same content."""
    header = {"generator": dataclasses.asdict(config), "provenance": dict(provenance), "licence": licence}
    return save(CHECKPOINT, tensors, header)


def load_checkpoint(content: bytes, name: str) -> Checkpoint:
    """Reads the file of a generator.

    Args:
        content: the whole file.
        name: what to call it in an error.

    Raises:
        InputError: it is no checkpoint, or one that does not fit its own configuration.
    """
    header, tensors = load(CHECKPOINT, content, name)
    check_numbers(tensors, name)
    try:
        with torch.device("meta"):  # all shapes are known to fit before memory is asked for
            generator = build_generator(configs.generator_config(header["generator"]))
        generator.load_state_dict({key: x.float() for key, x in tensors.items()}, assign=True)
    except (InputError, RuntimeError, KeyError, TypeError) as error:
        raise InputError(f"{name}: the checkpoint does not fit its own configuration: {one_line(error)}") from None
    provenance = header.get("provenance", {})
    if not isinstance(provenance, dict) or not is_count(provenance.get("images_seen", 0)):
        raise InputError(f"{name}: the checkpoint's provenance is damaged; take another one")
    generator.eval().requires_grad_(False)
    return Checkpoint(generator, sha256(content), provenance, str(header.get("licence", "unknown")))


def load_state(content: bytes, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The header and tensors of a training state; the header has the counts ``steps`` and ``images_before``.

    Raises:
        InputError: it is no training state, or a damaged one.
    """
    header, tensors = load(TRAINING_STATE, content, name)
    if not (is_count(header.get("steps")) and is_count(header.get("images_before"))):
        raise InputError(f"{name} is damaged: it does not count its steps and images; take an earlier one")
    check_numbers(tensors, name)
    return header, tensors


def check_numbers(tensors: Mapping[str, Tensor], name: str) -> None:
    """Makes sure that tensors hold finite floating point numbers, also as float32.

    Raises:
        InputError: one does not.
    """
    for key, x in tensors.items():
        if not x.is_floating_point():
            kind = str(x.dtype).removeprefix("torch.")
            raise InputError(f"{name}: tensor {key[:80]!r} holds {kind} numbers; save it as float32 or float16 again")
        if not torch.isfinite(x.float()).all():
            raise InputError(f"{name}: tensor {key[:80]!r} holds values that are not finite; take an earlier file")


def save(kind: str, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> bytes:
    """A safetensors file whose header says what it is."""
    document = {"kind": kind, "format_version": FORMAT_VERSION, **header}
    contiguous = {name: x.detach().cpu().contiguous() for name, x in tensors.items()}
    return save_tensors(contiguous, {HEADER_KEY: json.dumps(document, sort_keys=True)})


def load(kind: str, content: bytes, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The header and tensors of a file that should be of this kind.

    Raises:
        InputError: it is not.
    """
    header = read_header(content, name)
    if header.get("kind") != kind or header.get("format_version") != FORMAT_VERSION:
        found = f"{str(header.get('kind'))[:40]!r} of format {str(header.get('format_version'))[:40]!r}"
        raise InputError(f"{name} is a {found}; a {kind} of format {FORMAT_VERSION} is needed")
    try:
        return header, load_tensors(content)
    except (SafetensorError, KeyError) as error:  # KeyError: a type of number that torch lacks
        raise InputError(f"{name} is damaged: {one_line(error)}") from None


def sha256(content: bytes) -> str:
    """The checksum by which plans and provenance name a file."""
    return hashlib.sha256(content).hexdigest()
