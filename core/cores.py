"""The number of threads that may compute at once in this process: the one place that decides it."""

import math
import os

from upres.core import cgroups


def count() -> int:
    """Return how many threads may compute at once, at least 1: the least of three limits.

    They are the processors that this process may run on (sched_setaffinity(2)), the quotas of its control groups,
    rounded up, and OMP_NUM_THREADS. More threads than that only wait for each other, and make the kernel stop all
    threads of a group until its next period, also the one that renews leases.
    """
    quotas = (math.ceil(quota) for quota in cgroups.cpu_quotas())
    return max(1, min([_allowed(), *quotas, *_wanted()]))


def limit() -> int | None:
    """Return `count` where it is lower than the number of processors of the machine; else None.

    Libraries get it only then, because they know better than a number which threads of a whole machine are fastest.
    """
    found = count()
    return found if found < (os.cpu_count() or 1) else None


def _allowed() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _wanted() -> list[int]:
    """Return what OMP_NUM_THREADS says: a number, or one for each level of nesting, of which the first counts."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return [int(first)] if first.isdecimal() and int(first) > 0 else []
