"""`python -m infra.manifests` finds faults in container and Kubernetes files; other tests check what no schema can."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.manifests import Check, Document, compose, dockerfile, main, overlay, rendered, variables
from infra.source_tree import packages
from tests.support.paths import ROOT
from upres.core import keys
from upres.core.settings import Settings

OVERLAYS = ROOT / "infra/kubernetes/overlays"
PLACES: dict[str, Callable[[Path], Iterable[Check]]] = {
    "docker": lambda root: dockerfile(root, root / "infra/docker/worker.Dockerfile"),
    "compose": lambda root: compose(root, root / "infra/docker/compose.yml"),
    "cpu": lambda root: overlay(root / "infra/kubernetes/overlays/cpu"),
    "nvidia": lambda root: overlay(root / "infra/kubernetes/overlays/nvidia"),
    "variables": lambda root: [variables(root)],
}
PLANTED = [
    ("cpu", "base/worker.yaml", "automountServiceAccountToken", "automountToken", "'automountToken' was unexpected"),
    ("cpu", "base/function.yaml", "timeoutSeconds", "timeout", "'timeout' was unexpected"),
    ("nvidia", "base/function.yaml", "maxReplicas: 10", "maxReplicas: ten", "spec.maxReplicas: 'ten' is not of type"),
    (
        "cpu",
        "base/worker.yaml",
        "  selector:\n    matchLabels: *labels\n  t",
        "  t",
        "'selector' is a required property",
    ),
    ("cpu", "base/network.yaml", "kind: NetworkPolicy", "kind: NetworkPolice", "schema for kind NetworkPolice"),
    ("cpu", "base/scaling.yaml", "maxReplicaCount: 8", "maxReplicaCount: '8'", "maxReplicaCount must be integer"),
    ("cpu", "base/scaling.yaml", '"8"', "8", "spec/triggers/0/metadata/listLength must be string"),
    ("nvidia", "base/scaling.yaml", "cooldownPeriod", "coolDownPeriod", "'\"coolDownPeriod\"' does not exist"),
    ("nvidia", "base/scaling.yaml", "  key: tls", "  kee: tls", "secretTargetRef/3 must have required property key"),
    ("cpu", "base/monitoring.yaml", "interval: 15s", "every: 15s", "'\"every\"' does not exist"),
    ("cpu", "base/monitoring.yaml", "interval: 15s", "interval: often", "interval must match pattern"),
    ("nvidia", "overlays/nvidia/worker.yaml", "name: upres-worker", "name: worker", "no matches for Id Deployment"),
    ("cpu", "base/kustomization.yaml", "scaling.yaml", "scale.yaml", "scale.yaml: no such file"),
    ("nvidia", "overlays/nvidia/kustomization.yaml", "0.1.0-cuda", "latest", "upres-worker:latest is not pinned"),
    ("cpu", "components/redis/redis.yaml", "(9.1.2)@sha256:[0-9a-f]+", r"\1", "valkey/valkey:9.1.2 is not pinned"),
    ("docker", "worker.Dockerfile", "(:24.04)@sha256:[0-9a-f]+", r"\1", "ubuntu:24.04 is not pinned"),
    ("docker", "worker.Dockerfile", "ARG DEVICE=cuda", "ARG DEVICE=tpu", "tpu is not pinned"),
    ("docker", "worker.Dockerfile", "=755 worker upres/worker", "=755 wroker upres/worker", "wroker is not there"),
    ("docker", ".dockerignore", "!models/faithful", "!models/other", "models/faithful/1 is not there"),
    ("docker", "worker.Dockerfile", "COPY --chmod=755 core", "COPY core", "its user may be unable to read"),
    ("docker", "worker.Dockerfile", "COPY --chmod=755 core", "COPY --chmod=700 core", "its user may be unable to read"),
    ("docker", "worker.Dockerfile", "--no-install-recommends", "", "DL3015"),
    ("docker", "worker.Dockerfile", "USER 10001:10001", "USERS 10001", "missing whitespace"),
    ("compose", "compose.yml", "depends_on:", "depend_on:", "('depend_on' was unexpected)"),
    ("compose", "compose.yml", ": service_healthy", ": well", "s3.condition: 'well' is not one of"),
    ("compose", "compose.yml", "services:", "services: :", "Failed to parse"),
    ("compose", "compose.yml", "(grafana:13.2.1)@sha256:[0-9a-f]+", r"\1", "grafana/grafana:13.2.1 is not pinned"),
    ("compose", "compose.yml", "redis/users.acl:", "redis/user.acl:", "there is no ../redis/user.acl"),
    ("compose", "compose.yml", "docker/worker.Dockerfile", "worker.Dockerfile", "no ../../infra/worker.Dockerfile"),
    ("variables", "base/settings.env", "UPRES_SLOTS", "UPRES_SLOT", "base/settings.env: UPRES_SLOT is no setting"),
    ("variables", "compose.yml", "UPRES_ACCESS", "UPRES_ACESS", "compose.yml: UPRES_ACESS is no setting"),
    ("variables", "worker.Dockerfile", "UPRES_CACHE_DIR", "UPRES_CACHE", "UPRES_CACHE is no setting"),
]
REACHED = {
    "93.184.215.14": True, "2606:2800:21f:cb07:6820:80da:af6b:8b2c": True, "10.1.2.3": False, "172.20.0.1": False,
    "192.168.0.1": False, "169.254.169.254": False, "127.0.0.1": False, "100.64.0.1": False, "fd00:ec2::254": False,
    "::1": False, "fe80::1": False, "::ffff:10.0.0.1": False,
}  # fmt: skip


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the manifests that the test can change."""
    for name in ("docker", "kubernetes", "redis"):
        shutil.copytree(ROOT / "infra" / name, tmp_path / "infra" / name)
    for path in ("infra/prometheus", "infra/grafana", *sorted(str(folder) for folder in packages().values())):
        (tmp_path / path).symlink_to(ROOT / path)
    shutil.copy(ROOT / ".dockerignore", tmp_path)
    return tmp_path


