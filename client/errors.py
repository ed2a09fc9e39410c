"""What can go wrong for a client.

UpresError (core.errors)
├── ServerUnreachable     nothing answers at the URL
├── StoreUnreachable      the object store does not answer, or not with what was asked for
├── Refused               the server answered with a problem; `code`, `status` and `errors` are its own
├── JobFailed             the job ended without a result; `code` says why
├── JobCancelled          somebody cancelled the job
├── NotInTime             the job goes on, but not within the `timeout` that was given
└── OutputTaken           something else lies where a result would go (only the command `upres`)
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


class Refused(UpresError):
    """The server's problem details (RFC 9457) as an exception; `retry_after` in seconds, 0 when none was told."""

    def __init__(self, problem: Problem, retry_after: float = 0) -> None:
        super().__init__(problem.detail)
        self.retry_after = retry_after
        self.code = problem.code
        self.status = problem.status
        self.retryable = problem.retryable
        self.errors = problem.errors


class JobFailed(UpresError):
    """The job ended without a result."""

    def __init__(self, code: str, message: str, retryable: bool) -> None:
        super().__init__(message)
        self.code = code
        self.retryable = retryable


class JobCancelled(UpresError):
    code = "cancelled"


class NotInTime(UpresError):
    code = "not_in_time"
    retryable = True


class OutputTaken(UpresError):
    code = "output_taken"
