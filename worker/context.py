"""The objects that all jobs of a worker process share."""

from typing import NamedTuple

from redis import Redis

from upres.core.settings import Settings
from upres.core.storage import Store
from upres.worker.ended_jobs import EndedJobs
from upres.worker.engine.device import Device, Memory
from upres.worker.engine.device_thread import DeviceThread
from upres.worker.imaging.decoding import Decoders
from upres.worker.imaging.encode import Encoders
from upres.worker.label_watcher import LabelWatcher
from upres.worker.memory_budget import MemoryBudget
from upres.worker.model_cache import ModelCache
from upres.worker.outbox import OutboxThread


class WorkerContext(NamedTuple):
    """Connections, models, threads and child processes, ready before the first job is taken."""

    connection: Redis
    store: Store
    models: ModelCache
    thread: DeviceThread
    label_watcher: LabelWatcher
    decoders: Decoders
    encoders: Encoders
    ended_jobs: EndedJobs
    outbox_thread: OutboxThread
    settings: Settings
    device: Device
    memory: Memory
    budget: MemoryBudget
