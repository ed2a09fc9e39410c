"""Models come, change and go while jobs run: pinned, switched without a pause, refused, rolled back."""

import json
import secrets
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image
from redis import Redis

from tests.conftest import encoded
from tests.pushing import FOLDER, Pushed
from tests.waiting import wait_until
from tests.workers import worker
from upres.client import Client
from upres.client.errors import Refused
from upres.core import catalogue, keys, registry, workers
from upres.core.catalogue import Offer, Pin
from upres.core.errors import UnknownModel
from upres.core.manifest import Rule
from upres.core.schema import Progress, Queued, Started, Succeeded
from upres.core.storage import Store
from upres.embedded.stack import Local

NAME = "changing"


@pytest.fixture
def model(store: Store, redis: Redis, tmp_path: Path) -> Iterator[Pushed]:
    """A model of its own, like the bundled one, in version 1."""
    pushed = Pushed(store, f"{NAME}-{secrets.token_hex(3)}", tmp_path)
    pushed.push("1")
    yield pushed
    redis.delete(keys.offer(pushed.name), keys.outcomes(pushed.name))


def offered(redis: Redis, model: Pushed) -> Offer:
    return catalogue.published(redis, model.name) or Offer(labels={})


def wait_for(redis: Redis, model: Pushed, **labels: str) -> None:
    """Until new jobs get these versions."""
    wait_until(lambda: {label: pin.version for label, pin in offered(redis, model).labels.items()} == labels, 60)


