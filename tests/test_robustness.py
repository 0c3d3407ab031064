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


def test_every_promise_names_a_test():
    tables = [table for table in PAGE.read_text().split("\n\n") if table.startswith("| kind |")]
    rows = [row for table in tables for row in table.splitlines()[2:]]
    assert len(rows) > 50
    assert not [row for row in rows if "::test_" not in row]
