"""The inputs of ingest: pictures, pages, answers of servers and APIs, lists, inventories and tars."""

import asyncio
import io
import json
import os
import tarfile
from collections.abc import Iterable
from contextlib import ExitStack, asynccontextmanager, suppress
from functools import cache
from random import Random
from typing import Any
from unittest.mock import patch

import pyarrow as pa
from finding import Found, find_again, search
from multidict import CIMultiDict
from mutations import json_text, mutate, mutate_table, mutate_text, mutate_value, pack, unpack
from PIL import Image, ImageCms
from target import Target, folder_of, refused
from yarl import URL

from transforms.ingest.plan import Plan, share_of
from transforms.photographs.prepare import Preparation, Prepared, prepare_photograph, read_photograph
from transforms.sources import web
from transforms.sources.fetch import Fetched, Fetcher, FetchError
from transforms.sources.fetched_pages import is_page, picture_of
from transforms.sources.lists import read_list
from transforms.sources.manners import Manners
from transforms.storage.memory import DEFAULT_BYTES, Memory
from transforms.storage.urls import asked_url, host_key
from transforms.training_set.dataset import REJECTS_SCHEMA
from transforms.training_set.records import INTERNAL, Photograph, Reject, Rejection

MANNERS = Manners(attempts=1)
ITEM_SCHEMA = pa.schema([(name, pa.string()) for name in ("url", "licence", "author", "title", "caption", "extra")])
ROWS = [
    {"url": "a/lake.jpg", "licence": "CC0-1.0", "author": "A. N. Other", "title": "Lake, with hills", "extra": "1"},
    {"url": "https://a.example/hill%20top.png?x=1&y=2", "licence": "CC BY 4.0", "author": "É", "title": 'a "hill"'},
    {"url": "s3://bucket/river.tif", "licence": None, "author": "", "title": "", "caption": "a river", "extra": "3"},
    {"url": "/photographs/sea.webp", "licence": "CC-BY-SA", "author": "x; y", "title": "sea\nand sky", "extra": ""},
]


def look_at(items: Iterable[Photograph | Reject]) -> None:
    """Uses the items as a run does, and checks that none of them reports a fault of this program."""
    rows = []
    for item in items:
        if isinstance(item, Reject):
            assert item.reason != INTERNAL, item.message
            assert item.reason, item
            assert item.message, item
            item = item.photograph()
        rows.append({name: getattr(item, name) for name in ("source", "author", "licence", "title")})
        assert Photograph.from_json(json.loads(json.dumps(item.to_json()))) == item
        share_of(item, Plan(2, 0, 0, 2, 3))
        host_key(item.url)
        with suppress(ValueError):  # raised when the URL is requested
            asked_url(item.url)
    pa.Table.from_pylist(
        rows, schema=pa.schema([field for field in REJECTS_SCHEMA if field.name in rows[0]] if rows else [])
    )


def look_at_found(found: Found) -> None:
    """Uses the found items likewise."""
    look_at([*found.photographs, *found.rejects])


# Pictures


