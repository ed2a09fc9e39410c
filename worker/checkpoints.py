"""Checkpoints: finished rows of a long job in the object store, so that the next attempt continues below them.

Each checkpoint is a PNG file with a band of rows, in order from the top; the rows of an animation are counted over all
its frames. Redis lists them until the job ends. The files
are deleted when the result is stored; otherwise they expire.
"""

import logging
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import NamedTuple, cast

from redis import Redis

from upres.core import keys
from upres.core.errors import ImageError, StoreUnavailable, UndecodableImage
from upres.core.leases import Lease
from upres.core.logs import JobLog
from upres.core.script import call
from upres.core.storage import ObjectNotFound, Store
from upres.worker.enlarging import BandKind
from upres.worker.imaging import images
from upres.worker.imaging.encode import Encoders
from upres.worker.samples import Samples

LONG_SECONDS = 60
"""Jobs that are expected to take longer than this many seconds get checkpoints; shorter ones are simply done again."""

PARTS = ["parts", "parts_of"]
"""Fields of the job's hash in Redis: the rows of its checkpoints, and the piece of work that they belong to."""
MAX_PIXELS = 10**9
"""Limit of pixels when a checkpoint is decoded. It is never reached, because upres itself wrote the file."""

log = logging.getLogger("upres.worker")


class Rows(NamedTuple):
    """A half-open range [first, last) of output rows."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


def _rows(part: bytes) -> Rows | None:
    """Read the rows of a checkpoint; None for what Redis has in another form."""
    found = re.fullmatch(rb"([0-9]{1,9})-([0-9]{1,9})", part)
    rows = Rows(int(found[1]), int(found[2])) if found else None
    return rows if rows and rows.first < rows.last else None


class Checkpoints:
    """The checkpoints of one job: those of earlier attempts, then those of this one. `work` is its key of keys.work."""

    def __init__(self, connection: Redis, store: Store, encoders: Encoders, lease: Lease, work: str) -> None:
        self._connection, self._store, self._encoders, self._lease = connection, store, encoders, lease
        self._work = work
        self._kept: list[Rows] = []
        self._keeping: Future[object] | None = None

    @property
    def rows(self) -> int:
        """Number of output rows, from the top, that have a checkpoint."""
        return self._kept[-1].last if self._kept else 0

    def load(self, kind_at: Callable[[int], BandKind]) -> Iterator[Samples]:
        """Yield the rows of earlier attempts, in bands, up to the first one that cannot be read or is of another kind.

        `kind_at` says what a band must be that begins at a row: the pages of a file differ in size and depth. Yields
        nothing when they belong to another piece of work, because the image at an image_url may have changed.
        """
        if self._lease.attempt == 1:
            return
        parts, work = cast("list[bytes | None]", self._connection.hmget(keys.run(self._lease.job_id), PARTS))
        for part in (parts or b"").split(b",") if parts and work == self._work.encode() else ():
            rows = _rows(part)
            if rows is None or rows.first != self.rows:  # a gap would put pixels into the wrong place
                JobLog(log, self._lease.job_id).warning("checkpoints are ignored from %.40r on", part)
                return
            try:
                band = images.read(self._store.get(self._key(rows)), MAX_PIXELS).samples
                most, *row = (kind := kind_at(rows.first)).shape
                if band.shape != (min(most, rows.last - rows.first), *row) or band.dtype != kind.dtype:
                    raise UndecodableImage(f"its pixels are {band.shape}, {band.dtype}")
            except (ObjectNotFound, StoreUnavailable, ImageError) as error:
                JobLog(log, self._lease.job_id).warning("checkpoint %s is lost (%s)", rows, error)
                return
            self._kept.append(rows)
            yield band

    def keep(self, band: Samples) -> None:
        """Store the next rows as a checkpoint, in the background, after waiting for the checkpoint before."""
        self.wait()
        rows = Rows(self.rows, self.rows + len(band))
        self._kept.append(rows)
        parts = ",".join(map(str, self._kept))
        self._keeping = self._encoders.background(lambda: self._put(rows, band, parts))

    def wait(self) -> None:
        """Wait until the last checkpoint is stored. An error is logged; a job does not fail because of it."""
        if self._keeping and (error := self._keeping.exception()):
            JobLog(log, self._lease.job_id).warning("a checkpoint could not be kept (%s)", error)
        self._keeping = None

    def drop(self) -> None:
        """Delete the files of all checkpoints. Files that cannot be deleted expire later."""
        self.wait()
        try:
            self._store.delete([self._key(rows) for rows in self._kept])
        except StoreUnavailable as error:
            JobLog(log, self._lease.job_id).warning("checkpoints are left (%s)", error)

    def _put(self, rows: Rows, band: Samples, parts: str) -> None:
        self._store.put(self._key(rows), self._encoders.png(band), "image/png")
        call(self._connection, "checkpoint", self._lease.job_id, self._lease.holder, self._work, parts)

    def _key(self, rows: Rows) -> str:
        return keys.checkpoint(self._lease.job_id, self._work, str(rows))
