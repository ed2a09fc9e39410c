"""Event streams are limited for each job, API key and address, so that one client cannot take those of all others."""

from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPResponse
from typing import Any

import pytest
from redis import Redis

from tests.support.browser import Visit
from tests.support.leasing import submit
from tests.support.servers import Patched, patched_function, post_job
from tests.support.waiting import wait_until
from upres.client import Client
from upres.core import api_keys, events
from upres.core.errors import TooManyStreams
from upres.core.schema import Cancelled
from upres.embedded.stack import Local
from upres.function.clients import ClientName
from upres.function.stream_places import StreamPlaces

pytestmark = pytest.mark.without_worker

LIMITS = {"STREAMS_PER_JOB": 3, "STREAMS_PER_KEY": 5, "STREAMS_PER_ADDRESS": 4}


@pytest.fixture(scope="module")
def guarded(local: Local, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Patched]:
    folder = tmp_path_factory.mktemp("guarded")
    with patched_function(local, folder, {**LIMITS}, UPRES_ACCESS="keys") as running:
        yield running


@pytest.fixture(scope="module")
def open_to_all(local: Local, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Patched]:
    folder = tmp_path_factory.mktemp("open")
    with patched_function(local, folder, {**LIMITS}, UPRES_ACCESS="open") as running:
        yield running


def follow(running: Patched, opened: ExitStack, path: str, **headers: str) -> HTTPResponse:
    connection = opened.enter_context(running.connect())
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}\r\n".encode())
    response = opened.enter_context(HTTPResponse(connection))
    response.begin()
    return response


def statuses(running: Patched, opened: ExitStack, count: int, path: str, **headers: str) -> list[int]:
    return [follow(running, opened, path, **headers).status for _ in range(count)]


def accepted(running: Patched, text: str) -> tuple[str, str]:
    """Submit a job; return the paths of its events, without and with a token."""
    address: Any = post_job(running.url, text).json()["events_url"]
    path = address.removeprefix(running.url)
    return path.partition("?")[0], path


def test_streams_of_one_job_are_limited_and_a_closed_one_makes_room(guarded: Patched, redis: Redis) -> None:
    _, text = api_keys.create(redis, "somebody")
    path, by_token = accepted(guarded, text)
    with ExitStack() as opened:
        streams = [follow(guarded, opened, path, Authorization=f"Bearer {text}") for _ in range(2)]
        last = follow(guarded, opened, by_token)
        assert [one.status for one in (*streams, last)] == [200] * 3
        for refused in (
            follow(guarded, opened, by_token),
            follow(guarded, opened, path, Authorization=f"Bearer {text}"),
        ):
            assert (refused.status, refused.headers["Retry-After"]) == (429, "5")
            body = refused.read()
            assert b'"too_many_streams"' in body
            assert b"3 event streams of this job" in body
        assert follow(guarded, opened, accepted(guarded, text)[1]).status == 200
        last.close()
        opened.pop_all().close()
    with ExitStack() as opened:
        wait_until(lambda: follow(guarded, opened, path, Authorization=f"Bearer {text}").status == 200)


def test_a_stream_that_has_ended_makes_room(guarded: Patched, redis: Redis) -> None:
    _, text = api_keys.create(redis, "somebody")
    path, by_token = accepted(guarded, text)
    events.append(redis, Cancelled(job_id=path.split("/")[3]))
    with ExitStack() as opened:
        for _ in range(LIMITS["STREAMS_PER_JOB"] + 2):
            response = follow(guarded, opened, by_token)
            assert response.status == 200
            response.read()


def test_streams_of_one_key_are_limited_over_all_its_jobs(guarded: Patched, redis: Redis) -> None:
    keys = [api_keys.create(redis, name)[1] for name in ("one", "other")]
    with ExitStack() as opened:
        got = [
            follow(guarded, opened, accepted(guarded, keys[0])[0], Authorization=f"Bearer {keys[0]}").status
            for _ in range(LIMITS["STREAMS_PER_KEY"] + 2)
        ]
        assert got == [200] * LIMITS["STREAMS_PER_KEY"] + [429] * 2
        path, _ = accepted(guarded, keys[1])
        assert follow(guarded, opened, path, Authorization=f"Bearer {keys[1]}").status == 200


