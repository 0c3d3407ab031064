import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from model.errors import InputError
from transforms.storage.urls import asked_url, check_scheme, host_key, is_web, redact, resolve, scheme_of


@pytest.mark.parametrize(
    "spelling",
    [
        *("http://example.org/", "HTTP://Example.ORG/a", "http://u:p@example.org/", "http://u@example.org:80/b?c#d"),
        *("http://example.org./", "http://example.org.:80", " http://example.org/ ", "http://:@example.org/"),
        "http://EXAMPLE。org/",
    ],
)
def test_a_host_has_one_key_however_it_is_spelled(spelling):
    assert host_key(spelling) == "http://example.org"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://bücher.example:443/", "https://xn--bcher-kva.example/"),
        ("http://127.0.0.1:8080/", "http://0x7f000001:8080/"),
        ("http://127.0.0.1:8080/", "http://127.1:8080/"),
        ("http://127.0.0.1:8080/", "http://[::ffff:7f00:1]:8080/"),
        ("http://[2606:2800:220:1::1]/", "http://[2606:2800:0220:0001:0:0:0:1]:80/"),
    ],
)
def test_spellings_of_names_and_addresses_are_one_host(one, other):
    assert host_key(one) == host_key(other) != ""


def test_schemes_and_ports_are_hosts_of_their_own():
    keys = {host_key(f"{where}/a") for where in ("http://h", "https://h", "http://h:8080", "http://www.h")}
    assert keys == {"http://h", "https://h", "http://h:8080", "http://www.h"}


@pytest.mark.parametrize(
    "url", ["gs://b/x", "/a", "http://", "http://[", "http://[a:b]@h/", "http://h:x/", "http://]", "ftp://h"]
)
def test_what_has_no_host_on_the_web_has_no_key(url):
    assert host_key(url) == ""


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("http://h/%e9t%E9.jpg?a=%2f", "http://h/%e9t%E9.jpg?a=%2f"),
        ("http://h/a b/\u00e9?c d=\u00e9#f", "http://h/a%20b/%C3%A9?c%20d=%C3%A9"),
        ("http://h/caf\udce9.jpg", "http://h/caf%E9.jpg"),
        ("http://h/x/../private/./a", "http://h/private/a"),
        ("http://h/x/%2e%2E/a/..", "http://h/"),
        ("http://h/../../a//b/", "http://h/a//b/"),
        ("http://u:p%40@H.:80?q", "http://u:p%40@h/?q"),
        ("http://[::1]:8080/a", "http://[::1]:8080/a"),
        ("http://b\u00fccher.example/", "http://xn--bcher-kva.example/"),
    ],
)
def test_a_server_is_asked_for_what_is_written_as_far_as_http_can_carry_it(url, asked):
    assert str(asked_url(url)) == asked


@given(st.text(max_size=30), st.text(max_size=30))
def test_whatever_a_url_holds_it_can_be_asked_for_or_is_refused(host, path):
    for url in (f"http://{host}/{path}", f"https://h/{path}"):
        try:
            assert str(asked_url(url)).isascii()
        except ValueError:
            assert host_key(url) == ""
        else:
            assert host_key(url)


WEB_LIST, STORE_LIST, LOCAL_LIST = "http://h/lists/a.csv", "gs://bucket/lists/a.csv", "/lists/a.csv"


@pytest.mark.parametrize(
    ("listed_at", "entry", "place"),
    [
        (WEB_LIST, "b.jpg", "http://h/lists/b.jpg"),
        (WEB_LIST, "/abs/b.jpg", "http://h/abs/b.jpg"),
        (WEB_LIST, "//cdn/b.jpg", "http://cdn/b.jpg"),
        (WEB_LIST, "https://x/b.jpg", "https://x/b.jpg"),
        (STORE_LIST, "b.jpg", "gs://bucket/lists/b.jpg"),
        (STORE_LIST, "s3://x/b.jpg", "s3://x/b.jpg"),
        (LOCAL_LIST, "b.jpg", "/lists/b.jpg"),
        (LOCAL_LIST, "/abs/b.jpg", "/abs/b.jpg"),
        (LOCAL_LIST, "file:///abs/b.jpg", "file:///abs/b.jpg"),
        (LOCAL_LIST, "http://x/b.jpg", "http://x/b.jpg"),
        (LOCAL_LIST, "a::b.jpg", "/lists/a::b.jpg"),
        ("a.csv", "b.jpg", "b.jpg"),
        ("/a.csv", "b.jpg", "/b.jpg"),
    ],
)
def test_an_entry_is_meant_from_its_lists_folder(listed_at, entry, place):
    assert resolve(entry, listed_at) == place


ELSEWHERE = (
    *("ftp://h/a.jpg", "webhdfs://127.0.0.1/a.jpg", "WebHDFS://h/a", "sftp://h/a", "smb://h/a", "hdfs://h/a"),
    *("github://o:r@main/a.jpg", "git://x", "zip://a.jpg::http://h/a.zip", "simplecache::http://h/a.jpg"),
    *("data:image/png;base64,AAAA", "reference://x", "jupyter://h/a", "dask://h/a", "x/http://h/a", "a.jpg::http://h/"),
)


