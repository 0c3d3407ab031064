"""Rules of ingest in their plainest form, for samples that fit in memory. The job must come to the same result."""

import numpy as np

from transforms.photographs.hashes import (
    DETAIL_DISTANCE,
    PERCEPTUAL_DISTANCE,
    detail_distances,
    detail_words,
    perceptual_words,
)
from transforms.training_set.samples import SPLITS
from transforms.training_set.shards import choose_samples_per_shard, shard_name


def drop_duplicates(samples, existing, dedup):
    """Returns the sources of the samples that are kept, and by source the reason and message for all others.

    Args:
        samples: pairs of a sample and its hashes for all crops.
        existing: the samples that are in the set.
        dedup: near or exact.
    """
    winners = {sample.sha256: sample.key for sample in existing}
    known = [(sample.key, sample) for sample in existing if sample.detail_hash]
    kept, lost = [], {}
    for sample, crops in sorted(samples, key=lambda item: decided(item[0])):
        like = nearest(sample, crops, [other for _, other in known]) if dedup == "near" else None
        if sample.sha256 in winners:
            lost[sample.source] = ("duplicate", f"the same bytes as {winners[sample.sha256]}")
        elif like:
            lost[sample.source] = ("near_duplicate", f"looks like {like[0].key}: {like[1]} of 144 bits differ")
        else:
            winners[sample.sha256] = sample.key
            known.append((sample.key, sample))
            kept.append(sample.source)
    return sorted(kept), lost


def decided(sample):
    """Returns the place of a sample in the order in which samples are decided."""
    return -sample.original_width_px * sample.original_height_px, sample.key, sample.source


def nearest(sample, crops, others):
    """Returns the first of the samples that look most like one, and the distance; None if none looks like it."""
    word = perceptual_words([sample.perceptual_hash])
    words = perceptual_words([other.perceptual_hash for other in others])
    near = [other for other, distance in zip(others, np.bitwise_count(words ^ word), strict=True) if distance <= 20]
    assert PERCEPTUAL_DISTANCE == 20
    if not near:
        return None
    details = detail_words(bytes.fromhex("".join(other.detail_hash for other in near)))
    distances = detail_distances(detail_words(crops), details)
    best = int(distances.argmin())
    return (near[best], int(distances[best])) if distances[best] <= DETAIL_DISTANCE else None


def assign_shards(samples, size, first=(0, 0, 0)):
    """Returns the keys in each shard, by its name: exactly `size` a shard but for the last, in key order."""
    shards = {}
    by_split = {split: sorted(s.key for s in samples if s.split == split) for split in SPLITS}
    size = size or choose_samples_per_shard(len(by_split["train"]))
    for number, (split, keys) in enumerate(by_split.items()):
        for start in range(0, len(keys), size):
            shards[shard_name(split, first[number] + start // size)] = keys[start : start + size]
    return shards
