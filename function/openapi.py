"""The OpenAPI 3.1 description of the HTTP API, generated from the pydantic models that the code uses."""

from functools import cache
from typing import Any

from pydantic.json_schema import models_json_schema

from upres.core.api import (
    Estimate,
    EstimateRequest,
    JobAccepted,
    JobRequest,
    PreviewTiles,
    Problem,
    UploadLink,
    UploadRequest,
)
from upres.core.schema import EVENT, Snapshot
from upres.function.model_list import ModelDetails, ModelList

REF = "#/components/schemas/{model}"
JOB_ID: dict[str, Any] = {
    "name": "job_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
}
TOKEN: dict[str, Any] = {
    "name": "token",
    "in": "query",
    "description": "Token of this job, from its events_url; it replaces an API key for reading the job.",
    "schema": {"type": "string"},
}
MODEL: dict[str, Any] = {
    "name": "model",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": "^[a-z0-9][a-z0-9._-]{0,63}$"},
}


SCHEMAS = (
    JobRequest, JobAccepted, UploadRequest, UploadLink, EstimateRequest, Estimate, PreviewTiles,
    ModelList, ModelDetails, Snapshot, Problem,
)  # fmt: skip


@cache
def document() -> dict[str, Any]:
    """Return the whole description as a JSON-compatible dict."""
    _, definitions = models_json_schema(
        [(model, "validation") for model in SCHEMAS],
        ref_template=REF,
    )
    event = EVENT.json_schema(ref_template=REF)
    schemas = {**definitions["$defs"], **event.pop("$defs"), "Event": event}
    return {
        "openapi": "3.1.0",
        "info": {"title": "upres", "version": "1", "description": "Super-resolution with live progress."},
        "paths": _paths(),
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "An API key, upres_…"}},
        },
    }


def _paths() -> dict[str, Any]:
    return {
        **_submit(),
        **_uploads(),
        **_estimate(),
        **_webhooks(),
        **_models(),
        **_one_job(),
        **_follow(),
        **_images(),
        **_operators(),
    }


def _submit() -> dict[str, Any]:
    return {"/v1/jobs": {"post": _accepting("createJob", "Submit an image.")}}


def _accepting(name: str, summary: str, *parameters: dict[str, Any]) -> dict[str, Any]:
    return _operation(
        name,
        summary,
        {
            "200": _answer("Snapshot", "The job has ended within the seconds that Prefer gives."),
            "202": _answer("JobAccepted", "The job was accepted; events_url has its events."),
            **_refused(),
            "400": _problem("The body is not a JSON object."),
            "408": _problem("The body did not arrive in time."),
            "409": _problem("The Idempotency-Key was used for another request."),
            "413": _problem("The body or the image has too many bytes."),
            "415": _problem("The body is compressed in another way than gzip."),
            "422": _problem("A field is invalid; the code says which one."),
            "503": _problem("Redis or the object store does not answer; no job was accepted."),
        },
        [
            *parameters,
            _header("Idempotency-Key", "A repeated request with the same key returns the job of the first request."),
            _header("Prefer", "wait=SECONDS, at most 25: wait for the end of the job for that long (RFC 7240)."),
        ],
        requestBody={"required": True, "content": _json("JobRequest")},
    )


def _uploads() -> dict[str, Any]:
    answer = {"201": _answer("UploadLink", "The presigned URL for a PUT of the file, and the image_key.")}
    return _post_without_job(
        "/v1/uploads", "createUpload", "Get a presigned URL to upload an image file.", answer, "UploadRequest"
    )


def _estimate() -> dict[str, Any]:
    summary = "Estimate a job: size of the result, tiles, seconds, and whether it would be accepted."
    answer = {"200": _answer("Estimate", "The estimate, computed from the latest jobs of that model and factor.")}
    return _post_without_job("/v1/estimate", "createEstimate", summary, answer, "EstimateRequest")


def _post_without_job(path: str, name: str, summary: str, answer: dict[str, Any], request: str) -> dict[str, Any]:
    """Describe a POST endpoint that creates no job."""
    answers = {
        **answer,
        **_refused(),
        "400": _problem("The body is not a JSON object."),
        "408": _problem("The body did not arrive in time."),
        "413": _problem("The body or the image file has too many bytes."),
        "415": _problem("The body is compressed in another way than gzip."),
        "422": _problem("A field is invalid; the code says which one."),
        "503": _problem("Redis or the object store does not answer."),
    }
    body = {"required": True, "content": _json(request)}
    return {path: {"post": _operation(name, summary, answers, requestBody=body)}}


def _webhooks() -> dict[str, Any]:
    secret = {"type": "object", "required": ["secret"], "properties": {"secret": {"type": "string"}}}
    answer = {
        "description": "The secret (whsec_…), as Standard Webhooks defines it.",
        "content": {"application/json": {"schema": secret}},
    }
    return {
        "/v1/webhook-secret": {
            "get": _operation(
                "readWebhookSecret",
                "Read the secret that signs webhooks for the caller's jobs.",
                {"200": answer, **_refused(), "503": _problem("Redis does not answer.")},
            )
        }
    }


