"""Worker processes on this machine, forked from one that has loaded their code.

For `--direct_running_mode=multi_processing` Beam starts each worker as a new Python program, which takes seconds of a
core to load torch and Beam. A fork takes milliseconds, and shares the memory of what was loaded. The process that is
forked loads while the command itself does.
"""

import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess

from pipelines.terminal.runners import value_of

HARNESS = "apache_beam.runners.worker.sdk_worker_main"


def are_wanted(flags: Sequence[str]) -> bool:
    """Returns whether the flags ask for worker processes, on a platform whose libraries stand being forked."""
    return sys.platform == "linux" and value_of(flags, "--direct_running_mode") == "multi_processing"


def begin_to_load(module: str) -> None:
    """Starts the process that is forked. Call it before this process loads the same packages.

    Args:
        module: the module that imports all steps of the workers' jobs.
    """
    forkserver.set_forkserver_preload([HARNESS, module])
    forkserver.ensure_running()


def fork_workers() -> None:
    """From now on, Beam's in-process runner forks its worker processes."""
    from apache_beam.portability import python_urns
    from apache_beam.runners.portability.fn_api_runner.worker_handlers import SubprocessSdkWorkerHandler, WorkerHandler
    from google.protobuf import json_format, text_format

    @WorkerHandler.register_environment(python_urns.SUBPROCESS_SDK, bytes)
    class ForkedWorkerHandler(SubprocessSdkWorkerHandler):
        """Forks a worker, which gets the same settings as one that Beam starts."""

        def start_worker(self) -> None:
            options = self.provision_info.provision_info.pipeline_options
            settings = {
                "CONTROL_API_SERVICE_DESCRIPTOR": text_format.MessageToString(self.control_api_service_descriptor()),
                "LOGGING_API_SERVICE_DESCRIPTOR": text_format.MessageToString(self.logging_api_service_descriptor()),
                "PIPELINE_OPTIONS": json_format.MessageToJson(options),
                "WORKER_ID": self.worker_id,
            }
            self.process = fork(work, settings)

        def stop_worker(self) -> None:
            self.process.join()


def fork(target: Callable[..., object], *arguments: object) -> BaseProcess:
    """Starts a worker."""
    process = multiprocessing.get_context("forkserver").Process(target=target, args=arguments)
    process.start()
    return process


def work(settings: dict[str, str]) -> None:
    """Works for a runner until it needs no more workers."""
    from apache_beam.runners.worker import sdk_worker_main

    os.environ.update(settings)
    sdk_worker_main.main([])
