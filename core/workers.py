"""The records that workers publish with every heartbeat: state, device, models and jobs."""

from typing import Annotated, Any, Literal

from pydantic import Field
from redis import Redis

from upres.core import keys
from upres.core.schema import TolerantModel
from upres.core.script import call
from upres.core.tolerance import OrUnknown, readable


class Worker(TolerantModel):
    """The record of one worker process."""

    name: str = Field(description="Name of the worker: host, process id, and six random hexadecimal digits.")
    state: Annotated[Literal["ready", "stopping"], OrUnknown()] = Field(
        description="State of the worker; a stopping one takes no more jobs."
    )
    device: str = Field(description="Product name of the worker's processor.")
    kind: str = Field("", description="Kind of the device: cuda, mps or cpu.")
    memory_used: int = Field(0, ge=0, description="Bytes of the device's memory that are in use, by any process.")
    memory_total: int = Field(0, ge=0, description="Bytes of memory that the device has; 0 when unknown.")
    models: tuple[str, ...] = Field(description="Names and versions of the models that the worker has ready.")
    digests: tuple[str, ...] = Field(
        description="SHA-256 of the manifests of these models, in the same order; followed by @ and the strength if it "
        "is not the version's default."
    )
    on_request: tuple[str, ...] = Field(
        (),
        description="SHA-256 of the manifests of served versions that the worker has checked, and loads when a job "
        "asks: its memory budget does not hold them.",
    )
    troubles: tuple[str, ...] = Field((), description="Why it cannot load versions that labels mean, its own fault.")
    weights_budget: int = Field(0, ge=0, description="Bytes of weights that the worker keeps in memory; 0: unknown.")
    weights_served: int = Field(0, ge=0, description="Bytes of weights of all versions that it serves by default.")
    slots: int = Field(ge=1, description="Number of jobs that the worker runs at once.")
    jobs: tuple[str, ...] = Field(description="Ids of the jobs that the worker holds.")


def publish(connection: Redis, worker: Worker) -> None:
    """Publish a worker's record for keys.WORKER_SECONDS; each heartbeat publishes it again."""
    call(connection, "publish_worker", worker.name, worker.model_dump_json())


def deregister(connection: Redis, name: str) -> None:
    """Delete the record of a worker that has ended."""
    connection.zrem(keys.WORKERS, name)
    connection.delete(keys.worker(name))


def listing(connection: Redis) -> list[Worker]:
    """Return the records of all workers that have not expired, by name."""
    names: Any = connection.zrange(keys.WORKERS, 0, -1)
    records: Any = (
        connection.mget([keys.worker(name.decode(errors="replace")) for name in sorted(names)]) if names else []
    )
    return readable(Worker, records)
