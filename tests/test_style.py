"""The project's own rules of style and types hold."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


@pytest.mark.parametrize("command", ["ruff check", "ruff format --check", "mypy"])
def test_the_code_keeps_the_rules(command):
    process = subprocess.run(
        [sys.executable, "-m", *command.split()], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stdout + process.stderr


@pytest.mark.parametrize("house", ["model", "transforms", "pipelines"])
def test_imports_go_down_only(house):
    above = {"model": ("transforms", "pipelines", "apache_beam"), "transforms": ("pipelines",), "pipelines": ()}[house]
    for file in (REPOSITORY / house).glob("*.py"):
        imported = [line.split()[1] for line in file.read_text().splitlines() if line.startswith(("import ", "from "))]
        assert not [name for name in imported if name.split(".")[0] in above], file
