"""Fixtures of all tests, such as one running upres with a real Redis, S3 store, HTTP server and model."""

import itertools
import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from hypothesis import settings
from PIL import Image
from redis import Redis

from tests.chaos import images
from tests.support.devices import KIND
from tests.support.events import queued
from tests.support.images import encoded
from tests.support.leasing import empty
from tests.support.paths import MODEL, SAMPLES
from tests.support.without_worker import WithoutWorker
from upres.client import Client
from upres.core import events, keys
from upres.core.queue import connect
from upres.core.storage import Store
from upres.embedded.stack import Local
from upres.worker.imaging.decoding import Decoders
from upres.worker.model import Model, open_folder

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from tests.support.browser import Visit

settings.register_profile("upres", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("upres")

# A shell ignores SIGINT for background processes. Our child processes would inherit this, so we restore the default.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    environment = {
        **images.ENVIRONMENT,
        "UPRES_CACHE_DIR": str(tmp_path_factory.mktemp("cache")),
        "UPRES_DEVICE": KIND,
        "UPRES_MAX_INPUT_MEGABYTES": "1",
        "UPRES_MAX_INPUT_MEGAPIXELS": "1",
        "UPRES_MODEL": "faithful",  # pixels of results are compared with those of the fixture `model`
    }
    with Local(environment=environment) as running:
        yield running


@pytest.fixture(scope="session")
def without_worker(whole: Local) -> Iterator[WithoutWorker]:
    with WithoutWorker(whole) as running:
        yield running


@pytest.fixture(scope="module")
def local(request: pytest.FixtureRequest) -> Iterator[Local]:
    """The upres for the tests of a module; with the mark `without_worker` it has no worker, so jobs stay queued."""
    if not request.node.get_closest_marker("without_worker"):
        yield request.getfixturevalue("whole")
        return
    quiet: WithoutWorker = request.getfixturevalue("without_worker")
    yield quiet
    quiet.clear()


@pytest.fixture
def client(local: Local) -> Iterator[Client]:
    with Client(local.url) as connected:
        yield connected


@pytest.fixture
def redis(local: Local) -> Iterator[Redis]:
    with connect(local.settings) as connection:
        yield connection


@pytest.fixture
def isolated_redis(local: Local) -> Iterator[Redis]:
    """A Redis database that no worker uses."""
    with Redis.from_url(local.settings.redis_url.removesuffix("/0") + "/1") as connection:
        empty(connection)
        yield connection
        connection.flushdb()


@pytest.fixture
def job_id(redis: Redis) -> Iterator[str]:
    """A queued job that no worker runs: the test itself appends its events."""
    job_id = secrets.token_hex(16)
    events.append(redis, queued(job_id))
    yield job_id
    redis.delete(keys.events(job_id))


@pytest.fixture
def decoders() -> Iterator[Decoders]:
    """Decoders for two images of at most a megapixel at a time."""
    with Decoders(2, 1_000_000) as running:
        yield running


@pytest.fixture(scope="module")
def store(local: Local) -> Store:
    return local.store


@pytest.fixture(scope="session")
def model() -> Model:
    return open_folder(MODEL)


@pytest.fixture(scope="session")
def weights(model: Model) -> Model:
    """The bundled model with its weights only, without its graph files."""
    networks = tuple(network.model_copy(update={"graph": None}) for network in model.manifest.networks)
    return model._replace(manifest=model.manifest.model_copy(update={"networks": networks}))


Post = Callable[..., requests.Response]


@pytest.fixture
def post(local: Local) -> Post:
    """A function that sends POST /v1/jobs with the given fields as JSON and the given headers."""

    def send(headers: dict[str, str] | None = None, **fields: Any) -> requests.Response:
        return requests.post(f"{local.url}/v1/jobs", json=fields, headers=headers, timeout=20)

    return send


@pytest.fixture(scope="session")
def photo() -> Image.Image:
    """A 64×48 part of a real photo."""
    with Image.open(SAMPLES / "chelsea.png") as image:
        return image.convert("RGB").crop((130, 90, 194, 138))


_numbers = itertools.count()


@pytest.fixture
def png(photo: Image.Image) -> bytes:
    """The photo as a PNG file, each time with another corner pixel: upres reuses the result of an identical image."""
    changed = photo.copy()
    number = next(_numbers)
    changed.putpixel((0, 0), (number % 256, number // 256, 0))
    return encoded(changed, "PNG")


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    from tests.support.browser import chromium  # imported here because only some tests need it

    with chromium() as running:
        yield running


@pytest.fixture
def visit(browser: "Browser") -> Iterator["Visit"]:
    """A page in a new browser context, without cookies or storage; an error in its console fails the test."""
    from tests.support.browser import Visit

    with browser.new_context(viewport={"width": 1100, "height": 900}) as context:
        visiting = Visit(context.new_page())
        yield visiting
        assert visiting.wrong == []


@pytest.fixture
def page(visit: "Visit", local: Local) -> "Page":
    visit.page.goto(local.url)
    return visit.page


@pytest.fixture
def draw(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a PNG file of the given size; each file has different content."""
    numbers = iter(range(256))

    def make(name: str, size: tuple[int, int] = (120, 80)) -> Path:
        with Image.open(SAMPLES / "chelsea.png") as image:
            photo = image.convert("RGB").resize(size)
        photo.putpixel((0, 0), (next(numbers), 7, time.time_ns() % 256))
        (tmp_path / name).write_bytes(encoded(photo, "PNG"))
        return tmp_path / name

    return make