@cache
def pictures() -> list[bytes]:
    """Returns a small picture of every kind of file, with all the metadata that such a file may hold."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a lake"
    about = {"exif": exif, "icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()}
    rgb = Image.linear_gradient("L").resize((160, 120)).convert("RGB")
    rgba = rgb.convert("RGBA")
    kinds: list[tuple[Image.Image, str, dict[str, Any]]] = [
        *((rgb, "JPEG", {**about, **more}) for more in ({}, {"progressive": True}, {"optimize": True})),
        *((rgb.convert(mode), "JPEG", {}) for mode in ("L", "CMYK")),
        (rgb, "MPO", {"save_all": True, "append_images": [rgb]}),
        *((rgb.convert(mode), "PNG", about) for mode in ("RGB", "RGBA", "LA", "L", "P", "I;16", "1")),
        (rgb, "PNG", {"save_all": True, "append_images": [rgba]}),
        *((rgba, "WEBP", {**about, **more}) for more in ({}, {"lossless": True})),
        (rgb, "WEBP", {"save_all": True, "append_images": [rgba]}),
        *(
            (rgb, "TIFF", {**about, "compression": way})
            for way in (None, "tiff_lzw", "jpeg", "packbits", "tiff_deflate")
        ),
        *((rgb.convert(mode), "TIFF", {}) for mode in ("CMYK", "YCbCr", "I;16", "F", "1")),
        (rgb.convert("P"), "GIF", {"save_all": True, "append_images": [rgb.convert("P")], "comment": b"a lake"}),
        (rgba, "AVIF", about),
        *((rgba, "JPEG2000", more) for more in ({}, {"tile_size": (64, 64)})),
        *((rgb, kind, {}) for kind in ("BMP", "PPM")),
        (rgba, "TGA", {"compression": "tga_rle"}),
    ]
    files = []
    for image, kind, options in kinds:
        buffer = io.BytesIO()
        image.save(buffer, kind, **{name: value for name, value in options.items() if value is not None})
        files.append(buffer.getvalue())
    return files


def make_picture(random: Random) -> bytes:
    return mutate(random, random.choice(pictures()))


def check_picture(content: bytes) -> None:
    """Checks that a photograph becomes a training image, or a reject with a specific reason."""
    outcome = prepare_photograph(Photograph("a.jpg"), content, 1, Preparation())
    assert isinstance(outcome, (Prepared, Reject))
    look_at([outcome] if isinstance(outcome, Reject) else [])


# Pages, and all other answers of servers

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Lakes &amp; hills</title>
<base href="https://a.example/photos/"><meta name="robots" content="index, max-snippet:5">
<style>img { width: 1px }</style>
<script>if (a < b) document.write("<img src=x.jpg>")</script></head><body class=wide><!-- <img src="no.jpg"> -->
<a href="full/lake.jpg"><img src="small/lake.jpg" alt="A lake &lt;here&gt;" width=10></a>
<a href='next.html?a=1&amp;b=2#c'>next</a>
<img src=data:image/gif;base64,AAAA data-src="lazy/hill.png" data-srcset="lazy/hill-2.png 2x, lazy/hill-3.png 3x">
<picture><source type="image/avif" srcset="r.avif 100w, r2.avif 97w,/b 5w"><source type=image/jxl srcset="r.jxl">
<img srcset="r-1.jpg 480w,\r\n r-2.jpg 960w , r,3.jpg 1.5x" sizes="(max-width: 600px) 480px, 800px" src="r.jpg">
</picture>
<noscript><img src="//b.example/sea.jpg?x=1&timestamp=2&copy=3"></noscript>
<p>&#x1F600; &notin; &amp</p><br/></body></html>"""
TAGS = (
    *(
        "<a href=",
        "<img src=",
        "<base href=",
        "<base>",
        "<picture>",
        "</picture>",
        "<source srcset=",
        "</a>",
        "<!--",
        "-->",
    ),
    *(
        "<meta name=robots content=",
        "<meta charset=",
        "<![CDATA[",
        "<?",
        "</",
        "<",
        ">",
        "=",
        "'",
        '"',
        " 2x",
        " 100w",
        ",",
    ),
    *(
        "&#0;",
        "&#x110000;",
        "&#xd800;",
        "&amp;",
        "&",
        "<script>",
        "</script",
        "<title>",
        "<noscript>",
        "noindex",
        "utf-16",
    ),
    *("srcset=", "data-src=", "a.jpg", "http://[", "javascript:", "idna", "(", ")", "/", "\0", "a.jpg 1e999x", "nanw"),
)
HEADERS = {
    "content-type": 'text/html; charset="utf-8"',
    "x-robots-tag": "googlebot: nofollow, otherbot: noindex, max-snippet: 5, unavailable_after: 25 Jun 2099 15:00 PST",
    "retry-after": "Wed, 21 Oct 2026 07:28:00 GMT",
    "content-encoding": "identity",
    "location": "../other/lake.jpg?x=1",
    "content-length": "120",
}
HEADER_WORDS = (
    *(
        "text/html",
        "image/jpeg",
        "image/",
        "charset=",
        "idna",
        "punycode",
        "utf-7",
        "hex",
        "zlib",
        "undefined",
        "gzip",
        "deflate",
    ),
    *(
        "br",
        "infinitygan:",
        "*:",
        "noai",
        "nofollow",
        "none",
        ":",
        ",",
        ";",
        "120",
        "-5",
        "Mon",
        "99999999999",
        "Jan",
        "GMT",
    ),
    *("http://[::1", "http://a:b@c/", "//", "http://a.example/b.jpg", "+2500", "31 Feb", "é", "\xff", "0", "1e9"),
)


def make_headers(random: Random) -> dict[str, str]:
    """Returns headers as a client gets them: Latin-1, with surrogates for other bytes."""
    headers = {}
    for name, value in HEADERS.items():
        if name != "content-length" or random.random() < 0.1:
            text = mutate_text(random, value, HEADER_WORDS) if random.random() < 0.3 else value.encode()
            headers[name] = text.decode("utf-8", "surrogateescape").replace("\n", " ").replace("\r", " ")[:2000]
    return {name: value for name, value in headers.items() if random.random() < 0.7}


