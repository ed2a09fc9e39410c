"""Tests of `upres doctor`, which finds faults (made in real servers) and says how to repair them; `upres workers`."""

import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import requests
from PIL import Image
from redis import Redis

from tests.support import mixable
from tests.support.images import encoded
from tests.support.leasing import run_out, submit, taken
from tests.support.paths import ROOT
from tests.support.servers import body, http_server
from tests.support.waiting import wait_until
from upres.client import Client
from upres.core import keys, leases, registry_changes, registry_index
from upres.embedded.child import Child, accepts, free_port
from upres.embedded.stack import Local, redis_server, tool


def upres(local: Local, *arguments: str, **changed: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, **local.environment, **changed}
    return subprocess.run([tool("upres"), *arguments], env=environment, capture_output=True, text=True, timeout=60)


def found(local: Local, **changed: str) -> dict[str, tuple[str, str]]:
    """The checks that the doctor does not pass: for each its mark, and its text with the advice."""
    done = upres(local, "doctor", **changed)
    assert "Traceback" not in done.stderr
    received = re.findall(r"^(\S) (.{18}) (.*)(?:\n +→ (.*))?$", done.stdout, re.MULTILINE)
    assert done.returncode == any(mark == "✗" for mark, *_ in received)
    for mark, what, text, mend in received:
        assert (mark == "✓") == (not mend), (what, text)
    return {what.strip(): (mark, f"{text} {mend}") for mark, what, text, mend in received if mark != "✓"}


