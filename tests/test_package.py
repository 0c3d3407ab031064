"""The package that pip installs, and that Beam sends to its workers, is complete."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


def test_the_wheel_holds_every_file_of_the_packages(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for name in ("model", "transforms", "pipelines"):
        shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    files = {str(file.relative_to(source)) for file in source.rglob("*") if file.is_file()}
    assert {
        "model/weights/small.safetensors",
        "transforms/storage/templates/viewer.html",
        "pipelines/py.typed",
    } <= files
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", str(tmp_path), str(source)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("infinitygan-*.whl")
    assert files <= set(zipfile.ZipFile(wheel).namelist())