def make_page(random: Random) -> bytes:
    about = {"headers": make_headers(random) | ({"content-type": "text/html"} if random.random() < 0.7 else {})}
    return pack({"about": json.dumps(about).encode(), "page": mutate_text(random, PAGE, TAGS)})


class Answers:
    """A stand-in for a `Fetcher`: answers with the same few files repeatedly, and then no more."""

    def __init__(self, *files: Fetched):
        self.files, self.asked = files, 0

    async def fetch(self, url: str, use: Any, by_program: bool = False, parameters: Any = None) -> Any:
        if self.asked >= 12:
            raise FetchError("not_found", "there is no more")
        file = self.files[self.asked % len(self.files)]
        self.asked += 1
        return await use(Fetched(file.url if by_program else url, file.content, file.headers, 1))


def check_page(content: bytes) -> None:
    files = unpack(content)
    file = Fetched("https://a.example/b/page", files["page"], json.loads(files["about"])["headers"], 1)
    look_at(asyncio.run(web._find(Answers(file), file.url, 1, set())))
    named = Fetched("https://a.example/wiki/File:Lake.jpg", file.content, file.headers, 1)
    if is_page(named):
        try:
            look_at([Photograph(picture_of(named))])
        except Rejection as rejection:
            look_at([Reject(named.url, "fetch", rejection.reason, rejection.message)])


ROBOTS = """# rules\nUser-agent: *\nDisallow: /private\nAllow: /private/*.jpg$\nCrawl-delay: 5\n
User-Agent: infinitygan/1.0 otherbot\nDisallow: /a%20b?x=*\nDisallow:\nRequest-rate: 1/5s 0600-0800\n
Visit-time: 0600-0845\nSitemap: https://a.example/sitemap.xml\nHost: a.example\n"""
RULES = (
    *(
        "User-agent:",
        "Disallow:",
        "Allow:",
        "Crawl-delay:",
        "Request-rate:",
        "Visit-time:",
        "Sitemap:",
        "Host:",
        "*",
        "$",
        "/",
    ),
    *(
        "nan",
        "inf",
        "1e999",
        "-1",
        "0",
        "1/0",
        "\n",
        "\r",
        "\r\n",
        "%",
        "%zz",
        "%2F",
        "?",
        "#",
        "infinitygan",
        "\0",
        "*" * 50,
    ),
)


def make_server(random: Random) -> bytes:
    about = {
        "status": random.choice((200, 200, 200, 301, 308, 404, 429, 503, 999)),
        "reason": random.choice(("OK", "", "Pas trouv\udce9", "a\nb")),
        "headers": make_headers(random),
    }
    body = mutate_text(random, PAGE[:500], TAGS)
    return pack({"about": json.dumps(about).encode(), "robots": mutate_text(random, ROBOTS, RULES), "body": body})


class Response:
    """An answer as aiohttp presents it."""

    def __init__(self, status: int, reason: str, headers: dict[str, str], body: bytes):
        self.status, self.reason, self.headers, self._body, self.content = (
            status,
            reason,
            CIMultiDict(headers),
            body,
            self,
        )
        length = headers.get("content-length", "")
        self.content_length = int(length) if length.isascii() and length.isdigit() else None

    async def iter_any(self) -> Any:
        yield self._body


class Session:
    """A session that answers first with the rules, and then always with the other answer."""

    def __init__(self, *responses: Response):
        self.responses = list(responses)

    @asynccontextmanager
    async def get(self, url: URL, **options: Any) -> Any:
        yield self.responses.pop(0) if len(self.responses) > 1 else self.responses[0]

    async def close(self) -> None:
        pass


async def ask(about: dict[str, Any], robots: bytes, body: bytes) -> None:
    """Requests a server's rules, and then a file."""
    answer = Response(about["status"], about["reason"], about["headers"], body)
    fetcher = Fetcher(Manners(attempts=1, host_rate=1e9))
    fetcher._session = Session(Response(200, "OK", about["headers"], robots), answer)
    outcomes = []
    for url in ("http://a.example/private/b.jpg?x=1", "http://a.example/c"):
        try:
            if url.endswith("c"):  # without the rules, whose delay would take too long
                fetcher._manners = Manners(attempts=1, host_rate=1e9, heed_robots=False)
                fetcher._hosts.clear()
                file = await fetcher.fetch(url, web._itself)
                outcomes += [Photograph(file.url), Reject(url, "fetch", "a", repr(file.headers))]
            else:
                await fetcher._check_robots(URL(url))
        except FetchError as error:
            outcomes.append(Reject(url, "fetch", error.reason, error.message))
    look_at(outcomes)


