"""The messages of upres: what a client sends, what waits in the queue, what a job's events say.

All models are frozen and refuse unknown fields. Times are UTC, durations seconds, sizes pixels.
"""

from datetime import UTC, datetime
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

FACTORS = (2, 4, 8)
OutputFormat = Literal["png", "jpeg", "webp"]
Stage = Literal["fetch", "decode", "upscale", "encode", "store"]
Status = Literal["queued", "running", "succeeded", "failed", "cancelled"]
TERMINAL: frozenset[str] = frozenset({"succeeded", "failed", "cancelled"})

ModelName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
UPLOAD_KEY = r"^uploads/[A-Za-z0-9_-]{1,64}$"


class Message(BaseModel):
    """Base of everything that crosses a process boundary."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _factor(value: object) -> object:
    """Accept 4, "4" and 4.0 but not true, and say what is possible."""
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    if isinstance(value, bool) or value not in FACTORS:
        raise PydanticCustomError("unsupported_factor", "upscale_factor must be 2, 4 or 8.")
    return int(value) if isinstance(value, float) else value


def _format(value: object) -> object:
    """`jpg` in any case is what people write for `jpeg`."""
    if isinstance(value, str):
        value = value.lower()
    return "jpeg" if value == "jpg" else value


class JobRequest(Message):
    """What a client asks for: one image, given in exactly one of three ways, and how to enlarge it."""

    image_url: str | None = Field(None, max_length=8192, description="http(s) address of the image; must be public.")
    image_base64: str | None = Field(
        None, description="The image file in base64 (RFC 4648), optionally as a data: URL."
    )
    image_key: str | None = Field(
        None, pattern=UPLOAD_KEY, description="Key of an image that was uploaded before (uploads/…)."
    )
    image_name: str | None = Field(
        None, max_length=255, description="File name for the download of the result, ≤ 255 characters."
    )
    upscale_factor: Annotated[Literal[2, 4, 8], BeforeValidator(_factor)] = Field(
        4, description="Enlargement per side: 2, 4 or 8."
    )
    model: ModelName | None = Field(None, description="Model name; default: the deployment's model.")
    output_format: Annotated[Literal["auto", "png", "jpeg", "webp"], BeforeValidator(_format)] = Field(
        "auto", description="File format of the result; auto: as the input."
    )
    priority: Literal["normal", "high"] = Field("normal", description="high: before all that is waiting.")

    @field_validator("image_url")
    @classmethod
    def _http(cls, url: str | None) -> str | None:
        if url is not None:
            try:
                parts = urlsplit(url)
                fine = parts.scheme in ("http", "https") and bool(parts.hostname)
            except ValueError:
                fine = False
            if not fine:
                raise PydanticCustomError(
                    "invalid_image_url", "image_url must be an absolute http:// or https:// address."
                )
        return url

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


class JobAccepted(Message):
    """The answer to a request: where to follow the job."""

    job_id: str = Field(description="128 random bits in hexadecimal.")
    status: Status = Field(description="queued, or how far the job is when the request was a repetition.")
    channel: str = Field(description="Redis pub/sub channel with the job's events.")
    events_url: str = Field(description="Server-sent events of the job.")
    status_url: str = Field(description="Snapshot of the job; DELETE cancels it.")


class JobMessage(Message):
    """What waits in the queue: all a worker needs, and never the image itself."""

    job_id: str
    image_url: str | None = None
    image_key: str | None = None
    image_name: str | None = None
    upscale_factor: Literal[2, 4, 8]
    model: ModelName
    output_format: Literal["auto", "png", "jpeg", "webp"]
    submitted_at: datetime


class Result(Message):
    """Where the images of a finished job lie, and how they were made."""

    sr_image_url: str = Field(description="Presigned link to the enlarged image, valid for an hour.")
    sr_image_uri: str = Field(description="s3:// address of the enlarged image.")
    original_image_url: str = Field(description="Presigned link to the bicubic enlargement, to compare.")
    original_image_uri: str = Field(description="s3:// address of the bicubic enlargement.")
    upscale_factor: int = Field(description="Enlargement per side: 2, 4 or 8.")
    width: int = Field(ge=1, description="Width of both images in pixels.")
    height: int = Field(ge=1, description="Height of both images in pixels.")
    format: OutputFormat
    file_name: str = Field(description="Under this name the links save the enlarged image.")
    model: str
    model_digest: str = Field(description="SHA-256 of the model's manifest, which pins its weights.")
    device: str = Field(description="The processor that did it, as its maker calls it.")
    seconds: dict[Stage, float] = Field(description="Time per stage in seconds.")


def now() -> datetime:
    """The current time, in UTC."""
    return datetime.now(UTC)


class _Event(Message):
    job_id: str
    at: datetime = Field(default_factory=now, description="When it happened, UTC.")


class Queued(_Event):
    """The job was accepted and waits."""

    type: Literal["queued"] = "queued"
    upscale_factor: int
    model: str
    output_format: str
    position: int = Field(ge=0, description="Jobs ahead of this one at that moment.")


class Started(_Event):
    """A worker took the job."""

    type: Literal["started"] = "started"
    worker: str
    device: str = Field(description="The processor, as its maker calls it.")
    model: str
    model_digest: str
    attempt: int = Field(ge=1, description="1, or more when an earlier worker died.")
    waited_seconds: float = Field(ge=0)


class Progress(_Event):
    """The job entered a stage or finished a tile."""

    type: Literal["progress"] = "progress"
    stage: Stage
    tiles_done: int = Field(0, ge=0)
    tiles_total: int = Field(0, ge=0, description="0 until the image's size is known.")
    percent: float = Field(ge=0, le=100, description="Share of the whole job, never falling.")
    eta_seconds: float | None = Field(None, ge=0, description="Expected seconds to the end, once known.")


class Succeeded(_Event):
    """The job is done."""

    type: Literal["succeeded"] = "succeeded"
    result: Result


class Failed(_Event):
    """The job ended without a result."""

    type: Literal["failed"] = "failed"
    code: str = Field(description="Stable error code, see core/errors.py.")
    message: str = Field(description="A sentence for people that says what to do.")
    retryable: bool = Field(description="Whether the same request may succeed later.")


class Cancelled(_Event):
    """The job was cancelled on request."""

    type: Literal["cancelled"] = "cancelled"


Event = Annotated[Queued | Started | Progress | Succeeded | Failed | Cancelled, Field(discriminator="type")]
EVENT: TypeAdapter[Event] = TypeAdapter(Event)


class Failure(Message):
    """Why a job failed."""

    code: str
    message: str
    retryable: bool


class Snapshot(Message):
    """A job at one moment: the fold of its events."""

    job_id: str
    status: Status
    upscale_factor: int
    model: str
    output_format: str
    submitted_at: datetime
    updated_at: datetime
    position: int | None = Field(None, description="Jobs ahead of this one while it is queued.")
    worker: str | None = None
    device: str | None = None
    attempt: int = Field(0, ge=0)
    stage: Stage | None = None
    tiles_done: int = 0
    tiles_total: int = 0
    percent: float = Field(0, ge=0, le=100)
    eta_seconds: float | None = None
    result: Result | None = None
    failure: Failure | None = None


class Problem(BaseModel):
    """An error on the wire: problem details (RFC 9457) with upres's stable code."""

    model_config = ConfigDict(frozen=True)

    type: str = Field(description="urn:upres:error:{code}")
    title: str
    status: int = Field(ge=400, le=599)
    detail: str = Field(description="What is wrong and what would be right.")
    code: str
    retryable: bool
    errors: list[dict[str, str]] = Field(default=[], description="Each rejected field.")
