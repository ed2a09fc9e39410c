"""Bytes or a dict from outside → JobRequest, or an error that names the field and what would be right."""

import json
import re
from typing import Any, TypeVar

from pydantic import ValidationError

from upres.core import keys
from upres.core.api import EstimateRequest, JobRequest, UploadRequest
from upres.core.errors import FieldError, InvalidJson, InvalidRequest
from upres.core.schema import StrictModel

SHOWN = 80
"""How many characters of a rejected value are quoted back."""

MAX_FIELDS = 50
"""Enough to name every mistake; what has more was not written by anybody."""

MAX_WAIT = 25.0
"""API Gateway gives up after 30 seconds."""
_WAIT = re.compile(r'(?:^|[,;])\s*wait\s*=\s*"?(\d{1,5})"?\s*(?=[,;]|$)', re.IGNORECASE)

INSTEAD = 'send {"image_url": "https://…"}, or {"image_base64": "…"} with the file in base64.'
Model = TypeVar("Model", bound=StrictModel)
CODES = {
    "image_url": "invalid_image_url",
    "image_base64": "invalid_base64",
    "image_key": "invalid_image_key",
    "image_name": "invalid_image_name",
    "upscale_factor": "unsupported_factor",
    "model": "unknown_model",
    "model_version": "unknown_model",
    "output_format": "unsupported_format",
    "priority": "invalid_priority",
    "deadline_seconds": "invalid_deadline",
    "webhook_url": "invalid_webhook_url",
    "bytes": "invalid_size",
    "width": "invalid_size",
    "height": "invalid_size",
    "preview": "invalid_preview",
}
EXPECTED = {
    "image_url": "image_url must be an absolute http:// or https:// address of at most 8192 characters.",
    "image_base64": "image_base64 must be text: the image file in base64.",
    "image_key": "image_key must be the key of an upload, uploads/….",
    "image_name": "image_name must be a file name of at most 255 characters.",
    "upscale_factor": "upscale_factor must be 2, 4 or 8.",
    "model": "model must be the name of a model: lower-case letters, digits, '.', '_' and '-'.",
    "model_version": "model_version must be the name of a version or a label: letters, digits, '.', '_' and '-'.",
    "output_format": "output_format must be auto, png, jpeg or webp.",
    "priority": "priority must be normal or high.",
    "bytes": "bytes must be the size of the image file, a whole number.",
    "width": "width must be that of the image in pixels, a whole number.",
    "height": "height must be that of the image in pixels, a whole number.",
    "webhook_url": "webhook_url must be an absolute http:// or https:// address of at most 2048 characters.",
    "preview": "preview must be true or false.",
    "deadline_seconds": f"deadline_seconds must be 1 to {keys.MAX_DEADLINE_SECONDS}, in seconds.",
}


def parse_json(body: bytes, model: str | None = None) -> JobRequest:
    """A request body → JobRequest, for the model that the address names. Raises InvalidJson or InvalidRequest."""
    payload = _decoded(body, INSTEAD)
    if model is not None and isinstance(payload, dict):
        named = payload.setdefault("model", model)
        if named != model:
            detail = f"The address names model {_shown(model)!r}; leave the field away, or use /v1/jobs."
            raise InvalidRequest([FieldError(field="model", code="unknown_model", given=_shown(named), detail=detail)])
    return parse(payload)


def parse(payload: object) -> JobRequest:
    """A decoded payload → JobRequest. Raises InvalidJson or InvalidRequest."""
    return _validated(JobRequest, payload, INSTEAD)


def preferred_wait(prefer: str | None) -> float:
    """The seconds in a Prefer header's `wait` (RFC 7240), at most MAX_WAIT; 0 without one that is a number."""
    match = _WAIT.search(prefer or "")
    return min(float(match[1]), MAX_WAIT) if match else 0


def parse_upload(body: bytes) -> UploadRequest:
    """A request body → UploadRequest. Raises InvalidJson or InvalidRequest."""
    instead = 'send {"bytes": 123456}, the size of the file.'
    return _validated(UploadRequest, _decoded(body, instead), instead)


def parse_estimate(body: bytes) -> EstimateRequest:
    """A request body → EstimateRequest. Raises InvalidJson or InvalidRequest."""
    instead = 'send {"width": 640, "height": 480}, the size of the image.'
    return _validated(EstimateRequest, _decoded(body, instead), instead)


def _decoded(body: bytes, instead: str) -> Any:
    """JSON. Raises InvalidJson, which says what to send instead."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise _no_object(instead) from None


def _validated(model: type[Model], payload: object, instead: str) -> Model:
    if not isinstance(payload, dict) or len(payload) > MAX_FIELDS:
        raise _no_object(instead)
    try:
        return model.model_validate(payload)
    except ValidationError as error:
        known = ", ".join(model.model_fields)
        raise InvalidRequest([_field_error(dict(e), known) for e in error.errors(include_url=False)]) from None


def _no_object(instead: str) -> InvalidJson:
    return InvalidJson(f"The body is not a JSON object; {instead}")


def _field_error(error: dict[str, Any], known: str) -> FieldError:
    """One of pydantic's errors in our words."""
    field = str(error["loc"][0]) if error["loc"] else ""
    if field in CODES:
        return FieldError(field=field, code=CODES[field], given=_shown(error["input"]), detail=EXPECTED[field])
    if not field:
        return FieldError(field="image_url", code=error["type"], given="", detail=error["msg"])
    name = _shown(field)
    detail = f"There is no field {name!r}; known are {known}."
    return FieldError(field=name, code="unknown_field", given=_shown(error["input"]), detail=detail)


def _shown(value: object) -> str:
    """The beginning of a value, as text that can be sent."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    text = text if len(text) <= SHOWN else text[:SHOWN] + "…"
    return text.encode(errors="replace").decode()
