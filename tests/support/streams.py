"""Helpers that read event streams over HTTP."""

from collections.abc import Iterator

import requests

from upres.client import sse
from upres.embedded.stack import Local


def follow(local: Local, job_id: str, last: str | None = None, query: str = "") -> requests.Response:
    headers = {"Last-Event-ID": last} if last else {}
    return requests.get(f"{local.url}/v1/jobs/{job_id}/events{query}", headers=headers, stream=True, timeout=20)


def frames(response: requests.Response) -> Iterator[sse.ServerSentEvent]:
    assert response.headers["Content-Type"].startswith("text/event-stream")
    return sse.decode(response.iter_content(None))