def test_streams_by_tokens_are_limited_for_each_address(guarded: Patched, redis: Redis) -> None:
    _, text = api_keys.create(redis, "somebody")
    most = LIMITS["STREAMS_PER_ADDRESS"]
    with ExitStack() as opened:
        for address, same in (
            ("192.0.2.1", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::ffff:1"),
            ("::ffff:192.0.2.9", "::ffff:192.0.2.9"),
        ):
            paths = [accepted(guarded, text)[1] for _ in range(most)]
            for path in paths:
                assert follow(guarded, opened, path, X_Forwarded_For=address).status == 200
            assert follow(guarded, opened, accepted(guarded, text)[1], X_Forwarded_For=same).status == 429
        for other in ("192.0.2.2", "2001:db8:0:1::1", "::ffff:192.0.2.8"):
            assert follow(guarded, opened, accepted(guarded, text)[1], X_Forwarded_For=other).status == 200


def test_with_open_access_streams_are_limited_for_each_address(open_to_all: Patched, redis: Redis) -> None:
    with ExitStack() as opened:
        got = [follow(open_to_all, opened, f"/v1/jobs/{submit(redis)}/events").status for _ in range(6)]
        assert got == [200] * 4 + [429] * 2
        path = f"/v1/jobs/{submit(redis)}/events"
        assert statuses(open_to_all, opened, 4, path, X_Forwarded_For="192.0.2.1") == [200] * 3 + [429]


@pytest.mark.parametrize(
    "spellings",
    [
        ("192.0.2.9", "::ffff:192.0.2.9", "[::FFFF:c000:209]:99", "192.0.2.9:1234", "198.51.100.1, 192.0.2.9"),
        ("2001:db8::1", "2001:DB8:0:0::2", "[2001:db8::3]:80", "[2001:db8::4]", "2001:db8:0:0:ffff::"),
    ],
)
def test_spellings_of_an_address_evade_no_limit(open_to_all: Patched, redis: Redis, spellings: tuple[str, ...]) -> None:
    with ExitStack() as opened:
        got = [
            follow(open_to_all, opened, f"/v1/jobs/{submit(redis)}/events", X_Forwarded_For=spelling).status
            for spelling in spellings
        ]
        assert got == [200] * 4 + [429]


def test_the_client_waits_for_a_place_and_gets_all_events(
    guarded: Patched, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, text = api_keys.create(redis, "somebody")
    path, by_token = accepted(guarded, text)
    job_id, slept = path.split("/")[3], list[float]()

    def sleep(seconds: float) -> None:
        """Instead of the pause: make room, and let the job end."""
        slept.append(seconds)
        opened.close()
        events.append(redis, Cancelled(job_id=job_id))
        wait_until(lambda: _is_free(guarded, by_token))

    monkeypatch.setattr("upres.client.sdk.time.sleep", sleep)
    with ExitStack() as opened:
        assert statuses(guarded, opened, 3, by_token) == [200] * 3
        with Client(guarded.url, text) as client:
            got = [event.type for event in client.events(job_id)]
    assert got == ["queued", "cancelled"]
    assert slept == [5]  # as Retry-After says


def _is_free(running: Patched, path: str) -> bool:
    with ExitStack() as opened:
        return follow(running, opened, path).status == 200


REFUSED_STREAM = """async ([url, job]) => {
  const { Upres } = await import(`${url}/web/upres.js`);
  const heard = (window.heard = []), connected = [];
  const onEvent = (event, id) => heard.push([event.type, id !== ""]);
  const onConnection = (there) => connected.push(there);
  const ended = await new Upres(url).subscribe(job, onEvent, { onConnection }).catch((error) => error.code);
  return [ended, heard, connected.includes(false)];
}"""


def test_a_page_without_a_place_shows_the_state_and_waits_for_a_place(
    visit: Visit, open_to_all: Patched, redis: Redis
) -> None:
    job_id = submit(redis)
    status_url = f"{open_to_all.url}/v1/jobs/{job_id}"
    job = {"job_id": job_id, "status_url": status_url, "events_url": f"{status_url}/events"}
    visit.page.goto(open_to_all.url)
    with ExitStack() as opened:
        assert statuses(open_to_all, opened, 3, f"/v1/jobs/{job_id}/events") == [200] * 3
        visit.page.evaluate(f"given => {{ window.ended = ({REFUSED_STREAM})(given); }}", [open_to_all.url, job])
        wait_until(lambda: visit.page.evaluate("window.heard?.length"))
    wait_until(lambda: visit.page.evaluate("window.heard.some(([, hasId]) => hasId)"))
    events.append(redis, Cancelled(job_id=job_id))
    ended, heard, lost = visit.page.evaluate("window.ended")
    assert (ended, lost) == ("cancelled", False)
    assert heard[0] == ["queued", False]  # the state, when there was no place
    assert heard[-2:] == [["queued", True], ["cancelled", True]]  # then all events
    assert all("429" in text for text in visit.wrong)
    visit.wrong.clear()


def test_two_thousand_streams_are_possible_from_several_addresses() -> None:
    places = StreamPlaces()
    taken = [places.take(f"job {n % 20}", ClientName("address", f"192.0.2.{n % 7}")) for n in range(2000)]
    with pytest.raises(TooManyStreams):
        places.take("job 0", ClientName("address", "192.0.2.9"))
    for leave in taken:
        leave()
    assert not places._open  # nothing is kept of those who have left
