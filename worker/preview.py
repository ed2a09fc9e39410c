"""What is finished of a result, small, for whoever watches: pieces as JPEG files, in Redis while the job runs.

All pieces together have at most SIDE × SIDE pixels, whatever the size of the result.
"""

import base64
import io

from PIL import Image
from redis import Redis

from upres.core.api import PreviewTile
from upres.core.leases import Lease
from upres.core.script import call
from upres.worker.engine.engine import Pixels

SIDE = 1024
"""Pixels of the longer side: sharp on a screen beside other things."""
QUALITY = 80


class Preview:
    """Shows a result of (width, height) pixels while it is being made."""

    def __init__(self, connection: Redis, lease: Lease, size: tuple[int, int]) -> None:
        self._connection, self._lease = connection, lease
        self._scale = min(1.0, SIDE / max(size))
        self._size = (self._scaled(size[0]), self._scaled(size[1]))
        call(connection, "preview", lease.job_id, lease.holder, "")

    def add(self, top: int, left: int, pixels: Pixels) -> None:
        """Show a piece, (height, width, 3), that lies there in the result."""
        x, y = self._scaled(left), self._scaled(top)
        width, height = self._scaled(left + pixels.shape[1]) - x, self._scaled(top + pixels.shape[0]) - y
        if not (width and height):
            return
        small = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2)
        file = io.BytesIO()
        small.save(file, "JPEG", quality=QUALITY)
        image = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
        tile = PreviewTile(
            of_width=self._size[0], of_height=self._size[1], x=x, y=y, width=width, height=height, image=image
        )
        call(self._connection, "preview", self._lease.job_id, self._lease.holder, tile.model_dump_json())

    def _scaled(self, pixels: int) -> int:
        return round(pixels * self._scale)
