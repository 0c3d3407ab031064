import io
import json
import pickle
import struct
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save as save_tensors

from model.checkpoint import (
    CHECKPOINT,
    TRAINING_STATE,
    load,
    load_checkpoint,
    load_state,
    save,
    save_checkpoint,
    sha256,
)
from model.config import DetailConfig
from model.errors import InputError
from model.networks.detail import DetailStage
from model.tensor_header import read_header
from model.world.world import World

PROVENANCE = {"data": "gs://bucket/set", "images": 12000, "by": {"z": 1, "a": [1, 2]}, "place": "Málaga 日本"}
LICENCE = "CC-BY-4.0"
NAME = "runs/7/model.safetensors"


@pytest.fixture(scope="module")
def content(tiny):
    return save_checkpoint(tiny.state_dict(), tiny.config, PROVENANCE, LICENCE)


def split(content):
    """Splits a file into its safetensors header and the tensors' bytes."""
    (size,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def join(header, data):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def with_document(content, change):
    """Changes this project's JSON document in a file in place, by a function."""
    header, data = split(content)
    document = json.loads(header["__metadata__"]["infinitygan"])
    change(document)
    header["__metadata__"]["infinitygan"] = json.dumps(document)
    return join(header, data)


def with_numbers(content, **numbers):
    """Returns the file with other numbers in its generator's configuration."""
    return with_document(content, lambda document: document["generator"].update(numbers))


def with_types(content, dtype):
    """Returns the file with its tensors declared as a type of one byte or less."""
    header, data = split(content)
    for name, entry in header.items():
        if name != "__metadata__":
            low, high = entry["data_offsets"]
            entry.update(dtype=dtype, shape=[(high - low) * (2 if dtype == "F4" else 1)])
    return join(header, data)


@pytest.mark.parametrize("shape", [(1, 3), (16,), ()])
def test_a_mean_of_w_that_does_not_fit_is_refused(tiny, shape):
    tensors = {**tiny.state_dict(), "w_mean": torch.zeros(shape)}
    assert_refused(save_checkpoint(tensors, tiny.config, {}, LICENCE), "w_mean is [")


def test_a_checkpoint_comes_back_as_it_was(tiny, content):
    checkpoint = load_checkpoint(content, NAME)
    assert checkpoint.generator.config == tiny.config
    assert checkpoint.provenance == PROVENANCE
    assert checkpoint.licence == LICENCE
    assert checkpoint.sha256 == sha256(content)
    state = checkpoint.generator.state_dict()
    assert state.keys() == tiny.state_dict().keys()
    assert all(torch.equal(state[name], x) for name, x in tiny.state_dict().items())
    assert not checkpoint.generator.training
    assert not any(x.requires_grad for x in checkpoint.generator.parameters())


def test_a_loaded_checkpoint_renders_the_same_bits(tiny, content):
    window = (-20, 43)
    loaded = World(load_checkpoint(content, NAME).generator, 4).render(window, window)
    assert torch.equal(loaded, World(tiny, 4).render(window, window))


def test_the_same_content_gives_the_same_bytes(tiny, content):
    """The order of tensors and provenance, and their memory's layout, make no difference."""
    tensors = {name: tiny.state_dict()[name] for name in reversed(tiny.state_dict())}
    laid_out = {name: x.clone().mT.contiguous().mT if x.ndim > 1 else x for name, x in tensors.items()}
    provenance = {name: PROVENANCE[name] for name in reversed(PROVENANCE)}
    assert save_checkpoint(tensors, tiny.config, provenance, LICENCE) == content
    assert save_checkpoint(laid_out, tiny.config, provenance, LICENCE) == content
    loaded = load_checkpoint(content, NAME)
    again = save_checkpoint(loaded.generator.state_dict(), loaded.generator.config, loaded.provenance, loaded.licence)
    assert again == content


@pytest.fixture(scope="module")
def detail():
    torch.manual_seed(1)
    return DetailStage(DetailConfig(channels=4, blocks=1, up_channels=(3, 2)))


@pytest.fixture(scope="module")
def both(tiny, detail):
    return save_checkpoint(tiny.state_dict(), tiny.config, PROVENANCE, LICENCE, detail)


def test_one_file_holds_both_stages(tiny, detail, content, both):
    loaded = load_checkpoint(both, NAME)
    assert loaded.detail.config == detail.config
    assert loaded.generator.config == tiny.config
    for network, original in ((loaded.detail, detail), (loaded.generator, tiny)):
        state = network.state_dict()
        assert state.keys() == original.state_dict().keys()
        assert all(torch.equal(state[name], x) for name, x in original.state_dict().items())
        assert not network.training
        assert not any(x.requires_grad for x in network.parameters())
    again = (loaded.generator.state_dict(), loaded.generator.config, loaded.provenance, loaded.licence, loaded.detail)
    assert save_checkpoint(*again) == both


def test_a_checkpoint_without_a_detail_stage_has_none(content):
    assert load_checkpoint(content, NAME).detail is None


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document.pop("detail"),
        lambda document: document.update(detail=None),
        lambda document: document.update(detail="48"),
        lambda document: document["detail"].update(channels=5),
        lambda document: document["detail"].update(channels=10**9),
        lambda document: document["detail"].update(channels=True),
        lambda document: document["detail"].update(blocks=10**9),
        lambda document: document["detail"].update(blocks=2),
        lambda document: document["detail"].update(up_channels=[3]),
        lambda document: document["detail"].update(up_channels="32"),
        lambda document: document["detail"].pop("up_channels"),
        lambda document: document["detail"].update(layers=3),
    ],
)
def test_a_detail_stage_that_does_not_fit_its_configuration_is_refused(both, change):
    with pytest.raises(InputError, match=f"{NAME}: the checkpoint does not fit its own configuration"):
        load_checkpoint(with_document(both, change), NAME)


