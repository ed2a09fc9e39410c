"""All errors of upres. Each has a stable `code`, an HTTP `status`, and a flag `retryable` (below: retry).

    UpresError                      internal_error         500
    ├── RequestError                the client must change the request
    │   ├── InvalidJson             invalid_json           400
    │   ├── InvalidRequest          a code per field       422
    │   ├── UnknownModel            unknown_model          422
    │   ├── InvalidEventId          invalid_event_id       400
    │   ├── InvalidHttp             invalid_http           400
    │   ├── HeadTooLarge            head_too_large         431
    │   ├── HeadIncomplete          head_incomplete        408  retry
    │   ├── BodyTooLarge            body_too_large         413
    │   ├── UnsupportedEncoding     unsupported_encoding   415
    │   ├── InvalidEncoding         invalid_encoding       400
    │   ├── BodyIncomplete          body_incomplete        408  retry
    │   ├── IdempotencyConflict     idempotency_conflict   409
    │   ├── Unauthorized            unauthorized           401
    │   ├── AccessUndecided         access_undecided       403
    │   ├── ForeignPage             foreign_page           403
    │   ├── MetricsPrivate          metrics_private        404
    │   ├── JobNotFound             job_not_found          404
    │   ├── ModelNotFound           model_not_found        404
    │   ├── KeyNotFound             key_not_found          404
    │   ├── ResultNotReady          result_not_ready       409  retry
    │   ├── NoResult                no_result              410
    │   └── LimitReached            limit_reached          429  retry
    │       ├── RateLimited         rate_limited           429  retry
    │       ├── TooManyJobs         too_many_jobs          429  retry
    │       ├── TooManyStreams      too_many_streams       429  retry
    │       └── QuotaExceeded       quota_exceeded         429  retry
    ├── ImageError                  the client must change the image
    │   ├── NotAnImage              not_an_image           422
    │   ├── UnsupportedImage        unsupported_image      422
    │   ├── TruncatedImage          truncated_image        422
    │   ├── UndecodableImage        undecodable_image      422
    │   ├── TooManyPixels           too_many_pixels        413
    │   ├── TooManyBytes            too_many_bytes         413
    │   ├── FormatLimit             format_limit           422
    │   ├── NotAnEnlargement        not_an_enlargement     422
    │   ├── EnlargementTooLarge     enlargement_too_large  422
    │   └── NotEncoded              not_encoded            422
    ├── FetchError                  the image could not be fetched
    │   ├── UrlRefused              url_refused            422
    │   ├── UrlUnreachable          url_unreachable        502  retry
    │   ├── UrlAnsweredError        url_answered_error     502
    │   └── UploadNotFound          upload_not_found       404
    ├── Unavailable                 a part of upres does not answer; the client may retry
    │   ├── FunctionUnavailable     function_unavailable   503  retry
    │   ├── QueueUnavailable        queue_unavailable      503  retry
    │   ├── ModelUnavailable        model_unavailable      503  retry
    │   ├── WorkerUnavailable       worker_unavailable     503  retry
    │   ├── OriginalNotReady        original_not_ready     503  retry
    │   └── StoreUnavailable        store_unavailable      503  retry
    ├── ModelError                  model_invalid          500
    │   ├── ModelRefused            model_refused          500
    │   ├── ModelTooNew             model_too_new          503  retry
    │   └── OutputNotFinite         output_not_finite      500
    ├── SettingsError               settings_invalid       500
    ├── NotInstalled                not_installed          500
    ├── Unconfined                  unconfined             500
    ├── TimedOut                    timed_out              504  retry
    │   └── DeadlineExceeded        deadline_exceeded      504  retry
    ├── JobRefused                  job_refused            500
    ├── WorkerOutdated              worker_outdated        503  retry
    └── WorkerError                 a worker, its device or the queue failed; the client may retry
        ├── WorkerLost              worker_lost            500  retry
        ├── JobLost                 job_lost               500  retry
        ├── DeviceOutOfMemory       device_out_of_memory   503  retry
        └── DeviceLost              device_lost            500  retry

The same codes are used in problem+json answers (RFC 9457) and in `failed` events.
"""

from collections.abc import Iterator
from typing import Any, Self, TypedDict


class FieldError(TypedDict):
    """One rejected field: name, error code, given value (shortened), and a sentence that says what would be valid."""

    field: str
    code: str
    given: str
    detail: str


class UpresError(Exception):
    """Base of every error. `str(error)` is a sentence for the user that says what is wrong and what to do."""

    code = "internal_error"
    status = 500
    retryable = False
    title = "Something went wrong inside upres"

    def __reduce__(self) -> tuple[Any, ...]:
        """Restore from pickle without `__init__`, whose parameters differ from `args`; process pools need this."""
        return _restore, (type(self), self.args), self.__dict__


def _restore(kind: type[UpresError], args: tuple[Any, ...]) -> UpresError:
    """Make an exception with these `args`; pickle then sets its attributes."""
    return kind.__new__(kind, *args)


class RequestError(UpresError):
    """The server rejects the request; the client must change it, unless `retryable` is true."""

    status = 400
    title = "The request cannot be served"


