import csv
import io
import json
from contextlib import suppress

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import InputError
from transforms.sources import lists
from transforms.sources.lists import LONGEST_TEXT, read_list
from transforms.storage.delimited import LONGEST_RECORD_LINES
from transforms.training_set.records import Photograph, Reject

ROWS = [
    {"url": "https://a.org/1.jpg?x=1,2", "license": "CC0-1.0", "author": "Å. B", "title": "Lake, east"},
    {"url": "2.jpg", "license": None, "author": None, "title": None},
]
WANTED = [
    Photograph("https://a.org/1.jpg?x=1,2", "CC0-1.0", "Å. B", "Lake, east"),
    Photograph("/lists/2.jpg"),
]


def parquet(rows):
    return stored(pa.Table.from_pylist(rows))


def stored(table):
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


FORMS = {
    "a.csv": 'title,url,license,author\n"Lake, east","https://a.org/1.jpg?x=1,2",CC0-1.0,Å. B\n,2.jpg,,\n'.encode(),
    "a.tsv": b"url\tLicence\tAuthor\ttitle\n"
    + "https://a.org/1.jpg?x=1,2\tCC0-1.0\tÅ. B\tLake, east\n2.jpg\t\t\t\n".encode(),
    "a.jsonl": "\n".join(json.dumps(row) for row in ROWS).encode(),
    "a.parquet": parquet(ROWS),
    "bom.csv": "\ufeffURL,license,author,caption\n".encode()
    + '"https://a.org/1.jpg?x=1,2",CC0-1.0,Å. B,"Lake, east"\n2.jpg,,,\n'.encode(),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_kind_of_list_says_the_same(name):
    assert list(read_list(f"/lists/{name}", FORMS[name])) == WANTED


def test_a_text_has_a_url_a_line():
    content = b"# my photographs\nhttps://a.org/1.jpg\n\n  gs://b/2.jpg \r\nsub/3.jpg\n"
    sources = [photograph.source for photograph in read_list("https://b.org/l/a.txt", content)]
    assert sources == ["https://a.org/1.jpg", "gs://b/2.jpg", "https://b.org/l/sub/3.jpg"]


def test_rows_that_name_nothing_are_rejects_by_their_number():
    content = b'{"url": "a.jpg"}\n{"url": ""}\n{"title": "x"}\n{"url": 7}\n'
    first, *rest = read_list("l.jsonl", content)
    assert first.source == "a.jpg"
    assert [(row.source, row.reason) for row in rest] == [(f"l.jsonl#{number}", "bad_url") for number in (2, 3, 4)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"name\nx\n", "no 'url' column"),
        ("a.csv", b"", "no 'url' column"),
        ("a.csv", b"url\n\xff\n", "cannot be read as a list"),
        ("a.csv", b"url,title,url\na.jpg,A,b.jpg\n", "has the column 'url' twice"),
        ("a.jsonl", b"{", "cannot be read as a list"),
        ("a.jsonl", b"7\n", "cannot be read as a list"),
        ("a.parquet", b"PAR1", "cannot be read as a list"),
        ("a.parquet", parquet([{"x": 1}]), "no 'url' column"),
        ("a.parquet", stored(pa.table([["a"], ["b"]], ["url", "url"])), "has the column 'url' twice"),
        ("a.txt", "a.jpg\nb.jpg".encode("utf-16-le"), "row 1: it is not UTF-8"),
        ("a.csv", "url\nb.jpg".encode("utf-32"), "no 'url' column"),
    ],
)
def test_what_is_no_list_is_refused_in_one_line(name, content, message):
    with pytest.raises(InputError, match=message) as caught:
        list(read_list(name, content))
    assert "\n" not in str(caught.value)


