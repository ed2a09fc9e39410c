"""Expected durations of jobs: for each model and factor a line of seconds over megapixels, fitted to measured jobs.

The fit is ordinary least squares, of which only the sums are stored. Each new job reduces the weight of earlier jobs,
so that the line follows changes such as another device or a higher load.
"""

from typing import Any, Self

from pydantic import Field
from redis import Redis

from upres.core import keys
from upres.core.schema import TolerantModel
from upres.core.tolerance import or_none

FADE = 0.95
"""Factor by which each new job reduces the weight of all earlier jobs; after 14 jobs a weight is halved."""


class Rate(TolerantModel):
    """The statistics of the jobs of one model and factor. All sums are weighted."""

    jobs: float = Field(0, ge=0, description="Sum of the jobs' weights.")
    x: float = Field(0, description="Sum of the results' megapixels.")
    y: float = Field(0, description="Sum of the jobs' seconds.")
    xx: float = Field(0, description="Sum of the squares of the megapixels.")
    xy: float = Field(0, description="Sum of the products of megapixels and seconds.")
    tile: int = Field(0, ge=0, description="Side of the latest job's windows in input pixels; 0 before the first job.")
    first_tile: int = Field(0, ge=0, description="The same for the model that was applied before; 0 without one.")

    def after(self, megapixels: float, seconds: float, tile: int, first_tile: int = 0) -> Self:
        """Return the statistics with one more job added."""
        return self.model_copy(
            update={
                "jobs": self.jobs * FADE + 1,
                "x": self.x * FADE + megapixels,
                "y": self.y * FADE + seconds,
                "xx": self.xx * FADE + megapixels**2,
                "xy": self.xy * FADE + megapixels * seconds,
                "tile": tile,
                "first_tile": first_tile,
            }
        )

    def seconds(self, megapixels: float) -> float | None:
        """Return the expected seconds of a job whose result has this size; None before the first job."""
        if not self.jobs:
            return None
        spread = self.jobs * self.xx - self.x**2
        if spread > 1e-3 * self.x**2:
            slope = (self.jobs * self.xy - self.x * self.y) / spread
            base = (self.y - slope * self.x) / self.jobs
            if slope >= 0 and base >= 0:
                return base + slope * megapixels
        # All jobs have one size, or noise gave a negative slope or base: use a line through the origin.
        return self.xy / self.xx * megapixels


def note(
    connection: Redis,
    digest: str,
    factor: int,
    pixels: int,
    seconds: float,
    tile: int,
    ensemble: bool = False,
    first_digest: str | None = None,
    first_tile: int = 0,
) -> None:
    """Add a finished job, whose result has so many pixels, to the statistics.

    Reading and writing are not atomic: of two jobs that end at the same time, one may be lost.
    """
    before = read(connection, digest, factor, ensemble, first_digest)
    rate = before.after(pixels / 1e6, seconds, tile, first_tile)
    connection.set(keys.rate(digest, factor, ensemble, first_digest), rate.model_dump_json(), ex=keys.RATE_SECONDS)


def read(connection: Redis, digest: str, factor: int, ensemble: bool = False, first_digest: str | None = None) -> Rate:
    """Read the statistics of a model version, a factor, ensemble, and perhaps a model that is applied before.

    The models are given by their digests. Returns empty statistics when there are none that this release can read.
    """
    raw: Any = connection.get(keys.rate(digest, factor, ensemble, first_digest))
    return (or_none(Rate, raw) if raw else None) or Rate()
