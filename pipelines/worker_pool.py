"""A pool of workers on this machine, for jobs with ``--environment_type=EXTERNAL --environment_config=HOST:PORT``.

python -m pipelines.worker_pool --port=PORT

Beam's own pool starts each worker as a new Python program, which takes seconds of a core to load torch and Beam. This
one forks its workers from a process that has loaded them.
"""

import sys
import threading
from multiprocessing.process import BaseProcess
from typing import Annotated, Any

import typer
from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.worker.worker_pool_main import BeamFnExternalWorkerPoolServicer

from pipelines.terminal.forked_workers import begin_to_load, fork

END_S = 10.0
"""How many seconds a worker that is stopped has to end by itself."""


class ForkingPool(BeamFnExternalWorkerPoolServicer):
    """Forks workers when a runner asks for them."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.workers: dict[str, BaseProcess] = {}

    def StartWorker(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Starts a worker, which connects to the runner."""
        self.workers[request.worker_id] = fork(work, request.control_endpoint.url, request.worker_id)
        return beam_fn_api_pb2.StartWorkerResponse()

    def StopWorker(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Ends a worker."""
        worker = self.workers.pop(request.worker_id, None)
        if worker:
            worker.terminate()
            worker.join(END_S)
            worker.kill()
        return beam_fn_api_pb2.StopWorkerResponse()


def work(control: str, worker_id: str) -> None:
    """Works for the runner at an address, with the settings of Beam's own pool."""
    from apache_beam.runners.worker.sdk_worker import SdkHarness

    SdkHarness(control, worker_id=worker_id, state_cache_size=0, data_buffer_time_limit_ms=-1).run()


def main(port: Annotated[int, typer.Option(help="The port at which runners ask for workers.")]) -> None:
    """Serves until it is interrupted."""
    begin_to_load("pipelines.library")
    fork(int).join()  # this one waits until all is loaded, so that those of jobs need not
    address, _server = ForkingPool.start(port=port)
    print(f"workers for {address}", file=sys.stderr)
    threading.Event().wait()


if __name__ == "__main__":
    typer.run(main)
