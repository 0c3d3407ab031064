"""Finds photographs on the web: pictures, lists, pages that are crawled, and two APIs."""

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from html import unescape
from typing import Any, Final
from urllib.parse import urlsplit

from model.errors import InputError
from transforms.archives import TAR_SUFFIX
from transforms.fetch import Fetched, Fetcher, FetchError
from transforms.lists import LIST_SUFFIXES, read_list
from transforms.manners import Manners, host_of, opt_out
from transforms.pages import Page, is_picture_url, read_page
from transforms.records import Photograph, Reject
from transforms.tally import Tally

COMMONS_API = "https://commons.wikimedia.org/w/api.php"
FLICKR_API = "https://api.flickr.com/services/rest/"
FLICKR_KEY: Final = "FLICKR_API_KEY"
_COMMONS, _FLICKR = "commons:", "flickr:group/"
_FLICKR_SIZES: Final = ("o", "6k", "5k", "4k", "3k", "k", "h", "l", "c", "z")
"""Renditions of a photograph, the largest first."""

MOST_PAGES: Final = 10_000

Item = Photograph | Reject

ANSWERS_READ = Tally()
"""Counts the pages, lists and answers of APIs that this process has read, for the progress bar."""


def is_on_web(source: str) -> bool:
    """Whether a source is a web URL or names an API."""
    return bool(host_of(source)) or source.startswith((_COMMONS, "flickr:"))


def find_on_web(sources: Iterable[str], manners: Manners, depth: int, examined: set[str] | None = None) -> list[Item]:
    """What there is at web sources; what could not be had of them is a reject.

    Args:
        sources: URLs of pictures, lists and pages, and names of APIs.
        manners: how servers are treated.
        depth: how many links are followed from a page, on its own site.
        examined: the pages and lists that have been read are added to it.

    Raises:
        InputError: a source is of no kind that is known, or an API refuses.
    """
    sources = list(sources)
    for source in sources:
        check_source(source)
    return asyncio.run(_find_all(sources, manners, depth, set() if examined is None else examined)) if sources else []


def check_source(source: str) -> None:
    """Raises InputError if a web source is of no known kind."""
    if source.startswith(_COMMONS) and not source.startswith("commons:Category:"):
        raise InputError(f"{source} is unknown: give commons:Category:NAME")
    if source.startswith("flickr:"):
        if not source.removeprefix(_FLICKR).strip("/") or not source.startswith(_FLICKR):
            raise InputError(f"{source} is unknown: give flickr:group/ID")
        if not os.environ.get(FLICKR_KEY):
            raise InputError(f"{source} needs a key of the Flickr API: set {FLICKR_KEY} in the environment")
    if host_of(source) and urlsplit(source).path.lower().endswith(TAR_SUFFIX):
        raise InputError(f"{source}: tars are read in pieces, which is unkind to a web server; download it first")


async def _find_all(sources: list[str], manners: Manners, depth: int, examined: set[str]) -> list[Item]:
    async with Fetcher(manners) as fetcher:
        found = await asyncio.gather(*(_find(fetcher, source, depth, examined) for source in sources))
    return [item for items in found for item in items]


async def _find(fetcher: Fetcher, source: str, depth: int, examined: set[str]) -> list[Item]:
    if source.startswith(_COMMONS):
        return [item async for item in _commons(fetcher, source)]
    if source.startswith(_FLICKR):
        return [item async for item in _flickr(fetcher, source)]
    if is_picture_url(source):
        return [Photograph(source)]
    if urlsplit(source).path.lower().endswith(LIST_SUFFIXES):
        return await _read_list(fetcher, source, examined)
    return await _crawl_site(fetcher, source, depth, examined)


async def _read_list(fetcher: Fetcher, source: str, examined: set[str]) -> list[Item]:
    try:
        file = await fetcher.fetch(source, _itself)
        examined.add(source)
        return await asyncio.to_thread(lambda: list(read_list(source, file.content)))
    except FetchError as error:
        return [Reject(source, "find", error.reason, error.message, error.attempts)]
    except InputError as error:
        return [Reject(source, "find", "unreadable", str(error))]


async def _itself(file: Fetched) -> Fetched:
    ANSWERS_READ.add()
    return file


async def _crawl_site(fetcher: Fetcher, start: str, depth: int, examined: set[str]) -> list[Item]:
    """The pictures of a page and of those that it links to on the same host, each page asked for once."""
    items: list[Item] = []
    seen, level = {start}, [start]
    for distance in range(depth + 1):
        pages = await asyncio.gather(*(_read_page(fetcher, url) for url in level))
        links: list[str] = []
        for url, page in zip(level, pages, strict=True):
            if isinstance(page, Page):
                examined.add(url)
                items += [Photograph(picture, title=text) for picture, text in page.pictures.items()]
                links += page.links if distance < depth else []
            else:
                items.append(page)
        level = [url for url in dict.fromkeys(links) if host_of(url) == host_of(start) and url not in seen]
        dropped = level[max(0, MOST_PAGES - len(seen)) :]
        items += [Reject(url, "find", "too_many_pages", f"more than {MOST_PAGES} pages") for url in dropped]
        level = level[: len(level) - len(dropped)]
        seen.update(level)
    return items


