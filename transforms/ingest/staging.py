"""The staging folder of a training set, from which a run continues an interrupted one.

``.staging`` in the set's folder holds the results of an unfinished run:

    run.json            the process at work, and its options
    base.json           the set's dataset.json as it was when the run began; null if there was no set
    provenance.json     what made the set and what is added to it
    plan.json, plan/    what the run deals with: see `transforms.ingest.plan`
    staged/             the photographs that are done: see `transforms.ingest.batches`
    known/, blocks/, likenesses/, runs/, rows/
                        what the steps of the job pass on, which a run that continues makes again
    repack/             the same set with its samples assigned to new shards, until it replaces the old one

A photograph with a line in a staged batch is done, however the run ended. The folder is removed when the set is
complete.
"""

import json
import posixpath
import re
from collections.abc import Collection, Mapping
from typing import Final, cast

from model.errors import InputError
from transforms.ingest.batches import write_faults
from transforms.ingest.plan import is_planned, plan_url
from transforms.ingest.run_mark import STAGING, mark_of, mark_run, read_run, refuse_run_at_work
from transforms.storage.fence import Fenced, alone_in, check_current
from transforms.storage.files import (
    TEMPORARY,
    exists,
    filesystem,
    join,
    list_files,
    move,
    read_json,
    remove,
    write_json,
)
from transforms.training_set.dataset import (
    DATASET,
    Configuration,
    Dataset,
    SetProvenance,
    checked_dataset,
    read_dataset,
    read_dataset_if_any,
)

_BASE: Final = "base.json"
_PROVENANCE: Final = "provenance.json"
_REPACK: Final = "repack"
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


def begin(out: str, configuration: Configuration) -> Fenced:
    """Marks the folder as being written by a new run, and removes what an interrupted one left behind.

    If the interrupted run has a plan, this run continues it.

    Returns:
        The folder, behind the fence of the run.

    Raises:
        InputError: as `check_out` does, which may have been called some time before.
    """
    check_out(out, configuration)
    going_on = is_planned(out)
    if not going_on:
        finish(out)
    out = mark_run(out, configuration)
    dataset = read_dataset_if_any(out)
    discard_shards(out, dataset)
    write_faults(out)
    if not going_on:
        note(out, dataset, configuration)
    return out


def note(out: str, dataset: Dataset | None, configuration: Configuration) -> None:
    """Stores the ``dataset.json`` of the set that a run adds to, and what the run adds, for workers to read."""
    made_by = provenance(dataset, configuration) if dataset else SetProvenance(configuration=configuration)
    write_json(join(out, STAGING, _BASE), dataset)
    write_json(join(out, STAGING, _PROVENANCE), made_by)


def provenance(existing: Dataset, configuration: Configuration | None = None) -> SetProvenance:
    """Records what made a set, what was added to it since, and the options of the run that now adds to it, if any."""
    before = existing.get("later_configurations")
    later = list(before) if isinstance(before, list) else []
    # A set that is watched for a year would otherwise have the same options recorded a hundred thousand times.
    if configuration and not (configuration.get("watch") and configuration == [existing["configuration"], *later][-1]):
        later.append(configuration)
    made: SetProvenance = {"configuration": existing["configuration"]}
    return {**made, "later_configurations": later} if later else made


def read_provenance(out: str) -> SetProvenance:
    """Returns what made the set and what the unfinished run adds to it.

    Raises:
        InputError: it is damaged.
    """
    url = join(out, STAGING, _PROVENANCE)
    value = read_json(url)
    if not isinstance(value, dict) or not isinstance(value.get("configuration"), dict):
        raise InputError(f"{url} is damaged: remove {join(out, STAGING)} to start again")
    return cast(SetProvenance, value)


def read_base(out: str) -> Dataset | None:
    """Returns the ``dataset.json`` that was there when the unfinished run began; None if there was no set.

    Raises:
        InputError: it is damaged, or has another format.
    """
    path = join(out, STAGING, _BASE)
    dataset = read_json(path)
    return None if dataset is None else checked_dataset(path, dataset)


def begin_repack(out: str, configuration: Mapping[str, object], dataset: Dataset) -> Fenced:
    """Marks the folder as being written by a new run; returns it, behind the run's fence.

    Args:
        out: the folder of the set.
        configuration: the options of the repack.
        dataset: the content of its ``dataset.json``.

    Raises:
        InputError: as `check_out` does.
    """
    check_out(out, configuration)
    finish(out)
    out = mark_run(out, configuration)
    write_json(join(out, STAGING, _BASE), dataset)
    write_json(join(out, STAGING, _PROVENANCE), provenance(dataset))
    return out


def repack_folder(out: str) -> str:
    """Returns the folder for the repacked set."""
    return join(out, STAGING, _REPACK)


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
        for path in (plan_url(str(out)), mark_of(out), join(str(out), STAGING)):
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


def _refuse_other_options(out: str, configuration: Mapping[str, object]) -> None:
    """Raises InputError if the interrupted run had other options."""
    before = read_run(out).get("configuration")
    if not is_planned(out) or not before or not isinstance(before, dict):
        return
    after = json.loads(json.dumps(configuration))
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            said = f"{name} {before.get(name)}, not {after.get(name)}"
            raise InputError(
                f"{out} holds an unfinished run with other options ({said}): give the same, or remove "
                f"{join(out, STAGING)} to start again"
            )
