import json
from urllib.parse import urlsplit

import pytest

from model.errors import InputError
from transforms import fetch, web
from transforms.manners import Manners
from transforms.records import Photograph, Reject

MANNERS = Manners(host_rate=1e4, allow_private=True, attempts=2)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(fetch, "FIRST_PAUSE_S", 0.01)


def find(*sources, depth=1):
    return web.find_on_web(sources, MANNERS, depth)


def paths(items):
    return sorted(urlsplit(item.source).path for item in items if isinstance(item, Photograph))


def rejects(items):
    return {urlsplit(item.source).path: item.reason for item in items if isinstance(item, Reject)}


def test_a_site_is_crawled_to_the_depth_asked_for_each_page_once(web_server):
    web_server.routes |= {
        "/": b'<a href="/one">1</a><a href="/">self</a><a href="https://elsewhere.invalid/">x</a><img src="/0.jpg">',
        "/one": b'<a href="/two">2</a><a href="/">back</a><img src="/1.jpg"><img src="https://cdn.invalid/c.jpg">',
        "/two": b'<img src="/2.jpg">',
    }
    assert paths(find(f"{web_server.url}/", depth=0)) == ["/0.jpg"]
    assert paths(find(f"{web_server.url}/", depth=1)) == ["/0.jpg", "/1.jpg", "/c.jpg"]
    web_server.log.clear()
    assert paths(find(f"{web_server.url}/", depth=9)) == ["/0.jpg", "/1.jpg", "/2.jpg", "/c.jpg"]
    assert {path: web_server.asked(path) for path in ("/", "/one", "/two")} == {"/": 1, "/one": 1, "/two": 1}


def test_pages_that_cannot_or_must_not_be_read_are_rejects(web_server):
    links = "".join(
        f'<a href="/{name}">x</a>' for name in ("gone", "broken", "out", "tag", "secret", "text", "picture")
    )
    web_server.routes |= {
        "/": f'<p>{links}<img src="/0.jpg">'.encode(),
        "/robots.txt": b"User-agent: *\nDisallow: /secret",
        "/broken": (500, {}, b""),
        "/out": (200, {"X-Robots-Tag": "noai", "Content-Type": "text/html"}, b'<img src="/no.jpg">'),
        "/tag": b'<meta name="robots" content="noindex"><img src="/no.jpg">',
        "/secret": b'<img src="/no.jpg">',
        "/text": (200, {"Content-Type": "text/plain"}, b"x"),
        "/picture": b"\xff\xd8",
    }
    items = find(f"{web_server.url}/")
    assert paths(items) == ["/0.jpg", "/picture"]
    assert rejects(items) == {
        "/gone": "not_found",
        "/broken": "server_error",
        "/out": "opt_out",
        "/tag": "opt_out",
        "/secret": "robots",
        "/text": "not_a_picture",
    }


def test_a_page_that_asks_not_to_be_followed_is_not(web_server):
    web_server.routes["/"] = b'<meta name="robots" content="nofollow"><a href="/one">1</a><img src="/0.jpg">'
    assert paths(find(f"{web_server.url}/")) == ["/0.jpg"]
    assert web_server.asked("/one") == 0


def test_pictures_and_lists_are_known_by_their_names(web_server):
    web_server.routes["/list.csv"] = (200, {}, b"url,license\na/1.jpg,CC0-1.0\n")
    items = find(f"{web_server.url}/a.JPG", f"{web_server.url}/list.csv")
    assert items == [Photograph(f"{web_server.url}/a.JPG"), Photograph(f"{web_server.url}/a/1.jpg", "CC0-1.0")]
    (gone,) = find(f"{web_server.url}/gone.txt")
    assert (gone.source, gone.stage, gone.reason) == (f"{web_server.url}/gone.txt", "find", "not_found")


def commons_page(number, licence, mime="image/jpeg"):
    """A page with its image's description, as the action API gives it in format version 2."""
    facts = {
        "LicenseShortName": {"value": licence, "source": "commons-desc-page", "hidden": ""},
        "Artist": {
            "value": '<a href="//commons.wikimedia.org/wiki/User:A">A &amp; B</a>',
            "source": "commons-desc-page",
        },
        "ObjectName": {"value": f"Lake {number}", "source": "mediawiki-metadata"},
    }
    info = {"url": f"https://upload.example/{number}.jpg", "mime": mime, "extmetadata": facts}
    return {"pageid": number, "ns": 6, "title": f"File:Lake {number}.jpg", "imageinfo": [info]}


