"""What a caller wants the result of a job to be: the options that requests, estimates and queued jobs share."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo
from pydantic_core import PydanticCustomError

from upres.core import formats
from upres.core.schema import FACTORS, ModelName, StrictModel, WantedDepth, WantedFormat, WantedMetadata


def _factor(value: object) -> object:
    """Convert an upscale factor, given as 4, "4" or 4.0, to an int; `true` is rejected."""
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    if isinstance(value, bool) or value not in FACTORS:
        raise PydanticCustomError("unsupported_factor", "upscale_factor must be 1, 2, 4 or 8.")
    return int(value) if isinstance(value, float) else value


def _depth(value: object) -> object:
    """Convert a depth, given as "16" or 16, to an int."""
    return int(value) if isinstance(value, str) and value in ("8", "16") else value


def _format(value: object) -> object:
    """Convert an output format to lower case, and `jpg`, which users often write, to `jpeg`."""
    if (
        isinstance(value, str) and value.isascii()
    ):  # of other texts it takes six times their size in memory, and a second
        value = value.lower()
    return "jpeg" if value == "jpg" else value


def _fits_format(depth: WantedDepth, info: ValidationInfo) -> WantedDepth:
    if depth == 16 and info.data.get("output_format", "auto") not in formats.DEEP:
        raise PydanticCustomError("unsupported_depth", "16 bits need output_format auto or png.")
    return depth


class ResultOptions(StrictModel):
    """The options of a job that change its result, but for the model that enlarges."""

    upscale_factor: Annotated[Literal[1, 2, 4, 8], BeforeValidator(_factor)] = Field(
        4, description="Enlargement per side: 1, 2, 4 or 8; 1 is for models that keep the size, such as denoisers."
    )
    output_format: Annotated[WantedFormat, BeforeValidator(_format)] = Field(
        "auto",
        description="File format of the result; auto: JPEG and WebP stay, AVIF becomes WebP, all others become PNG.",
    )
    output_depth: Annotated[WantedDepth, BeforeValidator(_depth), AfterValidator(_fits_format)] = Field(
        "auto",
        description="Bits of a sample of the result; auto: 16 if the image has more than 8 and the format allows it, "
        "else 8. 16 needs output_format auto, which then is PNG, or png.",
    )
    ensemble: bool = Field(
        False,
        strict=True,
        description="Whether the result is the average of the eight orientations of the image: slightly better, in 8 "
        "times the time.",
    )
    first_model: ModelName | None = Field(
        None,
        description="Name of a model with factor 1, such as a denoiser or a JPEG cleaner, that is applied to the image "
        "before; default: none.",
    )
    metadata: WantedMetadata = Field(
        "strip",
        description="What the result keeps of the image's EXIF, XMP, IPTC, resolution and PNG texts: nothing (strip), "
        "all but places (keep), or places (GPS) too (keep-all).",
    )
