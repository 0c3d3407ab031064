import csv
import dataclasses
import io
import json
import os
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from model.errors import InputError
from model.geometry import LIMIT
from model.world.definition import Edit, Journey, Style
from transforms.panoramas.requests import (
    MOST_REQUESTS,
    Refused,
    RenderRequest,
    check_ids,
    list_requests,
    parse,
    read_requests,
    write_requests,
)

GOOD = {"id": "a", "seed": 7, "width_px": 300, "height_px": 200}
SUFFIXES = ("jsonl", "csv", "parquet")

ids = st.text("abcXYZ019_-", min_size=1, max_size=20)
sizes = st.integers(1, 10**6)
origins = st.integers(-(10**9), 10**9)
seeds = st.integers(0, 2**64 - 1)
positions = st.integers(-(2**31) + 2**17, 2**31 - 2**17)
boxes = st.tuples(positions, positions, st.integers(1, 500), st.integers(1, 500))
styles = st.builds(Style, seed=seeds, texture_seed=st.none() | seeds, x_px=positions, y_px=positions) | st.builds(
    Style, z_g=st.lists(st.floats(-9, 9), min_size=1, max_size=4).map(tuple), x_px=positions, y_px=positions
)
edits = st.builds(
    Edit,
    box_px=boxes,
    seed=seeds,
    fields=st.sampled_from([("z_l",), ("noise", "z_l")]),
    like_box_px=st.none() | boxes,
) | st.builds(Edit, box_px=boxes, seed=seeds, fields=st.just(("noise",)))
journeys = st.builds(
    Journey,
    every_px=st.integers(4096, 10**9),
    seed=st.none() | st.integers(0, 2**63 - 1),
    dimensions=st.sampled_from([1, 2]),
)
requests = st.builds(
    RenderRequest,
    id=ids,
    seed=seeds,
    width_px=sizes,
    height_px=sizes,
    cyclic=st.booleans(),
    styles=st.lists(styles, max_size=3, unique_by=lambda style: style.y_px).map(tuple),
    fusion_px=st.integers(0, 2047).map(lambda half: 2 * half + 1),
    origin_x_px=origins,
    origin_y_px=st.none() | origins,
    checkpoint=st.none() | st.sampled_from(["gs://bucket/x.safetensors", "a b\u2028c.safetensors"]),
    formats=st.sampled_from([("png",), ("tif",), ("png", "tif"), ("tif", "png")]),
    truncation=st.sampled_from([1.0, 1, 0, 0.7]),
    local_truncation=st.sampled_from([1.0, 1, 0, 0.7]),
)
requests |= st.builds(
    lambda request, journey: dataclasses.replace(request, styles=(), journey=journey), requests, journeys
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def write(path, rows):
    """Writes the rows to a file, in the format of the path's suffix."""
    if path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    elif path.suffix == ".parquet":
        names = dict.fromkeys(name for row in rows for name in row)
        pq.write_table(pa.Table.from_pylist([{name: row.get(name) for name in names} for row in rows]), path)
    else:
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in as_cells(row))))
            writer.writeheader()
            writer.writerows(as_cells(row) for row in rows)
    return str(path)


def as_cells(row):
    """Returns a row with formats as words, and lists of objects as JSON."""
    as_json = {name: json.dumps(row[name]) for name in ("styles", "edits", "journey") if row.get(name)}
    return {**row, "styles": "", "edits": "", "journey": "", **as_json, "formats": " ".join(row.get("formats") or [])}


def refused(function, *arguments, **keywords):
    """Returns the message for a wrong value, which must be one line."""
    with pytest.raises(InputError) as caught:
        function(*arguments, **keywords)
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


def answer(function, argument):
    """Returns the message for a wrong value; empty for a right one. No other exception is allowed."""
    try:
        assert function(argument)
    except InputError as error:
        return str(error)
    return ""


@given(requests, st.lists(edits, max_size=3).map(tuple))
def test_a_request_survives_json(request, edits):
    request = dataclasses.replace(request, cyclic=False, edits=edits)
    assert RenderRequest.from_json(json.loads(json.dumps(request.to_json()))) == request


