"""Text tables, read line by line."""

import io

from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.storage.delimited import read_lines, read_records, stream_lines

TEXTS = st.text(st.sampled_from('ab",\r\n\té€'), max_size=60)


@settings(max_examples=300)
@given(TEXTS, st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]), st.binary(max_size=3))
def test_a_file_has_the_lines_of_its_content(text, encoding, rest):
    content = text.encode(encoding) + rest
    assert list(stream_lines(io.BytesIO(content))) == read_lines(content)


def test_no_more_lines_are_taken_than_a_row_may_span():
    taken = []
    lines = (taken.append(line) or line for line in ["a,b", '"open', *("c,d" for _ in range(10_000))])
    records = read_records(lines, ",")
    assert [next(records), next(records)] == [["a", "b"], None]
    assert len(taken) <= 1002
    assert [next(records) for _ in range(3)] == [["c", "d"]] * 3
