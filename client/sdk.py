"""Use upres from a program:

from client import Client

upscaled = Client("http://127.0.0.1:8000").upscale("photo.jpg", factor=4)
upscaled.save("photo_x4.jpg")
"""

import base64
import os
import random
import time
import uuid
from collections.abc import Callable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, TypeVar

import requests
from pydantic import BaseModel, ValidationError
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from client import sse
from client.errors import JobCancelled, JobFailed, Refused, ServerUnreachable
from core.schema import (
    EVENT,
    TERMINAL,
    Cancelled,
    Event,
    Failed,
    JobAccepted,
    Problem,
    Result,
    Snapshot,
    Succeeded,
    UploadLink,
)

Model = TypeVar("Model", bound=BaseModel)
Image = str | PathLike[str] | bytes
DEFAULT_URL = "http://127.0.0.1:8000"
CONNECT_SECONDS = 5
QUIET_SECONDS = 45
"""The server says something every 15 s (20 s behind a gateway); three times that is a dead connection."""
RECONNECT_SECONDS = 0.5
NOTHING_MORE = 204
"""The status of a job's events when the last one was seen already."""
INLINE_BYTES = 4_000_000
"""Larger files are uploaded: Lambda takes bodies of 6 MB, and base64 makes a third more of them."""
PUT_SECONDS = 300
GONE_SECONDS = 60
"""A server that cannot be reached for so long counts as gone."""


class Upscaled(NamedTuple):
    """A finished job; the images are downloaded when asked for."""

    client: "Client"
    job_id: str
    result: Result

    def download(self, which: Literal["result", "original"] = "result") -> bytes:
        """The enlarged image's file, or its bicubic enlargement's."""
        return self.client.download(self.job_id, which)

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the enlarged image's file; returns where."""
        target = Path(path)
        target.write_bytes(self.download())
        return target


