"""Counts that a runner collects from its workers, which may start again from nothing."""

from hypothesis import given
from hypothesis import strategies as st

from transforms.storage.tally import Collected, Tally

counts = st.integers(0, 1000)


@given(counts, counts, st.lists(st.tuples(counts, counts), min_size=1))
def test_counts_never_fall(before, before_named, collected):
    """After a restart a runner counts again from nothing."""
    tally = Tally("of this test")
    tally.add(before)
    tally.add(before_named, "bytes")
    runner = Collected()
    for number, (count, named) in enumerate(collected, start=1):
        runner.take({"of this test": count, "of this test/bytes": named, "another's": 5})
        assert tally.count == before + max(count for count, _ in collected[:number])
        assert tally.named()["bytes"] == before_named + max(named for _, named in collected[:number])
