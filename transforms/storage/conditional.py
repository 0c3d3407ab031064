"""Writes to object stores on the condition that an object has not changed since its version was read."""

import json
import uuid
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

import fsspec

ABSENT: Final = ""
"""The version of an object that does not exist."""

CHANGED: Final = ("PreconditionFailed", "ConditionalRequestConflict", "pre-conditions", "conditionNotMet", "412")


class ChangedError(OSError):
    """An object has changed since its version was read."""


def version_of(fs: fsspec.AbstractFileSystem, path: str) -> str | None:
    """Returns the version of an object; ABSENT if there is none, and None if the store has no versions."""
    if not store_of(fs):
        return None
    fs.invalidate_cache(fs._parent(path))
    try:
        return version_in(fs, fs.info(path))
    except FileNotFoundError:
        return ABSENT


def version_in(fs: fsspec.AbstractFileSystem, entry: Mapping[str, Any]) -> str | None:
    """Returns the version of an object in an entry of a listing; None if the store has no versions."""
    field = {"gs": "generation", "s3": "ETag"}.get(store_of(fs))
    return str(entry[field]) if field else None


def store_of(fs: fsspec.AbstractFileSystem) -> str:
    """Returns gs or s3, or an empty string for a store without conditional writes."""
    names = (fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol
    return next((name for name in ("gs", "s3") if name in names), "")


def put(fs: fsspec.AbstractFileSystem, path: str, content: bytes, version: str) -> None:
    """Writes an object in one call.

    Raises:
        ChangedError: the version is no longer there.
    """
    with_condition(lambda: _PUT[store_of(fs)](fs, path, content, version), path)
    fs.invalidate_cache(fs._parent(path))


def remove(fs: fsspec.AbstractFileSystem, path: str, version: str) -> None:
    """Removes an object.

    Raises:
        ChangedError: the version is no longer there.
    """
    with_condition(lambda: _REMOVE[store_of(fs)](fs, path, version), path)
    fs.invalidate_cache(fs._parent(path))


def open_parts(fs: fsspec.AbstractFileSystem, path: str, version: str) -> Any:
    """Opens an object that is uploaded in parts; `commit_parts` makes it appear."""
    parts = fs.open(path, "wb", autocommit=False)
    if store_of(fs) == "gs":
        parts._initiate_upload = lambda: setattr(parts, "location", _begin_gs(fs, path, version))
    return parts


def commit_parts(fs: fsspec.AbstractFileSystem, parts: Any, version: str) -> None:
    """Makes an object appear that was uploaded in parts.

    Raises:
        ChangedError: the version is no longer there.
    """
    if store_of(fs) == "s3":
        with_condition(lambda: _complete_s3(fs, parts, version), parts.path)
    else:
        with_condition(parts.commit, parts.path)


def with_condition(call: Any, path: str) -> None:
    """Calls a function that writes on a condition; raises ChangedError if the store says that it does not hold."""
    try:
        call()
    except Exception as error:  # each store has errors of its own
        if isinstance(error, FileExistsError) or any(word in f"{error!r} {error}" for word in CHANGED):
            raise ChangedError(f"{path} was changed by another worker at the same time") from error
        raise


def _generation(version: str) -> str:
    return version or "0"


def _put_gs(fs: Any, path: str, content: bytes, version: str) -> None:
    bucket, key, _ = fs.split_path(path)
    place = f"{fs._location}/upload/storage/v1/b/{quote(bucket)}/o"
    mark = uuid.uuid4().hex
    parts = (("application/json", json.dumps({"name": key}).encode()), ("application/octet-stream", content))
    body = b"".join(f"--{mark}\r\nContent-Type: {kind}\r\n\r\n".encode() + part + b"\r\n" for kind, part in parts)
    headers = {"Content-Type": f"multipart/related; boundary={mark}"}
    how = {"uploadType": "multipart", "ifGenerationMatch": _generation(version)}
    fs.call("POST", place, data=body + f"--{mark}--\r\n".encode(), headers=headers, **how)


def _remove_gs(fs: Any, path: str, version: str) -> None:
    bucket, key, _ = fs.split_path(path)
    fs.call("DELETE", "b/{}/o/{}", bucket, key, ifGenerationMatch=_generation(version))


def _begin_gs(fs: Any, path: str, version: str) -> str:
    bucket, key, _ = fs.split_path(path)
    place = f"{fs._location}/upload/storage/v1/b/{quote(bucket)}/o?name={quote(key, safe='')}"
    how = {"uploadType": "resumable", "ifGenerationMatch": _generation(version)}
    headers = {"X-Upload-Content-Type": "application/octet-stream"}
    answer, _ = fs.call("POST", place, json={"name": key}, headers=headers, **how)
    place = answer["Location"]
    return str(place[0] if isinstance(place, list) else place)


def _match_s3(version: str) -> dict[str, str]:
    return {"IfMatch": version} if version else {"IfNoneMatch": "*"}


def _put_s3(fs: Any, path: str, content: bytes, version: str) -> None:
    bucket, key, _ = fs.split_path(path)
    fs.call_s3("put_object", Bucket=bucket, Key=key, Body=content, **_match_s3(version))


def _remove_s3(fs: Any, path: str, version: str) -> None:
    bucket, key, _ = fs.split_path(path)
    fs.call_s3("delete_object", Bucket=bucket, Key=key, IfMatch=version)


def _complete_s3(fs: Any, parts: Any, version: str) -> None:
    if not parts.parts:  # it was small after all
        parts.buffer.seek(0)
        _put_s3(fs, parts.path, parts.buffer.read(), version)
        return
    how = {"UploadId": parts.mpu["UploadId"], "MultipartUpload": {"Parts": parts.parts}}
    fs.call_s3("complete_multipart_upload", Bucket=parts.bucket, Key=parts.key, **how, **_match_s3(version))


_PUT: Final = {"gs": _put_gs, "s3": _put_s3}
_REMOVE: Final = {"gs": _remove_gs, "s3": _remove_s3}
