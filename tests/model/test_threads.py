"""OpenMP's threads spin only briefly while they wait, in every process that imports the project, unless configured."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from model.threads import SPINS, WORKER, threads_of_a_worker, worker_commands

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("module", ["model", "transforms", "pipelines"])
@pytest.mark.parametrize(
    ("users", "spins"),
    [({}, SPINS), ({"GOMP_SPINCOUNT": "5"}, "5"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")],
)
def test_it_is_set_before_torch_is_loaded(module, users, spins):
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    environment = {name: value for name, value in os.environ.items() if name not in names} | users
    program = f"import os, sys, {module}; print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"
    command = [sys.executable, "-c", program]
    process = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True)
    assert process.stdout.split() == [spins, "False"]


def worker(number, module="apache_beam.runners.worker.sdk_worker_main"):
    """Starts a process whose command line is that of a Beam worker."""
    program = f"import time; print({number}, flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", program, module], stdout=subprocess.PIPE)
    process.stdout.readline()
    return process


def test_the_process_that_workers_are_forked_from_is_no_worker():
    program = (
        "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)', sys.argv[1]])"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, WORKER])
    try:
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
        late = time.monotonic() + 30
        while not (child := children.read_text().strip()) or child not in worker_commands():
            assert time.monotonic() < late
            time.sleep(0.05)
        assert str(parent.pid) not in worker_commands()
    finally:
        os.kill(int(child), signal.SIGKILL)
        parent.wait()


def test_worker_processes_share_the_cores(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    assert threads_of_a_worker() is None, "this process is not a worker"
    others = len(worker_commands())
    processes = [worker(number) for number in range(2)] + [worker(2, "apache_beam.runners.worker.worker_pool_main")]
    try:
        monkeypatch.setattr(os, "getpid", lambda: processes[0].pid)
        assert threads_of_a_worker() == max(1, 8 // (others + 2))
        monkeypatch.setenv("OMP_NUM_THREADS", "5")
        assert threads_of_a_worker() is None, "the user has set a number"
    finally:
        for process in processes:
            process.kill()
            process.wait()