def picture(number: int) -> bytes:
    return encoded(Image.new("RGB", (48, 32), (number % 256, number // 256, 7)), "PNG")


def test_a_model_is_loaded_when_it_is_first_asked_for(client: Client, model: Pushed, redis: Redis) -> None:
    told: list[Any] = []
    result = client.upscale(picture(1), 2, model=model.name, on_event=told.append).result
    assert (result.model, result.model_version) == (model.name, "1")
    notices = [event.notice for event in told if isinstance(event, Progress) and event.notice]
    assert notices == [f"Model {model.name} 1 is being loaded."]
    wait_until(lambda: catalogue.published(redis, model.name))
    again: list[Any] = []
    client.upscale(picture(2), 2, model=model.name, on_event=again.append)
    assert not [event for event in again if isinstance(event, Progress) and event.notice]


def test_a_switch_under_load_fails_nothing(local: Local, model: Pushed, redis: Redis) -> None:
    """Twenty requests in flight throughout; each is done by the version that was promised when it was accepted."""
    done: Counter[str] = Counter()
    numbers = iter(range(100_000))
    stop = threading.Event()

    def request() -> None:
        with Client(local.url) as client:
            while not stop.is_set():
                told: list[Any] = []
                version = client.upscale(picture(next(numbers)), 2, model=model.name, on_event=told.append).result
                notices = [event.notice for event in told if isinstance(event, Progress) and event.notice]
                [promised] = [event.model_version for event in told if isinstance(event, Queued)]
                [began] = {event.model_version for event in told if isinstance(event, Started)}
                assert promised == began == version.model_version
                assert not notices or promised == "1"  # which the first job waited for
                done[promised] += 1

    with ThreadPoolExecutor(20) as pool:
        requests_ = [pool.submit(request) for _ in range(20)]
        wait_until(lambda: done["1"] > 20 and offered(redis, model).labels)
        model.push("2")
        registry.relabel(model.store, model.name, {"stable": "2"})
        wait_until(lambda: done["2"] > 20 or any(one.done() for one in requests_), 60)
        registry.rollback(model.store, model.name)
        wait_for(redis, model, stable="1")
        before = done["1"]
        wait_until(lambda: done["1"] > before + 20 or any(one.done() for one in requests_), 60)
        stop.set()
        for one in requests_:
            one.result(60)


def wrong_golden(model: Pushed) -> dict[str, Any]:
    """Golden images that no network of this model makes."""
    golden = json.loads((FOLDER / "manifest.json").read_text())["golden"]
    four, two = golden
    return {"golden": [{**two, "enlarged": four["image"]}, four]}


def test_a_version_that_fails_its_check_is_refused(client: Client, model: Pushed, redis: Redis) -> None:
    client.upscale(picture(3), 2, model=model.name)
    model.push("bad", **wrong_golden(model))
    registry.relabel(model.store, model.name, {"stable": "bad"})
    wait_until(lambda: "bad" in offered(redis, model).refused, 60)
    assert "golden.png" in offered(redis, model).refused["bad"]
    assert client.upscale(picture(4), 2, model=model.name).result.model_version == "1"
    with pytest.raises(Refused, match="failed its check") as caught:
        client.submit(picture(5), 2, model=model.name, model_version="bad")
    assert caught.value.code == "unknown_model"
    registry.relabel(model.store, model.name, {"stable": "1"})
    wait_until(lambda: not offered(redis, model).refused)


def test_a_version_that_is_damaged_or_gone_is_refused(client: Client, model: Pushed, redis: Redis) -> None:
    client.upscale(picture(6), 2, model=model.name)
    model.push("2", description="damaged")
    other = {**model.fields["networks"][0], "file": "edsr-x4.safetensors", "sha256": "0" * 64}
    manifest = {**model.fields, "version": "2", "networks": [other]}
    model.put("manifest.json", json.dumps(manifest).encode(), "2")
    registry.relabel(model.store, model.name, {"stable": "2"})
    wait_until(lambda: "SHA-256" in offered(redis, model).refused.get("2", ""), 60)
    model.store.put(keys.labels(model.name), b'{"labels": {"stable": "7"}, "before": ["1"]}')
    wait_until(lambda: "no version" in offered(redis, model).refused.get("7", ""), 60)
    model.store.put(keys.labels(model.name), b"no labels")
    assert client.upscale(picture(7), 2, model=model.name).result.model_version == "1"


def test_a_worker_that_starts_with_a_bad_stable_version_serves_the_one_before(
    local: Local, model: Pushed, redis: Redis
) -> None:
    model.push("bad", **wrong_golden(model))
    registry.relabel(model.store, model.name, {"stable": "bad"})
    with worker(local, UPRES_PRELOAD=model.name):
        assert offered(redis, model).labels["stable"].version == "1"
        assert "golden" in offered(redis, model).refused["bad"]


def test_versions_and_labels_are_asked_for_by_name(client: Client, model: Pushed) -> None:
    model.push("2")
    registry.relabel(model.store, model.name, {"best": "2"})
    for wanted, got in (("1", "1"), ("2", "2"), ("best", "2"), ("stable", "1"), (None, "1")):
        result = client.upscale(picture(8), 2, model=model.name, model_version=wanted).result
        assert result.model_version == got
    with pytest.raises(Refused, match="neither a version nor a label 'x'; labels: stable, best") as caught:
        client.submit(picture(9), 2, model=model.name, model_version="x")
    assert caught.value.code == "unknown_model"


def test_the_canary_gets_its_share_and_a_job_always_the_same(store: Store, redis: Redis) -> None:
    pins = {label: Pin(version=label, digest=label, factors=(4,)) for label in ("stable", "canary")}
    catalogue.publish(redis, "share", Offer(labels=pins, canary_percent=20))
    ids = [secrets.token_hex(16) for _ in range(2000)]
    first, second = ([catalogue.pin(redis, store, "share", None, one).version for one in ids] for _ in range(2))
    assert first == second
    assert 300 < first.count("canary") < 500
    catalogue.publish(redis, "share", Offer(labels=pins, canary_percent=0))
    assert {catalogue.pin(redis, store, "share", None, one).version for one in ids} == {"stable"}
    redis.delete(keys.offer("share"))
    with pytest.raises(UnknownModel, match=r"no model 'share'; available: .*faithful"):
        catalogue.pin(redis, store, "share", None, ids[0])


def set_rule(model: Pushed, canary: str, **rule: float) -> None:
    registry.relabel(model.store, model.name, {"canary": canary}, 100, Rule.model_validate(rule))


def test_a_canary_that_does_well_becomes_stable(client: Client, model: Pushed, redis: Redis) -> None:
    client.upscale(picture(10), 2, model=model.name)
    model.push("2")
    set_rule(model, "2", jobs=3, most_failed_percent=0)
    wait_for(redis, model, stable="1", canary="2")
    for number in range(3):
        assert client.upscale(picture(20 + number), 2, model=model.name).result.model_version == "2"
    wait_for(redis, model, stable="2")
    assert registry.labels(model.store, model.name).before == ("1",)


def test_a_canary_that_fails_is_given_up(client: Client, model: Pushed, redis: Redis) -> None:
    client.upscale(picture(11), 2, model=model.name)
    model.push("2")
    set_rule(model, "2", jobs=100, most_failed_percent=1)
    wait_for(redis, model, stable="1", canary="2")
    redis.hset(keys.outcomes(model.name), f"{offered(redis, model).trial}:failed", 2)  # no network of ours fails itself
    wait_for(redis, model, stable="1")
    assert registry.labels(model.store, model.name).labels == {"stable": "1"}


@pytest.mark.usefixtures("held")
def test_what_was_used_longest_ago_leaves(local: Local, client: Client, redis: Redis, tmp_path: Path) -> None:
    """Models of ten megabytes in a budget of thirty-five; the default one stays, whoever else is used."""
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


@pytest.mark.usefixtures("held")
def test_labels_of_a_model_that_nobody_has_loaded_are_the_registrys(
    client: Client, model: Pushed, redis: Redis
) -> None:
    """What a worker said before it stopped does not rule for ever."""
    model.push("2")
    old = catalogue.read(model.store, model.name, "1")
    catalogue.publish(redis, model.name, Offer(labels={"stable": old}))
    assert 0 < redis.ttl(keys.offer(model.name)) <= keys.OFFER_SECONDS
    registry.relabel(model.store, model.name, {"stable": "2"})
    assert client.status(client.submit(picture(50), 2, model=model.name).job_id).model_version == "1"
    redis.delete(keys.offer(model.name))  # as after a minute
    assert client.status(client.submit(picture(51), 2, model=model.name).job_id).model_version == "2"
    model.store.put(keys.labels(model.name), b'{"labels": {"stable": "2", "canary": "gone"}, "canary_percent": 100}')
    assert client.status(client.submit(picture(52), 2, model=model.name).job_id).model_version == "2"


def test_each_model_has_an_address_of_its_own(local: Local, model: Pushed) -> None:
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


def test_a_factor_that_the_version_cannot_make_is_said_at_once(client: Client, model: Pushed) -> None:
    only_four = {"networks": model.fields["networks"][:1], "golden": []}
    model.push("4", **only_four)
    with pytest.raises(Refused, match=r"enlarges by 4"):
        client.submit(picture(13), 2, model=model.name, model_version="4")
