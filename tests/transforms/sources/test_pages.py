import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

import transforms.sources.pages
from transforms.sources.markup import SlowPageError
from transforms.sources.pages import read_page

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


def test_commas_in_a_srcset_separate_where_browsers_let_them():
    html = (
        '<img srcset="/a-97.jpg 97w,/a-225.jpg 225w,/a-595.jpg 595w"><img srcset="/b-97.jpg 97w,\r\n  /b-595.jpg 595w">'
        '<img srcset="/c-97.jpg 97w ,/c-595.jpg 595w"><img srcset="/d,w=97.jpg 97w, /d,w=595.jpg 595w">'
    )
    assert [url.removeprefix("https://a.org") for url in pictures(html)] == [
        *("/a-595.jpg", "/b-595.jpg", "/c-595.jpg", "/d,w=595.jpg")
    ]


def test_a_picture_that_comes_later_stands_for_its_placeholder():
    html = (
        '<img src=s.gif data-src=a.jpg><img src="data:image/gif;base64,R0" data-lazy-src=b.jpg>'
        '<img src=s.gif srcset="s.gif 2x" data-srcset="c.jpg 400w, d.jpg 800w"><noscript><img src=e.jpg></noscript>'
    )
    assert [url[-5:] for url in pictures(html)] == ["a.jpg", "b.jpg", "d.jpg", "e.jpg"]


def test_a_rendition_that_cannot_be_decoded_is_passed_over():
    html = (
        '<picture><source srcset="a.jxl 2000w" type="image/jxl"><img src=a.jpg></picture>'
        '<picture><source srcset="b.heic 2000w"><img src=b.jpg srcset="b-big.jpg 1000w"></picture>'
        '<picture><source srcset="/c?2000 2000w" type="image/jxl"><img src=c.jpg></picture>'
    )
    assert [url.rpartition("/")[2] for url in pictures(html)] == ["a.jpg", "b-big.jpg", "c.jpg"]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("/a.jpg?id=1&timestamp=2&region=eu&copy=3", "/a.jpg?id=1&timestamp=2&region=eu&copy=3"),
        ("/a.jpg?x=1&amp;y=2&#38;z", "/a.jpg?x=1&y=2&z"),
        ("/it%27s%2Fone.jpg?s=a%2Bb%3D", "/it%27s%2Fone.jpg?s=a%2Bb%3D"),
        ("/&#99999999999999999999;.jpg", "/\ufffd.jpg"),
    ],
)
def test_urls_are_what_browsers_take_them_for(written, meant):
    assert list(pictures(f'<img src="{written}">')) == [f"https://a.org{meant}"]


def test_only_the_first_base_counts():
    html = '<base href="http://["><base href="/b/">' + '<base href="c/">' * 100 + "<img src=x.jpg>"
    assert list(pictures(html)) == ["https://a.org/b/x.jpg"]


@pytest.mark.parametrize(
    ("head", "encoding", "said"),
    [
        ('<meta charset="windows-1251">', "cp1251", None),
        ('<meta http-equiv="Content-Type" content="text/html; charset=windows-1251">', "cp1251", None),
        ("", "cp1251", "windows-1251"),
        ("<meta charset=koi8-r>", "cp1251", "windows-1251"),
        ("<meta charset=koi8-r>", "utf-8-sig", "koi8-r"),
        ("<meta charset=idna>", "utf-8", "unicode_escape"),
    ],
)
def test_the_encoding_is_what_the_server_or_else_the_page_says(head, encoding, said):
    content = f'{head}<img src="/гора.jpg" alt="Гора">'.encode(encoding)
    assert read_page(URL, content, said).pictures == {"https://a.org/гора.jpg": "Гора"}


@pytest.mark.parametrize("encoding", ["idna", "punycode", "undefined", "rot13", "zlib", "utf-7", "\0", "é", "x" * 999])
def test_no_encoding_breaks_anything(encoding):
    assert list(read_page(URL, b"<img src=/a.jpg alt='+2AA-'>", encoding).pictures) == ["https://a.org/a.jpg"]


@pytest.mark.parametrize(
    "piece",
    [
        "<a ",
        "<a b='",
        "<a b=",
        "<!--",
        "<!",
        "<![foo[",
        "<script>",
        "<",
        "</a ",
        "<base href=a/>",
        "<img srcset='a,",
        "&amp",
    ],
)
def test_the_time_for_a_page_grows_with_its_length_alone(piece):
    start = time.process_time()
    read_page(URL, (piece * 60_000).encode() + b"<img src=x.jpg>" * 1000, None)
    assert time.process_time() - start < 8  # quadratic algorithms take minutes for this


def test_a_page_is_given_up_when_its_time_is_over(monkeypatch):
    monkeypatch.setattr(transforms.sources.pages, "PAGE_LIMIT_S", 0.0)
    with pytest.raises(SlowPageError):
        read_page(URL, b"<a>" * 1000, None)


def test_a_page_names_a_bounded_number_of_things(monkeypatch):
    monkeypatch.setattr(transforms.sources.pages, "MOST_REFERENCES", 3)
    html = "".join(f"<img src={index}.png><a href={index}>" for index in range(5))
    page = read_page(URL, html.encode(), None)
    assert (len(page.pictures), len(page.links), page.left_out) == (3, 3, 4)


def test_a_tag_has_a_bounded_number_of_attributes():
    attributes = " ".join(f"a{number}" for number in range(1000))
    assert pictures(f"<img {attributes} src=a.jpg><img {attributes[:-5]} src=b.jpg><img src=c.jpg>") == {
        "https://a.org/gallery/b.jpg": None,
        "https://a.org/gallery/c.jpg": None,
    }


def test_a_base_that_is_too_long_to_stand_in_every_url_is_passed_over():
    long = "https://b.org/" + "x" * 2000 + "/"
    assert list(pictures(f'<base href="{long}"><img src=a.jpg>')) == ["https://a.org/gallery/a.jpg"]


def test_what_is_in_comments_scripts_and_titles_is_not_shown():
    html = "<!-- <img src=a.jpg> --><script>'<img src=b.jpg>'</script><title><img src=c.jpg></title><img src=d.jpg>"
    assert list(pictures(html + "<![foo[bar]]><img src=e.jpg><img src=f.jpg alt='")) == [
        "https://a.org/gallery/d.jpg",
        "https://a.org/gallery/e.jpg",
    ]
