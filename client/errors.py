"""The errors that the client raises.

UpresError (core.errors)
├── ServerUnreachable     no upres server answers at the URL
├── StoreUnreachable      the object store does not answer, or answers with an error
├── ClientSetupError      the URL, the API key, a proxy or a certificate is wrong on this machine
├── RequestRefused        the server answered with an error; `code`, `status` and `errors` are the response's
├── JobFailed             the job ended without a result; `code` is the reason
├── JobCancelled          the job was cancelled
├── JobTimeout            the job did not end within the given `timeout`; it continues on the server
├── NameTooLong           the name of a result would be longer than its file system allows (only the command `upres`)
├── OutputTaken           the output path of a result is in use by another file (only the command `upres`)
└── OutputUnwritable      no result can be saved: the disk is full, or read-only (only the command `upres`)
"""

from upres.core.api import Problem
from upres.core.errors import UpresError


class ServerUnreachable(UpresError):
    code = "server_unreachable"
    status = 503
    retryable = True


class StoreUnreachable(UpresError):
    code = "store_unreachable"
    status = 503
    retryable = True


class ClientSetupError(UpresError):
    code = "client_setup"


class RequestRefused(UpresError):
    """The problem details of the server (RFC 9457) as an exception; `retry_after` in seconds, 0 without the header."""

    def __init__(self, problem: Problem, retry_after: float = 0) -> None:
        super().__init__(problem.detail)
        self.retry_after = retry_after
        self.code = problem.code
        self.status = problem.status
        self.retryable = problem.retryable
        self.errors = problem.errors


class JobFailed(UpresError):
    """The job failed. `code` and `retryable` are those of the job's `failed` event."""

    def __init__(self, code: str, message: str, retryable: bool) -> None:
        super().__init__(message)
        self.code = code
        self.retryable = retryable


class JobCancelled(UpresError):
    code = "cancelled"


class JobTimeout(UpresError):
    code = "not_in_time"
    retryable = True


class NameTooLong(UpresError):
    code = "name_too_long"


class OutputTaken(UpresError):
    code = "output_taken"


class OutputUnwritable(UpresError):
    code = "output_unwritable"
