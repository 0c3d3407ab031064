"""The staging folder of a training set, from which a run continues an interrupted one.

``.staging`` in the set's folder holds the results of an unfinished run:

    run.json            the process at work, and its options
    base.json           the set's dataset.json as it was when the run began; null if there was no set
    plan.jsonl          the photographs to process, files that are not photographs, and rejects to be taken back
    <name>.tar/.jsonl   the encoded images of some photographs, and a row for each of them and for each reject
    repack/             the same set with its samples assigned to new shards, until it replaces the old one

A photograph with a row is done, however the run ended. The folder is removed when the set is complete.
"""

import io
import json
import posixpath
import re
import tarfile
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, TypeVar

import pyarrow as pa

from model.errors import InputError, one_line
from transforms.ingest.lock import STAGING, mark_of, mark_run, read_run, refuse_run_at_work
from transforms.photographs.prepare import Prepared
from transforms.sources.find import Found
from transforms.storage.byte_ranges import Piece
from transforms.storage.fence import Fenced, alone_in, check_current
from transforms.storage.files import (
    TEMPORARY,
    exists,
    filesystem,
    join,
    list_files,
    move,
    read_bytes,
    read_json,
    remove,
    write_bytes,
    write_json,
)
from transforms.storage.json_text import read_json_text
from transforms.training_set.dataset import (
    DATASET,
    INDEX_SCHEMA,
    Dataset,
    checked_dataset,
    read_dataset,
    read_dataset_if_any,
)
from transforms.training_set.records import FAULTS, Photograph, Reject, internal_reject
from transforms.training_set.samples import Sample
from transforms.training_set.shards import StagedSample, add_member

FAULT_FOLDER = "faults"
"""The folder in the set that holds a traceback for each place in the code that failed on some item."""

_Read = TypeVar("_Read")

_BASE, _PLAN, _REPACK = "base.json", "plan.jsonl", "repack"
_SHARD = re.compile(r"(train|val|test)-\d{6,}\.tar")
_TABLE = re.compile(r"(index|rejects)\.parquet|dataset\.json|report\.html")


def check_out(out: str, configuration: Mapping[str, object]) -> None:
    """Checks that a run can write to a folder, without changing anything.

    Raises:
        InputError: another run is at work, one with other options is unfinished, or there are unexplained shards.
    """
    fs, path = filesystem(out)
    fs.invalidate_cache(path)
    if fs.isfile(path):
        raise InputError(f"{out} is a file: --out must be a folder")
    if exists(join(out, STAGING)):
        refuse_run_at_work(out)
        _refuse_other_options(out, configuration)
    elif not exists(join(out, DATASET)) and any(_SHARD.fullmatch(name) for name in list_files(out)):
        raise InputError(f"{out} holds shards without a {DATASET}; choose another --out or remove them")


def plan_path(out: str) -> str:
    """Returns the path of the plan of an unfinished run."""
    return join(out, STAGING, _PLAN)


def is_unfinished(out: str) -> bool:
    """Returns whether an interrupted run can be resumed."""
    return exists(join(out, STAGING, _PLAN))


def begin(out: str, configuration: Mapping[str, object], found: Found) -> Fenced:
    """Marks the folder as being written by a new run, and records what is to be done.

    Returns:
        The folder, behind the fence of the run.

    Raises:
        InputError: as `check_out` does, which may have been called some time before.
    """
    check_out(out, configuration)
    going_on = is_unfinished(out)
    if not going_on:
        finish(out)
    out = mark_run(out, configuration)
    dataset = read_dataset_if_any(out)
    discard_shards(out, dataset)
    write_faults(out)
    if going_on:
        return out
    write_json(join(out, STAGING, _BASE), dataset)
    lines: list[dict[str, Any]] = [{"photograph": photograph.to_json()} for photograph in found.photographs]
    lines += [{"reject": _fields(reject)} for reject in found.rejects]
    lines += [{"mended": source} for source in sorted(found.mended)]
    _write_lines(join(out, STAGING, _PLAN), lines)
    return out


