"""Work done ahead: in order, no further ahead than asked for, and no error lost."""

import itertools
import threading
import time

import pytest

from transforms.read_ahead import map_ahead, one_ahead


def slow_square(x):
    time.sleep(0.002 * (x % 3))
    return x * x


@pytest.mark.parametrize(("threads", "ahead"), [(1, 1), (2, 1), (4, 8)])
def test_values_come_in_the_order_of_their_items(threads, ahead):
    assert list(map_ahead(slow_square, range(50), threads, ahead)) == [x * x for x in range(50)]


def test_no_more_is_taken_than_may_lie_ahead():
    taken = itertools.count()
    values = map_ahead(lambda x: x, taken, 4, 5)
    assert [next(values) for _ in range(10)] == list(range(10))
    assert next(taken) == 15


def test_an_error_comes_in_its_place():
    values = map_ahead(lambda x: 1 // (3 - x), range(9), 2, 4)
    assert [next(values) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(values)


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
