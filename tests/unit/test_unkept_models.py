"""Tests of a model whose files the cache cannot keep: they are in a temporary folder while it is loaded."""

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support import communities
from upres.core.served_models import ModelRef
from upres.core.settings import Settings
from upres.core.storage import Store
from upres.worker import model_cache, version_trials
from upres.worker.engine.device import choose
from upres.worker.engine.device_thread import DeviceThread
from upres.worker.engine.torch_compute import TorchCompute
from upres.worker.imaging.decoding import Decoders
from upres.worker.model import Model
from upres.worker.model_cache import ModelCache


def test_a_community_model_is_loaded_without_a_trial_of_openvino(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trial would begin after the loading, when the files are gone."""

    def pulled(store: Store, name: str, version: str, cache: Path, digest: str, temporary: ExitStack) -> Model:
        folder = temporary.enter_context(tempfile.TemporaryDirectory(dir=tmp_path))
        return communities.version(Path(folder, "files"), communities.span)

    monkeypatch.setattr(model_cache, "pull", pulled)
    monkeypatch.setattr(version_trials, "is_bundled", lambda model: True)
    monkeypatch.setattr(model_cache, "remember", lambda *arguments: None)
    no_store: Any = None
    settings = Settings(redis_url="redis://127.0.0.1:1/0", cache_dir=tmp_path / "cache")
    with DeviceThread() as thread:
        models = ModelCache(settings, no_store, choose("cpu"), thread, Decoders(1, 1000))
        with models.use("span", ModelRef(version="1", digest="0" * 64, factors=(2,))) as loaded:
            assert type(loaded.engine.compute) is TorchCompute
