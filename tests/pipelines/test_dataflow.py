"""Jobs staged for Dataflow with Beam's own client, to gs:// in gcp-storage-emulator, and read as the service would."""

import io
import json
import re
import socket
import tarfile
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.internal.gcp import auth
from apache_beam.portability.api import beam_runner_api_pb2
from gcp_storage_emulator.server import create_server
from google.cloud.storage import Client

import pipelines.ingest
import transforms.ingest.staging
from pipelines.cli import run
from pipelines.render_watch import build_stream
from pipelines.terminal.beam_flags import beam_options
from transforms.ingest.find_steps import FindPhotographs
from transforms.ingest.options import IngestOptions
from transforms.ingest.plan import Plan
from transforms.render.look import watched_at
from transforms.render.options import RenderOptions
from transforms.sources.manners import Manners

REPOSITORY = Path(__file__).parents[2]
ACCELERATOR = "type:nvidia-l4;count:1;machine_type:g2-standard-8;install-nvidia-driver"
IMAGE = "europe-docker.pkg.dev/my-project/images/infinitygan:gpu"
FLAGS = (
    "--runner=dataflow",
    "--project=my-project",
    "--region=us-central1",
    "--no_auth",
    "--temp_location=gs://staging/temporary",
    "--template_location=gs://staging/template.json",
    "--experiments=disable_logging_submission_environment",  # pip takes longer for it than all the rest
)
WORKERS = (
    "--machine_type=n2-standard-4",
    "--max_num_workers=50",
    "--disk_size_gb=50",
    f"--sdk_container_image={IMAGE}",
)
MOST_BYTES = 10_000_000
"""The largest graph that Dataflow takes."""

STEPS = json.loads(Path(__file__).with_name("steps.json").read_text())
"""The names of each job's steps and of their parts: Dataflow updates a job that runs only if all are still there."""


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
    bucket = Client.create_anonymous_client().bucket("staging")
    yield lambda: {blob.name.split("/")[-1]: blob.download_as_bytes() for blob in bucket.list_blobs()}
    server.stop()


@pytest.fixture
def stage(staging):
    """Stages a pipeline, to which a function adds its steps; returns Dataflow's job and the graph."""

    def stage(add, *flags):
        with beam.Pipeline(options=beam_options([*FLAGS, *flags])) as pipeline:
            add(pipeline)
        staged = staging()
        return json.loads(staged["template.json"]), beam_runner_api_pb2.Pipeline.FromString(staged["pipeline.pb"])

    return stage


@pytest.fixture
def render_words(tiny_checkpoint, tmp_path):
    return ["render", "--width=512", "--height=256", f"--out={tmp_path / 'out'}", f"--checkpoint={tiny_checkpoint}"]


@pytest.fixture
def stage_render(staging, render_words):
    """Stages a render; returns Dataflow's job and the graph."""

    def stage_render(*flags):
        assert run([*render_words, *FLAGS, *flags]) == 1, "nothing has run, so the panorama does not exist"
        staged = staging()
        return json.loads(staged["template.json"]), beam_runner_api_pb2.Pipeline.FromString(staged["pipeline.pb"])

    return stage_render


