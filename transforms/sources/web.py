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
from transforms.sources.archives import TAR_SUFFIX
from transforms.sources.fetch import Fetched, Fetcher, FetchError
from transforms.sources.fetched_pages import page_of
from transforms.sources.lists import LIST_SUFFIXES, read_list
from transforms.sources.manners import Manners, retry_after_s
from transforms.sources.pages import Page, is_picture_url
from transforms.storage.tally import Tally
from transforms.storage.text import clean_text
from transforms.storage.urls import host_key, is_web, redact
from transforms.training_set.records import Photograph, Reject, Rejection, internal_reject

COMMONS_API = "https://commons.wikimedia.org/w/api.php"
FLICKR_API = "https://api.flickr.com/services/rest/"
FLICKR_KEY: Final = "FLICKR_API_KEY"
_COMMONS, _FLICKR = "commons:", "flickr:group/"
_FLICKR_SIZES: Final = ("o", "6k", "5k", "4k", "3k", "k", "h", "l", "c", "z")
"""The suffixes of a photograph's renditions, the largest first."""

_COMMONS_BUSY: Final = ("maxlag", "ratelimited", "readonly")
_FLICKR_BUSY: Final = ("0", "105")
"""The codes for temporary errors: the API or the service is currently unavailable."""

MOST_PAGES: Final = 10_000
MOST_CHARACTERS: Final = 10_000
"""The number of characters read of a field of HTML."""

_HIDDEN: Final = re.compile(r"<(\w+)[^<>]*\bdisplay:\s*none\b[^<>]*>[^<>]*</\1\s*>", re.IGNORECASE)

Item = Photograph | Reject

ANSWERS_READ = Tally()
"""The number of pages, lists and API answers that this process has read, for the progress bar."""


def is_on_web(source: str) -> bool:
    """Returns whether a source is a web URL or names an API."""
    return is_web(source) or source.startswith((_COMMONS, "flickr:"))


def find_on_web(sources: Iterable[str], manners: Manners, depth: int, examined: set[str] | None = None) -> list[Item]:
    """Searches web sources; whatever cannot be fetched becomes a reject.

    Args:
        sources: URLs of pictures, lists and pages, and names of APIs.
        manners: the limits for requests to servers.
        depth: the number of links followed from a page, on its own site.
        examined: the set to which the pages and lists that were read are added.

    Raises:
        InputError: a source is of an unknown kind, or an API refuses the request.
    """
    sources = list(sources)
    for source in sources:
        check_source(source)
    return asyncio.run(_find_all(sources, manners, depth, set() if examined is None else examined)) if sources else []


def check_source(source: str) -> None:
    """Raises InputError if a web source is of an unknown kind."""
    if source.startswith(_COMMONS) and not source.startswith("commons:Category:"):
        raise InputError(f"{source} is unknown: give commons:Category:NAME")
    if source.startswith("flickr:"):
        if not source.removeprefix(_FLICKR).strip("/") or not source.startswith(_FLICKR):
            raise InputError(f"{source} is unknown: give flickr:group/ID")
        if not os.environ.get(FLICKR_KEY):
            raise InputError(f"{source} needs a key of the Flickr API: set {FLICKR_KEY} in the environment")
    if is_web(source):
        if not host_key(source):
            raise InputError(f"{redact(source)} names no host on the web: give a complete URL")
        if urlsplit(source).path.lower().endswith(TAR_SUFFIX):
            cure = "tars are read in pieces, which is unkind to a web server; download it first"
            raise InputError(f"{redact(source)}: {cure}")


async def _find_all(sources: list[str], manners: Manners, depth: int, examined: set[str]) -> list[Item]:
    async with Fetcher(manners) as fetcher:
        found = await asyncio.gather(*(_find(fetcher, source, depth, examined) for source in sources))
    return [item for items in found for item in items]


async def _find(fetcher: Fetcher, source: str, depth: int, examined: set[str]) -> list[Item]:
    """Searches one source. If it cannot be fetched it becomes a reject, so that the others go on."""
    items: list[Item] = []
    try:
        async for item in _look(fetcher, source, depth, examined):
            items.append(item)  # noqa: PERF401 - what was found before an error stays
    except FetchError as error:
        items.append(Reject(source, "find", error.reason, error.message, error.attempts))
    except InputError:
        raise
    except Exception as error:  # an unforeseen answer
        items.append(internal_reject(source, "find", error))
    return items


