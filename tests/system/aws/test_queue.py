"""The queue on AWS (ElastiCache): its encryption, network access, and users from infra/redis/users.acl."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import ROOT
from tests.system.aws.conftest import Template, osls
from tests.system.aws.intrinsics import resolved

USERS = ("Function", "Worker", "Operator")


def properties(template: Template, name: str) -> Any:
    return resolved(template["Resources"][name]["Properties"], {})


def test_the_queue_is_encrypted_replicated_without_eviction_and_private(template: Template) -> None:
    queue = properties(template, "Queue")
    assert queue["TransitEncryptionEnabled"]
    assert queue["AtRestEncryptionEnabled"]
    assert queue["AutomaticFailoverEnabled"]
    assert queue["UserGroupIds"] == ["RedisUsers"]
    assert properties(template, "QueueParameters")["Properties"] == {"maxmemory-policy": "noeviction"}
    assert properties(template, "QueueSubnets")["SubnetIds"] == ["PrivateA", "PrivateB"]
    groups = {
        one["SourceSecurityGroupId"] for one in properties(template, "QueueSecurityGroup")["SecurityGroupIngress"]
    }
    assert groups == {f"{name}SecurityGroup" for name in ("Function", "Worker", "Gateway", "Operator")}


@pytest.mark.parametrize("name", USERS)
def test_each_part_has_its_own_redis_user_password_and_address(template: Template, name: str) -> None:
    user = properties(template, f"{name}User")
    [rules] = re.findall(rf"^user {name.lower()} on #\S+ (.+)$", (ROOT / "infra/redis/users.acl").read_text(), re.M)
    assert (user["UserName"], user["AccessString"]) == (name.lower(), f"on {rules}")
    secret = f"{{{{resolve:secretsmanager:{name}Password:SecretString:::}}}}"
    assert user["AuthenticationMode"] == {"Type": "password", "Passwords": [secret]}
    generated = properties(template, f"{name}Password")["GenerateSecretString"]
    assert 16 <= generated["PasswordLength"] <= 128  # the lengths that ElastiCache accepts
    assert generated["ExcludePunctuation"]
    address = f"rediss://{name.lower()}:{secret}@Queue.PrimaryEndPoint.Address:6379/0"
    assert properties(template, f"{name}RedisUrl")["SecretString"] == address


def test_the_queue_has_no_other_redis_users(template: Template) -> None:
    """With the engine Valkey, a user group needs no user named «default»."""
    users = properties(template, "RedisUsers")
    assert (users["Engine"], set(users["UserIds"])) == ("valkey", {f"{name}User" for name in USERS})


def named(resource: Any) -> set[str]:
    """The resources that a resource refers to."""
    return set(re.findall(r'(?:"Ref": "|\$\{)(\w+)', json.dumps(resource)))


def test_a_new_number_makes_new_passwords_and_changes_whatever_has_an_old_one(
    template: Template, tmp_path: Path
) -> None:
    """CloudFormation replaces a secret with another name, and reads it again only for resources whose text changes."""
    osls("package", "--package", str(tmp_path), "--param", "passwords=2")
    deployed = template["Resources"]
    later = json.loads((tmp_path / "cloudformation-template-update-stack.json").read_text())["Resources"]
    secrets = {name for name, one in deployed.items() if one["Type"] == "AWS::SecretsManager::Secret"}
    assert secrets == {f"{name}{kind}" for name in USERS for kind in ("Password", "RedisUrl")}
    names = [json.dumps(of[name]["Properties"]["Name"]) for of in (deployed, later) for name in secrets]
    assert len(set(names)) == 2 * len(secrets)
    assert all("AWS::StackId" in name for name in names)  # a stack that is made again needs no deleted secret's name
    changed = {name for name, one in deployed.items() if named(one) & secrets}
    assert changed >= {f"{name}{kind}" for name in USERS for kind in ("User", "RedisUrl")}
    assert changed >= {"EntryLambdaFunction", "BacklogLambdaFunction", "GatewayTask", "WorkerTask"}
    resolving = {name for name, one in deployed.items() if "resolve:secretsmanager" in json.dumps(one)}
    assert resolving <= changed
