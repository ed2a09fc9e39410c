"""What the labels of models mean right now: workers have checked it, and the function pins each new job to it.

A label that was moved in the registry takes effect when the workers that serve the model have the new version ready.
An served is renewed while a worker has the model in memory, and lapses soon after; then the registry itself is asked.
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


class ModelRef(TolerantModel):
    """One version, beyond doubt."""

    version: str = Field(description="Its name.")
    digest: str = Field(description="SHA-256 of its manifest.")
    factors: tuple[int, ...] = Field(description="Enlargements per side that it can make.")


class ServedModel(TolerantModel):
    """What a model's labels mean."""

    labels: Mapping[str, ModelRef] = Field(description="Label → version.")
    canary_percent: float = Field(0, description="Share of the jobs that the canary gets.")
    rule: Rule | None = Field(None, description="When the canary becomes stable.")
    canary_run_id: str | None = Field(
        None, alias="trial", description="Names this canary's time: counts of another are not its own."
    )
    refused: Mapping[str, str] = Field({}, description="Versions that failed their check, and why.")

    def same_as(self, other: "ServedModel | None") -> bool:
        """Whether both say the same; in which words a version was refused does not matter."""
        without: dict[str, object] = {"refused": {}}
        alike = other and self.model_copy(update=without) == other.model_copy(update=without)
        return bool(alike and other and self.refused.keys() == other.refused.keys())


def publish(connection: Redis, name: str, served: ServedModel) -> None:
    """Say what the labels mean, until it is said again."""
    connection.set(keys.served_model(name), served.model_dump_json(), ex=keys.SERVED_MODEL_SECONDS)


def extend(connection: Redis, name: str) -> None:
    """What was said goes on to be so."""
    connection.expire(keys.served_model(name), keys.SERVED_MODEL_SECONDS)


def published(connection: Redis, name: str) -> ServedModel | None:
    """What workers said last; None when none serves this model."""
    raw: Any = connection.get(keys.served_model(name))
    return ServedModel.model_validate_json(raw) if raw else None


def resolve(connection: Redis, store: Store, name: str, wanted: str | None, job_id: str) -> ModelRef:
    """The version that a job gets: the one it asks for, by name or label; else the stable one, or the canary.

    Raises UnknownModel, ModelError, StoreUnavailable or redis-py's errors.
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


def read(store: Store, name: str, version: str) -> ModelRef:
    """A version as the registry has it. Raises ModelNotFound, ModelError or StoreUnavailable."""
    manifest, digest = registry.manifest(store, name, version)
    return ModelRef(version=version, digest=digest, factors=manifest.factors)


def _labels(store: Store, name: str) -> Labels:
    try:
        return registry.labels(store, name)
    except ModelNotFound as error:
        known = ", ".join(registry.index(store).models) or "none"
        raise UnknownModel(f"There is no model {name!r}; available: {known}.") from error


def _label(labels: Mapping[str, Any], canary_percent: float, job_id: str) -> str:
    """The canary for its share of the jobs, a job always the same; else the stable one."""
    share = int(job_id[:8], 16) / 0x1_0000_0000
    return CANARY if CANARY in labels and share < canary_percent / 100 else STABLE
