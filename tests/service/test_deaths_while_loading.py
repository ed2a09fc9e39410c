"""Versions at whose loading workers of this machine died: they are left out where others are served, and only there."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from tests.service.test_model_budget import worker
from tests.support.pushing import Pushed, pushed_copy
from upres.core import served_models
from upres.core.errors import ModelUnavailable
from upres.core.served_models import ModelRef
from upres.core.storage import Store
from upres.embedded.stack import Local
from upres.worker import loading_notes, model_cache


@pytest.fixture
def model(store: Store, isolated_redis: Redis, tmp_path: Path) -> Iterator[Pushed]:
    for pushed in pushed_copy(store, isolated_redis, tmp_path):
        pushed.push("2", golden=[])
        yield pushed


def fatal(store: Store, model: Pushed, version: str, cache: Path) -> ModelRef:
    """A version of which so many workers died on this machine that it is left out."""
    ref = served_models.read(store, model.name, version)
    note = cache / "loading" / hashlib.sha256(ref.digest.encode()).hexdigest()[:32]
    note.parent.mkdir(exist_ok=True)
    note.write_bytes(b"x" * loading_notes.MAX_DEATHS)
    return ref


@pytest.mark.parametrize("bundled", [False, True])
def test_the_only_model_of_a_worker_is_loaded_however_many_died_of_it(
    local: Local, store: Store, model: Pushed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bundled: bool
) -> None:
    """Workers are killed while they load for other reasons, too: a machine without its only model serves nothing."""
    monkeypatch.setattr(model_cache, "is_bundled", lambda model: bundled)
    with worker(local, store, monkeypatch, model_megabytes=100, cache_dir=tmp_path) as one:
        first, second = (fatal(store, model, version, tmp_path) for version in ("1", "2"))
        with one.models.use(model.name, first):
            if bundled:
                with one.models.use(model.name, second):
                    return
            found = pytest.raises(ModelUnavailable, match="2 workers of this machine died while they loaded it")
            with found, one.models.use(model.name, second):
                pass