@pytest.fixture
def steps_of(tmp_path):
    """Returns the function that adds the steps of ingest's first or second job, for some number of photographs."""
    options = IngestOptions(("gs://photographs",), str(tmp_path / "set"))
    transforms.ingest.staging.begin(options.out, options.configuration())

    def steps_of(name, photographs=100_000):
        if name == "find":
            return lambda pipeline: pipeline | FindPhotographs(options.out, options.out, Manners(), 1, extends=False)
        plan = Plan(photographs, 0, 0, photographs // 4096 + 1, 0)
        return lambda pipeline: pipelines.ingest.build(pipeline, options, plan)

    return steps_of


def names(graph):
    """Returns the names of the steps, each with those of its parts, but without the parts of these."""
    everything = (step.unique_name.split("/")[:2] for step in graph.components.transforms.values())
    return sorted({"/".join(parts) for parts in everything if not parts[0].startswith("ref_AppliedPTransform")})


def test_a_job_is_staged_with_all_that_workers_need(staging, stage_render, monkeypatch):
    """Without an image, the package is sent, with its weights."""
    monkeypatch.chdir(REPOSITORY)
    stage_render("--setup_file=./setup.py")
    with tarfile.open(fileobj=io.BytesIO(staging()["workflow.tar.gz"])) as package:
        names = {name.split("/", 1)[-1] for name in package.getnames()}
    assert {
        "model/weights/small.safetensors",
        "transforms/storage/templates/viewer.html",
        "pipelines/render.py",
    } <= names


def test_workers_are_as_the_flags_say(staging, stage_render):
    job, _ = stage_render(*WORKERS)
    (pool,) = job["environment"]["workerPools"]
    assert pool["machineType"] == "n2-standard-4"
    assert pool["diskSizeGb"] == 50
    assert pool["autoscalingSettings"]["maxNumWorkers"] == 50
    assert {each["containerImage"] for each in pool["sdkHarnessContainerImages"]} == {IMAGE}
    assert "workflow.tar.gz" not in staging(), "the image holds the package"


def test_only_the_steps_that_compute_ask_for_the_accelerator(stage_render, accelerators):
    """One step after another, so that no pixels cross from one kind of worker to the other."""
    job, graph = stage_render(*WORKERS, f"--accelerator={ACCELERATOR}")
    wanting = {step for step, wanted in accelerators(graph).items() if wanted == ACCELERATOR}
    assert {step.split("/")[0] for step in wanting} == {"SkipStored", "SynthesizePatches", "PublishShards"}
    (pool,) = job["environment"]["workerPools"]
    assert {each["containerImage"] for each in pool["sdkHarnessContainerImages"]} == {IMAGE}
    assert len(pool["sdkHarnessContainerImages"]) == 2, "workers with the accelerator, and workers without"


@pytest.mark.parametrize("flag", ["", "no_"])
def test_a_gpu_is_shared_by_a_process_for_each_core_or_used_by_one(flag, stage_render):
    flags = [f"--experiments={flag}use_multiple_sdk_containers"] if flag else []
    job, _ = stage_render(*WORKERS, *flags, f"--accelerator={ACCELERATOR}")
    experiments = [each for each in job["environment"]["experiments"] if "multiple_sdk_containers" in each]
    assert experiments == [f"{flag}use_multiple_sdk_containers"]


@pytest.mark.parametrize("name", ["find", "ingest"])
def test_the_steps_of_ingest_keep_their_names(name, stage, steps_of):
    _, graph = stage(steps_of(name), *WORKERS)
    assert names(graph) == STEPS[name]


def test_the_steps_of_render_keep_their_names(stage_render):
    _, graph = stage_render(*WORKERS)
    assert names(graph) == STEPS["render"]


def test_ingests_graphs_have_the_same_size_for_any_number_of_photographs(stage, steps_of):
    sizes = [stage(steps_of("ingest", count), *WORKERS)[1].ByteSize() for count in (10, 100_000)]
    assert max(sizes) < MOST_BYTES
    assert max(sizes) - min(sizes) < 1000
    assert stage(steps_of("find"), *WORKERS)[1].ByteSize() < MOST_BYTES


def test_the_steps_of_a_watch_keep_their_names(stage):
    """Also those of an endless job, which is the one that is updated, and that receives messages of Pub/Sub."""
    out = "gs://bucket/out"
    watched = watched_at("pubsub://my-project/requests", out, {}, "")

    def add(pipeline):
        build_stream(pipeline, RenderOptions((), out), watched, None)

    job, graph = stage(add, *WORKERS, "--streaming")
    assert job["type"] == "JOB_TYPE_STREAMING"
    assert names(graph) == STEPS["watch"]
    (read,) = [
        each for each in graph.components.transforms.values() if each.spec.urn == "beam:transform:pubsub_read:v1"
    ]
    assert b"projects/my-project/subscriptions/requests" in read.spec.payload
    assert graph.ByteSize() < MOST_BYTES


def test_renders_graph_has_the_same_size_for_any_number_of_requests(stage_render, tmp_path):
    sizes = []
    for count in (3, 100):
        requests = tmp_path / f"{count}.csv"
        rows = [f"{count}-{number},{number},64,64" for number in range(count)]
        requests.write_text("\n".join(["id,seed,width_px,height_px", *rows]))
        sizes.append(stage_render(*WORKERS, f"--requests={requests}")[1].ByteSize())
    assert max(sizes) < MOST_BYTES
    assert max(sizes) - min(sizes) < 1000


@pytest.mark.parametrize("name", sorted(STEPS))
def test_no_name_depends_on_a_place_in_the_code(name):
    """Beam names a step without a name after its function, or after the line of a lambda."""
    assert [step for step in STEPS[name] if re.search(r"lambda|\.py", step.split("/")[0])] == []
