"""Mutations of valid examples: of bytes, of text, of JSON, and of tables."""

import io
import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

DEEP = "[" * 3000 + "]" * 3000
ODD_TEXTS = (
    *("", " ", "\0", "\x1b[2J", "\ud800", "\udfff\ud83d", "\u2028", "\x85", "\ufeff", "ﬁ", "İ", "a\u0301", "٣", "²"),
    *("\r", "\n", '"', "'", "\\", ",", ";", "://", "::", "#", "?", "[", "]", "*", "%", "%00", "%2F", "../..", "/", "~"),
    *(
        "http://[",
        "http://[::1",
        "http://[]/",
        "http://a:b@c:99999/",
        "https://a..b/",
        "http://xn--/",
        "http://" + "a" * 70,
    ),
    *(
        "file:///etc/passwd",
        "ftp://a/b",
        "data:,",
        "//a",
        "http:a",
        "http://127.0.0.1:0/",
        "x" * 300,
        "<a ",
        "-->",
        "<![foo[",
    ),
    *("nan", "inf", "-0", "1e400", "1" * 5000, "0x10", "1_000", "null", "true", "é" * 40, "{}", "[]", "[1", '{"a":'),
)
ODD_VALUES = (
    *(None, True, False, 0, -1, 1, 2**31, 2**32, 2**63, 2**64, -(2**63), 10**30, 0.5, -0.0, 1e308, 5e-324),
    *(float("nan"), float("inf"), [], {}, [[]], {"": None}, [None], [{}], {"a": {"b": []}}, [0] * 50, "\ud800", ""),
)
NUMBERS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)


def mutate(random: Random, content: bytes) -> bytes:
    """Returns content with up to eight faults: bytes and numbers changed, parts cut, doubled or moved."""
    data = bytearray(content)
    for _ in range(random.randint(1, 8)):
        at, size = random.randrange(len(data) + 1), min(random.choice((1, 2, 4, 8, 64, 1024)), len(data))
        kind = random.choice(("byte", "number", "cut", "double", "move", "end"))
        if kind == "byte":
            data[at : at + 1] = random.randbytes(1)
        elif kind == "number":
            value = random.choice(NUMBERS)
            width = random.choice((2, 4))
            data[at : at + width] = (value & (256**width - 1)).to_bytes(width, random.choice(("big", "little")))
        elif kind == "cut":
            del data[at : at + size]
        elif kind == "double":
            data[at:at] = data[at : at + size] * random.choice((1, 1, 100))
        elif kind == "move":
            data[at:at] = data[random.randrange(len(data) + 1) :][:size]
        elif random.random() < 0.3:
            del data[at:]
    return bytes(data)


def mutate_text(random: Random, text: str, tokens: Sequence[str]) -> bytes:
    """Returns text with up to ten faults at the borders of its words.

    Tokens of its language and odd ones are put in, and parts are doubled, nested, moved or cut. One text in five also
    has changed bytes, and one in twenty another encoding.
    """
    borders = [0, *(i for i in range(1, len(text)) if text[i].isalnum() != text[i - 1].isalnum()), len(text)]
    for _ in range(random.randint(0, 10)):
        at, end = sorted((random.choice(borders), random.choice(borders)))
        end, token = min(end, at + 400), random.choice((*tokens, *ODD_TEXTS, str(random.choice(ODD_VALUES))))
        kind = random.choice(("insert", "insert", "replace", "double", "many", "move", "cut"))
        part = text[at:end]
        if kind == "insert":
            text = text[:at] + token + text[at:]
        elif kind == "replace":
            text = text[:at] + token + text[end:]
        elif kind == "double":
            text = text[:at] + part + text[at:]
        elif kind == "many":
            text = text[:at] + random.choice((token, part)) * random.choice((10, 300)) + text[at:]
        elif kind == "move":
            to = random.choice(borders)
            text = text[:to] + part + text[to:]
        else:
            text = text[:at] + text[end:]
        text = text[:100_000]
    encoding = random.choice(("utf-16", "utf-16-be", "latin-1", "utf-8-sig")) if random.random() < 0.05 else "utf-8"
    content = text.encode(encoding, "replace" if encoding == "latin-1" else "surrogatepass")
    return mutate(random, content) if random.random() < 0.2 else content


def mutate_value(random: Random, value: Any) -> Any:
    """Returns a JSON value with up to four of its parts changed, removed or renamed."""
    value = json.loads(json.dumps(value))
    for _ in range(random.randint(0, 4)):
        holders = [value, *_holders(value)]
        holder = random.choice([found for found in holders if isinstance(found, (dict, list)) and found] or [[0]])
        key = random.choice(list(holder)) if isinstance(holder, dict) else random.randrange(len(holder))
        kind = random.choice(("odd", "odd", "text", "near", "drop", "rename", "wrap"))
        if kind == "odd":
            holder[key] = deepcopy(random.choice(ODD_VALUES))
        elif kind == "text":
            holder[key] = random.choice(ODD_TEXTS)
        elif kind == "near":
            holder[key] = _near(random, holder[key])
        elif kind == "drop":
            del holder[key]
        elif kind == "rename" and isinstance(holder, dict):
            holder[random.choice((*ODD_TEXTS, *holder))] = holder.pop(key)
        else:
            holder[key] = random.choice(([holder[key]], {"a": holder[key]}))
    return value


