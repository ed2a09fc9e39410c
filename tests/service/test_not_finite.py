"""A model whose output is not finite for some images: those jobs fail with a code, and the others succeed."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support import overflowing
from tests.support.images import encoded
from tests.support.pushing import Pushed
from upres.client import Client
from upres.client.errors import JobFailed
from upres.core import registry, registry_changes
from upres.core.errors import ModelError
from upres.core.storage import Store


def test_a_job_whose_output_is_not_finite_fails_with_its_code(client: Client, store: Store, tmp_path: Path) -> None:
    network = overflowing.write(tmp_path)
    fields = Pushed(store, "overflowing", tmp_path).fields | {"networks": [network], "golden": []}
    (tmp_path / "manifest.json").write_text(json.dumps(fields))
    registry_changes.push(store, tmp_path)
    black, bright = (encoded(Image.new("RGB", (20, 20), colour), "PNG") for colour in ("black", "silver"))
    assert client.upscale(black, 2, model="overflowing").result.width == 40
    with pytest.raises(JobFailed, match="NaN or infinite") as failed:
        client.upscale(bright, 2, model="overflowing")
    assert (failed.value.code, failed.value.retryable) == ("output_not_finite", False)


def test_a_version_with_weights_that_are_not_finite_is_neither_pushed_nor_loaded(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.numpy import load_file, save

    pushed = Pushed(store, "not-finite", tmp_path)
    folder = pushed.version("1")
    tensors = load_file(folder / "edsr-x2.safetensors")
    tensors["tail.bias"][1] = np.nan
    data = save(tensors)
    networks = [dict(one) for one in pushed.fields["networks"]]
    networks[1]["sha256"] = registry.digest(data)
    (folder / "edsr-x2.safetensors").write_bytes(data)
    (folder / "manifest.json").write_text(json.dumps({**pushed.fields, "networks": networks}))
    with pytest.raises(ModelError, match=r"edsr-x2\.safetensors: the tensor tail\.bias has a number"):
        registry_changes.push(store, folder)
    with monkeypatch.context() as old:  # an older release pushed it, and a worker's cache has it
        old.setattr("upres.core.model_files.check_network", lambda file, data: None)
        registry_changes.push(store, folder)
        old.setattr("upres.worker.model.check_network", lambda file, data: None)
        pushed.pull(tmp_path / "cache")
    for cache in ("cache", "empty cache"):
        with pytest.raises(ModelError, match=r"edsr-x2\.safetensors: the tensor tail\.bias has a number"):
            pushed.pull(tmp_path / cache)
