"""What travels over HTTP: what a client asks for, and what it is told at once. The rest is core/schema.py's.

What asks for something refuses unknown fields; answers that are read back ignore them.
"""

from datetime import datetime
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from upres.core import keys
from upres.core.schema import (
    FACTORS,
    UPLOAD_KEY,
    ModelName,
    Status,
    StrictModel,
    TolerantModel,
    VersionName,
    WantedFormat,
)


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


class Enlargement(StrictModel):
    """How an image is to be enlarged."""

    upscale_factor: Annotated[Literal[2, 4, 8], BeforeValidator(_factor)] = Field(
        4, description="Enlargement per side: 2, 4 or 8."
    )
    model: ModelName | None = Field(None, description="Model name; default: the deployment's model.")
    model_version: VersionName | None = Field(None, description="A version or a label of the model; default: stable.")
    output_format: Annotated[WantedFormat, BeforeValidator(_format)] = Field(
        "auto", description="File format of the result; auto: as the input."
    )


class JobRequest(Enlargement):
    """What a client asks for: one image, given in exactly one of three ways, and how to enlarge it."""

    image_url: Address = Field(None, max_length=8192, description="http(s) address of the image; must be public.")
    image_base64: Text = Field(None, description="The image file in base64 (RFC 4648), optionally as a data: URL.")
    image_key: str | None = Field(
        None, pattern=UPLOAD_KEY, description="Key of an image that was uploaded before (uploads/…)."
    )
    image_name: Text = Field(
        None, max_length=255, description="File name for the download of the result, ≤ 255 characters."
    )
    priority: Literal["normal", "high"] = Field("normal", description="high: before all that is waiting.")
    deadline_seconds: float = Field(
        keys.DEADLINE_SECONDS,
        ge=1,
        le=keys.MAX_DEADLINE_SECONDS,
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


class UploadRequest(StrictModel):
    """What a client says of an image file that it wants to put into the store."""

    bytes: int = Field(ge=1, strict=True, description="Its exact size.")


class UploadLink(TolerantModel):
    """Where to put it."""

    image_key: str = Field(description="For the job's `image_key`.")
    upload_url: str = Field(description="Takes one PUT of exactly so many bytes, without credentials.")
    expires_at: datetime = Field(description="Until when, UTC.")


class PreviewTile(TolerantModel):
    """A finished piece of a result, small; all coordinates in pixels of the preview."""

    of_width: int = Field(ge=1, description="Width of the whole preview.")
    of_height: int = Field(ge=1, description="Height of the whole preview.")
    x: int = Field(ge=0, description="Left edge of the piece.")
    y: int = Field(ge=0, description="Upper edge of the piece.")
    width: int = Field(ge=1, description="Of the piece.")
    height: int = Field(ge=1, description="Of the piece.")
    image: str = Field(description="The piece as a data: URL (RFC 2397).")


class PreviewTiles(TolerantModel):
    """What is finished of a running job, after what was seen already."""

    tiles: tuple[PreviewTile, ...] = Field(description="In the order in which they were finished.")


class EstimateRequest(Enlargement):
    """An image that somebody thinks of submitting."""

    width: int = Field(ge=1, le=10**6, strict=True, description="Of the image, in pixels.")
    height: int = Field(ge=1, le=10**6, strict=True, description="Of the image, in pixels.")
    bytes: int | None = Field(None, ge=1, strict=True, description="Size of the file.")


class Estimate(TolerantModel):
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


class JobAccepted(TolerantModel):
    """The answer to a request: where to follow the job."""

    job_id: str = Field(description="128 random bits in hexadecimal.")
    status: Status = Field(description="queued, or how far the job is when the request was a repetition.")
    channel: str = Field(description="Redis pub/sub channel with the job's events.")
    events_url: str = Field(description="Server-sent events of the job.")
    status_url: str = Field(description="Snapshot of the job; DELETE cancels it.")


class Problem(TolerantModel):
    """An error on the wire: problem details (RFC 9457) with upres's stable code."""

    type: str = Field(description="urn:upres:error:{code}")
    title: str = Field(description="What kind of error it is.")
    status: int = Field(ge=400, le=599, description="HTTP status.")
    detail: str = Field(description="What is wrong and what would be right.")
    code: str = Field(description="Stable error code, see core/errors.py.")
    retryable: bool = Field(description="Whether the same request may succeed later.")
    errors: list[dict[str, str]] = Field(default=[], description="Each rejected field.")