def test_half_precision_is_read_into_float32(tiny):
    halves = {name: x.half() for name, x in tiny.state_dict().items()}
    loaded = load_checkpoint(save_checkpoint(halves, tiny.config, {}, LICENCE), NAME).generator.state_dict()
    assert all(x.dtype == torch.float32 for x in loaded.values())
    assert all(torch.equal(x, halves[name].float()) for name, x in loaded.items())


def test_the_header_can_be_read_from_the_files_beginning(content):
    (size,) = struct.unpack("<Q", content[:8])
    header = read_header(content[: 8 + size], NAME)
    assert header["kind"] == CHECKPOINT
    assert header["generator"]["texture_channels"] == [16, 12, 8, 8]
    assert header["provenance"] == PROVENANCE
    assert header["licence"] == LICENCE


def test_tensors_and_header_of_a_state_come_back(content):
    tensors = {"a.b": torch.randn(3, 4), "step": torch.tensor(7.0), "empty": torch.zeros(0, 3)}
    header, loaded = load(TRAINING_STATE, save(TRAINING_STATE, tensors, {"steps": 7}), NAME)
    assert header["steps"] == 7
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], x) for name, x in tensors.items())


def png():
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


UNPICKLED = []


class Trap:
    """An object that leaves a mark when it is unpickled."""

    def __reduce__(self):
        return UNPICKLED.append, (1,)


def torch_file():
    buffer = io.BytesIO()
    torch.save({"generator": torch.zeros(3), "trap": Trap()}, buffer)
    return buffer.getvalue()


OTHER_FILES = {
    "empty": lambda: b"",
    "one byte": lambda: b"\x01",
    "text": lambda: b"This is not a checkpoint, but long enough to be one.\n" * 30,
    "json": lambda: b'{"kind": "checkpoint"}',
    "png": png,
    "pickle": lambda: pickle.dumps(Trap()),
    "torch file": torch_file,
    "foreign safetensors": lambda: save_tensors({"weight": torch.zeros(3)}),
    "foreign metadata": lambda: save_tensors({"weight": torch.zeros(3)}, {"format": "pt"}),
    "our key, no JSON": lambda: save_tensors({"weight": torch.zeros(3)}, {"infinitygan": "{not JSON"}),
    "our key, a list": lambda: save_tensors({"weight": torch.zeros(3)}, {"infinitygan": "[1]"}),
    "our key, no kind": lambda: save_tensors({"weight": torch.zeros(3)}, {"infinitygan": "{}"}),
    "training state": lambda: save(TRAINING_STATE, {"weight": torch.zeros(3)}, {"steps": 3}),
    "header of nothing": lambda: struct.pack("<Q", 0),
    "header is a list": lambda: join([1, 2], b""),
    "metadata is a list": lambda: join({"__metadata__": [1]}, b""),
    "header not UTF-8": lambda: struct.pack("<Q", 4) + b"\xff\xfe\x00\x01",
    "deep header": lambda: struct.pack("<Q", 200_000) + b"[" * 200_000,
}

