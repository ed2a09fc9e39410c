"""Tests of changes to models while jobs run: loading, moving labels, refused versions, rollback and canaries."""

import json
import secrets
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.support.images import picture
from tests.support.pushing import FOLDER, Pushed, pushed_copy
from tests.support.waiting import wait_until
from tests.support.workers import worker
from upres.client import Client
from upres.client.errors import RequestRefused
from upres.core import keys, registry, registry_changes, served_models
from upres.core.errors import UnknownModel
from upres.core.manifest import Rule
from upres.core.schema import Progress, Queued, Started
from upres.core.served_models import ModelRef, ServedModel
from upres.core.storage import Store
from upres.embedded.stack import Local


@pytest.fixture
def model(store: Store, redis: Redis, tmp_path: Path) -> Iterator[Pushed]:
    """A copy of the bundled model under a name that only this test uses, pushed as version 1."""
    yield from pushed_copy(store, redis, tmp_path)


def offered(redis: Redis, model: Pushed) -> ServedModel:
    return served_models.published(redis, model.name) or ServedModel(labels={})


def wait_for(redis: Redis, model: Pushed, **labels: str) -> None:
    """Wait until exactly these labels and versions are published for new jobs."""
    wait_until(lambda: {label: ref.version for label, ref in offered(redis, model).labels.items()} == labels, 60)


def test_a_model_is_loaded_at_its_first_job_which_reports_it_in_a_notice(
    client: Client, model: Pushed, redis: Redis
) -> None:
    received: list[Any] = []
    result = client.upscale(picture(1), 2, model=model.name, on_event=received.append).result
    assert (result.model, result.model_version) == (model.name, "1")
    notices = [event.notice for event in received if isinstance(event, Progress) and event.notice]
    assert notices == [f"Model {model.name} 1 is being loaded."]
    wait_until(lambda: served_models.published(redis, model.name))
    again: list[Any] = []
    client.upscale(picture(2), 2, model=model.name, on_event=again.append)
    assert not [event for event in again if isinstance(event, Progress) and event.notice]


def test_jobs_keep_their_promised_version_while_labels_change_under_load(
    local: Local, model: Pushed, redis: Redis
) -> None:
    """Twenty clients submit jobs without a pause; each job is done by the version that its queued event names."""
    done: Counter[str] = Counter()
    numbers = iter(range(100_000))
    stop = threading.Event()

    def request() -> None:
        with Client(local.url) as client:
            while not stop.is_set():
                received: list[Any] = []
                version = client.upscale(picture(next(numbers)), 2, model=model.name, on_event=received.append).result
                notices = [event.notice for event in received if isinstance(event, Progress) and event.notice]
                [promised] = [event.model_version for event in received if isinstance(event, Queued)]
                [began] = {event.model_version for event in received if isinstance(event, Started)}
                assert promised == began == version.model_version
                assert not notices or promised == "1"  # only version 1 may be loaded while a job waits
                done[promised] += 1

    with ThreadPoolExecutor(20) as pool:
        requests_ = [pool.submit(request) for _ in range(20)]
        wait_until(lambda: done["1"] > 20 and offered(redis, model).labels)
        model.push("2")
        registry_changes.relabel(model.store, model.name, {"stable": "2"})
        wait_until(lambda: done["2"] > 20 or any(one.done() for one in requests_), 60)
        registry_changes.rollback(model.store, model.name)
        wait_for(redis, model, stable="1")
        before = done["1"]
        wait_until(lambda: done["1"] > before + 20 or any(one.done() for one in requests_), 60)
        stop.set()
        for one in requests_:
            one.result(60)


def wrong_golden(model: Pushed) -> dict[str, Any]:
    """Golden images with a wrong expected enlargement, so that no network of this model can pass the check."""
    golden = json.loads((FOLDER / "manifest.json").read_text())["golden"]
    four, two = golden
    return {"golden": [{**two, "enlarged": four["image"]}, four]}


def test_a_version_with_a_wrong_golden_image_is_refused(client: Client, model: Pushed, redis: Redis) -> None:
    client.upscale(picture(3), 2, model=model.name)
    model.push("bad", **wrong_golden(model))
    registry_changes.relabel(model.store, model.name, {"stable": "bad"})
    wait_until(lambda: "bad" in offered(redis, model).refused, 60)
    assert "golden.png" in offered(redis, model).refused["bad"]
    assert client.upscale(picture(4), 2, model=model.name).result.model_version == "1"
    with pytest.raises(RequestRefused, match="failed its check") as caught:
        client.submit(picture(5), 2, model=model.name, model_version="bad")
    assert caught.value.code == "unknown_model"
    registry_changes.relabel(model.store, model.name, {"stable": "1"})
    wait_until(lambda: not offered(redis, model).refused)


