"""Finds photographs in folders (with all that they contain), globs, files, lists, tars, web pages and APIs.

Nothing that is found is dropped silently: anything but a photograph becomes a ``Reject`` of stage ``find``. The only
exception are the inventory tables of folders, because they are read.
"""

import os
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from fsspec import AbstractFileSystem
from fsspec.core import has_magic
from fsspec.implementations.local import LocalFileSystem

from model.errors import InputError, one_line
from transforms.sources.archives import TAR_SUFFIX, read_archive
from transforms.sources.lists import LIST_SUFFIXES, PICTURE_SUFFIXES, field_text, read_list
from transforms.sources.manners import Manners
from transforms.sources.web import find_on_web, is_on_web
from transforms.storage.delimited import is_decodable, read_lines, read_records
from transforms.storage.files import filesystem, read_bytes
from transforms.storage.urls import LOCAL, WEB, NotAllowedError, check_scheme, redact, scheme_of
from transforms.training_set.records import Photograph, Reject, internal_reject

INVENTORY_NAMES = ("inventory.tsv", "inventory.csv", "ATTRIBUTION.tsv", "ATTRIBUTION.csv")
_PACKED_SUFFIXES = (".gz", ".tgz", ".bz2", ".xz", ".zst", ".zip", ".7z", ".rar")
_OTHER_SUFFIXES = (".json", ".ndjson", ".xml", ".html", ".htm", ".xls", ".xlsx", ".pdf", ".md", ".tsv000", ".csv000")
"""The suffixes of files that are not taken for pictures even if they are named as a source."""

_SAME_STORE = {"gcs": "gs", "s3a": "s3", "abfss": "abfs"}


@dataclass
class Found:
    """The contents of some sources.

    Attributes:
        photographs: the photographs to process.
        rejects: the files and places that are not photographs.
        examined: the pages, lists, tars and folders that were read.
        mended: sources that an earlier run rejected and that are no longer rejected.
    """

    photographs: list[Photograph] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    examined: set[str] = field(default_factory=set)
    mended: set[str] = field(default_factory=set)

    def gone(self, rejects: Iterable[Reject]) -> set[str]:
        """Returns the sources that an earlier run rejected while finding, and that this run's places no longer name."""
        examined = {redact(place).rstrip("/") for place in self.examined}
        still = {reject.source for reject in self.rejects}
        return {
            reject.source
            for reject in rejects
            if reject.stage == "find"
            and reject.source not in still
            and not examined.isdisjoint(_holders(reject.source))
        }


def _holders(source: str) -> Iterator[str]:
    """Yields a source itself, and the lists, tars and folders that may contain it."""
    yield source.rstrip("/")
    yield from (source[:place].rstrip("/") for place, mark in enumerate(source) if mark in "#/")


def find_photographs(sources: Iterable[str], out: str, manners: Manners, depth: int) -> Found:
    """Lists every photograph at the sources once, sorted.

    Args:
        sources: folders (recursive), globs, single files, lists and WebDataset tars, as paths or URLs; web pages, which
            are crawled; ``commons:Category:NAME`` and ``flickr:group/ID``.
        out: the folder of the training set, whose contents are not sources.
        manners: the limits for requests to servers.
        depth: the number of links followed from a web page.

    Raises:
        InputError: a source does not exist or is of a kind that must not be opened, an inventory cannot be read, or
            there are no photographs.
    """
    sources = list(sources)
    web = [source for source in sources if is_on_web(source)]
    places = [place for source in sources if source not in web for place in _expand(source)]
    found = search(places, web, out, manners, depth)
    if not found.photographs:
        others = f" (there are {len(found.rejects)} other files)" if found.rejects else ""
        known = next(
            (
                f"{reject.source}: {reject.message.removeprefix(f'{reject.source}: ')}"
                for reject in found.rejects
                if reject.source in places or reject.reason != "not_a_picture"
            ),
            "",
        )
        reason = f": {found.rejects[0].source}: {found.rejects[0].message}" if web and found.rejects else ""
        what = known or f"give files ending in {_suffixes()}"
        raise InputError(
            redact(
                f"{', '.join(sources)}: no photographs{others}; "
                + (f"none of the {len(web)} web sources has any{reason}" if web else what)
            )
        )
    return found


