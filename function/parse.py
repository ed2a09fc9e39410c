"""Parse request bodies to requests, or raise errors that name the invalid field and what would be valid."""

import json
import re
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import from_json

from upres.core import keys
from upres.core.api import EstimateRequest, JobRequest, UploadRequest
from upres.core.errors import FieldError, InvalidJson, InvalidRequest
from upres.core.options import CONTRADICTION, INVALID_STRENGTH
from upres.core.schema import StrictModel
from upres.core.sizes import MAX_SIDE

SHOWN = 80
"""Maximum number of characters of a rejected value that an error quotes."""

MAX_FIELDS = 50
"""Maximum number of fields in a body: many more than there are, so that errors name every mistake, and few enough that
an answer cannot become huge."""

MAX_VALUES = 12_000
"""Maximum number of JSON values in a body: 27 MB of `[],` would take 700 MB and stop all other requests for seconds.
What is counted are commas and brackets, those in texts too; base64 has none, and all other texts of a request may have
11,000 characters together."""

PIECE = 1 << 18
"""Bytes in which values are counted at a time: a body that has too many is refused after its first ones."""

SPECIAL = (b"\\u", b"\0", b"\xef\xbb\xbf")
"""Marks of what only json.loads reads: unpaired surrogates, so that an error can name the field; other encodings than
UTF-8. Without them pydantic's reader takes a part of the time, in which no other request proceeds."""

MAX_WAIT = 25.0
"""Maximum of `Prefer: wait` in seconds: below the timeout of API Gateway, 30 seconds."""
_WAIT = re.compile(r'(?:^|[,;])\s*wait\s*=\s*"?(\d{1,5})"?\s*(?=[,;]|$)', re.IGNORECASE)

INSTEAD = 'send {"image_url": "https://…"}, or {"image_base64": "…"} with the file in base64.'
Model = TypeVar("Model", bound=StrictModel)
CODES = {
    "image_url": "invalid_image_url",
    "image_base64": "invalid_base64",
    "image_key": "invalid_image_key",
    "image_name": "invalid_image_name",
    "upscale_factor": "unsupported_factor",
    "output_width": "invalid_output_size",
    "output_height": "invalid_output_size",
    "fit": "invalid_fit",
    "model": "unknown_model",
    "model_version": "unknown_model",
    "output_format": "unsupported_format",
    "output_depth": "unsupported_depth",
    "priority": "invalid_priority",
    "deadline_seconds": "invalid_deadline",
    "webhook_url": "invalid_webhook_url",
    "bytes": "invalid_size",
    "sha256": "invalid_digest",
    "width": "invalid_size",
    "height": "invalid_size",
    "preview": "invalid_preview",
    "first_model": "unknown_model",
    "strength": "invalid_strength",
    "metadata": "invalid_metadata",
    "ensemble": "invalid_ensemble",
    "quality": "invalid_quality",
    "lossless": "invalid_lossless",
    "frames": "invalid_frames",
    "original": "original must be lazy or eager.",
    "frame_count": "invalid_frames",
}
FIELDS = {"unsupported_factor": "upscale_factor"}
"""Type of an error that concerns several fields → the field that it is told of."""
EXPECTED = {
    "image_url": "image_url must be an absolute http:// or https:// address of at most 8192 characters.",
    "image_base64": "image_base64 must be text: the image file in base64.",
    "image_key": "image_key must be the key of an upload, uploads/….",
    "image_name": "image_name must be a file name of at most 255 characters.",
    "upscale_factor": "upscale_factor must be a number from 1 to 8; for a size give output_width or output_height "
    "instead.",
    "output_width": f"output_width must be a whole number from 1 to {MAX_SIDE}, and not with upscale_factor.",
    "output_height": f"output_height must be a whole number from 1 to {MAX_SIDE}, and not with upscale_factor.",
    "fit": "fit must be inside or exact; exact needs both output_width and output_height.",
    "model": "model must be the name of a model: lower-case letters, digits, '.', '_' and '-'.",
    "first_model": "first_model must be the name of a model: lower-case letters, digits, '.', '_' and '-'.",
    "strength": INVALID_STRENGTH,
    "model_version": "model_version must be the name of a version or a label: letters, digits, '.', '_' and '-'.",
    "output_format": "output_format must be auto, png, jpeg, webp, avif, jxl, tiff or gif.",
    "output_depth": "output_depth must be auto, 8 or 16; 16 goes with output_format auto, png, tiff or jxl.",
    "priority": "priority must be normal or high.",
    "bytes": "bytes must be the size of the image file, a whole number.",
    "sha256": "sha256 must be the SHA-256 of the image file: 64 hexadecimal digits in lower case.",
    "width": "width must be the width of the image in pixels, a whole number.",
    "height": "height must be the height of the image in pixels, a whole number.",
    "webhook_url": "webhook_url must be an absolute http:// or https:// address of at most 2048 characters.",
    "metadata": "metadata must be strip, keep or keep-all.",
    "preview": "preview must be true or false.",
    "ensemble": "ensemble must be true or false.",
    "quality": "quality must be a whole number from 1 to 100.",
    "lossless": "lossless must be true or false.",
    "frames": "frames must be all or first.",
    "original": "original must be lazy or eager.",
    "frame_count": "frame_count must be the number of frames of the image, a whole number.",
    "deadline_seconds": f"deadline_seconds must be 1 to {keys.MAX_DEADLINE_SECONDS}, in seconds.",
}


