"""Render requests: rectangles of worlds to render, and the files that list them."""

import dataclasses
import itertools
import json
import logging
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache, cached_property
from types import NoneType
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

from model.bundled import BUNDLED
from model.checks import is_integer
from model.errors import InputError, one_line
from model.geometry import LIMIT
from model.world.definition import FUSION_PX, LOCAL_TRUNCATION, Definition, Edit, Journey, Style, default_fusion_px
from model.world.scale import SCALES, base_definition, base_journey
from transforms.formats.registry import caution, check_format
from transforms.storage.delimited import is_decodable, read_records, stream_lines
from transforms.storage.files import exists, open_atomic, write_bytes
from transforms.storage.json_text import read_json_text
from transforms.storage.paths import absolute
from transforms.storage.retry import retried
from transforms.storage.tables import local_copy
from transforms.storage.text import clean_text, printable
from transforms.storage.urls import check_scheme, redact

ID_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,200}")

INTEGERS = ("seed", "width_px", "height_px", "origin_x_px", "origin_y_px", "fusion_px", "scale")
JSON_FIELDS = ("styles", "edits", "overlays", "truncation", "journey", "local_truncation")

REQUEST_SUFFIXES = (".jsonl", ".csv", ".parquet")
"""The ends of the names of files of requests."""

MOST_REQUESTS = 1_000_000
"""The most requests in a file."""

LONGEST_REASON = 1000
"""The number of characters kept of the reason why a row is refused."""

_ROWS_AT_ONCE, _BUFFER_BYTES = 1000, 1 << 18

_WHOLE_NUMBER = re.compile(r"([+-]?[0-9]{1,20})(\.0*)?")
_PANDAS_INDEX = re.compile(r"__index_level_[0-9]+__")


