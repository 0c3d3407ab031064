import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.storage.prefetch import map_ahead, one_ahead


@given(st.lists(st.integers()), st.integers(1, 5), st.integers(0, 9))
def test_results_come_in_the_order_of_the_items(items, threads, ahead):
    assert list(map_ahead(lambda item: item + 1, items, threads, ahead)) == [item + 1 for item in items]


@given(st.integers(1, 3), st.integers(0, 9))
def test_only_so_many_items_are_taken_ahead(threads, ahead):
    taken = []
    results = map_ahead(lambda item: item, (taken.append(item) or item for item in range(50)), threads, ahead)
    for number in range(50):
        assert next(results) == number
        assert len(taken) <= number + ahead + 1


def test_an_item_is_worked_on_while_the_next_is_made():
    made = threading.Event()

    def items():
        yield 0
        made.set()
        yield 1

    assert list(map_ahead(lambda item: made.wait(20), items())) == [True, True]


def test_an_error_is_raised_in_its_turn_and_nothing_runs_on():
    before, started = threading.active_count(), []

    def function(item):
        started.append(item)
        return 1 // (item - 3)

    results = map_ahead(function, range(1000), threads=2, ahead=4)
    assert [next(results) for _ in range(3)] == [-1, -1, -1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert len(started) <= 3 + 4 + 1
    assert threading.active_count() == before


def test_an_error_of_an_item_is_raised_too():
    def items():
        yield 1
        raise OSError("store gone")

    with pytest.raises(OSError, match="store gone"):
        list(map_ahead(lambda item: item, items()))


def test_the_next_item_is_taken_while_one_is_in_use():
    reached = threading.Event()

    def items():
        yield 1
        reached.set()
        yield 2

    taken = one_ahead(items())
    assert next(taken) == 1
    assert reached.wait(5)
    assert list(taken) == [2]


def test_an_error_of_taking_an_item_is_raised():
    def items():
        yield 1
        raise OSError("disk")

    taken = one_ahead(items())
    assert next(taken) == 1
    with pytest.raises(OSError, match="disk"):
        next(taken)