def test_fields_get_their_one_json_form():
    request = RenderRequest.from_json({**GOOD, "truncation": 0, "journey": {"every_px": 4096.0}})
    assert request.to_json()["truncation"] == 0.0
    assert RenderRequest.from_json({**GOOD, "scale": 4.0}).to_json()["scale"] == 4
    assert request.to_json()["journey"] == {"every_px": 4096, "seed": None, "dimensions": 1}


@pytest.mark.parametrize(("every_px", "fusion_px"), [(256, 127), (1000, 499), (4096, 2047), (10**6, 2047)])
def test_a_journey_blends_over_half_its_distance_by_default(every_px, fusion_px):
    assert RenderRequest(**GOOD, journey=Journey(every_px=every_px)).fusion_px == fusion_px
    assert RenderRequest(**GOOD, journey=Journey(every_px=every_px), fusion_px=31).fusion_px == 31
    assert RenderRequest(**GOOD).fusion_px == 127


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"truncation": 2}, "request a: truncation is 2; it must be a number from 0 to 1.5"),
        ({"truncation": "much"}, "request a: truncation is 'much'"),
        ({"local_truncation": -1}, "request a: local_truncation is -1; it must be a number from 0 to 1.5"),
        ({"journey": 4096}, "journey: '4096' is not an object with fields"),
        ({"journey": {"every_px": 10}}, "journey: every_px is 10; it must be from 256 to"),
        ({"journey": {"seed": 1}}, "every_px is missing"),
        ({"journey": {"every_px": 300, "speed": 1}}, "unknown field 'speed'"),
        ({"journey": {"every_px": 300}, "styles": [{"seed": 1}]}, "styles and a journey are both given; remove one"),
    ],
)
def test_a_wrong_truncation_or_journey_is_named(values, said):
    assert said in refused(RenderRequest.from_json, {**GOOD, **values})


@pytest.mark.parametrize("scale", [4, 16])
def test_a_request_at_a_scale_is_for_the_world_of_its_base(scale):
    """All that it gives is in its own pixels, and its defaults give the same world as at scale 1."""
    plain = RenderRequest(**GOOD, journey=Journey(every_px=1024), paste_px=8)
    scaled = RenderRequest(**GOOD, journey=Journey(every_px=1024 * scale), paste_px=8 * scale, scale=scale)
    assert scaled.definition == plain.definition
    edit = Edit(box_px=(-scale, 0, 2 * scale, scale), seed=1)
    scaled = RenderRequest(**GOOD, styles=(Style(seed=1, x_px=9 * scale),), edits=(edit,), scale=scale)
    base = Edit(box_px=(-1, 0, 2, 1), seed=1)
    assert scaled.definition == RenderRequest(**GOOD, styles=(Style(seed=1, x_px=9),), edits=(base,)).definition
    circle = RenderRequest(**{**GOOD, "width_px": 1600 * scale}, cyclic=True, scale=scale)
    assert (circle.turn_px, circle.definition.cyclic_px) == (1600 * scale, 1600)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"scale": 2}, "request a: scale is 2; choose 1, 4, 16"),
        ({"scale": "4"}, "request a: scale is '4'; choose 1, 4, 16"),
        ({"scale": True}, "request a: scale is True; choose 1, 4, 16"),
        (
            {"scale": 4, "cyclic": True, "width_px": 1602},
            "width_px is 1602; at scale 4 a cyclic panorama needs a multiple",
        ),
        ({"scale": 4, "journey": {"every_px": 400}}, "every_px is 100; it must be from 256 to"),
        ({"scale": 4, "styles": "abc"}, "styles is 'abc'; it must be a list of styles"),
        ({"scale": 4, "paste_px": "8"}, "paste_px is '8'"),
        ({"scale": 4, "fusion_px": 0}, "fusion_px is 0; it must be"),
    ],
)
def test_a_wrong_value_at_a_scale_is_named(values, said):
    assert said in refused(RenderRequest.from_json, {**GOOD, **values})


