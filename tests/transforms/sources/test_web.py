import json
from urllib.parse import urlsplit

import pytest

from model.errors import InputError
from transforms.sources import fetch, fetched_pages, web
from transforms.sources.manners import Manners
from transforms.training_set.records import Photograph, Reject

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


def test_a_header_that_asks_not_to_be_followed_is_heeded(web_server):
    page = (200, {"X-Robots-Tag": "nofollow", "Content-Type": "text/html"}, b'<a href="/one">1</a><img src="/0.jpg">')
    web_server.routes["/"] = page
    assert paths(find(f"{web_server.url}/")) == ["/0.jpg"]
    assert web_server.asked("/one") == 0


def test_a_list_from_the_web_leads_to_the_web_alone(web_server):
    rows = [
        "url",
        "/abs/a.jpg",
        "b.jpg",
        "file:///etc/c.jpg",
        "gs://bucket/d.jpg",
        "ftp://h/e.jpg",
        "webhdfs://h/f.jpg",
    ]
    web_server.routes["/lists/list.csv"] = (200, {}, "\n".join(rows).encode())
    items = find(f"{web_server.url}/lists/list.csv")
    assert [item.source for item in items if isinstance(item, Photograph)] == [
        f"{web_server.url}/abs/a.jpg",
        f"{web_server.url}/lists/b.jpg",
    ]
    assert {item.reason for item in items if isinstance(item, Reject)} == {"not_allowed"}
    assert len(items) == len(rows) - 1


def test_a_type_in_another_alphabet_is_said_in_text_that_can_be_stored(web_server):
    async def odd(request):
        request.transport.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/\xe9\r\nContent-Length: 1\r\n\r\nx")
        request.transport.close()
        return b""

    web_server.routes["/"] = odd
    (reject,) = find(f"{web_server.url}/")
    assert reject.reason == "not_a_picture"
    reject.message.encode()


def test_a_page_that_nobody_foresaw_is_its_own_reject(web_server, monkeypatch):
    def read(url, *rest):
        if url.endswith("/bad"):
            raise KeyError("x")
        return real(url, *rest)

    real = fetched_pages.read_page
    monkeypatch.setattr(fetched_pages, "read_page", read)
    web_server.routes |= {
        "/": b'<a href="/bad">x</a><a href="/one">1</a>',
        "/bad": b"<p>",
        "/one": b'<img src="/1.jpg">',
    }
    items = find(f"{web_server.url}/")
    assert paths(items) == ["/1.jpg"]
    assert rejects(items) == {"/bad": "internal"}


def test_pictures_and_lists_are_known_by_their_names(web_server):
    web_server.routes["/list.csv"] = (200, {}, b"url,license\na/1.jpg,CC0-1.0\n")
    items = find(f"{web_server.url}/a.JPG", f"{web_server.url}/list.csv")
    assert items == [Photograph(f"{web_server.url}/a.JPG"), Photograph(f"{web_server.url}/a/1.jpg", "CC0-1.0")]
    (gone,) = find(f"{web_server.url}/gone.txt")
    assert (gone.source, gone.stage, gone.reason) == (f"{web_server.url}/gone.txt", "find", "not_found")


def commons_page(number, licence, mime="image/jpeg"):
    """Returns a page with its image's description, as the action API gives it in format version 2."""
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
    """Answers in two parts; the first says how to request the second."""
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
    with pytest.raises(InputError, match="did not answer with JSON"):
        find("commons:Category:x")


def commons_file(**info):
    return {"title": "File:A b.jpg", "imageinfo": [info]}


GOOD = {"url": "https://upload.example/1.jpg", "mime": "image/jpeg"}


@pytest.mark.parametrize(
    ("page", "outcome"),
    [
        (commons_file(filemissing=True, descriptionurl="x"), "not_found"),
        (commons_file(filehidden=True), "not_found"),
        ({"title": "File:A b.jpg", "imagerepository": ""}, "not_found"),
        (commons_file(**GOOD, extmetadata=[]), Photograph(GOOD["url"], title="File:A b.jpg")),
        (commons_file(**GOOD, extmetadata={"Artist": []}), Photograph(GOOD["url"], title="File:A b.jpg")),
        (commons_file(url="file:///etc/passwd", mime="image/jpeg"), "bad_url"),
        (commons_file(url="https://upload.example/1.jpg"), "not_a_picture"),
        (commons_file(**GOOD, extmetadata=None), Photograph(GOOD["url"], title="File:A b.jpg")),
        ({"imageinfo": [GOOD]}, Photograph(GOOD["url"], title="None")),
    ],
)
def test_whatever_commons_says_of_a_file_it_has_one_row(commons, page, outcome):
    commons.routes["/w/api.php"] = json.dumps(
        {"query": {"pages": [page, {"title": "File:B", "imageinfo": [GOOD]}]}}
    ).encode()
    first, *others = sorted(find("commons:Category:x"), key=lambda item: getattr(item, "title", "") == "File:B")
    assert (first.reason if isinstance(first, Reject) else first) == outcome
    assert [item.title for item in others] == ["File:B"]


