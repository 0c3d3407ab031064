import dataclasses
import hashlib
import random
from unittest import mock

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.transforms.photographs.test_hashes import picture
from tests.transforms.training_set.test_samples import make_sample
from transforms.ingest import batches
from transforms.ingest import cells as cells_module
from transforms.ingest import ranges as ranges_module
from transforms.ingest.batches import RECORD, keys_of, read_rows, read_staged, stage
from transforms.ingest.cells import FOUND, assign, compare_cell, draw_pivots
from transforms.ingest.comparisons import (
    comparisons,
    decide_all,
    load_block,
    make_comparison,
    read_decided,
    store_block,
    store_found,
)
from transforms.ingest.duplicates import KNOWN, find_copies, number_copies, same_bytes, save_arrays
from transforms.ingest.known import hashes_of, known_of
from transforms.ingest.ranges import unpack
from transforms.photographs.hashes import crop_hashes, detail_hash, grey_grid, perceptual_hash
from transforms.photographs.prepare import Prepared


@pytest.fixture
def out(tmp_path):
    return str(tmp_path / "set")


def prepared(image, source, size=(800, 400), content=None):
    """Returns an image as it is staged; its bytes are unique to the source unless given."""
    crops = crop_hashes(grid := grey_grid(image.resize((394, 197))))
    sample = dataclasses.replace(
        make_sample(hashlib.sha256((content or source).encode()).hexdigest(), source),
        original_width_px=size[0],
        original_height_px=size[1],
        crop_box_px=(0, 0, *size),
        perceptual_hash=perceptual_hash(grid),
        detail_hash=detail_hash(crops),
    )
    return Prepared(sample, b"image", crops, None)


def records_of(out, items):
    stage(out, 0, items)
    return np.concatenate([staged.records for staged in read_staged(out, 0)])


