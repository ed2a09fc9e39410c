"""Served models: which version each label means now. Workers publish it; the function resolves new jobs with it.

A label that was moved in the registry takes effect when all workers that serve the model have the new version ready.
Workers extend the published record while they have the model in memory. When it has expired, the registry is asked.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import Field
from redis import Redis

from upres.core import keys, registry
from upres.core.errors import ModelNotFound, UnknownModel
from upres.core.manifest import Labels, Rule
from upres.core.registry import CANARY, STABLE
from upres.core.schema import TolerantModel
from upres.core.storage import Store
from upres.core.tolerance import or_none


class ModelRef(TolerantModel):
    """One model version, identified by its digest."""

    version: str = Field(description="Name of the version.")
    digest: str = Field(description="SHA-256 of the version's manifest.")
    factors: tuple[int, ...] = Field(description="Enlargements per side that the version can make.")
    strength: float | None = Field(
        None, description="Default strength, 0 to 1; absent when the version's strength cannot be chosen."
    )


class ServedModel(TolerantModel):
    """The published record of a model: the versions that its labels mean, and the state of its canary."""

    labels: Mapping[str, ModelRef] = Field(description="Label → version.")
    canary_percent: float = Field(0, description="Share of the jobs that the canary gets, in percent.")
    rule: Rule | None = Field(None, description="Rule by which the canary becomes stable or is given up.")
    canary_run_id: str | None = Field(
        None, alias="trial", description="Id of this canary's run, so that only its own jobs are counted for it."
    )
    refused: Mapping[str, str] = Field({}, description="Version that failed its check → why it failed.")

    def same_as(self, other: "ServedModel | None") -> bool:
        """Whether both records are equal. The reasons of refused versions are not compared."""
        without: dict[str, object] = {"refused": {}}
        alike = other and self.model_copy(update=without) == other.model_copy(update=without)
        return bool(alike and other and self.refused.keys() == other.refused.keys())


def publish(connection: Redis, name: str, served: ServedModel) -> None:
    """Publish a served model for keys.SERVED_MODEL_SECONDS; it replaces the record before."""
    connection.set(keys.served_model(name), served.model_dump_json(), ex=keys.SERVED_MODEL_SECONDS)


def extend(connection: Redis, name: str) -> None:
    """Extend the TTL of the published record to keys.SERVED_MODEL_SECONDS."""
    connection.expire(keys.served_model(name), keys.SERVED_MODEL_SECONDS)


def published(connection: Redis, name: str) -> ServedModel | None:
    """Read the published record of a model; None when no worker serves the model, or it cannot be read."""
    raw: Any = connection.get(keys.served_model(name))
    return or_none(ServedModel, raw) if raw else None


def resolve(connection: Redis, store: Store, name: str, wanted: str | None, job_id: str) -> ModelRef:
    """Resolve the version for a job: `wanted`, a version or label; without it the stable version, or the canary.

    Raises UnknownModel when model, version or label do not exist, or when the version failed its check. Raises
    ModelError, StoreUnavailable or redis-py's errors.
    """
    served = published(connection, name)
    if served:
        label = wanted or _label(served.labels, served.canary_percent, job_id)
        if label in served.labels:
            return served.labels[label]
    labels = _labels(store, name)
    label = wanted or _label(labels.labels, labels.canary_percent, job_id)
    version = labels.labels.get(label, label)
    if served and version in served.refused:
        raise UnknownModel(f"Version {version!r} of model {name!r} failed its check, and is not served.")
    try:
        return read(store, name, version)
    except ModelNotFound as error:
        if wanted is None and label == CANARY:
            return read(store, name, labels.labels[STABLE])
        known = ", ".join(labels.labels)
        raise UnknownModel(f"Model {name!r} has neither a version nor a label {label!r}; labels: {known}.") from error


def resolve_first(connection: Redis, store: Store, name: str | None, job_id: str) -> ModelRef | None:
    """Resolve the version of the model that a job applies before the enlargement; None without one.

    Raises what `resolve` raises.
    """
    # Another part of the id than for the model that enlarges: else the canaries of both would get the same jobs.
    return resolve(connection, store, name, None, job_id[16:]) if name else None


def read(store: Store, name: str, version: str) -> ModelRef:
    """Read a version from the registry. Raises ModelNotFound, ModelError or StoreUnavailable."""
    manifest, digest = registry.manifest(store, name, version)
    strength = manifest.mix.strength if manifest.mix else None
    return ModelRef(version=version, digest=digest, factors=manifest.factors, strength=strength)


def _labels(store: Store, name: str) -> Labels:
    try:
        return registry.labels(store, name)
    except ModelNotFound as error:
        known = ", ".join(registry.index(store).models) or "none"
        raise UnknownModel(f"There is no model {name!r}; available: {known}.") from error


def _label(labels: Mapping[str, Any], canary_percent: float, job_id: str) -> str:
    """Choose the canary for its share of the jobs, else the stable version. The job's id decides, so retries agree."""
    share = int(job_id[:8], 16) / 0x1_0000_0000
    return CANARY if CANARY in labels and share < canary_percent / 100 else STABLE
