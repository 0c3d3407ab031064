"""JSON from outside sources, read as valid Unicode with numbers of bounded length."""

import json
from functools import cache
from typing import Any

from transforms.storage.text import clean_text

LONGEST_NUMBER = 40
"""The most digits of an integer. The largest number that anything here needs has twenty."""


def read_json_text(text: str | bytes) -> Any:
    """Parses a JSON text.

    Raises:
        ValueError: the text is not JSON, is nested too deeply, repeats a key, or has a number with too many digits.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode(json.detect_encoding(text), "surrogatepass")
        return _clean(_decoder().decode(text))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


@cache
def _decoder() -> json.JSONDecoder:
    return json.JSONDecoder(object_pairs_hook=_distinct, parse_int=_whole_number)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} is given twice")
    return values


def _whole_number(digits: str) -> int:
    if len(digits) > LONGEST_NUMBER:
        raise ValueError(f"a number has {len(digits)} digits; at most {LONGEST_NUMBER} are allowed")
    return int(digits)


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, list):
        return [_clean(inner) for inner in value]
    if isinstance(value, dict):
        return {clean_text(key): _clean(inner) for key, inner in value.items()}
    return value
