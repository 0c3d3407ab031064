"""A few seconds of what ``make fuzz`` does for minutes, and the promises of the driver itself."""

import driver
import pytest
import targets


def test_no_input_raises_hangs_or_takes_too_much_memory():
    failures = driver.fuzz(list(targets.TARGETS), seed=1, count=8 * len(targets.TARGETS)).failures
    assert not failures, failures[0].reason


def test_there_are_100_000_inputs():
    assert sum(target.inputs for target in targets.TARGETS.values()) >= 100_000


@pytest.mark.parametrize("target", ["pictures", "pages", "lists", "requests", "tars"])
def test_the_same_seed_makes_the_same_inputs(target):
    assert driver.make(target, 3, 5) == driver.make(target, 3, 5) != driver.make(target, 3, 6)


@pytest.mark.parametrize(
    ("target", "reason"),
    [("raise", "ValueError: three"), ("hang", "not done after 2 s"), ("grow", "MemoryError"), ("die", "ended with 5")],
)
def test_the_driver_finds_each_kind_of_fault_and_goes_on(target, reason, tmp_path):
    expected = [number for number in range(7) if driver.make(target, 0, number) == b"\3"]
    failures = driver.fuzz([target], seed=0, count=7, limit_s=2).failures
    assert [failure.number for failure in failures] == expected
    assert expected
    assert all(reason in failure.reason for failure in failures)
    assert f"test_{target}_{expected[0]}" in failures[0].save(tmp_path)
    assert (tmp_path / f"{target}-{expected[0]}.bin").read_bytes() == b"\3"