async def _look(fetcher: Fetcher, source: str, depth: int, examined: set[str]) -> AsyncIterator[Item]:
    if source.startswith((_COMMONS, _FLICKR)):
        async for item in _commons(fetcher, source) if source.startswith(_COMMONS) else _flickr(fetcher, source):
            yield item
    elif is_picture_url(source):
        yield Photograph(source)
    elif urlsplit(source).path.lower().endswith(LIST_SUFFIXES):
        for item in await _read_list(fetcher, source, examined):
            yield item
    else:
        for item in await _crawl_site(fetcher, source, depth, examined):
            yield item


async def _read_list(fetcher: Fetcher, source: str, examined: set[str]) -> list[Item]:
    file = await fetcher.fetch(source, _itself)
    examined.add(source)
    items: list[Item] = []
    try:
        await asyncio.to_thread(lambda: items.extend(read_list(source, file.content)))
    except InputError as error:
        items.append(Reject(source, "find", "unreadable", str(error)))
    return items


async def _itself(file: Fetched) -> Fetched:
    ANSWERS_READ.add()
    return file


async def _crawl_site(fetcher: Fetcher, start: str, depth: int, examined: set[str]) -> list[Item]:
    """Returns the pictures of a page and of the pages that it links to on the same host, reading each page once."""
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
                if page.left_out:
                    message = f"the page has too many pictures and links: {page.left_out} of them are left out"
                    items.append(Reject(url, "find", "too_many_rows", message))
            else:
                items.append(page)
        level = [url for url in dict.fromkeys(links) if host_key(url) == host_key(start) and url not in seen]
        dropped = level[max(0, MOST_PAGES - len(seen)) :]
        items += [Reject(url, "find", "too_many_pages", f"more than {MOST_PAGES} pages") for url in dropped]
        level = level[: len(level) - len(dropped)]
        seen.update(level)
    return items


async def _read_page(fetcher: Fetcher, url: str) -> Page | Item:
    try:
        file = await fetcher.fetch(url, _itself)
        if file.headers.get("content-type", "").lower().startswith("image/"):
            return Photograph(url)
        return await asyncio.to_thread(page_of, file)
    except Rejection as error:
        return Reject(url, "find", error.reason, error.message, getattr(error, "attempts", 1))
    except Exception as error:  # unforeseen markup
        return internal_reject(url, "find", error)


async def _commons(fetcher: Fetcher, source: str) -> AsyncIterator[Item]:
    """Yields the files of a category of Wikimedia Commons, by MediaWiki's action API (generator categorymembers)."""
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
    bare: dict[str, None] = {}  # titles that no part of the answer has described yet, in their order
    while True:
        answer = await _ask(fetcher, source, COMMONS_API, {**query, **more})
        if "error" in answer:
            raise InputError(f"{source}: {COMMONS_API} says {_part(answer, 'error').get('info')}")
        for page in _parts(_part(answer, "query"), "pages"):
            title, infos = str(page.get("title")), _parts(page, "imageinfo")
            bare.setdefault(title)
            if infos:
                bare.pop(title)
            for info in infos:
                yield _commons_item(title, info)
        if "continue" not in answer:
            break
        more = {name: str(value) for name, value in _part(answer, "continue").items()}
    for title in bare:
        yield Reject(_commons_page(title), "find", "not_found", "the API knows of no file there")


def _commons_page(title: str) -> str:
    return clean_text("https://commons.wikimedia.org/wiki/" + title.replace(" ", "_"))


def _commons_item(title: str, info: Mapping[str, Any]) -> Item:
    url, kind = info.get("url"), str(info.get("mime"))
    if not isinstance(url, str) or not url:
        gone = "is hidden from the public" if "filehidden" in info else "is missing"
        return Reject(_commons_page(title), "find", "not_found", f"the file {gone}")
    if not is_web(url):
        return Reject(_commons_page(title), "find", "bad_url", f"the API names {url}, which is not on the web")
    if not kind.startswith("image/") or kind == "image/svg+xml":
        return Reject(url, "find", "not_a_picture", f"a file of kind {kind}")
    metadata = _part(info, "extmetadata")
    facts = {name: plain_text(_part(metadata, name).get("value")) for name in metadata}
    return Photograph(url, facts.get("LicenseShortName"), facts.get("Artist"), facts.get("ObjectName") or title)


