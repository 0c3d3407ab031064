"""What a web page shows and links to: its pictures, each at its largest rendition, and its links."""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import urldefrag, urljoin, urlsplit

from transforms.lists import PICTURE_SUFFIXES


@dataclass
class Page:
    """A page's content.

    Attributes:
        pictures: URLs, and the text that stands for each.
        links: URLs that are no pictures by their names.
        robots: the contents of the meta tags for robots.
    """

    pictures: dict[str, str | None] = field(default_factory=dict)
    links: list[str] = field(default_factory=list)
    robots: list[str] = field(default_factory=list)


def read_page(url: str, content: bytes, encoding: str | None) -> Page:
    """Reads a page; broken markup is read as far as it goes.

    Args:
        url: from which relative links are meant.
        content: HTML.
        encoding: as the server says.
    """
    try:
        text = content.decode(encoding or "utf-8", "replace")
    except LookupError:
        text = content.decode("utf-8", "replace")
    parser = _PageParser(url)
    parser.feed(text)
    parser.close()
    return parser.page


def is_picture_url(url: str) -> bool:
    """Whether a URL's path ends like a picture's name."""
    return urlsplit(url).path.lower().endswith(PICTURE_SUFFIXES)


class _PageParser(HTMLParser):
    """Collects as the markup goes by. A link around an image is taken for its larger rendition, if it is a picture."""

    def __init__(self, url: str) -> None:
        super().__init__(convert_charrefs=True)
        self.page = Page()
        self._base = url
        self._link: str | None = None
        self._renditions: list[tuple[float, str]] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """HTMLParser's hook."""
        values = {name: value or "" for name, value in attrs}
        if tag == "base" and values.get("href"):
            self._base = urljoin(self._base, values["href"])
        elif tag == "meta" and values.get("name", "").lower() in ("robots", "infinitygan"):
            self.page.robots.append(values.get("content", ""))
        elif tag == "a" and values.get("href"):
            self._add_link(values["href"])
        elif tag == "picture":
            self._renditions = []
        elif tag == "source" and self._renditions is not None:
            self._renditions += _renditions(values)
        elif tag == "img":
            self._add_image([*(self._renditions or []), *_renditions(values)], values.get("alt") or None)

    def handle_endtag(self, tag: str) -> None:
        """HTMLParser's hook."""
        if tag == "a":
            self._link = None
        elif tag == "picture":
            self._renditions = None

    def _add_link(self, href: str) -> None:
        url = self._absolute(href)
        if url is None:
            return
        if is_picture_url(url):
            self._link = url
            self.page.pictures.setdefault(url, None)
        else:
            self._link = None
            self.page.links.append(url)

    def _add_image(self, renditions: list[tuple[float, str]], text: str | None) -> None:
        if self._link is not None:
            self.page.pictures[self._link] = text
            return
        for _, reference in sorted(renditions, key=lambda rendition: -rendition[0]):
            url = self._absolute(reference)
            if url is not None:
                self.page.pictures.setdefault(url, text)
                return

    def _absolute(self, reference: str) -> str | None:
        try:
            url = urldefrag(urljoin(self._base, reference.strip())).url
            return url if urlsplit(url).scheme in ("http", "https") and urlsplit(url).netloc else None
        except ValueError:  # brackets that are no address
            return None


def _renditions(values: dict[str, str]) -> list[tuple[float, str]]:
    """The URLs of an image element and how large each is: by its width, or else by its density."""
    found = [(1.0, values[name]) for name in ("src", "data-src") if values.get(name)]
    for name in ("srcset", "data-srcset"):
        # URLs may hold commas, but a comma that ends one stands before white space.
        for candidate in values.get(name, "").replace(",\n", ", ").split(", "):
            parts = candidate.strip().rstrip(",").split()
            if parts:
                found.append((_size(parts[1]) if len(parts) > 1 else 1.0, parts[0]))
    return found


def _size(descriptor: str) -> float:
    try:
        return float(descriptor[:-1]) if descriptor[-1:] in "wx" else 1.0
    except ValueError:
        return 1.0