def parse_json(body: bytes, model: str | None = None) -> JobRequest:
    """Parse a body to a JobRequest, for `model` when the URL names one. Raises InvalidJson or InvalidRequest."""
    payload = _decoded(body, INSTEAD)
    if model is not None and isinstance(payload, dict):
        named = payload.setdefault("model", model)
        if named != model:
            detail = f"The address names model {_shown(model)!r}; leave out the field model, or use /v1/jobs."
            raise InvalidRequest([FieldError(field="model", code="unknown_model", given=_shown(named), detail=detail)])
    return parse(payload)


def parse(payload: object) -> JobRequest:
    """Validate a decoded payload as a JobRequest. Raises InvalidJson or InvalidRequest."""
    return _validated(JobRequest, payload, INSTEAD)


def preferred_wait(prefer: str) -> float:
    """Return the seconds of `wait` in a Prefer header (RFC 7240), at most MAX_WAIT; 0 without a valid number."""
    match = _WAIT.search(prefer)
    return min(float(match[1]), MAX_WAIT) if match else 0


def parse_upload(body: bytes) -> UploadRequest:
    """Parse a body to an UploadRequest. Raises InvalidJson or InvalidRequest."""
    instead = 'send {"bytes": 123456}, the size of the file.'
    return _validated(UploadRequest, _decoded(body, instead), instead)


def parse_estimate(body: bytes) -> EstimateRequest:
    """Parse a body to an EstimateRequest. Raises InvalidJson or InvalidRequest."""
    instead = 'send {"width": 640, "height": 480}, the size of the image.'
    return _validated(EstimateRequest, _decoded(body, instead), instead)


def _decoded(body: bytes, instead: str) -> Any:
    """Decode JSON. Raises InvalidJson, whose message ends with `instead`, an example of a valid body."""
    if _has_many_values(body):
        raise too_many_values(instead)
    special = any(mark in body for mark in SPECIAL)
    reader = json.loads if special else partial(from_json, cache_strings=False)
    try:
        return reader(body)
    except (ValueError, RecursionError):
        raise invalid_json(instead) from None


def _has_many_values(body: bytes) -> bool:
    """Whether JSON has more than MAX_VALUES values: each but the first follows a comma or an opening bracket."""
    count = 0
    for at in range(0, len(body), PIECE):
        count += sum(body.count(mark, at, at + PIECE) for mark in (b",", b"[", b"{"))
        if count > MAX_VALUES:
            return True
    return False


def _validated(model: type[Model], payload: object, instead: str) -> Model:
    if not isinstance(payload, dict) or len(payload) > MAX_FIELDS:
        raise invalid_json(instead)
    try:
        return model.model_validate(payload)
    except ValidationError as error:
        known = ", ".join(model.model_fields)
        raise InvalidRequest([_field_error(dict(e), known) for e in error.errors(include_url=False)]) from None


def too_many_values(instead: str) -> InvalidJson:
    """Make the error for a body with more than MAX_VALUES values; `instead` is an example of a valid body."""
    return InvalidJson(f"The body has more than {MAX_VALUES:,} commas and brackets; {instead}")


def invalid_json(instead: str) -> InvalidJson:
    """Make the error for a body that is no JSON object; `instead` is an example of a valid one."""
    return InvalidJson(f"The body is not a JSON object; {instead}")


def _field_error(error: dict[str, Any], known: str) -> FieldError:
    """Convert one error of pydantic to a FieldError; `known` lists the valid fields."""
    field = str(error["loc"][0]) if error["loc"] else FIELDS.get(error["type"], "")
    if field in CODES:
        detail = error["msg"] if error["type"] == CONTRADICTION else EXPECTED[field]
        given = error["input"] if error["loc"] else error["input"].get(field)  # of the whole body only this field
        return FieldError(field=field, code=CODES[field], given=_shown(given), detail=detail)
    if not field:
        return FieldError(field="image_url", code=error["type"], given="", detail=error["msg"])
    name = _shown(field)
    detail = f"There is no field {name!r}; the known fields are {known}."
    return FieldError(field=name, code="unknown_field", given=_shown(error["input"]), detail=detail)


def _shown(value: object) -> str:
    """Shorten a value to SHOWN characters of valid Unicode, for an error."""
    text = value if isinstance(value, str) else json.dumps(_shortened(value), default=str)
    text = text if len(text) <= SHOWN else text[:SHOWN] + "…"
    return text.encode(errors="replace").decode()


def _shortened(value: object, depth: int = 0) -> object:
    """Copy the beginning of a JSON value, as far as an error may quote it: the whole may be as large as a body."""
    if isinstance(value, str):
        return value[: SHOWN + 1]
    if depth > SHOWN:
        return None
    if isinstance(value, list):
        return [_shortened(one, depth + 1) for one in value[:SHOWN]]
    if isinstance(value, dict):
        return {name[: SHOWN + 1]: _shortened(one, depth + 1) for name, one in islice(value.items(), SHOWN)}
    return value
