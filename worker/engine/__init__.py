"""The engine: enlarges pixels with the networks of a model, in tiles and batches, on one device."""

import sys

# OpenVINO reports each conversion to Intel, by HTTP and unasked. Without this package it uses a stub of its own.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
