"""Finished rows of a long job, kept in the store, so that the next attempt goes on where this one died.

Rows are kept as PNG files, in order from the top. Redis knows which there are, for as long as the job has
not ended; the files are deleted at its end, or expire.
"""

import logging
from collections.abc import Iterator
from concurrent.futures import Future
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt
from redis import Redis

from upres.core import keys
from upres.core.errors import ImageError, StoreUnavailable
from upres.core.leases import Lease
from upres.core.logs import JobLog
from upres.core.script import call
from upres.core.storage import ObjectNotFound, Store
from upres.worker.imaging import images
from upres.worker.imaging.encode import Encoders

Pixels = npt.NDArray[np.uint8]

LONG_SECONDS = 60
"""Jobs that are expected to take longer are kept; others are done again as quickly."""

PARTS = ["parts", "parts_of"]
MAX_PIXELS = 10**9
"""No limit: these files are our own."""

log = logging.getLogger("upres.worker")


class Rows(NamedTuple):
    """Rows [first, last) of the output."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


class Checkpoints:
    """What earlier attempts at a job left, and what this one leaves."""

    def __init__(self, connection: Redis, store: Store, encoders: Encoders, lease: Lease, work: str) -> None:
        self._connection, self._store, self._encoders, self._lease = connection, store, encoders, lease
        self._work = work
        self._kept: list[Rows] = []
        self._keeping: Future[object] | None = None

    @property
    def rows(self) -> int:
        """How many rows from the top there are."""
        return self._kept[-1].last if self._kept else 0

    def load(self) -> Iterator[Pixels]:
        """The rows that are there, in bands (rows, width, 3); fewer when the store lost some.

        None when they are of another piece of work: what an address delivers may have changed.
        """
        if self._lease.attempt == 1:
            return
        parts, work = cast("list[bytes | None]", self._connection.hmget(keys.run(self._lease.job_id), PARTS))
        for part in (parts or b"").decode().split(",") if parts and work == self._work.encode() else ():
            rows = Rows(*map(int, part.split("-")))
            try:
                band = images.decode(self._store.get(self._key(rows)), MAX_PIXELS).pixels
            except (ObjectNotFound, StoreUnavailable, ImageError) as error:
                JobLog(log, self._lease.job_id).warning("checkpoint %s is lost (%s)", rows, error)
                return
            self._kept.append(rows)
            yield band

    def keep(self, band: Pixels) -> None:
        """Store the rows that follow those kept so far, in the background; one band at a time."""
        self.wait()
        rows = Rows(self.rows, self.rows + len(band))
        self._kept.append(rows)
        parts = ",".join(map(str, self._kept))
        self._keeping = self._encoders.background(lambda: self._put(rows, band, parts))

    def wait(self) -> None:
        """Until what is being stored is stored. Losing a checkpoint is no reason to fail."""
        if self._keeping and (error := self._keeping.exception()):
            JobLog(log, self._lease.job_id).warning("a checkpoint could not be kept (%s)", error)
        self._keeping = None

    def drop(self) -> None:
        """Delete the files; what cannot be deleted expires."""
        self.wait()
        try:
            self._store.delete([self._key(rows) for rows in self._kept])
        except StoreUnavailable as error:
            JobLog(log, self._lease.job_id).warning("checkpoints are left (%s)", error)

    def _put(self, rows: Rows, band: Pixels, parts: str) -> None:
        self._store.put(self._key(rows), self._encoders.png(band), "image/png")
        call(self._connection, "checkpoint", self._lease.job_id, self._lease.holder, self._work, parts)

    def _key(self, rows: Rows) -> str:
        return keys.checkpoint(self._lease.job_id, self._work, str(rows))
