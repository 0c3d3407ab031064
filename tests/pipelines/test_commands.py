"""The commands in the documentation can be copied: each is one that the program accepts."""

import re
import shlex
from pathlib import Path

import pytest
from command_lines import parse

REPOSITORY = Path(__file__).parents[2]
PAGES = sorted([REPOSITORY / "README.md", *(REPOSITORY / "docs").rglob("*.md")])
SYNOPSIS = re.compile(r"[\[…]|\.\.\.| N( |$)")
"""What is only in a description of a command: parts that may be omitted, or repeated."""


def commands(page):
    """Returns the lines of a page's code that run the program, without continuations, redirections and comments."""
    code = re.findall(r"(?:^    .*\n)+", page.read_text(), re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", "".join(code)).splitlines()
    found = (re.search(r"^\s+(?:\w+=\S+ )*(infinitygan .*)", line) for line in lines)
    return [match[1].split(" 2>")[0].split(" #")[0] for match in found if match and not SYNOPSIS.search(match[1])]


EXAMPLES = [(page.relative_to(REPOSITORY), command) for page in PAGES for command in commands(page)]


def test_pages_with_commands_are_found():
    pages = {str(page) for page, _ in EXAMPLES}
    assert {"README.md", "docs/render.md", "docs/platforms/machine.md", "docs/platforms/flink.md"} <= pages


@pytest.mark.parametrize(("page", "command"), EXAMPLES, ids=str)
def test_a_command_of_the_documentation_is_accepted(page, command):
    parse(shlex.split(command))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_links_to_exist(page):
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []
