"""Checks of the files of a model version, before they are used or stored."""

import hashlib

from upres.core import onnx_graph, weights
from upres.core.errors import ModelError
from upres.core.manifest import Manifest


def check(manifest: Manifest, file: str, data: bytes, sha256: str) -> None:
    """Raise ModelError when a file's SHA-256 is not the one in its manifest, or `check_network` refuses it."""
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise ModelError(
            f"{file} of model {manifest.name!r} {manifest.version} has SHA-256 {found}, "
            f"but its manifest says {sha256}; push the model again."
        )
    check_network(file, data)


def check_network(file: str, data: bytes) -> None:
    """Raise ModelError when a network's file needs other files, or has weights that are absurd or not finite."""
    if file.endswith(".onnx"):
        onnx_graph.check(file, data)
    if file.endswith(".safetensors"):
        weights.check_safetensors(file, data)


def check_size(what: str, size: int, most: int) -> None:
    """Raise ModelError when a file of a version is larger than `most` bytes."""
    if size > most:
        raise ModelError(f"{what} has more than {most:,} bytes, the most that upres reads.")
