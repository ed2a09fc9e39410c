"""The messages of upres: what a client sends, what waits in the queue, what a job's events say.

All models are frozen. What comes from outside or asks for work refuses unknown fields; what is read
back ignores them, so that parts of different age understand each other. Times are UTC, durations
seconds, sizes pixels.
"""

from datetime import UTC, datetime
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    model_validator,
)
from pydantic_core import PydanticCustomError

from core import keys

FACTORS = (2, 4, 8)
OutputFormat = Literal["png", "jpeg", "webp"]
WantedFormat = Literal["auto", "png", "jpeg", "webp"]
Stage = Literal["fetch", "decode", "upscale", "encode", "store"]
Status = Literal["queued", "running", "succeeded", "failed", "cancelled"]
TERMINAL: frozenset[str] = frozenset({"succeeded", "failed", "cancelled"})

ModelName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
VersionName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
UPLOAD_KEY = r"^uploads/[A-Za-z0-9_-]{1,64}$"


class Order(BaseModel):
    """Base of what somebody asks for: unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Message(BaseModel):
    """Base of what is told: unknown fields are from a newer version, and ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


def _factor(value: object) -> object:
    """Accept 4, "4" and 4.0 but not true, and say what is possible."""
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    if isinstance(value, bool) or value not in FACTORS:
        raise PydanticCustomError("unsupported_factor", "upscale_factor must be 2, 4 or 8.")
    return int(value) if isinstance(value, float) else value


