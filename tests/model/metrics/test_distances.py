"""Distances between sets: their definitions, known answers, and the bootstrap."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.metrics import distances
from model.metrics.distances import (
    WeightedValues,
    bootstrap_weights,
    deviation,
    estimate,
    frechet_distance,
    kernel_distance,
    mean,
    precision,
    recall,
    shift_distance,
)


def normals(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sample(values, groups=None, weights=None):
    """Returns a sample in which each value is a group by itself, unless given otherwise."""
    groups = torch.arange(len(values)) if groups is None else torch.as_tensor(groups)
    weights = torch.ones(1, int(groups.max()) + 1) if weights is None else torch.as_tensor(weights)
    return WeightedValues(torch.as_tensor(values), groups, weights.double())


def kernel(a, b):
    return float((a @ b / len(a) + 1) ** 3)


def by_the_book(x, y):
    """Computes the unbiased estimate, pair by pair."""
    within = sum(
        sum(kernel(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j) / (len(z) * (len(z) - 1))
        for z in (x, y)
    )
    return within - 2 * sum(kernel(a, b) for a in x for b in y) / (len(x) * len(y))


@given(st.integers(2, 7), st.integers(2, 7), st.integers(1, 3), st.integers(1, 5), st.integers(0, 99))
def test_kernel_distance_is_its_definition_however_pictures_are_grouped(n, m, x_groups, d, seed):
    x, y = normals(seed, n, d), normals(seed + 1, m, d) + 0.3
    grouped = kernel_distance(sample(x, [i % min(x_groups, n) for i in range(n)]), sample(y))
    assert float(grouped[0]) == pytest.approx(by_the_book(x, y), rel=1e-9, abs=1e-9)


def test_kernel_distance_of_equal_distributions_is_0_on_average():
    values = torch.cat([kernel_distance(sample(normals(s, 8, 3)), sample(normals(s + 999, 8, 3))) for s in range(400)])
    assert abs(float(values.mean())) < 3 * float(values.std()) / 20
    apart = kernel_distance(sample(normals(0, 50, 3)), sample(normals(1, 50, 3) + 1))
    assert float(apart) > 10 * float(values.std()) / 20


def test_a_picture_drawn_twice_is_not_paired_with_itself():
    """Otherwise all the bootstrap's distances would be larger than the measurement."""
    x, y = normals(0, 30, 4), normals(1, 40, 4)
    draws = kernel_distance(
        sample(x, weights=bootstrap_weights(30, 400, 1)), sample(y, weights=bootstrap_weights(40, 400, 2))
    )
    assert float(draws[1:].mean()) == pytest.approx(float(draws[0]), abs=0.3 * float(draws[1:].std()))


def test_memory_is_that_of_blocks_and_the_distances_do_not_see_them(monkeypatch):
    x, y = sample(normals(0, 9, 3)), sample(normals(1, 7, 3) + 0.5)
    measures = (kernel_distance, precision, recall)
    whole = [measure(x, y) for measure in measures]
    monkeypatch.setattr(distances, "BLOCK", 2)
    for measure, expected in zip(measures, whole, strict=True):
        assert torch.allclose(measure(x, y), expected)


def whitened(n, d, seed):
    """Values whose mean is exactly 0 and whose covariance is exactly the identity."""
    values = normals(seed, n, d)
    q = torch.linalg.qr(values - values.mean(dim=0)).Q
    return q * (n - 1) ** 0.5


@pytest.mark.parametrize("n", [5, 40])
def test_frechet_distance_of_a_shift_is_its_square(n):
    x = normals(0, n, 8)
    assert float(frechet_distance(sample(x), sample(x + 0.5))) == pytest.approx(8 * 0.25)
    assert float(frechet_distance(sample(x), sample(x.flip(0)))) == pytest.approx(0, abs=1e-6)


