"""The stored messages of upres: event, result and snapshot. core/job_message.py has the queued job, core/api.py the
messages of the HTTP API.

All models are frozen. Requests, queued jobs and manifests reject unknown fields. What is read back, answers and stored
records, is tolerant at every depth, so that processes of different releases understand each other: unknown fields are
ignored or kept, unknown words of an enumeration are kept, unknown events are skipped. Times are in UTC, durations in
seconds, sizes in pixels.
"""

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, WithJsonSchema

from upres.core import sizes
from upres.core.foreign_text import MAX_SENTENCE, printable
from upres.core.tolerance import OrUnknown

OutputFormat = Literal["png", "jpeg", "webp", "avif", "jxl", "tiff", "gif"]
WantedFormat = Literal["auto", "png", "jpeg", "webp", "avif", "jxl", "tiff", "gif"]
Depth = Literal[8, 16]
WantedDepth = Literal["auto", 8, 16]
Fit = Literal["inside", "exact"]
WantedMetadata = Literal["strip", "keep", "keep-all"]
WantedFrames = Literal["all", "first"]
OriginalMode = Literal["lazy", "eager"]
Stage = Literal["fetch", "decode", "upscale", "encode", "store"]
StageRead = Annotated[Stage, OrUnknown()]
Status = Literal["queued", "running", "succeeded", "failed", "cancelled"]
Reason = Literal["worker_lost", "worker_stopping", "worker_unwell", "worker_outdated", "device_lost", "identical_job"]
TERMINAL: frozenset[str] = frozenset({"succeeded", "failed", "cancelled"})

ModelName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
VersionName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
UPLOAD_KEY = r"^uploads/[A-Za-z0-9_-]{1,64}$"


ALIASES: ConfigDict = {"validate_by_name": True, "validate_by_alias": True, "serialize_by_alias": True}
"""A field may be stored under its alias. Python code uses the field's name; both names are read."""


class StrictModel(BaseModel):
    """Base of requests, queued jobs and manifests. An unknown field is a validation error."""

    model_config = ConfigDict(frozen=True, extra="forbid", **ALIASES)


class TolerantModel(BaseModel):
    """Base of answers and stored records. Unknown fields are ignored, because a newer version may have added them."""

    model_config = ConfigDict(frozen=True, extra="ignore", **ALIASES)


class StoredModel(BaseModel):
    """Base of stored documents that are read, changed and written again. Unknown fields are kept."""

    model_config = ConfigDict(frozen=True, extra="allow", **ALIASES)


def _limited(most: int) -> BeforeValidator:
    """Make a text printable and short, instead of refusing it.

    So making the event of a failure cannot fail itself, and events that an older release stored stay readable.
    """
    return BeforeValidator(lambda text: printable(text, most) if isinstance(text, str) else text)


Sentence = Annotated[str, Field(max_length=MAX_SENTENCE), _limited(MAX_SENTENCE)]
"""A sentence for users, which may quote text from outside."""
Name = Annotated[str, Field(max_length=255), _limited(255)]
"""The name of a worker, device, model, format, file or error code."""
Link = Annotated[str, Field(max_length=1 << 14)]
"""The address of an object: names are quoted in it, and stores add tokens."""
JobId = Annotated[str, Field(description="Id of the job: 128 random bits in hexadecimal.")]
Factor = Annotated[
    int | float,
    BeforeValidator(
        lambda factor: sizes.plain(factor) if isinstance(factor, float) and 1 <= factor <= sizes.MAX_FACTOR else factor
    ),
    Field(ge=1, le=sizes.MAX_FACTOR, description="Enlargement per side, 1 to 8, with at most four decimals."),
    WithJsonSchema({"type": "number", "minimum": 1, "maximum": sizes.MAX_FACTOR}),
]
FactorRead = Annotated[
    int | float,
    BeforeValidator(lambda factor: sizes.plain(factor) if isinstance(factor, float) else factor),
    Field(gt=0, description="Enlargement per side, 1 to 8, with at most four decimals."),
    WithJsonSchema({"type": "number", "minimum": 1, "maximum": sizes.MAX_FACTOR}),
]
WantedFactor = Annotated[
    FactorRead | None, Field(description="Requested enlargement per side, 1 to 8; absent when a size was requested.")
]
Digest = Annotated[
    Name, Field(description="SHA-256 of the model's manifest, which lists the digests of all its files.")
]
Device = Annotated[Name, Field(description="Product name of the processor that runs the model.")]
TilesDone = Annotated[int, Field(ge=0, description="Number of finished tiles.")]
TilesTotal = Annotated[int, Field(ge=0, description="Number of tiles of the whole job; 0 until it is known.")]
Frame = Annotated[
    int | None,
    Field(ge=1, description="Number of the frame or page, from 1, that is enlarged now; absent for still images."),
]
Frames = Annotated[
    int | None, Field(ge=1, description="Number of frames or pages of the result; absent for still images.")
]
Percent = Annotated[
    float, Field(ge=0, le=100, description="Finished share of the job in percent. It never falls within an attempt.")
]
Eta = Annotated[float | None, Field(ge=0, description="Expected seconds until the job ends; absent while unknown.")]
Attempt = Annotated[
    int, Field(ge=0, description="Number of times that a worker has taken the job; 0 before the first time.")
]


