"""Several worker processes on this machine are forked from one that has loaded their code."""

import os
import re
import subprocess
import sys

import pytest

from pipelines.cli import run

WORKERS = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")


@pytest.mark.parametrize("name", ["render", "ingest"])
def test_what_workers_need_is_loaded_once_for_all_and_the_bytes_are_the_same(name, tiny_checkpoint, contents, tmp_path):
    package, *words = {
        "render": ("torch", "render", "--width=200", "--height=64", "--tile=64", f"--checkpoint={tiny_checkpoint}"),
        "ingest": ("apache_beam", "ingest", "samples"),
    }[name]
    assert run([*words, f"--out={tmp_path / 'one'}", "--quiet"]) == 0
    command = (sys.executable, "-c", "from pipelines.cli import main; main()")
    environment = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}
    whole = [*command, *words, f"--out={tmp_path / 'two'}", "--quiet", *WORKERS]
    said = subprocess.run(whole, env=environment, capture_output=True, text=True, timeout=120)
    assert said.returncode == 0, said.stderr[-2000:]
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    assert len(re.findall(rf"\| +{package}$", said.stderr, re.MULTILINE)) == 2, "in the command, and for the workers"