@pytest.mark.parametrize(("place", "file", "old", "new", "said"), PLANTED, ids=[said for *_, said in PLANTED])
def test_the_check_finds_each_planted_fault(copy: Path, place: str, file: str, old: str, new: str, said: str) -> None:
    path = copy / file if file == ".dockerignore" else next((copy / "infra").rglob(f"*/{file}"))
    changed = re.sub(old if "[" in old else re.escape(old), new, path.read_text())
    assert changed != path.read_text()
    path.write_text(changed)
    wrong = [sentence for looked in PLACES[place](copy) for sentence in looked.wrong]
    assert any(said in sentence for sentence in wrong), wrong


def test_the_check_finds_no_fault_in_the_repository() -> None:
    done = subprocess.run([sys.executable, "-m", "infra.manifests"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for looked in ("worker.Dockerfile: hadolint", "compose.yml: schema", "cpu: StatefulSet upres-redis",
                   "nvidia: ScaledObject upres-worker", "nvidia: PodMonitor upres-worker"):  # fmt: skip
        assert looked in done.stdout
    assert done.stdout.endswith("manifests: all fine\n")


def test_the_check_prints_the_fault_and_fails(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / "infra/docker/compose.nvidia.yml").write_text("services: {worker: {imagine: upres-worker}}")
    assert main(copy) == 1
    received = capsys.readouterr().out
    assert "wrong  infra/docker/compose.nvidia.yml: schema\n         $.services.worker: Unevaluated" in received
    assert received.endswith("manifests: 1 wrong\n")


@pytest.fixture(scope="module", params=["cpu", "nvidia"])
def objects(request: pytest.FixtureRequest) -> list[Document]:
    """The Kubernetes objects of an overlay."""
    documents, wrong = rendered(OVERLAYS / request.param)
    assert wrong == []
    return documents


def every(objects: list[Document], *kinds: str) -> list[Document]:
    return [one for one in objects if one["kind"] in kinds]


def pods(objects: list[Document]) -> dict[str, Any]:
    """Return the pod templates, by name of their Deployment or StatefulSet."""
    return {one["metadata"]["name"]: one["spec"]["template"] for one in every(objects, "Deployment", "StatefulSet")}


def selected(objects: list[Document], selector: dict[str, Any]) -> list[Any]:
    labels = selector.get("matchLabels", {}).items()
    return [pod for pod in pods(objects).values() if labels <= pod["metadata"]["labels"].items()]


def test_every_selector_matches_the_pods_of_one_workload(objects: list[Document]) -> None:
    for one in every(objects, "Deployment", "StatefulSet", "PodDisruptionBudget", "PodMonitor"):
        assert len(selected(objects, one["spec"]["selector"])) == 1, one["metadata"]["name"]
    for service in every(objects, "Service"):
        [pod] = selected(objects, {"matchLabels": service["spec"]["selector"]})
        named = {port["name"] for container in pod["spec"]["containers"] for port in container["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= named
    for policy in every(objects, "NetworkPolicy"):
        selector = policy["spec"]["podSelector"]
        assert len(selected(objects, selector)) == (1 if selector else len(pods(objects)))


def test_the_monitors_scrape_the_ports_that_export_metrics(objects: list[Document]) -> None:
    [service_monitor], [pod_monitor] = every(objects, "ServiceMonitor"), every(objects, "PodMonitor")
    wanted = service_monitor["spec"]["selector"]["matchLabels"].items()
    [service] = [one for one in every(objects, "Service") if wanted <= one["metadata"]["labels"].items()]
    ports = {port["name"]: port["port"] for port in service["spec"]["ports"]}
    assert ports[service_monitor["spec"]["endpoints"][0]["port"]] == 9464
    [pod] = selected(objects, pod_monitor["spec"]["selector"])
    named = {port["name"]: port["containerPort"] for port in pod["spec"]["containers"][0]["ports"]}
    assert named[pod_monitor["spec"]["podMetricsEndpoints"][0]["port"]] == 9464


def test_every_pod_runs_without_root_privileges_and_with_resource_limits(objects: list[Document]) -> None:
    for pod in (template["spec"] for template in pods(objects).values()):
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["priorityClassName"] in {one["metadata"]["name"] for one in every(objects, "PriorityClass")}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]},
            }  # fmt: skip
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])
            assert "memory" in container["resources"]["limits"]


