"""The strength of a model, from 0 to 1: how much the weights of a mixed version are its own, and not its base's."""

from upres.core.errors import FieldError, InvalidRequest


def rounded(strength: float) -> float:
    """Round to tenths, so that workers need few variants of a model."""
    return round(strength, 1)


def pinned(wanted: float | None, model: str, version: str, default: float | None) -> float | None:
    """Return the strength for a job; None for the version's default, whether or not the request names it.

    `default` is None when the version has no base. Raises InvalidRequest when a strength is wanted of such a version.
    """
    if wanted is not None and default is None:
        detail = (
            f"Model {model!r} {version} has no strength that can be chosen; leave strength out, or name another model: "
            "GET /v1/models says which have one."
        )
        raise InvalidRequest(
            [FieldError(field="strength", code="unsupported_strength", given=str(wanted), detail=detail)]
        )
    return None if wanted == default else wanted
