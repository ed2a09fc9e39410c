"""Enlarges any number of images with a fixed number of threads: skips finished images, retries temporary errors."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from upres.client.calls import OnBytes
from upres.client.errors import JobCancelled, OutputUnwritable, RequestRefused, ServerUnreachable
from upres.client.output_paths import Output, OutputPaths, Reservation
from upres.client.protocol import MAX_PAUSE
from upres.client.sources import Source
from upres.core.errors import UpresError
from upres.core.schema import Event, Result

UNAVAILABLE, TOO_MANY = 503, 429
ATTEMPTS = 3
"""Attempts per image, on top of the retries of each request."""
PAUSE_SECONDS = 2.0
"""Delay before the second attempt, in seconds; it doubles before the third."""
LEAVE_SECONDS = 3.0
"""After Ctrl-C, the time in seconds that threads have to finish writing files."""
WAIT_SECONDS = 0.2
"""Timeout of each join, in seconds: Ctrl-C is noticed between joins."""


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


class Task(NamedTuple):
    """A source with its number in the run, which begins with 1."""

    source: Source
    number: int


@dataclass
class Batch:
    """A run over many images: threads, retries and counts."""

    backend: Backend
    paths: OutputPaths
    listener: BatchListener
    counts: Counter[str] = field(default_factory=Counter)
    lost: Exception | None = None
    """The error that stopped the batch; None when it was not stopped."""
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _waiting: Iterator[Task] = field(default_factory=lambda: iter(()))
    _interrupted: bool = False

    def run(self, sources: Iterable[Source], at_once: int) -> None:
        """Enlarge all sources with `at_once` threads. On Ctrl-C cancels running jobs and raises KeyboardInterrupt."""
        self._waiting = (Task(source, number) for number, source in enumerate(sources, 1))
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
            while not self._stop.is_set() and (task := self._next()):
                outcome = self._outcome(task)
                if self._is_consequence(outcome):
                    return
                with self._lock:
                    self.counts[outcome.status] += 1
                self.listener.end(outcome)
        except Exception as error:
            self._give_up(error)

    def _next(self) -> Task | None:
        with self._lock:
            return next(self._waiting, None)

    def _outcome(self, task: Task) -> Outcome:
        try:
            return self._enlarge(task)
        except Exception as error:  # one image must not stop the others, unless these would fail too
            if is_fatal(error):
                self._give_up(error)
            return Outcome(task.source, "failed", error=error)

    def _is_consequence(self, outcome: Outcome) -> bool:
        """Whether an image failed only because the batch ends: it was interrupted, or no result can be saved."""
        if isinstance(outcome.error, OutputUnwritable):
            return True
        cancelled = isinstance(outcome.error, JobCancelled) and isinstance(self.lost, OutputUnwritable)
        return cancelled or (self._interrupted and outcome.status == "failed")

    def _enlarge(self, task: Task) -> Outcome:
        source, number = task
        source.check()
        if finished := self.paths.finished(source):
            return Outcome(source, "skipped", finished)
        reserved = self.paths.reserve(source, number)
        if reserved.repeated:
            return Outcome(source, "skipped", reserved.path)  # the same image was given twice
        try:
            return self._patiently(task, reserved)
        except Exception:
            self.paths.release(reserved)
            raise

    def _patiently(self, task: Task, reserved: Reservation) -> Outcome:
        """Enlarge and save one image; retry up to ATTEMPTS times when the error is retryable."""
        source, number = task
        callbacks = self.listener.begin(source)
        attempt = 0
        while True:
            try:
                made = self.backend.enlarge(source.image, callbacks)
                return Outcome(source, "enlarged", self.paths.save(source, number, reserved, made), made.result)
            except UpresError as error:
                if is_fatal(error) or not error.retryable:
                    raise
                retry_after = (
                    error.retry_after if isinstance(error, RequestRefused) and error.status == TOO_MANY else 0.0
                )
                attempt += not retry_after  # a request to wait is not counted as a failed attempt
                if attempt == ATTEMPTS or self._stop.wait(retry_after or PAUSE_SECONDS * attempt):
                    raise

    def _give_up(self, error: Exception) -> None:
        with self._lock:
            first, self.lost = self.lost is None, self.lost or error
        self._stop.set()
        if first and isinstance(error, OutputUnwritable):
            self.backend.cancel()  # results of running jobs could not be saved either


def is_fatal(error: Exception) -> bool:
    """Whether all other images would fail too: no result can be saved, or the server is away or asks to wait long."""
    away = isinstance(error, RequestRefused) and (error.status == UNAVAILABLE or error.retry_after > MAX_PAUSE)
    return away or isinstance(error, ServerUnreachable | OutputUnwritable)
