"""Enlarges any number of images with a fixed number of threads: skips finished images, retries temporary errors."""

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol, cast

from upres.client.errors import OutputTaken, RequestRefused, ServerUnreachable
from upres.client.ledger import Identity, Ledger
from upres.client.protocol import MAX_PAUSE, OnBytes
from upres.client.sources import Source
from upres.core.errors import UpresError
from upres.core.formats import EXTENSIONS
from upres.core.schema import Event, OutputFormat, Result

UNAVAILABLE, TOO_MANY = 503, 429
ATTEMPTS = 3
"""Attempts per image, on top of the retries of each request."""
PAUSE_SECONDS = 2.0
"""Delay before the second attempt, in seconds; it doubles before the third."""
LEAVE_SECONDS = 3.0
"""After Ctrl-C, the time in seconds that threads have to finish writing files."""
WAIT_SECONDS = 0.2
"""Timeout of each join, in seconds: Ctrl-C is noticed between joins."""
EXPECTED_FORMATS: dict[str, OutputFormat] = {".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp", ".avif": "webp"}
"""Input suffix → output format that the server chooses for `auto`; PNG for all other suffixes."""


class Output(NamedTuple):
    """A finished result that is not yet saved: `save` downloads or writes it to a path."""

    result: Result
    save: Callable[[Path], object]


class Callbacks(NamedTuple):
    """The callbacks for one image: its events, and the progress of its upload."""

    on_event: Callable[[Event], None]
    on_bytes: OnBytes


class Backend(Protocol):
    """Enlarges images: on a server (remote.py) or in this process (models/inprocess.py)."""

    def enlarge(self, image: str, callbacks: Callbacks) -> Output:
        """Enlarge one image; blocks until it is finished. Raises UpresError or OSError."""
        ...

    def cancel(self) -> None:
        """Cancel all unfinished images."""
        ...


class Outcome(NamedTuple):
    """The outcome of one image."""

    source: Source
    status: str
    """`enlarged`, `skipped` or `failed`."""
    output: Path | None = None
    result: Result | None = None
    error: Exception | None = None


class BatchListener(Protocol):
    """Displays the progress of a batch. Its methods are called from several threads."""

    def begin(self, source: Source) -> Callbacks:
        """Called before an image is enlarged; returns the callbacks for it."""
        ...

    def end(self, outcome: Outcome) -> None:
        """Called once for each image, also after a failure or a skip."""
        ...


