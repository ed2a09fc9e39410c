"""Models in the store that tests push, label and damage."""

import json
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from redis import Redis
from safetensors.numpy import save

from tests.support.paths import ROOT
from upres.core import keys, registry, registry_changes
from upres.core.storage import Store
from upres.worker.model import Model, pull

FOLDER = ROOT / "models" / "faithful" / "1"


class Pushed:
    """A model in the store; a test can push versions of it and damage their files."""

    def __init__(self, store: Store, name: str, folder: Path) -> None:
        self.store, self.name, self.folder = store, name, folder
        self.fields: dict[str, Any] = json.loads((FOLDER / "manifest.json").read_text()) | {"name": name}

    def version(self, version: str = "1", **changed: Any) -> Path:
        """Create a folder with a copy of the bundled version; `changed` replaces fields of the manifest."""
        folder = self.folder / version
        folder.mkdir()
        for file in FOLDER.iterdir():
            shutil.copy(file, folder / file.name)
        (folder / "manifest.json").write_text(json.dumps({**self.fields, "version": version, **changed}))
        return folder

    def push(self, version: str = "1", **changed: Any) -> None:
        registry_changes.push(self.store, self.version(version, **changed))

    def put(self, file: str, data: bytes, version: str = "1") -> None:
        self.store.put(keys.model(self.name, version, file), data)

    def pull(self, cache: Path, version: str = "1") -> Model:
        return pull(self.store, self.name, version, cache)


def pushed_copy(store: Store, redis: Redis, folder: Path) -> Iterator[Pushed]:
    """Yield a copy of the bundled model under a new name, pushed as version 1; then delete what Redis has of it."""
    pushed = Pushed(store, f"copy-{secrets.token_hex(3)}", folder)
    pushed.push("1")
    yield pushed
    redis.delete(keys.served_model(pushed.name), keys.outcomes(pushed.name))


def small_version(folder: Path, name: str, version: str = "1", number: float = 0, **changed: Any) -> Path:
    """Write a valid version of a few bytes into a folder; `number` is a weight of it. No worker can load it."""
    folder.mkdir(parents=True)
    weights = save({"w": np.full(3, number, np.float32)})
    (folder / "small-x2.safetensors").write_bytes(weights)
    network = {"file": "small-x2.safetensors", "sha256": registry.digest(weights), "architecture": "edsr", "factor": 2}
    about = {"description": "small", "licence": "MIT", "created": "2026-01-01"}
    fields = {"schema_version": 2, "name": name, "version": version, **about}
    fields["networks"] = [{**network, "receptive_radius": 1}]
    (folder / "manifest.json").write_text(json.dumps(fields | changed))
    return folder
