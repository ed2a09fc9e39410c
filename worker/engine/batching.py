"""Decides which windows form the next batch: pure policy, without threads, clock or device.

Each job in flight has a lane, which is a first-in-first-out queue. Lanes take turns. A batch takes windows of one shape
from the heads of the lanes. So a thumbnail that comes after a scan of 400 tiles waits for one batch, not for 400 tiles.
"""

from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

Work = TypeVar("Work")


class Batcher(Generic[Work]):
    """The lanes with the waiting work. Each item has a shape; only items of equal shape may share a batch."""

    def __init__(self) -> None:
        self._lanes: OrderedDict[Hashable, deque[tuple[Hashable, Work]]] = OrderedDict()

    def add(self, lane: Hashable, shape: Hashable, work: Work) -> None:
        """Append work to a lane. A new lane gets its turn after all other lanes."""
        self._lanes.setdefault(lane, deque()).append((shape, work))

    def next_shape(self) -> Hashable | None:
        """Return the shape of the next batch: the lane whose turn it is decides. None when nothing waits."""
        return next((lane[0][0] for lane in self._lanes.values()), None)

    def take(self, shape: Hashable, limit: int) -> list[Work]:
        """Take at most `limit` items of this shape, one per lane and round. A lane that gave one moves to the end."""
        batch: list[Work] = []
        while len(batch) < limit and (ready := [name for name, lane in self._lanes.items() if lane[0][0] == shape]):
            for name in ready[: limit - len(batch)]:
                lane = self._lanes[name]
                batch.append(lane.popleft()[1])
                self._lanes.move_to_end(name)
                if not lane:
                    del self._lanes[name]
        return batch

    def drop(self, lane: Hashable) -> None:
        """Remove a lane and all work that waits in it."""
        self._lanes.pop(lane, None)
