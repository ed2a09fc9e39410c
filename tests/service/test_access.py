"""Tests of access control: API keys, their limits, owners of jobs, tokens of jobs, and security headers."""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image
from redis import Redis

from tests.support.images import encoded
from tests.support.leasing import submit, taken
from tests.support.servers import function, post_job
from tests.support.workers import worker
from upres.client import Client
from upres.core import api_keys, events, keys, leases
from upres.core.api_keys import ApiKey
from upres.core.schema import Cancelled, Failed
from upres.embedded.stack import Local
from upres.function.access import check_token, make_token

URL = {"image_url": "https://example.org/a.png"}
pytestmark = pytest.mark.without_worker


@pytest.fixture(scope="module")
def guarded(local: Local, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A function that requires an API key: its URL."""
    yield from function(local, tmp_path_factory.mktemp("guarded"), UPRES_ACCESS="keys")


Key = tuple[ApiKey, str]


def made(redis: Redis, **limits: Any) -> Key:
    return api_keys.create(redis, "somebody", **limits)


@pytest.fixture
def key(redis: Redis) -> Iterator[Key]:
    fresh = made(redis)
    yield fresh
    redis.hdel(keys.API_KEYS, fresh[0].key_id)


def test_requests_without_a_valid_key_get_401_except_on_open_paths(guarded: str, key: Key) -> None:
    job = post_job(guarded, key[1]).json()["job_id"]
    asked = [("POST", "/v1/jobs"), ("GET", f"/v1/jobs/{job}"), ("DELETE", f"/v1/jobs/{job}"), ("GET", "/v1/models")]
    asked += [("GET", f"/v1/jobs/{job}/{what}") for what in ("events", "result", "original")]
    altered = key[1][:-1] + ("A" if key[1][-1] != "A" else "B")
    for wrong in (
        "",
        "Bearer",
        "Bearer ",
        f"Basic {key[1]}",
        f"Bearer {altered}",
        f"Bearer {key[1]}x",
        "Bearer upres__",
    ):
        for method, path in asked:
            answer = requests.request(method, guarded + path, json=URL, headers={"Authorization": wrong}, timeout=20)
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized"), (wrong, path)
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    for open_path in ("/", "/healthz", "/readyz", "/openapi.json", "/web/page.js"):
        assert requests.get(guarded + open_path, timeout=20).ok


def test_redis_does_not_store_the_secret_of_a_key(redis: Redis, key: Key) -> None:
    secret = key[1].split("_", 2)[2]
    assert len(secret) == 43
    assert secret not in str(redis.hvals(keys.API_KEYS))
    assert api_keys.authenticate(redis, key[1]) == key[0]


def test_a_key_with_a_wrong_id_or_secret_is_not_authenticated(redis: Redis, key: Key) -> None:
    _, name, secret = key[1].split("_", 2)
    other = "0" * 8 if name != "0" * 8 else "1" * 8
    for text in (f"upres_{other}_{secret}", f"upres_{name}_{'A' * 43}", f"upres_{name}_", f"UPRES_{name}_{secret}"):
        assert api_keys.authenticate(redis, text) is None


def test_a_revoked_key_is_rejected(guarded: str, redis: Redis) -> None:
    key, text = made(redis)
    assert post_job(guarded, text).status_code == 202
    api_keys.revoke(redis, key.key_id)
    assert post_job(guarded, text).status_code == 401


def test_the_job_of_another_key_is_answered_like_an_unknown_job(guarded: str, redis: Redis, key: Key) -> None:
    other = made(redis)
    job = post_job(guarded, key[1]).json()["job_id"]
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/events"), ("GET", "/result"), ("GET", "/original")):
        answers = [
            requests.request(
                method, f"{guarded}/v1/jobs/{one}{path}", headers={"Authorization": f"Bearer {other[1]}"}, timeout=20
            )
            for one in (job, secrets.token_hex(16))
        ]
        assert [answer.json()["code"] for answer in answers] == ["job_not_found"] * 2
        assert answers[0].text.replace(job, "") == answers[1].text.replace(answers[1].url.split("/")[5], "")
    mine = requests.get(f"{guarded}/v1/jobs/{job}", headers={"Authorization": f"Bearer {key[1]}"}, timeout=20)
    assert mine.json()["status"] == "queued"


def test_two_owners_with_the_same_idempotency_key_get_two_jobs(guarded: str, redis: Redis, key: Key) -> None:
    other = made(redis)
    same = {"Idempotency-Key": secrets.token_hex(8)}
    mine, again, theirs = (post_job(guarded, text, **same).json()["job_id"] for text in (key[1], key[1], other[1]))
    assert mine == again != theirs


def test_requests_above_the_rate_limit_get_429_with_retry_after(guarded: str, redis: Redis) -> None:
    _, text = made(redis, requests_per_minute=3)
    answers = [post_job(guarded, text) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [202, 202, 202, 429, 429]
    assert answers[3].json()["code"] == "rate_limited"
    assert answers[3].json()["retryable"] is True
    assert 15 <= int(answers[3].headers["Retry-After"]) <= 20


def test_repetitions_at_once_get_one_job_and_take_one_place(guarded: str, redis: Redis) -> None:
    _, text = made(redis, jobs_at_once=1)
    same = {"Idempotency-Key": secrets.token_hex(8)}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: post_job(guarded, text, **same), range(8)))
    assert [answer.status_code for answer in answers] == [202] * 8
    [job] = {answer.json()["job_id"] for answer in answers}
    assert post_job(guarded, text).json()["code"] == "too_many_jobs"
    requests.delete(f"{guarded}/v1/jobs/{job}", headers={"Authorization": f"Bearer {text}"}, timeout=20)
    assert post_job(guarded, text).status_code == 202


def test_jobs_above_the_concurrency_limit_are_refused_until_one_ends(guarded: str, redis: Redis) -> None:
    _, text = made(redis, jobs_at_once=2)
    first, _, third = (post_job(guarded, text) for _ in range(3))
    assert third.json()["code"] == "too_many_jobs"
    job = first.json()["job_id"]
    requests.delete(f"{guarded}/v1/jobs/{job}", headers={"Authorization": f"Bearer {text}"}, timeout=20)
    assert post_job(guarded, text).status_code == 202
    assert post_job(guarded, text).status_code == 429


def test_invalid_requests_take_no_place_of_a_job(guarded: str, redis: Redis) -> None:
    _, text = made(redis, jobs_at_once=1)
    for _ in range(3):
        assert post_job(guarded, text, {"image_base64": "no base64!"}).status_code == 422
    assert post_job(guarded, text).status_code == 202
    assert post_job(guarded, text).json()["code"] == "too_many_jobs"


def test_jobs_above_the_daily_pixel_limit_fail(local: Local, guarded: str, redis: Redis, png: bytes) -> None:
    """Jobs that run at the same time cannot exceed the daily pixel limit together."""
    _, text = made(redis, megapixels_per_day=3 * 64 * 48 * 16 / 1e6)
    with Client(guarded, text) as client:
        jobs = [client.submit(encoded(Image.new("RGB", (64, 48), (n, 0, 0)), "PNG"), 4) for n in range(6)]
        with worker(local):
            ends = [list(client.events(job.job_id))[-1] for job in jobs]
    assert sorted(end.type for end in ends) == ["failed"] * 3 + ["succeeded"] * 3
    [code] = {(end.code, end.retryable) for end in ends if isinstance(end, Failed)}
    assert code == ("quota_exceeded", True)
    assert "counts as 0.05 megapixels, and this key has 0.00 left" in next(
        e.message for e in ends if isinstance(e, Failed)
    )
    answer = post_job(guarded, text)
    assert answer.json()["code"] == "quota_exceeded"
    assert 86_000 < int(answer.headers["Retry-After"]) <= 86_400


def test_the_pixels_of_a_job_are_charged_only_once(redis: Redis) -> None:
    key, _ = made(redis)
    job_id = submit(redis, owner=key.key_id)
    api_keys.admit(redis, key, job_id)
    lease = taken(redis)
    for _ in range(3):
        api_keys.charge(redis, lease, 500)
    assert redis.hget(f"upres:key:{key.key_id}:pixels", "used") == b"500"
    leases.give_back(redis, lease, "worker_stopping")
    again = taken(redis)
    api_keys.charge(redis, lease, 500)  # a late charge with the old lease
    api_keys.charge(redis, again, 500)
    assert redis.hget(f"upres:key:{key.key_id}:pixels", "used") == b"500"
    events.append(redis, Cancelled(job_id=job_id))


def test_the_command_uses_the_api_key_from_the_environment(
    local: Local, guarded: str, key: Key, png: bytes, tmp_path: Path
) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(png)
    command = [str(Path(sys.executable).parent / "upres"), str(photo), "--server", guarded, "--out", str(tmp_path)]
    environment = {**os.environ, **local.environment}
    with worker(local):
        without = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        done = subprocess.run(
            command, env={**environment, "UPRES_API_KEY": key[1]}, capture_output=True, text=True, timeout=60
        )
    assert without.returncode == 1
    assert "unauthorized" in without.stderr
    assert done.returncode == 0, done.stderr


def test_operators_create_list_and_revoke_keys_by_command(local: Local, guarded: str) -> None:
    def upres(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [str(Path(sys.executable).parent / "upres"), "keys", *arguments]
        return subprocess.run(
            command, env={**os.environ, **local.environment}, capture_output=True, text=True, timeout=30
        )

    text = upres("create", "Ann", "--per-minute", "7", "--megabytes", "123").stdout.strip()
    assert post_job(guarded, text).status_code == 202
    listed = upres().stdout
    assert [line.split()[-1] for line in listed.splitlines() if "Ann" in line] == ["123"]
    assert text not in listed
    assert upres("revoke", text.split("_")[1]).returncode == 0
    assert post_job(guarded, text).status_code == 401
    assert "There is no key" in upres("revoke", "nothing").stderr
    assert "requests_per_minute" in upres("create", "Bob", "--per-minute", "0").stderr


def test_a_job_token_allows_reading_the_job_but_not_cancelling_it(guarded: str, redis: Redis, key: Key) -> None:
    accepted = post_job(guarded, key[1]).json()
    events.append(redis, Cancelled(job_id=accepted["job_id"]))
    answer = requests.get(accepted["events_url"], timeout=20)
    assert answer.text.count("data: ") == 2
    token = accepted["events_url"].partition("?token=")[2]
    for path in ("", "/preview"):
        assert requests.get(f"{accepted['status_url']}{path}?token={token}", timeout=20).ok
        assert requests.get(f"{accepted['status_url']}{path}?token={token[:-1]}", timeout=20).status_code == 401
    for path in ("/result", "/original"):
        ended = requests.get(f"{accepted['status_url']}{path}?token={token}", timeout=20)
        assert ended.status_code == 410  # the job was cancelled, so it has no images
        assert requests.get(f"{accepted['status_url']}{path}?token={token[:-1]}", timeout=20).status_code == 401
    assert requests.delete(f"{accepted['status_url']}?token={token}", timeout=20).status_code == 401


def test_thousands_of_wrong_tokens_are_rejected(guarded: str, redis: Redis, key: Key) -> None:
    accepted = post_job(guarded, key[1]).json()
    job_id, token = accepted["job_id"], accepted["events_url"].partition("?token=")[2]
    secret = redis.get(keys.JOB_SIGNING_KEY)
    assert isinstance(secret, bytes)
    assert check_token(secret, job_id, token)
    key_id = key[0].key_id
    other = make_token(secret, secrets.token_hex(16), key_id)
    other_key = make_token(secret, job_id, "0" * 8)
    expired = make_token(secret, job_id, key_id, seconds=-1)
    forged = [make_token(secrets.token_bytes(32), job_id, key_id) for _ in range(3000)]
    guessed = [secrets.token_urlsafe(42) for _ in range(3000)]
    altered = [token[:at] + letter + token[at + 1 :] for at in range(len(token)) for letter in "ABCxyz012789-_=+/ " * 4]
    wrong = [one for one in ("", "=", "é", other, expired, token + "=", *forged, *guessed, *altered) if one != token]
    assert len(wrong) > 9000
    assert [one for one in wrong if check_token(secret, job_id, one)] == []
    with requests.Session() as session:
        for one in [other_key, *wrong[:6], *wrong[6::40]]:
            answer = session.get(f"{accepted['status_url']}/events", params={"token": one}, timeout=20)
            assert answer.status_code == 401, one
            assert "data:" not in answer.text


def test_with_open_access_a_job_needs_no_key(local: Local, tmp_path: Path) -> None:
    for url in function(local, tmp_path, UPRES_ACCESS="open"):
        assert post_job(url, None).status_code == 202


def test_every_response_has_security_headers(guarded: str, local: Local) -> None:
    for url in (
        guarded,
        f"{guarded}/web/page.js",
        f"{guarded}/v1/jobs/x",
        f"{guarded}/nothing",
        f"{local.url}/metrics",
    ):
        headers = requests.get(url, timeout=20).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert "Server" not in headers