def _text(value: object) -> object:
    """JSON can carry half of a surrogate pair, which is no text and cannot be stored as UTF-8."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise PydanticCustomError("invalid_text", "The text is not valid Unicode.") from None
    return value


def _format(value: object) -> object:
    """`jpg` in any case is what people write for `jpeg`."""
    if isinstance(value, str):
        value = value.lower()
    return "jpeg" if value == "jpg" else value


def _http(url: str | None) -> str | None:
    if url is not None:
        try:
            parts = urlsplit(url)
            fine = parts.scheme in ("http", "https") and bool(parts.hostname)
        except ValueError:
            fine = False
        if not fine:
            raise PydanticCustomError("invalid_url", "It must be an absolute http:// or https:// address.")
    return url


Text = Annotated[str | None, BeforeValidator(_text)]
Address = Annotated[Text, AfterValidator(_http)]


class JobRequest(Order):
    """What a client asks for: one image, given in exactly one of three ways, and how to enlarge it."""

    image_url: Address = Field(None, max_length=8192, description="http(s) address of the image; must be public.")
    image_base64: Text = Field(None, description="The image file in base64 (RFC 4648), optionally as a data: URL.")
    image_key: str | None = Field(
        None, pattern=UPLOAD_KEY, description="Key of an image that was uploaded before (uploads/…)."
    )
    image_name: Text = Field(
        None, max_length=255, description="File name for the download of the result, ≤ 255 characters."
    )
    upscale_factor: Annotated[Literal[2, 4, 8], BeforeValidator(_factor)] = Field(
        4, description="Enlargement per side: 2, 4 or 8."
    )
    model: ModelName | None = Field(None, description="Model name; default: the deployment's model.")
    model_version: VersionName | None = Field(None, description="A version or a label of the model; default: stable.")
    output_format: Annotated[WantedFormat, BeforeValidator(_format)] = Field(
        "auto", description="File format of the result; auto: as the input."
    )
    priority: Literal["normal", "high"] = Field("normal", description="high: before all that is waiting.")
    deadline_seconds: float = Field(
        keys.DEADLINE_SECONDS,
        ge=1,
        le=keys.DEADLINE_MOST,
        description="The job fails when it has not ended so many seconds after it was accepted.",
    )

    webhook_url: Address = Field(
        None, max_length=2048, description="http(s) address that is told how the job ended; must be public."
    )
    preview: bool = Field(False, strict=True, description="Whether finished tiles are to be seen while the job runs.")

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


class UploadRequest(Order):
    """What a client says of an image file that it wants to put into the store."""

    bytes: int = Field(ge=1, strict=True, description="Its exact size.")


class UploadLink(Message):
    """Where to put it."""

    image_key: str = Field(description="For the job's `image_key`.")
    upload_url: str = Field(description="Takes one PUT of exactly so many bytes, without credentials.")
    expires_at: datetime = Field(description="Until when, UTC.")


class PreviewTile(Message):
    """A finished piece of a result, small; all coordinates in pixels of the preview."""

    of_width: int = Field(ge=1, description="Width of the whole preview.")
    of_height: int = Field(ge=1, description="Height of the whole preview.")
    x: int = Field(ge=0, description="Left edge of the piece.")
    y: int = Field(ge=0, description="Upper edge of the piece.")
    width: int = Field(ge=1, description="Of the piece.")
    height: int = Field(ge=1, description="Of the piece.")
    image: str = Field(description="The piece as a data: URL (RFC 2397).")


class PreviewTiles(Message):
    """What is finished of a running job, after what was seen already."""

    tiles: tuple[PreviewTile, ...] = Field(description="In the order in which they were finished.")


class EstimateRequest(Order):
    """An image that somebody thinks of submitting."""

    width: int = Field(ge=1, le=10**6, strict=True, description="Of the image, in pixels.")
    height: int = Field(ge=1, le=10**6, strict=True, description="Of the image, in pixels.")
    bytes: int | None = Field(None, ge=1, strict=True, description="Size of the file.")
    upscale_factor: Annotated[Literal[2, 4, 8], BeforeValidator(_factor)] = Field(
        4, description="Enlargement per side: 2, 4 or 8."
    )
    model: ModelName | None = Field(None, description="Model name; default: the deployment's model.")
    model_version: VersionName | None = Field(None, description="A version or a label of the model; default: stable.")
    output_format: Annotated[WantedFormat, BeforeValidator(_format)] = Field(
        "auto", description="File format of the result."
    )


class Estimate(Message):
    """What would become of it."""

    accepted: bool = Field(description="Whether a job would be.")
    code: str | None = Field(None, description="Why not: a stable error code, see core/errors.py; and")
    detail: str | None = Field(None, description="in a sentence for people that says what to do.")
    width: int = Field(ge=1, description="Width of the result in pixels.")
    height: int = Field(ge=1, description="Height of the result in pixels.")
    tiles: int = Field(ge=0, description="In how many tiles it would be made.")
    model: str = Field(description="Model name.")
    model_version: str = Field(description="Its version.")
    seconds: float | None = Field(
        None, ge=0, description="Expected from start to end, by the latest jobs; absent when there were none."
    )
    waiting: int = Field(ge=0, description="Jobs that wait now.")
    slots: int = Field(ge=0, description="Jobs that the workers that are there take at once.")


class JobAccepted(Message):
    """The answer to a request: where to follow the job."""

    job_id: str = Field(description="128 random bits in hexadecimal.")
    status: Status = Field(description="queued, or how far the job is when the request was a repetition.")
    channel: str = Field(description="Redis pub/sub channel with the job's events.")
    events_url: str = Field(description="Server-sent events of the job.")
    status_url: str = Field(description="Snapshot of the job; DELETE cancels it.")


JobId = Annotated[str, Field(description="128 random bits in hexadecimal.")]
Factor = Annotated[int, Field(ge=2, le=8, description="Enlargement per side: 2, 4 or 8.")]
Digest = Annotated[str, Field(description="SHA-256 of the model's manifest, which pins its weights.")]
Device = Annotated[str, Field(description="The processor, as its maker calls it.")]
TilesDone = Annotated[int, Field(ge=0, description="Finished tiles.")]
TilesTotal = Annotated[int, Field(ge=0, description="Tiles of the whole job; 0 until its size is known.")]
Percent = Annotated[float, Field(ge=0, le=100, description="Share of the whole job, never falling in an attempt.")]
Eta = Annotated[float | None, Field(ge=0, description="Expected seconds to the end, once known.")]
Attempt = Annotated[int, Field(ge=0, description="1 for the first; more when an earlier worker died.")]


class JobMessage(Order):
    """What waits in the queue: all a worker needs, and never the image itself."""

    job_id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$", description="128 random bits in hexadecimal.")]
    image_url: str | None = Field(None, description="http(s) address to fetch the image from; or")
    image_key: str | None = Field(None, pattern=UPLOAD_KEY, description="key of the image in the object store.")
    image_name: str | None = Field(None, description="File name that the client gave.")
    upscale_factor: Literal[2, 4, 8] = Field(description="Enlargement per side.")
    model: ModelName = Field(description="Model name.")
    model_version: VersionName = Field(description="What the request's label meant when it was accepted.")
    model_digest: Digest
    output_format: WantedFormat = Field(description="auto: as the input.")
    submitted_at: datetime = Field(description="When the request was accepted, UTC.")
    deadline: datetime = Field(description="When the job fails unless it has ended, UTC.")
    owner: str | None = Field(None, description="Id of the API key that it was submitted with.")
    webhook_url: str | None = Field(None, description="Address that is told how the job ended.")
    preview: bool = Field(False, description="Whether finished tiles are shown.")

    @model_validator(mode="after")
    def _one_image(self) -> Self:
        if (self.image_url is None) == (self.image_key is None):
            raise ValueError("one of image_url and image_key")
        return self


class Result(Message):
    """Where the images of a finished job lie, and how they were made."""

    sr_image_url: str = Field(description="Presigned link to the enlarged image, valid for an hour.")
    sr_image_uri: str = Field(description="s3:// address of the enlarged image.")
    original_image_url: str = Field(description="Presigned link to the bicubic enlargement, to compare.")
    original_image_uri: str = Field(description="s3:// address of the bicubic enlargement.")
    upscale_factor: Factor
    width: int = Field(ge=1, description="Width of both images in pixels.")
    height: int = Field(ge=1, description="Height of both images in pixels.")
    format: OutputFormat = Field(description="File format of both images.")
    file_name: str = Field(description="Under this name the link saves the enlarged image.")
    model: str = Field(description="Model name.")
    model_version: str = Field(description="Its version.")
    model_digest: Digest
    device: Device
    seconds: dict[Stage, float] = Field(description="Time per stage in seconds.")


def now() -> datetime:
    """The current time, in UTC."""
    return datetime.now(UTC)


class _Event(Message):
    job_id: JobId
    at: datetime = Field(default_factory=now, description="When it happened, UTC.")


class Queued(_Event):
    """The job was accepted and waits."""

    type: Literal["queued"] = Field("queued", description="Kind of event.")
    upscale_factor: Factor
    model: str = Field(description="Model name.")
    model_version: str = Field(description="What the requested label or version meant when the job was accepted.")
    output_format: str = Field(description="As requested.")
    position: int = Field(ge=0, description="Jobs ahead of this one at that moment.")
    deadline: datetime = Field(description="When the job fails unless it has ended, UTC.")
    owner: str | None = Field(None, description="Id of the API key that it was submitted with.")


class Started(_Event):
    """A worker took the job."""

    type: Literal["started"] = Field("started", description="Kind of event.")
    worker: str = Field(description="Name of the worker process.")
    device: Device
    model: str = Field(description="Model name.")
    model_version: str = Field(description="Its version.")
    model_digest: Digest
    attempt: Attempt
    waited_seconds: float = Field(ge=0, description="From acceptance to now, in seconds.")


class Progress(_Event):
    """The job entered a stage or finished a tile."""

    type: Literal["progress"] = Field("progress", description="Kind of event.")
    stage: Stage = Field(description="What is being done.")
    tiles_done: TilesDone = 0
    tiles_total: TilesTotal = 0
    percent: Percent
    eta_seconds: Eta = None
    notice: str | None = Field(None, description="Something unusual that people may want to know, in a sentence.")


class Requeued(_Event):
    """The job waits again; it goes on where its last checkpoint is."""

    type: Literal["requeued"] = Field("requeued", description="Kind of event.")
    reason: Literal["worker_lost", "worker_stopping", "device_lost", "identical_job"] = Field(
        description="Why; identical_job: for another job with the same image, whose result it will share."
    )


class Succeeded(_Event):
    """The job is done."""

    type: Literal["succeeded"] = Field("succeeded", description="Kind of event.")
    result: Result = Field(description="Where the images lie.")


class Failed(_Event):
    """The job ended without a result."""

    type: Literal["failed"] = Field("failed", description="Kind of event.")
    code: str = Field(description="Stable error code, see core/errors.py.")
    message: str = Field(description="A sentence for people that says what to do.")
    retryable: bool = Field(description="Whether the same request may succeed later.")


class Cancelled(_Event):
    """The job was cancelled on request."""

    type: Literal["cancelled"] = Field("cancelled", description="Kind of event.")


Event = Annotated[Queued | Started | Progress | Requeued | Succeeded | Failed | Cancelled, Field(discriminator="type")]
EVENT: TypeAdapter[Event] = TypeAdapter(Event)


class Failure(Message):
    """Why a job failed."""

    code: str = Field(description="Stable error code, see core/errors.py.")
    message: str = Field(description="A sentence for people that says what to do.")
    retryable: bool = Field(description="Whether the same request may succeed later.")


class Snapshot(Message):
    """A job at one moment: the fold of its events."""

    job_id: JobId
    status: Status = Field(description="The last three are final.")
    upscale_factor: Factor
    model: str = Field(description="Model name.")
    model_version: str = Field(description="What the requested label or version meant when the job was accepted.")
    output_format: str = Field(description="As requested.")
    submitted_at: datetime = Field(description="When the request was accepted, UTC.")
    updated_at: datetime = Field(description="When the last event happened, UTC.")
    deadline: datetime = Field(description="When the job fails unless it has ended, UTC.")
    position: int | None = Field(None, ge=0, description="Jobs ahead of this one while it is queued.")
    worker: str | None = Field(None, description="Name of the worker process that took it.")
    device: str | None = Field(None, description="The processor, as its maker calls it.")
    attempt: Attempt = 0
    stage: Stage | None = Field(None, description="What is being done while it runs.")
    tiles_done: TilesDone = 0
    tiles_total: TilesTotal = 0
    percent: Percent = 0
    eta_seconds: Eta = None
    result: Result | None = Field(None, description="Once succeeded.")
    failure: Failure | None = Field(None, description="Once failed.")


class Problem(Message):
    """An error on the wire: problem details (RFC 9457) with upres's stable code."""

    type: str = Field(description="urn:upres:error:{code}")
    title: str = Field(description="What kind of error it is.")
    status: int = Field(ge=400, le=599, description="HTTP status.")
    detail: str = Field(description="What is wrong and what would be right.")
    code: str = Field(description="Stable error code, see core/errors.py.")
    retryable: bool = Field(description="Whether the same request may succeed later.")
    errors: list[dict[str, str]] = Field(default=[], description="Each rejected field.")
