"""The Backend that enlarges images in this process, for `upres --local`: no server, no queue, no object store."""

import time
from collections.abc import Callable
from pathlib import Path

import httpx

from upres.client.atomic_file import MayReplace, atomic_write
from upres.client.batch import Callbacks
from upres.client.output_paths import Output
from upres.client.protocol import JobOptions
from upres.core import factors, formats, sizes, strength
from upres.core.errors import ModelNotFound, UrlAnsweredError, UrlUnreachable
from upres.core.factors import Factors
from upres.core.options import ResultOptions
from upres.core.schema import Event, Progress, Result
from upres.core.tiling import ORIENTATIONS
from upres.models import bundled
from upres.worker.engine import runtimes
from upres.worker.engine.device import choose
from upres.worker.engine.device_thread import DeviceThread
from upres.worker.engine.engine import Engine
from upres.worker.engine.steps import Steps
from upres.worker.enlarging import Enlargement, all_downscaled
from upres.worker.imaging import images
from upres.worker.imaging.encode import Encoders
from upres.worker.imaging.picture import Pictures
from upres.worker.imaging.prepared import Prepared, prepared
from upres.worker.model import Model, open_folder

DEFAULT = "photo"
MAX_PIXELS = 178_000_000
"""Largest input in pixels for factors 2 and 4, as the highest limit of a server; for factor 8 a quarter of it."""
FETCH_SECONDS = 60
"""Timeout in seconds of the download of an image."""
RESULT_OPTIONS = frozenset(ResultOptions.model_fields) - {"first_model"}
NO_JOB = "0" * 32
"""The job id in events, because there are no jobs in this process."""


class InProcess:
    """The engine with one or two models, as a Backend. Raises ModelNotFound, ModelError or InvalidRequest."""

    def __init__(self, factor: float | None, options: JobOptions) -> None:
        self._wanted = ResultOptions.model_validate(
            {"upscale_factor": factor, **{name: value for name, value in options.items() if name in RESULT_OPTIONS}}
        )
        self._orientations = ORIENTATIONS if self._wanted.ensemble else 1
        named = _folder(options.get("model") or DEFAULT, options.get("model_version"))
        self._model = _at(open_folder(named), self._wanted.strength)
        first = options.get("first_model")
        self._first = open_folder(_folder(first, None)) if first else None
        before = _factors(self._first) if self._first else None
        factors.check(self._wanted.upscale_factor, _factors(self._model), before)
        self._device, self._thread = choose("auto"), DeviceThread()
        self._steps = Steps(self._engine(self._model), self._engine(self._first) if self._first else None)
        self._encoders = Encoders(1)

    def enlarge(self, image: str, callbacks: Callbacks) -> Output:
        """See Backend (client/batch.py)."""
        begin = time.perf_counter()
        task = self._decode(_read(image))
        for notice in task.pictures.notices:
            callbacks.on_event(Progress(job_id=NO_JOB, stage="decode", percent=0, notice=notice))
        telling = _Telling(callbacks.on_event, len(task.outputs))
        enlargement = Enlargement(self._steps, task.pictures, task.factors, self._orientations)
        bands = all_downscaled(enlargement.bands(telling.tile, telling.frame), task.plans)
        file = self._encoders.file(task.pictures, task.outputs, bands)

        def save(path: Path, may_replace: MayReplace) -> None:
            with atomic_write(path, may_replace) as target:
                target.write(file)

        return Output(self._result(task, time.perf_counter() - begin), save)

    def cancel(self) -> None:
        """See Backend. Does nothing: the process is about to end."""

    def _engine(self, model: Model) -> Engine:
        return Engine(model.manifest, runtimes.choose(model, self._device), self._thread)

    def _decode(self, data: bytes) -> Prepared:
        """The pictures of a file that the result will have, and what it is."""
        size, metadata = self._wanted.wanted_size, self._wanted.metadata
        most = _most_pixels(size.least_factor(self._steps.factors))
        if self._wanted.frames == "first":
            pictures = Pictures((images.decode(data, most, metadata, size),))
        else:
            pictures = images.decode_all(data, most, metadata, size, formats.holds(self._wanted.output_format))
        return prepared(pictures, self._wanted, self._steps.factors, _most_pixels)

    def _result(self, task: Prepared, seconds: float) -> Result:
        """The Result of an image; it has no URLs."""
        pictures, output = task.pictures, task.output
        return Result(
            sr_image_url="",
            sr_image_uri="",
            original_image_url="",
            original_image_uri="",
            upscale_factor=self._wanted.upscale_factor or sizes.ratio(pictures.first.size[0], output.size[0]),
            width=output.size[0],
            height=output.size[1],
            format=output.format,
            depth=output.depth,
            file_name="",
            model=self._model.manifest.name,
            model_version=self._model.manifest.version,
            model_digest=self._model.digest,
            strength=self._model.strength,
            first_model=self._first.manifest.name if self._first else None,
            first_model_version=self._first.manifest.version if self._first else None,
            first_model_digest=self._first.digest if self._first else None,
            device=self._device.name,
            seconds={"upscale": round(seconds, 4)},
            notices=list(pictures.notices),
            ensemble=self._orientations > 1,
            frames=len(task.outputs),
        )