@pytest.fixture
def commons(web_server, monkeypatch):
    """Answers in two parts, the second asked for as the first says."""
    web_server.queries = []

    async def answer(request):
        query = dict(request.query)
        web_server.queries.append(query)
        second = query.get("gcmcontinue") == "file|LAKE|2"
        pages = [commons_page(3, "CC BY-SA 4.0"), commons_page(4, "CC0", "image/svg+xml")]
        if not second:
            pages = [commons_page(1, "CC BY 2.0"), {"pageid": 2, "ns": 6, "title": "File:Later.jpg"}]
        document = {"query": {"pages": pages}}
        if not second:
            document["continue"] = {"gcmcontinue": "file|LAKE|2", "continue": "gcmcontinue||"}
        return 200, {"Content-Type": "application/json"}, json.dumps(document).encode()

    web_server.routes["/w/api.php"] = answer
    monkeypatch.setattr(web, "COMMONS_API", f"{web_server.url}/w/api.php")
    return web_server


def test_commons_gives_files_with_licence_and_author(commons):
    one, three, drawing, fileless = find("commons:Category:Lakes of Norway")
    assert one == Photograph("https://upload.example/1.jpg", "CC BY 2.0", "A & B", "Lake 1")
    assert three.licence == "CC BY-SA 4.0"
    assert (drawing.source, drawing.reason) == ("https://upload.example/4.jpg", "not_a_picture")
    assert (fileless.source, fileless.reason) == ("https://commons.wikimedia.org/wiki/File:Later.jpg", "not_found")
    assert [query["gcmtitle"] for query in commons.queries] == ["Category:Lakes of Norway"] * 2
    assert commons.asked("/robots.txt") == 0


def test_what_an_api_says_is_passed_on(commons):
    error = {"error": {"code": "invalidcategory", "info": "The category name you entered is not valid."}}
    commons.routes["/w/api.php"] = json.dumps(error).encode()
    with pytest.raises(InputError, match=r"commons:Category:x: .* says The category name you entered is not valid"):
        find("commons:Category:x")
    commons.routes["/w/api.php"] = b"<html>"
    with pytest.raises(InputError, match="does not answer with JSON"):
        find("commons:Category:x")


@pytest.fixture
def flickr(web_server, monkeypatch):
    monkeypatch.setenv("FLICKR_API_KEY", "s3cret")

    async def answer(request):
        query = request.query
        assert query["api_key"] == "s3cret"
        method = query["method"]
        if method == "flickr.photos.licenses.getInfo":
            document = {"licenses": {"license": [{"id": "4", "name": "Attribution License", "url": "x"}]}}
        elif method == "flickr.urls.lookupGroup":
            document = {"group": {"id": "7@N00"}}
        else:
            assert query["group_id"] == "7@N00"
            page = int(query["page"])
            photo = {
                "id": str(page),
                "owner": "9@N01",
                "ownername": "Å",
                "title": "",
                "license": "4",
                "url_z": "https://f/z.jpg",
            }
            if page == 1:
                photo["url_o"] = "https://f/o.jpg"
            photos = [photo, {"id": "5", "owner": "9@N01"}] if page == 2 else [photo]
            document = {"photos": {"page": page, "pages": 2, "perpage": 500, "total": 3, "photo": photos}}
        return 200, {}, json.dumps({**document, "stat": "ok"}).encode()

    web_server.routes["/services/rest/"] = answer
    monkeypatch.setattr(web, "FLICKR_API", f"{web_server.url}/services/rest/")
    return web_server


@pytest.mark.parametrize("group", ["7@N00", "landscapes/"])
def test_flickr_gives_a_groups_pool_page_by_page(flickr, group):
    first, second, third = find(f"flickr:group/{group}")
    assert first == Photograph("https://f/o.jpg", "Attribution License", "Å")
    assert second.source == "https://f/z.jpg"
    assert (third.source, third.reason) == ("https://www.flickr.com/photos/9@N01/5", "not_found")


def test_flickrs_key_stands_in_no_message(flickr, monkeypatch):
    answers = [{"stat": "fail", "code": 1, "message": "Group not found"}, "nonsense"]
    for answer, message in zip(answers, ["Group not found", "no JSON object"], strict=True):
        flickr.routes["/services/rest/"] = json.dumps(answer).encode()
        with pytest.raises(InputError, match=message) as caught:
            find("flickr:group/7@N00")
        assert "s3cret" not in str(caught.value)
    monkeypatch.delenv("FLICKR_API_KEY")
    with pytest.raises(InputError, match="set FLICKR_API_KEY in the environment"):
        find("flickr:group/7@N00")


@pytest.mark.parametrize("source", ["commons:File:x", "flickr:x", "flickr:group/", "https://a.org/a.tar"])
def test_web_sources_of_other_kinds_are_refused(source):
    with pytest.raises(InputError):
        find(source)
