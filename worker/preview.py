"""Previews of a running job: each finished piece of the result as a small JPEG file, in Redis until the job ends.

All pieces together have at most SIDE × SIDE pixels, whatever the size of the result.
"""

import base64
import io

from PIL import Image
from redis import Redis

from upres.core.api import PreviewTile
from upres.core.leases import Lease
from upres.core.script import call
from upres.core.sizes import Size
from upres.worker.samples import Samples, eight_bits

SIDE = 1024
"""Longer side of the preview in pixels: enough for a sharp image in a part of a screen."""
QUALITY = 80
"""JPEG quality, 0 to 100."""


class Preview:
    """Publishes the previews of one job. Deletes those of earlier attempts.

    `made` is the (width, height) of what the network makes, from which the pieces are; `size` that of the result, whose
    proportions the preview has.
    """

    def __init__(self, connection: Redis, lease: Lease, made: Size, size: Size) -> None:
        self._connection, self._lease = connection, lease
        scale = min(1.0, SIDE / max(size))
        self._size = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
        self._scale = (scale * size[0] / made[0], scale * size[1] / made[1])
        call(connection, "preview", lease.job_id, lease.holder, "")

    def add(self, top: int, left: int, pixels: Samples) -> None:
        """Publish a piece, (height, width, 3 or 4), whose top left corner is at this row and column of `made`."""
        x, y = self._scaled(left, top)
        right, bottom = self._scaled(left + pixels.shape[1], top + pixels.shape[0])
        width, height = right - x, bottom - y
        if not (width and height):
            return
        small = Image.fromarray(eight_bits(pixels)).resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2)
        file = io.BytesIO()
        if small.mode == "RGBA":
            small = Image.alpha_composite(Image.new("RGBA", small.size, "white"), small).convert("RGB")
        small.save(file, "JPEG", quality=QUALITY)
        image = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
        tile = PreviewTile(
            of_width=self._size[0], of_height=self._size[1], x=x, y=y, width=width, height=height, image=image
        )
        call(self._connection, "preview", self._lease.job_id, self._lease.holder, tile.model_dump_json())

    def _scaled(self, x: int, y: int) -> tuple[int, int]:
        return round(x * self._scale[0]), round(y * self._scale[1])
