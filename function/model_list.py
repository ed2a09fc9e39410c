"""Which models there are, for people and programs that choose one."""

from pydantic import Field

from upres.core import registry
from upres.core.errors import ModelNotFound
from upres.core.registry import Entry
from upres.core.schema import TolerantModel
from upres.function.services import Services


class ModelSummary(TolerantModel):
    """One model, with what its labels mean."""

    name: str = Field(description="What a request names.")
    default: bool = Field(description="Whether requests get it that name none.")
    description: str = Field(description="What its stable version is for.")
    licence: str = Field(description="SPDX identifier of its stable version.")
    factors: tuple[int, ...] = Field(description="Enlargements per side that its stable version can make.")
    labels: dict[str, str] = Field(description="Label → version.")
    jobs_url: str = Field(description="Where to submit images for this model.")


class ModelDetails(ModelSummary):
    """One model, with all its versions."""

    versions: tuple[registry.Version, ...] = Field(description="As they came into the registry.")


class ModelList(TolerantModel):
    """All models."""

    models: tuple[ModelSummary, ...] = Field(description="By name.")


def listing(services: Services) -> ModelList:
    """All models. Raises StoreUnavailable or ModelError."""
    entries = registry.index(services.store).models.values()
    return ModelList(models=tuple(ModelSummary(**_summary(services, entry)) for entry in entries))


def details(services: Services, name: str) -> ModelDetails:
    """One model. Raises ModelNotFound, StoreUnavailable or ModelError."""
    models = registry.index(services.store).models
    if name not in models:
        raise ModelNotFound(f"There is no model {name[:64]!r}; available: {', '.join(models) or 'none'}.")
    return ModelDetails(**_summary(services, models[name]), versions=models[name].versions)


def _summary(services: Services, entry: Entry) -> dict[str, object]:
    stable = entry.stable
    return {
        "name": entry.name,
        "default": entry.name == services.settings.model,
        "description": stable.description if stable else "",
        "licence": stable.licence if stable else "",
        "factors": stable.factors if stable else (),
        "labels": entry.labels.labels,
        "jobs_url": f"/v1/models/{entry.name}/jobs",
    }