def search(places: Iterable[str], web: Iterable[str], out: str, manners: Manners, depth: int) -> Found:
    """Searches files and folders, and sources on the web. The result is sorted and may be empty.

    Raises:
        InputError: an inventory cannot be read.
    """
    searched = _Search(_identity(out).rstrip("/") + "/")
    for place in places:
        searched.add(place)
    for item in find_on_web(web, manners, depth, searched.found.examined):
        searched.add_item(item)
    found = searched.found
    names = Counter(photograph.source for photograph in found.photographs)
    found.photographs = [_distinct(photograph, names) for photograph in found.photographs]
    found.photographs.sort(key=lambda photograph: photograph.source)
    found.rejects.sort(key=lambda reject: reject.source)
    return found


def _distinct(photograph: Photograph, names: Counter[str]) -> Photograph:
    """Returns the photograph, renamed if it is in a tar and others share the name that its metadata give."""
    piece = photograph.piece
    if piece is None or names[photograph.source] == 1:
        return photograph
    return replace(photograph, source=f"{piece.url}#{piece.offset_bytes}")


def can_retry(reject: Reject) -> bool:
    """Returns whether a rejected source can be tried again by itself."""
    return reject.stage != "find" or _place_of(reject) is not None


def find_again(rejects: Iterable[Reject], out: str, manners: Manners, depth: int) -> Found:
    """Looks again for sources that were rejected while finding; those that are still missing are rejected again."""
    places = {place for reject in rejects if reject.stage == "find" and (place := _place_of(reject))}
    web = sorted(filter(is_on_web, places))
    return search(sorted(places - set(web)), web, out, manners, depth)


def _place_of(reject: Reject) -> str | None:
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