def read_base(out: str) -> Dataset | None:
    """Returns the ``dataset.json`` that was there when the unfinished run began; None if there was no set.

    Raises:
        InputError: it is damaged, or has another format.
    """
    path = join(out, STAGING, _BASE)
    dataset = read_json(path)
    return None if dataset is None else checked_dataset(path, dataset)


def begin_repack(out: str, configuration: Mapping[str, object]) -> str:
    """Marks the folder as being written by a new run; returns the folder for the repacked set, behind its fence.

    Raises:
        InputError: as `check_out` does.
    """
    check_out(out, configuration)
    finish(out)
    return join(mark_run(out, configuration), STAGING, _REPACK)


def read_plan(out: str) -> Found:
    """Reads the plan of the unfinished run."""
    found = Found()
    for item in _read_lines(join(out, STAGING, _PLAN), _noted):
        if isinstance(item, Reject):
            found.rejects.append(item)
        elif isinstance(item, Photograph):
            found.photographs.append(item)
        else:
            found.mended.add(item)
    return found


def stage(out: str, done: list[Prepared | Reject]) -> list[StagedSample | Reject]:
    """Stores the images and rows of some photographs: all of them or, if interrupted, none."""
    done = [_writable(item) for item in done]
    write_faults(out)
    name = uuid.uuid4().hex
    url = join(out, STAGING, f"{name}.tar")
    buffer = io.BytesIO()
    staged: list[StagedSample | Reject] = []
    with tarfile.open(fileobj=buffer, mode="w|", format=tarfile.USTAR_FORMAT) as tar:
        for outcome in done:
            if isinstance(outcome, Reject):
                staged.append(outcome)
                continue
            offset = add_member(tar, outcome.sample.sha256, outcome.image)
            image = Piece(str(url), offset, len(outcome.image))
            staged.append(StagedSample(outcome.sample, image, outcome.crop_hashes, outcome.origin))
    write_bytes(url, buffer.getvalue())
    _write_lines(join(out, STAGING, f"{name}.jsonl"), [_row(item) for item in staged])
    return staged


def _writable(item: Prepared | Reject) -> Prepared | Reject:
    """Returns the item, or a reject if the tables cannot hold it, because writing it would end the whole run."""
    try:
        if isinstance(item, Prepared):
            row = {**item.sample.to_json(), "shard": "", "offset": 0, "size": 0}
            pa.Table.from_pylist([row], schema=INDEX_SCHEMA)
            json.dumps(row, ensure_ascii=False).encode()
        else:
            json.dumps(_fields(item), ensure_ascii=False).encode()
    except (ValueError, TypeError, OverflowError, pa.ArrowException) as error:
        source = item.sample.source if isinstance(item, Prepared) else item.source
        return internal_reject(source, "read", error)
    return item


def write_faults(out: str) -> None:
    """Stores the tracebacks of items that failed in this process."""
    for name in tuple(FAULTS):
        text = FAULTS.pop(name, None)  # other threads store their own too
        if text is not None:
            write_bytes(join(out, FAULT_FOLDER, name), text.encode())


def read_staged(out: str) -> dict[str, StagedSample | Reject]:
    """Reads the results so far, by source."""
    done: dict[str, StagedSample | Reject] = {}
    for name in list_files(join(out, STAGING)):
        if name.endswith(".jsonl") and name != _PLAN:
            done |= {item.source: item for item in _read_lines(join(out, STAGING, name), _from_row)}
    return done


def discard_shards(out: str, dataset: Dataset | None) -> None:
    """Removes the shards that an unfinished run has written, including partial files, but never those of a set.

    Args:
        out: the folder.
        dataset: the ``dataset.json`` that is there now; None if there is no set.
    """
    fs, path = filesystem(out)
    fs.invalidate_cache(path)
    check_current(out, fs)
    shards = dataset["shards"] if dataset else None
    for entry in fs.ls(path, detail=True) if fs.isdir(path) else []:
        if entry["type"] == "file" and _is_stray(posixpath.basename(entry["name"]), shards):
            fs.rm_file(entry["name"])


