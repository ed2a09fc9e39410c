"""Tries once for each community network whether OpenVINO can run it: its outcome is kept beside the converted graph.

OpenVINO traces torch modules, which can make steps constant that depend on the input's size; and some modules are
slower there. So a process of its own (trial_process.py) converts the network, compares it with torch on windows of
several shapes, and measures both. What that process does not survive costs the worker nothing but time.
"""

import hashlib
import json
import logging
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from upres.core.manifest import Network
from upres.worker.engine.device import processor
from upres.worker.engine.openvino_compute import being_made, intact
from upres.worker.model import Model, mark_used

log = logging.getLogger("upres.worker")

COMMAND: Sequence[str] = (sys.executable, "-m", "upres.worker.engine.trial_process")
"""The program of a trial. It gets a pickled model with one network, and prints the reason not to use the graph."""
TRIAL_SECONDS = 90
"""Longest time in seconds of a trial: a worker waits for it when it loads the version for the first time."""
AGAIN_SECONDS = 24 * 3600
"""Seconds after which a trial is repeated that did not end by itself: the machine may have been short of something."""
REFUSED, INTERRUPTED = "refused", "interrupted"
"""Files with the reason why torch runs a network: the trial found one, or did not end by itself."""
ENVIRONMENT = ("PATH", "HOME", "LD_LIBRARY_PATH", "OMP_NUM_THREADS")
"""Variables of the worker's environment that a trial gets; the others hold credentials and addresses."""


def graphs(model: Model, cache: Path) -> dict[int, Path] | None:
    """Return the files of the model's converted networks, by factor; None when torch has to run the model.

    The log says why. Each network is tried first if its outcome is not in the folder `cache`.
    """
    if not (find_spec("openvino") and find_spec("spandrel")):
        return None
    found = {}
    for network in model.manifest.networks:
        folder = cache / "openvino" / _name(network, model)
        reason = _reason(network, model, folder)
        if reason is not None:
            log.info("model %s runs in torch, because OpenVINO was tried: %s", model, reason)
            return None
        found[network.factor] = folder / "graph.xml"
    return found


def _name(network: Network, model: Model) -> str:
    """Return a digest of all that determines the outcome of a trial: libraries, code, processor, network, weights."""
    here = Path(__file__)
    sources = [here.with_name(f"{one}.py") for one in ("trial_process", "openvino_compute", "networks", "sides")]
    sources.append(model.files[network.file])
    if model.base:
        sources.append(model.base.files[model.base_network(network).file])
    libraries = [_version(one) for one in ("openvino", "torch", "spandrel")]
    about = [*libraries, processor(), str(model.strength), network.model_dump_json()]
    made_of = hashlib.sha256("\n".join(about).encode())
    for source in sources:
        made_of.update(hashlib.sha256(source.read_bytes()).digest())
    return made_of.hexdigest()[:32]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # its modules are there, but no package says so
        return "unknown"


def _reason(network: Network, model: Model, folder: Path) -> str | None:
    """Return why torch has to run a network; None when the folder has a graph to be used. Tries it if need be."""
    if intact(folder):
        return None
    if known := _known(folder):
        return known
    try:
        with being_made(folder) as whole:
            whole.mkdir()
            _try(network, model, whole)
    except OSError as error:
        log.error("UPRES_CACHE_DIR: a converted network cannot be kept in %s: %s", folder.parent, error)
        return "the result cannot be kept"
    return None if intact(folder) else _known(folder) or "the result cannot be read"


def _known(folder: Path) -> str | None:
    """Return why an earlier trial refused a network; None without one, or if it is to be repeated."""
    for name in (REFUSED, INTERRUPTED):
        with suppress(OSError):
            reason = (folder / name).read_text()
            if name == INTERRUPTED and time.time() > (folder / name).stat().st_mtime + AGAIN_SECONDS:
                return None
            mark_used(folder)
            return reason
    return None


def _try(network: Network, model: Model, whole: Path) -> None:
    """Run a trial. It leaves a graph with its digest in the folder `whole`, or a file with the reason alone."""
    log.info("model %s: trying OpenVINO for %s, once, for at most %d s", model, network.file, TRIAL_SECONDS)
    one = model._replace(manifest=model.manifest.model_copy(update={"networks": (network,)}))
    environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    begin = time.perf_counter()
    try:
        ended = subprocess.run(
            [*COMMAND, str(whole), str(os.getpid())],
            input=pickle.dumps(one),
            capture_output=True,
            # Passive: else threads of torch that wait for each other take processor time, which is measured.
            env={**environment, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_WAIT_POLICY": "passive"},
            timeout=TRIAL_SECONDS,
        )
        reason, final = _outcome(ended)
    except subprocess.TimeoutExpired:
        reason, final = f"it took more than {TRIAL_SECONDS} s", False
    if reason:
        for left in whole.iterdir():
            left.unlink()
        (whole / (REFUSED if final else INTERRUPTED)).write_text(reason)
    else:
        log.info("model %s: OpenVINO makes the pixels of torch, %.0f s", model, time.perf_counter() - begin)


def _outcome(ended: "subprocess.CompletedProcess[bytes]") -> tuple[str | None, bool]:
    """Return the reason that a trial gave, and whether it is a finding; else why it ended."""
    with suppress(ValueError, IndexError, KeyError, TypeError):
        if ended.returncode == 0:
            reason = json.loads(ended.stdout.splitlines()[-1])["reason"]
            return (None if reason is None else str(reason)), True
    if ended.returncode < 0:
        return f"its process was ended by signal {-ended.returncode}", False
    lines = ended.stderr.decode(errors="replace").split("\n")
    said = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f"its process failed with code {ended.returncode} ({said[:300]})", False
