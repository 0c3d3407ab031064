"""A cluster on this machine: Prism, Beam's portable runner, and a pool of workers that run in another folder."""

import dataclasses
import lzma
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import forks
import fsspec
import grpc
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc
from apache_beam.runners.portability.prism_runner import PrismJobServer
from stores import gs, s3  # noqa: F401 - fixtures

REPOSITORY = Path(__file__).parents[2]
PRISM = "PRISM"
"""The variable that names Prism: the program, perhaps packed as .xz, or a folder with one for each machine."""

MOTO = (sys.executable, "-c", "from moto.server import main; main()")
COMMAND = """
from fsspec.config import conf, set_conf_env
from pipelines.cli import main

set_conf_env(conf)
main()
"""


@dataclass(frozen=True)
class Cluster:
    """A job server and a pool of workers.

    Attributes:
        folder: where both write their logs.
        endpoint: the address of the job server.
        pool: the address of the pool.
        pool_process: the id of the pool's process.
        environment: further variables for commands.
    """

    folder: Path
    endpoint: str
    pool: str
    pool_process: int
    environment: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def flags(self):
        """The flags of a job that runs there."""
        workers = ("--environment_type=EXTERNAL", f"--environment_config={self.pool}")
        return ("--runner=PortableRunner", f"--job_endpoint={self.endpoint}", *workers)

    def workers(self):
        """Returns the ids of the worker processes, which the pool has another process fork."""
        return [worker for process in children(self.pool_process) for worker in children(process)]

    def infinitygan(self, *words):
        """Runs a command on the cluster; returns its exit code and what it wrote to stderr."""
        return self.start(*words).end()

    def states(self):
        """Returns the states of the jobs, by their ids; the last one first."""
        with grpc.insecure_channel(self.endpoint) as channel:
            server = beam_job_api_pb2_grpc.JobServiceStub(channel)
            jobs = server.GetJobs(beam_job_api_pb2.GetJobsRequest()).job_info
            return [beam_job_api_pb2.JobState.Enum.Name(job.state) for job in sorted(jobs, key=lambda job: job.job_id)][
                ::-1
            ]

    def start(self, *words):
        """Starts a command on the cluster."""
        return forks.Fork(COMMAND, *words, *self.flags, **self.environment)


def children(process):
    """Returns the ids of a process's children."""
    lists = Path(f"/proc/{process}/task").glob("*/children")
    return [int(number) for numbers in lists for number in numbers.read_text().split()]


def prism_program(folder):
    """Returns the path of Prism, unpacked into a folder if necessary; skips the test if Prism is not available."""
    named = os.environ.get(PRISM)
    if not named:
        try:
            return PrismJobServer(PipelineOptions())._get_executable_path()
        except (RuntimeError, ValueError, OSError) as error:
            pytest.skip(f"Prism is not here, and Beam cannot fetch it ({error}); name it by {PRISM}")
    path = Path(named)
    if path.is_dir():
        (path,) = path.glob(f"prism-*-linux-{platform.machine()}*")
    if path.suffix != ".xz":
        return str(path)
    program = folder / "prism"
    with lzma.open(path) as packed, program.open("wb") as unpacked:
        shutil.copyfileobj(packed, unpacked)
    program.chmod(0o755)
    return str(program)


def free_port():
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def wait_for(port, process):
    late = time.monotonic() + 120
    while time.monotonic() < late:
        assert process.poll() is None, "it has ended"
        with closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(port)


@pytest.fixture(scope="session")
def prism(tmp_path_factory):
    """Returns the path of Prism."""
    return prism_program(tmp_path_factory.mktemp("prism"))


@contextmanager
def running(prism, folder, *before, **variables):
    """Runs a job server, and a pool of workers that runs in a folder of its own.

    Args:
        prism: the job server's program.
        folder: where the pool runs, and where both write their logs.
        before: a command that starts the pool, if it is not started directly.
        variables: further variables of the pool's environment.
    """
    job, pool = free_port(), free_port()
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **variables}
    program = [*before, sys.executable, "-m", "pipelines.worker_pool", f"--port={pool}"]
    with (folder / "prism.log").open("w") as prism_log, (folder / "pool.log").open("w") as pool_log:
        server = subprocess.Popen([prism, f"-job_port={job}", "-serve_http=false"], stdout=prism_log, stderr=prism_log)
        workers = subprocess.Popen(program, cwd=folder, env=environment, stdout=pool_log, stderr=pool_log)
    try:
        wait_for(job, server)
        wait_for(pool, workers)
        yield Cluster(folder, f"localhost:{job}", f"localhost:{pool}", workers.pid)
    finally:
        for process in (workers, server):
            process.terminate()
            process.wait(30)


@pytest.fixture(scope="module")
def cluster(prism, tmp_path_factory):
    """Yields a running cluster."""
    with running(prism, tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@contextmanager
def running_with_store(prism, folder, store, settings):
    """Runs a cluster whose workers, and commands, know the settings of a store, as fsspec reads them."""
    variables = {f"FSSPEC_{store.upper()}_{name.upper()}": value for name, value in settings.items()}
    variables["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"
    with running(prism, folder, **variables) as cluster:
        yield dataclasses.replace(cluster, environment=variables)


@pytest.fixture(scope="module", params=["gs", "s3"])
def cluster_and_bucket(request, prism, tmp_path_factory):
    """Yields a running cluster and a bucket that its workers find."""
    bucket = request.getfixturevalue(request.param)
    settings = fsspec.config.conf[request.param]
    with running_with_store(prism, tmp_path_factory.mktemp("cluster"), request.param, settings) as cluster:
        yield cluster, bucket


@dataclass
class Store:
    """A store on this machine, in a process that tests may kill.

    Attributes:
        port: its port.
        process: its process.
    """

    port: int
    process: subprocess.Popen | None = None

    @property
    def settings(self):
        """The settings that fsspec needs to find it."""
        return {"key": "none", "secret": "none", "endpoint_url": f"http://127.0.0.1:{self.port}"}

    def start(self):
        """Starts it, empty but for a bucket."""
        self.process = subprocess.Popen([*MOTO, f"-p{self.port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(self.port, self.process)
        fsspec.filesystem("s3", skip_instance_cache=True, **self.settings).mkdir("bucket")

    def kill(self):
        """Kills it, with all that it holds."""
        self.process.kill()
        self.process.wait()


@pytest.fixture
def cluster_and_mortal_store(prism, tmp_path_factory):
    """Yields a running cluster and a store that its workers find."""
    store = Store(free_port())
    store.start()
    with running_with_store(prism, tmp_path_factory.mktemp("cluster"), "s3", store.settings) as cluster:
        yield cluster, store
    store.kill()


@pytest.fixture(scope="module")
def hidden(tmp_path_factory):
    """Returns a folder that the workers of `blind_cluster` do not see."""
    return tmp_path_factory.mktemp("hidden")


@pytest.fixture(scope="module")
def blind_cluster(prism, hidden, tmp_path_factory):
    """Yields a running cluster whose workers see an empty folder in place of `hidden`."""
    hide = f'mount -t tmpfs none {hidden} && exec "$@"'
    before = ("unshare", "--mount", "sh", "-c", hide, "sh")
    if subprocess.run([*before, "true"], capture_output=True).returncode:
        pytest.skip("this user may not hide a folder from a process")
    with running(prism, tmp_path_factory.mktemp("cluster"), *before) as cluster:
        yield cluster
