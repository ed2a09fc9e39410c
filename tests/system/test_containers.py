"""The commands of the Dockerfiles, compose.yml and Kubernetes manifests work, with only the files of their image.

Docker is not available here. So each command runs as a process without privileges, with the files that COPY would copy,
the packages that pip would install, and only the environment variables of the manifest. Hosts, ports and paths are
replaced by those of this machine.
"""

import base64
import hashlib
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
import requests
import yaml
from redis import Redis
from redis.exceptions import NoPermissionError

from infra.manifests import TOOLS, rendered, stages
from tests.support.containers import DOCKER, PASSWORD, Composed, confined
from tests.support.paths import ROOT
from tests.support.waiting import wait_until
from upres.client import Client
from upres.core import keys
from upres.embedded.child import Child, accepts, free_port
from upres.embedded.stack import redis_server

KUBERNETES = ROOT / "infra/kubernetes"
BUNDLED = ("faithful", "photo")
COUNTING = """
local listName = KEYS[1]
local listType = redis.call('type', listName).ok
local cmd = { zset = 'zcard', set = 'scard', list = 'llen', hash = 'hlen', none = 'llen' }
return redis.call(cmd[listType], listName)
"""
"""The script with which KEDA's Redis trigger counts: the length of a list, set, sorted set or hash."""


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composed]:
    """Start these services of compose.yml: Redis, an S3 server with the bundled model, and the function."""
    with Composed(tmp_path_factory.mktemp("compose")) as services:
        copied = services.run("configuration")
        assert copied.returncode == 0, copied.stderr
        services.start("redis")
        assert services.run("bucket").returncode == 0
        services.start("s3")
        pushed = services.run("models")
        assert pushed.stdout == "photo 1 is in the registry, and its base faithful 1\n", pushed.stderr
        services.start("function")
        yield services


@pytest.fixture(scope="module")
def key(composed: Composed) -> str:
    made = composed.run("operator", "keys", "create", "me")
    assert made.returncode == 0, made.stderr
    return next(word for word in made.stdout.split() if word.startswith("upres_"))


def test_every_user_can_read_the_configuration_of_a_checkout_made_with_umask_077(composed: Composed) -> None:
    folder = composed.made("configuration")
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert all(path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644) for path in folder.rglob("*"))
    named = {path.group(1) for text in (DOCKER / "compose.yml", DOCKER / "grafana/dashboards.yml")
             for path in re.finditer(r"/etc/upres/([\w./]+)", text.read_text())}  # fmt: skip
    assert all((folder / name).exists() for name in named), named
    assert files >= {
        "redis/users.acl",
        "prometheus/rules.yml",
        "grafana/datasources/upres.yml",
        "dashboards/upres.json",
    }


def test_the_services_of_compose_enlarge_an_image_and_export_metrics(composed: Composed, key: str, png: bytes) -> None:
    worker = composed.start("worker")
    with Client(f"http://127.0.0.1:{composed.ports['function']}", key) as client:
        result = client.upscale(png, 2).result
        assert result.width == 128
        assert result.sr_image_url.startswith(f"http://localhost:{composed.ports['s3']}/upres/results/")
        assert requests.get(result.sr_image_url, timeout=20).content.startswith(b"\x89PNG")
    assert "waiting  0" in composed.run("operator", "jobs").stdout
    for scraped in ("metrics", "worker"):
        assert "upres_" in requests.get(f"http://127.0.0.1:{composed.ports[scraped]}/metrics", timeout=20).text
    worker.process.send_signal(signal.SIGTERM)
    wait_until(lambda: worker.poll() is not None)
    assert worker.poll() == 0


def test_every_module_that_a_configuration_runs_is_in_the_package(tmp_path: Path) -> None:
    started: set[str] = set()
    listed = subprocess.check_output(["git", "ls-files", "infra", "serverless.yml"], cwd=ROOT, text=True)
    for name in listed.splitlines():
        if not name.endswith((".py", ".svg")):
            started |= set(re.findall(r"""-m["']?,? ["']?([a-z][\w.]+)""", (ROOT / name).read_text()))
    modules = {name for name in started if not name.startswith("infra.")}  # these run in a checkout
    assert modules >= {"upres", "upres.function", "upres.worker"}
    for module in modules:
        # In another folder than the checkout, as in an image: there is no module `function`, only `upres.function`.
        ran = subprocess.run([sys.executable, "-m", module, "--help"], cwd=tmp_path, capture_output=True, text=True)
        assert "usage" in ran.stdout.lower(), (module, ran.stderr)


