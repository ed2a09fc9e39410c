"""The models in a worker's memory: loaded when needed, and within a budget; the least recently used are unloaded."""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Set
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from typing import NamedTuple

from redis.exceptions import RedisError

from upres.core.errors import ModelError, ModelTooNew, ModelUnavailable, UpresError
from upres.core.queue import connect_with_timeout
from upres.core.served_models import ModelRef
from upres.core.settings import Settings
from upres.core.storage import Store
from upres.core.tiling import TILE
from upres.worker import golden, loading_notes
from upres.worker.engine import runtimes
from upres.worker.engine.device import Device
from upres.worker.engine.device_thread import DeviceThread
from upres.worker.engine.engine import Engine
from upres.worker.imaging.decoding import Decoders
from upres.worker.model import Model, pull, variant
from upres.worker.remembered_limits import remember
from upres.worker.version_trials import VersionTrials, is_bundled

log = logging.getLogger("upres.worker")

HEAVY_BYTES = 16 << 20
"""A model whose networks have more bytes than this uses HEAVY_TILE."""
HEAVY_TILE = 384
"""Tile size in pixels of slow models. It is smaller, because progress is published after each tile, and a batch delays
all other jobs."""

REFUSED_SECONDS = 300
"""Seconds after which a version that failed is tried again: the operator may have repaired it, or freed disk space."""


class LoadedModel(NamedTuple):
    """A model that is loaded, checked and ready, with the engine that runs it."""

    model: Model
    engine: Engine


class _Entry:
    """One model that is loaded or being loaded, and the number of its users, which prevent its unloading."""

    def __init__(self) -> None:
        self.loaded: Future[LoadedModel] = Future()
        self.users = 0

    @property
    def ready(self) -> LoadedModel | None:
        """The loaded model; None while it is being loaded, or when that failed."""
        return self.loaded.result() if self.loaded.done() and not self.loaded.exception() else None