class Result(TolerantModel):
    """The result of a succeeded job: the addresses of its images, and how they were made."""

    sr_image_url: Link = Field(description="Presigned URL of the enlarged image, valid for one hour.")
    sr_image_uri: Link = Field(description="s3:// address of the enlarged image.")
    original_image_url: Link = Field(
        description="URL of a bicubic enlargement of the input for comparison. original eager: presigned, valid for "
        "one hour; lazy: an address of the server that redirects to such a URL, valid as long as the job can be read."
    )
    original_image_uri: Link = Field(
        description="s3:// address of the bicubic enlargement; with original lazy it is there after the first GET of "
        "original_image_url."
    )
    original: Annotated[OriginalMode, OrUnknown()] = Field(
        "eager",
        description="When the bicubic enlargement is made: eager, it was stored with the result; lazy, at the first "
        "GET of original_image_url or /v1/jobs/{id}/original, which takes some seconds.",
    )
    upscale_factor: Annotated[
        FactorRead,
        Field(description="Enlargement per side; if a size was requested, that of the width, with four decimals."),
    ]
    width: int = Field(ge=1, description="Width of both images in pixels.")
    height: int = Field(ge=1, description="Height of both images in pixels.")
    format: Annotated[OutputFormat, OrUnknown()] = Field(description="File format of both images.")
    depth: Annotated[Depth, OrUnknown()] = Field(8, description="Bits of a sample of both images: 8 or 16.")
    file_name: Name = Field(description="File name under which a browser saves the enlarged image.")
    model: Name = Field(description="Model name.")
    model_version: Name = Field(description="Version of the model.")
    model_digest: Digest
    strength: float | None = Field(
        None, ge=0, le=1, description="Strength of the model; absent when it cannot be chosen."
    )
    first_model: Name | None = Field(None, description="Name of the model that was applied before; absent without one.")
    first_model_version: Name | None = Field(None, description="Version of first_model.")
    first_model_digest: Name | None = Field(None, description="SHA-256 of the manifest of that version.")
    device: Device
    seconds: dict[StageRead, float] = Field(description="Duration of each stage in seconds.")
    notices: list[Sentence] = Field(
        [], description="Sentences for the user: what is wrong with the image file although it was read."
    )
    ensemble: bool = Field(False, description="Whether the result is the average of eight orientations of the image.")
    frames: int = Field(
        1,
        ge=1,
        description="Number of frames or pages of both images; their size is the first one's. In a WebP file, equal "
        "frames in a row are one that lasts longer.",
    )


def now() -> datetime:
    """The current time, in UTC."""
    return datetime.now(UTC)


class _Event(TolerantModel):
    job_id: JobId
    at: datetime = Field(default_factory=now, description="Time of the event, UTC.")


class Queued(_Event):
    """The job was accepted and is in the queue."""

    type: Literal["queued"] = Field("queued", description="Kind of event.")
    upscale_factor: WantedFactor = None
    model: Name = Field(description="Model name.")
    model_version: Name = Field(
        description="Version that the requested label or version meant when the job was accepted."
    )
    output_format: Name = Field(
        description="Requested file format of the result: auto, png, jpeg, webp, avif, jxl, tiff or gif."
    )
    position: int = Field(ge=0, description="Number of jobs before this one in the queue at that time.")
    deadline: datetime = Field(description="Time at which the job fails if it has not ended, UTC.")
    owner: Name | None = Field(None, description="Id of the API key that submitted the job; absent without a key.")


