"""Tries once for each community network whether OpenVINO can run it: its outcome is kept beside the converted graph.

OpenVINO traces torch modules, which can make steps constant that depend on the input's size; and some modules are
slower there. So a process of its own (trial_process.py) converts the network, compares it with torch on windows of
several shapes, and measures both. Workers run torch until it has ended (worker/model_cache.py).
"""

import hashlib
import json
import logging
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from upres.core.manifest import Network
from upres.worker.engine import own_process
from upres.worker.engine.device import processor
from upres.worker.engine.openvino_compute import being_made, intact
from upres.worker.model import Model, mark_used

log = logging.getLogger("upres.worker")

COMMAND: Sequence[str] = (sys.executable, "-m", "upres.worker.engine.trial_process")
"""The program of a trial. It gets a pickled model with one network, and prints the reason not to use the graph."""
TRIAL_SECONDS = 600
"""Longest time in seconds of a trial. An idle processor takes up to a minute and a half; jobs have precedence."""
AGAIN_SECONDS = 24 * 3600
"""Seconds after which a trial is repeated that did not end by itself: the machine may have been short of something."""
REFUSED, INTERRUPTED = "refused", "interrupted"
"""Files with the reason why torch runs a network: the trial found one, or did not end by itself."""


class Outcome(NamedTuple):
    """What trials of a model's networks found: the files of the converted graphs by factor, or why torch runs it."""

    graphs: dict[int, Path]
    reason: str | None


def outcome(model: Model, cache: Path) -> Outcome | None:
    """Return what trials of this version, at this strength, found on this kind of machine; None before them."""
    found = {}
    for network in model.manifest.networks:
        kept = _Kept(network, model, cache)
        if reason := kept.reason():
            return Outcome({}, reason)
        if not intact(kept.graph):
            return None
        found[network.factor] = kept.graph / "graph.xml"
    return Outcome(found, None)


def run(model: Model, cache: Path) -> Outcome:
    """Try each network of a model that was not tried yet. It takes up to TRIAL_SECONDS each. The log has the outcome.

    Raises OSError when the outcome cannot be kept.
    """
    begin = time.perf_counter()
    for network in model.manifest.networks:
        kept = _Kept(network, model, cache)
        if not kept.reason() and not intact(kept.graph):
            _try(network, model, kept)
    found = outcome(model, cache) or Outcome({}, "the graph cannot be read")
    if found.reason:
        log.info("model %s runs in torch, because OpenVINO was tried: %s", model, found.reason)
    else:
        log.info("model %s: OpenVINO makes the pixels of torch, %.0f s", model, time.perf_counter() - begin)
    return found


class _Kept:
    """Where the outcome for one network is kept: a graph for each strength, and a refusal for all strengths."""

    def __init__(self, network: Network, model: Model, cache: Path) -> None:
        name = _name(network, model)
        self.graph = cache / "openvino" / (name if model.strength is None else f"{name}-{model.strength}")
        self.refusal = cache / "openvino" / f"{name}-torch"

    def reason(self) -> str | None:
        """Return why an earlier trial refused the network; None without one, or if it is to be repeated."""
        for name in (REFUSED, INTERRUPTED):
            with suppress(OSError):
                reason = (self.refusal / name).read_text()
                if name == INTERRUPTED and time.time() > (self.refusal / name).stat().st_mtime + AGAIN_SECONDS:
                    return None
                mark_used(self.refusal)
                return reason
        return None


def _name(network: Network, model: Model) -> str:
    """Return a digest of all that determines the outcome of a trial: libraries, code, processor, network, weights.

    Strengths share it: a network that OpenVINO runs wrongly or slowly does so with all weights.
    """
    here = Path(__file__)
    code = ("trial_process", "openvino_compute", "networks", "loading", "spandrel_network", "sides")
    sources = [*(here.with_name(f"{one}.py") for one in code), model.files[network.file]]
    if model.base:
        sources.append(model.base.files[model.base_network(network).file])
    libraries = [_version(one) for one in ("openvino", "torch", "spandrel")]
    about = [*libraries, processor(), network.model_dump_json()]
    made_of = hashlib.sha256("\n".join(about).encode())
    for source in sources:
        made_of.update(hashlib.sha256(source.read_bytes()).digest())
    return made_of.hexdigest()[:32]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # its modules are there, but no package says so
        return "unknown"


def _try(network: Network, model: Model, kept: _Kept) -> None:
    """Run a trial, and keep a graph with its digest, or the reason against it. Raises OSError."""
    log.info("model %s: trying OpenVINO for %s, once, in the background", model, network.file)
    kept.graph.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.graph.parent) as temporary:
        made = Path(temporary, "made")
        made.mkdir()
        reason, final = _tried(network, model, made)
        if reason is not None:
            for left in made.iterdir():
                left.unlink()
            (made / (REFUSED if final else INTERRUPTED)).write_text(reason)
        with being_made(kept.graph if reason is None else kept.refusal) as whole:
            made.rename(whole)


def _tried(network: Network, model: Model, folder: Path) -> tuple[str | None, bool]:
    """Run the process of a trial. Returns why the graph must not be used, or None; and whether it is a finding."""
    one = model._replace(manifest=model.manifest.model_copy(update={"networks": (network,)}))
    try:
        # Passive: else threads of torch that wait for each other take processor time, which is measured.
        command = [*COMMAND, str(folder), str(os.getpid())]
        ended = own_process.run(command, pickle.dumps(one), TRIAL_SECONDS, OMP_WAIT_POLICY="passive")
    except subprocess.TimeoutExpired:
        return f"it took more than {TRIAL_SECONDS} s", False
    return _outcome(ended)


def _outcome(ended: own_process.Ended) -> tuple[str | None, bool]:
    """Return the reason that a trial gave, and whether it is a finding; else why it ended."""
    with suppress(ValueError, IndexError, KeyError, TypeError):
        if ended.returncode == 0:
            reason = json.loads(ended.stdout.splitlines()[-1])["reason"]
            return (None if reason is None else str(reason)), True
    return own_process.how_it_ended(ended), False
