"""What a caller wants the result of a job to be: the options that requests, estimates and queued jobs share."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo
from pydantic_core import PydanticCustomError

from upres.core import formats
from upres.core.schema import FACTORS, StrictModel, WantedDepth, WantedFormat, WantedMetadata

CONTRADICTION = "contradiction"
"""Type of the validation errors of a value that is right alone, but not with another option. Their text is complete."""


def _factor(value: object) -> object:
    """Convert an upscale factor, given as 4, "4" or 4.0, to an int; `true` is rejected."""
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    if isinstance(value, bool) or value not in FACTORS:
        raise PydanticCustomError("unsupported_factor", "upscale_factor must be 2, 4 or 8.")
    return int(value) if isinstance(value, float) else value


def _depth(value: object) -> object:
    """Convert a depth, given as "16" or 16, to an int."""
    return int(value) if isinstance(value, str) and value in ("8", "16") else value


def _format(value: object) -> object:
    """Convert an output format to lower case, and `jpg` and `tif`, which users often write, to `jpeg` and `tiff`."""
    if (
        isinstance(value, str) and value.isascii()
    ):  # of other texts it takes six times their size in memory, and a second
        value = value.lower()
    return formats.SPELLINGS.get(value, value) if isinstance(value, str) else value


def _fits_format(depth: WantedDepth, info: ValidationInfo) -> WantedDepth:
    if depth == 16 and info.data.get("output_format", "auto") not in formats.DEEP:
        raise PydanticCustomError("unsupported_depth", "16 bits need output_format auto, png, tiff or jxl.")
    return depth


def _has_quality(quality: int | None, info: ValidationInfo) -> int | None:
    format = info.data.get("output_format", "auto")
    if quality is not None and format not in formats.WITH_QUALITY:
        raise _contradiction(f"{format} is always lossless and has no quality; leave quality out.")
    return quality


def _can_be(lossless: bool | None, info: ValidationInfo) -> bool | None:
    format = info.data.get("output_format", "auto")
    if lossless and info.data.get("quality") is not None:
        raise _contradiction("A lossless result has no quality; give quality or lossless: true, not both.")
    if lossless and format not in formats.MAYBE_LOSSLESS:
        raise _contradiction(f"{format} is never lossless here; ask for webp, jxl, png or tiff, or leave lossless out.")
    if lossless is False and format not in formats.WITH_QUALITY:
        raise _contradiction(f"{format} is always lossless; leave lossless out, or ask for jpeg, webp, avif or jxl.")
    return lossless


def _contradiction(sentence: str) -> PydanticCustomError:
    return PydanticCustomError(CONTRADICTION, "{sentence}", {"sentence": sentence})


class ResultOptions(StrictModel):
    """The options of a job that change its result, but for the model."""

    upscale_factor: Annotated[Literal[2, 4, 8], BeforeValidator(_factor)] = Field(
        4, description="Enlargement per side: 2, 4 or 8."
    )
    output_format: Annotated[WantedFormat, BeforeValidator(_format)] = Field(
        "auto",
        description="File format of the result: auto, png, jpeg, webp, avif, jxl (JPEG XL) or tiff; auto: JPEG and "
        "WebP stay, AVIF becomes WebP, all others become PNG.",
    )
    output_depth: Annotated[WantedDepth, BeforeValidator(_depth), AfterValidator(_fits_format)] = Field(
        "auto",
        description="Bits of a sample of the result; auto: 16 if the image has more than 8 and the format allows it, "
        "else 8. 16 needs output_format png, tiff or jxl, or auto, which then is PNG.",
    )
    ensemble: bool = Field(
        False,
        strict=True,
        description="Whether the result is the average of the eight orientations of the image: slightly better, in 8 "
        "times the time.",
    )
    metadata: WantedMetadata = Field(
        "strip",
        description="What the result keeps of the image's EXIF, XMP, IPTC, resolution and PNG texts: nothing (strip), "
        "all but places (keep), or places (GPS) too (keep-all).",
    )
    quality: Annotated[int | None, Field(ge=1, le=100, strict=True), AfterValidator(_has_quality)] = Field(
        None,
        description="Quality of a JPEG, WebP, AVIF or JPEG XL result, from 1 (small) to 100; absent: 95 for JPEG, 90 "
        "for WebP and JPEG XL, 85 for AVIF. With output_format auto it counts if the result has one of these formats.",
    )
    lossless: Annotated[bool | None, Field(strict=True), AfterValidator(_can_be)] = Field(
        None,
        description="true: the result's pixels are stored exactly (PNG, TIFF, WebP, JPEG XL; auto: PNG instead of "
        "JPEG); false: never, which is smaller; absent: PNG and TIFF, and a WebP whose image is a lossless WebP.",
    )
