"""Writes model versions as folders: networks, manifest and golden images, as the registry expects them."""

import json
import os
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from safetensors.torch import save
from torch import Tensor

from upres.core import registry
from upres.core.manifest import Golden, Manifest, schema_version
from upres.worker import golden
from upres.worker.engine.compute import Compute
from upres.worker.engine.device_thread import DeviceThread
from upres.worker.engine.engine import Engine
from upres.worker.engine.torch_compute import TorchCompute
from upres.worker.imaging import images
from upres.worker.model import Model, open_folder

PICTURE = Path(__file__).parent / "golden.png"
"""The golden image: 96×96 pixels of a photo, with hair, an eye and blur."""


NOISE = 25
"""Standard deviation of noise in grey levels: that for which denoisers are usually compared."""


def photo(height: int, width: int, shift: int = 0) -> npt.NDArray[np.uint8]:
    """An image of (height, width, 3) cut from the golden image, shifted by `shift` columns, continued by reflection."""
    pixels = np.roll(_picture(), shift, 1)
    more = [(0, max(0, wanted - have)) for wanted, have in zip((height, width), pixels.shape, strict=False)]
    return np.pad(pixels, (*more, (0, 0)), mode="symmetric")[:height, :width].copy()


def noisy(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Add noise to an image: networks with factor 1 are measured with it, because they hardly change one without."""
    noise = np.random.default_rng(0).normal(0, NOISE, pixels.shape)
    return np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8)


def _picture() -> npt.NDArray[np.uint8]:
    return images.decode(PICTURE.read_bytes(), golden.MAX_PIXELS).pixels


class NewNetwork(NamedTuple):
    """A network to be written: its fields in the manifest, and its tensors."""

    fields: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


def write(folder: Path, about: Mapping[str, Any], networks: Sequence[NewNetwork]) -> Model:
    """Write a complete version: weights, golden images, manifest. Raises ModelError when they do not fit together."""
    folder.mkdir(parents=True, exist_ok=True)
    fields = []
    for made in networks:
        file = f"{about['name']}-x{made.fields['factor']}.safetensors"
        weights = save({name: tensor.contiguous() for name, tensor in made.tensors.items()})
        (folder / file).write_bytes(weights)  # `save_file` makes files that only this user can read
        fields.append({**made.fields, "file": file})
    return describe(folder, about, fields)


def describe(folder: Path, about: Mapping[str, Any], networks: Sequence[Mapping[str, Any]]) -> Model:
    """Write the manifest and the golden images for network files in the folder; golden images are made by torch."""
    fields = {
        "schema_version": schema_version((one["factor"] for one in networks), "mix" in about),
        "created": date.today().isoformat(),
        **about,
        "networks": [{**one, "sha256": _digest(folder / one["file"])} for one in networks],
    }
    _write_manifest(folder, Manifest.model_validate(fields))
    model = open_folder(folder)
    with DeviceThread() as thread:
        made = make_golden(model, TorchCompute(model, "cpu", "float32"), thread, folder)
    _write_manifest(folder, model.manifest.model_copy(update={"golden": made}))
    return open_folder(folder)


def derive(model: Model, to: Path, version: str, networks: Sequence[Mapping[str, Any]]) -> Model:
    """Make a version of the same model with other network files, which are in the folder `to`; keeps golden images."""
    golden_files = {file.file for one in model.manifest.golden for file in (one.image, one.enlarged)}
    for file in golden_files | {one["file"] for one in networks}:
        if not (to / file).exists():
            (to / file).write_bytes(model.files[file].read_bytes())
    found = [{**one, "sha256": _digest(to / one["file"])} for one in networks]
    changed = {"version": version, "created": date.today(), "networks": found}
    _write_manifest(to, Manifest.model_validate(model.manifest.model_dump() | changed))
    return open_folder(to)


def make_golden(model: Model, compute: Compute, thread: DeviceThread, folder: Path) -> tuple[Golden, ...]:
    """Enlarge the golden image with each network; write input and results as files in the folder."""
    picture = folder / "golden.png"
    picture.write_bytes(PICTURE.read_bytes())
    made = []
    for network in model.manifest.networks:
        enlarged = folder / f"golden-x{network.factor}.png"
        pixels = Engine(model.manifest, compute, thread).upscale(_picture(), network.factor)
        Image.fromarray(pixels).save(enlarged, optimize=True)
        files = {"image": described(picture), "enlarged": described(enlarged)}
        made.append(Golden.model_validate({"factor": network.factor, **files}))
    return tuple(made)


def described(path: Path) -> dict[str, str]:
    """The name and digest of a file, as in a manifest."""
    return {"file": path.name, "sha256": _digest(path)}


def _digest(path: Path) -> str:
    return registry.digest(path.read_bytes())


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    fields = manifest.model_dump(mode="json", exclude_defaults=True)
    temporary = folder / "manifest.json.new"
    temporary.write_text(json.dumps(fields, indent=2, ensure_ascii=False) + "\n")
    os.replace(temporary, folder / "manifest.json")