def check_server(content: bytes) -> None:
    files = unpack(content)
    asyncio.run(ask(json.loads(files["about"]), files["robots"], files["body"]))


COMMONS = {
    "batchcomplete": True,
    "continue": {"gcmcontinue": "file|41", "continue": "gcmcontinue||"},
    "query": {
        "pages": [
            {
                "pageid": 1,
                "title": "File:A lake.jpg",
                "imageinfo": [
                    {
                        "url": "https://upload.wikimedia.org/a/lake.jpg",
                        "mime": "image/jpeg",
                        "extmetadata": {
                            "Artist": {"value": '<a href="//b">Somebody</a> <span style="display:none">x</span>'},
                            "LicenseShortName": {"value": "CC BY-SA 4.0", "source": "commons-desc-page"},
                            "ObjectName": {"value": {"en": "A lake", "_type": "lang"}},
                        },
                    }
                ],
            },
            {"title": "File:Gone.jpg", "imageinfo": [{"filemissing": True}]},
        ]
    },
}
FLICKR_LICENCES = {"stat": "ok", "licenses": {"license": [{"id": 4, "name": "Attribution", "url": "https://c"}]}}
FLICKR = {
    "stat": "ok",
    "photos": {
        "page": 1,
        "pages": 3,
        "photo": [
            {
                "id": "5",
                "owner": "6@N01",
                "title": "Hill",
                "license": "4",
                "ownername": "B",
                "url_l": "https://c/l.jpg",
            },
            {"id": "7", "owner": "8@N01", "title": "No rendition", "license": 0, "code": 105, "message": "busy"},
        ],
    },
}


def make_answer(random: Random) -> bytes:
    api = random.choice(("commons", "flickr"))
    example = COMMONS if api == "commons" else random.choice((FLICKR_LICENCES, FLICKR, FLICKR))
    error = {"error": {"code": random.choice(("maxlag", "x", 5)), "info": "lag"}, "stat": "fail", "code": 105}
    value = mutate_value(random, {**example, **(error if random.random() < 0.1 else {})})
    return pack({api: json_text(random, value), "licences": json_text(random, mutate_value(random, FLICKR_LICENCES))})


def check_answer(content: bytes) -> None:
    files = unpack(content)
    answers = [Fetched("https://api.example/", text, {}, 1) for name, text in files.items() if name != "licences"]
    source = "commons:Category:Lakes"
    if "flickr" in files:
        source, answers = "flickr:group/1@N0", [Fetched("https://api.example/", files["licences"], {}, 1), *answers]
    with refused(), patch.dict(os.environ, {web.FLICKR_KEY: "key"}):
        look_at(asyncio.run(web._find(Answers(*answers), source, 1, set())))


# Lists and inventories

WORDS = (
    *(
        "url",
        "licence",
        "license",
        "author",
        "title",
        "caption",
        ",",
        "\t",
        '"',
        '""',
        "\n",
        "\r\n",
        "\r",
        "#",
        "a.jpg",
    ),
    *(
        "http://a/b.jpg",
        "file:///x.jpg",
        "memory://a.jpg",
        "../a.jpg",
        "{",
        "}",
        ":",
        "[",
        "]",
        '{"url":',
        "\ufeff",
        "\0",
    ),
)
WEB_LIST = "https://a.example/lists/"


def written(kind: str, rows: list[dict[str, Any]]) -> str:
    """Returns rows as the text of a list."""
    if kind == "jsonl":
        return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    if kind == "txt":
        return "# photographs\n" + "\n".join(row["url"] for row in rows)
    tab = "\t" if kind == "tsv" else ","
    quoted = [[str(row.get(name) or "") for name in ITEM_SCHEMA.names] for row in rows]
    lines = [
        tab.join(f'"{text}"'.replace('a "h', 'a ""h') if "\n" in text or tab in text else text for text in row)
        for row in quoted
    ]
    return "\n".join([tab.join(ITEM_SCHEMA.names), *lines])


def make_list(random: Random) -> bytes:
    kind = random.choice(("csv", "tsv", "jsonl", "jsonl", "txt", "parquet"))
    rows = [random.choice(ROWS) for _ in range(random.randrange(1, 8))]
    if kind == "parquet":
        content = mutate_table(random, rows, ITEM_SCHEMA)
    elif kind == "jsonl" and random.random() < 0.5:
        content = b"\n".join(json_text(random, mutate_value(random, row)) for row in rows)
    else:
        content = mutate_text(random, written(kind, rows), WORDS)
    return pack({f"list.{kind}": content})


