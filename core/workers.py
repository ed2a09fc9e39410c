"""What workers say of themselves, with every beat: who is there, ready or not, and with which jobs."""

from typing import Any, Literal

from pydantic import Field
from redis import Redis

from upres.core import keys
from upres.core.schema import TolerantModel
from upres.core.script import call


class Worker(TolerantModel):
    """One worker process."""

    name: str = Field(description="Host, process, and six random digits.")
    state: Literal["ready", "stopping"] = Field(description="A stopping one takes no more jobs.")
    device: str = Field(description="The processor, as its maker calls it.")
    kind: str = Field("", description="cuda, mps or cpu.")
    memory_used: int = Field(0, ge=0, description="Bytes of the device's memory that somebody uses.")
    memory_total: int = Field(0, ge=0, description="Bytes that it has.")
    models: tuple[str, ...] = Field(description="Names and versions of the models that it has ready.")
    digests: tuple[str, ...] = Field(description="SHA-256 of their manifests, in the same order.")
    slots: int = Field(ge=1, description="Jobs that it takes at once.")
    jobs: tuple[str, ...] = Field(description="Ids of the jobs in hand.")


def publish(connection: Redis, worker: Worker) -> None:
    """Say how a worker is; it is forgotten unless it says so again."""
    call(connection, "publish_worker", worker.name, worker.model_dump_json())


def deregister(connection: Redis, name: str) -> None:
    """A worker is gone."""
    connection.zrem(keys.WORKERS, name)
    connection.delete(keys.worker(name))


def listing(connection: Redis) -> list[Worker]:
    """All workers that said something lately, by name."""
    names: Any = connection.zrange(keys.WORKERS, 0, -1)
    records: Any = connection.mget([keys.worker(name.decode()) for name in sorted(names)]) if names else []
    return [Worker.model_validate_json(worker) for worker in records if worker]
