"""The contents of a web page: its pictures, each in its largest rendition, and its links."""

import codecs
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urldefrag, urljoin, urlsplit

from transforms.sources.lists import LONGEST_TEXT, PICTURE_SUFFIXES, UNREAD_SUFFIXES
from transforms.sources.markup import Tag, read_tags

PAGE_CAP_BYTES: Final = 10_000_000
PAGE_LIMIT_S: Final = 10.0
MOST_REFERENCES: Final = 20_000
"""The most pictures, and the most links, taken from a page."""

LONGEST_URL: Final = 16_000
LONGEST_BASE: Final = 2_000
"""The most characters of a base URL, which becomes part of every relative URL of a page."""

_DECODABLE: Final = {
    *("image/jpeg", "image/jpg", "image/pjpeg", "image/png", "image/apng", "image/webp", "image/gif", "image/avif"),
    *("image/tiff", "image/bmp", "image/x-ms-bmp", "image/jp2", "image/jpx"),
}
_NOW: Final = (("src",), ("srcset",))
_LATER: Final = (("data-src", "data-lazy-src", "data-original"), ("data-srcset", "data-lazy-srcset"))
"""Attributes with the URL of a picture, and those with the URLs of its renditions, which a script puts in place when
the picture comes into view; until then the usual attributes hold a placeholder."""

_CANDIDATE = re.compile(r"[\s,]*(\S+)", re.ASCII)
_DESCRIPTORS = re.compile(r"(?:[^,(]+|\([^)]*\)?)*")
_LONGEST_SRCSET: Final = 100_000
_META_CHARSET = re.compile(rb"<meta\b[^>]*?charset\s*=\s*[\"']?\s*([\w.:-]+)", re.IGNORECASE)
_META_WITHIN_BYTES: Final = 4096
_MARKS: Final = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
_ENCODINGS: Final = re.compile(
    r"utf-8|utf-16(-le|-be)?|iso8859-\d+|cp125\d|cp866|cp874|cp932|cp949|koi8-[ru]|mac-(roman|cyrillic)|gb18030"
    r"|big5(hkscs)?|euc_jp|iso2022_jp"
)
_WIDER: Final = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
}
"""The encodings that browsers read in place of those that a page names."""


@dataclass
class Page:
    """The contents of a page.

    Attributes:
        pictures: the URLs of its pictures, with their alternative texts.
        links: the URLs that are not pictures by their names.
        robots: the contents of the meta tags for robots.
        left_out: the number of pictures and links beyond those that are taken.
    """

    pictures: dict[str, str | None] = field(default_factory=dict)
    links: list[str] = field(default_factory=list)
    robots: list[str] = field(default_factory=list)
    left_out: int = 0


def read_page(url: str, content: bytes, encoding: str | None) -> Page:
    """Reads a page; broken markup is read as far as browsers read it.

    Args:
        url: the URL that relative links refer to.
        content: the HTML.
        encoding: the encoding that the server states; a byte order mark overrides it, and without one the page's own
            statement is used.

    Raises:
        SlowPageError: reading took more than 10 s.
    """
    reader = _PageReader(url)
    for tag in read_tags(decode_page(content, encoding), PAGE_LIMIT_S):
        reader.read(tag)
    return reader.page


def decode_page(content: bytes, encoding: str | None) -> str:
    """Decodes the text of a page."""
    for mark, name in _MARKS.items():
        if content.startswith(mark):
            return content[len(mark) :].decode(name, "replace")
    named = _META_CHARSET.search(content[:_META_WITHIN_BYTES])
    said = _codec(encoding)
    if said is None and named:
        said = _codec(named[1].decode("ascii", "replace"))
        said = "utf-8" if said and said.startswith("utf-16") else said  # UTF-16 tags could not have been read
    return content.decode(said or "utf-8", "replace")


def _codec(encoding: str | None) -> str | None:
    """Returns Python's name of an encoding used for pages; None for others, some of which are not even text."""
    try:
        name = codecs.lookup((encoding or "").strip().lower().removeprefix("x-")).name
    except (LookupError, ValueError):
        return None
    name = _WIDER.get(name, name)
    return name if _ENCODINGS.fullmatch(name) else None


def is_picture_url(url: str) -> bool:
    """Returns whether a URL's path ends like a picture's name."""
    return _path(url).endswith(PICTURE_SUFFIXES)


def _path(url: str) -> str:
    try:
        return urlsplit(url).path.lower()
    except ValueError:  # brackets that do not hold an address
        return ""


