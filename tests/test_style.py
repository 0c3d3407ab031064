"""The project's own rule of structure holds. `make lint` checks style and types."""

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


@pytest.mark.parametrize("house", ["model", "transforms", "pipelines"])
def test_imports_go_down_only(house):
    above = {"model": ("transforms", "pipelines", "apache_beam"), "transforms": ("pipelines",), "pipelines": ()}[house]
    for file in (REPOSITORY / house).glob("*.py"):
        imported = [line.split()[1] for line in file.read_text().splitlines() if line.startswith(("import ", "from "))]
        assert not [name for name in imported if name.split(".")[0] in above], file
