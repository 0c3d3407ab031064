"""Finds photographs in folders (with all that they contain), globs, files, lists, tars, web pages and APIs.

Nothing that is found is dropped silently: anything but a photograph becomes a ``Reject`` of stage ``find``. The only
exception are the inventory tables of folders, because they are read.
"""

import hashlib
import os
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.core import has_magic
from fsspec.implementations.local import LocalFileSystem

from model.errors import InputError, one_line
from transforms.sources.archives import TAR_SUFFIX, read_archive
from transforms.sources.lists import LIST_SUFFIXES, PICTURE_SUFFIXES, UNREAD_SUFFIXES, field_text, read_list
from transforms.sources.manners import Manners
from transforms.sources.web import find_on_web, is_on_web
from transforms.storage.delimited import is_decodable, read_lines, read_records
from transforms.storage.files import filesystem, read_bytes
from transforms.storage.urls import LOCAL, WEB, NotAllowedError, check_scheme, scheme_of
from transforms.training_set.records import Photograph, Reject, internal_reject

INVENTORY_NAMES = ("inventory.tsv", "inventory.csv", "ATTRIBUTION.tsv", "ATTRIBUTION.csv")
_PACKED_SUFFIXES = (".gz", ".tgz", ".bz2", ".xz", ".zst", ".zip", ".7z", ".rar")
_OTHER_SUFFIXES = (".json", ".ndjson", ".xml", ".html", ".htm", ".xls", ".xlsx", ".pdf", ".md", ".tsv000", ".csv000")
"""The suffixes of files that are not taken for pictures even if they are named as a source."""

_SAME_STORE = {"gcs": "gs", "s3a": "s3", "abfss": "abfs"}