@dataclass(frozen=True, kw_only=True)
class RenderRequest:
    """A request for a panorama.

    Attributes:
        id: the name of its files.
        seed: the seed of the world, 0 to 2^64 - 1.
        width_px: its width.
        height_px: its height.
        origin_x_px: the world pixel of its left edge.
        origin_y_px: the world pixel of its top edge; by default the horizon runs through its middle.
        cyclic: whether its right end meets its left.
        styles: the styles of the world, with their centres; by default the single style of its seed.
        fusion_px: the side of the box over which styles blend; by default about half the distance of a journey's
            styles, and otherwise 127.
        edits: the boxes that are drawn again.
        overlays: the paths or URLs of the overlays in the world.
        paste_px: the width over which their photographs are blended in; None to leave them out.
        checkpoint: the URL of the generator; None for the bundled one.
        formats: the files to make, of `formats.FORMATS`.
        truncation: how far styles are from the average one, as a share of what they were drawn as.
        journey: the styles of a journey, in place of `styles`.
        scale: the resolution, of `SCALES`: the number of pixels along each side of a pixel of the generator. All other
            fields in pixels are in pixels of the panorama.
        local_truncation: the factor of the local latents beyond the photographs' frame.

    Raises:
        InputError: a value is out of range.
    """

    id: str
    seed: int
    width_px: int
    height_px: int
    origin_x_px: int = 0
    origin_y_px: int | None = None
    cyclic: bool = False
    styles: tuple[Style, ...] = ()
    fusion_px: int | None = None
    edits: tuple[Edit, ...] = ()
    overlays: tuple[str, ...] = ()
    paste_px: int | None = None
    checkpoint: str | None = None
    formats: tuple[str, ...] = ("png",)
    truncation: float = 1.0
    journey: Journey | None = None
    scale: int = 1
    local_truncation: float = LOCAL_TRUNCATION

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not ID_PATTERN.fullmatch(self.id):
            raise InputError(f"request id {self.id!r}: use 1 to 200 of the characters A-Z a-z 0-9 _ -")
        if not is_integer(self.scale) or self.scale not in SCALES:
            raise InputError(f"request {self.id}: scale is {self.scale!r}; choose {', '.join(map(str, SCALES))}")
        self._fill_in()
        for name in INTEGERS:
            if not is_integer(getattr(self, name)):
                raise InputError(f"request {self.id}: {name} is {getattr(self, name)!r}; it must be a whole number")
        if not isinstance(self.cyclic, bool):
            raise InputError(f"request {self.id}: cyclic is {self.cyclic!r}; it must be true or false")
        for side, origin, size in (("width_px", *self.columns), ("height_px", *self.rows)):
            if size - origin < 0:
                raise InputError(f"request {self.id}: {side} is {size - origin + 1}; it must be at least 1")
            if not -LIMIT < origin <= size < LIMIT:
                raise InputError(
                    f"request {self.id}: {side} {size - origin + 1} from pixel {origin} leaves the world, whose "
                    f"positions are below {LIMIT}; ask for a smaller panorama or another origin"
                )
        if self.cyclic and self.width_px % self.scale:
            raise InputError(
                f"request {self.id}: width_px is {self.width_px}; at scale {self.scale} a cyclic panorama needs a "
                f"multiple of {self.scale}"
            )
        self._check_definition()
        self._check_files()

    def _check_definition(self) -> None:
        try:
            self.definition  # noqa: B018 - it checks itself
        except InputError as error:
            unit = "" if self.scale == 1 else f" (in pixels of the world at scale 1, {self.scale} px wide each)"
            raise InputError(f"request {self.id}: {error}{unit}") from None

    def _fill_in(self) -> None:
        """Sets the defaults that depend on other fields, and gives a truncation of 0 or 1 its one JSON form."""
        if self.origin_y_px is None:
            object.__setattr__(self, "origin_y_px", -(self.height_px // 2) if is_integer(self.height_px) else 0)
        if self.fusion_px is None:
            journey = self.journey
            if isinstance(journey, Journey):
                journey = base_journey(journey, self.scale)
            object.__setattr__(self, "fusion_px", default_fusion_px(journey) * self.scale)
        for name in ("truncation", "local_truncation"):
            value = getattr(self, name)
            if is_integer(value) and value in (0, 1):
                object.__setattr__(self, name, float(value))

    def _check_files(self) -> None:
        if self.checkpoint is not None and not (isinstance(self.checkpoint, str) and self.checkpoint):
            raise InputError(f"request {self.id}: checkpoint is {self.checkpoint!r}; it must be a path or URL")
        if not isinstance(self.formats, tuple) or not all(isinstance(name, str) for name in self.formats):
            raise InputError(f"request {self.id}: formats is {self.formats!r}; give a list of names, such as png")
        if not self.formats:
            raise InputError(f"request {self.id}: formats is empty; name at least one, such as png")
        for name in self.formats:
            check_format(name, self.width_px, self.height_px)

    @cached_property
    def definition(self) -> Definition:
        """The world that it is a window of, in pixels of the generator."""
        assert self.fusion_px is not None
        own = Definition(
            self.seed,
            self.turn_px,
            self.styles,
            self.fusion_px if self.scale == 1 else FUSION_PX,
            self.edits,
            self.overlays,
            self.paste_px,
            self.truncation,
            self.journey,
            self.local_truncation,
        )
        return own if self.scale == 1 else base_definition(own, self.fusion_px, self.scale)

    @property
    def turn_px(self) -> int | None:
        """The number of its pixels after which a cyclic world repeats; None if it does not."""
        return self.width_px if self.cyclic else None

    @cached_property
    def rows(self) -> tuple[int, int]:
        """The first and last world pixel, downwards."""
        assert self.origin_y_px is not None
        return self.origin_y_px, self.origin_y_px + self.height_px - 1

    @cached_property
    def columns(self) -> tuple[int, int]:
        """The first and last world pixel, to the right."""
        return self.origin_x_px, self.origin_x_px + self.width_px - 1

    def to_json(self) -> dict[str, Any]:
        """Returns the request as JSON values."""
        values: dict[str, Any] = to_plain(self)
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "RenderRequest":
        """Restores a request from JSON values.

        Raises:
            InputError: a field is unknown, missing or out of range.
        """
        if is_integer(values.get("id")):
            values = {**values, "id": str(values["id"])}
        name = f"request {values['id']!r}" if values.get("id") is not None else "request without an id"
        return cls(**fields_from_json(cls, values, name))


def fields_from_json(cls: type, values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Returns the fields of a dataclass that JSON values give, each as the type that the class declares for it.

    Raises:
        InputError: a field is unknown or missing, or, within styles and edits, out of range.
    """
    types = declared_types(cls)
    unknown = sorted(set(values) - set(types))
    if unknown:
        raise InputError(f"{name}: unknown field {unknown[0]!r}; there are {', '.join(sorted(types))}")
    given = {key: from_json(types[key], value, f"{name}: {key}") for key, value in values.items() if value is not None}
    for needed in needed_fields(cls):
        if needed not in given:
            raise InputError(f"{name}: {needed} is missing")
    return given


@cache
def needed_fields(cls: type) -> tuple[str, ...]:
    """Returns the fields of a dataclass that have no default."""
    return tuple(one.name for one in dataclasses.fields(cls) if one.default is dataclasses.MISSING)


@cache
def declared_types(cls: type) -> dict[str, Any]:
    """Returns the type of each field of a dataclass, without None."""
    types = get_type_hints(cls)
    return {
        name: next((kind for kind in get_args(hint) if get_args(hint)[-1] is NoneType), hint)
        for name, hint in types.items()
    }


def from_json(kind: Any, value: Any, name: str) -> Any:
    """Returns a JSON value as a type: lists become tuples, objects dataclasses, and 512.0 is the integer 512.

    Parquet also has decimals, and text as bytes.

    A value that does not fit the type stays as it is; the class that takes it names what is wrong.
    """
    if get_origin(kind) is tuple and isinstance(value, list):
        return tuple(from_json(get_args(kind)[0], item, name) for item in value)
    if isinstance(value, Decimal):
        value = int(value) if value == int(value) else float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if kind is str and isinstance(value, bytes):
        return clean_text(value)
    return object_from_json(kind, value, name) if kind in (Style, Edit, Journey) else value


def object_from_json(kind: type, values: Any, name: str) -> Any:
    """Returns a style, an edit or a journey from its JSON values.

    Raises:
        InputError: a field is unknown, missing or out of range.
    """
    if not isinstance(values, dict):
        raise InputError(f"{name}: {str(values)[:60]!r} is not an object with fields")
    try:
        return kind(**fields_from_json(kind, values, name))
    except InputError as error:
        message = str(error)
        raise InputError(message if message.startswith(name) else f"{name}: {message}") from None


def to_plain(value: Any) -> Any:
    """Returns a value of a request as JSON: dataclasses become objects, and tuples lists."""
    kind: type = type(value)
    if kind in (tuple, list):
        return [to_plain(inner) for inner in value]
    if kind in (RenderRequest, Style, Edit, Journey):
        return {name: to_plain(getattr(value, name)) for name in declared_types(kind)}
    return value


@dataclass(frozen=True, slots=True)
class Refused:
    """A row of a request file that cannot be rendered.

    Attributes:
        id: the row's id; None if it is missing or invalid.
        reason: the reason.
    """

    id: str | None
    reason: str

    def __post_init__(self) -> None:
        text = printable(redact(" ".join(self.reason.split())))
        object.__setattr__(self, "reason", text if len(text) <= LONGEST_REASON else text[:LONGEST_REASON] + "…")


def refused_by(error: Exception, request_id: Any) -> Refused:
    """Returns the refusal of a row for an error; an unforeseen error is also logged with its traceback."""
    name = request_id if isinstance(request_id, str) and ID_PATTERN.fullmatch(request_id) else None
    if isinstance(error, InputError):
        return Refused(name, str(error))
    logging.getLogger(__name__).error("internal error at request %s", name, exc_info=error)
    return Refused(name, f"internal error, {type(error).__name__}: {error}")


class Row(NamedTuple):
    """A row of a file of requests.

    Attributes:
        number: its place in the file, from 1.
        values: its JSON values, or why they cannot be read.
    """

    number: int
    values: Any


@dataclass(frozen=True, slots=True)
class RequestFile:
    """A file of requests.

    Attributes:
        url: the URL of a .jsonl, .csv or .parquet file. It also decides where the checkpoints and overlays may be that
            the rows name.
        defaults: the JSON values of fields that a row does not give.
        folder: the folder to which paths in the rows are relative; empty to leave such paths as they are.
        name: the name of the file in the manifest; empty for the last part of its URL.
        stored_at: the URL at which workers read the file, if it is a copy. Requests that are not from a file have only
            this one.
        secrets: URLs with passwords or tokens, by their redacted forms in the copy.
    """

    url: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    folder: str = ""
    name: str = ""
    stored_at: str = ""
    secrets: Mapping[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The name of the file in the manifest; empty for requests that are not from a file."""
        return printable(self.name or posixpath.basename(self.url))

    def rows(self) -> Iterator[Row]:
        """Yields the rows.

        Raises:
            InputError: as `read_rows` does.
        """
        return itertools.starmap(Row, enumerate(read_rows(self.stored_at or self.url), start=1))

    def parse(self, values: Any) -> RenderRequest | Refused:
        """Returns the request of a row, or why it is refused."""
        if self.secrets:
            values = with_secrets(values, self.secrets)
        request = parse(values, self.url or None, self.defaults)
        return absolute_files(request, self.folder) if self.folder and isinstance(request, RenderRequest) else request

    def place(self, number: int | str) -> str:
        """Returns a name for a row that has no id of its own; it is never a valid id."""
        return f"{self.label}, request {number}".removeprefix(", ")


def store_requests(url: str, requests: Iterable[RenderRequest]) -> RequestFile:
    """Writes requests that are not from a file to a .jsonl, from which workers get equal ones.

    Secrets are not written. If two URLs differ only in these, either opens the file.
    """
    secrets: dict[str, str] = {}
    with open_atomic(url) as file:
        for request in requests:
            for place in places(request):
                if redact(place) != place:
                    secrets[redact(place)] = place
            file.write(json.dumps(without_secrets(request.to_json())).encode() + b"\n")
    return RequestFile("", stored_at=url, secrets=secrets)


def cautions(request: RenderRequest) -> Iterator[str]:
    """Yields warnings about the files that a request asks for."""
    remarks = (caution(name, request.width_px, request.height_px) for name in request.formats)
    return filter(None, remarks)


def places(request: RenderRequest) -> Iterator[str]:
    """Yields the paths and URLs in a request."""
    yield from (request.checkpoint or BUNDLED, *request.definition.overlay_names)


def with_secrets(value: Any, secrets: Mapping[str, str]) -> Any:
    """Returns a JSON value with redacted URLs in full again."""
    if isinstance(value, dict):
        return {key: with_secrets(inner, secrets) for key, inner in value.items()}
    if isinstance(value, list):
        return [with_secrets(inner, secrets) for inner in value]
    return secrets.get(value, value) if isinstance(value, str) else value


def absolute_files(request: RenderRequest, folder: str) -> RenderRequest:
    """Returns a request with the paths of its checkpoint and overlays in full."""
    styles = tuple(
        dataclasses.replace(style, overlay=absolute(style.overlay, folder)) if style.overlay else style
        for style in request.styles
    )
    overlays = tuple(absolute(path, folder) for path in request.overlays)
    checkpoint = request.checkpoint
    if checkpoint and checkpoint != BUNDLED:
        checkpoint = absolute(checkpoint, folder)
    if (styles, overlays, checkpoint) == (request.styles, request.overlays, request.checkpoint):
        return request
    return dataclasses.replace(request, styles=styles, overlays=overlays, checkpoint=checkpoint)


def list_requests(url: str, defaults: Mapping[str, Any] | None = None) -> list[RenderRequest | Refused]:
    """Reads the rows of a .jsonl, .csv or .parquet file; each becomes a request or a refusal.

    In CSV the first line names the fields, an empty value means the default, formats are separated by spaces, and
    styles, edits, overlays and journey are JSON.

    Args:
        url: the URL of the file.
        defaults: the JSON values of fields that a row does not give.

    Raises:
        InputError: as `read_rows` does.
    """
    return [parse(row, url, defaults or {}) for row in read_rows(url)]


def read_rows(url: str) -> Iterator[Any]:
    """Yields the rows of a .jsonl, .csv or .parquet file: JSON values or refusals. A few are in memory at a time.

    Raises:
        InputError: the file is missing or cannot be read, or has no rows or too many.
    """
    if not retried(exists, url):
        raise InputError(f"--requests {url}: there is no such file")
    try:
        with local_copy(url) as path:
            yield from parse_rows(url, path)
    except OSError as error:
        raise InputError(f"--requests {url} cannot be read: {one_line(error)}") from None


def parse_rows(url: str, path: str) -> Iterator[Any]:
    """Yields the rows of a file: JSON values or refusals.

    Args:
        url: the URL of the file.
        path: the path of the file, or of a copy of it.

    Raises:
        InputError: the file is not of a known kind, is damaged, or has no rows or too many.
    """
    readers = dict(zip(REQUEST_SUFFIXES, (read_jsonl, read_csv, read_parquet), strict=True))
    suffix = next((suffix for suffix in readers if url.lower().endswith(suffix)), None)
    if suffix is None:
        raise InputError(f"--requests {url}: give a file named {', '.join('*' + suffix for suffix in readers)}")
    count = 0
    try:
        for row in itertools.islice(readers[suffix](path), MOST_REQUESTS + 1):
            count += 1
            yield row
    except (ValueError, OverflowError, OSError, pa.ArrowException) as error:
        raise InputError(f"--requests {url} cannot be read as {suffix[1:]}: {one_line(error)}") from None
    if count == 0:
        raise InputError(f"--requests {url} lists no requests")
    if count > MOST_REQUESTS:
        raise InputError(f"--requests {url} lists more than {MOST_REQUESTS} requests; cut it into several files")


def read_requests(url: str) -> list[RenderRequest]:
    """Reads the requests of a file, as `list_requests` does.

    Raises:
        InputError: the file cannot be read, a request in it is invalid, or two have the same id.
    """
    requests = []
    for number, row in enumerate(list_requests(url), start=1):
        if isinstance(row, Refused):
            raise InputError(f"{url}, request {number}: {row.reason}")
        requests.append(row)
    check_ids(requests)
    return requests


def write_requests(url: str, requests: Iterable[RenderRequest]) -> None:
    """Writes a .jsonl of requests, atomically; fields that are not set are left out."""
    write_bytes(url, "".join(json.dumps(short(request), ensure_ascii=False) + "\n" for request in requests).encode())


def without_secrets(value: Any) -> Any:
    """Returns a JSON value with all URLs in it redacted."""
    if isinstance(value, dict):
        return {redact(key): without_secrets(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_secrets(inner) for inner in value]
    return redact(value) if isinstance(value, str) else value


def short(request: RenderRequest) -> dict[str, Any]:
    """Returns the JSON values of a request without empty ones and without secrets.

    A checkpoint whose URL holds a password or a token is left out; give it again with --checkpoint.
    """

    def set_only(values: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in values.items() if not (value is None or value is False or value == [])}

    values = set_only(without_secrets(request.to_json()))
    if values.get("checkpoint") != request.checkpoint:
        del values["checkpoint"]
    values |= {name: [set_only(part) for part in values[name]] for name in ("styles", "edits") if name in values}
    return values | {name: set_only(values[name]) for name in ("journey",) if name in values}


def parse(row: Any, url: str | None = "", defaults: Mapping[str, Any] | None = None) -> RenderRequest | Refused:
    """Parses one row of a request file, whose URL decides where the row's checkpoint and overlays may be.

    A URL of None is that of a caller who may name any.
    """
    if isinstance(row, Refused):
        return row
    if not isinstance(row, dict):
        return Refused(None, "it is not an object with fields")
    filled = {name: value for name, value in (defaults or {}).items() if row.get(name) is None}
    try:
        request = RenderRequest.from_json({**row, **filled})
        for place in (request.checkpoint or BUNDLED, *request.overlays):
            if place != BUNDLED and url is not None:
                check_scheme(place, url)
        return request
    except Exception as error:  # a fault of one row must not end the others' work
        return refused_by(error, row.get("id"))


def occurs_twice(request_id: str) -> str:
    """Returns why a request is refused whose id an earlier one has."""
    return f"request id {request_id} occurs twice; each panorama needs its own"


def check_ids(requests: Iterable[RenderRequest]) -> None:
    """Raises InputError if two requests have the same id."""
    seen: set[str] = set()
    for request in requests:
        if request.id in seen:
            raise InputError(occurs_twice(request.id))
        seen.add(request.id)


def read_jsonl(path: str) -> Iterator[Any]:
    """Yields a JSON value per line, or a refusal if the line is invalid; empty lines are skipped."""
    with open(path, "rb") as file:
        for number, line in enumerate(stream_lines(file), start=1):
            try:
                if not is_decodable(line):
                    yield Refused(None, f"line {number} is not UTF-8")
                elif line.strip():
                    yield read_json_text(line)
            except ValueError as error:
                yield Refused(None, f"line {number} is not JSON that can be read: {one_line(error)}")


def read_csv(path: str) -> Iterator[Any]:
    """Yields a request per row, under a header; rows of empty fields are skipped."""
    with open(path, "rb") as file:
        records = read_records(stream_lines(file), ",")
        header = next(records, None)
        names = check_columns(header or [])
        for number, fields in enumerate(records, start=2):
            if fields is None:
                yield Refused(None, f"row {number} cannot be separated from the next: an open quotation mark")
            elif not all(map(is_decodable, fields)):
                yield Refused(None, f"row {number} is not UTF-8")
            elif any(fields):
                beyond = {"(beyond the header)": " ".join(fields[len(names) :])}
                yield fields_of(dict(zip(names, fields, strict=False)) | beyond)


def fields_of(cells: Mapping[str, str]) -> dict[str, Any]:
    """Returns the JSON values of a row of CSV."""
    row: dict[str, Any] = {name: text for name, text in cells.items() if text}
    row |= {name: whole_number(row[name]) for name in (*INTEGERS, "paste_px") if name in row}
    if "formats" in row:
        row["formats"] = row["formats"].split()
    row |= {name: json_value(row[name]) for name in JSON_FIELDS if name in row}
    if "cyclic" in row:
        row["cyclic"] = json_value(row["cyclic"].lower())
    return row


def check_columns(names: list[str]) -> list[str]:
    """Returns the names of a table's columns.

    Raises:
        ValueError: a name occurs twice.
    """
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"the column {twice!r} is given twice")
    return names


def whole_number(text: str) -> int | str:
    """Converts a text to an integer; other text is returned unchanged, and the request's own check reports it."""
    match = _WHOLE_NUMBER.fullmatch(text)
    return int(match[1]) if match else text


def json_value(text: str) -> Any:
    """Parses a text as JSON; other text is returned unchanged, and the request's own check reports it."""
    try:
        return read_json_text(text)
    except ValueError:
        return text


def read_parquet(path: str) -> Iterator[Any]:
    """Yields a request per row, with null for the default. The index column that pandas writes is ignored."""
    with pa.OSFile(path) as source:
        file = pq.ParquetFile(source, pre_buffer=False, buffer_size=_BUFFER_BYTES)  # as `tables.read_parts` does
        if file.metadata.num_rows > MOST_REQUESTS:
            raise ValueError(f"it has {file.metadata.num_rows} rows; at most {MOST_REQUESTS} are allowed")
        names = check_columns([name for name in file.schema_arrow.names if not _PANDAS_INDEX.fullmatch(name)])
        known = {field.name for field in dataclasses.fields(RenderRequest)}
        others = dict.fromkeys(name for name in names if name not in known)  # refused, so their values do not matter
        columns = [name for name in names if name in known]
        for batch in file.iter_batches(_ROWS_AT_ONCE, columns=columns, use_threads=False):
            for values in values_of(batch.select(columns)):
                yield values if isinstance(values, Refused) else {**values, **others}


def values_of(table: pa.RecordBatch) -> list[Any]:
    """Returns the rows of a table; a row with an unreadable value, such as a time in an unknown zone, is refused."""
    try:
        return table.to_pylist()
    except Exception:  # of any type, for any row
        if len(table) <= 1:
            return [Refused(None, "it has a value that cannot be read")]
    return [row for number in range(len(table)) for row in values_of(table.slice(number, 1))]
