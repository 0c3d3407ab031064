import hashlib

import pytest

from tests.transforms.training_set.test_samples import make_sample
from transforms.storage.byte_ranges import Piece
from transforms.training_set.shards import StagedSample


def staged(count, folder="/staging"):
    items = []
    for index in range(count):
        sha256 = hashlib.sha256(str(index).encode()).hexdigest()
        size = 64 * (1 + int(sha256[0], 16))
        items.append(StagedSample(make_sample(sha256, f"{index}.jpg"), Piece(f"{folder}/{sha256}.jpg", 7, size)))
    return items


@pytest.fixture
def on_disk(tmp_path):
    items = staged(40, str(tmp_path))
    for item in items:
        with open(item.image.url, "wb") as file:
            file.write(b"before " + item.sample.sha256.encode() * (1 + int(item.sample.key[0], 16)) + b" behind")
    return items
