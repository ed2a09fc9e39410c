"""The strength of a model: in requests, estimates and commands, over HTTP and through the worker."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import requests
from PIL import Image
from redis import Redis

from tests.support import mixable
from tests.support.command import upres
from tests.support.engines import engine_of
from tests.support.images import encoded, opened
from tests.support.leasing import message
from tests.support.waiting import wait_until
from upres.client import Client
from upres.client.errors import RequestRefused
from upres.core import registry, registry_changes, served_models, workers
from upres.core.errors import ModelError
from upres.core.job_message import JobMessage
from upres.core.schema import Event, Progress
from upres.core.served_models import ModelRef
from upres.core.storage import Store
from upres.embedded.stack import Local, tool
from upres.worker.engine.device import choose
from upres.worker.engine.device_thread import DeviceThread
from upres.worker.imaging.decoding import Decoders
from upres.worker.model import Model, open_folder, pull
from upres.worker.model_cache import ModelCache


@pytest.fixture(scope="module")
def pair(store: Store, tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Model]:
    """The models `plain` and `strong`, of which the second was pushed: its base goes with it."""
    made = mixable.pair(tmp_path_factory.mktemp("pair"))
    registry_changes.push(store, made[1].files["golden.png"].parent)
    return made


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(5).integers(0, 256, (24, 32, 3), np.uint8))


def pixels(model: Model, picture: Image.Image) -> np.ndarray:
    with engine_of(model, 640) as engine:
        return engine.upscale(np.asarray(picture), 2).astype(int)


def test_each_strength_gives_its_own_result_and_the_result_says_it(
    client: Client, pair: tuple[Model, Model], picture: Image.Image
) -> None:
    _base, strong = pair
    image = encoded(picture, "PNG")
    seen = []
    for wanted, strength in ((None, 0.4), (0.4, 0.4), (0.0, 0.0), (0.71, 0.7), (1, 1.0)):
        done = client.upscale(image, 2, model="strong", strength=wanted)
        assert (done.result.model_digest, done.result.strength) == (strong.digest, strength)
        assert np.abs(np.asarray(opened(done.download())) - pixels(strong.at(strength), picture)).max() <= 1
        seen.append(done.result.sr_image_uri)
    assert seen[0] == seen[1], "the default is one piece of work, whether or not it is named"
    assert len(set(seen)) == 4
    plain = client.upscale(image, 2, model="plain")
    assert plain.result.strength is None
    faithful = opened(client.upscale(image, 2, model="strong", strength=0).download())
    assert np.array_equal(np.asarray(faithful), np.asarray(opened(plain.download())))


def test_a_strength_is_loaded_once(client: Client, pair: tuple[Model, Model], redis: Redis) -> None:
    notices: list[list[str]] = []
    for seed in (1, 2):
        found: list[str] = []

        def note(event: Event, found: list[str] = found) -> None:
            if isinstance(event, Progress) and event.notice:
                found.append(event.notice)

        image = encoded(Image.fromarray(np.full((9, 9, 3), seed, np.uint8)), "PNG")
        client.upscale(image, 2, model="strong", strength=0.9, on_event=note)
        notices.append(found)
    assert notices == [["Model strong 1 at strength 0.9 is being loaded."], []]
    known = f"{pair[1].digest}@0.9"
    wait_until(lambda: any(known in worker.digests for worker in workers.listing(redis)))
    named = {name for worker in workers.listing(redis) for name in worker.models}
    assert "strong 1 at strength 0.9" in named


def test_a_model_without_a_base_has_no_strength(client: Client, pair: tuple[Model, Model], png: bytes) -> None:
    for model in ("faithful", "plain"):
        with pytest.raises(RequestRefused, match=f"'{model}' 1 has no strength that can be chosen") as refused:
            client.submit(png, model=model, strength=0.5)
        assert refused.value.code == "unsupported_strength"
        asked = {"width": 9, "height": 9, "model": model, "strength": 0.5}
        answer = requests.post(f"{client.url}/v1/estimate", json=asked, timeout=20).json()
        assert (answer["accepted"], answer["code"]) == (False, "unsupported_strength")
    for wrong in (-0.1, 1.1, "strong", True, None):
        sent = {"image_url": "https://example.org/a.png", "model": "strong", "strength": wrong}
        refusal = requests.post(f"{client.url}/v1/jobs", json=sent, timeout=20)
        expected = (202, None) if wrong is None else (422, "invalid_strength")
        assert (refusal.status_code, refusal.json().get("code")) == expected
    assert client.estimate(9, 9, model="strong", strength=0.3).accepted


def test_the_list_of_models_says_whose_strength_can_be_chosen(client: Client, pair: tuple[Model, Model]) -> None:
    listed = requests.get(f"{client.url}/v1/models", timeout=20).json()["models"]
    found = {model["name"]: model.get("strength") for model in listed}
    assert (found["plain"], found["strong"], found["faithful"]) == (None, mixable.DEFAULT, None)
    details = requests.get(f"{client.url}/v1/models/strong", timeout=20).json()
    assert details["versions"][0]["strength"] == mixable.DEFAULT


def test_the_command_takes_a_strength_remotely_and_locally(
    client: Client, pair: tuple[Model, Model], picture: Image.Image, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(encoded(picture, "PNG"))
    remote = ["--server", client.url, "--model", "strong"]
    local = ["--local", "--model", str(pair[1].files["golden.png"].parent)]
    made = {}
    for number, options in enumerate((remote, local)):
        for strength in ("0.2", "0.8"):
            out = tmp_path / f"{number}" / strength
            command = [str(tmp_path / "a.png"), "--factor", "2", "--out", str(out), "--strength", strength, "--json"]
            done = upres(None, *command, *options)
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout.splitlines()[0])["strength"] == float(strength)
            with Image.open(out / "a_x2.png") as result:
                made[number, strength] = np.asarray(result).astype(int)
    for strength in ("0.2", "0.8"):
        assert np.abs(made[0, strength] - made[1, strength]).max() <= 1
    assert np.abs(made[0, "0.2"] - made[0, "0.8"]).max() > 5
    refused = upres(None, str(tmp_path / "a.png"), "--local", "--model", "faithful", "--strength", "0.5")
    assert refused.returncode != 0
    assert "'faithful' 1 has no strength" in refused.stderr


def test_a_job_of_an_older_function_has_the_default_strength(pair: tuple[Model, Model]) -> None:
    older = {name: value for name, value in message("0" * 32).items() if name != "strength"}
    assert [model.strength for model in JobMessage.model_validate(older).models] == [None]


def test_strengths_are_within_the_memory_budget(local: Local, store: Store, pair: tuple[Model, Model]) -> None:
    strong = pair[1]
    ref = ModelRef(version="1", digest=strong.digest, factors=(2, 4))
    settings = local.settings.model_copy(update={"model_megabytes": 2.5 * strong.bytes / 1e6})
    with DeviceThread() as thread, Decoders(1, 10_000_000) as decoders:
        cache = ModelCache(settings, store, choose("cpu"), thread, decoders)
        for strength in (0.1, 0.2, 0.3):
            with cache.use("strong", ref, strength) as loaded:
                assert loaded.model.strength == strength
        assert [model.strength for model in cache.ready()] == [0.2, 0.3]
        assert not cache.has(strong.digest)
        cache.keep({strong.digest})
        with cache.use("strong", ref):
            pass
        with cache.use("strong", ref, 0.5):
            pass
        assert [str(model) for model in cache.ready()] == ["strong 1", "strong 1 at strength 0.5"]


def test_a_version_whose_base_is_missing_or_changed_is_refused(
    store: Store, tmp_path: Path, pair: tuple[Model, Model]
) -> None:
    """The first folder has no base beside it; the second was made with another `plain` than the registry has."""
    mixable.pair(tmp_path / "alone", ("nowhere", "orphan"))
    (tmp_path / "alone" / "nowhere").rename(tmp_path / "away")
    with pytest.raises(ModelError, match="mixed with model 'nowhere' 1, which is neither in"):
        registry_changes.push(store, tmp_path / "alone" / "orphan" / "1")
    other = mixable.write(tmp_path / "changed", "plain", 9)
    mixable.write(tmp_path / "changed", "other", 2, other)
    with pytest.raises(ModelError, match="made with another model 'plain' 1 than the registry has"):
        registry_changes.push(store, tmp_path / "changed" / "other" / "1")


def test_a_fetched_version_brings_its_base(store: Store, tmp_path: Path, pair: tuple[Model, Model]) -> None:
    registry.fetch(store, "strong", "1", tmp_path / "here")
    assert open_folder(tmp_path / "here").base == open_folder(tmp_path / "here" / "base")
    pulled = pull(store, "strong", "1", tmp_path / "cache")
    assert pulled.base is not None
    assert pulled.base.digest == pair[0].digest
    assert served_models.read(store, "strong", "1").strength == mixable.DEFAULT


def test_the_command_mixes_folders_and_models_of_the_registry(
    local: Local, client: Client, pair: tuple[Model, Model], picture: Image.Image, tmp_path: Path
) -> None:
    mixable.write(tmp_path, "other", 2)
    ends = ["plain", str(tmp_path / "other" / "1")]  # `plain` is in the registry
    for name, *more in (("mixed",), ("chosen", "--adjustable")):
        out = tmp_path / name
        command = ["models", "mix", *ends, "--at", "0.3", "--name", name, "--out", str(out), *more]
        done = operator(local, *command)
        assert (done.returncode, f"{out}: {name} 1, factor 2, factor 4" in done.stdout) == (0, True), done.stderr
        assert operator(local, "models", "push", str(out)).returncode == 0
    wanted = pixels(pair[1].at(0.3), picture)
    image = encoded(picture, "PNG")
    for options in ({"model": "mixed"}, {"model": "chosen"}, {"model": "strong", "strength": 0.3}):
        enlarged = client.upscale(image, 2, **options)
        assert np.abs(np.asarray(opened(enlarged.download())) - wanted).max() <= 1
    assert "0.3" in operator(local, "models", "show", "chosen").stdout
    refused = operator(local, "models", "mix", "plain", "faithful", "--name", "x", "--out", str(tmp_path / "x"))
    assert refused.returncode == 1
    assert "Only weights of one architecture and factor can be mixed" in refused.stderr
    assert not (tmp_path / "x").exists()


def operator(local: Local, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, **local.environment, "COLUMNS": "200"}
    return subprocess.run([tool("upres"), *arguments], env=environment, capture_output=True, text=True, timeout=60)
