"""Photographs to a training set, as Beam transforms.

Pixels never cross a shuffle: a worker that has read a photograph leaves its image in the staging folder, named by the
photograph's sha256, and passes on a row of metadata. Doing any step twice writes the same bytes to the same name.

The transforms are dataclasses, but not frozen ones: Beam keeps notes of its own on a transform that it applies.
"""

import hashlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam import pvalue
from apache_beam.typehints.decorators import no_annotations

from model.errors import one_line
from transforms.photographs import Rejection, decode, encode_jpeg, frame, perceptual_hash, store
from transforms.samples import Sample, as_copy, plan_patches, sample_key, split_of
from transforms.sources import Photograph, Reject
from transforms.staging import STAGING
from transforms.storage import filesystem, join, write_bytes
from transforms.tally import Tally
from transforms.training_shards import StagedSample, WrittenShard, assign_shards, write_shard, write_tables

FILE_CAP_BYTES = 1 << 30
READ_ATTEMPTS = 3
DEDUP_WAYS = ("exact", "off")
_REJECTED = "rejected"


PHOTOGRAPHS_DONE = Tally()
"""Counts the photographs that this process has dealt with, for the progress bar."""


def prepare_photograph(
    photograph: Photograph, out: str, full_size_px: int, patch_size_px: int, square: bool
) -> StagedSample | Reject:
    """Reads a photograph, stages the image to be stored, and says all that is to be known of it."""
    stage, attempts = "read", 1
    try:
        content, attempts = read_photograph(photograph.source)
        stage = "decode"
        picture = decode(content, full_size_px)
        stage = "frame"
        if min(picture.width_px, picture.height_px) < patch_size_px:
            size = f"{picture.width_px}×{picture.height_px} px"
            raise Rejection("too_small", f"{size}: the short side must have the {patch_size_px} px of a patch")
        framing = frame(picture.width_px, picture.height_px, full_size_px, square)
        image = store(picture, framing)
    except Rejection as rejection:
        return Reject(photograph.source, stage, rejection.reason, rejection.message, attempts)
    sha256 = hashlib.sha256(content).hexdigest()
    key = sample_key(sha256)
    left, top, right, bottom = framing.crop_box_px
    rows = (0, framing.height_px)
    sample = Sample(
        key=key,
        source=photograph.source,
        licence=photograph.licence,
        author=photograph.author,
        sha256=sha256,
        perceptual_hash=perceptual_hash(image),
        original_width_px=picture.width_px,
        original_height_px=picture.height_px,
        crop_box_px=framing.crop_box_px,
        full_size_px=(right - left, bottom - top),
        stored_width_px=framing.width_px,
        stored_height_px=framing.height_px,
        split=split_of(key),
        full_rows_px=rows,
        patches=plan_patches(key, framing.width_px, rows, patch_size_px),
    )
    image_url = join(out, STAGING, f"{sha256}.jpg")
    write_bytes(image_url, encode_jpeg(image))
    return StagedSample(sample, image_url)


def read_photograph(source: str) -> tuple[bytes, int]:
    """The bytes of a file, and how many attempts they took.

    Raises:
        Rejection: it cannot be read, or is too large to be.
    """
    fs, path = filesystem(source)
    for attempt in range(1, READ_ATTEMPTS + 1):
        try:
            with fs.open(path, "rb") as file:
                content = file.read(FILE_CAP_BYTES + 1)
            break
        except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
            raise Rejection("unreadable", error.strerror or one_line(error)) from None
        except Exception as error:  # each store has errors of its own, and not all of them are OSErrors
            if attempt == READ_ATTEMPTS:
                raise Rejection("unreadable", f"{one_line(error)} ({attempt} attempts)") from None
            time.sleep(0.1 * 4**attempt)
    if len(content) > FILE_CAP_BYTES:
        raise Rejection("too_large", f"the file has more than {FILE_CAP_BYTES} bytes")
    return content, attempt


def drop_duplicates(staged: Iterable[StagedSample], dedup: str) -> Iterator[StagedSample | Reject]:
    """Of photographs with the same bytes, keeps the one whose source sorts first.

    With dedup ``off`` all are kept: the first under its key, the others under ``key-1``, ``key-2``, ...
    """
    first, *others = sorted(staged, key=lambda item: item.sample.source)
    yield first
    for copy, item in enumerate(others, start=1):
        if dedup == "off":
            yield StagedSample(as_copy(item.sample, copy), item.image_url)
        else:
            message = f"the same bytes as {first.sample.key}, {first.sample.source}"
            yield Reject(item.sample.source, "deduplicate", "duplicate", message)


