"""The requests and answers of the HTTP API. Events, results and snapshots are in core/schema.py.

Requests reject unknown fields; answers ignore them when they are read.
"""

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from upres.core import keys, target
from upres.core.options import ResultOptions
from upres.core.schema import UPLOAD_KEY, ModelName, OriginalMode, Status, StrictModel, TolerantModel, VersionName
from upres.core.tolerance import OrUnknown


def _number(value: object) -> object:
    """Reject `true` and `false`, which Python counts as numbers."""
    if isinstance(value, bool):
        raise PydanticCustomError("invalid_number", "It must be a number.")
    return value


def _text(value: object) -> object:
    """Reject half of a surrogate pair: JSON can contain one, but it cannot be stored as UTF-8."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise PydanticCustomError("invalid_text", "The text is not valid Unicode.") from None
    return value


def _http(url: str | None) -> str | None:
    if url is not None:
        try:
            target.parse(url)
        except ValueError:
            raise PydanticCustomError("invalid_url", "It must be an absolute http:// or https:// address.") from None
    return url


Text = Annotated[str | None, BeforeValidator(_text)]


Address = Annotated[Text, AfterValidator(_http)]


class Enlargement(ResultOptions):
    """The options of an enlargement: what the result is, and the model that makes it."""

    model: ModelName | None = Field(None, description="Model name; default: the default model of the server.")
    model_version: VersionName | None = Field(
        None, description="Version or label of the model; default: stable, or canary for its share of the jobs."
    )


class JobRequest(Enlargement):
    """A request to enlarge one image, which is given by exactly one of image_url, image_base64 and image_key."""

    image_url: Address = Field(
        None, max_length=8192, description="http(s) address of the image, ≤ 8192 characters; the host must be public."
    )
    image_base64: Text = Field(None, description="The image file in base64 (RFC 4648), optionally as a data: URL.")
    image_key: str | None = Field(
        None, pattern=UPLOAD_KEY, description="Key of an image that was uploaded with POST /v1/uploads (uploads/…)."
    )
    image_name: Text = Field(
        None, max_length=255, description="File name of the image, ≤ 255 characters; the result's name is made from it."
    )
    priority: Literal["normal", "high"] = Field("normal", description="high: the job is put at the front of the queue.")
    deadline_seconds: Annotated[float, BeforeValidator(_number)] = Field(
        keys.DEADLINE_SECONDS,
        ge=1,
        le=keys.MAX_DEADLINE_SECONDS,
        description="Seconds after acceptance at which the job fails if it has not ended.",
    )

    webhook_url: Address = Field(
        None,
        max_length=2048,
        description="http(s) address that receives a webhook when the job ends; the host must be public.",
    )
    preview: bool = Field(
        False, strict=True, description="Whether GET /v1/jobs/{id}/preview shows finished tiles while the job runs."
    )

    @model_validator(mode="after")
    def _one_image(self) -> Self:
        given = [name for name in ("image_url", "image_base64", "image_key") if getattr(self, name) is not None]
        if not given:
            raise PydanticCustomError("image_missing", "Give the image as one of image_url, image_base64 or image_key.")
        if len(given) > 1:
            raise PydanticCustomError(
                "image_ambiguous", "Give the image once, not as {fields} together.", {"fields": ", ".join(given)}
            )
        return self

    original: OriginalMode = Field(
        "lazy",
        description="When the bicubic enlargement for comparison is made: lazy, when it is asked for first; eager, "
        "with the result, so that original_image_url is a presigned URL and original_image_uri is there at once.",
    )


class UploadRequest(StrictModel):
    """A request for a presigned URL to upload one image file."""

    bytes: int = Field(ge=1, strict=True, description="Exact size of the image file in bytes.")
    sha256: str | None = Field(
        None,
        pattern="^[0-9a-f]{64}$",
        description="SHA-256 of the image file in hexadecimal: two uploads of one file are then the same image for an "
        "Idempotency-Key.",
    )


class UploadLink(TolerantModel):
    """A presigned URL for the upload of one image file."""

    image_key: str = Field(description="Key of the image, for the field `image_key` of a job request.")
    upload_url: str = Field(
        description="Presigned URL: it accepts one PUT of exactly the requested number of bytes, without credentials."
    )
    expires_at: datetime = Field(description="Time at which upload_url expires, UTC.")


class PreviewTile(TolerantModel):
    """A preview of one finished piece of a result. All coordinates are in pixels of the whole preview."""

    of_width: int = Field(ge=1, description="Width of the whole preview in pixels.")
    of_height: int = Field(ge=1, description="Height of the whole preview in pixels.")
    x: int = Field(ge=0, description="Left edge of the piece in pixels.")
    y: int = Field(ge=0, description="Upper edge of the piece in pixels.")
    width: int = Field(ge=1, description="Width of the piece in pixels.")
    height: int = Field(ge=1, description="Height of the piece in pixels.")
    image: str = Field(description="The piece as a data: URL (RFC 2397).")


class PreviewTiles(TolerantModel):
    """The finished pieces of a running job, without the first `after` pieces."""

    tiles: tuple[PreviewTile, ...] = Field(description="Pieces in the order in which they were finished.")


class EstimateRequest(Enlargement):
    """A request for an estimate: the size of an image and the options of its enlargement."""

    width: int = Field(ge=1, le=10**6, strict=True, description="Width of the image in pixels.")
    height: int = Field(ge=1, le=10**6, strict=True, description="Height of the image in pixels.")
    bytes: int | None = Field(None, ge=1, strict=True, description="Size of the image file in bytes.")
    frame_count: int = Field(
        1, ge=1, le=10**6, strict=True, description="Number of frames of an animation, or of pages, each of this size."
    )


class Estimate(TolerantModel):
    """The expected result and duration of a job, and whether the server would accept it."""

    accepted: bool = Field(description="Whether the server would accept a job for this image.")
    code: str | None = Field(
        None, description="Stable error code (see core/errors.py) of the refusal; absent when accepted is true."
    )
    detail: str | None = Field(
        None, description="A sentence for the user that says why, and what to do; absent when accepted is true."
    )
    width: int = Field(ge=1, description="Width of the result in pixels.")
    height: int = Field(ge=1, description="Height of the result in pixels.")
    tiles: int = Field(ge=0, description="Number of tiles of the job; 0 when accepted is false.")
    model: str = Field(description="Model name.")
    model_version: str = Field(description="Version of the model.")
    seconds: float | None = Field(
        None,
        ge=0,
        description="Expected seconds from start to end, computed from the latest jobs; absent when there were none.",
    )
    waiting: int = Field(ge=0, description="Number of jobs in the queue now.")
    slots: int = Field(ge=0, description="Number of jobs that all ready workers together run at once.")


class JobAccepted(TolerantModel):
    """The answer to an accepted job request: the job's id and addresses."""

    job_id: str = Field(description="Id of the job: 128 random bits in hexadecimal.")
    status: Annotated[Status, OrUnknown()] = Field(
        description="queued for a new job; the job's current status when the Idempotency-Key was used before."
    )
    channel: str = Field(description="Redis pub/sub channel on which the job's events are published.")
    events_url: str = Field(description="Address of the job's server-sent events.")
    status_url: str = Field(description="Address of the job: GET reads its snapshot, DELETE cancels it.")


class Problem(TolerantModel):
    """An error as the HTTP API sends it: problem details (RFC 9457) with a stable error code of upres."""

    type: str = Field(description="URI of the kind of error: urn:upres:error:{code}.")
    title: str = Field(description="Short text that names the kind of error.")
    status: int = Field(ge=400, le=599, description="HTTP status.")
    detail: str = Field(description="A sentence that says what is wrong and what would be right.")
    code: str = Field(description="Stable error code, see core/errors.py.")
    retryable: bool = Field(description="Whether the same request may succeed later.")
    errors: list[dict[str, str]] = Field(
        default=[], description="The rejected fields, each with field, code, given and detail."
    )
