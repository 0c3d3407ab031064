import dataclasses
import hashlib
import random

import numpy as np
import pytest
from PIL import Image

from tests.transforms.photographs.test_hashes import picture
from tests.transforms.training_set.test_samples import make_sample
from transforms.ingest import duplicates
from transforms.ingest.duplicates import drop_duplicates
from transforms.photographs.hashes import crop_hashes, detail_hash, grey_grid, perceptual_hash
from transforms.storage.byte_ranges import Piece
from transforms.training_set.records import Reject
from transforms.training_set.shards import StagedSample


def staged(image, source, size=(800, 400), content=None):
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
    return StagedSample(sample, Piece("x.tar", 0, 1), crops)


def decide(items, existing=(), dedup="near"):
    """Returns the kept sources, and by source the reason and the winner's key for each of the others."""
    outcomes = list(drop_duplicates(items, [item.sample.to_json() for item in existing], dedup))
    losers = {item.source: (item.reason, item.message) for item in outcomes if isinstance(item, Reject)}
    return sorted(item.source for item in outcomes if isinstance(item, StagedSample)), losers


@pytest.fixture
def trio():
    """Returns three sizes of one picture, and another picture."""
    sizes = {"small.jpg": (400, 200), "large.jpg": (1600, 800), "middle.jpg": (800, 400)}
    items = [staged(picture(1).resize(size), name, size) for name, size in sizes.items()]
    return [*items, staged(picture(2), "other.jpg")]


def test_the_largest_wins_whatever_comes_first(trio):
    key = trio[1].sample.key
    for order in range(6):
        kept, losers = decide(random.Random(order).sample(trio, 4))
        assert kept == ["large.jpg", "other.jpg"]
        assert {name: (reason, key in message) for name, (reason, message) in losers.items()} == {
            "small.jpg": ("near_duplicate", True),
            "middle.jpg": ("near_duplicate", True),
        }


def test_of_equal_sizes_the_smallest_key_wins():
    items = [staged(picture(1), f"{index}.jpg") for index in range(5)]
    kept, _ = decide(items)
    assert kept == [min(items, key=lambda item: item.sample.key).source]


def test_what_is_in_the_set_wins_even_over_larger_ones(trio):
    kept, losers = decide([trio[1], trio[3]], existing=[trio[0]])
    assert kept == ["other.jpg"]
    assert trio[0].sample.key in losers["large.jpg"][1]


def test_equal_bytes_are_duplicates_and_likeness_is_none_where_only_they_count(trio):
    copies = [staged(picture(3), name, content="the same") for name in ("b.jpg", "a.jpg")]
    kept, losers = decide([*trio, *copies], dedup="exact")
    assert kept == ["a.jpg", "large.jpg", "middle.jpg", "other.jpg", "small.jpg"]
    assert losers["b.jpg"] == ("duplicate", f"the same bytes as {copies[0].sample.key}")
    assert decide(copies, existing=[copies[0]])[0] == []


def test_copies_are_numbered_on_from_those_in_the_set():
    copies = [staged(picture(3), name, content="the same") for name in ("a.jpg", "b.jpg")]
    keys = [item.sample.key for item in drop_duplicates(copies, [copies[0].sample.to_json()], "off")]
    assert keys == [f"{copies[0].sample.key}-1", f"{copies[0].sample.key}-2"]


def test_a_chain_of_likenesses_loses_only_to_what_stays():
    """The winner that a loser names is always kept."""
    rng = np.random.default_rng(0)
    base = np.asarray(picture(4), float)
    noisy = [(base + step * rng.normal(0, 60, base.shape)).clip(0, 255) for step in range(6)]
    images = [Image.fromarray(levels.astype(np.uint8)) for levels in noisy]
    items = [staged(image, f"{index}.jpg", (800 + index, 400)) for index, image in enumerate(images)]
    kept, losers = decide(items)
    keys = {item.source: item.sample.key for item in items}
    assert set(kept) | set(losers) == set(keys)
    for _, message in losers.values():
        assert any(keys[name] in message for name in kept)


def test_samples_of_sets_made_before_there_was_a_detail_hash_are_passed_over(trio):
    row = {**trio[0].sample.to_json(), "detail_hash": None}
    assert [item.source for item in drop_duplicates(trio[1:2], [row], "near")] == ["large.jpg"]


def test_a_fault_of_ours_costs_the_one_that_it_befell(monkeypatch):
    items = [staged(picture(1), "a.jpg"), staged(picture(2), "b.jpg")]
    real = duplicates.perceptual_words

    def fail(hashes):
        if hashes == [items[0].sample.perceptual_hash]:
            raise ZeroDivisionError("unforeseen")
        return real(hashes)

    monkeypatch.setattr(duplicates, "perceptual_words", fail)
    outcomes = list(drop_duplicates(items, [], "near"))
    assert [outcome.reason for outcome in outcomes if isinstance(outcome, Reject)] == ["internal"]
    assert [outcome.source for outcome in outcomes if not isinstance(outcome, Reject)] == [items[1].source]
