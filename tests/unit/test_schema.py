"""Messages (which values are accepted or refused, with which error code), settings, and the tree of error classes."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from tests.support.events import RESULT
from tests.support.paths import ROOT
from upres.core.api import EstimateRequest, JobAccepted, JobRequest, Problem, UploadRequest
from upres.core.errors import InvalidJson, InvalidRequest, SettingsError, UpresError, tree
from upres.core.job_message import JobMessage
from upres.core.manifest import Manifest
from upres.core.schema import Cancelled, Snapshot, StrictModel, TolerantModel, now
from upres.core.settings import Settings
from upres.function.parse import CODES, EXPECTED, parse, parse_json

URL = {"image_url": "https://example.org/a.png"}


@pytest.mark.parametrize("factor", [1, 2, 4, 8, "1", "2", "4", "8", 4.0, " 4 "])
def test_factors_are_accepted_as_number_and_as_text(factor: object) -> None:
    assert parse({**URL, "upscale_factor": factor}).upscale_factor == int(str(factor).strip()[0])


@pytest.mark.parametrize(
    ("given", "kept"), [(2.5, 2.5), ("2.5", 2.5), (1, 1), ("3.0", 3), (1 / 3 + 2, 2.3333), (7.99999, 8), ("2.50", 2.5)]
)
def test_other_factors_are_kept_with_four_decimals_and_whole_ones_as_whole_numbers(given: object, kept: float) -> None:
    factor = parse({**URL, "upscale_factor": given}).upscale_factor
    assert (factor, type(factor)) == (kept, type(kept))


@pytest.mark.parametrize("size", [{"output_width": 900}, {"output_width": 900, "output_height": 700, "fit": "exact"}])
def test_a_size_takes_the_place_of_the_factor_in_the_request_and_in_the_queue(size: dict[str, Any]) -> None:
    request = parse({**URL, **size})
    assert request.upscale_factor is None
    stored = (
        MESSAGES[2].model_copy(update={"upscale_factor": None, **size}).model_dump(mode="json", exclude_defaults=True)
    )
    assert (stored["upscale_factor"], JobMessage.model_validate(stored).wanted_size) == (None, request.wanted_size)


def test_a_whole_factor_stays_one_in_stored_events() -> None:
    for stored, read in (("2", "2"), ("2.0", "2"), ("2.5", "2.5")):
        result = RESULT.model_dump_json().replace('"upscale_factor":4', f'"upscale_factor":{stored}')
        assert f'"upscale_factor":{read},' in type(RESULT).model_validate_json(result).model_dump_json()


def test_request_fields_have_default_values() -> None:
    request = parse(URL)
    assert (request.upscale_factor, request.output_format, request.priority, request.model) == (
        4,
        "auto",
        "normal",
        None,
    )


@pytest.mark.parametrize(("given", "format"), [("JPG", "jpeg"), ("jpeg", "jpeg"), ("TIF", "tiff"), ("webp", "webp")])
def test_output_format_ignores_case_and_accepts_jpg(given: str, format: str) -> None:
    assert parse({**URL, "output_format": given}).output_format == format


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({}, "image_missing", "image_url, image_base64 or image_key"),
    ({**URL, "image_base64": "eA=="}, "image_ambiguous", "once"),
    ({**URL, "image_key": "uploads/a"}, "image_ambiguous", "once"),
    ({"image_url": "ftp://example.org/a.png"}, "invalid_image_url", "http"),
    ({"image_url": "example.org/a.png"}, "invalid_image_url", "http"),
    ({"image_url": "http://"}, "invalid_image_url", "http"),
    ({"image_url": "http://[::1"}, "invalid_image_url", "http"),
    ({"image_url": 7}, "invalid_image_url", "http"),
    ({"image_url": "http://a/" + "x" * 9000}, "invalid_image_url", "8192"),
    ({"image_key": "results/x"}, "invalid_image_key", "uploads/"),
    ({"image_key": "uploads/../models"}, "invalid_image_key", "uploads/"),
    ({**URL, "upscale_factor": 9}, "unsupported_factor", "1 to 8"),
    ({**URL, "upscale_factor": "three"}, "unsupported_factor", "1 to 8"),
    ({**URL, "upscale_factor": True}, "unsupported_factor", "1 to 8"),
    ({**URL, "upscale_factor": None}, "unsupported_factor", "1 to 8"),
    ({**URL, "upscale_factor": [4]}, "unsupported_factor", "1 to 8"),
    ({**URL, "upscale_factor": float("nan")}, "unsupported_factor", "1 to 8"),
    ({**URL, "upscale_factor": 0.999}, "unsupported_factor", "1 to 8"),
    ({**URL, "upscale_factor": "1e0"}, "unsupported_factor", "1 to 8"),
    ({**URL, "output_width": 0}, "invalid_output_size", "whole number"),
    ({**URL, "output_height": True}, "invalid_output_size", "whole number"),
    ({**URL, "output_height": 20.5}, "invalid_output_size", "whole number"),
    ({**URL, "output_width": 10**6 + 1}, "invalid_output_size", "1000000"),
    ({**URL, "output_width": 900, "upscale_factor": 4}, "invalid_output_size", "not with upscale_factor"),
    ({**URL, "output_width": 900, "fit": "exact"}, "invalid_fit", "both"),
    ({**URL, "fit": "exact"}, "invalid_fit", "both"),
    ({**URL, "fit": "outside"}, "invalid_fit", "inside or exact"),
    ({**URL, "model": "../secret"}, "unknown_model", "name of a model"),
    ({**URL, "output_format": "bmp"}, "unsupported_format", "png, jpeg, webp, avif, jxl, tiff or gif"),
    *(({**URL, "quality": bad}, "invalid_quality", "1 to 100") for bad in (0, 101, True, "85", 85.5)),
    *(({**URL, "lossless": bad}, "invalid_lossless", "true or false") for bad in (1, "true", 0)),
    ({**URL, "quality": 80, "output_format": "png"}, "invalid_quality", "png is always lossless"),
    ({**URL, "quality": 80, "output_format": "tif"}, "invalid_quality", "tiff is always lossless"),
    ({**URL, "quality": 80, "lossless": True}, "invalid_lossless", "not both"),
    ({**URL, "lossless": True, "output_format": "jpeg"}, "invalid_lossless", "jpeg is never lossless"),
    ({**URL, "lossless": True, "output_format": "avif"}, "invalid_lossless", "avif is never lossless"),
    ({**URL, "lossless": False, "output_format": "png"}, "invalid_lossless", "png is always lossless"),
    ({**URL, "lossless": False, "output_format": "tiff"}, "invalid_lossless", "tiff is always lossless"),
    ({**URL, "output_depth": 16, "output_format": "avif"}, "unsupported_depth", "tiff or jxl"),
    ({**URL, "frames": 2}, "invalid_frames", "all or first"),
    ({**URL, "quality": 80, "output_format": "gif"}, "invalid_quality", "255 colours"),
    ({**URL, "lossless": True, "output_format": "gif"}, "invalid_lossless", "never lossless"),
    ({**URL, "priority": "urgent"}, "invalid_priority", "normal or high"),
    *(
        ({**URL, "deadline_seconds": bad}, "invalid_deadline", "1 to 518400")
        for bad in (0, -1, 1e9, "soon", None, "NaN")
    ),
    ({**URL, "image_name": "x" * 256}, "invalid_image_name", "255"),
    ({**URL, "factor": 4}, "unknown_field", "upscale_factor"),
]


@pytest.mark.parametrize("given", [
    {"quality": 1}, {"quality": 100, "output_format": "avif"}, {"lossless": True},
    {"quality": 80, "lossless": False, "output_format": "jxl"},
    {"lossless": True, "output_format": "png"}, {"lossless": True, "output_format": "TIFF"},
    {"lossless": True, "output_format": "jxl", "output_depth": 16}, {"lossless": False, "output_format": "jpeg"},
    {"quality": None, "lossless": None, "output_format": "png"},
])  # fmt: skip
def test_quality_and_lossless_are_accepted_where_the_format_has_them(given: dict[str, Any]) -> None:
    request = parse({**URL, **given})
    assert (request.quality, request.lossless) == (given.get("quality"), given.get("lossless"))


def test_a_thousand_unknown_fields_are_one_invalid_json_error() -> None:
    with pytest.raises(InvalidJson):
        parse({str(number): 0 for number in range(1000)})


def test_every_request_field_has_an_error_code_and_an_expected_value() -> None:
    fields = {name for model in (JobRequest, UploadRequest, EstimateRequest) for name in model.model_fields}
    assert set(CODES) == set(EXPECTED) == fields


@pytest.mark.parametrize(("payload", "code", "says"), BAD)
def test_the_error_for_a_bad_field_says_what_is_expected(payload: dict[str, Any], code: str, says: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(payload)
    assert caught.value.code == code
    assert says in str(caught.value)
    [error] = caught.value.errors
    assert len(error["given"]) <= 81


def test_all_bad_fields_are_listed() -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse({**URL, "upscale_factor": 9, "priority": "urgent"})
    assert [error["field"] for error in caught.value.errors] == ["upscale_factor", "priority"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b"7", b"null", b"\xff\xfe", b"[" * 100_000])
def test_a_body_that_is_not_a_json_object_raises_invalid_json(body: bytes) -> None:
    with pytest.raises(InvalidJson):
        parse_json(body)


any_text = st.text(st.characters(codec=None))
json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | any_text, lambda inner: st.lists(inner, max_size=3)
)


@given(st.dictionaries(st.sampled_from([*JobRequest.model_fields, "other"]), json_values))
def test_any_json_object_is_a_valid_request_or_raises_invalid_request(payload: dict[str, Any]) -> None:
    try:
        request = parse(payload)
    except InvalidRequest:
        return
    assert JobRequest.model_validate_json(request.model_dump_json()) == request


MESSAGES: list[BaseModel] = [
    JobRequest(image_url="http://a/b", upscale_factor=2, output_format="png", priority="high", image_name="ü.png"),
    JobAccepted(job_id="0" * 32, status="queued", channel="c", events_url="e", status_url="s"),
    JobMessage(
        job_id="0" * 32, image_key="uploads/x", upscale_factor=8, model="m", model_version="1",
        model_digest="0", output_format="auto",
        submitted_at=now(), deadline=now(),
    ),
    RESULT,
    Snapshot(
        job_id="0" * 32, status="succeeded", upscale_factor=4, model="m", model_version="1", output_format="auto",
        submitted_at=now(), updated_at=now(), deadline=now(), result=RESULT,
    ),
    Problem(type="t", title="t", status=404, detail="d", code="c", retryable=False),
    Manifest.model_validate_json((ROOT / "models/faithful/1/manifest.json").read_text()),
]  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_every_message_is_immutable_and_unchanged_by_json(message: BaseModel) -> None:
    kind = type(message)
    assert kind.model_validate_json(message.model_dump_json(exclude_none=True)) == message
    with pytest.raises(ValidationError, match="frozen"):
        setattr(message, next(iter(kind.model_fields)), None)


def kinds(base: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for kind in base.__subclasses__():
        yield kind
        yield from kinds(kind)


@pytest.mark.parametrize("kind", [Settings, *kinds(StrictModel), *kinds(TolerantModel)], ids=lambda kind: kind.__name__)
def test_every_field_has_a_description(kind: type[BaseModel]) -> None:
    assert [name for name, field in kind.model_fields.items() if not field.description] == []


@pytest.mark.parametrize(
    "received", [*MESSAGES[3:5], Cancelled(job_id="0" * 32)], ids=lambda received: type(received).__name__
)
def test_unknown_fields_of_a_newer_version_are_ignored(received: BaseModel) -> None:
    newer = {**received.model_dump(mode="json"), "invented_later": 1}
    assert type(received).model_validate_json(json.dumps(newer)) == received


@pytest.mark.parametrize("field", [*JobRequest.model_fields, "\ud800"])
def test_an_unpaired_surrogate_raises_invalid_request(field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_json(json.dumps({"image_key": "uploads/x", field: "http://a/\ud800"}).encode())
    json.dumps(caught.value.errors, ensure_ascii=False).encode()


def test_error_codes_are_listed_in_the_module_docstring() -> None:
    import upres.core.errors

    codes = {kind.code: kind for kind in tree() if kind.__module__ == "upres.core.errors" and "code" in vars(kind)}
    assert len(codes) > 20
    for code, kind in codes.items():
        assert f"{kind.__name__} " in (upres.core.errors.__doc__ or ""), kind
        assert code in (upres.core.errors.__doc__ or "") or kind.__name__ == "InvalidRequest"
        assert 400 <= kind.status < 600


def test_only_temporary_errors_are_retryable() -> None:
    retryable = {kind.code for kind in tree() if kind.retryable and kind.__module__ == "upres.core.errors"} - {
        UpresError.code
    }
    unavailable = {
        "result_not_ready",
        "function_unavailable",
        "queue_unavailable",
        "store_unavailable",
        "model_unavailable",
        "worker_unavailable",
        "original_not_ready",
    }
    worker = {"timed_out", "deadline_exceeded", "worker_lost", "job_lost", "device_out_of_memory", "device_lost"}
    worker |= {"worker_outdated", "model_too_new"}
    limits = {"limit_reached", "rate_limited", "too_many_jobs", "too_many_streams", "quota_exceeded"}
    slow = {"head_incomplete", "body_incomplete"}
    assert retryable == unavailable | worker | limits | slow | {"url_unreachable"}


def test_settings_are_read_from_environment_variables() -> None:
    settings = Settings.from_environment(
        {
            "UPRES_MAX_INPUT_MEGAPIXELS": "8",
            "UPRES_FETCH_PRIVATE_NETWORKS": "10.0.0.0/8, fd00::/8",
            "UPRES_MODEL": "",
            "X": "y",
        }
    )
    assert settings.model == "photo"
    assert [str(network) for network in settings.fetch_private_networks] == ["10.0.0.0/8", "fd00::/8"]
    assert [settings.max_input_pixels(factor) for factor in (2, 4, 8)] == [8_000_000, 8_000_000, 2_000_000]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("UPRES_MAX_INPUT_MEGAPIXELS", "many"),
        ("UPRES_MAX_INPUT_MEGABYTES", "-1"),
        ("UPRES_DEVICE", "tpu"),
        ("UPRES_MODEL", "../x"),
        ("UPRES_FETCH_PRIVATE_NETWORKS", "10.0.0.1/8"),
    ],
)
def test_the_error_names_the_invalid_setting(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        Settings.from_environment({name: value})