@pytest.mark.parametrize("listed_at", [WEB_LIST, STORE_LIST, LOCAL_LIST, "a.txt"])
@pytest.mark.parametrize("entry", ELSEWHERE)
def test_no_list_leads_to_other_file_systems(listed_at, entry):
    try:
        place = resolve(entry, listed_at)
    except InputError:
        return
    assert place.startswith("http://h/lists/")  # for a web server's list it is a relative name


@pytest.mark.parametrize("entry", ["file:///etc/passwd", "local:///etc/passwd", "gs://b/a", "memory://a", "FILE:///a"])
def test_a_list_from_the_web_leads_to_the_web_alone(entry):
    with pytest.raises(InputError, match="not allowed"):
        resolve(entry, WEB_LIST)


@pytest.mark.parametrize("entry", ["/etc/passwd", "file:///etc/passwd"])
def test_a_list_from_a_store_does_not_lead_to_this_machine(entry):
    with pytest.raises(InputError, match="not allowed"):
        resolve(entry, STORE_LIST)


def test_a_person_may_name_paths_stores_and_the_web():
    for source in ("/a", "a/b", "gs://b/a", "s3://b/a", "https://h/a", "memory://a", "file:///a"):
        check_scheme(source)
    with pytest.raises(InputError, match="ftp:// is not allowed as a source"):
        check_scheme("ftp://u:s3cret@h/a")


@given(st.text(max_size=40), st.sampled_from([WEB_LIST, STORE_LIST, LOCAL_LIST, "a.csv"]))
def test_whatever_an_entry_is_it_is_refused_or_of_an_allowed_kind(entry, listed_at):
    try:
        place = resolve(entry, listed_at)
    except InputError:
        return
    kinds = {WEB_LIST: ("http", "https"), STORE_LIST: ("http", "https", "gs", "gcs", "s3", "s3a")}
    assert scheme_of(place) in kinds.get(listed_at, (*kinds[STORE_LIST], "", "file", "local", "memory", "az", "abfs"))
    assert is_web(place) or listed_at != WEB_LIST


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://alice:S3CRET@h/a.jpg", "http://h/a.jpg"),
        ("http://alice:S3@CRET@h:81/a@b.jpg", "http://h:81/a@b.jpg"),
        ("ftp://u%3ap@h", "ftp://h"),
        ("HTTP://a b:S3CRET@h/", "HTTP://h/"),
        ("https://h/a?password=S3CRET&w=1", "https://h/a?password=redacted&w=1"),
        ("cannot read http://u:S3CRET@h/x?w=1: gone", "cannot read http://h/x?w=1: gone"),
    ],
)
def test_what_opens_doors_is_not_shown(url, shown):
    assert redact(url) == shown


@pytest.mark.parametrize(
    "name",
    [
        *("X-Amz-Signature", "X-Amz-Credential", "X-Amz-Security-Token", "X-Goog-Signature", "GoogleAccessId"),
        *("Signature", "AWSAccessKeyId", "sig", "token", "access_token", "api_key", "apikey", "API-Key"),
        *("client_secret", "auth", "sid", "oauth_token", "PHPSESSID", "jsessionid", "Ocp-Apim-Subscription-Key"),
        *("passwd", "authToken", "x%2Dtoken"),
    ],
)
def test_tokens_and_signatures_are_not_shown_but_still_tell_urls_apart(name):
    one, other = (f"https://h/a.jpg?w=5&{name}={value}#b" for value in ("S3CRET", "0THER"))
    assert "S3CRET" not in redact(one)
    assert redact(one) == redact(redact(one))
    assert redact(one).startswith(f"https://h/a.jpg?w=5&{name}=redacted")
    assert redact(one) != redact(other) or name in ("client_secret", "passwd")
    assert "S3CRET" not in redact(f"https://h/a.jpg#{name}=S3CRET")


@pytest.mark.parametrize(
    "url",
    [
        *("https://h/a.jpg", "https://h/a@b.jpg?width=5&author=x&key=3&page=2#top", "/a/b?token=x.jpg"),
        *("gs://b/a.jpg", "/photos/me@home/a.jpg", "https://h/@user/a.jpg", "https://h/?q=a@b"),
        "https://h/a.jpg?keyword=lake&tokens=2",
    ],
)
def test_what_has_no_secrets_keeps_its_name(url):
    assert redact(url) == url


@given(st.lists(st.sampled_from(["://", "/", "?", "&", "token", "=", "@", ":", ";", "#", "a", "http"])).map("".join))
@example(";://=@token=://")
def test_redacting_twice_is_redacting_once(text):
    assert redact(redact(f"http://{text}")) == redact(f"http://{text}")
