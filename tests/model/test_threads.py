"""OpenMP's threads spin only briefly while they wait, in every process that imports the project, unless configured."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from model.threads import SPINS

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
