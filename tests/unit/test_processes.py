"""The client in several processes: connections after a fork, pickled objects and errors, and Ctrl-C."""

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.events import RESULT
from tests.support.paths import SAMPLES
from tests.support.waiting import wait_until
from upres.client import Client, JobFailed, RequestRefused, Upscaled
from upres.client.atomic_file import MayReplace, atomic_write
from upres.client.batch import Callbacks
from upres.client.command_options import CommandOptions
from upres.client.enlarging import run
from upres.client.ledger import NAME
from upres.client.output_paths import Output
from upres.core import errors
from upres.core.api import Problem
from upres.core.errors import UpresError

PROBLEM = Problem(type="t", title="t", status=404, detail="No such job.", code="job_not_found", retryable=False)


class Connections:
    """A keep-alive HTTP server that records the client port of every request, one port for each connection."""

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


def ask_in_forks(url: str, count: int, closed: bool) -> list[int | None]:
    """Ask with a client here and in forked processes, or only there if it is closed before. Return their exit codes."""
    client = Client(url)
    if closed:
        client.close()
    else:
        ask(client)
    fork = multiprocessing.get_context("fork")
    children = [fork.Process(target=ask, args=(client,), daemon=True) for _ in range(count)]
    for child in children:
        child.start()
    for child in children:
        child.join(30)
    if not closed:
        ask(client)
    return [child.exitcode for child in children]


def in_a_new_process(url: str, count: int, closed: bool) -> list[int | None]:
    """Run `ask_in_forks` in a process that has no other threads: a fork copies their locks, but not the threads."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as new:
        return new.submit(ask_in_forks, url, count, closed).result(60)


def test_a_forked_process_opens_its_own_connections(connections: Connections) -> None:
    """On a shared connection, two processes would read each other's responses."""
    assert in_a_new_process(connections.url, 2, closed=False) == [0, 0]
    first, *of_children, last = connections.ports
    assert first == last, "the parent keeps its connection"
    assert len({first, *of_children}) == 3


def test_a_client_that_was_closed_before_a_fork_stays_closed(connections: Connections) -> None:
    assert in_a_new_process(connections.url, 1, closed=True) == [1]
    assert connections.ports == []


def test_a_client_and_its_results_can_be_pickled(connections: Connections) -> None:
    with Client(connections.url, "a-key") as client:
        copy = pickle.loads(pickle.dumps(Upscaled(client, "0" * 32, RESULT)))
        assert (copy.job_id, copy.result, copy.client.url) == ("0" * 32, RESULT, client.url)
        ask(client)
        ask(copy.client)
        copy.client.close()
        assert not client._http.is_closed
    assert len(set(connections.ports)) == 2


def examples() -> list[UpresError]:
    special: list[UpresError] = [
        JobFailed("undecodable_image", "Broken.", retryable=False),
        RequestRefused(PROBLEM, retry_after=7),
        errors.RateLimited("Slower.", retry_after=7),
        errors.not_installed(ModuleNotFoundError("No module named 'torch'", name="torch"), "The worker", "worker"),
        errors.InvalidRequest([{"field": "factor", "code": "bad", "given": "3", "detail": "Use 2."}]),
    ]
    plain = [kind for kind in errors.tree() if "__init__" not in vars(kind)]
    return special + [kind("A sentence.") for kind in plain]


@pytest.mark.parametrize("error", examples(), ids=lambda error: type(error).__name__)
def test_errors_can_be_pickled_and_restored(error: UpresError) -> None:
    """With an exception that cannot be unpickled, multiprocessing.Pool waits for ever."""
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.code, copy.retryable) == (type(error), str(error), error.code, error.retryable)
    assert copy.__dict__ == error.__dict__


def fail() -> None:
    raise RequestRefused(PROBLEM, retry_after=7)


def test_an_error_raised_in_a_process_pool_reaches_the_caller() -> None:
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn) as pool, pytest.raises(RequestRefused, match="No such job") as caught:
        pool.submit(fail).result(60)
    assert (caught.value.status, caught.value.retry_after) == (404, 7)


class Stalling:
    """A backend that writes half of a result and then waits, so that no image is completely saved."""

    def enlarge(self, image: str, callbacks: Callbacks) -> Output:
        def save(path: Path, may_replace: MayReplace) -> None:
            with atomic_write(path, may_replace) as file:
                file.write(b"half")
                file.flush()
                threading.Event().wait(60)

        return Output(RESULT, save)

    def cancel(self) -> None:
        pass


def enlarge_one(out: Path) -> None:
    photos = (str(SAMPLES / "chelsea.png"),)
    run(
        CommandOptions(
            photos=photos, factor=4, out=out, name="{stem}", output_format="png", output_depth="auto",
            metadata="strip",
            model=None, model_version=None, at_once=1, force=False, as_json=False, estimate=False, local=False,
            server="", api_key=None,
        ),
        Stalling(),
    )  # fmt: skip


def test_ctrl_c_while_a_download_stalls_leaves_no_temporary_file(tmp_path: Path) -> None:
    command = multiprocessing.get_context("spawn").Process(target=enlarge_one, args=(tmp_path,))
    command.start()
    wait_until(lambda: [path for path in tmp_path.glob("*.part") if path.stat().st_size])
    assert command.pid
    os.kill(command.pid, signal.SIGINT)
    command.join(30)
    assert command.exitcode == -signal.SIGINT
    assert not [path.name for path in tmp_path.iterdir() if not path.name.startswith(NAME)]
