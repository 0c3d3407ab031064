"""Describes a file or folder of this project in a few lines.

The file may come from anywhere. So the amount read is bounded, and what the file claims never replaces what was
found out. Each kind imports only what it needs: a shard needs neither torch nor Arrow.
"""

import json
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from model.errors import InputError, one_line
from model.tensor_header import read_header
from transforms.formats.headers import READERS, read_said, read_short
from transforms.storage.files import exists, filesystem, join, read_bytes, read_json
from transforms.storage.text import printable

Lines = dict[str, object]


def describe(url: str) -> Lines:
    """Returns facts about what is at a URL, by name.

    Raises:
        InputError: Nothing is there, or nothing that this project made.
    """
    if not exists(url):
        raise InputError(f"{url}: there is no such file or folder")
    fs, path = filesystem(url)
    try:
        return describe_folder(url) if fs.isdir(path) and suffix_of(url) != ".zarr" else describe_file(url)
    except (InputError, OSError):
        raise
    except Exception as error:  # a reader may raise anything for a damaged file
        raise InputError(
            f"{url} is damaged, or was not made by infinitygan: {type(error).__name__}: {one_line(error)}"
        ) from None


def suffix_of(url: str) -> str:
    """Returns a name's suffix in lower case, from its last dot."""
    name = url.rstrip("/").rpartition("/")[2]
    return name[name.rfind(".") :].lower() if "." in name else ""


def describe_file(url: str) -> Lines:
    """Describes a checkpoint, training state, overlay, shard or panorama."""
    suffix = suffix_of(url)
    kinds: dict[str, Callable[[str], Lines]] = {".safetensors": describe_tensors, ".tar": describe_shard}
    if suffix in kinds:
        return kinds[suffix](url)
    if suffix in READERS:
        width_px, height_px, said = read_said(url.rstrip("/"), suffix)
        return found({"what": "panorama", "size_px": f"{width_px}×{height_px}"}, said)
    raise InputError(
        f"{url}: unknown kind of file; give {', '.join([*kinds, *READERS])} or a folder of ingest, train or render"
    )


def describe_folder(url: str) -> Lines:
    """Describes a training set, a run, the output of render, or one plan's patches."""
    from transforms.panoramas.folder import PLAN_FILE
    from transforms.panoramas.manifest import MANIFEST, stream_manifest
    from transforms.training.run_folder import CONFIG, LOG
    from transforms.training_set.dataset import DATASET, read_dataset

    if exists(join(url, DATASET)):
        dataset = read_dataset(url)
        return {
            "what": "training set",
            "samples": dataset["samples"],
            "shards": len(dataset["shards"]),
            "rejects": dataset["rejects"],
            "photographs": f"{dataset['full_height_px']} px high, for patches of {dataset['patch_size_px']} px",
        }
    if exists(join(url, CONFIG)):
        config = read_json(join(url, CONFIG))
        log = read_bytes(join(url, LOG)).decode().splitlines() if exists(join(url, LOG)) else []
        last = json.loads(log[-1]) if log else {}
        return {"what": "training run", "preset": config["preset"], "data": config["data"], "last tick": last}
    if exists(join(url, MANIFEST)):
        counts = Counter(row["state"] for row in stream_manifest(url))
        return {"what": "rendered panoramas", "requests": counts.total(), **dict(sorted(counts.items()))}
    if exists(join(url, PLAN_FILE)):
        return found({"what": "patches of a panorama"}, read_json(join(url, PLAN_FILE)))
    raise InputError(f"{url} is not a training set, a run, or the output of render")


def describe_tensors(url: str) -> Lines:
    """Describes a checkpoint, training state or overlay, after checking that it can be used."""
    from model import checkpoint
    from model.world.overlay import OVERLAY
    from transforms.storage.tensor_files import read_tensors

    content = read_tensors(url)
    header = read_header(content, url)
    kind = str(header.pop("kind", None))
    facts: Lines = {"what": kind, "sha256": checkpoint.sha256(content), "size_bytes": len(content)}
    if kind == checkpoint.CHECKPOINT:
        checkpoint.load_checkpoint(content, url)
    elif kind == checkpoint.TRAINING_STATE:
        _, tensors = checkpoint.load_state(content, url)
        facts["tensors"] = dict(sorted(Counter(name.split(".")[0] for name in tensors).items()))
    elif kind == OVERLAY:
        check_overlay(content, url)
    else:
        checkpoint.load(kind, content, url)
    return found(facts, header)


def check_overlay(content: bytes, name: str) -> None:
    """Checks everything about an overlay that does not depend on the network.

    Raises:
        InputError: The overlay cannot be used.
    """
    from model.checkpoint import check_numbers
    from model.world.overlay import load_overlay

    overlay = load_overlay(content, name)
    noise = {f"z_n.{layer}": x for layer, x in enumerate(overlay.z_n)}
    check_numbers({"z_g": overlay.z_g, "w": overlay.w, "z_l": overlay.z_l, **noise}, name)


def describe_shard(url: str) -> Lines:
    """Describes a training shard or a patch shard."""
    fs, path = filesystem(url)
    first, count = None, 0
    try:
        with fs.open(path, "rb") as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            for member in tar:
                count += member.name.endswith(".json")
                file = tar.extractfile(member) if member.name.endswith(".json") and first is None else None
                first = json.loads(read_short(url, file)) if file else first
    except InputError:
        raise
    except (tarfile.TarError, ValueError) as error:
        raise InputError(f"{url} is not a shard: {error}") from None
    if not isinstance(first, dict):
        raise InputError(f"{url} is not a shard of this project: its samples have no metadata")
    if "world_x_px" in first:
        return {"what": "patch shard", "patches": count, "first patch": first}
    return {"what": "training shard", "samples": count, "split": first.get("split"), "first": first.get("key")}


def found(facts: Lines, said: Mapping[str, object]) -> Lines:
    """Returns the facts, followed by what the file says about itself beyond them."""
    return {**facts, **{name: value for name, value in said.items() if name not in facts}}


def told(lines: Lines) -> Iterator[str]:
    """Yields one line per fact, without terminal control characters."""
    for name, value in lines.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
        yield f"{printable(name)}: {printable(text)}"