def decide(out, items, existing=(), dedup="near", ranges=1, in_cells=False):
    """Returns the kept sources, and by source the reason and message for each of the others."""
    records, known = records_of(out, items), known_of([item.sample for item in existing], 0)
    parts = {}
    with mock.patch.object(ranges_module, "RANGE_ROWS", -(-len(items) // ranges)):
        drawn = list(ranges_module.draw(records, len(items)))
        for kind, rows in (("new", records), ("known", known)):
            for number, packed in ranges_module.cut(rows, drawn, len(items)):
                parts.setdefault(number, {"new": b"", "known": b""})[kind] += packed
    kept, rejects, blocks = [], [], []
    for number, part in parts.items():
        exact = find_copies(out, unpack([part["new"]], RECORD), unpack([part["known"]], KNOWN))
        rejects += same_bytes(out, exact.known, exact.winners)
        if dedup == "near":
            store_block(out, number, exact)
            blocks.append(number)
        else:
            kept.append(exact.first)
            rejects += same_bytes(out, exact.copies, keys_of(exact.first[exact.copied]))
    url = f"{out}/known.npz"
    batches.write_bytes(url, save_arrays(hashes_of(known, [item.sample for item in existing])))
    pairs = comparisons(blocks, [url] if existing else [], not in_cells)
    made = [make_comparison(out, comparison) for comparison in pairs]
    if in_cells:
        made += compare_in_cells(out, blocks, len(items), ranges)
    for number in decide_all(out, random.Random(0).sample(made, len(made))):
        stays, lost = read_decided(out, number)
        kept.append(stays)
        rejects += lost
    sources = [row.sample["source"] for some in kept for row in read_rows(out, some)]
    return sorted(sources), {reject.source: (reject.reason, reject.message) for reject in rejects}


def compare_in_cells(out, blocks, samples, cells):
    """Returns what is made of the comparisons of blocks in about this number of cells."""
    loaded = {number: load_block(out, number) for number in blocks}
    found = {number: [] for number in blocks}
    gathered = {}
    with mock.patch.object(cells_module, "count_ranges", return_value=cells):
        drawn = [draw_pivots(block, samples) for block in loaded.values()]
    for number, block in loaded.items():
        for cell, part in assign(number, block, drawn):
            gathered.setdefault(cell, []).append(part)
    for parts in gathered.values():
        for number, packed in compare_cell(out, random.Random(0).sample(parts, len(parts))):
            found[number].append(packed)
    return [(n, store_found(out, n, unpack(found[n], FOUND)), len(block.records)) for n, block in loaded.items()]


@pytest.fixture
def trio():
    """Returns three sizes of one picture, and another picture."""
    sizes = {"small.jpg": (400, 200), "large.jpg": (1600, 800), "middle.jpg": (800, 400)}
    items = [prepared(picture(1).resize(size), name, size) for name, size in sizes.items()]
    return [*items, prepared(picture(2), "other.jpg")]


def test_the_largest_wins_whatever_comes_first(trio, out):
    key = trio[1].sample.key
    for order in range(6):
        kept, losers = decide(f"{out}{order}", random.Random(order).sample(trio, 4))
        assert kept == ["large.jpg", "other.jpg"]
        assert {name: (reason, key in message) for name, (reason, message) in losers.items()} == {
            "small.jpg": ("near_duplicate", True),
            "middle.jpg": ("near_duplicate", True),
        }


def test_of_equal_sizes_the_smallest_key_wins(out):
    items = [prepared(picture(1), f"{index}.jpg") for index in range(5)]
    kept, _ = decide(out, items)
    assert kept == [min(items, key=lambda item: item.sample.key).sample.source]


def test_what_is_in_the_set_wins_even_over_larger_ones(trio, out):
    kept, losers = decide(out, [trio[1], trio[3]], existing=[trio[0]])
    assert kept == ["other.jpg"]
    assert trio[0].sample.key in losers["large.jpg"][1]


def test_equal_bytes_are_duplicates_and_likeness_is_none_where_only_they_count(trio, out):
    copies = [prepared(picture(3), name, content="the same") for name in ("b.jpg", "a.jpg")]
    kept, losers = decide(out, [*trio, *copies], dedup="exact")
    assert kept == ["a.jpg", "large.jpg", "middle.jpg", "other.jpg", "small.jpg"]
    assert losers["b.jpg"] == ("duplicate", f"the same bytes as {copies[0].sample.key}")
    assert decide(f"{out}2", copies, existing=[copies[0]])[0] == []


def test_copies_are_numbered_on_from_those_in_the_set(out):
    copies = [prepared(picture(3), name, content="the same") for name in ("b.jpg", "a.jpg")]
    records = number_copies(out, records_of(out, copies), known_of([copies[0].sample], 0))
    assert keys_of(records) == [f"{copies[0].sample.key}-1", f"{copies[0].sample.key}-2"]
    assert [row.sample["source"] for row in read_rows(out, records)] == ["a.jpg", "b.jpg"]


def test_of_very_many_equal_pictures_one_is_kept(out, monkeypatch):
    monkeypatch.setattr(cells_module, "LIKENESSES_KEPT", 2)
    items = [prepared(picture(1 + number % 2), f"{number}.jpg") for number in range(40)]
    kept, losers = decide(out, items, ranges=3, in_cells=True)
    assert len(kept) == 2
    assert len(losers) == 38


def chain(seed, count):
    """Returns pictures of which each resembles the next."""
    rng = np.random.default_rng(seed)
    base = np.asarray(picture(seed), float)
    noisy = [(base + step * rng.normal(0, 60, base.shape)).clip(0, 255) for step in range(count)]
    return [Image.fromarray(levels.astype(np.uint8)) for levels in noisy]


def test_a_chain_of_likenesses_loses_only_to_what_stays(out):
    """The winner that a loser names is always kept."""
    items = [prepared(image, f"{index}.jpg", (800 + index, 400)) for index, image in enumerate(chain(4, 6))]
    kept, losers = decide(out, items)
    keys = {item.sample.source: item.sample.key for item in items}
    assert set(kept) | set(losers) == set(keys)
    for _, message in losers.values():
        assert any(keys[name] in message for name in kept)


PICTURES = [image for seed in range(6) for image in chain(seed, 4)]


@settings(max_examples=30)
@given(
    chosen=st.lists(st.tuples(st.integers(0, len(PICTURES) - 1), st.integers(0, 3), st.integers(0, 6)), max_size=40),
    there=st.integers(0, 10),
    ranges=st.sampled_from([1, 3, 9]),
    dedup=st.sampled_from(["near", "exact"]),
    in_cells=st.booleans(),
)
def test_blocks_are_decided_as_all_samples_together_are(tmp_path_factory, chosen, there, ranges, dedup, in_cells):
    items = [
        prepared(PICTURES[number], f"{place}.jpg", (800 + width, 400), f"{number} {width} {copy // 4}")
        for place, (number, width, copy) in enumerate(chosen)
    ]
    existing, new = items[:there], items[there:]
    unique = list({item.sample.sha256: item for item in existing}.values())
    if new:
        out = str(tmp_path_factory.mktemp("set"))
        with (
            mock.patch.object(cells_module, "winning_cells", lambda cells: cells),
            mock.patch.object(cells_module, "UNCROPPED_BITS", 144),
        ):
            found = decide(out, new, unique, dedup, ranges, in_cells)
        assert found == oracles.drop_duplicates(
            [(item.sample, item.crop_hashes) for item in new], [item.sample for item in unique], dedup
        )


def test_samples_of_sets_made_before_there_was_a_detail_hash_are_passed_over(trio, out):
    old = dataclasses.replace(trio[0], sample=dataclasses.replace(trio[0].sample, detail_hash=None))
    assert decide(out, trio[1:2], existing=[old]) == (["large.jpg"], {})


def test_a_fault_of_ours_costs_the_one_that_it_befell(out, monkeypatch):
    items = [prepared(picture(1), "a.jpg"), prepared(picture(2), "b.jpg")]
    broken = dataclasses.replace(items[0], crop_hashes=items[0].crop_hashes[1:])
    stage(out, 0, [broken, items[1]])
    (staged,) = read_staged(out, 0)
    assert [(reject.source, reject.reason) for reject in staged.rejects] == [("a.jpg", "internal")]
    assert [row.sample["source"] for row in read_rows(out, staged.records)] == ["b.jpg"]
