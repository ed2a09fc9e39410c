"""A real worker process with a simulated device that fails: lost, silent, or short of memory."""

import pytest
from redis import Redis

from tests.support.workers import start, worker
from upres.client import Client
from upres.core import keys
from upres.core.schema import Progress, Started
from upres.embedded.stack import Local
from upres.worker.remembered_limits import StoredLimits
from upres.worker.service import RESTART

pytestmark = pytest.mark.without_worker


@pytest.mark.parametrize("fault", ["lost", "silent"])
def test_a_worker_with_a_lost_device_exits_and_requeues_its_jobs(
    local: Local, redis: Redis, png: bytes, fault: str
) -> None:
    with Client(local.url) as client:
        job_id = client.submit(png, 2).job_id
        with start(local, f"--device={fault}", UPRES_SLOTS="2") as faulty:
            assert faulty.wait(60) == RESTART
        assert redis.lpos("rq:queue:upres", job_id) is not None
        with worker(local):
            received = list(client.events(job_id))
    assert [event.attempt for event in received if isinstance(event, Started)] == [1, 2]
    assert received[-1].type == "succeeded"


def test_out_of_memory_reduces_the_tile_size_which_is_stored_in_redis(local: Local, redis: Redis, png: bytes) -> None:
    with Client(local.url) as client, start(local, "--device=tight", UPRES_SLOTS="2") as tight:
        received = list(client.events(client.submit(png, 8).job_id))
        tight.terminate()
        tight.wait(30)
    notices = [event.notice for event in received if isinstance(event, Progress) and event.notice]
    assert notices
    assert "short of memory" in notices[0]
    assert received[-1].type == "succeeded"
    [key] = redis.keys("upres:tile:*")
    assert StoredLimits.model_validate_json(redis.get(key) or b"").tile < 640
    assert 0 < redis.ttl(key) <= keys.LIMITS_SECONDS
    redis.delete(key)
