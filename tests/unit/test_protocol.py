"""Requests of the SDK with planned responses: which are retried, after which pauses, and which errors they raise."""

from collections.abc import Callable

import httpx
import pytest

from upres.client import RequestRefused, ServerUnreachable
from upres.client.calls import Call, Pause
from upres.client.errors import StoreUnreachable
from upres.client.protocol import MAX_PAUSE, ApiOperations
from upres.client.responses import refused


def answers(*planned: "httpx.Response | Exception") -> tuple[list[float], Callable[[], httpx.Response]]:
    """Prepare one request of ApiOperations that gets planned responses and errors instead of using the network.

    Return the list of its pauses in seconds, filled while it runs, and a function that runs it.
    """
    pauses: list[float] = []
    peer = ApiOperations("http://example.org", None, retries=4, timeout=45, verify=True)

    def run() -> httpx.Response:
        steps = peer._ask(Call("GET", "http://example.org/"), 200)
        plan = iter(planned)
        try:
            step = next(steps)
            while True:
                if isinstance(step, Pause):
                    pauses.append(step.seconds)
                    step = next(steps)
                    continue
                answer = next(plan)
                step = steps.throw(answer) if isinstance(answer, Exception) else steps.send(answer)
        except StopIteration as stop:
            found: httpx.Response = stop.value
            return found

    return pauses, run


def answer(status: int, retry_after: str | None = None) -> httpx.Response:
    """A response of the API; from status 400 on, its body contains problem details (RFC 9457)."""
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    problem = {"type": "t", "title": "t", "status": status, "detail": "It is so.", "code": "c", "retryable": True}
    request = httpx.Request("GET", "http://example.org/")
    return httpx.Response(status, headers=headers, json=problem if status >= 400 else {}, request=request)


def test_temporary_errors_are_retried_after_backoff_or_retry_after() -> None:
    pauses, run = answers(answer(503), httpx.ConnectError("no"), answer(429, "7"), answer(502), answer(200))
    assert run().status_code == 200
    assert pauses[2] == 7
    assert 0.25 <= pauses[0] <= 0.5 < pauses[1] * 2 <= 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 410, 413, 422, 500])
def test_permanent_error_statuses_are_not_retried(status: int) -> None:
    pauses, run = answers(answer(status, "3"))
    with pytest.raises(RequestRefused, match="It is so"):
        run()
    assert pauses == []


def test_a_request_is_not_retried_if_retry_after_is_too_long() -> None:
    pauses, run = answers(answer(429, str(int(MAX_PAUSE) + 1)))
    with pytest.raises(RequestRefused):
        run()
    assert pauses == []


def test_server_unreachable_is_raised_after_four_retries() -> None:
    pauses, run = answers(*[httpx.ReadTimeout("slow")] * 5)
    with pytest.raises(ServerUnreachable):
        run()
    assert len(pauses) == 4
    assert sum(pauses) < 10


def test_proxy_error_is_request_refused_and_store_error_store_unreachable() -> None:
    request = httpx.Request("POST", "http://example.org/v1/jobs?token=x")
    html = httpx.Response(413, html="<h1>too large</h1>", request=request)
    received = refused(Call("POST", "http://example.org/"), html)
    assert isinstance(received, RequestRefused)
    assert not received.retryable
    assert "token" not in str(received)
    gone = refused(Call("GET", "http://store/", to_store=True), httpx.Response(404, request=request))
    assert isinstance(gone, StoreUnreachable)
