"""Any number of images through a few hands: what is done is skipped, what may pass is tried again, nothing is lost."""

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol, cast

from upres.client.errors import OutputTaken, Refused, ServerUnreachable
from upres.client.ledger import Identity, Ledger
from upres.client.protocol import MAX_PAUSE, OnBytes
from upres.client.sources import Source
from upres.core.errors import UpresError
from upres.core.formats import EXTENSIONS
from upres.core.schema import Event, OutputFormat, Result

UNAVAILABLE, TOO_MANY = 503, 429
ATTEMPTS = 3
PAUSE_SECONDS = 2.0
"""Before the second attempt; twice as long before the third."""
LEAVE_SECONDS = 3.0
"""What is still to be written after an interrupt has so long."""
WAIT_SECONDS = 0.2
"""How often an interrupt is looked for."""
LIKELY: dict[str, OutputFormat] = {".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp", ".avif": "webp"}
"""What the server makes of files of these names when it may choose; of others PNG."""


class Output(NamedTuple):
    """An enlarged image that is still where it was made."""

    result: Result
    save: Callable[[Path], object]


class Callbacks(NamedTuple):
    """Who wants to hear of one image."""

    on_event: Callable[[Event], None]
    on_bytes: OnBytes


class Backend(Protocol):
    """A server, or the engine in this process."""

    def enlarge(self, image: str, callbacks: Callbacks) -> Output:
        """Raises UpresError or OSError."""
        ...

    def cancel(self) -> None:
        """Let go of everything that is not finished."""
        ...


class Outcome(NamedTuple):
    """What became of one image."""

    source: Source
    status: str
    """enlarged, skipped or failed."""
    output: Path | None = None
    result: Result | None = None
    error: Exception | None = None


class BatchListener(Protocol):
    """Whoever shows how it goes; called by several threads."""

    def begin(self, source: Source) -> Callbacks:
        """An image is begun."""
        ...

    def end(self, outcome: Outcome) -> None:
        """An image is done, or not."""
        ...


@dataclass
class Batch:
    """Images on their way."""

    backend: Backend
    ledger: Ledger
    listener: BatchListener
    out: Path
    name: str
    """Pattern of the results' names, with {stem}, {factor} and {model}."""
    options: dict[str, str]
    """What makes results different: factor, model, model_version, output_format."""
    force: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    lost: Exception | None = None
    """Why it was given up."""
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _waiting: Iterator[Source] = field(default_factory=lambda: iter(()))
    _interrupted: bool = False

    def run(self, sources: Iterable[Source], at_once: int) -> None:
        """Enlarge them all, so many at once. On Ctrl-C raises KeyboardInterrupt after letting go of what runs."""
        self._waiting = iter(sources)
        hands = [threading.Thread(target=self._work, daemon=True) for _ in range(at_once)]
        for hand in hands:
            hand.start()
        try:
            for hand in hands:
                while hand.is_alive():
                    hand.join(WAIT_SECONDS)
        except KeyboardInterrupt:
            self._interrupted = True
            self._stop.set()
            self.backend.cancel()
            deadline = time.monotonic() + LEAVE_SECONDS
            for hand in hands:  # they hear that it is cancelled, or finish writing a file
                hand.join(max(0.0, deadline - time.monotonic()))
            raise

    def _work(self) -> None:
        """Until there are no more; whatever goes wrong beside the images themselves ends it all."""
        try:
            while not self._stop.is_set() and (source := self._next()):
                outcome = self._outcome(source)
                if self._interrupted and outcome.status == "failed":
                    return  # it was cancelled
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
        except Exception as error:  # whatever one image brings about, the others go on; unless it is the server
            if ends_all(error):
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
            return Outcome(source, "skipped", likely)  # it was named twice
        save = partial(self._save, source, likely, identity, options)
        return self._patiently(source, save)

    def _save(self, source: Source, likely: Path, identity: Identity, options: str, made: Output) -> Outcome:
        """Write a result where it belongs; another command is told before it lies there."""
        output = self._target(source, EXTENSIONS[made.result.format])
        if output != likely:
            self._claim(output, identity)
        output.parent.mkdir(parents=True, exist_ok=True)
        self.ledger.record(identity, options, output, done=False)
        made.save(output)
        self.ledger.record(identity, options, output, done=True)
        return Outcome(source, "enlarged", output, made.result)

    def _patiently(self, source: Source, save: Callable[[Output], Outcome]) -> Outcome:
        """Enlarge and save it, again if that may help."""
        callbacks = self.listener.begin(source)
        attempt = 0
        while True:
            try:
                return save(self.backend.enlarge(source.image, callbacks))
            except UpresError as error:
                if ends_all(error) or not error.retryable:
                    raise
                patience = error.retry_after if isinstance(error, Refused) and error.status == TOO_MANY else 0.0
                attempt += not patience  # who is told to wait has not failed
                if attempt == ATTEMPTS or self._stop.wait(patience or PAUSE_SECONDS * attempt):
                    raise

    def _target(self, source: Source, extension: str) -> Path:
        """Where the result goes."""
        model = Path(self.options["model"]).name  # with --local it may be a path
        fields = {"stem": Path(source.file_name).stem, "factor": self.options["factor"], "model": model}
        return self.out / source.below / f"{self.name.format(**fields)}.{extension}"

    def _likely_extension(self, source: Source) -> str:
        """That of the result, as far as it can be known before."""
        wanted = self.options["output_format"]
        likely = LIKELY.get(Path(source.file_name).suffix.lower(), "png") if wanted == "auto" else wanted
        return EXTENSIONS[cast(OutputFormat, likely)]

    def _claim(self, output: Path, identity: Identity) -> str | None:
        """Whose the output is in this command already, if that is the source itself. Raises OutputTaken."""
        source = identity[0]
        if os.path.realpath(output) == source:
            raise OutputTaken(f"{output} is the photo itself; choose another --name or --out.")
        if not self.force and output.exists():
            before = self.ledger.made_of(output)
            if before is None:
                raise OutputTaken(f"{output} exists already; --force replaces it, --name or --out makes another.")
            if before != source and ("://" in before or os.path.exists(before)):  # not moved since
                raise OutputTaken(f"{output} is the result of {before}; --force replaces it.")
        other = self.ledger.claim(output, source)
        if other not in (None, source):
            raise OutputTaken(f"{output} is the result of {other}; choose another --name or --out.")
        return other

    def _give_up(self, error: Exception) -> None:
        self.lost = self.lost or error
        self._stop.set()


def ends_all(error: Exception) -> bool:
    """Whether all other images would be told the same: nobody is there, nobody is ready, or not for long."""
    away = isinstance(error, Refused) and (error.status == UNAVAILABLE or error.retry_after > MAX_PAUSE)
    return away or isinstance(error, ServerUnreachable)