class _Search:
    """Collects what is found, each file once, however many sources lead to it."""

    def __init__(self, out_path: str) -> None:
        self.found = Found()
        self._out_path = out_path
        self._seen: set[str] = set()
        self._read: set[str] = set()
        self._inventories: dict[str, dict[str, tuple[str | None, str | None]]] = {}

    def add(self, place: str) -> None:
        """Adds a file, or all files of a folder."""
        try:
            check_scheme(place)
        except NotAllowedError as error:  # for a table in the output folder, which anyone may have written
            self._reject(place, "not_allowed", str(error))
            return
        fs, path = filesystem(place)
        name = place.lower()
        if fs.isdir(path):
            self._add_folder(fs, path, place.rstrip("/") or "/")
        elif name.endswith((*LIST_SUFFIXES, TAR_SUFFIX)):
            self._add_contents(place)
        elif name.endswith((*_PACKED_SUFFIXES, *_OTHER_SUFFIXES)):
            self._reject(place, "not_a_picture", _what(place))
        else:
            self._add_photograph(fs, place, None)

    def add_item(self, item: Photograph | Reject) -> None:
        """Adds an item that a list, a tar or the web names."""
        if isinstance(item, Reject):
            if item.source not in self._seen:
                self._seen.add(item.source)
                self.found.rejects.append(item)
        elif self._is_new(item.source if item.piece is None else f"{item.piece.url}#{item.piece.offset_bytes}"):
            self.found.photographs.append(item)

    def _add_folder(self, fs: AbstractFileSystem, path: str, root: str) -> None:
        self.found.examined.add(root)
        files = self._walk(path, root) if isinstance(fs, LocalFileSystem) else _list(fs, path, root)
        for file in files:
            if posixpath.basename(file) in INVENTORY_NAMES:
                continue
            if file.lower().endswith(PICTURE_SUFFIXES):
                self._add_photograph(fs, file, root)
            elif file.lower().endswith(TAR_SUFFIX):
                self._add_contents(file)
            else:
                self._reject(file, "not_a_picture", _what(file))

    def _add_contents(self, place: str) -> None:
        """Adds the items that a list or a tar names. One that cannot be read is rejected; the other sources go on."""
        if not _is_utf8(place):
            self._reject(place, "unreadable", "its name is not UTF-8: rename it")
            return
        if _identity(place) in self._read or _identity(place).startswith(self._out_path):
            return
        self._read.add(_identity(place))
        self.found.examined.add(place)
        try:
            is_tar = place.lower().endswith(TAR_SUFFIX)
            for item in read_archive(place) if is_tar else read_list(place, read_bytes(place)):
                self.add_item(item)
        except InputError as error:
            self._reject(place, "unreadable", str(error).removeprefix(place).removeprefix(":").strip())
        except OSError as error:
            self._reject(place, "unreadable", error.strerror or one_line(error))
        except Exception as error:  # whatever it is, it concerns this file alone
            self.add_item(internal_reject(place, "find", error))

    def _add_photograph(self, fs: AbstractFileSystem, file: str, root: str | None) -> None:
        if isinstance(fs, LocalFileSystem):
            if not _is_utf8(file):
                self._reject(file, "unreadable", "its name is not UTF-8: rename it")
                return
            if not os.path.isfile(file_path := filesystem(file)[1]):
                what = "a link to no file" if os.path.islink(file_path) else "not a regular file"
                self._reject(file, "unreadable", what)
                return
        if self._is_new(file):
            self.found.photographs.append(Photograph(file, *self._credit(file, root)))

    def _reject(self, file: str, reason: str, message: str) -> None:
        if self._is_new(file):
            shown = os.fsencode(file).decode("utf-8", "backslashreplace")
            self.found.rejects.append(Reject(shown, "find", reason, message))

    def _is_new(self, file: str) -> bool:
        name = _identity(file)
        if name in self._seen or name.startswith(self._out_path):
            return False
        self._seen.add(name)
        return True

    def _walk(self, path: str, root: str) -> list[str]:
        """Returns every file below a local folder; linked folders are followed once, whatever loops the links form."""
        files: list[str] = []
        walked: set[str] = set()
        queue = [path]

        def below(file: str) -> str:
            return posixpath.join(root, os.path.relpath(file, path))

        def unlisted(error: OSError) -> None:
            self._reject(below(error.filename), "unreadable", f"the folder cannot be listed: {error.strerror}")

        while queue:
            links: list[str] = []
            for folder, folders, names in os.walk(queue.pop(0), onerror=unlisted):
                walked.add(os.path.realpath(folder))
                inner = [os.path.join(folder, name) for name in folders]
                links += [name for name in inner if os.path.islink(name)]
                files += [below(os.path.join(folder, name)) for name in names]
            # Linked folders come after all real ones, so that a photograph is found under its own name.
            for link in sorted(links):
                if os.path.realpath(link) in walked:
                    self._reject(below(link), "symlink_loop", f"leads to {os.path.realpath(link)}, listed already")
                else:
                    walked.add(os.path.realpath(link))
                    queue.append(link)
        return sorted(files)

    def _credit(self, file: str, root: str | None) -> tuple[str | None, str | None]:
        """Returns the licence and author of a file, by the inventory of its folder or else of the source folder."""
        folder, name = posixpath.split(file)
        credit = self._inventory(folder).get(name)
        if credit is None and root is not None:
            credit = self._inventory(root).get(posixpath.relpath(file, root))
        return credit or (None, None)

    def _inventory(self, folder: str) -> dict[str, tuple[str | None, str | None]]:
        if folder not in self._inventories:
            self._inventories[folder] = _read_inventory(folder)
        return self._inventories[folder]


def _list(fs: AbstractFileSystem, path: str, root: str) -> list[str]:
    """Returns every file below a folder of an object store."""
    base = path.rstrip("/")
    return sorted(posixpath.join(root, name[len(base) :].lstrip("/")) for name in fs.find(base))


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


def _suffixes() -> str:
    return ", ".join(PICTURE_SUFFIXES)


def _what(file: str) -> str:
    """Returns the reason why a file is not a source."""
    if file.lower().endswith(_PACKED_SUFFIXES):
        return "a compressed file, by its name: unpack it first"
    return f"its name does not end in {_suffixes()}"
