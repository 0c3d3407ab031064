"""docs/robustness.md promises only what tests check."""

import ast
import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PAGE = REPOSITORY / "docs" / "robustness.md"


def named_tests():
    """Yields the file and function of each test that the page names; ``::test_x`` is in the file last named."""
    file = None
    for path, name in re.findall(r"`([\w/]*(?:\.py)?)::(test_\w+)`", PAGE.read_text()):
        file = path or file
        yield file, name


def test_every_test_that_the_page_names_exists():
    named = list(named_tests())
    assert len(named) > 50
    functions = {}
    for file, name in named:
        if file not in functions:
            tree = ast.parse((REPOSITORY / file).read_text())
            functions[file] = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert name in functions[file], f"{file} has no {name}"


def test_every_row_names_a_test():
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and not line.startswith("| kind")]
    assert rows
    assert not [row for row in rows if "::test_" not in row]
