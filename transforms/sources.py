"""Finds photographs: in folders with all that is in them, globs, files, lists, tars, web pages and APIs.

Nothing found is dropped in silence: what is no photograph is a ``Reject`` of stage ``find``. Only the inventory tables
of folders are neither, because they are read.
"""

import csv
import io
import os
import posixpath
from collections.abc import Iterable
from dataclasses import dataclass, field

from fsspec import AbstractFileSystem
from fsspec.core import has_magic
from fsspec.implementations.local import LocalFileSystem

from model.errors import InputError
from transforms.archives import TAR_SUFFIX, read_archive
from transforms.lists import LIST_SUFFIXES, PICTURE_SUFFIXES, read_list
from transforms.manners import Manners
from transforms.records import Photograph, Reject
from transforms.storage import filesystem, read_bytes
from transforms.web import find_on_web, is_on_web

INVENTORY_NAMES = ("inventory.tsv", "inventory.csv", "ATTRIBUTION.tsv", "ATTRIBUTION.csv")


@dataclass
class Found:
    """What there is at some sources."""

    photographs: list[Photograph] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)


def find_photographs(sources: Iterable[str], out: str, manners: Manners, depth: int) -> Found:
    """Lists every photograph at the sources once, sorted.

    Args:
        sources: folders (recursive), globs, single files, lists and WebDataset tars, as paths or URLs; web pages, which
            are crawled; ``commons:Category:NAME`` and ``flickr:group/ID``.
        out: where the data set will be; what lies there is no source.
        manners: how servers are treated.
        depth: how many links are followed from a web page.

    Raises:
        InputError: a source does not exist, there is no photograph at all, or a list or inventory cannot be read.
    """
    sources = list(sources)
    search = _Search(filesystem(out)[1].rstrip("/") + "/")
    web = [source for source in sources if is_on_web(source)]
    for source in sources:
        if source not in web:
            for place in _expand(source):
                search.add(place)
    for item in find_on_web(web, manners, depth):
        search.add_item(item)
    found = search.found
    if not found.photographs:
        others = f" (there are {len(found.rejects)} other files)" if found.rejects else ""
        reason = f": {found.rejects[0].source}: {found.rejects[0].message}" if web and found.rejects else ""
        what = f"give files ending in {_suffixes()}" if not web else f"of {len(web)} on the web none has any{reason}"
        raise InputError(f"{', '.join(sources)}: no photographs{others}; {what}")
    found.photographs.sort(key=lambda photograph: photograph.source)
    found.rejects.sort(key=lambda reject: reject.source)
    return found


def _expand(source: str) -> list[str]:
    """The files and folders that a source means: itself, or a glob's matches."""
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
    """Gathers what is found, each file once however many sources lead to it."""

    def __init__(self, out_path: str) -> None:
        self.found = Found()
        self._out_path = out_path
        self._seen: set[str] = set()
        self._inventories: dict[str, dict[str, tuple[str | None, str | None]]] = {}

    def add(self, place: str) -> None:
        """Adds a file, or all files of a folder."""
        fs, path = filesystem(place)
        if not fs.isdir(path):
            if place.lower().endswith((*LIST_SUFFIXES, TAR_SUFFIX)):
                for item in read_archive(place) if place.endswith(TAR_SUFFIX) else read_list(place, read_bytes(place)):
                    self.add_item(item)
            else:
                self._add_photograph(fs, place, None)
            return
        root = place.rstrip("/") or "/"
        files = self._walk(path, root) if isinstance(fs, LocalFileSystem) else _list(fs, path, root)
        for file in files:
            if posixpath.basename(file) in INVENTORY_NAMES:
                continue
            if file.lower().endswith(PICTURE_SUFFIXES):
                self._add_photograph(fs, file, root)
            elif file.lower().endswith(TAR_SUFFIX):
                self.add(file)
            else:
                self._reject(file, "not_a_picture", f"its name does not end in {_suffixes()}")

    def add_item(self, item: Photograph | Reject) -> None:
        """Adds what a list, a tar or the web names."""
        try:
            if not self._is_new(item.source):
                return
        except InputError as error:  # of a kind that is not known here
            item = Reject(item.source, "find", "bad_url", str(error))
        if isinstance(item, Reject):
            self.found.rejects.append(item)
        else:
            self.found.photographs.append(item)

    def _add_photograph(self, fs: AbstractFileSystem, file: str, root: str | None) -> None:
        if isinstance(fs, LocalFileSystem):
            if not _is_utf8(file):
                self._reject(file, "unreadable", "its name is not UTF-8: rename it")
                return
            if not os.path.isfile(file_path := filesystem(file)[1]):
                what = "a link that leads to no file" if os.path.islink(file_path) else "not a regular file"
                self._reject(file, "unreadable", what)
                return
        if self._is_new(file):
            self.found.photographs.append(Photograph(file, *self._credit(file, root)))

    def _reject(self, file: str, reason: str, message: str) -> None:
        if self._is_new(file):
            shown = os.fsencode(file).decode("utf-8", "backslashreplace")
            self.found.rejects.append(Reject(shown, "find", reason, message))

    def _is_new(self, file: str) -> bool:
        path = file if is_on_web(file) else filesystem(file)[1]
        if path in self._seen or path.startswith(self._out_path):
            return False
        self._seen.add(path)
        return True

    def _walk(self, path: str, root: str) -> list[str]:
        """Every file below a local folder; linked folders are followed once, however the links run."""
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
        """Licence and author of a file, by the inventory of its folder or else of the source folder."""
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
    """Every file below a folder of an object store."""
    base = path.rstrip("/")
    return sorted(posixpath.join(root, name[len(base) :].lstrip("/")) for name in fs.find(base))


def _read_inventory(folder: str) -> dict[str, tuple[str | None, str | None]]:
    """Licence and author by file name, from the first inventory table in a folder; nothing where there is none."""
    for name in INVENTORY_NAMES:
        url = posixpath.join(folder, name)
        fs, path = filesystem(url)
        if not fs.isfile(path):
            continue
        try:
            text = io.StringIO(read_bytes(url).decode("utf-8-sig"))
        except UnicodeDecodeError:
            raise InputError(f"{url} is not UTF-8: save it as UTF-8, or rename it") from None
        tabs = url.endswith(".tsv")
        rows = csv.DictReader(text, dialect="excel-tab", quoting=csv.QUOTE_NONE) if tabs else csv.DictReader(text)
        columns = rows.fieldnames or []
        if "file" not in columns:
            raise InputError(f"{url} has no column 'file': give it file, license and author, or rename it")
        licence = "licence" if "licence" in columns else "license"
        return {row["file"]: (row.get(licence) or None, row.get("author") or None) for row in rows}
    return {}


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _suffixes() -> str:
    return ", ".join(PICTURE_SUFFIXES)
