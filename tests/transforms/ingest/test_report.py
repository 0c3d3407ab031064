import re
import shutil
from html.parser import HTMLParser

import pytest
from sets import read_index

from pipelines.ingest import ingest
from tests.transforms.photographs.test_prepare import photograph
from transforms.ingest.options import IngestOptions
from transforms.ingest.report import write_report
from transforms.training_set.dataset import read_dataset


class Outline(HTMLParser):
    """The tags of a page, and the targets of its links."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.targets = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.targets += [value for name, value in attrs if name in ("src", "href", "style")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    for index in range(3):
        (folder / f"{index}.jpg").write_bytes(photograph(800 + 100 * index, 400))
    (folder / "<script>x.jpg").write_bytes(b"no picture")
    rows = [
        f'{{"url": "{index}.jpg", "license": "CC <b>{index % 2}</b>", "title": "\\"Lake\\""}}' for index in range(3)
    ]
    (folder / "list.jsonl").write_text("\n".join([*rows, '{"url": "<script>x.jpg"}']))
    out = str(folder / "out")
    ingest(IngestOptions((str(folder / "list.jsonl"),), out, dedup="off"))
    return folder / "out"


def test_the_report_is_one_whole_file_that_needs_no_network_and_runs_nothing(made):
    page = (made / "report.html").read_text()
    outline = Outline()
    outline.feed(page)
    assert outline.open == []
    assert "script" not in outline.tags
    assert all(target.startswith("data:image/jpeg;base64,") for target in outline.targets)
    assert "default-src 'none'" in page


def test_the_report_says_what_is_there_and_what_is_not(made):
    page = (made / "report.html").read_text()
    assert page.count("<img ") == 2  # every second of three
    assert "CC &lt;b&gt;0&lt;/b&gt;</td><td>2</td>" in page
    assert "&lt;script&gt;x.jpg" in page
    assert re.search(r"<code>unreadable</code></td><td class=\"n\">1</td>", page)
    assert page.count("<svg") == 4
    assert str(read_dataset(str(made))["samples"]["train"]) in page


def test_a_picture_that_cannot_be_read_is_said_to_be_so_and_the_report_goes_on(made, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(made, copy)
    rows = read_index(str(copy))
    shard = bytearray((copy / rows[0]["shard"]).read_bytes())
    shard[rows[0]["offset"] : rows[0]["offset"] + 20] = b"x" * 20
    (copy / rows[0]["shard"]).write_bytes(shard)
    write_report(str(copy), read_dataset(str(copy)))
    page = (copy / "report.html").read_text()
    assert (page.count("<img "), page.count(">unreadable</span>"), page.count("<svg")) == (1, 1, 4)
    assert "1 of the 3 pictures that were opened cannot be read" in page
    for path in copy.glob("*.tar"):
        path.unlink()
    write_report(str(copy), read_dataset(str(copy)))
    page = (copy / "report.html").read_text()
    assert (page.count("<img "), page.count(">unreadable</span>"), page.count("<svg")) == (0, 2, 2)
    Outline().feed(page)


def test_the_report_follows_the_set(made):
    (made.parent / "<script>x.jpg").write_bytes(photograph(500, 400))
    ingest(IngestOptions((), str(made), dedup="off", retry_rejects=("unreadable",)))
    assert "<code>unreadable</code>" not in (made / "report.html").read_text()
