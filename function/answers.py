"""Answers in JSON that no cache keeps."""

from starlette.responses import Response

from upres.core.schema import TolerantModel


def json_answer(message: TolerantModel, status: int = 200, **headers: str) -> Response:
    """Make an answer of a message; fields that are None are left out."""
    text = message.model_dump_json(exclude_none=True)
    return Response(text, status, {"Cache-Control": "no-store", **headers}, media_type="application/json")
