"""Conversion of exceptions to problem details (RFC 9457): only this module makes answers from exceptions."""

import logging

import redis
from redis.exceptions import RedisError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from upres.core.api import Problem
from upres.core.errors import (
    FunctionUnavailable,
    InvalidRequest,
    LimitReached,
    QueueUnavailable,
    Unauthorized,
    UnsupportedEncoding,
    UpresError,
)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 5
log = logging.getLogger("upres.function")


def describe(error: Exception) -> Problem:
    """Convert any exception to a problem. Unexpected exceptions are logged; the problem shows no details of them."""
    if isinstance(error, RedisError):
        log.warning("redis: %s", error)
        error = QueueUnavailable("The job queue does not answer; nothing was accepted. Try again in a few seconds.")
    if isinstance(error, HTTPException):
        return _http(error)
    if not isinstance(error, UpresError):
        log.error("unforeseen error", exc_info=error)
        error = UpresError("Something went wrong inside upres; the operator finds it in the function's log.")
    return Problem(
        type=f"urn:upres:error:{error.code}",
        title=error.title,
        status=error.status,
        detail=str(error),
        code=error.code,
        retryable=error.retryable,
        errors=[dict(entry) for entry in error.errors] if isinstance(error, InvalidRequest) else [],
    )


def respond(request: Request, error: Exception) -> Response:
    """Make the answer to a request whose handler raised an exception."""
    problem = describe(error)
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    if problem.retryable:
        headers["Retry-After"] = str(error.retry_after if isinstance(error, LimitReached) else RETRY_AFTER_SECONDS)
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = 'Bearer realm="upres"'
    if isinstance(error, UnsupportedEncoding):
        headers["Accept-Encoding"] = "gzip, identity"
    if isinstance(error, FunctionUnavailable):
        headers["Connection"] = "close"  # another process may answer the next request
    return Response(problem.model_dump_json(), problem.status, headers, media_type=MEDIA_TYPE)


HANDLERS = dict.fromkeys((UpresError, redis.RedisError, HTTPException, Exception), respond)


def _http(error: HTTPException) -> Problem:
    """Convert Starlette's own errors, such as an unknown path or a wrong method."""
    codes = {404: "not_found", 405: "method_not_allowed"}
    details = {
        404: "There is nothing at this address; /openapi.json lists all addresses.",
        405: "This address does not accept this method; /openapi.json lists the methods of each address.",
    }
    code = codes.get(error.status_code, "http_error")
    return Problem(
        type=f"urn:upres:error:{code}",
        title=error.detail,
        status=error.status_code,
        detail=details.get(error.status_code, error.detail),
        code=code,
        retryable=False,
    )
