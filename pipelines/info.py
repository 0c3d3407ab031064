"""What a file or folder of this project is, in a few lines."""

import io
import json
import sys
import tarfile
from collections.abc import Callable
from typing import Any

import tifffile

from model.checkpoint import read_header, sha256
from model.errors import InputError, one_line
from transforms.manifest import MANIFEST, read_manifest
from transforms.photographs import open_picture
from transforms.render_folder import PLAN_FILE
from transforms.run_folder import CONFIG, LOG
from transforms.storage import exists, filesystem, join, read_bytes, read_json
from transforms.training_shards import DATASET, read_dataset

Lines = dict[str, Any]


def describe(url: str) -> Lines:
    """What is at a URL, by name.

    Raises:
        InputError: nothing is there, or nothing that this project made.
    """
    if not exists(url):
        raise InputError(f"{url}: there is no such file or folder")
    fs, path = filesystem(url)
    try:
        return describe_folder(url) if fs.isdir(path) else describe_file(url)
    except (InputError, OSError):
        raise
    except Exception as error:  # what a reader raises of a damaged file is anybody's guess
        raise InputError(
            f"{url} is damaged, or not of this project: {type(error).__name__}: {one_line(error)}"
        ) from None


def describe_file(url: str) -> Lines:
    """A checkpoint, training state, shard or panorama."""
    suffixes: dict[str, Callable[[str], Lines]] = {
        ".safetensors": describe_tensors,
        ".tar": describe_shard,
        ".png": describe_png,
        ".tif": describe_tiff,
    }
    for suffix, describe_kind in suffixes.items():
        if url.endswith(suffix):
            return describe_kind(url)
    raise InputError(f"{url}: info knows {', '.join(suffixes)} and the folders of ingest, train and render")


def describe_folder(url: str) -> Lines:
    """A training set, a run, the output of render, or one plan's patches."""
    if exists(join(url, DATASET)):
        dataset = read_dataset(url)
        return {
            "what": "training set",
            "samples": dataset["samples"],
            "shards": len(dataset["shards"]),
            "rejects": dataset["rejects"],
            "photographs": f"{dataset['full_size_px']} px high, for patches of {dataset['patch_size_px']} px",
        }
    if exists(join(url, CONFIG)):
        config = read_json(join(url, CONFIG))
        log = read_bytes(join(url, LOG)).decode().splitlines() if exists(join(url, LOG)) else []
        last = json.loads(log[-1]) if log else {}
        return {"what": "training run", "preset": config["preset"], "data": config["data"], "last tick": last}
    if exists(join(url, MANIFEST)):
        rows = read_manifest(url)
        states = sorted({row["state"] for row in rows})
        counts = {state: sum(row["state"] == state for row in rows) for state in states}
        return {"what": "rendered panoramas", "requests": len(rows), **counts}
    if exists(join(url, PLAN_FILE)):
        return {"what": "patches of a panorama", **read_json(join(url, PLAN_FILE))}
    raise InputError(f"{url} is no training set, run, or output of render")


def describe_tensors(url: str) -> Lines:
    """A checkpoint or a training state."""
    content = read_bytes(url)
    header = read_header(content, url)
    return {"what": header.pop("kind"), "sha256": sha256(content), "size_bytes": len(content), **header}


def describe_shard(url: str) -> Lines:
    """A training shard or a patch shard."""
    try:
        with tarfile.open(fileobj=io.BytesIO(read_bytes(url)), mode="r:") as tar:
            names = [member.name for member in tar]
            files = [tar.extractfile(name) for name in names if name.endswith(".json")]
            documents = [json.loads(file.read()) for file in files if file]
    except (tarfile.TarError, ValueError) as error:
        raise InputError(f"{url} is no shard: {error}") from None
    if not documents:
        raise InputError(f"{url} is no shard of this project: it holds no metadata")
    first = documents[0]
    if "world_x_px" in first:
        return {"what": "patch shard", "patches": len(documents), "first patch": first}
    return {"what": "training shard", "samples": len(documents), "split": first.get("split"), "first": first.get("key")}


def describe_png(url: str) -> Lines:
    """A panorama as PNG."""
    fs, path = filesystem(url)
    try:
        with fs.open(path, "rb") as file, open_picture(file, ["PNG"]) as image:
            return panorama(url, image.size, image.info.get("InfinityGAN"))  # type: ignore[attr-defined]
    except OSError as error:
        raise InputError(f"{url} is no PNG: {error}") from None


def describe_tiff(url: str) -> Lines:
    """A panorama as TIFF."""
    fs, path = filesystem(url)
    try:
        with fs.open(path, "rb") as file, tifffile.TiffFile(file) as tiff:
            page = tiff.pages.first
            return panorama(url, (page.imagewidth, page.imagelength), json.loads(page.description).get("InfinityGAN"))
    except (tifffile.TiffFileError, ValueError) as error:
        raise InputError(f"{url} is no TIFF of this project: {error}") from None


def panorama(url: str, size_px: tuple[int, int], provenance: str | None) -> Lines:
    """A panorama by its size and what its file says of where it comes from."""
    if not provenance:
        raise InputError(f"{url} is no panorama of this project: the file does not say where it comes from")
    return {"what": "panorama", "size_px": f"{size_px[0]}×{size_px[1]}", **json.loads(provenance)}


if __name__ == "__main__":
    from pipelines.cli import main

    main(["info", *sys.argv[1:]])
