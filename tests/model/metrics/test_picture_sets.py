"""Sets of pictures as numbers."""

import pytest
import torch

from model.metrics.feature_networks import feature_networks
from model.metrics.picture_sets import EXAMPLES, describe


@pytest.fixture(scope="module")
def networks():
    return feature_networks(None, None, "cpu")


def pictures(n, seed):
    return torch.randint(0, 256, (n, 3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def described(networks):
    """Describes three photographs, with two patches and a frame each."""
    return describe(({"patch": pictures(2, n), "frame": pictures(1, 9 + n)} for n in range(3)), networks)


def test_each_picture_belongs_to_its_photograph(described):
    assert described["patch"].groups.tolist() == [0, 0, 1, 1, 2, 2]
    assert described["frame"].groups.tolist() == [0, 1, 2]


def test_each_picture_has_its_own_features_and_statistics(described, networks):
    one = pictures(2, 1)[1:]
    found = described["patch"]
    assert torch.allclose(found.features["EffNetLite0"][3:4], networks["EffNetLite0"].features(one), atol=1e-4)
    assert float(found.statistics["contrast"][3]) == pytest.approx(float(one.double().std()))
    assert set(described["frame"].statistics) == {"horizon_height", "horizon_relief"}


def test_one_picture_of_each_of_the_first_photographs_is_kept_to_show(networks):
    many = describe(({"patch": pictures(2, n)} for n in range(EXAMPLES + 2)), networks)
    assert torch.equal(many["patch"].examples, torch.cat([pictures(2, n)[:1] for n in range(EXAMPLES)]))
