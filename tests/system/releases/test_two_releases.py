"""This release beside the last one: function, worker and callers of both, in all pairs, with switches under load."""

import json
import os
import secrets
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import requests
from redis import Redis

from tests.support import last_release
from tests.support.paths import ROOT
from tests.support.pushing import Pushed
from tests.support.waiting import wait_until
from tests.system.releases.python_caller import picture
from upres.core import deadletters, registry_changes, served_models, workers
from upres.embedded.child import Child, accepts, free_port
from upres.embedded.stack import Local

HERE = Path(__file__).parent
MODEL = "both"
JOBS = 5
"""Jobs of each caller; every fourth one is cancelled. Python callers add one."""


class Release(NamedTuple):
    """One of the two releases: how it is found, and its upres.js."""

    name: str
    environment: dict[str, str]
    upres_js: Path


THIS = Release("this", {}, ROOT / "client" / "web" / "upres.js")


def last() -> Release:
    folder = last_release.folder()
    # Without PYTHONSAFEPATH `python -m` looks into the current folder first, which is this release.
    environment = {"PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}
    found = subprocess.check_output(
        [sys.executable, "-c", "import upres.worker.job as job; print(job.__file__)"],
        env={**os.environ, **environment},
        text=True,
    )
    assert Path(found.strip()).is_relative_to(folder)
    return Release("last", environment, folder / "upres" / "client" / "web" / "upres.js")


@pytest.fixture(scope="module")
def releases() -> dict[str, Release]:
    return {one.name: one for one in (THIS, last())}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """Redis and the store, with two versions of a model; the default is the first one."""
    with Local(environment={"UPRES_CACHE_DIR": str(tmp_path_factory.mktemp("cache"))}) as local:
        pushed = Pushed(local.store, MODEL, tmp_path_factory.mktemp("versions"))
        pushed.push("1")
        pushed.push("2", description="The same networks.")
        registry_changes.relabel(local.store, MODEL, {"stable": "1"})
        local.stop("worker")
        local.stop("function")
        local.environment["UPRES_MODEL"] = MODEL
        yield local


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number}.png" for number in range(JOBS)]
    for number, path in enumerate(paths):
        path.write_bytes(picture(secrets.randbelow(1 << 30) + number))
    return paths


@contextmanager
def function(base: Local, release: Release, folder: Path) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "upres.function", "--port", str(port)]
    with Child(f"function-{release.name}", command, {**base.environment, **release.environment}, folder) as child:
        child.wait_ready(lambda: accepts(port))
        yield f"http://127.0.0.1:{port}"


@contextmanager
def worker(base: Local, redis: Redis, release: Release, folder: Path) -> Iterator[None]:
    """A worker until the end of the block; then it is asked to stop, and ends after the jobs that it has."""
    before = {one.name for one in workers.listing(redis)}
    command = [sys.executable, "-m", "upres.worker"]
    environment = {**base.environment, **release.environment}
    with Child(f"worker-{release.name}", command, environment, folder, grace=60) as child:
        child.wait_ready(lambda: bool({one.name for one in workers.listing(redis)} - before))
        yield


def python_caller(release: Release, submit: str, follow: str) -> "subprocess.Popen[str]":
    arguments = [submit, follow, str(JOBS), str(secrets.randbelow(1 << 30))]
    return caller([sys.executable, str(HERE / "python_caller.py"), *arguments], release)


def js_caller(release: Release, url: str, images: list[Path]) -> "subprocess.Popen[str]":
    command = ["node", str(HERE / "js_caller.mjs"), str(release.upres_js), url, str(JOBS), *map(str, images)]
    return caller(command, release)


def caller(command: list[str], release: Release) -> "subprocess.Popen[str]":
    environment = {**os.environ, **release.environment}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ends(callers: "list[subprocess.Popen[str]]") -> Counter[str]:
    """Wait for all callers. Returns how their jobs ended."""
    found: Counter[str] = Counter()
    for caller in callers:
        said, errors = caller.communicate(timeout=240)
        assert caller.returncode == 0, errors
        found.update(json.loads(said))
    return found


def check(redis: Redis, urls: list[str]) -> None:
    """Nothing was lost, and each function still answers about jobs, workers and models."""
    assert deadletters.listing(redis) == []
    for url in urls:
        for path in ("/healthz", "/metrics", "/v1/models", f"/v1/models/{MODEL}"):
            assert requests.get(url + path, timeout=10).status_code == 200, path


def is_served(redis: Redis, version: str) -> bool:
    served = served_models.published(redis, MODEL)
    return bool(served and served.labels["stable"].version == version)


@pytest.mark.parametrize("at_work", ["this", "last"])
@pytest.mark.parametrize("in_front", ["this", "last"])
def test_function_and_worker_of_two_releases_serve_callers_of_both(
    base: Local, releases: dict[str, Release], images: list[Path], tmp_path: Path, in_front: str, at_work: str
) -> None:
    """While the jobs run, the label stable moves to the other version: the worker follows, and no job notices."""
    with Redis.from_url(base.settings.redis_url) as redis, ExitStack() as stack:
        stack.enter_context(worker(base, redis, releases[at_work], tmp_path))
        url = stack.enter_context(function(base, releases[in_front], tmp_path))
        wait_until(lambda: served_models.published(redis, MODEL) is not None)
        other = "1" if is_served(redis, "2") else "2"
        callers = [python_caller(one, url, url) for one in releases.values()]
        callers += [js_caller(one, url, images) for one in releases.values()]
        registry_changes.relabel(base.store, MODEL, {"stable": other})
        wait_until(lambda: is_served(redis, other), 60)
        found = ends(callers)
        assert found.total() == 4 * JOBS + 2
        assert found["succeeded"] >= 4 * JOBS + 2 - 4, found
        assert set(found) <= {"succeeded", "cancelled"}
        check(redis, [url])


def test_a_release_that_is_rolled_back_under_load_loses_nothing(
    base: Local, releases: dict[str, Release], images: list[Path], tmp_path: Path
) -> None:
    """Functions of both releases stand side by side, and jobs are followed at the other one. Workers change twice."""
    this, before = releases["this"], releases["last"]
    with Redis.from_url(base.settings.redis_url) as redis, ExitStack() as functions:
        urls = [functions.enter_context(function(base, one, tmp_path)) for one in (this, before)]
        with worker(base, redis, before, tmp_path):
            callers = [python_caller(one, *pair) for one in (this, before) for pair in (urls, urls[::-1])]
            callers += [js_caller(one, url, images) for one, url in ((this, urls[1]), (before, urls[0]))]
            rolled_out = ExitStack()
            rolled_out.enter_context(worker(base, redis, this, tmp_path))
        with rolled_out, worker(base, redis, before, tmp_path):
            rolled_out.close()
            found = ends(callers)
        assert found.total() == 6 * JOBS + 4
        assert set(found) <= {"succeeded", "cancelled"}
        check(redis, urls)
