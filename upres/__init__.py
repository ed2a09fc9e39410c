"""upres: super-resolution with live progress.

    from upres import Client

    Client("http://127.0.0.1:8000").upscale("photo.jpg", factor=4).save("photo_x4.jpg")

The names below are the public ones of the SDK; they are imported when they are first used (PEP 562), so that a
function or worker, which uses none of them, does not pay for the HTTP client.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from upres.client import (
        AsyncClient,
        AsyncUpscaled,
        Client,
        JobCancelled,
        JobFailed,
        NotInTime,
        Refused,
        ServerUnreachable,
        StoreUnreachable,
        Upscaled,
    )

__version__ = "0.1.0"
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
    "__version__",
]


def __getattr__(name: str) -> object:
    """Import a public name of the SDK."""
    if name not in __all__:
        raise AttributeError(f"module 'upres' has no attribute {name!r}")
    from upres import client

    return getattr(client, name)
