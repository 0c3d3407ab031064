"""The files by which blocks of samples are compared and decided on; `transforms.ingest.duplicates` has the rule.

blocks/<block>.npz               a block: its samples with their hashes
likenesses/<block>-<part>.npz    the likenesses between a block and some of those before it, or of the set, or in cells
losses/<block>.npz               the samples of a block that are dropped
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from transforms.ingest.batches import Records
from transforms.ingest.duplicates import (
    Array,
    Block,
    Decisions,
    Exact,
    compare,
    load_arrays,
    lost,
    make_block,
    save_arrays,
)
from transforms.ingest.run_mark import STAGING
from transforms.storage.files import join, read_bytes, write_bytes
from transforms.training_set.records import Reject

BLOCKS_COMPARED: Final = 16
"""The number of blocks with which one is compared in one go."""

_WITHIN: Final = "within"
_OF_CELLS: Final = 999_999
"""The part of the likenesses that are found in cells: the last."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A block, and what it is compared with in one go.

    Attributes:
        block: the number of the block.
        part: the number of this comparison among those of the block.
        known: the URLs of samples in the set.
        before: the numbers of blocks that are decided before; the block's own number stands for itself.
    """

    block: int
    part: int
    known: tuple[str, ...] = ()
    before: tuple[int, ...] = ()


def store_block(out: str, number: int, exact: Exact) -> None:
    """Stores a block for comparison."""
    write_bytes(_url(out, "blocks", number), make_block(out, exact).to_bytes())


def load_block(out: str, number: int) -> Block:
    """Reads a block."""
    return Block.from_bytes(read_bytes(_url(out, "blocks", number)))


def comparisons(blocks: Iterable[int], known: Iterable[str], in_pairs: bool) -> Iterator[Comparison]:
    """Yields comparisons: of each block with the set, and, if in pairs, with the blocks before it and with itself."""
    numbers, urls = sorted(blocks), sorted(known)
    for place, block in enumerate(numbers):
        parts = [Comparison(block, 0, known=some) for some in _cut(urls)]
        parts += [Comparison(block, 0, before=some) for some in _cut(numbers[: place + 1] if in_pairs else [])]
        for part, comparison in enumerate(parts):
            yield Comparison(block, part, comparison.known, comparison.before)


def _cut(items: Sequence[Any]) -> list[tuple[Any, ...]]:
    return [tuple(items[start : start + BLOCKS_COMPARED]) for start in range(0, len(items), BLOCKS_COMPARED)]


def make_comparison(out: str, comparison: Comparison) -> tuple[int, int, int]:
    """Makes and stores a comparison; returns its block, its part, and the number of the block's samples."""
    block = load_block(out, comparison.block)
    found: dict[str, Array] = {}
    for place, url in enumerate(comparison.known):
        found[f"known {place:06d}"] = compare(Block.before(read_bytes(url)), block)
    for number in comparison.before:
        if number == comparison.block:
            found[_WITHIN] = compare(block)
        else:
            found[f"{number:06d}"] = compare(Block.before(read_bytes(_url(out, "blocks", number))), block)
    url = _url(out, "likenesses", comparison.block, comparison.part)
    write_bytes(url, save_arrays({name: array for name, array in found.items() if len(array)}))
    return comparison.block, comparison.part, len(block.records)


def store_found(out: str, block: int, found: Array) -> int:
    """Stores the likenesses of a block's samples that are found in cells, `FOUND` rows; returns their part's number."""
    arrays = {
        _WITHIN if number == block else f"{number:06d}": found[found["block"] == number]
        for number in np.unique(found["block"]).tolist()
    }
    write_bytes(_url(out, "likenesses", block, _OF_CELLS), save_arrays(arrays))
    return _OF_CELLS


def decide_all(out: str, made: Iterable[tuple[int, int, int]]) -> Iterator[int]:
    """Applies the rule to one block after the other, and stores the losses of each; yields the blocks' numbers."""
    parts: dict[int, list[int]] = {}
    counts: dict[int, int] = {}
    for block, part, count in made:
        parts.setdefault(block, []).append(part)
        counts[block] = count
    decisions = Decisions()
    places = {block: place for place, block in enumerate(sorted(parts))}
    for block in places:
        losses = decisions.decide(counts[block], _likenesses(out, block, sorted(parts[block]), places))
        write_bytes(_url(out, "losses", block), save_arrays({"losses": losses}))
        yield block


def _likenesses(
    out: str, block: int, parts: Iterable[int], places: dict[int, int]
) -> Iterator[tuple[int | None, Array]]:
    """Yields a block's likenesses, in the order in which samples are decided, and the places of the other blocks."""
    for part in parts:
        arrays = load_arrays(read_bytes(_url(out, "likenesses", block, part)))
        for name in sorted(arrays, key=lambda name: (not name.startswith("known"), name)):
            yield None if name.startswith("known") else places[block if name == _WITHIN else int(name)], arrays[name]


def read_decided(out: str, number: int) -> tuple[Records, Iterator[Reject]]:
    """Returns the samples of a block that are kept, and the rejects of all others."""
    block = load_block(out, number)
    return lost(out, block, load_arrays(read_bytes(_url(out, "losses", number)))["losses"])


def _url(out: str, folder: str, *numbers: int) -> str:
    return join(out, STAGING, folder, "-".join(f"{number:06d}" for number in numbers) + ".npz")
