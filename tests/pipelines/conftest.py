"""Real object stores on this machine, and the resources that a pipeline requests from its workers."""

import os
from collections import Counter

import fsspec
import pytest
from stores import gs, s3  # noqa: F401 - fixtures


@pytest.fixture
def files_read(monkeypatch):
    """How many times each file of a local folder has been read whole, by its name."""
    counts: Counter[str] = Counter()
    read = fsspec.implementations.local.LocalFileSystem.cat_file

    def count(self, path, *arguments, **options):
        counts[os.path.basename(path)] += 1
        return read(self, path, *arguments, **options)

    monkeypatch.setattr(fsspec.implementations.local.LocalFileSystem, "cat_file", count)
    return counts


@pytest.fixture(scope="session")
def accelerators():
    """Reads from a pipeline's proto the accelerator that each step requests, "" for none."""

    def accelerators(pipeline):
        parts = pipeline.components
        hints = {name: environment.resource_hints for name, environment in parts.environments.items()}
        return {
            step.unique_name: hints[step.environment_id].get("beam:resources:accelerator:v1", b"").decode()
            for step in parts.transforms.values()
            if step.environment_id
        }

    return accelerators


@pytest.fixture(params=["gs", "s3"], scope="session")
def bucket(request):
    return request.getfixturevalue(request.param)
