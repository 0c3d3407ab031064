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
from model.generator import Generator
from model.nci import build_generator

FORMAT_VERSION = 1
HEADER_KEY = "infinitygan"
CHECKPOINT, TRAINING_STATE = "checkpoint", "training state"
MOST_BYTES = 2**31
"""A larger file is not read. The largest preset's training state has a third of that."""

LENGTH_BYTES, MOST_HEADER_BYTES = 8, 2**24
"""A file begins with the length of its header. A header that says it is longer is not read either."""


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


def read_header(content: bytes, name: str) -> dict[str, Any]:
    """Our JSON document in a safetensors header; `content` may be only the file's beginning, header included.

    Raises:
        InputError: it is no safetensors file of this project.
    """
    size = header_bytes(content[:LENGTH_BYTES], name)
    try:
        document = json.loads(json.loads(content[LENGTH_BYTES : LENGTH_BYTES + size])["__metadata__"][HEADER_KEY])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise foreign(name) from None
    if not isinstance(document, dict):
        raise foreign(name)
    return document


def header_bytes(start: bytes, name: str) -> int:
    """The length of a safetensors header, by the first bytes of the file.

    Raises:
        InputError: no header of this project is so long.
    """
    size = int.from_bytes(start, "little")
    if len(start) < LENGTH_BYTES or not 0 < size <= MOST_HEADER_BYTES:
        raise foreign(name)
    return size


def tensor_bytes(header: bytes, name: str) -> int:
    """How many bytes of tensors follow a safetensors header, by what it says.

    Raises:
        InputError: it is no header, or says that there are more than are read.
    """
    try:
        entries = json.loads(header)
        size = max(
            (int(entry["data_offsets"][1]) for key, entry in entries.items() if key != "__metadata__"), default=0
        )
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError):
        raise foreign(name) from None
    if not 0 <= size <= MOST_BYTES:
        raise InputError(f"{name} says that it holds {size} bytes of tensors; at most {MOST_BYTES} are read")
    return size


def foreign(name: str) -> InputError:
    """What is said of a file that is none of ours."""
    return InputError(f"{name} is not an InfinityGAN checkpoint; give a .safetensors file that train wrote")


def sha256(content: bytes) -> str:
    """The checksum by which plans and provenance name a file."""
    return hashlib.sha256(content).hexdigest()