def largest_seed(request):
    return max([request.seed, *(seed or 0 for style in request.styles for seed in (style.seed, style.texture_seed))])


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=25)
@given(requests=st.lists(requests, min_size=1, max_size=4, unique_by=lambda request: request.id))
def test_requests_survive_a_file(suffix, requests, tmp_path_factory):
    if suffix == "parquet":  # whose integers have one type per column
        requests = [r for r in requests if largest_seed(r) < 2**63] or [RenderRequest(**GOOD)]
    path = tmp_path_factory.mktemp("requests") / f"r.{suffix}"
    rows = [request.to_json() for request in requests]
    assert read_requests(write(path, rows)) == requests


def test_a_column_of_large_seeds_is_read(tmp_path):
    table = pa.table({**{k: [v] for k, v in GOOD.items()}, "seed": pa.array([2**64 - 1], pa.uint64())})
    pq.write_table(table, tmp_path / "r.parquet")
    assert read_requests(str(tmp_path / "r.parquet"))[0].seed == 2**64 - 1


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_left_out_is_the_default(suffix, tmp_path):
    (request,) = read_requests(write(tmp_path / f"r.{suffix}", [{**GOOD, "origin_x_px": None, "formats": None}]))
    assert request == RenderRequest(**GOOD)
    assert (request.origin_x_px, request.origin_y_px, request.formats) == (0, -100, ("png",))


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_by_default_a_taller_panorama_contains_a_shorter_one(one, other):
    low, high = (RenderRequest(**{**GOOD, "height_px": height}).rows for height in sorted((one, other)))
    assert high[0] <= low[0] <= low[1] <= high[1]


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("id", "", "request id ''"),
        ("id", "a/b", "request id 'a/b'"),
        ("id", "../up", "request id '../up'"),
        ("id", "a\nb", "request id 'a\\nb'"),
        ("id", "x" * 201, "use 1 to 200"),
        ("id", 5.5, "request id 5.5"),
        ("id", True, "request id True"),
        ("id", ["a"], "request id ['a']"),
        ("seed", -1, "seed is -1; it must be from 0 to 2^64 - 1"),
        ("seed", 2**64, f"seed is {2**64}"),
        ("seed", "12", "seed is '12'; it must be a whole number"),
        ("seed", True, "seed is True; it must be a whole number"),
        ("seed", [7], "seed is [7]; it must be a whole number"),
        ("width_px", 0, "width_px is 0; it must be at least 1"),
        ("width_px", -5, "width_px is -5; it must be at least 1"),
        ("width_px", 10**12, "width_px 1000000000000 from pixel 0 leaves the world"),
        ("width_px", 300.5, "width_px is 300.5; it must be a whole number"),
        ("width_px", float("nan"), "width_px is nan; it must be a whole number"),
        ("height_px", 0, "height_px is 0; it must be at least 1"),
        ("height_px", -5, "height_px is -5; it must be at least 1"),
        ("height_px", 10**12, "height_px 1000000000000 from pixel -500000000000 leaves the world"),
        ("height_px", "200", "height_px is '200'; it must be a whole number"),
        ("height_px", {"px": 200}, "height_px is {'px': 200}; it must be a whole number"),
        ("origin_x_px", LIMIT - 299, f"leaves the world, whose positions are below {LIMIT}"),
        ("origin_x_px", -LIMIT, "leaves the world"),
        ("origin_y_px", LIMIT, "leaves the world"),
        ("origin_y_px", 10**4000, "leaves the world"),
        ("origin_y_px", False, "origin_y_px is False; it must be a whole number"),
        ("origin_x_px", "left", "origin_x_px is 'left'; it must be a whole number"),
        ("formats", ["pgn"], "format 'pgn' is unknown: did you mean png?"),
        ("formats", [], "formats is empty; name at least one, such as png"),
        ("formats", "png", "formats is 'png'; give a list of names, such as png"),
        ("formats", 5, "formats is 5; give a list"),
        ("formats", {"png": 1}, "give a list"),
        ("formats", ["png", 5], "give a list"),
        ("formats", [["png"]], "give a list"),
        ("checkpoint", 5, "checkpoint is 5; it must be a path or URL"),
        ("checkpoint", "", "checkpoint is ''; it must be a path or URL"),
        ("checkpoint", ["x"], "checkpoint is ['x']"),
        ("colour", "red", "unknown field 'colour'; there are checkpoint, cyclic,"),
        ("cyclic", "yes", "cyclic is 'yes'; it must be true or false"),
        ("fusion_px", 4, "fusion_px is 4; it must be an odd number from 1 to 4095"),
        ("fusion_px", 1.5, "fusion_px is 1.5; it must be a whole number"),
        ("styles", {"seed": 1}, "styles is {'seed': 1}; it must be a list"),
        ("styles", [5], "styles: '5' is not an object with fields"),
        ("styles", [{"x_px": 3}], "styles: a style needs a seed, z_g"),
        ("styles", [{"seed": 1, "z_g": [0.5]}], "styles: a style needs a seed, z_g"),
        ("styles", [{"z_g": [0.5, "x"]}], "styles: z_g is (0.5, 'x'); give a list of finite numbers"),
        ("styles", [{"seed": 1, "overlay": "u"}], "styles: a style needs a seed, z_g or overlay"),
        ("styles", [{"overlay": 3}], "styles: overlay is 3"),
        ("styles", [{"seed": 1, "y_px": 2**31}], f"styles: y_px is {2**31}; its magnitude must be below"),
        ("styles", [{"seed": 1}, {"seed": 2}], "two styles have the same centre"),
        ("edits", [{"seed": 1}], "edits: box_px is missing"),
        ("edits", [{"seed": 1, "box_px": [0, 0, 5]}], "edits: box_px is (0, 0, 5); give x, y, width and height"),
        ("edits", [{"seed": 1, "box_px": [0, 0, 5, 0]}], "edits: box_px is [0, 0, 5, 0]; its width and height must"),
        ("edits", [{"seed": -1, "box_px": [0, 0, 5, 5]}], "edits: seed is -1"),
        (
            "edits",
            [{"seed": 1, "box_px": [0, 0, 5, 5], "fields": ["z_n"]}],
            "fields is ('z_n',); name some of z_l, noise",
        ),
        ("edits", [{"seed": 1, "box_px": [0, 0, 5, 5], "like_box_px": [0, 0, 10**6, 5]}], "its sides must be 16384 px"),
        ("overlays", "x", "overlays is 'x'"),
        ("overlays", [""], "give a path or URL"),
        ("overlays", ["x", "x"], "names one file twice"),
        ("paste_px", -1, "paste_px is -1"),
        ("paste_px", 0.5, "paste_px is 0.5"),
        ("id", None, "id is missing"),
        ("seed", None, "seed is missing"),
        ("width_px", None, "width_px is missing"),
        ("height_px", None, "height_px is missing"),
    ],
)
def test_a_wrong_value_is_named(field, value, said):
    assert said in refused(RenderRequest.from_json, {**GOOD, field: value})


