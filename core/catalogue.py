"""What the labels of models mean right now: workers have checked it, and the function pins each new job to it.

A label that was moved in the registry takes effect when the workers that serve the model have the new version ready.
Where no worker has said anything yet, the registry itself is asked.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import Field
from redis import Redis

from core import keys, registry
from core.errors import ModelNotFound, UnknownModel
from core.manifest import Rule
from core.registry import CANARY, STABLE
from core.schema import Message
from core.storage import Store


class Pin(Message):
    """One version, beyond doubt."""

    version: str = Field(description="Its name.")
    digest: str = Field(description="SHA-256 of its manifest.")
    factors: tuple[int, ...] = Field(description="Enlargements per side that it can make.")


class Offer(Message):
    """What a model's labels mean."""

    labels: Mapping[str, Pin] = Field(description="Label → version.")
    canary_percent: float = Field(0, description="Share of the jobs that the canary gets.")
    rule: Rule | None = Field(None, description="When the canary becomes stable.")
    refused: Mapping[str, str] = Field({}, description="Versions that failed their check, and why.")


def publish(connection: Redis, name: str, offer: Offer) -> None:
    """Say what the labels mean from now on."""
    connection.set(keys.offer(name), offer.model_dump_json())


def published(connection: Redis, name: str) -> Offer | None:
    """What workers said last; None when none ever served this model."""
    raw: Any = connection.get(keys.offer(name))
    return Offer.model_validate_json(raw) if raw else None


def pin(connection: Redis, store: Store, name: str, wanted: str | None, job_id: str) -> Pin:
    """The version that a job gets: the one it asks for, by name or label; else the stable one, or the canary.

    Raises UnknownModel, ModelError, StoreUnavailable or redis-py's errors.
    """
    offer = published(connection, name) or _unchecked(store, name)
    if wanted is None:
        label = CANARY if CANARY in offer.labels and _share(job_id) < offer.canary_percent / 100 else STABLE
        return offer.labels[label]
    if wanted in offer.labels:
        return offer.labels[wanted]
    labels = registry.labels(store, name).labels  # it may be a new one
    try:
        return read(store, name, labels.get(wanted, wanted))
    except ModelNotFound as error:
        raise UnknownModel(
            f"Model {name!r} has neither a version nor a label {wanted!r}; labels: {', '.join(labels)}."
        ) from error


def read(store: Store, name: str, version: str) -> Pin:
    """A version as the registry has it. Raises ModelNotFound, ModelError or StoreUnavailable."""
    manifest, digest = registry.manifest(store, name, version)
    return Pin(version=version, digest=digest, factors=manifest.factors)


def _unchecked(store: Store, name: str) -> Offer:
    try:
        labels = registry.labels(store, name)
    except ModelNotFound as error:
        known = ", ".join(registry.index(store).models) or "none"
        raise UnknownModel(f"There is no model {name!r}; available: {known}.") from error
    pins = {label: read(store, name, version) for label, version in labels.labels.items()}
    return Offer(labels=pins, canary_percent=labels.canary_percent, rule=labels.rule)


def _share(job_id: str) -> float:
    """A number from 0 to 1 that depends on the job alone."""
    return int(job_id[:8], 16) / 0x1_0000_0000
