"""Estimate a job without submitting it: size of the result, tiles, seconds, and whether it would be accepted."""

from typing import NamedTuple

from upres.core import api_keys, formats, rates, registry, served_models, workers
from upres.core.api import Estimate, EstimateRequest
from upres.core.errors import TooManyBytes, UpresError
from upres.core.served_models import ModelRef
from upres.core.sizes import SizePlan, plan_size
from upres.core.tiling import ORIENTATIONS, TILE, passes
from upres.function.access import Caller
from upres.function.services import Services
from upres.function.submit import check_models

ANY_JOB = "0" * 32
"""A job id for `resolve`, which needs one to choose between the stable version and the canary."""


def estimate(services: Services, request: EstimateRequest, caller: Caller) -> Estimate:
    """Estimate a job. Raises UnknownModel, ModelError, StoreUnavailable or redis-py's errors."""
    model = request.model or services.settings.model
    ref = served_models.resolve(services.redis, services.store, model, request.model_version, ANY_JOB)
    first = served_models.resolve_first(services.redis, services.store, request.first_model, ANY_JOB)
    planned, refusal = _planned(services, request, model, ref, first, caller)
    steps = [_Step(model, ref, planned.factor)]
    if request.first_model and first:
        steps.insert(0, _Step(request.first_model, first, 1))
    seconds, sides = _expected(services, request, steps)
    tiles = 0
    if refusal is None:
        tiles = sum(_tiles(services, request, *pair) for pair in zip(steps, sides, strict=True))
    return Estimate(
        accepted=refusal is None,
        code=refusal.code if refusal else None,
        detail=str(refusal) if refusal else None,
        width=planned.size[0],
        height=planned.size[1],
        tiles=tiles,
        model=model,
        model_version=ref.version,
        seconds=None if refusal else seconds,
        waiting=services.redis.llen(services.queue.key),
        slots=sum(worker.slots for worker in workers.listing(services.redis) if worker.state == "ready"),
    )


class _Step(NamedTuple):
    """A model that is applied to the image, or to what the model before it has made."""

    model: str
    ref: ModelRef
    factor: int


def _expected(services: Services, request: EstimateRequest, steps: list[_Step]) -> tuple[float | None, list[int]]:
    """Return the expected seconds of a job, None if they are not known, and for each step the side of its windows."""
    *before, last = steps
    first_digest = before[0].ref.digest if before else None
    rate = rates.read(services.redis, last.ref.digest, last.factor, request.ensemble, first_digest)
    pixels = request.width * request.height * _frames(request)
    if rate.jobs:
        sides = [rate.first_tile, rate.tile] if before else [rate.tile]
        return rate.seconds(pixels * last.factor**2 / 1e6), sides
    times = ORIENTATIONS if request.ensemble else 1
    alone = [rates.read(services.redis, step.ref.digest, step.factor) for step in steps]
    seconds = [rate.seconds(pixels * step.factor**2 / 1e6) for rate, step in zip(alone, steps, strict=True)]
    known = [one * times for one in seconds if one is not None]
    return sum(known) if len(known) == len(steps) else None, [rate.tile for rate in alone]


def _tiles(services: Services, request: EstimateRequest, step: _Step, side: int) -> int:
    """Return the number of tiles of a step; `side` is that of its windows, 0 if it is not known."""
    manifest, _ = registry.manifest(services.store, step.model, step.ref.version)
    made = passes(manifest, request.height, request.width, step.factor, side or TILE)
    return sum(len(one.tiles) for one in made) * _frames(request) * (ORIENTATIONS if request.ensemble else 1)


def _planned(
    services: Services, request: EstimateRequest, model: str, ref: ModelRef, first: ModelRef | None, caller: Caller
) -> tuple[SizePlan, UpresError | None]:
    """Return how a job would enlarge the image, and the error with which it would be refused or fail, if it would."""
    try:
        return _accepted(services, request, model, ref, first, caller), None
    except UpresError as error:
        size = request.wanted_size.size_for((request.width, request.height))
        return SizePlan(size, max(ref.factors, default=1), size), error


def _accepted(
    services: Services, request: EstimateRequest, model: str, ref: ModelRef, first: ModelRef | None, caller: Caller
) -> SizePlan:
    """Return how a job would enlarge the image. Raises the error with which it would be refused or fail."""
    limit, frames = services.settings.max_input_bytes, _frames(request)
    check_models(request, model, ref, first)
    if request.bytes and request.bytes > limit:
        raise TooManyBytes.for_limit(limit)
    planned = plan_size((request.width, request.height), request.wanted_size, ref.factors)
    formats.check_frames(frames, request.width, request.height, services.settings.max_input_pixels(planned.factor))
    if request.output_format != "auto" or request.output_depth == 16:
        formats.check_size(planned.size, formats.result_format(request.output_format, "png", request.output_depth))
    if caller.key:
        computed = planned.made[0] * planned.made[1] + (request.width * request.height if first else 0)
        orientations = ORIENTATIONS if request.ensemble else 1
        api_keys.check_quota(services.redis, caller.key, computed * frames * orientations)
    return planned


def _frames(request: EstimateRequest) -> int:
    """Return the number of frames or pages of the result: one, if its format cannot have several."""
    one = request.frames == "first" or not any(formats.holds(request.output_format))
    return 1 if one else request.frame_count
