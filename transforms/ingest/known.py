"""The samples of a set that is extended or repacked, as far as the steps of the job need them."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np

from transforms.ingest.batches import Records, Row, sha256_words, stage_rows
from transforms.ingest.duplicates import KNOWN, Array, save_arrays
from transforms.ingest.run_mark import STAGING
from transforms.photographs.hashes import detail_words, perceptual_words
from transforms.storage.byte_ranges import Piece
from transforms.storage.files import join, write_bytes
from transforms.storage.tables import count_groups
from transforms.training_set.dataset import INDEX, INDEX_IS, Dataset, checked_sample, read_index_parts
from transforms.training_set.samples import Sample

_ROWS: Final = 1024


def groups(out: str) -> int:
    """Returns the number of row groups of a set's index."""
    return count_groups(join(out, INDEX), INDEX_IS)


def _samples(out: str, dataset: Dataset, group: int) -> Iterator[list[tuple[Sample, dict[str, Any]]]]:
    """Yields the samples of a row group, some at a time, with their rows.

    Raises:
        InputError: the index is damaged.
    """
    number = 0
    for part in read_index_parts(out, dataset["shards"], groups=[group]):
        for start in range(0, len(part), _ROWS):
            rows = part.slice(start, _ROWS).to_pylist()
            yield [(checked_sample(out, row, number + place), row) for place, row in enumerate(rows)]
            number += len(rows)


def read_known(out: str, dataset: Dataset, group: int) -> Iterator[tuple[str, Array]]:
    """Yields the samples of a row group, some at a time, and the URL of the file with their hashes."""
    place = group << 32
    for number, rows in enumerate(_samples(out, dataset, group)):
        samples = [sample for sample, _ in rows]
        known = known_of(samples, place)
        place += len(known)
        url = join(out, STAGING, "known", f"{group:06d}-{number:06d}.npz")
        write_bytes(url, save_arrays(hashes_of(known, samples)))
        yield url, known


def known_of(samples: Sequence[Sample], place: int) -> Array:
    """Returns samples of the set as `KNOWN` rows; `place` is that of the first in the index."""
    known = np.zeros(len(samples), dtype=KNOWN)
    for row, sample in zip(known, samples, strict=True):
        row["pixels"] = sample.original_width_px * sample.original_height_px
        row["sha256"] = sha256_words(sample.sha256)
        row["copy"] = int(sample.key[17:] or 0)
    known["place"] = np.arange(place, place + len(known))
    return known


def hashes_of(known: Array, samples: Sequence[Sample]) -> dict[str, Array]:
    """Returns the hashes of samples that have them; older sets have no detail hashes."""
    having = [number for number, sample in enumerate(samples) if sample.detail_hash]
    details = "".join(samples[number].detail_hash or "" for number in having)
    return {
        "records": known[having],
        "perceptual": perceptual_words([samples[number].perceptual_hash for number in having]),
        "details": detail_words(bytes.fromhex(details)),
    }


def stage_known(out: str, dataset: Dataset, group: int) -> Iterator[Records]:
    """Stages the rows of a row group of a set that is repacked; yields their records."""
    for number, samples in enumerate(_samples(out, dataset, group)):
        rows = [
            Row(sample.to_json(), None, Piece(join(out, row["shard"]), row["offset"], row["size"]))
            for sample, row in samples
        ]
        yield stage_rows(out, group, number, rows)
