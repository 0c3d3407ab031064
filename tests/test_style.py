"""Code and documentation keep to plain English: some phrases that readers stumble over must not come back."""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

THIS = Path(__file__)
REPOSITORY = THIS.parents[1]
CODE = sorted(
    path
    for folder in ("model", "transforms", "pipelines", "benchmarks", "tests")
    for path in (REPOSITORY / folder).rglob("*.py")
)
PAGES = sorted(
    [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md"), *(REPOSITORY / "transforms").rglob("*.html")]
)

# "There is no X" is plain English, and so is a comparison ("is no longer than").
COMPARISONS = "longer|more|less|fewer|larger|smaller|lighter|darker|higher|lower|wider|farther|later|different|better"
PHRASES = {
    rf"(?<!there)\s(?:is|are) no (?!(?:{COMPARISONS})\b)[a-z]": "write 'is not a' or 'are not'",
    r"\bheld against\b": "write 'compared with'",
    r"\b(?:leave|leaves|leaving|left) (?:\w+ ){0,4}away\b": "write 'omit' or 'drop'",
    r"\bso[ -]man(?:y|iest)\b(?! that\b)": "name the number",
    r"(?<!`)\banew\b": "write 'again'",
    r"\b(?:can|cannot|could)(?: not)? be had\b": "write 'cannot be fetched' or 'is not available'",
}
FRAGMENTS = ("That ", "Of ")
STRINGS = {tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Yields the first line and the text of each piece of prose: of code, its strings and comments."""
    text = path.read_text()
    if path.suffix != ".py":
        yield 1, text
        return
    comment: list[str] = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            comment.append(token.string.lstrip("# "))
            first = token.start[0] - len(comment) + 1
        elif token.type != tokenize.NL:
            if comment:
                yield first, "\n".join(comment)
                comment = []
            if token.type in STRINGS:
                yield token.start[0], token.string


def banned(path: Path) -> list[str]:
    """Returns a line for each banned phrase of a file, with its place and what to write instead."""
    found = []
    for first, text in prose(path):
        for phrase, cure in PHRASES.items():
            for match in re.finditer(phrase.replace(" ", r"\s+"), text, re.IGNORECASE):
                line = first + text.count("\n", 0, match.start())
                found.append(f"{path.relative_to(REPOSITORY)}:{line}: {match[0]!r}: {cure}")
    return found


def fragments(path: Path) -> list[str]:
    """Returns a line for each docstring of a file that begins like a fragment, those of constants included."""
    texts = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Expr)]
    return [
        f"{path.relative_to(REPOSITORY)}:{text.lineno}: a docstring begins with {text.value.split()[0]!r}"
        for text in texts
        if isinstance(text, ast.Constant) and isinstance(text.value, str) and text.value.startswith(FRAGMENTS)
    ]


def test_prose_has_none_of_the_phrases():
    assert [line for path in CODE + PAGES if path != THIS for line in banned(path)] == []


def test_docstrings_are_not_fragments():
    assert [line for path in CODE for line in fragments(path)] == []


@pytest.mark.parametrize(
    "text",
    [
        "This is no list of photographs.",
        "These are no photographs.",
        "What is\nno list is refused.",
        "Worlds are held against photographs.",
        "Leave the flag away.",
        "Up to 7 px are left away.",
        "A host of so many files.",
        "Every so-maniest shard.",
        "It is rendered anew.",
        "It could not be had.",
        "It cannot be had.",
    ],
)
def test_each_phrase_is_found_where_it_stands(tmp_path, monkeypatch, text):
    monkeypatch.setattr(sys.modules[__name__], "REPOSITORY", tmp_path)
    code = f'"""A module."""\n\n\ndef f():\n    return f"""{text}"""  # {text.replace(chr(10), " ")}\n'
    for name, content, places in (("a.py", code, 2), ("a.md", f"# A page\n\n\n\n{text}\n", 1)):
        (tmp_path / name).write_text(content)
        found = banned(tmp_path / name)
        assert len(found) == places, found
        assert all(line.startswith((f"{name}:5: ", f"{name}:6: ")) for line in found)


@pytest.mark.parametrize(
    "text",
    ["There is no list.", "It is no longer than that.", "so many that it ends", "None is left.", "A way is left."],
)
def test_plain_english_passes(tmp_path, text):
    (tmp_path / "a.md").write_text(text)
    assert banned(tmp_path / "a.md") == []


def test_fragments_are_found_where_they_stand(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "REPOSITORY", tmp_path)
    (tmp_path / "a.py").write_text('LIMIT = 4\n"""Of a file."""\n\n\ndef f():\n    """That are read."""\n')
    assert fragments(tmp_path / "a.py") == [
        "a.py:2: a docstring begins with 'Of'",
        "a.py:6: a docstring begins with 'That'",
    ]
