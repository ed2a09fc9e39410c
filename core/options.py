"""What a caller wants the result of a job to be: the options that requests, estimates and queued jobs share."""

import re
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

from upres.core import formats, sizes
from upres.core.schema import Factor, Fit, StrictModel, WantedDepth, WantedFormat, WantedMetadata
from upres.core.sizes import MAX_FACTOR, MAX_SIDE, WantedSize

SIZES = ("output_width", "output_height")
_DECIMAL = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")


def _factor(value: object) -> object:
    """Convert an upscale factor, given as 4, "4", 4.0, 2.5 or "2.5", to at most four decimals; `true` is rejected."""
    if isinstance(value, str) and _DECIMAL.fullmatch(value.strip()):
        value = float(value)
    if value is None:
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= MAX_FACTOR:
        raise PydanticCustomError("unsupported_factor", "upscale_factor must be a number from 1 to 8.")
    return sizes.plain(value)


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
    """The options of a job that change its result, but for the model."""

    upscale_factor: Annotated[Factor | None, BeforeValidator(_factor)] = Field(
        4,
        description="Enlargement per side: any number from 1 to 8, rounded to four decimals; not together with a size.",
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
    metadata: WantedMetadata = Field(
        "strip",
        description="What the result keeps of the image's EXIF, XMP, IPTC, resolution and PNG texts: nothing (strip), "
        "all but places (keep), or places (GPS) too (keep-all).",
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
