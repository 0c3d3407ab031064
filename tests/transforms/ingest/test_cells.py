import tracemalloc

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.transforms.photographs.test_hashes import picture
from transforms.ingest.cells import LIKENESSES_KEPT, WINNER, first_likenesses, nearest_cells, winning_cells
from transforms.photographs.hashes import coarse_features, crop_hashes, grey_grid, perceptual_hash, split_hashes


def hashes_of(images):
    grids = [grey_grid(image) for image in images]
    return split_hashes(b"".join(bytes.fromhex(perceptual_hash(grid)) + crop_hashes(grid) for grid in grids))


def winners_of(places, perceptual, details):
    winners = np.zeros(len(places), dtype=WINNER)
    winners["place"], winners["perceptual"], winners["details"] = places, perceptual, details
    return winners


def test_of_very_many_equal_pictures_each_keeps_its_first_likenesses_in_little_memory():
    perceptual, details, crops = hashes_of([picture(1), picture(2)])
    kind = np.where(np.arange(20_000) % 100 == 99, 1, 0)
    winners = winners_of(np.arange(len(kind)), perceptual[kind], details[kind])
    losers = np.arange(len(kind) - 200, len(kind))
    samples = losers.astype(np.uint64), perceptual[kind[losers]], crops[kind[losers]]
    tracemalloc.start()
    found = first_likenesses(winners, *samples)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 16 << 20, "all likenesses of the losers would take 96 MB"
    assert not found[2].any()
    for index, loser in enumerate(losers):
        alike = np.flatnonzero(kind[:loser] == kind[loser])[:LIKENESSES_KEPT]
        assert found[0][found[1] == index].tolist() == alike.tolist()


@settings(max_examples=30)
@given(
    features=st.lists(st.lists(st.integers(-2, 2), min_size=3, max_size=3), min_size=1, max_size=150),
    pivots=st.sets(st.tuples(*[st.integers(-2, 2)] * 3), min_size=1, max_size=30),
)
def test_the_nearest_cells_come_first_and_of_equal_ones_those_with_low_numbers(features, pivots):
    pivots = sorted(pivots)
    near = nearest_cells(np.array(features, float), np.array(pivots, float))
    for row, cells in zip(features, near.tolist(), strict=True):
        distances = [sum((a - b) ** 2 for a, b in zip(row, pivot, strict=True)) for pivot in pivots]
        assert cells == sorted(range(len(pivots)), key=distances.__getitem__)[: winning_cells(len(pivots))]


def test_pictures_that_look_alike_have_similar_features():
    images = [picture(seed) for seed in range(20)]
    whole = coarse_features(hashes_of(images)[2])
    size = images[0].size
    cropped = coarse_features(hashes_of([image.crop((5, 5, size[0] - 5, size[1] - 5)) for image in images])[2])
    distances = ((whole[:, None] - cropped[None]) ** 2).sum(axis=2)
    assert distances.argmin(axis=1).tolist() == list(range(20))
