"""The IAM roles of the AWS deployment: each part has the permissions that it needs, and no others."""

import itertools
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import boto3
import pytest
import requests

from tests.system.aws.conftest import Aws, Template
from tests.system.aws.intrinsics import ACCOUNT, REGION, resolved
from upres.core.errors import StoreUnavailable
from upres.core.settings import Settings
from upres.core.storage import ObjectNotFound, Store

INTERFACES = (
    "AssignPrivateIpAddresses", "CreateNetworkInterface", "DeleteNetworkInterface", "DescribeNetworkInterfaces",
    "DescribeSubnets", "UnassignPrivateIpAddresses",
)  # fmt: skip
NETWORK = {f"ec2:{action}": {"*"} for action in INTERFACES}
STORE = {
    "s3:PutObject": {"Bucket.Arn/uploads/*"},
    "s3:GetObject": {"Bucket.Arn/results/*", "Bucket.Arn/models/*"},
    "s3:ListBucket": {"Bucket.Arn"},
}
AGENT = ("DeregisterContainerInstance", "RegisterContainerInstance", "SubmitAttachmentStateChanges",
         "SubmitContainerStateChange", "SubmitTaskStateChange")  # fmt: skip
INSTANCES = f"arn:aws:ecs:{REGION}:{ACCOUNT}:container-instance/Cluster/*"


def logs(group: str) -> dict[str, set[str]]:
    return {f"logs:{action}": {f"{group}.Arn"} for action in ("CreateLogStream", "PutLogEvents")}