def sources_and_rejects(name, content):
    items = list(read_list(name, content))
    return [i.source for i in items if isinstance(i, Photograph)], [
        (i.source, i.reason) for i in items if isinstance(i, Reject)
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.tsv", "a.jsonl"])
def test_three_kinds_of_line_ends_end_a_row_and_nothing_else_does(name, end):
    title = "x\u2028y\u0085z\x1c\x0b"
    heads = {"a.csv": "url,title", "a.tsv": "url\ttitle"}
    rows = {"a.txt": "1.jpg", "a.csv": f"1.jpg,{title}|", "a.tsv": f"1.jpg\t{title}|"}
    row = rows.get(name, json.dumps({"url": "1.jpg", "title": title + "|"}, ensure_ascii=False))
    content = end.join([*([heads[name]] if name in heads else []), row, row.replace("1.jpg", "2.jpg"), ""])
    items = list(read_list(name, content.encode()))
    assert [item.source for item in items] == ["1.jpg", "2.jpg"]
    if name != "a.txt":
        assert items[0].title == title + "|"


def test_a_broken_row_of_json_costs_itself_alone():
    deep = b'{"url": "x.jpg", "title": ' + b"[" * 100_000 + b"\n"
    twice = b'{"url": "x.jpg", "url": "y.jpg"}\n'
    content = b'{"url": "a.jpg"}\n' + deep + b"7\n" + twice + b'{"url": "\xff.jpg"}\n{"url": "b.jpg"}\n{"url": "c'
    assert sources_and_rejects("l.jsonl", content) == (
        ["a.jpg", "b.jpg"],
        [(f"l.jsonl#{number}", "bad_row") for number in (2, 3, 4, 5, 7)],
    )


def test_what_is_wrong_with_a_row_of_json_is_said():
    content = b'{"url": "a.jpg"}\n{"url": "b.jpg", "id": 1' + b"0" * 5000 + b'}\n{"author": "A", "author": "B"}\n'
    _, digits, twice = read_list("l.jsonl", content)
    assert "a number has 5001 digits" in digits.message
    assert "the key 'author' is given twice" in twice.message


def test_a_quotation_mark_that_is_not_closed_swallows_nothing():
    content = b'title,url\nA,a.jpg\n"B,b.jpg\nC,c.jpg\n"D, east",d.jpg\n"E\neast",e.jpg\n'
    items = list(read_list("l.csv", content))
    assert [item.source for item in items] == ["a.jpg", "l.csv#2", "c.jpg", "d.jpg", "e.jpg"]
    assert (items[1].reason, items[4].title) == ("bad_row", "E\neast")
    tabs = b'url\ttitle\na.jpg\t"Golden hour\nb.jpg\tB\nc.jpg\tThe "best" lake\nd.jpg\tD"\ne.jpg\t"E, ""e"""\n'
    titles = ['"Golden hour', "B", 'The "best" lake', 'D"', 'E, "e"']
    assert [item.title for item in read_list("l.tsv", tabs)] == titles


def test_a_quotation_mark_that_is_closed_far_below_swallows_nothing_either():
    rows = "".join(f"T,{number}.jpg\n" for number in range(LONGEST_RECORD_LINES))
    items = list(read_list("l.csv", f'title,url\n"A,a.jpg\n{rows}B",b.jpg\n'.encode()))
    assert [item.source for item in items[:2]] == ["l.csv#1", "0.jpg"]
    assert (len(items), items[-1].source) == (LONGEST_RECORD_LINES + 2, "b.jpg")
    titles = [item.title for item in read_list("l.tsv", b'url\ttitle\na.jpg\t"Golden\nb.jpg\thour"\n')]
    assert titles == ['"Golden', 'hour"']


def test_fields_may_be_long_and_rows_may_have_spaces_and_too_much():
    content = f'id, url, author\n1, a.jpg, Jane\n2, b.jpg, "{"x" * 140_000}"\n3, c.jpg, Doe, John\n'.encode()
    first, second, third = read_list("l.csv", content)
    assert (first.source, first.author) == ("a.jpg", "Jane")
    assert second.author == "x" * LONGEST_TEXT + "…"
    assert (third.source, third.reason) == ("l.csv#3", "bad_row")


def test_the_length_of_fields_depends_on_no_one_else_and_concerns_no_one_else():
    before = csv.field_size_limit(10)
    try:
        rows = read_list("l.csv", b"url,author\na.jpg," + b"x" * 140_000 + b"\nb.jpg,B\n")
        for name in ("a.jpg", "b.jpg"):
            assert next(rows).source == name
            assert csv.field_size_limit() == 10  # between the rows too
        assert [item.source for item in read_list("l.csv", b'url\n"c.jpg\nd.jpg\n')] == ["l.csv#1", "d.jpg"]
    finally:
        assert csv.field_size_limit(before) == 10


def test_text_is_made_valid_where_it_enters():
    content = b'{"url": "a.jpg", "title": "Sunset \\ud83d", "author": ["Ann", "Bob", null]}\n{"url": "\\udce9.jpg"}\n'
    first, second = read_list("l.jsonl", content)
    assert (first.title, first.author, second.source) == ("Sunset \ufffd", "Ann, Bob", "\ufffd.jpg")
    assert list(read_list("l.tsv", "url\tauthor\na.jpg\tÅ\n".encode("utf-16"))) == [Photograph("a.jpg", author="Å")]


@pytest.mark.parametrize("entry", ["file:///x.jpg", "ftp://h/x.jpg", "webhdfs://h/x.jpg", "memory://x.jpg"])
def test_a_list_from_the_web_leads_to_the_web_alone(entry):
    content = f"{entry}\n/abs/a.jpg\nb.jpg\n../c.jpg\n".encode()
    sources, rejects = sources_and_rejects("https://a.org/l/a.txt", content)
    assert sources == ["https://a.org/abs/a.jpg", "https://a.org/l/b.jpg", "https://a.org/c.jpg"]
    assert rejects == [(entry, "not_allowed")]


def test_a_small_parquet_file_of_very_many_rows_is_read_as_far_as_the_limit(monkeypatch):
    monkeypatch.setattr(lists, "MOST_ROWS", 25_000)
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(1_000_000, "int32")), ["a.jpg"])
    buffer = io.BytesIO()
    pq.write_table(pa.table({"url": column, "x": column}), buffer, compression="zstd")
    before = pa.total_allocated_bytes()
    *_, photograph, reject = read_list("l.parquet", buffer.getvalue())
    assert (photograph.source, reject.source, reject.reason) == ("a.jpg", "l.parquet#25001", "too_many_rows")
    assert pa.total_allocated_bytes() - before < 10_000_000


