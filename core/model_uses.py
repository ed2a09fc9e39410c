"""What still needs a version of a model: labels, versions that are mixed with it, workers, and jobs."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from redis import Redis

from upres.core import keys, registry, served_models
from upres.core.errors import JobRefused, ModelError, ModelNotFound
from upres.core.queue import read_fields
from upres.core.storage import Store

AT_ONCE = 200
"""Number of jobs that are read in one round trip."""


def in_registry(store: Store, name: str) -> dict[str, list[str]]:
    """Return, for each version that labels or other versions need, by what. Raises ModelError or StoreUnavailable."""
    found: dict[str, list[str]] = {}
    try:
        for label, version in registry.labels(store, name).labels.items():
            found.setdefault(version, []).append(f"the label {label} points to it")
    except ModelNotFound:
        pass
    for other, version in _mixed(store):
        try:
            mix = registry.manifest(store, other, version)[0].mix
        except (ModelError, ModelNotFound):
            continue  # it cannot be served either
        if mix and mix.model == name:
            found.setdefault(mix.version, []).append(f"{other} {version} is mixed with it")
    return found


def in_redis(connection: Redis, name: str) -> dict[str, list[str]]:
    """Return, for each version that workers serve or jobs wait for, by what. Raises redis-py's errors."""
    found: dict[str, list[str]] = {}
    served = served_models.published(connection, name)
    for label, ref in served.labels.items() if served else ():
        found.setdefault(ref.version, []).append(f"workers serve it as {label}")
    for version, count in _jobs(connection, name).items():
        jobs = "a job that has not ended needs it" if count == 1 else f"{count} jobs that have not ended need it"
        found.setdefault(version, []).append(jobs)
    return found


def _mixed(store: Store) -> Iterator[tuple[str, str]]:
    """Yield name and version of all versions whose strength can be chosen: they need a base."""
    for name, entry in registry.index(store).models.items():
        yield from ((name, one.version) for one in entry.versions if one.strength is not None)


def _jobs(connection: Redis, name: str) -> Counter[str]:
    """Count the jobs that have not ended, by the version of the model that they were promised."""
    unfinished: Any = connection.zrange(keys.DEADLINES, 0, -1)
    counted: Counter[str] = Counter()
    job_ids = [one.decode(errors="replace") for one in unfinished]
    for start in range(0, len(job_ids), AT_ONCE):
        some = job_ids[start : start + AT_ONCE]
        with connection.pipeline(transaction=False) as pipeline:
            for job_id in some:
                pipeline.hgetall(keys.record(job_id))
            records: list[Any] = pipeline.execute()
        for job_id, record in zip(some, records, strict=True):
            counted.update(_versions(job_id, record, name))
    return counted


def _versions(job_id: str, record: dict[bytes, bytes], name: str) -> set[str]:
    """Return the versions of the model in a job's record, also in that of a newer release.

    None when it cannot be read, since no worker can run it.
    """
    try:
        fields = read_fields(job_id, record)
    except JobRefused:
        return set()
    named = ((fields.get("model"), "model_version"), (fields.get("first_model"), "first_model_version"))
    return {str(fields.get(version)) for model, version in named if model == name}
