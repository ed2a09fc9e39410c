"""One running upres for all tests: real Redis, real S3, real HTTP, the real model."""

import io
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
import requests
from hypothesis import settings
from PIL import Image
from redis import Redis

from tests.chaos import images
from tests.leasing import empty
from upres.client import Client
from upres.core import events, keys
from upres.core.queue import connect, open_queue
from upres.core.schema import Cancelled
from upres.core.storage import Store
from upres.embedded.stack import Local
from upres.worker.model import Model, open_folder

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from tests.browser import Visit

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "samples"
IMAGE_HOST = images.HOST
"""The one private address that the worker under test may fetch from; 127.0.0.1 stays refused."""

settings.register_profile("upres", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("upres")


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    environment = {
        **images.ENVIRONMENT,
        "UPRES_CACHE_DIR": str(tmp_path_factory.mktemp("cache")),
        "UPRES_MAX_INPUT_MEGABYTES": "1",
        "UPRES_MAX_INPUT_MEGAPIXELS": "1",
    }
    with Local(environment=environment) as running:
        yield running


@pytest.fixture
def client(local: Local) -> Iterator[Client]:
    with Client(local.url) as connected:
        yield connected


@pytest.fixture
def redis(local: Local) -> Iterator[Redis]:
    with connect(local.settings) as connection:
        yield connection


@pytest.fixture
def apart(local: Local) -> Iterator[Redis]:
    """A database that no worker looks at."""
    with Redis.from_url(local.settings.redis_url.removesuffix("/0") + "/1") as connection:
        empty(connection)
        yield connection
        connection.flushdb()


@pytest.fixture(scope="session")
def store(local: Local) -> Store:
    return local.store


@pytest.fixture(scope="session")
def model() -> Model:
    return open_folder(ROOT / "models" / "faithful" / "1")


@pytest.fixture(scope="session")
def weights(model: Model) -> Model:
    """The bundled model without its graphs."""
    networks = tuple(network.model_copy(update={"graph": None}) for network in model.manifest.networks)
    return model._replace(manifest=model.manifest.model_copy(update={"networks": networks}))


Post = Callable[..., requests.Response]


@pytest.fixture
def post(local: Local) -> Post:
    """POST /v1/jobs with these fields as JSON, and these headers."""

    def send(headers: dict[str, str] | None = None, **fields: Any) -> requests.Response:
        return requests.post(f"{local.url}/v1/jobs", json=fields, headers=headers, timeout=20)

    return send


@pytest.fixture(scope="module")
def held(local: Local) -> Iterator[None]:
    """No worker for a whole module: jobs stay queued."""
    local.stop("worker")
    yield
    with connect(local.settings) as connection:
        # What the tests left waiting would be fetched from the network.
        for job_id in cast("list[bytes]", connection.zrange(keys.DEADLINES, 0, -1)):
            events.append(connection, Cancelled(job_id=job_id.decode()))
        cast(Any, open_queue(connection)).empty()
    local.start("worker")


@pytest.fixture(scope="session")
def photo() -> Image.Image:
    """A small piece of a real photo, 64×48."""
    with Image.open(SAMPLES / "chelsea.png") as image:
        return image.convert("RGB").crop((130, 90, 194, 138))


_numbers = itertools.count()


@pytest.fixture
def png(photo: Image.Image) -> bytes:
    """The photo as a file, each time with another corner: the result of one that was seen is reused."""
    changed = photo.copy()
    number = next(_numbers)
    changed.putpixel((0, 0), (number % 256, number // 256, 0))
    return encoded(changed, "PNG")


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    from tests.browser import chromium  # only some tests need it

    with chromium() as running:
        yield running


@pytest.fixture
def visit(browser: "Browser") -> Iterator["Visit"]:
    """A visitor without a past; what the console complains about fails the test."""
    from tests.browser import Visit

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
    """An image file of some size, each time another."""
    numbers = iter(range(256))

    def make(name: str, size: tuple[int, int] = (120, 80)) -> Path:
        with Image.open(SAMPLES / "chelsea.png") as image:
            photo = image.convert("RGB").resize(size)
        photo.putpixel((0, 0), (next(numbers), 7, time.time_ns() % 256))
        (tmp_path / name).write_bytes(encoded(photo, "PNG"))
        return tmp_path / name

    return make


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def psnr(image: Image.Image, reference: Image.Image) -> float:
    difference = np.asarray(image.convert("RGB"), float) - np.asarray(reference.convert("RGB"), float)
    return float(10 * np.log10(255**2 / max(float(np.mean(difference**2)), 1e-9)))


Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def http_server(answer: Answer, host: str = IMAGE_HOST) -> Iterator[str]:
    """A real HTTP server whose GETs are answered by the function; yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer((host, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://{host}:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def body(data: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    """An answer with this body."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)

    return answer
