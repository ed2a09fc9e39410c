"""Decides whether a version may be loaded: an unknown one is tried first, in a process of its own, by one worker.

At the loading of some versions the process dies: a library has a fault, or the memory is too small. All workers that
follow a label would die of it, and again after each restart. The verdict is kept in Redis (core/verdicts.py).
"""

import json
import logging
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from upres.core import verdicts
from upres.core.errors import ModelRefused, ModelUnavailable, WorkerUnavailable
from upres.core.verdicts import MAX_TRIES, Trying, Verdict
from upres.worker.engine import own_process
from upres.worker.engine.device import Device
from upres.worker.model import Model

log = logging.getLogger("upres.worker")

COMMAND: Sequence[str] = (sys.executable, "-m", "upres.worker.version_trial_process")
"""The program of a trial. It gets a pickled model, device and cache, and prints {"fault", "reason"}."""
TRIAL_SECONDS = 300
"""Longest time in seconds of a trial: a version that takes longer to load cannot be served."""
POLL_SECONDS = 0.5
"""Interval in seconds at which a worker looks for the verdict of another one."""
LIBRARIES = ("upres", "openvino", "torch", "onnxruntime", "onnxruntime-gpu", "spandrel")
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals of somebody who stops the worker and all its processes: they say nothing about the version."""
NO_FINDING = (signal.SIGKILL, signal.SIGABRT)
"""Signals that may come from lack of memory or from somebody else: up to MAX_TRIES times the version is tried again."""

_open: set[Trying] = set()
"""The tries of this process."""


class VersionTrials:
    """The trials of one worker, for versions on its device."""

    def __init__(self, device: Device, cache: Path | None, connection: Redis) -> None:
        self._device, self._cache, self._connection = device, cache, connection

    def admit(self, model: Model, waits: bool) -> None:
        """Return if a version may be loaded here. It is tried first if nobody has, unless its weights are bundled.

        Unless it `waits`, WorkerUnavailable is raised at once while another worker tries the version; else after
        TRIAL_SECONDS. Raises ModelRefused, which says why the version may not be loaded; ModelUnavailable when the
        trial says nothing about it; redis-py's errors.
        """
        if not is_bundled(model):
            self._admit(model, waits)

    def _admit(self, model: Model, waits: bool) -> None:
        name, kind, until = model.manifest.name, _kind(self._device), time.monotonic() + TRIAL_SECONDS
        while True:
            if verdict := verdicts.read(self._connection, name, model.digest, kind):
                if verdict.well:
                    return
                raise ModelRefused(verdict.reason)
            trying = Trying(self._connection, name, model.digest, kind)
            if trying.begin():
                _open.add(trying)
                try:
                    self._try(model, kind, trying)
                finally:
                    _open.discard(trying)
                    trying.end()
                return
            if not waits or time.monotonic() > until:
                raise WorkerUnavailable(f"Another worker is trying model {model}; try again in a minute.")
            time.sleep(POLL_SECONDS)

    def _try(self, model: Model, kind: str, trying: Trying) -> None:
        """Try a version and store the verdict, if there is one. Raises ModelRefused or ModelUnavailable."""
        if trying.tries > MAX_TRIES:
            fault, reason = "version", f"{MAX_TRIES} workers died, or got no answer, while they tried to load it"
        else:
            log.info("model %s: trying it in a process of its own", model)
            fault, reason = self._run(model, trying)
        what = f"Model {model} failed its check: {reason}"
        if fault in ("", "version"):
            trying.answer(Verdict(well=not fault, version=model.manifest.version, kind=kind, reason=fault and what))
        if fault == "version":
            raise ModelRefused(what)
        if fault == "worker":
            trying.forget()
        if fault:
            log.error("model %s cannot be tried here: %s", model, reason)
            raise ModelUnavailable(f"A worker cannot run model {model} ({reason}); try again.")

    def _run(self, model: Model, trying: Trying) -> tuple[str, str]:
        """Run the process. Returns what it prints; `unknown` when it gives no answer that says something."""
        try:
            device = self._device._replace(gpu=None)  # a handle of the driver means nothing in another process
            given = pickle.dumps((model, device, self._cache))
            ended = own_process.run([*COMMAND, str(os.getpid())], given, TRIAL_SECONDS, trying.renew)
        except subprocess.TimeoutExpired:
            return "unknown", f"it took more than {TRIAL_SECONDS} s to load"
        except OSError as error:
            return "worker", f"no process can be started: {error.strerror}"
        with suppress(ValueError, IndexError, KeyError, TypeError):
            if ended.returncode == 0:
                answer = json.loads(ended.stdout.splitlines()[-1])
                return str(answer["fault"]), str(answer["reason"])
        return _fault(-ended.returncode), own_process.how_it_ended(ended)


def forget() -> None:
    """Do not count the tries of this process, which is about to end for another reason."""
    while _open:
        trying = _open.pop()
        with suppress(RedisError):
            trying.forget()
            trying.end()


def _fault(number: int) -> str:
    """Return whose fault it is that a trial was ended by a signal with this number (or by none) without an answer."""
    if number in STOPS:
        return "worker"
    return "version" if number > 0 and number not in NO_FINDING else "unknown"


@cache
def _bundled_weights() -> frozenset[str]:
    """Return the SHA-256 of all networks and graphs of the versions in this package, which its tests have loaded."""
    spec = find_spec("upres.models")
    found: set[str] = set()
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for path in Path(folder).glob("*/*/manifest.json"):
            for network in json.loads(path.read_bytes())["networks"]:
                found.update((network["sha256"], (network.get("graph") or network)["sha256"]))
    return frozenset(found)


def is_bundled(model: Model) -> bool:
    """Return whether all weights and graphs of a version, and of its base, are those of bundled versions."""
    files = {file.sha256 for file in model.manifest.files if not file.file.endswith(".png")}
    return files <= _bundled_weights() and (model.base is None or is_bundled(model.base))


@cache
def _kind(device: Device) -> str:
    """Return what a verdict holds for: the kind of device, and the releases of upres and of the libraries."""
    found: list[str] = [device.kind]
    for library in LIBRARIES:
        with suppress(PackageNotFoundError):
            found.append(f"{library} {version(library)}")
    return ", ".join(found)
