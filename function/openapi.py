"""The OpenAPI 3.1 description, built from the models that the code uses."""

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
    "description": "Instead of a key, to read this job: what its events_url came with.",
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
    """The whole description as a JSON-compatible dict."""
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
            "200": _answer("Snapshot", "The job has ended in the time that Prefer allows."),
            "202": _answer("JobAccepted", "Accepted; follow it at events_url."),
            **_refused(),
            "429": _problem("A limit of the API key is reached; Retry-After says when to try again."),
            "400": _problem("Not a JSON object."),
            "409": _problem("The Idempotency-Key was used for another request."),
            "413": _problem("Too many bytes."),
            "422": _problem("A field is wrong; the code says which."),
            "503": _problem("Redis or the store is away; nothing was accepted."),
        },
        [
            *parameters,
            _header("Idempotency-Key", "Repeating a request with the same key finds the same job."),
            _header("Prefer", "wait=SECONDS: answer with the job when it ends within so many, at most 25 (RFC 7240)."),
        ],
        requestBody={"required": True, "content": _json("JobRequest")},
    )


def _uploads() -> dict[str, Any]:
    answer = {"201": _answer("UploadLink", "PUT the file there.")}
    return _asking(
        "/v1/uploads", "createUpload", "Get a link for an image file and its image_key.", answer, "UploadRequest"
    )


def _estimate() -> dict[str, Any]:
    summary = "Ask what would become of an image: size, tiles, seconds, and whether it would be accepted."
    answer = {"200": _answer("Estimate", "By the latest jobs of that model and factor.")}
    return _asking("/v1/estimate", "createEstimate", summary, answer, "EstimateRequest")


def _asking(path: str, name: str, summary: str, answer: dict[str, Any], request: str) -> dict[str, Any]:
    """A POST that starts no job."""
    answers = {
        **answer,
        **_refused(),
        "400": _problem("Not a JSON object."),
        "413": _problem("Too many bytes."),
        "422": _problem("A field is wrong; the code says which."),
        "429": _problem("The API key has asked too often."),
        "503": _problem("Redis or the store is away."),
    }
    body = {"required": True, "content": _json(request)}
    return {path: {"post": _operation(name, summary, answers, requestBody=body)}}


def _webhooks() -> dict[str, Any]:
    secret = {"type": "object", "required": ["secret"], "properties": {"secret": {"type": "string"}}}
    answer = {
        "description": "whsec_…, as Standard Webhooks has it.",
        "content": {"application/json": {"schema": secret}},
    }
    return {
        "/v1/webhook-secret": {
            "get": _operation(
                "readWebhookSecret",
                "What messages to the caller's webhook_url are signed with.",
                {"200": answer, **_refused(), "503": _problem("Redis is away.")},
            )
        }
    }


def _models() -> dict[str, Any]:
    away = {**_refused(), "503": _problem("The store is away.")}
    missing = {**away, "404": _problem("There is no such model.")}
    return {
        "/v1/models": {
            "get": _operation("listModels", "Which models there are.", {"200": _answer("ModelList", "All."), **away})
        },
        "/v1/models/{model}": {
            "get": _operation(
                "readModel", "One model.", {"200": _answer("ModelDetails", "With its versions."), **missing}, [MODEL]
            )
        },
        "/v1/models/{model}/jobs": {"post": _accepting("createModelJob", "Submit an image for this model.", MODEL)},
    }


def _one_job() -> dict[str, Any]:
    missing = _missing()
    return {
        "/v1/jobs/{job_id}": {
            "get": _operation(
                "readJob", "The job now.", {"200": _answer("Snapshot", "The job."), **missing}, [JOB_ID, TOKEN]
            ),
            "delete": _operation(
                "cancelJob", "Cancel the job.", {"200": _answer("Snapshot", "The job after that."), **missing}, [JOB_ID]
            ),
        },
    }


def _follow() -> dict[str, Any]:
    missing = _missing()
    return {
        "/v1/jobs/{job_id}/events": {
            "get": _operation(
                "followJob",
                "Server-sent events: all after Last-Event-ID, then live to the end of the job.",
                {
                    "200": {
                        "description": "Each event's data is an Event; its id is for Last-Event-ID.",
                        "content": {"text/event-stream": {"schema": _frame()}},
                    },
                    "204": {"description": "Nothing more will come."},
                    "400": _problem("Last-Event-ID is not an event id."),
                    **missing,
                },
                [
                    JOB_ID,
                    TOKEN,
                    _header("Last-Event-ID", "Id of the last event that was seen."),
                    {"name": "last_event_id", "in": "query", "schema": {"type": "string"}},
                ],
            )
        },
    }


def _frame() -> dict[str, Any]:
    """One server-sent event, as OpenAPI 3.2 describes them."""
    data = {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": {"$ref": REF.format(model="Event")},
    }
    return {"type": "object", "required": ["id", "data"], "properties": {"id": {"type": "string"}, "data": data}}


def _images() -> dict[str, Any]:
    missing = _missing()
    image = {
        "302": {"description": "A fresh presigned link.", "headers": {"Location": {"schema": {"type": "string"}}}},
        "409": _problem("The job is not finished."),
        "410": _problem("The job ended without a result."),
        **missing,
    }
    after = {"name": "after", "in": "query", "schema": {"type": "integer", "minimum": 0, "maximum": 999_999_999}}
    preview = {
        "200": _answer("PreviewTiles", "What is finished, but for the first `after` pieces; none once the job ended."),
        **missing,
        "422": _problem("after is no number."),
    }
    return {
        "/v1/jobs/{job_id}/preview": {
            "get": _operation("readPreview", "A look at it.", preview, [JOB_ID, TOKEN, after])
        },
        "/v1/jobs/{job_id}/result": {"get": _operation("readResult", "The enlarged image.", image, [JOB_ID, TOKEN])},
        "/v1/jobs/{job_id}/original": {
            "get": _operation("readOriginal", "Its bicubic enlargement.", image, [JOB_ID, TOKEN])
        },
    }


def _operators() -> dict[str, Any]:
    return {
        "/healthz": {
            "get": _operation("healthz", "Whether the process answers.", {"200": {"description": "It does."}})
        },
        "/readyz": {
            "get": _operation(
                "readyz",
                "Whether Redis and the store answer.",
                {"200": {"description": "They do."}, "503": _problem("One of them does not.")},
            )
        },
        "/metrics": {
            "get": _operation("metrics", "Prometheus metrics.", {"200": {"description": "Text format."}, **_refused()})
        },
    }


def _missing() -> dict[str, Any]:
    return {**_refused(), "404": _problem("The caller has no such job.")}


def _refused() -> dict[str, Any]:
    return {"401": _problem("An API key is needed."), "403": _problem("The server was not told who may use it.")}


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
