"""The options of the command `upres PHOTO…`, and the images that they name."""

import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import click
from pydantic import ValidationError
from rich.console import Console

from upres.client.known_results import KnownResults
from upres.client.output_paths import check_pattern
from upres.client.protocol import EstimateOptions, JobOptions
from upres.client.sources import LIST, Source, expand, is_many
from upres.client.wanted_size import SizeOptions
from upres.core.api import Enlargement
from upres.core.formats import DEEP
from upres.core.options import ResultOptions
from upres.core.schema import Fit, WantedDepth, WantedFormat, WantedFrames, WantedMetadata


def without_defaults(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that differ from their defaults: servers of earlier releases refuse fields unknown to them."""
    defaults = {name: field.default for name, field in Enlargement.model_fields.items()}
    return {name: value for name, value in options.items() if value != defaults.get(name)}


@dataclass(frozen=True)
class CommandOptions:
    """The options of the command line; see cli.py."""

    photos: tuple[str, ...]
    factor: float | None
    out: Path | None
    name: str | None
    output_format: WantedFormat
    output_depth: Literal["auto", "8", "16"]
    metadata: WantedMetadata
    model: str | None
    model_version: str | None
    at_once: int
    force: bool
    as_json: bool
    estimate: bool
    local: bool
    server: str
    api_key: str | None
    cacert: str | None = None
    ensemble: bool = False
    width: int | None = None
    height: int | None = None
    fit: Fit = "inside"
    quality: int | None = None
    lossless: bool | None = None
    frames: WantedFrames = "all"
    first_model: str | None = None
    strength: float | None = None

    def __post_init__(self) -> None:
        """Check the options. Raises click.UsageError when they contradict each other."""
        if self.size.factor is None and "{factor" in self.pattern:
            raise click.UsageError("--name: {factor} is not known with --width or --height; use {size}.")
        try:
            check_pattern(self.pattern)
        except (ValueError, LookupError, AttributeError) as error:
            raise click.UsageError(f"--name: {error}.") from None
        if self.output_depth == "16" and self.output_format not in DEEP:
            raise click.UsageError("--depth 16 needs --format png, tiff or jxl, or auto.")
        given = {"output_format": self.output_format, "quality": self.quality, "lossless": self.lossless}
        try:
            ResultOptions.model_validate(given)
        except ValidationError as error:
            wrong = error.errors()[0]
            raise click.UsageError(f"--{wrong['loc'][0]}: {wrong['msg']}") from None
        if self.local and self.estimate:
            raise click.UsageError("--estimate asks a server; it does not go with --local.")
        if self.out is None and not self.estimate and any(map(is_many, self.photos)):
            raise click.UsageError("Many results want a folder: give --out DIR.")

    @property
    def options(self) -> JobOptions:
        """The options of each job request."""
        made: JobOptions = {"metadata": self.metadata, "frames": self.frames}
        return cast("JobOptions", without_defaults({**self.enlargement, **made}))

    @property
    def enlargement(self) -> EstimateOptions:
        """The options that requests and estimates have in common."""
        made: EstimateOptions = {
            "model": self.model,
            "model_version": self.model_version,
            "strength": self.strength,
            "first_model": self.first_model,
            "output_format": self.output_format,
            "output_depth": self.depth,
            "ensemble": self.ensemble,
            "quality": self.quality,
            "lossless": self.lossless,
        }
        self.size.add_to(made)
        return made

    @property
    def size(self) -> SizeOptions:
        """The wanted size of the results. Raises click.UsageError when its options contradict each other."""
        return SizeOptions(self.factor, self.width, self.height, self.fit)

    @property
    def pattern(self) -> str:
        """The pattern of output names."""
        return self.name or self.size.pattern

    @property
    def depth(self) -> WantedDepth:
        """The wanted bits of a sample, as requests have them."""
        return "auto" if self.output_depth == "auto" else 8 if self.output_depth == "8" else 16

    @property
    def result_options(self) -> dict[str, str]:
        """The options that change the result; part of the key under which a finished image is found."""
        where = "local" if self.local else ""
        newer: dict[str, tuple[str, str]] = {
            "output_depth": (self.output_depth, "auto"),
            "metadata": (self.metadata, "strip"),
            "ensemble": ("8" if self.ensemble else "", ""),
            "quality": (str(self.quality or ""), ""),
            "lossless": ("" if self.lossless is None else str(self.lossless), ""),
            "frames": (self.frames, "all"),
            "first_model": (self.first_model or "", ""),
            "strength": ("" if self.strength is None else str(self.strength), ""),
        }
        return {
            **{name: value for name, (value, default) in newer.items() if value != default},  # as in earlier ledgers
            **self.size.result_options,
            "model": self.model or "default",
            "model_version": self.model_version or "",
            "output_format": self.output_format,
            "name": self.pattern,
            "where": where,
        }

    def sources(self, known: KnownResults) -> Iterator[Source]:
        """Yield the images, without the results of earlier runs that lie among them; `known` counts these."""
        out = os.path.realpath(self.out) if self.out else None
        meant, known.left_out = self._means_results(known), 0
        for found in expand(self.photos, sys.stdin, out):
            if not meant and known.made(found.image):
                known.left_out += 1
            else:
                yield found if self.out else found._replace(below=Path())

    def count(self, known: KnownResults) -> int | None:
        """The number of images; None with a list on stdin, which can be read only once."""
        if LIST in self.photos:
            return None
        begin, count = time.monotonic(), 0
        with Console(stderr=True).status("looking for images") as status:
            for count, _ in enumerate(self.sources(known), 1):
                if time.monotonic() > begin + 1:
                    status.update(f"looking for images: {count}")
        return count

    def _means_results(self, known: KnownResults) -> bool:
        """Whether the command names nothing but results: then they are to be enlarged once more."""
        return all(known.made(name) for name in self.photos)
