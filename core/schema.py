"""The messages of upres: what waits in the queue, what events say, what a job is and makes; core/api.py has the rest.

All models are frozen. What comes from outside or asks for work refuses unknown fields; what is read
back ignores them, so that parts of different age understand each other. Times are UTC, durations
seconds, sizes pixels.
"""

from datetime import UTC, datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

FACTORS = (2, 4, 8)
OutputFormat = Literal["png", "jpeg", "webp"]
WantedFormat = Literal["auto", "png", "jpeg", "webp"]
Stage = Literal["fetch", "decode", "upscale", "encode", "store"]
Status = Literal["queued", "running", "succeeded", "failed", "cancelled"]
TERMINAL: frozenset[str] = frozenset({"succeeded", "failed", "cancelled"})

ModelName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
VersionName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
UPLOAD_KEY = r"^uploads/[A-Za-z0-9_-]{1,64}$"


ALIASES: ConfigDict = {"validate_by_name": True, "validate_by_alias": True, "serialize_by_alias": True}
"""A field may have another name in what is stored: its alias. Programs use the field's own name."""


class StrictModel(BaseModel):
    """Base of requests and other input: unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", **ALIASES)


class TolerantModel(BaseModel):
    """Base of answers and stored records: unknown fields are ignored, since a newer version may have added them."""

    model_config = ConfigDict(frozen=True, extra="ignore", **ALIASES)


JobId = Annotated[str, Field(description="128 random bits in hexadecimal.")]
Factor = Annotated[int, Field(ge=2, le=8, description="Enlargement per side: 2, 4 or 8.")]
Digest = Annotated[str, Field(description="SHA-256 of the model's manifest, which pins its weights.")]
Device = Annotated[str, Field(description="The processor, as its maker calls it.")]
TilesDone = Annotated[int, Field(ge=0, description="Finished tiles.")]
TilesTotal = Annotated[int, Field(ge=0, description="Tiles of the whole job; 0 until its size is known.")]
Percent = Annotated[float, Field(ge=0, le=100, description="Share of the whole job, never falling in an attempt.")]
Eta = Annotated[float | None, Field(ge=0, description="Expected seconds to the end, once known.")]
Attempt = Annotated[int, Field(ge=0, description="1 for the first; more when an earlier worker died.")]


class JobMessage(StrictModel):
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
    traceparent: str | None = Field(
        None, max_length=55, description="The trace that it belongs to (W3C Trace Context)."
    )

    @model_validator(mode="after")
    def _one_image(self) -> Self:
        if (self.image_url is None) == (self.image_key is None):
            raise ValueError("one of image_url and image_key")
        return self


class Result(TolerantModel):
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


class _Event(TolerantModel):
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


class Failure(TolerantModel):
    """Why a job failed."""

    code: str = Field(description="Stable error code, see core/errors.py.")
    message: str = Field(description="A sentence for people that says what to do.")
    retryable: bool = Field(description="Whether the same request may succeed later.")


class Snapshot(TolerantModel):
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
