"""The Python client library: `from upres import Client` or `AsyncClient`."""

from upres.client.asynchronous import AsyncClient, AsyncUpscaled
from upres.client.errors import JobCancelled, JobFailed, JobTimeout, RequestRefused, ServerUnreachable, StoreUnreachable
from upres.client.sdk import Client, Upscaled

__all__ = [
    "AsyncClient",
    "AsyncUpscaled",
    "Client",
    "JobCancelled",
    "JobFailed",
    "JobTimeout",
    "RequestRefused",
    "ServerUnreachable",
    "StoreUnreachable",
    "Upscaled",
]