def test_the_settings_are_valid_and_pods_have_time_to_finish_their_jobs(objects: list[Document]) -> None:
    [found] = every(objects, "ConfigMap")
    settings = Settings.from_environment(found["data"])
    assert settings.metrics_port == 9464
    assert settings.access == "keys"
    worker = pods(objects)["upres-worker"]["spec"]
    assert worker["containers"][0]["envFrom"][0]["configMapRef"]["name"] == found["metadata"]["name"]
    assert worker["terminationGracePeriodSeconds"] > settings.stop_seconds + 10
    assert settings.stop_seconds >= keys.JOB_SECONDS


def test_the_function_does_not_start_without_its_address_for_clients(objects: list[Document]) -> None:
    """TLS ends at the ingress, so requests do not show whether a client came by https. Kubernetes requires the key."""
    [container] = pods(objects)["upres-function"]["spec"]["containers"]
    [wanted] = [one["valueFrom"] for one in container["env"] if one["name"] == "UPRES_PUBLIC_URL"]
    [settings] = every(objects, "ConfigMap")
    assert wanted == {"configMapKeyRef": {"name": settings["metadata"]["name"], "key": "UPRES_PUBLIC_URL"}}
    assert "UPRES_PUBLIC_URL" not in settings["data"]  # an example would become the address in answers


def test_keda_scales_workers_by_the_queue_and_the_leases(objects: list[Document]) -> None:
    [scaled], [trusted] = every(objects, "ScaledObject"), every(objects, "TriggerAuthentication")
    triggers = {one["metadata"]["listName"]: one["metadata"]["listLength"] for one in scaled["spec"]["triggers"]}
    assert list(triggers) == [keys.WAITING, keys.LEASES, keys.DEADLINES]
    [settings] = every(objects, "ConfigMap")
    assert triggers[keys.LEASES] == settings["data"]["UPRES_SLOTS"]
    [worker] = pods(objects)["upres-worker"]["spec"]["containers"]
    assert int(settings["data"]["UPRES_SLOTS"]) == int(worker["resources"]["requests"]["cpu"]) + 2
    assert {trigger["authenticationRef"]["name"] for trigger in scaled["spec"]["triggers"]} == {"upres-scaler"}
    assert trusted["metadata"]["name"] == "upres-scaler"
    assert scaled["spec"]["minReplicaCount"] == 0
    deployments = {one["metadata"]["name"]: one["spec"] for one in every(objects, "Deployment")}
    [function] = every(objects, "HorizontalPodAutoscaler")
    for scaler in (scaled, function):
        assert "replicas" not in deployments[scaler["spec"]["scaleTargetRef"]["name"]]


def test_the_worker_requests_a_gpu_exactly_when_its_image_uses_cuda(objects: list[Document]) -> None:
    [container] = pods(objects)["upres-worker"]["spec"]["containers"]
    gpus = [container["resources"][part].get("nvidia.com/gpu") for part in ("requests", "limits")]
    cuda = container["image"].endswith("-cuda")
    assert gpus == ([1, 1] if cuda else [None, None])
    assert ({"name": "UPRES_DEVICE", "value": "cuda"} in container.get("env", [])) is cuda