def _part(answer: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Returns an object within an answer. Some PHP writes an empty one as a list; a missing one is also empty."""
    value = answer.get(name)
    return value if isinstance(value, dict) else {}


def _parts(answer: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Returns the objects of a list within an answer."""
    value = answer.get(name)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


async def _flickr(fetcher: Fetcher, source: str) -> AsyncIterator[Item]:
    """Yields the photographs of a Flickr group's pool, by flickr.groups.pools.getPhotos."""
    answer = await _ask_flickr(fetcher, source, "flickr.photos.licenses.getInfo")
    known = _parts(_part(answer, "licenses"), "license")
    licences = {str(licence.get("id")): plain_text(licence.get("name")) for licence in known}
    group = source.removeprefix(_FLICKR).strip("/")
    if "@" not in group:  # a name in a URL, not an id
        place = {"url": f"https://www.flickr.com/groups/{group}/"}
        group = str(_part(await _ask_flickr(fetcher, source, "flickr.urls.lookupGroup", place), "group").get("id"))
    extras = ",".join(["license", "owner_name", *(f"url_{size}" for size in _FLICKR_SIZES)])
    number, pages = 1, 1
    while number <= pages:
        wanted = {"group_id": group, "extras": extras, "per_page": "500", "page": str(number)}
        answer = _part(await _ask_flickr(fetcher, source, "flickr.groups.pools.getPhotos", wanted), "photos")
        for photo in _parts(answer, "photo"):
            yield _flickr_item(photo, licences)
        said = re.fullmatch("[0-9]{1,9}", str(answer.get("pages")))
        number, pages = number + 1, min(int(said[0]), MOST_PAGES) if said else 0


def _flickr_item(photo: Mapping[str, Any], licences: Mapping[str, str | None]) -> Item:
    urls = (photo.get(f"url_{size}") for size in _FLICKR_SIZES)
    url = next((url for url in urls if isinstance(url, str) and is_web(url)), None)
    if url is None:
        page = clean_text(f"https://www.flickr.com/photos/{photo.get('owner')}/{photo.get('id')}")
        return Reject(page, "find", "not_found", "its owner does not allow loading a rendition of it")
    licence = licences.get(str(photo.get("license")))
    author = _text(photo.get("ownername")) or _text(photo.get("owner"))
    return Photograph(clean_text(url), licence, author, _text(photo.get("title")))


def _text(value: object) -> str | None:
    return clean_text(value).strip() or None if isinstance(value, str) else None


async def _ask_flickr(
    fetcher: Fetcher, source: str, method: str, parameters: Mapping[str, str] | None = None
) -> dict[str, Any]:
    fixed = {"method": method, "api_key": os.environ[FLICKR_KEY], "format": "json", "nojsoncallback": "1"}
    answer = await _ask(fetcher, source, FLICKR_API, {**fixed, **(parameters or {})})
    if answer.get("stat") != "ok":
        raise InputError(f"{source}: {FLICKR_API} says of {method}: {answer.get('message')}")
    return answer


async def _ask(fetcher: Fetcher, source: str, api: str, parameters: Mapping[str, str]) -> dict[str, Any]:
    """Returns an API's answer. Its parameters, including the key, appear in no message.

    Raises:
        FetchError: the answer cannot be fetched.
        InputError: the answer is not JSON.
    """

    async def read(file: Fetched) -> Any:
        ANSWERS_READ.add()
        try:
            answer = json.loads(file.content)
        except (ValueError, RecursionError):
            raise InputError(f"{source}: {api} did not answer with JSON") from None
        plea = _plea(answer) if isinstance(answer, dict) else None
        if plea:
            pause_s = retry_after_s(file.headers.get("retry-after"))
            raise FetchError("server_error", f"{api} says {plea}", again=True, pause_s=pause_s)
        return answer

    answer = await fetcher.fetch(api, read, by_program=True, parameters=parameters)
    if not isinstance(answer, dict):
        raise InputError(f"{source}: {api} did not answer with a JSON object")
    return answer


def _plea(answer: Mapping[str, Any]) -> str | None:
    """Returns the message of an API that is only busy, and may answer if asked again later."""
    error = _part(answer, "error")
    if str(error.get("code")) in _COMMONS_BUSY:
        return str(error.get("info"))
    if answer.get("stat") == "fail" and str(answer.get("code")) in _FLICKR_BUSY:
        return str(answer.get("message"))
    return None


def plain_text(value: object) -> str | None:
    """Returns a field of HTML, or a list of them, as plain text without hidden parts, in English if possible."""
    if isinstance(value, dict):
        value = value.get("en") or next((text for name, text in value.items() if not name.startswith("_")), None)
    if isinstance(value, list):
        return ", ".join(filter(None, map(plain_text, value))) or None
    if value is None:
        return None
    shown = re.sub(_HIDDEN, " ", str(value)[:MOST_CHARACTERS])
    return clean_text(" ".join(unescape(re.sub(r"<[^<>]*>", " ", shown)).split())) or None