def test_the_limits_of_the_world_are_within_it():
    for field, value in (("origin_x_px", LIMIT - 300), ("origin_x_px", -LIMIT + 1), ("seed", 2**64 - 1), ("seed", 0)):
        assert getattr(RenderRequest.from_json({**GOOD, field: value}), field) == value


@settings(max_examples=100)
@given(st.dictionaries(st.sampled_from([*GOOD, "origin_x_px", "formats", "checkpoint", "x"]), json_values))
@example({**GOOD, "formats": "png"})
def test_any_json_object_is_a_request_or_refused(values):
    for fields in (values, {**GOOD, **values}):
        assert "\n" not in answer(RenderRequest.from_json, fields)


def test_two_requests_of_one_id_are_refused(tmp_path):
    assert refused(check_ids, [RenderRequest(**GOOD)] * 2) == "request id a occurs twice; each panorama needs its own"
    assert "occurs twice" in refused(read_requests, write(tmp_path / "r.jsonl", [GOOD, GOOD]))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("r.jsonl", b"", "lists no requests"),
        ("r.jsonl", b"\n \n", "lists no requests"),
        ("r.csv", b"", "lists no requests"),
        ("r.csv", b"id,seed,width_px,height_px\n", "lists no requests"),
        ("r.parquet", b"", "cannot be read as parquet"),
        ("r.parquet", b"PAR1 but no more PAR1", "cannot be read as parquet"),
        ("r.jsonl", b'{"id": "a"\n', "request 1: line 1 is not JSON"),
        ("r.jsonl", json.dumps(GOOD).encode() + b"\n\nnot json\n", "line 3 is not JSON"),
        ("r.jsonl", b"[" * 100_000, "request 1: line 1 is not JSON"),
        ("r.jsonl", b"[1, 2]\n", "request 1: it is not an object with fields"),
        ("r.jsonl", b"null\n", "request 1: it is not an object with fields"),
        ("r.jsonl", b'{"seed": 1' + b"0" * 5000 + b"}", "request 1: line 1 is not JSON"),
        ("r.jsonl", b"\xff\xfe{}", "request 1: line 1 is not JSON"),
        ("r.jsonl", b'{"id": "\xe9"}', "request 1: line 1 is not UTF-8"),
        ("r.csv", b"id,seed\n\xff\xfe,1\n", "request 1: row 2 is not UTF-8"),
        ("r.csv", b"id,seed,width_px,height_px,seed\na,1,64,64,99\n", "the column 'seed' is given twice"),
        ("r.csv", b'id,seed,width_px,height_px\n"a,1,64,64\n', "row 2 cannot be separated from the next"),
        ("r.csv", b"id,seed,width_px,height_px\na,7,3OO,200\n", "request a: width_px is '3OO'; it must be a whole"),
        ("r.csv", b"id,seed,width_px,height_px\na,7,300.5,200\n", "request a: width_px is '300.5'; it must be a whole"),
        ("r.csv", b"id,seed,width_px,height_px\na,7,300,200,9,9\n", "unknown field '(beyond the header)'"),
        ("r.csv", b"id,seed,width_px,height_px\na,7\n", "request 'a': width_px is missing"),
        ("r.csv", b"id,seed,width_px,height_px,formats\na,7,300,200,png gif\n", "format 'gif' is unknown"),
        ("r.csv", b'id\n"' + b"x" * 200_000 + b'"\n', "request 'xxx"),
        ("r.json", b"{}", "give a file named *.jsonl, *.csv, *.parquet"),
        ("r", b"{}", "give a file named *.jsonl, *.csv, *.parquet"),
    ],
)
def test_a_wrong_file_is_named(name, content, said, tmp_path):
    (tmp_path / name).write_bytes(content)
    message = refused(read_requests, str(tmp_path / name))
    assert str(tmp_path / name) in message
    assert said in message


