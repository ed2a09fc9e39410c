"""Tests of models that no worker has in memory, and of the limit on the memory that models use in a worker."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from redis import Redis

from tests.support.images import picture
from tests.support.pushing import Pushed, pushed_copy
from tests.support.waiting import wait_until
from tests.support.workers import worker
from upres.client import Client
from upres.client.errors import RequestRefused
from upres.core import keys, registry_changes, served_models, workers
from upres.core.schema import Succeeded
from upres.core.served_models import ServedModel
from upres.core.storage import Store
from upres.embedded.stack import Local

pytestmark = pytest.mark.without_worker


@pytest.fixture
def model(store: Store, redis: Redis, tmp_path: Path) -> Iterator[Pushed]:
    """A copy of the bundled model under a name that only this test uses, pushed as version 1."""
    yield from pushed_copy(store, redis, tmp_path)


def test_the_least_recently_used_model_is_removed_from_memory(
    local: Local, client: Client, redis: Redis, tmp_path: Path
) -> None:
    """Each model takes ten megabytes and the limit is 35, so three fit. The default model is never removed."""
    names = [f"lru-{letter}" for letter in "abc"]
    for name in names:
        (tmp_path / name).mkdir()
        Pushed(local.store, name, tmp_path / name).push("1")
    a, b, c = names
    with worker(local, UPRES_MODEL_MEGABYTES="35"):
        for number, name in enumerate((a, b, a, c)):
            job = client.submit(picture(40 + number), 2, model=name)
            assert isinstance(list(client.events(job.job_id))[-1], Succeeded)
        wait_until(lambda: [set(one.models) for one in workers.listing(redis)] == [{"faithful 1", f"{a} 1", f"{c} 1"}])


def test_labels_come_from_the_registry_after_the_published_ones_expire(
    client: Client, model: Pushed, redis: Redis
) -> None:
    """The published labels expire when no worker extends them, for example because all have stopped."""
    model.push("2")
    old = served_models.read(model.store, model.name, "1")
    served_models.publish(redis, model.name, ServedModel(labels={"stable": old}))
    assert 0 < redis.ttl(keys.served_model(model.name)) <= keys.SERVED_MODEL_SECONDS
    registry_changes.relabel(model.store, model.name, {"stable": "2"})
    assert client.status(client.submit(picture(50), 2, model=model.name).job_id).model_version == "1"
    redis.delete(keys.served_model(model.name))  # as if SERVED_MODEL_SECONDS had passed
    assert client.status(client.submit(picture(51), 2, model=model.name).job_id).model_version == "2"
    model.store.put(keys.labels(model.name), b'{"labels": {"stable": "2", "canary": "gone"}, "canary_percent": 100}')
    assert client.status(client.submit(picture(52), 2, model=model.name).job_id).model_version == "2"


def test_each_model_has_its_own_url_for_details_and_for_jobs(local: Local, model: Pushed) -> None:
    listed = requests.get(f"{local.url}/v1/models", timeout=20).json()["models"]
    [ours] = [one for one in listed if one["name"] == model.name]
    assert [one["default"] for one in listed if one["name"] == "faithful"] == [True]
    assert ours["labels"] == {"stable": "1"}
    body = {"image_url": "http://127.0.0.1/x.png"}
    accepted = requests.post(local.url + ours["jobs_url"], json=body, timeout=20)
    assert accepted.status_code == 202
    queued = requests.get(accepted.json()["status_url"], timeout=20).json()
    assert (queued["model"], queued["model_version"]) == (model.name, "1")
    other = requests.post(local.url + ours["jobs_url"], json={**body, "model": "faithful"}, timeout=20).json()
    assert other["errors"][0]["field"] == "model"
    details = requests.get(f"{local.url}/v1/models/{model.name}", timeout=20).json()
    assert [one["version"] for one in details["versions"]] == ["1"]
    for path in ("nowhere", "..%2f..%2fetc", "%00"):
        missing = requests.get(f"{local.url}/v1/models/{path}", timeout=20)
        assert (missing.status_code, missing.headers["Content-Type"]) == (404, "application/problem+json")
    nowhere = requests.post(f"{local.url}/v1/models/nowhere/jobs", json=body, timeout=20)
    assert (nowhere.status_code, nowhere.json()["code"]) == (422, "unknown_model")


def test_a_factor_above_those_of_the_version_is_refused(client: Client, model: Pushed) -> None:
    only_four = {"networks": model.fields["networks"][:1], "golden": []}
    model.push("4", **only_four)
    with pytest.raises(RequestRefused, match=r"enlarges by at most 4"):
        client.submit(picture(13), 4.5, model=model.name, model_version="4")
