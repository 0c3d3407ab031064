"""Staged batches: the encoded images and rows of some photographs, and the records that stand for them.

Steps of the job pass on *records*, some 70 bytes for each sample, packed in arrays. All else stays on storage, in the
batch that the record names:

    staged/<share>/<batch>.bin     for each sample its image, its row as JSON, and its hashes
    staged/<share>/<batch>.jsonl   a line for each sample and each reject; written last, so a batch with it is whole
"""

import io
import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from model.errors import InputError, one_line
from transforms.ingest.run_mark import STAGING
from transforms.photographs.hashes import HASH_BYTES
from transforms.photographs.prepare import Prepared
from transforms.storage.byte_ranges import Piece, read_pieces
from transforms.storage.files import join, list_files, read_bytes, write_bytes
from transforms.storage.json_text import read_json_text
from transforms.training_set.dataset import INDEX_SCHEMA
from transforms.training_set.records import FAULTS, Photograph, Reject, internal_reject
from transforms.training_set.samples import SampleJson

FAULT_FOLDER = "faults"
"""The folder in the set that holds a traceback for each place in the code that failed on some item."""

STAGED: Final = "staged"

RECORD: Final = np.dtype(
    [
        ("pixels", "<u8"),
        ("sha256", "<u8", (4,)),
        ("copy", "<u4"),
        ("share", "<u4"),
        ("batch", "<u8"),
        ("offset", "<u8"),
        ("image_bytes", "<u4"),
        ("row_bytes", "<u4"),
    ]
)
"""A staged sample: the size of its original, its checksum, the number of its copy, and the place of its bytes."""

Records = npt.NDArray[np.void]
_Read = TypeVar("_Read")


@dataclass(frozen=True, slots=True)
class Row:
    """The row of a staged sample.

    Attributes:
        sample: its metadata, as `Sample.to_json` returns them.
        origin: the place of the photograph's own bytes, if it came from an archive.
        image: the place of its encoded image, if that is not in the batch.
    """

    sample: SampleJson
    origin: Piece | None
    image: Piece | None = None

    def to_bytes(self) -> bytes:
        """Returns the row as JSON; `from_bytes` reads it back."""
        places = {"origin": piece_json(self.origin), "image": piece_json(self.image)}
        return json.dumps({"sample": self.sample, **places}, ensure_ascii=False).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> "Row":
        """Reads a row.

        Raises:
            InputError: it is damaged.
        """
        try:
            fields = json.loads(content)
            return cls(fields["sample"], *(fields[name] and Piece(**fields[name]) for name in ("origin", "image")))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"a staged row is damaged ({one_line(error)}): remove {STAGING} to start again") from None

    def photograph(self) -> Photograph:
        """Returns the photograph that the sample was made from."""
        sample = self.sample
        return Photograph(sample["source"], sample["licence"], sample["author"], sample["title"], self.origin)


@dataclass(frozen=True, slots=True)
class Staged:
    """What is in a share's batches.

    Attributes:
        sources: the photographs that are done.
        records: the samples.
        rejects: the photographs that are rejected.
    """

    sources: frozenset[str]
    records: Records
    rejects: list[Reject]


def stage(out: str, share: int, done: Sequence[Prepared | Reject]) -> None:
    """Stores the images and rows of some photographs of a share: all of them or, if interrupted, none."""
    done = [_writable(item) for item in done]
    write_faults(out)
    batch = uuid.uuid4().int >> 64
    content = io.BytesIO()
    lines: list[dict[str, Any]] = []
    for item in done:
        if isinstance(item, Reject):
            lines.append({"reject": reject_json(item)})
            continue
        row = Row(item.sample.to_json(), item.origin).to_bytes()
        place = {"offset": content.tell(), "image_bytes": len(item.image), "row_bytes": len(row)}
        content.write(item.image)
        content.write(row)
        content.write(_hashes(item))
        lines.append({"source": item.sample.source, "sha256": item.sample.sha256, "pixels": _pixels(item), **place})
    write_bytes(batch_url(out, share, batch), content.getvalue())
    write_lines(batch_url(out, share, batch, "jsonl"), lines)


def stage_rows(out: str, share: int, batch: int, rows: Sequence[Row]) -> Records:
    """Stores the rows of samples whose images are elsewhere; returns their records. Repeating it gives the same."""
    records = np.zeros(len(rows), dtype=RECORD)
    content = io.BytesIO()
    for record, row in zip(records, rows, strict=True):
        line = row.to_bytes()
        record["sha256"] = sha256_words(row.sample["sha256"])
        record["copy"] = int(row.sample["key"][17:] or 0)
        record["share"], record["batch"] = share, batch
        record["offset"], record["row_bytes"] = content.tell(), len(line)
        content.write(line)
    write_bytes(batch_url(out, share, batch), content.getvalue())
    return records


def read_staged(out: str, share: int) -> Iterator[Staged]:
    """Reads the batches of a share, one after the other; a photograph that two attempts staged is in the first.

    Raises:
        InputError: a batch is damaged.
    """
    seen: set[str] = set()
    folder = share_url(out, share)
    for name in list_files(folder):
        stem, _, suffix = name.partition(".")
        if suffix != "jsonl":
            continue
        batch = int(stem, 16)
        found = list(read_lines(join(folder, name), partial(_from_line, share, batch)))
        new = [item for source, item in found if source not in seen]
        sources = frozenset(source for source, _ in found) - seen
        seen |= sources
        records = [item for item in new if not isinstance(item, Reject)]
        yield Staged(
            sources,
            np.concatenate([np.zeros(0, dtype=RECORD), *records]),
            [item for item in new if isinstance(item, Reject)],
        )