def check_list(content: bytes) -> None:
    """Reads a list in a folder, and the same list on the web."""
    ((name, text),) = unpack(content).items()
    with folder_of({name: text}) as folder:
        found = search([folder / name], "/elsewhere")
        look_at_found(found)
        look_at_found(find_again([reject for reject in found.rejects if "://" not in reject.source], "/elsewhere"))
    with refused():
        look_at(read_list(WEB_LIST + name, text))


INVENTORY = 'file\tlicense\tauthor\textra\nlake.jpg\tCC0-1.0\tSomebody\tx\nb/hill.jpg\tCC BY 4.0\t"A, B"\t\n'


def make_inventory(random: Random) -> bytes:
    name = random.choice(("inventory.tsv", "ATTRIBUTION.csv"))
    text = INVENTORY if name.endswith("tsv") else INVENTORY.replace("\t", ",")
    return pack({name: mutate_text(random, text, (*WORDS, "file", "lake.jpg")), "lake.jpg": b"", "b/hill.jpg": b""})


def check_inventory(content: bytes) -> None:
    with folder_of(unpack(content)) as folder, refused():
        look_at_found(search([folder], "/elsewhere"))


# Tars


def add(tar: tarfile.TarFile, name: str, content: bytes, **fields: Any) -> None:
    """Adds a member."""
    member = tarfile.TarInfo(name)
    for field, value in {"size": len(content), **fields}.items():
        setattr(member, field, value)
    tar.addfile(member, io.BytesIO(content) if content else None)


def make_tar(random: Random) -> bytes:
    parts = []
    for archive in range(random.choice((1, 1, 2))):
        buffer = io.BytesIO()
        form = random.choice((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))
        with tarfile.open(fileobj=buffer, mode="w", format=form, errors="surrogateescape") as tar:
            for number in range(random.randrange(1, 5)):
                key = random.choice(
                    ("lake", "a/hill.top", "ü" * 40 if form != tarfile.USTAR_FORMAT else "u", f"k{number}")
                )
                add(tar, f"{key}.jpg", b"\xff\xd8" + random.randbytes(600))
                about = {**random.choice(ROWS), "json": {"licence": "x"}}
                add(tar, f"{key}.json", json_text(random, mutate_value(random, about)))
            for kind in random.sample((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE), 2):
                add(tar, f"other{archive}", b"", type=kind, linkname="lake.jpg")
        parts.append(buffer.getvalue())
    content = b"".join(parts)
    return mutate_tar(random, content) if random.random() < 0.9 else content


def mutate_tar(random: Random, content: bytes) -> bytes:
    """Returns a tar whose headers have odd fields, with right checksums; or bytes changed; or both."""
    data = bytearray(content)
    for _ in range(random.randint(0, 3)):
        at = 512 * random.randrange(max(1, len(data) // 512))
        begin, size = random.choice(
            ((0, 100), (100, 8), (124, 12), (136, 12), (156, 1), (157, 100), (257, 8), (345, 155))
        )
        odd = (
            b"\0",
            b"\xff" * 12,
            b"\x80" + b"\0" * 7 + b"\xff" * 4,
            b"77777777777\0",
            b"-1\0",
            b"x",
            b"S",
            b"L",
            b"K",
            b"g",
            b"\xe9",
        )
        value = random.choice((*odd, b"../" * 20, random.randbytes(size)))[:size]
        data[at + begin : at + begin + len(value)] = value
        if at + 512 <= len(data):
            total = sum(data[at : at + 148]) + 8 * 32 + sum(data[at + 156 : at + 512])
            data[at + 148 : at + 156] = b"%06o\0 " % total
    return mutate(random, bytes(data)) if random.random() < 0.4 else bytes(data)


def check_tar(content: bytes) -> None:
    """Finds the pictures of a tar, and reads their bytes unless they are refused."""
    with folder_of({"set.tar": content}) as folder:
        found = search([folder / "set.tar"], "/elsewhere")
        look_at_found(found)
        for photograph in found.photographs:
            with ExitStack() as held, refused(Rejection), patch("time.sleep"):
                read_photograph(photograph, Memory(DEFAULT_BYTES).files, held)


TARGETS = {
    "pictures": Target(make_picture, check_picture, 6_000),
    "pages": Target(make_page, check_page, 8_000),
    "servers": Target(make_server, check_server, 14_000),
    "answers": Target(make_answer, check_answer, 12_000),
    "lists": Target(make_list, check_list, 8_000),
    "inventories": Target(make_inventory, check_inventory, 10_000),
    "tars": Target(make_tar, check_tar, 12_000),
}
