"""A worker that sees other files, or has other versions, says so before any work."""

import dataclasses

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to

from model.errors import InputError
from transforms.workers.sight import CheckSight, check, look


@pytest.fixture
def sight(tmp_path):
    (tmp_path / "file").write_bytes(b"123")
    return look([str(tmp_path / "file"), str(tmp_path / "not here")])


def test_what_is_seen_by_both_passes(sight):
    check(sight)
    assert len(sight.sizes) == 1, "what the submitter does not see, a worker need not see"


def test_a_missing_file_is_named(sight, tmp_path):
    (tmp_path / "file").unlink()
    with pytest.raises(InputError, match=f"does not see {tmp_path / 'file'}: give a URL"):
        check(sight)


def test_another_file_of_the_same_name_is_noticed(sight, tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    with pytest.raises(InputError, match="does not see"):
        check(sight)


@pytest.mark.parametrize("name", ["Python", "Apache Beam", "infinitygan"])
def test_other_versions_are_refused(name, sight):
    there = tuple((what, "0.0" if what == name else version) for what, version in sight.versions)
    with pytest.raises(InputError, match=rf"has {name} .*, but the job was submitted with 0\.0"):
        check(dataclasses.replace(sight, versions=there))


@pytest.mark.parametrize("checked", [True, False])
def test_elements_pass_unchanged(checked, sight):
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        passed = pipeline | beam.Create([1, 2, 3]) | CheckSight(sight if checked else None)
        assert_that(passed, equal_to([1, 2, 3]))
