"""The records that pass between the stages of ingest: photographs that were found, and rejects."""

import dataclasses
import hashlib
import traceback
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Final

from model.checks import is_count
from model.errors import one_line
from transforms.storage.byte_ranges import Piece
from transforms.storage.text import clean_text
from transforms.storage.urls import redact

INTERNAL: Final = "internal"
"""The reject reason for a fault of this program."""

FAULTS: dict[str, str] = {}
"""This process's tracebacks that are not on storage yet, by file name; one for each place in the code that failed.

``staging.write_faults`` stores them in the folder ``faults`` next to the training set.
"""


@dataclass(frozen=True, slots=True)
class Photograph:
    """A source that is taken for a photograph until it is opened.

    Attributes:
        source: its URL or path, which identifies it in all tables; passwords and tokens are removed.
        licence: the licence that its list, page, API or inventory states.
        author: the author, from the same place.
        title: the title, from the same place.
        piece: the place of its bytes, if they are not a separate file at ``source``.
        secret_url: the URL to request, if it holds a password or token. It is kept during the run and never stored.
    """

    source: str
    licence: str | None = None
    author: str | None = None
    title: str | None = None
    piece: Piece | None = None
    secret_url: str | None = None

    def __post_init__(self) -> None:
        _check_texts(self, "source", *(["secret_url"] if self.secret_url is not None else []))
        _clean(self, "source", "licence", "author", "title")
        shown = redact(self.source)
        if shown != self.source:
            object.__setattr__(self, "secret_url", self.source)
            object.__setattr__(self, "source", shown)

    @property
    def url(self) -> str:
        """The URL or path to read it from, including any secrets."""
        return self.secret_url or self.source

    def to_json(self) -> dict[str, Any]:
        """Returns the photograph as a JSON value; ``from_json`` reads it back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Photograph":
        """Restores a photograph from its JSON value."""
        piece = value["piece"]
        return cls(**{**value, "piece": Piece(**piece) if piece else None})

    def reject(self, stage: str, reason: str, message: str, attempts: int = 1) -> "Reject":
        """Returns the reject row for this photograph."""
        piece = self.piece
        return Reject(
            source=self.source,
            stage=stage,
            reason=reason,
            message=message,
            attempts=attempts,
            licence=self.licence,
            author=self.author,
            title=self.title,
            archive=piece.url if piece else None,
            archive_offset=piece.offset_bytes if piece else None,
            archive_size=piece.size_bytes if piece else None,
        )


def _check_texts(record: "Photograph | Reject", *names: str) -> None:
    """Raises TypeError if a field is not text, as in a damaged file."""
    for name in names:
        if not isinstance(getattr(record, name), str):
            raise TypeError(f"{name} is {getattr(record, name)!r}; it must be text")


def _clean(record: "Photograph | Reject", *names: str) -> None:
    for name in names:
        text = getattr(record, name)
        if text is not None:
            object.__setattr__(record, name, clean_text(text))


def internal_reject(item: "Photograph | str", stage: str, error: BaseException, attempts: int = 1) -> "Reject":
    """Returns the row of an item whose handling failed unexpectedly, and keeps its traceback in ``FAULTS``.

    Args:
        item: the photograph, or the source if it is not one.
        stage: the stage at which it failed.
        error: the error.
        attempts: the number of attempts.
    """
    photograph = item if isinstance(item, Photograph) else Photograph(clean_text(item))
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{PurePath(frame.filename).name}:{frame.lineno}" for frame in frames]
    name = hashlib.sha256(" ".join([type(error).__name__, *places]).encode()).hexdigest()[:12] + ".txt"
    text = redact("".join(traceback.format_exception(error)))
    FAULTS.setdefault(name, clean_text(f"First seen at {photograph.source}, stage {stage}\n\n{text}"))
    place = f" at {places[-1]}" if places else ""
    message = f"{type(error).__name__}{place}: {one_line(error)} (see faults/{name}; please report it)"
    return photograph.reject(stage, INTERNAL, clean_text(message), attempts)


@dataclass(frozen=True, slots=True)
class Reject:
    """A source that is not in the data set, with all that is needed to try it again.

    Attributes:
        source: its URL or path.
        stage: find, fetch, read, decode, frame, filter or deduplicate.
        reason: one stable word.
        message: the details of this case.
        attempts: the number of attempts.
        licence: the licence of the photograph.
        author: the author of the photograph.
        title: the title of the photograph.
        archive: the tar that contains the photograph, if any.
        archive_offset: the position of its first byte in the tar.
        archive_size: the number of its bytes in the tar.
    """

    source: str
    stage: str
    reason: str
    message: str
    attempts: int = 1
    licence: str | None = None
    author: str | None = None
    title: str | None = None
    archive: str | None = None
    archive_offset: int | None = None
    archive_size: int | None = None

    def __post_init__(self) -> None:
        _check_texts(self, "source", "stage", "reason", "message")
        if not is_count(self.attempts):
            raise TypeError(f"attempts is {self.attempts!r}; it must be a count")
        _clean(self, "source", "message", "licence", "author", "title")
        object.__setattr__(self, "source", redact(self.source))
        object.__setattr__(self, "message", redact(self.message))

    def photograph(self) -> Photograph:
        """Returns the photograph that was rejected."""
        piece = None
        if self.archive is not None and self.archive_offset is not None and self.archive_size is not None:
            piece = Piece(self.archive, self.archive_offset, self.archive_size)
        return Photograph(source=self.source, licence=self.licence, author=self.author, title=self.title, piece=piece)


class Rejection(Exception):  # noqa: N818 - not an error of the program, but an outcome
    """A photograph that cannot become a training image.

    Attributes:
        reason: one of the stable words that ``rejects.parquet`` and ``dataset.json`` count by.
        message: the details of this case.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message
