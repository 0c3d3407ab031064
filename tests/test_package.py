"""What pip installs, and Beam sends to its workers, is complete."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


def test_the_wheel_holds_the_packages_their_types_and_the_weights(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for name in ("model", "transforms", "pipelines"):
        shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", str(tmp_path), str(source)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("infinitygan-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"{package}/py.typed" for package in ("model", "transforms", "pipelines")} <= names
    assert {"model/weights/small.safetensors", "model/weights/small.training.safetensors"} <= names
    assert {"model/world.py", "transforms/plan.py", "pipelines/cli.py"} <= names