class InvalidJson(RequestError):
    code = "invalid_json"
    title = "The body is not a JSON object"


class InvalidRequest(RequestError):
    """One or more fields are invalid. `code` is the code of the first one; `errors` lists all of them."""

    code = "invalid_request"
    status = 422
    title = "The request has an invalid field"

    def __init__(self, errors: list[FieldError]) -> None:
        super().__init__(" ".join(error["detail"] for error in errors))
        self.errors = errors
        self.code = errors[0]["code"]


class UnknownModel(RequestError):
    code = "unknown_model"
    status = 422
    title = "There is no such model"


class InvalidEventId(RequestError):
    code = "invalid_event_id"
    title = "Last-Event-ID is not an event id"


class InvalidHttp(RequestError):
    code = "invalid_http"
    status = 400
    title = "The request is not HTTP"


class HeadTooLarge(RequestError):
    code = "head_too_large"
    status = 431
    title = "The address and the headers of the request are too large"


class HeadIncomplete(RequestError):
    code = "head_incomplete"
    status = 408
    title = "The address and the headers of the request did not arrive in time"
    retryable = True


class BodyIncomplete(RequestError):
    code = "body_incomplete"
    status = 408
    title = "The request body did not arrive in time"
    retryable = True


class UnsupportedEncoding(RequestError):
    code = "unsupported_encoding"
    status = 415
    title = "The request body is compressed in another way than gzip"


class InvalidEncoding(RequestError):
    """The body is not, or not completely, what its Content-Encoding says."""

    code = "invalid_encoding"
    status = 400
    title = "The request body cannot be uncompressed"


class BodyTooLarge(RequestError):
    code = "body_too_large"
    status = 413
    title = "The request body is too large"


class IdempotencyConflict(RequestError):
    code = "idempotency_conflict"
    status = 409
    title = "The Idempotency-Key was used for another request"


class JobNotFound(RequestError):
    code = "job_not_found"
    status = 404
    title = "There is no such job"


class ResultNotReady(RequestError):
    code = "result_not_ready"
    status = 409
    retryable = True
    title = "The job is not finished"


class NoResult(RequestError):
    code = "no_result"
    status = 410
    title = "The job ended without a result"


class Unauthorized(RequestError):
    code = "unauthorized"
    status = 401
    title = "An API key is needed"


class AccessUndecided(RequestError):
    code = "access_undecided"
    status = 403
    title = "UPRES_ACCESS is not set on the server"


class ForeignPage(RequestError):
    code = "foreign_page"
    status = 403
    title = "Web pages of other sites may not use this server"


class MetricsPrivate(RequestError):
    code = "metrics_private"
    status = 404
    title = "Metrics are for operators"


class ModelNotFound(RequestError):
    code = "model_not_found"
    status = 404
    title = "There is no such model"


class KeyNotFound(RequestError):
    code = "key_not_found"
    status = 404
    title = "There is no such API key"


class LimitReached(RequestError):
    """The API key has reached a limit. `retry_after` is the number of seconds after which the client may retry."""

    code = "limit_reached"
    status = 429
    retryable = True
    title = "A limit of the API key is reached"

    def __init__(self, message: str, retry_after: int = 5) -> None:
        super().__init__(f"{message} Try again in {retry_after} seconds.")
        self.retry_after = retry_after


class RateLimited(LimitReached):
    code = "rate_limited"


class TooManyJobs(LimitReached):
    code = "too_many_jobs"


class TooManyStreams(LimitReached):
    code = "too_many_streams"
    title = "A limit of open event streams is reached"


class QuotaExceeded(LimitReached):
    code = "quota_exceeded"


class ImageError(UpresError):
    """The image cannot be enlarged; the client must send another one."""

    status = 422
    title = "The image cannot be enlarged"


class NotAnImage(ImageError):
    code = "not_an_image"
    title = "The data is not an image"


class UnsupportedImage(ImageError):
    code = "unsupported_image"
    title = "The image format is not supported"


class TruncatedImage(ImageError):
    code = "truncated_image"
    title = "The image is incomplete or damaged"


class UndecodableImage(ImageError):
    code = "undecodable_image"
    title = "Decoding the image takes too much time or memory"


class TooManyPixels(ImageError):
    code = "too_many_pixels"
    status = 413
    title = "The image has too many pixels"


class TooManyBytes(ImageError):
    code = "too_many_bytes"
    status = 413
    title = "The image file is too large"

    @classmethod
    def for_limit(cls, limit: int) -> Self:
        """Make the error for an image file that has more than `limit` bytes."""
        return cls(f"The image file is larger than {limit / 1e6:g} MB; send a smaller file.")


class FormatLimit(ImageError):
    code = "format_limit"
    title = "The result does not fit the output format"


class NotAnEnlargement(ImageError):
    code = "not_an_enlargement"
    title = "The image is larger than the wanted size"


class EnlargementTooLarge(ImageError):
    code = "enlargement_too_large"
    title = "The wanted size is more than the model can make"


class NotEncoded(ImageError):
    code = "not_encoded"
    title = "The result cannot be written in the output format"


