"""Random images to enlarge: their bytes are sent in the request, or a slow server provides them under a URL."""

import io
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image

HOST = "127.0.0.2"
ENVIRONMENT = {"UPRES_FETCH_PRIVATE_NETWORKS": f"{HOST}/32"}
"""With this setting, workers may fetch images from HOST."""
SLOW = 0.5
"""Share of the images that come from a slow URL, so that workers are busy when they are killed."""
LARGE = 0.5
"""Share of the other images that take about 0.5 s to enlarge; the rest take about 0.01 s."""


def image(rng: random.Random, large: float = 0) -> bytes:
    """A random PNG file; `large` is the probability that it is a large one."""
    side = rng.randint(200, 320) if rng.random() < large else rng.randint(8, 48)
    out = io.BytesIO()
    pixels = np.random.default_rng(rng.getrandbits(64)).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(out, "PNG", compress_level=1)
    return out.getvalue()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """Respond to /SECONDS/NUMBER with the image of that number, after that many seconds."""
        _, seconds, number = self.path.split("/")
        data = image(random.Random(number))
        time.sleep(float(seconds))
        with suppress(OSError):  # the worker that sent the request was killed
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[str]:
    """Run the image server; yields its URL."""
    with ThreadingHTTPServer((HOST, 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://{HOST}:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def one(rng: random.Random, url: str) -> bytes | str:
    """A random image to submit: its bytes, or a URL that takes up to four seconds to respond."""
    if rng.random() < SLOW:
        return f"{url}/{rng.uniform(0.5, 4):.2f}/{rng.getrandbits(64)}"
    return image(rng, LARGE)
