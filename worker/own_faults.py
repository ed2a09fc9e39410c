"""Tells faults of this worker's machine from faults of a job.

A worker without disk, file descriptors, threads or DNS would fail every job. Such a job is given back instead, and the
worker pauses (circuit_breaker.py).
"""

import errno
import os
import socket
import ssl
from collections.abc import Iterator

from upres.core.errors import WorkerUnavailable
from upres.worker.lookup import Lookup

ERRNOS = frozenset(
    (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.EAGAIN,
        errno.ENOBUFS,
        errno.ENETDOWN,
    )
)
"""Errors of the operating system that no image, server or client can cause, only this machine."""
LOOKUP_SECONDS = 3.0


def own_fault(error: BaseException, store_host: str) -> WorkerUnavailable | None:
    """Return the fault of this machine that caused an error; None when the job or another party caused it.

    A DNS lookup that no server answered is this machine's fault if the store's name cannot be looked up either; a store
    that is given by its address says nothing, and then the name in the job is blamed.
    """
    for cause in _causes(error):
        if isinstance(cause, socket.gaierror):
            if cause.errno == socket.EAI_AGAIN and not _resolves(store_host):
                return WorkerUnavailable("The worker's DNS server does not answer; try again in a few seconds.")
        elif isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError) and cause.errno in ERRNOS:
            return WorkerUnavailable(f"The worker's machine refused: {os.strerror(cause.errno)}; try again later.")
        elif isinstance(cause, RuntimeError) and "can't start new thread" in str(cause):
            return WorkerUnavailable("The worker cannot start more threads; try again later.")
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what it was raised for or during, each once: an error may be its own cause."""
    seen = set[int]()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _resolves(host: str) -> bool:
    """Whether a DNS server answers a question for this name, even if it does not know it."""
    try:
        Lookup(host, 443).wait(LOOKUP_SECONDS)
    except socket.gaierror as error:
        return error.errno != socket.EAI_AGAIN
    return True
