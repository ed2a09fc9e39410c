"""The memory that bodies hold: limits for one client and for all, and nothing is kept of bodies that are done."""

from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upres.core.errors import FunctionUnavailable, RateLimited
from upres.function import limits
from upres.function.body import Bodies, Share
from upres.function.clients import ClientName

CLIENTS = [None, *(ClientName("key", name) for name in "ab")]
sizes = st.integers(0, limits.BODY_BYTES)


@given(st.lists(st.tuples(st.integers(0, 5), sizes), max_size=30))
def test_bodies_together_and_of_one_client_stay_below_their_limits(steps: list[tuple[int, int]]) -> None:
    bodies, held = Bodies(), dict[int, int]()
    with ExitStack() as stack:
        shares: list[Share] = [stack.enter_context(bodies.share(CLIENTS[number % 3])) for number in range(6)]
        for number, size in steps:
            try:
                shares[number].hold(size)
                held[number] = size
            except RateLimited:
                assert number % 3
            except FunctionUnavailable:
                assert sum(held.values()) - held.get(number, 0) + size > limits.BODIES_BYTES
            assert sum(held.values()) <= limits.BODIES_BYTES
            for client in (1, 2):
                assert held.get(client, 0) + held.get(client + 3, 0) <= limits.BODY_BYTES
    assert not bodies._bytes


def test_a_body_that_is_alone_may_have_any_size() -> None:
    """UPRES_MAX_INPUT_MEGABYTES may allow images that are larger than the budget."""
    bodies = Bodies()
    with bodies.share(CLIENTS[1]) as first, bodies.share(CLIENTS[2]) as second:
        first.hold(2 * limits.BODIES_BYTES)
        first.hold(3 * limits.BODIES_BYTES)
        with pytest.raises(FunctionUnavailable):
            second.hold(1)
        first.hold(0)
        second.hold(1)
        with pytest.raises(FunctionUnavailable):
            first.expect(2 * limits.BODIES_BYTES)
    with bodies.share(CLIENTS[1]) as first, bodies.share(CLIENTS[1]) as second:
        first.hold(limits.BODY_BYTES)
        with pytest.raises(RateLimited, match=r"This key may send 100 MB of request bodies at once\."):
            second.hold(1)
