"""Notes of the request files that a watch has handled, in the render folder, so that none is read again.

watched/<time>-<random>.txt    a line for each file: a checksum of its name and version, and its name

A note is never changed, so several workers may write them. When there are many, they are merged into one.
"""

import re
import time
import uuid
from collections.abc import Iterable
from typing import Final

from transforms.storage.files import join, list_files, read_bytes, remove, write_bytes
from transforms.storage.retry import retried
from transforms.storage.urls import redact

WATCHED: Final = "watched"
MOST_NOTES: Final = 64
"""The number of notes that are merged."""

_SUFFIX: Final = ".txt"
_LINE: Final = re.compile(r"([0-9a-f]{32}) ")


def write_note(out: str, files: Iterable[tuple[bytes, str]]) -> None:
    """Notes that files, given with the checksums of their versions, have been handled."""
    lines = [f"{digest.hex()} {' '.join(redact(url).split())}" for digest, url in files]
    _write(out, lines)


def _write(out: str, lines: Iterable[str]) -> None:
    url = join(out, WATCHED, f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}{_SUFFIX}")
    retried(write_bytes, url, "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"))


class Handled:
    """The files that have been handled, as far as the notes tell.

    Args:
        out: the folder of the job.
    """

    def __init__(self, out: str) -> None:
        self._out = out
        self._read: set[str] = set()
        self.digests: set[bytes] = set()

    def refresh(self) -> None:
        """Reads the notes that have been written since the last time."""
        names = set(self._names())
        for name in names - self._read:
            self.digests.update(digest for digest, _ in self._lines(name))
        self._read = names

    def tidy(self, there: set[bytes]) -> None:
        """Merges many notes into one, without the files that are gone; call it after `refresh`.

        Args:
            there: the checksums of all files that are still there.
        """
        names = self._names()
        if len(names) <= MOST_NOTES:
            return
        kept = {digest: line for name in names for digest, line in self._lines(name) if digest in there}
        _write(self._out, kept.values())
        for name in names:
            retried(remove, join(self._out, WATCHED, name))
        self.digests &= there

    def _names(self) -> list[str]:
        return [name for name in retried(list_files, join(self._out, WATCHED)) if name.endswith(_SUFFIX)]

    def _lines(self, name: str) -> Iterable[tuple[bytes, str]]:
        """Yields the lines of a note with their checksums; none if it has just been merged. Others are ignored."""
        try:
            content = retried(read_bytes, join(self._out, WATCHED, name))
        except FileNotFoundError:
            return
        for line in content.decode("utf-8", "replace").splitlines():
            match = _LINE.match(line)
            if match:
                yield bytes.fromhex(match[1]), line