def _most_pixels(factor: int) -> int:
    """Return the largest input in pixels for a factor of the network."""
    return int(MAX_PIXELS / max(1, factor**2 / 16))


class _Telling:
    """Calls `on_event` with the progress events that a worker would send."""

    def __init__(self, on_event: Callable[[Event], None], frames: int) -> None:
        self._on_event, self._begin = on_event, time.perf_counter()
        self._frames: dict[str, int] = {"frames": frames} if frames > 1 else {}

    def frame(self, number: int) -> None:
        """See OnFrame (worker/enlarging.py)."""
        if self._frames:
            self._frames["frame"] = number

    def tile(self, done: int, total: int) -> None:
        """See OnTile (worker/engine/engine.py)."""
        left = (time.perf_counter() - self._begin) / done * (total - done)
        share = {"percent": round(100 * done / total, 2), "eta_seconds": round(left, 2)}
        counts = {"tiles_done": done, "tiles_total": total, **self._frames}
        self._on_event(Progress(job_id=NO_JOB, stage="upscale", **counts, **share))


def _folder(model: str, version: str | None) -> Path:
    """The folder of a version: a path as given, or a bundled version, by default the latest. Raises ModelNotFound."""
    if "/" in model:
        return Path(model)
    found = bundled.versions(model)
    wanted = list(found.values())[-1:] if version in (None, "stable") else [found[version]] if version in found else []
    if not wanted:
        raise ModelNotFound(
            f"There is no model {model!r} {version or ''} here; give the folder of a version, ./{model}."
        )
    return wanted[0]


def _at(model: Model, wanted: float | None) -> Model:
    """The model with a strength; None: its default. Raises InvalidRequest when its strength cannot be chosen."""
    mix = model.manifest.mix
    strength.pinned(wanted, model.manifest.name, model.manifest.version, mix.strength if mix else None)
    return model.at(wanted)


def _factors(model: Model) -> Factors:
    return Factors(model.manifest.name, model.manifest.version, model.manifest.factors)


def _read(image: str) -> bytes:
    """The image file. Raises OSError, UrlUnreachable or UrlAnsweredError."""
    if "://" not in image:
        return Path(image).read_bytes()
    try:
        response = httpx.get(image, follow_redirects=True, timeout=FETCH_SECONDS)
    except httpx.HTTPError as error:
        raise UrlUnreachable(f"{image} does not answer ({error}).") from error
    if response.is_error:
        raise UrlAnsweredError(f"{image} answered {response.status_code} {response.reason_phrase}.")
    return response.content