class _PageReader:
    """Collects tags as they are read. A link around an image to a picture is taken as its larger rendition."""

    def __init__(self, url: str) -> None:
        self.page = Page()
        self._base = url
        self._has_base = False
        self._link: str | None = None
        self._sources: list[Mapping[str, str]] | None = None

    def read(self, tag: Tag) -> None:
        """Reads a tag."""
        if tag.closing:
            self._close(tag.name)
            return
        values = tag.attributes
        if tag.name == "base" and values.get("href"):
            self._set_base(values["href"])
        elif tag.name == "meta" and values.get("name", "").lower() in ("robots", "infinitygan"):
            self.page.robots.append(values.get("content", ""))
        elif tag.name == "a" and values.get("href"):
            self._add_link(values["href"])
        elif tag.name == "picture":
            self._sources = []
        elif tag.name == "source" and self._sources is not None:
            self._sources.append(values)
        elif tag.name == "img":
            self._add_image([*(self._sources or []), values], values.get("alt", "")[:LONGEST_TEXT] or None)

    def _close(self, name: str) -> None:
        if name == "a":
            self._link = None
        elif name == "picture":
            self._sources = None

    def _set_base(self, reference: str) -> None:
        """Sets the base of a page's URLs; only the first one counts."""
        base = self._absolute(reference)
        if not self._has_base and base is not None and len(base) <= LONGEST_BASE:
            self._base, self._has_base = base, True

    def _add_link(self, href: str) -> None:
        url = self._absolute(href)
        if url is None:
            return
        self._link = url if is_picture_url(url) else None
        if self._link:
            self._add_picture(url, None)
        elif len(self.page.links) < MOST_REFERENCES:
            self.page.links.append(url)
        else:
            self.page.left_out += 1

    def _add_image(self, elements: list[Mapping[str, str]], text: str | None) -> None:
        if self._link is not None:
            if self._link in self.page.pictures:
                self.page.pictures[self._link] = text
            return
        for reference in _renditions(elements):
            url = self._absolute(reference)
            if url is not None:
                self._add_picture(url, text)
                return

    def _add_picture(self, url: str, text: str | None) -> None:
        if len(self.page.pictures) < MOST_REFERENCES or url in self.page.pictures:
            self.page.pictures.setdefault(url, text)
        else:
            self.page.left_out += 1

    def _absolute(self, reference: str) -> str | None:
        if len(reference) > LONGEST_URL:
            return None
        try:
            url = urldefrag(urljoin(self._base, reference.strip())).url
            return url if urlsplit(url).scheme in ("http", "https") and urlsplit(url).netloc else None
        except ValueError:  # brackets that do not hold an address
            return None


def _renditions(elements: list[Mapping[str, str]]) -> list[str]:
    """Returns the URLs of an image and of its other sources, best first: decodable ones, later and larger ones."""
    found: list[tuple[bool, bool, float, str]] = []
    for values in elements:
        kind = values.get("type", "").partition(";")[0].strip().lower()
        if kind and kind not in _DECODABLE:
            continue
        for later, (single, several) in ((False, _NOW), (True, _LATER)):
            sized = [(1.0, values[name]) for name in single if values.get(name)]
            sized += [candidate for name in several for candidate in _candidates(values.get(name, ""))]
            found += [(not _path(url).endswith(UNREAD_SUFFIXES), later, size, url) for size, url in sized]
    return [url for *_, url in sorted(found, key=lambda rendition: rendition[:3], reverse=True)]


def _candidates(srcset: str) -> list[tuple[float, str]]:
    """Returns the URLs of a srcset and their sizes, by width or else by density.

    A URL may contain commas. One at its end, or at the end of its descriptors, separates it from the next.
    """
    found = []
    srcset, position = srcset[:_LONGEST_SRCSET], 0
    while match := _CANDIDATE.match(srcset, position):
        url, position = match[1], match.end()
        size = 1.0
        if url.endswith(","):
            url = url.rstrip(",")
        else:
            descriptors = _DESCRIPTORS.match(srcset, position)
            words = descriptors[0].split() if descriptors else []
            position = descriptors.end() if descriptors else position
            size = _size(words)
        if url:
            found.append((size, url))
    return found


def _size(descriptors: list[str]) -> float:
    for descriptor in descriptors:
        try:
            if descriptor[-1:] in "wx":
                return float(descriptor[:-1])
        except ValueError:
            continue
    return 1.0
