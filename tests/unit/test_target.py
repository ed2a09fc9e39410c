"""URLs taken apart: what is sent is what was given, and only what no URL may contain is quoted."""

import pytest
from pydantic import ValidationError

from upres.core.api import JobRequest
from upres.core.target import follow, parse

SIGNED = "/a%7Eb%2Dc%3d/%c3%a9;p=1/./../x//y?X-Sig=%2fAb%2B&e=[1]&q='*'~!$()&&=?%7e"


@pytest.mark.parametrize("path", [SIGNED, "/", "/a?", "/%7E", "/a:b@c", "/?a=b?c/d"])
def test_path_and_query_stay_as_they_are(path: str) -> None:
    assert parse(f"https://example.org{path}").path == path
    assert parse(follow("http://other/x", f"https://example.org{path}#part")).path == path


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("", "/"), ("?a", "/?a"), ("#a", "/"), ("/a b", "/a%20b"), ("/é?ü", "/%C3%A9?%C3%BC"), ("/100%", "/100%25"),
        ("/%zz%7e", "/%25zz%7e"), ('/"<>\\^`{|}', "/%22%3C%3E%5C%5E%60%7B%7C%7D"), ("/a%20b c", "/a%20b%20c"),
    ],
)  # fmt: skip
def test_only_characters_that_no_url_may_contain_are_quoted(given: str, sent: str) -> None:
    assert parse(f"http://example.org{given}").path == sent


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("HTTP://Example.ORG", "example.org", 80), ("https://example.org:", "example.org", 443),
        ("https://example.org:80/", "example.org", 80), ("http://bücher.example/", "xn--bcher-kva.example", 80),
        ("http://[2001:DB8::1]:8080/", "2001:db8::1", 8080), (" http://a_b/ ", "a_b", 80),
    ],
)  # fmt: skip
def test_host_and_port_are_found(url: str, host: str, port: int) -> None:
    assert (parse(url).host, parse(url).port) == (host, port)


def test_a_login_is_sent_only_to_the_host_of_its_url() -> None:
    assert parse("http://us%65r:p%40ss@example.org/").headers == {"Authorization": "Basic dXNlcjpwQHNz"}
    assert parse(follow("http://user:pass@example.org/", "http://example.net/")).headers == {}


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("/b?%7e", "http://a/b?%7e"), ("c%2d", "http://a/x/c%2d"), ("//b/c", "http://b/c"), ("?q", "http://a/x/y?q"),
        ("/é".encode().decode("latin-1"), "http://a/é"), ("https://b/%7E?", "https://b/%7E?"),
    ],
)  # fmt: skip
def test_redirects_are_followed_as_they_were_given(location: str, url: str) -> None:
    assert follow("http://a/x/y", location) == url


def test_bytes_of_a_redirect_that_are_not_utf_8_are_quoted_as_they_are() -> None:
    assert parse(follow("http://a/", "/caf\xe9")).path == "/caf%E9"


AMBIGUOUS = [
    "http://127.0.0.1:1\\@evil.example/", "http://evil.example\\@127.0.0.1/", "http:\\\\evil.example/",
    "http://a\\.example/", "http://a.example\t/", "ht\ntp://a.example/", "http://a.example\r\nHost: b/", "http://a b/",
    "http://[::1%25eth0]/", "http://[::1", "http://@/", "http://a:99999/", "http://a:b:80/", "http:///a", "http:a",
    "//a.example/", "file:///etc/passwd",
]  # fmt: skip


@pytest.mark.parametrize("url", AMBIGUOUS)
@pytest.mark.parametrize("field", ["image_url", "webhook_url"])
def test_a_url_that_programs_read_in_different_ways_is_refused_at_once(field: str, url: str) -> None:
    """By the function already, so that no other parser's host is compared with UPRES_FETCH_HOSTS."""
    given = {"image_url": "https://example.org/a.png", field: url}
    with pytest.raises(ValidationError, match="absolute http"):
        JobRequest.model_validate(given)


@pytest.mark.parametrize("url", ["https://user@example.org:8080/a?b#c", "http://bücher.example/é", " http://[::1]/ "])
def test_other_urls_are_accepted_as_before(url: str) -> None:
    assert JobRequest(image_url=url, webhook_url=url).image_url == url
