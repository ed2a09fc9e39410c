"""The models in the registry, as the HTTP API lists them."""

from pydantic import Field

from upres.core import registry
from upres.core.errors import ModelNotFound
from upres.core.registry import Entry
from upres.core.schema import TolerantModel
from upres.function.services import Services


class ModelSummary(TolerantModel):
    """One model with its labels and its stable version's properties."""

    name: str = Field(description="Model name, for the field `model` of a request.")
    default: bool = Field(description="Whether requests that name no model get this one.")
    description: str = Field(description="Purpose of the stable version; empty when its manifest cannot be read.")
    licence: str = Field(description="SPDX identifier of the stable version's licence.")
    factors: tuple[int, ...] = Field(description="Enlargements per side that the stable version can make.")
    strength: float | None = Field(
        None, description="The stable version's default strength, 0 to 1; absent when its strength cannot be chosen."
    )
    labels: dict[str, str] = Field(description="Label → version.")
    jobs_url: str = Field(description="Path of the endpoint that accepts jobs for this model (POST).")


class ModelDetails(ModelSummary):
    """One model with all its versions."""

    versions: tuple[registry.Version, ...] = Field(description="Versions in the order in which they were indexed.")


class ModelList(TolerantModel):
    """All models of the registry."""

    models: tuple[ModelSummary, ...] = Field(description="Models, sorted by name.")


def listing(services: Services, index: registry.Index) -> ModelList:
    """List all models of the index."""
    return ModelList(models=tuple(ModelSummary(**_summary(services, entry)) for entry in index.models.values()))


def details(services: Services, index: registry.Index, name: str) -> ModelDetails:
    """Describe one model of the index. Raises ModelNotFound."""
    models = index.models
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
        "strength": stable.strength if stable else None,
        "labels": entry.labels.labels,
        "jobs_url": f"/v1/models/{entry.name}/jobs",
    }