def _holders(value: Any) -> list[Any]:
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return [found for item in inner if isinstance(item, (dict, list)) for found in (item, *_holders(item))]


def _near(random: Random, value: Any) -> Any:
    """Returns another value of the same type."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value * 2 if isinstance(value, (str, list)) else None
    return random.choice((value + 1, value - 1, -value, value * 2, float(value), str(value), value + 0.5))


def json_text(random: Random, value: Any) -> bytes:
    """Returns a JSON document of a value that may hold surrogates; now and then not quite JSON, or very deep."""
    text = json.dumps(value, ensure_ascii=random.random() < 0.5)
    if random.random() < 0.1:
        return mutate_text(random, text, ("{", "}", "[", "]", ":", ",", '"', "\\u", DEEP, "NaN", "1" * 5000, "1e999"))
    return text.encode("utf-8", "surrogatepass")


def mutate_table(random: Random, rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> bytes:
    """Returns a Parquet file of rows with odd values; some columns have other types or names."""
    names = list(schema.names)
    columns = {name: [_cell(random, row.get(name)) for row in rows] for name in names}
    arrays, found = [], []
    for name in names:
        if random.random() < 0.03:
            continue
        arrays.append(_array(random, columns[name], schema.field(name).type))
        found.append(random.choice((*names, *ODD_TEXTS[:10])) if random.random() < 0.03 else name)
    found = [name.encode("utf-8", "replace").decode() for name in found]
    table = pa.Table.from_arrays(arrays, names=found)
    if random.random() < 0.05:
        table = table.slice(0, random.randrange(len(table) + 1))
    buffer = io.BytesIO()
    options: dict[str, Any] = {"compression": random.choice(("none", "none", "snappy", "zstd"))}
    options |= {"use_dictionary": random.random() < 0.5, "data_page_version": random.choice(("1.0", "2.0"))}
    try:
        pq.write_table(table, buffer, **options)
    except (pa.ArrowException, ValueError):
        return b"PAR1"
    content = buffer.getvalue()
    return mutate(random, content) if random.random() < 0.3 else content


def _cell(random: Random, value: Any) -> Any:
    chance = random.random()
    if chance < 0.02:
        return None
    if chance < 0.06:
        return _near(random, value)
    if chance < 0.1:
        return deepcopy(random.choice((*ODD_TEXTS, *ODD_VALUES, b"\xff\xfe")))
    return value


def _array(random: Random, values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Returns a column: of its own type as far as its values fit it, and now and then of another."""
    others = (pa.string(), pa.large_string(), pa.binary(), pa.int8(), pa.uint64(), pa.float32(), pa.bool_(), pa.null())
    times = (pa.timestamp("ns", tz="Nowhere/Here"), pa.timestamp("us", tz="+25:00"), pa.date64(), pa.duration("s"))
    chosen = random.choice((*others, *times, pa.list_(kind), pa.decimal128(38, 10))) if random.random() < 0.05 else kind
    fitted = [_fit(value, chosen) for value in values]
    array = pa.array(fitted, chosen)
    if pa.types.is_string(chosen) and random.random() < 0.1:
        return array.dictionary_encode()
    if pa.types.is_string(chosen) and random.random() < 0.1:  # text that is not UTF-8
        broken = [
            None if text is None else text.encode() + random.choice((b"", b"\xff", b"\xed\xa0\x80")) for text in fitted
        ]
        plain = pa.array(broken, pa.binary())
        return pa.Array.from_buffers(pa.string(), len(plain), plain.buffers())
    return array


def _fit(value: Any, kind: pa.DataType) -> Any:
    """Returns a value that a column of a type can hold; null for one that it cannot."""
    candidates = (value, str(value).encode("utf-8", "replace").decode())
    for candidate in candidates:
        try:
            return pa.array([candidate], kind)[0].as_py() if not pa.types.is_timestamp(kind) else 1
        except (pa.ArrowException, TypeError, ValueError, OverflowError, KeyError):
            continue
    return None


def pack(files: Mapping[str, bytes]) -> bytes:
    """Packs several files into one input."""
    sizes = json.dumps({name: len(content) for name, content in files.items()})
    return sizes.encode() + b"\n" + b"".join(files.values())


def unpack(content: bytes) -> dict[str, bytes]:
    """Returns the files of an input."""
    sizes, _, rest = content.partition(b"\n")
    files = {}
    for name, size in json.loads(sizes).items():
        files[name], rest = rest[:size], rest[size:]
    return files