@contextmanager
def server(folder: Path, *options: str) -> Iterator[str]:
    """Start a separate Redis with these options and yield its URL."""
    port = free_port()
    command = [redis_server(), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--save", ""]
    child = Child("other-redis", [*command, *options], {}, folder)
    child.wait_ready(lambda: accepts(port))
    yield f"redis://127.0.0.1:{port}/0"
    child.stop()


def test_in_the_test_system_only_the_store_lifecycle_is_reported(local: Local) -> None:
    # The S3 server of rclone has no lifecycle rules that delete old files.
    theirs = {what for what in found(local) if what.startswith("model ") and local.settings.model not in what}
    assert set(found(local)) - theirs == {"store lifecycle"}  # other tests leave models that are refused


def test_an_invalid_setting_is_reported(local: Local) -> None:
    assert "UPRES_SLOTS" in found(local, UPRES_SLOTS="many")["settings"][1]


def test_an_unreachable_redis_is_reported_without_its_password(local: Local) -> None:
    mark, text = found(local, UPRES_REDIS_URL=f"redis://user:secret@127.0.0.1:{free_port()}/0")["Redis"]
    assert mark == "✗"
    assert "does not answer" in text
    assert "secret" not in text


def test_a_wrong_redis_password_is_reported(local: Local, tmp_path: Path) -> None:
    with server(tmp_path, "--requirepass", "right", "--appendonly", "yes") as url:
        wrong = url.replace("127", ":wrong@127")
        assert "password" in found(local, UPRES_REDIS_URL=wrong)["Redis"][1]


def test_redis_without_persistence_and_with_eviction_is_reported(local: Local, tmp_path: Path) -> None:
    options = ("--appendonly", "no", "--maxmemory", "16mb", "--maxmemory-policy", "allkeys-lru")
    with server(tmp_path, *options) as url:
        with Redis.from_url(url) as connection:
            for number in range(13):
                connection.set(f"much {number}", b"x" * 1_000_000)
        received = found(local, UPRES_REDIS_URL=url)
    assert received["Redis persistence"][0] == received["Redis eviction"][0] == "✗"
    assert "appendonly yes" in received["Redis persistence"][1]
    assert "noeviction" in received["Redis eviction"][1]
    assert received["Redis memory"][0] == "!"
    assert received["workers"][0] == "!"


def test_a_read_only_redis_replica_is_reported(local: Local, tmp_path: Path) -> None:
    options = ("--appendonly", "yes", "--replicaof", "127.0.0.1", str(local.redis_port))
    with server(tmp_path, *options) as url:
        received = found(local, UPRES_REDIS_URL=url)
    assert received["Redis role"][0] == "✗"
    assert "read only replica" in received["Redis"][1]


def test_a_full_redis_is_reported(local: Local, tmp_path: Path) -> None:
    with server(tmp_path, "--appendonly", "yes", "--maxmemory", "1b", "--maxmemory-policy", "noeviction") as url:
        assert found(local, UPRES_REDIS_URL=url)["Redis memory"][0] == "✗"


def test_a_job_that_waits_too_long_without_a_worker_is_reported(local: Local, tmp_path: Path) -> None:
    with server(tmp_path, "--appendonly", "yes") as url, Redis.from_url(url) as redis:
        long_ago = int(time.time() - 3600) * 1000
        redis.rpush(keys.WAITING, "0" * 32)
        redis.xadd(keys.events("0" * 32), {"type": "queued"}, id=f"{long_ago}-0")
        mark, text = found(local, UPRES_REDIS_URL=url)["jobs"]
    assert (mark, "60 minutes" in text, "no worker" in text) == ("✗", True, True)


def test_redis_in_cluster_mode_is_reported(local: Local, tmp_path: Path) -> None:
    with server(tmp_path, "--cluster-enabled", "yes", "--appendonly", "yes") as url:
        assert found(local, UPRES_REDIS_URL=url)["Redis mode"][0] == "✗"


@pytest.mark.parametrize(
    ("rights", "missing"),
    [
        ("+@all -eval ~* &*", "run the script"),
        ("+@all ~rq:* &*", "read events"),
        ("+@all ~* resetchannels", "publish"),
    ],
)
def test_missing_rights_of_the_redis_user_are_reported(local: Local, tmp_path: Path, rights: str, missing: str) -> None:
    with server(tmp_path, "--appendonly", "yes") as url:
        with Redis.from_url(url) as connection:
            connection.execute_command("ACL", "SETUSER", "some", "on", ">pass", *rights.split())
        mark, text = found(local, UPRES_REDIS_URL=url.replace("127", "some:pass@127"))["Redis rights"]
    assert (mark, missing in text) == ("✗", True)


def test_an_unreachable_store_is_reported(local: Local) -> None:
    mark, text = found(local, UPRES_S3_ENDPOINT_URL=f"http://127.0.0.1:{free_port()}")["store"]
    assert (mark, "UPRES_S3_ENDPOINT_URL" in text) == ("✗", True)


def test_a_missing_bucket_is_reported(local: Local) -> None:
    mark, text = found(local, UPRES_S3_BUCKET="nowhere")["store"]
    assert (mark, "UPRES_S3_BUCKET" in text) == ("✗", True)


def test_wrong_store_credentials_are_reported(local: Local) -> None:
    assert found(local, AWS_SECRET_ACCESS_KEY="wrong")["store"][0] == "✗"


def test_missing_store_credentials_are_reported(local: Local) -> None:
    environment = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_EC2_METADATA_DISABLED": "true"}
    mark, text = found(local, **environment)["store"]
    assert (mark, "AWS_ACCESS_KEY_ID" in text) == ("✗", True)


def test_an_unreachable_public_store_url_is_a_warning(local: Local) -> None:
    """This is only a warning, because clients may be able to reach the URL from their machines."""
    mark, text = found(local, UPRES_S3_PUBLIC_URL=f"http://127.0.0.1:{free_port()}")["store links"]
    assert (mark, "Run doctor where clients run" in text) == ("!", True)


def test_a_public_store_url_that_answers_404_is_an_error(local: Local) -> None:
    with http_server(body(b"", 404), "127.0.0.1") as url:
        mark, text = found(local, UPRES_S3_PUBLIC_URL=url)["store links"]
    assert (mark, "answers 404" in text) == ("✗", True)


@pytest.mark.parametrize("name", ["UPRES_S3_ENDPOINT_URL", "UPRES_S3_PUBLIC_URL", "UPRES_PUBLIC_URL"])
def test_urls_without_a_scheme_are_reported(local: Local, name: str) -> None:
    assert name in found(local, **{name: "localhost:9000"})["settings"][1]


def test_a_wrong_store_clock_is_reported(local: Local) -> None:
    """The doctor connects to the store through a proxy whose clock is two minutes ahead."""
    behind = local.environment["UPRES_S3_ENDPOINT_URL"]

    def ahead(handler: BaseHTTPRequestHandler) -> None:
        answer = requests.get(behind + handler.path, headers={"Host": handler.headers["Host"]}, timeout=10)
        handler.send_response_only(answer.status_code)
        handler.send_header("Date", handler.date_time_string(time.time() + 120))
        handler.send_header("Content-Length", str(len(answer.content)))
        handler.end_headers()
        handler.wfile.write(answer.content)

    with http_server(ahead, "127.0.0.1") as url:
        mark, text = found(local, UPRES_S3_PUBLIC_URL=url)["clock of the store"]
    assert (mark, "NTP" in text) == ("✗", True)
    assert re.search(r"\b1[12]\d\.\d s ahead", text)


def test_a_missing_model_is_reported(local: Local) -> None:
    mark, text = found(local, UPRES_MODEL="unheard-of")["model unheard-of"]
    assert (mark, "upres models push" in text) == ("✗", True)


def test_a_missing_file_of_a_base_is_reported(local: Local, tmp_path: Path) -> None:
    names = ("doctors-base", "doctors-mix")
    mixable.pair(tmp_path, names)
    registry_changes.push(local.store, tmp_path / names[1] / "1")
    try:
        assert f"model {names[1]}" not in found(local, UPRES_MODEL=names[1])
        local.store.delete([keys.model(names[0], "1", "doctors-base-x2.safetensors")])
        mark, text = found(local, UPRES_MODEL=names[1])[f"model {names[1]}"]
        assert (mark, "doctors-base-x2.safetensors" in text) == ("✗", True)
    finally:
        local.store.delete([key for name in names for key in local.store.listing(f"models/{name}/")])
        registry_index.reindex(local.store)


def test_a_changed_model_file_is_reported(local: Local, tmp_path: Path) -> None:
    store, key = local.store, keys.model("damaged", "1", "edsr-x2.safetensors")
    folder = tmp_path / "1"
    subprocess.run(["cp", "-r", str(ROOT / "models/faithful/1"), str(folder)], check=True)
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"name": "faithful"', '"name": "damaged"', 1))
    registry_changes.push(store, folder)
    try:
        store.put(key, store.get(key)[:-1] + b"x")
        mark, text = found(local, UPRES_MODEL="damaged")["model damaged"]
    finally:
        store.delete(list(store.listing("models/damaged/")))
        registry_index.reindex(store)
    assert (mark, "edsr-x2.safetensors" in text) == ("✗", True)


def test_doctor_and_workers_report_that_no_worker_runs(local: Local) -> None:
    local.stop("worker")
    try:
        mark, text = found(local)["workers"]
        assert (mark, "python -m upres.worker" in text) == ("!", True)
        assert "No worker is there." in upres(local, "workers").stdout
    finally:
        local.start("worker")


def test_dead_letters_are_reported(local: Local, tmp_path: Path) -> None:
    with server(tmp_path, "--appendonly", "yes") as url, Redis.from_url(url) as redis:
        job_id = submit(redis)
        leases.recover(redis)  # so the next recovery does not extend the lease
        for _ in range(keys.ATTEMPTS):
            assert taken(redis).job_id == job_id
            run_out(redis, job_id)
            leases.recover(redis)
        assert "upres jobs dead" in found(local, UPRES_REDIS_URL=url)["dead letters"][1]


@pytest.mark.parametrize("answer", ["nothing", "not ready", "something else"])
def test_a_function_that_does_not_serve_is_reported(local: Local, tmp_path: Path, answer: str) -> None:
    def elsewhere(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(503 if answer == "not ready" else 404)
        handler.end_headers()
        handler.wfile.write(b'{"detail": "The job queue does not answer."}' if answer == "not ready" else b"<html>")

    with http_server(elsewhere, "127.0.0.1") as url:
        given = f"http://127.0.0.1:{free_port()}" if answer == "nothing" else url
        assert found(local, UPRES_URL=given)["function"][0] == "✗"


def test_the_workers_command_shows_workers_with_their_jobs(
    local: Local, client: Client, redis: Redis, big: bytes
) -> None:
    job_id = client.submit(big, 8).job_id
    row = re.compile(rf" ready .* threads .* of .* GB .* faithful 1 .* 1 of \d+ .*{job_id} upscale \d+ %")
    wait_until(lambda: row.search(upres(local, "workers").stdout))
    client.cancel(job_id)


@pytest.fixture
def big(photo: Image.Image) -> bytes:
    return encoded(photo.resize((480, 480)), "PNG")
