"""`upres workers`: lists workers with their devices, models and jobs."""

from typing import TYPE_CHECKING, Any

import click

from upres.console.terminal import connection, print_table, row, table
from upres.core import keys
from upres.core.schema import Progress

if TYPE_CHECKING:
    from redis import Redis

    from upres.core.workers import Worker

HELP = """List the workers: device, memory, models, and the progress of their jobs.

Workers report their state every two seconds. Needs access to Redis (UPRES_REDIS_URL)."""
EPILOG = """\b
Exit codes: 0 success · 1 error · 2 wrong usage
"""


@click.command("workers", help=HELP, epilog=EPILOG)
def show() -> None:
    """See HELP."""
    from upres.core import workers

    listed = table("worker", "state", "device", "memory", "models", "slots", "jobs")
    with connection() as redis:
        for worker in workers.listing(redis):
            slots = f"{len(worker.jobs)} of {worker.slots}"
            row(
                listed,
                *(worker.name, worker.state, worker.device, _memory(worker)),
                *("\n".join(worker.models), slots, "\n".join(_jobs(redis, worker))),
            )
    print_table(listed, "No worker is there.")


def _memory(worker: "Worker") -> str:
    return f"{worker.memory_used / 1e9:.1f} of {worker.memory_total / 1e9:.1f} GB" if worker.memory_total else ""


def _jobs(redis: "Redis", worker: "Worker") -> list[str]:
    """One line per job of the worker: its id and its current stage."""
    with redis.pipeline(transaction=False) as pipeline:
        for job_id in worker.jobs:
            pipeline.xrevrange(keys.events(job_id), count=1)
        last: list[Any] = pipeline.execute()
    return [f"{job_id} {_stage(entries)}".rstrip() for job_id, entries in zip(worker.jobs, last, strict=True)]


def _stage(entries: Any) -> str:
    from upres.core import events

    entries = events.parse(entries)
    event = entries[0][1] if entries else None
    return f"{event.stage} {event.percent:.0f} %" if isinstance(event, Progress) else ""
