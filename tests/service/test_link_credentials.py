"""Links signed with temporary credentials: these are renewed in time, and no link says that it lives longer."""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from boto3.session import Session
from botocore.credentials import DeferredRefreshableCredentials, RefreshableCredentials
from botocore.exceptions import MetadataRetrievalError

from upres.core import keys, link_credentials
from upres.core.api import UploadRequest
from upres.core.errors import StoreUnavailable
from upres.core.settings import Settings
from upres.core.storage import Store
from upres.function import uploads
from upres.function.access import ANYBODY
from upres.function.services import Services

SETTINGS = Settings(s3_endpoint_url="http://127.0.0.1:9")
SHORT = 20 * 60
"""Seconds that credentials last, more than the quarter of an hour in which botocore renews them by itself."""


class Source:
    """Where credentials come from; it gives each time those that last the next number of seconds."""

    def __init__(self, *lifetimes: float) -> None:
        self._lifetimes: Iterator[float] = iter(lifetimes)
        self.asked = 0

    def __call__(self) -> dict[str, str]:
        self.asked += 1
        try:
            ends = datetime.now(UTC) + timedelta(seconds=next(self._lifetimes))
        except StopIteration:
            raise MetadataRetrievalError(error_msg="away") from None
        return {"access_key": f"key{self.asked}", "secret_key": "s", "token": "t", "expiry_time": ends.isoformat()}


def session(credentials: object) -> Session:
    made = Session(region_name="eu-central-1")
    untyped: Any = made
    untyped._session._credentials = credentials
    return made


def temporary(source: Source) -> Store:
    return Store(SETTINGS, session(RefreshableCredentials.create_from_metadata(source(), source, "test")))


def lifetime(url: str) -> tuple[int, str]:
    """The seconds that a link states, and the key that signed it."""
    query = parse_qs(urlsplit(url).query)
    return int(query["X-Amz-Expires"][0]), query["X-Amz-Credential"][0].split("/")[0]


def test_credentials_that_end_before_a_link_are_renewed_before_it_is_signed() -> None:
    source = Source(SHORT, 6 * 3600)
    store = temporary(source)
    assert lifetime(store.presign("results/a", "a.png")) == (keys.LINK_SECONDS, "key2")
    assert lifetime(store.presign("results/a", "a.png")) == (keys.LINK_SECONDS, "key2")
    assert source.asked == 2


def test_a_link_lives_as_long_as_credentials_that_cannot_last_longer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source = Source(SHORT, SHORT, SHORT, SHORT)
    store = temporary(source)
    with caplog.at_level(logging.WARNING, "upres.store"):
        for _ in range(3):
            seconds, _ = lifetime(store.presign("results/a", "a.png"))
            assert SHORT - 30 <= seconds <= SHORT
    assert source.asked == 2, "they are not asked for each time"
    assert len(caplog.messages) == 1
    monkeypatch.setattr(link_credentials, "RENEW_SECONDS", 0)
    other = temporary(source)
    other.presign("results/a", "a.png")
    assert source.asked == 4


def test_the_answer_to_an_upload_says_when_its_link_ends() -> None:
    services = Services(SETTINGS)
    services.store = temporary(Source(605, 605, 605))
    made = uploads.create(services, UploadRequest(bytes=9), ANYBODY)
    seconds, _ = lifetime(made.upload_url)
    assert seconds <= 605
    assert abs((made.expires_at - datetime.now(UTC)).total_seconds() - seconds) < 10


def test_links_are_made_while_the_source_of_credentials_is_away() -> None:
    seconds, key = lifetime(temporary(Source(SHORT)).presign_put("uploads/a", 9))
    assert (seconds, key) == (keys.UPLOAD_LINK_SECONDS, "key1")
    seconds, key = lifetime(temporary(Source(SHORT)).presign("results/a", "a.png"))
    assert (seconds <= SHORT, key) == (True, "key1")


@pytest.mark.parametrize("lifetimes", [(-5,), (-5, -5)])
def test_no_link_is_made_with_credentials_that_have_ended(lifetimes: tuple[float, ...]) -> None:
    with pytest.raises(StoreUnavailable):
        temporary(Source(*lifetimes)).presign("results/a", "a.png")


def test_credentials_of_an_assumed_role_are_asked_for_at_the_first_link() -> None:
    source = Source(6 * 3600)
    store = Store(SETTINGS, session(DeferredRefreshableCredentials(source, "assume-role")))
    assert lifetime(store.presign("results/a", "a.png")) == (keys.LINK_SECONDS, "key1")
    assert source.asked == 1
