"""The digest of a request with an Idempotency-Key, by which two releases recognise the same request."""

from typing import Any

import pytest
from pydantic import Field

from upres.core.api import JobRequest
from upres.core.enqueue import IdempotencyRecord
from upres.function.parse import parse

URL = {"image_url": "https://example.org/a.png"}


class Newer(JobRequest):
    """The request of a release with one more option."""

    remove_grain: bool = Field(False, description="As an example.")


def digest(request: JobRequest) -> str:
    return IdempotencyRecord("key", request)._digest


@pytest.mark.parametrize(
    "given", [{}, {"upscale_factor": 2, "priority": "high"}, {"output_format": "jpeg", "quality": 5}]
)
def test_a_release_with_more_options_knows_the_request_again(given: dict[str, Any]) -> None:
    request = parse(URL | given)
    assert digest(Newer.model_validate(request.model_dump(exclude_defaults=True))) == digest(request)


def test_spelling_out_a_default_makes_no_other_request() -> None:
    assert digest(parse({**URL, "upscale_factor": "4", "output_format": "auto"})) == digest(parse(URL))


@pytest.mark.parametrize(
    "other", [{"upscale_factor": 2}, {"strength": 0.5}, {"image_url": "https://example.org/b.png"}]
)
def test_another_request_has_another_digest(other: dict[str, Any]) -> None:
    assert digest(parse(URL | other)) != digest(parse(URL))
