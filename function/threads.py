"""Threads in which requests are worked on. One client has a few of them at a time, however much it sends at once.

All threads share Python's interpreter lock: with 40 requests of one client in work, each step of another client's
request would wait for up to 40 others.
"""

import asyncio
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import ParamSpec, TypeVar
from weakref import WeakValueDictionary

from anyio import CapacityLimiter, to_thread
from starlette.requests import Request

from upres.function.clients import sender

THREADS = 40
"""Short requests that a process works on at once."""
AT_ONCE = 4
"""Requests of one client that a pool works on at once; its others wait, without a thread, in the order they came."""
Parameters = ParamSpec("Parameters")
Value = TypeVar("Value")


class Turns:
    """Each client has at most `at_once` turns at a time; nothing is kept of clients that have none."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    def of(self, sender: str | None) -> "asyncio.Semaphore | nullcontext[None]":
        """Return the context in which the sender of a request has one of its turns; it waits for one at first.

        None as the sender has no limit of its own.
        """
        if sender is None:
            return nullcontext()
        turns = self._turns.get(sender) or asyncio.Semaphore(self._at_once)
        self._turns[sender] = turns  # it is kept as long as a request uses it
        return turns


class Pool:
    """Runs functions in at most `threads` threads at once, and for one client in AT_ONCE."""

    def __init__(self, threads: int = THREADS) -> None:
        self._limiter = CapacityLimiter(threads)
        self._turns = Turns(AT_ONCE)

    async def run(
        self,
        sender: str | None,
        function: Callable[Parameters, Value],
        *given: Parameters.args,
        **named: Parameters.kwargs,
    ) -> Value:
        """Run a function in a thread for the sender of a request, and return its value. Raises what it raises.

        None as the sender has no limit of its own.
        """
        async with self._turns.of(sender):
            return await to_thread.run_sync(partial(function, *given, **named), limiter=self._limiter)


async def in_thread(
    request: Request, function: Callable[Parameters, Value], *given: Parameters.args, **named: Parameters.kwargs
) -> Value:
    """Run a short function for a request in the app's pool, and return its value. Raises what it raises."""
    threads: Pool = request.app.state.threads
    return await threads.run(sender(request), function, *given, **named)