async def _read_page(fetcher: Fetcher, url: str) -> Page | Item:
    try:
        file = await fetcher.fetch(url, _itself)
    except FetchError as error:
        return Reject(url, "find", error.reason, error.message, error.attempts)
    kind, _, parameters = file.headers.get("content-type", "").lower().partition(";")
    if kind.startswith("image/"):
        return Photograph(url)
    if kind.strip() not in ("text/html", "application/xhtml+xml"):
        return Reject(url, "find", "not_a_picture", f"neither a page nor a picture, but {kind or 'of unknown kind'}")
    charset = re.search(r"charset=[\"']?([\w-]+)", parameters)
    page = read_page(file.url, file.content, charset and charset[1])
    out = opt_out(page.robots)
    if out:
        return Reject(url, "find", "opt_out", f"the page's meta tag says {out}")
    if "nofollow" in " ".join(page.robots).lower():
        page.links.clear()
    return page


async def _commons(fetcher: Fetcher, source: str) -> AsyncIterator[Item]:
    """The files of a category of Wikimedia Commons, by MediaWiki's action API (generator categorymembers)."""
    query = {
        "action": "query",
        "format": "json",
        "formatversion": "2",
        "maxlag": "5",
        "generator": "categorymembers",
        "gcmtitle": source.removeprefix(_COMMONS),
        "gcmtype": "file",
        "gcmlimit": "50",
        "prop": "imageinfo",
        "iiprop": "url|mime|extmetadata",
        "iiextmetadatafilter": "LicenseShortName|Artist|ObjectName",
    }
    more: dict[str, str] = {}
    while True:
        answer = await _ask(fetcher, source, COMMONS_API, {**query, **more})
        if "error" in answer:
            raise InputError(f"{source}: {COMMONS_API} says {answer['error'].get('info')}")
        for page in answer.get("query", {}).get("pages", []):
            for info in page.get("imageinfo", []):  # a later part of the answer brings what is missing
                yield _commons_item(page, info)
        if "continue" not in answer:
            return
        more = {name: str(value) for name, value in answer["continue"].items()}


def _commons_item(page: Mapping[str, Any], info: Mapping[str, Any]) -> Item:
    facts = {name: plain_text(value.get("value")) for name, value in info.get("extmetadata", {}).items()}
    if not info["mime"].startswith("image/") or info["mime"] == "image/svg+xml":
        return Reject(info["url"], "find", "not_a_picture", f"a file of kind {info['mime']}")
    title = facts.get("ObjectName") or page["title"]
    return Photograph(info["url"], facts.get("LicenseShortName"), facts.get("Artist"), title)


async def _flickr(fetcher: Fetcher, source: str) -> AsyncIterator[Item]:
    """The photographs of a Flickr group's pool, by flickr.groups.pools.getPhotos."""
    licences = {
        str(licence["id"]): licence["name"]
        for licence in (await _ask_flickr(fetcher, source, "flickr.photos.licenses.getInfo"))["licenses"]["license"]
    }
    group = source.removeprefix(_FLICKR).strip("/")
    if "@" not in group:  # a name in a URL, not an id
        place = {"url": f"https://www.flickr.com/groups/{group}/"}
        group = (await _ask_flickr(fetcher, source, "flickr.urls.lookupGroup", place))["group"]["id"]
    extras = ",".join(["license", "owner_name", *(f"url_{size}" for size in _FLICKR_SIZES)])
    number, pages = 1, 1
    while number <= pages:
        wanted = {"group_id": group, "extras": extras, "per_page": "500", "page": str(number)}
        answer = (await _ask_flickr(fetcher, source, "flickr.groups.pools.getPhotos", wanted))["photos"]
        for photo in answer["photo"]:
            yield _flickr_item(photo, licences)
        number, pages = number + 1, int(answer["pages"])


def _flickr_item(photo: Mapping[str, Any], licences: Mapping[str, str]) -> Item:
    url = next((photo[f"url_{size}"] for size in _FLICKR_SIZES if photo.get(f"url_{size}")), None)
    if url is None:
        page = f"https://www.flickr.com/photos/{photo.get('owner')}/{photo.get('id')}"
        return Reject(page, "find", "not_found", "its owner lets nobody load a rendition of it")
    licence = licences.get(str(photo.get("license")))
    return Photograph(url, licence, photo.get("ownername") or photo.get("owner"), photo.get("title") or None)


async def _ask_flickr(
    fetcher: Fetcher, source: str, method: str, parameters: Mapping[str, str] | None = None
) -> dict[str, Any]:
    fixed = {"method": method, "api_key": os.environ[FLICKR_KEY], "format": "json", "nojsoncallback": "1"}
    answer = await _ask(fetcher, source, FLICKR_API, {**fixed, **(parameters or {})})
    if answer.get("stat") != "ok":
        raise InputError(f"{source}: {FLICKR_API} says of {method}: {answer.get('message')}")
    return answer


async def _ask(fetcher: Fetcher, source: str, api: str, parameters: Mapping[str, str]) -> dict[str, Any]:
    """An API's answer. Its parameters, the key among them, stand in no message."""
    try:
        file = await fetcher.fetch(api, _itself, by_program=True, parameters=parameters)
        answer = json.loads(file.content)
    except FetchError as error:
        raise InputError(f"{source}: {api} cannot be asked: {error.message}") from None
    except ValueError:
        raise InputError(f"{source}: {api} does not answer with JSON") from None
    if not isinstance(answer, dict):
        raise InputError(f"{source}: {api} answers with no JSON object")
    return answer


def plain_text(value: Any) -> str | None:
    """A field of HTML without its tags."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", str(value))).split()) or None if value is not None else None