def start(image: str, secret: str, group: str) -> dict[str, set[str]]:
    """Return the permissions that ECS needs to start a container: pull the image, read the secret, write logs."""
    repository = {f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/{image}"}
    pull = {f"ecr:{a}": repository for a in ("BatchCheckLayerAvailability", "BatchGetImage", "GetDownloadUrlForLayer")}
    return {"ecr:GetAuthorizationToken": {"*"}, **pull, "secretsmanager:GetSecretValue": {secret}, **logs(group)}


MAY = {
    "EntryRole": {**STORE, **NETWORK, **logs("EntryLogGroup")},
    "BacklogRole": {**NETWORK, **logs("BacklogLogGroup")},
    "GatewayRole": STORE,
    "GatewayExecutionRole": start("upres-function", "FunctionRedisUrl", "GatewayLogGroup"),
    "WorkerRole": {
        "s3:GetObject": {f"Bucket.Arn/{name}/*" for name in ("uploads", "models", "results", "checkpoints")},
        "s3:PutObject": {"Bucket.Arn/results/*", "Bucket.Arn/checkpoints/*"},
        "s3:AbortMultipartUpload": {"Bucket.Arn/results/*"},
        "s3:DeleteObject": {"Bucket.Arn/checkpoints/*"},
        "s3:ListBucket": {"Bucket.Arn"},
    },
    "WorkerExecutionRole": start("upres-worker", "WorkerRedisUrl", "WorkerLogGroup"),
    "WorkerInstanceRole": {
        "ecs:DiscoverPollEndpoint": {"*"},
        **{f"ecs:{action}": {"Cluster.Arn"} for action in AGENT},
        **{f"ecs:{a}": {INSTANCES} for a in ("Poll", "StartTelemetrySession", "UpdateContainerInstancesState")},
    },
}
WHO = {"Entry": "lambda", "Backlog": "lambda", "WorkerInstance": "ec2"}
"""The AWS service that assumes the role; all other roles are assumed by ECS tasks."""


def statements(template: Template, role: str, known: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return all statements of the inline and managed policies of a role."""
    properties = template["Resources"][role]["Properties"]
    policies = [*properties.get("Policies", [])]
    policies += [template["Resources"][one["Ref"]]["Properties"] for one in properties.get("ManagedPolicyArns", [])]
    found = itertools.chain.from_iterable(policy["PolicyDocument"]["Statement"] for policy in policies)
    return [resolved(statement, known) for statement in found]


def listed(one: str | list[str]) -> list[str]:
    return [one] if isinstance(one, str) else one


def roles(template: Template) -> dict[str, Any]:
    return {name: one["Properties"] for name, one in template["Resources"].items() if one["Type"] == "AWS::IAM::Role"}


def test_each_role_allows_exactly_the_expected_actions_on_its_resources(template: Template) -> None:
    allowed: dict[str, dict[str, set[str]]] = {name: defaultdict(set) for name in roles(template)}
    for name, may in allowed.items():
        for statement in statements(template, name, {}):
            if statement["Effect"] == "Allow":
                assert "Condition" not in statement
                for action in listed(statement["Action"]):
                    may[action] |= set(listed(statement["Resource"]))
    assert allowed == MAY


def test_each_role_can_be_assumed_by_exactly_one_aws_service(template: Template) -> None:
    for name, properties in roles(template).items():
        [trust] = properties["AssumeRolePolicyDocument"]["Statement"]
        service = WHO.get(name.removesuffix("Role"), "ecs-tasks")
        assert trust["Principal"] == {"Service": f"{service}.amazonaws.com"}


def test_the_code_of_the_functions_is_denied_all_network_interface_actions(template: Template) -> None:
    for role in ("EntryRole", "BacklogRole"):
        [denied] = [one for one in statements(template, role, {}) if one["Effect"] == "Deny"]
        assert set(denied["Action"]) == set(NETWORK)
        [pattern] = denied["Condition"]["ArnLike"].values()
        names = {one["Properties"]["FunctionName"] for one in functions(template)}
        assert all(name.startswith(pattern.rpartition(":")[2].removesuffix("*")) for name in names)


def functions(template: Template) -> list[dict[str, Any]]:
    return [one for one in template["Resources"].values() if one["Type"] == "AWS::Lambda::Function"]


@pytest.fixture(params=["EntryRole", "GatewayRole", "WorkerRole"])
def role(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def store(aws: Aws, stack: dict[str, str], template: Template, role: str) -> Iterator[Store]:
    """The bucket, accessed with the credentials of this role, while moto enforces IAM policies."""
    known = {"Bucket.Arn": f"arn:aws:s3:::{stack['Bucket']}"}
    allowed = [one for one in statements(template, role, known) if "s3:" in str(one["Action"])]
    iam = aws.client("iam")
    trust = template["Resources"][role]["Properties"]["AssumeRolePolicyDocument"]
    iam.create_role(RoleName=role, AssumeRolePolicyDocument=json.dumps(resolved(trust, {})))
    document = json.dumps({"Version": "2012-10-17", "Statement": allowed})
    iam.put_role_policy(RoleName=role, PolicyName="store", PolicyDocument=document)
    arn = f"arn:aws:iam::{ACCOUNT}:role/{role}"
    made = aws.client("sts").assume_role(RoleArn=arn, RoleSessionName="test")["Credentials"]
    session = boto3.session.Session(made["AccessKeyId"], made["SecretAccessKey"], made["SessionToken"], REGION)
    ask(aws, 0)
    yield Store(Settings(s3_bucket=stack["Bucket"], s3_endpoint_url=aws.url), session, attempts=1)
    ask(aws, float("inf"))


def ask(aws: Aws, after: float) -> None:
    """Tell moto to enforce IAM policies after this number of requests (infinity: never)."""
    requests.post(f"{aws.url}/moto-api/reset-auth", data=str(after), timeout=20).raise_for_status()


def test_a_role_can_read_and_write_only_its_own_prefixes_in_the_bucket(store: Store, role: str) -> None:
    """moto enforces the policies for PutObject and GetObject."""
    for prefix in ("uploads", "results", "checkpoints", "models"):
        may = {action for action, places in MAY[role].items() if f"Bucket.Arn/{prefix}/*" in places}
        assert can(lambda key: store.put(key, b"x"), f"{prefix}/x") == ("s3:PutObject" in may), prefix
        assert can(store.get, f"{prefix}/y") == ("s3:GetObject" in may), prefix


def can(attempt: Callable[[str], object], key: str) -> bool:
    with suppress(ObjectNotFound):
        try:
            attempt(key)
        except StoreUnavailable as error:
            if "AccessDenied" not in str(error):
                raise
            return False
    return True
