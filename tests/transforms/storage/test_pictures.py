"""Pictures are opened in one place, and only in the accepted formats."""

import ast
from pathlib import Path

import pytest
from PIL import UnidentifiedImageError

from transforms.storage.pictures import FORMATS, STORED_FORMATS, open_picture

REPOSITORY = Path(__file__).parents[3]


def opens_by_itself(file: Path) -> bool:
    """Returns whether a module calls Pillow's ``open``, under whatever name it imports it."""
    tree = ast.parse(file.read_text())
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in ("PIL", "PIL.Image"):
            if any(name.name == "open" for name in node.names):
                return True
            modules |= {name.asname or name.name for name in node.names if name.name == "Image"}
        if isinstance(node, ast.Import):
            modules |= {name.asname or name.name for name in node.names if name.name == "PIL.Image"}
    used = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == "open")
    return any(ast.unparse(node.value) in modules for node in used)


def test_pictures_are_opened_in_one_place_which_names_the_formats():
    files = [
        file
        for house in ("model", "transforms", "pipelines", "benchmarks")
        for file in REPOSITORY.glob(f"{house}/**/*.py")
    ]
    assert [file.name for file in files if opens_by_itself(file)] == ["pictures.py"]


@pytest.mark.parametrize("content", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n"])
@pytest.mark.parametrize("formats", [FORMATS, STORED_FORMATS])
def test_no_other_format_is_tried(content, formats):
    assert not {"EPS", "WMF", "FPX", "MIC"} & set(formats)
    with pytest.raises(UnidentifiedImageError):
        open_picture(content, formats)
