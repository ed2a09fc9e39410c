"""The SDK: `from client import Client`, or AsyncClient."""

from client.asynchronous import AsyncClient, AsyncUpscaled
from client.errors import JobCancelled, JobFailed, NotInTime, Refused, ServerUnreachable, StoreUnreachable
from client.sdk import Client, Upscaled

__all__ = [
    "AsyncClient",
    "AsyncUpscaled",
    "Client",
    "JobCancelled",
    "JobFailed",
    "NotInTime",
    "Refused",
    "ServerUnreachable",
    "StoreUnreachable",
    "Upscaled",
]
