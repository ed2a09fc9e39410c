"""The output of a batch: progress bars on stderr, and one line per image on stdout, as text or JSON."""

import json
import sys
import threading
from collections import deque
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from upres.client.batch import Callbacks, Outcome
from upres.client.sources import Source
from upres.client.text import sentence, shown, write_line
from upres.core.errors import UpresError
from upres.core.foreign_text import printable
from upres.core.schema import Event, Queued, Requeued, Started, Succeeded
from upres.core.schema import Progress as ProgressEvent

MAX_FINISHED = 4
"""Number of progress bars of finished images that stay visible; older ones are removed."""


class Display:
    """Displays a batch of `total` images; None when the number is unknown (a list on stdin)."""

    def __init__(self, total: int | None, as_json: bool) -> None:
        self._as_json = as_json
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[stage]}"),
            console=Console(stderr=True),
        )
        self._tasks: dict[Source, TaskID] = {}
        self._finished: deque[TaskID] = deque()
        self._lock = threading.Lock()
        self._total, self._ended = total, 0
        self._all = self._bars.add_task("all", total=total, stage="", visible=total != 1)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop updating the progress bars."""
        self._bars.stop()

    def begin(self, source: Source) -> Callbacks:
        """See BatchListener."""
        task = self._bars.add_task(printable(source.name), total=100, stage="sending")
        with self._lock:
            self._tasks[source] = task

        def on_bytes(sent: int, total: int) -> None:
            self._bars.update(task, stage=f"sending {sent / 1e6:.1f} of {total / 1e6:.1f} MB")

        return Callbacks(lambda event: _show(self._bars, task, event), on_bytes)

    def end(self, outcome: Outcome) -> None:
        """See BatchListener."""
        with self._lock:
            task = self._tasks.pop(outcome.source, None)
            self._bars.advance(self._all)
            self._ended += 1
            of = f" of {self._total}" if self._total else ""
            self._bars.update(self._all, stage=f"{self._ended}{of} images")
            if task is not None:
                self._retire(task, outcome)
            self._tell(outcome)

    def _retire(self, task: TaskID, outcome: Outcome) -> None:
        """Show the outcome of an image on its bar; remove the bar of an older finished image."""
        if outcome.result:
            self._bars.update(task, completed=100, stage=f"[green]{outcome.result.width}×{outcome.result.height}")
        else:
            self._bars.update(task, stage="[red]failed")
        self._finished.append(task)
        if len(self._finished) > MAX_FINISHED:
            self._bars.remove_task(self._finished.popleft())

    def _tell(self, outcome: Outcome) -> None:
        if self._as_json:
            write_line(json.dumps(_record(outcome)))
        elif outcome.output:
            write_line(shown(str(outcome.output), sys.stdout))
        for notice in outcome.result.notices if outcome.result else ():
            self._print(f"{outcome.source.name}: {notice}", "yellow")
        if outcome.error:
            self._print(f"{outcome.source.name}: {sentence(outcome.error)}", "red")

    def _print(self, text: str, style: str) -> None:
        self._bars.console.print(
            printable(text, None, lines=True), style=style, markup=False, highlight=False, soft_wrap=True
        )


def _record(outcome: Outcome) -> dict[str, object]:
    """The JSON object printed for one image."""
    record: dict[str, object] = {"source": outcome.source.image, "status": outcome.status}
    if outcome.output:
        record["output"] = str(outcome.output)
    if result := outcome.result:
        record |= {"width": result.width, "height": result.height, "format": result.format, "model": result.model}
        record |= {"model_version": result.model_version, "device": result.device, "seconds": result.seconds}
        record |= {} if result.strength is None else {"strength": result.strength}
        record |= {"frames": result.frames} if result.frames > 1 else {}
        record |= {"notices": result.notices} if result.notices else {}
    if error := outcome.error:
        code = error.code if isinstance(error, UpresError) else type(error).__name__
        retryable = isinstance(error, UpresError) and error.retryable
        record["error"] = {"code": code, "message": sentence(error), "retryable": retryable}
    return record


def _show(bars: Progress, task: TaskID, event: Event) -> None:
    """Show one event on the progress bar of its image."""
    match event:
        case Queued():
            bars.update(task, stage=f"queued, {event.position} ahead")
        case Started():
            bars.update(task, stage=f"on {escape(printable(event.device))}")
        case Requeued():
            bars.update(task, stage="waiting again")
        case ProgressEvent():
            frame = f" frame {event.frame}/{event.frames}" if event.frame and event.frames else ""
            tiles = f" tile {event.tiles_done}/{event.tiles_total}" if event.tiles_total else ""
            eta = f", {event.eta_seconds:.0f} s left" if event.eta_seconds else ""
            bars.update(task, completed=event.percent, stage=f"{event.stage}{frame}{tiles}{eta}")
        case Succeeded():
            bars.update(task, completed=100, stage="downloading")