def _models() -> dict[str, Any]:
    away = {**_refused(), "503": _problem("The object store does not answer.")}
    missing = {**away, "404": _problem("There is no such model.")}
    models, model = _answer("ModelList", "All models."), _answer("ModelDetails", "The model with its versions.")
    return {
        "/v1/models": {"get": _operation("listModels", "List all models.", {"200": models, **away})},
        "/v1/models/{model}": {
            "get": _operation("readModel", "Read one model.", {"200": model, **missing}, [MODEL]),
        },
        "/v1/models/{model}/jobs": {"post": _accepting("createModelJob", "Submit an image for this model.", MODEL)},
    }


def _one_job() -> dict[str, Any]:
    missing = _missing()
    return {
        "/v1/jobs/{job_id}": {
            "get": _operation(
                "readJob", "Read the job.", {"200": _answer("Snapshot", "The job."), **missing}, [JOB_ID, TOKEN]
            ),
            "delete": _operation(
                "cancelJob", "Cancel the job.", {"200": _answer("Snapshot", "The new state."), **missing}, [JOB_ID]
            ),
        },
    }


def _follow() -> dict[str, Any]:
    missing = _missing()
    return {
        "/v1/jobs/{job_id}/events": {
            "get": _operation(
                "followJob",
                "Follow the job with server-sent events: all after Last-Event-ID, then new ones until the job ends.",
                {
                    "200": {
                        "description": "A stream: the data of each event is an Event, its id is for Last-Event-ID.",
                        "content": {"text/event-stream": {"schema": _frame()}},
                    },
                    "204": {"description": "The job has ended, and there are no more events."},
                    "400": _problem("Last-Event-ID is not an event id."),
                    **missing,
                },
                [
                    JOB_ID,
                    TOKEN,
                    _header("Last-Event-ID", "Id of the last event that the client has received."),
                    {"name": "last_event_id", "in": "query", "schema": {"type": "string"}},
                ],
            )
        },
    }


def _frame() -> dict[str, Any]:
    """Describe one server-sent event in the way of OpenAPI 3.2."""
    data = {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": {"$ref": REF.format(model="Event")},
    }
    return {"type": "object", "required": ["id", "data"], "properties": {"id": {"type": "string"}, "data": data}}


def _images() -> dict[str, Any]:
    missing = _missing()
    image = {
        "302": {"description": "A new presigned URL.", "headers": {"Location": {"schema": {"type": "string"}}}},
        "409": _problem("The job has not ended."),
        "410": _problem("The job ended without a result."),
        **missing,
    }
    after = {"name": "after", "in": "query", "schema": {"type": "integer", "minimum": 0, "maximum": 999_999_999}}
    preview = {
        "200": _answer("PreviewTiles", "Finished pieces without the first `after`; none when the job has ended."),
        **missing,
        "422": _problem("after is not a number."),
    }
    return {
        "/v1/jobs/{job_id}/preview": {
            "get": _operation("readPreview", "Read the job's preview.", preview, [JOB_ID, TOKEN, after])
        },
        "/v1/jobs/{job_id}/result": {"get": _operation("readResult", "Get the result.", image, [JOB_ID, TOKEN])},
        "/v1/jobs/{job_id}/original": {
            "get": _operation("readOriginal", "Get the bicubic enlargement.", image, [JOB_ID, TOKEN])
        },
    }


def _operators() -> dict[str, Any]:
    return {
        "/healthz": {"get": _operation("healthz", "Liveness probe.", {"200": {"description": "The process answers."}})},
        "/readyz": {
            "get": _operation(
                "readyz",
                "Readiness probe.",
                {"200": {"description": "Redis and the store answer."}, "503": _problem("One of them does not.")},
            )
        },
        "/metrics": {
            "get": _operation(
                "metrics",
                "Read metrics, where UPRES_ACCESS is not set.",
                {
                    "200": {"description": "Prometheus text."},
                    **_refused(),
                    "404": _problem("They are on the port in UPRES_METRICS_PORT only."),
                },
            )
        },
    }


def _missing() -> dict[str, Any]:
    return {**_refused(), "404": _problem("The caller has no job with this id.")}


def _refused() -> dict[str, Any]:
    limit = "A limit of the API key, or of open event streams, is reached; retry after the seconds in Retry-After."
    key, access = _problem("An API key is needed."), _problem("UPRES_ACCESS is not set on the server.")
    return {"401": key, "403": access, "429": _problem(limit)}


def _operation(
    name: str, summary: str, responses: dict[str, Any], parameters: list[dict[str, Any]] | None = None, **more: Any
) -> dict[str, Any]:
    operation = {
        "operationId": name,
        "summary": summary,
        "parameters": parameters or [],
        "responses": responses,
        **more,
    }
    return {**operation, "security": [{"key": []}, {}]} if "401" in responses else operation


def _header(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "description": description, "schema": {"type": "string"}}


def _json(model: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": REF.format(model=model)}}}


def _answer(model: str, description: str) -> dict[str, Any]:
    return {"description": description, "content": _json(model)}


def _problem(description: str) -> dict[str, Any]:
    schema = {"schema": {"$ref": REF.format(model="Problem")}}
    return {"description": description, "content": {"application/problem+json": schema}}
