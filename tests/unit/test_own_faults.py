"""Which errors are faults of the worker's machine, and not of a job."""

import errno
import socket
import ssl
import threading
import time

import pytest

from upres.core.errors import UrlUnreachable
from upres.worker import own_faults
from upres.worker.own_faults import own_fault

AGAIN = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
UNKNOWN = socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def wrapped(cause: BaseException) -> UrlUnreachable:
    """The error that a job gets when its image could not be fetched because of `cause`."""
    error = UrlUnreachable("image_url: example.org does not answer.")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize("number", sorted(own_faults.ERRNOS))
def test_what_only_this_machine_can_lack_is_its_own_fault(number: int) -> None:
    fault = own_fault(wrapped(OSError(number, "refused")), "127.0.0.1")
    assert fault
    assert (fault.code, fault.retryable) == ("worker_unavailable", True)


def test_an_error_that_is_its_own_cause_is_looked_at_once() -> None:
    error = UrlUnreachable("image_url: example.org does not answer.")
    error.__cause__ = error
    assert own_fault(error, "127.0.0.1") is None


def test_no_more_threads_is_its_own_fault() -> None:
    assert own_fault(RuntimeError("can't start new thread"), "127.0.0.1")


@pytest.mark.parametrize(
    "cause",
    [
        OSError(errno.ECONNREFUSED, "Connection refused"),
        OSError(errno.ENETUNREACH, "Network is unreachable"),  # a host that has only IPv6
        ssl.SSLSyscallError(ssl.SSL_ERROR_SYSCALL, "Some I/O error occurred"),  # 5, as EIO is
        TimeoutError("time is up"),
        UNKNOWN,
        AGAIN,
        RuntimeError("something else"),
    ],
)
def test_what_a_server_can_cause_is_not(cause: BaseException) -> None:
    assert own_fault(wrapped(cause), "127.0.0.1") is None


@pytest.mark.parametrize(("answer", "is_own"), [(AGAIN, True), (UNKNOWN, False)])
def test_a_failed_lookup_is_its_own_fault_if_no_name_can_be_looked_up(
    monkeypatch: pytest.MonkeyPatch, answer: socket.gaierror, is_own: bool
) -> None:
    def getaddrinfo(*arguments: object, **options: object) -> list[object]:
        raise answer

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert bool(own_fault(wrapped(AGAIN), "store.example.org")) == is_own


def test_a_dns_server_that_is_silent_counts_as_one_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: over.wait())
    monkeypatch.setattr(own_faults, "LOOKUP_SECONDS", 0.05)
    begin = time.monotonic()
    assert own_fault(wrapped(AGAIN), "store.example.org")
    assert time.monotonic() - begin < 5
    over.set()