@dataclass(eq=False)
class PreparePhotographs(beam.PTransform):
    """Reads, checks, resizes and stages photographs; outputs ``prepared`` and ``rejected``."""

    out: str
    full_size_px: int
    patch_size_px: int
    square: bool

    @no_annotations
    def expand(self, photographs: beam.PCollection) -> pvalue.DoOutputsTuple:
        """Beam's hook."""
        return (
            photographs
            | "Share out" >> beam.Reshuffle()
            | "Prepare" >> beam.FlatMap(self._prepare).with_outputs(_REJECTED, main="prepared")
        )

    def _prepare(self, photograph: Photograph) -> Iterator[Any]:
        outcome = prepare_photograph(photograph, self.out, self.full_size_px, self.patch_size_px, self.square)
        PHOTOGRAPHS_DONE.add()
        yield _sort_out(outcome)


@dataclass(eq=False)
class DropDuplicates(beam.PTransform):
    """Settles what becomes of photographs with the same bytes; outputs ``kept`` and ``rejected``."""

    dedup: str

    @no_annotations
    def expand(self, staged: beam.PCollection) -> pvalue.DoOutputsTuple:
        """Beam's hook."""
        return (
            staged
            | "By content" >> beam.WithKeys(lambda item: item.sample.sha256)
            | "Gather copies" >> beam.GroupByKey()
            | "Choose" >> beam.FlatMap(self._choose).with_outputs(_REJECTED, main="kept")
        )

    def _choose(self, copies: tuple[str, Iterable[StagedSample]]) -> Iterator[Any]:
        return (_sort_out(outcome) for outcome in drop_duplicates(copies[1], self.dedup))


@dataclass(eq=False)
class AssignShards(beam.PTransform):
    """Puts all samples in the order of their keys and cuts it into shards.

    One worker holds the rows of all samples for this, about a kilobyte each.
    """

    samples_per_shard: int | None

    @no_annotations
    def expand(self, kept: beam.PCollection) -> beam.PCollection:
        """Beam's hook."""
        return (
            kept
            | "As one" >> _as_one()
            | "Gather samples" >> beam.GroupByKey()
            | "Cut" >> beam.FlatMap(lambda group: assign_shards(group[1], self.samples_per_shard))
        )


@dataclass(eq=False)
class WriteTrainingShards(beam.PTransform):
    """Writes each shard from its staged images."""

    out: str

    @no_annotations
    def expand(self, shards: beam.PCollection) -> beam.PCollection:
        """Beam's hook."""
        return shards | "Spread" >> beam.Reshuffle() | "Write" >> beam.Map(lambda shard: write_shard(self.out, shard))


@dataclass(eq=False)
class WriteTables(beam.PTransform):
    """Writes ``index.parquet``, ``rejects.parquet`` and ``dataset.json`` once every shard is there."""

    out: str
    configuration: dict[str, Any]

    @no_annotations
    def expand(self, inputs: tuple[beam.PCollection, beam.PCollection]) -> beam.PCollection:
        """Beam's hook."""
        shards, rejects = inputs
        keyed = {
            "shards": shards | "Shards as one" >> _as_one(),
            "rejects": rejects | "Rejects as one" >> _as_one(),
        }
        return keyed | "Gather" >> beam.CoGroupByKey() | "Write" >> beam.Map(self._write)

    def _write(self, group: tuple[str, dict[str, Iterable[Any]]]) -> dict[str, Any]:
        shards: Iterable[WrittenShard] = group[1]["shards"]
        rejects: Iterable[Reject] = group[1]["rejects"]
        return write_tables(self.out, shards, rejects, self.configuration)


def _as_one() -> beam.PTransform:
    """Gives all elements the same key, by which one worker then gathers them."""
    return beam.WithKeys("all")


def _sort_out(outcome: StagedSample | Reject) -> Any:
    return pvalue.TaggedOutput(_REJECTED, outcome) if isinstance(outcome, Reject) else outcome