def read_rows(out: str, records: Records) -> Iterator[Row]:
    """Yields the rows of some records, in order."""
    for content in read_pieces(_piece(out, record, ["image_bytes"], "row_bytes") for record in records):
        yield Row.from_bytes(content)


def read_samples(out: str, records: Records) -> Iterator[tuple[bytes, Row]]:
    """Yields the encoded images and the rows of some records, in order; only a few are held in memory."""
    sizes = records["image_bytes"].tolist()
    ranges = read_pieces(_piece(out, record, [], "image_bytes", "row_bytes") for record in records)
    for size, content in zip(sizes, ranges, strict=True):
        row = Row.from_bytes(content[size:])
        yield (next(read_pieces([row.image])) if row.image else content[:size]), row


def read_hashes(out: str, records: Records) -> bytes:
    """Returns the hashes of some records, each `HASH_BYTES` long."""
    return b"".join(
        read_pieces(
            Piece(
                batch_url(out, int(record["share"]), int(record["batch"])),
                int(record["offset"]) + int(record["image_bytes"]) + int(record["row_bytes"]),
                HASH_BYTES,
            )
            for record in records
        )
    )


def _piece(out: str, record: Any, before: Sequence[str], *parts: str) -> Piece:
    """Returns the place of consecutive parts of a sample, after those before them."""
    start, size = (sum(int(record[name]) for name in names) for names in (["offset", *before], parts))
    return Piece(batch_url(out, int(record["share"]), int(record["batch"])), start, size)


def share_url(out: str, share: int) -> str:
    """Returns the folder of a share's batches."""
    return join(out, STAGING, STAGED, f"{share:06d}")


def batch_url(out: str, share: int, batch: int, suffix: str = "bin") -> str:
    """Returns the URL of one of a batch's two files."""
    return join(share_url(out, share), f"{batch:016x}.{suffix}")


def sha256_words(digest: str) -> npt.NDArray[np.uint64]:
    """Returns a checksum as numbers, whose order is that of its hex digits."""
    return np.frombuffer(bytes.fromhex(digest), dtype=">u8").astype("<u8")


def keys_of(records: Records) -> list[str]:
    """Returns the keys of samples."""
    firsts, copies = records["sha256"][:, 0].tolist(), records["copy"].tolist()
    return [f"{first:016x}-{copy}" if copy else f"{first:016x}" for first, copy in zip(firsts, copies, strict=True)]


def _pixels(item: Prepared) -> int:
    return item.sample.original_width_px * item.sample.original_height_px


def _hashes(item: Prepared) -> bytes:
    return bytes.fromhex(item.sample.perceptual_hash) + item.crop_hashes


def _writable(item: Prepared | Reject) -> Prepared | Reject:
    """Returns the item, or a reject if the tables cannot hold it, because writing it would end the whole run."""
    try:
        if isinstance(item, Prepared):
            row = {**item.sample.to_json(), "shard": "", "offset": 0, "size": 0}
            pa.Table.from_pylist([row], schema=INDEX_SCHEMA)
            json.dumps(row, ensure_ascii=False).encode()
            if len(_hashes(item)) != HASH_BYTES:
                raise ValueError(f"{len(_hashes(item))} bytes of hashes")
        else:
            json.dumps(reject_json(item), ensure_ascii=False).encode()
    except (ValueError, TypeError, OverflowError, pa.ArrowException) as error:
        source = item.sample.source if isinstance(item, Prepared) else item.source
        return internal_reject(source, "read", error)
    return item


def _from_line(share: int, batch: int, line: dict[str, Any]) -> tuple[str, Any]:
    """Returns the source of a line of a batch, and its reject or record."""
    if "reject" in line:
        reject = Reject(**line["reject"])
        return reject.source, reject
    places = (line["offset"], line["image_bytes"], line["row_bytes"])
    if not isinstance(line["source"], str):
        raise TypeError(f"source is {line['source']!r}; it must be text")
    return line["source"], np.array([(line["pixels"], sha256_words(line["sha256"]), 0, share, batch, *places)], RECORD)


def write_faults(out: str) -> None:
    """Stores the tracebacks of items that failed in this process."""
    for name in tuple(FAULTS):
        text = FAULTS.pop(name, None)  # other threads store their own too
        if text is not None:
            write_bytes(join(out, FAULT_FOLDER, name), text.encode())


def reject_json(reject: Reject) -> dict[str, Any]:
    """Returns a reject as a JSON value."""
    return {name: getattr(reject, name) for name in reject.__slots__}


def piece_json(piece: Piece | None) -> dict[str, Any] | None:
    """Returns the place of some bytes as a JSON value."""
    return {name: getattr(piece, name) for name in piece.__slots__} if piece else None


def write_lines(url: str, rows: Iterable[Any]) -> None:
    """Writes values as JSON, one per line. What is not Unicode, as in a file's name, is read as U+FFFD."""
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_bytes(url, lines.encode("utf-8", "backslashreplace"))


def read_lines(url: str, use: Callable[[Any], _Read]) -> Iterator[_Read]:
    """Yields the value that the function makes of each line of a file of an unfinished run.

    Raises:
        InputError: a line is damaged.
    """
    for number, line in enumerate(read_bytes(url).split(b"\n"), start=1):
        try:
            if line:
                yield use(read_json_text(line))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            folder = f"{url.rpartition(f'/{STAGING}/')[0]}/{STAGING}"
            raise InputError(
                f"{url} is damaged at line {number} ({one_line(error)}): remove {folder} to start again"
            ) from None
