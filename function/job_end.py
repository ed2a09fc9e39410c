"""Waits for the end of a job while a request is answered."""

import asyncio

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from upres.function import buffered


async def ends_within(request: Request, job_id: str, seconds: float) -> bool:
    """Wait for the end of a job for at most `seconds`. Return whether it has ended.

    Raises QueueUnavailable, TimeoutError or redis-py's errors.
    """
    if buffered.is_buffered(request):  # Lambda starts an event loop per invocation, so there is no Hub
        seconds = min(seconds, buffered.seconds_left(request))
        return await run_in_threadpool(buffered.wait, request.app.state.services.settings, job_id, seconds)
    try:
        async with asyncio.timeout(seconds):
            ended: bool = await request.app.state.hub.ended(job_id)
            return ended
    except TimeoutError:
        return False
