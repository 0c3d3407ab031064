"""Slices: each request belongs to exactly one, and those of an array's tasks come from their environment."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import InputError
from transforms.render.slices import Slice, parse_slice

NAMES = st.text(max_size=30)
COUNTS = st.integers(1, 2000)


def slurm(task, first, last, step=1, count=None):
    """Returns the variables that Slurm sets for a task of an array."""
    values = {"ID": task, "MIN": first, "MAX": last, "STEP": step, "COUNT": count or (last - first) // step + 1}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


@given(NAMES, COUNTS)
def test_each_request_belongs_to_one_slice_counted_from_0_or_from_1(name, count):
    from_0 = [number for number in range(count) if Slice(number, count).holds(name)]
    from_1 = [number for number in range(1, count + 1) if Slice(number, count).holds(name)]
    assert [number % count for number in from_1] == from_0
    assert len(from_0) == 1


def test_a_request_keeps_its_slice_in_later_versions():
    """A job that was begun by one version is finished by the next."""
    assert [number for number in range(16) if Slice(number, 16).holds("coast-0001")] == [10]


@pytest.mark.parametrize("count", [2, 7, 16])
def test_slices_of_many_requests_have_about_the_same_size(count):
    sizes = Counter(number for i in range(4000) for number in range(count) if Slice(number, count).holds(f"id-{i:05}"))
    mean = 4000 / count
    assert all(abs(size - mean) < 5 * mean**0.5 for size in sizes.values()), sizes


@pytest.mark.parametrize("text", ["0/16", "16/16", "1/1", "3/16", "0/1"])
def test_a_slice_is_given_by_its_number_and_the_number_of_all(text):
    assert str(parse_slice(text, {})) == text


@pytest.mark.parametrize(
    "text",
    ["", "3", "3/", "/16", "17/16", "0/0", "-1/16", "1/-16", "1.5/16", "3 / 16", "3/16/2", "Auto", "³/16"],
)
def test_anything_else_is_refused_with_an_example(text):
    with pytest.raises(InputError, match=r"^--slice .*: give auto, or .* such as 3/16"):
        parse_slice(text, slurm(3, 0, 15))


@given(st.integers(0, 50), st.integers(1, 9), st.integers(1, 40))
def test_the_tasks_of_a_slurm_array_share_all_requests(first, step, count):
    last = first + step * (count - 1)
    slices = [parse_slice("auto", slurm(task, first, last, step)) for task in range(first, last + 1, step)]
    assert sorted(each.number % count for each in slices) == list(range(count))
    assert {each.count for each in slices} == {count}


def test_the_pods_of_an_indexed_job_share_all_requests():
    pods = [{"JOB_COMPLETION_INDEX": str(index), "JOB_COMPLETIONS": "5"} for index in range(5)]
    assert [str(parse_slice("auto", pod)) for pod in pods] == ["0/5", "1/5", "2/5", "3/5", "4/5"]


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({}, "neither SLURM_ARRAY_TASK_ID .* nor JOB_COMPLETION_INDEX .* is set"),
        (slurm(7, 3, 7, count=2), "the 2 tasks of this Slurm array, 3 to 7, are not evenly spaced"),
        ({"SLURM_ARRAY_TASK_ID": "3"}, "SLURM_ARRAY_TASK_MIN is not set"),
        (slurm(3, 0, 15) | {"SLURM_ARRAY_TASK_COUNT": "many"}, "SLURM_ARRAY_TASK_COUNT is many"),
        ({"JOB_COMPLETION_INDEX": "3"}, "set JOB_COMPLETIONS in the job's manifest"),
        ({"JOB_COMPLETION_INDEX": "5", "JOB_COMPLETIONS": "5"}, "JOB_COMPLETION_INDEX is 5, but JOB_COMPLETIONS is 5"),
        ({"JOB_COMPLETION_INDEX": "0", "JOB_COMPLETIONS": "all"}, "JOB_COMPLETIONS is all"),
    ],
)
def test_an_environment_that_does_not_tell_the_slice_is_refused_with_the_cure(environment, reason):
    with pytest.raises(InputError, match=f"^--slice .*{reason}"):
        parse_slice("auto", environment)