def test_files_that_are_not_there_are_named(tmp_path):
    assert "there is no such file" in refused(read_requests, str(tmp_path / "none.jsonl"))
    (tmp_path / "folder.csv").mkdir()
    assert "folder.csv cannot be read" in refused(read_requests, str(tmp_path / "folder.csv"))
    assert "foo://x.jsonl" in refused(read_requests, "foo://x.jsonl")
    os.mkfifo(tmp_path / "pipe.jsonl")
    assert "it is a device, pipe or socket" in refused(read_requests, str(tmp_path / "pipe.jsonl"))


def test_a_parquet_file_cut_short_is_named(tmp_path):
    whole = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([GOOD] * 50), whole)
    for size in range(0, len(whole.getvalue()), 97):
        (tmp_path / "r.parquet").write_bytes(whole.getvalue()[:size])
        assert "cannot be read as parquet" in refused(read_requests, str(tmp_path / "r.parquet"))


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_what_spreadsheets_write_is_read(line_end, tmp_path):
    header = "id,seed,width_px,height_px,formats,"
    text = line_end.join([header, 'a, 7 ,300,200,"png tif",', "b,0,1,1,,", ""])
    (tmp_path / "r.csv").write_bytes(text.encode("utf-8-sig"))
    assert read_requests(str(tmp_path / "r.csv")) == [
        RenderRequest(**GOOD, formats=("png", "tif")),
        RenderRequest(id="b", seed=0, width_px=1, height_px=1),
    ]
    (tmp_path / "r.jsonl").write_bytes(line_end.join([json.dumps(GOOD), "", ""]).encode("utf-8-sig"))
    assert read_requests(str(tmp_path / "r.jsonl")) == [RenderRequest(**GOOD)]


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=60)
@given(content=st.binary(max_size=60) | st.text(max_size=40).map(str.encode))
@example(content=b"id,seed,width_px,height_px\n\x00")
@example(content=b"id,id,seed,width_px,height_px\na,b,1,2,3")
def test_any_bytes_are_requests_or_refused(suffix, content, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / f"any.{suffix}"
    path.write_bytes(content)
    assert "\n" not in answer(read_requests, str(path))


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@settings(max_examples=60)
@given(row=st.dictionaries(st.sampled_from([*GOOD, "formats", "origin_x_px"]), json_values, min_size=1))
def test_any_row_is_a_request_or_refused(suffix, row, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / f"row.{suffix}"
    try:
        write(path, [{**GOOD, **row}])
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):
        return  # such a file cannot hold the value
    assert "\n" not in answer(read_requests, str(path))


def test_written_requests_are_read_back(tmp_path):
    requests = [
        RenderRequest(id="plain", seed=0, width_px=64, height_px=64),
        RenderRequest(
            id="all",
            seed=1,
            width_px=64,
            height_px=64,
            cyclic=True,
            styles=(Style(seed=0), Style(overlay="o", x_px=9)),
            edits=(Edit(box_px=(0, 0, 5, 5), seed=0),),
            overlays=("o",),
            paste_px=0,
        ),
    ]
    url = str(tmp_path / "requests.jsonl")
    write_requests(url, requests)
    assert read_requests(url) == requests


@pytest.mark.parametrize("field", ["checkpoint", "overlays"])
@pytest.mark.parametrize(
    ("listed_at", "place", "allowed"),
    [
        ("/r.jsonl", "/c.safetensors", True),
        ("/r.jsonl", "gs://bucket/c.safetensors", True),
        ("/r.jsonl", "https://h/c.safetensors", True),
        ("/r.jsonl", "webhdfs://127.0.0.1/c.safetensors", False),
        ("/r.jsonl", "ftp://u:S3CRET@h/c.safetensors", False),
        ("https://h/r.jsonl", "https://h/c.safetensors", True),
        ("https://h/r.jsonl", "/etc/passwd", False),
        ("https://h/r.jsonl", "file:///etc/passwd", False),
        ("gs://bucket/r.jsonl", "/etc/passwd", False),
    ],
)
def test_a_file_of_requests_leads_only_where_its_place_allows(field, listed_at, place, allowed):
    row = {"id": "p", "seed": 1, "width_px": 64, "height_px": 64, field: place if field == "checkpoint" else [place]}
    request = parse(row, listed_at)
    assert isinstance(request, RenderRequest) is allowed
    assert "S3CRET" not in repr(request)
    assert isinstance(parse({**row, field: "bundled" if field == "checkpoint" else []}, listed_at), RenderRequest)


PLAIN = {"seed": 1, "width_px": 64, "height_px": 64}
DEEP = "[" * 900 + "]" * 900
ROWS_BESIDE_GOOD_ONES = [
    b'{"id": "bad", "seed": 1, "seed": 2, "width_px": 64, "height_px": 64}',
    b'{"id": "bad", "seed": 1, "width_px": 64, "height_px": 64, "checkpoint": "\\ud800", "formats": ["\\udfff"]}',
    b'{"id": "\\ud83d", "seed": 1, "width_px": 64, "height_px": 64}',
    b'{"id": "bad", "\\ud83d": 1}',
    b'{"id": "bad", "seed": 1, "width_px": 64, "height_px": 64, "edits": ' + DEEP.encode() + b"}",
    b'{"id": ' + DEEP.encode() + b"}",
    b"[" * 100_000,
    b'{"id": "bad", "seed": 1, "width_px": 64, "height_px": 64, "edits": [{"seed": 1, "box_px": [1, 0, %s, 5]}]}'
    % (b"9" * 4300),
    b'{"id": "bad", "seed": 1, "width_px": 64, "height_px": 64, "edits": [{"seed": 1, "box_px": ["a", 0, 16, 16]}]}',
    b'{"id": "bad", "seed": 1, "width_px": 1e999, "height_px": 64}',
    b'{"id": "bad", "seed": 1, "width_px": NaN, "height_px": 64}',
    b"\xff\xfe\x00",
    b"\x00",
]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_a_bad_row_ends_no_other(line_end, tmp_path):
    good = [json.dumps({"id": name, **PLAIN}).encode() for name in "ab"]
    (tmp_path / "r.jsonl").write_bytes(line_end.join([good[0], *ROWS_BESIDE_GOOD_ONES, good[1], b""]))
    first, *bad, last = list_requests(str(tmp_path / "r.jsonl"))
    assert (first, last) == tuple(RenderRequest(id=name, **PLAIN) for name in "ab")
    assert len(bad) == len(ROWS_BESIDE_GOOD_ONES)
    for row in bad:
        assert isinstance(row, Refused)
        assert row.reason.isprintable()
        assert len(row.reason) < 1100
        assert "internal" not in row.reason
        row.reason.encode()


def test_characters_that_only_some_take_for_line_ends_are_none(tmp_path):
    row = {"id": "a", **PLAIN, "overlays": ["a\u2028b\x85c\x0bd"]}
    (tmp_path / "r.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n")
    (request,) = read_requests(str(tmp_path / "r.jsonl"))
    assert request.overlays == tuple(row["overlays"])


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_blank_rows_and_an_open_quotation_mark_cost_no_other_row(line_end, tmp_path):
    lines = ["id,seed,width_px,height_px,overlays", "a,1,64.0,64,", ",,,,", " , ,,,", '"b,1,64,64,', "c,1,64,64,"]
    (tmp_path / "r.csv").write_text(line_end.join(lines), newline="")
    a, b, c = list_requests(str(tmp_path / "r.csv"))
    assert [a, c] == [RenderRequest(id=name, **PLAIN) for name in "ac"]
    assert "quotation mark" in b.reason


def test_a_long_field_is_read(tmp_path):
    styles = [{"z_g": [float(number) for number in range(40_000)]}]
    with open(tmp_path / "r.csv", "w", newline="") as file:
        csv.writer(file).writerows([["id", *PLAIN, "styles"], ["a", *PLAIN.values(), json.dumps(styles)]])
    (row,) = list_requests(str(tmp_path / "r.csv"))
    assert "cannot be read" not in str(row)
    assert isinstance(row, RenderRequest) or "z_g" in row.reason


def test_whole_numbers_may_be_written_as_decimal_ones(tmp_path):
    values = {"seed": 1.0, "width_px": 64.0, "height_px": 64.0, "origin_x_px": -3.0}
    edits = [{"seed": 1.0, "box_px": [1.0, 0.0, 16, 16]}]
    (tmp_path / "r.jsonl").write_text(json.dumps({"id": "a", **values, "edits": edits}))
    (tmp_path / "r.csv").write_text("id,seed,width_px,height_px,origin_x_px\na,1.0,64.,64.00,-3.0\n")
    pq.write_table(pa.Table.from_pylist([{"id": "a", **values}]), tmp_path / "r.parquet")
    wanted = RenderRequest(id="a", **PLAIN, origin_x_px=-3)
    for suffix in ("csv", "parquet"):
        assert read_requests(str(tmp_path / f"r.{suffix}")) == [wanted]
    (request,) = read_requests(str(tmp_path / "r.jsonl"))
    assert dataclasses.replace(request, edits=()) == wanted
    assert all(type(number) is int for number in request.edits[0].box_px)


def test_odd_columns_of_parquet(tmp_path):
    path = str(tmp_path / "r.parquet")
    good = {"id": ["a"], **{name: [value] for name, value in PLAIN.items()}}
    nowhere = pa.array([1], pa.timestamp("us", tz="No/Where"))
    pq.write_table(pa.table({**good, "__index_level_0__": [0]}), path)
    assert read_requests(path) == [RenderRequest(id="a", **PLAIN)]
    pq.write_table(pa.table({**good, "when": nowhere}), path)
    assert "unknown field 'when'" in refused(read_requests, path)
    pq.write_table(pa.table({**good, "seed": nowhere}), path)
    assert "request 1: it has a value that cannot be read" in refused(read_requests, path)
    pq.write_table(pa.Table.from_arrays([pa.array([1])] * 2, ["seed", "seed"]), path)
    assert "the column 'seed' is given twice" in refused(read_requests, path)
    rows = pa.DictionaryArray.from_arrays(pa.array(np.zeros(MOST_REQUESTS + 1, np.int32)), ["a"])
    pq.write_table(pa.table({"id": rows}), path)
    assert "1000001 rows; at most 1000000 are allowed" in refused(read_requests, path)


def test_types_of_other_programs_parquet_are_understood(tmp_path):
    numbers = {name: pa.array([Decimal(value)], pa.decimal128(38, 2)) for name, value in PLAIN.items()}
    for identity in (pa.array([7]), pa.array([b"7"]), pa.array(["7"]).dictionary_encode()):
        pq.write_table(pa.table({"id": identity, **numbers, "truncation": [Decimal("0.5")]}), tmp_path / "r.parquet")
        assert read_requests(str(tmp_path / "r.parquet")) == [RenderRequest(id="7", **PLAIN, truncation=0.5)]


def test_no_secret_is_written_down(tmp_path):
    request = RenderRequest(
        id="a",
        **PLAIN,
        checkpoint="https://alice:S3CRET@host/c.safetensors?token=T0KEN",
        overlays=("https://host/o.safetensors?sig=S1G",),
        styles=(Style(overlay="https://host/o.safetensors?sig=S1G"),),
    )
    write_requests(str(tmp_path / "r.jsonl"), [request])
    text = (tmp_path / "r.jsonl").read_text()
    assert not [secret for secret in ("S3CRET", "T0KEN", "S1G") if secret in text]
    (again,) = read_requests(str(tmp_path / "r.jsonl"))
    assert again.checkpoint is None
    assert again.styles[0].overlay == again.overlays[0]


def test_defaults_are_for_rows_that_do_not_say(tmp_path):
    (tmp_path / "r.csv").write_text("id,seed,width_px,formats\na,1,64,tif\nb,,,\n")
    defaults = {"seed": 9, "width_px": 80, "height_px": 64, "formats": ["png"]}
    assert list_requests(str(tmp_path / "r.csv"), defaults) == [
        RenderRequest(id="a", **PLAIN, formats=("tif",)),
        RenderRequest(id="b", seed=9, width_px=80, height_px=64),
    ]


def test_an_error_of_ours_is_that_rows_reason(tmp_path, monkeypatch):
    def check_format(name, width_px, height_px):
        if name == "tif":
            raise ZeroDivisionError("oops")

    monkeypatch.setattr("transforms.panoramas.requests.check_format", check_format)
    rows = [{"id": "a", **PLAIN, "formats": ["tif"]}, {"id": "b", **PLAIN}]
    (tmp_path / "r.jsonl").write_text("\n".join(map(json.dumps, rows)))
    bad, good = list_requests(str(tmp_path / "r.jsonl"))
    assert bad == Refused("a", "internal error, ZeroDivisionError: oops")
    assert good.id == "b"
