"""The SDK: `from client import Client`."""

from client.errors import JobCancelled, JobFailed, Refused, ServerUnreachable
from client.sdk import Client, Upscaled

__all__ = ["Client", "JobCancelled", "JobFailed", "Refused", "ServerUnreachable", "Upscaled"]
