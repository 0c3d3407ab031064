"""Tensor files are read whole, or refused before they cost time or memory."""

import itertools
import json
import struct
import tracemalloc
from pathlib import Path

import pytest
from aiohttp import web

from model.checkpoint import load_checkpoint
from model.errors import InputError
from model.tensor_header import MOST_BYTES, MOST_HEADER_BYTES
from transforms.storage.tensor_files import read_tensors

GIB = 2**30


def sparse(path, size, start=b""):
    """Creates a file that has a size, but takes almost no space on disk."""
    with open(path, "wb") as file:
        file.write(start)
        file.truncate(size)
    return str(path)


def header(**tensors):
    """Returns the start of a file, whose header says where its tensors end."""
    text = json.dumps({name: {"dtype": "F32", "shape": [1], "data_offsets": [0, end]} for name, end in tensors.items()})
    return struct.pack("<Q", len(text)) + text.encode()


LIES = {
    "nothing but zeros": (64 * GIB, b""),
    "a header of 64 GiB": (64 * GIB, struct.pack("<Q", 64 * GIB)),
    "a header as long as the file": (64 * GIB, struct.pack("<Q", 64 * GIB - 8)),
    "a header one byte too long": (64 * GIB, struct.pack("<Q", MOST_HEADER_BYTES + 1)),
    "tensors of 64 GiB": (64 * GIB, header(a=64 * GIB)),
    "a tensor one byte too long": (64 * GIB, header(a=MOST_BYTES + 1)),
    "a tensor that ends before it begins": (64 * GIB, header(a=-1)),
    "no numbers": (64 * GIB, header(a="x")),
    "infinite": (64 * GIB, header(a=float("inf"))),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_file_that_lies_is_refused_at_once(tmp_path, lie):
    path = sparse(tmp_path / "big.safetensors", *LIES[lie])
    tracemalloc.start()
    with pytest.raises(InputError, match=r"big\.safetensors"):
        read_tensors(path)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 4 * MOST_HEADER_BYTES


def test_no_more_is_read_than_the_header_says(tmp_path):
    """One more byte is read, which shows that the file is too long."""
    start = header(a=1000)
    assert len(read_tensors(sparse(tmp_path / "long.safetensors", 64 * GIB, start))) == len(start) + 1001
    assert len(read_tensors(sparse(tmp_path / "short.safetensors", len(start) + 7, start))) == len(start) + 7


def test_a_server_that_sends_without_end_is_refused(web_server):
    async def endless(request):
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in itertools.repeat(None):
            await response.write(b"\1" * 2**16)
        return response

    web_server.routes["/x.safetensors"] = endless
    with pytest.raises(InputError, match="is not an InfinityGAN checkpoint"):
        read_tensors(f"{web_server.url}/x.safetensors")


def test_a_checkpoint_comes_whole_from_a_folder_and_a_web_server(tiny_checkpoint, web_server):
    content = Path(tiny_checkpoint).read_bytes()
    web_server.routes["/x.safetensors"] = content
    assert read_tensors(tiny_checkpoint) == content
    assert read_tensors(f"{web_server.url}/x.safetensors") == content
    load_checkpoint(content, "x")


def test_a_folder_is_said_to_be_one_and_the_file_in_it_is_named(tmp_path):
    with pytest.raises(InputError, match=r"--init .* is a folder; give a \.safetensors file"):
        read_tensors(str(tmp_path), "--init", usual="checkpoint.safetensors")
    (tmp_path / "checkpoint.safetensors").touch()
    with pytest.raises(InputError, match=r"--init .* is a folder; give .*/checkpoint\.safetensors"):
        read_tensors(str(tmp_path), "--init", usual="checkpoint.safetensors")
    with pytest.raises(InputError, match="checkpoint nowhere: there is no such file"):
        read_tensors("nowhere")
