"""A render job staged for Dataflow with Beam's own client, to gs:// in gcp-storage-emulator."""

import io
import json
import socket
import tarfile
from pathlib import Path

import pytest
from apache_beam.internal.gcp import auth
from apache_beam.portability.api import beam_runner_api_pb2
from gcp_storage_emulator.server import create_server
from google.cloud import storage

from pipelines.cli import run

REPOSITORY = Path(__file__).parents[2]
ACCELERATOR = "type:nvidia-l4;count:1;install-nvidia-driver"


@pytest.fixture
def staging(monkeypatch):
    """Yields a bucket that Beam's own client finds, and its contents at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(auth._Credentials, "_credentials_init", True)  # otherwise it looks for credentials for 20 s
    server = create_server("127.0.0.1", port, in_memory=True, default_bucket="staging")
    server.start()
    bucket = storage.Client.create_anonymous_client().bucket("staging")
    yield lambda: {blob.name.split("/")[-1]: blob.download_as_bytes() for blob in bucket.list_blobs()}
    server.stop()


def test_a_job_is_staged_with_all_that_workers_need(staging, accelerators, tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    words = ["render", "--width=512", "--height=256", f"--out={tmp_path}", f"--checkpoint={tiny_checkpoint}"]
    dataflow = ["--runner=DataflowRunner", "--project=my-project", "--region=us-central1", "--no_auth"]
    bucket = ["--temp_location=gs://staging/temporary", "--template_location=gs://staging/template.json"]
    code = run([*words, *dataflow, *bucket, "--setup_file=./setup.py", f"--accelerator={ACCELERATOR}"])
    assert code == 1, "nothing has run, so the panorama does not exist"
    staged = staging()
    assert json.loads(staged["template.json"])["environment"]["version"]["job_type"]
    wanted = accelerators(beam_runner_api_pb2.Pipeline.FromString(staged["pipeline.pb"]))
    wanting = {step for step, accelerator in wanted.items() if accelerator == ACCELERATOR}
    assert {"SkipStored", "SynthesizePatches", "PublishShards"} == {step.split("/")[0] for step in wanting}
    with tarfile.open(fileobj=io.BytesIO(staged["workflow.tar.gz"])) as package:
        names = {name.split("/", 1)[-1] for name in package.getnames()}
    assert {
        "model/weights/small.safetensors",
        "transforms/storage/templates/viewer.html",
        "pipelines/render.py",
    } <= names