class FetchError(UpresError):
    """The worker could not fetch the image from its address or from the store."""

    status = 502
    title = "The image could not be fetched"


class UrlRefused(FetchError):
    code = "url_refused"
    status = 422
    title = "The image URL is not allowed"


class UrlUnreachable(FetchError):
    code = "url_unreachable"
    retryable = True
    title = "The image URL does not answer"


class UrlAnsweredError(FetchError):
    code = "url_answered_error"
    title = "The image URL answered with an error"


class UploadNotFound(FetchError):
    code = "upload_not_found"
    status = 404
    title = "There is no such upload"


class Unavailable(UpresError):
    """Redis, the object store or a model is temporarily unavailable."""

    status = 503
    retryable = True
    title = "Temporarily unavailable"


class FunctionUnavailable(Unavailable):
    """A process of the function stops, has no descriptors or no room for bodies left, or cannot read an API key."""

    code = "function_unavailable"


class QueueUnavailable(Unavailable):
    code = "queue_unavailable"


class StoreUnavailable(Unavailable):
    code = "store_unavailable"


class ModelUnavailable(Unavailable):
    """A worker cannot run a model for a reason of its own, such as a full disk or a library that fails to load."""

    code = "model_unavailable"


class WorkerUnavailable(Unavailable):
    """A worker's machine has no disk, file descriptors, threads or DNS left; another worker may do the job."""

    code = "worker_unavailable"


class OriginalNotReady(Unavailable):
    """A worker is still making the bicubic enlargement of a result."""

    code, title = "original_not_ready", "Not made yet"


class ModelError(UpresError):
    """A model in the registry is missing or damaged, or this version of upres does not support it."""

    code = "model_invalid"
    title = "The model cannot be used"


class ModelTooNew(ModelError):
    """The manifest of a version was made for a newer release than this one."""

    code = "model_too_new"
    status = 503
    retryable = True
    title = "The model needs a newer release of upres"


class ModelRefused(ModelError):
    """A model version failed its check: its output for a golden image differs from the stored one."""

    code = "model_refused"


class OutputNotFinite(ModelError):
    """A network's output for an image has NaN or infinite numbers (IEEE 754), so it is no image."""

    code = "output_not_finite"


class SettingsError(UpresError):
    """An environment variable (UPRES_*, AWS_*) is missing or has a value that cannot be used."""

    code = "settings_invalid"
    title = "A setting is invalid"


class NotInstalled(UpresError):
    """A Python package is missing; one of the extras of upres installs it."""

    code = "not_installed"
    title = "A part of upres is not installed"


class Unconfined(UpresError):
    """The operating system lacks the sandbox that the decoder process needs (seccomp(2) on Linux)."""

    code = "unconfined"
    title = "The worker cannot decode images safely"


class TimedOut(UpresError):
    code = "timed_out"
    status = 504
    retryable = True
    title = "The job took too long"


class DeadlineExceeded(TimedOut):
    code = "deadline_exceeded"
    title = "The job was not finished in time"


class JobRefused(UpresError):
    """The queue contains a record that is not a job of upres."""

    code = "job_refused"
    title = "The record in the queue is not a job of upres"


class WorkerOutdated(UpresError):
    """The job needs a worker of a newer release than any that took it."""

    code = "worker_outdated"
    status = 503
    retryable = True
    title = "No worker is of a release that knows this job"


class WorkerError(UpresError):
    """A worker or its device failed; another worker may succeed."""

    retryable = True
    title = "The worker failed"


class WorkerLost(WorkerError):
    code = "worker_lost"
    title = "The workers that tried the job died"


class JobLost(WorkerError):
    """Another program deleted the job from the queue and its record."""

    code = "job_lost"
    retryable = True


class DeviceOutOfMemory(WorkerError):
    code = "device_out_of_memory"
    status = 503
    title = "The device has too little memory"


class DeviceLost(WorkerError):
    """The worker process cannot use its device any more; its jobs go back into the queue."""

    code = "device_lost"
    title = "The device broke down"


def not_installed(error: ModuleNotFoundError, what: str, extra: str) -> NotInstalled:
    """Make the error that names the missing package, the part that needs it (`what`), and the extra that installs it.

    Raises `error` itself when the missing module belongs to upres, because that is a bug.
    """
    missing = (error.name or "").partition(".")[0]
    if missing in ("", "upres"):
        raise error
    return NotInstalled(f'{what} needs {missing}: pip install "upres[{extra}]"')


def tree(root: type[UpresError] = UpresError) -> Iterator[type[UpresError]]:
    """Yield the root and all its subclasses, depth first."""
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


def job_codes() -> set[str]:
    """The codes of all errors with which a job can fail; a RequestError is an answer to a request."""
    return {kind.code for kind in tree() if not issubclass(kind, RequestError)}


VERSION_FAULTS = (
    UpresError.code,
    *(kind.code for root in (ModelError, TimedOut) for kind in tree(root)),
    *(WorkerLost.code, DeviceOutOfMemory.code, DeviceLost.code),
)
"""Codes of failures that a model version may have caused: they count against a canary. All others are the fault of the
request, of the image, or of what upres needs and does not reach."""
