"""URLs from outside sources: which may be opened, which server they mean, and what of them may be shown."""

import hashlib
import ipaddress
import re
import socket
from typing import Final
from urllib.parse import quote, urljoin, urlsplit

from yarl import URL

from model.errors import InputError

WEB: Final = ("http", "https")
"""Schemes opened by ``Fetcher`` alone, which applies the crawl limits and deadlines and avoids private networks."""

STORES: Final = ("gs", "gcs", "s3", "s3a", "az", "abfs", "abfss", "memory")
"""Schemes of object stores, whose clients connect to their own service, whatever the URL says."""

LOCAL: Final = ("", "file", "local")
"""Schemes of files on this machine; a plain path has none."""

_TOKEN = re.compile(
    r"(token|signature|secret|credentials?|api_?key|access_?key(_?id)?|access_?id|(subscription|private|auth)_?key"
    r"|sess(ion)?_?id|passw(or)?d|passphrase)$|^(sig|pwd|pass|auth|authorization|jwt|hmac|session|sid)$"
)
_PASSWORD = re.compile(r"(secret|passw(or)?d|passphrase)$|^(pwd|pass)$")
_USER = re.compile(r"(?<=://)[^/?#]*@")
_PARAMETER = re.compile(r"(?<=[?&;#])([^=&;#\s]+)=([^&;#\s]+)")
_REDACTED: Final = "redacted"


class NotAllowedError(InputError):
    """Raised for a URL or path that is not allowed in the place that names it."""


def scheme_of(url: str) -> str:
    """Returns the part before ``://`` in lower case; an empty string for a path."""
    text = url.strip()
    if text[:5].lower() == "data:":
        return "data"
    return text.split("://")[0].lower() if "://" in text else ""


def is_web(url: str) -> bool:
    """Returns whether a URL is one for ``Fetcher``, even if it later proves invalid."""
    return scheme_of(url) in WEB


def check_scheme(url: str, listed_at: str = "") -> None:
    """Refuses a source of a kind that must not be opened.

    Args:
        url: the URL or path of a photograph, list, page or folder.
        listed_at: the URL or path of the list or page that names it; empty for a source on the command line.

    Raises:
        NotAllowedError: the URL's scheme is not allowed there. Sources on the web may name only the web, object stores
            never this machine, and nothing may name other kinds of file systems.
    """
    home, scheme = scheme_of(listed_at), scheme_of(url)
    allowed = WEB if home in WEB else (*WEB, *STORES) if home in STORES else (*WEB, *STORES, *LOCAL)
    if scheme not in allowed:
        place = f"in a list or page at {home}://" if home else "as a source"
        what = f"{scheme}:// is not allowed" if scheme else "a local path is not allowed"
        cure = ", ".join(f"{name}://" for name in allowed if name not in (*LOCAL, "memory"))
        raise NotAllowedError(f"{redact(url)}: {what} {place}; give {cure}{' or a path' if '' in allowed else ''}")


def resolve(entry: str, listed_at: str) -> str:
    """Resolves an entry of a list; a relative entry is relative to the list's own folder.

    Args:
        entry: a URL or path, as the list gives it.
        listed_at: the URL or path of the list.

    Raises:
        NotAllowedError: the entry's scheme is not allowed in such a list.
        InputError: the entry is not a URL.
    """
    if is_web(listed_at):
        try:
            url = urljoin(listed_at, entry)
        except ValueError as error:  # brackets that do not hold an address
            raise InputError(f"{redact(entry)} is not a URL: {error}") from None
    elif scheme_of(entry):
        url = entry
    else:
        url = _beside(entry, listed_at)
    check_scheme(url, listed_at)
    return url


def _beside(path: str, listed_at: str) -> str:
    """Returns a path; a relative one is relative to the folder of a list."""
    folder, slash, _ = listed_at.rpartition("/")
    return path if path.startswith("/") or not slash else f"{folder}/{path}"


def asked_url(url: str) -> URL:
    """Returns the URL to send to a server. Percent-encoding stays as written, because signed URLs depend on it.

    Only what HTTP cannot carry is encoded. The host is normalised and dot segments are resolved, so that robots.txt is
    checked for the path that the server will look up.

    Raises:
        ValueError: the URL is not one of the web.
    """
    text = url.strip()
    try:
        parts, whole = urlsplit(text), URL(text)
    except IndexError:  # raised by yarl for empty brackets
        raise ValueError("its host is in brackets but is not an address") from None
    host = _normal_host(whole.raw_host or "")
    if parts.scheme not in WEB or not host:
        raise ValueError("it is not an http or https URL with a host")
    user = f"{whole.raw_user or ''}:{whole.raw_password or ''}@" if "@" in parts.netloc else ""
    port = "" if whole.explicit_port is None else f":{whole.explicit_port}"
    query = f"?{_carried(parts.query)}" if parts.query else ""
    return URL(f"{parts.scheme}://{user}{host}{port}{_without_dots(_carried(parts.path))}{query}", encoded=True)


def _carried(text: str) -> str:
    """Percent-encodes what must not appear in a request line."""
    return quote(text, safe="%!$&'()*+,-./:;=?@[]\\^_|~", errors="surrogateescape")


def _without_dots(path: str) -> str:
    kept: list[str] = []
    segments = path.split("/")[1:]
    for number, segment in enumerate(segments, start=1):
        plain = segment.lower().replace("%2e", ".")
        if plain == "..":
            kept[-1:] = []
        elif plain != ".":
            kept.append(segment)
        if plain in (".", "..") and number == len(segments):
            kept.append("")
    return "/" + "/".join(kept)


def host_key(url: str) -> str:
    """Returns the normalised scheme, host and port of a web URL, by which limits and robots.txt are applied.

    User names, the scheme's default port, a trailing dot, letter case, and the spelling of international names and
    numeric addresses make no difference. Empty for a URL that is not on the web or names no host.
    """
    if not is_web(url):
        return ""
    try:
        return str(asked_url(url).origin())
    except ValueError:  # brackets without an address, a port that is not a number, a name that IDNA forbids
        return ""


def _normal_host(host: str) -> str:
    """Returns a normalised host name, or its address, in brackets for IPv6."""
    host = host.rstrip(".").lower()
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return _dotted(host)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return f"[{address}]"
    return str(getattr(address, "ipv4_mapped", None) or address)


def _dotted(host: str) -> str:
    """Returns an IPv4 address written as 127.1, 0x7f000001 or 2130706433 in its usual form; other names unchanged."""
    if not host[:1].isdigit():
        return host
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        return host


def redact(text: str) -> str:
    """Removes secrets from a URL, or from a text that holds URLs.

    User names and passwords are dropped. Tokens and signatures in a query are replaced by a short checksum, so that
    URLs that differ only in them still differ; passwords there are replaced outright. All else stays unchanged.
    """
    if "://" not in text:
        return text
    before, redacted = "", text
    while redacted != before:  # what is left when a user name is gone may be a parameter
        before, redacted = redacted, _USER.sub("", _PARAMETER.sub(_without_secret, redacted))
    return redacted


def _without_secret(match: re.Match[str]) -> str:
    name, value = match[1], match[2]
    plain = re.sub(r"[^a-z_]", "_", name.lower()).strip("_")
    if not _TOKEN.search(plain) or value.startswith(_REDACTED):
        return match[0]
    digest = "" if _PASSWORD.search(plain) else "-" + hashlib.sha256(value.encode("utf-8", "replace")).hexdigest()[:8]
    return f"{name}={_REDACTED}{digest}"
