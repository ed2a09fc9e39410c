"""Checks of the files of a model version, before they are used or stored."""

import hashlib

from upres.core.errors import ModelError
from upres.core.manifest import Manifest
from upres.core.onnx_graph import check_self_contained


def check(manifest: Manifest, file: str, data: bytes, sha256: str) -> None:
    """Raise ModelError when a file's SHA-256 is not the one in its manifest, or a graph needs other files."""
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise ModelError(
            f"{file} of model {manifest.name!r} {manifest.version} has SHA-256 {found}, "
            f"but its manifest says {sha256}; push the model again."
        )
    if file.endswith(".onnx"):
        check_self_contained(file, data)


def check_size(what: str, size: int, most: int) -> None:
    """Raise ModelError when a file of a version is larger than `most` bytes."""
    if size > most:
        raise ModelError(f"{what} has more than {most:,} bytes, the most that upres reads.")
