"""Answers that no cache keeps: JSON, and redirects."""

from starlette.responses import RedirectResponse, Response

from upres.core.schema import TolerantModel


def json_answer(message: TolerantModel, status: int = 200, **headers: str) -> Response:
    """Make an answer of a message; fields that are None are left out."""
    text = message.model_dump_json(exclude_none=True)
    return Response(text, status, {"Cache-Control": "no-store", **headers}, media_type="application/json")


def redirect(url: str) -> Response:
    """Make a redirect to a presigned URL."""
    return RedirectResponse(url, 302, {"Cache-Control": "no-store"})
