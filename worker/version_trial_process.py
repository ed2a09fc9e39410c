"""`python -m upres.worker.version_trial_process PARENT`: loads a version and checks its golden images like a worker.

Reads a pickled model, device and cache folder from its parent, the worker with the process id PARENT. Prints whose
fault it is if the version cannot be loaded (`version`, `worker` or `unknown`; empty if it works), and the reason.
"""

import json
import logging
import pickle
import sys
import warnings
from pathlib import Path

from upres.core.errors import ModelError, UpresError
from upres.worker import golden
from upres.worker.engine import own_process, runtimes
from upres.worker.engine.device import Device
from upres.worker.engine.device_thread import DeviceThread
from upres.worker.engine.engine import Engine
from upres.worker.imaging.decoding import Decoders
from upres.worker.model import Model


def tried(model: Model, device: Device, cache: Path | None) -> tuple[str, str]:
    """Load a version, warm it up and check its golden images. Returns whose fault the reason is, and the reason."""
    try:
        with DeviceThread() as thread, Decoders(1, golden.MAX_PIXELS) as decoders:
            engine = Engine(model.manifest, runtimes.choose(model, device, cache), thread)
            engine.warm_up()
            golden.check(model, engine, decoders.decode)
    except ModelError as error:
        return "version", str(error).removeprefix(f"Model {model} failed its check: ")
    except (UpresError, OSError) as error:
        return "worker", str(error)
    except Exception as error:  # libraries raise many types for weights that they cannot use
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return "unknown", f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]
    return "", ""


def main() -> int:
    """Try the version that stands on the standard input."""
    model, device, cache = pickle.load(sys.stdin.buffer)  # noqa: S301  # the parent wrote it
    own_process.confine(int(sys.argv[1]), most_memory=device.kind == "cpu")
    warnings.simplefilter("ignore")
    logging.disable()
    fault, reason = tried(model, device, cache)
    print(json.dumps({"fault": fault, "reason": reason}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
