"""The implementation of `upres PHOTO…`: from the options to the exit code."""

import json
import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click
from pydantic import ValidationError
from rich.console import Console

from upres.client import frame_count
from upres.client.atomic_file import delete_unfinished
from upres.client.batch import UNAVAILABLE, Backend, Batch, is_fatal
from upres.client.display import Display
from upres.client.image_size import read_size
from upres.client.known_results import KnownResults
from upres.client.ledger import NAME, Ledger
from upres.client.output_paths import OutputPaths, check_folder, check_pattern
from upres.client.protocol import EstimateOptions, JobOptions
from upres.client.remote import Remote
from upres.client.sdk import Client
from upres.client.signals import end_by_signal
from upres.client.sources import LIST, Source, expand, is_many
from upres.client.text import sentence, shown, write_line
from upres.client.wanted_size import SizeOptions
from upres.core.api import Estimate
from upres.core.errors import UnsupportedImage, UpresError
from upres.core.formats import DEEP
from upres.core.options import ResultOptions
from upres.core.schema import Fit, WantedDepth, WantedFormat, WantedFrames, WantedMetadata

RETRIES = 12
"""Retries of each request: together about a minute, enough for a server that is being restarted."""
CANCEL_SECONDS = 2.0
"""Timeout in seconds of requests that cancel jobs after Ctrl-C."""
MAX_LOCAL = 2
"""Images at once with --local: one on the device while another is read or written. More would only use memory."""
FAILED, UNREACHABLE = 1, 3


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
        made: JobOptions = {
            "model": self.model,
            "model_version": self.model_version,
            "output_format": self.output_format,
            "output_depth": self.depth,
            "metadata": self.metadata,
            "ensemble": self.ensemble,
            "quality": self.quality,
            "lossless": self.lossless,
            "frames": self.frames,
        }
        if self.first_model:  # servers of earlier releases refuse fields that they do not know
            made["first_model"] = self.first_model
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


def run(wanted: CommandOptions, backend: Backend | None) -> int:
    """Enlarge all images, by default on the server; returns the exit code."""
    begin = time.monotonic()
    with ExitStack() as stack:
        try:
            backend = backend or _remote(wanted, stack)
            check_folder(wanted.out or Path())
            ledger, known = stack.enter_context(_ledger(wanted.out)), stack.enter_context(KnownResults())
        except (UpresError, OSError, sqlite3.Error) as error:
            return _complain(error)
        total = wanted.count(known)
        display = stack.enter_context(Display(total, wanted.as_json))
        paths = OutputPaths(ledger, wanted.out or Path(), wanted.pattern, wanted.result_options, wanted.force)
        batch = Batch(backend, paths, display)
        try:
            batch.run(wanted.sources(known), min(wanted.at_once, MAX_LOCAL) if wanted.local else wanted.at_once)
        except KeyboardInterrupt as interrupt:
            display.close()
            _summarise(wanted, batch, time.monotonic() - begin, "interrupted")
            delete_unfinished()
            ledger.release_all()
            end_by_signal(interrupt)  # at once: threads still use what a normal exit would close
    _tell_left_out(known)
    if total != 1 or wanted.as_json:
        try:
            _summarise(wanted, batch, time.monotonic() - begin)
        except OSError as error:
            return _complain(batch.lost or error)
    if batch.lost:
        return _complain(batch.lost)
    return FAILED if batch.counts["failed"] else 0


def estimate(wanted: CommandOptions) -> int:
    """Print an estimate for each image; returns the exit code."""
    failed = False
    with ExitStack() as stack:
        try:
            client, known = stack.enter_context(_client(wanted)), stack.enter_context(KnownResults())
            for source in wanted.sources(known):
                try:
                    _tell(wanted, source, _estimate(wanted, client, source))
                except (UpresError, OSError) as error:
                    if is_fatal(error):
                        return _complain(error)
                    print(shown(f"{source.name}: {sentence(error)}", sys.stderr), file=sys.stderr)
                    failed = True
            _tell_left_out(known)
        except UpresError as error:
            return _complain(error)
    return FAILED if failed else 0


