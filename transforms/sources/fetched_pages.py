"""Fetched pages: which files are pages, whether they may be read, and which picture a page is about."""

import posixpath
import re
from typing import Final
from urllib.parse import unquote, urlsplit

from transforms.sources.fetch import Fetched
from transforms.sources.manners import may_follow, opt_out
from transforms.sources.markup import SlowPageError
from transforms.sources.pages import PAGE_CAP_BYTES, Page, read_page
from transforms.training_set.records import Rejection

PAGE_TYPES: Final = ("text/html", "application/xhtml+xml")
_BLANK: Final = b" \t\r\n\xef\xbb\xbf"


def is_page(file: Fetched) -> bool:
    """Returns whether a file is called a page and looks like one. Some servers call everything a page."""
    kind = file.headers.get("content-type", "").lower().partition(";")[0].strip()
    return kind in PAGE_TYPES and file.content.lstrip(_BLANK)[:1] == b"<"


def page_of(file: Fetched) -> Page:
    """Reads a file as a page, as far as its owner allows.

    Raises:
        Rejection: the file is not a page, or asks crawlers to keep out.
    """
    kind, _, parameters = file.headers.get("content-type", "").lower().partition(";")
    if kind.strip() not in PAGE_TYPES:
        kind = kind.strip()[:80] or "of unknown kind"
        raise Rejection("not_a_picture", f"neither a page nor a picture, but {kind}")
    charset = re.search(r"charset=[\"']?([\w-]+)", parameters)
    if len(file.content) > PAGE_CAP_BYTES:
        raise Rejection("too_large", f"the page is larger than {PAGE_CAP_BYTES} bytes")
    try:
        page = read_page(file.url, file.content, charset and charset[1])
    except SlowPageError as error:
        raise Rejection("timeout", str(error)) from None
    out = opt_out(page.robots)
    if out:
        raise Rejection("opt_out", f"the page's meta tag says {out}")
    if not may_follow([*page.robots, file.headers.get("x-robots-tag", "")]):
        page.links.clear()
    return page


def picture_of(file: Fetched) -> str:
    """Returns the URL of the picture that a page is about, if the page's name is that of a picture.

    Wikis and code hosts show ``…/File:Lake.jpg`` as a page around ``…/Lake.jpg``. The picture is the one with the
    page's own name, or else the only one on the page.

    Raises:
        Rejection: the page must not be read, or it is unclear which of its pictures is meant.
    """
    pictures = list(page_of(file).pictures)
    name = _file_name(file.url).rpartition(":")[2]
    named = [url for url in pictures if _file_name(url) == name and url != file.url]
    if not named and len(pictures) != 1:
        raise Rejection("not_a_picture", f"a page with {len(pictures)} pictures, none of which has its name")
    return (named or pictures)[0]


def _file_name(url: str) -> str:
    return posixpath.basename(unquote(urlsplit(url).path)).lower()
