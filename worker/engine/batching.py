"""Which tiles go to the device together: pure policy, without threads, clock or device.

Each job in flight has a lane, first in, first out. Lanes take turns, and a batch is what stands at the
heads of the lanes, as far as it has one shape. So a thumbnail that comes after a scan of 400 tiles waits
for one batch, not for 400 tiles.
"""

from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

Work = TypeVar("Work")


class Batcher(Generic[Work]):
    """Lanes of waiting work, each item with the shape that it must share with others to be batched."""

    def __init__(self) -> None:
        self._lanes: OrderedDict[Hashable, deque[tuple[Hashable, Work]]] = OrderedDict()

    def add(self, lane: Hashable, shape: Hashable, work: Work) -> None:
        """Put work at the end of a lane; a lane that is new takes its turn after all others."""
        self._lanes.setdefault(lane, deque()).append((shape, work))

    def next_shape(self) -> Hashable | None:
        """The shape of the next batch: that of the lane whose turn it is. None when nothing waits."""
        return next((lane[0][0] for lane in self._lanes.values()), None)

    def take(self, shape: Hashable, limit: int) -> list[Work]:
        """At most `limit` items of this shape, one per lane and round; lanes that gave one go last."""
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
        """Forget what waits in a lane."""
        self._lanes.pop(lane, None)
