"""Reads a whole training set at once, which the program itself never does."""

from transforms.training_set.dataset import IndexRows, read_dataset
from transforms.training_set.samples import SPLITS


def read_index(url):
    """Returns the rows of a set's index, in the order of its shards."""
    return list(IndexRows(url, read_dataset(url), SPLITS))