@dataclass(frozen=True, slots=True)
class Find:
    """Something that was found.

    Attributes:
        key: what identifies it, however many sources lead to it.
        order: the number of the source, the name of the file that names it, and its place there. Of several finds with
            one key, the first counts.
        item: a photograph, or a reject for anything else.
    """

    key: str
    order: tuple[int, str, int]
    item: Photograph | Reject

    def to_json(self) -> dict[str, Any]:
        """Returns the find as a JSON value; ``from_json`` reads it back."""
        kind = "photograph" if isinstance(self.item, Photograph) else "reject"
        return {"key": self.key, "order": self.order, kind: asdict(self.item)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Find":
        """Restores a find from its JSON value."""
        number, name, place = value["order"]
        item = Photograph.from_json(value["photograph"]) if "photograph" in value else Reject(**value["reject"])
        return cls(value["key"], (number, name, place), item)


@dataclass(frozen=True, slots=True)
class Place:
    """A place to search, by any worker.

    Attributes:
        url: a file or folder.
        number: the number of the source that leads there.
        kind: source, folder, link (to a folder), or contents (of a tar or list).
        root: the folder that the source names; None if the source names the place itself.
    """

    url: str
    number: int
    kind: str = "source"
    root: str | None = None

    @property
    def key(self) -> str:
        """What identifies the place, however it is spelled."""
        return hashlib.sha256(os.fsencode(_identity(self.url))).hexdigest()


@dataclass(frozen=True, slots=True)
class Read:
    """A place that was read: a folder, list, tar or page."""

    url: str


Outcome = Find | Place | Read


def expand(number: int, source: str) -> Iterator[Place]:
    """Yields the files and folders that a source names: itself, or a glob's matches.

    Raises:
        InputError: there are none, or the source is of a kind that must not be opened.
    """
    for place in _expand(source):
        yield Place(place, number)


def look(place: Place, out: str) -> Iterator[Outcome]:
    """Looks at a file or folder that a source names: the folders in it, tars and lists are places for other workers.

    Args:
        place: the place.
        out: the folder of the training set, whose contents are not sources.

    Raises:
        InputError: an inventory cannot be read.
    """
    return _Look(place, out).at_place()


def search(place: Place, out: str) -> Iterator[Outcome]:
    """Searches a place from `look`: a folder with all below it, except linked folders, or a tar or list.

    Raises:
        InputError: an inventory cannot be read.
    """
    return _Look(place, out).below()


def follow(links: Iterable[Place], out: str) -> Iterator[Find | Read]:
    """Searches the linked folders below a root once each, whatever loops the links form.

    Raises:
        InputError: an inventory cannot be read.
    """
    queue = sorted(links, key=lambda place: place.url)
    walked: set[str] = set()
    while queue:
        inner: list[Place] = []
        for place in queue:
            root = place.root or place.url
            real = os.path.realpath(filesystem(place.url)[1])
            if real in walked or _is_within(real, os.path.realpath(filesystem(root)[1])):
                yield _Look(place, out).reject(place.url, "symlink_loop", f"leads to {real}, listed already")
                continue
            walked.add(real)
            for outcome in _Look(place, out, walked).below():
                if isinstance(outcome, Place):
                    inner.append(outcome)
                else:
                    yield outcome
        queue = sorted(inner, key=lambda place: place.url)


def _is_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def find_on_web_places(places: Iterable[tuple[int, str]], manners: Manners, depth: int) -> Iterator[Find | Read]:
    """Searches web sources, given with their numbers, all at once.

    Raises:
        InputError: a source is of an unknown kind, or an API refuses the request.
    """
    numbers = {source: number for number, source in places}
    examined: set[str] = set()
    first = min(numbers.values(), default=0)
    for row, item in enumerate(find_on_web(numbers, manners, depth, examined)):
        yield find_of(item, (first, "", row))
    yield from map(Read, sorted(examined))


def find_of(item: Photograph | Reject, order: tuple[int, str, int]) -> Find:
    """Returns an item that a list, a tar or the web names, as a find."""
    piece = item.piece if isinstance(item, Photograph) else None
    return Find(_identity(item.source if piece is None else f"{piece.url}#{piece.offset_bytes}"), order, item)


def grouping_key(find: Find) -> str:
    """Returns what all finds have in common that are the same, or that a tar gives the same name."""
    return _identity(find.item.source)


def distinct(finds: Iterable[Find], out: str) -> Iterator[Photograph | Reject]:
    """Yields each of the finds with one `grouping_key` once; the finds in the folder of the training set are dropped.

    Photographs in tars are renamed if others share the name that their metadata give.
    """
    first: dict[str, Find] = {}
    for find in sorted(finds, key=lambda find: find.order):
        if not _is_in(find.key, out):
            first.setdefault(find.key, find)
    items = [find.item for find in first.values()]
    names = Counter(item.source for item in items if isinstance(item, Photograph))
    for item in items:
        yield _distinct(item, names) if isinstance(item, Photograph) else item


def is_in(place: str, out: str) -> bool:
    """Returns whether a place is in the folder of the training set, whose contents are not sources."""
    return _is_in(_identity(place), out)


def _is_in(key: str, out: str) -> bool:
    return (key + "/").startswith(_identity(out).rstrip("/") + "/")


def holders(source: str) -> Iterator[str]:
    """Yields a source itself, and the lists, tars and folders that may contain it."""
    yield source.rstrip("/")
    yield from (source[:place].rstrip("/") for place, mark in enumerate(source) if mark in "#/")


def _distinct(photograph: Photograph, names: Counter[str]) -> Photograph:
    piece = photograph.piece
    if piece is None or names[photograph.source] == 1:
        return photograph
    return replace(photograph, source=f"{piece.url}#{piece.offset_bytes}")


def can_retry(reject: Reject) -> bool:
    """Returns whether a rejected source can be tried again by itself."""
    return reject.stage != "find" or place_of(reject) is not None


def place_of(reject: Reject) -> str | None:
    """Returns the place to read again for a reject of the stage find: a page, a list, a tar or a picture's file."""
    if reject.reason == "not_allowed":  # out of its context it may look like a source given by a person
        return None
    whole, mark, _ = reject.source.partition("#")
    if is_on_web(whole):  # the URL of an API's reject is not a page
        return None if whole.startswith("https://www.flickr.com/photos/") else whole
    if mark and whole.lower().endswith((*LIST_SUFFIXES, TAR_SUFFIX)):
        return whole
    readable = (*PICTURE_SUFFIXES, TAR_SUFFIX, *(LIST_SUFFIXES if reject.reason != "not_a_picture" else ()))
    return reject.source if reject.source.lower().endswith(readable) else None


def _expand(source: str) -> list[str]:
    """Returns the files and folders that a source names: itself, or a glob's matches."""
    check_scheme(source)
    fs, path = filesystem(source)
    if fs.exists(path):
        return [source]
    if not has_magic(source):
        raise InputError(f"{source} does not exist: give an existing folder, glob or file")
    matches = sorted(fs.glob(path))
    if not matches:
        raise InputError(f"{source} matches no file: check the pattern")
    if "://" in source:
        return [fs.unstrip_protocol(match) for match in matches]
    return matches if os.path.isabs(source) else [os.path.relpath(match) for match in matches]


class _Look:
    """Looks at one place.

    Args:
        place: the place.
        out: the folder of the training set, whose contents are not sources.
        walked: collects the real paths of the folders that are listed.
    """

    def __init__(self, place: Place, out: str, walked: set[str] | None = None) -> None:
        self._place = place
        self._out = out
        self._walked = set() if walked is None else walked
        self._inventories: dict[str, dict[str, tuple[str | None, str | None]]] = {}

    def at_place(self) -> Iterator[Outcome]:
        """Yields what a source's own place is or holds."""
        place = self._place.url
        try:
            check_scheme(place)
        except NotAllowedError as error:  # for a table in the output folder, which anyone may have written
            yield self.reject(place, "not_allowed", str(error))
            return
        fs, path = filesystem(place)
        name = place.lower()
        if fs.isdir(path):
            root = place.rstrip("/") or "/"
            yield Read(root)
            self._place = replace(self._place, url=root, kind="folder", root=root)
            yield from self._folder(fs, path, is_deep=False)
        elif name.endswith((*LIST_SUFFIXES, TAR_SUFFIX)):
            yield replace(self._place, kind="contents")
        elif name.endswith((*_PACKED_SUFFIXES, *UNREAD_SUFFIXES)):
            yield self.reject(place, *_why_not(place))
        elif name.endswith(_OTHER_SUFFIXES):
            kinds = f"a list ({', '.join(LIST_SUFFIXES)}), a {TAR_SUFFIX}"
            yield self.reject(place, "not_a_picture", f"by its name neither {kinds} nor a picture")
        else:
            yield self._photograph(fs, place)

    def below(self) -> Iterator[Outcome]:
        """Yields all that is in a folder, tar or list."""
        fs, path = filesystem(self._place.url)
        if self._place.kind == "contents":
            yield from self._contents(self._place.url)
        else:
            yield from self._folder(fs, path, is_deep=True)

    def _folder(self, fs: AbstractFileSystem, path: str, is_deep: bool) -> Iterator[Outcome]:
        """Yields what is in a folder; if not deep, the folders in it are places for others, as are its tars."""
        walk = self._walk if isinstance(fs, LocalFileSystem) else partial(self._list, fs)
        for outcome in walk(path, is_deep):
            if not isinstance(outcome, str):
                yield outcome
            elif posixpath.basename(outcome) in INVENTORY_NAMES:
                continue
            elif outcome.lower().endswith(PICTURE_SUFFIXES):
                yield self._photograph(fs, outcome)
            elif not outcome.lower().endswith(TAR_SUFFIX):
                yield self.reject(outcome, *_why_not(outcome))
            elif is_deep:
                yield from self._contents(outcome)
            else:
                yield replace(self._place, url=outcome, kind="contents")

    def _contents(self, place: str) -> Iterator[Outcome]:
        """Yields the items that a list or a tar names. One that cannot be read is rejected; the other sources go on."""
        if is_in(place, self._out):
            return
        if not _is_utf8(place):
            yield self.reject(place, "unreadable", "its name is not UTF-8: rename it")
            return
        yield Read(place)
        try:
            is_tar = place.lower().endswith(TAR_SUFFIX)
            items = read_archive(place) if is_tar else read_list(place, read_bytes(place))
            for row, item in enumerate(items):
                yield find_of(item, (self._place.number, place, row))
        except InputError as error:
            yield self.reject(place, "unreadable", str(error).removeprefix(place).removeprefix(":").strip())
        except OSError as error:
            yield self.reject(place, "unreadable", error.strerror or one_line(error))
        except Exception as error:  # whatever it is, it concerns this file alone
            yield find_of(internal_reject(place, "find", error), (self._place.number, place, 0))

    def _photograph(self, fs: AbstractFileSystem, file: str) -> Find:
        if isinstance(fs, LocalFileSystem):
            if not _is_utf8(file):
                return self.reject(file, "unreadable", "its name is not UTF-8: rename it")
            if not os.path.isfile(file_path := filesystem(file)[1]):
                return self.reject(file, "unreadable", _why_not_a_file(file_path))
        return Find(_identity(file), (self._place.number, file, 0), Photograph(file, *self._credit(file)))

    def reject(self, file: str, reason: str, message: str) -> Find:
        """Returns the reject of a file or folder."""
        shown = os.fsencode(file).decode("utf-8", "backslashreplace")
        return Find(_identity(shown), (self._place.number, shown, 0), Reject(shown, "find", reason, message))

    def _walk(self, path: str, is_deep: bool) -> Iterator[str | Outcome]:
        """Yields every file below a local folder, and the linked folders as places."""
        top = self._place.url
        unlisted: list[OSError] = []

        def below(file: str) -> str:
            return top if file == path else posixpath.join(top, os.path.relpath(file, path))

        for folder, folders, names in os.walk(path, onerror=unlisted.append):
            self._walked.add(os.path.realpath(folder))
            yield from (below(os.path.join(folder, name)) for name in names)
            folders[:] = [
                name for name in folders if not _is_in(_identity(below(os.path.join(folder, name))), self._out)
            ]
            for name in folders:
                inner = os.path.join(folder, name)
                if os.path.islink(inner):
                    yield replace(self._place, url=below(inner), kind="link")
                elif not is_deep:
                    yield replace(self._place, url=below(inner), kind="folder")
            if not is_deep:
                break
        for error in unlisted:
            message = f"the folder cannot be listed: {error.strerror}"
            yield self.reject(below(error.filename), "unreadable", message)

    def _list(self, fs: AbstractFileSystem, path: str, is_deep: bool) -> Iterator[str | Outcome]:
        """Yields every file below a folder of an object store."""
        base = path.rstrip("/")
        entries = fs.find(base, detail=True).values() if is_deep else fs.ls(base, detail=True)
        for entry in entries:
            name = entry["name"].rstrip("/")
            url = posixpath.join(self._place.url, name[len(base) :].lstrip("/"))
            if entry["type"] == "directory" and name != base:
                yield replace(self._place, url=url, kind="folder")
            elif entry["type"] == "file" and name != base:
                yield url

    def _credit(self, file: str) -> tuple[str | None, str | None]:
        """Returns the licence and author of a file, by the inventory of its folder or else of the source folder."""
        folder, name = posixpath.split(file)
        credit, root = self._inventory(folder).get(name), self._place.root
        if credit is None and root is not None:
            credit = self._inventory(root).get(posixpath.relpath(file, root))
        return credit or (None, None)

    def _inventory(self, folder: str) -> dict[str, tuple[str | None, str | None]]:
        if folder not in self._inventories:
            self._inventories[folder] = _read_inventory(folder)
        return self._inventories[folder]


def _read_inventory(folder: str) -> dict[str, tuple[str | None, str | None]]:
    """Returns licence and author by file name, from the first inventory table in a folder; empty if there is none."""
    for name in INVENTORY_NAMES:
        url = posixpath.join(folder, name)
        fs, path = filesystem(url)
        if fs.isfile(path):
            return dict(_inventory_rows(url))
    return {}


def _inventory_rows(url: str) -> Iterator[tuple[str, tuple[str | None, str | None]]]:
    """Yields the name, licence and author of each file in an inventory.

    Raises:
        InputError: the table cannot be read. A lost licence or author must not go unnoticed.
    """
    records = read_records(read_lines(read_bytes(url)), "\t" if url.endswith(".tsv") else ",")
    columns = next(records, None) or []
    if "file" not in columns:
        raise InputError(f"{url} has no 'file' column: give it the columns file, license and author, or rename it")
    licence = "licence" if "licence" in columns else "license"
    for number, fields in enumerate(records, start=1):
        if fields is None:
            raise InputError(f"{url}: a quotation mark in row {number} is not closed: close it, or rename the table")
        if not all(map(is_decodable, fields)):
            raise InputError(f"{url} is not UTF-8: save it as UTF-8, or rename it")
        row = dict(zip(columns, fields, strict=False))
        if any(fields) and not row.get("file"):
            raise InputError(f"{url}: row {number} names no file: complete the row, or rename the table")
        if row.get("file"):
            yield row["file"], (field_text(row.get(licence)), field_text(row.get("author")))


def _identity(place: str) -> str:
    """Returns a file's canonical name, whatever its spelling. Nothing is opened."""
    scheme = scheme_of(place)
    if scheme in WEB or is_on_web(place):
        return place
    if scheme in LOCAL:
        return str(LocalFileSystem._strip_protocol(place))
    return f"{_SAME_STORE.get(scheme, scheme)}://{place.partition('://')[2].strip('/')}"


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _why_not(file: str) -> tuple[str, str]:
    """Returns the reason and the message for a file that is not a source, by its name."""
    suffix = posixpath.splitext(file)[1].lower()
    if suffix in _PACKED_SUFFIXES:
        return "not_a_picture", "a compressed file, by its name: unpack it first"
    if suffix in LIST_SUFFIXES:
        return "not_a_picture", f"a {suffix} in a folder is not read: if it is a list, give it as a source of its own"
    if suffix in UNREAD_SUFFIXES:
        return "unsupported", f"pictures in the format {suffix} are not read: convert it to JPEG, PNG or TIFF"
    return "not_a_picture", f"its name does not end in {', '.join(PICTURE_SUFFIXES)}"


def _why_not_a_file(path: str) -> str:
    """Returns the reason why there is no regular file at a local path."""
    if os.path.exists(path):
        return "not a regular file"
    return "a link to no file" if os.path.islink(path) else "there is no such file"