def test_columns_of_parquet_that_are_not_ours_are_not_read():
    times = pa.array([1], pa.timestamp("us", tz="No/Where"))
    buffer = io.BytesIO()
    pq.write_table(pa.table({"url": ["a.jpg"], "taken": times, "author": ["b"]}), buffer)
    content = bytearray(buffer.getvalue())
    place = pq.read_metadata(buffer).row_group(0).column(1).data_page_offset
    content[place : place + 8] = b"\xff" * 8  # reading this column shows the damage
    for whole in (buffer.getvalue(), bytes(content)):
        assert list(read_list("l.parquet", whole)) == [Photograph("a.jpg", author="b")]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([2**62], pa.duration("s")),
        pa.array([1], pa.timestamp("us", tz="No/Where")),
        pa.array([[2**62]], pa.list_(pa.duration("s"))),
        pa.array([{"name": "Ann"}]),
    ],
    ids=lambda column: str(column.type),
)
def test_a_column_of_parquet_that_holds_no_text_costs_no_photograph(column):
    (photograph,) = read_list("l.parquet", stored(pa.table([["a.jpg"], column], ["url", "author"])))
    assert (photograph.source, photograph.author) == ("a.jpg", None)


@pytest.mark.parametrize("name", ["l.txt", "l.csv", "l.tsv", "l.jsonl"])
def test_a_row_that_repeats_the_one_above_is_one_photograph(name):
    row = {"l.jsonl": '{"url": "%s"}'}.get(name, "%s")
    head = "url\n" * (name in ("l.csv", "l.tsv"))
    content = head + "".join(row % f"{letter}.jpg" + "\n" for letter in "aaaba")
    assert [item.source for item in read_list(name, content.encode())] == ["a.jpg", "b.jpg", "a.jpg"]


@given(
    st.sampled_from(["l.txt", "l.csv", "l.tsv", "l.jsonl", "l.parquet"]),
    st.binary() | st.text('u,rl"\t\n\r{}:[]').map(str.encode),
)
def test_no_list_breaks_anything(name, content):
    with suppress(InputError):
        for item in read_list(name, b"url,title\n" * (name == "l.csv") + content):
            repr(item).encode()
