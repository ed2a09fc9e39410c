"""What a caller wants the result of a job to be: the options that requests, estimates and queued jobs share."""

import re
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

from upres.core import formats, sizes
from upres.core.schema import (
    Factor,
    Fit,
    ModelName,
    StrictModel,
    WantedDepth,
    WantedFormat,
    WantedFrames,
    WantedMetadata,
)
from upres.core.sizes import MAX_FACTOR, MAX_SIDE, WantedSize
from upres.core.strength import rounded

INVALID_STRENGTH = "strength must be a number from 0 to 1."
SIZES = ("output_width", "output_height")
_DECIMAL = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")

CONTRADICTION = "contradiction"
"""Type of the validation errors of a value that is right alone, but not with another option. Their text is complete."""


def _factor(value: object) -> object:
    """Convert an upscale factor, given as 4, "4", 4.0, 2.5 or "2.5", to at most four decimals; `true` is rejected."""
    if isinstance(value, str) and _DECIMAL.fullmatch(value.strip()):
        value = float(value)
    if value is None:
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= MAX_FACTOR:
        raise PydanticCustomError("unsupported_factor", "upscale_factor must be a number from 1 to 8.")
    return sizes.plain(value)


def _strength(value: object) -> object:
    """Convert a strength, given as 0.3 or "0.3", to tenths; `true` is rejected."""
    if isinstance(value, str) and _DECIMAL.fullmatch(value.strip()):
        value = float(value)
    if value is None:
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise PydanticCustomError("invalid_strength", INVALID_STRENGTH)
    return rounded(value)


def _fits_factor(side: int | None, info: ValidationInfo) -> int | None:
    if side is not None and info.data.get("upscale_factor") is not None:
        raise PydanticCustomError("factor_and_size", "Give upscale_factor or a size, not both.")
    return side


def _fits_sides(fit: Fit, info: ValidationInfo) -> Fit:
    if fit == "exact" and any(name in info.data and info.data[name] is None for name in SIZES):
        raise PydanticCustomError("side_missing", "fit exact needs both output_width and output_height.")
    return fit


Side = Annotated[int | None, AfterValidator(_fits_factor)]


def _depth(value: object) -> object:
    """Convert a depth, given as "16" or 16, to an int."""
    return int(value) if isinstance(value, str) and value in ("8", "16") else value


def _format(value: object) -> object:
    """Convert an output format to lower case, and `jpg` and `tif`, which users often write, to `jpeg` and `tiff`."""
    if not isinstance(value, str):
        return value
    # Of other texts `lower` takes six times their size in memory, and a second.
    value = value.lower() if value.isascii() else value
    return formats.SPELLINGS.get(value, value)


def _fits_format(depth: WantedDepth, info: ValidationInfo) -> WantedDepth:
    if depth == 16 and info.data.get("output_format", "auto") not in formats.DEEP:
        raise PydanticCustomError("unsupported_depth", "16 bits need output_format auto, png, tiff or jxl.")
    return depth


def _has_quality(quality: int | None, info: ValidationInfo) -> int | None:
    format = info.data.get("output_format", "auto")
    if quality is not None and format not in formats.WITH_QUALITY:
        why = "is always lossless and" if format in formats.ALWAYS_LOSSLESS else "has 255 colours in a frame, and"
        raise _contradiction(f"{format} {why} has no quality; leave quality out.")
    return quality


def _can_be(lossless: bool | None, info: ValidationInfo) -> bool | None:
    format = info.data.get("output_format", "auto")
    if lossless and info.data.get("quality") is not None:
        raise _contradiction("A lossless result has no quality; give quality or lossless: true, not both.")
    if lossless and format not in formats.MAYBE_LOSSLESS:
        raise _contradiction(f"{format} is never lossless here; ask for webp, jxl, png or tiff, or leave lossless out.")
    if lossless is False and format in formats.ALWAYS_LOSSLESS:
        raise _contradiction(f"{format} is always lossless; leave lossless out, or ask for jpeg, webp, avif or jxl.")
    return lossless


def _contradiction(sentence: str) -> PydanticCustomError:
    return PydanticCustomError(CONTRADICTION, "{sentence}", {"sentence": sentence})


class ResultOptions(StrictModel):
    """The options of a job that change its result, but for the model that enlarges."""

    upscale_factor: Annotated[Factor | None, BeforeValidator(_factor)] = Field(
        4,
        description="Enlargement per side: any number from 1 to 8, rounded to four decimals; not together with a size. "
        "Models that keep the size, such as denoisers, have 1.",
    )
    output_width: Side = Field(
        None, ge=1, le=MAX_SIDE, strict=True, description="Width of the result in pixels, instead of upscale_factor."
    )
    output_height: Side = Field(
        None, ge=1, le=MAX_SIDE, strict=True, description="Height of the result in pixels, instead of upscale_factor."
    )
    fit: Annotated[Fit, AfterValidator(_fits_sides)] = Field(
        "inside",
        description="inside: the result has the proportions of the image, and fits into output_width and "
        "output_height, of which one may be absent; exact: it has exactly both, and is stretched if need be.",
    )
    output_format: Annotated[WantedFormat, BeforeValidator(_format)] = Field(
        "auto",
        description="File format of the result: auto, png, jpeg, webp, avif, jxl (JPEG XL), tiff or gif; auto: JPEG, "
        "WebP, animated GIF and TIFF with several pages stay, AVIF becomes WebP, all others become PNG.",
    )
    output_depth: Annotated[WantedDepth, BeforeValidator(_depth), AfterValidator(_fits_format)] = Field(
        "auto",
        description="Bits of a sample of the result; auto: 16 if the image has more than 8 and the format allows it, "
        "else 8. 16 needs output_format png, tiff or jxl, or auto, which then is PNG, or TIFF with several pages.",
    )
    ensemble: bool = Field(
        False,
        strict=True,
        description="Whether the result is the average of the eight orientations of the image: slightly better, in 8 "
        "times the time.",
    )
    strength: Annotated[float | None, BeforeValidator(_strength)] = Field(
        None,
        description="Strength of the model, from 0 (as faithful as its base) to 1 (its own look), rounded to tenths; "
        "default: that of the model. Only for models that have one.",
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
    frames: WantedFrames = Field(
        "all",
        description="What is enlarged of an animation (GIF, WebP, PNG), or of the pages of a TIFF: all, or the first.",
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

    @model_validator(mode="before")
    @classmethod
    def _without_default_factor(cls, given: Any) -> Any:
        """Set the factor to None when a size is given instead: its default is for requests that say neither."""
        if isinstance(given, dict) and "upscale_factor" not in given and any(given.get(name) for name in SIZES):
            return {**given, "upscale_factor": None}
        return given

    @model_validator(mode="after")
    def _says_one(self) -> Self:
        if self.upscale_factor is None and self.output_width is None and self.output_height is None:
            raise PydanticCustomError("unsupported_factor", "Give upscale_factor, output_width or output_height.")
        return self

    @property
    def wanted_size(self) -> WantedSize:
        """The size that the result is wanted to have."""
        return WantedSize(self.upscale_factor, self.output_width, self.output_height, self.fit == "exact")
