"""What passes between the stages of ingest: a photograph that was found, and the row of one that is not in the set."""

import dataclasses
import hashlib
import traceback
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Final

from model.errors import one_line
from transforms.storage.byte_ranges import Piece
from transforms.storage.text import clean_text
from transforms.storage.urls import redact

INTERNAL: Final = "internal"
"""The reason of a reject that we could not deal with, for a fault of ours."""

FAULTS: dict[str, str] = {}
"""Tracebacks of this process that are not on storage yet, by file name; one for each place in the code that failed.

``staging.write_faults`` stores them in the folder ``faults`` beside the training set.
"""


@dataclass(frozen=True, slots=True)
class Photograph:
    """Something that is taken for a photograph until it is opened.

    Attributes:
        source: its URL or path, which names it in all tables; without passwords and tokens, whatever it is given.
        licence: as its list, page, API or inventory says.
        author: likewise.
        title: likewise.
        piece: where its bytes are, if they are not a file of their own at ``source``.
        secret_url: what is asked for, if that holds a password or token; known until the run ends, and to no table.
    """

    source: str
    licence: str | None = None
    author: str | None = None
    title: str | None = None
    piece: Piece | None = None
    secret_url: str | None = None

    def __post_init__(self) -> None:
        _clean(self, "source", "licence", "author", "title")
        shown = redact(self.source)
        if shown != self.source:
            object.__setattr__(self, "secret_url", self.source)
            object.__setattr__(self, "source", shown)

    @property
    def url(self) -> str:
        """Where it is, with all that is needed to get it from there."""
        return self.secret_url or self.source

    def to_json(self) -> dict[str, Any]:
        """Returns the photograph as JSON writes it; ``from_json`` reads it back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Photograph":
        """Reads a photograph from its JSON form."""
        piece = value["piece"]
        return cls(**{**value, "piece": Piece(**piece) if piece else None})

    def reject(self, stage: str, reason: str, message: str, attempts: int = 1) -> "Reject":
        """Returns the row that says why this photograph is not in the set."""
        piece = (self.piece.url, self.piece.offset_bytes, self.piece.size_bytes) if self.piece else (None, None, None)
        return Reject(self.source, stage, reason, message, attempts, self.licence, self.author, self.title, *piece)


def _clean(record: "Photograph | Reject", *names: str) -> None:
    for name in names:
        text = getattr(record, name)
        if text is not None:
            object.__setattr__(record, name, clean_text(text))


def internal_reject(item: "Photograph | str", stage: str, error: BaseException, attempts: int = 1) -> "Reject":
    """Returns the row of an item whose handling failed unexpectedly, and keeps its traceback in ``FAULTS``.

    Args:
        item: the photograph, or the source that is none.
        stage: what was being done with it.
        error: what happened.
        attempts: how often it was tried.
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
        message: what is wrong with this one.
        attempts: how often it was tried.
        licence: of the photograph.
        author: of the photograph.
        title: of the photograph.
        archive: the tar that the photograph is in, if it is in one.
        archive_offset: where in the tar its bytes begin.
        archive_size: how many bytes it has there.
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
        _clean(self, "source", "message", "licence", "author", "title")
        object.__setattr__(self, "source", redact(self.source))
        object.__setattr__(self, "message", redact(self.message))

    def photograph(self) -> Photograph:
        """Returns the photograph that was rejected."""
        piece = None
        if self.archive is not None and self.archive_offset is not None and self.archive_size is not None:
            piece = Piece(self.archive, self.archive_offset, self.archive_size)
        return Photograph(self.source, self.licence, self.author, self.title, piece)


class Rejection(Exception):  # noqa: N818 - not an error of the program, but an outcome
    """A photograph that cannot become a training image.

    Attributes:
        reason: one of the stable words that ``rejects.parquet`` and ``dataset.json`` count by.
        message: what is wrong with this one.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message