DAMAGES = {
    "truncated in its tensors": lambda content: content[:-5],
    "truncated in its header": lambda content: content[:100],
    "truncated in its length": lambda content: content[:5],
    "longer": lambda content: content + b"x",
    "huge header length": lambda content: b"\xff" * 8 + content[8:],
    "large header length": lambda content: struct.pack("<Q", 2**40) + content[8:],
    "header not JSON": lambda content: content[:8] + b"?" + content[9:],
    "first bytes lost": lambda content: content[16:],
    "tensor of another type": lambda content: with_types(content, "U8"),
    "tensor type of 4 bits": lambda content: with_types(content, "F4"),
    "tensor type that torch lacks": lambda content: with_types(content, "F8_E8M0"),
    "other kind": lambda content: with_document(content, lambda x: x.update(kind="mask")),
    "kind in two lines": lambda content: with_document(content, lambda x: x.update(kind="a\nb")),
    "endless kind": lambda content: with_document(content, lambda x: x.update(kind="a" * 10_000)),
    "later format": lambda content: with_document(content, lambda x: x.update(format_version=2)),
    "no configuration": lambda content: with_document(content, lambda x: x.pop("generator")),
    "configuration a list": lambda content: with_document(content, lambda x: x.update(generator=[1])),
    "configuration null": lambda content: with_document(content, lambda x: x.update(generator=None)),
    "unknown field": lambda content: with_numbers(content, colour=3),
    "missing field": lambda content: with_document(content, lambda x: x["generator"].pop("w_dim")),
    "no channels": lambda content: with_document(content, lambda x: x["generator"].pop("texture_channels")),
}

NUMBERS = {
    "wider structure": {"structure_channels": 9},
    "deeper mapping": {"mapping_layers": 3},
    "shallower mapping": {"mapping_layers": 1},
    "other kernel": {"structure_kernel": 5},
    "one pair more": {"texture_channels": [16, 12, 8, 8, 8], "full_px": 389},
    "negative channels": {"texture_channels": [-1, 12, 8, 8]},
    "zero channels": {"texture_channels": [0, 0, 0, 0]},
    "no pairs": {"texture_channels": []},
    "channels in words": {"texture_channels": "abcd"},
    "negative": {"z_g_dim": -16},
    "text": {"z_g_dim": "16"},
    "fraction": {"z_g_dim": 16.5},
    "null": {"z_l_dim": None},
    "not a number": {"z_l_dim": float("nan")},
    "beyond 64 bits": {"z_g_dim": 10**30},
    "beyond memory": {"z_g_dim": 10**13},
    "even kernel": {"structure_kernel": 6},
    "negative kernel": {"structure_kernel": -7},
    "full picture smaller than a patch": {"full_px": 90},
    "full picture without end": {"full_px": float("inf")},
    "patch without a pixel": {"visible_cells": 1},
    "a million layers": {"mapping_layers": 10**6, "z_g_dim": 1, "w_dim": 1},
    "a billion layers": {"structure_layers": 10**9},
}


def assert_refused(content, *expected):
    """Checks for one line of bounded length that names the file."""
    with pytest.raises(InputError) as caught:
        load_checkpoint(content, NAME)
    message = str(caught.value)
    assert NAME in message
    assert message.isprintable()
    assert len(message) < 400
    for text in expected:
        assert text in message


@pytest.mark.parametrize("kind", OTHER_FILES)
def test_a_file_that_is_no_checkpoint_is_refused_in_one_line(kind):
    assert_refused(OTHER_FILES[kind]())
    assert UNPICKLED == []


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_refused_in_one_line(content, damage):
    assert_refused(DAMAGES[damage](content))


