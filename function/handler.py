"""AWS Lambda: handler for requests of an HTTP API, messages of SQS, direct invocations, and warm-up pings."""

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from mangum import Mangum
from starlette.types import Receive, Scope, Send

from upres.core import logs
from upres.core.api import JobAccepted, Problem
from upres.core.settings import Settings
from upres.function import buffered, problems
from upres.function.access import ANYBODY, holder
from upres.function.app import create_app
from upres.function.parse import parse
from upres.function.services import Services
from upres.function.submit import submit

log = logging.getLogger("upres.function")

PINGS = ("aws.events", "aws.scheduler", "serverless-plugin-warmup")
"""Values of `source` in events that come on a schedule, to keep the process warm."""

_settings = Settings.from_environment()
logs.begin(_settings)
_app = create_app(_settings)
_services: Services = _app.state.services


class NotAccepted(Exception):
    """No job was made, and the same event may succeed later; the message is the Problem in JSON.

    It is raised, because Lambda repeats an asynchronous invocation only after an exception.
    """


async def _behind_gateway(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve a request of API Gateway: within its time, and with the stage in the addresses of answers."""
    event, remaining = scope["aws.event"], _seconds_left(scope["aws.context"])
    begun = event["requestContext"].get("timeEpoch") or event["requestContext"].get("requestTimeEpoch")
    buffered.set_end(scope, remaining, begun and begun / 1000)
    scope["root_path"] = stage = _stage(event)
    if not f"{scope['path']}/".startswith(f"{stage}/"):  # events of a REST API name the path without the stage
        scope["path"] = stage + scope["path"]
    await _app(scope, receive, send)


_http = Mangum(
    _behind_gateway, lifespan="off", text_mime_types=["text/", "application/json", "application/problem+json"]
)


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Handle an event, and return the answer to it.

    - a request of an HTTP API or REST API → an HTTP answer;
    - messages of SQS, each with a job request as JSON → the ids of those that made no job (batchItemFailures), which
      SQS sends again, and in the end puts into its dead-letter queue;
    - a ping (see PINGS) → whether Redis and the object store answer; their connections are then open;
    - anything else is a direct invocation with a job request as a dict → JobAccepted or Problem as a dict. Raises
      NotAccepted instead of returning a problem that may pass, so that Lambda repeats an asynchronous invocation.

    A job request may have `idempotency_key` and `api_key` besides the fields of a JobRequest. Without the first, the id
    of the invocation or message takes its place, which is the same when AWS repeats it. The second is the owner of the
    job; without it the job has no owner, because IAM controls who may invoke the function or write to the queue.
    """
    if isinstance(event, dict):
        if "requestContext" in event:
            return _http(event, context)
        if _is_from_sqs(event):
            failed = [record["messageId"] for record in event["Records"] if _is_late(context) or not _take(record)]
            return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in failed]}
        if event.get("source") in PINGS:
            return _warm()
    answer = _submitted(event, f"lambda:{context.aws_request_id}" if context else None)
    if isinstance(answer, Problem) and (answer.retryable or answer.status >= 500):
        raise NotAccepted(answer.model_dump_json())
    return answer.model_dump(mode="json")


def _submitted(event: Any, default_key: str | None) -> JobAccepted | Problem:
    """Submit a job request that is no HTTP request."""
    key, who = default_key, None
    if isinstance(event, dict):
        event = dict(event)
        key, who = event.pop("idempotency_key", default_key), event.pop("api_key", None)
    try:
        caller = ANYBODY if who is None else holder(_services, str(who), "rate")
        return submit(_services, parse(event), _services.settings.public_url, key, caller)
    except Exception as error:
        return problems.describe(error)


def _seconds_left(context: Any) -> float:
    """Seconds until Lambda ends the invocation; without a context as many as API Gateway gives."""
    return context.get_remaining_time_in_millis() / 1000 if context else buffered.GATEWAY_SECONDS


def _is_late(context: Any) -> bool:
    """Whether too little time is left for another message: the answer about those before it would not be sent."""
    return _seconds_left(context) < buffered.ANSWER_SECONDS


def _is_from_sqs(event: dict[str, Any]) -> bool:
    records = event.get("Records")
    return isinstance(records, list) and all(
        isinstance(record, dict) and record.get("eventSource") == "aws:sqs" for record in records
    )


def _take(record: Mapping[str, Any]) -> bool:
    """Submit the job request in a message. Return whether there is a job; else the log says why."""
    try:
        event = json.loads(record["body"])
    except (ValueError, RecursionError):
        event = None
    answer = _submitted(event, f"sqs:{record['messageId']}")
    if isinstance(answer, Problem):
        log.warning("message %s made no job: %s [%s]", record["messageId"], answer.detail, answer.code)
        return False
    return True


def _warm() -> dict[str, Any]:
    """Open the connections to Redis and the object store, which imports boto3, or keep them open."""
    parts: dict[str, Callable[[], object]] = {"redis": _services.redis.ping, "store": _services.store.ping}
    found = {}
    for name, ping in parts.items():
        try:
            ping()
            found[name] = "ok"
        except Exception as error:
            found[name] = problems.describe(error).code
    return found


def _stage(event: Mapping[str, Any]) -> str:
    """The stage with which the path of the request begins, like /prod; "" when it has none, as for `$default`."""
    context = event["requestContext"]
    prefix, path = f"/{context.get('stage', '')}", context.get("http", context).get("path", "")
    return prefix if prefix != "/" and f"{path}/".startswith(f"{prefix}/") else ""
