"""Jobs with a model of factor 1, alone and before an enlargement, over HTTP."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import requests
from PIL import Image
from redis import Redis

from tests.support import overflowing
from tests.support.cleaners import blur, imported
from tests.support.command import upres
from tests.support.engines import engine_of
from tests.support.images import encoded, opened
from tests.support.leasing import message
from tests.support.pushing import Pushed
from tests.support.servers import function
from tests.support.waiting import wait_until
from upres.client import Client
from upres.client.batch import Callbacks
from upres.client.errors import JobFailed, RequestRefused
from upres.client.protocol import noop
from upres.core import api_keys, keys, rates, registry, registry_changes, served_models
from upres.core.errors import InvalidRequest
from upres.core.job_message import JobMessage
from upres.core.manifest import Rule, schema_version
from upres.core.schema import Event, Progress
from upres.core.served_models import ModelRef, ServedModel
from upres.core.storage import Store
from upres.embedded.stack import Local
from upres.models.inprocess import InProcess
from upres.worker.engine.device import choose
from upres.worker.engine.device_thread import DeviceThread
from upres.worker.imaging.decoding import Decoders
from upres.worker.model import Model
from upres.worker.model_cache import ModelCache

NOBODY = ServedModel(labels={})


@pytest.fixture(scope="module")
def cleaner(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Model:
    model = imported(tmp_path_factory.mktemp("cleaner"), "clean", blur())
    registry_changes.push(store, model.files[model.manifest.networks[0].file].parent)
    return model


@pytest.fixture(scope="module")
def shown() -> Image.Image:
    """32 × 24 pixels of noise with alpha that differs from pixel to pixel."""
    return Image.fromarray(np.random.default_rng(0).integers(1, 256, (24, 32, 4), np.uint8))


@pytest.fixture(scope="module")
def by_hand(cleaner: Model, model: Model, shown: Image.Image) -> Iterator[dict[int, np.ndarray]]:
    """The pixels that the engine makes of `shown` after the cleaner, by factor."""
    with engine_of(cleaner, 640) as first, engine_of(model, 640) as main:
        cleaned = first.upscale(np.asarray(shown), 1)
        yield {1: cleaned, 2: main.upscale(cleaned, 2)}


def difference(image: Image.Image, expected: np.ndarray) -> int:
    return int(np.abs(np.asarray(image).astype(int) - expected).max())


def test_a_model_with_factor_one_is_used_alone(
    client: Client, cleaner: Model, shown: Image.Image, by_hand: dict[int, np.ndarray]
) -> None:
    done = client.upscale(encoded(shown, "PNG"), 1, model="clean")
    assert (done.result.upscale_factor, done.result.width, done.result.height) == (1, 32, 24)
    assert done.result.file_name.endswith("_x1.png")
    result = opened(done.download())
    assert difference(result, by_hand[1]) <= 1
    assert (np.asarray(result)[..., 3] == np.asarray(shown)[..., 3]).all()
    original = opened(client.download(done.result, "original"))
    assert difference(original, np.asarray(shown)) == 0, "the bicubic enlargement by 1 is the image"


def test_a_model_with_factor_one_is_applied_before_another(
    client: Client, cleaner: Model, shown: Image.Image, by_hand: dict[int, np.ndarray]
) -> None:
    seen: list[Event] = []
    plain = client.upscale(encoded(shown, "PNG"), 2)
    done = client.upscale(encoded(shown, "PNG"), 2, first_model="clean", on_event=seen.append)
    again = client.upscale(encoded(shown, "PNG"), 2, first_model="clean")
    result = done.result
    assert (result.model, result.first_model, result.first_model_version) == ("faithful", "clean", "1")
    assert result.first_model_digest == cleaner.digest
    assert (plain.result.first_model, plain.result.first_model_digest) == (None, None)
    assert again.result.sr_image_uri == result.sr_image_uri != plain.result.sr_image_uri
    assert difference(opened(done.download()), by_hand[2]) <= 1
    originals = [opened(client.download(one.result, "original")) for one in (plain, done)]
    assert difference(originals[0], np.asarray(originals[1])) == 0
    progress = [event for event in seen if isinstance(event, Progress)]
    assert max(event.tiles_total for event in progress) == 2
    assert [event.percent for event in progress] == sorted(event.percent for event in progress)


def test_models_and_factors_that_do_not_go_together_are_refused(client: Client, cleaner: Model, png: bytes) -> None:
    for options, code, says in (
        (
            {"model": "clean"},
            "unsupported_factor",
            r"does not enlarge. Send upscale_factor 1; or name it in first_model",
        ),
        ({"first_model": "faithful"}, "unsupported_factor", r"first_model must have factor 1; model 'faithful' 1"),
        ({"first_model": "nothing"}, "unknown_model", r"no model 'nothing'; available: "),
        ({"first_model": "No name"}, "unknown_model", r"first_model must be the name of a model"),
    ):
        fields: dict[str, Any] = {"factor": 4, **options}
        with pytest.raises(RequestRefused, match=says) as refused:
            client.submit(png, **fields)
        assert refused.value.code == code
        asked = {"upscale_factor": fields.pop("factor"), **fields, "width": 9, "height": 9}
        answer = requests.post(f"{client.url}/v1/estimate", json=asked, timeout=20).json()
        assert answer["code"] == code


def test_the_estimate_counts_both_models(
    local: Local, client: Client, redis: Redis, store: Store, cleaner: Model
) -> None:
    _, digest = registry.manifest(store, "faithful", "1")
    ours = (keys.rate(digest, 4), keys.rate(cleaner.digest, 1), keys.rate(digest, 4, first_digest=cleaner.digest))
    redis.delete(*ours)
    rates.note(redis, digest, 4, 1_000_000, 2.0, 640)
    assert client.estimate(250, 250, first_model="clean").seconds is None
    rates.note(redis, cleaner.digest, 1, 62_500, 0.5, 128)
    both = client.estimate(250, 250, first_model="clean")
    assert (both.seconds, both.tiles) == (2.5, 4 + 1)
    assert client.estimate(250, 250, first_model="clean", ensemble=True).seconds == 20
    rates.note(redis, digest, 4, 1_000_000, 3.0, 640, False, cleaner.digest, 640)
    both, plain = (client.estimate(250, 250, first_model=first) for first in ("clean", None))
    assert ((both.seconds, both.tiles), (plain.seconds, plain.tiles)) == ((3, 2), (2, 1))
    redis.delete(*ours)


def test_pixels_of_both_models_count_for_the_quota(local: Local, redis: Redis, cleaner: Model, tmp_path: Path) -> None:
    _, key = api_keys.create(redis, "somebody", megapixels_per_day=1)
    file = encoded(Image.effect_noise((300, 200), 50).convert("RGB"), "PNG")
    for url in function(local, tmp_path, UPRES_ACCESS="keys"):
        with Client(url, key) as client:
            asked = [client.estimate(300, 200, 4, first_model=first) for first in (None, "clean")]
            assert [(one.accepted, one.code) for one in asked] == [(True, None), (False, "quota_exceeded")]
            with pytest.raises(JobFailed) as failed:
                client.upscale(file, 4, first_model="clean")
            assert failed.value.code == "quota_exceeded"


@pytest.mark.parametrize("missing", ["first_model", "first_model_version", "first_model_digest"])
def test_a_job_message_has_all_of_a_first_model_or_nothing(missing: str) -> None:
    first = {"first_model": "clean", "first_model_version": "1", "first_model_digest": "d"}
    whole = JobMessage.model_validate(message("0" * 32, **first))
    assert [model.name for model in whole.models] == ["clean", "faithful"]
    older = whole.model_dump(exclude=set(first))
    assert [model.name for model in JobMessage.model_validate(older).models] == ["faithful"]
    with pytest.raises(ValueError, match="go together"):
        JobMessage.model_validate({**whole.model_dump(), missing: None})


def test_a_failure_counts_for_the_model_that_was_at_work(
    client: Client, redis: Redis, store: Store, png: bytes, tmp_path: Path
) -> None:
    """Both models are canaries, and their output for bright images is infinite; the first one meets it first."""
    names = {1: "first-canary", 2: "main-canary"}
    for factor, name in names.items():
        for version in ("1", "2"):
            folder = tmp_path / name / version
            folder.mkdir(parents=True)
            network = overflowing.write(folder, factor)
            fields = Pushed(store, name, folder).fields | {"networks": [network], "golden": [], "version": version}
            (folder / "manifest.json").write_text(
                json.dumps({**fields, "schema_version": schema_version([factor], mixed=False)})
            )
            registry_changes.push(store, folder)
    used: dict[str, Any] = {"model": names[2], "first_model": names[1]}
    client.upscale(
        encoded(Image.new("RGB", (24, 20)), "PNG"), 2, **used
    )  # a worker that has the models watches their labels
    rule = Rule(jobs=1000, most_failed_percent=99)
    for name in names.values():
        registry_changes.relabel(store, name, {"canary": "2"}, 100, rule)
    wait_until(
        lambda: all("canary" in (served_models.published(redis, one) or NOBODY).labels for one in names.values())
    )
    black, bright = (encoded(Image.new("RGB", (20, 20), colour), "PNG") for colour in ("black", "silver"))
    result = client.upscale(black, 2, **used).result
    assert (result.model_version, result.first_model_version) == ("2", "2")
    with pytest.raises(JobFailed) as failed:
        client.upscale(bright, 2, **used)
    assert failed.value.code == "output_not_finite"
    counts = [cast("dict[bytes, bytes]", redis.hgetall(keys.outcomes(name))) for name in names.values()]
    ends = [{field.rpartition(b":")[2]: int(count) for field, count in one.items()} for one in counts]
    assert ends == [{b"well": 1, b"failed": 1}, {b"well": 1}]


def test_jobs_that_use_two_models_in_either_order_do_not_wait_for_each_other(
    local: Local, store: Store, cleaner: Model, tmp_path: Path
) -> None:
    """Each holds its first model, before it asks for the other; the memory is for less than one."""
    other = imported(tmp_path, "clean-half", blur(0.5))
    registry_changes.push(store, tmp_path / "clean-half")
    settings = local.settings.model_copy(update={"model_megabytes": 1e-6})
    refs = {model.manifest.name: ModelRef(version="1", digest=model.digest, factors=(1,)) for model in (cleaner, other)}
    both = threading.Barrier(2)

    def use(*names: str) -> int:
        with models.use(names[0], refs[names[0]]):
            both.wait(60)
            with models.use(names[1], refs[names[1]]) as loaded:
                both.wait(60)
                return loaded.engine.upscale(np.zeros((8, 8, 3), np.uint8), 1).size

    with DeviceThread() as thread, Decoders(2, 1_000_000) as decoders, ThreadPoolExecutor(2) as pool:
        models = ModelCache(settings, store, choose("cpu"), thread, decoders)
        found = [pool.submit(use, *names) for names in (("clean", "clean-half"), ("clean-half", "clean"))]
        assert [one.result(120) for one in found] == [192, 192]
        assert models.ready() == []


def test_the_command_takes_a_first_model_and_does_not_mix_results(
    local: Local, cleaner: Model, shown: Image.Image, by_hand: dict[int, np.ndarray], tmp_path: Path
) -> None:
    shown.save(tmp_path / "noise.png")
    made = []
    for options, skipped in ((), 0), (["--first-model", "clean"], 0), (["--first-model", "clean"], 1):
        done = upres(local, "noise.png", "--factor", 2, "--out", "big", "--json", *options, cwd=tmp_path)
        assert json.loads(done.stdout.splitlines()[-1])["summary"]["skipped"] == skipped
        made.append((tmp_path / "big" / "noise_x2.png").read_bytes())
    assert made[0] != made[1] == made[2]
    told = upres(local, "--estimate", "--json", "noise.png", "--first-model", "clean", cwd=tmp_path)
    assert json.loads(told.stdout.splitlines()[0])["tiles"] == 2


def test_the_local_engine_takes_folders_of_versions(
    cleaner: Model, shown: Image.Image, by_hand: dict[int, np.ndarray], tmp_path: Path
) -> None:
    shown.save(tmp_path / "noise.png")
    folder = cleaner.files[cleaner.manifest.networks[0].file].parent
    models = ["--first-model", folder, "--model", "faithful"]
    done = upres(None, "noise.png", "--local", "--factor", 2, *models, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert difference(Image.open(tmp_path / "noise_x2.png"), by_hand[2]) <= 1
    result = InProcess(1, {"model": str(folder)}).enlarge(str(tmp_path / "noise.png"), Callbacks(noop, noop)).result
    assert (result.model, result.width, result.first_model) == ("clean", 32, None)
    with pytest.raises(InvalidRequest, match="does not enlarge"):
        InProcess(4, {"model": str(folder)})
