"""The queue on AWS (ElastiCache): its encryption, network access, and users from infra/redis/users.acl."""

import re
from typing import Any

import pytest

from tests.support.paths import ROOT
from tests.system.aws.conftest import Template
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