def test_the_script_at_the_top_of_compose_creates_all_passwords(tmp_path: Path) -> None:
    text = (DOCKER / "compose.yml").read_text()
    script = text.replace("\n#", "\n").partition("for name")
    loop = (script[1] + script[2].partition("docker compose")[0]).replace("infra/docker/.env", f"{tmp_path}/.env")
    subprocess.run(["bash", "-euc", loop], check=True)
    made = dict(line.split("=") for line in (tmp_path / ".env").read_text().splitlines())
    assert set(made) == set(PASSWORD.findall(text))
    assert all(len(password) == 48 for password in made.values())


def test_the_models_service_succeeds_when_the_model_is_pushed_already(composed: Composed) -> None:
    assert composed.run("models").returncode == 0
    listed = composed.run("operator", "models").stdout
    assert all(name in listed for name in BUNDLED)


def test_the_models_service_succeeds_when_the_bucket_has_the_version_with_other_contents(composed: Composed) -> None:
    path = composed.made("s3") / "upres" / keys.model("photo", "1", "manifest.json")
    claim = path.with_name("manifest.sha256")
    before, claimed = path.read_bytes(), claim.read_bytes()
    other = before.replace(b'"origin": "A', b'"origin": "B', 1)  # rclone keeps the file's length in memory
    path.write_bytes(other)
    claim.write_text(hashlib.sha256(other).hexdigest())
    try:
        pushed = composed.run("models")
    finally:
        path.write_bytes(before)
        claim.write_bytes(claimed)
    assert (pushed.returncode, "with other contents" in pushed.stderr) == (0, True), pushed.stderr


def test_redis_writes_an_append_only_file_and_denies_config_to_the_worker(composed: Composed) -> None:
    with Redis.from_url(composed.environment("worker")["UPRES_REDIS_URL"]) as redis, pytest.raises(NoPermissionError):
        redis.config_get("*")
    assert list(composed.made("redis").glob("appendonlydir/*.aof"))