def egress(objects: list[Document], name: str) -> list[tuple[set[int], list[Any]]]:
    """The ports and the targets that each rule of a network policy allows. A rule without targets would allow all."""
    [policy] = [one for one in every(objects, "NetworkPolicy") if one["metadata"]["name"] == name]
    return [({one["port"] for one in rule["ports"]}, rule["to"]) for rule in policy["spec"]["egress"]]


def within(address: str, targets: list[Any]) -> bool:
    """Whether the blocks among the targets contain an address."""
    blocks = [target["ipBlock"] for target in targets if "ipBlock" in target]
    return any(
        ip_address(address) in ip_network(block["cidr"])
        and not any(ip_address(address) in ip_network(hole) for hole in block.get("except", ()))
        for block in blocks
    )


@pytest.mark.parametrize(("name", "ports"), [("upres-function", {443}), ("upres-worker", {443, 80})])
def test_pods_reach_only_redis_and_public_addresses(objects: list[Document], name: str, ports: set[int]) -> None:
    redis, public, *outside = egress(objects, name)
    assert redis == ({6379}, [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "upres-redis"}}}])
    assert public[0] == ports
    for address, allowed in REACHED.items():
        assert within(address, public[1]) is allowed, address
    has_redis = any(one["metadata"]["name"] == "upres-redis" for one in every(objects, "StatefulSet"))
    assert [rule[0] for rule in outside] == ([] if has_redis else [{6379}])
    for _, targets in outside:
        assert all(ip_network(target["ipBlock"]["cidr"]).is_private for target in targets)


def test_names_are_looked_up_in_the_dns_of_the_cluster_only(objects: list[Document]) -> None:
    """A DNS server elsewhere could be told data in the names that are looked up."""
    [(ports, targets)] = egress(objects, "names")
    dns = {"matchLabels": {"k8s-app": "kube-dns"}}
    system = {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}
    assert (ports, targets) == ({53}, [{"namespaceSelector": system, "podSelector": dns}])


def test_only_workers_reach_the_internet_in_compose() -> None:
    described = yaml.safe_load((ROOT / "infra/docker/compose.yml").read_text())
    networks, services = described["networks"], described["services"]
    assert networks["inside"] == {"internal": True}
    assert networks["front"]["driver_opts"] == {"com.docker.network.bridge.enable_ip_masquerade": "false"}
    joined = {name: set(one.get("networks", ())) for name, one in services.items()}
    assert {name for name, found in joined.items() if not found <= {"inside", "front"}} == {"worker"}
    assert {name for name, one in services.items() if "ports" in one} == {
        name for name, found in joined.items() if "front" in found
    }
    assert {name for name, found in joined.items() if not found} == {"bucket", "configuration"}
    assert services["bucket"]["network_mode"] == services["configuration"]["network_mode"] == "none"


def allowed(statements: list[Any]) -> set[tuple[str, str]]:
    """The pairs of action and resource that statements of IAM allow; the bucket is left out of the resource."""
    found = set()
    for one in statements:
        assert one["Effect"] == "Allow"
        actions, resources = (
            [value] if isinstance(value, str) else value for value in (one["Action"], one["Resource"])
        )
        found |= {(action, resource.partition("/")[2]) for action in actions for resource in resources}
    return found


class Intrinsics(yaml.SafeLoader):
    """Reads CloudFormation's functions as their arguments."""


def _argument(loader: yaml.SafeLoader, _: str, node: yaml.ScalarNode) -> object:
    return loader.construct_scalar(node)


Intrinsics.add_multi_constructor("!", _argument)


def test_the_policies_for_other_stores_allow_what_those_on_aws_allow() -> None:
    on_aws: dict[str, tuple[str, Callable[[Any], Any]]] = {
        "function": ("functions.yml", lambda of: of["FunctionStorePolicy"]["Properties"]["PolicyDocument"]),
        "worker": ("workers.yml", lambda of: of["WorkerRole"]["Properties"]["Policies"][0]["PolicyDocument"]),
    }
    for part, (file, document) in on_aws.items():
        text = (ROOT / "infra/aws" / file).read_text()
        expected = allowed(document(yaml.load(text, Intrinsics)["Resources"])["Statement"])
        assert allowed(json.loads((ROOT / f"infra/s3/{part}.json").read_text())["Statement"]) == expected
