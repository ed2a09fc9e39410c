"""The SDK in a caller's other processes: forked, or with objects that went through pickle."""

import multiprocessing
import pickle
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.support.events import RESULT
from upres.client import Client, JobFailed, RequestRefused, Upscaled
from upres.core import errors
from upres.core.api import Problem
from upres.core.errors import UpresError

PROBLEM = Problem(type="t", title="t", status=404, detail="No such job.", code="job_not_found", retryable=False)


class Connections:
    """A server with keep-alive that counts the connections on which it was asked."""

    def __init__(self) -> None:
        self.ports: list[int] = []
        ports = self.ports

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                ports.append(self.client_address[1])
                body = PROBLEM.model_dump_json().encode()
                self.send_response(404)
                self.send_header("Content-Type", "application/problem+json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def connections() -> Iterator[Connections]:
    found = Connections()
    thread = threading.Thread(target=found.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found
    found.server.shutdown()
    thread.join()
    found.server.server_close()


def ask(client: Client) -> None:
    with pytest.raises(RequestRefused):
        client.status("0" * 32)


def test_a_forked_process_opens_its_own_connections(connections: Connections) -> None:
    """On a shared one, two processes would read each other's answers."""
    with Client(connections.url) as client:
        ask(client)
        children = [multiprocessing.get_context("fork").Process(target=ask, args=(client,)) for _ in range(2)]
        for child in children:
            child.start()
        for child in children:
            child.join(30)
            assert child.exitcode == 0
        ask(client)
    first, *of_children, last = connections.ports
    assert first == last, "the parent keeps its connection"
    assert len({first, *of_children}) == 3


def test_a_client_and_its_results_go_to_other_processes(connections: Connections) -> None:
    with Client(connections.url, "a key") as client:
        copy = pickle.loads(pickle.dumps(Upscaled(client, "0" * 32, RESULT)))
        assert (copy.job_id, copy.result, copy.client.url) == ("0" * 32, RESULT, client.url)
        ask(client)
        ask(copy.client)
        copy.client.close()
    assert len(set(connections.ports)) == 2


def kinds(base: type[UpresError]) -> Iterator[type[UpresError]]:
    yield base
    for kind in base.__subclasses__():
        yield from kinds(kind)


def examples() -> list[UpresError]:
    special: list[UpresError] = [
        JobFailed("undecodable_image", "Broken.", retryable=False),
        RequestRefused(PROBLEM, retry_after=7),
        errors.RateLimited("Slower.", retry_after=7),
        errors.NotInstalled(ModuleNotFoundError("No module named 'torch'", name="torch"), "The worker", "worker"),
        errors.InvalidRequest([{"field": "factor", "code": "bad", "given": "3", "detail": "Use 2."}]),
    ]
    plain = [kind for kind in kinds(UpresError) if "__init__" not in vars(kind)]
    return special + [kind("A sentence.") for kind in plain if not isinstance(kind("A sentence."), JobFailed)]


@pytest.mark.parametrize("error", examples(), ids=lambda error: type(error).__name__)
def test_errors_go_through_pickle(error: UpresError) -> None:
    """An exception that cannot be restored makes multiprocessing.Pool wait for ever."""
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.code, copy.retryable) == (type(error), str(error), error.code, error.retryable)
    assert copy.__dict__ == error.__dict__


def fail() -> None:
    raise RequestRefused(PROBLEM, retry_after=7)


def test_an_error_of_a_process_pool_arrives() -> None:
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn) as pool, pytest.raises(RequestRefused, match="No such job") as caught:
        pool.submit(fail).result(60)
    assert (caught.value.status, caught.value.retry_after) == (404, 7)
