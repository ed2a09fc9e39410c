"""How long jobs take, as measured: a line through those of one model and factor, seconds over megapixels.

Ordinary least squares of which only the sums are kept; each job fades those before it, so that a line follows what
changes: other devices, more company.
"""

from typing import Any, Self

from pydantic import Field
from redis import Redis

from upres.core import keys
from upres.core.schema import TolerantModel

FADE = 0.95
"""What a job before the last counts less: after fourteen jobs half."""


class Rate(TolerantModel):
    """What is known about jobs of one model and factor."""

    jobs: float = Field(0, ge=0, description="How many, each the less the longer ago.")
    x: float = Field(0, description="Sum of the results' megapixels.")
    y: float = Field(0, description="Sum of the seconds.")
    xx: float = Field(0, description="Sum of the squares of the megapixels.")
    xy: float = Field(0, description="Sum of megapixels times seconds.")
    tile: int = Field(0, ge=0, description="Side of the latest job's windows, in input pixels.")

    def after(self, megapixels: float, seconds: float, tile: int) -> Self:
        """The rate when one more job is known."""
        return self.model_copy(
            update={
                "jobs": self.jobs * FADE + 1,
                "x": self.x * FADE + megapixels,
                "y": self.y * FADE + seconds,
                "xx": self.xx * FADE + megapixels**2,
                "xy": self.xy * FADE + megapixels * seconds,
                "tile": tile,
            }
        )

    def seconds(self, megapixels: float) -> float | None:
        """What a job of this size is expected to take; None as long as there was none."""
        if not self.jobs:
            return None
        spread = self.jobs * self.xx - self.x**2
        if spread > 1e-3 * self.x**2:
            slope = (self.jobs * self.xy - self.x * self.y) / spread
            base = (self.y - slope * self.x) / self.jobs
            if slope >= 0 and base >= 0:
                return base + slope * megapixels
        return self.xy / self.xx * megapixels  # all of one size, or noise: a line through the origin


def note(connection: Redis, digest: str, factor: int, size: tuple[int, int], seconds: float, tile: int) -> None:
    """A job made a result of (width, height) pixels. Of two that end at once, one may not be counted."""
    rate = read(connection, digest, factor).after(size[0] * size[1] / 1e6, seconds, tile)
    connection.set(keys.rate(digest, factor), rate.model_dump_json(), ex=keys.RATE_SECONDS)


def read(connection: Redis, digest: str, factor: int) -> Rate:
    """What is known of a model version and a factor."""
    raw: Any = connection.get(keys.rate(digest, factor))
    return Rate.model_validate_json(raw) if raw else Rate()
