import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.errors import InputError
from transforms.lists import read_list
from transforms.records import Photograph

ROWS = [
    {"url": "https://a.org/1.jpg?x=1,2", "license": "CC0-1.0", "author": "Å. B", "title": "Lake, east"},
    {"url": "2.jpg", "license": None, "author": None, "title": None},
]
WANTED = [
    Photograph("https://a.org/1.jpg?x=1,2", "CC0-1.0", "Å. B", "Lake, east"),
    Photograph("/lists/2.jpg"),
]


def parquet(rows):
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
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
        ("a.csv", b"name\nx\n", "has no column 'url'"),
        ("a.csv", b"", "has no column 'url'"),
        ("a.csv", b"url\n\xff\n", "cannot be read as a list"),
        ("a.jsonl", b"{", "cannot be read as a list"),
        ("a.jsonl", b"7\n", "cannot be read as a list"),
        ("a.parquet", b"PAR1", "cannot be read as a list"),
        ("a.parquet", parquet([{"x": 1}]), "has no column 'url'"),
    ],
)
def test_what_is_no_list_is_refused_in_one_line(name, content, message):
    with pytest.raises(InputError, match=message) as caught:
        list(read_list(name, content))
    assert "\n" not in str(caught.value)
