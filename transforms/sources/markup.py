"""The tags of an HTML text, found by the rules of browsers, in time linear in its length.

Python's own parser scans the whole rest of the text again for each unclosed tag, and its regular expressions
backtrack over attributes: a page of 175 kB can keep it busy for a minute.
"""

import re
import time
from collections.abc import Iterator
from html import unescape
from html.entities import html5
from typing import Final, NamedTuple

_TAG_NAME = re.compile(r"[a-zA-Z][^\s/>]*", re.ASCII)
_BEFORE_ATTRIBUTE = re.compile(r"[\s/]*", re.ASCII)
_ATTRIBUTE_NAME = re.compile(r"=?[^\s/>=]*", re.ASCII)
_EQUALS = re.compile(r"\s*=\s*", re.ASCII)
_BARE_VALUE = re.compile(r"[^\s>]*", re.ASCII)
_REFERENCE = re.compile(r"&(#[0-9]+;?|#[xX][0-9a-fA-F]+;?|[a-zA-Z][a-zA-Z0-9]*;?)(?=(=?))")
_TEXT_ONLY: Final = ("script", "style", "textarea", "title", "xmp", "iframe", "noembed", "noframes")
_CLOSINGS: Final = {name: re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE | re.ASCII) for name in _TEXT_ONLY}
_LOOK_AT_CLOCK_EVERY: Final = 256
_MOST_ATTRIBUTES: Final = 1000
"""The most attributes read of one tag; further ones are ignored."""


class SlowPageError(ValueError):
    """Raised for a text that could not be read within the time limit."""


class Tag(NamedTuple):
    """An HTML tag.

    Attributes:
        name: its name in lower case.
        closing: whether it closes an element.
        attributes: its attributes; the first of several with the same name.
    """

    name: str
    closing: bool
    attributes: dict[str, str]


def read_tags(text: str, limit_s: float) -> Iterator[Tag]:
    """Yields the tags of a text, in order. The contents of comments, scripts and titles are skipped.

    Raises:
        SlowPageError: reading took longer than the limit.
    """
    deadline = time.monotonic() + limit_s
    position = count = 0
    while (position := text.find("<", position)) >= 0:
        count += 1
        if count % _LOOK_AT_CLOCK_EVERY == 0 and time.monotonic() > deadline:
            raise SlowPageError(f"the page was not read within {limit_s:g} s")
        closing = text.startswith("/", position + 1)
        name = _TAG_NAME.match(text, position + 1 + closing)
        if name is None:
            position = _after_other(text, position)
            if position < 0:
                return
            continue
        attributes, position = _read_attributes(text, name.end())
        if position < 0:  # the text ends within the tag, which then does not count
            return
        tag = Tag(name[0].lower(), closing, attributes)
        yield tag
        if not closing and tag.name in _CLOSINGS:
            end = _CLOSINGS[tag.name].search(text, position)
            if end is None:
                return
            position = end.start()


def _after_other(text: str, position: int) -> int:
    """Returns the end of a comment or declaration, or of what only looks like the start of one; -1 if it never ends."""
    if text.startswith("<!--", position):
        if text.startswith(("<!-->", "<!--->"), position):
            return text.find(">", position) + 1
        end = text.find("-->", position + 4)
        return end + 3 if end >= 0 else -1
    if text[position + 1 : position + 2] in ("!", "?", "/"):
        end = text.find(">", position + 2)
        return end + 1 if end >= 0 else -1
    return position + 1


def _read_attributes(text: str, position: int) -> tuple[dict[str, str], int]:
    """Returns the attributes of the tag whose name ends at a position, and the tag's end; -1 if the text ends first."""
    attributes: dict[str, str] = {}
    for _ in range(_MOST_ATTRIBUTES):
        position = _end(_BEFORE_ATTRIBUTE, text, position)
        if position >= len(text):
            return attributes, -1
        if text[position] == ">":
            return attributes, position + 1
        begin, position = position, _end(_ATTRIBUTE_NAME, text, position)
        name, value = text[begin:position].lower(), ""
        equals = _EQUALS.match(text, position)
        if equals:
            value, position = _read_value(text, equals.end())
            if position < 0:
                return attributes, -1
        attributes.setdefault(name, value)
    return attributes, text.find(">", position) + 1 or -1


def _read_value(text: str, position: int) -> tuple[str, int]:
    """Returns the attribute's value that begins at a position, and its end; -1 if the text ends first."""
    quote = text[position : position + 1]
    if quote and quote in "\"'":
        end = text.find(quote, position + 1)
        return (unescape_attribute(text[position + 1 : end]), end + 1) if end >= 0 else ("", -1)
    end = _end(_BARE_VALUE, text, position)
    return unescape_attribute(text[position:end]), end


def unescape_attribute(value: str) -> str:
    """Replaces the character references in an attribute's value.

    Without a semicolon, a name before ``=``, a letter or a digit is not a reference: ``?a=1&timestamp=2`` is unchanged.
    """
    return _REFERENCE.sub(_character, value) if "&" in value else value


def _character(match: re.Match[str]) -> str:
    name = match[1]
    if name.startswith("#"):
        return unescape("&" + name[:12].rstrip(";") + ";")
    if name in html5 and (name.endswith(";") or not match[2]):
        return html5[name]
    return match[0]


def _end(pattern: re.Pattern[str], text: str, position: int) -> int:
    """Returns the end of a pattern's match at a position; the patterns match the empty text rather than fail."""
    match = pattern.match(text, position)
    return match.end() if match else position