def test_a_damaged_or_missing_version_is_refused(client: Client, model: Pushed, redis: Redis) -> None:
    client.upscale(picture(6), 2, model=model.name)
    model.push("2", description="damaged")
    other = {**model.fields["networks"][0], "file": "edsr-x4.safetensors", "sha256": "0" * 64}
    manifest = {**model.fields, "version": "2", "networks": [other]}
    model.put("manifest.json", json.dumps(manifest).encode(), "2")
    registry_changes.relabel(model.store, model.name, {"stable": "2"})
    wait_until(lambda: "SHA-256" in offered(redis, model).refused.get("2", ""), 60)
    model.store.put(keys.labels(model.name), b'{"labels": {"stable": "7"}, "before": ["1"]}')
    wait_until(lambda: "no version" in offered(redis, model).refused.get("7", ""), 60)
    model.store.put(keys.labels(model.name), b"no labels")
    assert client.upscale(picture(7), 2, model=model.name).result.model_version == "1"


def test_a_worker_serves_the_previous_version_if_the_stable_one_is_bad(
    local: Local, model: Pushed, redis: Redis
) -> None:
    model.push("bad", **wrong_golden(model))
    registry_changes.relabel(model.store, model.name, {"stable": "bad"})
    with worker(local, UPRES_PRELOAD=model.name):
        assert offered(redis, model).labels["stable"].version == "1"
        assert "golden" in offered(redis, model).refused["bad"]


def test_a_job_can_name_a_version_or_a_label_and_unknown_ones_are_refused(client: Client, model: Pushed) -> None:
    model.push("2")
    registry_changes.relabel(model.store, model.name, {"best": "2"})
    for wanted, got in (("1", "1"), ("2", "2"), ("best", "2"), ("stable", "1"), (None, "1")):
        result = client.upscale(picture(8), 2, model=model.name, model_version=wanted).result
        assert result.model_version == got
    with pytest.raises(RequestRefused, match="neither a version nor a label 'x'; labels: stable, best") as caught:
        client.submit(picture(9), 2, model=model.name, model_version="x")
    assert caught.value.code == "unknown_model"


def test_the_canary_gets_its_share_and_each_job_id_gets_a_fixed_version(store: Store, redis: Redis) -> None:
    refs = {label: ModelRef(version=label, digest=label, factors=(4,)) for label in ("stable", "canary")}
    served_models.publish(redis, "share", ServedModel(labels=refs, canary_percent=20))
    ids = [secrets.token_hex(16) for _ in range(2000)]
    first, second = ([served_models.resolve(redis, store, "share", None, one).version for one in ids] for _ in range(2))
    assert first == second
    assert 300 < first.count("canary") < 500
    served_models.publish(redis, "share", ServedModel(labels=refs, canary_percent=0))
    assert {served_models.resolve(redis, store, "share", None, one).version for one in ids} == {"stable"}
    redis.delete(keys.served_model("share"))
    with pytest.raises(UnknownModel, match=r"no model 'share'; available: .*faithful"):
        served_models.resolve(redis, store, "share", None, ids[0])


def set_rule(model: Pushed, canary: str, **rule: float) -> None:
    registry_changes.relabel(model.store, model.name, {"canary": canary}, 100, Rule.model_validate(rule))


def test_a_canary_becomes_stable_after_enough_successful_jobs(client: Client, model: Pushed, redis: Redis) -> None:
    client.upscale(picture(10), 2, model=model.name)
    model.push("2")
    set_rule(model, "2", jobs=3, most_failed_percent=0)
    wait_for(redis, model, stable="1", canary="2")
    for number in range(3):
        assert client.upscale(picture(20 + number), 2, model=model.name).result.model_version == "2"
    wait_for(redis, model, stable="2")
    assert registry.labels(model.store, model.name).before == ("1",)


def test_the_label_canary_is_removed_after_too_many_failed_jobs(client: Client, model: Pushed, redis: Redis) -> None:
    client.upscale(picture(11), 2, model=model.name)
    model.push("2")
    set_rule(model, "2", jobs=100, most_failed_percent=1)
    wait_for(redis, model, stable="1", canary="2")
    redis.hset(
        keys.outcomes(model.name), f"{offered(redis, model).canary_run_id}:failed", 2
    )  # written directly, since no network in these tests makes a job fail
    wait_for(redis, model, stable="1")
    assert registry.labels(model.store, model.name).labels == {"stable": "1"}
