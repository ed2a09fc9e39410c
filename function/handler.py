"""AWS Lambda: handler for requests of an HTTP API, and for direct invocations with a dict."""

from typing import Any

from mangum import Mangum

from upres.core import logs
from upres.core.settings import Settings
from upres.function import problems
from upres.function.access import ANYBODY, holder
from upres.function.app import create_app
from upres.function.parse import parse
from upres.function.services import Services
from upres.function.submit import submit

_settings = Settings.from_environment()
logs.begin(_settings)
_app = create_app(_settings)
_services: Services = _app.state.services
_http = Mangum(_app, lifespan="off", text_mime_types=["text/", "application/json", "application/problem+json"])


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Handle an HTTP API event → HTTP answer; or a job request as a dict → JobAccepted or Problem as a dict.

    A direct invocation may have `idempotency_key` and `api_key` besides the fields of a JobRequest. Without the first,
    Lambda's retries of an asynchronous invocation make several jobs. The second is the owner of the job; without it the
    job has no owner, because IAM controls who may invoke the function.
    """
    if isinstance(event, dict) and "requestContext" in event:
        return _http(event, context)
    return _direct(event)


def _direct(event: Any) -> dict[str, Any]:
    key = who = None
    if isinstance(event, dict):
        event = dict(event)
        key, who = event.pop("idempotency_key", None), event.pop("api_key", None)
    try:
        caller = ANYBODY if who is None else holder(_services, str(who), "rate")
        accepted = submit(_services, parse(event), _services.settings.public_url, key, caller)
    except Exception as error:
        return problems.describe(error).model_dump(mode="json")
    return accepted.model_dump(mode="json")
