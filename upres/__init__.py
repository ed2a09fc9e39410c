"""upres: super-resolution with live progress.

    from upres import Client

    Client("http://127.0.0.1:8000").upscale("photo.jpg", factor=4).save("photo_x4.jpg")

The names in `__all__` are the public names of the SDK. They are imported on first use (PEP 562), so that the function
and the worker, which do not use them, do not load the HTTP client.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from upres.client import (
        AsyncClient,
        AsyncUpscaled,
        Client,
        JobCancelled,
        JobFailed,
        JobTimeout,
        RequestRefused,
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
    "JobTimeout",
    "RequestRefused",
    "ServerUnreachable",
    "StoreUnreachable",
    "Upscaled",
    "__version__",
]


def __getattr__(name: str) -> object:
    """Import a public name of the SDK. Raises AttributeError for any other name."""
    if name not in __all__:
        raise AttributeError(f"module 'upres' has no attribute {name!r}")
    from upres import client

    return getattr(client, name)


def __dir__() -> list[str]:
    """List the public names, also those that are not imported yet, for completion in an interactive shell."""
    return __all__