class Client:
    """A connection to an upres server, by default the one in UPRES_URL; may be used as a context manager.

    Where the server asks for an API key, it is given here or in UPRES_API_KEY.

    Methods raise ServerUnreachable or Refused (the server's problem, with its stable `code`).
    """

    def __init__(self, url: str | None = None, api_key: str | None = None) -> None:
        url = url or os.environ.get("UPRES_URL") or DEFAULT_URL
        self.url = (url if "://" in url else f"http://{url}").rstrip("/")
        self._session = requests.Session()
        if key := api_key or os.environ.get("UPRES_API_KEY"):
            self._session.headers["Authorization"] = f"Bearer {key}"
        # Repeating a POST is safe: each carries an Idempotency-Key.
        retry = Retry(3, status_forcelist=[503], allowed_methods=None, backoff_factor=0.3, raise_on_status=False)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=retry))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._session.close()

    def upscale(
        self,
        image: Image,
        factor: int = 4,
        *,
        model: str | None = None,
        model_version: str | None = None,
        output_format: str = "auto",
        on_event: Callable[[Event], None] = lambda event: None,
    ) -> Upscaled:
        """Submit an image (path, bytes or http(s) URL), wait, and return what became of it.

        `on_event` sees every event on the way. Raises JobFailed or JobCancelled when there is no result.
        """
        job = self.submit(image, factor, model=model, model_version=model_version, output_format=output_format)
        for event in self.events(job.job_id):
            on_event(event)
            match event:
                case Succeeded():
                    return Upscaled(self, job.job_id, event.result)
                case Failed():
                    raise JobFailed(event.code, event.message, event.retryable)
                case Cancelled():
                    raise JobCancelled(f"Job {job.job_id} was cancelled.")
        raise AssertionError("a job's events end with a terminal one")

    def submit(
        self,
        image: Image,
        factor: int = 4,
        *,
        model: str | None = None,
        model_version: str | None = None,
        output_format: str = "auto",
        priority: Literal["normal", "high"] = "normal",
        deadline_seconds: float | None = None,
        idempotency_key: str | None = None,
    ) -> JobAccepted:
        """Submit an image and return at once. Raises FileNotFoundError for a path that is not there.

        Files of more than 4 MB go straight into the store first.
        """
        body = {
            **self._image_fields(image),
            "upscale_factor": factor,
            "model": model,
            "model_version": model_version,
            "output_format": output_format,
            "priority": priority,
            **({} if deadline_seconds is None else {"deadline_seconds": deadline_seconds}),
        }
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        return self._call(JobAccepted, "POST", "/v1/jobs", json=body, headers=headers)

    def events(self, job_id: str) -> Iterator[Event]:
        """The job's events, from the first to the terminal one. See `follow`."""
        for _, event in self.follow(job_id):
            yield event

    def follow(self, job_id: str, after: str | None = None) -> Iterator[tuple[str, Event]]:
        """The job's events with their ids, from the first, or after an id, to the terminal one.

        Reconnects where it was; ServerUnreachable when that fails for a minute.
        """
        reached = time.monotonic()
        while time.monotonic() - reached < GONE_SECONDS:
            try:
                with self._open_events(job_id, after) as response:
                    if response.status_code == NOTHING_MORE:
                        return
                    for event_id, event in _decode(response):
                        reached, after = time.monotonic(), event_id
                        yield event_id, event
                        if event.type in TERMINAL:
                            return
                reached = time.monotonic()  # a gateway that buffers ends a stream after each few events
            except (requests.RequestException, ServerUnreachable):
                time.sleep(RECONNECT_SECONDS * random.uniform(0.5, 1.5))
        raise ServerUnreachable(f"{self.url} does not answer any more; the job {job_id} goes on without you.")

    def status(self, job_id: str) -> Snapshot:
        """The job now."""
        return self._call(Snapshot, "GET", f"/v1/jobs/{job_id}")

    def cancel(self, job_id: str) -> Snapshot:
        """Cancel the job; one that has ended stays as it is."""
        return self._call(Snapshot, "DELETE", f"/v1/jobs/{job_id}")

    def download(self, job_id: str, which: Literal["result", "original"] = "result") -> bytes:
        """The file of a finished job's image."""
        return self._request("GET", f"/v1/jobs/{job_id}/{which}").content

    def upload(self, data: bytes, on_bytes: Callable[[int, int], None] = lambda sent, total: None) -> str:
        """Put an image file straight into the store; returns the key for `image_key`.

        `on_bytes` hears how many bytes of how many were sent.
        """
        link = self._call(UploadLink, "POST", "/v1/uploads", json={"bytes": len(data)})
        try:
            # Not through the session: the store is nobody's business to give the API key to.
            response = requests.put(
                link.upload_url, data=_Reader(data, on_bytes), timeout=(CONNECT_SECONDS, PUT_SECONDS)
            )
        except requests.RequestException as error:
            raise ServerUnreachable("The object store does not answer; nothing was submitted.") from error
        if not response.ok:
            raise ServerUnreachable(f"The object store answered {response.status_code}; nothing was submitted.")
        return link.image_key

    def _image_fields(self, image: Image) -> dict[str, str]:
        """The fields of a request that carry the image."""
        if isinstance(image, str) and "://" in image:
            return {"image_url": image}
        data, name = (image, {}) if isinstance(image, bytes) else _read(Path(image))
        if len(data) > INLINE_BYTES:
            return {"image_key": self.upload(data), **name}
        return {"image_base64": base64.b64encode(data).decode(), **name}

    def _open_events(self, job_id: str, after: str | None) -> requests.Response:
        headers = {"Last-Event-ID": after} if after else {}
        return self._request("GET", f"/v1/jobs/{job_id}/events", headers=headers, stream=True)

    def _call(self, model: type[Model], method: str, path: str, **options: Any) -> Model:
        return model.model_validate_json(self._request(method, path, **options).content)

    def _request(self, method: str, path: str, **options: Any) -> requests.Response:
        try:
            response = self._session.request(
                method, self.url + path, timeout=(CONNECT_SECONDS, QUIET_SECONDS), **options
            )
        except requests.RequestException as error:
            raise ServerUnreachable(f"{self.url} does not answer; is upres running there?") from error
        if not response.ok:
            raise _refused(response)
        return response


def _decode(response: requests.Response) -> Iterator[tuple[str, Event]]:
    lines = (line.decode() for line in response.iter_lines())
    for event_id, data in sse.decode(lines):
        yield event_id, EVENT.validate_json(data)


class _Reader:
    """Bytes that say how many of them were read, with a length, so that they are not sent in chunks."""

    def __init__(self, data: bytes, on_bytes: Callable[[int, int], None]) -> None:
        self._data, self._sent, self._on_bytes = data, 0, on_bytes

    def __len__(self) -> int:
        return len(self._data)

    def read(self, size: int = -1) -> bytes:
        """The next bytes, at most `size`."""
        piece = self._data[self._sent :] if size < 0 else self._data[self._sent : self._sent + size]
        self._sent += len(piece)
        self._on_bytes(self._sent, len(self._data))
        return piece


def _read(path: Path) -> tuple[bytes, dict[str, str]]:
    return path.read_bytes(), {"image_name": path.name}


def _refused(response: requests.Response) -> Refused | ServerUnreachable:
    """The server's problem; what is no problem document does not come from upres."""
    try:
        return Refused(Problem.model_validate_json(response.content))
    except ValidationError:
        return ServerUnreachable(
            f"{response.url} answered {response.status_code} {response.reason}, not as upres does."
        )