def test_frechet_distance_of_normal_distributions_is_the_closed_form():
    """Along each axis it is the squared difference of the standard deviations (Dowson and Landau 1982)."""
    wide, narrow = torch.tensor([3.0, 1.0, 0.5]), torch.tensor([1.0, 2.0, 0.5])
    x, y = whitened(50, 3, 0) * wide, whitened(70, 3, 1) * narrow
    assert float(frechet_distance(sample(x), sample(y))) == pytest.approx(4 + 1)
    assert float(frechet_distance(sample(y), sample(x))) == pytest.approx(5)


def test_weights_stand_for_repetition():
    x, y, taken = normals(0, 6, 3), normals(1, 5, 3), [0, 1, 2, 0, 3, 1]
    repeated, weighted = sample(x.repeat_interleave(torch.tensor(taken), 0)), sample(x, weights=[taken])
    assert torch.allclose(frechet_distance(repeated, sample(y)), frechet_distance(weighted, sample(y)))
    for measure in (mean, deviation):
        columns = (WeightedValues(z.values[:, 0], z.groups, z.weights) for z in (repeated, weighted))
        assert torch.allclose(*(measure(column) for column in columns))
    first = WeightedValues(weighted.values[:, 0], weighted.groups, weighted.weights)
    second = WeightedValues(repeated.values[:, 0], repeated.groups, repeated.weights)
    assert float(shift_distance(first, second)) == pytest.approx(0, abs=1e-12)


def test_precision_and_recall_tell_what_is_wrong():
    photographs = normals(0, 100, 2)
    same, far, cluster = sample(photographs), sample(photographs + 50), sample(photographs[photographs[:, 0] > 1])
    assert [float(measure(same, same)) for measure in (precision, recall)] == [1, 1]
    assert [float(measure(far, same)) for measure in (precision, recall)] == [0, 0]
    assert float(precision(cluster, same)) == 1
    assert float(recall(cluster, same)) < 0.5


def test_the_crops_of_a_photograph_are_not_its_neighbours():
    """Otherwise nothing would be as near to a crop as the other crops of its photograph."""
    photographs = normals(0, 100, 2)
    crops, groups = photographs.repeat_interleave(8, 0), torch.arange(100).repeat_interleave(8)
    near = sample(photographs + 0.05)
    assert float(precision(near, sample(crops, groups))) > 0.9
    assert float(precision(near, sample(crops))) == 0


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=9), st.floats(-50, 50))
def test_shift_distance_of_a_shift_is_its_length(values, shift):
    x = torch.tensor(values, dtype=torch.float64)
    assert float(shift_distance(sample(x), sample(x + shift))) == pytest.approx(abs(shift), abs=1e-9)


def test_shift_distance_of_sets_of_different_sizes():
    """Half of the mass moves by 2."""
    x, y = torch.tensor([0.0, 1.0, 0.0, 1.0]), torch.tensor([0.0, 3.0])
    assert float(shift_distance(sample(x), sample(y))) == pytest.approx(1)


def test_the_first_row_of_a_bootstrap_is_the_measurement_and_each_draws_as_many_groups():
    weights = bootstrap_weights(7, 30, 0)
    assert weights.shape == (31, 7)
    assert weights[0].tolist() == [1.0] * 7
    assert set(weights.sum(dim=1).tolist()) == {7.0}
    assert torch.equal(weights, bootstrap_weights(7, 30, 0))
    assert not torch.equal(weights, bootstrap_weights(7, 30, 1))


def test_the_error_is_that_of_groups_and_not_of_pictures():
    """Ten copies of a picture carry no more information than one."""
    values = normals(0, 200)
    weights = bootstrap_weights(200, 2000, 0)
    once = estimate(mean(sample(values, weights=weights)))
    copies = sample(values.repeat_interleave(10), torch.arange(200).repeat_interleave(10), weights)
    assert once.value == pytest.approx(float(values.mean()))
    assert once.error == pytest.approx(float(values.std()) / 200**0.5, rel=0.1)
    assert estimate(mean(copies)).error == pytest.approx(once.error)
