"""The output format of all benchmarks."""

import json

from upres.worker.engine.device import processor


def emit(name: str, value: float, unit: str, peer: str, peer_value: float) -> None:
    """Print one figure as a JSON line, with the processor's name; `ratio` is value / peer_value."""
    line = {
        "name": name,
        "value": round(value, 4),
        "unit": unit,
        "peer": peer,
        "peer_value": round(peer_value, 4),
        "ratio": round(value / peer_value, 4),
        "processor": processor(),
    }
    print(json.dumps(line), flush=True)