@pytest.mark.timeout(20)
@pytest.mark.parametrize("numbers", NUMBERS)
def test_a_checkpoint_that_does_not_fit_its_numbers_is_refused_in_one_line(content, numbers):
    assert_refused(with_numbers(content, **NUMBERS[numbers]), "configuration")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_checkpoint_with_a_value_that_is_no_number_is_refused(tiny, value):
    tensors = {name: x.clone() for name, x in tiny.state_dict().items()}
    tensors["texture.layers.3.convolution.weight"][2, 1, 0, 2] = value
    assert_refused(save_checkpoint(tensors, tiny.config, {}, LICENCE), "'texture.layers.3.convolution.weight' ")


INTEGERS = [torch.int32, torch.int64, torch.int8, torch.uint8, torch.bool, torch.complex64]


@pytest.mark.parametrize("kind", INTEGERS)
def test_a_checkpoint_whose_weights_are_no_floating_point_numbers_is_refused(tiny, kind):
    tensors = {name: x.to(kind) for name, x in tiny.state_dict().items()}
    assert_refused(
        save_checkpoint(tensors, tiny.config, {}, LICENCE), "tensor '", "save it again as float32 or float16"
    )


def test_a_checkpoint_whose_numbers_float32_cannot_hold_is_refused(tiny):
    tensors = {name: x.double() for name, x in tiny.state_dict().items()}
    tensors["texture.layers.3.convolution.weight"][2, 1, 0, 2] = 1e300
    assert_refused(save_checkpoint(tensors, tiny.config, {}, LICENCE), "'texture.layers.3.convolution.weight' ")


COUNTS = {"steps": 3, "images_before": 0}
BAD_STATES = {
    "no counts": ({"ema.x": torch.zeros(3)}, {}, "its header lacks the number of steps"),
    "a negative count": ({"ema.x": torch.zeros(3)}, {**COUNTS, "steps": -1}, "its header lacks the number of steps"),
    "integers": ({"ema.x": torch.zeros(3, dtype=torch.int32)}, COUNTS, "tensor 'ema.x' holds int32 numbers"),
    "not finite": ({"ema.x": torch.tensor([1.0, torch.nan])}, COUNTS, "'ema.x' holds values that are not finite"),
}


@pytest.mark.parametrize("damage", BAD_STATES)
def test_a_damaged_training_state_is_refused_in_one_line(damage):
    tensors, header, message = BAD_STATES[damage]
    with pytest.raises(InputError) as caught:
        load_state(save(TRAINING_STATE, tensors, header), NAME)
    assert str(caught.value).startswith(NAME)
    assert message in str(caught.value)


@pytest.mark.parametrize("change", ["missing", "additional", "renamed", "reshaped", "broadcast"])
def test_a_checkpoint_with_other_tensors_is_refused(tiny, change):
    tensors = dict(tiny.state_dict())
    name = "structure.blocks.2.bias"
    x = tensors.pop(name) if change in ("missing", "renamed") else tensors[name]
    if change in ("additional", "renamed"):
        tensors["structure.blocks.9.bias"] = x.clone()
    if change in ("reshaped", "broadcast"):
        tensors[name] = x[:4].clone() if change == "reshaped" else x[:1].clone()
    assert_refused(save_checkpoint(tensors, tiny.config, {}, LICENCE), "configuration")


def test_a_checkpoint_is_no_training_state_and_the_message_says_what_it_is(content):
    with pytest.raises(InputError) as caught:
        load(TRAINING_STATE, content, NAME)
    found, needed = str(caught.value).split(";")
    assert CHECKPOINT in found
    assert TRAINING_STATE in needed


def test_loading_a_checkpoint_loads_no_compiler(tiny, tiny_stage, tmp_path):
    """The import of torch._dynamo takes more than a second of each process that renders."""
    path = tmp_path / "with-detail.safetensors"
    path.write_bytes(save_checkpoint(tiny.state_dict(), tiny.config, {}, LICENCE, tiny_stage))
    program = (
        "import sys; from model.checkpoint import load_checkpoint; "
        "load_checkpoint(open(sys.argv[1], 'rb').read(), 'tiny'); sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program, path]).returncode == 0
