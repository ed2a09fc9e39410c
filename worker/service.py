"""A worker's life: model from the store, network on the device, warm; only then jobs, until it is told to stop."""

import logging
import socket
import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from redis.exceptions import RedisError
from rq.job import Job
from rq.worker import SimpleWorker

from core import keys
from core.errors import QueueUnavailable
from core.queue import connect, connect_quickly, open_queue
from core.settings import Settings
from core.storage import Store
from worker import job, registry
from worker.device import choose
from worker.engine import Engine

log = logging.getLogger("upres.worker")


class AllowedJob(Job):
    """A job that can only call what this worker offers.

    RQ's own would import any dotted name found in Redis, as its function or as a callback, and post
    to any address found there as a webhook.
    """

    functions: ClassVar[dict[str, Callable[..., Any]]] = {}
    success_callback = None
    stopped_callback = None
    failure_callback = staticmethod(job.abandoned)

    @property
    def func(self) -> Callable[..., Any]:
        """The function for the job's name; PermissionError when it is not on the list."""
        try:
            return self.functions[self.func_name or ""]
        except KeyError:
            raise PermissionError(f"job {self.id} asks for {self.func_name!r}, which is not allowed") from None

    def send_webhooks(self, *arguments: Any, **options: Any) -> None:
        """None are sent."""


def serve(settings: Settings) -> bool:
    """Prepare, report, and work until SIGTERM or SIGINT; the job in hand is finished first.

    True when it was told to stop, False when RQ gave up by itself (its log says why).
    """
    parts = prepare(settings)
    AllowedJob.functions = {keys.JOB_FUNCTION: partial(job.run, parts)}
    queue = open_queue(parts.connection, AllowedJob)
    worker = SimpleWorker(
        [queue], name=parts.worker, connection=parts.connection, job_class=AllowedJob, serializer=queue.serializer
    )
    worker.work(logging_level="WARNING")
    return worker._stop_requested


def prepare(settings: Settings) -> job.Parts:
    """Everything a job needs, loaded and warm.

    Raises QueueUnavailable, StoreUnavailable, ModelError or SettingsError.
    """
    begin = time.perf_counter()
    _check_queue(settings)
    device = choose(settings.device)
    log.info("device: %s", device)
    store = Store(settings)
    model = registry.pull(store, settings.model, settings.cache_dir)
    engine = Engine(model, device.torch)
    engine.warm_up()
    log.info(
        "model %s %s ready after %.1f s (%s)",
        model.manifest.name,
        model.manifest.version,
        time.perf_counter() - begin,
        model.digest[:12],
    )
    name = f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
    return job.Parts(connect(settings), store, engine, model, settings, name, device.name)


def _check_queue(settings: Settings) -> None:
    """Better now than after loading a model."""
    try:
        with connect_quickly(settings) as connection:
            connection.ping()
    except RedisError as error:
        raise QueueUnavailable(f"Redis does not answer at UPRES_REDIS_URL ({error}).") from error
