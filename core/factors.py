"""Checks the factors of a job's models: `model` must have the wanted one, `first_model` factor 1."""

from typing import NamedTuple

from upres.core.errors import FieldError, InvalidRequest


class Factors(NamedTuple):
    """The factors of a model version."""

    model: str
    version: str
    factors: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.model!r} {self.version}"


def check(wanted: float | None, main: Factors, first: Factors | None) -> None:
    """Raise InvalidRequest when `main` does not enlarge as much as wanted, or `first` does not have factor 1.

    `wanted` is None when a size was requested: the factor is then known when the image is.
    """
    if wanted is not None and wanted > max(main.factors, default=0):
        raise _unsupported("upscale_factor", str(wanted), _other(main))
    if first and 1 not in first.factors:
        detail = f"first_model must have factor 1; model {first} enlarges by {_listed(first)}."
        raise _unsupported("first_model", first.model, detail)


def _other(model: Factors) -> str:
    """What a model can do instead."""
    if model.factors == (1,):
        return (
            f"Model {model} does not enlarge. Send upscale_factor 1; or name it in first_model, and in model one that "
            "enlarges."
        )
    return f"Model {model} enlarges by at most {max(model.factors, default=0)}."


def _listed(model: Factors) -> str:
    return " or ".join(map(str, model.factors))


def _unsupported(field: str, given: str, detail: str) -> InvalidRequest:
    return InvalidRequest([FieldError(field=field, code="unsupported_factor", given=given, detail=detail)])
