"""Any number of images through a few hands: what is done is skipped, what may pass is tried again, nothing is lost."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol, cast

from client.errors import OutputTaken, ServerUnreachable
from client.ledger import Identity, Ledger
from client.protocol import OnBytes
from client.sources import Source
from core.errors import UpresError
from core.formats import EXTENSIONS
from core.schema import Event, OutputFormat, Result

ATTEMPTS = 3
PAUSE_SECONDS = 2.0
"""Before the second attempt; twice as long before the third."""
LEAVE_SECONDS = 3.0
"""What is still to be written after an interrupt has so long."""
WAIT_SECONDS = 0.2
"""How often an interrupt is looked for."""
LIKELY: dict[str, OutputFormat] = {".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp", ".avif": "webp"}
"""What the server makes of files of these names when it may choose; of others PNG."""


class Made(NamedTuple):
    """An enlarged image that is still where it was made."""

    result: Result
    save: Callable[[Path], object]


class Ears(NamedTuple):
    """Who wants to hear of one image."""

    on_event: Callable[[Event], None]
    on_bytes: OnBytes


class Enlarger(Protocol):
    """A server, or the engine in this process."""

    def enlarge(self, image: str, ears: Ears) -> Made:
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


class Watcher(Protocol):
    """Whoever shows how it goes; called by several threads."""

    def begin(self, source: Source) -> Ears:
        """An image is begun."""
        ...

    def end(self, outcome: Outcome) -> None:
        """An image is done, or not."""
        ...


@dataclass
class Batch:
    """Images on their way."""

    enlarger: Enlarger
    ledger: Ledger
    watcher: Watcher
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
            self.enlarger.cancel()
            deadline = time.monotonic() + LEAVE_SECONDS
            for hand in hands:  # they hear that it is cancelled, or finish writing a file
                hand.join(max(0.0, deadline - time.monotonic()))
            raise

    def _work(self) -> None:
        while not self._stop.is_set() and (source := self._next()):
            outcome = self._outcome(source)
            if self._interrupted and outcome.status == "failed":
                return  # it was cancelled
            with self._lock:
                self.counts[outcome.status] += 1
            self.watcher.end(outcome)

    def _next(self) -> Source | None:
        with self._lock:
            try:
                return next(self._waiting, None)
            except OSError as error:  # a folder that cannot be read
                self._give_up(error)
                return None

    def _outcome(self, source: Source) -> Outcome:
        try:
            return self._enlarge(source)
        except ServerUnreachable as error:
            self._give_up(error)
            return Outcome(source, "failed", error=error)
        except Exception as error:  # whatever one image brings about, the others go on
            return Outcome(source, "failed", error=error)

    def _enlarge(self, source: Source) -> Outcome:
        identity, options = source.identity, ",".join(f"{name}={self.options[name]}" for name in sorted(self.options))
        finished = None if self.force else self.ledger.finished(identity, options)
        if finished:
            return Outcome(source, "skipped", finished)
        self._claim(self._target(source, self._likely_extension(source)), identity)
        made = self._patiently(source)
        output = self._target(source, EXTENSIONS[made.result.format])
        self._claim(output, identity)
        output.parent.mkdir(parents=True, exist_ok=True)
        made.save(output)
        self.ledger.record(identity, options, output)
        return Outcome(source, "enlarged", output, made.result)

    def _patiently(self, source: Source) -> Made:
        """Enlarge it, again if that may help."""
        ears = self.watcher.begin(source)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self.enlarger.enlarge(source.image, ears)
            except ServerUnreachable:
                raise
            except UpresError as error:
                if not error.retryable or attempt == ATTEMPTS or self._stop.wait(PAUSE_SECONDS * attempt):
                    raise
        raise AssertionError("the last attempt returns or raises")

    def _target(self, source: Source, extension: str) -> Path:
        """Where the result goes."""
        fields = {"stem": Path(source.file_name).stem, "factor": self.options["factor"], "model": self.options["model"]}
        return self.out / source.below / f"{self.name.format(**fields)}.{extension}"

    def _likely_extension(self, source: Source) -> str:
        """That of the result, as far as it can be known before."""
        wanted = self.options["output_format"]
        likely = LIKELY.get(Path(source.file_name).suffix.lower(), "png") if wanted == "auto" else wanted
        return EXTENSIONS[cast(OutputFormat, likely)]

    def _claim(self, output: Path, identity: Identity) -> None:
        """Raise OutputTaken when something else lies there, or will."""
        if output.exists() and not self.force and not self.ledger.knows(output):
            raise OutputTaken(f"{output} exists already; --force replaces it, --name or --out makes another.")
        if other := self.ledger.claim(output, identity[0]):
            raise OutputTaken(f"{output} is the result of {other}; choose another --name or --out.")

    def _give_up(self, error: Exception) -> None:
        self.lost = self.lost or error
        self._stop.set()
