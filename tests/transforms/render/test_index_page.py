"""The page of a manifest, whose contents may come from anywhere."""

from html.parser import HTMLParser

import pytest

from transforms.panoramas.manifest import MANIFEST_SCHEMA, refused_row
from transforms.render.index_page import page

EVIL = """"'><script>alert(1)</script><img src=x onerror=alert(1)>&amp;"""


class Page(HTMLParser):
    """A page as a browser parses it: its tags, the targets of its links, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("href", "src")]
        assert not [name for name, _ in attributes if name.startswith("on")]

    def handle_data(self, data):
        self.text += data


def row(**values):
    return {
        **dict.fromkeys(MANIFEST_SCHEMA.names),
        "seed": 7,
        "width_px": 5,
        "height_px": 4,
        "plan": "0" * 12,
        **values,
    }


def test_a_panorama_has_a_thumbnail_and_a_link_to_each_file():
    files = ["panoramas/p.png", "panoramas/p.dzi"]
    shown = Page(page([row(id="p", state="done", files=files)]))
    assert shown.links == ["panoramas/p.png", "thumbnails/p.jpg", "panoramas/p.png", "panoramas/p.html"]
    assert "1 of 1 panoramas are done" in shown.text
    assert "p 5 × 4 px, seed 7" in shown.text
    assert "png dzi" in shown.text


@pytest.mark.parametrize("evil", [EVIL, "{{ 7 * 7 }}{% raw %}"])
def test_everything_shown_is_text(evil):
    rows = [refused_row(evil, evil), row(id="q", state="failed", reason=evil, files=[])]
    shown = Page(page(rows))
    assert shown.text.count(evil) == 3
    assert "script" not in shown.tags
    assert "img" not in shown.tags
