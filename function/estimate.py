"""Estimate a job without submitting it: size of the result, tiles, seconds, and whether it would be accepted."""

from upres.core import api_keys, formats, rates, registry, served_models, workers
from upres.core.api import Estimate, EstimateRequest
from upres.core.errors import TooManyBytes, UpresError
from upres.core.served_models import ModelRef
from upres.core.tiling import ORIENTATIONS, TILE, passes
from upres.function.access import Caller
from upres.function.services import Services
from upres.function.submit import check_factor

ANY_JOB = "0" * 32
"""A job id for `resolve`, which needs one to choose between the stable version and the canary."""


def estimate(services: Services, request: EstimateRequest, caller: Caller) -> Estimate:
    """Estimate a job. Raises UnknownModel, ModelError, StoreUnavailable or redis-py's errors."""
    factor, model = request.upscale_factor, request.model or services.settings.model
    ref = served_models.resolve(services.redis, services.store, model, request.model_version, ANY_JOB)
    frames = _frames(request)
    width, height = request.width * factor, request.height * factor
    orientations = ORIENTATIONS if request.ensemble else 1
    rate = rates.read(services.redis, ref.digest, factor, request.ensemble)
    times = 1
    if not rate.jobs:
        rate, times = rates.read(services.redis, ref.digest, factor), orientations
    refusal, tiles = _refusal(services, request, model, ref, caller), 0
    if refusal is None:
        manifest, _ = registry.manifest(services.store, model, ref.version)
        steps = passes(manifest, request.height, request.width, factor, rate.tile or TILE)
        tiles = sum(len(step.tiles) for step in steps) * orientations * frames
    seconds = rate.seconds(width * height * frames / 1e6)
    return Estimate(
        accepted=refusal is None,
        code=refusal.code if refusal else None,
        detail=str(refusal) if refusal else None,
        width=width,
        height=height,
        tiles=tiles,
        model=model,
        model_version=ref.version,
        seconds=None if refusal or seconds is None else seconds * times,
        waiting=services.redis.llen(services.queue.key),
        slots=sum(worker.slots for worker in workers.listing(services.redis) if worker.state == "ready"),
    )


def _refusal(
    services: Services, request: EstimateRequest, model: str, ref: ModelRef, caller: Caller
) -> UpresError | None:
    """Return the error with which a job would be refused or fail, by its size and options; None when there is none."""
    factor, limit = request.upscale_factor, services.settings.max_input_bytes
    size = (request.width * factor, request.height * factor)
    try:
        check_factor(model, ref, factor)
        if request.bytes and request.bytes > limit:
            raise TooManyBytes.for_limit(limit)
        frames = _frames(request)
        formats.check_frames(frames, request.width, request.height, services.settings.max_input_pixels(factor))
        if request.output_format != "auto" or request.output_depth == 16:
            formats.check_size(size, formats.result_format(request.output_format, "png", request.output_depth))
        if caller.key:
            orientations = ORIENTATIONS if request.ensemble else 1
            api_keys.check_quota(services.redis, caller.key, size[0] * size[1] * frames * orientations)
    except UpresError as error:
        return error
    return None


def _frames(request: EstimateRequest) -> int:
    """Return the number of frames or pages of the result: one, if its format cannot have several."""
    one = request.frames == "first" or not any(formats.holds(request.output_format))
    return 1 if one else request.frame_count