@pytest.mark.parametrize(
    ("service", "code"),
    [
        ("function", "import upres.worker"),
        ("function", "import torch"),
        ("function", "import upres.client.sdk"),
        ("worker", "import upres.function"),
        ("operator", "import torch"),
        ("operator", "import infra"),
        ("function", "open('written', 'w')"),
        ("worker", "open('upres/core/written', 'w')"),
        ("worker", "import os; os.chown('/proc/self', 1, 1)"),
    ],
)
def test_an_image_denies_imports_and_writes_that_its_service_does_not_need(
    composed: Composed, service: str, code: str
) -> None:
    image = composed.image(service)
    assert image
    done = subprocess.run(confined(image, {}, ["python", "-c", code]), capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(("ModuleNotFoundError", "PermissionError"))


def test_a_worker_with_weights_in_its_image_downloads_none(composed: Composed, tmp_path: Path) -> None:
    [baked] = [stage for stage in stages(DOCKER / "worker.Dockerfile") if stage.name == "baked"]
    [script] = [value for instruction, value in baked.instructions if instruction == "RUN"]
    for name in BUNDLED:
        (tmp_path / "models").mkdir(exist_ok=True)
        (tmp_path / "models" / name).symlink_to(ROOT / "models" / name / "1")
    script = script.replace("/cache", f"{tmp_path}/cache").replace("in /models", f"in {tmp_path}/models")
    subprocess.run(["sh", "-c", script], check=True)
    subprocess.run(["chmod", "-R", "a-w", tmp_path / "cache"], check=True)
    environment, port, image = composed.environment("worker"), free_port(), composed.image("worker")
    assert image
    without_weights(environment, "baked")
    changed = {"UPRES_CACHE_DIR": f"{tmp_path}/cache", "UPRES_S3_BUCKET": "baked", "UPRES_METRICS_PORT": str(port)}
    child = Child("baked", confined(image, {**environment, **changed}, image.command), {}, tmp_path)
    try:
        child.wait_ready(lambda: answers(f"http://127.0.0.1:{port}/readyz"))
    finally:
        child.stop()


def without_weights(environment: dict[str, str], bucket: str) -> None:
    """Create a bucket that contains only the manifests and the labels of the bundled models."""
    s3 = boto3.client(
        "s3",
        endpoint_url=environment["UPRES_S3_ENDPOINT_URL"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name=environment["AWS_DEFAULT_REGION"],
    )
    s3.create_bucket(Bucket=bucket)
    for name in (key for model in BUNDLED for key in (keys.labels(model), keys.model(model, "1", "manifest.json"))):
        s3.put_object(Bucket=bucket, Key=name, Body=s3.get_object(Bucket="upres", Key=name)["Body"].read())


def answers(url: str) -> bool:
    """Return whether a server accepts the connection and its response is a success."""
    try:
        return requests.get(url, timeout=20).ok
    except requests.ConnectionError:
        return False


def test_prometheus_scrapes_the_metrics_ports_of_the_compose_services(composed: Composed) -> None:
    asked = yaml.safe_load((DOCKER / "prometheus.yml").read_text())["scrape_configs"]
    for found in (found for job in asked for found in job["dns_sd_configs"]):
        [name] = found["names"]
        assert composed.services[name]["environment"]["UPRES_METRICS_PORT"] == str(found["port"])


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """Run the script of infra/kubernetes/README.md; return the secrets that it creates, by name."""
    folder = tmp_path_factory.mktemp("kubectl")
    shim = f'#!/bin/sh\n[ "$1" = apply ] || exec {TOOLS}/kubectl/kubectl "$@" --dry-run=client --output json\n'
    (folder / "kubectl").write_text(shim)
    (folder / "kubectl").chmod(0o755)
    _, _, script = (KUBERNETES / "README.md").read_text().partition("```sh\n")
    given = {f"{part}_{name}": f"{part}-{name}" for part in ("FUNCTION", "WORKER") for name in ("KEY_ID", "SECRET")}
    environment = {"PATH": f"{folder}:/usr/bin:/bin", **given}
    command = ["bash", "-euo", "pipefail", "-c", script.partition("```")[0]]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    made = list(yaml.safe_load_all(done.stdout.replace("}\n{", "}\n---\n{")))
    return {one["metadata"]["name"]: {key: base64.b64decode(value).decode() for key, value in one["data"].items()}
            for one in made}  # fmt: skip


@pytest.fixture(scope="module")
def redis(secrets: dict[str, dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a Redis server with the arguments of components/redis; return its address."""
    folder, port = tmp_path_factory.mktemp("redis"), free_port()
    (folder / "users.acl").write_text(secrets["upres-redis"]["users.acl"])
    [described] = [one for one in rendered(KUBERNETES / "overlays/cpu")[0] if one["kind"] == "StatefulSet"]
    [container] = described["spec"]["template"]["spec"]["containers"]
    words = {"valkey-server": redis_server(), "/data": str(folder), "/etc/upres/users.acl": f"{folder}/users.acl"}
    command = [words.get(word, word) for word in container["args"]]
    child = Child("redis", [*command, "--bind", "127.0.0.1", "--port", str(port)], {}, folder)
    child.wait_ready(lambda: accepts(port))
    yield f"127.0.0.1:{port}"
    child.stop()


def test_function_and_workers_have_credentials_of_their_own_for_the_store(
    composed: Composed, secrets: dict[str, dict[str, str]]
) -> None:
    parts = ("function", "worker", "operator")
    for given in (
        [secrets[f"upres-{part}"] for part in parts[:2]],
        [composed.services[part]["environment"] for part in parts],
    ):
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            assert len({one[name] for one in given} - {""}) == len(given)


def connected(secrets: dict[str, dict[str, str]], user: str, address: str) -> Redis:
    url = urlsplit(secrets[f"upres-{user}"]["UPRES_REDIS_URL"])
    assert (url.hostname, url.port) == ("upres-redis", 6379)
    return Redis.from_url(url._replace(netloc=f"{url.username}:{url.password}@{address}").geturl())


def test_the_redis_of_the_cluster_accepts_its_users_and_denies_flushall(
    secrets: dict[str, dict[str, str]], redis: str
) -> None:
    for user in ("function", "worker"):
        with connected(secrets, user, redis) as connection:
            assert connection.ping()
            with pytest.raises(NoPermissionError):
                connection.flushall()


def test_the_redis_user_of_keda_can_count_entries_and_do_nothing_else(
    secrets: dict[str, dict[str, str]], redis: str
) -> None:
    scaler, (host, port) = secrets["upres-scaler"], redis.split(":")
    with connected(secrets, "function", redis) as function:
        function.lpush(keys.WAITING, "a", "b")
        function.zadd(keys.LEASES, {"c": 1})
        function.zadd(keys.DEADLINES, {"a": 1, "b": 2, "c": 3})
    with Redis(host, int(port), username=scaler["username"], password=scaler["password"], protocol=3) as keda:
        assert keda.eval(COUNTING, 1, keys.WAITING) == 2
        assert keda.eval(COUNTING, 1, keys.LEASES) == 1
        assert keda.eval(COUNTING, 1, keys.DEADLINES) == 3
        refused: list[tuple[Any, ...]] = [("DEL", keys.WAITING), ("LPUSH", keys.WAITING, "x"), ("TYPE", keys.API_KEYS)]
        for command in refused:
            with pytest.raises(NoPermissionError):
                keda.execute_command(*command)
