"""Pages as a server gave them: what is one, whether it may be read, and which picture it is about."""

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
    """Returns the page that a file is, as far as its owner lets it be read.

    Raises:
        Rejection: it is not a page, or asks us to keep out.
    """
    kind, _, parameters = file.headers.get("content-type", "").lower().partition(";")
    if kind.strip() not in PAGE_TYPES:
        kind = kind.strip()[:80] or "of unknown kind"
        raise Rejection("not_a_picture", f"neither a page nor a picture, but {kind}")
    charset = re.search(r"charset=[\"']?([\w-]+)", parameters)
    if len(file.content) > PAGE_CAP_BYTES:
        raise Rejection("too_large", f"a page of more than {PAGE_CAP_BYTES} bytes")
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
    """Returns the URL of the picture that a page is about, where the page has the name of a picture.

    Wikis and code hosts show ``…/File:Lake.jpg`` as a page around ``…/Lake.jpg``. It is the picture of the page's own
    name, or else the only one.

    Raises:
        Rejection: the page must not be read, or it is not clear which of its pictures is meant.
    """
    pictures = list(page_of(file).pictures)
    name = _file_name(file.url).rpartition(":")[2]
    named = [url for url in pictures if _file_name(url) == name and url != file.url]
    if not named and len(pictures) != 1:
        raise Rejection("not_a_picture", f"a page with {len(pictures)} pictures, none of them of its name")
    return (named or pictures)[0]


def _file_name(url: str) -> str:
    return posixpath.basename(unquote(urlsplit(url).path)).lower()