class ModelCache:
    """All models on one device, by digest and strength. One that no job uses may be unloaded. Safe from all threads."""

    def __init__(
        self, settings: Settings, store: Store, device: Device, thread: DeviceThread, decoders: Decoders
    ) -> None:
        self.budget = int(settings.model_megabytes * 1_000_000)
        self._cache = settings.cache_folder
        self._store = store
        self._device = device
        self._thread = thread
        self._decoders = decoders
        self._quick = connect_with_timeout(settings)
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._kept: Set[str] = frozenset()
        self._sizes: dict[str, int] = {}
        self._refused: dict[str, tuple[float, type[UpresError], str]] = {}
        self._trying = threading.Lock()
        self._trials = VersionTrials(device, self._cache, self._quick)

    @contextmanager
    def use(
        self, name: str, ref: ModelRef, strength: float | None = None, ahead: bool = False, waits: bool = True
    ) -> Iterator[LoadedModel]:
        """Give a version for the block; it is loaded first if it is not in memory, and not unloaded within the block.

        `strength` is for versions with a base; None: the version's default. Each strength is an entry of its own, with
        weights of its own. `ahead`: no job asks for the version, so it is the first to be unloaded. Unless it `waits`,
        WorkerUnavailable is raised while another worker tries the version. Raises ModelNotFound, ModelError,
        ModelUnavailable, StoreUnavailable, or redis-py's errors. A version that failed with ModelError or
        ModelUnavailable is tried again only after REFUSED_SECONDS; until then the same error is raised.
        """
        key = variant(ref.digest, strength)
        self._check_refused(key)
        entry, must_load = self._acquire(key, ahead)
        try:
            if must_load:
                self._load_into(entry, key, name, ref, strength, waits)
            yield entry.loaded.result()
        finally:
            with self._lock:
                entry.users -= 1
            if not entry.users:
                self._make_room()

    def is_too_new(self, digest: str, strength: float | None = None) -> bool:
        """Return whether a version turned out to need a newer release, less than REFUSED_SECONDS ago."""
        return isinstance(self._refusal(variant(digest, strength)), ModelTooNew)

    def keep(self, digests: Set[str]) -> None:
        """Never unload the versions with these digests, at their default strength, whatever the budget.

        Replaces the digests of the last call.
        """
        self._kept = digests

    def has(self, digest: str, strength: float | None = None) -> bool:
        """Return whether a version is loaded and ready at a strength, so that `use` does not wait."""
        entry = self._entries.get(variant(digest, strength))
        return bool(entry and entry.ready)

    def ready(self) -> list[Model]:
        """Return all versions that are loaded and ready, the most recently used last."""
        with self._lock:
            return [loaded.model for entry in self._entries.values() if (loaded := entry.ready)]

    def bytes_of(self, digests: Set[str]) -> int:
        """Return the bytes of the weights of these versions, as far as they were loaded here."""
        return sum(self._sizes.get(digest, 0) for digest in digests)

    def unloaded(self, digests: Set[str]) -> set[str]:
        """Return those of these versions that were loaded and checked here, and are not in memory any more."""
        return {digest for digest in digests if digest in self._sizes and not self.has(digest)}

    def has_no_room(self, digest: str) -> bool:
        """Return whether a version that was checked here does not fit into the budget beside those in memory."""
        used = sum(model.bytes for model in self.ready())
        return digest in self._sizes and used + self._sizes[digest] > self.budget

    def _acquire(self, key: str, ahead: bool) -> tuple[_Entry, bool]:
        """Add a user to a version's entry. Returns the entry, and whether it is new: then the caller must load it."""
        with self._lock:
            entry = self._entries.get(key)
            new = entry is None
            if entry is None:
                entry = self._entries[key] = _Entry()
            self._entries.move_to_end(key, last=not ahead)
            entry.users += 1
            return entry, new

    def _load_into(
        self, entry: _Entry, key: str, name: str, ref: ModelRef, strength: float | None, waits: bool
    ) -> None:
        """Load a version into its entry, for all threads that wait for it. If that fails, they get the same error."""
        try:
            loaded = self._load(name, ref, strength, waits)
        except BaseException as error:
            with self._lock:
                del self._entries[key]
                if isinstance(error, ModelError | ModelUnavailable):
                    self._refused[key] = (time.monotonic(), type(error), str(error))
            entry.loaded.set_exception(error)
            return
        self._sizes[key] = loaded.model.bytes
        entry.loaded.set_result(loaded)
        with suppress(OSError):  # the cache could not keep the files, and a trial could not read them any more
            if self._cache and runtimes.untried(loaded.model, self._device, self._cache):
                trial = (entry, key, name, ref, strength)
                threading.Thread(target=self._try_openvino, args=trial, name="trial", daemon=True).start()

    def _try_openvino(self, entry: _Entry, key: str, name: str, ref: ModelRef, strength: float | None) -> None:
        """Find out whether OpenVINO is the faster one for a community model. If so, the next jobs use it.

        Jobs that run meanwhile keep the engine that they began with.
        """
        assert self._cache
        try:
            with self._trying:  # one at a time: they share the processor with the jobs
                if not runtimes.try_openvino(entry.loaded.result().model, self._cache):
                    return
            faster: Future[LoadedModel] = Future()
            faster.set_result(self._load(name, ref, strength))
        except Exception as error:  # also of libraries, for graphs that they made themselves
            log.warning("model %s %s stays in torch: %s", name, ref.version, error)
            return
        with self._lock:
            if self._entries.get(key) is entry:
                entry.loaded = faster

    def _check_refused(self, key: str) -> None:
        """Raise the error with which loading a version failed, if that was less than REFUSED_SECONDS ago."""
        if error := self._refusal(key):
            raise error

    def _refusal(self, key: str) -> UpresError | None:
        """Return that error, made anew: a raised one holds its frames."""
        since, kind, reason = self._refused.get(key, (-REFUSED_SECONDS, ModelError, ""))
        return kind(reason) if time.monotonic() < since + REFUSED_SECONDS else None

    def _load(self, name: str, ref: ModelRef, strength: float | None, waits: bool = True) -> LoadedModel:
        """Pull a version, mix it with its base, warm it up and check its golden images; all that is tried first."""
        begin = time.perf_counter()
        try:
            with ExitStack() as temporary:
                model = pull(self._store, name, ref.version, self._cache, ref.digest, temporary).at(strength)
                self._trials.admit(model, waits)
                # Not for the first model of a worker: without that it would serve nothing.
                if self.ready() and not is_bundled(model):
                    temporary.enter_context(loading_notes.loading(self._cache, model.key, str(model)))
                ran_by = runtimes.choose(model, self._device, self._cache)
                engine = Engine(model.manifest, ran_by, self._thread, HEAVY_TILE if model.bytes > HEAVY_BYTES else TILE)
                remember(self._quick, self._device, model, engine)
                engine.warm_up()
                golden.check(model, engine, self._decoders.decode)
        except (UpresError, RedisError):
            raise
        except Exception as error:  # libraries raise many types for weights that they cannot use
            log.error("model %s %s cannot be run here", name, ref.version, exc_info=error)
            raise ModelUnavailable(f"A worker cannot run model {name!r} {ref.version}; try again.") from None
        log.info(
            "model %s ready in %s after %.1f s (%s)",
            *(model, ran_by.precision, time.perf_counter() - begin, model.digest[:12]),
        )
        return LoadedModel(model, engine)

    def _make_room(self) -> None:
        """Unload models without users, the least recently used first, until the others are within the budget."""
        with self._lock:
            ready = {key: loaded.model for key, entry in self._entries.items() if (loaded := entry.ready)}
            total = sum(model.bytes for model in ready.values())
            for key, model in ready.items():
                if total > self.budget and not self._entries[key].users and key not in self._kept:
                    log.info("model %s is unloaded", model)
                    del self._entries[key]
                    total -= model.bytes