@dataclass
class Batch:
    """A run over many images: threads, retries, output paths and counts."""

    backend: Backend
    ledger: Ledger
    listener: BatchListener
    out: Path
    name: str
    """Pattern of the output names; may contain {stem}, {factor} and {model}."""
    options: dict[str, str]
    """Options that change the result, with at least factor, model and output_format; part of the key of a result."""
    force: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    lost: Exception | None = None
    """The error that stopped the batch; None when it was not stopped."""
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _waiting: Iterator[Source] = field(default_factory=lambda: iter(()))
    _interrupted: bool = False

    def run(self, sources: Iterable[Source], at_once: int) -> None:
        """Enlarge all sources with `at_once` threads. On Ctrl-C cancels running jobs and raises KeyboardInterrupt."""
        self._waiting = iter(sources)
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(at_once)]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(WAIT_SECONDS)
        except KeyboardInterrupt:
            self._interrupted = True
            self._stop.set()
            self.backend.cancel()
            deadline = time.monotonic() + LEAVE_SECONDS
            for thread in threads:  # each receives the cancellation of its job, or finishes writing a file
                thread.join(max(0.0, deadline - time.monotonic()))
            raise

    def _work(self) -> None:
        """Run by each thread until no source is left. An error outside of an image, as in the display, stops all."""
        try:
            while not self._stop.is_set() and (source := self._next()):
                outcome = self._outcome(source)
                if self._interrupted and outcome.status == "failed":
                    return  # the failure is the cancellation after Ctrl-C
                with self._lock:
                    self.counts[outcome.status] += 1
                self.listener.end(outcome)
        except Exception as error:
            self._give_up(error)

    def _next(self) -> Source | None:
        with self._lock:
            return next(self._waiting, None)

    def _outcome(self, source: Source) -> Outcome:
        try:
            return self._enlarge(source)
        except Exception as error:  # one image must not stop the others, unless the server is unavailable
            if is_fatal(error):
                self._give_up(error)
            return Outcome(source, "failed", error=error)

    def _enlarge(self, source: Source) -> Outcome:
        if source.trouble:
            raise source.trouble
        identity, options = source.identity, ",".join(f"{name}={self.options[name]}" for name in sorted(self.options))
        finished = None if self.force else self.ledger.finished(identity, options)
        if finished:
            return Outcome(source, "skipped", finished)
        likely = self._target(source, self._likely_extension(source))
        if self._claim(likely, identity) == identity[0]:
            return Outcome(source, "skipped", likely)  # the same image was given twice
        save = partial(self._save, source, likely, identity, options)
        return self._patiently(source, save)

    def _save(self, source: Source, likely: Path, identity: Identity, options: str, made: Output) -> Outcome:
        """Save a result. It is recorded first, so that other commands know the source of the file once it exists."""
        output = self._target(source, EXTENSIONS[made.result.format])
        if output != likely:
            self._claim(output, identity)
        output.parent.mkdir(parents=True, exist_ok=True)
        self.ledger.record(identity, options, output, done=False)
        made.save(output)
        self.ledger.record(identity, options, output, done=True)
        return Outcome(source, "enlarged", output, made.result)

    def _patiently(self, source: Source, save: Callable[[Output], Outcome]) -> Outcome:
        """Enlarge and save one image; retry up to ATTEMPTS times when the error is retryable."""
        callbacks = self.listener.begin(source)
        attempt = 0
        while True:
            try:
                return save(self.backend.enlarge(source.image, callbacks))
            except UpresError as error:
                if is_fatal(error) or not error.retryable:
                    raise
                retry_after = (
                    error.retry_after if isinstance(error, RequestRefused) and error.status == TOO_MANY else 0.0
                )
                attempt += not retry_after  # a request to wait is not counted as a failed attempt
                if attempt == ATTEMPTS or self._stop.wait(retry_after or PAUSE_SECONDS * attempt):
                    raise

    def _target(self, source: Source, extension: str) -> Path:
        """The output path of a source."""
        model = Path(self.options["model"]).name  # with --local it may be the path of a folder
        fields = {"stem": Path(source.file_name).stem, "factor": self.options["factor"], "model": model}
        return self.out / source.below / f"{self.name.format(**fields)}.{extension}"

    def _likely_extension(self, source: Source) -> str:
        """The expected file extension of the result; with `auto` a guess from the input's suffix."""
        wanted = self.options["output_format"]
        likely = EXPECTED_FORMATS.get(Path(source.file_name).suffix.lower(), "png") if wanted == "auto" else wanted
        return EXTENSIONS[cast(OutputFormat, likely)]

    def _claim(self, output: Path, identity: Identity) -> str | None:
        """Reserve an output path; returns the source if this command reserved it before. Raises OutputTaken."""
        source = identity[0]
        if os.path.realpath(output) == source:
            raise OutputTaken(f"{output} is the photo itself; choose another --name or --out.")
        if not self.force and output.exists():
            before = self.ledger.made_of(output)
            if before is None:
                raise OutputTaken(f"{output} exists already; --force replaces it, --name or --out makes another.")
            if before != source and ("://" in before or os.path.exists(before)):  # a missing source has no claim
                raise OutputTaken(f"{output} is the result of {before}; --force replaces it.")
        other = self.ledger.claim(output, source)
        if other not in (None, source):
            raise OutputTaken(f"{output} is the result of {other}; choose another --name or --out.")
        return other

    def _give_up(self, error: Exception) -> None:
        self.lost = self.lost or error
        self._stop.set()


def is_fatal(error: Exception) -> bool:
    """Whether all other images would fail too: the server is unreachable, unavailable, or asks for a long wait."""
    away = isinstance(error, RequestRefused) and (error.status == UNAVAILABLE or error.retry_after > MAX_PAUSE)
    return away or isinstance(error, ServerUnreachable)