@pytest.mark.parametrize(
    ("artist", "author"),
    [
        ('Unknown author<span style="display: none;">Unknown author</span>', "Unknown author"),
        ('Jane <SPAN class=x STYLE="color:red;display:none">Q1</span>Doe', "Jane Doe"),
        (["Jane", "<b>John</b>"], "Jane, John"),
        ({"de": "J\u00fcrgen", "_type": "lang"}, "J\u00fcrgen"),
        ({"de": "Der", "en": "The"}, "The"),
        ("\ud83d cut in half", "\ufffd cut in half"),
        (7, "7"),
        ("", None),
        ([], None),
        ({}, None),
    ],
)
def test_names_are_what_a_reader_sees(artist, author):
    assert web.plain_text(artist) == author


def test_a_long_field_of_broken_html_takes_no_time():
    assert len(web.plain_text("<a " * 1_000_000)) <= 3 * web.MOST_CHARACTERS


@pytest.mark.parametrize("code", ["maxlag", "ratelimited", "readonly"])
def test_commons_is_asked_again_when_it_is_busy(commons, code):
    async def busy(request):
        if commons.asked("/w/api.php") < 2:
            return 200, {"Retry-After": "0"}, json.dumps({"error": {"code": code, "info": "Wait"}}).encode()
        return await answer(request)

    answer = commons.routes["/w/api.php"]
    commons.routes["/w/api.php"] = busy
    assert len(find("commons:Category:x")) == 4


def test_an_api_that_stays_busy_is_a_reject_and_the_others_go_on(commons):
    commons.routes["/w/api.php"] = json.dumps({"error": {"code": "maxlag", "info": "Waiting for db1"}}).encode()
    busy, picture = find("commons:Category:x", "https://h/a.jpg")
    assert (busy.source, busy.stage, busy.reason, busy.attempts) == ("commons:Category:x", "find", "server_error", 2)
    assert "Waiting for db1" in busy.message
    assert picture == Photograph("https://h/a.jpg")


@pytest.mark.parametrize("document", [{}, {"query": []}, {"query": {"pages": {}}}, {"query": {"pages": [1, None, []]}}])
def test_an_answer_of_commons_with_nothing_in_it_names_nothing(commons, document):
    commons.routes["/w/api.php"] = json.dumps(document).encode()
    assert find("commons:Category:x") == []


def test_deep_json_is_said(commons):
    commons.routes["/w/api.php"] = b"[" * 1_000_000
    with pytest.raises(InputError, match="did not answer with JSON"):
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


@pytest.mark.parametrize("code", [105, "105", 0])
def test_flickr_is_asked_again_when_it_is_busy(flickr, code):
    async def busy(request):
        if flickr.asked("/services/rest/") % 2:
            return 200, {}, json.dumps({"stat": "fail", "code": code, "message": "Service unavailable"}).encode()
        return await answer(request)

    answer = flickr.routes["/services/rest/"]
    flickr.routes["/services/rest/"] = busy
    assert len(find("flickr:group/7@N00")) == 3


@pytest.mark.parametrize("number", range(4))
def test_flickrs_answers_may_lack_anything(flickr, number):
    photos = [
        {"id": None, "url_o": 7, "title": {"_content": "x"}},
        None,
        {"url_o": "ftp://h/a"},
        {"url_o": "https://h/a.jpg"},
    ]
    document = {"stat": "ok", "photos": {"photo": photos[number:], "pages": "1"}, "licenses": {"license": [{}, None]}}
    flickr.routes["/services/rest/"] = json.dumps(document).encode()
    items = find("flickr:group/7@N00")
    assert items[-1] == Photograph("https://h/a.jpg")
    assert len(items) == sum(photo is not None for photo in photos[number:])


@pytest.mark.parametrize("pages", [{"a": 1}, "two", -1, "1" * 5000, 2.5, [3], True])
def test_a_number_of_pages_that_is_none_costs_no_photograph(flickr, pages):
    document = {"stat": "ok", "photos": {"photo": [{"url_o": "https://h/a.jpg"}], "pages": pages}, "licenses": {}}
    flickr.routes["/services/rest/"] = json.dumps(document).encode()
    assert find("flickr:group/7@N00") == [Photograph("https://h/a.jpg")]


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 20x OK\r\n\r\n", b"HTTP/1.1 302 x\r\nLocation: /services/rest/?api_key=s3cret\r\n\r\n", b""]
)
def test_flickrs_key_stands_in_no_reject(flickr, answer):
    async def route(request):
        request.transport.write(answer)
        request.transport.close()
        return b""

    flickr.routes["/services/rest/"] = route
    (reject,) = find("flickr:group/7@N00")
    assert (reject.source, reject.stage) == ("flickr:group/7@N00", "find")
    assert "s3cret" not in repr(reject)


def test_flickrs_key_stands_in_no_message(flickr, monkeypatch):
    answers = [{"stat": "fail", "code": 1, "message": "Group not found"}, "nonsense"]
    for answer, message in zip(answers, ["Group not found", "did not answer with a JSON object"], strict=True):
        flickr.routes["/services/rest/"] = json.dumps(answer).encode()
        with pytest.raises(InputError, match=message) as caught:
            find("flickr:group/7@N00")
        assert "s3cret" not in str(caught.value)
    monkeypatch.delenv("FLICKR_API_KEY")
    with pytest.raises(InputError, match="set FLICKR_API_KEY in the environment"):
        find("flickr:group/7@N00")


@pytest.mark.parametrize(
    "source", ["commons:File:x", "flickr:x", "flickr:group/", "https://a.org/a.tar", "https://a.org/B.TAR", "http://["]
)
def test_web_sources_of_other_kinds_are_refused(source):
    with pytest.raises(InputError):
        find(source)