def _ledger(out: Path | None) -> Ledger:
    """The ledger of the results' folder. Raises OSError or sqlite3.Error for the folder of --out.

    Elsewhere nobody asked for a ledger, so a photo is enlarged without one too: for example where another user's is.
    """
    try:
        return Ledger(out or Path())
    except (OSError, sqlite3.Error) as error:
        if out:
            raise
        print(f"{NAME} cannot be used ({sentence(error)}): results of other commands are not known.", file=sys.stderr)
        return Ledger(None)


def _tell_left_out(known: KnownResults) -> None:
    if count := known.left_out:
        text = f"Results of upres among the photos, left out: {count}. To enlarge them again, name nothing else."
        print(text, file=sys.stderr)


def _client(wanted: CommandOptions) -> Client:
    """A client whose server answers. Raises ServerUnreachable or ClientSetupError."""
    client = Client(wanted.server, wanted.api_key, retries=RETRIES, verify=wanted.cacert or True)
    client.check()
    return client


def _remote(wanted: CommandOptions, stack: ExitStack) -> Remote:
    client = stack.enter_context(_client(wanted))
    cancel_client = Client(
        wanted.server, wanted.api_key, retries=0, timeout=CANCEL_SECONDS, verify=wanted.cacert or True
    )
    stack.enter_context(cancel_client)
    return Remote(client, cancel_client, wanted.size.factor, wanted.options)


def _estimate(wanted: CommandOptions, client: Client, source: Source) -> Estimate:
    source.check()
    if source.is_address:
        raise UnsupportedImage("The size of an image at a URL is not known before it is fetched; estimate a file.")
    options: EstimateOptions = {
        "bytes": os.path.getsize(source.image),
        "model": wanted.model,
        "model_version": wanted.model_version,
        "output_format": wanted.output_format,
        "output_depth": wanted.depth,
        "ensemble": wanted.ensemble,
        "quality": wanted.quality,
        "lossless": wanted.lossless,
    }
    if wanted.first_model:
        options["first_model"] = wanted.first_model
    wanted.size.add_to(options)
    if wanted.frames == "all":
        options["frame_count"] = frame_count.count(source.image, wanted.output_format)
    width, height = read_size(source.image)
    return client.estimate(width, height, wanted.size.factor, **options)


def _tell(wanted: CommandOptions, source: Source, found: Estimate) -> None:
    if wanted.as_json:
        write_line(json.dumps({"source": source.image, **found.model_dump(mode="json", exclude_none=True)}))
        return
    tiles = "1 tile" if found.tiles == 1 else f"{found.tiles} tiles"
    seconds = "duration not known yet" if found.seconds is None else f"about {found.seconds:.1f} s"
    waiting = f", after {found.waiting} others" if found.waiting else ""
    there = "" if found.slots else "; no worker is running now"
    what = f"{tiles}, {seconds}{waiting}{there}" if found.accepted else f"refused: {found.detail} ({found.code})"
    text = f"{source.name}: {found.width}×{found.height} by {found.model} {found.model_version}, {what}"
    write_line(shown(text, sys.stdout))


def _summarise(wanted: CommandOptions, batch: Batch, seconds: float, *first: str) -> None:
    counts = {status: batch.counts[status] for status in ("enlarged", "skipped", "failed")}
    if wanted.as_json:
        write_line(json.dumps({"summary": {**counts, "seconds": round(seconds, 3), "interrupted": bool(first)}}))
        return
    parts = [f"{count} {status}" for status, count in counts.items() if count or status == "enlarged"]
    pace = f" ({counts['enlarged'] / seconds:.1f} a second)" if counts["enlarged"] > 1 else ""
    then = "; the same command goes on from here" if first else ""
    print(f"{', '.join([*first, *parts])} in {seconds:.1f} s{pace}{then}", file=sys.stderr)


def _complain(error: Exception) -> int:
    print(shown(sentence(error), sys.stderr), file=sys.stderr)
    return UNREACHABLE if isinstance(error, UpresError) and error.status == UNAVAILABLE else FAILED