def _is_stray(name: str, shards: Collection[str] | None) -> bool:
    """Returns whether a file is left over from an unfinished run.

    Args:
        name: the file's name.
        shards: the names of the set's shards; None if there is no set, so that no table belongs to one.
    """
    final = TEMPORARY.sub("", name)
    if _SHARD.fullmatch(final):
        return final not in (shards or ())
    return _TABLE.fullmatch(final) is not None and (shards is None or final != name)


def finish(out: str) -> None:
    """Removes the staged images, which the shards now contain, and before them all that makes the run go on.

    Raises:
        StaleRunError: the folder is behind the fence of a run that is no longer current.
    """
    with alone_in(out):
        check_current(out, filesystem(out)[0])
        for path in (plan_path(str(out)), mark_of(out), join(str(out), STAGING)):
            remove(path)


def install_repacked(out: str) -> bool:
    """Replaces the old set with a complete repacked one, or finishes doing so; returns whether there was one.

    Meanwhile the folder has no ``dataset.json``, so it does not look like a complete set.

    Raises:
        InputError: another process is doing the same.
    """
    new = join(out, STAGING, _REPACK)
    if not exists(join(new, DATASET)):
        return False
    refuse_run_at_work(out)
    dataset = read_dataset(new)
    fs, path = filesystem(out)
    if fs.exists(join(path, DATASET)):
        fs.rm_file(join(path, DATASET))
    for name in list_files(new):
        if name != DATASET:
            move(join(new, name), join(out, name))
    for name in list_files(out):
        if _SHARD.fullmatch(name) and name not in dataset["shards"]:
            fs.rm_file(join(path, name))
    write_json(join(out, DATASET), dataset)
    finish(out)
    return True


def _row(item: StagedSample | Reject) -> dict[str, Any]:
    if isinstance(item, Reject):
        return {"reject": _fields(item)}
    return {
        "sample": item.sample.to_json(),
        "image": _fields(item.image),
        "crop_hashes": item.crop_hashes.hex(),
        "origin": item.origin and _fields(item.origin),
    }


def _from_row(row: dict[str, Any]) -> StagedSample | Reject:
    if "reject" in row:
        return Reject(**row["reject"])
    origin = Piece(**row["origin"]) if row["origin"] else None
    sample, image = Sample.from_json(row["sample"]), Piece(**row["image"])
    return StagedSample(sample, image, bytes.fromhex(row["crop_hashes"]), origin)


def _noted(line: dict[str, Any]) -> Photograph | Reject | str:
    """Returns the photograph, the reject or the mended source of a line of the plan."""
    if "reject" in line:
        return Reject(**line["reject"])
    return str(line["mended"]) if "mended" in line else Photograph.from_json(line["photograph"])


def _fields(record: Reject | Piece) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__slots__}


def _write_lines(url: str, rows: list[dict[str, Any]]) -> None:
    write_bytes(url, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())


def _read_lines(url: str, use: Callable[[dict[str, Any]], _Read]) -> Iterator[_Read]:
    """Yields the value that the function makes of each line of a file of an unfinished run.

    Raises:
        InputError: a line is damaged.
    """
    for number, line in enumerate(read_bytes(url).split(b"\n"), start=1):
        try:
            if line:
                yield use(read_json_text(line))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            folder = f"{url.rpartition(f'/{STAGING}/')[0]}/{STAGING}"
            raise InputError(
                f"{url} is damaged at line {number} ({one_line(error)}): remove {folder} to start again"
            ) from None


def _refuse_other_options(out: str, configuration: Mapping[str, object]) -> None:
    """Raises InputError if the interrupted run had other options."""
    before = read_run(out).get("configuration")
    if not is_unfinished(out) or not before or not isinstance(before, dict):
        return
    after = json.loads(json.dumps(configuration))
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            said = f"{name} {before.get(name)}, not {after.get(name)}"
            raise InputError(
                f"{out} holds an unfinished run with other options ({said}): give the same, or remove "
                f"{join(out, STAGING)} to start again"
            )
