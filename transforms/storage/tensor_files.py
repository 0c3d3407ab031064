"""Tensor files on storage: checkpoints, training states and overlays.

A file is read whole only after its header shows that it belongs to this project and is not too large. So neither a
sparse file of any size nor a false header costs time or memory.
"""

from typing import IO

from model.errors import InputError
from model.tensor_header import LENGTH_BYTES, header_bytes, tensor_bytes
from transforms.storage.files import filesystem, join

PART_BYTES = 2**26


def read_tensors(url: str, what: str = "checkpoint", usual: str = "") -> bytes:
    """Reads a tensor file.

    Args:
        url: the file.
        what: the name of the thing in an error, before its URL.
        usual: the usual name of such a file, to be suggested if a folder was given that holds one.

    Raises:
        InputError: there is no such file, or its header is not that of a file of this project.
    """
    fs, path = filesystem(url)
    if not fs.isfile(path):
        if not fs.isdir(path):
            raise InputError(f"{what} {url}: there is no such file")
        cure = join(url, usual) if usual and fs.isfile(f"{path.rstrip('/')}/{usual}") else "a .safetensors file"
        raise InputError(f"{what} {url} is a folder; give {cure}")
    with fs.open(path, "rb") as file:
        start = read_up_to(file, LENGTH_BYTES)
        header = read_up_to(file, header_bytes(start, url))
        data = read_up_to(file, tensor_bytes(header, url) + 1)  # one byte more reveals a file that is too long
    return b"".join((start, header, data))


def read_up_to(file: IO[bytes], size: int) -> bytes:
    """Reads a number of bytes, or fewer at the end of the file; a stream may return less than is asked for."""
    content = bytearray()
    while len(content) < size:
        part = file.read(min(PART_BYTES, size - len(content)))
        if not part:
            break
        content += part
    return bytes(content)
