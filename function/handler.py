"""AWS Lambda: the app behind an HTTP API, and the plain dict of a direct invoke."""

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
    """An HTTP API event → an HTTP answer; any other dict is a job request → JobAccepted or a problem.

    A direct invoke may carry `idempotency_key` beside the fields of a JobRequest: Lambda itself
    repeats asynchronous invokes. Who may invoke is IAM's business; with an `api_key` the job is that key's.
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
        caller = ANYBODY if who is None else holder(_services, str(who))
        accepted = submit(_services, parse(event), _services.settings.public_url, key, caller)
    except Exception as error:
        return problems.describe(error).model_dump(mode="json")
    return accepted.model_dump(mode="json")
