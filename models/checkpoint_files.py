"""Reads the tensors of checkpoints of other projects, without running code in them.

What kind of file one is says its content, not its name. Nothing that torch says about a file is printed: it advises to
load files in the way that runs their code.
"""

import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from upres.core.errors import ModelError

WRAPPERS = ("params_ema", "params", "params-ema", "state_dict", "model", "model_state_dict")
"""Keys under which training programs store the weights in a checkpoint, in order of preference."""
ASK = "Ask for its weights as safetensors."
GIT_LFS = b"version https://git-lfs.github.com/spec/"
"""Beginning of a pointer file of git-LFS (github.com/git-lfs/git-lfs/blob/main/docs/spec.md)."""
HEAD_BYTES = 512


def read(file: Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint, by name. Pickle files are loaded with restricted unpickling.

    Raises ModelError when the file cannot be read, is of another kind, is damaged, contains more than tensors, or has
    no weights under a known key.
    """
    try:
        with file.open("rb") as opened:
            head = opened.read(HEAD_BYTES)
        if _is_safetensors(file, head):
            return load_file(file)
        _check_kind(file, head)
        found = _unpickled(file)
    except OSError as error:
        raise ModelError(f"{file} cannot be read: {error.strerror or error}.") from error
    except SafetensorError as error:
        raise ModelError(f"{file} is no safetensors file, or a damaged one ({error}).") from error
    for name in WRAPPERS:
        if isinstance(found, dict) and isinstance(found.get(name), dict):
            found = found[name]
    fine = isinstance(found, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in found.items())
    if not fine:
        raise ModelError(f"{file} holds no weights under names that are known.")
    # Copies, because tensors in a checkpoint may share memory, which safetensors does not allow.
    return {name: tensor.clone() for name, tensor in found.items()}


def _is_safetensors(file: Path, head: bytes) -> bool:
    """Whether the file begins as safetensors do: with the length of a JSON object. Or it is called so, and no other."""
    begins = len(head) > 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= file.stat().st_size - 8
    return begins or (file.suffix.lower() == ".safetensors" and not _is_known(head))


def _is_known(head: bytes) -> bool:
    return not head or head.startswith((GIT_LFS, b"PK\x03\x04", b"\x80")) or _is_page(head)


def _is_page(head: bytes) -> bool:
    return head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml"))


def _check_kind(file: Path, head: bytes) -> None:
    """Raise ModelError, which says what the file is, when it is none that may be unpickled."""
    if not head:
        raise ModelError(f"{file} is empty; download it again.")
    if head.startswith(GIT_LFS):
        raise ModelError(
            f"{file} is a pointer of git-LFS to the weights, not the weights: run `git lfs pull` in the repository, or "
            "download the file itself."
        )
    if _is_page(head):
        raise ModelError(f"{file} is a web page, not a checkpoint; download the file that the page offers.")
    if head.startswith(b"PK\x03\x04"):
        _check_archive(file)
    elif not head.startswith(b"\x80"):  # every pickle of torch has the opcode PROTO first
        raise ModelError(f"{file} is neither a checkpoint of torch (.pth, .pt, .ckpt) nor a safetensors file.")


def _check_archive(file: Path) -> None:
    """Raise ModelError when a zip archive is a program of torch, or no checkpoint."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except OSError:
        raise
    except Exception as error:  # zipfile raises errors of many types for damaged archives
        raise ModelError(
            f"{file} is a damaged checkpoint; perhaps its download broke off. Download it again."
        ) from error
    parts = {name.partition("/")[2] for name in names}
    if "constants.pkl" in parts or any(part.startswith("code/") for part in parts):
        raise ModelError(
            f"{file} is a TorchScript file, which is a program; it is not opened, because it would be run. {ASK}"
        )
    if "models/model.json" in parts or "archive_format" in parts:
        raise ModelError(f"{file} is a program of torch.export, not a checkpoint; it is not opened. {ASK}")
    if "data.pkl" not in parts:
        raise ModelError(f"{file} is a zip archive without a checkpoint; if the checkpoint is inside, unpack it.")


def _unpickled(file: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about old pickle formats
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(f"{file} holds more than tensors, and is not opened: it could run code. {ASK}") from error
    except OSError:
        raise
    except Exception as error:  # torch raises errors of many types for damaged files
        raise ModelError(f"{file} cannot be read as a checkpoint; it is damaged ({type(error).__name__}).") from error