class Started(_Event):
    """A worker has taken the job and runs it."""

    type: Literal["started"] = Field("started", description="Kind of event.")
    worker: Name = Field(description="Name of the worker process.")
    device: Device
    model: Name = Field(description="Model name.")
    model_version: Name = Field(description="Version of the model.")
    model_digest: Digest
    attempt: Attempt
    waited_seconds: float = Field(ge=0, description="Seconds from the acceptance of the job to this event.")


class Progress(_Event):
    """The job has entered a stage or finished a tile."""

    type: Literal["progress"] = Field("progress", description="Kind of event.")
    stage: StageRead = Field(description="Current stage of the job.")
    tiles_done: TilesDone = 0
    tiles_total: TilesTotal = 0
    frame: Frame = None
    frames: Frames = None
    percent: Percent
    eta_seconds: Eta = None
    notice: Sentence | None = Field(
        None, description="A sentence for the user about something unusual, such as smaller tiles for lack of memory."
    )


class Requeued(_Event):
    """The job waits again. The next attempt continues from the last checkpoint, if the job has one."""

    type: Literal["requeued"] = Field("requeued", description="Kind of event.")
    reason: Annotated[Reason, OrUnknown()] = Field(
        description="Why the job waits again; identical_job: for the result of another job with the same image; "
        "worker_unwell: the worker cannot use the object store, Redis or the model for now; worker_outdated: the job "
        "waits for a worker of a newer release."
    )


class Succeeded(_Event):
    """The job has ended with a result."""

    type: Literal["succeeded"] = Field("succeeded", description="Kind of event.")
    result: Result = Field(description="Addresses of the images, and how they were made.")


class Failed(_Event):
    """The job has ended with an error."""

    type: Literal["failed"] = Field("failed", description="Kind of event.")
    code: Name = Field(description="Stable error code, see core/errors.py.")
    message: Sentence = Field(description="A sentence for the user that says what is wrong and what to do.")
    retryable: bool = Field(description="Whether the same request may succeed later.")


class Cancelled(_Event):
    """The job was cancelled by a client."""

    type: Literal["cancelled"] = Field("cancelled", description="Kind of event.")


Event = Annotated[Queued | Started | Progress | Requeued | Succeeded | Failed | Cancelled, Field(discriminator="type")]
EVENT: TypeAdapter[Event] = TypeAdapter(Event)


class UnknownEvent(BaseModel):
    """An event of another release that this one cannot read. Readers skip it, streams pass it on as it is stored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    type: str


class Failure(TolerantModel):
    """Why a job failed."""

    code: Name = Field(description="Stable error code, see core/errors.py.")
    message: Sentence = Field(description="A sentence for the user that says what is wrong and what to do.")
    retryable: bool = Field(description="Whether the same request may succeed later.")


class Snapshot(TolerantModel):
    """The state of a job at one time, computed from its events."""

    job_id: JobId
    status: Annotated[Status, OrUnknown()] = Field(
        description="Status of the job; succeeded, failed and cancelled are final."
    )
    upscale_factor: WantedFactor = Field(
        None, description="Enlargement per side, 1 to 8; while a size was requested, absent until the job succeeded."
    )
    model: Name = Field(description="Model name.")
    model_version: Name = Field(
        description="Version that the requested label or version meant when the job was accepted."
    )
    output_format: Name = Field(
        description="Requested file format of the result: auto, png, jpeg, webp, avif, jxl, tiff or gif."
    )
    submitted_at: datetime = Field(description="Time at which the request was accepted, UTC.")
    updated_at: datetime = Field(description="Time of the last event, UTC.")
    deadline: datetime = Field(description="Time at which the job fails if it has not ended, UTC.")
    position: int | None = Field(
        None, ge=0, description="Number of jobs before this one in the queue; absent unless the job is queued."
    )
    worker: Name | None = Field(None, description="Name of the worker process that took the job last.")
    device: Name | None = Field(None, description="Product name of the processor that runs the model.")
    attempt: Attempt = 0
    stage: StageRead | None = Field(None, description="Current stage of a running job; absent otherwise.")
    tiles_done: TilesDone = 0
    tiles_total: TilesTotal = 0
    frame: Frame = None
    frames: Frames = None
    percent: Percent = 0
    eta_seconds: Eta = None
    result: Result | None = Field(None, description="Result of a succeeded job; absent otherwise.")
    failure: Failure | None = Field(None, description="Error of a failed job; absent otherwise.")
