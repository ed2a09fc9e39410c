"""Estimate a job without submitting it: size of the result, tiles, seconds, and whether it would be accepted."""

from upres.core import api_keys, formats, rates, registry, served_models, workers
from upres.core.api import Estimate, EstimateRequest
from upres.core.errors import TooManyBytes, UpresError
from upres.core.served_models import ModelRef
from upres.core.sizes import SizePlan, plan_size
from upres.core.tiling import ORIENTATIONS, TILE, passes
from upres.function.access import Caller
from upres.function.services import Services
from upres.function.submit import check_factor

ANY_JOB = "0" * 32
"""A job id for `resolve`, which needs one to choose between the stable version and the canary."""


def estimate(services: Services, request: EstimateRequest, caller: Caller) -> Estimate:
    """Estimate a job. Raises UnknownModel, ModelError, StoreUnavailable or redis-py's errors."""
    model = request.model or services.settings.model
    ref = served_models.resolve(services.redis, services.store, model, request.model_version, ANY_JOB)
    planned, refusal = _planned(services, request, model, ref, caller)
    factor, frames, orientations = planned.factor, _frames(request), ORIENTATIONS if request.ensemble else 1
    rate = rates.read(services.redis, ref.digest, factor, request.ensemble)
    times = 1
    if not rate.jobs:
        rate, times = rates.read(services.redis, ref.digest, factor), orientations
    tiles = 0
    if refusal is None:
        manifest, _ = registry.manifest(services.store, model, ref.version)
        steps = passes(manifest, request.height, request.width, factor, rate.tile or TILE)
        tiles = sum(len(step.tiles) for step in steps) * orientations * frames
    seconds = rate.seconds(planned.made[0] * planned.made[1] * frames / 1e6)
    return Estimate(
        accepted=refusal is None,
        code=refusal.code if refusal else None,
        detail=str(refusal) if refusal else None,
        width=planned.size[0],
        height=planned.size[1],
        tiles=tiles,
        model=model,
        model_version=ref.version,
        seconds=None if refusal or seconds is None else seconds * times,
        waiting=services.redis.llen(services.queue.key),
        slots=sum(worker.slots for worker in workers.listing(services.redis) if worker.state == "ready"),
    )


def _planned(
    services: Services, request: EstimateRequest, model: str, ref: ModelRef, caller: Caller
) -> tuple[SizePlan, UpresError | None]:
    """Return how a job would enlarge the image, and the error with which it would be refused or fail, if it would."""
    try:
        return _accepted(services, request, model, ref, caller), None
    except UpresError as error:
        size = request.wanted_size.size_for((request.width, request.height))
        return SizePlan(size, max(ref.factors, default=1), size), error


def _accepted(services: Services, request: EstimateRequest, model: str, ref: ModelRef, caller: Caller) -> SizePlan:
    """Return how a job would enlarge the image. Raises the error with which it would be refused or fail."""
    limit, frames = services.settings.max_input_bytes, _frames(request)
    check_factor(model, ref, request.upscale_factor)
    if request.bytes and request.bytes > limit:
        raise TooManyBytes.for_limit(limit)
    planned = plan_size((request.width, request.height), request.wanted_size, ref.factors)
    formats.check_frames(frames, request.width, request.height, services.settings.max_input_pixels(planned.factor))
    if request.output_format != "auto" or request.output_depth == 16:
        formats.check_size(planned.size, formats.result_format(request.output_format, "png", request.output_depth))
    if caller.key:
        orientations = ORIENTATIONS if request.ensemble else 1
        api_keys.check_quota(services.redis, caller.key, planned.made[0] * planned.made[1] * frames * orientations)
    return planned


def _frames(request: EstimateRequest) -> int:
    """Return the number of frames or pages of the result: one, if its format cannot have several."""
    one = request.frames == "first" or not any(formats.holds(request.output_format))
    return 1 if one else request.frame_count
