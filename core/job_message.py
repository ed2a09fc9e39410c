"""The message of a queued job."""

from datetime import datetime
from typing import Annotated, NamedTuple, Self

from pydantic import Field, model_validator

from upres.core.options import ResultOptions
from upres.core.schema import UPLOAD_KEY, Digest, ModelName, Name, VersionName


class JobModel(NamedTuple):
    """A model version that a job uses."""

    name: str
    version: str
    digest: str
    strength: float | None = None
    """None for the version's default."""

    def __str__(self) -> str:
        return f"{self.name} {self.version}" + ("" if self.strength is None else f" at strength {self.strength}")


MAX_URL = 8192
"""Most characters of an address of an image."""
IGNORABLE = frozenset({"original_url"})
"""Fields of a message that a worker of an older release, which does not know them, may ignore. It refuses others."""


class JobMessage(ResultOptions):
    """A job in the queue: everything that a worker needs to run it. The image is given by its address or key only.

    A job with `original_key` makes no enlargement, but the bicubic original of an earlier result (worker/originals.py).
    """

    job_id: Annotated[
        str, Field(pattern=r"^[0-9a-f]{32}$", description="Id of the job: 128 random bits in hexadecimal.")
    ]
    image_url: str | None = Field(
        None, max_length=MAX_URL, description="http(s) address of the image; absent when image_key is given."
    )
    image_key: str | None = Field(
        None, pattern=UPLOAD_KEY, description="Key of the image in the object store; absent when image_url is given."
    )
    original_key: str | None = Field(
        None, max_length=1024, description="Key of the original to make; given instead of an image."
    )
    original_url: str | None = Field(
        None,
        max_length=MAX_URL,
        description="Address of the server at which the original is made later; absent: the job makes it.",
    )
    image_name: str | None = Field(None, max_length=255, description="File name of the image, as the client gave it.")
    model: ModelName = Field(description="Model name.")
    model_version: VersionName = Field(
        description="Version that the requested label or version meant when the job was accepted."
    )
    model_digest: Digest
    first_model_version: VersionName | None = Field(
        None, description="Version of first_model when the job was accepted; absent without first_model."
    )
    first_model_digest: Digest | None = Field(None, description="SHA-256 of that version's manifest.")
    submitted_at: datetime = Field(description="Time at which the request was accepted, UTC.")
    deadline: datetime = Field(description="Time at which the job fails if it has not ended, UTC.")
    owner: Name | None = Field(None, description="Id of the API key that submitted the job; absent without a key.")
    webhook_url: str | None = Field(
        None, max_length=2048, description="http(s) address that receives a webhook when the job ends."
    )
    preview: bool = Field(False, description="Whether the worker stores previews of finished tiles.")
    traceparent: str | None = Field(
        None, max_length=55, description="Trace that the job belongs to (W3C Trace Context)."
    )

    @property
    def models(self) -> tuple[JobModel, ...]:
        """The models of the job in the order in which they are applied; the last one enlarges."""
        main = JobModel(self.model, self.model_version, self.model_digest, self.strength)
        if self.first_model and self.first_model_version and self.first_model_digest:
            return JobModel(self.first_model, self.first_model_version, self.first_model_digest), main
        return (main,)

    @model_validator(mode="after")
    def _whole_first_model(self) -> Self:
        given = [self.first_model, self.first_model_version, self.first_model_digest]
        if any(given) and not all(given):
            raise ValueError("first_model, first_model_version and first_model_digest go together")
        return self

    @model_validator(mode="after")
    def _one_image(self) -> Self:
        if sum(one is not None for one in (self.image_url, self.image_key, self.original_key)) != 1:
            raise ValueError("exactly one of image_url, image_key and original_key must be given")
        return self
