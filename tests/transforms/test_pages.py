from hypothesis import given
from hypothesis import strategies as st

from transforms.pages import read_page

URL = "https://a.org/gallery/index.html"


def pictures(html, url=URL):
    return read_page(url, html.encode(), None).pictures


def test_the_largest_rendition_wins():
    assert pictures('<img src="s.jpg" srcset="m.jpg 640w, l.jpg 1280w, s.jpg 320w" alt="Lake">') == {
        "https://a.org/gallery/l.jpg": "Lake"
    }
    assert list(pictures('<img src="s.jpg" srcset="m.jpg 1.5x, /l.jpg 2x">')) == ["https://a.org/l.jpg"]
    assert list(pictures('<img src="s.jpg" srcset="a,b.jpg 2x,\n c.jpg 3x">')) == ["https://a.org/gallery/c.jpg"]
    picture = (
        '<picture><source srcset="w.webp 900w"><source srcset="x.jpg 1900w"><img src="s.jpg"></picture><img src=b.png>'
    )
    assert list(pictures(picture)) == ["https://a.org/gallery/x.jpg", "https://a.org/gallery/b.png"]


def test_a_picture_that_a_thumbnail_links_to_stands_for_it():
    html = '<a href="big.JPG?v=2"><img src="small.jpg" alt="Hill"></a><a href="more.html"><img src="other.jpg"></a>'
    page = read_page(URL, html.encode(), None)
    assert page.pictures == {"https://a.org/gallery/big.JPG?v=2": "Hill", "https://a.org/gallery/other.jpg": None}
    assert page.links == ["https://a.org/gallery/more.html"]


def test_links_are_meant_from_the_base_and_lose_their_fragments():
    html = '<base href="/b/"><a href="c#d">x</a><a href="mailto:a@b.c">y</a><a href="http://[">z</a>'
    html += '<img src="data:image/png,x">'
    page = read_page(URL, html.encode(), "nonsense")
    assert page.links == ["https://a.org/b/c"]
    assert page.pictures == {}


def test_robots_tags_are_kept():
    assert read_page(URL, b'<META NAME="Robots" content="NOAI, nofollow">', "utf-8").robots == ["NOAI, nofollow"]


@given(st.text(alphabet="<>/ae\"'=imgsrcset, 0w&;!-[]"))
def test_broken_markup_breaks_nothing(text):
    read_page(URL, text.encode(), None)
